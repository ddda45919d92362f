//! Block devices as a chip sees them: a [`Medium`] takes one request after the other and does them on a thread of its own.
//!
//! A chip starts a request ([`Medium::start`]) and keeps the [`Pending`] in its state. On the virtual clock the request is
//! over at a tick that was fixed when it began, and whoever takes the result earlier than the host has it waits; on the
//! real clock it is over when the host is done, and the medium rings the board's bell. What is behind a medium is a
//! [`Storage`]: a plain, synchronous row of bytes (the machine's images; nothing of the host is known here).
//!
//! A failed request is an error for the guest and, once for each kind of request, a sentence for the user.
//!
//! Leaves out: discarding ranges, several requests in flight at a time within one command.

mod storage;
mod worker;

#[cfg(test)]
pub(crate) mod testing;

pub use storage::{ReadOnly, Storage};

use crate::clock::Tick;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use worker::Worker;

/// Bytes of a sector of disks.
pub const SECTOR: usize = 512;
/// The most bytes of one request.
pub const MAX_REQUEST: usize = 1 << 20;

/// The time that a request takes on the virtual clock: this, and one nanosecond for each byte.
const REQUEST_NS: u64 = 20_000;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Read bytes from an offset.
    Read {
        /// The first byte.
        at: u64,
        /// How many, at most [`MAX_REQUEST`].
        bytes: u32,
    },
    /// Write bytes to an offset.
    Write {
        /// The first byte.
        at: u64,
        /// The bytes.
        #[serde(with = "shared_bytes")]
        data: Arc<Vec<u8>>,
    },
    /// Make everything written so far last.
    Flush,
}

impl Request {
    fn bytes(&self) -> u64 {
        match self {
            Request::Read { bytes, .. } => u64::from(*bytes),
            Request::Write { data, .. } => data.len() as u64,
            Request::Flush => 0,
        }
    }
}

/// The host could not do it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Failed;

/// What became of a request: the bytes of a read, nothing otherwise.
pub type Outcome = Result<Vec<u8>, Failed>;

/// A request under way, as part of a chip's state. One that was saved and restored is given to [`Medium::resume`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Pending {
    request: Request,
    started: Tick,
    #[serde(skip)]
    ticket: Option<u64>,
}

impl Pending {
    /// A request that no medium has: its result is a failure, at once.
    pub fn lost(now: Tick, request: Request) -> Pending {
        Pending { request, started: now, ticket: None }
    }
    /// What was asked for.
    pub fn request(&self) -> &Request {
        &self.request
    }
}

/// When a request is over.
#[derive(Clone)]
pub enum Completion {
    /// At a tick fixed when it began.
    AtTick,
    /// When the host is done; the bell is rung from the medium's thread.
    WhenDone(Bell),
}

/// What a medium calls when something is done.
pub type Bell = Arc<dyn Fn() + Send + Sync>;
/// Where sentences for the user go.
pub type Notices = Arc<dyn Fn(&str) + Send + Sync>;

/// A disk, CD-ROM or floppy disk.
#[derive(Debug)]
pub struct Medium {
    name: String,
    length: u64,
    read_only: bool,
    fixed_ticks: bool,
    worker: Worker,
}

impl Medium {
    /// A medium with a thread. `name` is for the user's eyes.
    pub fn new(name: &str, storage: Box<dyn Storage>, completion: Completion, notices: Notices) -> io::Result<Medium> {
        let (length, read_only) = (storage.length(), storage.is_read_only());
        let fixed_ticks = matches!(completion, Completion::AtTick);
        let worker = Worker::start(name, storage, completion, notices)?;
        Ok(Medium { name: name.to_owned(), length, read_only, fixed_ticks, worker })
    }

    /// A medium that does everything at once, for tests.
    pub fn inline(storage: Box<dyn Storage>) -> Medium {
        let (length, read_only) = (storage.length(), storage.is_read_only());
        Medium { name: "inline".to_owned(), length, read_only, fixed_ticks: true, worker: Worker::inline(storage) }
    }

    /// Its name for the user.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
    /// Whether writes fail.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Begins a request.
    pub fn start(&mut self, now: Tick, request: Request) -> Pending {
        let ticket = Some(self.worker.submit(request.clone()));
        Pending { request, started: now, ticket }
    }

    /// Begins a request again that was restored from a saved state.
    pub fn resume(&mut self, pending: &mut Pending) {
        pending.ticket = Some(self.worker.submit(pending.request.clone()));
    }

    /// When its result can be taken, as far as is known now.
    pub fn due(&self, pending: &Pending) -> Option<Tick> {
        if self.fixed_ticks {
            return Some(pending.started.after(REQUEST_NS + pending.request.bytes()));
        }
        let over = pending.ticket.is_none_or(|ticket| self.worker.is_done(ticket));
        over.then_some(pending.started)
    }

    /// Takes the result; waits for the host if it is late.
    pub fn take(&self, pending: &Pending) -> Outcome {
        pending.ticket.map_or(Err(Failed), |ticket| self.worker.take(ticket))
    }

    /// Forgets a request, whose effects may happen all the same.
    pub fn forget(&self, pending: &Pending) {
        if let Some(ticket) = pending.ticket {
            self.worker.forget(ticket);
        }
    }
}

/// Bytes behind an `Arc`, saved as plain bytes.
mod shared_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::sync::Arc;

    pub fn serialize<S: Serializer>(data: &Arc<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        data.as_slice().serialize(to)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Vec<u8>>, D::Error> {
        Vec::deserialize(from).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Scripted;
    use super::*;
    use parking_lot::Mutex;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_thread_does_requests_in_order_and_rings() {
        let (ring, rung) = mpsc::channel();
        let bell: Bell = Arc::new(move || {
            let _ = ring.send(());
        });
        let storage = Box::new(Scripted::memory(8 * SECTOR));
        let mut medium = Medium::new("disk", storage, Completion::WhenDone(bell), Arc::new(|_| {})).unwrap();
        let write = medium.start(Tick(1), Request::Write { at: 512, data: Arc::new(vec![7; 512]) });
        let read = medium.start(Tick(2), Request::Read { at: 500, bytes: 24 });
        for _ in 0..2 {
            rung.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        assert_eq!((medium.due(&write), medium.due(&read)), (Some(Tick(1)), Some(Tick(2))));
        assert_eq!(medium.take(&write), Ok(Vec::new()));
        let want: Vec<u8> = [vec![0; 12], vec![7; 12]].concat();
        assert_eq!(medium.take(&read), Ok(want));
        assert_eq!(medium.take(&read), Err(Failed), "a result is taken once");
    }

    #[test]
    fn fixed_ticks_depend_on_the_request_alone() {
        let mut medium = Medium::inline(Box::new(Scripted::memory(1024)));
        let pending = medium.start(Tick(1000), Request::Read { at: 0, bytes: 512 });
        assert_eq!(medium.due(&pending), Some(Tick(1000 + REQUEST_NS + 512)));
    }

    #[test]
    fn what_lies_outside_fails_and_the_user_hears_of_it_once() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        let notices: Notices = Arc::new(move |text| log.lock().push(text.to_owned()));
        let storage = Box::new(Scripted::memory(1024));
        let mut medium = Medium::new("d.img", storage, Completion::AtTick, notices).unwrap();
        for (at, bytes) in [(1024, 1), (0, 1025), (u64::MAX, 1), (512, u32::MAX)] {
            let pending = medium.start(Tick(0), Request::Read { at, bytes });
            assert_eq!(medium.take(&pending), Err(Failed), "{at} {bytes}");
        }
        let pending = medium.start(Tick(0), Request::Write { at: 1000, data: Arc::new(vec![0; 25]) });
        assert_eq!(medium.take(&pending), Err(Failed));
        drop(medium);
        let heard = heard.lock();
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard[0].starts_with("d.img: ") && heard[0].contains("try"), "{heard:?}");
    }

    #[test]
    fn a_saved_request_is_begun_again() {
        let mut medium = Medium::inline(Box::new(Scripted::memory(1024)));
        let pending = medium.start(Tick(5), Request::Write { at: 0, data: Arc::new(vec![1, 2]) });
        let mut restored: Pending = postcard::from_bytes(&postcard::to_stdvec(&pending).unwrap()).unwrap();
        assert_eq!(medium.take(&restored), Err(Failed), "it has no ticket");
        medium.resume(&mut restored);
        assert_eq!((medium.due(&restored), medium.take(&restored)), (medium.due(&pending), Ok(Vec::new())));
    }
}
