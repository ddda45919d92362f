//! Ports, their permission bitmap, string I/O, and the flag instructions that share IOPL.

use super::bench::*;
use umbra_cpu::state::{flags, slots};

#[test]
fn in_reads_ones_from_an_open_bus_in_its_width() {
    for (code, expected) in [(&[0xec][..], 0x1234_56ffu64), (&[0x66, 0xed], 0x1234_ffff), (&[0xed], 0xffff_ffff)] {
        let mut guest = Guest::protected(code);
        guest.edit(|s| s.set_gpr(slots::RAX, 0x1234_5678));
        guest.step(1);
        assert_eq!(guest.gpr(slots::RAX), expected);
    }
}

#[test]
fn users_need_iopl_or_the_bitmap() {
    // in al, 42h
    let code = [0xe4, 0x42];
    assert_eq!(Guest::user(&code).fault(), (13, Some(0)));
    let mut guest = Guest::user(&code);
    guest.edit(|s| s.rflags |= flags::IOPL);
    guest.step(1);
    let mut guest = Guest::user(&code);
    guest.put(TSS + 0x88 + 8, 0xfbu8);
    guest.step(1);
    // A doubleword needs all four bits clear: in eax, 42h
    let mut guest = Guest::user(&[0xe5, 0x42]);
    guest.put(TSS + 0x88 + 8, 0xfbu8);
    assert_eq!(guest.fault(), (13, Some(0)));
    guest.put(TSS + 0x88 + 8, 0xc3u8);
    guest.step(1);
    // The bitmap ends with the TSS.
    let mut guest = Guest::user(&code);
    guest.put(TSS + 0x88 + 8, 0u8);
    guest.edit(|s| s.tr.limit = 0x90);
    assert_eq!(guest.fault(), (13, Some(0)));
}

#[test]
fn rep_ins_commits_each_element() {
    // rep insw into the end of a segment: the third element is beyond its limit
    let mut guest = Guest::protected(&[0xf3, 0x66, 0x6d]);
    guest.edit(|s| {
        s.seg[0].limit = 0x4fff;
        s.set_gpr(slots::RDI, 0x4ffc);
        s.set_gpr(slots::RCX, 5);
    });
    assert_eq!(guest.fault(), (13, Some(0)));
    assert_eq!((guest.gpr(slots::RDI), guest.gpr(slots::RCX)), (0x5000, 3));
    assert_eq!((guest.dword(0x4ffc), guest.cpu.state.retired, guest.at().1), (u32::MAX, 2, CODE));
}

#[test]
fn rep_outs_stops_at_the_budget() {
    // rep outsb; nop
    let mut guest = Guest::protected(&[0xf3, 0x6e, 0x90]);
    guest.edit(|s| s.set_gpr(slots::RCX, 10));
    guest.step(4);
    assert_eq!((guest.gpr(slots::RCX), guest.gpr(slots::RSI), guest.cpu.state.retired), (6, 4, 4));
    assert_eq!(guest.at().1, CODE);
    guest.step(7);
    assert_eq!((guest.gpr(slots::RCX), guest.cpu.state.retired, guest.at().1), (0, 11, CODE + 3));
}

#[test]
fn popf_changes_iopl_and_if_only_with_privilege() {
    // popf with all of the flags set in the image
    let kernel = {
        let mut guest = Guest::protected(&[0x9d]);
        guest.put(STACK0, 0x003f_7fd5u32 & !0x100);
        guest.step(1);
        guest.cpu.flags()
    };
    assert_eq!(kernel, 0x0024_7ed7);
    let mut guest = Guest::user(&[0x9d]);
    guest.put(STACK3, 0x003f_7fd5u32 & !0x100);
    guest.step(1);
    assert_eq!(guest.cpu.flags(), 0x0024_4cd7);
}

#[test]
fn cli_and_sti_obey_iopl() {
    assert_eq!(Guest::user(&[0xfa]).fault(), (13, Some(0)));
    let mut guest = Guest::protected(&[0xfb, 0x9c, 0xfa]);
    guest.step(2);
    assert_eq!(guest.dword(STACK0 - 4) & 0x200, 0x200);
    guest.step(1);
    assert_eq!(guest.cpu.flags() & 0x200, 0);
}
