//! Guest memory: addresses, frames, the guest's page walk, monitor tables, the software TLB.
//!
//! ```text
//! linear ──► TLB ──► monitor table ──► frame (host pointer)
//!                        ▲ fill, sync
//!                    guest tables (bytes in guest RAM)
//! ```
//!
//! This crate depends on nothing of ours and calls nobody: translations, faults and notes are returned.

#![allow(dead_code, reason = "the monitor tables are about to be put beneath this API")]

pub mod addr;
pub mod attention;
pub mod counters;
pub mod dma;
mod drain;
pub mod fault;
pub mod frames;
mod host;
pub mod memory;
mod monitor;
pub mod phys_map;
pub mod pte;
pub mod ram;
pub mod tlb;
pub mod vcpu;
pub mod walk;
mod watch;

pub use addr::{GuestPhys, Linear, PhysPage, RegionId};
pub use attention::Attention;
pub use counters::{Counters, FaultClass};
pub use dma::Dma;
pub use drain::CodeWrite;
pub use fault::{Access, PageFault, View};
pub use frames::{FrameOrder, Pool, PoolError};
pub use memory::{GuestDma, GuestMemory, MapError};
pub use phys_map::{Backing, ReadFrom, WriteTo};
pub use ram::{Direction, RamRun, RamSlot, Word};
pub use vcpu::{PagingRegs, Place, PlaceKind, VcpuMmu, WriteNote};
