//! Binary arithmetic and logic (SDM vol. 1, 5.1.2 and 5.1.4): ADD … XOR, CMP, TEST, INC, DEC, NEG, NOT, XADD, CMPXCHG.

use super::data::{byte_source, insert_high};
use super::{Lifted, Lifter, Rights};
use crate::decode::{Mnemonic as M, Operand};
use crate::helpers::{Args, exchange};
use crate::state::slots::{T1, T2, ZERO};
use crate::uop::{Form, Op, Uop, Width};

/// Lifts the family's instructions.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    let op = match l.insn.mnemonic() {
        M::Add => Op::Add,
        M::Adc => Op::Adc,
        M::Sub => Op::Sub,
        M::Sbb => Op::Sbb,
        M::And => Op::And,
        M::Or => Op::Or,
        M::Xor => Op::Xor,
        M::Cmp => Op::Cmp,
        M::Test => Op::Test,
        M::Inc => return unary(l, Op::Inc),
        M::Dec => return unary(l, Op::Dec),
        M::Neg => return unary(l, Op::Neg),
        M::Not => return unary(l, Op::Not),
        M::Xadd => return exchange(l, Op::Xadd),
        M::Cmpxchg => return exchange(l, Op::Cmpxchg),
        _ => return Lifted::No,
    };
    binary(l, op)
}

fn binary(l: &mut Lifter<'_>, op: Op) -> Lifted {
    let (to, from) = (l.insn.op(0), l.insn.op(1));
    let only_reads = matches!(op, Op::Cmp | Op::Test);
    match (to, from) {
        (Operand::Gpr(dst, width), Operand::Gpr(src, _)) => {
            l.emit(Uop { dst, src, width, form: Form::RR, ..Uop::new(op) });
        }
        (Operand::Gpr(dst, width), Operand::Imm(imm)) => {
            l.emit(Uop { dst, width, imm: imm as i64, form: Form::RI, ..Uop::new(op) });
        }
        (Operand::Gpr(dst, width), Operand::Mem) => {
            let mem = l.mem(width.bytes(), Rights::Read);
            l.emit(Uop { dst, width, mem, form: Form::RM, ..Uop::new(op) });
        }
        (Operand::Mem, Operand::Gpr(..) | Operand::High(_)) => {
            let width = l.width_of(from);
            let src = byte_source(l, from, T1);
            let rights = if only_reads { Rights::Read } else { Rights::Write };
            let mem = l.mem(width.bytes(), rights);
            l.emit(Uop { src, width, mem, lock: l.insn.lock(), form: Form::MR, ..Uop::new(op) });
        }
        (Operand::Mem, Operand::Imm(imm)) => {
            let width = l.width_of(Operand::Mem);
            let rights = if only_reads { Rights::Read } else { Rights::Write };
            let mem = l.mem(width.bytes(), rights);
            l.emit(Uop { width, mem, imm: imm as i64, lock: l.insn.lock(), form: Form::MI, ..Uop::new(op) });
        }
        // AH and its like as destination or source.
        (Operand::High(_) | Operand::Gpr(..), _) => {
            let dst = byte_source(l, to, T1);
            let width = Width::B1;
            match from {
                Operand::Imm(imm) => l.emit(Uop { dst, width, imm: imm as i64, form: Form::RI, ..Uop::new(op) }),
                Operand::Mem => {
                    let mem = l.mem(1, Rights::Read);
                    l.emit(Uop { dst, width, mem, form: Form::RM, ..Uop::new(op) });
                }
                _ => {
                    let src = byte_source(l, from, T2);
                    l.emit(Uop { dst, src, width, form: Form::RR, ..Uop::new(op) });
                }
            }
            if let (Operand::High(slot), false) = (to, only_reads) {
                insert_high(l, slot, dst);
            }
        }
        _ => return Lifted::No,
    }
    Lifted::Yes
}

fn unary(l: &mut Lifter<'_>, op: Op) -> Lifted {
    match l.insn.op(0) {
        Operand::Gpr(dst, width) => l.emit(Uop { dst, width, ..Uop::new(op) }),
        Operand::High(slot) => {
            let dst = byte_source(l, Operand::High(slot), T1);
            l.emit(Uop { dst, width: Width::B1, ..Uop::new(op) });
            insert_high(l, slot, dst);
        }
        Operand::Mem => {
            let width = l.width_of(Operand::Mem);
            let mem = l.mem(width.bytes(), Rights::Write);
            l.emit(Uop { width, mem, lock: l.insn.lock(), form: Form::M, ..Uop::new(op) });
        }
        _ => return Lifted::No,
    }
    Lifted::Yes
}

/// XADD and CMPXCHG. The byte forms with AH and its like go through a helper.
fn exchange(l: &mut Lifter<'_>, op: Op) -> Lifted {
    let (to, from) = (l.insn.op(0), l.insn.op(1));
    match (to, from) {
        (Operand::Gpr(dst, width), Operand::Gpr(src, _)) => {
            l.emit(Uop { dst, src, width, form: Form::RR, ..Uop::new(op) });
        }
        (Operand::Mem, Operand::Gpr(src, width)) => {
            let mem = l.mem(width.bytes(), Rights::Write);
            l.emit(Uop { src, width, mem, lock: l.insn.lock(), form: Form::MR, ..Uop::new(op) });
        }
        _ => {
            let code = |operand| match operand {
                Operand::High(slot) => slot | 0x80,
                Operand::Gpr(slot, _) => slot,
                _ => ZERO,
            };
            let args = match to {
                Operand::Mem => Args { a: code(from), ..l.rm_args(Operand::Mem) },
                _ => Args { a: code(from), b: code(to), ..l.args() },
            };
            l.call(if op == Op::Xadd { &exchange::XADD_BYTE } else { &exchange::CMPXCHG_BYTE }, args);
        }
    }
    Lifted::Yes
}
