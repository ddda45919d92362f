//! Equal pages become one frame, and part again when one is written (S21).
//!
//! Joining takes a page's own frame away in the order of `reclaim::order`: unmapped, acknowledged by every vCPU, and only then compared
//! bit for bit with the shared frame, since nobody can write it any more. From then on the page's entries lead to the shared frame, without
//! the right to write (`table::SHARED`). Whoever writes the page comes through [`Monitor::part`] first, by whatever route:
//! a vCPU's fill, a locked access, the walk's own accessed and dirty bits, a bus master, the loader, the debugger.
//!
//! Only pages whose contents were the same at two looks are joined: what changes all the time would part at once, and each time a
//! copy is made and every vCPU is waited for. Guest tables that are shadowed are left alone, since the walk writes them. Called by `memory`
//! and `evict`.

use super::Monitor;
use super::audit::AuditReport;
use crate::frames::{Frame, WATCH_TABLE};
use crate::reclaim::State;
use crate::reclaim::order::{Mapped, Out, Unmapped};
use crate::reclaim::sharing::SharedFrame;
use crate::reclaim::swap::PageBytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Pages joined for one wait.
const BATCH: usize = 32;

impl Monitor {
    /// Whether the contents of a frame are in a shared one.
    pub(crate) fn is_shared(&self, frame: Frame) -> bool {
        matches!(self.state(frame), State::Shared(_))
    }
    /// Whether the contents of a frame can be read, in itself or in a shared one.
    pub(crate) fn is_readable(&self, frame: Frame) -> bool {
        self.is_in(frame) || self.is_shared(frame)
    }
    /// Copies from a frame that is readable, wherever its contents are.
    pub(crate) fn copy_held(&self, frame: Frame, offset: usize, into: &mut [u8]) {
        let sharing = self.reclaim.as_ref().and_then(|reclaim| reclaim.sharing.as_ref());
        match (self.state(frame), sharing) {
            (State::Shared(common), Some(sharing)) => sharing.copy_out(common, offset, into),
            _ => self.pool.copy_out(frame, offset, into),
        }
    }
    /// Looks at the next `frames` frames; gives how many pages were joined, or were found to be zero.
    pub(crate) fn share_some(&mut self, frames: usize) -> u64 {
        let Some(reclaim) = self.reclaim.as_mut() else { return 0 };
        let Some(sharing) = reclaim.sharing.clone() else { return 0 };
        let total = reclaim.books.len();
        let mut found = Vec::new();
        for _ in 0..frames.min(total) {
            let frame = reclaim.books.at(self.share_hand);
            self.share_hand = (self.share_hand + 1) % total;
            if !reclaim.state(frame).is_in() || self.pool.watch(frame).load(Ordering::Relaxed) & WATCH_TABLE != 0 {
                continue;
            }
            let mut bytes = [0; 4096];
            self.pool.copy_out(frame, 0, &mut bytes);
            let hash = sharing.hash(&bytes);
            let sum = (hash >> 32) as u32 | 1;
            let before = std::mem::replace(&mut reclaim.books.entry(frame).sum, sum);
            let mark = self.pool.pointer(frame).bits() >> 12;
            if before == sum && (is_zero(&bytes) || sharing.is_wanted(hash, mark)) {
                found.push(Mapped(frame));
            }
        }
        let mut done = 0;
        while !found.is_empty() {
            done += self.join(found.split_off(found.len().saturating_sub(BATCH)));
        }
        done
    }
    /// Joins these pages with others, those whose contents still have their sums; gives how many.
    fn join(&mut self, frames: Vec<Mapped>) -> u64 {
        let unmapped = frames.into_iter().map(|frame| frame.unmap(|frame| self.unmap_page(self.pool.owner(frame))));
        let unmapped: Vec<Unmapped> = unmapped.collect();
        // Even where no entry was left: a vCPU may not have seen yet that one was dropped.
        let acknowledged = Unmapped::acknowledge(unmapped, || self.wait());
        let Some(reclaim) = self.reclaim.as_mut() else { return 0 };
        let Some(sharing) = reclaim.sharing.clone() else { return 0 };
        let mut out = Vec::with_capacity(acknowledged.len());
        for acknowledged in acknowledged {
            let frame = acknowledged.frame();
            let mut bytes = [0; 4096];
            self.pool.copy_out(frame, 0, &mut bytes);
            let hash = sharing.hash(&bytes);
            if reclaim.books.get(frame).sum != (hash >> 32) as u32 | 1 {
                continue;
            }
            let state = if is_zero(&bytes) {
                reclaim.counts.evictions += 1;
                reclaim.counts.zero_evictions += 1;
                State::Zero
            } else if let Some(common) = sharing.join(hash, &bytes) {
                self.pool.set_elsewhere(frame, Some(sharing.pointer(common)));
                reclaim.counts.joins += 1;
                reclaim.counts.shared += 1;
                State::Shared(common)
            } else {
                continue;
            };
            reclaim.drop_copy(frame);
            reclaim.policy.gone(frame.0);
            reclaim.counts.resident -= 1;
            reclaim.set(frame, state);
            out.push(Out::of(acknowledged));
        }
        let (count, freed) = (out.len() as u64, reclaim.freed);
        self.give_up(out, freed);
        count
    }
    /// Gives a page its own frame back, with the contents that it had in common with others, or none if it is written whole next.
    /// When this returns nobody reads the shared frame for it, and there is room for its own.
    pub(super) fn part(&mut self, frame: Frame, overwritten: bool) {
        let State::Shared(common) = self.state(frame) else { return };
        self.unmap_page(self.pool.owner(frame));
        // Even where no entry was left: a vCPU may not have seen yet that one was dropped. Who reads what was in common after somebody
        // has written would read the past.
        self.wait();
        let Some(reclaim) = self.reclaim.as_mut() else { return };
        if !overwritten && let Some(sharing) = &reclaim.sharing {
            let mut bytes = [0; 4096];
            sharing.copy_out(common, 0, &mut bytes);
            self.pool.copy_in(frame, 0, &bytes);
        }
        reclaim.counts.shared -= 1;
        reclaim.counts.breaks += 1;
        reclaim.came(frame);
        self.let_go(frame, common);
    }
    /// Gives a reference back. No entry of this guest leads there, and every vCPU has seen that.
    pub(super) fn let_go(&mut self, frame: Frame, common: SharedFrame) {
        self.pool.set_elsewhere(frame, None);
        if let Some(sharing) = self.reclaim.as_ref().and_then(|reclaim| reclaim.sharing.as_ref()) {
            sharing.release(common);
        }
    }
    /// Gives all references back: the guest is no more.
    pub(crate) fn let_all_go(&mut self) {
        let Some(reclaim) = self.reclaim.take() else { return };
        let Some(sharing) = reclaim.sharing.as_ref().map(Arc::clone) else { return };
        for (frame, entry) in reclaim.books.iter() {
            if let State::Shared(common) = entry.state {
                self.pool.set_elsewhere(frame, None);
                sharing.release(common);
            }
        }
    }
    /// Each shared frame that this guest refers to holds what it was made with, and is where vCPUs find it.
    pub(super) fn audit_shared(&self, report: &mut AuditReport) {
        let Some(reclaim) = self.reclaim.as_ref() else { return };
        let Some(sharing) = &reclaim.sharing else { return };
        let mut pages = 0;
        for (frame, entry) in reclaim.books.iter() {
            let State::Shared(common) = entry.state else {
                // What is only `Kept` here may be another guest's.
                if entry.state != State::Kept && self.pool.elsewhere(frame).is_some() {
                    report.complain(format!("{frame:?} is not shared, but is found elsewhere"));
                }
                continue;
            };
            pages += 1;
            if !sharing.is_sound(common) {
                report.complain(format!("{frame:?}: the shared frame {common:?} was written, or is free"));
            }
            if self.pool.elsewhere(frame) != Some(sharing.pointer(common)) {
                report.complain(format!("{frame:?} is not found in {common:?}"));
            }
        }
        if pages != reclaim.counts.shared {
            report.complain(format!("{pages} pages are shared, {} are counted", reclaim.counts.shared));
        }
    }
}

/// Whether a page holds nothing but zeros.
pub(super) fn is_zero(bytes: &PageBytes) -> bool {
    bytes.as_chunks::<16>().0.iter().all(|chunk| *chunk == [0; 16])
}
