//! Memory that can be taken back (S12–S20): which frames of a guest are in host memory, and where the contents of the others are.
//!
//! ```text
//! Zero ──first touch──► In ──all zero──► Zero (no slot: a zero page costs nothing)
//!                        ▲├─────────────► OnDisk (a block of a disk of the guest holds the same: nothing is written)
//!                        │└─────────────► Out (a slot of the swap file)
//!                        ├── any access through the door (`monitor::evict`) ──┘
//!                        ├─────────────► Shared (a frame that other pages have too; it is read as it is)
//!                        └── a write through the door (`monitor::join`) ──┘
//! ```
//! A page that came back from the swap file keeps its slot as long as it is in (`Copied`): if it still holds the same when it leaves
//! again, nothing is written. These slots are the first to be given up where the swap file has no room.
//!
//! A page keeps its frame's *number* for good: the pool is address space, and memory is what the host has put behind it. So
//! everything that is known by frame outlives a stay elsewhere: which bytes hold translated code, and which pages hold guest
//! tables (their monitor tables stay in force, since nobody can write a page that is out or shared without bringing it in).
//!
//! *Architecture invariant*: a monitor entry leads to a frame that is in (I2, `monitor::audit`), or to a shared one, which it lets
//! nobody write; and whoever takes one out goes through the types of `order`.
//!
//! | file | |
//! |---|---|
//! | `order` | mapped → unmapped → acknowledged → out, as types |
//! | `policy` | which page goes next |
//! | `swap`, `slots` | the swap file |
//! | `disks` | blocks of the guest's disks that hold what pages hold |
//! | `sharing` | frames that pages have in common |
//! | `books` | what is known of each frame |
//!
//! Not taken away: ROM images, video memory and shared frames (they do not count for the limit either).

pub(crate) mod books;
pub mod disks;
pub mod order;
pub mod policy;
pub mod sharing;
pub(crate) mod slots;
pub mod swap;

use crate::frames::{Frame, Pool};
use books::{Books, Entry};
use disks::{Block, Disks};
use policy::{Policy, Replacement};
use serde::{Deserialize, Serialize};
use sharing::{SharedFrame, Sharing};
use std::sync::{Arc, OnceLock};
use swap::{Slot, Swap, SwapError, SwapStore};

/// What becomes of a frame's memory when its contents are out.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Freed {
    /// The host has it back.
    #[default]
    Returned,
    /// It is kept, filled with what no guest wrote: a test sees whoever reads it still.
    Poisoned,
}

/// How a guest's memory is paged.
#[derive(Debug)]
pub struct Paging {
    /// Bytes of RAM that may be in host memory at a time; at least [`LEAST_LIMIT`].
    pub limit: u64,
    /// Which page goes first.
    pub policy: Policy,
    /// Where the contents go.
    pub store: Box<dyn SwapStore>,
    /// What becomes of the memory.
    pub freed: Freed,
}

/// The smallest limit: an instruction and its page walks must find room at the same time.
pub const LEAST_LIMIT: u64 = 64 << 10;

/// What paging has done.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReclaimCounts {
    /// Frames that may be in; 0: memory is not paged.
    pub limit: u64,
    /// Frames of RAM that are in.
    pub resident: u64,
    /// The most that ever were.
    pub most_resident: u64,
    /// Frames whose contents are in the swap file.
    pub swapped: u64,
    /// Pages that came in for the first time, or again after they were found to be zero.
    pub first_touches: u64,
    /// Pages taken away.
    pub evictions: u64,
    /// Those among them that were all zero, and took no slot.
    pub zero_evictions: u64,
    /// Those whose contents were in the swap file already, as they had come from there.
    pub clean_evictions: u64,
    /// Those whose contents a disk of the guest holds.
    #[serde(default)]
    pub disk_evictions: u64,
    /// Pages brought back from the swap file.
    pub swap_ins: u64,
    /// Pages brought back from disks of the guest.
    #[serde(default)]
    pub disk_reads: u64,
    /// Pages that were on a disk and went to the swap file, as their blocks were written.
    #[serde(default)]
    pub disk_moves: u64,
    /// Frames whose contents are on disks now.
    #[serde(default)]
    pub on_disk: u64,
    /// Frames that are in and have a slot as well.
    pub copied: u64,
    /// Bytes in slots now.
    pub swap_bytes: u64,
    /// Bytes that the swap file has grown to.
    pub swap_file_bytes: u64,
    /// Bytes written to the swap file.
    pub swap_written: u64,
    /// Bytes read from it.
    pub swap_read: u64,
    /// Groups of 512 frames that became huge pages of the host.
    pub merges: u64,
    /// Pages whose contents lie in shared frames.
    pub shared: u64,
    /// Pages that ever came to.
    pub joins: u64,
    /// Those that were written, and got their own frames back.
    pub breaks: u64,
    /// Shared frames that there are, whoever refers to them.
    pub shared_frames: u64,
    /// Pages asked whether they were used.
    pub asked: u64,
    /// Those that were.
    pub used: u64,
}

/// Where the contents of a frame are.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// In the frame, for good: not RAM, or memory is not paged.
    #[default]
    Kept,
    /// Nowhere: they are zero.
    Zero,
    /// In the frame.
    In,
    /// In the frame; what was there when it came in is in the swap file, too.
    Copied(Slot),
    /// In the swap file.
    Out(Slot),
    /// On a disk of the guest.
    OnDisk(Block),
    /// In a frame that others may refer to, too.
    Shared(SharedFrame),
}

impl State {
    /// Whether it is a frame that may be taken away.
    pub(crate) fn is_in(self) -> bool {
        matches!(self, State::In | State::Copied(_))
    }
}

/// The books of one guest's paged memory. Under the mmu lock.
#[derive(Debug)]
pub(crate) struct Reclaim {
    pub(crate) books: Books,
    /// Whether groups of frames are made huge pages of the host.
    pub(crate) merges: bool,
    /// Whom it shares equal pages with.
    pub(crate) sharing: Option<Arc<Sharing>>,
    /// Frames that may be in.
    pub(crate) limit: u64,
    pub(crate) policy: Box<dyn Replacement>,
    pub(crate) swap: Swap,
    pub(crate) disks: Disks,
    pub(crate) freed: Freed,
    pub(crate) counts: ReclaimCounts,
    pub(crate) failure: Arc<OnceLock<SwapError>>,
}

impl Reclaim {
    pub(crate) fn new(paging: Paging, pool: &Pool, failure: Arc<OnceLock<SwapError>>) -> Reclaim {
        let Paging { limit, policy, store, freed } = paging;
        Reclaim {
            books: Books::default(),
            merges: pool.merges(),
            sharing: None,
            limit: limit.max(LEAST_LIMIT) >> 12,
            policy: policy.make(),
            swap: Swap::new(store),
            disks: Disks::default(),
            freed,
            counts: ReclaimCounts::default(),
            failure,
        }
    }
    pub(crate) fn state(&self, frame: Frame) -> State {
        self.books.get(frame).state
    }
    pub(crate) fn set(&mut self, frame: Frame, state: State) {
        self.books.entry(frame).state = state;
    }
    /// A frame is in from now on, and being used; its contents are in a slot as well.
    pub(crate) fn came_from(&mut self, slot: Slot, frame: Frame) {
        self.came(frame);
        self.set(frame, State::Copied(slot));
        self.counts.copied += 1;
    }
    /// Gives up the slot of a frame that is in.
    pub(crate) fn drop_copy(&mut self, frame: Frame) {
        if let State::Copied(slot) = self.state(frame) {
            self.swap.give_back(slot);
            self.counts.copied -= 1;
            self.set(frame, State::In);
        }
    }
    /// Gives up all such slots; tells whether there were any.
    pub(crate) fn drop_copies(&mut self) -> bool {
        let copied = self.books.iter().filter(|(_, entry)| matches!(entry.state, State::Copied(_)));
        let frames: Vec<Frame> = copied.map(|(frame, _)| frame).collect();
        frames.iter().for_each(|frame| self.drop_copy(*frame));
        !frames.is_empty()
    }
    /// A frame is in from now on, and being used.
    pub(crate) fn came(&mut self, frame: Frame) {
        *self.books.entry(frame) = Entry { state: State::In, ..Entry::default() };
        self.policy.came(frame.0);
        self.counts.resident += 1;
        self.counts.most_resident = self.counts.most_resident.max(self.counts.resident);
    }
    /// The first error counts: what comes after it may be its consequence.
    pub(crate) fn fail(&self, error: SwapError) {
        let _ = self.failure.set(error);
    }
    /// The counters at this moment.
    pub(crate) fn counts(&self) -> ReclaimCounts {
        let (swap_bytes, swap_file_bytes) = self.swap.bytes();
        let shared_frames = self.sharing.as_ref().map_or(0, |sharing| sharing.counts().frames);
        let on_disk = self.disks.used();
        ReclaimCounts { limit: self.limit, swap_bytes, swap_file_bytes, shared_frames, on_disk, ..self.counts }
    }
}
