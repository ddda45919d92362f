//! Packed integer arithmetic, comparison and logic (SDM vol. 1, 9.4, 11.4.2, 12.6, 12.10; vol. 2, P*).

use super::lanes::{Lane, high, join, low, map, pair, split, zip};
use super::swar::{self, H8, H16};
use super::{Direct, direct, integer_forms, set_status, xmm, ymm};
use crate::helpers::Flow;
use crate::state::flags;

integer_forms! {
    /// PAND, ANDPS, ANDPD.
    AND = |a, b, _| a & b;
    /// PANDN, ANDNPS, ANDNPD.
    ANDN = |a, b, _| !a & b;
    /// POR, ORPS, ORPD.
    OR = |a, b, _| a | b;
    /// PXOR, XORPS, XORPD.
    XOR = |a, b, _| a ^ b;
    /// PADDB.
    PADDB = |a, b, _| swar::add::<H8>(a, b);
    /// PADDW.
    PADDW = |a, b, _| swar::add::<H16>(a, b);
    /// PADDD.
    PADDD = |a, b, _| zip(a, b, u32::wrapping_add);
    /// PADDQ.
    PADDQ = |a, b, _| zip(a, b, u64::wrapping_add);
    /// PSUBB.
    PSUBB = |a, b, _| swar::sub::<H8>(a, b);
    /// PSUBW.
    PSUBW = |a, b, _| swar::sub::<H16>(a, b);
    /// PSUBD.
    PSUBD = |a, b, _| zip(a, b, u32::wrapping_sub);
    /// PSUBQ.
    PSUBQ = |a, b, _| zip(a, b, u64::wrapping_sub);
    /// PADDSB.
    PADDSB = |a, b, _| zip(a, b, i8::saturating_add);
    /// PADDSW.
    PADDSW = |a, b, _| zip(a, b, i16::saturating_add);
    /// PADDUSB.
    PADDUSB = |a, b, _| !swar::sub_saturating::<H8, 8>(!a, b);
    /// PADDUSW.
    PADDUSW = |a, b, _| !swar::sub_saturating::<H16, 16>(!a, b);
    /// PSUBSB.
    PSUBSB = |a, b, _| zip(a, b, i8::saturating_sub);
    /// PSUBSW.
    PSUBSW = |a, b, _| zip(a, b, i16::saturating_sub);
    /// PSUBUSB.
    PSUBUSB = |a, b, _| swar::sub_saturating::<H8, 8>(a, b);
    /// PSUBUSW.
    PSUBUSW = |a, b, _| swar::sub_saturating::<H16, 16>(a, b);
    /// PMULLW.
    PMULLW = |a, b, _| zip(a, b, u16::wrapping_mul);
    /// PMULHW.
    PMULHW = |a, b, _| zip(a, b, |x: i16, y| ((i32::from(x) * i32::from(y)) >> 16) as i16);
    /// PMULHUW.
    PMULHUW = |a, b, _| zip(a, b, |x: u16, y| ((u32::from(x) * u32::from(y)) >> 16) as u16);
    /// PMULHRSW.
    PMULHRSW = |a, b, _| zip(a, b, |x: i16, y| ((((i32::from(x) * i32::from(y)) >> 14) + 1) >> 1) as i16);
    /// PMULLD.
    PMULLD = |a, b, _| zip(a, b, u32::wrapping_mul);
    /// PMULUDQ.
    PMULUDQ = |a, b, _| zip(a, b, |x: u64, y| u64::from(x as u32) * u64::from(y as u32));
    /// PMULDQ.
    PMULDQ = |a, b, _| zip(a, b, |x: i64, y| i64::from(x as i32) * i64::from(y as i32));
    /// PMADDWD.
    PMADDWD = |a, b, _| zip(a, b, |x: u32, y| {
        let product = |x: u32, y: u32| i32::from(x as i16) * i32::from(y as i16);
        product(x, y).wrapping_add(product(x >> 16, y >> 16)) as u32
    });
    /// PMADDUBSW.
    PMADDUBSW = |a, b, _| zip(a, b, |x: u16, y| {
        let product = |x: u16, y: u16| i32::from(x as u8) * i32::from(y as u8 as i8);
        saturate16(product(x, y) + product(x >> 8, y >> 8)) as u16
    });
    /// PCMPEQB.
    PCMPEQB = |a, b, _| swar::equal::<H8, 8>(a, b);
    /// PCMPEQW.
    PCMPEQW = |a, b, _| swar::equal::<H16, 16>(a, b);
    /// PCMPEQD.
    PCMPEQD = |a, b, _| zip(a, b, |x: u32, y| if x == y { u32::MAX } else { 0 });
    /// PCMPEQQ.
    PCMPEQQ = |a, b, _| zip(a, b, |x: u64, y| if x == y { u64::MAX } else { 0 });
    /// PCMPGTB.
    PCMPGTB = |a, b, _| swar::greater::<H8, 8>(a, b);
    /// PCMPGTW.
    PCMPGTW = |a, b, _| swar::greater::<H16, 16>(a, b);
    /// PCMPGTD.
    PCMPGTD = |a, b, _| zip(a, b, |x: i32, y| -i32::from(x > y));
    /// PCMPGTQ.
    PCMPGTQ = |a, b, _| zip(a, b, |x: i64, y| -i64::from(x > y));
    /// PMINUB.
    PMINUB = |a, b, _| swar::min::<H8, 8>(a, b);
    /// PMINUW.
    PMINUW = |a, b, _| swar::min::<H16, 16>(a, b);
    /// PMINUD.
    PMINUD = |a, b, _| zip(a, b, u32::min);
    /// PMINSB.
    PMINSB = |a, b, _| zip(a, b, i8::min);
    /// PMINSW.
    PMINSW = |a, b, _| zip(a, b, i16::min);
    /// PMINSD.
    PMINSD = |a, b, _| zip(a, b, i32::min);
    /// PMAXUB.
    PMAXUB = |a, b, _| swar::max::<H8, 8>(a, b);
    /// PMAXUW.
    PMAXUW = |a, b, _| swar::max::<H16, 16>(a, b);
    /// PMAXUD.
    PMAXUD = |a, b, _| zip(a, b, u32::max);
    /// PMAXSB.
    PMAXSB = |a, b, _| zip(a, b, i8::max);
    /// PMAXSW.
    PMAXSW = |a, b, _| zip(a, b, i16::max);
    /// PMAXSD.
    PMAXSD = |a, b, _| zip(a, b, i32::max);
    /// PAVGB.
    PAVGB = |a, b, _| zip(a, b, |x: u8, y| ((u16::from(x) + u16::from(y) + 1) >> 1) as u8);
    /// PAVGW.
    PAVGW = |a, b, _| zip(a, b, |x: u16, y| ((u32::from(x) + u32::from(y) + 1) >> 1) as u16);
    /// PSADBW.
    PSADBW = |a, b, _| {
        let (x, y) = (split::<u8>(a), split::<u8>(b));
        let sum = |at: usize| (at..at + 8).map(|i| u64::from(x[i].abs_diff(y[i]))).sum();
        pair(sum(0), sum(8))
    };
    /// MPSADBW.
    MPSADBW = |a, b, imm| {
        let (x, y) = (split::<u8>(a), split::<u8>(b));
        let (from, block) = (usize::from(imm >> 2 & 1) * 4, usize::from(imm & 3) * 4);
        join::<u16>(std::array::from_fn(|i| (0..4).map(|k| u16::from(x[from + i + k].abs_diff(y[block + k]))).sum()))
    };
    /// PHMINPOSUW.
    PHMINPOSUW = |_, b, _| {
        let mut least = (u16::MAX, 0);
        for (i, word) in split::<u16>(b).into_iter().enumerate().rev() {
            if word <= least.0 {
                least = (word, i);
            }
        }
        u128::from(least.0) | (least.1 as u128) << 16
    };
    /// PABSB.
    PABSB = |_, b, _| map(b, i8::wrapping_abs);
    /// PABSW.
    PABSW = |_, b, _| map(b, i16::wrapping_abs);
    /// PABSD.
    PABSD = |_, b, _| map(b, i32::wrapping_abs);
    /// PSIGNB.
    PSIGNB = |a, b, _| zip(a, b, |x: i8, y| x.wrapping_mul(y.signum()));
    /// PSIGNW.
    PSIGNW = |a, b, _| zip(a, b, |x: i16, y| x.wrapping_mul(y.signum()));
    /// PSIGND.
    PSIGND = |a, b, _| zip(a, b, |x: i32, y| x.wrapping_mul(y.signum()));
    /// PHADDW.
    PHADDW = |a, b, _| horizontal(a, b, u16::wrapping_add);
    /// PHADDD.
    PHADDD = |a, b, _| horizontal(a, b, u32::wrapping_add);
    /// PHADDSW.
    PHADDSW = |a, b, _| horizontal(a, b, i16::saturating_add);
    /// PHSUBW.
    PHSUBW = |a, b, _| horizontal(a, b, u16::wrapping_sub);
    /// PHSUBD.
    PHSUBD = |a, b, _| horizontal(a, b, u32::wrapping_sub);
    /// PHSUBSW.
    PHSUBSW = |a, b, _| horizontal(a, b, i16::saturating_sub);
    /// PACKSSWB.
    PACKSSWB = |a, b, _| packsswb(a, b);
    /// PACKSSDW.
    PACKSSDW = |a, b, _| packssdw(a, b);
    /// PACKUSWB.
    PACKUSWB = |a, b, _| packuswb(a, b);
    /// PACKUSDW.
    PACKUSDW = |a, b, _| {
        let (x, y) = (split::<i32>(a), split::<i32>(b));
        join::<u16>(std::array::from_fn(|i| (if i < 4 { x[i] } else { y[i - 4] }).clamp(0, 0xffff) as u16))
    };
    /// PMOVSXBW.
    PMOVSXBW = |_, b, _| { let x = split::<i8>(b); join::<i16>(std::array::from_fn(|i| i16::from(x[i]))) };
    /// PMOVSXBD.
    PMOVSXBD = |_, b, _| { let x = split::<i8>(b); join::<i32>(std::array::from_fn(|i| i32::from(x[i]))) };
    /// PMOVSXBQ.
    PMOVSXBQ = |_, b, _| { let x = split::<i8>(b); join::<i64>(std::array::from_fn(|i| i64::from(x[i]))) };
    /// PMOVSXWD.
    PMOVSXWD = |_, b, _| { let x = split::<i16>(b); join::<i32>(std::array::from_fn(|i| i32::from(x[i]))) };
    /// PMOVSXWQ.
    PMOVSXWQ = |_, b, _| { let x = split::<i16>(b); join::<i64>(std::array::from_fn(|i| i64::from(x[i]))) };
    /// PMOVSXDQ.
    PMOVSXDQ = |_, b, _| { let x = split::<i32>(b); join::<i64>(std::array::from_fn(|i| i64::from(x[i]))) };
    /// PMOVZXBW.
    PMOVZXBW = |_, b, _| { let x = split::<u8>(b); join::<u16>(std::array::from_fn(|i| u16::from(x[i]))) };
    /// PMOVZXBD.
    PMOVZXBD = |_, b, _| { let x = split::<u8>(b); join::<u32>(std::array::from_fn(|i| u32::from(x[i]))) };
    /// PMOVZXBQ.
    PMOVZXBQ = |_, b, _| { let x = split::<u8>(b); join::<u64>(std::array::from_fn(|i| u64::from(x[i]))) };
    /// PMOVZXWD.
    PMOVZXWD = |_, b, _| { let x = split::<u16>(b); join::<u32>(std::array::from_fn(|i| u32::from(x[i]))) };
    /// PMOVZXWQ.
    PMOVZXWQ = |_, b, _| { let x = split::<u16>(b); join::<u64>(std::array::from_fn(|i| u64::from(x[i]))) };
    /// PMOVZXDQ.
    PMOVZXDQ = |_, b, _| { let x = split::<u32>(b); join::<u64>(std::array::from_fn(|i| u64::from(x[i]))) };
}

fn saturate16(x: i32) -> i16 {
    x.clamp(-0x8000, 0x7fff) as i16
}

/// The sign bits of all bytes.
#[inline(always)]
pub fn byte_signs(x: u128) -> u32 {
    swar::signs(low(x)) | swar::signs(high(x)) << 8
}

/// PACKSSWB of two 128-bit operands.
pub fn packsswb(a: u128, b: u128) -> u128 {
    let (x, y) = (split::<i16>(a), split::<i16>(b));
    join::<i8>(std::array::from_fn(|i| (if i < 8 { x[i] } else { y[i - 8] }).clamp(-0x80, 0x7f) as i8))
}

/// PACKUSWB of two 128-bit operands.
pub fn packuswb(a: u128, b: u128) -> u128 {
    let (x, y) = (split::<i16>(a), split::<i16>(b));
    join::<u8>(std::array::from_fn(|i| (if i < 8 { x[i] } else { y[i - 8] }).clamp(0, 0xff) as u8))
}

/// PACKSSDW of two 128-bit operands.
pub fn packssdw(a: u128, b: u128) -> u128 {
    let (x, y) = (split::<i32>(a), split::<i32>(b));
    join::<i16>(std::array::from_fn(|i| saturate16(if i < 4 { x[i] } else { y[i - 4] })))
}

/// Combines neighbours: the low half of the result from `a`, the high half from `b`.
#[inline(always)]
pub fn horizontal<L>(a: u128, b: u128, mut f: impl FnMut(L, L) -> L) -> u128
where
    L: Lane,
    L::Array: AsRef<[L]> + AsMut<[L]>,
{
    let (x, y) = (split::<L>(a), split::<L>(b));
    let mut all = x;
    let half = x.as_ref().len() / 2;
    let (first, second) = all.as_mut().split_at_mut(half);
    for (to, from) in [(first, x.as_ref()), (second, y.as_ref())] {
        for (to, two) in to.iter_mut().zip(from.chunks_exact(2)) {
            *to = f(two[0], two[1]);
        }
    }
    join::<L>(all)
}

/// ZF: `and` is zero; CF: `andn` is zero; the others zero.
fn test_flags(and: u128, andn: u128) -> u64 {
    (if and == 0 { flags::ZF } else { 0 }) | if andn == 0 { flags::CF } else { 0 }
}

/// Declares PTEST-like helpers: flags from `a`, `b` under a mask of bits.
macro_rules! tests {
    ($($(#[$doc:meta])* $name:ident, $name_ymm:ident = $mask:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: Direct = direct!(stringify!($name), |cpu, args| {
                let (x, y) = (xmm(cpu, args.a), xmm(cpu, args.b));
                set_status(cpu, test_flags(x & y & $mask, !x & y & $mask));
                Ok(Flow::Next)
            });
        $(#[$doc])*
        pub static $name_ymm: Direct = direct!(stringify!($name_ymm), |cpu, args| {
                let (x, y) = (ymm(cpu, args.a), ymm(cpu, args.b));
                let and = x[0] & y[0] | x[1] & y[1];
                let andn = !x[0] & y[0] | !x[1] & y[1];
                set_status(cpu, test_flags(and & $mask, andn & $mask));
                Ok(Flow::Next)
            });
    )*};
}
tests! {
    /// PTEST.
    PTEST, PTEST_YMM = u128::MAX;
    /// VTESTPS.
    TESTPS, TESTPS_YMM = 0x80000000_80000000_80000000_80000000u128;
    /// VTESTPD.
    TESTPD, TESTPD_YMM = 0x80000000_00000000_80000000_00000000u128;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_saturate_and_horizontals_pair_up() {
        let words = join::<i16>([300, -300, 5, -5, 127, 128, -128, -129]);
        assert_eq!(split::<i8>(packsswb(words, 0))[..8], [127, -128, 5, -5, 127, 127, -128, -128]);
        assert_eq!(split::<u8>(packuswb(0, words))[8..], [255, 0, 5, 0, 127, 128, 0, 0]);
        let sums = horizontal(join::<u32>([1, 2, 3, 4]), join::<u32>([5, 6, 7, 8]), u32::wrapping_add);
        assert_eq!(split::<u32>(sums), [3, 7, 11, 15]);
        assert_eq!(byte_signs(0x80 | 0x80 << 64 | 0x80 << 120), 0x8101);
        assert_eq!(test_flags(0, 1), flags::ZF);
    }
}
