//! Comparison, minimum and maximum of the SSE formats (SDM vol. 2: COMISS, UCOMISS, CMPPS, MINPS, MAXPS).

use super::format::{Format, note_denormals};
use super::{Comparison, Env, Flags, Relation};

/// Compares `a` with `b`.
#[inline]
pub fn compare<F: Format>(a: F, b: F, comparison: Comparison, env: &mut Env) -> Relation {
    if a.is_nan() || b.is_nan() {
        if comparison == Comparison::Signaling || a.is_signaling() || b.is_signaling() {
            env.raise(Flags::INVALID);
        }
        return Relation::Unordered;
    }
    let (a, b) = (a.operand(env), b.operand(env));
    note_denormals(&[a, b], env);
    match ordinal(a).cmp(&ordinal(b)) {
        std::cmp::Ordering::Less => Relation::Less,
        std::cmp::Ordering::Equal => Relation::Equal,
        std::cmp::Ordering::Greater => Relation::Greater,
    }
}

/// MINPS: the smaller; `b` if they are equal or either is a NaN.
#[inline]
pub fn min<F: Format>(a: F, b: F, env: &mut Env) -> F {
    match compare(a, b, Comparison::Signaling, env) {
        Relation::Less => a.operand(env),
        _ => b.operand(env),
    }
}

/// MAXPS: the larger; `b` if they are equal or either is a NaN.
#[inline]
pub fn max<F: Format>(a: F, b: F, env: &mut Env) -> F {
    match compare(a, b, Comparison::Signaling, env) {
        Relation::Greater => a.operand(env),
        _ => b.operand(env),
    }
}

/// An integer in the order of the numbers; both zeros are 0.
#[inline]
fn ordinal<F: Format>(number: F) -> i64 {
    let magnitude = (number.raw() & ((1 << F::SIGN_SHIFT) - 1)) as i64;
    if number.sign() { -magnitude } else { magnitude }
}
