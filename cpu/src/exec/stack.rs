//! Pushes and pops through a flat stack segment (SDM vol. 2: PUSH, POP, LEAVE). Other stacks are `helpers::stack`.

use super::memory::{Address, load, load_at, missed, next_after, store_at};
use super::next;
use crate::cache::{Leave, Step};
use crate::memory::Int;
use crate::state::slots::{RBP, RSP};
use crate::vcpu::Vcpu;

/// Pushes `value`; `S` is the width of the stack pointer.
#[inline(always)]
pub fn push<T: Int, S: Int, A: Address>(cpu: &mut Vcpu, s: &Step, value: T) -> Option<()> {
    let sp = S::narrow(cpu.state.slots.get(RSP).wrapping_sub(u64::from(T::BITS / 8)));
    store_at::<T, A>(cpu, &slow_on_stack::<A>(s), sp.widen(), value)?;
    cpu.write_slot(RSP, sp);
    Some(())
}

/// The step whose access is on the stack: on the slow way, which tells #SS from #GP by its segment, a copy.
#[inline(always)]
fn slow_on_stack<A: Address>(s: &Step) -> std::borrow::Cow<'_, Step> {
    if A::SLOW { std::borrow::Cow::Owned(s.on_stack()) } else { std::borrow::Cow::Borrowed(s) }
}

/// Pops a value; the stack pointer moves by `extra` bytes more.
#[inline(always)]
pub fn pop<T: Int, S: Int, A: Address>(cpu: &mut Vcpu, s: &Step, extra: u64) -> Option<T> {
    let sp = S::narrow(cpu.state.slots.get(RSP));
    let value = load_at::<T, A>(cpu, &slow_on_stack::<A>(s), sp.widen())?;
    let after = S::narrow(sp.widen().wrapping_add(u64::from(T::BITS / 8)).wrapping_add(extra));
    cpu.write_slot(RSP, after);
    Some(value)
}

pub fn push_r<T: Int, S: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let value = T::narrow(cpu.state.slots.get(s.src));
    match push::<T, S, A>(cpu, s, value) {
        Some(()) => next_after::<A>(cpu, s),
        None => missed::<A>(cpu, s, push_r::<T, S, A::Slow>),
    }
}

pub fn push_i<T: Int, S: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    match push::<T, S, A>(cpu, s, T::narrow(s.imm as u64)) {
        Some(()) => next_after::<A>(cpu, s),
        None => missed::<A>(cpu, s, push_i::<T, S, A::Slow>),
    }
}

pub fn push_m<T: Int, S: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    match load::<T, A>(cpu, s).and_then(|value| push::<T, S, A>(cpu, s, value)) {
        Some(()) => next_after::<A>(cpu, s),
        None => missed::<A>(cpu, s, push_m::<T, S, A::Slow>),
    }
}

pub fn pop_r<T: Int, S: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    match pop::<T, S, A>(cpu, s, 0) {
        Some(value) => cpu.write_slot(s.dst, value),
        None => return missed::<A>(cpu, s, pop_r::<T, S, A::Slow>),
    }
    next(cpu, s)
}

pub fn leave<T: Int, S: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let sp = S::narrow(cpu.state.slots.get(RBP));
    match load_at::<T, A>(cpu, s, sp.widen()) {
        Some(value) => {
            let after = S::narrow(sp.widen().wrapping_add(u64::from(T::BITS / 8)));
            cpu.write_slot(RSP, after);
            cpu.write_slot(RBP, value);
        }
        None => return missed::<A>(cpu, s, leave::<T, S, A::Slow>),
    }
    next(cpu, s)
}

/// `S` is the width of the stack pointer.
pub fn add_sp<S: Int>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let sp = S::narrow(cpu.state.slots.get(RSP).wrapping_add(s.imm as u64));
    cpu.write_slot(RSP, sp);
    next(cpu, s)
}
