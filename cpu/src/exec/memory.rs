//! The executor's only memory fast path: a TLB hit inline.
//!
//! Each handler with a memory operand exists twice: over a plain [`Address`], where a miss jumps to the twin, and over
//! [`Slow`], whose accesses go through the cold functions. So the fast handler calls nothing, saves no register, and stays
//! a chain of jumps (one call in it costs ten pushes and pops, a third of its time).

use crate::cache::{Handler, Leave, Step};
use crate::check::Check;
use crate::fault::Fault;
use crate::memory::Int;
use crate::mode::ModeBits;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;

/// How a step's linear address is computed; one type a kind, so that each handler has it inlined.
pub trait Address {
    /// Whether accesses take the cold functions.
    const SLOW: bool = false;
    /// The same address kind with the cold functions.
    type Slow: Address;
    /// The linear address of the step's memory operand.
    fn linear(cpu: &Vcpu, s: &Step) -> u64;
}

/// An address kind whose accesses take the cold functions: device memory, straddling, TLB misses, tracked pages.
pub struct Slow<A>(std::marker::PhantomData<A>);

impl<A: Address> Address for Slow<A> {
    const SLOW: bool = true;
    type Slow = Slow<A>;
    #[inline(always)]
    fn linear(cpu: &Vcpu, s: &Step) -> u64 {
        A::linear(cpu, s)
    }
}

/// After an access that gave `None`: the fast handler goes on as its slow twin, the slow one has noted an exception.
#[inline(always)]
pub fn missed<A: Address>(cpu: &mut Vcpu, s: &Step, twin: Handler) -> Leave {
    if A::SLOW { Leave::Fault } else { twin(cpu, s) }
}

/// `AddrKind::Flat64`.
pub struct Flat64;
/// `AddrKind::Flat32`.
pub struct Flat32;
/// `AddrKind::Checked`.
pub struct Checked;

impl Address for Flat64 {
    type Slow = Slow<Flat64>;
    #[inline(always)]
    fn linear(cpu: &Vcpu, s: &Step) -> u64 {
        let slots = &cpu.state.slots;
        slots.get(s.base).wrapping_add(slots.get(s.index) << (s.scale & 3)).wrapping_add(s.disp as u64)
    }
}

impl Address for Flat32 {
    type Slow = Slow<Flat32>;
    #[inline(always)]
    fn linear(cpu: &Vcpu, s: &Step) -> u64 {
        u64::from(Flat64::linear(cpu, s) as u32)
    }
}

impl Address for Checked {
    type Slow = Slow<Checked>;
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

/// Continues after a store: on the slow way the block is left if code was written.
#[inline(always)]
pub fn next_after<A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    if A::SLOW && cpu.link.leave {
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

/// Loads the step's memory operand.
#[inline(always)]
pub fn load<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Option<T> {
    let linear = A::linear(cpu, s);
    load_at::<T, A>(cpu, s, linear)
}

/// Loads from a linear address.
#[inline(always)]
pub fn load_at<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step, linear: u64) -> Option<T> {
    if !A::SLOW {
        return cpu.link.mmu.load(linear);
    }
    load_cold::<T>(cpu, s, linear).then(|| T::narrow(cpu.link.loaded))
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

/// Stores to a linear address.
#[inline(always)]
pub fn store_at<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step, linear: u64, value: T) -> Option<()> {
    let stored =
        if A::SLOW { store_cold::<T>(cpu, s, linear, value.widen()) } else { cpu.link.mmu.store(linear, value) };
    stored.then_some(())
}

#[cold]
#[inline(never)]
fn store_cold<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64, value: u64) -> bool {
    cpu.link.current = s.insn;
    let stored = canonical(cpu, s, linear, T::BITS / 8).and_then(|()| cpu.store_slow(linear, T::narrow(value)));
    stored.map_err(|f| fault(cpu, s, f)).is_ok()
}

/// A flat operand that is not canonical in 64-bit mode, or runs over 4 GiB outside it, never hits the TLB, so it is found
/// here: #SS(0) when it is based on the stack segment (RSP or RBP without an override), else #GP(0).
pub fn canonical(cpu: &Vcpu, s: &Step, linear: u64, len: u32) -> Result<(), Fault> {
    let last = Linear(linear).wrapping_add(u64::from(len) - 1);
    let fine = if cpu.link.mode.has(ModeBits::L) {
        Linear(linear).is_canonical_48() && last.is_canonical_48()
    } else {
        last.0 <= u64::from(u32::MAX)
    };
    match fine {
        true => Ok(()),
        false if s.segment() == crate::state::Seg::Ss as u8 => Err(Fault::ss(0).because(Check::Canonical)),
        false => Err(Fault::gp(0).because(Check::Canonical)),
    }
}

/// Read-modify-write of the step's memory operand, not locked: (old, new).
#[inline(always)]
pub fn modify<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step, update: impl Fn(T) -> T) -> Option<(T, T)> {
    let linear = A::linear(cpu, s);
    if !A::SLOW {
        let slot = cpu.link.mmu.write_slot::<T>(linear)?;
        let old = slot.load();
        let new = update(old);
        slot.store(new);
        return Some((old, new));
    }
    if !load_for_write_cold::<T>(cpu, s, linear) {
        return None;
    }
    let old = T::narrow(cpu.link.loaded);
    let new = update(old);
    store_cold::<T>(cpu, s, linear, new.widen()).then_some((old, new))
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
pub fn rmw<T: Int, A: Address, const LOCK: bool>(cpu: &mut Vcpu, s: &Step, update: impl Fn(T) -> T) -> Option<(T, T)> {
    if LOCK { locked::<T, A>(cpu, s, update) } else { modify::<T, A>(cpu, s, update) }
}

/// Locked read-modify-write; `update` may run several times.
#[inline(always)]
pub fn locked<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step, update: impl Fn(T) -> T) -> Option<(T, T)> {
    let linear = A::linear(cpu, s);
    if A::SLOW {
        return locked_cold(cpu, s, linear, &update);
    }
    let slot = cpu.link.mmu.write_slot::<T>(linear)?;
    let old = slot.fetch_update(&update);
    Some((old, update(old)))
}

#[cold]
#[inline(never)]
fn locked_cold<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64, update: &dyn Fn(T) -> T) -> Option<(T, T)> {
    cpu.link.current = s.insn;
    let old = canonical(cpu, s, linear, T::BITS / 8).and_then(|()| {
        cpu.rmw_linear(Linear(linear), T::BITS as usize / 8, &mut |old| update(T::truncate(old)).into())
    });
    match old {
        Ok(old) => {
            let old = T::truncate(old);
            Some((old, update(old)))
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
