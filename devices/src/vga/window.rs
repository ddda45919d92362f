//! The legacy window A0000h–BFFFFh as RAM where it behaves like RAM.
//!
//! In text modes and in chain-4 modes, with nothing set that changes data on its way, what the processor writes is what it
//! reads: the decoded part is then mapped from a piece of memory of its own, and its bytes are carried to their places in
//! the planes when somebody looks at these (the renderer, a save, another mode). In a VBE mode without linear framebuffer
//! the bank itself is mapped. All else goes through `planes`, byte by byte.
//!
//! Leaves out: reads of a window that is RAM do not fill the latches (what uses these makes the window slow first).

use super::planes;
use super::registers::{Registers, gc, seq};
use std::ops::Range;
use umbra_mmu::addr::PAGE_SIZE;
use umbra_mmu::video::VideoMemory;

/// The window's size in bytes.
pub const BYTES: usize = 0x2_0000;
/// A bank's size in bytes.
pub const BANK: usize = 0x1_0000;

/// How the processor reaches display memory through the legacy window.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Legacy {
    /// Every access is the adapter's.
    Logic,
    /// The decoded part, from this byte on, is RAM in this layout.
    Staged(Layout, usize),
    /// The first 64 KiB are this bank of the framebuffer.
    Bank(usize),
}

/// Where the bytes of a staged window belong.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Characters and attributes: odd/even, planes 0 and 1.
    Text,
    /// Chain-4: a byte in each plane in turn.
    Chained,
}

impl Layout {
    /// The bytes that are staged.
    pub const fn bytes(self) -> usize {
        match self {
            Layout::Text => 0x8000,
            Layout::Chained => 0x1_0000,
        }
    }
    /// Neighbouring bytes of the window that share an address within the planes; as many addresses lie in between.
    const fn cell(self) -> usize {
        match self {
            Layout::Text => 2,
            Layout::Chained => 4,
        }
    }
    /// The byte of the staged part that holds this byte of display memory, if one does.
    pub const fn staged(self, offset: usize) -> Option<usize> {
        let (address, plane) = (offset / 4, offset % 4);
        match self {
            Layout::Text if plane < 2 && address.is_multiple_of(2) && address < 0x8000 => Some(address + plane),
            Layout::Chained if address.is_multiple_of(4) && address < 0x1_0000 => Some(address + plane),
            _ => None,
        }
    }
}

/// How the window behaves now.
pub fn view(registers: &Registers) -> Legacy {
    let gc = &registers.gc;
    if !registers.reaches_memory() {
        return Legacy::Logic;
    }
    if registers.dispi.is_on() {
        let packed = registers.dispi.packed().is_some();
        let plain = packed && !registers.dispi.is_linear() && planes::decoded(registers).0 == 0;
        return if plain { Legacy::Bank(registers.dispi.bank()) } else { Legacy::Logic };
    }
    let data_unchanged =
        gc[gc::ENABLE_SET_RESET] == 0 && gc[gc::ROTATE] == 0 && gc[gc::BIT_MASK] == 0xFF && gc[gc::MODE] & 0x0B == 0;
    let (first, length) = planes::decoded(registers);
    let map_mask = registers.seq[seq::MAP_MASK];
    if !data_unchanged {
        Legacy::Logic
    } else if planes::is_chained(registers) {
        let whole = map_mask == 0x0F && length == Layout::Chained.bytes();
        if whole { Legacy::Staged(Layout::Chained, first) } else { Legacy::Logic }
    } else if planes::is_odd_even(registers) {
        let whole = map_mask == 0x03
            && length == Layout::Text.bytes()
            && gc[gc::MODE] & 0x10 != 0
            && gc[gc::MISC] & 0x02 != 0
            && gc[gc::READ_MAP] & 2 == 0;
        if whole { Legacy::Staged(Layout::Text, first) } else { Legacy::Logic }
    } else {
        Legacy::Logic
    }
}

/// The pages of a range of bytes.
pub const fn pages(first: usize, bytes: usize) -> Range<usize> {
    first / PAGE_SIZE as usize..(first + bytes).div_ceil(PAGE_SIZE as usize)
}

/// Fills the staged part from display memory.
pub fn gather(layout: Layout, first: usize, memory: &VideoMemory, window: &VideoMemory) {
    for page in pages(0, layout.bytes()) {
        let bytes = from_planes(layout, page, memory);
        window.write(first + page * PAGE_SIZE as usize, &bytes);
    }
}

/// Carries one page of the staged part (numbered from its start) to its places in display memory.
pub fn scatter(layout: Layout, first: usize, page: usize, memory: &VideoMemory, window: &VideoMemory) {
    let mut staged = [0; PAGE_SIZE as usize];
    window.read(first + page * PAGE_SIZE as usize, &mut staged);
    let mut planes = vec![0; 4 * PAGE_SIZE as usize];
    memory.read(4 * page * PAGE_SIZE as usize, &mut planes);
    let cell = layout.cell();
    let mut changed = false;
    for (bytes, place) in staged.chunks_exact(cell).zip(planes.chunks_exact_mut(4 * cell)) {
        if let Some(old) = place.get_mut(..cell)
            && old != bytes
        {
            old.copy_from_slice(bytes);
            changed = true;
        }
    }
    if changed {
        memory.write(4 * page * PAGE_SIZE as usize, &planes);
    }
}

/// One page of the staged part, as display memory has it.
fn from_planes(layout: Layout, page: usize, memory: &VideoMemory) -> Vec<u8> {
    let mut planes = vec![0; 4 * PAGE_SIZE as usize];
    memory.read(4 * page * PAGE_SIZE as usize, &mut planes);
    let cell = layout.cell();
    planes.chunks_exact(4 * cell).flat_map(|place| place.iter().take(cell).copied()).collect()
}
