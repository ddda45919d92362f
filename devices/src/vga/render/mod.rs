//! From registers and display memory to a picture: [`render`] is a pure function; a [`Renderer`] gives the same picture and
//! draws only what changed since its last one.
//!
//! A picture has one pixel for each dot that the monitor would show: mode 13h is 640 × 400, each of its pixels two dots wide
//! and two lines high. Pixels are 00RRGGBBh. Called by whatever shows or saves the screen; takes no locks of the board.
//!
//! Leaves out: the overscan border, interlacing, blinking in graphics modes (FreeVGA gives it no meaning on colour displays).

mod graphics;
mod packed;
mod raster;
mod text;

use super::Shown;
use super::registers::{Registers, ac, seq};
use raster::Raster;
use std::ops::Range;
use umbra_mmu::addr::PAGE_SIZE;
use umbra_mmu::video::{Generation, VideoMemory};

/// Display memory that the VGA's own modes show: 64 Ki addresses of four planes.
const PLANE_WORDS: usize = 0x1_0000;

/// A picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Pixels in a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// 00RRGGBBh, line by line.
    pub pixels: Vec<u32>,
}

impl Frame {
    fn resize(&mut self, width: usize, height: usize) {
        (self.width, self.height) = (width, height);
        self.pixels.clear();
        self.pixels.resize(width * height, 0);
    }
    /// A line's pixels.
    pub fn line(&self, y: usize) -> &[u32] {
        self.pixels.get(y * self.width..(y + 1) * self.width).unwrap_or(&[])
    }
    fn line_mut(&mut self, y: usize) -> &mut [u32] {
        self.pixels.get_mut(y * self.width..(y + 1) * self.width).unwrap_or(&mut [])
    }
}

/// What an update changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// These lines; the size is the same.
    Lines(Range<usize>),
    /// The picture has another size.
    Size,
}

/// Draws the picture of a moment.
pub fn render(shown: &Shown, memory: &VideoMemory) -> Frame {
    let mut renderer = Renderer::default();
    renderer.update(shown, memory);
    renderer.frame
}

/// Draws pictures one after the other.
#[derive(Debug, Default)]
pub struct Renderer {
    frame: Frame,
    last: Option<Registers>,
    since: Generation,
    /// The planes as of the last picture.
    planes: Vec<u32>,
    text: text::Memo,
    /// What was drawn in each line of a graphics mode.
    lines: Vec<raster::Line>,
}

impl Renderer {
    /// The last picture.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }
    /// The last picture, to keep.
    pub fn into_frame(self) -> Frame {
        self.frame
    }
    /// Makes the picture that of a moment.
    pub fn update(&mut self, shown: &Shown, memory: &VideoMemory) -> Change {
        let (now, changed) = memory.changes(self.since);
        self.since = now;
        let registers = &shown.registers;
        let same = self.last.as_ref().is_some_and(|last| shows_alike(last, registers));
        let cursor_only = same && self.last.as_ref() == Some(registers);
        let size = (self.frame.width, self.frame.height);
        let drawn = if let Some(packed) = registers.dispi.packed() {
            packed::draw(&mut self.frame, registers, packed, memory, if same { Some(&changed) } else { None })
        } else {
            let planes_changed = self.load_planes(memory, &changed);
            let raster = Raster::of(registers);
            if (raster.width, raster.height) != size {
                self.frame.resize(raster.width, raster.height);
            }
            if !raster.is_lit {
                self.text.forget();
                self.lines.clear();
                if same { 0..0 } else { blank(&mut self.frame) }
            } else if raster.is_text {
                self.lines.clear();
                let fresh = !same || (raster.width, raster.height) != size;
                self.text.draw(&mut self.frame, shown, &raster, &self.planes, fresh)
            } else {
                self.text.forget();
                let known = if same && (raster.width, raster.height) == size { Some(&changed[..]) } else { None };
                let quiet = cursor_only && !planes_changed;
                if quiet {
                    0..0
                } else {
                    graphics::draw(&mut self.frame, registers, &raster, &self.planes, known, &mut self.lines)
                }
            }
        };
        self.last = Some(registers.clone());
        if (self.frame.width, self.frame.height) != size {
            Change::Size
        } else if drawn.is_empty() {
            Change::None
        } else {
            Change::Lines(drawn)
        }
    }
    /// Brings the copy of the planes up to date; tells whether anything in it changed.
    fn load_planes(&mut self, memory: &VideoMemory, changed: &[usize]) -> bool {
        let page_words = PAGE_SIZE as usize / 4;
        let whole = self.planes.is_empty();
        self.planes.resize(PLANE_WORDS, 0);
        let all: Vec<usize> = (0..PLANE_WORDS / page_words).collect();
        let pages = if whole { &all[..] } else { changed };
        let mut any = false;
        for &page in pages.iter().filter(|&&page| page < PLANE_WORDS / page_words) {
            let mut bytes = [0; PAGE_SIZE as usize];
            memory.read(page * PAGE_SIZE as usize, &mut bytes);
            let words = self.planes.iter_mut().skip(page * page_words);
            for (word, four) in words.zip(bytes.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*four);
            }
            any = true;
        }
        any
    }
}

/// Whether all that was drawn under `old` looks the same under `new` but for the cursor and what blinks.
fn shows_alike(old: &Registers, new: &Registers) -> bool {
    use super::registers::crtc;
    let cursor = [crtc::CURSOR_START, crtc::CURSOR_END, crtc::CURSOR_HIGH, crtc::CURSOR_LOW];
    let crtc_alike = (0..old.crtc.len()).all(|index| cursor.contains(&index) || old.crtc[index] == new.crtc[index]);
    let bits = |registers: &Registers| {
        use super::registers::gc;
        let clocking = registers.seq[seq::CLOCKING];
        (registers.shows_palette(), clocking, registers.seq[seq::FONT], registers.gc[gc::MODE] & 0x60)
    };
    crtc_alike
        && old.ac == new.ac
        && bits(old) == bits(new)
        && old.dac.palette(old.dispi.dac_bits()) == new.dac.palette(new.dispi.dac_bits())
        && old.dispi.packed() == new.dispi.packed()
        && old.dispi.planar() == new.dispi.planar()
}

fn blank(frame: &mut Frame) -> Range<usize> {
    frame.pixels.fill(0);
    0..frame.height
}

/// The colours of the attribute controller's 16 numbers: its palette, colour select and the DAC.
pub(super) fn attribute_colors(registers: &Registers) -> [u32; 16] {
    let palette = registers.dac.palette(registers.dispi.dac_bits());
    let select = registers.ac[ac::COLOR_SELECT];
    std::array::from_fn(|number| {
        let inner = registers.ac[number & usize::from(registers.ac[ac::PLANES] & 0xF)];
        let low = if registers.ac[ac::MODE] & 0x80 != 0 { inner & 0x0F | (select & 3) << 4 } else { inner & 0x3F };
        palette[usize::from(low | (select & 0x0C) << 4)]
    })
}
