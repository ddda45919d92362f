//! What a run of a whole guest must look like, and what it did not: one line for each difference.
//!
//! Four kinds of test end in one shape. A machine file says itself what it expects; a kernel of the kvm-unit-tests interface
//! tells by the exit device; a ROM by the exit device or by the last value of its report port. Called by `guest`.

use crate::child::How;
use regex::bytes::{Regex, RegexBuilder};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use umbra_machine::config::{EndName, ExpectConfig};

/// Where the verdict is read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum VerdictBy {
    /// The end and the exit status of the run; a good end (status 0) if neither is given.
    End(Option<EndName>, Option<u8>),
    /// The value on the exit device: 0 passes, 77 says that the test does not apply, the rest fails.
    ExitDevice,
    /// The last value on the report port.
    Report(u8),
}

/// Everything that is expected.
#[derive(Clone, Debug)]
pub struct Expectations {
    /// The verdict.
    pub verdict: VerdictBy,
    /// Expressions that the text matches, one after the other.
    pub text: Vec<Regex>,
    /// Expressions that it does not match.
    pub never: Vec<Regex>,
    /// Expressions that the screen matches, one after the other.
    pub screen: Vec<Regex>,
    /// The last value of the report port, beside another verdict.
    pub post: Option<u8>,
    /// A file with the whole text.
    pub listing: Option<PathBuf>,
}

/// What a run was like.
#[derive(Clone, Debug)]
pub struct Observed {
    /// How the process ended.
    pub how: How,
    /// Its summary, if it came to write one.
    pub summary: Option<serde_json::Value>,
    /// What the guest sent on the watched port.
    pub text: Vec<u8>,
    /// What Umbra said.
    pub said: String,
}

/// The verdict on a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All holds.
    Passed,
    /// A line for each thing that does not.
    Failed(String),
    /// The test says that it does not apply; why.
    Skipped(String),
    /// There was nothing to run: the process refused its input with this sentence.
    Refused(String),
}

/// The value by which a kvm-unit-tests kernel says that it does not apply, as an exit status.
const SKIPPED: i32 = 77 << 1 | 1;
/// The exit device's value 0 as an exit status.
const DEVICE_GOOD: i32 = 1;
/// Statuses with which `umbra run` refuses its input or fails for the host.
const REFUSED: i32 = 2;
/// How many last lines of the guest a failure shows, and of Umbra (a crash has a story).
const TAIL: usize = 8;
const SAID_TAIL: usize = 30;

impl Expectations {
    /// Nothing but a verdict.
    pub fn only(verdict: VerdictBy) -> Expectations {
        Expectations { verdict, text: Vec::new(), never: Vec::new(), screen: Vec::new(), post: None, listing: None }
    }

    /// What a machine file's `[expect]` says. The error names the expression that is none, and what is wrong with it.
    pub fn from_config(config: &ExpectConfig) -> Result<Expectations, (String, String)> {
        let list = |expressions: &[String]| expressions.iter().map(|e| expression(e)).collect::<Result<Vec<_>, _>>();
        Ok(Expectations {
            verdict: VerdictBy::End(config.end, config.status),
            text: list(&config.serial)?,
            never: list(&config.never)?,
            screen: list(&config.screen)?,
            post: config.post,
            listing: config.listing.clone(),
        })
    }

    /// Judges a run.
    pub fn judge(&self, run: &Observed) -> Verdict {
        let mut wrong = String::new();
        match run.how {
            How::Exited(status) => {
                if run.summary.is_none() {
                    // Without a summary there was no run.
                    let sentence = run.sentence();
                    let none = sentence.is_empty();
                    return match status {
                        REFUSED if !none => Verdict::Refused(sentence),
                        _ if none => Verdict::Failed(format!("{}, without a word\n", run.how.text())),
                        _ => Verdict::Failed(format!("{sentence}\n")),
                    };
                }
                if self.verdict == VerdictBy::ExitDevice && status == SKIPPED {
                    return Verdict::Skipped(run.reason_to_skip());
                }
                self.judge_end(run, status, &mut wrong);
            }
            other => {
                let _ = writeln!(wrong, "{}", other.text());
            }
        }
        if let Some(post) = self.post.filter(|post| run.report() != Some(*post)) {
            let _ = writeln!(wrong, "{}, should be {post:#04x}", run.report_text());
        }
        in_order("text", &self.text, &run.text, &mut wrong);
        for expression in self.never.iter().filter(|e| e.is_match(&run.text)) {
            let _ = writeln!(wrong, "text: \"{expression}\" matches and should not");
        }
        in_order("screen", &self.screen, &run.screen(), &mut wrong);
        if let Some(listing) = &self.listing {
            compare_listing(listing, &run.text, &mut wrong);
        }
        if wrong.is_empty() {
            return Verdict::Passed;
        }
        run.append_tail(&mut wrong);
        Verdict::Failed(wrong)
    }

    fn judge_end(&self, run: &Observed, status: i32, wrong: &mut String) {
        let was = format!("{} with status {status}{}", run.end().map_or("ended", EndName::name), run.where_it_stands());
        match self.verdict {
            VerdictBy::End(None, None) if status != 0 => {
                let _ = writeln!(wrong, "{was}, should end well (status 0)");
            }
            VerdictBy::End(end, wanted) => {
                if let Some(wanted) = end.filter(|e| run.end() != Some(*e)) {
                    let _ = writeln!(wrong, "{was}, should be {}", wanted.name());
                }
                if let Some(wanted) = wanted.filter(|w| i32::from(*w) != status) {
                    let _ = writeln!(wrong, "{was}, should be status {wanted}");
                }
            }
            VerdictBy::ExitDevice if run.end() != Some(EndName::GuestExit) => {
                let _ = writeln!(wrong, "{was}, should write 0 to the exit device (port F4h)");
            }
            VerdictBy::ExitDevice if status != DEVICE_GOOD => {
                let _ = writeln!(wrong, "the guest wrote {} to the exit device, should be 0", status >> 1);
            }
            VerdictBy::Report(value) if run.report() != Some(value) => {
                let _ = writeln!(wrong, "{}, should be {value:#04x}; {was}", run.report_text());
            }
            VerdictBy::ExitDevice | VerdictBy::Report(_) => {}
        }
    }
}

impl Observed {
    fn field(&self, name: &str) -> Option<&serde_json::Value> {
        self.summary.as_ref()?.get(name)
    }
    /// How the run ended.
    pub fn end(&self) -> Option<EndName> {
        EndName::from_name(self.field("end")?.as_str()?)
    }
    /// A number of the summary; 0 without one.
    pub fn number(&self, name: &str) -> f64 {
        self.field(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0)
    }
    fn report(&self) -> Option<u8> {
        self.field("report")?.as_u64()?.try_into().ok()
    }
    fn report_text(&self) -> String {
        match self.report() {
            Some(value) => format!("the report port holds {value:#04x} at the end"),
            None => "the guest wrote nothing to the report port".to_owned(),
        }
    }
    fn where_it_stands(&self) -> String {
        let at = self.field("stands_at").and_then(serde_json::Value::as_str).unwrap_or("");
        let retired = self.number("retired");
        if at.is_empty() { String::new() } else { format!(" at {at} after {retired} instructions") }
    }
    fn screen(&self) -> Vec<u8> {
        let lines = self.field("screen").and_then(serde_json::Value::as_array);
        let lines = lines.into_iter().flatten().filter_map(serde_json::Value::as_str);
        lines.collect::<Vec<_>>().join("\n").into_bytes()
    }
    /// The last sentence that Umbra said.
    pub fn sentence(&self) -> String {
        let line = self.said.lines().rev().find(|line| line.starts_with("umbra: "));
        let line = line.or(self.said.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with('{')));
        line.unwrap_or("").trim_start_matches("umbra: ").to_owned()
    }
    /// The last line that the guest sent.
    pub fn last_line(&self) -> String {
        let text = plain(&self.text);
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("").to_owned()
    }
    fn reason_to_skip(&self) -> String {
        let text = plain(&self.text);
        let line = text.lines().find(|line| line.contains("SKIP")).unwrap_or("the test says that it does not apply");
        line.trim().to_owned()
    }
    fn append_tail(&self, out: &mut String) {
        let text = plain(&self.text);
        let failures = text.lines().filter(|line| line.starts_with("FAIL")).take(TAIL);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or(&[]);
        let mut shown: Vec<&str> = failures.collect();
        shown.extend(last.iter().filter(|line| !line.starts_with("FAIL")));
        for line in shown {
            let _ = writeln!(out, "guest | {line}");
        }
        let said: Vec<&str> = self.said.lines().filter(|l| !l.is_empty() && !l.starts_with('{')).collect();
        let said = said.get(said.len().saturating_sub(SAID_TAIL)..).unwrap_or(&[]);
        for line in said {
            let _ = writeln!(out, "umbra | {}", line.trim_start_matches("umbra: "));
        }
    }
}

/// Compiles an expression; the error is the expression and what is wrong with it.
pub fn expression(text: &str) -> Result<Regex, (String, String)> {
    let built = RegexBuilder::new(text).multi_line(true).crlf(true).size_limit(1 << 20).build();
    built.map_err(|error| {
        let why = error.to_string();
        let why = why.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("").trim();
        (text.to_owned(), format!("no regular expression ({})", why.trim_start_matches("error: ")))
    })
}

fn in_order(what: &str, expressions: &[Regex], text: &[u8], wrong: &mut String) {
    let mut from = 0;
    for expression in expressions {
        match expression.find_at(text, from) {
            Some(found) => from = found.end(),
            None => {
                let line = text[..from].iter().filter(|b| **b == b'\n').count() + 1;
                let _ = writeln!(wrong, "{what}: nothing matches \"{expression}\" from line {line} on");
            }
        }
    }
}

fn compare_listing(listing: &Path, text: &[u8], wrong: &mut String) {
    let wanted = match std::fs::read(listing) {
        Ok(bytes) => as_listing(&bytes),
        Err(error) => {
            let _ = writeln!(wrong, "{}: cannot read: {error}; try --bless to write it", listing.display());
            return;
        }
    };
    let found = as_listing(text);
    let (mut found_lines, mut wanted_lines) = (found.lines(), wanted.lines());
    for number in 1.. {
        match (found_lines.next(), wanted_lines.next()) {
            (None, None) => return,
            (found, wanted) if found == wanted => {}
            (found, wanted) => {
                let shown = |line: Option<&str>| line.map_or("the end".to_owned(), |line| format!("\"{line}\""));
                let _ =
                    writeln!(wrong, "{}:{number}: {}, should be {}", listing.display(), shown(found), shown(wanted));
                return;
            }
        }
    }
}

/// Text as a listing keeps it: lines end with a line feed alone, bytes that are no UTF-8 are replaced.
pub fn as_listing(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace("\r\n", "\n")
}

/// Text without colours and control characters, for people.
pub fn plain(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            if chars.next_if_eq(&'[').is_some() {
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
        } else if c == '\n' || c == '\t' || !c.is_control() {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(how: How, summary: Option<&str>, text: &str) -> Observed {
        let summary = summary.map(|s| serde_json::from_str(s).unwrap());
        Observed { how, summary, text: text.as_bytes().to_vec(), said: "umbra: the sentence; try it\n{}\n".into() }
    }
    fn text(verdict: Verdict) -> String {
        match verdict {
            Verdict::Failed(text) => text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn verdicts() {
        const EXIT_0: &str = r#"{"end":"guest-exit","report":255}"#;
        const HUNG: &str = r#"{"end":"instruction-limit","report":3,"stands_at":"f000:12","retired":500}"#;
        let ends = |end, status| Expectations::only(VerdictBy::End(end, status));
        let device = || Expectations::only(VerdictBy::ExitDevice);
        let report = || Expectations::only(VerdictBy::Report(0xff));
        let ran = |status, summary| run(How::Exited(status), Some(summary), "SKIP: no such thing\n");
        #[rustfmt::skip]
        let table = [
            (ends(None, None),                       ran(0, r#"{"end":"until"}"#),   "Passed"),
            (ends(None, None),                       ran(124, HUNG),                 "instruction-limit with status 124 at f000:12 after 500 instructions, should end well"),
            (ends(Some(EndName::Crashed), None),     ran(100, r#"{"end":"crashed"}"#), "Passed"),
            (ends(Some(EndName::Crashed), None),     ran(124, HUNG),                 "should be crashed"),
            (ends(None, Some(33)),                   ran(35, EXIT_0),                "should be status 33"),
            (device(),                               ran(1, EXIT_0),                 "Passed"),
            (device(),                               ran(3, EXIT_0),                 "wrote 1 to the exit device"),
            (device(),                               ran(155, EXIT_0),               "Skipped(\"SKIP: no such thing\")"),
            (device(),                               ran(124, HUNG),                 "should write 0 to the exit device"),
            (report(),                               ran(1, EXIT_0),                 "Passed"),
            (report(),                               ran(124, HUNG),                 "the report port holds 0x03 at the end, should be 0xff"),
            (report(),                               ran(0, r#"{"end":"asleep"}"#),  "wrote nothing to the report port"),
            (device(),                               run(How::Exited(2), None, ""),  "Refused(\"the sentence; try it\")"),
            (device(),                               run(How::Exited(4), None, ""),  "the sentence; try it"),
            (device(),                               run(How::Killed(11), None, ""), "crashed (SIGSEGV)"),
            (device(),                               run(How::TimedOut, None, ""),   "did not end in time"),
        ];
        for (expectations, run, wanted) in table {
            let found = text(expectations.judge(&run));
            assert!(found.contains(wanted), "{found} has no {wanted}");
        }
    }

    #[test]
    fn text_is_matched_in_order() {
        let mut expectations = Expectations::only(VerdictBy::End(None, None));
        expectations.text = ["^one$", "two"].map(|e| expression(e).unwrap()).to_vec();
        expectations.never = vec![expression("panic").unwrap()];
        let good = run(How::Exited(0), Some(r#"{"end":"until"}"#), "one\r\nand two\r\n");
        assert_eq!(expectations.judge(&good), Verdict::Passed);
        let bad = Observed { text: b"two\none\npanic\n".to_vec(), ..good };
        let found = text(expectations.judge(&bad));
        assert!(
            found.contains("nothing matches \"two\" from line 2 on") && found.contains("\"panic\" matches"),
            "{found}"
        );
        assert!(found.contains("guest | one"), "{found}");
        assert!(expression("(").unwrap_err().1.contains("no regular expression"));
    }

    #[test]
    fn listings() {
        let file = std::env::temp_dir().join(format!("umbra-listing-{}", std::process::id()));
        std::fs::write(&file, "a\nb\n").unwrap();
        for (text, wanted) in
            [("a\r\nb\r\n", ""), ("a\nc\n", ":2: \"c\", should be \"b\""), ("a\n", ":2: the end, should be \"b\"")]
        {
            let mut wrong = String::new();
            compare_listing(&file, text.as_bytes(), &mut wrong);
            assert!(wrong.contains(wanted) && wrong.is_empty() == wanted.is_empty(), "{wrong}");
        }
        std::fs::remove_file(&file).unwrap();
        let mut wrong = String::new();
        compare_listing(&file, b"", &mut wrong);
        assert!(wrong.contains("try --bless"), "{wrong}");
    }

    #[test]
    fn colours_are_not_shown() {
        assert_eq!(plain(b"\x1b[1;32mpassed\x1b[0m\r\n\x07x\x1b"), "passed\nx");
    }
}
