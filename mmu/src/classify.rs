//! The fault handler, written down (S11, S23): one total function from what guest, monitor and host say to one class.
//!
//! The slow paths of `vcpu` are this function carried out step by step; `explain` calls it.
//!
//! ```
//! use umbra_mmu::classify::{HostSays, MonitorSays, classify};
//! use umbra_mmu::{Access, FaultClass};
//!
//! // The guest's own tables decide first: their "no" is the guest's page fault, whatever else is true.
//! for monitor in [MonitorSays::Absent, MonitorSays::Allows, MonitorSays::Watched] {
//!     let class = classify(Err(0b101), monitor, HostSays::Frame, Access::Read);
//!     assert_eq!(class, FaultClass::GuestTrue);
//! }
//! // The guest says yes (with its dirty bit set): what we have not shadowed yet is ours to fix, invisibly.
//! assert_eq!(classify(Ok(true), MonitorSays::Absent, HostSays::Frame, Access::Read), FaultClass::NotShadowed);
//! // The first write to a page must set the guest's dirty bit.
//! assert_eq!(classify(Ok(false), MonitorSays::Denies, HostSays::Frame, Access::Write), FaultClass::DirtyTrack);
//! // A page with guest tables or translated code: the store is made and shown to the trackers.
//! assert_eq!(classify(Ok(true), MonitorSays::Watched, HostSays::Frame, Access::Write), FaultClass::WriteTrack);
//! assert_eq!(classify(Ok(true), MonitorSays::Watched, HostSays::Frame, Access::Read), FaultClass::Hit);
//! // Everything is there: only the TLB had lost it.
//! assert_eq!(classify(Ok(true), MonitorSays::Allows, HostSays::Frame, Access::Fetch), FaultClass::Hit);
//! // A device or open bus.
//! assert_eq!(classify(Ok(true), MonitorSays::Allows, HostSays::Nothing, Access::Read), FaultClass::Mmio);
//! // The host has the frame elsewhere, or shares it.
//! assert_eq!(classify(Ok(true), MonitorSays::Absent, HostSays::Out, Access::Read), FaultClass::FrameOut);
//! assert_eq!(classify(Ok(true), MonitorSays::Denies, HostSays::Shared, Access::Write), FaultClass::CopyOnWrite);
//! ```

use crate::counters::FaultClass;
use crate::fault::{Access, View};
use crate::monitor::table::{SLOW, right};

/// What the monitor's entry says about an access.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MonitorSays {
    /// There is no entry.
    Absent,
    /// There is one without this right (yet).
    Denies,
    /// It allows the access.
    Allows,
    /// It allows the access, and writes are watched.
    Watched,
}

impl MonitorSays {
    pub(crate) fn of(word: u64, view: View, access: Access) -> MonitorSays {
        match word {
            0 => MonitorSays::Absent,
            _ if word & right(view, access) == 0 => MonitorSays::Denies,
            _ if word & SLOW != 0 => MonitorSays::Watched,
            _ => MonitorSays::Allows,
        }
    }
}

/// What the host has behind the guest-physical page.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum HostSays {
    /// A frame of our own.
    Frame,
    /// A frame that others read too.
    Shared,
    /// Its contents, but in no frame now.
    Out,
    /// Nothing: a device or open bus.
    Nothing,
}

/// The class of an access that missed the TLB. `guest` is what the guest's tables say: `Ok(dirty)`, or the error code.
pub fn classify(guest: Result<bool, u32>, monitor: MonitorSays, host: HostSays, access: Access) -> FaultClass {
    let Ok(dirty) = guest else { return FaultClass::GuestTrue };
    let write = access == Access::Write;
    match (host, monitor) {
        (HostSays::Nothing, _) => FaultClass::Mmio,
        (HostSays::Out, _) => FaultClass::FrameOut,
        (HostSays::Shared, _) if write => FaultClass::CopyOnWrite,
        (_, MonitorSays::Watched) if write => FaultClass::WriteTrack,
        (_, MonitorSays::Allows | MonitorSays::Watched) => FaultClass::Hit,
        (_, MonitorSays::Absent | MonitorSays::Denies) if write && !dirty => FaultClass::DirtyTrack,
        (_, MonitorSays::Absent | MonitorSays::Denies) => FaultClass::NotShadowed,
    }
}
