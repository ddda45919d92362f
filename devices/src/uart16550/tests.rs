//! Tests of the 16550A against its data sheet.

use super::*;
use crate::testing::{at, check_device, read, run_events, write};
use crate::wire::WireBundle;

/// One step of a scripted run.
#[derive(Debug)]
enum Do {
    Out(u16, u8),
    In(u16, u8),
    /// The host sends.
    Host(&'static [u8]),
    HostBreak,
    Modem(u8),
    /// Characters' times pass.
    Chars(u64),
    /// The wire is high, or low.
    High,
    Low,
    /// The host has got exactly this.
    Sent(&'static [u8]),
}
use Do::*;

/// A character at the reset divisor with 8 data bits: 10 bits × 16 × 12.
const CHARACTER: u64 = 1_920;

fn run(name: &str, pace: Pace, script: &[Do]) {
    let wires = WireBundle::new();
    let mut uart = Uart16550::new(UartConfig { pace }, wires.line(4));
    let mut cycle = 0;
    write(&mut uart, 0, 0, 3, 0x03);
    write(&mut uart, 0, 0, 4, 0x08);
    read(&mut uart, 0, 0, 6);
    for (index, step) in script.iter().enumerate() {
        let here = format!("{name}, step {index}: {step:?}");
        let ns = CLOCK.tick_of(cycle).0;
        match *step {
            Out(offset, value) => write(&mut uart, ns, 0, offset, value),
            In(offset, value) => assert_eq!(read(&mut uart, ns, 0, offset), value, "{here}"),
            Host(bytes) => uart.receive(Tick(ns), bytes),
            HostBreak => uart.receive_break(Tick(ns)),
            Modem(inputs) => uart.set_modem_inputs(ModemInputs(inputs)),
            Chars(count) => {
                cycle += count * CHARACTER;
                run_events(&mut uart, CLOCK.tick_of(cycle).0);
            }
            High => assert!(wires.level(4), "{here}"),
            Low => assert!(!wires.level(4), "{here}"),
            Sent(bytes) => assert_eq!(uart.take_output(), bytes, "{here}"),
        }
    }
}

#[test]
#[rustfmt::skip]
fn scripts() {
    use Pace::{Baud, Instant};
    run("reset values", Instant, &[In(1, 0), In(2, 1), In(3, 3), In(4, 8), In(5, 0x60), In(6, 0xb0), In(7, 0), Low]);
    run("scratch, masks, divisor", Instant, &[
        Out(7, 0x5a), In(7, 0x5a), Out(1, 0xff), In(1, 0x0f), Out(4, 0xff), In(4, 0x1f), Out(3, 0x83), Out(0, 1), Out(1, 2), In(0, 1), In(1, 2),
        Out(3, 3), In(1, 0x0f),
    ]);
    run("send at once", Instant, &[Out(0, b'H'), Out(0, b'i'), In(5, 0x60), Sent(b"Hi"), Low]);
    run("THRE interrupt", Instant, &[
        Out(1, 2), High, In(2, 0x02), Low, In(2, 0x01), Out(0, b'x'), High, In(2, 0x02), Low, Out(1, 0), Out(1, 2), High, Out(1, 0), Low,
    ]);
    run("priorities", Instant, &[
        Out(1, 0x0f), Out(0, b'x'), Modem(0xa0), Host(b"a"), HostBreak, In(2, 0x04), In(0, b'a'), In(2, 0x06), In(5, 0x71), In(2, 0x04), In(0, 0),
        In(2, 0x02), In(2, 0x00), In(6, 0xa1), In(2, 0x01), Low,
    ]);
    run("no gate, no interrupt", Instant, &[Out(4, 0), Out(1, 1), Host(b"a"), Low, Out(4, 8), High]);
    run("nothing is lost without FIFOs", Instant, &[
        Out(1, 1), Host(b"abc"), High, In(0, b'a'), High, In(0, b'b'), In(5, 0x61), In(0, b'c'), Low, In(5, 0x60), In(0, 0),
    ]);
    run("trigger level and time-out", Instant, &[
        Out(2, 0x81), Out(1, 1), In(2, 0xc1), Host(b"1234567"), Low, Chars(3), Host(b"8"), High, In(2, 0xc4), In(0, b'1'), Low, Chars(3), Low, Chars(1),
        High, In(2, 0xcc), In(0, b'2'), Low, Chars(4), In(2, 0xcc), Out(2, 0x83), Low, In(5, 0x60),
    ]);
    run("trigger levels", Instant, &[
        Out(1, 1), Out(2, 0x01), Host(b"1"), High, Out(2, 0x41), Low, Host(b"23"), Low, Host(b"4"), High, Out(2, 0xc1), Low,
        Host(b"567890123"), Low, Host(b"4"), High, In(2, 0xc4),
    ]);
    run("a break travels through the FIFO", Instant, &[
        Out(2, 1), Out(1, 4), Host(b"a"), HostBreak, In(5, 0xe1), Low, In(0, b'a'), High, In(2, 0xc6), In(5, 0xf1), Low, In(5, 0x61), In(0, 0),
    ]);
    run("loopback data", Instant, &[
        Out(4, 0x18), Host(b"h"), Out(0, 0xa5), In(5, 0x61), In(0, 0xa5), In(5, 0x60), Sent(b""), Out(4, 8), In(0, b'h'),
    ]);
    run("loopback overrun", Instant, &[
        Out(4, 0x18), Out(1, 4), Out(0, 1), Out(0, 2), High, In(2, 0x06), In(5, 0x63), In(0, 2), Out(2, 1),
        Out(0, 1), Out(0, 2), Out(0, 3), Out(0, 4), Out(0, 5), Out(0, 6), Out(0, 7), Out(0, 8), Out(0, 9), Out(0, 10), Out(0, 11), Out(0, 12),
        Out(0, 13), Out(0, 14), Out(0, 15), Out(0, 16), In(5, 0x61), Out(0, 17), In(5, 0x63), In(0, 1),
    ]);
    run("loopback modem lines", Instant, &[
        Out(4, 0x10), In(6, 0x0b), Out(4, 0x11), In(6, 0x22), Out(4, 0x12), In(6, 0x13), Out(4, 0x14), In(6, 0x41), Out(4, 0x18), In(6, 0x8c),
        Out(4, 0x1f), In(6, 0xf3), Out(4, 0x08), In(6, 0xb4),
    ]);
    run("loopback break", Instant, &[Out(4, 0x18), Out(3, 0x43), In(5, 0x71), In(0, 0)]);
    run("ring has one delta", Instant, &[Modem(0xf0), In(6, 0xf0), Modem(0xb0), In(6, 0xb4), In(6, 0xb0)]);
    run("short words", Instant, &[Out(3, 0), Out(0, 0xff), Sent(b"\x1f"), Host(b"\xff"), In(0, 0x1f)]);
    run("paced holding register", Baud, &[
        Out(1, 2), In(2, 2), Out(0, b'a'), In(5, 0x20), High, Out(0, b'b'), Low, In(5, 0x00), Sent(b""), Chars(1), Sent(b"a"), In(5, 0x20), High,
        Chars(1), Sent(b"b"), In(5, 0x60), In(2, 2), Low,
    ]);
    run("paced FIFO", Baud, &[
        Out(2, 1), Out(1, 2), In(2, 0xc2), Out(0, b'a'), In(2, 0xc2), Out(0, b'b'), Out(0, b'c'), Chars(1), Low, In(5, 0), Chars(1), High,
        In(5, 0x20), Sent(b"ab"), Chars(1), Sent(b"c"), In(5, 0x60),
    ]);
    run("paced clear", Baud, &[Out(2, 1), Out(0, b'a'), Out(0, b'b'), Out(2, 5), In(5, 0x20), Chars(3), Sent(b"a"), In(5, 0x60)]);
    run("paced input", Baud, &[
        Out(2, 0x41), Out(1, 1), Host(b"abcde"), In(5, 0x60), Chars(1), In(5, 0x61), Chars(2), Low, Chars(1), High, In(0, b'a'), Low, Chars(1), High,
        In(0, b'b'), In(0, b'c'), In(0, b'd'), In(0, b'e'), In(5, 0x60),
    ]);
    run("paced input waits for the guest", Baud, &[Host(b"ab"), Chars(9), In(5, 0x61), In(0, b'a'), Chars(1), In(5, 0x61), In(0, b'b')]);
    run("FIFO bits need the enable bit", Instant, &[Out(2, 0xc6), In(2, 0x01)]);
}

#[test]
fn a_character_takes_its_exact_time() {
    // 115200 8N1: 1000 characters in 10000 / 115200 s.
    let mut uart = Uart16550::new(UartConfig { pace: Pace::Baud }, IrqLine::detached());
    for (offset, value) in [(3, 0x83), (0, 1), (1, 0), (3, 3), (2, 1)] {
        write(&mut uart, 0, 0, offset, value);
    }
    let mut now = 0;
    let mut written = 0;
    while uart.state.outgoing.len() < 1_000 {
        while written < 1_000 && read(&mut uart, now, 0, 5) & LSR_THR_EMPTY != 0 {
            write(&mut uart, now, 0, 0, written as u8);
            written += 1;
        }
        now = uart.next_event().expect("on its way").0;
        at(Tick(now), |cx| uart.run_until(cx));
    }
    assert_eq!(now, 10_000_000_000_000_u64.div_ceil(115_200));
}

#[test]
fn formats() {
    #[rustfmt::skip]
    let table = [(0x03, 20), (0x00, 14), (0x04, 15), (0x07, 22), (0x0b, 22), (0x1a, 20), (0x0f, 24)];
    for (lcr, half_bits) in table {
        let state = State { lcr, divisor: 3, ..power_on(ModemInputs::OPEN) };
        assert_eq!(state.character_cycles(), half_bits * 8 * 3, "LCR {lcr:02x}");
    }
}

#[test]
fn a_restored_arrival_of_nothing_never_comes() {
    let mut uart = Uart16550::new(UartConfig { pace: Pace::Baud }, IrqLine::detached());
    uart.state.arrival = Some(0);
    let saved = uart.save();
    uart.restore(&saved).unwrap();
    assert_eq!((uart.state.arrival, uart.next_event()), (Some(0), None));
}

#[test]
fn any_traffic() {
    for pace in [Pace::Baud, Pace::Instant] {
        let make = || {
            let mut uart = Uart16550::new(UartConfig { pace }, IrqLine::detached());
            uart.receive(Tick(0), b"The quick brown fox jumps over the lazy dog");
            uart
        };
        check_device(make, &[8]);
    }
}
