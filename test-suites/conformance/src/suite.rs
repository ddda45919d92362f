//! From the files and folders that a user names to outcomes: finding, reading, filtering, sharding, running, recording.

use crate::case::Case;
use crate::error::{FormatError, Position};
use crate::expected::{ExpectedFailures, glob};
use crate::format::{self, Format};
use crate::moo::{self, Recorded};
use crate::report::{CaseReport, Detail, Outcome, Suite};
use crate::run::{A20, Difference, Runner};
use crate::{family, jsonl, profile, shell, source, vendor};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;
use umbra_cpu::decode::Encoding;
use umbra_machine::config::MemoryPolicy;

/// One part of a run that is spread over several machines: cases whose number in the suite is `index` modulo `count`.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// From 0.
    pub index: u64,
    /// At least 1.
    pub count: u64,
}

impl Shard {
    /// Reads "i/n", with i from 1 to n.
    pub fn parse(text: &str) -> Option<Shard> {
        let (index, count) = text.split_once('/')?;
        let (index, count) = (index.parse::<u64>().ok()?, count.parse::<u64>().ok()?);
        (1..=count).contains(&index).then(|| Shard { index: index - 1, count })
    }
}

/// What to run of the files, and what to say about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Only cases whose "suite/case text" contains this, or matches it if it has a `*`.
    pub filter: Option<String>,
    /// At most this many cases of each file.
    pub limit: Option<u64>,
    /// Only a part.
    pub shard: Option<Shard>,
    /// What is known to fail.
    pub expected: ExpectedFailures,
    /// How guest memory is kept while they run.
    pub memory: MemoryPolicy,
    /// Which cases the report names.
    pub detail: Detail,
    /// How a command line that repeats one case starts.
    pub repeat: String,
    /// What is put behind the names of suites, to tell several runs of the same files apart.
    pub label: Option<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            filter: None,
            limit: None,
            shard: None,
            expected: ExpectedFailures::default(),
            memory: MemoryPolicy::default(),
            detail: Detail::Failures,
            repeat: "umbra test".into(),
            label: None,
        }
    }
}

impl Options {
    /// The name of a file's suite in this run.
    pub fn suite_name(&self, file: &Path) -> String {
        match &self.label {
            Some(label) => format!("{} ({label})", format::suite_name(file)),
            None => format::suite_name(file),
        }
    }
    /// Whether a test is wanted: by its number among those of its file or list, and its full name.
    pub fn wants(&self, number: u64, name: &str) -> bool {
        let mine = self.shard.is_none_or(|s| number % s.count == s.index);
        mine && self.filter.as_deref().is_none_or(|f| if f.contains('*') { glob(f, name) } else { name.contains(f) })
    }
}

/// The vector files behind a path: itself, or all in a folder and the folders below it, sorted.
pub fn find(path: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let found = format::find(path)?;
    let vectors = found.into_iter().filter(|f| matches!(f.format, Format::Moo | Format::JsonLines));
    Ok(vectors.map(|f| f.path).collect())
}

/// A case that is ready, or the reason why it is left out.
struct Prepared {
    case: Case,
    left_out: Option<&'static str>,
}

/// The cases of a file, and what the processor that they are for is like.
struct Loaded {
    cases: Vec<Prepared>,
    a20: A20,
    encoding: Encoding,
}

fn load(file: &Path) -> Result<Loaded, FormatError> {
    let data = source::read(file)?;
    let format = format::vectors_by_name(file).unwrap_or(if data.starts_with(b"MOO ") {
        Format::Moo
    } else {
        Format::JsonLines
    });
    if format == Format::JsonLines {
        let cases = jsonl::parse(file, &data)?;
        let prepare = |mut case: Case| {
            let left_out = if case.named_memory_only { None } else { vendor::adapt(&mut case).err() };
            Prepared { case, left_out }
        };
        let cases = cases.into_iter().map(prepare).collect();
        return Ok(Loaded { cases, a20: A20::Open, encoding: Encoding::default() });
    }
    let parsed = moo::parse(file, &data)?;
    let (a20, encoding) = match parsed.recorded {
        Recorded::I8086 => (A20::Masked, Encoding::I80386),
        Recorded::I80286 => (A20::Open, Encoding::I80286),
        Recorded::I80386 => (A20::Open, Encoding::I80386),
    };
    let prepare = |mut test: moo::MooTest| {
        let left_out = profile::adapt(&mut test, parsed.recorded).err();
        Prepared { case: test.case, left_out }
    };
    Ok(Loaded { cases: parsed.tests.into_iter().map(prepare).collect(), a20, encoding })
}

/// A case that took the process down when it was run before: its number in the file, and how.
pub type Crashed = (u64, String);

/// The full names of the cases of one file that are wanted.
pub fn list_file(file: &Path, options: &Options) -> Result<Vec<String>, FormatError> {
    let Loaded { cases, .. } = load(file)?;
    let name = options.suite_name(file);
    let names = cases.iter().map(|p| format!("{name}/{} {}", p.case.name, p.case.text).trim_end().to_owned());
    let wanted = names.enumerate().filter(|(number, full)| options.wants(*number as u64, full)).map(|(_, full)| full);
    Ok(wanted.take(options.limit.unwrap_or(u64::MAX) as usize).collect())
}

/// Runs the cases of one file.
pub fn run_file(runner: &mut Runner, file: &Path, options: &Options) -> Result<Suite, FormatError> {
    run_file_watched(runner, file, options, &[], &mut |_| {})
}

/// The same for a process that may not live to the end: `begin` is told each case before it runs, and cases that are known
/// to take the process down are reported and not run.
pub fn run_file_watched(
    runner: &mut Runner,
    file: &Path,
    options: &Options,
    crashed: &[Crashed],
    begin: &mut dyn FnMut(u64),
) -> Result<Suite, FormatError> {
    let started = Instant::now();
    let Loaded { cases, a20, encoding } = load(file)?;
    runner.set_encoding(encoding).map_err(|error| FormatError::new(file, Position::Whole, error.to_string()))?;
    runner.set_a20(a20);
    let mut suite = Suite::new(options.suite_name(file));
    let mut left = options.limit.unwrap_or(u64::MAX);
    for (number, Prepared { case, left_out }) in cases.into_iter().enumerate() {
        let number = number as u64;
        let full = format!("{}/{} {}", suite.name, case.name, case.text);
        if left == 0 {
            break;
        }
        if !options.wants(number, &full) {
            continue;
        }
        left -= 1;
        let how = crashed.iter().find(|(n, _)| *n == number).map(|(_, how)| how.clone());
        let outcome = match (left_out, how) {
            (Some(reason), _) => Outcome::Skipped { reason: reason.to_owned() },
            (None, Some(how)) => outcome(Err(Difference(how)), &case, &full, options, file),
            (None, None) => {
                begin(number);
                outcome(runner.run(&case), &case, &full, options, file)
            }
        };
        let family = family::of_case(&case, &suite.name);
        suite.record_in(&family, CaseReport { name: case.name, text: case.text, outcome, run: None }, options.detail);
    }
    suite.seconds = started.elapsed().as_secs_f64();
    Ok(suite)
}

fn outcome(result: Result<(), Difference>, case: &Case, full: &str, options: &Options, file: &Path) -> Outcome {
    let expected = options.expected.reason(full).map(str::to_owned);
    match (result, expected) {
        (Ok(()), None) => Outcome::Passed,
        (Ok(()), Some(reason)) => Outcome::UnexpectedPass { reason },
        (Err(_), Some(reason)) => Outcome::ExpectedFailure { reason },
        (Err(Difference(difference)), None) => {
            let bytes: String = case.code.iter().map(|b| format!("{b:02x}")).collect();
            let short = full.rsplit_once('/').map_or(full, |(_, s)| s);
            let name = short.split(' ').next().unwrap_or(short);
            Outcome::Failed {
                difference: if bytes.is_empty() { difference } else { format!("bytes {bytes}\n{difference}") },
                repeat: format!("{} {} --filter '*/{name} *'", options.repeat, shell::word(&file.to_string_lossy())),
            }
        }
    }
}
