//! SSE moves: whole registers, parts, to and from general registers and memory (SDM vol. 1, 10.4.1.1, 11.4.1.1).

use super::{Alignment, Upper};
use crate::decode::{Mnemonic as M, Operand};
use crate::helpers::{Args, Helper};
use crate::lift::{Lifted, Lifter};
use crate::state::fpu::V0;
use crate::vector::{Forms, mmx, moves};

/// Lifts the legacy moves.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    use Alignment::{Any, Natural};
    match l.insn.mnemonic() {
        M::Movaps | M::Movapd | M::Movdqa | M::Movntdqa | M::Movntdq | M::Movntps | M::Movntpd => {
            whole(l, 16, Natural, &moves::MOVE)
        }
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => whole(l, 16, Any, &moves::MOVE),
        M::Movss | M::Movntss => whole(l, 4, Any, &moves::MOVSS),
        M::Movsd | M::Movntsd => whole(l, 8, Any, &moves::MOVSD),
        M::Movd | M::Movq => between(l),
        M::Movlps | M::Movlpd => half(l, &moves::MOVSD, None),
        M::Movhps | M::Movhpd => half(l, &moves::MOVLHPS, Some(&moves::HIGH)),
        M::Maskmovdqu => masked(l, &mmx::MASKMOVDQU),
        _ => return Lifted::No,
    }
    Lifted::Yes
}

/// Between registers by `forms`, or from or to memory of `bytes`; a load clears the rest of the XMM register.
fn whole(l: &mut Lifter<'_>, bytes: u64, alignment: Alignment, forms: &'static Forms) {
    match (l.insn.op(0), l.insn.op(1)) {
        (Operand::Xmm(a), Operand::Xmm(b)) => l.vcall(&forms.sse, Args { a, b, ..l.args() }),
        (Operand::Xmm(a), _) => l.vload(a, bytes, alignment, Upper::Keep),
        (_, Operand::Xmm(b)) => l.vstore(b, bytes, alignment),
        _ => l.raise_ud(),
    }
}

/// MOVD and MOVQ.
fn between(l: &mut Lifter<'_>) {
    let bytes = l.insn.memory_size() as u64;
    match (l.insn.op(0), l.insn.op(1)) {
        (Operand::Xmm(a), Operand::Xmm(b)) => l.vcall(&moves::MOVQ.sse, Args { a, b, ..l.args() }),
        (Operand::Xmm(a), Operand::Gpr(b, width)) => l.vcall(&moves::FROM_GENERAL, Args { a, b, width, ..l.args() }),
        (Operand::Gpr(a, width), Operand::Xmm(b)) => l.vcall(&moves::TO_GENERAL, Args { a, b, width, ..l.args() }),
        (Operand::Xmm(a), _) => l.vload(a, bytes, Alignment::Any, Upper::Keep),
        (_, Operand::Xmm(b)) => l.vstore(b, bytes, Alignment::Any),
        _ => l.raise_ud(),
    }
}

/// MOVLPS and the like: a load merges by `load`, a store takes what `store` puts in the low half.
fn half(l: &mut Lifter<'_>, load: &'static Forms, store: Option<&'static Forms>) {
    match (l.insn.op(0), l.insn.op(1), store) {
        (Operand::Xmm(a), _, _) => {
            let b = l.vector_source(1);
            l.vcall(&load.sse, Args { a, b, ..l.args() });
        }
        (_, Operand::Xmm(b), None) => l.vstore(b, 8, Alignment::Any),
        (_, Operand::Xmm(b), Some(forms)) => {
            l.vcall(&forms.sse, Args { a: V0 + 1, b, ..l.args() });
            l.vstore(V0 + 1, 8, Alignment::Any);
        }
        _ => l.raise_ud(),
    }
}

/// MASKMOVDQU and MASKMOVQ: operands 1 and 2 are value and mask, the destination is implied.
pub fn masked(l: &mut Lifter<'_>, helper: &'static Helper) {
    let (Operand::Xmm(a) | Operand::Mm(a), Operand::Xmm(b) | Operand::Mm(b)) = (l.insn.op(1), l.insn.op(2)) else {
        return l.raise_ud();
    };
    let (seg, width) = (l.insn.mem().seg, l.insn.address_width());
    l.call(helper, Args { a, b, seg, width, ..l.args() });
}
