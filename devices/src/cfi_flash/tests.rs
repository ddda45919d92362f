//! The flash memory as a driver uses it: OVMF's probe, erase and program; Linux' CFI query; failing storage; the board's view.

use super::{BUFFER, CfiFlash, View};
use crate::block::Storage;
use crate::clock::Tick;
use crate::device::{Device, Width};
use crate::testing::{Place, at, check_places};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

const BLOCK: usize = 256;
const BYTES: usize = 3 * BLOCK;

fn flash() -> CfiFlash {
    CfiFlash::new(vec![0xA5; BYTES], BLOCK, Arc::new(|_| {})).unwrap()
}

fn read(flash: &mut CfiFlash, offset: u64) -> u8 {
    at(Tick(0), |cx| flash.mmio_read(cx, 0, offset, Width::B1).unwrap()) as u8
}

fn write(flash: &mut CfiFlash, offset: u64, values: &[u8]) {
    for &value in values {
        at(Tick(0), |cx| flash.mmio_write(cx, 0, offset, Width::B1, value.into()).unwrap());
    }
}

/// As OVMF tells flash memory from ROM and RAM: neither the contents nor what was written may come back as status.
#[test]
fn ovmf_finds_flash_memory() {
    let mut flash = flash();
    write(&mut flash, 7, &[0x50]);
    assert_eq!(read(&mut flash, 7), 0xA5);
    write(&mut flash, 7, &[0x70]);
    assert_eq!(read(&mut flash, 7), 0);
    write(&mut flash, 7, &[0xFF]);
    assert_eq!(read(&mut flash, 7), 0xA5);
}

#[test]
fn erasing_sets_a_block_and_programming_clears_bits() {
    let mut flash = flash();
    write(&mut flash, BLOCK as u64 + 9, &[0x20, 0xD0]);
    assert_eq!(read(&mut flash, 0), 0x80, "the status until another mode is chosen");
    for code in [0x10, 0x40] {
        write(&mut flash, BLOCK as u64 + 3, &[code, 0xF3]);
        write(&mut flash, BLOCK as u64 + 3, &[code, 0x3F]);
    }
    assert_eq!(read(&mut flash, 0), 0x80);
    write(&mut flash, 0, &[0xFF]);
    let mut expected = vec![0xA5; BYTES];
    expected[BLOCK..2 * BLOCK].fill(0xFF);
    expected[BLOCK + 3] = 0x33;
    assert_eq!(flash.contents(), expected);
    assert_eq!(read(&mut flash, BLOCK as u64 + 3), 0x33);
    // A wide access is one of each byte.
    assert_eq!(at(Tick(0), |cx| flash.mmio_read(cx, 0, BLOCK as u64 + 2, Width::B4)), Ok(0xFFFF_33FF));
    at(Tick(0), |cx| flash.mmio_write(cx, 0, 0, Width::B2, 0x0040)).unwrap();
    assert_eq!((flash.contents()[1], read(&mut flash, 9)), (0, 0x80), "40h, then 00h at the next address");
    assert!(at(Tick(0), |cx| flash.mmio_read(cx, 0, BYTES as u64, Width::B1)).is_err());
}

#[test]
fn the_write_buffer() {
    let mut flash = flash();
    write(&mut flash, 0, &[0x20, 0xD0, 0xE8]);
    assert_eq!(read(&mut flash, 0), 0x80, "a buffer is free");
    write(&mut flash, 0, &[2]);
    for (offset, byte) in [(0x42, 3), (0x40, 1), (0x41, 2)] {
        write(&mut flash, offset, &[byte]);
    }
    assert_eq!(flash.contents()[0x40], 0xFF, "not before it is confirmed");
    write(&mut flash, 0, &[0xD0]);
    assert_eq!((read(&mut flash, 0), &flash.contents()[0x3F..0x44]), (0x80, &[0xFF, 1, 2, 3, 0xFF][..]));
    // Bytes of two rows; more bytes than it holds; something else in place of the confirmation.
    let cases: [&[(u64, u8)]; 3] = [
        &[(0, 0xE8), (0, 1), (0x1F, 0), (0x20, 0), (0, 0xD0)],
        &[(0, 0xE8), (0, BUFFER as u8)],
        &[(0, 0xE8), (0, 0), (0x1F, 0), (0, 0xFF)],
    ];
    for case in cases {
        write(&mut flash, 0, &[0x50]);
        case.iter().for_each(|&(offset, value)| write(&mut flash, offset, &[value]));
        write(&mut flash, 0, &[0x70]);
        assert_eq!((read(&mut flash, 0), flash.contents()[0x1F]), (0xB0, 0xFF), "{case:?}");
    }
}

#[test]
fn cycles_that_are_no_command_show_in_the_status() {
    #[rustfmt::skip]
    let table: [(&[u8], u8); 5] = [
        (&[0x20, 0xFF], 0xB0), (&[0x60, 0x00], 0xB0), (&[0x60, 0x01], 0x90), (&[0x60, 0xD0], 0x80), (&[0xB0, 0xD0, 0x70], 0x00),
    ];
    for (cycles, status) in table {
        let mut flash = flash();
        write(&mut flash, 0, &[0x50]);
        write(&mut flash, 0, cycles);
        assert_eq!(read(&mut flash, 0), status, "{cycles:x?}");
        assert_eq!(flash.contents(), [0xA5; BYTES]);
        // The error stays until it is cleared.
        write(&mut flash, 0, &[0xFF, 0x70]);
        assert_eq!(read(&mut flash, 0), status);
    }
}

#[test]
fn it_says_what_it_is() {
    let mut flash = flash();
    write(&mut flash, 0x55, &[0x98]);
    let query: Vec<u8> = (0..0x100).map(|offset| read(&mut flash, offset)).collect();
    assert_eq!(&query[0x10..0x17], b"QRY\x01\x00\x31\x00");
    // 768 bytes in 1 KiB, a byte wide, 32 bytes of buffer, one region: 3 blocks of 256.
    assert_eq!(query[0x27..0x31], [10, 0, 0, 5, 0, 1, 2, 0, 1, 0]);
    assert_eq!(&query[0x31..0x34], b"PRI");
    write(&mut flash, 0, &[0x90]);
    assert_eq!([0, 1, 2].map(|offset| read(&mut flash, offset)), [0x89, 0, 0]);
    write(&mut flash, 0, &[0x33]);
    assert_eq!(read(&mut flash, 0), 0xA5, "a reserved code reads the array");
}

#[test]
fn the_board_maps_contents_while_nothing_else_is_read() {
    let changed = |flash: &mut CfiFlash| {
        let mut blocks = Vec::new();
        flash.take_changed(|offset, bytes| blocks.push((offset, bytes.to_vec())));
        blocks
    };
    let mut flash = flash();
    assert_eq!(flash.take_view(), None);
    write(&mut flash, 0, &[0x70]);
    assert_eq!((flash.take_view(), flash.take_view()), (Some(View::Device), None));
    write(&mut flash, 2 * BLOCK as u64, &[0x20, 0xD0]);
    assert_eq!(flash.take_view(), None);
    write(&mut flash, 0, &[0xFF]);
    assert_eq!(flash.take_view(), Some(View::Contents));
    assert_eq!(changed(&mut flash), [(2 * BLOCK as u64, vec![0xFF; BLOCK])]);
    assert_eq!((changed(&mut flash), flash.take_view()), (vec![], None));
    // A reset ends a command that waits for its second cycle.
    write(&mut flash, 0, &[0x40]);
    assert_eq!(flash.take_view(), Some(View::Device));
    at(Tick(0), |cx| flash.reset(cx));
    assert_eq!((flash.take_view(), read(&mut flash, 0)), (Some(View::Contents), 0xA5));
}

/// A file that takes so many writes.
struct Disk(Arc<Mutex<Vec<u8>>>, usize);

impl Storage for Disk {
    fn length(&self) -> u64 {
        self.0.lock().len() as u64
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read(&mut self, _at: u64, _into: &mut [u8]) -> io::Result<()> {
        Ok(())
    }
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        self.1 = self.1.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        self.0.lock()[at as usize..][..from.len()].copy_from_slice(from);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_is_written_reaches_the_file_or_fails() {
    let (file, said) = (Arc::new(Mutex::new(vec![0xA5; BYTES])), Arc::new(Mutex::new(Vec::new())));
    let log = said.clone();
    let flash = CfiFlash::new(vec![0xA5; BYTES], BLOCK, Arc::new(move |text| log.lock().push(text.to_owned())));
    let mut flash = flash.unwrap().kept_in("vars.fd", Box::new(Disk(file.clone(), 2)));
    write(&mut flash, 0, &[0x20, 0xD0, 0x40, 0x12]);
    assert_eq!((&file.lock()[..2], read(&mut flash, 0)), (&[0x12, 0xFF][..], 0x80));
    // The host's disk is full: the guest is told, the contents stay, the user gets one sentence.
    for (cycles, status) in [([0x40, 0x00], 0x90), ([0x20, 0xD0], 0xB0)] {
        write(&mut flash, 0, &cycles);
        assert_eq!((read(&mut flash, 0), flash.contents()[0]), (status, 0x12));
    }
    assert_eq!(file.lock()[..], *flash.contents());
    let said = said.lock();
    assert!(said.len() == 1 && said[0].starts_with("vars.fd: "), "{said:?}");
}

#[test]
fn contents_are_part_of_the_state() {
    let mut flash = flash();
    write(&mut flash, 0, &[0x20, 0xD0, 0x40, 0x34]);
    let saved = flash.save();
    // What was written after that, into this block and another, is taken back; the file follows.
    let file = Arc::new(Mutex::new(vec![0xA5; BYTES]));
    let mut twin = super::tests::flash().kept_in("f", Box::new(Disk(file.clone(), 100)));
    write(&mut twin, 0, &[0x20, 0xD0]);
    write(&mut twin, BLOCK as u64, &[0x20, 0xD0]);
    twin.restore(&saved).unwrap();
    assert_eq!((twin.contents(), &file.lock()[..]), (flash.contents(), flash.contents()));
    let mut small = CfiFlash::new(vec![0; BLOCK], BLOCK, Arc::new(|_| {})).unwrap();
    write(&mut flash, 2 * BLOCK as u64, &[0x20, 0xD0]);
    assert!(small.restore(&flash.save()).is_err(), "of a larger memory");
    for (bytes, block) in [(0, 256), (300, 256), (384, 384), (128, 128)] {
        assert!(CfiFlash::new(vec![0; bytes], block, Arc::new(|_| {})).is_err(), "{bytes}, {block}");
    }
}

#[test]
fn any_sequence() {
    check_places(flash, &[0, 1, 0x1F, 0x100, 0x2FF].map(|offset| Place::Mmio(0, offset)));
}
