//! F32 and F64 against the host's arithmetic.

use super::super::*;
use super::Random;

const CASES: usize = 1_000_000;
const DEFAULT: u32 = 0x1f80;

fn same32(soft: F32, host: f32) -> bool {
    soft.0 == host.to_bits() || soft.is_nan() && host.is_nan()
}

fn same64(soft: F64, host: f64) -> bool {
    soft.0 == host.to_bits() || soft.is_nan() && host.is_nan()
}

/// A binary operation three times: exactly, natively where allowed, and on the host.
macro_rules! against_host {
    ($($test:ident: $soft:ident, $op:tt;)*) => {$(
        #[test]
        fn $test() {
            let mut random = Random(1);
            for _ in 0..CASES {
                let (a, b) = (random.single(), random.single());
                let host = f32::from_bits(a) $op f32::from_bits(b);
                for mxcsr in [DEFAULT, DEFAULT | 0x20] {
                    let soft = $soft(F32(a), F32(b), &mut Env::sse(mxcsr));
                    assert!(same32(soft, host), "{a:08x} {b:08x}: {soft:x?}, host {:08x}", host.to_bits());
                }
            }
            for _ in 0..CASES {
                let (a, b) = (random.double(), random.double());
                let host = f64::from_bits(a) $op f64::from_bits(b);
                for mxcsr in [DEFAULT, DEFAULT | 0x20] {
                    let soft = $soft(F64(a), F64(b), &mut Env::sse(mxcsr));
                    assert!(same64(soft, host), "{a:016x} {b:016x}: {soft:x?}, host {:016x}", host.to_bits());
                }
            }
        }
    )*};
}

against_host! {
    add_matches_host: add, +;
    sub_matches_host: sub, -;
    mul_matches_host: mul, *;
}

#[test]
fn div_and_sqrt_match_host() {
    let mut random = Random(2);
    for _ in 0..CASES {
        let (a, b) = (random.single(), random.single());
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        for mxcsr in [DEFAULT, DEFAULT | 0x20] {
            let mut env = Env::sse(mxcsr);
            assert!(same32(div(F32(a), F32(b), &mut env), x / y), "{x:e} / {y:e}");
            assert!(same32(sqrt(F32(a), &mut env), x.sqrt()), "sqrt {x:e}");
        }
        let (a, b) = (random.double(), random.double());
        let (x, y) = (f64::from_bits(a), f64::from_bits(b));
        for mxcsr in [DEFAULT, DEFAULT | 0x20] {
            let mut env = Env::sse(mxcsr);
            assert!(same64(div(F64(a), F64(b), &mut env), x / y), "{x:e} / {y:e}");
            assert!(same64(sqrt(F64(a), &mut env), x.sqrt()), "sqrt {x:e}");
        }
    }
}

#[test]
fn fma_matches_host() {
    let mut random = Random(3);
    for case in 0..CASES {
        let (a, b, mut c) = (random.double(), random.double(), random.double());
        let (x, y) = (f64::from_bits(a), f64::from_bits(b));
        if case % 3 == 0 {
            // Cancellation.
            c = (-(x * y)).to_bits() ^ random.below(4);
        }
        let host = x.mul_add(y, f64::from_bits(c));
        let soft = fma(F64(a), F64(b), F64(c), &mut Env::sse(DEFAULT));
        assert!(same64(soft, host), "{a:016x} {b:016x} {c:016x}: {soft:x?}");
    }
}

#[test]
fn conversions_match_host() {
    let mut random = Random(4);
    for _ in 0..CASES {
        let (a, b) = (random.single(), random.double());
        let (x, y) = (f32::from_bits(a), f64::from_bits(b));
        let env = &mut Env::sse(DEFAULT | 0x6000);
        let near = &mut Env::sse(DEFAULT);
        assert!(same64(convert(F32(a), near), f64::from(x)), "{a:08x}");
        assert!(same32(convert(F64(b), near), y as f32), "{b:016x}");
        let indefinite = |fits: bool, value: i64, none: i64| if fits { value } else { none };
        let in32 = y > -2_147_483_649.0 && y < 2_147_483_648.0;
        let in64 = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&y);
        let int = i64::from(to_i32(F64(b), env));
        assert_eq!(int, indefinite(in32, y as i64, i64::from(i32::MIN)), "{b:016x}");
        assert_eq!(to_i64(F64(b), env), indefinite(in64, y as i64, i64::MIN), "{b:016x}");
        let unsigned = y > -1.0 && y < 18_446_744_073_709_551_616.0;
        assert_eq!(to_u64(F64(b), env), if unsigned { y as u64 } else { u64::MAX }, "{b:016x}");
        let n = random.next() >> random.below(64);
        assert!(same64(from_i64(n as i64, near), n as i64 as f64), "{n:x}");
        assert!(same32(from_i64(n as i64, near), n as i64 as f32), "{n:x}");
        assert!(same32(from_u64(n, near), n as f32), "{n:x}");
        assert!(same64(from_i32(n as i32, near), f64::from(n as i32)), "{n:x}");
        assert!(same32(from_u32(n as u32, near), n as u32 as f32), "{n:x}");
        assert!(same64(round_to_integer(F64(b), near), y.round_ties_even()), "{b:016x}");
        let down = &mut Env::sse(DEFAULT | 0x2000);
        assert!(same32(round_to_integer(F32(a), down), x.floor()), "{a:08x}");
    }
}

#[test]
fn halves_go_there_and_back() {
    for bits in 0..=u16::MAX {
        let env = &mut Env::sse(DEFAULT);
        let single = half_to_single(F16(bits), env);
        let back = single_to_half(single, env);
        let want = if F16(bits).is_nan() { F16(bits).quieted() } else { F16(bits) };
        assert_eq!(back, want, "{bits:04x} via {single:x?}");
    }
}

#[test]
fn directed_roundings_enclose() {
    let mut random = Random(5);
    let next_up = |x: F64| f64::from_bits(x.0).next_up().to_bits();
    for _ in 0..200_000 {
        let (a, b) = (F64(random.double()), F64(random.double()));
        for operation in [add::<F64>, sub, mul, div] {
            let results: [_; 4] = std::array::from_fn(|mode| {
                let mut env = Env::sse(DEFAULT | (mode as u32) << 13);
                (operation(a, b, &mut env), env.flags)
            });
            let [(near, flags), (down, _), (up, _), (zero, _)] = results;
            if !flags.has(Flags::PRECISION) {
                continue;
            }
            assert!(near == down || near == up, "{a:x?} {b:x?}");
            assert!(zero == if near.sign() { up } else { down }, "{a:x?} {b:x?}");
            let apart = !down.is_zero() && !down.is_infinite();
            if apart && down.fraction() != F64::FRACTION_MASK {
                assert_eq!(next_up(down), up.0, "{a:x?} {b:x?}");
            }
        }
    }
}
