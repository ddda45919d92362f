//! The text screen as characters for people: code page 437 as Unicode, with attributes and the cursor.

use super::Shown;
use super::registers::{ac, crtc};
use umbra_mmu::video::VideoMemory;

/// What the 256 codes look like (IBM code page 437, with the graphics of the control codes).
#[rustfmt::skip]
const CP437: &str = "\
\u{20}☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼\
\u{20}!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~⌂\
ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// What a code looks like.
pub fn unicode(code: u8) -> char {
    CP437.chars().nth(code.into()).unwrap_or(' ')
}

/// A cell of the screen.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TextCell {
    /// The code.
    pub code: u8,
    /// Foreground, background, blinking.
    pub attribute: u8,
}

/// A screen of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextScreen {
    /// Cells in a row.
    pub columns: usize,
    /// Row by row.
    pub cells: Vec<TextCell>,
    /// Column and row of the cursor, if there is one on the screen.
    pub cursor: Option<(usize, usize)>,
    /// Attribute bit 7 blinks (else it brightens the background).
    pub blinks: bool,
    /// The colours of the 16 numbers, 00RRGGBBh.
    pub colors: [u32; 16],
}

impl TextScreen {
    /// Each row as text, without spaces at its end.
    pub fn lines(&self) -> Vec<String> {
        let table: Vec<char> = CP437.chars().collect();
        let shown = |cell: &TextCell| match table.get(usize::from(cell.code)) {
            Some('\u{a0}') | None => ' ',
            Some(&shown) => shown,
        };
        let row = |row: &[TextCell]| row.iter().map(shown).collect::<String>().trim_end().to_owned();
        self.cells.chunks(self.columns.max(1)).map(row).collect()
    }
}

/// The text that is shown; `None` in graphics modes.
pub fn text(shown: &Shown, memory: &VideoMemory) -> Option<TextScreen> {
    let registers = &shown.registers;
    if registers.dispi.is_on() || registers.ac[ac::MODE] & 1 != 0 {
        return None;
    }
    let columns = usize::from(registers.crtc[crtc::H_DISPLAY_END]) + 1;
    let lines = registers.crtc_field(crtc::V_DISPLAY_END, (crtc::OVERFLOW, 1), Some((crtc::OVERFLOW, 6))) as usize + 1;
    let max_row = registers.crtc[crtc::MAX_SCAN_LINE];
    let height = (usize::from(max_row & 0x1F) + 1) << (max_row >> 7);
    let rows = (lines / height).max(1);
    let pitch = 2 * usize::from(registers.crtc[crtc::OFFSET]);
    let start = registers.crtc_pair(crtc::START_HIGH, crtc::START_LOW) as usize;
    let cell = |position: usize| {
        let word = memory.load(4 * ((2 * position) & 0xFFFF));
        TextCell { code: word as u8, attribute: (word >> 8) as u8 }
    };
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| cell(start + row * pitch + column))).collect();
    let at = (registers.crtc_pair(crtc::CURSOR_HIGH, crtc::CURSOR_LOW) as usize).checked_sub(start);
    let cursor = at.filter(|_| pitch != 0).map(|at| (at % pitch, at / pitch));
    let visible = registers.crtc[crtc::CURSOR_START] & 0x20 == 0;
    Some(TextScreen {
        columns,
        cells,
        cursor: cursor.filter(|&(column, row)| visible && column < columns && row < rows),
        blinks: registers.ac[ac::MODE] & 0x08 != 0,
        colors: super::render::attribute_colors(registers),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_page_has_256_characters() {
        assert_eq!(CP437.chars().count(), 256);
        let samples =
            [(1, '☺'), (0x41, 'A'), (0x7F, '⌂'), (0x80, 'Ç'), (0xB3, '│'), (0xDB, '█'), (0xE1, 'ß'), (0xFE, '■')];
        for (code, shown) in samples {
            assert_eq!(unicode(code), shown, "{code:#x}");
        }
    }
}
