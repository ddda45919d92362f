//! The software TLB: what emitted code and the interpreter look at on every access.
//!
//! ```text
//! DataEntry   read tag · write tag · addend (host pointer − linear) · guest-physical page      32 bytes
//! FetchEntry  tag      · addend    · guest-physical page · spare                                32 bytes
//! index = (linear >> 12) & (entries − 1); as a byte offset: (linear >> 7) & mask
//! ```
//! A tag is the linear address of a page, or has its low bit set and matches nothing. An access of n bytes hits when
//! (linear + n − 1) with its low 12 bits cleared equals the tag at the index of `linear`: a straddling access asks the slot of
//! its first page for its second, which cannot be there, since neighbours never share a slot.
#![allow(
    unsafe_code,
    reason = "one check and one access: 1–2 ns, where a checked path through slices costs twice that"
)]

use crate::addr::PhysPage;
use crate::ram::{HostPtr, RamRun, RamSlot, Word};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// A tag that no linear address has.
pub const NO_TAG: u64 = 1;

/// A TLB entry for data.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub struct DataEntry {
    /// Linear address of the page, if reads hit.
    pub read: u64,
    /// Linear address of the page, if writes hit.
    pub write: u64,
    /// Host address minus linear address, wrapping.
    pub addend: u64,
    /// The guest-physical page number.
    pub phys: u64,
}

/// A TLB entry for instruction fetches.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub struct FetchEntry {
    /// Linear address of the page, if fetches hit.
    pub tag: u64,
    /// Host address minus linear address, wrapping.
    pub addend: u64,
    /// The guest-physical page number.
    pub phys: u64,
    /// Keeps the entry at 32 bytes.
    pub spare: u64,
}

/// One cached pointer to a monitor leaf table of 512 entries.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub struct LeafEntry {
    /// linear >> 21, or all ones.
    pub tag: u64,
    /// The table's address: 512 words (`monitor::table` has their bits).
    pub table: *const AtomicU64,
}

/// Leaf-table pointers per root, a power of two.
pub const LEAF_ENTRIES: usize = 64;

pub(crate) const NO_LEAF: LeafEntry = LeafEntry { tag: !0, table: std::ptr::null() };

/// A slot type of [`Array`].
pub(crate) trait Slot: Copy {
    const EMPTY: Self;
    /// The page whose entry this is, or something with the low bit set.
    fn page(&self) -> u64;
}

impl Slot for DataEntry {
    const EMPTY: DataEntry = DataEntry { read: NO_TAG, write: NO_TAG, addend: 0, phys: 0 };
    fn page(&self) -> u64 {
        if self.read == NO_TAG { self.write } else { self.read }
    }
}

impl Slot for FetchEntry {
    const EMPTY: FetchEntry = FetchEntry { tag: NO_TAG, addend: 0, phys: 0, spare: 0 };
    fn page(&self) -> u64 {
        self.tag
    }
}

impl Slot for LeafEntry {
    const EMPTY: LeafEntry = NO_LEAF;
    fn page(&self) -> u64 {
        self.tag
    }
}

/// An array that emitted code reads through a raw pointer: never borrowed, only accessed slot by slot.
#[derive(Debug)]
pub(crate) struct Array<E: Slot> {
    start: NonNull<E>,
    length: usize,
}

// SAFETY: an array owns its slots as a box does; only the thread that has it touches them. A pointer in a slot leads into
// the monitor's table arena, which the owning `VcpuMmu` keeps alive wherever it moves.
unsafe impl<E: Slot> Send for Array<E> {}

impl<E: Slot> Array<E> {
    /// `length` empty slots (a power of two).
    pub(crate) fn new(length: usize) -> Array<E> {
        let slots = vec![E::EMPTY; length.next_power_of_two()].into_boxed_slice();
        let length = slots.len();
        // A box is never null.
        let start = NonNull::new(Box::into_raw(slots).cast::<E>()).unwrap_or(NonNull::dangling());
        Array { start, length }
    }
    pub(crate) fn len(&self) -> usize {
        self.length
    }
    pub(crate) fn start(&self) -> *mut E {
        self.start.as_ptr()
    }
    /// (length − 1) × 32.
    pub(crate) fn byte_mask(&self) -> u64 {
        (self.length as u64 - 1) << 5
    }
    pub(crate) fn get(&self, index: usize) -> E {
        // SAFETY: masked to the array, whose length is a power of two; only this thread accesses it.
        unsafe { self.start.as_ptr().add(index & (self.length - 1)).read() }
    }
    pub(crate) fn set(&self, index: usize, entry: E) {
        // SAFETY: as above.
        unsafe { self.start.as_ptr().add(index & (self.length - 1)).write(entry) }
    }
    /// Empties every slot.
    pub(crate) fn clear(&self) {
        (0..self.length).for_each(|index| self.set(index, E::EMPTY));
    }
}

impl<E: Slot> Drop for Array<E> {
    fn drop(&mut self) {
        let slots = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.length);
        // SAFETY: made by Box::into_raw with this length.
        drop(unsafe { Box::from_raw(slots) });
    }
}

/// What emitted code reads: the first field of a vCPU's mmu, at fixed offsets (`offset_of!`).
///
/// Every slow path may change the pointers and masks: read them anew after each call.
#[derive(Debug)]
#[repr(C)]
pub struct HotTlbs {
    /// Entries of the current data TLB.
    pub data: *mut DataEntry,
    /// (entries − 1) × 32.
    pub data_mask: u64,
    /// Entries of the current fetch TLB.
    pub fetch: *mut FetchEntry,
    /// (entries − 1) × 32.
    pub fetch_mask: u64,
    /// The current root's leaf-table pointers, [`LEAF_ENTRIES`] of 16 bytes.
    pub leaves: *mut LeafEntry,
    /// Guest-physical page of each frame, by (host pointer − `pool`) >> 12.
    pub owners: *const AtomicU64,
    /// The host address of frame 0.
    pub pool: u64,
}

// SAFETY: the pointers lead to memory that the owning `VcpuMmu` owns or keeps alive (its arrays, the pool, the monitor's
// table arena), and move with it; entries are only accessed by the thread that has the `VcpuMmu`.
unsafe impl Send for HotTlbs {}

impl HotTlbs {
    #[inline(always)]
    fn data_entry(&self, linear: u64) -> &DataEntry {
        // SAFETY: the mask keeps the offset inside the array that `data` starts.
        unsafe { &*self.data.byte_add((linear >> 7 & self.data_mask) as usize) }
    }
    #[inline(always)]
    fn fetch_entry(&self, linear: u64) -> &FetchEntry {
        // SAFETY: as above.
        unsafe { &*self.fetch.byte_add((linear >> 7 & self.fetch_mask) as usize) }
    }
    #[inline(always)]
    fn last_page(linear: u64, bytes: usize) -> u64 {
        linear.wrapping_add(bytes as u64 - 1) & !0xfff
    }
    /// Reads, on a hit.
    #[inline(always)]
    pub fn load<T: Word>(&self, linear: u64) -> Option<T> {
        let entry = self.data_entry(linear);
        if entry.read != Self::last_page(linear, T::BYTES) {
            return None;
        }
        // SAFETY: a matching tag means that addend + linear lies in a frame, and the access in its page.
        Some(unsafe { T::raw_load(HostPtr::from_bits(entry.addend.wrapping_add(linear)).0) })
    }
    /// Writes, on a hit.
    #[inline(always)]
    pub fn store<T: Word>(&self, linear: u64, value: T) -> bool {
        let entry = self.data_entry(linear);
        if entry.write != Self::last_page(linear, T::BYTES) {
            return false;
        }
        // SAFETY: as above.
        unsafe { T::raw_store(HostPtr::from_bits(entry.addend.wrapping_add(linear)).0, value) };
        true
    }
    /// The word for read-modify-write, on a hit of both rights.
    #[inline(always)]
    pub fn write_slot<T: Word>(&self, linear: u64) -> Option<RamSlot<'_, T>> {
        let entry = self.data_entry(linear);
        if entry.write != Self::last_page(linear, T::BYTES) {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { RamSlot::new(HostPtr::from_bits(entry.addend.wrapping_add(linear))) })
    }
    /// The guest-physical page, on a fetch hit.
    #[inline(always)]
    pub fn fetch_page(&self, linear: u64) -> Option<PhysPage> {
        let entry = self.fetch_entry(linear);
        (entry.tag == linear & !0xfff).then_some(PhysPage(entry.phys))
    }
    /// The rest of the page, on a read hit.
    #[inline(always)]
    pub fn read_run(&self, linear: u64) -> Option<RamRun<'_>> {
        let entry = self.data_entry(linear);
        if entry.read != linear & !0xfff {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { RamRun::new(HostPtr::from_bits(entry.addend.wrapping_add(linear)), linear as usize & 0xfff) })
    }
    /// The rest of the page, on a write hit.
    #[inline(always)]
    pub fn write_run(&self, linear: u64) -> Option<RamRun<'_>> {
        let entry = self.data_entry(linear);
        if entry.write != linear & !0xfff {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { RamRun::new(HostPtr::from_bits(entry.addend.wrapping_add(linear)), linear as usize & 0xfff) })
    }
}

/// Reads one word of a monitor table without the mmu lock.
#[inline(always)]
pub(crate) fn monitor_word(table: *const AtomicU64, index: usize) -> u64 {
    // SAFETY: tables live in the monitor's arena, which the vCPU's mmu keeps alive; a table that is given up is only reused
    // after every vCPU has dropped its pointers (`drain`). Callers mask the index to the table's length.
    unsafe { (*table.add(index)).load(Ordering::Acquire) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Emitted code has these numbers in it.
    #[test]
    fn layout() {
        assert_eq!((size_of::<DataEntry>(), size_of::<FetchEntry>(), size_of::<LeafEntry>()), (32, 32, 16));
        let data = [offset_of!(DataEntry, read), offset_of!(DataEntry, write), offset_of!(DataEntry, addend)];
        assert_eq!((data, offset_of!(DataEntry, phys)), ([0, 8, 16], 24));
        let fetch = [offset_of!(FetchEntry, tag), offset_of!(FetchEntry, addend), offset_of!(FetchEntry, phys)];
        assert_eq!(fetch, [0, 8, 16]);
        let hot = [
            offset_of!(HotTlbs, data),
            offset_of!(HotTlbs, data_mask),
            offset_of!(HotTlbs, fetch),
            offset_of!(HotTlbs, fetch_mask),
            offset_of!(HotTlbs, leaves),
            offset_of!(HotTlbs, owners),
            offset_of!(HotTlbs, pool),
        ];
        assert_eq!(hot, [0, 8, 16, 24, 32, 40, 48]);
        assert_eq!(offset_of!(crate::vcpu::VcpuMmu, hot), 0);
    }
}
