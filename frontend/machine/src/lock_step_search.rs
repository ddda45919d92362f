//! Finds the instruction in which two engines part, by running both again from power-on in ever smaller steps.
//!
//! 1. From the last stop at which everything was equal, memory is compared at each stop: one span is left.
//! 2. In that span the other machine leads by a block of emitted code at a time ([`Link::slack`](umbra_cpu::vcpu::Link)), and
//!    the reference follows to exactly the same instruction. Memory is compared every so many blocks, then in fewer and fewer.
//! 3. The block is made again of fewer instructions: the least number that differs ends with the one looked for.
//!
//! A difference that needs chains of blocks shows itself in no single block: then the span is cut by its budget, and
//! the blocks around are named. Several vCPUs: only step 1, since turns depend on where a run stops.

use crate::builder::MachineBuilder;
use crate::lock_step::{Act, Divergence, deep, run_both, shallow};
use crate::machine::Machine;
use crate::run::RunEnd;
use std::fmt::Write as _;
use umbra_cpu::emit::SLACK;
use umbra_cpu::exit::Activity;
use umbra_devices::clock::Tick;
use umbra_mmu::GuestPhys;

/// Names of the general registers, by number.
pub(crate) const REGISTERS: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
/// Blocks between looks at memory, from coarse to fine.
const STRIDES: [usize; 3] = [1024, 32, 1];
/// The most instructions of a block.
const LONGEST: u64 = 64;

/// What a search starts from.
pub(crate) struct Search<'s> {
    pub builders: &'s [MachineBuilder; 2],
    pub history: &'s [Act],
    /// Acts after which everything was equal.
    pub good: usize,
}

/// Reference and other.
struct Pair {
    a: Machine,
    b: Machine,
}

/// A difference, and the number of steps after which nothing and after which something was to be seen.
struct Found {
    equal: usize,
    different: usize,
    what: String,
}

impl Search<'_> {
    /// Names the instruction, as far as that can be done.
    pub fn run(&self, seen: &str) -> Divergence {
        let mut text = format!("the engines differ (interpreter | jit):\n{seen}");
        let rip = self.narrow(&mut text);
        Divergence { rip, text }
    }

    fn narrow(&self, text: &mut String) -> Option<u64> {
        let mut pair = self.pair()?;
        let mut acts = self.history.iter().enumerate().skip(self.good);
        pair.repeat(&self.history[..self.good]);
        let Some((act, until)) = acts.find_map(|(n, act)| {
            let ends = pair.act(act);
            let differs = pair.differs(ends).is_some();
            match act {
                Act::RunUntil(until) if differs => Some((n, *until)),
                _ => None,
            }
        }) else {
            let _ = writeln!(text, "  it did not come back when both ran again from power-on");
            return None;
        };
        let pair = self.at(act)?;
        let from = pair.a.now();
        let _ = writeln!(text, "  between guest time {} and {} ns", from.0, until.0);
        if pair.a.vcpus.len() > 1 {
            return None;
        }
        drop(pair);
        match self.blocks(act, until) {
            Some(found) => self.instruction(act, &found, until, text),
            None => self.budget(act, from, until, text),
        }
    }

    fn pair(&self) -> Option<Pair> {
        let [a, b] = self.builders;
        Some(Pair { a: a.clone().build_one().ok()?, b: b.clone().build_one().ok()? })
    }

    /// The pair as it was before act number `act`.
    fn at(&self, act: usize) -> Option<Pair> {
        let mut pair = self.pair()?;
        pair.repeat(&self.history[..act]);
        Some(pair)
    }

    /// The block in which they part: that many blocks after the act's beginning.
    fn blocks(&self, act: usize, until: Tick) -> Option<Found> {
        let mut found = Found { equal: 0, different: usize::MAX, what: String::new() };
        for stride in STRIDES {
            let mut pair = self.at(act)?;
            let mut done = 0;
            let fits = loop {
                if done >= found.different || pair.a.now() >= until {
                    break None;
                }
                let ends = pair.step(until);
                done += 1;
                if done <= found.equal {
                    continue;
                }
                let over = ends[0] != RunEnd::TickReached || pair.a.now() >= until;
                let look = over || done % stride == 0 || done == found.different;
                let what = shallow(&pair.a, &pair.b, ends).or_else(|| if look { deep(&pair.a, &pair.b) } else { None });
                match what {
                    Some(what) => break Some(what),
                    None if look => found.equal = done,
                    None => {}
                }
                if over {
                    break None;
                }
            };
            match fits {
                Some(what) => (found.different, found.what) = (done, what),
                None => return (found.different != usize::MAX).then_some(found),
            }
        }
        Some(found)
    }

    /// Names the instruction in the block found.
    fn instruction(&self, act: usize, found: &Found, until: Tick, text: &mut String) -> Option<u64> {
        let before = || {
            let mut pair = self.at(act)?;
            (1..found.different).for_each(|_| {
                pair.step(until);
            });
            Some(pair)
        };
        let mut pair = before()?;
        let (rip, retired) = (pair.a.vcpus[0].state.rip, pair.a.vcpus[0].state.retired);
        pair.step(until);
        let insns = pair.a.vcpus[0].state.retired.wrapping_sub(retired).clamp(1, LONGEST);
        // What the first so many instructions show, made as a block.
        let part = |most: u64| {
            let mut pair = before()?;
            pair.b.vcpus[0].link.longest_block = most as u8;
            pair.b.vcpus[0].link.cache.clear();
            let ends = pair.step(until);
            pair.differs(ends)
        };
        let mut named = part(insns).map(|what| (insns, what));
        let mut equal = 0;
        while let Some((different, _)) = &named
            && different - equal > 1
        {
            let middle = equal + (different - equal) / 2;
            match part(middle) {
                Some(what) => named = Some((middle, what)),
                None => equal = middle,
            }
        }
        let listings = pair.b.vcpus[0].listings(rip);
        let listing = listings.iter().find(|listing| listing.rip == rip).or(listings.first());
        let lines: Vec<&str> = listing.map(|listing| listing.guest.lines().collect()).unwrap_or_default();
        let line = named.as_ref().and_then(|(most, _)| lines.get(*most as usize - 1).copied());
        match line {
            Some(line) => *text += &format!("the first instruction that differs:\n{line}\n"),
            None => *text += &format!("the block at {rip:x} differs; no part of it does by itself\n"),
        }
        *text += &format!("after it (interpreter | jit):\n{}", named.as_ref().map_or(&found.what, |(_, what)| what));
        if let Some(listing) = listing {
            *text += &format!("its block:\n{}uops:\n{}", listing.guest, listing.uops);
            listing.host.iter().for_each(|host| *text += &format!("host code:\n{host}"));
        }
        let address = line.and_then(|line| u64::from_str_radix(line.split_whitespace().next()?, 16).ok());
        Some(address.unwrap_or(rip))
    }

    /// No block differs by itself: the shortest run in the span that does.
    fn budget(&self, act: usize, from: Tick, until: Tick, text: &mut String) -> Option<u64> {
        let (mut equal, mut different) = (0, until.0 - from.0);
        while different - equal > 1 {
            let middle = equal + (different - equal) / 2;
            let mut pair = self.at(act)?;
            let ends = run_both(&mut pair.a, &mut pair.b, Tick(from.0 + middle), None);
            match pair.differs(ends) {
                Some(_) => different = middle,
                None => equal = middle,
            }
        }
        let mut pair = self.at(act)?;
        let ends = run_both(&mut pair.a, &mut pair.b, Tick(from.0 + different), None);
        let what = pair.differs(ends).unwrap_or_default();
        let _ =
            writeln!(text, "no block differs by itself; a run of {different} instructions from there does:\n{what}");
        let trail: Vec<u64> = pair.b.vcpus[0].link.trail.oldest_first().collect();
        let mut seen = Vec::new();
        for rip in trail.into_iter().rev().filter(|rip| *rip != 0).take(4) {
            if seen.contains(&rip) {
                continue;
            }
            seen.push(rip);
            for listing in pair.b.vcpus[0].listings(rip).iter().filter(|listing| listing.rip == rip) {
                let _ = write!(text, "block entered before:\n{}", listing.guest);
                listing.host.iter().for_each(|host| *text += &format!("host code:\n{host}"));
            }
        }
        None
    }
}

impl Pair {
    fn repeat(&mut self, acts: &[Act]) {
        for act in acts {
            self.act(act);
        }
    }

    fn differs(&self, ends: [RunEnd; 2]) -> Option<String> {
        shallow(&self.a, &self.b, ends).or_else(|| deep(&self.a, &self.b))
    }

    fn act(&mut self, act: &Act) -> [RunEnd; 2] {
        match act {
            Act::RunUntil(until) => return run_both(&mut self.a, &mut self.b, *until, None),
            Act::Input(input) => {
                input.apply(&mut self.a.board());
                input.apply(&mut self.b.board());
            }
            Act::Reset => drop((self.a.reset(), self.b.reset())),
        }
        [RunEnd::TickReached; 2]
    }

    /// One block of emitted code in the other machine, and the reference after it; up to the next event if that is near.
    fn step(&mut self, until: Tick) -> [RunEnd; 2] {
        let now = self.a.now();
        let event = self.a.board().next_event().unwrap_or(Tick(u64::MAX)).min(until);
        let near = event.0.saturating_sub(now.0) <= 2 * SLACK;
        let vcpu = &mut self.b.vcpus[0];
        if near || vcpu.state.activity != Activity::Running {
            return run_both(&mut self.a, &mut self.b, event.max(now.after(1)), None);
        }
        let hot = std::mem::replace(&mut vcpu.link.hot, 1);
        vcpu.link.slack = 0;
        let one = crate::run::RunLimits { until: Some(now.after(1)), ..crate::run::RunLimits::default() };
        let other = self.b.run_one(one);
        let vcpu = &mut self.b.vcpus[0];
        (vcpu.link.slack, vcpu.link.hot) = (SLACK, hot);
        let all = crate::run::RunLimits { until: Some(self.b.now()), ..one };
        [self.a.run_one(all), other]
    }
}

/// Where memory first differs, and what is there.
pub(crate) fn first_bytes(a: &Machine, b: &Machine) -> String {
    let mut pages = [[0; 4096]; 2];
    for (start, length) in a.map.ram_ranges() {
        for at in (start.0..start.0 + length).step_by(4096) {
            a.memory.read(GuestPhys(at), &mut pages[0]);
            b.memory.read(GuestPhys(at), &mut pages[1]);
            if let Some(n) = (0..4096).find(|&n| pages[0][n] != pages[1][n]) {
                let bytes = |page: &[u8; 4096]| format!("{:02x?}", &page[n..(n + 16).min(4096)]);
                return format!(
                    ", first at guest-physical {:x}: {} | {}",
                    at + n as u64,
                    bytes(&pages[0]),
                    bytes(&pages[1])
                );
            }
        }
    }
    " outside of RAM".to_owned()
}
