//! F2XM1, FYL2X, FYL2XP1, FPATAN, FPTAN, FSIN, FCOS and FSINCOS (SDM vol. 1 8.3.7, 8.3.8).

use super::{Args, Flow, Frame, note_pointers, status};
use crate::fault::Fault;
use crate::helpers::Helper;
use crate::softfloat::{Env, F80};
use crate::vcpu::Vcpu;

/// F2XM1.
pub static F2XM1: Helper = Helper { name: "f2xm1", run: power };
/// FYL2X.
pub static YL2X: Helper = Helper { name: "fyl2x", run: |cpu, args| two(cpu, args, F80::log2_times) };
/// FYL2XP1.
pub static YL2XP1: Helper = Helper { name: "fyl2xp1", run: |cpu, args| two(cpu, args, F80::log2_plus_one_times) };
/// FPATAN.
pub static PATAN: Helper = Helper { name: "fpatan", run: |cpu, args| two(cpu, args, F80::arc_tangent) };
/// FPTAN.
pub static PTAN: Helper = Helper { name: "fptan", run: |cpu, args| pair(cpu, args, F80::tangent) };
/// FSIN.
pub static SIN: Helper = Helper { name: "fsin", run: |cpu, args| one(cpu, args, F80::sine) };
/// FCOS.
pub static COS: Helper = Helper { name: "fcos", run: |cpu, args| one(cpu, args, F80::cosine) };
/// FSINCOS.
pub static SINCOS: Helper = Helper { name: "fsincos", run: |cpu, args| pair(cpu, args, F80::sine_and_cosine) };

/// ST(0) = 2^ST(0) - 1.
fn power(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    let x = frame.take(&cpu.state.fpu, 0);
    let result = if frame.sound() { x.exp2_minus_one(&mut frame.env) } else { x };
    if frame.computed() {
        cpu.state.fpu.set(0, result);
    }
    Ok(frame.finish(cpu))
}

/// ST(0) = function(ST(0)); an operand out of range stays and sets C2.
fn one(cpu: &mut Vcpu, args: Args, function: fn(F80, &mut Env) -> Option<F80>) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    let x = frame.take(&cpu.state.fpu, 0);
    let result = if frame.sound() { function(x, &mut frame.env) } else { Some(x) };
    set_incomplete(cpu, result.is_none());
    if let Some(result) = result
        && frame.computed()
    {
        cpu.state.fpu.set(0, result);
    }
    Ok(frame.finish(cpu))
}

/// ST(1) = function(ST(0), ST(1)), then pops.
fn two(cpu: &mut Vcpu, args: Args, function: fn(F80, F80, &mut Env) -> F80) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    let x = frame.take(&cpu.state.fpu, 0);
    let y = frame.take(&cpu.state.fpu, 1);
    let result = if frame.sound() { function(x, y, &mut frame.env) } else { F80::INDEFINITE };
    if frame.computed() {
        cpu.state.fpu.set(1, result);
        cpu.state.fpu.pop(1);
    }
    Ok(frame.finish(cpu))
}

/// ST(0) becomes the first result, then the second is pushed; an operand out of range stays and sets C2.
fn pair(cpu: &mut Vcpu, args: Args, function: fn(F80, &mut Env) -> Option<(F80, F80)>) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    let x = frame.take(&cpu.state.fpu, 0);
    if frame.sound() && cpu.state.fpu.is_full() {
        frame.overflow();
    }
    let indefinite = (F80::INDEFINITE, F80::INDEFINITE);
    let result = if frame.sound() { function(x, &mut frame.env) } else { Some(indefinite) };
    set_incomplete(cpu, result.is_none());
    if let Some((below, top)) = result
        && frame.computed()
    {
        cpu.state.fpu.set(0, below);
        cpu.state.fpu.push(top);
    }
    Ok(frame.finish(cpu))
}

/// C2: the operand was out of range.
fn set_incomplete(cpu: &mut Vcpu, incomplete: bool) {
    let fpu = &mut cpu.state.fpu;
    fpu.sw &= !status::C2;
    if incomplete {
        fpu.sw |= status::C2;
    }
}
