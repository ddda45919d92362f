//! The test device of the kvm-unit-tests interface (`pc-testdev`): a value port, interrupt lines by port, a page of device memory.
//!
//! * Ports E0h–E3h: four bytes that keep what is written, in any width; E8h–EBh are the same four bytes, taken byte by byte
//!   (they hide the debug console at E9h).
//! * Port E4h (32 bits): asks the machine to take the page at this guest-physical address out of its caches for a moment.
//!   Umbra's tables are always coherent, so that there is nothing to do.
//! * Ports 2000h–2017h (8 bits): drives interrupt line 0–23 low (0) or high (else).
//! * 64 KiB of device memory at FF000000h that keeps what is written.
//!
//! Ranges: 0 = E0h, 1 = E4h, 2 = E8h, 3 = 2000h. Window 0 = the memory. Plugged in by the board on request (`[test-ports]` in a
//! machine file). Leaves out: nothing of the interface; the exit port F4h is a device of its own.

use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};

/// Interrupt lines that the guest can drive.
pub const LINES: usize = 24;
/// Bytes of device memory.
pub const MEMORY_BYTES: usize = 0x1_0000;

/// Volatile state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    value: [u8; 4],
    /// What the device memory holds, up to the last byte that was ever written.
    memory: Vec<u8>,
    /// The level of each line, a bit each.
    lines: u32,
}

/// The test device.
#[derive(Debug)]
pub struct PcTestdev {
    // Configuration: none.
    // Wires.
    lines: [IrqLine; LINES],
    // Volatile state.
    state: State,
}

impl PcTestdev {
    /// A device that drives these lines.
    pub fn new(lines: [IrqLine; LINES]) -> PcTestdev {
        PcTestdev { lines, state: State::default() }
    }

    fn drive(&self) {
        for (number, line) in self.lines.iter().enumerate() {
            line.set(self.state.lines >> number & 1 != 0);
        }
    }

    /// The bytes of the value that an access covers.
    fn value_bytes(&mut self, offset: u16, width: Width) -> Result<&mut [u8], IoError> {
        let first = usize::from(offset);
        self.state.value.get_mut(first..first + width.bytes() as usize).ok_or(IoError::BadWidth)
    }
}

fn range_of(offset: u64, width: Width) -> Result<std::ops::Range<usize>, IoError> {
    let first = offset as usize;
    let end = first.saturating_add(width.bytes() as usize);
    if end > MEMORY_BYTES { Err(IoError::NoSuchRegister) } else { Ok(first..end) }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

impl Device for PcTestdev {
    fn name(&self) -> &'static str {
        "pc-testdev"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.state = State::default();
        self.drive();
    }

    fn port_read(&mut self, _cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        match range {
            0 => Ok(number(self.value_bytes(offset, width)?) as u32),
            2 if width == Width::B1 => Ok(number(self.value_bytes(offset, width)?) as u32),
            2 => Err(IoError::BadWidth),
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
        match (range, width) {
            (0, _) | (2, Width::B1) => {
                let bytes = value.to_le_bytes();
                for (to, from) in self.value_bytes(offset, width)?.iter_mut().zip(bytes) {
                    *to = from;
                }
                Ok(())
            }
            (1, Width::B4) if offset == 0 => Ok(()),
            (3, Width::B1) if usize::from(offset) < LINES => {
                let bit = 1 << offset;
                self.state.lines = if value == 0 { self.state.lines & !bit } else { self.state.lines | bit };
                self.drive();
                Ok(())
            }
            (2 | 3, _) => Err(IoError::BadWidth),
            _ => Err(IoError::NoSuchRegister),
        }
    }

    fn mmio_read(&mut self, _cx: &mut Ctx<'_>, _window: u8, offset: u64, width: Width) -> Result<u64, IoError> {
        let range = range_of(offset, width)?;
        Ok(range.rev().fold(0, |sum, at| sum << 8 | u64::from(self.state.memory.get(at).copied().unwrap_or(0))))
    }

    fn mmio_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        _window: u8,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Result<(), IoError> {
        let range = range_of(offset, width)?;
        if self.state.memory.len() < range.end {
            self.state.memory.resize(range.end, 0);
        }
        for (to, from) in self.state.memory[range].iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = restore_state(self.name(), state)?;
        if state.memory.len() > MEMORY_BYTES || state.lines >> LINES != 0 {
            let reason = "more memory or lines than the device has".to_owned();
            return Err(StateError { device: self.name(), reason });
        }
        self.state = state;
        self.drive();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Tick;
    use crate::testing::{at, check_device, read, write};
    use crate::wire::{PinChange, WireBundle};

    fn detached() -> PcTestdev {
        PcTestdev::new(std::array::from_fn(|_| IrqLine::detached()))
    }

    #[test]
    fn the_value_keeps_its_bytes_in_both_ranges() {
        let mut device = detached();
        at(Tick(0), |cx| {
            device.port_write(cx, 0, 0, Width::B4, 0x1234_5678).unwrap();
            assert_eq!(device.port_read(cx, 0, 1, Width::B2), Ok(0x3456));
            assert_eq!(device.port_read(cx, 2, 3, Width::B1), Ok(0x12));
            assert_eq!(device.port_read(cx, 2, 0, Width::B4), Err(IoError::BadWidth));
            assert_eq!(device.port_read(cx, 0, 2, Width::B4), Err(IoError::BadWidth));
            assert_eq!(device.port_write(cx, 1, 0, Width::B4, 0x10_0000), Ok(()));
        });
        write(&mut device, 0, 2, 0, 0xff);
        assert_eq!(read(&mut device, 0, 0, 0), 0xff);
    }

    #[test]
    fn lines_go_up_and_down() {
        let wires = WireBundle::new();
        let mut device = PcTestdev::new(std::array::from_fn(|line| wires.line(line as u8)));
        for (value, high) in [(1, true), (0, false), (0x80, true)] {
            write(&mut device, 0, 3, 23, value);
            assert_eq!(wires.take_changes(), [PinChange { pin: 23, high }]);
        }
        let saved = device.save();
        at(Tick(0), |cx| device.reset(cx));
        assert_eq!(wires.take_changes(), [PinChange { pin: 23, high: false }]);
        device.restore(&saved).unwrap();
        assert!(wires.level(23));
    }

    #[test]
    fn memory_keeps_what_is_written() {
        let mut device = detached();
        at(Tick(0), |cx| {
            device.mmio_write(cx, 0, 0xfff8, Width::B8, 0x0102_0304_0506_0708).unwrap();
            assert_eq!(device.mmio_read(cx, 0, 0xfffa, Width::B2), Ok(0x0506));
            assert_eq!(device.mmio_read(cx, 0, 0, Width::B8), Ok(0));
            assert_eq!(device.mmio_read(cx, 0, 0xfffc, Width::B8), Err(IoError::NoSuchRegister));
            assert_eq!(device.mmio_write(cx, 0, u64::MAX, Width::B8, 0), Err(IoError::NoSuchRegister));
        });
    }

    #[test]
    fn any_traffic() {
        check_device(detached, &[4, 4, 4, LINES as u16]);
    }
}
