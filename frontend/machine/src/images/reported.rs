//! An image whose reads and writes the guest's memory hears of: pages that hold the same need no place of their own when they leave.

use std::io;
use umbra_devices::block::Storage;
use umbra_mmu::DiskCopies;

/// A storage and who hears of it.
pub(super) struct Reported {
    pub storage: Box<dyn Storage>,
    pub copies: DiskCopies,
    /// Writes reach the image itself, and not what lies over it.
    pub is_written: bool,
}

impl Storage for Reported {
    fn length(&self) -> u64 {
        self.storage.length()
    }
    fn is_read_only(&self) -> bool {
        self.storage.is_read_only()
    }
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.storage.read(at, into)?;
        self.copies.was_read(at, into);
        Ok(())
    }
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        if !self.is_written {
            return self.storage.write(at, from);
        }
        self.copies.will_be_written(at, from.len() as u64);
        let result = self.storage.write(at, from);
        match result {
            Ok(()) => self.copies.was_written(at, from),
            Err(_) => self.copies.was_not_written(),
        }
        result
    }
    fn flush(&mut self) -> io::Result<()> {
        self.storage.flush()
    }
}
