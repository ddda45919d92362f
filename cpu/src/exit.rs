//! Why `Vcpu::run` returned: a closed set (S22). State is always at an instruction boundary.

use serde::{Deserialize, Serialize};

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
