//! Commands that move data: sector by sector between the disk and the host, by DMA or byte by byte.

use super::command::ST0_ABNORMAL;
use super::format::{SECTOR, SIZE_CODE};
use super::{Fdc82077, Phase};
use crate::block::{Medium, Pending, Request};
use crate::clock::Tick;
use crate::dma8237::Transferred;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Status register 1: no address mark; write-protected; no data (the sector is not there); CRC error; end of cylinder.
pub(super) const ST1_NO_MARK: u8 = 0x01;
const ST1_PROTECTED: u8 = 0x02;
const ST1_NO_DATA: u8 = 0x04;
const ST1_DATA_ERROR: u8 = 0x20;
const ST1_END: u8 = 0x80;
/// Status register 2: CRC error in the data; wrong cylinder.
const ST2_DATA_ERROR: u8 = 0x20;
const ST2_WRONG_CYLINDER: u8 = 0x10;
/// A format command brings this for each sector: cylinder, head, number, size.
const ID_BYTES: usize = 4;

/// What is done with sectors.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Read,
    /// Sectors in their order on the track.
    Track,
    Write,
    Verify,
    /// The track gets sectors full of this byte; so many identifications are to come.
    Format {
        filler: u8,
        sectors: u8,
    },
}

/// Where the current sector is.
#[derive(Debug, Serialize, Deserialize)]
enum At {
    /// At the disk.
    Disk(Pending),
    /// Bytes for the host, and how many it has.
    ForHost(Vec<u8>, usize),
    /// Bytes from the host so far.
    FromHost(Vec<u8>),
    /// It could not begin: status registers 1 and 2.
    Failed(u8, u8),
}

/// Which way bytes are to go now.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToHost,
    FromHost,
}

/// Bytes for or from memory.
#[derive(Debug)]
pub enum DmaPiece<'a> {
    /// The controller has these.
    ToMemory(&'a [u8]),
    /// The controller wants these.
    FromMemory(&'a mut [u8]),
}

/// A command under way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Transfer {
    kind: Kind,
    pub drive: u8,
    /// The side that is selected.
    head: u8,
    /// Cylinder, head, sector, size code, as the next sector is looked for.
    id: [u8; 4],
    /// The last sector of the track.
    last: u8,
    multi: bool,
    /// The DMA controller said that this is all.
    terminal_count: bool,
    at: At,
}

impl Transfer {
    pub fn data(kind: Kind, select: u8, id: [u8; 4], last: u8) -> Transfer {
        let at = At::Failed(0, 0);
        Transfer { kind, drive: select & 3, head: select >> 2 & 1, id, last, multi: false, terminal_count: false, at }
    }

    /// FORMAT TRACK: size code, sectors, filler.
    pub fn format(drive: u8, head: u8, [size, sectors, filler]: [u8; 3]) -> Transfer {
        Transfer::data(Kind::Format { filler, sectors }, head << 2 | drive, [0, head, 1, size], sectors)
    }

    pub fn multi_track(self) -> Transfer {
        Transfer { multi: true, ..self }
    }

    pub fn pending(&self) -> Option<&Pending> {
        match &self.at {
            At::Disk(pending) => Some(pending),
            _ => None,
        }
    }

    pub fn resume(&mut self, disk: Option<&mut Medium>) {
        if let (At::Disk(pending), Some(disk)) = (&mut self.at, disk) {
            disk.resume(pending);
        }
    }

    pub fn wants(&self) -> Option<Way> {
        match &self.at {
            At::ForHost(..) => Some(Way::ToHost),
            At::FromHost(_) => Some(Way::FromHost),
            At::Disk(_) | At::Failed(..) => None,
        }
    }

    /// How many bytes the host is to bring at a time.
    fn wanted(&self) -> usize {
        match self.kind {
            Kind::Format { sectors, .. } => usize::from(sectors) * ID_BYTES,
            _ => SECTOR as usize,
        }
    }

    /// Goes to the next sector. Gives whether there is one within the command.
    fn advance(&mut self) -> bool {
        let [cylinder, head, sector, _] = &mut self.id;
        if *sector != self.last {
            *sector = sector.wrapping_add(1);
            return true;
        }
        *sector = 1;
        if self.multi {
            self.head ^= 1;
            *head ^= 1;
            if self.head == 1 {
                return true;
            }
        }
        *cylinder = cylinder.wrapping_add(1);
        false
    }
}

impl Fdc82077 {
    /// Begins a command that moves data.
    pub(super) fn begin(&mut self, now: Tick, transfer: Transfer) {
        self.state.phase = Phase::Transfer(Box::new(transfer));
        self.next_sector(now);
    }

    fn transfer_mut(&mut self) -> Option<&mut Transfer> {
        match &mut self.state.phase {
            Phase::Transfer(transfer) => Some(transfer),
            _ => None,
        }
    }

    /// The sector that comes next: where it is in the image, or status registers 1 and 2.
    fn locate(&self, transfer: &Transfer) -> Result<u64, (u8, u8)> {
        let format = self.readable(transfer.drive).ok_or((ST1_NO_MARK, 0))?;
        let [cylinder, head, sector, size] = transfer.id;
        let at = self.state.heads.get(usize::from(transfer.drive)).map_or(0, |head| head.cylinder);
        if transfer.head >= format.heads || at >= format.cylinders {
            return Err((ST1_NO_MARK, 0));
        }
        if at != cylinder {
            return Err((ST1_NO_DATA, ST2_WRONG_CYLINDER));
        }
        let found = format.offset(cylinder, head, sector).filter(|_| head == transfer.head && size == SIZE_CODE);
        found.ok_or((ST1_NO_DATA, 0))
    }

    fn is_protected(&self, drive: u8) -> bool {
        self.drive(drive).and_then(|drive| drive.disk.as_ref()).is_some_and(Medium::is_read_only)
    }

    /// Starts with the next sector: reads it, or asks the host for it.
    fn next_sector(&mut self, now: Tick) {
        let Phase::Transfer(transfer) = &self.state.phase else { return };
        let kind = transfer.kind;
        let drive = transfer.drive;
        let writes = matches!(kind, Kind::Write | Kind::Format { .. });
        let at = match self.locate(transfer) {
            _ if writes && self.is_protected(drive) => At::Failed(ST1_PROTECTED, 0),
            Err((st1, _)) if matches!(kind, Kind::Format { .. }) && st1 != ST1_NO_MARK => At::FromHost(Vec::new()),
            Err((st1, st2)) => At::Failed(st1, st2),
            Ok(_) if writes => At::FromHost(Vec::new()),
            Ok(offset) => self.start(now, drive, Request::Read { at: offset, bytes: SECTOR as u32 }),
        };
        if let Some(transfer) = self.transfer_mut() {
            transfer.at = at;
        }
        self.ask_host();
        self.fail_if_failed();
    }

    fn start(&mut self, now: Tick, drive: u8, request: Request) -> At {
        let disk = self.drives.get_mut(usize::from(drive)).and_then(Option::as_mut);
        match disk.and_then(|drive| drive.disk.as_mut()) {
            Some(disk) => At::Disk(disk.start(now, request)),
            None => At::Failed(ST1_NO_MARK, 0),
        }
    }

    /// Without DMA each byte is asked for by an interrupt.
    fn ask_host(&mut self) {
        let wants = self.transfer_mut().and_then(|transfer| transfer.wants()).is_some();
        if wants && self.is_non_dma() {
            self.set_interrupt(true);
        }
    }

    fn fail_if_failed(&mut self) {
        if let Phase::Transfer(transfer) = &self.state.phase
            && let At::Failed(st1, st2) = transfer.at
        {
            let (st0, id) = (ST0_ABNORMAL | transfer.head << 2 | transfer.drive, transfer.id);
            self.finish(st0, [st1, st2], id);
        }
    }

    /// The disk went away under the command.
    pub(super) fn abandon(&mut self, _now: Tick) {
        if let Some(transfer) = self.transfer_mut() {
            transfer.at = At::Failed(ST1_NO_MARK, 0);
        }
        self.fail_if_failed();
    }

    /// The result phase of a command that moved data.
    pub(super) fn finish(&mut self, st0: u8, [st1, st2]: [u8; 2], [c, h, r, n]: [u8; 4]) {
        self.give(vec![st0, st1, st2, c, h, r, n]);
        self.set_interrupt(true);
    }

    pub(super) fn transfer_event(&self) -> Option<Tick> {
        let Phase::Transfer(transfer) = &self.state.phase else { return None };
        let pending = transfer.pending()?;
        match self.drive(transfer.drive).and_then(|drive| drive.disk.as_ref()) {
            Some(disk) => disk.due(pending),
            None => Some(Tick(0)),
        }
    }

    /// The disk is done with a sector.
    pub(super) fn proceed(&mut self, now: Tick) {
        let Phase::Transfer(transfer) = &self.state.phase else { return };
        let disk = self.drive(transfer.drive).and_then(|drive| drive.disk.as_ref());
        let outcome = match (disk, transfer.pending()) {
            (Some(disk), Some(pending)) => disk.take(pending).ok(),
            _ => None,
        };
        let kind = transfer.kind;
        let Some(transfer) = self.transfer_mut() else { return };
        match (outcome, kind) {
            (None, _) => {
                transfer.at = At::Failed(ST1_DATA_ERROR, ST2_DATA_ERROR);
                self.fail_if_failed();
            }
            (Some(data), Kind::Read | Kind::Track) => {
                transfer.at = At::ForHost(data, 0);
                self.ask_host();
            }
            (Some(_), Kind::Write | Kind::Verify) => self.sector_done(now),
            (Some(_), Kind::Format { .. }) => {
                let (st0, id) = (transfer.head << 2 | transfer.drive, transfer.id);
                self.finish(st0, [0, 0], id);
            }
        }
    }

    /// A sector has been moved.
    fn sector_done(&mut self, now: Tick) {
        let Some(transfer) = self.transfer_mut() else { return };
        let st0 = transfer.head << 2 | transfer.drive;
        let more = transfer.advance();
        let id = transfer.id;
        if transfer.terminal_count || !more && transfer.kind == Kind::Verify {
            self.finish(st0, [0, 0], id);
        } else if more {
            self.next_sector(now);
        } else {
            self.finish(ST0_ABNORMAL | st0, [ST1_END, 0], id);
        }
    }

    /// Everything that the host was to bring for a sector or track is there.
    fn host_brought(&mut self, now: Tick, mut data: Vec<u8>) {
        let Phase::Transfer(transfer) = &self.state.phase else { return };
        data.resize(transfer.wanted(), 0);
        let (drive, kind) = (transfer.drive, transfer.kind);
        let request = match kind {
            Kind::Format { filler, .. } => self.formatted_track(transfer, &data, filler),
            _ => self.locate(transfer).map(|at| Request::Write { at, data: Arc::new(data) }),
        };
        let at = match request {
            Ok(request) => self.start(now, drive, request),
            Err((st1, st2)) => At::Failed(st1, st2),
        };
        if let Some(transfer) = self.transfer_mut() {
            transfer.at = at;
        }
        self.fail_if_failed();
    }

    /// What formatting writes: the whole track, if the identifications are those of the image's format.
    fn formatted_track(&self, transfer: &Transfer, ids: &[u8], filler: u8) -> Result<Request, (u8, u8)> {
        let format = self.readable(transfer.drive).ok_or((ST1_NO_MARK, 0))?;
        let cylinder = self.state.heads.get(usize::from(transfer.drive)).map_or(0, |head| head.cylinder);
        let at = format.offset(cylinder, transfer.head, 1).ok_or((ST1_NO_MARK, 0))?;
        let mut numbers: Vec<u8> = ids.chunks_exact(ID_BYTES).map(|id| id[2]).collect();
        numbers.sort_unstable();
        let fits =
            ids.chunks_exact(ID_BYTES).all(|id| id[0] == cylinder && id[1] == transfer.head && id[3] == SIZE_CODE);
        if !fits || !numbers.into_iter().eq(1..=format.sectors) {
            // NOTE(why not another layout): the image's length is the format, and stays.
            return Err((ST1_NO_DATA, 0));
        }
        let bytes = usize::from(format.sectors) * SECTOR as usize;
        Ok(Request::Write { at, data: Arc::new(vec![filler; bytes]) })
    }

    /// Whether DMA is wanted (DREQ).
    pub fn wants_dma(&self) -> bool {
        match &self.state.phase {
            Phase::Transfer(transfer) => {
                transfer.wants().is_some() && !self.is_non_dma() && self.state.dor & super::DOR_GATE != 0
            }
            _ => false,
        }
    }

    /// Moves bytes by DMA: `by` moves what it can. Gives whether anything moved.
    pub fn exchange(&mut self, now: Tick, by: impl FnOnce(DmaPiece<'_>) -> Transferred) -> bool {
        if !self.wants_dma() {
            return false;
        }
        let Some(transfer) = self.transfer_mut() else { return false };
        let wanted = transfer.wanted();
        match &mut transfer.at {
            At::ForHost(data, at) => {
                let moved = by(DmaPiece::ToMemory(data.get(*at..).unwrap_or(&[])));
                *at = at.saturating_add(moved.bytes);
                let over = *at >= data.len() || moved.terminal_count;
                transfer.terminal_count |= moved.terminal_count;
                if over {
                    self.sector_done(now);
                }
                moved.bytes > 0
            }
            At::FromHost(data) => {
                let have = data.len();
                data.resize(wanted.max(have), 0);
                let moved = by(DmaPiece::FromMemory(data.get_mut(have..).unwrap_or_default()));
                data.truncate(have + moved.bytes);
                let over = data.len() >= wanted || moved.terminal_count;
                transfer.terminal_count |= moved.terminal_count;
                if over {
                    let data = std::mem::take(data);
                    self.host_brought(now, data);
                }
                moved.bytes > 0
            }
            At::Disk(_) | At::Failed(..) => false,
        }
    }

    /// Without DMA: the host reads a byte.
    pub(super) fn read_byte(&mut self, now: Tick) -> u8 {
        let Some(transfer) = self.transfer_mut() else { return 0 };
        let At::ForHost(data, at) = &mut transfer.at else { return 0 };
        let byte = data.get(*at).copied().unwrap_or(0);
        *at = at.saturating_add(1);
        let over = *at >= data.len();
        self.set_interrupt(!over);
        if over {
            self.sector_done(now);
        }
        byte
    }

    /// Without DMA: the host writes a byte.
    pub(super) fn write_byte(&mut self, now: Tick, value: u8) {
        let Some(transfer) = self.transfer_mut() else { return };
        let wanted = transfer.wanted();
        let At::FromHost(data) = &mut transfer.at else { return };
        data.push(value);
        let over = data.len() >= wanted;
        let data = if over { std::mem::take(data) } else { Vec::new() };
        self.set_interrupt(!over);
        if over {
            self.host_brought(now, data);
        }
    }
}
