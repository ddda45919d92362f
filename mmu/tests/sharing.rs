//! S21: equal pages of several guests are one frame until one of them is written, by whatever route; and no guest ever sees what
//! another one wrote.
//!
//! `UMBRA_ISOLATION_WRITES=10000000 cargo test --release -p umbra-mmu --test sharing` is the promise's full length.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/counters.rs"]
mod counters;
#[path = "support/store.rs"]
mod store;
#[path = "support/tables.rs"]
mod tables;

use counters::locked_counters;
use std::sync::Arc;
use store::Memory;
use tables::*;
use umbra_mmu::reclaim::policy::Policy;
use umbra_mmu::reclaim::{Freed, LEAST_LIMIT};
use umbra_mmu::*;

fn paging(limit: u64, freed: Freed) -> Paging {
    Paging { limit, policy: Policy::default(), store: Box::<Memory>::default(), freed }
}

/// RAM of so many pages in a pool that others use too.
fn memory(pool: &Arc<Pool>, group: &Arc<Sharing>, pages: u64, limit: u64, freed: Freed) -> GuestMemory {
    let memory = GuestMemory::new(Arc::clone(pool), FrameOrder::Permuted { seed: 7 }, 40);
    memory.set_paging(paging(limit << 12, freed));
    memory.share_with(group);
    memory.map_ram(GuestPhys(0), pages << 12).unwrap();
    memory
}

/// Looks at everything until nothing more becomes one.
fn share(guests: &[&GuestMemory]) {
    for _ in 0..4 {
        guests.iter().for_each(|memory| _ = memory.share(4096));
    }
}

/// Two guests with the tables of `tables`, equal but for where their frames lie; everything that can be is shared.
fn twins(kind: Kind) -> ([Guest; 2], Arc<Sharing>) {
    let (pool, group) = (Pool::new(1024 << 12).unwrap(), Sharing::with(1024 << 12, Freed::Poisoned).unwrap());
    let mut guests = [3, 4].map(|seed| {
        let memory = GuestMemory::new(Arc::clone(&pool), FrameOrder::Permuted { seed }, 40);
        memory.set_paging(paging(256 << 12, Freed::Poisoned));
        memory.share_with(&group);
        Guest::of(kind, memory)
    });
    guests.iter_mut().for_each(|guest| assert_eq!(guest.read(LINEAR), Ok(A), "the tables are live"));
    share_both(&mut guests);
    (guests, group)
}
fn share_both(guests: &mut [Guest; 2]) {
    share(&[&guests[0].memory, &guests[1].memory]);
    guests.iter_mut().for_each(|guest| guest.vcpu.drain());
}

const A: u64 = u64::from_le_bytes(*b"AAAAAAAA");
const NEW: &[u8; 8] = b"new text";

fn shared(memory: &GuestMemory, page: u64) -> bool {
    let uses = memory.page_uses();
    uses.iter().any(|view| view.page.0 == page && view.uses.is(PageUse::SHARED))
}
fn audit(guests: &mut [Guest; 2], what: &str) {
    guests.iter_mut().for_each(|guest| guest.audit(what));
}

/// Whoever writes, however: the writer's guest sees it on each of its processors, the other guest does not.
#[test]
fn every_writer_parts_what_is_shared() {
    const WRITERS: [&str; 10] = [
        "store",
        "locked",
        "across pages",
        "processor without paging",
        "loader",
        "dma",
        "whole page",
        "discard",
        "string",
        "place from before",
    ];
    for kind in KINDS {
        for writer in WRITERS {
            let (mut guests, group) = twins(kind);
            let what = format!("{kind:?} {writer}");
            let page = CHAINS[0];
            assert!(guests.iter().all(|guest| shared(&guest.memory, page)), "{what}");
            let place = (writer == "place from before").then(|| {
                // A right from before the page was shared.
                let place = guests[0].vcpu.resolve(Linear(LINEAR), Access::Write, View::Supervisor).unwrap();
                share_both(&mut guests);
                place
            });
            assert!(shared(&guests[0].memory, page), "{what}");
            let mut other = guests[0].memory.vcpu(Arc::default());
            other.set_paging(&regs(kind, &guests[0].memory, CHAINS[0]));
            for _ in 0..2 {
                // By the tables, then by the TLB.
                assert_eq!(read(&mut other, LINEAR), Ok(A), "{what}");
                assert!(guests.iter_mut().all(|guest| guest.read(LINEAR) == Ok(A)), "{what}");
            }
            assert!(!guests[0].vcpu.store(LINEAR, 0u64) && guests[0].vcpu.write_run(LINEAR).is_none(), "{what}");
            audit(&mut guests, &what);
            let guest = &mut guests[0];
            let before = guest.memory.counters().reclaim;
            let new = u64::from_le_bytes(*NEW);
            let mut expected = new;
            match writer {
                "store" => _ = write(&mut guest.vcpu, LINEAR, NEW).unwrap(),
                "locked" => {
                    let place = guest.vcpu.resolve(Linear(LINEAR), Access::Write, View::Supervisor).unwrap();
                    assert_eq!(guest.vcpu.rmw_place(&place, 8, &mut |_| new.into()).0, A.into());
                }
                "across pages" => {
                    let places = [alias(kind, page - 1) + 0xffc, LINEAR]
                        .map(|at| guest.vcpu.resolve(Linear(at), Access::Write, View::Supervisor).unwrap());
                    guest.vcpu.rmw_places([&places[0], &places[1]], 8, &mut |old| {
                        assert_eq!(old >> 32, u128::from(A >> 32));
                        u128::from(new) << 32
                    });
                    expected = A >> 32 << 32 | new & 0xffff_ffff;
                }
                "processor without paging" => {
                    let mut flat = guest.memory.vcpu(Arc::default());
                    assert_eq!(read(&mut flat, page << 12), Ok(A));
                    write(&mut flat, page << 12, NEW).unwrap();
                }
                "loader" => guest.memory.write(GuestPhys(page << 12), NEW),
                "dma" => guest.memory.dma().write(GuestPhys(page << 12), NEW),
                "whole page" => {
                    let mut bytes = [9; 4096];
                    bytes[..8].copy_from_slice(NEW);
                    guest.memory.dma().write(GuestPhys(page << 12), &bytes);
                }
                "discard" => {
                    guest.memory.discard(GuestPhys(page << 12), 4096);
                    expected = 0;
                }
                "string" => {
                    guest.vcpu.resolve(Linear(LINEAR), Access::Write, View::Supervisor).unwrap();
                    guest.memory.write(GuestPhys(0x30_000), NEW);
                    let flat = alias(kind, 0x30);
                    read(&mut guest.vcpu, flat).unwrap();
                    let (to, from) = (guest.vcpu.write_run(LINEAR).unwrap(), guest.vcpu.read_run(flat).unwrap());
                    assert_eq!(to.copy_from(&from, 8, 1, Direction::Up), 1);
                }
                _ => _ = guest.vcpu.write_place(&place.unwrap(), NEW),
            }
            guest.vcpu.drain();
            other.drain();
            let after = guest.memory.counters().reclaim;
            let broken = u64::from(writer != "discard");
            assert!(after.breaks - before.breaks >= broken && after.shared < before.shared, "{what}: {after:?}");
            assert_eq!((guest.read(LINEAR), read(&mut other, LINEAR)), (Ok(expected), Ok(expected)), "{what}");
            let rest = guest.read(LINEAR + 8);
            assert_eq!(rest, Ok(if writer == "whole page" { u64::from_le_bytes([9; 8]) } else { 0 }), "{what}");
            assert_eq!(guests[1].read(LINEAR), Ok(A), "{what}");
            assert!(shared(&guests[1].memory, page) && !shared(&guests[0].memory, page), "{what}");
            drop(other);
            audit(&mut guests, &what);
            drop(guests);
            assert_eq!(group.counts().frames, 0, "{what}: nobody is left");
        }
    }
}

/// S11: the class is counted once, a debugger foresees it, and nothing else of it shows.
#[test]
fn copy_on_write_is_a_class_and_hidden() {
    for kind in KINDS {
        let (mut guests, _) = twins(kind);
        let guest = &mut guests[0];
        let entry = guest.phys(guest.entry_at(1));
        let explained = guest.vcpu.explain(Linear(LINEAR));
        assert_eq!((explained.shared, explained.classes[1]), (true, FaultClass::CopyOnWrite));
        assert_eq!(explained.classes[0], FaultClass::NotShadowed);
        let class = |guest: &mut Guest, action: &mut dyn FnMut(&mut VcpuMmu)| {
            let before = guest.memory.counters();
            action(&mut guest.vcpu);
            let after = guest.memory.counters();
            let times = |class| (after.class(class) - before.class(class)) as usize;
            FaultClass::ALL.into_iter().flat_map(|class| std::iter::repeat_n(class, times(class))).collect::<Vec<_>>()
        };
        let mut reads = |vcpu: &mut VcpuMmu| assert_eq!(read(vcpu, LINEAR), Ok(A));
        let mut writes = |vcpu: &mut VcpuMmu| _ = write(vcpu, LINEAR, b"BBBBBBBB").unwrap();
        assert_eq!(class(guest, &mut reads), [FaultClass::NotShadowed]);
        assert_eq!(class(guest, &mut reads), [], "a TLB hit is no slow access");
        guest.vcpu.set_view(View::SupervisorAc);
        assert_eq!(class(guest, &mut reads), [FaultClass::Hit], "the monitor has it");
        guest.vcpu.set_view(View::Supervisor);
        assert_eq!(guest.vcpu.explain(Linear(LINEAR)).classes[..2], [FaultClass::Hit, FaultClass::CopyOnWrite]);
        assert_eq!(class(guest, &mut writes), [FaultClass::CopyOnWrite]);
        assert_eq!(class(guest, &mut writes), [], "its own from now on");
        assert!(!guest.vcpu.explain(Linear(LINEAR)).shared);
        assert_eq!(guest.phys(guest.entry_at(1)), entry, "accessed and dirty as before");
        let counters = guest.memory.counters();
        assert_eq!(counters.slow_accesses, counters.classes.iter().sum::<u64>());
        audit(&mut guests, "copy on write");
    }
}

/// Tables that nobody walked yet are pages like others; the walk's own accessed and dirty bits part them.
#[test]
fn the_walk_parts_a_shared_table() {
    for kind in KINDS {
        let (mut guests, _) = twins(kind);
        let slots = [0, 1].map(|n| ((CHAINS[1] + 1) << 12) + (index(kind, 1) + n) * width(kind));
        for guest in &mut guests {
            // Chain B, which no root leads to: its lowest table, neither accessed nor dirty.
            let entry = (CHAINS[0] << 12 | 7).to_le_bytes();
            guest.memory.write(GuestPhys(slots[1]), &entry[..width(kind) as usize]);
        }
        share_both(&mut guests);
        assert!(guests.iter().all(|guest| shared(&guest.memory, CHAINS[1] + 1)), "{kind:?}");
        let guest = &mut guests[0];
        guest.vcpu.set_paging(&regs(kind, &guest.memory, CHAINS[1]));
        assert_eq!(guest.read(LINEAR + 0x1000), Ok(A));
        assert_eq!(guest.phys(slots[1]) & 0xfff, 0x27);
        write(&mut guest.vcpu, LINEAR + 0x1000, NEW).unwrap();
        assert_eq!(guest.phys(slots[1]) & 0xfff, 0x67);
        assert_eq!(guests[1].phys(slots[1]) & 0xfff, 7, "the other guest has walked nothing");
        // A table that is live is not shared again.
        share_both(&mut guests);
        assert!(!shared(&guests[0].memory, CHAINS[1] + 1));
        assert_eq!(guests[0].read(LINEAR + 0x1000), Ok(u64::from_le_bytes(*NEW)));
        audit(&mut guests, "tables");
    }
}

/// Translated code stays right on a page that becomes shared; the first write to it parts it and is noted.
#[test]
fn code_that_is_shared_is_still_watched() {
    let (mut guests, _) = twins(Kind::Long);
    let guest = &mut guests[0];
    guest.vcpu.track_code(PhysPage(CHAINS[0]), 0, 64);
    let place = guest.vcpu.resolve(Linear(LINEAR), Access::Fetch, View::Supervisor).unwrap();
    let mut bytes = [0; 8];
    guest.vcpu.read_place(&place, &mut bytes);
    assert_eq!((&bytes, guest.vcpu.fetch_page(LINEAR)), (b"AAAAAAAA", Some(PhysPage(CHAINS[0]))));
    bytes.fill(0);
    guest.vcpu.read_phys(PhysPage(CHAINS[0]), 0, &mut bytes);
    assert_eq!((&bytes, guest.vcpu.take_code_writes()), (b"AAAAAAAA", vec![]));
    // Descriptors are read through the TLB, and watched as code is.
    guest.read(LINEAR).unwrap();
    assert_eq!(guest.vcpu.descriptor_page(LINEAR, 8), Some(PhysPage(CHAINS[0])));
    assert_eq!(guest.vcpu.descriptor_word::<u64>(LINEAR), Some(A));
    assert!(shared(&guest.memory, CHAINS[0]), "none of this is a write");
    write(&mut guest.vcpu, LINEAR + 0x100, b"beside").unwrap();
    assert_eq!(guest.vcpu.take_code_writes(), []);
    assert!(!guest.vcpu.store(LINEAR, 1u8), "still watched");
    guest.memory.dma().write(GuestPhys((CHAINS[0] << 12) + 8), b"dma");
    assert_eq!(
        guest.vcpu.take_code_writes(),
        [CodeWrite { page: PhysPage(CHAINS[0]), offset: 0, len: 64, written: (8, 3), kept: false }]
    );
    assert_eq!(guests[1].vcpu.take_code_writes(), [], "another guest's code is not its own");
    audit(&mut guests, "code");
}

/// What guests have in common is in memory once; what nobody has any more is not in memory at all.
#[test]
fn memory_goes_back_to_the_host() {
    let (count, pages) = (4, 1024u64);
    let pool = Pool::new(count * 2 * (pages << 12)).unwrap();
    let group = Sharing::new(count * (pages << 12)).unwrap();
    let guests: Vec<GuestMemory> = (0..count).map(|_| memory(&pool, &group, pages, pages, Freed::Returned)).collect();
    for (guest, number) in guests.iter().zip(0u64..) {
        for page in 0..pages {
            // One of sixteen is the guest's own, one of sixteen zero.
            let value = match page % 16 {
                0 => page << 8 | (number + 1),
                1 => 0,
                _ => page << 8,
            };
            guest.write(GuestPhys(page << 12), &value.to_le_bytes().repeat(512));
        }
    }
    let frames = || guests.iter().map(GuestMemory::touched_frames).sum::<u64>();
    let hashes: Vec<u64> = guests.iter().map(GuestMemory::hash).collect();
    let seen = cfg!(all(target_os = "linux", not(portable)));
    if seen {
        assert_eq!(frames(), count * pages);
    }
    share(&guests.iter().collect::<Vec<_>>());
    let counts = group.counts();
    // One or two may have been overlooked: who has equal contents is remembered in a small place.
    assert!(counts.frames > pages / 16 * 14 - 8 && counts.pages == count * counts.frames, "{counts:?}");
    let own = pages - pages / 16 - counts.frames;
    assert!(guests.iter().all(|guest| guest.counters().reclaim.resident == own));
    if seen {
        assert_eq!((frames(), group.resident_bytes() >> 12), (count * own, counts.frames));
    }
    assert!(guests.iter().map(GuestMemory::hash).eq(hashes));
    // One parts with everything, one goes: the others keep what they have.
    guests[0].write(GuestPhys(0), &vec![1; (pages << 12) as usize]);
    let mut guests = guests;
    drop(guests.pop());
    assert_eq!(group.counts().pages, 2 * counts.frames);
    assert!(guests.iter().all(|guest| guest.audit().is_clean()));
    guests.clear();
    assert_eq!((group.counts().frames, pool.free_frames()), (0, count * 2 * pages));
    if seen {
        assert_eq!(group.resident_bytes(), 0);
    }
}

/// Guests outside of the group share nothing, and neither does memory that is not paged.
#[test]
fn nobody_shares_unasked() {
    let (pool, group) = (Pool::new(256 << 12).unwrap(), Sharing::new(256 << 12).unwrap());
    let member = memory(&pool, &group, 16, 16, Freed::Returned);
    let stranger = GuestMemory::new(Arc::clone(&pool), FrameOrder::Identity, 40);
    stranger.set_paging(paging(16 << 12, Freed::Returned));
    stranger.map_ram(GuestPhys(0), 16 << 12).unwrap();
    let resident = GuestMemory::new(Arc::clone(&pool), FrameOrder::Identity, 40);
    resident.share_with(&group);
    resident.map_ram(GuestPhys(0), 16 << 12).unwrap();
    for guest in [&member, &stranger, &resident] {
        guest.write(GuestPhys(0x3000), &[7; 4096]);
    }
    share(&[&member, &stranger, &resident]);
    assert_eq!(group.counts().made, 0, "one page alone has nobody to share with");
    // Within one guest equal pages are one frame as well.
    member.write(GuestPhys(0x5000), &[7; 4096]);
    share(&[&member]);
    assert_eq!((group.counts().frames, group.counts().pages), (1, 2));
}

/// Three vCPUs on threads in each of two guests, locked counters in pages that a sharer makes one all the time; frames that were
/// given up are poisoned.
#[test]
fn locked_counters_beside_a_sharer() {
    let rounds = std::env::var("UMBRA_HAMMER").ok().and_then(|n| n.parse().ok()).unwrap_or(1) * 6_000u64;
    let (mut joins, mut breaks) = (0, 0);
    // Who comes to its end first leaves the other nobody to share with, and on a busy host that may be at once: again, then.
    for sitting in 0.. {
        let (pool, group) = (Pool::new(1200 << 12).unwrap(), Sharing::with(1200 << 12, Freed::Poisoned).unwrap());
        let guests = [0, 1].map(|_| memory(&pool, &group, 512, 440, Freed::Poisoned));
        std::thread::scope(|scope| {
            for guest in &guests {
                scope.spawn(|| {
                    locked_counters(guest, rounds, 63, |round| {
                        guest.share(1536);
                        if round % 7 == 0 {
                            guest.evict(round % 97);
                        }
                        if round % 11 == 0 {
                            guest.compact(64);
                        }
                    });
                });
            }
        });
        for counts in guests.each_ref().map(|guest| guest.counters().reclaim) {
            println!("{counts:?}");
            (joins, breaks) = (joins + counts.joins, breaks + counts.breaks);
        }
        for guest in &guests {
            assert!(guest.audit().is_clean(), "{:?}", guest.audit());
        }
        drop(guests);
        assert_eq!(group.counts().frames, 0);
        if joins > 500 && breaks > 200 {
            break;
        }
        assert!(sitting < 20, "{joins} joined and {breaks} broken: nothing was shared beside the counters");
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Pages of a guest in the isolation fuzz.
const FUZZED: u64 = 48;

/// A guest and what must be in its memory.
struct Subject {
    memory: GuestMemory,
    vcpus: [VcpuMmu; 2],
    model: Vec<u8>,
}

impl Subject {
    fn new(pool: &Arc<Pool>, group: &Arc<Sharing>, seed: u64) -> Subject {
        let memory = GuestMemory::new(Arc::clone(pool), FrameOrder::Permuted { seed }, 40);
        memory.set_paging(paging(32 << 12, Freed::Poisoned));
        memory.share_with(group);
        memory.map_ram(GuestPhys(0), FUZZED << 12).unwrap();
        let vcpus = [0, 1].map(|_| memory.vcpu(Arc::default()));
        Subject { memory, vcpus, model: vec![0; (FUZZED << 12) as usize] }
    }
    /// One write, by any route.
    fn write(&mut self, rng: &mut Rng) {
        let page = rng.below(FUZZED) << 12;
        let vcpu = &mut self.vcpus[rng.below(2) as usize];
        vcpu.drain();
        // Few values, so that pages are often equal: of one guest, and of several.
        let value = rng.below(3) as u8;
        let (at, length) = match rng.below(16) {
            0 => (page, 4096),
            1 => (page + rng.below(64) * 64, 64),
            _ => (page + rng.below(4) * 1024, 1 << rng.below(4)),
        };
        let bytes = vec![value; length as usize];
        match rng.below(8) {
            0 => self.memory.dma().write(GuestPhys(at), &bytes),
            1 if length <= 8 => {
                let place = vcpu.resolve(Linear(at), Access::Write, View::Supervisor).unwrap();
                let mut word = [0; 16];
                word[..bytes.len()].copy_from_slice(&bytes);
                vcpu.rmw_place(&place, bytes.len(), &mut |_| u128::from_le_bytes(word));
            }
            2 => self.memory.write(GuestPhys(at), &bytes),
            _ => _ = write(vcpu, at, &bytes).unwrap(),
        }
        self.model[at as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    fn read(&mut self, rng: &mut Rng, what: u64) {
        let at = rng.below(FUZZED * 512) * 8;
        let vcpu = &mut self.vcpus[rng.below(2) as usize];
        vcpu.drain();
        let expected = self.model[at as usize..][..8].try_into().unwrap();
        assert_eq!(read(vcpu, at), Ok(u64::from_le_bytes(expected)), "write {what}, at {at:#x}");
    }
    fn compare(&self, what: u64) {
        let mut bytes = vec![0; self.model.len()];
        self.memory.read(GuestPhys(0), &mut bytes);
        let different = bytes.iter().zip(&self.model).position(|(a, b)| a != b);
        assert_eq!(different, None, "after {what} writes");
        let report = self.memory.audit();
        assert!(report.is_clean(), "after {what} writes: {report:?}");
        assert!(self.memory.failure().is_none());
    }
}

/// Random writes of two and three guests in one pool and one group, while pages are shared, leave, come back, move, are given up;
/// now and then a guest ends and another one begins in its frames. Each reads what it wrote itself, and zeros where it wrote nothing.
#[test]
fn no_guest_sees_what_another_wrote() {
    let wanted = std::env::var("UMBRA_ISOLATION_WRITES").ok().and_then(|n| n.parse().ok()).unwrap_or(150_000u64);
    for count in [2, 3] {
        // A few frames to spare: who begins gets what others have left.
        let pool = Pool::new(count * (FUZZED << 12) + (16 << 12)).unwrap();
        let group = Sharing::with(count * (FUZZED << 12) / 2, Freed::Poisoned).unwrap();
        let mut rng = Rng(count);
        let mut subjects: Vec<Subject> = (0..count).map(|seed| Subject::new(&pool, &group, seed)).collect();
        let (mut joins, mut breaks, mut lives) = (0, 0, count);
        for step in 0..wanted / 2 {
            let number = rng.below(count) as usize;
            let subject = &mut subjects[number];
            subject.write(&mut rng);
            subject.read(&mut rng, step);
            match rng.below(256) {
                0..12 => _ = subject.memory.share(1024),
                12..20 => (0..2).for_each(|_| _ = subject.memory.share(1024)),
                20..28 => _ = subject.memory.evict(rng.below(FUZZED)),
                28..32 => _ = subject.memory.compact(rng.below(16) as usize),
                32..36 => {
                    let page = rng.below(FUZZED) as usize;
                    subject.memory.discard(GuestPhys((page as u64) << 12), 4096);
                    subject.model[page << 12..][..4096].fill(0);
                }
                36 => subject.memory.set_limit(LEAST_LIMIT + (rng.below(32) << 12)),
                37 if rng.below(16) == 0 => {
                    let counts = subject.memory.counters().reclaim;
                    (joins, breaks, lives) = (joins + counts.joins, breaks + counts.breaks, lives + 1);
                    drop(subjects.remove(number));
                    subjects.insert(number, Subject::new(&pool, &group, step));
                }
                38..48 => {
                    let mut bytes = [0; 4096];
                    let page = rng.below(FUZZED) as usize;
                    subject.memory.read(GuestPhys((page as u64) << 12), &mut bytes);
                    assert!(bytes == subject.model[page << 12..][..4096], "page {page} after {step} writes");
                }
                _ => {}
            }
            if step % 1024 == 0 {
                subjects.iter().for_each(|subject| subject.compare(step));
            }
        }
        for subject in &subjects {
            subject.compare(wanted);
            let counts = subject.memory.counters().reclaim;
            (joins, breaks) = (joins + counts.joins, breaks + counts.breaks);
        }
        println!("{count} guests: {} writes, {lives} lives, {joins} pages joined, {breaks} parted", wanted / 2);
        assert!(joins > wanted / 50 && breaks > wanted / 100, "{joins} {breaks}");
        drop(subjects);
        assert_eq!((group.counts().pages, pool.free_frames()), (0, count * FUZZED + 16));
    }
}
