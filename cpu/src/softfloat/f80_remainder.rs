//! FPREM, FPREM1, FSCALE and FXTRACT (SDM vol. 2, their entries). None of them obeys precision control.

use super::f80::{BIAS, Class, F80, Parts, Wide, invalid, note_denormals, special, unpack};
use super::f80_arithmetic::round_pack_extended;
use super::{Env, Flags, Rounding};

/// How the quotient of a remainder is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotient {
    /// Toward zero (FPREM).
    Truncated,
    /// To nearest even (FPREM1, IEEE 754 remainder).
    Nearest,
}

/// What FPREM and FPREM1 give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remainder {
    /// The new ST(0).
    pub value: F80,
    /// The low three bits of the quotient, or `None` if the reduction is incomplete (C2).
    pub quotient: Option<u8>,
}

impl F80 {
    /// The remainder of `self / other`; a partial one if the exponents differ by 64 or more.
    pub fn remainder(self, other: Self, quotient: Quotient, env: &mut Env) -> Remainder {
        let whole = |value| Remainder { value, quotient: Some(0) };
        if let Some(nan) = special(&[self, other], env) {
            return whole(nan);
        }
        if self.class() == Class::Infinity || other.class() == Class::Zero {
            return whole(invalid(env));
        }
        note_denormals(&[self, other], env);
        if self.class() == Class::Zero {
            return whole(self);
        }
        if other.class() == Class::Infinity {
            // The dividend itself, normalised: a tiny one is no underflow.
            let mut masked = Env::x87(0x37f);
            return whole(round_pack_extended(unpack(self).into(), &mut masked));
        }
        let (a, b) = (unpack(self), unpack(other));
        let distance = a.exponent - b.exponent;
        if distance >= 64 {
            let step = distance & 31 | 32;
            let rest = modulo(a.significand, b.significand, step as u32).1;
            return Remainder { value: exact(a.sign, b.exponent + distance - step, rest, env), quotient: None };
        }
        match quotient {
            Quotient::Truncated => truncated(a, b, env),
            Quotient::Nearest => nearest(a, b, env),
        }
    }

    /// FSCALE: `self * 2^trunc(power)`.
    #[must_use]
    pub fn scale(self, power: Self, env: &mut Env) -> Self {
        if let Some(nan) = special(&[self, power], env) {
            return nan;
        }
        match (self.class(), power.class()) {
            (Class::Infinity, Class::Infinity) if power.sign() => return invalid(env),
            (Class::Zero, Class::Infinity) if !power.sign() => return invalid(env),
            _ => note_denormals(&[self, power], env),
        }
        match (self.class(), power.class()) {
            (Class::Infinity | Class::Zero, _) => return self,
            (_, Class::Infinity) if power.sign() => return Self::zero(self.sign()),
            (_, Class::Infinity) => return Self::infinity(self.sign()),
            _ => {}
        }
        let mut parts = unpack(self);
        if power.class() == Class::Zero {
            // The number itself, normalised: a tiny one is no underflow.
            let mut masked = Env::x87(0x37f);
            return round_pack_extended(parts.into(), &mut masked);
        }
        parts.exponent += whole_power(unpack(power));
        round_pack_extended(parts.into(), env)
    }

    /// FXTRACT: the exponent as a number, then the significand with exponent 0.
    #[must_use]
    pub fn extract(self, env: &mut Env) -> (Self, Self) {
        if let Some(nan) = special(&[self], env) {
            return (nan, nan);
        }
        match self.class() {
            Class::Zero => {
                env.raise(Flags::ZERO_DIVIDE);
                return (Self::infinity(true), self);
            }
            Class::Infinity => return (Self::infinity(false), self),
            _ => note_denormals(&[self], env),
        }
        let parts = unpack(self);
        let power = parts.exponent - BIAS;
        (
            Self::from_magnitude(power < 0, u64::from(power.unsigned_abs())),
            super::f80::pack(parts.sign, BIAS, parts.significand),
        )
    }
}

/// FPREM with a quotient below 2^64.
fn truncated(a: Parts, b: Parts, env: &mut Env) -> Remainder {
    let distance = a.exponent - b.exponent;
    if distance < 0 {
        return Remainder { value: round_pack_extended(a.into(), env), quotient: Some(0) };
    }
    let (quotient, rest) = modulo(a.significand, b.significand, distance as u32);
    Remainder { value: exact(a.sign, b.exponent, rest, env), quotient: Some(quotient as u8 & 7) }
}

/// FPREM1 with a quotient below 2^64.
fn nearest(a: Parts, b: Parts, env: &mut Env) -> Remainder {
    let distance = a.exponent - b.exponent;
    if distance < -1 {
        return truncated(a, b, env);
    }
    let divisor = u128::from(b.significand);
    // The remainder and the divisor in units of the last place of the smaller exponent.
    let (quotient, rest, unit, exponent) = if distance < 0 {
        (0, u128::from(a.significand), 2 * divisor, a.exponent)
    } else {
        let (quotient, rest) = modulo(a.significand, b.significand, distance as u32);
        (quotient, u128::from(rest), divisor, b.exponent)
    };
    if 2 * rest > unit || 2 * rest == unit && quotient & 1 != 0 {
        let rest = (unit - rest) as u64;
        return Remainder {
            value: exact(!a.sign, exponent, rest, env),
            quotient: Some(quotient.wrapping_add(1) as u8 & 7),
        };
    }
    Remainder { value: exact(a.sign, exponent, rest as u64, env), quotient: Some(quotient as u8 & 7) }
}

/// Quotient and remainder of `dividend << shift` (0..=63) by `divisor`, both with bit 63 set.
fn modulo(dividend: u64, divisor: u64, shift: u32) -> (u64, u64) {
    let dividend = u128::from(dividend) << shift;
    let divisor = u128::from(divisor);
    ((dividend / divisor) as u64, (dividend % divisor) as u64)
}

/// Packs a remainder, which never needs rounding.
fn exact(sign: bool, exponent: i32, significand: u64, env: &mut Env) -> F80 {
    if significand == 0 {
        return F80::zero(sign);
    }
    let value = Wide { sign, exponent, significand: u128::from(significand) << 64 };
    round_pack_extended(value.normalized(), env)
}

/// The integer part of a power of two, limited to what can matter.
fn whole_power(parts: Parts) -> i32 {
    if parts.exponent > BIAS + 16 {
        return if parts.sign { -0x1_0000 } else { 0x1_0000 };
    }
    let mut toward_zero = Env::x87(0).with_rounding(Rounding::Zero);
    let magnitude = parts.to_integer(&mut toward_zero).0 as i32;
    if parts.sign { -magnitude } else { magnitude }
}
