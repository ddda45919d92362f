//! F2XM1, FYL2X, FYL2XP1, FPATAN, FPTAN, FSIN, FCOS and FSINCOS (SDM vol. 1 8.3.7, 8.3.8, 8.3.10; vol. 2 for the
//! special cases). Results are within 1 ulp, as the manual demands, in fact nearly always correctly rounded, and
//! always inexact. Rounding control applies, precision control does not.
//!
//! Angles are reduced with the 66-bit approximation of pi that the processors use, so that results near
//! multiples of pi match theirs. Operands outside the documented ranges of F2XM1 and FYL2XP1 come back
//! unchanged, as on AMD processors.

use super::f80::{BIAS, Class, F80, INTEGER_BIT, Wide, invalid, note_denormals, special, unpack};
use super::f80_arithmetic::round_pack_extended;
use super::real::{Real, multiply_fixed};
use super::{Env, Flags};

/// Pi over two in units of 2^-65.
const HALF_PI: u128 = 0x3_243f_6a88_85a3_08d3;

/// The arc tangents of k/8 for k = 1 to 8.
const ARC_TANGENTS: [Real; 8] = [
    Real::new(-4, 0xfead_d4d5_617b_6e32_c897_989f_3e88_8ef8),
    Real::new(-3, 0xfadb_afc9_6406_eb15_6dc7_9ef5_f7a2_17e6),
    Real::new(-2, 0xb7b0_ca0f_26f7_8473_8aa3_2122_dcfe_4483),
    Real::new(-2, 0xed63_382b_0dda_7b45_6fe4_45ec_bc3a_8d03),
    Real::new(-1, 0x8f00_5d5e_f7f5_9f9b_5c83_5e16_65c4_3748),
    Real::new(-1, 0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9f),
    Real::new(-1, 0xb805_3e2b_c231_9e73_cb2d_a552_10a4_443d),
    Real::new(-1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1),
];

/// The square root of two, as a significand: where the logarithm changes its octave.
const SQRT_2: u128 = 0xb504_f333_f9de_6484_597d_89b3_754a_be9f;

impl F80 {
    /// F2XM1: `2^self - 1` for `-1 <= self <= 1`.
    #[must_use]
    pub fn exp2_minus_one(self, env: &mut Env) -> Self {
        if let Some(nan) = special(&[self], env) {
            return nan;
        }
        match self.class() {
            Class::Zero => return self,
            Class::Infinity if self.sign() => return Self::ONE.negated(),
            Class::Infinity => return self,
            _ => note_denormals(&[self], env),
        }
        if self.exponent() >= BIAS {
            env.raise(Flags::PRECISION);
            return match self.absolute() == Self::ONE && self.sign() {
                true => super::f80::pack(true, BIAS - 1, self.significand),
                false => self,
            };
        }
        rounded(power_minus_one(unpack(self).into()), env)
    }

    /// FYL2X: `y * log2(self)`.
    #[must_use]
    pub fn log2_times(self, y: Self, env: &mut Env) -> Self {
        if let Some(nan) = special(&[self, y], env) {
            return nan;
        }
        let is_one = self == Self::ONE;
        match (self.class(), y.class()) {
            (Class::Zero, Class::Zero) => return invalid(env),
            (Class::Zero, Class::Infinity) => return y.negated(),
            (Class::Zero, _) => {
                env.raise(Flags::ZERO_DIVIDE);
                return Self::infinity(!y.sign());
            }
            _ if self.sign() => return invalid(env),
            (Class::Infinity, Class::Zero) => return invalid(env),
            (_, Class::Infinity) if is_one => return invalid(env),
            _ => note_denormals(&[self, y], env),
        }
        let sign = y.sign() != (self.exponent() < BIAS);
        match (self.class(), y.class()) {
            (Class::Infinity, _) | (_, Class::Infinity) => return Self::infinity(sign),
            (_, Class::Zero) => return Self::zero(sign),
            _ if is_one => return Self::zero(sign),
            _ => {}
        }
        let parts = unpack(self);
        if parts.significand == INTEGER_BIT {
            // A whole logarithm: the product fits, and is called inexact all the same.
            let product = Real::integer(parts.exponent - BIAS).mul(unpack(y).into());
            env.raise(Flags::PRECISION);
            return round_pack_extended(product.to_wide_exact(), env);
        }
        rounded(logarithm(parts.into()).mul(unpack(y).into()), env)
    }

    /// FYL2XP1: `y * log2(self + 1)`.
    #[must_use]
    pub fn log2_plus_one_times(self, y: Self, env: &mut Env) -> Self {
        if let Some(nan) = special(&[self, y], env) {
            return nan;
        }
        let sign = self.sign() != y.sign();
        match (self.class(), y.class()) {
            (Class::Infinity, _) if self.sign() => return invalid(env),
            (Class::Infinity, Class::Zero) | (Class::Zero, Class::Infinity) => {
                return invalid(env);
            }
            _ => note_denormals(&[self, y], env),
        }
        match (self.class(), y.class()) {
            (Class::Infinity, _) | (_, Class::Infinity) => return Self::infinity(sign),
            (Class::Zero, _) | (_, Class::Zero) => return Self::zero(sign),
            _ if self.sign() && self.exponent() >= BIAS => {
                env.raise(Flags::PRECISION);
                return self;
            }
            _ => {}
        }
        rounded(log2_plus_one(unpack(self).into()).mul(unpack(y).into()), env)
    }

    /// FPATAN: the angle of the point (`self`, `y`), from -pi to pi.
    #[must_use]
    pub fn arc_tangent(self, y: Self, env: &mut Env) -> Self {
        if let Some(nan) = special(&[self, y], env) {
            return nan;
        }
        note_denormals(&[self, y], env);
        let angle = match (self.class(), y.class()) {
            (_, Class::Zero) | (Class::Infinity, _) if y.class() != Class::Infinity => {
                if !self.sign() {
                    return Self::zero(y.sign());
                }
                Real::PI
            }
            (Class::Infinity, _) if self.sign() => Real::PI.sub(Real::PI.shifted(-2)),
            (Class::Infinity, _) => Real::PI.shifted(-2),
            (Class::Zero, _) | (_, Class::Infinity) => Real::PI.shifted(-1),
            _ => angle(unpack(self).into(), unpack(y).into()),
        };
        rounded(angle.with_sign(y.sign()), env)
    }

    /// FSIN; `None` if the operand is out of range (C2).
    pub fn sine(self, env: &mut Env) -> Option<Self> {
        match reduce(self, env) {
            Argument::Done(result) => Some(result),
            Argument::Zero => Some(self),
            Argument::OutOfRange => None,
            Argument::Angle(angle) => Some(rounded(angle.sine(), env)),
        }
    }

    /// FCOS; `None` if the operand is out of range (C2).
    pub fn cosine(self, env: &mut Env) -> Option<Self> {
        match reduce(self, env) {
            Argument::Done(result) => Some(result),
            Argument::Zero => Some(Self::ONE),
            Argument::OutOfRange => None,
            Argument::Angle(angle) => Some(rounded(angle.cosine(), env)),
        }
    }

    /// FSINCOS: sine, then cosine; `None` if the operand is out of range (C2).
    pub fn sine_and_cosine(self, env: &mut Env) -> Option<(Self, Self)> {
        match reduce(self, env) {
            Argument::Done(result) => Some((result, result)),
            Argument::Zero => Some((self, Self::ONE)),
            Argument::OutOfRange => None,
            Argument::Angle(angle) => {
                let cosine = rounded(angle.cosine(), env);
                Some((rounded(angle.sine(), env), cosine))
            }
        }
    }

    /// FPTAN: the tangent, and the 1.0 that is pushed after it (a NaN's companion is the NaN); `None` if the
    /// operand is out of range (C2).
    pub fn tangent(self, env: &mut Env) -> Option<(Self, Self)> {
        match reduce(self, env) {
            Argument::Done(result) => Some((result, result)),
            Argument::Zero => Some((self, Self::ONE)),
            Argument::OutOfRange => None,
            Argument::Angle(angle) => {
                let tangent = angle.sine().div(angle.cosine());
                Some((rounded(tangent, env), Self::ONE))
            }
        }
    }
}

/// The functions whose values [`unrounded`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Function {
    /// FSIN.
    Sine,
    /// FCOS.
    Cosine,
    /// FPATAN.
    ArcTangent,
    /// FYL2X.
    Log2Times,
    /// FYL2XP1.
    Log2PlusOneTimes,
    /// F2XM1.
    Exp2MinusOne,
}

impl Function {
    /// All of them, in the order of their numbers.
    pub const ALL: [Function; 6] = [
        Function::Sine,
        Function::Cosine,
        Function::ArcTangent,
        Function::Log2Times,
        Function::Log2PlusOneTimes,
        Function::Exp2MinusOne,
    ];
    /// Whether it takes ST(1) too, and pops.
    pub const fn takes_two(self) -> bool {
        matches!(self, Function::ArcTangent | Function::Log2Times | Function::Log2PlusOneTimes)
    }
}

/// A value that is not exact, before it is rounded: cut to 64 bits, and what is missing as the bits of a double, so that the
/// sum of both, rounded, is the result with its flags. Nothing where an operand is special, or the result might be tiny, huge
/// or exact: there the functions of [`F80`] say what happens.
pub fn unrounded(function: Function, x: F80, y: F80) -> Option<(F80, u64)> {
    let is_ordinary = |value: F80| value.class() == Class::Normal;
    if !is_ordinary(x) || function.takes_two() && !is_ordinary(y) {
        return None;
    }
    let value = match function {
        Function::Sine | Function::Cosine => match reduce(x, &mut Env::x87(0x37f)) {
            Argument::Angle(angle) if function == Function::Sine => angle.sine(),
            Argument::Angle(angle) => angle.cosine(),
            _ => return None,
        },
        Function::ArcTangent => angle(unpack(x).into(), unpack(y).into()).with_sign(y.sign()),
        Function::Log2Times if x.sign() || x.significand == INTEGER_BIT => return None,
        Function::Log2Times => logarithm(unpack(x).into()).mul(unpack(y).into()),
        Function::Log2PlusOneTimes if x.sign() && x.exponent() >= BIAS => return None,
        Function::Log2PlusOneTimes => log2_plus_one(unpack(x).into()).mul(unpack(y).into()),
        Function::Exp2MinusOne if x.exponent() >= BIAS => return None,
        Function::Exp2MinusOne => power_minus_one(unpack(x).into()),
    };
    let Wide { sign, exponent, significand } = value.to_wide();
    if value.is_zero() || !(BIAS - 900..BIAS + 900).contains(&exponent) {
        return None;
    }
    // What is missing is below one unit in the last place; bits that a double has no room for only count as not being zero.
    let low = significand as u64;
    let missing = low >> 11 | u64::from(low & 0x7ff != 0);
    let top = 63 - missing.leading_zeros();
    let power = exponent - BIAS - 116 + top as i32;
    let fraction = (missing << (52 - top)) & ((1 << 52) - 1);
    let double = u64::from(sign) << 63 | ((power + 1023) as u64) << 52 | fraction;
    Some((super::f80::pack(sign, exponent, (significand >> 64) as u64), double))
}

/// 2^x - 1 for x between -1 and 1: e^x - 1 = x (1 + x/2 (1 + x/3 (...))).
fn power_minus_one(x: Real) -> Real {
    let x = x.mul(Real::LN_2);
    let series = (2..=24).rev().fold(Real::ONE, |sum, n| Real::ONE.add(x.mul(sum).over(n)));
    x.mul(series)
}

/// log2(1 + x) for x above -1.
fn log2_plus_one(x: Real) -> Real {
    if x.exponent < -2 {
        // 1 + x would lose bits; the quotient of the series needs only x itself.
        two_artanh(x.div(Real::integer(2).add(x))).mul(Real::LOG2_E)
    } else {
        logarithm(Real::ONE.add(x))
    }
}

/// A result that no operand makes exact.
fn rounded(value: Real, env: &mut Env) -> F80 {
    round_pack_extended(value.to_wide(), env)
}

/// An angle as the sum of `quadrant` right angles and a rest within half of one.
struct Reduced {
    quadrant: u32,
    rest: Real,
}

enum Argument {
    /// A NaN or an invalid operation: the result.
    Done(F80),
    Zero,
    OutOfRange,
    Angle(Reduced),
}

/// Sorts out special operands and reduces the others modulo the processors' pi over two.
fn reduce(x: F80, env: &mut Env) -> Argument {
    if let Some(nan) = special(&[x], env) {
        return Argument::Done(nan);
    }
    match x.class() {
        Class::Zero => return Argument::Zero,
        Class::Infinity => return Argument::Done(invalid(env)),
        _ if x.exponent() >= BIAS + 63 => return Argument::OutOfRange,
        _ => note_denormals(&[x], env),
    }
    let parts = unpack(x);
    let power = parts.exponent - BIAS;
    if power < -1 {
        return Argument::Angle(Reduced { quadrant: 0, rest: parts.into() });
    }
    // In units of 2^-65 the operand is an integer below 2^128, so that the reduction is exact.
    let fixed = u128::from(parts.significand) << (power + 2);
    let (mut quadrant, mut rest) = divide_by_half_pi(fixed);
    let mut negative = false;
    if rest > HALF_PI / 2 {
        rest = HALF_PI - rest;
        quadrant = quadrant.wrapping_add(1);
        negative = true;
    }
    let mut rest = Real::scaled(rest, -65).with_sign(negative);
    if parts.sign {
        quadrant = quadrant.wrapping_neg();
        rest = rest.negated();
    }
    Argument::Angle(Reduced { quadrant, rest })
}

/// Quotient and rest. Most angles are small, and hosts have no instruction for this.
fn divide_by_half_pi(fixed: u128) -> (u32, u128) {
    if fixed >= 8 * HALF_PI {
        let quotient = fixed / HALF_PI;
        return (quotient as u32, fixed - quotient * HALF_PI);
    }
    [4, 2, 1].iter().fold((0, fixed), |(quotient, rest), &n| match rest.checked_sub(u128::from(n) * HALF_PI) {
        Some(rest) => (quotient + n, rest),
        None => (quotient, rest),
    })
}

impl Reduced {
    fn sine(&self) -> Real {
        let value = if self.quadrant & 1 == 0 { sine_series(self.rest) } else { cosine_series(self.rest) };
        if self.quadrant & 2 == 0 { value } else { value.negated() }
    }

    /// The sine of the angle one quadrant on.
    fn cosine(&self) -> Real {
        Reduced { quadrant: self.quadrant.wrapping_add(1), rest: self.rest }.sine()
    }
}

/// Below this power of two a square is nothing against one, and only its sign counts: the general arithmetic keeps that.
const TINY: i32 = -30;

/// 1/(first!), 1/((first+2)!) … in units of 2^-127.
const fn inverse_factorials(first: u128) -> [u128; 15] {
    let mut terms = [0; 15];
    let mut term = 1 << 127;
    let mut n = 0;
    while n < 15 {
        terms[n] = term;
        let next = first + 2 * n as u128 + 1;
        term /= next * (next + 1);
        n += 1;
    }
    terms
}

/// 1, 1/3, 1/5 … in units of 2^-127.
const fn odd_inverses() -> [u128; 21] {
    let mut terms = [0; 21];
    let mut n = 0;
    while n < 21 {
        terms[n] = (1 << 127) / (2 * n as u128 + 1);
        n += 1;
    }
    terms
}

/// The terms of a power series in the square of a small number. Those that count for less than 2^-28 of the sum are kept,
/// times 2^`SHIFT`, in 64 bits: their products are one instruction each.
struct Series<const HEAD: usize, const TAIL: usize, const SHIFT: u32> {
    /// In units of 2^-127.
    head: [u128; HEAD],
    /// In units of 2^-(63 + SHIFT).
    tail: [u64; TAIL],
}

impl<const HEAD: usize, const TAIL: usize, const SHIFT: u32> Series<HEAD, TAIL, SHIFT> {
    const fn new<const N: usize>(terms: [u128; N]) -> Self {
        let (mut head, mut tail) = ([0; HEAD], [0; TAIL]);
        let mut n = 0;
        while n < HEAD + TAIL {
            if n < HEAD {
                head[n] = terms[n];
            } else {
                tail[n - HEAD] = (terms[n] << SHIFT >> 64) as u64;
            }
            n += 1;
        }
        Self { head, tail }
    }

    /// `c0 - s (c1 - s (c2 - ...))`, for a square in units of 2^-127.
    fn alternating(&self, square: u128) -> Real {
        self.sum(square, |term, product| term - product, |term, product| term - product)
    }

    /// `c0 + s (c1 + s (c2 + ...))`.
    fn rising(&self, square: u128) -> Real {
        self.sum(square, |term, product| term + product, |term, product| term + product)
    }

    #[inline(always)]
    fn sum(&self, square: u128, short: impl Fn(u64, u64) -> u64, long: impl Fn(u128, u128) -> u128) -> Real {
        let high = (square >> 64) as u64;
        let times = |sum: u64| ((u128::from(high) * u128::from(sum)) >> 63) as u64;
        let tail = self.tail.iter().rev().fold(0, |sum, &term| short(term, times(sum)));
        let start = u128::from(tail) << (64 - SHIFT);
        let sum = self.head.iter().rev().fold(start, |sum, &term| long(term, multiply_fixed(square, sum)));
        Real::scaled(sum, -127)
    }
}

const SINE: Series<6, 9, 32> = Series::new(inverse_factorials(1));
const COSINE: Series<6, 9, 28> = Series::new(inverse_factorials(0));
const ARC_TANGENT: Series<4, 13, 0> = Series::new(odd_inverses());
const LOGARITHM: Series<7, 14, 0> = Series::new(odd_inverses());

/// sin x = x (1 - x^2/3! + x^4/5! ...) for x up to pi/4.
fn sine_series(x: Real) -> Real {
    let square = x.mul(x);
    if x.exponent < TINY {
        return x.mul(Real::ONE.sub(square.over(6)));
    }
    x.mul(SINE.alternating(square.fixed()))
}

/// cos x = 1 - x^2/2! + x^4/4! ... for x up to pi/4.
fn cosine_series(x: Real) -> Real {
    let square = x.mul(x);
    if x.exponent < TINY {
        return Real::ONE.sub(square.over(2));
    }
    COSINE.alternating(square.fixed())
}

/// The base-2 logarithm of a positive number; zero for one.
fn logarithm(x: Real) -> Real {
    let octave = x.exponent + i32::from(x.significand > SQRT_2);
    let fraction = x.shifted(-octave);
    let quotient = fraction.sub(Real::ONE).div(fraction.add(Real::ONE));
    Real::integer(octave).add(two_artanh(quotient).mul(Real::LOG2_E))
}

/// 2 artanh s = ln((1 + s) / (1 - s)) = 2 s (1 + s^2/3 + s^4/5 + ...) for s up to 0.18.
fn two_artanh(s: Real) -> Real {
    let square = s.mul(s);
    if s.exponent < TINY {
        return s.mul(Real::ONE.add(square.over(3))).shifted(1);
    }
    s.mul(LOGARITHM.rising(square.fixed())).shifted(1)
}

/// The angle of a point with nonzero coordinates, without the sign of `y`.
fn angle(x: Real, y: Real) -> Real {
    let (behind, x, y) = (x.negative, x.with_sign(false), y.with_sign(false));
    let steep = x.smaller_than(y);
    let ratio = if steep { x.div(y) } else { y.div(x) };
    let base = arc_tangent(ratio);
    match (behind, steep) {
        (false, false) => base,
        (false, true) => Real::PI.shifted(-1).sub(base),
        (true, true) => Real::PI.shifted(-1).add(base),
        (true, false) => Real::PI.sub(base),
    }
}

/// The arc tangent of a number from 0 to 1: atan t = atan c + atan((t - c) / (1 + c t)) with c the nearest eighth.
fn arc_tangent(t: Real) -> Real {
    let sixteenths = t.significand.checked_shr((123 - t.exponent).max(0) as u32).unwrap_or(0) as u32;
    let nearest = sixteenths.div_ceil(2);
    let Some(known) = (nearest as usize).checked_sub(1).and_then(|index| ARC_TANGENTS.get(index)) else {
        return arc_tangent_series(t);
    };
    let center = Real::integer(nearest as i32).shifted(-3);
    let rest = t.sub(center).div(Real::ONE.add(center.mul(t)));
    known.add(arc_tangent_series(rest))
}

/// atan t = t (1 - t^2/3 + t^4/5 - ...) for t up to 1/16.
fn arc_tangent_series(t: Real) -> Real {
    let square = t.mul(t);
    if t.exponent < TINY {
        return t.mul(Real::ONE.sub(square.over(3)));
    }
    t.mul(ARC_TANGENT.alternating(square.fixed()))
}
