//! Runs vector files: `cargo run -p umbra-conformance --release --example vectors -- PATH…`
//!
//! A line a file with its pass count, the first failures of each, and the sum. Ends with status 1 if anything failed and
//! with 2 if the command line or a file is wrong.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use umbra_conformance::expected::ExpectedFailures;
use umbra_conformance::html;
use umbra_conformance::report::{Detail, Report};
use umbra_conformance::run::{By, Runner};
use umbra_conformance::suite::{self, Options, Shard};

const USAGE: &str = "usage: vectors PATH… [--filter TEXT|GLOB] [--limit N] [--shard I/N] [--failures N] [--cpu MODEL] [--engine interp|jit]
               [--expected FILE] [--junit FILE] [--json FILE] [--html FILE] [--all]";

struct Arguments {
    paths: Vec<PathBuf>,
    options: Options,
    failures: usize,
    model: String,
    by: By,
    junit: Option<PathBuf>,
    json: Option<PathBuf>,
    html: Option<PathBuf>,
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments {
        paths: Vec::new(),
        options: Options::default(),
        failures: 3,
        model: "max".into(),
        by: By::Interpreter,
        junit: None,
        json: None,
        html: None,
    };
    parsed.options.repeat = "cargo run -p umbra-conformance --release --example vectors --".into();
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        if !argument.starts_with("--") {
            parsed.paths.push(argument.into());
            continue;
        }
        if argument == "--all" {
            parsed.options.detail = Detail::EveryCase;
            continue;
        }
        let value = given.next().ok_or_else(|| format!("{argument} needs a value\n{USAGE}"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{argument} {value}: no number"));
        match argument.as_str() {
            "--filter" => parsed.options.filter = Some(value),
            "--limit" => parsed.options.limit = Some(number()?),
            "--failures" => parsed.failures = number()? as usize,
            "--cpu" => parsed.model = value,
            "--engine" => {
                parsed.by = match value.as_str() {
                    "interp" => By::Interpreter,
                    "jit" => By::Jit,
                    _ => return Err(format!("--engine {value}: should be interp or jit")),
                };
            }
            "--junit" => parsed.junit = Some(value.into()),
            "--html" => parsed.html = Some(value.into()),
            "--json" => parsed.json = Some(value.into()),
            "--shard" => {
                let shard =
                    Shard::parse(&value).ok_or_else(|| format!("--shard {value}: should be I/N, I from 1 to N"))?;
                parsed.options.shard = Some(shard);
            }
            "--expected" => {
                let text = std::fs::read_to_string(&value).map_err(|e| format!("{value}: cannot read: {e}"))?;
                parsed.options.expected =
                    ExpectedFailures::parse(Path::new(&value), &text).map_err(|e| e.to_string())?;
            }
            _ => return Err(format!("unknown option {argument}\n{USAGE}")),
        }
    }
    if parsed.paths.is_empty() { Err(USAGE.into()) } else { Ok(parsed) }
}

fn run(arguments: &Arguments) -> Result<Report, String> {
    let runner = Runner::new(&arguments.model).and_then(|runner| runner.executed_by(arguments.by));
    let mut runner = runner.map_err(|e| e.to_string())?;
    let mut report = Report::default();
    for path in &arguments.paths {
        for file in suite::find(path).map_err(|e| e.to_string())? {
            let suite = suite::run_file(&mut runner, &file, &arguments.options).map_err(|e| e.to_string())?;
            if suite.counts.total() == 0 {
                continue;
            }
            // Each suite is shown when it is done; the sum follows at the end.
            let one = Report { suites: vec![suite] };
            let text = one.to_text(arguments.failures);
            let without_sum = text.trim_end().rsplit_once('\n').map_or("", |(head, _)| head);
            let lines = without_sum.lines().filter(|l| !l.starts_with("not compared"));
            let mut out = std::io::stdout().lock();
            lines.for_each(|l| drop(writeln!(out, "{l}")));
            report.merge(one);
        }
    }
    Ok(report)
}

fn write(path: Option<&Path>, contents: impl FnOnce() -> Result<String, String>) -> Result<(), String> {
    match path {
        None => Ok(()),
        Some(path) => std::fs::write(path, contents()?).map_err(|e| format!("{}: cannot write: {e}", path.display())),
    }
}

fn main() -> ExitCode {
    // A panic of the processor is caught and reported with its case.
    std::panic::set_hook(Box::new(|_| {}));
    let finished = arguments().and_then(|arguments| {
        let report = run(&arguments)?;
        write(arguments.junit.as_deref(), || report.to_junit("umbra vectors").map_err(|e| e.to_string()))?;
        write(arguments.json.as_deref(), || report.to_json().map_err(|e| e.to_string()))?;
        write(arguments.html.as_deref(), || Ok(html::page(&report, "Umbra: instruction vectors")))?;
        let whole = report.to_text(0);
        let tail = whole.lines().filter(|l| l.starts_with("not compared") || l.starts_with("all "));
        tail.for_each(|l| println!("{l}"));
        Ok(report.counts().good())
    });
    match finished {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}
