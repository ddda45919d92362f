//! Conversions between integers and floating-point numbers, and between formats (SDM vol. 1, 11.4.1.6; vol. 2, CVT*).

use super::lanes::{high, join, low, map, pair, split, with_low32, with_low64};
use super::native::{self, Unit};
use super::{Direct, direct, finish, float_forms, general_or_temporary, set_xmm, set_xmm_zeroing, unit, xmm, ymm};
use crate::helpers::Flow;
use crate::softfloat::{self as soft, F32, F64, Rounding};
use crate::uop::Width;

float_forms! {
    /// CVTDQ2PS.
    CVTDQ2PS = |_, b, _, env| map(b, |x: u32| native::single_of(i64::from(x as i32), env).0);
    /// CVTPS2DQ.
    CVTPS2DQ = |_, b, _, env| map(b, |x: i32| dword_of_single(F32(x as u32), env));
    /// CVTTPS2DQ.
    CVTTPS2DQ = |_, b, _, env| truncating(env, |env| map(b, |x: i32| dword_of_single(F32(x as u32), env)));
    /// CVTDQ2PD.
    CVTDQ2PD = |_, b, _, _env| pair(double(b as i32), double((b >> 32) as i32));
    /// CVTPD2DQ, CVTPD2PI.
    CVTPD2DQ = |_, b, _, env| doubles_to_dwords(b, env);
    /// CVTTPD2DQ, CVTTPD2PI.
    CVTTPD2DQ = |_, b, _, env| truncating(env, |env| doubles_to_dwords(b, env));
    /// CVTPS2PI.
    CVTPS2PI = |_, b, _, env| singles_to_dwords(b, env);
    /// CVTTPS2PI.
    CVTTPS2PI = |_, b, _, env| truncating(env, |env| singles_to_dwords(b, env));
    /// CVTPS2PD.
    CVTPS2PD = |_, b, _, env| pair(widen(b as u32, env), widen((b >> 32) as u32, env));
    /// CVTPD2PS.
    CVTPD2PS = |_, b, _, env| doubles_to_singles(b, env);
    /// CVTSS2SD.
    CVTSS2SD = |a, b, _, env| with_low64(a, widen(b as u32, env));
    /// CVTSD2SS.
    CVTSD2SS = |a, b, _, env| with_low32(a, narrow(low(b), env));
}

/// Runs `f` with rounding toward zero.
#[inline(always)]
fn truncating<R>(env: &mut Unit, f: impl FnOnce(&mut Unit) -> R) -> R {
    let mut inner = env.with_rounding(Rounding::Zero);
    let result = f(&mut inner);
    env.raise(inner.flags);
    result
}

fn double(x: i32) -> u64 {
    f64::from(x).to_bits()
}

fn widen(x: u32, env: &mut Unit) -> u64 {
    native::widen(F32(x), env).0
}

fn narrow(x: u64, env: &mut Unit) -> u32 {
    native::narrow(F64(x), env).0
}

/// A single as a 32-bit integer.
fn dword_of_single(x: F32, env: &mut Unit) -> i32 {
    match native::dword_of(f64::from(f32::from_bits(x.0)), env) {
        Some(integer) => integer,
        None => env.exactly(|env| soft::to_i32(x, env)),
    }
}

/// A double as a 32-bit integer.
fn dword_of_double(x: F64, env: &mut Unit) -> i32 {
    match native::dword_of(f64::from_bits(x.0), env) {
        Some(integer) => integer,
        None => env.exactly(|env| soft::to_i32(x, env)),
    }
}

fn doubles_to_dwords(x: u128, env: &mut Unit) -> u128 {
    let first = dword_of_double(F64(low(x)), env);
    let second = dword_of_double(F64(high(x)), env);
    join::<i32>([first, second, 0, 0])
}

fn doubles_to_singles(x: u128, env: &mut Unit) -> u128 {
    let first = narrow(low(x), env);
    let second = narrow(high(x), env);
    join::<u32>([first, second, 0, 0])
}

fn singles_to_dwords(x: u128, env: &mut Unit) -> u128 {
    let x = split::<u32>(x);
    let first = dword_of_single(F32(x[0]), env);
    let second = dword_of_single(F32(x[1]), env);
    join::<i32>([first, second, 0, 0])
}

/// A double that is exactly an integer of 32 bits, as most are that programs convert.
#[inline(always)]
fn exact_i32(x: f64) -> Option<i32> {
    let integer = x as i32;
    (f64::from(integer) == x && integer != i32::MIN).then_some(integer)
}

/// Declares helpers that convert the low number of vector register `b` to general register `a` of `width`.
macro_rules! to_integer {
    ($($(#[$doc:meta])* $name:ident = |$x:ident| $number:expr, $host:expr, $truncate:literal;)*) => {$(
        $(#[$doc])*
        pub static $name: Direct = direct!(stringify!($name), |cpu, args| {
                let $x = low(xmm(cpu, args.b));
                if let Some(integer) = exact_i32($host) {
                    cpu.state.set_gpr(args.a, i64::from(integer) as u64 & args.width.mask());
                    return Ok(Flow::Next);
                }
                let mut unit = unit(cpu);
                if $truncate {
                    unit = unit.with_rounding(Rounding::Zero);
                }
                if let Some(integer) = native::dword_of($host, &unit) {
                    cpu.state.set_gpr(args.a, i64::from(integer) as u64 & args.width.mask());
                    return Ok(Flow::Next);
                }
                let result = match args.width {
                    Width::B8 => unit.exactly(|env| soft::to_i64($number, env)) as u64,
                    _ => u64::from(unit.exactly(|env| soft::to_i32($number, env)) as u32),
                };
                finish(cpu, &unit)?;
                cpu.state.set_gpr(args.a, result);
                Ok(Flow::Next)
            });
    )*};
}
to_integer! {
    /// CVTSS2SI.
    CVTSS2SI = |x| F32(x as u32), f64::from(f32::from_bits(x as u32)), false;
    /// CVTTSS2SI.
    CVTTSS2SI = |x| F32(x as u32), f64::from(f32::from_bits(x as u32)), true;
    /// CVTSD2SI.
    CVTSD2SI = |x| F64(x), f64::from_bits(x), false;
    /// CVTTSD2SI.
    CVTTSD2SI = |x| F64(x), f64::from_bits(x), true;
}

/// Declares helpers that convert general register (or temporary) of `width` to the low number of `a`.
macro_rules! from_integer {
    ($($(#[$doc:meta])* $name:ident, $vex:ident = |$old:ident, $value:ident, $env:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: Direct = direct!(stringify!($name), |cpu, args| {
                let mut unit = unit(cpu);
                let $value = integer(general_or_temporary(cpu, args.b), args.width);
                let ($old, $env) = (xmm(cpu, args.a), &mut unit);
                let result = $body;
                finish(cpu, &unit)?;
                set_xmm(cpu, args.a, result);
                Ok(Flow::Next)
            });
        $(#[$doc])*
        /// VEX form: the rest of the register comes from `b`, the integer from `c`.
        pub static $vex: Direct = direct!(stringify!($vex), |cpu, args| {
                let mut unit = unit(cpu);
                let $value = integer(general_or_temporary(cpu, args.c), args.width);
                let ($old, $env) = (xmm(cpu, args.b), &mut unit);
                let result = $body;
                finish(cpu, &unit)?;
                set_xmm_zeroing(cpu, args.a, result);
                Ok(Flow::Next)
            });
    )*};
}
from_integer! {
    /// CVTSI2SS.
    CVTSI2SS, VCVTSI2SS = |old, value, env| with_low32(old, native::single_of(value, env).0);
    /// CVTSI2SD.
    CVTSI2SD, VCVTSI2SD = |old, value, env| with_low64(old, native::double_of(value, env).0);
}

/// The signed integer in the low `width` of `x`.
fn integer(x: u64, width: Width) -> i64 {
    match width {
        Width::B8 => x as i64,
        _ => i64::from(x as i32),
    }
}

/// Declares VEX.256 conversions whose halves have different sizes.
macro_rules! wide {
    ($($(#[$doc:meta])* $name:ident = |$x:ident, $env:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: Direct = direct!(stringify!($name), |cpu, args| {
                let mut unit = unit(cpu);
                let $x = ymm(cpu, args.b);
                let $env = &mut unit;
                let result: [u128; 2] = $body;
                finish(cpu, &unit)?;
                super::set_ymm(cpu, args.a, result);
                Ok(Flow::Next)
            });
    )*};
}
wide! {
    /// VCVTDQ2PD ymm, xmm.
    CVTDQ2PD_YMM = |x, _env| {
        let d = split::<i32>(x[0]);
        [pair(double(d[0]), double(d[1])), pair(double(d[2]), double(d[3]))]
    };
    /// VCVTPS2PD ymm, xmm.
    CVTPS2PD_YMM = |x, env| {
        let s = split::<u32>(x[0]);
        let first = pair(widen(s[0], env), widen(s[1], env));
        [first, pair(widen(s[2], env), widen(s[3], env))]
    };
    /// VCVTPD2PS xmm, ymm.
    CVTPD2PS_YMM = |x, env| {
        let first = doubles_to_singles(x[0], env);
        [first | doubles_to_singles(x[1], env) << 64, 0]
    };
    /// VCVTPD2DQ xmm, ymm.
    CVTPD2DQ_YMM = |x, env| {
        let first = doubles_to_dwords(x[0], env);
        [first | doubles_to_dwords(x[1], env) << 64, 0]
    };
    /// VCVTTPD2DQ xmm, ymm.
    CVTTPD2DQ_YMM = |x, env| truncating(env, |env| {
        let first = doubles_to_dwords(x[0], env);
        [first | doubles_to_dwords(x[1], env) << 64, 0]
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_integers_take_the_short_way() {
        for (x, integer) in [(0.0, Some(0)), (-7.0, Some(-7)), (0.5, None), (f64::NAN, None), (2147483648.0, None)] {
            assert_eq!(exact_i32(x), integer, "{x}");
        }
        assert_eq!(exact_i32(-0.0), Some(0));
        assert_eq!(integer(0xffff_ffff, Width::B4), -1);
    }
}
