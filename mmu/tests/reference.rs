//! S11: random accesses against an independent page walk that caches nothing (`support`): the same fault with the same error
//! code or the same bytes, the class that the classifier must count, and A and D bits exact at each access.
//!
//! `UMBRA_REFERENCE_ACCESSES=10000000 cargo test --release -p umbra-mmu --test reference` is the promise's full length.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/machine.rs"]
mod machine;
#[path = "support/store.rs"]
mod store;
mod support;

use machine::{Machine, Seen};
use std::sync::Arc;
use umbra_mmu::reclaim::Freed;
use umbra_mmu::reclaim::policy::Policy;
use umbra_mmu::*;

/// Accesses that one machine makes.
const LIFE: u64 = 20_000;

/// Random accesses on many machines; gives what they met.
fn accesses(machine: impl Fn(FrameOrder, u64) -> Machine) -> Seen {
    let wanted = std::env::var("UMBRA_REFERENCE_ACCESSES").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000u64);
    let mut total = Seen::default();
    // Random tables grow wilder with time until little translates: many short lives.
    for number in 0..wanted / LIFE {
        let order = if number % 2 == 0 { FrameOrder::Identity } else { FrameOrder::Permuted { seed: number } };
        let mut machine = machine(order, 0xacce_55ed + number * 15_485_863);
        while machine.seen.accesses < LIFE {
            machine.step += 1;
            (0..8).for_each(|_| machine.access());
            machine.mixed_step();
            if machine.step.is_multiple_of(64) {
                machine.compare();
            }
        }
        machine.compare();
        machine.check_counters();
        total.accesses += machine.seen.accesses;
        total.hits += machine.seen.hits;
        total.classes.iter_mut().zip(machine.seen.classes).for_each(|(sum, count)| *sum += count);
    }
    println!("{} accesses, {} by the TLB", total.accesses, total.hits);
    assert!(total.hits > total.accesses / 10, "too few TLB hits to prove anything: {total:?}");
    total
}

#[test]
fn random_accesses_equal_the_reference() {
    let total = accesses(Machine::new);
    for class in FaultClass::ALL {
        println!("{class:?}: {}", total.classes[class as usize]);
        // Frames do not leave memory here, and are not shared.
        let absent = matches!(class, FaultClass::FrameOut | FaultClass::CopyOnWrite);
        assert_eq!(total.classes[class as usize] == 0, absent, "{class:?}");
    }
}

/// The same where half of RAM is elsewhere, each time another half.
#[test]
fn random_accesses_equal_the_reference_under_the_paged_policy() {
    let total = accesses(|order, seed| Machine::paged(order, seed, Policy::ALL[(seed % 2) as usize]));
    for class in FaultClass::ALL {
        println!("{class:?}: {}", total.classes[class as usize]);
        assert_eq!(total.classes[class as usize] == 0, class == FaultClass::CopyOnWrite, "{class:?}");
    }
}

/// The same where equal pages become one frame, of many machines one after the other in one group, and part when they are written.
#[test]
fn random_accesses_equal_the_reference_while_pages_are_shared() {
    let group = Sharing::with(512 << 12, Freed::Poisoned).unwrap();
    let total = accesses(|order, seed| Machine::sharing(order, seed, Arc::clone(&group)));
    for class in FaultClass::ALL {
        println!("{class:?}: {}", total.classes[class as usize]);
        assert_ne!(total.classes[class as usize], 0, "{class:?}");
    }
    let counts = group.counts();
    println!("{counts:?}");
    assert_eq!((counts.frames, counts.pages), (0, 0), "every reference has come back");
}
