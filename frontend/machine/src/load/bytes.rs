//! Checked little-endian reads from a file that may lie, and writes into tables that we build.

use super::error::LoadProblem;
use super::plan::Bytes;

/// A file's bytes, or its first ones; every read names what it reads and fails with a sentence.
#[derive(Copy, Clone)]
pub(super) struct File<'a> {
    bytes: &'a [u8],
    length: u64,
}

impl<'a> File<'a> {
    /// A whole file.
    pub fn whole(bytes: &'a [u8]) -> File<'a> {
        File { bytes, length: bytes.len() as u64 }
    }
    /// A file of `length` bytes that begins with `bytes`.
    pub fn head(bytes: &'a [u8], length: u64) -> File<'a> {
        File { bytes, length: length.max(bytes.len() as u64) }
    }
    /// `length` bytes at `start`.
    pub fn slice(self, what: &'static str, start: u64, length: u64) -> Result<&'a [u8], LoadProblem> {
        let end = start.saturating_add(length);
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let bytes = range.and_then(|(start, end)| self.bytes.get(start..end));
        bytes.ok_or(LoadProblem::Truncated { what, start, end, length: self.length })
    }
    /// `length` bytes at `start`, to be put somewhere: those that are not here yet stay in the file.
    pub fn piece(self, what: &'static str, start: u64, length: u64) -> Result<Bytes<'a>, LoadProblem> {
        let end = start.saturating_add(length);
        if end <= self.bytes.len() as u64 || end > self.length {
            return self.slice(what, start, length).map(Bytes::from);
        }
        Ok(Bytes::InFile { at: start, length })
    }
    /// What is here from `start` on (empty if that is past its end).
    pub fn tail(self, start: u64) -> &'a [u8] {
        usize::try_from(start).ok().and_then(|start| self.bytes.get(start..)).unwrap_or(&[])
    }
    /// How many bytes follow `start`.
    pub fn after(self, start: u64) -> u64 {
        self.length.saturating_sub(start)
    }
    fn array<const N: usize>(self, what: &'static str, at: u64) -> Result<[u8; N], LoadProblem> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.slice(what, at, N as u64)?);
        Ok(bytes)
    }
    /// A byte.
    pub fn u8(self, what: &'static str, at: u64) -> Result<u8, LoadProblem> {
        Ok(u8::from_le_bytes(self.array(what, at)?))
    }
    /// Two bytes.
    pub fn u16(self, what: &'static str, at: u64) -> Result<u16, LoadProblem> {
        Ok(u16::from_le_bytes(self.array(what, at)?))
    }
    /// Four bytes.
    pub fn u32(self, what: &'static str, at: u64) -> Result<u32, LoadProblem> {
        Ok(u32::from_le_bytes(self.array(what, at)?))
    }
    /// Eight bytes.
    pub fn u64(self, what: &'static str, at: u64) -> Result<u64, LoadProblem> {
        Ok(u64::from_le_bytes(self.array(what, at)?))
    }
}

/// A table under construction, addressed by offset. Writes outside are dropped (a debug assertion catches them).
pub(super) struct Table(pub Vec<u8>);

impl Table {
    /// `length` zero bytes.
    pub fn zeroed(length: usize) -> Table {
        Table(vec![0; length])
    }
    /// Copies bytes to `at`.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        let target = self.0.get_mut(at..at.saturating_add(bytes.len()));
        debug_assert!(target.is_some(), "table write at {at:#x} is outside");
        if let Some(target) = target {
            target.copy_from_slice(bytes);
        }
    }
    /// A byte at `at`.
    pub fn u8(&mut self, at: usize, value: u8) {
        self.put(at, &[value]);
    }
    /// Two bytes at `at`.
    pub fn u16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }
    /// Four bytes at `at`.
    pub fn u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }
    /// Eight bytes at `at`.
    pub fn u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }
}
