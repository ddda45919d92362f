//! The swap file: pages compressed with LZ4, each in a slot with a checksum that stays in our memory.
//!
//! A page that does not become smaller is kept as it is. Nothing of a slot is believed: one whose bytes are not those that were
//! written, or that cannot be read, is an error with a name, and so is a disk without room. Called by `monitor::evict`, under
//! the mmu lock. Leaves out: writing behind the guest's back (a slot is written when its page leaves).

use super::slots::Slots;
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use std::fmt::Debug;
use std::io;

/// Where swapped pages are kept: a file, or bytes in memory where a guest is small.
pub trait SwapStore: Debug + Send {
    /// Writes at an offset, which may lie past the end.
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()>;
    /// Reads at an offset; an error if there is not that much.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
}

#[cfg(unix)]
impl SwapStore for std::fs::File {
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, from, at)
    }
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, into, at)
    }
}

#[cfg(not(unix))]
impl SwapStore for std::fs::File {
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        io::Seek::seek(self, io::SeekFrom::Start(at))?;
        io::Write::write_all(self, from)
    }
    fn read(&self, at: u64, mut into: &mut [u8]) -> io::Result<()> {
        let mut file = self;
        io::Seek::seek(&mut file, io::SeekFrom::Start(at))?;
        io::Read::read_exact(&mut file, &mut into)
    }
}

impl SwapStore for Vec<u8> {
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        let at = usize::try_from(at).map_err(|_| io::ErrorKind::StorageFull)?;
        let end = at.checked_add(from.len()).ok_or(io::ErrorKind::StorageFull)?;
        if self.len() < end {
            self.resize(end, 0);
        }
        self[at..end].copy_from_slice(from);
        Ok(())
    }
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..)?.get(..into.len()));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Why guest memory cannot go on: the machine stops with this sentence.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// The disk is full, or a quota is.
    #[error(
        "the swap file has no room beyond {mib} MiB ({source}): free space on its disk, try --swap-dir with a folder on \
         another one, or a larger --memory-limit"
    )]
    NoRoom {
        /// What the file holds.
        mib: u64,
        /// The host's reason.
        source: io::Error,
    },
    /// A page cannot be written.
    #[error("the swap file cannot be written ({0}): try --swap-dir with a folder on another disk")]
    Write(io::Error),
    /// A page cannot be read again.
    #[error(
        "a page of guest memory cannot be read from the swap file ({0}): its contents are lost; try --swap-dir with a \
         folder on another disk"
    )]
    Read(io::Error),
    /// A page that is on a disk of the guest cannot be read again.
    #[error(
        "{name}: a page of guest memory cannot be read from this image ({source}): its contents are lost; try a copy of the \
         image on another disk"
    )]
    Disk {
        /// The image.
        name: String,
        /// The host's reason.
        source: io::Error,
    },
    /// What is there is not what the guest read or wrote.
    #[error(
        "{name}: the image was changed from outside while the machine ran: a page of guest memory that is in it, at offset \
         {at:#x}, is lost; try a copy of the image that nobody else writes"
    )]
    DiskChanged {
        /// The image.
        name: String,
        /// Where.
        at: u64,
    },
    /// A page is not what was written.
    #[error(
        "the swap file was changed or damaged: a page at offset {at:#x} is not what was written; try --swap-dir with a \
         folder on another disk"
    )]
    Damaged {
        /// Where in the file.
        at: u64,
    },
}

/// Where a page is, and how to know it again.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) unit: u32,
    pub(crate) sum: u32,
    /// Bytes; 4096: not compressed.
    pub(crate) length: u16,
}

/// How checksums are made: with salt, so that a slot of another run is not taken for one of this.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Sums {
    salt: u64,
}

impl Sums {
    /// Of a whole page, wherever it is.
    pub(crate) fn of_page(self, page: &PageBytes) -> u64 {
        checksum(page, self.salt)
    }
    /// Of what is stored at a place.
    fn of_slot(self, unit: u32, bytes: &[u8]) -> u32 {
        let sum = checksum(bytes, self.salt ^ u64::from(unit));
        sum as u32 ^ (sum >> 32) as u32
    }
}

/// A page's bytes.
pub(crate) type PageBytes = [u8; 4096];

/// The swap file of one guest.
#[derive(Debug)]
pub(crate) struct Swap {
    store: Box<dyn SwapStore>,
    slots: Slots,
    packed: Vec<u8>,
    pub(crate) sums: Sums,
}

impl Swap {
    pub(crate) fn new(store: Box<dyn SwapStore>) -> Swap {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let sums = Sums { salt: RandomState::new().build_hasher().finish() };
        Swap { store, slots: Slots::new(), packed: vec![0; get_maximum_output_size(4096)], sums }
    }
    /// Writes a page; gives its slot.
    pub(crate) fn put(&mut self, page: &PageBytes) -> Result<Slot, SwapError> {
        let packed = compress_into(page, &mut self.packed).unwrap_or(usize::MAX);
        let bytes = match self.packed.get(..packed) {
            // Less than a unit saved is nothing saved.
            Some(bytes) if packed <= 4096 - super::slots::UNIT => bytes,
            _ => page,
        };
        let unit = self.slots.take(bytes.len());
        if let Err(source) = self.store.write(offset(unit), bytes) {
            let length = bytes.len();
            self.slots.give_back(unit, length);
            return Err(match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    SwapError::NoRoom { mib: self.slots.bytes() >> 20, source }
                }
                _ => SwapError::Write(source),
            });
        }
        Ok(Slot { unit, sum: self.sums.of_slot(unit, bytes), length: bytes.len() as u16 })
    }
    /// Reads a page; its slot stays.
    pub(crate) fn get(&self, slot: Slot, page: &mut PageBytes) -> Result<(), SwapError> {
        let mut stored = [0; 4096];
        let bytes = &mut stored[..usize::from(slot.length).min(4096)];
        self.store.read(offset(slot.unit), bytes).map_err(SwapError::Read)?;
        let damaged = || SwapError::Damaged { at: offset(slot.unit) };
        if self.sums.of_slot(slot.unit, bytes) != slot.sum {
            return Err(damaged());
        }
        if let Ok(whole) = <&PageBytes>::try_from(&*bytes) {
            page.copy_from_slice(whole);
            return Ok(());
        }
        match decompress_into(bytes, page) {
            Ok(4096) => Ok(()),
            _ => Err(damaged()),
        }
    }
    /// Whether a slot holds this page.
    pub(crate) fn holds(&self, slot: Slot, page: &PageBytes) -> bool {
        let mut kept = [0; 4096];
        self.get(slot, &mut kept).is_ok() && kept == *page
    }
    /// Nobody needs the slot any more.
    pub(crate) fn give_back(&mut self, slot: Slot) {
        self.slots.give_back(slot.unit, slot.length.into());
    }
    /// Bytes in slots, and bytes that the file has grown to.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.slots.bytes(), self.slots.length())
    }
}

fn offset(unit: u32) -> u64 {
    u64::from(unit) * super::slots::UNIT as u64
}

/// Multiply and fold, eight bytes at a time: 0.3 µs a page.
fn checksum(bytes: &[u8], salt: u64) -> u64 {
    const KEY: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |a: u64, b: u64| {
        let wide = u128::from(a ^ KEY) * u128::from(b | 1);
        wide as u64 ^ (wide >> 64) as u64
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain(std::iter::once(&last));
    words.fold(salt ^ bytes.len() as u64, |sum, word| fold(sum ^ u64::from_le_bytes(*word), KEY))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    /// A store in memory that a test can damage.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Memory(pub(crate) Arc<Mutex<Vec<u8>>>);

    impl SwapStore for Memory {
        fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
            let mut bytes = self.0.lock();
            let end = at as usize + from.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at as usize..end].copy_from_slice(from);
            Ok(())
        }
        fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
            let bytes = self.0.lock();
            let part = bytes.get(at as usize..at as usize + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            into.copy_from_slice(part);
            Ok(())
        }
    }

    fn page(seed: u64, kind: u64) -> PageBytes {
        let mut state = seed;
        std::array::from_fn(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match kind {
                0 => (state >> 56) as u8,
                1 => (i / 64) as u8 ^ seed as u8,
                _ if i % 16 < 6 => (state >> 60) as u8,
                _ => 0,
            }
        })
    }

    #[test]
    fn pages_come_back() {
        let mut swap = Swap::new(Box::new(Memory::default()));
        let pages: Vec<PageBytes> = (0..300).map(|n| page(n, n % 3)).collect();
        let slots: Vec<Slot> = pages.iter().map(|page| swap.put(page).unwrap()).collect();
        assert!(slots.iter().any(|slot| slot.length == 4096) && slots.iter().any(|slot| slot.length < 512));
        let mut got = [0; 4096];
        for (slot, page) in slots.iter().zip(&pages) {
            swap.get(*slot, &mut got).unwrap();
            assert!(got == *page);
        }
        assert!(swap.bytes().0 < 250 * 4096, "{:?}", swap.bytes());
        slots.into_iter().for_each(|slot| swap.give_back(slot));
        assert_eq!(swap.bytes().0, 0);
    }

    /// Each single bit of each stored byte, a shorter file, and another slot's bytes: all noticed.
    #[test]
    fn damage_is_noticed() {
        let store = Memory::default();
        let mut swap = Swap::new(Box::new(store.clone()));
        let (first, second) = (swap.put(&page(1, 2)).unwrap(), swap.put(&page(2, 0)).unwrap());
        let good = store.0.lock().clone();
        let mut got = [0; 4096];
        for slot in [first, second] {
            let at = offset(slot.unit) as usize;
            for (byte, right) in good.iter().enumerate().skip(at).take(slot.length.into()) {
                store.0.lock()[byte] ^= 1 << (byte % 8);
                assert!(matches!(swap.get(slot, &mut got), Err(SwapError::Damaged { .. })), "byte {byte}");
                store.0.lock()[byte] = *right;
            }
            swap.get(slot, &mut got).unwrap();
        }
        assert!(swap.holds(first, &page(1, 2)) && !swap.holds(first, &page(1, 1)));
        let moved = Slot { unit: first.unit, ..second };
        assert!(matches!(swap.get(moved, &mut got), Err(SwapError::Damaged { .. })));
        store.0.lock().truncate(100);
        assert!(!swap.holds(second, &page(2, 0)), "what cannot be read holds nothing");
        assert!(matches!(swap.get(second, &mut got), Err(SwapError::Read(_))));
    }

    /// `/dev/full` refuses as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_has_its_own_sentence() {
        let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let error = Swap::new(Box::new(file)).put(&page(1, 0)).unwrap_err();
        assert!(matches!(error, SwapError::NoRoom { .. }), "{error:?}");
        assert!(error.to_string().contains("--swap-dir"), "{error}");
    }
}
