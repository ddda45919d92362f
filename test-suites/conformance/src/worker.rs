//! The child that runs vector files for a parent: `umbra worker`. A crash takes it down and nobody else.
//!
//! ```text
//! parent → child, a line each:   a Job as JSON
//! child → parent, a line each:   b NUMBER        this case is run next
//!                                s SUITE         the file is done: a Suite as JSON
//!                                r SENTENCE      the file cannot be read
//! ```
//!
//! After a crash the parent knows the case by the last `b`, and gives the file to a new child with that case marked. Called by
//! the app (the child's side) and by `pool` (the parent's).

use crate::report::Suite;
use crate::run::Runner;
use crate::suite::{self, Crashed, Options};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};
use std::path::PathBuf;
use umbra_machine::config::{Engine, MemoryPolicy};

/// A file to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The file.
    pub file: PathBuf,
    /// The processor's model.
    pub model: String,
    /// The engine.
    pub engine: Engine,
    /// What of it, and how it is reported.
    pub options: Options,
    /// Cases that took a child down.
    pub crashed: Vec<Crashed>,
}

/// What a child says.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It runs this case next.
    Begin(u64),
    /// The file is done.
    Done(Box<Suite>),
    /// The file cannot be read.
    Refused(String),
}

impl Answer {
    /// Reads a line that a child wrote.
    pub fn parse(line: &str) -> Option<Answer> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "b" => rest.parse().ok().map(Answer::Begin),
            "s" => serde_json::from_str(rest).ok().map(Answer::Done),
            "r" => Some(Answer::Refused(rest.to_owned())),
            _ => None,
        }
    }
}

/// The child's side: takes jobs until there are no more. The error is what the parent's pipe said.
pub fn serve(jobs: impl BufRead, mut answers: impl Write) -> std::io::Result<()> {
    // A panic of the processor is caught and reported with its case.
    std::panic::set_hook(Box::new(|_| {}));
    let mut runner: Option<Kept> = None;
    for line in jobs.lines() {
        let job: Job = serde_json::from_str(&line?).map_err(std::io::Error::other)?;
        match run(&job, &mut runner, &mut answers) {
            Ok(suite) => writeln!(answers, "s {}", serde_json::to_string(&suite).map_err(std::io::Error::other)?)?,
            Err(sentence) => writeln!(answers, "r {}", sentence.replace('\n', " "))?,
        }
        answers.flush()?;
    }
    Ok(())
}

/// A runner for the next job, and what it was made for.
type Kept = ((String, Engine, MemoryPolicy), Runner);

fn run(job: &Job, kept: &mut Option<Kept>, answers: &mut impl Write) -> Result<Suite, String> {
    let wanted = (job.model.clone(), job.engine, job.options.memory);
    if kept.as_ref().is_some_and(|(made_for, _)| *made_for != wanted) {
        *kept = None;
    }
    let (_, runner) = match kept {
        Some(kept) => kept,
        None => {
            let fresh = Runner::with_engine(&wanted.0, wanted.1, wanted.2).map_err(|error| error.to_string())?;
            kept.insert((wanted, fresh))
        }
    };
    let mut begin = |number: u64| {
        // Should the parent be gone, the answer at the end fails too.
        let _ = writeln!(answers, "b {number}").and_then(|()| answers.flush());
    };
    suite::run_file_watched(runner, &job.file, &job.options, &job.crashed, &mut begin)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(file: &std::path::Path, crashed: Vec<Crashed>) -> Vec<Answer> {
        let options = Options::default();
        let job = Job { file: file.to_owned(), model: "max".into(), engine: Engine::Interp, options, crashed };
        let mut out = Vec::new();
        serve(format!("{}\n", serde_json::to_string(&job).unwrap()).as_bytes(), &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(|line| Answer::parse(line).unwrap()).collect()
    }

    #[test]
    fn a_case_that_crashed_is_reported_and_not_run_again() {
        let file = std::env::temp_dir().join(format!("umbra-worker-{}.jsonl", std::process::id()));
        let case = r#"{"m":64,"b":"90","n":"nop","i":{},"o":{"rip":1}}"#;
        std::fs::write(&file, format!("{case}\n{case}\n{case}\n")).unwrap();
        let all = answers(&file, Vec::new());
        let begun = |answers: &[Answer]| answers.iter().filter(|a| matches!(a, Answer::Begin(_))).count();
        assert_eq!(begun(&all), 3);
        let some = answers(&file, vec![(1, "the process crashed (SIGSEGV)".into())]);
        assert_eq!(begun(&some), 2);
        let Some(Answer::Done(suite)) = some.last() else { panic!("{some:?}") };
        assert_eq!((suite.counts.passed, suite.counts.failed), (2, 1));
        std::fs::write(&file, "{").unwrap();
        let refused = answers(&file, Vec::new());
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(refused.as_slice(), [Answer::Refused(sentence)] if sentence.contains(":1: ")), "{refused:?}");
        assert!(Answer::parse("x").is_none() && Answer::parse("b x").is_none());
    }
}
