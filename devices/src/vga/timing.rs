//! Where the electron beam is: input status 1 as a function of the time (IBM PS/2 Hardware Interface Technical Reference,
//! CRT controller; FreeVGA, "CRT controller registers"). Nothing is counted or polled.

use super::registers::{Registers, crtc, seq};
use crate::clock::Tick;

/// Input status 1, bit 0: the beam is outside the picture.
const NOT_DISPLAYING: u8 = 1 << 0;
/// Input status 1, bit 3: vertical retrace.
const RETRACE: u8 = 1 << 3;
/// The dot clocks that miscellaneous output selects, in kHz.
const CLOCKS: [u64; 4] = [25_175, 28_322, 25_175, 25_175];

/// The beam's way over the screen, in dots and lines.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Raster {
    khz: u64,
    line: u64,
    shown_dots: u64,
    lines: u64,
    shown_lines: u64,
    retrace: u64,
    retrace_lines: u64,
}

impl Raster {
    fn of(registers: &Registers) -> Raster {
        let clocking = registers.seq[seq::CLOCKING];
        let dots = if clocking & 1 != 0 { 8 } else { 9 };
        let halved = clocking >> 3 & 1;
        let field = |low, bit_8, bit_9| {
            u64::from(registers.crtc_field(low, (crtc::OVERFLOW, bit_8), Some((crtc::OVERFLOW, bit_9))))
        };
        let retrace = field(crtc::V_RETRACE_START, 2, 7);
        // The end is the low four bits of the line at which the retrace ends.
        let end = u64::from(registers.crtc[crtc::V_RETRACE_END] & 0xF);
        let retrace_lines = end.wrapping_sub(retrace) & 0xF;
        Raster {
            khz: CLOCKS[usize::from(registers.misc >> 2 & 3)] >> halved,
            line: (u64::from(registers.crtc[crtc::H_TOTAL]) + 5) * dots,
            shown_dots: (u64::from(registers.crtc[crtc::H_DISPLAY_END]) + 1) * dots,
            lines: field(crtc::V_TOTAL, 0, 5) + 2,
            shown_lines: field(crtc::V_DISPLAY_END, 1, 6) + 1,
            retrace,
            retrace_lines: if retrace_lines == 0 { 16 } else { retrace_lines },
        }
    }
    /// Dots since tick 0.
    fn dots_at(self, now: Tick) -> u128 {
        u128::from(now.0) * u128::from(self.khz) / 1_000_000
    }
    /// Dots in a frame; never zero.
    fn frame(self) -> u128 {
        u128::from(self.line * self.lines)
    }
}

/// Input status 1.
pub fn status(registers: &Registers, now: Tick) -> u8 {
    let raster = Raster::of(registers);
    let position = (raster.dots_at(now) % raster.frame()) as u64;
    let (line, dot) = (position / raster.line, position % raster.line);
    let in_retrace = line >= raster.retrace && line - raster.retrace < raster.retrace_lines;
    let shown = line < raster.shown_lines && dot < raster.shown_dots;
    (if shown { 0 } else { NOT_DISPLAYING }) | if in_retrace { RETRACE } else { 0 }
}

/// The number of the frame that is being drawn, for whatever blinks.
pub fn frame_number(registers: &Registers, now: Tick) -> u64 {
    let raster = Raster::of(registers);
    (raster.dots_at(now) / raster.frame()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_3_has_seventy_frames_a_second() {
        let registers = Registers::text_mode(1 << 20);
        assert_eq!(frame_number(&registers, Tick(10_000_000_000)), 700);
        // A microsecond at a time through one frame: 449 lines of which 400 are shown and 2 are retrace.
        let samples: Vec<u8> = (0..14_268).map(|us| status(&registers, Tick(us * 1000))).collect();
        let share = |bit: u8| samples.iter().filter(|&status| status & bit != 0).count() as f64 / samples.len() as f64;
        assert!((share(RETRACE) - 2.0 / 449.0).abs() < 0.001, "{}", share(RETRACE));
        let outside = 1.0 - 400.0 * 720.0 / (449.0 * 900.0);
        assert!((share(NOT_DISPLAYING) - outside).abs() < 0.01, "{}", share(NOT_DISPLAYING));
        assert_eq!(samples.windows(2).filter(|pair| pair[0] & RETRACE < pair[1] & RETRACE).count(), 1);
    }
}
