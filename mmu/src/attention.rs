//! The attention word: the one thing that makes a running vCPU stop and look.
//!
//! Wires of the board, the mmu's posted drops and the run loop set bits; the vCPU tests the whole word once per block.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering};

/// Reasons for which a running vCPU must leave its blocks. Each is a bit of [`Attention`].
pub mod bits {
    /// An interrupt controller asserts INTR for this vCPU (level: the board clears it).
    pub const INTR: u32 = 1 << 0;
    /// A non-maskable interrupt was latched.
    pub const NMI: u32 = 1 << 1;
    /// INIT was received.
    pub const INIT: u32 = 1 << 2;
    /// A start-up IPI was received (its vector is fetched from the bus).
    pub const SIPI: u32 = 1 << 3;
    /// The mmu has posted drops that this vCPU must drain.
    pub const DRAIN: u32 = 1 << 4;
    /// Somebody outside wants `run` to return (pause, debugger, shutdown, an earlier event).
    pub const STOP: u32 = 1 << 5;
    /// Code that this vCPU may be executing was written.
    pub const CODE: u32 = 1 << 6;
    /// The vCPU has to tidy up between two blocks.
    pub const TIDY: u32 = 1 << 7;
}

/// One word per vCPU, shared with the board and the mmu.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Attention(AtomicU32);

impl Attention {
    /// Sets bits, so that the vCPU stops at its next block boundary.
    pub fn set(&self, bits: u32) {
        self.0.fetch_or(bits, Ordering::Release);
    }
    /// Clears bits.
    pub fn clear(&self, bits: u32) {
        self.0.fetch_and(!bits, Ordering::AcqRel);
    }
    /// The bits that are set now.
    #[inline(always)]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}
