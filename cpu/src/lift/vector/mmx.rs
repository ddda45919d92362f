//! MMX instructions, and those that join MMX and XMM registers (SDM vol. 1, chapter 9, 10.4.4, 11.4.2).

use super::moves::masked;
use super::table;
use crate::decode::{Mnemonic as M, Operand};
use crate::helpers::Args;
use crate::lift::{Lifted, Lifter};
use crate::uop::Width;
use crate::vector::{Direct, convert, mmx};

/// Lifts instructions with an MMX register, and EMMS.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    let joins = (0..l.insn.op_count()).any(|n| matches!(l.insn.op(n), Operand::Xmm(_)));
    if if joins { l.sse_unavailable() } else { l.mmx_unavailable() } {
        return Lifted::Yes;
    }
    let imm = l.last_immediate().unwrap_or(0);
    let general = |op: Operand| match op {
        Operand::Gpr(slot, width) => Some((slot, width)),
        _ => None,
    };
    match l.insn.mnemonic() {
        M::Emms => {
            let args = l.args();
            l.vcall(&mmx::EMMS, args);
        }
        M::Maskmovq => masked(l, &mmx::MASKMOVQ),
        M::Movd | M::Movq | M::Movntq => moves(l),
        M::Movq2dq => two(l, &mmx::MOVQ2DQ),
        M::Movdq2q => two(l, &mmx::MOVDQ2Q),
        M::Cvtpi2ps => two(l, &mmx::CVTPI2PS),
        M::Cvtpi2pd => two(l, &mmx::CVTPI2PD),
        M::Cvtps2pi => two(l, &convert::CVTPS2PI.mmx),
        M::Cvttps2pi => two(l, &convert::CVTTPS2PI.mmx),
        M::Cvtpd2pi => two(l, &convert::CVTPD2DQ.mmx),
        M::Cvttpd2pi => two(l, &convert::CVTTPD2DQ.mmx),
        M::Pmovmskb | M::Pextrw => {
            let (Some((a, _)), Operand::Mm(b)) = (general(l.insn.op(0)), l.insn.op(1)) else { return Lifted::No };
            let helper: &'static Direct = if l.insn.mnemonic() == M::Pextrw { &mmx::PEXTRW } else { &mmx::PMOVMSKB };
            l.vcall(helper, Args { a, b, imm, ..l.args() });
        }
        M::Pinsrw => {
            let Operand::Mm(a) = l.insn.op(0) else { return Lifted::No };
            check_first(l);
            let b = l.general_source(1);
            l.vcall(&mmx::PINSRW, Args { a, b, imm, ..l.args() });
        }
        mnemonic => {
            let Some(helper) = helper(mnemonic, matches!(l.insn.op(1), Operand::Imm(_))) else { return Lifted::No };
            two(l, helper);
        }
    }
    Lifted::Yes
}

/// A pending x87 error comes before the faults of a memory operand (SDM vol. 1, 9.6.3), where the instruction looks at it.
fn check_first(l: &mut Lifter<'_>) {
    if l.insn.op(1) == Operand::Mem && !matches!(l.insn.mnemonic(), M::Cvtpi2ps | M::Cvtpi2pd) {
        let args = l.args();
        l.vcall(&mmx::CHECK, args);
    }
}

/// Destination and source registers, the source perhaps in memory or (shifts) an immediate.
fn two(l: &mut Lifter<'_>, helper: &'static Direct) {
    let (Operand::Mm(a) | Operand::Xmm(a)) = l.insn.op(0) else { return l.raise_ud() };
    let imm = l.last_immediate().unwrap_or(0);
    check_first(l);
    let b = if matches!(l.insn.op(1), Operand::Imm(_)) { a } else { l.vector_source(1) };
    l.vcall(helper, Args { a, b, imm, ..l.args() });
}

/// MOVD, MOVQ, MOVNTQ.
fn moves(l: &mut Lifter<'_>) {
    match (l.insn.op(0), l.insn.op(1)) {
        (Operand::Mm(a), Operand::Gpr(b, width)) => l.vcall(&mmx::FROM_GENERAL, Args { a, b, width, ..l.args() }),
        (Operand::Gpr(a, width), Operand::Mm(b)) => l.vcall(&mmx::TO_GENERAL, Args { a, b, width, ..l.args() }),
        (Operand::Mm(_), _) => two(l, &mmx::MOVE),
        (_, Operand::Mm(a)) => {
            let width = if l.insn.memory_size() == 8 { Width::B8 } else { Width::B4 };
            let seg = l.offset_to_t0();
            l.call(&mmx::STORE, Args { a, seg, width, ..l.args() });
        }
        _ => l.raise_ud(),
    }
}

/// The helper of an MMX instruction: its own if its lanes mix, else the low half of the 128-bit one.
fn helper(mnemonic: M, by_immediate: bool) -> Option<&'static Direct> {
    Some(match mnemonic {
        M::Punpckhbw => &mmx::PUNPCKHBW,
        M::Punpckhwd => &mmx::PUNPCKHWD,
        M::Punpckhdq => &mmx::PUNPCKHDQ,
        M::Packsswb => &mmx::PACKSSWB,
        M::Packssdw => &mmx::PACKSSDW,
        M::Packuswb => &mmx::PACKUSWB,
        M::Phaddw => &mmx::PHADDW,
        M::Phaddd => &mmx::PHADDD,
        M::Phaddsw => &mmx::PHADDSW,
        M::Phsubw => &mmx::PHSUBW,
        M::Phsubd => &mmx::PHSUBD,
        M::Phsubsw => &mmx::PHSUBSW,
        M::Pshufw => &mmx::PSHUFW,
        M::Pshufb => &mmx::PSHUFB,
        M::Palignr => &mmx::PALIGNR,
        _ => &table::forms(mnemonic, by_immediate)?.mmx,
    })
}
