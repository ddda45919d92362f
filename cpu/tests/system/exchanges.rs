//! CMPXCHG8B and CMPXCHG16B: registers, memory, ZF alone of the flags, and where the operand may lie.

use super::bench::*;
use umbra_cpu::state::{Seg, flags, slots};

/// Enough for emitted code, whatever comes before the jump to itself.
const MANY: u64 = 1000;

/// Registers and what lies at the operand, low half first.
struct Case {
    memory: [u64; 2],
    expected: [u64; 2],
    new: [u64; 2],
}

const EQUAL: Case = Case { memory: [0x1111_2222, 0x3333_4444], expected: [0x1111_2222, 0x3333_4444], new: [5, 6] };
const OTHER: Case = Case { memory: [0x1111_2222, 0x3333_4444], expected: [0x1111_2222, 0x3333_4445], new: [5, 6] };

fn set(guest: &mut Guest, case: &Case) {
    guest.edit(|s| {
        s.set_gpr(slots::RAX, case.expected[0]);
        s.set_gpr(slots::RDX, case.expected[1]);
        s.set_gpr(slots::RBX, case.new[0]);
        s.set_gpr(slots::RCX, case.new[1]);
        s.rflags |= flags::CF | flags::SF | flags::PF | flags::AF | flags::OF;
    });
}

fn check(guest: &Guest, case: &Case, memory: [u64; 2]) {
    let equal = case.memory == case.expected;
    let zf = if equal { flags::ZF } else { 0 };
    let others = flags::CF | flags::SF | flags::PF | flags::AF | flags::OF;
    assert_eq!(guest.cpu.flags() & flags::STATUS, others | zf);
    assert_eq!(memory, if equal { case.new } else { case.memory });
    assert_eq!([guest.gpr(slots::RAX), guest.gpr(slots::RDX)], case.memory, "the expected is what was there");
}

#[test]
fn eight_bytes_in_any_segment_and_over_the_end_of_a_page() {
    // [lock] cmpxchg8b fs:[edi] or [edi]; jmp to itself
    for code in [
        &[0x64, 0x0f, 0xc7, 0x0f, 0xeb, 0xfe][..],
        &[0x0f, 0xc7, 0x0f, 0xeb, 0xfe],
        &[0xf0, 0x0f, 0xc7, 0x0f, 0xeb, 0xfe],
    ] {
        for at in [0x4000u64, 0x4ffc, 0x4003] {
            for case in [EQUAL, OTHER] {
                let mut guest = Guest::protected(code);
                set(&mut guest, &case);
                let base = if code[0] == 0x64 { 0x1000 } else { 0 };
                guest.put(at, case.memory[0] as u32);
                guest.put(at + 4, case.memory[1] as u32);
                guest.edit(|s| {
                    s.seg[Seg::Fs as usize].base = 0x1000;
                    s.set_gpr(slots::RDI, at - base);
                });
                guest.step(MANY);
                check(&guest, &case, [guest.dword(at), guest.dword(at + 4)].map(u64::from));
            }
        }
    }
}

#[test]
fn beyond_the_limit_nothing_happens() {
    let mut guest = Guest::protected(&[0x64, 0x0f, 0xc7, 0x0f, 0xeb, 0xfe]);
    set(&mut guest, &EQUAL);
    guest.edit(|s| {
        s.seg[Seg::Fs as usize].limit = 0x4006;
        s.set_gpr(slots::RDI, 0x4000);
    });
    assert_eq!(guest.fault(), (13, Some(0)));
    assert_eq!((guest.gpr(slots::RAX), guest.dword(0x4000)), (EQUAL.expected[0], 0));
}

#[test]
fn sixteen_bytes_must_be_aligned() {
    // cmpxchg16b gs:[rdi] or [rdi]; jmp to itself
    for code in [&[0x65, 0x48, 0x0f, 0xc7, 0x0f, 0xeb, 0xfe][..], &[0x48, 0x0f, 0xc7, 0x0f, 0xeb, 0xfe]] {
        let base = if code[0] == 0x65 { 0x1000 } else { 0 };
        let start = |at: u64, case: &Case| {
            let mut guest = Guest::long(code);
            set(&mut guest, case);
            guest.edit(|s| {
                s.seg[Seg::Gs as usize].base = 0x1000;
                s.set_gpr(slots::RDI, at - base);
            });
            guest
        };
        for mut case in [EQUAL, OTHER] {
            for half in [&mut case.memory, &mut case.expected] {
                half[0] |= 7 << 40;
            }
            let mut guest = start(0x4010, &case);
            guest.put(0x4010, case.memory[0]);
            guest.put(0x4018, case.memory[1]);
            guest.step(MANY);
            check(&guest, &case, [guest.quad(0x4010), guest.quad(0x4018)]);
        }
        assert_eq!(start(0x4018, &EQUAL).fault(), (13, Some(0)));
    }
}
