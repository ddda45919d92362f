//! S15: pages that the guest has given up. They read as zeros, their memory is the host's, and what was derived from their bytes goes.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/store.rs"]
mod store;
#[path = "support/tables.rs"]
mod tables;

use std::sync::Arc;
use store::Memory;
use tables::*;
use umbra_mmu::reclaim::Freed;
use umbra_mmu::reclaim::policy::Policy;
use umbra_mmu::*;

fn memory(paging: Option<Freed>) -> GuestMemory {
    let memory = GuestMemory::new(Pool::new(512 << 12).unwrap(), FrameOrder::Permuted { seed: 9 }, 40);
    if let Some(freed) = paging {
        let (limit, policy, store) = (128 << 12, Policy::default(), Box::<Memory>::default());
        memory.set_paging(Paging { limit, policy, store, freed });
    }
    memory.map_ram(GuestPhys(0), 256 << 12).unwrap();
    memory
}

const ALL: [Option<Freed>; 3] = [None, Some(Freed::Returned), Some(Freed::Poisoned)];

/// Every second page is given up, those that are out among them; the others stay as they were.
#[test]
fn given_up_pages_are_zero_and_the_others_as_before() {
    for paging in ALL {
        let memory = memory(paging);
        let mut vcpu = memory.vcpu(Arc::default());
        let value = |page: u64| page.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for page in 0..256 {
            write(&mut vcpu, page << 12 | 8, &value(page).to_le_bytes()).unwrap();
        }
        let before = memory.touched_frames();
        // Bytes that do not fill a page are not given up.
        assert_eq!(memory.discard(GuestPhys(0x1008), 0x1ff8), 1);
        for page in (4..256).step_by(2) {
            assert_eq!(memory.discard(GuestPhys(page << 12), 4096), 1, "page {page}");
        }
        assert_eq!(
            memory.discard(GuestPhys(4 << 12), 4096),
            u64::from(paging.is_none()),
            "there is nothing left of it"
        );
        assert_eq!(memory.discard(GuestPhys(1 << 30), u64::MAX), 0, "no RAM there");
        vcpu.drain();
        if cfg!(not(portable)) && paging != Some(Freed::Poisoned) {
            assert!(memory.touched_frames() + 60 < before, "{paging:?}: the host has memory back");
        }
        for page in 0..256 {
            let gone = page >= 2 && page % 2 == 0;
            let expected = if gone { 0 } else { value(page) };
            assert_eq!(read(&mut vcpu, page << 12 | 8), Ok(expected), "{paging:?}, page {page}");
        }
        assert!(memory.audit().is_clean() && vcpu.audit().is_clean());
        let counts = memory.counters();
        assert!(counts.reclaim.resident <= 128 && counts.monitor.discards >= 127, "{counts:?}");
    }
}

/// Given up, a page that holds a live guest table leads nowhere any more, as if it had been cleared.
#[test]
fn a_table_that_is_given_up_translates_nothing() {
    for kind in KINDS {
        for level in 1..=2 {
            let mut guest = Guest::new(kind);
            assert_eq!(guest.read(LINEAR), Ok(u64::from_le_bytes(*b"AAAAAAAA")));
            guest.memory.discard(GuestPhys((CHAINS[0] + level) << 12), 4096);
            guest.vcpu.drain();
            let fault = guest.read(LINEAR).expect_err("not present");
            assert_eq!(fault.error_code & 1, 0, "{kind:?}, level {level}");
            guest.audit("after the table went");
        }
    }
}

/// Taking a page out of the guest's tables loses nothing: only the guest's word does.
#[test]
fn an_unmapped_dirty_page_keeps_its_bytes() {
    let memory = memory(Some(Freed::Poisoned));
    let mut guest = Guest::of(Kind::Long, memory);
    write(&mut guest.vcpu, LINEAR + 16, b"precious").unwrap();
    let entry = guest.entry_at(1);
    guest.memory.write(GuestPhys(entry), &[0; 8]);
    guest.vcpu.drain();
    assert!(guest.read(LINEAR + 16).is_err());
    assert!(guest.memory.evict(256) > 0);
    let used = guest.memory.page_uses().into_iter().find(|view| view.page.0 == CHAINS[0]).unwrap().uses;
    assert!(used.is(PageUse::OUT) && !used.is(PageUse::MAPPED));
    guest.memory.write(GuestPhys(entry), &(CHAINS[0] << 12 | 0x67).to_le_bytes());
    guest.vcpu.drain();
    assert_eq!(guest.read(LINEAR + 16), Ok(u64::from_le_bytes(*b"precious")));
}

#[test]
fn code_that_is_given_up_is_noted() {
    for paging in ALL {
        let memory = memory(paging);
        let mut vcpu = memory.vcpu(Arc::default());
        memory.write(GuestPhys(0x5000), &[0x90; 128]);
        vcpu.track_code(PhysPage(5), 0x40, 64);
        assert_eq!(vcpu.take_code_writes(), []);
        memory.discard(GuestPhys(0x5000), 0x1000);
        let noted = vcpu.take_code_writes();
        assert!(matches!(noted[..], [CodeWrite { page: PhysPage(5), offset: 0, len: 4096, .. }]), "{noted:?}");
    }
}
