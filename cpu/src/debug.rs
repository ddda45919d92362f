//! A debugger outside the guest: breakpoints by linear address; and the trail of blocks that a crash report shows.

use std::collections::BTreeSet;

/// What a debugger asked for.
#[derive(Clone, Debug, Default)]
pub struct Debugger {
    /// Linear addresses at which `run` returns `Exit::Debug` before executing.
    breakpoints: BTreeSet<u64>,
    /// The breakpoint that was last reported and has not been executed yet.
    passed: Option<u64>,
}

impl Debugger {
    /// Sets a breakpoint.
    pub fn insert(&mut self, linear: u64) {
        self.breakpoints.insert(linear);
    }
    /// Removes a breakpoint.
    pub fn remove(&mut self, linear: u64) {
        self.breakpoints.remove(&linear);
    }
    /// Whether instructions must run one by one.
    pub fn active(&self) -> bool {
        !self.breakpoints.is_empty()
    }
    /// Whether to stop before the instruction at `linear`. The next call for the same address lets it pass.
    pub fn stops_at(&mut self, linear: u64) -> bool {
        if self.breakpoints.is_empty() {
            return false;
        }
        let stop = self.breakpoints.contains(&linear) && self.passed != Some(linear);
        self.passed = stop.then_some(linear);
        stop
    }
}

/// The RIPs of the blocks entered last: one store a block.
#[derive(Clone, Debug)]
pub struct Trail {
    rips: [u64; 64],
    at: usize,
}

impl Default for Trail {
    fn default() -> Trail {
        Trail { rips: [0; 64], at: 0 }
    }
}

impl Trail {
    /// Notes that a block is entered.
    #[inline(always)]
    pub fn note(&mut self, rip: u64) {
        self.at = (self.at + 1) & 63;
        self.rips[self.at] = rip;
    }
    /// The RIPs, oldest first.
    pub fn oldest_first(&self) -> impl Iterator<Item = u64> + '_ {
        (1..=64).map(|n| self.rips[(self.at + n) & 63])
    }
}
