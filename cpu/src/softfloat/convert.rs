//! Conversions between the SSE formats and integers, and rounding to an integral value (SDM vol. 1 11.4.1.6,
//! 4.8.4; vol. 2: CVT*, ROUNDPS, VCVTPH2PS, VCVTPS2PH). Conversions to an integer and rounding never report
//! a denormal operand; truncating forms pass an [`Env`] made by [`Env::with_rounding`].

use super::format::{F16, F32, Format, Parts, normalize_round_pack, note_denormals, propagate, round_pack, unpack};
use super::{Discarded, Env, Flags, Rounding, shift_right_jam128};

/// Between formats, in either direction.
#[inline]
pub fn convert<A: Format, B: Format>(a: A, env: &mut Env) -> B {
    let a = a.operand(env);
    if a.is_nan() {
        if a.is_signaling() {
            env.raise(Flags::INVALID);
        }
        let fraction = a.fraction() << (63 - A::FRACTION_BITS) >> (63 - B::FRACTION_BITS);
        return B::pack(a.sign(), B::MAX_EXPONENT, fraction | B::QUIET_BIT);
    }
    if a.is_infinite() {
        return B::infinity(a.sign());
    }
    if a.is_zero() {
        return B::zero(a.sign());
    }
    note_denormals(&[a], env);
    let parts = unpack(a);
    round_pack(Parts { exponent: parts.exponent - A::BIAS + B::BIAS, ..parts }, env)
}

/// VCVTPH2PS: DAZ does not apply and a denormal operand is not reported.
pub fn half_to_single(a: F16, env: &mut Env) -> F32 {
    let mut inner = *env;
    inner.denormals_are_zero = false;
    let result = convert(a, &mut inner);
    env.raise(inner.flags.without(Flags::DENORMAL));
    result
}

/// VCVTPS2PH: FTZ does not apply.
pub fn single_to_half(a: F32, env: &mut Env) -> F16 {
    let flush = std::mem::replace(&mut env.flush_to_zero, false);
    let result = convert(a, env);
    env.flush_to_zero = flush;
    result
}

/// A signed 32-bit integer to a number.
pub fn from_i32<F: Format>(value: i32, env: &mut Env) -> F {
    from_magnitude(value < 0, u64::from(value.unsigned_abs()), env)
}

/// A signed 64-bit integer to a number.
pub fn from_i64<F: Format>(value: i64, env: &mut Env) -> F {
    from_magnitude(value < 0, value.unsigned_abs(), env)
}

/// An unsigned 32-bit integer to a number.
pub fn from_u32<F: Format>(value: u32, env: &mut Env) -> F {
    from_magnitude(false, u64::from(value), env)
}

/// An unsigned 64-bit integer to a number.
pub fn from_u64<F: Format>(value: u64, env: &mut Env) -> F {
    from_magnitude(false, value, env)
}

fn from_magnitude<F: Format>(sign: bool, significand: u64, env: &mut Env) -> F {
    if significand == 0 {
        return F::zero(false);
    }
    normalize_round_pack(Parts { sign, exponent: F::BIAS + 62, significand }, env)
}

/// To a signed 32-bit integer; the integer indefinite 8000_0000h if it does not fit.
pub fn to_i32<F: Format>(a: F, env: &mut Env) -> i32 {
    to_integer(a, i128::from(i32::MIN), i128::from(i32::MAX), env).map_or(i32::MIN, |value| value as i32)
}

/// To a signed 64-bit integer; the integer indefinite 8000_0000_0000_0000h if it does not fit.
pub fn to_i64<F: Format>(a: F, env: &mut Env) -> i64 {
    to_integer(a, i128::from(i64::MIN), i128::from(i64::MAX), env).map_or(i64::MIN, |value| value as i64)
}

/// To an unsigned 32-bit integer; all ones if it does not fit.
pub fn to_u32<F: Format>(a: F, env: &mut Env) -> u32 {
    to_integer(a, 0, i128::from(u32::MAX), env).map_or(u32::MAX, |value| value as u32)
}

/// To an unsigned 64-bit integer; all ones if it does not fit.
pub fn to_u64<F: Format>(a: F, env: &mut Env) -> u64 {
    to_integer(a, 0, i128::from(u64::MAX), env).map_or(u64::MAX, |value| value as u64)
}

/// Rounds to an integer in `low..=high`, or reports an invalid operation.
#[inline]
fn to_integer<F: Format>(a: F, low: i128, high: i128, env: &mut Env) -> Option<i128> {
    let a = a.operand(env);
    if a.is_zero() {
        return Some(0);
    }
    let power = a.exponent() - F::BIAS;
    if power > 64 {
        env.raise(Flags::INVALID);
        return None;
    }
    let parts = unpack(a);
    let (magnitude, inexact) = round_magnitude(parts, parts.exponent - F::BIAS, env);
    let value = if parts.sign { -(magnitude as i128) } else { magnitude as i128 };
    if value < low || value > high {
        env.raise(Flags::INVALID);
        return None;
    }
    if inexact {
        env.raise(Flags::PRECISION);
    }
    Some(value)
}

/// Rounds `significand / 2^62 * 2^power`, `power` at most 64, to an integer; tells whether it changed.
fn round_magnitude(parts: Parts, power: i32, env: &mut Env) -> (u128, bool) {
    // With 64 bits of fraction below the integer.
    let wide = u128::from(parts.significand);
    let (integer, discarded) = if power >= 62 {
        (wide << (power - 62), Discarded::Nothing)
    } else {
        let shift = power + 2;
        let fixed = if shift >= 0 { wide << shift } else { shift_right_jam128(wide, shift.unsigned_abs()) };
        (fixed >> 64, Discarded::of(fixed, 64))
    };
    let up = env.rounding.increments(parts.sign, integer & 1 != 0, discarded);
    env.rounded_up = up;
    (integer + u128::from(up), discarded != Discarded::Nothing)
}

/// ROUNDPS and its kin: to an integral value in the same format. Forms that suppress the precision exception
/// drop that flag themselves.
pub fn round_to_integer<F: Format>(a: F, env: &mut Env) -> F {
    let a = a.operand(env);
    if a.is_nan() {
        return propagate(&[a], env);
    }
    let power = a.exponent() - F::BIAS;
    if power >= F::FRACTION_BITS as i32 || a.is_zero() {
        return a;
    }
    let parts = unpack(a);
    let (magnitude, inexact) = round_magnitude(parts, parts.exponent - F::BIAS, env);
    if inexact {
        env.raise(Flags::PRECISION);
    }
    if magnitude == 0 {
        return F::zero(a.sign());
    }
    // Exact: the magnitude has no more bits than the format.
    let mut exact = env.with_rounding(Rounding::Zero);
    normalize_round_pack(Parts { sign: a.sign(), exponent: F::BIAS + 62, significand: magnitude as u64 }, &mut exact)
}
