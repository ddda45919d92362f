//! Statistics: fault classes (SHADOW-MMU S11), fills and drops (I10), roots, drains.
//!
//! A vCPU counts into its own `Tally` without locked instructions; [`Counters`] is the sum at one moment.

use crate::reclaim::ReclaimCounts;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// Why an access came to the slow path, and what became of it. Closed: every slow access is exactly one of these.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultClass {
    /// The monitor had the entry with enough rights; only the TLB did not.
    Hit,
    /// The guest's tables say yes, the monitor had nothing yet.
    NotShadowed,
    /// The frame was out.
    FrameOut,
    /// The page is write-tracked: it holds a guest table or code.
    WriteTrack,
    /// The first write: the guest's dirty bit had to be set.
    DirtyTrack,
    /// The frame is shared and must be copied first.
    CopyOnWrite,
    /// A device or open bus lies behind the page.
    Mmio,
    /// The guest's own tables say no.
    GuestTrue,
}

impl FaultClass {
    /// All classes, in the order of their counters.
    pub const ALL: [FaultClass; 8] = [
        FaultClass::Hit,
        FaultClass::NotShadowed,
        FaultClass::FrameOut,
        FaultClass::WriteTrack,
        FaultClass::DirtyTrack,
        FaultClass::CopyOnWrite,
        FaultClass::Mmio,
        FaultClass::GuestTrue,
    ];
}

/// A vCPU's own events beside the fault classes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    RootHit = 8,
    RootMiss = 9,
    Drain = 10,
    Flush = 11,
    TrackedStore = 12,
    CodeWrite = 13,
    Resize = 14,
    KeptEntries = 15,
}

/// One vCPU's counters. Only its own thread adds.
#[derive(Debug, Default)]
pub(crate) struct Tally([AtomicU64; 16]);

impl Tally {
    #[inline(always)]
    fn add(&self, index: usize, count: u64) {
        if let Some(counter) = self.0.get(index) {
            counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
        }
    }
    #[inline(always)]
    pub(crate) fn class(&self, class: FaultClass) {
        self.add(class as usize, 1);
    }
    /// Counts so many slow accesses of a class.
    pub(crate) fn classes(&self, class: FaultClass, count: u64) {
        self.add(class as usize, count);
    }
    #[inline(always)]
    pub(crate) fn event(&self, event: Event) {
        self.add(event as usize, 1);
    }
    /// Counts an event that happened so many times.
    pub(crate) fn events(&self, event: Event, count: u64) {
        self.add(event as usize, count);
    }
    pub(crate) fn add_to(&self, sums: &mut [u64; 16]) {
        for (sum, counter) in sums.iter_mut().zip(&self.0) {
            *sum += counter.load(Ordering::Relaxed);
        }
    }
}

/// What the monitor counts under its lock.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorCounts {
    /// Entries made present.
    pub fills: u64,
    /// Entries made absent.
    pub drops: u64,
    /// Entries present now: fills − drops (I10).
    pub live: u64,
    /// Tables made.
    pub tables_made: u64,
    /// Tables given up.
    pub tables_dropped: u64,
    /// Pages whose tables were given up because they looked like data.
    pub floods: u64,
    /// Roots that exist now.
    pub roots: u64,
    /// Times that a right was taken away and every vCPU was waited for.
    pub waits: u64,
    /// Frames that were moved.
    pub moves: u64,
    /// Pages whose contents the guest gave up.
    pub discards: u64,
}

/// A snapshot of all counters.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Slow accesses by class, in the order of [`FaultClass::ALL`].
    pub classes: [u64; 8],
    /// Slow accesses in all.
    pub slow_accesses: u64,
    /// Changes of paging state that met a root this vCPU had.
    pub root_hits: u64,
    /// Changes of paging state that needed a new root.
    pub root_misses: u64,
    /// TLB entries that were alive after changes of paging state that met a root: each 64th such change is looked at and stands
    /// for all 64, so that this divided by `root_hits` is their mean.
    pub kept_entries: u64,
    /// Drains that found something.
    pub drains: u64,
    /// TLB sets emptied whole.
    pub flushes: u64,
    /// Stores into tracked pages.
    pub tracked_stores: u64,
    /// Writes that touched translated code.
    pub code_writes: u64,
    /// TLBs made larger or smaller.
    pub resizes: u64,
    /// What the monitor counts.
    pub monitor: MonitorCounts,
    /// What paging counts.
    pub reclaim: ReclaimCounts,
}

impl Counters {
    pub(crate) fn from_sums(sums: &[u64; 16], monitor: MonitorCounts, reclaim: ReclaimCounts) -> Counters {
        let classes = std::array::from_fn(|i| sums[i]);
        let of = |event: Event| sums[event as usize];
        Counters {
            classes,
            slow_accesses: classes.iter().sum(),
            root_hits: of(Event::RootHit),
            root_misses: of(Event::RootMiss),
            kept_entries: of(Event::KeptEntries),
            drains: of(Event::Drain),
            flushes: of(Event::Flush),
            tracked_stores: of(Event::TrackedStore),
            code_writes: of(Event::CodeWrite),
            resizes: of(Event::Resize),
            monitor,
            reclaim,
        }
    }
    /// How many slow accesses were of a class.
    pub fn class(&self, class: FaultClass) -> u64 {
        self.classes[class as usize]
    }
}
