//! What can be wrong with a file that a machine is to start from: one sentence each, which says what, where and what to try.

use thiserror::Error;

/// A file that cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}: {problem}")]
pub struct LoadError {
    /// The file, as the user named it.
    pub file: String,
    /// What is wrong.
    pub problem: LoadProblem,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadProblem {
    /// The file has no bytes.
    #[error("the file is empty; try to fetch or build it again")]
    Empty,
    /// The file ends before something that its headers promise.
    #[error(
        "the file is cut short: {what} needs bytes {start:#x}–{end:#x}, but there are only {length:#x}; try to copy it again"
    )]
    Truncated {
        /// What is missing.
        what: &'static str,
        /// The first byte of it.
        start: u64,
        /// One past its last byte.
        end: u64,
        /// The file's length.
        length: u64,
    },
    /// No loader knows the file.
    #[error("this is {guess}, not a kernel; try a Linux bzImage, a multiboot kernel or a PVH ELF file{advice}")]
    UnknownFormat {
        /// What it looks like.
        guess: &'static str,
        /// A further hint, beginning with a separator, or empty.
        advice: &'static str,
    },
    /// A header field has a value that cannot be.
    #[error("{what} is {value:#x}, {why}; the file is damaged or not what it says")]
    BadField {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The kernel wants something that this loader does not do.
    #[error("{what}; try {advice}")]
    Unsupported {
        /// What it wants.
        what: &'static str,
        /// What to try.
        advice: &'static str,
    },
    /// The kernel's command line is too long for it.
    #[error("the command line has {length} bytes and this kernel takes {limit}; try a shorter --append")]
    CommandLineTooLong {
        /// Its length.
        length: usize,
        /// The most that fits.
        limit: usize,
    },
    /// The command line holds a zero byte, which would end it.
    #[error("the command line holds a zero byte; try --append without it")]
    CommandLineNul,
    /// A piece does not lie in usable RAM.
    #[error(
        "{what} wants {start:#x}–{end:#x}, which is not all usable RAM (low RAM ends at {low_end:#x}); try more memory (-m)"
    )]
    OutsideRam {
        /// The piece.
        what: &'static str,
        /// Its first byte.
        start: u64,
        /// One past its last byte.
        end: u64,
        /// Where low RAM ends.
        low_end: u64,
    },
    /// Two pieces would lie on each other.
    #[error("{what} at {start:#x}–{end:#x} would lie over {other}; the file's addresses clash")]
    Overlap {
        /// The piece.
        what: &'static str,
        /// Its first byte.
        start: u64,
        /// One past its last byte.
        end: u64,
        /// What lies there already.
        other: &'static str,
    },
    /// There is no room for a piece.
    #[error("there is no room for {what} of {length} bytes below {limit:#x}; try more memory (-m)")]
    NoRoom {
        /// The piece.
        what: &'static str,
        /// Its length.
        length: u64,
        /// It must lie below this.
        limit: u64,
    },
    /// The kernel needs a processor with long mode.
    #[error("this kernel needs a 64-bit processor; try --cpu x86-64-v2 or a 32-bit kernel")]
    NeedsLongMode,
}
