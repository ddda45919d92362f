//! `umbra test` and `umbra report`: from what a user names to tests, and from their outcomes to reports.
//!
//! `umbra test roms` runs the embedded test ROMs; any other name is a file or folder, whose formats the conformance library
//! knows. Every test runs in a child of this program: `umbra worker` for vectors, `umbra run` for a machine.

use crate::cli::{ReportVerb, TestArgs};
use crate::exit_status::{ExitStatus, Failure, advised};
use crate::test_run::{self, Plan};
use std::cell::Cell;
use std::path::Path;
use umbra_conformance::expected::ExpectedFailures;
use umbra_conformance::format::{self, Format, Found};
use umbra_conformance::guest::GuestTest;
use umbra_conformance::guest_file::{self, GuestOptions};
use umbra_conformance::moo::Recorded;
use umbra_conformance::pool::Task;
use umbra_conformance::report::{Detail, Report};
use umbra_conformance::suite::{self, Options, Shard};
use umbra_conformance::{cargo_log, engine, profile, shell, vendor, worker};
use umbra_machine::config::Engine;
use umbra_machine::cpu::model::CpuModel;
use umbra_machine::roms::{Rom, TESTS};

/// The name under which the embedded ROMs are asked for.
const ROMS: &str = "roms";
/// The processor's model if none is asked for.
const MODEL: &str = "max";

/// `umbra test`.
pub fn test(args: &TestArgs) -> Result<ExitStatus, Failure> {
    if args.masks {
        print_masks();
        return Ok(ExitStatus::GOOD);
    }
    let engines = engine::engines(args.engine.unwrap_or_else(engine::usual)).map_err(Failure::input)?;
    let model = args.cpu.as_deref().unwrap_or(MODEL);
    if CpuModel::by_name(model).is_none() {
        return Err(Failure::input(format!("there is no processor model \"{model}\"; try --cpu max")));
    }
    let options = options(args)?;
    let mut tasks = Vec::new();
    let mut names = Vec::new();
    let machines = Cell::new(0);
    for &engine in &engines {
        let label = (engines.len() > 1).then(|| engine::name(engine).to_owned());
        let run = EngineRun { engine, label, options: &options, args, machines: &machines };
        for what in &args.what {
            run.collect(what, &mut tasks, &mut names)?;
        }
    }
    if args.list {
        names.iter().for_each(|name| println!("{name}"));
        return Ok(ExitStatus::GOOD);
    }
    let plan = Plan { options: &options, model, jobs: args.jobs, logs: args.logs.as_deref(), guests: None };
    let report = test_run::run(&tasks, &plan)?;
    if report.counts().total() == 0 {
        return Err(Failure::input("no test has such a name, or is in this part; try --list to see the names"));
    }
    test_run::finish(&report, &args.report, "umbra test", || print!("{}", report.to_text(args.failures)))
}

/// What recordings show that is not compared, by what they were recorded on.
fn print_masks() {
    let recorded = [
        ("8086", profile::reasons(Recorded::I8086)),
        ("80286", profile::reasons(Recorded::I80286)),
        ("80386", profile::reasons(Recorded::I80386)),
        ("JSON lines of an AMD processor", vendor::reasons()),
    ];
    for (processor, reasons) in recorded {
        println!("recorded on: {processor}");
        reasons.iter().for_each(|reason| println!("  {reason}"));
    }
}

fn options(args: &TestArgs) -> Result<Options, Failure> {
    let mut expected = ExpectedFailures::default();
    for file in &args.expected {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::input(format!("{}: {error}; try another list", file.display())))?;
        let list =
            ExpectedFailures::parse(file, &text).map_err(|error| Failure::input(advised(error, "PATTERN = REASON")))?;
        expected.extend(list);
    }
    // What one case needs to run again as it ran.
    let mut repeat = vec!["umbra".to_owned(), "test".to_owned()];
    let mut add = |option: &str, value: String| repeat.extend([option.to_owned(), value]);
    if let Some(cpu) = &args.cpu {
        add("--cpu", cpu.clone());
    }
    if let Some(engine) = args.engine {
        add("--engine", engine::name(engine).to_owned());
    }
    if let Some(policy) = args.memory_policy {
        add("--memory-policy", guest_file::policy_name(policy).to_owned());
    }
    args.expected.iter().for_each(|file| add("--expected", file.to_string_lossy().into_owned()));
    Ok(Options {
        filter: args.filter.clone(),
        limit: args.limit,
        shard: args.shard.map(|s| Shard { index: u64::from(s.index) - 1, count: u64::from(s.of) }),
        expected,
        memory: args.memory_policy.unwrap_or_default(),
        detail: if args.all { Detail::EveryCase } else { Detail::Failures },
        repeat: shell::line(repeat.iter().map(String::as_str)),
        label: None,
    })
}

/// What is asked for, on one engine.
struct EngineRun<'a> {
    engine: Engine,
    label: Option<String>,
    options: &'a Options,
    args: &'a TestArgs,
    /// How many machines were met so far, wanted or not: their numbers for --shard.
    machines: &'a Cell<u64>,
}

impl EngineRun<'_> {
    /// Adds the tests behind one name to the tasks, or their names to the list.
    fn collect(&self, what: &Path, tasks: &mut Vec<Task>, names: &mut Vec<String>) -> Result<(), Failure> {
        let name = what.to_string_lossy();
        let roms: Vec<&Rom> = TESTS.iter().filter(|rom| name == ROMS || rom.name == name).collect();
        // A folder of that name is ./roms.
        if !roms.is_empty() && (name == ROMS || !what.exists()) {
            let guests = self.guest_options();
            self.add_guests(roms.iter().map(|rom| guest_file::embedded(rom, &guests)).collect(), tasks, names);
            return Ok(());
        }
        if !what.exists() {
            let known: Vec<&str> = TESTS.iter().map(|rom| rom.name).collect();
            return Err(Failure::input(format!(
                "{name}: there is no such file, folder or suite; try roms, one of {}, or a folder of tests",
                known.join(", ")
            )));
        }
        for found in format::find(what).map_err(|error| Failure::input(advised(error, "another path")))? {
            self.add_file(&found, tasks, names);
        }
        Ok(())
    }

    fn add_file(&self, found: &Found, tasks: &mut Vec<Task>, names: &mut Vec<String>) {
        let refused = |sentence: String| Task::Refused { suite: format::suite_name(&found.path), sentence };
        if matches!(found.format, Format::Moo | Format::JsonLines) {
            if self.args.list {
                let options = Options { label: self.label.clone(), ..self.options.clone() };
                match suite::list_file(&found.path, &options) {
                    Ok(list) => names.extend(list),
                    Err(error) => eprintln!("umbra: {error}"),
                }
            } else {
                let (file, engine, label) = (found.path.clone(), self.engine, self.label.clone());
                tasks.push(Task::Vectors { file, engine, label });
            }
            return;
        }
        match guest_file::tests(found, &self.guest_options()) {
            Ok(guests) => self.add_guests(guests, tasks, names),
            Err(error) if self.args.list => eprintln!("umbra: {error}"),
            Err(error) => tasks.push(refused(error.to_string())),
        }
    }

    fn add_guests(&self, guests: Vec<GuestTest>, tasks: &mut Vec<Task>, names: &mut Vec<String>) {
        for mut test in guests {
            let number = self.machines.replace(self.machines.get() + 1);
            let full = test.full_name();
            if !self.options.wants(number, &full) {
                continue;
            }
            if test.fails.is_none() {
                test.fails = self.options.expected.reason(&full).map(str::to_owned);
            }
            if self.args.list {
                names.push(full);
            } else {
                tasks.push(Task::Guest(Box::new(test)));
            }
        }
    }

    fn guest_options(&self) -> GuestOptions {
        let args = self.args;
        GuestOptions {
            engine: self.engine,
            label: self.label.clone(),
            cpu: args.cpu.clone(),
            memory: args.memory.map(|size| size.to_string()),
            policy: args.memory_policy.unwrap_or_default(),
            post_port: args.post_port,
            expect: args.expect,
            text: args.text.unwrap_or_default(),
            listing: args.listing.clone(),
            bless: args.bless,
            arguments: args.append.clone(),
            environment: args.env.clone(),
            on_crash: args.on_crash.unwrap_or_default(),
            instructions: args.instructions,
            timeout: args.timeout.map(|span| span.0),
        }
    }
}

/// `umbra worker`.
pub fn worker() -> Result<ExitStatus, Failure> {
    let served = worker::serve(std::io::stdin().lock(), std::io::BufWriter::new(std::io::stdout().lock()));
    served
        .map(|()| ExitStatus::GOOD)
        .map_err(|error| Failure::input(format!("a job cannot be read: {error}; try umbra test")))
}

/// `umbra report`.
pub fn report(verb: &ReportVerb) -> Result<ExitStatus, Failure> {
    let ReportVerb::Merge { files, report: args } = verb;
    let mut whole = Report::default();
    for file in files {
        let bytes = std::fs::read(file).map_err(|error| {
            Failure::input(format!("{}: {error}; try a report of umbra test --json", file.display()))
        })?;
        let text = String::from_utf8_lossy(&bytes);
        if cargo_log::is_log(&text) {
            whole.merge(cargo_log::parse(&text));
            continue;
        }
        let part = Report::from_json(file, &bytes)
            .map_err(|error| Failure::input(advised(error, "a report of umbra test --json")))?;
        whole.merge(part);
    }
    test_run::finish(&whole, args, "umbra", || print!("{}", whole.to_text(3)))
}
