//! A debugger outside the guest: breakpoints by linear address and single steps.

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
