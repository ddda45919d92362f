//! Whole machines in lock-step: arbitrary code with the board around it, the interpreter beside emitted code.
//!
//! In real mode a prologue points every interrupt vector at a handler that steps over a byte, so that faults and timer
//! interrupts are part of the run; in the other modes the first fault ends it. Left out: several vCPUs, input from outside.

use arbitrary::{Result, Unstructured};
use std::time::{Duration, Instant};
use umbra_devices::clock::Tick;
use umbra_machine::config::{Clock, Engine};
use umbra_machine::load::flat::FlatMode;
use umbra_machine::mmu::GuestPhys;
use umbra_machine::{BuildError, FlatStart, Machine, RunEnd, RunLimits};

/// Guest time of a run in ns, and at most so many instructions: 22 timer interrupts, since the timer counts to 16.
const TIME: u64 = 300_000;
/// The most bytes of code.
const MOST: usize = 2000;

/// Real mode: fills the vector table, starts the timer, lets its interrupt in.
#[rustfmt::skip]
const PROLOGUE: &[u8] = &[
    0x31, 0xC0, 0x8E, 0xD8, 0x8E, 0xC0, 0x8E, 0xD0, // xor ax, ax; mov ds, ax; mov es, ax; mov ss, ax
    0xBC, 0x00, 0x7C, 0x31, 0xFF,                   // mov sp, 7C00h; xor di, di
    0xB9, 0x00, 0x01,                               // mov cx, 256
    0xB8, 0x38, 0x7C, 0xAB,                         // again: mov ax, handler; stosw
    0x31, 0xC0, 0xAB, 0xE2, 0xF7,                   // xor ax, ax; stosw; loop again
    0xB0, 0x13, 0xE6, 0x20, 0xB0, 0x08, 0xE6, 0x21, // mov al, 13h; out 20h, al; mov al, 8; out 21h, al
    0xB0, 0x01, 0xE6, 0x21, 0xB0, 0xFE, 0xE6, 0x21, // mov al, 1; out 21h, al; mov al, FEh; out 21h, al
    0xB0, 0x34, 0xE6, 0x43, 0xB0, 0x10, 0xE6, 0x40, // mov al, 34h; out 43h, al; mov al, 16; out 40h, al
    0xB0, 0x00, 0xE6, 0x40,                         // mov al, 0; out 40h, al
    0xFB, 0xEB, 0x0E,                               // sti; jmp over the handler
    0x50, 0xB0, 0x20, 0xE6, 0x20, 0x58,             // handler: push ax; mov al, 20h; out 20h, al; pop ax
    0x55, 0x89, 0xE5, 0xFF, 0x46, 0x02,             // push bp; mov bp, sp; inc word [bp + 2]
    0x5D, 0xCF,                                     // pop bp; iret
];

/// The target.
pub fn run(input: &[u8]) {
    let _ = play(&mut Unstructured::new(input));
}

fn play(input: &mut Unstructured<'_>) -> Result<()> {
    let mode = *input.choose(&[FlatMode::Real16, FlatMode::Real16, FlatMode::Protected32, FlatMode::Long64])?;
    let mut code = if mode == FlatMode::Real16 { PROLOGUE.to_vec() } else { Vec::new() };
    let length = input.len().min(MOST);
    code.extend(input.bytes(length)?);
    code.extend([0xEB, 0xFE]); // jmp here
    let start = FlatStart { at: GuestPhys(0x7C00), mode };
    let builder = Machine::builder().memory(2 << 20).clock(Clock::Virtual).engine(Engine::Both).jit_threshold(1);
    let mut machine = match builder.flat("guest", code.clone(), start).build() {
        Ok(machine) => machine,
        // A host without emitted code has nothing to compare.
        Err(BuildError::NoJit(_)) => return Ok(()),
        Err(problem) => panic!("a small machine: {problem}"),
    };
    let limits = RunLimits {
        until: Some(Tick(TIME)),
        deadline: Some(Instant::now() + Duration::from_secs(60)),
        ..RunLimits::default()
    };
    let end = machine.run(limits);
    if let Some(divergence) = machine.divergence() {
        panic!("{mode:?}, {code:02x?}\n{}", divergence.text);
    }
    assert!(end != RunEnd::TimedOut, "{mode:?}, {code:02x?}: {TIME} ns of guest time take more than a minute");
    Ok(())
}
