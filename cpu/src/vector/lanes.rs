//! 128-bit values as lanes: splitting, joining, and applying a function lane by lane.
//!
//! A lane is numbered from the least significant end, as in memory (SDM vol. 1, 4.6). Called by all of `vector`.

/// A lane type.
pub trait Lane: Copy {
    /// All lanes of 128 bits.
    type Array: Copy;
    /// The lanes of `x`.
    fn split(x: u128) -> Self::Array;
    /// The value with these lanes.
    fn join(lanes: Self::Array) -> u128;
    /// Applies `f` to each lane.
    fn map(x: u128, f: impl FnMut(Self) -> Self) -> u128;
    /// Applies `f` to each pair of lanes.
    fn zip(x: u128, y: u128, f: impl FnMut(Self, Self) -> Self) -> u128;
}

macro_rules! lane {
    ($($t:ty, $bits:ty, $n:literal, $x:ident => $get:expr, $put:expr;)*) => {$(
        impl Lane for $t {
            type Array = [$t; $n];
            #[inline(always)]
            fn split(x: u128) -> [$t; $n] {
                std::array::from_fn(|i| {
                    let $x = (x >> (<$bits>::BITS as usize * i)) as $bits;
                    $get
                })
            }
            #[inline(always)]
            fn join(lanes: [$t; $n]) -> u128 {
                let mut all = 0;
                let mut i = 0;
                while i < $n {
                    let $x = lanes[i];
                    let bits: $bits = $put;
                    all |= (bits as u128) << (<$bits>::BITS as usize * i);
                    i += 1;
                }
                all
            }
            #[inline(always)]
            fn map(x: u128, mut f: impl FnMut($t) -> $t) -> u128 {
                let a = Self::split(x);
                Self::join(std::array::from_fn(|i| f(a[i])))
            }
            #[inline(always)]
            fn zip(x: u128, y: u128, mut f: impl FnMut($t, $t) -> $t) -> u128 {
                let (a, b) = (Self::split(x), Self::split(y));
                Self::join(std::array::from_fn(|i| f(a[i], b[i])))
            }
        }
    )*};
}
use crate::softfloat::{F32, F64};
lane! {
    u8, u8, 16, x => x, x;
    i8, u8, 16, x => x as i8, x as u8;
    u16, u16, 8, x => x, x;
    i16, u16, 8, x => x as i16, x as u16;
    u32, u32, 4, x => x, x;
    i32, u32, 4, x => x as i32, x as u32;
    u64, u64, 2, x => x, x;
    i64, u64, 2, x => x as i64, x as u64;
    F32, u32, 4, x => F32(x), x.0;
    F64, u64, 2, x => F64(x), x.0;
}

/// The lanes of `x`.
#[inline(always)]
pub fn split<L: Lane>(x: u128) -> L::Array {
    L::split(x)
}

/// The value with these lanes.
#[inline(always)]
pub fn join<L: Lane>(lanes: L::Array) -> u128 {
    L::join(lanes)
}

/// Applies `f` to each lane.
#[inline(always)]
pub fn map<L: Lane>(x: u128, f: impl FnMut(L) -> L) -> u128 {
    L::map(x, f)
}

/// Applies `f` to each pair of lanes.
#[inline(always)]
pub fn zip<L: Lane>(x: u128, y: u128, f: impl FnMut(L, L) -> L) -> u128 {
    L::zip(x, y, f)
}

/// The low quadword.
#[inline(always)]
pub fn low(x: u128) -> u64 {
    x as u64
}

/// The high quadword.
#[inline(always)]
pub fn high(x: u128) -> u64 {
    (x >> 64) as u64
}

/// From low and high quadword.
#[inline(always)]
pub fn pair(low: u64, high: u64) -> u128 {
    u128::from(low) | u128::from(high) << 64
}

/// `x` with its low 32 bits replaced.
#[inline(always)]
pub fn with_low32(x: u128, value: u32) -> u128 {
    x & !0xffff_ffff | u128::from(value)
}

/// `x` with its low 64 bits replaced.
#[inline(always)]
pub fn with_low64(x: u128, value: u64) -> u128 {
    pair(value, high(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_count_from_the_low_end() {
        let x = 0x0f0e0d0c_0b0a0908_07060504_03020100u128;
        assert_eq!(split::<u8>(x)[15], 15);
        assert_eq!(split::<u16>(x)[1], 0x0302);
        assert_eq!(split::<i32>(x)[3], 0x0f0e0d0c);
        assert_eq!(join::<u8>(split::<u8>(x)), x);
        assert_eq!(join::<i16>(split::<i16>(x)), x);
        assert_eq!(join::<u64>(split::<u64>(x)), x);
        assert_eq!(zip::<u8>(x, x, u8::wrapping_add), x * 2);
        assert_eq!(with_low32(x, 5) >> 32, x >> 32);
        assert_eq!(with_low64(x, 7), pair(7, high(x)));
    }
}
