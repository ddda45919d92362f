//! The software TLB: what emitted code and the interpreter look at on every access.
//!
//! ```text
//! DataEntry   read tag · write tag · host address of the page · guest-physical page      32 bytes
//! FetchEntry  tag      · host address of the page · guest-physical page · identity       32 bytes
//! index = (linear >> 12) & (entries − 1); as a byte offset: (linear >> 7) & mask
//! ```
//! A tag is the linear address of a page, or has its low bit set and matches nothing ([`no_tag`]). An access of n bytes
//! hits when linear XOR tag, which is then its offset in the page, is at most 4096 − n: one comparison for the page and for
//! an access that runs over its end.
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

/// What the slot of `linear` holds where there is no tag: its XOR with an address that has this slot is at least 4096,
/// since bit 12, the lowest of the slot's index, differs.
#[inline(always)]
pub const fn no_tag(linear: u64) -> u64 {
    !linear & 0x1000 | NO_TAG
}

/// [`FetchEntry::id`] of no entry.
pub const NO_ID: u64 = u64::MAX;

/// The identity of a translation for fetches: 36 bits of the linear page number, 28 of the guest-physical one. Code that was
/// made for the one behind the other may be entered while the entry of its linear page has this identity.
#[inline(always)]
pub const fn fetch_id(linear: u64, page: PhysPage) -> u64 {
    linear >> 12 << 28 | page.0 & 0xfff_ffff
}

/// A TLB entry for data.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub struct DataEntry {
    /// Linear address of the page, if reads hit.
    pub read: u64,
    /// Linear address of the page, if writes hit.
    pub write: u64,
    /// Host address of the page.
    pub host: u64,
    /// The guest-physical page number.
    pub phys: u64,
}

/// A TLB entry for instruction fetches.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub struct FetchEntry {
    /// Linear address of the page, if fetches hit.
    pub tag: u64,
    /// Host address of the page.
    pub host: u64,
    /// The guest-physical page number.
    pub phys: u64,
    /// [`fetch_id`] of both, or [`NO_ID`].
    pub id: u64,
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
    /// The empty slot at an index.
    fn empty(index: usize) -> Self;
    /// The page whose entry this is, or something with the low bit set.
    fn page(&self) -> u64;
}

impl Slot for DataEntry {
    fn empty(index: usize) -> DataEntry {
        let tag = no_tag((index as u64) << 12);
        DataEntry { read: tag, write: tag, host: 0, phys: 0 }
    }
    fn page(&self) -> u64 {
        if self.read & NO_TAG != 0 { self.write } else { self.read }
    }
}

impl Slot for FetchEntry {
    fn empty(index: usize) -> FetchEntry {
        FetchEntry { tag: no_tag((index as u64) << 12), host: 0, phys: 0, id: NO_ID }
    }
    fn page(&self) -> u64 {
        self.tag
    }
}

impl Slot for LeafEntry {
    fn empty(_: usize) -> LeafEntry {
        NO_LEAF
    }
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
        let slots: Box<[E]> = (0..length.next_power_of_two()).map(E::empty).collect();
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
    /// How many slots hold a page's entry.
    pub(crate) fn pages(&self) -> usize {
        (0..self.length).filter(|&index| self.get(index).page() & NO_TAG == 0).count()
    }
    /// Empties every slot.
    pub(crate) fn clear(&self) {
        (0..self.length).for_each(|index| self.set(index, E::empty(index)));
    }
}

impl<E: Slot> Drop for Array<E> {
    fn drop(&mut self) {
        let slots = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.length);
        // SAFETY: made by Box::into_raw with this length.
        drop(unsafe { Box::from_raw(slots) });
    }
}

/// The page that one access of emitted code found last: a cache before the TLB, by site instead of address, so that neither
/// check nor translation waits for a load whose address depends on the guest's.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub struct Memo {
    /// Linear address of the page.
    pub page: u64,
    /// An address hits when its distance from `page` is less: at most 4096; 0: nothing hits.
    pub limit: u64,
    /// Host address − linear address.
    pub addend: u64,
    /// When it was filled, in the filler's terms.
    pub time: u64,
}

/// How many memos there are.
pub const MEMOS: usize = 256;

const NO_MEMO: Memo = Memo { page: 0, limit: 0, addend: 0, time: 0 };

/// All memos, those of one view: the user's.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Memos {
    /// The memos.
    pub entries: [Memo; MEMOS],
    /// Which may have been filled: a bit for every four. Whoever fills one sets it.
    pub used: u64,
}

impl Memos {
    pub(crate) const fn new() -> Memos {
        Memos { entries: [NO_MEMO; MEMOS], used: 0 }
    }
    /// Forgets them: the root is another one, or something was dropped.
    #[inline]
    pub(crate) fn clear(&mut self) {
        let mut used = std::mem::take(&mut self.used);
        while used != 0 {
            let first = 4 * used.trailing_zeros() as usize;
            self.entries[first..first + 4].iter_mut().for_each(|memo| memo.limit = 0);
            used &= used - 1;
        }
    }
}

/// What [`HotTlbs::conflicts`] may come to before Rust looks at the size of the TLB.
pub const MOST_CONFLICTS: u64 = 16;

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
    /// The rights in a leaf word that allow reads and writes of the current view; none while nothing may be put into the TLB
    /// without asking ([`VcpuMmu::set_slow_pages`](crate::VcpuMmu::set_slow_pages)).
    pub rights: [u64; 2],
    /// Entries that emitted code has put into the data TLB, still to be counted.
    pub refills: u64,
    /// How many of them took another page's place, still to be counted: [`MOST_CONFLICTS`] at most.
    pub conflicts: u64,
    /// What access sites found last. Only emitted code fills them, from entries of the current TLB.
    pub memos: Memos,
}

// SAFETY: the pointers lead to memory that the owning `VcpuMmu` owns or keeps alive (its arrays, the pool, the monitor's
// table arena), and move with it; entries are only accessed by the thread that has the `VcpuMmu`.
unsafe impl Send for HotTlbs {}

impl HotTlbs {
    #[inline(always)]
    pub(crate) fn data_entry(&self, linear: u64) -> &DataEntry {
        // SAFETY: the mask keeps the offset inside the array that `data` starts.
        unsafe { &*self.data.byte_add((linear >> 7 & self.data_mask) as usize) }
    }
    #[inline(always)]
    fn fetch_entry(&self, linear: u64) -> &FetchEntry {
        // SAFETY: as above.
        unsafe { &*self.fetch.byte_add((linear >> 7 & self.fetch_mask) as usize) }
    }
    /// The host address of `bytes` at `linear`, if the tag is theirs.
    #[inline(always)]
    fn hit(tag: u64, host: u64, linear: u64, bytes: usize) -> Option<HostPtr> {
        let offset = linear ^ tag;
        (offset <= 4096 - bytes as u64).then(|| HostPtr::from_bits(host.wrapping_add(offset)))
    }
    /// Reads, on a hit.
    #[inline(always)]
    pub fn load<T: Word>(&self, linear: u64) -> Option<T> {
        let entry = self.data_entry(linear);
        let at = Self::hit(entry.read, entry.host, linear, T::BYTES)?;
        // SAFETY: a matching tag means that the page at `host` is a frame, and the access lies in it.
        Some(unsafe { T::raw_load(at.0) })
    }
    /// Writes, on a hit.
    #[inline(always)]
    pub fn store<T: Word>(&self, linear: u64, value: T) -> bool {
        let entry = self.data_entry(linear);
        let Some(at) = Self::hit(entry.write, entry.host, linear, T::BYTES) else { return false };
        // SAFETY: as above.
        unsafe { T::raw_store(at.0, value) };
        true
    }
    /// The word for read-modify-write, on a hit of both rights.
    #[inline(always)]
    pub fn write_slot<T: Word>(&self, linear: u64) -> Option<RamSlot<'_, T>> {
        let entry = self.data_entry(linear);
        let at = Self::hit(entry.write, entry.host, linear, T::BYTES)?;
        // SAFETY: as above.
        Some(unsafe { RamSlot::new(at) })
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
        let at = Self::hit(entry.read, entry.host, linear, 1)?;
        // SAFETY: as above.
        Some(unsafe { RamRun::new(at, linear as usize & 0xfff) })
    }
    /// The rest of the page, on a write hit.
    #[inline(always)]
    pub fn write_run(&self, linear: u64) -> Option<RamRun<'_>> {
        let entry = self.data_entry(linear);
        let at = Self::hit(entry.write, entry.host, linear, 1)?;
        // SAFETY: as above.
        Some(unsafe { RamRun::new(at, linear as usize & 0xfff) })
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

    #[test]
    fn memos_are_forgotten() {
        let mut memos = Memos::new();
        for at in [0, 3, 4, 130, 255] {
            memos.entries[at].limit = 4089;
            memos.used |= 1 << (at / 4);
        }
        memos.clear();
        assert!(memos.used == 0 && memos.entries.iter().all(|memo| memo.limit == 0));
    }

    /// Emitted code has these numbers in it.
    #[test]
    fn layout() {
        assert_eq!((size_of::<DataEntry>(), size_of::<FetchEntry>(), size_of::<LeafEntry>()), (32, 32, 16));
        let data = [offset_of!(DataEntry, read), offset_of!(DataEntry, write), offset_of!(DataEntry, host)];
        assert_eq!((data, offset_of!(DataEntry, phys)), ([0, 8, 16], 24));
        let fetch = [offset_of!(FetchEntry, tag), offset_of!(FetchEntry, host), offset_of!(FetchEntry, phys)];
        assert_eq!((fetch, offset_of!(FetchEntry, id)), ([0, 8, 16], 24));
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
        assert_eq!((size_of::<Memo>(), MEMOS / 4), (32, 64), "a bit of `used` for every four");
        assert_eq!(offset_of!(crate::vcpu::VcpuMmu, hot), 0);
    }
}
