//! Packet commands' common part: the twelve bytes, sense data (SPC-3, 4.5), and what a command answers.

use serde::{Deserialize, Serialize};

/// A packet command: operation code and arguments.
pub(super) type Packet = [u8; 12];

/// Big-endian fields of a packet.
pub(super) fn be16(packet: &Packet, at: usize) -> u16 {
    packet.get(at..at + 2).map_or(0, |field| field.iter().fold(0, |value, &byte| value << 8 | u16::from(byte)))
}
/// The same of four bytes.
pub(super) fn be32(packet: &Packet, at: usize) -> u32 {
    u32::from(be16(packet, at)) << 16 | u32::from(be16(packet, at + 2))
}

/// Why a command failed: sense key, additional sense code and its qualifier.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sense {
    pub key: u8,
    pub code: u8,
    pub qualifier: u8,
}

impl Sense {
    const fn new(key: u8, code: u8, qualifier: u8) -> Sense {
        Sense { key, code, qualifier }
    }
    pub const NONE: Sense = Sense::new(0, 0, 0);
    /// Medium not present, tray closed.
    pub const NO_MEDIUM: Sense = Sense::new(2, 0x3A, 0x01);
    /// Medium not present, tray open.
    pub const TRAY_OPEN: Sense = Sense::new(2, 0x3A, 0x02);
    /// Unrecovered read error.
    pub const UNREADABLE: Sense = Sense::new(3, 0x11, 0x00);
    pub const INVALID_COMMAND: Sense = Sense::new(5, 0x20, 0x00);
    pub const OUT_OF_RANGE: Sense = Sense::new(5, 0x21, 0x00);
    pub const INVALID_FIELD: Sense = Sense::new(5, 0x24, 0x00);
    /// Saving parameters is not supported.
    pub const NOT_SAVED: Sense = Sense::new(5, 0x39, 0x00);
    /// Medium removal prevented.
    pub const LOCKED: Sense = Sense::new(5, 0x53, 0x02);
    /// Illegal mode for this track.
    pub const WRONG_MODE: Sense = Sense::new(5, 0x64, 0x00);
    /// The medium may have changed.
    pub const CHANGED: Sense = Sense::new(6, 0x28, 0x00);
    /// Power-on or reset.
    pub const RESET: Sense = Sense::new(6, 0x29, 0x00);

    /// Fixed-format sense data.
    pub fn to_bytes(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[0] = 0x70;
        bytes[2] = self.key;
        bytes[7] = 10;
        bytes[12] = self.code;
        bytes[13] = self.qualifier;
        bytes
    }
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is over, and well.
    Done,
    /// Bytes for the host, cut to the allocation length.
    Data(Vec<u8>),
    /// Blocks of 2048 bytes, from a block on.
    Blocks { first: u32, count: u32 },
    /// The host is to bring so many bytes of parameters.
    Wants(usize),
}
