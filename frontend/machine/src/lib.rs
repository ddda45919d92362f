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
mod contents;
pub mod display;
pub mod drives;
pub mod entry;
pub mod gate;
mod host_clock;
pub mod host_memory;
pub mod images;
pub mod load;
pub mod lock_step;
mod lock_step_search;
pub mod machine;
pub mod memory_map;
pub mod paging;
pub mod pressure;
pub mod run;
pub mod sound;
mod storm;
pub mod time;
pub mod typing;
pub mod uefi;
pub mod vcpu_bus;
pub mod wiring;

pub use board::Sink;
pub use builder::{BuildError, FlatStart, MachineBuilder, check_optimisations};
pub use config::{ConfigError, MachineConfig};
pub use display::DisplayHandle;
pub use host_memory::CommonPool;
pub use lock_step::{Divergence, Input};
pub use machine::{InputHandle, Machine};
pub use run::{RunEnd, RunLimits, StopHandle, WhenAsleep};

/// What a person presses.
pub use umbra_devices::ps2::{KeyCode, MouseButtons, Stroke};

/// The crates that a machine is made of, for those who look into one.
pub use {umbra_cpu as cpu, umbra_mmu as mmu, umbra_roms as roms};
