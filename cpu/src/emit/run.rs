//! The dispatcher's part of the JIT: when a block becomes code, how code is entered, what happens when it is left.
#![allow(unsafe_code, reason = "reads the table that emitted code reads, through the pointer that it has")]

use super::frame::{TANK, jump_index};
use super::gate::{self, Status};
use super::{Jit, Live, Place, SavedFlags, Variant, x87};
use crate::cache::{Alone, Block, BlockKey, BlockRef};
use crate::check::Check;
use crate::exec;
use crate::fault::Fault;
use crate::lift::block::{Lifted, MOST_BYTES, lift_bytes, optimise};
use crate::mode::ModeBits;
use crate::state::Seg;
use crate::uop::Uop;
use crate::vcpu::Vcpu;
use std::sync::Arc;
use std::time::Instant;
use umbra_mmu::addr::{PAGE_OFFSET, PAGE_SIZE, PhysPage};
use umbra_mmu::tlb::fetch_id;

/// Emitted code has half as many bytes again for each step of the interpreter, and more: there is room for blocks without code,
/// too.
const BYTES_A_STEP: usize = 16;

/// [`Block::heat`] of a block that cannot be emitted.
const NEVER: i32 = i32::MAX;

/// What the dispatcher does after emitted code was left.
#[derive(Copy, Clone, Debug)]
pub enum Next {
    /// Goes on with this block.
    Block(BlockRef),
    /// Looks at events.
    Leave,
    /// Nothing was done: the interpreter runs the block.
    Interpret,
    /// The interpreter runs this block: its exceptions are not masked, or its code was left before anything was done.
    Instead(BlockRef),
}

impl Vcpu {
    /// Switches the JIT on, or off (`None`).
    pub fn use_jit(&mut self, jit: Option<Box<Jit>>) {
        self.link.cache.clear();
        self.link.cache.take_dropped_code();
        self.link.jit = jit;
        if let Some(jit) = &mut self.link.jit {
            self.link.frame.jumps = jit.jump_tables();
            self.link.cache.hold(jit.bytes() / BYTES_A_STEP);
            self.link.frame.attention = Arc::as_ptr(&self.link.attention);
        }
    }

    /// Counts a run of a block by the interpreter; a hot block is emitted. True: it has just been.
    #[inline]
    pub(crate) fn warm(&mut self, block: BlockRef) -> bool {
        let heat = &block.get().heat;
        if heat.get() == NEVER {
            return false;
        }
        heat.set(heat.get() + 1);
        i64::from(heat.get()) >= i64::from(self.link.hot) << block.get().rewritten && self.heated(block)
    }

    #[cold]
    fn heated(&mut self, block: BlockRef) -> bool {
        let before = block.get().code.get();
        let emitted = self.unit(block, Variant::default()).is_some();
        if !emitted {
            block.get().heat.set(NEVER);
        }
        if emitted
            && let Some(jit) = &mut self.link.jit
            && let Some((place, key)) = jit.awaiting.take()
            && key == block.get().key
        {
            self.link_to(place, block);
        }
        emitted && block.get().code.get() != before
    }

    /// The unit of a block, made if need be. Not while emitted code is running.
    fn unit(&mut self, block: BlockRef, variant: Variant) -> Option<u32> {
        let b = block.get();
        let mut jit = self.link.jit.take()?;
        for key in self.link.cache.take_dropped_code() {
            jit.drop_block(&key);
        }
        let known = if b.code.get() == 0 { None } else { jit.find(&b.key, variant) };
        let unit = match known {
            Some(unit) => Some(unit),
            None => {
                // Not the thread's CPU time: asking for that takes a system call, as long as lifting an instruction.
                let started = Instant::now();
                let made = self.compile(&mut jit, b, variant);
                jit.counters.nanoseconds += started.elapsed().as_nanos() as u64;
                made
            }
        };
        if unit.is_some() {
            if variant == Variant::default() {
                b.code.set(u64::from(jit.epoch) << 32 | (u64::from(unit.unwrap_or(0)) + 1));
            } else if b.code.get() == 0 {
                // Remembered as having code, of an epoch that is never current.
                b.code.set(1);
            }
        }
        self.link.jit = Some(jit);
        unit
    }

    fn compile(&mut self, jit: &mut Jit, b: &Block, variant: Variant) -> Option<u32> {
        if b.key.alone == Alone::Yes || b.key.mode.has(ModeBits::ALIGN) {
            return None;
        }
        if jit.is_full() {
            self.link.cache.cool(&jit.make_room(), self.link.hot);
        }
        let key = b.key;
        let next_page = (key.linear & !PAGE_OFFSET).wrapping_add(PAGE_SIZE);
        let next_page = if key.mode.has(ModeBits::L) { next_page } else { next_page & 0xffff_ffff };
        let second = b.second.map(|page| (next_page, page));
        let recent = std::mem::take(&mut self.link.cache.recent);
        let unit = match b.uops(&recent) {
            Some(uops) => self.emit(jit, &key, variant, (uops, b.offsets()), second),
            None => {
                let mut lifted = std::mem::take(&mut self.link.lifted);
                let known = self.lift_again(b, &mut lifted);
                let unit = known.then(|| {
                    self.emit(jit, &key, variant, (lifted.uops.as_slice(), lifted.offsets.as_slice()), second)
                });
                self.link.lifted = lifted;
                unit.flatten()
            }
        };
        self.link.cache.recent = recent;
        unit
    }

    fn emit(
        &mut self,
        jit: &mut Jit,
        key: &BlockKey,
        variant: Variant,
        parts: (&[Uop], &[u16]),
        second: Option<(u64, PhysPage)>,
    ) -> Option<u32> {
        let cache = &mut self.link.cache;
        jit.compile(*key, variant, parts, second, &mut |uop| exec::step(uop, key.rip, cache))
    }

    /// Lifts a block whose uops are not there any more. False: it is another one now.
    fn lift_again(&mut self, b: &Block, lifted: &mut Lifted) -> bool {
        let offset = b.key.linear & PAGE_OFFSET;
        let mut bytes = [0; MOST_BYTES];
        let Some(bytes) = bytes.get_mut(..usize::from(b.len())) else { return false };
        let (first, rest) = bytes.split_at_mut(usize::from(b.len()).min((PAGE_SIZE - offset) as usize));
        self.link.mmu.read_phys(b.key.page, offset as u16, first);
        if let Some(page) = b.second {
            self.link.mmu.read_phys(page, 0, rest);
        }
        lifted.changing.clear();
        lifted.changing.extend_from_slice(&b.patched);
        lift_bytes(self, bytes, &b.key, lifted);
        optimise(&mut lifted.uops);
        lifted.offsets.len() as u64 == b.insns() + 1
    }

    /// Runs the code of a block, and of those it is chained to, until it is left.
    pub(crate) fn run_emitted(&mut self, b: &Block, end: u64) -> Result<Next, Fault> {
        let Some(jit) = &mut self.link.jit else { return Ok(Next::Interpret) };
        for key in self.link.cache.take_dropped_code() {
            jit.drop_block(&key);
        }
        for key in jit.take_stale() {
            if let Some(block) = self.link.cache.find(&key) {
                block.get().code.set(0);
            }
        }
        let code = b.code.get();
        let mut fuel = end.wrapping_sub(self.state.retired).wrapping_sub(self.link.slack) as i64;
        if self.link.slack == 0 && fuel > 0 {
            fuel = fuel.max(b.insns() as i64);
        }
        if (code >> 32) as u32 != jit.epoch || fuel < 0 {
            return Ok(Next::Interpret);
        }
        let (enter, Some(entry)) = (jit.enter(), jit.entry(code as u32 - 1)) else { return Ok(Next::Interpret) };
        if b.key.linear == b.key.rip {
            jit.know_jump(code as u32 - 1, Live::default());
        }
        self.link.trail.note(b.key.rip);
        self.materialise_flags();
        let frame = &mut self.link.frame;
        frame.image = SavedFlags::of(self.state.rflags);
        let before = self.state.retired;
        let tank = (fuel as u64).min(TANK);
        (frame.fuel, frame.reserve) = (tank as i64, fuel as u64 - tank);
        frame.base = self.state.retired.wrapping_add(tank);
        self.link.fault = None;
        let status = gate::run(enter, self, entry);
        if let Some(panic) = self.link.panic.take() {
            std::panic::resume_unwind(panic);
        }
        match self.left(status)? {
            // A second page that is not where the code expects it: nothing would ever move.
            Next::Block(block) if self.state.retired == before => Ok(Next::Instead(block)),
            next => Ok(next),
        }
    }

    /// Makes state and counts those of a boundary again.
    fn left(&mut self, status: Status) -> Result<Next, Fault> {
        let place = Place::of(self.link.frame.site);
        let Some(jit) = &mut self.link.jit else { return Ok(Next::Leave) };
        jit.counters.exits[status as usize & 15] += 1;
        let start = jit.start_site(place);
        let Some(site) = jit.kept_site(place).or(start.as_ref()) else { return Ok(Next::Leave) };
        let (flags, insn) = (site.flags, site.insn);
        let (rip, next_rip) = (jit.rip_of(place, site), jit.rip_at(site, site.next));
        x87::import(&mut self.state, &mut self.link.frame, jit.last_x87(site, jit.rare(site)));
        let retired = self.link.frame.retired(site);
        let step = matches!(status, Status::StepFault | Status::StepEarly | Status::StepEnd);
        if !step {
            flags.restore(self);
            self.state.retired = retired;
        }
        let current = std::mem::take(&mut self.link.current);
        match status {
            Status::Chain | Status::Stop | Status::Dynamic => {
                if status != Status::Dynamic {
                    self.state.rip = rip;
                }
                if self.is_wanted() {
                    return Ok(Next::Leave);
                }
                let block = self.find_block(Alone::No)?;
                match status {
                    Status::Chain => self.link_to(place, block),
                    Status::Dynamic => self.learn_jump(place, block),
                    _ => {}
                }
                Ok(Next::Block(block))
            }
            Status::Fault | Status::NotCanonical => {
                self.state.retired += u64::from(insn);
                self.state.rip = rip;
                let fault = if status == Status::Fault { Fault::de() } else { Fault::gp(0).because(Check::Canonical) };
                Err(self.link.fault.take().unwrap_or(fault))
            }
            Status::Early => {
                self.state.retired += u64::from(insn) + 1;
                self.state.rip = next_rip;
                Ok(Next::Leave)
            }
            Status::StepFault => {
                self.state.retired += u64::from(current);
                self.state.rip = rip;
                Err(self.link.fault.take().unwrap_or(Fault::ud()))
            }
            Status::StepEarly => {
                self.state.retired += u64::from(current) + 1;
                self.state.rip = next_rip;
                Ok(Next::Leave)
            }
            Status::StepEnd => {
                self.state.retired += u64::from(current) + 1;
                if self.is_wanted() {
                    return Ok(Next::Leave);
                }
                Ok(self.after_helper()?.map_or(Next::Leave, Next::Block))
            }
            Status::Unmasked => {
                self.state.rip = rip;
                Ok(Next::Instead(self.find_block(Alone::No)?))
            }
        }
    }

    /// The code at RIP, if the table of indirect jumps knows it and its page is still mapped where it was.
    pub(super) fn known_jump(&self) -> Option<u64> {
        let rip = self.state.rip;
        // SAFETY: the table has `jumps(0)` entries, belongs to this vCPU's JIT and is only touched by this thread.
        let entry = unsafe { &*self.link.frame.jumps[0].add(jump_index(rip, 0)) };
        let mode = self.link.mode;
        let flat = mode.has(ModeBits::L) || mode.flat(Seg::Cs);
        let known = entry.rip == rip && entry.mode == u64::from(mode.0) && flat;
        (known && self.link.mmu.fetch_page(rip).is_some_and(|page| fetch_id(rip, page) == entry.id))
            .then_some(entry.code)
    }

    /// After a jump that was not linked: links it, if its target is emitted.
    fn link_to(&mut self, place: Place, block: BlockRef) {
        let b = block.get();
        if b.code.get() == 0 {
            self.link.jit.iter_mut().for_each(|jit| jit.awaiting = Some((place, b.key)));
            return;
        }
        let epoch = |cpu: &Vcpu| cpu.link.jit.as_ref().map(|jit| jit.epoch);
        let before = epoch(self);
        let Some(jit) = &self.link.jit else { return };
        let variant = jit.wanted_variant(place, &b.key);
        let Some(unit) = self.unit(block, variant) else { return };
        // A flush in between took the place away.
        if before == epoch(self)
            && let Some(jit) = &mut self.link.jit
        {
            jit.link(place, unit, variant);
        }
    }

    /// After an indirect jump that was not known: the table knows it from now on.
    fn learn_jump(&mut self, place: Place, block: BlockRef) {
        let b = block.get();
        if b.code.get() == 0 || b.key.linear != b.key.rip {
            return;
        }
        let Some(jit) = &self.link.jit else { return };
        let Some(live) = jit.site(place).map(|site| site.live()) else { return };
        // Known, but its page was not in the fetch TLB.
        if jit.knows_jump(&b.key, live) {
            return;
        }
        if let Some(unit) = self.unit(block, Variant { live, recipe: None })
            && let Some(jit) = &mut self.link.jit
        {
            jit.know_jump(unit, live);
        }
    }
}
