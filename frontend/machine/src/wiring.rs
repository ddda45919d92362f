//! The whole PC on one page: which port range and window is whose, and which wire goes where.
//!
//! Devices know offsets and pins only; this page gives them addresses and interrupt numbers, and [`crate::acpi`] tells the
//! guest the same. The board is an i440FX with PIIX3 and the PIIX4's power management.
//!
//! ```text
//!  IRQ 0 timer ─► 8259 0, I/O APIC 2          8259 INTR ─► LINT0 of every local APIC
//!  IRQ n ───────► 8259 n, I/O APIC n          NMI ──────► LINT1
//!  HPET ────────► I/O APIC 20–23, or in place of IRQ 0 and 8
//!  PIRQ A–D ────► PIIX3 ─► an ISA IRQ         I/O APIC ─► messages ─► local APICs
//!             └─► I/O APIC 16–19
//! ```

use umbra_devices::pci::PciAddress;
use umbra_mmu::addr::{GuestPhys, RegionId};

macro_rules! slots {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A place on the board for a chip.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Slot { $($(#[$doc])* $name),* }
        impl Slot {
            /// All slots, in the order of their numbers.
            pub const ALL: [Slot; [$(Slot::$name),*].len()] = [$(Slot::$name),*];
            /// How many there are.
            pub const COUNT: usize = Slot::ALL.len();
        }
    };
}

slots! {
    /// The 8259A pair.
    Pic,
    /// The 8254 timer and port 61h.
    Pit,
    /// The real-time clock and CMOS RAM.
    Rtc,
    /// The keyboard controller with keyboard and mouse.
    Keyboard,
    /// Port 92h.
    Port92,
    /// The first serial port.
    Com1,
    /// The second serial port.
    Com2,
    /// The 8237A pair.
    Dma,
    /// The floppy controller.
    Floppy,
    /// The I/O APIC.
    IoApic,
    /// The high-precision event timer.
    Hpet,
    /// The firmware configuration device.
    FwCfg,
    /// POST code and console ports.
    Debug,
    /// The exit device.
    Exit,
    /// The test device of the kvm-unit-tests interface.
    TestDevice,
    /// PCI bus 0 with everything on it.
    Pci,
    /// The flash memory of UEFI variables.
    Flash,
}

impl Slot {
    /// The serial ports.
    pub const SERIAL: [Slot; 2] = [Slot::Com1, Slot::Com2];
}

/// First port, number of ports, chip, the chip's range.
#[rustfmt::skip]
pub const PORTS: &[(u16, u16, Slot, u8)] = &[
    (0x020, 2, Slot::Pic,    0), (0x0A0, 2, Slot::Pic, 1), (0x4D0, 2, Slot::Pic, 2),
    (0x040, 4, Slot::Pit,    0), (0x061, 1, Slot::Pit, 1),
    (0x070, 2, Slot::Rtc,    0), (0x072, 2, Slot::Rtc, 1),
    (0x060, 1, Slot::Keyboard, 0), (0x064, 1, Slot::Keyboard, 1),
    (0x092, 1, Slot::Port92, 0),
    (SERIAL_PORTS[0].0, 8, Slot::Com1, 0),
    (SERIAL_PORTS[1].0, 8, Slot::Com2, 0),
    (0x080, 1, Slot::Debug,  0), (0x0E9, 1, Slot::Debug, 1),
    (0x0F4, 4, Slot::Exit,   0),
    (0x0E0, 4, Slot::TestDevice, 0), (0x0E4, 4, Slot::TestDevice, 1), (0x0E8, 4, Slot::TestDevice, 2), (0x2000, 24, Slot::TestDevice, 3),
    (0x000, 16, Slot::Dma,   0), (0x0C0, 32, Slot::Dma, 1), (0x081, 15, Slot::Dma, 2),
    (0x510, 2, Slot::FwCfg,  0), (0x514, 8, Slot::FwCfg, 1),
    (0x3F0, 6, Slot::Floppy, 0), (0x3F7, 1, Slot::Floppy, 1),
    (0xCF8, 8, Slot::Pci,    0),
];

/// The local APICs' region: each vCPU sees its own there.
pub const LAPIC_REGION: RegionId = RegionId(0);
/// The I/O APIC's region.
pub const IOAPIC_REGION: RegionId = RegionId(1);
/// The HPET's region.
pub const HPET_REGION: RegionId = RegionId(2);
/// The region of the test device's memory.
pub const TEST_DEVICE_REGION: RegionId = RegionId(3);
/// The display adapter's legacy window, A0000h–BFFFFh.
pub const VGA_REGION: RegionId = RegionId(4);
/// The flash memory's region. Its window is right below the firmware's code.
pub const FLASH_REGION: RegionId = RegionId(5);
/// Regions from this on belong to windows of PCI functions.
pub const FIRST_PCI_REGION: u16 = 16;

/// Region, chip, size of the window in bytes.
#[rustfmt::skip]
pub const WINDOWS: &[(RegionId, GuestPhys, Slot, u64)] = &[
    (IOAPIC_REGION, IOAPIC_BASE, Slot::IoApic, 0x1000),
    (HPET_REGION,   HPET_BASE,   Slot::Hpet,   0x1000),
    (TEST_DEVICE_REGION, TEST_DEVICE_BASE, Slot::TestDevice, 0x1_0000),
];

/// The I/O APIC's window.
pub const IOAPIC_BASE: GuestPhys = GuestPhys(0xFEC0_0000);
/// The I/O APIC's identifier.
pub const IOAPIC_ID: u8 = 0;
/// The HPET's window.
pub const HPET_BASE: GuestPhys = GuestPhys(0xFED0_0000);
/// The local APICs' window at power-on.
pub const LAPIC_BASE: GuestPhys = GuestPhys(0xFEE0_0000);
/// The test device's memory.
pub const TEST_DEVICE_BASE: GuestPhys = GuestPhys(0xFF00_0000);
/// The end of the PCI memory window below the I/O APIC.
pub const PCI_WINDOW_END: u64 = 0xFEC0_0000;

/// Base of the power-management registers in port space: PM1 events at +0, PM1 control at +4, timer at +8, GPE0 at +0Ch.
pub const PM_BASE: u16 = 0x600;
/// The reset control register of the PIIX3 (writing 06h resets the machine).
pub const RESET_CONTROL: u16 = 0xCF9;
/// The serial ports: first port, ISA request.
pub const SERIAL_PORTS: [(u16, u8); 2] = [(0x3F8, 4), (0x2F8, 3)];

/// The interrupt requests of the two timers, 8254 and real-time clock.
pub const TIMER_IRQS: [u8; 2] = [0, 8];
/// The keyboard's interrupt request.
pub const KEYBOARD_IRQ: u8 = 1;
/// The mouse's interrupt request.
pub const MOUSE_IRQ: u8 = 12;
/// The floppy controller's interrupt request.
pub const FLOPPY_IRQ: u8 = 6;
/// The floppy controller's channel of the DMA controllers.
pub const FLOPPY_DMA: u8 = 2;
/// The interrupt requests of the IDE channels.
pub const IDE_IRQS: [u8; 2] = [14, 15];
/// Where firmware puts the IDE controller's bus-master registers.
pub const IDE_BUS_MASTER: u16 = 0xC000;
/// The interrupt of the ACPI power management (level-triggered, active high).
pub const SCI_IRQ: u8 = 9;
/// The interrupt request of x87 errors.
pub const FERR_IRQ: u8 = 13;
/// The PIT's interrupt request 0 arrives at this input of the I/O APIC.
pub const IOAPIC_PIT_INPUT: u8 = 2;
/// The PCI interrupt lines A–D when the guest uses the 8259s: the ISA request that each is routed to at power-on.
pub const PIRQ_ISA: [u8; 4] = [10, 10, 11, 11];
/// The PCI interrupt lines A–D when the guest uses the I/O APIC: inputs 16–19.
pub const PIRQ_IOAPIC: [u8; 4] = [16, 17, 18, 19];
/// The ISA requests that are level-triggered at power-on (ELCR): the SCI and the PCI lines.
pub const LEVEL_IRQS: u16 = 1 << SCI_IRQ | 1 << 10 | 1 << 11;

/// The first wire of PIRQA–PIRQD; the wires below it are the ISA requests 0–15.
pub const PIRQ_PIN: u8 = 16;
/// The wire of non-maskable interrupts.
pub const NMI_PIN: u8 = 20;
/// The wire that opens the A20 gate (keyboard controller, port 92h).
pub const A20_PIN: u8 = 21;
/// The wire that resets the processors (keyboard controller, port 92h).
pub const RESET_PIN: u8 = 22;

/// The 8254's output 0: interrupt request 0 while the HPET does not stand in for it.
pub const PIT_PIN: u8 = 23;
/// The real-time clock's interrupt: request 8 while the HPET does not stand in for it.
pub const RTC_PIN: u8 = 24;
/// The HPET's timers 0 and 1 while they stand in for the 8254 and the real-time clock.
pub const HPET_LEGACY_PINS: [u8; 2] = [25, 26];
/// The first wire of those that lead to I/O APIC inputs of their own, by number.
pub const IOAPIC_PIN: u8 = 32;
/// The I/O APIC inputs that the HPET's timers can use: 20–23, where nothing else is.
pub const HPET_ROUTES: u32 = 0xF0_0000;

/// The wire of an interrupt line that the test device drives: an ISA request, or an input of the I/O APIC alone.
pub const fn test_line(number: u8) -> u8 {
    if number < PIRQ_PIN { number } else { IOAPIC_PIN + number }
}

/// What a wire is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// An ISA interrupt request, 0–15.
    Isa(u8),
    /// A PCI interrupt line, 0–3 for A–D.
    Pirq(u8),
    /// A timer of the board (0: request 0, 1: request 8).
    Timer(u8),
    /// The HPET's timer that can stand in for it.
    HpetTimer(u8),
    /// An I/O APIC input that no ISA request leads to.
    IoApic(u8),
    /// Non-maskable interrupt.
    Nmi,
    /// Address line 20.
    A20,
    /// Reset of the processors.
    Reset,
    /// Not connected.
    None,
}

/// What the wire of a number is.
pub const fn pin(number: u8) -> Pin {
    match number {
        0..PIRQ_PIN => Pin::Isa(number),
        PIRQ_PIN..NMI_PIN => Pin::Pirq(number - PIRQ_PIN),
        NMI_PIN => Pin::Nmi,
        A20_PIN => Pin::A20,
        RESET_PIN => Pin::Reset,
        PIT_PIN => Pin::Timer(0),
        RTC_PIN => Pin::Timer(1),
        25 => Pin::HpetTimer(0),
        26 => Pin::HpetTimer(1),
        IOAPIC_PIN..64 => Pin::IoApic(number - IOAPIC_PIN),
        _ => Pin::None,
    }
}

/// The I/O APIC input at which an ISA request arrives. Request 2 is the cascade of the 8259s.
pub const fn ioapic_input(irq: u8) -> Option<u8> {
    match irq {
        0 => Some(IOAPIC_PIT_INPUT),
        IOAPIC_PIT_INPUT => None,
        _ => Some(irq),
    }
}

/// The PCI interrupt line (0 = A) of a slot's pin (0 = INTA#): slots take turns, as on every i440FX board.
pub const fn pirq_of(slot: u8, pin: u8) -> u8 {
    (slot.wrapping_sub(1).wrapping_add(pin)) & 3
}

/// The i440FX host bridge.
pub const HOST_BRIDGE: PciAddress = PciAddress::new(0, 0);
/// The PIIX3's ISA bridge.
pub const ISA_BRIDGE: PciAddress = PciAddress::new(1, 0);
/// The PIIX3's IDE controller.
pub const IDE: PciAddress = PciAddress::new(1, 1);
/// The AHCI adapter, if there is one.
pub const AHCI: PciAddress = PciAddress::new(5, 0);
/// Where firmware puts the AHCI adapter's registers.
pub const AHCI_REGISTERS: u64 = PCI_WINDOW_END - 0x2_0000;
/// Where firmware puts its ports.
pub const AHCI_PORTS: u16 = 0xC020;
/// The AC'97 controller, if there is one.
pub const SOUND: PciAddress = PciAddress::new(4, 0);
/// Where firmware puts its bus master's ports.
pub const SOUND_MASTER: u16 = 0xC040;
/// Where firmware puts its codec's ports.
pub const SOUND_MIXER: u16 = 0xC100;
/// The tablet, if there is one.
pub const TABLET: PciAddress = PciAddress::new(3, 0);
/// Where firmware puts its registers.
pub const TABLET_REGISTERS: u64 = PCI_WINDOW_END - 0x3_0000;
/// The memory balloon, if there is one.
pub const BALLOON: PciAddress = PciAddress::new(6, 0);
/// Where firmware puts its registers.
pub const BALLOON_REGISTERS: u64 = PCI_WINDOW_END - 0x4_0000;
/// The PIIX4's power management.
pub const POWER: PciAddress = PciAddress::new(1, 3);
/// The display adapter.
pub const VGA: PciAddress = PciAddress::new(2, 0);
/// Where its framebuffer and its registers are when no firmware places them.
pub const VGA_BARS: [(u8, u32); 2] = [(0x10, 0xFD00_0000), (0x18, 0xFEBF_0000)];

#[cfg(test)]
mod tests {
    use super::*;

    /// What no firmware places is placed apart: framebuffer and registers of the display, of AHCI, of tablet and balloon.
    #[test]
    fn windows_of_pci_functions_do_not_overlap() {
        let sizes = [umbra_devices::vga::MEMORY_BYTES, 0x1_0000];
        let mut windows: Vec<(u64, u64)> =
            VGA_BARS.iter().zip(sizes).map(|(&(_, base), size)| (base.into(), size)).collect();
        windows.push((AHCI_REGISTERS, 0x1_0000));
        let virtio = umbra_devices::pci::virtio::REGISTER_BYTES.into();
        windows.extend([TABLET_REGISTERS, BALLOON_REGISTERS].map(|base| (base, virtio)));
        windows.sort_unstable();
        assert!(windows.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{windows:x?}");
        assert!(windows.iter().all(|(base, size)| base + size <= PCI_WINDOW_END));
    }
}
