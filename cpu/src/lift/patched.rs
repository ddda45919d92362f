//! Immediates that a program changes while it runs: loaded from guest memory at each execution (`cache::patches` says which).
//!
//! Only level 3's code. There a page that can be fetched from can be read as well, at the same linear address and by the same
//! monitor entry; a supervisor's might be a user's page that SMAP keeps it from reading.

use crate::cache::BlockKey;
use crate::cache::patches::Span;
use crate::decode::Insn;
use crate::mode::ModeBits;
use crate::state::Seg;
use crate::state::slots::{T1, ZERO};
use crate::uop::{AddrKind, Form, Mem, Op, Uop, Width};

/// Whether immediates of this code can be loaded.
pub fn can_be(key: &BlockKey) -> bool {
    key.mode.has(ModeBits::USER) && !key.mode.has(ModeBits::ALIGN)
}

/// Has the instruction at `at` bytes from the block's start, whose uops `uops[first..]` are, load its immediate, if one of
/// `places` lies in it: gives the immediate's bytes, which the block then does not depend on.
pub fn load_immediate(
    (insn, at): (&Insn, usize),
    key: &BlockKey,
    places: &[Span],
    uops: &mut Vec<Uop>,
    first: usize,
) -> Option<Span> {
    let (offset, bytes) = insn.immediate_bytes()?;
    let from = (at + offset) as u16;
    let to = from + bytes as u16;
    if !places.iter().any(|place| from <= place.0 && place.1 <= to) {
        return None;
    }
    let width = Width::from_bytes(bytes)?;
    let mut taking = (first..uops.len()).filter(|&at| matches!(uops[at].form, Form::RI | Form::MI));
    let (Some(at), None) = (taking.next(), taking.next()) else { return None };
    let uop = uops[at];
    let simple =
        matches!(uop.op, Op::Add | Op::Adc | Op::Sub | Op::Sbb | Op::And | Op::Or | Op::Xor | Op::Cmp | Op::Mov);
    // A shorter immediate is sign-extended, which no load of these does.
    if !simple || uop.width != width {
        return None;
    }
    let kind = if key.mode.has(ModeBits::L) { AddrKind::Flat64 } else { AddrKind::Flat32 };
    let linear = key.linear.wrapping_add(u64::from(from));
    let mem = Mem { kind, base: ZERO, index: ZERO, scale: 0, disp: linear as i64 };
    if uop.form == Form::RI {
        uops[at] = Uop { form: Form::RM, mem, seg: Seg::Cs, imm: 0, ..uop };
    } else {
        let load = Uop { op: Op::Mov, dst: T1, form: Form::RM, mem, seg: Seg::Cs, imm: 0, lock: false, ..uop };
        uops[at] = Uop { src: T1, form: Form::MR, imm: 0, ..uop };
        uops.insert(at, load);
    }
    Some((from, to))
}
