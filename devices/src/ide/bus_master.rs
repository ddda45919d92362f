//! A channel's half of the PIIX's bus master: command, status, and the walk along the table of physical regions
//! (82371SB data sheet, 2.7; Programming Interface for Bus Master IDE Controllers, 1.0).

use serde::{Deserialize, Serialize};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::dma::Dma;

/// Command: start and direction.
const COMMAND_WRITABLE: u32 = 0b1001;
const COMMAND_START: u32 = 1 << 0;
/// Command: towards memory.
const COMMAND_TO_MEMORY: u32 = 1 << 3;
/// Status: drive 1 and drive 0 can do DMA, kept for software.
const STATUS_WRITABLE: u32 = 0b110_0000 << 16;
/// Status: interrupt and error, cleared by writing 1.
const STATUS_CLEARABLE: u32 = 0b110 << 16;
const STATUS_ACTIVE: u32 = 1 << 16;
const STATUS_INTERRUPT: u32 = 1 << 18;

/// What became of a transfer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// All bytes are moved.
    All,
    /// The table ended before.
    TableEnded,
    /// The bus master was started for the other direction.
    WrongWay,
}

/// The registers (command in bits 0–7 and status in bits 16–23 of the first) and the place in the table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BusMaster {
    command: u32,
    table: u32,
    /// The next descriptor's address, while started.
    next: u32,
    /// The region under way: where, and bytes left.
    region: (u32, u32),
    /// The region under way is the table's last.
    last: bool,
    /// The level of INTRQ.
    pub(super) interrupt_line: bool,
}

impl BusMaster {
    /// The register of 32 bits at 0 or 4.
    pub fn read(&self, register: u64) -> u32 {
        if register & 4 == 0 { self.command } else { self.table }
    }

    /// Writes the bits of `mask`.
    pub fn write(&mut self, register: u64, mask: u32, value: u32) {
        if register & 4 != 0 {
            self.table = (self.table & !mask | value & mask) & !3;
            return;
        }
        let value = value & mask;
        let writable = mask & (COMMAND_WRITABLE | STATUS_WRITABLE);
        let was_started = self.is_started();
        let command = (self.command & !writable | value & writable) & !(value & STATUS_CLEARABLE);
        self.command = command;
        if self.is_started() && !was_started {
            self.command |= STATUS_ACTIVE;
            self.next = self.table;
            self.region = (0, 0);
            self.last = false;
        } else if !self.is_started() {
            self.command &= !STATUS_ACTIVE;
        }
    }

    /// Whether software started it and the table has not ended.
    pub fn is_started(&self) -> bool {
        self.command & COMMAND_START != 0
    }

    pub(super) fn note_interrupt(&mut self) {
        self.command |= STATUS_INTERRUPT;
    }

    /// The next piece of memory: where, and how much of `wanted`. `None` at the end of the table.
    fn piece(&mut self, dma: &mut dyn Dma, wanted: usize) -> Option<(GuestPhys, usize)> {
        if self.region.1 == 0 {
            if self.last || self.command & STATUS_ACTIVE == 0 {
                self.command &= !STATUS_ACTIVE;
                return None;
            }
            let mut descriptor = [0; 8];
            dma.read(GuestPhys(self.next.into()), &mut descriptor);
            let [a0, a1, a2, a3, c0, c1, _, flags] = descriptor;
            self.next = self.next.wrapping_add(8);
            let length = u32::from(u16::from_le_bytes([c0, c1]) & !1);
            self.region = (u32::from_le_bytes([a0, a1, a2, a3]) & !1, if length == 0 { 0x1_0000 } else { length });
            self.last = flags & 0x80 != 0;
        }
        let (at, left) = self.region;
        let bytes = (left as usize).min(wanted);
        self.region = (at.wrapping_add(bytes as u32), left - bytes as u32);
        Some((GuestPhys(at.into()), bytes))
    }

    /// A transfer ended where the table did.
    fn finish(&mut self) -> Moved {
        if self.last && self.region.1 == 0 {
            self.command &= !STATUS_ACTIVE;
        }
        Moved::All
    }

    /// Moves `data` from `at` on to memory.
    pub(super) fn fill_memory(&mut self, dma: &mut dyn Dma, data: &[u8], at: &mut usize) -> Moved {
        if self.command & COMMAND_TO_MEMORY == 0 {
            return Moved::WrongWay;
        }
        while let Some(rest) = data.get(*at..).filter(|rest| !rest.is_empty()) {
            let Some((address, bytes)) = self.piece(dma, rest.len()) else { return Moved::TableEnded };
            dma.write(address, rest.get(..bytes).unwrap_or(rest));
            *at += bytes;
        }
        self.finish()
    }

    /// Moves memory to `data` until it has `want` bytes.
    pub(super) fn fetch_memory(&mut self, dma: &mut dyn Dma, data: &mut Vec<u8>, want: usize) -> Moved {
        if self.command & COMMAND_TO_MEMORY != 0 {
            return Moved::WrongWay;
        }
        while data.len() < want {
            let have = data.len();
            let Some((address, bytes)) = self.piece(dma, want - have) else { return Moved::TableEnded };
            data.resize(have + bytes, 0);
            dma.read(address, data.get_mut(have..).unwrap_or_default());
        }
        self.finish()
    }
}
