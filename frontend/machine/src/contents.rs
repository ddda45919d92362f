//! The bytes of a file that is read once: a kernel, an initrd, a ROM.
//!
//! A large kernel is not read as a whole: its first bytes say where the rest goes, and that is read straight to its place.
//! Fresh memory for a copy of it is a third of the time until a machine starts, which is to be 20 ms at most.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Deref;
use std::path::Path;

/// The most bytes under way from a file to their place.
const PIECE: u64 = 256 << 10;

/// Bytes to be loaded.
#[derive(Debug)]
pub enum Contents<'a> {
    /// Given in code.
    Given(&'a [u8]),
    /// A file's.
    Read(Vec<u8>),
}

impl Contents<'_> {
    /// Reads a file.
    pub fn of(path: &Path) -> io::Result<Contents<'static>> {
        std::fs::read(path).map(Contents::Read)
    }
}

impl Deref for Contents<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Contents::Given(bytes) => bytes,
            Contents::Read(bytes) => bytes,
        }
    }
}

/// A file of which the first bytes are here.
#[derive(Debug)]
pub struct Begun {
    file: File,
    head: Vec<u8>,
    length: u64,
}

impl Begun {
    /// Reads the first `head` bytes, or as many as there are.
    pub fn open(path: &Path, head: u64) -> io::Result<Begun> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut bytes = Vec::new();
        file.by_ref().take(head).read_to_end(&mut bytes)?;
        Ok(Begun { file, head: bytes, length })
    }
    /// The first bytes.
    pub fn head(&self) -> &[u8] {
        &self.head
    }
    /// The whole file's length in bytes, as it was when it was opened.
    pub fn length(&self) -> u64 {
        self.length
    }
    /// Reads `length` bytes at `at` in pieces, each given with its distance from the first byte.
    pub fn pieces(&self, at: u64, length: u64, mut to: impl FnMut(u64, &[u8])) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))?;
        let mut piece = vec![0; PIECE.min(length) as usize];
        let mut done = 0;
        while done < length {
            let part = &mut piece[..PIECE.min(length - done) as usize];
            file.read_exact(part)?;
            to(done, part);
            done += part.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_pieces_is_the_file() {
        let path = std::env::temp_dir().join(format!("umbra-contents-{}", std::process::id()));
        for length in [0, 5, PIECE, PIECE + 1, 3 * PIECE + 12_345] {
            let bytes: Vec<u8> = (0..length).map(|n| (n / 7) as u8).collect();
            std::fs::write(&path, &bytes).expect("a file in the temporary folder");
            assert!(*Contents::of(&path).expect("its bytes") == bytes[..], "{length}");
            let begun = Begun::open(&path, 1024).expect("its head");
            assert_eq!(begun.length(), length);
            assert_eq!(begun.head(), &bytes[..length.min(1024) as usize]);
            let mut read = vec![0; length as usize];
            let all = begun.pieces(0, length, |at, piece| read[at as usize..][..piece.len()].copy_from_slice(piece));
            assert!(all.is_ok() && read == bytes, "{length}");
            let end = begun.pieces(length, 1, |_, _| ());
            assert_eq!(end.map_err(|problem| problem.kind()), Err(io::ErrorKind::UnexpectedEof));
        }
        let _ = std::fs::remove_file(&path);
        assert!(Contents::of(&path).is_err() && Begun::open(&path, 1).is_err());
    }
}
