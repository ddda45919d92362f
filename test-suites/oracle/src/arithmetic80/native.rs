//! The host's x87: operands and control word in, one instruction, the whole state out by FXSAVE, which waits for nothing.

use super::reference::Answer;
use super::{Operands, Operation};
use std::arch::asm;

#[repr(C, align(16))]
struct Area([u8; 512]);

/// Runs `$insn` on ST(0) = a, ST(1) = b.
macro_rules! registers {
    ($area:ident, $a:ident, $b:ident, $control:ident, $($insn:literal)*) => {
        // SAFETY: the operands are readable, the area is 512 aligned bytes; FNINIT leaves the x87 empty and masked again.
        unsafe {
            asm!(
                "fninit",
                "fld tbyte ptr [{b}]",
                "fld tbyte ptr [{a}]",
                "fldcw word ptr [{control}]",
                $($insn,)*
                "fxsave [{area}]",
                "fninit",
                a = in(reg) $a.as_ptr(),
                b = in(reg) $b.as_ptr(),
                control = in(reg) &raw const $control,
                area = in(reg) &raw mut $area,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack),
            );
        }
    };
}

/// Runs `$insn` with a memory operand at `memory`.
macro_rules! memory {
    ($area:ident, $a:ident, $memory:ident, $control:ident, $first:literal, $insn:literal) => {
        // SAFETY: as above; ten bytes of memory are writable.
        unsafe {
            asm!(
                "fninit",
                $first,
                "fldcw word ptr [{control}]",
                $insn,
                "fxsave [{area}]",
                "fninit",
                a = in(reg) $a.as_ptr(),
                memory = in(reg) $memory.as_mut_ptr(),
                control = in(reg) &raw const $control,
                area = in(reg) &raw mut $area,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                options(nostack),
            );
        }
    };
}

fn ten((sign_exponent, significand): (u16, u64)) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&significand.to_le_bytes());
    bytes[8..].copy_from_slice(&sign_exponent.to_le_bytes());
    bytes
}

/// The host's answer.
pub fn answer(operation: Operation, operands: Operands, control: u16) -> Answer {
    use Operation as O;
    let mut area = Area([0; 512]);
    let (a, b) = (ten(operands[0]), ten(operands[1]));
    // A pattern that no store leaves behind by chance.
    let mut stored = [0xa5u8; 10];
    let mut loaded = [0u8; 10];
    loaded[..8].copy_from_slice(&operands[0].1.to_le_bytes());
    match operation {
        O::Add => registers!(area, a, b, control, "fadd st(0), st(1)"),
        O::Sub => registers!(area, a, b, control, "fsub st(0), st(1)"),
        O::Mul => registers!(area, a, b, control, "fmul st(0), st(1)"),
        O::Div => registers!(area, a, b, control, "fdiv st(0), st(1)"),
        O::Sqrt => registers!(area, a, b, control, "fsqrt"),
        O::Remainder => registers!(area, a, b, control, "fprem"),
        O::RemainderNearest => registers!(area, a, b, control, "fprem1"),
        O::Round => registers!(area, a, b, control, "frndint"),
        O::Scale => registers!(area, a, b, control, "fscale"),
        O::Compare => registers!(area, a, b, control, "fcom st(1)"),
        O::ToSingle => memory!(area, a, stored, control, "fld tbyte ptr [{a}]", "fstp dword ptr [{memory}]"),
        O::ToDouble => memory!(area, a, stored, control, "fld tbyte ptr [{a}]", "fstp qword ptr [{memory}]"),
        O::ToInt16 => memory!(area, a, stored, control, "fld tbyte ptr [{a}]", "fistp word ptr [{memory}]"),
        O::ToInt32 => memory!(area, a, stored, control, "fld tbyte ptr [{a}]", "fistp dword ptr [{memory}]"),
        O::ToInt64 => memory!(area, a, stored, control, "fld tbyte ptr [{a}]", "fistp qword ptr [{memory}]"),
        O::ToDecimal => memory!(area, a, stored, control, "fld tbyte ptr [{a}]", "fbstp tbyte ptr [{memory}]"),
        O::FromSingle => memory!(area, a, loaded, control, "/* {a} */", "fld dword ptr [{memory}]"),
        O::FromDouble => memory!(area, a, loaded, control, "/* {a} */", "fld qword ptr [{memory}]"),
        O::FromInt64 => memory!(area, a, loaded, control, "/* {a} */", "fild qword ptr [{memory}]"),
    }
    read(operation, &area, &stored, control)
}

fn read(operation: Operation, area: &Area, stored: &[u8; 10], control: u16) -> Answer {
    use Operation as O;
    let word = |at: usize| u16::from_le_bytes([area.0[at], area.0[at + 1]]);
    let eight = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let status = word(2);
    let flags = status as u8 & 0x3f;
    let early = flags & 7 & !(control as u8) != 0;
    let top = (word(40), eight(&area.0[32..40]));
    let low = |bytes: usize| (0, eight(&stored[..bytes]));
    let result = match operation {
        O::ToSingle => low(4),
        O::ToDouble | O::ToInt64 => low(8),
        O::ToInt16 => low(2),
        O::ToInt32 => low(4),
        O::ToDecimal => (eight(&stored[8..]) as u16, eight(&stored[..8])),
        // C3, C2 and C0: zero is greater.
        O::Compare => (
            0,
            match status & 0x4500 {
                0 => 2,
                0x100 => 0,
                0x4000 => 1,
                _ => 3,
            },
        ),
        _ => top,
    };
    let stores = matches!(operation, O::ToSingle | O::ToDouble | O::ToInt16 | O::ToInt32 | O::ToInt64 | O::ToDecimal);
    let late = stores && flags & 0x18 & !(control as u8) != 0;
    let written = operation == O::Compare || !early && !late;
    let quotient = matches!(operation, O::Remainder | O::RemainderNearest).then(|| {
        let bit = |condition: u16, to: u8| if status & condition != 0 { to } else { 0 };
        (status & 0x400 == 0).then(|| bit(0x100, 4) | bit(0x4000, 2) | bit(0x200, 1))
    });
    Answer {
        result: written.then_some(result),
        flags,
        up: status & 0x200 != 0 && written,
        quotient: if written { quotient } else { None },
    }
}
