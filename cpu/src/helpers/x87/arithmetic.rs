//! FADD to FDIVR, FSQRT, FRNDINT, FSCALE, FXTRACT, FPREM, FPREM1, FABS, FCHS (SDM vol. 1 8.3.5, 8.3.6).

use super::{Args, Flow, Frame, note_pointers, pops, source, status};
use crate::fault::Fault;
use crate::helpers::Helper;
use crate::softfloat::{Env, F80, Quotient, Remainder};
use crate::vcpu::Vcpu;

/// FADD, FADDP, FIADD.
pub static ADD: Helper = Helper { name: "fadd", run: |cpu, args| binary(cpu, args, F80::add) };
/// FMUL, FMULP, FIMUL.
pub static MUL: Helper = Helper { name: "fmul", run: |cpu, args| binary(cpu, args, F80::mul) };
/// FSUB, FSUBP, FISUB.
pub static SUB: Helper = Helper { name: "fsub", run: |cpu, args| binary(cpu, args, F80::sub) };
/// FSUBR, FSUBRP, FISUBR.
pub static SUBR: Helper = Helper { name: "fsubr", run: |cpu, args| binary(cpu, args, |x, y, env| y.sub(x, env)) };
/// FDIV, FDIVP, FIDIV.
pub static DIV: Helper = Helper { name: "fdiv", run: |cpu, args| binary(cpu, args, F80::div) };
/// FDIVR, FDIVRP, FIDIVR.
pub static DIVR: Helper = Helper { name: "fdivr", run: |cpu, args| binary(cpu, args, |x, y, env| y.div(x, env)) };
/// FSQRT.
pub static SQRT: Helper = Helper { name: "fsqrt", run: |cpu, args| unary(cpu, args, F80::sqrt) };
/// FRNDINT.
pub static RNDINT: Helper = Helper { name: "frndint", run: |cpu, args| unary(cpu, args, F80::round_to_integer) };
/// FABS.
pub static ABS: Helper = Helper { name: "fabs", run: |cpu, args| unary(cpu, args, |x, _| x.absolute()) };
/// FCHS.
pub static CHS: Helper = Helper { name: "fchs", run: |cpu, args| unary(cpu, args, |x, _| x.negated()) };
/// FSCALE.
pub static SCALE: Helper = Helper { name: "fscale", run: |cpu, args| binary(cpu, args, F80::scale) };
/// FXTRACT.
pub static XTRACT: Helper = Helper { name: "fxtract", run: extract };
/// FPREM.
pub static PREM: Helper = Helper { name: "fprem", run: |cpu, args| remainder(cpu, args, Quotient::Truncated) };
/// FPREM1.
pub static PREM1: Helper = Helper { name: "fprem1", run: |cpu, args| remainder(cpu, args, Quotient::Nearest) };

/// ST(a) = operation(ST(a), source), then pops.
fn binary(cpu: &mut Vcpu, args: Args, operation: fn(F80, F80, &mut Env) -> F80) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    let y = source(&mut frame, cpu, args)?;
    let x = frame.take(&cpu.state.fpu, args.a);
    let result = if frame.sound() { operation(x, y, &mut frame.env) } else { F80::INDEFINITE };
    if frame.computed() {
        cpu.state.fpu.set(args.a, result);
        cpu.state.fpu.pop(pops(args));
    }
    Ok(frame.finish(cpu))
}

/// ST(0) = operation(ST(0)).
fn unary(cpu: &mut Vcpu, args: Args, operation: fn(F80, &mut Env) -> F80) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    let x = frame.take(&cpu.state.fpu, 0);
    let result = if frame.sound() { operation(x, &mut frame.env) } else { x };
    if frame.computed() {
        cpu.state.fpu.set(0, result);
    }
    Ok(frame.finish(cpu))
}

/// ST(0) becomes the exponent, then the significand is pushed.
fn extract(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    let x = frame.take(&cpu.state.fpu, 0);
    if frame.sound() && cpu.state.fpu.is_full() {
        frame.overflow();
    }
    let (exponent, significand) =
        if frame.sound() { x.extract(&mut frame.env) } else { (F80::INDEFINITE, F80::INDEFINITE) };
    if frame.computed() {
        cpu.state.fpu.set(0, exponent);
        cpu.state.fpu.push(significand);
    }
    Ok(frame.finish(cpu))
}

/// The remainder of ST(0) / ST(1); the low quotient bits go to C0, C3 and C1, an incomplete reduction to C2. Without a
/// quotient C0 and C3 stay as they are.
fn remainder(cpu: &mut Vcpu, args: Args, quotient: Quotient) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    let x = frame.take(&cpu.state.fpu, 0);
    let y = frame.take(&cpu.state.fpu, 1);
    let result = match frame.sound() {
        true => x.remainder(y, quotient, &mut frame.env),
        false => Remainder { value: F80::INDEFINITE, quotient: Some(0) },
    };
    frame.env.rounded_up = false;
    let computed = frame.computed();
    let flow = frame.finish(cpu);
    let fpu = &mut cpu.state.fpu;
    fpu.sw &= !status::C2;
    if !computed {
        return Ok(flow);
    }
    fpu.set(0, result.value);
    if result.value.is_nan() {
        return Ok(flow);
    }
    let bit = |quotient: u8, bit: u8, condition: u16| if quotient >> bit & 1 != 0 { condition } else { 0 };
    let conditions = match result.quotient {
        Some(q) => bit(q, 2, status::C0) | bit(q, 1, status::C3) | bit(q, 0, status::C1),
        None => status::C2,
    };
    fpu.sw = fpu.sw & !status::CONDITIONS | conditions;
    Ok(flow)
}
