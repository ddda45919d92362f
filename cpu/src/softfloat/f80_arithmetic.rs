//! FADD, FSUB, FMUL, FDIV, FSQRT, FRNDINT and the comparisons (SDM vol. 1 8.3.5 to 8.3.6).

use super::f80::{BIAS, Class, F80, Parts, Wide, invalid, note_denormals, round_pack, round_pack_to, special, unpack};
use super::{Comparison, Discarded, Env, Flags, Precision, Relation, Rounding, shift_right_jam128};

impl F80 {
    /// `self + other`.
    #[must_use]
    pub fn add(self, other: Self, env: &mut Env) -> Self {
        match special(&[self, other], env) {
            Some(nan) => nan,
            None => add_numbers(self, other, env),
        }
    }

    /// `self - other`.
    #[must_use]
    pub fn sub(self, other: Self, env: &mut Env) -> Self {
        match special(&[self, other], env) {
            Some(nan) => nan,
            None => add_numbers(self, other.negated(), env),
        }
    }

    /// `self * other`.
    #[must_use]
    pub fn mul(self, other: Self, env: &mut Env) -> Self {
        if let Some(nan) = special(&[self, other], env) {
            return nan;
        }
        let sign = self.sign() != other.sign();
        match (self.class(), other.class()) {
            (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => return invalid(env),
            _ => note_denormals(&[self, other], env),
        }
        match (self.class(), other.class()) {
            (Class::Infinity, _) | (_, Class::Infinity) => return Self::infinity(sign),
            (Class::Zero, _) | (_, Class::Zero) => return Self::zero(sign),
            _ => {}
        }
        let (a, b) = (unpack(self), unpack(other));
        let product = Wide {
            sign,
            exponent: a.exponent + b.exponent - BIAS + 1,
            significand: u128::from(a.significand) * u128::from(b.significand),
        };
        round_pack(product.normalized(), env)
    }

    /// `self / other`.
    #[must_use]
    pub fn div(self, other: Self, env: &mut Env) -> Self {
        if let Some(nan) = special(&[self, other], env) {
            return nan;
        }
        let sign = self.sign() != other.sign();
        match (self.class(), other.class()) {
            (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => return invalid(env),
            (Class::Infinity, _) => {
                note_denormals(&[other], env);
                return Self::infinity(sign);
            }
            (_, Class::Zero) => {
                env.raise(Flags::ZERO_DIVIDE);
                return Self::infinity(sign);
            }
            _ => note_denormals(&[self, other], env),
        }
        if other.class() == Class::Infinity || self.class() == Class::Zero {
            return Self::zero(sign);
        }
        let (a, b) = (unpack(self), unpack(other));
        let divisor = u128::from(b.significand);
        // Two digits of 64 bits, the first with its top bit set or one place lower.
        let first = u128::from(a.significand) << 63;
        let second = (first % divisor) << 64;
        let quotient = ((first / divisor) << 64) | (second / divisor);
        let sticky = u128::from(!second.is_multiple_of(divisor));
        let quotient = Wide { sign, exponent: a.exponent - b.exponent + BIAS, significand: quotient | sticky };
        round_pack(quotient.normalized(), env)
    }

    /// The square root.
    #[must_use]
    pub fn sqrt(self, env: &mut Env) -> Self {
        if let Some(nan) = special(&[self], env) {
            return nan;
        }
        if self.class() == Class::Zero {
            return self;
        }
        if self.sign() {
            return invalid(env);
        }
        note_denormals(&[self], env);
        if self.class() == Class::Infinity {
            return self;
        }
        let a = unpack(self);
        let power = a.exponent - BIAS;
        let radicand = u128::from(a.significand) << (63 + (power & 1));
        let root = radicand.isqrt();
        let rest = radicand - root * root;
        // The fraction of the root is above one half if `rest` exceeds `root`; it never is one half.
        let below = u128::from(rest > root) << 63 | u128::from(rest != 0);
        let root = Wide { sign: false, exponent: (power >> 1) + BIAS, significand: root << 64 | below };
        round_pack(root, env)
    }

    /// FRNDINT: rounded to an integral value.
    #[must_use]
    pub fn round_to_integer(self, env: &mut Env) -> Self {
        if let Some(nan) = special(&[self], env) {
            return nan;
        }
        if matches!(self.class(), Class::Zero | Class::Infinity) {
            return self;
        }
        note_denormals(&[self], env);
        let parts = unpack(self);
        if parts.exponent >= BIAS + 63 {
            return self;
        }
        let (magnitude, inexact) = parts.to_integer(env);
        if inexact {
            env.raise(Flags::PRECISION);
        }
        Self::from_magnitude(self.sign(), magnitude)
    }

    /// Compares with `other`.
    pub fn compare(self, other: Self, comparison: Comparison, env: &mut Env) -> Relation {
        let mut invalid = false;
        let mut unordered = false;
        for operand in [self, other] {
            match operand.class() {
                Class::Unsupported | Class::SignalingNan => {
                    invalid = true;
                    unordered = true;
                }
                Class::QuietNan => {
                    invalid |= comparison == Comparison::Signaling;
                    unordered = true;
                }
                _ => {}
            }
        }
        if invalid {
            env.raise(Flags::INVALID);
        }
        if unordered {
            return Relation::Unordered;
        }
        note_denormals(&[self, other], env);
        match self.ordinal().cmp(&other.ordinal()) {
            std::cmp::Ordering::Less => Relation::Less,
            std::cmp::Ordering::Equal => Relation::Equal,
            std::cmp::Ordering::Greater => Relation::Greater,
        }
    }

    /// An integer in the order of the numbers; both zeros are 0, a pseudo-denormal is its normal twin.
    fn ordinal(self) -> i128 {
        let exponent = match self.class() {
            Class::Denormal => self.exponent().max((self.significand >> 63) as i32),
            _ => self.exponent(),
        };
        let magnitude = i128::from(exponent) << 64 | i128::from(self.significand);
        if self.sign() { -magnitude } else { magnitude }
    }

    /// An integer that fits 64 bits, exactly.
    pub(super) fn from_magnitude(sign: bool, magnitude: u64) -> Self {
        if magnitude == 0 {
            return Self::zero(sign);
        }
        let shift = magnitude.leading_zeros();
        super::f80::pack(sign, BIAS + 63 - shift as i32, magnitude << shift)
    }
}

impl Parts {
    /// Rounds a number below 2^64 to an integer; tells whether it changed. The result may be 2^64 - 1 at most
    /// for a number below 2^63, and is the number itself above.
    pub(super) fn to_integer(self, env: &mut Env) -> (u64, bool) {
        let places = (BIAS + 63 - self.exponent).max(0) as u32;
        let fixed = shift_right_jam128(u128::from(self.significand) << 64, places);
        let discarded = Discarded::of(fixed, 64);
        let integer = (fixed >> 64) as u64;
        let up = env.rounding.increments(self.sign, integer & 1 != 0, discarded);
        env.rounded_up = up;
        (integer + u64::from(up), discarded != Discarded::Nothing)
    }
}

/// Adds two supported operands that are not NaNs.
fn add_numbers(a: F80, b: F80, env: &mut Env) -> F80 {
    match (a.class(), b.class()) {
        (Class::Infinity, Class::Infinity) if a.sign() != b.sign() => return invalid(env),
        _ => note_denormals(&[a, b], env),
    }
    match (a.class(), b.class()) {
        (Class::Infinity, _) => return a,
        (_, Class::Infinity) => return b,
        (Class::Zero, Class::Zero) if a.sign() == b.sign() => return a,
        (Class::Zero, Class::Zero) => return F80::zero(env.rounding == Rounding::Down),
        (Class::Zero, _) => return round_pack(unpack(b).into(), env),
        (_, Class::Zero) => return round_pack(unpack(a).into(), env),
        _ => {}
    }
    let (mut large, mut small) = (unpack(a), unpack(b));
    if (small.exponent, small.significand) > (large.exponent, large.significand) {
        std::mem::swap(&mut large, &mut small);
    }
    let distance = (large.exponent - small.exponent) as u32;
    // One free bit above for the carry, 63 below so that a jammed bit stays clear of the rounding.
    let augend = u128::from(large.significand) << 63;
    let addend = shift_right_jam128(u128::from(small.significand) << 63, distance);
    let significand = if large.sign == small.sign { augend + addend } else { augend - addend };
    if significand == 0 {
        return F80::zero(env.rounding == Rounding::Down);
    }
    let sum = Wide { sign: large.sign, exponent: large.exponent + 1, significand };
    round_pack(sum.normalized(), env)
}

/// Rounds to the full 64 bits whatever the precision control says.
pub(super) fn round_pack_extended(value: Wide, env: &mut Env) -> F80 {
    round_pack_to(value, Precision::Extended, env)
}
