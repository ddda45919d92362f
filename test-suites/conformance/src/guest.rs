//! One test of a whole machine: a child process `umbra run …` (or what its caller has instead), looked after and judged.
//!
//! The command line that a test runs is also the one that repeats it. Called by `pool`.

use crate::child::{self, Finished, How, Limits};
use crate::judge::{self, Expectations, Observed, Verdict};
use crate::report::{CaseReport, Outcome, RunFacts};
use crate::shell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How much longer than the run's own time limit its process may live.
const GRACE: Duration = Duration::from_secs(15);

/// Who runs the machine of a test.
pub trait Host: Sync + std::fmt::Debug {
    /// Runs it to its end, as `umbra run` with the test's words does; gives what is left of it.
    fn run(&self, test: &GuestTest) -> std::io::Result<Finished>;
}

/// Each in a process of its own: this program's `run`.
#[derive(Debug)]
pub struct Children<'p>(pub &'p Path);

impl Host for Children<'_> {
    fn run(&self, test: &GuestTest) -> std::io::Result<Finished> {
        let mut command = Command::new(self.0);
        command.arg("run").args(&test.words).arg("--json").env("NO_COLOR", "1");
        let run = child::run(&mut command, Limits { wall: test.timeout + GRACE, memory: test.memory });
        run.map_err(|error| std::io::Error::new(error.kind(), format!("{}: cannot start: {error}", self.0.display())))
    }
}

/// A test.
#[derive(Clone, Debug)]
pub struct GuestTest {
    /// The suite's name: the folder's.
    pub suite: String,
    /// The name, unique in the suite.
    pub name: String,
    /// What it is, in a few words.
    pub text: String,
    /// The family of its row in the report.
    pub family: &'static str,
    /// What follows `umbra run`, less what only a parent wants.
    pub words: Vec<String>,
    /// What must come out.
    pub expect: Expectations,
    /// The run's own limit of wall time.
    pub timeout: Duration,
    /// The most memory that the process may occupy.
    pub memory: Option<u64>,
    /// It is not run, for this reason.
    pub skip: Option<String>,
    /// It is known to fail, for this reason.
    pub fails: Option<String>,
    /// The file that `--bless` writes the text to.
    pub bless: Option<PathBuf>,
}

impl GuestTest {
    /// The name in lists and for `--filter`.
    pub fn full_name(&self) -> String {
        format!("{}/{} {}", self.suite, self.name, self.text).trim_end().to_owned()
    }

    /// The command that repeats the run.
    pub fn command_line(&self) -> String {
        shell::line(["umbra", "run"].into_iter().chain(self.words.iter().map(String::as_str)))
    }

    /// Runs it. `logs`: a folder for what it says and sends.
    pub fn run(&self, host: &dyn Host, logs: Option<&Path>) -> CaseReport {
        let report = |outcome, run| CaseReport { name: self.name.clone(), text: self.text.clone(), outcome, run };
        if let Some(reason) = &self.skip {
            return report(Outcome::Skipped { reason: reason.clone() }, None);
        }
        let finished = match host.run(self) {
            Ok(finished) => finished,
            Err(error) => {
                let difference = error.to_string();
                return report(Outcome::Failed { difference, repeat: self.command_line() }, None);
            }
        };
        let said = String::from_utf8_lossy(&finished.err).into_owned();
        let observed = Observed { how: finished.how, summary: summary(&said), text: finished.out, said };
        let mut verdict = self.expect.judge(&observed);
        if let Some(logs) = logs
            && let Err(error) = self.write_logs(logs, &observed)
        {
            verdict = Verdict::Failed(format!("{}: cannot write logs: {error}\n", logs.display()));
        }
        if let Some(listing) = &self.bless
            && let Err(error) = std::fs::write(listing, judge::as_listing(&observed.text))
        {
            verdict = Verdict::Failed(format!("{}: cannot write: {error}\n", listing.display()));
        }
        let facts = RunFacts {
            status: match finished.how {
                How::Exited(status) => Some(status),
                _ => None,
            },
            end: observed.end().map_or_else(|| end_of(finished.how).to_owned(), |end| end.name().to_owned()),
            wall_seconds: finished.wall.as_secs_f64(),
            guest_seconds: observed.number("guest_seconds"),
            retired: observed.number("retired") as u64,
            last_line: if observed.summary.is_some() { observed.last_line() } else { observed.sentence() },
        };
        report(self.outcome(verdict), Some(facts))
    }

    fn outcome(&self, verdict: Verdict) -> Outcome {
        match (verdict, &self.fails) {
            (Verdict::Passed, None) => Outcome::Passed,
            (Verdict::Passed, Some(reason)) => Outcome::UnexpectedPass { reason: reason.clone() },
            (Verdict::Skipped(reason), _) => Outcome::Skipped { reason },
            // A machine file that names something that is not there is itself what has to be looked at.
            (Verdict::Refused(sentence), _) => match self.words.first().filter(|word| word.ends_with(".toml")) {
                Some(file) if !sentence.contains(file.as_str()) => {
                    Outcome::Refused { sentence: format!("{file}: {sentence}") }
                }
                _ => Outcome::Refused { sentence },
            },
            (Verdict::Failed(_), Some(reason)) => Outcome::ExpectedFailure { reason: reason.clone() },
            (Verdict::Failed(difference), None) => Outcome::Failed { difference, repeat: self.command_line() },
        }
    }

    fn write_logs(&self, logs: &Path, run: &Observed) -> std::io::Result<()> {
        std::fs::create_dir_all(logs)?;
        let stem: String = format!("{}-{}", self.suite, self.name)
            .chars()
            .map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' })
            .collect();
        std::fs::write(logs.join(format!("{stem}.serial")), &run.text)?;
        std::fs::write(logs.join(format!("{stem}.log")), format!("{}\n{}", self.command_line(), run.said))
    }
}

/// What a process's end is called when it left no summary.
fn end_of(how: How) -> &'static str {
    match how {
        How::Exited(_) => "not-run",
        How::Killed(_) => "process-crashed",
        How::TimedOut => "process-timed-out",
        How::TooMuchMemory(_) => "out-of-memory",
    }
}

/// The summary: the last line of JSON that Umbra said.
fn summary(said: &str) -> Option<serde_json::Value> {
    let line = said.lines().rev().find(|line| line.starts_with('{'))?;
    serde_json::from_str::<serde_json::Value>(line).ok().filter(|value| value.get("end").is_some())
}
