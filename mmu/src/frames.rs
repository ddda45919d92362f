//! The frame pool: host memory in frames of 4 KiB, given to guests one by one.
//!
//! A frame's number says nothing about the guest-physical page that it backs (SHADOW-MMU S1): `phys_map` holds that map.
//! Beside each frame the pool keeps what every vCPU may look at without a lock: the page that the frame backs, and
//! which parts of it hold code or guest tables. Which frames hold their contents now is `reclaim`'s business, and so are frames that
//! pages have in common: those are a pool's of their own.
#![allow(unsafe_code, reason = "copies into and out of guest RAM, which nobody may borrow; bounds are checked here")]

use crate::addr::{PAGE_SIZE, PhysPage};
use crate::host::Reservation;
use crate::ram::{HostPtr, Word, copy_up, raw::Raw};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The number of a frame in its pool.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Frame(pub(crate) u32);

/// Why there is no pool, or no frame.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A pool of no bytes, or of more than 2³² frames.
    #[error("a frame pool of {0} bytes cannot be made: give a multiple of 4096 between 4096 and 16 TiB")]
    Size(u64),
    /// The host refused.
    #[error("the host refused {bytes} bytes for guest memory: {source}")]
    Host {
        /// What was asked for.
        bytes: u64,
        /// The host's reason.
        source: std::io::Error,
    },
}

/// Why the pool is not pinned. The machine runs on without: the host may then swap guest memory out by itself.
#[derive(Debug, thiserror::Error)]
#[error(
    "{bytes} bytes of guest memory cannot be locked ({source}): raise RLIMIT_MEMLOCK (ulimit -l) or use less memory"
)]
pub struct PinError {
    /// What was to be locked.
    pub bytes: u64,
    /// The host's reason.
    pub source: std::io::Error,
}

/// In which order a guest's pages get their frames.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FrameOrder {
    /// Ascending: neighbouring pages lie in neighbouring frames, so that the host can use huge pages.
    Identity,
    /// Scattered by a seed, which proves that nothing relies on the order.
    Permuted {
        /// Seed of the permutation.
        seed: u64,
    },
}

/// Flag of [`Pool::watch`]: the frame holds a guest table that is shadowed in sync.
pub(crate) const WATCH_TABLE: u8 = 1;
/// Flag of [`Pool::watch`]: the frame is video memory that has not been written since the adapter last looked.
pub(crate) const WATCH_CLEAN: u8 = 2;
/// Flag of [`Pool::watch`]: somebody wants to know who writes the frame (`writers`).
pub(crate) const WATCH_NOTED: u8 = 4;

/// A pool of frames. Several guests may share one.
#[derive(Debug)]
pub struct Pool {
    memory: Reservation,
    start: HostPtr,
    frames: u32,
    free: Mutex<FreeFrames>,
    owner: Box<[AtomicU64]>,
    code: Box<[AtomicU64]>,
    watch: Box<[AtomicU8]>,
    /// Where the contents of a frame lie that are in a shared one (`reclaim::sharing`): a host address, or 0.
    elsewhere: OnceLock<Box<[AtomicU64]>>,
}

/// So many zeros, which cost no memory until one is written.
pub(crate) fn zeros(count: usize) -> Box<[AtomicU64]> {
    let zeros = Box::into_raw(vec![0u64; count].into_boxed_slice());
    // SAFETY: the two types have one size, alignment and set of valid bit patterns (std); nobody else has the box.
    unsafe { Box::from_raw(zeros as *mut [AtomicU64]) }
}

/// Frames that nobody has: never used ones (still zero) from `fresh` on, and returned ones.
#[derive(Debug)]
struct FreeFrames {
    fresh: u32,
    returned: Vec<Frame>,
}

impl Pool {
    /// A pool of `bytes` (rounded up to whole frames). The host commits a frame at its first touch.
    pub fn new(bytes: u64) -> Result<Arc<Pool>, PoolError> {
        let frames = u32::try_from(bytes.div_ceil(PAGE_SIZE)).map_err(|_| PoolError::Size(bytes))?;
        if frames == 0 {
            return Err(PoolError::Size(bytes));
        }
        let memory = Reservation::new(frames as usize * 4096).map_err(|source| PoolError::Host { bytes, source })?;
        Ok(Arc::new(Pool {
            start: memory.start(),
            memory,
            frames,
            free: Mutex::new(FreeFrames { fresh: 0, returned: Vec::new() }),
            owner: zeros(frames as usize),
            code: zeros(frames as usize),
            watch: (0..frames).map(|_| AtomicU8::new(0)).collect(),
            elsewhere: OnceLock::new(),
        }))
    }
    /// Commits and locks the whole pool (S2): the host will not use these frames for anything else.
    pub fn pin(&self) -> Result<(), PinError> {
        let bytes = u64::from(self.frames) * PAGE_SIZE;
        self.memory.pin(bytes as usize).map_err(|source| PinError { bytes, source })
    }
    /// Has the host give these frames now, those that lie side by side in one go: a fault for each costs three times as much.
    pub(crate) fn touch(&self, frames: impl Iterator<Item = Frame>) {
        let mut run = 0..0;
        for Frame(frame) in frames.chain([Frame(u32::MAX)]) {
            if frame == run.end && run.end > run.start {
                run.end += 1;
                continue;
            }
            if run.len() > 1 {
                self.memory.touch(run.start as usize, run.len());
            }
            run = frame..frame.saturating_add(1);
        }
    }
    /// Lets the host give 2 MiB at a touch from now on. Not from the start: a host whose memory is full of cached files
    /// moves pages about for each of those (3 ms here, measured), and a machine is to start within 20 ms.
    pub(crate) fn prefer_huge_pages(&self) {
        self.memory.prefer_huge_pages(self.frames as usize * PAGE_SIZE as usize);
    }
    /// Frames in a huge page of the host.
    pub(crate) const MERGED: usize = 512;
    /// Whether [`Pool::merge`] may do something.
    pub(crate) fn merges(&self) -> bool {
        self.memory.merges()
    }
    /// Makes one huge page of the host of the [`Pool::MERGED`] frames from `first` on, which all hold something; tells whether it did.
    pub(crate) fn merge(&self, first: usize) -> bool {
        first + Pool::MERGED <= self.frames as usize && self.memory.merge(first)
    }
    /// Never lets the host give more than what is touched.
    pub(crate) fn refuse_huge_pages(&self) {
        self.memory.refuse_huge_pages(self.frames as usize * PAGE_SIZE as usize);
    }
    /// How many frames there are.
    pub(crate) fn frames(&self) -> usize {
        self.frames as usize
    }
    /// Gives the memory of frames back to the host, those that lie side by side in one go. They read as zeros from now on.
    pub(crate) fn discard(&self, frames: &mut [Frame]) {
        frames.sort_unstable();
        for run in frames.chunk_by(|a, b| a.0 + 1 == b.0) {
            if run.first().is_none_or(|first| !self.memory.discard(first.0 as usize, run.len())) {
                run.iter().for_each(|frame| self.zero(*frame));
            }
        }
    }
    /// How many frames nobody has.
    pub fn free_frames(&self) -> u64 {
        let free = self.free.lock();
        u64::from(self.frames - free.fresh) + free.returned.len() as u64
    }
    /// Takes `count` zeroed frames, or none.
    pub(crate) fn take(&self, count: usize) -> Option<Vec<Frame>> {
        let mut taken = Vec::with_capacity(count);
        {
            let mut free = self.free.lock();
            if (self.frames - free.fresh) as usize + free.returned.len() < count {
                return None;
            }
            while taken.len() < count && free.fresh < self.frames {
                taken.push(Frame(free.fresh));
                free.fresh += 1;
            }
            let rest = count - taken.len();
            let kept = free.returned.len() - rest;
            let first_returned = taken.len();
            taken.extend(free.returned.drain(kept..));
            drop(free);
            for frame in &taken[first_returned..] {
                self.zero(*frame);
            }
        }
        Some(taken)
    }
    /// Gives frames back. The caller has unmapped them everywhere.
    pub(crate) fn give_back(&self, frames: impl Iterator<Item = Frame>) {
        let mut free = self.free.lock();
        for frame in frames {
            self.code(frame).store(0, Ordering::Relaxed);
            self.watch(frame).store(0, Ordering::Relaxed);
            free.returned.push(frame);
        }
    }
    /// The guest-physical page that a frame backs.
    #[inline(always)]
    pub(crate) fn owner(&self, frame: Frame) -> PhysPage {
        PhysPage(self.owner[frame.0 as usize].load(Ordering::Acquire))
    }
    pub(crate) fn set_owner(&self, frame: Frame, page: PhysPage) {
        self.owner[frame.0 as usize].store(page.0, Ordering::Release);
    }
    /// From now on contents of frames may lie elsewhere.
    pub(crate) fn may_be_elsewhere(&self) {
        self.elsewhere.get_or_init(|| zeros(self.frames as usize));
    }
    /// Where the contents of a frame lie that are in a shared one. A vCPU may ask that has an entry which says so (`table::SHARED`):
    /// nobody changes it before each has seen that the entry is gone.
    #[inline]
    pub(crate) fn elsewhere(&self, frame: Frame) -> Option<HostPtr> {
        let at = self.elsewhere.get()?.get(frame.0 as usize)?.load(Ordering::Acquire);
        (at != 0).then(|| HostPtr::from_bits(at))
    }
    pub(crate) fn set_elsewhere(&self, frame: Frame, at: Option<HostPtr>) {
        if let Some(slot) = self.elsewhere.get().and_then(|slots| slots.get(frame.0 as usize)) {
            slot.store(at.map_or(0, HostPtr::bits), Ordering::Release);
        }
    }
    /// The owners' table, for emitted code: page number of frame *n* at index *n*.
    pub(crate) fn owners(&self) -> *const AtomicU64 {
        self.owner.as_ptr()
    }
    /// Which 64-byte grains of the frame hold code that was translated.
    pub(crate) fn code(&self, frame: Frame) -> &AtomicU64 {
        &self.code[frame.0 as usize]
    }
    /// [`WATCH_TABLE`], [`WATCH_CLEAN`] and [`WATCH_NOTED`].
    pub(crate) fn watch(&self, frame: Frame) -> &AtomicU8 {
        &self.watch[frame.0 as usize]
    }
    /// The host address of a frame's first byte.
    #[inline(always)]
    pub(crate) fn pointer(&self, frame: Frame) -> HostPtr {
        debug_assert!(frame.0 < self.frames);
        self.start.add(frame.0 as usize * 4096)
    }
    /// The host address of frame 0.
    pub(crate) fn base(&self) -> HostPtr {
        self.start
    }
    /// The frame that a host address lies in, if it is one of ours.
    #[inline(always)]
    pub(crate) fn frame_of(&self, at: HostPtr) -> Option<Frame> {
        let frame = at.bits().wrapping_sub(self.start.bits()) >> 12;
        (frame < u64::from(self.frames)).then_some(Frame(frame as u32))
    }
    /// The end of the frames that were ever given to anybody.
    pub(crate) fn end_of_used(&self) -> Frame {
        Frame(self.free.lock().fresh)
    }
    /// How many of these frames the host holds in memory.
    pub(crate) fn resident(&self, frames: impl Iterator<Item = Frame>) -> u64 {
        let mut total = 0;
        self.residency(frames, |resident| total += u64::from(resident));
        total
    }
    /// Tells for each of these frames whether the host holds it in memory; asks the host once for those that lie side by side.
    pub(crate) fn residency(&self, frames: impl Iterator<Item = Frame>, mut tell: impl FnMut(bool)) {
        let mut run = 0..0;
        for Frame(frame) in frames {
            if frame != run.end {
                self.memory.residency(run.start as usize, run.len(), &mut tell);
                run = frame..frame;
            }
            run.end += 1;
        }
        self.memory.residency(run.start as usize, run.len(), &mut tell);
    }

    /// Copies out of a frame; what lies past its end is left alone.
    pub(crate) fn copy_out(&self, frame: Frame, offset: usize, into: &mut [u8]) {
        let Some(at) = self.checked(frame, offset, into.len()) else { return };
        // SAFETY: checked to lie in the frame; `into` is ours.
        unsafe {
            match into.len() {
                1 => into.copy_from_slice(&u8::raw_load(at.0).to_le_bytes()),
                2 => into.copy_from_slice(&u16::raw_load(at.0).to_le_bytes()),
                4 => into.copy_from_slice(&u32::raw_load(at.0).to_le_bytes()),
                8 => into.copy_from_slice(&u64::raw_load(at.0).to_le_bytes()),
                16 => into.copy_from_slice(&u128::raw_load(at.0).to_le_bytes()),
                length => copy_up(into.as_mut_ptr(), at.0, length),
            }
        }
    }
    /// Copies into a frame; 1, 2, 4, 8 and 16 bytes are one store each.
    pub(crate) fn copy_in(&self, frame: Frame, offset: usize, from: &[u8]) {
        let Some(at) = self.checked(frame, offset, from.len()) else { return };
        // SAFETY: checked to lie in the frame.
        unsafe {
            match *from {
                [a] => u8::raw_store(at.0, a),
                [a, b] => u16::raw_store(at.0, u16::from_le_bytes([a, b])),
                [a, b, c, d] => u32::raw_store(at.0, u32::from_le_bytes([a, b, c, d])),
                [a, b, c, d, e, f, g, h] => u64::raw_store(at.0, u64::from_le_bytes([a, b, c, d, e, f, g, h])),
                _ => match <[u8; 16]>::try_from(from) {
                    Ok(bytes) => u128::raw_store(at.0, u128::from_le_bytes(bytes)),
                    Err(_) => copy_up(at.0, from.as_ptr(), from.len()),
                },
            }
        }
    }
    /// Reads one word of a frame (0 past its end).
    #[inline]
    pub(crate) fn load<T: Word>(&self, frame: Frame, offset: usize) -> T {
        match self.checked(frame, offset, T::BYTES) {
            // SAFETY: checked.
            Some(at) => unsafe { T::raw_load(at.0) },
            None => T::truncate(0),
        }
    }
    /// Locked compare and exchange of one word; gives what was there.
    pub(crate) fn compare_exchange<T: Word>(&self, frame: Frame, offset: usize, expected: T, new: T) -> T {
        match self.checked(frame, offset, T::BYTES) {
            // SAFETY: checked.
            Some(at) => unsafe { T::raw_compare_exchange(at.0, expected, new) },
            None => T::truncate(0),
        }
    }
    /// Locked read-modify-write of 1, 2, 4, 8 or 16 bytes; gives what was there. Other lengths are not atomic.
    pub(crate) fn update(&self, frame: Frame, offset: usize, len: usize, update: &mut dyn FnMut(u128) -> u128) -> u128 {
        match len {
            1 => self.update_word::<u8>(frame, offset, update),
            2 => self.update_word::<u16>(frame, offset, update),
            4 => self.update_word::<u32>(frame, offset, update),
            8 => self.update_word::<u64>(frame, offset, update),
            16 => self.update_word::<u128>(frame, offset, update),
            _ => {
                let mut bytes = [0; 16];
                let Some(part) = bytes.get_mut(..len) else { return 0 };
                self.copy_out(frame, offset, part);
                let old = u128::from_le_bytes(bytes);
                self.copy_in(frame, offset, update(old).to_le_bytes().get(..len).unwrap_or(&[]));
                old
            }
        }
    }
    fn update_word<T: Word>(&self, frame: Frame, offset: usize, update: &mut dyn FnMut(u128) -> u128) -> u128 {
        let mut seen = self.load::<T>(frame, offset);
        loop {
            let found = self.compare_exchange(frame, offset, seen, T::truncate(update(seen.into())));
            if found == seen {
                return seen.into();
            }
            seen = found;
        }
    }
    /// Fills a frame with zeros.
    pub(crate) fn zero(&self, frame: Frame) {
        self.copy_in(frame, 0, &[0; 4096]);
    }
    /// Fills a frame that nobody may read any more with what no guest wrote, so that whoever does is seen to be wrong.
    pub(crate) fn poison(&self, frame: Frame) {
        self.copy_in(frame, 0, &[0xdb; 4096]);
    }
    /// Copies a whole frame. Nobody writes either meanwhile.
    pub(crate) fn copy_frame(&self, from: Frame, to: Frame) {
        let mut bytes = [0; 4096];
        self.copy_out(from, 0, &mut bytes);
        self.copy_in(to, 0, &bytes);
    }

    #[inline(always)]
    fn checked(&self, frame: Frame, offset: usize, length: usize) -> Option<HostPtr> {
        let fits = frame.0 < self.frames && offset <= 4096 && length <= 4096 - offset;
        fits.then(|| self.pointer(frame).add(offset))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn frames_come_zeroed_and_return() {
        let pool = Pool::new(16 * 4096).unwrap();
        let frames = pool.take(16).unwrap();
        assert!(pool.take(1).is_none());
        pool.copy_in(frames[3], 4090, &[1, 2, 3, 4, 5, 6]);
        assert_eq!(pool.load::<u32>(frames[3], 4092), 0x0605_0403);
        pool.copy_in(frames[3], 4090, &[9; 7]);
        assert_eq!(pool.load::<u32>(frames[3], 4092), 0x0605_0403, "past the end: refused whole");
        pool.give_back(frames.into_iter());
        let again = pool.take(16).unwrap();
        assert!(again.iter().all(|f| pool.load::<u64>(*f, 4088) == 0));
    }

    #[test]
    fn pinned_or_told_why_not() {
        match Pool::new(64 * 4096).unwrap().pin() {
            Ok(()) => {}
            Err(error) => assert!(error.to_string().contains("RLIMIT_MEMLOCK"), "{error}"),
        }
    }

    #[test]
    fn locked_words() {
        let pool = Pool::new(4096).unwrap();
        let frame = pool.take(1).unwrap()[0];
        for offset in [0, 1, 13, 16, 61] {
            assert_eq!(pool.compare_exchange::<u64>(frame, offset, 0, 7), 0);
            assert_eq!(pool.compare_exchange::<u64>(frame, offset, 0, 9), 7);
            assert_eq!(pool.compare_exchange::<u128>(frame, offset, 7, 1 << 100), 7);
            assert_eq!(pool.load::<u128>(frame, offset), 1 << 100);
            pool.zero(frame);
        }
    }
}
