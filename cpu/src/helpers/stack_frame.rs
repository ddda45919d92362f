//! Stack frames of far transfers: pushes that are checked one by one in order and written all or none, and pops that
//! move no register until the whole transfer is known to succeed (SDM vol. 3, 5.8.5, 6.12).
//!
//! Used by far transfers, interrupt delivery, IRET and task switches, on the current stack or on one not yet loaded.

use crate::check::Check;
use crate::fault::Fault;
use crate::mode::ModeBits;
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

/// Whether a misaligned item is #AC (SDM vol. 3, 6.15, interrupt 17): on the stack that is current at level 3.
///
/// NOTE(why not): the delivery of events to handlers at level 3 is not checked. An #AC there meets the same stack again, and
/// real processors then deliver #AC for ever (CVE-2015-5307).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Alignment {
    Free,
    Checked,
}

/// A stack that a transfer reads from or builds a frame on.
#[derive(Copy, Clone, Debug)]
pub struct Stack {
    space: Space,
    view: View,
    error_code: u32,
    alignment: Alignment,
    /// The stack pointer as pushes and pops have left it.
    pub sp: u64,
}

impl Stack {
    /// The current stack, with the current privileges. `error_code` is that of #SS if it does not suffice.
    pub fn current(cpu: &Vcpu, error_code: u32) -> Stack {
        let sp = cpu.state.gpr(RSP);
        let stack = if cpu.state.code64() {
            Stack::flat(sp, cpu.view(), error_code)
        } else {
            Stack::segmented(*cpu.state.segment(Seg::Ss), sp, cpu.view(), error_code)
        };
        let alignment = if cpu.link.mode.has(ModeBits::ALIGN) { Alignment::Checked } else { Alignment::Free };
        Stack { alignment, ..stack }
    }

    /// A stack in 64-bit mode.
    pub fn flat(sp: u64, view: View, error_code: u32) -> Stack {
        Stack { space: Space::Flat, view, error_code, alignment: Alignment::Free, sp }
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

    /// The linear address of `len` bytes at stack offset `offset`, or #SS, or #AC.
    fn linear(&self, offset: u64, len: u64) -> Result<u64, Fault> {
        let linear = self.within(offset, len)?;
        let misaligned = self.alignment == Alignment::Checked && linear & (len - 1) != 0;
        if misaligned { Err(Fault::ac()) } else { Ok(linear) }
    }

    fn within(&self, offset: u64, len: u64) -> Result<u64, Fault> {
        let fault = |check| Err(Fault::ss(self.error_code).because(check));
        match self.space {
            Space::Flat => {
                let last = Linear(offset.wrapping_add(len - 1));
                if Linear(offset).is_canonical_48() && last.is_canonical_48() {
                    Ok(offset)
                } else {
                    fault(Check::Canonical)
                }
            }
            Space::Segmented(ss) => {
                let last = offset + len - 1;
                let top = if ss.big() { 0xffff_ffff } else { 0xffff };
                let within = if ss.expand_down() {
                    offset > u64::from(ss.limit) && last <= top
                } else {
                    last <= u64::from(ss.limit)
                };
                if !ss.usable() || !ss.writable() {
                    return fault(Check::Rights(Seg::Ss));
                }
                if !within {
                    return fault(Check::Limit(Seg::Ss));
                }
                Ok(ss.base.wrapping_add(offset) & 0xffff_ffff)
            }
        }
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
        if self.view == cpu.link.mmu.view() {
            return Ok(match width {
                Width::B2 => cpu.load_linear::<u16>(linear)?.into(),
                Width::B4 => cpu.load_linear::<u32>(linear)?.into(),
                _ => cpu.load_linear::<u64>(linear)?,
            });
        }
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

/// Items of one width pushed on a stack.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The stack below the items pushed so far.
    pub stack: Stack,
    width: Width,
    top: u64,
    values: [u64; MOST],
    count: usize,
}

impl Frame {
    /// An empty frame on `stack`.
    pub fn on(stack: Stack, width: Width) -> Frame {
        Frame { stack, width, top: stack.sp, values: [0; MOST], count: 0 }
    }

    /// Adds an item: moves the stack pointer down and checks the segment's limit. Nothing is written yet.
    pub fn push(&mut self, value: u64) -> Result<(), Fault> {
        let sp = self.stack.wrap(self.stack.sp.wrapping_sub(self.width.bytes()));
        self.stack.linear(sp, self.width.bytes())?;
        let Some(place) = self.values.get_mut(self.count) else {
            return Err(Fault::ss(self.stack.error_code));
        };
        *place = value;
        self.count += 1;
        self.stack.sp = sp;
        Ok(())
    }

    /// The linear address of item `n`.
    fn address(&self, n: usize) -> Result<u64, Fault> {
        let down = self.width.bytes() * (n as u64 + 1);
        self.stack.linear(self.stack.wrap(self.top.wrapping_sub(down)), self.width.bytes())
    }

    /// Writes the whole frame, or nothing. A page fault is that of the first item that cannot be written.
    pub fn commit(&self, cpu: &mut Vcpu) -> Result<(), Fault> {
        let Some(last) = self.count.checked_sub(1) else {
            return Ok(());
        };
        let (high, low, bytes) = (self.address(0)?, self.address(last)?, self.width.bytes());
        let together = high.wrapping_sub(low) == bytes * last as u64
            && (low & (PAGE_SIZE - 1)) + bytes * self.count as u64 <= PAGE_SIZE
            && low & (bytes - 1) == 0;
        // One page, aligned: if the first store hits the TLB, so do all.
        if together && self.stack.view == cpu.link.mmu.view() && self.store_hits(cpu, low) {
            return Ok(());
        }
        for n in 0..self.count {
            cpu.reserve_linear(Linear(self.address(n)?), bytes, self.stack.view)?;
        }
        for (n, value) in self.values[..self.count].iter().enumerate() {
            let linear = Linear(self.address(n)?);
            cpu.store_bytes(linear, &value.to_le_bytes()[..bytes as usize], self.stack.view)?;
        }
        Ok(())
    }

    fn store_hits(&self, cpu: &Vcpu, low: u64) -> bool {
        let mmu = &cpu.link.mmu;
        self.values[..self.count].iter().rev().zip(0..).all(|(&value, n)| {
            let at = low + self.width.bytes() * n;
            match self.width {
                Width::B2 => mmu.store(at, value as u16),
                Width::B4 => mmu.store(at, value as u32),
                _ => mmu.store(at, value),
            }
        })
    }
}

/// With whose rights stack accesses at privilege level `cpl` are made; EFLAGS.AC never widens them.
pub fn stack_view(cpl: u8) -> View {
    if cpl == 3 { View::User } else { View::Supervisor }
}
