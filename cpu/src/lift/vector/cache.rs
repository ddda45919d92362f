//! Fences, prefetches, cache-line operations, MOVNTI, MOVBE, CRC32 (SDM vol. 1, 10.4.6, 11.4.4, 12.12).
//!
//! Prefetches do nothing; cache-line operations read a byte of their operand, so that they fault as the manual says.

use super::{Alignment, Upper, bmi};
use crate::decode::{Mnemonic as M, Operand};
use crate::helpers::Args;
use crate::lift::{Lifted, Lifter, Rights};
use crate::state::fpu::V0;
use crate::uop::{Form, Op, Uop, Width};
use crate::vector::general::{CRC32, MFENCE, MOVBE_LOAD, MOVBE_STORE};

/// Lifts the instructions of this file.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    match l.insn.mnemonic() {
        M::Lfence | M::Sfence => l.emit(Uop::new(Op::Nop)),
        M::Prefetch
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchw
        | M::Prefetchwt1 => {
            l.emit(Uop::new(Op::Nop));
        }
        M::Mfence => {
            let args = l.args();
            l.call(&MFENCE, args);
        }
        M::Clflush | M::Clflushopt | M::Clwb => l.vload(V0, 1, Alignment::Any, Upper::Clear),
        M::Movnti => {
            let Operand::Gpr(src, width) = l.insn.op(1) else { return Lifted::No };
            let mem = l.mem(width.bytes(), Rights::Write);
            l.emit(Uop { src, width, form: Form::MR, mem, ..Uop::new(Op::Mov) });
        }
        M::Movbe => movbe(l),
        M::Crc32 => crc32(l),
        _ => return bmi::lift(l),
    }
    Lifted::Yes
}

fn movbe(l: &mut Lifter<'_>) {
    let (helper, register, memory) = match l.insn.op(0) {
        Operand::Mem => (&MOVBE_STORE, l.insn.op(1), l.insn.op(0)),
        register => (&MOVBE_LOAD, register, l.insn.op(1)),
    };
    let Operand::Gpr(slot, width) = register else { return };
    let args = l.rm_args(memory);
    l.call(helper, Args { a: slot, width, ..args });
}

fn crc32(l: &mut Lifter<'_>) {
    let Operand::Gpr(slot, _) = l.insn.op(0) else { return };
    let source = l.insn.op(1);
    let args = match source {
        Operand::High(of) => Args { b: of, c: 1, width: Width::B1, ..l.args() },
        _ => l.rm_args(source),
    };
    l.call(&CRC32, Args { a: slot, ..args });
}
