//! Shifts and rotates (SDM vol. 1, 5.1.5): SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD.

use super::data::{byte_source, insert_high};
use super::{Lifted, Lifter, Rights};
use crate::decode::{Mnemonic as M, Operand};
use crate::state::slots::T1;
use crate::uop::{Form, Op, Uop, Width};

/// Lifts the family's instructions.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    let op = match l.insn.mnemonic() {
        M::Shl | M::Sal => Op::Shl,
        M::Shr => Op::Shr,
        M::Sar => Op::Sar,
        M::Rol => Op::Rol,
        M::Ror => Op::Ror,
        M::Rcl => Op::Rcl,
        M::Rcr => Op::Rcr,
        M::Shld => return double(l, Op::Shld),
        M::Shrd => return double(l, Op::Shrd),
        _ => return Lifted::No,
    };
    let imm = count(l.insn.op(1));
    match l.insn.op(0) {
        Operand::Gpr(dst, width) => l.emit(Uop { dst, width, imm, form: Form::RI, ..Uop::new(op) }),
        Operand::High(slot) => {
            let dst = byte_source(l, Operand::High(slot), T1);
            l.emit(Uop { dst, width: Width::B1, imm, form: Form::RI, ..Uop::new(op) });
            insert_high(l, slot, dst);
        }
        Operand::Mem => {
            let width = l.width_of(Operand::Mem);
            let mem = l.mem(width.bytes(), Rights::Write);
            l.emit(Uop { width, mem, imm, form: Form::MI, ..Uop::new(op) });
        }
        _ => return Lifted::No,
    }
    Lifted::Yes
}

/// An immediate count, or −1 for CL.
fn count(operand: Operand) -> i64 {
    match operand {
        Operand::Imm(imm) => (imm & 0xff) as i64,
        _ => -1,
    }
}

fn double(l: &mut Lifter<'_>, op: Op) -> Lifted {
    let Operand::Gpr(src, width) = l.insn.op(1) else { return Lifted::No };
    let imm = count(l.insn.op(2));
    match l.insn.op(0) {
        Operand::Gpr(dst, _) => l.emit(Uop { dst, src, width, imm, form: Form::RR, ..Uop::new(op) }),
        _ => {
            let mem = l.mem(width.bytes(), Rights::Write);
            l.emit(Uop { src, width, mem, imm, form: Form::MR, ..Uop::new(op) });
        }
    }
    Lifted::Yes
}
