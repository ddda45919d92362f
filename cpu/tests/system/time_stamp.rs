//! RDTSC and RDTSCP: what the board says, and what emitted code reads by itself from the line that the board gave.

use super::bench::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use umbra_cpu::bus::{Bus, MsrRefused, Retired, TscLine};
use umbra_cpu::state::control::cr4;
use umbra_cpu::state::slots;
use umbra_mmu::addr::RegionId;

/// A board that says [`START`], and gives a line that says something else.
struct Clock {
    line: TscLine,
    asked: Arc<AtomicU64>,
}

impl Bus for Clock {
    fn tsc(&mut self, _: Retired) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed);
        START
    }
    fn tsc_line(&mut self) -> TscLine {
        self.line
    }
    fn port_read(&mut self, _: Retired, _: u16, _: u8) -> u32 {
        0
    }
    fn port_write(&mut self, _: Retired, _: u16, _: u8, _: u32) {}
    fn mmio_read(&mut self, _: Retired, _: RegionId, _: u64, _: u8) -> u64 {
        0
    }
    fn mmio_write(&mut self, _: Retired, _: RegionId, _: u64, _: u8, _: u64) {}
    fn acknowledge_interrupt(&mut self, _: Retired) -> Option<u8> {
        None
    }
    fn take_startup_vector(&mut self) -> u8 {
        0
    }
    fn msr_read(&mut self, _: Retired, _: u32) -> Result<u64, MsrRefused> {
        Err(MsrRefused)
    }
    fn msr_write(&mut self, _: Retired, _: u32, _: u64) -> Result<(), MsrRefused> {
        Err(MsrRefused)
    }
    fn cr8(&mut self, _: Retired) -> u8 {
        0
    }
    fn set_cr8(&mut self, _: Retired, _: u8) {}
    fn set_ferr(&mut self, _: Retired, _: bool) {}
    fn apic_id(&self) -> u32 {
        0
    }
}

const START: u64 = 7 << 32;
/// What the line begins with.
const LINE: u64 = 9 << 32;
const OFFSET: u64 = 1 << 40;
const AUX: u64 = 0xabcd;
/// Enough for emitted code.
const MANY: u64 = 1000;

/// A guest whose clock is a line of `span` host counts from 0 on, with `rate`, and how often the board was asked.
fn guest(mut guest: Guest, span: u64, rate: u64) -> (Guest, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let line = TscLine { host: 0, span, tsc: LINE, rate };
    guest.cpu.connect(Box::new(Clock { line, asked: asked.clone() }));
    guest.edit(|s| {
        s.msr.tsc_offset = OFFSET;
        s.msr.tsc_aux = AUX;
    });
    (guest, asked)
}

/// EDX:EAX.
fn read(guest: &Guest) -> u64 {
    assert_eq!((guest.gpr(slots::RAX) >> 32, guest.gpr(slots::RDX) >> 32), (0, 0));
    guest.gpr(slots::RDX) << 32 | guest.gpr(slots::RAX)
}

// rdtsc; mov esi, eax; mov edi, edx; cmp eax, eax; rdtscp; setz bl; jmp to itself
const TWICE: [u8; 16] =
    [0x0f, 0x31, 0x89, 0xc6, 0x89, 0xd7, 0x39, 0xc0, 0x0f, 0x01, 0xf9, 0x0f, 0x94, 0xc3, 0xeb, 0xfe];

#[test]
fn the_second_look_is_at_the_line_of_the_first() {
    for start in [Guest::protected as fn(&[u8]) -> Guest, Guest::user] {
        let (mut guest, asked) = guest(start(&TWICE), u64::MAX, 0);
        guest.step(MANY);
        let first = guest.gpr(slots::RDI) << 32 | guest.gpr(slots::RSI);
        assert_eq!(first, START + OFFSET);
        // In the interpreter the board is asked each time.
        let by_line = guest.cpu.link.jit.is_some();
        let expected = if by_line { (1, LINE) } else { (2, START) };
        assert_eq!((asked.load(Ordering::Relaxed), read(&guest) - OFFSET), expected);
        assert_eq!((guest.gpr(slots::RCX), guest.gpr(slots::RBX) & 0xff), (AUX, 1), "TSC_AUX, and flags that stay");
    }
}

#[test]
fn a_line_rises_with_the_hosts_counter() {
    // rdtsc; rdtsc; shl rdx, 32; lea rsi, [rdx+rax]; rdtscp; jmp to itself
    let code = [0x0f, 0x31, 0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x8d, 0x34, 0x02, 0x0f, 0x01, 0xf9, 0xeb, 0xfe];
    // An eighth of the host's, which counts some 10^9 to 10^10 a second since it was started.
    let (mut guest, _) = guest(Guest::long(&code), u64::MAX, 1 << 29);
    let begin = std::time::Instant::now();
    guest.step(MANY);
    let most = begin.elapsed().as_nanos() as u64 * 10 / 8 + 1;
    if guest.cpu.link.jit.is_some() {
        let (before, after) = (guest.gpr(slots::RSI), read(&guest));
        assert!(before > LINE + OFFSET && after >= before && after - before <= most, "{before} {after} {most}");
    }
}

#[test]
fn a_line_that_has_ended_is_asked_for_again() {
    let (mut guest, asked) = guest(Guest::protected(&TWICE), 0, 0);
    guest.step(MANY);
    assert_eq!((asked.load(Ordering::Relaxed), read(&guest)), (2, START + OFFSET));
    assert_eq!((guest.gpr(slots::RCX), guest.gpr(slots::RBX) & 0xff), (AUX, 1));
}

#[test]
fn users_may_be_forbidden_to_look() {
    for code in [&[0x0f, 0x31][..], &[0x0f, 0x01, 0xf9]] {
        let (mut user, asked) = guest(Guest::user(code), u64::MAX, 0);
        user.edit(|s| {
            s.control.cr4 |= cr4::TSD;
            s.set_gpr(slots::RAX, 1);
            s.set_gpr(slots::RDX, 2);
        });
        assert_eq!(user.fault(), (13, Some(0)));
        assert_eq!((user.gpr(slots::RAX), user.gpr(slots::RDX), asked.load(Ordering::Relaxed)), (1, 2, 0));
        let (mut kernel, _) = guest(Guest::protected(code), u64::MAX, 0);
        kernel.edit(|s| s.control.cr4 |= cr4::TSD);
        kernel.step(1);
        assert_eq!(read(&kernel), START + OFFSET);
    }
}
