//! The controller as a driver uses it: reset, seek, read, write, format, change of disks.

use super::*;
use crate::block::testing::{Scripted, pattern};
use crate::dma8237::Transferred;
use crate::testing::{at, check_device, run_events};
use crate::wire::WireBundle;
use parking_lot::Mutex;
use std::sync::Arc;

struct Rig {
    fdc: Fdc82077,
    wires: WireBundle,
    now: u64,
    /// What goes by DMA, and how much of it until terminal count.
    memory: Vec<u8>,
    count: usize,
}

fn disk(kib: u64) -> Medium {
    Medium::inline(Box::new(Scripted::pattern(kib * 1024)))
}

fn rig(disk: Medium) -> Rig {
    let wires = WireBundle::new();
    let drives = [Some(FloppyDrive::new(DriveKind::Kib1440, Some(disk))), None];
    let mut rig = Rig { fdc: Fdc82077::new(wires.line(6), drives), wires, now: 0, memory: Vec::new(), count: 0 };
    rig.write(2, 0x1C);
    rig.settle();
    for drive in 0..4 {
        assert_eq!(rig.command(&[0x08], 2)[0], 0xC0 | drive, "news after a reset");
    }
    rig.fdc.port_write_byte(1, 0, 0);
    rig
}

impl Fdc82077 {
    fn port_write_byte(&mut self, range: u8, offset: u16, value: u8) {
        at(Tick(0), |cx| self.port_write(cx, range, offset, Width::B1, value.into())).unwrap();
    }
}

impl Rig {
    fn read(&mut self, port: u16) -> u8 {
        let now = Tick(self.now);
        at(now, |cx| self.fdc.port_read(cx, 0, port, Width::B1)).unwrap() as u8
    }
    fn write(&mut self, port: u16, value: u8) {
        let now = Tick(self.now);
        at(now, |cx| self.fdc.port_write(cx, 0, port, Width::B1, value.into())).unwrap();
    }
    /// Runs until nothing happens by itself, moving bytes as the DMA controller would.
    fn settle(&mut self) {
        loop {
            let (memory, count, now) = (&mut self.memory, &mut self.count, Tick(self.now));
            let moved = self.fdc.exchange(now, |piece| {
                let left = *count;
                let bytes = match piece {
                    DmaPiece::ToMemory(from) => {
                        let bytes = from.len().min(left);
                        memory.extend(&from[..bytes]);
                        bytes
                    }
                    DmaPiece::FromMemory(into) => {
                        let bytes = into.len().min(left).min(memory.len());
                        into[..bytes].copy_from_slice(&memory[..bytes]);
                        memory.drain(..bytes);
                        bytes
                    }
                };
                *count -= bytes;
                Transferred { bytes, terminal_count: bytes > 0 && *count == 0 }
            });
            match self.fdc.next_event() {
                Some(Tick(event)) => {
                    self.now = self.now.max(event);
                    run_events(&mut self.fdc, self.now);
                }
                None if !moved => break,
                None => {}
            }
        }
    }
    /// Sends a command, lets it run, gives its result.
    fn command(&mut self, bytes: &[u8], results: usize) -> Vec<u8> {
        for &byte in bytes {
            assert_eq!(self.read(4) & 0xC0, 0x80, "ready for {byte:#x}");
            self.write(5, byte);
        }
        self.settle();
        let result = (0..results).map(|_| {
            assert_eq!(self.read(4) & 0xC0, 0xC0, "a result");
            self.read(5)
        });
        let result = result.collect();
        assert_eq!(self.read(4) & 0xDF, 0x80, "over");
        result
    }
    fn seek(&mut self, cylinder: u8) {
        self.command(&[0x0F, 0, cylinder], 0);
        assert!(self.wires.level(6));
        assert_eq!(self.command(&[0x08], 2), [0x20, cylinder]);
        assert!(!self.wires.level(6));
    }
    fn change_line(&mut self) -> bool {
        at(Tick(0), |cx| self.fdc.port_read(cx, 1, 0, Width::B1)).unwrap() & 0x80 != 0
    }
}

#[test]
fn reads_go_on_to_the_other_side_until_terminal_count() {
    let mut rig = rig(disk(1440));
    rig.seek(3);
    (rig.count, rig.memory) = (20 * 512, Vec::new());
    let result = rig.command(&[0xE6, 0, 3, 0, 17, 2, 18, 0x1B, 0xFF], 7);
    // Sectors 17 and 18 of side 0, then 1–18 of side 1: the next one is on the next cylinder.
    assert_eq!(result, [0x04, 0, 0, 4, 0, 1, 2]);
    let first = (3 * 36 + 16) * 512;
    assert!(rig.memory.iter().zip(first..).all(|(&byte, at)| byte == pattern(at)));
    assert_eq!(rig.memory.len(), 20 * 512);
    // Without terminal count the end of the cylinder is an error, as the data sheet says.
    rig.count = usize::MAX;
    let result = rig.command(&[0x46, 0, 3, 0, 18, 2, 18, 0x1B, 0xFF], 7);
    assert_eq!(result, [0x40, 0x80, 0, 4, 0, 1, 2]);
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut rig = rig(disk(720));
    rig.seek(5);
    rig.count = 512;
    let read = |rig: &mut Rig, bytes: [u8; 5]| {
        let [head, cylinder, side, sector, size] = bytes;
        rig.command(&[0x46, head << 2, cylinder, side, sector, size, 18, 0x1B, 0xFF], 7)[..3].to_vec()
    };
    assert_eq!(read(&mut rig, [0, 5, 0, 1, 2]), [0x40, 0x01, 0], "500 kbit/s do not suit a 720 KiB disk");
    assert_eq!(rig.command(&[0x4A, 0], 7)[..2], [0x40, 0x01]);
    rig.fdc.port_write_byte(1, 0, 2);
    assert_eq!(rig.command(&[0x4A, 0], 7), [0, 0, 0, 5, 0, 1, 2]);
    for (bytes, st1, st2) in
        [([0, 5, 0, 10, 2], 4, 0), ([0, 6, 0, 1, 2], 4, 0x10), ([0, 5, 1, 1, 2], 4, 0), ([1, 5, 1, 1, 3], 4, 0)]
    {
        let st0 = 0x40 | bytes[0] << 2;
        assert_eq!(read(&mut rig, bytes), [st0, st1, st2], "{bytes:?}");
    }
    assert_eq!(read(&mut rig, [0, 5, 0, 9, 2])[0], 0);
    assert_eq!(rig.command(&[0x07, 1], 0), []);
    assert_eq!(rig.command(&[0x08], 2), [0x71, 0], "drive 1 finds no track 0: it is not there");
    assert_eq!(rig.command(&[0x08], 1), [0x80], "nothing to sense");
    assert_eq!(rig.command(&[0x1F], 1), [0x80], "no such command");
    assert_eq!(rig.command(&[0x10], 1), [0x90]);
}

#[test]
fn written_and_formatted_disks() {
    let bytes = Arc::new(Mutex::new(vec![0; 1440 * 1024]));
    let mut rig = rig(Medium::inline(Box::new(Scripted::shared(bytes.clone()))));
    rig.seek(1);
    (rig.memory, rig.count) = (vec![0x11; 700], 700);
    assert_eq!(rig.command(&[0x45, 4, 1, 1, 2, 2, 18, 0x1B, 0xFF], 7)[..3], [0x04, 0, 0]);
    let at = (36 + 18 + 1) * 512;
    assert_eq!(bytes.lock()[at - 1..at + 1025].iter().filter(|&&byte| byte == 0x11).count(), 700);
    rig.memory = (1..=18).flat_map(|sector| [1, 0, sector, 2]).collect();
    rig.count = rig.memory.len();
    assert_eq!(rig.command(&[0x4D, 0, 2, 18, 0x6C, 0xF6], 7)[..3], [0, 0, 0]);
    assert!(bytes.lock()[36 * 512..54 * 512].iter().all(|&byte| byte == 0xF6));
    assert_eq!(bytes.lock()[54 * 512], 0);
    rig.memory = (1..=9).flat_map(|sector| [1, 0, sector, 2]).collect();
    rig.count = rig.memory.len();
    assert_eq!(rig.command(&[0x4D, 0, 2, 9, 0x6C, 0xAA], 7)[..2], [0x40, 4], "another layout does not fit");
}

#[test]
fn without_dma_each_byte_is_asked_for() {
    let mut rig = rig(disk(1440));
    rig.command(&[0x03, 0xDF, 0x03], 0);
    for byte in [0x46, 0, 0, 0, 18, 2, 18, 0x1B, 0xFF] {
        rig.write(5, byte);
    }
    rig.settle();
    let first = 17 * 512;
    for n in 0..512 {
        assert!(rig.wires.level(6), "{n}");
        assert_eq!(rig.read(4), 0xF0, "{n}");
        assert_eq!(rig.read(5), pattern(first + n));
    }
    assert_eq!(rig.read(4), 0xD0);
    let result: Vec<u8> = (0..7).map(|_| rig.read(5)).collect();
    assert_eq!(result[..3], [0x40, 0x80, 0], "nobody said that it was all");
}

#[test]
fn disks_are_changed_and_protected() {
    let mut rig = rig(disk(1440));
    assert!(rig.change_line(), "after power-on");
    rig.seek(2);
    assert!(!rig.change_line());
    let mut other = Some(Medium::inline(Box::new(Scripted::pattern(720 * 1024).read_only())));
    assert!(rig.fdc.swap_disk(Tick(0), 0, &mut other) && other.is_some());
    assert!(rig.change_line());
    rig.seek(0);
    assert!(!rig.change_line());
    rig.fdc.port_write_byte(1, 0, 2);
    assert_eq!(rig.command(&[0x45, 0, 0, 0, 1, 2, 9, 0x1B, 0xFF], 7)[..2], [0x40, 2], "write-protected");
    assert_eq!(rig.command(&[0x04, 0], 1), [0x78]);
    assert!(rig.fdc.swap_disk(Tick(0), 0, &mut None));
    assert_eq!(rig.command(&[0x46, 0, 0, 0, 1, 2, 9, 0x1B, 0xFF], 7)[..2], [0x40, 1], "no disk");
    assert!(!rig.fdc.swap_disk(Tick(0), 1, &mut None), "no drive");
}

#[test]
fn any_sequence() {
    let make = || {
        let disk = Medium::inline(Box::new(Scripted::pattern(1440 * 1024).bad(3..5)));
        let mut fdc =
            Fdc82077::new(IrqLine::detached(), [Some(FloppyDrive::new(DriveKind::Kib1440, Some(disk))), None]);
        fdc.port_write_byte(0, 2, 0x1C);
        fdc.port_write_byte(1, 0, 0);
        fdc
    };
    check_device(make, &[6, 1]);
}
