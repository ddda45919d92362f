//! S20: the replacement policies on recorded traces, beside the optimum (Belady 1966: the page goes whose next use is farthest) and
//! a choice by lot.
//!
//! The traces (`traces/`) are Debian's cloud kernel from early in its boot to power-off, all of guestbench, and a program that
//! fills 100 MiB and then works on 30 of them; `frontend/machine/examples/record_pages.rs` records such. Each is a list of slices
//! of a million instructions (bench: ten), with the pages that were used in each.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeSet, HashMap};
use umbra_mmu::reclaim::policy::Policy;

const TRACES: [(&str, &[u8]); 3] = [
    ("boot", include_bytes!("traces/boot.trace")),
    ("bench", include_bytes!("traces/bench.trace")),
    ("work", include_bytes!("traces/work.trace")),
];

/// A trace as one string of pages, renamed to 0, 1, 2 …; within a slice in no order that would mean something.
fn references(packed: &[u8]) -> (Vec<u32>, usize) {
    let bytes = lz4_flex::decompress_size_prepended(packed).unwrap();
    let mut bytes = bytes.into_iter();
    let mut number = || -> Option<u64> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes.next()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
        }
    };
    let (mut names, mut string) = (HashMap::new(), Vec::new());
    while let Some(count) = number() {
        let mut page = 0;
        let mut slice: Vec<u64> = Vec::new();
        for _ in 0..count {
            page += number().unwrap();
            slice.push(page);
        }
        slice.sort_by_key(|page| (page + string.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20);
        for page in slice {
            let next = names.len() as u32;
            string.push(*names.entry(page).or_insert(next));
        }
    }
    (string, names.len())
}

/// Faults beyond the first touches, which nobody can avoid.
fn faults_of(policy: Policy, string: &[u32], pages: usize, room: usize) -> u64 {
    let mut replacement = policy.make();
    let (mut is_in, mut used, mut ever) = (vec![false; pages], vec![false; pages], vec![false; pages]);
    let (mut count, mut faults) = (0, 0);
    for &page in string {
        let number = page as usize;
        used[number] = true;
        if is_in[number] {
            continue;
        }
        faults += u64::from(std::mem::replace(&mut ever[number], true));
        if count == room {
            let victim = replacement.victim(&mut |page| std::mem::take(&mut used[page as usize])).unwrap();
            assert!(std::mem::take(&mut is_in[victim as usize]), "{victim} is not in");
            used[victim as usize] = false;
            count -= 1;
        }
        is_in[number] = true;
        used[number] = true;
        count += 1;
        replacement.came(page);
    }
    faults
}

fn faults_of_the_optimum(string: &[u32], pages: usize, room: usize) -> u64 {
    let never = string.len();
    let mut next_use = vec![never; string.len()];
    let mut later = vec![never; pages];
    for (at, &page) in string.iter().enumerate().rev() {
        next_use[at] = std::mem::replace(&mut later[page as usize], at);
    }
    let (mut by_next, mut next_of, mut ever) = (BTreeSet::new(), vec![None; pages], vec![false; pages]);
    let mut faults = 0;
    for (at, &page) in string.iter().enumerate() {
        match next_of[page as usize].take() {
            Some(next) => assert!(by_next.remove(&(next, page))),
            None => {
                faults += u64::from(std::mem::replace(&mut ever[page as usize], true));
                if by_next.len() == room {
                    let (_, victim) = by_next.pop_last().unwrap();
                    next_of[victim as usize] = None;
                }
            }
        }
        by_next.insert((next_use[at], page));
        next_of[page as usize] = Some(next_use[at]);
    }
    faults
}

fn faults_by_lot(string: &[u32], pages: usize, room: usize) -> u64 {
    let (mut there, mut place, mut ever) = (Vec::new(), vec![usize::MAX; pages], vec![false; pages]);
    let (mut state, mut faults) = (1u64, 0);
    for &page in string {
        if place[page as usize] != usize::MAX {
            continue;
        }
        faults += u64::from(std::mem::replace(&mut ever[page as usize], true));
        if there.len() == room {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let victim: u32 = there.swap_remove((state >> 33) as usize % room);
            if let Some(moved) = there.get(place[victim as usize]) {
                place[*moved as usize] = place[victim as usize];
            }
            place[victim as usize] = usize::MAX;
        }
        place[page as usize] = there.len();
        there.push(page);
    }
    faults
}

/// Exact recency, which nobody could afford: each access would have to be seen.
fn faults_of_exact_recency(string: &[u32], pages: usize, room: usize) -> u64 {
    let (mut by_last, mut last, mut ever) = (BTreeSet::new(), vec![usize::MAX; pages], vec![false; pages]);
    let mut faults = 0;
    for (at, &page) in string.iter().enumerate() {
        let before = std::mem::replace(&mut last[page as usize], at);
        if !by_last.remove(&(before, page)) {
            faults += u64::from(std::mem::replace(&mut ever[page as usize], true));
            if by_last.len() == room {
                by_last.pop_first();
            }
        }
        by_last.insert((at, page));
    }
    faults
}

/// With little room and much: no policy beats the optimum (or the test is wrong); each makes less than three times its faults, is
/// near exact recency, and beats the lot by far.
#[test]
fn least_recently_used_on_recorded_traces() {
    println!(
        "{:<6} {:>6} {:>6} {:>9} {:>9} {:>9} {:>9}",
        "trace", "pages", "room", "optimum", "segmented", "clock", "by lot"
    );
    let mut sums = [0u64; 5];
    for (name, packed) in TRACES {
        let (string, pages) = references(packed);
        for percent in [30, 50, 70] {
            let room = pages * percent / 100;
            let optimum = faults_of_the_optimum(&string, pages, room);
            let lot = faults_by_lot(&string, pages, room);
            let [segmented, clock] =
                [Policy::Segmented, Policy::Clock].map(|policy| faults_of(policy, &string, pages, room));
            let exact = faults_of_exact_recency(&string, pages, room);
            println!("{name:<6} {pages:>6} {room:>6} {optimum:>9} {segmented:>9} {clock:>9} {exact:>9} {lot:>9}");
            assert!(optimum <= segmented.min(clock).min(lot), "nobody beats the optimum");
            for (sum, count) in sums.iter_mut().zip([optimum, segmented, clock, exact, lot]) {
                *sum += count;
            }
        }
    }
    let [optimum, segmented, clock, exact, lot] = sums;
    println!("all: {optimum} {segmented} {clock} {exact} {lot}");
    for faults in [segmented, clock] {
        assert!(faults < 3 * optimum && 4 * faults < 5 * exact && 4 * faults < 3 * lot, "{faults} faults");
    }
}
