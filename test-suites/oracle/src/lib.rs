//! The host processor as an oracle: random user-mode instruction sequences run natively in a sandboxed child and in Umbra,
//! and everything that they leave behind is compared.
//!
//! ```text
//! generate ─► Program ─┬─► host: a child process, signals, the XSAVE area ─► Outcome ─┐
//!                      └─► ours: an engine of umbra-cpu ────────────────────► Outcome ─┴─► compare ─► shrink ─► vector
//! ```
//!
//! A sequence is straight code with forward branches, counted loops, calls and memory operands in a small arena, so that
//! flags, registers and vectors live across instructions. 64-bit code runs as it is, 32-bit code through the compatibility
//! code segment that Linux gives every process, 16-bit code through segments in the LDT. Compared are all general registers,
//! RFLAGS less what the manuals leave undefined, the whole x87, MMX and AVX state, MXCSR, every byte of the arena, and the
//! exception that ended it with error code and CR2.
//!
//! Left out, because the host's answer is its own: CPUID, time, random numbers, system calls, segment loads, far transfers,
//! x87 instruction pointers, approximations (RCP, RSQRT) and transcendentals, EVEX, save areas.
//!
//! `unsafe` is needed for the child: mappings, signals, and the jump into generated code.

pub mod arithmetic80;
pub mod compare;
pub mod generate;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod host;
pub mod layout;
pub mod ours;
pub mod program;
pub mod random;
pub mod shrink;
pub mod vector_case;

/// Whether Linux says that the host's processor is Intel's.
pub fn host_is_intels() -> bool {
    static IS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    let told = || std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("GenuineIntel"));
    *IS.get_or_init(told)
}
