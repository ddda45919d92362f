//! Tests of the 8254: every mode against a model that steps one clock at a time, and the PC's use of the chip.

use super::*;
use crate::sound::SoundBundle;
use crate::testing::{at, check_device, read, run_events, write};
use crate::wire::WireBundle;
use proptest::prelude::*;

/// A counter as the data sheet tells it: `clock` is one CLK pulse, everything else happens between pulses.
struct Model {
    mode: u8,
    modulus: u32,
    cr: u32,
    ce: u32,
    out: bool,
    gate: bool,
    load: bool,
    running: bool,
    armed: bool,
    null: bool,
    /// Mode 3: one more clock in this half.
    extra: bool,
}

impl Model {
    fn new(mode: u8, modulus: u32) -> Model {
        Model {
            mode,
            modulus,
            cr: 0,
            ce: 0,
            out: mode != 0,
            gate: true,
            load: false,
            running: false,
            armed: false,
            null: true,
            extra: false,
        }
    }
    fn write(&mut self, count: u32) {
        let first = self.cr == 0;
        self.cr = if count == 0 { self.modulus } else { count };
        self.null = true;
        match self.mode {
            0 => {
                self.out = false;
                self.load = true;
            }
            4 => self.load = true,
            2 | 3 => self.load |= first,
            _ => {}
        }
    }
    fn gate(&mut self, high: bool) {
        if high && !self.gate && self.cr != 0 && matches!(self.mode, 1 | 2 | 3 | 5) {
            self.load = true;
        }
        if !high && matches!(self.mode, 2 | 3) {
            self.out = true;
        }
        self.gate = high;
    }
    fn reload(&mut self) {
        self.null = false;
        self.ce = self.cr;
        if self.mode == 3 {
            self.ce &= !1;
            self.extra = self.cr & 1 != 0 && self.out;
        }
    }
    fn clock(&mut self) {
        if matches!(self.mode, 4 | 5) {
            self.out = true;
        }
        if self.load {
            self.load = false;
            self.running = true;
            self.armed = true;
            match self.mode {
                0 | 1 => self.out = false,
                _ => self.out = true,
            }
            return self.reload();
        }
        if !self.running || (!self.gate && matches!(self.mode, 0 | 2 | 3 | 4)) {
            return;
        }
        match self.mode {
            2 if self.ce == 1 => {
                self.out = true;
                self.reload();
            }
            2 => {
                self.ce -= 1;
                self.out = self.ce != 1;
            }
            3 if self.ce > 2 || (self.ce == 2 && self.extra) => self.ce -= 2,
            3 if self.ce == 0 && self.extra && self.cr == 1 => self.reload(),
            3 => {
                self.out = !self.out || self.cr == 1;
                self.reload();
            }
            _ => {
                self.ce = if self.ce == 0 { self.modulus - 1 } else { self.ce - 1 };
                if self.ce == 0 && self.armed {
                    self.armed = false;
                    self.out = self.mode < 4;
                }
            }
        }
    }
}

/// Something a program or the gate does between two clocks.
#[derive(Copy, Clone, Debug)]
enum Act {
    Nothing,
    Count(u16),
    Gate(bool),
}

fn to_bcd(value: u32) -> u16 {
    (0..4).map(|digit| (value / 10u32.pow(digit) % 10) << (4 * digit)).sum::<u32>() as u16
}

/// Runs counter and model side by side; `strides` are the clocks between looks, so that the closed form has to jump.
fn compare(mode: u8, bcd: bool, script: &[(u64, Act)]) {
    let modulus = if bcd { 10_000 } else { 65_536 };
    let mut counter = Counter::new(true);
    counter.write_control(0x30 | mode << 1 | u8::from(bcd));
    let mut model = Model::new(mode, modulus);
    let mut cycle = 0;
    for (index, &(stride, act)) in script.iter().enumerate() {
        let mut rose = false;
        let predicted = counter.next_change();
        let mut actual = None;
        for step in 1..=stride {
            let before = model.out;
            model.clock();
            rose |= model.out && !before;
            if model.out != before && actual.is_none() {
                actual = Some(cycle + step);
            }
        }
        cycle += stride;
        let here = format!("mode {mode} bcd {bcd} cycle {cycle} step {index} of {script:?}");
        assert_eq!(predicted.filter(|&change| change <= cycle), actual, "next change: {here}");
        assert_eq!(counter.advance(cycle), if rose { Rise::Yes } else { Rise::No }, "rise: {here}");
        match act {
            Act::Nothing => {}
            Act::Count(count) => {
                let count = u32::from(count) % modulus;
                let raw = if bcd { to_bcd(count) } else { count as u16 };
                let [low, high] = raw.to_le_bytes();
                if mode == 0 {
                    // The first byte stops the counter until the second.
                    model.running = false;
                    model.out = false;
                }
                counter.write_count(low);
                counter.write_count(high);
                model.write(count);
            }
            Act::Gate(high) => {
                counter.set_gate(high);
                model.gate(high);
            }
        }
        assert_eq!(counter.out(), model.out, "OUT: {here}");
        let expected = if bcd { to_bcd(model.ce) } else { model.ce as u16 };
        assert_eq!(counter.reading(), expected, "CE: {here}");
        counter.latch_status();
        let status = counter.read();
        assert_eq!(status & 0xc0, u8::from(model.out) << 7 | u8::from(model.null) << 6, "status: {here}");
    }
}

#[test]
fn every_mode_clock_by_clock() {
    for mode in 0..6 {
        for bcd in [false, true] {
            for count in [1, 2, 3, 4, 5, 8, 9, 10, 99, 100] {
                let mut script = vec![(3, Act::Count(count))];
                script.extend([(1, Act::Nothing); 25]);
                script.extend([(2, Act::Gate(false)), (3, Act::Gate(true))]);
                script.extend([(1, Act::Nothing); 25]);
                script.extend([(7, Act::Count(6)), (60, Act::Nothing), (1, Act::Gate(false)), (1, Act::Count(3))]);
                script.extend([(5, Act::Nothing), (9, Act::Gate(true)), (300, Act::Nothing), (70_000, Act::Nothing)]);
                compare(mode, bcd, &script);
            }
            compare(
                mode,
                bcd,
                &[(1, Act::Count(0)), (1, Act::Gate(false)), (1, Act::Gate(true)), (200_001, Act::Nothing)],
            );
        }
    }
}

#[test]
fn any_script_clock_by_clock() {
    let act = prop_oneof![
        Just(Act::Nothing),
        (0u16..12).prop_map(Act::Count),
        any::<u16>().prop_map(Act::Count),
        any::<bool>().prop_map(Act::Gate)
    ];
    let script = proptest::collection::vec((prop_oneof![0u64..8, 0u64..300, 0u64..70_000], act), 1..30);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) };
    proptest!(config, |(mode in 0u8..6, bcd: bool, script in script)| compare(mode, bcd, &script));
}

/// One period of each mode's OUT as drawn in the data sheet, one character a clock, from the clock after the count.
#[test]
fn waveforms() {
    #[rustfmt::skip]
    let table = [
        (0, 4, "lllllhhhhhhh"),
        (2, 3, "hhhlhhlhhlhh"),
        (3, 4, "hhhllhhllhhl"),
        (3, 5, "hhhhllhhhllh"),
        (4, 3, "hhhhlhhhhhhh"),
    ];
    for (mode, count, wave) in table {
        let mut counter = Counter::new(true);
        counter.write_control(0x10 | mode << 1);
        counter.write_count(count);
        let seen: String = (0u64..12)
            .map(|cycle| {
                counter.advance(cycle);
                if counter.out() { 'h' } else { 'l' }
            })
            .collect();
        assert_eq!(seen, wave, "mode {mode} count {count}");
    }
}

fn pit() -> (Pit8254, WireBundle) {
    let wires = WireBundle::new();
    (Pit8254::new(wires.line(0)), wires)
}

/// The time of CLK pulse `cycle`.
fn ns(cycle: u64) -> u64 {
    Rate::PIT.tick_of(cycle).0
}

#[test]
fn rate_generator_interrupts_at_the_exact_rate() {
    let (mut pit, wires) = pit();
    for (offset, value) in [(3, 0x34), (0, 0x9c), (0, 0x2e)] {
        write(&mut pit, 0, 0, offset, value); // 11932 clocks: Linux at HZ=100
    }
    wires.take_changes();
    run_events(&mut pit, 10_000_000_000);
    let rises = wires.take_changes().iter().filter(|change| change.high).count() as u64;
    assert_eq!(rises, (Rate::PIT.cycles_at(Tick(10_000_000_000)) - 1) / 11_932);
    assert_eq!(pit.next_event(), Some(Tick(ns(1 + 11_932 * (rises + 1) - 1))));
}

#[test]
fn a_stalled_host_gets_one_edge() {
    let (mut pit, wires) = pit();
    for (offset, value) in [(3, 0x34), (0, 0x00), (0, 0x10)] {
        write(&mut pit, 0, 0, offset, value);
    }
    wires.take_changes();
    at(Tick(5_000_000_000), |cx| pit.run_until(cx));
    let changes = wires.take_changes();
    assert_eq!(changes.iter().filter(|change| change.high).count(), 1, "{changes:?}");
    assert!(wires.level(0));
}

#[test]
fn latch_and_read_back() {
    let (mut pit, _) = pit();
    let script = [(3, 0x34), (0, 0x34), (0, 0x12)]; // mode 2, 1234h
    for (offset, value) in script {
        write(&mut pit, 0, 0, offset, value);
    }
    write(&mut pit, 0, 0, 3, 0xc2); // status and count of counter 0, before the load
    assert_eq!([0, 0, 0].map(|offset| read(&mut pit, 0, 0, offset)), [0xf4, 0, 0]);
    write(&mut pit, ns(5), 0, 3, 0x00); // latch
    write(&mut pit, ns(9), 0, 3, 0x00); // ignored: still latched
    assert_eq!(read(&mut pit, ns(20), 0, 0), 0x30);
    assert_eq!(read(&mut pit, ns(20), 0, 0), 0x12);
    assert_eq!(read(&mut pit, ns(21), 0, 0), 0x20); // live again
    write(&mut pit, ns(21), 0, 3, 0xe2); // status only
    assert_eq!(read(&mut pit, ns(21), 0, 0), 0xb4);
    assert_eq!(read(&mut pit, ns(22), 0, 0), 0x12); // the flip-flop was at the high byte
    write(&mut pit, ns(22), 0, 3, 0x24); // MSB only
    write(&mut pit, ns(22), 0, 0, 0x01);
    assert_eq!(read(&mut pit, ns(24), 0, 0), 0x00);
    assert_eq!(read(&mut pit, ns(24), 0, 3), 0xff);
}

#[test]
fn port_61h() {
    let (mut pit, _) = pit();
    assert_eq!(read(&mut pit, ns(17), 1, 0), 0x00);
    assert_eq!(read(&mut pit, ns(18), 1, 0), 0x10);
    assert_eq!(read(&mut pit, ns(36), 1, 0), 0x00);
    // Linux's calibration: gate on, speaker off, mode 0, wait for OUT 2.
    write(&mut pit, ns(36), 1, 0, 0xfd);
    for (offset, value) in [(3, 0xb0), (2, 0x64), (2, 0x00)] {
        write(&mut pit, ns(36), 0, offset, value);
    }
    assert_eq!(read(&mut pit, ns(136), 1, 0) & 0x2f, 0x0d);
    assert_eq!(read(&mut pit, ns(137), 1, 0) & 0x2f, 0x2d);
    assert!(pit.out_2());
    assert_eq!(pit.speaker(), Speaker::default());
    // A440.
    for (range, offset, value) in [(0, 3, 0xb6), (0, 2, 0x98), (0, 2, 0x0a), (1, 0, 0x03)] {
        write(&mut pit, ns(200), range, offset, value);
    }
    read(&mut pit, ns(202), 1, 0);
    assert_eq!(pit.speaker(), Speaker { on: true, millihertz: 439_963 });
}

#[test]
fn a_count_is_read_back_before_the_pulse_that_loads_it() {
    let (mut pit, _) = pit();
    // Counter 2, mode 0: accesses come faster than pulses, as on no real bus.
    for (offset, value) in [(3, 0xb0), (2, 0xff), (2, 0xff)] {
        write(&mut pit, 0, 0, offset, value);
    }
    write(&mut pit, 0, 1, 0, 0x01);
    assert_eq!([2, 2].map(|offset| read(&mut pit, 1, 0, offset)), [0xff, 0xff]);
    assert_eq!([2, 2].map(|offset| read(&mut pit, ns(3), 0, offset)), [0xfd, 0xff]);
}

#[test]
fn any_traffic() {
    check_device(|| pit().0, &[4, 1]);
}

/// A timer with a speaker that somebody hears, and the clock of each of its moves.
fn heard() -> (Pit8254, SoundBundle) {
    let bundle = SoundBundle::new();
    (Pit8254::new(crate::wire::IrqLine::detached()).with_sound(bundle.line()), bundle)
}

fn moves(bundle: &SoundBundle, now: u64) -> Vec<(u64, bool)> {
    let heard = bundle.take(Tick(now)).unwrap_or_default();
    let cone = |sound| match sound {
        Sound::Cone { at, out } => (at.0, out),
        Sound::Pcm { .. } => panic!("a speaker has no stream"),
    };
    heard.sounds.into_iter().map(cone).collect()
}

#[test]
fn a_tone_moves_the_cone_at_exact_clocks() {
    let (mut pit, bundle) = heard();
    write(&mut pit, 0, 1, 0, 0);
    write(&mut pit, 0, 0, 3, 0xB6);
    write(&mut pit, 0, 0, 2, 0xE8);
    write(&mut pit, 0, 0, 2, 0x03); // 1000 clocks a period
    assert_eq!(pit.next_event(), None, "nothing is heard yet");
    write(&mut pit, 100, 1, 0, 3);
    run_events(&mut pit, 100_000_000);
    let tone = moves(&bundle, 100_000_000);
    // The gate rises at clock 0, the count is loaded at clock 1, and OUT is high until clock 501.
    assert_eq!(tone[0], (100, true));
    for (number, &(at, out)) in tone.iter().enumerate().skip(1) {
        assert_eq!((at, out), (Rate::PIT.tick_of(1 + 500 * number as u64).0, number % 2 == 0), "{number}");
    }
    assert_eq!(tone.len() as u64, 1 + (Rate::PIT.cycles_at(Tick(100_000_000)) - 1) / 500);
    assert_eq!(bundle.take(Tick(u64::MAX)), None);
    let polled = (100_000_000..160_000_000).step_by(20_000);
    polled.for_each(|now| {
        read(&mut pit, now, 1, 0);
    });
    let until = bundle.take(Tick(160_000_000)).unwrap().until.0;
    assert!(until > 159_000_000, "a guest that polls keeps nobody waiting: {until}");
    write(&mut pit, 160_000_000, 1, 0, 0);
    assert_eq!(pit.next_event(), None);
    let end = moves(&bundle, 160_000_000);
    assert!(end.last().is_none_or(|&(_, out)| !out), "the cone is back: {end:?}");
}

#[test]
fn the_enable_alone_moves_the_cone() {
    let (mut pit, bundle) = heard();
    write(&mut pit, 0, 0, 3, 0xB6); // OUT 2 is high, and the gate keeps it so.
    for (at, value) in [(1000, 2), (2000, 0), (3000, 2), (4000, 2), (5000, 0)] {
        write(&mut pit, at, 1, 0, value);
    }
    assert_eq!(moves(&bundle, 9000), [(1000, true), (2000, false), (3000, true), (5000, false)]);
}

#[test]
fn the_fastest_square_is_bounded() {
    let (mut pit, bundle) = heard();
    for (range, offset, value) in [(0, 3, 0xB6), (0, 2, 2), (0, 2, 0), (1, 0, 3)] {
        write(&mut pit, 0, range, offset, value);
    }
    read(&mut pit, 3_600_000_000_000, 1, 0);
    assert!(moves(&bundle, 0).len() < 25_000);
}

#[test]
fn any_traffic_with_a_listener() {
    check_device(|| heard().0, &[4, 1]);
}
