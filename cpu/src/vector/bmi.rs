//! BMI1, BMI2 and ADX on general registers (SDM vol. 1, 5.1.16; vol. 2). TZCNT and LZCNT are uops.
//!
//! Arguments: `a` destination, `b` r/m, `c` the other source. Undefined status flags are cleared.

use super::set_status;
use crate::fault::Fault;
use crate::helpers::{Args, Flow, Helper};
use crate::state::flags;
use crate::state::slots::RDX;
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// The r/m operand, of 4 or 8 bytes.
fn source(cpu: &mut Vcpu, args: Args) -> Result<u64, Fault> {
    let rm = args.rm(cpu);
    match args.width {
        Width::B8 => cpu.read_rm(rm),
        _ => cpu.read_rm::<u32>(rm).map(u64::from),
    }
}

/// ZF and SF of a result, and CF.
fn status(result: u64, width: Width, carry: bool) -> u64 {
    let mut status = if carry { flags::CF } else { 0 };
    if result == 0 {
        status |= flags::ZF;
    }
    if result >> (width.bits() - 1) & 1 != 0 {
        status |= flags::SF;
    }
    status
}

/// Declares helpers that set `a`; with flags when the function gives a carry.
macro_rules! bit_forms {
    ($($(#[$doc:meta])* $name:ident = |$x:ident, $y:ident, $width:ident| ($body:expr, $carry:expr);)*) => {$(
        $(#[$doc])*
        pub static $name: Helper = Helper {
            name: stringify!($name),
            run: |cpu, args| {
                let $x = source(cpu, args)?;
                let $width = args.width;
                let $y = cpu.state.gpr(args.c) & $width.mask();
                let (result, carry): (u64, Option<bool>) = ($body & $width.mask(), $carry);
                if let Some(carry) = carry {
                    set_status(cpu, status(result, $width, carry));
                }
                cpu.state.set_gpr(args.a, result);
                Ok(Flow::Next)
            },
        };
    )*};
}

bit_forms! {
    /// ANDN: `!c & b`.
    ANDN = |x, y, width| (!y & x, { let _ = width; Some(false) });
    /// BLSI.
    BLSI = |x, _y, width| (x & x.wrapping_neg(), { let _ = width; Some(x != 0) });
    /// BLSMSK.
    BLSMSK = |x, _y, width| (x ^ x.wrapping_sub(1), { let _ = width; Some(x == 0) });
    /// BLSR.
    BLSR = |x, _y, width| (x & x.wrapping_sub(1), { let _ = width; Some(x == 0) });
    /// BEXTR: start and length in the bytes of `c`.
    BEXTR = |x, y, width| (extract(x, y as u8, (y >> 8) as u8), { let _ = width; Some(false) });
    /// BZHI.
    BZHI = |x, y, width| (
        if y & 0xff < 64 { x & ((1 << (y & 0xff)) - 1) } else { x },
        Some(y & 0xff >= u64::from(width.bits()))
    );
    /// PDEP: `b` is the mask.
    PDEP = |x, y, width| (deposit(y, x), { let _ = width; None });
    /// PEXT.
    PEXT = |x, y, width| (gather(y, x), { let _ = width; None });
    /// SARX.
    SARX = |x, y, width| (match width {
        Width::B8 => (x as i64 >> (y & 63)) as u64,
        _ => (x as u32 as i32 >> (y & 31)) as u64,
    }, None);
    /// SHLX.
    SHLX = |x, y, width| (x << (y & u64::from(width.bits() - 1)), None);
    /// SHRX.
    SHRX = |x, y, width| (x >> (y & u64::from(width.bits() - 1)), None);
}

/// RORX: rotates r/m by `imm`.
pub static RORX: Helper = Helper {
    name: "rorx",
    run: |cpu, args| {
        let x = source(cpu, args)?;
        let result = match args.width {
            Width::B8 => x.rotate_right(args.imm as u32 & 63),
            _ => u64::from((x as u32).rotate_right(args.imm as u32 & 31)),
        };
        cpu.state.set_gpr(args.a, result);
        Ok(Flow::Next)
    },
};

/// MULX: rDX × r/m, low half to `c`, then high half to `a`.
pub static MULX: Helper = Helper {
    name: "mulx",
    run: |cpu, args| {
        let x = source(cpu, args)?;
        let product = u128::from(x) * u128::from(cpu.state.gpr(RDX) & args.width.mask());
        cpu.state.set_gpr(args.c, product as u64 & args.width.mask());
        cpu.state.set_gpr(args.a, (product >> args.width.bits()) as u64);
        Ok(Flow::Next)
    },
};

/// Declares additions to `a` with one flag as carry in and out.
macro_rules! carry_forms {
    ($($(#[$doc:meta])* $name:ident = $flag:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: Helper = Helper {
            name: stringify!($name),
            run: |cpu, args| {
                let x = u128::from(source(cpu, args)?);
                let carry = u128::from(cpu.state.rflags & $flag != 0);
                let sum = u128::from(cpu.state.gpr(args.a) & args.width.mask()) + x + carry;
                let out = if sum >> args.width.bits() != 0 { $flag } else { 0 };
                cpu.state.rflags = cpu.state.rflags & !$flag | out;
                cpu.state.set_gpr(args.a, sum as u64 & args.width.mask());
                Ok(Flow::Next)
            },
        };
    )*};
}
carry_forms! {
    /// ADCX.
    ADCX = flags::CF;
    /// ADOX.
    ADOX = flags::OF;
}

fn extract(x: u64, start: u8, length: u8) -> u64 {
    let field = x.checked_shr(u32::from(start)).unwrap_or(0);
    if length < 64 { field & ((1 << length) - 1) } else { field }
}

/// The low bits of `x` at the places where `mask` has ones.
fn deposit(mut x: u64, mut mask: u64) -> u64 {
    let mut result = 0;
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if x & 1 != 0 {
            result |= lowest;
        }
        x >>= 1;
        mask ^= lowest;
    }
    result
}

/// The bits of `x` where `mask` has ones, moved together.
fn gather(x: u64, mut mask: u64) -> u64 {
    let (mut result, mut bit) = (0, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        result |= u64::from(x & lowest != 0) << bit;
        bit += 1;
        mask ^= lowest;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deposit_and_gather_are_inverse() {
        assert_eq!(deposit(0b1011, 0xf0f0_0000), 0x00b0_0000);
        assert_eq!(gather(0x00b0_0000, 0xf0f0_0000), 0b1011);
        assert_eq!(gather(u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(extract(0xabcd, 4, 8), 0xbc);
        assert_eq!(extract(0xabcd, 200, 8), 0);
        assert_eq!(status(0x8000_0000, Width::B4, true), flags::SF | flags::CF);
    }
}
