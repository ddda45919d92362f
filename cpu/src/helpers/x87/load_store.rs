//! FLD, FILD, FBLD, the constants, FST, FIST, FISTTP, FBSTP, FXCH and FCMOVcc (SDM vol. 1 8.3.3, 8.3.4).

use super::{Args, Flow, Frame, Loaded, Source, load, note_pointers, pops, store_ten};
use crate::fault::Fault;
use crate::helpers::Helper;
use crate::softfloat::{Env, F80, Flags, Rounding};
use crate::state::flags;
use crate::state::slots::T0;
use crate::vcpu::Vcpu;

/// FLD, FILD, FBLD from memory.
pub static LOAD: Helper = Helper { name: "fld", run: load_memory };
/// FLD ST(i).
pub static LOAD_REGISTER: Helper = Helper { name: "fld_st", run: load_register };
/// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ; `a` is the low three bits of the opcode.
pub static LOAD_CONSTANT: Helper = Helper { name: "fld_constant", run: load_constant };
/// FST, FSTP, FIST, FISTP, FBSTP to memory.
pub static STORE: Helper = Helper { name: "fst", run: |cpu, args| store_memory(cpu, args, None) };
/// FISTTP.
pub static STORE_TRUNCATED: Helper =
    Helper { name: "fisttp", run: |cpu, args| store_memory(cpu, args, Some(Rounding::Zero)) };
/// FST ST(i), FSTP ST(i).
pub static STORE_REGISTER: Helper = Helper { name: "fst_st", run: store_register };
/// FSTPNCE ST(i) (D9 D8): FSTP that does not check for an empty ST(0).
pub static STORE_UNCHECKED: Helper = Helper { name: "fstpnce", run: store_unchecked };
/// FXCH.
pub static EXCHANGE: Helper = Helper { name: "fxch", run: exchange };
/// FCMOVcc; `a` is the low four bits of the equivalent Jcc.
pub static MOVE_CONDITIONAL: Helper = Helper { name: "fcmov", run: move_conditional };

/// Pushes a value that `convert` computes, unless the stack is full.
fn push(mut frame: Frame, cpu: &mut Vcpu, convert: impl FnOnce(&mut Frame) -> F80) -> Flow {
    let value = if cpu.state.fpu.is_full() { frame.overflow() } else { convert(&mut frame) };
    // A denormal is loaded even if the denormal exception is not masked.
    if !frame.env.unmasked().has(Flags::INVALID) {
        cpu.state.fpu.push(value);
    }
    frame.finish(cpu)
}

fn load_memory(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let frame = Frame::begin(cpu)?;
    let loaded = load(cpu, args)?;
    note_pointers(cpu, args);
    Ok(push(frame, cpu, |frame| match loaded {
        Loaded::Single(value) => F80::from_f32(value, &mut frame.env),
        Loaded::Double(value) => F80::from_f64(value, &mut frame.env),
        Loaded::Number(value) => value,
    }))
}

fn load_register(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    // An empty source goes before a full stack.
    let value = frame.take(&cpu.state.fpu, args.b);
    if frame.sound() {
        return Ok(push(frame, cpu, |_| value));
    }
    if frame.computed() {
        cpu.state.fpu.push(value);
    }
    Ok(frame.finish(cpu))
}

/// Exponent, significand rounded down, and whether it is nearer to the next one (SDM vol. 2, FLD1).
#[rustfmt::skip]
const CONSTANTS: [(u16, u64, bool, bool); 8] = [
    (0x3fff, 0x8000_0000_0000_0000, false, false), // 1
    (0x4000, 0xd49a_784b_cd1b_8afe, true,  false), // log2 10
    (0x3fff, 0xb8aa_3b29_5c17_f0bb, true,  true),  // log2 e
    (0x4000, 0xc90f_daa2_2168_c234, true,  true),  // pi
    (0x3ffd, 0x9a20_9a84_fbcf_f798, true,  true),  // log10 2
    (0x3ffe, 0xb172_17f7_d1cf_79ab, true,  true),  // ln 2
    (0x0000, 0x0000_0000_0000_0000, false, false), // 0
    (0x0000, 0x0000_0000_0000_0000, false, false), // (no instruction)
];

fn load_constant(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    let (exponent, significand, inexact, nearer) = CONSTANTS[usize::from(args.a & 7)];
    let up = match frame.env.rounding {
        Rounding::Nearest => nearer,
        Rounding::Up => inexact,
        Rounding::Down | Rounding::Zero => false,
    };
    Ok(push(frame, cpu, |_| F80::new(exponent, significand + u64::from(up))))
}

/// What a store writes.
enum Image {
    Two(u16),
    Four(u32),
    Eight(u64),
    Ten([u8; 10]),
}

/// Converts to the destination's format.
fn image(value: F80, args: Args, env: &mut Env) -> Image {
    match Source::of(args) {
        Source::Single => Image::Four(value.to_f32(env).0),
        Source::Double => Image::Eight(value.to_f64(env).0),
        Source::Int16 => Image::Two(value.to_i16(env) as u16),
        Source::Int32 => Image::Four(value.to_i32(env) as u32),
        Source::Int64 => Image::Eight(value.to_i64(env) as u64),
        Source::Decimal => Image::Ten(value.to_bcd(env)),
        Source::Extended | Source::Register => Image::Ten(value.to_bytes()),
    }
}

/// Stores ST(0), then pops. The store comes first, so that a fault leaves everything as it was.
fn store_memory(cpu: &mut Vcpu, args: Args, rounding: Option<Rounding>) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    if let Some(rounding) = rounding {
        frame.env = frame.env.with_rounding(rounding);
    }
    let value = frame.take(&cpu.state.fpu, 0);
    let image = image(value, args, &mut frame.env);
    let stored = frame.stored();
    if stored {
        let (seg, offset) = (args.seg, cpu.state.slots.get(T0));
        match image {
            Image::Two(value) => cpu.store(seg, offset, value)?,
            Image::Four(value) => cpu.store(seg, offset, value)?,
            Image::Eight(value) => cpu.store(seg, offset, value)?,
            Image::Ten(bytes) => store_ten(cpu, seg, offset, bytes)?,
        }
    } else {
        frame.env.rounded_up = false;
    }
    note_pointers(cpu, args);
    if stored {
        cpu.state.fpu.pop(pops(args));
    }
    Ok(frame.finish(cpu))
}

fn store_register(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    let value = frame.take(&cpu.state.fpu, 0);
    if frame.computed() {
        cpu.state.fpu.set(args.a, value);
        cpu.state.fpu.pop(pops(args));
    }
    Ok(frame.finish(cpu))
}

/// An empty ST(0) is popped without being stored.
fn store_unchecked(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    if let Some(value) = cpu.state.fpu.get(0) {
        cpu.state.fpu.set(args.a, value);
    }
    cpu.state.fpu.pop(pops(args));
    Ok(frame.finish(cpu))
}

fn exchange(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    let x = frame.take(&cpu.state.fpu, 0);
    let y = frame.take(&cpu.state.fpu, args.b);
    if frame.computed() {
        cpu.state.fpu.set(0, y);
        cpu.state.fpu.set(args.b, x);
    }
    Ok(frame.finish(cpu))
}

/// The conditions of FCMOVcc: CF, ZF, either, PF, and their opposites.
fn holds(condition: u8, rflags: u64) -> bool {
    let wanted = match condition & 0xe {
        0x2 => flags::CF,
        0x4 => flags::ZF,
        0x6 => flags::CF | flags::ZF,
        _ => flags::PF,
    };
    (rflags & wanted != 0) != (condition & 1 != 0)
}

fn move_conditional(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    let x = frame.take(&cpu.state.fpu, 0);
    let y = frame.take(&cpu.state.fpu, args.b);
    let result = match frame.sound() {
        true if holds(args.a, cpu.flags()) => y,
        true => x,
        false => F80::INDEFINITE,
    };
    if frame.computed() {
        cpu.state.fpu.set(0, result);
    }
    Ok(frame.finish_keeping_c1(cpu))
}
