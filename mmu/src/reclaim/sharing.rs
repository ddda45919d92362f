//! Frames that several pages have in common (S21): equal contents, kept once, for as long as a page refers to them.
//!
//! A sharing group has frames of its own, which are no guest's. One is found by a hash of its contents and then compared with them bit for bit;
//! while a page refers to it nobody writes it, so that it is whatever it was compared with. A guest that writes such a page gets
//! the contents in its own frame first (`monitor::join`). A frame that no page refers to any more goes back to the host before it
//! is used again, and is then written whole before anybody can find it (I8).
//!
//! *Who is in a group.* Whoever can time its own writes can tell a page that is shared from one that is not: the first write to it
//! takes longer. So a guest learns whether a page that it made up is somewhere in its group, and with it what its neighbours have
//! in memory (the attack has been shown on kernels that do the same). Guests of different owners do not belong in one group;
//! nobody is in one unasked.
//!
//! Leaves out: taking shared frames away to the swap file. They count for no guest's limit.

use super::Freed;
use super::swap::PageBytes;
use crate::frames::{Frame, Pool, PoolError, zeros};
use crate::ram::HostPtr;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A frame of a sharing group. Whoever has one has a reference to it, and gives it back by [`Sharing::release`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedFrame(Frame);

/// What a group has done.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharingCounts {
    /// Frames in use.
    pub frames: u64,
    /// Pages that refer to them.
    pub pages: u64,
    /// Frames that were ever made.
    pub made: u64,
    /// Frames that nobody referred to any more.
    pub given_up: u64,
}

/// Guests whose equal pages may be one frame.
#[derive(Debug)]
pub struct Sharing {
    pool: Arc<Pool>,
    freed: Freed,
    /// Two keys of the hash: nobody outside can make pages that meet.
    keys: [u64; 2],
    table: Mutex<Table>,
    /// Which page was last found to have contents of a hash: the page's mark, the hash's high bits. In buckets of [`WAYS`], by the
    /// hash's low bits; who comes to a full one takes somebody's place.
    seen: Box<[AtomicU64]>,
    /// Whose place is taken next.
    turn: AtomicU64,
}

/// Marks in a bucket.
const WAYS: usize = 4;

#[derive(Debug, Default)]
struct Table {
    by_hash: FxHashMap<u64, Frame>,
    /// By frame: how many pages refer to it, and its hash.
    uses: Vec<(u32, u64)>,
    counts: SharingCounts,
}

impl Sharing {
    /// A group of nobody yet, for so many bytes of shared frames at most (rounded up to whole frames): address space, until they are used.
    pub fn new(bytes: u64) -> Result<Arc<Sharing>, PoolError> {
        Sharing::with(bytes, Freed::Returned)
    }
    /// The same, and what becomes of frames that nobody refers to any more.
    pub fn with(bytes: u64, freed: Freed) -> Result<Arc<Sharing>, PoolError> {
        let pool = Pool::new(bytes)?;
        pool.refuse_huge_pages();
        let random = RandomState::new();
        let keys = [0, 1].map(|number| random.hash_one(number) | 1);
        let marks = 2 * pool.frames().next_power_of_two().max(WAYS);
        let seen = zeros(marks);
        Ok(Arc::new(Sharing { pool, freed, keys, table: Mutex::default(), seen, turn: AtomicU64::new(0) }))
    }
    /// The counters at this moment.
    pub fn counts(&self) -> SharingCounts {
        self.table.lock().counts
    }
    /// Bytes of shared frames that the host holds in memory.
    pub fn resident_bytes(&self) -> u64 {
        self.pool.resident((0..self.pool.frames()).map(|frame| Frame(frame as u32))) << 12
    }

    /// The hash by which contents are found. Never 0.
    pub(crate) fn hash(&self, page: &PageBytes) -> u64 {
        let fold = |a: u64, b: u64| {
            let wide = u128::from(a) * u128::from(b);
            wide as u64 ^ (wide >> 64) as u64
        };
        // Four chains side by side: one is bound by the multiplier's latency.
        let mut lanes = [0u64, 1, 2, 3].map(|lane| self.keys[0].wrapping_add(lane));
        for chunk in page.as_chunks::<64>().0 {
            for (lane, words) in lanes.iter_mut().zip(chunk.as_chunks::<16>().0) {
                let words = u128::from_le_bytes(*words);
                *lane = fold(*lane ^ words as u64, self.keys[1] ^ (words >> 64) as u64);
            }
        }
        lanes.into_iter().fold(self.keys[1], |sum, lane| fold(sum ^ lane, self.keys[0] | 1)) | 1
    }
    /// Whether there is a frame with this hash, or another page was found to have it not long ago. `mark`: who asks, not 0.
    pub(crate) fn is_wanted(&self, hash: u64, mark: u64) -> bool {
        const HIGH: u64 = 0xffff_ffff << 32;
        let known = hash & HIGH | mark & !HIGH;
        // The lowest bit is always the same.
        let bucket = (hash >> 1) as usize % (self.seen.len() / WAYS) * WAYS;
        let bucket = &self.seen[bucket..bucket + WAYS];
        let find = |wanted: u64| bucket.iter().find(|slot| (slot.load(Ordering::Relaxed) ^ wanted) & HIGH == 0);
        // Not always the same: of two that drive each other out neither would ever be found.
        let other = || &bucket[self.turn.fetch_add(1, Ordering::Relaxed) as usize % WAYS];
        let slot = find(known).or_else(|| find(0)).unwrap_or_else(other);
        let before = slot.swap(known, Ordering::Relaxed);
        (before ^ known) & HIGH == 0 && before != known || self.table.lock().by_hash.contains_key(&hash)
    }
    /// A reference to the frame with these contents, which is made if there is none. `None`: no frame is left, or other contents
    /// have the same hash.
    pub(crate) fn join(&self, hash: u64, page: &PageBytes) -> Option<SharedFrame> {
        let mut table = self.table.lock();
        let table = &mut *table;
        if let Some(&frame) = table.by_hash.get(&hash) {
            // Whoever refers to it keeps it as it is.
            let mut bytes = [0; 4096];
            self.pool.copy_out(frame, 0, &mut bytes);
            let (users, _) = table.uses.get_mut(frame.0 as usize)?;
            if bytes != *page || *users == u32::MAX {
                return None;
            }
            *users += 1;
            table.counts.pages += 1;
            return Some(SharedFrame(frame));
        }
        let frame = self.pool.take(1)?.pop()?;
        self.pool.copy_in(frame, 0, page);
        if table.uses.len() <= frame.0 as usize {
            table.uses.resize(frame.0 as usize + 1, (0, 0));
        }
        table.uses[frame.0 as usize] = (1, hash);
        table.by_hash.insert(hash, frame);
        table.counts.made += 1;
        table.counts.frames += 1;
        table.counts.pages += 1;
        Some(SharedFrame(frame))
    }
    /// Gives a reference back: no monitor entry of whoever had it leads to the frame, and every vCPU has seen that.
    pub(crate) fn release(&self, SharedFrame(frame): SharedFrame) {
        {
            let mut table = self.table.lock();
            let table = &mut *table;
            let Some((users, hash)) = table.uses.get_mut(frame.0 as usize) else { return };
            debug_assert_ne!(*users, 0, "a reference was given back twice");
            *users -= 1;
            table.counts.pages -= 1;
            if *users != 0 {
                return;
            }
            table.by_hash.remove(hash);
            table.counts.frames -= 1;
            table.counts.given_up += 1;
        }
        // Nobody can find it any more, and it is not free yet.
        match self.freed {
            Freed::Returned => self.pool.discard(&mut [frame]),
            Freed::Poisoned => self.pool.poison(frame),
        }
        self.pool.give_back(std::iter::once(frame));
    }
    /// Copies out of a frame.
    pub(crate) fn copy_out(&self, SharedFrame(frame): SharedFrame, offset: usize, into: &mut [u8]) {
        self.pool.copy_out(frame, offset, into);
    }
    /// The frames, for whoever has a host address of one.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }
    /// The host address of a frame's first byte.
    pub(crate) fn pointer(&self, SharedFrame(frame): SharedFrame) -> HostPtr {
        self.pool.pointer(frame)
    }
    /// Whether a frame is in use and holds what it was made with.
    pub(crate) fn is_sound(&self, SharedFrame(frame): SharedFrame) -> bool {
        let table = self.table.lock();
        let mut bytes = [0; 4096];
        self.pool.copy_out(frame, 0, &mut bytes);
        table.uses.get(frame.0 as usize).is_some_and(|&(users, hash)| users != 0 && hash == self.hash(&bytes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn page(number: u64) -> PageBytes {
        std::array::from_fn(|i| (number as usize * 31 + i * i / 7) as u8)
    }

    #[test]
    fn equal_contents_are_one_frame_until_nobody_needs_it() {
        let group = Sharing::with(4 << 12, Freed::Poisoned).unwrap();
        let pages: Vec<PageBytes> = (0..5).map(page).collect();
        let join = |number: usize| group.join(group.hash(&pages[number]), &pages[number]);
        let first = join(0).unwrap();
        assert_eq!((join(0), join(0)), (Some(first), Some(first)));
        let others: Vec<_> = (1..4).map(|number| join(number).unwrap()).collect();
        assert_eq!(join(4), None, "four frames are all that there are");
        assert_eq!(group.counts(), SharingCounts { frames: 4, pages: 6, made: 4, given_up: 0 });
        assert!(group.is_sound(first));
        (0..3).for_each(|_| group.release(first));
        assert!(!group.is_sound(first), "nobody's");
        let mut bytes = [0; 4096];
        group.copy_out(first, 0, &mut bytes);
        assert_eq!(bytes, [0xdb; 4096], "what it held is gone");
        let last = join(4).unwrap();
        group.copy_out(last, 0, &mut bytes);
        assert!(bytes == pages[4] && last == first, "the frame has come back, written whole");
        others.into_iter().chain([last]).for_each(|frame| group.release(frame));
        assert_eq!(group.counts(), SharingCounts { frames: 0, pages: 0, made: 5, given_up: 5 });
    }

    /// Contents that only look alike stay apart.
    #[test]
    fn a_hash_is_not_enough() {
        let group = Sharing::new(4 << 12).unwrap();
        let frame = group.join(7, &page(1)).unwrap();
        assert_eq!(group.join(7, &page(2)), None);
        assert_eq!(group.join(7, &page(1)), Some(frame));
    }

    #[test]
    fn every_byte_counts_in_the_hash() {
        let group = Sharing::new(4 << 12).unwrap();
        let (mut bytes, mut seen) = ([0; 4096], std::collections::HashSet::new());
        assert!(seen.insert(group.hash(&bytes)));
        for at in 0..4096 {
            bytes[at] = 1;
            assert!(seen.insert(group.hash(&bytes)), "byte {at}");
            bytes[at] = 0;
        }
    }

    #[test]
    fn the_second_page_is_wanted() {
        let group = Sharing::new(16 << 12).unwrap();
        let hash = group.hash(&page(3));
        assert!(!group.is_wanted(hash, 1) && !group.is_wanted(hash, 1), "the same page again");
        assert!(group.is_wanted(hash, 2));
        let frame = group.join(hash, &page(3)).unwrap();
        assert!(group.is_wanted(hash, 2) && group.is_wanted(hash, 2), "there is a frame now");
        group.release(frame);
    }
}
