//! Add, subtract, multiply, divide, square root and fused multiply-add of the SSE formats (SDM vol. 1 11.4.1.2,
//! 14.5). NaN operands, then invalid operations, then zero divides, then denormal operands are looked for in
//! that order; an earlier find hides the later ones.

use super::format::{
    Format, Native, Parts, invalid, normalize_round_pack, note_denormals, propagate, round_pack, unpack,
};
use super::{Env, Flags, Rounding, shift_right_jam64, shift_right_jam128};

/// Host arithmetic when nothing can be told from it: normal operands, a result safely inside the range.
#[inline]
fn native<F: Format>(operation: Native, a: F, b: F, env: &Env) -> Option<F> {
    if !env.allows_native() || !a.is_normal() || !b.is_normal() {
        return None;
    }
    // A result of the smallest normal exponent may have been tiny before rounding to it.
    F::native(operation, a, b).filter(|r| r.exponent() > 1 && r.exponent() < F::MAX_EXPONENT)
}

/// `a + b`.
#[inline]
pub fn add<F: Format>(a: F, b: F, env: &mut Env) -> F {
    match native(Native::Add, a, b, env) {
        Some(sum) => sum,
        None => add_signed(a, b, false, env),
    }
}

/// `a - b`.
#[inline]
pub fn sub<F: Format>(a: F, b: F, env: &mut Env) -> F {
    match native(Native::Sub, a, b, env) {
        Some(difference) => difference,
        None => add_signed(a, b, true, env),
    }
}

/// `a + b`, or `a - b` when `negate`; a NaN `b` keeps its sign.
fn add_signed<F: Format>(a: F, b: F, negate: bool, env: &mut Env) -> F {
    let (a, b) = (a.operand(env), b.operand(env));
    if a.is_nan() || b.is_nan() {
        return propagate(&[a, b], env);
    }
    let b = if negate { b.negated() } else { b };
    if a.is_infinite() && b.is_infinite() && a.sign() != b.sign() {
        return invalid(env);
    }
    note_denormals(&[a, b], env);
    if a.is_infinite() {
        return a;
    }
    if b.is_infinite() {
        return b;
    }
    match (a.is_zero(), b.is_zero()) {
        (true, true) if a.sign() == b.sign() => return a,
        (true, true) => return F::zero(env.rounding == Rounding::Down),
        (true, false) => return round_pack(unpack(b), env),
        (false, true) => return round_pack(unpack(a), env),
        (false, false) => {}
    }
    let (mut large, mut small) = (unpack(a), unpack(b));
    if (small.exponent, small.significand) > (large.exponent, large.significand) {
        std::mem::swap(&mut large, &mut small);
    }
    let distance = (large.exponent - small.exponent) as u32;
    // At least nine bits lie below either fraction, so that a jammed bit never reaches the rounding bit.
    let addend = shift_right_jam64(small.significand, distance);
    let significand = if large.sign == small.sign { large.significand + addend } else { large.significand - addend };
    if significand == 0 {
        return F::zero(env.rounding == Rounding::Down);
    }
    normalize_round_pack(Parts { significand, ..large }, env)
}

/// `a * b`.
#[inline]
pub fn mul<F: Format>(a: F, b: F, env: &mut Env) -> F {
    match native(Native::Mul, a, b, env) {
        Some(product) => product,
        None => mul_exact(a, b, env),
    }
}

fn mul_exact<F: Format>(a: F, b: F, env: &mut Env) -> F {
    let (a, b) = (a.operand(env), b.operand(env));
    let sign = a.sign() != b.sign();
    if a.is_nan() || b.is_nan() {
        return propagate(&[a, b], env);
    }
    if a.is_infinite() && b.is_zero() || a.is_zero() && b.is_infinite() {
        return invalid(env);
    }
    note_denormals(&[a, b], env);
    if a.is_infinite() || b.is_infinite() {
        return F::infinity(sign);
    }
    if a.is_zero() || b.is_zero() {
        return F::zero(sign);
    }
    let (x, y) = (unpack(a), unpack(b));
    let product = u128::from(x.significand) * u128::from(y.significand);
    normalize_round_pack(
        Parts {
            sign,
            exponent: x.exponent + y.exponent - F::BIAS,
            significand: shift_right_jam128(product, 62) as u64,
        },
        env,
    )
}

/// `a / b`.
#[inline]
pub fn div<F: Format>(a: F, b: F, env: &mut Env) -> F {
    match native(Native::Div, a, b, env) {
        Some(quotient) => quotient,
        None => div_exact(a, b, env),
    }
}

fn div_exact<F: Format>(a: F, b: F, env: &mut Env) -> F {
    let (a, b) = (a.operand(env), b.operand(env));
    let sign = a.sign() != b.sign();
    if a.is_nan() || b.is_nan() {
        return propagate(&[a, b], env);
    }
    if a.is_infinite() && b.is_infinite() || a.is_zero() && b.is_zero() {
        return invalid(env);
    }
    if b.is_zero() && !a.is_infinite() {
        env.raise(Flags::ZERO_DIVIDE);
        return F::infinity(sign);
    }
    note_denormals(&[a, b], env);
    if a.is_infinite() {
        return F::infinity(sign);
    }
    if b.is_infinite() || a.is_zero() {
        return F::zero(sign);
    }
    let (x, y) = (unpack(a), unpack(b));
    let dividend = u128::from(x.significand) << 62;
    let divisor = u128::from(y.significand);
    let sticky = u64::from(!dividend.is_multiple_of(divisor));
    normalize_round_pack(
        Parts { sign, exponent: x.exponent - y.exponent + F::BIAS, significand: (dividend / divisor) as u64 | sticky },
        env,
    )
}

/// The square root of `a`.
#[inline]
pub fn sqrt<F: Format>(a: F, env: &mut Env) -> F {
    if !a.sign()
        && let Some(root) = native(Native::Sqrt, a, a, env)
    {
        return root;
    }
    let a = a.operand(env);
    if a.is_nan() {
        return propagate(&[a], env);
    }
    if a.is_zero() {
        return a;
    }
    if a.sign() {
        return invalid(env);
    }
    note_denormals(&[a], env);
    if a.is_infinite() {
        return a;
    }
    let x = unpack(a);
    let power = x.exponent - F::BIAS;
    // An even power of two goes under the root: the radicand is in [2^124, 2^126), its root in [2^62, 2^63).
    let radicand = u128::from(x.significand) << (62 + (power & 1));
    let root = radicand.isqrt();
    let sticky = u64::from(root * root != radicand);
    round_pack(Parts { sign: false, exponent: (power >> 1) + F::BIAS, significand: root as u64 | sticky }, env)
}

/// `a * b + c` with one rounding. A NaN is looked for in the order `a`, `b`, `c`; with the operands numbered
/// as in the manual, the 132 forms are `fma(op1, op3, op2)`, 213 `fma(op2, op1, op3)`, 231 `fma(op2, op3, op1)`.
pub fn fma<F: Format>(a: F, b: F, c: F, env: &mut Env) -> F {
    let (a, b, c) = (a.operand(env), b.operand(env), c.operand(env));
    let sign = a.sign() != b.sign();
    let undefined_product = a.is_infinite() && b.is_zero() || a.is_zero() && b.is_infinite();
    if a.is_nan() || b.is_nan() || c.is_nan() {
        return propagate(&[a, b, c], env);
    }
    let infinite_product = a.is_infinite() || b.is_infinite();
    if undefined_product || infinite_product && c.is_infinite() && c.sign() != sign {
        return invalid(env);
    }
    note_denormals(&[a, b, c], env);
    if infinite_product {
        return F::infinity(sign);
    }
    if c.is_infinite() {
        return c;
    }
    if a.is_zero() || b.is_zero() {
        return match c.is_zero() {
            true if c.sign() == sign => c,
            true => F::zero(env.rounding == Rounding::Down),
            false => round_pack(unpack(c), env),
        };
    }
    let (x, y) = (unpack(a), unpack(b));
    // Both terms as `significand / 2^124 * 2^(exponent - BIAS)`, below 2^126.
    let mut large = (sign, x.exponent + y.exponent - F::BIAS, u128::from(x.significand) * u128::from(y.significand));
    if !c.is_zero() {
        let z = unpack(c);
        let mut small = (z.sign, z.exponent, u128::from(z.significand) << 62);
        let distance = large.1.abs_diff(small.1);
        if small.1 > large.1 {
            std::mem::swap(&mut large, &mut small);
        }
        small.2 = shift_right_jam128(small.2, distance);
        if large.0 == small.0 {
            large.2 += small.2;
        } else if large.2 >= small.2 {
            large.2 -= small.2;
        } else {
            large = (small.0, large.1, small.2 - large.2);
        }
        if large.2 == 0 {
            return F::zero(env.rounding == Rounding::Down);
        }
    }
    let (sign, exponent, significand) = large;
    let zeros = significand.leading_zeros();
    round_pack(
        Parts {
            sign,
            exponent: exponent + 3 - zeros as i32,
            significand: shift_right_jam128(significand << zeros, 65) as u64,
        },
        env,
    )
}
