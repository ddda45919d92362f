//! System instructions and event delivery, run as small guests (SDM vol. 3, chapters 5, 6, 8, 21).

mod bench;
mod breakpoints;
mod checks;
mod control;
mod descriptors;
#[path = "../support/engine.rs"]
mod engine;
mod exchanges;
mod exits;
mod gates;
mod interrupts;
mod long_mode;
#[path = "../support/memory.rs"]
mod memory;
mod patches;
mod ports;
mod repeats;
mod save_areas;
mod segments;
mod tables;
mod tasks;
mod time_stamp;
mod v86;
