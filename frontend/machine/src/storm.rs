//! The compaction storm (`compact-every`): every frame of guest RAM moves to another place again and again while the guest runs.
//!
//! A proof, not a service: the guest can only notice if a translation outlived its frame (SHADOW-MMU S1, S17). The frames
//! move in many small steps, so that the moves fall at many different instructions. Called by `run`: on the virtual clock
//! between two instructions of a turn, which is neither ended nor seen by the guest; on the real clock on a thread of its own.

use std::time::Duration;
use umbra_devices::clock::Tick;
use umbra_mmu::GuestMemory;

/// Steps in which all frames move once.
const STEPS: u32 = 32;
/// Bytes that the pool needs beyond the guest's, to move frames to.
pub(crate) const SPARE_BYTES: u64 = 1 << 20;

/// What moves, and when.
pub(crate) struct Storm {
    memory: GuestMemory,
    step: Duration,
    frames: usize,
    next: Tick,
}

impl Storm {
    /// Moves all frames behind `ram` bytes once in `every`.
    pub fn new(memory: GuestMemory, ram: u64, every: Duration) -> Storm {
        let frames = ram.div_ceil(umbra_mmu::addr::PAGE_SIZE).div_ceil(u64::from(STEPS));
        let step = (every / STEPS).max(Duration::from_nanos(1));
        Storm { memory, step, frames: frames as usize, next: Tick(0) }
    }
    /// The time from one step to the next.
    pub fn step(&self) -> Duration {
        self.step
    }
    /// Takes a step, whatever the time.
    pub fn blow(&self) {
        self.memory.compact(self.frames);
    }
    /// Takes a step if one is due at guest time `now`; gives the time of the next. What guest time jumped over is left out.
    pub fn blow_if_due(&mut self, now: Tick) -> Tick {
        if now >= self.next {
            self.blow();
            self.next = now.after(u64::try_from(self.step.as_nanos()).unwrap_or(u64::MAX));
        }
        self.next
    }
}
