//! The exit device (port F4h): a test guest ends the run and gives a status.
//!
//! A write of any width records the exit status `(value << 1) | 1`, low 8 bits, so that a guest's status is always odd and
//! differs from the emulator's own. Range: 0 = F4h–F7h (one register at offset 0). Called by the board, which takes the
//! status after each access.

use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use serde::{Deserialize, Serialize};

/// Volatile state.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    status: Option<u8>,
}

/// The exit device.
#[derive(Debug, Default)]
pub struct ExitPort {
    // Configuration: none.
    // Wires: none.
    // Volatile state.
    state: State,
}

impl ExitPort {
    /// A port to which nothing was written.
    pub fn new() -> ExitPort {
        ExitPort::default()
    }

    /// Takes the exit status, if the guest has given one.
    pub fn take_exit(&mut self) -> Option<u8> {
        self.state.status.take()
    }
}

impl Device for ExitPort {
    fn name(&self) -> &'static str {
        "exit-port"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.state = State::default();
    }

    fn port_read(&mut self, _cx: &mut Ctx<'_>, range: u8, offset: u16, _width: Width) -> Result<u32, IoError> {
        if (range, offset) == (0, 0) { Ok(0) } else { Err(IoError::NoSuchRegister) }
    }

    fn port_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        _width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        if (range, offset) != (0, 0) {
            return Err(IoError::NoSuchRegister);
        }
        self.state.status = Some((value << 1) as u8 | 1);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_device, write};

    #[test]
    fn statuses_are_odd() {
        let mut port = ExitPort::new();
        assert_eq!(port.take_exit(), None);
        for (value, status) in [(0, 1), (1, 3), (0x10, 0x21), (0xff, 0xff)] {
            write(&mut port, 0, 0, 0, value);
            assert_eq!(port.take_exit(), Some(status));
            assert_eq!(port.take_exit(), None);
        }
    }

    #[test]
    fn any_traffic() {
        check_device(ExitPort::new, &[4]);
    }
}
