//! The digital-to-analog converter: 256 colours of 3 × 6 bits (IBM PS/2 Hardware Interface Technical Reference, "Video
//! digital-to-analog converter"), 3 × 8 when the VBE extension says so.

use serde::{Deserialize, Serialize};

/// The DAC: volatile state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dac {
    /// What pixel values are masked with.
    pub mask: u8,
    colors: Vec<[u8; 3]>,
    /// The colour being read or written, and the next of its parts.
    index: u8,
    part: u8,
    reading: bool,
    partial: [u8; 3],
}

impl Default for Dac {
    /// The colours that video BIOSes load for mode 3: the 64 of the EGA.
    fn default() -> Dac {
        let level = |high: u8, low: u8| 0x2A * high + 0x15 * low;
        let ega = |n: u8| {
            let bit = |b: u8| n >> b & 1;
            [level(bit(2), bit(5)), level(bit(1), bit(4)), level(bit(0), bit(3))]
        };
        let colors = (0..=255).map(|n| if n < 64 { ega(n) } else { [0; 3] }).collect();
        Dac { mask: 0xFF, colors, index: 0, part: 0, reading: false, partial: [0; 3] }
    }
}

impl Dac {
    /// 3C7h read: 3 after a read index was written, 0 after a write index.
    pub fn state(&self) -> u8 {
        if self.reading { 3 } else { 0 }
    }
    /// 3C8h read.
    pub fn write_index(&self) -> u8 {
        self.index
    }
    /// 3C7h written.
    pub fn start_reading(&mut self, index: u8) {
        (self.index, self.part, self.reading) = (index, 0, true);
    }
    /// 3C8h written.
    pub fn start_writing(&mut self, index: u8) {
        (self.index, self.part, self.reading) = (index, 0, false);
    }
    /// 3C9h read.
    pub fn read(&mut self) -> u8 {
        let color = self.colors.get(usize::from(self.index)).copied().unwrap_or_default();
        let value = color[usize::from(self.part % 3)];
        self.next_part();
        value
    }
    /// 3C9h written; a colour changes when its last part is.
    pub fn write(&mut self, value: u8, bits: DacBits) {
        let value = if bits == DacBits::Six { value & 0x3F } else { value };
        self.partial[usize::from(self.part % 3)] = value;
        if self.part == 2
            && let Some(color) = self.colors.get_mut(usize::from(self.index))
        {
            *color = self.partial;
        }
        self.next_part();
    }
    fn next_part(&mut self) {
        self.part = (self.part + 1) % 3;
        if self.part == 0 {
            self.index = self.index.wrapping_add(1);
        }
    }
    /// The colours as 00RRGGBBh, the mask applied to their numbers.
    pub fn palette(&self, bits: DacBits) -> [u32; 256] {
        std::array::from_fn(|number| {
            let color = self.colors.get(number & usize::from(self.mask)).copied().unwrap_or_default();
            color.into_iter().fold(0, |rgb, part| {
                let part = if bits == DacBits::Six { part << 2 | (part & 0x3F) >> 4 } else { part };
                rgb << 8 | u32::from(part)
            })
        })
    }
    /// Whether a restored state has the right number of colours.
    pub fn is_sound(&self) -> bool {
        self.colors.len() == 256 && self.part < 3
    }
}

/// How many bits each part of a colour has.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum DacBits {
    /// Six, as the VGA has.
    Six,
    /// Eight.
    Eight,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_written_in_threes_and_read_back() {
        let mut dac = Dac::default();
        dac.start_writing(255);
        for value in [0xFF, 0x20, 0x01, 1, 2, 3, 9] {
            dac.write(value, DacBits::Six);
        }
        assert_eq!(dac.palette(DacBits::Six)[255], 0xFF_8204);
        dac.start_reading(255);
        let read: Vec<u8> = (0..7).map(|_| dac.read()).collect();
        assert_eq!(read, [0x3F, 0x20, 1, 1, 2, 3, 0], "the index wraps; the lone 9 changed nothing");
        assert_eq!(
            Dac::default().palette(DacBits::Six)[..9],
            [0, 0xAA, 0xAA00, 0xAAAA, 0xAA_0000, 0xAA_00AA, 0xAA_AA00, 0xAA_AAAA, 0x55]
        );
    }
}
