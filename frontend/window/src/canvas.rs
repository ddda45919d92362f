//! From the guest's picture to the window's: where it lies and how it is scaled, line by line, so that only what changed is
//! done again. No window system here; pixels are 00RRGGBBh.
//!
//! Leaves out: filters for a picture of less than half its size, where smoothing begins to skip pixels.

use std::ops::Range;
use umbra_machine::display::Frame;

/// How the picture fills the window.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Scaling {
    /// Each pixel is a square of whole pixels, as large as fits: sharp. What does not fit at all is made smaller.
    #[default]
    Integer,
    /// As large as fits in the proportions of a monitor of 4:3 (square pixels for large modes), smoothed.
    Smooth,
}

impl Scaling {
    /// The other one.
    pub fn other(self) -> Scaling {
        match self {
            Scaling::Integer => Scaling::Smooth,
            Scaling::Smooth => Scaling::Integer,
        }
    }
}

/// A rectangle of the window.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Left edge.
    pub x: usize,
    /// Upper edge.
    pub y: usize,
    /// Width.
    pub width: usize,
    /// Height.
    pub height: usize,
}

/// Modes up to this height were made for monitors of 4:3, whatever their pixels.
const LEGACY_LINES: usize = 480;

/// Where a picture of a size lies in a window of a size.
pub fn place(picture: (usize, usize), window: (usize, usize), scaling: Scaling) -> Place {
    let (width, height) = (picture.0.max(1), picture.1.max(1));
    let factor = (window.0 / width).min(window.1 / height);
    let (width, height) = match scaling {
        Scaling::Integer if factor >= 1 => (width * factor, height * factor),
        _ => {
            let is_legacy = scaling == Scaling::Smooth && height <= LEGACY_LINES;
            let (across, down) = if is_legacy { (4, 3) } else { (width, height) };
            if window.0 * down <= window.1 * across {
                (window.0, window.0 * down / across)
            } else {
                (window.1 * across / down, window.1)
            }
        }
    };
    Place { x: window.0.saturating_sub(width) / 2, y: window.1.saturating_sub(height) / 2, width, height }
}

impl Place {
    /// Where a point of the window is in it: 0–1 from the left and from the top. What lies beside it is at its edge.
    pub fn part(self, x: f64, y: f64) -> [f64; 2] {
        let part = |at: f64, from: usize, length: usize| {
            // The middle of the first pixel is 0, that of the last is 1.
            let whole = length.max(2) as f64 - 1.0;
            ((at - from as f64).floor() / whole).clamp(0.0, 1.0)
        };
        [part(x, self.x, self.width), part(y, self.y, self.height)]
    }
}

/// The window's picture.
#[derive(Debug, Default)]
pub struct Canvas {
    /// Width and height of the window.
    size: (usize, usize),
    pixels: Vec<u32>,
    /// What the pixels were made from: size of the guest's picture, and how it was scaled.
    made_from: Option<((usize, usize), Scaling)>,
}

impl Canvas {
    /// The pixels, line by line.
    pub fn pixels(&self) -> &[u32] {
        &self.pixels
    }
    /// The same, to draw over the picture; the next [`Canvas::draw`] makes all of them anew.
    pub fn overlay(&mut self) -> ((usize, usize), &mut [u32]) {
        self.made_from = None;
        (self.size, &mut self.pixels)
    }
    /// Makes a window of a size show the picture, black around it. `changed`: the picture's lines that are not as they were
    /// at the last call. Gives the window's lines that are not as they were.
    pub fn draw(
        &mut self,
        frame: &Frame,
        window: (usize, usize),
        scaling: Scaling,
        changed: Range<usize>,
    ) -> Range<usize> {
        let made_from = Some(((frame.width, frame.height), scaling));
        let place = place((frame.width, frame.height), window, scaling);
        let anew = self.size != window || self.made_from != made_from;
        if anew {
            (self.size, self.made_from) = (window, made_from);
            self.pixels.clear();
            self.pixels.resize(window.0 * window.1, 0);
        }
        if frame.pixels.is_empty() || place.width == 0 || place.height == 0 {
            return if anew { 0..window.1 } else { 0..0 };
        }
        let rows = if anew { 0..place.height } else { rows_of(changed, frame.height, place.height) };
        let is_sharp =
            place.width.is_multiple_of(frame.width) && place.height == place.width / frame.width * frame.height;
        if is_sharp && scaling == Scaling::Integer {
            self.draw_sharp(frame, place, rows.clone());
        } else {
            self.draw_smooth(frame, place, rows.clone());
        }
        if anew { 0..window.1 } else { place.y + rows.start..place.y + rows.end }
    }
    /// The part of a line of the window in which the picture lies.
    fn line(&mut self, place: Place, row: usize) -> &mut [u32] {
        let start = (place.y + row) * self.size.0 + place.x;
        self.pixels.get_mut(start..start + place.width).unwrap_or(&mut [])
    }
    fn draw_sharp(&mut self, frame: &Frame, place: Place, rows: Range<usize>) {
        let factor = (place.width / frame.width).max(1);
        for row in rows.clone() {
            if row > rows.start && !row.is_multiple_of(factor) {
                let above = (place.y + row - 1) * self.size.0 + place.x;
                self.pixels.copy_within(above..above + place.width, above + self.size.0);
                continue;
            }
            let from = frame.line(row / factor);
            if factor == 1 {
                self.line(place, row).copy_from_slice(from);
            } else {
                self.line(place, row).chunks_exact_mut(factor).zip(from).for_each(|(to, &from)| to.fill(from));
            }
        }
    }
    fn draw_smooth(&mut self, frame: &Frame, place: Place, rows: Range<usize>) {
        let columns: Vec<(usize, u32)> = (0..place.width).map(|x| position(x, place.width, frame.width)).collect();
        let widen = |y: usize| -> Vec<u32> {
            let line = frame.line(y);
            let pick = |at: usize| line.get(at.min(frame.width - 1)).copied().unwrap_or(0);
            columns.iter().map(|&(at, part)| mix(pick(at), pick(at + 1), part)).collect()
        };
        // The two lines of the picture between which the window's line lies, widened.
        let mut pair: Option<(usize, Vec<u32>, Vec<u32>)> = None;
        for row in rows {
            let (at, part) = position(row, place.height, frame.height);
            let lower = || widen((at + 1).min(frame.height - 1));
            let (_, upper, lower) = match pair.take() {
                Some(same) if same.0 == at => pair.insert(same),
                Some((before, _, shared)) if before + 1 == at => pair.insert((at, shared, lower())),
                _ => pair.insert((at, widen(at), lower())),
            };
            let ends = upper.iter().zip(lower.iter());
            self.line(place, row).iter_mut().zip(ends).for_each(|(to, (&up, &down))| *to = mix(up, down, part));
        }
    }
}

/// The rows of a picture scaled to `scaled` lines that show some of its `height` lines, smoothed or not.
fn rows_of(lines: Range<usize>, height: usize, scaled: usize) -> Range<usize> {
    if lines.is_empty() {
        return 0..0;
    }
    let first = lines.start.saturating_sub(1) * scaled / height;
    let end = ((lines.end + 1) * scaled).div_ceil(height);
    first..end.min(scaled)
}

/// The pixel that a place in the window begins with, and how far into the next it lies (0–255).
fn position(at: usize, window: usize, picture: usize) -> (usize, u32) {
    // The middle of the window's pixel, in 256ths of the picture's.
    let middle = ((2 * at + 1) * picture * 128 / window).saturating_sub(128);
    ((middle / 256).min(picture - 1), (middle % 256) as u32)
}

/// `part` 256ths of `b`, the rest of `a`, red and blue in one multiplication.
fn mix(a: u32, b: u32, part: u32) -> u32 {
    let channels =
        |mask: u32, shift: u32| ((a >> shift & mask) * (256 - part) + (b >> shift & mask) * part) >> 8 & mask;
    channels(0xFF_00FF, 0) | channels(0xFF, 8) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let at = |x, y, width, height| Place { x, y, width, height };
        assert_eq!(place((720, 400), (720, 400), Scaling::Integer), at(0, 0, 720, 400));
        assert_eq!(place((320, 200), (1000, 700), Scaling::Integer), at(20, 50, 960, 600));
        assert_eq!(place((640, 480), (320, 480), Scaling::Integer), at(0, 120, 320, 240), "made smaller");
        assert_eq!(place((720, 400), (800, 800), Scaling::Smooth), at(0, 100, 800, 600));
        assert_eq!(place((1280, 1024), (1280, 2048), Scaling::Smooth), at(0, 512, 1280, 1024));
    }

    #[test]
    fn parts_of_a_place() {
        let place = place((320, 200), (1000, 700), Scaling::Integer);
        assert_eq!((place.part(20.0, 50.0), place.part(979.9, 649.0)), ([0.0, 0.0], [1.0, 1.0]));
        assert_eq!((place.part(0.0, 699.0), place.part(1e9, -1e9)), ([0.0, 1.0], [1.0, 0.0]), "beside it");
        let [x, y] = place.part(20.0 + 959.0 / 2.0, 50.0 + 599.0 / 2.0);
        assert!((x - 0.5).abs() < 0.001 && (y - 0.5).abs() < 0.001);
        assert_eq!(Place::default().part(f64::NAN, 3.0)[1], 1.0, "no place at all");
    }

    #[test]
    fn whole_factors_keep_colours_and_smoothing_mixes_them() {
        let frame = Frame { width: 2, height: 1, pixels: vec![0xFF_0000, 0x00_00FF] };
        let mut canvas = Canvas::default();
        assert_eq!(canvas.draw(&frame, (5, 3), Scaling::Integer, 0..0), 0..3);
        let row = [0xFF_0000, 0xFF_0000, 0xFF, 0xFF, 0];
        assert_eq!(canvas.pixels(), [row, row, [0; 5]].concat());
        canvas.draw(&frame, (8, 6), Scaling::Smooth, 0..0);
        let middle = &canvas.pixels()[8 * 2..8 * 3];
        assert_eq!((middle[0], middle[7]), (0xFF_0000, 0x00_00FF));
        assert!(middle[3] >> 16 > 0 && middle[3] & 0xFF > 0, "{:06x}", middle[3]);
        canvas.draw(&Frame::default(), (2, 2), Scaling::Integer, 0..0);
        assert_eq!(canvas.pixels(), [0; 4]);
        canvas.draw(&frame, (0, 0), Scaling::Smooth, 0..1);
        assert!(canvas.pixels().is_empty());
    }

    #[test]
    fn drawing_what_changed_is_as_good_as_drawing_all() {
        let mut frame =
            Frame { width: 40, height: 30, pixels: (0..1200_u32).map(|n| (n * 0x12_3457) & 0xFF_FFFF).collect() };
        for scaling in [Scaling::Integer, Scaling::Smooth] {
            for window in [(40, 30), (100, 100), (131, 61), (30, 25), (400, 299)] {
                let mut canvas = Canvas::default();
                canvas.draw(&frame, window, scaling, 0..30);
                let mut shown = canvas.pixels().to_vec();
                for changed in [0..1, 7..9, 29..30, 5..5] {
                    frame.pixels[changed.start * 40..changed.end * 40].iter_mut().for_each(|pixel| *pixel ^= 0x55_AA33);
                    let rows = canvas.draw(&frame, window, scaling, changed);
                    let part = rows.start * window.0..rows.end * window.0;
                    shown[part.clone()].copy_from_slice(&canvas.pixels()[part]);
                    let mut whole = Canvas::default();
                    whole.draw(&frame, window, scaling, 0..30);
                    assert_eq!(canvas.pixels(), whole.pixels(), "{scaling:?} {window:?}");
                    assert_eq!(shown, whole.pixels(), "{scaling:?} {window:?}: {rows:?}");
                }
                let (size, pixels) = canvas.overlay();
                assert_eq!(size, window);
                pixels.fill(1);
                assert_eq!(canvas.draw(&frame, window, scaling, 0..0), 0..window.1);
            }
        }
    }
}
