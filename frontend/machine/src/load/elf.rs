//! A small checked reader of ELF executables (System V ABI, gABI 4.1): class, machine, entry, program headers, notes.
//!
//! Little-endian i386 and x86-64 only. Leaves out: sections, symbols, relocation. Called by `multiboot1`, `pvh` and `flat`.

use super::bytes::File;
use super::error::LoadProblem;
use super::plan::Plan;

/// The most loadable segments that a file may have; kernels have fewer than ten.
const MAX_SEGMENTS: usize = 256;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;

/// The width of an ELF file's structures.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// ELF32.
    Elf32,
    /// ELF64.
    Elf64,
}

/// A program header.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct ProgramHeader {
    kind: u32,
    offset: u64,
    virtual_address: u64,
    physical_address: u64,
    file_size: u64,
    memory_size: u64,
}

/// An ELF file's headers, checked.
#[derive(Clone, Debug)]
pub(super) struct Elf<'a> {
    file: &'a [u8],
    pub class: Class,
    pub entry: u64,
    headers: Vec<ProgramHeader>,
}

/// Whether the file has the ELF mark.
pub fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}

impl<'a> Elf<'a> {
    /// Reads and checks the headers.
    pub fn parse(bytes: &'a [u8]) -> Result<Elf<'a>, LoadProblem> {
        let file = File::whole(bytes);
        let what = "the ELF header";
        let bad = |what, value: u64, why| Err(LoadProblem::BadField { what, value, why });
        let class = match file.u8(what, 4)? {
            1 => Class::Elf32,
            2 => Class::Elf64,
            other => return bad("the ELF class", other.into(), "neither 32- nor 64-bit"),
        };
        match file.u8(what, 5)? {
            1 => {}
            other => return bad("the ELF byte order", other.into(), "not little-endian"),
        }
        match file.u16(what, 16)? {
            2 | 3 => {}
            1 => {
                return Err(LoadProblem::Unsupported {
                    what: "this is an object file, not linked",
                    advice: "the linked kernel",
                });
            }
            other => return bad("the ELF type", other.into(), "not an executable"),
        }
        match file.u16(what, 18)? {
            EM_386 | EM_X86_64 => {}
            other => return bad("the ELF machine", other.into(), "neither i386 (3) nor x86-64 (62)"),
        }
        let wide = class == Class::Elf64;
        let word = |at32: u64, at64: u64| match wide {
            true => file.u64(what, at64),
            false => file.u32(what, at32).map(u64::from),
        };
        let entry = word(24, 24)?;
        let table = word(28, 32)?;
        let entry_size = file.u16(what, if wide { 54 } else { 42 })?;
        let count = file.u16(what, if wide { 56 } else { 44 })?;
        let least = if wide { 56 } else { 32 };
        if count > 0 && entry_size < least {
            return bad("the size of a program header", entry_size.into(), "too small");
        }
        let mut headers = Vec::new();
        for number in 0..u64::from(count) {
            let at = table.saturating_add(number * u64::from(entry_size));
            let header = Self::program_header(file, class, at)?;
            if matches!(header.kind, PT_LOAD | PT_NOTE) {
                headers.push(header);
            }
            if headers.len() > MAX_SEGMENTS {
                return bad("the number of segments", count.into(), "more than any kernel has");
            }
        }
        Ok(Elf { file: bytes, class, entry, headers })
    }

    fn program_header(file: File<'_>, class: Class, at: u64) -> Result<ProgramHeader, LoadProblem> {
        let what = "a program header";
        file.slice(what, at, if class == Class::Elf64 { 56 } else { 32 })?;
        let kind = file.u32(what, at)?;
        let narrow = |offset: u64| file.u32(what, at + offset).map(u64::from);
        let wide = |offset: u64| file.u64(what, at + offset);
        Ok(match class {
            Class::Elf32 => ProgramHeader {
                kind,
                offset: narrow(4)?,
                virtual_address: narrow(8)?,
                physical_address: narrow(12)?,
                file_size: narrow(16)?,
                memory_size: narrow(20)?,
            },
            Class::Elf64 => ProgramHeader {
                kind,
                offset: wide(8)?,
                virtual_address: wide(16)?,
                physical_address: wide(24)?,
                file_size: wide(32)?,
                memory_size: wide(40)?,
            },
        })
    }

    /// Puts all loadable segments at their physical addresses.
    pub fn put_segments(&self, plan: &mut Plan<'a, '_>) -> Result<(), LoadProblem> {
        let bad = |what, value: u64, why| Err(LoadProblem::BadField { what, value, why });
        let mut any = false;
        for header in self.headers.iter().filter(|header| header.kind == PT_LOAD && header.memory_size > 0) {
            let Some(rest) = header.memory_size.checked_sub(header.file_size) else {
                return bad("a segment's size in memory", header.memory_size, "less than in the file");
            };
            let bytes = File::whole(self.file).slice("a segment", header.offset, header.file_size)?;
            plan.put("a segment of the kernel", header.physical_address, bytes)?;
            plan.zero("the kernel's BSS", header.physical_address.saturating_add(header.file_size), rest)?;
            any = true;
        }
        if any { Ok(()) } else { bad("the number of loadable segments", 0, "so there is nothing to load") }
    }

    /// The entry point as a physical address: where the segment that holds it is loaded.
    pub fn physical_entry(&self) -> u64 {
        let loads = self.headers.iter().filter(|header| header.kind == PT_LOAD);
        loads
            .filter_map(|header| {
                let offset = self.entry.checked_sub(header.virtual_address)?;
                (offset < header.memory_size).then(|| header.physical_address.wrapping_add(offset))
            })
            .next()
            .unwrap_or(self.entry)
    }

    /// The contents of the first note with this owner and type. A damaged note ends the search.
    pub fn note(&self, owner: &[u8], kind: u32) -> Option<&'a [u8]> {
        self.headers.iter().filter(|header| header.kind == PT_NOTE).find_map(|header| {
            let mut rest = File::whole(self.file).slice("a note", header.offset, header.file_size).ok()?;
            while rest.len() >= 12 {
                let file = File::whole(rest);
                let name_size = u64::from(file.u32("a note", 0).ok()?);
                let data_size = u64::from(file.u32("a note", 4).ok()?);
                let name = file.slice("a note", 12, name_size).ok()?;
                let data_at = 12 + name_size.next_multiple_of(4);
                let data = file.slice("a note", data_at, data_size).ok()?;
                if file.u32("a note", 8).ok()? == kind && name.strip_suffix(&[0]).unwrap_or(name) == owner {
                    return Some(data);
                }
                rest = file.tail(data_at + data_size.next_multiple_of(4));
            }
            None
        })
    }
}
