//! Shapes that join vector and general registers: extracts, inserts, masks, integer conversions, comparisons.

use crate::decode::{Mnemonic as M, Operand};
use crate::helpers::Args;
use crate::lift::vector::Alignment;
use crate::lift::{Lifted, Lifter};
use crate::state::fpu::V0;
use crate::uop::Width;
use crate::vector::{Direct, convert, float, integer, moves, string42};

/// A general register, or memory through a temporary, from a vector register and perhaps an immediate.
pub fn to_general(l: &mut Lifter<'_>) -> Lifted {
    let wide = matches!(l.insn.op(1), Operand::Ymm(_));
    let helper: &'static Direct = match l.insn.mnemonic() {
        M::Movmskps | M::Vmovmskps if wide => &moves::MOVMSKPS_YMM,
        M::Movmskpd | M::Vmovmskpd if wide => &moves::MOVMSKPD_YMM,
        M::Pmovmskb | M::Vpmovmskb if wide => &moves::PMOVMSKB_YMM,
        M::Movmskps | M::Vmovmskps => &moves::MOVMSKPS,
        M::Movmskpd | M::Vmovmskpd => &moves::MOVMSKPD,
        M::Pmovmskb | M::Vpmovmskb => &moves::PMOVMSKB,
        M::Pextrb | M::Vpextrb => &moves::PEXTRB,
        M::Pextrw | M::Vpextrw => &moves::PEXTRW,
        M::Pextrd | M::Vpextrd | M::Extractps | M::Vextractps => &moves::PEXTRD,
        M::Pextrq | M::Vpextrq => &moves::PEXTRQ,
        M::Cvtss2si | M::Vcvtss2si => &convert::CVTSS2SI,
        M::Cvttss2si | M::Vcvttss2si => &convert::CVTTSS2SI,
        M::Cvtsd2si | M::Vcvtsd2si => &convert::CVTSD2SI,
        M::Cvttsd2si | M::Vcvttsd2si => &convert::CVTTSD2SI,
        _ => return Lifted::No,
    };
    let imm = l.last_immediate().unwrap_or(0);
    match l.insn.op(0) {
        Operand::Gpr(slot, width) => {
            let b = l.vector_source(1);
            l.vcall(helper, Args { a: slot, b, width, imm, ..l.args() });
        }
        _ => {
            let b = l.vector_source(1);
            l.vcall(helper, Args { a: V0 + 1, b, width: Width::B8, imm, ..l.args() });
            l.vstore(V0 + 1, l.insn.memory_size() as u64, Alignment::Any);
        }
    }
    Lifted::Yes
}

/// A vector register from a general register or memory of the same width, and perhaps the register's old value.
pub fn from_general(l: &mut Lifter<'_>) -> Lifted {
    let m = l.insn.mnemonic();
    let helper: &'static Direct = match m {
        M::Pinsrb | M::Pinsrw | M::Pinsrd | M::Pinsrq => &moves::PINSR,
        M::Vpinsrb | M::Vpinsrw | M::Vpinsrd | M::Vpinsrq => &moves::PINSR_VEX,
        M::Cvtsi2ss => &convert::CVTSI2SS,
        M::Cvtsi2sd => &convert::CVTSI2SD,
        M::Vcvtsi2ss => &convert::VCVTSI2SS,
        M::Vcvtsi2sd => &convert::VCVTSI2SD,
        _ => return Lifted::No,
    };
    let last = if l.insn.is_vex() { 2 } else { 1 };
    let width = match m {
        M::Pinsrb | M::Vpinsrb => Width::B1,
        M::Pinsrw | M::Vpinsrw => Width::B2,
        _ => l.width_of(l.insn.op(last)),
    };
    let Operand::Xmm(a) = l.insn.op(0) else { return Lifted::No };
    let imm = l.last_immediate().unwrap_or(0);
    let source = l.general_source(last);
    let args = Args { a, width, imm, ..l.args() };
    match l.insn.op(1) {
        Operand::Xmm(first) if l.insn.is_vex() => l.vcall(helper, Args { b: first, c: source, ..args }),
        _ => l.vcall(helper, Args { b: source, ..args }),
    }
    Lifted::Yes
}

/// Status flags from two vector registers, the second perhaps in memory.
pub fn to_flags(l: &mut Lifter<'_>) -> Lifted {
    let wide = matches!(l.insn.op(0), Operand::Ymm(_));
    let helper: &'static Direct = match l.insn.mnemonic() {
        M::Comiss | M::Vcomiss => &float::COMISS,
        M::Comisd | M::Vcomisd => &float::COMISD,
        M::Ucomiss | M::Vucomiss => &float::UCOMISS,
        M::Ucomisd | M::Vucomisd => &float::UCOMISD,
        M::Vptest if wide => &integer::PTEST_YMM,
        M::Vtestps if wide => &integer::TESTPS_YMM,
        M::Vtestpd if wide => &integer::TESTPD_YMM,
        M::Ptest | M::Vptest => &integer::PTEST,
        M::Vtestps => &integer::TESTPS,
        M::Vtestpd => &integer::TESTPD,
        _ => return Lifted::No,
    };
    let (Operand::Xmm(a) | Operand::Ymm(a)) = l.insn.op(0) else { return Lifted::No };
    let b = l.vector_source(1);
    l.vcall(helper, Args { a, b, ..l.args() });
    Lifted::Yes
}

/// PCMPESTRI and its kin: XMM0 or ECX and the status flags.
pub fn strings(l: &mut Lifter<'_>) -> Lifted {
    let (helper, width): (&'static Direct, _) = match l.insn.mnemonic() {
        M::Pcmpestri | M::Vpcmpestri => (&string42::PCMPESTRI, Width::B4),
        M::Pcmpestri64 | M::Vpcmpestri64 => (&string42::PCMPESTRI, Width::B8),
        M::Pcmpestrm | M::Vpcmpestrm => (&string42::PCMPESTRM, Width::B4),
        M::Pcmpestrm64 | M::Vpcmpestrm64 => (&string42::PCMPESTRM, Width::B8),
        M::Pcmpistri | M::Vpcmpistri => (&string42::PCMPISTRI, Width::B4),
        M::Pcmpistrm | M::Vpcmpistrm => (&string42::PCMPISTRM, Width::B4),
        _ => return Lifted::No,
    };
    let Operand::Xmm(a) = l.insn.op(0) else { return Lifted::No };
    let b = l.vector_source(1);
    let imm = l.last_immediate().unwrap_or(0);
    l.vcall(helper, Args { a, b, c: u8::from(l.insn.is_vex()), width, imm, ..l.args() });
    Lifted::Yes
}
