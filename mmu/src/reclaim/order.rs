//! The order in which a frame is taken away (S17, S20, I7), as types: what comes too early does not compile.
//!
//! ```text
//! Mapped ─ unmap: every monitor entry gone, the drop posted ─► Unmapped ─ acknowledged by every vCPU ─► Acknowledged
//!        ─ copied out, its slot written ─► Out ─ only now may the host have the memory back
//! ```
//! Each step takes the one before it; nobody but the monitor makes any of them.
//!
//! ```compile_fail
//! // A frame that nobody has unmapped cannot be copied out, let alone given up:
//! fn too_early(frame: umbra_mmu::reclaim::order::Mapped) {
//!     let _ = umbra_mmu::reclaim::order::Out::of(frame);
//! }
//! ```
//! ```compile_fail
//! // Nor one that a vCPU may still use:
//! fn too_early(frame: umbra_mmu::reclaim::order::Unmapped) {
//!     let _ = umbra_mmu::reclaim::order::Out::of(frame);
//! }
//! ```
//! ```
//! // This is the only way:
//! fn in_order(frame: umbra_mmu::reclaim::order::Acknowledged) {
//!     let _ = umbra_mmu::reclaim::order::Out::of(frame);
//! }
//! ```

use crate::frames::Frame;

/// A frame that monitor entries may lead to.
#[derive(Debug)]
pub struct Mapped(pub(crate) Frame);

/// A frame that no monitor entry leads to; vCPUs may still have what they derived from one.
#[derive(Debug)]
pub struct Unmapped(Frame);

/// A frame that nobody can reach but through the door, where the mmu lock is.
#[derive(Debug)]
pub struct Acknowledged(Frame);

/// A frame whose contents are elsewhere.
#[derive(Debug)]
pub struct Out(Frame);

impl Mapped {
    /// After `unmap` has taken every monitor entry away and posted the drops.
    pub(crate) fn unmap(self, unmap: impl FnOnce(Frame)) -> Unmapped {
        unmap(self.0);
        Unmapped(self.0)
    }
}

impl Unmapped {
    /// After `wait` has waited for every vCPU: of many frames at once, since one wait is enough.
    pub(crate) fn acknowledge(frames: Vec<Unmapped>, wait: impl FnOnce()) -> Vec<Acknowledged> {
        wait();
        frames.into_iter().map(|frame| Acknowledged(frame.0)).collect()
    }
}

impl Acknowledged {
    pub(crate) fn frame(&self) -> Frame {
        self.0
    }
}

impl Out {
    /// The frame's contents have been copied.
    pub fn of(frame: Acknowledged) -> Out {
        Out(frame.0)
    }
    pub(crate) fn frame(&self) -> Frame {
        self.0
    }
}
