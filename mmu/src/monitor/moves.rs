//! Moving frames: every page can lie anywhere, at any time (S1). The compaction storm of the tests goes through here.
//!
//! Order: unmap by the reverse map → every vCPU has seen it → copy → poison the old frame and hand it back (I7).

use super::Monitor;
use crate::events::EventKind;
use crate::phys_map::NONE;
use std::sync::atomic::Ordering;

/// Pages moved per wait.
const BATCH: usize = 256;

impl Monitor {
    /// Moves the next `count` RAM pages (round robin) to other frames; gives how many were moved.
    pub(crate) fn move_frames(&mut self, count: usize) -> usize {
        let start = self.events.start();
        let moved = self.move_batches(count);
        self.events.note(start, None, EventKind::Moved, moved as u64);
        moved
    }
    fn move_batches(&mut self, count: usize) -> usize {
        let mut moved = 0;
        while moved < count && !self.ram_pages.is_empty() {
            let batch = BATCH.min(count - moved).min(self.ram_pages.len());
            let free = self.pool.free_frames() as usize;
            let Some(frames) = self.pool.take(batch.min(free)).filter(|frames| !frames.is_empty()) else {
                return moved + self.swap_frames(count - moved);
            };
            let pages: Vec<_> = (0..frames.len())
                .filter_map(|i| self.ram_pages.get((self.move_hand + i) % self.ram_pages.len()).copied())
                .collect();
            self.move_hand = (self.move_hand + frames.len()) % self.ram_pages.len();
            pages.iter().for_each(|page| self.unmap_page(*page));
            self.wait();
            let mut old = Vec::with_capacity(frames.len());
            for (page, new) in pages.iter().zip(frames) {
                let Some(slot) = self.phys.get_mut(*page) else { continue };
                debug_assert_eq!(slot.mappers, NONE);
                let Some(frame) = slot.ram.replace(new) else { continue };
                if self.is_in(frame) {
                    self.pool.copy_frame(frame, new);
                    self.pool.poison(frame);
                }
                self.note_move(frame, new);
                self.pool.set_owner(new, *page);
                self.pool.code(new).store(self.pool.code(frame).load(Ordering::SeqCst), Ordering::SeqCst);
                self.pool.watch(new).store(self.pool.watch(frame).load(Ordering::SeqCst), Ordering::SeqCst);
                old.push(frame);
            }
            moved += old.len();
            self.counts.moves += old.len() as u64;
            self.pool.give_back(old.into_iter());
        }
        moved
    }
    /// Moves frames when none is free: pairs of pages exchange theirs.
    fn swap_frames(&mut self, count: usize) -> usize {
        let total = self.ram_pages.len();
        if total < 2 {
            return 0;
        }
        for _ in 0..count.div_ceil(2) {
            let pair = [0, 1].map(|i| self.ram_pages[(self.move_hand + i) % total]);
            self.move_hand = (self.move_hand + 2) % total;
            pair.iter().for_each(|page| self.unmap_page(*page));
            self.wait();
            let [Some(a), Some(b)] = pair.map(|page| self.phys.get(page).and_then(|slot| slot.ram)) else { continue };
            if ![a, b].iter().all(|frame| self.is_in(*frame)) {
                continue;
            }
            let (mut bytes, mut other) = ([0; 4096], [0; 4096]);
            self.pool.copy_out(a, 0, &mut bytes);
            self.pool.copy_out(b, 0, &mut other);
            self.pool.copy_in(a, 0, &other);
            self.pool.copy_in(b, 0, &bytes);
            let (code, watch) = (self.pool.code(a).load(Ordering::SeqCst), self.pool.watch(a).load(Ordering::SeqCst));
            self.pool.code(a).store(self.pool.code(b).swap(code, Ordering::SeqCst), Ordering::SeqCst);
            self.pool.watch(a).store(self.pool.watch(b).swap(watch, Ordering::SeqCst), Ordering::SeqCst);
            for (page, frame) in pair.into_iter().zip([b, a]) {
                self.pool.set_owner(frame, page);
                if let Some(slot) = self.phys.get_mut(page) {
                    slot.ram = Some(frame);
                }
            }
            self.counts.moves += 2;
        }
        count
    }
}
