//! What is behind a medium: a row of bytes that can be read, written and flushed, one call after the other.

use std::io;

/// A row of bytes. Called by one thread at a time (the medium's; the board's caller for flash memory), with ranges that lie
/// inside [`Self::length`].
pub trait Storage: Send {
    /// Bytes. Does not change.
    fn length(&self) -> u64;
    /// Whether writes fail.
    fn is_read_only(&self) -> bool;
    /// Reads bytes.
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes bytes.
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()>;
    /// Makes everything written so far last.
    fn flush(&mut self) -> io::Result<()>;
}

/// A storage whose writes fail.
pub struct ReadOnly<S>(pub S);

impl<S: Storage> Storage for ReadOnly<S> {
    fn length(&self) -> u64 {
        self.0.length()
    }
    fn is_read_only(&self) -> bool {
        true
    }
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read(at, into)
    }
    fn write(&mut self, _at: u64, _from: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for Box<dyn Storage> {
    fn length(&self) -> u64 {
        (**self).length()
    }
    fn is_read_only(&self) -> bool {
        (**self).is_read_only()
    }
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        (**self).read(at, into)
    }
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        (**self).write(at, from)
    }
    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }
}
