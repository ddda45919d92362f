//! A report as one self-contained HTML page: the sum, a row a suite, the reasons for what was not compared, each failure.
//!
//! No script, no outside file, both colour schemes; what comes from files is escaped. Called by whoever writes reports.

use crate::report::{Counts, Outcome, Report, Suite};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const STYLE: &str = "
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: .15rem .6rem; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
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
    out.push_str(
        "<table><tr><th>suite</th><th>passed</th><th>failed</th><th>failed as listed</th><th>passed though listed</th>",
    );
    out.push_str("<th>left out</th><th>seconds</th></tr>");
    report.suites.iter().for_each(|suite| row(&mut out, &escape(&suite.name), &suite.counts, suite.seconds));
    row(&mut out, "<b>all</b>", &counts, report.suites.iter().map(|s| s.seconds).sum());
    out.push_str("</table>");
    reasons(&mut out, &report.suites);
    failures(&mut out, &report.suites);
    out.push_str("</body></html>\n");
    out
}

fn row(out: &mut String, name: &str, counts: &Counts, seconds: f64) {
    let bad = |n: u64| if n > 0 { format!("<span class=\"bad\">{n}</span>") } else { "0".into() };
    let _ = write!(
        out,
        "<tr><td>{name}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{seconds:.2}</td></tr>",
        counts.passed,
        bad(counts.failed),
        counts.expected_failures,
        bad(counts.unexpected_passes),
        counts.skipped,
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
        suite.record(CaseReport { name: "1".into(), text: "add".into(), outcome }, Detail::Failures);
        let skipped = Outcome::Skipped { reason: "8086 only".into() };
        suite.record(CaseReport { name: "2".into(), text: "aas".into(), outcome: skipped }, Detail::Failures);
        let page = page(&Report { suites: vec![suite] }, "Umbra");
        for part in ["a&lt;b/1 add", "rax: 1 &amp; 2", "8086 only", "class=\"bad\">failed", "repeat: umbra test x"] {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("a<b") && !page.contains("http"));
    }
}
