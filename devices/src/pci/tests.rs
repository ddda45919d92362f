//! The bus, its configuration mechanism and the chipset's functions, as firmware and systems use them.

use super::i440fx::I440fx;
use super::piix3::{Piix3, ResetKind};
use super::piix3_ide::{LegacyPorts, Piix3Ide};
use super::piix4_pm::{PMBASE, PMREGMISC, Piix4Pm};
use super::*;
use crate::testing::at;
use crate::wire::{IrqLine, WireBundle};

const HOST: PciAddress = PciAddress::new(0, 0);
const ISA: PciAddress = PciAddress::new(1, 0);
const IDE: PciAddress = PciAddress::new(1, 1);
const PM: PciAddress = PciAddress::new(1, 3);
const CARD: PciAddress = PciAddress::new(3, 0);

/// A function with every kind of window.
struct Card(ConfigSpace);

impl PciFunction for Card {
    fn config(&self) -> &ConfigSpace {
        &self.0
    }
    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.0
    }
}

impl Device for Card {
    fn name(&self) -> &'static str {
        "card"
    }
    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.0.reset();
    }
    fn save(&self) -> Vec<u8> {
        save_state(&self.0.registers())
    }
    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        self.0.set_registers(restore_state("card", state)?);
        Ok(())
    }
}

fn card() -> Card {
    let identity = Identity { vendor: 0x1234, device: 0x5678, class: 0x01_0601, revision: 9 };
    Card(
        ConfigSpace::new(identity)
            .bar(0, Bar::Io { size: 0x20 })
            .bar(1, Bar::Memory32 { size: 0x1000 })
            .bar(2, Bar::Memory64 { size: 0x4_0000_0000 })
            .bar(6, Bar::Rom { size: 0x1_0000 })
            .interrupt_pin(IntPin::A)
            .subsystem(0xABCD, 0xEF01)
            .capability(0x50, 0x05, &[0x80, 0x00])
            .capability(0x60, 0x09, &[0x10]),
    )
}

fn board(isa: &WireBundle) -> PciBus {
    let mut bus = PciBus::new();
    bus.add(HOST, Box::new(I440fx::new(64 << 20))).unwrap();
    bus.add(ISA, Box::new(Piix3::new(std::array::from_fn(|irq| isa.line(irq as u8))))).unwrap();
    bus.add(IDE, Box::new(Piix3Ide::detached())).unwrap();
    bus.add(PM, Box::new(Piix4Pm::new(isa.line(9), isa.line(9)))).unwrap();
    bus.add(CARD, Box::new(card())).unwrap();
    bus.take_map_changes();
    bus
}

impl PciBus {
    fn input(&mut self, port: u16, width: Width) -> Result<u32, IoError> {
        at(Tick(0), |cx| self.port_read(cx, 0, port - 0xCF8, width))
    }
    fn output(&mut self, port: u16, width: Width, value: u32) -> Result<(), IoError> {
        at(Tick(0), |cx| self.port_write(cx, 0, port - 0xCF8, width, value))
    }
    fn get32(&self, at: PciAddress, offset: u8) -> u32 {
        self.config_read(at, offset, Width::B4)
    }
    fn put(&mut self, to: PciAddress, offset: u8, width: Width, value: u32) {
        at(Tick(0), |cx| self.config_write(cx, to, offset, width, value));
    }
    fn put32(&mut self, to: PciAddress, offset: u8, value: u32) {
        self.put(to, offset, Width::B4, value);
    }
    fn put8(&mut self, to: PciAddress, offset: u8, value: u8) {
        self.put(to, offset, Width::B1, value.into());
    }
    /// The bases of the windows that changed.
    fn moved(&mut self) -> Vec<(u8, Option<u64>)> {
        let window = |change: MapChange| match change.mapping {
            Mapping::Window { window, base, .. } => Some((window, base)),
            _ => None,
        };
        self.take_map_changes().into_iter().filter_map(window).collect()
    }
}

#[test]
fn mechanism_one() {
    let mut bus = board(&WireBundle::new());
    assert_eq!(bus.input(0xCFC, Width::B4), Err(IoError::NoSuchRegister), "not enabled: an ordinary port");
    bus.output(0xCF8, Width::B4, 0xFFFF_FFFF).unwrap();
    assert_eq!(bus.input(0xCF8, Width::B4), Ok(0x80FF_FFFC));
    assert_eq!(bus.input(0xCFC, Width::B4), Ok(0xFFFF_FFFF), "other buses are absent");
    // (address, port, width) → value.
    #[rustfmt::skip]
    let table = [
        (0x8000_0000, 0xCFC, Width::B4, 0x1237_8086), (0x8000_0000, 0xCFE, Width::B2, 0x1237),
        (0x8000_0000, 0xCFF, Width::B1, 0x12),        (0x8000_0800, 0xCFC, Width::B4, 0x7000_8086),
        (0x8000_0900, 0xCFC, Width::B4, 0x7010_8086), (0x8000_0B00, 0xCFC, Width::B4, 0x7113_8086),
        (0x8000_080C, 0xCFE, Width::B1, 0x80),        (0x8000_090C, 0xCFE, Width::B1, 0x00),
        (0x8000_000C, 0xCFE, Width::B1, 0x00),        (0x8000_0808, 0xCFC, Width::B4, 0x0601_0000),
        (0x8000_0908, 0xCFC, Width::B4, 0x0101_8000), (0x8000_0B08, 0xCFC, Width::B4, 0x0680_0003),
        (0x8000_1800, 0xCFC, Width::B4, 0x5678_1234), (0x8000_0A00, 0xCFC, Width::B4, 0xFFFF_FFFF),
        (0x8000_2000, 0xCFC, Width::B2, 0xFFFF),      (0x8001_0000, 0xCFC, Width::B1, 0xFF),
        (0x8000_182C, 0xCFC, Width::B4, 0xEF01_ABCD), (0x8000_1834, 0xCFC, Width::B1, 0x60),
        (0x8000_1860, 0xCFC, Width::B4, 0x0010_5009), (0x8000_1850, 0xCFC, Width::B4, 0x0080_0005),
        (0x8000_1804, 0xCFC, Width::B4, 0x0010_0000), (0x8000_1808, 0xCFC, Width::B4, 0x0106_0109),
    ];
    for (address, port, width, want) in table {
        bus.output(0xCF8, Width::B4, address).unwrap();
        assert_eq!(bus.input(port, width), Ok(want), "{address:#x} {port:#x}");
    }
    assert_eq!(bus.input(0xCFF, Width::B2), Err(IoError::BadWidth));
    assert_eq!(bus.input(0xCF8, Width::B1), Err(IoError::NoSuchRegister), "CONFADD is for 32 bits only");
    bus.output(0xCF8, Width::B4, 0x8000_183C).unwrap();
    bus.output(0xCFC, Width::B1, 0x0B).unwrap();
    assert_eq!(bus.input(0xCFC, Width::B4), Ok(0x0000_010B), "line written, pin read-only");
}

#[test]
fn slots_are_unique_and_typed() {
    let mut bus = board(&WireBundle::new());
    assert_eq!(bus.add(HOST, Box::new(card())), Err(SlotTaken(HOST)));
    assert!(bus.get_mut::<Piix4Pm>(PM).is_some());
    assert!(bus.get::<Piix4Pm>(ISA).is_none() && bus.get::<Card>(PciAddress::new(9, 0)).is_none());
}

#[test]
fn sizing_and_moving_windows() {
    let mut bus = board(&WireBundle::new());
    #[rustfmt::skip]
    let sizes = [
        (0x10, 0xFFFF_FFE1), (0x14, 0xFFFF_F000), (0x18, 0x0000_000C), (0x1C, 0xFFFF_FFFC), (0x20, 0), (0x24, 0),
        (0x30, 0xFFFF_0001),
    ];
    for (offset, want) in sizes {
        bus.put32(CARD, offset, 0xFFFF_FFFF);
        assert_eq!(bus.get32(CARD, offset), want, "{offset:#x}");
    }
    assert_eq!(bus.moved(), [], "nothing is decoded while the command register is 0");
    bus.put(CARD, 0x04, Width::B2, 3);
    assert_eq!(bus.moved(), [], "a base of all ones is a register being sized");
    bus.put32(CARD, 0x10, 0xC000);
    assert_eq!(bus.moved(), [(0, Some(0xC000))]);
    bus.put32(CARD, 0x14, 0xFEBF_1234);
    assert_eq!(bus.moved(), [(1, Some(0xFEBF_1000))]);
    bus.put32(CARD, 0x18, 0);
    bus.put32(CARD, 0x1C, 4);
    assert_eq!(bus.moved(), [(2, Some(0x4_0000_0000))]);
    bus.put32(CARD, 0x30, 0xFEB0_0000);
    assert_eq!(bus.moved(), [], "the ROM has its own enable");
    bus.put32(CARD, 0x30, 0xFEB0_0001);
    assert_eq!(bus.moved(), [(6, Some(0xFEB0_0000))]);
    bus.put(CARD, 0x10, Width::B2, 0xD000);
    assert_eq!(bus.moved(), [(0, Some(0xD000))], "moved by a word write");
    bus.put(CARD, 0x04, Width::B2, 1);
    assert_eq!(bus.moved(), [(1, None), (2, None), (6, None)]);
    at(Tick(0), |cx| bus.reset(cx));
    assert_eq!(bus.moved(), [(0, None)]);
}

/// Base, size, reads, writes.
type Region = (u64, u64, Decode, Decode);

#[test]
fn shadow_memory() {
    let mut bus = board(&WireBundle::new());
    // (register, value) → the regions that changed.
    use Decode::{Bus, Dram};
    #[rustfmt::skip]
    let table: [(u8, u8, &[Region]); 7] = [
        (0x59, 0x33, &[(0xF_0000, 0x1_0000, Dram, Dram)]),
        (0x59, 0x10, &[(0xF_0000, 0x1_0000, Dram, Bus)]),
        (0x5A, 0x31, &[(0xC_0000, 0x4000, Dram, Bus), (0xC_4000, 0x4000, Dram, Dram)]),
        (0x5A, 0x31, &[]),
        (0x5D, 0x02, &[(0xD_8000, 0x4000, Bus, Dram)]),
        (0x5F, 0x33, &[(0xE_8000, 0x4000, Dram, Dram), (0xE_C000, 0x4000, Dram, Dram)]),
        (0x5F, 0xCC, &[(0xE_8000, 0x4000, Bus, Bus), (0xE_C000, 0x4000, Bus, Bus)]),
    ];
    for (register, value, want) in table {
        bus.put8(HOST, register, value);
        let shadow = |change: MapChange| match change.mapping {
            Mapping::Shadow { base, size, reads, writes } => (base.0, size, reads, writes),
            other => panic!("{other:?}"),
        };
        let got: Vec<_> = bus.take_map_changes().into_iter().map(shadow).collect();
        assert_eq!(got, want, "{register:#x} = {value:#x}");
    }
    bus.put32(HOST, 0x58, 0x3333_3300);
    assert_eq!(bus.take_map_changes().len(), 4, "one 32-bit write sets several; C4000h stays as it was");
}

#[test]
fn smram_opens_and_locks() {
    let mut bus = board(&WireBundle::new());
    // Written → read back, mapping if it changed.
    #[rustfmt::skip]
    let table = [
        (0x08, 0x0A, Some(Smram::Smm)), (0x48, 0x4A, Some(Smram::Open)), (0x28, 0x2A, Some(Smram::SmmCode)),
        (0x40, 0x42, Some(Smram::Disabled)), (0x58, 0x1A, Some(Smram::Smm)), (0x48, 0x1A, None), (0x00, 0x1A, None),
    ];
    for (value, read, want) in table {
        bus.put8(HOST, 0x72, value);
        assert_eq!(bus.config_read(HOST, 0x72, Width::B1), read, "{value:#x}");
        let got = bus.take_map_changes().pop().map(|change| change.mapping);
        assert_eq!(got, want.map(Mapping::Smram));
    }
}

#[test]
fn dram_boundaries_add_up() {
    for (memory, want) in [
        (64 << 20, [8; 8]),
        (512 << 20, [16, 32, 48, 64, 64, 64, 64, 64]),
        (4 << 30, [16, 32, 48, 64, 80, 96, 112, 128]),
    ] {
        let bridge = I440fx::new(memory);
        assert_eq!(std::array::from_fn(|row| bridge.config().byte(0x60 + row as u8)), want);
    }
}

#[test]
fn pirq_routing() {
    let isa = WireBundle::new();
    let mut bus = board(&isa);
    let set = |bus: &mut PciBus, pirq, level| bus.get_mut::<Piix3>(ISA).unwrap().set_pirq(pirq, level);
    set(&mut bus, 0, true);
    assert!(!isa.has_changes(), "not routed after reset");
    bus.put8(ISA, 0x60, 10);
    bus.put8(ISA, 0x61, 10);
    assert!(isa.level(10));
    set(&mut bus, 1, true);
    set(&mut bus, 0, false);
    assert!(isa.level(10), "shared");
    bus.put8(ISA, 0x61, 11);
    assert!(!isa.level(10) && isa.level(11), "moved");
    for reserved in [0, 1, 2, 8, 13, 0x80 | 5] {
        bus.put8(ISA, 0x61, reserved);
        assert_eq!(bus.get::<Piix3>(ISA).unwrap().route(1), None, "{reserved:#x}");
        assert!(!isa.level(11) && !isa.level(reserved & 0xF));
    }
    assert_eq!(
        (swizzle(1, IntPin::A), swizzle(2, IntPin::A), swizzle(3, IntPin::D), swizzle(0, IntPin::A)),
        (0, 1, 1, 3)
    );
}

#[test]
fn reset_control() {
    let mut bus = board(&WireBundle::new());
    let taken = |bus: &mut PciBus| bus.get_mut::<Piix3>(ISA).unwrap().take_reset();
    #[rustfmt::skip]
    let table = [
        (0x02, None), (0x06, Some(ResetKind::Hard)), (0x06, None), (0x00, None), (0x04, Some(ResetKind::Soft)), (0x0E, None),
    ];
    for (value, want) in table {
        bus.output(0xCF9, Width::B1, value).unwrap();
        assert_eq!(taken(&mut bus), want, "{value:#x}");
        assert_eq!(bus.input(0xCF9, Width::B1), Ok(value & 6));
    }
    // The host bridge has one too.
    bus.put8(HOST, 0x93, 0x02);
    bus.put8(HOST, 0x93, 0x06);
    assert_eq!(bus.get_mut::<I440fx>(HOST).unwrap().take_reset(), Some(ResetKind::Hard));
    assert_eq!(bus.config_read(HOST, 0x93, Width::B1), 2);
}

#[test]
fn power_management_windows() {
    let mut bus = board(&WireBundle::new());
    bus.put32(PM, PMBASE, 0xFFFF_0601);
    assert_eq!(bus.get32(PM, PMBASE), 0x601);
    assert_eq!(bus.moved(), []);
    bus.put8(PM, PMREGMISC, 1);
    assert_eq!(bus.moved(), [(8, Some(0x600))]);
    bus.put32(PM, 0x90, 0x701);
    bus.put8(PM, 0xD2, 9);
    assert_eq!(bus.moved(), []);
    bus.put(PM, 0x04, Width::B2, 1);
    assert_eq!(bus.moved(), [(9, Some(0x700))]);
    assert_eq!(bus.get32(PM, 0x58) & 1 << 25, 1 << 25, "SMI is set up");
    let function = bus.function_mut(PM).unwrap();
    at(Tick(0), |cx| {
        assert_eq!(function.port_read(cx, 8, 4, Width::B2), Ok(1));
        function.port_write(cx, 8, 4, Width::B2, 0x2000).unwrap();
        function.port_write(cx, 10, 0, Width::B1, 0xF1).unwrap();
        assert_eq!(function.port_read(cx, 9, 0, Width::B1), Ok(0));
    });
    let event = bus.get_mut::<Piix4Pm>(PM).unwrap().pm.take_power_event();
    assert_eq!(event, Some(crate::acpi_pm::PowerEvent::SoftOff));
}

#[test]
fn a_board_can_have_the_ide_ports_decoded_from_reset() {
    let mut ide = Piix3Ide::detached().with_ports(LegacyPorts::FromReset);
    for _ in 0..2 {
        assert!(ide.mappings().iter().all(|mapping| matches!(mapping, Mapping::Window { base: None, .. })));
        ide.config_mut().write(0x04, Width::B2, 1);
        let bases: Vec<_> = ide
            .mappings()
            .into_iter()
            .filter_map(|mapping| if let Mapping::Window { base, .. } = mapping { base } else { None })
            .collect();
        assert_eq!(bases, [0x1F0, 0x3F6, 0x170, 0x376]);
        ide.config_mut().write(0x40, Width::B2, 0);
        at(Tick(0), |cx| ide.reset(cx));
    }
}

#[test]
fn empty_ide_channels_float() {
    let mut bus = board(&WireBundle::new());
    bus.put(IDE, 0x04, Width::B2, 5);
    assert_eq!(bus.moved(), [], "the channels have their own decode bits");
    bus.put(IDE, 0x40, Width::B2, 0x8000);
    assert_eq!(bus.moved(), [(8, Some(0x1F0)), (9, Some(0x3F6))]);
    bus.put32(IDE, 0x20, 0xFFFF_FFFF);
    assert_eq!(bus.get32(IDE, 0x20), 0xFFFF_FFF1);
    bus.put32(IDE, 0x20, 0xC041);
    bus.put(IDE, 0x42, Width::B2, 0x8000);
    assert_eq!(bus.moved().len(), 3, "bus master to C040h; two more ports");
    let function = bus.function_mut(IDE).unwrap();
    at(Tick(0), |cx| {
        assert_eq!(function.port_read(cx, 8, 7, Width::B1), Ok(0x7F));
        assert_eq!(function.port_read(cx, 8, 0, Width::B2), Ok(0xFF7F));
        function.port_write(cx, 4, 0xA, Width::B1, 0x66).unwrap();
        function.port_write(cx, 4, 0x8, Width::B1, 0x09).unwrap();
        assert_eq!(function.port_read(cx, 4, 8, Width::B4), Ok(0x0061_0009));
        function.port_write(cx, 4, 0xC, Width::B4, 0x1234_5677).unwrap();
        assert_eq!(function.port_read(cx, 4, 0xC, Width::B4), Ok(0x1234_5674));
        assert_eq!(function.port_read(cx, 4, 0, Width::B4), Ok(0));
    });
}

#[test]
fn a_saved_bus_comes_back_with_its_map() {
    let mut bus = board(&WireBundle::new());
    bus.put32(CARD, 0x10, 0xC000);
    bus.put(CARD, 0x04, Width::B2, 1);
    bus.put8(HOST, 0x59, 0x30);
    let saved = bus.save();
    let mut twin = board(&WireBundle::new());
    twin.restore(&saved).unwrap();
    assert_eq!(twin.save(), saved);
    assert!(twin.moved().contains(&(0, Some(0xC000))));
    let mut other = PciBus::new();
    assert!(other.restore(&saved).is_err(), "other functions");
}

#[test]
fn interrupt_status_and_disable() {
    let mut card = card();
    assert!(card.0.set_interrupt(true));
    assert_eq!(card.0.word(offset::STATUS) & 8, 8);
    card.0.write(offset::COMMAND, Width::B2, 0x400);
    assert!(!card.0.set_interrupt(true), "disabled");
    assert!(!card.0.set_interrupt(false));
    assert_eq!(card.0.word(offset::STATUS) & 8, 0);
}

#[test]
fn any_sequence() {
    let bus = || {
        let mut bus = board(&WireBundle::new());
        bus.output(0xCF8, Width::B4, 0x8000_0058).unwrap();
        bus
    };
    crate::testing::check_device(bus, &[8]);
    crate::testing::check_device(
        || Piix4Pm::new(IrqLine::detached(), IrqLine::detached()),
        &[0, 0, 0, 0, 0, 0, 0, 0, 64, 16, 2],
    );
    crate::testing::check_device(Piix3Ide::detached, &[0, 0, 0, 0, 16, 0, 0, 0, 8, 1]);
}
