//! Characters: cells, fonts, attributes, the cursor (IBM PS/2 Hardware Interface Technical Reference, "Alphanumeric modes").

use super::raster::{Line, Raster};
use super::{Frame, attribute_colors};
use crate::vga::Shown;
use crate::vga::registers::{Registers, ac, crtc, seq};
use std::ops::Range;

/// Attribute mode: the ninth dot of line-drawing characters repeats the eighth.
const LINE_GRAPHICS: u8 = 1 << 2;
/// Attribute mode: attribute bit 7 blinks instead of brightening the background.
const BLINK: u8 = 1 << 3;
/// Frames of one phase of the cursor, and of blinking characters.
const CURSOR_FRAMES: u64 = 8;
const BLINK_FRAMES: u64 = 16;
/// Characters of a font, and lines kept for each.
const GLYPHS: usize = 256;
const GLYPH_LINES: usize = 32;

/// What was drawn last: a cell is drawn again only if it looks different.
#[derive(Clone, Debug, Default)]
pub(super) struct Memo {
    cells: Vec<Cell>,
    rows: Vec<(Line, usize)>,
    fonts: [Vec<u8>; 2],
}

/// Everything that the look of a cell depends on, the fonts and colours apart.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Cell {
    code: u8,
    attribute: u8,
    /// Blinking characters are not shown now.
    hidden: bool,
    /// The first and last line of the cursor, if it is here.
    cursor: Option<(u8, u8)>,
}

impl Memo {
    /// Nothing of what was drawn is there any more.
    pub fn forget(&mut self) {
        *self = Memo::default();
    }

    /// Draws what changed; `fresh`: everything. Gives the lines that were drawn.
    pub fn draw(
        &mut self,
        frame: &mut Frame,
        shown: &Shown,
        raster: &Raster,
        planes: &[u32],
        fresh: bool,
    ) -> Range<usize> {
        let registers = &shown.registers;
        let fonts = font_bases(registers).map(|base| font(planes, base));
        let rows = rows(&raster.lines);
        let columns = raster.columns + 1;
        let fresh = fresh || fonts != self.fonts || rows != self.rows;
        let cells = cells(shown, raster, planes, &rows, columns);
        let pen = Pen::new(registers, raster, &fonts);
        let mut drawn = Range { start: frame.height, end: 0 };
        let mut top = 0;
        for (number, &(first, height)) in rows.iter().enumerate() {
            let new = cells.get(number * columns..(number + 1) * columns).unwrap_or(&[]);
            let old = self.cells.get(number * columns..(number + 1) * columns).unwrap_or(&[]);
            let stale = |column: usize| fresh || old.get(column) != new.get(column);
            let changed: Vec<usize> = (0..columns).filter(|&column| stale(column)).collect();
            if !changed.is_empty() {
                for y in top..top + height {
                    let line = raster.lines.get(y).copied().unwrap_or(first);
                    let pixels = frame.line_mut(y);
                    for &column in &changed {
                        if let Some(&cell) = new.get(column) {
                            pen.draw(pixels, column, cell, line);
                        }
                    }
                }
                drawn = drawn.start.min(top)..drawn.end.max(top + height);
            }
            top += height;
        }
        (self.cells, self.rows, self.fonts) = (cells, rows, fonts);
        if drawn.start < drawn.end { drawn } else { 0..0 }
    }
}

/// Lines of one row of characters: its first line, and how many.
fn rows(lines: &[Line]) -> Vec<(Line, usize)> {
    let mut rows: Vec<(Line, usize)> = Vec::new();
    let mut row = None;
    for &line in lines {
        match rows.last_mut() {
            // The row scan counter starts again where a new row does.
            Some((first, height))
                if first.address == line.address && first.pan == line.pan && row <= Some(line.row) =>
            {
                *height += 1;
            }
            _ => rows.push((line, 1)),
        }
        row = Some(line.row);
    }
    rows
}

fn cells(shown: &Shown, raster: &Raster, planes: &[u32], rows: &[(Line, usize)], columns: usize) -> Vec<Cell> {
    let registers = &shown.registers;
    let blinks = registers.ac[ac::MODE] & BLINK != 0;
    let off = shown.frame / BLINK_FRAMES % 2 == 1;
    let cursor = cursor(registers, shown.frame);
    let shape = Some((registers.crtc[crtc::CURSOR_START] & 0x1F, registers.crtc[crtc::CURSOR_END] & 0x1F));
    let cell = |line: Line, column: usize| {
        let counter = raster.counter(line, column);
        let word = planes.get(raster.address(counter, line.row)).copied().unwrap_or(0);
        let (code, attribute) = (word as u8, (word >> 8) as u8);
        Cell {
            code,
            attribute,
            hidden: blinks && off && attribute & 0x80 != 0,
            cursor: shape.filter(|_| cursor == Some(counter)),
        }
    };
    rows.iter().flat_map(|&(line, _)| (0..columns).map(move |column| cell(line, column))).collect()
}

/// The cursor's position on the address counter, if it is shown now.
fn cursor(registers: &Registers, frame: u64) -> Option<u32> {
    let on = registers.crtc[crtc::CURSOR_START] & 0x20 == 0 && (frame / CURSOR_FRAMES).is_multiple_of(2);
    let skew = u32::from(registers.crtc[crtc::CURSOR_END] >> 5 & 3);
    on.then(|| registers.crtc_pair(crtc::CURSOR_HIGH, crtc::CURSOR_LOW) + skew)
}

/// Where the fonts of characters with attribute bit 3 clear and set begin in plane 2.
fn font_bases(registers: &Registers) -> [usize; 2] {
    let select = registers.seq[seq::FONT];
    let base = |low: u8, high: u8| usize::from(low & 3) << 14 | usize::from(high & 1) << 13;
    [base(select, select >> 4), base(select >> 2, select >> 5)]
}

fn font(planes: &[u32], base: usize) -> Vec<u8> {
    (base..base + GLYPHS * GLYPH_LINES).map(|at| planes.get(at & 0xFFFF).map_or(0, |word| (word >> 16) as u8)).collect()
}

/// Draws cells.
struct Pen<'a> {
    colors: [u32; 16],
    fonts: &'a [Vec<u8>; 2],
    dots: usize,
    dot_width: usize,
    mode: u8,
    underline: u8,
}

impl Pen<'_> {
    fn new<'a>(registers: &Registers, raster: &Raster, fonts: &'a [Vec<u8>; 2]) -> Pen<'a> {
        Pen {
            colors: attribute_colors(registers),
            fonts,
            dots: raster.dots,
            dot_width: raster.dot_width,
            mode: registers.ac[ac::MODE],
            underline: registers.crtc[crtc::UNDERLINE] & 0x1F,
        }
    }
    /// One line of one cell.
    fn draw(&self, pixels: &mut [u32], column: usize, cell: Cell, line: Line) {
        let Cell { code, attribute, hidden, cursor } = cell;
        let background = if self.mode & BLINK != 0 { attribute >> 4 & 7 } else { attribute >> 4 };
        let (fore, back) = (self.colors[usize::from(attribute & 0xF)], self.colors[usize::from(background)]);
        let glyph = usize::from(code) * GLYPH_LINES + usize::from(line.row);
        let font = &self.fonts[usize::from(attribute >> 3 & 1)];
        let mut bits = u16::from(font.get(glyph).copied().unwrap_or(0)) << 1;
        if self.mode & LINE_GRAPHICS != 0 && (0xC0..0xE0).contains(&code) {
            bits |= bits >> 1 & 1;
        }
        if attribute & 7 == 1 && line.row == self.underline {
            bits = 0x1FF;
        }
        if hidden {
            bits = 0;
        }
        if cursor.is_some_and(|(first, last)| (first..=last).contains(&line.row)) {
            bits = 0x1FF;
        }
        let first = (column * self.dots) as isize - line.pan as isize;
        for dot in 0..self.dots {
            let color = if bits >> (8 - dot) & 1 != 0 { fore } else { back };
            let x = (first + dot as isize) * self.dot_width as isize;
            for x in x..x + self.dot_width as isize {
                if let Some(pixel) = usize::try_from(x).ok().and_then(|x| pixels.get_mut(x)) {
                    *pixel = color;
                }
            }
        }
    }
}
