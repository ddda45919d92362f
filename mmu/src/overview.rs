//! All of guest RAM at one look: what each page is to the monitor, when it was used, and whether the host holds its frame.
//!
//! When: the monitor's entries are its accessed bits. An entry that leads to a page says that the page was used since the entry was last
//! taken away. Where memory is paged the reclaimer takes them away, and counts its looks; elsewhere [`GuestMemory::age_pages`] does, each
//! call a look. Where the guest maps large pages, or none, a fill fills up to sixteen neighbours, and they count as used.

use crate::addr::PhysPage;
use crate::frames::{Frame, WATCH_NOTED, WATCH_TABLE};
use crate::memory::GuestMemory;
use crate::monitor::Monitor;
use crate::phys_map::{NONE, Overlay, Page};
use crate::reclaim::State;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// What a page is. Several may be true at once.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PageUse(pub u16);

impl PageUse {
    /// The host holds its frame: it was touched.
    pub const RESIDENT: PageUse = PageUse(1 << 0);
    /// A monitor entry leads to it: a vCPU used it since the entry was last taken away.
    pub const MAPPED: PageUse = PageUse(1 << 1);
    /// It holds a guest table that is shadowed.
    pub const TABLE: PageUse = PageUse(1 << 2);
    /// It holds code that was translated.
    pub const CODE: PageUse = PageUse(1 << 3);
    /// Its contents are in the swap file.
    pub const OUT: PageUse = PageUse(1 << 4);
    /// It holds descriptors, and somebody wants to know who writes them ([`crate::writers`]).
    pub const DESCRIPTORS: PageUse = PageUse(1 << 5);
    /// A bus master was seen to read or write it while writers are noted.
    pub const DMA: PageUse = PageUse(1 << 6);
    /// It is a display adapter's memory.
    pub const VIDEO: PageUse = PageUse(1 << 7);
    /// Its frame is another page's, too.
    pub const SHARED: PageUse = PageUse(1 << 8);

    /// Whether all that is in `other` is true of it.
    pub const fn is(self, other: PageUse) -> bool {
        self.0 & other.0 == other.0
    }
    fn or(self, other: PageUse, when: bool) -> PageUse {
        if when { PageUse(self.0 | other.0) } else { self }
    }
}

/// One page.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PageView {
    /// Which.
    pub page: PhysPage,
    /// What it is.
    pub uses: PageUse,
    /// Looks since one that found it in use: 0 is the last one, or since then. `None`: nobody has looked, or it is out.
    pub age: Option<u8>,
}

impl Monitor {
    /// What a page is, but for what the host has to be asked.
    pub(crate) fn page_use(&self, number: PhysPage, frame: Frame, page: &Page) -> PageUse {
        let (watch, state) = (self.pool.watch(frame).load(Ordering::Relaxed), self.state(frame));
        PageUse::default()
            .or(PageUse::MAPPED, page.mappers != NONE)
            .or(PageUse::OUT, matches!(state, State::Out(_) | State::OnDisk(_)))
            .or(PageUse::SHARED, matches!(state, State::Shared(_)))
            .or(PageUse::TABLE, watch & WATCH_TABLE != 0)
            .or(PageUse::CODE, self.pool.code(frame).load(Ordering::Relaxed) != 0)
            .or(PageUse::DESCRIPTORS, watch & WATCH_NOTED != 0 && self.is_noted(number))
            .or(PageUse::DMA, self.had_dma(number))
            .or(PageUse::VIDEO, matches!(page.overlay, Some(Overlay::Video(_))))
    }
    fn age(&self, number: PhysPage, frame: Frame, uses: PageUse) -> Option<u8> {
        if uses.is(PageUse::MAPPED) {
            return Some(0);
        }
        match &self.reclaim {
            Some(reclaim) if reclaim.state(frame).is_in() => Some(reclaim.books.get(frame).idle.saturating_add(1)),
            Some(_) => None,
            None => self.ages.get(&number).copied(),
        }
    }
    /// A look: which pages were used since the one before.
    fn age_pages(&mut self) {
        if self.reclaim.is_some() {
            return;
        }
        let mut ages = std::mem::take(&mut self.ages);
        ages.values_mut().for_each(|age| *age = age.saturating_add(1));
        ages.extend(self.take_used().into_iter().map(|page| (page, 0)));
        self.ages = ages;
    }
}

impl GuestMemory {
    /// Looks which pages of RAM were used since the last call; they lose their monitor entries, so that the next use shows. Where memory
    /// is paged the reclaimer looks, and this does nothing.
    pub fn age_pages(&self) {
        self.shared.lock().age_pages();
    }
    /// Every page of guest RAM and of video memory with what it is used for, by guest-physical address.
    pub fn page_uses(&self) -> Vec<PageView> {
        let monitor = self.shared.lock();
        let pool = &self.shared.pool;
        let frame_of = |page: &Page| page.overlay.and_then(Overlay::frame).or(page.ram);
        // The host is asked about all frames in one go.
        let Frame(end) = pool.end_of_used();
        let mut resident = Vec::with_capacity(end as usize);
        pool.residency((0..end).map(Frame), |is_resident| resident.push(is_resident));
        let uses = monitor.phys.pages().filter_map(|(page, slot)| {
            let frame = frame_of(slot)?;
            let is_resident = resident.get(frame.0 as usize) == Some(&true);
            let uses = monitor.page_use(page, frame, slot).or(PageUse::RESIDENT, is_resident);
            Some(PageView { page, uses, age: monitor.age(page, frame, uses) })
        });
        uses.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::addr::{GuestPhys, Linear};
    use crate::dma::Dma;
    use crate::fault::{Access, View};
    use crate::frames::{FrameOrder, Pool};
    use std::sync::Arc;

    #[test]
    fn pages_have_uses_and_grow_older() {
        let memory = GuestMemory::new(Pool::new(1 << 20).unwrap(), FrameOrder::Permuted { seed: 1 }, 40);
        memory.map_ram(GuestPhys(0), 0x8_0000).unwrap();
        let video = memory.video_memory(0x1000).unwrap();
        video.map(0..1, GuestPhys(0x6000)).unwrap();
        let mut vcpu = memory.vcpu(Arc::default());
        let look = |page: usize| memory.page_uses()[page];
        assert_eq!((memory.page_uses().len(), look(0x11).age), (0x80, None));
        // Without paging a fill fills its neighbours, too.
        vcpu.resolve(Linear(0x1_1000), Access::Read, View::Supervisor).unwrap();
        assert_eq!(look(0x11).age, Some(0));
        for age in [0, 1, 2] {
            memory.age_pages();
            vcpu.drain();
            vcpu.resolve(Linear(0x2_2000), Access::Read, View::Supervisor).unwrap();
            assert_eq!((look(0x11).age, look(0x22).age, look(0x33).age), (Some(age), Some(0), None));
        }
        assert_eq!(vcpu.load::<u8>(0x1_1000), None, "the next use shows");
        assert!(look(6).uses.is(PageUse::VIDEO) && !look(5).uses.is(PageUse::VIDEO));
        memory.note_writers(true);
        memory.dma().write(GuestPhys(0x3fff), &[1, 2]);
        memory.dma().read(GuestPhys(0x7_ffff), &mut [0; 100]);
        vcpu.watch_writes(PhysPage(5));
        let with = |uses: PageUse| {
            let found = memory.page_uses().into_iter().filter(|view| view.uses.is(uses));
            found.map(|view| view.page.0).collect::<Vec<_>>()
        };
        assert_eq!((with(PageUse::DMA), with(PageUse::DESCRIPTORS)), (vec![3, 4, 0x7f], vec![5]));
        assert!(with(PageUse::SHARED).is_empty());
        memory.dma().read(GuestPhys(u64::MAX - 1), &mut [0; 100]);
    }
}
