//! Multiplication and division (SDM vol. 1, 5.1.2): MUL, IMUL, DIV, IDIV.

use super::data::byte_source;
use super::{Lifted, Lifter, Rights};
use crate::decode::{Mnemonic as M, Operand};
use crate::state::slots::T1;
use crate::uop::{Form, Op, Uop};

/// Lifts the family's instructions.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    match l.insn.mnemonic() {
        M::Mul => wide(l, Op::MulWide),
        M::Div => wide(l, Op::Div),
        M::Idiv => wide(l, Op::Idiv),
        M::Imul if l.insn.op_count() == 1 => wide(l, Op::ImulWide),
        M::Imul => imul(l),
        _ => Lifted::No,
    }
}

fn wide(l: &mut Lifter<'_>, op: Op) -> Lifted {
    let operand = l.insn.op(0);
    let width = l.width_of(operand);
    match operand {
        Operand::Mem => {
            let mem = l.mem(width.bytes(), Rights::Read);
            l.emit(Uop { width, mem, form: Form::RM, ..Uop::new(op) });
        }
        _ => {
            let src = byte_source(l, operand, T1);
            l.emit(Uop { src, width, form: Form::RR, ..Uop::new(op) });
        }
    }
    Lifted::Yes
}

fn imul(l: &mut Lifter<'_>) -> Lifted {
    let Operand::Gpr(dst, width) = l.insn.op(0) else { return Lifted::No };
    let (op, imm) = match l.insn.op(2) {
        Operand::Imm(imm) => (Op::Imul3, imm as i64),
        _ => (Op::Imul, 0),
    };
    match l.insn.op(1) {
        Operand::Gpr(src, _) => l.emit(Uop { dst, src, width, imm, form: Form::RR, ..Uop::new(op) }),
        _ => {
            let mem = l.mem(width.bytes(), Rights::Read);
            l.emit(Uop { dst, width, imm, mem, form: Form::RM, ..Uop::new(op) });
        }
    }
    Lifted::Yes
}
