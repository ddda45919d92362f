//! SSE floating-point arithmetic and comparison (SDM vol. 1, 10.4.1, 11.4.1, 12.3, 12.10.1; vol. 2).
//!
//! Arithmetic and its exceptions are `softfloat`'s, which uses the host's where that cannot be told apart.
//! RCP and RSQRT have one portable definition here: the correctly rounded single, rounded again to 12 fraction bits
//! (relative error below 2^-12.9; the manual allows 1.5 × 2^-12).

use super::integer::horizontal;
use super::lanes::{join, low, map, split, with_low32, with_low64, zip};
use super::native::{self, Host, Unit};
use super::{Direct, direct, finish, float_forms, integer_forms, quick_forms, set_status, unit, xmm};
use crate::helpers::Flow;
use crate::softfloat::{Comparison, F32, F64, Flags, Format, Relation, Rounding};
use crate::state::flags;

/// Declares packed and scalar forms of two-operand arithmetic.
macro_rules! arithmetic {
    ($($function:ident $quick:ident $packed:ident: $ps:ident $pd:ident $ss:ident $sd:ident;)*) => {
        quick_forms! {$(
            #[doc = concat!("Packed single ", stringify!($function), ".")]
            $ps = |a, b, unit| native::$packed::<F32>(a, b, unit),
                |env| zip(a, b, |x: F32, y| native::$function(x, y, env));
            #[doc = concat!("Packed double ", stringify!($function), ".")]
            $pd = |a, b, unit| native::$packed::<F64>(a, b, unit),
                |env| zip(a, b, |x: F64, y| native::$function(x, y, env));
            #[doc = concat!("Scalar single ", stringify!($function), ".")]
            $ss = |a, b, unit| native::$quick(F32(a as u32), F32(b as u32), unit).map(|x| with_low32(a, x.0)),
                |env| with_low32(a, native::$function(F32(a as u32), F32(b as u32), env).0);
            #[doc = concat!("Scalar double ", stringify!($function), ".")]
            $sd = |a, b, unit| native::$quick(F64(low(a)), F64(low(b)), unit).map(|x| with_low64(a, x.0)),
                |env| with_low64(a, native::$function(F64(low(a)), F64(low(b)), env).0);
        )*}
    };
}
arithmetic! {
    add quick_add quick_add_packed: ADDPS ADDPD ADDSS ADDSD;
    sub quick_sub quick_sub_packed: SUBPS SUBPD SUBSS SUBSD;
    mul quick_mul quick_mul_packed: MULPS MULPD MULSS MULSD;
    div quick_div quick_div_packed: DIVPS DIVPD DIVSS DIVSD;
    min quick_min quick_min_packed: MINPS MINPD MINSS MINSD;
    max quick_max quick_max_packed: MAXPS MAXPD MAXSS MAXSD;
}

float_forms! {
    /// SQRTPS.
    SQRTPS = |_, b, _, env| map(b, |x: F32| native::sqrt(x, env));
    /// SQRTPD.
    SQRTPD = |_, b, _, env| map(b, |x: F64| native::sqrt(x, env));
    /// SQRTSS.
    SQRTSS = |a, b, _, env| with_low32(a, native::sqrt(F32(b as u32), env).0);
    /// SQRTSD.
    SQRTSD = |a, b, _, env| with_low64(a, native::sqrt(F64(low(b)), env).0);
    /// CMPPS.
    CMPPS = |a, b, imm, env| zip(a, b, |x: F32, y| F32(if holds(x, y, imm, env) { u32::MAX } else { 0 }));
    /// CMPPD.
    CMPPD = |a, b, imm, env| zip(a, b, |x: F64, y| F64(if holds(x, y, imm, env) { u64::MAX } else { 0 }));
    /// CMPSS.
    CMPSS = |a, b, imm, env| {
        with_low32(a, if holds(F32(a as u32), F32(b as u32), imm, env) { u32::MAX } else { 0 })
    };
    /// CMPSD.
    CMPSD = |a, b, imm, env| {
        with_low64(a, if holds(F64(low(a)), F64(low(b)), imm, env) { u64::MAX } else { 0 })
    };
    /// ROUNDPS.
    ROUNDPS = |_, b, imm, env| map(b, |x: F32| round(x, imm, env));
    /// ROUNDPD.
    ROUNDPD = |_, b, imm, env| map(b, |x: F64| round(x, imm, env));
    /// ROUNDSS.
    ROUNDSS = |a, b, imm, env| with_low32(a, round(F32(b as u32), imm, env).0);
    /// ROUNDSD.
    ROUNDSD = |a, b, imm, env| with_low64(a, round(F64(low(b)), imm, env).0);
    /// HADDPS.
    HADDPS = |a, b, _, env| horizontal(a, b, |x: F32, y| native::add(x, y, env));
    /// HADDPD.
    HADDPD = |a, b, _, env| horizontal(a, b, |x: F64, y| native::add(x, y, env));
    /// HSUBPS.
    HSUBPS = |a, b, _, env| horizontal(a, b, |x: F32, y| native::sub(x, y, env));
    /// HSUBPD.
    HSUBPD = |a, b, _, env| horizontal(a, b, |x: F64, y| native::sub(x, y, env));
    /// ADDSUBPS: subtracts in even lanes, adds in odd ones.
    ADDSUBPS = |a, b, _, env| {
        let mut odd = true;
        zip(a, b, |x: F32, y| {
            odd = !odd;
            if odd { native::add(x, y, env) } else { native::sub(x, y, env) }
        })
    };
    /// ADDSUBPD.
    ADDSUBPD = |a, b, _, env| {
        let mut odd = true;
        zip(a, b, |x: F64, y| {
            odd = !odd;
            if odd { native::add(x, y, env) } else { native::sub(x, y, env) }
        })
    };
    /// DPPS.
    DPPS = |a, b, imm, env| {
        let (x, y) = (split::<F32>(a), split::<F32>(b));
        let mut product = |i: usize| if imm >> (4 + i) & 1 != 0 { native::mul(x[i], y[i], env) } else { F32(0) };
        let p = [product(0), product(1), product(2), product(3)];
        let (first, second) = (native::add(p[0], p[1], env), native::add(p[2], p[3], env));
        let sum = native::add(first, second, env);
        join::<F32>(std::array::from_fn(|i| if imm >> i & 1 != 0 { sum } else { F32(0) }))
    };
    /// DPPD.
    DPPD = |a, b, imm, env| {
        let (x, y) = (split::<F64>(a), split::<F64>(b));
        let mut product = |i: usize| if imm >> (4 + i) & 1 != 0 { native::mul(x[i], y[i], env) } else { F64(0) };
        let (first, second) = (product(0), product(1));
        let sum = native::add(first, second, env);
        join::<F64>(std::array::from_fn(|i| if imm >> i & 1 != 0 { sum } else { F64(0) }))
    };
}

integer_forms! {
    /// RCPPS.
    RCPPS = |_, b, _| map(b, reciprocal);
    /// RCPSS.
    RCPSS = |a, b, _| with_low32(a, reciprocal(F32(b as u32)).0);
    /// RSQRTPS.
    RSQRTPS = |_, b, _| map(b, reciprocal_root);
    /// RSQRTSS.
    RSQRTSS = |a, b, _| with_low32(a, reciprocal_root(F32(b as u32)).0);
}

/// Which relations make predicate 0–15 of CMPPS true: bit 0 less, 1 equal, 2 greater, 3 unordered (SDM vol. 2, table 3-1).
const PREDICATES: [u8; 16] = [2, 1, 3, 8, 13, 14, 12, 7, 10, 9, 11, 0, 5, 6, 4, 15];

/// Whether predicate `imm` (0–31) holds.
fn holds<F: Host>(a: F, b: F, imm: u8, env: &mut Unit) -> bool {
    let signaling = 0x6666u16 >> (imm & 15) & 1 != u16::from(imm >> 4 & 1);
    let comparison = if signaling { Comparison::Signaling } else { Comparison::Quiet };
    let bit = match native::compare(a, b, comparison, env) {
        Relation::Less => 0,
        Relation::Equal => 1,
        Relation::Greater => 2,
        Relation::Unordered => 3,
    };
    PREDICATES[(imm & 15) as usize] >> bit & 1 != 0
}

/// ROUNDPS and its kin: rounding mode in bits 1–0 or (bit 2) from MXCSR; bit 3 hides the precision exception.
fn round<F: Host>(x: F, imm: u8, env: &mut Unit) -> F {
    let mut inner = if imm & 4 == 0 { env.with_rounding(Rounding::from_field(u32::from(imm))) } else { *env };
    if imm & 8 != 0 {
        inner = inner.with_inexact_known();
    }
    let result = native::round_to_integer(x, &mut inner);
    env.raise(if imm & 8 != 0 { inner.flags.without(Flags::PRECISION).or(env.flags) } else { inner.flags });
    result
}

/// Rounds a single to 12 fraction bits, to nearest (half away from zero).
fn coarse(x: f32) -> F32 {
    F32((x.to_bits() + (1 << 10)) & !0x7ff)
}

/// RCPSS of one number. Denormals count as zeros; tiny results become zero.
fn reciprocal(x: F32) -> F32 {
    if x.is_nan() {
        return x.quieted();
    }
    if x.exponent() == 0 {
        return F32::infinity(x.sign());
    }
    let result = 1.0 / f32::from_bits(x.0);
    if result.is_normal() { coarse(result) } else { F32::zero(x.sign()) }
}

/// RSQRTSS of one number.
fn reciprocal_root(x: F32) -> F32 {
    if x.is_nan() {
        return x.quieted();
    }
    if x.exponent() == 0 {
        return F32::infinity(x.sign());
    }
    if x.sign() {
        return F32::indefinite();
    }
    if x.is_infinite() {
        return F32(0);
    }
    coarse((1.0 / f64::from(f32::from_bits(x.0)).sqrt()) as f32)
}

/// Declares COMISS-like helpers: flags from the low numbers of `a` and `b`.
macro_rules! comparisons {
    ($($(#[$doc:meta])* $name:ident = $comparison:ident, |$x:ident| $number:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: Direct = direct!(stringify!($name), |cpu, args| {
                let number = |$x: u128| $number;
                let mut unit = unit(cpu);
                let relation = native::compare(number(xmm(cpu, args.a)), number(xmm(cpu, args.b)), Comparison::$comparison, &mut unit);
                finish(cpu, &unit)?;
                set_status(cpu, match relation {
                    Relation::Less => flags::CF,
                    Relation::Equal => flags::ZF,
                    Relation::Greater => 0,
                    Relation::Unordered => flags::CF | flags::PF | flags::ZF,
                });
                Ok(Flow::Next)
            });
    )*};
}
comparisons! {
    /// COMISS.
    COMISS = Signaling, |x| F32(x as u32);
    /// COMISD.
    COMISD = Signaling, |x| F64(low(x));
    /// UCOMISS.
    UCOMISS = Quiet, |x| F32(x as u32);
    /// UCOMISD.
    UCOMISD = Quiet, |x| F64(low(x));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approximations_are_close_enough() {
        let allowed = 1.5 / 4096.0;
        for bits in (0x0080_0000u32..0x7e80_0000).step_by(99_991) {
            let x = f64::from(f32::from_bits(bits));
            let rcp = f64::from(f32::from_bits(reciprocal(F32(bits)).0));
            let root = f64::from(f32::from_bits(reciprocal_root(F32(bits)).0));
            assert!((rcp * x - 1.0).abs() <= allowed, "1/{x:e} = {rcp:e}");
            assert!((root * x.sqrt() - 1.0).abs() <= allowed, "1/sqrt {x:e} = {root:e}");
        }
        assert_eq!(reciprocal(F32(0x8000_0001)), F32(0xff80_0000));
        assert_eq!(reciprocal_root(F32(0xbf80_0000)), F32(0xffc0_0000));
        assert_eq!(reciprocal(F32(0x3f80_0000)), F32(0x3f80_0000));
    }

    #[test]
    fn predicates() {
        let (one, two, nan) = (F32(0x3f80_0000), F32(0x4000_0000), F32(0x7fc0_0000));
        // predicate, (1, 2), (1, 1), (2, 1), (1, NaN), NaN is invalid
        let rows = [
            (0, false, true, false, false, false),
            (1, true, false, false, false, true),
            (5, false, true, true, true, true),
            (7, true, true, true, false, false),
            (0x11, true, false, false, false, false),
            (0x1e, false, false, true, false, false),
            (0x1f, true, true, true, true, true),
        ];
        for (imm, less, equal, greater, unordered, invalid) in rows {
            let mut env = Unit::new(0x1f80);
            assert_eq!(holds(one, two, imm, &mut env), less, "{imm:#x}");
            assert_eq!(holds(one, one, imm, &mut env), equal, "{imm:#x}");
            assert_eq!(holds(two, one, imm, &mut env), greater, "{imm:#x}");
            assert_eq!(env.flags, Flags::NONE);
            assert_eq!(holds(one, nan, imm, &mut env), unordered, "{imm:#x}");
            assert_eq!(env.flags == Flags::INVALID, invalid, "{imm:#x}");
        }
    }
}
