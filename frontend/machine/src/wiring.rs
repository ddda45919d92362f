//! The whole PC on one page: which port range and window is whose, and which wire goes where.
//!
//! Devices know offsets and pins only; this page gives them addresses and interrupt numbers, and [`crate::acpi`] tells the
//! guest the same. The board is an i440FX with PIIX3 and the PIIX4's power management.

use umbra_mmu::addr::GuestPhys;

/// Base of the power-management registers in port space: PM1 events at +0, PM1 control at +4, timer at +8, GPE0 at +0Ch.
pub const PM_BASE: u16 = 0x600;
/// The reset control register of the PIIX3 (writing 06h resets the machine).
pub const RESET_CONTROL: u16 = 0xCF9;
/// The I/O APIC's window.
pub const IOAPIC_BASE: GuestPhys = GuestPhys(0xFEC0_0000);
/// The I/O APIC's identifier.
pub const IOAPIC_ID: u8 = 0;
/// The HPET's window.
pub const HPET_BASE: GuestPhys = GuestPhys(0xFED0_0000);
/// The local APICs' window at power-on.
pub const LAPIC_BASE: GuestPhys = GuestPhys(0xFEE0_0000);
/// The interrupt of the ACPI power management (level-triggered, active high).
pub const SCI_IRQ: u8 = 9;
/// The PIT's interrupt request 0 arrives at this input of the I/O APIC.
pub const IOAPIC_PIT_INPUT: u8 = 2;
/// The PCI interrupt lines A–D when the guest uses the 8259s: the ISA request that each is routed to at power-on.
pub const PIRQ_ISA: [u8; 4] = [10, 10, 11, 11];
/// The PCI interrupt lines A–D when the guest uses the I/O APIC: inputs 16–19.
pub const PIRQ_IOAPIC: [u8; 4] = [16, 17, 18, 19];
/// The serial ports: first port, ISA request.
pub const SERIAL_PORTS: [(u16, u8); 2] = [(0x3F8, 4), (0x2F8, 3)];
/// The end of the PCI memory window below the I/O APIC.
pub const PCI_WINDOW_END: u64 = 0xFEC0_0000;

/// The PCI interrupt line (0 = A) of a slot's pin (0 = INTA#): slots take turns, as on every i440FX board.
pub const fn pirq_of(slot: u8, pin: u8) -> u8 {
    (slot.wrapping_sub(1).wrapping_add(pin)) & 3
}
