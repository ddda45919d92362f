//! Keeping monitor tables in step with the guest's: tracked writes, the start and end of tracking, code grains.
//!
//! A tracked write stores the guest's bytes and makes the monitor entries that were derived from them absent; the next access
//! fills them again. A page that keeps being written without any fill through it is taken for data and no longer tracked.

use super::Monitor;
use super::table::TableId;
use crate::addr::PhysPage;
use crate::drain::{CodeWrite, Stale};
use crate::events::EventKind;
use crate::frames::{Frame, WATCH_TABLE};
use crate::phys_map::{NONE, Overlay, Target};
use crate::pte;
use crate::watch::{GRAIN, grains};
use std::sync::atomic::Ordering;

/// Tracked writes without a fill in between, after which a page is taken for data: above the leaves, and leaf tables
/// (a fork or an unmap rewrites a whole leaf table in one go).
const FLOOD: (u16, u16) = (32, 128);

/// Pages whose code may be kept.
const MOST_KEPT: usize = 256;

impl Monitor {
    /// Starts watching a page that holds a guest table: when this returns no vCPU can write it unseen.
    pub(crate) fn watch_table(&mut self, page: PhysPage) {
        let Target::Ram(frame) = self.phys.write_target(page) else { return };
        if self.pool.watch(frame).fetch_or(WATCH_TABLE, Ordering::SeqCst) & WATCH_TABLE != 0 {
            return;
        }
        self.forget_writers(page);
        // A page with code is slow already, so that nothing was posted, but a vCPU may be in the middle of a slow store.
        if !self.write_protect(page) && self.pool.code(frame).load(Ordering::SeqCst) != 0 {
            self.post(Stale::Tables);
        }
        // Even if nobody had the right now: a vCPU may not have seen yet that a mapping was dropped.
        self.wait();
    }
    /// Whether a page is watched as a table (or cannot be written at all).
    pub(crate) fn is_watched(&self, page: PhysPage) -> bool {
        match self.phys.write_target(page) {
            Target::Ram(frame) => self.pool.watch(frame).load(Ordering::Relaxed) & WATCH_TABLE != 0,
            _ => false,
        }
    }
    /// Takes a table off its guest page's list; the last one ends the watch.
    pub(crate) fn untrack(&mut self, table: TableId) {
        let page = self.tables[table].key.base;
        let Some(slot) = self.phys.get_mut(page) else { return };
        if slot.tables == table.0 {
            slot.tables = self.tables[table].next_same;
        } else {
            let mut at = slot.tables;
            while at != NONE {
                let next = self.tables[TableId(at)].next_same;
                if next == table.0 {
                    self.tables[TableId(at)].next_same = self.tables[table].next_same;
                    break;
                }
                at = next;
            }
        }
        self.tables[table].next_same = NONE;
        if slot.tables == NONE
            && let Some(frame) = slot.overlay.and_then(Overlay::frame).or(slot.ram)
        {
            slot.flood = 0;
            self.end_watch(page, frame, WATCH_TABLE);
        }
    }
    /// Ends a watch: of a page without tables, or one that nobody wants any more.
    pub(crate) fn end_watch(&mut self, page: PhysPage, frame: Frame, flag: u8) {
        let left = self.pool.watch(frame).fetch_and(!flag, Ordering::SeqCst) & !flag;
        self.forget_writers(page);
        if left == 0 && self.pool.code(frame).load(Ordering::SeqCst) == 0 {
            self.relax(page);
        }
    }
    /// Gives up every table that shadows a page.
    pub(crate) fn zap_page(&mut self, page: PhysPage) {
        while let Some(first) = self.phys.get(page).map(|slot| slot.tables).filter(|first| *first != NONE) {
            self.zap(TableId(first));
        }
    }
    /// Writes into a watched page: stores, then drops what was derived from the bytes that changed.
    pub(crate) fn tracked_write(&mut self, page: PhysPage, frame: Frame, offset: usize, from: &[u8]) -> bool {
        let start = offset & !7;
        let end = (offset + from.len()).next_multiple_of(8).min(4096);
        let (mut short, mut long);
        // Clearing a whole page would be most of the cost of a short store.
        let old: &mut [u8] = if end - start <= 32 {
            short = [0; 32];
            &mut short
        } else {
            long = [0; 4096];
            &mut long
        };
        let Some(old) = old.get_mut(..end - start) else { return false };
        self.pool.copy_out(frame, start, old);
        self.pool.copy_in(frame, offset, from);
        self.sync(page, frame, old, start);
        self.code_check(frame, page, offset, from.len())
    }
    /// Drops what was derived from entries whose bytes, from offset `start` (a multiple of 8) on, are no longer as in `old`.
    pub(crate) fn sync(&mut self, page: PhysPage, frame: Frame, old: &[u8], start: usize) {
        let began = self.events.start();
        self.drop_derived(page, frame, old, start);
        self.events.note(began, None, EventKind::TrackedStore, page.0 << 12 | start as u64);
    }
    fn drop_derived(&mut self, page: PhysPage, frame: Frame, old: &[u8], start: usize) {
        let end = start + old.len();
        let mut next = self.phys.get(page).map_or(NONE, |slot| slot.tables);
        let mut leaf = false;
        while next != NONE {
            let id = TableId(next);
            next = self.tables[id].next_same;
            leaf |= self.tables[id].is_leaf();
            if self.tables[id].live == 0 {
                continue;
            }
            let width = self.tables[id].key.role.rules.entry_bytes() as usize;
            for index in start / width..end / width {
                if index >= self.tables[id].entries() || self.tables[id].word(index) == 0 {
                    continue;
                }
                let at = index * width;
                let now = self.pool.load::<u64>(frame, at & !7) >> (8 * (at & 7));
                let mut was = [0; 8];
                was.get_mut(..width)
                    .zip(old.get(at - start..at - start + width))
                    .into_iter()
                    .for_each(|(to, from)| to.copy_from_slice(from));
                let mask = if width == 4 { 0xffff_ffff } else { !0 };
                if (now ^ u64::from_le_bytes(was)) & mask == 0 {
                    continue;
                }
                if let Some(child) = self.drop_entry(id, index)
                    && now & pte::P == 0
                {
                    self.zap_orphan(child);
                    // What was zapped may have stood on this very list.
                    next = self.phys.get(page).map_or(NONE, |slot| slot.tables);
                    if !self.tables[id].in_use {
                        break;
                    }
                }
            }
        }
        let Some(slot) = self.phys.get_mut(page) else { return };
        slot.flood = slot.flood.saturating_add(1);
        if slot.flood > if leaf { FLOOD.1 } else { FLOOD.0 } {
            slot.flood = 0;
            self.counts.floods += 1;
            if slot.tables == NONE {
                self.end_watch(page, frame, WATCH_TABLE);
            } else {
                self.zap_page(page);
            }
        }
    }
    /// After the guest's own dirty bit was set: entries elsewhere that stand for the same guest entry are out of date.
    pub(crate) fn refresh(&mut self, page: PhysPage, offset: usize) {
        let mut next = self.phys.get(page).map_or(NONE, |slot| slot.tables);
        while next != NONE {
            let id = TableId(next);
            next = self.tables[id].next_same;
            let index = offset / self.tables[id].key.role.rules.entry_bytes() as usize;
            if index < self.tables[id].entries() {
                self.drop_entry(id, index);
            }
        }
    }
    /// Watches grains of a page as code: when this returns no vCPU can write them unseen.
    pub(crate) fn watch_code(&mut self, page: PhysPage, grains: u64) {
        let (Target::Ram(frame) | Target::Rom(frame)) = self.phys.read_target(page) else { return };
        let before = self.pool.code(frame).fetch_or(grains, Ordering::SeqCst);
        if before == 0 {
            self.write_protect(page);
            self.wait();
        }
    }
    /// Goes on watching grains after they were written, until [`Monitor::release_code`].
    pub(crate) fn keep_code(&mut self, page: PhysPage, grains: u64) {
        if self.kept_code.len() >= MOST_KEPT {
            // The next write to each ends its watch, and is told as one to a whole grain.
            self.kept_code.clear();
        }
        *self.kept_code.entry(page).or_default() |= grains;
    }
    /// The next write to these grains ends their watch.
    pub(crate) fn release_code(&mut self, page: PhysPage, grains: u64) {
        if let Some(kept) = self.kept_code.get_mut(&page) {
            *kept &= !grains;
            if *kept == 0 {
                self.kept_code.remove(&page);
            }
        }
    }
    /// After a write that was made without the mmu lock: as [`Monitor::code_check`], in whatever frame the page lies by now.
    pub(crate) fn code_written(&mut self, page: PhysPage, offset: usize, len: usize) {
        if let Target::Ram(frame) = self.phys.write_target(page) {
            self.code_check(frame, page, offset, len);
        }
    }
    /// After a write: notes it if it touched code; gives the page back to fast writing when no code is left.
    pub(crate) fn code_check(&mut self, frame: Frame, page: PhysPage, offset: usize, len: usize) -> bool {
        let touched = grains(offset, len);
        if self.pool.code(frame).load(Ordering::SeqCst) & touched == 0 {
            return false;
        }
        let written = (offset as u16, len as u16);
        if !self.kept_code.is_empty() && touched & !self.kept_code.get(&page).copied().unwrap_or(0) == 0 {
            self.note_code(CodeWrite { page, offset: written.0, len: written.1, written, kept: true });
            return true;
        }
        self.release_code(page, touched);
        let left = self.pool.code(frame).fetch_and(!touched, Ordering::SeqCst) & !touched;
        // The grains are no longer watched, so whatever code lies in them is lost, not only the bytes written.
        let (first, last) = (offset / GRAIN * GRAIN, (offset + len.max(1)).next_multiple_of(GRAIN).min(4096));
        self.note_code(CodeWrite { page, offset: first as u16, len: (last - first) as u16, written, kept: false });
        if left == 0 && self.pool.watch(frame).load(Ordering::SeqCst) == 0 {
            self.relax(page);
        }
        true
    }
}
