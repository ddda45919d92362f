//! Conformance suites: formats, runners, reports. Behind `umbra test`, `umbra batch` and `umbra report`.
//!
//! ```text
//! files ─ format ─┬─ MOO / JSON lines ─ moo, jsonl ─► Case ─ profile (masks) ─ run ──────────┐
//!                 │      (worker: a child process runs them, pool: as many as asked for)     ├─► Outcome ─ report ─► text,
//!                 └─ ROMs, kernels, machine files ─ guest_file ─► GuestTest ─ guest (a child ┘    JSON, JUnit, HTML
//!                        process `umbra run`) ─► Observed ─ judge ──────────────────────────────► (promises, families)
//! ```
//!
//! Everything that is read here comes from a file that a user names, so that every reader answers with a
//! [`error::FormatError`] (file and position) and never panics. No test shares a process with the one that reports.

pub mod cargo_log;
pub mod case;
pub mod child;
pub mod compare;
pub mod engine;
pub mod error;
pub mod expected;
pub mod family;
pub mod format;
pub mod guest;
pub mod guest_file;
pub mod html;
pub mod jsonl;
pub mod judge;
pub mod moo;
pub mod pool;
pub mod profile;
pub mod promises;
pub mod report;
pub mod run;
pub mod shell;
pub mod source;
pub mod suite;
pub mod unit_tests;
pub mod vendor;
pub mod watchdog;
pub mod worker;
