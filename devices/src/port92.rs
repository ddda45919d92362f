//! System control port A (92h): fast A20 and fast reset (Intel 82371 and ICH data sheets, PORT92).
//!
//! Bit 1 opens the A20 gate, a 0-to-1 step of bit 0 resets the processor. Leaves out the bits that some machines put
//! beside them (watchdog, password lock, drive lights). The A20 wire is one source of two: the keyboard controller drives
//! the other, and the gate is open if either is high.
//!
//! Range: 0 = 92h. Wires: A20, RESET (a pulse). Called by the board.

use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};

const FAST_RESET: u8 = 1 << 0;
const FAST_A20: u8 = 1 << 1;

/// Volatile state.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    value: u8,
}

/// System control port A.
#[derive(Debug)]
pub struct Port92 {
    // Configuration: none.
    // Wires.
    a20: IrqLine,
    reset: IrqLine,
    // Volatile state.
    state: State,
}

impl Port92 {
    /// A port with its A20 output low.
    pub fn new(a20: IrqLine, reset: IrqLine) -> Port92 {
        Port92 { a20, reset, state: State::default() }
    }

    fn drive(&self) {
        self.a20.set(self.state.value & FAST_A20 != 0);
    }
}

impl Device for Port92 {
    fn name(&self) -> &'static str {
        "port92"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.state = State::default();
        self.drive();
    }

    fn port_read(&mut self, _cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        match (range, offset, width) {
            (0, 0, Width::B1) => Ok(u32::from(self.state.value)),
            (0, 0, _) => Err(IoError::BadWidth),
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
        match (range, offset, width) {
            (0, 0, Width::B1) => {}
            (0, 0, _) => return Err(IoError::BadWidth),
            _ => return Err(IoError::NoSuchRegister),
        }
        let value = value as u8 & (FAST_RESET | FAST_A20);
        let resets = value & !self.state.value & FAST_RESET != 0;
        self.state.value = value;
        self.drive();
        if resets {
            self.reset.set(true);
            self.reset.set(false);
        }
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        self.state = restore_state(self.name(), state)?;
        self.drive();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_device, read, write};
    use crate::wire::{PinChange, WireBundle};

    #[test]
    fn gate_and_reset() {
        let wires = WireBundle::new();
        let mut port = Port92::new(wires.line(0), wires.line(1));
        write(&mut port, 0, 0, 0, 0x02);
        assert_eq!(read(&mut port, 0, 0, 0), 0x02);
        write(&mut port, 0, 0, 0, 0x03);
        write(&mut port, 0, 0, 0, 0xfd); // Still 1: no second reset.
        let change = |pin, high| PinChange { pin, high };
        assert_eq!(wires.take_changes(), [change(0, true), change(1, true), change(1, false), change(0, false)]);
    }

    #[test]
    fn any_traffic() {
        check_device(|| Port92::new(IrqLine::detached(), IrqLine::detached()), &[1]);
    }
}
