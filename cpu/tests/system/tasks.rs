//! Hardware task switches.

use super::bench::*;
use umbra_cpu::helpers::interrupt::deliver_interrupt;
use umbra_cpu::state::control::cr0;
use umbra_cpu::state::{Seg, flags, slots};

/// The selectors of a task in the order of the TSS: ES, CS, SS, DS, FS, GS.
type Selectors = [u16; 6];
const KERNEL: Selectors = [DATA0, CODE0, DATA0, DATA0, DATA0, DATA0];

fn tss32(guest: &mut Guest, selectors: Selectors) {
    guest.put(TSS_B + 0x20, 0x9800u32);
    guest.put(TSS_B + 0x24, 0x0000_0802u32);
    for n in 0..8 {
        guest.put(TSS_B + 0x28 + 4 * n, 0x1000_0000 + n as u32);
    }
    guest.put(TSS_B + 0x38, 0x5800u32);
    for (n, selector) in selectors.into_iter().enumerate() {
        guest.put(TSS_B + 0x48 + 4 * n as u64, u32::from(selector));
    }
}

fn far(opcode: u8, selector: u16) -> Vec<u8> {
    [&[opcode, 0, 0, 0, 0][..], &selector.to_le_bytes()].concat()
}

#[test]
fn a_call_links_back_and_iret_returns() {
    let mut guest = Guest::protected(&far(0x9a, TSS_B_SEL));
    tss32(&mut guest, KERNEL);
    guest.write(0x9800, &[0xcf]);
    guest.edit(|s| {
        s.set_gpr(slots::RBX, 0x1234_5678);
        s.rflags |= flags::CF;
    });
    guest.step(1);
    assert_eq!((guest.at(), guest.rsp(), guest.gpr(slots::RDI)), ((CODE0, 0x9800), 0x5800, 0x1000_0007));
    assert_eq!(guest.cpu.flags(), 0x802 | flags::NT);
    assert_ne!(guest.cpu.state.control.cr0 & cr0::TS, 0);
    assert_eq!((guest.cpu.state.tr.selector, guest.word(TSS_B)), (TSS_B_SEL, TSS_SEL));
    assert_eq!((guest.dword(TSS + 0x20), guest.dword(TSS + 0x34)), (0x8007, 0x1234_5678));
    assert_eq!(guest.dword(TSS + 0x24), 3);
    assert_eq!(guest.quad(GDT + 0x48) >> 40 & 0xf, 0xb, "the new task is busy");
    assert_eq!(guest.quad(GDT + 0x28) >> 40 & 0xf, 0xb, "the old one too");
    guest.step(1);
    assert_eq!((guest.at(), guest.gpr(slots::RBX), guest.cpu.flags()), ((CODE0, 0x8007), 0x1234_5678, 3));
    assert_eq!(guest.quad(GDT + 0x48) >> 40 & 0xf, 9, "left by IRET");
    assert_eq!(guest.dword(TSS_B + 0x24) & flags::NT as u32, 0, "NT is clear in the saved image");
}

#[test]
fn a_jump_hands_over() {
    let mut guest = Guest::protected(&far(0xea, TSS_B_SEL));
    tss32(&mut guest, KERNEL);
    guest.step(1);
    assert_eq!((guest.at(), guest.cpu.flags()), ((CODE0, 0x9800), 0x802));
    assert_eq!((guest.quad(GDT + 0x28) >> 40 & 0xf, guest.quad(GDT + 0x48) >> 40 & 0xf), (9, 0xb));
}

#[test]
fn a_16_bit_task_loads_words() {
    let mut guest = Guest::protected(&far(0xea, TSS_16_SEL));
    for (at, value) in [(0x0e, 0x9800u16), (0x10, 2), (0x12, 0x1111), (0x1a, 0x5800)] {
        guest.put(TSS_16 + at, value);
    }
    for (at, value) in [(0x22, DATA16), (0x24, CODE16), (0x26, DATA16), (0x28, DATA16)] {
        guest.put(TSS_16 + at, value);
    }
    guest.step(1);
    assert_eq!((guest.at(), guest.gpr(slots::RAX) as u16, guest.rsp() as u16), ((CODE16, 0x9800), 0x1111, 0x5800));
    assert_eq!((guest.selector(Seg::Fs), guest.cpu.state.segment(Seg::Fs).usable()), (0, false));
}

#[test]
fn faults_before_the_switch_belong_to_the_old_task() {
    // (descriptor of the new TSS, fault)
    let rows = [
        (descriptor(TSS_B, 0x67, 0x8b), (13, Some(0x48))),
        (descriptor(TSS_B, 0x67, 0x09), (11, Some(0x48))),
        (descriptor(TSS_B, 0x66, 0x89), (10, Some(0x48))),
    ];
    for (raw, expected) in rows {
        let mut guest = Guest::protected(&far(0xea, TSS_B_SEL));
        tss32(&mut guest, KERNEL);
        guest.put(GDT + 0x48, raw);
        assert_eq!(guest.fault(), expected, "{raw:x}");
        assert_eq!((guest.cpu.state.tr.selector, guest.at().1), (TSS_SEL, CODE));
    }
}

#[test]
fn faults_after_the_switch_belong_to_the_new_task() {
    // (selectors, vector, error code)
    let rows: [(Selectors, u64, u32); 7] = [
        ([DATA0, DATA0, DATA0, DATA0, DATA0, DATA0], 10, 0x10),
        ([DATA0, CODE0, 0, DATA0, DATA0, DATA0], 10, 0),
        ([DATA0, CODE0, DATA3, DATA0, DATA0, DATA0], 10, 0x20),
        ([DATA0, CODE0, ABSENT_DATA, DATA0, DATA0, DATA0], 12, 0x78),
        ([DATA0, CODE0, DATA0, ABSENT_DATA, DATA0, DATA0], 11, 0x78),
        ([DATA0, CODE0, DATA0, DATA0, DATA0, TSS_SEL], 10, 0x28),
        ([DATA0, ABSENT_CODE, DATA0, DATA0, DATA0, DATA0], 11, 0x70),
    ];
    for (selectors, vector, error) in rows {
        let mut guest = Guest::protected(&far(0xea, TSS_B_SEL));
        tss32(&mut guest, selectors);
        // The handler is a task, so that the broken stack does not matter: back to the first one.
        guest.gate(vector, gate(TSS_SEL, 0, 0x85));
        guest.gate(8, gate(TSS_SEL, 0, 0x85));
        for (n, selector) in KERNEL.into_iter().enumerate() {
            guest.put(TSS + 0x48 + 4 * n as u64, u32::from(selector));
        }
        guest.step(1);
        assert_eq!(guest.cpu.state.tr.selector, TSS_SEL, "{selectors:x?}");
        assert_eq!(guest.word(TSS), TSS_B_SEL, "{selectors:x?}");
        assert_eq!(guest.dword(TSS_B + 0x20), 0x9800, "{selectors:x?}");
        assert_eq!(guest.dword(guest.rsp()), error, "{selectors:x?}");
    }
}

#[test]
fn an_interrupt_through_a_task_gate_nests() {
    let mut guest = Guest::protected(&[]);
    tss32(&mut guest, KERNEL);
    guest.gate(0x20, gate(TSS_B_SEL, 0, 0x85));
    deliver_interrupt(&mut guest.cpu, 0x20);
    assert_eq!((guest.at(), guest.rsp(), guest.word(TSS_B)), ((CODE0, 0x9800), 0x5800, TSS_SEL));
    assert_eq!(guest.dword(TSS + 0x20), CODE as u32);
}

#[test]
fn the_t_flag_traps_in_the_new_task() {
    let mut guest = Guest::protected(&far(0xea, TSS_B_SEL));
    tss32(&mut guest, KERNEL);
    guest.put(TSS_B + 0x64, 1u16);
    guest.handlers();
    guest.step(1);
    assert_eq!((guest.cpu.state.dr[6] & 1 << 15, guest.at()), (1 << 15, (CODE0, HANDLERS + 16)));
}
