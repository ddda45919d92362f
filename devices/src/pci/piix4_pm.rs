//! The power-management function of the 82371AB (8086:7113): the configuration space around [`AcpiPm`] and [`Smbus`].
//!
//! Windows: 8 is the power-management block (PMBASE at 40h, enabled by PMREGMISC bit 0), 9 the SMBus registers (SMBBASE at
//! 90h, enabled by SMBHSTCFG bit 0 and the command register), 10 the APM ports. DEVACTB tells that SMI on APM commands is
//! set up, so that firmware does not try to. The device monitors are kept without effect.

use super::config::COMMAND_IO;
use super::{ConfigSpace, Identity, IntPin, Mapping, PciFunction, Registers, Space, offset};
use crate::acpi_pm::AcpiPm;
use crate::clock::Tick;
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::smbus::Smbus;
use crate::wire::IrqLine;
use serde::{Deserialize, Serialize};

/// Base of the power-management block.
pub const PMBASE: u8 = 0x40;
/// Bit 25: SMI on a write to APMC.
const DEVACTB: u8 = 0x58;
/// Bit 0: decode the power-management block.
pub const PMREGMISC: u8 = 0x80;
/// Base of the SMBus registers.
const SMBBASE: u8 = 0x90;
/// Bit 0: the SMBus host controller is enabled.
const SMBHSTCFG: u8 = 0xD2;

const PM_WINDOW: u8 = 8;
const SMBUS_WINDOW: u8 = 9;
const APM_WINDOW: u8 = 10;
const APM_PORT: u64 = 0xB2;

/// The volatile state.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    registers: Registers,
    pm: Vec<u8>,
    smbus: Vec<u8>,
}

/// The power-management function.
#[derive(Debug)]
pub struct Piix4Pm {
    // Configuration (the masks) and volatile state (the registers).
    config: ConfigSpace,
    /// The power-management registers.
    pub pm: AcpiPm,
    smbus: Smbus,
}

impl Piix4Pm {
    /// The function, with the wires of SCI and of the SMBus controller (on a PC both lead to ISA interrupt 9).
    pub fn new(sci: IrqLine, smbus: IrqLine) -> Piix4Pm {
        let identity = Identity { vendor: 0x8086, device: 0x7113, class: 0x06_8000, revision: 3 };
        let config = ConfigSpace::new(identity)
            .writable(offset::COMMAND, &[COMMAND_IO as u8, 0x00])
            .preset(offset::STATUS, &[0x80, 0x02])
            .clearable(offset::STATUS, &[0x00, 0x08])
            .writable(offset::CACHE_LINE, &[0x00, 0x00])
            .interrupt_pin(IntPin::A)
            .preset(PMBASE, &[0x01])
            .writable(PMBASE, &[0xC0, 0xFF])
            // CNTA, CNTB, GPICTL; DEVRESD, DEVACTA, DEVACTB, DEVRESA–DEVRESJ.
            .writable(0x44, &[0xFF; 12])
            .writable(0x50, &[0xFF; 0x30])
            .preset(DEVACTB, &[0x00, 0x00, 0x00, 0x02])
            .writable(PMREGMISC, &[0x01])
            .preset(SMBBASE, &[0x01])
            .writable(SMBBASE, &[0xF0, 0xFF])
            // SMBHSTCFG, SMBSLVC, SMBSHDW1, SMBSHDW2; SMBREV.
            .writable(SMBHSTCFG, &[0x0F, 0xFF, 0xFF, 0xFF]);
        Piix4Pm { config, pm: AcpiPm::new(sci), smbus: Smbus::new(smbus) }
    }

    /// The chip behind a window, and its range.
    fn chip(&mut self, window: u8) -> Result<(&mut dyn Device, u8), IoError> {
        match window {
            PM_WINDOW => Ok((&mut self.pm, 0)),
            APM_WINDOW => Ok((&mut self.pm, 1)),
            SMBUS_WINDOW => Ok((&mut self.smbus, 0)),
            _ => Err(IoError::NoSuchRegister),
        }
    }
}

impl PciFunction for Piix4Pm {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn mappings(&self) -> Vec<Mapping> {
        let config = &self.config;
        let window = |window, base, size, on: bool| Mapping::Window {
            window,
            space: Space::Io,
            size,
            base: (on && base != 0).then_some(base),
        };
        let io = config.word(offset::COMMAND) & COMMAND_IO != 0;
        let (pm_base, smbus_base) = (config.word(PMBASE) & 0xFFC0, config.word(SMBBASE) & 0xFFF0);
        vec![
            window(PM_WINDOW, pm_base.into(), 0x40, config.byte(PMREGMISC) & 1 != 0),
            window(SMBUS_WINDOW, smbus_base.into(), 0x10, io && config.byte(SMBHSTCFG) & 1 != 0),
            window(APM_WINDOW, APM_PORT, 2, true),
        ]
    }
}

impl Device for Piix4Pm {
    fn name(&self) -> &'static str {
        "piix4-pm"
    }

    fn reset(&mut self, cx: &mut Ctx<'_>) {
        self.config.reset();
        self.pm.reset(cx);
        self.smbus.reset(cx);
    }

    fn port_read(&mut self, cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        let (chip, range) = self.chip(range)?;
        chip.port_read(cx, range, offset, width)
    }

    fn port_write(
        &mut self,
        cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        let (chip, range) = self.chip(range)?;
        chip.port_write(cx, range, offset, width, value)
    }

    fn next_event(&self) -> Option<Tick> {
        self.pm.next_event()
    }

    fn run_until(&mut self, cx: &mut Ctx<'_>) {
        self.pm.run_until(cx);
    }

    fn save(&self) -> Vec<u8> {
        save_state(&State { registers: self.config.registers(), pm: self.pm.save(), smbus: self.smbus.save() })
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = restore_state(self.name(), state)?;
        self.pm.restore(&state.pm)?;
        self.smbus.restore(&state.smbus)?;
        self.config.set_registers(state.registers);
        Ok(())
    }
}
