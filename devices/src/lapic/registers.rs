//! The register map (SDM vol. 3, tables 10-1 and 10-6): a register's number is its window offset / 10h and its MSR − 800h.

use super::lvt::LvtEntry;
use super::{LocalApic, State};
use crate::clock::Tick;
use crate::device::{IoError, Width};

pub(super) const ID: u8 = 0x02;
const VERSION: u8 = 0x03;
pub(super) const TPR: u8 = 0x08;
const APR: u8 = 0x09;
const PPR: u8 = 0x0A;
pub(super) const EOI: u8 = 0x0B;
const REMOTE_READ: u8 = 0x0C;
const LDR: u8 = 0x0D;
const DFR: u8 = 0x0E;
pub(super) const SVR: u8 = 0x0F;
const ISR: u8 = 0x10;
const ISR_LAST: u8 = 0x17;
const TMR: u8 = 0x18;
const TMR_LAST: u8 = 0x1F;
const IRR: u8 = 0x20;
const IRR_LAST: u8 = 0x27;
pub(super) const ESR: u8 = 0x28;
pub(super) const ICR_LOW: u8 = 0x30;
const ICR_HIGH: u8 = 0x31;
pub(super) const LVT_TIMER: u8 = 0x32;
pub(super) const LVT_THERMAL: u8 = 0x33;
pub(super) const LVT_PERFORMANCE: u8 = 0x34;
pub(super) const LVT_LINT0: u8 = 0x35;
pub(super) const LVT_LINT1: u8 = 0x36;
pub(super) const LVT_ERROR: u8 = 0x37;
pub(super) const INITIAL_COUNT: u8 = 0x38;
pub(super) const CURRENT_COUNT: u8 = 0x39;
pub(super) const DIVIDE: u8 = 0x3E;
pub(super) const SELF_IPI: u8 = 0x3F;

/// Version 14h, six LVT entries, EOI broadcast can be suppressed.
const VERSION_VALUE: u32 = 1 << 24 | 5 << 16 | 0x14;

/// SVR after reset: software-disabled, spurious vector FFh.
pub(super) const SVR_RESET: u32 = 0xFF;
/// SVR bit 8: APIC software enable.
pub(super) const SVR_ENABLE: u32 = 1 << 8;
/// SVR bit 9: focus processor checking, kept without effect.
const SVR_FOCUS: u32 = 1 << 9;
/// SVR bit 12: the software writes the I/O APIC's EOI register itself.
pub(super) const SVR_SUPPRESS_EOI_BROADCAST: u32 = 1 << 12;
const SVR_WRITABLE: u32 = 0xFF | SVR_ENABLE | SVR_FOCUS | SVR_SUPPRESS_EOI_BROADCAST;

/// ESR bit 5: a vector below 16 was to be sent.
pub(super) const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
/// ESR bit 6: a vector below 16 was received, or made by the LVT.
pub(super) const ESR_RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
/// ESR bit 7: an access to a register that does not exist (xAPIC only).
const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// Whether reading this register in x2APIC mode is a fault although writing is not.
pub(super) fn is_write_only(register: u8) -> bool {
    matches!(register, EOI | SELF_IPI)
}

/// The bits that may be written 1 in x2APIC mode without #GP; `None` for registers that cannot be written at all.
pub(super) fn x2apic_writable(register: u8) -> Option<u64> {
    Some(match register {
        TPR => 0xFF,
        EOI | ESR => 0,
        SVR => SVR_WRITABLE.into(),
        ICR_LOW => super::icr::WRITABLE | super::icr::DELIVERY_STATUS,
        INITIAL_COUNT => 0xFFFF_FFFF,
        DIVIDE => 0b1011,
        SELF_IPI => 0xFF,
        _ => u64::from(LvtEntry::from_register(register)?.writable()) | super::lvt::READ_ONLY,
    })
}

impl LocalApic {
    /// A read of the window. Narrow reads see a part of the register; only its first four bytes of sixteen are defined.
    pub(super) fn window_read(&mut self, now: Tick, offset: u64, width: Width) -> Result<u64, IoError> {
        let register = self.window_register(offset)?;
        let within = offset & 0xF;
        if within + width.bytes().min(4) > 4 {
            return Err(IoError::BadWidth);
        }
        let value = self.read_register(now, register).unwrap_or_else(|| {
            self.error(ESR_ILLEGAL_REGISTER);
            0
        });
        Ok(u64::from(value) >> (8 * within) & width.ones())
    }

    /// A write to the window: a whole register, or nothing.
    pub(super) fn window_write(&mut self, now: Tick, offset: u64, width: Width, value: u64) -> Result<(), IoError> {
        let register = self.window_register(offset)?;
        if offset & 0xF != 0 || width < Width::B4 {
            return Err(IoError::BadWidth);
        }
        self.write_register(now, register, value as u32);
        Ok(())
    }

    fn window_register(&self, offset: u64) -> Result<u8, IoError> {
        match offset {
            0..0x1000 if self.window().is_some() => Ok((offset >> 4) as u8),
            _ => Err(IoError::NoSuchRegister),
        }
    }

    /// Reads a register; `None` if this mode has no such register.
    pub(super) fn read_register(&mut self, now: Tick, register: u8) -> Option<u32> {
        let state = &self.state;
        let x2apic = self.is_x2apic();
        Some(match register {
            ID if x2apic => self.config.id,
            ID => self.config.id << 24,
            VERSION => VERSION_VALUE,
            TPR => state.tpr.into(),
            APR if !x2apic => self.arbitration_priority().into(),
            PPR => self.ppr().into(),
            EOI | REMOTE_READ if !x2apic => 0,
            LDR if x2apic => State::x2apic_logical_id(self.config.id),
            LDR => u32::from(state.logical_id) << 24,
            DFR if !x2apic => u32::from(state.destination_format) << 28 | 0x0FFF_FFFF,
            SVR => state.svr,
            ISR..=ISR_LAST => state.isr.register(register - ISR),
            TMR..=TMR_LAST => state.tmr.register(register - TMR),
            IRR..=IRR_LAST => {
                self.advance(now);
                self.state.irr.register(register - IRR)
            }
            ESR => state.esr,
            ICR_LOW => state.icr as u32,
            ICR_HIGH if !x2apic => (state.icr >> 32) as u32,
            INITIAL_COUNT => state.timer.initial_count(),
            CURRENT_COUNT => {
                self.advance(now);
                self.current_count(now)
            }
            DIVIDE => state.timer.divide(),
            _ => state.lvt.get(LvtEntry::from_register(register)?),
        })
    }

    /// Writes a register. Reserved bits are ignored here (x2APIC mode has checked them); a register that does not exist
    /// is an error of the xAPIC.
    pub(super) fn write_register(&mut self, now: Tick, register: u8, value: u32) {
        match register {
            // The two that a system writes all the time come first and look at nothing else.
            EOI => self.eoi(),
            TPR => self.state.tpr = value as u8,
            LDR => self.state.logical_id = (value >> 24) as u8,
            DFR => self.state.destination_format = (value >> 28) as u8,
            SVR => {
                self.advance(now);
                self.state.svr = value & SVR_WRITABLE;
                if value & SVR_ENABLE == 0 {
                    self.state.lvt.mask_all();
                }
            }
            ESR => {
                self.advance(now);
                self.state.esr = std::mem::take(&mut self.state.errors);
            }
            ICR_LOW => {
                self.state.icr = self.state.icr & !0xFFFF_FFFF | u64::from(value) & super::icr::WRITABLE;
                self.send();
            }
            ICR_HIGH => self.state.icr = self.state.icr & 0xFFFF_FFFF | u64::from(value & 0xFF00_0000) << 32,
            INITIAL_COUNT => self.write_initial_count(now, value),
            DIVIDE => self.write_divide(now, value),
            ID | VERSION | APR | PPR | REMOTE_READ | ISR..=IRR_LAST | CURRENT_COUNT => {}
            _ => match LvtEntry::from_register(register) {
                Some(entry) => self.write_lvt(now, entry, value),
                None => self.error(ESR_ILLEGAL_REGISTER),
            },
        }
    }
}
