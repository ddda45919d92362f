//! Ports: IN, OUT, INS, OUTS and the I/O permission bitmap (SDM vol. 1, chapter 19; vol. 2).
//!
//! INS and OUTS commit per element: registers are right after every element, so that a fault or an interrupt in the
//! middle of a REP restarts the rest.

use super::string::again;
use super::{Args, Flow, Helper};
use crate::check::Check;
use crate::fault::Fault;
use crate::state::flags;
use crate::state::slots::{RAX, RCX, RDI, RDX, RSI};
use crate::state::{Seg, State};
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// IN from the port in `imm`.
pub static IN_IMMEDIATE: Helper = Helper { name: "in", run: |cpu, args| input(cpu, args.imm as u16, args.width) };
/// IN from port DX.
pub static IN_DX: Helper = Helper { name: "in_dx", run: |cpu, args| input(cpu, dx(cpu), args.width) };
/// OUT to the port in `imm`.
pub static OUT_IMMEDIATE: Helper = Helper { name: "out", run: |cpu, args| output(cpu, args.imm as u16, args.width) };
/// OUT to port DX.
pub static OUT_DX: Helper = Helper { name: "out_dx", run: |cpu, args| output(cpu, dx(cpu), args.width) };
/// INS: `width` the element, `a` log2 of the address width, `b` nonzero with REP, `imm` the instruction's length.
pub static INS: Helper = Helper { name: "ins", run: ins };
/// OUTS: as INS; `seg` is the source segment.
pub static OUTS: Helper = Helper { name: "outs", run: outs };

/// Where a 32- or 64-bit TSS holds the offset of its I/O permission bitmap.
const IO_MAP_BASE: u64 = 0x66;

fn dx(cpu: &Vcpu) -> u16 {
    cpu.state.gpr(RDX) as u16
}

/// #GP(0) unless the present task may access `width` bytes at `port`: by IOPL, or by the bitmap in its TSS.
pub fn check_io(cpu: &mut Vcpu, port: u16, width: Width) -> Result<(), Fault> {
    let state = &cpu.state;
    if !state.protected() || !state.v86() && state.cpl <= state.iopl() {
        return Ok(());
    }
    let tr = state.tr;
    let limit = u64::from(tr.limit);
    if !tr.present() || tr.kind() & 8 == 0 || limit < IO_MAP_BASE + 1 {
        return Err(Fault::gp(0).because(Check::Iopl));
    }
    let map: u16 = cpu.load_system(cpu.table_address(tr.base, IO_MAP_BASE)?)?;
    let at = u64::from(map) + u64::from(port >> 3);
    // Two bytes are always read, so the bitmap needs a byte of ones after its last port.
    if at + 1 > limit {
        return Err(Fault::gp(0).because(Check::Iopl));
    }
    let bits: u16 = cpu.load_system(cpu.table_address(tr.base, at)?)?;
    let wanted = (1u16 << width.bytes()) - 1;
    if bits >> (port & 7) & wanted != 0 { Err(Fault::gp(0).because(Check::Iopl)) } else { Ok(()) }
}

fn read_port(cpu: &mut Vcpu, port: u16, width: Width) -> u32 {
    cpu.note_port_breakpoints(port, width.bytes());
    cpu.ask_board(|bus, now| bus.port_read(now, port, width.bytes() as u8))
}

fn write_port(cpu: &mut Vcpu, port: u16, width: Width, value: u32) {
    cpu.note_port_breakpoints(port, width.bytes());
    cpu.ask_board(|bus, now| bus.port_write(now, port, width.bytes() as u8, value & width.mask() as u32));
}

fn input(cpu: &mut Vcpu, port: u16, width: Width) -> Result<Flow, Fault> {
    check_io(cpu, port, width)?;
    cpu.runs_alone()?;
    let value = read_port(cpu, port, width);
    match width {
        Width::B1 => cpu.write_slot(RAX, value as u8),
        Width::B2 => cpu.write_slot(RAX, value as u16),
        _ => cpu.write_slot(RAX, value),
    }
    Ok(Flow::Leave)
}

fn output(cpu: &mut Vcpu, port: u16, width: Width) -> Result<Flow, Fault> {
    check_io(cpu, port, width)?;
    cpu.runs_alone()?;
    let value = cpu.state.gpr(RAX) as u32;
    write_port(cpu, port, width, value);
    Ok(Flow::Leave)
}

/// The part of an index or count register that the address width uses.
fn masked(state: &State, register: u8, mask: u64) -> u64 {
    state.gpr(register) & mask
}

fn set_masked(state: &mut State, register: u8, mask: u64, value: u64) {
    let kept = if mask == 0xffff { state.gpr(register) & !mask } else { 0 };
    state.set_gpr(register, kept | value & mask);
}

/// What moving one element needs.
struct Element {
    port: u16,
    width: Width,
    mask: u64,
    seg: Seg,
}

/// Runs `one` once, or with REP until RCX is zero, the budget is spent or something needs attention; then RIP goes back
/// to the instruction. Each element is one retired instruction.
fn repeat(
    cpu: &mut Vcpu,
    args: Args,
    seg: Seg,
    one: fn(&mut Vcpu, &Element) -> Result<(), Fault>,
) -> Result<Flow, Fault> {
    cpu.runs_alone()?;
    let mask = match args.a {
        1 => 0xffff,
        2 => 0xffff_ffff,
        _ => u64::MAX,
    };
    let element = Element { port: dx(cpu), width: args.width, mask, seg };
    if args.b == 0 {
        one(cpu, &element)?;
        return Ok(Flow::Leave);
    }
    if masked(&cpu.state, RCX, mask) == 0 {
        return Ok(Flow::Leave);
    }
    let budget = cpu.link.end.saturating_sub(cpu.now().0).max(1);
    let mut done = 0;
    loop {
        one(cpu, &element)?;
        let count = masked(&cpu.state, RCX, mask).wrapping_sub(1) & mask;
        set_masked(&mut cpu.state, RCX, mask, count);
        if count == 0 {
            return Ok(Flow::Leave);
        }
        done += 1;
        let traps = cpu.state.rflags & flags::TF != 0 || cpu.trap_is_due();
        if done >= budget || traps || cpu.is_wanted() {
            break;
        }
        cpu.state.retired += 1;
    }
    // The elements so far are done; the rest is the same instruction again. `imm` is its length.
    again(cpu, args.imm, None);
    Ok(Flow::Leave)
}

fn advance(cpu: &mut Vcpu, register: u8, element: &Element) {
    let step = element.width.bytes();
    let at = masked(&cpu.state, register, element.mask);
    let next = if cpu.state.rflags & flags::DF != 0 { at.wrapping_sub(step) } else { at.wrapping_add(step) };
    set_masked(&mut cpu.state, register, element.mask, next);
}

fn ins(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    repeat(cpu, args, Seg::Es, |cpu, e| {
        check_io(cpu, e.port, e.width)?;
        let at = masked(&cpu.state, RDI, e.mask);
        cpu.reserve(e.seg, at, e.width.bytes())?;
        let value = read_port(cpu, e.port, e.width);
        match e.width {
            Width::B1 => cpu.store(e.seg, at, value as u8)?,
            Width::B2 => cpu.store(e.seg, at, value as u16)?,
            _ => cpu.store(e.seg, at, value)?,
        }
        advance(cpu, RDI, e);
        Ok(())
    })
}

fn outs(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    repeat(cpu, args, args.seg, |cpu, e| {
        check_io(cpu, e.port, e.width)?;
        let at = masked(&cpu.state, RSI, e.mask);
        let value = match e.width {
            Width::B1 => u32::from(cpu.load::<u8>(e.seg, at)?),
            Width::B2 => u32::from(cpu.load::<u16>(e.seg, at)?),
            _ => cpu.load::<u32>(e.seg, at)?,
        };
        write_port(cpu, e.port, e.width, value);
        advance(cpu, RSI, e);
        Ok(())
    })
}
