//! A small file that is read whole when it is opened, and written in place: the contents of a flash memory.

use super::ImageError;
use super::raw::{RawFile, lock};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use umbra_devices::block::Storage;

/// An open file.
pub struct FileStart {
    /// What it held.
    pub bytes: Vec<u8>,
    /// The file, locked, to be written.
    pub storage: Box<dyn Storage>,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub enum FileProblem {
    /// Another machine has it open.
    InUse,
    /// There is none, and nothing that it could begin with.
    Missing,
    /// It is longer than it may be, or no plain file.
    Unsuitable,
    /// The host says no.
    Host(io::Error),
}

/// Opens a file of at most `most` bytes. One that does not exist, or is empty, is made to hold `first`; if there is nothing
/// to put into it, it is not made.
pub fn open_file(path: &Path, first: &[u8], most: u64) -> Result<FileStart, FileProblem> {
    let opened = match File::options().read(true).write(true).open(path) {
        Err(problem) if problem.kind() == ErrorKind::NotFound => None,
        opened => Some(opened.map_err(FileProblem::Host)?),
    };
    let is_new = opened.is_none();
    let mut file = match opened {
        Some(file) => file,
        None if first.is_empty() => return Err(FileProblem::Missing),
        None => File::options().read(true).write(true).create_new(true).open(path).map_err(FileProblem::Host)?,
    };
    lock(&file, path, true).map_err(|error| match error {
        ImageError::Open { problem, .. } => FileProblem::Host(problem),
        _ => FileProblem::InUse,
    })?;
    let about = file.metadata().map_err(FileProblem::Host)?;
    if !about.is_file() || about.len() > most {
        return Err(FileProblem::Unsuitable);
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(FileProblem::Host)?;
    let begins = bytes.is_empty();
    if begins && first.is_empty() {
        return Err(FileProblem::Missing);
    }
    let mut storage = RawFile::new(file).map_err(FileProblem::Host)?;
    if begins {
        if let Err(problem) = storage.write(0, first).and_then(|()| storage.flush()) {
            if is_new {
                // What is half there would be taken for damaged the next time.
                let _ = std::fs::remove_file(path);
            }
            return Err(FileProblem::Host(problem));
        }
        bytes = first.to_vec();
    }
    Ok(FileStart { bytes, storage: Box::new(storage) })
}
