//! What programs start with: registers, control words, the arena.

use super::bytes::Purpose;
use crate::layout::{DATA_MIDDLE, DATA_PAGES, Mode, PAGE, STACK_AT, STACK_MIDDLE};
use crate::program::Start;
use crate::random::Random;

/// An x87 control word: any rounding and precision, mostly all exceptions masked.
pub fn x87_control(random: &mut Random) -> u16 {
    let fields = random.word() as u16 & 0x0f00;
    let masks = if random.once_in(10) { random.word() as u16 & 0x3f } else { 0x3f };
    // Bit 6 reads as one; precision 1 is reserved.
    let fields = if fields & 0x300 == 0x100 { fields | 0x200 } else { fields };
    fields | masks | 0x40
}

/// An MXCSR: any rounding, FTZ, DAZ and flags, mostly all exceptions masked.
pub fn sse_control(random: &mut Random) -> u32 {
    let fields = random.word() as u32 & if random.once_in(3) { 0xe07f } else { 0x603f };
    let masks = if random.once_in(10) { random.word() as u32 & 0x1f80 } else { 0x1f80 };
    fields | masks
}

/// A start for a program with these purposes.
pub fn start(mode: Mode, purpose: &Purpose, random: &mut Random) -> Start {
    let mut start = Start::default();
    let r = &mut start.registers;
    for n in 0..mode.registers() {
        r.gpr[n] = random.integer() & mode.register_mask();
    }
    for pointer in &purpose.pointers {
        r.gpr[usize::from(*pointer)] = mode.data() + DATA_MIDDLE;
    }
    for index in &purpose.indices {
        r.gpr[usize::from(*index)] = random.below(8) as u64 * 8;
    }
    r.gpr[4] = mode.stack() + STACK_MIDDLE;
    r.rflags = random.word() & 0x8d5 | 0x202 | u64::from(random.once_in(8)) << 10;
    let halves = if mode == Mode::Bits64 { 16 } else { 8 };
    for n in 0..halves {
        r.vectors[n] = std::array::from_fn(|_| if random.once_in(2) { random.floats() } else { random.integer() });
    }
    let small = random.below(4);
    r.vectors[usize::from(purpose.index_vector)] = std::array::from_fn(|_| {
        let (low, high) = (random.below(128) as u64, random.below(128) as u64);
        if small == 0 { low } else { low | high << 32 }
    });
    for st in &mut r.st {
        let (sign_exponent, significand) = random.extended();
        *st = (significand, sign_exponent);
    }
    r.cw = x87_control(random);
    r.mxcsr = sse_control(random);
    if random.once_in(2) {
        r.tags = 0;
    } else {
        r.tags = random.word() as u16 & 0xff;
        r.sw = random.word() as u16 & 0x7f00;
        if r.cw & 0x3f == 0x3f {
            r.sw |= random.word() as u16 & 0x7f;
        }
    }
    let mut fill = |at: usize, len: usize| {
        for word in start.memory[at..at + len].chunks_exact_mut(8) {
            let value = match random.below(4) {
                0 => random.floats(),
                1 => random.integer(),
                _ => random.word(),
            };
            word.copy_from_slice(&value.to_le_bytes());
        }
    };
    fill(DATA_MIDDLE as usize - 512, 1536);
    fill(DATA_PAGES * PAGE, 64);
    fill(STACK_AT + STACK_MIDDLE as usize - 128, 512);
    start
}
