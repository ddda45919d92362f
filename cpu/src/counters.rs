//! What a vCPU counts: cheap numbers that are always on.

use serde::{Deserialize, Serialize};

/// Counters of one vCPU since power-on.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuCounters {
    /// Blocks lifted.
    pub blocks: u64,
    /// Instructions lifted.
    pub lifted_insns: u64,
    /// Uops made of them.
    pub lifted_uops: u64,
    /// Blocks dropped because their code was written.
    pub dropped: u64,
    /// Blocks entered through a full look-up.
    pub lookups: u64,
    /// Exceptions delivered, by vector (0–31).
    pub exceptions: [u64; 32],
    /// External interrupts delivered.
    pub interrupts: u64,
    /// Instructions that Umbra does not have (each became #UD).
    pub unimplemented: u64,
}
