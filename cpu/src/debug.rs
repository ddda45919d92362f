//! Debugging: the guest's own breakpoints in DR0–DR3 (SDM vol. 3, 18.2), a debugger outside the guest, and the trail of blocks
//! that a crash report shows.
//!
//! Not modelled: I/O breakpoints (DR7.R/W = 2).

use crate::state::State;
use std::collections::BTreeSet;
use umbra_mmu::addr::Linear;
use umbra_mmu::fault::Access;

/// An enabled breakpoint of the guest.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Breakpoint {
    /// DR0–DR3: the bit of DR6 that reports it.
    pub number: u8,
    /// The linear address.
    pub linear: u64,
    /// Bytes that it covers.
    pub len: u64,
    /// What it breaks on.
    pub kind: BreakKind,
}

/// What a breakpoint breaks on (DR7.R/Wn).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum BreakKind {
    /// Execution of the instruction that starts at the address.
    Execute,
    /// Data writes.
    Write,
    /// I/O (with CR4.DE).
    Io,
    /// Data reads and writes.
    ReadWrite,
}

impl Breakpoint {
    /// Whether a data access of `len` bytes at `linear` hits it.
    pub fn hit_by(&self, linear: Linear, len: u64, access: Access) -> bool {
        let kind = match self.kind {
            BreakKind::Write => access == Access::Write,
            BreakKind::ReadWrite => access != Access::Fetch,
            BreakKind::Execute | BreakKind::Io => false,
        };
        kind && linear.0 < self.linear.wrapping_add(self.len) && self.linear < linear.0.wrapping_add(len)
    }
}

/// The breakpoints that DR7 enables.
pub fn breakpoints(state: &State) -> impl Iterator<Item = Breakpoint> + '_ {
    let dr7 = state.dr[7];
    (0..4u8).filter(move |n| dr7 >> (2 * n) & 3 != 0).map(move |number| {
        let control = dr7 >> (16 + 4 * number) & 15;
        let len = [1, 2, 8, 4][(control >> 2) as usize];
        let kind = [BreakKind::Execute, BreakKind::Write, BreakKind::Io, BreakKind::ReadWrite][(control & 3) as usize];
        let linear = state.dr[usize::from(number)] & !(len - 1);
        Breakpoint { number, linear, len, kind }
    })
}

/// What a debugger asked for. A block never runs past a breakpoint: lift ends it before one, and the dispatcher looks at each
/// block's start, so that everything else runs at its usual speed.
#[derive(Clone, Debug, Default)]
pub struct Debugger {
    /// Linear addresses at which `run` returns `Exit::Debug` before executing.
    breakpoints: BTreeSet<u64>,
    /// The breakpoint that was last reported and has not been executed yet.
    passed: Option<u64>,
    /// Blocks were lifted for other breakpoints.
    stale: bool,
}

impl Debugger {
    /// Sets a breakpoint.
    pub fn insert(&mut self, linear: u64) {
        self.stale |= self.breakpoints.insert(linear);
    }
    /// Removes a breakpoint.
    pub fn remove(&mut self, linear: u64) {
        self.stale |= self.breakpoints.remove(&linear);
        if self.passed == Some(linear) {
            self.passed = None;
        }
    }
    /// Whether there are any breakpoints.
    #[inline(always)]
    pub fn active(&self) -> bool {
        !self.breakpoints.is_empty()
    }
    /// Whether there is a breakpoint at `linear`.
    pub fn covers(&self, linear: u64) -> bool {
        self.breakpoints.contains(&linear)
    }
    /// Whether lifted blocks must be dropped because breakpoints changed; asked once.
    pub(crate) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }
    /// Whether to stop before the instruction at `linear`. The next call for the same address lets it pass.
    pub fn stops_at(&mut self, linear: u64) -> bool {
        if self.breakpoints.is_empty() {
            return false;
        }
        let stop = self.covers(linear) && self.passed != Some(linear);
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
