//! The pair of 8259A interrupt controllers (Intel 8259A data sheet, order 231468; PIIX3 data sheet for ELCR).
//!
//! Models initialisation (ICW1–4), masks, fully nested and special fully nested priority, special mask mode, all end-of-
//! interrupt and rotation commands, automatic EOI, polling, register reads, the cascade, default (spurious) IR7, and the
//! edge/level control registers that replace ICW1's LTIM bit on PCI chipsets. As in the chip, an edge request lives only
//! while its input stays high: an input that falls before the acknowledge cycle gives a default IR7.
//!
//! Leaves out: buffered mode (its bits are accepted and mean nothing here) and the first and third byte of an MCS-80
//! acknowledge sequence, which no PC processor asks for.
//!
//! Ranges: 0 = 20h–21h (master), 1 = A0h–A1h (slave), 2 = 4D0h–4D1h (ELCR). Called by the board, which feeds the inputs
//! from the wires and passes the INTR level on to the processor.

use crate::clock::Tick;
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use serde::{Deserialize, Serialize};

/// The master's input that the slave's INT output is soldered to.
const CASCADE: u8 = 2;
/// The level that a chip answers with when nothing asks for service any more.
const DEFAULT_LEVEL: u8 = 7;
/// ELCR bits that can be set: not IRQ 0, 1, 2 (master), 8 and 13 (slave).
const ELCR_WRITABLE: [u8; 2] = [0xf8, 0xde];

/// ICW1: an ICW4 follows.
const ICW1_IC4: u8 = 1 << 0;
/// ICW1: the only chip, no ICW3.
const ICW1_SINGLE: u8 = 1 << 1;
/// ICW1: MCS-80 call interval of four.
const ICW1_INTERVAL_4: u8 = 1 << 2;
/// ICW1: what tells it from OCW2 and OCW3.
const ICW1_MARK: u8 = 1 << 4;
/// ICW4: 8086 mode.
const ICW4_8086: u8 = 1 << 0;
/// ICW4: automatic end of interrupt.
const ICW4_AEOI: u8 = 1 << 1;
/// ICW4: special fully nested mode.
const ICW4_SFNM: u8 = 1 << 4;
/// What tells OCW3 from OCW2.
const OCW3_MARK: u8 = 1 << 3;

/// Which of the two chips.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Side {
    Master,
    Slave,
}

/// The initialisation word that the next write to the odd port is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Expect {
    #[default]
    Mask,
    Icw2,
    Icw3,
    Icw4,
}

/// What a read of the even port gives.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum ReadSelect {
    #[default]
    Requests,
    InService,
}

/// One 8259A.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Chip {
    /// Input levels.
    inputs: u8,
    /// Rising edges not yet acknowledged, of inputs that are still high.
    edges: u8,
    /// Inputs that are level-triggered.
    elcr: u8,
    mask: u8,
    in_service: u8,
    /// The level with the lowest priority; the next one up (modulo 8) has the highest.
    lowest: u8,
    icw1: u8,
    icw2: u8,
    icw3: u8,
    icw4: u8,
    expect: Expect,
    read_select: ReadSelect,
    special_mask: bool,
    rotate_on_aeoi: bool,
    poll: bool,
}

impl Chip {
    fn power_on(&mut self) {
        *self = Chip { inputs: self.inputs, mask: 0xff, lowest: 7, icw4: ICW4_8086, ..Chip::default() };
    }

    /// IRR as the data sheet shows it.
    fn requests(&self) -> u8 {
        (self.edges & !self.elcr) | (self.inputs & self.elcr)
    }

    /// 0 = highest priority.
    fn priority(&self, level: u8) -> u8 {
        level.wrapping_sub(self.lowest).wrapping_sub(1) & 7
    }

    /// The highest-priority level in `set`.
    fn highest(&self, set: u8) -> Option<u8> {
        (1..=8).map(|step| self.lowest.wrapping_add(step) & 7).find(|level| set >> level & 1 != 0)
    }

    /// The level that would be acknowledged now.
    fn pending(&self) -> Option<u8> {
        if self.expect != Expect::Mask {
            return None;
        }
        let level = self.highest(self.requests() & !self.mask)?;
        let blocking = if self.special_mask { self.in_service & !self.mask } else { self.in_service };
        let Some(current) = self.highest(blocking) else { return Some(level) };
        let nests = self.priority(level) < self.priority(current);
        let same_slave = level == current && self.icw4 & ICW4_SFNM != 0 && self.has_slave_at(level);
        (nests || same_slave).then_some(level)
    }

    fn has_slave_at(&self, level: u8) -> bool {
        self.icw1 & ICW1_SINGLE == 0 && self.icw3 >> level & 1 != 0
    }

    fn set_input(&mut self, level: u8, high: bool) {
        let bit = 1 << level;
        if !high {
            self.inputs &= !bit;
            self.edges &= !bit;
        } else if self.inputs & bit == 0 {
            self.inputs |= bit;
            self.edges |= bit;
        }
    }

    /// The first INTA pulse, or the read after a poll command: takes the pending level into service.
    fn begin_service(&mut self) -> Option<u8> {
        let level = self.pending()?;
        self.edges &= !(1 << level);
        if self.icw4 & ICW4_AEOI == 0 {
            self.in_service |= 1 << level;
        } else if self.rotate_on_aeoi {
            self.lowest = level;
        }
        Some(level)
    }

    /// The byte given on the second INTA pulse.
    fn vector(&self, level: u8) -> u8 {
        match (self.icw4 & ICW4_8086 != 0, self.icw1 & ICW1_INTERVAL_4 != 0) {
            (true, _) => (self.icw2 & 0xf8) | level,
            (false, true) => (self.icw1 & 0xe0) | level << 2,
            (false, false) => (self.icw1 & 0xc0) | level << 3,
        }
    }

    fn read(&mut self, odd: bool) -> u8 {
        if self.poll {
            self.poll = false;
            return self.begin_service().map_or(0, |level| 0x80 | level);
        }
        match (odd, self.read_select) {
            (true, _) => self.mask,
            (false, ReadSelect::Requests) => self.requests(),
            (false, ReadSelect::InService) => self.in_service,
        }
    }

    fn write_even(&mut self, value: u8) {
        if value & ICW1_MARK != 0 {
            self.begin_init(value);
        } else if value & OCW3_MARK != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    fn begin_init(&mut self, icw1: u8) {
        self.icw1 = icw1;
        self.edges = 0;
        self.mask = 0;
        self.in_service = 0;
        self.lowest = 7;
        self.icw3 = 7;
        self.icw4 = 0;
        self.special_mask = false;
        self.rotate_on_aeoi = false;
        self.poll = false;
        self.read_select = ReadSelect::Requests;
        self.expect = Expect::Icw2;
    }

    fn write_odd(&mut self, value: u8) {
        let after_icw3 = if self.icw1 & ICW1_IC4 != 0 { Expect::Icw4 } else { Expect::Mask };
        self.expect = match self.expect {
            Expect::Mask => {
                self.mask = value;
                Expect::Mask
            }
            Expect::Icw2 => {
                self.icw2 = value;
                if self.icw1 & ICW1_SINGLE != 0 { after_icw3 } else { Expect::Icw3 }
            }
            Expect::Icw3 => {
                self.icw3 = value;
                after_icw3
            }
            Expect::Icw4 => {
                self.icw4 = value;
                Expect::Mask
            }
        };
    }

    fn write_ocw2(&mut self, value: u8) {
        let level = value & 7;
        match value >> 5 {
            0b000 => self.rotate_on_aeoi = false,
            0b100 => self.rotate_on_aeoi = true,
            0b001 | 0b101 => {
                // In special mask mode a masked level's in-service bit needs a specific EOI.
                let candidates = if self.special_mask { self.in_service & !self.mask } else { self.in_service };
                if let Some(done) = self.highest(candidates) {
                    self.in_service &= !(1 << done);
                    if value >> 5 == 0b101 {
                        self.lowest = done;
                    }
                }
            }
            0b011 => self.in_service &= !(1 << level),
            0b111 => {
                self.in_service &= !(1 << level);
                self.lowest = level;
            }
            0b110 => self.lowest = level,
            _ => {}
        }
    }

    fn write_ocw3(&mut self, value: u8) {
        match value >> 5 & 3 {
            0b10 => self.special_mask = false,
            0b11 => self.special_mask = true,
            _ => {}
        }
        self.poll = value & 4 != 0;
        match value & 3 {
            0b10 => self.read_select = ReadSelect::Requests,
            0b11 => self.read_select = ReadSelect::InService,
            _ => {}
        }
    }
}

/// Volatile state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    master: Chip,
    slave: Chip,
}

/// The interrupt controllers of a PC/AT: two 8259As, the second one cascaded into input 2 of the first.
#[derive(Debug)]
pub struct Pic8259 {
    // Configuration: none.
    // Wires: the board calls `set_input` and reads `output`.
    // Volatile state.
    state: State,
}

impl Pic8259 {
    /// A pair in its power-on state: everything masked until initialised.
    pub fn new() -> Pic8259 {
        let mut state = State::default();
        state.master.power_on();
        state.slave.power_on();
        Pic8259 { state }
    }

    /// Drives input `pin` (0–7 master, 8–15 slave; others and the cascade input 2 are ignored).
    pub fn set_input(&mut self, pin: u8, high: bool) {
        match pin {
            CASCADE => {}
            0..=7 => self.state.master.set_input(pin, high),
            8..=15 => {
                self.state.slave.set_input(pin - 8, high);
                self.update_cascade();
            }
            _ => {}
        }
    }

    /// The level of the INTR output.
    pub fn output(&self) -> bool {
        self.state.master.pending().is_some()
    }

    /// An interrupt acknowledge cycle: takes the highest-priority request into service and gives its vector.
    ///
    /// If no input asks any more, this is the default (spurious) IR7 of the chip, for which no in-service bit is set.
    pub fn acknowledge(&mut self) -> u8 {
        let State { master, slave } = &mut self.state;
        let Some(level) = master.begin_service() else { return master.vector(DEFAULT_LEVEL) };
        if !master.has_slave_at(level) {
            let vector = master.vector(level);
            self.update_cascade();
            return vector;
        }
        if slave.icw3 & 7 != level {
            return 0xff; // No chip drives the data bus.
        }
        // The slave's INT falls with INTA and rises again if more is to come: a new edge for the master.
        master.set_input(CASCADE, false);
        let served = slave.begin_service().unwrap_or(DEFAULT_LEVEL);
        let vector = slave.vector(served);
        self.update_cascade();
        vector
    }

    /// The level-triggered inputs, bit n = IRQ n (ELCR).
    pub fn level_triggered(&self) -> u16 {
        u16::from_le_bytes([self.state.master.elcr, self.state.slave.elcr])
    }

    fn update_cascade(&mut self) {
        let slave_int = self.state.slave.pending().is_some();
        self.state.master.set_input(CASCADE, slave_int);
    }

    fn chip(&mut self, side: Side) -> &mut Chip {
        match side {
            Side::Master => &mut self.state.master,
            Side::Slave => &mut self.state.slave,
        }
    }
}

impl Default for Pic8259 {
    fn default() -> Self {
        Pic8259::new()
    }
}

/// Decodes a port: the chip, and whether it is the odd or ELCR port.
fn decode(range: u8, offset: u16) -> Result<(Side, Register), IoError> {
    match (range, offset) {
        (0, 0) => Ok((Side::Master, Register::Even)),
        (0, 1) => Ok((Side::Master, Register::Odd)),
        (1, 0) => Ok((Side::Slave, Register::Even)),
        (1, 1) => Ok((Side::Slave, Register::Odd)),
        (2, 0) => Ok((Side::Master, Register::EdgeLevel)),
        (2, 1) => Ok((Side::Slave, Register::EdgeLevel)),
        _ => Err(IoError::NoSuchRegister),
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Register {
    Even,
    Odd,
    EdgeLevel,
}

impl Device for Pic8259 {
    fn name(&self) -> &'static str {
        "pic8259"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.state.master.power_on();
        self.state.slave.power_on();
        self.state.master.set_input(CASCADE, false);
    }

    fn port_read(&mut self, _cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        let (side, register) = decode(range, offset)?;
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        let chip = self.chip(side);
        let value = match register {
            Register::Even => chip.read(false),
            Register::Odd => chip.read(true),
            Register::EdgeLevel => chip.elcr,
        };
        self.update_cascade();
        Ok(u32::from(value))
    }

    fn port_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        let (side, register) = decode(range, offset)?;
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        let value = value as u8;
        let chip = self.chip(side);
        match register {
            Register::Even => chip.write_even(value),
            Register::Odd => chip.write_odd(value),
            Register::EdgeLevel => chip.elcr = value & ELCR_WRITABLE[side as usize],
        }
        self.update_cascade();
        Ok(())
    }

    fn next_event(&self) -> Option<Tick> {
        None
    }

    fn save(&self) -> Vec<u8> {
        save_state(&self.state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let mut state: State = restore_state(self.name(), state)?;
        for chip in [&mut state.master, &mut state.slave] {
            chip.lowest &= 7;
        }
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
