//! String instructions with and without REP (SDM vol. 1, 7.3.9; vol. 2: REP, MOVS, STOS, LODS, SCAS, CMPS).
//!
//! Each element commits: registers and memory are those after a whole number of elements at every fault and boundary. A
//! repeated instruction is the last of its block; it runs until its count, its condition, the budget or an attention ends
//! it, and each element counts as one retired instruction. Flat segments move whole runs of RAM within a page at a time.
//!
//! Arguments: `a` log2 of the address width, `b` repeat (0 none, 1 REP/REPE, 2 REPNE), `seg` source, `imm` length.

use super::{Args, Flow, Helper};
use crate::exec::put_lazy_compare;
use crate::fault::Fault;
use crate::memory::Int;
use crate::state::flags;
use crate::state::slots::{RAX, RCX, RDI, RSI};
use crate::state::{RepeatedCompare, Seg};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::ram::Direction;

/// MOVS.
pub static MOVS: Helper = Helper { name: "movs", run: |cpu, args| by_width(cpu, args, Kind::Movs) };
/// STOS.
pub static STOS: Helper = Helper { name: "stos", run: |cpu, args| by_width(cpu, args, Kind::Stos) };
/// LODS.
pub static LODS: Helper = Helper { name: "lods", run: |cpu, args| by_width(cpu, args, Kind::Lods) };
/// SCAS.
pub static SCAS: Helper = Helper { name: "scas", run: |cpu, args| by_width(cpu, args, Kind::Scas) };
/// CMPS.
pub static CMPS: Helper = Helper { name: "cmps", run: |cpu, args| by_width(cpu, args, Kind::Cmps) };

#[derive(Copy, Clone, PartialEq, Eq)]
enum Kind {
    Movs,
    Stos,
    Lods,
    Scas,
    Cmps,
}

/// The most elements in one go: bounds the time until the next look at the attention word.
const MOST: u64 = 65_536;

fn by_width(cpu: &mut Vcpu, args: Args, kind: Kind) -> Result<Flow, Fault> {
    match args.width {
        Width::B1 => run::<u8>(cpu, args, kind),
        Width::B2 => run::<u16>(cpu, args, kind),
        Width::B4 => run::<u32>(cpu, args, kind),
        Width::B8 => run::<u64>(cpu, args, kind),
    }
}

/// The registers of a string instruction, in the instruction's address width.
struct Walk {
    mask: u64,
    step: u64,
    direction: Direction,
}

impl Walk {
    fn of(cpu: &Vcpu, args: &Args, bytes: u64) -> Walk {
        let mask = match args.a {
            1 => 0xffff,
            2 => 0xffff_ffff,
            _ => u64::MAX,
        };
        let down = cpu.state.rflags & flags::DF != 0;
        let (step, direction) = if down { (bytes.wrapping_neg(), Direction::Down) } else { (bytes, Direction::Up) };
        Walk { mask, step, direction }
    }
    fn get(&self, cpu: &Vcpu, slot: u8) -> u64 {
        cpu.state.slots.get(slot) & self.mask
    }
    fn put(&self, cpu: &mut Vcpu, slot: u8, value: u64) {
        match self.mask {
            0xffff => cpu.write_slot(slot, value as u16),
            0xffff_ffff => cpu.write_slot(slot, value as u32),
            _ => cpu.write_slot(slot, value),
        }
    }
    fn advance(&self, cpu: &mut Vcpu, slot: u8, elements: u64) {
        let value = self.get(cpu, slot).wrapping_add(self.step.wrapping_mul(elements));
        self.put(cpu, slot, value);
    }
}

fn run<T: Int>(cpu: &mut Vcpu, args: Args, kind: Kind) -> Result<Flow, Fault> {
    let walk = Walk::of(cpu, &args, u64::from(T::BITS / 8));
    if args.b == 0 {
        element::<T>(cpu, &args, &walk, kind)?;
        return Ok(Flow::Next);
    }
    // The single-step trap comes after each element.
    let most = if cpu.state.rflags & flags::TF != 0 { 1 } else { MOST };
    let budget = cpu.link.end.saturating_sub(cpu.now().0).clamp(1, most);
    let compares = matches!(kind, Kind::Scas | Kind::Cmps);
    let started = if compares { compare_since(cpu, args.imm) } else { None };
    // Elements that are done, and those of them that `retired` has: a device sees each at its own time.
    let (mut done, mut counted) = (0, 0);
    loop {
        let count = walk.get(cpu, RCX);
        if count == 0 {
            break;
        }
        if done >= budget || done > 0 && (cpu.link.attention.get() != 0 || cpu.trap_is_due()) {
            // Not finished: the instruction starts again with what is left.
            again(cpu, args.imm, started);
            break;
        }
        cpu.state.retired += done - counted;
        counted = done;
        let moved = match bulk::<T>(cpu, &args, &walk, kind, count.min(budget - done)) {
            0 => match element::<T>(cpu, &args, &walk, kind) {
                Ok(()) => 1,
                Err(fault) => {
                    match started {
                        Some(_) if fault.is_alone() => cpu.state.compare = started,
                        Some(compare) => cpu.set_flags(flags::STATUS, compare.rflags),
                        None => {}
                    }
                    return Err(fault);
                }
            },
            moved => moved,
        };
        done += moved;
        walk.put(cpu, RCX, count.wrapping_sub(moved));
        if compares {
            let equal = cpu.flags() & flags::ZF != 0;
            if equal != (args.b == 1) {
                break;
            }
        }
        if cpu.link.leave && done < budget && walk.get(cpu, RCX) != 0 && cpu.link.attention.get() != 0 {
            again(cpu, args.imm, started);
            break;
        }
    }
    cpu.state.retired += (done - counted).saturating_sub(1);
    Ok(Flow::Leave)
}

/// Where an instruction that has advanced RIP by its `length` begins.
fn begin(cpu: &Vcpu, length: u64) -> u64 {
    let rip = cpu.state.rip.wrapping_sub(length);
    if cpu.state.code64() { rip } else { rip & 0xffff_ffff }
}

/// What a fault in the comparison that now begins, or goes on, restores. It is taken out of the state: only one that is
/// not finished puts it back.
fn compare_since(cpu: &mut Vcpu, length: u64) -> Option<RepeatedCompare> {
    let rip = begin(cpu, length);
    let unfinished = cpu.state.compare.take().filter(|compare| compare.rip == rip);
    Some(unfinished.unwrap_or_else(|| RepeatedCompare { rip, rflags: cpu.flags() }))
}

/// Goes back to the start of a repeated instruction that is not finished, with what a comparison has found at its start. RF
/// says so to whoever comes between its elements (SDM vol. 3, 18.3.1.1), and keeps a breakpoint on it from hitting again.
pub(super) fn again(cpu: &mut Vcpu, length: u64, compare: Option<RepeatedCompare>) {
    cpu.state.rip = begin(cpu, length);
    cpu.state.rflags |= flags::RF;
    cpu.state.compare = compare;
}

/// One element: loads, stores, then moves the index registers.
fn element<T: Int>(cpu: &mut Vcpu, args: &Args, walk: &Walk, kind: Kind) -> Result<(), Fault> {
    let (si, di) = (walk.get(cpu, RSI), walk.get(cpu, RDI));
    match kind {
        Kind::Movs => {
            let value: T = cpu.load(args.seg, si)?;
            cpu.store(Seg::Es, di, value)?;
        }
        Kind::Stos => cpu.store(Seg::Es, di, T::narrow(cpu.state.slots.get(RAX)))?,
        Kind::Lods => {
            let value: T = cpu.load(args.seg, si)?;
            cpu.write_slot(RAX, value);
        }
        Kind::Scas => {
            let value: T = cpu.load(Seg::Es, di)?;
            let accumulator = T::narrow(cpu.state.slots.get(RAX));
            put_lazy_compare(cpu, accumulator, value);
        }
        Kind::Cmps => {
            let first: T = cpu.load(args.seg, si)?;
            let second: T = cpu.load(Seg::Es, di)?;
            put_lazy_compare(cpu, first, second);
        }
    }
    if matches!(kind, Kind::Movs | Kind::Lods | Kind::Cmps) {
        walk.advance(cpu, RSI, 1);
    }
    if kind != Kind::Lods {
        walk.advance(cpu, RDI, 1);
    }
    Ok(())
}

/// As many elements as lie in RAM within a page, through flat segments; 0 if the element path must be taken.
fn bulk<T: Int>(cpu: &mut Vcpu, args: &Args, walk: &Walk, kind: Kind, count: u64) -> u64 {
    let mode = cpu.link.mode;
    if args.a < 2 || !mode.flat(Seg::Es) || count < 2 {
        return 0;
    }
    let (bytes, count) = (T::BITS as usize / 8, count as usize);
    let (si, di) = (walk.get(cpu, RSI), walk.get(cpu, RDI));
    let moved = match kind {
        Kind::Stos => {
            cpu.link.mmu.write_run(di).map_or(0, |run| run.fill(bytes, cpu.state.slots.get(RAX), count, walk.direction))
        }
        Kind::Movs if mode.flat(args.seg) => match (cpu.link.mmu.read_run(si), cpu.link.mmu.write_run(di)) {
            (Some(from), Some(to)) => to.copy_from(&from, bytes, count, walk.direction),
            _ => 0,
        },
        _ => 0,
    } as u64;
    if moved > 0 {
        if kind == Kind::Movs {
            walk.advance(cpu, RSI, moved);
        }
        walk.advance(cpu, RDI, moved);
    }
    moved
}
