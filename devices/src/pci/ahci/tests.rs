//! The adapter as a driver uses it: command lists in memory, FIS, interrupts, errors, hostile tables.

use super::*;
use crate::ata::{Cdrom, Disk};
use crate::block::Medium;
use crate::block::testing::{Scripted, pattern};
use crate::pci::offset;
use crate::testing::{Memory, Place, check_places};
use crate::wire::WireBundle;
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::dma::Dma;

const LIST: u32 = 0x1000;
const RECEIVED: u32 = 0x2000;
const TABLE: u32 = 0x3000;

struct Rig {
    ahci: Ahci,
    memory: Memory,
    now: u64,
    wires: WireBundle,
}

fn drives() -> [Option<Drive>; PORTS] {
    let disk = Medium::inline(Box::new(Scripted::pattern(64 << 20).bad(7..8)));
    let cd = Medium::inline(Box::new(Scripted::pattern(100 * 2048).read_only()));
    let mut drives: [Option<Drive>; PORTS] = Default::default();
    drives[0] = Some(Drive::Disk(Disk::new(disk, "S")));
    drives[2] = Some(Drive::Cdrom(Cdrom::new(Some(cd), "C")));
    drives
}

fn rig() -> Rig {
    let wires = WireBundle::new();
    let mut ahci = Ahci::new(wires.line(0), drives());
    ahci.config.write(offset::COMMAND, Width::B2, 6);
    let mut rig = Rig { ahci, memory: Memory(vec![0; 4 << 20]), now: 0, wires };
    rig.set(0x04, 2);
    for port in [0x100, 0x200] {
        for (register, value) in [(0, LIST), (8, RECEIVED), (0x14, u32::MAX), (0x18, 0x10), (0x18, 0x11)] {
            rig.set(port + register, value);
        }
    }
    rig
}

impl Rig {
    fn set(&mut self, at: u64, value: u32) {
        let mut cx = Ctx { now: Tick(self.now), dma: &mut self.memory };
        self.ahci.mmio_write(&mut cx, 5, at, Width::B4, value.into()).unwrap();
    }
    fn get(&mut self, at: u64) -> u32 {
        let mut cx = Ctx { now: Tick(self.now), dma: &mut self.memory };
        self.ahci.mmio_read(&mut cx, 5, at, Width::B4).unwrap() as u32
    }
    fn settle(&mut self) {
        while let Some(Tick(event)) = self.ahci.next_event() {
            self.now = self.now.max(event);
            self.ahci.run_until(&mut Ctx { now: Tick(self.now), dma: &mut self.memory });
        }
    }
    /// Puts a command into slot 3 with these regions (address, bytes) and issues it to the port at `port`.
    fn issue(&mut self, port: u64, flags: u32, fis: &[u8], packet: &[u8], regions: &[(u32, u32)]) {
        let header = [flags | 5 | (regions.len() as u32) << 16, 0xFFFF_FFFF, TABLE, 0];
        let bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.memory.write(GuestPhys(u64::from(LIST) + 3 * 32), &bytes);
        self.memory.write(GuestPhys(TABLE.into()), &[0; 0x80]);
        self.memory.write(GuestPhys(TABLE.into()), fis);
        self.memory.write(GuestPhys(u64::from(TABLE) + 0x40), packet);
        for (n, &(at, bytes)) in regions.iter().enumerate() {
            let entry: Vec<u8> = [at, 0, 0, bytes - 1].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
            self.memory.write(GuestPhys(u64::from(TABLE) + 0x80 + 16 * n as u64), &entry);
        }
        self.set(port + 0x38, 1 << 3);
        self.settle();
    }
    fn moved(&self) -> u32 {
        let at = LIST as usize + 3 * 32 + 4;
        u32::from_le_bytes(self.memory.0[at..at + 4].try_into().unwrap())
    }
}

/// A command FIS: code, address, count.
fn fis(code: u8, lba: u64, count: u16) -> [u8; 20] {
    let [l0, l1, l2, l3, l4, l5, ..] = lba.to_le_bytes();
    let [c0, c1] = count.to_le_bytes();
    [0x27, 0x80, code, 0, l0, l1, l2, 0x40, l3, l4, l5, 0, c0, c1, 0, 0, 0, 0, 0, 0]
}

#[test]
fn ports_tell_what_is_there() {
    let mut rig = rig();
    assert_eq!([0x00, 0x0C, 0x10].map(|at| rig.get(at)), [CAPABILITIES, 0x3F, VERSION]);
    assert_eq!([0x128, 0x1A8, 0x228].map(|at| rig.get(at)), [0x123, 0, 0x123]);
    assert_eq!([0x124, 0x1A4, 0x224].map(|at| rig.get(at)), [0x101, u32::MAX, 0xEB14_0101]);
    assert_eq!([0x120, 0x1A0].map(|at| rig.get(at)), [0x150, 0x7F]);
    rig.set(0x12C, 1);
    assert_eq!(rig.get(0x128), 0);
    rig.set(0x12C, 0);
    assert_eq!((rig.get(0x128), rig.get(0x130)), (0x123, ERROR_CONNECT_BITS));
    rig.set(0x130, u32::MAX);
    rig.set(0x110, u32::MAX);
    assert_eq!(rig.get(0x110), 0);
}

const ERROR_CONNECT_BITS: u32 = 1 << 26 | 1 << 16;

#[test]
fn index_and_data_are_the_registers() {
    let mut rig = rig();
    let mut cx = Ctx { now: Tick(0), dma: &mut rig.memory };
    let ahci = &mut rig.ahci;
    let mut port = |cx: &mut Ctx<'_>, register: u32, value: Option<u32>| {
        ahci.port_write(cx, 4, 0x10, Width::B4, register).unwrap();
        if let Some(value) = value {
            ahci.port_write(cx, 4, 0x14, Width::B4, value).unwrap();
        }
        ahci.port_read(cx, 4, 0x14, Width::B4).unwrap()
    };
    assert_eq!(port(&mut cx, 0x10, None), VERSION);
    assert_eq!(port(&mut cx, 0x128, None), 0x123);
    assert_eq!(port(&mut cx, 0x108, Some(0x1234_5678)), 0x1234_5600);
    // Beyond the window's end, and to a register that is none.
    assert_eq!((port(&mut cx, 0xFFFF_F010, None), port(&mut cx, 0xFFC, Some(1))), (VERSION, 0));
    assert_eq!(ahci.port_read(&mut cx, 4, 0x11, Width::B1), Ok(0x0F));
    assert_eq!(
        (ahci.port_read(&mut cx, 4, 2, Width::B1), ahci.port_read(&mut cx, 4, 0x12, Width::B4)),
        (Ok(0), Err(IoError::BadWidth))
    );
    assert_eq!(rig.get(0x108), 0x1234_5600);
}

#[test]
fn dma_goes_to_many_places() {
    let mut rig = rig();
    rig.issue(0x100, 0, &fis(0x25, 1000, 4096), &[], &[(0x1_0000, 2), (0x10_0000, 0x20_0000), (0x2_0000, 0x1000)]);
    assert_eq!((rig.get(0x138), rig.moved()), (0, 4096 * 512));
    assert_eq!((rig.get(0x110), rig.get(0x08), rig.wires.level(0)), (1, 1, true));
    let first = 1000 * 512;
    assert_eq!(rig.memory.0[0x1_0000..0x1_0002], [pattern(first), pattern(first + 1)]);
    assert!(rig.memory.0[0x10_0000..0x2F_FFFE].iter().zip(first + 2..).all(|(&byte, at)| byte == pattern(at)));
    assert_eq!(rig.memory.0[0x2040..0x2044], [0x34, 0x40, 0x50, 0]);
    rig.set(0x110, 1);
    rig.set(0x08, 1);
    assert_eq!((rig.get(0x08), rig.wires.level(0)), (0, false));
    rig.issue(0x100, 1 << 6, &fis(0x35, 1000, 4), &[], &[(0x1_0000, 2048)]);
    assert_eq!((rig.get(0x138), rig.moved(), rig.get(0x120)), (0, 2048, 0x50));
}

#[test]
fn pio_data_comes_with_its_own_fis() {
    let mut rig = rig();
    rig.issue(0x100, 0, &fis(0xEC, 0, 0), &[], &[(0x1_0000, 512)]);
    assert_eq!((rig.moved(), rig.get(0x110)), (512, 2));
    assert_eq!((rig.memory.0[0x2020], rig.memory.0[0x202F]), (0x5F, 0x50));
    assert_eq!(rig.memory.0[0x1_0000 + 2 * 255], 0xA5, "the integrity word");
}

#[test]
fn a_failed_command_stops_the_list() {
    let mut rig = rig();
    rig.issue(0x100, 0, &fis(0x25, 7, 1), &[], &[(0x1_0000, 512)]);
    assert_eq!((rig.get(0x110), rig.get(0x138), rig.get(0x120)), (1 | 1 << 30, 8, 0x4051));
    rig.issue(0x100, 0, &fis(0xE7, 0, 0), &[], &[]);
    assert_eq!(rig.get(0x138), 8);
    rig.set(0x118, 0x10);
    assert_eq!(rig.get(0x138), 0);
    rig.set(0x118, 0x11);
    rig.issue(0x100, 0, &fis(0xE7, 0, 0), &[], &[]);
    assert_eq!((rig.get(0x138), rig.get(0x120)), (0, 0x50));
    // A write with too few bytes in memory writes nothing.
    rig.issue(0x100, 1 << 6, &fis(0x35, 0, 2), &[], &[(0x1_0000, 512)]);
    assert_eq!(rig.get(0x120), 0x451);
}

#[test]
fn packets_come_from_the_table() {
    let mut rig = rig();
    rig.issue(0x200, 1 << 5, &fis(0xA0, 0, 0), &[0x03, 0, 0, 0, 18], &[(0x1_0000, 18)]);
    assert_eq!((rig.get(0x238), rig.memory.0[0x1_0002]), (0, 6));
    let mut dma = fis(0xA0, 0, 0);
    dma[3] = 1;
    rig.issue(0x200, 1 << 5, &dma, &[0x28, 0, 0, 0, 0, 1, 0, 0, 2], &[(0x1_0000, 4096)]);
    assert!(rig.memory.0[0x1_0000..0x1_1000].iter().zip(2048..).all(|(&byte, at)| byte == pattern(at)));
    assert_eq!((rig.get(0x210) & 1 << 24, rig.get(0x238)), (0, 0));
}

#[test]
fn any_sequence() {
    let make = || {
        let mut ahci = Ahci::new(IrqLine::detached(), drives());
        ahci.config.write(offset::COMMAND, Width::B2, 7);
        ahci
    };
    let registers = (0..0x14).chain(0x100..0x140).step_by(4).map(|at| Place::Mmio(5, at));
    let places = registers.chain((0x10..0x18).map(|at| Place::Port(4, at)));
    check_places(make, &places.collect::<Vec<_>>());
}

#[test]
fn arbitrary_tables() {
    use proptest::prelude::*;
    let codes = prop::sample::select(vec![0x25_u8, 0x35, 0xC8, 0xCA, 0x20, 0x30, 0xEC, 0xA0, 0xE7, 0x60]);
    let step = (codes, any::<[u8; 18]>(), any::<[u8; 32]>(), any::<[u8; 64]>(), any::<bool>());
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) }, |(
        steps in proptest::collection::vec(step, 1..12)
    )| {
        let mut rig = rig();
        for (code, rest, header, table, cd) in steps {
            let port = if cd { 0x200 } else { 0x100 };
            rig.memory.0[LIST as usize..LIST as usize + 32].copy_from_slice(&header);
            rig.memory.0[LIST as usize + 8..LIST as usize + 16].copy_from_slice(&u64::from(TABLE).to_le_bytes());
            rig.memory.0[TABLE as usize + 2] = code;
            rig.memory.0[TABLE as usize..TABLE as usize + 2].copy_from_slice(&[0x27, 0x80]);
            rig.memory.0[TABLE as usize + 3..TABLE as usize + 20].copy_from_slice(&rest[..17]);
            rig.memory.0[TABLE as usize + 0x80..TABLE as usize + 0xC0].copy_from_slice(&table);
            rig.set(port + 0x38, 1);
            rig.settle();
            rig.set(port + 0x18, 0x10);
            rig.set(port + 0x18, 0x11);
            prop_assert_eq!(rig.get(port + 0x38), 0, "a stopped list is empty");
        }
    });
}
