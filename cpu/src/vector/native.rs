//! Host arithmetic where it cannot be told from `softfloat`: no exception but an inexact result, which MXCSR already
//! records, and rounding to nearest. `f32` and `f64` follow IEEE 754 on every host, so results do not depend on it.
//!
//! Operands may be zeros and normal numbers. A result of the smallest normal exponent is left to `softfloat`, since it
//! may have been tiny before rounding. Called by `float` and `convert`.

use super::lanes::Lane;
use crate::softfloat::{self as soft, Comparison, Env, F32, F64, Flags, Format, Relation, Rounding};
use std::cmp::Ordering;

/// What may be said of a zero result.
#[derive(Copy, Clone, PartialEq, Eq)]
pub enum Zero {
    /// It is exact: sums and differences.
    Exact,
    /// It is exact if an operand is zero: products and quotients.
    FromZero,
}

/// A format that the host computes with.
pub trait Host: Format + Lane {
    /// The host's type.
    type Float: PartialOrd + Copy;
    /// The number in the host's type.
    fn host(self) -> Self::Float;
    /// From the host's type.
    fn of(x: Self::Float) -> Self;
    /// Zero or normal.
    fn is_plain(self) -> bool;
    /// Whether `self` is the result of an operation on `x` and `y` that raised nothing but perhaps inexact.
    fn is_quiet_result(self, x: Self, y: Self, zero: Zero) -> bool;
    /// Sum.
    fn sum(x: Self::Float, y: Self::Float) -> Self::Float;
    /// Difference.
    fn difference(x: Self::Float, y: Self::Float) -> Self::Float;
    /// Product.
    fn product(x: Self::Float, y: Self::Float) -> Self::Float;
    /// Quotient.
    fn quotient(x: Self::Float, y: Self::Float) -> Self::Float;
    /// Square root.
    fn root(x: Self::Float) -> Self::Float;
    /// Rounded to an integral value; `None` if that is not known to be exact in the format.
    fn integral(self, rounding: Rounding) -> Option<Self>;
}

macro_rules! host {
    ($format:ident, $float:ty, $bits:ty, $fraction:literal) => {
        impl Host for $format {
            type Float = $float;
            #[inline(always)]
            fn host(self) -> $float {
                <$float>::from_bits(self.0)
            }
            #[inline(always)]
            fn of(x: $float) -> $format {
                $format(x.to_bits())
            }
            #[inline(always)]
            fn is_plain(self) -> bool {
                let exponent = self.0 << 1 >> ($fraction + 1);
                (exponent.wrapping_sub(1) < (1 << (<$bits>::BITS - 1 - $fraction)) - 2) | (self.0 << 1 == 0)
            }
            #[inline(always)]
            fn is_quiet_result(self, x: $format, y: $format, zero: Zero) -> bool {
                let exponent = self.0 << 1 >> ($fraction + 1);
                let from_zero = (x.0 << 1 == 0) | (y.0 << 1 == 0) | (zero == Zero::Exact);
                (exponent.wrapping_sub(2) < (1 << (<$bits>::BITS - 1 - $fraction)) - 3) | (self.0 << 1 == 0) & from_zero
            }
            #[inline(always)]
            fn sum(x: $float, y: $float) -> $float {
                x + y
            }
            #[inline(always)]
            fn difference(x: $float, y: $float) -> $float {
                x - y
            }
            #[inline(always)]
            fn product(x: $float, y: $float) -> $float {
                x * y
            }
            #[inline(always)]
            fn quotient(x: $float, y: $float) -> $float {
                x / y
            }
            #[inline(always)]
            fn root(x: $float) -> $float {
                x.sqrt()
            }
            #[inline(always)]
            fn integral(self, rounding: Rounding) -> Option<$format> {
                let x = self.host();
                if !self.is_plain() {
                    return None;
                }
                Some($format::of(match rounding {
                    Rounding::Nearest => x.round_ties_even(),
                    Rounding::Down => x.floor(),
                    Rounding::Up => x.ceil(),
                    Rounding::Zero => x.trunc(),
                }))
            }
        }
    };
}
host!(F32, f32, u32, 23);
host!(F64, f64, u64, 52);

/// MXCSR during one instruction, and the exceptions found so far. Cheap to make; [`Self::exactly`] makes the environment
/// that `softfloat` wants.
#[derive(Copy, Clone, Debug)]
pub struct Unit {
    control: u32,
    /// Exceptions found since this was made.
    pub flags: Flags,
}

/// PE is masked and already recorded.
const INEXACT_KNOWN: u32 = 0x1020;
/// The rounding field of MXCSR.
const ROUNDING: u32 = 0x6000;

impl Unit {
    /// With nothing found yet.
    #[inline(always)]
    pub const fn new(mxcsr: u32) -> Unit {
        Unit { control: mxcsr, flags: Flags::NONE }
    }
    /// The same under another rounding mode.
    #[inline(always)]
    pub const fn with_rounding(self, rounding: Rounding) -> Unit {
        Unit { control: self.control & !ROUNDING | (rounding as u32) << 13, ..self }
    }
    /// The same where an inexact result needs no attention.
    #[inline(always)]
    pub const fn with_inexact_known(self) -> Unit {
        Unit { control: self.control | INEXACT_KNOWN, ..self }
    }
    /// The rounding mode.
    #[inline(always)]
    pub fn rounding(&self) -> Rounding {
        Rounding::from_field(self.control >> 13)
    }
    /// Whether finding an inexact result again may be skipped.
    #[inline(always)]
    fn inexact_known(&self) -> bool {
        self.control & INEXACT_KNOWN == INEXACT_KNOWN
    }
    /// Whether an inexact result needs no attention and is rounded as the host rounds.
    #[inline(always)]
    fn host_rounds(&self) -> bool {
        self.control & (INEXACT_KNOWN | ROUNDING) == INEXACT_KNOWN
    }
    /// Adds to what was found.
    #[inline(always)]
    pub fn raise(&mut self, flags: Flags) {
        self.flags = self.flags.or(flags);
    }
    /// Computes with `softfloat`.
    #[cold]
    #[inline(never)]
    pub fn exactly<R>(&mut self, f: impl FnOnce(&mut Env) -> R) -> R {
        let mut env = Env::sse(self.control);
        env.flags = self.flags;
        let result = f(&mut env);
        self.flags = env.flags;
        result
    }
    /// What to record in MXCSR, and which of that is not masked.
    pub fn outcome(&self) -> (Flags, Flags) {
        let mut env = Env::sse(self.control);
        env.flags = self.flags;
        (env.status(), env.unmasked())
    }
}

/// Declares an operation on one number and on all lanes: by the host (`None` if it may differ), and in any case.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident, $quick:ident, $quick_packed:ident = $host:ident, $zero:ident;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $quick<F: Host>(x: F, y: F, unit: Unit) -> Option<F> {
            let result = F::of(F::$host(x.host(), y.host()));
            let quiet = x.is_plain() & y.is_plain() & result.is_quiet_result(x, y, Zero::$zero);
            (unit.host_rounds() && quiet).then_some(result)
        }

        $(#[$doc])*
        #[inline(always)]
        pub fn $quick_packed<F: Host>(a: u128, b: u128, unit: Unit) -> Option<u128> {
            let mut quiet = unit.host_rounds();
            let result = F::zip(a, b, |x, y| {
                let result = F::of(F::$host(x.host(), y.host()));
                quiet &= x.is_plain() & y.is_plain() & result.is_quiet_result(x, y, Zero::$zero);
                result
            });
            quiet.then_some(result)
        }

        $(#[$doc])*
        #[inline(always)]
        pub fn $name<F: Host>(x: F, y: F, unit: &mut Unit) -> F {
            match $quick(x, y, *unit) {
                Some(result) => result,
                None => unit.exactly(|env| soft::$name(x, y, env)),
            }
        }
    )*};
}
operations! {
    /// Addition.
    add, quick_add, quick_add_packed = sum, Exact;
    /// Subtraction.
    sub, quick_sub, quick_sub_packed = difference, Exact;
    /// Multiplication.
    mul, quick_mul, quick_mul_packed = product, FromZero;
    /// Division.
    div, quick_div, quick_div_packed = quotient, FromZero;
}

/// Declares MINPS and MAXPS.
macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident, $quick:ident, $quick_packed:ident = $x:ident, $y:ident, $first:expr;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $quick<F: Host>(x: F, y: F, _unit: Unit) -> Option<F> {
            let ($x, $y) = (x.host(), y.host());
            (x.is_plain() & y.is_plain()).then_some(if $first { x } else { y })
        }

        $(#[$doc])*
        #[inline(always)]
        pub fn $quick_packed<F: Host>(a: u128, b: u128, _unit: Unit) -> Option<u128> {
            let mut plain = true;
            let result = F::zip(a, b, |x, y| {
                plain &= x.is_plain() & y.is_plain();
                let ($x, $y) = (x.host(), y.host());
                if $first { x } else { y }
            });
            plain.then_some(result)
        }

        $(#[$doc])*
        #[inline(always)]
        pub fn $name<F: Host>(x: F, y: F, unit: &mut Unit) -> F {
            match $quick(x, y, *unit) {
                Some(result) => result,
                None => unit.exactly(|env| soft::$name(x, y, env)),
            }
        }
    )*};
}
choices! {
    /// The lesser, the second if they are equal.
    min, quick_min, quick_min_packed = x, y, x < y;
    /// The greater, the second if they are equal.
    max, quick_max, quick_max_packed = x, y, x > y;
}

/// Square root.
#[inline(always)]
pub fn sqrt<F: Host>(x: F, unit: &mut Unit) -> F {
    if unit.host_rounds() && x.is_plain() && !x.sign() {
        return F::of(F::root(x.host()));
    }
    unit.exactly(|env| soft::sqrt(x, env))
}

/// Comparison.
#[inline(always)]
pub fn compare<F: Host>(x: F, y: F, comparison: Comparison, unit: &mut Unit) -> Relation {
    if x.is_plain() & y.is_plain() {
        return match x.host().partial_cmp(&y.host()) {
            Some(Ordering::Less) => Relation::Less,
            Some(Ordering::Equal) => Relation::Equal,
            Some(Ordering::Greater) => Relation::Greater,
            None => Relation::Unordered,
        };
    }
    unit.exactly(|env| soft::compare(x, y, comparison, env))
}

/// Rounding to an integral value in the mode of `env`.
#[inline(always)]
pub fn round_to_integer<F: Host>(x: F, unit: &mut Unit) -> F {
    match x.integral(unit.rounding()) {
        Some(result) if unit.inexact_known() || result == x => result,
        _ => unit.exactly(|env| soft::round_to_integer(x, env)),
    }
}

/// A single as a double: exact.
#[inline(always)]
pub fn widen(x: F32, unit: &mut Unit) -> F64 {
    if x.is_plain() { F64::of(f64::from(x.host())) } else { unit.exactly(|env| soft::convert(x, env)) }
}

/// A double as a single.
#[inline(always)]
pub fn narrow(x: F64, unit: &mut Unit) -> F32 {
    if unit.host_rounds() && x.is_plain() {
        let result = F32::of(x.host() as f32);
        if result.is_quiet_result(result, result, Zero::Exact) && (!result.is_zero() || x.is_zero()) {
            return result;
        }
    }
    unit.exactly(|env| soft::convert(x, env))
}

/// An integer as a single.
#[inline(always)]
pub fn single_of(x: i64, unit: &mut Unit) -> F32 {
    if unit.host_rounds() || x.unsigned_abs() <= 1 << 24 {
        return F32::of(x as f32);
    }
    unit.exactly(|env| soft::from_i64(x, env))
}

/// An integer as a double.
#[inline(always)]
pub fn double_of(x: i64, unit: &mut Unit) -> F64 {
    if unit.host_rounds() || x.unsigned_abs() <= 1 << 53 {
        return F64::of(x as f64);
    }
    unit.exactly(|env| soft::from_i64(x, env))
}

/// A number as a 32-bit integer, in the rounding mode of `env`.
#[inline(always)]
pub fn dword_of(x: f64, unit: &Unit) -> Option<i32> {
    let result = match unit.rounding() {
        Rounding::Zero => x as i32,
        Rounding::Nearest => x.round_ties_even() as i32,
        _ => return None,
    };
    let fits = x.abs() < 2_147_483_647.0 && (f64::from(result) == x || unit.inexact_known());
    fits.then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that is interesting, and some that is not.
    fn numbers() -> Vec<u32> {
        let mut all = vec![0, 1, 0x007f_ffff, 0x0080_0000, 0x0080_0001, 0x0100_0000, 0x3f80_0000, 0x3f80_0001];
        all.extend([
            0x4b80_0000,
            0x4b80_0001,
            0x7f7f_ffff,
            0x7f00_0000,
            0x7f80_0000,
            0x7f80_0001,
            0x7fc0_0000,
            0x1f80_0003,
        ]);
        let mut seed = 12345u32;
        for _ in 0..40 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            all.push(seed);
        }
        all.iter().flat_map(|x| [*x, *x ^ 0x8000_0000]).collect()
    }

    #[test]
    fn the_host_gives_what_softfloat_gives() {
        for mxcsr in [0x1f80, 0x1fa0, 0x1fe0, 0x9fa0, 0x3fa0, 0x5fa0, 0x7fa0] {
            for x in numbers() {
                for y in numbers() {
                    let (x, y) = (F32(x), F32(y));
                    let mut pairs: Vec<(F32, F32, Flags, Flags)> = Vec::new();
                    macro_rules! both {
                        ($($name:ident)*) => {$({
                            let (mut ours, mut theirs) = (Unit::new(mxcsr), Env::sse(mxcsr));
                            let (a, b) = ($name(x, y, &mut ours), soft::$name(x, y, &mut theirs));
                            pairs.push((a, b, ours.flags, theirs.flags));
                        })*};
                    }
                    both!(add sub mul div min max);
                    for (n, (a, b, ours, theirs)) in pairs.iter().enumerate() {
                        let recorded = |flags: &Flags| u32::from(flags.0) | mxcsr;
                        assert_eq!((a, recorded(ours)), (b, recorded(theirs)), "{n} {x:x?} {y:x?} {mxcsr:x}");
                    }
                }
            }
        }
    }

    #[test]
    fn conversions_agree() {
        for mxcsr in [0x1f80, 0x1fa0, 0x3fa0, 0x7fa0, 0x9fe0] {
            for x in numbers() {
                let wide = F64(u64::from(x) << 32 | u64::from(x).rotate_left(7) & 0xffff_ffff);
                let (mut ours, mut theirs) = (Unit::new(mxcsr), Env::sse(mxcsr));
                assert_eq!(widen(F32(x), &mut ours), soft::convert::<F32, F64>(F32(x), &mut theirs));
                assert_eq!(
                    narrow(wide, &mut ours),
                    soft::convert::<F64, F32>(wide, &mut theirs),
                    "{wide:x?} {mxcsr:x}"
                );
                let integer = (wide.0 as i64) >> (x & 63);
                assert_eq!(single_of(integer, &mut ours), soft::from_i64::<F32>(integer, &mut theirs));
                assert_eq!(double_of(integer, &mut ours), soft::from_i64::<F64>(integer, &mut theirs));
                assert_eq!(round_to_integer(F32(x), &mut ours), soft::round_to_integer(F32(x), &mut theirs), "{x:x}");
                assert_eq!(sqrt(F32(x), &mut ours), soft::sqrt(F32(x), &mut theirs), "{x:x}");
                if let Some(integer) = dword_of(f64::from(f32::from_bits(x)), &ours) {
                    assert_eq!(integer, soft::to_i32(F32(x), &mut theirs), "{x:x}");
                }
                assert_eq!(u32::from(ours.flags.0) | mxcsr, u32::from(theirs.flags.0) | mxcsr, "{x:x} {mxcsr:x}");
            }
        }
    }
}
