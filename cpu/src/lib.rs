//! The processor: decode, lift, uops, the interpreter, helpers.
//!
//! ```text
//! bytes ─ decode ─► Insn ─ lift ─► uops ─► exec (interpreter)
//!                   rare, big or privileged instructions: uop Call(helper)
//! ```
//!
//! The crate contains no port number and no physical address: the board is behind the [`bus::Bus`] trait.

pub mod bus;
pub mod cache;
pub mod check;
pub mod counters;
pub mod debug;
pub mod decode;
#[cfg(all(target_arch = "x86_64", not(portable)))]
pub mod emit;
#[cfg(not(all(target_arch = "x86_64", not(portable))))]
#[path = "emit/absent.rs"]
pub mod emit;
pub mod exceptions;
pub mod exec;
pub mod exit;
pub mod fault;
pub mod helpers;
pub mod lift;
pub mod listing;
pub mod memory;
pub mod mode;
pub mod model;
pub mod softfloat;
pub mod state;
pub mod tables;
pub mod undefined;
pub mod uop;
pub mod vcpu;
pub mod vector;

pub use exit::Exit;
pub use fault::Fault;
pub use vcpu::Vcpu;
