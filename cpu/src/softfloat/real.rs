//! A number with a 128-bit significand, for the transcendental functions: what they need of add, multiply and
//! divide, with an error of a few units in the 128th bit. Not for guests: no flags, no special values.

use super::f80::{BIAS, Parts, Wide};
use super::shift_right_jam128;

/// `significand / 2^127 * 2^exponent` with bit 127 set, or zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Real {
    pub negative: bool,
    pub exponent: i32,
    pub significand: u128,
}

impl Real {
    pub const ZERO: Self = Self::new(0, 0);
    pub const ONE: Self = Self::new(0, 1 << 127);
    pub const LN_2: Self = Self::new(-1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af);
    pub const LOG2_E: Self = Self::new(0, 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e89);
    pub const PI: Self = Self::new(1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);

    /// A positive number; the significand is normalised or zero.
    pub const fn new(exponent: i32, significand: u128) -> Self {
        Self { negative: false, exponent, significand }
    }

    /// `value * 2^exponent`.
    pub fn scaled(value: u128, exponent: i32) -> Self {
        let zeros = value.leading_zeros();
        if zeros == 128 {
            return Self::ZERO;
        }
        Self::new(exponent + 127 - zeros as i32, value << zeros)
    }

    /// An integer.
    pub fn integer(value: i32) -> Self {
        let magnitude = Self::scaled(u128::from(value.unsigned_abs()), 0);
        magnitude.with_sign(value < 0)
    }

    pub fn is_zero(self) -> bool {
        self.significand == 0
    }

    pub fn with_sign(mut self, negative: bool) -> Self {
        self.negative = negative;
        self
    }

    pub fn negated(self) -> Self {
        self.with_sign(!self.negative)
    }

    /// Multiplied by `2^places`.
    pub fn shifted(mut self, places: i32) -> Self {
        self.exponent += places;
        self
    }

    /// Whether the magnitude is less than that of `other`.
    pub fn smaller_than(self, other: Self) -> bool {
        other.significand != 0
            && (self.significand == 0 || (self.exponent, self.significand) < (other.exponent, other.significand))
    }

    pub fn add(self, other: Self) -> Self {
        let (large, small) = if self.smaller_than(other) { (other, self) } else { (self, other) };
        if small.is_zero() {
            return large;
        }
        // One bit of headroom. A tiny subtrahend is kept as one unit, so that x - tiny stays below x.
        let distance = large.exponent.abs_diff(small.exponent) + 1;
        let addend = shift_right_jam128(small.significand, distance);
        let augend = large.significand >> 1;
        let sum = if large.negative == small.negative { augend + addend } else { augend - addend };
        Self::scaled(sum, large.exponent - 126).with_sign(large.negative)
    }

    pub fn sub(self, other: Self) -> Self {
        self.add(other.negated())
    }

    pub fn mul(self, other: Self) -> Self {
        if self.is_zero() || other.is_zero() {
            return Self::ZERO;
        }
        let product = multiply_high(self.significand, other.significand);
        Self::scaled(product, self.exponent + other.exponent - 126).with_sign(self.negative != other.negative)
    }

    /// Divided by a small positive integer, in digits of 32 bits, for which the host has an instruction.
    pub fn over(self, divisor: u32) -> Self {
        let divisor = u64::from(divisor.max(1));
        let mut quotient = 0u128;
        let mut rest = 0u64;
        for digit in (0..4).rev() {
            let part = rest << 32 | (self.significand >> (32 * digit)) as u64 & 0xffff_ffff;
            quotient = quotient << 32 | u128::from(part / divisor);
            rest = part % divisor;
        }
        // The bits that normalising brings in come from the remainder; a small divisor leaves few zeros.
        let zeros = quotient.leading_zeros() & 31;
        let low = (rest << zeros) / divisor;
        Self { exponent: self.exponent - zeros as i32, significand: (quotient << zeros) + u128::from(low), ..self }
    }

    /// Divided by a number that is not zero.
    pub fn div(self, other: Self) -> Self {
        if self.is_zero() {
            return Self::ZERO;
        }
        let quotient = divide(self.significand, other.significand);
        Self::scaled(quotient, self.exponent - other.exponent - 127).with_sign(self.negative != other.negative)
    }

    /// The magnitude in units of 2^-127, cut; for numbers below two.
    pub fn fixed(self) -> u128 {
        self.significand.checked_shr(self.exponent.unsigned_abs()).filter(|_| self.exponent <= 0).unwrap_or(0)
    }

    /// For rounding to an F80, as a value that is not exact.
    pub fn to_wide(self) -> Wide {
        let exact = self.to_wide_exact();
        Wide { significand: exact.significand | 1, ..exact }
    }

    /// For rounding to an F80, as an exact value.
    pub fn to_wide_exact(self) -> Wide {
        Wide { sign: self.negative, exponent: self.exponent + BIAS, significand: self.significand }
    }
}

impl From<Parts> for Real {
    fn from(parts: Parts) -> Self {
        Self::new(parts.exponent - BIAS, u128::from(parts.significand) << 64).with_sign(parts.sign)
    }
}

/// The upper half of a 256-bit product.
fn multiply_high(a: u128, b: u128) -> u128 {
    let low = |x: u128| x & u128::from(u64::MAX);
    let (a1, a0, b1, b0) = (a >> 64, low(a), b >> 64, low(b));
    let middle = a1 * b0;
    let carry = (low(middle) + low(a0 * b1) + ((a0 * b0) >> 64)) >> 64;
    a1 * b1 + (middle >> 64) + ((a0 * b1) >> 64) + carry
}

/// The first 128 binary digits of a quotient of two significands: `a * 2^127 / b`, cut. Two digits of 64 bits by the
/// schoolbook (Knuth, The Art of Computer Programming, vol. 2, 4.3.1, algorithm D).
fn divide(a: u128, b: u128) -> u128 {
    // A quotient below two is one, or nothing, and a rest below the divisor.
    let (one, mut rest) = if a >= b { (1u128 << 127, a - b) } else { (0, a) };
    // 127 more digits: 64, then 64 of which the last is cut.
    let mut digits = [0u128; 2];
    for digit in &mut digits {
        (*digit, rest) = next_digit(rest, b);
    }
    one | (digits[0] << 63 | digits[1] >> 1)
}

/// The next 64 binary digits of `rest / b`, with `rest < b`, and what is left.
fn next_digit(rest: u128, b: u128) -> (u128, u128) {
    let (high, low) = (b >> 64, b & u128::from(u64::MAX));
    // The estimate is too large by two at most.
    let mut digit = (rest / high).min(u128::from(u64::MAX));
    let mut left = rest - digit * high;
    while left >> 64 == 0 && digit * low > left << 64 {
        digit -= 1;
        left += high;
    }
    (digit, (left << 64).wrapping_sub(digit * low))
}

/// `a * b` of numbers in units of 2^-127.
pub(super) fn multiply_fixed(a: u128, b: u128) -> u128 {
    multiply_high(a, b) << 1
}
