//! MOV to and from debug registers (SDM vol. 3, 18.2; vol. 2 MOV—Move to/from Debug Registers).
//!
//! Matching accesses against the breakpoints is the executor's.

use super::{Args, Flow, Helper};
use crate::check::Check;
use crate::fault::Fault;
use crate::state::control::cr4;
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// MOV DRn, r: `a` the debug register, `b` the source slot.
pub static MOV_TO_DEBUG: Helper = Helper { name: "mov_to_debug", run: mov_to_debug };
/// MOV r, DRn: `a` the destination slot, `b` the debug register.
pub static MOV_FROM_DEBUG: Helper = Helper { name: "mov_from_debug", run: mov_from_debug };

/// DR7.GD: the next access to a debug register faults.
pub const DR7_GD: u64 = 1 << 13;
/// DR6.BD: the fault was such an access.
pub const DR6_BD: u64 = 1 << 13;
/// DR6: bits that can be written, and those that always read as one.
const DR6_WRITABLE: u64 = 0xe00f;
const DR6_ONES: u64 = 0xffff_0ff0;
/// DR7: bits that can be written, and the one that always reads as one.
const DR7_WRITABLE: u64 = 0xffff_23ff;
const DR7_ONES: u64 = 0x400;

/// The checks of both directions; gives the register, with DR4 and DR5 standing for DR6 and DR7.
fn check(cpu: &mut Vcpu, number: u8) -> Result<usize, Fault> {
    let register = match number {
        4 | 5 if cpu.state.control.cr4 & cr4::DE != 0 => return Err(Fault::ud()),
        4 | 5 => number + 2,
        0..=7 => number,
        _ => return Err(Fault::ud()),
    };
    cpu.require_cpl0()?;
    if cpu.state.dr[7] & DR7_GD != 0 {
        cpu.state.dr[6] |= DR6_BD;
        return Err(Fault::db());
    }
    Ok(usize::from(register))
}

fn mov_to_debug(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let n = check(cpu, args.a)?;
    let value = cpu.state.slots.get(args.b) & args.width.mask();
    if n >= 6 && value >> 32 != 0 {
        return Err(Fault::gp(0).because(Check::Value));
    }
    cpu.state.dr[n] = match n {
        6 => value & DR6_WRITABLE | DR6_ONES,
        7 => value & DR7_WRITABLE | DR7_ONES,
        _ => value,
    };
    cpu.update_mode();
    Ok(Flow::Leave)
}

fn mov_from_debug(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let n = check(cpu, args.b)?;
    let value = cpu.state.dr[n];
    match args.width {
        Width::B8 => cpu.write_slot(args.a, value),
        _ => cpu.write_slot(args.a, value as u32),
    }
    Ok(Flow::Next)
}
