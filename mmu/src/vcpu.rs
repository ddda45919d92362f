//! One vCPU's view of guest memory: fast paths on the TLB, slow paths through the monitor.
//!
//! A slow access is served, in this order: by the monitor without a lock (a few nanoseconds), by a fill under the mmu lock, or
//! it is the guest's own page fault. Called by the cpu crate only.

use crate::addr::{GuestPhys, Linear, PAGE_OFFSET, PhysPage};
use crate::attention::{Attention, bits};
use crate::counters::{Event, FaultClass};
use crate::descriptors::Beside;
use crate::drain::{CodeWrite, VcpuShare};
use crate::events::EventKind;
use crate::fault::{Access, PageFault, View};
use crate::frames::{WATCH_CLEAN, WATCH_NOTED, WATCH_TABLE};
use crate::memory::Shared;
use crate::monitor::root::{RootKey, root_number};
use crate::monitor::table::{ADDRESS, ROM, SHARED, SLOW, is_special, right};
use crate::place::{Place, PlaceKind, WriteNote};
use crate::pte::rule;
use crate::ram::{HostPtr, RamRun, RamSlot, Word};
use crate::regs::PagingRegs;
use crate::sets::{Caught, TlbSet};
use crate::tlb::{DataEntry, FetchEntry, HotTlbs, Memo, Memos, fetch_id, no_tag};
use crate::watch::{gap, grains};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// Of so many changes of paging state one is looked at.
const SAMPLED: u64 = 64;

/// One vCPU's translation. The first field is what emitted code reads.
#[derive(Debug)]
#[repr(C)]
pub struct VcpuMmu {
    pub(crate) hot: HotTlbs,
    view: View,
    current: usize,
    sets: Vec<TlbSet>,
    by_key: FxHashMap<RootKey, usize>,
    regs: PagingRegs,
    /// Bytes of all sets, when last counted.
    bytes: usize,
    clock: u64,
    /// The root must be looked up again.
    stale_root: bool,
    /// Sets of TLBs are kept for the roots that are not current.
    keeps_roots: bool,
    /// Emitted code may fill the data TLB.
    refills: bool,
    /// Changes of paging state that met a kept set.
    met: u64,
    /// Linear pages that never get a data entry: every access to them is resolved, and so seen (breakpoints on data).
    slow_pages: Vec<u64>,
    /// Stores beside watched bytes.
    pub(crate) beside: Beside,
    pub(crate) shared: Arc<Shared>,
    pub(crate) share: Arc<VcpuShare>,
}

impl VcpuMmu {
    pub(crate) fn new(shared: Arc<Shared>, attention: Arc<Attention>) -> VcpuMmu {
        let regs = PagingRegs::default();
        let (share, set) = {
            let mut monitor = shared.lock();
            let share = Arc::new(VcpuShare::new(attention, monitor.vcpus.len() as u16));
            monitor.vcpus.push(Arc::clone(&share));
            shared.vcpus.store(monitor.vcpus.len(), Ordering::Relaxed);
            let mut rules = regs.rules(shared.maxphyaddr);
            rules.bits |= if shared.a20_masked.load(Ordering::Relaxed) { rule::A20_MASKED } else { 0 };
            (share, TlbSet::of(&mut monitor, RootKey { rules, root: regs.root() }))
        };
        let mut by_key = FxHashMap::default();
        by_key.insert(set.root.key, 0);
        let hot = HotTlbs {
            data: std::ptr::null_mut(),
            data_mask: 0,
            fetch: std::ptr::null_mut(),
            fetch_mask: 0,
            leaves: set.leaves.start(),
            owners: shared.pool.owners(),
            pool: shared.pool.base().bits(),
            rights: [0; 2],
            refills: 0,
            conflicts: 0,
            memos: Memos::new(),
        };
        let (bytes, sets) = (set.bytes(), vec![set]);
        let view = View::Supervisor;
        let (slow_pages, beside) = (Vec::new(), Beside::default());
        let (current, clock, met) = (0, 0, 0);
        let (stale_root, keeps_roots, refills) = (false, true, true);
        #[rustfmt::skip]
        let mut vcpu = VcpuMmu {
            hot, view, current, sets, by_key, regs, bytes, clock, stale_root, keeps_roots, refills, met, slow_pages, beside,
            shared, share,
        };
        vcpu.install();
        vcpu
    }

    /// Takes new paging state over: a pointer swap when the root is known. Also the drain that a CR write is.
    pub fn set_paging(&mut self, regs: &PagingRegs) {
        self.regs = *regs;
        let key = self.key();
        if self.set().root.key == key {
            return self.drain();
        }
        let start = self.shared.events.start();
        self.share.hear();
        let kind = match self.by_key.get(&key) {
            Some(number) if self.keeps_roots => {
                self.current = *number;
                self.catch_up();
                self.note_met();
                EventKind::RootMet
            }
            _ => {
                self.new_set(key);
                EventKind::RootNew
            }
        };
        self.hot.memos.clear();
        self.catch_up();
        self.activate();
        self.shared.events.note(start, Some(self.share.number), kind, regs.cr3);
    }
    /// From now on each change of paging state to another root begins with empty TLBs. The guest cannot tell: this is to measure
    /// what it is worth to keep them.
    pub fn forget_roots(&mut self) {
        self.keeps_roots = false;
    }
    /// From now on emitted code fills no TLB by itself: to measure what that is worth, and to find out whether it is at fault.
    pub fn resolve_each_miss(&mut self) {
        self.refills = false;
        self.install();
    }
    /// Counts a change of paging state that met a kept set; what it still holds, each [`SAMPLED`]th time.
    fn note_met(&mut self) {
        self.share.tally.event(Event::RootHit);
        self.met += 1;
        if self.met.is_multiple_of(SAMPLED) {
            self.share.tally.events(Event::KeptEntries, SAMPLED * self.set().entries() as u64);
        }
    }
    /// The four PDPTEs at `cr3`, as they lie in memory.
    pub fn load_pdptes(&mut self, cr3: u64) -> [u64; 4] {
        let base = self.set().root.key.rules.gate(cr3 & 0xffff_ffe0);
        let registers = {
            let monitor = self.shared.lock();
            std::array::from_fn(|i| monitor.table_entry(GuestPhys(base + 8 * i as u64), 8))
        };
        self.catch_up();
        registers
    }
    /// Chooses with whose rights ordinary accesses and fetches are made.
    pub fn set_view(&mut self, view: View) {
        if view != self.view {
            self.view = view;
            self.install();
        }
    }
    /// The view that was set.
    pub fn view(&self) -> View {
        self.view
    }
    /// The paging state that was set.
    pub fn paging(&self) -> &PagingRegs {
        &self.regs
    }
    /// What emitted code reads.
    pub fn hot(&self) -> &HotTlbs {
        &self.hot
    }

    /// Reads on a TLB hit.
    #[inline(always)]
    pub fn load<T: Word>(&self, linear: u64) -> Option<T> {
        self.hot.load(linear)
    }
    /// Writes on a TLB hit.
    #[inline(always)]
    pub fn store<T: Word>(&self, linear: u64, value: T) -> bool {
        self.hot.store(linear, value)
    }
    /// The word for read-modify-write on a TLB hit.
    #[inline(always)]
    pub fn write_slot<T: Word>(&self, linear: u64) -> Option<RamSlot<'_, T>> {
        self.hot.write_slot(linear)
    }
    /// The guest-physical page on a fetch-TLB hit.
    #[inline(always)]
    pub fn fetch_page(&self, linear: u64) -> Option<PhysPage> {
        self.hot.fetch_page(linear)
    }
    /// The page around `linear` for reading, on a TLB hit.
    #[inline(always)]
    pub fn read_run(&self, linear: u64) -> Option<RamRun<'_>> {
        self.hot.read_run(linear)
    }
    /// The page around `linear` for writing, on a TLB hit.
    #[inline(always)]
    pub fn write_run(&self, linear: u64) -> Option<RamRun<'_>> {
        self.hot.write_run(linear)
    }

    /// Translates an address for an access that stays within its page, and makes the TLB hit the next time.
    ///
    /// A fault is the guest's own: its tables were read after everything that was dropped so far.
    pub fn resolve(&mut self, linear: Linear, access: Access, view: View) -> Result<Place, PageFault> {
        self.count_refills();
        loop {
            self.catch_up();
            let word = self.set().probe(linear.0);
            if word & right(view, access) != 0 {
                return Ok(self.serve(linear, access, view, word));
            }
            let root = Arc::clone(&self.set().root);
            let start = self.shared.events.start();
            let filler = self.filler(linear.0, access);
            let (filled, caught) = {
                let mut monitor = self.shared.lock();
                if !root.is_alive() {
                    continue;
                }
                monitor.fills_come_from(filler);
                let filled = monitor.fill(&root, linear, access, view);
                // Under the lock nobody else posts: what is put into the TLB next is newer than every drop.
                let caught = self.sets[self.current].catch_up(&self.shared.log);
                self.share.acknowledge(self.set().seen);
                (filled, caught)
            };
            // Also before a fault goes to the guest: the root may have to be looked up again.
            self.note_caught(caught);
            let class = filled.as_ref().map_or(FaultClass::GuestTrue, |filled| filled.class);
            if !filled.as_ref().is_err_and(PageFault::is_lost) {
                self.share.tally.class(class);
            }
            self.shared.events.note(start, Some(self.share.number), EventKind::Fill(class), linear.0);
            let filled = filled?;
            let phys = GuestPhys(filled.page.0 << 12 | linear.page_offset());
            if filled.word == 0 || is_special(filled.word) {
                return Ok(self.plain_place(phys, access));
            }
            return Ok(self.enter(linear, access, view, filled.word));
        }
    }
    /// Whether the monitor has no entry yet that allows an access: `resolve` would fill one, or fault.
    pub fn would_fill(&mut self, linear: Linear, access: Access, view: View) -> bool {
        self.set().probe(linear.0) & right(view, access) == 0
    }
    /// An access that the monitor allows.
    fn serve(&mut self, linear: Linear, access: Access, view: View, word: u64) -> Place {
        if is_special(word) {
            self.share.tally.class(FaultClass::Mmio);
            return self.plain_place(GuestPhys(word & ADDRESS | linear.page_offset()), access);
        }
        let tracked = access == Access::Write && word & SLOW != 0;
        self.share.tally.class(if tracked { FaultClass::WriteTrack } else { FaultClass::Hit });
        self.enter(linear, access, view, word)
    }
    /// Counts what emitted code did by itself.
    fn count_refills(&mut self) {
        let refills = std::mem::take(&mut self.hot.refills);
        self.share.tally.classes(FaultClass::Hit, refills);
    }
    /// A place that the bus or the guest-physical map serves.
    fn plain_place(&mut self, phys: GuestPhys, access: Access) -> Place {
        let target = {
            let monitor = self.shared.lock();
            match access {
                Access::Write => monitor.phys.write_target(phys.page()),
                Access::Read | Access::Fetch => monitor.phys.read_target(phys.page()),
            }
        };
        self.catch_up();
        Place { phys, kind: PlaceKind::of(target, phys), host: 0, watched: true, seen: 0 }
    }
    /// Puts a leaf word into the TLB and makes a place of it.
    fn enter(&mut self, linear: Linear, access: Access, view: View, word: u64) -> Place {
        let mut host = word & ADDRESS;
        let pool = &self.shared.pool;
        let frame = pool.frame_of(HostPtr::from_bits(host));
        let page = frame.map_or(PhysPage(0), |frame| pool.owner(frame));
        if word & SHARED != 0 {
            let Some(at) = frame.and_then(|frame| pool.elsewhere(frame)) else {
                return self.plain_place(GuestPhys(page.0 << 12 | linear.page_offset()), access);
            };
            host = at.bits();
        }
        let tag = linear.page_base().0;
        let set = &mut self.sets[self.current];
        let crowded = if access == Access::Fetch && set.root.key.rules.is_canonical(tag) {
            set.fetch(view).fill(FetchEntry { tag, host, phys: page.0, id: fetch_id(tag, page) })
        } else if self.slow_pages.contains(&tag) || !set.root.key.rules.is_canonical(tag) {
            // A drop names the canonical address.
            false
        } else {
            let read = if word & right(view, Access::Read) != 0 { tag } else { no_tag(tag) };
            let writable = word & right(view, Access::Write) != 0 && word & SLOW == 0;
            let write = if writable { tag } else { no_tag(tag) };
            let tlb = set.data(view);
            tlb.add_conflicts(std::mem::take(&mut self.hot.conflicts));
            tlb.fill(DataEntry { read, write, host, phys: page.0 })
        };
        let place = Place {
            phys: GuestPhys(page.0 << 12 | linear.page_offset()),
            kind: if word & ROM != 0 { PlaceKind::Rom } else { PlaceKind::Ram },
            host: host | linear.page_offset(),
            watched: word & SLOW != 0,
            seen: set.seen,
        };
        if crowded {
            self.fit(view);
        }
        if access == Access::Write && word & ROM != 0 {
            // The write is dropped, or a device's.
            return self.plain_place(place.phys, access);
        }
        place
    }

    /// Makes data accesses to the pages around these linear addresses take the slow path from now on, in every root.
    pub fn set_slow_pages(&mut self, pages: impl Iterator<Item = Linear>) {
        let tags: Vec<u64> = pages.map(|linear| linear.page_base().0).collect();
        if tags != self.slow_pages {
            self.slow_pages = tags;
            self.install();
            self.hot.memos.clear();
            self.sets.iter().flat_map(|set| set.data.iter().flatten()).for_each(|tlb| tlb.slots.clear());
        }
    }

    /// Reads within the page of a place. Devices give FFh: ask the bus.
    pub fn read_place(&mut self, place: &Place, into: &mut [u8]) {
        if place.host != 0 && place.seen == self.shared.log.head() {
            let at = HostPtr::from_bits(place.host);
            if let Some((pool, frame)) = self.shared.frame_of(at) {
                return pool.copy_out(frame, place.host as usize & 0xfff, into);
            }
        }
        self.shared.lock().read_page(place.phys.page(), place.phys.page_offset() as usize, into);
        self.catch_up();
    }
    /// Writes within the page of a place (made for [`Access::Write`]). Devices drop it: ask the bus.
    pub fn write_place(&mut self, place: &Place, from: &[u8]) -> WriteNote {
        let (page, offset) = (place.phys.page(), place.phys.page_offset() as usize);
        if place.host != 0
            && place.kind == PlaceKind::Ram
            && place.seen == self.shared.log.head()
            && let Some(frame) = self.shared.pool.frame_of(HostPtr::from_bits(place.host))
        {
            let pool = &self.shared.pool;
            if !place.watched {
                pool.copy_in(frame, offset, from);
                return WriteNote::default();
            }
            if pool.watch(frame).load(Ordering::SeqCst) & (WATCH_TABLE | WATCH_CLEAN | WATCH_NOTED) == 0 {
                // Code beside data: whoever tracks new code sets its bit, then reads the bytes; we write, then look.
                pool.copy_in(frame, offset, from);
                fence(Ordering::SeqCst);
                if pool.code(frame).load(Ordering::SeqCst) & grains(offset, from.len()) == 0 {
                    self.note_beside(page);
                    return WriteNote::default();
                }
                // By page: while this vCPU waits for the lock it is parked, and the frame may become another page's.
                self.shared.lock().code_written(page, offset, from.len());
                return self.noted(true);
            }
        }
        self.share.tally.event(Event::TrackedStore);
        let writer = self.writer();
        let code_written = {
            let mut monitor = self.shared.lock();
            monitor.writes_come_from(writer);
            monitor.write_page(page, offset, from)
        };
        self.noted(code_written)
    }
    /// The host address of a place for writing whose page is watched, but only for code in other grains. It is right until
    /// more code is tracked or something is dropped; so is memo `number` then, for accesses that `reach` over so many bytes.
    ///
    /// Only for a guest's single vCPU: another one could track code at any time.
    pub fn beside_code(&mut self, linear: u64, place: &Place, reach: u64, number: Option<usize>) -> Option<u64> {
        let page = linear & !PAGE_OFFSET;
        let pool = &self.shared.pool;
        let sole = self.shared.vcpus.load(Ordering::Relaxed) == 1;
        let current = place.host != 0 && place.seen == self.shared.log.head();
        if !sole || !current || !place.watched || place.kind != PlaceKind::Ram || self.slow_pages.contains(&page) {
            return None;
        }
        let frame = pool.frame_of(HostPtr::from_bits(place.host))?;
        if pool.watch(frame).load(Ordering::SeqCst) != 0 {
            return None;
        }
        let offset = linear & PAGE_OFFSET;
        let (first, end) = gap(pool.code(frame).load(Ordering::SeqCst), offset as usize)?;
        let (first, end) = (first as u64, end as u64);
        if offset + reach > end {
            return None;
        }
        if let Some(memo) = number.and_then(|number| self.hot.memos.entries.get_mut(number)) {
            let limit = end - first - reach + 1;
            *memo = Memo { page: page + first, limit, addend: place.host.wrapping_sub(linear), ..*memo };
            self.hot.memos.used |= 1 << (number.unwrap_or(0) / 4);
        }
        Some(place.host)
    }
    /// Locked read-modify-write of `len` (1, 2, 4, 8, 16) bytes within the page of a place made for [`Access::Write`];
    /// gives what was there. `update` may run several times.
    pub fn rmw_place(&mut self, place: &Place, len: usize, update: &mut dyn FnMut(u128) -> u128) -> (u128, WriteNote) {
        let (page, offset) = (place.phys.page(), place.phys.page_offset() as usize);
        if place.host != 0
            && !place.watched
            && place.seen == self.shared.log.head()
            && let Some(frame) = self.shared.pool.frame_of(HostPtr::from_bits(place.host))
        {
            return (self.shared.pool.update(frame, offset, len, update), WriteNote::default());
        }
        self.share.tally.event(Event::TrackedStore);
        let writer = self.writer();
        let (old, code_written) = {
            let mut monitor = self.shared.lock();
            monitor.writes_come_from(writer);
            monitor.update_page(page, (offset, len), update)
        };
        (old, self.noted(code_written))
    }
    /// As [`VcpuMmu::rmw_place`], for bytes that run from the end of one place's page into the other's: nobody else reads
    /// or writes either page meanwhile, as if the bus were locked.
    pub fn rmw_places(
        &mut self,
        places: [&Place; 2],
        len: usize,
        update: &mut dyn FnMut(u128) -> u128,
    ) -> (u128, WriteNote) {
        self.share.tally.event(Event::TrackedStore);
        let writer = self.writer();
        let (old, code_written) = {
            let mut monitor = self.shared.lock();
            monitor.writes_come_from(writer);
            monitor.update_pages(places.map(|place| place.phys), len, update)
        };
        (old, self.noted(code_written))
    }
    /// After a write under the lock: this vCPU sees its own drops at once.
    fn noted(&mut self, code_written: bool) -> WriteNote {
        let dropped = self.set().seen != self.shared.log.head() || self.stale_root;
        self.catch_up();
        if code_written {
            self.share.tally.event(Event::CodeWrite);
        }
        WriteNote { code_written, dropped }
    }
    /// Reads within a guest-physical page: RAM and ROM, without translation (instruction bytes of a fetched page).
    pub fn read_phys(&mut self, page: PhysPage, offset: u16, into: &mut [u8]) {
        self.shared.lock().read_page(page, offset.into(), into);
        self.catch_up();
    }
    /// From now on writes that touch these bytes of a page are noted (I5). Read the bytes after this, not before.
    pub fn track_code(&mut self, page: PhysPage, offset: u16, len: u16) {
        let grains = grains(offset.into(), len.into());
        self.shared.lock().watch_code(page, grains);
        self.hot.memos.clear();
        self.catch_up();
    }
    /// Has these bytes of tracked code stay tracked when they are written: each write is noted to the byte. For code that is
    /// changed again and again where a block reads it anew.
    pub fn keep_code(&mut self, page: PhysPage, offset: u16, len: u16) {
        self.shared.lock().keep_code(page, grains(offset.into(), len.into()));
        self.catch_up();
    }
    /// Takes [`VcpuMmu::keep_code`] back, for whomever it was.
    pub fn release_code(&mut self, page: PhysPage, offset: u16, len: u16) {
        self.shared.lock().release_code(page, grains(offset.into(), len.into()));
        self.catch_up();
    }
    /// Which tracked code was written, by whomever, since the last call.
    pub fn take_code_writes(&mut self) -> Vec<CodeWrite> {
        self.share.attention.clear(bits::CODE);
        std::mem::take(&mut *self.share.code_writes.lock())
    }
    /// INVLPG. Monitor tables are coherent with the guest's: nothing is stale once the drops are seen.
    pub fn invlpg(&mut self, _linear: Linear) {
        self.drain();
    }
    /// Forgets what was dropped: at every attention test, CR write, serialising instruction, before an interrupt, after
    /// everything that may have waited for a lock.
    #[inline]
    pub fn drain(&mut self) {
        self.share.hear();
        self.catch_up();
        self.share.acknowledge(self.set().seen);
    }
    /// This vCPU will not use its TLBs until [`VcpuMmu::unpark`]: nobody waits for it (device access, HLT, any lock).
    pub fn park(&mut self) {
        self.count_refills();
        self.share.park();
    }
    /// This vCPU runs (again), on the calling thread.
    pub fn unpark(&mut self) {
        self.share.unpark();
        self.drain();
    }
    /// Reads as the debugger: supervisor rights, no A or D bits, no fill; devices give FFh. May cross pages.
    pub fn peek(&self, linear: Linear, into: &mut [u8]) -> Result<(), PageFault> {
        let key = self.set().root.key;
        let monitor = self.shared.lock();
        let mut done = 0;
        while done < into.len() {
            let here = linear.wrapping_add(done as u64);
            let found = monitor.walk_guest((key.rules, key.root), here, Access::Read, View::SupervisorAc)?;
            let length = ((4096 - (here.0 & PAGE_OFFSET)) as usize).min(into.len() - done);
            if let Some(part) = into.get_mut(done..done + length) {
                monitor.peek_page(found.phys.page(), found.phys.page_offset() as usize, part);
            }
            done += length;
        }
        Ok(())
    }

    pub(crate) fn set(&self) -> &TlbSet {
        &self.sets[self.current]
    }
    fn key(&self) -> RootKey {
        let mut rules = self.regs.rules(self.shared.maxphyaddr);
        if self.shared.a20_masked.load(Ordering::Acquire) {
            rules.bits |= rule::A20_MASKED;
        }
        RootKey { rules, root: self.regs.root() }
    }
    /// Applies new drops to the current set, looks the root up again if it is gone, acknowledges.
    #[inline]
    fn catch_up(&mut self) {
        if self.set().seen != self.shared.log.head() || self.stale_root {
            self.catch_up_slowly();
        }
    }
    fn catch_up_slowly(&mut self) {
        self.share.tally.event(Event::Drain);
        loop {
            let caught = self.sets[self.current].catch_up(&self.shared.log);
            self.note_caught(caught);
            if !std::mem::take(&mut self.stale_root) {
                break;
            }
            let key = self.key();
            match self.by_key.get(&key) {
                Some(number) if self.sets[*number].root.is_alive() => self.current = *number,
                _ => self.new_set(key),
            }
            self.hot.memos.clear();
        }
        self.activate();
    }
    fn note_caught(&mut self, caught: Caught) {
        self.stale_root |= caught.root;
        if caught.any {
            self.hot.memos.clear();
        }
        if caught.flushed {
            self.share.tally.event(Event::Flush);
        }
    }
    /// A set for a root that this vCPU does not hold (any more), made current.
    fn new_set(&mut self, key: RootKey) {
        self.share.tally.event(Event::RootMiss);
        let set = {
            let mut monitor = self.shared.lock();
            let mut set = TlbSet::of(&mut monitor, key);
            let old = &mut self.sets[self.current];
            let seen = old.seen;
            let caught = old.catch_up(&self.shared.log);
            if caught.root {
                // To be heard of when this set is current again.
                old.seen = seen;
            } else if self.keeps_roots {
                set.inherit(&mut monitor, old);
            }
            set
        };
        self.current = match self.by_key.get(&key) {
            Some(number) => {
                self.sets[*number] = set;
                *number
            }
            None => {
                self.sets.push(set);
                self.by_key.insert(key, self.sets.len() - 1);
                self.sets.len() - 1
            }
        };
        self.bytes = self.sets.iter().map(TlbSet::bytes).sum();
        self.shrink();
    }
    /// Gives up the sets of the least recently used roots until all fit the budget.
    fn shrink(&mut self) {
        while self.bytes > self.shared.tlb_budget() || self.sets.len() > 256 {
            let others = self.sets.iter().enumerate().filter(|(number, _)| *number != self.current);
            let Some((oldest, _)) = others.min_by_key(|(_, set)| set.stamp) else { return };
            let gone = self.sets.swap_remove(oldest);
            self.bytes = self.bytes.saturating_sub(gone.bytes());
            self.by_key.remove(&gone.root.key);
            if self.current == self.sets.len() {
                self.current = oldest;
            }
            if let Some(moved) = self.sets.get(oldest) {
                self.by_key.insert(moved.root.key, oldest);
            }
        }
    }
    /// The current set becomes what emitted code sees.
    fn activate(&mut self) {
        self.clock += 1;
        let set = &mut self.sets[self.current];
        set.stamp = self.clock;
        set.root.touch();
        self.share.set_active_root(root_number(&set.root));
        self.share.acknowledge(set.seen);
        self.install();
    }
    /// Points emitted code at the arrays of the current set and view.
    fn install(&mut self) {
        let (view, hot, set) = (self.view, &mut self.hot, &mut self.sets[self.current]);
        let data = &set.data(view).slots;
        (hot.data, hot.data_mask) = (data.start(), data.byte_mask());
        let fetch = &set.fetch(view).slots;
        (hot.fetch, hot.fetch_mask) = (fetch.start(), fetch.byte_mask());
        hot.leaves = set.leaves.start();
        let free = self.refills && self.slow_pages.is_empty();
        hot.rights = [Access::Read, Access::Write].map(|access| if free { right(view, access) } else { 0 });
    }
    /// Lets the arrays of a view grow or shrink.
    #[cold]
    fn fit(&mut self, view: View) {
        let room = self.shared.tlb_budget().saturating_sub(self.bytes);
        let set = &mut self.sets[self.current];
        if set.resize(view, room) {
            self.share.tally.event(Event::Resize);
            self.install();
        }
        self.bytes = self.sets.iter().map(TlbSet::bytes).sum();
        self.shrink();
    }
}

impl Drop for VcpuMmu {
    fn drop(&mut self) {
        // Whoever holds the lock may be waiting for this vCPU.
        self.share.park();
        let mut monitor = self.shared.lock();
        let mut sums = monitor.past;
        self.share.tally.add_to(&mut sums);
        monitor.past = sums;
        monitor.vcpus.retain(|other| !Arc::ptr_eq(other, &self.share));
        self.shared.vcpus.store(monitor.vcpus.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::frames::{FrameOrder, Pool};
    use crate::memory::GuestMemory;

    fn machine() -> (GuestMemory, VcpuMmu) {
        let memory = GuestMemory::new(Pool::new(1 << 20).unwrap(), FrameOrder::Permuted { seed: 1 }, 40);
        memory.map_ram(GuestPhys(0), 1 << 20).unwrap();
        let vcpu = memory.vcpu(Arc::default());
        (memory, vcpu)
    }

    #[test]
    fn paging_off() {
        let (memory, mut vcpu) = machine();
        assert_eq!(vcpu.load::<u32>(0x1234), None);
        let place = vcpu.resolve(Linear(0x1234), Access::Write, View::Supervisor).unwrap();
        vcpu.write_place(&place, &7u32.to_le_bytes());
        assert_eq!(vcpu.load::<u32>(0x1234), Some(7));
        assert!(vcpu.store::<u16>(0x1ffe, 9));
        assert!(!vcpu.store::<u16>(0x1fff, 9), "straddles");
        let mut bytes = [0; 2];
        memory.read(GuestPhys(0x1ffe), &mut bytes);
        assert_eq!(bytes, [9, 0]);
    }

    #[test]
    fn two_levels() {
        let (memory, mut vcpu) = machine();
        memory.write(GuestPhys(0x1000), &0x2007u32.to_le_bytes());
        memory.write(GuestPhys(0x2000 + 4 * 5), &0x8005u32.to_le_bytes());
        memory.write(GuestPhys(0x8004), b"abcd");
        vcpu.set_paging(&PagingRegs { cr0: 0x8001_0001, cr3: 0x1000, ..PagingRegs::default() });
        let place = vcpu.resolve(Linear(0x5004), Access::Read, View::User).unwrap();
        let mut bytes = [0; 4];
        vcpu.read_place(&place, &mut bytes);
        assert_eq!(&bytes, b"abcd");
        let fault = vcpu.resolve(Linear(0x5004), Access::Write, View::Supervisor).unwrap_err();
        assert_eq!(fault.error_code, 3);
        memory.read(GuestPhys(0x2000 + 4 * 5), &mut bytes);
        assert_eq!(u32::from_le_bytes(bytes), 0x8025);
    }

    /// A store to a page of code waits for the mmu lock after its bytes are written; meanwhile the page's frame moves.
    #[test]
    fn a_write_to_code_is_noted_wherever_the_page_lies() {
        let (memory, mut vcpu) = machine();
        vcpu.unpark();
        vcpu.track_code(PhysPage(5), 0x40, 8);
        let place = vcpu.resolve(Linear(0x5040), Access::Write, View::Supervisor).unwrap();
        let share = Arc::clone(&vcpu.share);
        let started = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                vcpu.unpark();
                started.wait();
                vcpu.write_place(&place, &[0x90])
            });
            let mut monitor = memory.shared.lock();
            started.wait();
            while !share.is_parked() {
                std::thread::yield_now();
            }
            let pages = monitor.ram_pages.len();
            assert_eq!(monitor.move_frames(pages), pages);
            drop(monitor);
            assert!(writer.join().unwrap().code_written);
        });
        assert_eq!(
            vcpu.take_code_writes(),
            [CodeWrite { page: PhysPage(5), offset: 0x40, len: 64, written: (0x40, 1), kept: false }]
        );
        let mut byte = [0];
        memory.read(GuestPhys(0x5040), &mut byte);
        assert_eq!(byte, [0x90]);
    }
}
