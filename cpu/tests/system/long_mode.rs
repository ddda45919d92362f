//! 64-bit mode: interrupts with and without IST, IRETQ, SYSCALL, compatibility mode.

use super::bench::*;
use super::engine;
use umbra_cpu::helpers::interrupt::deliver_interrupt;
use umbra_cpu::state::{Seg, flags, slots};

#[test]
fn an_interrupt_from_user_mode_takes_rsp0_and_a_null_ss() {
    let mut guest = Guest::long_user(&[]);
    guest.handlers();
    guest.gate(0x20, gate(CODE0, HANDLERS, 0x8e));
    guest.put(TSS + 4, STACK0 + 8);
    deliver_interrupt(&mut guest.cpu, 0x20);
    assert_eq!((guest.at(), guest.cpu.state.cpl, guest.rsp()), ((CODE0, HANDLERS), 0, STACK0 - 40));
    assert_eq!(guest.selector(Seg::Ss), 0);
    let frame: Vec<u64> = (0..5).map(|n| guest.quad(STACK0 - 40 + 8 * n)).collect();
    assert_eq!(frame, [CODE, u64::from(CODE3), 2, STACK3, u64::from(DATA3)]);
    // iretq
    guest.write(HANDLERS, &[0x48, 0xcf]);
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.cpl, guest.rsp()), ((CODE3, CODE), 3, STACK3));
    assert_eq!(guest.selector(Seg::Ss), DATA3);
}

#[test]
fn same_level_interrupts_align_the_stack_and_iretq_restores_it() {
    let mut guest = Guest::long(&[]);
    guest.gate(0x20, gate(CODE0, HANDLERS, 0x8e));
    guest.edit(|s| s.set_gpr(slots::RSP, STACK0 - 5));
    deliver_interrupt(&mut guest.cpu, 0x20);
    assert_eq!((guest.rsp(), guest.selector(Seg::Ss)), (STACK0 - 16 - 40, DATA0));
    guest.write(HANDLERS, &[0x48, 0xcf]);
    guest.step(1);
    assert_eq!((guest.at(), guest.rsp()), ((CODE0, CODE), STACK0 - 5));
}

#[test]
fn the_interrupt_stack_table_is_used_at_any_level() {
    for ist in [1u64, 2] {
        let mut guest = Guest::long(&[0x0f, 0x0b]);
        guest.handlers();
        guest.gate(6, gate(CODE0, HANDLERS, 0x8e) | ist << 32);
        guest.put(TSS + 0x2c, 0x0001_0000_0000_0000u64);
        guest.write(HANDLERS, &[0x90]);
        guest.write(HANDLERS + 12 * 16, &[0x90]);
        guest.step(1);
        if ist == 1 {
            assert_eq!((guest.at().1, guest.rsp()), (HANDLERS + 1, IST1 - 40));
        } else {
            // A stack that is not canonical: #SS.
            assert_eq!(guest.at().1, HANDLERS + 12 * 16 + 1);
        }
    }
}

#[test]
fn page_faults_set_cr2_and_push_their_code() {
    // mov rax, [ffff800000000000h]
    let mut guest = Guest::long(&[0x48, 0xa1, 0, 0, 0, 0, 0, 0x80, 0xff, 0xff]);
    guest.handlers();
    guest.write(HANDLERS + 14 * 16, &[0x90]);
    guest.step(1);
    assert_eq!(guest.at().1, HANDLERS + 14 * 16 + 1);
    assert_eq!((guest.cpu.state.control.cr2, guest.quad(guest.rsp())), (0xffff_8000_0000_0000, 0));
    assert_eq!(guest.quad(guest.rsp() + 24) & flags::RF, flags::RF);
}

#[test]
fn syscall_and_sysret_by_the_star_register() {
    // syscall; at the kernel: sysretq
    let mut guest = Guest::long_user(&[0x0f, 0x05]);
    guest.write(HANDLERS, &[0x48, 0x0f, 0x07]);
    guest.edit(|s| {
        s.msr.star = 0x0013_0008_0000_0000;
        s.msr.lstar = HANDLERS;
        s.msr.fmask = flags::IF | flags::TF;
        s.rflags |= flags::IF | flags::CF;
    });
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.cpl, guest.selector(Seg::Ss)), ((CODE0, HANDLERS), 0, DATA0));
    assert_eq!((guest.gpr(slots::RCX), guest.gpr(11)), (CODE + 2, 0x203));
    assert_eq!(guest.cpu.flags(), 3);
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.cpl, guest.selector(Seg::Ss)), ((0x23, CODE + 2), 3, 0x1b));
    assert_eq!(guest.cpu.flags(), 0x203);
}

#[test]
fn sysret_to_a_non_canonical_address_faults_in_the_kernel() {
    let mut guest = Guest::long(&[0x48, 0x0f, 0x07]);
    guest.edit(|s| s.set_gpr(slots::RCX, 0x0000_8000_0000_0000));
    assert_eq!(guest.fault(), (13, Some(0)));
    assert_eq!(guest.cpu.state.cpl, 0);
}

#[test]
fn sysenter_is_invalid_in_long_mode_on_amd() {
    let mut guest = Guest::long(&[0x0f, 0x34]);
    assert_eq!(guest.fault(), (6, None));
    let mut guest = Guest::user(&[0x0f, 0x34]);
    guest.edit(|s| {
        s.msr.sysenter_cs = 8;
        s.msr.sysenter_eip = 0x8400;
        s.msr.sysenter_esp = 0x5000;
    });
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.cpl, guest.rsp()), ((CODE0, 0x8400), 0, 0x5000));
    // sysexit
    guest.write(0x8400, &[0x0f, 0x35]);
    guest.edit(|s| {
        s.set_gpr(slots::RDX, 0x8500);
        s.set_gpr(slots::RCX, 0x4800);
    });
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.cpl, guest.rsp()), ((0x1b, 0x8500), 3, 0x4800));
}

#[test]
fn far_return_enters_compatibility_mode_and_a_gate_leaves_it() {
    // retf to 32-bit code at the same level; there: int 20h
    let mut guest = Guest::long(&[0xcb]);
    guest.put(STACK0, 0x8800u32);
    guest.put(STACK0 + 4, u32::from(CODE16));
    guest.write(0x8800, &[0xcd, 0x20]);
    guest.gate(0x20, gate(CODE0, HANDLERS, 0x8e));
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.code64(), guest.rsp()), ((CODE16, 0x8800), false, STACK0 + 8));
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.code64()), ((CODE0, HANDLERS), true));
    assert_eq!(guest.quad(guest.rsp()), 0x8802);
}

#[test]
fn swapgs_and_segment_bases() {
    // swapgs; wrgsbase rax; rdgsbase rcx
    let mut guest = Guest::long(&[0x0f, 0x01, 0xf8, 0xf3, 0x48, 0x0f, 0xae, 0xd8, 0xf3, 0x48, 0x0f, 0xae, 0xc9]);
    guest.edit(|s| {
        s.control.cr4 |= 1 << 16;
        s.msr.kernel_gs_base = 0x1234;
        s.set_gpr(slots::RAX, 0xffff_8000_0000_1000);
    });
    guest.step(1);
    assert_eq!(guest.cpu.state.segment(Seg::Gs).base, 0x1234);
    guest.step(2);
    assert_eq!(guest.gpr(slots::RCX), 0xffff_8000_0000_1000);
    guest.edit(|s| {
        s.set_gpr(slots::RAX, 1 << 62);
        s.rip = CODE + 3;
    });
    assert_eq!(guest.fault(), (13, Some(0)));
}

#[test]
fn a_64_bit_call_gate_switches_to_rsp0() {
    // call far [4000h]
    let mut guest = Guest::long_user(&[0xff, 0x1c, 0x25, 0, 0x40, 0, 0]);
    guest.put(0x4000, 0u32);
    guest.put(0x4004, GATE);
    guest.put(GDT + u64::from(GATE), gate(CODE0, HANDLERS, 0xec));
    guest.put(GDT + u64::from(GATE) + 8, 0u64);
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.cpl, guest.rsp()), ((CODE0, HANDLERS), 0, STACK0 - 32));
    let frame: Vec<u64> = (0..4).map(|n| guest.quad(STACK0 - 32 + 8 * n)).collect();
    assert_eq!(frame, [CODE + 7, u64::from(CODE3), STACK3, u64::from(DATA3)]);
    // retfq
    guest.write(HANDLERS, &[0x48, 0xcb]);
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.cpl, guest.rsp()), ((CODE3, CODE + 7), 3, STACK3));
}

/// An operand that is not canonical is #GP through DS and #SS through SS, where an instruction has both kinds too.
#[test]
fn stack_and_operand_have_their_own_exceptions() {
    // (code, RSP, RCX, vector): CALL [RCX], CALL RCX, PUSH [RCX], POP [RCX].
    let (good, bad) = (STACK0, 0x9000_0000_0000);
    let cases: [(&[u8], u64, u64, u8); 7] = [
        (&[0xff, 0x11], bad, 0x4000, 12),
        (&[0xff, 0x11], good, bad, 13),
        (&[0xff, 0xd1], bad, CODE, 12),
        (&[0xff, 0x31], bad, 0x4000, 12),
        (&[0xff, 0x31], good, bad, 13),
        (&[0x8f, 0x01], bad, 0x4000, 12),
        (&[0x8f, 0x01], good, bad, 13),
    ];
    for engine in engines() {
        for (code, rsp, rcx, vector) in cases {
            let mut guest = Guest::long(code);
            engine::named(&mut guest.cpu, engine);
            guest.edit(|state| {
                state.set_gpr(slots::RSP, rsp);
                state.set_gpr(slots::RCX, rcx);
            });
            let (rip, fault) = guest.cpu.run_until_fault(10).expect_err("not canonical");
            assert_eq!((rip, fault.vector, fault.error_code), (CODE, vector, Some(0)), "{code:x?} {engine}");
            assert_eq!(guest.rsp(), rsp, "{code:x?} {engine}");
        }
    }
}
