//! What a loader answers: which bytes go where, and the state in which the boot processor starts.
//!
//! A plan is checked while it is made: each piece lies in usable RAM and on no other piece. Nothing here touches a machine;
//! the builder carries the plan out.

use super::error::LoadProblem;
use crate::memory_map::MemoryMap;
use std::borrow::Cow;
use umbra_mmu::addr::{GuestPhys, PAGE_SIZE};

/// Which loader made a plan.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// A Linux bzImage (or an image that follows its boot protocol).
    BzImage,
    /// A multiboot 1 kernel.
    Multiboot1,
    /// An ELF file with a PVH entry note.
    Pvh,
    /// An ELF file without any boot protocol.
    BareElf,
    /// A flat image.
    Flat,
}

impl Format {
    /// The format's name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Format::BzImage => "Linux bzImage",
            Format::Multiboot1 => "multiboot 1 kernel",
            Format::Pvh => "PVH ELF kernel",
            Format::BareElf => "ELF file",
            Format::Flat => "flat image",
        }
    }
}

/// A segment's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bytes<'a> {
    /// Here they are.
    Here(Cow<'a, [u8]>),
    /// In the kernel's file, of which the loader saw the first bytes only: it is large, and read straight to its place.
    InFile {
        /// The first one's position.
        at: u64,
        /// How many.
        length: u64,
    },
}

impl Bytes<'_> {
    /// How many.
    pub fn length(&self) -> u64 {
        match self {
            Bytes::Here(bytes) => bytes.len() as u64,
            Bytes::InFile { length, .. } => *length,
        }
    }
}

impl<'a> From<&'a [u8]> for Bytes<'a> {
    fn from(bytes: &'a [u8]) -> Bytes<'a> {
        Bytes::Here(bytes.into())
    }
}

impl From<Vec<u8>> for Bytes<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::Here(bytes.into())
    }
}

/// Bytes that go to one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// What it is, for messages.
    pub what: &'static str,
    /// Where it goes.
    pub at: GuestPhys,
    /// The bytes.
    pub bytes: Bytes<'a>,
}

/// A range that must read as zero (BSS, or room that a kernel will use).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ZeroRange {
    /// What it is, for messages.
    pub what: &'static str,
    /// Its first byte.
    pub at: GuestPhys,
    /// Its length in bytes.
    pub length: u64,
}

/// In which mode the boot processor starts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum EntryMode {
    /// Real mode; `cs` is the code segment, the other segments are zero.
    Real16 {
        /// CS; its base is 16 times that.
        cs: u16,
    },
    /// Flat 32-bit protected mode without paging.
    Protected32,
    /// 64-bit mode on 4-level page tables at `cr3` that map the first 4 GiB to themselves.
    Long64 {
        /// The PML4 table.
        cr3: GuestPhys,
    },
}

/// Numbers of the general registers in [`EntryState::gprs`] (SDM vol. 2, table 3-1).
pub mod gpr {
    /// RAX.
    pub const RAX: usize = 0;
    /// RBX.
    pub const RBX: usize = 3;
    /// RSP.
    pub const RSP: usize = 4;
    /// RSI.
    pub const RSI: usize = 6;
}

/// The boot processor's registers at the first instruction. Whatever is not here is as after INIT; interrupts are off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// The mode.
    pub mode: EntryMode,
    /// The first instruction (IP, EIP or RIP).
    pub rip: u64,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8–R15.
    pub gprs: [u64; 16],
    /// The GDT, if there is one: [`BOOT_CODE`] and [`BOOT_DATA`] select in it what the segment registers hold.
    pub gdt: Option<(GuestPhys, u16)>,
}

/// The selector in CS of a protected or long mode entry (Linux calls it `__BOOT_CS`).
pub const BOOT_CODE: u16 = 0x10;
/// The selector in DS, ES, SS, FS and GS.
pub const BOOT_DATA: u16 = 0x18;

/// Where the loaders put their tables; all below 640 KiB, above the BIOS data area.
pub mod layout {
    /// The boot GDT.
    pub const GDT: u64 = 0x1000;
    /// The top of a small stack for kernels that expect one.
    pub const STACK_TOP: u64 = 0x6FF0;
    /// boot_params, the multiboot information or the PVH start info: one page.
    pub const BOOT_INFO: u64 = 0x7000;
    /// Lists that the boot information points to: one page.
    pub const LISTS: u64 = 0x8000;
    /// Six pages of identity page tables.
    pub const PAGE_TABLES: u64 = 0x9000;
    /// Command lines and strings.
    pub const STRINGS: u64 = 0x2_0000;
    /// The most bytes of [`STRINGS`].
    pub const STRINGS_SIZE: u64 = 0x1_0000;
}

/// What a machine must do to start a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan<'a> {
    /// Which loader made it.
    pub format: Format,
    /// Bytes to copy. Disjoint.
    pub segments: Vec<Segment<'a>>,
    /// Ranges that must read as zero, disjoint from each other and the segments.
    pub zero: Vec<ZeroRange>,
    /// How the boot processor starts.
    pub entry: EntryState,
}

/// A plan under construction.
pub(super) struct Plan<'a, 'm> {
    map: &'m MemoryMap,
    segments: Vec<Segment<'a>>,
    zero: Vec<ZeroRange>,
    /// Every range in use: (start, end, what).
    used: Vec<(u64, u64, &'static str)>,
}

impl<'a, 'm> Plan<'a, 'm> {
    /// An empty plan on `map`.
    pub fn new(map: &'m MemoryMap) -> Plan<'a, 'm> {
        Plan { map, segments: Vec::new(), zero: Vec::new(), used: Vec::new() }
    }
    /// The memory map.
    pub fn map(&self) -> &'m MemoryMap {
        self.map
    }
    /// Claims a range without putting anything there.
    pub fn reserve(&mut self, what: &'static str, at: u64, length: u64) -> Result<(), LoadProblem> {
        if length == 0 {
            return Ok(());
        }
        let end = at.saturating_add(length);
        if !self.map.is_usable(GuestPhys(at), length) {
            return Err(LoadProblem::OutsideRam { what, start: at, end, low_end: self.map.low_end().0 });
        }
        if let Some(&(_, _, other)) = self.used.iter().find(|&&(s, e, _)| at < e && s < end) {
            return Err(LoadProblem::Overlap { what, start: at, end, other });
        }
        self.used.push((at, end, what));
        Ok(())
    }
    /// Puts bytes at a place.
    pub fn put(&mut self, what: &'static str, at: u64, bytes: impl Into<Bytes<'a>>) -> Result<(), LoadProblem> {
        let bytes = bytes.into();
        self.reserve(what, at, bytes.length())?;
        if bytes.length() > 0 {
            self.segments.push(Segment { what, at: GuestPhys(at), bytes });
        }
        Ok(())
    }
    /// Makes a range zero.
    pub fn zero(&mut self, what: &'static str, at: u64, length: u64) -> Result<(), LoadProblem> {
        self.reserve(what, at, length)?;
        if length > 0 {
            self.zero.push(ZeroRange { what, at: GuestPhys(at), length });
        }
        Ok(())
    }
    /// The highest free place for `length` bytes, page-aligned, in extended memory below 4 GiB and `limit`.
    pub fn find_below(&self, what: &'static str, limit: u64, length: u64) -> Result<u64, LoadProblem> {
        let no_room = LoadProblem::NoRoom { what, length, limit };
        let mut top = limit.min(self.map.acpi_base().0);
        loop {
            let at = top.checked_sub(length).ok_or(no_room.clone())? & !(PAGE_SIZE - 1);
            if at < crate::memory_map::EXTENDED_BASE {
                return Err(no_room);
            }
            // Each clash lowers `top` to the start of a used range, so that this ends.
            match self.used.iter().filter(|&&(s, e, _)| at < e && s < at + length).map(|&(s, ..)| s).min() {
                Some(start) => top = start,
                None => return Ok(at),
            }
        }
    }
    /// Puts the boot GDT in place and gives the GDTR: null, unused, flat code (64- or 32-bit), flat data.
    pub fn put_gdt(&mut self, code: CodeWidth) -> Result<(GuestPhys, u16), LoadProblem> {
        // Base 0, limit 4 GiB, present, DPL 0, accessed; code is execute/read (SDM vol. 3, 3.4.5).
        let code = match code {
            CodeWidth::Bits32 => 0x00CF_9B00_0000_FFFF_u64,
            CodeWidth::Bits64 => 0x00AF_9B00_0000_FFFF,
        };
        let table: Vec<u8> =
            [0, 0, code, 0x00CF_9300_0000_FFFF].iter().flat_map(|entry: &u64| entry.to_le_bytes()).collect();
        let limit = table.len() as u16 - 1;
        self.put("the boot GDT", layout::GDT, table)?;
        Ok((GuestPhys(layout::GDT), limit))
    }
    /// Puts page tables in place that map the first 4 GiB to themselves in 2 MiB pages, and gives CR3.
    pub fn put_identity_tables(&mut self) -> Result<GuestPhys, LoadProblem> {
        const PRESENT_WRITABLE: u64 = 0b11;
        const LARGE: u64 = 1 << 7;
        let page = |n: u64| layout::PAGE_TABLES + n * PAGE_SIZE;
        let mut words = vec![0_u64; 6 * 512];
        words[0] = page(1) | PRESENT_WRITABLE;
        for gib in 0..4 {
            words[512 + gib] = page(2 + gib as u64) | PRESENT_WRITABLE;
        }
        for (number, word) in words[1024..].iter_mut().enumerate() {
            *word = (number as u64) << 21 | PRESENT_WRITABLE | LARGE;
        }
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put("the boot page tables", layout::PAGE_TABLES, bytes)?;
        Ok(GuestPhys(layout::PAGE_TABLES))
    }
    /// The finished plan.
    pub fn finish(self, format: Format, entry: EntryState) -> LoadPlan<'a> {
        LoadPlan { format, segments: self.segments, zero: self.zero, entry }
    }
}

/// The width of the boot code segment.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum CodeWidth {
    /// 32-bit protected mode.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

/// A command line (or any string) with its final zero, checked against the kernel's limit (which leaves out the zero).
pub(super) fn c_string(text: &str, limit: usize) -> Result<Vec<u8>, LoadProblem> {
    if text.as_bytes().contains(&0) {
        return Err(LoadProblem::CommandLineNul);
    }
    if text.len() > limit {
        return Err(LoadProblem::CommandLineTooLong { length: text.len(), limit });
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    Ok(bytes)
}
