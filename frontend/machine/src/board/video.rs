//! Display memory in the guest's address space: the legacy window and the linear framebuffer follow the adapter's mode.
//!
//! A frame is mapped at one place only, so that writes are tracked there: the framebuffer while the guest uses it, else the
//! legacy window; whatever is not mapped goes to the adapter.

use super::{Board, MemoryWindow, Owner};
use crate::memory_map::VGA_BASE;
use crate::wiring;
use umbra_devices::clock::Tick;
use umbra_devices::vga::{self, Shown, Vga};
use umbra_mmu::addr::{GuestPhys, RegionId};
use umbra_mmu::video::VideoMemory;

impl Board {
    /// Opens the legacy window, if there is an adapter.
    pub(super) fn open_legacy_window(&mut self) {
        if self.chips.pci.get::<Vga>(wiring::VGA).is_none() {
            return;
        }
        let size = vga::LEGACY_BYTES as u64;
        let owner = Owner::Pci(wiring::VGA);
        self.set_window(wiring::VGA_REGION, MemoryWindow { owner, window: vga::LEGACY_WINDOW, size, base: VGA_BASE });
        // Whole pages below 1 MiB: this cannot fail.
        let _ = self.memory.map_mmio(GuestPhys(VGA_BASE), size, wiring::VGA_REGION);
    }
    /// Maps display memory as the adapter wants it now; `moved`: the framebuffer's window has another address.
    pub(super) fn map_video(&mut self, moved: bool) {
        let framebuffer = self.framebuffer();
        let Some(vga) = self.chips.pci.get_mut::<Vga>(wiring::VGA) else { return };
        let (old, wanted) = (vga.view(), vga.wanted_view());
        if wanted.is_none() && !moved {
            return;
        }
        let view = wanted.unwrap_or(old);
        let legacy = GuestPhys(VGA_BASE);
        // First nobody reaches display memory; then its contents go where they belong; then it is mapped again.
        // All ranges are whole pages that the address space has, so that mapping cannot fail.
        let _ = self.memory.map_mmio(legacy, vga::LEGACY_BYTES as u64, wiring::VGA_REGION);
        if let (Some((region, window)), false) = (framebuffer, view.linear) {
            let _ = self.memory.map_mmio(GuestPhys(window.base), window.size, region);
        }
        vga.set_view(view);
        if let Some((memory, pages, first)) = vga.legacy_pages() {
            let _ = memory.map(pages, GuestPhys(VGA_BASE + first));
        }
        if let (Some((_, window)), true) = (framebuffer, view.linear && (moved || !old.linear)) {
            let pages = (window.size / umbra_mmu::addr::PAGE_SIZE) as usize;
            let _ = vga.memory().map(0..pages, GuestPhys(window.base));
        }
    }
    /// The framebuffer's region and window, while it is decoded.
    fn framebuffer(&self) -> Option<(RegionId, MemoryWindow)> {
        let owner = (Owner::Pci(wiring::VGA), vga::FRAMEBUFFER_WINDOW);
        (0..).zip(&self.windows).find_map(|(number, window)| {
            let window = window.filter(|window| (window.owner, window.window) == owner)?;
            Some((RegionId(number), window))
        })
    }
    /// What the display shows at `now`, and the memory that it shows.
    pub fn shown(&self, now: Tick) -> Option<(Shown, std::sync::Arc<VideoMemory>)> {
        let vga = self.chips.pci.get::<Vga>(wiring::VGA)?;
        Some((vga.shown(now), vga.memory().clone()))
    }
}
