//! The portable vector unit: MMX, SSE to SSE4.2, SSE4a, AES, PCLMULQDQ, SHA, GFNI and their VEX forms, in safe Rust.
//!
//! What an instruction means is a small pure function over 128-bit values, declared once with `integer_forms!` or
//! `float_forms!`; the macro makes from it the helpers for the legacy, VEX.128, VEX.256 (per 128-bit lane) and MMX
//! encodings. `lift::vector` says which operands go where. A file per group of the manual (SDM vol. 1, chapters 9–14).
//!
//! Arguments of every such helper: `a` the destination, `b` the source (legacy) or first source (VEX), `c` the second
//! source (VEX), `imm` the immediate (VEX.256: bits 15–8 are the immediate of the upper half). Numbers from [`V0`] up are temporaries, also where a helper expects an MMX or
//! general register: then the temporary's low quadword stands for it.
//!
//! Left out: AVX-512. NOTE: lane functions go through integers rather than host intrinsics, which are `unsafe` and
//! not portable; the hottest packed operations are written SWAR.

pub mod aes;
pub mod bmi;
pub mod clmul;
pub mod convert;
pub mod float;
pub mod fma;
pub mod gather;
pub mod general;
pub mod gfni;
pub mod half;
pub mod integer;
pub mod lanes;
pub mod mmx;
pub mod moves;
mod native;
pub mod sha;
pub mod shift;
pub mod shuffle;
pub mod string42;
mod swar;
pub mod wide;

use crate::cache::Handler;
use crate::fault::Fault;
use crate::helpers::{Args, Flow, Helper};
use crate::softfloat::Flags;
use crate::state::control::cr4;
use crate::state::flags::{self, Lazy};
use crate::state::fpu::V0;
use crate::vcpu::Vcpu;
use lanes::{high, low, pair};
use native::Unit;

/// A helper that works on registers only, and the same as a step of the interpreter.
#[derive(Debug)]
pub struct Direct {
    /// The helper.
    pub helper: Helper,
    /// The step, which goes on with the next one.
    pub step: Handler,
}

/// Makes a [`Direct`] of a function `|cpu, args| -> Result<Flow, Fault>` that always goes on with the next step.
macro_rules! direct {
    ($name:expr, |$cpu:ident, $args:pat_param| $body:expr) => {{
        #[inline(always)]
        fn body($cpu: &mut crate::vcpu::Vcpu, $args: crate::helpers::Args) -> crate::vector::Outcome {
            $body
        }
        fn step(cpu: &mut crate::vcpu::Vcpu, s: &crate::cache::Step) -> crate::cache::Leave {
            match body(cpu, crate::exec::register_args(s)) {
                Ok(_) => crate::exec::next(cpu, s),
                Err(fault) => crate::exec::fault(cpu, s, fault),
            }
        }
        crate::vector::Direct {
            helper: crate::helpers::Helper { name: $name, run: |cpu, args| crate::exec::run_step(cpu, args, step) },
            step,
        }
    }};
}
pub(crate) use direct;

/// What the body of a helper gives.
pub type Outcome = Result<Flow, Fault>;

/// The helpers of one instruction, by encoding.
#[derive(Debug)]
pub struct Forms {
    /// Legacy SSE: `a = f(a, b)`, bits 255–128 kept.
    pub sse: Direct,
    /// VEX.128: `a = f(b, c)`, bits 255–128 cleared.
    pub vex: Direct,
    /// VEX.256: `a = f(b, c)` on each half.
    pub ymm: Direct,
    /// MMX: the low 64 bits of `f(a, b)`; right only for instructions whose lanes do not mix.
    pub mmx: Direct,
}

/// Declares [`Forms`] from pure functions `|a, b, imm| -> u128`.
macro_rules! integer_forms {
    ($($(#[$doc:meta])* $name:ident = |$a:pat_param, $b:pat_param, $imm:pat_param| $body:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: crate::vector::Forms = {
            #[inline(always)]
            fn lane($a: u128, $b: u128, $imm: u8) -> u128 {
                $body
            }
            crate::vector::Forms {
                sse: crate::vector::direct!(stringify!($name), |cpu, args| crate::vector::run_sse(cpu, args, lane)),
                vex: crate::vector::direct!(stringify!($name), |cpu, args| crate::vector::run_vex(cpu, args, lane)),
                ymm: crate::vector::direct!(stringify!($name), |cpu, args| crate::vector::run_ymm(cpu, args, lane)),
                mmx: crate::vector::direct!(stringify!($name), |cpu, args| crate::vector::run_mmx(cpu, args, lane)),
            }
        };
    )*};
}
pub(crate) use integer_forms;

/// Declares [`Forms`] from functions `|a, b, imm, env| -> u128` that may raise SIMD floating-point exceptions.
macro_rules! float_forms {
    ($($(#[$doc:meta])* $name:ident = |$a:pat_param, $b:pat_param, $imm:pat_param, $env:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: crate::vector::Forms = {
            #[inline(always)]
            fn lane($a: u128, $b: u128, $imm: u8, $env: &mut crate::vector::native::Unit) -> u128 {
                $body
            }
            crate::vector::Forms {
                sse: crate::vector::direct!(stringify!($name), |cpu, args| crate::vector::float_sse(cpu, args, lane)),
                vex: crate::vector::direct!(stringify!($name), |cpu, args| crate::vector::float_vex(cpu, args, lane)),
                ymm: crate::vector::direct!(stringify!($name), |cpu, args| crate::vector::float_ymm(cpu, args, lane)),
                mmx: crate::vector::direct!(stringify!($name), |cpu, args| crate::vector::float_mmx(cpu, args, lane)),
            }
        };
    )*};
}
pub(crate) use float_forms;

/// Declares [`Forms`] of arithmetic from a function that gives the result if the host's arithmetic will do, and one that
/// gives it in any case. The first needs no memory for the exceptions that it does not find.
macro_rules! quick_forms {
    ($($(#[$doc:meta])* $name:ident = |$a:ident, $b:ident, $unit:ident| $quick:expr, |$env:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub static $name: crate::vector::Forms = {
            #[inline(always)]
            fn quick($a: u128, $b: u128, $unit: crate::vector::native::Unit) -> Option<u128> {
                $quick
            }
            fn lane($a: u128, $b: u128, _: u8, $env: &mut crate::vector::native::Unit) -> u128 {
                $body
            }
            #[cold]
            #[inline(never)]
            fn slow_sse(cpu: &mut crate::vcpu::Vcpu, args: crate::helpers::Args) -> crate::vector::Outcome {
                crate::vector::float_sse(cpu, args, lane)
            }
            #[cold]
            #[inline(never)]
            fn slow_vex(cpu: &mut crate::vcpu::Vcpu, args: crate::helpers::Args) -> crate::vector::Outcome {
                crate::vector::float_vex(cpu, args, lane)
            }
            crate::vector::Forms {
                sse: crate::vector::direct!(stringify!($name), |cpu, args| {
                    let (a, b) = (crate::vector::xmm(cpu, args.a), crate::vector::xmm(cpu, args.b));
                    match quick(a, b, crate::vector::unit(cpu)) {
                        Some(result) => crate::vector::set_xmm(cpu, args.a, result),
                        None => return slow_sse(cpu, args),
                    }
                    Ok(crate::helpers::Flow::Next)
                }),
                vex: crate::vector::direct!(stringify!($name), |cpu, args| {
                    let (a, b) = (crate::vector::xmm(cpu, args.b), crate::vector::xmm(cpu, args.c));
                    match quick(a, b, crate::vector::unit(cpu)) {
                        Some(result) => crate::vector::set_xmm_zeroing(cpu, args.a, result),
                        None => return slow_vex(cpu, args),
                    }
                    Ok(crate::helpers::Flow::Next)
                }),
                ymm: crate::vector::direct!(stringify!($name), |cpu, args| crate::vector::float_ymm(cpu, args, lane)),
                mmx: crate::vector::direct!(stringify!($name), |cpu, args| crate::vector::float_mmx(cpu, args, lane)),
            }
        };
    )*};
}
pub(crate) use quick_forms;

/// XMM register (or temporary) `n`.
#[inline(always)]
pub fn xmm(cpu: &Vcpu, n: u8) -> u128 {
    let r = &cpu.state.vectors.regs[n as usize];
    pair(r[0], r[1])
}

/// Sets XMM register `n`; bits 255–128 stay.
#[inline(always)]
pub fn set_xmm(cpu: &mut Vcpu, n: u8, value: u128) {
    let r = &mut cpu.state.vectors.regs[n as usize];
    r[0] = low(value);
    r[1] = high(value);
}

/// Sets XMM register `n` and clears bits 255–128.
#[inline(always)]
pub fn set_xmm_zeroing(cpu: &mut Vcpu, n: u8, value: u128) {
    cpu.state.vectors.regs[n as usize] = [low(value), high(value), 0, 0];
}

/// YMM register (or temporary) `n` as low and high half.
#[inline(always)]
pub fn ymm(cpu: &Vcpu, n: u8) -> [u128; 2] {
    let r = &cpu.state.vectors.regs[n as usize];
    [pair(r[0], r[1]), pair(r[2], r[3])]
}

/// Sets YMM register `n`.
#[inline(always)]
pub fn set_ymm(cpu: &mut Vcpu, n: u8, value: [u128; 2]) {
    cpu.state.vectors.regs[n as usize] = [low(value[0]), high(value[0]), low(value[1]), high(value[1])];
}

/// General register `n`, or the low quadword of temporary `n`.
#[inline(always)]
pub fn general_or_temporary(cpu: &Vcpu, n: u8) -> u64 {
    if n >= V0 { cpu.state.vectors.regs[n as usize][0] } else { cpu.state.gpr(n) }
}

/// Runs the legacy form of a pure function.
#[inline(always)]
pub fn run_sse(cpu: &mut Vcpu, args: Args, lane: impl Fn(u128, u128, u8) -> u128) -> Result<Flow, Fault> {
    let result = lane(xmm(cpu, args.a), xmm(cpu, args.b), args.imm as u8);
    set_xmm(cpu, args.a, result);
    Ok(Flow::Next)
}

/// Runs the VEX.128 form of a pure function.
#[inline(always)]
pub fn run_vex(cpu: &mut Vcpu, args: Args, lane: impl Fn(u128, u128, u8) -> u128) -> Result<Flow, Fault> {
    let result = lane(xmm(cpu, args.b), xmm(cpu, args.c), args.imm as u8);
    set_xmm_zeroing(cpu, args.a, result);
    Ok(Flow::Next)
}

/// Runs the VEX.256 form of a pure function.
#[inline(always)]
pub fn run_ymm(cpu: &mut Vcpu, args: Args, lane: impl Fn(u128, u128, u8) -> u128) -> Result<Flow, Fault> {
    let (x, y) = (ymm(cpu, args.b), ymm(cpu, args.c));
    set_ymm(cpu, args.a, [lane(x[0], y[0], args.imm as u8), lane(x[1], y[1], (args.imm >> 8) as u8)]);
    Ok(Flow::Next)
}

/// Runs the MMX form of a pure function.
#[inline(always)]
pub fn run_mmx(cpu: &mut Vcpu, args: Args, lane: impl Fn(u128, u128, u8) -> u128) -> Result<Flow, Fault> {
    let (x, y) = (mmx::read(cpu, args.a), mmx::read(cpu, args.b));
    mmx::enter(cpu)?;
    mmx::write(cpu, args.a, low(lane(u128::from(x), u128::from(y), args.imm as u8)));
    Ok(Flow::Next)
}

/// Records the exceptions of an instruction in MXCSR: #XM (or #UD without CR4.OSXMMEXCPT) if one is unmasked.
#[inline(always)]
pub fn finish(cpu: &mut Vcpu, unit: &Unit) -> Result<(), Fault> {
    if unit.flags == Flags::NONE {
        return Ok(());
    }
    finish_raised(cpu, unit)
}

fn finish_raised(cpu: &mut Vcpu, unit: &Unit) -> Result<(), Fault> {
    let (status, unmasked) = unit.outcome();
    cpu.state.vectors.mxcsr |= u32::from(status.0);
    if unmasked == Flags::NONE {
        return Ok(());
    }
    Err(if cpu.state.control.cr4 & cr4::OSXMMEXCPT != 0 { Fault::xm() } else { Fault::ud() })
}

/// The floating-point unit as MXCSR sets it up.
#[inline(always)]
pub fn unit(cpu: &Vcpu) -> Unit {
    Unit::new(cpu.state.vectors.mxcsr)
}

/// Runs the legacy form of a floating-point function.
#[inline(always)]
pub fn float_sse(cpu: &mut Vcpu, args: Args, lane: impl Fn(u128, u128, u8, &mut Unit) -> u128) -> Result<Flow, Fault> {
    let mut unit = unit(cpu);
    let result = lane(xmm(cpu, args.a), xmm(cpu, args.b), args.imm as u8, &mut unit);
    finish(cpu, &unit)?;
    set_xmm(cpu, args.a, result);
    Ok(Flow::Next)
}

/// Runs the VEX.128 form of a floating-point function.
#[inline(always)]
pub fn float_vex(cpu: &mut Vcpu, args: Args, lane: impl Fn(u128, u128, u8, &mut Unit) -> u128) -> Result<Flow, Fault> {
    let mut unit = unit(cpu);
    let result = lane(xmm(cpu, args.b), xmm(cpu, args.c), args.imm as u8, &mut unit);
    finish(cpu, &unit)?;
    set_xmm_zeroing(cpu, args.a, result);
    Ok(Flow::Next)
}

/// Runs the VEX.256 form of a floating-point function.
#[inline(always)]
pub fn float_ymm(cpu: &mut Vcpu, args: Args, lane: impl Fn(u128, u128, u8, &mut Unit) -> u128) -> Result<Flow, Fault> {
    let mut unit = unit(cpu);
    let (x, y) = (ymm(cpu, args.b), ymm(cpu, args.c));
    let result = [lane(x[0], y[0], args.imm as u8, &mut unit), lane(x[1], y[1], (args.imm >> 8) as u8, &mut unit)];
    finish(cpu, &unit)?;
    set_ymm(cpu, args.a, result);
    Ok(Flow::Next)
}

/// Runs a conversion from XMM or memory (`b`) to an MMX register (CVTPS2PI and the like).
#[inline(always)]
pub fn float_mmx(cpu: &mut Vcpu, args: Args, lane: impl Fn(u128, u128, u8, &mut Unit) -> u128) -> Result<Flow, Fault> {
    mmx::check(cpu)?;
    let mut unit = unit(cpu);
    let result = lane(0, xmm(cpu, args.b), args.imm as u8, &mut unit);
    finish(cpu, &unit)?;
    mmx::enter(cpu)?;
    mmx::write(cpu, args.a, low(result));
    Ok(Flow::Next)
}

/// Sets the status flags: those in `status`, and no other.
#[inline(always)]
pub fn set_status(cpu: &mut Vcpu, status: u64) {
    cpu.link.lazy = Lazy::NONE;
    cpu.state.rflags = cpu.state.rflags & !flags::STATUS | status;
}
