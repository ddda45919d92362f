//! AES-NI (SDM vol. 1, 12.13; FIPS 197). The S-boxes are computed at compile time.

use super::integer_forms;
use super::lanes::{join, split};

/// Multiplication in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
pub(super) const fn multiply(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut product) = (a, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = double(a);
        b >>= 1;
    }
    product
}

/// Multiplication by x.
const fn double(a: u8) -> u8 {
    a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 }
}

/// The multiplicative inverse, 0 for 0: a^254.
pub(super) const fn inverse(a: u8) -> u8 {
    let (mut power, mut result, mut exponent) = (a, 1, 254);
    while exponent != 0 {
        if exponent & 1 != 0 {
            result = multiply(result, power);
        }
        power = multiply(power, power);
        exponent >>= 1;
    }
    result
}

const fn substitution() -> [[u8; 256]; 2] {
    let mut tables = [[0; 256]; 2];
    let mut i = 0;
    while i < 256 {
        let x = inverse(i as u8);
        let y = x ^ x.rotate_left(1) ^ x.rotate_left(2) ^ x.rotate_left(3) ^ x.rotate_left(4) ^ 0x63;
        tables[0][i] = y;
        tables[1][y as usize] = i as u8;
        i += 1;
    }
    tables
}

static TABLES: [[u8; 256]; 2] = substitution();

fn substitute(x: u8) -> u8 {
    TABLES[0][x as usize]
}

fn substitute_inverse(x: u8) -> u8 {
    TABLES[1][x as usize]
}

/// ShiftRows, then SubBytes: row r moves left by r columns.
fn shift_and_substitute(state: u128) -> [u8; 16] {
    let x = split::<u8>(state);
    std::array::from_fn(|i| substitute(x[(i + 4 * (i & 3)) & 15]))
}

/// Their inverses.
fn unshift_and_substitute(state: u128) -> [u8; 16] {
    let x = split::<u8>(state);
    std::array::from_fn(|i| substitute_inverse(x[(i + 12 * (i & 3)) & 15]))
}

fn mix_columns(x: [u8; 16]) -> u128 {
    join::<u8>(std::array::from_fn(|i| {
        let at = |k: usize| x[i & !3 | (i + k) & 3];
        double(at(0) ^ at(1)) ^ at(1) ^ at(2) ^ at(3)
    }))
}

fn mix_columns_inverse(x: [u8; 16]) -> u128 {
    // The inverse matrix is the forward one times (5, 0, 4, 0).
    let fixed = std::array::from_fn(|i| x[i] ^ double(double(x[i] ^ x[i ^ 2])));
    mix_columns(fixed)
}

fn substitute_word(x: u32) -> u32 {
    u32::from_le_bytes(x.to_le_bytes().map(substitute))
}

integer_forms! {
    /// AESENC.
    AESENC = |a, b, _| mix_columns(shift_and_substitute(a)) ^ b;
    /// AESENCLAST.
    AESENCLAST = |a, b, _| join::<u8>(shift_and_substitute(a)) ^ b;
    /// AESDEC.
    AESDEC = |a, b, _| mix_columns_inverse(unshift_and_substitute(a)) ^ b;
    /// AESDECLAST.
    AESDECLAST = |a, b, _| join::<u8>(unshift_and_substitute(a)) ^ b;
    /// AESIMC.
    AESIMC = |_, b, _| mix_columns_inverse(split::<u8>(b));
    /// AESKEYGENASSIST.
    AESKEYGENASSIST = |_, b, imm| {
        let x = split::<u32>(b);
        let (one, three) = (substitute_word(x[1]), substitute_word(x[3]));
        let round = u32::from(imm);
        join::<u32>([one, one.rotate_right(8) ^ round, three, three.rotate_right(8) ^ round])
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substitution_box_and_round_trip() {
        assert_eq!([substitute(0), substitute(1), substitute(0x53), substitute(0xff)], [0x63, 0x7c, 0xed, 0x16]);
        assert_eq!(substitute_inverse(0x63), 0);
        let x = 0x00112233_44556677_8899aabb_ccddeeffu128;
        assert_eq!(mix_columns_inverse(split::<u8>(mix_columns(split::<u8>(x)))), x);
        assert_eq!(join::<u8>(unshift_and_substitute(join::<u8>(shift_and_substitute(x)))), x);
    }

    #[test]
    fn first_round_of_fips_197_appendix_b() {
        let bytes = |hex: u128| u128::from_be_bytes(hex.to_le_bytes());
        let start = bytes(0x193de3be_a0f4e22b_9ac68d2a_e9f84808);
        let key = bytes(0xa0fafe17_88542cb1_23a33939_2a6c7605);
        let end = bytes(0xa49c7ff2_689f352b_6b5bea43_026a5049);
        assert_eq!(mix_columns(shift_and_substitute(start)) ^ key, end);
    }
}
