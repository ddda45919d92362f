//! The board: devices, vCPUs and memory wired into one PC, and the run loop.
//!
//! ```text
//! config ──► builder ──► board + memory + vCPUs ──► run
//!              │ load: kernel bytes → plan (segments, entry state)
//!              │ acpi: tables for this board
//!              └ memory_map: where RAM is, E820
//! ```

pub mod acpi;
pub mod board;
pub mod config;
pub mod gate;
pub mod load;
pub mod memory_map;
pub mod wiring;
