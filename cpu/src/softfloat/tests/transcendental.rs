//! Transcendental functions against results recorded on an AMD family 19h processor: `transcendental.txt`, in the
//! form of `recorded.txt` with C2 as the only condition. The processor's last bit may differ from ours.

use super::super::*;
use super::recorded::{extended, number};

/// The distance of two numbers in units of the last place.
fn distance(a: F80, b: F80) -> u128 {
    let place = |x: F80| {
        let magnitude = i128::from(x.exponent()) << 63 | i128::from(x.significand & (u64::MAX >> 1));
        if x.sign() { -magnitude } else { magnitude }
    };
    place(a).abs_diff(place(b))
}

fn compute(operation: &str, a: F80, b: F80, env: &mut Env) -> Option<F80> {
    match operation {
        "f2xm1" => Some(a.exp2_minus_one(env)),
        "fyl2x" => Some(a.log2_times(b, env)),
        "fyl2xp1" => Some(a.log2_plus_one_times(b, env)),
        "fpatan" => Some(a.arc_tangent(b, env)),
        "fsin" => a.sine(env),
        "fcos" => a.cosine(env),
        "fptan" => a.tangent(env).map(|(tangent, _)| tangent),
        "fsincos" => a.sine_and_cosine(env).map(|(sine, _)| sine),
        other => panic!("unknown operation {other}"),
    }
}

#[test]
fn matches_recorded_results() {
    for line in include_str!("transcendental.txt").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [operation, control, a, b, "=", want, flags] = words[..] else {
            panic!("malformed: {line}");
        };
        let mut env = Env::x87(number(control) as u16);
        let result = compute(operation, extended(a), extended(b), &mut env);
        let incomplete = u16::from(result.is_none()) << 10;
        let value = result.unwrap_or(extended(a));
        assert!(distance(value, extended(want)) <= 1, "{line}: {value:x?}");
        let found = u16::from(env.status().0) | incomplete;
        assert_eq!(u64::from(found), number(flags), "{line}");
    }
}

/// Known values, correctly rounded.
#[test]
fn known_values() {
    let two = F80::from_i64(2);
    let half = F80::new(0x3ffe, 1 << 63);
    let env = &mut Env::x87(0x37f);
    let cases = [
        (half.exp2_minus_one(env), F80::new(0x3ffd, 0xd413_cccf_e779_9211)),
        (F80::from_i64(10).log2_times(F80::ONE, env), F80::new(0x4000, 0xd49a_784b_cd1b_8afe)),
        (F80::from_i64(8).log2_times(two, env), F80::from_i64(6)),
        (F80::ONE.arc_tangent(F80::ONE, env), F80::new(0x3ffe, 0xc90f_daa2_2168_c235)),
        (F80::ONE.sine(env).unwrap_or(F80::ZERO), F80::new(0x3ffe, 0xd76a_a478_4867_7021)),
        (F80::ONE.cosine(env).unwrap_or(F80::ZERO), F80::new(0x3ffe, 0x8a51_407d_a834_5c92)),
    ];
    for (index, (found, want)) in cases.into_iter().enumerate() {
        assert_eq!(found, want, "case {index}: {found:x?}");
    }
}

/// The sum of what `unrounded` gives, as the x87 unit would round it, is what the functions give, flags included.
#[test]
fn unrounded_values_round_to_the_results() {
    let mut random = super::Random(1);
    let mut counts = [0; Function::ALL.len()];
    for round in 0..60_000 {
        let function = Function::ALL[round % Function::ALL.len()];
        let mut number = |spread: u64| {
            let exponent = (0x3fff - spread / 2 + random.below(spread)) as u16;
            F80::new((random.below(2) as u16) << 15 | exponent, 1 << 63 | random.fraction(63))
        };
        let (x, y) = (number(if round % 4 == 0 { 160 } else { 12 }), number(24));
        let Some((cut, missing)) = unrounded(function, x, y) else { continue };
        counts[round % Function::ALL.len()] += 1;
        let control = 0x37f | (random.below(4) as u16) << 10;
        let (mut env, mut sum_env) = (Env::x87(control), Env::x87(control));
        let result = match function {
            Function::Sine => x.sine(&mut env),
            Function::Cosine => x.cosine(&mut env),
            Function::ArcTangent => Some(x.arc_tangent(y, &mut env)),
            Function::Log2Times => Some(x.log2_times(y, &mut env)),
            Function::Log2PlusOneTimes => Some(x.log2_plus_one_times(y, &mut env)),
            Function::Exp2MinusOne => Some(x.exp2_minus_one(&mut env)),
        };
        let missing = F80::from_f64(F64(missing), &mut sum_env);
        let sum = cut.add(missing, &mut sum_env);
        assert_eq!(result, Some(sum), "{function:?} {x:x?} {y:x?}");
        assert_eq!((env.flags, env.rounded_up), (sum_env.flags, sum_env.rounded_up), "{function:?} {x:x?} {y:x?}");
    }
    assert!(counts.iter().all(|&count| count > 1000), "{counts:?}");
}
