//! The MC146818 real-time clock and its CMOS RAM (Motorola MC146818 data sheet; PIIX3 data sheet for the ports and the
//! extended bank).
//!
//! Models the calendar in BCD and binary, 12- and 24-hour form, with a century byte (32h) that the clock carries into;
//! the SET bit, the divider chain with its reset, update-in-progress, all periodic rates, the alarm with don't-care
//! bytes, the update-ended interrupt, register C's clear-on-read, and 128 + 128 bytes of RAM. Everything follows from the
//! 32.768 kHz crystal: nothing is stepped, seconds that passed are added at the next look.
//!
//! Leaves out: daylight saving (the bit is kept), the square-wave output, other crystals (their divider settings run as
//! if at 32.768 kHz). The clock keeps its time over a reset.
//!
//! Ranges: 0 = 70h–71h, 1 = 72h–73h (extended bank). Wire: IRQ. Called by the board.

use crate::clock::{Rate, Tick};
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};

mod civil;
#[cfg(test)]
mod tests;

pub use civil::CivilTime;

const SECONDS: usize = 0x00;
const SECONDS_ALARM: usize = 0x01;
const MINUTES: usize = 0x02;
const MINUTES_ALARM: usize = 0x03;
const HOURS: usize = 0x04;
const HOURS_ALARM: usize = 0x05;
const WEEKDAY: usize = 0x06;
const DAY: usize = 0x07;
const MONTH: usize = 0x08;
const YEAR: usize = 0x09;
const REG_A: usize = 0x0a;
const REG_B: usize = 0x0b;
const REG_C: usize = 0x0c;
const REG_D: usize = 0x0d;
const CENTURY: usize = 0x32;

/// Register A: an update is in progress or about to begin.
const A_UIP: u8 = 1 << 7;
/// Register B: no updates.
const B_SET: u8 = 1 << 7;
/// Register B: the update-ended interrupt; the periodic and alarm ones are bits 6 and 5.
const B_UIE: u8 = 1 << 4;
/// Register B: what RESET clears: PIE, AIE, UIE, SQWE.
const B_RESET: u8 = 0x78;
/// Register B: binary, not BCD.
const B_BINARY: u8 = 1 << 2;
/// Register B: 24 hours.
const B_24_HOURS: u8 = 1 << 1;
/// Register C: an enabled interrupt is pending.
const C_IRQ: u8 = 1 << 7;
/// Register C: the periodic flag (and register B: its enable).
const C_PERIODIC: u8 = 1 << 6;
/// Register C: the alarm flag (and register B: its enable).
const C_ALARM: u8 = 1 << 5;
/// Register C: the update-ended flag (and register B: its enable).
const C_UPDATE: u8 = 1 << 4;
/// Register D: RAM and time are valid.
const D_VALID: u8 = 1 << 7;
/// Hours in 12-hour form: afternoon.
const PM: u8 = 1 << 7;

/// Crystal cycles in a second.
const SECOND: i64 = 32_768;
/// Cycles before the end of an update at which UIP rises: 244 µs of warning and 1984 µs of update.
const UIP_CYCLES: i64 = 8 + 65;

/// Volatile state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Both banks: time, registers A and B (C and D live elsewhere), RAM. Always 256 bytes.
    cmos: Vec<u8>,
    /// What port 70h was written with: index and, in bit 7, the NMI mask.
    index: u8,
    /// What port 72h was written with.
    extended_index: u8,
    /// The flags of register C.
    flags: u8,
    /// The crystal cycle at which the divider chain was zero.
    origin: i64,
    /// The crystal cycle up to which all this is true.
    cycle: i64,
}

/// The real-time clock and CMOS RAM.
#[derive(Debug)]
pub struct RtcMc146818 {
    // Configuration: the start date goes into the registers.
    // Wires.
    irq: IrqLine,
    // Volatile state.
    state: State,
}

impl RtcMc146818 {
    /// A clock that shows `start` at tick 0, with zeros in the rest of its RAM. An impossible date starts at the default.
    pub fn new(start: CivilTime, irq: IrqLine) -> RtcMc146818 {
        let start = if start.is_valid() && start.year < 10_000 { start } else { CivilTime::default() };
        let mut state = State { cmos: vec![0; 256], index: 0, extended_index: 0, flags: 0, origin: 0, cycle: 0 };
        state.cmos[REG_A] = 0x26;
        state.cmos[REG_B] = B_24_HOURS;
        for (register, value) in [
            (SECONDS, u32::from(start.second)),
            (MINUTES, u32::from(start.minute)),
            (HOURS, u32::from(start.hour)),
            (WEEKDAY, u32::from(start.weekday())),
            (DAY, u32::from(start.day)),
            (MONTH, u32::from(start.month)),
            (YEAR, u32::from(start.year % 100)),
            (CENTURY, u32::from(start.year / 100)),
        ] {
            state.put(register, value);
        }
        RtcMc146818 { irq, state }
    }

    /// The 128 bytes of the standard bank, for the board to preset memory sizes, boot order and the like (0Eh–7Fh).
    pub fn cmos_mut(&mut self) -> &mut [u8] {
        &mut self.state.cmos[..128]
    }

    /// Whether port 70h masks the NMI.
    pub fn nmi_masked(&self) -> bool {
        self.state.index & 0x80 != 0
    }

    fn sync(&mut self, now: Tick) {
        self.state.advance(Rate::RTC.cycles_at(now) as i64);
        self.drive();
    }

    fn drive(&self) {
        self.irq.set(self.state.interrupting());
    }
}

impl State {
    fn interrupting(&self) -> bool {
        self.flags & self.cmos[REG_B] & (C_PERIODIC | C_ALARM | C_UPDATE) != 0
    }

    /// Whether the divider chain runs (register A's DV bits do not hold it in reset).
    fn divider_runs(&self) -> bool {
        self.cmos[REG_A] & 0x70 <= 0x20
    }

    fn updates(&self) -> bool {
        self.divider_runs() && self.cmos[REG_B] & B_SET == 0
    }

    /// Crystal cycles between periodic interrupts.
    fn periodic_cycles(&self) -> Option<i64> {
        match self.cmos[REG_A] & 15 {
            0 => None,
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// Catches up to crystal cycle `to`.
    fn advance(&mut self, to: i64) {
        let from = self.cycle;
        if to <= from {
            return;
        }
        self.cycle = to;
        if !self.divider_runs() {
            return;
        }
        let passed = |period: i64| (to - self.origin).div_euclid(period) - (from - self.origin).div_euclid(period);
        let periodic = self.periodic_cycles().is_some_and(|period| passed(period) > 0);
        let seconds = passed(SECOND);
        if periodic {
            self.flags |= C_PERIODIC;
        }
        if seconds > 0 && self.updates() {
            self.flags |= C_UPDATE;
            if self.seconds_to_alarm().is_some_and(|alarm| alarm <= seconds) {
                self.flags |= C_ALARM;
            }
            self.add_seconds(seconds);
        }
    }

    /// The crystal cycle at which the IRQ next rises by itself.
    fn next_interrupt(&self) -> Option<i64> {
        if self.interrupting() || !self.divider_runs() {
            return None;
        }
        let next = |period: i64| self.cycle + period - (self.cycle - self.origin).rem_euclid(period);
        let enabled = self.cmos[REG_B];
        let periodic = self.periodic_cycles().filter(|_| enabled & C_PERIODIC != 0).map(next);
        let update = (self.updates() && enabled & C_UPDATE != 0).then(|| next(SECOND));
        let alarm = self
            .seconds_to_alarm()
            .filter(|_| self.updates() && enabled & C_ALARM != 0)
            .map(|seconds| next(SECOND) + (seconds - 1) * SECOND);
        [periodic, update, alarm].into_iter().flatten().min()
    }

    fn update_in_progress(&self) -> bool {
        self.updates() && (self.cycle - self.origin).rem_euclid(SECOND) >= SECOND - UIP_CYCLES
    }

    fn write_a(&mut self, value: u8) {
        let ran = self.divider_runs();
        self.cmos[REG_A] = value & !A_UIP;
        if !ran && self.divider_runs() {
            // The first update comes half a second after the divider is let go.
            self.origin = self.cycle - SECOND / 2;
        }
    }

    fn write_b(&mut self, value: u8) {
        let set_now = value & B_SET != 0 && self.cmos[REG_B] & B_SET == 0;
        self.cmos[REG_B] = if set_now { value & !B_UIE } else { value };
    }

    fn number(&self, byte: u8) -> u32 {
        if self.cmos[REG_B] & B_BINARY != 0 { byte.into() } else { u32::from(byte >> 4) * 10 + u32::from(byte & 15) }
    }

    fn byte(&self, number: u32) -> u8 {
        if self.cmos[REG_B] & B_BINARY != 0 { number as u8 } else { (number / 10 % 10 * 16 + number % 10) as u8 }
    }

    fn put(&mut self, register: usize, number: u32) {
        self.cmos[register] = self.byte(number);
    }

    /// Hours in either form as 0–23 (or more, if the byte is no hour).
    fn hour(&self, byte: u8) -> u32 {
        if self.cmos[REG_B] & B_24_HOURS != 0 {
            return self.number(byte);
        }
        let hour = self.number(byte & !PM);
        let afternoon = if byte & PM != 0 { 12 } else { 0 };
        if hour == 12 { afternoon } else { hour + afternoon }
    }

    fn hour_byte(&self, hour: u32) -> u8 {
        if self.cmos[REG_B] & B_24_HOURS != 0 {
            return self.byte(hour);
        }
        let on_the_dial = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.byte(on_the_dial) | if hour >= 12 { PM } else { 0 }
    }

    /// Hour, minute, second as shown, forced into range.
    fn time_of_day(&self) -> [u32; 3] {
        [
            self.hour(self.cmos[HOURS]).min(23),
            self.number(self.cmos[MINUTES]).min(59),
            self.number(self.cmos[SECONDS]).min(59),
        ]
    }

    /// The number of updates until the alarm next matches (1 to 86400).
    fn seconds_to_alarm(&self) -> Option<i64> {
        let wanted = |register: usize, hours: bool| {
            let byte = self.cmos[register];
            (byte & 0xc0 != 0xc0).then(|| if hours { self.hour(byte) } else { self.number(byte) })
        };
        let want = [wanted(HOURS_ALARM, true), wanted(MINUTES_ALARM, false), wanted(SECONDS_ALARM, false)];
        let limit = [24, 60, 60];
        if want.iter().zip(limit).any(|(want, limit)| want.is_some_and(|want| want >= limit)) {
            return None;
        }
        // The least matching value above `floor` (or from 0), for each place.
        let above = |place: usize, floor: u32| match want[place] {
            None => (floor + 1 < limit[place]).then_some(floor + 1),
            Some(value) => (value > floor).then_some(value),
        };
        let least = |place: usize| want[place].unwrap_or(0);
        let matches = |place: usize, value: u32| want[place].is_none_or(|want| want == value);
        let [hour, minute, second] = self.time_of_day();
        let clock = |h: u32, m: u32, s: u32| i64::from(h * 3600 + m * 60 + s);
        let same_minute = || above(2, second).filter(|_| matches(0, hour) && matches(1, minute));
        let same_hour = || above(1, minute).filter(|_| matches(0, hour));
        let due = if let Some(s) = same_minute() {
            clock(hour, minute, s)
        } else if let Some(m) = same_hour() {
            clock(hour, m, least(2))
        } else if let Some(h) = above(0, hour) {
            clock(h, least(1), least(2))
        } else {
            86_400 + clock(least(0), least(1), least(2))
        };
        Some(due - clock(hour, minute, second))
    }

    /// `seconds` updates at once.
    fn add_seconds(&mut self, seconds: i64) {
        let [hour, minute, second] = self.time_of_day();
        let total = i64::from(hour * 3600 + minute * 60 + second) + seconds;
        let (days, time) = (total / 86_400, (total % 86_400) as u32);
        self.put(SECONDS, time % 60);
        self.put(MINUTES, time / 60 % 60);
        self.cmos[HOURS] = self.hour_byte(time / 3600);
        if days == 0 {
            return;
        }
        let weekday = (i64::from(self.number(self.cmos[WEEKDAY])) - 1 + days).rem_euclid(7) + 1;
        let year = self.number(self.cmos[CENTURY]) * 100 + self.number(self.cmos[YEAR]).min(99);
        let month = self.number(self.cmos[MONTH]).clamp(1, 12);
        let day = self.number(self.cmos[DAY]).clamp(1, 31);
        let (year, month, day) = civil::civil_from_days(civil::days_from_civil(year, month, day) + days);
        self.put(WEEKDAY, weekday as u32);
        self.put(DAY, day);
        self.put(MONTH, month);
        self.put(YEAR, year % 100);
        self.put(CENTURY, year / 100 % 100);
    }

    fn read(&mut self, index: usize) -> u8 {
        match index {
            REG_A if self.update_in_progress() => self.cmos[REG_A] | A_UIP,
            REG_C => {
                let irq = if self.interrupting() { C_IRQ } else { 0 };
                std::mem::take(&mut self.flags) | irq
            }
            REG_D => D_VALID,
            _ => self.cmos[index],
        }
    }

    fn write(&mut self, index: usize, value: u8) {
        match index {
            REG_A => self.write_a(value),
            REG_B => self.write_b(value),
            REG_C | REG_D => {}
            _ => self.cmos[index] = value,
        }
    }

    fn selected(&self, range: u8) -> usize {
        if range == 0 { usize::from(self.index & 0x7f) } else { 128 + usize::from(self.extended_index & 0x7f) }
    }
}

impl Device for RtcMc146818 {
    fn name(&self) -> &'static str {
        "rtc"
    }

    fn reset(&mut self, cx: &mut Ctx<'_>) {
        self.sync(cx.now);
        self.state.cmos[REG_B] &= !B_RESET;
        self.state.flags = 0;
        self.drive();
    }

    fn port_read(&mut self, cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        match (range, offset, width) {
            (0 | 1, 0, Width::B1) => Ok(0xff), // The index is write-only.
            (0 | 1, 1, Width::B1) => {
                self.sync(cx.now);
                let index = self.state.selected(range);
                let value = self.state.read(index);
                self.drive();
                Ok(u32::from(value))
            }
            (0 | 1, 0 | 1, _) => Err(IoError::BadWidth),
            _ => Err(IoError::NoSuchRegister),
        }
    }

    fn port_write(
        &mut self,
        cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        match (range, offset, width) {
            (0, 0, Width::B1) => self.state.index = value as u8,
            (1, 0, Width::B1) => self.state.extended_index = value as u8,
            (0 | 1, 1, Width::B1) => {
                self.sync(cx.now);
                let index = self.state.selected(range);
                self.state.write(index, value as u8);
                self.drive();
            }
            (0 | 1, 0 | 1, _) => return Err(IoError::BadWidth),
            _ => return Err(IoError::NoSuchRegister),
        }
        Ok(())
    }

    fn next_event(&self) -> Option<Tick> {
        self.state.next_interrupt().map(|cycle| Rate::RTC.tick_of(cycle.max(0) as u64))
    }

    fn run_until(&mut self, cx: &mut Ctx<'_>) {
        self.sync(cx.now);
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = restore_state(self.name(), state)?;
        let plausible = -SECOND..1 << 52;
        if state.cmos.len() != 256 || !plausible.contains(&state.origin) || !plausible.contains(&state.cycle) {
            return Err(StateError { device: self.name(), reason: "no such RAM size or time".into() });
        }
        self.state = state;
        self.drive();
        Ok(())
    }
}
