//! What the guest sends on a serial port, on its way out: watched for `--until` and `--fail-on`, queued, written by a thread.
//!
//! A sink runs under the board's lock, so that it only watches and queues. What is watched is a function of the guest's
//! output alone: with the virtual clock a match ends the run at the same instruction each time. A slow reader of our output
//! slows the guest down once [`MOST_QUEUED`] bytes wait.

use crate::until::Matcher;
use parking_lot::{Condvar, Mutex};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use umbra_machine::{Sink, StopHandle};

/// Bytes that may wait to be written before the guest waits.
const MOST_QUEUED: usize = 4 << 20;

/// What the watched stream has shown.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing that ends the run.
    Nothing,
    /// `--until` matched.
    Until,
    /// `--fail-on` matched.
    FailOn,
    /// Nobody takes our output any more.
    OutputLost,
}

/// What was seen, shared by all streams of a machine.
#[derive(Clone, Debug, Default)]
pub struct Sightings {
    seen: Arc<AtomicU8>,
    bytes: Arc<AtomicU64>,
}

impl Sightings {
    /// What was seen first.
    pub fn seen(&self) -> Seen {
        match self.seen.load(Ordering::SeqCst) {
            1 => Seen::Until,
            2 => Seen::FailOn,
            3 => Seen::OutputLost,
            _ => Seen::Nothing,
        }
    }
    /// How many bytes the guest has sent.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
    fn note(&self, seen: Seen) {
        let number = match seen {
            Seen::Nothing => 0,
            Seen::Until => 1,
            Seen::FailOn => 2,
            Seen::OutputLost => 3,
        };
        let _ = self.seen.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// The console is open: nothing is written meanwhile.
    held: bool,
    closed: bool,
    /// The writer has to stop the machine.
    stop: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    bell: Condvar,
}

/// One stream out of the guest.
pub struct Output {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// Bytes that are kept of a stream; the rest is dropped.
const MOST_KEPT: usize = 16 << 20;

/// What a stream has carried, for later. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    /// Takes all of it.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut kept = self.0.lock();
        let room = MOST_KEPT.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a stream is watched for.
#[derive(Default)]
pub struct Watch {
    /// `--until`.
    pub until: Option<Matcher>,
    /// `--fail-on`.
    pub fail_on: Option<Matcher>,
    /// Gets a copy of everything, for the script of `--wait-text`.
    pub tap: Option<Sink>,
}

impl Output {
    /// A stream that ends in `to`, and the sink to connect to the machine.
    pub fn new(
        mut to: Box<dyn Write + Send>,
        mut watch: Watch,
        sightings: Sightings,
        stop: StopHandle,
    ) -> (Output, Sink) {
        let shared: Arc<Shared> = Arc::default();
        let writer = {
            let (shared, sightings, stop) = (shared.clone(), sightings.clone(), stop.clone());
            std::thread::spawn(move || {
                while let Some((bytes, ask_stop)) = shared.next() {
                    if ask_stop {
                        stop.stop();
                    }
                    if to.write_all(&bytes).and_then(|()| to.flush()).is_err() {
                        sightings.note(Seen::OutputLost);
                        shared.queue.lock().closed = true;
                        stop.stop();
                        break;
                    }
                }
            })
        };
        let sink = {
            let shared = shared.clone();
            move |bytes: &[u8]| {
                sightings.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let before = sightings.seen();
                if before == Seen::Nothing {
                    if watch.fail_on.as_mut().is_some_and(|matcher| matcher.feed(bytes)) {
                        sightings.note(Seen::FailOn);
                    } else if watch.until.as_mut().is_some_and(|matcher| matcher.feed(bytes)) {
                        sightings.note(Seen::Until);
                    }
                }
                if let Some(tap) = &mut watch.tap {
                    tap(bytes);
                }
                let ends = before == Seen::Nothing && sightings.seen() != Seen::Nothing;
                if ends {
                    stop.stop_from_sink();
                }
                shared.push(bytes, ends);
            }
        };
        (Output { shared, writer: Some(writer) }, Box::new(sink))
    }
    /// Keeps what comes from now on.
    pub fn hold(&self) {
        self.shared.queue.lock().held = true;
    }
    /// Writes what was kept, and goes on.
    pub fn release(&self) {
        self.shared.queue.lock().held = false;
        self.shared.bell.notify_all();
    }
}

impl Drop for Output {
    /// Everything is written before this returns.
    fn drop(&mut self) {
        {
            let mut queue = self.shared.queue.lock();
            (queue.closed, queue.held) = (true, false);
        }
        self.shared.bell.notify_all();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn push(&self, bytes: &[u8], stop: bool) {
        let mut queue = self.queue.lock();
        while queue.bytes.len() > MOST_QUEUED && !queue.held && !queue.closed {
            self.bell.wait_for(&mut queue, Duration::from_millis(50));
        }
        let was_empty = queue.bytes.is_empty();
        if queue.bytes.len() <= MOST_QUEUED {
            queue.bytes.extend_from_slice(bytes);
        }
        queue.stop |= stop;
        drop(queue);
        if was_empty || stop {
            self.bell.notify_all();
        }
    }
    /// The next bytes to write and whether to stop the machine first; `None` at the end.
    fn next(&self) -> Option<(Vec<u8>, bool)> {
        let mut queue = self.queue.lock();
        loop {
            let stop = std::mem::take(&mut queue.stop);
            let ready = !queue.held && !queue.bytes.is_empty();
            if ready || stop {
                let bytes = if ready { std::mem::take(&mut queue.bytes) } else { Vec::new() };
                drop(queue);
                self.bell.notify_all();
                return Some((bytes, stop));
            }
            if queue.closed {
                return None;
            }
            self.bell.wait(&mut queue);
        }
    }
}
