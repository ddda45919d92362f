//! Pages that hold what a disk holds: they leave without a write, and come back from the disk (S15).
//!
//! ```text
//!  read from a disk, or written to it ──► known by its checksum ──► a page leaves, and a block read again is equal: OnDisk
//!  a block is about to be written     ──► the pages that are OnDisk there go to the swap file first
//! ```
//! A page is found by its contents: whichever chip or program brought it there, and wherever the guest copied it. Nothing is
//! believed: a page leaves for a block only if that, read again, is equal, and what comes back must have its checksum. Whoever
//! has an image reports what is read and written ([`DiskCopies`]); no one else may write the image meanwhile.
//!
//! Called by `monitor::evict`, under the mmu lock, and by the machine's disks. Leaves out: blocks beyond 2 TiB.

use super::swap::{PageBytes, Sums, SwapError};
use crate::frames::Frame;
use crate::memory::GuestMemory;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a page, and of a block here.
const PAGE: u64 = 4096;
/// Blocks begin at multiples of this many bytes.
const SECTOR: u64 = 512;
/// Blocks that have the same place in the table of known ones.
const WAYS: usize = 8;

/// An image that can be read beside whoever reads and writes it for the guest.
pub trait DiskImage: Debug + Send + Sync {
    /// Its name for the user.
    fn name(&self) -> &str;
    /// Reads bytes; what was written before is there.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
}

/// 4 KiB of a disk, and how to know them again.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    sector: u32,
    sum: u32,
    disk: u16,
}

impl Block {
    fn at(self) -> u64 {
        u64::from(self.sector) * SECTOR
    }
}

/// A disk of the guest.
#[derive(Debug)]
struct Disk {
    /// `None`: nobody needs it any more.
    image: Option<Arc<dyn DiskImage>>,
    /// What is being written at this moment.
    changing: Range<u64>,
    /// The guest has no such disk any more; pages may still be there.
    ended: bool,
}

/// The disks of a guest.
#[derive(Debug, Default)]
pub(crate) struct Disks {
    disks: Vec<Disk>,
    /// Blocks that were read or written lately, by checksum.
    known: Vec<[Option<Block>; WAYS]>,
    /// Where pages are: disk, sector, frame.
    used: BTreeSet<(u16, u32, u32)>,
}

impl Disks {
    /// One more disk of a guest with so many pages of RAM. `None`: there have been too many.
    fn add(&mut self, image: Arc<dyn DiskImage>, pages: usize) -> Option<u16> {
        let number = u16::try_from(self.disks.len()).ok()?;
        if self.known.is_empty() {
            self.known = vec![[None; WAYS]; (pages / WAYS).next_power_of_two()];
        }
        self.disks.push(Disk { image: Some(image), changing: 0..0, ended: false });
        Some(number)
    }
    fn set_of(&mut self, sum: u64) -> Option<&mut [Option<Block>; WAYS]> {
        let mask = self.known.len().checked_sub(1)?;
        self.known.get_mut(sum as usize & mask)
    }
    /// Remembers a block; of those that have its place, the one that was remembered first is forgotten.
    fn remember(&mut self, block: Block, sum: u64) {
        let Some(set) = self.set_of(sum) else { return };
        let place = set.iter().position(|known| *known == Some(block)).unwrap_or(WAYS - 1);
        set[..=place].rotate_right(1);
        set[0] = Some(block);
    }
    /// A block that holds this page, now and as long as nobody says that it will be written.
    pub(crate) fn find(&mut self, sums: Sums, page: &PageBytes) -> Option<Block> {
        if self.known.is_empty() {
            return None;
        }
        let sum = sums.of_page(page);
        let set = *self.set_of(sum)?;
        set.into_iter().flatten().filter(|block| block.sum == (sum >> 32) as u32).find(|block| {
            let Some(disk) = self.disks.get(usize::from(block.disk)) else { return false };
            let mut bytes = [0; PAGE as usize];
            let changes = disk.changing.start < block.at() + PAGE && block.at() < disk.changing.end;
            let image = disk.image.as_ref().filter(|_| !changes && !disk.ended);
            image.is_some_and(|image| image.read(block.at(), &mut bytes).is_ok()) && bytes == *page
        })
    }
    /// A frame's contents are in a block from now on.
    pub(crate) fn put(&mut self, block: Block, frame: Frame) {
        self.used.insert((block.disk, block.sector, frame.0));
    }
    /// They are not any more.
    pub(crate) fn take(&mut self, block: Block, frame: Frame) {
        self.used.remove(&(block.disk, block.sector, frame.0));
        self.close(block.disk);
    }
    /// Closes the image of a disk that has ended, if no page is there.
    fn close(&mut self, number: u16) {
        let is_used = self.used.range((number, 0, 0)..=(number, u32::MAX, u32::MAX)).next().is_some();
        if let Some(disk) = self.disks.get_mut(usize::from(number)).filter(|disk| disk.ended && !is_used) {
            disk.image = None;
        }
    }
    /// Reads a block, which must be what it was.
    pub(crate) fn get(&self, sums: Sums, block: Block, page: &mut PageBytes) -> Result<(), SwapError> {
        let image = self.disks.get(usize::from(block.disk)).and_then(|disk| disk.image.as_ref());
        let name = || image.map_or_else(String::new, |image| image.name().to_owned());
        let read = image.map_or(Err(io::ErrorKind::NotFound.into()), |image| image.read(block.at(), page));
        read.map_err(|source| SwapError::Disk { name: name(), source })?;
        let same = (sums.of_page(page) >> 32) as u32 == block.sum;
        if same { Ok(()) } else { Err(SwapError::DiskChanged { name: name(), at: block.at() }) }
    }
    /// The name of the image that a block is in, and where.
    pub(crate) fn place(&self, block: Block) -> (String, u64) {
        let image = self.disks.get(usize::from(block.disk)).and_then(|disk| disk.image.as_ref());
        (image.map_or_else(String::new, |image| image.name().to_owned()), block.at())
    }
    /// Frames whose contents are on disks.
    pub(crate) fn used(&self) -> u64 {
        self.used.len() as u64
    }
    /// From now on these bytes of a disk are not to be relied on; gives the frames whose contents are there.
    pub(crate) fn change(&mut self, number: u16, range: Range<u64>) -> Vec<Frame> {
        let first = (range.start / SECTOR).saturating_sub(PAGE / SECTOR - 1).try_into().unwrap_or(u32::MAX);
        let end = range.end.div_ceil(SECTOR).try_into().unwrap_or(u32::MAX);
        if let Some(disk) = self.disks.get_mut(usize::from(number)) {
            disk.changing = range;
        }
        self.used.range((number, first, 0)..(number, end, 0)).map(|(.., frame)| Frame(*frame)).collect()
    }
}

/// One disk of a guest whose memory is paged: whoever reads and writes the image says what it does.
#[derive(Debug)]
pub struct DiskCopies {
    memory: GuestMemory,
    disk: u16,
}

impl GuestMemory {
    /// From now on pages that hold what this image holds need not be written to the swap file. `None`: memory is not paged.
    pub fn add_disk(&self, image: Arc<dyn DiskImage>) -> Option<DiskCopies> {
        let mut monitor = self.shared.lock();
        let pages = monitor.pages_of_ram();
        let disk = monitor.reclaim.as_mut()?.disks.add(image, pages)?;
        Some(DiskCopies { memory: self.clone(), disk })
    }
}

impl DiskCopies {
    /// These bytes were read.
    pub fn was_read(&self, at: u64, bytes: &[u8]) {
        let Some(sums) = self.memory.shared.lock().reclaim.as_ref().map(|reclaim| reclaim.swap.sums) else { return };
        let (pages, _) = bytes.as_chunks::<{ PAGE as usize }>();
        let places = (at..).step_by(PAGE as usize);
        let blocks = places.zip(pages).filter(|(at, _)| at.is_multiple_of(SECTOR)).filter_map(|(at, page)| {
            let sum = sums.of_page(page);
            Some((Block { sector: u32::try_from(at / SECTOR).ok()?, sum: (sum >> 32) as u32, disk: self.disk }, sum))
        });
        // The sums are made while others work.
        let blocks: Vec<(Block, u64)> = blocks.collect();
        if let Some(reclaim) = self.memory.shared.lock().reclaim.as_mut() {
            blocks.into_iter().for_each(|(block, sum)| reclaim.disks.remember(block, sum));
        }
    }
    /// These bytes are about to be written: pages that are there are brought elsewhere before this returns.
    /// [`Self::was_written`] or [`Self::was_not_written`] must follow.
    pub fn will_be_written(&self, at: u64, bytes: u64) {
        self.memory.shared.lock().leave_blocks(self.disk, at..at.saturating_add(bytes));
    }
    /// They were.
    pub fn was_written(&self, at: u64, bytes: &[u8]) {
        self.was_not_written();
        self.was_read(at, bytes);
    }
    /// They may have been in part, or not at all.
    pub fn was_not_written(&self) {
        if let Some(reclaim) = self.memory.shared.lock().reclaim.as_mut() {
            reclaim.disks.change(self.disk, 0..0);
        }
    }
}

impl Drop for DiskCopies {
    /// The guest has no such disk any more. The image stays open as long as pages are there.
    fn drop(&mut self) {
        let mut monitor = self.memory.shared.lock();
        let Some(disks) = monitor.reclaim.as_mut().map(|reclaim| &mut reclaim.disks) else { return };
        if let Some(disk) = disks.disks.get_mut(usize::from(self.disk)) {
            disk.ended = true;
        }
        disks.close(self.disk);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nothing;

    impl DiskImage for Nothing {
        fn name(&self) -> &str {
            "nothing"
        }
        fn read(&self, _at: u64, into: &mut [u8]) -> io::Result<()> {
            into.fill(1);
            Ok(())
        }
    }

    /// A write touches the blocks that begin up to seven sectors before it, and no others.
    #[test]
    fn a_write_is_to_each_block_that_it_overlaps() {
        let mut disks = Disks::default();
        let disk = disks.add(Arc::new(Nothing), 64).unwrap();
        assert_eq!((disk, disks.add(Arc::new(Nothing), 64)), (0, Some(1)));
        for sector in 0..64 {
            disks.put(Block { sector, sum: 0, disk }, Frame(sector));
            disks.put(Block { sector, sum: 0, disk: 1 }, Frame(100 + sector));
        }
        let frames = |range: std::ops::RangeInclusive<u32>| range.map(Frame).collect::<Vec<Frame>>();
        assert_eq!(disks.change(0, 0..512), frames(0..=0));
        assert_eq!(disks.change(0, 511..513), frames(0..=1));
        assert_eq!(disks.change(0, 20 * 512..21 * 512), frames(13..=20));
        assert_eq!(disks.change(0, 20 * 512..28 * 512), frames(13..=27));
        assert_eq!(disks.change(1, 63 * 512..u64::MAX), (156..=163).map(Frame).collect::<Vec<_>>());
        assert!(disks.change(0, 0..0).is_empty() && disks.change(7, 0..9).is_empty());
    }

    /// The image of a disk that is no more is closed with the last page there.
    #[test]
    fn images_are_closed() {
        let mut disks = Disks::default();
        disks.add(Arc::new(Nothing), 64).unwrap();
        let block = Block { sector: 8, sum: 0, disk: 0 };
        disks.put(block, Frame(3));
        disks.disks[0].ended = true;
        disks.close(0);
        assert!(disks.disks[0].image.is_some());
        disks.take(block, Frame(3));
        assert!(disks.disks[0].image.is_none() && disks.used() == 0);
    }
}
