//! `umbra batch`: machines from files, headless, each in a process of its own, some at once; a table, an exit status, reports. With `--share` all
//! of them are in this process (`in_one`).
//!
//! A child is `umbra run FILE --headless …`, as `umbra test` runs a machine file too. The clock is virtual unless the file says
//! otherwise, so that a run that fails can be repeated exactly by the command that is printed. What a machine must do is
//! in its `[expect]`; without one it must end well.

mod in_one;

use crate::cli::BatchArgs;
use crate::exit_status::{ExitStatus, Failure};
use crate::test_run::{self, Plan};
use in_one::InOne;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;
use umbra_conformance::format::{Format, Found};
use umbra_conformance::guest::Host;
use umbra_conformance::guest_file::{self, GuestOptions};
use umbra_conformance::pool::Task;
use umbra_conformance::report::{Outcome, Report};
use umbra_conformance::suite::Options;

/// The suite's name in reports.
const SUITE: &str = "batch";
/// A machine's time limit if nobody says one.
const TIMEOUT: Duration = Duration::from_secs(600);

/// `umbra batch`.
pub fn run(args: &BatchArgs) -> Result<ExitStatus, Failure> {
    let options = GuestOptions {
        instructions: args.instructions,
        timeout: Some(args.timeout.map_or(TIMEOUT, |span| span.0)),
        ..GuestOptions::default()
    };
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut tasks = Vec::new();
    for path in &args.files {
        if !path.is_file() {
            return Err(Failure::input(format!("{}: there is no such file; try another path", path.display())));
        }
        let found = Found { path: path.clone(), format: Format::Guest };
        match guest_file::tests(&found, &options) {
            Ok(tests) => {
                for mut test in tests {
                    // Files of one name from several folders are told apart by their order.
                    let count = seen.entry(test.name.clone()).or_default();
                    *count += 1;
                    if *count > 1 {
                        test.name = format!("{}-{count}", test.name);
                    }
                    SUITE.clone_into(&mut test.suite);
                    tasks.push(Task::Guest(Box::new(test)));
                }
            }
            Err(error) => tasks.push(Task::Refused { suite: SUITE.to_owned(), sentence: error.to_string() }),
        }
    }
    let vectors = Options::default();
    let common = if args.share { Some(InOne::new(&tasks)?) } else { None };
    let jobs = args.jobs.or(if args.share { NonZeroUsize::new(tasks.len()) } else { None });
    let guests = common.as_ref().map(|host| host as &dyn Host);
    let plan = Plan { options: &vectors, model: "max", jobs, logs: args.logs.as_deref(), guests };
    let report = test_run::run(&tasks, &plan)?;
    test_run::finish(&report, &args.report, "umbra batch", || print_table(&report))
}

fn print_table(report: &Report) {
    println!(
        "{:<5} {:<24} {:<18} {:>6} {:>8} {:>9} {:>13}  last line",
        "", "machine", "end", "status", "s", "guest s", "instructions"
    );
    for case in report.suites.iter().flat_map(|suite| &suite.cases) {
        let run = case.run.clone().unwrap_or_default();
        let (end, last_line) = match &case.outcome {
            Outcome::Refused { sentence } if case.run.is_none() => ("refused", sentence.clone()),
            Outcome::Failed { difference, .. } if case.run.is_none() => ("not-run", difference.clone()),
            _ => (run.end.as_str(), run.last_line.clone()),
        };
        let status = run.status.map_or("-".to_owned(), |status| status.to_string());
        println!(
            "{:<5} {:<24} {end:<18} {status:>6} {:>8.2} {:>9.2} {:>13}  {last_line}",
            mark(&case.outcome),
            case.name,
            run.wall_seconds,
            run.guest_seconds,
            run.retired,
        );
    }
    for case in report.suites.iter().flat_map(|suite| &suite.cases) {
        if let Outcome::Failed { difference, repeat } = &case.outcome {
            println!("\n{}", case.name);
            difference.lines().for_each(|line| println!("    {line}"));
            println!("    repeat: {repeat}");
        }
        if let Outcome::UnexpectedPass { reason } = &case.outcome {
            println!("\n{}\n    passes, but is expected to fail: {reason}", case.name);
        }
    }
    let counts = report.counts();
    println!("\n{} of {} machines did what they should", counts.passed + counts.expected_failures, counts.total());
}

fn mark(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "ok",
        Outcome::ExpectedFailure { .. } => "known",
        Outcome::Skipped { .. } => "skip",
        Outcome::Failed { .. } | Outcome::UnexpectedPass { .. } | Outcome::Refused { .. } => "FAIL",
    }
}
