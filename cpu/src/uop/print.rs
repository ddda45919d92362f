//! Uops as text, for `--dump uops`, golden tests and failure reports.

use super::{AddrKind, Form, Mem, Op, Uop, Width};
use crate::state::slots::ZERO;
use std::fmt;

const NAMES: [&str; 21] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "zero", "t0", "t1", "t2", "t3",
];

/// The name of a slot.
pub fn slot_name(slot: u8) -> &'static str {
    NAMES.get(slot as usize).copied().unwrap_or("?")
}

impl fmt::Display for Mem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            AddrKind::Flat64 => "",
            AddrKind::Flat32 => "a32 ",
            AddrKind::Checked => "lin ",
        };
        write!(f, "[{kind}")?;
        let mut plus = "";
        if self.base != ZERO {
            write!(f, "{}", slot_name(self.base))?;
            plus = "+";
        }
        if self.index != ZERO {
            write!(f, "{plus}{}*{}", slot_name(self.index), 1 << self.scale)?;
            plus = "+";
        }
        if self.disp != 0 || plus.is_empty() {
            write!(f, "{plus}{:#x}", self.disp)?;
        }
        f.write_str("]")
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bits())
    }
}

impl fmt::Display for Uop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lock = if self.lock { "lock " } else { "" };
        write!(f, "{lock}{}.{}", self.op.name(), self.width)?;
        if let Some(helper) = self.helper {
            write!(f, " {}({}, {}, {}, {:#x})", helper.name, self.dst, self.src, self.cond, self.imm)?;
            return Ok(());
        }
        match self.form {
            Form::R => write!(f, " {}", slot_name(self.dst)),
            Form::RR => write!(f, " {}, {}", slot_name(self.dst), slot_name(self.src)),
            Form::RI => write!(f, " {}, {:#x}", slot_name(self.dst), self.imm),
            Form::RM => write!(f, " {}, {}", slot_name(self.dst), self.mem),
            Form::M => write!(f, " {}", self.mem),
            Form::MR => write!(f, " {}, {}", self.mem, slot_name(self.src)),
            Form::MI => write!(f, " {}, {:#x}", self.mem, self.imm),
        }?;
        match self.op {
            Op::Jcc | Op::CmpJcc | Op::TestJcc | Op::Loop => write!(f, " cond {} -> {:#x}", self.cond, self.target),
            Op::Jmp | Op::CallNear => write!(f, " -> {:#x}", self.target),
            Op::Selector => write!(f, " of {:?}", self.seg),
            Op::Set | Op::Cmov => write!(f, " cond {}", self.cond),
            _ => Ok(()),
        }
    }
}
