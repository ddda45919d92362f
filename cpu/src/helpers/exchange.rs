//! Exchanges that no uop covers (SDM vol. 2: CMPXCHG8B/16B, XCHG, XADD and CMPXCHG with AH and its like, BOUND).

use super::{Args, Flow, Helper, Rm};
use crate::check::Check;
use crate::fault::Fault;
use crate::state::flags;
use crate::state::slots::{RAX, RBX, RCX, RDX};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;
use umbra_mmu::fault::Access;

/// CMPXCHG8B m64.
pub static CMPXCHG8B: Helper = Helper { name: "cmpxchg8b", run: |cpu, args| wide(cpu, args, 8) };
/// CMPXCHG16B m128.
pub static CMPXCHG16B: Helper = Helper { name: "cmpxchg16b", run: |cpu, args| wide(cpu, args, 16) };
/// XCHG m8, AH/CH/DH/BH; `a` is the slot.
pub static XCHG_HIGH: Helper = Helper { name: "xchg_high", run: exchange_high };
/// XADD on bytes; `a` and a register `b` are slots, | 80h for the high byte.
pub static XADD_BYTE: Helper = Helper { name: "xadd_byte", run: |cpu, args| byte(cpu, args, Byte::Add) };
/// CMPXCHG on bytes, operands as for [`XADD_BYTE`].
pub static CMPXCHG_BYTE: Helper = Helper { name: "cmpxchg_byte", run: |cpu, args| byte(cpu, args, Byte::Compare) };
/// BOUND.
pub static BOUND: Helper = Helper { name: "bound", run: bound };

/// Always locked: harmless without the prefix.
fn locked(cpu: &mut Vcpu, args: Args, len: u64, update: &mut dyn FnMut(u128) -> u128) -> Result<u128, Fault> {
    let Rm::Memory(seg, offset) = args.rm(cpu) else { return Err(Fault::ud()) };
    let linear: Linear = cpu.linear(seg, offset, len, Access::Write)?;
    cpu.rmw_linear(linear, len as usize, update)
}

fn wide(cpu: &mut Vcpu, args: Args, len: u64) -> Result<Flow, Fault> {
    let half = if len == 16 { 64 } else { 32 };
    let slots = &cpu.state.slots;
    let pair = |high, low| {
        let mask = u128::from(u64::MAX >> (64 - half));
        (u128::from(slots.get(high)) & mask) << half | u128::from(slots.get(low)) & mask
    };
    let (expected, new) = (pair(RDX, RAX), pair(RCX, RBX));
    if len == 16
        && let Rm::Memory(seg, offset) = args.rm(cpu)
        && !cpu.linear(seg, offset, len, Access::Write)?.0.is_multiple_of(16)
    {
        return Err(Fault::gp(0).because(Check::Alignment));
    }
    let old = locked(cpu, args, len, &mut |old| if old == expected { new } else { old })?;
    if old == expected {
        cpu.set_flags(flags::ZF, flags::ZF);
    } else {
        cpu.set_flags(flags::ZF, 0);
        let (high, low) = ((old >> half) as u64, old as u64);
        if len == 16 {
            cpu.write_slot(RDX, high);
            cpu.write_slot(RAX, low);
        } else {
            cpu.write_slot(RDX, high as u32);
            cpu.write_slot(RAX, low as u32);
        }
    }
    Ok(Flow::Next)
}

fn exchange_high(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let value = cpu.state.slots.get(args.a) >> 8 & 0xff;
    let old = locked(cpu, args, 1, &mut |_| u128::from(value))?;
    put_byte(cpu, args.a | 0x80, old as u8);
    Ok(Flow::Next)
}

#[derive(Copy, Clone)]
enum Byte {
    Add,
    Compare,
}

/// A byte register: bit 7 of the number selects bits 15–8 of the slot.
fn get_byte(cpu: &Vcpu, register: u8) -> u8 {
    let whole = cpu.state.slots.get(register & 0x7f);
    (if register & 0x80 != 0 { whole >> 8 } else { whole }) as u8
}

fn put_byte(cpu: &mut Vcpu, register: u8, value: u8) {
    let slot = register & 0x7f;
    if register & 0x80 != 0 {
        let whole = cpu.state.slots.get(slot) & !0xff00 | u64::from(value) << 8;
        cpu.state.slots.set(slot, whole);
    } else {
        cpu.write_slot(slot, value);
    }
}

fn byte(cpu: &mut Vcpu, args: Args, kind: Byte) -> Result<Flow, Fault> {
    let source = get_byte(cpu, args.a);
    let accumulator = get_byte(cpu, RAX);
    let mut update = |old: u128| match kind {
        Byte::Add => u128::from((old as u8).wrapping_add(source)),
        Byte::Compare if old as u8 == accumulator => u128::from(source),
        Byte::Compare => old,
    };
    let old = if args.b == super::MEMORY { locked(cpu, args, 1, &mut update)? as u8 } else { get_byte(cpu, args.b) };
    match kind {
        Byte::Add => {
            let sum = old.wrapping_add(source);
            put_byte(cpu, args.a, old);
            if args.b != super::MEMORY {
                put_byte(cpu, args.b, sum);
            }
            // SUM − SOURCE = OLD: the flags of an addition.
            crate::exec::put_lazy_add(cpu, sum, source);
        }
        Byte::Compare => {
            crate::exec::put_lazy_compare(cpu, accumulator, old);
            if old != accumulator {
                put_byte(cpu, RAX, old);
            } else if args.b != super::MEMORY {
                put_byte(cpu, args.b, source);
            }
        }
    }
    Ok(Flow::Next)
}

fn bound(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let Rm::Memory(seg, offset) = args.rm(cpu) else { return Err(Fault::ud()) };
    let index = cpu.state.slots.get(args.a);
    let (index, low, high) = if args.width == Width::B2 {
        let both: u32 = cpu.load(seg, offset)?;
        (i64::from(index as i16), i64::from(both as i16), i64::from((both >> 16) as i16))
    } else {
        let both: u64 = cpu.load(seg, offset)?;
        (i64::from(index as i32), i64::from(both as i32), i64::from((both >> 32) as i32))
    };
    if index < low || index > high { Err(Fault::br()) } else { Ok(Flow::Next) }
}
