//! The double extended-precision format of the x87 FPU (SDM vol. 1 4.2.2, 8.2): encodings, taking apart,
//! rounding under precision control, and the choice of a NaN result (SDM vol. 1 table 4-7).
//!
//! Encodings that the 80387 and later do not support (unnormals, pseudo-NaNs, pseudo-infinities) are invalid
//! operands. Pseudo-denormals are denormal operands with exponent 1.

use super::{Discarded, Env, Flags, Precision, shift_right_jam128};

/// An 80-bit number as in a register or at `m80fp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F80 {
    /// Sign in bit 15, biased exponent below.
    pub sign_exponent: u16,
    /// Significand; the integer bit is bit 63.
    pub significand: u64,
}

/// What an encoding stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A zero.
    Zero,
    /// A denormal or pseudo-denormal.
    Denormal,
    /// A normal number.
    Normal,
    /// An infinity.
    Infinity,
    /// A quiet NaN.
    QuietNan,
    /// A signaling NaN.
    SignalingNan,
    /// An encoding that is an invalid operand.
    Unsupported,
}

/// The integer bit.
pub(super) const INTEGER_BIT: u64 = 1 << 63;
/// The bit that tells quiet from signaling NaNs.
const QUIET_BIT: u64 = 1 << 62;
/// The exponent field of infinities and NaNs.
const MAX_EXPONENT: i32 = 0x7fff;
/// The exponent bias.
pub(super) const BIAS: i32 = 16383;
/// What unmasked overflow subtracts from and unmasked underflow adds to the exponent (SDM vol. 1 8.5.4).
const WRAP: i32 = 24576;

impl F80 {
    /// +0.
    pub const ZERO: Self = Self::new(0, 0);
    /// +1.
    pub const ONE: Self = Self::new(0x3fff, INTEGER_BIT);
    /// The real indefinite QNaN, the masked response to an invalid operation.
    pub const INDEFINITE: Self = Self::new(0xffff, INTEGER_BIT | QUIET_BIT);

    /// A number from its two fields.
    pub const fn new(sign_exponent: u16, significand: u64) -> Self {
        Self { sign_exponent, significand }
    }

    /// From ten bytes in memory order.
    pub const fn from_bytes(bytes: [u8; 10]) -> Self {
        let [s0, s1, s2, s3, s4, s5, s6, s7, e0, e1] = bytes;
        Self::new(u16::from_le_bytes([e0, e1]), u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]))
    }

    /// As ten bytes in memory order.
    pub const fn to_bytes(self) -> [u8; 10] {
        let [s0, s1, s2, s3, s4, s5, s6, s7] = self.significand.to_le_bytes();
        let [e0, e1] = self.sign_exponent.to_le_bytes();
        [s0, s1, s2, s3, s4, s5, s6, s7, e0, e1]
    }

    /// A zero of this sign.
    pub const fn zero(sign: bool) -> Self {
        Self::new((sign as u16) << 15, 0)
    }

    /// An infinity of this sign.
    pub const fn infinity(sign: bool) -> Self {
        Self::new((sign as u16) << 15 | 0x7fff, INTEGER_BIT)
    }

    /// The sign bit.
    pub const fn sign(self) -> bool {
        self.sign_exponent & 0x8000 != 0
    }

    /// The biased exponent.
    pub const fn exponent(self) -> i32 {
        (self.sign_exponent & 0x7fff) as i32
    }

    /// What this encoding stands for.
    pub const fn class(self) -> Class {
        let integer = self.significand & INTEGER_BIT != 0;
        match (self.exponent(), self.significand) {
            (0, 0) => Class::Zero,
            (0, _) => Class::Denormal,
            (_, _) if !integer => Class::Unsupported,
            (MAX_EXPONENT, INTEGER_BIT) => Class::Infinity,
            (MAX_EXPONENT, s) if s & QUIET_BIT != 0 => Class::QuietNan,
            (MAX_EXPONENT, _) => Class::SignalingNan,
            _ => Class::Normal,
        }
    }

    /// Whether this is a NaN of either kind.
    pub const fn is_nan(self) -> bool {
        matches!(self.class(), Class::QuietNan | Class::SignalingNan)
    }

    /// With the sign changed, whatever it is (FCHS).
    #[must_use]
    pub const fn negated(self) -> Self {
        Self::new(self.sign_exponent ^ 0x8000, self.significand)
    }

    /// With the sign cleared, whatever it is (FABS).
    #[must_use]
    pub const fn absolute(self) -> Self {
        Self::new(self.sign_exponent & 0x7fff, self.significand)
    }

    /// With this sign.
    #[must_use]
    pub const fn with_sign(self, sign: bool) -> Self {
        Self::new(self.sign_exponent & 0x7fff | (sign as u16) << 15, self.significand)
    }

    /// This NaN made quiet.
    const fn quieted(self) -> Self {
        Self::new(self.sign_exponent, self.significand | QUIET_BIT)
    }
}

/// A finite, nonzero number: `significand / 2^63 * 2^(exponent - BIAS)` with bit 63 set. The exponent of a
/// denormal may be below 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub sign: bool,
    pub exponent: i32,
    pub significand: u64,
}

/// Takes a finite, nonzero, supported number apart.
pub(super) fn unpack(number: F80) -> Parts {
    let shift = number.significand.leading_zeros() & 63;
    Parts {
        sign: number.sign(),
        exponent: number.exponent().max(1) - shift as i32,
        significand: number.significand << shift,
    }
}

/// An exact or nearly exact nonzero result: `significand / 2^127 * 2^(exponent - BIAS)` with bit 127 set; bit 0
/// also stands for whatever lies below it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wide {
    pub sign: bool,
    pub exponent: i32,
    pub significand: u128,
}

impl Wide {
    /// Shifts a nonzero significand left until bit 127 is set.
    pub fn normalized(self) -> Self {
        let zeros = self.significand.leading_zeros() & 127;
        Self { sign: self.sign, exponent: self.exponent - zeros as i32, significand: self.significand << zeros }
    }
}

impl From<Parts> for Wide {
    fn from(parts: Parts) -> Self {
        Self { sign: parts.sign, exponent: parts.exponent, significand: u128::from(parts.significand) << 64 }
    }
}

/// A significand rounded to some number of bits.
struct Rounded {
    /// Left-aligned; zero only if the value was denormalised to nothing.
    significand: u64,
    /// The rounding carried out of the top: the significand is one half and belongs to the next exponent.
    carry: bool,
    inexact: bool,
}

/// Rounds to the upper `bits` bits.
fn round_at(sign: bool, significand: u128, bits: u32, env: &mut Env) -> Rounded {
    let drop = 128 - bits;
    let kept = significand >> drop;
    let discarded = Discarded::of(significand, drop);
    let up = env.rounding.increments(sign, kept & 1 != 0, discarded);
    env.rounded_up = up;
    let rounded = kept + u128::from(up);
    let carry = rounded >> bits != 0;
    Rounded {
        significand: ((rounded >> u32::from(carry)) << (64 - bits)) as u64,
        carry,
        inexact: discarded != Discarded::Nothing,
    }
}

/// Rounds to the precision of the control word and packs.
pub(super) fn round_pack(value: Wide, env: &mut Env) -> F80 {
    round_pack_to(value, env.precision, env)
}

/// Rounds to `precision` and packs (SDM vol. 1 4.9.1.4 to 4.9.1.6, 8.5.4 to 8.5.6).
pub(super) fn round_pack_to(value: Wide, precision: Precision, env: &mut Env) -> F80 {
    let Wide { sign, exponent, significand } = value;
    let bits = precision.bits();
    let rounded = round_at(sign, significand, bits, env);
    let rounded_exponent = exponent + i32::from(rounded.carry);
    if rounded_exponent >= MAX_EXPONENT {
        env.raise(Flags::OVERFLOW);
        let unmasked = !env.masked.has(Flags::OVERFLOW);
        if unmasked && rounded_exponent - WRAP < MAX_EXPONENT {
            return finish(sign, rounded_exponent - WRAP, &rounded, env);
        }
        // FSCALE can leave even the wrapped range; unmasked, that gives an infinity, and a zero below.
        env.raise(Flags::PRECISION);
        let infinite = unmasked || env.rounding.overflows_to_infinity(sign);
        env.rounded_up = infinite;
        return if infinite { F80::infinity(sign) } else { pack(sign, MAX_EXPONENT - 1, u64::MAX << (64 - bits)) };
    }
    if rounded_exponent >= 1 {
        return finish(sign, rounded_exponent, &rounded, env);
    }
    // Tiny after rounding.
    if !env.masked.has(Flags::UNDERFLOW) {
        env.raise(Flags::UNDERFLOW);
        if rounded_exponent + WRAP >= 1 {
            return finish(sign, rounded_exponent + WRAP, &rounded, env);
        }
        env.raise(Flags::PRECISION);
        env.rounded_up = false;
        return F80::zero(sign);
    }
    let shifted = shift_right_jam128(significand, (1 - exponent) as u32);
    let small = round_at(sign, shifted, bits, env);
    if small.inexact {
        env.raise(Flags::UNDERFLOW.or(Flags::PRECISION));
    }
    let exponent = i32::from(small.significand & INTEGER_BIT != 0);
    pack(sign, exponent, small.significand)
}

/// Packs a rounded number whose exponent fits.
fn finish(sign: bool, exponent: i32, rounded: &Rounded, env: &mut Env) -> F80 {
    if rounded.inexact {
        env.raise(Flags::PRECISION);
    }
    pack(sign, exponent, rounded.significand)
}

/// A number from its fields.
pub(super) fn pack(sign: bool, exponent: i32, significand: u64) -> F80 {
    F80::new(u16::from(sign) << 15 | exponent as u16, significand)
}

/// The masked response to an invalid operation.
pub(super) fn invalid(env: &mut Env) -> F80 {
    env.raise(Flags::INVALID);
    F80::INDEFINITE
}

/// Raises DE if an operand is denormal, or was before it became an F80.
pub(super) fn note_denormals(operands: &[F80], env: &mut Env) {
    if env.denormal_operand || operands.iter().any(|x| x.class() == Class::Denormal) {
        env.raise(Flags::DENORMAL);
    }
}

/// The result if an operand is a NaN or unsupported.
pub(super) fn special(operands: &[F80], env: &mut Env) -> Option<F80> {
    let has = |class| operands.iter().any(|x| x.class() == class);
    if has(Class::Unsupported) {
        return Some(invalid(env));
    }
    let signaling = has(Class::SignalingNan);
    let quiet = has(Class::QuietNan);
    if signaling {
        env.raise(Flags::INVALID);
    }
    // A quiet NaN goes before a signaling one; of two alike, the larger significand, then the positive one.
    let wanted = if quiet { Class::QuietNan } else { Class::SignalingNan };
    operands.iter().filter(|x| x.class() == wanted).max_by_key(|x| (x.significand, !x.sign())).map(|nan| nan.quieted())
}
