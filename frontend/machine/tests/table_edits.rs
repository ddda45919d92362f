//! The suites of gates and segments with a descriptor table edited between any two instructions (SHADOW-MMU S8, S9): an entry of
//! the GDT, LDT or IDT becomes another one by one kind of write, is looked up, so that the monitor has it as it should not be,
//! and becomes what it was by another kind. The suites pass if every write was seen.
//!
//! `UMBRA_EDITS=all`: to the end of each suite on each engine, ten minutes with optimisation. Else its beginning.

use std::path::Path;
use std::sync::{Arc, Mutex};
use umbra_cpu::Vcpu;
use umbra_cpu::state::control::cr0;
use umbra_machine::config::{Clock, Engine, MachineConfig, Size};
use umbra_machine::{Machine, MachineBuilder, RunEnd, RunLimits};
use umbra_mmu::{Dma, GuestPhys};

const RAM: u64 = 16 << 20;
/// Instructions of a suite that are executed.
const BEGINNING: u64 = 100_000;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// The CPU's own stores, a bus master, a debugger.
fn write(cpu: &mut Vcpu, writer: u64, at: u64, bytes: &[u8]) {
    match writer {
        0 => bytes.iter().zip(at..).for_each(|(byte, at)| cpu.store_system(at, *byte).expect("RAM")),
        1 => cpu.link.memory.dma().write(GuestPhys(at), bytes),
        _ => cpu.link.memory.write(GuestPhys(at), bytes),
    }
}

/// What the processor sees of an entry.
fn look(cpu: &mut Vcpu, selector: Option<u16>, vector: u8, at: u64) -> Vec<u64> {
    match selector {
        Some(selector) => cpu.descriptor(selector).ok().flatten().map(|found| found.0).into_iter().collect(),
        None => cpu.event_gate(vector, at, 8).ok().flatten().map(|gate| gate.offset).into_iter().collect(),
    }
}

/// Edits an entry and puts it back. Gives whether there was one.
fn edit(cpu: &mut Vcpu, random: &mut Random) -> bool {
    let state = &cpu.state;
    if state.control.cr0 & (cr0::PE | cr0::PG) != cr0::PE || state.v86() {
        return false;
    }
    let (base, limit, ti) = match random.below(3) {
        0 => (state.gdtr.base, u64::from(state.gdtr.limit), Some(0)),
        1 if state.ldtr.usable() && state.ldtr.selector > 3 => (state.ldtr.base, u64::from(state.ldtr.limit), Some(4)),
        _ => (state.idtr.base, u64::from(state.idtr.limit), None),
    };
    let entries = ((limit + 1) / 8).min(32);
    let rom = base + 8 * entries > 0xa_0000 && base < 0x10_0000;
    if entries < 2 || rom || base + 8 * entries > RAM {
        return false;
    }
    let index = 1 + random.below(entries - 1);
    let (at, selector) = (base + 8 * index, ti.map(|ti| (index << 3) as u16 | ti));
    let mut old = [0; 8];
    cpu.link.memory.read(GuestPhys(at), &mut old);
    let before = look(cpu, selector, index as u8, at);
    let mut new = old;
    new[random.below(8) as usize] ^= 1 << random.below(8);
    write(cpu, random.below(3), at, &new);
    let wrong = look(cpu, selector, index as u8, at);
    if selector.is_some() {
        assert_ne!(wrong, before, "entry {index} of the table at {base:x} is as it was before it was edited");
    }
    write(cpu, random.below(3), at, &old);
    assert_eq!(look(cpu, selector, index as u8, at), before, "entry {index} of the table at {base:x}");
    true
}

fn machine(name: &str, engine: Engine) -> Machine {
    let image = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../roms/suites/{name}.bin")));
    let config = MachineConfig { memory: Size(RAM), clock: Clock::Virtual, engine, ..MachineConfig::default() };
    MachineBuilder::from_config(&config).rom(name, image.expect("the suite's image")).build().expect("a machine")
}

/// `tolerance`: after so many writes the entries of a page check themselves.
fn run(name: &str, engine: Engine, most: u64, tolerance: u32) {
    let mut machine = machine(name, engine);
    machine.vcpus_mut()[0].tables.tolerate(tolerance);
    let said = Arc::new(Mutex::new(Vec::new()));
    let text = said.clone();
    machine.connect_serial(0, Box::new(move |bytes| text.lock().expect("the text").extend_from_slice(bytes)));
    let told = Arc::new(Mutex::new(Vec::new()));
    let text = told.clone();
    machine.connect_console(Box::new(move |bytes| text.lock().expect("the text").extend_from_slice(bytes)));
    let (mut random, mut edits, mut done) = (Random(0x1357_9bdf_0246), 0u64, 0u64);
    while done < most {
        let instructions = Some(machine.retired() + 1);
        match machine.run(RunLimits { instructions, ..RunLimits::default() }) {
            RunEnd::InstructionLimit => {}
            // A shutdown is one of the cases.
            RunEnd::Crashed(_) => machine.reset().expect("it starts again"),
            end => {
                assert_eq!(end, RunEnd::GuestExit(1), "{name}, {engine:?}, after {done} instructions");
                break;
            }
        }
        done += 1;
        let cpu = &mut machine.vcpus_mut()[0];
        cpu.link.mmu.unpark();
        edits += u64::from(edit(cpu, &mut random));
        cpu.link.mmu.park();
    }
    let told = told.lock().expect("the text");
    assert!(told.is_empty(), "{name}, {engine:?}: {}", String::from_utf8_lossy(&told).lines().next().unwrap_or(""));
    let counters = machine.vcpus()[0].tables.counters;
    println!("{name}, {engine:?}: {done} instructions, {edits} edits, {counters:?}");
    assert!(edits > done / 50 && counters.fills > edits / 10, "{edits} edits in {done} instructions, {counters:?}");
    let said = String::from_utf8_lossy(&said.lock().expect("the text")).trim().to_owned();
    assert!(most != u64::MAX || said.starts_with("passed: "), "{name}, {engine:?}: {said}");
}

#[test]
fn gates_and_segments_with_a_table_edited_between_any_two_instructions() {
    let most = if std::env::var("UMBRA_EDITS").as_deref() == Ok("all") { u64::MAX } else { BEGINNING };
    for engine in [Engine::Interp, Engine::Jit] {
        for name in ["gates", "segments"] {
            [1, u32::MAX].into_iter().for_each(|tolerance| run(name, engine, most, tolerance));
        }
    }
}
