//! A session on a thread of its own, and what a display on the first thread can do with it.

use crate::exit_status::Failure;
use crate::run::{Ended, finish};
use crate::session::{Event, FULL_SPEED, Session};
use crossbeam::channel::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;
use umbra_machine::config::MachineConfig;
use umbra_machine::{InputHandle, StopHandle};

/// The speeds that a person can choose, in percent.
const SPEEDS: [u32; 5] = [5, 10, 25, 50, FULL_SPEED];

/// From a display to the session.
#[derive(Clone)]
pub struct Link {
    events: Sender<Event>,
    stop: StopHandle,
    /// Keyboard and mouse.
    pub input: InputHandle,
    paused: Arc<AtomicBool>,
    speed: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
}

/// A session that runs.
pub struct Runner(JoinHandle<Result<Ended, Failure>>);

/// Runs a session on a thread of its own; `from`: when its machine was begun.
pub fn start(session: Session, config: &MachineConfig, from: Instant) -> (Link, Runner) {
    let link = Link {
        events: session.events_to.clone(),
        stop: session.stop.clone(),
        input: session.machine.input(),
        paused: Arc::default(),
        speed: Arc::new(AtomicU32::new(FULL_SPEED)),
        over: Arc::default(),
    };
    let (over, config) = (link.over.clone(), config.clone());
    let runner = std::thread::spawn(move || {
        let _over = SetWhenDropped(over);
        finish(session, &config, from)
    });
    (link, Runner(runner))
}

/// Says that the machine is over, even if its thread panics.
struct SetWhenDropped(Arc<AtomicBool>);

impl Drop for SetWhenDropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Runner {
    /// Waits for the end.
    pub fn join(self) -> Result<Ended, Failure> {
        self.0.join().map_err(|_| Failure::host("the machine's thread panicked; please report this"))?
    }
}

impl Link {
    /// Does something while the machine stands still.
    pub fn call(&self, call: impl FnOnce(&mut Session) + Send + 'static) {
        // Nobody listens if the machine is over already.
        let _ = self.events.send(Event::Call(Box::new(call)));
        self.stop.stop();
    }
    /// Resets the machine.
    pub fn reset(&self) {
        self.call(|session| {
            if let Err(error) = session.machine.reset() {
                eprintln!("umbra: {error}");
            }
        });
    }
    /// Holds the machine, or lets it go on.
    pub fn pause(&self, pause: bool) {
        self.paused.store(pause, Ordering::SeqCst);
        self.call(move |session| session.paused = pause);
    }
    /// Whether it is held.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }
    /// Lets less of the host's time pass in the machine.
    pub fn slower(&self) {
        self.set_speed(SPEEDS.iter().rfind(|speed| **speed < self.speed()));
    }
    /// Lets more of it pass there.
    pub fn faster(&self) {
        self.set_speed(SPEEDS.iter().find(|speed| **speed > self.speed()));
    }
    fn set_speed(&self, speed: Option<&u32>) {
        if let Some(&speed) = speed {
            self.speed.store(speed, Ordering::SeqCst);
            self.call(move |session| session.speed = speed);
        }
    }
    /// The part of the host's time that passes in the machine, in percent.
    pub fn speed(&self) -> u32 {
        self.speed.load(Ordering::SeqCst)
    }
    /// Ends the session.
    pub fn end(&self) {
        let _ = self.events.send(Event::End);
        self.stop.stop();
    }
    /// Whether the machine is over.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
    /// Instructions retired so far.
    #[cfg(feature = "window")]
    pub fn retired(&self) -> u64 {
        let mut retired = 0;
        self.input.with(|board| retired = board.retired());
        retired
    }
}
