//! Multiboot 1 kernels (specification 0.6.96): ELF32 or ELF64 files, or flat files whose header gives the addresses.
//!
//! Entered in flat 32-bit protected mode with EAX = 2BADB002h and EBX = the information: memory sizes and map, command
//! line, modules, loader name. An ELF64 file is loaded too (its entry must be 32-bit code below 4 GiB).
//!
//! Leaves out: the video mode request (ignored: the screen is in text mode), symbol tables, drives, the APM table.
//! Called by [`super::load`].

use super::LoadOptions;
use super::bytes::{File, Table};
use super::elf::{Elf, is_elf};
use super::error::{LoadError, LoadProblem};
use super::plan::{CodeWidth, EntryMode, EntryState, Format, LoadPlan, Plan, gpr, layout};
use super::pvh::Strings;
use crate::memory_map::{EXTENDED_BASE, MemoryMap};
use umbra_mmu::addr::PAGE_SIZE;

/// The header lies within this many bytes, at a multiple of four.
const SEARCH: usize = 8192;
const HEADER_MAGIC: u32 = 0x1BAD_B002;
const LOADER_MAGIC: u64 = 0x2BAD_B002;
/// Bits 0–15 are demands; we know page-aligned modules, memory information and the video mode.
const KNOWN_DEMANDS: u32 = 0b111;
/// The address fields are valid: load flat.
const FLAG_ADDRESSES: u32 = 1 << 16;
/// The module list fills the first half of the lists' page, the memory map the second.
const MAX_MODULES: usize = 128;

/// Flags of the information structure: which fields are valid.
mod info_flag {
    pub const MEMORY: u32 = 1 << 0;
    pub const COMMAND_LINE: u32 = 1 << 2;
    pub const MODULES: u32 = 1 << 3;
    pub const MEMORY_MAP: u32 = 1 << 6;
    pub const LOADER_NAME: u32 = 1 << 9;
}

/// Where the header is, and its flags.
fn find_header(bytes: &[u8]) -> Option<(usize, u32)> {
    let area = bytes.get(..bytes.len().min(SEARCH))?;
    let word = |at: usize| area.get(at..at + 4).map(|b| b.iter().rev().fold(0_u32, |sum, &b| sum << 8 | u32::from(b)));
    (0..area.len()).step_by(4).find_map(|at| {
        let (magic, flags, checksum) = (word(at)?, word(at + 4)?, word(at + 8)?);
        let sound = magic == HEADER_MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0;
        sound.then_some((at, flags))
    })
}

/// Whether the file has a sound multiboot header.
pub fn is_multiboot1(bytes: &[u8]) -> bool {
    find_header(bytes).is_some()
}

/// Plans how to start a multiboot kernel.
pub fn load<'a>(bytes: &'a [u8], options: &LoadOptions<'a>, map: &MemoryMap) -> Result<LoadPlan<'a>, LoadError> {
    plan(bytes, options, map).map_err(|problem| LoadError { file: options.name.to_owned(), problem })
}

fn plan<'a>(bytes: &'a [u8], options: &LoadOptions<'a>, map: &MemoryMap) -> Result<LoadPlan<'a>, LoadProblem> {
    let Some((header_at, flags)) = find_header(bytes) else {
        return Err(LoadProblem::Unsupported {
            what: "this file has no multiboot header in its first 8 KiB",
            advice: "a multiboot kernel",
        });
    };
    if flags & 0xFFFF & !KNOWN_DEMANDS != 0 {
        let why = "which demands features that multiboot 0.6.96 does not define";
        return Err(LoadProblem::BadField { what: "the multiboot header's flags", value: flags.into(), why });
    }
    let mut plan = Plan::new(map);
    let entry = if flags & FLAG_ADDRESSES != 0 {
        put_flat(&mut plan, bytes, header_at as u64)?
    } else if is_elf(bytes) {
        let elf = Elf::parse(bytes)?;
        elf.put_segments(&mut plan)?;
        elf.physical_entry()
    } else {
        return Err(LoadProblem::Unsupported {
            what: "this multiboot kernel is neither an ELF file nor has load addresses in its header",
            advice: "to link it as ELF",
        });
    };
    if entry >> 32 != 0 {
        return Err(LoadProblem::BadField { what: "the entry point", value: entry, why: "above 4 GiB" });
    }
    put_information(&mut plan, options)?;
    let gdt = plan.put_gdt(CodeWidth::Bits32)?;
    let mut gprs = [0; 16];
    gprs[gpr::RAX] = LOADER_MAGIC;
    gprs[gpr::RBX] = layout::BOOT_INFO;
    gprs[gpr::RSP] = layout::STACK_TOP;
    let state = EntryState { mode: EntryMode::Protected32, rip: entry, gprs, gdt: Some(gdt) };
    Ok(plan.finish(Format::Multiboot1, state))
}

/// Loads by the header's own addresses (section 3.1.3, "the a.out kludge") and gives the entry.
fn put_flat<'a>(plan: &mut Plan<'a, '_>, bytes: &'a [u8], header_at: u64) -> Result<u64, LoadProblem> {
    let file = File::whole(bytes);
    let field = |n: u64| file.u32("the multiboot header's addresses", header_at + 12 + 4 * n).map(u64::from);
    let (header_addr, load_addr, load_end, bss_end, entry) = (field(0)?, field(1)?, field(2)?, field(3)?, field(4)?);
    let bad = |what, value, why| LoadProblem::BadField { what, value, why };
    let before = header_addr.checked_sub(load_addr).ok_or(bad(
        "load_addr",
        load_addr,
        "above header_addr, so the header would not be loaded",
    ))?;
    let start = header_at.checked_sub(before).ok_or(bad(
        "header_addr",
        header_addr,
        "further from load_addr than from the file's start",
    ))?;
    let length = match load_end {
        0 => file.after(start),
        end => end.checked_sub(load_addr).ok_or(bad("load_end_addr", end, "below load_addr"))?,
    };
    plan.put("the kernel", load_addr, file.slice("the kernel", start, length)?)?;
    let end = load_addr + length;
    if bss_end != 0 {
        let bss = bss_end.checked_sub(end).ok_or(bad("bss_end_addr", bss_end, "below load_end_addr"))?;
        plan.zero("the kernel's BSS", end, bss)?;
    }
    Ok(entry)
}

/// The command line begins with the kernel's own name, as boot loaders have it: kernels skip the first word.
fn command_line(options: &LoadOptions<'_>) -> String {
    let name = options.name.rsplit('/').next().unwrap_or(options.name).replace(char::is_whitespace, "_");
    format!("{name} {}", options.command_line).trim_end().to_owned()
}

fn put_information<'a>(plan: &mut Plan<'a, '_>, options: &LoadOptions<'a>) -> Result<(), LoadProblem> {
    if options.modules.len() > MAX_MODULES {
        return Err(LoadProblem::Unsupported { what: "there are more than 128 modules", advice: "fewer" });
    }
    let map = plan.map();
    let mut strings = Strings::new();
    let mut lists = Table::zeroed(PAGE_SIZE as usize);
    for (number, module) in options.modules.iter().enumerate() {
        let length = module.bytes.len() as u64;
        let at = plan.find_below("a module", 1 << 32, length)?;
        plan.put("a module", at, module.bytes)?;
        let row = number * 16;
        lists.u32(row, at as u32);
        lists.u32(row + 4, (at + length) as u32);
        lists.u32(row + 8, strings.add(module.command_line)? as u32);
    }
    let memory_map = PAGE_SIZE as usize / 2;
    let e820 = map.e820();
    for (number, range) in e820.iter().enumerate() {
        let row = memory_map + number * 24;
        // The size does not count itself.
        lists.u32(row, 20);
        lists.u64(row + 4, range.start.0);
        lists.u64(row + 12, range.length);
        lists.u32(row + 20, range.kind as u32);
    }
    let valid = info_flag::MEMORY
        | info_flag::COMMAND_LINE
        | info_flag::MODULES
        | info_flag::MEMORY_MAP
        | info_flag::LOADER_NAME;
    let mut info = Table::zeroed(116);
    info.u32(0, valid);
    info.u32(4, (crate::memory_map::EBDA_BASE / 1024) as u32);
    info.u32(8, ((map.acpi_base().0 - EXTENDED_BASE) / 1024) as u32);
    info.u32(16, strings.add(&command_line(options))? as u32);
    info.u32(20, options.modules.len() as u32);
    info.u32(24, layout::LISTS as u32);
    info.u32(44, (e820.len() * 24) as u32);
    info.u32(48, layout::LISTS as u32 + memory_map as u32);
    info.u32(64, strings.add("Umbra")? as u32);
    plan.put("the multiboot information", layout::BOOT_INFO, info.0)?;
    plan.put("the multiboot lists", layout::LISTS, lists.0)?;
    plan.put("the command line", layout::STRINGS, strings.bytes)
}
