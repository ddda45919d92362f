//! Devices of the virtio family on the PCI bus (VIRTIO 1.2, 4.1): what they all share. What one of them does is a
//! [`VirtioDevice`].
//!
//! All registers are in window 0 (BAR 0), in four pages: common configuration, interrupt status, the device's own
//! configuration, and the doorbells. Interrupts go by INTA#.
//!
//! Leaves out: MSI-X, the transitional (0.9) interface, and the window into BAR 0 from configuration space
//! (VIRTIO_PCI_CAP_PCI_CFG).

pub mod balloon;
mod queue;
pub mod tablet;
#[cfg(test)]
mod tests;

use super::{Bar, ConfigSpace, Identity, IntPin, PciFunction, Registers};
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::lane::Lane;
use crate::wire::IrqLine;
pub use queue::{Broken, Chain, Queue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use umbra_mmu::dma::Dma;

/// What one kind of virtio device does. Its fields are its volatile state.
pub trait VirtioDevice: Serialize + DeserializeOwned + Send + 'static {
    /// Its name for traces and messages.
    const NAME: &'static str;
    /// Its number in the specification (chapter 5).
    const ID: u16;
    /// PCI class code.
    const CLASS: u32;
    /// The most descriptors of each of its queues.
    const QUEUES: &'static [u16];
    /// Bytes of its configuration.
    const CONFIG_BYTES: u32;
    /// Feature bits that it offers beside the transport's; whether one was taken shows in what the driver does.
    const FEATURES: u64 = 0;
    /// As after power-on.
    fn new() -> Self;
    /// As after a reset by the driver.
    fn restart(&mut self) {
        *self = Self::new();
    }
    /// A byte of its configuration.
    fn config_read(&self, offset: u32) -> u8;
    /// Writes a byte of its configuration.
    fn config_write(&mut self, offset: u32, value: u8);
    /// Works off what there is to do: the driver has made buffers available, or there is something to tell it.
    fn serve(&mut self, queues: &mut [Queue], dma: &mut dyn Dma) -> Result<(), Broken>;
    /// After a restore: whatever was saved is made possible.
    fn sanitise(&mut self);
}

/// The window of all registers.
pub const REGISTER_WINDOW: u8 = 0;
/// Its size in bytes.
pub const REGISTER_BYTES: u32 = 0x4000;
/// The pages of the window.
const COMMON: u64 = 0x0000;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const DOORBELLS: u64 = 0x3000;
/// Bytes from one queue's doorbell to the next's.
const DOORBELL_STEP: u32 = 4;

/// The PCI vendor of all virtio devices; their device IDs are 1040h and their number.
const VENDOR: u16 = 0x1AF4;
const FIRST_DEVICE: u16 = 0x1040;
/// The capability that is the vendor's own, and where the four of them lie.
const VENDOR_CAPABILITY: u8 = 0x09;
const CAPABILITIES_AT: u8 = 0x40;

/// Feature bit 32: this is VIRTIO 1. A driver has to take it.
const VERSION_1: u64 = 1 << 32;

/// Device status: the driver runs.
const DRIVER_OK: u8 = 4;
/// Device status: the features that the driver took are good.
const FEATURES_OK: u8 = 8;
/// Device status, set by the device: only a reset helps.
const NEEDS_RESET: u8 = 0x40;

/// Interrupt status: buffers were used.
const ISR_QUEUE: u8 = 1;
/// Interrupt status: the configuration changed.
const ISR_CONFIG: u8 = 2;
/// What a vector register reads as without MSI-X.
const NO_VECTOR: u32 = 0xFFFF;

/// The volatile state without configuration space and device.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    /// Which half of the features is seen: the device's, the driver's.
    feature_select: [u32; 2],
    taken: u64,
    status: u8,
    isr: u8,
    /// Counts the changes of the configuration that the driver did not make.
    generation: u8,
    queue_select: u16,
    queues: Vec<Queue>,
}

impl State {
    fn new(queues: &[u16]) -> State {
        State {
            feature_select: [0; 2],
            taken: 0,
            status: 0,
            isr: 0,
            generation: 0,
            queue_select: 0,
            queues: queues.iter().map(|&most| Queue::new(most)).collect(),
        }
    }
}

/// A virtio device in its PCI slot.
#[derive(Debug)]
pub struct Virtio<D> {
    // Configuration (the masks) and volatile state (the registers).
    config: ConfigSpace,
    // Wires.
    irq: IrqLine,
    // Volatile state.
    state: State,
    device: D,
}

impl<D: VirtioDevice> Virtio<D> {
    /// The device with its interrupt wire.
    pub fn new(irq: IrqLine) -> Virtio<D> {
        let identity = Identity { vendor: VENDOR, device: FIRST_DEVICE + D::ID, class: D::CLASS, revision: 1 };
        let mut config = ConfigSpace::new(identity)
            .subsystem(VENDOR, FIRST_DEVICE + D::ID)
            .interrupt_pin(IntPin::A)
            .bar(REGISTER_WINDOW, Bar::Memory32 { size: REGISTER_BYTES });
        let doorbells = DOORBELL_STEP * D::QUEUES.len() as u32;
        let parts = [(1, COMMON, 56), (3, ISR, 1), (4, DEVICE, D::CONFIG_BYTES), (2, DOORBELLS, doorbells)];
        let mut at = CAPABILITIES_AT;
        for (kind, page, length) in parts {
            let place = [page as u32, length, DOORBELL_STEP].map(u32::to_le_bytes).concat();
            // Only the doorbells' has the step.
            let bytes = if kind == 2 { 20 } else { 16 };
            let body = [&[bytes, kind, REGISTER_WINDOW, 0, 0, 0], &place[..usize::from(bytes) - 8]].concat();
            config = config.capability(at, VENDOR_CAPABILITY, &body);
            at += bytes;
        }
        Virtio { config, irq, state: State::new(D::QUEUES), device: D::new() }
    }

    /// Whether the guest's driver runs, and nothing is broken.
    pub fn is_running(&self) -> bool {
        self.state.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    fn device(&self) -> &D {
        &self.device
    }

    /// The device's configuration is no longer as the driver read it.
    fn config_changed(&mut self) {
        self.state.generation = self.state.generation.wrapping_add(1);
        if self.is_running() {
            self.state.isr |= ISR_CONFIG;
        }
        self.settle();
    }

    /// Changes the device from outside and works off what follows.
    fn with_device(&mut self, cx: &mut Ctx<'_>, change: impl FnOnce(&mut D)) {
        change(&mut self.device);
        self.serve(cx);
    }

    fn serve(&mut self, cx: &mut Ctx<'_>) {
        if self.is_running() && self.config.is_master() {
            if self.device.serve(&mut self.state.queues, cx.dma) == Err(Broken) {
                self.state.status |= NEEDS_RESET;
                self.state.isr |= ISR_CONFIG;
            }
            for queue in &mut self.state.queues {
                if queue.take_news(cx.dma) {
                    self.state.isr |= ISR_QUEUE;
                }
            }
        }
        self.settle();
    }

    /// Brings the wire up to date.
    fn settle(&mut self) {
        let level = self.config.set_interrupt(self.state.isr != 0);
        self.irq.set(level);
    }

    /// The driver resets the device.
    fn restart(&mut self) {
        self.state = State { generation: self.state.generation, ..State::new(D::QUEUES) };
        self.device.restart();
    }

    fn queue(&self) -> Option<&Queue> {
        self.state.queues.get(usize::from(self.state.queue_select))
    }

    fn read_common(&self, register: u64) -> u32 {
        let half = |features: u64, select: u32| if select < 2 { (features >> (32 * select)) as u32 } else { 0 };
        let queue = self.queue();
        let [select_low, select_high] = self.state.queue_select.to_le_bytes();
        let place = |number: usize, shift: u32| queue.map_or(0, |queue| (queue.places[number] >> shift) as u32);
        match register {
            0x00 => self.state.feature_select[0],
            0x04 => half(VERSION_1 | D::FEATURES, self.state.feature_select[0]),
            0x08 => self.state.feature_select[1],
            0x0C => half(self.state.taken, self.state.feature_select[1]),
            0x10 => (self.state.queues.len() as u32) << 16 | NO_VECTOR,
            0x14 => u32::from_le_bytes([self.state.status, self.state.generation, select_low, select_high]),
            0x18 => NO_VECTOR << 16 | queue.map_or(0, |queue| queue.size.into()),
            0x1C => u32::from(self.state.queue_select) << 16 | queue.map_or(0, |queue| queue.enabled.into()),
            0x20..0x38 => place((register as usize - 0x20) / 8, 8 * (register as u32 & 4)),
            _ => 0,
        }
    }

    fn write_common(&mut self, cx: &mut Ctx<'_>, lane: Lane, value: u32) {
        let merged = lane.merge(self.read_common(lane.register), value);
        let [low, high] = [0, 16].map(|shift| lane.mask() >> shift & 0xFFFF != 0);
        match lane.register {
            0x00 => self.state.feature_select[0] = merged,
            0x08 => self.state.feature_select[1] = merged,
            0x0C if self.state.status & FEATURES_OK == 0 => match self.state.feature_select[1] {
                0 => self.state.taken = self.state.taken & !0xFFFF_FFFF | u64::from(merged),
                1 => self.state.taken = self.state.taken & 0xFFFF_FFFF | u64::from(merged) << 32,
                _ => {}
            },
            0x14 => {
                if high {
                    self.state.queue_select = (merged >> 16) as u16;
                }
                if lane.mask() & 0xFF != 0 {
                    self.set_status(cx, merged as u8);
                }
            }
            _ => self.write_queue(lane.register, merged, low),
        }
    }

    fn set_status(&mut self, cx: &mut Ctx<'_>, status: u8) {
        if status == 0 {
            return self.restart();
        }
        let kept = self.state.status & NEEDS_RESET;
        let is_good = self.state.taken & !D::FEATURES == VERSION_1;
        let refused = if is_good { 0 } else { FEATURES_OK };
        self.state.status = status & !refused | kept;
        self.serve(cx);
    }

    /// A register of the selected queue, whose places may not change while it is enabled.
    fn write_queue(&mut self, register: u64, merged: u32, low: bool) {
        let Some(queue) = self.state.queues.get_mut(usize::from(self.state.queue_select)) else { return };
        match register {
            _ if queue.enabled => {}
            0x18 if low => queue.set_size(merged as u16),
            0x1C if low => queue.enabled = merged & 0xFFFF == 1,
            0x20..0x38 => {
                let shift = 8 * (register as u32 & 4);
                let place = &mut queue.places[(register as usize - 0x20) / 8];
                *place = *place & !(0xFFFF_FFFF << shift) | u64::from(merged) << shift;
            }
            _ => {}
        }
    }

    fn device_config(&self, lane: Lane) -> u32 {
        let at = (lane.register - DEVICE) as u32;
        let byte = |n: u32| if at + n < D::CONFIG_BYTES { self.device.config_read(at + n) } else { 0 };
        u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
    }
}

impl<D: VirtioDevice> PciFunction for Virtio<D> {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_write(&mut self, cx: &mut Ctx<'_>, offset: u8, width: Width, value: u32) {
        self.config.write(offset, width, value);
        self.serve(cx);
    }
}

impl<D: VirtioDevice> Device for Virtio<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.config.reset();
        (self.state, self.device) = (State::new(D::QUEUES), D::new());
        self.settle();
    }

    fn mmio_read(&mut self, _cx: &mut Ctx<'_>, window: u8, offset: u64, width: Width) -> Result<u64, IoError> {
        let lane = Lane::of(offset, width)?;
        let value = match (window, offset) {
            (REGISTER_WINDOW, COMMON..ISR) => self.read_common(lane.register),
            (REGISTER_WINDOW, ISR..DEVICE) => {
                // Whoever reads the first byte acknowledges.
                let isr = if offset == ISR { std::mem::take(&mut self.state.isr) } else { 0 };
                self.settle();
                isr.into()
            }
            (REGISTER_WINDOW, DEVICE..DOORBELLS) => self.device_config(lane),
            (REGISTER_WINDOW, DOORBELLS..) => 0,
            _ => return Err(IoError::NoSuchRegister),
        };
        Ok(lane.extract(value).into())
    }

    fn mmio_write(
        &mut self,
        cx: &mut Ctx<'_>,
        window: u8,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), IoError> {
        let lane = Lane::of(offset, width)?;
        match (window, offset) {
            (REGISTER_WINDOW, COMMON..ISR) => {
                self.write_common(cx, lane, value as u32);
                self.settle();
            }
            (REGISTER_WINDOW, DEVICE..DOORBELLS) => {
                let first = (offset - DEVICE) as u32;
                for (at, byte) in (first..D::CONFIG_BYTES).zip(value.to_le_bytes()).take(width.bytes() as usize) {
                    self.device.config_write(at, byte);
                }
            }
            (REGISTER_WINDOW, DOORBELLS..) => self.serve(cx),
            _ => return Err(IoError::NoSuchRegister),
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        save_state(&(self.config.registers(), &self.state, &self.device))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let (registers, mut state, mut device): (Registers, State, D) = restore_state(self.name(), state)?;
        let fresh = State::new(D::QUEUES);
        if state.queues.len() != fresh.queues.len() {
            return Err(StateError { device: self.name(), reason: "it has another number of queues".into() });
        }
        state.queues = fresh.queues.iter().zip(state.queues).map(|(queue, saved)| queue.restored(saved)).collect();
        device.sanitise();
        self.config.set_registers(registers);
        (self.state, self.device) = (state, device);
        self.settle();
        Ok(())
    }
}
