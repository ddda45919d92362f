//! S6, S10: random table edits by every writer, mode changes, remaps and moves, with three vCPUs, against a model that
//! caches nothing.
//!
//! Again and again: guest RAM equal bit for bit, the audits clean. Each machine has a short life, since random tables grow
//! wilder until little translates; `UMBRA_ORACLE_STEPS` makes more of them. A million steps is what the promise asks for: `UMBRA_ORACLE_STEPS=1000000 cargo test --release -p umbra-mmu --test oracle`.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/machine.rs"]
mod machine;
#[path = "support/store.rs"]
mod store;
mod support;

use machine::Machine;
use umbra_mmu::reclaim::Freed;
use umbra_mmu::reclaim::policy::Policy;
use umbra_mmu::*;

fn steps(default: u64) -> u64 {
    std::env::var("UMBRA_ORACLE_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(default)
}

/// The mixture of everything, on machines that live for 5,000 steps.
fn mixture(order: impl Fn(u64) -> FrameOrder, seed: u64) {
    for number in 0..steps(50_000) / 5_000 {
        let mut machine = Machine::new(order(number), seed + number * 7919);
        for step in 0..5_000 {
            machine.step = step;
            machine.mixed_step();
            if step % 64 == 0 {
                machine.compare();
            }
        }
        machine.compare();
        machine.check_counters();
    }
}

#[test]
fn identity_frames() {
    mixture(|_| FrameOrder::Identity, 0x1234_5678);
}

#[test]
fn permuted_frames() {
    mixture(|seed| FrameOrder::Permuted { seed }, 0x8765_4321);
}

/// After *each* table edit, INVLPG and mode change, on any of three vCPUs: every monitor entry is what the guest's tables
/// say, every TLB entry is what the monitor says. A few accesses between the steps keep the tables full.
#[test]
fn the_oracle_holds_after_each_step() {
    let (mut entries, mut counts) = (0, [0u64; 3]);
    for number in 0..steps(20_000) / 2_000 {
        let mut machine = Machine::new(FrameOrder::Permuted { seed: number }, 0x0dd_ba11 + number * 104_729);
        for step in 0..2_000 {
            machine.step = step;
            (0..machine.rng.below(4)).for_each(|_| machine.access());
            if machine.rng.one_in(4) {
                machine.take_turns();
            }
            let what = [0, 0, 0, 1, 2, 2][machine.rng.below(6) as usize];
            counts[what] += 1;
            match what {
                0 => machine.outside_write(),
                1 => {
                    let linear = machine.linear();
                    machine.vcpu.invlpg(Linear(linear));
                }
                _ => machine.change_control(),
            }
            entries += machine.audit();
        }
        machine.compare();
        machine.check_counters();
    }
    let steps: u64 = counts.iter().sum();
    println!("{counts:?} table edits, INVLPGs and changes of mode; {} entries compared after each", entries / steps);
    assert!(entries / steps > 20, "so few entries prove nothing: {entries} in {steps} steps");
}

#[test]
fn hash_is_the_same_whatever_the_frames() {
    let hash = |order| {
        let mut machine = Machine::new(order, 99);
        (0..3_000).for_each(|step| {
            machine.step = step;
            machine.mixed_step();
        });
        machine.compare();
        machine.memory.hash()
    };
    assert_eq!(hash(FrameOrder::Identity), hash(FrameOrder::Permuted { seed: 4 }));
}

/// The mixture where half of RAM is in host memory at a time, and frames that have left are poisoned.
#[test]
fn paged_frames() {
    for number in 0..steps(50_000) / 5_000 {
        let order = if number % 2 == 0 { FrameOrder::Identity } else { FrameOrder::Permuted { seed: number } };
        let policy = Policy::ALL[number as usize / 2 % 2];
        let mut machine = Machine::paged(order, 0x9a6e_d000 + number * 7919, policy);
        for step in 0..5_000 {
            machine.step = step;
            machine.mixed_step();
            if step % 64 == 0 {
                machine.compare();
            }
        }
        machine.compare();
        machine.check_counters();
        let reclaim = machine.memory.counters().reclaim;
        assert!(reclaim.swap_ins > 1_000 && reclaim.most_resident <= reclaim.limit, "{reclaim:?}");
        assert!(machine.memory.failure().is_none());
    }
}

/// The mixture where equal pages become one frame and part again, of two machines in one group.
#[test]
fn shared_frames() {
    for number in 0..steps(50_000) / 10_000 {
        let order = if number % 2 == 0 { FrameOrder::Identity } else { FrameOrder::Permuted { seed: number } };
        let group = Sharing::with(1024 << 12, Freed::Poisoned).unwrap();
        let mut machines = [0, 1].map(|twin| Machine::sharing(order, 0x5a_4e00 + number * 7919 + twin, group.clone()));
        for step in 0..5_000 {
            for machine in &mut machines {
                machine.step = step;
                machine.mixed_step();
                if step % 64 == 0 {
                    machine.compare();
                }
            }
        }
        for machine in &mut machines {
            machine.compare();
            machine.check_counters();
            let reclaim = machine.memory.counters().reclaim;
            assert!(reclaim.joins > 40 && reclaim.breaks > 10, "{reclaim:?}");
        }
        drop(machines);
        assert_eq!(group.counts().pages, 0);
    }
}
