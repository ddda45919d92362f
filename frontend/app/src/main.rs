//! The `umbra` command: reads the command line, calls the verb, prints one sentence if it failed, and sets the exit status.

mod batch;
mod bench;
mod cli;
mod console;
mod crash;
mod ctrl_a;
mod exit_status;
mod gdb;
mod host;
mod input;
mod inspect;
mod link;
mod logs;
mod options;
mod output;
mod picture;
mod run;
mod screen_script;
mod script;
mod session;
mod sound;
mod suites;
mod summary;
mod terminal_display;
mod test_run;
mod try_linux;
mod until;
#[cfg(feature = "window")]
mod window;

use cli::{Asked, Cli, TryGuest, Verb};
use exit_status::{ExitStatus, Failure};
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match cli::parse(std::env::args_os()) {
        Ok(Asked::Show(text)) => {
            print!("{text}");
            Ok(ExitStatus::GOOD)
        }
        Ok(Asked::Do(cli)) => perform(*cli),
        Err(failure) => Err(failure),
    };
    match done {
        Ok(status) => status.into(),
        Err(failure) => {
            eprintln!("umbra: {failure}");
            failure.status.into()
        }
    }
}

fn perform(cli: Cli) -> Result<ExitStatus, Failure> {
    match cli.verb {
        None => run::demo(),
        Some(Verb::Run(args)) => run::run(&args),
        Some(Verb::Try { guest: TryGuest::Linux(args) }) => try_linux::run(&args),
        Some(Verb::Test(args)) => suites::test(&args),
        Some(Verb::Worker) => suites::worker(),
        Some(Verb::Batch(args)) => batch::run(&args),
        Some(Verb::Bench(args)) => bench::run(&args),
        Some(Verb::Inspect(args)) => inspect::run(&args),
        Some(Verb::Report { verb }) => suites::report(&verb),
    }
}
