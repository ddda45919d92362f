//! Stack frames of far transfers: pushes that are checked one by one in order and written all or none, and pops that
//! move no register until the whole transfer is known to succeed (SDM vol. 3, 5.8.5, 6.12).
//!
//! Used by far transfers, interrupt delivery, IRET and task switches, on the current stack or on one not yet loaded.

use crate::fault::Fault;
use crate::state::slots::RSP;
use crate::state::{Seg, Segment};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::{Linear, PAGE_SIZE};
use umbra_mmu::fault::View;

/// The most items in one frame: 31 parameters and SS, SP, CS, IP.
const MOST: usize = 36;

/// How a stack's addresses are formed.
#[derive(Copy, Clone, Debug)]
enum Space {
    /// 64-bit mode: flat, canonical.
    Flat,
    /// Through a segment's base, limit and B bit.
    Segmented(Segment),
}

/// A stack on which a frame is built or read.
#[derive(Clone, Debug)]
pub struct Stack {
    space: Space,
    view: View,
    error_code: u32,
    /// The stack pointer as pushes and pops have left it.
    pub sp: u64,
    items: [(u64, u64, Width); MOST],
    count: usize,
}

impl Stack {
    /// The current stack, with the current privileges. `error_code` is that of #SS if it does not suffice.
    pub fn current(cpu: &Vcpu, error_code: u32) -> Stack {
        let sp = cpu.state.gpr(RSP);
        if cpu.state.code64() {
            Stack::flat(sp, cpu.view(), error_code)
        } else {
            Stack::segmented(*cpu.state.segment(Seg::Ss), sp, cpu.view(), error_code)
        }
    }

    /// A stack in 64-bit mode.
    pub fn flat(sp: u64, view: View, error_code: u32) -> Stack {
        Stack { space: Space::Flat, view, error_code, sp, items: [(0, 0, Width::B1); MOST], count: 0 }
    }

    /// A stack through a segment.
    pub fn segmented(ss: Segment, sp: u64, view: View, error_code: u32) -> Stack {
        let sp = if ss.big() { sp & 0xffff_ffff } else { sp & 0xffff };
        Stack { space: Space::Segmented(ss), ..Stack::flat(sp, view, error_code) }
    }

    /// Moves the stack pointer up by `bytes` (pops without reading).
    pub fn release(&mut self, bytes: u64) {
        self.sp = self.wrap(self.sp.wrapping_add(bytes));
    }

    fn wrap(&self, sp: u64) -> u64 {
        match self.space {
            Space::Flat => sp,
            Space::Segmented(ss) if ss.big() => sp & 0xffff_ffff,
            Space::Segmented(_) => sp & 0xffff,
        }
    }

    /// The linear address of `len` bytes at stack offset `offset`, or #SS.
    fn linear(&self, offset: u64, len: u64) -> Result<u64, Fault> {
        let fault = Err(Fault::ss(self.error_code));
        match self.space {
            Space::Flat => {
                let last = Linear(offset.wrapping_add(len - 1));
                if Linear(offset).is_canonical_48() && last.is_canonical_48() { Ok(offset) } else { fault }
            }
            Space::Segmented(ss) => {
                let last = offset + len - 1;
                let top = if ss.big() { 0xffff_ffff } else { 0xffff };
                let within = if ss.expand_down() {
                    offset > u64::from(ss.limit) && last <= top
                } else {
                    last <= u64::from(ss.limit)
                };
                if !ss.usable() || !ss.writable() || !within {
                    return fault;
                }
                Ok(ss.base.wrapping_add(offset) & 0xffff_ffff)
            }
        }
    }

    /// Adds an item to the frame: moves the stack pointer down and checks the segment's limit. Nothing is written yet.
    pub fn push(&mut self, width: Width, value: u64) -> Result<(), Fault> {
        let sp = self.wrap(self.sp.wrapping_sub(width.bytes()));
        let linear = self.linear(sp, width.bytes())?;
        let Some(item) = self.items.get_mut(self.count) else {
            return Err(Fault::ss(self.error_code));
        };
        *item = (linear, value, width);
        self.count += 1;
        self.sp = sp;
        Ok(())
    }

    /// Writes the whole frame, or nothing. A page fault is that of the first item that cannot be written.
    pub fn commit(&self, cpu: &mut Vcpu) -> Result<(), Fault> {
        let items = &self.items[..self.count];
        let (Some(first), Some(last)) = (items.first(), items.last()) else {
            return Ok(());
        };
        let len = first.0.wrapping_add(first.2.bytes()).wrapping_sub(last.0);
        if len <= 512 && len >= items.len() as u64 && (last.0 & (PAGE_SIZE - 1)) + len <= PAGE_SIZE {
            let mut bytes = [0; 512];
            for (linear, value, width) in items {
                let at = linear.wrapping_sub(last.0) as usize;
                let width = width.bytes() as usize;
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
            return cpu.store_bytes(Linear(last.0), &bytes[..len as usize], self.view).map_err(|mut fault| {
                fault.linear = Linear(first.0);
                fault
            });
        }
        for (linear, _, width) in items {
            cpu.reserve_linear(Linear(*linear), width.bytes(), self.view)?;
        }
        for (linear, value, width) in items {
            cpu.store_bytes(Linear(*linear), &value.to_le_bytes()[..width.bytes() as usize], self.view)?;
        }
        Ok(())
    }

    /// Reads the next item and moves the stack pointer up.
    pub fn pop(&mut self, cpu: &mut Vcpu, width: Width) -> Result<u64, Fault> {
        let value = self.peek(cpu, width, 0)?;
        self.release(width.bytes());
        Ok(value)
    }

    /// Reads the item `bytes` above the stack pointer without moving it.
    pub fn peek(&self, cpu: &mut Vcpu, width: Width, bytes: u64) -> Result<u64, Fault> {
        let linear = self.linear(self.wrap(self.sp.wrapping_add(bytes)), width.bytes())?;
        let mut value = [0; 8];
        cpu.load_bytes(Linear(linear), &mut value[..width.bytes() as usize], self.view)?;
        Ok(u64::from_le_bytes(value))
    }

    /// What RSP becomes when this stack is made the current one with its present stack pointer: a 16-bit stack leaves
    /// the upper bits as they are.
    pub fn new_rsp(&self, older: u64) -> u64 {
        match self.space {
            Space::Segmented(ss) if !ss.big() => older & !0xffff & 0xffff_ffff | self.sp & 0xffff,
            _ => self.sp,
        }
    }
}

/// With whose rights stack accesses at privilege level `cpl` are made; EFLAGS.AC never widens them.
pub fn stack_view(cpl: u8) -> View {
    if cpl == 3 { View::User } else { View::Supervisor }
}
