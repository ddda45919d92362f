//! MMX (SDM vol. 1, chapter 9): the register file that it shares with the x87 unit, and those MMX forms whose lanes
//! mix, so that they do not follow from the 128-bit function.
//!
//! Any MMX instruction but EMMS makes TOP zero and all tags valid; a write sets sign and exponent to ones
//! (SDM vol. 1, 9.5). A pending x87 exception is raised first (#MF).

use super::lanes::{Lane, high, join, low, pair, split};
use super::{Direct, direct, finish, integer, set_xmm, shuffle, xmm};
use crate::fault::Fault;
use crate::helpers::{Args, Flow, Helper};
use crate::state::fpu::{St, V0};
use crate::state::slots::{RDI, T0};
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// The exception summary bit of the x87 status word.
const ES: u16 = 1 << 7;
/// The TOP field of the x87 status word.
const TOP: u16 = 7 << 11;

/// MMX register `n`, or the low quadword of temporary `n`.
#[inline(always)]
pub fn read(cpu: &Vcpu, n: u8) -> u64 {
    if n >= V0 { cpu.state.vectors.regs[n as usize][0] } else { cpu.state.fpu.regs[(n & 7) as usize].significand }
}

/// Sets MMX register `n`.
#[inline(always)]
pub fn write(cpu: &mut Vcpu, n: u8, value: u64) {
    cpu.state.fpu.regs[(n & 7) as usize] = St { significand: value, sign_exponent: 0xffff };
}

/// #MF if an x87 exception is pending.
#[inline(always)]
pub fn check(cpu: &Vcpu) -> Result<(), Fault> {
    if cpu.state.fpu.sw & ES != 0 { Err(Fault::mf()) } else { Ok(()) }
}

/// What every MMX instruction but EMMS does first.
#[inline(always)]
pub fn enter(cpu: &mut Vcpu) -> Result<(), Fault> {
    check(cpu)?;
    cpu.state.fpu.sw &= !TOP;
    cpu.state.fpu.tags = 0xff;
    Ok(())
}

/// The look at pending x87 errors alone, before a memory operand is loaded.
pub static CHECK: Direct = direct!("mmx_check", |cpu, _| {
    check(cpu)?;
    Ok(Flow::Next)
});

/// EMMS: all registers empty.
pub static EMMS: Direct = direct!("emms", |cpu, _| {
    check(cpu)?;
    cpu.state.fpu.sw &= !TOP;
    cpu.state.fpu.tags = 0;
    Ok(Flow::Next)
});

/// Declares MMX helpers from pure functions of two quadwords and an immediate.
macro_rules! mmx_forms {
    ($($(#[$doc:meta])* $name:ident = |$a:pat_param, $b:pat_param, $imm:pat_param| $body:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: Direct = {
            fn lane($a: u64, $b: u64, $imm: u8) -> u64 {
                $body
            }
            direct!(stringify!($name), |cpu, args| {
                    let (x, y) = (read(cpu, args.a), read(cpu, args.b));
                    enter(cpu)?;
                    write(cpu, args.a, lane(x, y, args.imm as u8));
                    Ok(Flow::Next)
                })
        };
    )*};
}

/// The high halves of two quadwords as the low half of a 128-bit function's operands.
fn high_halves(f: fn(u128, u128) -> u128, a: u64, b: u64) -> u64 {
    high(f(u128::from(a), u128::from(b)))
}

/// A pack or horizontal operation: its first half comes from `a`, its second from `b`.
fn folded(f: fn(u128, u128) -> u128, a: u64, b: u64) -> u64 {
    low(f(pair(a, b), 0))
}

mmx_forms! {
    /// MOVQ mm, mm or m64.
    MOVE = |_, b, _| b;
    /// PUNPCKHBW.
    PUNPCKHBW = |a, b, _| high_halves(shuffle::interleave_low::<u8>, a, b);
    /// PUNPCKHWD.
    PUNPCKHWD = |a, b, _| high_halves(shuffle::interleave_low::<u16>, a, b);
    /// PUNPCKHDQ.
    PUNPCKHDQ = |a, b, _| high_halves(shuffle::interleave_low::<u32>, a, b);
    /// PACKSSWB.
    PACKSSWB = |a, b, _| folded(integer::packsswb, a, b);
    /// PACKSSDW.
    PACKSSDW = |a, b, _| folded(integer::packssdw, a, b);
    /// PACKUSWB.
    PACKUSWB = |a, b, _| folded(integer::packuswb, a, b);
    /// PHADDW.
    PHADDW = |a, b, _| folded(|x, y| integer::horizontal::<u16>(x, y, u16::wrapping_add), a, b);
    /// PHADDD.
    PHADDD = |a, b, _| folded(|x, y| integer::horizontal::<u32>(x, y, u32::wrapping_add), a, b);
    /// PHADDSW.
    PHADDSW = |a, b, _| folded(|x, y| integer::horizontal::<i16>(x, y, i16::saturating_add), a, b);
    /// PHSUBW.
    PHSUBW = |a, b, _| folded(|x, y| integer::horizontal::<u16>(x, y, u16::wrapping_sub), a, b);
    /// PHSUBD.
    PHSUBD = |a, b, _| folded(|x, y| integer::horizontal::<u32>(x, y, u32::wrapping_sub), a, b);
    /// PHSUBSW.
    PHSUBSW = |a, b, _| folded(|x, y| integer::horizontal::<i16>(x, y, i16::saturating_sub), a, b);
    /// PSHUFW.
    PSHUFW = |_, b, imm| {
        let x = split::<u16>(u128::from(b));
        low(join::<u16>(std::array::from_fn(|i| x[(imm >> (2 * (i & 3)) & 3) as usize])))
    };
    /// PSHUFB: three index bits.
    PSHUFB = |a, b, _| {
        let x = a.to_le_bytes();
        let pick = |i: u8| if i & 0x80 != 0 { 0 } else { x[(i & 7) as usize] };
        u64::from_le_bytes(b.to_le_bytes().map(pick))
    };
    /// PALIGNR.
    PALIGNR = |a, b, imm| if imm >= 16 { 0 } else { low(pair(b, a) >> (8 * u32::from(imm))) };
}

/// MOVQ2DQ and the register forms of CVTPI2PD's kind need a plain copy: XMM `a` = zero-extended MMX `b`.
pub static MOVQ2DQ: Direct = direct!("movq2dq", |cpu, args| {
    let value = read(cpu, args.b);
    enter(cpu)?;
    set_xmm(cpu, args.a, u128::from(value));
    Ok(Flow::Next)
});

/// MOVDQ2Q: MMX `a` = low quadword of XMM `b`.
pub static MOVDQ2Q: Direct = direct!("movdq2q", |cpu, args| {
    let value = low(xmm(cpu, args.b));
    enter(cpu)?;
    write(cpu, args.a, value);
    Ok(Flow::Next)
});

/// MOVD/MOVQ mm, r: MMX `a` = general register `b` of `width`, zero-extended.
pub static FROM_GENERAL: Direct = direct!("movd_mm_r", |cpu, args| {
    let value = super::general_or_temporary(cpu, args.b) & args.width.mask();
    enter(cpu)?;
    write(cpu, args.a, value);
    Ok(Flow::Next)
});

/// MOVD/MOVQ r, mm: general register `a` = MMX `b` of `width`.
pub static TO_GENERAL: Direct = direct!("movd_r_mm", |cpu, args| {
    enter(cpu)?;
    let value = read(cpu, args.b) & args.width.mask();
    cpu.state.set_gpr(args.a, value);
    Ok(Flow::Next)
});

/// MOVD/MOVQ/MOVNTQ to memory: `width` bytes of MMX `a` to the offset in T0.
pub static STORE: Helper = Helper {
    name: "mmx_store",
    run: |cpu, args| {
        check(cpu)?;
        let (value, offset) = (read(cpu, args.a), cpu.state.slots.get(T0));
        match args.width {
            Width::B8 => cpu.store(args.seg, offset, value)?,
            _ => cpu.store(args.seg, offset, value as u32)?,
        }
        enter(cpu)?;
        Ok(Flow::Next)
    },
};

/// PMOVMSKB r, mm.
pub static PMOVMSKB: Direct = direct!("pmovmskb_mm", |cpu, args| {
    enter(cpu)?;
    let mask = integer::byte_signs(u128::from(read(cpu, args.b)));
    cpu.state.set_gpr(args.a, u64::from(mask));
    Ok(Flow::Next)
});

/// PEXTRW r, mm, imm8.
pub static PEXTRW: Direct = direct!("pextrw_mm", |cpu, args| {
    enter(cpu)?;
    let word = read(cpu, args.b) >> (16 * (args.imm & 3)) & 0xffff;
    cpu.state.set_gpr(args.a, word);
    Ok(Flow::Next)
});

/// PINSRW mm, r or m16, imm8.
pub static PINSRW: Direct = direct!("pinsrw_mm", |cpu, args| {
    let word = super::general_or_temporary(cpu, args.b) & 0xffff;
    enter(cpu)?;
    let shift = 16 * (args.imm & 3);
    let old = read(cpu, args.a);
    write(cpu, args.a, old & !(0xffff << shift) | word << shift);
    Ok(Flow::Next)
});

/// CVTPI2PS xmm, mm or m64: the low two singles of XMM `a` from the doublewords of `b`.
pub static CVTPI2PS: Direct = direct!("cvtpi2ps", |cpu, args| {
    let source = read(cpu, args.b);
    // An operand in memory makes no transition to MMX, and no pending x87 error is looked at.
    if args.b < V0 {
        check(cpu)?;
    }
    let mut unit = super::unit(cpu);
    let x = i32::split(u128::from(source));
    let mut single = |v: i32| u64::from(super::native::single_of(i64::from(v), &mut unit).0);
    let result = single(x[0]) | single(x[1]) << 32;
    finish(cpu, &unit)?;
    if args.b < V0 {
        enter(cpu)?;
    }
    let old = xmm(cpu, args.a);
    set_xmm(cpu, args.a, pair(result, high(old)));
    Ok(Flow::Next)
});

/// CVTPI2PD xmm, mm or m64: two doubles of XMM `a` from the doublewords of `b`; always exact.
pub static CVTPI2PD: Direct = direct!("cvtpi2pd", |cpu, args| {
    let source = read(cpu, args.b);
    if args.b < V0 {
        check(cpu)?;
        enter(cpu)?;
    }
    let double = |v: u32| f64::from(v as i32).to_bits();
    set_xmm(cpu, args.a, pair(double(source as u32), double((source >> 32) as u32)));
    Ok(Flow::Next)
});

/// MASKMOVQ: the bytes of MMX `a` whose mask byte in MMX `b` has its sign set, to \[rDI\]; `width` is the address width.
pub static MASKMOVQ: Helper = Helper {
    name: "maskmovq",
    run: |cpu, args| {
        check(cpu)?;
        let (value, mask) = (u128::from(read(cpu, args.a)), u128::from(read(cpu, args.b)));
        store_masked_bytes(cpu, args, value, mask)?;
        enter(cpu)?;
        Ok(Flow::Next)
    },
};

/// MASKMOVDQU: the same for XMM registers.
pub static MASKMOVDQU: Helper = Helper {
    name: "maskmovdqu",
    run: |cpu, args| {
        let (value, mask) = (xmm(cpu, args.a), xmm(cpu, args.b));
        store_masked_bytes(cpu, args, value, mask)?;
        Ok(Flow::Next)
    },
};

/// Stores selected bytes at \[rDI\]: all of them can be written, or none is.
fn store_masked_bytes(cpu: &mut Vcpu, args: Args, value: u128, mask: u128) -> Result<(), Fault> {
    let mask = integer::byte_signs(mask);
    if mask == 0 {
        return Ok(());
    }
    let offset = cpu.state.gpr(RDI) & args.width.mask();
    let (first, last) = (mask.trailing_zeros(), mask.ilog2());
    let start = offset.wrapping_add(u64::from(first)) & args.width.mask();
    cpu.reserve(args.seg, start, u64::from(last - first + 1))?;
    for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
        if mask >> i & 1 != 0 {
            cpu.store(args.seg, offset.wrapping_add(i as u64) & args.width.mask(), byte)?;
        }
    }
    Ok(())
}
