//! The MSRs around the local APIC: IA32_APIC_BASE and its modes (SDM vol. 3, 10.4.4 and 10.12.5), IA32_TSC_DEADLINE, and
//! which register an x2APIC MSR is.

use super::{Config, LocalApic, State, registers};
use crate::clock::Tick;
use thiserror::Error;
use umbra_mmu::addr::{GuestPhys, PAGE_OFFSET};

/// The MSR that enables and places the local APIC.
pub const IA32_APIC_BASE: u32 = 0x1B;
/// The MSR that arms the timer in TSC-deadline mode.
pub const IA32_TSC_DEADLINE: u32 = 0x6E0;

const X2APIC_FIRST: u32 = 0x800;
const X2APIC_LAST: u32 = 0x8FF;

/// IA32_APIC_BASE bit 8: this is the bootstrap processor. Writes do not change it.
const BASE_BOOTSTRAP: u64 = 1 << 8;
/// IA32_APIC_BASE bit 10: x2APIC mode.
const BASE_X2APIC: u64 = 1 << 10;
/// IA32_APIC_BASE bit 11: the APIC is there at all.
const BASE_ENABLE: u64 = 1 << 11;
const BASE_ADDRESS: u64 = 0xFEE0_0000;

/// What CPUID promises about the local APIC.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// CPUID.01H:ECX bit 21.
    pub x2apic: bool,
    /// CPUID.01H:ECX bit 24.
    pub tsc_deadline: bool,
}

/// An MSR access that the processor answers with #GP(0).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Error)]
#[error("general-protection fault on an MSR of the local APIC")]
pub struct MsrFault;

pub(super) fn reset_value(config: &Config) -> u64 {
    BASE_ADDRESS | BASE_ENABLE | if config.bootstrap { BASE_BOOTSTRAP } else { 0 }
}

impl LocalApic {
    /// Whether this MSR belongs to the local APIC.
    pub const fn owns_msr(msr: u32) -> bool {
        matches!(msr, IA32_APIC_BASE | IA32_TSC_DEADLINE | X2APIC_FIRST..=X2APIC_LAST)
    }

    /// Reads an MSR.
    pub fn read_msr(&mut self, now: Tick, msr: u32) -> Result<u64, MsrFault> {
        match msr {
            IA32_APIC_BASE => Ok(self.state.base),
            IA32_TSC_DEADLINE if self.config.features.tsc_deadline => {
                self.advance(now);
                Ok(self.state.timer.tsc_deadline())
            }
            X2APIC_FIRST..=X2APIC_LAST if self.is_x2apic() => self.x2apic_read(now, msr as u8),
            _ => Err(MsrFault),
        }
    }

    /// Writes an MSR. After a write to IA32_APIC_BASE the board asks for [`Self::window`] again.
    pub fn write_msr(&mut self, now: Tick, msr: u32, value: u64) -> Result<(), MsrFault> {
        match msr {
            IA32_APIC_BASE => self.write_base(value),
            IA32_TSC_DEADLINE if self.config.features.tsc_deadline => {
                self.arm_tsc_deadline(now, value);
                Ok(())
            }
            X2APIC_FIRST..=X2APIC_LAST if self.is_x2apic() => self.x2apic_write(now, msr as u8, value),
            _ => Err(MsrFault),
        }
    }

    /// Where the 4 KiB register window lies; `None` while the APIC is disabled or in x2APIC mode.
    pub fn window(&self) -> Option<GuestPhys> {
        (self.is_enabled() && !self.is_x2apic()).then_some(GuestPhys(self.state.base & !PAGE_OFFSET))
    }

    /// Whether IA32_APIC_BASE has the APIC enabled. While not, the pins are the processor's INTR and NMI, and CPUID hides it.
    pub fn is_enabled(&self) -> bool {
        self.state.base & BASE_ENABLE != 0
    }

    /// Whether the APIC is in x2APIC mode.
    pub fn is_x2apic(&self) -> bool {
        self.state.base & BASE_X2APIC != 0
    }

    fn write_base(&mut self, value: u64) -> Result<(), MsrFault> {
        const MODE: u64 = BASE_ENABLE | BASE_X2APIC;
        let address = ((1u64 << self.config.physical_bits.clamp(32, 52)) - 1) & !PAGE_OFFSET;
        let mode_bits = if self.config.features.x2apic { MODE } else { BASE_ENABLE };
        if value & !(address | mode_bits | BASE_BOOTSTRAP) != 0 {
            return Err(MsrFault);
        }
        let (old, new) = (self.state.base & MODE, value & MODE);
        match (old, new) {
            // Not a mode, and the two ways that skip one (SDM vol. 3, figure 10-27).
            (_, BASE_X2APIC) | (MODE, BASE_ENABLE) | (0, MODE) => return Err(MsrFault),
            (MODE | BASE_ENABLE, 0) => {
                self.init_reset();
                self.state.signals = Default::default();
            }
            // The mode change clears the upper half of ICR, whose meaning changes.
            (BASE_ENABLE, MODE) => self.state.icr &= 0xFFFF_FFFF,
            _ => {}
        }
        self.state.base = value & !BASE_BOOTSTRAP | reset_value(&self.config) & BASE_BOOTSTRAP;
        Ok(())
    }
}

impl State {
    /// LDR in x2APIC mode: cluster and member, made from the ID (SDM vol. 3, 10.12.10.2).
    pub(super) const fn x2apic_logical_id(id: u32) -> u32 {
        (id >> 4) << 16 | 1 << (id & 0xF)
    }
}

impl LocalApic {
    fn x2apic_read(&mut self, now: Tick, register: u8) -> Result<u64, MsrFault> {
        if registers::is_write_only(register) {
            return Err(MsrFault);
        }
        if register == registers::ICR_LOW {
            return Ok(self.state.icr);
        }
        self.read_register(now, register).map(u64::from).ok_or(MsrFault)
    }

    fn x2apic_write(&mut self, now: Tick, register: u8, value: u64) -> Result<(), MsrFault> {
        if value & !registers::x2apic_writable(register).ok_or(MsrFault)? != 0 {
            return Err(MsrFault);
        }
        match register {
            registers::ICR_LOW => {
                self.state.icr = value & super::icr::WRITABLE;
                self.send();
            }
            registers::SELF_IPI => self.send_to_self(value as u8),
            _ => self.write_register(now, register, value as u32),
        }
        Ok(())
    }
}
