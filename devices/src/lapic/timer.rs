//! The APIC timer (SDM vol. 3, 10.5.4): one-shot, periodic and TSC-deadline.
//!
//! Nothing counts down: a count is computed from the bus cycle at which it reaches 0, so that a read and a write are
//! O(1) and no cycle is ever lost. Expiries that fall together (a masked or very short period) are made in bulk.

use super::lvt::LvtEntry;
use super::{Config, LocalApic};
use crate::clock::Tick;
use serde::{Deserialize, Serialize};

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Mode {
    OneShot,
    Periodic,
    TscDeadline,
    /// The reserved value: the timer stands still.
    Reserved,
}

impl Mode {
    fn of(lvt: u32, config: &Config) -> Mode {
        match lvt >> 17 & 3 {
            0 => Mode::OneShot,
            1 => Mode::Periodic,
            2 if config.features.tsc_deadline => Mode::TscDeadline,
            _ => Mode::Reserved,
        }
    }
}

/// The timer's part of the volatile state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timer {
    initial: u32,
    /// The divide configuration register.
    divide: u32,
    /// Whether a count is on its way to 0.
    running: bool,
    /// The bus cycle at which the count is 0.
    end: u64,
    /// IA32_TSC_DEADLINE; 0 is disarmed.
    tsc_deadline: u64,
    /// When the count or the TSC gets there.
    expiry: Option<Tick>,
}

impl Timer {
    pub(super) fn is_due(&self, now: Tick) -> bool {
        self.expiry.is_some_and(|expiry| expiry <= now)
    }

    pub(super) fn initial_count(&self) -> u32 {
        self.initial
    }

    pub(super) fn divide(&self) -> u32 {
        self.divide
    }

    pub(super) fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// Bus cycles per count: bits 3, 1 and 0 are 0–6 for 2–128 and 7 for 1.
    fn divisor(&self) -> u64 {
        let code = self.divide & 3 | self.divide >> 1 & 4;
        1 << ((code + 1) & 7)
    }

    /// Bus cycles from the initial count to 0.
    fn period(&self) -> u64 {
        u64::from(self.initial) * self.divisor()
    }

    fn stop(&mut self) {
        self.running = false;
        self.tsc_deadline = 0;
        self.expiry = None;
    }
}

impl LocalApic {
    fn mode(&self) -> Mode {
        Mode::of(self.state.lvt.get(LvtEntry::Timer), &self.config)
    }

    /// When the timer next interrupts; masked, it changes nothing that anyone sees.
    pub(super) fn timer_event(&self) -> Option<Tick> {
        if self.state.lvt.is_masked(LvtEntry::Timer) { None } else { self.state.timer.expiry }
    }

    pub(super) fn current_count(&self, now: Tick) -> u32 {
        let timer = &self.state.timer;
        if !timer.running {
            return 0;
        }
        let left = timer.end.saturating_sub(self.config.bus_rate.cycles_at(now));
        left.div_ceil(timer.divisor()).min(timer.initial.into()) as u32
    }

    pub(super) fn write_initial_count(&mut self, now: Tick, value: u32) {
        self.advance(now);
        if matches!(self.mode(), Mode::TscDeadline | Mode::Reserved) {
            return;
        }
        let timer = &mut self.state.timer;
        timer.initial = value;
        timer.running = value != 0;
        timer.end = self.config.bus_rate.cycles_at(now).saturating_add(timer.period());
        self.set_expiry();
    }

    /// A new divider acts at once: the count goes on from where it is.
    pub(super) fn write_divide(&mut self, now: Tick, value: u32) {
        self.advance(now);
        let count = self.current_count(now);
        let timer = &mut self.state.timer;
        timer.divide = value & 0b1011;
        if timer.running {
            timer.end = self.config.bus_rate.cycles_at(now).saturating_add(u64::from(count) * timer.divisor());
            self.set_expiry();
        }
    }

    /// Moving to or from TSC-deadline mode disarms the timer (SDM vol. 3, 10.5.4.1).
    pub(super) fn timer_mode_changed(&mut self, old: u32, new: u32) {
        let (old, new) = (Mode::of(old, &self.config), Mode::of(new, &self.config));
        let counts = |mode| matches!(mode, Mode::OneShot | Mode::Periodic);
        if old != new && !(counts(old) && counts(new)) {
            self.state.timer.stop();
        }
    }

    pub(super) fn arm_tsc_deadline(&mut self, now: Tick, value: u64) {
        if self.mode() != Mode::TscDeadline {
            return;
        }
        self.advance(now);
        self.state.timer.tsc_deadline = value;
        self.set_tsc_expiry(now);
        self.advance(now);
    }

    /// The time-stamp counter is `tsc_rate` cycles plus `offset` (modulo 2⁶⁴); an armed deadline follows it.
    pub fn set_tsc_offset(&mut self, now: Tick, offset: u64) {
        self.advance(now);
        self.state.tsc_offset = offset;
        if self.mode() == Mode::TscDeadline {
            self.set_tsc_expiry(now);
            self.advance(now);
        }
    }

    /// Makes the expiries that are due; there is at least one.
    pub(super) fn expire(&mut self, now: Tick) {
        match self.mode() {
            Mode::Periodic if self.state.timer.running => {
                let period = self.state.timer.period().max(1);
                let late = self.config.bus_rate.cycles_at(now).saturating_sub(self.state.timer.end);
                self.state.timer.end = self.state.timer.end.saturating_add((late / period + 1).saturating_mul(period));
                self.set_expiry();
            }
            _ => self.state.timer.stop(),
        }
        self.raise_entry(LvtEntry::Timer);
    }

    fn set_expiry(&mut self) {
        let timer = &mut self.state.timer;
        timer.expiry =
            timer.running.then(|| self.config.bus_rate.tick_of(timer.end)).filter(|&end| end < Tick(u64::MAX));
    }

    fn set_tsc_expiry(&mut self, now: Tick) {
        let deadline = self.state.timer.tsc_deadline;
        let cycles = self.config.tsc_rate.cycles_at(now);
        let tsc = cycles.wrapping_add(self.state.tsc_offset);
        self.state.timer.expiry = match deadline {
            0 => None,
            _ if deadline <= tsc => Some(now),
            _ => Some(self.config.tsc_rate.tick_of(cycles.saturating_add(deadline - tsc)))
                .filter(|&end| end < Tick(u64::MAX)),
        };
    }
}
