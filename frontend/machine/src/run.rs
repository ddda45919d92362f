//! The run loop: vCPUs in turns on one thread (`--clock virtual`), or a thread each with a timekeeper (`--clock real`).
//!
//! **In turns.** One vCPU at a time runs, and guest time is the count of instructions of all: a turn ends at the next event
//! of the board, at the latest after a fixed span; an access that makes a nearer event cuts it. Then the next vCPU that is
//! awake has its turn. When all sleep, time jumps to the next event. Nothing depends on the host, so that two runs are
//! equal; no vCPU ever sees another's time-stamp counter ahead of its own.
//!
//! **Threads.** The calling thread keeps time: it sleeps until the board's next event (or until an access makes a nearer
//! one), and advances the board. A vCPU without work sleeps at its gate.

use crate::board::{Request, SharedBoard};
use crate::gate::Gate;
use crate::pressure::Reclaimer;
use crate::storm::Storm;
use crate::time::GuestClock;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use umbra_cpu::bus::Retired;
use umbra_cpu::exit::Activity;
use umbra_cpu::{Exit, Vcpu};
use umbra_devices::clock::Tick;
use umbra_mmu::GuestMemory;
use umbra_mmu::attention::bits;

/// The longest turn with one vCPU, and with several (who must see each other's stores and messages soon).
const TURN_ALONE: u64 = 5_000_000;
const TURN_TOGETHER: u64 = 10_000;
/// Instructions that a vCPU thread runs before it looks around without having been told to.
const THREAD_BUDGET: u64 = 1 << 40;
/// How long a run on the virtual clock waits for input before it looks whether it should end.
const LOOK_AROUND: Duration = Duration::from_millis(100);
/// How long a sleeper sleeps at most before it looks whether it should.
const LONG_SLEEP: Duration = Duration::from_secs(5);
/// IF in RFLAGS.
const RFLAGS_IF: u64 = 1 << 9;

/// Why a run ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// The guest switched the machine off.
    PoweredOff,
    /// The guest reset the machine; [`crate::Machine::reset`] starts it again.
    Reset,
    /// The guest wrote the exit device; this is the exit status.
    GuestExit(u8),
    /// This vCPU shut down after a triple fault.
    Crashed(usize),
    /// A debugger's breakpoint or step on this vCPU.
    Debug(usize),
    /// [`StopHandle::stop`] was called.
    Stopped,
    /// The host's deadline passed.
    TimedOut,
    /// Guest time reached its limit.
    TickReached,
    /// The vCPUs together have retired as many instructions as they may (virtual clock).
    InstructionLimit,
    /// The two engines of `--engine both` have come to different states: [`crate::Machine::divergence`].
    Diverged,
    /// Every vCPU sleeps and nothing can wake one (virtual clock, no input from outside).
    Asleep,
    /// Guest memory that is paged cannot be kept or brought back; [`umbra_mmu::GuestMemory::failure`] has the sentence.
    SwapFailed,
}

/// When a run ends by itself.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct RunLimits {
    /// The host's time at which it ends.
    pub deadline: Option<Instant>,
    /// Guest time at which it ends.
    pub until: Option<Tick>,
    /// It ends when the vCPUs together have retired this many instructions since power-on (virtual clock only).
    pub instructions: Option<u64>,
    /// What to do when every vCPU sleeps for good.
    pub when_asleep: WhenAsleep,
}

/// What a run on the virtual clock does when every vCPU sleeps and no event will come.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum WhenAsleep {
    /// It ends.
    #[default]
    End,
    /// It waits for input from outside (a key, a serial byte).
    Wait,
}

/// Stops a machine from another thread.
#[derive(Clone)]
pub struct StopHandle {
    pub(crate) asked: Arc<AtomicBool>,
    pub(crate) board: Arc<SharedBoard>,
}

impl StopHandle {
    /// Makes the current run (or the next one) end with [`RunEnd::Stopped`].
    pub fn stop(&self) {
        self.asked.store(true, Ordering::SeqCst);
        let board = self.board.lock();
        board.alert_all(bits::STOP);
        self.board.changed.notify_all();
    }
    /// The same for a sink, which runs under the board's lock and stops its own machine: at once with the real clock, at the
    /// end of the turn (so always at the same instruction) with the virtual one.
    pub fn stop_from_sink(&self) {
        self.asked.store(true, Ordering::SeqCst);
        // The timekeeper sleeps, or waits for the lock that the sink's caller holds and looks when it has it.
        self.board.changed.notify_all();
    }
}

/// What both run loops need.
pub(crate) struct Runner<'m> {
    pub vcpus: &'m mut [Vcpu],
    pub board: &'m Arc<SharedBoard>,
    pub memory: &'m GuestMemory,
    pub clock: &'m GuestClock,
    pub stop: &'m AtomicBool,
    pub storm: Option<&'m mut Storm>,
    pub reclaimer: Option<&'m mut Reclaimer>,
    pub limits: RunLimits,
}

/// Whether a vCPU has something to do now.
pub(crate) fn is_awake(vcpu: &Vcpu) -> bool {
    vcpu.state.activity == Activity::Running || vcpu.link.attention.get() & wake_bits(vcpu) & !bits::STOP != 0
}

/// The attention bits that wake a sleeping vCPU.
fn wake_bits(vcpu: &Vcpu) -> u32 {
    let wakes = match vcpu.state.activity {
        Activity::WaitForSipi => bits::INIT | bits::SIPI,
        Activity::Shutdown => bits::INIT,
        Activity::Halted if vcpu.state.rflags & RFLAGS_IF == 0 => bits::INIT | bits::NMI,
        _ => bits::INIT | bits::NMI | bits::INTR,
    };
    wakes | bits::STOP
}

impl Runner<'_> {
    /// What ends the run now, if anything does.
    fn end(&self, request: Option<Request>, now: Tick) -> Option<RunEnd> {
        if self.memory.failure().is_some() {
            return Some(RunEnd::SwapFailed);
        }
        match request {
            Some(Request::PowerOff) => return Some(RunEnd::PoweredOff),
            Some(Request::Reset) => return Some(RunEnd::Reset),
            Some(Request::Exit(status)) => return Some(RunEnd::GuestExit(status)),
            None => {}
        }
        if self.stop.swap(false, Ordering::SeqCst) {
            return Some(RunEnd::Stopped);
        }
        if self.limits.until.is_some_and(|until| now >= until) {
            return Some(RunEnd::TickReached);
        }
        if self.limits.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Some(RunEnd::TimedOut);
        }
        None
    }

    /// Runs the vCPUs in turns.
    pub fn in_turns(mut self) -> RunEnd {
        self.vcpus.iter_mut().for_each(|vcpu| vcpu.link.mmu.unpark());
        let mut last = 0;
        let end = loop {
            if let Some(end) = self.turn(&mut last) {
                break end;
            }
        };
        self.vcpus.iter_mut().for_each(|vcpu| vcpu.link.mmu.park());
        end
    }

    /// One turn of the next vCPU after `last` that is awake, or the jump to the next event if all sleep.
    fn turn(&mut self, last: &mut usize) -> Option<RunEnd> {
        if let Some(reclaimer) = &mut self.reclaimer {
            reclaimer.step_if_due();
        }
        let count = self.vcpus.len();
        let mut board = self.board.lock();
        let now = board.now();
        let request = board.take_request();
        if let Some(end) = self.end(request, now) {
            return Some(end);
        }
        let next = (1..=count).map(|step| (*last + step) % count).find(|&number| is_awake(&self.vcpus[number]));
        let Some(number) = next else {
            match board.next_event().into_iter().chain(self.limits.until).min() {
                Some(next) => board.advance(next),
                None if self.limits.when_asleep == WhenAsleep::End => return Some(RunEnd::Asleep),
                None => self.board.wait(&mut board, LOOK_AROUND),
            }
            return None;
        };
        let mut turn = if count > 1 { TURN_TOGETHER } else { TURN_ALONE };
        if let Some(limit) = self.limits.instructions {
            let retired: u64 = self.vcpus.iter().map(|vcpu| vcpu.state.retired).sum();
            turn = turn.min(limit.saturating_sub(retired));
            if turn == 0 {
                return Some(RunEnd::InstructionLimit);
            }
        }
        *last = number;
        let mut target = now.after(turn);
        for limit in [board.next_event(), self.limits.until].into_iter().flatten() {
            target = target.min(limit.max(now));
        }
        board.set_horizon(Some(target));
        drop(board);
        let end = self.run_to(number, now, target);
        let now = self.clock.now(number, Retired(self.vcpus[number].state.retired));
        self.board.lock().advance(now);
        end
    }

    /// Runs one vCPU from `now` until `target`, which moves nearer when an event does.
    fn run_to(&mut self, number: usize, now: Tick, mut target: Tick) -> Option<RunEnd> {
        let vcpu = &mut self.vcpus[number];
        let clock = self.clock;
        clock.set(number, Retired(vcpu.state.retired), now);
        loop {
            let now = clock.now(number, Retired(vcpu.state.retired));
            if now >= target {
                return None;
            }
            let pause = self.storm.as_mut().map_or(target, |storm| storm.blow_if_due(now).min(target));
            match vcpu.run(pause.0 - now.0) {
                Exit::BudgetSpent => {}
                Exit::Halted | Exit::WaitForSipi => return None,
                Exit::Shutdown => return Some(RunEnd::Crashed(number)),
                Exit::Debug => return Some(RunEnd::Debug(number)),
                Exit::Stopped => {
                    let mut board = self.board.lock();
                    let over = self.stop.load(Ordering::SeqCst) || self.memory.failure().is_some();
                    if board.has_request() || over {
                        // The turn ends here; the next one sees why.
                        return None;
                    }
                    if let Some(event) = board.next_event() {
                        target = target.min(event);
                        board.set_horizon(Some(target));
                    }
                }
            }
        }
    }

    /// Runs each vCPU on a thread of its own; this thread keeps time.
    pub fn on_threads(mut self) -> RunEnd {
        let shared = Threads { over: AtomicBool::new(false), end: Mutex::new(None) };
        let vcpus = std::mem::take(&mut self.vcpus);
        let storm = self.storm.take();
        let (calm, blowing) = mpsc::channel();
        let reclaimer = self.reclaimer.take();
        let (enough, reclaiming) = mpsc::channel();
        self.clock.resume();
        let end = std::thread::scope(|scope| {
            for (number, vcpu) in vcpus.iter_mut().enumerate() {
                let (shared, board, memory) = (&shared, self.board, self.memory);
                scope.spawn(move || shared.run(&mut EndOnPanic { shared, board, number, vcpu }, memory));
            }
            if let Some(storm) = storm {
                scope.spawn(move || again_and_again(storm.step(), &blowing, || storm.blow()));
            }
            if let Some(reclaimer) = reclaimer {
                reclaimer.step();
                scope.spawn(move || again_and_again(reclaimer.period(), &reclaiming, || reclaimer.step()));
            }
            let end = self.keep_time(&shared);
            drop((calm, enough));
            shared.over.store(true, Ordering::SeqCst);
            self.board.lock().alert_all(bits::STOP);
            end
        });
        self.clock.pause();
        end
    }

    fn keep_time(&self, threads: &Threads) -> RunEnd {
        let mut board = self.board.lock();
        loop {
            let now = self.clock.host_driven_now().unwrap_or(board.now());
            board.advance(now);
            let request = board.take_request();
            if let Some(end) = self.first_end(self.end(request, now), threads) {
                board.set_horizon(None);
                return end;
            }
            let next = board.next_event().into_iter().chain(self.limits.until).min();
            board.set_horizon(next);
            let wake =
                next.and_then(|tick| self.clock.host_instant(tick)).into_iter().chain(self.limits.deadline).min();
            match wake {
                Some(instant) => drop(self.board.changed.wait_until(&mut board, instant)),
                None => drop(self.board.changed.wait_for(&mut board, LONG_SLEEP)),
            }
        }
    }
}

impl Runner<'_> {
    /// The timekeeper's own end or a vCPU's. From then on another vCPU's comes too late, and is reported by the next run.
    fn first_end(&self, own: Option<RunEnd>, threads: &Threads) -> Option<RunEnd> {
        let mut end = threads.end.lock();
        match (own, *end) {
            // The stop is not forgotten: the next run ends with it.
            (Some(RunEnd::Stopped), Some(vcpus)) => {
                self.stop.store(true, Ordering::SeqCst);
                return Some(vcpus);
            }
            (Some(RunEnd::TickReached), Some(_)) | (None, _) => {}
            (Some(own), _) => *end = Some(own),
        }
        *end
    }
}

/// Storm and reclaimer on the real clock: a step after each pause, until the other end of the channel is gone.
fn again_and_again(pause: Duration, running: &Receiver<()>, step: impl Fn()) {
    while running.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        step();
    }
}

/// What the vCPU threads share with the timekeeper.
struct Threads {
    over: AtomicBool,
    end: Mutex<Option<RunEnd>>,
}

impl Threads {
    fn run(&self, thread: &mut EndOnPanic, memory: &GuestMemory) {
        let EndOnPanic { board, number, ref mut vcpu, .. } = *thread;
        let gate: Option<Arc<Gate>> = board.lock().vcpus.get(number).map(|pins| pins.gate.clone());
        vcpu.link.mmu.unpark();
        while !self.over.load(Ordering::SeqCst) {
            match vcpu.run(THREAD_BUDGET) {
                Exit::Stopped if memory.failure().is_some() => {
                    self.finish(board, RunEnd::SwapFailed);
                    break;
                }
                Exit::BudgetSpent | Exit::Stopped => {}
                Exit::Halted | Exit::WaitForSipi => {
                    vcpu.link.mmu.park();
                    let wakes = wake_bits(vcpu);
                    loop {
                        let awake =
                            gate.as_ref().is_none_or(|gate| gate.sleep(&vcpu.link.attention, wakes, LONG_SLEEP));
                        if awake || self.over.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                    vcpu.link.mmu.unpark();
                }
                Exit::Shutdown => {
                    self.finish(board, RunEnd::Crashed(number));
                    break;
                }
                Exit::Debug => {
                    if !self.finish(board, RunEnd::Debug(number)) {
                        vcpu.link.debugger.report_again();
                    }
                    break;
                }
            }
        }
        vcpu.link.mmu.park();
    }

    /// Ends the run from a vCPU's thread; tells whether it is this end that counts.
    fn finish(&self, board: &SharedBoard, end: RunEnd) -> bool {
        let first = *self.end.lock().get_or_insert(end) == end;
        let _timekeeper_sleeps_or_will_look = board.lock();
        board.changed.notify_all();
        first
    }
}

/// Ends the run if a vCPU's thread panics, so that the panic reaches the caller instead of a machine that hangs.
struct EndOnPanic<'t> {
    shared: &'t Threads,
    board: &'t SharedBoard,
    number: usize,
    vcpu: &'t mut Vcpu,
}

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nobody waits for it any more, whatever it was about.
            self.vcpu.link.mmu.park();
            self.shared.finish(self.board, RunEnd::Crashed(self.number));
        }
    }
}
