//! Packed shifts (SDM vol. 2, PSLL*, PSRL*, PSRA*, PSLLDQ, PSRLDQ) and SSE4a's bit fields (AMD APM vol. 4, EXTRQ, INSERTQ).
//!
//! A count of the lane width or more gives zero, or copies of the sign. The count operand is a whole quadword.

use super::lanes::{low, map};
use super::{Direct, Forms, direct, integer_forms, run_mmx, run_sse, run_vex, set_xmm, set_ymm, xmm, ymm};
use crate::helpers::Flow;

/// Declares shifts by a register or memory operand: all 128-bit lanes are shifted by the low quadword of the last operand.
macro_rules! shifts {
    ($($(#[$doc:meta])* $name:ident, $by_imm:ident = |$x:ident, $n:ident| $body:expr;)*) => {
        $(
            $(#[$doc])*
            pub static $name: Forms = {
                #[inline(always)]
                fn lane($x: u128, $n: u64) -> u128 {
                    $body
                }
                Forms {
                    sse: direct!(stringify!($name), |cpu, args| run_sse(cpu, args, |a, b, _| lane(a, low(b)))),
                    vex: direct!(stringify!($name), |cpu, args| run_vex(cpu, args, |a, b, _| lane(a, low(b)))),
                    ymm: direct!(stringify!($name), |cpu, args| {
                            let (x, n) = (ymm(cpu, args.b), low(xmm(cpu, args.c)));
                            set_ymm(cpu, args.a, [lane(x[0], n), lane(x[1], n)]);
                            Ok(Flow::Next)
                        }),
                    mmx: direct!(stringify!($name), |cpu, args| run_mmx(cpu, args, |a, b, _| lane(a, low(b)))),
                }
            };
        )*
        integer_forms! {
            $(
                $(#[$doc])*
                $by_imm = |_, b, imm| {
                    let ($x, $n) = (b, u64::from(imm));
                    $body
                };
            )*
        }
    };
}

shifts! {
    /// PSLLW.
    PSLLW, PSLLW_IMM = |x, n| if n > 15 { 0 } else { map(x, |v: u16| v << n) };
    /// PSLLD.
    PSLLD, PSLLD_IMM = |x, n| if n > 31 { 0 } else { map(x, |v: u32| v << n) };
    /// PSLLQ.
    PSLLQ, PSLLQ_IMM = |x, n| if n > 63 { 0 } else { map(x, |v: u64| v << n) };
    /// PSRLW.
    PSRLW, PSRLW_IMM = |x, n| if n > 15 { 0 } else { map(x, |v: u16| v >> n) };
    /// PSRLD.
    PSRLD, PSRLD_IMM = |x, n| if n > 31 { 0 } else { map(x, |v: u32| v >> n) };
    /// PSRLQ.
    PSRLQ, PSRLQ_IMM = |x, n| if n > 63 { 0 } else { map(x, |v: u64| v >> n) };
    /// PSRAW.
    PSRAW, PSRAW_IMM = |x, n| map(x, |v: i16| v >> n.min(15));
    /// PSRAD.
    PSRAD, PSRAD_IMM = |x, n| map(x, |v: i32| v >> n.min(31));
}

integer_forms! {
    /// PSLLDQ.
    PSLLDQ = |_, b, imm| if imm > 15 { 0 } else { b << (8 * u32::from(imm)) };
    /// PSRLDQ.
    PSRLDQ = |_, b, imm| if imm > 15 { 0 } else { b >> (8 * u32::from(imm)) };
    /// VPSLLVD.
    PSLLVD = |a, b, _| super::lanes::zip(a, b, |x: u32, n| x.checked_shl(n).unwrap_or(0));
    /// VPSLLVQ.
    PSLLVQ = |a, b, _| super::lanes::zip(a, b, |x: u64, n| if n > 63 { 0 } else { x << n });
    /// VPSRLVD.
    PSRLVD = |a, b, _| super::lanes::zip(a, b, |x: u32, n| x.checked_shr(n).unwrap_or(0));
    /// VPSRLVQ.
    PSRLVQ = |a, b, _| super::lanes::zip(a, b, |x: u64, n| if n > 63 { 0 } else { x >> n });
    /// VPSRAVD.
    PSRAVD = |a, b, _| super::lanes::zip(a, b, |x: u32, n| (x as i32 >> n.min(31)) as u32);
}

/// The field mask of `length` bits (6-bit field; 0 means 64).
fn field(length: u64) -> u64 {
    u64::MAX >> ((64 - (length & 63)) & 63)
}

/// EXTRQ: `length` bits of `x` from bit `index`.
fn extract(x: u64, length: u64, index: u64) -> u64 {
    x >> (index & 63) & field(length)
}

/// INSERTQ: the low `length` bits of `y` at bit `index` of `x`.
fn insert(x: u64, y: u64, length: u64, index: u64) -> u64 {
    let mask = field(length) << (index & 63);
    x & !mask | y << (index & 63) & mask
}

/// EXTRQ xmm `a`: length and index are the two bytes of `imm`, or (`c` = 1) the low bytes of register `b`.
pub static EXTRQ: Direct = direct!("extrq", |cpu, args| {
    let control = if args.c != 0 { low(xmm(cpu, args.b)) } else { args.imm };
    let result = extract(low(xmm(cpu, args.a)), control, control >> 8);
    set_xmm(cpu, args.a, u128::from(result));
    Ok(Flow::Next)
});

/// INSERTQ xmm `a`, xmm `b`: length and index from `imm`, or (`c` = 1) from bits 69–64 and 77–72 of `b`.
pub static INSERTQ: Direct = direct!("insertq", |cpu, args| {
    let source = xmm(cpu, args.b);
    let control = if args.c != 0 { super::lanes::high(source) } else { args.imm };
    let result = insert(low(xmm(cpu, args.a)), low(source), control, control >> 8);
    set_xmm(cpu, args.a, u128::from(result));
    Ok(Flow::Next)
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_fields_have_six_bit_lengths() {
        assert_eq!(field(0), u64::MAX);
        assert_eq!(field(64), u64::MAX);
        assert_eq!(field(1), 1);
        assert_eq!(extract(0xabcd, 8, 4), 0xbc);
        assert_eq!(insert(0xffff, 0, 4, 4), 0xff0f);
    }
}
