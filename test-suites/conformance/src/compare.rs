//! What a case left behind against what it should have: one line for each difference.

use crate::case::{Case, Environment, Expected, Register, Tolerance, Value};
use std::fmt::Write as _;
use umbra_cpu::state::State;

/// The value of a register in a state. ST(n) is relative to TOP.
pub fn register(state: &State, register: Register) -> Value {
    let physical = |n: u8| &state.fpu.regs[usize::from(n & 7)];
    let top = (state.fpu.sw >> 11 & 7) as u8;
    match register {
        Register::Gpr(n) => Value::int(state.gpr(n)),
        Register::Rip => Value::int(state.rip),
        Register::Flags => Value::int(state.rflags),
        Register::Segment(n) => Value::int(state.seg.get(usize::from(n)).map_or(0, |s| u64::from(s.selector))),
        Register::SegmentBase(n) => Value::int(state.seg.get(usize::from(n)).map_or(0, |s| s.base)),
        Register::Cr0 => Value::int(state.control.cr0),
        Register::Cr3 => Value::int(state.control.cr3),
        Register::Dr6 => Value::int(state.dr[6]),
        Register::Dr7 => Value::int(state.dr[7]),
        Register::FpuControl => Value::int(u64::from(state.fpu.cw)),
        Register::FpuStatus => Value::int(u64::from(state.fpu.sw)),
        Register::FpuTags => Value::int(u64::from(state.fpu.tags)),
        Register::St(n) => {
            let st = physical(n.wrapping_add(top));
            let mut bytes = [0; 10];
            bytes[..8].copy_from_slice(&st.significand.to_le_bytes());
            bytes[8..].copy_from_slice(&st.sign_exponent.to_le_bytes());
            Value::bytes(&bytes)
        }
        Register::Mm(n) => Value::int(physical(n).significand),
        Register::Mxcsr => Value::int(u64::from(state.vectors.mxcsr)),
        Register::Vector(n) => {
            let mut bytes = [0; 32];
            for (part, word) in bytes.chunks_exact_mut(8).zip(state.vectors.regs[usize::from(n & 15)]) {
                part.copy_from_slice(&word.to_le_bytes());
            }
            Value::bytes(&bytes)
        }
    }
}

/// Sets a register. Segment registers in real mode take their base from the selector; elsewhere only bases are set.
pub fn set_register(state: &mut State, register: Register, value: &Value, environment: Environment) {
    let low = value.low();
    let top = (state.fpu.sw >> 11 & 7) as u8;
    match register {
        Register::Gpr(n) => state.set_gpr(n, low),
        Register::Rip => state.rip = low,
        Register::Flags => state.rflags = low & 0x003f_7fd5 | 2,
        Register::Segment(n) => {
            if let (Environment::Real, Some(segment)) = (environment, state.seg.get_mut(usize::from(n))) {
                *segment =
                    umbra_cpu::state::Segment { rights: segment.rights, ..umbra_cpu::state::Segment::real(low as u16) };
            }
        }
        Register::SegmentBase(n) => {
            if let Some(segment) = state.seg.get_mut(usize::from(n)) {
                segment.base = low;
            }
        }
        Register::Cr0 | Register::Cr3 => {}
        Register::Dr6 => state.dr[6] = low,
        Register::Dr7 => state.dr[7] = low,
        Register::FpuControl => state.fpu.cw = low as u16,
        Register::FpuStatus => state.fpu.sw = low as u16,
        Register::FpuTags => state.fpu.tags = low as u8,
        Register::St(n) => {
            let bytes = value.as_bytes();
            let physical = &mut state.fpu.regs[usize::from(n.wrapping_add(top) & 7)];
            physical.significand = low;
            physical.sign_exponent = u16::from_le_bytes([byte(bytes, 8), byte(bytes, 9)]);
        }
        Register::Mm(n) => {
            let physical = &mut state.fpu.regs[usize::from(n & 7)];
            (physical.significand, physical.sign_exponent) = (low, 0xffff);
        }
        Register::Mxcsr => state.vectors.mxcsr = low as u32,
        Register::Vector(n) => {
            let words = &mut state.vectors.regs[usize::from(n & 15)];
            for (word, part) in words.iter_mut().zip(value.as_bytes().chunks(8)) {
                let mut bytes = [0; 8];
                bytes[..part.len()].copy_from_slice(part);
                *word = u64::from_le_bytes(bytes);
            }
        }
    }
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// Compares the registers that a case names; a line for each that differs.
pub fn registers(case: &Case, state: &State, out: &mut String) {
    for expected in &case.expect.registers {
        let found = register(state, expected.register);
        if !equal(expected, &found) && !near(case.tolerance, expected, &found) {
            let cut = Value::bytes(&found.as_bytes()[..expected.value.as_bytes().len().min(found.as_bytes().len())]);
            let _ = write!(out, "{}: {cut}, should be {}", expected.register, expected.value);
            if let Some(before) = case.initial(expected.register) {
                let _ = write!(out, " (was {before})");
            }
            if expected.register == Register::Flags {
                let wrong = (found.low() ^ expected.value.low()) & expected.mask;
                let _ = write!(out, ", wrong: {}", flag_names(wrong));
            }
            out.push('\n');
        }
    }
    if case.environment == Environment::Real {
        for (n, segment) in state.seg.iter().enumerate() {
            if segment.base != u64::from(segment.selector) << 4 {
                let name = Register::Segment(n as u8);
                let _ =
                    writeln!(out, "{name}: base {:x} with selector {:x} in real mode", segment.base, segment.selector);
            }
        }
    }
}

fn equal(expected: &Expected, found: &Value) -> bool {
    let wanted = expected.value.as_bytes();
    let low_equal = (expected.value.low() ^ found.low()) & expected.mask == 0;
    low_equal && (wanted.len() <= 8 || found.as_bytes().get(8..wanted.len()) == wanted.get(8..))
}

/// Whether a difference is within the case's tolerance.
fn near(tolerance: Tolerance, expected: &Expected, found: &Value) -> bool {
    let (wanted, found) = (expected.value.as_bytes(), found.as_bytes());
    match (tolerance, expected.register) {
        (Tolerance::Reciprocal, Register::Vector(_)) => {
            let element = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
            wanted.chunks(4).zip(found.chunks(4)).all(|(wanted, found)| {
                let (w, f) = (element(wanted), element(found));
                wanted == found || ((w - f) / w).abs() <= 3.0 / 4096.0
            })
        }
        (Tolerance::LastPlaces(places), Register::St(_)) => {
            let significand = |bytes: &[u8]| Value::bytes(bytes).low();
            let same_exponent = wanted.get(8..10) == found.get(8..10);
            same_exponent && significand(wanted).abs_diff(significand(found)) <= places
        }
        (Tolerance::LastPlaces(_), Register::FpuStatus) => {
            // C1 tells in which direction the last place was rounded.
            (expected.value.low() ^ Value::bytes(found).low()) & !0x200 & expected.mask == 0
        }
        _ => false,
    }
}

/// The names of RFLAGS bits.
fn flag_names(bits: u64) -> String {
    const NAMES: [(u32, &str); 16] = [
        (0, "CF"),
        (2, "PF"),
        (4, "AF"),
        (6, "ZF"),
        (7, "SF"),
        (8, "TF"),
        (9, "IF"),
        (10, "DF"),
        (11, "OF"),
        (12, "IOPL"),
        (13, "IOPL"),
        (14, "NT"),
        (16, "RF"),
        (17, "VM"),
        (18, "AC"),
        (21, "ID"),
    ];
    let named = NAMES.iter().filter(|(bit, _)| bits >> bit & 1 != 0).map(|(_, name)| *name);
    named.collect::<Vec<_>>().join(" ")
}

/// Compares the bytes of a page-sized image, a line for each that differs (at most a few).
pub fn bytes(case: &Case, at: u64, found: &[u8], wanted: &[u8], out: &mut String) {
    if found == wanted {
        return;
    }
    let differing = found.iter().zip(wanted).enumerate().filter(|(_, (f, w))| f != w);
    for (shown, (offset, (found, wanted))) in differing.enumerate() {
        let here = at + offset as u64;
        let mask = case.expect.memory_masks.iter().filter(|(a, _)| *a == here).fold(0xff, |m, (_, mask)| m & mask);
        if (found ^ wanted) & mask == 0 {
            continue;
        }
        if shown >= 40 {
            out.push_str("…\n");
            return;
        }
        let _ = writeln!(out, "[{here:x}]: {found:02x}, should be {wanted:02x}");
    }
}
