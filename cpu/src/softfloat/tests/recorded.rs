//! Results recorded on an AMD family 19h processor: `recorded.txt` has one case a line,
//! `operation control operand... = result flags`, everything in hexadecimal. For x87 operations control is the
//! control word and flags are the low byte and C0 to C3 of the status word; for SSE they are MXCSR and its
//! exception flags.

use super::super::*;

/// Parses an F80 written as exponent:significand.
pub fn extended(text: &str) -> F80 {
    let (high, low) = text.split_once(':').expect("an F80 has a colon");
    F80::new(u16::from_str_radix(high, 16).expect("an exponent"), u64::from_str_radix(low, 16).expect("a significand"))
}

pub fn number(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect("a hexadecimal number")
}

fn x87(operation: &str, a: F80, b: F80, env: &mut Env) -> (F80, u16) {
    let condition = |relation| match relation {
        Relation::Less => 0x100,
        Relation::Equal => 0x4000,
        Relation::Greater => 0,
        Relation::Unordered => 0x4500,
    };
    let remainder = |quotient, env: &mut Env| {
        let part = a.remainder(b, quotient, env);
        let bits =
            part.quotient.map_or(0x400, |q| u16::from(q & 1) << 9 | u16::from(q & 2) << 13 | u16::from(q & 4) << 6);
        (part.value, bits)
    };
    let value = match operation {
        "fadd" => a.add(b, env),
        "fsub" => a.sub(b, env),
        "fmul" => a.mul(b, env),
        "fdiv" => a.div(b, env),
        "fsqrt" => a.sqrt(env),
        "frndint" => a.round_to_integer(env),
        "fscale" => a.scale(b, env),
        "fxtract" => a.extract(env).1,
        "fcom" => return (a, condition(a.compare(b, Comparison::Signaling, env))),
        "fucom" => return (a, condition(a.compare(b, Comparison::Quiet, env))),
        "fprem" => return remainder(Quotient::Truncated, env),
        "fprem1" => return remainder(Quotient::Nearest, env),
        other => panic!("unknown operation {other}"),
    };
    (value, u16::from(env.rounded_up) << 9)
}

/// Stores; the result is left-padded with zeros.
fn store(operation: &str, a: F80, env: &mut Env) -> Option<u64> {
    Some(match operation {
        "fst32" => u64::from(a.to_f32(env).0),
        "fst64" => a.to_f64(env).0,
        "fist16" => u64::from(a.to_i16(env) as u16),
        "fist32" => u64::from(a.to_i32(env) as u32),
        "fist64" => a.to_i64(env) as u64,
        _ => return None,
    })
}

fn sse(operation: &str, operands: &[u64], env: &mut Env) -> u64 {
    let single = |index: usize| F32(operands[index] as u32);
    let double = |index: usize| F64(operands[index]);
    match operation {
        "add64" => add(double(0), double(1), env).0,
        "mul64" => mul(double(0), double(1), env).0,
        "div64" => div(double(0), double(1), env).0,
        "min64" => min(double(0), double(1), env).0,
        "fma64" => fma(double(0), double(1), double(2), env).0,
        "sqrt64" => sqrt(double(0), env).0,
        "add32" => u64::from(add(single(0), single(1), env).0),
        "mul32" => u64::from(mul(single(0), single(1), env).0),
        "div32" => u64::from(div(single(0), single(1), env).0),
        "max32" => u64::from(max(single(0), single(1), env).0),
        "fma32" => u64::from(fma(single(0), single(1), single(2), env).0),
        "sqrt32" => u64::from(sqrt(single(0), env).0),
        "sd2ss" => u64::from(convert::<F64, F32>(double(0), env).0),
        "ss2sd" => convert::<F32, F64>(single(0), env).0,
        "ps2ph" => u64::from(single_to_half(single(0), env).0),
        "sd2si" => to_i64(double(0), env) as u64,
        other => panic!("unknown operation {other}"),
    }
}

#[test]
fn matches_recorded_results() {
    for line in include_str!("recorded.txt").lines() {
        let (input, output) = line.split_once(" = ").expect("an equals sign");
        let mut words = input.split(' ');
        let operation = words.next().expect("an operation");
        let control = number(words.next().expect("a control word"));
        let operands: Vec<&str> = words.collect();
        let (want, flags) = output.split_once(' ').expect("result and flags");
        let flags = number(flags) as u16;
        if !operands[0].contains(':') {
            let mut env = Env::sse(control as u32);
            let operands: Vec<u64> = operands.into_iter().map(number).collect();
            let result = sse(operation, &operands, &mut env);
            assert_eq!(result, number(want), "{line}");
            assert_eq!(u16::from(env.status().0), flags, "{line}");
            continue;
        }
        let mut env = Env::x87(control as u16);
        let a = extended(operands[0]);
        if let Some(result) = store(operation, a, &mut env) {
            let stored = env.unmasked().without(Flags::PRECISION) == Flags::NONE;
            assert!(!stored || result == number(want), "{line}");
            let up = stored && env.rounded_up;
            assert_eq!(u16::from(env.status().0) | u16::from(up) << 9, flags, "{line}");
            continue;
        }
        let (result, conditions) = x87(operation, a, extended(operands[1]), &mut env);
        let computed = !env.unmasked().has(Flags::BEFORE);
        assert!(!computed || result == extended(want), "{line}: {result:x?}");
        let compares = operation.contains("com");
        let conditions = if computed || compares { conditions } else { 0 };
        assert_eq!(u16::from(env.status().0) | conditions, flags, "{line}");
    }
}
