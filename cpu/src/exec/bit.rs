//! Bit tests and scans (SDM vol. 2: BT, BTS, BTR, BTC, BSF, BSR, TZCNT, LZCNT, POPCNT).
//!
//! BT with a register bit index into memory reaches beyond its operand: lift puts the address of the right word into a
//! temporary first, so that here the index is always taken modulo the width.
//!
//! Undefined results have one value here, AMD's: BT leaves all flags but CF alone; BSF and BSR with a zero source keep the
//! destination, and change no flag but ZF.

use super::memory::{Address, load, missed, next_after, rmw, source};
use super::next;
use super::shift::put_flags;
use crate::cache::{Leave, Step};
use crate::memory::Int;
use crate::state::flags;
use crate::vcpu::Vcpu;

/// What happens to the tested bit.
pub trait Change {
    /// The word with the bit changed; `None`: it is only tested.
    fn apply(word: u64, bit: u64) -> Option<u64>;
}
pub struct Keep;
pub struct Put;
pub struct Clear;
pub struct Flip;
impl Change for Keep {
    #[inline(always)]
    fn apply(_: u64, _: u64) -> Option<u64> {
        None
    }
}
impl Change for Put {
    #[inline(always)]
    fn apply(word: u64, bit: u64) -> Option<u64> {
        Some(word | bit)
    }
}
impl Change for Clear {
    #[inline(always)]
    fn apply(word: u64, bit: u64) -> Option<u64> {
        Some(word & !bit)
    }
}
impl Change for Flip {
    #[inline(always)]
    fn apply(word: u64, bit: u64) -> Option<u64> {
        Some(word ^ bit)
    }
}

/// The selected bit: `INDEXED` by the slot `src`, else by the immediate.
#[inline(always)]
fn bit<T: Int, const INDEXED: bool>(cpu: &Vcpu, s: &Step) -> u64 {
    let index = if INDEXED { cpu.state.slots.get(s.src) } else { s.imm as u64 };
    1 << (index & u64::from(T::BITS - 1))
}

fn set_carry(cpu: &mut Vcpu, carry: bool) {
    cpu.set_flags(flags::CF, u64::from(carry));
}

pub fn test_r<O: Change, T: Int, const INDEXED: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let bit = bit::<T, INDEXED>(cpu, s);
    let word = cpu.state.slots.get(s.dst);
    if let Some(changed) = O::apply(word, bit) {
        cpu.write_slot(s.dst, T::narrow(changed));
    }
    set_carry(cpu, word & bit != 0);
    next(cpu, s)
}

pub fn test_m<O: Change, T: Int, A: Address, const INDEXED: bool, const LOCK: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let bit = bit::<T, INDEXED>(cpu, s);
    let word = if O::apply(0, 0).is_none() {
        load::<T, A>(cpu, s)
    } else {
        let update = |old: T| T::narrow(O::apply(old.widen(), bit).unwrap_or(old.widen()));
        rmw::<T, A, LOCK>(cpu, s, update).map(|(old, _)| old)
    };
    match word {
        Some(word) => {
            set_carry(cpu, word.widen() & bit != 0);
            next_after::<A>(cpu, s)
        }
        None => missed::<A>(cpu, s, test_m::<O, T, A::Slow, INDEXED, LOCK>),
    }
}

/// A count or scan of the source.
pub trait Scan {
    /// The result (`None`: the destination is kept), and the flags in `mask`.
    fn apply<T: Int>(source: T) -> (Option<u64>, u64, u64);
}
pub struct Bsf;
pub struct Bsr;
pub struct Tzcnt;
pub struct Lzcnt;
pub struct Popcnt;

const fn zero(condition: bool) -> u64 {
    if condition { flags::ZF } else { 0 }
}

impl Scan for Bsf {
    fn apply<T: Int>(source: T) -> (Option<u64>, u64, u64) {
        let x = source.widen();
        ((x != 0).then(|| u64::from(x.trailing_zeros())), zero(x == 0), flags::ZF)
    }
}
impl Scan for Bsr {
    fn apply<T: Int>(source: T) -> (Option<u64>, u64, u64) {
        let x = source.widen();
        (x.checked_ilog2().map(u64::from), zero(x == 0), flags::ZF)
    }
}
impl Scan for Tzcnt {
    fn apply<T: Int>(source: T) -> (Option<u64>, u64, u64) {
        let x = source.widen();
        let count = x.trailing_zeros().min(T::BITS);
        (Some(u64::from(count)), zero(count == 0) | u64::from(x == 0), flags::ZF | flags::CF)
    }
}
impl Scan for Lzcnt {
    fn apply<T: Int>(source: T) -> (Option<u64>, u64, u64) {
        let x = source.widen();
        let count = x.leading_zeros() - (64 - T::BITS);
        (Some(u64::from(count)), zero(count == 0) | u64::from(x == 0), flags::ZF | flags::CF)
    }
}
impl Scan for Popcnt {
    fn apply<T: Int>(source: T) -> (Option<u64>, u64, u64) {
        let x = source.widen();
        (Some(u64::from(x.count_ones())), zero(x == 0), flags::STATUS)
    }
}

pub fn scan<O: Scan, T: Int, A: Address, const MEMORY: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let source = match source::<T, A, MEMORY>(cpu, s) {
        Some(source) => source,
        None => return missed::<A>(cpu, s, scan::<O, T, A::Slow, MEMORY>),
    };
    let (result, flags, mask) = O::apply(source);
    if let Some(result) = result {
        cpu.write_slot(s.dst, T::narrow(result));
    }
    put_flags(cpu, mask, flags);
    next(cpu, s)
}
