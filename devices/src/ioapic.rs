//! The I/O APIC, 82093AA data sheet with the EOI register of version 20h (ICH data sheets, 24 pins).
//!
//! MMIO window 0: IOREGSEL at 00h, IOWIN at 10h, EOI at 40h. Messages to the local APICs are queued
//! ([`IoApic::take_messages`]); the board carries them, and brings EOI broadcasts back through [`IoApic::eoi`].
//!
//! Pins are logical: [`IoApic::set_input`] says *asserted*, whatever voltage that is on the board, so the polarity bit of
//! an entry is kept for reading back but changes nothing. Delivery status always reads idle: a message is sent at once.
//! An edge on a masked pin is lost. NMI, SMI, INIT and ExtINT are edges, whatever the trigger bit says. Left out:
//! arbitration (the arbitration ID reads as the ID), 15-bit destinations.

use crate::apic::{ApicMessage, DeliveryMode, DestinationMode, Trigger};
use crate::clock::Tick;
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use serde::{Deserialize, Serialize};

/// The number of input pins.
pub const PINS: u8 = 24;

const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const EOI: u64 = 0x40;

const INDEX_ID: u8 = 0x00;
const INDEX_VERSION: u8 = 0x01;
const INDEX_ARBITRATION: u8 = 0x02;
const INDEX_TABLE: u8 = 0x10;
const INDEX_TABLE_LAST: u8 = INDEX_TABLE + 2 * PINS - 1;

/// Version 20h, 24 entries.
const VERSION: u32 = (PINS as u32 - 1) << 16 | 0x20;

/// Redirection entry bit 11: the destination is logical.
const LOGICAL: u64 = 1 << 11;
/// Bit 14: a level-triggered message was accepted and its EOI has not come.
const REMOTE_IRR: u64 = 1 << 14;
/// Bit 15: level-triggered.
const LEVEL: u64 = 1 << 15;
/// Bit 16: masked.
const MASK: u64 = 1 << 16;
/// Vector, delivery mode, destination mode, polarity, trigger, mask; destination. Bits 12 and 14 are read-only.
const WRITABLE: u64 = 0xFF << 56 | 0x1_AFFF;

/// The volatile state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    index: u8,
    id: u8,
    entries: [u64; PINS as usize],
    /// The pins that are asserted, a bit each.
    asserted: u32,
    messages: Vec<ApicMessage>,
}

impl Default for State {
    fn default() -> State {
        State { index: 0, id: 0, entries: [MASK; PINS as usize], asserted: 0, messages: Vec::new() }
    }
}

/// The I/O APIC.
#[derive(Debug, Default)]
pub struct IoApic {
    // Configuration: none. Wires: in through `set_input`, out through `take_messages`.
    // Volatile state.
    state: State,
}

impl IoApic {
    /// An I/O APIC after power-on, every entry masked.
    pub fn new() -> IoApic {
        IoApic::default()
    }

    /// Drives a pin; a pin that does not exist is ignored.
    pub fn set_input(&mut self, pin: u8, asserted: bool) {
        if pin >= PINS {
            return;
        }
        let bit = 1 << pin;
        let rising = asserted && self.state.asserted & bit == 0;
        if asserted {
            self.state.asserted |= bit;
        } else {
            self.state.asserted &= !bit;
        }
        if !rising {
            return;
        }
        let entry = self.state.entries[usize::from(pin)];
        if is_level(entry) {
            self.raise_level(pin);
        } else if entry & MASK == 0 {
            self.send(entry, Trigger::Edge);
        }
    }

    /// An EOI broadcast (or a write to the EOI register): every level-triggered entry of this vector is out of service,
    /// and interrupts again if its pin is still asserted.
    pub fn eoi(&mut self, vector: u8) {
        for pin in 0..PINS {
            let entry = &mut self.state.entries[usize::from(pin)];
            if *entry & REMOTE_IRR != 0 && *entry as u8 == vector {
                *entry &= !REMOTE_IRR;
                self.raise_level(pin);
            }
        }
    }

    /// Takes the messages to the local APICs since the last call, oldest first.
    pub fn take_messages(&mut self) -> Vec<ApicMessage> {
        std::mem::take(&mut self.state.messages)
    }

    /// Whether [`Self::take_messages`] would give anything.
    pub fn has_messages(&self) -> bool {
        !self.state.messages.is_empty()
    }

    fn raise_level(&mut self, pin: u8) {
        let entry = self.state.entries[usize::from(pin)];
        if is_level(entry) && entry & (MASK | REMOTE_IRR) == 0 && self.state.asserted >> pin & 1 != 0 {
            self.state.entries[usize::from(pin)] |= REMOTE_IRR;
            self.send(entry, Trigger::Level);
        }
    }

    fn send(&mut self, entry: u64, trigger: Trigger) {
        let Some(delivery) = DeliveryMode::from_bits((entry >> 8) as u32) else { return };
        let destination_mode = DestinationMode::from_bit(entry, LOGICAL);
        self.state.messages.push(ApicMessage {
            destination: ApicMessage::widen((entry >> 56) as u8, destination_mode),
            destination_mode,
            delivery,
            vector: entry as u8,
            trigger,
        });
    }

    fn read_indexed(&self) -> u32 {
        match self.state.index {
            INDEX_ID | INDEX_ARBITRATION => u32::from(self.state.id) << 24,
            INDEX_VERSION => VERSION,
            index @ INDEX_TABLE..=INDEX_TABLE_LAST => {
                let entry = self.state.entries[usize::from((index - INDEX_TABLE) / 2)];
                (entry >> (32 * (index & 1))) as u32
            }
            _ => u32::MAX,
        }
    }

    fn write_indexed(&mut self, value: u32) {
        match self.state.index {
            INDEX_ID => self.state.id = (value >> 24) as u8 & 0xF,
            index @ INDEX_TABLE..=INDEX_TABLE_LAST => {
                let pin = (index - INDEX_TABLE) / 2;
                let shift = 32 * (index & 1);
                let written = WRITABLE & 0xFFFF_FFFF << shift;
                let entry = &mut self.state.entries[usize::from(pin)];
                *entry = *entry & !written | u64::from(value) << shift & written;
                // An edge-triggered entry has nothing in service: writing one is how old software ends a lost EOI.
                if *entry & LEVEL == 0 {
                    *entry &= !REMOTE_IRR;
                }
                self.raise_level(pin);
            }
            _ => {}
        }
    }
}

fn is_level(entry: u64) -> bool {
    let delivery = DeliveryMode::from_bits((entry >> 8) as u32);
    entry & LEVEL != 0 && matches!(delivery, Some(DeliveryMode::Fixed | DeliveryMode::LowestPriority))
}

impl Device for IoApic {
    fn name(&self) -> &'static str {
        "ioapic"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.state = State { asserted: self.state.asserted, ..State::default() };
    }

    fn mmio_read(&mut self, _cx: &mut Ctx<'_>, _window: u8, offset: u64, width: Width) -> Result<u64, IoError> {
        let (register, within) = (offset & !3, offset & 3);
        if within + width.bytes().min(4) > 4 {
            return Err(IoError::BadWidth);
        }
        let value = match register {
            IOREGSEL => self.state.index.into(),
            IOWIN => self.read_indexed(),
            EOI => 0,
            _ => return Err(IoError::NoSuchRegister),
        };
        Ok(u64::from(value) >> (8 * within) & width.ones())
    }

    fn mmio_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        _window: u8,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), IoError> {
        match offset {
            IOREGSEL => self.state.index = value as u8,
            EOI => self.eoi(value as u8),
            IOWIN if width >= Width::B4 => self.write_indexed(value as u32),
            IOWIN => return Err(IoError::BadWidth),
            _ => return Err(IoError::NoSuchRegister),
        }
        Ok(())
    }

    fn next_event(&self) -> Option<Tick> {
        None
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        self.state = restore_state(self.name(), state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apic::BROADCAST;
    use crate::testing::{Place, check_places};

    fn select(ioapic: &mut IoApic, index: u8) {
        ioapic.state.index = index;
    }

    fn set_entry(ioapic: &mut IoApic, pin: u8, entry: u64) {
        select(ioapic, INDEX_TABLE + 2 * pin + 1);
        ioapic.write_indexed((entry >> 32) as u32);
        select(ioapic, INDEX_TABLE + 2 * pin);
        ioapic.write_indexed(entry as u32);
    }

    fn entry(ioapic: &IoApic, pin: u8) -> u64 {
        ioapic.state.entries[usize::from(pin)]
    }

    #[test]
    fn registers_read_back() {
        let mut ioapic = IoApic::new();
        // (index, written) → read.
        #[rustfmt::skip]
        let table = [
            (0x00, 0xFF00_0000, 0x0F00_0000), (0x01, 0, 0x0017_0020), (0x02, 0, 0x0F00_0000), (0x03, 0, 0xFFFF_FFFF),
            (0x10, 0xFFFF_FFFF, 0x0001_AFFF), (0x11, 0xFFFF_FFFF, 0xFF00_0000), (0x3E, 0x0001_0031, 0x0001_0031),
            (0x3F, 0x1234_5678, 0x1200_0000), (0x40, 0, 0xFFFF_FFFF),
        ];
        for (index, written, want) in table {
            select(&mut ioapic, index);
            ioapic.write_indexed(written);
            assert_eq!(ioapic.read_indexed(), want, "{index:#x}");
        }
    }

    #[test]
    fn messages_carry_the_entry() {
        use DestinationMode::*;
        #[rustfmt::skip]
        let table = [
            (0x0300_0000_0000_0031, Some((3, Physical, DeliveryMode::Fixed, 0x31, Trigger::Edge))),
            (0xFF00_0000_0000_0931, Some((0xFF, Logical, DeliveryMode::LowestPriority, 0x31, Trigger::Edge))),
            (0xFF00_0000_0000_0131, Some((BROADCAST, Physical, DeliveryMode::LowestPriority, 0x31, Trigger::Edge))),
            (0x0000_0000_0000_A031, Some((0, Physical, DeliveryMode::Fixed, 0x31, Trigger::Level))),
            (0x0000_0000_0000_8400, Some((0, Physical, DeliveryMode::Nmi, 0, Trigger::Edge))),
            (0x0000_0000_0000_0700, Some((0, Physical, DeliveryMode::ExtInt, 0, Trigger::Edge))),
            (0x0000_0000_0000_0300, None),
            (0x0000_0000_0001_0031, None),
        ];
        for (value, want) in table {
            let mut ioapic = IoApic::new();
            set_entry(&mut ioapic, 5, value);
            ioapic.set_input(5, true);
            ioapic.set_input(5, true);
            let got = ioapic.take_messages();
            let want: Vec<_> = want
                .map(|(destination, destination_mode, delivery, vector, trigger)| ApicMessage {
                    destination,
                    destination_mode,
                    delivery,
                    vector,
                    trigger,
                })
                .into_iter()
                .collect();
            assert_eq!(got, want, "{value:#x}");
        }
    }

    #[test]
    fn an_edge_on_a_masked_pin_is_lost() {
        let mut ioapic = IoApic::new();
        set_entry(&mut ioapic, 2, MASK | 0x31);
        ioapic.set_input(2, true);
        set_entry(&mut ioapic, 2, 0x31);
        assert!(!ioapic.has_messages());
        ioapic.set_input(2, false);
        ioapic.set_input(2, true);
        assert_eq!(ioapic.take_messages().len(), 1);
    }

    #[test]
    fn a_level_comes_again_after_its_eoi() {
        let mut ioapic = IoApic::new();
        ioapic.set_input(9, true);
        set_entry(&mut ioapic, 9, LEVEL | 0x39);
        assert_eq!(ioapic.take_messages().len(), 1, "a level waits for the unmasking");
        assert_eq!(entry(&ioapic, 9) & REMOTE_IRR, REMOTE_IRR);
        ioapic.set_input(9, false);
        ioapic.set_input(9, true);
        assert!(!ioapic.has_messages(), "in service");
        ioapic.eoi(0x38);
        assert!(!ioapic.has_messages());
        ioapic.eoi(0x39);
        assert_eq!(ioapic.take_messages().len(), 1);
        set_entry(&mut ioapic, 9, MASK | LEVEL | 0x39);
        assert_eq!(entry(&ioapic, 9) & REMOTE_IRR, REMOTE_IRR, "masking keeps it in service");
        ioapic.eoi(0x39);
        assert!(!ioapic.has_messages());
        set_entry(&mut ioapic, 9, LEVEL | 0x39);
        assert_eq!(ioapic.take_messages().len(), 1);
        set_entry(&mut ioapic, 9, MASK | 0x39);
        assert_eq!(entry(&ioapic, 9) & REMOTE_IRR, 0, "edge mode ends the service");
        ioapic.set_input(200, true);
    }

    #[test]
    fn any_sequence() {
        check_places(IoApic::new, &[0x00, 0x10, 0x40, 0x50].map(|offset| Place::Mmio(0, offset)));
    }
}
