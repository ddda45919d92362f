//! Commands of drives without a cable: which sectors, which errors, what they say of themselves.

use super::*;
use crate::block::testing::{Scripted, pattern};
use crate::block::{Medium, SECTOR};

const SECTORS: u64 = 300_000;

fn disk() -> Drive {
    let storage = Scripted::pattern(SECTORS * SECTOR as u64).bad(5000..5001);
    Drive::Disk(Disk::new(Medium::inline(Box::new(storage)), "S1"))
}

fn cdrom(blocks: u64) -> Drive {
    let medium = Medium::inline(Box::new(Scripted::pattern(blocks * 2048).read_only()));
    Drive::Cdrom(Cdrom::new(Some(medium), "C1"))
}

/// Lets the drive work until it wants something else.
fn settle(drive: &mut Drive, mut step: Step) -> Step {
    while step == Step::Busy {
        let event = drive.next_event().expect("a busy drive has an event");
        step = drive.proceed(event);
    }
    step
}

/// A whole data-in command; gives its bytes and ending.
fn read(drive: &mut Drive, command: Command) -> (Vec<u8>, Ending) {
    let mut step = drive.begin(Tick(0), &command);
    let mut bytes = Vec::new();
    loop {
        match settle(drive, step) {
            Step::In(data, _) => bytes.extend(data),
            Step::Done(ending) => return (bytes, ending),
            other => panic!("{other:?}"),
        }
        step = drive.taken(Tick(0));
    }
}

fn command(code: u8, lba: u64, count: u16) -> Command {
    Command { code, lba, count, device: DEVICE_LBA, feature: 0 }
}

/// A packet command that sends data to the host.
fn packet(drive: &mut Drive, bytes: &[u8]) -> (Vec<u8>, Ending) {
    assert_eq!(drive.begin(Tick(0), &Command { code: 0xA0, lba: 0xFFFE00, ..Command::default() }), Step::Packet);
    let mut packet = bytes.to_vec();
    packet.resize(12, 0);
    let mut step = drive.given(Tick(0), packet);
    let mut data = Vec::new();
    loop {
        match settle(drive, step) {
            Step::In(more, _) => data.extend(more),
            Step::Done(ending) => return (data, ending),
            other => panic!("{other:?}"),
        }
        step = drive.taken(Tick(0));
    }
}

fn sense(drive: &mut Drive) -> [u8; 3] {
    let (bytes, _) = packet(drive, &[0x03, 0, 0, 0, 18]);
    [bytes[2], bytes[12], bytes[13]]
}

#[test]
fn a_disk_says_what_it_is() {
    let (bytes, ending) = read(&mut disk(), command(0xEC, 0, 0));
    let word = |n: usize| u16::from_le_bytes([bytes[2 * n], bytes[2 * n + 1]]);
    assert_eq!(ending, Ending::good());
    assert_eq!([word(1), word(3), word(6)], [297, 16, 63]);
    assert_eq!(u32::from(word(60)) | u32::from(word(61)) << 16, SECTORS as u32);
    assert_eq!([word(100), word(101), word(102)], [(SECTORS & 0xFFFF) as u16, (SECTORS >> 16) as u16, 0]);
    assert_eq!(&bytes[20..24], b"1S  ", "bytes of each word are swapped");
    assert_eq!(word(88), 0x203F, "UDMA 5 of 0–5");
    assert_eq!(bytes.iter().fold(0_u8, |sum, &b| sum.wrapping_add(b)), 0, "checksum");
    assert_eq!(read(&mut disk(), command(0xA1, 0, 0)).1.error, error::ABRT, "not a packet device");
}

#[test]
fn sectors_are_found_by_every_address() {
    let chs = |cylinder: u64, head: u8, sector: u64| Command {
        code: 0x20,
        lba: cylinder << 8 | sector,
        count: 1,
        device: head,
        feature: 0,
    };
    #[rustfmt::skip]
    let cases = [
        (command(0x20, 17, 1),                   17,       1),
        (command(0x24, 290_000, 3),              290_000,  3),
        (command(0x25, 1000, 4000),              1000,     4000),
        (command(0x20, 0, 0),                    0,        256),
        (command(0xC8, 0x12345, 2),              0x12345,  2),
        (command(0x25, 1, 5000 - 1),             1,        4999),
        // 2 cylinders, 3 heads, sector 4: (2 × 16 + 3) × 63 + 3.
        (chs(2, 3, 4),                           2208,     1),
    ];
    for (command, lba, count) in cases {
        let (bytes, ending) = read(&mut disk(), command);
        assert_eq!((bytes.len(), ending), (count * SECTOR, Ending::good()), "{command:x?}");
        let first = lba * SECTOR as u64;
        assert!(bytes.iter().zip(first..).all(|(&byte, at)| byte == pattern(at)), "{command:x?}");
    }
    for command in
        [chs(2, 3, 0), chs(2, 3, 64), chs(300, 0, 1), command(0x25, SECTORS - 1, 2), command(0x24, 1 << 47, 1)]
    {
        assert_eq!(read(&mut disk(), command).1, Ending::failed(error::IDNF), "{command:x?}");
    }
    let ending = read(&mut disk(), command(0x24, 4999, 3)).1;
    assert_eq!((ending.error, ending.lba), (error::UNC, Some(4999)), "a chunk with a bad sector");
}

#[test]
fn multiple_blocks_must_be_set_up() {
    let mut drive = disk();
    assert_eq!(read(&mut drive, command(0xC4, 0, 8)).1.error, error::ABRT);
    assert_eq!(read(&mut drive, command(0xC6, 0, 3)).1.error, error::ABRT, "no power of two");
    assert_eq!(read(&mut drive, command(0xC6, 0, 16)).1, Ending::good());
    let step = drive.begin(Tick(0), &command(0xC4, 0, 40));
    let Step::In(data, protocol) = settle(&mut drive, step) else { panic!("data") };
    assert_eq!((data.len(), protocol), (40 * SECTOR, Protocol::Pio { block: 16 * 512 }));
}

#[test]
fn writes_reach_the_medium_and_failures_the_host() {
    let bytes = std::sync::Arc::new(parking_lot::Mutex::new(vec![0; 64 * SECTOR]));
    let medium = Medium::inline(Box::new(Scripted::shared(bytes.clone()).bad(9..10)));
    let mut drive = Drive::Disk(Disk::new(medium, ""));
    let mut write = |code, lba, count: u16| {
        let step = drive.begin(Tick(0), &command(code, lba, count));
        let Step::Out(want, _) = step else { return step };
        assert_eq!(want, usize::from(count) * SECTOR);
        let step = drive.given(Tick(0), vec![0x5A; want]);
        settle(&mut drive, step)
    };
    assert_eq!(write(0xCA, 3, 2), Step::Done(Ending::good()));
    assert_eq!(write(0x3D, 6, 1), Step::Done(Ending::good()), "with a flush");
    let Step::Done(ending) = write(0x30, 9, 1) else { panic!() };
    assert_eq!(ending.status & (status::ERR | status::DF), status::ERR | status::DF);
    assert_eq!(write(0x30, 64, 1), Step::Done(Ending::failed(error::IDNF)));
    let bytes = bytes.lock();
    let written: Vec<usize> = (0..64).filter(|n| bytes[n * SECTOR..(n + 1) * SECTOR] == [0x5A; SECTOR]).collect();
    assert_eq!(written, [3, 4, 6]);
    let medium = Medium::inline(Box::new(Scripted::memory(SECTOR).read_only()));
    let mut drive = Drive::Disk(Disk::new(medium, ""));
    assert_eq!(read(&mut drive, command(0xCA, 0, 1)).1.error, error::ABRT, "read-only");
}

#[test]
fn a_cd_is_read_after_its_news() {
    let mut drive = cdrom(1000);
    assert_eq!(drive.signature(), (1, 0xEB_14_01));
    let (_, ending) = packet(&mut drive, &[0x00]);
    assert_eq!(ending.error, 6 << 4 | error::ABRT, "unit attention after reset");
    assert_eq!(sense(&mut drive), [6, 0x29, 0]);
    assert_eq!(packet(&mut drive, &[0x00]).1.error, 0);
    assert_eq!(packet(&mut drive, &[0x25]).0, [0, 0, 3, 0xE7, 0, 0, 8, 0]);
    let (bytes, ending) = packet(&mut drive, &[0x28, 0, 0, 0, 1, 0, 0, 2, 0x9E]);
    assert_eq!((bytes.len(), ending.status & 1, ending.count), (670 * 2048, 0, Some(3)));
    assert!(bytes.iter().zip(256 * 2048..).all(|(&byte, at)| byte == pattern(at)));
    let (_, ending) = packet(&mut drive, &[0xA8, 0, 0, 0, 3, 0xE7, 0, 0, 0, 2]);
    assert_eq!((ending.error, sense(&mut drive)), (5 << 4 | error::ABRT, [5, 0x21, 0]));
    let (_, ending) = packet(&mut drive, &[0xFF]);
    assert_eq!((ending.error >> 4, sense(&mut drive)), (5, [5, 0x20, 0]));
    let ending = read(&mut drive, command(0xEC, 0, 0)).1;
    assert_eq!((ending.error, ending.lba), (error::ABRT, Some(0xEB_14_01)));
}

#[test]
fn discs_come_and_go() {
    let mut drive = cdrom(10);
    sense(&mut drive);
    let eject = [0x1B, 0, 0, 0, 2];
    packet(&mut drive, &[0x1E, 0, 0, 0, 1]);
    assert_eq!((packet(&mut drive, &eject).1.error >> 4, sense(&mut drive)), (5, [5, 0x53, 2]), "locked");
    packet(&mut drive, &[0x1E]);
    assert_eq!(packet(&mut drive, &eject).1.error, 0);
    assert_eq!((packet(&mut drive, &[0]).1.error >> 4, sense(&mut drive)), (2, [2, 0x3A, 2]), "tray open");
    let event = |drive: &mut Drive| packet(drive, &[0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]).0[4..6].to_vec();
    assert_eq!(event(&mut drive), [3, 1]);
    let mut disc = Some(Medium::inline(Box::new(Scripted::pattern(20 * 2048).read_only())));
    assert!(drive.swap_medium(Tick(0), &mut disc));
    assert_eq!(disc.map(|old| old.length()), Some(20_480), "the old one");
    assert_eq!((event(&mut drive), event(&mut drive)), (vec![2, 2], vec![0, 2]));
    assert_eq!((packet(&mut drive, &[0]).1.error >> 4, sense(&mut drive)), (6, [6, 0x28, 0]), "another disc");
    assert_eq!(packet(&mut drive, &[0x25]).0[3], 19);
    assert!(drive.swap_medium(Tick(0), &mut None));
    assert_eq!((packet(&mut drive, &[0]).1.error >> 4, sense(&mut drive)), (2, [2, 0x3A, 1]));
}

#[test]
fn a_disc_that_goes_during_a_read_fails_it() {
    let mut drive = cdrom(10);
    sense(&mut drive);
    drive.begin(Tick(0), &Command { code: 0xA0, ..Command::default() });
    let step = drive.given(Tick(0), vec![0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(step, Step::Busy);
    assert!(drive.swap_medium(Tick(0), &mut None));
    let Step::Done(ending) = settle(&mut drive, Step::Busy) else { panic!() };
    assert_eq!(ending.error >> 4, 2);
}
