//! Vector sets and priorities (SDM vol. 3, 10.8.3 and 10.8.4): IRR, ISR and TMR, PPR and APR, and EOI.

use super::{LocalApic, registers};
use serde::{Deserialize, Serialize};

/// A set of the 256 vectors, as IRR, ISR and TMR are.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Vectors([u64; 4]);

impl Vectors {
    pub(super) fn set(&mut self, vector: u8) {
        self.0[usize::from(vector >> 6)] |= 1 << (vector & 63);
    }

    pub(super) fn clear(&mut self, vector: u8) {
        self.0[usize::from(vector >> 6)] &= !(1 << (vector & 63));
    }

    pub(super) fn has(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0
    }

    /// The highest vector of the set.
    pub(super) fn highest(&self) -> Option<u8> {
        let word = (0..4).rev().find(|&word| self.0[word] != 0)?;
        Some((word as u32 * 64 + self.0[word].ilog2()) as u8)
    }

    /// The `index`th 32-bit register of the set, 0–7.
    pub(super) fn register(&self, index: u8) -> u32 {
        (self.0[usize::from(index >> 1 & 3)] >> (32 * (index & 1))) as u32
    }
}

impl LocalApic {
    /// The processor priority: the higher of the task priority and the vector in service (SDM vol. 3, 10.8.3.1).
    pub(super) fn ppr(&self) -> u8 {
        let in_service = self.state.isr.highest().unwrap_or(0);
        if self.state.tpr >> 4 >= in_service >> 4 { self.state.tpr } else { in_service & 0xF0 }
    }

    /// The arbitration priority: what a lowest-priority message compares. The lowest receives it.
    pub fn arbitration_priority(&self) -> u8 {
        let class = |vector: Option<u8>| vector.unwrap_or(0) & 0xF0;
        let busy = class(self.state.isr.highest()).max(class(self.state.irr.highest()));
        if self.state.tpr & 0xF0 >= busy { self.state.tpr } else { busy }
    }

    /// EOI: ends the service of the highest vector; a level-triggered one is broadcast to the I/O APICs.
    pub fn eoi(&mut self) {
        let Some(vector) = self.state.isr.highest() else { return };
        self.state.isr.clear(vector);
        if !self.state.tmr.has(vector) {
            return;
        }
        if self.state.svr & registers::SVR_SUPPRESS_EOI_BROADCAST == 0 {
            self.state.eois.push(vector);
        }
        self.end_lint_service(vector);
    }
}
