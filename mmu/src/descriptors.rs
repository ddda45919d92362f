//! What a vCPU's monitor descriptor tables need of memory (SHADOW-MMU S8): which guest-physical page the bytes of an entry lie
//! in, the bytes themselves, and the end of the watch that [`VcpuMmu::track_code`] began.
//!
//! Descriptors are read with supervisor rights at any level, so these look at that view's TLB whatever view is set. They look no
//! further than the TLB: a miss is resolved as any other access is, with its faults and its accessed bits.

use crate::addr::{PAGE_OFFSET, PAGE_SIZE, PhysPage};
use crate::attention::bits;
use crate::fault::View;
use crate::ram::{HostPtr, Word};
use crate::tlb::DataEntry;
use crate::vcpu::VcpuMmu;

/// So many stores side by side to one page, beside what is watched there, say that it holds data that is written all the time.
const CROWDED: u32 = 256;

/// Stores beside watched bytes, page by page.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    page: PhysPage,
    stores: u32,
    crowded: Option<PhysPage>,
}

impl VcpuMmu {
    /// The supervisor's entry for `bytes` at an address, if reads hit.
    #[inline]
    fn descriptor_entry(&self, linear: u64, bytes: u64) -> Option<DataEntry> {
        let entry = if self.view() == View::Supervisor {
            *self.hot.data_entry(linear)
        } else {
            self.set().data[View::Supervisor as usize].as_ref()?.slots.get((linear >> 12) as usize)
        };
        (linear ^ entry.read <= PAGE_SIZE - bytes).then_some(entry)
    }
    /// The guest-physical page that `bytes` at an address lie in, if supervisor reads of them hit the TLB.
    #[inline]
    pub fn descriptor_page(&self, linear: u64, bytes: u64) -> Option<PhysPage> {
        self.descriptor_entry(linear, bytes).map(|entry| PhysPage(entry.phys))
    }
    /// What lies there, if supervisor reads hit the TLB.
    #[inline]
    pub fn descriptor_word<T: Word>(&self, linear: u64) -> Option<T> {
        let entry = self.descriptor_entry(linear, T::BYTES as u64)?;
        let (pool, frame) = self.shared.frame_of(HostPtr::from_bits(entry.host))?;
        Some(pool.load(frame, (linear & PAGE_OFFSET) as usize))
    }
    /// Ends the watch of bytes as a write to them would: whoever made something of them, on any vCPU, hears of it.
    pub fn release(&mut self, page: PhysPage, offset: u16, len: u16) {
        self.shared.lock().code_written(page, offset.into(), len.into());
        self.drain();
    }
    /// A page that is written all the time beside the bytes that are watched there: each store takes the long way. Told once;
    /// the vCPU is made to look by [`bits::CODE`].
    pub fn take_crowded(&mut self) -> Option<PhysPage> {
        self.beside.crowded.take()
    }
    /// Counts a store beside watched bytes.
    pub(crate) fn note_beside(&mut self, page: PhysPage) {
        let beside = &mut self.beside;
        if beside.page != page {
            *beside = Beside { page, stores: 0, crowded: beside.crowded };
        }
        beside.stores += 1;
        if beside.stores == CROWDED {
            beside.crowded = Some(page);
            self.share.attention.set(bits::CODE);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::addr::{GuestPhys, Linear};
    use crate::drain::CodeWrite;
    use crate::fault::Access;
    use crate::frames::{FrameOrder, Pool};
    use crate::memory::GuestMemory;
    use std::sync::Arc;

    fn machine() -> (GuestMemory, VcpuMmu) {
        let memory = GuestMemory::new(Pool::new(1 << 20).unwrap(), FrameOrder::Permuted { seed: 1 }, 40);
        memory.map_ram(GuestPhys(0), 1 << 19).unwrap();
        let vcpu = memory.vcpu(Arc::default());
        (memory, vcpu)
    }

    #[test]
    fn descriptors_are_looked_up_with_supervisor_rights_in_any_view() {
        let (memory, mut vcpu) = machine();
        memory.write(GuestPhys(0x5008), &7u64.to_le_bytes());
        assert_eq!(vcpu.descriptor_page(0x5008, 8), None);
        vcpu.set_view(View::User);
        vcpu.resolve(Linear(0x5008), Access::Read, View::User).unwrap();
        assert_eq!(vcpu.descriptor_page(0x5008, 8), None, "the user's TLB is another one");
        vcpu.resolve(Linear(0x5008), Access::Read, View::Supervisor).unwrap();
        assert_eq!((vcpu.descriptor_page(0x5008, 8), vcpu.descriptor_word(0x5008)), (Some(PhysPage(5)), Some(7u64)));
        assert_eq!(vcpu.descriptor_page(0x5ff9, 8), None, "it runs over the page's end");
        memory.compact(128);
        vcpu.drain();
        assert_eq!(vcpu.descriptor_word::<u64>(0x5008), None);
        // Nothing to read there: no entry.
        vcpu.resolve(Linear(0xf_0000), Access::Read, View::Supervisor).unwrap();
        assert_eq!(vcpu.descriptor_page(0xf_0000, 8), None);
    }

    #[test]
    fn a_watch_ends_as_by_a_write() {
        let (memory, mut vcpu) = machine();
        let mut other = memory.vcpu(Arc::default());
        vcpu.track_code(PhysPage(5), 0x40, 8);
        vcpu.resolve(Linear(0x5100), Access::Write, View::Supervisor).unwrap();
        assert!(!vcpu.store(0x5100, 1u8), "the page is watched");
        vcpu.release(PhysPage(5), 0x40, 8);
        let note = CodeWrite { page: PhysPage(5), offset: 0x40, len: 64, written: (0x40, 8), kept: false };
        assert_eq!((vcpu.take_code_writes(), other.take_code_writes()), (vec![note], vec![note]));
        vcpu.resolve(Linear(0x5100), Access::Write, View::Supervisor).unwrap();
        assert!(vcpu.store(0x5100, 1u8));
    }

    #[test]
    fn a_page_that_is_written_all_the_time_is_told_once() {
        let (_memory, mut vcpu) = machine();
        vcpu.track_code(PhysPage(5), 0x40, 8);
        let mut told = Vec::new();
        for n in 0..3 * u64::from(CROWDED) {
            // Now and then another page does not matter, nor do bytes that are watched.
            let place = vcpu.resolve(Linear(0x5100 + n), Access::Write, View::Supervisor).unwrap();
            vcpu.write_place(&place, &[1]);
            told.extend(vcpu.take_crowded().map(|page| (n, page)));
        }
        assert_eq!(told, [(u64::from(CROWDED) - 1, PhysPage(5))]);
        assert_ne!(vcpu.share.attention.get() & bits::CODE, 0);
    }
}
