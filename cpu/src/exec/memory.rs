//! The executor's only memory fast path: a TLB hit inline, everything else in one cold function.

use crate::cache::{Leave, Step};
use crate::fault::Fault;
use crate::memory::Int;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;

/// How a step's linear address is computed; one type a kind, so that each handler has it inlined.
pub trait Address {
    /// The linear address of the step's memory operand.
    fn linear(cpu: &Vcpu, s: &Step) -> u64;
}

/// `AddrKind::Flat64`.
pub struct Flat64;
/// `AddrKind::Flat32`.
pub struct Flat32;
/// `AddrKind::Checked`.
pub struct Checked;

impl Address for Flat64 {
    #[inline(always)]
    fn linear(cpu: &Vcpu, s: &Step) -> u64 {
        let slots = &cpu.state.slots;
        slots.get(s.base).wrapping_add(slots.get(s.index) << (s.scale & 3)).wrapping_add(s.disp as u64)
    }
}

impl Address for Flat32 {
    #[inline(always)]
    fn linear(cpu: &Vcpu, s: &Step) -> u64 {
        u64::from(Flat64::linear(cpu, s) as u32)
    }
}

impl Address for Checked {
    #[inline(always)]
    fn linear(cpu: &Vcpu, s: &Step) -> u64 {
        cpu.state.slots.get(s.base)
    }
}

/// Notes an exception of the current step; its block is left.
#[cold]
#[inline(never)]
pub fn fault(cpu: &mut Vcpu, s: &Step, fault: Fault) -> Leave {
    cpu.link.current = s.insn;
    cpu.link.fault = Some(fault);
    Leave::Fault
}

/// Which way an access went. After a slow store the block may have to be left.
#[derive(Copy, Clone, PartialEq, Eq)]
pub enum Way {
    /// A TLB hit.
    Fast,
    /// The cold path.
    Slow,
}

/// Continues after a store: on the slow way the block is left if code was written.
#[inline(always)]
pub fn next_after(cpu: &mut Vcpu, s: &Step, way: Way) -> Leave {
    if way == Way::Slow && cpu.link.leave {
        return left_early(cpu, s);
    }
    super::next(cpu, s)
}

#[cold]
#[inline(never)]
pub fn left_early(cpu: &mut Vcpu, s: &Step) -> Leave {
    cpu.link.current = s.insn;
    Leave::Early
}

// NOTE(why not): the cold functions below return a bool and leave their value in `link.loaded` instead of returning a
// `Result`, because an aggregate returned through memory keeps the compiler from making `next` a jump (2.5 times slower).

/// Loads the step's memory operand. `None`: the exception is noted, leave with [`Leave::Fault`].
#[inline(always)]
pub fn load<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Option<T> {
    let linear = A::linear(cpu, s);
    load_at(cpu, s, linear)
}

/// Loads from a linear address.
#[inline(always)]
pub fn load_at<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64) -> Option<T> {
    match cpu.link.mmu.load(linear) {
        Some(value) => Some(value),
        None if load_cold::<T>(cpu, s, linear) => Some(T::narrow(cpu.link.loaded)),
        None => None,
    }
}

#[cold]
#[inline(never)]
fn load_cold<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64) -> bool {
    cpu.link.current = s.insn;
    match canonical(cpu, s, linear, T::BITS / 8).and_then(|()| cpu.load_slow::<T>(linear)) {
        Ok(value) => {
            cpu.link.loaded = value.widen();
            true
        }
        Err(f) => {
            fault(cpu, s, f);
            false
        }
    }
}

/// Stores to a linear address. `None`: the exception is noted.
#[inline(always)]
pub fn store_at<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64, value: T) -> Option<Way> {
    if cpu.link.mmu.store(linear, value) {
        Some(Way::Fast)
    } else if store_cold::<T>(cpu, s, linear, value.widen()) {
        Some(Way::Slow)
    } else {
        None
    }
}

#[cold]
#[inline(never)]
fn store_cold<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64, value: u64) -> bool {
    cpu.link.current = s.insn;
    let stored = canonical(cpu, s, linear, T::BITS / 8).and_then(|()| cpu.store_slow(linear, T::narrow(value)));
    stored.map_err(|f| fault(cpu, s, f)).is_ok()
}

/// A flat 64-bit address that is not canonical never hits the TLB, so it is found here: #SS(0) when the operand is based on
/// the stack segment (RSP or RBP without an override), else #GP(0).
pub fn canonical(cpu: &Vcpu, s: &Step, linear: u64, len: u32) -> Result<(), Fault> {
    let address = Linear(linear);
    let fine = !cpu.state.long_mode()
        || address.is_canonical_48() && address.wrapping_add(u64::from(len) - 1).is_canonical_48();
    match fine {
        true => Ok(()),
        false if s.segment() == crate::state::Seg::Ss as u8 => Err(Fault::ss(0)),
        false => Err(Fault::gp(0)),
    }
}

/// Read-modify-write of the step's memory operand, not locked: (old, new). `None`: the exception is noted.
#[inline(always)]
pub fn modify<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step, update: impl Fn(T) -> T) -> Option<(T, T, Way)> {
    let linear = A::linear(cpu, s);
    if let Some(slot) = cpu.link.mmu.write_slot::<T>(linear) {
        let old = slot.load();
        let new = update(old);
        slot.store(new);
        return Some((old, new, Way::Fast));
    }
    if !load_for_write_cold::<T>(cpu, s, linear) {
        return None;
    }
    let old = T::narrow(cpu.link.loaded);
    let new = update(old);
    store_cold::<T>(cpu, s, linear, new.widen()).then_some((old, new, Way::Slow))
}

/// Loads for a read-modify-write: faults as the store would.
#[cold]
#[inline(never)]
fn load_for_write_cold<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64) -> bool {
    cpu.link.current = s.insn;
    let (len, view) = (T::BITS / 8, cpu.view());
    let allowed = canonical(cpu, s, linear, len)
        .and_then(|()| cpu.reserve_linear(Linear(linear), u64::from(len), view))
        .map_err(|f| fault(cpu, s, f));
    allowed.is_ok() && load_cold::<T>(cpu, s, linear)
}

/// [`locked`] or [`modify`].
#[inline(always)]
pub fn rmw<T: Int, A: Address, const LOCK: bool>(
    cpu: &mut Vcpu,
    s: &Step,
    update: impl Fn(T) -> T,
) -> Option<(T, T, Way)> {
    if LOCK { locked::<T, A>(cpu, s, update) } else { modify::<T, A>(cpu, s, update) }
}

/// Locked read-modify-write; `update` may run several times.
#[inline(always)]
pub fn locked<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step, update: impl Fn(T) -> T) -> Option<(T, T, Way)> {
    let linear = A::linear(cpu, s);
    if let Some(slot) = cpu.link.mmu.write_slot::<T>(linear) {
        let old = slot.fetch_update(&update);
        return Some((old, update(old), Way::Fast));
    }
    locked_cold(cpu, s, linear, &update)
}

#[cold]
#[inline(never)]
fn locked_cold<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64, update: &dyn Fn(T) -> T) -> Option<(T, T, Way)> {
    cpu.link.current = s.insn;
    let old = canonical(cpu, s, linear, T::BITS / 8).and_then(|()| {
        cpu.rmw_linear(Linear(linear), T::BITS as usize / 8, &mut |old| update(T::truncate(old)).into())
    });
    match old {
        Ok(old) => {
            let old = T::truncate(old);
            Some((old, update(old), Way::Slow))
        }
        Err(f) => {
            fault(cpu, s, f);
            None
        }
    }
}

/// The source operand: the slot `src`, or (`MEMORY`) the memory operand.
#[inline(always)]
pub fn source<T: Int, A: Address, const MEMORY: bool>(cpu: &mut Vcpu, s: &Step) -> Option<T> {
    if MEMORY { load::<T, A>(cpu, s) } else { Some(T::narrow(cpu.state.slots.get(s.src))) }
}
