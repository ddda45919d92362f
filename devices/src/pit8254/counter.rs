//! One counter of the 8254: six modes, binary and BCD, in closed form.
//!
//! The counter is told the number of the current CLK pulse and catches up in constant time, however many pulses passed.
//! What a program does between pulses c and c+1 takes effect at pulse c+1, as in the data sheet's waveforms.

use serde::{Deserialize, Serialize};

/// The counting modes of the data sheet.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// 0: interrupt on terminal count.
    TerminalCount,
    /// 1: hardware-retriggerable one-shot.
    OneShot,
    /// 2: rate generator.
    RateGenerator,
    /// 3: square wave.
    SquareWave,
    /// 4: software-triggered strobe.
    SoftwareStrobe,
    /// 5: hardware-triggered strobe.
    HardwareStrobe,
}

/// Whether OUT went from low to high during an advance (also if it fell again since).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Rise {
    No,
    Yes,
}

impl Rise {
    fn of(rose: bool) -> Rise {
        if rose { Rise::Yes } else { Rise::No }
    }
    fn or(self, other: Rise) -> Rise {
        if self == Rise::Yes { self } else { other }
    }
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counter {
    /// The low six bits of the last control word: RW1–0, M2–0, BCD.
    control: u8,
    /// The count register CR as a number from 1; 0 until a count is written after the control word.
    count: u32,
    /// The first byte of a two-byte count.
    first_byte: Option<u8>,
    null_count: bool,
    /// The counting element CE. A freshly loaded full count is 65536 (10000), which reads as 0.
    element: u32,
    /// CE holds an odd count of mode 3: its high half lasts one pulse longer.
    odd: bool,
    /// The CLK pulse up to which all this is true.
    cycle: u64,
    /// The pulse that moves CR to CE.
    load_at: Option<u64>,
    /// CE was loaded since the control word.
    running: bool,
    /// OUT is still to move when CE gets to zero (modes 0, 1, 4, 5).
    armed: bool,
    gate: bool,
    out: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    /// The next read of a two-byte count gives the high byte.
    read_high: bool,
}

impl Counter {
    pub(super) fn new(gate: bool) -> Counter {
        Counter {
            control: 0x30,
            count: 0,
            first_byte: None,
            null_count: true,
            element: 0,
            odd: false,
            cycle: 0,
            load_at: None,
            running: false,
            armed: false,
            gate,
            out: false,
            latched_count: None,
            latched_status: None,
            read_high: false,
        }
    }

    pub(super) fn mode(&self) -> Mode {
        match self.control >> 1 & 7 {
            0 => Mode::TerminalCount,
            1 => Mode::OneShot,
            2 | 6 => Mode::RateGenerator,
            3 | 7 => Mode::SquareWave,
            4 => Mode::SoftwareStrobe,
            _ => Mode::HardwareStrobe,
        }
    }

    /// The CLK pulse that it has caught up with.
    pub(super) fn now(&self) -> u64 {
        self.cycle
    }

    pub(super) fn out(&self) -> bool {
        self.out
    }

    /// The number of pulses in a period, if OUT oscillates.
    pub(super) fn period(&self) -> Option<u32> {
        let periodic = matches!(self.mode(), Mode::RateGenerator | Mode::SquareWave);
        (periodic && self.running && self.gate && self.count > 1).then_some(self.count)
    }

    fn modulus(&self) -> u32 {
        if self.control & 1 != 0 { 10_000 } else { 65_536 }
    }

    /// A control word (other than a latch or read-back command).
    pub(super) fn write_control(&mut self, control: u8) {
        *self = Counter {
            control: control & 0x3f,
            element: self.element,
            cycle: self.cycle,
            gate: self.gate,
            ..Counter::new(self.gate)
        };
        self.out = self.mode() != Mode::TerminalCount;
    }

    /// A byte of the count.
    pub(super) fn write_count(&mut self, byte: u8) {
        let raw = match (self.control >> 4 & 3, self.first_byte) {
            (1, _) => u16::from(byte),
            (2, _) => u16::from(byte) << 8,
            (_, None) => {
                self.first_byte = Some(byte);
                if self.mode() == Mode::TerminalCount {
                    self.running = false;
                    self.load_at = None;
                    self.out = false;
                }
                return;
            }
            (_, Some(low)) => u16::from_le_bytes([low, byte]),
        };
        self.first_byte = None;
        let written_before = self.count != 0;
        let count = if self.control & 1 != 0 { from_bcd(raw) } else { u32::from(raw) };
        self.count = if count == 0 { self.modulus() } else { count };
        self.null_count = true;
        let next = Some(self.cycle.saturating_add(1));
        match self.mode() {
            Mode::TerminalCount => {
                self.out = false;
                self.load_at = next;
            }
            Mode::SoftwareStrobe => self.load_at = next,
            Mode::RateGenerator | Mode::SquareWave if !written_before => self.load_at = next,
            _ => {}
        }
    }

    /// A byte of the count or of what was latched.
    pub(super) fn read(&mut self) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.live_reading()).to_le_bytes();
        match self.control >> 4 & 3 {
            1 => {
                self.latched_count = None;
                low
            }
            2 => {
                self.latched_count = None;
                high
            }
            _ if self.read_high => {
                self.read_high = false;
                self.latched_count = None;
                high
            }
            _ => {
                self.read_high = true;
                low
            }
        }
    }

    /// CE as a program sees it.
    pub(super) fn reading(&self) -> u16 {
        self.digits(self.element)
    }

    /// What a read without a latch command sees. It takes a real bus longer than a CLK pulse takes, so that no program ever
    /// sees CE between the last byte of a count (or a rising gate) and the pulse that loads it: here, where accesses may
    /// come a nanosecond apart, a count that the next pulse loads is read at once. (Linux' calibration relies on it.)
    fn live_reading(&self) -> u16 {
        match (self.load_at, self.mode()) {
            (None, _) => self.reading(),
            (Some(_), Mode::SquareWave) => self.digits(self.count & !1),
            (Some(_), _) => self.digits(self.count),
        }
    }

    fn digits(&self, element: u32) -> u16 {
        let value = element % self.modulus();
        if self.control & 1 != 0 { to_bcd(value) } else { value as u16 }
    }

    pub(super) fn latch_count(&mut self) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.reading());
        }
    }

    pub(super) fn latch_status(&mut self) {
        if self.latched_status.is_none() {
            self.latched_status = Some(self.control | u8::from(self.null_count) << 6 | u8::from(self.out) << 7);
        }
    }

    pub(super) fn set_gate(&mut self, high: bool) {
        let rising = high && !self.gate;
        self.gate = high;
        let periodic = matches!(self.mode(), Mode::RateGenerator | Mode::SquareWave);
        if periodic && !high {
            self.out = true;
        }
        if rising && self.count != 0 && (periodic || matches!(self.mode(), Mode::OneShot | Mode::HardwareStrobe)) {
            self.load_at = Some(self.cycle.saturating_add(1));
        }
    }

    /// Catches up to CLK pulse `to`.
    pub(super) fn advance(&mut self, to: u64) -> Rise {
        let mut rise = Rise::No;
        if let Some(load) = self.load_at.filter(|&load| load <= to) {
            rise = self.count_pulses(load.saturating_sub(1).saturating_sub(self.cycle)).or(self.load());
            self.cycle = load;
            self.load_at = None;
        }
        rise = rise.or(self.count_pulses(to.saturating_sub(self.cycle)));
        self.cycle = self.cycle.max(to);
        rise
    }

    /// The CLK pulse at which OUT next changes if nothing else happens.
    pub(super) fn next_change(&self) -> Option<u64> {
        let Some(load) = self.load_at else { return self.next_change_counting() };
        let mut later = self.clone();
        later.advance(load);
        if later.out != self.out { Some(load) } else { later.next_change_counting() }
    }

    fn next_change_counting(&self) -> Option<u64> {
        if !self.running {
            return None;
        }
        let to_zero = u64::from(self.element).max(1);
        let pulses = match self.mode() {
            Mode::TerminalCount => (self.armed && self.gate).then_some(to_zero),
            Mode::OneShot => self.armed.then_some(to_zero),
            Mode::RateGenerator if !self.gate => None,
            Mode::RateGenerator if !self.out => Some(1),
            Mode::RateGenerator if to_zero > 1 => Some(to_zero - 1),
            Mode::RateGenerator => (self.count > 1).then_some(u64::from(self.count)),
            Mode::SquareWave if !self.gate || (self.out && self.count <= 1) => None,
            Mode::SquareWave => Some(self.half_left().max(1)),
            Mode::SoftwareStrobe | Mode::HardwareStrobe if !self.out => Some(1),
            Mode::SoftwareStrobe => (self.armed && self.gate).then_some(to_zero),
            Mode::HardwareStrobe => self.armed.then_some(to_zero),
        };
        pulses.map(|pulses| self.cycle.saturating_add(pulses))
    }

    /// CR to CE, at a CLK pulse.
    fn load(&mut self) -> Rise {
        let was_high = self.out;
        self.element = self.count;
        self.null_count = false;
        self.running = true;
        self.armed = true;
        match self.mode() {
            Mode::TerminalCount => {}
            Mode::OneShot => self.out = false,
            Mode::SquareWave => {
                self.load_half();
                self.out = true;
            }
            Mode::RateGenerator | Mode::SoftwareStrobe | Mode::HardwareStrobe => self.out = true,
        }
        Rise::of(self.out && !was_high)
    }

    /// `pulses` CLK pulses without a load from outside.
    fn count_pulses(&mut self, pulses: u64) -> Rise {
        if pulses == 0 || !self.running {
            return Rise::No;
        }
        match self.mode() {
            Mode::TerminalCount if !self.gate => Rise::No,
            Mode::TerminalCount | Mode::OneShot => {
                if !self.count_down(pulses) {
                    return Rise::No;
                }
                let was_high = std::mem::replace(&mut self.out, true);
                Rise::of(!was_high)
            }
            Mode::RateGenerator if self.gate => self.count_rate(pulses),
            Mode::SquareWave if self.gate => self.count_square(pulses),
            Mode::RateGenerator | Mode::SquareWave => Rise::No,
            Mode::SoftwareStrobe | Mode::HardwareStrobe => {
                // A strobe lasts one pulse, whatever the gate does.
                let ended = !std::mem::replace(&mut self.out, true);
                if self.mode() == Mode::SoftwareStrobe && !self.gate {
                    return Rise::of(ended);
                }
                let to_zero = u64::from(self.element);
                let struck = self.count_down(pulses);
                self.out = !(struck && pulses == to_zero);
                Rise::of(ended || (struck && self.out))
            }
        }
    }

    /// Counts down through zero to the full modulus; says whether an armed counter got to zero.
    fn count_down(&mut self, pulses: u64) -> bool {
        let element = u64::from(self.element);
        let hit = self.armed && pulses >= element;
        self.armed &= !hit;
        let modulus = u64::from(self.modulus());
        self.element = if pulses <= element {
            (element - pulses) as u32
        } else {
            ((modulus - (pulses - element) % modulus) % modulus) as u32
        };
        hit
    }

    /// Mode 2: …, 2, 1 (OUT low), N, N-1, …
    fn count_rate(&mut self, pulses: u64) -> Rise {
        let to_reload = u64::from(self.element).max(1);
        if pulses < to_reload {
            self.element -= pulses as u32;
            self.out = self.element != 1;
            return Rise::No;
        }
        let was_low = !self.out || to_reload > 1;
        let period = u64::from(self.count).max(1);
        let phase = (pulses - to_reload) % period;
        let wrapped = pulses - to_reload >= period && period > 1;
        self.element = (period - phase) as u32;
        self.null_count = false;
        self.out = !(phase > 0 && self.element == 1);
        Rise::of(was_low || wrapped)
    }

    /// Mode 3: CE counts by two, OUT toggles at each reload.
    fn count_square(&mut self, pulses: u64) -> Rise {
        let left = self.half_left();
        if pulses < left {
            self.element -= 2 * pulses as u32;
            return Rise::No;
        }
        let was_high = self.out;
        self.null_count = false;
        self.load_half();
        if self.count <= 1 {
            self.out = true;
            return Rise::of(!was_high);
        }
        self.out = !was_high;
        let (high, low) = (u64::from(self.count.div_ceil(2)), u64::from(self.count / 2));
        let since = pulses - left;
        let mut phase = since % (high + low);
        let this_half = if self.out { high } else { low };
        let rise = !was_high || since >= this_half;
        if phase >= this_half {
            phase -= this_half;
            self.out = !self.out;
        }
        self.element -= 2 * phase as u32;
        Rise::of(rise)
    }

    /// The pulses until the end of this half of the square wave.
    fn half_left(&self) -> u64 {
        u64::from(self.element / 2) + u64::from(self.odd && self.out)
    }

    fn load_half(&mut self) {
        self.odd = self.count & 1 != 0;
        self.element = self.count & !1;
    }

    /// Makes a restored counter one that arithmetic can trust.
    pub(super) fn sanitise(&mut self) {
        self.count = self.count.min(65_536);
        self.element = self.element.min(65_536);
        if self.running {
            self.count = self.count.max(1);
        }
    }
}

/// Four decimal digits; a digit above 9 counts as its value.
fn from_bcd(raw: u16) -> u32 {
    (0..4).rev().fold(0, |value, digit| value * 10 + u32::from(raw >> (4 * digit) & 15))
}

fn to_bcd(value: u32) -> u16 {
    (0..4).fold((0, value), |(bcd, rest), digit| (bcd | ((rest % 10) << (4 * digit)) as u16, rest / 10)).0
}
