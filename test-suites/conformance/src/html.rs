//! A report as one self-contained HTML page: the sum, a row a promise, a row a family of instructions, a row a suite, the
//! machines that ran, the reasons for what was not compared, each failure.
//!
//! No script, no outside file, both colour schemes; what comes from files is escaped. Called by whoever writes reports.

use crate::promises::{self, PROMISES, Standing};
use crate::report::{Counts, Outcome, Report, Suite};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const STYLE: &str = "
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .15rem .6rem; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
.text td, .text th { text-align: left }
.open { color: #9a6700 }
.good { color: #1a7f37 } .bad { color: #cf222e; font-weight: 600 }
pre { overflow-x: auto; background: #8882; padding: .6rem; border-radius: .3rem }
";

/// The page.
pub fn page(report: &Report, title: &str) -> String {
    let title = escape(title);
    let counts = report.counts();
    let mut out = format!("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>");
    let _ = write!(out, "<style>{STYLE}</style></head><body><h1>{title}</h1>");
    let (class, verdict) = if counts.good() { ("good", "passed") } else { ("bad", "failed") };
    let run = counts.total() - counts.skipped;
    let _ = write!(
        out,
        "<p class=\"{class}\">{verdict}: {} of {run} cases as expected</p>",
        counts.passed + counts.expected_failures
    );
    failures(&mut out, &report.suites);
    promise_rows(&mut out, report);
    family_rows(&mut out, report);
    out.push_str("<h2>Suites</h2>");
    head(&mut out, "suite");
    report.suites.iter().for_each(|suite| row(&mut out, &escape(&suite.name), &suite.counts, suite.seconds));
    row(&mut out, "<b>all</b>", &counts, report.suites.iter().map(|s| s.seconds).sum());
    out.push_str("</table>");
    machines(&mut out, &report.suites);
    reasons(&mut out, &report.suites);
    out.push_str("</body></html>\n");
    out
}

fn head(out: &mut String, what: &str) {
    let _ = write!(
        out,
        "<table><tr><th>{what}</th><th>passed</th><th>failed</th><th>refused</th><th>failed as listed</th>"
    );
    out.push_str("<th>passed though listed</th><th>left out</th><th>seconds</th></tr>");
}

/// A row for each promise of the shadow MMU.
fn promise_rows(out: &mut String, report: &Report) {
    out.push_str("<h2>Promises</h2><table class=\"text\"><tr><th>promise</th><th>stands</th><th>tests</th><th>not shown yet</th></tr>");
    for promise in PROMISES {
        let counts = promises::counts(promise, report);
        let (class, stands) = match promises::standing(&counts) {
            Standing::Kept => ("good", "kept"),
            Standing::Broken => ("bad", "broken"),
            Standing::NotShown => ("open", "no test in this report"),
        };
        let _ = write!(
            out,
            "<tr><td>{} {}</td><td class=\"{class}\">{stands}</td><td>{} of {}</td><td>{}</td></tr>",
            promise.id,
            escape(promise.text),
            counts.passed,
            counts.total() - counts.skipped,
            escape(promise.open),
        );
    }
    out.push_str("</table>");
}

/// A row for each family of instructions.
fn family_rows(out: &mut String, report: &Report) {
    let mut families: BTreeMap<&str, Counts> = BTreeMap::new();
    for (family, counts) in report.suites.iter().flat_map(|s| &s.families) {
        families.entry(family).or_default().add(counts);
    }
    if families.is_empty() {
        return;
    }
    out.push_str("<h2>Instruction families</h2>");
    head(out, "family (section of the SDM, vol. 1)");
    families.iter().for_each(|(family, counts)| row(out, &escape(family), counts, f64::NAN));
    out.push_str("</table>");
}

/// A row for each machine that ran.
fn machines(out: &mut String, suites: &[Suite]) {
    let mut heading = Some(
        "<h2>Machines</h2><table class=\"text\"><tr><th>test</th><th>verdict</th><th>end</th><th>status</th><th>seconds</th>\
         <th>guest seconds</th><th>instructions</th><th>last line</th></tr>",
    );
    for (suite, case) in suites.iter().flat_map(|s| s.cases.iter().map(move |c| (s, c))) {
        let Some(run) = &case.run else { continue };
        out.push_str(heading.take().unwrap_or_default());
        let (class, verdict) = match &case.outcome {
            Outcome::Passed => ("good", "passed"),
            Outcome::Skipped { .. } => ("open", "left out"),
            Outcome::ExpectedFailure { .. } => ("open", "failed as listed"),
            Outcome::Failed { .. } => ("bad", "failed"),
            Outcome::UnexpectedPass { .. } => ("bad", "passed though listed"),
            Outcome::Refused { .. } => ("bad", "refused"),
        };
        let status = run.status.map_or("none".to_owned(), |status| status.to_string());
        let _ = write!(
            out,
            "<tr><td>{}</td><td class=\"{class}\">{verdict}</td><td>{}</td><td>{status}</td><td>{:.2}</td><td>{:.2}</td><td>{}</td><td>{}</td></tr>",
            escape(&format!("{}/{}", suite.name, case.name)),
            escape(&run.end),
            run.wall_seconds,
            run.guest_seconds,
            run.retired,
            escape(&run.last_line),
        );
    }
    if heading.is_none() {
        out.push_str("</table>");
    }
}

fn row(out: &mut String, name: &str, counts: &Counts, seconds: f64) {
    let bad = |n: u64| if n > 0 { format!("<span class=\"bad\">{n}</span>") } else { "0".into() };
    let _ = write!(
        out,
        "<tr><td>{name}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        counts.passed,
        bad(counts.failed),
        bad(counts.refused),
        counts.expected_failures,
        bad(counts.unexpected_passes),
        counts.skipped,
        if seconds.is_nan() { String::new() } else { format!("{seconds:.2}") },
    );
}

fn reasons(out: &mut String, suites: &[Suite]) {
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in suites.iter().flat_map(|s| &s.reasons) {
        *all.entry(reason).or_default() += count;
    }
    if all.is_empty() {
        return;
    }
    out.push_str("<h2>Left out or failed as listed</h2><table><tr><th>reason</th><th>cases</th></tr>");
    for (reason, count) in all {
        let _ = write!(out, "<tr><td>{}</td><td>{count}</td></tr>", escape(reason));
    }
    out.push_str("</table>");
}

fn failures(out: &mut String, suites: &[Suite]) {
    let wrong = suites.iter().flat_map(|s| s.cases.iter().map(move |c| (s, c)));
    let mut heading = Some("<h2>Failures</h2>");
    for (suite, case) in wrong {
        let text = match &case.outcome {
            Outcome::Failed { difference, repeat } => format!("{difference}\nrepeat: {repeat}"),
            Outcome::UnexpectedPass { reason } => format!("passes, but is listed as an expected failure: {reason}"),
            Outcome::Refused { sentence } => sentence.clone(),
            Outcome::Passed | Outcome::Skipped { .. } | Outcome::ExpectedFailure { .. } => continue,
        };
        out.push_str(heading.take().unwrap_or_default());
        let name = escape(&format!("{}/{} {}", suite.name, case.name, case.text));
        let _ = write!(out, "<h3>{name}</h3><pre>{}</pre>", escape(&text));
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{CaseReport, Detail};

    #[test]
    fn a_page_with_a_failure() {
        let mut suite = Suite::new("a<b");
        let outcome = Outcome::Failed { difference: "rax: 1 & 2".into(), repeat: "umbra test x".into() };
        suite.record_in(
            "Logical",
            CaseReport { name: "1".into(), text: "add".into(), outcome, run: None },
            Detail::Failures,
        );
        let skipped = Outcome::Skipped { reason: "8086 only".into() };
        suite
            .record(CaseReport { name: "2".into(), text: "aas".into(), outcome: skipped, run: None }, Detail::Failures);
        let page = page(&Report { suites: vec![suite] }, "Umbra");
        for part in [
            "a&lt;b/1 add",
            "rax: 1 &amp; 2",
            "8086 only",
            "class=\"bad\">failed",
            "repeat: umbra test x",
            "S23 ",
            "family",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("a<b") && !page.contains("http"));
    }
}
