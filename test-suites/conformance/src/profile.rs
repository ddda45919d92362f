//! What a recording on an 8086 or 80286 shows differently from a 386 or later, as tables with the manual's reason.
//!
//! A rule either leaves flag bits out of the comparison (the manuals call them undefined), expects #UD where later
//! processors raise it, or leaves a case out. "SDM" is Intel's Software Developer's Manual; "compatibility" is its vol. 3,
//! chapter 23 (Architecture compatibility), 286 and 8086 sections. Registers and memory of an exception frame are masked alike.

use crate::case::{Case, End, Register};
use crate::moo::{MooTest, Recorded};
use umbra_cpu::decode::Encoding;

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;

/// FLAGS bits 12–15 and their reason: masked in every recording of an 8086 or 80286, also in memory images of FLAGS.
pub const HIGH_FLAGS: (u64, &str) = (
    0xf000,
    "FLAGS bits 12-15: all ones on an 8086, zero on a 286 in real mode, IOPL and NT later (compatibility, vol. 3 23.7)",
);

/// When a rule applies beyond its opcode.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum When {
    Always,
    /// The shift count, limited to 5 bits, is neither 0 nor 1.
    CountNotOne,
    /// The shift count, limited to 5 bits, is not 0.
    CountNotZero,
    /// The shift count, limited to 5 bits, is at least the operand's width.
    CountBeyondWidth,
    /// CL is greater than 31.
    CountAbove31,
    /// The ModRM byte names a register, not memory.
    RegisterOperand,
    /// A REP or REPNE prefix.
    Repeated,
    /// The expected end is in the handler of vector 0.
    DivideError,
    /// AL is FAh or more.
    AlFromFa,
    /// AF is set, and AL is 9Ah to 9Fh, or below 6 for DAS.
    DecimalBand,
}

/// What a rule does.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Effect {
    /// These flags are not compared.
    Undefined(u64),
    /// The case is left out.
    LeaveOut,
}

/// One row: opcodes first to last, the ModRM reg fields as a bit set (0xff: any), condition, effect, reason.
struct Rule {
    opcodes: (u8, u8),
    digits: u8,
    when: When,
    effect: Effect,
    reason: &'static str,
}

const fn rule(opcodes: (u8, u8), digits: u8, when: When, effect: Effect, reason: &'static str) -> Rule {
    Rule { opcodes, digits, when, effect, reason }
}

use Effect::{LeaveOut, Undefined};
use When::{
    AlFromFa, Always, CountAbove31, CountBeyondWidth, CountNotOne, CountNotZero, DecimalBand, DivideError,
    RegisterOperand, Repeated,
};

const ANY: u8 = 0xff;
/// SHL, SHR, SAL, SAR.
const SHIFTS: u8 = 0b1111_0000;
/// SHL, SHR, SAL: CF is undefined beyond the width.
const LOGICAL_SHIFTS: u8 = 0b0111_0000;

/// Flags that the SDM (vol. 2) calls undefined after an instruction. They hold for every recording.
#[rustfmt::skip]
const UNDEFINED: &[Rule] = &[
    rule((0x08, 0x0d), ANY, Always, Undefined(AF), "OR: AF is undefined (SDM vol. 2, OR)"),
    rule((0x20, 0x25), ANY, Always, Undefined(AF), "AND: AF is undefined (SDM vol. 2, AND)"),
    rule((0x30, 0x35), ANY, Always, Undefined(AF), "XOR: AF is undefined (SDM vol. 2, XOR)"),
    rule((0x80, 0x83), 0b0101_0010, Always, Undefined(AF), "AND, OR, XOR with an immediate: AF is undefined (SDM vol. 2)"),
    rule((0x84, 0x85), ANY, Always, Undefined(AF), "TEST: AF is undefined (SDM vol. 2, TEST)"),
    rule((0xa8, 0xa9), ANY, Always, Undefined(AF), "TEST: AF is undefined (SDM vol. 2, TEST)"),
    rule((0xf6, 0xf7), 0b0000_0011, Always, Undefined(AF), "TEST: AF is undefined (SDM vol. 2, TEST)"),
    rule((0x27, 0x27), ANY, Always, Undefined(OF), "DAA: OF is undefined (SDM vol. 2, DAA)"),
    rule((0x2f, 0x2f), ANY, Always, Undefined(OF), "DAS: OF is undefined (SDM vol. 2, DAS)"),
    rule((0x37, 0x37), ANY, Always, Undefined(OF | SF | ZF | PF), "AAA: OF, SF, ZF, PF are undefined (SDM vol. 2, AAA)"),
    rule((0x3f, 0x3f), ANY, Always, Undefined(OF | SF | ZF | PF), "AAS: OF, SF, ZF, PF are undefined (SDM vol. 2, AAS)"),
    rule((0xd4, 0xd4), ANY, Always, Undefined(OF | AF | CF), "AAM: OF, AF, CF are undefined (SDM vol. 2, AAM)"),
    rule((0xd4, 0xd4), ANY, DivideError, Undefined(OF | SF | ZF | AF | PF | CF), "AAM by 0: the flags in the frame of #DE are undefined (SDM vol. 2, AAM)"),
    rule((0xd5, 0xd5), ANY, Always, Undefined(OF | AF | CF), "AAD: OF, AF, CF are undefined (SDM vol. 2, AAD)"),
    rule((0x69, 0x69), ANY, Always, Undefined(SF | ZF | AF | PF), "IMUL: SF, ZF, AF, PF are undefined (SDM vol. 2, IMUL)"),
    rule((0x6b, 0x6b), ANY, Always, Undefined(SF | ZF | AF | PF), "IMUL: SF, ZF, AF, PF are undefined (SDM vol. 2, IMUL)"),
    rule((0xf6, 0xf7), 0b0011_0000, Always, Undefined(SF | ZF | AF | PF), "MUL, IMUL: SF, ZF, AF, PF are undefined (SDM vol. 2)"),
    rule((0xf6, 0xf7), 0b1100_0000, Always, Undefined(OF | SF | ZF | AF | PF | CF), "DIV, IDIV: all status flags are undefined (SDM vol. 2)"),
    rule((0xc0, 0xc1), SHIFTS, CountNotZero, Undefined(AF), "shifts: AF is undefined for a count other than 0 (SDM vol. 2, SAL)"),
    rule((0xd0, 0xd3), SHIFTS, CountNotZero, Undefined(AF), "shifts: AF is undefined for a count other than 0 (SDM vol. 2, SAL)"),
    rule((0xc0, 0xc1), ANY, CountNotOne, Undefined(OF), "shifts and rotates: OF is undefined for a count above 1 (SDM vol. 2)"),
    rule((0xd2, 0xd3), ANY, CountNotOne, Undefined(OF), "shifts and rotates: OF is undefined for a count above 1 (SDM vol. 2)"),
    rule((0xc0, 0xc1), LOGICAL_SHIFTS, CountBeyondWidth, Undefined(CF), "SHL, SHR: CF is undefined for a count of the width or more (SDM vol. 2, SAL)"),
    rule((0xd2, 0xd3), LOGICAL_SHIFTS, CountBeyondWidth, Undefined(CF), "SHL, SHR: CF is undefined for a count of the width or more (SDM vol. 2, SAL)"),
];

/// Forms that an 8086 gives another meaning than a 386 or later.
#[rustfmt::skip]
const DIFFERENT_8086: &[Rule] = &[
    rule((0x54, 0x54), ANY, Always, LeaveOut, "PUSH SP pushes the new SP on an 8086, the old one later (compatibility, vol. 3 23.27)"),
    rule((0xff, 0xff), 0b0100_0000, RegisterOperand, LeaveOut, "PUSH SP pushes the new SP on an 8086, the old one later (compatibility, vol. 3 23.27)"),
    rule((0x60, 0x6f), ANY, Always, LeaveOut, "60h-6Fh are not defined on an 8086 (it repeats 70h-7Fh)"),
    rule((0xc0, 0xc1), ANY, Always, LeaveOut, "C0h, C1h are not defined on an 8086 (it repeats C2h, C3h)"),
    rule((0xc8, 0xc9), ANY, Always, LeaveOut, "C8h, C9h are not defined on an 8086 (it repeats CAh, CBh)"),
    rule((0xd9, 0xdf), ANY, Always, LeaveOut, "x87 instructions: the recording has no coprocessor, later processors have one"),
    rule((0xd0, 0xd3), 0b0100_0000, Always, LeaveOut, "shift group /6 is not defined on an 8086"),
    rule((0xd2, 0xd3), ANY, CountAbove31, LeaveOut, "an 8086 does not limit the shift count to 5 bits (compatibility, SDM vol. 2 SAL)"),
    rule((0xf6, 0xf7), 0b1111_0000, Repeated, LeaveOut, "REP before MUL, IMUL, DIV, IDIV is not defined; an 8086 negates the result"),
    rule((0xf6, 0xf7), 0b1100_0000, DivideError, LeaveOut, "#DE: an 8086 saves the address after the instruction, and IDIV cannot give -128 or -32768 (compatibility)"),
    rule((0xd4, 0xd4), ANY, DivideError, LeaveOut, "#DE: an 8086 saves the address after the instruction (compatibility)"),
    rule((0xff, 0xff), 0b1000_0000, Always, LeaveOut, "FFh /7 is not defined on an 8086"),
    rule((0xfe, 0xfe), 0b1111_1100, Always, LeaveOut, "FEh /2 to /7 are not defined on an 8086"),
    rule((0xff, 0xff), 0b0010_1000, RegisterOperand, LeaveOut, "far CALL and JMP need a memory operand (SDM vol. 2)"),
    rule((0xc4, 0xc5), ANY, RegisterOperand, LeaveOut, "LES and LDS need a memory operand (SDM vol. 2)"),
    rule((0x8d, 0x8d), ANY, RegisterOperand, LeaveOut, "LEA needs a memory operand (SDM vol. 2)"),
    rule((0xc6, 0xc7), 0b1111_1110, Always, LeaveOut, "C6h and C7h are defined with /0 only"),
    rule((0x8f, 0x8f), 0b1111_1110, Always, LeaveOut, "8Fh is defined with /0 only"),
    rule((0x8c, 0x8c), 0b1111_0000, Always, LeaveOut, "MOV from segment register 4-7: FS and GS exist from the 386 on"),
    rule((0x8e, 0x8e), 0b1111_0010, Always, LeaveOut, "MOV to CS, and to segment registers 4-7, is not defined on an 8086"),
    rule((0x37, 0x37), ANY, AlFromFa, LeaveOut, "AAA: an 8086 does not carry from AL + 6 into AH (SDM vol. 2, AAA: AX + 106h)"),
    rule((0x3f, 0x3f), ANY, Always, LeaveOut, "AAS: an 8086 does not borrow from AH for AL - 6 (SDM vol. 2, AAS: AX - 6)"),
    rule((0x27, 0x27), ANY, DecimalBand, LeaveOut, "DAA: with AF set an 8086 corrects the high digit from 9Fh, the manual says 99h (SDM vol. 2, DAA)"),
    rule((0x2f, 0x2f), ANY, DecimalBand, LeaveOut, "DAS: with AF set an 8086 corrects the high digit from 9Fh and ignores the borrow of AL - 6, unlike the manual (SDM vol. 2, DAS)"),
    rule((0xd6, 0xd6), ANY, Always, LeaveOut, "D6h is not defined"),
];

/// IP of an 8086 or 286, and its reason.
pub const IP_WIDTH: (u64, &str) = (
    0xffff,
    "IP has 16 bits on an 8086 or 286; after an instruction that ends at FFFFh a later EIP is 10000h (SDM vol. 1, 3.5)",
);
/// Stack accesses beyond the limit.
pub const STACK_VECTOR: &str = "a stack operand beyond FFFFh raises interrupt 13 on a 286, #SS (12) later (compatibility, vol. 3 23.30): #SS is expected";
/// Operands of two words.
pub const TWO_WORDS: &str = "an operand of two words that runs over FFFFh wraps between them on a 286; later it is beyond the limit (compatibility, vol. 3 23.30): #GP or #SS is expected";
/// POP to memory.
pub const POP_FAULT: &str =
    "POP to memory that faults has moved SP on a 286; later it is restartable and has not (SDM vol. 3, 6.6)";
/// IDIV.
pub const IDIV: &str = "IDIV with a quotient that does not fit: a 286 misses some and gives 80h or 8000h, the manual says #DE (SDM vol. 2, IDIV): #DE is expected";
/// String instructions that fault.
pub const STRING_FAULT: &str = "a string instruction that faults has moved SI, DI (and CX) on a 286; later it is restartable and has not (SDM vol. 3, 6.6)";
/// Repeated comparisons that fault.
pub const COMPARE_FAULT: &str = "REP CMPS or SCAS that faults keeps the flags of its last element on a 286; later those from before it are restored (SDM vol. 2, REP)";

/// LOCK where later processors refuse it, and its reason.
pub const LOCK: &str = "LOCK: an 8086 or 286 takes it before any instruction; later only before a read-modify-write of memory, else #UD (SDM vol. 2, LOCK)";
/// A word that straddles the end of a segment.
pub const WRAPS: &str = "a word at offset FFFFh (or code beyond it) wraps on an 8086; later processors raise #GP or #SS (compatibility, vol. 3 23.30)";
/// All reasons for which a profile compares less than a recording holds, for the README and `--list`.
pub fn reasons(recorded: Recorded) -> Vec<&'static str> {
    let mut all = vec![HIGH_FLAGS.1, IP_WIDTH.1, LOCK];
    match recorded {
        Recorded::I8086 => all.push(WRAPS),
        Recorded::I80286 => all.extend([STACK_VECTOR, STRING_FAULT, COMPARE_FAULT, TWO_WORDS, POP_FAULT, IDIV]),
        Recorded::I80386 => all = Vec::new(),
    }
    all.extend(UNDEFINED.iter().chain(different(recorded)).map(|r| r.reason));
    all.dedup();
    all
}

/// Adapts a recorded test to a 386 or later: masks its expectations, or says why it is left out.
pub fn adapt(test: &mut MooTest, recorded: Recorded) -> Result<(), &'static str> {
    let shape = Shape::of(&test.case);
    let mut undefined = if recorded == Recorded::I80386 { 0 } else { HIGH_FLAGS.0 };
    for rule in UNDEFINED.iter().chain(different(recorded)).filter(|r| r.applies(&shape, test)) {
        match rule.effect {
            Undefined(flags) => undefined |= flags,
            LeaveOut => return Err(rule.reason),
        }
    }
    match recorded {
        Recorded::I8086 if wraps(&test.case) => return Err(WRAPS),
        _ => {}
    }
    if recorded == Recorded::I80386 {
        mask_flags(test, &shape, undefined);
        return Ok(());
    }
    if let Some(ip) = test.case.expected_mut(Register::Rip) {
        ip.mask &= IP_WIDTH.0;
    }
    if recorded == Recorded::I80286 && shape.length > Encoding::I80286.max_length() {
        // Refused before anything that the rules below are about, here as there.
        mask_flags(test, &shape, undefined);
        return Ok(());
    }
    if shape.lock && !shape.lockable() {
        refuse(&mut test.case, 6);
        return Ok(());
    }
    if recorded == Recorded::I80286
        && let Some(vector) = exception_instead(test, &shape)
    {
        refuse(&mut test.case, vector);
        if shape.string() && shape.repeated {
            unmoved(&mut test.case, true);
        }
        return Ok(());
    }
    if shape.string() && test.exception.is_some_and(|e| e.vector == 13) {
        unmoved(&mut test.case, shape.repeated);
        if shape.repeated && shape.compares() {
            undefined |= CF | PF | AF | ZF | SF | OF;
        }
    }
    mask_flags(test, &shape, undefined);
    Ok(())
}

/// The exception that later processors raise where a 286 raised another one, or none.
fn exception_instead(test: &MooTest, shape: &Shape) -> Option<u8> {
    let case = &test.case;
    let by_stack = |yes: bool| if yes { 12 } else { 13 };
    match test.exception.map(|e| e.vector) {
        Some(13) if shape.stack_operand_beyond(case) => Some(12),
        Some(13) if shape.opcode == 0x8f => Some(13),
        None if shape.two_words() && shape.offset(case) > 0xfffc => Some(by_stack(shape.by_stack_segment())),
        None if matches!(shape.opcode, 0xf6 | 0xf7) && shape.digit() == 7 && missed_overflow(case, shape) => Some(0),
        _ => None,
    }
}

/// IDIV that gave the most negative quotient where no divisor gives it.
fn missed_overflow(case: &Case, shape: &Shape) -> bool {
    let before = |n| case.initial(Register::Gpr(n)).map_or(0, |v| v.low()) as u16;
    let after = |n| {
        let expected = case.expect.registers.iter().find(|e| e.register == Register::Gpr(n));
        expected.map_or(0, |e| e.value.low()) as u16
    };
    let (dividend, quotient, remainder, lowest) = if shape.opcode == 0xf6 {
        (i64::from(before(0) as i16), i64::from(after(0) as i8), i64::from((after(0) >> 8) as i8), -0x80)
    } else {
        let dividend = u32::from(before(2)) << 16 | u32::from(before(0));
        (i64::from(dividend as i32), i64::from(after(0) as i16), i64::from(after(2) as i16), -0x8000)
    };
    let divisor = (dividend - remainder) / lowest;
    let fits = (lowest..-lowest).contains(&divisor) && divisor * lowest + remainder == dividend;
    quotient == lowest && !(fits && remainder.abs() < divisor.abs())
}

fn different(recorded: Recorded) -> &'static [Rule] {
    match recorded {
        Recorded::I8086 => DIFFERENT_8086,
        Recorded::I80286 | Recorded::I80386 => &[],
    }
}

/// SI, DI and CX as they were; after some elements of a REP they are not compared.
fn unmoved(case: &mut Case, repeated: bool) {
    for register in [Register::Gpr(1), Register::Gpr(6), Register::Gpr(7)] {
        let before = case.initial(register);
        if let (Some(expected), Some(before)) = (case.expected_mut(register), before) {
            expected.value = before;
            expected.mask = if repeated { 0 } else { u64::MAX };
        }
    }
}

/// Expects an exception at the instruction and nothing changed.
fn refuse(case: &mut Case, vector: u8) {
    case.expect.end = End::Fault { vector, error_code: None, cr2: None };
    case.expect.memory = case.load.clone();
    let initial = case.registers.clone();
    for expected in &mut case.expect.registers {
        if let Some((_, value)) = initial.iter().find(|(r, _)| *r == expected.register) {
            expected.value = *value;
        }
    }
    if let Some(flags) = case.expected_mut(Register::Flags) {
        flags.mask &= !HIGH_FLAGS.0;
    }
}

/// Masks FLAGS in the register and in the images of it that the instruction pushed.
fn mask_flags(test: &mut MooTest, shape: &Shape, undefined: u64) {
    let case = &mut test.case;
    if let Some(flags) = case.expected_mut(Register::Flags) {
        flags.mask &= !undefined;
    }
    let mut images = Vec::new();
    // The recorded address of the image is the bus cycle's and misses odd stacks: the frame is found by SS:SP instead.
    if test.exception.is_some() || matches!(shape.opcode, 0xcc..=0xce) {
        images.push(stack_at(case, 4));
    } else if shape.opcode == 0x9c {
        images.push(stack_at(case, 0));
    }
    for at in images {
        // An address beyond 1 MiB is one below it on an 8086: both are masked.
        for at in [at, at & 0xf_ffff] {
            case.mask_memory(at, !undefined as u8);
            case.mask_memory(at + 1, !(undefined >> 8) as u8);
        }
    }
}

/// The guest-physical address of the final SS:SP plus an offset.
fn stack_at(case: &mut Case, offset: u64) -> u64 {
    let low = |e: Option<&mut crate::case::Expected>| e.map_or(0, |e| e.value.low());
    let sp = low(case.expected_mut(Register::Gpr(4)));
    let ss = low(case.expected_mut(Register::Segment(2)));
    (ss << 4) + (sp.wrapping_add(offset) & 0xffff)
}

/// Whether the case touches both ends of a segment, or its code runs over the end.
fn wraps(case: &Case) -> bool {
    let low = |register| case.initial(register).map_or(0, |v| v.low());
    let cs = low(Register::Segment(1));
    let ip = low(Register::Rip);
    let touched = |at: u64| {
        let at = at & 0xf_ffff;
        case.expect.memory.iter().any(|s| at.wrapping_sub(s.at) < s.bytes.len() as u64)
    };
    let both_ends = |n| touched((low(Register::Segment(n)) << 4) + 0xffff) && touched(low(Register::Segment(n)) << 4);
    ip + case.code.len() as u64 > 0x1_0000 || touched((cs << 4) + 0xffff) && touched(cs << 4) || (0..4).any(both_ends)
}

/// What the rules look at in an instruction.
struct Shape {
    lock: bool,
    repeated: bool,
    /// The last segment override.
    segment: Option<u8>,
    opcode: u8,
    modrm: u8,
    displacement: u16,
    last: u8,
    length: usize,
}

impl Shape {
    fn of(case: &Case) -> Shape {
        let mut code = case.code.as_slice();
        if case.expect.end == End::AfterHalt {
            // The recording appends the HLT that ends the test.
            code = code.strip_suffix(&[0xf4]).filter(|c| !c.is_empty()).unwrap_or(code);
        }
        let mut shape = Shape {
            lock: false,
            repeated: false,
            segment: None,
            opcode: 0,
            modrm: 0,
            displacement: 0,
            last: 0,
            length: code.len(),
        };
        shape.last = code.last().copied().unwrap_or(0);
        let mut bytes = code.iter();
        for &byte in bytes.by_ref() {
            match byte {
                0x26 | 0x2e | 0x36 | 0x3e => shape.segment = Some(byte),
                0xf0 => shape.lock = true,
                0xf2 | 0xf3 => shape.repeated = true,
                _ => {
                    shape.opcode = byte;
                    break;
                }
            }
        }
        shape.modrm = bytes.next().copied().unwrap_or(0);
        let low = bytes.next().copied().unwrap_or(0);
        let high = bytes.next().copied().unwrap_or(0);
        shape.displacement = match (shape.modrm >> 6, shape.modrm & 7) {
            (0, 6) | (2, _) => u16::from_le_bytes([low, high]),
            (1, _) => low as i8 as u16,
            _ => 0,
        };
        shape
    }
    fn digit(&self) -> u8 {
        self.modrm >> 3 & 7
    }
    /// Whether what lies beyond FFFFh is an operand on the stack: popped, or addressed through SS.
    fn stack_operand_beyond(&self, case: &Case) -> bool {
        let low = |register| case.initial(register).map_or(0, |v| v.low()) & 0xffff;
        let words = match self.opcode {
            0x07 | 0x17 | 0x1f | 0x58..=0x5f | 0x8f | 0x9d | 0xc2 | 0xc3 | 0xc9 => 1,
            0xca | 0xcb => 2,
            0xcf => 3,
            0x61 => 8,
            _ => 0,
        };
        let from = low(Register::Gpr(if self.opcode == 0xc9 { 5 } else { 4 }));
        if words > 0 && from & 1 == 1 && from + 2 * words > 0x1_0000 {
            return true;
        }
        self.has_modrm() && self.modrm < 0xc0 && self.by_stack_segment()
            || matches!(self.opcode, 0xa0..=0xa7 | 0xac | 0xad | 0xd7 | 0x6e | 0x6f)
                && self.segment == Some(0x36)
                && !self.es_beyond(case)
    }
    /// Whether the ModRM operand goes through SS.
    fn by_stack_segment(&self) -> bool {
        let by_bp = matches!((self.modrm >> 6, self.modrm & 7), (0..=2, 2 | 3) | (1 | 2, 6));
        self.segment.map_or(by_bp, |s| s == 0x36)
    }
    /// A memory operand of two words: BOUND, LES, LDS, far CALL and JMP, and x87 instructions, whose operand a 286 without a
    /// coprocessor does not check.
    fn two_words(&self) -> bool {
        let far = self.opcode == 0xff && matches!(self.digit(), 3 | 5);
        self.modrm < 0xc0 && (far || matches!(self.opcode, 0x62 | 0xc4 | 0xc5 | 0xd8))
    }
    fn string(&self) -> bool {
        matches!(self.opcode, 0x6c..=0x6f | 0xa4..=0xa7 | 0xaa..=0xaf)
    }
    fn compares(&self) -> bool {
        matches!(self.opcode, 0xa6 | 0xa7 | 0xae | 0xaf)
    }
    /// The offset of the ModRM operand, with 16-bit addressing (SDM vol. 2, table 2-1).
    fn offset(&self, case: &Case) -> u16 {
        let get = |n| case.initial(Register::Gpr(n)).map_or(0, |v| v.low()) as u16;
        let (bx, bp, si, di) = (get(3), get(5), get(6), get(7));
        let base = match self.modrm & 7 {
            0 => bx.wrapping_add(si),
            1 => bx.wrapping_add(di),
            2 => bp.wrapping_add(si),
            3 => bp.wrapping_add(di),
            4 => si,
            5 => di,
            6 if self.modrm < 0x40 => 0,
            6 => bp,
            _ => bx,
        };
        base.wrapping_add(self.displacement)
    }
    /// String instructions: whether ES:DI is what lies beyond.
    fn es_beyond(&self, case: &Case) -> bool {
        let di = case.initial(Register::Gpr(7)).map_or(0, |v| v.low()) & 0xffff;
        let si = case.initial(Register::Gpr(6)).map_or(0, |v| v.low()) & 0xffff;
        matches!(self.opcode, 0xa4..=0xa7) && (si != 0xffff || self.repeated && di == 0xffff)
    }
    /// Whether the opcode is followed by a ModRM byte.
    fn has_modrm(&self) -> bool {
        match self.opcode {
            0x00..=0x3f => self.opcode & 7 < 4,
            0x62 | 0x63 | 0x69 | 0x6b | 0x80..=0x8f | 0xc0 | 0xc1 | 0xc4..=0xc7 => true,
            0xd0..=0xd3 | 0xd8..=0xdf | 0xf6 | 0xf7 | 0xfe | 0xff => true,
            _ => false,
        }
    }
    /// The forms that LOCK may stand before on every processor (SDM vol. 2, LOCK).
    fn lockable(&self) -> bool {
        let memory = self.modrm < 0xc0;
        memory
            && match self.opcode {
                0x00..=0x37 => self.opcode & 7 < 2,
                0x80..=0x83 => self.digit() != 7,
                0x86 | 0x87 => true,
                0xf6 | 0xf7 => matches!(self.digit(), 2 | 3),
                0xfe | 0xff => self.digit() < 2,
                _ => false,
            }
    }
}

impl Rule {
    fn applies(&self, shape: &Shape, test: &MooTest) -> bool {
        let (first, last) = self.opcodes;
        if !(first..=last).contains(&shape.opcode) || self.digits != ANY && self.digits >> shape.digit() & 1 == 0 {
            return false;
        }
        let low = |register| test.case.initial(register).map_or(0, |v| v.low());
        let raw_count = match shape.opcode {
            0xd0 | 0xd1 => 1,
            0xd2 | 0xd3 => low(Register::Gpr(1)) & 0xff,
            _ => u64::from(shape.last),
        };
        let count = raw_count & 0x1f;
        match self.when {
            Always => true,
            CountNotOne => count > 1,
            CountNotZero => count != 0,
            CountBeyondWidth => count >= if shape.opcode & 1 == 0 { 8 } else { 16 },
            CountAbove31 => raw_count > 31,
            RegisterOperand => shape.modrm >= 0xc0,
            Repeated => shape.repeated,
            DivideError => divide_error(test),
            DecimalBand => {
                let al = low(Register::Gpr(0)) & 0xff;
                let band = matches!(al, 0x9a..=0x9f) || shape.opcode == 0x2f && al < 6;
                band && low(Register::Flags) & AF != 0
            }
            AlFromFa => low(Register::Gpr(0)) & 0xff >= 0xfa,
        }
    }
}

/// Whether the case ends in the handler of vector 0.
fn divide_error(test: &MooTest) -> bool {
    if test.exception.is_some_and(|e| e.vector == 0) {
        return true;
    }
    let vector: Vec<u8> = (0..4).filter_map(|at| byte_at(&test.case, at)).collect();
    let [ip_low, ip_high, cs_low, cs_high] = vector[..] else { return false };
    let expected = |register| test.case.expect.registers.iter().find(|e| e.register == register).map(|e| e.value.low());
    expected(Register::Segment(1)) == Some(u64::from(u16::from_le_bytes([cs_low, cs_high])))
        && expected(Register::Rip) == Some(u64::from(u16::from_le_bytes([ip_low, ip_high])))
}

fn byte_at(case: &Case, at: u64) -> Option<u8> {
    case.load.iter().find_map(|s| s.bytes.get(usize::try_from(at.checked_sub(s.at)?).ok()?)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Environment, Expectation, Expected, Span, Tolerance, Value};

    fn test(code: &[u8], end: End) -> MooTest {
        let registers = vec![
            (Register::Gpr(1), Value::int(0x0103)),
            (Register::Gpr(4), Value::int(0x100)),
            (Register::Segment(2), Value::int(0x20)),
            (Register::Rip, Value::int(0x10)),
            (Register::Flags, Value::int(0xf002)),
        ];
        let expect = registers.iter().map(|&(register, value)| Expected { register, value, mask: u64::MAX }).collect();
        let expect = Expectation { end, registers: expect, memory: Vec::new(), memory_masks: Vec::new() };
        let case = Case {
            name: String::new(),
            text: String::new(),
            code: code.to_vec(),
            environment: Environment::Real,
            map: Vec::new(),
            load: vec![Span { at: 0x10, bytes: code.to_vec() }],
            registers,
            expect,
            max: 1,
            named_memory_only: false,
            tolerance: Tolerance::Exact,
        };
        MooTest { case, exception: None }
    }
    fn mask(code: &[u8]) -> u64 {
        let mut test = test(code, End::AfterHalt);
        adapt(&mut test, Recorded::I80286).unwrap();
        test.case.expected_mut(Register::Flags).unwrap().mask
    }

    #[test]
    fn undefined_flags() {
        let table: [(&[u8], u64); 8] = [
            (&[0x01, 0xc0, 0xf4], 0),
            (&[0x36, 0x21, 0xc0, 0xf4], AF),
            (&[0x83, 0xe8, 0x01, 0xf4], 0),
            (&[0xd1, 0xe0, 0xf4], AF),
            (&[0xd3, 0xe0, 0xf4], AF | OF),
            (&[0xc1, 0xc0, 0x04, 0xf4], OF),
            (&[0xc0, 0xe0, 0x0a, 0xf4], AF | OF | CF),
            (&[0xc0, 0xe0, 0x20, 0xf4], 0),
        ];
        for (code, undefined) in table {
            assert_eq!(mask(code), !(undefined | 0xf000), "{code:02x?}");
        }
    }

    #[test]
    fn pushed_flags_and_lock() {
        let mut pushf = test(&[0x9c, 0xf4], End::AfterHalt);
        adapt(&mut pushf, Recorded::I80286).unwrap();
        assert_eq!(pushf.case.expect.memory_masks[..2], [(0x300, 0xff), (0x301, 0x0f)]);
        let mut locked = test(&[0xf0, 0x90, 0xf4], End::AfterHalt);
        adapt(&mut locked, Recorded::I80286).unwrap();
        assert_eq!(locked.case.expect.end, End::Fault { vector: 6, error_code: None, cr2: None });
        let mut allowed = test(&[0xf0, 0x01, 0x07, 0xf4], End::AfterHalt);
        adapt(&mut allowed, Recorded::I80286).unwrap();
        assert_eq!(allowed.case.expect.end, End::AfterHalt);
    }

    #[test]
    fn left_out_on_an_8086() {
        for code in [&[0x54][..], &[0xc1, 0x00], &[0xff, 0xf4], &[0x8e, 0xc8], &[0x8d, 0xc0], &[0xd9, 0x07]] {
            assert!(adapt(&mut test(code, End::OneInstruction), Recorded::I8086).is_err(), "{code:02x?}");
        }
        for code in [&[0x50][..], &[0xff, 0x36, 0, 0], &[0x8e, 0xc0], &[0x8d, 0x07]] {
            assert!(adapt(&mut test(code, End::OneInstruction), Recorded::I8086).is_ok(), "{code:02x?}");
        }
    }

    #[test]
    fn every_rule_has_a_reason() {
        for recorded in [Recorded::I8086, Recorded::I80286, Recorded::I80386] {
            assert!(reasons(recorded).iter().all(|r| r.len() > 10));
        }
    }
}
