//! The processor's way to the four planes: address chains, latches, write and read modes (IBM PS/2 Hardware Interface
//! Technical Reference, graphics controller; FreeVGA, "Accessing the VGA display memory").
//!
//! Display memory holds the planes interleaved: four bytes for each address, plane 0 first.
//! Leaves out: the odd/even page bit of miscellaneous output (no software is known that clears it).

use super::registers::{Registers, gc, seq};
use umbra_mmu::video::VideoMemory;

/// Graphics controller miscellaneous: which part of the legacy window is decoded, as first byte and length.
pub fn decoded(registers: &Registers) -> (usize, usize) {
    match registers.gc[gc::MISC] >> 2 & 3 {
        0 => (0, 0x2_0000),
        1 => (0, 0x1_0000),
        2 => (0x1_0000, 0x8000),
        _ => (0x1_8000, 0x8000),
    }
}

/// Sequencer memory mode: the two low address bits choose the plane.
pub fn is_chained(registers: &Registers) -> bool {
    registers.seq[seq::MEMORY] & 0x08 != 0
}
/// Sequencer memory mode: even addresses reach planes 0 and 2, odd ones 1 and 3.
pub fn is_odd_even(registers: &Registers) -> bool {
    registers.seq[seq::MEMORY] & 0x04 == 0
}

/// A byte for each plane of a four-bit value: FFh where the bit is set.
pub const fn spread(bits: u8) -> u32 {
    let bits = bits as u32;
    let two = (bits & 1) * 0xFF + (bits >> 1 & 1) * 0xFF00;
    two + (bits >> 2 & 1) * 0xFF_0000 + (bits >> 3 & 1) * 0xFF00_0000
}

/// The same byte for all planes.
const fn all(byte: u8) -> u32 {
    byte as u32 * 0x0101_0101
}

/// Where a byte of the decoded part lies: address within the planes, and the planes that its address allows.
fn place(registers: &Registers, at: usize) -> (usize, u8) {
    let at = at & 0xFFFF;
    if is_chained(registers) {
        (at & !3, 1 << (at & 3))
    } else if is_odd_even(registers) {
        let address = if registers.gc[gc::MISC] & 0x02 != 0 { at & !1 } else { at };
        (address, if at & 1 != 0 { 0b1010 } else { 0b0101 })
    } else {
        (at, 0b1111)
    }
}

/// Reads a byte: fills the latches. `base` is the first plane address of the bank.
pub fn read(registers: &mut Registers, memory: &VideoMemory, base: usize, at: usize) -> u8 {
    let (address, _) = place(registers, at);
    registers.latches = memory.load(4 * (base + address));
    let gc = &registers.gc;
    if gc[gc::MODE] & 0x08 != 0 {
        // Read mode 1: bits are set where all planes that count have the colour.
        let differs = (registers.latches ^ spread(gc[gc::COLOR_COMPARE])) & spread(gc[gc::DONT_CARE]);
        let folded = differs | differs >> 16;
        return !((folded | folded >> 8) as u8);
    }
    let plane = if is_chained(registers) {
        at & 3
    } else if gc[gc::MODE] & 0x10 != 0 {
        usize::from(gc[gc::READ_MAP] & 2) | at & 1
    } else {
        usize::from(gc[gc::READ_MAP] & 3)
    };
    (registers.latches >> (8 * plane)) as u8
}

/// Writes a byte.
pub fn write(registers: &Registers, memory: &VideoMemory, base: usize, at: usize, value: u8) {
    let (address, allowed) = place(registers, at);
    let planes = spread(registers.seq[seq::MAP_MASK] & allowed);
    if planes == 0 {
        return;
    }
    let gc = &registers.gc;
    let latches = registers.latches;
    let rotated = value.rotate_right(u32::from(gc[gc::ROTATE] & 7));
    let set_reset = spread(gc[gc::SET_RESET]);
    let (data, bits) = match gc[gc::MODE] & 3 {
        0 => {
            let enabled = spread(gc[gc::ENABLE_SET_RESET]);
            (all(rotated) & !enabled | set_reset & enabled, gc[gc::BIT_MASK])
        }
        1 => (latches, 0),
        2 => (spread(value & 0xF), gc[gc::BIT_MASK]),
        _ => (set_reset, gc[gc::BIT_MASK] & rotated),
    };
    let data = match gc[gc::ROTATE] >> 3 {
        0 => data,
        1 => data & latches,
        2 => data | latches,
        _ => data ^ latches,
    };
    let bits = all(bits);
    let data = data & bits | latches & !bits;
    let offset = 4 * (base + address);
    let new = if planes == u32::MAX { data } else { memory.load(offset) & !planes | data & planes };
    memory.store(offset, new);
}
