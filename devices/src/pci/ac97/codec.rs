//! The codec on the AC-link (Audio Codec '97 Component Specification 2.3, chapters 5 and 6), identified as a SigmaTel
//! STAC9700: mixer registers, power states, variable-rate audio, and what its volumes do to a sample.
//!
//! Two channels out and in, and a microphone channel of its own. Leaves out: 3D effects, tone, headphones and true line
//! level, surround channels, S/PDIF, the analogue inputs (they are silent). A register that is not there reads as 0, as the
//! specification wants (5.7).

use crate::sound::StereoFrame;
use serde::{Deserialize, Serialize};

/// Offsets of registers.
const RESET: u8 = 0x00;
const MASTER: u8 = 0x02;
const MONO: u8 = 0x06;
const PCM_OUT: u8 = 0x18;
const POWER: u8 = 0x26;
const EXTENDED_STATUS: u8 = 0x2A;
/// The front DAC's rate.
pub(super) const DAC_RATE: u8 = 0x2C;
/// The stereo ADC's rate.
pub(super) const ADC_RATE: u8 = 0x32;
/// The microphone ADC's rate.
pub(super) const MIC_RATE: u8 = 0x34;

/// Volumes: silent.
const MUTE: u16 = 1 << 15;
/// Volumes: the sixth bit of the left and the right half. Written as 1 it reads back as the five bits below all set (6.3.3).
const SIXTH_BITS: u16 = 1 << 13 | 1 << 5;
/// Extended audio: rates of the DAC and ADC, and of the microphone's ADC, can be set.
const VRA: u16 = 1 << 0;
const VRM: u16 = 1 << 3;
/// Extended audio: revision 2.2.
const REVISION_22: u16 = 1 << 10;
/// Powerdown: ADC, DAC, mixer (which can keep its reference), reference.
const PR0: u16 = 1 << 8;
const PR1: u16 = 1 << 9;
const PR2: u16 = 1 << 10;
const PR3: u16 = 1 << 11;
/// The rate of everything that does not have another, and the rates that can be set.
const FULL_RATE: u16 = 48_000;
const LEAST_RATE: u16 = 8_000;

/// Register, value after a reset, bits that can be written.
#[rustfmt::skip]
const REGISTERS: [(u8, u16, u16); 25] = [
    // A microphone channel of its own; nothing else.
    (RESET,  0x0001, 0x0000),
    (MASTER, 0x8000, 0x9F1F),
    (MONO,   0x8000, 0x801F),
    (0x0A, 0x0000, 0x801E), // PC beep
    (0x0C, 0x8008, 0x801F), // phone
    (0x0E, 0x8008, 0x805F), // microphone
    (0x10, 0x8808, 0x9F1F), // line in
    (0x12, 0x8808, 0x9F1F), // CD
    (0x14, 0x8808, 0x9F1F), // video
    (0x16, 0x8808, 0x9F1F), // auxiliary
    (PCM_OUT, 0x8808, 0x9F1F),
    (0x1A, 0x0000, 0x0707), // record select
    (0x1C, 0x8000, 0x8F0F), // record gain
    (0x1E, 0x8000, 0x800F), // record gain of the microphone
    (0x20, 0x0000, 0x0380), // general purpose
    (POWER,  0x000F, 0xFF00),
    (0x28, VRA | VRM | REVISION_22, 0x0000),
    (EXTENDED_STATUS, 0x0000, VRA | VRM),
    (DAC_RATE, FULL_RATE, 0xFFFF),
    (ADC_RATE, FULL_RATE, 0xFFFF),
    (MIC_RATE, FULL_RATE, 0xFFFF),
    // "SiT", chip 0: STAC9700.
    (0x7C, 0x8384, 0x0000),
    (0x7E, 0x7600, 0x0000),
    // Two of the vendor's own, which its drivers set up: analogue special, clock.
    (0x6C, 0x0000, 0xFFFF),
    (0x6E, 0x0000, 0xFFFF),
];

/// Factors from +12 dB down in steps of 1.5 dB, in 65,536ths: 10^((8 - n) × 1.5 / 20).
#[rustfmt::skip]
const FACTORS: [i32; 63] = [
    260904, 219523, 184706, 155410, 130762, 110022, 92572, 77890, 65536,
    55142, 46396, 39037, 32846, 27636, 23253, 19565, 16462, 13851,
    11654, 9806, 8250, 6942, 5841, 4915, 4135, 3479, 2927,
    2463, 2072, 1744, 1467, 1234, 1039, 874, 735, 619,
    521, 438, 369, 310, 261, 220, 185, 155, 131,
    110, 93, 78, 66, 55, 46, 39, 33, 28,
    23, 20, 16, 14, 12, 10, 8, 7, 6,
];

/// The codec's registers, in the order of [`REGISTERS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Codec {
    values: Vec<u16>,
}

fn place(register: u8) -> Option<usize> {
    REGISTERS.iter().position(|&(offset, ..)| offset == register)
}

impl Codec {
    /// A codec after a reset.
    pub fn new() -> Codec {
        Codec { values: REGISTERS.iter().map(|&(_, reset, _)| reset).collect() }
    }

    /// Reads the 16-bit register at an even offset.
    pub fn read(&self, register: u8) -> u16 {
        let value = self.value(register);
        if register != POWER {
            return value;
        }
        // What is not powered down is ready: ADC, DAC, mixer, reference.
        let down = |bits| u16::from(value & bits != 0);
        let not_ready = down(PR0) | down(PR1) << 1 | down(PR2 | PR3) << 2 | down(PR3) << 3;
        value & 0xFF00 | 0x000F & !not_ready
    }

    fn value(&self, register: u8) -> u16 {
        place(register).and_then(|at| self.values.get(at)).copied().unwrap_or(0)
    }

    /// Writes it.
    pub fn write(&mut self, register: u8, value: u16) {
        let value = match register {
            RESET => {
                *self = Codec::new();
                return;
            }
            MASTER | MONO => {
                let over = value & SIXTH_BITS;
                value | over.wrapping_sub(over >> 5)
            }
            DAC_RATE | ADC_RATE | MIC_RATE if !self.has_variable_rate(register) => return,
            DAC_RATE | ADC_RATE | MIC_RATE => value.clamp(LEAST_RATE, FULL_RATE),
            _ => value,
        };
        let Some(at) = place(register) else { return };
        let (Some(old), Some(&(.., writable))) = (self.values.get_mut(at), REGISTERS.get(at)) else { return };
        *old = *old & !writable | value & writable;
        if register == EXTENDED_STATUS {
            for rate in [DAC_RATE, ADC_RATE, MIC_RATE] {
                if !self.has_variable_rate(rate)
                    && let Some(old) = place(rate).and_then(|at| self.values.get_mut(at))
                {
                    *old = FULL_RATE;
                }
            }
        }
    }

    fn has_variable_rate(&self, register: u8) -> bool {
        let needs = if register == MIC_RATE { VRM } else { VRA };
        self.value(EXTENDED_STATUS) & needs != 0
    }

    /// The rate in a rate register, in frames a second. Never 0.
    pub fn hertz(&self, register: u8) -> u32 {
        self.value(register).clamp(LEAST_RATE, FULL_RATE).into()
    }

    /// What the volumes do to frames of PCM out.
    pub fn volume(&self) -> Volume {
        let (master, pcm) = (self.value(MASTER), self.value(PCM_OUT));
        let is_silent = (master | pcm) & MUTE != 0 || self.value(POWER) & (PR1 | PR2 | PR3) != 0;
        let factor = |shift: u32| {
            let steps = (master >> shift & 31) + (pcm >> shift & 31);
            if is_silent { 0 } else { FACTORS.get(usize::from(steps)).copied().unwrap_or(0) }
        };
        Volume([factor(8), factor(0)])
    }

    /// Makes a restored codec one with all its registers.
    pub fn sanitise(&mut self) {
        self.values.resize(REGISTERS.len(), 0);
    }
}

/// Factors for left and right, in 65,536ths.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Volume([i32; 2]);

impl Volume {
    /// A frame at this volume.
    pub fn of(self, frame: StereoFrame) -> StereoFrame {
        let loud = |sample: i16, factor: i32| {
            let product = (i64::from(sample) * i64::from(factor) + 0x8000) >> 16;
            product.clamp(i16::MIN.into(), i16::MAX.into()) as i16
        };
        [loud(frame[0], self.0[0]), loud(frame[1], self.0[1])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_take_what_they_have() {
        let mut codec = Codec::new();
        #[rustfmt::skip]
        let table = [
            // (register, written, read)
            (0x02, 0xFFFF, 0x9F1F), (0x02, 0x2020, 0x1F1F), (0x02, 0x0A25, 0x0A1F), (0x02, 0x0000, 0x0000),
            (0x18, 0x0808, 0x0808), (0x0A, 0xFFFF, 0x801E), (0x04, 0xFFFF, 0x0000), (0x22, 0xFFFF, 0x0000),
            (0x1A, 0xFFFF, 0x0707), (0x28, 0x0000, 0x0409), (0x7C, 0x1234, 0x8384), (0x7E, 0x1234, 0x7600),
            // Without VRA the rate stays; with it, it is the nearest that there is.
            (0x2C, 44_100, 48_000), (0x2A, 0xFFFF, 0x0009), (0x2C, 44_100, 44_100), (0x2C, 100, 8_000),
            (0x32, 65_535, 48_000), (0x34, 11_025, 11_025),
            (0x2A, 0x0001, 0x0001), (0x34, 8_000, 48_000), (0x2C, 22_050, 22_050),
            (0x26, 0x0000, 0x000F), (0x26, 0x0300, 0x030C), (0x26, 0x08FF, 0x0803),
        ];
        for (register, written, read) in table {
            codec.write(register, written);
            assert_eq!(codec.read(register), read, "{register:#x} = {written:#x}");
        }
        codec.write(0x2A, 0);
        assert_eq!(codec.hertz(DAC_RATE), 48_000, "without VRA the rate is the full one");
        codec.write(0, 7);
        assert_eq!(codec, Codec::new());
    }

    #[test]
    fn volumes() {
        let mut codec = Codec::new();
        let mut sound = |master, pcm, frame| {
            codec.write(MASTER, master);
            codec.write(PCM_OUT, pcm);
            codec.volume().of(frame)
        };
        assert_eq!(sound(0x0000, 0x0808, [-32_768, 32_767]), [-32_768, 32_767], "0 dB changes nothing");
        assert_eq!(sound(0x8000, 0x0808, [9, 9]), [0, 0]);
        assert_eq!(sound(0x0000, 0x8808, [9, 9]), [0, 0]);
        // 6 dB is half, within a percent; left and right are apart.
        assert_eq!(sound(0x0400, 0x0808, [10_000, 10_000]), [5_012, 10_000]);
        assert_eq!(sound(0x0000, 0x0004, [10_000, 10_000]), [32_767, 19_953]);
        assert_eq!(sound(0x1F1F, 0x1F1F, [32_767, -32_768]), [3, -3], "81 dB down, and not silent");
        codec.write(0x26, PR1);
        codec.write(MASTER, 0);
        assert_eq!(codec.volume().of([30_000, 30_000]), [0, 0], "a DAC without power");
    }
}
