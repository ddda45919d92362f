//! The slots that uops work on: sixteen general registers, a zero, and temporaries that live within one block.
//!
//! There are 256 of them because a `u8` then needs no bounds check; only the first [`COUNT`] are used.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Slots in use.
pub const COUNT: u8 = 32;
#[expect(missing_docs, reason = "the names are the registers'")]
mod names {
    pub const RAX: u8 = 0;
    pub const RCX: u8 = 1;
    pub const RDX: u8 = 2;
    pub const RBX: u8 = 3;
    pub const RSP: u8 = 4;
    pub const RBP: u8 = 5;
    pub const RSI: u8 = 6;
    pub const RDI: u8 = 7;
}
pub use names::*;
/// A slot that always reads as zero: an absent base or index.
pub const ZERO: u8 = 16;
/// The first temporary. By convention it holds an effective address (an offset, or after a check a linear address).
pub const T0: u8 = 17;
/// The second temporary.
pub const T1: u8 = 18;
/// The third temporary.
pub const T2: u8 = 19;
/// The fourth temporary.
pub const T3: u8 = 20;

/// The slot file. Equality, serialisation and hashes see the sixteen general registers only.
#[derive(Clone)]
#[repr(C)]
pub struct Slots([u64; 256]);

impl Default for Slots {
    fn default() -> Slots {
        Slots([0; 256])
    }
}

impl Slots {
    /// Reads a slot.
    #[inline(always)]
    pub fn get(&self, slot: u8) -> u64 {
        self.0[slot as usize]
    }
    /// Writes a slot.
    #[inline(always)]
    pub fn set(&mut self, slot: u8, value: u64) {
        self.0[slot as usize] = value;
    }
    /// The sixteen general registers.
    pub fn general(&self) -> &[u64] {
        &self.0[..16]
    }
}

impl PartialEq for Slots {
    fn eq(&self, other: &Slots) -> bool {
        self.general() == other.general()
    }
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x?}", self.general())
    }
}

impl Serialize for Slots {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut general = [0u64; 16];
        general.copy_from_slice(self.general());
        general.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Slots {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Slots, D::Error> {
        let general = <[u64; 16]>::deserialize(deserializer)?;
        let mut slots = Slots::default();
        slots.0[..16].copy_from_slice(&general);
        Ok(slots)
    }
}
