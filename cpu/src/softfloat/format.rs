//! The formats of SSE and F16C: half, single and double (SDM vol. 1 4.2.2, 4.8), and what their operations
//! share: taking apart, rounding and packing, and the choice of a NaN result (SDM vol. 1 table 4-7).

use super::{Discarded, Env, Flags, shift_right_jam64};

/// A binary interchange format whose bits fit a `u64`.
pub trait Format: Copy + Eq + std::fmt::Debug {
    /// Stored significand bits.
    const FRACTION_BITS: u32;
    /// Exponent bits.
    const EXPONENT_BITS: u32;

    /// The number with these bits; bits above the format are ignored.
    fn from_raw(bits: u64) -> Self;
    /// The bits, zero-extended.
    fn raw(self) -> u64;

    /// Host arithmetic, if this format has it: nearest-even rounding, meaningful for normal numbers only.
    #[doc(hidden)]
    fn native(_operation: Native, _a: Self, _b: Self) -> Option<Self> {
        None
    }

    /// Exponent bias.
    const BIAS: i32 = (1 << (Self::EXPONENT_BITS - 1)) - 1;
    /// The exponent field of infinities and NaNs.
    const MAX_EXPONENT: i32 = (1 << Self::EXPONENT_BITS) - 1;
    /// The fraction field.
    const FRACTION_MASK: u64 = (1 << Self::FRACTION_BITS) - 1;
    /// The fraction bit that tells quiet NaNs from signaling ones.
    const QUIET_BIT: u64 = 1 << (Self::FRACTION_BITS - 1);
    /// The position of the sign.
    const SIGN_SHIFT: u32 = Self::FRACTION_BITS + Self::EXPONENT_BITS;

    /// A number from its fields. A fraction that overflows its field adds to the exponent.
    #[inline]
    fn pack(sign: bool, exponent: i32, fraction: u64) -> Self {
        Self::from_raw(
            u64::from(sign) << Self::SIGN_SHIFT | ((exponent as u64) << Self::FRACTION_BITS).wrapping_add(fraction),
        )
    }
    /// A zero.
    #[inline]
    fn zero(sign: bool) -> Self {
        Self::pack(sign, 0, 0)
    }
    /// An infinity.
    #[inline]
    fn infinity(sign: bool) -> Self {
        Self::pack(sign, Self::MAX_EXPONENT, 0)
    }
    /// The real indefinite QNaN, the masked response to an invalid operation.
    #[inline]
    fn indefinite() -> Self {
        Self::pack(true, Self::MAX_EXPONENT, Self::QUIET_BIT)
    }
    /// The sign bit.
    #[inline]
    fn sign(self) -> bool {
        self.raw() >> Self::SIGN_SHIFT & 1 != 0
    }
    /// The exponent field.
    #[inline]
    fn exponent(self) -> i32 {
        (self.raw() >> Self::FRACTION_BITS) as i32 & Self::MAX_EXPONENT
    }
    /// The fraction field.
    #[inline]
    fn fraction(self) -> u64 {
        self.raw() & Self::FRACTION_MASK
    }
    /// Whether this is a NaN of either kind.
    #[inline]
    fn is_nan(self) -> bool {
        self.exponent() == Self::MAX_EXPONENT && self.fraction() != 0
    }
    /// Whether this is a signaling NaN.
    #[inline]
    fn is_signaling(self) -> bool {
        self.is_nan() && self.fraction() & Self::QUIET_BIT == 0
    }
    /// Whether this is an infinity.
    #[inline]
    fn is_infinite(self) -> bool {
        self.exponent() == Self::MAX_EXPONENT && self.fraction() == 0
    }
    /// Whether this is a zero of either sign.
    #[inline]
    fn is_zero(self) -> bool {
        self.exponent() == 0 && self.fraction() == 0
    }
    /// Whether this is a denormal number.
    #[inline]
    fn is_denormal(self) -> bool {
        self.exponent() == 0 && self.fraction() != 0
    }
    /// Whether this is neither zero, denormal, infinite nor a NaN.
    #[inline]
    fn is_normal(self) -> bool {
        let exponent = self.exponent();
        exponent != 0 && exponent != Self::MAX_EXPONENT
    }
    /// This NaN made quiet.
    #[inline]
    fn quieted(self) -> Self {
        Self::from_raw(self.raw() | Self::QUIET_BIT)
    }
    /// With the sign changed; a NaN as well.
    #[inline]
    fn negated(self) -> Self {
        Self::from_raw(self.raw() ^ 1 << Self::SIGN_SHIFT)
    }
    /// What an operation sees of this operand: zero in place of a denormal under DAZ.
    #[inline]
    fn operand(self, env: &Env) -> Self {
        if env.denormals_are_zero && self.is_denormal() { Self::zero(self.sign()) } else { self }
    }
}

/// The operations that [`Format::native`] may offer.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum Native {
    Add,
    Sub,
    Mul,
    Div,
    Sqrt,
}

/// A half-precision number (F16C).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F16(pub u16);

/// A single-precision number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F32(pub u32);

/// A double-precision number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F64(pub u64);

impl Format for F16 {
    const FRACTION_BITS: u32 = 10;
    const EXPONENT_BITS: u32 = 5;
    fn from_raw(bits: u64) -> Self {
        Self(bits as u16)
    }
    fn raw(self) -> u64 {
        u64::from(self.0)
    }
}

impl Format for F32 {
    const FRACTION_BITS: u32 = 23;
    const EXPONENT_BITS: u32 = 8;
    #[inline]
    fn from_raw(bits: u64) -> Self {
        Self(bits as u32)
    }
    #[inline]
    fn raw(self) -> u64 {
        u64::from(self.0)
    }
    #[inline]
    fn native(operation: Native, a: Self, b: Self) -> Option<Self> {
        let (a, b) = (f32::from_bits(a.0), f32::from_bits(b.0));
        let result = match operation {
            Native::Add => a + b,
            Native::Sub => a - b,
            Native::Mul => a * b,
            Native::Div => a / b,
            Native::Sqrt => a.sqrt(),
        };
        Some(Self(result.to_bits()))
    }
}

impl Format for F64 {
    const FRACTION_BITS: u32 = 52;
    const EXPONENT_BITS: u32 = 11;
    #[inline]
    fn from_raw(bits: u64) -> Self {
        Self(bits)
    }
    #[inline]
    fn raw(self) -> u64 {
        self.0
    }
    #[inline]
    fn native(operation: Native, a: Self, b: Self) -> Option<Self> {
        let (a, b) = (f64::from_bits(a.0), f64::from_bits(b.0));
        let result = match operation {
            Native::Add => a + b,
            Native::Sub => a - b,
            Native::Mul => a * b,
            Native::Div => a / b,
            Native::Sqrt => a.sqrt(),
        };
        Some(Self(result.to_bits()))
    }
}

/// A finite, nonzero number: `significand / 2^62 * 2^(exponent - BIAS)` with bit 62 set. The exponent of a
/// denormal is below 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub sign: bool,
    pub exponent: i32,
    pub significand: u64,
}

/// Takes a finite, nonzero number apart.
#[inline]
pub(super) fn unpack<F: Format>(number: F) -> Parts {
    let exponent = number.exponent();
    let align = 62 - F::FRACTION_BITS;
    if exponent != 0 {
        Parts { sign: number.sign(), exponent, significand: (number.fraction() | 1 << F::FRACTION_BITS) << align }
    } else {
        let significand = number.fraction() << align;
        let shift = significand.leading_zeros().saturating_sub(1);
        Parts { sign: number.sign(), exponent: 1 - shift as i32, significand: significand << shift }
    }
}

/// Rounds and packs a nonzero number. Bit 62 of the significand must be set; bit 0 also stands for whatever
/// lies below it.
#[inline]
pub(super) fn round_pack<F: Format>(parts: Parts, env: &mut Env) -> F {
    let Parts { sign, exponent, significand } = parts;
    let drop = 62 - F::FRACTION_BITS;
    let (mut kept, inexact) = round_at(sign, significand, drop, env);
    // The leading bit carries into the exponent when rounding overflows the significand.
    let rounded_exponent = exponent + i32::from(kept >> (F::FRACTION_BITS + 1) != 0);
    if rounded_exponent >= 1 && rounded_exponent < F::MAX_EXPONENT {
        if inexact {
            env.raise(Flags::PRECISION);
        }
        return F::pack(sign, exponent - 1, kept);
    }
    if rounded_exponent >= F::MAX_EXPONENT {
        return overflow(sign, inexact, env);
    }
    // Tiny after rounding (SDM vol. 1 4.9.1.5).
    if !env.masked.has(Flags::UNDERFLOW) {
        env.raise(Flags::UNDERFLOW);
        if inexact {
            env.raise(Flags::PRECISION);
        }
    } else if env.flush_to_zero {
        env.raise(Flags::UNDERFLOW.or(Flags::PRECISION));
        env.rounded_up = false;
        return F::zero(sign);
    }
    let shifted = shift_right_jam64(significand, (1 - exponent) as u32);
    let (small, lossy) = round_at(sign, shifted, drop, env);
    kept = small;
    if lossy && env.masked.has(Flags::UNDERFLOW) {
        env.raise(Flags::UNDERFLOW.or(Flags::PRECISION));
    }
    F::pack(sign, 0, kept)
}

/// The masked response to overflow.
#[cold]
fn overflow<F: Format>(sign: bool, inexact: bool, env: &mut Env) -> F {
    env.raise(Flags::OVERFLOW);
    if inexact || env.masked.has(Flags::OVERFLOW) {
        env.raise(Flags::PRECISION);
    }
    let infinite = env.rounding.overflows_to_infinity(sign);
    env.rounded_up = infinite;
    if infinite { F::infinity(sign) } else { F::pack(sign, F::MAX_EXPONENT - 1, F::FRACTION_MASK) }
}

/// Drops `drop` low bits of `significand` and rounds; tells whether anything was lost.
#[inline]
fn round_at(sign: bool, significand: u64, drop: u32, env: &mut Env) -> (u64, bool) {
    let kept = significand >> drop;
    let discarded = Discarded::of(u128::from(significand), drop);
    let up = env.rounding.increments(sign, kept & 1 != 0, discarded);
    env.rounded_up = up;
    (kept + u64::from(up), discarded != Discarded::Nothing)
}

/// Normalises a nonzero significand, then rounds and packs.
#[inline]
pub(super) fn normalize_round_pack<F: Format>(parts: Parts, env: &mut Env) -> F {
    let Parts { sign, exponent, significand } = parts;
    let zeros = significand.leading_zeros();
    let parts = if zeros == 0 {
        Parts { sign, exponent: exponent + 1, significand: shift_right_jam64(significand, 1) }
    } else {
        Parts { sign, exponent: exponent - (zeros as i32 - 1), significand: significand << (zeros - 1) }
    };
    round_pack(parts, env)
}

/// The result of an operation with a NaN operand: the first NaN, made quiet.
#[cold]
pub(super) fn propagate<F: Format>(operands: &[F], env: &mut Env) -> F {
    if operands.iter().any(|operand| operand.is_signaling()) {
        env.raise(Flags::INVALID);
    }
    operands.iter().find(|operand| operand.is_nan()).map_or_else(F::indefinite, |nan| nan.quieted())
}

/// The masked response to an invalid operation.
#[cold]
pub(super) fn invalid<F: Format>(env: &mut Env) -> F {
    env.raise(Flags::INVALID);
    F::indefinite()
}

/// Raises DE if an operand is denormal.
#[inline]
pub(super) fn note_denormals<F: Format>(operands: &[F], env: &mut Env) {
    if operands.iter().any(|operand| operand.is_denormal()) {
        env.raise(Flags::DENORMAL);
    }
}
