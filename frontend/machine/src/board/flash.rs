//! Flash memory in the guest's address space: its contents are mapped as a ROM whose writes the chip takes, and the chip over it
//! while the guest reads anything but contents.

use super::{Board, MemoryWindow, Owner};
use crate::wiring::{self, Slot};
use umbra_devices::cfi_flash::View;
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::memory::MapError;

impl Board {
    /// Gives the flash memory its place.
    pub(super) fn place_flash(&mut self, base: GuestPhys) -> Result<(), MapError> {
        let Some(flash) = &self.chips.flash else { return Ok(()) };
        let size = flash.contents().len() as u64;
        self.memory.map_rom(base, flash.contents())?;
        self.memory.map_rom_written(base, size, wiring::FLASH_REGION)?;
        let owner = Owner::Chip(Slot::Flash);
        self.set_window(wiring::FLASH_REGION, MemoryWindow { owner, window: 0, size, base: base.0 });
        Ok(())
    }
    /// Maps the flash memory as it wants it now.
    pub(super) fn map_flash(&mut self) {
        let Some(Some(MemoryWindow { base, size, .. })) =
            self.windows.get(usize::from(wiring::FLASH_REGION.0)).copied()
        else {
            return;
        };
        let Some(flash) = &mut self.chips.flash else { return };
        let base = GuestPhys(base);
        // The range was mapped before: mapping it again cannot fail.
        match flash.take_view() {
            Some(View::Device) => {
                let _ = self.memory.map_mmio(base, size, wiring::FLASH_REGION);
            }
            Some(View::Contents) => {
                flash.take_changed(|offset, bytes| self.memory.write_rom(base.wrapping_add(offset), bytes));
                let _ = self.memory.map_rom_written(base, size, wiring::FLASH_REGION);
            }
            None => {}
        }
    }
}
