//! Moves, extensions, conditional moves, exchanges and flag bits (SDM vol. 2: MOV, MOVZX, LEA, CMOVcc, SETcc, XCHG, …).

use super::branch::condition;
use super::memory::{Address, Flat64, load, locked, missed, next_after, rmw, store_at};
use super::next;
use crate::cache::{Leave, Step};
use crate::memory::Int;
use crate::mode::ModeBits;
use crate::state::Seg;
use crate::state::flags::{self, LazyOp};
use crate::state::slots::RAX;
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;
use umbra_mmu::fault::Access;

pub fn mov_rr<T: Int>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let value = T::narrow(cpu.state.slots.get(s.src));
    cpu.write_slot(s.dst, value);
    next(cpu, s)
}

pub fn mov_ri<T: Int>(cpu: &mut Vcpu, s: &Step) -> Leave {
    cpu.write_slot(s.dst, T::narrow(s.imm as u64));
    next(cpu, s)
}

pub fn mov_rm<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    match load::<T, A>(cpu, s) {
        Some(value) => cpu.write_slot(s.dst, value),
        None => return missed::<A>(cpu, s, mov_rm::<T, A::Slow>),
    }
    next(cpu, s)
}

pub fn mov_mr<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let value = T::narrow(cpu.state.slots.get(s.src));
    let linear = A::linear(cpu, s);
    match store_at::<_, A>(cpu, s, linear, value) {
        Some(()) => next_after::<A>(cpu, s),
        None => missed::<A>(cpu, s, mov_mr::<T, A::Slow>),
    }
}

pub fn mov_mi<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let linear = A::linear(cpu, s);
    match store_at::<_, A>(cpu, s, linear, T::narrow(s.imm as u64)) {
        Some(()) => next_after::<A>(cpu, s),
        None => missed::<A>(cpu, s, mov_mi::<T, A::Slow>),
    }
}

/// From `F` to `T` with zero (`SIGNED` false) or sign extension.
#[inline(always)]
fn extend<F: Int, T: Int, const SIGNED: bool>(value: F) -> T {
    T::narrow(if SIGNED { value.widen_signed() as u64 } else { value.widen() })
}

pub fn extend_rr<F: Int, T: Int, const SIGNED: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let value = extend::<F, T, SIGNED>(F::narrow(cpu.state.slots.get(s.src)));
    cpu.write_slot(s.dst, value);
    next(cpu, s)
}

pub fn extend_rm<F: Int, T: Int, A: Address, const SIGNED: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    match load::<F, A>(cpu, s) {
        Some(value) => cpu.write_slot(s.dst, extend::<F, T, SIGNED>(value)),
        None => return missed::<A>(cpu, s, extend_rm::<F, T, A::Slow, SIGNED>),
    }
    next(cpu, s)
}

/// The whole slot gets the offset, truncated to the address width.
pub fn lea<T: Int>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let offset = T::narrow(Flat64::linear(cpu, s));
    cpu.state.slots.set(s.dst, offset.widen());
    next(cpu, s)
}

/// LEA into a 16-bit register: the rest of the slot stays.
pub fn lea16(cpu: &mut Vcpu, s: &Step) -> Leave {
    let offset = Flat64::linear(cpu, s) as u16;
    cpu.write_slot(s.dst, offset);
    next(cpu, s)
}

pub fn extract_high(cpu: &mut Vcpu, s: &Step) -> Leave {
    let value = cpu.state.slots.get(s.src) >> 8 & 0xff;
    cpu.state.slots.set(s.dst, value);
    next(cpu, s)
}

pub fn insert_high(cpu: &mut Vcpu, s: &Step) -> Leave {
    let value = cpu.state.slots.get(s.dst) & !0xff00 | (cpu.state.slots.get(s.src) & 0xff) << 8;
    cpu.state.slots.set(s.dst, value);
    next(cpu, s)
}

pub fn xchg<T: Int>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let (a, b) = (T::narrow(cpu.state.slots.get(s.dst)), T::narrow(cpu.state.slots.get(s.src)));
    cpu.write_slot(s.dst, b);
    cpu.write_slot(s.src, a);
    next(cpu, s)
}

pub fn bswap32(cpu: &mut Vcpu, s: &Step) -> Leave {
    let value = (cpu.state.slots.get(s.dst) as u32).swap_bytes();
    cpu.write_slot(s.dst, value);
    next(cpu, s)
}

pub fn bswap64(cpu: &mut Vcpu, s: &Step) -> Leave {
    let value = cpu.state.slots.get(s.dst).swap_bytes();
    cpu.write_slot(s.dst, value);
    next(cpu, s)
}

pub fn cmov_rr<T: Int>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let from = if condition(cpu, s.cond) { s.src } else { s.dst };
    let value = T::narrow(cpu.state.slots.get(from));
    cpu.write_slot(s.dst, value);
    next(cpu, s)
}

pub fn cmov_rm<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    match load::<T, A>(cpu, s) {
        Some(loaded) => {
            let value = if condition(cpu, s.cond) { loaded } else { T::narrow(cpu.state.slots.get(s.dst)) };
            cpu.write_slot(s.dst, value);
        }
        None => return missed::<A>(cpu, s, cmov_rm::<T, A::Slow>),
    }
    next(cpu, s)
}

pub fn set_r(cpu: &mut Vcpu, s: &Step) -> Leave {
    let value = u8::from(condition(cpu, s.cond));
    cpu.write_slot(s.dst, value);
    next(cpu, s)
}

pub fn set_m<A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let value = u8::from(condition(cpu, s.cond));
    let linear = A::linear(cpu, s);
    match store_at::<_, A>(cpu, s, linear, value) {
        Some(()) => next_after::<A>(cpu, s),
        None => missed::<A>(cpu, s, set_m::<A::Slow>),
    }
}

pub fn xchg_mem<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let value = T::narrow(cpu.state.slots.get(s.src));
    match locked::<T, A>(cpu, s, |_| value) {
        Some((old, _)) => {
            cpu.write_slot(s.src, old);
            next_after::<A>(cpu, s)
        }
        None => missed::<A>(cpu, s, xchg_mem::<T, A::Slow>),
    }
}

fn hold_add<T: Int>(cpu: &mut Vcpu, op: LazyOp, result: T, source: T) {
    cpu.link.lazy = flags::Lazy { result: result.widen(), source: source.widen(), op, width_log2: T::LOG2 };
}

pub fn xadd_rr<T: Int>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let (a, b) = (T::narrow(cpu.state.slots.get(s.dst)), T::narrow(cpu.state.slots.get(s.src)));
    let sum = T::narrow(a.widen().wrapping_add(b.widen()));
    cpu.write_slot(s.src, a);
    cpu.write_slot(s.dst, sum);
    hold_add(cpu, LazyOp::Add, sum, b);
    next(cpu, s)
}

pub fn xadd_mr<T: Int, A: Address, const LOCK: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let b = T::narrow(cpu.state.slots.get(s.src));
    match rmw::<T, A, LOCK>(cpu, s, |a: T| T::narrow(a.widen().wrapping_add(b.widen()))) {
        Some((old, sum)) => {
            cpu.write_slot(s.src, old);
            hold_add(cpu, LazyOp::Add, sum, b);
            next_after::<A>(cpu, s)
        }
        None => missed::<A>(cpu, s, xadd_mr::<T, A::Slow, LOCK>),
    }
}

/// After a compare-exchange that found `old`: flags of rAX − old, and rAX = old if they differ.
#[inline(always)]
fn compared<T: Int>(cpu: &mut Vcpu, expected: T, old: T) {
    hold_add(cpu, LazyOp::Sub, T::narrow(expected.widen().wrapping_sub(old.widen())), old);
    if old.widen() != expected.widen() {
        cpu.write_slot(RAX, old);
    }
}

pub fn cmpxchg_rr<T: Int>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let expected = T::narrow(cpu.state.slots.get(RAX));
    let old = T::narrow(cpu.state.slots.get(s.dst));
    let new = T::narrow(cpu.state.slots.get(s.src));
    compared(cpu, expected, old);
    if old.widen() == expected.widen() {
        cpu.write_slot(s.dst, new);
    }
    next(cpu, s)
}

pub fn cmpxchg_mr<T: Int, A: Address, const LOCK: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let expected = T::narrow(cpu.state.slots.get(RAX));
    let new = T::narrow(cpu.state.slots.get(s.src));
    let update = |old: T| if old.widen() == expected.widen() { new } else { old };
    match rmw::<T, A, LOCK>(cpu, s, update) {
        Some((old, _)) => {
            compared(cpu, expected, old);
            next_after::<A>(cpu, s)
        }
        None => missed::<A>(cpu, s, cmpxchg_mr::<T, A::Slow, LOCK>),
    }
}

/// Sets CF (`s.cond`: 0 clear, 1 set, 2 complement).
pub fn set_carry(cpu: &mut Vcpu, s: &Step) -> Leave {
    let carry = match s.cond {
        0 => false,
        1 => true,
        _ => !cpu.carry(),
    };
    cpu.set_flags(flags::CF, if carry { flags::CF } else { 0 });
    next(cpu, s)
}

pub fn set_direction(cpu: &mut Vcpu, s: &Step) -> Leave {
    cpu.state.rflags = cpu.state.rflags & !flags::DF | if s.cond != 0 { flags::DF } else { 0 };
    next(cpu, s)
}

pub fn selector(cpu: &mut Vcpu, s: &Step) -> Leave {
    let seg = Seg::ALL[(s.segment() % 6) as usize];
    cpu.state.slots.set(s.dst, u64::from(cpu.state.segment(seg).selector));
    next(cpu, s)
}

pub fn rflags(cpu: &mut Vcpu, s: &Step) -> Leave {
    let image = cpu.flags() & !(flags::VM | flags::RF);
    cpu.state.slots.set(s.dst, image);
    next(cpu, s)
}

const LOW: u64 = flags::CF | flags::PF | flags::AF | flags::ZF | flags::SF;

pub fn lahf(cpu: &mut Vcpu, s: &Step) -> Leave {
    let low = cpu.flags() & LOW | flags::FIXED;
    let rax = cpu.state.slots.get(RAX) & !0xff00 | low << 8;
    cpu.state.slots.set(RAX, rax);
    next(cpu, s)
}

pub fn sahf(cpu: &mut Vcpu, s: &Step) -> Leave {
    let value = cpu.state.slots.get(RAX) >> 8;
    cpu.set_flags(LOW, value);
    next(cpu, s)
}

/// The linear address of an operand with FS or GS in 64-bit mode; `None`: another case, or an exception.
#[inline(always)]
pub fn based(cpu: &Vcpu, s: &Step) -> Option<u64> {
    let mode = cpu.link.mode;
    let seg = match s.segment() {
        fs if fs == Seg::Fs as u8 => Seg::Fs,
        gs if gs == Seg::Gs as u8 => Seg::Gs,
        _ => return None,
    };
    if !mode.has(ModeBits::L) || mode.has(ModeBits::ALIGN) || s.width_log2() != Width::B8 as u8 {
        return None;
    }
    let linear = Linear(cpu.state.segment(seg).base.wrapping_add(Flat64::linear(cpu, s)));
    let last = linear.wrapping_add((s.imm as u64).wrapping_sub(1));
    (linear.is_canonical_48() && last.is_canonical_48()).then_some(linear.0)
}

/// The linear address of the step's operand after all segment checks.
pub fn check(cpu: &mut Vcpu, s: &Step) -> Leave {
    match based(cpu, s) {
        Some(linear) => cpu.state.slots.set(s.dst, linear),
        None => return check_slow(cpu, s),
    }
    next(cpu, s)
}

#[cold]
#[inline(never)]
fn check_slow(cpu: &mut Vcpu, s: &Step) -> Leave {
    let raw = Flat64::linear(cpu, s);
    let offset = match s.width_log2() {
        x if x == Width::B2 as u8 => raw & 0xffff,
        x if x == Width::B4 as u8 => raw & 0xffff_ffff,
        _ => raw,
    };
    let seg = Seg::ALL[(s.segment() % 6) as usize];
    let access = if s.cond != 0 { Access::Write } else { Access::Read };
    match cpu.linear(seg, offset, s.imm as u64, access) {
        Ok(linear) => {
            cpu.state.slots.set(s.dst, linear.0);
            next(cpu, s)
        }
        Err(fault) => super::memory::fault(cpu, s, fault),
    }
}

pub fn nop(cpu: &mut Vcpu, s: &Step) -> Leave {
    next(cpu, s)
}
