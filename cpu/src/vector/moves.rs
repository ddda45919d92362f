//! Data movement between vector registers, and between them and general registers (SDM vol. 1, 10.4.1.1, 11.4.1.1).
//!
//! Plain loads and stores are uops; this is the rest: register moves, halves, duplicates, sign masks, extracts, inserts.

use super::lanes::{high, join, low, pair, split, with_low32, with_low64};
use super::{Direct, direct, general_or_temporary, integer, integer_forms, set_xmm, set_xmm_zeroing, xmm, ymm};
use crate::helpers::{Args, Flow};
use crate::uop::Width;
use crate::vcpu::Vcpu;

integer_forms! {
    /// MOVAPS, MOVUPS, MOVDQA, … between registers.
    MOVE = |_, b, _| b;
    /// MOVQ xmm, xmm.
    MOVQ = |_, b, _| u128::from(low(b));
    /// MOVSS xmm, xmm.
    MOVSS = |a, b, _| with_low32(a, b as u32);
    /// MOVSD xmm, xmm; MOVLPS and MOVLPD from memory.
    MOVSD = |a, b, _| with_low64(a, low(b));
    /// MOVHPS and MOVHPD from memory, MOVLHPS.
    MOVLHPS = |a, b, _| pair(low(a), low(b));
    /// MOVHLPS.
    MOVHLPS = |a, b, _| pair(high(b), high(a));
    /// The high quadword in the low one: for the stores of MOVHPS and MOVHPD.
    HIGH = |_, b, _| u128::from(high(b));
    /// MOVDDUP.
    MOVDDUP = |_, b, _| pair(low(b), low(b));
    /// MOVSHDUP.
    MOVSHDUP = |_, b, _| { let x = split::<u32>(b); join::<u32>([x[1], x[1], x[3], x[3]]) };
    /// MOVSLDUP.
    MOVSLDUP = |_, b, _| { let x = split::<u32>(b); join::<u32>([x[0], x[0], x[2], x[2]]) };
}

/// Declares helpers that compute a general register (or temporary) `a` from vector register `b` and `imm`.
macro_rules! to_general {
    ($($(#[$doc:meta])* $name:ident = |$x:ident, $imm:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: Direct = {
            fn value($x: [u128; 2], $imm: u64) -> u64 {
                $body
            }
            direct!(stringify!($name), |cpu, args| {
                    let value = value(ymm(cpu, args.b), args.imm);
                    set_general(cpu, args, value);
                    Ok(Flow::Next)
                })
        };
    )*};
}

/// Writes a result for a general register, or for a store from a temporary.
#[inline(always)]
pub fn set_general(cpu: &mut Vcpu, args: Args, value: u64) {
    if args.a >= crate::state::fpu::V0 {
        set_xmm_zeroing(cpu, args.a, u128::from(value));
    } else {
        cpu.state.set_gpr(args.a, value & args.width.mask());
    }
}

/// Collects the sign bits of doublewords.
fn dword_signs(x: u128) -> u64 {
    let x = split::<u32>(x);
    u64::from(x[0] >> 31 | x[1] >> 31 << 1 | x[2] >> 31 << 2 | x[3] >> 31 << 3)
}

/// Collects the sign bits of quadwords.
fn qword_signs(x: u128) -> u64 {
    low(x) >> 63 | high(x) >> 63 << 1
}

to_general! {
    /// MOVD, MOVQ r, xmm.
    TO_GENERAL = |x, _imm| low(x[0]);
    /// MOVMSKPS.
    MOVMSKPS = |x, _imm| dword_signs(x[0]);
    /// MOVMSKPD.
    MOVMSKPD = |x, _imm| qword_signs(x[0]);
    /// PMOVMSKB.
    PMOVMSKB = |x, _imm| u64::from(integer::byte_signs(x[0]));
    /// VMOVMSKPS r, ymm.
    MOVMSKPS_YMM = |x, _imm| dword_signs(x[0]) | dword_signs(x[1]) << 4;
    /// VMOVMSKPD r, ymm.
    MOVMSKPD_YMM = |x, _imm| qword_signs(x[0]) | qword_signs(x[1]) << 2;
    /// VPMOVMSKB r, ymm.
    PMOVMSKB_YMM = |x, _imm| u64::from(integer::byte_signs(x[0])) | u64::from(integer::byte_signs(x[1])) << 16;
    /// PEXTRB.
    PEXTRB = |x, imm| (x[0] >> (8 * (imm & 15))) as u8 as u64;
    /// PEXTRW.
    PEXTRW = |x, imm| (x[0] >> (16 * (imm & 7))) as u16 as u64;
    /// PEXTRD, EXTRACTPS.
    PEXTRD = |x, imm| (x[0] >> (32 * (imm & 3))) as u32 as u64;
    /// PEXTRQ.
    PEXTRQ = |x, imm| (x[0] >> (64 * (imm & 1))) as u64;
}

/// MOVD, MOVQ xmm, r: XMM `a` = general register `b` of `width`, zero-extended.
pub static FROM_GENERAL: Direct = direct!("movd_xmm_r", |cpu, args| {
    let value = general_or_temporary(cpu, args.b) & args.width.mask();
    set_xmm(cpu, args.a, u128::from(value));
    Ok(Flow::Next)
});

/// VMOVD, VMOVQ xmm, r.
pub static FROM_GENERAL_VEX: Direct = direct!("vmovd_xmm_r", |cpu, args| {
    let value = general_or_temporary(cpu, args.b) & args.width.mask();
    set_xmm_zeroing(cpu, args.a, u128::from(value));
    Ok(Flow::Next)
});

/// `x` with lane `imm` of `width` replaced.
fn insert(x: u128, value: u64, width: Width, imm: u64) -> u128 {
    let mask = u128::from(width.mask());
    let shift = (imm as u32 * width.bits()) & 127;
    x & !(mask << shift) | (u128::from(value) & mask) << shift
}

/// PINSRB, PINSRW, PINSRD, PINSRQ: lane `imm` of XMM `a` = general register or temporary `b`, of `width`.
pub static PINSR: Direct = direct!("pinsr", |cpu, args| {
    let result = insert(xmm(cpu, args.a), general_or_temporary(cpu, args.b), args.width, args.imm);
    set_xmm(cpu, args.a, result);
    Ok(Flow::Next)
});

/// VPINSR*: XMM `a` = XMM `b` with lane `imm` = general register or temporary `c`.
pub static PINSR_VEX: Direct = direct!("vpinsr", |cpu, args| {
    let result = insert(xmm(cpu, args.b), general_or_temporary(cpu, args.c), args.width, args.imm);
    set_xmm_zeroing(cpu, args.a, result);
    Ok(Flow::Next)
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserts_wrap_their_lane_number() {
        assert_eq!(insert(0, 0x1234, Width::B1, 15), 0x34 << 120);
        assert_eq!(insert(u128::MAX, 0, Width::B2, 8), u128::MAX - 0xffff);
        assert_eq!(insert(0, 7, Width::B8, 3), 7 << 64);
    }
}
