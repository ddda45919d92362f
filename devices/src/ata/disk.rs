//! A hard disk: the general feature set, 28- and 48-bit addresses, PIO, multiple and DMA transfers, cache flush, SET
//! FEATURES (ATA/ATAPI-7, chapter 6).
//!
//! Writes are done before the command ends; FLUSH CACHE makes them last on the host. A disk that is read-only aborts them.

use super::identify::{self, DiskFacts, DmaMode, MAX_MULTIPLE};
use super::{Command, DEVICE_LBA, Ending, Protocol, Reset, Step, error, status};
use crate::block::{MAX_REQUEST, Medium, Pending, Request, SECTOR};
use crate::clock::Tick;
use crate::device::{StateError, restore_state, save_state};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The most sectors of one request to the medium.
const CHUNK: u32 = (MAX_REQUEST / SECTOR) as u32;

/// Where a transfer is.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
struct Span {
    lba: u64,
    /// Sectors left, the current chunk included.
    left: u32,
    /// Sectors of the current chunk.
    chunk: u32,
    protocol: Protocol,
    /// Writes: flush at the end (FUA).
    flush: bool,
}

/// What the disk is doing.
#[derive(Debug, Default, Serialize, Deserialize)]
enum Work {
    #[default]
    Idle,
    /// An answer was given to the host.
    Answer,
    /// A chunk is being read.
    Reading(Span, Pending),
    /// A chunk that was read is with the host.
    Read(Span),
    /// The host is to bring a chunk.
    ToWrite(Span),
    /// A chunk is being written.
    Writing(Span, Pending),
    /// A chunk is being read for nobody.
    Verifying(Span, Pending),
    Flushing(Pending),
}

/// The volatile state.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    geometry: [u16; 3],
    multiple: u8,
    write_cache: bool,
    look_ahead: bool,
    dma: DmaMode,
    work: Work,
}

/// A hard disk.
#[derive(Debug)]
pub struct Disk {
    // Configuration.
    medium: Medium,
    serial: String,
    sectors: u64,
    // Volatile state.
    state: State,
}

/// The geometry that a disk of so many sectors shows by default (ATA/ATAPI-5, annex C).
fn default_geometry(sectors: u64) -> [u16; 3] {
    let cylinders = (sectors / (16 * 63)).clamp(1, 16_383);
    [cylinders as u16, 16, 63]
}

fn power_on(sectors: u64) -> State {
    State {
        geometry: default_geometry(sectors),
        multiple: 0,
        write_cache: true,
        look_ahead: true,
        dma: DmaMode::Ultra(5),
        work: Work::Idle,
    }
}

impl Disk {
    /// A disk over a medium; a last part of a sector is not seen.
    pub fn new(medium: Medium, serial: &str) -> Disk {
        let sectors = (medium.length() / SECTOR as u64).min(1 << 48);
        Disk { medium, serial: serial.to_owned(), sectors, state: power_on(sectors) }
    }

    pub(super) fn reset(&mut self, reset: Reset) {
        self.forget();
        match reset {
            Reset::Hard => self.state = power_on(self.sectors),
            Reset::Soft => self.state.multiple = 0,
        }
    }

    fn forget(&mut self) {
        match std::mem::take(&mut self.state.work) {
            Work::Reading(_, pending)
            | Work::Writing(_, pending)
            | Work::Verifying(_, pending)
            | Work::Flushing(pending) => self.medium.forget(&pending),
            _ => {}
        }
    }

    pub(super) fn next_event(&self) -> Option<Tick> {
        match &self.state.work {
            Work::Reading(_, pending)
            | Work::Writing(_, pending)
            | Work::Verifying(_, pending)
            | Work::Flushing(pending) => self.medium.due(pending),
            _ => None,
        }
    }

    #[rustfmt::skip]
    pub(super) fn begin(&mut self, now: Tick, command: &Command) -> Step {
        self.forget();
        let sector = Protocol::Pio { block: SECTOR as u32 };
        let multiple = (self.state.multiple != 0)
            .then_some(Protocol::Pio { block: u32::from(self.state.multiple) * SECTOR as u32 });
        match command.code {
            0x20 | 0x21 => self.read(now, command, Size::Short, Some(sector)),
            0x24        => self.read(now, command, Size::Long, Some(sector)),
            0x29        => self.read(now, command, Size::Long, multiple),
            0xC4        => self.read(now, command, Size::Short, multiple),
            0x25        => self.read(now, command, Size::Long, Some(Protocol::Dma)),
            0xC8 | 0xC9 => self.read(now, command, Size::Short, Some(Protocol::Dma)),
            0x30 | 0x31 => self.write(command, Size::Short, Some(sector), Fua::No),
            0x34        => self.write(command, Size::Long, Some(sector), Fua::No),
            0x39        => self.write(command, Size::Long, multiple, Fua::No),
            0xC5        => self.write(command, Size::Short, multiple, Fua::No),
            0xCE        => self.write(command, Size::Long, multiple, Fua::Yes),
            0x35        => self.write(command, Size::Long, Some(Protocol::Dma), Fua::No),
            0x3D        => self.write(command, Size::Long, Some(Protocol::Dma), Fua::Yes),
            0xCA | 0xCB => self.write(command, Size::Short, Some(Protocol::Dma), Fua::No),
            0x40 | 0x41 => self.verify(now, command, Size::Short),
            0x42        => self.verify(now, command, Size::Long),
            0xE7 | 0xEA => self.flush(now),
            0xEC        => self.answer(self.identify()),
            0xEF        => self.set_features(command),
            0xC6        => self.set_multiple(command.count as u8),
            0x91        => self.set_geometry(command),
            0xF8        => self.highest(Size::Short),
            0x27        => self.highest(Size::Long),
            // RECALIBRATE, SEEK: there is no head to move.
            0x10..=0x1F | 0x70 => Step::Done(Ending::good()),
            // Power modes are kept up with, none is modelled: always active.
            0xE0..=0xE3 | 0xE6 | 0x94..=0x97 | 0x99 => Step::Done(Ending::good()),
            0xE5 | 0x98 => Step::Done(Ending::good().with_count(0xFF)),
            _ => abort(),
        }
    }

    pub(super) fn proceed(&mut self, now: Tick) -> Step {
        match std::mem::take(&mut self.state.work) {
            Work::Reading(span, pending) => match self.medium.take(&pending) {
                Ok(data) => {
                    self.state.work = Work::Read(span);
                    Step::In(data, span.protocol)
                }
                Err(_) => Step::Done(Ending::failed(error::UNC).at_sector(span.lba)),
            },
            Work::Verifying(span, pending) => match self.medium.take(&pending) {
                Ok(_) => self.verify_more(now, span.after_chunk()),
                Err(_) => Step::Done(Ending::failed(error::UNC).at_sector(span.lba)),
            },
            Work::Writing(span, pending) => match self.medium.take(&pending) {
                Ok(_) => self.write_more(now, span.after_chunk()),
                Err(_) => Step::Done(device_fault().at_sector(span.lba)),
            },
            Work::Flushing(pending) => match self.medium.take(&pending) {
                Ok(_) => Step::Done(Ending::good()),
                Err(_) => Step::Done(device_fault()),
            },
            work => {
                self.state.work = work;
                Step::Busy
            }
        }
    }

    pub(super) fn taken(&mut self, now: Tick) -> Step {
        match std::mem::take(&mut self.state.work) {
            Work::Read(span) => self.read_more(now, span.after_chunk()),
            _ => Step::Done(Ending::good()),
        }
    }

    pub(super) fn given(&mut self, now: Tick, data: Vec<u8>) -> Step {
        match std::mem::take(&mut self.state.work) {
            Work::ToWrite(span) if data.len() == span.chunk as usize * SECTOR => {
                let request = Request::Write { at: span.lba * SECTOR as u64, data: Arc::new(data) };
                self.state.work = Work::Writing(span, self.medium.start(now, request));
                Step::Busy
            }
            _ => abort(),
        }
    }

    pub(super) fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    pub(super) fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = restore_state("ata-disk", state)?;
        let span = match &state.work {
            Work::Reading(span, _) | Work::Read(span) | Work::ToWrite(span) => Some(span),
            Work::Writing(span, _) | Work::Verifying(span, _) => Some(span),
            Work::Idle | Work::Answer | Work::Flushing(_) => None,
        };
        let [_, heads, per_track] = state.geometry;
        if span.is_some_and(|span| !span.fits(self.sectors)) || !(1..=16).contains(&heads) || per_track == 0 {
            return Err(StateError { device: "ata-disk", reason: "a transfer or geometry that cannot be".into() });
        }
        self.forget();
        self.state = state;
        match &mut self.state.work {
            Work::Reading(_, pending)
            | Work::Writing(_, pending)
            | Work::Verifying(_, pending)
            | Work::Flushing(pending) => self.medium.resume(pending),
            _ => {}
        }
        Ok(())
    }

    /// The sectors that a command names: first, how many. `None` if one of them is not there.
    fn range(&self, command: &Command, size: Size) -> Option<(u64, u32)> {
        let (lba, count) = match size {
            Size::Short if command.device & DEVICE_LBA == 0 => {
                let [_, heads, per_track] = self.state.geometry.map(u64::from);
                let (cylinder, head) = (command.lba >> 8 & 0xFFFF, u64::from(command.device & 0xF));
                let sector = (command.lba & 0xFF).checked_sub(1).filter(|&sector| sector < per_track)?;
                if head >= heads {
                    return None;
                }
                ((cylinder * heads + head) * per_track + sector, command.count & 0xFF)
            }
            Size::Short => (command.lba & 0xFF_FFFF | u64::from(command.device & 0xF) << 24, command.count & 0xFF),
            Size::Long => (command.lba & 0xFFFF_FFFF_FFFF, command.count),
        };
        let count = match (count, size) {
            (0, Size::Short) => 0x100,
            (0, Size::Long) => 0x1_0000,
            (count, _) => u32::from(count),
        };
        (lba.checked_add(u64::from(count))? <= self.sectors).then_some((lba, count))
    }

    /// A span over what a command names.
    fn span(&self, command: &Command, size: Size, protocol: Option<Protocol>) -> Result<Span, Step> {
        let protocol = protocol.ok_or_else(abort)?;
        let (lba, left) = self.range(command, size).ok_or(Step::Done(Ending::failed(error::IDNF)))?;
        // A chunk holds whole blocks.
        let per_block = match protocol {
            Protocol::Pio { block } => (block / SECTOR as u32).max(1),
            Protocol::Dma => 1,
        };
        Ok(Span { lba, left, chunk: left.min(CHUNK / per_block * per_block), protocol, flush: false })
    }

    fn read(&mut self, now: Tick, command: &Command, size: Size, protocol: Option<Protocol>) -> Step {
        match self.span(command, size, protocol) {
            Ok(span) => self.read_more(now, span),
            Err(step) => step,
        }
    }

    fn read_more(&mut self, now: Tick, span: Span) -> Step {
        if span.left == 0 {
            return Step::Done(Ending::good());
        }
        self.state.work = Work::Reading(span, self.medium.start(now, span.read()));
        Step::Busy
    }

    fn verify(&mut self, now: Tick, command: &Command, size: Size) -> Step {
        match self.span(command, size, Some(Protocol::Dma)) {
            Ok(span) => self.verify_more(now, span),
            Err(step) => step,
        }
    }

    fn verify_more(&mut self, now: Tick, span: Span) -> Step {
        if span.left == 0 {
            return Step::Done(Ending::good());
        }
        self.state.work = Work::Verifying(span, self.medium.start(now, span.read()));
        Step::Busy
    }

    fn write(&mut self, command: &Command, size: Size, protocol: Option<Protocol>, fua: Fua) -> Step {
        if self.medium.is_read_only() {
            return abort();
        }
        match self.span(command, size, protocol) {
            Ok(span) => {
                let span = Span { flush: fua == Fua::Yes, ..span };
                self.state.work = Work::ToWrite(span);
                Step::Out(span.chunk as usize * SECTOR, span.protocol)
            }
            Err(step) => step,
        }
    }

    fn write_more(&mut self, now: Tick, span: Span) -> Step {
        if span.left > 0 {
            self.state.work = Work::ToWrite(span);
            return Step::Out(span.chunk as usize * SECTOR, span.protocol);
        }
        // With the write cache off, what was written lasts.
        if span.flush || !self.state.write_cache { self.flush(now) } else { Step::Done(Ending::good()) }
    }

    fn flush(&mut self, now: Tick) -> Step {
        if self.medium.is_read_only() {
            return Step::Done(Ending::good());
        }
        self.state.work = Work::Flushing(self.medium.start(now, Request::Flush));
        Step::Busy
    }

    fn answer(&mut self, data: Vec<u8>) -> Step {
        self.state.work = Work::Answer;
        Step::In(data, Protocol::Pio { block: SECTOR as u32 })
    }

    fn identify(&self) -> Vec<u8> {
        identify::disk(&DiskFacts {
            serial: &self.serial,
            model: "UMBRA HARDDISK",
            sectors: self.sectors,
            default_geometry: default_geometry(self.sectors),
            geometry: self.state.geometry,
            multiple: self.state.multiple,
            write_cache: self.state.write_cache,
            look_ahead: self.state.look_ahead,
            dma: self.state.dma,
        })
    }

    fn set_features(&mut self, command: &Command) -> Step {
        match command.feature as u8 {
            0x02 => self.state.write_cache = true,
            0x82 => self.state.write_cache = false,
            0xAA => self.state.look_ahead = true,
            0x55 => self.state.look_ahead = false,
            // Power-on defaults after a soft reset: nothing is changed by one anyway.
            0x66 | 0xCC => {}
            0x03 => match DmaMode::of_count(command.count as u8) {
                Some(Some(mode)) => self.state.dma = mode,
                Some(None) => {}
                None => return abort(),
            },
            _ => return abort(),
        }
        Step::Done(Ending::good())
    }

    fn set_multiple(&mut self, sectors: u8) -> Step {
        if sectors > MAX_MULTIPLE || sectors != 0 && !sectors.is_power_of_two() {
            self.state.multiple = 0;
            return abort();
        }
        self.state.multiple = sectors;
        Step::Done(Ending::good())
    }

    /// INITIALIZE DEVICE PARAMETERS.
    fn set_geometry(&mut self, command: &Command) -> Step {
        let (heads, per_track) = (u16::from(command.device & 0xF) + 1, command.count & 0xFF);
        if per_track == 0 {
            return abort();
        }
        let cylinders = self.sectors / (u64::from(heads) * u64::from(per_track));
        self.state.geometry = [cylinders.clamp(1, 16_383) as u16, heads, per_track];
        Step::Done(Ending::good())
    }

    /// READ NATIVE MAX ADDRESS.
    fn highest(&self, size: Size) -> Step {
        let last = self.sectors.saturating_sub(1);
        let mut ending = Ending::good();
        match size {
            Size::Short => {
                let last = last.min((1 << 28) - 1);
                ending.lba = Some(last & 0xFF_FFFF);
                ending.head = Some((last >> 24) as u8);
            }
            Size::Long => ending.lba = Some(last),
        }
        Step::Done(ending)
    }
}

impl Span {
    fn read(&self) -> Request {
        Request::Read { at: self.lba.saturating_mul(SECTOR as u64), bytes: self.chunk.saturating_mul(SECTOR as u32) }
    }
    /// Whether a restored span can be one of a disk of so many sectors.
    fn fits(&self, sectors: u64) -> bool {
        let block = match self.protocol {
            Protocol::Pio { block } => block as usize,
            Protocol::Dma => SECTOR,
        };
        let inside = self.lba.checked_add(u64::from(self.left)).is_some_and(|end| end <= sectors);
        inside
            && (1..=CHUNK.min(self.left)).contains(&self.chunk)
            && (SECTOR..=usize::from(MAX_MULTIPLE) * SECTOR).contains(&block)
    }
    fn after_chunk(self) -> Span {
        let left = self.left.saturating_sub(self.chunk);
        Span { lba: self.lba.saturating_add(u64::from(self.chunk)), left, chunk: self.chunk.min(left), ..self }
    }
}

/// Whether a command has 28 or 48 address bits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Size {
    Short,
    Long,
}

/// Whether a write lasts before it ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Fua {
    Yes,
    No,
}

fn abort() -> Step {
    Step::Done(Ending::failed(error::ABRT))
}

fn device_fault() -> Ending {
    let ending = Ending::failed(error::ABRT);
    Ending { status: ending.status | status::DF, ..ending }
}
