//! Data transfer (SDM vol. 1, 5.1.1): MOV, MOVZX, MOVSX, LEA, XCHG, BSWAP, CMOVcc, CBW and their like, XLAT, BCD.

use super::{Lifted, Lifter, Rights};
use crate::decode::{Code, Mnemonic as M, Operand};
use crate::helpers::bcd;
use crate::state::slots::{RAX, RDX, T0, T1, T2, ZERO};
use crate::uop::{AddrKind, Form, Mem, Op, Uop, Width};

/// Lifts the family's instructions.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    match l.insn.mnemonic() {
        M::Mov => mov(l),
        M::Movzx => extend(l, Op::Movzx8, Op::Movzx16),
        M::Movsx => extend(l, Op::Movsx8, Op::Movsx16),
        M::Movsxd => extend(l, Op::Movsx32, Op::Movsx32),
        M::Lea => lea(l),
        M::Xchg => xchg(l),
        M::Bswap => bswap(l),
        M::Cbw => convert(l, Op::Movsx8, Width::B2),
        M::Cwde => convert(l, Op::Movsx16, Width::B4),
        M::Cdqe => convert(l, Op::Movsx32, Width::B8),
        M::Cwd => spread(l, Width::B2),
        M::Cdq => spread(l, Width::B4),
        M::Cqo => spread(l, Width::B8),
        M::Xlatb => xlat(l),
        M::Reservednop if undefined_prefetch(l) => {
            l.raise_ud();
            Lifted::Yes
        }
        M::Nop | M::Reservednop | M::Pause | M::Endbr32 | M::Endbr64 => {
            l.emit(Uop::new(Op::Nop));
            Lifted::Yes
        }
        M::Prefetch
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchit0
        | M::Prefetchit1 => {
            l.emit(Uop::new(Op::Nop));
            Lifted::Yes
        }
        M::Lahf => one(l, Op::Lahf),
        M::Sahf => one(l, Op::Sahf),
        M::Clc => one(l, Op::Clc),
        M::Stc => one(l, Op::Stc),
        M::Cmc => one(l, Op::Cmc),
        M::Cld => one(l, Op::Cld),
        M::Std => one(l, Op::Std),
        M::Daa => call(l, &bcd::DAA),
        M::Das => call(l, &bcd::DAS),
        M::Aaa => call(l, &bcd::AAA),
        M::Aas => call(l, &bcd::AAS),
        M::Aam => call(l, &bcd::AAM),
        M::Aad => call(l, &bcd::AAD),
        M::Salc => call(l, &bcd::SALC),
        M::Bound => bound(l),
        M::Cmpxchg8b | M::Cmpxchg16b => wide_compare_exchange(l),
        m => match cmov_condition(m) {
            Some(cond) => cmov(l, cond),
            None => match set_condition(m) {
                Some(cond) => set(l, cond),
                None => Lifted::No,
            },
        },
    }
}

/// BSWAP of a 16-bit register is undefined (SDM vol. 2, BSWAP): it clears the register, as AMD's processors do.
fn bswap(l: &mut Lifter<'_>) -> Lifted {
    if let Operand::Gpr(dst, width @ Width::B2) = l.insn.op(0) {
        l.emit(Uop { dst, width, imm: 0, form: Form::RI, ..Uop::new(Op::Mov) });
        return Lifted::Yes;
    }
    one(l, Op::Bswap)
}

/// PREFETCH and PREFETCHW (0F 0D) with a register operand: #UD (AMD APM vol. 3, PREFETCH).
fn undefined_prefetch(l: &Lifter<'_>) -> bool {
    let code = l.insn.code();
    let prefetch = matches!(
        code,
        Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D | Code::Reservednop_rm64_r64_0F0D
    );
    prefetch && matches!(l.insn.op(0), Operand::Gpr(..))
}

fn one(l: &mut Lifter<'_>, op: Op) -> Lifted {
    let (dst, width) = match l.insn.op(0) {
        Operand::Gpr(slot, width) => (slot, width),
        _ => (ZERO, Width::B1),
    };
    l.emit(Uop { dst, width, ..Uop::new(op) });
    Lifted::Yes
}

fn call(l: &mut Lifter<'_>, helper: &'static crate::helpers::Helper) -> Lifted {
    let imm = match l.insn.op(0) {
        Operand::Imm(imm) => imm,
        _ => 0,
    };
    let args = crate::helpers::Args { imm, ..l.args() };
    l.call(helper, args);
    Lifted::Yes
}

/// A byte source operand in a slot: AH and its like are extracted to `temp` first.
pub(super) fn byte_source(l: &mut Lifter<'_>, operand: Operand, temp: u8) -> u8 {
    match operand {
        Operand::High(slot) => {
            l.emit(Uop { dst: temp, src: slot, form: Form::RR, ..Uop::new(Op::ExtractHigh) });
            temp
        }
        Operand::Gpr(slot, _) => slot,
        _ => ZERO,
    }
}

/// Puts the low byte of `temp` into AH and its like.
pub(super) fn insert_high(l: &mut Lifter<'_>, slot: u8, temp: u8) {
    l.emit(Uop { dst: slot, src: temp, form: Form::RR, ..Uop::new(Op::InsertHigh) });
}

fn mov(l: &mut Lifter<'_>) -> Lifted {
    let (to, from) = (l.insn.op(0), l.insn.op(1));
    match (to, from) {
        (Operand::Gpr(dst, width), Operand::Gpr(src, _)) => {
            l.emit(Uop { dst, src, width, form: Form::RR, ..Uop::new(Op::Mov) });
        }
        (Operand::Gpr(dst, width), Operand::High(_)) => {
            let src = byte_source(l, from, T1);
            l.emit(Uop { dst, src, width, form: Form::RR, ..Uop::new(Op::Mov) });
        }
        (Operand::High(dst), Operand::Gpr(..) | Operand::High(_)) => {
            let src = byte_source(l, from, T1);
            insert_high(l, dst, src);
        }
        (Operand::Gpr(dst, width), Operand::Imm(imm)) => {
            l.emit(Uop { dst, width, imm: imm as i64, form: Form::RI, ..Uop::new(Op::Mov) });
        }
        (Operand::High(dst), Operand::Imm(imm)) => {
            l.emit(Uop { dst: T1, width: Width::B1, imm: imm as i64, form: Form::RI, ..Uop::new(Op::Mov) });
            insert_high(l, dst, T1);
        }
        (Operand::Gpr(dst, width), Operand::Mem) => {
            let mem = l.mem(width.bytes(), Rights::Read);
            l.emit(Uop { dst, width, mem, form: Form::RM, ..Uop::new(Op::Mov) });
        }
        (Operand::High(dst), Operand::Mem) => {
            let mem = l.mem(1, Rights::Read);
            l.emit(Uop { dst: T1, width: Width::B1, mem, form: Form::RM, ..Uop::new(Op::Mov) });
            insert_high(l, dst, T1);
        }
        (Operand::Mem, Operand::Gpr(src, width)) => {
            let mem = l.mem(width.bytes(), Rights::Write);
            l.emit(Uop { src, width, mem, form: Form::MR, ..Uop::new(Op::Mov) });
        }
        (Operand::Mem, Operand::High(_)) => {
            let src = byte_source(l, from, T1);
            let mem = l.mem(1, Rights::Write);
            l.emit(Uop { src, width: Width::B1, mem, form: Form::MR, ..Uop::new(Op::Mov) });
        }
        (Operand::Mem, Operand::Imm(imm)) => {
            let width = l.width_of(Operand::Mem);
            let mem = l.mem(width.bytes(), Rights::Write);
            l.emit(Uop { width, mem, imm: imm as i64, form: Form::MI, ..Uop::new(Op::Mov) });
        }
        _ => return Lifted::No,
    }
    Lifted::Yes
}

fn extend(l: &mut Lifter<'_>, from8: Op, from16: Op) -> Lifted {
    let Operand::Gpr(dst, width) = l.insn.op(0) else { return Lifted::No };
    let from = l.insn.op(1);
    let narrow = l.width_of(from);
    let op = match (narrow, from8) {
        (_, Op::Movsx32) if narrow >= width => Op::Mov,
        (_, Op::Movsx32) => from8,
        (Width::B1, _) => from8,
        _ if narrow >= width => Op::Mov,
        _ => from16,
    };
    match from {
        Operand::Mem => {
            let mem = l.mem(narrow.min(if op == Op::Mov { width } else { Width::B8 }).bytes(), Rights::Read);
            l.emit(Uop { dst, width, mem, form: Form::RM, ..Uop::new(op) });
        }
        _ => {
            let src = byte_source(l, from, T1);
            l.emit(Uop { dst, src, width, form: Form::RR, ..Uop::new(op) });
        }
    }
    Lifted::Yes
}

fn lea(l: &mut Lifter<'_>) -> Lifted {
    let Operand::Gpr(dst, width) = l.insn.op(0) else {
        return Lifted::No;
    };
    let m = l.insn.mem();
    let mem = Mem { kind: AddrKind::Flat64, base: m.base, index: m.index, scale: m.scale, disp: m.disp };
    let cond = u8::from(width == Width::B2);
    if l.insn.op(1) != Operand::Mem {
        l.raise_ud();
        return Lifted::Yes;
    }
    l.emit(Uop { dst, width: width.min(m.width), cond, mem, form: Form::M, ..Uop::new(Op::Lea) });
    Lifted::Yes
}

fn xchg(l: &mut Lifter<'_>) -> Lifted {
    let (mut a, mut b) = (l.insn.op(0), l.insn.op(1));
    if b == Operand::Mem {
        (a, b) = (b, a);
    }
    let width = l.width_of(b);
    match (a, b) {
        (Operand::Mem, Operand::High(slot)) => {
            // The register would be written after the store, where a block may be left: a helper does this rare form.
            let args = crate::helpers::Args { a: slot, ..l.rm_args(Operand::Mem) };
            l.call(&crate::helpers::exchange::XCHG_HIGH, args);
        }
        (Operand::Mem, Operand::Gpr(src, _)) => {
            let mem = l.mem(width.bytes(), Rights::Write);
            l.emit(Uop { src, width, mem, lock: true, form: Form::MR, ..Uop::new(Op::XchgMem) });
        }
        (Operand::Gpr(dst, _), Operand::Gpr(src, _)) => {
            l.emit(Uop { dst, src, width, form: Form::RR, ..Uop::new(Op::Xchg) });
        }
        _ => {
            // AH and its like: through temporaries.
            let (x, y) = (byte_source(l, a, T1), byte_source(l, b, T2));
            l.emit(Uop { dst: T0, src: x, width: Width::B1, form: Form::RR, ..Uop::new(Op::Mov) });
            put_byte(l, a, y);
            put_byte(l, b, T0);
        }
    }
    Lifted::Yes
}

/// Writes the low byte of `temp` to a byte register.
fn put_byte(l: &mut Lifter<'_>, operand: Operand, temp: u8) {
    match operand {
        Operand::High(slot) => insert_high(l, slot, temp),
        Operand::Gpr(dst, _) => l.emit(Uop { dst, src: temp, width: Width::B1, form: Form::RR, ..Uop::new(Op::Mov) }),
        _ => {}
    }
}

fn convert(l: &mut Lifter<'_>, op: Op, width: Width) -> Lifted {
    l.emit(Uop { dst: RAX, src: RAX, width, form: Form::RR, ..Uop::new(op) });
    Lifted::Yes
}

/// CWD, CDQ, CQO: rDX = sign of rAX.
fn spread(l: &mut Lifter<'_>, width: Width) -> Lifted {
    let sign = i64::from(width.bits()) - 1;
    l.emit(Uop { dst: T1, src: RAX, width, form: Form::RR, ..Uop::new(Op::Mov) });
    l.emit(Uop { dst: T1, width, imm: sign, form: Form::RI, flags: crate::uop::FlagUse::Dead, ..Uop::new(Op::Sar) });
    l.emit(Uop { dst: RDX, src: T1, width, form: Form::RR, ..Uop::new(Op::Mov) });
    Lifted::Yes
}

fn xlat(l: &mut Lifter<'_>) -> Lifted {
    let mut m = l.insn.mem();
    l.emit(Uop { dst: T1, src: RAX, width: Width::B4, form: Form::RR, ..Uop::new(Op::Movzx8) });
    m.base = crate::state::slots::RBX;
    m.index = T1;
    m.scale = 0;
    let mem = l.mem_at(m, 1, Rights::Read, T0);
    l.emit(Uop { dst: RAX, width: Width::B1, mem, form: Form::RM, ..Uop::new(Op::Mov) });
    Lifted::Yes
}

fn bound(l: &mut Lifter<'_>) -> Lifted {
    let Operand::Gpr(slot, width) = l.insn.op(0) else { return Lifted::No };
    let args = crate::helpers::Args { a: slot, width, ..l.rm_args(Operand::Mem) };
    l.call(&crate::helpers::exchange::BOUND, args);
    Lifted::Yes
}

fn wide_compare_exchange(l: &mut Lifter<'_>) -> Lifted {
    if l.insn.op(0) != Operand::Mem {
        l.raise_ud();
        return Lifted::Yes;
    }
    let (args, lock) = (l.rm_args(Operand::Mem), l.insn.lock());
    let wide = l.insn.mnemonic() == M::Cmpxchg16b;
    let helper = if wide { &crate::helpers::exchange::CMPXCHG16B } else { &crate::helpers::exchange::CMPXCHG8B };
    l.emit(Uop { lock, ..Lifter::calling(helper, args) });
    Lifted::Yes
}

fn cmov(l: &mut Lifter<'_>, cond: u8) -> Lifted {
    let Operand::Gpr(dst, width) = l.insn.op(0) else { return Lifted::No };
    match l.insn.op(1) {
        Operand::Gpr(src, _) => l.emit(Uop { dst, src, width, cond, form: Form::RR, ..Uop::new(Op::Cmov) }),
        _ => {
            let mem = l.mem(width.bytes(), Rights::Read);
            l.emit(Uop { dst, width, cond, mem, form: Form::RM, ..Uop::new(Op::Cmov) });
        }
    }
    Lifted::Yes
}

fn set(l: &mut Lifter<'_>, cond: u8) -> Lifted {
    match l.insn.op(0) {
        Operand::Gpr(dst, _) => l.emit(Uop { dst, cond, ..Uop::new(Op::Set) }),
        Operand::High(slot) => {
            l.emit(Uop { dst: T1, cond, ..Uop::new(Op::Set) });
            insert_high(l, slot, T1);
        }
        _ => {
            let mem = l.mem(1, Rights::Write);
            l.emit(Uop { cond, mem, form: Form::M, ..Uop::new(Op::Set) });
        }
    }
    Lifted::Yes
}

#[rustfmt::skip]
fn cmov_condition(m: M) -> Option<u8> {
    Some(match m {
        M::Cmovo => 0, M::Cmovno => 1, M::Cmovb => 2, M::Cmovae => 3, M::Cmove => 4, M::Cmovne => 5, M::Cmovbe => 6,
        M::Cmova => 7, M::Cmovs => 8, M::Cmovns => 9, M::Cmovp => 10, M::Cmovnp => 11, M::Cmovl => 12, M::Cmovge => 13,
        M::Cmovle => 14, M::Cmovg => 15, _ => return None,
    })
}

#[rustfmt::skip]
fn set_condition(m: M) -> Option<u8> {
    Some(match m {
        M::Seto => 0, M::Setno => 1, M::Setb => 2, M::Setae => 3, M::Sete => 4, M::Setne => 5, M::Setbe => 6,
        M::Seta => 7, M::Sets => 8, M::Setns => 9, M::Setp => 10, M::Setnp => 11, M::Setl => 12, M::Setge => 13,
        M::Setle => 14, M::Setg => 15, _ => return None,
    })
}
