//! S3 and S7: whoever writes a live guest entry, and however, the next access goes where the entry says.
//!
//! One case per writer × bytes of the entry touched × level × paging mode.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/store.rs"]
mod store;
#[path = "support/tables.rs"]
mod tables;

use std::sync::Arc;
use tables::*;
use umbra_mmu::*;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Writer {
    Cpu,
    CpuLocked,
    OtherCpuPagingOff,
    Loader,
    Dma,
}

const WRITERS: [Writer; 5] = [Writer::Cpu, Writer::CpuLocked, Writer::OtherCpuPagingOff, Writer::Loader, Writer::Dma];

/// Where the write begins relative to the entry, and how long it is. All cover byte 1, where the chains differ.
const SPANS: [(i64, usize); 12] =
    [(1, 1), (0, 2), (1, 2), (0, 4), (1, 4), (-2, 4), (0, 8), (-3, 8), (0, 16), (-8, 16), (-9, 13), (-16, 64)];

fn patch(guest: &mut Guest, writer: Writer, at: u64, bytes: &[u8]) {
    let linear = alias(guest.kind, at >> 12) + (at & 0xfff);
    match writer {
        Writer::Cpu => {
            write(&mut guest.vcpu, linear, bytes).unwrap();
        }
        Writer::CpuLocked => {
            let place = guest.vcpu.resolve(Linear(linear), Access::Write, View::Supervisor).unwrap();
            let mut value = [0; 16];
            value[..bytes.len()].copy_from_slice(bytes);
            guest.vcpu.rmw_place(&place, bytes.len(), &mut |_| u128::from_le_bytes(value));
        }
        Writer::OtherCpuPagingOff => {
            let mut other = guest.memory.vcpu(Arc::default());
            write(&mut other, at, bytes).unwrap();
            guest.vcpu.drain();
        }
        Writer::Loader => {
            guest.memory.write(GuestPhys(at), bytes);
            guest.vcpu.drain();
        }
        Writer::Dma => {
            guest.memory.dma().write(GuestPhys(at), bytes);
            guest.vcpu.drain();
        }
    }
}

#[test]
fn every_writer_level_and_mode() {
    for kind in KINDS {
        // A PDPTE is not a table entry: its store has no effect until the registers are loaded.
        for level in 1..=levels(kind).min(if kind == Kind::Pae { 2 } else { 4 }) {
            for writer in WRITERS {
                for (from, length) in SPANS {
                    if writer == Writer::CpuLocked && ![1, 2, 4, 8, 16].contains(&length) {
                        continue;
                    }
                    let what = format!("{kind:?} level {level} {writer:?} {from} {length}");
                    let mut guest = Guest::new(kind);
                    let at = guest.entry_at(level);
                    let start = at.wrapping_add_signed(from);
                    if start >> 12 != at >> 12 || start + length as u64 > (at | 0xfff) + 1 {
                        continue;
                    }
                    // All tables live, the entry's own page mapped by the CPU (read only: it is watched).
                    assert_eq!(guest.read(LINEAR), Ok(u64::from_le_bytes(*b"AAAAAAAA")), "{what}");
                    guest.read(alias(kind, at >> 12)).unwrap();
                    assert!(guest.vcpu.write_run(alias(kind, at >> 12)).is_none(), "{what}: string stores see it");
                    let mut window = [0; 128];
                    guest.memory.read(GuestPhys(at - 64), &mut window);
                    let new = guest.phys(at) & !0xf000 | ((CHAINS[1] + level - 1) & 0xf) << 12;
                    window[64..64 + width(kind) as usize].copy_from_slice(&new.to_le_bytes()[..width(kind) as usize]);
                    let first = (64 + from) as usize;
                    patch(&mut guest, writer, start, &window[first..first + length]);
                    assert_eq!(guest.read(LINEAR), Ok(u64::from_le_bytes(*b"BBBBBBBB")), "{what}");
                    guest.audit(&what);
                }
            }
        }
    }
}

#[test]
fn two_halves_of_a_wide_entry() {
    for kind in [Kind::Pae, Kind::Long] {
        let mut guest = Guest::new(kind);
        guest.read(LINEAR).unwrap();
        let at = guest.entry_at(1);
        // As a 32-bit kernel does it: the low half away first, then the high half, then the low half back.
        patch(&mut guest, Writer::Cpu, at, &0u32.to_le_bytes());
        assert_eq!(guest.read(LINEAR).unwrap_err().error_code, 0);
        patch(&mut guest, Writer::Cpu, at + 4, &0u32.to_le_bytes());
        assert_eq!(guest.read(LINEAR).unwrap_err().error_code, 0);
        patch(&mut guest, Writer::Cpu, at, &((CHAINS[1] as u32) << 12 | 0x67).to_le_bytes());
        assert_eq!(guest.read(LINEAR), Ok(u64::from_le_bytes(*b"BBBBBBBB")));
        guest.audit("halves");
    }
}

/// A locked access that runs from the last entry of one table into the first of another, both live.
#[test]
fn a_locked_access_across_two_tables() {
    for kind in KINDS {
        let mut guest = Guest::new(kind);
        let (low, high) = (0x40, 0x41);
        let last = (entries(kind) - 1) * width(kind);
        // Tables of their own for two linear addresses: the last entry of the one, the first of the other.
        let slot = index(kind, 2) + 8;
        let bits = if kind == Kind::TwoLevel { 22 } else { 21 };
        let base = ((LINEAR >> bits) + 8) << bits;
        let linears = [base + ((entries(kind) - 1) << 12), base + (entries(kind) << 12)];
        for (n, table) in [low, high].into_iter().enumerate() {
            poke(&guest.memory, kind, CHAINS[0] + 2, slot + n as u64, table << 12 | 0x67);
        }
        poke(&guest.memory, kind, low, entries(kind) - 1, CHAINS[0] << 12 | 0x67);
        poke(&guest.memory, kind, high, 0, CHAINS[0] << 12 | 0x67);
        for linear in linears {
            assert_eq!(guest.read(linear), Ok(u64::from_le_bytes(*b"AAAAAAAA")), "{kind:?}");
        }
        // From byte 1 of the one entry to byte 1 of the other, where the chains differ.
        let length = width(kind) as usize + 1;
        let places = [(low << 12) + last + 1, high << 12].map(|at| {
            guest.vcpu.resolve(Linear(alias(kind, at >> 12) + (at & 0xfff)), Access::Write, View::Supervisor).unwrap()
        });
        let difference = u128::from((CHAINS[0] ^ CHAINS[1]) << 12) >> 8;
        let second = difference << (8 * width(kind));
        guest.vcpu.rmw_places([&places[0], &places[1]], length, &mut |old| old ^ (difference & 0xff) ^ second);
        for linear in linears {
            assert_eq!(guest.read(linear), Ok(u64::from_le_bytes(*b"BBBBBBBB")), "{kind:?}");
        }
        guest.audit("across two tables");
    }
}

/// The walker writes too: where a table maps itself, the accessed and dirty bits that an access sets are in entries that are
/// live at another level.
#[test]
fn the_walk_itself_writes_a_live_table() {
    for kind in [Kind::TwoLevel, Kind::Long] {
        let mut guest = Guest::new(kind);
        let (top, slot) = (CHAINS[0] + levels(kind), 3);
        poke(&guest.memory, kind, top, slot, top << 12 | 7);
        let own = (top << 12) + slot * width(kind);
        let bits = if kind == Kind::TwoLevel { 10 } else { 9 };
        let itself = (1..=levels(kind)).map(|level| slot << (12 + bits * (level - 1))).sum::<u64>();
        assert_eq!(guest.read(LINEAR), Ok(u64::from_le_bytes(*b"AAAAAAAA")));
        guest.read(itself).unwrap();
        assert_eq!(guest.phys(own) & 0xfff, 0x27, "{kind:?}: accessed, as a table and as a page");
        // A write through the entry, to the entry's own table: dirty as a page; another entry of it leads to B from now on.
        let at = guest.entry_at(levels(kind));
        let entry = (CHAINS[1] + levels(kind) - 1) << 12 | 0x67;
        write(&mut guest.vcpu, itself + (at & 0xfff), &entry.to_le_bytes()[..width(kind) as usize]).unwrap();
        assert_eq!(guest.phys(own) & 0xfff, 0x67, "{kind:?}: dirty");
        assert_eq!(guest.read(LINEAR), Ok(u64::from_le_bytes(*b"BBBBBBBB")), "{kind:?}");
        guest.audit("a table that maps itself");
        // Not dirty again: the next write has to set it again.
        write(&mut guest.vcpu, itself + (own & 0xfff), &((top << 12 | 7) as u32).to_le_bytes()).unwrap();
        guest.audit("bits cleared through itself");
        write(&mut guest.vcpu, itself + 0x800, b"dirt").unwrap();
        assert_eq!(guest.phys(own) & 0xfff, 0x67, "{kind:?}: dirty again");
    }
}

#[test]
fn pdpte_stores_wait_for_the_load() {
    let mut guest = Guest::new(Kind::Pae);
    guest.read(LINEAR).unwrap();
    let at = guest.entry_at(3);
    patch(&mut guest, Writer::Cpu, at, &((CHAINS[1] + 2) << 12 | 1).to_le_bytes());
    assert_eq!(guest.read(LINEAR), Ok(u64::from_le_bytes(*b"AAAAAAAA")), "the registers still say A");
    let mut new = regs(Kind::Pae, &guest.memory, CHAINS[0]);
    new.pdptes = guest.vcpu.load_pdptes(new.cr3);
    guest.vcpu.set_paging(&new);
    assert_eq!(guest.read(LINEAR), Ok(u64::from_le_bytes(*b"BBBBBBBB")));
    guest.audit("registers");
}

#[test]
fn a_clear_of_accessed_and_dirty_is_seen() {
    for kind in KINDS {
        for level in 1..=levels(kind).min(if kind == Kind::Pae { 2 } else { 4 }) {
            let mut guest = Guest::new(kind);
            write(&mut guest.vcpu, LINEAR, b"CCCCCCCC").unwrap();
            let at = guest.entry_at(level);
            let bare = guest.phys(at) & !0x60;
            patch(&mut guest, Writer::Cpu, at, &(bare as u32).to_le_bytes());
            guest.read(LINEAR).unwrap();
            assert_eq!(guest.phys(at), bare | 0x20, "{kind:?} level {level}: A after a read");
            write(&mut guest.vcpu, LINEAR, b"DDDDDDDD").unwrap();
            let dirty = if level == 1 { 0x60 } else { 0x20 };
            assert_eq!(guest.phys(at), bare | dirty, "{kind:?} level {level}: D after a write");
            guest.audit("A and D");
        }
    }
}

#[test]
fn a_page_that_is_no_table_any_more_becomes_fast_again() {
    let mut guest = Guest::new(Kind::Long);
    guest.read(LINEAR).unwrap();
    let table = CHAINS[0] + 1;
    let linear = alias(Kind::Long, table);
    // Out of the tree: level 2 leads elsewhere; then it is used as data.
    let at = guest.entry_at(2);
    patch(&mut guest, Writer::Cpu, at, &((CHAINS[1] + 1) << 12 | 0x67).to_le_bytes());
    let mut slow = 0;
    for i in 0..512u64 {
        if !guest.vcpu.store(linear + i * 8, i) {
            slow += 1;
            write(&mut guest.vcpu, linear + i * 8, &i.to_le_bytes()).unwrap();
        }
    }
    assert!(slow < 300, "{slow} slow stores");
    assert_eq!(guest.read(LINEAR), Ok(u64::from_le_bytes(*b"BBBBBBBB")));
    assert_eq!(guest.memory.counters().monitor.floods, 1);
    guest.audit("flood");
}
