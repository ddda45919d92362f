//! Virtual-8086 mode: entry by IRET, interrupts out of it, IOPL, the redirection bitmap.

use super::bench::*;
use umbra_cpu::state::control::cr4;
use umbra_cpu::state::{Seg, flags};

#[test]
fn iret_enters_and_an_interrupt_leaves() {
    let mut guest = Guest::protected(&[0xcf]);
    let frame = [0x100, 0x800, 0x2_0202, 0x500, 0x600, 0x11, 0x22, 0x33, 0x44];
    for (n, value) in frame.into_iter().enumerate() {
        guest.put::<u32>(STACK0 + 4 * n as u64, value);
    }
    guest.handlers();
    // int3 in the 8086 program
    guest.write(0x8100, &[0xcc]);
    guest.gate(3, gate(CODE0, HANDLERS, 0xee));
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.cpl, guest.cpu.state.v86()), ((0x800, 0x100), 3, true));
    let bases = Seg::ALL.map(|seg| guest.cpu.state.segment(seg).base);
    assert_eq!(bases, [0x110, 0x8000, 0x6000, 0x220, 0x330, 0x440]);
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.state.cpl, guest.cpu.state.v86()), ((CODE0, HANDLERS), 0, false));
    let pushed: Vec<u32> = (0..9).map(|n| guest.dword(STACK0 - 36 + 4 * n)).collect();
    assert_eq!(pushed, [0x101, 0x800, 0x2_0202, 0x500, 0x600, 0x11, 0x22, 0x33, 0x44]);
    assert_eq!([Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs].map(|seg| guest.selector(seg)), [0; 4]);
}

#[test]
fn a_handler_for_v86_must_be_at_level_0() {
    let mut guest = Guest::v86(&[0xcc]);
    guest.gate(3, gate(CODE3, HANDLERS, 0xee));
    assert_eq!(guest.fault(), (13, Some(0x18)));
    guest.gate(3, gate(CONFORMING, HANDLERS, 0xee));
    assert_eq!(guest.fault(), (13, Some(0x40)));
}

#[test]
fn sensitive_instructions_need_iopl_3() {
    for code in [&[0xfa][..], &[0xfb], &[0x9c], &[0x9d], &[0xcd, 0x21], &[0xcf]] {
        assert_eq!(Guest::v86(code).fault(), (13, Some(0)), "{code:x?}");
    }
    // cli with IOPL 3
    let mut guest = Guest::v86(&[0xfa]);
    guest.edit(|s| s.rflags |= flags::IOPL | flags::IF);
    guest.step(1);
    assert_eq!(guest.cpu.flags() & flags::IF, 0);
}

#[test]
fn int_goes_to_the_8086_handler_when_the_bitmap_says_so() {
    for redirected in [true, false] {
        let mut guest = Guest::v86(&[0xcd, 0x21]);
        guest.put(0x84, 0x0800_0300u32);
        guest.put(TSS + 0x68 + 4, if redirected { 0u8 } else { 2 });
        guest.edit(|s| {
            s.control.cr4 |= cr4::VME;
            s.rflags |= flags::VIF | flags::IF;
        });
        if !redirected {
            assert_eq!(guest.fault(), (13, Some(0)));
            continue;
        }
        guest.step(1);
        assert_eq!(guest.at(), (0x800, 0x300));
        assert_eq!(guest.word(STACK3 - 2), 0x3202, "IF is VIF, IOPL reads as 3");
        assert_eq!(guest.cpu.flags() & (flags::VIF | flags::IF | flags::VM), flags::IF | flags::VM);
    }
}

#[test]
fn vme_virtualises_the_interrupt_flag() {
    // cli; pushf; sti; popf
    let mut guest = Guest::v86(&[0xfa, 0x9c, 0xfb, 0x9d]);
    guest.edit(|s| {
        s.control.cr4 |= cr4::VME;
        s.rflags |= flags::VIF | flags::IF;
    });
    guest.step(2);
    assert_eq!((guest.cpu.flags() & flags::VIF, guest.word(STACK3 - 2)), (0, 0x3002));
    guest.step(1);
    assert_eq!(guest.cpu.flags() & flags::VIF, flags::VIF);
    guest.step(1);
    assert_eq!(guest.cpu.flags() & (flags::VIF | flags::IF), flags::IF);
    // sti with VIP pending
    let mut guest = Guest::v86(&[0xfb]);
    guest.edit(|s| {
        s.control.cr4 |= cr4::VME;
        s.rflags |= flags::VIP;
    });
    assert_eq!(guest.fault(), (13, Some(0)));
}
