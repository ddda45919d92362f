//! Legacy SSE instructions with XMM operands.

use super::{general, moves, table};
use crate::decode::{Mnemonic as M, Operand};
use crate::helpers::Args;
use crate::lift::{Lifted, Lifter};
use crate::vector::{Direct, sha, shift, shuffle};

/// Lifts an instruction with an XMM register and no MMX register.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    if l.sse_unavailable() {
        return Lifted::Yes;
    }
    for shape in [
        two_operands,
        moves::lift,
        general::to_general,
        general::from_general,
        general::to_flags,
        general::strings,
        fields,
    ] {
        if shape(l) == Lifted::Yes {
            return Lifted::Yes;
        }
    }
    Lifted::No
}

/// Destination and source, the source perhaps in memory, and perhaps an immediate.
fn two_operands(l: &mut Lifter<'_>) -> Lifted {
    let mnemonic = l.insn.mnemonic();
    let by_immediate = matches!(l.insn.op(1), Operand::Imm(_));
    let helper: &'static Direct = match mnemonic {
        M::Pblendvb => &shuffle::PBLENDVB,
        M::Blendvps => &shuffle::BLENDVPS,
        M::Blendvpd => &shuffle::BLENDVPD,
        M::Sha256rnds2 => &sha::SHA256RNDS2,
        _ => match table::forms(mnemonic, by_immediate) {
            Some(forms) => &forms.sse,
            None => return Lifted::No,
        },
    };
    let Operand::Xmm(a) = l.insn.op(0) else { return Lifted::No };
    let imm = l.last_immediate().unwrap_or(0);
    let imm = match mnemonic {
        // The legacy forms have eight predicates; a number in memory has no source lane.
        M::Cmpps | M::Cmppd | M::Cmpss | M::Cmpsd => imm & 7,
        M::Insertps if l.insn.op(1) == Operand::Mem => imm & 0x3f,
        _ => imm,
    };
    let b = if by_immediate { a } else { l.vector_source(1) };
    l.vcall(helper, Args { a, b, imm, ..l.args() });
    Lifted::Yes
}

/// SSE4a's bit fields.
fn fields(l: &mut Lifter<'_>) -> Lifted {
    let helper: &'static Direct = match l.insn.mnemonic() {
        M::Extrq => &shift::EXTRQ,
        M::Insertq => &shift::INSERTQ,
        _ => return Lifted::No,
    };
    let Operand::Xmm(a) = l.insn.op(0) else { return Lifted::No };
    let b = match l.insn.op(1) {
        Operand::Xmm(b) => b,
        _ => a,
    };
    let count = l.insn.op_count();
    let control = match (l.insn.op(count.saturating_sub(2)), l.insn.op(count.saturating_sub(1))) {
        (Operand::Imm(length), Operand::Imm(index)) => Some(length & 0xff | (index & 0xff) << 8),
        _ => None,
    };
    l.vcall(helper, Args { a, b, c: u8::from(control.is_none()), imm: control.unwrap_or(0), ..l.args() });
    Lifted::Yes
}
