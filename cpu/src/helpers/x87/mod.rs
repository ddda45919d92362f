//! The x87 instructions (SDM vol. 1 chapter 8, vol. 2): a file per group, called by `lift::x87`.
//!
//! Every instruction runs in a `Frame`, which holds the order of things in one place: a pending error first (#MF or
//! FERR#), then the memory operand (which may fault), then the pointers of the last instruction, then the computation,
//! and at the end status word, results and pops. An unmasked exception that is found before the computation (invalid,
//! denormal, divide by zero, stack fault) leaves registers and stack alone; one that is found after it (overflow,
//! underflow, inexact) leaves the result that the manual defines. Either way ES is set, and the next waiting
//! instruction reports it.
//!
//! `Args` of these helpers: `a` is the destination ST(i), `b` the source ST(i) or `MEMORY`, `c` a [`Source`] and how
//! often to pop, `imm` the instruction's length and FOP ([`pack_imm`]).
//!
//! Left out: FXSAVE and XSAVE (system helpers), MMX (vector forms). CR0.EM and TS are checked by the lift.

pub mod arithmetic;
pub mod compare;
pub mod control;
pub mod environment;
pub mod load_store;
mod stack;
pub mod transcendental;

#[cfg(test)]
mod tests;

use super::{Args, Flow, MEMORY};
use crate::fault::Fault;
use crate::softfloat::{Env, F32, F64, F80, Flags};
use crate::state::control::cr0;
use crate::state::slots::T0;
use crate::state::{Fpu, Seg};
use crate::vcpu::Vcpu;
use umbra_mmu::addr::{Linear, PAGE_SIZE};
use umbra_mmu::fault::Access;

/// Bits of the status word (SDM vol. 1 8.1.3).
pub mod status {
    /// SF: the invalid operation was a stack fault.
    pub const SF: u16 = 1 << 6;
    /// ES: an unmasked exception is flagged.
    pub const ES: u16 = 1 << 7;
    /// Condition code 0.
    pub const C0: u16 = 1 << 8;
    /// Condition code 1.
    pub const C1: u16 = 1 << 9;
    /// Condition code 2.
    pub const C2: u16 = 1 << 10;
    /// Condition code 3.
    pub const C3: u16 = 1 << 14;
    /// B: a copy of ES.
    pub const B: u16 = 1 << 15;
    /// The four condition codes.
    pub const CONDITIONS: u16 = C0 | C1 | C2 | C3;
    /// The exceptions and their summaries: what FNCLEX clears.
    pub const EXCEPTIONS: u16 = 0x3f | SF | ES | B;
}

/// Where an instruction's operand comes from, or where and how it goes: bits 2-0 of [`Args::c`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Source {
    Register,
    Single,
    Double,
    Extended,
    Int16,
    Int32,
    Int64,
    Decimal,
}

impl Source {
    /// From [`Args::c`].
    fn of(args: Args) -> Source {
        const ALL: [Source; 8] = [
            Source::Register,
            Source::Single,
            Source::Double,
            Source::Extended,
            Source::Int16,
            Source::Int32,
            Source::Int64,
            Source::Decimal,
        ];
        ALL[usize::from(args.c & 7)]
    }
}

/// Packs [`Args::c`]: the operand and the number of pops (0-2).
pub const fn pack_c(source: Source, pops: u8) -> u8 {
    source as u8 | pops << 3
}

/// Packs [`Args::imm`]: the 11-bit opcode for FOP, and the instruction's length.
pub const fn pack_imm(opcode: u16, len: usize) -> u64 {
    opcode as u64 & 0x7ff | (len as u64) << 16
}

/// How often the instruction pops.
const fn pops(args: Args) -> u8 {
    args.c >> 3 & 3
}

/// One instruction under way.
struct Frame {
    /// Rounding, masks, and the exceptions found so far.
    env: Env,
    /// A stack fault: C1 is set for overflow and cleared for underflow.
    stack_fault: Option<StackFault>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum StackFault {
    Overflow,
    Underflow,
}

impl Frame {
    /// Begins a waiting instruction: reports a pending error.
    fn begin(cpu: &mut Vcpu) -> Result<Frame, Fault> {
        report_pending(cpu)?;
        Ok(Frame { env: Env::x87(cpu.state.fpu.cw), stack_fault: None })
    }

    /// An operand register; the indefinite and a stack fault if it is empty.
    fn take(&mut self, fpu: &Fpu, register: u8) -> F80 {
        fpu.get(register).unwrap_or_else(|| self.underflow())
    }

    /// A source register was empty.
    fn underflow(&mut self) -> F80 {
        self.fault(StackFault::Underflow)
    }

    /// A push found a full register.
    fn overflow(&mut self) -> F80 {
        self.fault(StackFault::Overflow)
    }

    fn fault(&mut self, fault: StackFault) -> F80 {
        self.stack_fault = Some(fault);
        self.env.raise(Flags::INVALID);
        F80::INDEFINITE
    }

    /// Whether no stack fault was found.
    fn sound(&self) -> bool {
        self.stack_fault.is_none()
    }

    /// Whether the result goes to a register.
    fn computed(&self) -> bool {
        !self.env.unmasked().has(Flags::BEFORE)
    }

    /// Whether the result goes to memory: an unmasked overflow or underflow stores nothing either.
    fn stored(&self) -> bool {
        self.env.unmasked().without(Flags::PRECISION) == Flags::NONE
    }

    /// Ends the instruction: records exceptions and C1, summarises.
    fn finish(self, cpu: &mut Vcpu) -> Flow {
        let one = self.computed() && self.env.rounded_up;
        self.conclude(cpu, one)
    }

    /// As [`Self::finish`], but C1 stays as it is unless there was a stack fault.
    fn finish_keeping_c1(self, cpu: &mut Vcpu) -> Flow {
        let one = cpu.state.fpu.sw & status::C1 != 0;
        self.conclude(cpu, one)
    }

    fn conclude(self, cpu: &mut Vcpu, one: bool) -> Flow {
        let one = self.stack_fault.map_or(one, |fault| fault == StackFault::Overflow);
        let fpu = &mut cpu.state.fpu;
        fpu.sw &= !status::C1;
        fpu.sw |= u16::from(self.env.status().0);
        if one {
            fpu.sw |= status::C1;
        }
        if !self.sound() {
            fpu.sw |= status::SF;
        }
        if self.env.unmasked() == Flags::NONE { Flow::Next } else { summarize(cpu) }
    }
}

/// What a waiting instruction does first: an unmasked exception of an earlier one becomes #MF, or FERR# with CR0.NE = 0.
/// Then the instruction goes on: the board's interrupt comes at the next boundary, as if IGNNE# were asserted.
fn report_pending(cpu: &mut Vcpu) -> Result<(), Fault> {
    if cpu.state.fpu.sw & status::ES == 0 {
        return Ok(());
    }
    if cpu.state.control.cr0 & cr0::NE != 0 {
        return Err(Fault::mf());
    }
    cpu.ask_board(|bus, now| bus.set_ferr(now, true));
    Ok(())
}

/// Brings ES and B in line with exceptions and masks, and FERR# with ES. Leaves the block if FERR# was asserted, so that
/// its interrupt is seen.
fn summarize(cpu: &mut Vcpu) -> Flow {
    let fpu = &mut cpu.state.fpu;
    let pending = fpu.sw & !fpu.cw & 0x3f != 0;
    let was_pending = fpu.sw & status::ES != 0;
    fpu.sw &= !(status::ES | status::B);
    if pending {
        fpu.sw |= status::ES | status::B;
    }
    if cpu.state.control.cr0 & cr0::NE != 0 || pending == was_pending {
        return Flow::Next;
    }
    cpu.ask_board(|bus, now| bus.set_ferr(now, pending));
    if pending { Flow::Leave } else { Flow::Next }
}

/// Records FIP, FCS, FOP and, with a memory operand, FDP and FDS (SDM vol. 1 8.1.8).
fn note_pointers(cpu: &mut Vcpu, args: Args) {
    let next = cpu.state.rip;
    let start = next.wrapping_sub(args.imm >> 16 & 15);
    let fpu = &mut cpu.state.fpu;
    fpu.fip = if next >> 32 == 0 { start & 0xffff_ffff } else { start };
    fpu.fcs = cpu.state.seg[Seg::Cs as usize].selector;
    fpu.fop = args.imm as u16 & 0x7ff;
    if args.b == MEMORY {
        fpu.fdp = cpu.state.slots.get(T0);
        fpu.fds = cpu.state.seg[args.seg as usize].selector;
    }
}

/// A memory operand as read, before it is converted: so that faults come first.
#[derive(Copy, Clone, Debug)]
enum Loaded {
    Single(F32),
    Double(F64),
    Number(F80),
}

/// Loads the memory operand of a frame.
fn load(cpu: &mut Vcpu, args: Args) -> Result<Loaded, Fault> {
    let (seg, offset) = (args.seg, cpu.state.slots.get(T0));
    Ok(match Source::of(args) {
        Source::Single => Loaded::Single(F32(cpu.load(seg, offset)?)),
        Source::Double => Loaded::Double(F64(cpu.load(seg, offset)?)),
        Source::Int16 => Loaded::Number(F80::from_i64(i64::from(cpu.load::<u16>(seg, offset)? as i16))),
        Source::Int32 => Loaded::Number(F80::from_i64(i64::from(cpu.load::<u32>(seg, offset)? as i32))),
        Source::Int64 => Loaded::Number(F80::from_i64(cpu.load::<u64>(seg, offset)? as i64)),
        Source::Extended => Loaded::Number(F80::from_bytes(load_ten(cpu, seg, offset)?)),
        Source::Decimal => Loaded::Number(F80::from_bcd(load_ten(cpu, seg, offset)?)),
        Source::Register => Loaded::Number(cpu.state.fpu.read(args.b)),
    })
}

/// The source operand of an arithmetic instruction or comparison: register or memory. Pointers are noted.
fn source(frame: &mut Frame, cpu: &mut Vcpu, args: Args) -> Result<F80, Fault> {
    if args.b != MEMORY {
        note_pointers(cpu, args);
        return Ok(frame.take(&cpu.state.fpu, args.b));
    }
    let loaded = load(cpu, args)?;
    note_pointers(cpu, args);
    Ok(match loaded {
        Loaded::Single(value) => F80::operand_f32(value, &mut frame.env),
        Loaded::Double(value) => F80::operand_f64(value, &mut frame.env),
        Loaded::Number(value) => value,
    })
}

fn load_ten(cpu: &mut Vcpu, seg: Seg, offset: u64) -> Result<[u8; 10], Fault> {
    let linear = cpu.linear(seg, offset, 10, Access::Read)?;
    let mut bytes = [0; 10];
    if within_page(linear) {
        let (low, high) = bytes.split_at_mut(8);
        low.copy_from_slice(&cpu.load_linear::<u64>(linear.0)?.to_le_bytes());
        high.copy_from_slice(&cpu.load_linear::<u16>(linear.0 + 8)?.to_le_bytes());
    } else {
        let view = cpu.view();
        cpu.load_bytes(linear, &mut bytes, view)?;
    }
    Ok(bytes)
}

fn store_ten(cpu: &mut Vcpu, seg: Seg, offset: u64, bytes: [u8; 10]) -> Result<(), Fault> {
    let linear = cpu.linear(seg, offset, 10, Access::Write)?;
    let view = cpu.view();
    cpu.store_bytes(linear, &bytes, view)
}

fn within_page(linear: Linear) -> bool {
    linear.page_offset() <= PAGE_SIZE - 10
}
