//! What `umbra test`, `umbra batch` and `umbra report merge` share: children at work with a progress bar, and the report at the end.

use crate::cli::ReportArgs;
use crate::exit_status::{ExitStatus, Failure};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use umbra_conformance::guest::Host;
use umbra_conformance::html;
use umbra_conformance::pool::{Pool, Progress, Task};
use umbra_conformance::report::{Report, Suite};
use umbra_conformance::suite::Options;

/// How tests are run.
pub struct Plan<'a> {
    /// What of vector files.
    pub options: &'a Options,
    /// The processor's model for vectors.
    pub model: &'a str,
    /// Children at once.
    pub jobs: Option<std::num::NonZeroUsize>,
    /// Where machines' logs go.
    pub logs: Option<&'a Path>,
    /// Who runs machines, if not a child each.
    pub guests: Option<&'a dyn Host>,
}

/// Runs tasks, each in a child of this program.
pub fn run(tasks: &[Task], plan: &Plan<'_>) -> Result<Report, Failure> {
    let program = program()?;
    let jobs = plan.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, std::num::NonZeroUsize::get);
    let pool = Pool {
        program: &program,
        jobs,
        options: plan.options,
        model: plan.model,
        logs: plan.logs,
        guests: plan.guests,
    };
    let bar = Bar::new(tasks.len());
    let report = pool.run(tasks, &bar);
    bar.bar.finish_and_clear();
    Ok(report)
}

fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::host(format!("this program's own path is unknown ({error}); try a full path")))
}

/// A progress bar; without a terminal it draws nothing.
struct Bar {
    bar: ProgressBar,
    cases: AtomicU64,
    wrong: AtomicU64,
}

impl Bar {
    fn new(count: usize) -> Bar {
        let bar = ProgressBar::new(count as u64);
        if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos}/{len} {elapsed} {prefix}{wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar { bar, cases: AtomicU64::new(0), wrong: AtomicU64::new(0) }
    }
}

impl Progress for Bar {
    fn begun(&self, name: &str) {
        self.bar.set_message(name.to_owned());
    }
    fn case(&self) {
        let cases = self.cases.fetch_add(1, Ordering::Relaxed) + 1;
        if cases.is_multiple_of(1000) {
            self.bar.set_prefix(format!("{cases} cases, {} wrong  ", self.wrong.load(Ordering::Relaxed)));
        }
    }
    fn done(&self, suite: &Suite) {
        let counts = &suite.counts;
        self.wrong.fetch_add(counts.failed + counts.unexpected_passes + counts.refused, Ordering::Relaxed);
        if !counts.good() {
            self.bar.println(suite.line());
        }
        self.bar.inc(1);
    }
}

/// Writes the reports that are asked for, prints the rest for people, and gives the exit status.
pub fn finish(report: &Report, args: &ReportArgs, title: &str, print: impl FnOnce()) -> Result<ExitStatus, Failure> {
    let bad = |path: &Path, error: &dyn std::fmt::Display| {
        Failure::host(format!("{}: {error}; try another path", path.display()))
    };
    let write = |path: &Path, text: &str| std::fs::write(path, text).map_err(|error| bad(path, &error));
    if let Some(path) = &args.junit {
        let text = report.to_junit(title).map_err(|error| bad(path, &error))?;
        write(path, &text)?;
    }
    if let Some(path) = &args.html {
        write(path, &html::page(report, title))?;
    }
    match &args.json {
        Some(path) => {
            let text = report.to_json().map_err(|error| bad(path, &error))?;
            if path == Path::new("-") {
                println!("{text}");
            } else {
                write(path, &text)?;
                print();
            }
        }
        None => print(),
    }
    let counts = report.counts();
    let failed = counts.failed + counts.unexpected_passes;
    Ok(match (failed, counts.refused) {
        (0, 0) => ExitStatus::GOOD,
        (0, _) => ExitStatus::INPUT,
        _ => ExitStatus::FAILURES,
    })
}
