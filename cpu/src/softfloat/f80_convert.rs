//! FLD, FST, FILD, FIST, FISTTP, FBLD and FBSTP conversions (SDM vol. 1 8.3.3, 4.7; tables 8-9, 8-10).

use super::f80::{BIAS, Class, F80, INTEGER_BIT, unpack};
use super::format::{self, F32, F64, Format};
use super::{Env, Flags};

/// The largest magnitude of packed BCD: eighteen nines.
const BCD_LIMIT: u64 = 999_999_999_999_999_999;
/// The packed BCD indefinite.
const BCD_INDEFINITE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];

impl F80 {
    /// From single precision (FLD m32fp).
    pub fn from_f32(value: F32, env: &mut Env) -> Self {
        Self::from_format(value, env)
    }

    /// From double precision (FLD m64fp).
    pub fn from_f64(value: F64, env: &mut Env) -> Self {
        Self::from_format(value, env)
    }

    fn from_format<F: Format>(value: F, env: &mut Env) -> Self {
        let sign = value.sign();
        if value.is_nan() {
            if value.is_signaling() {
                env.raise(Flags::INVALID);
            }
            return Self::nan_from_format(value.quieted());
        }
        if value.is_infinite() {
            return Self::infinity(sign);
        }
        if value.is_zero() {
            return Self::zero(sign);
        }
        if value.is_denormal() {
            env.raise(Flags::DENORMAL);
        }
        let parts = format::unpack(value);
        super::f80::pack(sign, parts.exponent - F::BIAS + BIAS, parts.significand << 1)
    }

    fn nan_from_format<F: Format>(value: F) -> Self {
        super::f80::pack(value.sign(), 0x7fff, INTEGER_BIT | value.fraction() << (63 - F::FRACTION_BITS))
    }

    /// The single-precision memory operand of an arithmetic instruction. A signaling NaN stays one, and a
    /// denormal is reported by the operation, unless something of higher priority hides it.
    pub fn operand_f32(value: F32, env: &mut Env) -> Self {
        Self::operand(value, env)
    }

    /// As [`F80::operand_f32`], for double precision.
    pub fn operand_f64(value: F64, env: &mut Env) -> Self {
        Self::operand(value, env)
    }

    fn operand<F: Format>(value: F, env: &mut Env) -> Self {
        if value.is_nan() {
            return Self::nan_from_format(value);
        }
        env.denormal_operand |= value.is_denormal();
        Self::from_format(value, &mut env.clone())
    }

    /// From an integer (FILD), exactly.
    pub fn from_i64(value: i64) -> Self {
        Self::from_magnitude(value < 0, value.unsigned_abs())
    }

    /// To single precision (FST m32fp).
    pub fn to_f32(self, env: &mut Env) -> F32 {
        self.to_format(env)
    }

    /// To double precision (FST m64fp).
    pub fn to_f64(self, env: &mut Env) -> F64 {
        self.to_format(env)
    }

    fn to_format<F: Format>(self, env: &mut Env) -> F {
        let sign = self.sign();
        match self.class() {
            Class::Zero => F::zero(sign),
            Class::Infinity => F::infinity(sign),
            Class::Unsupported => format::invalid(env),
            class @ (Class::QuietNan | Class::SignalingNan) => {
                if class == Class::SignalingNan {
                    env.raise(Flags::INVALID);
                }
                let fraction = (self.significand & !INTEGER_BIT) >> (63 - F::FRACTION_BITS);
                F::pack(sign, F::MAX_EXPONENT, fraction | F::QUIET_BIT)
            }
            Class::Normal | Class::Denormal => {
                let parts = unpack(self);
                let significand = parts.significand >> 1 | parts.significand & 1;
                let result = format::round_pack(
                    format::Parts { sign, exponent: parts.exponent - BIAS + F::BIAS, significand },
                    env,
                );
                // Nothing is stored under an unmasked overflow or underflow, so nothing is inexact.
                let range = Flags::OVERFLOW.or(Flags::UNDERFLOW);
                if env.unmasked().has(range) {
                    env.flags = env.flags.without(Flags::PRECISION);
                    env.rounded_up = false;
                }
                result
            }
        }
    }

    /// To a 16-bit integer (FIST m16int); the integer indefinite if it does not fit.
    pub fn to_i16(self, env: &mut Env) -> i16 {
        self.to_integer(1 << 15, env).map_or(i16::MIN, |value| value as i16)
    }

    /// To a 32-bit integer; the integer indefinite if it does not fit.
    pub fn to_i32(self, env: &mut Env) -> i32 {
        self.to_integer(1 << 31, env).map_or(i32::MIN, |value| value as i32)
    }

    /// To a 64-bit integer; the integer indefinite if it does not fit.
    pub fn to_i64(self, env: &mut Env) -> i64 {
        self.to_integer(1 << 63, env).unwrap_or(i64::MIN)
    }

    /// Rounds to an integer in `-limit..limit`, or reports an invalid operation.
    fn to_integer(self, limit: u64, env: &mut Env) -> Option<i64> {
        let (magnitude, inexact) = self.magnitude(env)?;
        let below = if self.sign() { limit } else { limit - 1 };
        if magnitude > below {
            env.rounded_up = false;
            env.raise(Flags::INVALID);
            return None;
        }
        if inexact {
            env.raise(Flags::PRECISION);
        }
        let magnitude = magnitude as i64;
        Some(if self.sign() { magnitude.wrapping_neg() } else { magnitude })
    }

    /// The magnitude rounded to an integer and whether that changed it, or an invalid operation.
    fn magnitude(self, env: &mut Env) -> Option<(u64, bool)> {
        match self.class() {
            Class::Zero => Some((0, false)),
            Class::Normal | Class::Denormal if self.exponent() < BIAS + 64 => Some(unpack(self).to_integer(env)),
            _ => {
                env.raise(Flags::INVALID);
                None
            }
        }
    }

    /// From packed BCD (FBLD). Digits above 9 count as their value, as the processors do.
    pub fn from_bcd(bytes: [u8; 10]) -> Self {
        let (digits, sign) = bytes.split_at(9);
        let magnitude = digits.iter().rev().fold(0u64, |sum, byte| {
            sum.wrapping_mul(100).wrapping_add(u64::from(byte >> 4) * 10 + u64::from(byte & 15))
        });
        Self::from_magnitude(sign.iter().any(|byte| byte & 0x80 != 0), magnitude)
    }

    /// To packed BCD (FBSTP); the packed BCD indefinite if it does not fit.
    pub fn to_bcd(self, env: &mut Env) -> [u8; 10] {
        let Some((magnitude, inexact)) = self.magnitude(env) else {
            return BCD_INDEFINITE;
        };
        if magnitude > BCD_LIMIT {
            env.rounded_up = false;
            env.raise(Flags::INVALID);
            return BCD_INDEFINITE;
        }
        if inexact {
            env.raise(Flags::PRECISION);
        }
        let mut bytes = [0; 10];
        let mut rest = magnitude;
        let (digits, sign) = bytes.split_at_mut(9);
        for byte in digits {
            let pair = (rest % 100) as u8;
            *byte = pair / 10 * 16 + pair % 10;
            rest /= 100;
        }
        sign.fill(u8::from(self.sign()) << 7);
        bytes
    }
}
