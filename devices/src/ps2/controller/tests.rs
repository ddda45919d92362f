//! Tests of the keyboard controller as a guest sees it.

use super::*;
use crate::testing::{check_device, read, run_events, write};
use crate::wire::{PinChange, WireBundle};

const A20_PIN: u8 = 20;
const RESET_PIN: u8 = 21;

fn controller() -> (I8042, WireBundle) {
    let wires = WireBundle::new();
    let lines = I8042Wires {
        irq_keyboard: wires.line(1),
        irq_mouse: wires.line(12),
        a20: wires.line(A20_PIN),
        reset: wires.line(RESET_PIN),
    };
    let controller = I8042::new(I8042Config::default(), lines);
    wires.take_changes();
    (controller, wires)
}

struct Bench {
    chip: I8042,
    wires: WireBundle,
    ns: u64,
}

impl Bench {
    fn new() -> Bench {
        let (chip, wires) = controller();
        Bench { chip, wires, ns: 0 }
    }
    fn command(&mut self, byte: u8) {
        write(&mut self.chip, self.ns, 1, 0, byte);
    }
    fn data(&mut self, byte: u8) {
        write(&mut self.chip, self.ns, 0, 0, byte);
    }
    fn status(&mut self) -> u8 {
        read(&mut self.chip, self.ns, 1, 0)
    }
    /// Lets ten milliseconds pass and reads all bytes that come, with the status that each came under.
    fn drain(&mut self) -> Vec<(u8, u8)> {
        let end = self.ns + 10_000_000;
        let mut got = Vec::new();
        while self.ns < end {
            self.ns += 5_000;
            run_events(&mut self.chip, self.ns);
            let status = self.status();
            if status & STATUS_OUTPUT_FULL != 0 {
                got.push((read(&mut self.chip, self.ns, 0, 0), status));
            }
        }
        got
    }
    fn bytes(&mut self) -> Vec<u8> {
        self.drain().into_iter().map(|(byte, _)| byte).collect()
    }
}

/// Writes (true: to 64h), and what comes back.
type Exchange = (&'static [(bool, u8)], &'static [u8]);

#[test]
#[rustfmt::skip]
fn commands() {
    let table: &[Exchange] = &[
        (&[(true, 0x20)], &[0x61]),
        (&[(true, 0x60), (false, 0x47), (true, 0x20)], &[0x47]),
        (&[(true, 0x75), (false, 0x5a), (true, 0x35)], &[0x5a]),
        (&[(true, 0xa4)], &[0xf1]),
        (&[(true, 0xa5), (false, 0x10), (false, 0x11), (false, 0x00), (true, 0x20)], &[0x61]),
        (&[(true, 0xa8), (true, 0x20)], &[0x41]),
        (&[(true, 0xa8), (true, 0xa7), (true, 0x20)], &[0x61]),
        (&[(true, 0xa9)], &[0x00]),
        (&[(true, 0xaa)], &[0x55]),
        (&[(true, 0xaa), (true, 0x20)], &[0x55, 0x65]),
        (&[(true, 0xab)], &[0x00]),
        (&[(true, 0xad), (true, 0x20)], &[0x71]),
        (&[(true, 0xad), (true, 0xae), (true, 0x20)], &[0x61]),
        (&[(true, 0xad), (false, 0xee), (true, 0x20)], &[0x61, 0xee]),
        (&[(true, 0xc0)], &[0xb0]),
        (&[(true, 0xca)], &[0x01]),
        (&[(true, 0xcb), (false, 0x00), (true, 0xca)], &[0x01]),
        (&[(true, 0xd0)], &[0x03]),
        (&[(true, 0xd1), (false, 0xcd), (true, 0xd0)], &[0xcd]),
        (&[(true, 0xd2), (false, 0x1c)], &[0x1c]),
        (&[(true, 0xd3), (false, 0x77)], &[0x77]),
        (&[(true, 0xd4), (false, 0xf2)], &[0xfa, 0x00]),
        (&[(true, 0xe0)], &[0x01]),
        (&[(false, 0xf2)], &[0xfa, 0xab, 0x41]),
        (&[(false, 0xff)], &[0xfa, 0xaa]),
        (&[(true, 0xd4), (false, 0xff)], &[0xfa, 0xaa, 0x00]),
        (&[(true, 0xff), (true, 0x00), (true, 0xb0)], &[]),
    ];
    for (writes, expected) in table {
        let mut bench = Bench::new();
        for &(command, byte) in *writes {
            if command { bench.command(byte) } else { bench.data(byte) }
        }
        assert_eq!(&bench.bytes(), expected, "{writes:02x?}");
    }
}

#[test]
fn status_bits() {
    let mut bench = Bench::new();
    assert_eq!(bench.status(), 0x10);
    bench.command(0xaa);
    assert_eq!(bench.status(), 0x1c, "the answer takes a moment");
    assert_eq!(bench.drain(), [(0x55, 0x1d)]);
    bench.command(0xd3);
    bench.data(0x12);
    assert_eq!(bench.drain(), [(0x12, 0x35)]);
}

#[test]
fn interrupts_one_byte_at_a_time() {
    let mut bench = Bench::new();
    bench.command(0x60);
    bench.data(0x43);
    bench.chip.key(Tick(0), KeyCode::Up, Stroke::Down);
    run_events(&mut bench.chip, 100_000_000);
    let high = |pin| PinChange { pin, high: true };
    let low = |pin| PinChange { pin, high: false };
    assert_eq!(bench.wires.take_changes(), [high(1)]);
    assert_eq!(read(&mut bench.chip, 100_000_000, 0, 0), 0xe0);
    assert_eq!(bench.wires.take_changes(), [low(1)]);
    assert_eq!(bench.chip.next_event(), Some(Tick(100_200_000)));
    run_events(&mut bench.chip, 100_200_000);
    assert_eq!(bench.wires.take_changes(), [high(1)]);
    assert_eq!(read(&mut bench.chip, 100_200_000, 0, 0), 0x48);
    assert_eq!(read(&mut bench.chip, 100_200_000, 0, 0), 0x48, "the buffer keeps its last byte");
    bench.wires.take_changes();
    bench.ns = 101_000_000;
    bench.chip.key(Tick(bench.ns), KeyCode::Up, Stroke::Up);
    bench.drain();
    bench.command(0xd4);
    bench.data(0xf4);
    bench.drain();
    bench.wires.take_changes();
    bench.chip.mouse_move(Tick(bench.ns), [3, -4, 0], MouseButtons::RIGHT);
    assert_eq!(bench.drain(), [(0x0a, 0x31), (3, 0x31), (4, 0x31)]);
    assert_eq!(bench.wires.take_changes(), [high(12), low(12)].repeat(3));
}

#[test]
fn translation_and_held_ports() {
    let mut bench = Bench::new();
    bench.command(0xad);
    for stroke in [Stroke::Down, Stroke::Up] {
        bench.chip.key(Tick(bench.ns), KeyCode::A, stroke);
    }
    assert_eq!(bench.bytes(), []);
    bench.command(0xae);
    assert_eq!(bench.bytes(), [0x1e, 0x9e]);
    bench.command(0x60);
    bench.data(0x01);
    for stroke in [Stroke::Down, Stroke::Up] {
        bench.chip.key(Tick(bench.ns), KeyCode::A, stroke);
    }
    assert_eq!(bench.bytes(), [0x1c, 0xf0, 0x1c]);
    for byte in [0xed, 0x02] {
        bench.data(byte);
        assert_eq!(bench.bytes(), [0xfa]);
    }
    assert_eq!(bench.chip.leds(), 2);
}

#[test]
fn a20_and_reset() {
    let mut bench = Bench::new();
    assert!(bench.wires.level(A20_PIN));
    bench.command(0xd1);
    bench.data(0xdd);
    assert!(!bench.wires.level(A20_PIN));
    bench.command(0xdf);
    assert!(bench.wires.level(A20_PIN));
    bench.command(0xdd);
    assert!(!bench.wires.level(A20_PIN));
    bench.wires.take_changes();
    let pulse = [PinChange { pin: RESET_PIN, high: true }, PinChange { pin: RESET_PIN, high: false }];
    bench.command(0xfe);
    assert_eq!(bench.wires.take_changes(), pulse);
    bench.command(0xfd);
    assert_eq!(bench.wires.take_changes(), []);
    bench.command(0xd1);
    bench.data(0xdc);
    assert_eq!(bench.wires.take_changes(), pulse);
}

#[test]
fn any_traffic() {
    let make = || {
        let (mut chip, _) = controller();
        for key in [KeyCode::A, KeyCode::Pause, KeyCode::PrintScreen] {
            chip.key(Tick(0), key, Stroke::Down);
        }
        for byte in [0xd4, 0xf4] {
            write(&mut chip, 0, u8::from(byte == 0xd4), 0, byte);
        }
        chip.mouse_move(Tick(0), [1000, -1000, 10], MouseButtons::LEFT);
        chip
    };
    check_device(make, &[1, 1]);
}
