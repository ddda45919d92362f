//! The floppy disk controller 82077AA (Intel data sheet, order 290166) with two drives.
//!
//! Models all registers in AT mode, all commands but SCAN (which the 82077 has not), DMA and non-DMA transfers, multi-track,
//! implied seek, formatting, disk change, and data rates, so that software can find out a disk's format. Sectors have 512
//! bytes; the image's length tells the rest ([`Format`]).
//!
//! Leaves out: rotation and step rates (a seek takes 200 µs, a sector what its medium takes), deleted-data marks,
//! precompensation, tape drives.
//!
//! Ranges: 0 = 3F0h–3F5h, 1 = 3F7h. Wires: the interrupt. The board moves the bytes of DMA transfers:
//! [`Fdc82077::exchange`] whenever [`Fdc82077::wants_dma`].

mod command;
mod format;
#[cfg(test)]
mod tests;
mod transfer;

pub use format::{DriveKind, Format};
pub use transfer::DmaPiece;

use crate::block::Medium;
use crate::clock::Tick;
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};
use transfer::Transfer;

/// Digital output: not in reset; interrupt and DMA reach the bus.
const DOR_RUNNING: u8 = 1 << 2;
const DOR_GATE: u8 = 1 << 3;
/// Data rate select: reset by software, which ends by itself.
const DSR_RESET: u8 = 1 << 7;
/// Digital input: the disk may have been changed.
const DIR_CHANGED: u8 = 1 << 7;
/// Main status.
const MSR_READY: u8 = 1 << 7;
const MSR_TO_HOST: u8 = 1 << 6;
const MSR_NON_DMA: u8 = 1 << 5;
const MSR_BUSY: u8 = 1 << 4;

/// From the end of reset to its interrupt.
const RESET_NS: u64 = 20_000;

/// What the controller is doing.
#[derive(Debug, Serialize, Deserialize)]
enum Phase {
    /// Bytes of a command so far.
    Command(Vec<u8>),
    /// Bytes move, or a drive is at work.
    Transfer(Box<Transfer>),
    /// Bytes for the host.
    Result { bytes: Vec<u8>, at: usize },
}

/// A drive's volatile state.
#[derive(Copy, Clone, Debug, Default, Serialize, Deserialize)]
struct Head {
    cylinder: u8,
    /// Set when the disk changes, cleared by a step with a disk in the drive.
    changed: bool,
    /// Which sector READ ID finds next.
    passing: u8,
}

/// The volatile state.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    dor: u8,
    tape: u8,
    rate: u8,
    phase: Phase,
    heads: [Head; 2],
    /// SPECIFY: step rate and head unload time, head load time and non-DMA.
    specify: [u8; 2],
    configure: [u8; 2],
    perpendicular: u8,
    locked: bool,
    interrupt: bool,
    /// Status register 0 and cylinder, for SENSE INTERRUPT STATUS.
    senses: Vec<(u8, u8)>,
    /// When the interrupt after a reset comes.
    reset_at: Option<Tick>,
    /// Seeks under way: when they end, and what is to be sensed then.
    seeks: Vec<(Tick, u8, u8)>,
}

impl State {
    fn power_on() -> State {
        State {
            dor: 0,
            tape: 0,
            rate: 2,
            phase: Phase::Command(Vec::new()),
            heads: [Head { changed: true, ..Head::default() }; 2],
            specify: [0; 2],
            configure: [0; 2],
            perpendicular: 0,
            locked: false,
            interrupt: false,
            senses: Vec::new(),
            reset_at: None,
            seeks: Vec::new(),
        }
    }
}

/// A drive: its kind, and the disk in it.
#[derive(Debug)]
pub struct FloppyDrive {
    /// Its kind.
    pub kind: DriveKind,
    /// The disk.
    disk: Option<Medium>,
}

impl FloppyDrive {
    /// A drive with a disk in it, or none.
    pub fn new(kind: DriveKind, disk: Option<Medium>) -> FloppyDrive {
        FloppyDrive { kind, disk }
    }
    fn format(&self) -> Option<Format> {
        Format::best(self.disk.as_ref()?.length())
    }
}

/// The controller.
#[derive(Debug)]
pub struct Fdc82077 {
    // Wires.
    irq: IrqLine,
    // The drives, whose disks the person at the machine changes.
    drives: [Option<FloppyDrive>; 2],
    // Volatile state.
    state: State,
}

impl Fdc82077 {
    /// A controller with these drives.
    pub fn new(irq: IrqLine, drives: [Option<FloppyDrive>; 2]) -> Fdc82077 {
        Fdc82077 { irq, drives, state: State::power_on() }
    }

    /// The drives' kinds, as CMOS register 10h has them.
    pub fn cmos_types(&self) -> u8 {
        let kind = |drive: &Option<FloppyDrive>| drive.as_ref().map_or(0, |drive| drive.kind as u8);
        kind(&self.drives[0]) << 4 | kind(&self.drives[1])
    }

    /// Puts another disk into a drive, or takes it out; `disk` is the old one afterwards. False: there is no such drive.
    #[must_use]
    pub fn swap_disk(&mut self, now: Tick, drive: usize, disk: &mut Option<Medium>) -> bool {
        let Some(Some(place)) = self.drives.get_mut(drive) else { return false };
        std::mem::swap(&mut place.disk, disk);
        if let Some(head) = self.state.heads.get_mut(drive) {
            head.changed = true;
        }
        if let Phase::Transfer(transfer) = &self.state.phase
            && usize::from(transfer.drive) == drive
        {
            if let Some((pending, old)) = transfer.pending().zip(disk.as_ref()) {
                old.forget(pending);
            }
            self.abandon(now);
        }
        true
    }

    fn drive(&self, number: u8) -> Option<&FloppyDrive> {
        self.drives.get(usize::from(number))?.as_ref()
    }

    fn in_reset(&self) -> bool {
        self.state.dor & DOR_RUNNING == 0
    }

    /// The controller forgets what it was doing; SPECIFY survives, and CONFIGURE if it is locked.
    fn reset_controller(&mut self, now: Tick) {
        if let Phase::Transfer(transfer) = &self.state.phase
            && let Some(pending) = transfer.pending()
            && let Some(disk) = self.drive(transfer.drive).and_then(|drive| drive.disk.as_ref())
        {
            disk.forget(pending);
        }
        self.state.phase = Phase::Command(Vec::new());
        self.state.senses.clear();
        self.state.seeks.clear();
        if !self.state.locked {
            self.state.configure = [0; 2];
        }
        self.state.perpendicular &= !3;
        self.set_interrupt(false);
        self.state.reset_at = (!self.in_reset()).then(|| now.after(RESET_NS));
    }

    fn set_interrupt(&mut self, waits: bool) {
        self.state.interrupt = waits;
        self.irq.set(waits && self.state.dor & DOR_GATE != 0);
    }

    fn write_output(&mut self, now: Tick, value: u8) {
        let old = std::mem::replace(&mut self.state.dor, value);
        if (old ^ value) & DOR_RUNNING != 0 {
            self.reset_controller(now);
        }
        self.set_interrupt(self.state.interrupt);
    }

    fn main_status(&self) -> u8 {
        if self.in_reset() {
            return 0;
        }
        let seeking = self.state.seeks.iter().fold(0, |bits, &(_, st0, _)| bits | 1 << (st0 & 3));
        seeking
            | match &self.state.phase {
                Phase::Command(bytes) if bytes.is_empty() => MSR_READY,
                Phase::Command(_) => MSR_READY | MSR_BUSY,
                Phase::Result { .. } => MSR_READY | MSR_TO_HOST | MSR_BUSY,
                Phase::Transfer(transfer) if self.is_non_dma() => {
                    MSR_BUSY
                        | match transfer.wants() {
                            Some(transfer::Way::ToHost) => MSR_READY | MSR_NON_DMA | MSR_TO_HOST,
                            Some(transfer::Way::FromHost) => MSR_READY | MSR_NON_DMA,
                            None => MSR_NON_DMA,
                        }
                }
                Phase::Transfer(_) => MSR_BUSY,
            }
    }

    fn is_non_dma(&self) -> bool {
        self.state.specify[1] & 1 != 0
    }

    fn digital_input(&self) -> u8 {
        let number = self.state.dor & 3;
        let motor = self.state.dor >> (4 + number) & 1 != 0;
        let changed = match (self.drive(number), self.state.heads.get(usize::from(number))) {
            (Some(drive), Some(head)) => head.changed || drive.disk.is_none(),
            _ => true,
        };
        if motor && changed { DIR_CHANGED } else { 0 }
    }

    fn read_data(&mut self, now: Tick) -> u8 {
        let non_dma = self.is_non_dma();
        match &mut self.state.phase {
            Phase::Result { bytes, at } => {
                let byte = bytes.get(*at).copied().unwrap_or(0);
                *at += 1;
                let over = *at >= bytes.len();
                self.set_interrupt(false);
                if over {
                    self.state.phase = Phase::Command(Vec::new());
                }
                byte
            }
            Phase::Transfer(_) if non_dma => self.read_byte(now),
            _ => 0,
        }
    }

    fn write_data(&mut self, now: Tick, value: u8) {
        if self.in_reset() {
            return;
        }
        let non_dma = self.is_non_dma();
        match &mut self.state.phase {
            Phase::Command(bytes) => {
                bytes.push(value);
                if bytes.len() >= command::length(bytes.first().copied().unwrap_or(0)) {
                    let bytes = std::mem::take(bytes);
                    self.execute(now, &bytes);
                }
            }
            Phase::Transfer(_) if non_dma => self.write_byte(now, value),
            _ => {}
        }
    }

    /// Gives the host a result; one that ends a transfer interrupts.
    fn give(&mut self, bytes: Vec<u8>) {
        self.state.phase = Phase::Result { bytes, at: 0 };
    }
}

impl Device for Fdc82077 {
    fn name(&self) -> &'static str {
        "fdc82077"
    }

    fn reset(&mut self, cx: &mut Ctx<'_>) {
        self.reset_controller(cx.now);
        self.state = State::power_on();
        self.set_interrupt(false);
    }

    fn port_read(&mut self, cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        let value = match (range, offset) {
            (0, 2) => self.state.dor,
            (0, 3) => self.state.tape,
            (0, 4) => self.main_status(),
            (0, 5) => self.read_data(cx.now),
            (1, 0) => self.digital_input(),
            // Status registers A and B are for the PS/2.
            _ => return Err(IoError::NoSuchRegister),
        };
        Ok(value.into())
    }

    fn port_write(
        &mut self,
        cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        let value = value as u8;
        match (range, offset) {
            (0, 2) => self.write_output(cx.now, value),
            (0, 3) => self.state.tape = value & 3,
            (0, 4) => {
                self.state.rate = value & 3;
                if value & DSR_RESET != 0 && !self.in_reset() {
                    self.reset_controller(cx.now);
                }
            }
            (0, 5) => self.write_data(cx.now, value),
            (1, 0) => self.state.rate = value & 3,
            _ => return Err(IoError::NoSuchRegister),
        }
        Ok(())
    }

    fn next_event(&self) -> Option<Tick> {
        let seeks = self.state.seeks.iter().map(|&(end, ..)| end);
        seeks.chain(self.state.reset_at).chain(self.transfer_event()).min()
    }

    fn run_until(&mut self, cx: &mut Ctx<'_>) {
        if self.state.reset_at.is_some_and(|at| at <= cx.now) {
            self.state.reset_at = None;
            // Each drive's readiness is news after a reset.
            self.state.senses = (0..4).map(|drive| (0xC0 | drive, 0)).collect();
            self.set_interrupt(true);
        }
        let (over, going): (Vec<_>, Vec<_>) = self.state.seeks.iter().partition(|&&(end, ..)| end <= cx.now);
        self.state.seeks = going;
        for (_, st0, cylinder) in over {
            // A host that never senses has only the newest news waiting.
            self.state.senses.truncate(7);
            self.state.senses.push((st0, cylinder));
            self.set_interrupt(true);
        }
        while self.transfer_event().is_some_and(|event| event <= cx.now) {
            self.proceed(cx.now);
        }
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let mut state: State = restore_state(self.name(), state)?;
        if let Phase::Transfer(transfer) = &mut state.phase {
            let drive = self.drives.get_mut(usize::from(transfer.drive)).and_then(Option::as_mut);
            transfer.resume(drive.and_then(|drive| drive.disk.as_mut()));
        }
        self.state = state;
        self.set_interrupt(self.state.interrupt);
        Ok(())
    }
}
