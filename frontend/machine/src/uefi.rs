//! UEFI firmware as a board has it: code as a ROM that ends at 4 GiB, and right below it a flash memory with the variables.
//!
//! ```text
//!  OVMF_CODE.fd + OVMF_VARS.fd │ OVMF.fd, which begins with a template of its variables
//!                              │
//!   4 GiB − code − variables   │ variables: flash memory, kept in a file or forgotten
//!   4 GiB − code               │ code: ROM
//! ```
//!
//! What a file is, the firmware volume at its beginning says (UEFI PI 1.7, volume 3, 3.2.1). A file for variables that is not
//! there yet is made from the template: that of the image, or the file beside it that says VARS where the image's name says CODE.
//!
//! Leaves out: firmware that needs system-management mode (OVMF's builds with `secboot` in their name, which are refused). Called by `builder` and the app.

use crate::images::{self, FileStart};
use crate::memory_map::HIGH_RAM_BASE;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use umbra_devices::block::Notices;
use umbra_devices::cfi_flash::CfiFlash;
use umbra_mmu::addr::GuestPhys;

/// Bytes of the flash memory's blocks, as on QEMU's boards, which OVMF is built for.
const BLOCK: usize = 4096;
/// The most bytes of variables.
const MAX_VARIABLES: u64 = 8 << 20;

/// `EFI_SYSTEM_NV_DATA_FV_GUID`: the volume holds variables.
const NV_DATA: [u8; 16] =
    [0x8D, 0x2B, 0xF1, 0xFF, 0x96, 0x76, 0x8B, 0x4C, 0xA9, 0x85, 0x27, 0x47, 0x07, 0x5B, 0x4F, 0x50];
/// Fields of a firmware volume's header: the file system's GUID, the volume's length, the signature.
const GUID_AT: usize = 0x10;
const LENGTH_AT: usize = 0x20;
const SIGNATURE_AT: usize = 0x28;
const SIGNATURE: &[u8] = b"_FVH";

/// Why firmware and its variables do not make a machine. Each is a sentence.
#[derive(Debug, Error)]
pub enum UefiError {
    /// A file for variables with other firmware.
    #[error("--flash-vars is for UEFI firmware, which {0} is not; try --bios OVMF_CODE.fd")]
    NotUefi(String),
    /// A template of variables as firmware.
    #[error("{0}: this holds UEFI variables, not firmware; try the file beside it that says CODE for VARS")]
    OnlyVariables(String),
    /// Firmware that would wait for ever.
    #[error(
        "{0}: this build wants system-management mode, which is not there yet; try the one without secboot in its name"
    )]
    NeedsSmm(String),
    /// There is nothing to make the file of.
    #[error("{file}: there is no such file yet, and no template for it beside {firmware}; try a copy of OVMF_VARS.fd", file = .file.display())]
    NoTemplate {
        /// The file for variables.
        file: PathBuf,
        /// The firmware.
        firmware: String,
    },
    /// The file holds something else.
    #[error("{file}: this holds no UEFI variables; try a path where there is no file yet", file = .0.display())]
    NoVariables(PathBuf),
    /// The file goes with firmware of another size.
    #[error("{file}: {bytes} bytes of variables do not go with {firmware}, which has {expected}; try a path where there is no file yet", file = .file.display())]
    OtherSize {
        /// The file for variables.
        file: PathBuf,
        /// Its length.
        bytes: usize,
        /// The firmware.
        firmware: String,
        /// The length of its own variables.
        expected: usize,
    },
    /// Another machine uses it.
    #[error("{file}: another machine keeps its variables in this file; try to end it, or another --flash-vars", file = .0.display())]
    InUse(PathBuf),
    /// The host cannot read or write it.
    #[error("{file}: {problem}; try another path for --flash-vars", file = .file.display())]
    Host {
        /// The file.
        file: PathBuf,
        /// What the host says.
        problem: io::Error,
    },
}

/// What a firmware image is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No UEFI firmware that this module knows: a ROM.
    Other,
    /// UEFI code; its variables are a file of their own.
    Code,
    /// Variables, so many bytes, and then code.
    Whole(usize),
    /// Variables alone.
    Variables,
}

/// What the image is that begins with `head` and has `length` bytes.
pub fn kind(head: &[u8], length: u64) -> Kind {
    let field = |at: usize, bytes: usize| head.get(at..at + bytes);
    if field(SIGNATURE_AT, SIGNATURE.len()) != Some(SIGNATURE) {
        return Kind::Other;
    }
    if field(GUID_AT, NV_DATA.len()) != Some(&NV_DATA) {
        return Kind::Code;
    }
    let volume = field(LENGTH_AT, 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    match volume {
        _ if volume == length => Kind::Variables,
        1..=MAX_VARIABLES if volume < length && volume.is_multiple_of(BLOCK as u64) => Kind::Whole(volume as usize),
        _ => Kind::Other,
    }
}

/// The template of variables beside an image of code: its name with VARS for CODE, and if there is no such file, the same
/// without what is between the dots (`OVMF_CODE_4M.secboot.fd`, `OVMF_VARS_4M.fd`).
pub fn template_beside(code: &Path) -> Option<PathBuf> {
    let name = code.file_name()?.to_str()?;
    if !name.contains("CODE") {
        return None;
    }
    let name = name.replacen("CODE", "VARS", 1);
    let short = name.split_once('.').map(|(stem, rest)| match rest.rsplit_once('.') {
        Some((_, extension)) => format!("{stem}.{extension}"),
        None => name.clone(),
    });
    [Some(name.clone()), short].into_iter().flatten().map(|name| code.with_file_name(name)).find(|path| path.is_file())
}

/// An image of firmware.
#[derive(Copy, Clone, Debug)]
pub struct Image<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Its file, if it has one.
    pub path: Option<&'a Path>,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// What goes where.
#[derive(Debug)]
pub struct Plan {
    /// The flash memory with the variables, and where it is; `None` if nobody gave any.
    pub variables: Option<(GuestPhys, CfiFlash)>,
    /// Where the code begins in the image.
    pub code_at: usize,
}

/// Divides an image, and opens or makes the file for its variables. `None`: it is a ROM and nothing else.
pub fn plan(image: Image<'_>, file: Option<&Path>, notices: &Notices) -> Result<Option<Plan>, UefiError> {
    let Image { name, path, bytes } = image;
    let (code_at, template) = match kind(bytes, bytes.len() as u64) {
        Kind::Other if file.is_some() => return Err(UefiError::NotUefi(name.to_owned())),
        Kind::Other => return Ok(None),
        Kind::Variables => return Err(UefiError::OnlyVariables(name.to_owned())),
        Kind::Whole(length) => (length, bytes.get(..length).map(<[u8]>::to_vec)),
        Kind::Code => (0, path.and_then(template_beside).map(|path| read_template(&path)).transpose()?),
    };
    if needs_smm(path) {
        return Err(UefiError::NeedsSmm(name.to_owned()));
    }
    let (contents, storage) = match (file, template) {
        (None, None) => return Ok(Some(Plan { variables: None, code_at })),
        (None, Some(template)) => (template, None),
        (Some(file), template) => {
            let (contents, storage) = open(file, template.as_deref(), name)?;
            (contents, Some((file.display().to_string(), storage)))
        }
    };
    let at = GuestPhys(HIGH_RAM_BASE - (bytes.len() - code_at + contents.len()) as u64);
    let flash = CfiFlash::new(contents, BLOCK, notices.clone());
    // What has a whole volume of variables has whole blocks.
    let flash = flash.map_err(|_| UefiError::NoVariables(file.or(path).unwrap_or(Path::new(name)).to_owned()))?;
    let flash = match storage {
        Some((name, storage)) => flash.kept_in(&name, storage),
        None => flash,
    };
    Ok(Some(Plan { variables: Some((at, flash)), code_at }))
}

/// Whether the image is one of the builds that trust system-management mode alone with their variables, by its name or that of
/// the file that it is a link to.
fn needs_smm(path: Option<&Path>) -> bool {
    let Some(path) = path else { return false };
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    target.file_name().is_some_and(|name| name.to_string_lossy().contains("secboot"))
}

fn read_template(path: &Path) -> Result<Vec<u8>, UefiError> {
    let bytes = std::fs::read(path).map_err(|problem| UefiError::Host { file: path.to_owned(), problem })?;
    if is_store(&bytes) { Ok(bytes) } else { Err(UefiError::NoVariables(path.to_owned())) }
}

/// Whether these bytes are variables and nothing else.
fn is_store(bytes: &[u8]) -> bool {
    kind(bytes, bytes.len() as u64) == Kind::Variables
        && bytes.len() as u64 <= MAX_VARIABLES
        && bytes.len().is_multiple_of(BLOCK)
}

type Opened = (Vec<u8>, Box<dyn umbra_devices::block::Storage>);

/// Opens the file for variables, made from the template if there is none or if it is empty.
fn open(file: &Path, template: Option<&[u8]>, firmware: &str) -> Result<Opened, UefiError> {
    let host = |problem| UefiError::Host { file: file.to_owned(), problem };
    let FileStart { bytes, storage } = match images::open_file(file, template.unwrap_or(&[]), MAX_VARIABLES) {
        Ok(start) => start,
        Err(images::FileProblem::InUse) => return Err(UefiError::InUse(file.to_owned())),
        Err(images::FileProblem::Unsuitable) => return Err(UefiError::NoVariables(file.to_owned())),
        Err(images::FileProblem::Missing) => {
            return Err(UefiError::NoTemplate { file: file.to_owned(), firmware: firmware.to_owned() });
        }
        Err(images::FileProblem::Host(problem)) => return Err(host(problem)),
    };
    if !is_store(&bytes) {
        return Err(UefiError::NoVariables(file.to_owned()));
    }
    match template {
        Some(template) if template.len() != bytes.len() => Err(UefiError::OtherSize {
            file: file.to_owned(),
            bytes: bytes.len(),
            firmware: firmware.to_owned(),
            expected: template.len(),
        }),
        _ => Ok((bytes, storage)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use umbra_devices::device::{Ctx, Device, Width};
    use umbra_mmu::dma::Dma;

    /// A firmware volume in an image of `length` bytes.
    fn volume(guid: [u8; 16], volume: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0xFF; length];
        bytes[..16].fill(0);
        bytes[GUID_AT..GUID_AT + 16].copy_from_slice(&guid);
        bytes[LENGTH_AT..LENGTH_AT + 8].copy_from_slice(&volume.to_le_bytes());
        bytes[SIGNATURE_AT..SIGNATURE_AT + 4].copy_from_slice(SIGNATURE);
        bytes
    }
    fn store(length: usize) -> Vec<u8> {
        volume(NV_DATA, length as u64, length)
    }
    fn code(length: usize) -> Vec<u8> {
        volume([7; 16], length as u64, length)
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("umbra-uefi-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
        fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
            std::fs::write(self.0.join(name), bytes).unwrap();
            self.0.join(name)
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn quiet() -> Notices {
        Arc::new(|_| {})
    }
    fn plan_of(path: &Path, file: Option<&Path>) -> Result<Option<Plan>, UefiError> {
        let bytes = std::fs::read(path).unwrap();
        plan(Image { name: &path.display().to_string(), path: Some(path), bytes: &bytes }, file, &quiet())
    }

    #[test]
    fn the_first_volume_tells_what_an_image_is() {
        #[rustfmt::skip]
        let table = [
            (code(0x3000), Kind::Code),
            (store(0x2000), Kind::Variables),
            (volume(NV_DATA, 0x2000, 0x5000), Kind::Whole(0x2000)),
            (volume(NV_DATA, 0x2800, 0x5000), Kind::Other),
            (volume(NV_DATA, 0x6000, 0x5000), Kind::Other),
            (vec![0; 0x2_0000], Kind::Other),
            (store(0x2000)[..0x2A].to_vec(), Kind::Other),
        ];
        for (bytes, expected) in table {
            assert_eq!(kind(&bytes, bytes.len() as u64), expected);
        }
    }

    #[test]
    fn code_ends_at_4_gib_and_variables_lie_below_it() {
        let folder = Folder::new("places");
        folder.file("F_VARS.fd", &store(0x2000));
        let cases = [("F_CODE.fd", code(0x6000), 0), ("F.fd", volume(NV_DATA, 0x2000, 0x8000), 0x2000)];
        for (name, bytes, code_at) in cases {
            let plan = plan_of(&folder.file(name, &bytes), None).unwrap().unwrap();
            assert_eq!(plan.code_at, code_at);
            let (at, flash) = plan.variables.unwrap();
            assert_eq!((at.0, flash.contents().len()), (0xFFFF_8000, 0x2000));
        }
        assert!(plan_of(&folder.file("bios.bin", &[0; 0x1000]), None).unwrap().is_none());
        let alone = plan_of(&folder.file("OTHER_CODE.fd", &code(0x6000)), None).unwrap().unwrap();
        assert!(alone.variables.is_none());
    }

    #[test]
    fn a_template_has_the_name_of_the_code() {
        let folder = Folder::new("template");
        let vars = folder.file("OVMF_VARS_4M.fd", b"v");
        let ms = folder.file("OVMF_VARS_4M.ms.fd", b"v");
        #[rustfmt::skip]
        let table = [
            ("OVMF_CODE_4M.fd", Some(&vars)), ("OVMF_CODE_4M.secboot.fd", Some(&vars)), ("OVMF_CODE_4M.ms.fd", Some(&ms)),
            ("OVMF_CODE.fd", None), ("OVMF.fd", None), ("OVMF_CODE_4M", None),
        ];
        for (name, expected) in table {
            assert_eq!(template_beside(&folder.0.join(name)).as_ref(), expected, "{name}");
        }
    }

    struct NoMemory;
    impl Dma for NoMemory {
        fn read(&self, _at: GuestPhys, _into: &mut [u8]) {}
        fn write(&mut self, _at: GuestPhys, _from: &[u8]) {}
    }

    #[test]
    fn what_is_written_is_there_again_and_the_template_unchanged() {
        let folder = Folder::new("kept");
        let template = folder.file("F_VARS.fd", &store(0x2000));
        let code = folder.file("F_CODE.fd", &code(0x6000));
        let file = folder.0.join("mine.fd");
        for old in [0xFF, 0x5A] {
            let (_, mut flash) = plan_of(&code, Some(&file)).unwrap().unwrap().variables.unwrap();
            assert_eq!(flash.contents()[0x1000], old);
            assert!(matches!(plan_of(&code, Some(&file)), Err(UefiError::InUse(_))));
            let mut cx = Ctx { now: umbra_devices::clock::Tick(0), dma: &mut NoMemory };
            for value in [0x40, 0x5A] {
                flash.mmio_write(&mut cx, 0, 0x1000, Width::B1, value).unwrap();
            }
        }
        assert_eq!(std::fs::read(template).unwrap(), store(0x2000));
        // An empty file is one that is not there yet.
        let empty = folder.file("empty.fd", b"");
        plan_of(&code, Some(&empty)).unwrap();
        assert_eq!(std::fs::read(empty).unwrap(), store(0x2000));
    }

    #[test]
    fn what_does_not_fit_is_a_sentence_and_stays_as_it_was() {
        let folder = Folder::new("bad");
        folder.file("F_VARS.fd", &store(0x2000));
        folder.file("BAD_VARS.fd", b"words");
        let code_file = folder.file("F_CODE.fd", &code(0x6000));
        let [alone, bad] = ["ALONE_CODE.fd", "BAD_CODE.fd"].map(|name| folder.file(name, &code(0x6000)));
        let rom = folder.file("bios.bin", &[0; 0x1000]);
        let vars = folder.file("vars.fd", &store(0x2000));
        let (other, words) = (folder.file("other.fd", &store(0x3000)), folder.file("words", b"some words"));
        let gone = folder.0.join("gone.fd");
        let smm = folder.file("F_CODE.secboot.fd", &code(0x6000));
        let link = folder.0.join("F_CODE.ms.fd");
        std::os::unix::fs::symlink(&smm, &link).unwrap();
        #[rustfmt::skip]
        let cases = [
            (&code_file, &words,    "words: this holds no UEFI variables"),
            (&code_file, &other,    "other.fd: 12288 bytes of variables do not go with "),
            (&code_file, &folder.0, "try another path for --flash-vars"),
            (&code_file, &folder.0.join("no/such"), "try another path for --flash-vars"),
            (&alone,     &gone,     "gone.fd: there is no such file yet, and no template"),
            (&bad,       &gone,     "BAD_VARS.fd: this holds no UEFI variables"),
            (&rom,       &vars,     "--flash-vars is for UEFI firmware"),
            (&vars,      &gone,     "vars.fd: this holds UEFI variables, not firmware"),
            (&smm,       &gone,     "wants system-management mode"),
            (&link,      &gone,     "wants system-management mode"),
        ];
        for (firmware, file, expected) in cases {
            let sentence = plan_of(firmware, Some(file)).unwrap_err().to_string();
            assert!(sentence.contains(expected) && !sentence.contains('\n'), "{sentence}");
        }
        assert!(!gone.exists());
        assert_eq!(std::fs::read(words).unwrap(), b"some words");
        // Without a template, any store will do.
        assert!(plan_of(&alone, Some(&other)).is_ok());
    }
}
