//! Guest memory: addresses, frames, the guest's page walk, monitor tables, the software TLB.
//!
//! ```text
//! linear ──► TLB ──► monitor table ──► frame (host pointer)
//!                        ▲ fill, sync
//!                    guest tables (bytes in guest RAM)
//! ```
//!
//! | variant | modules |
//! |---|---|
//! | host | `host` system calls · `frames` the pool · `ram` single accesses to guest RAM · `video` what a display shows |
//! | guest | `phys_map` what lies behind a page · `pte`, `walk` the guest's tables · `regs` what steers them |
//! | monitor | `monitor` tables, roots, fill, sync, reverse maps, audit · `tlb`, `sets` · `watch` code grains · `drain` who waits for whom |
//! | reclaim | `reclaim` what frames leave memory, and where to |
//! | doors | `vcpu` for a processor · `memory` for board, loader, debugger · `dma` for bus masters · `classify`, `counters`, `explain`, `overview`, `events`, `writers`, `fillers` for people |
//!
//! *Architecture invariant*: the engine translates only through monitor tables; guest tables are read by the monitor's
//! fill and sync code and the debugger alone (`walk::FillScope`). *Architecture invariant*: this crate depends on nothing of
//! ours and calls nobody: translations, faults and notes are returned.
//!
//! # Several vCPUs
//!
//! What a vCPU must forget is posted to a log, which it applies at its boundaries (`drain`). Two rules hold it together. A right
//! is taken away in this order: clear the monitor's entry, post, wait until every vCPU has seen the post, only then read, move
//! or reuse what lies behind. And a vCPU that waits for any lock counts as parked: nobody waits for it meanwhile, so that it
//! looks at the log before it uses a TLB again, even in the middle of an instruction. Every interleaving of this (posting,
//! hearing, acknowledging, parking, waiting for each other and for locks) is tried by the `loom` model in `drain`:
//! `RUSTFLAGS="--cfg loom" cargo test -p umbra-mmu --lib --release loom`.
//!
//! What all this promises (S1 to S23, I1 to I10), and which test shows it: `docs/promises.md`.
//!
//! Left out for now: 5-level paging. Monitor descriptor tables are the processor's (`umbra_cpu::tables`).

pub mod addr;
pub mod attention;
pub mod classify;
pub mod counters;
mod descriptors;
pub mod dma;
mod drain;
pub mod events;
pub mod explain;
pub mod fault;
pub mod fillers;
pub mod frames;
mod host;
pub mod memory;
pub mod monitor;
pub mod overview;
pub mod phys_map;
pub mod place;
pub mod pte;
pub mod ram;
pub mod reclaim;
pub mod regs;
mod sets;
pub mod tlb;
pub mod vcpu;
pub mod video;
pub mod walk;
mod watch;
pub mod writers;

pub use addr::{GuestPhys, Linear, PhysPage, RegionId};
pub use attention::Attention;
pub use counters::{Counters, FaultClass};
pub use dma::Dma;
pub use drain::{CodeWrite, while_parked};
pub use events::{Event, EventKind, Events};
pub use explain::Explanation;
pub use fault::{Access, PageFault, View};
pub use fillers::Filler;
pub use frames::{FrameOrder, PinError, Pool, PoolError};
pub use memory::{GuestDma, GuestMemory, MapError};
pub use monitor::audit::AuditReport;
pub use overview::{PageUse, PageView};
pub use phys_map::{Backing, ReadFrom, WriteTo};
pub use place::{Place, PlaceKind, WriteNote};
pub use ram::{Direction, RamRun, RamSlot, Word};
pub use reclaim::disks::{DiskCopies, DiskImage};
pub use reclaim::sharing::{Sharing, SharingCounts};
pub use reclaim::{Paging, ReclaimCounts};
pub use regs::PagingRegs;
pub use vcpu::VcpuMmu;
pub use video::VideoMemory;
pub use writers::Writer;
