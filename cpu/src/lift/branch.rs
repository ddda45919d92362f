//! Near branches (SDM vol. 1, 5.1.7): JMP, Jcc, CALL, RET, LOOP. Far ones are `lift::system`'s.

use super::stack::{flat_stack, sp_width};
use super::{Lifted, Lifter, Rights};
use crate::decode::{Code, Mnemonic as M, Operand};
use crate::helpers::{Args, stack};
use crate::mode::ModeBits;
use crate::state::Seg;
use crate::uop::{Form, Op, Uop, Width};

/// Lifts the family's instructions.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    let mnemonic = l.insn.mnemonic();
    if let Some(cond) = jump_condition(mnemonic) {
        return direct(l, Uop { cond, ..Uop::new(Op::Jcc) });
    }
    match mnemonic {
        M::Jmp => match l.insn.op(0) {
            Operand::Near(_) => direct(l, Uop::new(Op::Jmp)),
            operand @ (Operand::Gpr(..) | Operand::Mem) if !is_far(l) => indirect(l, operand, Op::JmpInd),
            _ => Lifted::No,
        },
        M::Call => match l.insn.op(0) {
            Operand::Near(target) => call_direct(l, target),
            operand @ (Operand::Gpr(..) | Operand::Mem) if !is_far(l) => call_indirect(l, operand),
            _ => Lifted::No,
        },
        M::Ret => ret(l),
        M::Loop => count(l, 0),
        M::Loope => count(l, 1),
        M::Loopne => count(l, 2),
        M::Jcxz | M::Jecxz | M::Jrcxz => count(l, 3),
        _ => Lifted::No,
    }
}

fn is_far(l: &Lifter<'_>) -> bool {
    use Code as C;
    matches!(l.insn.code(), C::Jmp_m1616 | C::Jmp_m1632 | C::Jmp_m1664 | C::Call_m1616 | C::Call_m1632 | C::Call_m1664)
}

/// Whether targets must be checked against the limit of CS: it is not flat, and may be smaller than its mode allows.
fn checked_targets(l: &Lifter<'_>) -> bool {
    !l.mode.has(ModeBits::L) && !l.mode.flat(Seg::Cs)
}

/// A direct branch. Where CS may be short of its target, a helper checks it before.
fn direct(l: &mut Lifter<'_>, uop: Uop) -> Lifted {
    let Operand::Near(target) = l.insn.op(0) else { return Lifted::No };
    if checked_targets(l) {
        let args = Args { a: if uop.op == Op::Jmp { 0xff } else { uop.cond }, imm: target, ..l.args() };
        l.call(&stack::CHECK_TARGET, args);
    }
    l.ends = true;
    l.emit(Uop { target, ..uop });
    Lifted::Yes
}

fn count(l: &mut Lifter<'_>, cond: u8) -> Lifted {
    let Operand::Near(target) = l.insn.op(0) else { return Lifted::No };
    l.ends = true;
    let width = match l.insn.mnemonic() {
        M::Jcxz => Width::B2,
        M::Jecxz => Width::B4,
        M::Jrcxz => Width::B8,
        _ => l.insn.address_width(),
    };
    l.emit(Uop { width, cond, target, ..Uop::new(Op::Loop) });
    Lifted::Yes
}

fn indirect(l: &mut Lifter<'_>, operand: Operand, op: Op) -> Lifted {
    l.ends = true;
    let width = l.width_of(operand);
    let cond = sp_width(l);
    match operand {
        Operand::Gpr(src, _) => l.emit(Uop { src, width, cond, form: Form::RR, ..Uop::new(op) }),
        _ => {
            let mem = l.mem(width.bytes(), Rights::Read);
            l.emit(Uop { width, cond, mem, form: Form::RM, ..Uop::new(op) });
        }
    }
    Lifted::Yes
}

/// The width of the return address: the operand size.
fn return_width(l: &Lifter<'_>) -> Width {
    match (l.insn.stack_increment().unsigned_abs(), l.insn.bitness()) {
        (2, _) => Width::B2,
        (4, _) => Width::B4,
        _ => Width::B8,
    }
}

fn call_direct(l: &mut Lifter<'_>, target: u64) -> Lifted {
    let width = return_width(l);
    l.ends = true;
    if flat_stack(l) && !checked_targets(l) {
        let cond = sp_width(l);
        l.emit(Uop { width, cond, target, seg: Seg::Ss, ..Uop::new(Op::CallNear) });
    } else {
        let args = Args { width, imm: target, ..l.args() };
        l.call(&stack::CALL_NEAR, args);
    }
    Lifted::Yes
}

fn call_indirect(l: &mut Lifter<'_>, operand: Operand) -> Lifted {
    if flat_stack(l) {
        return indirect(l, operand, Op::CallInd);
    }
    l.ends = true;
    let args = Args { width: return_width(l), ..l.rm_args(operand) };
    l.call(&stack::CALL_INDIRECT, args);
    Lifted::Yes
}

fn ret(l: &mut Lifter<'_>) -> Lifted {
    use Code as C;
    let width = match l.insn.code() {
        C::Retnw | C::Retnw_imm16 => Width::B2,
        C::Retnd | C::Retnd_imm16 => Width::B4,
        C::Retnq | C::Retnq_imm16 => Width::B8,
        _ => return Lifted::No,
    };
    let imm = match l.insn.op(0) {
        Operand::Imm(imm) => imm & 0xffff,
        _ => 0,
    };
    l.ends = true;
    if flat_stack(l) {
        let cond = sp_width(l);
        l.emit(Uop { width, cond, imm: imm as i64, seg: Seg::Ss, ..Uop::new(Op::Ret) });
    } else {
        let args = Args { width, imm, ..l.args() };
        l.call(&stack::RET_NEAR, args);
    }
    Lifted::Yes
}

#[rustfmt::skip]
fn jump_condition(m: M) -> Option<u8> {
    Some(match m {
        M::Jo => 0, M::Jno => 1, M::Jb => 2, M::Jae => 3, M::Je => 4, M::Jne => 5, M::Jbe => 6, M::Ja => 7,
        M::Js => 8, M::Jns => 9, M::Jp => 10, M::Jnp => 11, M::Jl => 12, M::Jge => 13, M::Jle => 14, M::Jg => 15,
        _ => return None,
    })
}
