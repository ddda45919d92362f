//! Control and debug registers, MSRs, CPUID, HLT.

use super::bench::*;
use umbra_cpu::Exit;
use umbra_cpu::state::control::{cr0, cr4, efer};
use umbra_cpu::state::slots;

/// Runs `code` with EAX = `value` and says how it ended.
fn with_eax(mut guest: Guest, value: u64) -> Result<Guest, (u8, Option<u32>)> {
    guest.edit(|s| s.set_gpr(slots::RAX, value));
    match guest.cpu.run_until_fault(1) {
        Ok(_) => Ok(guest),
        Err((_, fault)) => Err((fault.vector, fault.error_code)),
    }
}
const GP0: (u8, Option<u32>) = (13, Some(0));

#[test]
fn cr0_refuses_combinations_without_meaning() {
    let mov_cr0 = [0x0f, 0x22, 0xc0];
    let rows = [(cr0::PG, false), (cr0::PE, true), (cr0::NW, false), (cr0::NW | cr0::CD, true), (0x0ff0_0000, true)];
    for (value, good) in rows {
        let result = with_eax(Guest::real(&mov_cr0), value);
        assert_eq!(result.is_ok(), good, "{value:x}");
        if let Ok(guest) = result {
            assert_eq!(guest.cpu.state.control.cr0, value & 0xe005_003f | cr0::ET);
        }
    }
    assert_eq!(with_eax(Guest::user(&mov_cr0), 1).err(), Some(GP0));
}

#[test]
fn cr4_refuses_what_the_model_does_not_have() {
    let mov_cr4 = [0x0f, 0x22, 0xe0];
    assert!(with_eax(Guest::real(&mov_cr4), cr4::PAE | cr4::OSFXSR).is_ok());
    assert_eq!(with_eax(Guest::real(&mov_cr4), 1 << 31).err(), Some(GP0));
    assert_eq!(with_eax(Guest::real_model("pentium", &mov_cr4), cr4::PAE).err(), Some(GP0));
    assert_eq!(with_eax(Guest::real(&mov_cr4), cr4::PCIDE).err(), Some(GP0), "PCIDE outside long mode");
    assert_eq!(with_eax(Guest::long(&mov_cr4), cr4::OSFXSR).err(), Some(GP0), "PAE in long mode");
}

#[test]
fn paging_with_lme_activates_long_mode() {
    // mov cr0, eax
    let mut guest = Guest::protected(&[0x0f, 0x22, 0xc0]);
    guest.put(0x10000, 0x11007u64);
    guest.put(0x11000, 0x12007u64);
    guest.put(0x12000, 0x87u64);
    guest.edit(|s| {
        s.control.efer = efer::LME;
        s.control.cr3 = 0x10000;
    });
    let Err(fault) = with_eax(guest, cr0::PE | cr0::PG) else { panic!("LME without PAE") };
    assert_eq!(fault, GP0);
    let mut guest = Guest::protected(&[0x0f, 0x22, 0xc0]);
    guest.put(0x10000, 0x11007u64);
    guest.put(0x11000, 0x12007u64);
    guest.put(0x12000, 0x87u64);
    guest.edit(|s| {
        s.control.efer = efer::LME;
        s.control.cr3 = 0x10000;
        s.control.cr4 = cr4::PAE;
    });
    let guest = with_eax(guest, cr0::PE | cr0::PG).expect("long mode");
    assert_ne!(guest.cpu.state.control.efer & efer::LMA, 0);
    assert!(!guest.cpu.state.code64());
}

#[test]
fn pae_loads_four_pointers_and_refuses_reserved_bits() {
    for (pdpte, good) in [(0x5001u64, true), (0x5000 | 0x1e6, true), (0x5003, false), (1 << 40 | 1, false)] {
        // mov cr3, eax
        let mut guest = Guest::protected(&[0x0f, 0x22, 0xd8]);
        // The first GiB stays mapped: a page directory of one large page.
        guest.put(0x20000, 0x21001u64);
        guest.put(0x21000, 0x83u64);
        guest.put(0x20020, 0x21001u64);
        guest.put(0x20028, pdpte);
        guest.edit(|s| {
            s.control.cr4 = cr4::PAE;
            s.control.cr3 = 0x20000;
            s.control.pdptes = [0x21001, 0, 0, 0];
            s.control.cr0 |= cr0::PG;
        });
        let result = with_eax(guest, 0x20020);
        assert_eq!(result.is_ok(), good, "{pdpte:x}");
        if let Ok(guest) = result {
            assert_eq!(guest.cpu.state.control.pdptes, [0x21001, pdpte, 0, 0]);
        }
    }
}

#[test]
fn lmsw_sets_pe_but_never_clears_it() {
    // lmsw ax; lmsw cx; smsw edx
    let mut guest = Guest::protected(&[0x0f, 0x01, 0xf0, 0x0f, 0x01, 0xe2]);
    guest.edit(|s| s.set_gpr(slots::RAX, 0xfffe));
    guest.step(2);
    assert_eq!(guest.gpr(slots::RDX), cr0::PE | cr0::MP | cr0::EM | cr0::TS | cr0::ET);
}

#[test]
fn debug_registers_alias_and_guard() {
    // mov dr4, eax; with CR4.DE that is #UD
    let guest = with_eax(Guest::protected(&[0x0f, 0x23, 0xe0]), 0xffff_ffff).expect("an alias of DR6");
    assert_eq!(guest.cpu.state.dr[6], 0xffff_efff & !0x1000 | 0xf);
    let mut guest = Guest::protected(&[0x0f, 0x23, 0xe0]);
    guest.edit(|s| s.control.cr4 |= cr4::DE);
    assert_eq!(guest.fault(), (6, None));
    // mov eax, dr7 with GD: #DB, BD set; the handler finds GD clear.
    let mut guest = Guest::protected(&[0x0f, 0x21, 0xf8]);
    guest.handlers();
    guest.write(HANDLERS + 16, &[0x90]);
    guest.edit(|s| s.dr[7] |= 1 << 13);
    guest.step(1);
    assert_eq!(guest.at().1, HANDLERS + 17);
    assert_eq!((guest.cpu.state.dr[6] & 1 << 13, guest.cpu.state.dr[7] & 1 << 13), (1 << 13, 0));
}

#[test]
fn msrs_check_their_values() {
    // (MSR, value, accepted)
    let rows: [(u32, u64, bool); 19] = [
        (0xc000_0080, efer::SCE | efer::NXE | efer::LME, true),
        (0xc000_0080, efer::SCE | efer::NXE, false),
        (0xc000_0080, 1 << 12, false),
        (0xc000_0082, 1 << 62, false),
        (0xc000_0082, 0xffff_8000_0000_0000, true),
        (0xc000_0100, 0x1234, true),
        (0xc000_0102, 1 << 47, false),
        (0x277, 0x0007_0406_0007_0406, true),
        (0x277, 0x02, false),
        (0x2ff, 0xc06, true),
        (0x2ff, 0xc02, false),
        (0x200, 0xffff_f006, true),
        (0x200, 1 << 40, false),
        (0x201, 0xff_ffff_f800, true),
        (0x26f, 0x0606_0606_0606_0606, true),
        (0xfe, 0, false),
        (0x10, 12345, true),
        (0x3b, 1, true),
        (0x1234, 0, false),
    ];
    for (number, value, accepted) in rows {
        let mut guest = Guest::long(&[0x0f, 0x30, 0x0f, 0x32]);
        guest.edit(|s| {
            s.set_gpr(slots::RAX, value & 0xffff_ffff);
            s.set_gpr(slots::RDX, value >> 32);
            s.set_gpr(slots::RCX, u64::from(number));
        });
        if !accepted {
            assert_eq!(guest.fault(), GP0, "{number:x} {value:x}");
            continue;
        }
        guest.step(2);
        let read = guest.gpr(slots::RDX) << 32 | guest.gpr(slots::RAX);
        match number {
            0xc000_0080 => assert_eq!(read, value | efer::LMA),
            0x10 => assert_eq!(read, value + 1, "one instruction, one tick"),
            _ => assert_eq!(read, value, "{number:x}"),
        }
    }
}

#[test]
fn unknown_msrs_are_named() {
    let mut guest = Guest::protected(&[0x0f, 0x32]);
    guest.edit(|s| s.set_gpr(slots::RCX, 0x1234));
    assert_eq!(guest.fault(), GP0);
    assert_eq!((guest.cpu.link.counters.unknown_msr_accesses, guest.cpu.link.counters.unknown_msrs[0]), (1, 0x1234));
}

#[test]
fn halt_waits_and_is_privileged() {
    assert_eq!(Guest::protected(&[0xf4]).step(10), Exit::Halted);
    assert_eq!(Guest::user(&[0xf4]).fault(), GP0);
}

#[test]
fn cpuid_and_random_numbers() {
    // cpuid; rdrand ecx; rdrand edx
    let mut guest = Guest::user(&[0x0f, 0xa2, 0x0f, 0xc7, 0xf1, 0x0f, 0xc7, 0xf2]);
    guest.edit(|s| s.set_gpr(slots::RAX, 0));
    guest.step(1);
    assert_eq!(guest.gpr(slots::RBX), u64::from(u32::from_le_bytes(*b"Auth")));
    guest.step(2);
    assert_ne!(guest.gpr(slots::RCX), guest.gpr(slots::RDX));
    assert_eq!(guest.cpu.flags() & 0x8d5, 1);
}

#[test]
fn xcr0_needs_osxsave_and_keeps_x87() {
    // xsetbv
    let run = |value: u64, osxsave: bool| {
        let mut guest = Guest::protected(&[0x0f, 0x01, 0xd1]);
        guest.edit(|s| {
            s.control.cr4 |= if osxsave { cr4::OSXSAVE } else { 0 };
            s.set_gpr(slots::RCX, 0);
            s.set_gpr(slots::RDX, 0);
        });
        with_eax(guest, value).map(|guest| guest.cpu.state.control.xcr0)
    };
    assert_eq!(run(3, false), Err((6, None)));
    assert_eq!(run(3, true), Ok(3));
    assert_eq!(run(2, true), Err(GP0));
    assert_eq!(run(1 << 62 | 1, true), Ok(1), "EDX is zero here");
}
