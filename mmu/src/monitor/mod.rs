//! The monitor: what the engine really translates through, and everything else that the mmu lock protects.

use crate::addr::{GuestPhys, PhysPage};
use crate::attention::bits;
use crate::counters::MonitorCounts;
use crate::drain::{CodeWrite, DropLog, Stale, VcpuShare, wait_until_seen};
use crate::frames::{Frame, Pool};
use crate::phys_map::{Page, PhysMap, Target};
use std::sync::Arc;

/// The state behind the mmu lock.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) pool: Arc<Pool>,
    pub(crate) log: Arc<DropLog>,
    pub(crate) phys: PhysMap,
    pub(crate) vcpus: Vec<Arc<VcpuShare>>,
    pub(crate) counts: MonitorCounts,
    pub(crate) a20_masked: bool,
    pub(crate) maxphyaddr: u8,
}

impl Monitor {
    pub(crate) fn new(pool: Arc<Pool>, log: Arc<DropLog>, maxphyaddr: u8) -> Monitor {
        Monitor {
            pool,
            log,
            phys: PhysMap::default(),
            vcpus: Vec::new(),
            counts: MonitorCounts::default(),
            a20_masked: false,
            maxphyaddr,
        }
    }
    /// Posts a drop to every vCPU.
    pub(crate) fn post(&mut self, stale: Stale) {
        self.log.post(stale);
        for vcpu in &self.vcpus {
            if vcpu.attention.get() & bits::DRAIN == 0 {
                vcpu.attention.set(bits::DRAIN);
            }
        }
    }
    /// Waits until no vCPU can still use what was dropped so far.
    pub(crate) fn wait(&mut self) {
        self.counts.waits += 1;
        wait_until_seen(&self.vcpus, self.log.head());
    }
    /// Changes what lies behind a page: nobody uses the old frames any more when `change` runs.
    pub(crate) fn remap(&mut self, pages: impl Iterator<Item = PhysPage>, mut change: impl FnMut(&mut Page)) {
        self.post(Stale::Root);
        self.wait();
        for page in pages {
            let code = self.phys.get(page).is_some_and(|p| {
                p.ram
                    .into_iter()
                    .chain(p.rom)
                    .any(|frame| self.pool.code(frame).swap(0, std::sync::atomic::Ordering::SeqCst) != 0)
            });
            if code {
                self.note_code(CodeWrite { page, offset: 0, len: 4096 });
            }
            change(self.phys.entry(page));
        }
    }
    pub(crate) fn note_code(&self, write: CodeWrite) {
        self.vcpus.iter().for_each(|vcpu| vcpu.note_code(write));
    }
    /// Reads within a page; devices and open bus give FFh.
    pub(crate) fn read_page(&self, page: PhysPage, offset: usize, into: &mut [u8]) {
        match self.phys.read_target(page) {
            Target::Ram(frame) | Target::Rom(frame) => self.pool.copy_out(frame, offset, into),
            Target::Device(..) | Target::Open => into.fill(0xff),
        }
    }
    /// Writes within a page, seen by every tracker; tells whether translated code was touched.
    pub(crate) fn write_page(&mut self, page: PhysPage, offset: usize, from: &[u8]) -> bool {
        let Target::Ram(frame) = self.phys.write_target(page) else { return false };
        self.pool.copy_in(frame, offset, from);
        self.code_check(frame, page, offset, from.len())
    }
    fn code_check(&mut self, frame: Frame, page: PhysPage, offset: usize, len: usize) -> bool {
        let touched = crate::watch::grains(offset, len);
        let before = self.pool.code(frame).fetch_and(!touched, std::sync::atomic::Ordering::SeqCst);
        if before & touched == 0 {
            return false;
        }
        self.note_code(CodeWrite { page, offset: offset as u16, len: len as u16 });
        true
    }
    /// Reads a guest paging-structure entry.
    pub(crate) fn table_entry(&self, at: GuestPhys, bytes: u64) -> u64 {
        let mut value = [0; 8];
        if let Some(part) = value.get_mut(..bytes as usize) {
            self.read_page(at.page(), at.page_offset() as usize, part);
        }
        u64::from_le_bytes(value)
    }
}
