//! Packed framebuffers of the VBE extension: 8, 15, 16, 24 and 32 bits a pixel.

use super::Frame;
use crate::vga::dispi::Packed;
use crate::vga::registers::Registers;
use std::ops::Range;
use umbra_mmu::addr::PAGE_SIZE;
use umbra_mmu::video::VideoMemory;

/// Draws the lines that touch changed pages: all if it is not known which did, or if the size is another.
pub(super) fn draw(
    frame: &mut Frame,
    registers: &Registers,
    packed: Packed,
    memory: &VideoMemory,
    changed: Option<&Vec<usize>>,
) -> Range<usize> {
    let Packed { width, height, start, pitch, bpp } = packed;
    let resized = (frame.width, frame.height) != (width, height);
    if resized {
        frame.resize(width, height);
    }
    let palette = registers.dac.palette(registers.dispi.dac_bits());
    let mut bytes = vec![0; width * usize::from(bpp).div_ceil(8)];
    let mut range = Range { start: height, end: 0 };
    for y in 0..height {
        let first = start + y * pitch;
        let pages = first / PAGE_SIZE as usize..=(first + bytes.len() - 1) / PAGE_SIZE as usize;
        let touched = |changed: &Vec<usize>| {
            let next = changed.partition_point(|page| page < pages.start());
            changed.get(next).is_some_and(|page| page <= pages.end())
        };
        if !resized && changed.is_some_and(|changed| !touched(changed)) {
            continue;
        }
        memory.read(first, &mut bytes);
        convert(&bytes, bpp, &palette, frame.line_mut(y));
        range = range.start.min(y)..range.end.max(y + 1);
    }
    if range.start < range.end { range } else { 0..0 }
}

fn convert(bytes: &[u8], bpp: u16, palette: &[u32; 256], pixels: &mut [u32]) {
    /// A part of so many bits, from bit `at` on, widened to eight.
    fn part(value: u16, at: u32, bits: u32) -> u32 {
        let part = u32::from(value >> at) & ((1 << bits) - 1);
        part << (8 - bits) | part >> (2 * bits - 8)
    }
    match bpp {
        8 => pixels.iter_mut().zip(bytes).for_each(|(pixel, &byte)| *pixel = palette[usize::from(byte)]),
        15 | 16 => {
            let green = u32::from(bpp) - 10;
            for (pixel, &two) in pixels.iter_mut().zip(bytes.as_chunks::<2>().0) {
                let value = u16::from_le_bytes(two);
                *pixel = part(value, 5 + green, 5) << 16 | part(value, 5, green) << 8 | part(value, 0, 5);
            }
        }
        24 => {
            for (pixel, &[blue, green, red]) in pixels.iter_mut().zip(bytes.as_chunks::<3>().0) {
                *pixel = u32::from_le_bytes([blue, green, red, 0]);
            }
        }
        _ => {
            for (pixel, &four) in pixels.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *pixel = u32::from_le_bytes(four) & 0xFF_FFFF;
            }
        }
    }
}
