//! One drive's place on a channel: its task file, and where the transfer of its command is.

use crate::ata::{Command, Drive, Ending, Protocol, Reset, Step, status};
use crate::clock::Tick;
use serde::{Deserialize, Serialize};

const PACKET: u8 = 0xA0;
const PACKET_BYTES: usize = 12;
/// Interrupt reason of packet commands: the packet is wanted, or the command is over.
const REASON_COMMAND: u8 = 1 << 0;
/// Interrupt reason: towards the host.
const REASON_IN: u8 = 1 << 1;

/// Where a transfer is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) enum Phase {
    #[default]
    Idle,
    /// The drive is at work.
    Busy,
    /// The packet's bytes so far.
    Packet(Vec<u8>),
    /// The host reads `data` by the data register; the block ends at `end`.
    PioIn { data: Vec<u8>, at: usize, end: usize, block: u32 },
    /// The host writes `want` bytes by the data register; the block ends at `end`.
    PioOut { data: Vec<u8>, want: usize, end: usize, block: u32 },
    /// Bytes for the bus master.
    DmaIn { data: Vec<u8>, at: usize },
    /// Bytes from the bus master.
    DmaOut { data: Vec<u8>, want: usize },
}

/// What the channel keeps for a drive. Register pairs are the current and the previous contents.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct UnitState {
    pub feature: [u8; 2],
    pub count: [u8; 2],
    /// LBA low, mid, high.
    pub lba: [[u8; 2]; 3],
    pub device: u8,
    pub status: u8,
    pub error: u8,
    pub interrupt: bool,
    /// The command under way.
    code: u8,
    pub phase: Phase,
}

/// A place on the channel.
#[derive(Debug)]
pub(super) struct Unit {
    pub drive: Option<Drive>,
    pub state: UnitState,
}

/// What a step follows, for the interrupts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The command's first step.
    Begin,
    /// The host read the last byte of a PIO transfer.
    PioTaken,
    Later,
}

impl Unit {
    pub fn new(drive: Option<Drive>) -> Unit {
        Unit { drive, state: UnitState::default() }
    }

    pub fn reset(&mut self, reset: Reset) {
        self.state = UnitState::default();
        let Some(drive) = &mut self.drive else { return };
        drive.reset(reset);
        let (count, lba) = drive.signature();
        self.state.status = drive.reset_status();
        self.state.count = [count, 0];
        self.set_lba(lba);
        // Diagnostics passed.
        self.state.error = 1;
    }

    pub fn is_busy(&self) -> bool {
        self.state.status & status::BSY != 0
    }

    pub fn next_event(&self) -> Option<Tick> {
        match (&self.state.phase, &self.drive) {
            (Phase::Busy, Some(drive)) => drive.next_event(),
            _ => None,
        }
    }

    fn set_lba(&mut self, lba: u64) {
        let bytes = lba.to_le_bytes();
        for (n, pair) in self.state.lba.iter_mut().enumerate() {
            *pair = [bytes[n], bytes[n + 3]];
        }
    }

    fn is_packet(&self) -> bool {
        self.state.code == PACKET
    }

    /// The command register is written.
    pub fn begin(&mut self, now: Tick, code: u8) {
        let Some(drive) = &mut self.drive else { return };
        let state = &mut self.state;
        let wide = |pair: [u8; 2]| u16::from_le_bytes(pair);
        let [low, mid, high] = state.lba;
        let lba = [low[0], mid[0], high[0], low[1], mid[1], high[1], 0, 0];
        let command = Command {
            code,
            feature: wide(state.feature),
            count: wide(state.count),
            lba: u64::from_le_bytes(lba),
            device: state.device,
        };
        state.interrupt = false;
        state.error = 0;
        state.code = code;
        let step = drive.begin(now, &command);
        self.apply(step, Cause::Begin);
    }

    /// Lets a busy drive go on.
    pub fn proceed(&mut self, now: Tick) {
        let Some(drive) = &mut self.drive else { return };
        let step = drive.proceed(now);
        self.apply(step, Cause::Later);
    }

    /// The bus master has moved everything.
    pub fn moved_all(&mut self, now: Tick) {
        match std::mem::take(&mut self.state.phase) {
            Phase::DmaIn { .. } => self.hand_over(now, None, Cause::Later),
            Phase::DmaOut { data, .. } => self.hand_over(now, Some(data), Cause::Later),
            phase => self.state.phase = phase,
        }
    }

    /// The host has taken what there was, or brings what was asked for.
    fn hand_over(&mut self, now: Tick, data: Option<Vec<u8>>, cause: Cause) {
        let Some(drive) = &mut self.drive else { return };
        let step = match data {
            Some(data) => drive.given(now, data),
            None => drive.taken(now),
        };
        self.apply(step, cause);
    }

    fn apply(&mut self, step: Step, cause: Cause) {
        const WANTS_DATA: u8 = status::DRDY | status::DSC | status::DRQ;
        match step {
            Step::Busy => {
                self.state.status = status::BSY;
                self.state.phase = Phase::Busy;
            }
            Step::Done(ending) => self.end(&ending, cause),
            Step::Packet => {
                self.state.status = WANTS_DATA;
                self.state.count[0] = REASON_COMMAND;
                self.state.phase = Phase::Packet(Vec::new());
            }
            Step::In(data, Protocol::Pio { block }) => {
                self.state.status = WANTS_DATA;
                let end = data.len().min(block as usize);
                self.next_block(end, REASON_IN);
                self.state.phase = Phase::PioIn { data, at: 0, end, block };
                self.state.interrupt = true;
            }
            Step::Out(want, Protocol::Pio { block }) => {
                self.state.status = WANTS_DATA;
                let end = want.min(block as usize);
                self.next_block(end, 0);
                self.state.phase = Phase::PioOut { data: Vec::new(), want, end, block };
                // The first block of an ATA command is wanted without an interrupt.
                self.state.interrupt = cause != Cause::Begin;
            }
            Step::In(data, Protocol::Dma) => {
                self.state.status = status::BSY;
                self.state.phase = Phase::DmaIn { data, at: 0 };
            }
            Step::Out(want, Protocol::Dma) => {
                self.state.status = status::BSY;
                self.state.phase = Phase::DmaOut { data: Vec::new(), want };
            }
        }
    }

    fn end(&mut self, ending: &Ending, cause: Cause) {
        let state = &mut self.state;
        state.phase = Phase::Idle;
        (state.status, state.error) = (ending.status, ending.error);
        if let Some(count) = ending.count {
            state.count = count.to_le_bytes();
        }
        if let Some(head) = ending.head {
            state.device = state.device & 0xF0 | head & 0xF;
        }
        // PIO data-in ends with its last byte, and without an interrupt.
        let quiet = cause == Cause::PioTaken && state.code != PACKET && ending.status & status::ERR == 0;
        state.interrupt = !quiet;
        if let Some(lba) = ending.lba {
            self.set_lba(lba);
        }
    }

    /// A packet command says how long each block is and which way it goes.
    fn next_block(&mut self, bytes: usize, reason: u8) {
        if self.is_packet() {
            let [low, high, ..] = bytes.to_le_bytes();
            self.state.lba[1][0] = low;
            self.state.lba[2][0] = high;
            self.state.count[0] = reason;
        }
    }

    /// Reads the data register.
    pub fn read_data(&mut self, now: Tick, bytes: usize) -> u32 {
        let Phase::PioIn { data, at, end, block } = &mut self.state.phase else { return 0 };
        let mut value = [0; 4];
        let rest = data.get(*at..).unwrap_or(&[]);
        value.iter_mut().take(bytes).zip(rest).for_each(|(to, &from)| *to = from);
        *at = at.saturating_add(bytes);
        if *at >= *end {
            if *at >= data.len() {
                self.state.phase = Phase::Idle;
                self.hand_over(now, None, Cause::PioTaken);
            } else {
                let bytes = (data.len() - *at).min((*block).max(2) as usize);
                *end = *at + bytes;
                self.next_block(bytes, REASON_IN);
                self.state.interrupt = true;
            }
        }
        u32::from_le_bytes(value)
    }

    /// Writes the data register.
    pub fn write_data(&mut self, now: Tick, bytes: &[u8]) {
        match &mut self.state.phase {
            Phase::Packet(packet) => {
                packet.extend(bytes);
                if packet.len() >= PACKET_BYTES {
                    let packet = std::mem::take(packet);
                    self.hand_over(now, Some(packet), Cause::Later);
                }
            }
            Phase::PioOut { data, want, end, block } => {
                let room = want.saturating_sub(data.len());
                data.extend(bytes.iter().take(room));
                if data.len() >= *want {
                    let data = std::mem::take(data);
                    self.hand_over(now, Some(data), Cause::Later);
                } else if data.len() >= *end {
                    let bytes = (*want - data.len()).min((*block).max(2) as usize);
                    *end = data.len() + bytes;
                    self.next_block(bytes, 0);
                    self.state.interrupt = true;
                }
            }
            _ => {}
        }
    }
}
