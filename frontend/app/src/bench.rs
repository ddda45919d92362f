//! `umbra bench`: boots a guest and runs guestbench in it, in Umbra and, with `--against qemu`, in QEMU TCG in the same
//! sitting, in turns; prints CPU seconds of both and the ratios.
//!
//! Each run is a child process with its serial port on standard output. guestbench `-m` marks where each kernel begins and
//! ends, so that the child's CPU time between the marks is the kernel's, whatever the guest's clock says.

mod measure;

use crate::cli::BenchArgs;
use crate::exit_status::{ExitStatus, Failure};
use measure::{Run, measure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use umbra_machine::config::Engine;

/// What is measured.
struct Bench {
    kernel: PathBuf,
    initrd: PathBuf,
    append: String,
    wide: bool,
    engine: &'static str,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    name: String,
    /// CPU seconds in Umbra.
    umbra: f64,
    /// CPU seconds in the other emulator.
    other: Option<f64>,
    /// How many times faster Umbra is.
    times_faster: Option<f64>,
    /// Both came to the same checksum.
    same_result: Option<bool>,
}

/// `umbra bench`.
pub fn run(args: &BenchArgs) -> Result<ExitStatus, Failure> {
    let wide = matches!(args.kernel.as_str(), "amd64" | "cloud");
    let engine = match args.engine.unwrap_or_default() {
        Engine::Interp => "interp",
        Engine::Jit => "jit",
        Engine::Both => return Err(Failure::not_yet("the engine both", "--engine interp or --engine jit")),
    };
    let words = match args.select.as_str() {
        "none" => "none".to_owned(),
        select => std::iter::once("-m").chain(select.split_whitespace()).collect::<Vec<_>>().join(","),
    };
    let bench = Bench {
        kernel: args.guests.join(format!("kernels/vmlinuz-{}", args.kernel)),
        initrd: args.guests.join(if wide { "img/initrd64.cpio.gz" } else { "img/initrd32.cpio.gz" }),
        append: format!("console=ttyS0 quiet panic=-1 gb={words}"),
        wide,
        engine,
    };
    for file in [&bench.kernel, &bench.initrd] {
        if !file.exists() {
            return Err(Failure::input(format!(
                "{}: there is no such file; try --guests DIR with a folder that holds kernels and img",
                file.display()
            )));
        }
    }
    let qemu = match &args.against {
        Some(_) => Some(find_qemu(wide)?),
        None => None,
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for turn in 1..=args.repeat.get() {
        eprintln!("umbra: run {turn} of {}: Umbra", args.repeat);
        ours.push(measure(&mut bench.umbra()?, args.timeout.0)?);
        if let Some(program) = &qemu {
            eprintln!("umbra: run {turn} of {}: {program}", args.repeat);
            theirs.push(measure(&mut bench.qemu(program), args.timeout.0)?);
        }
    }
    let rows = table(&ours, &theirs);
    if args.json {
        println!("{}", serde_json::to_string(&rows).unwrap_or_default());
    } else {
        print!("{}", text(&rows));
    }
    let complete = ours.iter().all(|run| run.done);
    if !complete {
        eprintln!("umbra: a run in Umbra did not come to its end; try a longer --timeout, or umbra run to see it");
    }
    let same = rows.iter().all(|row| row.same_result != Some(false));
    Ok(if complete && same { ExitStatus::GOOD } else { ExitStatus::FAILURES })
}

/// The QEMU that runs such guests.
fn find_qemu(wide: bool) -> Result<&'static str, Failure> {
    let program = if wide { "qemu-system-x86_64" } else { "qemu-system-i386" };
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => Ok(program),
        _ => Err(Failure::host(format!("{program} is not installed; try apt-get install qemu-system-x86"))),
    }
}

impl Bench {
    fn umbra(&self) -> Result<Command, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::host(format!("this program's own path is unknown ({error}); try a full path")))?;
        let mut command = Command::new(program);
        command.args(["run", "--headless", "--engine", self.engine, "-m", "256M", "--on-reset", "exit", "--kernel"]);
        command.arg(&self.kernel).arg("--initrd").arg(&self.initrd).args(["--append", &self.append]);
        Ok(command)
    }
    fn qemu(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        #[rustfmt::skip]
        command.args([
            "-accel", "tcg", "-m", "256", "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot", "-nic", "none",
            "-kernel",
        ]);
        // The 64-bit default model lacks what the guest's own compiler may use: the widest that both have.
        command.arg(&self.kernel).arg("-initrd").arg(&self.initrd).args(["-append", &self.append]);
        if self.wide {
            command.args(["-cpu", "max"]);
        }
        command
    }
}

/// The median; not a number if there is nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn table(ours: &[Run], theirs: &[Run]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: &str, pick: &dyn Fn(&Run) -> Option<f64>, same: Option<bool>| {
        let umbra = median(ours.iter().filter_map(pick).collect());
        let other = median(theirs.iter().filter_map(pick).collect());
        let other = (!other.is_nan()).then_some(other);
        if !umbra.is_nan() {
            let times_faster = other.filter(|_| umbra > 0.0).map(|other| other / umbra);
            rows.push(Row { name: name.to_owned(), umbra, other, times_faster, same_result: same });
        }
    };
    row("boot", &|run| run.boot_cpu, None);
    let mut names: Vec<&String> = Vec::new();
    for run in ours {
        names.extend(run.kernels.iter().map(|kernel| &kernel.name));
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert((*name).clone()));
    for name in names {
        let find = |run: &Run| run.kernels.iter().find(|kernel| kernel.name == *name).cloned();
        let sums = |runs: &[Run]| runs.iter().filter_map(find).map(|kernel| kernel.sum).collect::<Vec<_>>();
        let (mine, other) = (sums(ours), sums(theirs));
        let same = (!other.is_empty()).then(|| mine.iter().chain(&other).all(|sum| Some(sum) == mine.first()));
        row(name, &|run| find(run).map(|kernel| kernel.cpu), same);
    }
    row("whole run", &|run| run.total_cpu, None);
    rows
}

fn text(rows: &[Row]) -> String {
    let mut text = format!("{:<16} {:>10} {:>10} {:>8}\n", "", "Umbra s", "other s", "faster");
    let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for row in rows {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let times = row.times_faster.map_or("-".to_owned(), |times| format!("{times:.2} x"));
        let wrong = if row.same_result == Some(false) { "  RESULTS DIFFER" } else { "" };
        text += &format!("{:<16} {:>10.3} {:>10} {times:>8}{wrong}\n", row.name, row.umbra, number(row.other));
        if let (Some(times), Some((group, _))) = (row.times_faster, row.name.split_once('.')) {
            groups.entry(group).or_default().push(times.ln());
            groups.entry("all").or_default().push(times.ln());
        }
    }
    for (group, logs) in groups {
        let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
        text += &format!("{:<16} {:>10} {:>10} {:>8}\n", format!("mean of {group}"), "", "", format!("{mean:.2} x"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use measure::Kernel;

    fn run(boot: f64, cpu: f64, sum: &str) -> Run {
        let kernel = Kernel { name: "int.crc".to_owned(), cpu, sum: sum.to_owned() };
        Run { boot_cpu: Some(boot), kernels: vec![kernel], total_cpu: Some(9.0), done: true }
    }

    #[test]
    fn medians_and_ratios() {
        let rows = table(&[run(1.0, 2.0, "a"), run(3.0, 4.0, "a"), run(2.0, 9.0, "a")], &[run(4.0, 8.0, "b")]);
        assert_eq!((rows[0].umbra, rows[0].times_faster), (2.0, Some(2.0)));
        assert_eq!((rows[1].umbra, rows[1].times_faster, rows[1].same_result), (4.0, Some(2.0), Some(false)));
        assert!(text(&rows).contains("RESULTS DIFFER"));
        assert!(text(&table(&[run(1.0, 2.0, "a")], &[])).contains("int.crc"));
    }
}
