//! SSE4.2 string comparison: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM vol. 1, 12.10.13; vol. 2, 4.1).

use super::lanes::split;
use super::{Direct, direct, set_status, set_xmm, set_xmm_zeroing, xmm};
use crate::helpers::{Args, Flow};
use crate::state::flags;
use crate::state::slots::{RAX, RCX, RDX};
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// The control byte.
#[derive(Copy, Clone)]
struct Control(u8);

impl Control {
    fn words(self) -> bool {
        self.0 & 1 != 0
    }
    fn signed(self) -> bool {
        self.0 & 2 != 0
    }
    /// Elements in a string: 8 words or 16 bytes.
    fn count(self) -> usize {
        if self.words() { 8 } else { 16 }
    }
    fn elements(self, x: u128) -> [i32; 16] {
        let mut all = [0; 16];
        match (self.words(), self.signed()) {
            (false, false) => all = split::<u8>(x).map(i32::from),
            (false, true) => all = split::<i8>(x).map(i32::from),
            (true, false) => all[..8].copy_from_slice(&split::<u16>(x).map(i32::from)),
            (true, true) => all[..8].copy_from_slice(&split::<i16>(x).map(i32::from)),
        }
        all
    }
}

/// What a comparison gives.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Outcome {
    /// IntRes2.
    bits: u32,
    /// The status flags.
    status: u64,
}

/// Compares strings `a` (first operand) and `b` (second) of the given lengths in elements.
fn compare(a: u128, b: u128, lengths: (usize, usize), control: Control) -> Outcome {
    let (x, y) = (control.elements(a), control.elements(b));
    let ((len_x, len_y), count) = (lengths, control.count());
    let all = (1u32 << count) - 1;
    let mut bits = 0;
    for j in 0..count {
        let hit = match control.0 >> 2 & 3 {
            // Equal any: is y[j] in the set x?
            0 => j < len_y && (0..len_x).any(|i| x[i] == y[j]),
            // Ranges: is y[j] in one of the ranges x[i]..=x[i + 1]?
            1 => j < len_y && (0..len_x / 2).any(|i| x[2 * i] <= y[j] && y[j] <= x[2 * i + 1]),
            // Equal each: two ends match, an end and an element do not.
            2 => match (j < len_x, j < len_y) {
                (true, true) => x[j] == y[j],
                (false, false) => true,
                _ => false,
            },
            // Equal ordered: does x occur in y at j? What lies beyond the register is not compared.
            _ => (0..len_x.min(count - j)).all(|i| j + i < len_y && x[i] == y[j + i]),
        };
        bits |= u32::from(hit) << j;
    }
    let valid = (1u32 << len_y) - 1;
    bits = match control.0 >> 4 & 3 {
        1 => !bits & all,
        3 => bits ^ valid & all,
        _ => bits,
    };
    let mut status = 0;
    let mut set = |condition: bool, flag: u64| {
        if condition {
            status |= flag;
        }
    };
    set(bits != 0, flags::CF);
    set(len_y < count, flags::ZF);
    set(len_x < count, flags::SF);
    set(bits & 1 != 0, flags::OF);
    Outcome { bits, status }
}

/// The length of a string that ends with a zero element.
fn implicit_length(x: u128, control: Control) -> usize {
    let elements = control.elements(x);
    elements[..control.count()].iter().position(|e| *e == 0).unwrap_or(control.count())
}

/// The length in a general register: its magnitude, at most the element count.
fn explicit_length(register: u64, width: Width, control: Control) -> usize {
    let magnitude = match width {
        Width::B8 => (register as i64).unsigned_abs(),
        _ => u64::from((register as i32).unsigned_abs()),
    };
    magnitude.min(control.count() as u64) as usize
}

fn explicit(cpu: &Vcpu, args: Args) -> Outcome {
    let control = Control(args.imm as u8);
    let length = |n| explicit_length(cpu.state.gpr(n), args.width, control);
    compare(xmm(cpu, args.a), xmm(cpu, args.b), (length(RAX), length(RDX)), control)
}

fn implicit(cpu: &Vcpu, args: Args) -> Outcome {
    let control = Control(args.imm as u8);
    let (a, b) = (xmm(cpu, args.a), xmm(cpu, args.b));
    compare(a, b, (implicit_length(a, control), implicit_length(b, control)), control)
}

fn give_index(cpu: &mut Vcpu, args: Args, outcome: Outcome) -> Flow {
    let count = Control(args.imm as u8).count() as u32;
    let index = match outcome.bits {
        0 => count,
        bits if args.imm & 0x40 != 0 => bits.ilog2(),
        bits => bits.trailing_zeros(),
    };
    cpu.state.set_gpr(RCX, u64::from(index));
    set_status(cpu, outcome.status);
    Flow::Next
}

fn give_mask(cpu: &mut Vcpu, args: Args, outcome: Outcome) -> Flow {
    let control = Control(args.imm as u8);
    let mask = if args.imm & 0x40 == 0 {
        u128::from(outcome.bits)
    } else {
        let (bits, ones) = if control.words() { (16, 0xffff) } else { (8, 0xff) };
        (0..control.count()).filter(|i| outcome.bits >> i & 1 != 0).fold(0, |mask, i| mask | ones << (bits * i))
    };
    if args.c != 0 {
        set_xmm_zeroing(cpu, 0, mask);
    } else {
        set_xmm(cpu, 0, mask);
    }
    set_status(cpu, outcome.status);
    Flow::Next
}

/// PCMPESTRI: index to ECX. `width` is that of the lengths in rAX and rDX.
pub static PCMPESTRI: Direct = direct!("pcmpestri", |cpu, args| {
    let outcome = explicit(cpu, args);
    Ok(give_index(cpu, args, outcome))
});

/// PCMPESTRM: mask to XMM0. `c` = 1: VEX, bits 255–128 are cleared.
pub static PCMPESTRM: Direct = direct!("pcmpestrm", |cpu, args| {
    let outcome = explicit(cpu, args);
    Ok(give_mask(cpu, args, outcome))
});

/// PCMPISTRI.
pub static PCMPISTRI: Direct = direct!("pcmpistri", |cpu, args| {
    let outcome = implicit(cpu, args);
    Ok(give_index(cpu, args, outcome))
});

/// PCMPISTRM.
pub static PCMPISTRM: Direct = direct!("pcmpistrm", |cpu, args| {
    let outcome = implicit(cpu, args);
    Ok(give_mask(cpu, args, outcome))
});

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> u128 {
        let mut bytes = [0; 16];
        bytes[..s.len()].copy_from_slice(s.as_bytes());
        u128::from_le_bytes(bytes)
    }

    #[test]
    fn comparisons() {
        // set or needle, haystack, control, bits
        let rows = [
            ("aeiou", "hello", 0x00, 0b10010),
            ("az", "Hello1", 0x04, 0b011110),
            ("hello", "help", 0x08, !0b11000 & 0xffff),
            ("lo", "hello lo", 0x0c, 0b1001000),
            ("lo", "hello", 0x1c, !0b1000 & 0xffff),
        ];
        for (a, b, control, bits) in rows {
            let (x, y, control) = (text(a), text(b), Control(control));
            let lengths = (implicit_length(x, control), implicit_length(y, control));
            assert_eq!(compare(x, y, lengths, control).bits, bits, "{a} {b} {:#x}", control.0);
        }
        assert_eq!(explicit_length(-3i64 as u64, Width::B4, Control(0)), 3);
        assert_eq!(explicit_length(i64::MIN as u64, Width::B8, Control(1)), 8);
    }
}
