//! From the files and folders that a user names to outcomes: finding, reading, filtering, sharding, running, recording.

use crate::case::Case;
use crate::error::{FormatError, Position};
use crate::expected::{ExpectedFailures, glob};
use crate::moo::{self, Recorded};
use crate::report::{CaseReport, Detail, Outcome, Suite};
use crate::run::{A20, Difference, Runner};
use crate::{jsonl, profile, source, vendor};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// One part of a run that is spread over several machines: cases whose number in the suite is `index` modulo `count`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug)]
pub struct Options {
    /// Only cases whose "suite/case text" contains this, or matches it if it has a `*`.
    pub filter: Option<String>,
    /// At most this many cases of each file.
    pub limit: Option<u64>,
    /// Only a part.
    pub shard: Option<Shard>,
    /// What is known to fail.
    pub expected: ExpectedFailures,
    /// Which cases the report names.
    pub detail: Detail,
    /// How a command line that repeats one case starts.
    pub repeat: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            filter: None,
            limit: None,
            shard: None,
            expected: ExpectedFailures::default(),
            detail: Detail::Failures,
            repeat: "umbra test".into(),
        }
    }
}

impl Options {
    fn wants(&self, number: u64, name: &str) -> bool {
        let mine = self.shard.is_none_or(|s| number % s.count == s.index);
        mine && self.filter.as_deref().is_none_or(|f| if f.contains('*') { glob(f, name) } else { name.contains(f) })
    }
}

/// The vector files behind a path: itself, or all in a folder and the folders below it, sorted.
pub fn find(path: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let whole = |what: String| FormatError::new(path, Position::Whole, what);
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| whole(format!("cannot list: {e}")))?;
        for entry in entries.flatten() {
            let entry = entry.path();
            if entry.is_dir() {
                folders.push(entry);
            } else if format_of(&entry).is_some() {
                found.push(entry);
            }
        }
    }
    if found.is_empty() {
        return Err(whole("holds no vector files (*.MOO.gz, *.jsonl.gz)".into()));
    }
    found.sort();
    Ok(found)
}

/// The formats, by name.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Format {
    Moo,
    JsonLines,
}

fn format_of(file: &Path) -> Option<Format> {
    let name = file.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    if name.ends_with(".moo") { Some(Format::Moo) } else { name.ends_with(".jsonl").then_some(Format::JsonLines) }
}

/// The name of a file's suite: its folder and its name without endings.
pub fn name_of(file: &Path) -> String {
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    let endings = [".moo.gz", ".jsonl.gz", ".moo", ".jsonl"];
    let cut = endings.iter().find(|e| lower.ends_with(**e)).map_or(name.len(), |e| name.len() - e.len());
    let stem = name.get(..cut).unwrap_or(&name);
    match file.parent().and_then(Path::file_name) {
        Some(folder) => format!("{}/{stem}", folder.to_string_lossy()),
        None => stem.to_owned(),
    }
}

/// A case that is ready, or the reason why it is left out.
struct Prepared {
    case: Case,
    left_out: Option<&'static str>,
}

fn load(file: &Path) -> Result<(Vec<Prepared>, A20), FormatError> {
    let data = source::read(file)?;
    let format = format_of(file).unwrap_or(if data.starts_with(b"MOO ") { Format::Moo } else { Format::JsonLines });
    if format == Format::JsonLines {
        let cases = jsonl::parse(file, &data)?;
        let prepare = |mut case: Case| {
            let left_out = if case.named_memory_only { None } else { vendor::adapt(&mut case).err() };
            Prepared { case, left_out }
        };
        return Ok((cases.into_iter().map(prepare).collect(), A20::Open));
    }
    let parsed = moo::parse(file, &data)?;
    let a20 = if parsed.recorded == Recorded::I8086 { A20::Masked } else { A20::Open };
    let prepare = |mut test: moo::MooTest| {
        let left_out = profile::adapt(&mut test, parsed.recorded).err();
        Prepared { case: test.case, left_out }
    };
    Ok((parsed.tests.into_iter().map(prepare).collect(), a20))
}

/// Runs the cases of one file.
pub fn run_file(runner: &mut Runner, file: &Path, options: &Options) -> Result<Suite, FormatError> {
    let started = Instant::now();
    let (cases, a20) = load(file)?;
    runner.set_a20(a20);
    let mut suite = Suite::new(name_of(file));
    let mut left = options.limit.unwrap_or(u64::MAX);
    for (number, Prepared { case, left_out }) in cases.into_iter().enumerate() {
        let full = format!("{}/{} {}", suite.name, case.name, case.text);
        if left == 0 {
            break;
        }
        if !options.wants(number as u64, &full) {
            continue;
        }
        left -= 1;
        let outcome = match left_out {
            Some(reason) => Outcome::Skipped { reason: reason.to_owned() },
            None => outcome(runner.run(&case), &case, &full, options, file),
        };
        suite.record(CaseReport { name: case.name, text: case.text, outcome }, options.detail);
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
                difference: format!("bytes {bytes}\n{difference}"),
                repeat: format!("{} {} --filter '*/{name} *'", options.repeat, file.display()),
            }
        }
    }
}
