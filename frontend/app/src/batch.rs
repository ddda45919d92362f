//! `umbra batch`: machines from files, headless, each in a process of its own, some at once, one report.
//!
//! A child is `umbra run FILE --headless --json`; its last line on standard error is its summary. The clock is virtual unless
//! the file says otherwise, so that runs repeat.

use crate::cli::BatchArgs;
use crate::exit_status::{ExitStatus, Failure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// One machine of the report.
#[derive(Clone, Debug, Serialize)]
struct Row {
    file: PathBuf,
    status: i32,
    end: String,
    wall_seconds: f64,
    guest_seconds: f64,
    /// The last line that the guest sent, or the sentence of what was wrong.
    last_line: String,
    summary: Option<serde_json::Value>,
}

/// `umbra batch`.
pub fn run(args: &BatchArgs) -> Result<ExitStatus, Failure> {
    for file in &args.files {
        if !file.exists() {
            return Err(Failure::input(format!("{}: there is no such file; try another path", file.display())));
        }
    }
    let program = std::env::current_exe()
        .map_err(|error| Failure::host(format!("this program's own path is unknown ({error}); try a full path")))?;
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, std::num::NonZeroUsize::get);
    let bar = ProgressBar::new(args.files.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {pos}/{len} {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let (next, (send, results)) = (AtomicUsize::new(0), crossbeam::channel::unbounded());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(args.files.len()) {
            scope.spawn(|| {
                while let Some((number, file)) = {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    args.files.get(number).map(|file| (number, file))
                } {
                    bar.set_message(file.display().to_string());
                    // The receiver outlives this scope.
                    let _ = send.send((number, one(&program, file)));
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut rows: Vec<(usize, Row)> = results.try_iter().collect();
    rows.sort_by_key(|(number, _)| *number);
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    if args.json {
        println!("{}", serde_json::to_string(&rows).unwrap_or_default());
    } else {
        for row in &rows {
            let mark = if row.status == 0 { "ok  " } else { "FAIL" };
            println!(
                "{mark} {:<32} status {:>3} {:<12} {:>8.2} s, guest {:>8.2} s  {}",
                row.file.display(),
                row.status,
                row.end,
                row.wall_seconds,
                row.guest_seconds,
                row.last_line
            );
        }
    }
    let failed = rows.iter().filter(|row| row.status != 0).count();
    eprintln!("umbra: {} of {} machines ended well", rows.len() - failed, rows.len());
    Ok(if failed == 0 { ExitStatus::GOOD } else { ExitStatus::FAILURES })
}

/// Runs one machine in a child.
fn one(program: &Path, file: &Path) -> Row {
    let says_clock = std::fs::read_to_string(file)
        .ok()
        .and_then(|text| text.parse::<toml::Table>().ok())
        .is_some_and(|table| table.contains_key("clock"));
    let mut command = Command::new(program);
    command.args(["run", "--headless", "--json"]).stdin(Stdio::null()).env("NO_COLOR", "1");
    if !says_clock {
        command.args(["--clock", "virtual"]);
    }
    // A file name that looks like an option is none.
    command.arg("--").arg(file);
    let failed = |last_line: String| Row {
        file: file.to_owned(),
        status: i32::from(ExitStatus::HOST.0),
        end: "not-run".to_owned(),
        wall_seconds: 0.0,
        guest_seconds: 0.0,
        last_line,
        summary: None,
    };
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return failed(error.to_string()),
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let json = |text: &str| {
        let line = text.lines().next_back()?;
        serde_json::from_str::<serde_json::Value>(line).ok().filter(|value| value.get("end").is_some())
    };
    let summary = json(&err).or_else(|| json(&out));
    let number = |key: &str| summary.as_ref().and_then(|s| s.get(key)?.as_f64()).unwrap_or(0.0);
    let of_umbra = err.lines().rfind(|line| line.starts_with("umbra: "));
    let of_guest = out.lines().rfind(|line| !line.trim().is_empty() && !line.starts_with('{'));
    Row {
        file: file.to_owned(),
        status: output.status.code().unwrap_or_else(|| i32::from(ExitStatus::HOST.0)),
        end: summary.as_ref().and_then(|s| Some(s.get("end")?.as_str()?.to_owned())).unwrap_or("not-run".to_owned()),
        wall_seconds: number("wall_seconds"),
        guest_seconds: number("guest_seconds"),
        last_line: if summary.is_some() { of_guest.or(of_umbra) } else { of_umbra }.unwrap_or("").to_owned(),
        summary,
    }
}
