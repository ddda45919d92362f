//! The interrupt command register (SDM vol. 3, 10.6): inter-processor interrupts out, destination matching in.

use super::{LocalApic, State, registers};
use crate::apic::{ApicMessage, BROADCAST, DeliveryMode, DestinationMode, Trigger};
use serde::{Deserialize, Serialize};

/// The destination that is everyone's in either mode.
pub(super) const EVERYONE: u32 = BROADCAST;

const DESTINATION_LOGICAL: u64 = 1 << 11;
/// Delivery status: reads as idle, a write is ignored.
pub(super) const DELIVERY_STATUS: u64 = 1 << 12;
const LEVEL_ASSERT: u64 = 1 << 14;
const TRIGGER_LEVEL: u64 = 1 << 15;

/// Vector, delivery mode, destination mode, level, trigger, shorthand, destination. A message is sent as it is
/// written, so that nobody sees it on its way.
pub(super) const WRITABLE: u64 =
    0xFFFF_FFFF << 32 | 3 << 18 | TRIGGER_LEVEL | LEVEL_ASSERT | DESTINATION_LOGICAL | 0x7FF;

/// Whom an inter-processor interrupt is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpiTarget {
    /// Every local APIC that [`LocalApic::accepts`] this destination, the sender included.
    Matching {
        /// The destination.
        destination: u32,
        /// How to read it.
        mode: DestinationMode,
    },
    /// All, the sender included.
    Everyone,
    /// All but the sender.
    Others,
}

/// An inter-processor interrupt on its way. Always an edge.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipi {
    /// Whom it is for.
    pub target: IpiTarget,
    /// What it asks. Lowest priority goes to one of the receivers that [`LocalApic::takes_interrupts`], the one with the
    /// lowest [`LocalApic::arbitration_priority`].
    pub delivery: DeliveryMode,
    /// Its vector.
    pub vector: u8,
}

impl LocalApic {
    /// Sends what ICR says. Combinations that table 10-3 of the SDM calls invalid are not sent.
    pub(super) fn send(&mut self) {
        let icr = self.state.icr;
        let vector = icr as u8;
        let Some(delivery) = DeliveryMode::from_bits((icr >> 8) as u32) else { return };
        let target = match icr >> 18 & 3 {
            0 => {
                let mode = DestinationMode::from_bit(icr, DESTINATION_LOGICAL);
                let destination =
                    if self.is_x2apic() { (icr >> 32) as u32 } else { ApicMessage::widen((icr >> 56) as u8, mode) };
                Some(IpiTarget::Matching { destination, mode })
            }
            1 => None,
            2 => Some(IpiTarget::Everyone),
            _ => Some(IpiTarget::Others),
        };
        match delivery {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if vector < 16 => {
                self.error(registers::ESR_SEND_ILLEGAL_VECTOR);
                return;
            }
            DeliveryMode::Fixed => {}
            // The INIT level de-assert message only set arbitration IDs, of which there are none.
            DeliveryMode::Init if icr & (TRIGGER_LEVEL | LEVEL_ASSERT) == TRIGGER_LEVEL => return,
            DeliveryMode::ExtInt => return,
            // Only fixed interrupts may include the sender by shorthand.
            _ if matches!(target, None | Some(IpiTarget::Everyone)) => return,
            _ => {}
        }
        match target {
            Some(target) => self.state.ipis.push(Ipi { target, delivery, vector }),
            None => self.inject(vector, Trigger::Edge),
        }
    }

    /// The x2APIC's SELF IPI register.
    pub(super) fn send_to_self(&mut self, vector: u8) {
        if vector < 16 {
            self.error(registers::ESR_SEND_ILLEGAL_VECTOR);
        } else {
            self.inject(vector, Trigger::Edge);
        }
    }

    /// Destination matching (SDM vol. 3, 10.6.2 and 10.12.10).
    pub(super) fn matches(&self, destination: u32, mode: DestinationMode) -> bool {
        match (mode, self.is_x2apic()) {
            (DestinationMode::Physical, true) => destination == self.config.id,
            (DestinationMode::Physical, false) => destination == self.config.id & 0xFF,
            (DestinationMode::Logical, true) => {
                let own = State::x2apic_logical_id(self.config.id);
                destination >> 16 == own >> 16 && destination & own & 0xFFFF != 0
            }
            (DestinationMode::Logical, false) => {
                let Ok(destination) = u8::try_from(destination) else { return false };
                let own = self.state.logical_id;
                match self.state.destination_format {
                    _ if destination == 0xFF => true,
                    // The cluster model.
                    0 => destination >> 4 == own >> 4 && destination & own & 0xF != 0,
                    // The flat model.
                    _ => destination & own != 0,
                }
            }
        }
    }
}
