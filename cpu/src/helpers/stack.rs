//! Stack instructions on any stack segment (SDM vol. 1, 6.2; vol. 2: PUSH, POP, PUSHA, POPA, ENTER, LEAVE, CALL, RET).

use super::{Args, Flow, Helper, Rm};
use crate::exec::{check_target, condition};
use crate::fault::Fault;
use crate::memory::Int;
use crate::state::Seg;
use crate::state::slots::{RBP, RSP};
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// PUSH r/m.
pub static PUSH: Helper = Helper { name: "push", run: push };
/// PUSH imm.
pub static PUSH_IMMEDIATE: Helper = Helper { name: "push_imm", run: push_immediate };
/// POP r/m; `imm` is what an RSP-based address moves by, `c` the log2 address width.
pub static POP: Helper = Helper { name: "pop", run: pop };
/// PUSHA, PUSHAD.
pub static PUSHA: Helper = Helper { name: "pusha", run: pusha };
/// POPA, POPAD.
pub static POPA: Helper = Helper { name: "popa", run: popa };
/// ENTER; `imm` is size | level << 16.
pub static ENTER: Helper = Helper { name: "enter", run: enter };
/// LEAVE.
pub static LEAVE: Helper = Helper { name: "leave", run: leave };
/// Near CALL to `imm`.
pub static CALL_NEAR: Helper = Helper { name: "call_near", run: call_near };
/// Near CALL through r/m.
pub static CALL_INDIRECT: Helper = Helper { name: "call_indirect", run: call_indirect };
/// Near RET; `imm` bytes more are released.
pub static RET_NEAR: Helper = Helper { name: "ret_near", run: ret_near };
/// #GP(0) if the branch (condition `a`, FFh: always) is taken and `imm` lies outside CS.
pub static CHECK_TARGET: Helper = Helper { name: "check_target", run: check };

impl Vcpu {
    /// The mask of the stack pointer: 16, 32 or 64 bits by SS.B and mode.
    pub fn sp_mask(&self) -> u64 {
        if self.state.code64() {
            u64::MAX
        } else if self.state.segment(Seg::Ss).big() {
            0xffff_ffff
        } else {
            0xffff
        }
    }
    /// Sets the stack pointer in its current width.
    pub fn set_sp(&mut self, value: u64) {
        match self.sp_mask() {
            0xffff => self.write_slot(RSP, value as u16),
            0xffff_ffff => self.write_slot(RSP, value as u32),
            _ => self.write_slot(RSP, value),
        }
    }
    /// Pushes a value: the store first, then the stack pointer.
    pub fn push<T: Int>(&mut self, value: T) -> Result<(), Fault> {
        let sp = self.state.slots.get(RSP).wrapping_sub(u64::from(T::BITS / 8)) & self.sp_mask();
        self.store(Seg::Ss, sp, value)?;
        self.set_sp(sp);
        Ok(())
    }
    /// Reads the value `depth` bytes above the top of the stack.
    pub fn stack_at<T: Int>(&mut self, depth: u64) -> Result<T, Fault> {
        let sp = self.state.slots.get(RSP).wrapping_add(depth) & self.sp_mask();
        self.load(Seg::Ss, sp)
    }
    /// Moves the stack pointer up by `bytes`.
    pub fn release(&mut self, bytes: u64) {
        let sp = self.state.slots.get(RSP).wrapping_add(bytes);
        self.set_sp(sp);
    }
    /// Pushes a value of a width known at run time.
    pub fn push_width(&mut self, width: Width, value: u64) -> Result<(), Fault> {
        match width {
            Width::B2 => self.push(value as u16),
            Width::B4 => self.push(value as u32),
            _ => self.push(value),
        }
    }
    /// Reads from the stack with a width known at run time.
    pub fn stack_at_width(&mut self, width: Width, depth: u64) -> Result<u64, Fault> {
        match width {
            Width::B2 => self.stack_at::<u16>(depth).map(u64::from),
            Width::B4 => self.stack_at::<u32>(depth).map(u64::from),
            _ => self.stack_at::<u64>(depth),
        }
    }
    /// Writes an r/m operand with a width known at run time.
    fn write_rm_width(&mut self, width: Width, rm: Rm, value: u64) -> Result<(), Fault> {
        match width {
            Width::B1 => self.write_rm(rm, value as u8),
            Width::B2 => self.write_rm(rm, value as u16),
            Width::B4 => self.write_rm(rm, value as u32),
            Width::B8 => self.write_rm(rm, value),
        }
    }
    fn read_rm_width(&mut self, width: Width, rm: Rm) -> Result<u64, Fault> {
        match width {
            Width::B1 => self.read_rm::<u8>(rm).map(u64::from),
            Width::B2 => self.read_rm::<u16>(rm).map(u64::from),
            Width::B4 => self.read_rm::<u32>(rm).map(u64::from),
            Width::B8 => self.read_rm(rm),
        }
    }
}

fn push(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let value = cpu.read_rm_width(args.width, args.rm(cpu))?;
    cpu.push_width(args.width, value)?;
    Ok(Flow::Next)
}

fn push_immediate(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.push_width(args.width, args.imm)?;
    Ok(Flow::Next)
}

fn pop(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let value = cpu.stack_at_width(args.width, 0)?;
    let rm = match args.rm(cpu) {
        Rm::Memory(seg, offset) => {
            let mask = match args.c {
                1 => 0xffff,
                2 => 0xffff_ffff,
                _ => u64::MAX,
            };
            Rm::Memory(seg, offset.wrapping_add(args.imm) & mask)
        }
        slot => slot,
    };
    // A store that faults must leave the stack pointer as it was; POP into rSP takes the value, not the increment.
    if let Rm::Memory(..) = rm {
        cpu.write_rm_width(args.width, rm, value)?;
        cpu.release(args.width.bytes());
    } else {
        cpu.release(args.width.bytes());
        cpu.write_rm_width(args.width, rm, value)?;
    }
    Ok(Flow::Next)
}

/// The registers of PUSHA in the order in which they are pushed.
const PUSHA_ORDER: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

fn pusha(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let bytes = args.width.bytes();
    let (mask, sp) = (cpu.sp_mask(), cpu.state.slots.get(RSP));
    let at = |n: u64| sp.wrapping_sub(bytes * (n + 1)) & mask;
    // SDM vol. 2, PUSHA, real-address and virtual-8086 mode exceptions: not #SS.
    if cpu.state.paragraph_segments() && args.width == Width::B2 && matches!(sp & mask, 7 | 9 | 11 | 13 | 15) {
        return Err(Fault::gp(0));
    }
    for n in 0..8 {
        cpu.reserve(Seg::Ss, at(n), bytes)?;
    }
    for (n, slot) in PUSHA_ORDER.iter().enumerate() {
        let value = cpu.state.slots.get(*slot);
        match args.width {
            Width::B2 => cpu.store(Seg::Ss, at(n as u64), value as u16)?,
            _ => cpu.store(Seg::Ss, at(n as u64), value as u32)?,
        }
    }
    cpu.set_sp(at(7));
    Ok(Flow::Next)
}

fn popa(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let bytes = args.width.bytes();
    let mut values = [0; 8];
    for (n, value) in values.iter_mut().enumerate() {
        *value = cpu.stack_at_width(args.width, bytes * n as u64)?;
    }
    for (slot, value) in PUSHA_ORDER.iter().rev().zip(values) {
        match (*slot, args.width) {
            (RSP, _) => {}
            (slot, Width::B2) => cpu.write_slot(slot, value as u16),
            (slot, _) => cpu.write_slot(slot, value as u32),
        }
    }
    cpu.release(bytes * 8);
    Ok(Flow::Next)
}

fn enter(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let (size, level, bytes) = (args.imm & 0xffff, args.imm >> 16 & 31, args.width.bytes());
    let mask = cpu.sp_mask();
    let sp = cpu.state.slots.get(RSP);
    let bp = cpu.state.slots.get(RBP);
    let frame = sp.wrapping_sub(bytes) & mask;
    let mut pushed = vec![bp];
    for n in 1..level {
        let from = bp.wrapping_sub(bytes * n) & mask;
        pushed.push(match args.width {
            Width::B2 => cpu.load::<u16>(Seg::Ss, from)?.into(),
            Width::B4 => cpu.load::<u32>(Seg::Ss, from)?.into(),
            _ => cpu.load::<u64>(Seg::Ss, from)?,
        });
    }
    if level > 0 {
        pushed.push(frame);
    }
    let at = |n: usize| sp.wrapping_sub(bytes * (n as u64 + 1)) & mask;
    for n in 0..pushed.len() {
        cpu.reserve(Seg::Ss, at(n), bytes)?;
    }
    let last = at(pushed.len() - 1).wrapping_sub(size) & mask;
    cpu.reserve(Seg::Ss, last, 1)?;
    for (n, value) in pushed.into_iter().enumerate() {
        match args.width {
            Width::B2 => cpu.store(Seg::Ss, at(n), value as u16)?,
            Width::B4 => cpu.store(Seg::Ss, at(n), value as u32)?,
            _ => cpu.store(Seg::Ss, at(n), value)?,
        }
    }
    cpu.set_sp(last);
    match args.width {
        Width::B2 => cpu.write_slot(RBP, frame as u16),
        Width::B4 => cpu.write_slot(RBP, frame as u32),
        _ => cpu.write_slot(RBP, frame),
    }
    Ok(Flow::Next)
}

fn leave(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let bp = cpu.state.slots.get(RBP) & cpu.sp_mask();
    let value = match args.width {
        Width::B2 => u64::from(cpu.load::<u16>(Seg::Ss, bp)?),
        Width::B4 => u64::from(cpu.load::<u32>(Seg::Ss, bp)?),
        _ => cpu.load::<u64>(Seg::Ss, bp)?,
    };
    cpu.set_sp(bp.wrapping_add(args.width.bytes()));
    match args.width {
        Width::B2 => cpu.write_slot(RBP, value as u16),
        Width::B4 => cpu.write_slot(RBP, value as u32),
        _ => cpu.write_slot(RBP, value),
    }
    Ok(Flow::Next)
}

fn call_to(cpu: &mut Vcpu, width: Width, target: u64) -> Result<Flow, Fault> {
    check_target(cpu, target)?;
    let next = cpu.state.rip;
    cpu.push_width(width, next)?;
    cpu.state.rip = target;
    Ok(Flow::Leave)
}

fn call_near(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    call_to(cpu, args.width, args.imm)
}

fn call_indirect(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let target = cpu.read_rm_width(args.width, args.rm(cpu))?;
    call_to(cpu, args.width, target)
}

fn ret_near(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let target = cpu.stack_at_width(args.width, 0)?;
    check_target(cpu, target)?;
    cpu.release(args.width.bytes() + args.imm);
    cpu.state.rip = target;
    Ok(Flow::Leave)
}

fn check(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    if args.a == 0xff || condition(cpu, args.a) {
        check_target(cpu, args.imm)?;
    }
    Ok(Flow::Next)
}
