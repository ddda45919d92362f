//! What PCI functions ask of the board: windows that moved, shadowed regions (PAM), resets, power-off.

use super::{Board, MemoryWindow, Owner, PortWindow, Request};
use crate::wiring;
use umbra_devices::acpi_pm::PowerEvent;
use umbra_devices::pci::i440fx::I440fx;
use umbra_devices::pci::{Decode, MapChange, Mapping, PciAddress, Space};
use umbra_mmu::addr::{GuestPhys, PAGE_OFFSET, PAGE_SIZE, RegionId};
use umbra_mmu::phys_map::{Backing, ReadFrom, WriteTo};

impl Board {
    /// Takes what the functions ask for.
    pub(super) fn collect_from_pci(&mut self) {
        let changes = self.chips.pci.take_map_changes();
        for change in &changes {
            self.apply(change);
        }
        self.map_video(changes.iter().any(|change| change.function == wiring::VGA));
        let by_bridge = self.chips.isa_bridge().and_then(|bridge| bridge.take_reset());
        let by_host = self.chips.pci.get_mut::<I440fx>(wiring::HOST_BRIDGE).and_then(|host| host.take_reset());
        if by_bridge.or(by_host).is_some() {
            // NOTE(why not INIT for a soft reset): without firmware there is nothing at the reset vector.
            self.request(Request::Reset);
        }
        match self.chips.power().and_then(|power| power.pm.take_power_event()) {
            Some(PowerEvent::SoftOff) => self.request(Request::PowerOff),
            // NOTE(why not sleep): the tables offer no sleep state but soft-off, and nothing would wake the machine.
            Some(PowerEvent::Sleep(_)) | None => {}
        }
    }

    fn apply(&mut self, &MapChange { function, mapping }: &MapChange) {
        match mapping {
            Mapping::Window { window, space: Space::Io, size, base } => {
                let owner = Owner::Pci(function);
                self.ports.remove(owner, window);
                // A window over the configuration ports is the bus's own business.
                let base = base.and_then(|base| u16::try_from(base).ok()).filter(|base| !(0xCF8..0xD00).contains(base));
                if let Some(first) = base {
                    self.ports.add(PortWindow { first, length: size.min(0x1_0000) as u16, owner, range: window });
                }
            }
            Mapping::Window { window, space: Space::Memory, size, base } => {
                self.move_window(function, window, size, base);
            }
            Mapping::Shadow { base, size, reads, writes } => {
                let backing = Backing {
                    read: if reads == Decode::Dram { ReadFrom::Ram } else { ReadFrom::Rom },
                    write: if writes == Decode::Dram { WriteTo::Ram } else { WriteTo::Drop },
                };
                // The regions are whole pages below 1 MiB: this cannot fail.
                let _ = self.memory.set_backing(base, size, backing);
            }
            // There is no system-management mode, and the display memory stays where it is.
            Mapping::Smram(_) => {}
        }
    }

    fn move_window(&mut self, function: PciAddress, window: u8, size: u64, base: Option<u64>) {
        let owner = Owner::Pci(function);
        let old = self.windows.iter().position(|w| w.is_some_and(|w| (w.owner, w.window) == (owner, window)));
        if let Some(entry) = old.and_then(|number| self.windows.get_mut(number))
            && let Some(gone) = entry.take()
        {
            let _ = self.memory.unmap(GuestPhys(gone.base & !PAGE_OFFSET), pages(gone.base, gone.size));
        }
        let Some(base) = base else { return };
        let number = old.unwrap_or_else(|| self.windows.len().max(wiring::FIRST_PCI_REGION.into()));
        let Ok(region) = u16::try_from(number).map(RegionId) else { return };
        let mapped = self.memory.map_mmio(GuestPhys(base & !PAGE_OFFSET), pages(base, size), region);
        // A window where no address can reach answers nothing.
        if mapped.is_ok() {
            self.set_window(region, MemoryWindow { owner, window, base, size });
        }
    }
}

/// The bytes of all pages that a window touches.
fn pages(base: u64, size: u64) -> u64 {
    ((base & PAGE_OFFSET) + size).next_multiple_of(PAGE_SIZE)
}
