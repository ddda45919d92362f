//! `--engine both`: two machines of one description, the reference (interpreter) and the other (JIT), on the virtual clock.
//!
//! They run the same span of guest time, each on a thread; then they are compared: why they stopped, guest time, the state of each
//! vCPU, the exceptions and interrupts delivered, the hash of all device traffic; from time to time also all guest RAM and the
//! states of the devices. What comes from outside (serial input, keys, resets) is given to both at such a stop and written
//! down, so that everything can be run again from the start. On a difference that is what happens, in ever smaller steps,
//! until one block and one instruction are named (`lock_step_search`).
//!
//! Callers of a [`Machine`] see one machine: the reference. Leaves out snapshots: a search starts at power-on.

use crate::builder::{BuildError, MachineBuilder};
use crate::lock_step_search::Search;
use crate::machine::Machine;
use crate::run::{RunEnd, RunLimits, WhenAsleep, is_awake};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use umbra_devices::clock::Tick;
use umbra_devices::pci::virtio::tablet::Report;
use umbra_devices::ps2::{KeyCode, MouseButtons, Stroke};

/// Guest time between comparisons: large, since emitted code is left some instructions before each; a prime.
const SPAN: u64 = 100_003;
/// Comparing memory may take this part of all time.
const DEEP_SHARE: u32 = 8;
/// How long a sleeping pair waits for input before it looks around.
const LOOK_AROUND: Duration = Duration::from_millis(20);

/// Something from outside that a guest can notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes for a serial port.
    Serial(usize, Vec<u8>),
    /// The power button.
    PowerButton,
    /// A key goes down (or up).
    Key(KeyCode, Stroke),
    /// The mouse moves by (x, y, wheel), with these buttons down.
    Mouse([i32; 3], MouseButtons),
    /// The tablet's pointer is somewhere.
    Tablet(Report),
    /// So many pages of 4 KiB are wanted in the balloon.
    Balloon(u32),
}

impl Input {
    /// Gives it to a board.
    pub fn apply(&self, board: &mut crate::board::Board) {
        match self {
            Input::Serial(port, bytes) => board.serial_input(*port, bytes),
            Input::PowerButton => board.press_power_button(),
            Input::Key(key, stroke) => board.key(*key, *stroke),
            Input::Mouse(delta, buttons) => board.mouse(*delta, *buttons),
            Input::Tablet(report) => board.tablet(*report),
            Input::Balloon(pages) => board.ask_for_pages(*pages),
        }
    }
}

/// What was done to the pair, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// It ran until this time, or to an end of its own before.
    RunUntil(Tick),
    /// It got this.
    Input(Input),
    /// It was reset.
    Reset,
}

/// The first difference between the engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The instruction in which they part, as RIP, if it could be named.
    pub rip: Option<u64>,
    /// Everything that was found out, in lines for people.
    pub text: String,
}

/// The machine beside the reference, and what both went through.
pub(crate) struct LockStep {
    other: Machine,
    builders: [MachineBuilder; 2],
    /// Input that waits for the next stop.
    pub(crate) inbox: Arc<Mutex<Vec<Input>>>,
    /// Somebody wants the run to end.
    pub(crate) asked: Arc<AtomicBool>,
    history: Vec<Act>,
    /// Acts up to the last stop at which memory was equal, too.
    good: usize,
    pub(crate) divergence: Option<Divergence>,
    last_deep: Instant,
    deep_cost: Duration,
}

impl LockStep {
    /// The machine of `builders[1]` beside that of `builders[0]`.
    pub fn new(builders: [MachineBuilder; 2]) -> Result<LockStep, BuildError> {
        let other = builders[1].clone().build_one()?;
        Ok(LockStep {
            other,
            builders,
            inbox: Arc::default(),
            asked: Arc::default(),
            history: Vec::new(),
            good: 0,
            divergence: None,
            last_deep: Instant::now(),
            deep_cost: Duration::ZERO,
        })
    }

    /// The machine with the other engine.
    pub fn other(&self) -> &Machine {
        &self.other
    }

    /// Runs both until something ends the run.
    pub fn run(&mut self, reference: &mut Machine, limits: RunLimits) -> RunEnd {
        if self.divergence.is_some() {
            return RunEnd::Diverged;
        }
        loop {
            if self.asked.swap(false, Ordering::SeqCst) {
                return RunEnd::Stopped;
            }
            if limits.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return RunEnd::TimedOut;
            }
            let inbox = std::mem::take(&mut *self.inbox.lock());
            for input in inbox {
                input.apply(&mut reference.board());
                input.apply(&mut self.other.board());
                self.history.push(Act::Input(input));
            }
            let target = limits.until.unwrap_or(Tick(u64::MAX)).min(reference.now().after(SPAN));
            let mut ends = run_both(reference, &mut self.other, target, limits.instructions);
            // A span's end is always something to wait for: whether there is anything else is asked here.
            let for_good = limits.until.is_none() && sleeps_for_good(reference) && sleeps_for_good(&self.other);
            if for_good && ends == [RunEnd::TickReached; 2] {
                ends = [RunEnd::Asleep; 2];
            }
            self.history.push(Act::RunUntil(target));
            let waits = ends[0] == RunEnd::Asleep && limits.when_asleep == WhenAsleep::Wait;
            let over = ends[0] != RunEnd::TickReached && !waits;
            let mut difference = shallow(reference, &self.other, ends);
            if difference.is_none() && (over || self.last_deep.elapsed() > self.deep_cost * DEEP_SHARE) {
                let started = Instant::now();
                difference = deep(reference, &self.other);
                self.last_deep = Instant::now();
                self.deep_cost = started.elapsed();
                if difference.is_none() {
                    self.good = self.history.len();
                }
            }
            if let Some(difference) = difference {
                let search = Search { builders: &self.builders, history: &self.history, good: self.good };
                self.divergence = Some(search.run(&difference));
                return RunEnd::Diverged;
            }
            match ends[0] {
                RunEnd::TickReached if limits.until.is_none_or(|until| reference.now() < until) => {}
                _ if waits => {
                    let mut board = reference.board.lock();
                    reference.board.changed.wait_for(&mut board, LOOK_AROUND);
                }
                end => return end,
            }
        }
    }

    /// Resets the other machine.
    pub fn reset(&mut self) -> Result<(), BuildError> {
        self.history.push(Act::Reset);
        self.other.reset()
    }
}

/// Whether every vCPU sleeps and no event of the board is due at any time.
fn sleeps_for_good(machine: &Machine) -> bool {
    !machine.vcpus.iter().any(is_awake) && machine.board().next_event().is_none()
}

/// Runs both until `until`, at most so many instructions from power-on; why each stopped.
pub(crate) fn run_both(a: &mut Machine, b: &mut Machine, until: Tick, instructions: Option<u64>) -> [RunEnd; 2] {
    let limits = RunLimits { until: Some(until), instructions, ..RunLimits::default() };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| b.run_one(limits));
        let mine = a.run_one(limits);
        let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        [mine, other]
    })
}

/// What a look at everything but memory and devices shows; `None`: nothing.
pub(crate) fn shallow(a: &Machine, b: &Machine, ends: [RunEnd; 2]) -> Option<String> {
    use std::fmt::Write as _;
    let mut out = String::new();
    let mut note = |what: &str, a: String, b: String| {
        if a != b {
            let _ = writeln!(out, "  {what}: {a} | {b}");
        }
    };
    note("ended by", format!("{:?}", ends[0]), format!("{:?}", ends[1]));
    note("guest time", a.now().0.to_string(), b.now().0.to_string());
    for (n, (x, y)) in a.vcpus.iter().zip(&b.vcpus).enumerate() {
        let (s, t) = (&x.state, &y.state);
        if s == t && x.link.counters.exceptions == y.link.counters.exceptions {
            continue;
        }
        for (slot, name) in crate::lock_step_search::REGISTERS.iter().enumerate() {
            let (a, b) = (s.gpr(slot as u8), t.gpr(slot as u8));
            note(&format!("vCPU {n} {name}"), format!("{a:x}"), format!("{b:x}"));
        }
        note(&format!("vCPU {n} rip"), format!("{:x}", s.rip), format!("{:x}", t.rip));
        note(&format!("vCPU {n} rflags"), format!("{:x}", s.rflags), format!("{:x}", t.rflags));
        note(&format!("vCPU {n} retired"), s.retired.to_string(), t.retired.to_string());
        for r in 0..16 {
            let text = |v: &umbra_cpu::state::Vectors| format!("{:x?}", v.regs[r]);
            note(&format!("vCPU {n} ymm{r}"), text(&s.vectors), text(&t.vectors));
        }
        note(&format!("vCPU {n} mxcsr"), format!("{:x}", s.vectors.mxcsr), format!("{:x}", t.vectors.mxcsr));
        note(&format!("vCPU {n} x87"), format!("{:x?}", s.fpu), format!("{:x?}", t.fpu));
        note(&format!("vCPU {n} segments"), format!("{:x?}", s.seg), format!("{:x?}", t.seg));
        note(&format!("vCPU {n} control"), format!("{:x?}", s.control), format!("{:x?}", t.control));
        note(&format!("vCPU {n} dr"), format!("{:x?}", s.dr), format!("{:x?}", t.dr));
        note(&format!("vCPU {n} msr"), format!("{:x?}", s.msr), format!("{:x?}", t.msr));
        let rest = |s: &umbra_cpu::state::State| {
            format!(
                "{:x?}",
                (s.activity, s.shadow, s.nmi_blocked, s.pending_debug, s.cpl, s.ldtr, s.tr, s.gdtr, s.idtr)
            )
        };
        note(&format!("vCPU {n} rest"), rest(s), rest(t));
        let faults = |v: &umbra_cpu::Vcpu| format!("{:?}", v.link.counters.exceptions);
        note(&format!("vCPU {n} exceptions"), faults(x), faults(y));
    }
    for (n, (x, y)) in a.vcpus.iter().zip(&b.vcpus).enumerate() {
        let counts = |v: &umbra_cpu::Vcpu| v.link.counters.interrupts.to_string();
        note(&format!("vCPU {n} interrupts"), counts(x), counts(y));
    }
    note("device traffic", format!("{:x}", a.board().traffic()), format!("{:x}", b.board().traffic()));
    (!out.is_empty()).then_some(out)
}

/// What a look at memory and devices shows; `None`: nothing.
pub(crate) fn deep(a: &Machine, b: &Machine) -> Option<String> {
    use std::fmt::Write as _;
    let mut out = String::new();
    for (x, y) in a.board().save().iter().zip(b.board().save()) {
        if x.1 != y.1 {
            let _ = writeln!(out, "  device {}: its states differ", x.0);
        }
    }
    if a.memory.hash() != b.memory.hash() {
        let _ = writeln!(out, "  guest memory differs{}", crate::lock_step_search::first_bytes(a, b));
    }
    (!out.is_empty()).then_some(out)
}
