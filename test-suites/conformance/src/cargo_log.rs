//! The words of `cargo test` as a report, so that unit tests stand in it beside vectors and guests.
//!
//! ```text
//! cargo test --workspace 2>&1 | tee tests.log
//! umbra report merge tests.log vectors.json --html report.html
//! ```
//!
//! A target becomes a suite: `cargo/CRATE` for unit tests, `cargo/NAME` for tests/NAME.rs, `cargo/doc CRATE` for examples in the
//! documentation. Left out: times of single tests, which cargo does not tell. Called by the app.

use crate::report::{CaseReport, Detail, Outcome, Report, Suite};

/// Whether a text looks like what `cargo test` prints.
pub fn is_log(text: &str) -> bool {
    text.lines().any(|line| target(line).is_some()) && text.lines().any(|line| line.starts_with("running "))
}

/// Reads a log.
pub fn parse(text: &str) -> Report {
    let mut report = Report::default();
    let mut suite = Suite::new("cargo");
    for line in text.lines() {
        if let Some(name) = target(line) {
            let done = std::mem::replace(&mut suite, Suite::new(format!("cargo/{name}")));
            report.merge(Report { suites: vec![done] });
        } else if let Some((name, outcome)) = result(line) {
            let case = CaseReport { name: name.to_owned(), text: String::new(), outcome, run: None };
            suite.record_in("Unit, integration and documentation tests", case, Detail::EveryCase);
        } else if let Some(seconds) = line.split("finished in ").nth(1) {
            suite.seconds += seconds.trim_end_matches('s').parse::<f64>().unwrap_or(0.0);
        }
    }
    report.merge(Report { suites: vec![suite] });
    report.suites.retain(|suite| suite.counts.total() > 0);
    for suite in &mut report.suites {
        let package = suite.name.clone();
        for case in &mut suite.cases {
            if let Outcome::Failed { difference, repeat } = &mut case.outcome {
                *difference = output(text, &case.name);
                *repeat = format!("cargo test {}  # in {package}", case.name.split(" - ").next().unwrap_or_default());
            }
        }
    }
    report
}

/// The target that the next tests belong to.
fn target(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("doc {name}"));
    }
    let binary = line.strip_prefix("Running ")?.split('(').nth(1)?.trim_end_matches(')');
    let stem = binary.rsplit('/').next()?;
    Some(stem.rsplit_once('-').map_or(stem, |(name, _)| name).to_owned())
}

fn result(line: &str) -> Option<(&str, Outcome)> {
    let (name, how) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let outcome = match how.trim() {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed { difference: String::new(), repeat: String::new() },
        ignored if ignored.starts_with("ignored") => Outcome::Skipped { reason: "ignored by its own mark".to_owned() },
        _ => return None,
    };
    // "should panic" and the like are marks, not names.
    Some((name.split(" - should panic").next().unwrap_or(name).trim(), outcome))
}

/// What a test that failed printed.
fn output(text: &str, name: &str) -> String {
    let mark = format!("---- {name} stdout ----");
    let lines = text.lines().skip_while(|line| *line != mark).skip(1).take_while(|line| !line.starts_with("---- "));
    lines.take_while(|line| *line != "failures:").take(40).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
     Running unittests src/lib.rs (target/debug/deps/umbra_mmu-0a1b)

running 2 tests
test walk::tests::two ... ok
test pte::tests::one ... FAILED

failures:

---- pte::tests::one stdout ----
thread panicked: no
failures:
    pte::tests::one

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.25s

     Running tests/oracle.rs (target/debug/deps/oracle-77)
running 1 test
test permuted ... ok
test result: ok. 1 passed; finished in 1.00s
   Doc-tests umbra_mmu
running 1 test
test mmu/src/walk.rs - walk (line 6) - compile fail ... ok
";

    #[test]
    fn a_log() {
        assert!(is_log(LOG) && !is_log("{\"suites\":[]}"));
        let report = parse(LOG);
        let names: Vec<&str> = report.suites.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["cargo/umbra_mmu", "cargo/oracle", "cargo/doc umbra_mmu"]);
        assert_eq!((report.counts().passed, report.counts().failed), (3, 1));
        let text = report.to_text(5);
        assert!(text.contains("thread panicked: no") && text.contains("repeat: cargo test pte::tests::one"), "{text}");
        assert!((report.suites[0].seconds - 0.25).abs() < 1e-9);
    }
}
