//! Images without a boot protocol: a flat image at an address in a mode (our test ROMs), and plain ELF files.
//!
//! A plain ELF file starts at its entry: ELF32 in flat 32-bit protected mode, ELF64 in 64-bit mode with the first 4 GiB
//! mapped to themselves. Leaves out: command line and modules, which such an image could not find.

use super::elf::{Class, Elf};
use super::error::{LoadError, LoadProblem};
use super::plan::{CodeWidth, EntryMode, EntryState, Format, LoadPlan, Plan, gpr, layout};
use super::{LoadOptions, Processor};
use crate::memory_map::MemoryMap;
use umbra_mmu::addr::GuestPhys;

/// In which mode a flat image starts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FlatMode {
    /// Real mode; the image lies below 1 MiB. CS is 0 for an image in the first 64 KiB.
    Real16,
    /// Flat 32-bit protected mode.
    Protected32,
    /// 64-bit mode.
    Long64,
}

/// Plans how to start a flat image at its first byte.
pub fn load<'a>(
    bytes: &'a [u8],
    options: &LoadOptions<'a>,
    at: GuestPhys,
    mode: FlatMode,
    map: &MemoryMap,
) -> Result<LoadPlan<'a>, LoadError> {
    let plan = || {
        if bytes.is_empty() {
            return Err(LoadProblem::Empty);
        }
        let mut plan = Plan::new(map);
        plan.put("the image", at.0, bytes)?;
        let state = match mode {
            FlatMode::Real16 => {
                let (cs, ip) = match at.0 {
                    0..0x1_0000 => (0, at.0),
                    0x1_0000..0x10_0000 => ((at.0 >> 4) as u16, at.0 & 0xF),
                    value => {
                        let why = "above 1 MiB, where real mode does not reach";
                        return Err(LoadProblem::BadField { what: "the load address", value, why });
                    }
                };
                let mut gprs = [0; 16];
                gprs[gpr::RSP] = layout::STACK_TOP;
                EntryState { mode: EntryMode::Real16 { cs }, rip: ip, gprs, gdt: None }
            }
            FlatMode::Protected32 => flat_entry(&mut plan, CodeWidth::Bits32, at.0)?,
            FlatMode::Long64 => flat_entry(&mut plan, CodeWidth::Bits64, at.0)?,
        };
        Ok(plan.finish(Format::Flat, state))
    };
    plan().map_err(|problem| LoadError { file: options.name.to_owned(), problem })
}

/// Plans how to start a plain ELF file.
pub fn load_elf<'a>(bytes: &'a [u8], options: &LoadOptions<'a>, map: &MemoryMap) -> Result<LoadPlan<'a>, LoadError> {
    let plan = || {
        let elf = Elf::parse(bytes)?;
        let mut plan = Plan::new(map);
        elf.put_segments(&mut plan)?;
        let width = match elf.class {
            Class::Elf32 => CodeWidth::Bits32,
            Class::Elf64 if options.processor == Processor::Only32 => return Err(LoadProblem::NeedsLongMode),
            Class::Elf64 => CodeWidth::Bits64,
        };
        let state = flat_entry(&mut plan, width, elf.physical_entry())?;
        Ok(plan.finish(Format::BareElf, state))
    };
    plan().map_err(|problem| LoadError { file: options.name.to_owned(), problem })
}

fn flat_entry(plan: &mut Plan<'_, '_>, width: CodeWidth, rip: u64) -> Result<EntryState, LoadProblem> {
    let gdt = plan.put_gdt(width)?;
    let mode = match width {
        CodeWidth::Bits32 => EntryMode::Protected32,
        CodeWidth::Bits64 => EntryMode::Long64 { cr3: plan.put_identity_tables()? },
    };
    let mut gprs = [0; 16];
    gprs[gpr::RSP] = layout::STACK_TOP;
    Ok(EntryState { mode, rip, gprs, gdt: Some(gdt) })
}
