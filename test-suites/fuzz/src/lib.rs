//! What the fuzz targets do with their input, as plain functions: each panics when something that must hold does not.
//!
//! ```text
//! targets/ (cargo fuzz, a workspace of its own) ──► execute · engines · machines · board · images · loaders ◄── tests/seeded.rs (in every test run)
//! ```
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir test-suites/fuzz/targets -s none execute` runs one for as long as one likes. What
//! a target finds becomes a test beside the code that was wrong, not a file here.

pub mod board;
pub mod execute;
pub mod images;
pub mod loaders;
pub mod machines;

/// A fuzz target: its name, and what it does with its input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
#[rustfmt::skip]
pub const TARGETS: &[Target] = &[
    ("execute", execute::run), ("engines", execute::engines), ("machines", machines::run), ("board", board::run),
    ("images", images::run), ("loaders", loaders::run),
];
