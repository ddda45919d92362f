//! Far jumps, calls and returns, direct and through call gates.

use super::bench::*;
use umbra_cpu::state::control::cr0;
use umbra_cpu::state::{Seg, flags, slots};

/// jmp/call selector:offset (32-bit).
fn far(opcode: u8, selector: u16, offset: u32) -> Vec<u8> {
    [&[opcode][..], &offset.to_le_bytes(), &selector.to_le_bytes()].concat()
}

#[test]
fn direct_jumps_check_privilege_and_presence() {
    let rows: [(u16, bool, Option<Coded>); 9] = [
        (CODE0, false, None),
        (CODE3, false, Some((13, 0x18))),
        (CODE3, true, None),
        (CODE0, true, Some((13, 0x08))),
        (CONFORMING, true, None),
        (ABSENT_CODE, false, Some((11, 0x70))),
        (DATA0, false, Some((13, 0x10))),
        (0, false, Some((13, 0))),
        (0x90, false, Some((13, 0x90))),
    ];
    for (selector, user, expected) in rows {
        let code = far(0xea, selector, 0x8100);
        let mut guest = if user { Guest::user(&code) } else { Guest::protected(&code) };
        match expected {
            None => {
                guest.step(1);
                let cpl = if user { 3 } else { 0 };
                assert_eq!(guest.at(), (selector & 0xfffc | cpl, 0x8100));
            }
            Some((vector, code)) => assert_eq!(guest.fault(), (vector, Some(code)), "{selector:x}"),
        }
    }
}

#[test]
fn a_jump_beyond_the_limit_faults() {
    let mut guest = Guest::protected(&far(0xea, CODE16, 0x1_0000));
    assert_eq!(guest.fault(), (13, Some(0)));
}

#[test]
fn real_mode_far_call_and_return() {
    // call 0800h:0100h; there: retf 2
    let mut guest = Guest::real(&[0x9a, 0, 1, 0, 8]);
    guest.write(0x8100, &[0xca, 2, 0]);
    guest.step(1);
    assert_eq!((guest.at(), guest.rsp()), ((0x800, 0x100), STACK0 - 4));
    assert_eq!(guest.dword(STACK0 - 4), 0x8005);
    guest.step(1);
    assert_eq!((guest.at(), guest.rsp()), ((0, 0x8005), STACK0 + 2));
}

#[test]
fn a_call_gate_to_the_inner_level_switches_stacks_and_copies_parameters() {
    let mut guest = Guest::user(&far(0x9a, GATE, 0));
    guest.put(GDT + u64::from(GATE), gate(CODE0, 0x8200, 0xec) | 2 << 32);
    guest.put(STACK3, 0x1111_1111u32);
    guest.put(STACK3 + 4, 0x2222_2222u32);
    // retf 8
    guest.write(0x8200, &[0xca, 8, 0]);
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.cpl, guest.rsp()), ((CODE0, 0x8200), 0, STACK0 - 24));
    let frame: Vec<u32> = (0..6).map(|n| guest.dword(STACK0 - 24 + 4 * n)).collect();
    assert_eq!(frame, [0x8007, u32::from(CODE3), 0x1111_1111, 0x2222_2222, STACK3 as u32, u32::from(DATA3)]);
    assert_eq!(guest.selector(Seg::Ss), DATA0);
    guest.edit(|s| s.seg[Seg::Es as usize] = *s.segment(Seg::Ss));
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.cpl, guest.rsp()), ((CODE3, 0x8007), 3, STACK3 + 8));
    // ES held an inner data segment: now null. DS did not.
    assert_eq!((guest.selector(Seg::Es), guest.selector(Seg::Ds)), (0, DATA3));
}

#[test]
fn a_16_bit_gate_pushes_words() {
    let mut guest = Guest::protected(&far(0x9a, GATE, 0));
    guest.put(GDT + u64::from(GATE), gate(CODE16, 0x8200, 0x84));
    guest.step(1);
    assert_eq!((guest.at(), guest.rsp()), ((CODE16, 0x8200), STACK0 - 4));
    assert_eq!(guest.dword(STACK0 - 4), 0x8007 | u32::from(CODE0) << 16);
}

#[test]
fn call_gate_faults_name_the_right_selector() {
    // (gate, fault)
    let rows = [
        (gate(CODE0, 0x8200, 0x8c), (13, Some(0x60))),
        (gate(CODE0, 0x8200, 0x6c), (11, Some(0x60))),
        (gate(0, 0x8200, 0xec), (13, Some(0))),
        (gate(DATA0, 0x8200, 0xec), (13, Some(0x10))),
        (gate(ABSENT_CODE, 0x8200, 0xec), (11, Some(0x70))),
        (gate(0x98, 0x8200, 0xec), (13, Some(0x98))),
        (gate(CODE16, 0x1_0000, 0xec), (13, Some(0))),
    ];
    for (raw, expected) in rows {
        let mut guest = Guest::user(&far(0x9a, GATE, 0));
        guest.put(GDT + u64::from(GATE), raw);
        assert_eq!(guest.fault(), expected, "{raw:x}");
    }
}

#[test]
fn a_bad_stack_in_the_tss_is_an_invalid_tss() {
    let rows: [(u16, (u8, Option<u32>)); 5] = [
        (0, (10, Some(0))),
        (DATA3, (10, Some(0x20))),
        (CODE0, (10, Some(0x08))),
        (ABSENT_DATA, (12, Some(0x78))),
        (0x98, (10, Some(0x98))),
    ];
    for (ss, expected) in rows {
        let mut guest = Guest::user(&far(0x9a, GATE, 0));
        guest.put(GDT + u64::from(GATE), gate(CODE0, 0x8200, 0xec));
        guest.put(TSS + 8, u32::from(ss));
        assert_eq!(guest.fault(), expected, "{ss:x}");
        assert_eq!((guest.cpu.state.cpl, guest.rsp()), (3, STACK3));
    }
    let mut guest = Guest::user(&far(0x9a, GATE, 0));
    guest.put(GDT + u64::from(GATE), gate(CODE0, 0x8200, 0xec));
    guest.edit(|s| s.tr.limit = 8);
    assert_eq!(guest.fault(), (10, Some(0x28)));
}

#[test]
fn returns_refuse_inner_levels_and_bad_stacks() {
    // (CS, SS, fault)
    let rows: [(u16, u16, (u8, Option<u32>)); 5] = [
        (0, 0, (13, Some(0))),
        (DATA0, 0, (13, Some(0x10))),
        (CODE3, 0, (13, Some(0))),
        (CODE3, DATA0, (13, Some(0x10))),
        (ABSENT_CODE, 0, (11, Some(0x70))),
    ];
    for (cs, ss, expected) in rows {
        let mut guest = Guest::protected(&[0xcb]);
        for (n, value) in [0x8100, u32::from(cs), STACK3 as u32, u32::from(ss)].into_iter().enumerate() {
            guest.put(STACK0 + 4 * n as u64, value);
        }
        assert_eq!(guest.fault(), expected, "{cs:x} {ss:x}");
        assert_eq!(guest.rsp(), STACK0);
    }
    // A user cannot return inwards.
    let mut guest = Guest::user(&[0xcb]);
    guest.put(STACK3, 0x8100u32);
    guest.put(STACK3 + 4, u32::from(CODE0));
    assert_eq!(guest.fault(), (13, Some(0x08)));
}

#[test]
fn memory_operands_hold_far_pointers() {
    // jmp far [4000h]
    let mut guest = Guest::protected(&[0xff, 0x2d, 0, 0x40, 0, 0]);
    guest.put(0x4000, 0x8123u32);
    guest.put(0x4004, CONFORMING);
    guest.step(1);
    assert_eq!(guest.at(), (CONFORMING, 0x8123));
    assert_eq!(guest.gpr(slots::RSP), STACK0);
}

#[test]
fn a_misaligned_stack_is_an_alignment_fault_at_level_3_only() {
    // call CODE3:8100h; retf; iret: each with a stack that is two bytes off.
    let call = far(0x9a, CODE3, 0x8100);
    for (code, user) in [(&call[..], true), (&[0xcb], true), (&[0xcf], true), (&[0xcb], false), (&[0xcf], false)] {
        let mut guest = if user { Guest::user(code) } else { Guest::protected(code) };
        let (selector, rsp) = if user { (CODE3, STACK3) } else { (CODE0, STACK0) };
        guest.put(rsp - 0x102, 0x8100u32);
        guest.put(rsp - 0xfe, u32::from(selector));
        guest.put(rsp - 0xfa, 2u32);
        guest.edit(|s| {
            s.set_gpr(slots::RSP, rsp - 0x102);
            s.control.cr0 |= cr0::AM;
            s.rflags |= flags::AC;
        });
        if user {
            assert_eq!(guest.fault(), (17, Some(0)), "{code:x?}");
            assert_eq!(guest.rsp(), rsp - 0x102);
            guest.edit(|s| s.rflags &= !flags::AC);
        }
        guest.step(1);
        assert_eq!(guest.at(), (selector, 0x8100), "{code:x?}");
    }
}
