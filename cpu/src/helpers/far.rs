//! Far JMP, CALL and RET (SDM vol. 2 JMP, CALL, RET; vol. 3, 5.8): direct, through call gates, to tasks.
//!
//! Shadow stacks are left out. IRET is in `iret`, the task switch itself in `task`.

use super::descriptor::{Descriptor, is_null, rpl, selector_error, system};
use super::gate::{Gate, GateKind};
use super::privilege::StackCheck;
use super::segment_load::kind_or_privilege;
use super::stack_frame::{Frame, Stack, stack_view};
use super::task::{Switch, switch_task};
use super::{Args, Flow, Helper};
use crate::check::Check;
use crate::fault::Fault;
use crate::state::Seg;
use crate::state::slots::RSP;
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::fault::View;

/// Far JMP to the immediate pointer: `imm` is selector << 32 | offset.
pub static FAR_JUMP: Helper = Helper { name: "far_jump", run: |cpu, args| jump(cpu, immediate(args), args.width) };
/// Far CALL of the immediate pointer.
pub static FAR_CALL: Helper = Helper { name: "far_call", run: |cpu, args| call(cpu, immediate(args), args.width) };
/// Far JMP through a pointer in memory.
pub static FAR_JUMP_MEMORY: Helper = Helper {
    name: "far_jump_memory",
    run: |cpu, args| {
        let target = memory(cpu, args)?;
        jump(cpu, target, args.width)
    },
};
/// Far CALL through a pointer in memory.
pub static FAR_CALL_MEMORY: Helper = Helper {
    name: "far_call_memory",
    run: |cpu, args| {
        let target = memory(cpu, args)?;
        call(cpu, target, args.width)
    },
};
/// Far RET; `imm` is the number of parameter bytes to drop.
pub static FAR_RETURN: Helper = Helper { name: "far_return", run: far_return };

/// A logical address to transfer control to.
#[derive(Copy, Clone, Debug)]
struct FarPointer {
    selector: u16,
    offset: u64,
}

/// A validated call gate, with the code segment that it leads to.
struct CallGate {
    gate: Gate,
    code: Descriptor,
}

fn immediate(args: Args) -> FarPointer {
    FarPointer { selector: (args.imm >> 32) as u16, offset: args.imm & 0xffff_ffff & args.width.mask() }
}

fn memory(cpu: &mut Vcpu, args: Args) -> Result<FarPointer, Fault> {
    let (offset, selector) = cpu.load_far_pointer(args)?;
    Ok(FarPointer { selector, offset })
}

fn jump(cpu: &mut Vcpu, target: FarPointer, _width: Width) -> Result<Flow, Fault> {
    if cpu.state.paragraph_segments() {
        check_real_target(cpu, target.offset)?;
        cpu.set_real_segment(Seg::Cs, target.selector);
        cpu.state.rip = target.offset;
        cpu.update_mode();
        return Ok(Flow::Leave);
    }
    if is_null(target.selector) {
        return Err(Fault::gp(0).because(Check::Null));
    }
    let error = selector_error(target.selector);
    let descriptor = cpu.descriptor(target.selector)?.ok_or(Fault::gp(error).because(Check::BeyondTable))?;
    let cpl = cpu.state.cpl;
    if descriptor.is_segment() {
        let code = cpu.direct_code(target.selector, target.offset)?;
        cpu.enter_code(target.selector, code, cpl, target.offset);
        cpu.update_mode();
        return Ok(Flow::Leave);
    }
    if cpu.state.long_mode() && descriptor.kind() != system::CALL_GATE32 {
        return Err(Fault::gp(error).because(Check::Kind));
    }
    match descriptor.kind() {
        system::CALL_GATE16 | system::CALL_GATE32 => {
            let gate = call_gate(cpu, target.selector, descriptor)?;
            if !gate.code.is_conforming() && gate.code.dpl() != cpl {
                return Err(Fault::gp(selector_error(gate.gate.selector)).because(Check::Privilege));
            }
            gate.require_present()?;
            cpu.check_target(gate.code, gate.gate.offset, 0)?;
            let code = cpu.mark_accessed(gate.gate.selector, gate.code)?;
            cpu.enter_code(gate.gate.selector, code, cpl, gate.gate.offset);
            cpu.update_mode();
            Ok(Flow::Leave)
        }
        _ => to_task(cpu, target.selector, descriptor, Switch::Jump),
    }
}

/// In real-address and virtual-8086 mode: #GP(0) beyond the code segment's limit.
fn check_real_target(cpu: &Vcpu, offset: u64) -> Result<(), Fault> {
    let limit = if cpu.state.v86() { 0xffff } else { cpu.state.segment(Seg::Cs).limit };
    if offset > u64::from(limit) { Err(Fault::gp(0).because(Check::Limit(Seg::Cs))) } else { Ok(()) }
}

/// A transfer to a TSS descriptor or a task gate, or #GP(selector) if it is neither.
fn to_task(cpu: &mut Vcpu, selector: u16, descriptor: Descriptor, switch: Switch) -> Result<Flow, Fault> {
    let error = selector_error(selector);
    if descriptor.dpl() < cpu.state.cpl || descriptor.dpl() < rpl(selector) {
        let is_way = matches!(descriptor.kind(), system::TSS16 | system::TSS32 | system::TASK_GATE);
        return Err(Fault::gp(error).because(kind_or_privilege(is_way)));
    }
    let tss = match descriptor.kind() {
        system::TSS16 | system::TSS32 => selector,
        system::TASK_GATE => {
            if !descriptor.present() {
                return Err(Fault::np(error).because(Check::Present));
            }
            descriptor.gate_selector()
        }
        _ => return Err(Fault::gp(error).because(Check::Kind)),
    };
    switch_task(cpu, tss, switch)
}

impl CallGate {
    /// #NP unless the code segment is present: checked after its privilege.
    fn require_present(&self) -> Result<(), Fault> {
        if self.code.present() {
            return Ok(());
        }
        Err(Fault::np(selector_error(self.gate.selector)).because(Check::Present))
    }
}

/// The checks of a call gate and of the code segment behind it, but for its presence and those that differ between JMP and CALL.
fn call_gate(cpu: &mut Vcpu, selector: u16, gate: Descriptor) -> Result<CallGate, Fault> {
    let error = selector_error(selector);
    if gate.dpl() < cpu.state.cpl || gate.dpl() < rpl(selector) {
        return Err(Fault::gp(error).because(Check::Privilege));
    }
    let long = cpu.state.long_mode();
    let mut upper = 0;
    if long {
        upper = cpu.descriptor_upper(selector)?.ok_or(Fault::gp(error).because(Check::BeyondTable))?;
        if upper >> 40 & 0x1f != 0 {
            return Err(Fault::gp(error).because(Check::Reserved));
        }
    }
    let gate = Gate::of_call(gate, upper, long);
    if !gate.present {
        return Err(Fault::np(error).because(Check::Present));
    }
    let code = cpu.code_descriptor(gate.selector, 0)?;
    if code.dpl() > cpu.state.cpl || long && !code.long() {
        let check = if code.dpl() > cpu.state.cpl { Check::Privilege } else { Check::Reserved };
        return Err(Fault::gp(selector_error(gate.selector)).because(check));
    }
    Ok(CallGate { gate, code })
}

fn call(cpu: &mut Vcpu, target: FarPointer, width: Width) -> Result<Flow, Fault> {
    let cpl = cpu.state.cpl;
    if cpu.state.paragraph_segments() {
        check_real_target(cpu, target.offset)?;
        let rsp = push_return(cpu, width)?;
        cpu.state.set_gpr(RSP, rsp);
        cpu.set_real_segment(Seg::Cs, target.selector);
        cpu.state.rip = target.offset;
        cpu.update_mode();
        return Ok(Flow::Leave);
    }
    if is_null(target.selector) {
        return Err(Fault::gp(0).because(Check::Null));
    }
    let error = selector_error(target.selector);
    let descriptor = cpu.descriptor(target.selector)?.ok_or(Fault::gp(error).because(Check::BeyondTable))?;
    if descriptor.is_segment() {
        let code = cpu.direct_code(target.selector, target.offset)?;
        let rsp = push_return(cpu, width)?;
        cpu.state.set_gpr(RSP, rsp);
        cpu.enter_code(target.selector, code, cpl, target.offset);
        cpu.update_mode();
        return Ok(Flow::Leave);
    }
    if cpu.state.long_mode() && descriptor.kind() != system::CALL_GATE32 {
        return Err(Fault::gp(error).because(Check::Kind));
    }
    if !matches!(descriptor.kind(), system::CALL_GATE16 | system::CALL_GATE32) {
        return to_task(cpu, target.selector, descriptor, Switch::Call);
    }
    let gate = call_gate(cpu, target.selector, descriptor)?;
    gate.require_present()?;
    if !gate.code.is_conforming() && gate.code.dpl() < cpl {
        // The TSS and the inner stack are accessed with supervisor rights: through that view's TLB.
        cpu.link.mmu.set_view(View::Supervisor);
        return call_inner(cpu, &gate).inspect_err(|_| cpu.link.mmu.set_view(cpu.view()));
    }
    cpu.check_target(gate.code, gate.gate.offset, 0)?;
    let code = cpu.mark_accessed(gate.gate.selector, gate.code)?;
    let rsp = push_return(cpu, gate.gate.width)?;
    cpu.state.set_gpr(RSP, rsp);
    cpu.enter_code(gate.gate.selector, code, cpl, gate.gate.offset);
    cpu.update_mode();
    Ok(Flow::Leave)
}

/// Pushes CS and RIP on the current stack and gives the new RSP.
fn push_return(cpu: &mut Vcpu, width: Width) -> Result<u64, Fault> {
    let mut frame = Frame::on(Stack::current(cpu, 0), width);
    frame.push(u64::from(cpu.state.segment(Seg::Cs).selector))?;
    frame.push(cpu.state.rip)?;
    frame.commit(cpu)?;
    Ok(frame.stack.new_rsp(cpu.state.gpr(RSP)))
}

/// A call to an inner level: switches to the stack that the TSS names and copies the parameters.
fn call_inner(cpu: &mut Vcpu, gate: &CallGate) -> Result<Flow, Fault> {
    let level = gate.code.dpl();
    let older_ss = cpu.state.segment(Seg::Ss).selector;
    let older_sp = cpu.state.gpr(RSP);
    let (cs, rip) = (cpu.state.segment(Seg::Cs).selector, cpu.state.rip);
    if gate.gate.width == Width::B8 {
        let stack = Stack::flat(cpu.tss_rsp(level, 0)?, stack_view(level), 0);
        let mut frame = Frame::on(stack, Width::B8);
        for value in [u64::from(older_ss), older_sp, u64::from(cs), rip] {
            frame.push(value)?;
        }
        cpu.check_target(gate.code, gate.gate.offset, 0)?;
        let code = cpu.mark_accessed(gate.gate.selector, gate.code)?;
        frame.commit(cpu)?;
        cpu.set_null_ss(u16::from(level));
        cpu.state.set_gpr(RSP, frame.stack.sp);
        cpu.enter_code(gate.gate.selector, code, level, gate.gate.offset);
        cpu.update_mode();
        return Ok(Flow::Leave);
    }
    let (ss_selector, sp) = cpu.tss_stack(level, 0)?;
    let ss = cpu.stack_segment(ss_selector, level, StackCheck::FromTss, 0)?;
    let width = gate.gate.width;
    let stack = Stack::segmented(ss, sp, stack_view(level), selector_error(ss_selector));
    let mut frame = Frame::on(stack, width);
    let older = Stack::current(cpu, 0);
    frame.push(u64::from(older_ss))?;
    frame.push(older_sp)?;
    let GateKind::Call(parameters) = gate.gate.kind else { return Err(Fault::gp(0)) };
    for n in (0..u64::from(parameters)).rev() {
        let parameter = older.peek(cpu, width, n * width.bytes())?;
        frame.push(parameter)?;
    }
    frame.push(u64::from(cs))?;
    frame.push(rip)?;
    cpu.check_target(gate.code, gate.gate.offset, 0)?;
    let code = cpu.mark_accessed(gate.gate.selector, gate.code)?;
    frame.commit(cpu)?;
    cpu.state.seg[Seg::Ss as usize] = ss;
    let rsp = frame.stack.new_rsp(older_sp);
    cpu.state.set_gpr(RSP, rsp);
    cpu.enter_code(gate.gate.selector, code, level, gate.gate.offset);
    cpu.update_mode();
    Ok(Flow::Leave)
}

fn far_return(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let mut stack = Stack::current(cpu, 0);
    let width = args.width;
    let rip = stack.pop(cpu, width)?;
    let selector = stack.pop(cpu, width)? as u16;
    stack.release(args.imm);
    if cpu.state.paragraph_segments() {
        check_real_target(cpu, rip)?;
        let rsp = stack.new_rsp(cpu.state.gpr(RSP));
        cpu.state.set_gpr(RSP, rsp);
        cpu.set_real_segment(Seg::Cs, selector);
        cpu.state.rip = rip;
        cpu.update_mode();
        return Ok(Flow::Leave);
    }
    let code = cpu.return_code(selector)?;
    let level = rpl(selector);
    if level == cpu.state.cpl {
        cpu.check_target(code, rip, 0)?;
        let code = cpu.mark_accessed(selector, code)?;
        let rsp = stack.new_rsp(cpu.state.gpr(RSP));
        cpu.state.set_gpr(RSP, rsp);
        cpu.enter_code(selector, code, level, rip);
        cpu.update_mode();
        return Ok(Flow::Leave);
    }
    let sp = stack.pop(cpu, width)?;
    let ss = stack.pop(cpu, width)? as u16;
    cpu.return_outer(Outer { code, selector, rip, ss, sp, released: args.imm })?;
    Ok(Flow::Leave)
}

/// What a return to an outer level has popped.
pub(super) struct Outer {
    /// The checked code segment.
    pub code: Descriptor,
    /// Its selector.
    pub selector: u16,
    /// The new RIP.
    pub rip: u64,
    /// The new SS.
    pub ss: u16,
    /// The new stack pointer.
    pub sp: u64,
    /// Bytes to drop from the new stack as well.
    pub released: u64,
}

impl Vcpu {
    /// The checks of the code segment that a far return or IRET goes back to.
    pub(super) fn return_code(&mut self, selector: u16) -> Result<Descriptor, Fault> {
        let error = selector_error(selector);
        if is_null(selector) {
            return Err(Fault::gp(0).because(Check::Null));
        }
        let code = self.code_descriptor(selector, 0)?;
        let level = rpl(selector);
        let matching = if code.is_conforming() { code.dpl() <= level } else { code.dpl() == level };
        if level < self.state.cpl || !matching {
            return Err(Fault::gp(error).because(Check::Privilege));
        }
        if code.present() { Ok(code) } else { Err(Fault::np(error).because(Check::Present)) }
    }

    /// Completes a return to another stack: checks SS and RIP, then loads CS, SS, RSP and drops data segments.
    pub(super) fn return_outer(&mut self, to: Outer) -> Result<(), Fault> {
        let level = rpl(to.selector);
        let to_64bit = self.state.long_mode() && to.code.long();
        let ss = if is_null(to.ss) {
            if !to_64bit || level == 3 || rpl(to.ss) != level {
                return Err(Fault::gp(0).because(Check::Null));
            }
            None
        } else {
            Some(self.stack_segment(to.ss, level, StackCheck::Return, 0)?)
        };
        self.check_target(to.code, to.rip, 0)?;
        let code = self.mark_accessed(to.selector, to.code)?;
        let older = self.state.cpl;
        match ss {
            Some(segment) => self.state.seg[Seg::Ss as usize] = segment,
            None => self.set_null_ss(to.ss),
        }
        let rsp = match ss {
            _ if to_64bit => to.sp.wrapping_add(to.released),
            Some(segment) if !segment.big() => {
                self.state.gpr(RSP) & 0xffff_0000 | to.sp.wrapping_add(to.released) & 0xffff
            }
            _ => to.sp.wrapping_add(to.released) & 0xffff_ffff,
        };
        self.state.set_gpr(RSP, rsp);
        self.enter_code(to.selector, code, level, to.rip);
        if level != older {
            self.drop_inner_segments();
        }
        self.update_mode();
        Ok(())
    }
}
