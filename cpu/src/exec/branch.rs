//! Branches, calls and returns: the steps that end a block (SDM vol. 2: JMP, Jcc, CALL, RET, LOOP).

use super::alu::Binary;
use super::memory::{Address, fault, load_at, missed, source};
use super::stack::{pop, push};
use crate::cache::{Leave, Step};
use crate::check::Check;
use crate::fault::Fault;
use crate::memory::Int;
use crate::mode::ModeBits;
use crate::state::Seg;
use crate::state::flags::{self, Lazy, LazyOp};
use crate::state::slots::RCX;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;

/// Condition `cond` of the current flags (SDM vol. 1, appendix B).
#[inline(always)]
pub fn condition(cpu: &Vcpu, cond: u8) -> bool {
    let held = cpu.link.lazy;
    let positive = if held.op == LazyOp::None {
        let f = cpu.state.rflags;
        match cond >> 1 {
            0 => f & flags::OF != 0,
            1 => f & flags::CF != 0,
            2 => f & flags::ZF != 0,
            3 => f & (flags::CF | flags::ZF) != 0,
            4 => f & flags::SF != 0,
            5 => f & flags::PF != 0,
            6 => (f >> 4 ^ f) & flags::SF != 0,
            _ => f & flags::ZF != 0 || (f >> 4 ^ f) & flags::SF != 0,
        }
    } else {
        match cond >> 1 {
            0 => held.overflow(),
            1 => held.carry(),
            2 => held.zero(),
            3 => held.zero() || held.carry(),
            4 => held.sign(),
            5 => held.parity(),
            6 => held.sign() != held.overflow(),
            _ => held.zero() || held.sign() != held.overflow(),
        }
    };
    positive != (cond & 1 != 0)
}

/// The condition after a comparison of `a` with `b` (or a test, whose result is compared with zero).
#[inline(always)]
fn compared<T: Int, const COND: u8>(a: T, b: T, result: T) -> bool {
    let sign = result.widen_signed() < 0;
    let positive = match COND >> 1 {
        0 => (a.widen() ^ b.widen()) & (a.widen() ^ result.widen()) & (1 << (T::BITS - 1)) != 0,
        1 => a.widen() < b.widen(),
        2 => result.widen() == 0,
        3 => a.widen() <= b.widen(),
        4 => sign,
        5 => (result.widen() as u8).count_ones().is_multiple_of(2),
        6 => a.widen_signed() < b.widen_signed(),
        _ => a.widen_signed() <= b.widen_signed(),
    };
    positive != (COND & 1 != 0)
}

/// The same for TEST, whose CF and OF are zero.
#[inline(always)]
fn tested<T: Int, const COND: u8>(result: T) -> bool {
    let sign = result.widen_signed() < 0;
    let positive = match COND >> 1 {
        0 | 1 => false,
        2 | 3 => result.widen() == 0,
        4 | 6 => sign,
        5 => (result.widen() as u8).count_ones().is_multiple_of(2),
        _ => result.widen_signed() <= 0,
    };
    positive != (COND & 1 != 0)
}

#[inline(always)]
fn branch(cpu: &mut Vcpu, s: &Step, taken: bool) -> Leave {
    if taken {
        cpu.state.rip = s.imm as u64;
        Leave::Taken
    } else {
        cpu.state.rip = s.disp as u64;
        Leave::NotTaken
    }
}

pub fn jcc<const COND: u8>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let taken = condition(cpu, COND);
    branch(cpu, s, taken)
}

#[inline(always)]
fn hold<O: Binary, T: Int>(cpu: &mut Vcpu, result: T, source: T) {
    cpu.link.lazy = Lazy { result: result.widen(), source: source.widen(), op: O::LAZY, width_log2: T::LOG2 };
}

/// CMP of two slots, then Jcc. The condition is known when the step is made, so it is a constant here.
pub fn cmp_rr<T: Int, const COND: u8>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let (a, b) = (T::narrow(cpu.state.slots.get(s.dst)), T::narrow(cpu.state.slots.get(s.src)));
    let result = super::alu::Cmp::apply(a, b);
    hold::<super::alu::Cmp, T>(cpu, result, b);
    branch(cpu, s, compared::<T, COND>(a, b, result))
}

/// CMP of a slot with a 16-bit sign-extended immediate packed into (`base`, `index`), then Jcc.
pub fn cmp_ri<T: Int, const COND: u8>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let b = T::narrow(i16::from_le_bytes([s.base, s.index]) as i64 as u64);
    let a = T::narrow(cpu.state.slots.get(s.dst));
    let result = super::alu::Cmp::apply(a, b);
    hold::<super::alu::Cmp, T>(cpu, result, b);
    branch(cpu, s, compared::<T, COND>(a, b, result))
}

pub fn test_rr<T: Int, const COND: u8>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let (a, b) = (T::narrow(cpu.state.slots.get(s.dst)), T::narrow(cpu.state.slots.get(s.src)));
    let result = super::alu::Test::apply(a, b);
    hold::<super::alu::Test, T>(cpu, result, b);
    branch(cpu, s, tested::<T, COND>(result))
}

pub fn test_ri<T: Int, const COND: u8>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let b = T::narrow(i16::from_le_bytes([s.base, s.index]) as i64 as u64);
    let a = T::narrow(cpu.state.slots.get(s.dst));
    let result = super::alu::Test::apply(a, b);
    hold::<super::alu::Test, T>(cpu, result, b);
    branch(cpu, s, tested::<T, COND>(result))
}

pub fn jmp(cpu: &mut Vcpu, s: &Step) -> Leave {
    cpu.state.rip = s.imm as u64;
    Leave::Taken
}

/// Falls through to the next block.
pub fn end(cpu: &mut Vcpu, s: &Step) -> Leave {
    cpu.state.rip = s.imm as u64;
    Leave::NotTaken
}

/// #GP(0) unless `rip` lies within the code segment (canonical in 64-bit mode).
pub fn check_target(cpu: &Vcpu, rip: u64) -> Result<(), Fault> {
    let fine = if cpu.link.mode.has(ModeBits::L) {
        Linear(rip).is_canonical_48()
    } else {
        rip <= u64::from(cpu.state.segment(Seg::Cs).limit)
    };
    if fine { Ok(()) } else { Err(Fault::gp(0).because(Check::Target)) }
}

pub fn jmp_ind<T: Int, A: Address, const MEMORY: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let target = match source::<T, A, MEMORY>(cpu, s) {
        Some(target) => target.widen(),
        None => return missed::<A>(cpu, s, jmp_ind::<T, A::Slow, MEMORY>),
    };
    match check_target(cpu, target) {
        Ok(()) => cpu.state.rip = target,
        Err(f) => return fault(cpu, s, f),
    }
    Leave::Dynamic
}

pub fn call<T: Int, S: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    match push::<T, S, A>(cpu, s, T::narrow(s.disp as u64)) {
        Some(_) => {
            cpu.state.rip = s.imm as u64;
            Leave::Called
        }
        None => missed::<A>(cpu, s, call::<T, S, A::Slow>),
    }
}

/// The next RIP is in `imm`, since the memory operand needs `disp`.
pub fn call_ind<T: Int, S: Int, A: Address, const MEMORY: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let target = match source::<T, A, MEMORY>(cpu, s) {
        Some(target) => target.widen(),
        None => return missed::<A>(cpu, s, call_ind::<T, S, A::Slow, MEMORY>),
    };
    if let Err(f) = check_target(cpu, target) {
        return fault(cpu, s, f);
    }
    match push::<T, S, A>(cpu, s, T::narrow(s.imm as u64)) {
        Some(_) => {
            cpu.state.rip = target;
            Leave::CalledDynamic
        }
        None => missed::<A>(cpu, s, call_ind::<T, S, A::Slow, MEMORY>),
    }
}

pub fn ret<T: Int, S: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let sp = S::narrow(cpu.state.slots.get(crate::state::slots::RSP)).widen();
    let target = match load_at::<T, A>(cpu, s, sp) {
        Some(target) => target.widen(),
        None => return missed::<A>(cpu, s, ret::<T, S, A::Slow>),
    };
    if let Err(f) = check_target(cpu, target) {
        return fault(cpu, s, f);
    }
    match pop::<T, S, A>(cpu, s, s.imm as u64) {
        Some(_) => {
            cpu.state.rip = target;
            Leave::Returned
        }
        None => missed::<A>(cpu, s, ret::<T, S, A::Slow>),
    }
}

/// LOOPcc and JrCXZ: `T` is the address width.
pub fn loop_cx<T: Int>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let zero = cpu.flags() & flags::ZF != 0;
    let count = T::narrow(cpu.state.slots.get(RCX));
    let taken = if s.cond == 3 {
        count.widen() == 0
    } else {
        let left = T::narrow(count.widen().wrapping_sub(1));
        cpu.write_slot(RCX, left);
        left.widen() != 0
            && match s.cond {
                1 => zero,
                2 => !zero,
                _ => true,
            }
    };
    branch(cpu, s, taken)
}

pub fn raise(cpu: &mut Vcpu, s: &Step) -> Leave {
    let vector = s.imm as u8;
    let error_code = matches!(vector, 8 | 10..=14 | 17).then_some(0);
    fault(cpu, s, Fault { vector, check: Check::None, error_code, linear: Linear(0) })
}

/// An instruction that the model has and Umbra does not: remembered by name, then #UD.
pub fn unimplemented(cpu: &mut Vcpu, s: &Step) -> Leave {
    cpu.link.counters.unimplemented += 1;
    let rip = cpu.state.rip;
    cpu.link.unimplemented.entry(s.imm as u16).or_insert((rip, 0)).1 += 1;
    fault(cpu, s, Fault::ud())
}
