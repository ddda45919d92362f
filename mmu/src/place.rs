//! What a slow path gives back: a translated address and what lies behind it.

use crate::addr::{GuestPhys, RegionId};
use crate::phys_map::Target;

/// What lies behind a place.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PlaceKind {
    /// RAM: [`crate::VcpuMmu::read_place`] and [`crate::VcpuMmu::write_place`] do all.
    Ram,
    /// ROM: reads as RAM, writes are dropped.
    Rom,
    /// A device: the bus does the access.
    Mmio {
        /// Whose.
        region: RegionId,
        /// Offset of the address within the region.
        offset: u64,
    },
    /// Nothing: FFh, writes are dropped.
    Open,
}

impl PlaceKind {
    pub(crate) fn of(target: Target, at: GuestPhys) -> PlaceKind {
        match target {
            Target::Ram(_) => PlaceKind::Ram,
            Target::Rom(_) => PlaceKind::Rom,
            Target::Device(region, index) => {
                PlaceKind::Mmio { region, offset: u64::from(index) * 4096 + at.page_offset() }
            }
            Target::Open => PlaceKind::Open,
        }
    }
}

/// A translated address within one page. It stays right whatever is dropped or moved meanwhile (a place that has grown
/// old is looked up again by its guest-physical address), but it does not follow the guest's tables: use it in the
/// instruction that asked for it.
#[derive(Copy, Clone, Debug)]
pub struct Place {
    pub(crate) phys: GuestPhys,
    pub(crate) kind: PlaceKind,
    /// Host address of the place, or 0.
    pub(crate) host: u64,
    /// Writes must be shown to the trackers.
    pub(crate) watched: bool,
    /// How many drops had been seen when `host` was right.
    pub(crate) seen: u64,
}

impl Place {
    /// What lies there.
    pub fn kind(&self) -> PlaceKind {
        self.kind
    }
    /// Whether writes to its page are shown to the trackers.
    pub fn is_watched(&self) -> bool {
        self.watched
    }
    /// The guest-physical address, A20 applied.
    pub fn phys(&self) -> GuestPhys {
        self.phys
    }
}

/// What a write did beside writing.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteNote {
    /// Bytes of translated code were among those written: the running block may be stale.
    pub code_written: bool,
    /// Mappings were dropped, as by a store into a live page table: what runs may not be mapped any more.
    pub dropped: bool,
}
