//! Commands (82077AA data sheet, chapter 5): how long each is, and those that move no data.

use super::transfer::{Kind, Transfer};
use super::{Fdc82077, Phase};
use crate::clock::Tick;

/// Status register 0: abnormal termination; seek end; the drive found no track 0.
pub(super) const ST0_ABNORMAL: u8 = 0x40;
pub(super) const ST0_SEEK_END: u8 = 0x20;
const ST0_EQUIPMENT: u8 = 0x10;
/// Status register 0: there is no such command.
const ST0_INVALID: u8 = 0x80;
/// Command bit 7: multi-track.
const MULTI_TRACK: u8 = 1 << 7;
/// CONFIGURE: implied seek.
const IMPLIED_SEEK: u8 = 1 << 6;
/// How long a seek takes.
const SEEK_NS: u64 = 200_000;
/// The highest cylinder that a head moves to.
const LAST_CYLINDER: u8 = 84;
const VERSION_82077: u8 = 0x90;
/// PART ID of the 82077AA.
const PART: u8 = 0x01;

/// The bytes of a command, by its first.
pub(super) fn length(code: u8) -> usize {
    match code & 0x1F {
        0x03 => 3,
        0x04 | 0x07 | 0x0A | 0x12 => 2,
        0x0F => 3,
        0x0D => 6,
        0x13 => 4,
        0x02 | 0x05 | 0x06 | 0x09 | 0x0C | 0x16 => 9,
        _ => 1,
    }
}

impl Fdc82077 {
    /// Does a whole command.
    pub(super) fn execute(&mut self, now: Tick, bytes: &[u8]) {
        let byte = |n: usize| bytes.get(n).copied().unwrap_or(0);
        let code = byte(0);
        let (drive, head) = (byte(1) & 3, byte(1) >> 2 & 1);
        self.state.phase = Phase::Command(Vec::new());
        match code & 0x1F {
            // SPECIFY
            0x03 => self.state.specify = [byte(1), byte(2)],
            // SENSE DRIVE STATUS
            0x04 => self.sense_drive(drive, head),
            // RECALIBRATE
            0x07 => self.seek(now, drive, 0, 0),
            // SENSE INTERRUPT STATUS
            0x08 => self.sense_interrupt(),
            // SEEK, RELATIVE SEEK
            0x0F if code & 0x80 == 0 => self.seek(now, drive, head, byte(2)),
            0x0F => {
                let at = self.state.heads.get(usize::from(drive)).map_or(0, |head| head.cylinder);
                let to = if code & 0x40 != 0 { at.saturating_add(byte(2)) } else { at.saturating_sub(byte(2)) };
                self.seek(now, drive, head, to);
            }
            // READ ID
            0x0A => self.read_id(drive, head),
            // VERSION
            0x10 => self.give(vec![VERSION_82077]),
            // CONFIGURE
            0x13 => self.state.configure = [byte(2), byte(3)],
            // PERPENDICULAR MODE
            0x12 => self.state.perpendicular = byte(1),
            // LOCK, UNLOCK
            0x14 => {
                self.state.locked = code & 0x80 != 0;
                self.give(vec![u8::from(self.state.locked) << 4]);
            }
            // DUMPREG
            0x0E => self.dump(),
            // PART ID
            0x18 => self.give(vec![PART]),
            // READ DATA, READ DELETED DATA: there is no deleted data.
            0x06 | 0x0C => self.begin_data(now, bytes, Kind::Read),
            // READ TRACK
            0x02 => self.begin_data(now, bytes, Kind::Track),
            // WRITE DATA, WRITE DELETED DATA
            0x05 | 0x09 => self.begin_data(now, bytes, Kind::Write),
            // VERIFY
            0x16 => self.begin_data(now, bytes, Kind::Verify),
            // FORMAT TRACK
            0x0D => {
                let transfer = Transfer::format(drive, head, [byte(2), byte(3), byte(5)]);
                self.begin(now, transfer);
            }
            _ => self.give(vec![ST0_INVALID]),
        }
    }

    fn begin_data(&mut self, now: Tick, bytes: &[u8], kind: Kind) {
        let byte = |n: usize| bytes.get(n).copied().unwrap_or(0);
        let (drive, cylinder) = (byte(1) & 3, byte(2));
        if self.state.configure[0] & IMPLIED_SEEK != 0 {
            self.step(drive, cylinder);
        }
        let first = if kind == Kind::Track { 1 } else { byte(4) };
        let transfer = Transfer::data(kind, byte(1), [cylinder, byte(3), first, byte(5)], byte(6));
        let multi = byte(0) & MULTI_TRACK != 0 && kind != Kind::Track;
        self.begin(now, if multi { transfer.multi_track() } else { transfer });
    }

    /// Moves a head; with a disk in the drive that clears the change line.
    fn step(&mut self, drive: u8, to: u8) {
        let has_disk = self.drive(drive).is_some_and(|drive| drive.disk.is_some());
        if let Some(head) = self.state.heads.get_mut(usize::from(drive)) {
            head.cylinder = to.min(LAST_CYLINDER);
            head.changed &= !has_disk;
        }
    }

    fn seek(&mut self, now: Tick, drive: u8, head: u8, to: u8) {
        let mut st0 = ST0_SEEK_END | head << 2 | drive;
        if self.drive(drive).is_some() {
            self.step(drive, to);
        } else if to == 0 {
            // Track 0 never shows.
            st0 |= ST0_ABNORMAL | ST0_EQUIPMENT;
        }
        // A seek that is begun anew takes the place of the old one.
        self.state.seeks.retain(|&(_, other, _)| other & 3 != drive);
        self.state.seeks.push((now.after(SEEK_NS), st0, to));
    }

    fn sense_drive(&mut self, drive: u8, head: u8) {
        let track0 = self.state.heads.get(usize::from(drive)).is_some_and(|head| head.cylinder == 0);
        let (track0, protected) = match self.drive(drive) {
            Some(place) => (track0, place.disk.as_ref().is_some_and(|disk| disk.is_read_only())),
            None => (false, false),
        };
        // Bits 3 and 5 are always set.
        self.give(vec![0x28 | u8::from(protected) << 6 | u8::from(track0) << 4 | head << 2 | drive]);
    }

    fn sense_interrupt(&mut self) {
        if self.state.senses.is_empty() {
            self.give(vec![ST0_INVALID]);
            return;
        }
        let (st0, cylinder) = self.state.senses.remove(0);
        self.set_interrupt(false);
        self.give(vec![st0, cylinder]);
    }

    fn read_id(&mut self, drive: u8, head: u8) {
        let place = usize::from(drive);
        let format = self.readable(drive).filter(|format| head < format.heads);
        let cylinder = self.state.heads.get(place).map_or(0, |head| head.cylinder);
        match format.filter(|format| cylinder < format.cylinders) {
            Some(format) => {
                let passing = self.state.heads.get_mut(place).map_or(1, |head| {
                    head.passing = head.passing % format.sectors + 1;
                    head.passing
                });
                self.finish(head << 2 | drive, [0, 0], [cylinder, head, passing, super::format::SIZE_CODE]);
            }
            None => {
                let st0 = ST0_ABNORMAL | head << 2 | drive;
                self.finish(st0, [super::transfer::ST1_NO_MARK, 0], [cylinder, head, 1, 2]);
            }
        }
    }

    fn dump(&mut self) {
        let cylinder = |n: usize| self.state.heads.get(n).map_or(0, |head| head.cylinder);
        let [rates, load] = self.state.specify;
        let [configure, precompensation] = self.state.configure;
        let lock = u8::from(self.state.locked) << 7 | self.state.perpendicular & 0x7F;
        self.give(vec![cylinder(0), cylinder(1), 0, 0, rates, load, 0, lock, configure, precompensation]);
    }

    /// The format of the disk in a drive, if it can be read at the selected data rate.
    pub(super) fn readable(&self, drive: u8) -> Option<super::Format> {
        self.drive(drive)?.format().filter(|format| format.rate == self.state.rate)
    }
}
