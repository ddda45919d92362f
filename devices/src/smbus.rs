//! The SMBus host controller of the 82371AB (PIIX4), data sheet chapter 7.4, on a bus without devices.
//!
//! Port range 0 is its 16 registers, byte accesses only. Every transaction ends at once with a device error, as when no
//! device acknowledges its address; software that probes for DIMMs or sensors finds none. Left out: the slave interface
//! (its registers are kept, nobody addresses it).

use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};

const HOST_STATUS: u16 = 0x0;
const HOST_CONTROL: u16 = 0x2;
const BLOCK_DATA: u16 = 0x7;

/// Host status: the transaction ended, a device error, a bus error, killed. All cleared by writing 1.
const STATUS_CLEARABLE: u8 = 0b1_1110;
/// Host status: no device acknowledged.
const DEVICE_ERROR: u8 = 1 << 2;
/// Host control: interrupt at the end.
const INTERRUPT_ENABLE: u8 = 1 << 0;
/// Host control, reads as 0: start.
const START: u8 = 1 << 6;

/// The writable bits of each register.
#[rustfmt::skip]
const WRITABLE: [u8; 16] = [
    0, 0, 0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0, // status, slave status, control, command, address, data 0, data 1, block
    0x0F, 0, 0xFF, 0xFF, 0, 0, 0, 0,       // slave control, shadow command, slave event, slave data
];

/// The volatile state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    registers: [u8; 16],
    block: [u8; 32],
    block_index: u8,
}

/// The SMBus host controller.
#[derive(Debug)]
pub struct Smbus {
    // Configuration: none. Wires.
    irq: IrqLine,
    // Volatile state.
    state: State,
}

impl Smbus {
    /// A controller with the wire that it interrupts by (level, active high).
    pub fn new(irq: IrqLine) -> Smbus {
        Smbus { irq, state: State::default() }
    }

    fn register(&mut self, offset: u16) -> &mut u8 {
        &mut self.state.registers[usize::from(offset & 0xF)]
    }

    /// The next byte of the block buffer.
    fn block(&mut self) -> &mut u8 {
        let index = usize::from(self.state.block_index & 31);
        self.state.block_index = (index as u8 + 1) & 31;
        &mut self.state.block[index]
    }

    fn drive(&mut self) {
        let enabled = *self.register(HOST_CONTROL) & INTERRUPT_ENABLE != 0;
        let ended = *self.register(HOST_STATUS) & STATUS_CLEARABLE != 0;
        self.irq.set(enabled && ended);
    }
}

impl Device for Smbus {
    fn name(&self) -> &'static str {
        "smbus"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.state = State::default();
        self.drive();
    }

    fn port_read(&mut self, _cx: &mut Ctx<'_>, _range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        match (offset, width) {
            (16.., _) => Err(IoError::NoSuchRegister),
            (_, Width::B1) => {
                if offset == HOST_CONTROL {
                    self.state.block_index = 0;
                }
                let value = if offset == BLOCK_DATA { *self.block() } else { *self.register(offset) };
                Ok(value.into())
            }
            _ => Err(IoError::BadWidth),
        }
    }

    fn port_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        _range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        if offset >= 16 {
            return Err(IoError::NoSuchRegister);
        }
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        let value = value as u8;
        let mask = WRITABLE[usize::from(offset & 0xF)];
        match offset {
            HOST_STATUS => *self.register(HOST_STATUS) &= !(value & STATUS_CLEARABLE),
            BLOCK_DATA => *self.block() = value,
            _ => *self.register(offset) = *self.register(offset) & !mask | value & mask,
        }
        if offset == HOST_CONTROL && value & START != 0 {
            *self.register(HOST_STATUS) |= DEVICE_ERROR;
        }
        self.drive();
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
    use crate::wire::WireBundle;

    #[test]
    fn nobody_acknowledges() {
        let bundle = WireBundle::new();
        let mut smbus = Smbus::new(bundle.line(9));
        write(&mut smbus, 0, 0, 4, 0xA1);
        write(&mut smbus, 0, 0, HOST_CONTROL, START | 0x08);
        assert_eq!(read(&mut smbus, 0, 0, HOST_STATUS), DEVICE_ERROR);
        assert_eq!(read(&mut smbus, 0, 0, HOST_CONTROL), 0x08);
        assert!(!bundle.level(9));
        write(&mut smbus, 0, 0, HOST_CONTROL, START | INTERRUPT_ENABLE);
        assert!(bundle.level(9));
        write(&mut smbus, 0, 0, HOST_STATUS, 0xFF);
        assert!(!bundle.level(9));
        assert_eq!(read(&mut smbus, 0, 0, HOST_STATUS), 0);
    }

    #[test]
    fn the_block_buffer_turns_round() {
        let mut smbus = Smbus::new(IrqLine::detached());
        for byte in 0..32 {
            write(&mut smbus, 0, 0, BLOCK_DATA, byte);
        }
        write(&mut smbus, 0, 0, BLOCK_DATA, 99);
        read(&mut smbus, 0, 0, HOST_CONTROL);
        assert_eq!([0; 3].map(|_| read(&mut smbus, 0, 0, BLOCK_DATA)), [99, 1, 2]);
    }

    #[test]
    fn any_sequence() {
        check_device(|| Smbus::new(IrqLine::detached()), &[16]);
    }
}
