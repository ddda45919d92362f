//! Decimal adjustment (SDM vol. 2: AAA, AAD, AAM, AAS, DAA, DAS) and SALC.
//!
//! Undefined flags have one value here, AMD's: OF is cleared by DAA and DAS, and by AAA and AAS, which also set SF, ZF and PF
//! from AL; AAM and AAD clear CF, OF and AF.

use super::{Args, Flow, Helper};
use crate::exec::sign_zero_parity;
use crate::fault::Fault;
use crate::state::flags;
use crate::state::slots::RAX;
use crate::vcpu::Vcpu;

/// DAA.
pub static DAA: Helper = Helper { name: "daa", run: |cpu, _| packed(cpu, Adjust::Add) };
/// DAS.
pub static DAS: Helper = Helper { name: "das", run: |cpu, _| packed(cpu, Adjust::Subtract) };
/// AAA.
pub static AAA: Helper = Helper { name: "aaa", run: |cpu, _| unpacked(cpu, Adjust::Add) };
/// AAS.
pub static AAS: Helper = Helper { name: "aas", run: |cpu, _| unpacked(cpu, Adjust::Subtract) };
/// AAM imm8.
pub static AAM: Helper = Helper { name: "aam", run: aam };
/// AAD imm8.
pub static AAD: Helper = Helper { name: "aad", run: aad };
/// SALC: AL = CF ? FFh : 0.
pub static SALC: Helper = Helper { name: "salc", run: salc };

#[derive(Copy, Clone, PartialEq, Eq)]
enum Adjust {
    Add,
    Subtract,
}

fn apply(al: u8, by: u8, adjust: Adjust) -> u8 {
    if adjust == Adjust::Add { al.wrapping_add(by) } else { al.wrapping_sub(by) }
}

fn put(cpu: &mut Vcpu, al: u8, carry: bool, adjust: bool) {
    cpu.write_slot(RAX, al);
    let bits = sign_zero_parity(al) | if carry { flags::CF } else { 0 } | if adjust { flags::AF } else { 0 };
    cpu.set_flags(flags::STATUS, bits);
}

fn packed(cpu: &mut Vcpu, adjust: Adjust) -> Result<Flow, Fault> {
    let old = cpu.state.slots.get(RAX) as u8;
    let f = cpu.flags();
    let (old_carry, old_adjust) = (f & flags::CF != 0, f & flags::AF != 0);
    let mut al = old;
    let low = old & 0xf > 9 || old_adjust;
    let mut carry = false;
    if low {
        al = apply(al, 6, adjust);
        carry = old_carry || adjust == Adjust::Subtract && old < 6;
    }
    if old > 0x99 || old_carry {
        al = apply(al, 0x60, adjust);
        carry = true;
    }
    put(cpu, al, carry, low);
    Ok(Flow::Next)
}

fn unpacked(cpu: &mut Vcpu, adjust: Adjust) -> Result<Flow, Fault> {
    let ax = cpu.state.slots.get(RAX) as u16;
    let low = ax & 0xf > 9 || cpu.flags() & flags::AF != 0;
    let mut result = ax;
    if low {
        result = if adjust == Adjust::Add { ax.wrapping_add(0x106) } else { ax.wrapping_sub(0x106) };
    }
    result &= 0xff0f;
    cpu.write_slot(RAX, result);
    put(cpu, result as u8, low, low);
    Ok(Flow::Next)
}

fn aam(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let (al, base) = (cpu.state.slots.get(RAX) as u8, args.imm as u8);
    let Some(high) = al.checked_div(base) else { return Err(Fault::de()) };
    let low = al % base;
    cpu.write_slot(RAX, u16::from(high) << 8 | u16::from(low));
    put(cpu, low, false, false);
    Ok(Flow::Next)
}

fn aad(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let ax = cpu.state.slots.get(RAX) as u16;
    let al = (ax as u8).wrapping_add(((ax >> 8) as u8).wrapping_mul(args.imm as u8));
    cpu.write_slot(RAX, u16::from(al));
    put(cpu, al, false, false);
    Ok(Flow::Next)
}

fn salc(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    let al = if cpu.carry() { 0xff_u8 } else { 0 };
    cpu.write_slot(RAX, al);
    Ok(Flow::Next)
}
