//! GFNI: arithmetic in GF(2^8) (SDM vol. 2, GF2P8*).

use super::aes::{inverse, multiply};
use super::integer_forms;
use super::lanes::{high, join, low, split, zip};

integer_forms! {
    /// GF2P8MULB.
    GF2P8MULB = |a, b, _| zip(a, b, |x: u8, y| multiply(x, y));
    /// GF2P8AFFINEQB.
    GF2P8AFFINEQB = |a, b, imm| affine(a, b, imm, |x| x);
    /// GF2P8AFFINEINVQB.
    GF2P8AFFINEINVQB = |a, b, imm| affine(a, b, imm, inverse);
}

/// Each byte of `a`, after `prepare`, times the 8×8 bit matrix in the same quadword of `b`, plus `imm`.
fn affine(a: u128, b: u128, imm: u8, prepare: fn(u8) -> u8) -> u128 {
    let x = split::<u8>(a);
    join::<u8>(std::array::from_fn(|i| {
        let rows = if i < 8 { low(b) } else { high(b) }.to_be_bytes();
        let byte = prepare(x[i]);
        let bit = |k: usize| ((rows[k] & byte).count_ones() as u8 & 1) << k;
        (0..8).fold(imm, |sum, k| sum ^ bit(k))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_matrix_keeps_bytes() {
        let identity = 0x0102_0408_1020_4080u64;
        let x = 0x00ff_1234_5678_9abc_def0_0123_4567_89abu128;
        let matrix = u128::from(identity) | u128::from(identity) << 64;
        assert_eq!(affine(x, matrix, 0, |x| x), x);
        assert_eq!(affine(x, matrix, 0xff, |x| x), !x);
    }
}
