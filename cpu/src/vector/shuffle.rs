//! Shuffles, unpacks, blends, alignment (SDM vol. 1, 10.4.4, 11.4.1.4, 12.6.4, 12.10.4).

use super::lanes::{Lane, high, join, low, pair, split};
use super::{Direct, direct, integer_forms, run_sse, set_ymm, xmm, ymm};
use crate::fault::Fault;
use crate::helpers::{Args, Flow};
use crate::vcpu::Vcpu;

/// Interleaves the low halves: lane 0 of `a`, lane 0 of `b`, …
#[inline(always)]
pub fn interleave_low<L>(a: u128, b: u128) -> u128
where
    L: Lane,
    L::Array: AsRef<[L]> + AsMut<[L]>,
{
    let (x, y) = (split::<L>(a), split::<L>(b));
    let mut all = x;
    for ((two, x), y) in all.as_mut().chunks_exact_mut(2).zip(x.as_ref()).zip(y.as_ref()) {
        two[0] = *x;
        two[1] = *y;
    }
    join::<L>(all)
}

/// Interleaves the high halves.
#[inline(always)]
fn interleave_high<L>(a: u128, b: u128) -> u128
where
    L: Lane,
    L::Array: AsRef<[L]> + AsMut<[L]>,
{
    interleave_low::<L>(a >> 64, b >> 64)
}

/// Four doublewords chosen from `x` by the two-bit fields of `imm`.
#[inline(always)]
fn pick4(x: [u32; 4], imm: u8) -> [u32; 4] {
    std::array::from_fn(|i| x[(imm >> (2 * i) & 3) as usize])
}

/// Four words of a quadword chosen by the two-bit fields of `imm`.
#[inline(always)]
fn pick_words(x: u64, imm: u8) -> u64 {
    (0..4).map(|i| (x >> (16 * (imm >> (2 * i) & 3)) & 0xffff) << (16 * i)).sum()
}

/// Lanes of `b` where the bits of `imm` are set, else of `a`; bits beyond eight start over.
#[inline(always)]
fn blend<L>(a: u128, b: u128, imm: u8) -> u128
where
    L: Lane,
    L::Array: AsRef<[L]> + AsMut<[L]>,
{
    let (mut x, y) = (split::<L>(a), split::<L>(b));
    for (i, (x, y)) in x.as_mut().iter_mut().zip(y.as_ref()).enumerate() {
        if imm >> (i & 7) & 1 != 0 {
            *x = *y;
        }
    }
    join::<L>(x)
}

/// Two quadwords, from `a` and `b`, chosen by the low bits of `imm`.
#[inline(always)]
fn shufpd(a: u128, b: u128, imm: u8) -> u128 {
    let quad = |x: u128, bit: u8| if bit & 1 != 0 { high(x) } else { low(x) };
    pair(quad(a, imm), quad(b, imm >> 1))
}

integer_forms! {
    /// PUNPCKLBW.
    PUNPCKLBW = |a, b, _| interleave_low::<u8>(a, b);
    /// PUNPCKLWD.
    PUNPCKLWD = |a, b, _| interleave_low::<u16>(a, b);
    /// PUNPCKLDQ, UNPCKLPS.
    PUNPCKLDQ = |a, b, _| interleave_low::<u32>(a, b);
    /// PUNPCKLQDQ, UNPCKLPD.
    PUNPCKLQDQ = |a, b, _| pair(low(a), low(b));
    /// PUNPCKHBW.
    PUNPCKHBW = |a, b, _| interleave_high::<u8>(a, b);
    /// PUNPCKHWD.
    PUNPCKHWD = |a, b, _| interleave_high::<u16>(a, b);
    /// PUNPCKHDQ, UNPCKHPS.
    PUNPCKHDQ = |a, b, _| interleave_high::<u32>(a, b);
    /// PUNPCKHQDQ, UNPCKHPD.
    PUNPCKHQDQ = |a, b, _| pair(high(a), high(b));
    /// PSHUFD, VPERMILPS by immediate.
    PSHUFD = |_, b, imm| join::<u32>(pick4(split::<u32>(b), imm));
    /// PSHUFLW.
    PSHUFLW = |_, b, imm| pair(pick_words(low(b), imm), high(b));
    /// PSHUFHW.
    PSHUFHW = |_, b, imm| pair(low(b), pick_words(high(b), imm));
    /// SHUFPS.
    SHUFPS = |a, b, imm| {
        let (x, y) = (pick4(split::<u32>(a), imm), pick4(split::<u32>(b), imm));
        join::<u32>([x[0], x[1], y[2], y[3]])
    };
    /// SHUFPD.
    SHUFPD = |a, b, imm| shufpd(a, b, imm);
    /// PSHUFB.
    PSHUFB = |a, b, _| {
        let x = split::<u8>(a);
        join::<u8>(split::<u8>(b).map(|i| if i & 0x80 != 0 { 0 } else { x[(i & 15) as usize] }))
    };
    /// PALIGNR.
    PALIGNR = |a, b, imm| match u32::from(imm) {
        0 => b,
        n @ 1..=15 => b >> (8 * n) | a << (128 - 8 * n),
        n @ 16..=31 => a >> (8 * (n - 16)),
        _ => 0,
    };
    /// PBLENDW.
    PBLENDW = |a, b, imm| blend::<u16>(a, b, imm);
    /// BLENDPS.
    BLENDPS = |a, b, imm| blend::<u32>(a, b, imm);
    /// BLENDPD.
    BLENDPD = |a, b, imm| blend::<u64>(a, b, imm);
    /// INSERTPS from a register (from memory the source select bits are cleared by lift).
    INSERTPS = |a, b, imm| {
        let mut x = split::<u32>(a);
        x[usize::from(imm >> 4 & 3)] = split::<u32>(b)[usize::from(imm >> 6)];
        join::<u32>(std::array::from_fn(|i| if imm >> i & 1 != 0 { 0 } else { x[i] }))
    };
    /// VPERMILPS by register.
    PERMILPS = |a, b, _| { let x = split::<u32>(a); join::<u32>(split::<u32>(b).map(|i| x[(i & 3) as usize])) };
    /// VPERMILPD by register.
    PERMILPD = |a, b, _| shufpd(a, a, (low(b) >> 1 & 1 | high(b) & 2) as u8);
    /// VPERMILPD by immediate, 128 bits.
    PERMILPD_IMM = |_, b, imm| shufpd(b, b, imm);
}

/// Bits of `b` where the lane of `mask` has its sign set, else of `a`. `L` is a signed lane type.
#[inline(always)]
fn select(a: u128, b: u128, mask: u128) -> u128 {
    b & mask | a & !mask
}

/// A variable blend's mask made whole: each lane all ones or all zeros by its sign.
macro_rules! variable_blends {
    ($($(#[$doc:meta])* $name:ident, $vex:ident, $lane:ty;)*) => {$(
        $(#[$doc])*
        /// Legacy form: the mask is XMM0.
        pub static $name: Direct = direct!(stringify!($name), |cpu, args| {
                let mask = super::lanes::map(xmm(cpu, 0), |x: $lane| x >> (<$lane>::BITS - 1));
                run_sse(cpu, args, |a, b, _| select(a, b, mask))
            });
        $(#[$doc])*
        /// VEX form: `a = b or c`, mask in register `imm`; 256 bits wide when `width` is 8 bytes.
        pub static $vex: Direct = direct!(stringify!($vex), |cpu, args| {
                run_variable(cpu, args, |a, b, m| {
                    select(a, b, super::lanes::map(m, |x: $lane| x >> (<$lane>::BITS - 1)))
                })
            });
    )*};
}
variable_blends! {
    /// PBLENDVB.
    PBLENDVB, VPBLENDVB, i8;
    /// BLENDVPS.
    BLENDVPS, VBLENDVPS, i32;
    /// BLENDVPD.
    BLENDVPD, VBLENDVPD, i64;
}

#[inline(always)]
fn run_variable(cpu: &mut Vcpu, args: Args, f: impl Fn(u128, u128, u128) -> u128) -> Result<Flow, Fault> {
    let (x, y, m) = (ymm(cpu, args.b), ymm(cpu, args.c), ymm(cpu, args.imm as u8 & 15));
    let upper = if args.width == crate::uop::Width::B8 { f(x[1], y[1], m[1]) } else { 0 };
    set_ymm(cpu, args.a, [f(x[0], y[0], m[0]), upper]);
    Ok(Flow::Next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_pick_by_fields() {
        assert_eq!(pick_words(0x0003_0002_0001_0000, 0b00_01_10_11), 0x0000_0001_0002_0003);
        assert_eq!(pick4([10, 11, 12, 13], 0b11_00_01_10), [12, 11, 10, 13]);
        let (a, b) = (pair(1, 2), pair(3, 4));
        assert_eq!(shufpd(a, b, 0b01), pair(2, 3));
        assert_eq!(
            interleave_low::<u32>(join::<u32>([1, 2, 3, 4]), join::<u32>([5, 6, 7, 8])),
            join::<u32>([1, 5, 2, 6])
        );
        assert_eq!(blend::<u64>(a, b, 2), pair(1, 4));
    }
}
