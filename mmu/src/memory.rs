//! One guest's physical memory, shared by its vCPUs, its devices and the board.
//!
//! What is mapped where, PAM backings, the A20 gate, copies for loader, debugger and DMA, and the whole-memory views
//! (hash, touched frames, compaction). Called by the machine and, through [`crate::vcpu::VcpuMmu`], by the cpu.

use crate::addr::{GuestPhys, PAGE_OFFSET, PAGE_SIZE, PhysPage, RegionId};
use crate::attention::Attention;
use crate::counters::Counters;
use crate::dma::Dma;
use crate::drain::{DropLog, Stale, while_parked};
use crate::events::{EventLog, Events};
use crate::frames::{Frame, FrameOrder, PinError, Pool};
use crate::monitor::Monitor;
use crate::monitor::audit::AuditReport;
use crate::phys_map::{Backing, Overlay};
use crate::ram::HostPtr;
use crate::reclaim::sharing::Sharing;
use crate::reclaim::swap::SwapError;
use crate::reclaim::{Paging, Reclaim, State};
use crate::vcpu::VcpuMmu;
use crate::writers::Writer;
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// A handle to one guest's physical memory. Clones are handles to the same memory.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pool: Arc<Pool>,
    pub(crate) log: Arc<DropLog>,
    order: FrameOrder,
    pub(crate) maxphyaddr: u8,
    pub(crate) a20_masked: AtomicBool,
    /// How many vCPUs share the TLB budget.
    pub(crate) vcpus: AtomicUsize,
    pub(crate) events: Arc<EventLog>,
    /// Who writes watched pages is noted.
    pub(crate) notes_writers: AtomicBool,
    failure: Arc<OnceLock<SwapError>>,
    sharing: OnceLock<Arc<Sharing>>,
    monitor: Mutex<Monitor>,
}

/// Why a range cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Not whole pages.
    #[error("guest-physical range {at:#x} + {bytes:#x} is not made of whole 4 KiB pages")]
    Unaligned {
        /// Start.
        at: u64,
        /// Length.
        bytes: u64,
    },
    /// Past the end of the guest-physical address space.
    #[error("guest-physical range {at:#x} + {bytes:#x} does not fit {bits} address bits")]
    Beyond {
        /// Start.
        at: u64,
        /// Length.
        bytes: u64,
        /// MAXPHYADDR.
        bits: u8,
    },
    /// The pool has too few frames left.
    #[error("the frame pool has {free} frames left where {needed} are needed")]
    NoFrames {
        /// What was asked for.
        needed: u64,
        /// What there is.
        free: u64,
    },
}

impl Shared {
    /// Bytes that one vCPU's TLBs may take: 16 MiB for all.
    pub(crate) fn tlb_budget(&self) -> usize {
        (16 << 20) / self.vcpus.load(Ordering::Relaxed).max(1)
    }
    /// The mmu lock. While a vCPU's thread waits for it, its vCPUs are parked (SHADOW-MMU, several vCPUs, (c)): whoever has
    /// the lock may be waiting for them. A vCPU that goes on to use a TLB applies the log after it has had the lock.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Monitor> {
        self.monitor.try_lock().unwrap_or_else(|| while_parked(|| self.monitor.lock()))
    }
    /// The frame that a host address lies in, this guest's or a shared one, and its pool.
    #[inline]
    pub(crate) fn frame_of(&self, at: HostPtr) -> Option<(&Pool, Frame)> {
        if let Some(frame) = self.pool.frame_of(at) {
            return Some((&self.pool, frame));
        }
        let pool = self.sharing.get()?.pool();
        pool.frame_of(at).map(|frame| (pool, frame))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let monitor = self.monitor.get_mut();
        monitor.let_all_go();
        let mut frames: Vec<Frame> = monitor.phys.pages().flat_map(|(_, p)| p.ram.into_iter().chain(p.rom)).collect();
        frames.append(&mut monitor.video);
        if Arc::strong_count(&self.pool) > 2 {
            // Others go on; what this guest had is the host's again.
            self.pool.discard(&mut frames);
        }
        self.pool.give_back(frames.into_iter());
    }
}

impl GuestMemory {
    /// Memory with nothing mapped. `maxphyaddr` is what CPUID 8000_0008h tells (32–52).
    pub fn new(pool: Arc<Pool>, order: FrameOrder, maxphyaddr: u8) -> GuestMemory {
        let maxphyaddr = maxphyaddr.clamp(32, 52);
        let log = Arc::new(DropLog::new());
        let events = Arc::new(EventLog::new());
        let monitor = Mutex::new(Monitor::new(Arc::clone(&pool), Arc::clone(&log), Arc::clone(&events)));
        let (a20_masked, notes_writers, vcpus) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(1));
        let (failure, sharing) = (Arc::default(), OnceLock::new());
        #[rustfmt::skip]
        let shared = Shared { pool, log, order, maxphyaddr, a20_masked, vcpus, events, notes_writers, failure, sharing, monitor };
        GuestMemory { shared: Arc::new(shared) }
    }

    /// Forgets the contents of the whole pages in a range: they read as zeros from now on, and the host has their memory back (S15).
    /// Gives how many were RAM that held anything. ROM and devices are left alone.
    pub fn discard(&self, at: GuestPhys, bytes: u64) -> u64 {
        /// Pages for which the others are kept waiting at a time.
        const BATCH: usize = 1024;
        let end = at.0.saturating_add(bytes).min(1 << self.shared.maxphyaddr) / PAGE_SIZE;
        let mut numbers = at.0.div_ceil(PAGE_SIZE)..end;
        let mut discarded = 0;
        while !numbers.is_empty() {
            discarded += self.shared.lock().discard(numbers.by_ref().take(BATCH).map(PhysPage));
        }
        discarded
    }
    /// Traces events from now on and keeps the newest `room` of them (32 bytes each); 0 ends the trace.
    pub fn trace_events(&self, room: usize) {
        self.shared.events.keep(room);
    }
    /// Takes the events that were traced since the last call.
    pub fn take_events(&self) -> Events {
        self.shared.events.take()
    }
    /// Commits and locks all frames of the pool (S2). On an error everything goes on without: the host may take some out.
    pub fn pin(&self) -> Result<(), PinError> {
        self.shared.pool.pin()
    }
    /// From now on RAM that is mapped is paged: only so much of it is in host memory at a time. What is there already stays.
    pub fn set_paging(&self, paging: Paging) {
        let pool = &self.shared.pool;
        pool.refuse_huge_pages();
        let reclaim = Reclaim::new(paging, pool, Arc::clone(&self.shared.failure));
        self.shared.lock().reclaim = Some(Box::new(reclaim));
    }
    /// From now on pages of this guest's RAM that are equal to others of the group, whoever's, may be one frame with them; only where RAM is
    /// paged. It is [`GuestMemory::share`] that looks for them. Who should be in a group: [`Sharing`]'s module.
    pub fn share_with(&self, group: &Arc<Sharing>) {
        let mut monitor = self.shared.lock();
        let Some(reclaim) = monitor.reclaim.as_mut() else { return };
        // A huge page of the host that loses one of its parts keeps the memory of all.
        reclaim.merges = false;
        self.shared.pool.may_be_elsewhere();
        reclaim.sharing = Some(Arc::clone(self.shared.sharing.get_or_init(|| Arc::clone(group))));
    }
    /// Looks at the next `frames` frames (round robin); those whose contents have not changed since the last look become one with
    /// equal ones of the group, or cost nothing if they are zero. Gives how many did. Once around looks at each.
    pub fn share(&self, frames: usize) -> u64 {
        /// Pages that are read while others wait: some 50 µs.
        const PART: usize = 64;
        if self.shared.sharing.get().is_none() {
            return 0;
        }
        let parts = (0..frames).step_by(PART).map(|from| PART.min(frames - from));
        parts.map(|part| self.shared.lock().share_some(part)).sum()
    }
    /// Changes how much RAM may be in host memory. What is too much leaves before this returns.
    pub fn set_limit(&self, bytes: u64) {
        let limit = bytes.max(crate::reclaim::LEAST_LIMIT) >> 12;
        let excess = {
            let mut monitor = self.shared.lock();
            let Some(reclaim) = monitor.reclaim.as_mut() else { return };
            reclaim.limit = limit;
            reclaim.counts.resident.saturating_sub(limit)
        };
        self.evict(excess);
    }
    /// Looks at the next `groups` of 512 frames (round robin) and makes those that are all in huge pages of the host, which a guest
    /// that works on much memory is faster with. Where frames leave all the time this is not worth while.
    pub fn merge(&self, groups: usize) {
        for _ in 0..groups {
            self.shared.lock().merge_next();
        }
    }
    /// Takes frames of RAM out of host memory, those first that were not used lately; gives how many (0: memory is not paged).
    pub fn evict(&self, frames: u64) -> u64 {
        let (mut done, frames) = (0, frames.min(self.shared.lock().reclaim_counts().resident));
        while done < frames {
            // A vCPU that waits for the lock has it between two parts.
            let part = (frames - done).min(PART as u64);
            let some = self.shared.lock().evict(part);
            done += some;
            if some < part {
                break;
            }
        }
        done
    }
    /// Looks at the next `frames` frames of the pool (round robin) and takes away those that were not in use at `scans` looks in
    /// a row; gives how many. Once around looks at each.
    pub fn shrink(&self, frames: usize, scans: u8) -> u64 {
        let parts = (0..frames).step_by(PART).map(|from| PART.min(frames - from));
        parts.map(|part| self.shared.lock().shrink(part, scans)).sum()
    }
    /// The pages of RAM that vCPUs used since the last call, in guest-physical order; they lose their monitor entries, so that the
    /// next use shows. What traces for the replacement policies are recorded with.
    pub fn take_used(&self) -> Vec<PhysPage> {
        self.shared.lock().take_used()
    }
    /// Why guest memory cannot go on: the swap file failed. The machine must stop; nothing that it shows is to be believed.
    pub fn failure(&self) -> Option<&SwapError> {
        self.shared.failure.get()
    }
    /// Puts fresh zeroed RAM at a range of whole pages. RAM that is there already keeps its contents.
    pub fn map_ram(&self, at: GuestPhys, bytes: u64) -> Result<(), MapError> {
        let pages = self.pages(at, bytes)?;
        let mut monitor = self.shared.lock();
        let bare = |page: &u64| monitor.phys.get(PhysPage(*page)).is_none_or(|p| p.ram.is_none());
        let missing = pages.clone().filter(bare).count();
        let mut frames = self.take(missing)?.into_iter();
        let pool = Arc::clone(&self.shared.pool);
        let mut number = pages.start;
        let mut fresh = Vec::with_capacity(missing);
        monitor.remap(pages.map(PhysPage), |page| {
            if page.ram.is_none() {
                page.ram = frames.next();
                fresh.push(PhysPage(number));
            }
            if let Some(frame) = page.ram {
                pool.set_owner(frame, PhysPage(number));
            }
            number += 1;
            (page.overlay, page.backing) = (None, Backing::RAM);
        });
        for page in &fresh {
            let frame = monitor.phys.get(*page).and_then(|slot| slot.ram);
            if let (Some(frame), Some(reclaim)) = (frame, monitor.reclaim.as_mut()) {
                reclaim.set(frame, State::Zero);
            }
        }
        monitor.ram_pages.append(&mut fresh);
        monitor.table_limit = 2048 + monitor.ram_pages.len() / 64;
        Ok(())
    }
    /// Puts a ROM image at `at` (the last page is filled up with FFh). RAM beneath keeps its contents.
    pub fn map_rom(&self, at: GuestPhys, image: &[u8]) -> Result<(), MapError> {
        let pages = self.pages(at, (image.len() as u64).next_multiple_of(PAGE_SIZE))?;
        let mut frames = self.take(pages.clone().count())?.into_iter();
        let pool = Arc::clone(&self.shared.pool);
        let mut parts = pages.clone().zip(image.chunks(PAGE_SIZE as usize));
        let mut old = Vec::new();
        self.shared.lock().remap(pages.map(PhysPage), |page| {
            if let (Some(frame), Some((number, part))) = (frames.next(), parts.next()) {
                pool.copy_in(frame, 0, &[0xff; PAGE_SIZE as usize]);
                pool.copy_in(frame, 0, part);
                pool.set_owner(frame, PhysPage(number));
                old.extend(page.rom.replace(frame));
            }
            (page.overlay, page.backing) = (None, Backing::ROM);
        });
        pool.give_back(old.into_iter());
        Ok(())
    }
    /// Puts a device region over a range of whole pages; what lies beneath keeps its contents.
    pub fn map_mmio(&self, at: GuestPhys, bytes: u64, region: RegionId) -> Result<(), MapError> {
        let pages = self.pages(at, bytes)?;
        let mut index = 0;
        self.shared.lock().remap(pages.map(PhysPage), |page| {
            page.overlay = Some(Overlay::Device(region, index));
            index += 1;
        });
        Ok(())
    }
    /// Has a device take the writes to a range of whole pages; reads and fetches reach the ROM image there, as in a flash memory
    /// that is not being programmed. Takes a device that lay over it away.
    pub fn map_rom_written(&self, at: GuestPhys, bytes: u64, region: RegionId) -> Result<(), MapError> {
        let pages = self.pages(at, bytes)?;
        let mut index = 0;
        self.shared.lock().remap(pages.map(PhysPage), |page| {
            (page.overlay, page.backing) = (Some(Overlay::Writes(region, index)), Backing::ROM);
            index += 1;
        });
        Ok(())
    }
    /// Changes the ROM image at `at`, whatever lies over it: what is read there, and code that was made of it, is new. Pages
    /// without an image are left out.
    pub fn write_rom(&self, at: GuestPhys, from: &[u8]) {
        let pool = &self.shared.pool;
        let mut monitor = self.shared.lock();
        for (page, offset, part) in chunks(at, from.len()) {
            let Some(from) = from.get(part).filter(|_| monitor.phys.get(page).is_some_and(|slot| slot.rom.is_some()))
            else {
                continue;
            };
            monitor.remap(std::iter::once(page), |slot| {
                if let Some(frame) = slot.rom {
                    pool.copy_in(frame, offset, from);
                }
            });
        }
    }
    /// Makes pages that have RAM (or a ROM image) behave as `backing` says: shadow RAM, PAM. Takes a device overlay away.
    pub fn set_backing(&self, at: GuestPhys, bytes: u64, backing: Backing) -> Result<(), MapError> {
        let pages = self.pages(at, bytes)?;
        self.shared.lock().remap(pages.map(PhysPage), |page| (page.overlay, page.backing) = (None, backing));
        Ok(())
    }
    /// Leaves open bus at a range: reads give FFh, writes are dropped. RAM beneath keeps its contents for `set_backing`.
    pub fn unmap(&self, at: GuestPhys, bytes: u64) -> Result<(), MapError> {
        self.set_backing(at, bytes, Backing::OPEN)
    }
    /// Opens or masks address line 20 for the processors.
    pub fn set_a20(&self, enabled: bool) {
        let monitor = self.shared.lock();
        if self.shared.a20_masked.swap(!enabled, Ordering::AcqRel) == enabled {
            monitor.post(Stale::Gate);
        }
    }
    /// Copies guest memory at `at`. Devices and open bus read as FFh. A20 does not apply.
    pub fn read(&self, at: GuestPhys, into: &mut [u8]) {
        let mut monitor = self.shared.lock();
        for (page, offset, part) in chunks(at, into.len()) {
            if let Some(into) = into.get_mut(part) {
                monitor.read_page(page, offset, into);
            }
        }
    }
    /// Writes guest memory at `at`, seen by every tracker. ROM, devices and open bus drop it.
    pub fn write(&self, at: GuestPhys, from: &[u8]) {
        self.write_as(Writer::Outside, at, from);
    }
    fn write_as(&self, writer: Writer, at: GuestPhys, from: &[u8]) {
        let mut monitor = self.shared.lock();
        monitor.writes_come_from(writer);
        if from.len() >= BULK && monitor.reclaim.is_none() {
            let frames = chunks(at, from.len()).map(|(page, ..)| monitor.phys.get(page).and_then(|slot| slot.ram));
            self.shared.pool.touch(frames.flatten());
        }
        for (page, offset, part) in chunks(at, from.len()) {
            if let Some(from) = from.get(part) {
                monitor.write_page(page, offset, from);
            }
        }
    }
    /// Lets the host back RAM with huge pages from now on: called when what a machine starts from is loaded. Not where RAM is
    /// paged: a limit counts pages of 4 KiB.
    pub fn prefer_huge_pages(&self) {
        if self.shared.lock().reclaim.is_none() {
            self.shared.pool.prefer_huge_pages();
        }
    }
    /// What a bus master sees.
    pub fn dma(&self) -> GuestDma {
        GuestDma { memory: self.clone() }
    }
    /// A vCPU's translation, parked, with paging off.
    pub fn vcpu(&self, attention: Arc<Attention>) -> VcpuMmu {
        VcpuMmu::new(Arc::clone(&self.shared), attention)
    }
    /// All counters at this moment.
    pub fn counters(&self) -> Counters {
        let monitor = self.shared.lock();
        let mut sums = monitor.past;
        monitor.vcpus.iter().for_each(|vcpu| vcpu.tally.add_to(&mut sums));
        Counters::from_sums(&sums, monitor.counts(), monitor.reclaim_counts())
    }
    /// Compares every monitor entry with the guest's tables (S6), and the books with the entries.
    pub fn audit(&self) -> AuditReport {
        self.shared.lock().audit()
    }
    /// Moves the next `frames` pages, round robin, to other frames; gives how many were moved.
    pub fn compact(&self, frames: usize) -> usize {
        self.shared.lock().move_frames(frames)
    }
    /// How many of this guest's frames the host holds in memory.
    pub fn touched_frames(&self) -> u64 {
        let monitor = self.shared.lock();
        let pages = monitor.phys.pages().flat_map(|(_, p)| p.ram.into_iter().chain(p.rom));
        self.shared.pool.resident(pages.chain(monitor.video.iter().copied()))
    }
    /// A hash of all RAM contents in guest-physical order, whatever frames they lie in.
    pub fn hash(&self) -> u64 {
        let monitor = self.shared.lock();
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut bytes = [0; PAGE_SIZE as usize];
        for (page, frame) in monitor.phys.pages().filter_map(|(n, p)| Some((n, p.ram?))) {
            monitor.look(frame, &mut bytes);
            hash = mix(hash, page.0);
            for word in bytes.as_chunks::<8>().0 {
                hash = mix(hash, u64::from_le_bytes(*word));
            }
        }
        hash
    }

    pub(crate) fn pages(&self, at: GuestPhys, bytes: u64) -> Result<std::ops::Range<u64>, MapError> {
        if (at.0 | bytes) & PAGE_OFFSET != 0 {
            return Err(MapError::Unaligned { at: at.0, bytes });
        }
        match at.0.checked_add(bytes) {
            Some(end) if end <= 1 << self.shared.maxphyaddr => Ok(at.0 >> 12..end >> 12),
            _ => Err(MapError::Beyond { at: at.0, bytes, bits: self.shared.maxphyaddr }),
        }
    }
    pub(crate) fn take(&self, count: usize) -> Result<Vec<Frame>, MapError> {
        let pool = &self.shared.pool;
        let no_frames = || MapError::NoFrames { needed: count as u64, free: pool.free_frames() };
        let mut frames = pool.take(count).ok_or_else(no_frames)?;
        if let FrameOrder::Permuted { seed } = self.shared.order {
            // Fisher and Yates, on a linear congruential generator: any fixed scatter serves.
            let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
            for i in (1..frames.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                frames.swap(i, (state >> 33) as usize % (i + 1));
            }
        }
        Ok(frames)
    }
}

#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// Frames that are looked at or taken away before somebody else may have the lock: a few milliseconds.
const PART: usize = 512;

/// Writes of so many bytes have the host give the frames first. A bus master's are shorter.
const BULK: usize = 128 << 10;

/// A range as (page, offset in page, range of the buffer).
fn chunks(at: GuestPhys, bytes: usize) -> impl Iterator<Item = (PhysPage, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= bytes {
            return None;
        }
        let here = at.wrapping_add(done as u64);
        let offset = here.page_offset() as usize;
        let length = (PAGE_SIZE as usize - offset).min(bytes - done);
        done += length;
        Some((here.page(), offset, done - length..done))
    })
}

/// Guest memory as bus masters see it.
#[derive(Clone, Debug)]
pub struct GuestDma {
    memory: GuestMemory,
}

impl Dma for GuestDma {
    fn read(&self, at: GuestPhys, into: &mut [u8]) {
        self.memory.note_dma(at, into.len());
        self.memory.read(at, into);
    }
    fn write(&mut self, at: GuestPhys, from: &[u8]) {
        self.memory.note_dma(at, from.len());
        self.memory.write_as(Writer::Dma, at, from);
    }
    fn discard(&mut self, at: GuestPhys, bytes: u64) {
        self.memory.discard(at, bytes);
    }
}
