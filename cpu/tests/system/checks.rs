//! What a person is told of an exception: the check that failed, the entry, who wrote it.

use super::bench::*;
use super::engine;
use umbra_cpu::check::Check;
use umbra_cpu::exceptions::{Evidence, Met, Table};
use umbra_cpu::state::Seg;
use umbra_mmu::walk::WalkCheck;
use umbra_mmu::writers::Writer;

/// Runs one instruction that faults; gives what was noted of it.
fn met(guest: &mut Guest) -> Met {
    guest.cpu.run(100);
    let all = guest.cpu.exceptions.all();
    all.first().map(|met| (*met).clone()).expect("an exception")
}

/// mov ds, ax with AX = a selector.
fn load_ds(selector: u16) -> Vec<u8> {
    [&[0x66, 0xb8][..], &selector.to_le_bytes(), &[0x8e, 0xd8]].concat()
}

fn entry(met: &Met) -> (Table, u32, u8, [u64; 2], [Writer; 4]) {
    match met.evidence.as_deref() {
        Some(Evidence::Entry(entry)) => (entry.table, entry.offset, entry.len, entry.bytes, entry.writers),
        other => panic!("{other:?}"),
    }
}

#[test]
fn loads_of_segments_name_their_check() {
    let rows = [
        (TSS_SEL, 13, Check::Kind),
        (DATA0, 13, Check::Privilege),
        (ABSENT_DATA | 3, 11, Check::Present),
        (0x90 | 3, 13, Check::BeyondTable),
        (0x0c | 3, 13, Check::BeyondTable),
    ];
    for (selector, vector, check) in rows {
        let mut guest = Guest::user(&load_ds(selector));
        // An absent segment of level 3.
        guest.put(GDT + u64::from(ABSENT_DATA), descriptor(0, 0xf_ffff, 0xc073));
        guest.step(1);
        let met = met(&mut guest);
        assert_eq!((met.fault.vector, met.fault.check, met.rip, met.cpl), (vector, check, CODE + 4, 3), "{selector:x}");
        assert_eq!(met.evidence, None, "nobody wanted to know");
    }
}

#[test]
fn other_instructions_do_so_too() {
    let far = |selector: u16| [&[0xea, 0, 0x81, 0, 0][..], &selector.to_le_bytes()].concat();
    let rows: [(Vec<u8>, bool, Check); 9] = [
        (far(CODE0), true, Check::Privilege),
        (far(0), false, Check::Null),
        (far(DATA0), false, Check::Kind),
        (far(ABSENT_CODE), false, Check::Present),
        // hlt; in al, 60h; lldt ax with AX = 0ffffh; int 20h through a gate that is not there; mov es:[..] beyond ES
        (vec![0xf4], true, Check::Level0),
        (vec![0xe4, 0x60], true, Check::Iopl),
        (vec![0xcd, 0x20], true, Check::Kind),
        (vec![0x26, 0xa0, 0, 0, 1, 0], false, Check::Limit(Seg::Es)),
        (vec![0x26, 0xa2, 0, 0, 0, 0], true, Check::Rights(Seg::Es)),
    ];
    for (code, user, check) in rows {
        let mut guest = if user { Guest::user(&code) } else { Guest::protected(&code) };
        guest.edit(|state| {
            let es = &mut state.seg[Seg::Es as usize];
            if user {
                es.rights = 0xc0f1
            } else {
                es.limit = 0xffff
            };
        });
        assert_eq!(met(&mut guest).fault.check, check, "{code:x?}");
    }
}

#[test]
fn a_descriptor_and_its_writer_are_found() {
    for name in engines() {
        // nop; mov dword [GDT + DATA0 + 4], 00cf1300h; mov ax, DATA0; mov ds, ax
        let at = (GDT + u64::from(DATA0) + 4) as u32;
        let store = [&[0x90, 0xc7, 0x05][..], &at.to_le_bytes(), &0x00cf_1300u32.to_le_bytes()].concat();
        let mut guest = Guest::protected(&[store, load_ds(DATA0)].concat());
        engine::named(&mut guest.cpu, name);
        guest.cpu.link.memory.note_writers(true);
        guest.cpu.watch_descriptor_tables();
        guest.step(3);
        let met = met(&mut guest);
        let writer = Writer::Vcpu(0, Some(CODE + 1));
        assert_eq!((met.fault.check, met.rip), (Check::Present, CODE + 15), "{name}");
        let expected = (Table::Gdt, 0x10, 8, [0x00cf_1300_0000_ffff, 0]);
        let (table, offset, len, bytes, writers) = entry(&met);
        assert_eq!((table, offset, len, bytes), expected, "{name}");
        assert_eq!(writers[..2], [Writer::Unknown, writer], "{name}: nobody saw who wrote the first half");
    }
}

#[test]
fn gates_are_found_in_the_idt() {
    // int 20h, whose gate a bus master has overwritten.
    let mut guest = Guest::long(&[0xcd, 0x20]);
    guest.cpu.link.memory.note_writers(true);
    guest.cpu.watch_descriptor_tables();
    let mut dma = guest.cpu.link.memory.dma();
    umbra_mmu::Dma::write(&mut dma, umbra_mmu::GuestPhys(IDT + 0x200), &[0x55; 8]);
    let met = met(&mut guest);
    let (table, offset, len, bytes, writers) = entry(&met);
    assert_eq!((table, offset, len, bytes[0]), (Table::Idt, 0x200, 16, 0x5555_5555_5555_5555));
    assert_eq!(writers, [Writer::Dma, Writer::Dma, Writer::Unknown, Writer::Unknown]);
}

#[test]
fn a_page_fault_names_level_entry_and_writer() {
    for name in engines() {
        // mov qword [12000h], 0; mov al, [8000h in another 2 MiB]: the store takes the mapping of everything away.
        let store = [0x48, 0xc7, 0x04, 0x25, 0x00, 0x20, 0x01, 0x00, 0, 0, 0, 0];
        let mut guest = Guest::long(&[&[0x90][..], &store].concat());
        engine::named(&mut guest.cpu, name);
        guest.cpu.link.memory.note_writers(true);
        // Its code lies in the second 2 MiB, the same page again.
        guest.put(0x12008, 0x87u64);
        guest.edit(|state| state.rip = 0x20_0000 + CODE);
        guest.write(CODE + 13, &[0x8a, 0x04, 0x25, 0, 0x80, 0, 0]);
        guest.step(2);
        let met = met(&mut guest);
        assert_eq!((met.fault.vector, met.fault.check, met.rip), (14, Check::Walk, 0x20_0000 + CODE + 13), "{name}");
        let Some(Evidence::Walk(refused)) = met.evidence.as_deref() else { panic!("{met:?}") };
        assert_eq!((refused.count, refused.by, refused.check), (3, Some(2), Some(WalkCheck::Present)), "{name}");
        let (step, writers) = refused.entries[2];
        assert_eq!((step.level, step.at.0, step.value), (2, 0x12000, 0), "{name}");
        assert_eq!(writers, [Writer::Vcpu(0, Some(0x20_0000 + CODE + 1)); 2], "{name}");
    }
}
