//! The run loop of one vCPU: finds or lifts blocks, chains them, counts instructions, serves events at boundaries.

use crate::bus::TscLine;
use crate::cache::{Alone, BlockKey, BlockRef, Leave};
use crate::check::Check;
use crate::emit::Next;
use crate::exit::{Activity, Exit};
use crate::fault::Fault;
use crate::lift::block::lift_block;
use crate::mode::ModeBits;
use crate::state::{InterruptShadow, Seg, flags};
use crate::vcpu::Vcpu;
use umbra_mmu::addr::{Linear, PAGE_OFFSET, PAGE_SIZE};
use umbra_mmu::fault::{Access, View};

/// What `run_raw` met instead of an exit: an exception that was not delivered.
pub type RawFault = (u64, Fault);

impl Vcpu {
    /// Executes until `budget` more instructions are retired, or something else makes it return. Exceptions and interrupts
    /// are delivered to the guest; an exception counts as an instruction, so that a guest whose handler faults at its
    /// first instruction comes to the end of its budget too.
    pub fn run(&mut self, budget: u64) -> Exit {
        self.link.exits.entered();
        let exit = self.run_to_exit(self.state.retired.saturating_add(budget));
        self.link.exits.left(exit);
        exit
    }

    fn run_to_exit(&mut self, end: u64) -> Exit {
        loop {
            match self.run_raw(end) {
                Ok(exit) => return exit,
                Err((_, fault)) if fault.is_lost() => return Exit::Stopped,
                Err((_, fault)) => {
                    self.deliver(fault);
                    self.state.retired += 1;
                }
            }
            if self.state.activity == Activity::Shutdown {
                return Exit::Shutdown;
            }
        }
    }

    /// Executes for at most `budget` instructions and returns at the first exception without delivering it: for tests that
    /// look at exceptions themselves. RIP is that of the faulting instruction.
    pub fn run_until_fault(&mut self, budget: u64) -> Result<Exit, RawFault> {
        let end = self.state.retired.saturating_add(budget);
        self.run_raw(end)
    }

    fn run_raw(&mut self, end: u64) -> Result<Exit, RawFault> {
        self.link.end = end;
        self.link.tsc_line = TscLine::NONE;
        if self.link.debugger.take_stale() {
            self.link.cache.clear();
        }
        loop {
            // A boundary at which anything may have changed.
            if let Some(exit) = self.serve_events(end)? {
                return Ok(exit);
            }
            // After the events: delivering one asks to leave the block, but there is none yet.
            self.link.leave = false;
            let careful = self.must_step();
            let first =
                self.find_block(if careful { Alone::Yes } else { Alone::No }).map_err(|f| (self.state.rip, f))?;
            let left = if careful { self.run_alone(first, end) } else { self.run_chained(first, end) };
            match left {
                Ok(()) => {}
                Err(fault) if fault.is_alone() => {
                    // A device access inside a block: this instruction runs as a block of its own.
                    let block = self.find_block(Alone::Yes).map_err(|f| (self.state.rip, f))?;
                    self.run_alone(block, end).map_err(|f| (self.state.rip, f))?;
                }
                Err(fault) => return Err((self.state.rip, fault)),
            }
            self.link.cache.sweep();
        }
    }

    /// Whether the next instruction must run by itself: traps are on, an interrupt shadow is open, or a debugger looks.
    fn must_step(&self) -> bool {
        self.state.rflags & (flags::TF | flags::RF) != 0
            || self.state.shadow != InterruptShadow::None
            || self.state.dr[7] & 0xff != 0
    }

    /// Runs a block of one instruction, then what is due after it.
    fn run_alone(&mut self, block: BlockRef, end: u64) -> Result<(), Fault> {
        if self.state.retired >= end {
            return Ok(());
        }
        let shadow = std::mem::take(&mut self.state.shadow);
        let trap_flag = self.state.rflags & flags::TF != 0;
        let resume_flag = self.state.rflags & flags::RF;
        let (pending, retired) = (self.state.pending_debug, self.state.retired);
        self.state.rflags &= !flags::RF;
        self.link.suppress_trap = false;
        self.link.alone = true;
        let left = self.run_one(block);
        self.link.alone = false;
        match left {
            Ok(_) => {
                self.after_instruction(trap_flag && !self.link.suppress_trap);
                Ok(())
            }
            Err(fault) => {
                self.state.shadow = shadow;
                self.state.rflags |= resume_flag;
                if self.state.retired == retired {
                    // Its accesses are made again. (Elements of a REP that are done are done.)
                    self.state.pending_debug = pending;
                    self.link.debugger.forget_hit();
                }
                Err(fault)
            }
        }
    }

    /// Runs chained blocks until something other than a branch ends one, an event is due, or the budget does not cover the
    /// next block whole.
    fn run_chained(&mut self, first: BlockRef, end: u64) -> Result<(), Fault> {
        // Neither begins nor ends while blocks run.
        if self.link.jit.is_some() || self.link.debugger.active() {
            self.run_blocks::<false>(first, end)
        } else {
            self.run_blocks::<true>(first, end)
        }
    }

    /// `run_chained`; with `PLAIN` there is neither a JIT nor a debugger.
    #[inline(always)]
    fn run_blocks<const PLAIN: bool>(&mut self, first: BlockRef, end: u64) -> Result<(), Fault> {
        let mut block = first;
        let mut at_first = true;
        loop {
            let mut b = block.get();
            if !PLAIN && self.link.jit.is_some() && b.code.get() != 0 && !self.link.debugger.active() {
                match self.run_emitted(b, end)? {
                    Next::Leave => return Ok(()),
                    Next::Block(next) => {
                        block = next;
                        continue;
                    }
                    Next::Interpret => {}
                    Next::Instead(next) => {
                        block = next;
                        b = block.get();
                    }
                }
            }
            if !PLAIN && self.link.debugger.active() {
                // The first block's breakpoint was looked at by `serve_events`.
                if !std::mem::take(&mut at_first) && self.link.debugger.covers(b.key.linear) {
                    return Ok(());
                }
            } else if !PLAIN && self.link.jit.is_some() && self.warm(block) {
                continue;
            }
            if self.state.retired + b.insns() > end {
                return self.run_singly(end);
            }
            let leave = self.run_one(block)?;
            if self.is_wanted() {
                return Ok(());
            }
            block = match leave {
                Leave::Taken => self.successor(block, 0)?,
                Leave::NotTaken => self.successor(block, 1)?,
                Leave::Called => {
                    self.link.cache.call(block);
                    self.successor(block, 0)?
                }
                Leave::CalledDynamic => {
                    self.link.cache.call(block);
                    self.find_block(Alone::No)?
                }
                Leave::Returned => self.returned()?,
                Leave::Dynamic => self.find_block(Alone::No)?,
                Leave::Helper => match self.after_helper()? {
                    Some(next) => next,
                    None => return Ok(()),
                },
                Leave::Early | Leave::Fault => return Ok(()),
            };
        }
    }

    /// Instruction by instruction to the end of the budget, which the next block does not fit into. At least one each time:
    /// an interrupt that waits for IF keeps the attention word set.
    #[cold]
    fn run_singly(&mut self, end: u64) -> Result<(), Fault> {
        while self.state.retired < end {
            let one = self.find_block(Alone::Yes)?;
            let leave = self.run_one(one)?;
            let stop = self.link.debugger.active() && self.link.debugger.covers(self.linear_rip());
            if stop || leave == Leave::Helper || leave == Leave::Early || self.link.attention.get() != 0 {
                break;
            }
        }
        Ok(())
    }

    /// The block after `block`, left by its direct branch on one side.
    #[inline(always)]
    fn successor(&mut self, block: BlockRef, side: usize) -> Result<BlockRef, Fault> {
        match block.get().chain(side) {
            Some(next) if self.chain_valid(block.get().key.linear, next) => Ok(next),
            Some(_) => self.find_block(Alone::No),
            None => {
                let next = self.find_block(Alone::No)?;
                if next.get().second.is_none() {
                    self.link.cache.link(block, side, next);
                }
                Ok(next)
            }
        }
    }

    /// The block that a return led to: most likely the one after the last call.
    #[inline(always)]
    fn returned(&mut self) -> Result<BlockRef, Fault> {
        let Some(caller) = self.link.cache.take_call() else { return self.find_block(Alone::No) };
        let Some(next) = caller.get().chain(1) else {
            let next = self.find_block(Alone::No)?;
            if next.get().second.is_none() && caller.get().returns_to(next.get()) {
                self.link.cache.link(caller, 1, next);
            }
            return Ok(next);
        };
        let key = &next.get().key;
        let linear = self.linear_rip();
        let same = key.rip == self.state.rip && key.linear == linear && key.mode == self.link.mode;
        if same && self.link.mmu.fetch_page(linear) == Some(key.page) && self.fetchable(next)? {
            return Ok(next);
        }
        self.find_block(Alone::No)
    }

    /// After a block that a helper ended, when nothing waits for attention: the next block, or nothing if something is due
    /// before it.
    pub(crate) fn after_helper(&mut self) -> Result<Option<BlockRef>, Fault> {
        if !self.is_plain_boundary() {
            return Ok(None);
        }
        self.link.leave = false;
        let block = self.find_block(Alone::No)?;
        let shadowed = self.state.shadow != InterruptShadow::None;
        if shadowed && self.state.retired + block.get().insns() > self.link.end {
            // What is due at the end of the budget may be held back.
            return Ok(None);
        }
        // Nothing is due, so a shadow holds nothing back: it passes with the next instruction.
        self.state.shadow = InterruptShadow::None;
        Ok(Some(block))
    }

    /// Whether nothing is due at this boundary but the next block: no trap, breakpoint, virtual interrupt or other activity
    /// (`serve_events` looks at the same things). Attention is the caller's.
    pub(crate) fn is_plain_boundary(&self) -> bool {
        let state = &self.state;
        state.rflags & (flags::TF | flags::RF) == 0
            && state.rflags & (flags::VIF | flags::VIP) != flags::VIF | flags::VIP
            && state.pending_debug == 0
            && state.dr[7] & 0xff == 0
            && state.activity == Activity::Running
            && !self.link.debugger.active()
    }

    /// Within a linear page a chain is valid as long as no attention was served; across pages the fetch TLB must still map
    /// the target's page to the frame that the chained block was lifted from.
    #[inline(always)]
    fn chain_valid(&self, from: u64, next: BlockRef) -> bool {
        let to = &next.get().key;
        (from ^ to.linear) & !PAGE_OFFSET == 0 || self.link.mmu.fetch_page(to.linear) == Some(to.page)
    }

    /// Runs one block and accounts for it. On an exception RIP is that of its instruction, and what was completed before
    /// it in the block is retired.
    #[inline(always)]
    fn run_one(&mut self, block: BlockRef) -> Result<Leave, Fault> {
        let b = block.get();
        let entry = b.entry();
        b.prefetch_successors();
        self.link.trail.note(b.key.rip);
        let leave = (entry.run)(self, entry);
        match leave {
            Leave::Fault => return Err(self.faulted(block)),
            Leave::Early => {
                let done = self.link.current + 1;
                self.state.rip = b.rip_of(done);
                self.state.retired += u64::from(done);
            }
            Leave::Helper => self.state.retired += u64::from(self.link.current) + 1,
            _ => self.state.retired += b.insns(),
        }
        self.link.current = 0;
        Ok(leave)
    }

    #[cold]
    fn faulted(&mut self, block: BlockRef) -> Fault {
        let done = self.link.current;
        self.state.rip = block.get().rip_of(done);
        self.state.retired += u64::from(done);
        self.link.current = 0;
        self.materialise_flags();
        self.link.fault.take().unwrap_or(Fault::ud())
    }

    /// The block at RIP, lifted if need be.
    #[inline]
    pub(crate) fn find_block(&mut self, alone: Alone) -> Result<BlockRef, Fault> {
        let linear = self.linear_rip();
        let page = match self.link.mmu.fetch_page(linear) {
            Some(page) => page,
            None => self.fetch_slow(linear)?,
        };
        let key = BlockKey { page, linear, rip: self.state.rip, mode: self.link.mode, alone };
        if let Some(block) = self.link.cache.find(&key)
            && self.fetchable(block)?
        {
            return Ok(block);
        }
        self.link.counters.lookups += 1;
        lift_block(self, key)
    }

    #[cold]
    fn fetch_slow(&mut self, linear: u64) -> Result<umbra_mmu::addr::PhysPage, Fault> {
        if self.link.mode.has(ModeBits::L) && !Linear(linear).is_canonical_48() {
            return Err(Fault::gp(0).because(Check::Canonical));
        }
        let view = if self.state.cpl == 3 { View::User } else { View::Supervisor };
        Ok(self.link.mmu.resolve(Linear(linear), Access::Fetch, view)?.phys().page())
    }

    /// Whether a cached block may run: its second page is still what it was, and it lies within the code segment.
    #[inline(always)]
    fn fetchable(&mut self, block: BlockRef) -> Result<bool, Fault> {
        let b = block.get();
        if let Some(second) = b.second {
            let next = (b.key.linear & !PAGE_OFFSET).wrapping_add(PAGE_SIZE);
            let page = match self.link.mmu.fetch_page(next) {
                Some(page) => page,
                None => self.fetch_slow(next)?,
            };
            if page != second {
                return Ok(false);
            }
        }
        let mode = self.link.mode;
        Ok(mode.has(ModeBits::L) || b.key.rip + u64::from(b.len()) - 1 <= u64::from(self.state.segment(Seg::Cs).limit))
    }
}
