//! `umbra bench`: boots a guest and runs guestbench in it with each engine, natively (`--native`) and in QEMU TCG
//! (`--against qemu`), all in one sitting and in turns; prints CPU seconds, ratios and their geometric means by family, as text,
//! JSON or a chart. The README's table is made by it.
//!
//! Each run is a child process with its serial port on standard output. guestbench `-m` marks where each kernel begins and
//! ends, so that the child's CPU time between the marks is the kernel's, whatever the guest's clock says.

mod chart;
mod measure;
mod prepare;
mod table;

use crate::cli::BenchArgs;
use crate::exit_status::{ExitStatus, Failure};
use measure::{Run, measure};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use table::{Column, Table};
use umbra_machine::config::Engine;

/// What is measured.
struct Bench {
    kernel: PathBuf,
    initrd: PathBuf,
    guestbench: PathBuf,
    /// Words for guestbench; none: boots only.
    words: Option<Vec<String>>,
    wide: bool,
    disable: Vec<String>,
}

/// Who runs it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Runner<'a> {
    /// With an engine, a processor model, and an optimisation that is switched off.
    Umbra(Engine, Option<&'a str>, Option<&'a str>),
    Qemu(&'static str),
    Native,
}

impl Runner<'_> {
    fn name(self) -> String {
        match self {
            Runner::Umbra(engine, model, without) => {
                let mut name = umbra_conformance::engine::name(engine).to_owned();
                name.extend(model.iter().flat_map(|model| [" ", model]));
                name.extend(without.iter().flat_map(|without| [" -", without]));
                name
            }
            Runner::Qemu(_) => "qemu".to_owned(),
            Runner::Native => "native".to_owned(),
        }
    }
}

/// `umbra bench`.
pub fn run(args: &BenchArgs) -> Result<ExitStatus, Failure> {
    umbra_machine::check_optimisations(&[args.disable.as_slice(), &args.without].concat())?;
    let wide = matches!(args.kernel.as_str(), "amd64" | "cloud");
    let folder = args.guests.clone().unwrap_or_else(|| crate::try_linux::default_cache().join("bench"));
    let bits = if wide { 64 } else { 32 };
    let bench = Bench {
        kernel: folder.join(format!("kernels/vmlinuz-{}", args.kernel)),
        initrd: folder.join(format!("img/initrd{bits}.cpio.gz")),
        guestbench: folder.join(format!("bin/guestbench{bits}")),
        words: match args.select.as_str() {
            "none" => None,
            select => Some(std::iter::once("-m").chain(select.split_whitespace()).map(str::to_owned).collect()),
        },
        wide,
        disable: args.disable.clone(),
    };
    prepare::guest(&folder, &args.kernel, wide)?;
    let engines = if args.engine.is_empty() { &[Engine::Jit][..] } else { &args.engine };
    let models: Vec<Option<&str>> = match args.cpu.as_slice() {
        [] => vec![None],
        models => models.iter().map(|model| Some(model.as_str())).collect(),
    };
    let without: Vec<Option<&str>> =
        std::iter::once(None).chain(args.without.iter().map(|name| Some(name.as_str()))).collect();
    let mut runners = Vec::new();
    for &engine in engines {
        for &model in &models {
            runners.extend(without.iter().map(|&without| Runner::Umbra(engine, model, without)));
        }
    }
    if args.against.is_some() {
        runners.push(Runner::Qemu(find_qemu(wide)?));
    }
    if args.native && bench.words.is_some() {
        runners.push(Runner::Native);
    }
    let mut columns: Vec<Column> =
        runners.iter().map(|runner| Column { name: runner.name(), runs: Vec::new() }).collect();
    for turn in 1..=args.repeat.get() {
        for (runner, column) in runners.iter().zip(&mut columns) {
            eprintln!("umbra: run {turn} of {}: {}", args.repeat, runner.name());
            column.runs.push(measure(&mut bench.command(*runner)?, args.timeout.0)?);
        }
    }
    let table = Table::new(&args.kernel, &columns);
    if let Some(path) = &args.svg {
        std::fs::write(path, chart::svg(&table))
            .map_err(|error| Failure::host(format!("--svg {}: {error}; try another path", path.display())))?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&table).unwrap_or_default());
    } else {
        print!("{}", table.text());
    }
    let ours = runners.iter().zip(&columns).filter(|(runner, _)| matches!(runner, Runner::Umbra(..)));
    let complete = ours.flat_map(|(_, column)| &column.runs).all(|run: &Run| run.done);
    if !complete {
        eprintln!("umbra: a run in Umbra did not come to its end; try a longer --timeout, or umbra run to see it");
    }
    Ok(if complete && table.same_results() { ExitStatus::GOOD } else { ExitStatus::FAILURES })
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
    fn command(&self, runner: Runner<'_>) -> Result<Command, Failure> {
        match runner {
            Runner::Umbra(engine, model, without) => self.umbra(engine, model, without),
            Runner::Qemu(program) => Ok(self.qemu(program)),
            Runner::Native => {
                let mut command = Command::new(&self.guestbench);
                command.args(self.words.iter().flatten());
                Ok(command)
            }
        }
    }
    fn append(&self) -> String {
        let words = self.words.as_ref().map_or("none".to_owned(), |words| words.join(","));
        format!("console=ttyS0 quiet panic=-1 gb={words}")
    }
    fn umbra(&self, engine: Engine, model: Option<&str>, without: Option<&str>) -> Result<Command, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::host(format!("this program's own path is unknown ({error}); try a full path")))?;
        let mut command = Command::new(program);
        command.args(["run", "--headless", "--json", "--engine", umbra_conformance::engine::name(engine)]);
        command.args(["-m", "256M", "--on-reset", "exit", "--kernel"]);
        command.arg(&self.kernel).arg("--initrd").arg(&self.initrd).args(["--append", &self.append()]);
        if let Some(model) = model {
            command.args(["--cpu", model]);
        }
        if engine == Engine::Both {
            command.args(["--clock", "virtual"]);
        }
        let disable: Vec<&str> = self.disable.iter().map(String::as_str).chain(without).collect();
        if !disable.is_empty() {
            command.args(["--disable", &disable.join(",")]);
        }
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
        command.arg(&self.kernel).arg("-initrd").arg(&self.initrd).args(["-append", &self.append()]);
        if self.wide {
            command.args(["-cpu", "max"]);
        }
        command
    }
}
