//! Stack instructions (SDM vol. 1, 5.1.1 and 6.2): PUSH, POP, PUSHA, POPA, ENTER, LEAVE. Segment registers and flags are
//! `lift::system`'s.
//!
//! A flat stack segment has uops; any other goes through `helpers::stack`.

use super::{Lifted, Lifter, Rights};
use crate::decode::{Mnemonic as M, Operand};
use crate::helpers::{Args, stack};
use crate::mode::ModeBits;
use crate::state::Seg;
use crate::state::slots::T0;
use crate::uop::{Form, Op, Uop, Width};

/// Lifts the family's instructions.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    match l.insn.mnemonic() {
        M::Push => push(l),
        M::Pop => pop(l),
        M::Pusha => call(l, &stack::PUSHA, Width::B2),
        M::Pushad => call(l, &stack::PUSHA, Width::B4),
        M::Popa => call(l, &stack::POPA, Width::B2),
        M::Popad => call(l, &stack::POPA, Width::B4),
        M::Enter => enter(l),
        M::Leave => leave(l),
        _ => Lifted::No,
    }
}

fn call(l: &mut Lifter<'_>, helper: &'static crate::helpers::Helper, width: Width) -> Lifted {
    let args = Args { width, ..l.args() };
    l.call(helper, args);
    Lifted::Yes
}

/// log2 of the stack pointer's width, for the `cond` field of stack uops.
pub(super) fn sp_width(l: &Lifter<'_>) -> u8 {
    match (l.mode.has(ModeBits::L), l.mode.has(ModeBits::SS_B)) {
        (true, _) => 3,
        (false, true) => 2,
        (false, false) => 1,
    }
}

/// Whether pushes and pops need no segment check.
pub(super) fn flat_stack(l: &Lifter<'_>) -> bool {
    l.mode.flat(Seg::Ss)
}

/// The operand width of a stack instruction, from the change of the stack pointer.
pub(super) fn operand_width(l: &Lifter<'_>) -> Width {
    match l.insn.stack_increment().unsigned_abs() {
        2 => Width::B2,
        4 => Width::B4,
        _ => Width::B8,
    }
}

fn push(l: &mut Lifter<'_>) -> Lifted {
    let (width, cond) = (operand_width(l), sp_width(l));
    match l.insn.op(0) {
        Operand::Gpr(src, _) if flat_stack(l) => {
            l.emit(Uop { src, width, cond, form: Form::R, seg: Seg::Ss, ..Uop::new(Op::Push) });
        }
        Operand::Imm(imm) if flat_stack(l) => {
            l.emit(Uop { width, cond, imm: imm as i64, form: Form::RI, seg: Seg::Ss, ..Uop::new(Op::Push) });
        }
        // The operand faults with #GP, the stack with #SS: two uops, unless they share the segment.
        Operand::Mem if flat_stack(l) && l.insn.mem().seg != Seg::Ss => {
            let mem = l.mem(width.bytes(), Rights::Read);
            l.emit(Uop { dst: T0, width, mem, form: Form::RM, ..Uop::new(Op::Mov) });
            l.emit(Uop { src: T0, width, cond, form: Form::R, seg: Seg::Ss, ..Uop::new(Op::Push) });
        }
        Operand::Mem if flat_stack(l) => {
            let mem = l.mem(width.bytes(), Rights::Read);
            l.emit(Uop { width, cond, mem, form: Form::M, ..Uop::new(Op::Push) });
        }
        Operand::Imm(imm) => {
            let args = Args { width, imm, ..l.args() };
            l.call(&stack::PUSH_IMMEDIATE, args);
        }
        operand @ (Operand::Gpr(..) | Operand::Mem) => {
            let args = Args { width, ..l.rm_args(operand) };
            l.call(&stack::PUSH, args);
        }
        _ => return Lifted::No,
    }
    Lifted::Yes
}

fn pop(l: &mut Lifter<'_>) -> Lifted {
    let (width, cond) = (operand_width(l), sp_width(l));
    match l.insn.op(0) {
        Operand::Gpr(dst, _) if flat_stack(l) => l.emit(Uop { dst, width, cond, seg: Seg::Ss, ..Uop::new(Op::Pop) }),
        operand @ Operand::Gpr(..) => {
            let args = Args { width, ..l.rm_args(operand) };
            l.call(&stack::POP, args);
        }
        Operand::Mem => {
            // An address based on RSP is computed after the increment: the displacement takes it in.
            let m = l.insn.mem();
            let bump = if m.base == crate::state::slots::RSP { width.bytes() } else { 0 };
            let args = Args { width, imm: bump, ..l.rm_args(Operand::Mem) };
            let args = Args { c: m.width as u8, ..args };
            l.call(&stack::POP, args);
        }
        _ => return Lifted::No,
    }
    Lifted::Yes
}

fn enter(l: &mut Lifter<'_>) -> Lifted {
    let (Operand::Imm(size), Operand::Imm(level)) = (l.insn.op(0), l.insn.op(1)) else { return Lifted::No };
    let width = match l.insn.code() {
        crate::decode::Code::Enterw_imm16_imm8 => Width::B2,
        crate::decode::Code::Enterd_imm16_imm8 => Width::B4,
        _ => Width::B8,
    };
    let args = Args { width, imm: size & 0xffff | (level & 31) << 16, ..l.args() };
    l.call(&stack::ENTER, args);
    Lifted::Yes
}

fn leave(l: &mut Lifter<'_>) -> Lifted {
    let width = match l.insn.code() {
        crate::decode::Code::Leavew => Width::B2,
        crate::decode::Code::Leaved => Width::B4,
        _ => Width::B8,
    };
    if flat_stack(l) {
        let cond = sp_width(l);
        l.emit(Uop { width, cond, seg: Seg::Ss, ..Uop::new(Op::Leave) });
        return Lifted::Yes;
    }
    call(l, &stack::LEAVE, width)
}
