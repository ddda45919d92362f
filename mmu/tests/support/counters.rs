//! Three vCPUs on threads that count up in shared memory while somebody else moves it about or takes it away.
#![allow(dead_code, reason = "each test binary uses its part")]

use super::tables::{read, write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use umbra_mmu::*;

/// Boundary of a block: what a running vCPU does all the time.
pub fn boundary(vcpu: &mut VcpuMmu, attention: &Attention) {
    if attention.get() != 0 {
        vcpu.drain();
        vcpu.take_code_writes();
    }
}

/// Each of three vCPUs adds 1 so many times, locked, in words of the first 256 pages, and writes words of its own in the next 192,
/// of which each is read back `later` rounds after (fewer than 64). Meanwhile `disturb` is called again and again, with the number of
/// the call. No addition is lost. Needs 448 pages of RAM.
pub fn locked_counters(memory: &GuestMemory, rounds: u64, later: u64, disturb: impl Fn(u64) + Sync) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3u64)
            .map(|number| {
                scope.spawn(move || {
                    let attention = Arc::new(Attention::default());
                    let mut vcpu = memory.vcpu(Arc::clone(&attention));
                    vcpu.unpark();
                    for i in 0..rounds {
                        boundary(&mut vcpu, &attention);
                        let linear = (i * 37 % 256) << 12 | 8;
                        if let Some(slot) = vcpu.write_slot::<u64>(linear) {
                            slot.fetch_update(|old| old + 1);
                        } else {
                            let place = vcpu.resolve(Linear(linear), Access::Write, View::Supervisor).unwrap();
                            vcpu.rmw_place(&place, 8, &mut |old| old + 1);
                        }
                        // A private word: nobody else writes it, so that it must read back.
                        let mine = |i: u64| (256 + number * 64 + i % 64) << 12;
                        write(&mut vcpu, mine(i), &i.to_le_bytes()).unwrap();
                        if i >= later {
                            assert_eq!(read(&mut vcpu, mine(i - later)), Ok(i - later));
                        }
                        if i % 512 == 0 {
                            vcpu.park();
                            std::thread::yield_now();
                            vcpu.unpark();
                        }
                    }
                    vcpu.park();
                })
            })
            .collect();
        scope.spawn(|| {
            for call in 0.. {
                disturb(call);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::yield_now();
            }
        });
        let failed = workers.into_iter().any(|worker| worker.join().is_err());
        stop.store(true, Ordering::Relaxed);
        assert!(!failed);
    });
    let word = |page: u64| {
        let mut bytes = [0; 8];
        memory.read(GuestPhys(page << 12 | 8), &mut bytes);
        u64::from_le_bytes(bytes)
    };
    assert_eq!((0..256).map(word).sum::<u64>(), 3 * rounds);
}
