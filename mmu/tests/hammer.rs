//! Several vCPUs on threads of their own: I4, S7, the waiting protocol, locked updates, a compaction storm beneath them.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/counters.rs"]
mod counters;
#[path = "support/store.rs"]
mod store;
#[path = "support/tables.rs"]
mod tables;

use counters::{boundary, locked_counters};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tables::*;
use umbra_mmu::*;

fn scale() -> u64 {
    std::env::var("UMBRA_HAMMER").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

#[test]
fn locked_counters_under_compaction() {
    let memory = GuestMemory::new(Pool::new(600 << 12).unwrap(), FrameOrder::Identity, 40);
    store::keep_as_asked(&memory);
    memory.map_ram(GuestPhys(0), 512 << 12).unwrap();
    locked_counters(&memory, 8_000 * scale(), 0, |_| {
        memory.compact(64);
    });
    assert!(memory.counters().monitor.moves > 0);
    assert!(memory.audit().is_clean());
}

/// One vCPU switches a mapping between two pages and tells the others through memory; what they read afterwards, after
/// their own INVLPG (as a shootdown IPI would make them), must be the new page.
#[test]
fn shootdown_by_guest_protocol() {
    for kind in KINDS {
        let guest = Guest::new(kind);
        let at = guest.entry_at(1);
        let memory = guest.memory.clone();
        let (epoch, seen) = (AtomicU64::new(0), [AtomicU64::new(0), AtomicU64::new(0)]);
        let rounds = 150 * scale();
        std::thread::scope(|scope| {
            for mine in &seen {
                let (memory, epoch) = (memory.clone(), &epoch);
                scope.spawn(move || {
                    let attention = Arc::new(Attention::default());
                    let mut vcpu = memory.vcpu(Arc::clone(&attention));
                    vcpu.set_paging(&regs(kind, &memory, CHAINS[0]));
                    vcpu.unpark();
                    let mut last = 0;
                    while last < rounds {
                        boundary(&mut vcpu, &attention);
                        let now = epoch.load(Ordering::SeqCst);
                        if now != last {
                            vcpu.invlpg(Linear(LINEAR));
                            let expected = if now % 2 == 1 { *b"BBBBBBBB" } else { *b"AAAAAAAA" };
                            assert_eq!(read(&mut vcpu, LINEAR), Ok(u64::from_le_bytes(expected)));
                            last = now;
                            mine.store(now, Ordering::SeqCst);
                        } else {
                            let value = read(&mut vcpu, LINEAR).unwrap().to_le_bytes();
                            assert!(value == *b"AAAAAAAA" || value == *b"BBBBBBBB");
                            std::thread::yield_now();
                        }
                    }
                    vcpu.park();
                });
            }
            let attention = Arc::new(Attention::default());
            let mut vcpu = memory.vcpu(Arc::clone(&attention));
            vcpu.unpark();
            for round in 1..=rounds {
                boundary(&mut vcpu, &attention);
                let page = CHAINS[(round % 2) as usize];
                let entry = page << 12 | 0x27;
                write(&mut vcpu, at, &entry.to_le_bytes()[..width(kind) as usize]).unwrap();
                epoch.store(round, Ordering::SeqCst);
                while seen.iter().any(|seen| seen.load(Ordering::SeqCst) != round) {
                    boundary(&mut vcpu, &attention);
                    std::thread::yield_now();
                }
            }
        });
        let report = memory.audit();
        assert!(report.is_clean(), "{kind:?} {report:#?}");
    }
}

/// Table pages that come and go as data while others translate through them and write them.
#[test]
fn tables_written_by_all() {
    let guest = Guest::new(Kind::Long);
    let memory = guest.memory.clone();
    let rounds = 8_000 * scale();
    std::thread::scope(|scope| {
        for number in 0..3u64 {
            let memory = memory.clone();
            scope.spawn(move || {
                let attention = Arc::new(Attention::default());
                let mut vcpu = memory.vcpu(Arc::clone(&attention));
                vcpu.set_paging(&regs(Kind::Long, &memory, CHAINS[(number & 1) as usize]));
                vcpu.unpark();
                let mut state = number + 1;
                for i in 0..rounds {
                    boundary(&mut vcpu, &attention);
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let page = CHAINS[(state >> 33 & 1) as usize] + 1;
                    let slot = alias(Kind::Long, page) + (3 + (state >> 40) % 4) * 8;
                    let entry = CHAINS[(state >> 50 & 1) as usize] << 12 | 0x67;
                    let _ = write(&mut vcpu, slot, &entry.to_le_bytes());
                    if let Ok(value) = read(&mut vcpu, LINEAR + (((state >> 44) % 4) << 12)) {
                        assert!(value == u64::from_le_bytes(*b"AAAAAAAA") || value == u64::from_le_bytes(*b"BBBBBBBB"));
                    }
                    if i % 64 == number {
                        let chain = CHAINS[((i / 64) & 1) as usize];
                        vcpu.set_paging(&regs(Kind::Long, &memory, chain));
                    }
                }
                vcpu.park();
            });
        }
    });
    let report = memory.audit();
    assert!(report.is_clean(), "{report:#?}");
}
