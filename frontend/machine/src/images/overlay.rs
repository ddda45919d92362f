//! A snapshot: writes go to a file without a name and are gone at the end; the image itself is only read.
//!
//! The file has the image's layout with holes; a map tells which grains of it were written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use umbra_devices::block::Storage;

/// Bytes of a grain.
const GRAIN: u64 = 4096;
/// Grains that one entry of the map covers.
const PER_WORD: u64 = 64;

/// A base that is read, and what was written over it.
pub(super) struct Overlay<S> {
    base: S,
    written: File,
    map: BTreeMap<u64, u64>,
}

impl<S: Storage> Overlay<S> {
    pub fn new(base: S) -> io::Result<Overlay<S>> {
        let written = tempfile::tempfile()?;
        written.set_len(base.length())?;
        Ok(Overlay { base, written, map: BTreeMap::new() })
    }

    fn has(&self, grain: u64) -> bool {
        self.map.get(&(grain / PER_WORD)).is_some_and(|word| word >> (grain % PER_WORD) & 1 != 0)
    }

    fn note(&mut self, grain: u64) {
        *self.map.entry(grain / PER_WORD).or_default() |= 1 << (grain % PER_WORD);
    }

    /// Fills a grain of the file from the base, since only a part of it is to be written.
    fn bring(&mut self, grain: u64) -> io::Result<()> {
        let at = grain * GRAIN;
        let mut bytes = [0; GRAIN as usize];
        let length = GRAIN.min(self.base.length().saturating_sub(at)) as usize;
        let Some(bytes) = bytes.get_mut(..length) else { return Ok(()) };
        self.base.read(at, bytes)?;
        self.written.write_all_at(bytes, at)
    }
}

impl<S: Storage> Storage for Overlay<S> {
    fn length(&self) -> u64 {
        self.base.length()
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            let from = at + done as u64;
            let left = (into.len() - done) as u64;
            // A run of grains that are all written, or all not.
            let ours = self.has(from / GRAIN);
            let mut run = (GRAIN - from % GRAIN).min(left);
            while run < left && self.has((from + run) / GRAIN) == ours {
                run = (run + GRAIN).min(left);
            }
            let Some(piece) = into.get_mut(done..done + run as usize) else { break };
            if ours {
                self.written.read_exact_at(piece, from)?;
            } else {
                self.base.read(from, piece)?;
            }
            done += run as usize;
        }
        Ok(())
    }
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        let end = at + from.len() as u64;
        let (first, last) = (at / GRAIN, end.div_ceil(GRAIN));
        for (grain, edge) in [(first, at), (last.saturating_sub(1), end)] {
            if !edge.is_multiple_of(GRAIN) && !self.has(grain) {
                self.bring(grain)?;
            }
        }
        self.written.write_all_at(from, at)?;
        (first..last).for_each(|grain| self.note(grain));
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
