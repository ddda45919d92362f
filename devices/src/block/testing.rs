//! Storages for tests: memory, and a pattern that takes every write and keeps none (so that two devices that do the same
//! see the same), with sectors that fail.

use super::{SECTOR, Storage};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

/// A storage for tests.
pub(crate) struct Scripted {
    bytes: Bytes,
    length: u64,
    read_only: bool,
    /// Sectors that cannot be read or written.
    bad: std::ops::Range<u64>,
}

enum Bytes {
    Memory(Arc<Mutex<Vec<u8>>>),
    Pattern,
}

/// What a pattern has at an offset.
pub(crate) fn pattern(at: u64) -> u8 {
    (at ^ at >> 9 ^ at >> 17) as u8
}

impl Scripted {
    pub fn memory(bytes: usize) -> Scripted {
        Scripted::shared(Arc::new(Mutex::new(vec![0; bytes])))
    }
    pub fn shared(bytes: Arc<Mutex<Vec<u8>>>) -> Scripted {
        let length = bytes.lock().len() as u64;
        Scripted { bytes: Bytes::Memory(bytes), length, read_only: false, bad: 0..0 }
    }
    pub fn pattern(length: u64) -> Scripted {
        Scripted { bytes: Bytes::Pattern, length, read_only: false, bad: 0..0 }
    }
    pub fn read_only(mut self) -> Scripted {
        self.read_only = true;
        self
    }
    pub fn bad(mut self, sectors: std::ops::Range<u64>) -> Scripted {
        self.bad = sectors;
        self
    }
    fn check(&self, at: u64, bytes: usize) -> io::Result<()> {
        assert!(at + bytes as u64 <= self.length, "outside");
        let (first, last) = (at / SECTOR as u64, (at + bytes as u64).div_ceil(SECTOR as u64));
        if first < self.bad.end && last > self.bad.start { Err(io::Error::other("bad sector")) } else { Ok(()) }
    }
}

impl Storage for Scripted {
    fn length(&self) -> u64 {
        self.length
    }
    fn is_read_only(&self) -> bool {
        self.read_only
    }
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.check(at, into.len())?;
        match &self.bytes {
            Bytes::Memory(bytes) => into.copy_from_slice(&bytes.lock()[at as usize..at as usize + into.len()]),
            Bytes::Pattern => into.iter_mut().zip(at..).for_each(|(to, at)| *to = pattern(at)),
        }
        Ok(())
    }
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        self.check(at, from.len())?;
        if let Bytes::Memory(bytes) = &self.bytes {
            bytes.lock()[at as usize..at as usize + from.len()].copy_from_slice(from);
        }
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
