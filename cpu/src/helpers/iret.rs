//! IRET in every mode (SDM vol. 2 IRET): real, virtual-8086, to virtual-8086 mode, to the same or an outer level, task
//! return. Any IRET ends the blocking of NMIs, even one that faults (SDM vol. 3, 6.7.1).

use super::descriptor::{rpl, system};
use super::far::Outer;
use super::stack_frame::Stack;
use super::task::{Switch, switch_task};
use super::{Args, Flow, Helper, short_way};
use crate::check::Check;
use crate::fault::Fault;
use crate::state::control::cr4;
use crate::state::slots::RSP;
use crate::state::{Seg, flags};
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// IRET, IRETD, IRETQ by `width`.
pub static IRET: Helper = Helper { name: "iret", run: iret };

/// The flags that every form of IRET loads.
const ALWAYS: u64 = flags::STATUS | flags::TF | flags::DF | flags::NT;
/// The flags that the 32- and 64-bit forms load as well.
const WIDE: u64 = flags::RF | flags::AC | flags::ID;

fn iret(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.state.nmi_blocked = false;
    if !cpu.state.protected() {
        return real_mode(cpu, args.width);
    }
    if cpu.state.v86() {
        return v86_mode(cpu, args.width);
    }
    if cpu.state.rflags & flags::NT != 0 {
        return nested_task(cpu);
    }
    let mask = loaded_flags(cpu, args.width);
    if short_way::iret(cpu, args.width, mask) {
        return Ok(Flow::Leave);
    }
    protected_mode(cpu, args.width, mask)
}

/// The flags that an IRET in protected mode loads.
fn loaded_flags(cpu: &Vcpu, width: Width) -> u64 {
    let cpl = cpu.state.cpl;
    let mut mask = ALWAYS | if width == Width::B2 { 0 } else { WIDE };
    if cpl <= cpu.state.iopl() {
        mask |= flags::IF;
    }
    if cpl == 0 {
        mask |= flags::IOPL | if width == Width::B2 { 0 } else { flags::VIF | flags::VIP };
    }
    mask
}

/// The three items that every return pops.
struct Popped {
    stack: Stack,
    rip: u64,
    cs: u16,
    flags: u64,
}

fn pop_three(cpu: &mut Vcpu, width: Width) -> Result<Popped, Fault> {
    let mut stack = Stack::current(cpu, 0);
    let rip = stack.pop(cpu, width)?;
    let cs = stack.pop(cpu, width)? as u16;
    let flags = stack.pop(cpu, width)?;
    Ok(Popped { stack, rip, cs, flags })
}

fn return_real(cpu: &mut Vcpu, popped: &Popped, flags_mask: u64) -> Flow {
    let rsp = popped.stack.new_rsp(cpu.state.gpr(RSP));
    cpu.state.set_gpr(RSP, rsp);
    cpu.set_real_segment(Seg::Cs, popped.cs);
    cpu.state.rip = popped.rip;
    cpu.set_flags(flags_mask, popped.flags);
    cpu.update_mode();
    Flow::Leave
}

fn real_mode(cpu: &mut Vcpu, width: Width) -> Result<Flow, Fault> {
    let popped = pop_three(cpu, width)?;
    if popped.rip > u64::from(cpu.state.segment(Seg::Cs).limit) {
        return Err(Fault::gp(0).because(Check::Limit(Seg::Cs)));
    }
    let mask = ALWAYS | flags::IF | flags::IOPL | if width == Width::B2 { 0 } else { WIDE };
    Ok(return_real(cpu, &popped, mask))
}

fn v86_mode(cpu: &mut Vcpu, width: Width) -> Result<Flow, Fault> {
    let vme = cpu.state.control.cr4 & cr4::VME != 0;
    let iopl3 = cpu.state.iopl() == 3;
    if !iopl3 && (!vme || width != Width::B2) {
        return Err(Fault::gp(0).because(Check::Iopl));
    }
    let popped = pop_three(cpu, width)?;
    if popped.rip > 0xffff {
        return Err(Fault::gp(0).because(Check::Limit(Seg::Cs)));
    }
    if iopl3 {
        let mask = ALWAYS | flags::IF | if width == Width::B2 { 0 } else { WIDE };
        return Ok(return_real(cpu, &popped, mask));
    }
    let enables = popped.flags & flags::IF != 0;
    if popped.flags & flags::TF != 0 || enables && cpu.state.rflags & flags::VIP != 0 {
        return Err(Fault::gp(0).because(Check::Value));
    }
    let flow = return_real(cpu, &popped, ALWAYS);
    cpu.set_flags(flags::VIF, if enables { flags::VIF } else { 0 });
    Ok(flow)
}

fn nested_task(cpu: &mut Vcpu) -> Result<Flow, Fault> {
    if cpu.state.long_mode() {
        return Err(Fault::gp(0));
    }
    if !matches!(cpu.state.tr.kind(), system::TSS16 | system::TSS16_BUSY | system::TSS32 | system::TSS32_BUSY) {
        return Err(Fault::ts(super::descriptor::selector_error(cpu.state.tr.selector)).because(Check::Kind));
    }
    let link: u16 = cpu.load_system(cpu.table_address(cpu.state.tr.base, 0)?)?;
    switch_task(cpu, link, Switch::Iret)
}

fn protected_mode(cpu: &mut Vcpu, width: Width, mask: u64) -> Result<Flow, Fault> {
    let code64 = cpu.state.code64();
    let cpl = cpu.state.cpl;
    let mut popped = pop_three(cpu, width)?;
    if popped.flags & flags::VM != 0 && cpl == 0 && width == Width::B4 && !cpu.state.long_mode() {
        return to_v86(cpu, popped);
    }
    let code = cpu.return_code(popped.cs)?;
    if !code64 && rpl(popped.cs) == cpl {
        cpu.check_target(code, popped.rip, 0)?;
        let code = cpu.mark_accessed(popped.cs, code)?;
        let rsp = popped.stack.new_rsp(cpu.state.gpr(RSP));
        cpu.state.set_gpr(RSP, rsp);
        cpu.enter_code(popped.cs, code, cpl, popped.rip);
    } else {
        let sp = popped.stack.pop(cpu, width)?;
        let ss = popped.stack.pop(cpu, width)? as u16;
        cpu.return_outer(Outer { code, selector: popped.cs, rip: popped.rip, ss, sp, released: 0 })?;
    }
    cpu.set_flags(mask, popped.flags);
    cpu.update_mode();
    Ok(Flow::Leave)
}

fn to_v86(cpu: &mut Vcpu, mut popped: Popped) -> Result<Flow, Fault> {
    let mut items = [0; 6];
    for item in &mut items {
        *item = popped.stack.pop(cpu, Width::B4)?;
    }
    if popped.rip > 0xffff {
        return Err(Fault::gp(0).because(Check::Limit(Seg::Cs)));
    }
    let [esp, ss, es, ds, fs, gs] = items;
    let selectors =
        [(Seg::Cs, u64::from(popped.cs)), (Seg::Ss, ss), (Seg::Es, es), (Seg::Ds, ds), (Seg::Fs, fs), (Seg::Gs, gs)];
    for (seg, selector) in selectors {
        cpu.set_v86_segment(seg, selector as u16);
    }
    cpu.state.set_gpr(RSP, esp);
    cpu.state.rip = popped.rip;
    cpu.state.cpl = 3;
    cpu.set_flags(ALWAYS | WIDE | flags::IF | flags::IOPL | flags::VM | flags::VIF | flags::VIP, popped.flags);
    cpu.update_mode();
    Ok(Flow::Leave)
}
