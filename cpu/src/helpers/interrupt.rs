//! Delivery of interrupts and exceptions (SDM vol. 3, chapter 6; vol. 2 INT n), in every mode, and the events that the
//! executor hands in between instructions: faults, external interrupts, NMI, INIT, SIPI.
//!
//! [`inject`] makes one attempt and answers `Err` with the exception that it met; nesting rules (double fault, triple
//! fault) are applied in [`deliver_fault`] alone. Virtual-8086 redirection is in `v86`.

use super::descriptor::{Descriptor, selector_error};
use super::gate::{Gate, GateKind};
use super::msr::number::APIC_BASE;
use super::privilege::{StackCheck, with_ext};
use super::stack_frame::{Frame, Stack, stack_view};
use super::task::{Switch, Switched, switch_to};
use super::{Args, Flow, Helper, short_way, v86};
use crate::check::Check;
use crate::exit::Activity;
use crate::fault::{Fault, vector};
use crate::state::slots::RSP;
use crate::state::{InterruptShadow, Seg, State, flags};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::fault::View;

/// INT n: `imm` is the vector.
pub static INT: Helper = Helper { name: "int", run: int };
/// INT3.
pub static INT3: Helper = Helper { name: "int3", run: |cpu, _| software(cpu, vector::BP, Class::SoftwareTrap) };
/// INTO.
pub static INTO: Helper = Helper { name: "into", run: into };
/// INT1 (ICEBP).
pub static INT1: Helper = Helper { name: "int1", run: |cpu, _| software(cpu, vector::DB, Class::Hardware) };

/// The EXT bit of an error code: the event was not caused by a software interrupt.
const EXT: u32 = 1;
/// The IDT bit of an error code: the selector part is a vector.
const IDT: u32 = 2;

/// IA32_APIC_BASE bit 8: the bootstrap processor.
const APIC_BASE_BSP: u64 = 1 << 8;

/// What kind of event is delivered: decides privilege checks, EXT and the pushed RF.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// INT n: gate privilege is checked.
    Software,
    /// INT3, INTO: gate privilege is checked, virtual-8086 mode does not redirect or refuse it.
    SoftwareTrap,
    /// External interrupts, NMI, INT1.
    Hardware,
    /// Exceptions.
    Exception,
}

/// One event to deliver. RIP is what shall be pushed.
#[derive(Copy, Clone, Debug)]
pub struct Event {
    /// The vector.
    pub vector: u8,
    /// Its kind.
    pub class: Class,
    /// The error code to push.
    pub error_code: Option<u32>,
}

impl Event {
    fn ext(self) -> u32 {
        match self.class {
            Class::Software | Class::SoftwareTrap => 0,
            Class::Hardware | Class::Exception => EXT,
        }
    }
    fn idt_error(self) -> u32 {
        u32::from(self.vector) << 3 | IDT | self.ext()
    }
    /// Faults push RF = 1, but #DB keeps it (SDM vol. 3, 18.3.1.1); traps and interrupts push it as it is.
    pub(super) fn pushed_flags(self, rflags: u64) -> u64 {
        match (self.class, self.vector) {
            (Class::Exception, vector::DB | vector::BP | vector::OF | vector::MC) => rflags,
            (Class::Exception, _) => rflags | flags::RF,
            _ => rflags,
        }
    }
}

/// How much worse an exception makes another (SDM vol. 3, table 6-4).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Severity {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

fn severity(vector: u8) -> Severity {
    match vector {
        vector::DE | vector::TS | vector::NP | vector::SS | vector::GP => Severity::Contributory,
        vector::PF => Severity::PageFault,
        vector::DF => Severity::DoubleFault,
        _ => Severity::Benign,
    }
}

/// Delivers an exception. RIP is at the faulting instruction (for #DB traps: at the next one). If that fails, delivers
/// what follows from it: a nested exception, a double fault, or the shutdown, which leaves the chain in `link.fault_chain`.
pub fn deliver_fault(cpu: &mut Vcpu, fault: Fault) {
    let alone = std::mem::replace(&mut cpu.link.alone, true);
    deliver_chain(cpu, fault);
    cpu.link.alone = alone;
}

fn deliver_chain(cpu: &mut Vcpu, fault: Fault) {
    cpu.link.fault_chain.clear();
    let mut current = fault;
    loop {
        cpu.link.fault_chain.push((cpu.state.rip, current));
        cpu.note_exception(current);
        if current.vector == vector::PF {
            cpu.state.control.cr2 = current.linear.0;
        }
        let event = Event { vector: current.vector, class: Class::Exception, error_code: current.error_code };
        let Err(next) = inject(cpu, event) else {
            cpu.link.fault_chain.clear();
            return;
        };
        current = match (severity(current.vector), severity(next.vector)) {
            (Severity::DoubleFault, _) => {
                cpu.link.fault_chain.push((cpu.state.rip, next));
                cpu.note_exception(next);
                cpu.state.activity = Activity::Shutdown;
                // Nothing is held back, resumed or goes on any more.
                cpu.state.rflags &= !flags::RF;
                cpu.state.shadow = InterruptShadow::None;
                cpu.state.compare = None;
                cpu.link.leave = true;
                return;
            }
            (Severity::Contributory, Severity::Contributory)
            | (Severity::PageFault, Severity::Contributory | Severity::PageFault) => {
                cpu.link.fault_chain.push((cpu.state.rip, next));
                cpu.note_exception(next);
                if next.vector == vector::PF {
                    cpu.state.control.cr2 = next.linear.0;
                }
                Fault { vector: vector::DF, check: Check::None, error_code: Some(0), linear: next.linear }
            }
            _ => next,
        };
    }
}

/// Delivers a debug trap: the bits in `causes` are added to DR6, then #DB is delivered at RIP.
pub fn deliver_debug(cpu: &mut Vcpu, causes: u64) {
    cpu.state.dr[6] |= causes;
    deliver_fault(cpu, Fault::db());
}

/// Delivers an external interrupt at an instruction boundary.
pub fn deliver_interrupt(cpu: &mut Vcpu, vector: u8) {
    cpu.state.activity = Activity::Running;
    hardware(cpu, vector);
}

/// Delivers an NMI: further ones stay latched until IRET.
pub fn deliver_nmi(cpu: &mut Vcpu) {
    cpu.state.activity = Activity::Running;
    cpu.state.nmi_blocked = true;
    hardware(cpu, vector::NMI);
}

fn hardware(cpu: &mut Vcpu, vector: u8) {
    // At a boundary, so a device access on the way is at its exact time.
    let alone = std::mem::replace(&mut cpu.link.alone, true);
    if let Err(fault) = inject(cpu, Event { vector, class: Class::Hardware, error_code: None }) {
        deliver_fault(cpu, fault);
    }
    cpu.link.alone = alone;
}

/// INIT (SDM vol. 3, table 9-1): as after power-on, but caches, FPU and vector registers, MSRs and CR0.CD/NW stay. The
/// bootstrap processor starts at the reset vector, the others wait for a start-up IPI.
pub fn init_reset(cpu: &mut Vcpu) {
    let bootstrap =
        cpu.ask_board(|bus, now| bus.msr_read(now, APIC_BASE)).map_or(true, |base| base & APIC_BASE_BSP != 0);
    let fresh = State::power_on(cpu.link.model.signature());
    let older = &cpu.state;
    let mut state = State {
        msr: older.msr.clone(),
        fpu: older.fpu.clone(),
        vectors: older.vectors.clone(),
        retired: older.retired,
        activity: if bootstrap { Activity::Running } else { Activity::WaitForSipi },
        ..fresh
    };
    state.control.cr0 = 0x10 | older.control.cr0 & 0x6000_0000;
    state.control.xcr0 = older.control.xcr0;
    cpu.set_state(state);
}

/// A start-up IPI: real mode at `vector` << 12. Ignored unless the processor waits for one.
pub fn startup(cpu: &mut Vcpu, vector: u8) {
    if cpu.state.activity != Activity::WaitForSipi {
        return;
    }
    let cs = &mut cpu.state.seg[Seg::Cs as usize];
    cs.selector = u16::from(vector) << 8;
    cs.base = u64::from(vector) << 12;
    cpu.state.rip = 0;
    cpu.state.activity = Activity::Running;
    cpu.update_mode();
}

fn int(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let vector = args.imm as u8;
    if cpu.state.v86() && v86::software_interrupt(cpu, vector)? == v86::Redirected::ToRealHandler {
        cpu.link.suppress_trap = true;
        return Ok(Flow::Leave);
    }
    software(cpu, vector, Class::Software)
}

fn into(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    if cpu.state.rflags & flags::OF == 0 {
        return Ok(Flow::Next);
    }
    software(cpu, vector::OF, Class::SoftwareTrap)
}

fn software(cpu: &mut Vcpu, vector: u8, class: Class) -> Result<Flow, Fault> {
    match attempt(cpu, Event { vector, class, error_code: None })? {
        Switched::Done => {}
        Switched::FaultInNewTask(fault) => deliver_fault(cpu, fault),
    }
    Ok(Flow::Leave)
}

/// One attempt to deliver an event. An error is the exception met on the way, with its EXT bit.
pub fn inject(cpu: &mut Vcpu, event: Event) -> Result<(), Fault> {
    match attempt(cpu, event)? {
        Switched::Done => Ok(()),
        Switched::FaultInNewTask(fault) => Err(fault),
    }
}

fn attempt(cpu: &mut Vcpu, event: Event) -> Result<Switched, Fault> {
    cpu.materialise_flags();
    // Tables and inner stacks are accessed with supervisor rights: through that view's TLB.
    cpu.link.mmu.set_view(View::Supervisor);
    let at_boundary = matches!(event.class, Class::Hardware | Class::Exception) && cpu.link.mmu.notes_writers();
    if at_boundary {
        cpu.link.mmu.set_storing(Some(cpu.state.rip));
    }
    let done = if !cpu.state.protected() {
        real_mode(cpu, event).map(|()| Switched::Done)
    } else if short_way::deliver(cpu, event) {
        Ok(Switched::Done)
    } else if cpu.state.long_mode() {
        long_mode(cpu, event).map(|()| Switched::Done)
    } else {
        protected_mode(cpu, event)
    };
    if at_boundary {
        cpu.link.mmu.set_storing(None);
    }
    let switched = done.map_err(|fault| {
        cpu.link.mmu.set_view(cpu.view());
        with_ext(fault, event.ext())
    })?;
    cpu.state.shadow = InterruptShadow::None;
    cpu.state.compare = None;
    cpu.link.suppress_trap = true;
    if event.vector == vector::DB && event.class != Class::Software {
        cpu.state.dr[7] &= !super::debug_regs::DR7_GD;
    }
    cpu.link.leave = true;
    cpu.update_mode();
    Ok(switched)
}

fn real_mode(cpu: &mut Vcpu, event: Event) -> Result<(), Fault> {
    let offset = u64::from(event.vector) * 4;
    if offset + 3 > u64::from(cpu.state.idtr.limit) {
        return Err(Fault::gp(event.idt_error()).because(Check::BeyondTable));
    }
    let at = cpu.table_address(cpu.state.idtr.base, offset)?;
    let target: u32 = cpu.load_system(at)?;
    let flags = event.pushed_flags(cpu.state.rflags);
    enter_real_handler(cpu, target, flags)?;
    cpu.state.rflags &= !(flags::IF | flags::TF | flags::AC | flags::RF);
    Ok(())
}

/// Pushes flags, CS and IP as real-address mode does and goes to `target` (segment << 16 | offset).
pub(super) fn enter_real_handler(cpu: &mut Vcpu, target: u32, flags: u64) -> Result<(), Fault> {
    let mut frame = Frame::on(Stack::current(cpu, 0), Width::B2);
    frame.push(flags)?;
    frame.push(u64::from(cpu.state.segment(Seg::Cs).selector))?;
    frame.push(cpu.state.rip)?;
    frame.commit(cpu)?;
    let rsp = frame.stack.new_rsp(cpu.state.gpr(RSP));
    cpu.state.set_gpr(RSP, rsp);
    cpu.set_real_segment(Seg::Cs, (target >> 16) as u16);
    cpu.state.rip = u64::from(target & 0xffff);
    Ok(())
}

/// A validated interrupt or trap gate and its code segment.
struct Handler {
    gate: Gate,
    code: Descriptor,
    level: u8,
}

/// The gate of an event, checked; `len` is the size of an IDT entry.
fn gate(cpu: &mut Vcpu, event: Event, len: u64) -> Result<Gate, Fault> {
    let error = event.idt_error();
    let offset = u64::from(event.vector) * len;
    if offset + len - 1 > u64::from(cpu.state.idtr.limit) {
        return Err(Fault::gp(error).because(Check::BeyondTable));
    }
    let at = cpu.table_address(cpu.state.idtr.base, offset)?;
    let gate = cpu.event_gate(event.vector, at, len)?.ok_or(Fault::gp(error).because(Check::Kind))?;
    if matches!(event.class, Class::Software | Class::SoftwareTrap) && gate.dpl < cpu.state.cpl {
        return Err(Fault::gp(error).because(Check::Privilege));
    }
    if gate.present { Ok(gate) } else { Err(Fault::np(error).because(Check::Present)) }
}

/// Checks the code segment of a gate.
fn handler(cpu: &mut Vcpu, gate: Gate, ext: u32) -> Result<Handler, Fault> {
    let error = selector_error(gate.selector) | ext;
    let code = cpu.code_descriptor(gate.selector, ext)?;
    if code.dpl() > cpu.state.cpl || cpu.state.long_mode() && !code.long() {
        let check = if code.dpl() > cpu.state.cpl { Check::Privilege } else { Check::Reserved };
        return Err(Fault::gp(error).because(check));
    }
    if !code.present() {
        return Err(Fault::np(error).because(Check::Present));
    }
    let level = if code.is_conforming() { cpu.state.cpl } else { code.dpl() };
    if cpu.state.v86() && level != 0 {
        return Err(Fault::gp(error).because(Check::Privilege));
    }
    Ok(Handler { gate, code, level })
}

fn long_mode(cpu: &mut Vcpu, event: Event) -> Result<(), Fault> {
    let ext = event.ext();
    let gate = gate(cpu, event, 16)?;
    let to = handler(cpu, gate, ext)?;
    let inner = to.level < cpu.state.cpl;
    let rsp = cpu.state.gpr(RSP);
    let sp = match to.gate.ist() {
        0 if inner => cpu.tss_rsp(to.level, ext)?,
        0 => rsp,
        ist => cpu.tss_ist(ist, ext)?,
    };
    let mut frame = Frame::on(Stack::flat(sp & !0xf, stack_view(to.level), ext), Width::B8);
    let flags = event.pushed_flags(cpu.state.rflags);
    let items = [
        u64::from(cpu.state.segment(Seg::Ss).selector),
        rsp,
        flags,
        u64::from(cpu.state.segment(Seg::Cs).selector),
        cpu.state.rip,
    ];
    for value in items {
        frame.push(value)?;
    }
    if let Some(code) = event.error_code {
        frame.push(u64::from(code))?;
    }
    cpu.check_target(to.code, to.gate.offset, ext)?;
    let code = cpu.mark_accessed(to.gate.selector, to.code)?;
    frame.commit(cpu)?;
    if inner {
        cpu.set_null_ss(u16::from(to.level));
    }
    cpu.state.set_gpr(RSP, frame.stack.sp);
    finish(cpu, &to, code);
    Ok(())
}

fn finish(cpu: &mut Vcpu, to: &Handler, code: Descriptor) {
    cpu.enter_code(to.gate.selector, code, to.level, to.gate.offset);
    cpu.state.rflags &= !(flags::TF | flags::NT | flags::RF | flags::VM | to.gate.clears());
}

fn protected_mode(cpu: &mut Vcpu, event: Event) -> Result<Switched, Fault> {
    let ext = event.ext();
    let gate = gate(cpu, event, 8)?;
    if gate.kind == GateKind::Task {
        let rf = event.pushed_flags(cpu.state.rflags);
        let older = std::mem::replace(&mut cpu.state.rflags, rf);
        let switched = switch_to(cpu, gate.selector, Switch::Event { error_code: event.error_code, ext });
        if switched.is_err() {
            cpu.state.rflags = older;
        }
        return switched;
    }
    let to = handler(cpu, gate, ext)?;
    let flags = event.pushed_flags(cpu.state.rflags);
    let (cs, rip) = (cpu.state.segment(Seg::Cs).selector, cpu.state.rip);
    let rsp = cpu.state.gpr(RSP);
    let v86 = cpu.state.v86();
    let inner = to.level < cpu.state.cpl;
    let (stack, ss) = if inner {
        let (selector, sp) = cpu.tss_stack(to.level, ext)?;
        let ss = cpu.stack_segment(selector, to.level, StackCheck::FromTss, ext)?;
        (Stack::segmented(ss, sp, stack_view(to.level), selector_error(selector) | ext), Some(ss))
    } else {
        let ss = *cpu.state.segment(Seg::Ss);
        (Stack::segmented(ss, rsp, stack_view(to.level), ext), None)
    };
    let mut frame = Frame::on(stack, to.gate.width);
    if v86 {
        for seg in [Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es] {
            frame.push(u64::from(cpu.state.segment(seg).selector))?;
        }
    }
    if inner {
        frame.push(u64::from(cpu.state.segment(Seg::Ss).selector))?;
        frame.push(rsp)?;
    }
    frame.push(flags)?;
    frame.push(u64::from(cs))?;
    frame.push(rip)?;
    if let Some(code) = event.error_code {
        frame.push(u64::from(code))?;
    }
    cpu.check_target(to.code, to.gate.offset, ext)?;
    let code = cpu.mark_accessed(to.gate.selector, to.code)?;
    frame.commit(cpu)?;
    if let Some(ss) = ss {
        cpu.state.seg[Seg::Ss as usize] = ss;
    }
    if v86 {
        for seg in [Seg::Gs, Seg::Fs, Seg::Ds, Seg::Es] {
            cpu.clear_segment(seg);
        }
    }
    let rsp = frame.stack.new_rsp(rsp);
    cpu.state.set_gpr(RSP, rsp);
    finish(cpu, &to, code);
    Ok(Switched::Done)
}
