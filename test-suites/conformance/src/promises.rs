//! The promises of the shadow MMU, S1 to S23, and which tests of a report keep each of them.
//!
//! A pattern stands for tests by their full names ("suite/case"), `*` for any run of characters; one that ends with "/*"
//! takes a whole suite by its counts. A promise without a test says so: it is not kept, whatever the rest of the report
//! looks like. Called by `html` and the app.

use crate::expected::glob;
use crate::report::{Counts, Report};

/// A promise.
#[derive(Copy, Clone, Debug)]
pub struct Promise {
    /// Its number.
    pub id: &'static str,
    /// What is promised, in a line.
    pub text: &'static str,
    /// The tests that show it.
    pub proofs: &'static [&'static str],
    /// What no test shows yet.
    pub open: &'static str,
}

#[rustfmt::skip]
macro_rules! promises {
    ($($id:literal $text:literal: [$($proof:literal),*] $open:literal;)*) => {
        /// All of them, in order.
        pub const PROMISES: &[Promise] = &[$(Promise { id: $id, text: $text, proofs: &[$($proof),*], open: $open }),*];
    };
}

#[rustfmt::skip]
promises! {
    "S1"  "no default relation between guest-physical pages and host frames; frames move":
        ["cargo/oracle/permuted_frames", "cargo/oracle/hash_is_the_same_whatever_the_frames", "cargo/hammer/locked_counters_under_compaction", "cargo/hammer/on_threads_in_a_storm"]
        "whole boots under permuted frames and a compaction storm, which are not tests (test-suites/guests/frames.sh)";
    "S2"  "pinned memory first": ["cargo/umbra_mmu/*pinned_or_told_why_not", "cargo/machines/pinned_memory_is_there_or_somebody_is_told"] "";
    "S3"  "every writer of a guest table is seen": ["cargo/writers/*", "cargo/system/tables::every_kind_of_store_into_a_live_table", "cargo/umbra_mmu/*every_writer_is_seen", "roms*/tables*", "tests*/tables*"] "";
    "S4"  "the engine never translates through guest tables": ["cargo/doc umbra_mmu/*compile fail"] "";
    "S5"  "a CR3 load is a pointer swap to a cached monitor root": ["cargo/classes/cr3_storm", "roms*/tables*", "tests*/tables*"] "";
    "S6"  "the monitor directory equals the guest's, recomputed": ["cargo/oracle/*", "roms*/paging*", "tests*/paging*"] "";
    "S7"  "writes to guest tables take effect on every vCPU": ["cargo/writers/*", "cargo/hammer/*", "cargo/system/tables::chains_across_pages_follow_the_tables", "roms*/tables*", "tests*/tables*"] "";
    "S8"  "monitor descriptor tables; the cached segment stays": ["cargo/umbra_mmu/*decodes_*", "cargo/system/segments::*", "cargo/system/descriptors::*", "roms*/protected*", "tests*/protected*"] "";
    "S9"  "call gates go only where the guest may go": ["cargo/system/gates::*", "cargo/system/descriptors::*", "roms*/protected*", "tests*/protected*"] "";
    "S10" "all this is hidden from the guest": ["cargo/hidden/*", "cargo/reference/random_accesses_equal_the_reference", "cargo/oracle/hash_is_the_same_whatever_the_frames", "roms*/redpills*", "tests*/redpills*", "roms*/control*", "tests*/control*"] "";
    "S11" "one total classifier of faults; hidden ones are invisible": ["cargo/classes/each_class_forced", "cargo/sharing/copy_on_write_is_a_class_and_hidden", "cargo/reference/random_accesses_equal_the_reference", "cargo/system/repeats::*", "cargo/system/tables::a_gather_starts_again_where_it_was", "roms*/strings*", "tests*/strings*", "roms*/straddle*", "tests*/straddle*"] "";
    "S12" "a frame that is out comes back": ["cargo/reclaim/*"] "";
    "S13" "two independent swap worlds": ["*two_swap_worlds*"] "";
    "S14" "pinned, then reclaimable, behind one frame API": ["*paged_policy*"] "all tests and suites again on pinned and on paged memory, which are steps of .ci/run";
    "S15" "frames that the guest freed become eligible, and keep their contents": ["*eligible*", "cargo/discard/*", "cargo/disks/*", "cargo/paging/a_disk_that_holds_pages*"] "";
    "S16" "a memory limit below the guest's memory works": ["*memory_limit*"] "the speed below a limit (test-suites/guests/paging.py)";
    "S17" "a frame in use is pinned; the order of taking it away is fixed": ["cargo/reclaim/locked_counters_under_eviction", "cargo/hammer/on_threads_beside_a_reclaimer", "cargo/doc umbra_mmu/*order*compile fail"] "the loom model, which has a step of its own in .ci/run";
    "S18" "a guest that uses little shrinks": ["*shrinks*"] "";
    "S19" "the host's need is noticed": ["*pressure*"] "";
    "S20" "least recently used pages go first": ["*least_recently*"] "";
    "S21" "guests share one pool; equal pages are one frame": ["cargo/sharing/*", "cargo/umbra_mmu/reclaim::sharing::*", "cargo/oracle/shared_frames", "cargo/reference/random_accesses_equal_the_reference_while_pages_are_shared", "cargo/common_pool/*", "cargo/batch/machines_in_one_process"] "what ten Linux guests cost (test-suites/guests/shared.py)";
    "S22" "exits are a closed set with counts": ["cargo/system/exits::*"] "";
    "S23" "the fault handler is executable documentation": ["cargo/doc umbra_mmu/*explain*", "cargo/doc umbra_mmu/*classif*"] "";
}

/// How a promise stands in a report.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All its tests passed.
    Kept,
    /// One did not.
    Broken,
    /// None of its tests is in the report.
    NotShown,
}

/// The tests of a promise in a report.
pub fn counts(promise: &Promise, report: &Report) -> Counts {
    let mut sum = Counts::default();
    for suite in &report.suites {
        let wanted = |full: &str| promise.proofs.iter().any(|proof| glob(proof, full));
        // A whole suite counts with what it does not name; else the named cases that match.
        let whole =
            promise.proofs.iter().any(|p| p.strip_suffix("/*").is_some_and(|s| !s.is_empty() && glob(s, &suite.name)));
        if whole {
            sum.add(&suite.counts);
            continue;
        }
        for case in &suite.cases {
            if wanted(format!("{}/{} {}", suite.name, case.name, case.text).trim_end()) {
                sum.count(&case.outcome);
            }
        }
    }
    sum
}

/// How a promise stands.
pub fn standing(counts: &Counts) -> Standing {
    if !counts.good() {
        Standing::Broken
    } else if counts.passed == 0 {
        Standing::NotShown
    } else {
        Standing::Kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{CaseReport, Detail, Outcome, Suite};

    fn report(suite: &str, name: &str, outcome: Outcome) -> Report {
        let mut suite = Suite::new(suite);
        suite.record(CaseReport { name: name.into(), text: String::new(), outcome, run: None }, Detail::EveryCase);
        Report { suites: vec![suite] }
    }
    fn stands(id: &str, report: &Report) -> Standing {
        let promise = PROMISES.iter().find(|p| p.id == id).unwrap();
        standing(&counts(promise, report))
    }

    #[test]
    fn standings() {
        let failed = || Outcome::Failed { difference: String::new(), repeat: String::new() };
        let ids: Vec<String> = (1..=23).map(|n| format!("S{n}")).collect();
        assert_eq!(PROMISES.iter().map(|p| p.id).collect::<Vec<_>>(), ids);
        assert_eq!(stands("S3", &report("cargo/writers", "x", Outcome::Passed)), Standing::Kept);
        assert_eq!(stands("S3", &report("cargo/writers", "x", failed())), Standing::Broken);
        assert_eq!(stands("S3", &report("cargo/other", "x", Outcome::Passed)), Standing::NotShown);
        assert_eq!(stands("S3", &report("tests", "tables", Outcome::Passed)), Standing::Kept);
        assert_eq!(stands("S1", &report("cargo/oracle", "permuted_frames", Outcome::Passed)), Standing::Kept);
        assert_eq!(stands("S4", &report("cargo/doc umbra_mmu", "a - compile fail", Outcome::Passed)), Standing::Kept);
    }
}
