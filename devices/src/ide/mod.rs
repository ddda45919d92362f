//! One IDE channel: a cable with two drives, its registers (ATA/ATAPI-7, volume 1 chapter 5), and its half of the PIIX's
//! bus master (82371SB data sheet, 2.7).
//!
//! The channel moves bytes between the drives of [`crate::ata`] and the data register or guest memory, and makes INTRQ.
//! An empty channel floats, but for DD7, which the host pulls down so that BSY reads as 0 (ATA/ATAPI-7, volume 2, 4.3): every
//! register reads as 7Fh, and software that waits for a drive to be ready does not wait in vain. With one drive, that drive
//! answers 00h for the status of the other.
//!
//! Leaves out: transfer timing, overlapped and queued commands.

mod bus_master;
#[cfg(test)]
mod tests;
mod unit;

pub use bus_master::BusMaster;
use bus_master::Moved;
use unit::{Phase, Unit, UnitState};

use crate::ata::{DEVICE_LBA, Drive, Reset, status};
use crate::clock::Tick;
use crate::device::{Ctx, IoError, StateError, Width};
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};

/// Device control: no interrupts.
const CONTROL_NIEN: u8 = 1 << 1;
/// Device control: reset both drives.
const CONTROL_SRST: u8 = 1 << 2;
/// Device control: reads give the previous contents of the address and count registers.
const CONTROL_HOB: u8 = 1 << 7;
/// Device register: the second drive.
const DEVICE_SECOND: u8 = 1 << 4;
/// Bits of the device register that always read as ones.
const DEVICE_ONES: u8 = 0xA0;

const EXECUTE_DIAGNOSTIC: u8 = 0x90;
const DEVICE_RESET: u8 = 0x08;

/// The volatile state, but for the drives' own.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    control: u8,
    second: bool,
    bus_master: BusMaster,
    units: [UnitState; 2],
}

/// A channel with its drives' states, as bytes to be saved.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    state: Vec<u8>,
    drives: [Vec<u8>; 2],
}

/// A channel.
#[derive(Debug)]
pub struct Channel {
    // Wires: INTRQ.
    irq: IrqLine,
    // The drives and what the channel knows of each.
    units: [Unit; 2],
    // Volatile state.
    control: u8,
    second: bool,
    /// The bus master's registers.
    pub bus_master: BusMaster,
}

impl Channel {
    /// A channel with these drives.
    pub fn new(irq: IrqLine, drives: [Option<Drive>; 2]) -> Channel {
        let units = drives.map(Unit::new);
        let mut channel = Channel { irq, units, control: 0, second: false, bus_master: BusMaster::default() };
        channel.reset();
        channel
    }

    /// RESET#.
    pub fn reset(&mut self) {
        self.control = 0;
        self.second = false;
        self.bus_master = BusMaster::default();
        self.units.iter_mut().for_each(|unit| unit.reset(Reset::Hard));
        self.drive_irq();
    }

    /// A drive, to change its medium.
    pub fn drive_mut(&mut self, second: bool) -> Option<&mut Drive> {
        self.units[usize::from(second)].drive.as_mut()
    }

    /// Reads a register of the command block.
    pub fn read(&mut self, cx: &mut Ctx<'_>, offset: u16, width: Width) -> Result<u32, IoError> {
        if self.is_empty() {
            return Ok(floating(width));
        }
        if offset == 0 {
            return Ok(self.read_data(cx, width));
        }
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        let value = match offset {
            6 => DEVICE_ONES | u8::from(self.second) << 4 | self.answering().state.device,
            7 => {
                let value = self.status();
                self.selected().state.interrupt = false;
                self.drive_irq();
                value
            }
            _ => {
                let previous = usize::from(self.control & CONTROL_HOB != 0);
                let registers = &self.answering().state;
                match offset {
                    1 => registers.error,
                    2 => registers.count[previous],
                    _ => registers.lba.get(usize::from(offset) - 3).map_or(0xFF, |lba| lba[previous]),
                }
            }
        };
        Ok(value.into())
    }

    /// Writes a register of the command block. `may_master`: the function may be a bus master.
    pub fn write(
        &mut self,
        cx: &mut Ctx<'_>,
        may_master: bool,
        (offset, width): (u16, Width),
        value: u32,
    ) -> Result<(), IoError> {
        if offset == 0 {
            let bytes = value.to_le_bytes();
            let bytes = bytes.get(..width.bytes() as usize).unwrap_or(&bytes);
            self.selected().write_data(cx.now, bytes);
            self.start_bus_master(cx, may_master);
            return Ok(());
        }
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        let value = value as u8;
        self.control &= !CONTROL_HOB;
        match offset {
            7 => {
                self.command(cx, value);
                self.start_bus_master(cx, may_master);
            }
            6 => {
                self.second = value & DEVICE_SECOND != 0;
                for unit in self.units.iter_mut().filter(|unit| !unit.is_busy()) {
                    unit.state.device = value & (DEVICE_LBA | 0xF);
                }
                self.drive_irq();
            }
            _ => {
                for unit in self.units.iter_mut().filter(|unit| !unit.is_busy()) {
                    let registers = &mut unit.state;
                    let pair = match offset {
                        1 => &mut registers.feature,
                        2 => &mut registers.count,
                        _ => match registers.lba.get_mut(usize::from(offset) - 3) {
                            Some(pair) => pair,
                            None => continue,
                        },
                    };
                    *pair = [value, pair[0]];
                }
            }
        }
        Ok(())
    }

    /// Reads the alternate status, which leaves the interrupt alone.
    pub fn read_control(&mut self, width: Width) -> Result<u32, IoError> {
        match width {
            _ if self.is_empty() => Ok(floating(width)),
            Width::B1 => Ok(self.status().into()),
            _ => Err(IoError::BadWidth),
        }
    }

    /// Writes device control.
    pub fn write_control(&mut self, width: Width, value: u32) -> Result<(), IoError> {
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        let value = value as u8;
        let rising = value & !self.control & CONTROL_SRST != 0;
        self.control = value & (CONTROL_NIEN | CONTROL_SRST | CONTROL_HOB);
        if rising {
            self.second = false;
            self.units.iter_mut().for_each(|unit| unit.reset(Reset::Soft));
        }
        self.drive_irq();
        Ok(())
    }

    /// Goes on with a transfer for which the bus master was started.
    pub fn start_bus_master(&mut self, cx: &mut Ctx<'_>, may_master: bool) {
        self.pump(cx, may_master);
        self.drive_irq();
    }

    /// When a drive next does something by itself.
    pub fn next_event(&self) -> Option<Tick> {
        self.units.iter().filter_map(Unit::next_event).min()
    }

    /// Lets drives go on that are due.
    pub fn run_until(&mut self, cx: &mut Ctx<'_>, may_master: bool) {
        for number in 0..2 {
            while self.units[number].next_event().is_some_and(|event| event <= cx.now) {
                self.units[number].proceed(cx.now);
                self.pump(cx, may_master);
            }
        }
        self.drive_irq();
    }

    /// The volatile state.
    pub fn save(&self) -> Saved {
        let units = self.units.each_ref().map(|unit| unit.state.clone());
        let state = State { control: self.control, second: self.second, bus_master: self.bus_master.clone(), units };
        let drives = self.units.each_ref().map(|unit| unit.drive.as_ref().map_or(Vec::new(), Drive::save));
        Saved { state: crate::device::save_state(&state), drives }
    }

    /// Restores what [`Self::save`] gave.
    pub fn restore(&mut self, saved: Saved) -> Result<(), StateError> {
        let State { control, second, bus_master, units } = crate::device::restore_state("ide", &saved.state)?;
        for ((unit, state), drive) in self.units.iter_mut().zip(units).zip(&saved.drives) {
            if let Some(inner) = &mut unit.drive {
                inner.restore(drive)?;
            }
            unit.state = state;
        }
        (self.control, self.second, self.bus_master) = (control, second, bus_master);
        self.drive_irq();
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.units.iter().all(|unit| unit.drive.is_none())
    }
    fn selected(&mut self) -> &mut Unit {
        &mut self.units[usize::from(self.second)]
    }
    /// The drive that answers reads: the selected one, or the other in its stead.
    fn answering(&self) -> &Unit {
        let [first, second] = &self.units;
        match (self.second, &first.drive, &second.drive) {
            (false, Some(_), _) | (true, _, None) => first,
            _ => second,
        }
    }

    fn status(&self) -> u8 {
        let unit = &self.units[usize::from(self.second)];
        match (self.control & CONTROL_SRST, &unit.drive) {
            (0, Some(_)) => unit.state.status,
            (0, None) => 0,
            _ => status::BSY,
        }
    }

    fn command(&mut self, cx: &mut Ctx<'_>, code: u8) {
        if self.control & CONTROL_SRST != 0 {
            return;
        }
        if code == EXECUTE_DIAGNOSTIC {
            self.second = false;
            self.units.iter_mut().for_each(|unit| unit.reset(Reset::Soft));
            self.selected().state.interrupt = true;
            return;
        }
        let unit = self.selected();
        if unit.drive.is_none() || unit.is_busy() && code != DEVICE_RESET {
            return;
        }
        unit.begin(cx.now, code);
    }

    fn read_data(&mut self, cx: &mut Ctx<'_>, width: Width) -> u32 {
        let value = self.selected().read_data(cx.now, width.bytes() as usize);
        self.drive_irq();
        value
    }

    /// Moves bytes between the selected drive and memory for as long as both can.
    fn pump(&mut self, cx: &mut Ctx<'_>, may_master: bool) {
        while may_master && self.bus_master.is_started() {
            let unit = &mut self.units[usize::from(self.second)];
            let moved = match &mut unit.state.phase {
                Phase::DmaIn { data, at } => self.bus_master.fill_memory(cx.dma, data, at),
                Phase::DmaOut { data, want } => self.bus_master.fetch_memory(cx.dma, data, *want),
                _ => return,
            };
            match moved {
                Moved::All => unit.moved_all(cx.now),
                Moved::TableEnded | Moved::WrongWay => return,
            }
        }
    }

    /// INTRQ: the selected drive's, unless interrupts are off. Its rise shows in the bus master's status.
    fn drive_irq(&mut self) {
        let unit = &self.units[usize::from(self.second)];
        let high = unit.state.interrupt && unit.drive.is_some() && self.control & CONTROL_NIEN == 0;
        if high && !self.bus_master.interrupt_line {
            self.bus_master.note_interrupt();
        }
        self.bus_master.interrupt_line = high;
        self.irq.set(high);
    }
}

/// What a cable without drives reads as.
fn floating(width: Width) -> u32 {
    width.ones() as u32 & !u32::from(status::BSY)
}
