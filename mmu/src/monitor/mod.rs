//! The monitor: what the engine really translates through, and everything else that the mmu lock protects.
//!
//! ```text
//! root ─► tables (one per guest table × level × role, shared by roots) ─► leaf words ─► frames
//!   fill: a guest walk becomes entries · sync: a tracked write makes entries absent · rmap: page → leaf entries
//!   evict: frames leave memory and come back · join: equal pages are one frame until one is written
//! ```
//! Called by `memory` and `vcpu`.

pub(crate) mod audit;
pub(crate) mod discard;
pub(crate) mod evict;
pub(crate) mod fill;
pub(crate) mod join;
pub(crate) mod moves;
pub(crate) mod rmap;
pub(crate) mod root;
pub(crate) mod sync;
pub mod table;

use crate::addr::{GuestPhys, PAGE_SIZE, PhysPage};
use crate::counters::MonitorCounts;
use crate::drain::{CodeWrite, DropLog, Stale, VcpuShare, all_have_seen, tell, wait_until_seen};
use crate::events::{EventKind, EventLog};
use crate::fillers::Fillers;
use crate::frames::{Frame, Pool, WATCH_TABLE};
use crate::phys_map::{NONE, Overlay, Page, PhysMap, Target};
use crate::reclaim::{Reclaim, State};
use crate::writers::Writers;
use root::{Root, RootKey};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use table::Tables;

/// The state behind the mmu lock.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) pool: Arc<Pool>,
    pub(crate) log: Arc<DropLog>,
    pub(crate) events: Arc<EventLog>,
    pub(crate) phys: PhysMap,
    pub(crate) vcpus: Vec<Arc<VcpuShare>>,
    pub(crate) counts: MonitorCounts,
    tables: Tables,
    /// Tables are given up beyond this many.
    pub(crate) table_limit: usize,
    roots: FxHashMap<RootKey, Arc<Root>>,
    root_order: VecDeque<Arc<Root>>,
    /// Numbers the fills.
    clock: u64,
    /// Pages with RAM, for compaction, and the next one to move.
    pub(crate) ram_pages: Vec<PhysPage>,
    move_hand: usize,
    /// Paged memory: where the contents of each frame are.
    pub(crate) reclaim: Option<Box<Reclaim>>,
    /// The next frame to be scanned.
    scan_hand: usize,
    /// The next frame to be compared with others.
    share_hand: usize,
    /// The next group of frames to be merged.
    merge_hand: usize,
    /// Grains of code that stay watched when they are written.
    kept_code: FxHashMap<PhysPage, u64>,
    /// Video memory, given back at the end.
    pub(crate) video: Vec<Frame>,
    /// Looks since pages were used, where memory is not paged and somebody looks.
    pub(crate) ages: FxHashMap<PhysPage, u8>,
    /// Who writes watched pages.
    pub(crate) writers: Writers,
    /// Who makes entries present.
    pub(crate) fillers: Fillers,
    /// Counters of vCPUs that are no more.
    pub(crate) past: [u64; 16],
}

impl Monitor {
    pub(crate) fn new(pool: Arc<Pool>, log: Arc<DropLog>, events: Arc<EventLog>) -> Monitor {
        Monitor {
            pool,
            log,
            events,
            phys: PhysMap::default(),
            vcpus: Vec::new(),
            counts: MonitorCounts::default(),
            tables: Tables::default(),
            table_limit: 2048,
            roots: FxHashMap::default(),
            root_order: VecDeque::new(),
            clock: 0,
            ram_pages: Vec::new(),
            move_hand: 0,
            reclaim: None,
            scan_hand: 0,
            share_hand: 0,
            merge_hand: 0,
            kept_code: FxHashMap::default(),
            video: Vec::new(),
            ages: FxHashMap::default(),
            writers: Writers::default(),
            fillers: Fillers::default(),
            past: [0; 16],
        }
    }
    /// Posts a drop to every vCPU.
    pub(crate) fn post(&self, stale: Stale) {
        self.log.post(stale);
        tell(&self.vcpus);
    }
    /// Waits until no vCPU can still use what was dropped so far.
    pub(crate) fn wait(&mut self) {
        if !all_have_seen(&self.vcpus, self.log.head()) {
            self.counts.waits += 1;
            let start = self.events.start();
            wait_until_seen(&self.vcpus, self.log.head());
            self.events.note(start, None, EventKind::Shootdown, 0);
        }
    }
    /// Counters, with what is live now.
    pub(crate) fn counts(&self) -> MonitorCounts {
        MonitorCounts { live: self.counts.fills - self.counts.drops, ..self.counts }
    }
    /// Changes what lies behind pages: nobody uses the old frames any more when `change` runs.
    pub(crate) fn remap(&mut self, pages: impl Iterator<Item = PhysPage> + Clone, mut change: impl FnMut(&mut Page)) {
        for page in pages.clone() {
            if self.phys.get(page).is_some_and(|slot| slot.mappers != NONE || slot.tables != NONE) {
                self.unmap_page(page);
                self.zap_page(page);
            }
        }
        // Translations of pages that had no slot are never kept; all others were dropped one by one.
        self.wait();
        for page in pages {
            let slot = self.phys.entry(page);
            let mut code = 0;
            for frame in [slot.ram, slot.rom, slot.overlay.and_then(Overlay::frame)].into_iter().flatten() {
                if self.pool.code(frame).load(Ordering::SeqCst) != 0 {
                    code |= self.pool.code(frame).swap(0, Ordering::SeqCst);
                }
            }
            change(slot);
            if code != 0 {
                self.note_code(CodeWrite::whole(page));
            }
        }
    }
    /// Tells every vCPU that code was written.
    pub(crate) fn note_code(&self, write: CodeWrite) {
        self.vcpus.iter().for_each(|vcpu| vcpu.note_code(write));
    }
    /// Reads within a page; devices, open bus and what is lost give FFh.
    pub(crate) fn read_page(&mut self, page: PhysPage, offset: usize, into: &mut [u8]) {
        match self.phys.read_target(page) {
            // A page that is nothing but zeros stays so.
            Target::Ram(frame) if self.state(frame) == State::Zero => into.fill(0),
            Target::Ram(frame) | Target::Rom(frame) if self.hold(frame).is_ok() => self.copy_held(frame, offset, into),
            _ => into.fill(0xff),
        }
    }
    /// Writes within a page, seen by every tracker; tells whether translated code was touched.
    pub(crate) fn write_page(&mut self, page: PhysPage, offset: usize, from: &[u8]) -> bool {
        let Target::Ram(frame) = self.phys.write_target(page) else { return false };
        let watch = self.pool.watch(frame).load(Ordering::Relaxed);
        let tracked = watch & WATCH_TABLE != 0;
        let whole = from.len() as u64 == PAGE_SIZE && !tracked;
        // What cannot be written is lost already, and the machine stops.
        if (if whole { self.hold_to_overwrite(frame) } else { self.hold_own(frame) }).is_err() {
            return false;
        }
        self.note_dirty(Some(page), frame);
        self.note_writer(page, watch, offset, from.len());
        if tracked {
            return self.tracked_write(page, frame, offset, from);
        }
        self.pool.copy_in(frame, offset, from);
        self.code_check(frame, page, offset, from.len())
    }
    /// Locked read-modify-write of 1, 2, 4, 8 or 16 bytes within a page; gives what was there.
    pub(crate) fn update_page(
        &mut self,
        page: PhysPage,
        (offset, len): (usize, usize),
        update: &mut dyn FnMut(u128) -> u128,
    ) -> (u128, bool) {
        let Target::Ram(frame) = self.phys.write_target(page) else {
            // Reads and writes that meet different things, or nothing: no atomicity to keep.
            let mut bytes = [0; 16];
            let Some(part) = bytes.get_mut(..len) else { return (0, false) };
            self.read_page(page, offset, part);
            let old = u128::from_le_bytes(bytes);
            update(old);
            return (old, false);
        };
        if self.hold_own(frame).is_err() {
            return (0, false);
        }
        self.note_dirty(Some(page), frame);
        let start = offset & !7;
        let mut window = [0; 32];
        let end = (offset + len).next_multiple_of(8).min(4096);
        let Some(before) = window.get_mut(..end.saturating_sub(start)) else { return (0, false) };
        self.pool.copy_out(frame, start, before);
        let old = self.pool.update(frame, offset, len, update);
        let watch = self.pool.watch(frame).load(Ordering::Relaxed);
        self.note_writer(page, watch, offset, len);
        if watch & WATCH_TABLE != 0 {
            self.sync(page, frame, before, start);
        }
        (old, self.code_check(frame, page, offset, len))
    }
    /// Locked read-modify-write of bytes that run from one page's end into another page. No host instruction does that, so both
    /// pages are taken away from every TLB first: whoever wants one has to wait for the mmu lock.
    pub(crate) fn update_pages(
        &mut self,
        places: [GuestPhys; 2],
        len: usize,
        update: &mut dyn FnMut(u128) -> u128,
    ) -> (u128, bool) {
        places.iter().for_each(|place| self.unmap_page(place.page()));
        // Even if nobody had them: a vCPU may not have seen yet that a mapping was dropped.
        self.post(Stale::Tables);
        self.wait();
        let [first, second] = places.map(|place| (place.page(), place.page_offset() as usize));
        let cut = (PAGE_SIZE as usize - first.1).min(len);
        let mut bytes = [0; 16];
        let Some((low, high)) = bytes.get_mut(..len).and_then(|bytes| bytes.split_at_mut_checked(cut)) else {
            return (0, false);
        };
        self.read_page(first.0, first.1, low);
        self.read_page(second.0, second.1, high);
        let old = u128::from_le_bytes(bytes);
        let new = update(old).to_le_bytes();
        let written = new.get(..cut).is_some_and(|low| self.write_page(first.0, first.1, low));
        let beyond = new.get(cut..len).is_some_and(|high| self.write_page(second.0, second.1, high));
        (old, written | beyond)
    }
    /// Reads a guest paging-structure entry.
    pub(crate) fn table_entry(&self, at: GuestPhys, bytes: u64) -> u64 {
        let (page, offset) = (at.page(), at.page_offset() as usize);
        match self.phys.read_target(page) {
            Target::Ram(frame) if !self.is_in(frame) => {
                let mut entry = [0; 8];
                self.peek_page(page, offset, entry.get_mut(..bytes as usize).unwrap_or_default());
                u64::from_le_bytes(entry)
            }
            Target::Ram(frame) | Target::Rom(frame) if bytes == 4 => u64::from(self.pool.load::<u32>(frame, offset)),
            Target::Ram(frame) | Target::Rom(frame) => self.pool.load::<u64>(frame, offset),
            _ if bytes == 4 => 0xffff_ffff,
            _ => !0,
        }
    }
}
