//! Delivery of interrupts and exceptions in real and protected mode, IRET, nesting.

use super::bench::*;
use umbra_cpu::Exit;
use umbra_cpu::helpers::interrupt::{deliver_interrupt, deliver_nmi};
use umbra_cpu::state::{Seg, flags, slots};
use umbra_mmu::attention::bits;

#[test]
fn real_mode_int_and_iret() {
    // int 21h; there: iret
    let mut guest = Guest::real(&[0xcd, 0x21]);
    guest.put(0x84, 0x0800_0100u32);
    guest.write(0x8100, &[0xcf]);
    guest.edit(|s| s.rflags |= flags::IF | flags::CF | flags::AC);
    guest.step(1);
    assert_eq!((guest.at(), guest.rsp()), ((0x800, 0x100), STACK0 - 6));
    assert_eq!((guest.word(STACK0 - 6), guest.word(STACK0 - 4), guest.word(STACK0 - 2)), (0x8002, 0, 0x203));
    assert_eq!(guest.cpu.flags() & (flags::IF | flags::AC | flags::CF), flags::CF);
    guest.step(1);
    assert_eq!((guest.at(), guest.rsp()), ((0, 0x8002), STACK0));
    assert_eq!(guest.cpu.flags() & 0xffff, 0x203);
}

#[test]
fn a_handler_may_begin_with_a_jump() {
    // nop; in the NMI handler: jmp $+4. In a segment that is not flat the jump's target is checked first.
    let mut guest = Guest::real(&[0x90]);
    guest.put(8, 0x0800_0100u32);
    guest.write(0x8100, &[0xeb, 0x02]);
    guest.cpu.link.attention.set(bits::NMI);
    guest.step(1);
    assert_eq!(guest.at(), (0x800, 0x104));
}

#[test]
fn a_frame_may_overwrite_its_own_handler() {
    // The NMI handler: inc bx. The frame, whose first word is 8040h, begins with inc ax.
    let mut guest = Guest::real(&[0x90]);
    guest.write(0x8040, &[0x90]);
    guest.put(8, 0x8100u32);
    guest.write(0x8100, &[0x43, 0x90]);
    for (sp, bx, ax) in [(STACK0, 1, 0), (0x8106, 1, 1)] {
        guest.edit(|state| {
            state.rip = 0x8040;
            state.nmi_blocked = false;
            state.set_gpr(slots::RSP, sp);
        });
        guest.cpu.link.attention.set(bits::NMI);
        guest.step(1);
        assert_eq!((guest.at(), guest.gpr(slots::RBX), guest.gpr(slots::RAX)), ((0, 0x8101), bx, ax));
    }
}

#[test]
fn an_exception_from_user_mode_switches_stacks_and_pushes_rf() {
    // mov eax, cr0 at CPL 3
    let mut guest = Guest::user(&[0x0f, 0x20, 0xc0]);
    guest.handlers();
    guest.write(HANDLERS + 13 * 16, &[0x90]);
    guest.edit(|s| s.rflags |= flags::IF);
    guest.step(1);
    assert_eq!(guest.at(), (CODE0, HANDLERS + 13 * 16 + 1));
    assert_eq!((guest.rsp(), guest.selector(Seg::Ss)), (STACK0 - 24, DATA0));
    let frame: Vec<u32> = (0..6).map(|n| guest.dword(STACK0 - 24 + 4 * n)).collect();
    assert_eq!(frame, [0, 0x8000, u32::from(CODE3), 0x1_0202, STACK3 as u32, u32::from(DATA3)]);
    assert_eq!(guest.cpu.flags() & flags::IF, 0);
}

#[test]
fn software_interrupts_check_the_gate_s_level() {
    for (code, vector) in [(&[0xcd, 0x40][..], 0x40u32), (&[0xcc][..], 3)] {
        let mut guest = Guest::user(code);
        guest.gate(u64::from(vector), gate(CODE0, HANDLERS, 0x8e));
        assert_eq!(guest.fault(), (13, Some(vector << 3 | 2)));
        guest.gate(u64::from(vector), gate(CODE0, HANDLERS, 0xee));
        guest.step(1);
        assert_eq!(guest.at(), (CODE0, HANDLERS));
        assert_eq!(guest.dword(STACK0 - 20), 0x8000 + code.len() as u32);
    }
    // INT1 is not checked.
    let mut guest = Guest::user(&[0xf1]);
    guest.handlers();
    guest.step(1);
    assert_eq!(guest.at(), (CODE0, HANDLERS + 16));
}

#[test]
fn into_traps_only_on_overflow() {
    let mut guest = Guest::protected(&[0xce, 0xce]);
    guest.handlers();
    guest.step(1);
    assert_eq!(guest.at().1, 0x8001);
    guest.edit(|s| s.rflags |= flags::OF);
    guest.step(1);
    assert_eq!(guest.at().1, HANDLERS + 4 * 16);
}

#[test]
fn idt_faults_carry_idt_and_ext() {
    // (gate, error of INT 20h, error of external interrupt 20h)
    let rows = [
        (0, (13, 0x102), (13, 0x103)),
        (gate(CODE0, HANDLERS, 0x6e), (11, 0x102), (11, 0x103)),
        (gate(0, HANDLERS, 0xee), (13, 0), (13, 1)),
        (gate(DATA0, HANDLERS, 0xee), (13, 0x10), (13, 0x11)),
        (gate(ABSENT_CODE, HANDLERS, 0xee), (11, 0x70), (11, 0x71)),
        (gate(CODE3, HANDLERS, 0xee), (13, 0x18), (13, 0x19)),
        (gate(CODE16, 0x1_0000, 0xee), (13, 0), (13, 1)),
    ];
    for (raw, software, external) in rows {
        let mut guest = Guest::protected(&[0xcd, 0x20]);
        guest.gate(0x20, raw);
        assert_eq!(guest.fault(), (software.0, Some(software.1)), "{raw:x}");
        guest.handlers();
        guest.gate(0x20, raw);
        deliver_interrupt(&mut guest.cpu, 0x20);
        assert_eq!(guest.at(), (CODE0, HANDLERS + 16 * u64::from(external.0 as u8)), "{raw:x}");
        assert_eq!(guest.dword(guest.rsp()), external.1, "{raw:x}");
        assert_eq!(guest.dword(guest.rsp() + 4), 0x8000);
    }
    let mut guest = Guest::protected(&[0xcd, 0x20]);
    guest.edit(|s| s.idtr.limit = 0xff);
    assert_eq!(guest.fault(), (13, Some(0x102)));
}

#[test]
fn trap_gates_keep_if_and_16_bit_gates_push_words() {
    let mut guest = Guest::protected(&[]);
    guest.gate(0x20, gate(CODE0, HANDLERS, 0x8f));
    guest.edit(|s| s.rflags |= flags::IF | flags::TF | flags::NT);
    deliver_interrupt(&mut guest.cpu, 0x20);
    assert_eq!(guest.cpu.state.rflags & (flags::IF | flags::TF | flags::NT), flags::IF);
    let mut guest = Guest::protected(&[]);
    guest.gate(0x20, gate(CODE16, 0x1_9000, 0x86));
    deliver_interrupt(&mut guest.cpu, 0x20);
    assert_eq!((guest.at(), guest.rsp()), ((CODE16, 0x9000), STACK0 - 6));
    assert_eq!(guest.dword(STACK0 - 6), 0x8000 | u32::from(CODE0) << 16);
}

#[test]
fn iret_returns_to_the_user_with_its_flags() {
    let mut guest = Guest::protected(&[0xcf]);
    let frame = [0x8100, u32::from(CODE3), 0x0020_3246, STACK3 as u32, u32::from(DATA3)];
    for (n, value) in frame.into_iter().enumerate() {
        guest.put(STACK0 + 4 * n as u64, value);
    }
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.cpl), ((CODE3, 0x8100), 3));
    assert_eq!((guest.rsp(), guest.selector(Seg::Ss)), (STACK3, DATA3));
    assert_eq!(guest.cpu.flags(), 0x0020_3246);
    assert_eq!((guest.selector(Seg::Ds), guest.cpu.state.segment(Seg::Ds).usable()), (0, false));
    // At CPL 3 IRET changes neither IF (IOPL 3 here allows it) nor IOPL.
    guest.edit(|s| s.rflags = 0x202);
    guest.write(0x8100, &[0xcf]);
    for (n, value) in [0x8200, u32::from(CODE3), 0x3046].into_iter().enumerate() {
        guest.put(STACK3 + 4 * n as u64, value);
    }
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.flags()), ((CODE3, 0x8200), 0x246));
}

#[test]
fn nmi_stays_blocked_until_iret_even_one_that_faults() {
    let mut guest = Guest::protected(&[]);
    guest.handlers();
    guest.write(HANDLERS + 32, &[0xcf]);
    deliver_nmi(&mut guest.cpu);
    assert!(guest.cpu.state.nmi_blocked);
    guest.put(guest.rsp() + 4, 0u32);
    guest.fault();
    assert!(!guest.cpu.state.nmi_blocked);
}

#[test]
fn a_second_contributory_fault_is_a_double_fault() {
    // #GP through a gate whose code segment is absent: #NP, so #DF.
    let mut guest = Guest::user(&[0x0f, 0x20, 0xc0]);
    guest.handlers();
    guest.gate(13, gate(ABSENT_CODE, HANDLERS, 0x8e));
    guest.write(HANDLERS + 8 * 16, &[0x90]);
    guest.step(1);
    assert_eq!(guest.at().1, HANDLERS + 8 * 16 + 1);
    assert_eq!((guest.dword(guest.rsp()), guest.dword(guest.rsp() + 4)), (0, 0x8000));
    // #UD is benign: its #NP is delivered as such.
    let mut guest = Guest::protected(&[0x0f, 0x0b]);
    guest.handlers();
    guest.gate(6, gate(ABSENT_CODE, HANDLERS, 0x8e));
    guest.write(HANDLERS + 11 * 16, &[0x90]);
    guest.step(1);
    assert_eq!((guest.at().1, guest.dword(guest.rsp())), (HANDLERS + 11 * 16 + 1, 0x71));
}

#[test]
fn a_third_fault_shuts_the_processor_down() {
    let mut guest = Guest::protected(&[0x0f, 0x0b]);
    guest.edit(|s| s.idtr.limit = 0);
    assert_eq!(guest.step(10), Exit::Shutdown);
    let chain: Vec<u8> = guest.cpu.link.fault_chain.iter().map(|(_, fault)| fault.vector).collect();
    assert_eq!(chain, [6, 13, 13, 8, 13]);
}

#[test]
fn a_frame_that_does_not_fit_changes_nothing() {
    // A stack of limit 8 bytes: INT 20h faults with #SS(0) and leaves memory and registers alone.
    let mut guest = Guest::protected(&[0xcd, 0x20]);
    guest.gate(0x20, gate(CODE0, HANDLERS, 0x8e));
    guest.edit(|s| {
        s.seg[Seg::Ss as usize].limit = 0x6ff7;
        s.set_gpr(slots::RSP, 0x6ffc);
    });
    guest.put(0x6ff8, 0u32);
    assert_eq!(guest.fault(), (12, Some(0)));
    assert_eq!((guest.rsp(), guest.dword(0x6ff8), guest.at().1), (0x6ffc, 0, CODE));
}

#[test]
fn single_step_traps_after_each_instruction_but_not_after_int() {
    // nop; int 20h
    let mut guest = Guest::protected(&[0x90, 0xcd, 0x20]);
    guest.handlers();
    guest.gate(0x20, gate(CODE0, 0xa000, 0x8e));
    guest.write(HANDLERS + 16, &[0xcf]);
    guest.write(0xa000, &[0x90]);
    guest.edit(|s| s.rflags |= flags::TF);
    guest.step(2);
    assert_eq!((guest.at().1, guest.cpu.state.dr[6] & 0x4000), (0x8001, 0x4000));
    guest.step(2);
    assert_eq!(guest.at().1, 0xa001);
}

#[test]
fn an_interrupt_that_waits_for_if_does_not_hold_code_up() {
    // inc eax; loop $-3; sti; nop
    let mut guest = Guest::protected(&[0x40, 0xe2, 0xfd, 0xfb, 0x90]);
    guest.edit(|state| {
        state.rflags &= !flags::IF;
        state.set_gpr(slots::RCX, 1000);
    });
    guest.cpu.link.attention.set(bits::INTR);
    guest.step(2000);
    assert_eq!((guest.gpr(slots::RCX), guest.cpu.link.counters.interrupts), (0, 0));
    // A look-up for each block would be a thousand.
    assert!(guest.cpu.link.counters.lookups < 100, "{}", guest.cpu.link.counters.lookups);
}
