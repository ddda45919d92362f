//! What is wrong with an input file, and where: one sentence for the person who named the file.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where in a file.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// The file as a whole (it cannot be opened, or is not what it should be).
    Whole,
    /// A byte offset, counted after decompression.
    Byte(u64),
    /// A line, counted from 1, after decompression.
    Line(u64),
}

/// A file that cannot be read as what it claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// The file as the user named it.
    pub file: PathBuf,
    /// Where in it.
    pub position: Position,
    /// What is wrong there.
    pub what: String,
}

impl FormatError {
    /// An error at a position of a file.
    pub fn new(file: &Path, position: Position, what: impl Into<String>) -> FormatError {
        FormatError { file: file.to_owned(), position, what: what.into() }
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.position {
            Position::Whole => write!(f, "{file}: {}", self.what),
            Position::Byte(at) => write!(f, "{file}: byte {at:#x}: {}", self.what),
            Position::Line(line) => write!(f, "{file}:{line}: {}", self.what),
        }
    }
}

impl std::error::Error for FormatError {}
