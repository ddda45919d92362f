//! The TLBs of one (vCPU, root): an array per view, the leaf-table pointers, and how much of the drop log they have seen.
//!
//! A set that is out of use keeps its entries and catches up when its root is loaded again; a new one begins with what its root
//! shares with the last one's. Arrays grow when entries push each other out, shrink when little of them is used, and all of a
//! vCPU's sets share a budget: the least recently used give theirs up.

use crate::drain::{DropLog, Span, Stale, is_high};
use crate::fault::View;
use crate::monitor::Monitor;
use crate::monitor::root::{Root, RootKey};
use crate::pte::Mode;
use crate::tlb::{Array, DataEntry, FetchEntry, LEAF_ENTRIES, LeafEntry, NO_TAG, Slot, monitor_word};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Entries of a fresh array, and the most that one may have.
const ENTRIES: (usize, usize) = (64, 4096);

/// One array and how it fares.
#[derive(Debug)]
pub(crate) struct Tlb<E: Slot> {
    pub(crate) slots: Array<E>,
    fills: usize,
    conflicts: usize,
}

impl<E: Slot> Tlb<E> {
    pub(crate) fn new() -> Tlb<E> {
        Tlb { slots: Array::new(ENTRIES.0), fills: 0, conflicts: 0 }
    }
    /// Counts entries that took another page's place.
    pub(crate) fn add_conflicts(&mut self, conflicts: u64) {
        self.conflicts += conflicts as usize;
    }
    /// Puts an entry in; tells whether the size is to be looked at.
    #[inline]
    pub(crate) fn fill(&mut self, entry: E) -> bool {
        let index = (entry.page() >> 12) as usize;
        let old = self.slots.get(index).page();
        self.fills += 1;
        self.conflicts += usize::from(old & 1 == 0 && old != entry.page());
        self.slots.set(index, entry);
        self.conflicts >= self.slots.len() || self.fills >= 8 * self.slots.len()
    }
    /// Changes the size if the last fills ask for it.
    fn resize(&mut self, room: usize) -> bool {
        let length = self.slots.len();
        if self.conflicts >= length && length < ENTRIES.1 && room >= length * 32 {
            self.rebuild(length * 2);
            return true;
        }
        if self.conflicts < length && self.fills < 8 * length {
            return false;
        }
        let idle = self.conflicts < length / 16 && length > ENTRIES.0;
        (self.fills, self.conflicts) = (0, 0);
        let used = if idle { self.slots.pages() } else { length };
        if used < length / 8 {
            self.rebuild(length / 2);
            return true;
        }
        false
    }
    fn rebuild(&mut self, length: usize) {
        let new = Array::new(length);
        for entry in (0..self.slots.len()).map(|index| self.slots.get(index)).filter(|entry| entry.page() & 1 == 0) {
            new.set((entry.page() >> 12) as usize, entry);
        }
        *self = Tlb { slots: new, fills: 0, conflicts: 0 };
    }
    /// Forgets pages whose linear address has these bits 20:12.
    fn drop_page(&self, bits: u16) {
        let mut index = usize::from(bits);
        loop {
            if self.slots.get(index).page() >> 12 & 511 == u64::from(bits) {
                self.slots.set(index, E::empty(index));
            }
            index += 512;
            if index >= self.slots.len() {
                return;
            }
        }
    }
    /// The entries of some pages, with room for as many again.
    fn part(&self, wanted: impl Fn(u64) -> bool) -> Option<Tlb<E>> {
        let entries = (0..self.slots.len()).map(|index| self.slots.get(index));
        let kept: Vec<E> = entries.filter(|entry| entry.page() & NO_TAG == 0 && wanted(entry.page())).collect();
        if kept.is_empty() {
            return None;
        }
        let slots = Array::new((2 * kept.len()).next_power_of_two().clamp(ENTRIES.0, self.slots.len()));
        kept.iter().for_each(|entry| slots.set((entry.page() >> 12) as usize, *entry));
        Some(Tlb { slots, fills: 0, conflicts: 0 })
    }
    /// Forgets pages by number.
    fn drop_span(&self, span: Span) {
        match span.page() {
            Some(page) if self.slots.get(page as usize).page() == page << 12 => {
                self.slots.set(page as usize, E::empty(page as usize));
            }
            Some(_) => {}
            None => self.drop_from(span.first() as usize, span.pages(), |page| span.contains(page)),
        }
    }
    fn drop_where(&self, stale: impl Fn(u64) -> bool) {
        self.drop_from(0, u64::MAX, stale);
    }
    /// Forgets pages of so many entries, from one on.
    fn drop_from(&self, first: usize, entries: u64, stale: impl Fn(u64) -> bool) {
        let entries = entries.min(self.slots.len() as u64) as usize;
        for index in first..first + entries {
            let page = self.slots.get(index).page();
            if page & NO_TAG == 0 && stale(page >> 12) {
                self.slots.set(index, E::empty(index));
            }
        }
    }
    fn bytes(&self) -> usize {
        self.slots.len() * 32
    }
}

/// All TLBs of one root.
#[derive(Debug)]
pub(crate) struct TlbSet {
    pub(crate) root: Arc<Root>,
    pub(crate) data: [Option<Tlb<DataEntry>>; 3],
    pub(crate) fetch: [Option<Tlb<FetchEntry>>; 2],
    pub(crate) leaves: Array<LeafEntry>,
    /// The drops up to this number are applied.
    pub(crate) seen: u64,
    /// When the set was last made current.
    pub(crate) stamp: u64,
}

/// What a set learnt from the log.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caught {
    /// There was something to learn.
    pub(crate) any: bool,
    pub(crate) flushed: bool,
    pub(crate) root: bool,
}

/// The index of a view's fetch TLB.
pub(crate) fn fetch_index(view: View) -> usize {
    usize::from(view != View::User)
}

impl TlbSet {
    /// An empty set of the root for a key. It has seen what was posted so far, and no more: under the mmu lock nobody gives the
    /// root up between the look-up and the count.
    pub(crate) fn of(monitor: &mut Monitor, key: RootKey) -> TlbSet {
        let (root, seen) = (monitor.root(key), monitor.log.head());
        let leaves = Array::new(LEAF_ENTRIES);
        TlbSet { root, data: [const { None }; 3], fetch: [const { None }; 2], leaves, seen, stamp: 0 }
    }
    /// Takes over from a set that has seen as much what both roots have in common, and links it.
    pub(crate) fn inherit(&mut self, monitor: &mut Monitor, from: &TlbSet) {
        debug_assert_eq!(self.seen, from.seen);
        monitor.share(&from.root, &self.root);
        let rules = self.root.key.rules;
        if from.root.key.rules != rules || rules.mode == Mode::Off {
            return;
        }
        let (old, new) = (from.root.words(), self.root.words());
        let wanted = |page: u64| {
            let index = rules.index(rules.top_level(), page);
            let word = monitor_word(new, index);
            word != 0 && word == monitor_word(old, index)
        };
        for (data, old) in self.data.iter_mut().zip(&from.data) {
            *data = old.as_ref().and_then(|tlb| tlb.part(wanted));
        }
        for (fetch, old) in self.fetch.iter_mut().zip(&from.fetch) {
            *fetch = old.as_ref().and_then(|tlb| tlb.part(wanted));
        }
    }
    pub(crate) fn bytes(&self) -> usize {
        let data: usize = self.data.iter().flatten().map(Tlb::bytes).sum();
        let fetch: usize = self.fetch.iter().flatten().map(Tlb::bytes).sum();
        data + fetch + LEAF_ENTRIES * 16
    }
    /// How many entries for pages all of them hold.
    pub(crate) fn entries(&self) -> usize {
        let data: usize = self.data.iter().flatten().map(|tlb| tlb.slots.pages()).sum();
        let fetch: usize = self.fetch.iter().flatten().map(|tlb| tlb.slots.pages()).sum();
        data + fetch
    }
    /// The data TLB of a view.
    pub(crate) fn data(&mut self, view: View) -> &mut Tlb<DataEntry> {
        self.data[view as usize].get_or_insert_with(Tlb::new)
    }
    /// The fetch TLB of a view.
    pub(crate) fn fetch(&mut self, view: View) -> &mut Tlb<FetchEntry> {
        self.fetch[fetch_index(view)].get_or_insert_with(Tlb::new)
    }
    /// Resizes the arrays that an access of this view fills, within `room` bytes; tells whether one moved.
    pub(crate) fn resize(&mut self, view: View, room: usize) -> bool {
        let data = self.data[view as usize].as_mut().is_some_and(|tlb| tlb.resize(room));
        self.fetch[fetch_index(view)].as_mut().is_some_and(|tlb| tlb.resize(room)) || data
    }
    /// Applies the drops that were posted since the set was last in use.
    pub(crate) fn catch_up(&mut self, log: &DropLog) -> Caught {
        let mut caught = Caught::default();
        let (data, fetch, leaves) = (&self.data, &self.fetch, &self.leaves);
        let before = self.seen;
        self.seen = log.since(self.seen, |stale| match stale {
            Stale::Span(span) => {
                data.iter().flatten().for_each(|tlb| tlb.drop_span(span));
                fetch.iter().flatten().for_each(|tlb| tlb.drop_span(span));
            }
            Stale::Page(bits) => {
                data.iter().flatten().for_each(|tlb| tlb.drop_page(bits));
                fetch.iter().flatten().for_each(|tlb| tlb.drop_page(bits));
            }
            Stale::Tables => leaves.clear(),
            Stale::Gate => caught.root = true,
            Stale::Low => {
                data.iter().flatten().for_each(|tlb| tlb.drop_where(|page| !is_high(page)));
                fetch.iter().flatten().for_each(|tlb| tlb.drop_where(|page| !is_high(page)));
                leaves.clear();
                caught.root = true;
            }
            Stale::All | Stale::Root => {
                data.iter().flatten().for_each(|tlb| tlb.slots.clear());
                fetch.iter().flatten().for_each(|tlb| tlb.slots.clear());
                leaves.clear();
                caught.flushed = true;
                caught.root |= stale == Stale::Root;
            }
        });
        caught.any = self.seen != before;
        caught.root |= !self.root.is_alive();
        caught
    }
    /// The monitor's leaf word for a linear address, or 0: two dependent loads when the leaf table is known. No lock.
    #[inline]
    pub(crate) fn probe(&self, linear: u64) -> u64 {
        let chunk = linear >> 21;
        let leaf = self.leaves.get(chunk as usize);
        if leaf.tag == chunk {
            return monitor_word(leaf.table, (linear >> 12) as usize & 511);
        }
        self.descend(linear)
    }
    fn descend(&self, linear: u64) -> u64 {
        let Some(table) = self.leaf_table(linear) else { return 0 };
        let chunk = linear >> 21;
        self.leaves.set(chunk as usize, LeafEntry { tag: chunk, table });
        monitor_word(table, (linear >> 12) as usize & 511)
    }
    /// As [`TlbSet::probe`], leaving nothing behind.
    pub(crate) fn probe_quietly(&self, linear: u64) -> u64 {
        self.leaf_table(linear).map_or(0, |table| monitor_word(table, (linear >> 12) as usize & 511))
    }
    /// The 512 leaf words around a linear address.
    fn leaf_table(&self, linear: u64) -> Option<*const AtomicU64> {
        let rules = self.root.key.rules;
        let mut table = self.root.words();
        for level in (2..=rules.top_level()).rev() {
            let word = monitor_word(table, rules.index(level, linear));
            if word == 0 {
                return None;
            }
            table = std::ptr::with_exposed_provenance((word & !7) as usize);
        }
        if rules.mode == Mode::TwoLevel {
            // A leaf table of 1,024 entries covers two chunks of 2 MiB.
            table = table.wrapping_add((linear >> 21 & 1) as usize * 512);
        }
        Some(table)
    }
}
