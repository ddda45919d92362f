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
    /// Blocks that were kept when their code was written: they load the immediate that changed.
    pub patched: u64,
    /// Blocks entered through a full look-up.
    pub lookups: u64,
    /// Exceptions delivered, by vector (0–31).
    pub exceptions: [u64; 32],
    /// External interrupts delivered.
    pub interrupts: u64,
    /// Instructions that Umbra does not have (each became #UD).
    pub unimplemented: u64,
    /// Accesses to MSRs that the model does not have.
    pub unknown_msr_accesses: u64,
    /// Which ones: the first sixteen distinct numbers, in order of appearance; 0 is an empty place.
    pub unknown_msrs: [u32; 16],
}

impl CpuCounters {
    /// Counts and names an access to an MSR that the model does not have.
    pub fn note_unknown_msr(&mut self, msr: u32) {
        self.unknown_msr_accesses += 1;
        if self.unknown_msrs.contains(&msr) {
            return;
        }
        if let Some(place) = self.unknown_msrs.iter_mut().find(|place| **place == 0) {
            *place = msr;
        }
    }
}
