//! Instructions that move or change the system flags: CLI, STI, PUSHF, POPF, CLAC, STAC (SDM vol. 2; vol. 3, 21.3–21.4
//! for virtual-8086 extensions and protected-mode virtual interrupts).

use super::{Args, Flow, Helper};
use crate::check::Check;
use crate::fault::Fault;
use crate::state::control::cr4;
use crate::state::{InterruptShadow, flags};
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// CLI.
pub static CLI: Helper = Helper { name: "cli", run: cli };
/// STI.
pub static STI: Helper = Helper { name: "sti", run: sti };
/// PUSHF, PUSHFD, PUSHFQ by `width`.
pub static PUSHF: Helper = Helper { name: "pushf", run: pushf };
/// POPF, POPFD, POPFQ by `width`.
pub static POPF: Helper = Helper { name: "popf", run: popf };
/// CLAC.
pub static CLAC: Helper = Helper { name: "clac", run: |cpu, _| set_ac(cpu, 0) };
/// STAC.
pub static STAC: Helper = Helper { name: "stac", run: |cpu, _| set_ac(cpu, flags::AC) };

/// Which flag CLI and STI work on.
#[derive(Copy, Clone, PartialEq, Eq)]
enum InterruptFlag {
    Real,
    Virtual,
}

fn interrupt_flag(cpu: &Vcpu) -> Result<InterruptFlag, Fault> {
    let state = &cpu.state;
    if !state.protected() || state.cpl <= state.iopl() && !state.v86() || state.v86() && state.iopl() == 3 {
        return Ok(InterruptFlag::Real);
    }
    let virtualised = if state.v86() { state.control.cr4 & cr4::VME } else { state.control.cr4 & cr4::PVI };
    if virtualised != 0 && state.cpl == 3 { Ok(InterruptFlag::Virtual) } else { Err(Fault::gp(0).because(Check::Iopl)) }
}

fn cli(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    let flag = match interrupt_flag(cpu)? {
        InterruptFlag::Real => flags::IF,
        InterruptFlag::Virtual => flags::VIF,
    };
    cpu.set_flags(flag, 0);
    Ok(Flow::Next)
}

fn sti(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    match interrupt_flag(cpu)? {
        InterruptFlag::Real => {
            if cpu.state.rflags & flags::IF != 0 {
                return Ok(Flow::Next);
            }
            cpu.state.shadow = InterruptShadow::Sti;
            cpu.set_flags(flags::IF, flags::IF);
        }
        InterruptFlag::Virtual => {
            if cpu.state.rflags & flags::VIP != 0 {
                return Err(Fault::gp(0).because(Check::Iopl));
            }
            cpu.set_flags(flags::VIF, flags::VIF);
        }
    }
    Ok(Flow::Leave)
}

fn pushf(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let rflags = cpu.flags();
    let mut image = rflags & !(flags::VM | flags::RF);
    if cpu.state.v86() && cpu.state.iopl() < 3 {
        if cpu.state.control.cr4 & cr4::VME == 0 || args.width != Width::B2 {
            return Err(Fault::gp(0).because(Check::Iopl));
        }
        let interrupt = if rflags & flags::VIF != 0 { flags::IF } else { 0 };
        image = image & !flags::IF | interrupt | flags::IOPL;
    }
    cpu.push_width(args.width, image)?;
    Ok(Flow::Next)
}

fn popf(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let (v86, iopl, cpl) = (cpu.state.v86(), cpu.state.iopl(), cpu.state.cpl);
    let virtual_if = v86 && iopl < 3;
    if virtual_if && (cpu.state.control.cr4 & cr4::VME == 0 || args.width != Width::B2) {
        return Err(Fault::gp(0).because(Check::Iopl));
    }
    let mut image = cpu.stack_at_width(args.width, 0)?;
    let mut mask = flags::STATUS | flags::TF | flags::DF | flags::NT;
    if args.width != Width::B2 {
        // RF is cleared by POPF.
        mask |= flags::AC | flags::ID | flags::RF;
        image &= !flags::RF;
    }
    if virtual_if {
        let enables = image & flags::IF != 0;
        if image & flags::TF != 0 || enables && cpu.state.rflags & flags::VIP != 0 {
            return Err(Fault::gp(0).because(Check::Iopl));
        }
        mask |= flags::VIF;
        image = image & !flags::VIF | if enables { flags::VIF } else { 0 };
    } else {
        if !v86 && cpl == 0 {
            mask |= flags::IOPL;
        }
        // PVI does not virtualise POPF (SDM vol. 3, 21.4): IF keeps its value.
        if v86 || cpl <= iopl {
            mask |= flags::IF;
        }
    }
    cpu.release(args.width.bytes());
    let older = cpu.state.rflags;
    cpu.set_flags(mask, image);
    let changed = older ^ cpu.state.rflags;
    if changed & flags::AC != 0 {
        cpu.update_mode();
    }
    // Traps, interrupts that were waiting, alignment checks: the block ends. Else it goes on.
    Ok(if changed & (flags::TF | flags::IF | flags::AC) != 0 { Flow::Leave } else { Flow::Next })
}

fn set_ac(cpu: &mut Vcpu, value: u64) -> Result<Flow, Fault> {
    if cpu.state.cpl != 0 {
        return Err(Fault::ud());
    }
    cpu.set_flags(flags::AC, value);
    let older = cpu.link.mode;
    cpu.update_mode();
    Ok(if cpu.link.mode == older { Flow::Next } else { Flow::Leave })
}
