//! The register files of the VGA: sequencer, CRT controller, graphics and attribute controllers (IBM PS/2 Hardware
//! Interface Technical Reference, video subsystem; FreeVGA, "Accessing the VGA registers").
//!
//! Plain data with the ports on top; what registers mean for memory is in `planes` and `window`, for the picture in `render`.
//!
//! Leaves out: the light pen, the vertical-retrace interrupt (PCI boards do not wire it), feature-connector bits.

use super::dac::Dac;
use super::dispi::Dispi;
use serde::{Deserialize, Serialize};

/// Indices of the CRT controller.
#[rustfmt::skip]
pub mod crtc {
    #![expect(missing_docs, reason = "the names are the manual's")]
    pub const H_TOTAL: usize = 0x00; pub const H_DISPLAY_END: usize = 0x01; pub const H_BLANK_START: usize = 0x02;
    pub const V_TOTAL: usize = 0x06; pub const OVERFLOW: usize = 0x07; pub const PRESET_ROW: usize = 0x08;
    pub const MAX_SCAN_LINE: usize = 0x09; pub const CURSOR_START: usize = 0x0A; pub const CURSOR_END: usize = 0x0B;
    pub const START_HIGH: usize = 0x0C; pub const START_LOW: usize = 0x0D; pub const CURSOR_HIGH: usize = 0x0E;
    pub const CURSOR_LOW: usize = 0x0F; pub const V_RETRACE_START: usize = 0x10; pub const V_RETRACE_END: usize = 0x11;
    pub const V_DISPLAY_END: usize = 0x12; pub const OFFSET: usize = 0x13; pub const UNDERLINE: usize = 0x14;
    pub const MODE: usize = 0x17; pub const LINE_COMPARE: usize = 0x18;
}
/// Indices of the graphics controller.
#[rustfmt::skip]
pub mod gc {
    #![expect(missing_docs, reason = "the names are the manual's")]
    pub const SET_RESET: usize = 0; pub const ENABLE_SET_RESET: usize = 1; pub const COLOR_COMPARE: usize = 2;
    pub const ROTATE: usize = 3; pub const READ_MAP: usize = 4; pub const MODE: usize = 5; pub const MISC: usize = 6;
    pub const DONT_CARE: usize = 7; pub const BIT_MASK: usize = 8;
}
/// Indices of the sequencer.
#[rustfmt::skip]
pub mod seq {
    #![expect(missing_docs, reason = "the names are the manual's")]
    pub const CLOCKING: usize = 1; pub const MAP_MASK: usize = 2; pub const FONT: usize = 3; pub const MEMORY: usize = 4;
}
/// Indices of the attribute controller, after the 16 palette registers.
#[rustfmt::skip]
pub mod ac {
    #![expect(missing_docs, reason = "the names are the manual's")]
    pub const MODE: usize = 0x10; pub const OVERSCAN: usize = 0x11; pub const PLANES: usize = 0x12;
    pub const PANNING: usize = 0x13; pub const COLOR_SELECT: usize = 0x14;
}

/// Which bits of each register exist.
const SEQ_MASKS: [u8; 5] = [0x03, 0x3D, 0x0F, 0x3F, 0x0E];
const GC_MASKS: [u8; 9] = [0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF];
const AC_MASKS: [u8; 5] = [0xEF, 0xFF, 0x3F, 0x0F, 0x0F];
/// CRTC vertical retrace end: registers 0–7 are protected.
const PROTECT: u8 = 1 << 7;
/// The attribute controller's address: the palette is the display's, not the processor's.
const PALETTE_SHOWN: u8 = 1 << 5;
/// Miscellaneous output: the CRT controller is at 3D4h, not 3B4h.
const COLOR_PORTS: u8 = 1 << 0;
/// Miscellaneous output: the processor reaches display memory.
const RAM_ENABLE: u8 = 1 << 1;

/// All registers: volatile state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// Miscellaneous output.
    pub misc: u8,
    feature: u8,
    enabled: u8,
    seq_index: u8,
    /// The sequencer's.
    pub seq: [u8; 5],
    crtc_index: u8,
    /// The CRT controller's.
    pub crtc: [u8; 25],
    gc_index: u8,
    /// The graphics controller's.
    pub gc: [u8; 9],
    ac_index: u8,
    /// The next write to 3C0h is data.
    ac_data_next: bool,
    /// The attribute controller's.
    pub ac: [u8; 21],
    /// The latches: a byte for each plane, plane 0 lowest.
    pub latches: u32,
    /// The DAC.
    pub dac: Dac,
    /// The VBE extension.
    pub dispi: Dispi,
}

impl Registers {
    /// As a card's own firmware leaves them: mode 3, 80 × 25 characters of 9 × 16 dots, the standard palette.
    ///
    /// NOTE(why not all zero): a guest without a video BIOS then has a screen; one with a BIOS sets every register anyway.
    pub fn text_mode(memory: u64) -> Registers {
        Registers {
            misc: 0x67,
            feature: 0,
            enabled: 1,
            seq_index: 0,
            seq: [0x03, 0x00, 0x03, 0x00, 0x02],
            crtc_index: 0,
            crtc: [
                0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0x00, 0x00, 0x00, 0x00, 0x9C,
                0x8E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF,
            ],
            gc_index: 0,
            gc: [0, 0, 0, 0, 0, 0x10, 0x0E, 0x00, 0xFF],
            ac_index: PALETTE_SHOWN,
            ac_data_next: false,
            ac: [
                0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F, 0x0C,
                0x00, 0x0F, 0x08, 0x00,
            ],
            latches: 0,
            dac: Dac::default(),
            dispi: Dispi::new(memory),
        }
    }

    /// Whether the CRT controller's ports are those of colour displays (3Dxh).
    pub fn has_color_ports(&self) -> bool {
        self.misc & COLOR_PORTS != 0
    }
    /// Whether the processor reaches display memory in the legacy window.
    pub fn reaches_memory(&self) -> bool {
        self.misc & RAM_ENABLE != 0
    }
    /// Whether the palette is connected to the display.
    pub fn shows_palette(&self) -> bool {
        self.ac_index & PALETTE_SHOWN != 0
    }
    /// Bits of a CRT controller field that the overflow registers extend: the low byte's index, then where bits 8 and 9 are.
    pub fn crtc_field(&self, low: usize, bit_8: (usize, u8), bit_9: Option<(usize, u8)>) -> u32 {
        let bit = |(index, bit): (usize, u8)| u32::from(self.crtc[index] >> bit & 1);
        u32::from(self.crtc[low]) | bit(bit_8) << 8 | bit_9.map_or(0, |at| bit(at) << 9)
    }
    /// A CRT controller field of two bytes.
    pub fn crtc_pair(&self, high: usize, low: usize) -> u32 {
        u32::from(self.crtc[high]) << 8 | u32::from(self.crtc[low])
    }

    /// Reads a port from 3C0h on (less 3C0h), but for the status register. `None`: nothing is there.
    pub fn read(&mut self, port: u16) -> Option<u8> {
        Some(match port {
            0x00 => self.ac_index,
            0x01 => self.ac.get(usize::from(self.ac_index & 0x1F)).copied().unwrap_or(0),
            // Input status 0: a monitor answers the switch sense.
            0x02 => 0x10,
            0x03 => self.enabled,
            0x04 => self.seq_index,
            0x05 => self.seq.get(usize::from(self.seq_index)).copied().unwrap_or(0),
            0x06 => self.dac.mask,
            0x07 => self.dac.state(),
            0x08 => self.dac.write_index(),
            0x09 => self.dac.read(),
            0x0A => self.feature,
            0x0C => self.misc,
            0x0E => self.gc_index,
            0x0F => self.gc.get(usize::from(self.gc_index)).copied().unwrap_or(0),
            _ => return None,
        })
    }
    /// Writes a port from 3C0h on (less 3C0h). `None`: nothing is there.
    pub fn write(&mut self, port: u16, value: u8) -> Option<()> {
        fn put(file: &mut [u8], masks: &[u8], index: u8, value: u8) {
            if let Some((register, mask)) = file.get_mut(usize::from(index)).zip(masks.get(usize::from(index))) {
                *register = value & mask;
            }
        }
        match port {
            0x00 => self.write_attribute(value),
            0x02 => self.misc = value,
            0x03 => self.enabled = value & 1,
            0x04 => self.seq_index = value & 7,
            0x05 => put(&mut self.seq, &SEQ_MASKS, self.seq_index, value),
            0x06 => self.dac.mask = value,
            0x07 => self.dac.start_reading(value),
            0x08 => self.dac.start_writing(value),
            0x09 => self.dac.write(value, self.dispi.dac_bits()),
            0x0E => self.gc_index = value & 0x0F,
            0x0F => put(&mut self.gc, &GC_MASKS, self.gc_index, value),
            _ => return None,
        }
        Some(())
    }
    fn write_attribute(&mut self, value: u8) {
        self.ac_data_next = !self.ac_data_next;
        if self.ac_data_next {
            self.ac_index = value & 0x3F;
            return;
        }
        match usize::from(self.ac_index & 0x1F) {
            // The palette belongs to the display while it is shown.
            index @ 0..0x10 if !self.shows_palette() => self.ac[index] = value & 0x3F,
            index @ 0x10..=0x14 => self.ac[index] = value & AC_MASKS[index - 0x10],
            _ => {}
        }
    }

    /// Reads the CRT controller's index (0) or data (1).
    pub fn read_crtc(&self, port: u16) -> u8 {
        if port == 0 {
            return self.crtc_index;
        }
        self.crtc.get(usize::from(self.crtc_index)).copied().unwrap_or(0)
    }
    /// Writes the CRT controller's index (0) or data (1).
    pub fn write_crtc(&mut self, port: u16, value: u8) {
        if port == 0 {
            self.crtc_index = value & 0x3F;
            return;
        }
        let index = usize::from(self.crtc_index);
        let protected = index < 8 && self.crtc[crtc::V_RETRACE_END] & PROTECT != 0;
        match self.crtc.get_mut(index) {
            // Of the overflow register the line compare bit is not protected.
            Some(register) if protected && index == crtc::OVERFLOW => *register = *register & !0x10 | value & 0x10,
            Some(register) if !protected => *register = value,
            _ => {}
        }
    }
    /// What a read of the status register does: the attribute controller expects an address next.
    pub fn status_was_read(&mut self) {
        self.ac_data_next = false;
    }
    /// Writes the feature control register (at the status register's port).
    pub fn write_feature(&mut self, value: u8) {
        self.feature = value & 0x0B;
    }

    /// Whether what was restored can be: what has a fixed length has it.
    pub fn is_sound(&self) -> bool {
        self.dac.is_sound()
    }
}
