//! Segment loads, descriptor tables, queries about selectors.

use super::bench::*;
use umbra_cpu::state::{InterruptShadow, Seg, Segment, slots};

#[test]
fn loads_of_ds_check_what_the_manual_says() {
    // mov ds, ax: (selector, CPL 3, expected fault)
    let rows: [(u16, bool, Option<Coded>); 12] = [
        (DATA0, false, None),
        (0, false, None),
        (3, true, None),
        (DATA3, true, None),
        (DATA0, true, Some((13, 0x10))),
        (DATA0 | 3, false, Some((13, 0x10))),
        (CONFORMING, true, None),
        (CODE0, false, None),
        (TSS_SEL, false, Some((13, 0x28))),
        (ABSENT_DATA, false, Some((11, 0x78))),
        (0x90, false, Some((13, 0x90))),
        (0x0c, false, Some((13, 0x0c))),
    ];
    for (selector, user, expected) in rows {
        let code = [0x8e, 0xd8];
        let mut guest = if user { Guest::user(&code) } else { Guest::protected(&code) };
        guest.edit(|s| s.set_gpr(slots::RAX, u64::from(selector)));
        match expected {
            None => {
                guest.step(1);
                assert_eq!(guest.selector(Seg::Ds), selector);
            }
            Some((vector, code)) => assert_eq!(guest.fault(), (vector, Some(code)), "{selector:x}"),
        }
    }
}

#[test]
fn loads_of_ss_check_what_the_manual_says_and_open_a_shadow() {
    let rows: [(u16, Option<Coded>); 6] = [
        (DATA0, None),
        (0, Some((13, 0))),
        (DATA3, Some((13, 0x20))),
        (READ_ONLY, Some((13, 0x80))),
        (ABSENT_DATA, Some((12, 0x78))),
        (CODE0, Some((13, 0x08))),
    ];
    for (selector, expected) in rows {
        let mut guest = Guest::protected(&[0x8e, 0xd0]);
        guest.edit(|s| s.set_gpr(slots::RAX, u64::from(selector)));
        match expected {
            None => {
                guest.step(1);
                assert_eq!(guest.cpu.state.shadow, InterruptShadow::MovSs);
            }
            Some((vector, code)) => assert_eq!(guest.fault(), (vector, Some(code)), "{selector:x}"),
        }
    }
}

#[test]
fn a_load_sets_the_accessed_bit() {
    let mut guest = Guest::protected(&[0x8e, 0xd8]);
    guest.put(GDT + 0x10, descriptor(0, 0xf_ffff, 0xc092));
    guest.edit(|s| s.set_gpr(slots::RAX, u64::from(DATA0)));
    guest.step(1);
    assert_eq!(guest.quad(GDT + 0x10), descriptor(0, 0xf_ffff, 0xc093));
}

#[test]
fn real_mode_loads_keep_the_limit() {
    let mut guest = Guest::real(&[0x8e, 0xd8]);
    guest.edit(|s| {
        s.seg[Seg::Ds as usize].limit = u32::MAX;
        s.set_gpr(slots::RAX, 0x1234);
    });
    guest.step(1);
    let ds = *guest.cpu.state.segment(Seg::Ds);
    assert_eq!((ds.selector, ds.base, ds.limit), (0x1234, 0x12340, u32::MAX));
}

#[test]
fn pop_and_les_load_segments_only_when_all_is_well() {
    // pop es
    let mut guest = Guest::protected(&[0x07]);
    guest.put(STACK0, u32::from(ABSENT_DATA));
    assert_eq!(guest.fault(), (11, Some(0x78)));
    assert_eq!(guest.rsp(), STACK0);
    // les eax, [4000h]
    let mut guest = Guest::protected(&[0xc4, 0x05, 0, 0x40, 0, 0]);
    guest.put(0x4000, 0x1234_5678u32);
    guest.put(0x4004, DATA3);
    guest.step(1);
    assert_eq!((guest.gpr(slots::RAX), guest.selector(Seg::Es)), (0x1234_5678, DATA3));
}

#[test]
fn push_of_a_segment_register_extends_with_zeros() {
    let mut guest = Guest::protected(&[0x1e]);
    guest.put(STACK0 - 4, u32::MAX);
    guest.step(1);
    assert_eq!((guest.dword(STACK0 - 4), guest.rsp()), (u32::from(DATA0), STACK0 - 4));
}

#[test]
fn lar_lsl_verr_verw_answer_with_zf() {
    // (opcode bytes, selector, ZF, EAX afterwards)
    let lar = &[0x0f, 0x02, 0xc1][..];
    let lsl = &[0x0f, 0x03, 0xc1][..];
    let verr = &[0x0f, 0x00, 0xe1][..];
    let verw = &[0x0f, 0x00, 0xe9][..];
    let rows: [(&[u8], u16, bool, u64); 10] = [
        (lar, DATA0, true, 0x00cf_9300),
        (lar, 0, false, 7),
        (lar, TSS_SEL, true, 0x0000_8b00),
        (lsl, DATA0, true, 0xffff_ffff),
        (lsl, LDT_SEL, true, 0xff),
        (lsl, 0x90, false, 7),
        (verr, CODE0, true, 7),
        (verw, CODE0, false, 7),
        (verw, DATA0, true, 7),
        (verw, READ_ONLY, false, 7),
    ];
    for (code, selector, zf, eax) in rows {
        let mut guest = Guest::protected(code);
        guest.edit(|s| {
            s.set_gpr(slots::RAX, 7);
            s.set_gpr(slots::RCX, u64::from(selector));
        });
        guest.step(1);
        assert_eq!((guest.cpu.flags() & 0x40 != 0, guest.gpr(slots::RAX)), (zf, eax), "{code:x?} {selector:x}");
    }
}

#[test]
fn arpl_raises_the_requested_level() {
    // arpl ax, cx
    for (ax, cx, result, zf) in [(0x10u64, 3, 0x13, true), (0x13, 1, 0x13, false)] {
        let mut guest = Guest::protected(&[0x63, 0xc8]);
        guest.edit(|s| {
            s.set_gpr(slots::RAX, ax);
            s.set_gpr(slots::RCX, cx);
        });
        guest.step(1);
        assert_eq!((guest.gpr(slots::RAX), guest.cpu.flags() & 0x40 != 0), (result, zf));
    }
}

#[test]
fn table_registers_load_and_store() {
    // lgdt [4000h]; sgdt [4010h]; lldt ax; sldt ecx
    let code = [0x0f, 0x01, 0x15, 0, 0x40, 0, 0, 0x0f, 0x01, 0x05, 0x10, 0x40, 0, 0, 0x0f, 0, 0xd0, 0x0f, 0, 0xc1];
    let mut guest = Guest::protected(&code);
    guest.put(0x4000, 0x1234u16);
    guest.put(0x4002, GDT as u32 | 0x0100_0000);
    guest.step(2);
    assert_eq!((guest.cpu.state.gdtr.base, guest.cpu.state.gdtr.limit), (GDT | 0x0100_0000, 0x1234));
    assert_eq!((guest.word(0x4010), guest.dword(0x4012)), (0x1234, GDT as u32 | 0x0100_0000));
    guest.edit(|s| {
        s.gdtr.base = GDT;
        s.set_gpr(slots::RAX, u64::from(LDT_SEL));
        s.set_gpr(slots::RCX, u64::MAX);
    });
    guest.step(2);
    assert_eq!((guest.cpu.state.ldtr.base, guest.gpr(slots::RCX)), (LDT, u64::from(LDT_SEL)));
}

#[test]
fn ltr_marks_the_task_busy() {
    let mut guest = Guest::protected(&[0x0f, 0, 0xd8, 0x0f, 0, 0xd8]);
    guest.edit(|s| s.set_gpr(slots::RAX, u64::from(TSS_B_SEL)));
    guest.step(1);
    assert_eq!(guest.quad(GDT + 0x48), descriptor(TSS_B, 0x67, 0x8b));
    assert_eq!((guest.cpu.state.tr.base, guest.cpu.state.tr.kind()), (TSS_B, 0xb));
    assert_eq!(guest.fault(), (13, Some(0x48)));
}

#[test]
fn umip_keeps_users_from_the_tables() {
    for (code, umip_fault) in [([0x0f, 0x01, 0x05, 0, 0x40, 0, 0], true), ([0x0f, 0x01, 0x25, 0, 0x40, 0, 0], true)] {
        let mut guest = Guest::user(&code);
        guest.step(1);
        guest.edit(|s| {
            s.control.cr4 |= 1 << 11;
            s.rip = CODE;
        });
        assert!(umip_fault);
        assert_eq!(guest.fault(), (13, Some(0)));
    }
}

/// FS with a base, loaded 300 times; what is loaded through it is added up in ESI. At the count of 100 `change` is executed.
fn load_in_a_loop(engine: &str, change: &[u8]) -> Guest {
    #[rustfmt::skip]
    let start = [
        0x8e, 0xe0,                         // mov fs, eax
        0x64, 0x8b, 0x15, 0, 0, 0, 0,       // mov edx, fs:[0]
        0x01, 0xd6,                         // add esi, edx
        0x83, 0xf9, 100,                    // cmp ecx, 100
        0x75, change.len() as u8,           // jne over the change
    ];
    let back = -(start.len() as i8 + change.len() as i8 + 3);
    let code = [&start, change, &[0x49, 0x75, back as u8, 0xf4]].concat(); // dec ecx; jnz; hlt
    let mut guest = Guest::protected(&code);
    crate::engine::named(&mut guest.cpu, engine);
    guest.handlers();
    guest.put(GDT + 0x10, descriptor(0x4_0000, 0xf_ffff, 0xc093));
    guest.put(0x4_0000, 1u32);
    guest.put(0x4_0004, 0x1_0000u32);
    guest.edit(|s| {
        s.set_gpr(slots::RAX, u64::from(DATA0));
        s.set_gpr(slots::RCX, 300);
        s.set_gpr(slots::RSI, 0);
    });
    guest.step(5000);
    guest
}

#[test]
fn a_load_that_is_repeated_reads_its_descriptor_again() {
    for engine in engines() {
        let guest = load_in_a_loop(engine, &[]);
        assert_eq!((guest.gpr(slots::RSI), guest.gpr(slots::RCX)), (300, 0), "{engine}");
        // mov byte [GDT + 12h], 4: another base.
        let guest = load_in_a_loop(engine, &[0xc6, 0x05, 0x12, 0x10, 0, 0, 4]);
        assert_eq!(guest.gpr(slots::RSI), 201 + 99 * 0x1_0000, "{engine}");
        assert_eq!(guest.cpu.state.segment(Seg::Fs).base, 0x4_0004, "{engine}");
        // mov byte [GDT + 15h], 92h: not accessed.
        let guest = load_in_a_loop(engine, &[0xc6, 0x05, 0x15, 0x10, 0, 0, 0x92]);
        assert_eq!(guest.gpr(slots::RSI), 300, "{engine}");
        assert_eq!(guest.quad(GDT + 0x10), descriptor(0x4_0000, 0xf_ffff, 0xc093), "{engine}");
        // mov byte [GDT + 15h], 13h: not present. The load of the next round faults.
        let guest = load_in_a_loop(engine, &[0xc6, 0x05, 0x15, 0x10, 0, 0, 0x13]);
        assert_eq!((guest.gpr(slots::RSI), guest.gpr(slots::RCX)), (201, 99), "{engine}");
        // xor eax, eax: a null selector, so the access of the next round faults.
        let guest = load_in_a_loop(engine, &[0x31, 0xc0]);
        assert_eq!((guest.gpr(slots::RSI), guest.gpr(slots::RCX)), (201, 99), "{engine}");
        assert_eq!(guest.selector(Seg::Fs), 0, "{engine}");
        // mov eax, 14h: the local table, which there is none of.
        let guest = load_in_a_loop(engine, &[0xb8, 0x14, 0, 0, 0]);
        assert_eq!((guest.gpr(slots::RSI), guest.gpr(slots::RCX)), (201, 99), "{engine}");
        // mov eax, 13h: level 3 may not use it.
        let guest = load_in_a_loop(engine, &[0xb8, 0x13, 0, 0, 0]);
        assert_eq!((guest.gpr(slots::RSI), guest.gpr(slots::RCX)), (201, 99), "{engine}");
    }
}

#[test]
fn segments_and_flags_go_over_the_stack_in_a_loop() {
    #[rustfmt::skip]
    let code = [
        0xf9,                               // stc
        0xfd,                               // std
        0x9c,                               // pushfd
        0x83, 0xc8, 0x00,                   // or eax, 0
        0xfc,                               // cld
        0xfb,                               // sti
        0x9d,                               // popfd
        0x83, 0xd6, 0x00,                   // adc esi, 0
        0x0f, 0xa0,                         // push fs
        0x1e,                               // push ds
        0x9c,                               // pushfd
        0x5f,                               // pop edi
        0x07,                               // pop es
        0x0f, 0xa9,                         // pop gs
        0x8c, 0xe2,                         // mov edx, fs
        0x49,                               // dec ecx
        0x75, (-25i8) as u8,                // jnz
        0xf4,                               // hlt
    ];
    for engine in engines() {
        let mut guest = Guest::protected(&code);
        crate::engine::named(&mut guest.cpu, engine);
        guest.edit(|s| {
            s.seg[Seg::Fs as usize] = Segment { selector: DATA16, base: 0, limit: 0xffff, rights: 0x93 };
            s.set_gpr(slots::RCX, 500);
            s.set_gpr(slots::RSI, 0);
            s.set_gpr(slots::RDX, u64::MAX >> 32);
        });
        guest.put(GDT + u64::from(DATA16), descriptor(0, 0xffff, 0x93));
        guest.step(20_000);
        assert_eq!((guest.gpr(slots::RSI), guest.gpr(slots::RCX)), (500, 0), "{engine}");
        // DF, and of the status flags those of the sum; IF and CF are clear.
        let image = guest.gpr(slots::RDI);
        assert_eq!((image & 0x601, image & 2), (0x400, 2), "{engine}: {image:x}");
        assert_eq!((guest.selector(Seg::Es), guest.selector(Seg::Gs)), (DATA0, DATA16), "{engine}");
        assert_eq!((guest.gpr(slots::RDX), guest.rsp()), (u64::from(DATA16), STACK0), "{engine}");
    }
}
