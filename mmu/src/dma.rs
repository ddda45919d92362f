//! What a device may see of guest memory.

use crate::addr::GuestPhys;

/// Guest-physical memory as a bus master sees it. Reads of unmapped addresses give FFh, writes to them are dropped.
///
/// Writes are seen by every tracker (monitor tables, code) before they return.
pub trait Dma {
    /// Copies guest memory at `at` into `into`.
    fn read(&self, at: GuestPhys, into: &mut [u8]);
    /// Copies `from` into guest memory at `at`.
    fn write(&mut self, at: GuestPhys, from: &[u8]);
    /// The guest gives up the contents of whole pages: they read as zeros from now on, if the memory can forget.
    fn discard(&mut self, _at: GuestPhys, _bytes: u64) {}
}
