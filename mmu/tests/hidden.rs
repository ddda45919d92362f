//! S10: the guest cannot tell. Every linear page is its own to map, and nothing but the bits that a processor sets ever
//! appears in its memory.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/store.rs"]
mod store;
#[path = "support/tables.rs"]
mod tables;

use std::sync::Arc;
use tables::{read, write};
use umbra_mmu::*;

fn put(memory: &GuestMemory, at: u64, entry: u64, width: usize) {
    memory.write(GuestPhys(at), &entry.to_le_bytes()[..width]);
}

/// 4 MiB of RAM in scattered frames, each page with its number in its last bytes; tables lie in the first pages.
fn machine() -> (GuestMemory, VcpuMmu) {
    let memory = GuestMemory::new(Pool::new(5 << 20).unwrap(), FrameOrder::Permuted { seed: 11 }, 40);
    store::keep_as_asked(&memory);
    memory.map_ram(GuestPhys(0), 4 << 20).unwrap();
    (0..1024u64).for_each(|page| memory.write(GuestPhys(page << 12 | 0xff0), &page.to_le_bytes()));
    let vcpu = memory.vcpu(Arc::default());
    (memory, vcpu)
}

/// What lies there in a page of an image: its number, or an entry of a table.
fn mark(image: &[u8], page: u64) -> u64 {
    let at = (page << 12 | 0xff0) as usize;
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
}

/// All of RAM, to be compared bit for bit.
fn image(memory: &GuestMemory) -> Vec<u8> {
    let mut bytes = vec![0; 4 << 20];
    memory.read(GuestPhys(0), &mut bytes);
    bytes
}

/// All 1,048,576 linear pages of a 32-bit guest, by 4 MiB pages, by 2 MiB pages, by 4 KiB pages.
#[test]
fn every_linear_page_of_a_32_bit_guest() {
    for (name, cr4) in [("4 MiB", 0x10u64), ("2 MiB", 0x20), ("4 KiB", 0)] {
        let (memory, mut vcpu) = machine();
        let mut regs = PagingRegs { cr0: 0x8001_0001, cr3: 0x1000, cr4, ..PagingRegs::default() };
        match name {
            "4 MiB" => (0..1024).for_each(|slot| put(&memory, 0x1000 + 4 * slot, 0xe7, 4)),
            "2 MiB" => {
                (0..4).for_each(|slot| regs.pdptes[slot as usize] = 0x2001 + (slot << 12));
                (0..2048).for_each(|slot| put(&memory, 0x2000 + 8 * slot, (slot & 1) << 21 | 0xe7, 8));
            }
            _ => {
                (0..1024).for_each(|slot| put(&memory, 0x1000 + 4 * slot, 0x2067, 4));
                (0..1024).for_each(|slot| put(&memory, 0x2000 + 4 * slot, slot << 12 | 0x67, 4));
            }
        }
        let before = image(&memory);
        vcpu.set_paging(&regs);
        for page in 0..1 << 20 {
            assert_eq!(
                read(&mut vcpu, page << 12 | 0xff0),
                Ok(mark(&before, page & 1023)),
                "{name} pages: {:#x}",
                page << 12
            );
        }
        assert!(image(&memory) == before, "{name} pages: reads through marked entries change nothing");
        assert!(memory.audit().is_clean());
    }
}

/// Each of the 512 entries of the top table, at the ends and in the middle of what it maps; then the hole between the two
/// canonical halves is where the processor's manual has it (the cpu refuses it before it asks the mmu).
#[test]
fn every_part_of_a_64_bit_guest() {
    let (memory, mut vcpu) = machine();
    let [top, third, second, leaf] = [0x1000, 0x2000, 0x3000, 0x4000u64];
    for slot in 0..512 {
        put(&memory, top + 8 * slot, third | 0x67, 8);
        put(&memory, third + 8 * slot, second | 0x67, 8);
        put(&memory, second + 8 * slot, leaf | 0x67, 8);
        put(&memory, leaf + 8 * slot, slot << 12 | 0x67, 8);
    }
    let before = image(&memory);
    vcpu.set_paging(&PagingRegs { cr0: 0x8001_0001, cr3: top, cr4: 0x20, efer: 0x500, pdptes: [0; 4] });
    for slot in 0..512u64 {
        for inner in [0, 1, 0x1ff, 0x3_ffff, 0x400_0000, 0x7ff_ffff] {
            let linear = ((slot << 39 | inner << 12) << 16) as i64 >> 16;
            assert_eq!(read(&mut vcpu, linear as u64 | 0xff0), Ok(mark(&before, inner & 511)), "{linear:#x}");
        }
    }
    assert!(image(&memory) == before);
    assert!(memory.audit().is_clean());
}

/// Accesses of all kinds: of the guest's tables only accessed and dirty bits have changed, and of those only the ones on the
/// way; of the rest only what was stored.
#[test]
fn only_accessed_and_dirty_bits_appear() {
    for kind in tables::KINDS {
        let mut guest = tables::Guest::new(kind);
        let whole = |memory: &GuestMemory| {
            let mut bytes = vec![0; 256 << 12];
            memory.read(GuestPhys(0), &mut bytes);
            bytes
        };
        let entry = |level| guest.entry_at(level);
        let path: Vec<u64> = (1..=tables::levels(kind)).map(entry).collect();
        // A PAE root's entries are registers: the processor sets no bits there.
        let marked: Vec<u64> = path.into_iter().take(if kind == tables::Kind::Pae { 2 } else { 4 }).collect();
        for at in &marked {
            let bare = guest.phys(*at) & !0x60;
            guest.memory.write(GuestPhys(*at), &bare.to_le_bytes()[..tables::width(kind) as usize]);
        }
        let mut expected = whole(&guest.memory);
        guest.vcpu.drain();
        for round in 0..3u8 {
            guest.read(tables::LINEAR).unwrap();
            marked.iter().for_each(|at| expected[*at as usize] |= 0x20);
            assert!(whole(&guest.memory) == expected, "{kind:?}: a read, {round}");
            write(&mut guest.vcpu, tables::LINEAR + 0x123, &[round]).unwrap();
            expected[marked[0] as usize] |= 0x40;
            expected[(tables::CHAINS[0] << 12) as usize + 0x123] = round;
            assert!(whole(&guest.memory) == expected, "{kind:?}: a write, {round}");
            // Frames that move, and translated code in a table's page, leave nothing behind either.
            guest.memory.compact(256);
            guest.vcpu.track_code(PhysPage(tables::CHAINS[0] + 1), 0, 64);
            assert!(whole(&guest.memory) == expected, "{kind:?}: moved, {round}");
        }
        guest.audit("hidden");
    }
}
