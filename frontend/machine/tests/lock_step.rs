//! `--engine both`: equal engines stay equal through input and resets, and where two machines part, the instruction is named.
#![cfg(all(target_arch = "x86_64", not(portable)))]

use std::time::{Duration, Instant};
use umbra_machine::config::{Clock, Engine};
use umbra_machine::load::flat::FlatMode;
use umbra_machine::{FlatStart, Machine, MachineBuilder, RunEnd, RunLimits};
use umbra_mmu::GuestPhys;

fn builder(code: &[u8]) -> MachineBuilder {
    let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
    Machine::builder().memory(4 << 20).clock(Clock::Virtual).jit_threshold(1).flat("guest", code, start)
}

fn limits() -> RunLimits {
    RunLimits { deadline: Some(Instant::now() + Duration::from_secs(120)), ..RunLimits::default() }
}

/// Clears EDX (the model's signature at power-on), does `body` 40,000 times with ESI counting down, exits with status 1.
fn looped(body: &[u8]) -> Vec<u8> {
    let mut code = vec![0x31, 0xC0, 0x8E, 0xD8, 0x66, 0x31, 0xD2]; // xor ax, ax; mov ds, ax; xor edx, edx
    code.extend([0x66, 0xBE, 0x40, 0x9C, 0x00, 0x00]); // mov esi, 40000
    let top = code.len();
    code.extend(body);
    code.extend([0x66, 0x4E]); // dec esi
    let back = -((code.len() + 2 - top) as i8);
    code.extend([0x75, back as u8]); // jnz top
    code.extend([0xB0, 0x00, 0xE6, 0xF4, 0xF4]); // mov al, 0; out F4h, al; hlt
    code
}

#[test]
fn equal_engines_stay_equal() {
    // add ebx, esi; xor [1000h], ebx; rol dword [1004h], 3
    let body = [0x66, 0x01, 0xF3, 0x66, 0x31, 0x1E, 0x00, 0x10, 0x66, 0xC1, 0x06, 0x04, 0x10, 0x03];
    let mut machine = builder(&looped(&body)).engine(Engine::Both).build().expect("a pair");
    machine.input().serial(0, b"x");
    assert_eq!(machine.run(limits()), RunEnd::GuestExit(1), "{:?}", machine.divergence());
    machine.reset().expect("a reset");
    assert_eq!(machine.run(limits()), RunEnd::GuestExit(1), "{:?}", machine.divergence());
    // It was the JIT that the reference was compared with.
    let other = machine.other().expect("the other machine");
    let counters = other.vcpus()[0].link.jit.as_ref().expect("a JIT").counters();
    assert!(counters.units > 0 && other.retired() == machine.retired());
}

/// Two processor models differ in what CPUID says, in the middle of a long run.
#[test]
fn the_first_difference_is_named() {
    #[rustfmt::skip]
    let body = [
        0x66, 0x01, 0xF3,                                     // add ebx, esi
        0x66, 0x81, 0xFE, 0xD0, 0x07, 0x00, 0x00,             // cmp esi, 2000
        0x75, 0x0A,                                           // jne over
        0x66, 0xB8, 0x01, 0x00, 0x00, 0x00,                   // mov eax, 1
        0x0F, 0xA2,                                           // cpuid
        0x66, 0x90,                                           // xchg eax, eax
    ];
    let code = looped(&body);
    let cpuid = 0x7C00 + code.windows(2).position(|w| w == [0x0F, 0xA2]).expect("cpuid") as u64;
    let other = builder(&code).engine(Engine::Jit).cpu_model("x86-64-v2");
    let mut machine = Machine::in_lock_step(builder(&code), other).expect("a pair");
    let end = machine.run(limits());
    assert_eq!(end, RunEnd::Diverged);
    let divergence = machine.divergence().expect("a difference");
    println!("{}", divergence.text);
    assert_eq!(divergence.rip, Some(cpuid), "{}", divergence.text);
    assert!(divergence.text.contains("cpuid") && divergence.text.contains("host code"), "{}", divergence.text);
}

/// A difference that only memory shows.
#[test]
fn a_store_that_differs_is_named() {
    // CPUID's answer goes to memory; the registers that held it are cleared after it.
    #[rustfmt::skip]
    let body = [
        0x66, 0x81, 0xFE, 0xD0, 0x07, 0x00, 0x00,             // cmp esi, 2000
        0x75, 0x20,                                           // jne over
        0x66, 0xB8, 0x01, 0x00, 0x00, 0x00,                   // mov eax, 1
        0x0F, 0xA2,                                           // cpuid
        0x66, 0x89, 0x0E, 0x00, 0x20,                         // mov [2000h], ecx
        0x66, 0x31, 0xC0, 0x66, 0x31, 0xDB, 0x66, 0x31, 0xC9, 0x66, 0x31, 0xD2, // xor eax, eax; ebx; ecx; edx
        0x85, 0xC0, 0x90, 0x90, 0x90, 0x90, 0x90,             // test ax, ax; nop …
    ];
    let code = looped(&body);
    let other = builder(&code).engine(Engine::Jit).cpu_model("x86-64-v2");
    let mut machine = Machine::in_lock_step(builder(&code), other).expect("a pair");
    assert_eq!(machine.run(limits()), RunEnd::Diverged);
    let divergence = machine.divergence().expect("a difference");
    assert!(divergence.text.contains("guest memory differs"), "{}", divergence.text);
    let cpuid = 0x7C00 + code.windows(2).position(|w| w == [0x0F, 0xA2]).expect("cpuid") as u64;
    assert_eq!(divergence.rip, Some(cpuid), "{}", divergence.text);
}

#[test]
fn a_pair_that_sleeps_for_good_says_so() {
    // cli; hlt
    let mut machine = builder(&[0xFA, 0xF4]).engine(Engine::Both).build().expect("a pair");
    assert_eq!(machine.run(limits()), RunEnd::Asleep);
}
