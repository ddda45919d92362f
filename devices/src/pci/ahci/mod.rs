//! An AHCI host bus adapter (Serial ATA AHCI 1.3.1; identity of an ICH9, 8086:2922) with up to six drives, as a plug-in
//! function. What a port does is in `port`.
//!
//! Window 5 (BAR 5) has the registers; ports of window 4 reach them one by one, by an index and a data register (10.14), for
//! firmware in real mode. Leaves out: native command queuing, port multipliers, enclosure management, power states,
//! staggered spin-up, messages (MSI): one interrupt wire.

mod port;
#[cfg(test)]
mod tests;

use super::{Bar, ConfigSpace, Identity, IntPin, PciFunction, Registers};
use crate::ata::Drive;
use crate::clock::Tick;
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::lane::Lane;
use crate::wire::IrqLine;
use port::{Port, PortState};
use serde::{Deserialize, Serialize};

/// The ports.
pub const PORTS: usize = 6;
/// The window of the registers.
pub const REGISTER_WINDOW: u8 = 5;
const WINDOW_BYTES: u32 = 0x1000;
/// The window of ports, and what is in it.
pub const PORT_WINDOW: u8 = 4;
const PORT_WINDOW_BYTES: u16 = 0x20;
const INDEX: u64 = 0x10;
const DATA: u64 = 0x14;

/// Generic host control: AHCI mode (always), interrupts, reset.
const GHC_AHCI: u32 = 1 << 31;
const GHC_INTERRUPTS: u32 = 1 << 1;
const GHC_RESET: u32 = 1 << 0;
/// Capabilities: 64-bit addresses, command list override, AHCI only, 3 Gbit/s, 32 commands, six ports.
const CAPABILITIES: u32 = 1 << 31 | 1 << 24 | 1 << 18 | 2 << 20 | 31 << 8 | (PORTS as u32 - 1);
const VERSION: u32 = 0x0001_0301;
const FIRST_PORT: u64 = 0x100;
const PORT_BYTES: u64 = 0x80;

/// The volatile state.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    registers: Registers,
    control: u32,
    status: u32,
    index: u32,
    ports: Vec<(PortState, Vec<u8>)>,
}

/// The adapter.
#[derive(Debug)]
pub struct Ahci {
    // Configuration (the masks) and volatile state (the registers).
    config: ConfigSpace,
    // Wires.
    irq: IrqLine,
    // Volatile state, and the drives.
    control: u32,
    /// A bit for each port with an interrupt.
    status: u32,
    /// The register that the data port is.
    index: u32,
    ports: [Port; PORTS],
}

impl Ahci {
    /// An adapter with its interrupt wire and drives.
    pub fn new(irq: IrqLine, drives: [Option<Drive>; PORTS]) -> Ahci {
        let identity = Identity { vendor: 0x8086, device: 0x2922, class: 0x01_0601, revision: 2 };
        let config = ConfigSpace::new(identity)
            .interrupt_pin(IntPin::A)
            .bar(PORT_WINDOW, Bar::Io { size: PORT_WINDOW_BYTES })
            .bar(REGISTER_WINDOW, Bar::Memory32 { size: WINDOW_BYTES })
            // The SATA capability 1.0: index and data are at 10h of BAR 4.
            .capability(0xA8, 0x12, &[0x10, 0x00, 0x48, 0x00, 0x00, 0x00]);
        let mut adapter = Ahci { config, irq, control: GHC_AHCI, status: 0, index: 0, ports: drives.map(Port::new) };
        adapter.reset_all();
        adapter
    }

    fn reset_all(&mut self) {
        self.control = GHC_AHCI;
        self.status = 0;
        self.ports.iter_mut().for_each(Port::reset);
    }

    /// Brings the interrupt status and the wire up to date.
    fn settle(&mut self) {
        for (number, port) in self.ports.iter().enumerate() {
            if port.interrupts() {
                self.status |= 1 << number;
            }
        }
        let waits = self.status != 0 && self.control & GHC_INTERRUPTS != 0;
        let level = self.config.set_interrupt(waits);
        self.irq.set(level);
    }

    fn place(offset: u64) -> Option<(usize, u64)> {
        let number = offset.checked_sub(FIRST_PORT)? / PORT_BYTES;
        (number < PORTS as u64).then_some((number as usize, offset % PORT_BYTES))
    }

    fn read(&self, offset: u64) -> u32 {
        if let Some((number, register)) = Ahci::place(offset) {
            return self.ports[number].read(register);
        }
        match offset {
            0x00 => CAPABILITIES,
            0x04 => self.control,
            0x08 => self.status,
            0x0C => (1 << PORTS) - 1,
            0x10 => VERSION,
            _ => 0,
        }
    }

    fn write(&mut self, cx: &mut Ctx<'_>, offset: u64, mask: u32, value: u32) {
        if let Some((number, register)) = Ahci::place(offset) {
            self.ports[number].write(cx, register, mask, value);
            self.run_ports(cx);
            return;
        }
        match offset {
            0x04 if value & GHC_RESET != 0 => self.reset_all(),
            0x04 => {
                let control = self.control & !mask | value;
                self.control = GHC_AHCI | control & GHC_INTERRUPTS;
            }
            // A port that still interrupts sets its bit again.
            0x08 => self.status &= !value,
            _ => {}
        }
        self.settle();
    }

    fn run_ports(&mut self, cx: &mut Ctx<'_>) {
        if self.config.is_master() {
            self.ports.iter_mut().for_each(|port| port.run(cx));
        }
        self.settle();
    }
}

impl PciFunction for Ahci {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_write(&mut self, cx: &mut Ctx<'_>, offset: u8, width: Width, value: u32) {
        self.config.write(offset, width, value);
        self.run_ports(cx);
    }
}

impl Device for Ahci {
    fn name(&self) -> &'static str {
        "ahci"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.config.reset();
        self.index = 0;
        self.reset_all();
        self.settle();
    }

    fn port_read(&mut self, _cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        let lane = Lane::of(offset.into(), width)?;
        match (range, lane.register) {
            (PORT_WINDOW, INDEX) => Ok(lane.extract(self.index)),
            (PORT_WINDOW, DATA) => Ok(lane.extract(self.read(self.index.into()))),
            // The command ports of an IDE controller, which this is not.
            (PORT_WINDOW, _) => Ok(0),
            _ => Err(IoError::NoSuchRegister),
        }
    }

    fn port_write(
        &mut self,
        cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        let lane = Lane::of(offset.into(), width)?;
        match (range, lane.register) {
            (PORT_WINDOW, INDEX) => self.index = lane.merge(self.index, value) & (WINDOW_BYTES - 4),
            (PORT_WINDOW, DATA) => self.write(cx, self.index.into(), lane.mask(), lane.place(value)),
            (PORT_WINDOW, _) => {}
            _ => return Err(IoError::NoSuchRegister),
        }
        Ok(())
    }

    fn mmio_read(&mut self, _cx: &mut Ctx<'_>, _window: u8, offset: u64, width: Width) -> Result<u64, IoError> {
        if width == Width::B8 && offset.is_multiple_of(4) {
            return Ok(u64::from(self.read(offset)) | u64::from(self.read(offset + 4)) << 32);
        }
        let lane = Lane::of(offset, width)?;
        Ok(lane.extract(self.read(lane.register)).into())
    }

    fn mmio_write(
        &mut self,
        cx: &mut Ctx<'_>,
        _window: u8,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), IoError> {
        if width == Width::B8 && offset.is_multiple_of(4) {
            self.write(cx, offset, u32::MAX, value as u32);
            self.write(cx, offset + 4, u32::MAX, (value >> 32) as u32);
            return Ok(());
        }
        let lane = Lane::of(offset, width)?;
        self.write(cx, lane.register, lane.mask(), lane.place(value as u32));
        Ok(())
    }

    fn next_event(&self) -> Option<Tick> {
        // Without mastering nothing goes on.
        let ports = self.ports.iter().filter(|_| self.config.is_master());
        ports.filter_map(Port::next_event).min()
    }

    fn run_until(&mut self, cx: &mut Ctx<'_>) {
        self.run_ports(cx);
    }

    fn save(&self) -> Vec<u8> {
        let ports = self.ports.iter().map(Port::save).collect();
        let registers = self.config.registers();
        save_state(&State { registers, control: self.control, status: self.status, index: self.index, ports })
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let State { registers, control, status, index, ports } = restore_state(self.name(), state)?;
        if ports.len() != PORTS {
            return Err(StateError { device: "ahci", reason: "it has other ports".into() });
        }
        self.config.set_registers(registers);
        self.index = index & (WINDOW_BYTES - 4);
        (self.control, self.status) = (GHC_AHCI | control & GHC_INTERRUPTS, status);
        for (port, (state, drive)) in self.ports.iter_mut().zip(ports) {
            port.restore(state, &drive)?;
        }
        self.settle();
        Ok(())
    }
}
