//! The x87's 80-bit arithmetic checked three ways: Umbra's `softfloat`, an exact reference written here from IEEE 754-2019
//! and SDM vol. 1, chapters 4 and 8, and the host's x87 where it has one.
//!
//! Operands cover zeros, denormals, pseudo-denormals, normals, unnormals, infinities, pseudo-infinities, NaNs of both kinds
//! with payloads, and pseudo-NaNs; each pair runs under every rounding and precision mode, with all exceptions masked and
//! with a random mask. Compared are result, exception flags (so also their order: what one hides is not set) and C1.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native;
mod reference;
mod wide;

use crate::random::Random;
use reference::{Answer, Reference};
use umbra_cpu::softfloat::{Env, F32, F64, F80, Flags, Quotient};

/// An operation of the x87.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// FADD.
    Add,
    /// FSUB.
    Sub,
    /// FMUL.
    Mul,
    /// FDIV.
    Div,
    /// FSQRT.
    Sqrt,
    /// FPREM.
    Remainder,
    /// FPREM1.
    RemainderNearest,
    /// FRNDINT.
    Round,
    /// FSCALE.
    Scale,
    /// FSTP m32fp.
    ToSingle,
    /// FSTP m64fp.
    ToDouble,
    /// FISTP m16int.
    ToInt16,
    /// FISTP m32int.
    ToInt32,
    /// FISTP m64int.
    ToInt64,
    /// FBSTP.
    ToDecimal,
    /// FLD m32fp.
    FromSingle,
    /// FLD m64fp.
    FromDouble,
    /// FILD m64int.
    FromInt64,
    /// FCOM.
    Compare,
}

impl Operation {
    /// All of them.
    #[rustfmt::skip]
    pub const ALL: [Operation; 19] = {
        use Operation as O;
        [
            O::Add, O::Sub, O::Mul, O::Div, O::Sqrt, O::Remainder, O::RemainderNearest, O::Round, O::Scale, O::ToSingle,
            O::ToDouble, O::ToInt16, O::ToInt32, O::ToInt64, O::ToDecimal, O::FromSingle, O::FromDouble, O::FromInt64,
            O::Compare,
        ]
    };

    /// Whether it has two operands.
    const fn binary(self) -> bool {
        use Operation as O;
        matches!(self, O::Add | O::Sub | O::Mul | O::Div | O::Remainder | O::RemainderNearest | O::Scale | O::Compare)
    }
}

/// What came of an operation on some operands.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Operand pairs.
    pub operands: u64,
    /// Comparisons of Umbra with the reference: operands × modes × masks.
    pub vectors: u64,
    /// Comparisons with the host's x87.
    pub native: u64,
    /// Differences, as lines; only the first few are kept.
    pub differences: Vec<String>,
    /// How many there were.
    pub failed: u64,
}

/// The operands of a case: two registers, or the bits of a memory operand in `a.1`.
type Operands = [(u16, u64); 2];

/// Checks `count` operand pairs in every mode.
pub fn check(operation: Operation, count: u64, seed: u64) -> Tally {
    let mut random = Random(seed ^ (operation as u64) << 32);
    let mut tally = Tally::default();
    for n in 0..count {
        let operands = operands(operation, n, &mut random);
        tally.operands += 1;
        let unmasked = random.word() as u16 & 0x3f;
        for mode in 0..12 {
            let (rc, pc) = (mode & 3, [0, 2, 3][mode as usize >> 2]);
            let masks = if (n + u64::from(mode)) % 4 == 0 { unmasked } else { 0x3f };
            one(operation, operands, rc << 10 | pc << 8 | 0x40 | masks, &mut tally);
        }
    }
    tally
}

/// Whether the host's x87 is asked too.
pub fn has_native() -> bool {
    cfg!(all(target_arch = "x86_64", target_os = "linux"))
}

fn one(operation: Operation, operands: Operands, control: u16, tally: &mut Tally) {
    let ours = ours(operation, operands, control);
    let exact = Reference::new(control).answer(operation, operands);
    tally.vectors += 1;
    let mut differ = |whose: &str, theirs: &Answer| {
        if !ours.agrees(theirs) {
            tally.failed += 1;
            if tally.differences.len() < 10 {
                let [(xe, xs), (ye, ys)] = operands;
                tally.differences.push(format!(
                    "{operation:?} {xe:04x}.{xs:016x} {ye:04x}.{ys:016x} control {control:04x}: ours {ours:x?}, {whose} {theirs:x?}"
                ));
            }
        }
    };
    differ("reference", &exact);
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        let mut native = native::answer(operation, operands, control);
        // FPREM and FPREM1 tell quotient bits in C1, FCOM clears it.
        if matches!(operation, Operation::Remainder | Operation::RemainderNearest) {
            native.up = false;
        }
        // NOTE(whose remainder): by an infinite divisor a denormal stays as it is. AMD's processors call that an underflow, where
        // it is unmasked; Intel's and the reference do not.
        let [(exponent, _), (divisor, fraction)] = operands;
        let stays = exponent & 0x7fff == 0 && divisor & 0x7fff == 0x7fff && fraction == 1 << 63;
        let unmasked = control & 1 << 4 == 0;
        let remainder = matches!(operation, Operation::Remainder | Operation::RemainderNearest);
        if remainder && stays && unmasked && !crate::host_is_intels() {
            return;
        }
        differ("host", &native);
        tally.native += 1;
    }
}

/// Operands of a case: related ones every fourth time, so that sums cancel and quotients are exact.
fn operands(operation: Operation, n: u64, random: &mut Random) -> Operands {
    let a = random.extended();
    let mut b = random.extended();
    match operation {
        Operation::FromSingle => return [(0, random.floats() as u32 as u64), (0, 0)],
        Operation::FromDouble => return [(0, random.floats()), (0, 0)],
        Operation::FromInt64 => return [(0, random.integer()), (0, 0)],
        _ => {}
    }
    match n % 8 {
        0 => b = (a.0 ^ random.word() as u16 & 0x8000, a.1 ^ random.word() & 7),
        1 => {
            let distance = random.below(140) as u16;
            b = (a.0 & 0x7fff).checked_sub(distance).map_or(b, |exponent| (exponent | b.0 & 0x8000, b.1));
        }
        // The result is near the ends of the range.
        2 if matches!(operation, Operation::Mul) => {
            let near = if random.once_in(2) { 0x3fff } else { 0xbffe };
            let exponent = near - i32::from(a.0 & 0x7fff) + random.below(140) as i32 - 70;
            b = (exponent.clamp(1, 0x7ffe) as u16 | b.0 & 0x8000, b.1 | 1 << 63);
        }
        2 if matches!(operation, Operation::Div) => {
            let near = if random.once_in(2) { 0x3fff } else { -0x4000 };
            let exponent = i32::from(a.0 & 0x7fff) + near + random.below(140) as i32 - 70;
            b = (exponent.clamp(1, 0x7ffe) as u16 | b.0 & 0x8000, b.1 | 1 << 63);
        }
        _ => {}
    }
    if operation == Operation::Scale && !random.once_in(4) {
        // A power that means something.
        b = (b.0 & 0x8000 | (0x3fff + random.below(17) as u16), b.1 | 1 << 63);
    }
    [a, b]
}

/// Umbra's answer.
fn ours(operation: Operation, operands: Operands, control: u16) -> Answer {
    use Operation as O;
    let [a, b] = operands.map(|(sign_exponent, significand)| F80::new(sign_exponent, significand));
    let bits = operands[0].1;
    let mut env = Env::x87(control);
    let wide = |x: F80| (x.sign_exponent, x.significand);
    let mut quotient = None;
    let result = match operation {
        O::Add => wide(a.add(b, &mut env)),
        O::Sub => wide(a.sub(b, &mut env)),
        O::Mul => wide(a.mul(b, &mut env)),
        O::Div => wide(a.div(b, &mut env)),
        O::Sqrt => wide(a.sqrt(&mut env)),
        O::Remainder | O::RemainderNearest => {
            let kind = if operation == O::Remainder { Quotient::Truncated } else { Quotient::Nearest };
            let remainder = a.remainder(b, kind, &mut env);
            env.rounded_up = false;
            if !remainder.value.is_nan() {
                quotient = Some(remainder.quotient);
            }
            wide(remainder.value)
        }
        O::Round => wide(a.round_to_integer(&mut env)),
        O::Scale => wide(a.scale(b, &mut env)),
        O::ToSingle => (0, u64::from(a.to_f32(&mut env).0)),
        O::ToDouble => (0, a.to_f64(&mut env).0),
        O::ToInt16 => (0, u64::from(a.to_i16(&mut env) as u16)),
        O::ToInt32 => (0, u64::from(a.to_i32(&mut env) as u32)),
        O::ToInt64 => (0, a.to_i64(&mut env) as u64),
        O::ToDecimal => {
            let decimal = F80::from_bytes(a.to_bcd(&mut env));
            wide(decimal)
        }
        O::FromSingle => wide(F80::from_f32(F32(bits as u32), &mut env)),
        O::FromDouble => wide(F80::from_f64(F64(bits), &mut env)),
        O::FromInt64 => wide(F80::from_i64(bits as i64)),
        O::Compare => (0, a.compare(b, umbra_cpu::softfloat::Comparison::Signaling, &mut env) as u64),
    };
    let stores = matches!(
        operation,
        O::ToSingle | O::ToDouble | O::ToInt16 | O::ToInt32 | O::ToInt64 | O::ToDecimal | O::Compare
    );
    let unmasked = env.unmasked();
    // Stores write nothing under an unmasked exception, but for an inexact result.
    let kept = if stores { !unmasked.has(Flags::ALL.without(Flags::PRECISION)) } else { !unmasked.has(Flags::BEFORE) };
    let kept = kept || operation == O::Compare;
    Answer {
        result: kept.then_some(result),
        flags: env.status().0,
        up: kept && env.rounded_up && operation != O::Compare,
        quotient: if kept { quotient } else { None },
    }
}
