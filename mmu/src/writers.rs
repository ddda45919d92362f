//! Who wrote watched bytes last, while somebody wants to know (`umbra inspect fault`). Off, it costs a test of a flag where a write
//! has come to the mmu lock anyhow, and nothing in emitted code.
//!
//! A page is *watched* here while it holds a guest table in sync, or because somebody asked ([`VcpuMmu::watch_writes`]: pages of
//! descriptors). Of no other page is anything known: when a watch ends, what was noted of the page is forgotten, since it may be
//! written unseen from then on. The processor's own A and D bits are not writes in this sense. Under the mmu lock.

use crate::addr::{GuestPhys, PhysPage};
use crate::frames::WATCH_NOTED;
use crate::memory::GuestMemory;
use crate::monitor::Monitor;
use crate::phys_map::Target;
use crate::vcpu::VcpuMmu;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

/// Who made a write.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Writer {
    /// Nobody saw: the bytes were not written since they are watched.
    #[default]
    Unknown,
    /// A store of this vCPU; RIP of its instruction, if that is known.
    Vcpu(u16, Option<u64>),
    /// A bus master.
    Dma,
    /// The loader, the board or a debugger.
    Outside,
}

/// No RIP: it is not canonical.
pub(crate) const NO_RIP: u64 = 1 << 63;
/// Bytes that are told apart: half a descriptor, or an entry of a two-level table.
const UNIT: usize = 4;
/// Pages of which something is noted: 24 KiB each.
const MOST_PAGES: usize = 256;
/// Pages that are watched because somebody asked.
const MOST_ASKED: usize = 64;

/// What is noted.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    on: bool,
    /// Whoever holds the lock and writes.
    by: Writer,
    pages: FxHashMap<PhysPage, Box<[Writer]>>,
    /// The same pages, oldest first; some may be gone.
    order: VecDeque<PhysPage>,
    asked: VecDeque<PhysPage>,
    /// Pages that bus masters have read or written.
    dma: FxHashSet<PhysPage>,
}

impl Writers {
    fn note(&mut self, page: PhysPage, offset: usize, len: usize) {
        let by = self.by;
        let written = offset / UNIT..(offset + len).div_ceil(UNIT).min(4096 / UNIT);
        if let Some(units) = self.pages.get_mut(&page) {
            units.get_mut(written).unwrap_or_default().fill(by);
            return;
        }
        self.make_room();
        self.order.push_back(page);
        let mut units: Box<[Writer]> = vec![Writer::Unknown; 4096 / UNIT].into();
        units.get_mut(written).unwrap_or_default().fill(by);
        self.pages.insert(page, units);
    }
    fn make_room(&mut self) {
        while self.pages.len() >= MOST_PAGES {
            let Some(oldest) = self.order.pop_front() else { break };
            self.pages.remove(&oldest);
        }
        // Pages that were forgotten are still in the list.
        if self.order.len() > 4 * MOST_PAGES {
            self.order.retain(|page| self.pages.contains_key(page));
        }
    }
}

impl Monitor {
    /// Who makes the writes that come next, until somebody else is named.
    #[inline]
    pub(crate) fn writes_come_from(&mut self, writer: Writer) {
        self.writers.by = writer;
    }
    /// After a write to a page with these flags of [`crate::Pool`]'s watch.
    #[inline]
    pub(crate) fn note_writer(&mut self, page: PhysPage, watch: u8, offset: usize, len: usize) {
        if self.writers.on && watch & (crate::frames::WATCH_TABLE | WATCH_NOTED) != 0 {
            self.writers.note(page, offset, len);
        }
    }
    /// A page may be written unseen from now on, or was until now.
    pub(crate) fn forget_writers(&mut self, page: PhysPage) {
        if self.writers.on && !self.writers.asked.contains(&page) {
            self.writers.pages.remove(&page);
        }
    }
    /// The contents of a page were given up.
    pub(crate) fn writers_lost(&mut self, page: PhysPage) {
        self.writers.pages.remove(&page);
    }
    pub(crate) fn writer_of(&self, at: GuestPhys) -> Writer {
        let unit = at.page_offset() as usize / UNIT;
        self.writers.pages.get(&at.page()).and_then(|units| units.get(unit)).copied().unwrap_or_default()
    }
    /// Whether a bus master was seen to use a page.
    pub(crate) fn had_dma(&self, page: PhysPage) -> bool {
        self.writers.dma.contains(&page)
    }
    /// Whether somebody asked for a page's writers: it holds descriptors.
    pub(crate) fn is_noted(&self, page: PhysPage) -> bool {
        self.writers.asked.contains(&page)
    }
    fn keep_writers(&mut self, on: bool) {
        if on == self.writers.on {
            return;
        }
        for page in std::mem::take(&mut self.writers.asked) {
            self.end_noted(page);
        }
        self.writers = Writers { on, ..Writers::default() };
        self.forget_fillers();
    }
    fn end_noted(&mut self, page: PhysPage) {
        if let Target::Ram(frame) = self.phys.write_target(page) {
            self.end_watch(page, frame, WATCH_NOTED);
        }
        self.writers.pages.remove(&page);
    }
    fn watch_writes(&mut self, page: PhysPage) {
        let Target::Ram(frame) = self.phys.write_target(page) else { return };
        if !self.writers.on || self.writers.asked.contains(&page) {
            return;
        }
        if self.writers.asked.len() >= MOST_ASKED
            && let Some(oldest) = self.writers.asked.pop_front()
        {
            self.end_noted(oldest);
        }
        self.writers.asked.push_back(page);
        let before = self.pool.watch(frame).fetch_or(WATCH_NOTED, Ordering::SeqCst);
        if before & crate::frames::WATCH_TABLE == 0 {
            self.writers.pages.remove(&page);
        }
        // A vCPU may be in the middle of a store that nobody would see.
        self.write_protect(page);
        self.post(crate::drain::Stale::Tables);
        self.wait();
    }
}

impl GuestMemory {
    /// Notes from now on who writes guest tables (and descriptors: [`VcpuMmu::watch_writes`]), and which pages bus masters use; or
    /// stops, and forgets.
    pub fn note_writers(&self, on: bool) {
        self.shared.lock().keep_writers(on);
        self.shared.notes_writers.store(on, Ordering::Relaxed);
    }
    /// Whether that is on.
    pub fn notes_writers(&self) -> bool {
        self.shared.notes_writers.load(Ordering::Relaxed)
    }
    /// Who was seen to write the four bytes around a place last.
    pub fn writer_of(&self, at: GuestPhys) -> Writer {
        self.shared.lock().writer_of(at)
    }
    /// Notes that a bus master uses a range.
    pub(crate) fn note_dma(&self, at: GuestPhys, bytes: usize) {
        if bytes == 0 || !self.notes_writers() {
            return;
        }
        let mut monitor = self.shared.lock();
        for page in at.page().0..=at.wrapping_add(bytes as u64 - 1).page().0 {
            if monitor.phys.get(PhysPage(page)).is_some_and(|slot| slot.ram.is_some()) {
                monitor.writers.dma.insert(PhysPage(page));
            }
        }
    }
}

impl VcpuMmu {
    /// Whether somebody wants to know who writes.
    #[inline]
    pub fn notes_writers(&self) -> bool {
        self.shared.notes_writers.load(Ordering::Relaxed)
    }
    /// RIP of the instruction (or event) that stores from now on; `None`: not known.
    pub fn set_storing(&mut self, rip: Option<u64>) {
        self.share.storing.store(rip.unwrap_or(NO_RIP), Ordering::Relaxed);
    }
    /// The same, as it was set.
    pub fn storing(&self) -> Option<u64> {
        Some(self.share.storing.load(Ordering::Relaxed)).filter(|rip| *rip != NO_RIP)
    }
    /// Who this vCPU is, as a writer.
    #[inline]
    pub(crate) fn writer(&self) -> Writer {
        Writer::Vcpu(self.share.number, self.storing())
    }
    /// Notes each write to a page from now on, as if it held a guest table: it holds descriptors. Where that is not wanted, or not RAM,
    /// nothing happens. The oldest of too many pages is given up.
    pub fn watch_writes(&mut self, page: PhysPage) {
        if self.notes_writers() {
            self.shared.lock().watch_writes(page);
            self.drain();
        }
    }
    /// Who was seen to write the four bytes around a place last.
    pub fn writer_of(&self, at: GuestPhys) -> Writer {
        self.shared.lock().writer_of(at)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::addr::Linear;
    use crate::dma::Dma;
    use crate::fault::{Access, View};
    use crate::frames::{FrameOrder, Pool};
    use crate::regs::PagingRegs;
    use std::sync::Arc;

    /// Two-level paging: the directory at 1000h, a table at 2000h that maps linear 0–3FFFh to themselves.
    fn machine() -> (GuestMemory, VcpuMmu) {
        let memory = GuestMemory::new(Pool::new(1 << 20).unwrap(), FrameOrder::Permuted { seed: 1 }, 40);
        memory.map_ram(GuestPhys(0), 1 << 19).unwrap();
        memory.write(GuestPhys(0x1000), &0x2007u32.to_le_bytes());
        for page in 0..4u32 {
            memory.write(GuestPhys(0x2000 + 4 * u64::from(page)), &(page << 12 | 7).to_le_bytes());
        }
        let mut vcpu = memory.vcpu(Arc::default());
        vcpu.set_paging(&PagingRegs { cr0: 0x8001_0001, cr3: 0x1000, ..PagingRegs::default() });
        (memory, vcpu)
    }

    fn store(vcpu: &mut VcpuMmu, at: u64, from: &[u8], rip: u64) {
        vcpu.set_storing(Some(rip));
        let place = vcpu.resolve(Linear(at), Access::Write, View::Supervisor).unwrap();
        vcpu.write_place(&place, from);
    }

    #[test]
    fn whoever_writes_a_table_is_known_while_it_is_watched() {
        let (memory, mut vcpu) = machine();
        let entry = |n: u64| GuestPhys(0x2000 + 4 * n);
        vcpu.resolve(Linear(0), Access::Read, View::Supervisor).unwrap();
        store(&mut vcpu, 0x2008, &0x2007u32.to_le_bytes(), 0x100);
        assert_eq!(memory.writer_of(entry(2)), Writer::Unknown, "nobody wanted to know");
        memory.note_writers(true);
        store(&mut vcpu, 0x200a, &[0], 0x200);
        assert_eq!(memory.writer_of(entry(2)), Writer::Vcpu(0, Some(0x200)));
        assert_eq!(memory.writer_of(entry(1)), Writer::Unknown);
        // What straddles two entries is of both; a locked store, DMA and the loader are told apart.
        store(&mut vcpu, 0x200e, &[0; 4], 0x300);
        assert_eq!([3, 4].map(|n| memory.writer_of(entry(n))), [Writer::Vcpu(0, Some(0x300)); 2]);
        vcpu.set_storing(None);
        let place = vcpu.resolve(Linear(0x2010), Access::Write, View::Supervisor).unwrap();
        vcpu.rmw_place(&place, 4, &mut |old| old | 1);
        assert_eq!(memory.writer_of(entry(4)), Writer::Vcpu(0, None));
        memory.dma().write(entry(4), &[1]);
        assert_eq!(memory.writer_of(entry(4)), Writer::Dma);
        memory.write(entry(4), &[1]);
        assert_eq!(memory.writer_of(entry(4)), Writer::Outside);
        // A bits are the processor's own.
        vcpu.resolve(Linear(0x1000), Access::Read, View::Supervisor).unwrap();
        assert_eq!(memory.writer_of(entry(1)), Writer::Unknown);
        memory.compact(128);
        assert_eq!(memory.writer_of(entry(2)), Writer::Vcpu(0, Some(0x200)), "wherever the page lies");
        // The table is given up: what comes after is not seen, so what came before is no answer.
        memory.write(GuestPhys(0x1000), &[0; 4]);
        vcpu.drain();
        assert!(vcpu.resolve(Linear(0), Access::Read, View::Supervisor).is_err());
        assert_eq!(memory.writer_of(entry(2)), Writer::Unknown);
        memory.note_writers(false);
        assert_eq!(memory.writer_of(GuestPhys(0x1000)), Writer::Unknown);
    }

    #[test]
    fn pages_of_descriptors_are_watched_when_asked() {
        let (memory, mut vcpu) = machine();
        vcpu.set_paging(&PagingRegs::default());
        vcpu.watch_writes(PhysPage(5));
        store(&mut vcpu, 0x5008, &[1; 8], 0x100);
        assert_eq!(memory.writer_of(GuestPhys(0x5008)), Writer::Unknown, "it is off");
        memory.note_writers(true);
        vcpu.watch_writes(PhysPage(5));
        store(&mut vcpu, 0x5008, &[1; 8], 0x200);
        assert!(!vcpu.store(0x5010, 1u8), "no store goes unseen");
        assert_eq!(memory.writer_of(GuestPhys(0x500c)), Writer::Vcpu(0, Some(0x200)));
        // Of too many the oldest is given up, and fast again.
        for page in 0..MOST_ASKED as u64 {
            vcpu.watch_writes(PhysPage(6 + page));
        }
        assert_eq!(memory.writer_of(GuestPhys(0x5008)), Writer::Unknown);
        store(&mut vcpu, 0x5008, &[1; 8], 0x300);
        assert!(vcpu.store(0x5010, 1u8));
        store(&mut vcpu, 0x6008, &[1; 8], 0x300);
        memory.discard(GuestPhys(0x6000), 4096);
        assert_eq!(memory.writer_of(GuestPhys(0x6008)), Writer::Unknown);
        memory.note_writers(false);
        vcpu.drain();
        store(&mut vcpu, 0x6008, &[1; 8], 0x300);
        assert!(vcpu.store(0x6010, 1u8));
        assert!(memory.audit().is_clean());
    }

    #[test]
    fn no_guest_makes_it_grow() {
        let mut writers = Writers { on: true, ..Writers::default() };
        for page in 0..5 * MOST_PAGES as u64 {
            writers.note(PhysPage(page), 4092, 400);
            if page % 3 == 0 {
                writers.pages.remove(&PhysPage(page));
            }
        }
        assert!(writers.pages.len() <= MOST_PAGES && writers.order.len() <= 5 * MOST_PAGES);
    }
}
