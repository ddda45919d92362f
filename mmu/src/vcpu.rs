//! One vCPU's view of guest memory: fast paths on the TLB, slow paths through the monitor.

use crate::addr::{GuestPhys, Linear, PAGE_OFFSET, PhysPage, RegionId};
use crate::attention::{Attention, bits};
use crate::counters::{Event, FaultClass};
use crate::drain::{CodeWrite, VcpuShare};
use crate::fault::{Access, PageFault, View};
use crate::frames::Frame;
use crate::memory::Shared;
use crate::phys_map::Target;
use crate::pte::{self, Mode, Rules, rule};
use crate::ram::{RamRun, RamSlot, Word};
use crate::tlb::{Array, DataEntry, FetchEntry, HotTlbs, LEAF_ENTRIES, LeafEntry, NO_TAG};
use crate::walk::{FillScope, GuestRoot, walk};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The registers that steer paging.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct PagingRegs {
    /// CR0 (PG, WP).
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4 (PSE, PAE, SMEP, SMAP).
    pub cr4: u64,
    /// IA32_EFER (LMA, NXE).
    pub efer: u64,
    /// The PDPTE registers, for PAE paging.
    pub pdptes: [u64; 4],
}

impl PagingRegs {
    /// The paging mode and rules that these registers select (SDM vol. 3, 5.1.1).
    pub fn rules(&self, maxphyaddr: u8) -> Rules {
        let bit = |value: u64, number: u32| value >> number & 1 != 0;
        let mode = match (bit(self.cr0, 31), bit(self.cr4, 5), bit(self.efer, 10)) {
            (false, ..) => Mode::Off,
            (true, _, true) => Mode::FourLevel,
            (true, true, false) => Mode::Pae,
            (true, false, false) => Mode::TwoLevel,
        };
        let mut rules = Rules { mode, bits: 0, maxphyaddr };
        let mut add = |condition: bool, flag: u8| rules.bits |= if condition { flag } else { 0 };
        if mode != Mode::Off {
            add(bit(self.cr0, 16), rule::WP);
            add(bit(self.efer, 11) && mode != Mode::TwoLevel, rule::NXE);
            add(bit(self.cr4, 20), rule::SMEP);
            add(bit(self.cr4, 21), rule::SMAP);
            add(bit(self.cr4, 4) && mode == Mode::TwoLevel, rule::PSE);
        }
        rules
    }
    /// The root that these registers select.
    pub fn root(&self) -> GuestRoot {
        match self.rules(52).mode {
            Mode::Off => GuestRoot::Table(GuestPhys(0)),
            Mode::TwoLevel => GuestRoot::Table(GuestPhys(self.cr3 & 0xffff_f000)),
            Mode::Pae => GuestRoot::Pdptes(self.pdptes),
            Mode::FourLevel => GuestRoot::Table(GuestPhys(self.cr3 & 0x000f_ffff_ffff_f000)),
        }
    }
}

/// What lies behind a place.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PlaceKind {
    /// RAM: [`VcpuMmu::read_place`] and [`VcpuMmu::write_place`] do all.
    Ram,
    /// ROM: reads as RAM, writes are dropped.
    Rom,
    /// A device: the bus does the access.
    Mmio {
        /// Whose.
        region: RegionId,
        /// Offset of the address within the region.
        offset: u64,
    },
    /// Nothing: FFh, writes are dropped.
    Open,
}

/// A translated address, good until the vCPU's next boundary.
#[derive(Copy, Clone, Debug)]
pub struct Place {
    phys: GuestPhys,
    kind: PlaceKind,
}

impl Place {
    /// What lies there.
    pub fn kind(&self) -> PlaceKind {
        self.kind
    }
    /// The guest-physical address, A20 applied.
    pub fn phys(&self) -> GuestPhys {
        self.phys
    }
}

/// What a write did beside writing.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteNote {
    /// Bytes of translated code were among those written: the running block may be stale.
    pub code_written: bool,
}

/// One vCPU's translation.
#[derive(Debug)]
#[repr(C)]
pub struct VcpuMmu {
    hot: HotTlbs,
    shared: Arc<Shared>,
    share: Arc<VcpuShare>,
    data: [Array<DataEntry>; 3],
    fetch: [Array<FetchEntry>; 2],
    leaves: Array<LeafEntry>,
    view: View,
    regs: PagingRegs,
    rules: Rules,
    root: GuestRoot,
    seen: u64,
}

impl VcpuMmu {
    pub(crate) fn new(shared: Arc<Shared>, attention: Arc<Attention>) -> VcpuMmu {
        let share = Arc::new(VcpuShare::new(attention));
        shared.lock().vcpus.push(Arc::clone(&share));
        let data = [Array::new(256), Array::new(256), Array::new(256)];
        let fetch = [Array::new(256), Array::new(256)];
        let leaves = Array::new(LEAF_ENTRIES);
        let regs = PagingRegs::default();
        let hot = HotTlbs {
            data: data[1].start(),
            data_mask: data[1].byte_mask(),
            fetch: fetch[1].start(),
            fetch_mask: fetch[1].byte_mask(),
            leaves: leaves.start(),
            owners: shared.pool.owners(),
            pool: shared.pool.base().bits(),
        };
        let rules = regs.rules(shared.maxphyaddr);
        let seen = shared.log.head();
        let root = regs.root();
        VcpuMmu { hot, shared, share, data, fetch, leaves, view: View::Supervisor, regs, rules, root, seen }
    }

    /// Takes new paging state over.
    pub fn set_paging(&mut self, regs: &PagingRegs) {
        self.regs = *regs;
        self.flush();
    }
    /// The four PDPTEs at `cr3`, as they lie in memory.
    pub fn load_pdptes(&self, cr3: u64) -> [u64; 4] {
        let monitor = self.shared.lock_for(&self.share);
        let base = self.rules.gate(cr3 & 0xffff_ffe0);
        std::array::from_fn(|i| monitor.table_entry(GuestPhys(base + 8 * i as u64), 8))
    }
    /// Chooses with whose rights ordinary accesses are made.
    pub fn set_view(&mut self, view: View) {
        self.view = view;
        let (data, fetch) = (&self.data[view as usize], &self.fetch[usize::from(view != View::User)]);
        (self.hot.data, self.hot.data_mask) = (data.start(), data.byte_mask());
        (self.hot.fetch, self.hot.fetch_mask) = (fetch.start(), fetch.byte_mask());
    }
    /// The view that was set.
    pub fn view(&self) -> View {
        self.view
    }
    fn flush(&mut self) {
        let masked = self.shared.lock_for(&self.share).a20_masked;
        self.rules = self.regs.rules(self.shared.maxphyaddr);
        if masked {
            self.rules.bits |= rule::A20_MASKED;
        }
        self.root = self.regs.root();
        self.data.iter().for_each(Array::clear);
        self.fetch.iter().for_each(Array::clear);
        self.leaves.clear();
        self.share.tally.event(Event::Flush);
    }

    /// Reads on a TLB hit.
    #[inline(always)]
    pub fn load<T: Word>(&self, linear: u64) -> Option<T> {
        self.hot.load(linear)
    }
    /// Writes on a TLB hit.
    #[inline(always)]
    pub fn store<T: Word>(&self, linear: u64, value: T) -> bool {
        self.hot.store(linear, value)
    }
    /// The word for read-modify-write on a TLB hit.
    #[inline(always)]
    pub fn write_slot<T: Word>(&self, linear: u64) -> Option<RamSlot<'_, T>> {
        self.hot.write_slot(linear)
    }
    /// The guest-physical page on a fetch-TLB hit.
    #[inline(always)]
    pub fn fetch_page(&self, linear: u64) -> Option<PhysPage> {
        self.hot.fetch_page(linear)
    }
    /// The page around `linear` for reading, on a TLB hit.
    #[inline(always)]
    pub fn read_run(&self, linear: u64) -> Option<RamRun<'_>> {
        self.hot.read_run(linear)
    }
    /// The page around `linear` for writing, on a TLB hit.
    #[inline(always)]
    pub fn write_run(&self, linear: u64) -> Option<RamRun<'_>> {
        self.hot.write_run(linear)
    }

    /// Translates an address for an access that stays within its page, filling the monitor and the TLB.
    pub fn resolve(&mut self, linear: Linear, access: Access, view: View) -> Result<Place, PageFault> {
        self.drain();
        loop {
            let mut monitor = self.shared.lock_for(&self.share);
            let mut read = |at: GuestPhys, bytes: u64| monitor.table_entry(at, bytes);
            let found = walk(&FillScope::new(), &mut read, (self.rules, self.root), linear, access, view)
                .inspect_err(|_| self.share.tally.class(FaultClass::GuestTrue))?;
            let mut stale = false;
            let steps = found.steps();
            for (i, step) in steps.iter().enumerate() {
                let mut value = step.value | pte::A;
                if i + 1 == steps.len() && access == Access::Write {
                    value |= pte::D;
                }
                if value != step.value
                    && let Target::Ram(frame) = monitor.phys.write_target(step.at.page())
                {
                    let offset = step.at.page_offset() as usize;
                    stale |= if self.rules.entry_bytes() == 4 {
                        let old = step.value as u32;
                        self.shared.pool.compare_exchange(frame, offset, old, value as u32) != old
                    } else {
                        self.shared.pool.compare_exchange(frame, offset, step.value, value) != step.value
                    };
                }
            }
            if stale {
                continue;
            }
            let page = found.phys.page();
            let (read, write) = (monitor.phys.read_target(page), monitor.phys.write_target(page));
            let target = if access == Access::Write { write } else { read };
            let kind = match target {
                Target::Ram(_) => PlaceKind::Ram,
                Target::Rom(_) => PlaceKind::Rom,
                Target::Device(region, index) => {
                    PlaceKind::Mmio { region, offset: u64::from(index) * 4096 + found.phys.page_offset() }
                }
                Target::Open => PlaceKind::Open,
            };
            let class = if matches!(kind, PlaceKind::Mmio { .. } | PlaceKind::Open) {
                FaultClass::Mmio
            } else {
                FaultClass::NotShadowed
            };
            self.share.tally.class(class);
            if let Target::Ram(frame) | Target::Rom(frame) = read {
                let writable = write == Target::Ram(frame)
                    && access == Access::Write
                    && self.shared.pool.code(frame).load(Ordering::SeqCst) == 0;
                monitor.counts.fills += 1;
                drop(monitor);
                self.fill(linear, view, (access, writable), frame, page);
            }
            return Ok(Place { phys: found.phys, kind });
        }
    }
    fn fill(&mut self, linear: Linear, view: View, (access, writable): (Access, bool), frame: Frame, page: PhysPage) {
        let tag = linear.page_base().0;
        let addend = self.shared.pool.pointer(frame).bits().wrapping_sub(tag);
        let index = (tag >> 12) as usize;
        if access == Access::Fetch {
            self.fetch[usize::from(view != View::User)].set(index, FetchEntry { tag, addend, phys: page.0, spare: 0 });
            return;
        }
        let write = if writable { tag } else { NO_TAG };
        self.data[view as usize].set(index, DataEntry { read: tag, write, addend, phys: page.0 });
    }
    /// Reads within the page of a place. Devices give FFh: ask the bus.
    pub fn read_place(&mut self, place: &Place, into: &mut [u8]) {
        let monitor = self.shared.lock_for(&self.share);
        monitor.read_page(place.phys.page(), place.phys.page_offset() as usize, into);
    }
    /// Writes within the page of a place (made for [`Access::Write`]). Devices drop it: ask the bus.
    pub fn write_place(&mut self, place: &Place, from: &[u8]) -> WriteNote {
        let mut monitor = self.shared.lock_for(&self.share);
        let code_written = monitor.write_page(place.phys.page(), place.phys.page_offset() as usize, from);
        WriteNote { code_written }
    }
    /// Locked read-modify-write of `len` (1, 2, 4, 8, 16) bytes within the page of a place; gives what was there.
    pub fn rmw_place(&mut self, place: &Place, len: usize, update: &mut dyn FnMut(u128) -> u128) -> (u128, WriteNote) {
        let mut monitor = self.shared.lock_for(&self.share);
        let (page, offset) = (place.phys.page(), place.phys.page_offset() as usize);
        let mut bytes = [0; 16];
        let Some(part) = bytes.get_mut(..len) else { return (0, WriteNote::default()) };
        monitor.read_page(page, offset, part);
        let old = u128::from_le_bytes(bytes);
        let new = update(old).to_le_bytes();
        let code_written = monitor.write_page(page, offset, new.get(..len).unwrap_or(&[]));
        (old, WriteNote { code_written })
    }
    /// From now on writes that touch these bytes of a page are noted (I5).
    pub fn track_code(&mut self, page: PhysPage, offset: u16, len: u16) {
        let monitor = self.shared.lock_for(&self.share);
        if let Target::Ram(frame) | Target::Rom(frame) = monitor.phys.read_target(page) {
            let grains = crate::watch::grains(offset.into(), len.into());
            self.shared.pool.code(frame).fetch_or(grains, Ordering::SeqCst);
            for (write, tag) in self.data.iter().flat_map(|tlb| (0..tlb.len()).map(move |i| (tlb, i))) {
                let entry = write.get(tag);
                if entry.phys == page.0 {
                    write.set(tag, DataEntry { write: NO_TAG, ..entry });
                }
            }
        }
    }
    /// Which tracked code was written, by whomever, since the last call.
    pub fn take_code_writes(&mut self) -> Vec<CodeWrite> {
        self.share.attention.clear(bits::CODE);
        std::mem::take(&mut *self.share.code_writes.lock())
    }
    /// INVLPG: this vCPU forgets its translations of a page.
    pub fn invlpg(&mut self, _linear: Linear) {
        self.drain();
        self.flush();
    }
    /// Forgets what others have dropped.
    #[inline]
    pub fn drain(&mut self) {
        self.share.attention.clear(bits::DRAIN);
        let head = self.shared.log.head();
        if head != self.seen {
            self.seen = head;
            self.flush();
            self.share.acknowledge(head);
            self.share.tally.event(Event::Drain);
        }
    }
    /// This vCPU will not use its TLBs until [`VcpuMmu::unpark`]: nobody waits for it.
    pub fn park(&mut self) {
        self.share.park();
    }
    /// This vCPU runs (again).
    pub fn unpark(&mut self) {
        self.share.unpark();
        self.drain();
    }
    /// Reads as the debugger: supervisor rights, no A or D bits, no fill; devices give FFh. May cross pages.
    pub fn peek(&self, linear: Linear, into: &mut [u8]) -> Result<(), PageFault> {
        let monitor = self.shared.lock_for(&self.share);
        let mut done = 0;
        while done < into.len() {
            let here = linear.wrapping_add(done as u64);
            let mut read = |at: GuestPhys, bytes: u64| monitor.table_entry(at, bytes);
            let scope = FillScope::new();
            let found = walk(&scope, &mut read, (self.rules, self.root), here, Access::Read, View::SupervisorAc)?;
            let length = ((4096 - (here.0 & PAGE_OFFSET)) as usize).min(into.len() - done);
            if let Some(part) = into.get_mut(done..done + length) {
                monitor.read_page(found.phys.page(), found.phys.page_offset() as usize, part);
            }
            done += length;
        }
        Ok(())
    }
}

impl Drop for VcpuMmu {
    fn drop(&mut self) {
        let mut monitor = self.shared.lock();
        monitor.vcpus.retain(|other| !Arc::ptr_eq(other, &self.share));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::frames::{FrameOrder, Pool};
    use crate::memory::GuestMemory;

    fn machine() -> (GuestMemory, VcpuMmu) {
        let memory = GuestMemory::new(Pool::new(1 << 20).unwrap(), FrameOrder::Permuted { seed: 1 }, 40);
        memory.map_ram(GuestPhys(0), 1 << 20).unwrap();
        let vcpu = memory.vcpu(Arc::default());
        (memory, vcpu)
    }

    #[test]
    fn paging_off() {
        let (memory, mut vcpu) = machine();
        assert_eq!(vcpu.load::<u32>(0x1234), None);
        let place = vcpu.resolve(Linear(0x1234), Access::Write, View::Supervisor).unwrap();
        vcpu.write_place(&place, &7u32.to_le_bytes());
        assert_eq!(vcpu.load::<u32>(0x1234), Some(7));
        assert!(vcpu.store::<u16>(0x1ffe, 9));
        assert!(!vcpu.store::<u16>(0x1fff, 9), "straddles");
        let mut bytes = [0; 2];
        memory.read(GuestPhys(0x1ffe), &mut bytes);
        assert_eq!(bytes, [9, 0]);
    }

    #[test]
    fn two_levels() {
        let (memory, mut vcpu) = machine();
        memory.write(GuestPhys(0x1000), &0x2007u32.to_le_bytes());
        memory.write(GuestPhys(0x2000 + 4 * 5), &0x8005u32.to_le_bytes());
        memory.write(GuestPhys(0x8004), b"abcd");
        vcpu.set_paging(&PagingRegs { cr0: 0x8001_0001, cr3: 0x1000, ..PagingRegs::default() });
        let place = vcpu.resolve(Linear(0x5004), Access::Read, View::User).unwrap();
        let mut bytes = [0; 4];
        vcpu.read_place(&place, &mut bytes);
        assert_eq!(&bytes, b"abcd");
        let fault = vcpu.resolve(Linear(0x5004), Access::Write, View::Supervisor).unwrap_err();
        assert_eq!(fault.error_code, 3);
        memory.read(GuestPhys(0x2000 + 4 * 5), &mut bytes);
        assert_eq!(u32::from_le_bytes(bytes), 0x8025);
    }
}
