//! S12 to S20: memory that can be taken back. Contents come back, a limit is a limit, the order holds among threads, and a swap
//! file that fails stops the machine with a sentence.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/counters.rs"]
mod counters;
#[path = "support/store.rs"]
mod store;
#[path = "support/tables.rs"]
mod tables;

use counters::locked_counters;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use store::Memory;
use tables::*;
use umbra_mmu::reclaim::policy::Policy;
use umbra_mmu::reclaim::swap::SwapError;
use umbra_mmu::reclaim::{Freed, LEAST_LIMIT};
use umbra_mmu::*;

fn paging(limit: u64, store: &Memory, freed: Freed) -> Paging {
    Paging { limit, policy: Policy::default(), store: Box::new(store.clone()), freed }
}

/// RAM of so many pages, paged with this limit.
fn memory(order: FrameOrder, pages: u64, limit: u64, freed: Freed) -> (GuestMemory, Memory) {
    let memory = GuestMemory::new(Pool::new((pages + 64) << 12).unwrap(), order, 40);
    let store = Memory::default();
    memory.set_paging(paging(limit, &store, freed));
    memory.map_ram(GuestPhys(0), pages << 12).unwrap();
    (memory, store)
}

/// What a page holds: noise, mostly zeros, or nothing but zeros.
fn pattern(page: u64) -> [u8; 4096] {
    let mut state = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = [0; 4096];
    let filled = match page % 8 {
        0 => 0,
        1 | 2 => 300,
        _ => 4096,
    };
    for byte in &mut bytes[..filled] {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    bytes
}

fn touch(vcpu: &mut VcpuMmu, pages: std::ops::Range<u64>) {
    for page in pages {
        read(vcpu, page << 12).unwrap();
    }
}

fn fill(memory: &GuestMemory, pages: u64) {
    (0..pages).for_each(|page| memory.write(GuestPhys(page << 12), &pattern(page)));
}

#[test]
fn most_of_ram_leaves_and_comes_back() {
    for order in [FrameOrder::Identity, FrameOrder::Permuted { seed: 5 }] {
        for freed in [Freed::Returned, Freed::Poisoned] {
            let pages = 4096;
            let (memory, _) = memory(order, pages, pages << 12, freed);
            fill(&memory, pages);
            let hash = memory.hash();
            let mut vcpu = memory.vcpu(Arc::default());
            // Some of them are mapped when they leave.
            touch(&mut vcpu, 0..pages / 2);
            assert_eq!(memory.evict(pages * 9 / 10), pages * 9 / 10);
            let counts = memory.counters().reclaim;
            assert_eq!(counts.resident, pages - pages * 9 / 10);
            assert_eq!(counts.swapped + counts.zero_evictions, counts.evictions);
            assert!(counts.zero_evictions > pages / 10 && counts.swap_bytes < pages << 12, "{counts:?}");
            assert_eq!(memory.hash(), hash, "looking does not bring them in");
            assert_eq!(memory.counters().reclaim.resident, counts.resident);
            vcpu.drain();
            for page in (0..pages).rev() {
                if page % 2 == 0 {
                    let mut bytes = [0; 4096];
                    memory.read(GuestPhys(page << 12), &mut bytes);
                    assert!(bytes == pattern(page), "page {page}");
                } else {
                    let at = (page << 12) + page % 512 * 8;
                    let expected = pattern(page)[(page % 512 * 8) as usize..][..8].try_into().unwrap();
                    assert_eq!(read(&mut vcpu, at), Ok(u64::from_le_bytes(expected)), "page {page}");
                }
            }
            assert_eq!(memory.hash(), hash);
            let counts = memory.counters().reclaim;
            assert_eq!((counts.swapped, counts.copied), (0, counts.swap_ins), "what came back has its slot still");
            memory.discard(GuestPhys(0), pages << 12);
            let counts = memory.counters().reclaim;
            assert_eq!((counts.copied, counts.resident, counts.swap_bytes), (0, 0, 0), "every slot is free again");
            assert!(memory.audit().is_clean() && memory.failure().is_none());
        }
    }
}

/// However memory is touched, no more of it is in than may be; and the host agrees.
#[test]
fn a_memory_limit_holds_at_every_moment() {
    for order in [FrameOrder::Identity, FrameOrder::Permuted { seed: 8 }] {
        let (pages, limit) = (4096u64, 512u64);
        let (memory, _) = memory(order, pages, limit << 12, Freed::Returned);
        let mut vcpu = memory.vcpu(Arc::default());
        let mut state = 1u64;
        let mut model = vec![0u64; pages as usize];
        for step in 0..40_000u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // First each page once, then mostly a few of them, then any.
            let page = match step {
                ..4096 => step,
                ..20_000 if step % 16 != 0 => (state >> 33) % 300,
                _ => (state >> 33) % pages,
            };
            let at = page << 12 | 0x123;
            if state >> 60 == 0 {
                memory.dma().write(GuestPhys(at), &step.to_le_bytes());
                vcpu.drain();
                model[page as usize] = step;
            } else if step < 4096 || state >> 62 == 1 {
                write(&mut vcpu, at, &step.to_le_bytes()).unwrap();
                model[page as usize] = step;
            } else {
                assert_eq!(read(&mut vcpu, at), Ok(model[page as usize]), "step {step}, page {page}");
            }
            vcpu.drain();
            if step % 1024 == 0 {
                let counts = memory.counters().reclaim;
                assert!(counts.resident <= limit);
                if cfg!(all(target_os = "linux", not(portable))) {
                    assert!(memory.touched_frames() <= limit, "the host holds {}", memory.touched_frames());
                }
            }
        }
        let counts = memory.counters().reclaim;
        assert_eq!((counts.limit, counts.most_resident), (limit, limit));
        assert!(counts.swap_ins > 1000, "{counts:?}");
        memory.set_limit(LEAST_LIMIT);
        assert_eq!(memory.counters().reclaim.resident, LEAST_LIMIT >> 12);
        memory.set_limit(pages << 12);
        for page in 0..pages {
            assert_eq!(read(&mut vcpu, page << 12 | 0x123), Ok(model[page as usize]));
        }
        assert!(memory.audit().is_clean());
    }
}

/// Pages that hold nothing cost nothing: neither when they are read, nor when they leave.
#[test]
fn zero_pages_cost_nothing() {
    let (memory, _) = memory(FrameOrder::Identity, 1024, 1024 << 12, Freed::Returned);
    let mut bytes = vec![1; 1024 << 12];
    memory.read(GuestPhys(0), &mut bytes);
    assert!(bytes.iter().all(|byte| *byte == 0));
    assert_eq!(memory.counters().reclaim.resident, 0, "whoever reads zeros touches no frame");
    memory.write(GuestPhys(0), &vec![0; 1024 << 12]);
    assert_eq!(memory.evict(u64::MAX), 1024);
    let counts = memory.counters().reclaim;
    assert_eq!((counts.zero_evictions, counts.swap_file_bytes, counts.resident), (1024, 0, 0));
}

/// Where nothing leaves, frames that lie side by side become huge pages of the host; they leave one by one all the same.
#[test]
fn whole_groups_become_huge_pages_and_leave_one_by_one() {
    let pages = 4 * 512;
    let (memory, _) = memory(FrameOrder::Identity, pages, pages << 12, Freed::Returned);
    fill(&memory, pages);
    let hash = memory.hash();
    memory.merge(8);
    memory.merge(8);
    let counts = memory.counters().reclaim;
    // Not every host has them, or gives them when it is asked; the last group is the pool's spare frames.
    assert!(counts.merges <= 4, "{counts:?}");
    println!("{} of 4 groups became huge pages", counts.merges);
    assert_eq!((memory.hash(), counts.resident), (hash, pages));
    for round in 1..20 {
        memory.evict(round);
        memory.read(GuestPhys(round << 14), &mut [0; 8]);
        let counts = memory.counters().reclaim;
        if cfg!(all(target_os = "linux", not(portable))) {
            assert_eq!(memory.touched_frames(), counts.resident, "{counts:?}");
        }
        memory.merge(8);
    }
    assert_eq!(memory.hash(), hash);
}

/// A guest with the tables of `tables`, all of it out.
fn guest_that_is_out(kind: Kind, freed: Freed) -> (Guest, Memory) {
    let memory = GuestMemory::new(Pool::new(512 * 4096).unwrap(), FrameOrder::Permuted { seed: 3 }, 40);
    let store = Memory::default();
    memory.set_paging(paging(1 << 20, &store, freed));
    let mut guest = Guest::of(kind, memory);
    out(&mut guest);
    (guest, store)
}
fn out(guest: &mut Guest) {
    guest.memory.evict(u64::MAX);
    guest.vcpu.drain();
    assert_eq!(guest.memory.counters().reclaim.resident, 0);
}

/// The class of the classifier that no other test can force; what a processor would show is as if nothing had been out.
#[test]
fn frame_out_is_a_class_and_hidden() {
    for kind in KINDS {
        let (mut guest, _) = guest_that_is_out(kind, Freed::Poisoned);
        let mut bytes = [0; 8];
        guest.vcpu.peek(Linear(LINEAR), &mut bytes).unwrap();
        assert_eq!(&bytes, b"AAAAAAAA", "a debugger looks through the tables, wherever they are");
        let explained = guest.vcpu.explain(Linear(LINEAR));
        assert_eq!((explained.out, explained.classes[0]), (true, FaultClass::FrameOut));
        assert_eq!(guest.memory.counters().reclaim.resident, 0);
        let before = guest.memory.counters();
        assert_eq!(guest.read(LINEAR), Ok(u64::from_le_bytes(*b"AAAAAAAA")));
        let after = guest.memory.counters();
        assert_eq!(after.class(FaultClass::FrameOut) - before.class(FaultClass::FrameOut), 1);
        assert_eq!(after.slow_accesses - before.slow_accesses, 1, "one access, one class");
        assert!(!guest.vcpu.explain(Linear(LINEAR)).out);
        // The guest's own fault stays its own, with everything out and with a page of the tables in.
        let nowhere = LINEAR + 0x5000;
        assert_eq!(guest.read(nowhere).unwrap_err().error_code, 0);
        out(&mut guest);
        assert_eq!(guest.read(nowhere).unwrap_err().error_code, 0);
        guest.audit("frame out");
    }
}

/// A page of tables that is out keeps its monitor tables; whoever writes it brings it in, and the new entry counts (S3).
#[test]
fn tables_that_are_out_are_still_watched() {
    for kind in KINDS {
        for level in 1..=levels(kind).min(if kind == Kind::Pae { 2 } else { 4 }) {
            for writer in 0..4 {
                let (mut guest, _) = guest_that_is_out(kind, Freed::Poisoned);
                assert_eq!(guest.read(LINEAR), Ok(u64::from_le_bytes(*b"AAAAAAAA")));
                let (at, other) = (guest.entry_at(level), ((CHAINS[1] + level) << 12) + guest.entry_at(level) % 4096);
                let entry = guest.phys(other).to_le_bytes();
                let entry = &entry[..width(kind) as usize];
                let linear = alias(kind, at >> 12) + at % 4096;
                if writer == 0 {
                    // The way to the entry is known before everything leaves.
                    guest.read(linear).unwrap();
                }
                out(&mut guest);
                match writer {
                    0 => drop(write(&mut guest.vcpu, linear, entry).unwrap()),
                    1 => {
                        let place = guest.vcpu.resolve(Linear(linear), Access::Write, View::Supervisor).unwrap();
                        out(&mut guest);
                        let mut new = [0; 16];
                        new[..entry.len()].copy_from_slice(entry);
                        guest.vcpu.rmw_place(&place, entry.len(), &mut |_| u128::from_le_bytes(new));
                    }
                    2 => guest.memory.write(GuestPhys(at), entry),
                    _ => {
                        // A bus master writes the page whole.
                        let mut page = vec![0; 4096];
                        guest.memory.read(GuestPhys(at & !0xfff), &mut page);
                        page[(at % 4096) as usize..][..entry.len()].copy_from_slice(entry);
                        out(&mut guest);
                        guest.memory.dma().write(GuestPhys(at & !0xfff), &page);
                    }
                }
                guest.vcpu.drain();
                assert_eq!(guest.read(LINEAR), Ok(u64::from_le_bytes(*b"BBBBBBBB")), "{kind:?} {level} {writer}");
                guest.audit("tables that are out");
            }
        }
    }
}

/// Code whose page leaves and comes back is the same code; a write to it is noted, whoever makes it and wherever the page is.
#[test]
fn code_that_is_out_is_still_watched() {
    let (mut guest, _) = guest_that_is_out(Kind::Long, Freed::Poisoned);
    guest.read(LINEAR).unwrap();
    guest.vcpu.track_code(PhysPage(CHAINS[0]), 0, 64);
    out(&mut guest);
    let mut bytes = [0; 8];
    guest.vcpu.read_phys(PhysPage(CHAINS[0]), 0, &mut bytes);
    assert_eq!(&bytes, b"AAAAAAAA");
    out(&mut guest);
    write(&mut guest.vcpu, LINEAR + 0x100, b"beside").unwrap();
    assert_eq!(guest.vcpu.take_code_writes(), []);
    out(&mut guest);
    guest.memory.dma().write(GuestPhys((CHAINS[0] << 12) + 8), b"dma");
    let expected = [CodeWrite { page: PhysPage(CHAINS[0]), offset: 0, len: 64, written: (8, 3), kept: false }];
    assert_eq!(guest.vcpu.take_code_writes(), expected);
    guest.audit("code that is out");
}

/// S15: what the guest unmaps becomes eligible, and keeps its contents until it is mapped again, somewhere else.
#[test]
fn unmapped_pages_are_eligible_and_keep_their_contents() {
    let (mut guest, _) = guest_that_is_out(Kind::Long, Freed::Returned);
    write(&mut guest.vcpu, LINEAR, b"precious").unwrap();
    let entry = guest.phys(guest.entry_at(1)).to_le_bytes();
    guest.memory.write(GuestPhys(guest.entry_at(1)), &[0; 8]);
    guest.vcpu.drain();
    assert!(guest.read(LINEAR).is_err());
    out(&mut guest);
    guest.memory.write(GuestPhys(guest.entry_at(1) + 8 * 2), &entry);
    guest.vcpu.drain();
    assert_eq!(guest.read(LINEAR + 0x2000), Ok(u64::from_le_bytes(*b"precious")));
}

/// S13: the guest swaps by itself, to a disk of its own, what the host swaps beneath it.
#[test]
fn two_swap_worlds() {
    let (memory, _) = memory(FrameOrder::Permuted { seed: 2 }, 512, LEAST_LIMIT, Freed::Returned);
    // 2,000 pages of a guest's program in 256 frames of its memory; the rest is on the guest's disk.
    let mut disk = vec![[0u8; 4096]; 2000];
    let mut model = vec![0u64; 2000];
    let mut at = [usize::MAX; 256];
    let mut vcpu = memory.vcpu(Arc::default());
    let mut state = 9u64;
    for step in 1..30_000u64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let page = ((state >> 33) % 2000) as usize;
        let frame = page % 256;
        let place = GuestPhys((128 + frame as u64) << 12);
        if at[frame] != page {
            if at[frame] != usize::MAX {
                memory.dma().read(place, &mut disk[at[frame]]);
            }
            memory.dma().write(place, &disk[page]);
            vcpu.drain();
            at[frame] = page;
        }
        assert_eq!(read(&mut vcpu, place.0 | 0x18), Ok(model[page]), "step {step}");
        write(&mut vcpu, place.0 | 0x18, &step.to_le_bytes()).unwrap();
        model[page] = step;
    }
    assert!(memory.counters().reclaim.swap_ins > 5_000, "{:?}", memory.counters().reclaim);
}

/// S20: what was used least recently goes first, and what is used all the time hardly ever.
#[test]
fn least_recently_used_pages_go_first() {
    for policy in Policy::ALL {
        let (pages, limit) = (2048u64, 256u64);
        let memory = GuestMemory::new(Pool::new(pages << 12).unwrap(), FrameOrder::Identity, 40);
        let store = Memory::default();
        memory.set_paging(Paging { policy, ..paging(limit << 12, &store, Freed::Returned) });
        memory.map_ram(GuestPhys(0), pages << 12).unwrap();
        fill(&memory, pages);
        let mut vcpu = memory.vcpu(Arc::default());
        let mut hot_faults = 0;
        for step in 0..20_000u64 {
            vcpu.drain();
            let before = memory.counters().reclaim.swap_ins;
            // 128 pages again and again; between them, a walk through everything else.
            read(&mut vcpu, (step * 7 % 128) << 12).unwrap();
            if step > 4_000 {
                hot_faults += memory.counters().reclaim.swap_ins - before;
            }
            if step % 4 == 0 {
                read(&mut vcpu, (128 + step / 4 % (pages - 128)) << 12).unwrap();
            }
        }
        // Chance would take one of two hot pages before its next use.
        println!("{policy:?}: {hot_faults} faults of hot pages in 16,000 uses");
        assert!(hot_faults < 160, "{policy:?}: {hot_faults} faults of hot pages in 16,000 uses");
    }
}

/// S18: a guest touches everything, then uses a tenth: what it leaves alone goes, and what it uses stays.
#[test]
fn a_guest_that_uses_little_shrinks() {
    let pages = 4096u64;
    let (memory, _) = memory(FrameOrder::Identity, pages, pages << 12, Freed::Returned);
    fill(&memory, pages);
    let mut vcpu = memory.vcpu(Arc::default());
    touch(&mut vcpu, 0..pages);
    let mut curve = Vec::new();
    for _ in 0..64 {
        touch(&mut vcpu, 0..pages / 10);
        vcpu.drain();
        memory.shrink(pages as usize / 16, 2);
        vcpu.drain();
        curve.push(memory.counters().reclaim.resident * 100 / pages);
    }
    println!("resident, in percent: {curve:?}");
    assert!(curve.last().is_some_and(|percent| *percent <= 12), "{curve:?}");
    let before = memory.counters().reclaim.swap_ins;
    touch(&mut vcpu, 0..pages / 10);
    assert_eq!(memory.counters().reclaim.swap_ins, before, "what is used did not leave");
}

/// A full disk: what cannot leave stays, the machine is told to stop, and not a byte is lost.
#[test]
fn a_full_disk_stops_the_machine_and_loses_nothing() {
    let pages = 512;
    let (memory, store) = memory(FrameOrder::Identity, pages, pages << 12, Freed::Returned);
    fill(&memory, pages);
    let hash = memory.hash();
    let attention = Arc::new(Attention::default());
    let _vcpu = memory.vcpu(Arc::clone(&attention));
    store.room.store(400 << 10, Ordering::Relaxed);
    assert!(memory.evict(pages) < pages);
    assert!(matches!(memory.failure(), Some(SwapError::NoRoom { .. })), "{:?}", memory.failure());
    assert_ne!(attention.get() & attention::bits::STOP, 0);
    assert_eq!(memory.hash(), hash);
    let mut bytes = [0; 4096];
    for page in 0..pages {
        memory.read(GuestPhys(page << 12), &mut bytes);
        assert!(bytes == pattern(page), "page {page}");
    }
}

/// A page that cannot be read, or is not what was written: no access sees anything of it, and other guests go on.
#[test]
fn a_lost_page_stops_the_machine_before_anyone_sees_it() {
    for damage in 0..3 {
        for kind in KINDS {
            let (mut guest, store) = guest_that_is_out(kind, Freed::Returned);
            let (mut unharmed, _) = guest_that_is_out(kind, Freed::Returned);
            match damage {
                0 => store.broken.store(true, Ordering::Relaxed),
                1 => store.bytes.lock().unwrap().iter_mut().for_each(|byte| *byte ^= 0x10),
                _ => store.bytes.lock().unwrap().clear(),
            }
            let before = guest.memory.counters().slow_accesses;
            let fault = guest.read(LINEAR).unwrap_err();
            assert!(fault.is_lost(), "{fault:?}");
            assert_eq!(guest.memory.counters().slow_accesses, before, "it is no fault of the guest's");
            assert!(write(&mut guest.vcpu, LINEAR, b"x").unwrap_err().is_lost());
            let sentence = guest.memory.failure().unwrap().to_string();
            assert!(sentence.contains("swap file") && sentence.contains("try"), "{sentence}");
            let expected = if damage == 1 { "damaged" } else { "cannot be read" };
            assert!(sentence.contains(expected), "{sentence}");
            assert_eq!(unharmed.read(LINEAR), Ok(u64::from_le_bytes(*b"AAAAAAAA")));
            assert!(unharmed.memory.failure().is_none());
        }
    }
}

/// S17: three vCPUs on threads, a bus master and a reclaimer; frames that have left are poisoned, so that whoever still reads or
/// writes one is seen. Then the same with frames moving as well.
#[test]
fn locked_counters_under_eviction() {
    let rounds = std::env::var("UMBRA_HAMMER").ok().and_then(|n| n.parse().ok()).unwrap_or(1) * 6_000u64;
    for policy in Policy::ALL {
        let memory = GuestMemory::new(Pool::new(600 << 12).unwrap(), FrameOrder::Identity, 40);
        let store = Memory::default();
        memory.set_paging(Paging { policy, ..paging(300 << 12, &store, Freed::Poisoned) });
        memory.map_ram(GuestPhys(0), 512 << 12).unwrap();
        let evicted = AtomicU64::new(0);
        locked_counters(&memory, rounds, 63, |round| {
            evicted.fetch_add(memory.evict(round % 97), Ordering::Relaxed);
            if round % 5 == 0 && policy == Policy::Clock {
                memory.compact(64);
            }
            let page = 448 + round % 64;
            memory.dma().write(GuestPhys(page << 12), &pattern(page)[..(round % 4096) as usize]);
            let mut bytes = [0; 64];
            memory.dma().read(GuestPhys(page << 12), &mut bytes);
        });
        let counts = memory.counters().reclaim;
        println!("{policy:?}: {} evicted by the reclaimer; {counts:?}", evicted.load(Ordering::Relaxed));
        assert!(counts.swap_ins > 500 && counts.most_resident <= counts.limit, "{counts:?}");
        assert!(memory.audit().is_clean());
    }
}

/// What the wait is for: a block makes many stores by its TLB before it comes to its boundary, and the frame must not have been
/// copied before the last of them.
#[test]
fn a_frame_leaves_after_the_blocks_that_use_it() {
    let (memory, _) = memory(FrameOrder::Identity, 64, 64 << 12, Freed::Poisoned);
    let stop = &AtomicBool::new(false);
    let rounds: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2u64)
            .map(|number| {
                let memory = memory.clone();
                scope.spawn(move || {
                    let attention = Arc::new(Attention::default());
                    let mut vcpu = memory.vcpu(Arc::clone(&attention));
                    vcpu.unpark();
                    let mut rounds = 0;
                    while !stop.load(Ordering::Relaxed) {
                        rounds += 1;
                        vcpu.drain();
                        for i in 0..2_000u64 {
                            let linear = (i % 4) << 12 | number << 6;
                            if let Some(slot) = vcpu.write_slot::<u64>(linear) {
                                slot.store(slot.load() + 1);
                            } else {
                                let place = vcpu.resolve(Linear(linear), Access::Write, View::Supervisor).unwrap();
                                vcpu.rmw_place(&place, 8, &mut |old| old + 1);
                            }
                        }
                    }
                    vcpu.park();
                    rounds
                })
            })
            .collect();
        let began = std::time::Instant::now();
        while memory.counters().reclaim.evictions < 400 && began.elapsed().as_secs() < 20 {
            memory.evict(u64::MAX);
        }
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    for (number, rounds) in (0..).zip(rounds) {
        for page in 0..4u64 {
            let mut bytes = [0; 8];
            memory.read(GuestPhys(page << 12 | number << 6), &mut bytes);
            assert_eq!(u64::from_le_bytes(bytes), rounds * 500, "page {page} of vCPU {number}");
        }
    }
    assert!(memory.counters().reclaim.evictions > 20, "{:?}", memory.counters().reclaim);
}

/// Whoever comes back from the swap file and is not written leaves without being written there again.
#[test]
fn what_was_not_written_leaves_without_a_write() {
    let pages = 512;
    let (memory, store) = memory(FrameOrder::Identity, pages, pages << 12, Freed::Poisoned);
    fill(&memory, pages);
    let mut vcpu = memory.vcpu(Arc::default());
    memory.evict(pages);
    let first = memory.counters().reclaim;
    assert_eq!((first.swapped, first.copied, first.clean_evictions), (pages * 7 / 8, 0, 0));
    touch(&mut vcpu, 0..pages);
    // Every third page becomes another one, some by a byte only; a fourth one is written with what it holds.
    let contents = |page: u64| match page % 12 {
        0 => pattern(page + 1),
        3 | 6 | 9 => {
            let mut bytes = pattern(page);
            bytes[4095] ^= 1;
            bytes
        }
        _ => pattern(page),
    };
    for page in (0..pages).filter(|page| page % 3 == 0 || page % 4 == 1) {
        let from = if page % 12 == 0 { 0 } else { 4088 };
        contents(page)[from..].chunks(8).enumerate().for_each(|(n, part)| {
            write(&mut vcpu, (page << 12) + (from + 8 * n) as u64, part).unwrap();
        });
    }
    let before = memory.counters().reclaim;
    assert_eq!((before.swapped, before.copied, before.swap_bytes), (0, first.swapped, first.swap_bytes));
    let hash = memory.hash();
    vcpu.drain();
    memory.evict(pages);
    let after = memory.counters().reclaim;
    let same = (0..pages).filter(|page| page % 3 != 0 && page % 8 != 0).count() as u64;
    assert_eq!((after.clean_evictions, after.copied, after.resident), (same, 0, 0));
    assert!(after.swap_written - before.swap_written < (pages / 3) << 12, "{after:?}");
    assert_eq!(memory.hash(), hash);
    for page in 0..pages {
        let mut bytes = [0; 4096];
        memory.read(GuestPhys(page << 12), &mut bytes);
        assert!(bytes == contents(page), "page {page}");
    }
    // What is damaged was no copy: nobody needs it.
    store.bytes.lock().unwrap().iter_mut().for_each(|byte| *byte ^= 0x10);
    memory.evict(pages);
    assert_eq!(memory.hash(), hash);
    assert!(memory.failure().is_none());
}

/// Where the swap file has no room, what is there only a second time makes some.
#[test]
fn copies_make_room() {
    let (memory, store) = memory(FrameOrder::Identity, 512, 512 << 12, Freed::Returned);
    let noise = |page: u64| pattern(page * 8 + 3);
    let put = |page: u64, bytes: [u8; 4096]| memory.write(GuestPhys(page << 12), &bytes);
    (0..128).for_each(|page| put(page, noise(page)));
    memory.evict(128);
    store.room.store(memory.counters().reclaim.swap_file_bytes, Ordering::Relaxed);
    (128..192).for_each(|page| put(page, noise(page)));
    for page in 0..64 {
        let mut bytes = [0; 8];
        memory.read(GuestPhys(page << 12), &mut bytes);
        (0..512).for_each(|at| memory.write(GuestPhys((page << 12) + at * 8), &[0; 8]));
    }
    assert_eq!(memory.counters().reclaim.copied, 64);
    assert_eq!(memory.evict(128), 128, "{:?}", memory.failure());
    for page in 0..192 {
        let mut bytes = [0; 4096];
        memory.read(GuestPhys(page << 12), &mut bytes);
        assert!(bytes == if page < 64 { [0; 4096] } else { noise(page) }, "page {page}");
    }
}

/// The swap file itself: an anonymous file on the host, by the system's own calls.
#[test]
fn a_real_file_serves() {
    let path = std::env::temp_dir().join(format!("umbra-swap-test-{}", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let memory = GuestMemory::new(Pool::new(300 << 12).unwrap(), FrameOrder::Identity, 40);
    let store = Box::new(file.try_clone().unwrap());
    memory.set_paging(Paging { limit: LEAST_LIMIT, policy: Policy::Clock, store, freed: Freed::Returned });
    memory.map_ram(GuestPhys(0), 256 << 12).unwrap();
    fill(&memory, 256);
    let mut bytes = [0; 4096];
    for page in 0..256 {
        memory.read(GuestPhys(page << 12), &mut bytes);
        assert!(bytes == pattern(page), "page {page}");
    }
    memory.evict(u64::MAX);
    file.set_len(0).unwrap();
    memory.read(GuestPhys(0x5000), &mut bytes);
    assert!(matches!(memory.failure(), Some(SwapError::Read(_))));
}
