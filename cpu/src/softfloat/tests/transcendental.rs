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
