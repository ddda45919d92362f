//! The bytes of a file that is read once: a kernel, an initrd, a ROM.
//!
//! A large one gets large pages, where the host has them: the faults of thousands of small ones are most of what reading a
//! kernel costs, and a machine is to start within 20 ms.

use memmap2::{Advice, MmapMut};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

/// From this size on.
const LARGE: u64 = 4 << 20;

/// Bytes to be loaded.
#[derive(Debug)]
pub enum Contents<'a> {
    /// Given in code.
    Given(&'a [u8]),
    /// A file's.
    Read(Vec<u8>),
    /// A large file's, and how many they are.
    Large(MmapMut, usize),
}

impl Contents<'_> {
    /// Reads a file.
    pub fn of(path: &Path) -> io::Result<Contents<'static>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let large = (length >= LARGE).then(|| usize::try_from(length).ok().and_then(|n| MmapMut::map_anon(n).ok()));
        let Some(mut map) = large.flatten() else {
            let mut bytes = Vec::with_capacity(usize::try_from(length.min(LARGE)).unwrap_or(0));
            file.read_to_end(&mut bytes)?;
            return Ok(Contents::Read(bytes));
        };
        // Without large pages it is only slower.
        let _ = map.advise(Advice::HugePage);
        let mut count = 0;
        while count < map.len() {
            match file.read(&mut map[count..]) {
                Ok(0) => break,
                Ok(n) => count += n,
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(Contents::Large(map, count))
    }
}

impl Deref for Contents<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Contents::Given(bytes) => bytes,
            Contents::Read(bytes) => bytes,
            Contents::Large(map, count) => map.get(..*count).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_files_are_read_whole() {
        let path = std::env::temp_dir().join(format!("umbra-contents-{}", std::process::id()));
        for length in [0, 5, LARGE as usize - 1, LARGE as usize + 12_345] {
            let bytes: Vec<u8> = (0..length).map(|n| (n / 7) as u8).collect();
            std::fs::write(&path, &bytes).expect("a file in the temporary folder");
            assert!(*Contents::of(&path).expect("its bytes") == bytes[..], "{length}");
        }
        let _ = std::fs::remove_file(&path);
        assert!(Contents::of(&path).is_err());
    }
}
