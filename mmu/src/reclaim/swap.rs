//! The swap file: pages compressed with LZ4, each in a slot with a checksum that stays in our memory.
//!
//! A page that does not become smaller is kept as it is. Pages that leave together are written together. Nothing of a slot is believed: one whose bytes are not those that were
//! written, or that cannot be read, is an error with a name, and so is a disk without room. Called by `monitor::evict`, under
//! the mmu lock. Leaves out: writing behind the guest's back (a slot is written when its page leaves).

use super::slots::{Slots, UNIT, UNITS};
use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use std::fmt::Debug;
use std::io;

/// Where swapped pages are kept: a file, or bytes in memory where a guest is small.
pub trait SwapStore: Debug + Send {
    /// Writes at an offset, which may lie past the end.
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()>;
    /// Reads at an offset; an error if there is not that much.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
    /// The same for somebody who can do without: also an error where it would take a disk's time.
    fn read_at_hand(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.read(at, into)
    }
}

#[cfg(unix)]
impl SwapStore for std::fs::File {
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, from, at)
    }
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, into, at)
    }
    #[cfg(all(target_os = "linux", target_env = "gnu", not(portable)))]
    fn read_at_hand(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        match crate::host::read_cached(self, at, into) {
            // A file system that cannot tell: mostly one that is in memory.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.read(at, into),
            result => result,
        }
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

/// Bytes in a block.
const BLOCK: usize = UNIT * UNITS as usize;

/// The swap file of one guest.
#[derive(Debug)]
pub(crate) struct Swap {
    store: Box<dyn SwapStore>,
    slots: Slots,
    /// The page that was packed last, and its length.
    packed: Vec<u8>,
    length: usize,
    /// Pages that are written together: the units of each block, their bytes, and of each page its first unit and its length.
    masks: Vec<u8>,
    together: Vec<u8>,
    gathered: Vec<(usize, usize)>,
    pub(crate) sums: Sums,
}

impl Swap {
    pub(crate) fn new(store: Box<dyn SwapStore>) -> Swap {
        use std::hash::{BuildHasher, Hasher, RandomState};
        let sums = Sums { salt: RandomState::new().build_hasher().finish() };
        Swap {
            store,
            slots: Slots::new(),
            packed: vec![0; get_maximum_output_size(4096)],
            length: 0,
            masks: Vec::new(),
            together: Vec::new(),
            gathered: Vec::new(),
            sums,
        }
    }
    /// Compresses a page, for what comes next: [`Swap::holds`], [`Swap::gather`] or [`Swap::put`].
    pub(crate) fn pack(&mut self, page: &PageBytes) {
        self.length = compress_into(page, &mut self.packed).unwrap_or(usize::MAX);
        // Less than a unit saved is nothing saved.
        if self.length > 4096 - UNIT {
            self.packed[..4096].copy_from_slice(page);
            self.length = 4096;
        }
    }
    /// Puts the packed page behind others that are written together.
    pub(crate) fn gather(&mut self) {
        let units = self.length.div_ceil(UNIT).clamp(1, UNITS as usize);
        let taken = self.masks.last().map_or(UNITS, |mask| u8::BITS - mask.leading_zeros()) as usize;
        let at = if taken + units > UNITS as usize { 0 } else { taken };
        if at == 0 {
            self.masks.push(0);
            self.together.resize(self.masks.len() * BLOCK, 0);
        }
        let start = (self.masks.len() - 1) * BLOCK + at * UNIT;
        self.together[start..start + self.length].copy_from_slice(&self.packed[..self.length]);
        if let Some(mask) = self.masks.last_mut() {
            *mask |= (((1u32 << units) - 1) << at) as u8;
        }
        self.gathered.push((start / UNIT, self.length));
    }
    /// Writes what was gathered; gives the slots in that order. On an error nothing has a slot, and each may be tried alone.
    pub(crate) fn write_gathered(&mut self) -> Result<Vec<Slot>, SwapError> {
        let (masks, together, gathered) =
            (std::mem::take(&mut self.masks), std::mem::take(&mut self.together), std::mem::take(&mut self.gathered));
        let (_, before) = self.bytes();
        let mut blocks = Vec::with_capacity(masks.len());
        let mut written = Ok(());
        while blocks.len() < masks.len() && written.is_ok() {
            let done = blocks.len();
            let Some((first, count)) = self.slots.take_run(&masks[done..]) else {
                written = Err(SwapError::Write(io::ErrorKind::StorageFull.into()));
                break;
            };
            blocks.extend(first..first + count as u32);
            let bytes = &together[done * BLOCK..blocks.len() * BLOCK];
            written = self.store.write(offset(first * UNITS), bytes).map_err(SwapError::Write);
        }
        let place = |(at, length): (usize, usize)| {
            Some((blocks.get(at / UNITS as usize)? * UNITS + (at % UNITS as usize) as u32, at * UNIT, length))
        };
        let places: Vec<_> = gathered.into_iter().map_while(place).collect();
        let slots = places.into_iter().filter_map(|(unit, at, length)| {
            if written.is_err() {
                self.slots.give_back(unit, length);
                return None;
            }
            Some(Slot { unit, sum: self.sums.of_slot(unit, &together[at..at + length]), length: length as u16 })
        });
        let slots = slots.collect();
        if written.is_err() {
            self.slots.cut_back(before);
        }
        // The room is kept for the next ones.
        (self.masks, self.together) = (masks, together);
        self.masks.clear();
        self.together.clear();
        written.map(|()| slots)
    }
    /// Writes the packed page alone; gives its slot.
    pub(crate) fn put(&mut self) -> Result<Slot, SwapError> {
        let (_, before) = self.bytes();
        let bytes = &self.packed[..self.length];
        let unit = self.slots.take(bytes.len());
        if let Err(source) = self.store.write(offset(unit), bytes) {
            self.slots.give_back(unit, self.length);
            self.slots.cut_back(before);
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
    /// Whether a slot holds the packed page, as far as can be told without waiting for a disk, which a write does not. The file
    /// is only asked where it may be so.
    pub(crate) fn holds(&self, slot: Slot) -> bool {
        let bytes = &self.packed[..self.length];
        let mut stored = [0; 4096];
        let stored = &mut stored[..self.length.min(4096)];
        usize::from(slot.length) == bytes.len()
            && self.sums.of_slot(slot.unit, bytes) == slot.sum
            && self.store.read_at_hand(offset(slot.unit), stored).is_ok()
            && stored == bytes
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
    u64::from(unit) * UNIT as u64
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

    impl Swap {
        fn put_page(&mut self, page: &PageBytes) -> Result<Slot, SwapError> {
            self.pack(page);
            self.put()
        }
        fn holds_page(&mut self, slot: Slot, page: &PageBytes) -> bool {
            self.pack(page);
            self.holds(slot)
        }
    }

    /// Alone and together, in turns: each is where its slot says.
    #[test]
    fn pages_come_back_from_groups() {
        let store = Memory::default();
        let mut swap = Swap::new(Box::new(store.clone()));
        let mut kept: Vec<(Slot, PageBytes)> = Vec::new();
        for round in 0..60 {
            let pages: Vec<PageBytes> = (0..round % 7 * 9).map(|n| page(round * 1000 + n, n % 3)).collect();
            for page in &pages {
                swap.pack(page);
                swap.gather();
            }
            let slots = swap.write_gathered().unwrap();
            assert_eq!(slots.len(), pages.len());
            kept.extend(slots.into_iter().zip(pages));
            let alone = page(round, round % 3);
            kept.push((swap.put_page(&alone).unwrap(), alone));
            let mut got = [0; 4096];
            for (slot, page) in &kept {
                swap.get(*slot, &mut got).unwrap();
                assert!(got == *page && swap.holds_page(*slot, page));
            }
            if round % 3 == 2 {
                kept.drain(..kept.len() / 2).for_each(|(slot, _)| swap.give_back(slot));
            }
        }
        kept.into_iter().for_each(|(slot, _)| swap.give_back(slot));
        assert_eq!(swap.bytes().0, 0);
    }

    /// A group that cannot be written has no slots: its room is free again, and what was kept before is still there.
    #[test]
    fn a_group_without_room_leaves_nothing() {
        #[derive(Debug)]
        struct Small(Memory, u64);
        impl SwapStore for Small {
            fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
                if at + from.len() as u64 > self.1 {
                    Err(io::ErrorKind::StorageFull.into())
                } else {
                    self.0.write(at, from)
                }
            }
            fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
                self.0.read(at, into)
            }
        }
        let mut swap = Swap::new(Box::new(Small(Memory::default(), 64 << 10)));
        let first = swap.put_page(&page(1, 0)).unwrap();
        let taken = swap.bytes().0;
        for n in 0..20 {
            swap.pack(&page(n, 0));
            swap.gather();
        }
        assert!(swap.write_gathered().is_err());
        assert_eq!(swap.bytes().0, taken);
        assert!(swap.holds_page(first, &page(1, 0)));
        let slots: Vec<Slot> = (0..15).map(|n| swap.put_page(&page(n, 0)).unwrap()).collect();
        assert!(matches!(swap.put_page(&page(99, 0)), Err(SwapError::NoRoom { .. })), "{slots:?}");
    }

    #[test]
    fn pages_come_back() {
        let mut swap = Swap::new(Box::new(Memory::default()));
        let pages: Vec<PageBytes> = (0..300).map(|n| page(n, n % 3)).collect();
        let slots: Vec<Slot> = pages.iter().map(|page| swap.put_page(page).unwrap()).collect();
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
        let (first, second) = (swap.put_page(&page(1, 2)).unwrap(), swap.put_page(&page(2, 0)).unwrap());
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
        assert!(swap.holds_page(first, &page(1, 2)) && !swap.holds_page(first, &page(1, 1)));
        let moved = Slot { unit: first.unit, ..second };
        assert!(matches!(swap.get(moved, &mut got), Err(SwapError::Damaged { .. })));
        store.0.lock().truncate(100);
        assert!(!swap.holds_page(second, &page(2, 0)), "what cannot be read holds nothing");
        assert!(matches!(swap.get(second, &mut got), Err(SwapError::Read(_))));
    }

    /// `/dev/full` refuses as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_has_its_own_sentence() {
        let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let error = Swap::new(Box::new(file)).put_page(&page(1, 0)).unwrap_err();
        assert!(matches!(error, SwapError::NoRoom { .. }), "{error:?}");
        assert!(error.to_string().contains("--swap-dir"), "{error}");
    }
}
