//! One look at a machine that stands still, as text for people and as JSON for programs.

use super::{exceptions, heat};
use crate::cli::InspectWhat;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use umbra_machine::Machine;
use umbra_machine::cpu::Vcpu;
use umbra_machine::cpu::state::Seg;
use umbra_machine::mmu::{Counters, FaultClass, Linear};

/// What there is to see.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Look {
    /// For people.
    pub text: String,
    /// For programs.
    pub data: Value,
    /// Nothing is wrong.
    pub clean: bool,
}

/// Looks. `at`: linear addresses to explain as the first processor has them.
pub fn look(machine: &mut Machine, what: InspectWhat, at: &[u64]) -> Look {
    let retired = machine.retired();
    let mut clean = true;
    let (mut text, mut data) = match what {
        InspectWhat::Audit => {
            let (text, is_clean) = super::audit(machine);
            clean = is_clean;
            let tlbs: Vec<_> = machine.vcpus().iter().map(|vcpu| vcpu.link.mmu.audit()).collect();
            (text, json!({ "monitor": machine.memory().audit(), "tlbs": tlbs }))
        }
        InspectWhat::Fault => {
            let mut data = classes(&machine.memory().counters());
            data["exceptions"] = exceptions::data(machine);
            (super::faults(machine), data)
        }
        InspectWhat::Reclaim => (super::host_memory(machine), host_memory(machine)),
        InspectWhat::Registers => {
            let vcpus = machine.vcpus();
            let text = vcpus.iter().enumerate().map(|(number, vcpu)| super::registers(number, vcpu)).collect();
            (text, json!({ "vcpus": vcpus.iter().map(registers).collect::<Vec<_>>() }))
        }
        InspectWhat::Tlb => {
            let entries: Vec<_> = machine.vcpus().iter().map(|vcpu| vcpu.link.mmu.audit().entries).collect();
            let tables: Vec<_> = machine.vcpus().iter().map(descriptors).collect();
            let counters = machine.memory().counters();
            (super::tlbs(machine), json!({ "entries": entries, "counters": counters, "descriptors": tables }))
        }
        InspectWhat::Roots => {
            let counters = machine.memory().counters();
            (super::roots(&counters), json!({ "counters": counters }))
        }
        InspectWhat::Heat => {
            let map = heat::HeatMap::of(machine);
            (map.legend(), map.data())
        }
        InspectWhat::Address => (String::new(), json!({})),
    };
    if let (Some(vcpu), Some(object)) = (machine.vcpus().first(), data.as_object_mut()) {
        if !at.is_empty() {
            let variants: Vec<_> = at.iter().map(|&linear| vcpu.link.mmu.explain(Linear(linear))).collect();
            object.insert("addresses".to_owned(), json!(variants));
            at.iter().for_each(|&linear| text.push_str(&super::three_variants(vcpu, linear)));
        }
        object.insert("instructions".to_owned(), json!(retired));
    }
    Look { text, data, clean }
}

/// A number as people write addresses.
fn hex(value: u64) -> Value {
    Value::String(format!("{value:#x}"))
}

fn classes(counters: &Counters) -> Value {
    let by_class: serde_json::Map<String, Value> = FaultClass::ALL
        .iter()
        .map(|&class| (super::class_name(class).to_owned(), counters.class(class).into()))
        .collect();
    json!({ "classes": by_class, "slow_accesses": counters.slow_accesses })
}

/// A vCPU's monitor descriptor tables.
pub fn descriptors(vcpu: &Vcpu) -> Value {
    let counters = vcpu.tables.counters;
    json!({
        "live": vcpu.tables.live(), "fills": counters.fills, "drops": counters.drops,
        "pages_that_check": counters.floods,
    })
}

fn host_memory(machine: &Machine) -> Value {
    let memory = machine.memory();
    let counters = memory.counters();
    let mut balloon = None;
    machine.input().with(|board| balloon = board.balloon_pages());
    json!({
        "frames": machine.memory_map().total() >> 12, "touched": memory.touched_frames(),
        "given_up": counters.monitor.discards, "reclaim": counters.reclaim,
        "balloon": balloon.map(|(asked, given)| json!({ "asked": asked, "given": given })),
    })
}

fn registers(vcpu: &Vcpu) -> Value {
    let (state, control) = (&vcpu.state, &vcpu.state.control);
    let general: Vec<Value> = (0..16).map(|number| hex(state.gpr(number))).collect();
    let segment = |name: &str, s: &umbra_machine::cpu::state::Segment| {
        let value = json!({ "selector": hex(s.selector.into()), "base": hex(s.base), "limit": hex(s.limit.into()), "rights": hex(s.rights.into()) });
        (name.to_owned(), value)
    };
    let segments: serde_json::Map<String, Value> = (["es", "cs", "ss", "ds", "fs", "gs"].into_iter().zip(Seg::ALL))
        .map(|(name, seg)| segment(name, state.segment(seg)))
        .chain([segment("ldtr", &state.ldtr), segment("tr", &state.tr)])
        .collect();
    json!({
        "mode": super::mode_name(state), "cpl": state.cpl, "general": general, "rip": hex(state.rip),
        "flags": hex(vcpu.flags()), "segments": segments,
        "gdtr": { "base": hex(state.gdtr.base), "limit": hex(state.gdtr.limit.into()) },
        "idtr": { "base": hex(state.idtr.base), "limit": hex(state.idtr.limit.into()) },
        "cr0": hex(control.cr0), "cr2": hex(control.cr2), "cr3": hex(control.cr3), "cr4": hex(control.cr4),
        "efer": hex(control.efer),
    })
}
