//! Guest paging-structure entries: formats, reserved bits (SDM vol. 3, 5.3–5.5, tables 5-1 to 5-20).
//!
//! 5-level paging, protection keys and shadow stacks are left out. Pure; called by `walk` and the monitor.

use serde::{Deserialize, Serialize};

/// Present.
pub const P: u64 = 1 << 0;
/// Writable.
pub const RW: u64 = 1 << 1;
/// User.
pub const US: u64 = 1 << 2;
/// Accessed.
pub const A: u64 = 1 << 5;
/// Dirty.
pub const D: u64 = 1 << 6;
/// Page size: the entry maps a large page.
pub const PS: u64 = 1 << 7;
/// No execute (with EFER.NXE).
pub const NX: u64 = 1 << 63;

/// How linear addresses are translated.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Mode {
    /// CR0.PG = 0: linear is guest-physical.
    Off = 0,
    /// 32-bit paging, two levels of 4-byte entries.
    TwoLevel = 1,
    /// PAE paging: four PDPTE registers and two levels of 8-byte entries.
    Pae = 2,
    /// 4-level paging.
    FourLevel = 3,
}

/// Everything outside the tables that steers a walk.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rules {
    /// The paging mode.
    pub mode: Mode,
    /// The bits of [`rule`].
    pub bits: u8,
    /// Width of guest-physical addresses (CPUID 8000_0008h), 32–52.
    pub maxphyaddr: u8,
}

/// Bits of [`Rules::bits`].
pub mod rule {
    /// CR0.WP: supervisor writes obey R/W.
    pub const WP: u8 = 1 << 0;
    /// EFER.NXE.
    pub const NXE: u8 = 1 << 1;
    /// CR4.SMEP.
    pub const SMEP: u8 = 1 << 2;
    /// CR4.SMAP.
    pub const SMAP: u8 = 1 << 3;
    /// CR4.PSE (32-bit paging only).
    pub const PSE: u8 = 1 << 4;
    /// The A20 gate masks bit 20 of every guest-physical address.
    pub const A20_MASKED: u8 = 1 << 5;
}

impl Rules {
    /// Whether a bit of [`rule`] is set.
    #[inline]
    pub const fn has(self, bit: u8) -> bool {
        self.bits & bit != 0
    }
    /// The level at which walks begin.
    pub const fn top_level(self) -> u8 {
        match self.mode {
            Mode::Off | Mode::FourLevel => 4,
            Mode::Pae => 3,
            Mode::TwoLevel => 2,
        }
    }
    /// log₂ of the bytes that one entry of a level covers.
    pub const fn shift(self, level: u8) -> u32 {
        match self.mode {
            Mode::TwoLevel => 12 + 10 * (level as u32 - 1),
            _ => 12 + 9 * (level as u32 - 1),
        }
    }
    /// Whether a linear address is one that a processor has in this mode: with others a walk meets what lies elsewhere.
    pub const fn is_canonical(self, linear: u64) -> bool {
        match self.mode {
            Mode::FourLevel => (linear as i64) << 16 >> 16 == linear as i64,
            Mode::Off | Mode::TwoLevel | Mode::Pae => linear >> 32 == 0,
        }
    }
    /// Entries in a table of a level.
    pub const fn entries(self, level: u8) -> usize {
        match (self.mode, level) {
            (Mode::TwoLevel, _) => 1024,
            (Mode::Pae, 3) => 4,
            _ => 512,
        }
    }
    /// The index of a linear address in a table of a level.
    #[inline]
    pub const fn index(self, level: u8, linear: u64) -> usize {
        (linear >> self.shift(level)) as usize & (self.entries(level) - 1)
    }
    /// Bytes in a guest entry.
    pub const fn entry_bytes(self) -> u64 {
        if matches!(self.mode, Mode::TwoLevel) { 4 } else { 8 }
    }
    /// Applies the A20 gate to a guest-physical address.
    #[inline]
    pub const fn gate(self, at: u64) -> u64 {
        if self.has(rule::A20_MASKED) { at & !(1 << 20) } else { at }
    }
    /// Whether a present entry of this level maps a large page.
    pub const fn is_large(self, level: u8, entry: u64) -> bool {
        entry & PS != 0
            && match self.mode {
                Mode::Off => false,
                Mode::TwoLevel => level == 2 && self.has(rule::PSE),
                Mode::Pae => level == 2,
                Mode::FourLevel => level == 2 || level == 3,
            }
    }
    /// The reserved bits of a present entry.
    pub const fn reserved(self, level: u8, entry: u64) -> u64 {
        let large = self.is_large(level, entry);
        let beyond = !0u64 << self.maxphyaddr;
        match self.mode {
            Mode::Off => 0,
            Mode::TwoLevel if large => {
                // PSE-36: bits 20:13 are address bits 39:32; those past MAXPHYADDR, and bit 21, are reserved.
                let width = if self.maxphyaddr > 40 { 40 } else { self.maxphyaddr as u32 };
                (0x3f_ffff & !0u64 << (width - 32 + 13)) & 0x3f_e000
            }
            Mode::TwoLevel => 0,
            Mode::Pae | Mode::FourLevel => {
                let top = if matches!(self.mode, Mode::Pae) { beyond & !NX } else { beyond & 0x000f_ffff_ffff_ffff };
                let nx = if self.has(rule::NXE) { 0 } else { NX };
                let size = match level {
                    4 => PS,
                    3 if large => 0x3fff_e000,
                    2 if large => 0x1f_e000,
                    _ => 0,
                };
                top | nx | size
            }
        }
    }
    /// The guest-physical base of the next table, or of the page that this entry maps.
    pub const fn target(self, level: u8, entry: u64) -> u64 {
        let large = self.is_large(level, entry);
        let address = match self.mode {
            Mode::Off => 0,
            Mode::TwoLevel if large => (entry & 0xffc0_0000) | (entry & 0x1f_e000) << 19,
            Mode::TwoLevel => entry & 0xffff_f000,
            Mode::Pae | Mode::FourLevel if large => entry & 0x000f_ffff_ffff_f000 & (!0u64 << self.shift(level)),
            Mode::Pae | Mode::FourLevel => entry & 0x000f_ffff_ffff_f000,
        };
        self.gate(address)
    }
}
