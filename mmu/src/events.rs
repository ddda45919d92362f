//! The event trace: what happened in the memory system one by one, while somebody looks. Off, it costs a test of a flag in slow
//! paths, and nothing in emitted code.
//!
//! Times are the host's, so that a trace shows what an event cost. The newest events are kept. Written by monitor and vCPUs, read
//! through `memory`.

use crate::counters::FaultClass;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What happened.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// Paging state changed to a root that this vCPU had; the address is the guest's root table.
    RootMet,
    /// Paging state changed to a root that this vCPU did not have.
    RootNew,
    /// A fill, or what it found out; the address is linear.
    Fill(FaultClass),
    /// A tracked store into a guest table; the address is guest-physical.
    TrackedStore,
    /// A monitor table was given up; the address is that of the guest table it stood for.
    Zap,
    /// A right was taken away: every vCPU was waited for.
    Shootdown,
    /// Frames were moved; the address counts them.
    Moved,
    /// Frames were taken away, their contents put elsewhere; the address counts them.
    Evicted,
    /// A frame came in: its first touch, or its contents came back; the address is guest-physical.
    FrameIn,
}

/// One event.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it began, in ns since the trace was switched on.
    pub began: u64,
    /// How long it took, in ns; 0 where that was not measured.
    pub lasted: u32,
    /// The vCPU; `None`: whoever had the mmu lock.
    pub vcpu: Option<u16>,
    /// What.
    pub kind: EventKind,
    /// Where, as the kind says.
    pub address: u64,
}

/// The newest events of a trace, and how many older ones were forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Oldest first.
    pub events: Vec<Event>,
    /// Forgotten for want of room.
    pub forgotten: u64,
}

#[derive(Debug)]
struct Ring {
    began: Instant,
    room: usize,
    events: VecDeque<Event>,
    forgotten: u64,
}

/// The trace.
#[derive(Debug)]
pub(crate) struct EventLog {
    on: AtomicBool,
    ring: Mutex<Ring>,
}

impl EventLog {
    pub(crate) fn new() -> EventLog {
        let ring = Ring { began: Instant::now(), room: 0, events: VecDeque::new(), forgotten: 0 };
        EventLog { on: AtomicBool::new(false), ring: Mutex::new(ring) }
    }
    /// Keeps the newest `room` events from now on; 0 ends the trace.
    pub(crate) fn keep(&self, room: usize) {
        *self.ring.lock() = Ring { began: Instant::now(), room, events: VecDeque::new(), forgotten: 0 };
        self.on.store(room != 0, Ordering::Release);
    }
    /// The time, if somebody wants to know how long something takes.
    #[inline(always)]
    pub(crate) fn start(&self) -> Option<Instant> {
        if self.on.load(Ordering::Relaxed) { Some(Instant::now()) } else { None }
    }
    /// Notes something that began at [`Self::start`] and is over.
    #[inline(always)]
    pub(crate) fn note(&self, start: Option<Instant>, vcpu: Option<u16>, kind: EventKind, address: u64) {
        if let Some(start) = start {
            self.put(start, vcpu, kind, address);
        }
    }
    #[cold]
    fn put(&self, start: Instant, vcpu: Option<u16>, kind: EventKind, address: u64) {
        let lasted = start.elapsed().as_nanos().min(u32::MAX.into()) as u32;
        let mut ring = self.ring.lock();
        if ring.room == 0 {
            return;
        }
        if ring.events.len() >= ring.room {
            ring.events.pop_front();
            ring.forgotten += 1;
        }
        let began = start.saturating_duration_since(ring.began).as_nanos() as u64;
        ring.events.push_back(Event { began, lasted, vcpu, kind, address });
    }
    /// Takes what was noted; the trace goes on.
    pub(crate) fn take(&self) -> Events {
        let mut ring = self.ring.lock();
        Events { events: std::mem::take(&mut ring.events).into(), forgotten: std::mem::take(&mut ring.forgotten) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_the_others_counted() {
        let log = EventLog::new();
        log.note(log.start(), None, EventKind::Zap, 1);
        assert_eq!(log.take(), Events::default(), "nobody looks");
        log.keep(2);
        for address in 1..=3 {
            log.note(log.start(), Some(7), EventKind::Zap, address);
        }
        let taken = log.take();
        let addresses: Vec<u64> = taken.events.iter().map(|event| event.address).collect();
        assert_eq!((addresses, taken.forgotten), (vec![2, 3], 1));
        assert!(taken.events.is_sorted_by_key(|event| event.began));
        log.keep(0);
        log.note(log.start(), None, EventKind::Zap, 4);
        assert_eq!(log.take(), Events::default());
    }
}
