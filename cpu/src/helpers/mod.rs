//! Helpers: instructions that are too rare, big or privileged for uops. One Rust function each, called by both executors.
//!
//! # The contract
//!
//! * `state.rip` is the address of the *next* instruction when a helper is called, and the status flags in
//!   `state.rflags` are current (`link.lazy` is empty).
//! * A helper that returns `Err(fault)` must not have changed anything that the guest can see (faults commit nothing):
//!   check and load first, then store, then registers. REP helpers commit per element.
//!   The executor puts RIP back to the instruction's start and delivers the fault.
//! * A helper that changes RIP, CS, modes, paging, or that may have enabled interrupts returns [`Flow::Leave`];
//!   after changing CPL, segments, CR0/CR4/EFER or VM/AC it calls `Vcpu::update_mode` or `Vcpu::update_paging`.
//! * A memory operand's *offset* is in slot [`T0`] and its segment in [`Args::seg`]; use `cpu.load(args.seg, offset)`.
//!   [`Args::rm`] tells a register operand from memory.
//! * Traps (single step, data breakpoints) are noted in `state.pending_debug`; the executor delivers them after the instruction.

pub mod access_rights;
pub mod bcd;
pub mod control;
pub mod debug_regs;
pub mod descriptor;
pub mod exchange;
pub mod far;
pub mod flags_io;
pub mod gate;
pub mod identify;
pub mod interrupt;
pub mod iret;
pub mod msr;
pub mod port;
pub mod privilege;
pub mod segment_load;
mod short_way;
pub mod stack;
pub mod stack_frame;
pub mod string;
pub mod syscall;
pub mod task;
pub mod v86;
pub mod x87;
pub mod xsave;

use crate::fault::Fault;
use crate::memory::Int;
use crate::state::Seg;
use crate::state::slots::T0;
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// What the executor does after a helper.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Goes on with the next uop.
    Next,
    /// Leaves the block; `state.rip` says where to go on.
    Leave,
}

/// The value of [`Args::b`] that means "the r/m operand is in memory".
pub const MEMORY: u8 = 0xff;

/// The operands of a helper call, in the helper's own terms.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Args {
    /// Usually the register (or destination) operand: a slot or register number.
    pub a: u8,
    /// Usually the r/m (or source) operand: a slot or register number, or [`MEMORY`].
    pub b: u8,
    /// A third small operand.
    pub c: u8,
    /// Operand width.
    pub width: Width,
    /// Segment of the memory operand.
    pub seg: Seg,
    /// Immediate.
    pub imm: u64,
}

/// Where an r/m operand is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Rm {
    /// In this slot.
    Slot(u8),
    /// In memory, at this offset.
    Memory(Seg, u64),
}

impl Args {
    /// Where the r/m operand (`b`) is.
    pub fn rm(&self, cpu: &Vcpu) -> Rm {
        match self.b {
            MEMORY => Rm::Memory(self.seg, cpu.state.slots.get(T0)),
            slot => Rm::Slot(slot),
        }
    }
}

/// A helper with its name, for printers and traces.
#[derive(Debug)]
pub struct Helper {
    /// The name in dumps, e.g. `far_jump`.
    pub name: &'static str,
    /// The function.
    pub run: fn(&mut Vcpu, Args) -> Result<Flow, Fault>,
}

impl Vcpu {
    /// Reads an r/m operand of width `T`.
    pub fn read_rm<T: Int>(&mut self, rm: Rm) -> Result<T, Fault> {
        match rm {
            Rm::Slot(slot) => Ok(T::narrow(self.state.slots.get(slot))),
            Rm::Memory(seg, offset) => self.load(seg, offset),
        }
    }
    /// Writes an r/m operand of width `T`; a 32-bit register write clears the upper half, narrower ones keep the rest.
    pub fn write_rm<T: Int>(&mut self, rm: Rm, value: T) -> Result<(), Fault> {
        match rm {
            Rm::Slot(slot) => {
                self.write_slot(slot, value);
                Ok(())
            }
            Rm::Memory(seg, offset) => self.store(seg, offset, value),
        }
    }
    /// Writes the low part of a slot as an instruction of that width does.
    #[inline(always)]
    pub fn write_slot<T: Int>(&mut self, slot: u8, value: T) {
        let whole = match T::LOG2 {
            0 | 1 => self.state.slots.get(slot) & !(u64::MAX >> (64 - T::BITS)) | value.widen(),
            _ => value.widen(),
        };
        self.state.slots.set(slot, whole);
    }
}

impl Vcpu {
    /// Before an access to a device: asks for the instruction to run as a block of its own, so that its time is exact and
    /// the block ends after it ([`Fault::alone`]). Nothing may have been changed yet.
    pub fn runs_alone(&self) -> Result<(), Fault> {
        if self.link.alone { Ok(()) } else { Err(Fault::alone()) }
    }
}
