//! `umbra test` and `umbra report`: test vectors through the conformance library, our own test ROMs on whole machines.
//!
//! `umbra test roms` runs the embedded test ROMs, `umbra test DIR…` all vector files below a folder.

use crate::cli::{ReportVerb, TestArgs};
use crate::exit_status::{ExitStatus, Failure, advised};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use umbra_conformance::report::{CaseReport, Detail, Outcome, Report, Suite};
use umbra_conformance::run::{By, Runner};
use umbra_conformance::suite::{self, Options, Shard};
use umbra_machine::config::{Clock, Engine};
use umbra_machine::roms::{Rom, TESTS};
use umbra_machine::{Machine, RunEnd, RunLimits};

/// The name under which the embedded ROMs are asked for.
const ROMS: &str = "roms";
/// How long a test ROM may run.
const ROM_TIME: Duration = Duration::from_secs(60);
/// The exit status that a ROM makes when all is well: exit device value 0.
const ROM_GOOD: u8 = 1;

/// `umbra test`.
pub fn test(args: &TestArgs) -> Result<ExitStatus, Failure> {
    let engine = args.engine.unwrap_or_default();
    let shard = args.shard.map(|s| Shard { index: u64::from(s.index) - 1, count: u64::from(s.of) });
    let options = Options { shard, ..Options::default() };
    let mut files = Vec::new();
    let mut roms: Vec<&'static Rom> = Vec::new();
    for what in &args.what {
        let name = what.to_string_lossy();
        if name == ROMS {
            roms.extend(TESTS);
        } else if let Some(rom) = TESTS.iter().find(|rom| rom.name == name) {
            roms.push(rom);
        } else if what.exists() {
            files.extend(suite::find(what).map_err(|error| Failure::input(advised(error, "another folder")))?);
        } else {
            let names: Vec<&str> = TESTS.iter().map(|rom| rom.name).collect();
            return Err(Failure::input(format!(
                "{name}: there is no such file, folder or suite; try roms, one of {}, or a folder of test vectors",
                names.join(", ")
            )));
        }
    }
    let roms = roms.into_iter().enumerate();
    let roms: Vec<&Rom> =
        roms.filter(|(n, _)| shard.is_none_or(|s| *n as u64 % s.count == s.index)).map(|(_, rom)| rom).collect();
    let mut report = Report::default();
    if !roms.is_empty() {
        report.suites.push(run_roms(&roms, engine));
    }
    run_files(&files, &options, engine, &mut report)?;
    finish(&report, args.json, args.junit.as_deref())
}

fn bar(count: usize) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos}/{len} {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn run_files(files: &[PathBuf], options: &Options, engine: Engine, report: &mut Report) -> Result<(), Failure> {
    if files.is_empty() {
        return Ok(());
    }
    let by: &[By] = match engine {
        Engine::Interp => &[By::Interpreter],
        Engine::Jit => &[By::Jit],
        Engine::Both => &[By::Interpreter, By::Jit],
    };
    for by in by {
        run_files_by(files, options, *by, report)?;
    }
    Ok(())
}

fn run_files_by(files: &[PathBuf], options: &Options, by: By, report: &mut Report) -> Result<(), Failure> {
    let runner = Runner::new("max").and_then(|runner| runner.executed_by(by));
    let mut runner = runner.map_err(|error| Failure::host(advised(error, "with more free memory")))?;
    let bar = bar(files.len());
    for file in files {
        bar.set_message(file.display().to_string());
        let suite = suite::run_file(&mut runner, file, options)
            .map_err(|error| Failure::input(advised(error, "to fetch the file again")))?;
        if suite.counts.total() != 0 {
            report.merge(Report { suites: vec![suite] });
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn run_roms(roms: &[&Rom], engine: Engine) -> Suite {
    let mut suite = Suite::new(ROMS);
    let started = Instant::now();
    let bar = bar(roms.len());
    for rom in roms {
        bar.set_message(rom.name);
        let outcome = match run_rom(rom, engine) {
            Ok(()) => Outcome::Passed,
            Err(difference) => Outcome::Failed { difference, repeat: format!("umbra test {}", rom.name) },
        };
        let case = CaseReport { name: rom.name.to_owned(), text: rom.description.to_owned(), outcome };
        suite.record(case, Detail::EveryCase);
        bar.inc(1);
    }
    bar.finish_and_clear();
    suite.seconds = started.elapsed().as_secs_f64();
    suite
}

/// Runs one ROM; the error is how it ended and the end of its story.
fn run_rom(rom: &Rom, engine: Engine) -> Result<(), String> {
    let builder = Machine::builder().memory(64 << 20).clock(Clock::Virtual).engine(engine);
    // A test ROM runs most of its code once: the JIT makes code of it at once.
    let builder = builder.jit_threshold(1).rom(rom.name, rom.image);
    let mut machine = builder.build().map_err(|error| error.to_string())?;
    let story: Arc<Mutex<Vec<u8>>> = Arc::default();
    let sink = story.clone();
    machine.connect_serial(0, Box::new(move |bytes| sink.lock().extend_from_slice(bytes)));
    let end = machine.run(RunLimits { deadline: Instant::now().checked_add(ROM_TIME), ..RunLimits::default() });
    if end == RunEnd::GuestExit(ROM_GOOD) {
        return Ok(());
    }
    let story = story.lock();
    let text = String::from_utf8_lossy(&story);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(5)..).unwrap_or(&[]).join("\n");
    Err(match end {
        RunEnd::GuestExit(status) => format!("check {} failed\n{tail}", status >> 1),
        RunEnd::Diverged => machine.divergence().map_or_else(String::new, |divergence| divergence.text.clone()),
        other => format!("{other:?}\n{tail}"),
    })
}

fn finish(report: &Report, json: bool, junit: Option<&Path>) -> Result<ExitStatus, Failure> {
    if let Some(path) = junit {
        write_junit(report, path)?;
    }
    if json {
        println!("{}", report.to_json().unwrap_or_default());
    } else {
        print!("{}", report.to_text(3));
    }
    Ok(if report.counts().good() { ExitStatus::GOOD } else { ExitStatus::FAILURES })
}

fn write_junit(report: &Report, path: &Path) -> Result<(), Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::host(format!("{}: {error}; try another path", path.display()));
    let text = report.to_junit("umbra test").map_err(|error| bad(&error))?;
    std::fs::write(path, text).map_err(|error| bad(&error))
}

/// `umbra report`.
pub fn report(verb: &ReportVerb) -> Result<ExitStatus, Failure> {
    let ReportVerb::Merge { files, junit, json } = verb;
    let mut whole = Report::default();
    for file in files {
        let bytes = std::fs::read(file).map_err(|error| {
            Failure::input(format!("{}: {error}; try a report of umbra test --json", file.display()))
        })?;
        let part = Report::from_json(file, &bytes)
            .map_err(|error| Failure::input(advised(error, "a report of umbra test --json")))?;
        whole.merge(part);
    }
    finish(&whole, *json, junit.as_deref())
}
