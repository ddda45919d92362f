//! Micro-operations: what lift makes of instructions and both executors run.
//!
//! A uop works on *slots* (`state::slots`) and has at most one memory operand. It is fat: one uop for each common
//! instruction form. Everything rare, big or privileged is a [`Op::Call`] of a helper.

pub mod list;
pub mod native;
pub mod print;
pub mod verify;

use crate::cache::Handler;
use crate::helpers::Helper;
use crate::state::Seg;
use crate::state::slots::ZERO;
pub use list::Op;
pub use native::Native;

/// The width of an integer operand.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Width {
    #[default]
    B1 = 0,
    B2 = 1,
    B4 = 2,
    B8 = 3,
}

impl Width {
    /// From a number of bytes: 1, 2, 4 or 8.
    pub const fn from_bytes(bytes: usize) -> Option<Width> {
        match bytes {
            1 => Some(Width::B1),
            2 => Some(Width::B2),
            4 => Some(Width::B4),
            8 => Some(Width::B8),
            _ => None,
        }
    }
    /// The width in bytes.
    pub const fn bytes(self) -> u64 {
        1 << self as u32
    }
    /// The width in bits.
    pub const fn bits(self) -> u32 {
        8 << self as u32
    }
    /// All ones in this width.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }
}

/// Where a uop's operands are. `R` a slot, `I` the immediate, `M` memory; the first letter is the destination.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Form {
    /// One slot, or none.
    #[default]
    R,
    RR,
    RI,
    RM,
    M,
    MR,
    MI,
}

impl Form {
    /// Whether there is a memory operand.
    pub const fn has_memory(self) -> bool {
        matches!(self, Form::RM | Form::M | Form::MR | Form::MI)
    }
}

/// How the linear address of a memory operand follows from base, index and displacement.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AddrKind {
    /// base + (index << scale) + disp, 64 bits; the segment's base is zero.
    #[default]
    Flat64,
    /// The same, truncated to 32 bits.
    Flat32,
    /// The slot `base` holds a linear address that a [`Op::Check`] before has put there.
    Checked,
}

/// A memory operand.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mem {
    /// How the parts combine.
    pub kind: AddrKind,
    /// Base slot ([`ZERO`] if none).
    pub base: u8,
    /// Index slot ([`ZERO`] if none).
    pub index: u8,
    /// Index shift, 0–3.
    pub scale: u8,
    /// Displacement, sign-extended; for RIP-relative operands the whole address.
    pub disp: i64,
}

impl Mem {
    /// The linear address that a [`Op::Check`] left in `slot`.
    pub const fn checked(slot: u8) -> Mem {
        Mem { kind: AddrKind::Checked, base: slot, index: ZERO, scale: 0, disp: 0 }
    }
}

/// One micro-operation.
#[derive(Copy, Clone, Debug)]
pub struct Uop {
    /// What it does.
    pub op: Op,
    /// Operand width (of the destination, where they differ).
    pub width: Width,
    /// Where the operands are.
    pub form: Form,
    /// Destination slot (also the first source of two-operand operations).
    pub dst: u8,
    /// Source slot.
    pub src: u8,
    /// Condition code 0–15 (SDM vol. 1, appendix B), where the operation has one.
    pub cond: u8,
    /// Segment, for [`Op::Check`] and [`Op::Call`].
    pub seg: Seg,
    /// Whether anybody reads the status flags that this uop would set.
    pub flags: FlagUse,
    /// LOCK prefix (or implied): the read-modify-write is atomic.
    pub lock: bool,
    /// Index of the instruction within its block.
    pub insn: u8,
    /// The memory operand, if `form` has one.
    pub mem: Mem,
    /// Immediate, sign-extended.
    pub imm: i64,
    /// Where a direct branch goes (an offset in CS).
    pub target: u64,
    /// Offset of the next instruction in CS, for uops that need it (branches, helpers).
    pub next_rip: u64,
    /// The helper of a [`Op::Call`] or [`Op::VCall`].
    pub helper: Option<&'static Helper>,
    /// The same as a step of the interpreter, where there is one ([`Op::VCall`]).
    pub direct: Option<Handler>,
    /// The whole vector instruction, for a host that has it: on its [`Op::VLoad`], [`Op::VCall`] and [`Op::VStore`].
    pub native: Option<Native>,
}

/// Whether a uop has to leave the status flags behind.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlagUse {
    /// Somebody may read them.
    #[default]
    Wanted,
    /// They are overwritten before anybody can read them.
    Dead,
}

impl Uop {
    /// A uop with no operands; fill in the rest with struct update syntax.
    pub const fn new(op: Op) -> Uop {
        Uop {
            op,
            width: Width::B1,
            form: Form::R,
            dst: ZERO,
            src: ZERO,
            cond: 0,
            seg: Seg::Ds,
            flags: FlagUse::Wanted,
            lock: false,
            insn: 0,
            mem: Mem { kind: AddrKind::Flat64, base: ZERO, index: ZERO, scale: 0, disp: 0 },
            imm: 0,
            target: 0,
            next_rip: 0,
            helper: None,
            direct: None,
            native: None,
        }
    }
}
