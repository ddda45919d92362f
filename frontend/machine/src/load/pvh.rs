//! ELF kernels with a PVH entry (Xen's `public/arch-x86/hvm/start_info.h`, version 1): 32-bit protected mode, paging off,
//! EBX = the start info with command line, modules, memory map and ACPI root pointer.
//!
//! Leaves out: anything else of Xen. Called by [`super::load`].

use super::LoadOptions;
use super::bytes::Table;
use super::elf::Elf;
use super::error::{LoadError, LoadProblem};
use super::plan::{CodeWidth, EntryMode, EntryState, Format, LoadPlan, Plan, c_string, gpr, layout};
use crate::memory_map::MemoryMap;
use umbra_mmu::addr::PAGE_SIZE;

/// XEN_ELFNOTE_PHYS32_ENTRY.
const PHYS32_ENTRY: u32 = 18;
const MAGIC: u32 = 0x336E_C578;
/// The module list fills the first half of the lists' page, the memory map the second.
const MAX_MODULES: usize = 64;

/// Whether an ELF file has the PVH note.
pub fn is_pvh(bytes: &[u8]) -> bool {
    Elf::parse(bytes).is_ok_and(|elf| elf.note(b"Xen", PHYS32_ENTRY).is_some())
}

/// Plans how to start a PVH kernel.
pub fn load<'a>(bytes: &'a [u8], options: &LoadOptions<'a>, map: &MemoryMap) -> Result<LoadPlan<'a>, LoadError> {
    plan(bytes, options, map).map_err(|problem| LoadError { file: options.name.to_owned(), problem })
}

fn plan<'a>(bytes: &'a [u8], options: &LoadOptions<'a>, map: &MemoryMap) -> Result<LoadPlan<'a>, LoadProblem> {
    let elf = Elf::parse(bytes)?;
    let entry = match elf.note(b"Xen", PHYS32_ENTRY) {
        Some(&[a, b, c, d, ref high @ ..]) if high.iter().all(|&b| b == 0) => u32::from_le_bytes([a, b, c, d]),
        Some(other) => {
            return Err(LoadProblem::BadField {
                what: "the length of the PVH entry note",
                value: other.len() as u64,
                why: "or its address is not below 4 GiB",
            });
        }
        None => {
            return Err(LoadProblem::Unsupported {
                what: "this ELF file has no PVH entry note",
                advice: "a kernel built with CONFIG_PVH",
            });
        }
    };
    let mut plan = Plan::new(map);
    elf.put_segments(&mut plan)?;

    let mut strings = Strings::new();
    let command_line = strings.add(options.command_line)?;
    if options.modules.len() > MAX_MODULES {
        return Err(LoadProblem::Unsupported { what: "there are more than 64 modules", advice: "fewer" });
    }
    let mut lists = Table::zeroed(PAGE_SIZE as usize);
    for (number, module) in options.modules.iter().enumerate() {
        let length = module.bytes.len() as u64;
        let at = plan.find_below("a module", 1 << 32, length)?;
        plan.put("a module", at, module.bytes)?;
        let row = number * 32;
        lists.u64(row, at);
        lists.u64(row + 8, length);
        lists.u64(row + 16, strings.add(module.command_line)?);
    }
    let e820 = map.e820();
    let memmap = PAGE_SIZE as usize / 2;
    for (number, range) in e820.iter().enumerate() {
        let row = memmap + number * 24;
        lists.u64(row, range.start.0);
        lists.u64(row + 8, range.length);
        lists.u32(row + 16, range.kind as u32);
    }
    let mut info = Table::zeroed(56);
    info.u32(0, MAGIC);
    info.u32(4, 1);
    info.u32(12, options.modules.len() as u32);
    info.u64(16, if options.modules.is_empty() { 0 } else { layout::LISTS });
    info.u64(24, command_line);
    info.u64(32, options.rsdp.map_or(0, |rsdp| rsdp.0));
    info.u64(40, layout::LISTS + memmap as u64);
    info.u32(48, e820.len() as u32);
    plan.put("the start info", layout::BOOT_INFO, info.0)?;
    plan.put("the start info's lists", layout::LISTS, lists.0)?;
    plan.put("the command line", layout::STRINGS, strings.bytes)?;

    let gdt = plan.put_gdt(CodeWidth::Bits32)?;
    let mut gprs = [0; 16];
    gprs[gpr::RBX] = layout::BOOT_INFO;
    gprs[gpr::RSP] = layout::STACK_TOP;
    let state = EntryState { mode: EntryMode::Protected32, rip: entry.into(), gprs, gdt: Some(gdt) };
    Ok(plan.finish(Format::Pvh, state))
}

/// Strings that boot information points to, packed one after the other.
pub(super) struct Strings {
    pub bytes: Vec<u8>,
}

impl Strings {
    pub fn new() -> Strings {
        Strings { bytes: Vec::new() }
    }
    /// Adds a string with its final zero and gives its address.
    pub fn add(&mut self, text: &str) -> Result<u64, LoadProblem> {
        let at = self.bytes.len();
        let limit = (layout::STRINGS_SIZE as usize).saturating_sub(at + 1);
        self.bytes.extend(c_string(text, limit)?);
        Ok(layout::STRINGS + at as u64)
    }
}
