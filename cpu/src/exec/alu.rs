//! Binary and unary arithmetic and logic (SDM vol. 2: ADD … XOR, CMP, TEST, INC, DEC, NEG, NOT).

use super::memory::{Address, load, missed, next_after, rmw};
use super::next;
use crate::cache::{Handler, Leave, Step};
use crate::memory::Int;
use crate::state::flags::{Lazy, LazyOp};
use crate::vcpu::Vcpu;

/// A two-operand operation: its result, and the lazy form of its flags.
pub trait Binary {
    /// How its flags are held.
    const LAZY: LazyOp;
    /// Whether the result goes to the destination.
    const WRITES: bool = true;
    /// The result of `a op b`.
    fn apply<T: Int>(a: T, b: T) -> T;
}

macro_rules! binary {
    ($($name:ident $lazy:ident $writes:literal |$a:ident, $b:ident| $result:expr;)*) => {$(
        pub struct $name;
        impl Binary for $name {
            const LAZY: LazyOp = LazyOp::$lazy;
            const WRITES: bool = $writes;
            #[inline(always)]
            fn apply<T: Int>(a: T, b: T) -> T {
                let ($a, $b) = (a.widen(), b.widen());
                T::narrow($result)
            }
        }
    )*};
}
binary! {
    Add Add true |a, b| a.wrapping_add(b);
    Sub Sub true |a, b| a.wrapping_sub(b);
    And Logic true |a, b| a & b;
    Or Logic true |a, b| a | b;
    Xor Logic true |a, b| a ^ b;
    Cmp Sub false |a, b| a.wrapping_sub(b);
    Test Logic false |a, b| a & b;
}

#[inline(always)]
fn hold<T: Int>(cpu: &mut Vcpu, op: LazyOp, result: T, source: T) {
    cpu.link.lazy = Lazy { result: result.widen(), source: source.widen(), op, width_log2: T::LOG2 };
}

#[inline(always)]
fn slot<T: Int>(cpu: &Vcpu, slot: u8) -> T {
    T::narrow(cpu.state.slots.get(slot))
}

/// dst = dst op b.
#[inline(always)]
fn to_register<O: Binary, T: Int, const FLAGS: bool>(cpu: &mut Vcpu, s: &Step, b: T) {
    let result = O::apply(slot::<T>(cpu, s.dst), b);
    if FLAGS || !O::WRITES {
        hold(cpu, O::LAZY, result, b);
    }
    if O::WRITES {
        cpu.write_slot(s.dst, result);
    }
}

pub fn rr<O: Binary, T: Int, const FLAGS: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let b = slot(cpu, s.src);
    to_register::<O, T, FLAGS>(cpu, s, b);
    next(cpu, s)
}

pub fn ri<O: Binary, T: Int, const FLAGS: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    to_register::<O, T, FLAGS>(cpu, s, T::narrow(s.imm as u64));
    next(cpu, s)
}

pub fn rm<O: Binary, T: Int, A: Address, const FLAGS: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    match load::<T, A>(cpu, s) {
        Some(b) => to_register::<O, T, FLAGS>(cpu, s, b),
        None => return missed::<A>(cpu, s, rm::<O, T, A::Slow, FLAGS>),
    }
    next(cpu, s)
}

#[inline(always)]
fn to_memory<O: Binary, T: Int, A: Address, const FLAGS: bool, const LOCK: bool>(
    cpu: &mut Vcpu,
    s: &Step,
    b: T,
    twin: Handler,
) -> Leave {
    let result = if O::WRITES {
        rmw::<T, A, LOCK>(cpu, s, |a| O::apply(a, b)).map(|(_, new)| new)
    } else {
        load::<T, A>(cpu, s).map(|a| O::apply(a, b))
    };
    match result {
        Some(result) => {
            if FLAGS || !O::WRITES {
                hold(cpu, O::LAZY, result, b);
            }
            next_after::<A>(cpu, s)
        }
        None => missed::<A>(cpu, s, twin),
    }
}

pub fn mr<O: Binary, T: Int, A: Address, const FLAGS: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let b = slot(cpu, s.src);
    to_memory::<O, T, A, FLAGS, false>(cpu, s, b, mr::<O, T, A::Slow, FLAGS>)
}

pub fn mi<O: Binary, T: Int, A: Address, const FLAGS: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    to_memory::<O, T, A, FLAGS, false>(cpu, s, T::narrow(s.imm as u64), mi::<O, T, A::Slow, FLAGS>)
}

pub fn locked_mr<O: Binary, T: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let b = slot(cpu, s.src);
    to_memory::<O, T, A, true, true>(cpu, s, b, locked_mr::<O, T, A::Slow>)
}

pub fn locked_mi<O: Binary, T: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    to_memory::<O, T, A, true, true>(cpu, s, T::narrow(s.imm as u64), locked_mi::<O, T, A::Slow>)
}

/// ADC or SBB.
pub trait WithCarry {
    /// The lazy forms without and with carry in.
    const LAZY: [LazyOp; 2];
    /// a op b op carry.
    fn apply(a: u64, b: u64, carry: u64) -> u64;
}

pub struct Adc;
pub struct Sbb;

impl WithCarry for Adc {
    const LAZY: [LazyOp; 2] = [LazyOp::Add, LazyOp::Adc1];
    #[inline(always)]
    fn apply(a: u64, b: u64, carry: u64) -> u64 {
        a.wrapping_add(b).wrapping_add(carry)
    }
}
impl WithCarry for Sbb {
    const LAZY: [LazyOp; 2] = [LazyOp::Sub, LazyOp::Sbb1];
    #[inline(always)]
    fn apply(a: u64, b: u64, carry: u64) -> u64 {
        a.wrapping_sub(b).wrapping_sub(carry)
    }
}

#[inline(always)]
fn carry_to_register<O: WithCarry, T: Int>(cpu: &mut Vcpu, s: &Step, b: T) {
    let carry = u64::from(cpu.carry());
    let result = T::narrow(O::apply(slot::<T>(cpu, s.dst).widen(), b.widen(), carry));
    hold(cpu, O::LAZY[carry as usize & 1], result, b);
    cpu.write_slot(s.dst, result);
}

pub fn carry_rr<O: WithCarry, T: Int>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let b = slot(cpu, s.src);
    carry_to_register::<O, T>(cpu, s, b);
    next(cpu, s)
}

pub fn carry_ri<O: WithCarry, T: Int>(cpu: &mut Vcpu, s: &Step) -> Leave {
    carry_to_register::<O, T>(cpu, s, T::narrow(s.imm as u64));
    next(cpu, s)
}

pub fn carry_rm<O: WithCarry, T: Int, A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    match load::<T, A>(cpu, s) {
        Some(b) => carry_to_register::<O, T>(cpu, s, b),
        None => return missed::<A>(cpu, s, carry_rm::<O, T, A::Slow>),
    }
    next(cpu, s)
}

#[inline(always)]
fn carry_to_memory<O: WithCarry, T: Int, A: Address, const LOCK: bool>(
    cpu: &mut Vcpu,
    s: &Step,
    b: T,
    twin: Handler,
) -> Leave {
    let carry = u64::from(cpu.carry());
    match rmw::<T, A, LOCK>(cpu, s, |a: T| T::narrow(O::apply(a.widen(), b.widen(), carry))) {
        Some((_, result)) => {
            hold(cpu, O::LAZY[carry as usize & 1], result, b);
            next_after::<A>(cpu, s)
        }
        None => missed::<A>(cpu, s, twin),
    }
}

pub fn carry_mr<O: WithCarry, T: Int, A: Address, const LOCK: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let b = slot(cpu, s.src);
    carry_to_memory::<O, T, A, LOCK>(cpu, s, b, carry_mr::<O, T, A::Slow, LOCK>)
}

pub fn carry_mi<O: WithCarry, T: Int, A: Address, const LOCK: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    carry_to_memory::<O, T, A, LOCK>(cpu, s, T::narrow(s.imm as u64), carry_mi::<O, T, A::Slow, LOCK>)
}

/// A one-operand operation.
pub trait Unary {
    /// The result.
    fn apply<T: Int>(a: T) -> T;
    /// Holds its flags. Called before the destination is written.
    fn hold<T: Int>(cpu: &mut Vcpu, old: T, result: T);
}

pub struct Inc;
pub struct Dec;
pub struct Neg;
pub struct Not;

impl Unary for Inc {
    #[inline(always)]
    fn apply<T: Int>(a: T) -> T {
        T::narrow(a.widen().wrapping_add(1))
    }
    #[inline(always)]
    fn hold<T: Int>(cpu: &mut Vcpu, _: T, result: T) {
        let carry = T::narrow(u64::from(cpu.carry()));
        hold(cpu, LazyOp::Inc, result, carry);
    }
}
impl Unary for Dec {
    #[inline(always)]
    fn apply<T: Int>(a: T) -> T {
        T::narrow(a.widen().wrapping_sub(1))
    }
    #[inline(always)]
    fn hold<T: Int>(cpu: &mut Vcpu, _: T, result: T) {
        let carry = T::narrow(u64::from(cpu.carry()));
        hold(cpu, LazyOp::Dec, result, carry);
    }
}
impl Unary for Neg {
    #[inline(always)]
    fn apply<T: Int>(a: T) -> T {
        T::narrow(a.widen().wrapping_neg())
    }
    #[inline(always)]
    fn hold<T: Int>(cpu: &mut Vcpu, old: T, result: T) {
        hold(cpu, LazyOp::Sub, result, old);
    }
}
impl Unary for Not {
    #[inline(always)]
    fn apply<T: Int>(a: T) -> T {
        T::narrow(!a.widen())
    }
    #[inline(always)]
    fn hold<T: Int>(_: &mut Vcpu, _: T, _: T) {}
}

pub fn unary_r<O: Unary, T: Int, const FLAGS: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let old = slot::<T>(cpu, s.dst);
    let result = O::apply(old);
    if FLAGS {
        O::hold(cpu, old, result);
    }
    cpu.write_slot(s.dst, result);
    next(cpu, s)
}

pub fn unary_m<O: Unary, T: Int, A: Address, const LOCK: bool>(cpu: &mut Vcpu, s: &Step) -> Leave {
    match rmw::<T, A, LOCK>(cpu, s, |a: T| O::apply(a)) {
        Some((old, result)) => {
            O::hold(cpu, old, result);
            next_after::<A>(cpu, s)
        }
        None => missed::<A>(cpu, s, unary_m::<O, T, A::Slow, LOCK>),
    }
}
