//! Everything that plugs into the board: one chip a file or folder.
//!
//! A device is a state machine with three sections (configuration, wires, volatile state). It knows offsets and wires,
//! and is told the time; it never learns its IRQ number, its address, or that a CPU exists.

pub mod acpi_pm;
pub mod apic;
pub mod ata;
pub mod block;
pub mod cfi_flash;
pub mod clock;
pub mod debug_ports;
pub mod device;
pub mod dma8237;
pub mod exit_port;
pub mod fdc82077;
pub mod fw_cfg;
pub mod hpet;
pub mod ide;
pub mod ioapic;
pub mod lane;
pub mod lapic;
pub mod pc_testdev;
pub mod pci;
pub mod pic8259;
pub mod pit8254;
pub mod port92;
pub mod ps2;
pub mod rtc_mc146818;
pub mod smbus;
pub mod sound;
pub mod uart16550;
pub mod vga;
pub mod wire;

#[cfg(test)]
mod testing;
