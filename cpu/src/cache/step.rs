//! The interpreter's form of a uop: a handler and its operands in 32 bytes.

use crate::vcpu::Vcpu;

/// Executes one step and everything after it in its block, and says how the block was left.
pub type Handler = fn(&mut Vcpu, &Step) -> Leave;

/// How a block was left.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Leave {
    /// By its direct branch, taken; RIP is set. Nothing but RIP, registers and flags changed.
    Taken,
    /// By falling through its end or a branch not taken; RIP is set.
    NotTaken,
    /// By an indirect branch; RIP is set.
    Dynamic,
    /// By a direct call; RIP is set.
    Called,
    /// By an indirect call; RIP is set.
    CalledDynamic,
    /// By a return; RIP is set.
    Returned,
    /// By a helper that may have changed anything; RIP is set.
    Helper,
    /// After instruction `link.current`, before the next one in the block: code was written.
    Early,
    /// Instruction `link.current` met the exception in `link.fault` and changed nothing.
    Fault,
}

/// One uop as the interpreter runs it. The meaning of the fields is that of the uop's.
#[derive(Copy, Clone, Debug)]
#[repr(C)]
pub struct Step {
    /// The function that executes it.
    pub run: Handler,
    /// Destination slot.
    pub dst: u8,
    /// Source slot.
    pub src: u8,
    /// Base slot of the memory operand.
    pub base: u8,
    /// Index slot of the memory operand.
    pub index: u8,
    /// Index shift.
    pub scale: u8,
    /// Condition code, or another small operand.
    pub cond: u8,
    /// Segment and width: `seg | width << 4`.
    pub seg_width: u8,
    /// Index of the instruction in its block.
    pub insn: u8,
    /// Immediate, or the target of a branch.
    pub imm: i64,
    /// Displacement, or the next RIP of a uop without a memory operand.
    pub disp: i64,
}

impl Step {
    /// The segment's encoding.
    pub fn segment(&self) -> u8 {
        self.seg_width & 15
    }
    /// The same step with the stack's segment: where it pushes or pops, its operand's may be another.
    pub fn on_stack(&self) -> Step {
        Step { seg_width: self.seg_width & 0xf0 | crate::state::Seg::Ss as u8, ..*self }
    }
    /// log2 of the operand width in bytes.
    pub fn width_log2(&self) -> u8 {
        self.seg_width >> 4
    }
    /// The step after this one. Never called on the last step of a block: its handler leaves.
    #[inline(always)]
    pub fn next(&self) -> &Step {
        // SAFETY: steps lie in one boxed slice whose last element's uop has `Effect::Ends` (`uop::verify`; the step selector
        // gives such uops handlers that return without calling `next`).
        unsafe { &*std::ptr::from_ref(self).add(1) }
    }
}
