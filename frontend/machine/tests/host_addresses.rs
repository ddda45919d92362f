//! No address of the emulator's own reaches a guest: after runs with emitted code, all guest RAM is searched for values that lie in
//! one of this process's mappings, and x87 environments hold the guest's own instruction and data pointers.

use std::ops::Range;
use std::time::{Duration, Instant};
use umbra_machine::config::{Clock, Engine};
use umbra_machine::load::flat::FlatMode;
use umbra_machine::roms::{DEMO, TESTS};
use umbra_machine::{FlatStart, Machine, RunEnd, RunLimits};
use umbra_mmu::GuestPhys;

fn limits() -> RunLimits {
    RunLimits { deadline: Some(Instant::now() + Duration::from_secs(120)), ..RunLimits::default() }
}

/// What this process has mapped above 4 GiB.
fn mappings() -> Vec<Range<u64>> {
    let text = std::fs::read_to_string("/proc/self/maps").expect("this process's mappings");
    let number = |text: &str| u64::from_str_radix(text, 16).expect("an address");
    let range = |line: &str| {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        Some(number(from)..number(to))
    };
    text.lines().filter_map(range).filter(|range| range.start >> 32 != 0 && range.start >> 47 == 0).collect()
}

/// Where in guest RAM a value lies in one of the mappings, at any byte.
fn found(machine: &Machine, mappings: &[Range<u64>]) -> Option<(u64, u64)> {
    let (low, high) = (mappings.iter().map(|m| m.start).min()?, mappings.iter().map(|m| m.end).max()?);
    let mut bytes = vec![0; 4096 + 7];
    for (start, length) in machine.memory_map().ram_ranges() {
        for at in (start.0..start.0 + length).step_by(4096) {
            let whole = bytes.len().min((start.0 + length - at) as usize);
            machine.memory().read(GuestPhys(at), &mut bytes[..whole]);
            for (n, word) in bytes[..whole].windows(8).enumerate() {
                let value = u64::from_le_bytes(word.try_into().expect("eight bytes"));
                if (low..high).contains(&value) && mappings.iter().any(|mapping| mapping.contains(&value)) {
                    return Some((at + n as u64, value));
                }
            }
        }
    }
    None
}

#[test]
fn guest_memory_holds_no_host_address() {
    for rom in TESTS.iter().chain([&DEMO]) {
        let builder = Machine::builder().memory(16 << 20).clock(Clock::Virtual).engine(Engine::Jit).jit_threshold(1);
        let mut machine = builder.rom(rom.name, rom.image).build().expect("a machine");
        machine.run(limits());
        assert_eq!(found(&machine, &mappings()), None, "{}", rom.name);
    }
}

/// The search finds what it looks for.
#[test]
fn a_host_address_would_be_found() {
    let machine = Machine::builder().memory(4 << 20).rom("demo", DEMO.image).build().expect("a machine");
    let here = mappings().first().expect("a mapping").start + 16;
    machine.memory().write(GuestPhys(0x12345), &here.to_le_bytes());
    assert_eq!(found(&machine, &mappings()), Some((0x12345, here)));
}

/// x87 instructions in emitted code, then every instruction that stores an environment.
#[test]
fn saved_environments_hold_the_guest_s_own_pointers() {
    #[rustfmt::skip]
    let code = [
        0x31, 0xC0, 0x8E, 0xD8,             // xor ax, ax; mov ds, ax
        0xDB, 0xE3,                         // fninit
        0xB9, 0x40, 0x00,                   // mov cx, 64
        0xD9, 0x06, 0x00, 0x60,             // again: fld dword [6000h]
        0xD8, 0x06, 0x04, 0x60,             // fadd dword [6004h]
        0xDD, 0xD8,                         // fstp st0
        0xE2, 0xF4,                         // loop again
        0xD9, 0x36, 0x00, 0x50,             // fnstenv [5000h]
        0x66, 0xD9, 0x36, 0x40, 0x50,       // fnstenv [5040h], 32-bit
        0x0F, 0xAE, 0x06, 0x00, 0x52,       // fxsave [5200h]
        0xDD, 0x36, 0x00, 0x51,             // fnsave [5100h]
        0xB0, 0x00, 0xE6, 0xF4, 0xF4,       // mov al, 0; out F4h, al; hlt
    ];
    let mut images = Vec::new();
    for engine in [Engine::Interp, Engine::Jit] {
        let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
        let builder = Machine::builder().memory(4 << 20).clock(Clock::Virtual).engine(engine).jit_threshold(1);
        let mut machine = builder.flat("guest", code, start).build().expect("a machine");
        assert_eq!(machine.run(limits()), RunEnd::GuestExit(1));
        let mut image = vec![0; 0x400];
        machine.memory().read(GuestPhys(0x5000), &mut image);
        assert_eq!(found(&machine, &mappings()), None);
        images.push(image);
    }
    assert!(images[0].iter().any(|&byte| byte != 0));
    assert_eq!(images[0], images[1]);
}
