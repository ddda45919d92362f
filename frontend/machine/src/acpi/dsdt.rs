//! The DSDT: soft-off, the PCI root bridge with its windows and interrupt routing, and the ISA devices.

use super::{AcpiBoard, OEM, OEM_TABLE, REVISION, bytes_of};
use crate::wiring;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, EISAName, Else, IO, If, Memory32Fixed, Method, Name, ONE,
    Package, PackageBuilder, Path, ResourceTemplate, Return, Scope, Store, ZERO,
};
use acpi_tables::sdt::Sdt;
use acpi_tables::{Aml, AmlSink};

/// The IRQ descriptor without flags (ACPI 6.5, 6.4.2.1): edge-triggered, active high, one of 16.
struct IsaIrq(u8);

impl Aml for IsaIrq {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        let mask = 1_u16.checked_shl(self.0.into()).unwrap_or(0).to_le_bytes();
        sink.vec(&[0x22, mask[0], mask[1]]);
    }
}

/// Bytes that are AML already.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        sink.vec(&self.0);
    }
}

/// A name and its value.
fn named(name: &str, value: &dyn Aml) -> Raw {
    Raw(bytes_of(&Name::new(name.into(), value)))
}

/// A device and what is in it.
fn device(name: &str, children: &[Raw]) -> Raw {
    Raw(bytes_of(&Device::new(name.into(), children.iter().map(|child| child as &dyn Aml).collect())))
}

/// The resources that a device has now.
fn resources(list: &[&dyn Aml]) -> Raw {
    named("_CRS", &ResourceTemplate::new(list.to_vec()))
}

pub(super) fn build(board: &AcpiBoard) -> Vec<u8> {
    let mode = Path::new("PICF");
    let set_mode = Store::new(&mode, &Arg(0));
    let bridge = root_bridge(board);
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, REVISION);
    // SLP_TYP of soft-off is 0 in the PIIX4.
    table.append_slice(&named("_S5_", &Package::new(vec![&ZERO, &ZERO, &ZERO, &ZERO])).0);
    // The guest says which interrupt controller it uses: 0 the 8259s, 1 the I/O APIC.
    table.append_slice(&named("PICF", &ZERO).0);
    table.append_slice(&bytes_of(&Method::new("_PIC".into(), 1, false, vec![&set_mode])));
    table.append_slice(&bytes_of(&Scope::new("_SB_".into(), vec![&bridge])));
    table.as_slice().to_vec()
}

fn root_bridge(board: &AcpiBoard) -> Raw {
    use AddressSpaceCacheable::{Cacheable, NotCacheable};
    let pci_start = board.map.low_end().0.max(0x1000_0000) as u32;
    let windows: [&dyn Aml; 6] = [
        &AddressSpace::new_bus_number(0_u16, 0xFF),
        &IO::new(0xCF8, 0xCF8, 1, 8),
        &AddressSpace::new_io(0_u16, 0xCF7, None),
        &AddressSpace::new_io(0xD00_u16, 0xFFFF, None),
        &AddressSpace::new_memory(Cacheable, true, 0xA_0000_u32, 0xB_FFFF, None),
        &AddressSpace::new_memory(NotCacheable, true, pci_start, wiring::PCI_WINDOW_END as u32 - 1, None),
    ];
    let (mode, by_pic, by_apic) = (Path::new("PICF"), Path::new("PPRT"), Path::new("APRT"));
    let (return_pic, return_apic) = (Return::new(&by_pic), Return::new(&by_apic));
    let (with_apic, without) = (If::new(&mode, vec![&return_apic]), Else::new(vec![&return_pic]));
    device(
        "PCI0",
        &[
            named("_HID", &EISAName::new("PNP0A03")),
            named("_ADR", &ZERO),
            named("_UID", &ZERO),
            resources(&windows),
            named("PPRT", &routing(wiring::PIRQ_ISA)),
            named("APRT", &routing(wiring::PIRQ_IOAPIC)),
            Raw(bytes_of(&Method::new("_PRT".into(), 0, false, vec![&with_apic, &without]))),
            isa_bridge(board),
        ],
    )
}

/// One row for each pin of each slot: address, pin, no link device, interrupt.
fn routing(interrupts: [u8; 4]) -> PackageBuilder {
    let mut table = PackageBuilder::new();
    for slot in 0..32_u8 {
        for pin in 0..4_u8 {
            let interrupt = interrupts[usize::from(wiring::pirq_of(slot, pin))];
            let address = u32::from(slot) << 16 | 0xFFFF;
            table.add_element(&Package::new(vec![&address, &pin, &ZERO, &interrupt]));
        }
    }
    table
}

/// An ISA device: name, PNP identifier, unit number, port ranges, interrupt.
type IsaDevice = (&'static str, &'static str, u8, &'static [(u16, u8)], Option<u8>);

#[rustfmt::skip]
const ISA_DEVICES: &[IsaDevice] = &[
    ("PIC_", "PNP0000", 0, &[(0x20, 2), (0xA0, 2), (0x4D0, 2)], None),
    ("TMR_", "PNP0100", 0, &[(0x40, 4)],                        Some(0)),
    ("RTC_", "PNP0B00", 0, &[(0x70, 2)],                        Some(8)),
    ("KBD_", "PNP0303", 0, &[(0x60, 1), (0x64, 1)],             Some(1)),
    ("MOU_", "PNP0F13", 0, &[],                                 Some(12)),
];

const SERIAL_DEVICES: [IsaDevice; 2] = [
    ("COM1", "PNP0501", 1, &[(wiring::SERIAL_PORTS[0].0, 8)], Some(wiring::SERIAL_PORTS[0].1)),
    ("COM2", "PNP0501", 2, &[(wiring::SERIAL_PORTS[1].0, 8)], Some(wiring::SERIAL_PORTS[1].1)),
];

fn isa_bridge(board: &AcpiBoard) -> Raw {
    let serial = SERIAL_DEVICES.iter().take(board.serial_ports.into());
    let mut children = vec![named("_ADR", &0x1_0000_u32)];
    children.extend(ISA_DEVICES.iter().chain(serial).map(isa_device));
    // Ports of the power management, so that nothing else is put there.
    let power = IO::new(wiring::PM_BASE, wiring::PM_BASE, 1, 0x40);
    children
        .push(device("MBRD", &[named("_HID", &EISAName::new("PNP0C02")), named("_UID", &ONE), resources(&[&power])]));
    if board.hpet_id.is_some() {
        let window = Memory32Fixed::new(false, wiring::HPET_BASE.0 as u32, 0x400);
        children.push(device("HPET", &[named("_HID", &EISAName::new("PNP0103")), resources(&[&window])]));
    }
    device("ISA_", &children)
}

fn isa_device(&(name, hid, unit, ports, irq): &IsaDevice) -> Raw {
    let ports: Vec<IO> = ports.iter().map(|&(port, length)| IO::new(port, port, 1, length)).collect();
    let irq = irq.map(IsaIrq);
    let mut list: Vec<&dyn Aml> = ports.iter().map(|io| io as &dyn Aml).collect();
    list.extend(irq.iter().map(|irq| irq as &dyn Aml));
    device(name, &[named("_HID", &EISAName::new(hid)), named("_UID", &unit), named("_STA", &0xF_u8), resources(&list)])
}
