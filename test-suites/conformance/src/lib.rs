//! Conformance suites: formats, runners, reports.
//!
//! ```text
//! MOO / JSON lines ─ moo, jsonl ─► Case ─ profile (masks) ─► runner ─► Outcome ─► report (text, JSON, JUnit)
//! ```
//!
//! Everything that is read here comes from a file that a user names, so that every reader answers with a
//! [`error::FormatError`] (file and position) and never panics. The app's `umbra test` and the example `vectors` call it.

pub mod case;
pub mod compare;
pub mod error;
pub mod expected;
pub mod html;
pub mod jsonl;
pub mod moo;
pub mod profile;
pub mod report;
pub mod run;
pub mod source;
pub mod suite;
pub mod vendor;
pub mod watchdog;
