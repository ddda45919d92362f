//! Outcomes of cases, gathered by suite, and their three forms: text for a terminal, JSON to merge, JUnit for CI.
//!
//! Failures keep all they need to be understood; passes are only counted unless every case is wanted by name.

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// As expected.
    Passed,
    /// Not as expected.
    Failed {
        /// What differs, a line each.
        difference: String,
        /// A command line that repeats the case alone.
        repeat: String,
    },
    /// Not run under this profile.
    Skipped {
        /// Why.
        reason: String,
    },
    /// Failed, as a list of expected failures says.
    ExpectedFailure {
        /// The list's reason.
        reason: String,
    },
    /// Passed, although a list of expected failures says that it fails.
    UnexpectedPass {
        /// The list's reason.
        reason: String,
    },
    /// The file cannot be read as what it claims to be: nothing was run.
    Refused {
        /// What is wrong, with file and position.
        sentence: String,
    },
}

impl Outcome {
    /// Whether somebody has to look at it.
    pub fn is_wrong(&self) -> bool {
        matches!(self, Outcome::Failed { .. } | Outcome::UnexpectedPass { .. } | Outcome::Refused { .. })
    }
}

/// One case in a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    /// The name, unique in its suite.
    pub name: String,
    /// The instruction as text.
    pub text: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What its machine did, if it ran one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunFacts>,
}

/// What a machine of a test did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// The exit status of its process; `None` if it did not end by itself.
    pub status: Option<i32>,
    /// How it ended, by name.
    pub end: String,
    /// Host time.
    pub wall_seconds: f64,
    /// Guest time.
    pub guest_seconds: f64,
    /// Instructions.
    pub retired: u64,
    /// The last line that the guest sent, or what Umbra said if nothing ran.
    pub last_line: String,
}

/// How many cases ended how.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// As expected.
    pub passed: u64,
    /// Not as expected.
    pub failed: u64,
    /// Not run.
    pub skipped: u64,
    /// Failed as listed.
    pub expected_failures: u64,
    /// Passed against the list.
    pub unexpected_passes: u64,
    /// Files that could not be read.
    #[serde(default)]
    pub refused: u64,
}

impl Counts {
    /// All cases, run or not.
    pub fn total(&self) -> u64 {
        self.passed + self.failed + self.skipped + self.expected_failures + self.unexpected_passes + self.refused
    }
    /// Nothing failed that should not, nothing passed that should not.
    pub fn good(&self) -> bool {
        self.failed == 0 && self.unexpected_passes == 0 && self.refused == 0
    }
    pub(crate) fn add(&mut self, other: &Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.expected_failures += other.expected_failures;
        self.unexpected_passes += other.unexpected_passes;
        self.refused += other.refused;
    }
    pub(crate) fn count(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Passed => &mut self.passed,
            Outcome::Failed { .. } => &mut self.failed,
            Outcome::Skipped { .. } => &mut self.skipped,
            Outcome::ExpectedFailure { .. } => &mut self.expected_failures,
            Outcome::UnexpectedPass { .. } => &mut self.unexpected_passes,
            Outcome::Refused { .. } => &mut self.refused,
        } += 1;
    }
}

/// Which cases a report names.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    /// Failures and unexpected passes.
    Failures,
    /// Every case.
    EveryCase,
}

/// The cases of one file or folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// How many cases ended how.
    pub counts: Counts,
    /// How many cases were left out or failed as expected, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// How many cases of each family of instructions ended how.
    #[serde(default)]
    pub families: BTreeMap<String, Counts>,
    /// The cases that are named.
    pub cases: Vec<CaseReport>,
    /// Wall-clock seconds.
    pub seconds: f64,
}

impl Suite {
    /// A suite without cases yet.
    pub fn new(name: impl Into<String>) -> Suite {
        Suite { name: name.into(), ..Suite::default() }
    }

    /// Adds a case.
    pub fn record(&mut self, case: CaseReport, detail: Detail) {
        self.counts.count(&case.outcome);
        if let Outcome::Skipped { reason } | Outcome::ExpectedFailure { reason } = &case.outcome {
            *self.reasons.entry(reason.clone()).or_default() += 1;
        }
        if case.outcome.is_wrong() || detail == Detail::EveryCase {
            self.cases.push(case);
        }
    }

    /// The same for a case of a family of instructions, which is counted too.
    pub fn record_in(&mut self, family: &str, case: CaseReport, detail: Detail) {
        // Families are few and cases many: the name is copied once.
        match self.families.get_mut(family) {
            Some(counts) => counts.count(&case.outcome),
            None => self.families.entry(family.to_owned()).or_default().count(&case.outcome),
        }
        self.record(case, detail);
    }

    /// One line for a terminal.
    pub fn line(&self) -> String {
        format!("{:<28} {}", self.name, line(&self.counts))
    }

    /// The suite of a file that cannot be read.
    pub fn refused(name: impl Into<String>, sentence: impl Into<String>) -> Suite {
        let mut suite = Suite::new(name);
        let outcome = Outcome::Refused { sentence: sentence.into() };
        suite.record(CaseReport { name: "file".into(), text: String::new(), outcome, run: None }, Detail::EveryCase);
        suite
    }
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The suites in the order in which they ran.
    pub suites: Vec<Suite>,
}

impl Report {
    /// The counts of all suites together.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        self.suites.iter().for_each(|s| sum.add(&s.counts));
        sum
    }

    /// Adds the cases of another run (another shard): suites of the same name become one.
    pub fn merge(&mut self, other: Report) {
        for theirs in other.suites {
            let Some(ours) = self.suites.iter_mut().find(|s| s.name == theirs.name) else {
                self.suites.push(theirs);
                continue;
            };
            ours.counts.add(&theirs.counts);
            for (reason, count) in theirs.reasons {
                *ours.reasons.entry(reason).or_default() += count;
            }
            for (family, counts) in &theirs.families {
                ours.families.entry(family.clone()).or_default().add(counts);
            }
            ours.cases.extend(theirs.cases);
            ours.seconds += theirs.seconds;
        }
    }

    /// A line a suite, the first `failures` failures of each, and the sum.
    pub fn to_text(&self, failures: usize) -> String {
        let mut out = String::new();
        let mut left_out: BTreeMap<&str, u64> = BTreeMap::new();
        for suite in &self.suites {
            let _ = writeln!(out, "{}", suite.line());
            let wrong = suite.cases.iter().filter(|c| c.outcome.is_wrong());
            for case in wrong.take(failures) {
                let _ = writeln!(out, "  {}/{} {}", suite.name, case.name, case.text);
                match &case.outcome {
                    Outcome::Failed { difference, repeat } => {
                        for line in difference.lines() {
                            let _ = writeln!(out, "      {line}");
                        }
                        if !repeat.is_empty() {
                            let _ = writeln!(out, "      repeat: {repeat}");
                        }
                    }
                    Outcome::UnexpectedPass { reason } => {
                        let _ = writeln!(out, "      passes, but is listed as an expected failure: {reason}");
                    }
                    Outcome::Refused { sentence } => {
                        let _ = writeln!(out, "      {sentence}");
                    }
                    Outcome::ExpectedFailure { .. } | Outcome::Passed | Outcome::Skipped { .. } => {}
                }
            }
            for (reason, count) in &suite.reasons {
                *left_out.entry(reason).or_default() += count;
            }
        }
        for (reason, count) in left_out {
            let _ = writeln!(out, "not compared {count:>7}: {reason}");
        }
        let seconds: f64 = self.suites.iter().map(|s| s.seconds).sum();
        let _ = writeln!(out, "{:<28} {}, {seconds:.1} s", "all", line(&self.counts()));
        out
    }

    /// The whole report as JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Reads [`Self::to_json`] back. `file` is named in errors.
    pub fn from_json(file: &Path, data: &[u8]) -> Result<Report, crate::error::FormatError> {
        use crate::error::{FormatError, Position};
        serde_json::from_slice(data)
            .map_err(|e| FormatError::new(file, Position::Line(e.line() as u64), format!("no report: {e}")))
    }

    /// The report as JUnit XML. Suites with passes that are not named get one test case that stands for them.
    pub fn to_junit(&self, title: &str) -> Result<String, quick_junit::SerializeError> {
        let mut report = quick_junit::Report::new(title);
        for suite in &self.suites {
            let mut xml = TestSuite::new(suite.name.as_str());
            xml.set_time(Duration::from_secs_f64(suite.seconds.max(0.0)));
            for case in &suite.cases {
                let mut test =
                    TestCase::new(format!("{} {}", case.name, case.text).trim_end(), junit_status(&case.outcome));
                test.set_classname(suite.name.as_str());
                if let Some(run) = &case.run {
                    test.set_time(Duration::from_secs_f64(run.wall_seconds.max(0.0)));
                    let status = run.status.map_or("none".to_owned(), |status| status.to_string());
                    test.add_property(("end", run.end.as_str()));
                    test.add_property(("status", status.as_str()));
                }
                xml.add_test_case(test);
            }
            let named = |passed: bool| suite.cases.iter().filter(|c| (c.outcome == Outcome::Passed) == passed).count();
            if suite.counts.passed > named(true) as u64 {
                let count = suite.counts.passed - named(true) as u64;
                let mut test = TestCase::new(format!("{count} cases that passed"), TestCaseStatus::success());
                test.set_classname(suite.name.as_str());
                xml.add_test_case(test);
            }
            report.add_test_suite(xml);
        }
        report.to_string()
    }
}

fn line(counts: &Counts) -> String {
    let mut out = format!("{:>7} of {:>7} passed", counts.passed, counts.total() - counts.skipped);
    for (count, what) in [
        (counts.failed, "FAILED"),
        (counts.refused, "REFUSED"),
        (counts.unexpected_passes, "UNEXPECTED PASSES"),
        (counts.expected_failures, "failed as expected"),
        (counts.skipped, "left out"),
    ] {
        if count > 0 {
            let _ = write!(out, ", {count} {what}");
        }
    }
    out
}

fn junit_status(outcome: &Outcome) -> TestCaseStatus {
    match outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed { difference, repeat } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(difference.lines().next().unwrap_or_default().to_owned());
            status.set_description(format!("{difference}\nrepeat: {repeat}"));
            status
        }
        Outcome::UnexpectedPass { reason } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(format!("passes, but is listed as an expected failure: {reason}"));
            status
        }
        Outcome::Refused { sentence } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message(sentence.clone());
            status
        }
        Outcome::Skipped { reason } | Outcome::ExpectedFailure { reason } => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.clone());
            status
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        let mut suite = Suite::new("add");
        let outcomes = [
            Outcome::Passed,
            Outcome::Failed { difference: "rax: 1, should be 2\nmore".into(), repeat: "umbra test x".into() },
            Outcome::Skipped { reason: "8086 only".into() },
            Outcome::ExpectedFailure { reason: "last bits".into() },
            Outcome::UnexpectedPass { reason: "was wrong once".into() },
            Outcome::Refused { sentence: "x.toml:3: unknown field".into() },
        ];
        for (n, outcome) in outcomes.into_iter().enumerate() {
            let case = CaseReport { name: n.to_string(), text: "add <al>".into(), outcome, run: None };
            suite.record_in("Binary arithmetic", case, Detail::Failures);
        }
        Report { suites: vec![suite] }
    }

    #[test]
    fn counts_and_text() {
        let report = sample();
        assert!(!report.counts().good());
        assert_eq!(report.counts().total(), 6);
        let text = report.to_text(10);
        for part in [
            "x.toml:3: unknown field",
            "1 REFUSED",
            "1 FAILED",
            "1 UNEXPECTED PASSES",
            "rax: 1, should be 2",
            "not compared       1: 8086 only",
            "repeat:",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!report.to_text(0).contains("rax"));
    }

    #[test]
    fn shards_merge_through_json() {
        let mut whole = sample();
        let again = Report::from_json(Path::new("x"), sample().to_json().unwrap().as_bytes()).unwrap();
        whole.merge(again);
        assert_eq!(whole.suites.len(), 1);
        assert_eq!(whole.counts().failed, 2);
        assert_eq!(whole.suites[0].reasons["8086 only"], 2);
        assert_eq!(whole.suites[0].families["Binary arithmetic"].total(), 12);
        let error = Report::from_json(Path::new("r.json"), b"{\n\"suites\": 3}").unwrap_err();
        assert!(error.to_string().starts_with("r.json:2: "), "{error}");
    }

    #[test]
    fn junit() {
        let xml = sample().to_junit("umbra").unwrap();
        assert!(
            xml.contains("failures=\"2\"") && xml.contains("errors=\"1\"") && xml.contains("add &lt;al&gt;"),
            "{xml}"
        );
        assert!(xml.contains("1 cases that passed"), "{xml}");
    }
}
