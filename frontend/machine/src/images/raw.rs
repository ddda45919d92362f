//! A raw image: the file is the disk. Also the lock that every image's file has.

use super::ImageError;
use std::fs::{File, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use umbra_devices::block::Storage;
use umbra_mmu::DiskImage;

/// Locks an image for as long as it is open: alone if it is written, else among readers.
pub(super) fn lock(file: &File, path: &Path, writes: bool) -> Result<(), ImageError> {
    let locked = if writes { file.try_lock() } else { file.try_lock_shared() };
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(ImageError::InUse(path.to_owned())),
        // A file system without locks: nothing can be known of other machines.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(problem)) => Err(ImageError::Open { file: path.to_owned(), problem }),
    }
}

/// A file as it is.
pub(super) struct RawFile {
    file: File,
    length: u64,
}

impl RawFile {
    pub fn new(mut file: File) -> io::Result<RawFile> {
        // A block device has no length in its metadata.
        let length = file.seek(SeekFrom::End(0))?;
        Ok(RawFile { file, length })
    }
}

/// The same file, for whoever reads beside.
#[derive(Debug)]
struct Beside {
    file: File,
    name: String,
}

impl DiskImage for Beside {
    fn name(&self) -> &str {
        &self.name
    }
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at)
    }
}

impl RawFile {
    /// What reads this file beside its medium.
    pub fn beside(&self, name: &str) -> io::Result<Arc<dyn DiskImage>> {
        Ok(Arc::new(Beside { file: self.file.try_clone()?, name: name.to_owned() }))
    }
}

impl Storage for RawFile {
    fn length(&self) -> u64 {
        self.length
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at)
    }
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        self.file.write_all_at(from, at)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}
