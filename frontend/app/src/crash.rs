//! The story of a guest that crashed: which exceptions led to the triple fault, where the processor stood, what lay there,
//! and how the addresses involved look to guest, monitor and host.

use crate::inspect;
use std::fmt::Write;
use umbra_machine::Machine;
use umbra_machine::cpu::fault::vector;

/// Tells the story of one vCPU.
pub fn story(machine: &Machine, number: usize) -> String {
    let Some(vcpu) = machine.vcpus().get(number) else { return String::new() };
    let mut text = format!("The guest crashed: vCPU {number} shut down after a triple fault.\n\nWhat led there:\n");
    let chain = &vcpu.link.fault_chain;
    if chain.is_empty() {
        text.push_str("  (the chain of faults was not recorded)\n");
    }
    for (rip, fault) in chain {
        let _ = writeln!(text, "  at {rip:#x}: {}", inspect::fault_name(fault));
    }
    text.push_str("  then: triple fault\n\n");
    text.push_str(&inspect::registers(number, vcpu));
    text.push_str("\nCode around RIP:\n");
    text.push_str(&inspect::around_rip(vcpu));
    text.push_str("\nAddresses in three variants:\n");
    let mut shown = vec![vcpu.linear_rip()];
    shown.extend(chain.iter().filter(|(_, fault)| fault.vector == vector::PF).map(|(_, fault)| fault.linear.0));
    shown.push(vcpu.state.idtr.base);
    let mut seen = std::collections::BTreeSet::new();
    for linear in shown.into_iter().filter(|linear| seen.insert(*linear)).take(6) {
        text.push_str(&inspect::three_variants(vcpu, linear));
    }
    text
}
