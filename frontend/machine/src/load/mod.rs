//! Loading: from a file's bytes to a plan. One file per format; each is a pure function
//! `(bytes, options, memory map) → Result<LoadPlan, LoadError>`, so that a hostile file meets nothing that it could break.
//!
//! [`load`] guesses the format: the Linux boot protocol's header, then a multiboot header, then a PVH note, then plain ELF.
//! A flat image has no mark and is loaded only by name ([`flat`]). Leaves out: multiboot 2, EFI executables, zImage.

mod bytes;
pub mod bzimage;
pub mod elf;
pub mod error;
pub mod flat;
pub mod multiboot1;
pub mod plan;
pub mod pvh;

pub use error::{LoadError, LoadProblem};
pub use plan::{Bytes, EntryMode, EntryState, Format, LoadPlan, Segment, ZeroRange};

use crate::memory_map::MemoryMap;
use umbra_mmu::addr::GuestPhys;

/// A file that is put into memory beside the kernel: an initrd or a module.
#[derive(Copy, Clone, Debug)]
pub struct Module<'a> {
    /// The file, as the user named it.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its command line (multiboot and PVH).
    pub command_line: &'a str,
}

/// Whether the processor that will run the kernel has long mode.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Processor {
    /// It has.
    LongMode,
    /// It has not.
    Only32,
}

/// Which of a kernel's entry points to take.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum EntryChoice {
    /// The 64-bit one if the kernel and the processor have it.
    #[default]
    Best,
    /// The 32-bit one.
    Bits32,
    /// The 16-bit one, which firmware starts.
    Real,
}

/// What is on the screen when the kernel starts.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    /// There is no display.
    #[default]
    None,
    /// VGA text, 80 × 25.
    VgaText,
}

/// What the user and the machine add to a kernel's file.
#[derive(Copy, Clone, Debug)]
pub struct LoadOptions<'a> {
    /// The file, as the user named it, for messages.
    pub name: &'a str,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// The initrd (several are put one after the other), or the modules.
    pub modules: &'a [Module<'a>],
    /// Where the ACPI tables' root pointer is.
    pub rsdp: Option<GuestPhys>,
    /// What the processor can do.
    pub processor: Processor,
    /// Which entry to take.
    pub entry: EntryChoice,
    /// What the kernel may draw on.
    pub screen: Screen,
}

impl<'a> LoadOptions<'a> {
    /// Options with nothing but a name, for a 64-bit processor.
    pub const fn named(name: &'a str) -> LoadOptions<'a> {
        LoadOptions {
            name,
            command_line: "",
            modules: &[],
            rsdp: None,
            processor: Processor::LongMode,
            entry: EntryChoice::Best,
            screen: Screen::None,
        }
    }
}

/// Recognises a file's format, if it is one that needs no naming.
pub fn detect(bytes: &[u8]) -> Option<Format> {
    if bzimage::is_bzimage(bytes) {
        Some(Format::BzImage)
    } else if multiboot1::is_multiboot1(bytes) {
        Some(Format::Multiboot1)
    } else if elf::is_elf(bytes) {
        Some(if pvh::is_pvh(bytes) { Format::Pvh } else { Format::BareElf })
    } else {
        None
    }
}

/// Loads a kernel of whatever format [`detect`] finds.
pub fn load<'a>(bytes: &'a [u8], options: &LoadOptions<'a>, map: &MemoryMap) -> Result<LoadPlan<'a>, LoadError> {
    let problem = match detect(bytes) {
        Some(Format::BzImage) => return bzimage::load(bytes, options, map),
        Some(Format::Multiboot1) => return multiboot1::load(bytes, options, map),
        Some(Format::Pvh) => return pvh::load(bytes, options, map),
        Some(Format::BareElf) => return flat::load_elf(bytes, options, map),
        Some(Format::Flat) | None if bytes.is_empty() => LoadProblem::Empty,
        Some(Format::Flat) | None => unknown(bytes),
    };
    Err(LoadError { file: options.name.to_owned(), problem })
}

/// What a file that is no kernel looks like.
#[rustfmt::skip]
const GUESSES: &[(usize, &[u8], &str, &str)] = &[
    (0,     b"\x1f\x8b",       "a gzip file",                 "; if a kernel is packed in it, unpack it with gunzip"),
    (0,     b"\xfd7zXZ",       "an xz file",                  "; if a kernel is packed in it, unpack it with unxz"),
    (0,     b"\x28\xb5\x2f\xfd", "a zstd file",               "; if a kernel is packed in it, unpack it with unzstd"),
    (0,     b"070701",         "a cpio archive (an initrd?)", ", and give this file as --initrd"),
    (0,     b"QFI\xfb",        "a qcow2 disk image",          ", and give this file as --disk"),
    (0x8001, b"CD001",         "a CD-ROM image",              ", and give this file as --cdrom"),
    (0,     b"PK\x03\x04",     "a zip file",                  ""),
    (0,     b"!<arch>\n",      "an ar archive (a Debian package?)", "; the kernel is inside it"),
    (0,     b"#!",             "a script",                    ""),
    (0,     b"\x27\x05\x19\x56", "a U-Boot image",            ""),
    (0,     b"MZ",             "a Windows or EFI program",    ""),
    (510,   b"\x55\xaa",       "a boot sector or disk image", ", and give this file as --disk"),
];

fn unknown(bytes: &[u8]) -> LoadProblem {
    for &(at, magic, guess, advice) in GUESSES {
        if bytes.get(at..at + magic.len()) == Some(magic) {
            return LoadProblem::UnknownFormat { guess, advice };
        }
    }
    let text = bytes.iter().take(512).all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    let guess = if text { "a text file" } else { "a file of no known kind" };
    LoadProblem::UnknownFormat { guess, advice: "" }
}

#[cfg(test)]
mod tests;
