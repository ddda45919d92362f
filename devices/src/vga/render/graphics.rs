//! Graphics from the planes: 16 colours, 4 colours as the CGA has them, 256 colours (IBM PS/2 Hardware Interface Technical
//! Reference, graphics controller "mode" and attribute controller).

use super::raster::{Line, Raster};
use super::{Frame, attribute_colors};
use crate::vga::registers::{Registers, gc};
use std::ops::Range;
use umbra_mmu::addr::PAGE_SIZE;

/// Addresses in the planes that share a page of display memory.
const PAGE_ADDRESSES: usize = PAGE_SIZE as usize / 4;

/// How the shift registers make pixels of four bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Shift {
    /// A bit of each plane.
    Planar,
    /// Two bits of each byte, planes 0 and 1 in turn; planes 2 and 3 give the upper bits.
    Interleaved,
    /// A byte each, two dots wide.
    Bytes,
}

/// Draws the lines that changed: all if it is not known which pages did. `drawn` is what each line was drawn from before.
pub(super) fn draw(
    frame: &mut Frame,
    registers: &Registers,
    raster: &Raster,
    planes: &[u32],
    changed: Option<&[usize]>,
    drawn: &mut Vec<Line>,
) -> Range<usize> {
    let shift = match registers.gc[gc::MODE] >> 5 & 3 {
        0 => Shift::Planar,
        1 => Shift::Interleaved,
        _ => Shift::Bytes,
    };
    let colors: Vec<u32> = match shift {
        Shift::Bytes => registers.dac.palette(registers.dispi.dac_bits()).to_vec(),
        _ => attribute_colors(registers).to_vec(),
    };
    let is_changed = |page: usize| changed.is_none_or(|changed| changed.binary_search(&page).is_ok());
    let mut range = Range { start: frame.height, end: 0 };
    let mut above: Option<(Line, bool)> = None;
    for (y, &line) in raster.lines.iter().enumerate() {
        // A line that shows the same as the one above it is a copy of that.
        let again = above.filter(|(other, _)| *other == line).map(|(_, fresh)| fresh);
        let fresh = again.unwrap_or_else(|| {
            let touches =
                |column: usize| is_changed(raster.address(raster.counter(line, column), line.row) / PAGE_ADDRESSES);
            drawn.get(y) != Some(&line) || changed.is_none() || (0..=raster.columns).any(touches)
        });
        above = Some((line, fresh));
        if !fresh {
            continue;
        }
        range = range.start.min(y)..range.end.max(y + 1);
        if again.is_some() {
            let width = frame.width;
            frame.pixels.copy_within((y - 1) * width..y * width, y * width);
            continue;
        }
        let pixels = frame.line_mut(y);
        for column in 0..=raster.columns {
            let word = planes.get(raster.address(raster.counter(line, column), line.row)).copied().unwrap_or(0);
            let first = (column * 8) as isize - line.pan as isize;
            for (dot, number) in (first..).zip(dots(shift, word)) {
                let color = colors.get(usize::from(number)).copied().unwrap_or(0);
                for x in dot * raster.dot_width as isize..(dot + 1) * raster.dot_width as isize {
                    if let Some(pixel) = usize::try_from(x).ok().and_then(|x| pixels.get_mut(x)) {
                        *pixel = color;
                    }
                }
            }
        }
    }
    drawn.clone_from(&raster.lines);
    if range.start < range.end { range } else { 0..0 }
}

/// The eight dots of four bytes.
fn dots(shift: Shift, word: u32) -> [u8; 8] {
    let bytes = word.to_le_bytes();
    match shift {
        Shift::Planar => {
            std::array::from_fn(|dot| (0..4).fold(0, |number, plane| number | (bytes[plane] >> (7 - dot) & 1) << plane))
        }
        Shift::Interleaved => std::array::from_fn(|dot| {
            let (plane, down) = (dot / 4, 6 - 2 * (dot % 4));
            bytes[plane] >> down & 3 | (bytes[plane + 2] >> down & 3) << 2
        }),
        Shift::Bytes => std::array::from_fn(|dot| bytes[dot / 2]),
    }
}
