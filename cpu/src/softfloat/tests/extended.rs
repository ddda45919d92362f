//! F80 against the exact reference.

use super::super::*;
use super::Random;
use super::exact::{Exact, Natural, round};

const CASES: usize = 6_000;

/// Significand and power of two of a number: `significand * 2^power`.
fn parts(x: F80) -> (Natural, i32) {
    (Natural::from(x.significand), x.exponent() - 16383 - 63)
}

fn sum(a: F80, b: F80) -> Exact {
    let ((x, p), (y, q)) = (parts(a), parts(b));
    let power = p.min(q);
    let (x, y) = (x.shl((p - power) as u32), y.shl((q - power) as u32));
    let (sign, numerator) = if a.sign() == b.sign() {
        (a.sign(), x.add(&y))
    } else if x.cmp(&y) == std::cmp::Ordering::Less {
        (b.sign(), y.sub(&x))
    } else {
        (a.sign(), x.sub(&y))
    };
    let denominator = Natural::from(1);
    Exact { sign, numerator, denominator, power }
}

fn product(a: F80, b: F80) -> Exact {
    let ((x, p), (y, q)) = (parts(a), parts(b));
    Exact { sign: a.sign() != b.sign(), numerator: x.mul(&y), denominator: Natural::from(1), power: p + q }
}

fn quotient(a: F80, b: F80) -> Exact {
    let ((x, p), (y, q)) = (parts(a), parts(b));
    Exact { sign: a.sign() != b.sign(), numerator: x, denominator: y, power: p - q }
}

/// Every control word that differs in precision or rounding.
fn controls() -> impl Iterator<Item = (u16, u32)> {
    let precisions = [(0, 24), (2, 53), (3, 64)];
    (0..4u16).flat_map(move |rc| precisions.map(|(pc, bits)| (0x3f | pc << 8 | rc << 10, bits)))
}

#[test]
fn arithmetic_is_exactly_rounded() {
    type Operation = (fn(F80, F80, &mut Env) -> F80, fn(F80, F80) -> Exact);
    let operations: [Operation; 4] = [
        (F80::add, sum),
        (|a, b, env| a.sub(b, env), |a, b| sum(a, b.negated())),
        (F80::mul, product),
        (F80::div, quotient),
    ];
    let mut random = Random(6);
    for case in 0..CASES {
        let a = random.moderate();
        let mut b = random.moderate();
        if case % 4 == 0 {
            b = F80::new(b.sign_exponent & 0x8000 | a.sign_exponent & 0x7fff, a.significand ^ 6);
        }
        for (operation, reference) in &operations {
            let exact = reference(a, b);
            if exact.numerator.is_zero() {
                continue;
            }
            for (control, bits) in controls() {
                let mut env = Env::x87(control);
                let soft = operation(a, b, &mut env);
                let (want, inexact, up) = round(&exact, bits, env.rounding);
                assert_eq!(soft, want, "{a:x?} {b:x?} cw {control:04x}");
                assert_eq!(env.flags.has(Flags::PRECISION), inexact, "{a:x?} {b:x?}");
                assert_eq!(env.rounded_up, up, "{a:x?} {b:x?} cw {control:04x}");
            }
        }
    }
}

#[test]
fn square_roots_enclose() {
    let mut random = Random(7);
    for _ in 0..CASES {
        let a = random.moderate().absolute();
        let root = |control| a.sqrt(&mut Env::x87(control));
        let (near, down, up) = (root(0x33f), root(0x73f), root(0xb3f));
        assert!(near == down || near == up, "{a:x?}");
        let ordered = |x, y| {
            let square = product(x, x);
            let (n, p) = parts(y);
            let power = square.power.min(p);
            square.numerator.shl((square.power - power) as u32).cmp(&n.shl((p - power) as u32))
        };
        if down == up {
            assert_eq!(ordered(down, a), std::cmp::Ordering::Equal, "{a:x?}");
        } else {
            assert_eq!(ordered(down, a), std::cmp::Ordering::Less, "{a:x?}");
            assert_eq!(ordered(up, a), std::cmp::Ordering::Greater, "{a:x?}");
            let step = (up.exponent() - down.exponent(), up.significand.wrapping_sub(down.significand));
            assert!(step == (0, 1) || step == (1, 1 << 63 | 1), "{a:x?}: {down:x?} {up:x?}");
        }
    }
}

#[test]
fn remainders_are_exact() {
    let mut random = Random(8);
    for _ in 0..CASES {
        let (a, b) = (random.moderate(), random.moderate());
        let env = &mut Env::x87(0x37f);
        let mut rest = a;
        let mut steps = 0;
        // The partial remainders end in the remainder of the whole.
        let last = loop {
            let part = rest.remainder(b, Quotient::Truncated, env);
            rest = part.value;
            steps += 1;
            assert!(steps < 8, "{a:x?} {b:x?}");
            if let Some(quotient) = part.quotient {
                break quotient;
            }
        };
        let ((x, p), (y, q)) = (parts(a), parts(b));
        let power = p.min(q);
        let (n, d) = (x.shl((p - power) as u32), y.shl((q - power) as u32));
        let (whole, remainder) = n.divide(&d);
        let want = match remainder.is_zero() {
            true => F80::zero(a.sign()),
            false => {
                let exact =
                    Exact { sign: a.sign(), numerator: remainder.clone(), denominator: Natural::from(1), power };
                round(&exact, 64, Rounding::Nearest).0
            }
        };
        assert_eq!(rest, want, "{a:x?} {b:x?}");
        if steps == 1 {
            let low = whole.divide(&Natural::from(8)).1;
            assert_eq!(Natural::from(u64::from(last)), low, "{a:x?} {b:x?}");
        }
        assert_eq!(env.flags, Flags::NONE);
    }
}

#[test]
fn integers_and_decimals_go_there_and_back() {
    let mut random = Random(9);
    for _ in 0..100_000 {
        let n = (random.next() >> random.below(64)) as i64;
        let x = F80::from_i64(n);
        let env = &mut Env::x87(0x37f);
        assert_eq!(x.to_i64(env), n);
        let decimal = n % 1_000_000_000_000_000_000;
        let bytes = F80::from_i64(decimal).to_bcd(env);
        assert_eq!(F80::from_bcd(bytes), F80::from_i64(decimal), "{bytes:x?}");
        assert_eq!(env.flags, Flags::NONE);
    }
}
