//! The local vector table (SDM vol. 3, 10.5): what LINT0, LINT1, the timer, the thermal sensor, the performance counters
//! and errors raise, and the error status register's part in it (10.5.3).
//!
//! The pin polarity bit is kept without effect: the board tells whether a pin is asserted.

use super::{LocalApic, registers};
use crate::apic::{DeliveryMode, Trigger};
use crate::clock::Tick;
use serde::{Deserialize, Serialize};

const VECTOR: u32 = 0xFF;
const DELIVERY: u32 = 7 << 8;
/// Polarity of a pin.
const POLARITY: u32 = 1 << 13;
/// A level-triggered interrupt of this entry is in service.
const REMOTE_IRR: u32 = 1 << 14;
const TRIGGER_LEVEL: u32 = 1 << 15;
pub(super) const MASK: u32 = 1 << 16;
const TIMER_MODE: u32 = 3 << 17;

/// Bits 12 (delivery status) and 14 (remote IRR), which a write ignores and x2APIC mode lets pass.
pub(super) const READ_ONLY: u64 = 1 << 12 | REMOTE_IRR as u64;

/// A pin of the local APIC.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Lint {
    /// LINT0: the 8259's INTR.
    Lint0 = 0,
    /// LINT1: NMI.
    Lint1 = 1,
}

/// A source inside the processor.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum LocalSource {
    /// The thermal sensor tripped.
    Thermal,
    /// A performance counter overflowed; its entry masks itself.
    Performance,
}

/// One entry of the table.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum LvtEntry {
    Timer = 0,
    Thermal = 1,
    Performance = 2,
    Lint0 = 3,
    Lint1 = 4,
    Error = 5,
}

impl LvtEntry {
    pub(super) fn from_register(register: u8) -> Option<LvtEntry> {
        Some(match register {
            registers::LVT_TIMER => LvtEntry::Timer,
            registers::LVT_THERMAL => LvtEntry::Thermal,
            registers::LVT_PERFORMANCE => LvtEntry::Performance,
            registers::LVT_LINT0 => LvtEntry::Lint0,
            registers::LVT_LINT1 => LvtEntry::Lint1,
            registers::LVT_ERROR => LvtEntry::Error,
            _ => return None,
        })
    }

    pub(super) fn writable(self) -> u32 {
        match self {
            LvtEntry::Timer => VECTOR | MASK | TIMER_MODE,
            LvtEntry::Thermal | LvtEntry::Performance => VECTOR | DELIVERY | MASK,
            LvtEntry::Lint0 | LvtEntry::Lint1 => VECTOR | DELIVERY | POLARITY | TRIGGER_LEVEL | MASK,
            LvtEntry::Error => VECTOR | MASK,
        }
    }
}

impl From<Lint> for LvtEntry {
    fn from(pin: Lint) -> LvtEntry {
        match pin {
            Lint::Lint0 => LvtEntry::Lint0,
            Lint::Lint1 => LvtEntry::Lint1,
        }
    }
}

/// The six entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lvt([u32; 6]);

impl Default for Lvt {
    fn default() -> Lvt {
        Lvt([MASK; 6])
    }
}

impl Lvt {
    pub(super) fn get(&self, entry: LvtEntry) -> u32 {
        self.0[entry as usize]
    }

    pub(super) fn set(&mut self, entry: LvtEntry, value: u32) {
        self.0[entry as usize] = value;
    }

    pub(super) fn is_masked(&self, entry: LvtEntry) -> bool {
        self.get(entry) & MASK != 0
    }

    /// What clearing SVR bit 8 does.
    pub(super) fn mask_all(&mut self) {
        self.0.iter_mut().for_each(|entry| *entry |= MASK);
    }
}

const PINS: [Lint; 2] = [Lint::Lint0, Lint::Lint1];

impl LocalApic {
    /// Drives a pin. An edge acts at once; a level acts while it lasts.
    pub fn set_lint(&mut self, pin: Lint, asserted: bool) {
        let level = &mut self.state.lint[pin as usize];
        let rising = asserted && !*level;
        *level = asserted;
        if !rising {
            return;
        }
        if self.is_enabled() {
            self.raise_pin(pin);
        } else if pin == Lint::Lint1 {
            self.state.signals.nmi = true;
        }
    }

    /// Raises a source inside the processor.
    pub fn raise(&mut self, source: LocalSource) {
        match source {
            LocalSource::Thermal => self.raise_entry(LvtEntry::Thermal),
            LocalSource::Performance => {
                self.raise_entry(LvtEntry::Performance);
                let entry = self.state.lvt.get(LvtEntry::Performance);
                self.state.lvt.set(LvtEntry::Performance, entry | MASK);
            }
        }
    }

    /// Records errors for the next write to ESR and raises the error entry.
    pub(super) fn error(&mut self, bits: u32) {
        self.state.errors |= bits;
        let entry = self.state.lvt.get(LvtEntry::Error);
        let vector = (entry & VECTOR) as u8;
        if entry & MASK != 0 {
            return;
        }
        // An illegal vector in the error entry itself is one more error, but raises nothing again.
        if vector < 16 {
            self.state.errors |= registers::ESR_RECEIVE_ILLEGAL_VECTOR;
        } else {
            self.inject(vector, Trigger::Edge);
        }
    }

    /// Raises an entry as an edge.
    pub(super) fn raise_entry(&mut self, entry: LvtEntry) {
        let value = self.state.lvt.get(entry);
        if value & MASK != 0 {
            return;
        }
        // The timer and error entries have no delivery field (the bits are 0 = fixed).
        match DeliveryMode::from_bits(value >> 8) {
            Some(DeliveryMode::Fixed) => self.inject(value as u8, Trigger::Edge),
            Some(mode @ (DeliveryMode::Smi | DeliveryMode::Nmi | DeliveryMode::Init)) => {
                self.deliver(mode, 0, Trigger::Edge);
            }
            // ExtINT on a pin is a level, see `ext_int_pin`; the rest is not for the LVT.
            _ => {}
        }
    }

    pub(super) fn write_lvt(&mut self, now: Tick, entry: LvtEntry, value: u32) {
        self.advance(now);
        let old = self.state.lvt.get(entry);
        let mut new = value & entry.writable() | old & REMOTE_IRR;
        if self.state.svr & registers::SVR_ENABLE == 0 {
            new |= MASK;
        }
        if new & TRIGGER_LEVEL == 0 {
            new &= !REMOTE_IRR;
        }
        self.state.lvt.set(entry, new);
        match entry {
            LvtEntry::Timer => self.timer_mode_changed(old, new),
            LvtEntry::Lint0 => self.raise_level(Lint::Lint0),
            LvtEntry::Lint1 => self.raise_level(Lint::Lint1),
            _ => {}
        }
    }

    /// Whether a pin passes the 8259's INTR through.
    pub(super) fn ext_int_pin(&self) -> bool {
        if !self.is_enabled() {
            return self.state.lint[Lint::Lint0 as usize];
        }
        PINS.iter().any(|&pin| {
            let entry = self.state.lvt.get(pin.into());
            self.state.lint[pin as usize]
                && entry & MASK == 0
                && DeliveryMode::from_bits(entry >> 8) == Some(DeliveryMode::ExtInt)
        })
    }

    /// After an EOI of a level-triggered vector: a pin that is still asserted interrupts again.
    pub(super) fn end_lint_service(&mut self, vector: u8) {
        for pin in PINS {
            let entry = self.state.lvt.get(pin.into());
            if entry & REMOTE_IRR != 0 && entry as u8 == vector {
                self.state.lvt.set(pin.into(), entry & !REMOTE_IRR);
                self.raise_level(pin);
            }
        }
    }

    fn raise_pin(&mut self, pin: Lint) {
        if self.is_level(pin) { self.raise_level(pin) } else { self.raise_entry(pin.into()) }
    }

    /// Only LINT0 can be level-triggered, and only in fixed mode.
    fn is_level(&self, pin: Lint) -> bool {
        pin == Lint::Lint0 && self.state.lvt.get(pin.into()) & (TRIGGER_LEVEL | DELIVERY) == TRIGGER_LEVEL
    }

    /// Raises a pin's entry if it is level-triggered, asserted and not in service.
    fn raise_level(&mut self, pin: Lint) {
        let entry = self.state.lvt.get(pin.into());
        if self.is_level(pin) && self.state.lint[pin as usize] && entry & (MASK | REMOTE_IRR) == 0 {
            if entry as u8 >= 16 {
                self.state.lvt.set(pin.into(), entry | REMOTE_IRR);
            }
            self.inject(entry as u8, Trigger::Level);
        }
    }
}
