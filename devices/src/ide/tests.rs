//! A channel as software drives it: PIO, bus-master DMA, packets, interrupts, resets, an empty cable.

use crate::ata::{Cdrom, Disk, Drive};
use crate::block::testing::{Scripted, pattern};
use crate::block::{Medium, SECTOR};
use crate::clock::Tick;
use crate::device::{Ctx, Device, Width};
use crate::pci::piix3_ide::Piix3Ide;
use crate::pci::{PciFunction, offset};
use crate::testing::{Memory, Place, check_places};
use crate::wire::{IrqLine, WireBundle};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::dma::Dma;

struct Rig {
    ide: Piix3Ide,
    memory: Memory,
    now: u64,
    wires: WireBundle,
}

fn disk(bytes: u64) -> Drive {
    Drive::Disk(Disk::new(Medium::inline(Box::new(Scripted::pattern(bytes))), "S"))
}

fn rig() -> Rig {
    let wires = WireBundle::new();
    let cd = Medium::inline(Box::new(Scripted::pattern(100 * 2048).read_only()));
    let drives = [[Some(disk(1 << 20)), None], [None, Some(Drive::Cdrom(Cdrom::new(Some(cd), "C")))]];
    let mut ide = Piix3Ide::new([wires.line(14), wires.line(15)], drives);
    ide.config_mut().write(offset::COMMAND, Width::B2, 5);
    Rig { ide, memory: Memory(vec![0; 1 << 20]), now: 0, wires }
}

impl Rig {
    fn cx<R>(&mut self, call: impl FnOnce(&mut Piix3Ide, &mut Ctx<'_>) -> R) -> R {
        call(&mut self.ide, &mut Ctx { now: Tick(self.now), dma: &mut self.memory })
    }
    fn read(&mut self, range: u8, port: u16, width: Width) -> u32 {
        self.cx(|ide, cx| ide.port_read(cx, range, port, width)).unwrap()
    }
    fn status(&mut self, range: u8) -> u8 {
        self.read(range, 7, Width::B1) as u8
    }
    fn write(&mut self, range: u8, port: u16, width: Width, value: u32) {
        self.cx(|ide, cx| ide.port_write(cx, range, port, width, value)).unwrap();
    }
    /// Writes the registers 1–7.
    fn command(&mut self, range: u8, registers: [u8; 7]) {
        for (port, value) in [6, 1, 2, 3, 4, 5, 7].into_iter().map(|port| (port, registers[usize::from(port) - 1])) {
            self.write(range, port, Width::B1, value.into());
        }
    }
    /// Runs until nothing happens by itself.
    fn settle(&mut self) {
        while let Some(Tick(event)) = self.ide.next_event() {
            self.now = self.now.max(event);
            self.cx(|ide, cx| ide.run_until(cx));
        }
    }
    fn data(&mut self, range: u8, bytes: usize) -> Vec<u8> {
        (0..bytes / 2).flat_map(|_| (self.read(range, 0, Width::B2) as u16).to_le_bytes()).collect()
    }
}

fn is_pattern(bytes: &[u8], first: u64) -> bool {
    bytes.iter().zip(first..).all(|(&byte, at)| byte == pattern(at))
}

#[test]
fn pio_blocks_interrupt_before_each() {
    let mut rig = rig();
    rig.command(8, [0, 2, 7, 0, 0, 0xE0, 0x20]);
    assert_eq!(rig.status(8), 0x80, "busy");
    rig.settle();
    for sector in 7..9 {
        assert!(rig.wires.level(14), "{sector}");
        assert_eq!(rig.status(8), 0x58);
        assert!(!rig.wires.level(14), "reading the status took it");
        assert!(is_pattern(&rig.data(8, SECTOR), sector * 512));
    }
    assert_eq!((rig.status(8), rig.wires.level(14)), (0x50, false), "no interrupt at the end");
    // Wider accesses move as many bytes.
    rig.command(8, [0, 1, 7, 0, 0, 0xE0, 0x20]);
    rig.settle();
    let bytes: Vec<u8> = (0..128).flat_map(|_| rig.read(8, 0, Width::B4).to_le_bytes()).collect();
    assert!(is_pattern(&bytes, 7 * 512));
}

#[test]
fn pio_writes_interrupt_after_each_block() {
    let mut rig = rig();
    rig.command(8, [0, 2, 0, 0, 0, 0xE0, 0x30]);
    assert_eq!((rig.wires.level(14), rig.status(8)), (false, 0x58), "the first block is wanted at once");
    (0..256).for_each(|n| rig.write(8, 0, Width::B2, n));
    assert!(rig.wires.level(14), "the second is wanted");
    assert_eq!(rig.status(8), 0x58);
    (0..256).for_each(|n| rig.write(8, 0, Width::B2, n));
    assert_eq!(rig.status(8), 0x80);
    rig.settle();
    assert_eq!((rig.wires.level(14), rig.status(8)), (true, 0x50));
}

/// A table of physical regions at 1000h: (address, bytes), the last one marked.
fn regions(rig: &mut Rig, regions: &[(u32, u16)]) {
    for (n, &(at, bytes)) in regions.iter().enumerate() {
        let flags = if n + 1 == regions.len() { 0x8000_0000 } else { 0 };
        let entry = u64::from(flags | u32::from(bytes)) << 32 | u64::from(at);
        rig.memory.write(GuestPhys(0x1000 + 8 * n as u64), &entry.to_le_bytes());
    }
    rig.write(4, 4, Width::B4, 0x1000);
}

#[test]
fn dma_scatters_and_gathers() {
    // The command before the start, and after it.
    for early in [false, true] {
        let mut rig = rig();
        regions(&mut rig, &[(0x2000, 512), (0x8000, 2), (0x4000, 510), (0x1_0000, 0)]);
        if early {
            rig.write(4, 0, Width::B1, 9);
        }
        rig.command(8, [0, 130, 3, 0, 0, 0xE0, 0xC8]);
        rig.write(4, 0, Width::B1, 9);
        assert_eq!(rig.read(4, 2, Width::B1) & 7, 1, "active");
        rig.settle();
        assert_eq!((rig.wires.level(14), rig.read(4, 2, Width::B1) & 7), (true, 4), "done where the table ended");
        assert_eq!(rig.status(8), 0x50);
        assert!(is_pattern(&rig.memory.0[0x2000..0x2200], 1536));
        assert!(is_pattern(&rig.memory.0[0x8000..0x8002], 2048));
        assert!(is_pattern(&rig.memory.0[0x4000..0x41FE], 2050));
        assert!(is_pattern(&rig.memory.0[0x1_0000..0x1_FC00], 2560));
        rig.write(4, 2, Width::B1, 4);
        rig.write(4, 0, Width::B1, 0);
        assert_eq!(rig.read(4, 2, Width::B1) & 7, 0);
    }
}

#[test]
fn dma_that_does_not_fit_its_table() {
    let mut rig = rig();
    // Too long a table: active stays. Too short: the drive waits for good, until it is reset.
    for (bytes, status, drive) in [(1024, 5, 0x50), (256, 0, 0x80)] {
        regions(&mut rig, &[(0x2000, bytes)]);
        rig.command(8, [0, 1, 3, 0, 0, 0xE0, 0xC8]);
        rig.write(4, 0, Width::B1, 9);
        rig.settle();
        assert_eq!((rig.read(4, 2, Width::B1) & 7, rig.status(8)), (status, drive), "{bytes}");
        rig.write(4, 2, Width::B1, 4);
        rig.write(4, 0, Width::B1, 0);
    }
    rig.write(9, 0, Width::B1, 4);
    assert_eq!(rig.status(8), 0x80);
    rig.write(9, 0, Width::B1, 0);
    assert_eq!((rig.status(8), rig.read(8, 1, Width::B1)), (0x50, 1));
    // The wrong direction moves nothing; without mastering nothing moves.
    for (direction, command) in [(1, 5), (9, 1)] {
        rig.ide.config_mut().write(offset::COMMAND, Width::B2, command);
        rig.memory.0[0x2000..0x2200].fill(0xEE);
        regions(&mut rig, &[(0x2000, 512)]);
        rig.command(8, [0, 1, 3, 0, 0, 0xE0, 0xC8]);
        rig.write(4, 0, Width::B1, direction);
        rig.settle();
        assert_eq!((rig.status(8), rig.memory.0[0x2000]), (0x80, 0xEE));
        rig.write(4, 0, Width::B1, 0);
        rig.write(9, 0, Width::B1, 4);
        rig.write(9, 0, Width::B1, 0);
    }
}

#[test]
fn packets_move_in_blocks_of_the_host_s_choice() {
    let mut rig = rig();
    let packet = |rig: &mut Rig, bytes: [u8; 12], limit: u16| {
        let [low, high] = limit.to_le_bytes();
        rig.command(10, [0, 0, 0, low, high, 0xB0, 0xA0]);
        assert_eq!((rig.status(10), rig.read(10, 2, Width::B1)), (0x58, 1), "a packet is wanted");
        bytes.chunks(2).for_each(|pair| rig.write(10, 0, Width::B2, u16::from_le_bytes([pair[0], pair[1]]).into()));
        rig.settle();
    };
    packet(&mut rig, [0x03, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0], 0);
    assert!(rig.wires.level(15));
    assert_eq!([2, 4, 5].map(|port| rig.read(10, port, Width::B1)), [2, 18, 0], "towards the host, 18 bytes");
    assert_eq!(rig.data(10, 18)[2], 6);
    assert!(rig.wires.level(15), "an interrupt ends it");
    assert_eq!((rig.status(10), rig.read(10, 2, Width::B1)), (0x50, 3));
    packet(&mut rig, [0x28, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 0], 3000);
    let mut bytes = Vec::new();
    for length in [3000, 1096] {
        assert!(rig.wires.level(15));
        let told = rig.read(10, 4, Width::B1) | rig.read(10, 5, Width::B1) << 8;
        assert_eq!((rig.status(10), told), (0x58, length));
        bytes.extend(rig.data(10, length as usize));
    }
    assert!(is_pattern(&bytes, 2048));
    assert_eq!(rig.status(10), 0x50);
}

#[test]
fn cables_without_drives() {
    let mut rig = rig();
    // Drive 0 answers 00h for the missing drive 1, and its own registers.
    rig.write(8, 6, Width::B1, 0xB0);
    assert_eq!((rig.status(8), rig.read(9, 0, Width::B1)), (0, 0));
    rig.write(8, 7, Width::B1, 0xEC);
    assert_eq!((rig.status(8), rig.ide.next_event()), (0, None));
    let mut empty = Piix3Ide::detached();
    let mut cx = Ctx { now: Tick(0), dma: &mut Memory(Vec::new()) };
    for (range, port) in [(8, 7), (9, 0), (10, 2), (11, 0)] {
        assert_eq!(empty.port_read(&mut cx, range, port, Width::B1), Ok(0x7F), "an empty cable floats, but for DD7");
    }
}

#[test]
fn interrupts_can_be_switched_off() {
    let mut rig = rig();
    rig.write(9, 0, Width::B1, 2);
    rig.command(8, [0, 0, 0, 0, 0, 0xE0, 0xE7]);
    rig.settle();
    assert!(!rig.wires.level(14));
    rig.write(9, 0, Width::B1, 0);
    assert!(rig.wires.level(14), "it waited");
    rig.command(8, [0, 0, 0, 0, 0, 0xE0, 0x00]);
    assert_eq!((rig.status(8), rig.read(8, 1, Width::B1)), (0x51, 4), "NOP is aborted");
}

#[test]
fn any_sequence() {
    let make = || {
        let cd = Medium::inline(Box::new(Scripted::pattern(5000 * 2048).read_only().bad(100..200)));
        let drives = [[Some(disk(40 << 20)), Some(Drive::Cdrom(Cdrom::new(Some(cd), "C")))], [None, None]];
        let mut ide = Piix3Ide::new([IrqLine::detached(), IrqLine::detached()], drives);
        ide.config_mut().write(offset::COMMAND, Width::B2, 5);
        ide
    };
    let block = (0..8).map(|port| Place::Port(8, port));
    // The command register often, and commands that move data among what is written there.
    let often = [Place::Port(8, 7), Place::Port(8, 0), Place::Port(9, 0), Place::Port(4, 0), Place::Port(4, 2)];
    check_places(make, &block.chain(often).collect::<Vec<_>>());
}

#[test]
fn arbitrary_commands_with_arbitrary_tables() {
    use proptest::prelude::*;
    let registers = any::<[u8; 7]>();
    let known = prop::sample::select(vec![
        0x20_u8, 0x24, 0xC8, 0x25, 0x30, 0xCA, 0x35, 0xC4, 0xC5, 0xEC, 0xA1, 0xA0, 0xE7, 0xEF,
    ]);
    let step = (registers, known, any::<[u8; 12]>(), any::<[u8; 16]>(), any::<bool>());
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) }, |(
        steps in proptest::collection::vec(step, 1..20)
    )| {
        let mut rig = rig();
        for (mut registers, code, packet, table, second) in steps {
            let range = if second { 10 } else { 8 };
            registers[6] = code;
            rig.memory.0[0x1000..0x1010].copy_from_slice(&table);
            rig.write(4, if second { 12 } else { 4 }, Width::B4, 0x1000);
            rig.command(range, registers);
            packet.chunks(2).for_each(|pair| {
                rig.write(range, 0, Width::B2, u16::from_le_bytes([pair[0], pair[1]]).into());
            });
            rig.write(4, if second { 8 } else { 0 }, Width::B1, u32::from(table[15] & 8) | 1);
            rig.settle();
            rig.data(range, 600);
            rig.settle();
            rig.write(4, if second { 8 } else { 0 }, Width::B1, 0);
            rig.write(range + 1, 0, Width::B1, 4);
            rig.write(range + 1, 0, Width::B1, 0);
            prop_assert_eq!(rig.status(range) & 0x88, 0, "a reset ends everything");
        }
    });
}
