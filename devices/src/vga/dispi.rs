//! The Bochs VBE extension ("dispi"): display modes beyond the VGA's by ten 16-bit registers (Bochs, "VBE display interface";
//! QEMU, "Standard VGA").
//!
//! While it is enabled the picture is a packed framebuffer (or, with 4 bits a pixel, the VGA's planes) and the legacy window
//! shows the bank of 64 KiB that the bank register names. Leaves out: hardware cursors, DDC (there are none in this interface).

use super::dac::DacBits;
use serde::{Deserialize, Serialize};

/// The register numbers.
#[rustfmt::skip]
pub mod index {
    #![expect(missing_docs, reason = "the names are the interface's")]
    pub const ID: u16 = 0; pub const XRES: u16 = 1; pub const YRES: u16 = 2; pub const BPP: u16 = 3; pub const ENABLE: u16 = 4;
    pub const BANK: u16 = 5; pub const VIRT_WIDTH: u16 = 6; pub const VIRT_HEIGHT: u16 = 7; pub const X_OFFSET: u16 = 8;
    pub const Y_OFFSET: u16 = 9; pub const MEMORY_64K: u16 = 10;
}
/// Bits of the enable register.
#[rustfmt::skip]
pub mod enable {
    #![expect(missing_docs, reason = "the names are the interface's")]
    pub const ON: u16 = 0x01; pub const CAPABILITIES: u16 = 0x02; pub const DAC_8: u16 = 0x20; pub const LINEAR: u16 = 0x40;
    pub const KEEP_MEMORY: u16 = 0x80;
}

/// The largest mode.
pub const MAX_X: u16 = 2560;
/// The largest mode.
pub const MAX_Y: u16 = 1600;
const MAX_BPP: u16 = 32;
/// The interface's version 5.
const NEWEST: u16 = 0xB0C5;
const OLDEST: u16 = 0xB0C0;

/// The registers: volatile state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dispi {
    index: u16,
    id: u16,
    x: u16,
    y: u16,
    bpp: u16,
    enable: u16,
    bank: u16,
    virtual_width: u16,
    x_offset: u16,
    y_offset: u16,
    /// Bytes of display memory.
    memory: u64,
}

/// How a packed framebuffer lies in memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Pixels in a line that are shown.
    pub width: usize,
    /// Lines that are shown.
    pub height: usize,
    /// The first shown pixel's byte.
    pub start: usize,
    /// Bytes from a line to the next.
    pub pitch: usize,
    /// 8, 15, 16, 24 or 32.
    pub bpp: u16,
}

/// What a write asks of the adapter beyond the registers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum DispiEffect {
    /// Nothing.
    None,
    /// This many bytes from the start of memory are cleared.
    Clear(usize),
}

impl Dispi {
    /// The extension of a card with this much memory, switched off.
    pub fn new(memory: u64) -> Dispi {
        Dispi {
            index: 0,
            id: NEWEST,
            x: 0,
            y: 0,
            bpp: 8,
            enable: 0,
            bank: 0,
            virtual_width: 0,
            x_offset: 0,
            y_offset: 0,
            memory,
        }
    }
    /// Whether a VBE mode is on.
    pub fn is_on(&self) -> bool {
        self.enable & enable::ON != 0
    }
    /// Whether the guest uses the linear framebuffer.
    pub fn is_linear(&self) -> bool {
        self.is_on() && self.enable & enable::LINEAR != 0
    }
    /// How wide the DAC is.
    pub fn dac_bits(&self) -> DacBits {
        if self.enable & enable::DAC_8 != 0 { DacBits::Eight } else { DacBits::Six }
    }
    /// The bank in the legacy window.
    pub fn bank(&self) -> usize {
        usize::from(self.bank)
    }
    /// The packed framebuffer, if that is what is shown.
    pub fn packed(&self) -> Option<Packed> {
        if !self.is_on() || self.bpp == 4 {
            return None;
        }
        let bytes = usize::from(self.bpp).div_ceil(8);
        let pitch = usize::from(self.virtual_width) * bytes;
        let start = usize::from(self.y_offset) * pitch + usize::from(self.x_offset) * bytes;
        Some(Packed { width: self.x.into(), height: self.y.into(), start, pitch, bpp: self.bpp })
    }
    /// The planar framebuffer of a mode with 4 bits a pixel: width, height, first byte and bytes a line within each plane.
    pub fn planar(&self) -> Option<(usize, usize, usize, usize)> {
        let pitch = usize::from(self.virtual_width) / 8;
        let start = usize::from(self.y_offset) * pitch + usize::from(self.x_offset) / 8;
        (self.is_on() && self.bpp == 4).then_some((self.x.into(), self.y.into(), start, pitch))
    }

    /// The index port.
    pub fn read_index(&self) -> u16 {
        self.index
    }
    /// The index port.
    pub fn write_index(&mut self, value: u16) {
        self.index = value;
    }
    /// The data port.
    pub fn read_data(&self) -> u16 {
        self.read(self.index)
    }
    /// The data port.
    pub fn write_data(&mut self, value: u16) -> DispiEffect {
        self.write(self.index, value)
    }
    /// Reads a register by number.
    pub fn read(&self, number: u16) -> u16 {
        let largest = self.enable & enable::CAPABILITIES != 0;
        match number {
            index::ID => self.id,
            index::XRES if largest => MAX_X,
            index::YRES if largest => MAX_Y,
            index::BPP if largest => MAX_BPP,
            index::XRES => self.x,
            index::YRES => self.y,
            index::BPP => self.bpp,
            index::ENABLE => self.enable,
            index::BANK => self.bank,
            index::VIRT_WIDTH => self.virtual_width,
            index::VIRT_HEIGHT => self.virtual_height(),
            index::X_OFFSET => self.x_offset,
            index::Y_OFFSET => self.y_offset,
            index::MEMORY_64K => (self.memory >> 16) as u16,
            _ => 0,
        }
    }
    /// Writes a register by number. What cannot be is left as it was.
    pub fn write(&mut self, number: u16, value: u16) -> DispiEffect {
        match number {
            index::ID if (OLDEST..=NEWEST).contains(&value) => self.id = value,
            // A mode is chosen while the extension is off.
            index::XRES if !self.is_on() && value <= MAX_X => self.x = value & !7,
            index::YRES if !self.is_on() && value <= MAX_Y => self.y = value,
            index::BPP if !self.is_on() => match value {
                0 => self.bpp = 8,
                4 | 8 | 15 | 16 | 24 | 32 => self.bpp = value,
                _ => {}
            },
            index::ENABLE => return self.write_enable(value),
            index::BANK => self.bank = value % (self.memory >> 16).clamp(1, 0xFFFF) as u16,
            index::VIRT_WIDTH if self.is_on() && value >= self.x => {
                let width = value & !7;
                if self.fits(width, 0) {
                    (self.virtual_width, self.x_offset, self.y_offset) = (width, 0, 0);
                }
            }
            index::X_OFFSET if self.is_on() && u32::from(value) + u32::from(self.x) <= self.virtual_width.into() => {
                self.x_offset = value;
            }
            index::Y_OFFSET if self.is_on() && self.fits(self.virtual_width, value) => self.y_offset = value,
            _ => {}
        }
        DispiEffect::None
    }
    fn write_enable(&mut self, value: u16) -> DispiEffect {
        let was_on = self.is_on();
        self.enable = value & !enable::KEEP_MEMORY;
        if !self.is_on() {
            return DispiEffect::None;
        }
        if !was_on {
            (self.virtual_width, self.x_offset, self.y_offset, self.bank) = (self.x, 0, 0, 0);
            if self.x == 0 || self.y == 0 || !self.fits(self.x, 0) {
                self.enable &= !enable::ON;
                return DispiEffect::None;
            }
            if value & enable::KEEP_MEMORY == 0 {
                return DispiEffect::Clear(self.line_bytes(self.x) * usize::from(self.y));
            }
        }
        DispiEffect::None
    }
    /// Whether what was restored can be on a card with this much memory.
    pub fn is_sound(&self, memory: u64) -> bool {
        let mode = self.x <= MAX_X && self.y <= MAX_Y && matches!(self.bpp, 4 | 8 | 15 | 16 | 24 | 32);
        let panned = u32::from(self.x) + u32::from(self.x_offset) <= self.virtual_width.into();
        let shown = self.x != 0 && self.y != 0 && panned && self.fits(self.virtual_width, self.y_offset);
        self.memory == memory && mode && (!self.is_on() || shown) && u64::from(self.bank) < (memory >> 16).max(1)
    }
    /// Bytes of a line of this width in all planes.
    fn line_bytes(&self, width: u16) -> usize {
        match self.bpp {
            4 => usize::from(width) / 2,
            bpp => usize::from(width) * usize::from(bpp).div_ceil(8),
        }
    }
    fn fits(&self, width: u16, y_offset: u16) -> bool {
        let lines = usize::from(self.y) + usize::from(y_offset);
        width != 0 && (self.line_bytes(width) * lines) as u64 <= self.memory
    }
    fn virtual_height(&self) -> u16 {
        let line = self.line_bytes(self.virtual_width).max(1) as u64;
        (self.memory / line).min(0xFFFF) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(dispi: &mut Dispi, writes: &[(u16, u16)]) -> DispiEffect {
        writes.iter().map(|&(number, value)| dispi.write(number, value)).last().unwrap()
    }

    #[test]
    fn modes_are_checked_against_memory() {
        let mut dispi = Dispi::new(16 << 20);
        let clear = set(&mut dispi, &[(1, 2560), (2, 1600), (3, 32), (4, 0x41)]);
        assert_eq!((clear, dispi.is_linear()), (DispiEffect::Clear(2560 * 1600 * 4), true));
        assert_eq!(dispi.read(index::VIRT_HEIGHT), 1638);
        set(&mut dispi, &[(9, 38), (9, 39), (8, 1), (6, 3000)]);
        assert_eq!(dispi.packed().unwrap().start, 38 * 2560 * 4, "what does not fit changes nothing");
        set(&mut dispi, &[(1, 640), (4, 0), (1, 3000), (4, 3)]);
        assert_eq!((dispi.read(1), dispi.read(3)), (MAX_X, MAX_BPP));
        let mut small = Dispi::new(1 << 20);
        set(&mut small, &[(1, 1024), (2, 768), (3, 32), (4, 1)]);
        assert!(!small.is_on());
    }

    #[test]
    fn panning_and_banks() {
        let mut dispi = Dispi::new(16 << 20);
        set(&mut dispi, &[(1, 800), (2, 600), (3, 16), (4, 0x81), (6, 1024), (8, 16), (9, 10), (5, 300)]);
        let packed = dispi.packed().unwrap();
        assert_eq!((packed.pitch, packed.start, dispi.bank()), (2048, 10 * 2048 + 32, 300 % 256));
        assert_eq!((dispi.read(index::ENABLE), dispi.read(index::MEMORY_64K)), (1, 256));
    }
}
