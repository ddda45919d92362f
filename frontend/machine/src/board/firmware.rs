//! What the system firmware would have done before it started a kernel, for machines that start one without firmware.
//!
//! Memory below 1 MiB is RAM throughout; PCI interrupts are routed and level-triggered; the power-management block is at
//! its address; the bootstrap processor's local APIC is in virtual-wire mode; A20 is open; the 8259s are initialised to
//! vectors 08h and 70h, masked; both IDE channels answer; the CMOS RAM tells the memory size; and the BIOS data area tells what a scan looks for.
//!
//! The display adapter is in text mode, its windows placed.
//!
//! Leaves out: interrupt services (there is no INT 10h to call), the MP tables.

use super::Board;
use crate::acpi::AcpiBoard;
use crate::memory_map::{E820Kind, EBDA_BASE, EXTENDED_BASE, LOW_RAM_LIMIT, MemoryMap};
use crate::wiring::{self, Slot};
use umbra_devices::device::{Ctx, Width};
use umbra_devices::pci::ac97::{Ac97, MASTER_WINDOW, MIXER_WINDOW};
use umbra_devices::pci::ahci::{Ahci, PORT_WINDOW, REGISTER_WINDOW};
use umbra_devices::pci::offset;
use umbra_devices::pci::piix3_ide::{BUS_MASTER_WINDOW, TIMING};
use umbra_devices::pci::piix4_pm::{PMBASE, PMREGMISC};
use umbra_devices::pci::virtio;
use umbra_mmu::addr::GuestPhys;

/// Configuration registers that firmware writes: PAM 0–6, PIRQ routes A–D.
const PAM: [(u8, u32); 7] =
    [(0x59, 0x30), (0x5A, 0x33), (0x5B, 0x33), (0x5C, 0x33), (0x5D, 0x33), (0x5E, 0x33), (0x5F, 0x33)];
const PIRQ_ROUTES: u8 = 0x60;
/// Initialisation commands of the 8259s: cascade, with ICW4, 8086 mode; then everything masked.
#[rustfmt::skip]
const PIC_SETUP: [(u16, u32); 10] = [
    (0x20, 0x11), (0x21, 0x08), (0x21, 0x04), (0x21, 0x01), (0xA0, 0x11),
    (0xA1, 0x70), (0xA1, 0x02), (0xA1, 0x01), (0x21, 0xFF), (0xA1, 0xFF),
];
const COMMAND_IO: u32 = 1;
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_MASTER: u32 = 1 << 2;
/// IDE timing register: decode the channel's ports.
const IDE_DECODE: u32 = 1 << 15;

impl Board {
    /// Does what firmware would have done.
    pub fn play_firmware(&mut self, map: &MemoryMap) {
        for (register, value) in PAM {
            self.write_config(wiring::HOST_BRIDGE, register, Width::B1, value);
        }
        for (line, irq) in (0..).zip(wiring::PIRQ_ISA) {
            self.write_config(wiring::ISA_BRIDGE, PIRQ_ROUTES + line, Width::B1, irq.into());
        }
        self.write_config(wiring::POWER, PMBASE, Width::B4, u32::from(wiring::PM_BASE) | 1);
        self.write_config(wiring::POWER, PMREGMISC, Width::B1, 1);
        self.write_config(wiring::POWER, offset::COMMAND, Width::B2, COMMAND_IO);
        self.write_config(wiring::POWER, offset::INTERRUPT_LINE, Width::B1, wiring::SCI_IRQ.into());
        let bus_master = offset::BAR0 + 4 * BUS_MASTER_WINDOW;
        self.write_config(wiring::IDE, bus_master, Width::B4, wiring::IDE_BUS_MASTER.into());
        for channel in 0..2 {
            self.write_config(wiring::IDE, TIMING + 2 * channel, Width::B2, IDE_DECODE);
        }
        self.write_config(wiring::IDE, offset::COMMAND, Width::B2, COMMAND_IO | COMMAND_MASTER);
        self.place_ahci();
        self.place_sound();
        self.place_virtio();
        for (register, base) in wiring::VGA_BARS {
            self.write_config(wiring::VGA, register, Width::B4, base);
        }
        self.write_config(wiring::VGA, offset::COMMAND, Width::B2, COMMAND_IO | COMMAND_MEMORY);
        self.touch(Slot::Pci);
        let [low, high] = wiring::LEVEL_IRQS.to_le_bytes();
        for (port, value) in PIC_SETUP.into_iter().chain([(0x4D0, low.into()), (0x4D1, high.into()), (0x92, 0x02)]) {
            self.port_write(port, 1, value);
        }
        // 8 data bits, no parity, 1 stop bit.
        for (slot, (port, _)) in Slot::SERIAL.into_iter().zip(wiring::SERIAL_PORTS) {
            if self.chips.is_fitted(slot) {
                self.port_write(port + 3, 1, 3);
            }
        }
        if let Some(boot) = self.vcpus.first_mut() {
            boot.lapic.enter_virtual_wire();
        }
        self.fill_cmos(map);
        self.fill_bios_data(map);
        self.settle();
    }

    fn place_ahci(&mut self) {
        if self.chips.pci.get::<Ahci>(wiring::AHCI).is_none() {
            return;
        }
        let bar = |window| offset::BAR0 + 4 * window;
        let irq = wiring::PIRQ_ISA[usize::from(wiring::pirq_of(wiring::AHCI.device(), 0))];
        self.write_config(wiring::AHCI, bar(PORT_WINDOW), Width::B4, wiring::AHCI_PORTS.into());
        self.write_config(wiring::AHCI, bar(REGISTER_WINDOW), Width::B4, wiring::AHCI_REGISTERS as u32);
        self.write_config(wiring::AHCI, offset::INTERRUPT_LINE, Width::B1, irq.into());
        self.write_config(wiring::AHCI, offset::COMMAND, Width::B2, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
    }

    fn place_sound(&mut self) {
        if self.chips.pci.get::<Ac97>(wiring::SOUND).is_none() {
            return;
        }
        let irq = wiring::PIRQ_ISA[usize::from(wiring::pirq_of(wiring::SOUND.device(), 0))];
        for (window, base) in [(MIXER_WINDOW, wiring::SOUND_MIXER), (MASTER_WINDOW, wiring::SOUND_MASTER)] {
            self.write_config(wiring::SOUND, offset::BAR0 + 4 * window, Width::B4, base.into());
        }
        self.write_config(wiring::SOUND, offset::INTERRUPT_LINE, Width::B1, irq.into());
        self.write_config(wiring::SOUND, offset::COMMAND, Width::B2, COMMAND_IO | COMMAND_MASTER);
    }

    fn place_virtio(&mut self) {
        for (at, registers) in
            [(wiring::TABLET, wiring::TABLET_REGISTERS), (wiring::BALLOON, wiring::BALLOON_REGISTERS)]
        {
            if self.chips.pci.function_mut(at).is_none() {
                continue;
            }
            let irq = wiring::PIRQ_ISA[usize::from(wiring::pirq_of(at.device(), 0))];
            self.write_config(at, offset::BAR0 + 4 * virtio::REGISTER_WINDOW, Width::B4, registers as u32);
            self.write_config(at, offset::INTERRUPT_LINE, Width::B1, irq.into());
            self.write_config(at, offset::COMMAND, Width::B2, COMMAND_MEMORY | COMMAND_MASTER);
        }
    }

    /// Tells firmware what it cannot find out: the memory, in CMOS RAM and as fw_cfg file `etc/e820` (QEMU, "fw_cfg": base
    /// and length in 64 bits, type in 32).
    pub fn tell_firmware(&mut self, map: &MemoryMap) {
        let above_4_gib = (map.high_end().0 - (1 << 32) != 0).then(|| (1 << 32, map.high_end().0 - (1 << 32)));
        let ranges = std::iter::once((0, map.low_end().0)).chain(above_4_gib);
        let entry = |(start, length): (u64, u64)| {
            let [start, length] = [start, length].map(u64::to_le_bytes);
            [&start[..], &length, &(E820Kind::Ram as u32).to_le_bytes()].concat()
        };
        // The name is short and new: this cannot fail.
        let _ = self.chips.fw_cfg().add_file("etc/e820", ranges.flat_map(entry).collect());
    }

    /// Hands the ACPI tables to firmware, with the script that places them.
    pub(crate) fn hand_over_tables(&mut self, board: &AcpiBoard) {
        for (name, bytes) in crate::acpi::loader::files(board) {
            // The names are short and new: this cannot fail.
            let _ = self.chips.fw_cfg().add_file(name, bytes);
        }
    }

    fn write_config(&mut self, at: umbra_devices::pci::PciAddress, register: u8, width: Width, value: u32) {
        let mut cx = Ctx { now: self.now, dma: &mut self.dma };
        self.chips.pci.config_write(&mut cx, at, register, width, value);
    }

    /// Memory sizes and floppy drives where PC firmware keeps them.
    pub(crate) fn fill_cmos(&mut self, map: &MemoryMap) {
        let floppies = self.chips.floppy.as_ref().map_or(0, |fdc| fdc.cmos_types());
        let low = map.low_end().0;
        let base_kib = (EBDA_BASE / 1024) as u16;
        let extended_kib = ((low - EXTENDED_BASE) / 1024).min(0xFFFF) as u16;
        let above_16_mib = (low.saturating_sub(16 << 20) >> 16).min(LOW_RAM_LIMIT >> 16) as u16;
        let above_4_gib = (map.high_end().0 - (1 << 32)) >> 16;
        let cmos = self.chips.rtc().cmos_mut();
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(target) = cmos.get_mut(at..at + bytes.len()) {
                target.copy_from_slice(bytes);
            }
        };
        put(0x10, &[floppies]);
        // A coprocessor, a pointing device, one floppy drive if any.
        put(0x14, &[0b0000_0110 | u8::from(floppies != 0)]);
        put(0x15, &base_kib.to_le_bytes());
        put(0x17, &extended_kib.to_le_bytes());
        put(0x30, &extended_kib.to_le_bytes());
        put(0x34, &above_16_mib.to_le_bytes());
        put(0x5B, &above_4_gib.to_le_bytes()[..3]);
    }

    /// The words of the BIOS data area that kernels look at.
    fn fill_bios_data(&mut self, _map: &MemoryMap) {
        let mut area = [0_u8; 0x100];
        for (number, slot) in Slot::SERIAL.into_iter().enumerate() {
            if self.chips.is_fitted(slot) {
                let port = wiring::SERIAL_PORTS[number].0.to_le_bytes();
                area[2 * number..2 * number + 2].copy_from_slice(&port);
            }
        }
        area[0x0E..0x10].copy_from_slice(&((EBDA_BASE >> 4) as u16).to_le_bytes());
        area[0x13..0x15].copy_from_slice(&((EBDA_BASE / 1024) as u16).to_le_bytes());
        // Text mode 3: 80 columns, 25 rows, CRT controller at 3D4h.
        area[0x49] = 3;
        area[0x4A] = 80;
        area[0x63..0x65].copy_from_slice(&0x3D4_u16.to_le_bytes());
        area[0x84] = 24;
        self.memory.write(GuestPhys(0x400), &area);
        // The extended area begins with its own size in KiB.
        self.memory.write(GuestPhys(EBDA_BASE), &[1]);
    }
}
