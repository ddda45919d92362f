//! Ports that firmware and kernels talk to a developer through: the POST code at 80h, the Bochs-style console at E9h, and
//! a port of the user's choice on which a test ROM reports its progress.
//!
//! Port 80h latches the last POST code, counts the writes (delay loops write here too) and keeps the last few distinct
//! codes. Port E9h takes characters; a read gives E9h, which is how a guest knows that it is there.
//!
//! The report port latches its last value too; a test ROM's verdict is what it holds at the end.
//!
//! Ranges: 0 = 80h, 1 = E9h (and a second port of the user's choice), 2 = the report port. Called by the board, which takes
//! the characters.

use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How many POST codes are remembered.
const HISTORY: usize = 32;
/// What a read of the console port gives.
const CONSOLE_PRESENT: u8 = 0xe9;

/// Volatile state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    post_code: u8,
    post_writes: u64,
    history: VecDeque<u8>,
    console: Vec<u8>,
    report: Option<u8>,
}

/// The POST code latch and the debug console.
#[derive(Debug, Default)]
pub struct DebugPorts {
    // Configuration: none.
    // Wires: none.
    // Volatile state.
    state: State,
}

impl DebugPorts {
    /// Both ports, nothing written yet.
    pub fn new() -> DebugPorts {
        DebugPorts::default()
    }

    /// The last POST code.
    pub fn post_code(&self) -> u8 {
        self.state.post_code
    }

    /// How many times port 80h was written.
    pub fn post_writes(&self) -> u64 {
        self.state.post_writes
    }

    /// The last POST codes, oldest first, without repetitions in a row.
    pub fn post_history(&self) -> impl Iterator<Item = u8> {
        self.state.history.iter().copied()
    }

    /// The last value of the report port; `None` if it was never written.
    pub fn report(&self) -> Option<u8> {
        self.state.report
    }

    /// Takes what was written to the console since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.state.console)
    }

    /// Whether [`Self::take_output`] would return anything.
    pub fn has_output(&self) -> bool {
        !self.state.console.is_empty()
    }
}

impl Device for DebugPorts {
    fn name(&self) -> &'static str {
        "debug-ports"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        let console = std::mem::take(&mut self.state.console);
        self.state = State { console, ..State::default() };
    }

    fn port_read(&mut self, _cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        match (range, offset, width) {
            (0, 0, Width::B1) => Ok(u32::from(self.state.post_code)),
            (1, 0, Width::B1) => Ok(u32::from(CONSOLE_PRESENT)),
            (2, 0, Width::B1) => Ok(u32::from(self.state.report.unwrap_or(0))),
            (0..=2, 0, _) => Err(IoError::BadWidth),
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
        let byte = value as u8;
        let state = &mut self.state;
        match (range, offset, width) {
            (0, 0, Width::B1) => {
                state.post_code = byte;
                state.post_writes = state.post_writes.wrapping_add(1);
                if state.history.back() != Some(&byte) {
                    state.history.push_back(byte);
                }
                while state.history.len() > HISTORY {
                    state.history.pop_front();
                }
            }
            (1, 0, Width::B1) => state.console.push(byte),
            (2, 0, Width::B1) => state.report = Some(byte),
            (0..=2, 0, _) => return Err(IoError::BadWidth),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_device, read, write};

    #[test]
    fn post_codes_and_console() {
        let mut ports = DebugPorts::new();
        for code in [1, 2, 2, 2, 0x55] {
            write(&mut ports, 0, 0, 0, code);
        }
        assert_eq!((ports.post_code(), ports.post_writes(), read(&mut ports, 0, 0, 0)), (0x55, 5, 0x55));
        assert_eq!(ports.post_history().collect::<Vec<_>>(), [1, 2, 0x55]);
        for &byte in b"hello" {
            write(&mut ports, 0, 1, 0, byte);
        }
        assert_eq!(read(&mut ports, 0, 1, 0), 0xe9);
        assert_eq!(ports.take_output(), b"hello");
        assert!(!ports.has_output());
        assert_eq!(ports.report(), None);
        write(&mut ports, 0, 2, 0, 0xff);
        assert_eq!((ports.report(), ports.post_code(), read(&mut ports, 0, 2, 0)), (Some(0xff), 0x55, 0xff));
    }

    #[test]
    fn any_traffic() {
        check_device(DebugPorts::new, &[1, 1, 1]);
    }
}
