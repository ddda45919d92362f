//! `umbra batch --share`: every machine on threads of this process, in one pool, where equal pages of guest memory are one frame (S21).
//!
//! Each has its own clock, swap file, streams and end, as in a process of its own, and is judged by the same words. What a process
//! would be needed for is refused: a limit of its memory. A machine that never comes back to its run loop cannot be ended from outside
//! here, and a crash of the process takes all along; the first of these has not been seen, and the second is said. Guests of several
//! owners do not belong together: `umbra_mmu::Sharing`'s module says why.

use crate::cli::{self, Asked, RunArgs, Verb};
use crate::exit_status::{ExitStatus, Failure};
use crate::output::Kept;
use crate::{options, run};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;
use umbra_conformance::child::{Finished, How};
use umbra_conformance::guest::{GuestTest, Host};
use umbra_conformance::pool::Task;
use umbra_machine::CommonPool;
use umbra_machine::config::MemoryPolicy;

/// This process and its pool.
#[derive(Debug)]
pub struct InOne {
    pool: Arc<CommonPool>,
}

impl InOne {
    /// A pool for all machines among these tasks, and a sentence for whoever started them.
    pub fn new(tasks: &[Task]) -> Result<InOne, Failure> {
        let guests = tasks.iter().filter_map(|task| match task {
            Task::Guest(test) => Some(test),
            _ => None,
        });
        // What cannot be read is refused when its turn comes.
        let configs: Vec<_> = guests.filter_map(|test| options::config(&args(test).ok()?).ok()).collect();
        eprintln!(
            "umbra: {} machines share this process and its memory: equal pages are one frame, and a crash of the process ends them all",
            configs.len()
        );
        let pool = CommonPool::new(configs.iter().chain(configs.is_empty().then_some(&Default::default())));
        Ok(InOne { pool: pool.map_err(|error| Failure::host(format!("{error}; try fewer machines")))? })
    }
    fn machine(&self, test: &GuestTest, streams: [&Kept; 2]) -> Result<ExitStatus, Failure> {
        let args = args(test)?;
        if test.memory.is_some() {
            return Err(Failure::input(
                "process-memory limits a process, and this machine shares one; leave it out, or --share",
            ));
        }
        if options::config(&args)?.host_memory.policy == MemoryPolicy::Pinned {
            return Err(Failure::input(
                "pinned memory is in no frame with others; try another policy, or leave out --share",
            ));
        }
        run::in_pool(&args, &self.pool, streams)
    }
}

impl Host for InOne {
    fn run(&self, test: &GuestTest) -> std::io::Result<Finished> {
        let (started, out, mut said) = (Instant::now(), Kept::default(), Kept::default());
        let done = catch_unwind(AssertUnwindSafe(|| self.machine(test, [&out, &said])));
        let status = match done {
            Ok(Ok(status)) => status,
            Ok(Err(failure)) => {
                writeln!(said, "umbra: {failure}")?;
                failure.status
            }
            // Its message went to standard error.
            Err(_) => {
                writeln!(said, "umbra: a thread of this machine panicked")?;
                ExitStatus::HOST
            }
        };
        let (out, err) = (out.take(), said.take());
        Ok(Finished { how: How::Exited(status.0.into()), out, err, wall: started.elapsed() })
    }
}

/// A test's words as `umbra run` understands them.
fn args(test: &GuestTest) -> Result<RunArgs, Failure> {
    let words = ["umbra", "run"].into_iter().chain(test.words.iter().map(String::as_str));
    match cli::parse(words.map(Into::into))? {
        Asked::Do(cli) => match cli.verb {
            Some(Verb::Run(args)) => Ok(*args),
            _ => Err(Failure::input("these are no words of `umbra run`")),
        },
        Asked::Show(text) => Err(Failure::input(text)),
    }
}
