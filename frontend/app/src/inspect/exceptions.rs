//! `umbra inspect fault`: the exceptions that the guest met last, which check failed in which entry, and who wrote that entry.
//!
//! Entries and writers are known of exceptions since somebody looks: `--control`, a panel, or a run of `umbra inspect` itself. What nobody
//! saw is said to be unknown.

use serde_json::{Value, json};
use std::fmt::Write;
use umbra_machine::Machine;
use umbra_machine::cpu::exceptions::{Evidence, Met, TableEntry};
use umbra_machine::mmu::Writer;
use umbra_machine::mmu::explain::Refused;

/// Has what `umbra inspect` wants to know noted from now on, or no longer.
pub fn note(machine: &mut Machine, on: bool) {
    machine.memory().note_writers(on);
    if on {
        machine.vcpus_mut().iter_mut().for_each(umbra_machine::cpu::Vcpu::watch_descriptor_tables);
    }
}

/// Who wrote, in words.
pub fn writer(writer: Writer) -> String {
    match writer {
        Writer::Unknown => "unknown (not seen)".to_owned(),
        Writer::Vcpu(number, Some(rip)) => format!("vCPU {number} at RIP {rip:#x}"),
        Writer::Vcpu(number, None) => format!("vCPU {number}, RIP unknown"),
        Writer::Dma => "DMA".to_owned(),
        Writer::Outside => "loader or debugger".to_owned(),
    }
}

/// Two halves, in words once if they are the same.
fn writers(of: &[Writer]) -> String {
    let mut parts: Vec<String> = of.iter().map(|by| writer(*by)).collect();
    parts.dedup();
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let named = of.iter().enumerate().map(|(n, by)| format!("bytes {}–{}: {}", 4 * n, 4 * n + 3, writer(*by)));
    named.collect::<Vec<_>>().join(", ")
}

/// The exceptions of all vCPUs as text, oldest first.
pub fn text(machine: &Machine) -> String {
    let mut text = String::from("exceptions met last:\n");
    for (number, vcpu) in machine.vcpus().iter().enumerate() {
        let all = vcpu.exceptions.all();
        if all.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  vCPU {number}: none");
        }
        all.iter().for_each(|met| one(&mut text, number, met));
    }
    text
}

fn one(text: &mut String, number: usize, met: &Met) {
    let name = super::fault_name(&met.fault);
    let check = met.fault.check.text();
    let (cs, rip, cpl, retired) = (met.cs, met.rip, met.cpl, met.retired);
    let _ = writeln!(text, "  vCPU {number}, {cs:04x}:{rip:x}, CPL {cpl}, after {retired} instructions: {name}");
    match met.evidence.as_deref() {
        Some(Evidence::Walk(refused)) => walk(text, refused),
        Some(Evidence::Entry(found)) => {
            let _ = writeln!(text, "      check: {check}");
            entry(text, found);
        }
        None => {
            let _ = writeln!(text, "      check: {check}");
        }
    }
}

fn walk(text: &mut String, refused: &Refused) {
    let Some(check) = refused.check else {
        let _ = writeln!(text, "      check: page tables, which allow it by now");
        return;
    };
    let entries = refused.entries.iter().take(refused.count.into());
    for (n, (step, by)) in entries.enumerate() {
        let _ = write!(text, "      level {} [{:#x}] = {:#x}", step.level, step.at.0, step.value);
        if refused.by == Some(n as u8) {
            let _ = write!(text, "  ← {}; last written by {}", check.text(), writers(by));
        }
        text.push('\n');
    }
    if refused.by.is_none() {
        let _ = writeln!(text, "      a PDPTE register: {}", check.text());
    }
}

fn entry(text: &mut String, entry: &TableEntry) {
    let table = format!("{:?}", entry.table).to_uppercase();
    let _ = write!(text, "      {table} + {:#x}, linear {:#x}", entry.offset, entry.linear.0);
    match entry.at {
        Some(at) => {
            let _ = write!(text, ", guest-physical {:#x}", at.0);
        }
        None => text.push_str(", not mapped"),
    }
    match entry.len {
        0 => text.push_str(": beyond the limit\n"),
        len => {
            let halves: String =
                entry.bytes.iter().take((len / 8).max(1).into()).map(|half| format!(" {half:016x}")).collect();
            let _ =
                writeln!(text, " ={halves}\n      last written by {}", writers(&entry.writers[..usize::from(len / 4)]));
        }
    }
}

/// The same for programs.
pub fn data(machine: &Machine) -> Value {
    let of = |(number, met): (usize, &Met)| {
        json!({
            "vcpu": number, "instructions": met.retired, "cs": met.cs, "rip": format!("{:#x}", met.rip), "cpl": met.cpl,
            "vector": met.fault.vector, "error_code": met.fault.error_code, "linear": format!("{:#x}", met.fault.linear.0),
            "check": met.fault.check, "evidence": met.evidence.as_deref(),
        })
    };
    let vcpus = machine.vcpus().iter().enumerate();
    let all = vcpus.flat_map(|(number, vcpu)| vcpu.exceptions.all().into_iter().map(move |met| (number, met)));
    all.map(of).collect()
}
