//! Debugging: the guest's own breakpoints in DR0–DR3 (SDM vol. 3, 18.2), a debugger outside the guest, and the trail of blocks
//! that a crash report shows.
//!
//! Breakpoints on data make the pages that they lie in slow (`VcpuMmu::set_slow_pages`): elsewhere they cost nothing.

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
        kind && overlap(linear.0, len, self.linear, self.len)
    }
    /// Whether an access to `width` ports from `port` on hits it.
    pub fn hit_by_port(&self, port: u16, width: u64) -> bool {
        self.kind == BreakKind::Io && overlap(port.into(), width, self.linear, self.len)
    }
}

/// Whether two ranges share a byte.
fn overlap(one: u64, one_len: u64, other: u64, other_len: u64) -> bool {
    one < other.wrapping_add(other_len) && other < one.wrapping_add(one_len)
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

/// A debugger's watchpoint: `run` returns `Exit::Debug` after an instruction that has accessed its bytes so.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Watchpoint {
    /// The first byte's linear address.
    pub linear: u64,
    /// Bytes that it covers.
    pub len: u64,
    /// Which accesses it sees.
    pub sees: WatchFor,
}

/// Which accesses a watchpoint sees.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum WatchFor {
    /// Writes.
    Writes,
    /// Reads.
    Reads,
    /// Both.
    Both,
}

impl Watchpoint {
    fn hit_by(&self, linear: Linear, len: u64, access: Access) -> bool {
        let seen = match access {
            Access::Write => self.sees != WatchFor::Reads,
            Access::Read => self.sees != WatchFor::Writes,
            Access::Fetch => false,
        };
        seen && overlap(linear.0, len, self.linear, self.len)
    }
    /// The pages that it touches, as addresses in them.
    fn pages(&self) -> impl Iterator<Item = Linear> + use<> {
        let (first, last) = (self.linear >> 12, self.linear.wrapping_add(self.len.max(1) - 1) >> 12);
        (first..=last).take(Debugger::MOST_PAGES).map(|page| Linear(page << 12))
    }
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
    watchpoints: Vec<Watchpoint>,
    /// The first watchpoint that the last instruction has hit.
    hit: Option<Watchpoint>,
    /// The hit has not been reported by `run` yet.
    hit_is_news: bool,
}

impl Debugger {
    /// The most pages that one watchpoint may touch.
    pub const MOST_PAGES: usize = 16;

    /// Sets a watchpoint; `Vcpu::update_breakpoints` makes it work.
    pub(crate) fn watch(&mut self, watchpoint: Watchpoint) {
        self.watchpoints.push(watchpoint);
    }
    /// Removes a watchpoint.
    pub(crate) fn unwatch(&mut self, watchpoint: Watchpoint) {
        if let Some(place) = self.watchpoints.iter().position(|known| *known == watchpoint) {
            self.watchpoints.remove(place);
        }
        if self.hit == Some(watchpoint) {
            self.forget_hit();
        }
    }
    /// Addresses in all watched pages.
    pub(crate) fn watched_pages(&self) -> impl Iterator<Item = Linear> + '_ {
        self.watchpoints.iter().flat_map(Watchpoint::pages)
    }
    /// Whether a data access hits a watchpoint.
    #[cold]
    pub(crate) fn watches(&self, linear: Linear, len: u64, access: Access) -> bool {
        self.watchpoints.iter().any(|watchpoint| watchpoint.hit_by(linear, len, access))
    }
    /// Notes the watchpoint that a data access hits, if it is the instruction's first.
    #[cold]
    pub(crate) fn note_access(&mut self, linear: Linear, len: u64, access: Access) {
        let hit = self.watchpoints.iter().find(|watchpoint| watchpoint.hit_by(linear, len, access)).copied();
        if let (Some(hit), false) = (hit, self.hit_is_news) {
            (self.hit, self.hit_is_news) = (Some(hit), true);
        }
    }
    /// Forgets a hit: its instruction has faulted and will be executed again.
    pub(crate) fn forget_hit(&mut self) {
        (self.hit, self.hit_is_news) = (None, false);
    }
    /// Whether a hit has not been reported yet.
    pub(crate) fn has_news(&self) -> bool {
        self.hit_is_news
    }
    /// Makes `run` return once more for what it has just returned for: another vCPU's stop came first.
    pub fn report_again(&mut self) {
        self.hit_is_news = self.hit.is_some();
        self.passed = None;
    }
    /// Whether `run` must return for a hit; asked once.
    #[inline(always)]
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.hit_is_news)
    }
    /// The watchpoint that made `run` return, once.
    pub fn take_hit(&mut self) -> Option<Watchpoint> {
        self.hit.take()
    }
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
    /// The RIP of the block entered last.
    pub fn newest(&self) -> u64 {
        self.rips[self.at]
    }
    /// The RIPs, oldest first.
    pub fn oldest_first(&self) -> impl Iterator<Item = u64> + '_ {
        (1..=64).map(|n| self.rips[(self.at + n) & 63])
    }
}
