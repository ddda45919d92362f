//! Which address and which line of a character each line of the picture begins with: the CRT controller's counters (IBM PS/2
//! Hardware Interface Technical Reference, CRT controller; FreeVGA, "CRT controller registers").

use crate::vga::registers::{Registers, ac, crtc, seq};

/// One line of the picture.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The memory address counter at its start.
    pub address: u32,
    /// The row scan counter.
    pub row: u8,
    /// Dots by which it is shifted to the left.
    pub pan: usize,
}

/// The picture's geometry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raster {
    /// Dots in a line of the picture.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// Characters (groups of eight or nine dots) in a line.
    pub columns: usize,
    /// Dots of a character.
    pub dots: usize,
    /// How wide a dot is: 2 if the dot clock is halved.
    pub dot_width: usize,
    /// Something is shown at all.
    pub is_lit: bool,
    /// Characters, not graphics.
    pub is_text: bool,
    /// Every line.
    pub lines: Vec<Line>,
    mapping: Mapping,
}

/// From the address counter to an address in the planes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Mapping {
    mode: u8,
    double_word: bool,
    /// Characters for which the address counter stands still, as a shift.
    slow: u32,
}

/// Attribute mode: graphics.
const GRAPHICS: u8 = 1 << 0;
/// Attribute mode: panning ends at the split.
const PAN_UPPER_ONLY: u8 = 1 << 5;

impl Raster {
    /// The geometry that registers describe.
    pub fn of(registers: &Registers) -> Raster {
        let clocking = registers.seq[seq::CLOCKING];
        let mode = registers.crtc[crtc::MODE];
        let is_text = registers.ac[ac::MODE] & GRAPHICS == 0;
        let dots = if clocking & 1 != 0 || !is_text { 8 } else { 9 };
        let dot_width = 1 + usize::from(clocking >> 3 & 1);
        let is_lit = clocking & 0x20 == 0 && registers.shows_palette() && mode & 0x80 != 0;
        let underline = registers.crtc[crtc::UNDERLINE];
        // Count by two, count by four.
        let slow = u32::from(mode >> 3 & 1).max(u32::from(underline >> 5 & 1) * 2);
        let mapping = Mapping { mode, double_word: underline & 0x40 != 0, slow };
        if let Some((width, height, start, pitch)) = registers.dispi.planar() {
            let line = |y: usize| Line { address: (start + y * pitch) as u32, row: 0, pan: 0 };
            let mapping = Mapping { mode: 0xE3, double_word: false, slow: 0 };
            let (columns, lines) = (width / 8, (0..height).map(line).collect());
            let is_text = false;
            return Raster { width, height, columns, dots: 8, dot_width: 1, is_lit: true, is_text, lines, mapping };
        }
        let columns = usize::from(registers.crtc[crtc::H_DISPLAY_END]) + 1;
        let shown = registers.crtc_field(crtc::V_DISPLAY_END, (crtc::OVERFLOW, 1), Some((crtc::OVERFLOW, 6))) + 1;
        // The vertical counter may be clocked by every other line.
        let height = (shown << (mode >> 2 & 1)) as usize;
        let lines = lines(registers, height, dots, is_text);
        Raster { width: columns * dots * dot_width, height, columns, dots, dot_width, is_lit, is_text, lines, mapping }
    }
    /// The address counter at a character of a line.
    pub fn counter(&self, line: Line, column: usize) -> u32 {
        (line.address + (column as u32 >> self.mapping.slow)) & 0xFFFF
    }
    /// The address in the planes that a value of the counter stands for.
    pub fn address(&self, counter: u32, row: u8) -> usize {
        let Mapping { mode, double_word, .. } = self.mapping;
        let wrapped = |bit: u32| counter >> bit & 1;
        let mut address = if double_word {
            // The manual leaves open which bits come in below; these leave 320 × 200 whole.
            counter << 2 | counter >> 14 & 3
        } else if mode & 0x40 == 0 {
            counter << 1 | wrapped(if mode & 0x20 != 0 { 15 } else { 13 })
        } else {
            counter
        };
        // Compatibility with the CGA and the Hercules card: lines take turns in two or four parts of memory.
        if mode & 1 == 0 {
            address = address & !(1 << 13) | u32::from(row & 1) << 13;
        }
        if mode & 2 == 0 {
            address = address & !(1 << 14) | u32::from(row >> 1 & 1) << 14;
        }
        (address & 0xFFFF) as usize
    }
}

/// Walks the counters down the screen.
fn lines(registers: &Registers, height: usize, dots: usize, is_text: bool) -> Vec<Line> {
    let max_row = registers.crtc[crtc::MAX_SCAN_LINE];
    let (last_row, doubled) = (max_row & 0x1F, max_row & 0x80 != 0);
    let compare =
        registers.crtc_field(crtc::LINE_COMPARE, (crtc::OVERFLOW, 4), Some((crtc::MAX_SCAN_LINE, 6))) as usize;
    let preset = registers.crtc[crtc::PRESET_ROW];
    let panning = usize::from(registers.ac[ac::PANNING]);
    let step = 2 * u32::from(registers.crtc[crtc::OFFSET]);
    let mut pan = match (is_text && dots == 9, panning) {
        (true, 8..) => 0,
        (true, _) => panning + 1,
        (false, _) => panning & 7,
    };
    let mut address = registers.crtc_pair(crtc::START_HIGH, crtc::START_LOW) + u32::from(preset >> 5 & 3);
    let mut row = preset & 0x1F;
    let mut second = false;
    let mut lines = Vec::with_capacity(height);
    for y in 0..height {
        lines.push(Line { address: address & 0xFFFF, row, pan });
        if y == compare {
            (address, row, second) = (0, 0, false);
            if registers.ac[ac::MODE] & PAN_UPPER_ONLY != 0 {
                pan = 0;
            }
            continue;
        }
        second = doubled && !second;
        if second {
            continue;
        }
        if row == last_row {
            (address, row) = (address.wrapping_add(step), 0);
        } else {
            row = (row + 1) & 0x1F;
        }
    }
    lines
}
