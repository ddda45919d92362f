//! FMA: fused multiply-add (SDM vol. 1, 14.5). Which operand is which, and the signs, are in the immediate ([`Form`]).

use super::lanes::{join, low, split, with_low32, with_low64};
use super::native::Unit;
use super::{Direct, direct, finish, set_ymm, unit, ymm};
use crate::fault::Fault;
use crate::helpers::{Args, Flow};
use crate::softfloat::{self as soft, F32, F64, Format};
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// The order of operands, as in the mnemonic.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// op1 × op3 + op2.
    O132 = 0,
    /// op2 × op1 + op3.
    O213 = 1,
    /// op2 × op3 + op1.
    O231 = 2,
}

/// The signs of product and addend.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Signs {
    /// x·y + z.
    Add = 0,
    /// x·y − z.
    Sub = 1,
    /// −x·y + z.
    NegAdd = 2,
    /// −x·y − z.
    NegSub = 3,
    /// Subtracts in even lanes, adds in odd ones.
    AddSub = 4,
    /// Adds in even lanes, subtracts in odd ones.
    SubAdd = 5,
}

/// A form, packed into the immediate.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Operand order.
    pub order: Order,
    /// Signs.
    pub signs: Signs,
}

impl Form {
    /// As an immediate.
    pub fn pack(self) -> u64 {
        self.order as u64 | (self.signs as u64) << 8
    }
}

/// The three numbers in the order x, y, z of x·y + z.
fn arrange<T>(imm: u64, a: T, b: T, c: T) -> (T, T, T) {
    match imm & 3 {
        0 => (a, c, b),
        1 => (b, a, c),
        _ => (b, c, a),
    }
}

/// One fused operation in lane `lane`.
fn fused<F: Format>(imm: u64, lane: usize, (x, y, z): (F, F, F), env: &mut Unit) -> F {
    let odd = lane & 1 != 0;
    let (negate_product, negate_addend) = match imm >> 8 {
        0 => (false, false),
        1 => (false, true),
        2 => (true, false),
        3 => (true, true),
        4 => (false, !odd),
        _ => (false, odd),
    };
    let signed = |v: F, negate: bool| if negate && !v.is_nan() { v.negated() } else { v };
    let (x, z) = (signed(x, negate_product), signed(z, negate_addend));
    env.exactly(|env| soft::fma(x, y, z, env))
}

/// Runs a packed form: `width` of 8 bytes means 256 bits.
fn packed(cpu: &mut Vcpu, args: Args, lane: fn(u64, [u128; 3], &mut Unit) -> u128) -> Result<Flow, Fault> {
    let mut unit = unit(cpu);
    let (a, b, c) = (ymm(cpu, args.a), ymm(cpu, args.b), ymm(cpu, args.c));
    let first = lane(args.imm, [a[0], b[0], c[0]], &mut unit);
    let second = if args.width == Width::B8 { lane(args.imm, [a[1], b[1], c[1]], &mut unit) } else { 0 };
    finish(cpu, &unit)?;
    set_ymm(cpu, args.a, [first, second]);
    Ok(Flow::Next)
}

/// Packed single.
pub static PS: Direct = direct!("vfma_ps", |cpu, args| {
    packed(cpu, args, |imm, [a, b, c], env| {
        let (a, b, c) = (split::<F32>(a), split::<F32>(b), split::<F32>(c));
        join::<F32>(std::array::from_fn(|i| fused(imm, i, arrange(imm, a[i], b[i], c[i]), env)))
    })
});

/// Packed double.
pub static PD: Direct = direct!("vfma_pd", |cpu, args| {
    packed(cpu, args, |imm, [a, b, c], env| {
        let (a, b, c) = (split::<F64>(a), split::<F64>(b), split::<F64>(c));
        join::<F64>(std::array::from_fn(|i| fused(imm, i, arrange(imm, a[i], b[i], c[i]), env)))
    })
});

/// Scalar single.
pub static SS: Direct = direct!("vfma_ss", |cpu, args| {
    packed(cpu, args, |imm, [a, b, c], env| {
        let operands = arrange(imm, F32(a as u32), F32(b as u32), F32(c as u32));
        with_low32(a, fused(imm, 0, operands, env).0)
    })
});

/// Scalar double.
pub static SD: Direct = direct!("vfma_sd", |cpu, args| {
    packed(cpu, args, |imm, [a, b, c], env| {
        let operands = arrange(imm, F64(low(a)), F64(low(b)), F64(low(c)));
        with_low64(a, fused(imm, 0, operands, env).0)
    })
});
