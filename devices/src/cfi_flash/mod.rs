//! A parallel NOR flash memory, eight bits wide, in blocks of one size: the Common Flash Interface (JEDEC JESD68.01) and the
//! command set of Intel's StrataFlash (J3 data sheet 290667, "Device Commands" and "Status Register").
//!
//! Window 0 is the whole memory. While the memory is in read-array mode a board need not ask for reads: it maps the contents as it
//! maps a ROM ([`CfiFlash::take_view`], [`CfiFlash::take_changed`]), and only writes come here. A wide access is one of each of its
//! bytes, lowest first. Programming clears bits, erasing sets a block to FFh; either is written to the [`Storage`] before the
//! guest sees it done, and fails if the host cannot write.
//!
//! NOTE(why not ready after Clear Status): OVMF knows flash memory by a status of 00h there, as QEMU's has it; the data sheet
//! keeps SR.7 set. The next erase or program sets it again.
//!
//! Leaves out: time (an operation is done as its last cycle ends), suspend, block locks, the protection register, the STS pin.

mod query;
#[cfg(test)]
mod tests;

use crate::block::{Notices, Storage};
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of the write buffer.
const BUFFER: usize = 32;
/// What an erased byte reads as.
const ERASED: u8 = 0xFF;

/// Commands, as their first bus cycle writes them.
mod command {
    pub const PROGRAM: u8 = 0x40;
    pub const PROGRAM_ALTERNATE: u8 = 0x10;
    pub const ERASE: u8 = 0x20;
    pub const CLEAR_STATUS: u8 = 0x50;
    pub const LOCK_SETUP: u8 = 0x60;
    pub const READ_STATUS: u8 = 0x70;
    pub const READ_IDENTIFIER: u8 = 0x90;
    pub const READ_QUERY: u8 = 0x98;
    pub const SUSPEND: u8 = 0xB0;
    /// The second or last cycle of several commands; alone, it resumes what was suspended.
    pub const CONFIRM: u8 = 0xD0;
    pub const WRITE_BUFFER: u8 = 0xE8;
    pub const READ_ARRAY: u8 = 0xFF;
    /// The second cycle that sets a block's lock bit.
    pub const LOCK: u8 = 0x01;
}

/// SR.7: ready for a command. In the extended status register: a write buffer is free.
const READY: u8 = 1 << 7;
/// SR.5: an erase, or clearing of lock bits, failed.
const ERASE_FAILED: u8 = 1 << 5;
/// SR.4: a program, or setting of a lock bit, failed.
const PROGRAM_FAILED: u8 = 1 << 4;
/// Both: cycles that are no command.
const BAD_SEQUENCE: u8 = ERASE_FAILED | PROGRAM_FAILED;

/// What reads give.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Mode {
    Array,
    Status,
    Identifier,
    Query,
}

/// What the next write is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Next {
    Command,
    /// The byte to be programmed.
    Byte,
    EraseConfirm,
    LockCode,
    /// How many bytes follow, less one.
    BufferCount,
    /// One of `left` bytes for the buffer.
    BufferByte {
        left: u8,
    },
    BufferConfirm,
}

/// The volatile state.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    mode: Mode,
    next: Next,
    status: u8,
    /// Addresses and bytes in the write buffer.
    buffer: Vec<(u32, u8)>,
    /// The blocks that were written since power-on, by number.
    written: BTreeMap<u32, Vec<u8>>,
}

/// How a board is to map the memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// Reads reach the contents, writes the device.
    Contents,
    /// All accesses reach the device.
    Device,
}

/// Contents that are no whole number of blocks.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a flash memory of {bytes} bytes is not made of blocks of {block}")]
pub struct NotBlocks {
    /// Bytes of the contents.
    pub bytes: usize,
    /// Bytes of a block.
    pub block: usize,
}

/// A flash memory.
pub struct CfiFlash {
    // Configuration.
    block: usize,
    query: query::Table,
    /// Where the contents are kept, its name for the user, and how the user is told.
    storage: Option<(String, Box<dyn Storage>)>,
    notices: Notices,
    /// What the blocks of `state.written` held at power-on.
    original: BTreeMap<u32, Vec<u8>>,
    // Volatile state; `written` is filled in when it is saved.
    state: State,
    contents: Vec<u8>,
    // The board's view of it.
    shown: View,
    changed: BTreeSet<u32>,
    told: bool,
}

impl std::fmt::Debug for CfiFlash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CfiFlash").field("state", &self.state).finish_non_exhaustive()
    }
}

const fn power_on() -> State {
    State { mode: Mode::Array, next: Next::Command, status: READY, buffer: Vec::new(), written: BTreeMap::new() }
}

impl CfiFlash {
    /// A memory with these contents in blocks of `block` bytes (a power of two from 256 on), which forgets what is written.
    pub fn new(contents: Vec<u8>, block: usize, notices: Notices) -> Result<CfiFlash, NotBlocks> {
        let is_whole = block.is_power_of_two() && block >= 256 && contents.len().is_multiple_of(block);
        if !is_whole || contents.is_empty() || u32::try_from(contents.len()).is_err() {
            return Err(NotBlocks { bytes: contents.len(), block });
        }
        Ok(CfiFlash {
            block,
            query: query::table(contents.len(), block, BUFFER),
            storage: None,
            notices,
            original: BTreeMap::new(),
            state: power_on(),
            contents,
            shown: View::Contents,
            changed: BTreeSet::new(),
            told: false,
        })
    }
    /// Keeps what is written in a storage, which holds the contents already; `name` is for messages.
    #[must_use]
    pub fn kept_in(mut self, name: &str, storage: Box<dyn Storage>) -> CfiFlash {
        self.storage = Some((name.to_owned(), storage));
        self
    }
    /// The contents.
    pub fn contents(&self) -> &[u8] {
        &self.contents
    }
    /// How the board is to map the memory, if that changed since the last call (at first: [`View::Contents`]).
    pub fn take_view(&mut self) -> Option<View> {
        let is_array = self.state.mode == Mode::Array && self.state.next == Next::Command;
        let view = if is_array { View::Contents } else { View::Device };
        let is_new = view != self.shown || view == View::Contents && !self.changed.is_empty();
        self.shown = view;
        is_new.then_some(view)
    }
    /// Gives each block that changed since the last call: its offset and its bytes.
    pub fn take_changed(&mut self, mut give: impl FnMut(u64, &[u8])) {
        for number in std::mem::take(&mut self.changed) {
            let start = number as usize * self.block;
            if let Some(bytes) = self.contents.get(start..start + self.block) {
                give(start as u64, bytes);
            }
        }
    }

    /// Makes `bytes` the contents at an offset within one block; whether the storage took them.
    fn put(&mut self, at: usize, bytes: &[u8]) -> bool {
        if let Some((name, storage)) = &mut self.storage
            && let Err(problem) = storage.write(at as u64, bytes)
        {
            if !std::mem::replace(&mut self.told, true) {
                (self.notices)(&format!("{name}: {problem}; what the guest writes to this flash memory fails"));
            }
            return false;
        }
        let (number, start) = ((at / self.block) as u32, at / self.block * self.block);
        if let Some(old) = self.contents.get(start..start + self.block) {
            self.original.entry(number).or_insert_with(|| old.to_vec());
        }
        if let Some(into) = self.contents.get_mut(at..at + bytes.len()) {
            into.copy_from_slice(bytes);
        }
        self.changed.insert(number);
        true
    }
    /// Programs bytes from an offset on: bits can only be cleared.
    fn program(&mut self, at: usize, bytes: &[u8]) {
        let old = self.contents.get(at..at + bytes.len()).unwrap_or(&[]);
        let new: Vec<u8> = old.iter().zip(bytes).map(|(old, new)| old & new).collect();
        self.state.status |= READY | if self.put(at, &new) { 0 } else { PROGRAM_FAILED };
    }
    fn erase(&mut self, at: usize) {
        let erased = vec![ERASED; self.block];
        self.state.status |= READY | if self.put(at / self.block * self.block, &erased) { 0 } else { ERASE_FAILED };
    }
    /// Programs the write buffer, whose bytes have to lie in one aligned range of its size.
    fn program_buffer(&mut self) {
        let mut bytes = std::mem::take(&mut self.state.buffer);
        bytes.sort_by_key(|&(at, _)| at);
        let row = |at: u32| at as usize / BUFFER;
        let rows = (bytes.first().map(|&(at, _)| row(at)), bytes.last().map(|&(at, _)| row(at)));
        if rows.0 != rows.1 {
            self.state.status |= READY | BAD_SEQUENCE;
            return;
        }
        bytes.iter().for_each(|&(at, byte)| self.program(at as usize, &[byte]));
    }

    fn write_byte(&mut self, at: usize, value: u8) {
        let state = &mut self.state;
        match std::mem::replace(&mut state.next, Next::Command) {
            Next::Command => self.command(value),
            Next::Byte => self.program(at, &[value]),
            Next::EraseConfirm if value == command::CONFIRM => self.erase(at),
            Next::LockCode if value == command::CONFIRM => state.status |= READY,
            // There are no lock bits to set.
            Next::LockCode if value == command::LOCK => state.status |= READY | PROGRAM_FAILED,
            Next::BufferCount if usize::from(value) < BUFFER => {
                state.buffer.clear();
                state.next = Next::BufferByte { left: value + 1 };
            }
            Next::BufferByte { left } => {
                state.buffer.push((at as u32, value));
                state.next = if left > 1 { Next::BufferByte { left: left - 1 } } else { Next::BufferConfirm };
            }
            Next::BufferConfirm if value == command::CONFIRM => self.program_buffer(),
            Next::EraseConfirm | Next::LockCode | Next::BufferCount | Next::BufferConfirm => {
                state.status |= READY | BAD_SEQUENCE;
            }
        }
    }
    fn command(&mut self, code: u8) {
        let (mode, next) = match code {
            command::PROGRAM | command::PROGRAM_ALTERNATE => (Mode::Status, Next::Byte),
            command::ERASE => (Mode::Status, Next::EraseConfirm),
            command::LOCK_SETUP => (Mode::Status, Next::LockCode),
            command::WRITE_BUFFER => (Mode::Status, Next::BufferCount),
            command::READ_STATUS => (Mode::Status, Next::Command),
            command::READ_IDENTIFIER => (Mode::Identifier, Next::Command),
            command::READ_QUERY => (Mode::Query, Next::Command),
            command::READ_ARRAY => (Mode::Array, Next::Command),
            command::CLEAR_STATUS => {
                self.state.status = 0;
                (Mode::Array, Next::Command)
            }
            // Nothing is ever under way that could be suspended.
            command::SUSPEND | command::CONFIRM => return,
            // Codes that the data sheet reserves.
            _ => (Mode::Array, Next::Command),
        };
        (self.state.mode, self.state.next) = (mode, next);
    }
    fn read_byte(&self, at: usize) -> u8 {
        match (&self.state.next, self.state.mode) {
            // The extended status register: the buffer is free.
            (Next::BufferCount, _) => READY,
            (_, Mode::Status) => self.state.status,
            (_, Mode::Array) => self.contents.get(at).copied().unwrap_or(ERASED),
            (_, Mode::Query) => self.query.get(at % 0x100).copied().unwrap_or(0),
            (_, Mode::Identifier) => query::identifier(at % self.block),
        }
    }
}

impl Device for CfiFlash {
    fn name(&self) -> &'static str {
        "cfi-flash"
    }

    /// RP#: an unfinished command is forgotten; the contents stay.
    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.state = power_on();
    }

    fn mmio_read(&mut self, _cx: &mut Ctx<'_>, _window: u8, offset: u64, width: Width) -> Result<u64, IoError> {
        let at = usize::try_from(offset).ok().filter(|&at| at < self.contents.len()).ok_or(IoError::NoSuchRegister)?;
        let bytes = (0..width.bytes() as usize).rev().map(|n| self.read_byte(at + n));
        Ok(bytes.fold(0, |value, byte| value << 8 | u64::from(byte)))
    }

    fn mmio_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        _window: u8,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), IoError> {
        let at = usize::try_from(offset).ok().filter(|&at| at < self.contents.len()).ok_or(IoError::NoSuchRegister)?;
        let bytes = value.to_le_bytes().into_iter().take(width.bytes() as usize);
        for (at, byte) in (at..self.contents.len()).zip(bytes) {
            self.write_byte(at, byte);
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        let block = |&number: &u32| {
            let start = number as usize * self.block;
            (number, self.contents.get(start..start + self.block).unwrap_or(&[]).to_vec())
        };
        save_state(&State { written: self.original.keys().map(block).collect(), ..self.state.clone() })
    }

    /// The storage gets the contents that are restored.
    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let mut state: State = restore_state(self.name(), state)?;
        let blocks = self.contents.len() / self.block;
        let fits = |(&number, bytes): (&u32, &Vec<u8>)| (number as usize) < blocks && bytes.len() == self.block;
        let in_memory = |&(at, _): &(u32, u8)| (at as usize) < self.contents.len();
        if !state.written.iter().all(fits) || !state.buffer.iter().all(in_memory) || state.buffer.len() > BUFFER {
            return Err(StateError { device: self.name(), reason: "it is of another memory".into() });
        }
        if matches!(state.next, Next::BufferByte { left } if usize::from(left) + state.buffer.len() > BUFFER) {
            return Err(StateError { device: self.name(), reason: "its write buffer overflows".into() });
        }
        let mut blocks = self.original.clone();
        blocks.append(&mut state.written);
        for (number, bytes) in blocks {
            if !self.put(number as usize * self.block, &bytes) {
                return Err(StateError { device: self.name(), reason: "the host cannot write its contents".into() });
            }
        }
        self.state = state;
        Ok(())
    }
}
