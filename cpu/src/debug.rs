//! A debugger outside the guest: breakpoints on instructions and watchpoints on data, by linear address.

use std::collections::BTreeSet;

/// What a debugger asked for.
#[derive(Clone, Debug, Default)]
pub struct Debugger {
    /// Linear addresses at which `run` returns `Exit::Debug` before executing.
    pub breakpoints: BTreeSet<u64>,
    /// Return `Exit::Debug` after one instruction.
    pub single_step: bool,
}
