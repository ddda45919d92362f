//! What happens between instructions (SDM vol. 3, 6.9 and table 6-2): debug traps, INIT, SIPI, NMI, interrupts, HLT.

use super::dispatch::RawFault;
use crate::cache::BlockKey;
use crate::debug::{self, BreakKind};
use crate::exit::{Activity, Exit};
use crate::fault::Fault;
use crate::helpers::interrupt;
use crate::state::control::cr4;
use crate::state::{InterruptShadow, flags};
use crate::vcpu::Vcpu;
use umbra_mmu::attention::bits;

/// DR6.BS: a single-step trap.
const DR6_BS: u64 = 1 << 14;

/// The most NMIs and interrupts at one boundary: no guest holds the host here, whatever its devices do.
const MOST_EVENTS: u32 = 1024;

/// A virtual interrupt that is enabled and pending: #GP(0) at the next instruction.
const VIRTUAL_PENDING: u64 = flags::VIF | flags::VIP;

impl Vcpu {
    /// Serves everything that is due at this boundary. `Some`: `run` returns.
    pub(super) fn serve_events(&mut self, end: u64) -> Result<Option<Exit>, RawFault> {
        if self.link.debugger.take_news() {
            return Ok(Some(Exit::Debug));
        }
        self.debug_trap()?;
        let attention = self.link.attention.get();
        if attention != 0 {
            if let Some(exit) = self.serve_attention(attention) {
                return Ok(Some(exit));
            }
            // An event's table and frame may be watched.
            self.debug_trap()?;
        }
        match self.state.activity {
            Activity::Running => {}
            Activity::Halted => return Ok(Some(Exit::Halted)),
            Activity::WaitForSipi => return Ok(Some(Exit::WaitForSipi)),
            Activity::Shutdown => return Ok(Some(Exit::Shutdown)),
        }
        if self.state.retired >= end {
            return Ok(Some(Exit::BudgetSpent));
        }
        let shadowed = self.state.shadow == InterruptShadow::MovSs;
        if self.state.dr[7] & 0xff != 0 && self.state.rflags & flags::RF == 0 && !shadowed {
            let linear = self.linear_rip();
            let hits = debug::breakpoints(&self.state).filter(|b| b.kind == BreakKind::Execute && b.linear == linear);
            let bits = hits.fold(0, |bits, b| bits | 1 << b.number);
            if bits != 0 {
                self.state.dr[6] |= bits;
                return Err((self.state.rip, Fault::db()));
            }
        }
        if self.state.rflags & VIRTUAL_PENDING == VIRTUAL_PENDING && self.virtual_interrupts() {
            return Err((self.state.rip, Fault::gp(0)));
        }
        if self.link.debugger.stops_at(self.linear_rip()) {
            return Ok(Some(Exit::Debug));
        }
        Ok(None)
    }

    /// #DB for the traps of the last instruction or event, if they are due.
    fn debug_trap(&mut self) -> Result<(), RawFault> {
        if self.state.pending_debug == 0 || self.state.shadow == InterruptShadow::MovSs {
            return Ok(());
        }
        self.state.dr[6] |= std::mem::take(&mut self.state.pending_debug);
        Err((self.state.rip, Fault::db()))
    }

    /// Whether VIF and VIP are in use: with VME in virtual-8086 mode, with PVI in ring 3, below IOPL 3 (SDM vol. 3, 21.3.2, 21.4).
    fn virtual_interrupts(&self) -> bool {
        let enable = if self.state.v86() { cr4::VME } else { cr4::PVI };
        self.state.cpl == 3 && self.state.control.cr4 & enable != 0 && self.state.rflags & flags::IOPL != flags::IOPL
    }

    #[cold]
    fn serve_attention(&mut self, attention: u32) -> Option<Exit> {
        self.heed_memory();
        if attention & bits::INIT != 0 {
            self.link.attention.clear(bits::INIT);
            interrupt::init_reset(self);
        }
        if attention & bits::SIPI != 0 {
            self.link.attention.clear(bits::SIPI);
            if self.state.activity == Activity::WaitForSipi {
                let vector = self.ask_board(|bus, _| bus.take_startup_vector());
                interrupt::startup(self, vector);
            }
        }
        // Also what comes with an event, as by a frame that is pushed to a device: before the handler's first instruction.
        let mut events = 0;
        while events < MOST_EVENTS && self.take_event() {
            events += 1;
        }
        if events > 0 {
            // What was pushed may have been code, the handler's among it.
            self.heed_memory();
        }
        (attention & bits::STOP != 0).then(|| {
            self.link.attention.clear(bits::STOP);
            Exit::Stopped
        })
    }

    /// Whether attention is for something that can be served now. An interrupt that waits for IF is not: a boot loader may run
    /// for seconds like that. Whatever sets IF looks at the whole word.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        let attention = self.link.attention.get();
        attention != 0 && (attention != bits::INTR || self.state.rflags & flags::IF != 0)
    }

    /// Forgets mappings that were dropped, and translated code and descriptors that were written.
    fn heed_memory(&mut self) {
        let attention = self.link.attention.get();
        if attention & bits::DRAIN != 0 {
            self.link.mmu.drain();
        }
        if attention & bits::TIDY != 0 {
            // That it came by is all: what was dropped is freed between blocks.
            self.link.attention.clear(bits::TIDY);
        }
        if attention & bits::CODE != 0 {
            self.link.attention.clear(bits::CODE);
            for write in self.link.mmu.take_code_writes() {
                let (mode, mmu) = (self.link.mode, &self.link.mmu);
                let current = |key: &BlockKey| key.mode == mode && mmu.fetch_page(key.linear) == Some(key.page);
                let blocks = self.link.cache.invalidate(&write, current);
                self.link.counters.dropped += blocks.dropped;
                self.link.counters.patched += blocks.left;
                if write.kept && blocks.left == 0 && self.link.cache.keeps(write.page) {
                    self.link.mmu.release_code(write.page, write.offset, write.len);
                }
                self.heed_descriptors(&write);
            }
            self.heed_crowding();
        }
    }

    /// Whether no event but INIT or SIPI is taken.
    fn waits(&self) -> bool {
        matches!(self.state.activity, Activity::WaitForSipi | Activity::Shutdown)
    }

    fn nmi_is_due(&self) -> bool {
        self.link.attention.get() & bits::NMI != 0
            && !self.waits()
            && !self.state.nmi_blocked
            && self.state.shadow != InterruptShadow::MovSs
    }

    /// Delivers an NMI or an external interrupt, if one is due.
    fn take_event(&mut self) -> bool {
        if self.nmi_is_due() {
            self.link.attention.clear(bits::NMI);
            self.wake();
            interrupt::deliver_nmi(self);
            return true;
        }
        if self.link.attention.get() & bits::INTR != 0
            && !self.waits()
            && self.state.rflags & flags::IF != 0
            && self.state.shadow == InterruptShadow::None
            && let Some(vector) = self.ask_board(|bus, now| bus.acknowledge_interrupt(now))
        {
            self.wake();
            self.link.counters.interrupts += 1;
            interrupt::deliver_interrupt(self, vector);
            return true;
        }
        false
    }

    fn wake(&mut self) {
        if self.state.activity == Activity::Halted {
            self.state.activity = Activity::Running;
        }
    }

    /// Delivers an exception to the guest. RIP is that of the faulting instruction.
    pub(super) fn deliver(&mut self, fault: Fault) {
        self.materialise_flags();
        if let Some(count) = self.link.counters.exceptions.get_mut(fault.vector as usize) {
            *count += 1;
        }
        interrupt::deliver_fault(self, fault);
    }

    /// After an instruction that ran alone: the single-step trap.
    pub(super) fn after_instruction(&mut self, trap_flag: bool) {
        if trap_flag {
            self.state.pending_debug |= DR6_BS;
        }
    }
}
