//! PCI bus 0 with configuration mechanism #1 (PCI 2.1, 3.7.4.1): ports CF8h–CFFh, type 0 functions, INTx wiring.
//!
//! The board gives the bus ports CF8h–CFFh (range 0). The bus owns its functions. A function never learns where its
//! windows are: a moved or enabled window comes back as a [`MapChange`], which the board takes after each call
//! ([`PciBus::take_map_changes`]) and applies; from then on it gives accesses to the window to
//! [`PciBus::function_mut`], with the window's number as the range or window of the [`Device`] call.
//!
//! Left out: bridges (buses other than 0 are absent), configuration mechanism #2, special cycles.

pub mod ac97;
pub mod ahci;
mod config;
pub mod i440fx;
pub mod piix3;
pub mod piix3_ide;
pub mod piix4_pm;
pub mod virtio;

use crate::clock::Tick;
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::lane::Lane;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::BTreeMap;
use umbra_mmu::addr::GuestPhys;

pub use config::{Bar, ConfigSpace, Identity, Registers, offset};

/// A device and function number on bus 0.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PciAddress(u8);

impl PciAddress {
    /// Device 0–31, function 0–7 (excess bits are dropped).
    pub const fn new(device: u8, function: u8) -> PciAddress {
        PciAddress(device << 3 | function & 7)
    }
    /// The device number.
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }
    /// The function number.
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}

/// An interrupt pin of a PCI function.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IntPin {
    /// INTA#.
    A = 1,
    /// INTB#.
    B = 2,
    /// INTC#.
    C = 3,
    /// INTD#.
    D = 4,
}

/// Which of PIRQA–PIRQD (0–3) a device's pin is wired to: each slot is turned by one against the last.
pub const fn swizzle(device: u8, pin: IntPin) -> u8 {
    device.wrapping_sub(1).wrapping_add(pin as u8 - 1) & 3
}

/// An address space.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Space {
    /// I/O ports.
    Io,
    /// Guest-physical memory.
    Memory,
}

/// Who answers an access to a shadowed region.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Decode {
    /// DRAM.
    Dram,
    /// The PCI and ISA bus behind it: ROMs and devices.
    Bus,
}

/// Who reaches the DRAM under A0000h–BFFFFh.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Smram {
    /// Nobody: the display memory is there.
    Disabled,
    /// Code and data accesses in system-management mode.
    Smm,
    /// Only code fetches in system-management mode.
    SmmCode,
    /// Everyone.
    Open,
}

/// One piece of a function's address decoding, as it is now.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// A window of the function's registers: 0–5 are BARs, 6 the expansion ROM, 8 and up are the chip's own.
    Window {
        /// Its number for [`Device`] calls.
        window: u8,
        /// In which address space.
        space: Space,
        /// Its size in bytes.
        size: u64,
        /// Where; `None` while it is not decoded.
        base: Option<u64>,
    },
    /// A region below 1 MiB whose reads and writes go to DRAM or to the bus (PAM).
    Shadow {
        /// Its first address.
        base: GuestPhys,
        /// Its size in bytes.
        size: u64,
        /// Where reads and fetches go.
        reads: Decode,
        /// Where writes go.
        writes: Decode,
    },
    /// The region A0000h–BFFFFh.
    Smram(Smram),
}

/// A mapping that the board is to apply.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MapChange {
    /// Whose it is.
    pub function: PciAddress,
    /// What it is now.
    pub mapping: Mapping,
}

/// One function on the bus: a device with a configuration space.
pub trait PciFunction: Device + Any {
    /// Its configuration space.
    fn config(&self) -> &ConfigSpace;
    /// The same, to write.
    fn config_mut(&mut self) -> &mut ConfigSpace;
    /// A configuration write, within one aligned 32-bit register. Chips with side effects add them here.
    fn config_write(&mut self, _cx: &mut Ctx<'_>, offset: u8, width: Width, value: u32) {
        self.config_mut().write(offset, width, value);
    }
    /// All its mappings as they are now, always the same ones in the same order.
    fn mappings(&self) -> Vec<Mapping> {
        self.config().windows()
    }
}

/// A function is already at this address.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PCI {:02x}.{} is taken", .0.device(), .0.function())]
pub struct SlotTaken(pub PciAddress);

/// The volatile state: CONFADD, and each function's own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    address: u32,
    functions: Vec<(PciAddress, Vec<u8>)>,
}

/// PCI bus 0.
#[derive(Default)]
pub struct PciBus {
    // Configuration.
    functions: BTreeMap<PciAddress, Box<dyn PciFunction>>,
    // Volatile state: CONFADD and what is in the functions.
    address: u32,
    changes: Vec<MapChange>,
}

/// CONFADD bit 31: accesses to the data port are configuration cycles.
const ENABLE: u32 = 1 << 31;
/// The bits of CONFADD that exist.
const ADDRESS_MASK: u32 = 0x80FF_FFFC;
/// The first port of range 0.
const FIRST_PORT: u64 = 0xCF8;

impl PciBus {
    /// An empty bus.
    pub fn new() -> PciBus {
        PciBus::default()
    }

    /// Plugs a function in; its mappings are queued.
    pub fn add(&mut self, at: PciAddress, function: Box<dyn PciFunction>) -> Result<(), SlotTaken> {
        if self.functions.contains_key(&at) {
            return Err(SlotTaken(at));
        }
        let mappings = function.mappings();
        self.changes.extend(mappings.into_iter().map(|mapping| MapChange { function: at, mapping }));
        self.functions.insert(at, function);
        Ok(())
    }

    /// The function at an address, for accesses to its windows.
    pub fn function_mut(&mut self, at: PciAddress) -> Option<&mut dyn PciFunction> {
        Some(&mut **self.functions.get_mut(&at)?)
    }

    /// The function at an address, if it is a `T`.
    pub fn get<T: PciFunction>(&self, at: PciAddress) -> Option<&T> {
        let function: &dyn Any = &**self.functions.get(&at)?;
        function.downcast_ref()
    }

    /// The function at an address, if it is a `T`.
    pub fn get_mut<T: PciFunction>(&mut self, at: PciAddress) -> Option<&mut T> {
        let function: &mut dyn Any = &mut **self.functions.get_mut(&at)?;
        function.downcast_mut()
    }

    /// The addresses that are taken, lowest first.
    pub fn addresses(&self) -> impl Iterator<Item = PciAddress> {
        self.functions.keys().copied()
    }

    /// Takes the mappings that changed since the last call, oldest first.
    pub fn take_map_changes(&mut self) -> Vec<MapChange> {
        std::mem::take(&mut self.changes)
    }

    /// Whether [`Self::take_map_changes`] would give anything.
    pub fn has_map_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Reads a configuration register without side effects; all ones where there is none.
    pub fn config_read(&self, at: PciAddress, offset: u8, width: Width) -> u32 {
        let Some(function) = self.functions.get(&at) else { return width.ones() as u32 };
        let value = function.config().read(offset & !3, Width::B4);
        let value = if offset & !3 == offset::CACHE_LINE && self.is_multi_function(at) {
            value | config::MULTI_FUNCTION
        } else {
            value
        };
        Lane::of(offset.into(), width).map_or(width.ones() as u32, |lane| lane.extract(value))
    }

    /// Writes a configuration register and queues the mappings that it changes. An access that straddles two aligned
    /// 32-bit registers is dropped.
    pub fn config_write(&mut self, cx: &mut Ctx<'_>, at: PciAddress, offset: u8, width: Width, value: u32) {
        if Lane::of(offset.into(), width).is_ok() {
            self.with_changes(at, |function| function.config_write(cx, offset, width, value));
        }
    }

    /// Function 0 tells whether there are others.
    fn is_multi_function(&self, at: PciAddress) -> bool {
        let others = PciAddress::new(at.device(), 1)..=PciAddress::new(at.device(), 7);
        at.function() == 0 && self.functions.range(others).next().is_some()
    }

    /// Calls a function and queues the mappings that the call changed.
    fn with_changes(&mut self, at: PciAddress, call: impl FnOnce(&mut dyn PciFunction)) {
        let Some(function) = self.functions.get_mut(&at) else { return };
        let before = function.mappings();
        call(&mut **function);
        let after = function.mappings();
        let changed = after.into_iter().zip(before).filter(|(new, old)| new != old);
        self.changes.extend(changed.map(|(mapping, _)| MapChange { function: at, mapping }));
    }

    /// The selected function and register; `None` if the data port is not a configuration cycle now.
    fn selected(&self) -> Option<(Option<PciAddress>, u8)> {
        let bus = self.address >> 16 & 0xFF;
        let function = (bus == 0).then_some(PciAddress((self.address >> 8) as u8));
        (self.address & ENABLE != 0).then_some((function, self.address as u8))
    }

    /// The function that has a window of its own among the configuration ports (the reset control at CF9h), with the
    /// window and the offset in it. The mechanism only claims 32-bit accesses to CF8h.
    fn neighbour(&mut self, port: u16) -> Option<(&mut dyn PciFunction, u8, u16)> {
        let port = FIRST_PORT + u64::from(port);
        self.functions.values_mut().find_map(|function| {
            let found = function.mappings().into_iter().find_map(|mapping| match mapping {
                Mapping::Window { window, space: Space::Io, size, base: Some(base) }
                    if port >= base && port - base < size =>
                {
                    Some((window, (port - base) as u16))
                }
                _ => None,
            });
            found.map(|(window, offset)| (&mut **function as &mut dyn PciFunction, window, offset))
        })
    }
}

impl Device for PciBus {
    fn name(&self) -> &'static str {
        "pci"
    }

    fn reset(&mut self, cx: &mut Ctx<'_>) {
        self.address = 0;
        for at in self.addresses().collect::<Vec<_>>() {
            self.with_changes(at, |function| function.reset(cx));
        }
    }

    fn port_read(&mut self, cx: &mut Ctx<'_>, _range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        match (offset, width) {
            (0, Width::B4) => Ok(self.address),
            (0..4, _) => {
                let (function, window, offset) = self.neighbour(offset).ok_or(IoError::NoSuchRegister)?;
                function.port_read(cx, window, offset, width)
            }
            (4..8, _) => {
                let lane = Lane::of(offset.into(), width)?;
                let (function, register) = self.selected().ok_or(IoError::NoSuchRegister)?;
                let value = function.map_or(u32::MAX, |at| self.config_read(at, register, Width::B4));
                Ok(lane.extract(value))
            }
            _ => Err(IoError::NoSuchRegister),
        }
    }

    fn port_write(
        &mut self,
        cx: &mut Ctx<'_>,
        _range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        match (offset, width) {
            (0, Width::B4) => self.address = value & ADDRESS_MASK,
            (0..4, _) => {
                let (function, window, offset) = self.neighbour(offset).ok_or(IoError::NoSuchRegister)?;
                function.port_write(cx, window, offset, width, value)?;
            }
            (4..8, _) => {
                Lane::of(offset.into(), width)?;
                let (function, register) = self.selected().ok_or(IoError::NoSuchRegister)?;
                if let Some(at) = function {
                    self.config_write(cx, at, register | offset as u8 & 3, width, value);
                }
            }
            _ => return Err(IoError::NoSuchRegister),
        }
        Ok(())
    }

    fn next_event(&self) -> Option<Tick> {
        self.functions.values().filter_map(|function| function.next_event()).min()
    }

    fn run_until(&mut self, cx: &mut Ctx<'_>) {
        for function in self.functions.values_mut() {
            if function.next_event().is_some_and(|event| event <= cx.now) {
                function.run_until(cx);
            }
        }
    }

    fn save(&self) -> Vec<u8> {
        let functions = self.functions.iter().map(|(&at, function)| (at, function.save())).collect();
        save_state(&State { address: self.address, functions })
    }

    /// Every mapping is queued, since the board cannot know which were other before.
    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = restore_state(self.name(), state)?;
        if !state.functions.iter().map(|(at, _)| *at).eq(self.addresses()) {
            return Err(StateError { device: self.name(), reason: "other functions are plugged in".into() });
        }
        self.address = state.address & ADDRESS_MASK;
        self.changes.clear();
        for ((&at, function), (_, bytes)) in self.functions.iter_mut().zip(&state.functions) {
            function.restore(bytes)?;
            self.changes.extend(function.mappings().into_iter().map(|mapping| MapChange { function: at, mapping }));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
