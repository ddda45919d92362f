//! The board: devices, vCPUs and memory wired into one PC, and the run loop.
//!
//! ```text
//! config ──► builder ──► machine = board + memory + vCPUs ──► run
//!              │ load: kernel bytes → plan (segments, entry state)
//!              │ acpi: tables for this board
//!              └ memory_map: where RAM is, E820
//! ```

pub mod acpi;
pub mod board;
pub mod builder;
pub mod config;
pub mod entry;
pub mod gate;
pub mod load;
pub mod lock_step;
mod lock_step_search;
pub mod machine;
pub mod memory_map;
pub mod run;
pub mod time;
pub mod vcpu_bus;
pub mod wiring;

pub use board::Sink;
pub use builder::{BuildError, FlatStart, MachineBuilder};
pub use config::{ConfigError, MachineConfig};
pub use lock_step::{Divergence, Input};
pub use machine::{InputHandle, Machine};
pub use run::{RunEnd, RunLimits, StopHandle, WhenAsleep};

/// The crates that a machine is made of, for those who look into one.
pub use {umbra_cpu as cpu, umbra_mmu as mmu, umbra_roms as roms};
