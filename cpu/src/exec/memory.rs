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

/// Continues after a step that took a slow path: leaves the block if code was written.
#[inline(always)]
pub fn next_after_slow(cpu: &mut Vcpu, s: &Step) -> Leave {
    if cpu.link.leave {
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
pub fn load<T: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Result<T, Leave> {
    let linear = A::linear(cpu, s);
    load_at(cpu, s, linear)
}

/// Loads from a linear address.
#[inline(always)]
pub fn load_at<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64) -> Result<T, Leave> {
    match cpu.link.mmu.load(linear) {
        Some(value) => Ok(value),
        None => load_cold(cpu, s, linear),
    }
}

#[cold]
#[inline(never)]
fn load_cold<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64) -> Result<T, Leave> {
    cpu.link.current = s.insn;
    canonical(cpu, s, linear, T::BITS / 8).and_then(|()| cpu.load_slow(linear)).map_err(|f| fault(cpu, s, f))
}

/// Stores to a linear address.
#[inline(always)]
pub fn store_at<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64, value: T) -> Result<(), Leave> {
    if cpu.link.mmu.store(linear, value) { Ok(()) } else { store_cold(cpu, s, linear, value) }
}

#[cold]
#[inline(never)]
fn store_cold<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64, value: T) -> Result<(), Leave> {
    cpu.link.current = s.insn;
    canonical(cpu, s, linear, T::BITS / 8).and_then(|()| cpu.store_slow(linear, value)).map_err(|f| fault(cpu, s, f))
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

/// Read-modify-write of the step's memory operand: `update` gives the new value and is called once (unless `locked`,
/// when it may be called again with a newer old value); the rest of the instruction runs after the store succeeded.
#[inline(always)]
pub fn rmw<T: Int, A: Address>(
    cpu: &mut Vcpu,
    s: &Step,
    locked: bool,
    update: impl Fn(T) -> T,
) -> Result<(T, T), Leave> {
    let linear = A::linear(cpu, s);
    if let Some(slot) = cpu.link.mmu.write_slot::<T>(linear) {
        if locked {
            let old = slot.fetch_update(&update);
            return Ok((old, update(old)));
        }
        let old = slot.load();
        let new = update(old);
        slot.store(new);
        return Ok((old, new));
    }
    rmw_cold(cpu, s, linear, &update)
}

#[cold]
#[inline(never)]
fn rmw_cold<T: Int>(cpu: &mut Vcpu, s: &Step, linear: u64, update: &dyn Fn(T) -> T) -> Result<(T, T), Leave> {
    cpu.link.current = s.insn;
    let old = canonical(cpu, s, linear, T::BITS / 8).and_then(|()| {
        cpu.rmw_linear(Linear(linear), T::BITS as usize / 8, &mut |old| update(T::truncate(old)).into())
    });
    match old {
        Ok(old) => {
            let old = T::truncate(old);
            Ok((old, update(old)))
        }
        Err(f) => Err(fault(cpu, s, f)),
    }
}

/// The source operand: the slot `src`, or (`MEMORY`) the memory operand.
#[inline(always)]
pub fn source<T: Int, A: Address, const MEMORY: bool>(cpu: &mut Vcpu, s: &Step) -> Result<T, Leave> {
    if MEMORY { load::<T, A>(cpu, s) } else { Ok(T::narrow(cpu.state.slots.get(s.src))) }
}
