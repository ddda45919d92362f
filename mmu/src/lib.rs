//! Guest memory: addresses, frames, the guest's page walk, monitor tables, the software TLB.
//!
//! ```text
//! linear ──► TLB ──► monitor table ──► frame (host pointer)
//!                        ▲ fill, sync
//!                    guest tables (bytes in guest RAM)
//! ```
//!
//! This crate depends on nothing of ours and calls nobody: translations, faults and notes are returned.

pub mod addr;
pub mod attention;
pub mod dma;
pub mod fault;
