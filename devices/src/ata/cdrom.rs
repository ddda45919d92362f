//! A CD-ROM drive on an ATA cable (ATA/ATAPI-7, PACKET feature set; MMC-5): one data track of 2048-byte blocks.
//!
//! The tray can be opened by the guest (unless it locked it) and by the person at the machine, who may change the disc at
//! any time; the guest learns of it by sense data and events. Leaves out: audio, raw and sub-channel reads, writing.

use super::identify::{self, DmaMode};
use super::mmc::{self, BLOCK, MediaEvent};
use super::packet::{Answer, Packet, Sense, be16, be32};
use super::{Command, Ending, Protocol, Reset, Step, error, status};
use crate::block::{MAX_REQUEST, Medium, Pending, Request};
use crate::clock::Tick;
use crate::device::{StateError, restore_state, save_state};
use serde::{Deserialize, Serialize};

/// The most blocks of one request to the medium.
const CHUNK: u32 = (MAX_REQUEST as u64 / BLOCK) as u32;
/// Interrupt reason: the packet is wanted, or the command is over.
const REASON_COMMAND: u16 = 1 << 0;
/// Interrupt reason: towards the host.
const REASON_IN: u16 = 1 << 1;

/// Where a read is.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
struct Span {
    block: u32,
    left: u32,
    protocol: Protocol,
}

impl Span {
    fn chunk(&self) -> u32 {
        self.left.min(CHUNK)
    }
}

/// What the drive is doing.
#[derive(Debug, Default, Serialize, Deserialize)]
enum Work {
    #[default]
    Idle,
    /// An answer to an ATA command was given to the host.
    Identity,
    /// The packet is to come; its bytes travel so.
    ToPacket(Protocol),
    Reading(Span, Pending),
    Read(Span),
    /// The last bytes of a packet command are with the host.
    Answer,
    /// Parameters are to come.
    ToParameters,
}

/// The volatile state.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    dma: Option<DmaMode>,
    sense: Sense,
    /// Reported before anything else, once.
    attention: Option<Sense>,
    event: MediaEvent,
    tray_open: bool,
    locked: bool,
    work: Work,
}

/// A CD-ROM drive.
#[derive(Debug)]
pub struct Cdrom {
    // Configuration.
    serial: String,
    // What is in the tray; the person at the machine changes it.
    medium: Option<Medium>,
    // Volatile state.
    state: State,
}

impl Cdrom {
    /// A drive with a disc in it, or none.
    pub fn new(medium: Option<Medium>, serial: &str) -> Cdrom {
        let mut drive = Cdrom { serial: serial.to_owned(), medium, state: State::default() };
        drive.reset(Reset::Hard);
        drive
    }

    /// Puts another disc in, or takes it out; `medium` is the old one afterwards.
    pub(super) fn swap_medium(&mut self, now: Tick, medium: &mut Option<Medium>) {
        if let (Work::Reading(_, pending), Some(old)) = (&self.state.work, &self.medium) {
            old.forget(pending);
        }
        self.state.event = if medium.is_some() { MediaEvent::NewMedia } else { MediaEvent::Removal };
        if medium.is_some() {
            self.state.attention = Some(Sense::CHANGED);
        }
        self.state.tray_open = false;
        std::mem::swap(&mut self.medium, medium);
        if let Work::Reading(span, _) = self.state.work {
            // The command under way reads from the new disc, or fails at once.
            self.state.work = self.read_work(now, span);
        }
    }

    /// The disc in the drive, if any.
    pub fn medium(&self) -> Option<&Medium> {
        self.medium.as_ref()
    }

    fn blocks(&self) -> Option<u32> {
        let medium = self.medium.as_ref().filter(|_| !self.state.tray_open)?;
        Some((medium.length() / BLOCK).min(u64::from(u32::MAX)) as u32)
    }

    pub(super) fn reset(&mut self, reset: Reset) {
        self.forget();
        if reset == Reset::Hard {
            let tray_open = self.state.tray_open;
            self.state = State { dma: Some(DmaMode::Ultra(5)), tray_open, ..State::default() };
        }
        self.state.attention = Some(Sense::RESET);
        self.state.locked = false;
    }

    fn forget(&mut self) {
        if let (Work::Reading(_, pending), Some(medium)) = (std::mem::take(&mut self.state.work), &self.medium) {
            medium.forget(&pending);
        }
    }

    pub(super) fn next_event(&self) -> Option<Tick> {
        match (&self.state.work, &self.medium) {
            (Work::Reading(_, pending), Some(medium)) => medium.due(pending),
            // The disc is gone: the command fails at once.
            (Work::Reading(..), None) => Some(Tick(0)),
            _ => None,
        }
    }

    pub(super) fn begin(&mut self, _now: Tick, command: &Command) -> Step {
        self.forget();
        match command.code {
            0xA0 => {
                let protocol = if command.feature & 1 != 0 {
                    Protocol::Dma
                } else {
                    Protocol::Pio { block: byte_count_limit((command.lba >> 8) as u16) }
                };
                // Overlapped commands are not there.
                if command.feature & 2 != 0 {
                    return abort();
                }
                self.state.work = Work::ToPacket(protocol);
                Step::Packet
            }
            0xA1 => {
                let data = identify::cdrom(&self.serial, "UMBRA CD-ROM", self.state.dma.unwrap_or(DmaMode::None));
                self.state.work = Work::Identity;
                Step::In(data, Protocol::Pio { block: 512 })
            }
            // READ SECTORS and IDENTIFY DEVICE fail with the signature, by which software finds a packet device.
            0x20 | 0xEC => {
                let ending = Ending { count: Some(1), lba: Some(0xEB_14_01), ..Ending::failed(error::ABRT) };
                Step::Done(ending)
            }
            0x08 => {
                self.reset(Reset::Soft);
                Step::Done(Ending { status: 0, error: 1, count: Some(1), lba: Some(0xEB_14_01), head: Some(0) })
            }
            0xEF => match (command.feature as u8, DmaMode::of_count(command.count as u8)) {
                (0x03, Some(mode)) => {
                    self.state.dma = mode.or(self.state.dma);
                    Step::Done(Ending::good())
                }
                (0x66 | 0xCC, _) => Step::Done(Ending::good()),
                _ => abort(),
            },
            0xE0..=0xE3 | 0xE6 => Step::Done(Ending::good()),
            0xE5 => Step::Done(Ending::good().with_count(0xFF)),
            _ => abort(),
        }
    }

    pub(super) fn proceed(&mut self, _now: Tick) -> Step {
        match std::mem::take(&mut self.state.work) {
            Work::Reading(span, pending) => {
                let outcome = self.medium.as_ref().map(|medium| medium.take(&pending));
                match outcome {
                    Some(Ok(data)) => {
                        self.state.work = Work::Read(span);
                        Step::In(data, span.protocol)
                    }
                    Some(Err(_)) => self.fail(Sense::UNREADABLE),
                    None => self.fail(Sense::NO_MEDIUM),
                }
            }
            work => {
                self.state.work = work;
                Step::Busy
            }
        }
    }

    pub(super) fn taken(&mut self, now: Tick) -> Step {
        match std::mem::take(&mut self.state.work) {
            Work::Read(span) => {
                let chunk = span.chunk();
                let next = Span { block: span.block.saturating_add(chunk), left: span.left - chunk, ..span };
                self.read(now, next)
            }
            Work::Answer => self.done(),
            _ => Step::Done(Ending::good()),
        }
    }

    pub(super) fn given(&mut self, now: Tick, data: Vec<u8>) -> Step {
        match std::mem::take(&mut self.state.work) {
            Work::ToPacket(protocol) => {
                let mut packet: Packet = [0; 12];
                packet.iter_mut().zip(&data).for_each(|(to, &from)| *to = from);
                match self.execute(&packet) {
                    Ok(Answer::Done) => self.done(),
                    Ok(Answer::Data(data)) if data.is_empty() => self.done(),
                    Ok(Answer::Data(data)) => {
                        self.state.work = Work::Answer;
                        Step::In(data, protocol)
                    }
                    Ok(Answer::Blocks { first, count }) => self.read(now, Span { block: first, left: count, protocol }),
                    Ok(Answer::Wants(0)) => self.done(),
                    Ok(Answer::Wants(bytes)) => {
                        self.state.work = Work::ToParameters;
                        Step::Out(bytes, protocol)
                    }
                    Err(sense) => self.fail(sense),
                }
            }
            // Parameters of MODE SELECT: there is nothing that they could change.
            Work::ToParameters => self.done(),
            _ => abort(),
        }
    }

    pub(super) fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    pub(super) fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = restore_state("cdrom", state)?;
        let sane = match &state.work {
            Work::ToPacket(protocol) => is_sane(*protocol),
            Work::Reading(span, _) | Work::Read(span) => is_sane(span.protocol),
            _ => true,
        };
        if !sane {
            return Err(StateError { device: "cdrom", reason: "a transfer that cannot be".into() });
        }
        self.forget();
        self.state = state;
        if let (Work::Reading(_, pending), Some(medium)) = (&mut self.state.work, &mut self.medium) {
            medium.resume(pending);
        }
        Ok(())
    }

    fn done(&mut self) -> Step {
        self.state.sense = Sense::NONE;
        Step::Done(Ending { count: Some(REASON_COMMAND | REASON_IN), ..Ending::good() })
    }

    fn fail(&mut self, sense: Sense) -> Step {
        self.state.sense = sense;
        let ending = Ending::failed(sense.key << 4 | error::ABRT);
        Step::Done(Ending { count: Some(REASON_COMMAND | REASON_IN), ..ending })
    }

    fn read(&mut self, now: Tick, span: Span) -> Step {
        if span.left == 0 {
            return self.done();
        }
        if self.medium.is_none() {
            return self.fail(Sense::NO_MEDIUM);
        }
        self.state.work = self.read_work(now, span);
        Step::Busy
    }

    /// Starts to read a chunk; what is beyond the disc's end fails there.
    fn read_work(&mut self, now: Tick, span: Span) -> Work {
        let request = Request::Read { at: u64::from(span.block) * BLOCK, bytes: span.chunk() * BLOCK as u32 };
        match &mut self.medium {
            Some(medium) => Work::Reading(span, medium.start(now, request)),
            // NOTE(why not fail here): the controller asks at the next event, and hears it then.
            None => Work::Reading(span, Pending::lost(now, request)),
        }
    }

    /// Does a packet command.
    fn execute(&mut self, packet: &Packet) -> Result<Answer, Sense> {
        let [code, one, two, ..] = *packet;
        // These are answered whatever else waits to be told.
        let always = matches!(code, 0x03 | 0x12 | 0x4A | 0x46);
        if !always && let Some(sense) = self.state.attention.take() {
            return Err(sense);
        }
        let cut = |mut bytes: Vec<u8>, length: usize| {
            bytes.truncate(length);
            Answer::Data(bytes)
        };
        let length = usize::from(be16(packet, 7));
        let by_time = one & 2 != 0;
        match code {
            // TEST UNIT READY
            0x00 => self.disc().map(|_| Answer::Done),
            // REQUEST SENSE
            0x03 => {
                let sense = match self.state.attention.take() {
                    Some(attention) if self.state.sense == Sense::NONE => attention,
                    waiting => {
                        self.state.attention = waiting;
                        self.state.sense
                    }
                };
                self.state.sense = Sense::NONE;
                Ok(cut(sense.to_bytes().to_vec(), usize::from(packet[4])))
            }
            // INQUIRY; vital product data are not there.
            0x12 if one & 1 != 0 => Err(Sense::INVALID_FIELD),
            0x12 => Ok(cut(mmc::inquiry(), usize::from(be16(packet, 3)))),
            // START STOP UNIT
            0x1B => self.start_stop(packet[4]),
            // PREVENT ALLOW MEDIUM REMOVAL
            0x1E => {
                self.state.locked = packet[4] & 1 != 0;
                Ok(Answer::Done)
            }
            // READ CAPACITY
            0x25 => Ok(Answer::Data(mmc::capacity(self.disc()?))),
            // READ(10), READ(12)
            0x28 => self.blocks_at(be32(packet, 2), be16(packet, 7).into()),
            0xA8 => self.blocks_at(be32(packet, 2), be32(packet, 6)),
            // SEEK(10)
            0x2B => self.blocks_at(be32(packet, 2), 0),
            // READ CD: user data of a data track, without headers.
            0xBE => {
                let count = u32::from(packet[6]) << 16 | u32::from(be16(packet, 7));
                match (one >> 2 & 7, packet[9] & 0xF8, packet[10] & 7) {
                    (_, 0, 0) => self.disc().map(|_| Answer::Done),
                    (0 | 2 | 4, 0x10, 0) => self.blocks_at(be32(packet, 2), count),
                    _ => Err(Sense::WRONG_MODE),
                }
            }
            // READ SUB-CHANNEL
            0x42 => {
                self.disc()?;
                Ok(cut(mmc::sub_channel(two & 0x40 != 0, packet[3])?, length))
            }
            // READ TOC/PMA/ATIP; the format is in the control byte too, for old software.
            0x43 => {
                let blocks = self.disc()?;
                let format = if two & 0xF != 0 { two & 0xF } else { packet[9] >> 6 };
                Ok(cut(mmc::toc(format, packet[6], by_time, blocks)?, length))
            }
            // GET CONFIGURATION
            0x46 => Ok(cut(mmc::configuration(one & 3, be16(packet, 2), self.blocks())?, length)),
            // GET EVENT STATUS NOTIFICATION, by polling only.
            0x4A if one & 1 == 0 => Err(Sense::INVALID_FIELD),
            0x4A => {
                let bytes = mmc::event(packet[4], self.state.event, self.state.tray_open, self.blocks().is_some());
                if packet[4] & 0x10 != 0 {
                    self.state.event = MediaEvent::None;
                }
                Ok(cut(bytes, length))
            }
            // READ DISC INFORMATION
            0x51 => {
                self.disc()?;
                Ok(cut(mmc::disc_information(), length))
            }
            // MODE SELECT(10), MODE SENSE(10)
            0x55 => Ok(Answer::Wants(length)),
            0x5A => Ok(cut(mmc::mode_sense(two, self.state.locked, self.blocks().is_some())?, length)),
            // READ DVD STRUCTURE
            0xAD => Ok(cut(mmc::dvd_structure(packet[7], self.disc()?)?, usize::from(be16(packet, 8)))),
            // MECHANISM STATUS
            0xBD => Ok(cut(mmc::mechanism(self.state.tray_open), usize::from(be16(packet, 8)))),
            // SET CD SPEED: as fast as it goes, always.
            0xBB => Ok(Answer::Done),
            _ => Err(Sense::INVALID_COMMAND),
        }
    }

    /// The disc's blocks.
    fn disc(&self) -> Result<u32, Sense> {
        self.blocks().ok_or(if self.state.tray_open { Sense::TRAY_OPEN } else { Sense::NO_MEDIUM })
    }

    fn blocks_at(&self, first: u32, count: u32) -> Result<Answer, Sense> {
        let blocks = self.disc()?;
        if first.checked_add(count).is_none_or(|end| end > blocks) {
            return Err(Sense::OUT_OF_RANGE);
        }
        Ok(if count == 0 { Answer::Done } else { Answer::Blocks { first, count } })
    }

    fn start_stop(&mut self, operation: u8) -> Result<Answer, Sense> {
        match operation & 3 {
            // Eject.
            2 if self.state.locked => return Err(Sense::LOCKED),
            2 => {
                self.state.tray_open = true;
                self.state.event = MediaEvent::Removal;
            }
            // Load.
            3 if self.state.tray_open => {
                self.state.tray_open = false;
                if self.medium.is_some() {
                    self.state.event = MediaEvent::NewMedia;
                    self.state.attention = Some(Sense::CHANGED);
                }
            }
            _ => {}
        }
        Ok(Answer::Done)
    }
}

/// The most bytes of a PIO block, from the byte count registers: even, and 0 means the most there is.
fn byte_count_limit(written: u16) -> u32 {
    match written & !1 {
        0 | 0xFFFE => 0xFFFE,
        limit => u32::from(limit),
    }
}

fn is_sane(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Pio { block } => (2..=0xFFFE).contains(&block),
        Protocol::Dma => true,
    }
}

fn abort() -> Step {
    let ending = Ending::failed(error::ABRT);
    Step::Done(Ending { status: ending.status & !status::DF, ..ending })
}
