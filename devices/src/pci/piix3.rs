//! The 82371SB (PIIX3) ISA bridge (8086:7000): PIRQ routing, the reset control register at port CF9h, and the bridge's
//! configuration registers.
//!
//! PIRQA–PIRQD come in through [`Piix3::set_pirq`]; each drives the ISA interrupt wire that its route register names.
//! The only window of its own is number 8, port CF9h. XBCS, top of memory, the ISA timers and the system-management
//! registers are kept without effect: the board decodes its ISA chips itself and has no system-management mode.

use super::{ConfigSpace, Identity, Mapping, PciFunction, Registers, Space, offset};
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};

const PIRQ_ROUTES: u8 = 0x60;
/// Route bit 7: this PIRQ goes nowhere.
const ROUTE_OFF: u8 = 1 << 7;
/// The ISA interrupts that a PIRQ can be routed to.
const ROUTABLE: u16 = 0b1101_1110_1111_1000;

/// Reset control bit 1: the reset is a hard one.
const RESET_HARD: u8 = 1 << 1;
/// Reset control bit 2: its rising edge resets.
const RESET_CPU: u8 = 1 << 2;
const RESET_WINDOW: u8 = 8;
const RESET_PORT: u64 = 0xCF9;

/// How far a reset reaches.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResetKind {
    /// INIT to the processors only.
    Soft,
    /// CPURST, PCIRST# and RSTDRV: everything.
    Hard,
}

/// The volatile state.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    registers: Registers,
    control: u8,
    reset: Option<ResetKind>,
    /// The levels of PIRQA–PIRQD, a bit each.
    pirqs: u8,
}

/// The ISA bridge.
#[derive(Debug)]
pub struct Piix3 {
    // Configuration (the masks) and volatile state (the registers).
    config: ConfigSpace,
    // Wires: the sixteen ISA interrupts.
    isa: [IrqLine; 16],
    // Volatile state.
    control: u8,
    reset: Option<ResetKind>,
    pirqs: u8,
}

impl Piix3 {
    /// A bridge that drives these ISA interrupts. Those that it cannot be routed to (0, 1, 2, 8, 13) may be detached.
    pub fn new(isa: [IrqLine; 16]) -> Piix3 {
        let identity = Identity { vendor: 0x8086, device: 0x7000, class: 0x06_0100, revision: 0 };
        let config = ConfigSpace::new(identity)
            .preset(offset::COMMAND, &[0x07, 0x00])
            .writable(offset::COMMAND, &[0x08, 0x00])
            .preset(offset::STATUS, &[0x00, 0x02])
            .clearable(offset::STATUS, &[0x00, 0x78])
            .writable(offset::CACHE_LINE, &[0x00, 0x00])
            .writable(offset::INTERRUPT_LINE, &[0x00])
            // IORT; XBCS.
            .preset(0x4C, &[0x4D, 0x00, 0x03, 0x00])
            .writable(0x4C, &[0xFF, 0x00, 0xF7, 0x01])
            .preset(PIRQ_ROUTES, &[ROUTE_OFF; 4])
            .writable(PIRQ_ROUTES, &[0x8F; 4])
            // TOM; MSTAT.
            .preset(0x69, &[0x02])
            .writable(0x69, &[0xFE, 0xFF, 0x80])
            // MBIRQ0; MBDMA0-1; PCSC.
            .preset(0x70, &[0x80])
            .writable(0x70, &[0xEF])
            .preset(0x76, &[0x0C, 0x0C, 0x02, 0x00])
            .writable(0x76, &[0x8F, 0x8F, 0xFF, 0xFF])
            // APICBASE; DLC.
            .writable(0x80, &[0x7F, 0x00, 0x0F])
            // SMICNTL; SMIEN; SEE; FTMR; SMIREQ; CTLTMR; CTHTMR.
            .preset(0xA0, &[0x08])
            .writable(0xA0, &[0x1F, 0x00, 0xFF, 0x01, 0xFF, 0xFF, 0xFF, 0xFF])
            .preset(0xA8, &[0x0F])
            .writable(0xA8, &[0xFF, 0x00, 0xFF, 0x01, 0xFF, 0x00, 0xFF]);
        Piix3 { config, isa, control: 0, reset: None, pirqs: 0 }
    }

    /// Drives PIRQA–PIRQD (0–3); others are ignored.
    pub fn set_pirq(&mut self, pirq: u8, asserted: bool) {
        if pirq > 3 {
            return;
        }
        let old = self.pirqs;
        self.pirqs = self.pirqs & !(1 << pirq) | u8::from(asserted) << pirq;
        if old != self.pirqs {
            self.drive();
        }
    }

    /// The ISA interrupt that a PIRQ (0–3) is routed to.
    pub fn route(&self, pirq: u8) -> Option<u8> {
        let route = self.config.byte(PIRQ_ROUTES + (pirq & 3));
        let irq = route & 0xF;
        (route & ROUTE_OFF == 0 && ROUTABLE >> irq & 1 != 0).then_some(irq)
    }

    /// Takes a reset asked for through the reset control register.
    pub fn take_reset(&mut self) -> Option<ResetKind> {
        self.reset.take()
    }

    /// Drives each ISA interrupt as the PIRQs that are routed to it say.
    fn drive(&self) {
        let mut high = 0u16;
        for pirq in 0..4 {
            if let Some(irq) = self.route(pirq).filter(|_| self.pirqs >> pirq & 1 != 0) {
                high |= 1 << irq;
            }
        }
        for (irq, line) in self.isa.iter().enumerate() {
            line.set(high >> irq & 1 != 0);
        }
    }
}

impl PciFunction for Piix3 {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_write(&mut self, _cx: &mut Ctx<'_>, offset: u8, width: Width, value: u32) {
        self.config.write(offset, width, value);
        if offset & !3 == PIRQ_ROUTES {
            self.drive();
        }
    }

    fn mappings(&self) -> Vec<Mapping> {
        vec![Mapping::Window { window: RESET_WINDOW, space: Space::Io, size: 1, base: Some(RESET_PORT) }]
    }
}

impl Device for Piix3 {
    fn name(&self) -> &'static str {
        "piix3"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.config.reset();
        self.control = 0;
        self.reset = None;
        self.drive();
    }

    fn port_read(&mut self, _cx: &mut Ctx<'_>, range: u8, _offset: u16, width: Width) -> Result<u32, IoError> {
        match (range, width) {
            (RESET_WINDOW, Width::B1) => Ok(self.control.into()),
            (RESET_WINDOW, _) => Err(IoError::BadWidth),
            _ => Err(IoError::NoSuchRegister),
        }
    }

    fn port_write(
        &mut self,
        _cx: &mut Ctx<'_>,
        range: u8,
        _offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        if range != RESET_WINDOW {
            return Err(IoError::NoSuchRegister);
        }
        if width != Width::B1 {
            return Err(IoError::BadWidth);
        }
        let value = value as u8;
        if value & !self.control & RESET_CPU != 0 {
            self.reset = Some(if value & RESET_HARD != 0 { ResetKind::Hard } else { ResetKind::Soft });
        }
        self.control = value & (RESET_HARD | RESET_CPU);
        Ok(())
    }

    fn save(&self) -> Vec<u8> {
        let registers = self.config.registers();
        save_state(&State { registers, control: self.control, reset: self.reset, pirqs: self.pirqs })
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = restore_state(self.name(), state)?;
        self.config.set_registers(state.registers);
        self.control = state.control;
        self.reset = state.reset;
        self.pirqs = state.pirqs;
        self.drive();
        Ok(())
    }
}
