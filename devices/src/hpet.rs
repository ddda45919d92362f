//! The high-precision event timer (IA-PC HPET specification 1.0a): one 64-bit counter of 100 MHz and three timers, each
//! one-shot or periodic, 64 or 32 bits wide, edge or level.
//!
//! MMIO window 0, 400h bytes, accesses of 4 and 8 bytes. While [`Hpet::legacy_replacement`] holds, timers 0 and 1 drive the
//! legacy wires and the board disconnects the 8254 and the RTC from theirs. A match happens when the counter arrives at
//! the comparator, or stands there as the comparator is written; a one-shot timer of 32 bits interrupts once more when the low
//! half of the counter wraps around (2.3.9.2.1). An edge stays high until the next one begins, so that an
//! 8259 finds it at the acknowledge. Left out: FSB (message) delivery, which the capability bits deny.

use crate::clock::{Rate, Tick};
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};

const TIMERS: usize = 3;
/// The counter's rate: one count in 10 ns.
const RATE: Rate = Rate::new(1, 10);
/// The same in femtoseconds, as the capabilities tell it.
const PERIOD_FS: u64 = 10_000_000;
/// Vendor 8086h, legacy replacement, 64-bit counter, three timers, revision 1.
const CAPABILITIES: u64 = PERIOD_FS << 32 | 0x8086_0000 | 1 << 15 | 1 << 13 | (TIMERS as u64 - 1) << 8 | 1;

const REG_CAPABILITIES: u64 = 0x000;
const REG_CONFIG: u64 = 0x010;
const REG_STATUS: u64 = 0x020;
const REG_COUNTER: u64 = 0x0F0;
const REG_TIMERS: u64 = 0x100;
const WINDOW: u64 = 0x400;
const TIMER_STRIDE: u64 = 0x20;

/// General configuration: the counter runs and timers interrupt.
const ENABLE: u64 = 1 << 0;
/// General configuration: timers 0 and 1 replace the 8254 and the RTC.
const LEGACY: u64 = 1 << 1;

/// Timer configuration: level-triggered.
const LEVEL: u64 = 1 << 1;
/// Timer configuration: interrupts.
const INTERRUPT: u64 = 1 << 2;
/// Timer configuration: periodic.
const PERIODIC: u64 = 1 << 3;
/// Timer configuration, reads as 0: the next comparator write sets the accumulator of a periodic timer too.
const VALUE_SET: u64 = 1 << 6;
/// Timer configuration: compares 32 bits only.
const MODE_32: u64 = 1 << 8;
const ROUTE_SHIFT: u32 = 9;
const ROUTE: u64 = 31 << ROUTE_SHIFT;
const TIMER_WRITABLE: u64 = LEVEL | INTERRUPT | PERIODIC | VALUE_SET | MODE_32 | ROUTE;
/// What every timer can: periodic, 64 bits.
const TIMER_CAPABILITIES: u64 = 1 << 4 | 1 << 5;

/// The wires out of the HPET.
#[derive(Debug)]
pub struct Wires {
    /// In legacy replacement, timer 0's (interrupt request 0) and timer 1's (8).
    pub legacy: [IrqLine; 2],
    /// The I/O APIC inputs, by number; those outside the configured routes may be detached.
    pub ioapic: [IrqLine; 32],
}

impl Wires {
    /// Wires that lead nowhere, for tests.
    pub fn detached() -> Wires {
        let none = |_| IrqLine::detached();
        Wires { legacy: [0; 2].map(none), ioapic: [0; 32].map(none) }
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Timer {
    /// The writable bits of the configuration register.
    config: u64,
    /// The comparator; of a periodic timer, the accumulator: the next match.
    comparator: u64,
    /// A periodic timer's period: the last comparator value written.
    period: u64,
    /// The first cycle that has not been compared yet.
    from: u64,
    /// The low half of the accumulator was written, its high half may follow.
    set_high: bool,
}

impl Timer {
    const fn mask(&self) -> u64 {
        if self.config & MODE_32 != 0 { u32::MAX as u64 } else { u64::MAX }
    }

    /// The cycle of the next match, with the counter at `offset` + cycle.
    fn next_match(&self, offset: u64) -> Option<u64> {
        let count = offset.wrapping_add(self.from);
        let to_comparator = self.comparator.wrapping_sub(count) & self.mask();
        let one_shot_32 = self.config & (PERIODIC | MODE_32) == MODE_32;
        // A counter that stands at 0 has not wrapped around; nor is a wrap right behind a match told apart from that.
        let to_wrap = (1 << 32) - (count & u64::from(u32::MAX));
        self.from.checked_add(if one_shot_32 { to_comparator.min(to_wrap) } else { to_comparator })
    }

    /// Moves on beyond `cycle`; says whether there was a match.
    fn advance(&mut self, offset: u64, cycle: u64) -> bool {
        let mut matched = false;
        while let Some(first) = self.next_match(offset).filter(|&first| first <= cycle) {
            self.pass(first, cycle);
            matched = true;
        }
        matched
    }

    /// Leaves the match of cycle `first` behind, and those up to `cycle` that follow it a period or a round apart.
    fn pass(&mut self, first: u64, cycle: u64) {
        let periodic = self.config & PERIODIC != 0 && self.period & self.mask() != 0;
        let step = match (periodic, self.config & MODE_32 != 0) {
            (true, _) => Some(self.period & self.mask()),
            (false, true) => Some(1 << 32),
            (false, false) => None,
        };
        let further = step.map_or(0, |step| (cycle - first) / step);
        if periodic {
            let matches = (further + 1).wrapping_mul(self.period);
            self.comparator = self.comparator.wrapping_add(matches) & self.mask();
        }
        self.from = first + further * step.unwrap_or(0) + 1;
    }
}

/// The volatile state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    config: u64,
    /// Level-triggered timers whose interrupt is active, a bit each.
    status: u64,
    /// While the counter runs: the count is this plus the cycle (modulo 2⁶⁴). While it is halted: the count.
    offset: u64,
    timers: [Timer; TIMERS],
}

/// The HPET.
#[derive(Debug)]
pub struct Hpet {
    // Configuration: the I/O APIC inputs that timers can be routed to, a bit each.
    routes: u32,
    // Wires.
    wires: Wires,
    // Volatile state.
    state: State,
}

impl Hpet {
    /// The low half of the capabilities register, which the ACPI table repeats.
    pub const ID: u32 = CAPABILITIES as u32;

    /// An HPET after power-on. `routes` has a bit for each I/O APIC input that its timers may use; not 0.
    pub fn new(routes: u32, wires: Wires) -> Hpet {
        Hpet { routes, wires, state: Hpet::reset_state(routes) }
    }

    /// Whether timers 0 and 1 stand in for the 8254 and the RTC.
    pub fn legacy_replacement(&self) -> bool {
        self.state.config & LEGACY != 0
    }

    fn reset_state(routes: u32) -> State {
        let config = u64::from(routes.trailing_zeros() & 31) << ROUTE_SHIFT;
        let timer = Timer { config, comparator: u64::MAX, period: 0, from: 0, set_high: false };
        State { config: 0, status: 0, offset: 0, timers: [timer; TIMERS] }
    }

    fn is_running(&self) -> bool {
        self.state.config & ENABLE != 0
    }

    fn count(&self, now: Tick) -> u64 {
        let cycle = if self.is_running() { RATE.cycles_at(now) } else { 0 };
        self.state.offset.wrapping_add(cycle)
    }

    /// Which output a timer drives: an I/O APIC input, or from 32 on a legacy wire.
    fn output(&self, timer: usize) -> usize {
        if self.legacy_replacement() && timer < self.wires.legacy.len() {
            self.wires.ioapic.len() + timer
        } else {
            ((self.state.timers[timer].config & ROUTE) >> ROUTE_SHIFT) as usize
        }
    }

    fn drive(&self, output: usize, high: bool) {
        if let Some(wire) = self.wires.ioapic.iter().chain(&self.wires.legacy).nth(output) {
            wire.set(high);
        }
    }

    /// Makes all matches up to now.
    fn advance(&mut self, now: Tick) {
        if !self.is_running() {
            return;
        }
        let cycle = RATE.cycles_at(now);
        for index in 0..TIMERS {
            let timer = &mut self.state.timers[index];
            if !timer.advance(self.state.offset, cycle) {
                continue;
            }
            let (level, interrupt) = (timer.config & LEVEL != 0, timer.config & INTERRUPT != 0);
            if level {
                self.state.status |= 1 << index;
                self.drive_level(self.output(index));
            } else if interrupt {
                self.drive(self.output(index), false);
                self.drive(self.output(index), true);
            }
        }
    }

    /// Calls `change`, then drives what it changed: active levels, and low where a timer no longer drives.
    fn rewire(&mut self, change: impl FnOnce(&mut State)) {
        let before = std::array::from_fn::<_, TIMERS, _>(|index| (self.output(index), self.is_level(index)));
        change(&mut self.state);
        for (index, (output, was_level)) in before.into_iter().enumerate() {
            let interrupts = self.is_running() && self.state.timers[index].config & INTERRUPT != 0;
            if output != self.output(index) || was_level != self.is_level(index) || !interrupts {
                self.drive(output, false);
            }
        }
        for index in 0..TIMERS {
            if self.is_level(index) {
                self.drive_level(self.output(index));
            }
        }
    }

    /// Drives an output as the level-triggered timers on it say.
    fn drive_level(&self, output: usize) {
        let active = (0..TIMERS).any(|index| {
            let interrupts = self.is_level(index) && self.state.timers[index].config & INTERRUPT != 0;
            interrupts && self.state.status >> index & 1 != 0 && self.output(index) == output
        });
        self.drive(output, self.is_running() && active);
    }

    fn is_level(&self, timer: usize) -> bool {
        self.state.timers[timer].config & LEVEL != 0
    }

    fn read_register(&self, now: Tick, register: u64) -> u64 {
        match register {
            REG_CAPABILITIES => CAPABILITIES,
            REG_CONFIG => self.state.config,
            REG_STATUS => self.state.status,
            REG_COUNTER => self.count(now),
            _ => {
                let Some((index, part)) = timer_register(register) else { return 0 };
                let timer = &self.state.timers[index];
                match part {
                    0x00 => timer.config & !VALUE_SET | TIMER_CAPABILITIES | u64::from(self.routes) << 32,
                    0x08 => timer.comparator,
                    // The FSB route, which there is not.
                    _ => 0,
                }
            }
        }
    }

    /// Writes the bits of `mask`; `value` has no others.
    fn write_register(&mut self, now: Tick, register: u64, value: u64, mask: u64) {
        match register {
            REG_CONFIG => self.write_config(now, self.state.config & !mask | value),
            REG_STATUS => self.rewire(|state| state.status &= !value),
            REG_COUNTER => {
                let count = self.count(now) & !mask | value;
                let cycle = if self.is_running() { RATE.cycles_at(now) } else { 0 };
                self.state.offset = count.wrapping_sub(cycle);
                self.compare_from(RATE.cycles_at(now));
            }
            _ => match timer_register(register) {
                Some((index, 0x00)) => self.write_timer_config(index, value, mask),
                Some((index, 0x08)) => self.write_comparator(now, index, value, mask),
                _ => {}
            },
        }
    }

    fn compare_from(&mut self, cycle: u64) {
        self.state.timers.iter_mut().for_each(|timer| timer.from = cycle);
    }

    fn write_config(&mut self, now: Tick, config: u64) {
        let count = self.count(now);
        let cycle = RATE.cycles_at(now);
        let started = config & !self.state.config & ENABLE != 0;
        self.rewire(|state| {
            state.config = config & (ENABLE | LEGACY);
            state.offset = if config & ENABLE != 0 { count.wrapping_sub(cycle) } else { count };
        });
        if started {
            self.compare_from(cycle);
        }
    }

    fn write_timer_config(&mut self, index: usize, value: u64, mask: u64) {
        let routes = self.routes;
        self.rewire(|state| {
            let timer = &mut state.timers[index];
            let old = timer.config;
            let mut config = (old & !mask | value) & TIMER_WRITABLE;
            // A route that does not exist is not taken.
            if routes >> ((config & ROUTE) >> ROUTE_SHIFT) & 1 == 0 {
                config = config & !ROUTE | old & ROUTE;
            }
            timer.config = config;
            timer.set_high = false;
            timer.comparator &= timer.mask();
            timer.period &= timer.mask();
            if config & LEVEL == 0 {
                state.status &= !(1 << index);
            }
        });
    }

    fn write_comparator(&mut self, now: Tick, index: usize, value: u64, mask: u64) {
        const LOW: u64 = u32::MAX as u64;
        let timer = &mut self.state.timers[index];
        let low = mask & LOW != 0;
        let periodic = timer.config & PERIODIC != 0;
        let set = timer.config & VALUE_SET != 0 || !low && timer.set_high;
        if !periodic || set {
            timer.comparator = (timer.comparator & !mask | value) & timer.mask();
            timer.from = RATE.cycles_at(now);
        }
        if periodic {
            timer.period = (timer.period & !mask | value) & timer.mask();
        }
        timer.set_high = low && timer.config & VALUE_SET != 0;
        timer.config &= !VALUE_SET;
    }
}

/// The timer that a register belongs to, and its offset among that timer's.
fn timer_register(register: u64) -> Option<(usize, u64)> {
    let from_first = register.checked_sub(REG_TIMERS)?;
    let index = (from_first / TIMER_STRIDE) as usize;
    (index < TIMERS).then_some((index, from_first % TIMER_STRIDE))
}

impl Device for Hpet {
    fn name(&self) -> &'static str {
        "hpet"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        let routes = self.routes;
        self.rewire(|state| *state = Hpet::reset_state(routes));
    }

    fn mmio_read(&mut self, cx: &mut Ctx<'_>, _window: u8, offset: u64, width: Width) -> Result<u64, IoError> {
        let (register, shift) = place(offset, width)?;
        self.advance(cx.now);
        Ok(self.read_register(cx.now, register) >> shift & width.ones())
    }

    fn mmio_write(
        &mut self,
        cx: &mut Ctx<'_>,
        _window: u8,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), IoError> {
        let (register, shift) = place(offset, width)?;
        self.advance(cx.now);
        self.write_register(cx.now, register, (value & width.ones()) << shift, width.ones() << shift);
        self.advance(cx.now);
        Ok(())
    }

    /// The next match of a timer that interrupts; what the others do is found out when somebody looks.
    fn next_event(&self) -> Option<Tick> {
        let timers = self.state.timers.iter().filter(|timer| self.is_running() && timer.config & INTERRUPT != 0);
        timers.filter_map(|timer| timer.next_match(self.state.offset)).map(|cycle| RATE.tick_of(cycle)).min()
    }

    fn run_until(&mut self, cx: &mut Ctx<'_>) {
        self.advance(cx.now);
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let saved: State = restore_state(self.name(), state)?;
        self.rewire(|state| *state = saved);
        Ok(())
    }
}

/// The 64-bit register of an access and the access's place in it.
fn place(offset: u64, width: Width) -> Result<(u64, u32), IoError> {
    if offset >= WINDOW {
        return Err(IoError::NoSuchRegister);
    }
    if width < Width::B4 || !offset.is_multiple_of(width.bytes()) {
        return Err(IoError::BadWidth);
    }
    Ok((offset & !7, 8 * (offset & 7) as u32))
}

#[cfg(test)]
mod tests;
