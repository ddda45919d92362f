//! ATA and ATAPI drives (ATA/ATAPI-7, INCITS 397; MMC-5 for CD-ROM) without their cable: what a drive does with a command.
//!
//! A controller (`ide`, AHCI) gives a [`Drive`] a [`Command`] and does what the returned [`Step`] says, until it is
//! [`Step::Done`]. How bytes travel (PIO blocks, bus-master DMA, FIS) and when interrupts are made is the controller's
//! business; which sectors, which errors and what the drive says of itself is the drive's.
//!
//! Leaves out: SMART, security, host-protected areas, queued commands, power states (the commands do nothing).

mod cdrom;
mod disk;
mod identify;
mod mmc;
mod packet;
#[cfg(test)]
mod tests;

pub use cdrom::Cdrom;
pub use disk::Disk;

use crate::block::Medium;
use crate::clock::Tick;
use crate::device::StateError;
use serde::{Deserialize, Serialize};

/// Status register.
pub mod status {
    /// A command failed.
    pub const ERR: u8 = 1 << 0;
    /// Data can be moved.
    pub const DRQ: u8 = 1 << 3;
    /// Seek complete; always set when ready.
    pub const DSC: u8 = 1 << 4;
    /// The drive failed.
    pub const DF: u8 = 1 << 5;
    /// The drive is ready.
    pub const DRDY: u8 = 1 << 6;
    /// The drive is at work.
    pub const BSY: u8 = 1 << 7;
}

/// Error register.
pub mod error {
    /// The command does not exist, or not with these arguments.
    pub const ABRT: u8 = 1 << 2;
    /// There is no such sector.
    pub const IDNF: u8 = 1 << 4;
    /// The data cannot be read.
    pub const UNC: u8 = 1 << 6;
}

/// Device register: sectors are counted from 0, not by cylinder, head and sector.
pub const DEVICE_LBA: u8 = 1 << 6;

/// A command as the host wrote it: 16-bit feature and count and a 48-bit address, whose high parts 28-bit commands ignore.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The command code.
    pub code: u8,
    /// Features.
    pub feature: u16,
    /// Sector count.
    pub count: u16,
    /// LBA low, mid, high; then the previous contents of the same.
    pub lba: u64,
    /// The device register.
    pub device: u8,
}

/// How a command's bytes are to travel.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// By the data register, in blocks of at most so many bytes.
    Pio {
        /// Bytes.
        block: u32,
    },
    /// By direct memory access.
    Dma,
}

/// What comes next in a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The drive is at work: [`Drive::proceed`] at [`Drive::next_event`].
    Busy,
    /// Bytes for the host, then [`Drive::taken`].
    In(Vec<u8>, Protocol),
    /// The host is to bring so many bytes to [`Drive::given`].
    Out(usize, Protocol),
    /// The host is to bring a packet of twelve bytes to [`Drive::given`].
    Packet,
    /// The command is over.
    Done(Ending),
}

/// The registers after a command. Those that are `None` keep what the host wrote.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Status, without BSY and DRQ.
    pub status: u8,
    /// Error.
    pub error: u8,
    /// Sector count, or interrupt reason.
    pub count: Option<u16>,
    /// The address.
    pub lba: Option<u64>,
    /// The device register's low half.
    pub head: Option<u8>,
}

const READY: u8 = status::DRDY | status::DSC;

impl Ending {
    /// All went well.
    pub const fn good() -> Ending {
        Ending { status: READY, error: 0, count: None, lba: None, head: None }
    }
    /// It failed.
    pub const fn failed(error: u8) -> Ending {
        Ending { status: READY | status::ERR, error, count: None, lba: None, head: None }
    }
    /// A failure at a sector.
    fn at_sector(mut self, lba: u64) -> Ending {
        self.lba = Some(lba);
        self
    }
    /// Good, with an answer in the count register.
    fn with_count(mut self, count: u16) -> Ending {
        self.count = Some(count);
        self
    }
}

/// A drive.
#[derive(Debug)]
pub enum Drive {
    /// A hard disk.
    Disk(Disk),
    /// A CD-ROM drive.
    Cdrom(Cdrom),
}

macro_rules! each {
    ($drive:expr, $inner:ident => $call:expr) => {
        match $drive {
            Drive::Disk($inner) => $call,
            Drive::Cdrom($inner) => $call,
        }
    };
}

impl Drive {
    /// The signature that tells what the drive is, as (count, LBA) after a reset (ATA/ATAPI-7, 5.16).
    pub fn signature(&self) -> (u8, u64) {
        match self {
            Drive::Disk(_) => (1, 0x00_00_01),
            Drive::Cdrom(_) => (1, 0xEB_14_01),
        }
    }
    /// Status after a reset: a packet device says that it is not ready for ATA commands.
    pub fn reset_status(&self) -> u8 {
        match self {
            Drive::Disk(_) => READY,
            Drive::Cdrom(_) => 0,
        }
    }
    /// Forgets the command under way; `hard`ware reset also forgets what was set up.
    pub fn reset(&mut self, hard: Reset) {
        each!(self, drive => drive.reset(hard));
    }
    /// Begins a command; one that is under way is forgotten.
    pub fn begin(&mut self, now: Tick, command: &Command) -> Step {
        each!(self, drive => drive.begin(now, command))
    }
    /// When a busy drive goes on, as far as is known.
    pub fn next_event(&self) -> Option<Tick> {
        each!(self, drive => drive.next_event())
    }
    /// Goes on after [`Step::Busy`].
    pub fn proceed(&mut self, now: Tick) -> Step {
        each!(self, drive => drive.proceed(now))
    }
    /// The host has taken what [`Step::In`] gave.
    pub fn taken(&mut self, now: Tick) -> Step {
        each!(self, drive => drive.taken(now))
    }
    /// The host brings what [`Step::Out`] or [`Step::Packet`] asked for.
    pub fn given(&mut self, now: Tick, data: Vec<u8>) -> Step {
        each!(self, drive => drive.given(now, data))
    }
    /// The volatile state.
    pub fn save(&self) -> Vec<u8> {
        each!(self, drive => drive.save())
    }
    /// Restores what [`Self::save`] gave.
    pub fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        each!(self, drive => drive.restore(state))
    }
    /// Puts another medium into a CD-ROM drive, or none; `medium` is the old one afterwards. False: it is a disk, which
    /// keeps its own.
    #[must_use]
    pub fn swap_medium(&mut self, now: Tick, medium: &mut Option<Medium>) -> bool {
        match self {
            Drive::Disk(_) => false,
            Drive::Cdrom(drive) => {
                drive.swap_medium(now, medium);
                true
            }
        }
    }
}

/// How far a reset reaches.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Reset {
    /// RESET# or power-on.
    Hard,
    /// SRST, or the DEVICE RESET command.
    Soft,
}

/// A text in the words of IDENTIFY DEVICE: spaces at the end, bytes of each word swapped.
fn swapped_text(text: &str, into: &mut [u8]) {
    into.fill(b' ');
    into.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    into.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
}
