//! What an access is, and the page fault it may meet. Values only: nothing is raised here.

use crate::addr::Linear;
use serde::{Deserialize, Serialize};

/// The kind of an access to memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    /// A data read.
    Read,
    /// A data write, or the read of a read-modify-write (which must be allowed to write).
    Write,
    /// An instruction fetch.
    Fetch,
}

/// With whose rights an access is made. Each (vCPU, root, view) has its own TLB.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum View {
    /// CPL 3, explicit access.
    User = 0,
    /// CPL 0–2, or an implicit system access (descriptor tables, TSS) at any CPL. SMAP applies.
    Supervisor = 1,
    /// CPL 0–2 explicit data access with EFLAGS.AC = 1: SMAP does not apply.
    SupervisorAc = 2,
}

/// A page fault that belongs to the guest (SDM vol. 3, 5.7): the guest's own tables say no.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[must_use]
pub struct PageFault {
    /// The faulting linear address, as CR2 shows it.
    pub linear: Linear,
    /// The error code: P, W/R, U/S, RSVD, I/D … as [`error_code`] names them.
    pub error_code: u32,
}

impl PageFault {
    /// Not the guest's, and no fault: the page's contents are lost ([`crate::GuestMemory::failure`] says how). The instruction
    /// has done nothing; the machine stops before it.
    pub(crate) const fn lost(linear: Linear) -> PageFault {
        PageFault { linear, error_code: 1 << 31 }
    }
    /// Whether the machine must stop instead of delivering it.
    pub const fn is_lost(&self) -> bool {
        self.error_code >> 31 != 0
    }
}

/// Bits of the page-fault error code (SDM vol. 3, figure 5-12).
pub mod error_code {
    /// The fault was a protection violation (clear: a not-present page).
    pub const PRESENT: u32 = 1 << 0;
    /// The access was a write.
    pub const WRITE: u32 = 1 << 1;
    /// The access was made with user rights.
    pub const USER: u32 = 1 << 2;
    /// A reserved bit was set in a paging-structure entry.
    pub const RESERVED: u32 = 1 << 3;
    /// The access was an instruction fetch (reported with NXE and PAE, or SMEP).
    pub const FETCH: u32 = 1 << 4;
}
