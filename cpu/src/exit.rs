//! Why `Vcpu::run` returned: a closed set (S22). State is always at an instruction boundary.

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Why a vCPU came back to the run loop.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// The budget of instructions is spent.
    BudgetSpent,
    /// HLT (or MWAIT) with nothing to wake it: sleeps until an interrupt.
    Halted,
    /// After INIT: waits for a start-up IPI.
    WaitForSipi,
    /// Triple fault: the processor shut down. See `Vcpu::fault_chain`.
    Shutdown,
    /// `attention::bits::STOP` was set.
    Stopped,
    /// A debugger's breakpoint or watchpoint, or the end of a single step.
    Debug,
}

impl Exit {
    /// All of them, in the order of their counters.
    pub const ALL: [Exit; 6] =
        [Exit::BudgetSpent, Exit::Halted, Exit::WaitForSipi, Exit::Shutdown, Exit::Stopped, Exit::Debug];
}

/// How often `run` returned for each reason, and how long the host worked or slept before it ran the vCPU again.
#[derive(Copy, Clone, Debug, Default)]
pub struct ExitCounts {
    counts: [u64; Exit::ALL.len()],
    times: [Duration; Exit::ALL.len()],
    last: Option<(Exit, Instant)>,
}

impl ExitCounts {
    /// How often `run` returned so.
    pub fn count(&self, exit: Exit) -> u64 {
        self.counts[exit as usize]
    }
    /// Host time between such a return and the next run.
    pub fn time(&self, exit: Exit) -> Duration {
        self.times[exit as usize]
    }
    /// The vCPU runs.
    pub(crate) fn entered(&mut self) {
        if let Some((exit, since)) = self.last.take() {
            self.times[exit as usize] += since.elapsed();
        }
    }
    /// It has returned.
    pub(crate) fn left(&mut self, exit: Exit) {
        self.counts[exit as usize] += 1;
        self.last = Some((exit, Instant::now()));
    }
}

/// What the processor is doing between instructions (SDM vol. 3, activity state).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Executes instructions.
    #[default]
    Running,
    /// HLT: until an interrupt, NMI, INIT or reset.
    Halted,
    /// After INIT on an application processor.
    WaitForSipi,
    /// After a triple fault: until reset (or NMI, INIT).
    Shutdown,
}
