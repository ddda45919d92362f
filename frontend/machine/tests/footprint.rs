//! 64 MiB of guest code through a code cache of 32 MiB: the cache is emptied and filled again, and the result is right.
#![cfg(all(target_arch = "x86_64", not(portable)))]

use std::time::{Duration, Instant};
use umbra_machine::config::{Clock, Engine};
use umbra_machine::cpu::emit::DEFAULT_BYTES;
use umbra_machine::load::flat::FlatMode;
use umbra_machine::{FlatStart, Machine, RunEnd, RunLimits};
use umbra_mmu::GuestPhys;

/// Bytes of guest code, and of a block of it.
const CODE: usize = 64 << 20;
const BLOCK: usize = 256;
/// `add ecx, imm32`, as often as a block has room for beside its jump.
const ADDS: usize = (BLOCK - 2) / 6;
/// How often all of it runs.
const PASSES: u32 = 2;
/// Where the sum is left.
const RESULT: u64 = 0x8000;

/// The guest, and what it leaves.
fn guest() -> (Vec<u8>, u32) {
    let mut code = vec![0xBA]; // mov edx, PASSES
    code.extend(PASSES.to_le_bytes());
    code.extend([0x31, 0xC9]); // xor ecx, ecx
    let top = code.len();
    let (mut number, mut sum) = (1_u32, 0_u32);
    for _ in 0..CODE / BLOCK {
        let end = code.len() + BLOCK;
        for _ in 0..ADDS {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            sum = sum.wrapping_add(number);
            code.extend([0x81, 0xC1]); // add ecx, number
            code.extend(number.to_le_bytes());
        }
        code.extend([0xEB, (end - code.len() - 2) as u8]); // jmp to the next block
        code.resize(end, 0xCC);
    }
    code.extend([0x4A, 0x0F, 0x85]); // dec edx; jnz top
    code.extend((top as i32 - (code.len() as i32 + 4)).to_le_bytes());
    code.extend([0x89, 0x0D]); // mov [RESULT], ecx
    code.extend((RESULT as u32).to_le_bytes());
    code.extend([0xB0, 0x00, 0xE6, 0xF4, 0xF4]); // mov al, 0; out F4h, al; hlt
    (code, sum.wrapping_mul(PASSES))
}

#[test]
fn more_code_than_the_cache_holds() {
    let (code, sum) = guest();
    let start = FlatStart { at: GuestPhys(1 << 20), mode: FlatMode::Protected32 };
    let builder = Machine::builder().memory(80 << 20).clock(Clock::Virtual).engine(Engine::Jit).jit_threshold(1);
    let mut machine = builder.flat("guest", code, start).build().expect("a machine");
    let limits = RunLimits { deadline: Some(Instant::now() + Duration::from_secs(300)), ..RunLimits::default() };
    assert_eq!(machine.run(limits), RunEnd::GuestExit(1));
    let mut result = [0; 4];
    machine.memory().read(GuestPhys(RESULT), &mut result);
    assert_eq!(u32::from_le_bytes(result), sum);
    let counters = machine.vcpus()[0].link.jit.as_ref().expect("a JIT").counters();
    // Each pass emits everything: nothing of the first 32 MiB is left when the last of 64 has been made.
    assert!(counters.guest_bytes > u64::from(PASSES - 1) * CODE as u64, "{counters:?}");
    assert!(counters.flushes >= counters.host_bytes / DEFAULT_BYTES as u64, "{counters:?}");
    assert!(counters.flushes >= 2, "{counters:?}");
}
