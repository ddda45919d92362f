//! Bit and byte instructions (SDM vol. 1, 5.1.6): BT, BTS, BTR, BTC, BSF, BSR, TZCNT, LZCNT, POPCNT.

use super::{Lifted, Lifter, Rights};
use crate::decode::{MemOperand, Mnemonic as M, Operand};
use crate::state::slots::{T0, T1, T2, ZERO};
use crate::uop::{AddrKind, FlagUse, Form, Mem, Op, Uop, Width};

/// Lifts the family's instructions.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    match l.insn.mnemonic() {
        M::Bt => test(l, Op::Bt),
        M::Bts => test(l, Op::Bts),
        M::Btr => test(l, Op::Btr),
        M::Btc => test(l, Op::Btc),
        M::Bsf => scan(l, Op::Bsf),
        M::Bsr => scan(l, Op::Bsr),
        M::Tzcnt if !l.model.has_all(l.insn.features()) => scan(l, Op::Bsf),
        M::Lzcnt if !l.model.has_all(l.insn.features()) => scan(l, Op::Bsr),
        M::Tzcnt => scan(l, Op::Tzcnt),
        M::Lzcnt => scan(l, Op::Lzcnt),
        M::Popcnt => scan(l, Op::Popcnt),
        _ => Lifted::No,
    }
}

fn test(l: &mut Lifter<'_>, op: Op) -> Lifted {
    let rights = if op == Op::Bt { Rights::Read } else { Rights::Write };
    let lock = l.insn.lock();
    match (l.insn.op(0), l.insn.op(1)) {
        (Operand::Gpr(dst, width), Operand::Gpr(src, _)) => {
            l.emit(Uop { dst, src, width, form: Form::RR, ..Uop::new(op) });
        }
        (Operand::Gpr(dst, width), Operand::Imm(imm)) => {
            l.emit(Uop { dst, width, imm: imm as i64, form: Form::RI, ..Uop::new(op) });
        }
        (Operand::Mem, Operand::Imm(imm)) => {
            let width = l.width_of(Operand::Mem);
            let mem = l.mem(width.bytes(), rights);
            l.emit(Uop { width, mem, lock, imm: imm as i64, form: Form::MI, ..Uop::new(op) });
        }
        (Operand::Mem, Operand::Gpr(src, width)) => {
            let m = word_of_bit(l, src, width);
            let mem = l.mem_at(m, width.bytes(), rights, T0);
            l.emit(Uop { src, width, mem, lock, form: Form::MR, ..Uop::new(op) });
        }
        _ => return Lifted::No,
    }
    Lifted::Yes
}

/// The word that bit `index` (signed) of a bit string in memory lies in: its offset goes to [`T1`], and the operand that is
/// returned addresses it.
fn word_of_bit(l: &mut Lifter<'_>, index: u8, width: Width) -> MemOperand {
    let m = l.insn.mem();
    let shift = |op, imm| Uop { dst: T2, width: Width::B8, imm, form: Form::RI, flags: FlagUse::Dead, ..Uop::new(op) };
    let extend = match width {
        Width::B2 => Op::Movsx16,
        Width::B4 => Op::Movsx32,
        _ => Op::Mov,
    };
    l.emit(Uop { dst: T2, src: index, width: Width::B8, form: Form::RR, ..Uop::new(extend) });
    l.emit(shift(Op::Sar, i64::from(width.bits().trailing_zeros())));
    l.emit(shift(Op::Shl, i64::from(width.bytes().trailing_zeros())));
    let parts = Mem { kind: AddrKind::Flat64, base: m.base, index: m.index, scale: m.scale, disp: m.disp };
    l.emit(Uop { dst: T1, width: Width::B8, mem: parts, form: Form::M, ..Uop::new(Op::Lea) });
    MemOperand { base: T1, index: T2, scale: 0, disp: 0, ..m }
}

fn scan(l: &mut Lifter<'_>, op: Op) -> Lifted {
    let Operand::Gpr(dst, width) = l.insn.op(0) else { return Lifted::No };
    match l.insn.op(1) {
        Operand::Gpr(src, _) => l.emit(Uop { dst, src, width, form: Form::RR, ..Uop::new(op) }),
        Operand::Mem => {
            let mem = l.mem(width.bytes(), Rights::Read);
            l.emit(Uop { dst, width, mem, src: ZERO, form: Form::RM, ..Uop::new(op) });
        }
        _ => return Lifted::No,
    }
    Lifted::Yes
}
