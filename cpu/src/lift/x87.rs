//! The x87 instructions (SDM vol. 1 chapter 8): each is one helper call (`helpers::x87`), all of them #NM with CR0.EM or
//! CR0.TS. The aliases that processors decode beside the documented encodings (FCOM at DC D0, FXCH at DD C8 and others)
//! share their mnemonic or are listed with it.

use super::{Lifted, Lifter};
use crate::decode::{Mnemonic, Operand};
use crate::helpers::x87::{
    Source, arithmetic as a, compare as c, control, environment, load_store as ls, pack_c, pack_imm,
    transcendental as t,
};
use crate::helpers::{Args, Helper, MEMORY};
use crate::state::slots::ZERO;
use crate::uop::Width;

/// How a mnemonic uses its operands.
#[derive(Copy, Clone, Debug)]
enum Shape {
    /// No explicit operand, or ones that the helper knows.
    Plain,
    /// ST(0) with ST(1), implied.
    WithNext,
    /// A floating-point or 80-bit memory operand, or registers: destination, source.
    Float(u8),
    /// An integer memory operand.
    Integer(u8),
    /// Packed decimal memory operand.
    Decimal(u8),
    /// FNSTSW: AX or memory.
    Status,
    /// A control word or an environment in memory.
    Image,
    /// ST(i) and a number of pops.
    Register(u8),
    /// FCMOVcc: the condition.
    Condition(u8),
    /// The value of [`Args::a`].
    Number(u8),
}

/// Lifts the family's instructions.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    if l.insn.mnemonic() == Mnemonic::Wait {
        return wait(l);
    }
    let Some((helper, shape)) = helper(l.insn.mnemonic()) else {
        return Lifted::No;
    };
    if l.x87_unavailable() {
        return Lifted::Yes;
    }
    let Some((helper, args)) = arguments(l, helper, shape) else {
        return Lifted::No;
    };
    l.call(helper, args);
    Lifted::Yes
}

/// FWAIT is #NM only with both CR0.MP and CR0.TS.
fn wait(l: &mut Lifter<'_>) -> Lifted {
    use crate::mode::ModeBits;
    let monitored = l.mode.has(ModeBits::MP) && l.mode.has(ModeBits::TS);
    if !l.raise_if(monitored, crate::fault::vector::NM) {
        let args = l.args();
        l.call(&control::WAIT, args);
    }
    Lifted::Yes
}

/// The helper of a mnemonic, and its operands.
#[rustfmt::skip]
fn helper(mnemonic: Mnemonic) -> Option<(&'static Helper, Shape)> {
    use Mnemonic as M;
    use Shape::{Condition, Decimal, Float, Image, Integer, Number, Plain, Register, Status, WithNext};
    Some(match mnemonic {
        // Arithmetic
        M::Fadd    => (&a::ADD,  Float(0)),   M::Faddp   => (&a::ADD,  Float(1)),   M::Fiadd  => (&a::ADD,  Integer(0)),
        M::Fmul    => (&a::MUL,  Float(0)),   M::Fmulp   => (&a::MUL,  Float(1)),   M::Fimul  => (&a::MUL,  Integer(0)),
        M::Fsub    => (&a::SUB,  Float(0)),   M::Fsubp   => (&a::SUB,  Float(1)),   M::Fisub  => (&a::SUB,  Integer(0)),
        M::Fsubr   => (&a::SUBR, Float(0)),   M::Fsubrp  => (&a::SUBR, Float(1)),   M::Fisubr => (&a::SUBR, Integer(0)),
        M::Fdiv    => (&a::DIV,  Float(0)),   M::Fdivp   => (&a::DIV,  Float(1)),   M::Fidiv  => (&a::DIV,  Integer(0)),
        M::Fdivr   => (&a::DIVR, Float(0)),   M::Fdivrp  => (&a::DIVR, Float(1)),   M::Fidivr => (&a::DIVR, Integer(0)),
        M::Fsqrt   => (&a::SQRT, Plain),      M::Frndint => (&a::RNDINT, Plain),    M::Fabs   => (&a::ABS, Plain),
        M::Fchs    => (&a::CHS, Plain),       M::Fscale  => (&a::SCALE, WithNext),  M::Fxtract => (&a::XTRACT, Plain),
        M::Fprem   => (&a::PREM, Plain),      M::Fprem1  => (&a::PREM1, Plain),
        // Comparison
        M::Fcom    => (&c::COM,  Float(0)),   M::Fcomp   => (&c::COM,  Float(1)),   M::Fcompp => (&c::COM,  Float(2)),
        M::Ficom   => (&c::COM,  Integer(0)), M::Ficomp  => (&c::COM,  Integer(1)),
        M::Fucom   => (&c::UCOM, Float(0)),   M::Fucomp  => (&c::UCOM, Float(1)),   M::Fucompp => (&c::UCOM, Float(2)),
        M::Fcomi   => (&c::COMI, Float(0)),   M::Fcomip  => (&c::COMI, Float(1)),
        M::Fucomi  => (&c::UCOMI, Float(0)),  M::Fucomip => (&c::UCOMI, Float(1)),
        M::Ftst    => (&c::TST, Plain),       M::Fxam    => (&c::XAM, Plain),
        // Transcendental
        M::F2xm1   => (&t::F2XM1, Plain),     M::Fyl2x   => (&t::YL2X, Plain),      M::Fyl2xp1 => (&t::YL2XP1, Plain),
        M::Fpatan  => (&t::PATAN, Plain),     M::Fptan   => (&t::PTAN, Plain),      M::Fsin    => (&t::SIN, Plain),
        M::Fcos    => (&t::COS, Plain),       M::Fsincos => (&t::SINCOS, Plain),
        // Load and store
        M::Fld     => (&ls::LOAD, Float(0)),  M::Fild    => (&ls::LOAD, Integer(0)), M::Fbld   => (&ls::LOAD, Decimal(0)),
        M::Fst     => (&ls::STORE, Float(0)), M::Fist    => (&ls::STORE, Integer(0)),
        M::Fstp    => (&ls::STORE, Float(1)), M::Fstpnce => (&ls::STORE_UNCHECKED, Register(1)),
        M::Fistp   => (&ls::STORE, Integer(1)), M::Fbstp => (&ls::STORE, Decimal(1)),
        M::Fisttp  => (&ls::STORE_TRUNCATED, Integer(1)),
        M::Fxch    => (&ls::EXCHANGE, Float(0)),
        M::Fcmovb  => (&ls::MOVE_CONDITIONAL, Condition(0x2)), M::Fcmovnb  => (&ls::MOVE_CONDITIONAL, Condition(0x3)),
        M::Fcmove  => (&ls::MOVE_CONDITIONAL, Condition(0x4)), M::Fcmovne  => (&ls::MOVE_CONDITIONAL, Condition(0x5)),
        M::Fcmovbe => (&ls::MOVE_CONDITIONAL, Condition(0x6)), M::Fcmovnbe => (&ls::MOVE_CONDITIONAL, Condition(0x7)),
        M::Fcmovu  => (&ls::MOVE_CONDITIONAL, Condition(0xa)), M::Fcmovnu  => (&ls::MOVE_CONDITIONAL, Condition(0xb)),
        M::Fld1    => (&ls::LOAD_CONSTANT, Number(0)), M::Fldl2t => (&ls::LOAD_CONSTANT, Number(1)),
        M::Fldl2e  => (&ls::LOAD_CONSTANT, Number(2)), M::Fldpi  => (&ls::LOAD_CONSTANT, Number(3)),
        M::Fldlg2  => (&ls::LOAD_CONSTANT, Number(4)), M::Fldln2 => (&ls::LOAD_CONSTANT, Number(5)),
        M::Fldz    => (&ls::LOAD_CONSTANT, Number(6)),
        // Control
        M::Fninit  => (&control::INIT, Plain),         M::Fnclex => (&control::CLEAR, Plain),
        M::Fldcw   => (&control::LOAD_CONTROL, Image), M::Fnstcw => (&control::STORE_CONTROL, Image),
        M::Fnstsw  => (&control::STORE_STATUS, Status),
        M::Fnop    => (&control::NOP, Plain),
        // 8087 and 80287 leftovers that later processors ignore.
        M::Fneni | M::Fndisi | M::Fnsetpm => (&control::IGNORED, Plain),
        M::Fincstp => (&control::MOVE_TOP, Number(1)), M::Fdecstp => (&control::MOVE_TOP, Number(7)),
        M::Ffree   => (&control::FREE, Register(0)),   M::Ffreep  => (&control::FREE, Register(1)),
        // Environment
        M::Fnstenv => (&environment::STORE_ENVIRONMENT, Image), M::Fldenv => (&environment::LOAD_ENVIRONMENT, Image),
        M::Fnsave  => (&environment::SAVE, Image),              M::Frstor => (&environment::RESTORE, Image),
        _ => return None,
    })
}

/// Completes the arguments; register forms of loads and stores have helpers of their own.
fn arguments(l: &mut Lifter<'_>, helper: &'static Helper, shape: Shape) -> Option<(&'static Helper, Args)> {
    let (opcode, len) = (l.insn.x87_opcode(), l.insn.len());
    let base = Args { a: 0, b: ZERO, imm: pack_imm(opcode, len), ..l.args() };
    let size = l.insn.memory_size();
    let args = match shape {
        Shape::Plain => base,
        Shape::WithNext => Args { b: 1, ..base },
        Shape::Number(a) => Args { a, ..base },
        Shape::Condition(a) => Args { a, b: register(l.insn.op(1))?, ..base },
        Shape::Register(pops) => Args { a: register(l.insn.op(0))?, c: pack_c(Source::Register, pops), ..base },
        Shape::Status if l.insn.op(0) != Operand::Mem => Args { b: crate::state::slots::RAX, ..base },
        Shape::Status | Shape::Image => {
            let width = if matches!(size, 14 | 94) { Width::B2 } else { Width::B4 };
            Args { b: MEMORY, seg: l.offset_to_t0(), width, ..base }
        }
        Shape::Float(pops) if l.insn.op(0) == Operand::Mem => {
            let source = match size {
                4 => Source::Single,
                8 => Source::Double,
                _ => Source::Extended,
            };
            Args { b: MEMORY, c: pack_c(source, pops), seg: l.offset_to_t0(), ..base }
        }
        Shape::Integer(pops) => {
            let source = match size {
                2 => Source::Int16,
                4 => Source::Int32,
                _ => Source::Int64,
            };
            Args { b: MEMORY, c: pack_c(source, pops), seg: l.offset_to_t0(), ..base }
        }
        Shape::Decimal(pops) => Args { b: MEMORY, c: pack_c(Source::Decimal, pops), seg: l.offset_to_t0(), ..base },
        Shape::Float(pops) => return registers(l, helper, Args { c: pack_c(Source::Register, pops), ..base }),
    };
    Some((helper, args))
}

/// The register forms: of two operands the first is the destination; of one, it is the partner of ST(0).
fn registers(l: &Lifter<'_>, helper: &'static Helper, base: Args) -> Option<(&'static Helper, Args)> {
    let first = register(l.insn.op(0)).unwrap_or(1);
    let second = register(l.insn.op(1));
    Some(match helper.name {
        "fld" => (&ls::LOAD_REGISTER, Args { b: second.unwrap_or(first), ..base }),
        "fst" => (&ls::STORE_REGISTER, Args { a: first, ..base }),
        _ => match second {
            Some(second) => (helper, Args { a: first, b: second, ..base }),
            None => (helper, Args { b: first, ..base }),
        },
    })
}

/// The number of a stack register.
fn register(operand: Operand) -> Option<u8> {
    match operand {
        Operand::St(register) => Some(register),
        _ => None,
    }
}
