//! Multiplication and division (SDM vol. 2: MUL, IMUL, DIV, IDIV).
//!
//! Undefined flags have one value here: MUL and IMUL set SF, ZF and PF from the low half of the product and clear AF; DIV and
//! IDIV leave all flags as they were.

use super::memory::{Address, fault, missed, source};
use super::next;
use super::shift::{put_flags, sign_zero_parity};
use crate::cache::{Leave, Step};
use crate::fault::Fault;
use crate::memory::Int;
use crate::state::flags;
use crate::state::slots::{RAX, RDX};
use crate::vcpu::Vcpu;

fn product_flags<T: Int>(cpu: &mut Vcpu, low: T, overflowed: bool) {
    let carry = if overflowed { flags::CF | flags::OF } else { 0 };
    put_flags(cpu, flags::STATUS, sign_zero_parity(low) | carry);
}

#[inline(always)]
fn signed_product<T: Int>(cpu: &mut Vcpu, dst: u8, a: T, b: T) {
    let (a, b) = (a.widen_signed(), b.widen_signed());
    let (low, overflowed) = if T::BITS == 64 {
        let (low, overflowed) = a.overflowing_mul(b);
        (T::narrow(low as u64), overflowed)
    } else {
        let product = a.wrapping_mul(b);
        let low = T::narrow(product as u64);
        (low, low.widen_signed() != product)
    };
    cpu.write_slot(dst, low);
    product_flags(cpu, low, overflowed);
}

pub fn imul<T: Int, A: Address, const MEMORY: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    match source::<T, A, MEMORY>(cpu, s) {
        Some(b) => {
            let a = T::narrow(cpu.state.slots.get(s.dst));
            signed_product(cpu, s.dst, a, b);
        }
        None => return missed::<A>(cpu, s, imul::<T, A::Slow, MEMORY>),
    }
    next(cpu, s)
}

pub fn imul3<T: Int, A: Address, const MEMORY: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    match source::<T, A, MEMORY>(cpu, s) {
        Some(a) => signed_product(cpu, s.dst, a, T::narrow(s.imm as u64)),
        None => return missed::<A>(cpu, s, imul3::<T, A::Slow, MEMORY>),
    }
    next(cpu, s)
}

/// Writes a double-width value to rDX:rAX, or AX for bytes.
#[inline(always)]
fn write_pair<T: Int>(cpu: &mut Vcpu, low: T, high: T) {
    if T::LOG2 == 0 {
        cpu.write_slot(RAX, (high.widen() << 8 | low.widen()) as u16);
    } else {
        cpu.write_slot(RAX, low);
        cpu.write_slot(RDX, high);
    }
}

pub fn mul_wide<T: Int, A: Address, const MEMORY: bool, const SIGNED: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let b = match source::<T, A, MEMORY>(cpu, s) {
        Some(b) => b,
        None => return missed::<A>(cpu, s, mul_wide::<T, A::Slow, MEMORY, SIGNED>),
    };
    let a = T::narrow(cpu.state.slots.get(RAX));
    let (low, high, overflowed) = if SIGNED {
        let product = i128::from(a.widen_signed()) * i128::from(b.widen_signed());
        let low = T::narrow(product as u64);
        (low, T::narrow((product >> T::BITS) as u64), i128::from(low.widen_signed()) != product)
    } else {
        let product = u128::from(a.widen()) * u128::from(b.widen());
        let high = T::narrow((product >> T::BITS) as u64);
        (T::narrow(product as u64), high, high.widen() != 0)
    };
    write_pair(cpu, low, high);
    product_flags(cpu, low, overflowed);
    next(cpu, s)
}

/// The dividend: rDX:rAX, or AX for bytes.
#[inline(always)]
fn dividend<T: Int>(cpu: &Vcpu) -> u128 {
    let rax = cpu.state.slots.get(RAX);
    if T::LOG2 == 0 {
        return u128::from(rax as u16);
    }
    let high = T::narrow(cpu.state.slots.get(RDX)).widen();
    u128::from(high) << T::BITS | u128::from(T::narrow(rax).widen())
}

/// Quotient and remainder, `None` if the divisor is zero or the quotient too large.
#[inline(always)]
fn divide<T: Int, const SIGNED: bool>(a: u128, b: T) -> Option<(T, T)> {
    if b.widen() == 0 {
        return None;
    }
    if SIGNED {
        let shift = 128 - 2 * T::BITS;
        let (a, b) = ((a << shift) as i128 >> shift, i128::from(b.widen_signed()));
        let (quotient, remainder) = match (i64::try_from(a), i64::try_from(b)) {
            (Ok(a), Ok(b)) => (i128::from(a.checked_div(b)?), i128::from(a.wrapping_rem(b))),
            _ => (a.checked_div(b)?, a.wrapping_rem(b)),
        };
        let low = T::narrow(quotient as u64);
        (i128::from(low.widen_signed()) == quotient).then(|| (low, T::narrow(remainder as u64)))
    } else {
        let b = b.widen();
        if let Ok(a) = u64::try_from(a) {
            let quotient = a / b;
            return (quotient <= T::narrow(u64::MAX).widen()).then(|| (T::narrow(quotient), T::narrow(a % b)));
        }
        let b = u128::from(b);
        let quotient = a / b;
        (quotient >> T::BITS == 0).then(|| (T::narrow(quotient as u64), T::narrow((a % b) as u64)))
    }
}

pub fn div<T: Int, A: Address, const MEMORY: bool, const SIGNED: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let b = match source::<T, A, MEMORY>(cpu, s) {
        Some(b) => b,
        None => return missed::<A>(cpu, s, div::<T, A::Slow, MEMORY, SIGNED>),
    };
    match divide::<T, SIGNED>(dividend::<T>(cpu), b) {
        Some((quotient, remainder)) => write_pair(cpu, quotient, remainder),
        None => return fault(cpu, s, Fault::de()),
    }
    next(cpu, s)
}
