//! Shifts and rotates (SDM vol. 2: SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD).
//!
//! Undefined results have one value here: AF is cleared by shifts; OF after a shift by more than one follows the same formula
//! as for one (sign of the result against CF, or against the next bit), and so do rotates.

use super::memory::{Address, missed, modify, next_after};
use super::next;
use crate::cache::{Leave, Step};
use crate::memory::Int;
use crate::state::flags::{self, LazyOp};
use crate::state::slots::RCX;
#[cfg(all(target_arch = "x86_64", not(portable)))]
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// Where the count is.
pub trait Count {
    /// The count, not yet masked.
    fn count(cpu: &Vcpu, s: &Step) -> u32;
}
/// In the immediate.
pub struct Imm;
/// In CL.
pub struct Cl;
impl Count for Imm {
    #[inline(always)]
    fn count(_: &Vcpu, s: &Step) -> u32 {
        s.imm as u32
    }
}
impl Count for Cl {
    #[inline(always)]
    fn count(cpu: &Vcpu, _: &Step) -> u32 {
        cpu.state.slots.get(RCX) as u8 as u32
    }
}

/// A result with the status flags that follow from it.
pub struct Outcome<T> {
    value: T,
    /// New values of the flags in `mask`.
    flags: u64,
    mask: u64,
}

/// SF, ZF and PF of a result.
pub fn sign_zero_parity<T: Int>(value: T) -> u64 {
    let x = value.widen();
    let parity = u64::from((x as u8).count_ones().is_multiple_of(2)) << 2;
    parity | u64::from(x == 0) << 6 | (x >> (T::BITS - 1) & 1) << 7
}

const fn carry_overflow(carry: bool, overflow: bool) -> u64 {
    (if carry { flags::CF } else { 0 }) | (if overflow { flags::OF } else { 0 })
}

/// One shift or rotate; `count` is masked to 5 (6) bits. `None`: count 0, nothing changes.
pub trait Shift {
    /// The result for a nonzero masked count, with the older carry.
    fn apply<T: Int>(a: T, count: u32, carry: bool) -> Outcome<T>;
}

fn top<T: Int>(value: u64) -> bool {
    value >> (T::BITS - 1) & 1 != 0
}

pub struct Shl;
pub struct Shr;
pub struct Sar;
pub struct Rol;
pub struct Ror;
pub struct Rcl;
pub struct Rcr;

impl Shift for Shl {
    #[inline(always)]
    fn apply<T: Int>(a: T, count: u32, _: bool) -> Outcome<T> {
        let wide = u128::from(a.widen()) << count;
        let value = T::narrow(wide as u64);
        let carry = wide >> T::BITS & 1 != 0;
        let flags = sign_zero_parity(value) | carry_overflow(carry, top::<T>(value.widen()) != carry);
        Outcome { value, flags, mask: flags::STATUS }
    }
}
impl Shift for Shr {
    #[inline(always)]
    fn apply<T: Int>(a: T, count: u32, _: bool) -> Outcome<T> {
        let before = a.widen() >> (count - 1);
        let value = T::narrow(before >> 1);
        let flags = sign_zero_parity(value) | carry_overflow(before & 1 != 0, top::<T>(before));
        Outcome { value, flags, mask: flags::STATUS }
    }
}
impl Shift for Sar {
    #[inline(always)]
    fn apply<T: Int>(a: T, count: u32, _: bool) -> Outcome<T> {
        let before = a.widen_signed() >> (count - 1);
        let value = T::narrow((before >> 1) as u64);
        Outcome { value, flags: sign_zero_parity(value) | carry_overflow(before & 1 != 0, false), mask: flags::STATUS }
    }
}
impl Shift for Rol {
    #[inline(always)]
    fn apply<T: Int>(a: T, count: u32, _: bool) -> Outcome<T> {
        let (count, x) = (count % T::BITS, a.widen());
        let value = if count == 0 { a } else { T::narrow(x << count | x >> (T::BITS - count)) };
        let carry = value.widen() & 1 != 0;
        Outcome { value, flags: carry_overflow(carry, top::<T>(value.widen()) != carry), mask: flags::CF | flags::OF }
    }
}
impl Shift for Ror {
    #[inline(always)]
    fn apply<T: Int>(a: T, count: u32, _: bool) -> Outcome<T> {
        let (count, x) = (count % T::BITS, a.widen());
        let value = if count == 0 { a } else { T::narrow(x >> count | x << (T::BITS - count)) };
        let (first, second) = (top::<T>(value.widen()), top::<T>(value.widen() << 1));
        Outcome { value, flags: carry_overflow(first, first != second), mask: flags::CF | flags::OF }
    }
}
impl Shift for Rcl {
    #[inline(always)]
    fn apply<T: Int>(a: T, count: u32, carry: bool) -> Outcome<T> {
        let bits = T::BITS + 1;
        let count = count % bits;
        let x = u128::from(carry) << T::BITS | u128::from(a.widen());
        let rotated = x << count | x >> (bits - count);
        let value = T::narrow(rotated as u64);
        let carry = rotated >> T::BITS & 1 != 0;
        Outcome { value, flags: carry_overflow(carry, top::<T>(value.widen()) != carry), mask: flags::CF | flags::OF }
    }
}
impl Shift for Rcr {
    #[inline(always)]
    fn apply<T: Int>(a: T, count: u32, carry: bool) -> Outcome<T> {
        let bits = T::BITS + 1;
        let count = count % bits;
        let x = u128::from(carry) << T::BITS | u128::from(a.widen());
        let rotated = x >> count | x << (bits - count);
        let value = T::narrow(rotated as u64);
        let carry = rotated >> T::BITS & 1 != 0;
        let (first, second) = (top::<T>(value.widen()), top::<T>(value.widen() << 1));
        Outcome { value, flags: carry_overflow(carry, first != second), mask: flags::CF | flags::OF }
    }
}

/// The status flags after a shift of the low part of `a` by a masked count that is not zero.
#[cfg(all(target_arch = "x86_64", not(portable)))]
pub fn status<O: Shift>(width: Width, a: u64, count: u32) -> u64 {
    match width {
        Width::B1 => O::apply(a as u8, count, false).flags,
        Width::B2 => O::apply(a as u16, count, false).flags,
        Width::B4 => O::apply(a as u32, count, false).flags,
        Width::B8 => O::apply(a, count, false).flags,
    }
}

#[inline(always)]
fn masked<T: Int>(count: u32) -> u32 {
    count & if T::LOG2 == 3 { 63 } else { 31 }
}

/// Sets the flags in `mask`; the others keep their values.
#[inline(always)]
pub fn put_flags(cpu: &mut Vcpu, mask: u64, value: u64) {
    if mask == flags::STATUS {
        cpu.link.lazy.op = LazyOp::None;
        cpu.state.rflags = cpu.state.rflags & !flags::STATUS | value;
    } else {
        cpu.set_flags(mask, value);
    }
}

pub fn r<O: Shift, T: Int, C: Count>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let count = masked::<T>(C::count(cpu, s));
    let a = T::narrow(cpu.state.slots.get(s.dst));
    if count == 0 {
        cpu.write_slot(s.dst, a);
        return next(cpu, s);
    }
    let carry = cpu.carry();
    let out = O::apply(a, count, carry);
    cpu.write_slot(s.dst, out.value);
    put_flags(cpu, out.mask, out.flags);
    next(cpu, s)
}

/// Shift whose flags nobody reads.
pub fn r_dead<O: Shift, T: Int, C: Count>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let count = masked::<T>(C::count(cpu, s));
    let a = T::narrow(cpu.state.slots.get(s.dst));
    let value = if count == 0 { a } else { O::apply(a, count, false).value };
    cpu.write_slot(s.dst, value);
    next(cpu, s)
}

pub fn m<O: Shift, T: Int, A: Address, C: Count>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let count = masked::<T>(C::count(cpu, s));
    let carry = cpu.carry();
    let update = |a: T| if count == 0 { a } else { O::apply(a, count, carry).value };
    match modify::<T, A>(cpu, s, update) {
        Some((old, _)) => {
            if count != 0 {
                let out = O::apply(old, count, carry);
                put_flags(cpu, out.mask, out.flags);
            }
            next_after::<A>(cpu, s)
        }
        None => missed::<A>(cpu, s, m::<O, T, A::Slow, C>),
    }
}

/// SHLD (`LEFT`) or SHRD of `a` with bits from `b`. A count beyond the width (16-bit operands) rotates on through `b`, as
/// AMD processors do; the manuals leave it undefined.
fn double<T: Int, const LEFT: bool>(a: T, b: T, count: u32) -> Outcome<T> {
    let bits = T::BITS;
    let (x, y) = (u128::from(a.widen()), u128::from(b.widen()));
    let (value, carry) = if LEFT {
        if count <= bits {
            let wide = (x << bits | y) << count;
            (T::narrow((wide >> bits) as u64), count != 0 && x >> (bits - count) & 1 != 0)
        } else {
            let wide = (y << bits | x) << (count - bits);
            (T::narrow((wide >> bits) as u64), y >> (2 * bits - count) & 1 != 0)
        }
    } else if count <= bits {
        let wide = (y << bits | x) >> count;
        (T::narrow(wide as u64), x >> (count - 1) & 1 != 0)
    } else {
        let wide = (x << bits | y) >> (count - bits);
        (T::narrow(wide as u64), y >> (count - bits - 1) & 1 != 0)
    };
    let overflow =
        if LEFT { top::<T>(value.widen()) != carry } else { top::<T>(value.widen()) != top::<T>(value.widen() << 1) };
    Outcome { value, flags: sign_zero_parity(value) | carry_overflow(carry, overflow), mask: flags::STATUS }
}

fn double_count<T: Int>(cpu: &Vcpu, s: &Step) -> u32 {
    masked::<T>(if s.imm < 0 { cpu.state.slots.get(RCX) as u8 as u32 } else { s.imm as u32 })
}

pub fn double_r<T: Int, const LEFT: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let count = double_count::<T>(cpu, s);
    let (a, b) = (T::narrow(cpu.state.slots.get(s.dst)), T::narrow(cpu.state.slots.get(s.src)));
    if count == 0 {
        cpu.write_slot(s.dst, a);
        return next(cpu, s);
    }
    let out = double::<T, LEFT>(a, b, count);
    cpu.write_slot(s.dst, out.value);
    put_flags(cpu, out.mask, out.flags);
    next(cpu, s)
}

pub fn double_m<T: Int, A: Address, const LEFT: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let count = double_count::<T>(cpu, s);
    let b = T::narrow(cpu.state.slots.get(s.src));
    let update = |a: T| if count == 0 { a } else { double::<T, LEFT>(a, b, count).value };
    match modify::<T, A>(cpu, s, update) {
        Some((old, _)) => {
            if count != 0 {
                let out = double::<T, LEFT>(old, b, count);
                put_flags(cpu, out.mask, out.flags);
            }
            next_after::<A>(cpu, s)
        }
        None => missed::<A>(cpu, s, double_m::<T, A::Slow, LEFT>),
    }
}
