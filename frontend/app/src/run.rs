//! `umbra run` and `umbra` alone: builds the machine, runs it to its end, and says how it ended.

use crate::cli::RunArgs;
use crate::exit_status::{ExitStatus, Failure};
use crate::inspect::event_trace::EventTrace;
use crate::inspect::live;
use crate::output::Kept;
use crate::picture::{self, Recorder};
use crate::session::Session;
use crate::summary::{End, Summary};
#[cfg(feature = "window")]
use crate::window::has_display;
use crate::{crash, gdb, logs, options};
use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use umbra_machine::config::{Display, MachineConfig, ScriptAt, SerialTarget};
use umbra_machine::load::Screen;
use umbra_machine::{CommonPool, Machine, MachineBuilder};

/// How long the demo's last picture is shown if nobody presses a key.
#[cfg(feature = "window")]
const DEMO_LINGERS: Duration = Duration::from_secs(20);

/// A machine that has ended, and how.
pub struct Ended {
    /// The machine as it stands.
    pub machine: Machine,
    /// Why.
    pub end: End,
    /// Host time that building and loading took: from the options to the first instruction.
    pub power_on: Duration,
    /// Host time from the first instruction.
    pub wall: Duration,
    /// Resets by the guest.
    pub resets: u64,
    /// Bytes that the guest sent.
    pub output_bytes: u64,
    /// What its script still waited for.
    pub stuck_at: Option<String>,
}

/// `umbra run`.
pub fn run(args: &RunArgs) -> Result<ExitStatus, Failure> {
    let mut config = options::config(args)?;
    if let Some(path) = &args.save_config {
        options::save(&config, path)?;
        return Ok(ExitStatus::GOOD);
    }
    let says_nothing = args.display.is_none() && !args.headless && !options::is_machine_file(args);
    let display = if says_nothing { guess_display(&mut config) } else { Chosen::Asked };
    let ended = on_display(args, &config, display)?;
    Ok(report(args, &config, ended))
}

/// `umbra` alone: the demo guest.
pub fn demo() -> Result<ExitStatus, Failure> {
    let started = Instant::now();
    let args = RunArgs::default();
    let mut config = MachineConfig::default();
    let display = guess_display(&mut config);
    let rom = &umbra_machine::roms::DEMO;
    let machine = MachineBuilder::from_config(&config).rom(rom.name, rom.image).build()?;
    let ended = execute(machine, &args, &config, (started, display))?;
    Ok(report(&args, &config, ended))
}

/// Who chose where the screen is shown.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The user: without that nothing runs.
    Asked,
    /// Nobody: the machine runs without a display as well.
    Guessed,
}

/// A window where there is a display.
fn guess_display(config: &mut MachineConfig) -> Chosen {
    if has_display() {
        config.display = Display::Window;
    }
    Chosen::Guessed
}

#[cfg(not(feature = "window"))]
fn has_display() -> bool {
    false
}

/// Runs the machine that the options describe to its end.
pub fn to_the_end(args: &RunArgs, config: &MachineConfig) -> Result<Ended, Failure> {
    on_display(args, config, Chosen::Asked)
}

fn on_display(args: &RunArgs, config: &MachineConfig, display: Chosen) -> Result<Ended, Failure> {
    let started = Instant::now();
    logs::start(&config.trace.categories)?;
    let machine = builder(args, config)?.notices(Arc::new(|text| eprintln!("umbra: {text}"))).build()?;
    options::tell_of_variables(config);
    tracing::info!(
        target: "boot",
        "{} with {} of memory, {} × {}, {:?} clock",
        config.boot.kernel.as_deref().map_or("no kernel".into(), |kernel| kernel.display().to_string()),
        config.memory,
        config.cpus,
        config.cpu,
        config.clock,
    );
    execute(machine, args, config, (started, display))
}

/// Runs a machine of several in this process to its end: its memory is from their pool, and what a process of its own would have
/// written is kept, standard output and standard error.
pub fn in_pool(args: &RunArgs, pool: &Arc<CommonPool>, [out, said]: [&Kept; 2]) -> Result<ExitStatus, Failure> {
    let started = Instant::now();
    let config = options::config(args)?;
    let to = said.clone();
    let notices = Arc::new(move |text: &str| _ = writeln!(to.clone(), "umbra: {text}"));
    let machine = builder(args, &config)?.notices(notices).in_pool(pool).build()?;
    let mut ended = finish(Session::with(machine, &config, Some(out))?, &config, started)?;
    let (screen, story) = story(args, &config, &ended);
    let line = Summary { screen, ..Summary::new(&mut ended) }.line();
    // What is kept takes everything.
    let _ = writeln!(said.clone(), "{story}{line}");
    Ok(ended.end.status())
}

/// What the options and the configuration ask for.
fn builder(args: &RunArgs, config: &MachineConfig) -> Result<MachineBuilder, Failure> {
    let mut builder = MachineBuilder::from_config(config);
    if let Some(rom) = config.boot.bios.as_deref().map(options::embedded_rom).transpose()?.flatten() {
        builder = builder.rom(rom.name, rom.image);
    }
    let looks = args.screen_text || args.screenshot.is_some() || args.record.is_some();
    if looks || config.display != Display::None || config.run.script_at == ScriptAt::Screen {
        builder = builder.screen(Screen::VgaText);
    }
    Ok(builder)
}

/// `from`: when the machine was begun.
fn execute(
    mut machine: Machine,
    args: &RunArgs,
    config: &MachineConfig,
    (from, display): (Instant, Chosen),
) -> Result<Ended, Failure> {
    if config.trace.at.is_empty() && config.trace.dump.iter().any(|what| what == "uops") {
        dump_uops(&mut machine);
    }
    let _recorder = args.record.as_ref().map(|folder| Recorder::start(machine.display(), folder)).transpose()?;
    match config.display {
        Display::Window => in_window(machine, args, config, (from, display)),
        Display::Terminal => crate::terminal_display::execute(machine, config, from),
        Display::None => finish(Session::new(machine, config)?, config, from),
    }
}

#[cfg(feature = "window")]
fn in_window(
    machine: Machine,
    args: &RunArgs,
    config: &MachineConfig,
    (from, display): (Instant, Chosen),
) -> Result<Ended, Failure> {
    let is_demo = config.boot.kernel.is_none() && config.boot.bios.is_none();
    let options = umbra_window::Options {
        backend: args.window_backend.unwrap_or_default(),
        scaling: args.scaling.unwrap_or_default(),
        full_screen: args.full_screen,
        // The demo is over in no time.
        lingers: if is_demo { DEMO_LINGERS } else { Duration::ZERO },
    };
    crate::window::execute(machine, config, options, (from, display))
}

#[cfg(not(feature = "window"))]
fn in_window(
    _machine: Machine,
    _args: &RunArgs,
    _config: &MachineConfig,
    _from: (Instant, Chosen),
) -> Result<Ended, Failure> {
    Err(Failure::input(
        "this umbra was built without its window (cargo's feature window); try --headless, or --display terminal",
    ))
}

/// Runs a session to its end; `from`: when its machine was begun.
pub fn finish(mut session: Session, config: &MachineConfig, from: Instant) -> Result<Ended, Failure> {
    let power_on = session.started.duration_since(from);
    if config.trace.control.is_some() || config.trace.inspected {
        session.inspectors(true);
    }
    let socket = config.trace.control.as_deref().map(|path| live::listen(&session, path)).transpose()?;
    let trace = config.trace.events.as_deref().map(|path| EventTrace::start(&session.machine, path)).transpose()?;
    let end = match &config.trace.gdb {
        Some(address) => gdb::serve(&mut session, address)?,
        None => session.run(),
    };
    drop(socket);
    if let Some(Err(failure)) = trace.map(|trace| trace.finish(&session.machine)) {
        eprintln!("umbra: {failure}");
    }
    let (wall, resets, output_bytes) = (session.started.elapsed(), session.resets, session.sightings.bytes());
    let stuck_at = session.stuck_at();
    let machine = session.close();
    Ok(Ended { machine, end, power_on, wall, resets, output_bytes, stuck_at })
}

/// `--dump uops`: each block as it is lifted, on standard error.
fn dump_uops(machine: &mut Machine) {
    for (number, vcpu) in machine.vcpus_mut().iter_mut().enumerate() {
        vcpu.link.on_lift = Some(Box::new(move |key, uops| {
            let text = umbra_machine::cpu::lift::block::dump(uops);
            eprint!("vCPU {number}, {:#x} ({}-bit):\n{text}", key.rip, key.mode.bitness());
        }));
    }
}

/// Says how it ended: the screen, a crash's story, the summary, one sentence.
fn report(args: &RunArgs, config: &MachineConfig, mut ended: Ended) -> ExitStatus {
    let (screen, story) = story(args, config, &ended);
    if !args.json {
        screen.iter().for_each(|line| println!("{line}"));
    }
    eprint!("{story}");
    tell_counters(&ended.machine);
    let status = ended.end.status();
    if args.json {
        let line = Summary { screen, ..Summary::new(&mut ended) }.line();
        let stdout_is_the_guest_s = config.console == Some(SerialTarget::Stdio);
        if stdout_is_the_guest_s || umbra_machine::builder::serial_targets(config).contains(&SerialTarget::Stdio) {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    }
    let _ = std::io::stdout().flush();
    status
}

/// The screen's text if it is asked for, and what is said of a run on standard error. Saves the picture that is asked for.
fn story(args: &RunArgs, config: &MachineConfig, ended: &Ended) -> (Vec<String>, String) {
    let Ended { machine, end, .. } = ended;
    let mut text = String::new();
    let picture = args.screenshot.as_ref().map(|path| picture::save(&machine.display().frame(), path));
    if let Some(Err(failure)) = picture {
        let _ = writeln!(text, "umbra: {failure}");
    }
    if let End::Crashed(vcpu) = end {
        let _ = write!(text, "\n{}\n", crash::story(machine, *vcpu));
    }
    dump(&mut text, config, machine);
    if let Some(divergence) = machine.divergence() {
        let _ = write!(text, "\n{}", divergence.text);
    }
    for sentence in end.sentence().iter().chain(&ended.stuck_at) {
        let _ = writeln!(text, "umbra: {sentence}");
    }
    for (name, count) in crate::summary::unimplemented(machine) {
        let _ = writeln!(text, "umbra: the guest met {name}, which is not there yet: #UD, {count} times");
    }
    (if args.screen_text { machine.screen_text() } else { Vec::new() }, text)
}

/// `--dump`: the blocks that hold the instructions asked for, as guest code, uops, host code.
fn dump(text: &mut String, config: &MachineConfig, machine: &Machine) {
    let wants = |what: &str| config.trace.dump.iter().any(|word| word == what);
    if config.trace.dump.is_empty() {
        return;
    }
    // With `--engine both` the code is the other machine's.
    let machine = machine.other().unwrap_or(machine);
    for (number, vcpu) in machine.vcpus().iter().enumerate() {
        let at = if config.trace.at.is_empty() { vec![vcpu.state.rip] } else { config.trace.at.clone() };
        for rip in at {
            for listing in vcpu.listings(rip) {
                let _ = write!(text, "\nvCPU {number}, block at {:x}:\n{}", listing.rip, listing.guest);
                if wants("uops") {
                    let _ = write!(text, "uops:\n{}", listing.uops);
                }
                if wants("host") {
                    for host in &listing.host {
                        let _ = write!(text, "host code, {} instructions:\n{host}", host.lines().count());
                    }
                    if listing.host.is_empty() {
                        text.push_str("no host code\n");
                    }
                }
            }
        }
    }
}

/// Names registers and ports that the guest wanted and that are not there (`--trace cpu`, `--trace io`), and counts.
fn tell_counters(machine: &Machine) {
    for msr in crate::summary::unknown_msrs(machine) {
        tracing::info!(target: "cpu", "there is no MSR {msr}: #GP(0)");
    }
    for (at, count) in crate::summary::unclaimed(machine) {
        tracing::info!(target: "io", "nobody answered {at}: {count} accesses");
    }
    for (number, vcpu) in machine.vcpus().iter().enumerate() {
        for (vector, count) in vcpu.link.counters.exceptions.iter().enumerate().filter(|(_, count)| **count != 0) {
            tracing::info!(target: "cpu", "vCPU {number}: exception {vector}: {count} times");
        }
    }
    for (name, count) in crate::summary::jit_counters(machine) {
        tracing::info!(target: "cpu", "jit: {name}: {count}");
    }
    tracing::info!(target: "mmu", "{}", crate::inspect::counters(&machine.memory().counters()).replace('\n', ";"));
}
