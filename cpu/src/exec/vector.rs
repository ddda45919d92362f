//! Loads and stores of vector registers, helper calls.

use super::memory::{Address, canonical, fault, left_early};
use super::next;
use crate::cache::{Handler, Leave, Step};
use crate::check::Check;
use crate::fault::Fault;
use crate::helpers::{Args, Flow};
use crate::mode::ModeBits;
use crate::state::Seg;
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;

fn index(register: u8) -> usize {
    register as usize % 20
}

/// Bit of `cond`: a load leaves bits 255–128 of the register alone.
const KEEP_UPPER: u8 = 2;

/// `imm` bytes of memory to a vector register, zero-extended to 32 bytes.
pub fn load<A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let linear = A::linear(cpu, s);
    let len = s.imm as usize;
    if s.cond & 1 != 0 && !linear.is_multiple_of(len as u64) {
        return fault(cpu, s, Fault::gp(0).because(Check::Alignment));
    }
    let mmu = &cpu.link.mmu;
    let fast = match len {
        16 => mmu.load::<u128>(linear).map(|v| [v as u64, (v >> 64) as u64, 0, 0]),
        8 => mmu.load::<u64>(linear).map(|v| [v, 0, 0, 0]),
        4 => mmu.load::<u32>(linear).map(|v| [u64::from(v), 0, 0, 0]),
        2 => mmu.load::<u16>(linear).map(|v| [u64::from(v), 0, 0, 0]),
        1 => mmu.load::<u8>(linear).map(|v| [u64::from(v), 0, 0, 0]),
        _ => None,
    };
    let value = match fast {
        Some(value) => value,
        None => match load_cold(cpu, s, linear) {
            Ok(value) => value,
            Err(leave) => return leave,
        },
    };
    let register = &mut cpu.state.vectors.regs[index(s.dst)];
    if s.cond & KEEP_UPPER != 0 {
        register[0] = value[0];
        register[1] = value[1];
    } else {
        *register = value;
    }
    next(cpu, s)
}

#[cold]
#[inline(never)]
fn load_cold(cpu: &mut Vcpu, s: &Step, linear: u64) -> Result<[u64; 4], Leave> {
    cpu.link.current = s.insn;
    let len = (s.imm as usize).min(32);
    let mut bytes = [0; 32];
    let view = cpu.view();
    canonical(cpu, s, linear, len as u32)
        .and_then(|()| cpu.load_bytes(Linear(linear), &mut bytes[..len], view))
        .map_err(|f| fault(cpu, s, f))?;
    let mut value = [0; 4];
    for (word, chunk) in value.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = chunk.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b));
    }
    Ok(value)
}

/// `imm` bytes of a vector register to memory.
pub fn store<A: Address>(cpu: &mut Vcpu, s: &Step) -> Leave {
    let linear = A::linear(cpu, s);
    let len = s.imm as usize;
    if s.cond & 1 != 0 && !linear.is_multiple_of(len as u64) {
        return fault(cpu, s, Fault::gp(0).because(Check::Alignment));
    }
    let value = cpu.state.vectors.regs[index(s.src)];
    let mmu = &cpu.link.mmu;
    let done = match len {
        16 => mmu.store(linear, u128::from(value[1]) << 64 | u128::from(value[0])),
        8 => mmu.store(linear, value[0]),
        4 => mmu.store(linear, value[0] as u32),
        2 => mmu.store(linear, value[0] as u16),
        1 => mmu.store(linear, value[0] as u8),
        _ => false,
    };
    if !done {
        if let Err(leave) = store_cold(cpu, s, linear, value) {
            return leave;
        }
        if cpu.link.leave {
            return left_early(cpu, s);
        }
    }
    next(cpu, s)
}

#[cold]
#[inline(never)]
fn store_cold(cpu: &mut Vcpu, s: &Step, linear: u64, value: [u64; 4]) -> Result<(), Leave> {
    cpu.link.current = s.insn;
    let len = (s.imm as usize).min(32);
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(value) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    let view = cpu.view();
    canonical(cpu, s, linear, len as u32)
        .and_then(|()| cpu.store_bytes(Linear(linear), &bytes[..len], view))
        .map_err(|f| fault(cpu, s, f))
}

#[inline(always)]
fn args(s: &Step) -> Args {
    const WIDTHS: [Width; 4] = [Width::B1, Width::B2, Width::B4, Width::B8];
    Args {
        a: s.dst,
        b: s.src,
        c: s.cond,
        width: WIDTHS[(s.width_log2() & 3) as usize],
        seg: Seg::ALL[(s.segment() % 6) as usize],
        imm: s.imm as u64,
    }
}

/// Calls the helper of the step: bits 31–0 of `disp` are its number in the cache's list, bits 63–32 the offset of the next
/// instruction from the block's start, where RIP stands until the block ends.
#[inline(always)]
fn run(cpu: &mut Vcpu, s: &Step) -> Result<Flow, Fault> {
    cpu.materialise_flags();
    cpu.link.current = s.insn;
    let start = cpu.state.rip;
    let next = start.wrapping_add(s.disp as u64 >> 32);
    cpu.state.rip = if cpu.link.mode.has(ModeBits::L) { next } else { next & 0xffff_ffff };
    let flow = (cpu.link.cache.helper(s.disp as u32).run)(cpu, args(s))?;
    if flow == Flow::Next && !cpu.link.leave {
        cpu.state.rip = start;
        return Ok(Flow::Next);
    }
    Ok(Flow::Leave)
}

/// The arguments of a helper that works on registers only: it has no segment.
#[inline(always)]
pub fn register_args(s: &Step) -> Args {
    const WIDTHS: [Width; 4] = [Width::B1, Width::B2, Width::B4, Width::B8];
    let width = WIDTHS[(s.width_log2() & 3) as usize];
    Args { a: s.dst, b: s.src, c: s.cond, width, seg: Seg::Ds, imm: s.imm as u64 }
}

/// Runs a step by itself, as a helper.
pub fn run_step(cpu: &mut Vcpu, args: Args, step: Handler) -> Result<Flow, Fault> {
    let first = Step {
        run: step,
        dst: args.a,
        src: args.b,
        base: 0,
        index: 0,
        scale: 0,
        cond: args.c,
        seg_width: args.seg as u8 | (args.width as u8) << 4,
        insn: cpu.link.current,
        imm: args.imm as i64,
        disp: 0,
    };
    let steps = [first, Step { run: |_, _| Leave::NotTaken, ..first }];
    match step(cpu, &steps[0]) {
        Leave::Fault => Err(cpu.link.fault.take().unwrap_or(Fault::ud())),
        _ => Ok(Flow::Next),
    }
}

/// Calls a helper that works on registers only.
pub fn call_registers(cpu: &mut Vcpu, s: &Step) -> Leave {
    match (cpu.link.cache.helper(s.disp as u32).run)(cpu, args(s)) {
        Ok(_) => next(cpu, s),
        Err(f) => fault(cpu, s, f),
    }
}

/// Calls a helper, goes on.
pub fn call(cpu: &mut Vcpu, s: &Step) -> Leave {
    match run(cpu, s) {
        Ok(Flow::Next) => next(cpu, s),
        Ok(Flow::Leave) => Leave::Helper,
        Err(f) => fault(cpu, s, f),
    }
}

/// Calls a helper, leaves the block.
pub fn call_end(cpu: &mut Vcpu, s: &Step) -> Leave {
    cpu.link.leave = true;
    match run(cpu, s) {
        Ok(_) => Leave::Helper,
        Err(f) => fault(cpu, s, f),
    }
}
