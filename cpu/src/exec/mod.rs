//! The interpreter: blocks of steps, each a handler that does its work and jumps to the next.
//!
//! A handler ends with a call of the next step's handler in tail position. Optimised builds turn that into a jump; where a
//! compiler does not, the stack grows by one small frame a step until the block ends, so nothing depends on it.
//!
//! The dispatcher ([`Vcpu::run`]) chains blocks, counts instructions exactly, and serves events at block boundaries.

mod alu;
mod bit;
mod branch;
mod data;
mod dispatch;
mod events;
mod memory;
mod muldiv;
mod select;
pub(crate) mod shift;
mod stack;
mod vector;

use crate::cache::{Leave, Step};
use crate::memory::Int;
use crate::state::flags::{Lazy, LazyOp};
use crate::vcpu::Vcpu;
pub use branch::{check_target, condition};
pub use dispatch::RawFault;
pub(crate) use memory::fault;
pub use select::{step, steps_of};
pub use shift::sign_zero_parity;
pub(crate) use vector::{register_args, run_step};

/// Continues with the next step of the block.
#[inline(always)]
pub(crate) fn next(cpu: &mut Vcpu, s: &Step) -> Leave {
    let n = s.next();
    (n.run)(cpu, n)
}

/// Holds the flags of `a` − `b`, for helpers that compare.
pub fn put_lazy_compare<T: Int>(cpu: &mut Vcpu, a: T, b: T) {
    let result = T::narrow(a.widen().wrapping_sub(b.widen()));
    cpu.link.lazy = Lazy { result: result.widen(), source: b.widen(), op: LazyOp::Sub, width_log2: T::LOG2 };
}

/// Holds the flags of the addition that gave `sum` from something and `b`.
pub fn put_lazy_add<T: Int>(cpu: &mut Vcpu, sum: T, b: T) {
    cpu.link.lazy = Lazy { result: sum.widen(), source: b.widen(), op: LazyOp::Add, width_log2: T::LOG2 };
}
