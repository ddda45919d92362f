//! Pages whose contents the guest has given up (S15): a balloon's, or those that it reports free. They read as zeros from now on, and
//! cost the host nothing until somebody touches them.

use super::Monitor;
use crate::addr::PhysPage;
use crate::drain::CodeWrite;
use crate::phys_map::Target;
use crate::reclaim::{Freed, State};
use std::sync::atomic::Ordering;

impl Monitor {
    /// Forgets what these pages hold; gives how many of them were RAM that held anything. As a write of zeros to each of them: what
    /// was derived from their bytes goes.
    pub(crate) fn discard(&mut self, pages: impl Iterator<Item = PhysPage>) -> u64 {
        let mut frames = Vec::new();
        for page in pages {
            if let Target::Ram(frame) = self.phys.write_target(page)
                && self.state(frame) != State::Zero
            {
                self.unmap_page(page);
                self.zap_page(page);
                self.writers_lost(page);
                frames.push((page, frame));
            }
        }
        if frames.is_empty() {
            return 0;
        }
        // Even where no entry was left: a vCPU may not have seen yet that one was dropped.
        self.wait();
        let freed = self.reclaim.as_ref().map_or(Freed::Returned, |reclaim| reclaim.freed);
        let mut there = Vec::with_capacity(frames.len());
        for &(page, frame) in &frames {
            if self.pool.code(frame).swap(0, Ordering::SeqCst) != 0 {
                self.note_code(CodeWrite::whole(page));
            }
            if self.forget(frame) {
                there.push(frame);
            }
        }
        match freed {
            Freed::Returned => self.pool.discard(&mut there),
            Freed::Poisoned => there.iter().for_each(|frame| self.pool.poison(*frame)),
        }
        self.counts.discards += frames.len() as u64;
        frames.len() as u64
    }
}
