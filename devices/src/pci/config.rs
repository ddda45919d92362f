//! A type 0 configuration space (PCI 2.1, chapter 6): 256 bytes, each bit read-only, writable or cleared by writing 1.
//!
//! A function describes its space once with the builder methods; reads, masked writes, BAR sizing, the capability list
//! and the windows that its BARs decode follow from the description.

use super::{IntPin, Mapping, Space};
use crate::device::Width;
use crate::lane::Lane;
use serde::{Deserialize, Serialize};

/// Offsets of the standard registers.
pub mod offset {
    /// Vendor ID; the device ID follows.
    pub const VENDOR: u8 = 0x00;
    /// Command.
    pub const COMMAND: u8 = 0x04;
    /// Status.
    pub const STATUS: u8 = 0x06;
    /// Revision; the class code follows.
    pub const REVISION: u8 = 0x08;
    /// Cache line size; latency timer, header type and BIST follow.
    pub const CACHE_LINE: u8 = 0x0C;
    /// Latency timer.
    pub const LATENCY: u8 = 0x0D;
    /// The first base address register.
    pub const BAR0: u8 = 0x10;
    /// Subsystem vendor ID; the subsystem ID follows.
    pub const SUBSYSTEM: u8 = 0x2C;
    /// Expansion ROM base address.
    pub const ROM: u8 = 0x30;
    /// The first capability.
    pub const CAPABILITIES: u8 = 0x34;
    /// Interrupt line.
    pub const INTERRUPT_LINE: u8 = 0x3C;
    /// Interrupt pin.
    pub const INTERRUPT_PIN: u8 = 0x3D;
}

/// Command bit 0: decode I/O windows.
pub(super) const COMMAND_IO: u16 = 1 << 0;
/// Command bit 1: decode memory windows.
pub(super) const COMMAND_MEMORY: u16 = 1 << 1;
/// Command bit 2: be a bus master.
pub(super) const COMMAND_MASTER: u16 = 1 << 2;
/// Command bit 10: do not assert INTx.
const COMMAND_NO_INTX: u16 = 1 << 10;
/// Status bit 3: an INTx interrupt waits.
const STATUS_INTERRUPT: u16 = 1 << 3;
/// Status bit 4: there is a capability list.
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// The header type's multi-function bit, within the register at [`offset::CACHE_LINE`].
pub(super) const MULTI_FUNCTION: u32 = 1 << 23;

/// The 256 bytes (or their masks).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers([u64; 32]);

impl Registers {
    fn dword(&self, offset: u8) -> u32 {
        (self.0[usize::from(offset >> 3)] >> (8 * (offset & 4))) as u32
    }

    fn set_dword(&mut self, offset: u8, value: u32) {
        let shift = 8 * (offset & 4);
        let word = &mut self.0[usize::from(offset >> 3)];
        *word = *word & !(0xFFFF_FFFF << shift) | u64::from(value) << shift;
    }

    fn byte(&self, offset: u8) -> u8 {
        (self.dword(offset) >> (8 * (offset & 3))) as u8
    }

    fn set_byte(&mut self, offset: u8, value: u8) {
        let shift = 8 * (offset & 3);
        let word = self.dword(offset);
        self.set_dword(offset, word & !(0xFF << shift) | u32::from(value) << shift);
    }

    fn set_bytes(&mut self, offset: u8, bytes: &[u8]) {
        for (at, &byte) in (offset..=0xFF).zip(bytes) {
            self.set_byte(at, byte);
        }
    }
}

/// Who a function says it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code: base class, sub-class, interface (24 bits).
    pub class: u32,
    /// Revision.
    pub revision: u8,
}

/// What a base address register decodes. The size is rounded up to a power of two that the register can express.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Bar {
    /// I/O ports.
    Io {
        /// Bytes.
        size: u16,
    },
    /// Memory below 4 GiB.
    Memory32 {
        /// Bytes.
        size: u32,
    },
    /// Prefetchable memory anywhere; takes two registers.
    Memory64 {
        /// Bytes.
        size: u64,
    },
    /// The expansion ROM, window 6, with its own enable bit.
    Rom {
        /// Bytes.
        size: u32,
    },
}

impl Bar {
    /// The low bits that tell the kind.
    const fn kind(self) -> u32 {
        match self {
            Bar::Io { .. } => 0b0001,
            Bar::Memory32 { .. } | Bar::Rom { .. } => 0b0000,
            Bar::Memory64 { .. } => 0b1100,
        }
    }

    fn size(self) -> u64 {
        match self {
            Bar::Io { size } => u64::from(size).next_power_of_two().max(4),
            Bar::Memory32 { size } => u64::from(size).next_power_of_two().max(16),
            Bar::Memory64 { size } => size.checked_next_power_of_two().unwrap_or(1 << 63).max(16),
            Bar::Rom { size } => u64::from(size).next_power_of_two().max(2048),
        }
    }

    fn register(self, window: u8) -> u8 {
        if matches!(self, Bar::Rom { .. }) { offset::ROM } else { offset::BAR0 + 4 * (window % 6) }
    }
}

/// A function's configuration space.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    // Configuration.
    preset: Registers,
    writable: Registers,
    clearable: Registers,
    bars: Vec<(u8, Bar)>,
    // Volatile state.
    registers: Registers,
}

impl ConfigSpace {
    /// A space with the standard registers: command bits 0–2, 6, 8 and 10, the latency timer and the interrupt line can
    /// be written, error status bits cleared.
    pub fn new(identity: Identity) -> ConfigSpace {
        let empty = Registers::default();
        let mut space =
            ConfigSpace { preset: empty, writable: empty, clearable: empty, bars: Vec::new(), registers: empty };
        space.preset.set_dword(offset::VENDOR, u32::from(identity.device) << 16 | u32::from(identity.vendor));
        space.preset.set_dword(offset::REVISION, identity.class << 8 | u32::from(identity.revision));
        space.writable.set_bytes(offset::COMMAND, &[0x47, 0x05]);
        space.writable.set_byte(offset::CACHE_LINE, 0xFF);
        space.writable.set_byte(offset::LATENCY, 0xFF);
        space.writable.set_byte(offset::INTERRUPT_LINE, 0xFF);
        space.clearable.set_bytes(offset::STATUS, &[0x00, 0xF9]);
        space.reset();
        space
    }

    /// Gives registers their reset value.
    #[must_use]
    pub fn preset(mut self, offset: u8, bytes: &[u8]) -> ConfigSpace {
        self.preset.set_bytes(offset, bytes);
        self.reset();
        self
    }

    /// Says which bits can be written, instead of what was said before.
    #[must_use]
    pub fn writable(mut self, offset: u8, mask: &[u8]) -> ConfigSpace {
        self.writable.set_bytes(offset, mask);
        self
    }

    /// Says which bits a written 1 clears, instead of what was said before.
    #[must_use]
    pub fn clearable(mut self, offset: u8, mask: &[u8]) -> ConfigSpace {
        self.clearable.set_bytes(offset, mask);
        self
    }

    /// Adds a base address register: window 0–5, or 6 for a ROM.
    #[must_use]
    pub fn bar(mut self, window: u8, bar: Bar) -> ConfigSpace {
        let at = bar.register(window);
        let mask = !(bar.size() - 1);
        self.preset.set_dword(at, bar.kind());
        let enable = u32::from(matches!(bar, Bar::Rom { .. }));
        self.writable.set_dword(at, mask as u32 | enable);
        if matches!(bar, Bar::Memory64 { .. }) {
            self.writable.set_dword(at + 4, (mask >> 32) as u32);
        }
        self.bars.push((window, bar));
        self.reset();
        self
    }

    /// Says which pin the function interrupts by.
    #[must_use]
    pub fn interrupt_pin(self, pin: IntPin) -> ConfigSpace {
        self.preset(offset::INTERRUPT_PIN, &[pin as u8])
    }

    /// Adds the subsystem IDs.
    #[must_use]
    pub fn subsystem(self, vendor: u16, device: u16) -> ConfigSpace {
        let id = u32::from(device) << 16 | u32::from(vendor);
        self.preset(offset::SUBSYSTEM, &id.to_le_bytes())
    }

    /// Puts a capability at `at` and in front of the list: its ID, then `body` from its third byte on, read-only until
    /// [`Self::writable`] says otherwise.
    #[must_use]
    pub fn capability(mut self, at: u8, id: u8, body: &[u8]) -> ConfigSpace {
        let next = self.preset.byte(offset::CAPABILITIES);
        let status = self.preset.byte(offset::STATUS);
        self.preset.set_bytes(at, &[id, next]);
        self.preset.set_bytes(at.saturating_add(2), body);
        self.preset.set_byte(offset::CAPABILITIES, at);
        self.preset.set_byte(offset::STATUS, status | STATUS_CAPABILITIES as u8);
        self.reset();
        self
    }

    /// All registers as after power-on.
    pub fn reset(&mut self) {
        self.registers = self.preset;
    }

    /// Reads within one aligned 32-bit register; all ones if the access straddles two.
    pub fn read(&self, offset: u8, width: Width) -> u32 {
        match Lane::of(offset.into(), width) {
            Ok(lane) => lane.extract(self.registers.dword(offset)),
            Err(_) => width.ones() as u32,
        }
    }

    /// Writes within one aligned 32-bit register, as the masks allow; nothing if the access straddles two.
    pub fn write(&mut self, offset: u8, width: Width, value: u32) {
        let Ok(lane) = Lane::of(offset.into(), width) else { return };
        let (old, value) = (self.registers.dword(offset), lane.place(value));
        let writable = self.writable.dword(offset) & lane.mask();
        let cleared = self.clearable.dword(offset) & value;
        self.registers.set_dword(offset, (old & !writable | value & writable) & !cleared);
    }

    /// A byte.
    pub fn byte(&self, offset: u8) -> u8 {
        self.registers.byte(offset)
    }

    /// A 16-bit register.
    pub fn word(&self, offset: u8) -> u16 {
        u16::from(self.byte(offset)) | u16::from(self.byte(offset | 1)) << 8
    }

    /// A 32-bit register.
    pub fn dword(&self, offset: u8) -> u32 {
        self.registers.dword(offset)
    }

    /// Sets a byte, whatever the masks: for the chip itself.
    pub fn set_byte(&mut self, offset: u8, value: u8) {
        self.registers.set_byte(offset, value);
    }

    /// Sets a 32-bit register, whatever the masks: for the chip itself.
    pub fn set_dword(&mut self, offset: u8, value: u32) {
        self.registers.set_dword(offset, value);
    }

    /// Whether the function may be a bus master.
    pub fn is_master(&self) -> bool {
        self.word(offset::COMMAND) & COMMAND_MASTER != 0
    }

    /// Notes in the status register whether an interrupt waits; gives the level that the INTx wire is to have.
    pub fn set_interrupt(&mut self, waits: bool) -> bool {
        let status = self.byte(offset::STATUS) & !(STATUS_INTERRUPT as u8);
        self.set_byte(offset::STATUS, status | if waits { STATUS_INTERRUPT as u8 } else { 0 });
        waits && self.word(offset::COMMAND) & COMMAND_NO_INTX == 0
    }

    /// What the base address registers decode now.
    ///
    /// A base of 0 and one that reaches the top of its space (as it does while a register is sized) decode nothing.
    pub fn windows(&self) -> Vec<Mapping> {
        let command = self.word(offset::COMMAND);
        let window = |&(window, bar): &(u8, Bar)| {
            let at = bar.register(window);
            let low = self.dword(at);
            let size = bar.size();
            let (space, on, base, top) = match bar {
                Bar::Io { .. } => (Space::Io, command & COMMAND_IO != 0, u64::from(low & !3), 0x1_0000),
                Bar::Memory32 { .. } => {
                    (Space::Memory, command & COMMAND_MEMORY != 0, u64::from(low & !15), u32::MAX.into())
                }
                Bar::Memory64 { .. } => {
                    let base = u64::from(self.dword(at + 4)) << 32 | u64::from(low & !15);
                    (Space::Memory, command & COMMAND_MEMORY != 0, base, 1 << 52)
                }
                Bar::Rom { .. } => {
                    let on = command & COMMAND_MEMORY != 0 && low & 1 != 0;
                    (Space::Memory, on, u64::from(low & !0x7FF), u32::MAX.into())
                }
            };
            let fits = base != 0 && base.checked_add(size).is_some_and(|end| end <= top);
            Mapping::Window { window, space, size, base: (on && fits).then_some(base) }
        };
        self.bars.iter().map(window).collect()
    }

    /// The registers, to be saved.
    pub fn registers(&self) -> Registers {
        self.registers
    }

    /// The registers as they were saved.
    pub fn set_registers(&mut self, registers: Registers) {
        self.registers = registers;
    }
}
