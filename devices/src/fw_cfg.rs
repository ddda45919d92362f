//! The firmware configuration device (QEMU's `fw_cfg` specification): named blobs that the board hands to firmware and
//! systems, with the file directory and the DMA interface.
//!
//! Port range 0 is 510h–511h (selector, data), range 1 514h–51Bh (DMA address, big-endian). Items are added by the board
//! before the machine runs. Writing through the data port does nothing, as in every current version; through DMA it
//! changes the files that were added as writable.

use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::lane::Lane;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;
use umbra_mmu::addr::GuestPhys;

const SELECTOR_AND_DATA: u8 = 0;
const DMA_ADDRESS: u8 = 1;

/// The item that says QEMU.
const KEY_SIGNATURE: u16 = 0x00;
/// The item that tells the interfaces.
const KEY_ID: u16 = 0x01;
/// The item that is the file directory.
const KEY_DIRECTORY: u16 = 0x19;
const KEY_FIRST_FILE: u16 = 0x20;
const KEY_LAST_FILE: u16 = 0x3FFF;
/// The old write channel of a key; reads are the same.
const KEY_WRITE_CHANNEL: u16 = 0x4000;

/// Traditional interface and DMA.
const ID: u32 = 0b11;
/// What the DMA register reads as.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";
/// Bytes for a file's name in the directory, with its terminating 0.
const NAME: usize = 56;

const CONTROL_ERROR: u32 = 1 << 0;
const CONTROL_READ: u32 = 1 << 1;
const CONTROL_SKIP: u32 = 1 << 2;
const CONTROL_SELECT: u32 = 1 << 3;
const CONTROL_WRITE: u32 = 1 << 4;

/// Whether the guest may change an item.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may read it.
    ReadOnly,
    /// It may write it through DMA, within its size.
    Writable,
}

/// Why a file was not added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    /// The directory has room for 55 bytes and no 0 in a name.
    #[error("fw_cfg: the name {0:?} is empty, longer than 55 bytes, or contains a NUL")]
    Name(String),
    /// There is a file of this name.
    #[error("fw_cfg: there is a file {0:?} already")]
    Duplicate(String),
    /// No key is left.
    #[error("fw_cfg: too many files")]
    Full,
    /// The size does not fit 32 bits.
    #[error("fw_cfg: {0:?} is 4 GiB or more")]
    Size(String),
}

#[derive(Clone, Debug)]
struct Item {
    bytes: Vec<u8>,
    access: Access,
}

/// The volatile state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    key: u16,
    offset: u32,
    dma_address: u64,
    /// The contents of the writable items that were written.
    written: BTreeMap<u16, Vec<u8>>,
}

/// The firmware configuration device.
#[derive(Debug)]
pub struct FwCfg {
    // Configuration.
    items: BTreeMap<u16, Item>,
    files: Vec<(String, u16)>,
    // Volatile state.
    state: State,
}

impl Default for FwCfg {
    fn default() -> FwCfg {
        FwCfg::new()
    }
}

impl FwCfg {
    /// A device with its signature, its interfaces and an empty directory.
    pub fn new() -> FwCfg {
        let mut device = FwCfg { items: BTreeMap::new(), files: Vec::new(), state: State::default() };
        device.add_item(KEY_SIGNATURE, b"QEMU".to_vec());
        device.add_item(KEY_ID, ID.to_le_bytes().to_vec());
        device.write_directory();
        device
    }

    /// Adds (or replaces) the item of a key, e.g. 05h for the number of processors (numbers are little-endian).
    pub fn add_item(&mut self, key: u16, bytes: Vec<u8>) {
        self.items.insert(key & !KEY_WRITE_CHANNEL, Item { bytes, access: Access::ReadOnly });
    }

    /// Adds a read-only file and gives its key.
    pub fn add_file(&mut self, name: &str, bytes: Vec<u8>) -> Result<u16, FileError> {
        self.add_file_with(name, bytes, Access::ReadOnly)
    }

    /// Adds a file and gives its key.
    pub fn add_file_with(&mut self, name: &str, bytes: Vec<u8>, access: Access) -> Result<u16, FileError> {
        if name.is_empty() || name.len() >= NAME || name.contains('\0') {
            return Err(FileError::Name(name.into()));
        }
        if self.files.iter().any(|(other, _)| other == name) {
            return Err(FileError::Duplicate(name.into()));
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(FileError::Size(name.into()));
        }
        let key = u16::try_from(self.files.len()).ok().and_then(|index| KEY_FIRST_FILE.checked_add(index));
        let key = key.filter(|&key| key <= KEY_LAST_FILE).ok_or(FileError::Full)?;
        self.items.insert(key, Item { bytes, access });
        self.files.push((name.into(), key));
        self.write_directory();
        Ok(key)
    }

    /// The contents of a file as they are now, e.g. what the guest wrote into it.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        let (_, key) = self.files.iter().find(|(other, _)| other == name)?;
        self.contents(*key)
    }

    fn write_directory(&mut self) {
        let mut directory = (self.files.len() as u32).to_be_bytes().to_vec();
        for (name, key) in &self.files {
            let size = self.items.get(key).map_or(0, |item| item.bytes.len() as u32);
            directory.extend(size.to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            let mut padded = [0; NAME];
            padded.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
            directory.extend(padded);
        }
        self.add_item(KEY_DIRECTORY, directory);
    }

    fn contents(&self, key: u16) -> Option<&[u8]> {
        let written = self.state.written.get(&key).map(Vec::as_slice);
        written.or_else(|| self.items.get(&key).map(|item| item.bytes.as_slice()))
    }

    /// What is left of the selected item.
    fn rest(&self) -> &[u8] {
        let contents = self.contents(self.state.key).unwrap_or(&[]);
        contents.get(self.state.offset as usize..).unwrap_or(&[])
    }

    fn select(&mut self, key: u16) {
        self.state.key = key & !KEY_WRITE_CHANNEL;
        self.state.offset = 0;
    }

    fn read_byte(&mut self) -> u8 {
        let byte = self.rest().first().copied();
        if byte.is_some() {
            self.state.offset += 1;
        }
        byte.unwrap_or(0)
    }

    /// Runs the transfer whose description lies at the DMA address (16 bytes, big-endian: control, length, address).
    fn transfer(&mut self, cx: &mut Ctx<'_>) {
        let at = GuestPhys(std::mem::take(&mut self.state.dma_address));
        let mut description = [0; 16];
        cx.dma.read(at, &mut description);
        let [c0, c1, c2, c3, l0, l1, l2, l3, address @ ..] = description;
        let control = u32::from_be_bytes([c0, c1, c2, c3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let address = GuestPhys(u64::from_be_bytes(address));
        if control & CONTROL_SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let done = if control & CONTROL_READ != 0 {
            self.transfer_out(cx, address, length);
            true
        } else if control & CONTROL_WRITE != 0 {
            self.transfer_in(cx, address, length)
        } else {
            if control & CONTROL_SKIP != 0 {
                self.skip(length);
            }
            true
        };
        let result = if done { 0 } else { CONTROL_ERROR };
        cx.dma.write(at, &result.to_be_bytes());
    }

    fn skip(&mut self, length: u32) {
        self.state.offset += length.min(self.rest().len() as u32);
    }

    /// Copies to the guest; beyond the item's end, zeros.
    fn transfer_out(&mut self, cx: &mut Ctx<'_>, address: GuestPhys, length: u32) {
        let rest = self.rest();
        let copied = rest.len().min(length as usize);
        cx.dma.write(address, rest.get(..copied).unwrap_or(&[]));
        let zeros = [0; 4096];
        let mut filled = copied as u64;
        while filled < u64::from(length) {
            let chunk = (u64::from(length) - filled).min(zeros.len() as u64);
            cx.dma.write(address.wrapping_add(filled), zeros.get(..chunk as usize).unwrap_or(&zeros));
            filled += chunk;
        }
        self.skip(length);
    }

    /// Copies from the guest; all or nothing, within the item.
    fn transfer_in(&mut self, cx: &mut Ctx<'_>, address: GuestPhys, length: u32) -> bool {
        let key = self.state.key;
        let Some(item) = self.items.get(&key).filter(|item| item.access == Access::Writable) else { return false };
        let contents = self.state.written.entry(key).or_insert_with(|| item.bytes.clone());
        let start = self.state.offset as usize;
        let Some(into) = contents.get_mut(start..start.saturating_add(length as usize)) else { return false };
        cx.dma.read(address, into);
        self.state.offset += length;
        true
    }
}

impl Device for FwCfg {
    fn name(&self) -> &'static str {
        "fw_cfg"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.state = State::default();
    }

    fn port_read(&mut self, _cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        match (range, offset, width) {
            (SELECTOR_AND_DATA, 0, Width::B2) => Ok(0),
            (SELECTOR_AND_DATA, 1, Width::B1) => Ok(self.read_byte().into()),
            (SELECTOR_AND_DATA, 0..2, _) => Err(IoError::BadWidth),
            (DMA_ADDRESS, 0..8, _) => {
                let lane = Lane::of(offset.into(), width)?;
                let [a, b, c, d, e, f, g, h] = DMA_SIGNATURE;
                let half = if lane.register == 0 { [a, b, c, d] } else { [e, f, g, h] };
                Ok(lane.extract(u32::from_le_bytes(half)))
            }
            _ => Err(IoError::NoSuchRegister),
        }
    }

    fn port_write(
        &mut self,
        cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        match (range, offset, width) {
            (SELECTOR_AND_DATA, 0, Width::B2) => self.select(value as u16),
            (SELECTOR_AND_DATA, 1, Width::B1) => {}
            (SELECTOR_AND_DATA, 0..2, _) => return Err(IoError::BadWidth),
            (DMA_ADDRESS, 0, Width::B4) => self.state.dma_address = u64::from(value.swap_bytes()) << 32,
            (DMA_ADDRESS, 4, Width::B4) => {
                self.state.dma_address |= u64::from(value.swap_bytes());
                self.transfer(cx);
            }
            (DMA_ADDRESS, 0..8, _) => return Err(IoError::BadWidth),
            _ => return Err(IoError::NoSuchRegister),
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = restore_state(self.name(), state)?;
        let fits = |(key, bytes): (&u16, &Vec<u8>)| {
            let item = self.items.get(key);
            item.is_some_and(|item| item.access == Access::Writable && item.bytes.len() == bytes.len())
        };
        if !state.written.iter().all(fits) {
            return Err(StateError { device: self.name(), reason: "it has other files".into() });
        }
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Tick;
    use crate::testing::{Memory, check_device};
    use umbra_mmu::dma::Dma;

    fn device() -> FwCfg {
        let mut device = FwCfg::new();
        device.add_item(0x05, 2u16.to_le_bytes().to_vec());
        assert_eq!(device.add_file("etc/first", b"hello".to_vec()), Ok(0x20));
        assert_eq!(device.add_file_with("etc/second", vec![0; 8], Access::Writable), Ok(0x21));
        device
    }

    fn port(device: &mut FwCfg, memory: &mut Memory, range: u8, offset: u16, width: Width, value: u32) {
        device.port_write(&mut Ctx { now: Tick(0), dma: memory }, range, offset, width, value).unwrap();
    }

    fn bytes(device: &mut FwCfg, key: u16, count: usize) -> Vec<u8> {
        let mut memory = Memory(Vec::new());
        port(device, &mut memory, 0, 0, Width::B2, key.into());
        let mut cx = Ctx { now: Tick(0), dma: &mut memory };
        (0..count).map(|_| device.port_read(&mut cx, 0, 1, Width::B1).unwrap() as u8).collect()
    }

    /// Runs a DMA with the description at 0 and the data at 100h; gives the control word afterwards and the data.
    fn dma(device: &mut FwCfg, control: u32, data: &[u8]) -> (u32, Vec<u8>) {
        let mut memory = Memory(vec![0; 0x100]);
        memory.write(GuestPhys(0x10), &control.to_be_bytes());
        memory.write(GuestPhys(0x14), &(data.len() as u32).to_be_bytes());
        memory.write(GuestPhys(0x18), &0x100u64.to_be_bytes());
        memory.0.extend(data);
        port(device, &mut memory, 1, 0, Width::B4, 0);
        port(device, &mut memory, 1, 4, Width::B4, 0x10u32.swap_bytes());
        let mut result = [0; 4];
        memory.read(GuestPhys(0x10), &mut result);
        (u32::from_be_bytes(result), memory.0.split_off(0x100))
    }

    #[test]
    fn traditional_reads() {
        let mut device = device();
        // (key, bytes): beyond the end and for absent keys, zeros.
        #[rustfmt::skip]
        let table: [(u16, &[u8]); 6] = [
            (0x00, b"QEMU"), (0x01, &[3, 0, 0, 0, 0]), (0x05, &[2, 0, 0]), (0x20, b"hello\0\0"), (0x4020, b"hello"),
            (0x1234, &[0, 0]),
        ];
        for (key, want) in table {
            assert_eq!(bytes(&mut device, key, want.len()), want, "{key:#x}");
        }
    }

    #[test]
    fn the_directory() {
        let mut device = device();
        let directory = bytes(&mut device, KEY_DIRECTORY, 4 + 2 * 64);
        assert_eq!(directory[..4], [0, 0, 0, 2]);
        assert_eq!(directory[4..12], [0, 0, 0, 5, 0, 0x20, 0, 0]);
        assert_eq!(&directory[12..22], b"etc/first\0");
        assert_eq!(directory[68..76], [0, 0, 0, 8, 0, 0x21, 0, 0]);
        let mut cx = Ctx { now: Tick(0), dma: &mut Memory(Vec::new()) };
        assert_eq!(device.port_read(&mut cx, 1, 0, Width::B4), Ok(u32::from_le_bytes(*b"QEMU")));
        assert_eq!(device.port_read(&mut cx, 1, 4, Width::B4), Ok(u32::from_le_bytes(*b" CFG")));
        for name in ["", "etc/first", &"x".repeat(56), "a\0b"] {
            assert!(device.add_file(name, Vec::new()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn dma_transfers() {
        let mut device = device();
        let select = |key: u32| key << 16 | CONTROL_SELECT;
        assert_eq!(dma(&mut device, select(0x20) | CONTROL_READ, b"........"), (0, b"hello\0\0\0".to_vec()));
        assert_eq!(dma(&mut device, select(0x20) | CONTROL_SKIP, b".."), (0, b"..".to_vec()));
        assert_eq!(dma(&mut device, CONTROL_READ, b".."), (0, b"ll".to_vec()), "goes on where it was");
        assert_eq!(dma(&mut device, select(0x777) | CONTROL_READ, b".."), (0, vec![0, 0]));
        assert_eq!(dma(&mut device, select(0x20) | CONTROL_WRITE, b"HE").0, CONTROL_ERROR, "read-only");
        assert_eq!(dma(&mut device, select(0x21) | CONTROL_WRITE, b"123456789").0, CONTROL_ERROR, "too long");
        assert_eq!(dma(&mut device, select(0x21) | CONTROL_WRITE, b"1234").0, 0);
        assert_eq!(dma(&mut device, CONTROL_WRITE, b"56").0, 0);
        assert_eq!(device.file("etc/second"), Some(&b"123456\0\0"[..]));
        let saved = device.save();
        let mut twin = super::tests::device();
        twin.restore(&saved).unwrap();
        assert_eq!((twin.file("etc/second"), twin.save()), (device.file("etc/second"), saved.clone()));
        assert!(FwCfg::new().restore(&saved).is_err(), "other files");
        let mut cx = Ctx { now: Tick(0), dma: &mut Memory(Vec::new()) };
        device.reset(&mut cx);
        assert_eq!(device.file("etc/second"), Some(&[0; 8][..]));
    }

    #[test]
    fn any_sequence() {
        check_device(device, &[2, 8]);
    }
}
