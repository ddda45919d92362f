//! Virtual-8086 mode extensions: the interrupt redirection bitmap and the virtual interrupt flag
//! (SDM vol. 3, 21.2–21.4).
//!
//! Called by INT n; PUSHF, POPF, CLI, STI and IRET handle VIF themselves in `flags_io` and `iret`.

use super::interrupt::enter_real_handler;
use crate::check::Check;
use crate::fault::Fault;
use crate::state::control::cr4;
use crate::state::{InterruptShadow, flags};
use crate::vcpu::Vcpu;

/// Where a software interrupt of virtual-8086 mode goes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Redirected {
    /// It was delivered to the 8086 program's own handler.
    ToRealHandler,
    /// The protected-mode handler is to be entered through the IDT.
    ToMonitor,
}

/// The 32-byte redirection bitmap ends where the I/O permission bitmap begins; this is that pointer's place.
const TSS_IO_MAP_BASE: u64 = 0x66;

/// INT n in virtual-8086 mode: #GP(0), redirection, or on to the IDT.
pub fn software_interrupt(cpu: &mut Vcpu, vector: u8) -> Result<Redirected, Fault> {
    let iopl = cpu.state.iopl();
    if cpu.state.control.cr4 & cr4::VME == 0 || redirection_bit(cpu, vector)? {
        return if iopl == 3 { Ok(Redirected::ToMonitor) } else { Err(Fault::gp(0).because(Check::Iopl)) };
    }
    let target: u32 = cpu.load_linear(u64::from(vector) * 4)?;
    cpu.materialise_flags();
    let rflags = cpu.state.rflags;
    let (pushed, masked) = if iopl == 3 {
        (rflags, flags::IF)
    } else {
        let interrupt = if rflags & flags::VIF != 0 { flags::IF } else { 0 };
        (rflags & !flags::IF | interrupt | flags::IOPL, flags::VIF)
    };
    enter_real_handler(cpu, target, pushed)?;
    cpu.state.rflags &= !(masked | flags::TF | flags::RF);
    cpu.state.shadow = InterruptShadow::None;
    cpu.update_mode();
    Ok(Redirected::ToRealHandler)
}

/// The vector's bit in the redirection bitmap: set means that the monitor handles it.
fn redirection_bit(cpu: &mut Vcpu, vector: u8) -> Result<bool, Fault> {
    let tr = cpu.state.tr;
    let wide = tr.kind() & 8 != 0;
    if !wide || tr.limit < TSS_IO_MAP_BASE as u32 + 1 {
        return Err(Fault::gp(0).because(Check::Iopl));
    }
    let map: u16 = cpu.load_system(cpu.table_address(tr.base, TSS_IO_MAP_BASE)?)?;
    let at = u64::from(map).wrapping_sub(32).wrapping_add(u64::from(vector >> 3));
    if map < 32 || at > u64::from(tr.limit) {
        return Err(Fault::gp(0).because(Check::Iopl));
    }
    let byte: u8 = cpu.load_system(cpu.table_address(tr.base, at)?)?;
    Ok(byte >> (vector & 7) & 1 != 0)
}
