//! The 8254 interval timer (Intel 8254 data sheet, order 231164) and port 61h beside it (PIIX3 data sheet, NMI status and
//! control register).
//!
//! Models all modes, binary and BCD, all access forms, the latch and read-back commands, null count and gates, at the
//! exact rate of 105/88 MHz. Every access is answered from `now` in constant time; nothing ticks. Port 61h: gate 2 and
//! speaker enables, NMI enables (kept), the refresh toggle (bit 4, every 18 clocks = 15.085 µs) and OUT 2 (bit 5).
//!
//! Leaves out: what the counters do before their first control word (the data sheet leaves it undefined; here they stand
//! still with OUT low), and the parity and channel-check NMI sources, which never report an error.
//!
//! The speaker's cone is pulled out while OUT 2 and the speaker enable are both high, at exact clocks; whoever drives it by the
//! enable alone is heard as well.
//!
//! Ranges: 0 = 40h–43h, 1 = 61h. Wires: OUT 0, the speaker's sound. Called by the board.

use crate::clock::{Rate, Tick};
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::sound::{SPAN, Sound, SoundLine};
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};

mod counter;
#[cfg(test)]
mod tests;

use counter::{Counter, Rise};

/// CLK pulses between two changes of the refresh toggle.
const REFRESH_PULSES: u64 = 18;
/// Port 61h: gate of counter 2.
const GATE_2: u8 = 1 << 0;
/// Port 61h: the speaker follows OUT 2.
const SPEAKER_DATA: u8 = 1 << 1;
/// Port 61h: the bits that a program can write.
const PORT_61_WRITABLE: u8 = 0x0f;
/// Port 61h: the refresh toggle.
const REFRESH_TOGGLE: u8 = 1 << 4;
/// Port 61h: the level of OUT 2.
const OUT_2: u8 = 1 << 5;

/// What the PC speaker does now.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Speaker {
    /// Whether it sounds.
    pub on: bool,
    /// The tone's frequency in thousandths of a hertz.
    pub millihertz: u64,
}

/// Volatile state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    counters: [Counter; 3],
    /// The writable bits of port 61h.
    port_61: u8,
}

/// The interval timer.
#[derive(Debug)]
pub struct Pit8254 {
    // Configuration: none.
    // Wires.
    out_0: IrqLine,
    sound: SoundLine,
    // Volatile state.
    state: State,
}

impl Pit8254 {
    /// A timer in its power-on state; `out_0` follows the output of counter 0.
    pub fn new(out_0: IrqLine) -> Pit8254 {
        Pit8254 { out_0, sound: SoundLine::detached(), state: power_on() }
    }

    /// The same, with a speaker that is heard.
    #[must_use]
    pub fn with_sound(mut self, sound: SoundLine) -> Pit8254 {
        self.sound = sound;
        self
    }

    /// The level of counter 2's output as of the last access.
    pub fn out_2(&self) -> bool {
        self.state.counters[2].out()
    }

    /// What the speaker does as of the last access.
    pub fn speaker(&self) -> Speaker {
        let enabled = self.state.port_61 & (GATE_2 | SPEAKER_DATA) == GATE_2 | SPEAKER_DATA;
        match self.state.counters[2].period() {
            Some(period) if enabled => Speaker { on: true, millihertz: 105_000_000_000 / (88 * u64::from(period)) },
            _ => Speaker::default(),
        }
    }

    /// Whether the speaker's cone is pulled out.
    fn cone(&self) -> bool {
        self.state.port_61 & SPEAKER_DATA != 0 && self.state.counters[2].out()
    }

    /// When the cone next moves by itself: the clock.
    fn next_move(&self) -> Option<u64> {
        let enabled = self.sound.is_connected() && self.state.port_61 & SPEAKER_DATA != 0;
        self.state.counters[2].next_change().filter(|_| enabled)
    }

    /// Says how the cone moved until `now`, and brings counter 2 there.
    fn sound_until(&mut self, now: Tick) {
        let to = Rate::PIT.cycles_at(now);
        // Who was not asked for longer than an event is away has lost the rest.
        let most = Rate::PIT.cycles_at(Tick(2 * SPAN));
        for _ in 0..most {
            let Some(change) = self.next_move().filter(|&change| change <= to) else { break };
            let before = self.cone();
            self.state.counters[2].advance(change);
            if self.cone() != before {
                self.sound.say(Sound::Cone { at: Rate::PIT.tick_of(change), out: self.cone() });
            }
        }
        self.state.counters[2].advance(to);
    }

    /// After an access at `now`, before which the cone was as `before` says.
    fn settle_sound(&mut self, now: Tick, before: bool) {
        if self.cone() != before {
            self.sound.say(Sound::Cone { at: now, out: self.cone() });
        }
        let said = Rate::PIT.tick_of(self.state.counters[2].now());
        self.sound.set_said(self.next_move().map(|_| said));
    }

    /// When counter 2 has to tell a listener how the cone moved.
    fn next_sound(&self) -> Option<Tick> {
        self.next_move().map(|_| Rate::PIT.tick_of(self.state.counters[2].now()).after(SPAN))
    }

    /// Catches one counter up with `now` and drives its wire.
    fn sync(&mut self, index: usize, now: Tick) -> &mut Counter {
        if index == 2 && self.sound.is_connected() {
            self.sound_until(now);
        }
        let counter = &mut self.state.counters[index];
        let was_high = counter.out();
        let rise = counter.advance(Rate::PIT.cycles_at(now));
        if index == 0 {
            if rise == Rise::Yes {
                // However many periods a stalled host slept through, there is one new edge.
                if was_high {
                    self.out_0.set(false);
                }
                self.out_0.set(true);
            }
            self.out_0.set(counter.out());
        }
        counter
    }

    fn write_control(&mut self, now: Tick, value: u8) {
        if value >> 6 == 3 {
            for index in (0..3).filter(|index| value >> (index + 1) & 1 != 0) {
                let counter = self.sync(index, now);
                if value & 0x20 == 0 {
                    counter.latch_count();
                }
                if value & 0x10 == 0 {
                    counter.latch_status();
                }
            }
            return;
        }
        let index = usize::from(value >> 6);
        let counter = self.sync(index, now);
        if value & 0x30 == 0 {
            counter.latch_count();
        } else {
            counter.write_control(value);
        }
        self.drive(index);
    }

    /// Drives the wire after a write that moves OUT without a clock.
    fn drive(&mut self, index: usize) {
        if index == 0 {
            self.out_0.set(self.state.counters[0].out());
        }
    }

    fn read_61(&mut self, now: Tick) -> u8 {
        let out_2 = self.sync(2, now).out();
        let toggle = (Rate::PIT.cycles_at(now) / REFRESH_PULSES) & 1 != 0;
        let mut value = self.state.port_61;
        if toggle {
            value |= REFRESH_TOGGLE;
        }
        if out_2 {
            value |= OUT_2;
        }
        value
    }
}

fn power_on() -> State {
    State { counters: [Counter::new(true), Counter::new(true), Counter::new(false)], port_61: 0 }
}

impl Device for Pit8254 {
    fn name(&self) -> &'static str {
        "pit8254"
    }

    fn reset(&mut self, cx: &mut Ctx<'_>) {
        self.sync(2, cx.now);
        let before = self.cone();
        self.state = power_on();
        for index in 0..3 {
            self.sync(index, cx.now);
        }
        self.settle_sound(cx.now, before);
    }

    fn port_read(&mut self, cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        if self.sound.is_connected() {
            self.sync(2, cx.now);
            self.settle_sound(cx.now, self.cone());
        }
        match (range, offset, width) {
            (0, 0..=2, Width::B1) => Ok(u32::from(self.sync(usize::from(offset), cx.now).read())),
            (0, 3, Width::B1) => Ok(0xff), // The control word register cannot be read.
            (1, 0, Width::B1) => Ok(u32::from(self.read_61(cx.now))),
            (0, 0..=3, _) | (1, 0, _) => Err(IoError::BadWidth),
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
        let byte = value as u8;
        self.sync(2, cx.now);
        let before = self.cone();
        match (range, offset, width) {
            (0, 0..=2, Width::B1) => {
                let index = usize::from(offset);
                self.sync(index, cx.now).write_count(byte);
                self.drive(index);
            }
            (0, 3, Width::B1) => self.write_control(cx.now, byte),
            (1, 0, Width::B1) => {
                self.sync(2, cx.now).set_gate(byte & GATE_2 != 0);
                self.state.port_61 = byte & PORT_61_WRITABLE;
            }
            (0, 0..=3, _) | (1, 0, _) => return Err(IoError::BadWidth),
            _ => return Err(IoError::NoSuchRegister),
        }
        self.settle_sound(cx.now, before);
        Ok(())
    }

    fn next_event(&self) -> Option<Tick> {
        let request = self.state.counters[0].next_change().map(|cycle| Rate::PIT.tick_of(cycle));
        request.into_iter().chain(self.next_sound()).min()
    }

    fn run_until(&mut self, cx: &mut Ctx<'_>) {
        self.sync(0, cx.now);
        if self.sound.is_connected() {
            self.sync(2, cx.now);
            self.settle_sound(cx.now, self.cone());
        }
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let mut state: State = restore_state(self.name(), state)?;
        state.counters.iter_mut().for_each(Counter::sanitise);
        self.state = state;
        self.drive(0);
        Ok(())
    }
}
