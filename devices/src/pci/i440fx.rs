//! The 82441FX host bridge (8086:1237), function 0 of device 0: PAM, SMRAM, DRAM boundaries, turbo-reset control.
//!
//! PAM and SMRAM have effect, as [`Mapping::Shadow`] and [`Mapping::Smram`]. The registers that tune DRAM timing,
//! arbitration and error reporting are kept without effect. The fixed hole (FDHC) is kept without effect too: a board
//! with a hole at 15 MiB lays out its memory so.

use super::piix3::ResetKind;
use super::{ConfigSpace, Decode, Identity, Mapping, PciFunction, Registers, Smram, offset};
use crate::device::{Ctx, Device, StateError, Width, restore_state, save_state};
use serde::{Deserialize, Serialize};
use umbra_mmu::addr::GuestPhys;

const PAM0: u8 = 0x59;
const DRAM_BOUNDARIES: u8 = 0x60;
const SMRAM: u8 = 0x72;
const TURBO_RESET: u8 = 0x93;

/// PAM bit 0 of a nibble: reads go to DRAM.
const PAM_READ: u8 = 1 << 0;
/// PAM bit 1 of a nibble: writes go to DRAM.
const PAM_WRITE: u8 = 1 << 1;

/// The region decoded by each PAM nibble: register, shift, first address, size.
#[rustfmt::skip]
const PAM: [(u8, u32, u64, u64); 13] = [
    (0x59, 4, 0xF_0000, 0x1_0000),
    (0x5A, 0, 0xC_0000, 0x4000), (0x5A, 4, 0xC_4000, 0x4000), (0x5B, 0, 0xC_8000, 0x4000), (0x5B, 4, 0xC_C000, 0x4000),
    (0x5C, 0, 0xD_0000, 0x4000), (0x5C, 4, 0xD_4000, 0x4000), (0x5D, 0, 0xD_8000, 0x4000), (0x5D, 4, 0xD_C000, 0x4000),
    (0x5E, 0, 0xE_0000, 0x4000), (0x5E, 4, 0xE_4000, 0x4000), (0x5F, 0, 0xE_8000, 0x4000), (0x5F, 4, 0xE_C000, 0x4000),
];

const SMRAM_ENABLE: u8 = 1 << 3;
/// Once set, D_OPEN is 0 and the register read-only until reset.
const SMRAM_LOCK: u8 = 1 << 4;
const SMRAM_CLOSED: u8 = 1 << 5;
const SMRAM_OPEN: u8 = 1 << 6;
/// C_BASE_SEG, hard-wired to A0000h.
const SMRAM_BASE: u8 = 0b010;

const RESET_HARD: u8 = 1 << 1;
const RESET_CPU: u8 = 1 << 2;

/// The volatile state.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    registers: Registers,
    reset: Option<ResetKind>,
}

/// The host bridge.
#[derive(Debug)]
pub struct I440fx {
    // Configuration (the masks) and volatile state (the registers).
    config: ConfigSpace,
    // Volatile state.
    reset: Option<ResetKind>,
}

impl I440fx {
    /// A host bridge whose DRAM row boundaries tell `memory` bytes (the register file can express up to 1 GiB).
    pub fn new(memory: u64) -> I440fx {
        let units = (memory >> 23).min(128);
        let boundaries: [u8; 8] = std::array::from_fn(|row| units.min(16 * (row as u64 + 1)) as u8);
        let identity = Identity { vendor: 0x8086, device: 0x1237, class: 0x06_0000, revision: 2 };
        let config = ConfigSpace::new(identity)
            .preset(offset::COMMAND, &[0x06, 0x00])
            .writable(offset::COMMAND, &[0x40, 0x01])
            .preset(offset::STATUS, &[0x80, 0x02])
            .writable(offset::CACHE_LINE, &[0x00, 0xF8])
            .writable(offset::INTERRUPT_LINE, &[0x00])
            // PMCCFG, DETURBO, DBC, AXC, DRT, reserved, DRAMC, DRAMT.
            .preset(0x50, &[0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x01, 0x10])
            .writable(0x50, &[0x74, 0xFF, 0xC0, 0xEA, 0x03, 0x00, 0x00, 0x2F, 0x7F])
            .writable(PAM0, &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33])
            .preset(DRAM_BOUNDARIES, &boundaries)
            .writable(DRAM_BOUNDARIES, &[0xFF; 8])
            // FDHC; MTT, CLT.
            .writable(0x68, &[0x80])
            .preset(0x70, &[0x00, 0x10])
            .writable(0x70, &[0xF8, 0xFF])
            .preset(SMRAM, &[SMRAM_BASE])
            .writable(SMRAM, &[SMRAM_ENABLE | SMRAM_LOCK | SMRAM_CLOSED | SMRAM_OPEN])
            // ERRCMD, ERRSTS, TRC.
            .writable(0x90, &[0x9B, 0x00, 0x00, 0x0B])
            .clearable(0x91, &[0x11]);
        I440fx { config, reset: None }
    }

    /// Takes a reset asked for through the turbo-reset control register.
    pub fn take_reset(&mut self) -> Option<ResetKind> {
        self.reset.take()
    }

    fn smram(&self) -> Smram {
        let smram = self.config.byte(SMRAM);
        match smram & (SMRAM_OPEN | SMRAM_CLOSED) {
            _ if smram & SMRAM_ENABLE == 0 => Smram::Disabled,
            SMRAM_OPEN => Smram::Open,
            0 => Smram::Smm,
            _ => Smram::SmmCode,
        }
    }
}

impl PciFunction for I440fx {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_write(&mut self, _cx: &mut Ctx<'_>, offset: u8, width: Width, value: u32) {
        let (smram, control) = (self.config.byte(SMRAM), self.config.byte(TURBO_RESET));
        self.config.write(offset, width, value);
        if smram & SMRAM_LOCK != 0 {
            self.config.set_byte(SMRAM, smram);
        } else if self.config.byte(SMRAM) & SMRAM_LOCK != 0 {
            let locked = self.config.byte(SMRAM) & !SMRAM_OPEN;
            self.config.set_byte(SMRAM, locked);
        }
        // The CPU reset bit acts as it is written and reads as 0.
        let covers = |register: u8| (offset..offset.saturating_add(width.bytes() as u8)).contains(&register);
        if covers(TURBO_RESET) && (value >> (8 * (TURBO_RESET - offset))) as u8 & RESET_CPU != 0 {
            let hard = control & RESET_HARD != 0 || self.config.byte(TURBO_RESET) & RESET_HARD != 0;
            self.reset = Some(if hard { ResetKind::Hard } else { ResetKind::Soft });
        }
    }

    fn mappings(&self) -> Vec<Mapping> {
        let decode = |dram| if dram { Decode::Dram } else { Decode::Bus };
        let shadow = |&(register, shift, base, size): &(u8, u32, u64, u64)| {
            let nibble = self.config.byte(register) >> shift;
            let (reads, writes) = (decode(nibble & PAM_READ != 0), decode(nibble & PAM_WRITE != 0));
            Mapping::Shadow { base: GuestPhys(base), size, reads, writes }
        };
        PAM.iter().map(shadow).chain([Mapping::Smram(self.smram())]).collect()
    }
}

impl Device for I440fx {
    fn name(&self) -> &'static str {
        "i440fx"
    }

    fn reset(&mut self, _cx: &mut Ctx<'_>) {
        self.config.reset();
        self.reset = None;
    }

    fn save(&self) -> Vec<u8> {
        save_state(&State { registers: self.config.registers(), reset: self.reset })
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let state: State = restore_state(self.name(), state)?;
        self.config.set_registers(state.registers);
        self.reset = state.reset;
        Ok(())
    }
}
