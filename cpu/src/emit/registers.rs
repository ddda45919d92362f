//! Where guest state lives while emitted code runs.
//!
//! | host | holds |
//! |---|---|
//! | RAX RCX RDX RBX RBP RSI RDI R8 R9 R10 | the guest's registers of the same names |
//! | R12 | the guest's RSP |
//! | R11 | fuel: instructions that may still be retired after this block, less [`SLACK`](super::SLACK) |
//! | R13 R14 | scratch |
//! | R15 | the vCPU |
//! | RSP | the host's stack |
//! | memory | the guest's R11–R15 and the uops' temporaries, in `State::slots` |

use super::asm::{Reg, Rm};
use crate::state::State;
use crate::vcpu::Vcpu;
use std::mem::offset_of;

/// The vCPU.
pub const CPU: Reg = 15;
/// Instructions left.
pub const FUEL: Reg = 11;
/// The first scratch register: linear addresses, values.
pub const S0: Reg = 13;
/// The second scratch register: TLB entries, host addresses.
pub const S1: Reg = 14;
/// The guest's RAX.
pub const RAX: Reg = 0;
/// The guest's RCX.
pub const RCX: Reg = 1;
/// The guest's RSP.
pub const SP: Reg = 12;
/// The guest's RBP.
pub const BP: Reg = 5;
/// The guest's RDX.
pub const RDX: Reg = 2;

/// The guest registers that live in host registers: (slot, host register).
pub const PINNED: [(u8, Reg); 11] =
    [(0, 0), (1, 1), (2, 2), (3, 3), (4, 12), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9), (10, 10)];

/// The host register of a slot, if it has one.
#[inline]
pub const fn pinned(slot: u8) -> Option<Reg> {
    match slot {
        4 => Some(12),
        0..=10 => Some(slot),
        _ => None,
    }
}

/// Offset of a slot in the vCPU.
pub const fn slot_offset(slot: u8) -> usize {
    offset_of!(Vcpu, state) + offset_of!(State, slots) + 8 * slot as usize
}

/// A slot as an operand to read.
#[inline]
pub const fn slot(slot: u8) -> Rm {
    match pinned(slot) {
        Some(reg) => Rm::R(reg),
        None => Rm::cpu(slot_offset(slot)),
    }
}
