//! One vCPU: the architectural state, then the links to memory, board and caches that are never saved.

use crate::bus::{Bus, Retired, TscLine};
use crate::cache::{BlockCache, BlockKey};
use crate::check::Check;
use crate::counters::CpuCounters;
use crate::debug::{self, BreakKind, Debugger, Trail, Watchpoint};
use crate::emit::{Frame, Jit};
use crate::exceptions::Exceptions;
use crate::exit::ExitCounts;
use crate::fault::Fault;
use crate::lift::block::Lifted;
use crate::mode::ModeBits;
use crate::model::CpuModel;
use crate::state::control::{cr0, cr4};
use crate::state::flags::{self, Lazy, LazyOp};
use crate::state::{Seg, State};
use crate::tables::MonitorTables;
use crate::uop::Uop;
use std::sync::Arc;
use umbra_mmu::addr::Linear;
use umbra_mmu::attention::Attention;
use umbra_mmu::fault::{Access, View};
use umbra_mmu::memory::GuestMemory;
use umbra_mmu::{PagingRegs, VcpuMmu};

/// What [`Link::hot`] is unless somebody wants every block emitted.
const HOT: u32 = 12;
/// What [`Link::longest_block`] is by itself.
pub const LONGEST_BLOCK: u8 = 64;

/// A virtual processor. Those of a machine lie side by side: neighbours must not share a cache line, nor the pair of lines that
/// a host fetches together (two interpreters were a third as fast as one).
#[repr(C, align(128))]
pub struct Vcpu {
    /// What the guest can see.
    pub state: State,
    /// Everything else.
    pub link: Link,
    /// What is known of the guest's descriptor tables. Emitted code never looks at it: what it does look at stays side by side.
    pub tables: MonitorTables,
    /// The exceptions met last.
    pub exceptions: Exceptions,
}

/// Is told of each block as it is lifted.
pub type OnLift = Box<dyn Fn(&BlockKey, &[Uop]) + Send>;

/// What connects a vCPU to the rest of the machine, and what can be recomputed from its state.
pub struct Link {
    /// Status flags held lazily; empty at every boundary that anyone else sees.
    pub lazy: Lazy,
    /// Translation: the monitor's root and TLBs for this vCPU.
    pub mmu: VcpuMmu,
    /// Guest memory (for code and debuggers; data goes through `mmu`).
    pub memory: GuestMemory,
    /// The board: [`Vcpu::ask_board`].
    bus: Box<dyn Bus>,
    /// What makes this vCPU stop and look.
    pub attention: Arc<Attention>,
    /// The mode bits of `state`.
    pub mode: ModeBits,
    /// The processor model: CPUID, and which instructions exist.
    pub model: Arc<CpuModel>,
    /// Lifted blocks.
    pub cache: BlockCache,
    /// What the last block was lifted to, for the next one's.
    pub lifted: Lifted,
    /// Emitted code, if the JIT is on.
    pub jit: Option<Box<Jit>>,
    /// Runs of a block by the interpreter before it is emitted.
    pub hot: u32,
    /// Emitted code is left when less than this is left of the budget: [`SLACK`](crate::emit::SLACK) usually. With 0 the first
    /// block runs whatever the budget: for those who look for the block in which the engines part.
    pub slack: u64,
    /// The most instructions that a block is made of.
    pub longest_block: u8,
    /// What emitted code reads and writes.
    pub frame: Frame,
    /// The time-stamp counter as emitted code may read it, since the board was last asked in this run.
    pub tsc_line: TscLine,
    /// A panic on its way through emitted code.
    pub panic: Option<Box<dyn std::any::Any + Send>>,
    /// The block must be left after the current instruction (a device was accessed, code was written).
    pub leave: bool,
    /// DR7 enables a breakpoint on data, or a debugger watches some.
    pub data_breakpoints: bool,
    /// The value that the executor's cold load left here.
    pub loaded: u64,
    /// The running block holds one instruction only, so that a device access may be made (see `memory`).
    pub alone: bool,
    /// The last instruction was a software interrupt: it clears TF, and no single-step trap follows it.
    pub suppress_trap: bool,
    /// The count of retired instructions at which `run` returns.
    pub end: u64,
    /// Index of the current instruction in its block: `state.retired + current` is the exact count.
    pub current: u8,
    /// The exception that made the executor leave its block.
    pub fault: Option<Fault>,
    /// The exceptions that led to a shutdown, oldest first (RIP, fault).
    pub fault_chain: Vec<(u64, Fault)>,
    /// Breakpoints and watchpoints of a debugger outside.
    pub debugger: Debugger,
    /// Instructions that Umbra does not have, by decoder code: RIP of the first block that met it, and how often.
    pub unimplemented: std::collections::BTreeMap<u16, (u64, u64)>,
    /// The blocks entered last, for the story of a crash.
    pub trail: Trail,
    /// Who wants to see each lifted block (`--dump uops`).
    pub on_lift: Option<OnLift>,
    /// Counters.
    pub counters: CpuCounters,
    /// Why [`Vcpu::run`] returned, how often, and what it cost.
    pub exits: ExitCounts,
}

impl Vcpu {
    /// A vCPU in its power-on state.
    pub fn new(model: Arc<CpuModel>, memory: &GuestMemory, bus: Box<dyn Bus>, attention: Arc<Attention>) -> Vcpu {
        let state = State::power_on(model.signature());
        let mode = ModeBits::of(&state);
        let mmu = memory.vcpu(attention.clone());
        let mut vcpu = Vcpu {
            state,
            link: Link {
                lazy: Lazy::NONE,
                mmu,
                memory: memory.clone(),
                bus,
                attention,
                mode,
                model,
                cache: BlockCache::default(),
                lifted: Lifted::default(),
                jit: None,
                hot: HOT,
                slack: crate::emit::SLACK,
                longest_block: LONGEST_BLOCK,
                frame: Frame::default(),
                tsc_line: TscLine::NONE,
                panic: None,
                leave: false,
                data_breakpoints: false,
                loaded: 0,
                alone: false,
                end: 0,
                suppress_trap: false,
                current: 0,
                fault: None,
                fault_chain: Vec::new(),
                debugger: Debugger::default(),
                unimplemented: std::collections::BTreeMap::new(),
                trail: Trail::default(),
                on_lift: None,
                counters: CpuCounters::default(),
                exits: ExitCounts::default(),
            },
            tables: MonitorTables::default(),
            exceptions: Exceptions::default(),
        };
        vcpu.update_paging();
        vcpu
    }

    /// Connects another board.
    pub fn connect(&mut self, bus: Box<dyn Bus>) {
        self.link.bus = bus;
    }

    /// Asks the board something. While this vCPU waited for the board it counted as parked, and others did not wait for it:
    /// what was dropped meanwhile is forgotten before memory is used again, be it in the same instruction.
    pub fn ask_board<T>(&mut self, ask: impl FnOnce(&mut dyn Bus, Retired) -> T) -> T {
        let now = self.now();
        let answer = ask(self.link.bus.as_mut(), now);
        self.link.mmu.drain();
        answer
    }

    /// Replaces the whole state (reset, restore, a test's set-up) and recomputes what follows from it.
    pub fn set_state(&mut self, state: State) {
        self.state = state;
        self.link.lazy = Lazy::NONE;
        self.link.leave = true;
        self.update_paging();
    }

    /// Tells the mmu that CR0, CR3, CR4, EFER or the PDPTE registers changed, then [`Self::update_mode`].
    pub fn update_paging(&mut self) {
        let c = &self.state.control;
        let regs = PagingRegs { cr0: c.cr0, cr3: c.cr3, cr4: c.cr4, efer: c.efer, pdptes: c.pdptes };
        self.link.mmu.set_paging(&regs);
        self.update_mode();
    }

    /// Recomputes the mode bits and the view: after a change of CPL, CS, SS, data segments, CR0, CR4, VM or AC.
    pub fn update_mode(&mut self) {
        self.link.mode = ModeBits::of(&self.state);
        self.link.mmu.set_view(self.view());
        if self.state.dr[7] & 0xff != 0 || self.link.data_breakpoints {
            self.update_breakpoints();
        }
    }

    /// Tells the mmu which pages hold breakpoints on data. Called by [`Self::update_mode`].
    fn update_breakpoints(&mut self) {
        let on_data = |b: &debug::Breakpoint| matches!(b.kind, BreakKind::Write | BreakKind::ReadWrite);
        let guests = debug::breakpoints(&self.state).filter(on_data).map(|b| Linear(b.linear));
        let mut pages = guests.chain(self.link.debugger.watched_pages()).peekable();
        self.link.data_breakpoints = pages.peek().is_some();
        if self.link.data_breakpoints {
            // A fetch is no access to data.
            self.link.cache.drop_patched();
        }
        self.link.mmu.set_slow_pages(pages);
    }

    /// Makes [`Self::run`] return after each instruction that accesses these bytes so.
    pub fn watch(&mut self, watchpoint: Watchpoint) {
        self.link.debugger.watch(watchpoint);
        self.update_breakpoints();
    }

    /// Takes a watchpoint away.
    pub fn unwatch(&mut self, watchpoint: Watchpoint) {
        self.link.debugger.unwatch(watchpoint);
        self.update_breakpoints();
    }

    /// Notes the breakpoints that a data access has hit: they trap, or stop, after the instruction.
    pub(crate) fn note_data_breakpoints(&mut self, linear: Linear, len: u64, access: Access) {
        if self.link.data_breakpoints {
            let hits = debug::breakpoints(&self.state).filter(|b| b.hit_by(linear, len, access));
            let bits = hits.fold(0, |bits, b| bits | 1 << b.number);
            self.state.pending_debug |= bits;
            self.link.debugger.note_access(linear, len, access);
        }
    }

    /// Whether an access of the present instruction has hit a breakpoint: a REP ends after its element.
    #[inline]
    pub(crate) fn trap_is_due(&self) -> bool {
        self.state.pending_debug != 0 || self.link.data_breakpoints && self.link.debugger.has_news()
    }

    /// Notes the guest's breakpoints on a port that an access has hit (SDM vol. 3, 18.2.4; with CR4.DE only).
    pub(crate) fn note_port_breakpoints(&mut self, port: u16, width: u64) {
        if self.state.dr[7] & 0xff != 0 && self.state.control.cr4 & cr4::DE != 0 {
            let hits = debug::breakpoints(&self.state).filter(|b| b.hit_by_port(port, width));
            self.state.pending_debug |= hits.fold(0, |bits, b| bits | 1 << b.number);
        }
    }

    /// With whose rights explicit data accesses are made now.
    pub fn view(&self) -> View {
        if self.state.cpl == 3 {
            View::User
        } else if self.state.rflags & flags::AC != 0 && self.state.control.cr4 & cr4::SMAP != 0 {
            View::SupervisorAc
        } else {
            View::Supervisor
        }
    }

    /// The exact count of instructions before the current one.
    pub fn now(&self) -> Retired {
        Retired(self.state.retired + u64::from(self.link.current))
    }

    /// RFLAGS with all status flags current.
    pub fn flags(&self) -> u64 {
        match self.link.lazy.op {
            LazyOp::None => self.state.rflags,
            _ => self.state.rflags & !flags::STATUS | self.link.lazy.status(),
        }
    }

    /// Makes `state.rflags` current.
    #[inline]
    pub fn materialise_flags(&mut self) {
        self.state.rflags = self.flags();
        self.link.lazy.op = LazyOp::None;
    }

    /// Sets the bits of RFLAGS in `mask` to those of `value`. The caller recomputes the mode if VM or AC changed.
    pub fn set_flags(&mut self, mask: u64, value: u64) {
        self.materialise_flags();
        self.state.rflags = self.state.rflags & !mask | value & mask;
    }

    /// CF now.
    #[inline]
    pub fn carry(&self) -> bool {
        match self.link.lazy.op {
            LazyOp::None => self.state.rflags & flags::CF != 0,
            _ => self.link.lazy.carry(),
        }
    }

    /// The linear address of RIP.
    pub fn linear_rip(&self) -> u64 {
        if self.state.code64() {
            self.state.rip
        } else {
            (self.state.segment(Seg::Cs).base.wrapping_add(self.state.rip)) as u32 as u64
        }
    }

    /// #GP(0) unless CPL is 0 (or real mode).
    pub fn require_cpl0(&self) -> Result<(), Fault> {
        if self.state.cpl == 0 { Ok(()) } else { Err(Fault::gp(0).because(Check::Level0)) }
    }

    /// Whether paging is on.
    pub fn paging(&self) -> bool {
        self.state.control.cr0 & cr0::PG != 0
    }
}
