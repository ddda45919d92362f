//! PCLMULQDQ: carry-less multiplication (SDM vol. 1, 12.13.4).

use super::integer_forms;
use super::lanes::{high, low};

integer_forms! {
    /// PCLMULQDQ.
    PCLMULQDQ = |a, b, imm| {
        let x = if imm & 1 != 0 { high(a) } else { low(a) };
        let y = if imm & 16 != 0 { high(b) } else { low(b) };
        multiply(x, y)
    };
}

/// The 127-bit product of two polynomials over GF(2), four bits of `b` at a time.
fn multiply(a: u64, b: u64) -> u128 {
    let a = u128::from(a);
    let mut multiples = [0u128; 16];
    for i in 1..16 {
        multiples[i] = multiples[i / 2] << 1 ^ if i & 1 != 0 { a } else { 0 };
    }
    (0..16).rev().fold(0, |sum, i| sum << 4 ^ multiples[(b >> (4 * i) & 15) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products() {
        assert_eq!(multiply(3, 3), 5);
        assert_eq!(multiply(u64::MAX, 1), u128::from(u64::MAX));
        assert_eq!(multiply(1 << 63, 1 << 63), 1 << 126);
        let by_bit = |a: u64, b: u64| (0..64).filter(|i| b >> i & 1 != 0).fold(0, |sum, i| sum ^ u128::from(a) << i);
        assert_eq!(
            multiply(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210),
            by_bit(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210)
        );
    }
}
