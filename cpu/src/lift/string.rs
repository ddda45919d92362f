//! String instructions (SDM vol. 1, 5.1.8): MOVS, CMPS, SCAS, LODS, STOS. INS and OUTS are `lift::system`'s.

use super::{Lifted, Lifter};
use crate::decode::Mnemonic as M;
use crate::helpers::{Args, Helper, string};
use crate::state::Seg;
use crate::uop::Width;

/// Lifts the family's instructions.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    let (helper, width): (&'static Helper, Width) = match l.insn.mnemonic() {
        M::Movsb => (&string::MOVS, Width::B1),
        M::Movsw => (&string::MOVS, Width::B2),
        M::Movsd if is_string(l) => (&string::MOVS, Width::B4),
        M::Movsq => (&string::MOVS, Width::B8),
        M::Stosb => (&string::STOS, Width::B1),
        M::Stosw => (&string::STOS, Width::B2),
        M::Stosd => (&string::STOS, Width::B4),
        M::Stosq => (&string::STOS, Width::B8),
        M::Lodsb => (&string::LODS, Width::B1),
        M::Lodsw => (&string::LODS, Width::B2),
        M::Lodsd => (&string::LODS, Width::B4),
        M::Lodsq => (&string::LODS, Width::B8),
        M::Scasb => (&string::SCAS, Width::B1),
        M::Scasw => (&string::SCAS, Width::B2),
        M::Scasd => (&string::SCAS, Width::B4),
        M::Scasq => (&string::SCAS, Width::B8),
        M::Cmpsb => (&string::CMPS, Width::B1),
        M::Cmpsw => (&string::CMPS, Width::B2),
        M::Cmpsd if is_string(l) => (&string::CMPS, Width::B4),
        M::Cmpsq => (&string::CMPS, Width::B8),
        _ => return Lifted::No,
    };
    let args = arguments(l, width);
    l.ends = args.b != 0;
    l.call(helper, args);
    Lifted::Yes
}

/// MOVSD and CMPSD are also SSE2 instructions.
fn is_string(l: &Lifter<'_>) -> bool {
    use crate::decode::Code as C;
    matches!(l.insn.code(), C::Movsd_m32_m32 | C::Cmpsd_m32_m32)
}

/// `a` = address width, `b` = repeat (0 none, 1 REP/REPE, 2 REPNE), `seg` = source segment, `imm` = length of the instruction.
pub(super) fn arguments(l: &Lifter<'_>, width: Width) -> Args {
    let repeat = match (l.insn.rep(), l.insn.repne()) {
        (_, true) => 2,
        (true, _) => 1,
        _ => 0,
    };
    Args {
        a: l.insn.address_width() as u8,
        b: repeat,
        width,
        seg: l.insn.segment_prefix().unwrap_or(Seg::Ds),
        imm: l.insn.len() as u64,
        ..l.args()
    }
}
