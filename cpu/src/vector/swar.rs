//! The hottest packed byte and word operations on whole quadwords, several lanes in one integer operation.
//!
//! `H` is the mask of the lanes' top bits, `W` the lane width in bits. Called by `integer`.

use super::lanes::zip;

/// The top bits of byte lanes.
pub const H8: u64 = 0x8080_8080_8080_8080;
/// The top bits of word lanes.
pub const H16: u64 = 0x8000_8000_8000_8000;

/// Lane-wise addition.
#[inline(always)]
pub fn add<const H: u64>(a: u128, b: u128) -> u128 {
    zip::<u64>(a, b, |a, b| (a & !H).wrapping_add(b & !H) ^ (a ^ b) & H)
}

/// Lane-wise subtraction.
#[inline(always)]
pub fn sub<const H: u64>(a: u128, b: u128) -> u128 {
    zip::<u64>(a, b, difference::<H>)
}

#[inline(always)]
fn difference<const H: u64>(a: u64, b: u64) -> u64 {
    (a | H).wrapping_sub(b & !H) ^ (a ^ !b) & H
}

/// All ones in the lanes whose top bit is set in `tops` (which has no other bits).
#[inline(always)]
fn spread<const W: u32>(tops: u64) -> u64 {
    (tops >> (W - 1)).wrapping_mul((1 << W) - 1)
}

/// All ones where the lanes are equal.
#[inline(always)]
pub fn equal<const H: u64, const W: u32>(a: u128, b: u128) -> u128 {
    zip::<u64>(a, b, |a, b| {
        let differing = a ^ b;
        let nonzero = (differing & !H).wrapping_add(!H) | differing;
        spread::<W>(!nonzero & H)
    })
}

/// All ones where `a >= b`, unsigned.
#[inline(always)]
fn at_least<const H: u64, const W: u32>(a: u64, b: u64) -> u64 {
    let rest = (a | H).wrapping_sub(b & !H);
    spread::<W>((a & !b | !(a ^ b) & rest) & H)
}

/// The lesser lanes, unsigned.
#[inline(always)]
pub fn min<const H: u64, const W: u32>(a: u128, b: u128) -> u128 {
    zip::<u64>(a, b, |a, b| {
        let mask = at_least::<H, W>(a, b);
        b & mask | a & !mask
    })
}

/// The greater lanes, unsigned.
#[inline(always)]
pub fn max<const H: u64, const W: u32>(a: u128, b: u128) -> u128 {
    zip::<u64>(a, b, |a, b| {
        let mask = at_least::<H, W>(a, b);
        a & mask | b & !mask
    })
}

/// Unsigned subtraction that stops at zero.
#[inline(always)]
pub fn sub_saturating<const H: u64, const W: u32>(a: u128, b: u128) -> u128 {
    zip::<u64>(a, b, |a, b| difference::<H>(a, b) & at_least::<H, W>(a, b))
}

/// All ones where `a > b`, signed.
#[inline(always)]
pub fn greater<const H: u64, const W: u32>(a: u128, b: u128) -> u128 {
    zip::<u64>(a, b, |a, b| !at_least::<H, W>(b ^ H, a ^ H))
}

/// The sign bits of the eight bytes.
#[inline(always)]
pub fn signs(x: u64) -> u32 {
    ((x & H8).wrapping_mul(0x0002_0408_1020_4081) >> 56) as u32
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{map, zip};
    use super::*;

    #[test]
    fn agrees_with_lanes_one_by_one() {
        let mut seed = 1u128;
        let mut next = || {
            seed = seed.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(0x5851_f42d_4c95_7f2d);
            seed ^ seed >> 71
        };
        for round in 0..2000 {
            let (a, mut b) = (next(), next());
            if round % 2 == 0 {
                b = map::<u8>(b, |x| x & 1) ^ a;
            }
            let ones = |yes: bool| if yes { 0xffu8 } else { 0 };
            assert_eq!(add::<H8>(a, b), zip(a, b, u8::wrapping_add));
            assert_eq!(add::<H16>(a, b), zip(a, b, u16::wrapping_add));
            assert_eq!(sub::<H8>(a, b), zip(a, b, u8::wrapping_sub));
            assert_eq!(equal::<H8, 8>(a, b), zip::<u8>(a, b, |x, y| ones(x == y)));
            assert_eq!(greater::<H8, 8>(a, b), zip::<u8>(a, b, |x, y| ones(x as i8 > y as i8)));
            assert_eq!(min::<H8, 8>(a, b), zip::<u8>(a, b, u8::min));
            assert_eq!(max::<H16, 16>(a, b), zip::<u16>(a, b, u16::max));
            assert_eq!(sub_saturating::<H16, 16>(a, b), zip(a, b, u16::saturating_sub));
            let by_one = (0..8).map(|i| (a as u64 >> (8 * i + 7) & 1) << i).sum::<u64>();
            assert_eq!(u64::from(signs(a as u64)), by_one);
        }
    }
}
