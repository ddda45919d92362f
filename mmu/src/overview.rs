//! All of guest RAM at one look: what each page is to the monitor, and whether the host holds its frame.

use crate::addr::PhysPage;
use crate::frames::WATCH_TABLE;
use crate::memory::GuestMemory;
use crate::phys_map::NONE;
use crate::reclaim::State;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// What a page of guest RAM is. Several may be true at once.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PageUse(pub u8);

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
    /// Its contents are in a frame that other pages may have, too.
    pub const SHARED: PageUse = PageUse(1 << 5);

    /// Whether all that is in `other` is true of it.
    pub const fn is(self, other: PageUse) -> bool {
        self.0 & other.0 == other.0
    }
    fn or(self, other: PageUse, when: bool) -> PageUse {
        if when { PageUse(self.0 | other.0) } else { self }
    }
}

impl GuestMemory {
    /// Every page of guest RAM with what it is used for, by guest-physical address.
    pub fn page_uses(&self) -> Vec<(PhysPage, PageUse)> {
        let monitor = self.shared.lock();
        let pool = &self.shared.pool;
        let mut pages: Vec<_> =
            monitor.phys.pages().filter_map(|(number, page)| Some((number, page.ram?, page))).collect();
        pages.sort_unstable_by_key(|&(number, ..)| number);
        // The host is asked in the order of frames, in which they lie side by side.
        let mut frames: Vec<_> = pages.iter().map(|&(_, frame, _)| frame).collect();
        frames.sort_unstable();
        let mut resident = Vec::with_capacity(frames.len());
        pool.residency(frames.iter().copied(), |is_resident| resident.push(is_resident));
        let is_resident = |frame| frames.binary_search(&frame).is_ok_and(|at| resident.get(at) == Some(&true));
        let uses = pages.into_iter().map(|(number, frame, page)| {
            let watch = pool.watch(frame).load(Ordering::Relaxed);
            let used = PageUse::default()
                .or(PageUse::RESIDENT, is_resident(frame))
                .or(PageUse::MAPPED, page.mappers != NONE)
                .or(PageUse::OUT, matches!(monitor.state(frame), State::Out(_)))
                .or(PageUse::SHARED, monitor.is_shared(frame))
                .or(PageUse::TABLE, watch & WATCH_TABLE != 0)
                .or(PageUse::CODE, pool.code(frame).load(Ordering::Relaxed) != 0);
            (number, used)
        });
        uses.collect()
    }
}
