//! Segment registers with their hidden parts (SDM vol. 3, 3.4.3), and the table registers.

use serde::{Deserialize, Serialize};

/// The segment registers in the order of their encoding.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub enum Seg {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

impl Seg {
    /// All six, in encoding order.
    pub const ALL: [Seg; 6] = [Seg::Es, Seg::Cs, Seg::Ss, Seg::Ds, Seg::Fs, Seg::Gs];
    /// The register with this encoding, if there is one.
    pub const fn from_encoding(n: u8) -> Option<Seg> {
        match n {
            0..=5 => Some(Seg::ALL[n as usize]),
            _ => None,
        }
    }
}

/// Bits of [`Segment::rights`]: bits 8–23 of a descriptor's second word, shifted right by 8 (limit bits 11–8 are zero).
pub mod rights {
    /// The four type bits.
    pub const TYPE: u16 = 0xf;
    /// Accessed (code, data).
    pub const ACCESSED: u16 = 1 << 0;
    /// Writable (data) or readable (code).
    pub const READ_WRITE: u16 = 1 << 1;
    /// Expand-down (data) or conforming (code).
    pub const DOWN_CONFORMING: u16 = 1 << 2;
    /// Code segment.
    pub const CODE: u16 = 1 << 3;
    /// Code or data (clear: system).
    pub const S: u16 = 1 << 4;
    /// Present.
    pub const P: u16 = 1 << 7;
    /// 64-bit code.
    pub const L: u16 = 1 << 13;
    /// Default operand size / big.
    pub const DB: u16 = 1 << 14;
    /// Granularity 4 KiB.
    pub const G: u16 = 1 << 15;
}

/// A segment register: the visible selector and the hidden part. `rights == 0` means unusable (a null selector).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(C)]
pub struct Segment {
    /// The visible selector.
    pub selector: u16,
    /// Attribute bits, see [`rights`].
    pub rights: u16,
    /// The last valid offset in bytes (for expand-down segments: the last invalid one).
    pub limit: u32,
    /// The linear address of offset 0.
    pub base: u64,
}

impl Segment {
    /// What a segment load gives in real-address mode at power-on: 64 KiB, writable, accessed.
    pub const fn real(selector: u16) -> Segment {
        Segment { selector, rights: 0x93, limit: 0xffff, base: (selector as u64) << 4 }
    }
    /// Type bits 3–0.
    pub const fn kind(&self) -> u16 {
        self.rights & rights::TYPE
    }
    /// Descriptor privilege level.
    pub const fn dpl(&self) -> u8 {
        (self.rights >> 5 & 3) as u8
    }
    /// Present.
    pub const fn present(&self) -> bool {
        self.rights & rights::P != 0
    }
    /// The hidden part is loaded (not a null selector).
    pub const fn usable(&self) -> bool {
        self.rights != 0
    }
    /// Code segment.
    pub const fn code(&self) -> bool {
        self.rights & rights::CODE != 0
    }
    /// Conforming code segment.
    pub const fn conforming(&self) -> bool {
        self.rights & (rights::CODE | rights::DOWN_CONFORMING) == rights::CODE | rights::DOWN_CONFORMING
    }
    /// Expand-down data segment.
    pub const fn expand_down(&self) -> bool {
        self.rights & (rights::CODE | rights::DOWN_CONFORMING) == rights::DOWN_CONFORMING
    }
    /// Data may be written through it.
    pub const fn writable(&self) -> bool {
        self.rights & (rights::CODE | rights::READ_WRITE) == rights::READ_WRITE
    }
    /// Data may be read through it.
    pub const fn readable(&self) -> bool {
        !self.code() || self.rights & rights::READ_WRITE != 0
    }
    /// D/B: 32-bit.
    pub const fn big(&self) -> bool {
        self.rights & rights::DB != 0
    }
    /// L: 64-bit code.
    pub const fn long(&self) -> bool {
        self.rights & rights::L != 0
    }
    /// Base 0, limit 4 GiB, expand-up, readable and writable data or readable code: no access needs a check
    /// (writes through code segments excepted, which lift treats as checked).
    pub const fn flat(&self) -> bool {
        self.usable() && self.base == 0 && self.limit == u32::MAX && !self.expand_down() && self.readable()
    }
}

/// GDTR or IDTR.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(C)]
pub struct TableRegister {
    /// The linear address of the table.
    pub base: u64,
    /// The last valid offset in bytes.
    pub limit: u16,
}
