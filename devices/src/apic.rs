//! What the interrupt controllers say to each other: the messages of the APIC bus (SDM vol. 3, 10.6 and 10.11).
//!
//! Shared by the local APIC, the I/O APIC and message-signalled interrupts. The board carries the messages: it takes
//! them from the sender's queue and gives them to every local APIC that accepts the destination. Left out: the extended
//! destination field of the 15-bit MSI format.

use serde::{Deserialize, Serialize};
use umbra_mmu::addr::GuestPhys;

/// The physical destination that every local APIC accepts. Eight-bit senders' FFh is widened to it.
pub const BROADCAST: u32 = u32::MAX;

/// What an interrupt message asks of its receiver.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum DeliveryMode {
    /// The interrupt with the given vector, at every receiver.
    Fixed = 0,
    /// The interrupt with the given vector, at the one receiver that runs at the lowest priority.
    LowestPriority = 1,
    /// A system-management interrupt.
    Smi = 2,
    /// A non-maskable interrupt.
    Nmi = 4,
    /// INIT: resets the processor, which then waits for a start-up message.
    Init = 5,
    /// Start-up: a waiting processor begins at page `vector`.
    StartUp = 6,
    /// An interrupt whose vector the 8259 gives.
    ExtInt = 7,
}

impl DeliveryMode {
    /// Decodes the three-bit field of ICR, LVT, redirection and MSI data; `None` for the reserved value.
    pub const fn from_bits(bits: u32) -> Option<DeliveryMode> {
        Some(match bits & 7 {
            0 => DeliveryMode::Fixed,
            1 => DeliveryMode::LowestPriority,
            2 => DeliveryMode::Smi,
            4 => DeliveryMode::Nmi,
            5 => DeliveryMode::Init,
            6 => DeliveryMode::StartUp,
            7 => DeliveryMode::ExtInt,
            _ => return None,
        })
    }
}

/// How a destination is to be read.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DestinationMode {
    /// An APIC ID, or [`BROADCAST`].
    Physical,
    /// A set that each local APIC compares with its logical destination register.
    Logical,
}

impl DestinationMode {
    /// Logical if `bits` has `mask` set.
    pub const fn from_bit(bits: u64, mask: u64) -> DestinationMode {
        if bits & mask != 0 { DestinationMode::Logical } else { DestinationMode::Physical }
    }
}

/// Whether an interrupt is an edge or a level (a level's EOI is broadcast to the I/O APICs).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trigger {
    /// Edge-triggered.
    Edge,
    /// Level-triggered.
    Level,
}

impl Trigger {
    /// Level if `bits` has `mask` set.
    pub const fn from_bit(bits: u64, mask: u64) -> Trigger {
        if bits & mask != 0 { Trigger::Level } else { Trigger::Edge }
    }
}

/// One interrupt message from an I/O APIC or a message-signalling device to the local APICs.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApicMessage {
    /// Whom it is for.
    pub destination: u32,
    /// How to read `destination`.
    pub destination_mode: DestinationMode,
    /// What it asks.
    pub delivery: DeliveryMode,
    /// The vector (ignored for SMI, NMI, INIT and ExtINT).
    pub vector: u8,
    /// Edge or level.
    pub trigger: Trigger,
}

impl ApicMessage {
    /// Widens an eight-bit destination: physical FFh is everyone.
    pub const fn widen(destination: u8, mode: DestinationMode) -> u32 {
        match (destination, mode) {
            (0xFF, DestinationMode::Physical) => BROADCAST,
            _ => destination as u32,
        }
    }

    /// Decodes a write of `data` to `address` in the message window FEE0_0000h–FEEF_FFFFh (SDM vol. 3, 10.11).
    ///
    /// `None` if the address is outside the window, the delivery mode is reserved, or the message is the de-assertion of
    /// a level, which asks for nothing.
    pub fn from_msi(address: GuestPhys, data: u32) -> Option<ApicMessage> {
        const LOGICAL: u64 = 1 << 2;
        const LEVEL_ASSERT: u32 = 1 << 14;
        const TRIGGER_LEVEL: u64 = 1 << 15;
        if address.0 >> 20 != 0xFEE {
            return None;
        }
        let trigger = Trigger::from_bit(u64::from(data), TRIGGER_LEVEL);
        if trigger == Trigger::Level && data & LEVEL_ASSERT == 0 {
            return None;
        }
        let destination_mode = DestinationMode::from_bit(address.0, LOGICAL);
        Some(ApicMessage {
            destination: ApicMessage::widen((address.0 >> 12) as u8, destination_mode),
            destination_mode,
            delivery: DeliveryMode::from_bits(data >> 8)?,
            vector: data as u8,
            trigger,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msi_writes_decode() {
        let message = |destination, destination_mode, delivery, vector, trigger| {
            Some(ApicMessage { destination, destination_mode, delivery, vector, trigger })
        };
        let (physical, logical) = (DestinationMode::Physical, DestinationMode::Logical);
        #[rustfmt::skip]
        let table = [
            (0xFEE0_0000, 0x0041, message(0, physical, DeliveryMode::Fixed, 0x41, Trigger::Edge)),
            (0xFEE0_300C, 0x0141, message(3, logical, DeliveryMode::LowestPriority, 0x41, Trigger::Edge)),
            (0xFEEF_F000, 0xC050, message(BROADCAST, physical, DeliveryMode::Fixed, 0x50, Trigger::Level)),
            (0xFEEF_F004, 0x0050, message(0xFF, logical, DeliveryMode::Fixed, 0x50, Trigger::Edge)),
            (0xFEE0_1000, 0x0400, message(1, physical, DeliveryMode::Nmi, 0, Trigger::Edge)),
            (0xFEE0_0000, 0x8050, None), // level, de-asserted
            (0xFEE0_0000, 0x0350, None), // reserved delivery mode
            (0xFEC0_0000, 0x0041, None),
            (0x1_FEE0_0000, 0x0041, None),
        ];
        for (address, data, want) in table {
            assert_eq!(ApicMessage::from_msi(GuestPhys(address), data), want, "{address:#x} {data:#x}");
        }
    }
}
