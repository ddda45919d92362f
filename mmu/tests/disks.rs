//! S15: pages that hold what a disk of the guest holds leave without a write, and come back from there. Whatever becomes of the
//! disk and of the pages, each page holds what was written to it last.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/store.rs"]
mod store;
#[path = "support/tables.rs"]
mod tables;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::Memory;
use tables::*;
use umbra_mmu::reclaim::Freed;
use umbra_mmu::reclaim::policy::Policy;
use umbra_mmu::reclaim::swap::{SwapError, SwapStore};
use umbra_mmu::*;

/// A disk in memory, as its medium and whoever reads beside see it.
#[derive(Debug, Default)]
struct Image(Memory);

impl DiskImage for Image {
    fn name(&self) -> &str {
        "disk.img"
    }
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        SwapStore::read(&self.0, at, into)
    }
}

/// A medium over it.
struct Disk {
    image: Arc<Image>,
    copies: DiskCopies,
}

impl Disk {
    /// Of so many noisy pages.
    fn new(memory: &GuestMemory, pages: u64) -> Disk {
        let image = Arc::new(Image::default());
        *image.0.bytes.lock().unwrap() = (0..pages).flat_map(noise).collect();
        let copies = memory.add_disk(Arc::clone(&image) as Arc<dyn DiskImage>).unwrap();
        Disk { image, copies }
    }
    fn read(&self, at: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        self.image.read(at, &mut data).unwrap();
        self.copies.was_read(at, &data);
        data
    }
    fn write(&self, at: u64, from: &[u8]) {
        self.copies.will_be_written(at, from.len() as u64);
        self.image.0.clone().write(at, from).unwrap();
        self.copies.was_written(at, from);
    }
}

fn noise(seed: u64) -> [u8; 4096] {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5555;
    std::array::from_fn(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
}

fn guest(pages: u64, limit: u64, freed: Freed) -> GuestMemory {
    let memory = GuestMemory::new(Pool::new((pages + 64) << 12).unwrap(), FrameOrder::Permuted { seed: 3 }, 40);
    let (policy, store) = (Policy::default(), Box::<Memory>::default());
    memory.set_paging(Paging { limit: limit << 12, policy, store, freed });
    memory.map_ram(GuestPhys(0), pages << 12).unwrap();
    memory
}

fn load(memory: &GuestMemory, disk: &Disk, at: u64, page: u64, bytes: usize) {
    memory.dma().write(GuestPhys(page << 12), &disk.read(at, bytes));
}

fn page_of(memory: &GuestMemory, page: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    memory.read(GuestPhys(page << 12), &mut bytes);
    bytes
}

#[test]
fn pages_that_a_disk_holds_cost_nothing() {
    for freed in [Freed::Returned, Freed::Poisoned] {
        let memory = guest(2048, 2048, freed);
        let disk = Disk::new(&memory, 65);
        // From the disk at a place that is no multiple of a page, in requests of 64 KiB; and one by a program that copies.
        for part in 0..4 {
            load(&memory, &disk, 512 + (part << 16), part * 16, 1 << 16);
        }
        memory.write(GuestPhys(200 << 12), &page_of(&memory, 5));
        // What the guest writes to the disk is there, too.
        memory.write(GuestPhys(201 << 12), &noise(1000));
        disk.write(512, &page_of(&memory, 201));
        let hash = memory.hash();
        assert_eq!(memory.evict(2048), 66);
        let counts = memory.counters().reclaim;
        // The first page's block was written since.
        assert_eq!((counts.disk_evictions, counts.on_disk, counts.swapped, counts.zero_evictions), (65, 65, 1, 0));
        assert_eq!(memory.hash(), hash, "looking reads the disk");
        let mut vcpu = memory.vcpu(Arc::default());
        for page in 0..64 {
            let expected: [u8; 4096] = disk.read(512 + (page << 12), 4096).try_into().unwrap();
            let word = u64::from_le_bytes(expected[8..16].try_into().unwrap());
            let got = read(&mut vcpu, page << 12 | 8);
            assert!(if page == 0 { got != Ok(word) } else { got == Ok(word) }, "page {page}");
        }
        let counts = memory.counters().reclaim;
        assert_eq!((counts.disk_reads, counts.on_disk, counts.swap_ins), (63, 2, 1));
        assert_eq!(memory.hash(), hash);
        // Once more: one is written by the guest meanwhile, and is the disk's no longer.
        write(&mut vcpu, 7 << 12, &[1]).unwrap();
        let hash = memory.hash();
        memory.evict(2048);
        let counts = memory.counters().reclaim;
        assert_eq!((counts.on_disk, counts.swapped), (64, 2));
        assert_eq!(memory.hash(), hash);
        vcpu.drain();
        assert!(memory.audit().is_clean() && vcpu.audit().is_clean());
    }
}

/// Who writes to a disk first has the pages go that are there; while a write is under way its blocks are not relied on.
#[test]
fn pages_leave_a_block_before_it_is_written() {
    let memory = guest(1024, 1024, Freed::Poisoned);
    let disk = Disk::new(&memory, 16);
    load(&memory, &disk, 0, 0, 1 << 16);
    memory.evict(1024);
    assert_eq!(memory.counters().reclaim.on_disk, 16);
    // The last sector of the third page, and the first two of the fourth.
    disk.write((3 << 12) - 512, &[9; 1536]);
    let counts = memory.counters().reclaim;
    assert_eq!((counts.on_disk, counts.disk_moves, counts.swapped), (14, 2, 2));
    (0..16).for_each(|page| assert_eq!(page_of(&memory, page), noise(page), "page {page}"));
    // A read that was done before a write, whose result comes to memory after the write has begun.
    let late = disk.read(8 << 12, 4096);
    memory.evict(1024);
    disk.copies.will_be_written(8 << 12, 4096);
    memory.write(GuestPhys(40 << 12), &late);
    memory.evict(1024);
    disk.image.0.bytes.lock().unwrap()[8 << 12..9 << 12].fill(7);
    disk.copies.was_not_written();
    assert_eq!(page_of(&memory, 40), noise(8));
    assert_eq!(page_of(&memory, 8), noise(8));
    assert!(memory.failure().is_none());
}

#[test]
fn a_disk_that_changes_from_outside_or_breaks_stops_the_machine() {
    for changes in [true, false] {
        let memory = guest(1024, 1024, Freed::Poisoned);
        let disk = Disk::new(&memory, 16);
        load(&memory, &disk, 0, 0, 1 << 16);
        memory.evict(1024);
        if changes {
            disk.image.0.bytes.lock().unwrap()[5000] ^= 1;
        } else {
            disk.image.0.broken.store(true, Ordering::Relaxed);
        }
        let mut vcpu = memory.vcpu(Arc::default());
        let _ = read(&mut vcpu, 1 << 12);
        let failure = memory.failure().unwrap();
        let named = matches!(failure, SwapError::DiskChanged { at: 4096, .. } if changes)
            || matches!(failure, SwapError::Disk { .. } if !changes);
        assert!(named && failure.to_string().starts_with("disk.img: "), "{failure}");
    }
}

/// A disk that the guest has no more is read as long as pages are there.
#[test]
fn a_disk_that_is_taken_out_stays_readable() {
    let memory = guest(1024, 1024, Freed::Poisoned);
    let disk = Disk::new(&memory, 4);
    load(&memory, &disk, 0, 0, 1 << 14);
    memory.evict(1024);
    let image = Arc::downgrade(&disk.image);
    drop(disk);
    let other = Disk::new(&memory, 4);
    assert!(image.upgrade().is_some());
    (0..4).for_each(|page| assert_eq!(page_of(&memory, page), noise(page)));
    memory.discard(GuestPhys(0), 4 << 12);
    assert!(image.upgrade().is_none(), "nobody needs it any more");
    drop(other);
}

/// Without a limit nobody is told of disks.
#[test]
fn memory_that_stays_knows_no_disks() {
    let memory = GuestMemory::new(Pool::new(64 << 12).unwrap(), FrameOrder::Identity, 40);
    assert!(memory.add_disk(Arc::new(Image::default())).is_none());
}

/// Random reads, writes, stores, copies, discards, moves and evictions on two disks, beside a plain copy of everything.
#[test]
fn whatever_happens_pages_and_disks_hold_what_was_written() {
    const PAGES: u64 = 96;
    const BLOCKS: u64 = 24;
    for seed in 0..8_u64 {
        let memory = guest(PAGES, 40, if seed % 2 == 0 { Freed::Poisoned } else { Freed::Returned });
        let disks = [Disk::new(&memory, BLOCKS), Disk::new(&memory, BLOCKS)];
        let mut ram = vec![0; (PAGES as usize) << 12];
        let mut state = seed;
        let mut lot = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for step in 0..4000 {
            let disk = &disks[lot(2) as usize];
            let (page, pages) = (lot(PAGES - 4), 1 + lot(4));
            let sector = lot((BLOCKS - 4) * 8);
            let bytes = (pages << 12) as usize;
            let (at, here) = (sector * 512, (page << 12) as usize);
            match lot(12) {
                0..4 => {
                    let data = disk.read(at, bytes);
                    ram[here..here + bytes].copy_from_slice(&data);
                    memory.dma().write(GuestPhys(page << 12), &data);
                }
                4 => {
                    let mut data = vec![0; bytes];
                    memory.dma().read(GuestPhys(page << 12), &mut data);
                    assert!(data == ram[here..here + bytes], "seed {seed}, step {step}");
                    disk.write(at, &data);
                }
                5 => {
                    let data = noise(lot(50));
                    disk.write(at, &data[..512 * (1 + lot(8) as usize)]);
                }
                6 => {
                    let offset = here + lot(4096) as usize;
                    ram[offset] = step as u8;
                    memory.write(GuestPhys(offset as u64), &[step as u8]);
                }
                7 => {
                    memory.discard(GuestPhys(page << 12), 4096);
                    ram[here..here + 4096].fill(0);
                }
                8 => _ = memory.compact(8),
                9 => {
                    let data = page_of(&memory, page);
                    assert!(data == ram[here..here + 4096], "seed {seed}, step {step}");
                }
                _ => _ = memory.evict(1 + lot(12)),
            }
        }
        let mut all = vec![0; ram.len()];
        memory.read(GuestPhys(0), &mut all);
        assert!(all == ram, "seed {seed}");
        let counts = memory.counters().reclaim;
        assert!(counts.disk_evictions > 100 && counts.disk_reads > 50 && counts.disk_moves > 10, "{counts:?}");
        assert!(memory.audit().is_clean() && memory.failure().is_none());
    }
}
