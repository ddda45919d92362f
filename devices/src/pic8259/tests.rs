//! Tests of the 8259A pair against its data sheet.

use super::*;
use crate::testing::{check_device, read, write};

/// One step of a scripted run.
#[derive(Debug)]
enum Do {
    /// Drives an input high, or low.
    High(u8),
    Low(u8),
    /// Writes a byte to a port (as numbered on the PC).
    Out(u16, u8),
    /// Expects a byte from a port.
    In(u16, u8),
    /// Expects INTR low, or high and this vector.
    Quiet,
    Ack(u8),
    /// An acknowledge cycle although INTR has fallen again.
    LateAck(u8),
}
use Do::*;

fn port(number: u16) -> (u8, u16) {
    match number {
        0x20 | 0x21 => (0, number - 0x20),
        0xa0 | 0xa1 => (1, number - 0xa0),
        _ => (2, number - 0x4d0),
    }
}

fn initialised(icw4: u8) -> Pic8259 {
    let mut pic = Pic8259::new();
    for (number, value) in [
        (0x20, 0x11),
        (0x21, 0x08),
        (0x21, 0x04),
        (0x21, icw4),
        (0xa0, 0x11),
        (0xa1, 0x70),
        (0xa1, 0x02),
        (0xa1, icw4 & !ICW4_SFNM),
    ] {
        let (range, offset) = port(number);
        write(&mut pic, 0, range, offset, value);
    }
    pic
}

fn run(name: &str, icw4: u8, script: &[Do]) {
    let mut pic = initialised(icw4);
    for (index, step) in script.iter().enumerate() {
        let here = format!("{name}, step {index}: {step:?}");
        match *step {
            High(pin) => pic.set_input(pin, true),
            Low(pin) => pic.set_input(pin, false),
            Out(number, value) => {
                let (range, offset) = port(number);
                write(&mut pic, 0, range, offset, value);
            }
            In(number, value) => {
                let (range, offset) = port(number);
                assert_eq!(read(&mut pic, 0, range, offset), value, "{here}");
            }
            Quiet => assert!(!pic.output(), "{here}"),
            Ack(vector) => {
                assert!(pic.output(), "{here}");
                assert_eq!(pic.acknowledge(), vector, "{here}");
            }
            LateAck(vector) => assert_eq!(pic.acknowledge(), vector, "{here}"),
        }
    }
}

const PLAIN: u8 = ICW4_8086;
const EOI: Do = Out(0x20, 0x20);

#[test]
#[rustfmt::skip]
fn scripts() {
    run("nesting and priority", PLAIN, &[
        High(4), High(3), Ack(0x0b), Quiet, High(1), Ack(0x09), Out(0x20, 0x0b), In(0x20, 0x0a), EOI, In(0x20, 0x08),
        Quiet, EOI, Ack(0x0c), EOI, Quiet,
    ]);
    run("masks", PLAIN, &[
        Out(0x21, 0xfb), High(4), Quiet, Out(0x20, 0x0a), In(0x20, 0x10), In(0x21, 0xfb), Out(0x21, 0xeb), Ack(0x0c), In(0x20, 0),
    ]);
    run("an edge needs a new edge", PLAIN, &[High(4), Ack(0x0c), EOI, Quiet, Low(4), High(4), Ack(0x0c)]);
    run("an edge goes with its input", PLAIN, &[High(4), Low(4), Quiet, LateAck(0x0f), Out(0x20, 0x0b), In(0x20, 0)]);
    run("level repeats until low", PLAIN, &[
        Out(0x4d0, 0xff), In(0x4d0, 0xf8), High(5), Ack(0x0d), Quiet, EOI, Ack(0x0d), Low(5), EOI, Quiet,
    ]);
    run("slave ELCR", PLAIN, &[Out(0x4d1, 0xff), In(0x4d1, 0xde), High(11), Ack(0x73), Out(0xa0, 0x20), EOI, Ack(0x73)]);
    run("cascade", PLAIN, &[
        High(10), High(12), High(3), Ack(0x72), Quiet, Out(0x20, 0x0b), In(0x20, 0x04), Out(0xa0, 0x0b), In(0xa0, 0x04),
        Out(0xa0, 0x20), EOI, Ack(0x74), Out(0xa0, 0x20), EOI, Ack(0x0b),
    ]);
    run("spurious IRQ 15 leaves the master in service", PLAIN, &[
        High(9), Out(0xa1, 0x02), Quiet, LateAck(0x0f), Out(0xa1, 0), Ack(0x71),
    ]);
    run("spurious 7 of the slave", PLAIN, &[
        Out(0x4d1, 0x02), High(9), High(10), Ack(0x71), Low(9), Out(0xa0, 0x20), EOI, Low(10), Quiet, LateAck(0x0f),
    ]);
    run("specific EOI", PLAIN, &[High(1), Ack(0x09), High(0), Ack(0x08), Out(0x20, 0x61), Out(0x20, 0x0b), In(0x20, 1), Out(0x20, 0x60), In(0x20, 0)]);
    run("rotate on non-specific EOI", PLAIN, &[
        High(4), Ack(0x0c), Out(0x20, 0xa0), Low(4), High(4), High(5), Ack(0x0d), EOI, Ack(0x0c),
    ]);
    run("rotate on specific EOI", PLAIN, &[High(4), Ack(0x0c), Out(0x20, 0xe4), Low(4), High(4), High(0), Ack(0x08), EOI, Ack(0x0c)]);
    run("set priority", PLAIN, &[Out(0x20, 0xc2), High(0), High(3), High(7), Ack(0x0b), EOI, Ack(0x0f), EOI, Ack(0x08)]);
    run("automatic EOI", PLAIN | ICW4_AEOI, &[High(4), High(5), Ack(0x0c), Ack(0x0d), Out(0x20, 0x0b), In(0x20, 0), Quiet]);
    run("automatic EOI with a slave", PLAIN | ICW4_AEOI, &[High(9), High(10), Ack(0x71), Ack(0x72), Quiet]);
    run("rotate on automatic EOI", PLAIN | ICW4_AEOI, &[
        Out(0x20, 0x80), High(1), High(3), Ack(0x09), Low(1), High(1), Ack(0x0b), Ack(0x09), Out(0x20, 0x00), Low(1), High(1), Ack(0x09),
        Low(1), High(1), High(3), Ack(0x09),
    ]);
    run("special mask mode", PLAIN, &[
        High(1), Ack(0x09), High(4), Quiet, Out(0x21, 0x02), Quiet, Out(0x20, 0x68), Ack(0x0c), EOI, Out(0x20, 0x0b), In(0x20, 0x02),
        EOI, In(0x20, 0x02), Out(0x20, 0x48), EOI, In(0x20, 0),
    ]);
    run("without SFNM the slave's own nesting waits", PLAIN, &[High(12), Ack(0x74), High(9), Quiet, Out(0xa0, 0x20), EOI, Ack(0x71)]);
    run("special fully nested mode", PLAIN | ICW4_SFNM, &[High(12), Ack(0x74), High(5), Quiet, High(9), Ack(0x71), Quiet]);
    run("poll", PLAIN, &[
        High(4), Out(0x20, 0x0c), In(0x20, 0x84), Quiet, Out(0x20, 0x0b), In(0x20, 0x10), EOI, Out(0x20, 0x0c), In(0x21, 0), In(0x20, 0),
    ]);
    run("poll the slave", PLAIN, &[High(9), Out(0x20, 0x0c), In(0x20, 0x82), Out(0xa0, 0x0c), In(0xa0, 0x81)]);
    run("ICW1 forgets edges and mask", PLAIN, &[
        Out(0x21, 0x40), High(4), Out(0x20, 0x13), Quiet, Out(0x21, 0x20), Out(0x21, 0x01), In(0x21, 0), Quiet, Low(4), High(4), Ack(0x24),
    ]);
    run("MCS-80 mode", PLAIN, &[Out(0x20, 0xb6), Out(0x21, 0x12), High(3), Ack(0xac)]);
    run("MCS-80 mode, interval 8", PLAIN, &[Out(0x20, 0xf2), Out(0x21, 0x12), High(3), Ack(0xd8)]);
    run("no slave with that number", PLAIN, &[
        Out(0xa0, 0x11), Out(0xa1, 0x70), Out(0xa1, 0x05), Out(0xa1, 0x01), High(9), Ack(0xff),
    ]);
    run("no INT in the middle of an initialisation", PLAIN, &[Out(0x4d0, 0x20), High(5), Out(0x20, 0x11), Quiet, Out(0x21, 8), Out(0x21, 4), Quiet, Out(0x21, 1), Ack(0x0d)]);
}

#[test]
fn any_traffic() {
    check_device(Pic8259::new, &[2, 2, 2]);
}
