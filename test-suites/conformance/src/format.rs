//! Which files `umbra test` takes, and as what: by name, and where a name says nothing, by contents.
//!
//! ```text
//! *.MOO[.gz]  *.jsonl[.gz]   vectors          unittests.cfg   a folder of multiboot kernels (kvm-unit-tests)
//! *.toml                     a whole guest    *.flat *.elf    one multiboot kernel
//! *.bin *.rom *.img          a test ROM, if it is one by its length and its reset vector
//! ```
//!
//! In a folder everything else is passed over; a file that is named directly must be something. Called by `suite` and the app.

use crate::error::{FormatError, Position};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use umbra_machine::load;

/// What a file is to `umbra test`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// SingleStepTests vectors.
    Moo,
    /// JSON-lines vectors.
    JsonLines,
    /// A machine file with expectations.
    Guest,
    /// A multiboot 1 kernel.
    Multiboot,
    /// A list of multiboot kernels as kvm-unit-tests has it.
    UnitTests,
    /// A firmware image that tests.
    Rom,
}

/// A file and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// What it is.
    pub format: Format,
}

/// The name of kvm-unit-tests' list.
const UNIT_TESTS: &str = "unittests.cfg";
/// A multiboot header lies in so many first bytes.
const HEAD: u64 = 8192;
/// A ROM's length is a multiple of this; the largest is [`LARGEST_ROM`].
const ROM_UNIT: u64 = 0x1000;
const LARGEST_ROM: u64 = 16 << 20;
/// Folders within folders that are looked into.
const DEEPEST: usize = 32;

/// What `umbra test PATH` means: a file as itself, a folder as all that is in it and below it, sorted.
pub fn find(path: &Path) -> Result<Vec<Found>, FormatError> {
    let whole = |what: String| FormatError::new(path, Position::Whole, what);
    if !path.is_dir() {
        let format = of_named_file(path)?;
        return Ok(vec![Found { path: path.to_owned(), format }]);
    }
    let mut found = Vec::new();
    let mut folders = vec![(path.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .map_err(|e| FormatError::new(&folder, Position::Whole, format!("cannot list: {e}")))?;
        let mut here = Vec::new();
        for entry in entries.flatten() {
            let entry = entry.path();
            if entry.is_dir() {
                if depth < DEEPEST {
                    folders.push((entry, depth + 1));
                }
            } else if let Some(format) = in_folder(&entry) {
                here.push(Found { path: entry, format });
            }
        }
        // The list names its kernels itself, with what they need.
        if here.iter().any(|f| f.format == Format::UnitTests) {
            here.retain(|f| f.format != Format::Multiboot);
        }
        found.extend(here);
    }
    if found.is_empty() {
        let what =
            "holds no tests (*.MOO.gz, *.jsonl.gz, *.toml with [expect], multiboot kernels, unittests.cfg, ROM images)";
        return Err(whole(what.into()));
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// What a vector file is by its name.
pub fn vectors_by_name(file: &Path) -> Option<Format> {
    let name = file.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    if name.ends_with(".moo") { Some(Format::Moo) } else { name.ends_with(".jsonl").then_some(Format::JsonLines) }
}

fn in_folder(file: &Path) -> Option<Format> {
    if let Some(format) = vectors_by_name(file) {
        return Some(format);
    }
    if file.file_name().is_some_and(|name| name == UNIT_TESTS) {
        return Some(Format::UnitTests);
    }
    let ending = file.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    match ending.as_str() {
        "toml" => has_expectations(file).then_some(Format::Guest),
        "flat" | "elf" => Some(Format::Multiboot),
        "bin" | "rom" | "img" | "" => {
            let head = head(file).ok()?;
            if load::multiboot1::is_multiboot1(&head) {
                Some(Format::Multiboot)
            } else {
                is_rom(file).then_some(Format::Rom)
            }
        }
        _ => None,
    }
}

fn of_named_file(file: &Path) -> Result<Format, FormatError> {
    let whole = |what: String| FormatError::new(file, Position::Whole, what);
    let head = head(file).map_err(|e| whole(format!("cannot open: {e}")))?;
    if let Some(format) = in_folder(file) {
        return Ok(format);
    }
    if file.extension().is_some_and(|e| e == "toml") {
        return Ok(Format::Guest);
    }
    let length = std::fs::metadata(file).map(|m| m.len()).unwrap_or(0);
    if head.starts_with(b"MOO ") {
        Ok(Format::Moo)
    } else if head.starts_with(&[0x1f, 0x8b]) || head.trim_ascii_start().starts_with(b"{") {
        Ok(Format::JsonLines)
    } else if load::multiboot1::is_multiboot1(&head) {
        Ok(Format::Multiboot)
    } else if length > 0 && length.is_multiple_of(ROM_UNIT) && length <= LARGEST_ROM {
        Ok(Format::Rom)
    } else if length == 0 {
        Err(whole("is empty".into()))
    } else {
        let what = "is no test: neither vectors, nor a machine file, a multiboot kernel or a ROM (a multiple of 4 KiB up to 16 MiB)";
        Err(whole(what.into()))
    }
}

fn head(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(HEAD).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A machine file that says what it expects, or that cannot be read as one although it has the table.
fn has_expectations(file: &Path) -> bool {
    let Ok(bytes) = std::fs::read(file) else { return false };
    String::from_utf8_lossy(&bytes).lines().any(|line| {
        let line = line.trim();
        line.starts_with("[expect") || line.starts_with("expect.") || line.starts_with("expect =")
    })
}

/// A ROM in a folder: 64 KiB or a multiple, with a jump at its reset vector.
fn is_rom(file: &Path) -> bool {
    const JUMPS: [u8; 3] = [0xea, 0xe9, 0xeb];
    let Ok(bytes) = std::fs::read(file) else { return false };
    let length = bytes.len() as u64;
    let sound = length > 0 && length.is_multiple_of(0x1_0000) && length <= LARGEST_ROM;
    // Some begin with WBINVD, CLI or CLD.
    let vector = bytes.len().checked_sub(16).and_then(|at| bytes.get(at..)).unwrap_or(&[]);
    sound && vector.iter().find(|b| !matches!(b, 0x0f | 0x09 | 0xfa | 0xfc | 0x90)).is_some_and(|b| JUMPS.contains(b))
}

/// The name of a file's suite: its folder and its name without endings.
pub fn suite_name(file: &Path) -> String {
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    let endings = [".moo.gz", ".jsonl.gz", ".moo", ".jsonl", ".toml", ".flat", ".elf", ".bin", ".rom", ".img", ".cfg"];
    let cut = endings.iter().find(|e| lower.ends_with(**e)).map_or(name.len(), |e| name.len() - e.len());
    let stem = name.get(..cut).unwrap_or(&name);
    let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    match whole.parent().and_then(Path::file_name) {
        Some(folder) => format!("{}/{stem}", folder.to_string_lossy()),
        None => stem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_sorted_into_formats() {
        let folder = std::env::temp_dir().join(format!("umbra-format-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("below")).unwrap();
        let mut rom = vec![0xff; 0x1_0000];
        rom[0xfff0] = 0xea;
        let mut kernel = vec![0; 64];
        for (at, word) in [(4, 0x1bad_b002_u32), (8, 0), (12, 0u32.wrapping_sub(0x1bad_b002))] {
            kernel[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let files: [(&str, &[u8]); 10] = [
            ("a.jsonl", b"{}"),
            ("b.MOO.gz", b""),
            ("below/c.rom", &rom),
            ("d.toml", b"[expect]\nstatus = 0\n"),
            ("e.toml", b"cpus = 1\n"),
            ("f", &kernel),
            ("g.flat", b"x"),
            ("h.txt", b"text"),
            ("i.bin", b"no ROM"),
            ("j", b"nothing"),
        ];
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        let found: Vec<_> = find(&folder)
            .unwrap()
            .into_iter()
            .map(|f| (f.path.strip_prefix(&folder).unwrap().to_string_lossy().into_owned(), f.format))
            .collect();
        let wanted = [
            ("a.jsonl", Format::JsonLines),
            ("b.MOO.gz", Format::Moo),
            ("below/c.rom", Format::Rom),
            ("d.toml", Format::Guest),
            ("f", Format::Multiboot),
            ("g.flat", Format::Multiboot),
        ];
        assert_eq!(found, wanted.map(|(n, f)| (n.to_owned(), f)));
        // A list of kernels stands for the kernels of its folder; a file that is named is taken as it is, or refused.
        std::fs::write(folder.join("unittests.cfg"), b"").unwrap();
        let formats: Vec<Format> = find(&folder).unwrap().into_iter().map(|f| f.format).collect();
        assert!(formats.contains(&Format::UnitTests) && !formats.contains(&Format::Multiboot));
        assert_eq!(find(&folder.join("e.toml")).unwrap()[0].format, Format::Guest);
        for (name, part) in [("h.txt", "is no test"), ("gone", "cannot open"), ("below/none", "cannot open")] {
            let error = find(&folder.join(name)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn names_of_suites() {
        assert_eq!(suite_name(Path::new("/x/real/00.MOO.gz")), "real/00");
        assert_eq!(suite_name(Path::new("/x/tests/a.b.flat")), "tests/a.b");
    }
}
