//! Addresses and widths as types of their own (glossary: logical → linear → guest-physical; host pointer).
//!
//! No arithmetic between kinds. A logical address (segment, offset) is the business of the cpu crate.

use serde::{Deserialize, Serialize};

/// Bytes in a page (and in a frame): 4 KiB.
pub const PAGE_SIZE: u64 = 4096;
/// Mask of the offset within a page.
pub const PAGE_OFFSET: u64 = PAGE_SIZE - 1;

/// A linear address: what segmentation produces and paging translates.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(transparent)]
pub struct Linear(pub u64);

/// A guest-physical address: what paging produces and the board decodes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(transparent)]
pub struct GuestPhys(pub u64);

/// A guest-physical page number (guest-physical address >> 12).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(transparent)]
pub struct PhysPage(pub u64);

/// Identifies a memory-mapped device region of the board. The board knows whose it is; nobody else does.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegionId(pub u16);

impl Linear {
    /// The address of the page's first byte.
    pub const fn page_base(self) -> Linear {
        Linear(self.0 & !PAGE_OFFSET)
    }
    /// The offset within the page, 0–4095.
    pub const fn page_offset(self) -> u64 {
        self.0 & PAGE_OFFSET
    }
    /// The address `bytes` further on, wrapping at 2⁶⁴.
    pub const fn wrapping_add(self, bytes: u64) -> Linear {
        Linear(self.0.wrapping_add(bytes))
    }
    /// Whether bits 63–47 are all equal (SDM vol. 1, 3.3.7.1), for 4-level paging.
    pub const fn is_canonical_48(self) -> bool {
        (((self.0 as i64) << 16) >> 16) as u64 == self.0
    }
}

impl GuestPhys {
    /// The page that holds this address.
    pub const fn page(self) -> PhysPage {
        PhysPage(self.0 >> 12)
    }
    /// The offset within the page, 0–4095.
    pub const fn page_offset(self) -> u64 {
        self.0 & PAGE_OFFSET
    }
    /// The address `bytes` further on, wrapping at 2⁶⁴.
    pub const fn wrapping_add(self, bytes: u64) -> GuestPhys {
        GuestPhys(self.0.wrapping_add(bytes))
    }
}

impl PhysPage {
    /// The guest-physical address of the page's first byte.
    pub const fn base(self) -> GuestPhys {
        GuestPhys(self.0 << 12)
    }
}
