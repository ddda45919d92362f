//! A machine while it runs: its streams, the person at the terminal, and the loop that starts it again after each stop.
//!
//! The main thread runs the machine. Other threads read the terminal, a pseudo-terminal or gdb's connection; they give bytes
//! to the guest directly, and everything else as an [`Event`], after which they stop the machine so that the event is seen.

use crate::console::{self, After};
use crate::exit_status::Failure;
use crate::output::{Kept, Output, Seen, Sightings, Watch};
use crate::screen_script::ScreenScript;
use crate::script::Script;
use crate::sound::Recording;
use crate::summary::End;
use crate::until::Matcher;
use crate::{host, input};
use crossbeam::channel::{Receiver, Sender};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};
use umbra_machine::config::{Display, MachineConfig, OnCrash, OnReset, ScriptAt, SerialTarget};
use umbra_machine::{Machine, RunEnd, RunLimits, StopHandle, WhenAsleep};

/// The speed at which guest time is the host's, in percent.
pub const FULL_SPEED: u32 = 100;
/// How often who waits for events looks whether the time is up.
pub const LOOK_AROUND: Duration = Duration::from_secs(1);
/// Guest time that a slowed machine runs before it stands still, in ns.
const SLOW_SLICE: u64 = 4_000_000;

/// What other threads tell the one that runs the machine.
pub enum Event {
    /// Ctrl-A x.
    End,
    /// A line for the console, and where to say what follows.
    Command(String, Sender<After>),
    /// Something to do with the session while the machine stands still.
    Call(Box<dyn FnOnce(&mut Session) + Send>),
    /// The console opens.
    ConsoleOpened,
    /// Standard input is over.
    InputOver,
    /// gdb has come.
    GdbCame(TcpStream),
    /// gdb says this.
    GdbSays(Vec<u8>),
    /// gdb has gone.
    GdbGone,
}

/// What gdb has sent and what has become of its connection.
#[derive(Default)]
pub struct GdbInbox {
    /// A new connection.
    pub came: Option<TcpStream>,
    /// Bytes to read.
    pub bytes: VecDeque<u8>,
    /// The connection is over.
    pub gone: bool,
}

impl GdbInbox {
    fn has_news(&self) -> bool {
        self.came.is_some() || !self.bytes.is_empty() || self.gone
    }
}

/// Why the machine stands still.
#[derive(Debug)]
pub enum Pause {
    /// It is over.
    Over(End),
    /// A breakpoint on this vCPU.
    Debug(usize),
    /// gdb has news.
    Gdb,
}

/// A running machine.
pub struct Session {
    /// The machine.
    pub machine: Machine,
    /// Stops it from other threads.
    pub stop: StopHandle,
    /// For other threads.
    pub events_to: Sender<Event>,
    /// The console's `pause`.
    pub paused: bool,
    /// The part of the host's time that passes in the machine, in percent, at most [`FULL_SPEED`].
    pub speed: u32,
    /// gdb's news.
    pub gdb: GdbInbox,
    /// What the guest's output has shown.
    pub sightings: Sightings,
    /// Resets by the guest.
    pub resets: u64,
    /// What is typed for a person, and when.
    pub script: Script,
    /// The same at keyboard and screen.
    pub screen_script: Option<ScreenScript>,
    /// A script at the screen ends the run well when it is done, if nobody sees the screen.
    ends_with_script: bool,
    /// Somebody sees the screen and may press a key.
    has_display: bool,
    /// Something else than a person at the display may give input.
    input_may_come: bool,
    /// Power-on, by the host's clock.
    pub started: Instant,
    /// Who looks at the machine: a control socket, a panel.
    inspectors: u32,
    events: Receiver<Event>,
    outputs: Vec<Output>,
    recording: Option<Recording>,
    limits: RunLimits,
    on_reset: OnReset,
    on_crash: OnCrash,
    terminal: Option<host::terminal::RawTerminal>,
}

impl Session {
    /// Connects a machine's streams as its configuration says.
    pub fn new(machine: Machine, config: &MachineConfig) -> Result<Session, Failure> {
        Session::with(machine, config, None)
    }
    /// The same with what would be this process's standard output in `kept`, and no standard input.
    pub fn with(machine: Machine, config: &MachineConfig, kept: Option<&Kept>) -> Result<Session, Failure> {
        let stdout = || -> Box<dyn Write + Send> {
            match kept {
                Some(kept) => Box::new(kept.clone()),
                None => Box::new(std::io::stdout()),
            }
        };
        let stop = machine.stop_handle();
        let (events_to, events) = crossbeam::channel::unbounded();
        let sightings = Sightings::default();
        let mut outputs = Vec::new();
        let mut uses_stdin = false;
        let mut input_may_come = false;
        let at_screen = config.run.script_at == ScriptAt::Screen;
        let script = Script::new(if at_screen { &[] } else { &config.run.script });
        let screen_script = if at_screen && !config.run.script.is_empty() {
            input_may_come = true;
            let (display, input) = (machine.display(), machine.input());
            Some(ScreenScript::start(&config.run.script, display, input, stop.clone())?)
        } else {
            None
        };
        for (port, target) in umbra_machine::builder::serial_targets(config).into_iter().enumerate() {
            tracing::debug!(target: "serial", "COM{} is {target}", port + 1);
            let name = format!("--serial {target}");
            let to: Box<dyn Write + Send> = match target {
                SerialTarget::Stdio => {
                    uses_stdin = kept.is_none();
                    stdout()
                }
                SerialTarget::File(path) => Box::new(create("--serial", &path)?),
                SerialTarget::Pty => {
                    let (file, path) = host::pty::open()
                        .map_err(|error| Failure::host(format!("{name}: {error}; try --serial stdio")))?;
                    eprintln!("umbra: COM{} is {path}", port + 1);
                    let reader = file
                        .try_clone()
                        .map_err(|error| Failure::host(format!("{name}: {error}; try --serial stdio")))?;
                    input::from_file(reader, port, machine.input());
                    input_may_come = true;
                    Box::new(file)
                }
                SerialTarget::None if port == 0 && !config.run.script.is_empty() => Box::new(std::io::sink()),
                SerialTarget::None => continue,
            };
            let watch = Watch { tap: (port == 0).then(|| script.tap(stop.clone())), ..watch(config)? };
            let (output, sink) = Output::new(to, watch, sightings.clone(), stop.clone());
            machine.connect_serial(port, sink);
            outputs.push(output);
        }
        let console: Option<Box<dyn Write + Send>> = match &config.console {
            None if config.display == Display::Terminal => None,
            None | Some(SerialTarget::Stdio) => Some(stdout()),
            Some(SerialTarget::File(path)) => Some(Box::new(create("--console", path)?)),
            Some(SerialTarget::Pty | SerialTarget::None) => None,
        };
        if let Some(to) = console {
            let (output, sink) = Output::new(to, watch(config)?, sightings.clone(), stop.clone());
            machine.connect_console(sink);
            outputs.push(output);
        }
        let recording = config.sound.wav.as_ref().map(|path| Recording::start(&machine, path)).transpose()?;
        let terminal = if uses_stdin { host::terminal::RawTerminal::enter() } else { None };
        let has_display = config.display != Display::None;
        // A terminal that is not ours (a window started with &) would stop this process if it were read.
        let is_free = !has_display || terminal.is_some() || !std::io::stdin().is_terminal();
        if uses_stdin && is_free {
            input::from_terminal(machine.input(), events_to.clone(), stop.clone());
            input_may_come = true;
        }
        let started = Instant::now();
        let limits = RunLimits {
            deadline: config.run.timeout.and_then(|span| started.checked_add(span.0)),
            until: None,
            instructions: config.run.instructions,
            when_asleep: WhenAsleep::End,
        };
        Ok(Session {
            machine,
            stop,
            events_to,
            paused: false,
            speed: FULL_SPEED,
            gdb: GdbInbox::default(),
            sightings,
            resets: 0,
            script,
            screen_script,
            ends_with_script: config.run.until.is_none(),
            has_display,
            input_may_come,
            started,
            inspectors: 0,
            events,
            outputs,
            recording,
            limits,
            on_reset: config.run.on_reset,
            on_crash: config.run.on_crash,
            terminal,
        })
    }

    /// Runs to the end.
    pub fn run(&mut self) -> End {
        loop {
            match self.advance() {
                Pause::Over(end) => return end,
                // Without a debugger nobody sets breakpoints.
                Pause::Debug(_) | Pause::Gdb => {}
            }
        }
    }

    /// Runs until something that the caller must know.
    pub fn advance(&mut self) -> Pause {
        loop {
            if let Some(end) = self.take_events(None) {
                return Pause::Over(end);
            }
            if self.gdb.has_news() {
                return Pause::Gdb;
            }
            if let Some(end) = self.seen() {
                return Pause::Over(end);
            }
            if self.paused {
                if let Some(end) = self.take_events(Some(LOOK_AROUND)) {
                    return Pause::Over(end);
                }
                continue;
            }
            let script_is_all = self.ends_with_script && !self.has_display;
            if script_is_all && self.screen_script.as_ref().is_some_and(ScreenScript::is_done) {
                return Pause::Over(End::Until);
            }
            let typed = self.script.take_due();
            if !typed.is_empty() {
                self.machine.input().serial(0, &typed);
            }
            let slow = self.speed < FULL_SPEED;
            let until = slow.then(|| self.machine.now().after(SLOW_SLICE));
            let began = Instant::now();
            let end = self.machine.run(RunLimits { until, ..self.limits() });
            tracing::debug!(target: "run", "stopped: {end:?} after {} instructions", self.machine.retired());
            if let Some(pause) = self.judge(end) {
                return pause;
            }
            if slow {
                let rest = began.elapsed() * (FULL_SPEED - self.speed) / self.speed.max(1);
                if let Some(end) = self.take_events(Some(rest)) {
                    return Pause::Over(end);
                }
            }
        }
    }

    /// The step of its script that the guest has not come to, as text.
    pub fn stuck_at(&self) -> Option<String> {
        self.screen_script.as_ref().and_then(ScreenScript::stuck_at).or_else(|| self.script.stuck_at())
    }

    /// Runs for a short guest time, so that a sleeping vCPU may wake. `None`: nothing has ended.
    pub fn nudge(&mut self) -> Option<Pause> {
        let until = self.machine.now().after(1_000_000);
        let end = self.machine.run(RunLimits { until: Some(until), ..self.limits() });
        self.judge(end)
    }

    fn judge(&mut self, end: RunEnd) -> Option<Pause> {
        let over = match end {
            RunEnd::Stopped | RunEnd::TickReached => return None,
            RunEnd::Debug(vcpu) => return Some(Pause::Debug(vcpu)),
            RunEnd::Reset | RunEnd::Crashed(_) if self.starts_again(&end) => {
                self.resets += 1;
                match self.machine.reset() {
                    Ok(()) => return None,
                    Err(error) => End::ResetFailed(error.to_string()),
                }
            }
            RunEnd::Reset => End::Reset,
            RunEnd::PoweredOff => End::PoweredOff,
            RunEnd::GuestExit(status) => End::GuestExit(status),
            RunEnd::Crashed(vcpu) => End::Crashed(vcpu),
            RunEnd::Diverged => End::Diverged,
            RunEnd::TimedOut => End::TimedOut,
            RunEnd::InstructionLimit => End::InstructionLimit(self.machine.retired()),
            RunEnd::Asleep => End::Asleep,
            RunEnd::SwapFailed => {
                let machines = [Some(&self.machine), self.machine.other()];
                let failure = machines.into_iter().flatten().find_map(|machine| machine.memory().failure());
                End::SwapFailed(failure.map_or_else(String::new, ToString::to_string))
            }
        };
        // What the guest wrote before it ended counts first.
        Some(Pause::Over(self.seen().unwrap_or(over)))
    }

    fn limits(&self) -> RunLimits {
        let can_wake = self.has_display || self.input_may_come;
        RunLimits { when_asleep: if can_wake { WhenAsleep::Wait } else { WhenAsleep::End }, ..self.limits }
    }

    fn starts_again(&self, end: &RunEnd) -> bool {
        match end {
            RunEnd::Crashed(_) => self.on_crash == OnCrash::Reboot,
            _ => self.on_reset == OnReset::Reboot,
        }
    }

    fn seen(&self) -> Option<End> {
        match self.sightings.seen() {
            Seen::Nothing => None,
            Seen::Until => Some(End::Until),
            Seen::FailOn => Some(End::FailOn),
            Seen::OutputLost => Some(End::OutputLost),
        }
    }

    /// Takes what other threads said; with `wait` it waits so long for something first. Gives the end if that is what they said.
    pub fn take_events(&mut self, wait: Option<Duration>) -> Option<End> {
        let mut first = wait.and_then(|most| self.events.recv_timeout(most).ok());
        while let Some(event) = first.take().or_else(|| self.events.try_recv().ok()) {
            match event {
                Event::End => return Some(End::Ended),
                Event::Call(call) => call(self),
                Event::ConsoleOpened => self.outputs.iter().for_each(Output::hold),
                Event::Command(line, reply) => {
                    let (text, after) = console::execute(self, &line);
                    print!("{text}");
                    let _ = std::io::stdout().flush();
                    if after != After::Stay {
                        self.outputs.iter().for_each(Output::release);
                    }
                    // Should the asker be gone, so is the console.
                    let _ = reply.send(after);
                    if after == After::End {
                        return Some(End::Ended);
                    }
                }
                Event::InputOver => {
                    tracing::debug!(target: "serial", "standard input is over");
                    self.input_may_come = false;
                }
                Event::GdbCame(stream) => self.gdb.came = Some(stream),
                Event::GdbSays(bytes) => self.gdb.bytes.extend(bytes),
                Event::GdbGone => self.gdb.gone = true,
            }
        }
        if wait.is_some() && self.limits.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Some(End::TimedOut);
        }
        None
    }

    /// Somebody begins to look at the machine, or ends: as long as there is one, what `umbra inspect` wants to know is noted.
    pub fn inspectors(&mut self, begins: bool) {
        let before = self.inspectors;
        self.inspectors = if begins { before + 1 } else { before.saturating_sub(1) };
        if (before == 0) != (self.inspectors == 0) {
            crate::inspect::note(&mut self.machine, begins);
        }
    }

    /// No window could be opened after all: nobody sees the screen.
    #[cfg(feature = "window")]
    pub fn lose_display(&mut self) {
        self.has_display = false;
    }

    /// Writes out everything that the guest has sent and played, and gives the terminal back.
    pub fn close(mut self) -> Machine {
        if let Some(script) = &self.screen_script {
            script.end();
        }
        self.outputs.clear();
        if let Some(recording) = self.recording.take() {
            recording.finish(&self.machine);
        }
        drop(self.terminal.take());
        self.machine
    }
}

fn create(option: &str, path: &Path) -> Result<File, Failure> {
    let problem =
        |error| Failure::input(format!("{option} {}: {error}; try a path that can be written", path.display()));
    File::create(path).map_err(problem)
}

fn watch(config: &MachineConfig) -> Result<Watch, Failure> {
    let matcher = |option, text: &Option<String>| text.as_ref().map(|text| Matcher::new(option, text)).transpose();
    Ok(Watch {
        until: matcher("--until", &config.run.until)?,
        fail_on: matcher("--fail-on", &config.run.fail_on)?,
        tap: None,
    })
}
