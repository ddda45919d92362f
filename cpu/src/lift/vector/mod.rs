//! Vector instructions: MMX, SSE and AVX, and what the manuals introduced with them (CRC32, MOVBE, MOVNTI, fences).
//!
//! Most have one of a few operand shapes and only need a row in `table`; the rest has a file per shape. What they mean
//! is in [`crate::vector`]. Memory operands are loaded by uops before the helper call (`VLoad` to a temporary vector
//! register) and stored by a uop after it. Left out: LDMXCSR, FXSAVE and the like (family `system`).

mod bmi;
mod cache;
mod general;
mod mmx;
mod moves;
mod native;
mod sse;
mod table;
mod vex;

use super::{Lifted, Lifter, Rights};
use crate::decode::{Mnemonic, Operand};
use crate::helpers::Args;
use crate::state::fpu::V0;
use crate::uop::{Form, Op, Uop};
use crate::vector::Direct;

/// Lifts the family's instructions.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    let first = l.uops.len();
    let lifted = by_encoding(l);
    if lifted == Lifted::Yes {
        native::attach(l, first);
    }
    lifted
}

fn by_encoding(l: &mut Lifter<'_>) -> Lifted {
    if l.insn.is_vex() {
        return vex::lift(l);
    }
    use Mnemonic as M;
    let has = |kind: fn(&Operand) -> bool| [l.insn.op(0), l.insn.op(1)].iter().any(kind);
    match l.insn.mnemonic() {
        M::Emms | M::Cvtpi2ps | M::Cvtpi2pd => mmx::lift(l),
        M::Cvtss2si | M::Cvttss2si | M::Cvtsd2si | M::Cvttsd2si => sse::lift(l),
        _ if has(|o| matches!(o, Operand::Mm(_))) => mmx::lift(l),
        _ if has(|o| matches!(o, Operand::Xmm(_))) => sse::lift(l),
        _ => cache::lift(l),
    }
}

/// The alignment that a memory operand must have.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Alignment {
    /// None.
    Any,
    /// Its own size, else #GP(0).
    Natural,
}

/// What a load does with the bits of the register above those of an XMM register.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Upper {
    /// Keeps them: legacy encodings.
    Keep,
    /// Clears them: VEX encodings, temporaries.
    Clear,
}

impl Lifter<'_> {
    /// Appends a call of a helper that works on registers only and, if it touches the status flags, sets all of them.
    fn vcall(&mut self, direct: &'static Direct, args: Args) {
        let at = self.uops.len();
        self.call(&direct.helper, args);
        for uop in &mut self.uops[at..] {
            uop.op = Op::VCall;
            uop.direct = Some(direct.step);
        }
    }

    /// Loads `bytes` of the memory operand into vector register `dst`.
    fn vload(&mut self, dst: u8, bytes: u64, alignment: Alignment, upper: Upper) {
        let mem = self.mem(bytes, Rights::Read);
        let cond = u8::from(alignment == Alignment::Natural) | u8::from(upper == Upper::Keep) << 1;
        self.emit(Uop { dst, cond, form: Form::RM, mem, imm: bytes as i64, ..Uop::new(Op::VLoad) });
    }

    /// Stores the low `bytes` of vector register `src` to the memory operand.
    fn vstore(&mut self, src: u8, bytes: u64, alignment: Alignment) {
        let mem = self.mem(bytes, Rights::Write);
        let cond = u8::from(alignment == Alignment::Natural);
        self.emit(Uop { src, cond, form: Form::MR, mem, imm: bytes as i64, ..Uop::new(Op::VStore) });
    }

    /// The vector register of operand `n`; the memory operand is loaded into the first temporary.
    fn vector_source(&mut self, n: u32) -> u8 {
        match self.insn.op(n) {
            Operand::Xmm(r) | Operand::Ymm(r) | Operand::Mm(r) => r,
            Operand::Mem => {
                let bytes = self.insn.memory_size() as u64;
                let alignment = self.operand_alignment(bytes);
                self.vload(V0, bytes, alignment, Upper::Clear);
                V0
            }
            _ => 0,
        }
    }

    /// The general register of operand `n`; the memory operand is loaded into the first temporary vector register.
    fn general_source(&mut self, n: u32) -> u8 {
        match self.insn.op(n) {
            Operand::Gpr(slot, _) => slot,
            _ => self.vector_source(n),
        }
    }

    /// Legacy 16-byte operands must be aligned, but for the unaligned moves, the string comparisons and, on AMD processors,
    /// the SHA instructions.
    fn operand_alignment(&self, bytes: u64) -> Alignment {
        use Mnemonic as M;
        let exempt = matches!(
            self.insn.mnemonic(),
            M::Movups
                | M::Movupd
                | M::Movdqu
                | M::Lddqu
                | M::Pcmpestri
                | M::Pcmpestri64
                | M::Pcmpestrm
                | M::Pcmpestrm64
                | M::Pcmpistri
                | M::Pcmpistrm
                | M::Sha1nexte
                | M::Sha1msg1
                | M::Sha1msg2
                | M::Sha1rnds4
                | M::Sha256msg1
                | M::Sha256msg2
                | M::Sha256rnds2
        );
        if bytes == 16 && !self.insn.is_vex() && !exempt { Alignment::Natural } else { Alignment::Any }
    }

    /// The immediate operand, which is the last one if there is any.
    fn last_immediate(&self) -> Option<u64> {
        match self.insn.op(self.insn.op_count().saturating_sub(1)) {
            Operand::Imm(value) => Some(value & 0xff),
            _ => None,
        }
    }
}
