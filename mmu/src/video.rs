//! Video memory: frames that a display adapter owns and shows, mapped for the guest where the adapter's windows are.
//!
//! Guest stores go through the TLB like those to RAM. Which pages changed comes from write tracking: a page is *clean* while
//! its watch flag is set and nobody has a fast right to write it; the first store clears the flag and costs one slow access.
//! A frame is mapped at one guest-physical page at a time. Called by the board (mapping), the adapter and its renderer.
//!
//! Leaves out: moving and eviction of these frames (they are never in the list that those walk).

use crate::addr::{GuestPhys, PAGE_SIZE, PhysPage};
use crate::drain::Stale;
use crate::frames::{Frame, FrameOrder, Pool, PoolError, WATCH_CLEAN};
use crate::memory::{GuestMemory, MapError, Shared};
use crate::monitor::Monitor;
use crate::phys_map::Overlay;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A moment in the history of a piece of video memory; the default is before everything.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

/// A piece of video memory.
#[derive(Debug)]
pub struct VideoMemory {
    shared: Arc<Shared>,
    frames: Vec<Frame>,
    history: Mutex<History>,
}

/// When each page was last seen changed.
#[derive(Debug)]
struct History {
    now: Generation,
    changed: Vec<Generation>,
}

impl GuestMemory {
    /// Takes `bytes` (rounded up to whole pages) from the pool for a display adapter, zeroed and mapped nowhere. They return
    /// with this guest's memory.
    pub fn video_memory(&self, bytes: u64) -> Result<VideoMemory, MapError> {
        let frames = self.take(bytes.div_ceil(PAGE_SIZE) as usize)?;
        self.shared.lock().video.extend(&frames);
        let history = History { now: Generation(0), changed: vec![Generation(0); frames.len()] };
        Ok(VideoMemory { shared: Arc::clone(&self.shared), frames, history: Mutex::new(history) })
    }
}

impl VideoMemory {
    /// Video memory of a guest with nothing else, for tests of adapters and renderers.
    pub fn detached(bytes: u64) -> Result<VideoMemory, PoolError> {
        let memory = GuestMemory::new(Pool::new(bytes)?, FrameOrder::Identity, 40);
        memory.video_memory(bytes).map_err(|_| PoolError::Size(bytes))
    }
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.frames.len() as u64 * PAGE_SIZE
    }
    /// Maps a range of its pages at `at`, over whatever is there; pages of the range that were mapped elsewhere are no more.
    pub fn map(&self, pages: Range<usize>, at: GuestPhys) -> Result<(), MapError> {
        let frames = self.frames.get(pages).unwrap_or(&[]);
        let targets = GuestMemory { shared: Arc::clone(&self.shared) }.pages(at, frames.len() as u64 * PAGE_SIZE)?;
        let mut monitor = self.shared.lock();
        let elsewhere = |(frame, page): (&Frame, u64)| monitor.video_page(*frame).filter(|old| old.0 != page);
        let old: Vec<PhysPage> = frames.iter().zip(targets.clone()).filter_map(elsewhere).collect();
        if !old.is_empty() {
            monitor.remap(old.into_iter(), |page| page.overlay = None);
        }
        let mut parts = frames.iter().zip(targets.clone());
        let pool = Arc::clone(&self.shared.pool);
        monitor.remap(targets.map(PhysPage), |page| {
            if let Some((frame, number)) = parts.next() {
                pool.set_owner(*frame, PhysPage(number));
                page.overlay = Some(Overlay::Video(*frame));
            }
        });
        Ok(())
    }
    /// Copies from an offset on; past the end nothing is copied.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let mut done = 0;
        while let Some((frame, within, length)) = self.chunk(offset + done, into.len() - done) {
            if let Some(part) = into.get_mut(done..done + length) {
                self.shared.pool.copy_out(frame, within, part);
            }
            done += length;
        }
    }
    /// Writes from an offset on; past the end nothing is written.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let mut done = 0;
        while let Some((frame, within, length)) = self.chunk(offset + done, from.len() - done) {
            if self.shared.pool.watch(frame).load(Ordering::SeqCst) & WATCH_CLEAN != 0 {
                let mut monitor = self.shared.lock();
                let page = monitor.video_page(frame);
                monitor.note_dirty(page, frame);
            }
            if let Some(part) = from.get(done..done + length) {
                self.shared.pool.copy_in(frame, within, part);
            }
            done += length;
        }
    }
    /// Reads four bytes, little-endian.
    pub fn load(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }
    /// Writes four bytes, little-endian.
    pub fn store(&self, offset: usize, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }
    /// The pages that changed since a moment, and the moment now: what is read after this call holds every store from
    /// before it, and every later store will be among the changes since the moment given.
    pub fn changes(&self, since: Generation) -> (Generation, Vec<usize>) {
        let mut history = self.history.lock();
        let fresh = self.shared.lock().clean(&self.frames);
        if !fresh.is_empty() {
            history.now.0 += 1;
            let now = history.now;
            fresh.into_iter().for_each(|page| history.changed[page] = now);
        }
        let pages = (0..self.frames.len()).filter(|&page| history.changed[page] > since).collect();
        (history.now, pages)
    }

    fn chunk(&self, offset: usize, left: usize) -> Option<(Frame, usize, usize)> {
        let within = offset % PAGE_SIZE as usize;
        let frame = *self.frames.get(offset / PAGE_SIZE as usize)?;
        (left != 0).then_some((frame, within, left.min(PAGE_SIZE as usize - within)))
    }
}

impl Monitor {
    /// The page that a video frame is mapped at.
    fn video_page(&self, frame: Frame) -> Option<PhysPage> {
        let page = self.pool.owner(frame);
        let overlay = self.phys.get(page).and_then(|slot| slot.overlay);
        (overlay == Some(Overlay::Video(frame))).then_some(page)
    }
    /// Makes all frames clean; gives the indices of those that were not. When this returns no vCPU can write one unseen.
    fn clean(&mut self, frames: &[Frame]) -> Vec<usize> {
        let mut dirty = Vec::new();
        for (index, &frame) in frames.iter().enumerate() {
            if self.pool.watch(frame).load(Ordering::Relaxed) & WATCH_CLEAN != 0 {
                continue;
            }
            self.pool.watch(frame).fetch_or(WATCH_CLEAN, Ordering::SeqCst);
            dirty.push(index);
            if let Some(page) = self.video_page(frame) {
                self.write_protect(page);
            }
        }
        if !dirty.is_empty() {
            // Even where no right was taken away, a vCPU may be in the middle of a slow store.
            self.post(Stale::Tables);
            self.wait();
        }
        dirty
    }
    /// Before a store to a frame: it is no longer clean.
    pub(crate) fn note_dirty(&mut self, page: Option<PhysPage>, frame: Frame) {
        let watch = self.pool.watch(frame);
        if watch.load(Ordering::Relaxed) & WATCH_CLEAN == 0 {
            return;
        }
        let left = watch.fetch_and(!WATCH_CLEAN, Ordering::SeqCst) & !WATCH_CLEAN;
        if let Some(page) = page
            && left == 0
            && self.pool.code(frame).load(Ordering::SeqCst) == 0
        {
            self.relax(page);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::addr::{Linear, RegionId};
    use crate::fault::{Access, View};
    use crate::place::PlaceKind;
    use crate::vcpu::VcpuMmu;

    fn machine() -> (GuestMemory, VideoMemory, VcpuMmu) {
        let memory = GuestMemory::new(Pool::new(1 << 20).unwrap(), FrameOrder::Permuted { seed: 3 }, 40);
        memory.map_ram(GuestPhys(0), 0x8_0000).unwrap();
        let video = memory.video_memory(0x8000).unwrap();
        let vcpu = memory.vcpu(Arc::default());
        (memory, video, vcpu)
    }
    fn put(vcpu: &mut VcpuMmu, at: u64, byte: u8) {
        if !vcpu.store(at, byte) {
            let place = vcpu.resolve(Linear(at), Access::Write, View::Supervisor).unwrap();
            vcpu.write_place(&place, &[byte]);
        }
    }

    #[test]
    fn stores_are_fast_and_seen_once() {
        let (memory, video, mut vcpu) = machine();
        video.map(0..8, GuestPhys(0xF_0000)).unwrap();
        let (first, all) = video.changes(Generation::default());
        assert_eq!(all, (0..8).collect::<Vec<_>>());
        put(&mut vcpu, 0xF_2345, 7);
        put(&mut vcpu, 0xF_2346, 8);
        assert!(vcpu.store(0xF_2347, 9_u8), "the second store to a page is a TLB hit");
        let (second, pages) = video.changes(first);
        assert_eq!(pages, [2]);
        assert_eq!(video.changes(second).1, [0_usize; 0]);
        assert_eq!(video.changes(first).1, [2], "each reader has its own past");
        vcpu.drain();
        assert!(!vcpu.store(0xF_2347, 9_u8), "clean again: the right is gone");
        put(&mut vcpu, 0xF_2347, 10);
        assert_eq!(video.load(0x2345) & 0xFF_FFFF, 0x0A_0807);
        assert_eq!(video.changes(second).1, [2]);
        assert!(memory.audit().is_clean(), "{:?}", memory.audit());
    }

    #[test]
    fn every_writer_is_seen() {
        let (memory, video, mut vcpu) = machine();
        video.map(0..8, GuestPhys(0xF_0000)).unwrap();
        let mut since = video.changes(Generation::default()).0;
        let place = vcpu.resolve(Linear(0xF_1000), Access::Write, View::Supervisor).unwrap();
        let expected = [&[1, 2][..], &[1, 2], &[1], &[1]];
        for (writer, expected) in expected.into_iter().enumerate() {
            match writer {
                0 => memory.write(GuestPhys(0xF_1FFF), &[1, 2]),
                1 => video.write(0x1FFE, &[3, 4, 5]),
                2 => assert!(!vcpu.write_place(&place, &[6]).code_written),
                _ => assert_eq!(vcpu.rmw_place(&place, 4, &mut |old| old + 1).0, 6),
            }
            let (now, pages) = video.changes(since);
            assert_eq!(pages, expected, "writer {writer}");
            since = now;
            assert!(memory.audit().is_clean());
        }
        assert_eq!(video.load(0x1000) & 0xFF, 7);
    }

    #[test]
    fn a_frame_is_at_one_place_and_a_device_hides_it() {
        let (memory, video, mut vcpu) = machine();
        video.map(0..8, GuestPhys(0xF_0000)).unwrap();
        put(&mut vcpu, 0xF_3000, 5);
        video.map(2..4, GuestPhys(0xA_0000)).unwrap();
        vcpu.drain();
        assert_eq!(vcpu.load::<u8>(0xF_3000), None);
        let kind = |vcpu: &mut VcpuMmu, at| vcpu.resolve(Linear(at), Access::Read, View::Supervisor).unwrap().kind();
        assert_eq!((kind(&mut vcpu, 0xF_3000), kind(&mut vcpu, 0xA_1000)), (PlaceKind::Open, PlaceKind::Ram));
        assert_eq!(vcpu.load::<u8>(0xA_1000), Some(5));
        memory.map_mmio(GuestPhys(0xA_0000), 0x2000, RegionId(1)).unwrap();
        vcpu.drain();
        assert!(matches!(kind(&mut vcpu, 0xA_1000), PlaceKind::Mmio { .. }));
        put(&mut vcpu, 0xA_1000, 9);
        assert_eq!(video.load(0x3000), 5);
        // RAM beneath keeps its contents.
        memory.write(GuestPhys(0x5000), b"ram");
        video.map(0..1, GuestPhys(0x5000)).unwrap();
        memory.write(GuestPhys(0x5000), b"vid");
        video.map(0..1, GuestPhys(0xF_0000)).unwrap();
        memory.set_backing(GuestPhys(0x5000), 0x1000, crate::Backing::RAM).unwrap();
        let mut bytes = [0; 3];
        memory.read(GuestPhys(0x5000), &mut bytes);
        assert_eq!(&bytes, b"ram");
        assert!(memory.audit().is_clean());
    }
}
