//! The thread behind a medium: takes requests in order, keeps their results until they are asked for.

use super::{Completion, Failed, MAX_REQUEST, Notices, Outcome, Request, Storage};
use crossbeam::channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often who waits looks whether the thread is still there.
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// What is done. Requests are done in the order of their tickets.
#[derive(Default)]
struct Done {
    /// Every ticket below this is done.
    until: u64,
    /// Results that nobody has taken yet.
    results: BTreeMap<u64, Outcome>,
    /// Tickets whose results nobody wants.
    unwanted: BTreeSet<u64>,
}

#[derive(Default)]
struct Results {
    done: Mutex<Done>,
    news: Condvar,
}

impl Results {
    fn put(&self, ticket: u64, outcome: Outcome) {
        let mut done = self.done.lock();
        done.until = ticket + 1;
        if !done.unwanted.remove(&ticket) {
            done.results.insert(ticket, outcome);
        }
        drop(done);
        self.news.notify_all();
    }
}

enum Hands {
    /// Requests are done where they are made.
    Inline(Mutex<Desk>),
    Thread(Option<Sender<(u64, Request)>>, Option<JoinHandle<()>>),
}

pub(super) struct Worker {
    hands: Hands,
    results: Arc<Results>,
    next: u64,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({} requests)", self.next)
    }
}

impl Worker {
    pub fn inline(storage: Box<dyn Storage>) -> Worker {
        let desk = Desk { name: String::new(), storage, notices: Arc::new(|_| {}), told: [false; 3] };
        Worker { hands: Hands::Inline(Mutex::new(desk)), results: Arc::default(), next: 0 }
    }

    pub fn start(
        name: &str,
        storage: Box<dyn Storage>,
        completion: Completion,
        notices: Notices,
    ) -> io::Result<Worker> {
        let (sender, receiver) = unbounded();
        let results: Arc<Results> = Arc::default();
        let desk = Desk { name: name.to_owned(), storage, notices, told: [false; 3] };
        let theirs = results.clone();
        let thread = std::thread::Builder::new()
            .name("medium".into())
            .spawn(move || serve(desk, &receiver, &theirs, &completion))?;
        Ok(Worker { hands: Hands::Thread(Some(sender), Some(thread)), results, next: 0 })
    }

    /// Queues a request and gives its ticket.
    pub fn submit(&mut self, request: Request) -> u64 {
        let ticket = self.next;
        self.next += 1;
        match &self.hands {
            Hands::Inline(desk) => {
                let outcome = desk.lock().perform(&request);
                self.results.put(ticket, outcome);
            }
            Hands::Thread(sender, _) => {
                let sent = sender.as_ref().is_some_and(|sender| sender.send((ticket, request)).is_ok());
                if !sent {
                    self.results.put(ticket, Err(Failed));
                }
            }
        }
        ticket
    }

    pub fn is_done(&self, ticket: u64) -> bool {
        ticket < self.results.done.lock().until
    }

    /// Waits for a result and takes it. One that was taken before has failed.
    pub fn take(&self, ticket: u64) -> Outcome {
        let mut done = self.results.done.lock();
        // A thread that has gone away with requests left does nothing more.
        while ticket >= done.until && self.is_at_work() {
            self.results.news.wait_for(&mut done, LOOK_AROUND);
        }
        done.results.remove(&ticket).unwrap_or(Err(Failed))
    }

    fn is_at_work(&self) -> bool {
        match &self.hands {
            Hands::Inline(_) => false,
            Hands::Thread(_, thread) => thread.as_ref().is_some_and(|thread| !thread.is_finished()),
        }
    }

    pub fn forget(&self, ticket: u64) {
        let mut done = self.results.done.lock();
        if ticket < done.until {
            done.results.remove(&ticket);
        } else {
            done.unwanted.insert(ticket);
        }
    }
}

impl Drop for Worker {
    /// What was asked for is done first.
    fn drop(&mut self) {
        if let Hands::Thread(sender, thread) = &mut self.hands {
            drop(sender.take());
            // The medium's own thread may be the last that knows the board.
            let me = std::thread::current().id();
            if let Some(thread) = thread.take().filter(|thread| thread.thread().id() != me) {
                // Should it have panicked, the message is out already.
                let _ = thread.join();
            }
        }
    }
}

fn serve(mut desk: Desk, requests: &Receiver<(u64, Request)>, results: &Results, completion: &Completion) {
    for (ticket, request) in requests {
        let outcome = desk.perform(&request);
        results.put(ticket, outcome);
        if let Completion::WhenDone(bell) = completion {
            bell();
        }
    }
    if !desk.storage.is_read_only() {
        // At the end everything lasts, as if the guest had flushed.
        let _ = desk.perform(&Request::Flush);
    }
}

/// The storage and what was said of it.
struct Desk {
    name: String,
    storage: Box<dyn Storage>,
    notices: Notices,
    /// The user was told of a failed read, write, flush.
    told: [bool; 3],
}

impl Desk {
    fn perform(&mut self, request: &Request) -> Outcome {
        let (kind, result) = match request {
            Request::Read { at, bytes } => (0, self.read(*at, *bytes as usize)),
            Request::Write { at, data } => (1, self.write(*at, data)),
            Request::Flush => (2, self.storage.flush().map(|()| Vec::new())),
        };
        result.map_err(|error| {
            self.tell(kind, &error);
            Failed
        })
    }

    fn check(&self, at: u64, bytes: usize) -> io::Result<()> {
        let inside = at.checked_add(bytes as u64).is_some_and(|end| end <= self.storage.length());
        if inside && bytes <= MAX_REQUEST { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn read(&mut self, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        self.check(at, bytes)?;
        let mut data = vec![0; bytes];
        self.storage.read(at, &mut data)?;
        Ok(data)
    }

    fn write(&mut self, at: u64, data: &[u8]) -> io::Result<Vec<u8>> {
        self.check(at, data.len())?;
        if self.storage.is_read_only() {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.storage.write(at, data)?;
        Ok(Vec::new())
    }

    fn tell(&mut self, kind: usize, error: &io::Error) {
        let Some(told) = self.told.get_mut(kind).filter(|told| !**told) else { return };
        *told = true;
        let what = ["read", "write", "flush"].get(kind).copied().unwrap_or("request");
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                "try to free space on the host"
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => "try an image that is whole",
            _ => "try to check the host's disk",
        };
        (self.notices)(&format!("{}: a {what} failed ({error}), and the guest got an I/O error; {advice}", self.name));
    }
}
