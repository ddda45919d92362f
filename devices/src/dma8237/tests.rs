//! Tests of the DMA controllers.

use super::*;
use crate::testing::{check_device, read, write};

/// One megabyte of memory whose bytes count up.
struct Memory(Vec<u8>);

impl Memory {
    fn new() -> Memory {
        Memory((0..0x10_0000u32).map(|at| (at ^ at >> 8) as u8).collect())
    }
}

impl Dma for Memory {
    fn read(&self, at: GuestPhys, into: &mut [u8]) {
        let at = at.0 as usize;
        into.copy_from_slice(&self.0[at..at + into.len()]);
    }
    fn write(&mut self, at: GuestPhys, from: &[u8]) {
        let at = at.0 as usize;
        self.0[at..at + from.len()].copy_from_slice(from);
    }
}

fn programmed(writes: &[(u8, u16, u8)]) -> Dma8237 {
    let mut dma = Dma8237::new();
    for &(range, offset, value) in writes {
        write(&mut dma, 0, range, offset, value);
    }
    dma
}

/// Channel 2 (the floppy's): mode, page, address and count, unmasked.
fn channel_2(mode: u8, page: u8, address: u16, count: u16) -> Dma8237 {
    let [al, ah] = address.to_le_bytes();
    let [cl, ch] = count.to_le_bytes();
    programmed(&[
        (0, 12, 0),
        (0, 11, mode | 2),
        (0, 4, al),
        (0, 4, ah),
        (0, 5, cl),
        (0, 5, ch),
        (2, 0, page),
        (0, 10, 2),
    ])
}

#[test]
fn registers() {
    let mut dma = channel_2(0x46, 3, 0x1234, 0x01ff);
    assert_eq!([4, 4, 5, 5].map(|offset| read(&mut dma, 0, 0, offset)), [0x34, 0x12, 0xff, 0x01]);
    read(&mut dma, 0, 0, 4);
    write(&mut dma, 0, 0, 12, 0);
    assert_eq!(read(&mut dma, 0, 0, 4), 0x34, "the flip-flop is clear");
    assert_eq!(read(&mut dma, 0, 0, 15), 0xfb);
    write(&mut dma, 0, 0, 15, 0x05);
    assert_eq!(read(&mut dma, 0, 0, 15), 0xf5);
    write(&mut dma, 0, 0, 14, 0);
    assert_eq!(read(&mut dma, 0, 0, 15), 0xf0);
    write(&mut dma, 0, 0, 9, 0x05);
    dma.set_request(3, true);
    assert_eq!(read(&mut dma, 0, 0, 8), 0xa0);
    write(&mut dma, 0, 0, 13, 0);
    assert_eq!((read(&mut dma, 0, 0, 15), read(&mut dma, 0, 0, 8)), (0xff, 0x80));
    for port in 0..15 {
        write(&mut dma, 0, 2, port, port as u8 + 0x40);
        assert_eq!(read(&mut dma, 0, 2, port), port as u8 + 0x40);
    }
    assert!(!dma.is_ready(8) && dma.kind(8).is_none() && dma.remaining(8) == 0);
}

#[test]
fn memory_to_device() {
    let mut memory = Memory::new();
    let mut dma = channel_2(0x48, 1, 0xfffe, 3);
    let mut buffer = [0; 8];
    assert_eq!(dma.kind(2), Some(TransferKind::ReadMemory));
    assert_eq!(dma.read_memory(&mut memory, 2, &mut buffer[..1]), Transferred { bytes: 1, terminal_count: false });
    assert_eq!(dma.remaining(2), 3);
    let rest = dma.read_memory(&mut memory, 2, &mut buffer[1..]);
    assert_eq!(rest, Transferred { bytes: 3, terminal_count: true });
    let wrapped = [0x1fffe, 0x1ffff, 0x10000, 0x10001].map(|at: usize| memory.0[at]);
    assert_eq!(buffer[..4], wrapped, "the address wraps inside its page");
    assert!(!dma.is_ready(2), "masked at terminal count");
    assert_eq!(read(&mut dma, 0, 0, 8), 0x04);
    assert_eq!(read(&mut dma, 0, 0, 8), 0x00);
    assert_eq!([5, 5].map(|offset| read(&mut dma, 0, 0, offset)), [0xff, 0xff]);
    assert_eq!(dma.read_memory(&mut memory, 2, &mut buffer), Transferred::default());
}

#[test]
fn device_to_memory() {
    let mut memory = Memory::new();
    // Auto-initialising, counting down.
    let mut dma = channel_2(0x74, 2, 0x0003, 1);
    assert_eq!(dma.write_memory(&mut memory, 2, b"abcd"), Transferred { bytes: 2, terminal_count: true });
    assert_eq!(memory.0[0x20002..0x20004], *b"ba");
    assert!(dma.is_ready(2));
    assert_eq!(dma.write_memory(&mut memory, 2, b"cd"), Transferred { bytes: 2, terminal_count: true });
    assert_eq!(memory.0[0x20002..0x20004], *b"dc");
    assert_eq!(dma.read_memory(&mut memory, 2, &mut [0; 2]), Transferred::default(), "the other direction");
    write(&mut dma, 0, 0, 8, COMMAND_DISABLE);
    assert_eq!(dma.write_memory(&mut memory, 2, b"cd"), Transferred::default());
}

#[test]
fn verify_touches_nothing() {
    let mut memory = Memory::new();
    let mut dma = channel_2(0x40, 0, 0x100, 9);
    assert_eq!(dma.write_memory(&mut memory, 2, &[9; 10]), Transferred { bytes: 10, terminal_count: true });
    assert!(memory.0 == Memory::new().0);
}

#[test]
fn word_channels() {
    let mut memory = Memory::new();
    // Channel 5: page 5 (bit 0 has no meaning), word address 8001h, three words.
    let mut dma = programmed(&[
        (1, 12 * 2, 0),
        (1, 11 * 2, 0x45),
        (1, 2 * 2, 0x01),
        (1, 2 * 2, 0x80),
        (1, 3 * 2, 2),
        (1, 3 * 2, 0),
        (2, 0xa, 5),
        (1, 10 * 2, 1),
    ]);
    assert_eq!(dma.remaining(5), 6);
    assert_eq!(dma.write_memory(&mut memory, 5, b"abcdefgh"), Transferred { bytes: 6, terminal_count: true });
    assert_eq!(memory.0[0x50002..0x50008], *b"abcdef");
}

#[test]
fn a_whole_page() {
    let mut memory = Memory::new();
    let mut dma = channel_2(0x58, 4, 0, 0xffff);
    let mut buffer = vec![0; 0x1_0000];
    let all = Transferred { bytes: 0x1_0000, terminal_count: true };
    assert_eq!(dma.read_memory(&mut memory, 2, &mut buffer), all);
    assert_eq!(buffer, memory.0[0x40000..0x50000]);
    assert_eq!(dma.read_memory(&mut memory, 2, &mut buffer), all);
}

#[test]
fn any_traffic() {
    check_device(Dma8237::new, &[16, 32, 15]);
}
