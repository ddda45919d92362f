//! (stand-in until the real one lands)
use crate::fault::Fault;
use crate::vcpu::Vcpu;
/// Delivers.
pub fn deliver_fault(_: &mut Vcpu, _: Fault) {}
/// Delivers.
pub fn deliver_interrupt(_: &mut Vcpu, _: u8) {}
/// Delivers.
pub fn deliver_nmi(_: &mut Vcpu) {}
/// INIT.
pub fn init_reset(_: &mut Vcpu) {}
/// SIPI.
pub fn startup(_: &mut Vcpu, _: u8) {}
