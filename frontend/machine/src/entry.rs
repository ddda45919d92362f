//! From a loader's entry state to the processor's: descriptor caches, control registers, the activity of the others.

use crate::load::plan::{BOOT_CODE, BOOT_DATA};
use crate::load::{EntryMode, EntryState};
use umbra_cpu::exit::Activity;
use umbra_cpu::state::{Seg, Segment, State, TableRegister};

/// Present, DPL 0, accessed, readable code; 32-bit, 4 KiB granular.
const CODE_32: u16 = 0xC09B;
/// The same, 64-bit.
const CODE_64: u16 = 0xA09B;
/// Present, DPL 0, accessed, writable data; 32-bit, 4 KiB granular.
const DATA: u16 = 0xC093;
/// A busy 32-bit TSS, present.
const BUSY_TSS: u16 = 0x8B;

/// CR0: protection, extension type.
const CR0_PE_ET: u64 = 1 << 4 | 1;
/// CR0: paging.
const CR0_PG: u64 = 1 << 31;
/// CR4: physical address extension.
const CR4_PAE: u64 = 1 << 5;
/// EFER: long mode enabled and active.
const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;

/// The state of the bootstrap processor at a kernel's first instruction. `fresh` is a state after RESET#.
pub fn boot_state(fresh: State, entry: &EntryState) -> State {
    let mut state = fresh;
    for (number, &value) in (0..).zip(&entry.gprs) {
        state.set_gpr(number, value);
    }
    state.rip = entry.rip;
    if let Some((base, limit)) = entry.gdt {
        state.gdtr = TableRegister { base: base.0, limit };
        state.idtr = TableRegister { base: 0, limit: 0 };
        state.tr = Segment { selector: 0, rights: BUSY_TSS, limit: 0x67, base: 0 };
    }
    let flat = |selector, rights| Segment { selector, rights, limit: u32::MAX, base: 0 };
    let code = match entry.mode {
        EntryMode::Real16 { cs } => {
            state.control.cr0 = 1 << 4;
            for seg in Seg::ALL {
                state.seg[seg as usize] = Segment::real(0);
            }
            Segment::real(cs)
        }
        EntryMode::Protected32 => {
            state.control.cr0 = CR0_PE_ET;
            flat(BOOT_CODE, CODE_32)
        }
        EntryMode::Long64 { cr3 } => {
            state.control.cr0 = CR0_PE_ET | CR0_PG;
            state.control.cr3 = cr3.0;
            state.control.cr4 = CR4_PAE;
            state.control.efer = EFER_LME_LMA;
            flat(BOOT_CODE, CODE_64)
        }
    };
    if !matches!(entry.mode, EntryMode::Real16 { .. }) {
        for seg in Seg::ALL {
            state.seg[seg as usize] = flat(BOOT_DATA, DATA);
        }
    }
    state.seg[Seg::Cs as usize] = code;
    state.activity = Activity::Running;
    state
}

/// The state of the other processors at power-on: they wait for a start-up message.
pub fn application_state(fresh: State) -> State {
    State { activity: Activity::WaitForSipi, ..fresh }
}
