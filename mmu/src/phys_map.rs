//! The guest-physical map: what lies behind each page, and who watches it.
//!
//! A page may own a RAM frame and a ROM frame at once; `Backing` says which of them reads and writes reach (shadow RAM, 82441FX
//! data sheet 3.2.11 "PAM"). An overlay (a device, video memory) hides both, or takes the writes (flash memory). Called by
//! `memory` and the monitor, under the mmu lock.

use crate::addr::{PhysPage, RegionId};
use crate::frames::Frame;

/// What reads of a page reach.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReadFrom {
    /// Its RAM.
    Ram,
    /// Its ROM image.
    Rom,
    /// Nothing: FFh.
    Open,
}

/// What writes to a page reach.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum WriteTo {
    /// Its RAM.
    Ram,
    /// Nothing: dropped.
    Drop,
}

/// How a range of pages behaves.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backing {
    /// What reads reach.
    pub read: ReadFrom,
    /// What writes reach.
    pub write: WriteTo,
}

impl Backing {
    /// Ordinary RAM.
    pub const RAM: Backing = Backing { read: ReadFrom::Ram, write: WriteTo::Ram };
    /// A ROM image; writes are dropped.
    pub const ROM: Backing = Backing { read: ReadFrom::Rom, write: WriteTo::Drop };
    /// Nothing at all.
    pub const OPEN: Backing = Backing { read: ReadFrom::Open, write: WriteTo::Drop };
}

/// No node or table: the end of an intrusive list.
pub(crate) const NONE: u32 = u32::MAX;

/// One guest-physical page.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) ram: Option<Frame>,
    pub(crate) rom: Option<Frame>,
    /// What hides the page's own memory.
    pub(crate) overlay: Option<Overlay>,
    pub(crate) backing: Backing,
    /// First monitor leaf entry that maps this page (`monitor::rmap`).
    pub(crate) mappers: u32,
    /// First monitor table that shadows the guest table in this page.
    pub(crate) tables: u32,
    /// Tracked writes since a fill last went through this page's tables.
    pub(crate) flood: u16,
}

/// What lies over a page's own memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Overlay {
    /// A device: region and the page's index within it.
    Device(RegionId, u32),
    /// A device that takes writes only: reads reach what lies beneath.
    Writes(RegionId, u32),
    /// A display adapter's memory.
    Video(Frame),
}

impl Overlay {
    /// What an access that is not a read meets.
    fn target(self) -> Target {
        match self {
            Overlay::Device(region, index) | Overlay::Writes(region, index) => Target::Device(region, index),
            Overlay::Video(frame) => Target::Ram(frame),
        }
    }
    /// Its frame, if it has one.
    pub(crate) fn frame(self) -> Option<Frame> {
        match self {
            Overlay::Device(..) | Overlay::Writes(..) => None,
            Overlay::Video(frame) => Some(frame),
        }
    }
}

/// What an access to a page meets.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A frame, RAM.
    Ram(Frame),
    /// A frame, ROM (reads only).
    Rom(Frame),
    /// A device: region, page index.
    Device(RegionId, u32),
    /// Nothing: FFh, or dropped.
    Open,
}

const VACANT: Page =
    Page { ram: None, rom: None, overlay: None, backing: Backing::OPEN, mappers: NONE, tables: NONE, flood: 0 };

impl Page {
    /// What a read meets.
    pub(crate) fn read_target(&self) -> Target {
        match self.overlay {
            None | Some(Overlay::Writes(..)) => {}
            Some(overlay) => return overlay.target(),
        }
        match self.backing.read {
            ReadFrom::Ram => self.ram.map_or(Target::Open, Target::Ram),
            ReadFrom::Rom => self.rom.map_or(Target::Open, Target::Rom),
            ReadFrom::Open => Target::Open,
        }
    }
    /// What a write meets. `Rom` and `Open` drop it.
    pub(crate) fn write_target(&self) -> Target {
        if let Some(overlay) = self.overlay {
            return overlay.target();
        }
        match (self.backing.write, self.backing.read) {
            (WriteTo::Ram, _) => self.ram.map_or(Target::Open, Target::Ram),
            (WriteTo::Drop, ReadFrom::Rom) => self.rom.map_or(Target::Open, Target::Rom),
            (WriteTo::Drop, _) => Target::Open,
        }
    }
}

/// Pages in chunks of 512: below 64 GiB by index, above by hash.
#[derive(Debug, Default)]
pub(crate) struct PhysMap {
    low: Vec<Option<Box<[Page]>>>,
    high: rustc_hash::FxHashMap<u64, Box<[Page]>>,
}

const CHUNK: u64 = 512;
const LOW_CHUNKS: u64 = (64 << 30 >> 12) / CHUNK;

impl PhysMap {
    /// The page, if anything was ever put there.
    #[inline]
    pub(crate) fn get(&self, page: PhysPage) -> Option<&Page> {
        let (chunk, index) = (page.0 / CHUNK, (page.0 % CHUNK) as usize);
        let pages = if chunk < LOW_CHUNKS { self.low.get(chunk as usize)?.as_ref() } else { self.high.get(&chunk) };
        pages?.get(index)
    }
    /// As [`PhysMap::get`].
    #[inline]
    pub(crate) fn get_mut(&mut self, page: PhysPage) -> Option<&mut Page> {
        let (chunk, index) = (page.0 / CHUNK, (page.0 % CHUNK) as usize);
        let pages =
            if chunk < LOW_CHUNKS { self.low.get_mut(chunk as usize)?.as_mut() } else { self.high.get_mut(&chunk) };
        pages?.get_mut(index)
    }
    /// The page, made vacant if there was none.
    pub(crate) fn entry(&mut self, page: PhysPage) -> &mut Page {
        let (chunk, index) = (page.0 / CHUNK, (page.0 % CHUNK) as usize);
        let fresh = || vec![VACANT; CHUNK as usize].into_boxed_slice();
        let pages = if chunk < LOW_CHUNKS {
            if self.low.len() <= chunk as usize {
                self.low.resize_with(chunk as usize + 1, || None);
            }
            self.low[chunk as usize].get_or_insert_with(fresh)
        } else {
            self.high.entry(chunk).or_insert_with(fresh)
        };
        &mut pages[index]
    }
    /// What a read of the page meets.
    pub(crate) fn read_target(&self, page: PhysPage) -> Target {
        self.get(page).map_or(Target::Open, Page::read_target)
    }
    /// What a write to the page meets.
    pub(crate) fn write_target(&self, page: PhysPage) -> Target {
        self.get(page).map_or(Target::Open, Page::write_target)
    }
    /// All pages in guest-physical order.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (PhysPage, &Page)> {
        let low = self.low.iter().enumerate().filter_map(|(i, c)| c.as_ref().map(|c| (i as u64, c)));
        let mut high: Vec<_> = self.high.iter().map(|(i, c)| (*i, c)).collect();
        high.sort_unstable_by_key(|(i, _)| *i);
        low.chain(high).flat_map(|(chunk, pages)| {
            pages.iter().enumerate().map(move |(i, page)| (PhysPage(chunk * CHUNK + i as u64), page))
        })
    }
}
