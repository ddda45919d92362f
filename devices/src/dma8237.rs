//! The pair of 8237A DMA controllers with their page registers (Intel 8237A data sheet, order 231466; IBM PC/AT Technical
//! Reference).
//!
//! Models all registers of both controllers (base and current address and count behind the byte flip-flop, command,
//! status, mask, mode, request, the software commands), 8-bit channels 0–3 and 16-bit channels 5–7, address wrap inside a
//! page, counting up and down, terminal count, auto-initialisation and verify transfers. A device moves its bytes with
//! [`Dma8237::read_memory`] and [`Dma8237::write_memory`]; bus timing (demand, single, block) is the device's choice of how
//! much it asks for at a time.
//!
//! Leaves out: memory-to-memory transfers, rotating priority and compressed timing (the bits are kept), and whether
//! channel 4 is programmed for the cascade (taken as always so).
//!
//! Ranges: 0 = 00h–0Fh, 1 = C0h–DFh (a register every two ports), 2 = 81h–8Fh (page registers). Called by the board and,
//! through it, by floppy and sound devices.

use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use serde::{Deserialize, Serialize};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::dma::Dma;

#[cfg(test)]
mod tests;

/// Command register: no transfers.
const COMMAND_DISABLE: u8 = 1 << 2;
/// Mode register: reload address and count at terminal count.
const MODE_AUTO_INIT: u8 = 1 << 4;
/// Mode register: addresses count down.
const MODE_DECREMENT: u8 = 1 << 5;
/// For each channel, its page register as an offset from port 80h (channel 4's is the refresh page).
const PAGE_REGISTER: [usize; 8] = [0x7, 0x3, 0x1, 0x2, 0xf, 0xb, 0x9, 0xa];

/// The kind of transfer that a channel is programmed for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum TransferKind {
    /// Addresses and counts go on, memory is not touched.
    Verify,
    /// From the device to memory.
    WriteMemory,
    /// From memory to the device.
    ReadMemory,
}

/// What a transfer did.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Bytes moved.
    pub bytes: usize,
    /// Terminal count: the programmed count is done.
    pub terminal_count: bool,
}

/// One channel.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Channel {
    base_address: u16,
    base_count: u16,
    address: u16,
    count: u16,
    mode: u8,
}

/// One 8237A.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Chip {
    channels: [Channel; 4],
    command: u8,
    /// Channels at terminal count since the last read of the status register.
    done: u8,
    /// DREQ inputs.
    requests: u8,
    /// Software requests.
    soft_requests: u8,
    mask: u8,
    /// The byte flip-flop: the next address or count byte is the high one.
    high_byte: bool,
}

impl Chip {
    fn power_on() -> Chip {
        Chip {
            channels: [Channel::default(); 4],
            command: 0,
            done: 0,
            requests: 0,
            soft_requests: 0,
            mask: 0x0f,
            high_byte: false,
        }
    }

    fn master_clear(&mut self) {
        self.command = 0;
        self.done = 0;
        self.soft_requests = 0;
        self.mask = 0x0f;
        self.high_byte = false;
    }

    fn read(&mut self, register: u16) -> u8 {
        match register {
            0..=7 => {
                let channel = &self.channels[usize::from(register >> 1)];
                let value = if register & 1 == 0 { channel.address } else { channel.count };
                value.to_le_bytes()[usize::from(self.toggle())]
            }
            8 => std::mem::take(&mut self.done) | (self.requests | self.soft_requests) << 4,
            13 => 0, // The temporary register: memory-to-memory transfers only.
            15 => 0xf0 | self.mask,
            _ => 0xff,
        }
    }

    fn write(&mut self, register: u16, value: u8) {
        let select = usize::from(value & 3);
        let bit = 1 << select;
        match register {
            0..=7 => {
                let high = self.toggle();
                let channel = &mut self.channels[usize::from(register >> 1)];
                let (base, current) = if register & 1 == 0 {
                    (&mut channel.base_address, &mut channel.address)
                } else {
                    (&mut channel.base_count, &mut channel.count)
                };
                for value_of in [base, current] {
                    let mut bytes = value_of.to_le_bytes();
                    bytes[usize::from(high)] = value;
                    *value_of = u16::from_le_bytes(bytes);
                }
            }
            8 => self.command = value,
            9 => self.soft_requests = if value & 4 != 0 { self.soft_requests | bit } else { self.soft_requests & !bit },
            10 => self.mask = if value & 4 != 0 { self.mask | bit } else { self.mask & !bit },
            11 => self.channels[select].mode = value & !3,
            12 => self.high_byte = false,
            13 => self.master_clear(),
            14 => self.mask = 0,
            _ => self.mask = value & 0x0f,
        }
    }

    /// Steps the byte flip-flop; says whether this access is to the high byte.
    fn toggle(&mut self) -> bool {
        self.high_byte = !self.high_byte;
        !self.high_byte
    }
}

/// Volatile state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    chips: [Chip; 2],
    /// Ports 80h–8Fh; the first is not ours.
    pages: [u8; 16],
}

/// The DMA controllers.
#[derive(Debug)]
pub struct Dma8237 {
    // Configuration: none.
    // Wires: devices call the transfer functions.
    // Volatile state.
    state: State,
}

/// The bytes of one transfer, by direction.
enum Data<'a> {
    ToDevice(&'a mut [u8]),
    FromDevice(&'a [u8]),
}

impl Dma8237 {
    /// Both controllers after reset: all channels masked.
    pub fn new() -> Dma8237 {
        Dma8237 { state: State { chips: [Chip::power_on(), Chip::power_on()], pages: [0; 16] } }
    }

    /// Whether the channel would serve a request now.
    pub fn is_ready(&self, channel: u8) -> bool {
        let Some((chip, index)) = self.chip(channel) else { return false };
        chip.command & COMMAND_DISABLE == 0 && chip.mask >> index & 1 == 0
    }

    /// What the channel is programmed for; `None` if it is the cascade or an illegal kind.
    pub fn kind(&self, channel: u8) -> Option<TransferKind> {
        let (chip, index) = self.chip(channel)?;
        let mode = chip.channels[index].mode;
        match (mode >> 6, mode >> 2 & 3) {
            (3, _) | (_, 3) => None,
            (_, 0) => Some(TransferKind::Verify),
            (_, 1) => Some(TransferKind::WriteMemory),
            _ => Some(TransferKind::ReadMemory),
        }
    }

    /// Bytes left until terminal count.
    pub fn remaining(&self, channel: u8) -> usize {
        let Some((chip, index)) = self.chip(channel) else { return 0 };
        (usize::from(chip.channels[index].count) + 1) << (channel >> 2)
    }

    /// Drives a channel's DREQ input; it shows in the status register.
    pub fn set_request(&mut self, channel: u8, high: bool) {
        let Some((chip, index)) = self.chip_mut(channel) else { return };
        chip.requests = if high { chip.requests | 1 << index } else { chip.requests & !(1 << index) };
    }

    /// Moves bytes from memory to a device, at most to terminal count; none if the channel is not ready or programmed for
    /// the other direction.
    pub fn read_memory(&mut self, dma: &mut dyn Dma, channel: u8, into: &mut [u8]) -> Transferred {
        self.transfer(dma, channel, Data::ToDevice(into))
    }

    /// Moves bytes from a device to memory, at most to terminal count; none if the channel is not ready or programmed for
    /// the other direction.
    pub fn write_memory(&mut self, dma: &mut dyn Dma, channel: u8, from: &[u8]) -> Transferred {
        self.transfer(dma, channel, Data::FromDevice(from))
    }

    fn transfer(&mut self, dma: &mut dyn Dma, channel: u8, mut data: Data<'_>) -> Transferred {
        let Some(kind) = self.kind(channel).filter(|_| self.is_ready(channel)) else { return Transferred::default() };
        let wanted = match (&data, kind) {
            (Data::ToDevice(into), TransferKind::ReadMemory | TransferKind::Verify) => into.len(),
            (Data::FromDevice(from), TransferKind::WriteMemory | TransferKind::Verify) => from.len(),
            _ => return Transferred::default(),
        };
        // Units are bytes on channels 0–3 and words, on even addresses, on channels 5–7.
        let shift = u32::from(channel >> 2);
        let page = PAGE_REGISTER.get(usize::from(channel)).map_or(0, |&register| self.state.pages[register]);
        let page = u64::from(page);
        let segment = if shift == 0 { page << 16 } else { (page & !1) << 16 };
        let Some((chip, index)) = self.chip_mut(channel) else { return Transferred::default() };
        let state = &mut chip.channels[index];
        let total = (wanted >> shift).min(usize::from(state.count) + 1);
        let mut done = 0;
        while done < total {
            let down = state.mode & MODE_DECREMENT != 0;
            let to_wrap = if down { 1 } else { 0x1_0000 - usize::from(state.address) };
            let units = to_wrap.min(total - done);
            let at = GuestPhys(segment + (u64::from(state.address) << shift));
            let bytes = done << shift..(done + units) << shift;
            match &mut data {
                _ if kind == TransferKind::Verify => {}
                Data::ToDevice(into) => dma.read(at, into.get_mut(bytes).unwrap_or_default()),
                Data::FromDevice(from) => dma.write(at, from.get(bytes).unwrap_or_default()),
            }
            let step = units as u16;
            state.address = if down { state.address.wrapping_sub(step) } else { state.address.wrapping_add(step) };
            done += units;
        }
        let terminal_count = total > usize::from(state.count);
        state.count = state.count.wrapping_sub(total as u16);
        if terminal_count {
            chip.done |= 1 << index;
            chip.soft_requests &= !(1 << index);
            if state.mode & MODE_AUTO_INIT != 0 {
                state.address = state.base_address;
                state.count = state.base_count;
            } else {
                chip.mask |= 1 << index;
            }
        }
        Transferred { bytes: total << shift, terminal_count }
    }

    fn chip(&self, channel: u8) -> Option<(&Chip, usize)> {
        Some((self.state.chips.get(usize::from(channel >> 2))?, usize::from(channel & 3)))
    }

    fn chip_mut(&mut self, channel: u8) -> Option<(&mut Chip, usize)> {
        Some((self.state.chips.get_mut(usize::from(channel >> 2))?, usize::from(channel & 3)))
    }
}

impl Default for Dma8237 {
    fn default() -> Self {
        Dma8237::new()
    }
}

impl Device for Dma8237 {
    fn name(&self) -> &'static str {
        "dma8237"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        *self = Dma8237::new();
    }

    fn port_read(&mut self, _cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        match (range, offset) {
            (0, 0..=15) => Ok(u32::from(self.state.chips[0].read(offset))),
            (1, 0..=31) => Ok(u32::from(self.state.chips[1].read(offset >> 1))),
            (2, 0..=14) => Ok(u32::from(self.state.pages[usize::from(offset) + 1])),
            _ => Err(IoError::NoSuchRegister),
        }
    }

    fn port_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        match (range, offset) {
            (0, 0..=15) => self.state.chips[0].write(offset, value as u8),
            (1, 0..=31) => self.state.chips[1].write(offset >> 1, value as u8),
            (2, 0..=14) => self.state.pages[usize::from(offset) + 1] = value as u8,
            _ => return Err(IoError::NoSuchRegister),
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        self.state = restore_state(self.name(), state)?;
        Ok(())
    }
}
