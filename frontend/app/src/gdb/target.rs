//! The machine as gdb's target: threads are vCPUs, memory is linear, steps and breakpoints are the processor's debugger's.
//!
//! Memory is read and written through the guest's own tables with a supervisor's eyes, past its write protection.
//! Watchpoints on data make only the pages slow that they lie in.

use super::registers::Layout;
use crate::console;
use crate::session::{Pause, Session};
use crate::summary::End;
use gdbstub::arch::{Arch, RegId, Registers};
use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadRangeStepping, MultiThreadRangeSteppingOps, MultiThreadResume, MultiThreadResumeOps,
    MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use umbra_machine::cpu::debug::{Debugger, WatchFor, Watchpoint};
use umbra_machine::cpu::exit::Activity;
use umbra_machine::cpu::{Exit, Vcpu};
use umbra_machine::mmu::Linear;

/// Our architecture: registers as our own table has them.
pub enum X86 {}

/// All registers as one packet has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketRegisters(Vec<u8>);

impl Registers for PacketRegisters {
    type ProgramCounter = u64;
    fn pc(&self) -> u64 {
        0
    }
    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.0.iter().for_each(|&byte| write_byte(Some(byte)));
    }
    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

/// A register's number in the layout.
#[derive(Copy, Clone, Debug)]
pub struct RegisterNumber(usize);

impl RegId for RegisterNumber {
    fn from_raw_id(id: usize) -> Option<(RegisterNumber, Option<NonZeroUsize>)> {
        Some((RegisterNumber(id), None))
    }
}

impl Arch for X86 {
    type Usize = u64;
    type Registers = PacketRegisters;
    type RegId = RegisterNumber;
    type BreakpointKind = usize;
}

/// What a vCPU does when gdb lets the machine go on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Resume {
    Continue,
    Step,
    /// Step while the instruction lies in this range.
    StepIn(u64, u64),
}

/// A machine under a debugger.
pub struct Debuggee<'s> {
    /// The machine.
    pub session: &'s mut Session,
    /// The registers.
    pub layout: Layout,
    /// How it ended, once it has.
    pub end: Option<End>,
    resume: BTreeMap<usize, Resume>,
    software: BTreeMap<u64, usize>,
    hardware: BTreeMap<u64, usize>,
    watchpoints: Vec<Watchpoint>,
    /// The crash was shown already: going on ends the run.
    crash_shown: bool,
}

/// Why the machine stopped.
pub type Reason = MultiThreadStopReason<u64>;

/// The thread of a vCPU: its number and one.
fn thread(vcpu: usize) -> Tid {
    Tid::new(vcpu + 1).unwrap_or(Tid::MIN)
}

fn trap(vcpu: usize, signal: Signal) -> Reason {
    Reason::SignalWithThread { tid: thread(vcpu), signal }
}

fn watched(vcpu: usize, hit: Watchpoint) -> Reason {
    let kind = match hit.sees {
        WatchFor::Writes => WatchKind::Write,
        WatchFor::Reads => WatchKind::Read,
        WatchFor::Both => WatchKind::ReadWrite,
    };
    Reason::Watch { tid: thread(vcpu), kind, addr: hit.linear }
}

impl<'s> Debuggee<'s> {
    /// A machine that stands still.
    pub fn new(session: &'s mut Session, layout: Layout) -> Debuggee<'s> {
        Debuggee {
            session,
            layout,
            end: None,
            resume: BTreeMap::new(),
            software: BTreeMap::new(),
            hardware: BTreeMap::new(),
            watchpoints: Vec::new(),
            crash_shown: false,
        }
    }

    fn vcpu(&mut self, tid: Tid) -> Result<&mut Vcpu, TargetError<&'static str>> {
        self.session.machine.vcpus_mut().get_mut(tid.get() - 1).ok_or(TargetError::NonFatal)
    }

    /// Forgets all breakpoints, after gdb has gone.
    pub fn forget(&mut self) {
        let places: Vec<u64> = self.software.keys().chain(self.hardware.keys()).copied().collect();
        for at in places {
            self.each_debugger(|vcpu| vcpu.link.debugger.remove(at));
        }
        self.software.clear();
        self.hardware.clear();
        for watchpoint in std::mem::take(&mut self.watchpoints) {
            self.each_debugger(|vcpu| vcpu.unwatch(watchpoint));
        }
    }

    fn each_debugger(&mut self, call: impl FnMut(&mut Vcpu)) {
        self.session.machine.vcpus_mut().iter_mut().for_each(call);
    }

    /// Lets the machine go on as gdb asked; gives why it stopped, `None` if only gdb has news.
    pub fn go(&mut self) -> Option<Reason> {
        let stepping = self.resume.iter().find(|(_, resume)| **resume != Resume::Continue);
        if let Some((&vcpu, &resume)) = stepping {
            return self.step(vcpu, resume);
        }
        let pause = self.session.advance();
        self.reason(pause)
    }

    fn reason(&mut self, pause: Pause) -> Option<Reason> {
        match pause {
            Pause::Gdb => None,
            Pause::Debug(vcpu) => {
                let stopped = self.session.machine.vcpus_mut().get_mut(vcpu)?;
                if let Some(hit) = stopped.link.debugger.take_hit() {
                    return Some(watched(vcpu, hit));
                }
                let at = stopped.linear_rip();
                Some(match (self.software.contains_key(&at), self.hardware.contains_key(&at)) {
                    (true, _) => Reason::SwBreak(thread(vcpu)),
                    (_, true) => Reason::HwBreak(thread(vcpu)),
                    _ => trap(vcpu, Signal::SIGTRAP),
                })
            }
            Pause::Over(End::Crashed(vcpu)) if !self.crash_shown => {
                self.crash_shown = true;
                Some(trap(vcpu, Signal::SIGSEGV))
            }
            Pause::Over(end) => {
                let status = end.status().0;
                self.end = Some(end);
                Some(Reason::Exited(status))
            }
        }
    }

    fn step(&mut self, number: usize, resume: Resume) -> Option<Reason> {
        loop {
            if let Some(end) = self.session.take_events(None) {
                return self.reason(Pause::Over(end));
            }
            if !self.session.gdb.bytes.is_empty() || self.session.gdb.gone {
                return None;
            }
            let vcpu = self.session.machine.vcpus_mut().get_mut(number)?;
            if vcpu.state.activity != Activity::Running {
                // Time must pass for it to wake; the others run meanwhile.
                if let Some(pause) = self.session.nudge() {
                    return self.reason(pause);
                }
                let awake = |vcpu: &Vcpu| vcpu.state.activity == Activity::Running;
                if !self.session.machine.vcpus().get(number).is_some_and(awake) {
                    continue;
                }
                return Some(trap(number, Signal::SIGTRAP));
            }
            let before = vcpu.state.retired;
            vcpu.link.mmu.unpark();
            let mut exit = vcpu.run(1);
            // A breakpoint here, or an old request to stop, may come first.
            for _ in 0..3 {
                if vcpu.state.retired != before || !matches!(exit, Exit::Debug | Exit::Stopped | Exit::BudgetSpent) {
                    break;
                }
                exit = vcpu.run(1);
            }
            vcpu.materialise_flags();
            vcpu.link.mmu.park();
            if exit == Exit::Shutdown {
                return self.reason(Pause::Over(End::Crashed(number)));
            }
            if let Some(hit) = vcpu.link.debugger.take_hit() {
                return Some(watched(number, hit));
            }
            let at = vcpu.linear_rip();
            match resume {
                Resume::StepIn(start, end) if (start..end).contains(&at) && !self.software.contains_key(&at) => {}
                _ => return Some(trap(number, Signal::SIGTRAP)),
            }
        }
    }
}

impl Target for Debuggee<'_> {
    type Arch = X86;
    type Error = &'static str;

    fn base_ops(&mut self) -> BaseOps<'_, X86, &'static str> {
        BaseOps::MultiThread(self)
    }
    fn guard_rail_implicit_sw_breakpoints(&self) -> bool {
        true
    }
    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
    fn support_target_description_xml_override(&mut self) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Debuggee<'_> {
    fn read_registers(&mut self, registers: &mut PacketRegisters, tid: Tid) -> TargetResult<(), Self> {
        let layout = self.layout.clone();
        registers.0 = layout.read_all(self.vcpu(tid)?);
        Ok(())
    }
    fn write_registers(&mut self, registers: &PacketRegisters, tid: Tid) -> TargetResult<(), Self> {
        let layout = self.layout.clone();
        layout.write_all(self.vcpu(tid)?, &registers.0);
        Ok(())
    }
    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }
    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let found = crate::inspect::peek(self.vcpu(tid)?, start, data.len());
        match (data.get_mut(..found.len()), found.len()) {
            (_, 0) | (None, _) => Err(TargetError::NonFatal),
            (Some(part), length) => {
                part.copy_from_slice(&found);
                Ok(length)
            }
        }
    }
    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let memory = self.session.machine.memory().clone();
        let vcpu = self.vcpu(tid)?;
        let mut rest = data;
        let mut here = start;
        while !rest.is_empty() {
            let (part, after) = rest.split_at((4096 - (here as usize & 4095)).min(rest.len()));
            let phys = vcpu.link.mmu.explain(Linear(here)).guest.map_err(|_| TargetError::NonFatal)?;
            memory.write(phys, part);
            here = here.wrapping_add(part.len() as u64);
            rest = after;
        }
        Ok(())
    }
    fn list_active_threads(&mut self, report: &mut dyn FnMut(Tid)) -> Result<(), &'static str> {
        (0..self.session.machine.vcpus().len()).for_each(|vcpu| report(thread(vcpu)));
        Ok(())
    }
    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Debuggee<'_> {
    fn read_register(&mut self, tid: Tid, id: RegisterNumber, buf: &mut [u8]) -> TargetResult<usize, Self> {
        let row = self.layout.row(id.0).cloned().ok_or(TargetError::NonFatal)?;
        let bytes = row.bytes(self.vcpu(tid)?);
        let length = row.bits as usize / 8;
        buf.get_mut(..length).ok_or(TargetError::NonFatal)?.copy_from_slice(&bytes[..length]);
        Ok(length)
    }
    fn write_register(&mut self, tid: Tid, id: RegisterNumber, value: &[u8]) -> TargetResult<(), Self> {
        let row = self.layout.row(id.0).cloned().ok_or(TargetError::NonFatal)?;
        row.set(self.vcpu(tid)?, value);
        Ok(())
    }
}

impl MultiThreadResume for Debuggee<'_> {
    fn resume(&mut self) -> Result<(), &'static str> {
        tracing::debug!(target: "gdb", "goes on: {:?}", self.resume);
        Ok(())
    }
    fn clear_resume_actions(&mut self) -> Result<(), &'static str> {
        self.resume.clear();
        Ok(())
    }
    fn set_resume_action_continue(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), &'static str> {
        self.resume.insert(tid.get() - 1, Resume::Continue);
        Ok(())
    }
    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
    fn support_range_step(&mut self) -> Option<MultiThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }
    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSchedulerLocking for Debuggee<'_> {
    /// Only the vCPU that steps moves, locked or not; to go on, all go on.
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), &'static str> {
        Ok(())
    }
}

impl MultiThreadSingleStep for Debuggee<'_> {
    fn set_resume_action_step(&mut self, tid: Tid, _: Option<Signal>) -> Result<(), &'static str> {
        self.resume.insert(tid.get() - 1, Resume::Step);
        Ok(())
    }
}

impl MultiThreadRangeStepping for Debuggee<'_> {
    fn set_resume_action_range_step(&mut self, tid: Tid, start: u64, end: u64) -> Result<(), &'static str> {
        self.resume.insert(tid.get() - 1, Resume::StepIn(start, end));
        Ok(())
    }
}

impl Breakpoints for Debuggee<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Debuggee<'_> {
    fn add_sw_breakpoint(&mut self, at: u64, kind: usize) -> TargetResult<bool, Self> {
        self.software.insert(at, kind);
        self.each_debugger(|vcpu| vcpu.link.debugger.insert(at));
        Ok(true)
    }
    fn remove_sw_breakpoint(&mut self, at: u64, _: usize) -> TargetResult<bool, Self> {
        let known = self.software.remove(&at).is_some();
        if !self.hardware.contains_key(&at) {
            self.each_debugger(|vcpu| vcpu.link.debugger.remove(at));
        }
        Ok(known)
    }
}

impl HwBreakpoint for Debuggee<'_> {
    fn add_hw_breakpoint(&mut self, at: u64, kind: usize) -> TargetResult<bool, Self> {
        self.hardware.insert(at, kind);
        self.each_debugger(|vcpu| vcpu.link.debugger.insert(at));
        Ok(true)
    }
    fn remove_hw_breakpoint(&mut self, at: u64, _: usize) -> TargetResult<bool, Self> {
        let known = self.hardware.remove(&at).is_some();
        if !self.software.contains_key(&at) {
            self.each_debugger(|vcpu| vcpu.link.debugger.remove(at));
        }
        Ok(known)
    }
}

fn watchpoint(linear: u64, len: u64, kind: WatchKind) -> Watchpoint {
    let sees = match kind {
        WatchKind::Write => WatchFor::Writes,
        WatchKind::Read => WatchFor::Reads,
        WatchKind::ReadWrite => WatchFor::Both,
    };
    Watchpoint { linear, len, sees }
}

impl HwWatchpoint for Debuggee<'_> {
    fn add_hw_watchpoint(&mut self, at: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        if len > (Debugger::MOST_PAGES as u64 - 1) * 4096 {
            return Ok(false);
        }
        let watchpoint = watchpoint(at, len, kind);
        self.watchpoints.push(watchpoint);
        self.each_debugger(|vcpu| vcpu.watch(watchpoint));
        Ok(true)
    }
    fn remove_hw_watchpoint(&mut self, at: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let watchpoint = watchpoint(at, len, kind);
        let Some(place) = self.watchpoints.iter().position(|known| *known == watchpoint) else { return Ok(false) };
        self.watchpoints.remove(place);
        self.each_debugger(|vcpu| vcpu.unwatch(watchpoint));
        Ok(true)
    }
}

impl MonitorCmd for Debuggee<'_> {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), &'static str> {
        let line = String::from_utf8_lossy(command).into_owned();
        let (text, _) = console::execute(self.session, &line);
        // The console's own pause would hold what gdb lets go on.
        self.session.paused = false;
        out.write_raw(text.as_bytes());
        Ok(())
    }
}

impl TargetDescriptionXmlOverride for Debuggee<'_> {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if annex != b"target.xml" {
            return Err(TargetError::NonFatal);
        }
        let text = self.layout.target_xml();
        let rest = text.as_bytes().get(offset as usize..).unwrap_or(&[]);
        let count = rest.len().min(length).min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}
