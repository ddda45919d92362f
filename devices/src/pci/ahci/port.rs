//! One port: registers (AHCI 1.3.1, 3.3), the command list and tables in memory (4.2), received FIS.

use crate::ata::{Command, Drive, Ending, Protocol, Reset, Step, status};
use crate::clock::Tick;
use crate::device::{Ctx, StateError};
use serde::{Deserialize, Serialize};
use umbra_mmu::addr::GuestPhys;

/// Command register: start; FIS receive; command list override; the two that are running.
const CMD_START: u32 = 1 << 0;
const CMD_OVERRIDE: u32 = 1 << 3;
const CMD_RECEIVE: u32 = 1 << 4;
const CMD_RECEIVING: u32 = 1 << 14;
const CMD_RUNNING: u32 = 1 << 15;
/// Start, spin up, power, receive, ATAPI, LED, aggressive power, ICC.
const CMD_WRITABLE: u32 = 0xF700_0017;
/// Interrupts: a device-to-host FIS; a PIO set-up FIS; the connection changed; overflow; task file error.
const IS_DEVICE: u32 = 1 << 0;
const IS_PIO: u32 = 1 << 1;
const IS_CONNECT: u32 = 1 << 6;
const IS_OVERFLOW: u32 = 1 << 24;
const IS_TASK_FILE: u32 = 1 << 30;
/// Interrupt bits that follow the error register, cleared there.
const IS_FROM_ERROR: u32 = 1 << 6 | 1 << 22;
const IE_WRITABLE: u32 = 0xFDC0_00FF;
/// Error: exchanged, PHY ready changed.
const ERROR_CONNECT: u32 = 1 << 26 | 1 << 16;
/// A device is there, 3 Gbit/s, active.
const LINK_UP: u32 = 0x123;

/// Command header: words of the command FIS; ATAPI; write; reset; clear busy when R_OK.
const HEADER_ATAPI: u32 = 1 << 5;
const HEADER_CLEAR_BUSY: u32 = 1 << 10;
const FIS_TO_DEVICE: u8 = 0x27;
const FIS_FROM_DEVICE: u8 = 0x34;
const FIS_PIO_SETUP: u8 = 0x5F;
/// Where FIS are received.
const RECEIVED_PIO: u64 = 0x20;
const RECEIVED_DEVICE: u64 = 0x40;
/// Device control in a command FIS: software reset.
const CONTROL_RESET: u8 = 1 << 2;

/// The command under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Active {
    slot: u8,
    header: u64,
    table: u64,
    atapi: bool,
    /// Regions of the table, the next one, and bytes of it that are used.
    regions: u16,
    next: u16,
    used: u32,
    moved: u32,
    /// Bytes came by PIO.
    pio: bool,
    overflow: bool,
}

/// The volatile state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct PortState {
    list: u64,
    received: u64,
    interrupt: u32,
    enabled: u32,
    command: u32,
    task_file: u32,
    signature: u32,
    control: u32,
    error: u32,
    issued: u32,
    /// A failed command stops the list until it is started anew.
    halted: bool,
    active: Option<Active>,
}

/// A port.
#[derive(Debug)]
pub(super) struct Port {
    drive: Option<Drive>,
    state: PortState,
}

impl Port {
    pub fn new(drive: Option<Drive>) -> Port {
        Port { drive, state: PortState::default() }
    }

    pub fn reset(&mut self) {
        self.state = PortState::default();
        self.connect(Reset::Hard);
    }

    /// The link comes up: the drive tells what it is.
    fn connect(&mut self, reset: Reset) {
        self.state.active = None;
        let Some(drive) = &mut self.drive else {
            (self.state.task_file, self.state.signature) = (0x7F, u32::MAX);
            return;
        };
        drive.reset(reset);
        let (count, lba) = drive.signature();
        self.state.signature = (lba as u32) << 8 | u32::from(count);
        self.state.task_file = u32::from(drive.reset_status()) | 1 << 8;
    }

    pub fn interrupts(&self) -> bool {
        self.state.interrupt & self.state.enabled != 0
    }

    pub fn read(&self, register: u64) -> u32 {
        let state = &self.state;
        match register {
            0x00 => state.list as u32,
            0x04 => (state.list >> 32) as u32,
            0x08 => state.received as u32,
            0x0C => (state.received >> 32) as u32,
            0x10 => state.interrupt,
            0x14 => state.enabled,
            0x18 => {
                let running = if state.command & CMD_START != 0 { CMD_RUNNING } else { 0 };
                let receiving = if state.command & CMD_RECEIVE != 0 { CMD_RECEIVING } else { 0 };
                let slot = state.active.as_ref().map_or(0, |active| u32::from(active.slot));
                state.command | running | receiving | slot << 8
            }
            0x20 => state.task_file,
            0x24 => state.signature,
            0x28 if self.drive.is_some() && state.control & 0xF == 0 => LINK_UP,
            0x2C => state.control,
            0x30 => state.error,
            0x38 => state.issued,
            _ => 0,
        }
    }

    pub fn write(&mut self, cx: &mut Ctx<'_>, register: u64, mask: u32, value: u32) {
        let state = &mut self.state;
        let merge = |old: u32| old & !mask | value;
        let low = |old: u64, align: u32| old & !0xFFFF_FFFF | u64::from(merge(old as u32) & !align);
        let high = |old: u64| old & 0xFFFF_FFFF | u64::from(merge((old >> 32) as u32)) << 32;
        match register {
            0x00 => state.list = low(state.list, 0x3FF),
            0x04 => state.list = high(state.list),
            0x08 => state.received = low(state.received, 0xFF),
            0x0C => state.received = high(state.received),
            0x10 => state.interrupt &= !(value & !IS_FROM_ERROR),
            0x14 => state.enabled = merge(state.enabled) & IE_WRITABLE,
            0x18 => self.write_command(cx, mask, value),
            0x2C => {
                let old = state.control;
                state.control = merge(old) & 0xFFF;
                // Device detection 1 holds the link in reset; 0 lets it come up.
                if old & 0xF == 1 && self.state.control & 0xF == 0 {
                    self.connect(Reset::Hard);
                    if self.drive.is_some() {
                        self.state.error |= ERROR_CONNECT;
                        self.state.interrupt |= IS_CONNECT;
                        self.tell_signature(cx);
                    }
                }
            }
            0x30 => {
                state.error &= !value;
                if state.error & ERROR_CONNECT == 0 {
                    state.interrupt &= !IS_FROM_ERROR;
                }
            }
            0x38 if state.command & CMD_START != 0 => state.issued |= value,
            _ => {}
        }
    }

    fn write_command(&mut self, cx: &mut Ctx<'_>, mask: u32, value: u32) {
        let old = self.state.command;
        let writable = mask & CMD_WRITABLE;
        self.state.command = old & !writable | value & writable;
        if value & CMD_OVERRIDE != 0 {
            self.state.task_file &= !u32::from(status::BSY | status::DRQ);
        }
        let rising = !old & self.state.command;
        if old & !self.state.command & CMD_START != 0 {
            // Stopped: what is issued is forgotten, and a command under way with it.
            self.state.issued = 0;
            self.state.halted = false;
            if let (Some(_), Some(drive)) = (self.state.active.take(), &mut self.drive) {
                drive.reset(Reset::Soft);
                self.state.task_file &= !u32::from(status::BSY | status::DRQ);
            }
        }
        if rising & CMD_RECEIVE != 0 && self.drive.is_some() {
            self.tell_signature(cx);
        }
    }

    /// The FIS by which a drive shows itself.
    fn tell_signature(&mut self, cx: &mut Ctx<'_>) {
        let [count, low, mid, high] = self.state.signature.to_le_bytes();
        let [status, error, ..] = self.state.task_file.to_le_bytes();
        let fis = [FIS_FROM_DEVICE, 0, status, error, low, mid, high, 0, 0, 0, 0, 0, count, 0, 0, 0, 0, 0, 0, 0];
        self.receive(cx, RECEIVED_DEVICE, &fis);
    }

    fn receive(&self, cx: &mut Ctx<'_>, at: u64, fis: &[u8; 20]) {
        if self.state.command & CMD_RECEIVE != 0 {
            cx.dma.write(GuestPhys(self.state.received.wrapping_add(at)), fis);
        }
    }

    pub fn next_event(&self) -> Option<Tick> {
        self.state.active.as_ref()?;
        self.drive.as_ref()?.next_event()
    }

    /// Does everything that can be done now.
    pub fn run(&mut self, cx: &mut Ctx<'_>) {
        loop {
            if self.state.active.is_some() {
                if self.next_event().is_none_or(|event| event > cx.now) {
                    return;
                }
                if let Some(drive) = &mut self.drive {
                    let step = drive.proceed(cx.now);
                    self.follow(cx, step);
                }
                continue;
            }
            let ready = self.state.command & CMD_START != 0
                && !self.state.halted
                && self.state.issued != 0
                && self.state.control & 0xF == 0
                && self.drive.is_some();
            if !ready {
                return;
            }
            self.issue(cx, self.state.issued.trailing_zeros() as u8);
        }
    }

    /// Takes a command from the list.
    fn issue(&mut self, cx: &mut Ctx<'_>, slot: u8) {
        let header = self.state.list.wrapping_add(32 * u64::from(slot));
        let mut words = [0; 16];
        cx.dma.read(GuestPhys(header), &mut words);
        let word = |n: usize| {
            words.get(4 * n..4 * n + 4).map_or(0, |bytes| bytes.iter().rev().fold(0, |w, &b| w << 8 | u32::from(b)))
        };
        let table = u64::from(word(2) & !0x7F) | u64::from(word(3)) << 32;
        let mut fis = [0; 20];
        cx.dma.read(GuestPhys(table), &mut fis);
        if fis[0] != FIS_TO_DEVICE || fis[1] & 0x80 == 0 {
            // A control FIS resets or ends a reset; anything else is no command. Neither is answered.
            self.state.issued &= !(1 << slot);
            let is_reset = fis[0] == FIS_TO_DEVICE && fis[15] & CONTROL_RESET != 0;
            if is_reset {
                self.connect(Reset::Soft);
            } else if word(0) & HEADER_CLEAR_BUSY == 0 && fis[0] == FIS_TO_DEVICE {
                self.tell_signature(cx);
            }
            return;
        }
        let command = Command {
            code: fis[2],
            feature: u16::from_le_bytes([fis[3], fis[11]]),
            count: u16::from_le_bytes([fis[12], fis[13]]),
            lba: u64::from_le_bytes([fis[4], fis[5], fis[6], fis[8], fis[9], fis[10], 0, 0]),
            device: fis[7],
        };
        self.state.active = Some(Active {
            slot,
            header,
            table,
            atapi: word(0) & HEADER_ATAPI != 0,
            regions: (word(0) >> 16) as u16,
            next: 0,
            used: 0,
            moved: 0,
            pio: false,
            overflow: false,
        });
        self.state.task_file = status::BSY.into();
        if let Some(drive) = &mut self.drive {
            let step = drive.begin(cx.now, &command);
            self.follow(cx, step);
        }
    }

    /// Follows a command until the drive is at work or done.
    fn follow(&mut self, cx: &mut Ctx<'_>, mut step: Step) {
        loop {
            let (Some(active), Some(drive)) = (&mut self.state.active, &mut self.drive) else { return };
            step = match step {
                Step::Busy => return,
                Step::Done(ending) => {
                    self.finish(cx, &ending);
                    return;
                }
                Step::Packet if active.atapi => {
                    let mut packet = vec![0; 12];
                    cx.dma.read(GuestPhys(active.table.wrapping_add(0x40)), &mut packet);
                    drive.given(cx.now, packet)
                }
                Step::Packet => {
                    drive.reset(Reset::Soft);
                    Step::Done(Ending::failed(crate::ata::error::ABRT))
                }
                Step::In(data, protocol) => {
                    active.pio = protocol != Protocol::Dma && !active.atapi;
                    active.scatter(cx, &data);
                    drive.taken(cx.now)
                }
                Step::Out(want, _) => match active.gather(cx, want) {
                    Some(data) => drive.given(cx.now, data),
                    None => {
                        drive.reset(Reset::Soft);
                        Step::Done(Ending::failed(crate::ata::error::ABRT))
                    }
                },
            };
        }
    }

    fn finish(&mut self, cx: &mut Ctx<'_>, ending: &Ending) {
        let Some(active) = self.state.active.take() else { return };
        cx.dma.write(GuestPhys(active.header.wrapping_add(4)), &active.moved.to_le_bytes());
        self.state.task_file = u32::from(ending.status) | u32::from(ending.error) << 8;
        let failed = ending.status & status::ERR != 0;
        let [l0, l1, l2, l3, l4, l5, ..] = ending.lba.unwrap_or(0).to_le_bytes();
        let [c0, c1] = ending.count.unwrap_or(0).to_le_bytes();
        let head = ending.head.unwrap_or(0) & 0xF;
        let (status, error) = (ending.status, ending.error);
        const INTERRUPT: u8 = 1 << 6;
        if active.pio && !failed {
            let [m0, m1, ..] = active.moved.to_le_bytes();
            // The status now with DRQ, and the status afterwards.
            let busy = status | status::DRQ;
            #[rustfmt::skip]
            let fis = [
                FIS_PIO_SETUP, INTERRUPT | 1 << 5, busy, error, l0, l1, l2, head, l3, l4, l5, 0, c0, c1, 0, status, m0, m1, 0, 0,
            ];
            self.receive(cx, RECEIVED_PIO, &fis);
            self.state.interrupt |= IS_PIO;
        } else {
            let fis =
                [FIS_FROM_DEVICE, INTERRUPT, status, error, l0, l1, l2, head, l3, l4, l5, 0, c0, c1, 0, 0, 0, 0, 0, 0];
            self.receive(cx, RECEIVED_DEVICE, &fis);
            self.state.interrupt |= IS_DEVICE;
        }
        if active.overflow {
            self.state.interrupt |= IS_OVERFLOW;
        }
        if failed {
            self.state.interrupt |= IS_TASK_FILE;
            self.state.halted = true;
        } else {
            self.state.issued &= !(1 << active.slot);
        }
    }

    pub fn save(&self) -> (PortState, Vec<u8>) {
        (self.state.clone(), self.drive.as_ref().map_or(Vec::new(), Drive::save))
    }

    pub fn restore(&mut self, state: PortState, drive: &[u8]) -> Result<(), StateError> {
        if let Some(inner) = &mut self.drive {
            inner.restore(drive)?;
        }
        self.state = state;
        Ok(())
    }
}

impl Active {
    /// The next piece of memory: where, and how much of `wanted`. `None` at the end of the table.
    fn piece(&mut self, cx: &mut Ctx<'_>, wanted: usize) -> Option<(GuestPhys, usize)> {
        if self.next >= self.regions {
            return None;
        }
        let mut entry = [0; 16];
        cx.dma.read(GuestPhys(self.table.wrapping_add(0x80 + 16 * u64::from(self.next))), &mut entry);
        let [a0, a1, a2, a3, a4, a5, a6, a7, _, _, _, _, c0, c1, c2, _] = entry;
        let length = (u32::from_le_bytes([c0, c1, c2 & 0x3F, 0]) | 1) + 1;
        let base = u64::from_le_bytes([a0 & !1, a1, a2, a3, a4, a5, a6, a7]).wrapping_add(self.used.into());
        let bytes = (length.saturating_sub(self.used) as usize).min(wanted);
        self.used = self.used.saturating_add(bytes as u32);
        if self.used >= length {
            self.next += 1;
            self.used = 0;
        }
        self.moved = self.moved.saturating_add(bytes as u32);
        Some((GuestPhys(base), bytes))
    }

    /// Puts bytes into the regions; what does not fit is lost, and said to be.
    fn scatter(&mut self, cx: &mut Ctx<'_>, data: &[u8]) {
        let mut rest = data;
        while !rest.is_empty() {
            let Some((at, bytes)) = self.piece(cx, rest.len()) else {
                self.overflow = true;
                return;
            };
            let (now, later) = rest.split_at(bytes.min(rest.len()));
            cx.dma.write(at, now);
            rest = later;
        }
    }

    /// Takes bytes from the regions; `None` if there are too few.
    fn gather(&mut self, cx: &mut Ctx<'_>, want: usize) -> Option<Vec<u8>> {
        let mut data = Vec::new();
        while data.len() < want {
            let have = data.len();
            let Some((at, bytes)) = self.piece(cx, want - have) else {
                self.overflow = true;
                return None;
            };
            data.resize(have + bytes, 0);
            cx.dma.read(at, data.get_mut(have..)?);
        }
        Some(data)
    }
}
