//! Small programs: each is bytes, a start state, and what must hold at the end.

#[path = "support/engine.rs"]
mod engine;
#[path = "support/memory.rs"]
mod memory;

use std::sync::Arc;
use umbra_cpu::bus::OpenBus;
use umbra_cpu::emit::SLACK;
use umbra_cpu::model::CpuModel;
use umbra_cpu::state::{Seg, Segment, slots};
use umbra_cpu::{Exit, Vcpu};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::attention::Attention;
use umbra_mmu::frames::{FrameOrder, Pool};
use umbra_mmu::memory::GuestMemory;

/// A vCPU in 32-bit protected mode with flat segments, paging off, and `code` at 1000h.
fn flat32(code: &[u8]) -> Vcpu {
    let pool = Pool::new(1 << 20).expect("a pool of one MiB");
    let memory = GuestMemory::new(pool, FrameOrder::Identity, 40);
    memory::set(&memory);
    memory.map_ram(GuestPhys(0), 1 << 20).expect("RAM");
    memory.write(GuestPhys(0x1000), code);
    let model = Arc::new(CpuModel::by_name("max").expect("a model"));
    let mut cpu = Vcpu::new(model, &memory, Box::new(OpenBus), Arc::new(Attention::default()));
    engine::set(&mut cpu);
    let mut state = cpu.state.clone();
    state.control.cr0 |= 1;
    let data = Segment { selector: 0x10, base: 0, limit: u32::MAX, rights: 0xc093 };
    state.seg = [data; 6];
    state.seg[Seg::Cs as usize] = Segment { selector: 8, base: 0, limit: u32::MAX, rights: 0xc09b };
    state.rip = 0x1000;
    state.set_gpr(slots::RSP, 0x8000);
    cpu.set_state(state);
    cpu
}

#[test]
fn a_loop_counts_and_retires_exactly() {
    // mov ecx, 1000; xor eax, eax; again: add eax, ecx; dec ecx; jnz again; ud2
    let mut cpu = flat32(&[0xb9, 0xe8, 3, 0, 0, 0x31, 0xc0, 0x01, 0xc8, 0x49, 0x75, 0xfb, 0x0f, 0x0b]);
    let (rip, fault) = cpu.run_until_fault(1_000_000).expect_err("ud2 raises #UD");
    assert_eq!((rip, fault.vector), (0x100c, 6));
    assert_eq!(cpu.state.gpr(slots::RAX), 500_500);
    assert_eq!(cpu.state.retired, 2 + 3 * 1000);
}

#[test]
fn a_budget_ends_at_the_exact_instruction() {
    for budget in 1..40 {
        let mut cpu = flat32(&[0xb9, 0xe8, 3, 0, 0, 0x31, 0xc0, 0x01, 0xc8, 0x49, 0x75, 0xfb, 0x0f, 0x0b]);
        assert_eq!(cpu.run_until_fault(budget), Ok(Exit::BudgetSpent));
        assert_eq!(cpu.state.retired, budget);
    }
}

#[test]
fn flags_that_a_bit_scan_keeps_are_those_of_the_instruction_before_it() {
    use umbra_cpu::state::flags::{AF, CF, PF, SF, STATUS};
    for scan in [0xbc, 0xbd] {
        // mov edx, 8; xor eax, eax; sub eax, 1; bsf or bsr ecx, edx; ud2
        let mut cpu = flat32(&[0xba, 8, 0, 0, 0, 0x31, 0xc0, 0x83, 0xe8, 1, 0x0f, scan, 0xca, 0x0f, 0x0b]);
        cpu.run_until_fault(100).expect_err("ud2");
        assert_eq!(cpu.state.gpr(slots::RCX), 3);
        assert_eq!(cpu.flags() & STATUS, CF | SF | AF | PF);
    }
}

#[test]
fn code_that_overwrites_itself_is_seen_at_once() {
    // mov byte [1007h+1], 42h (the immediate of the next instruction); mov al, 0; ud2
    let mut cpu = flat32(&[0xc6, 0x05, 0x08, 0x10, 0, 0, 0x42, 0xb0, 0x00, 0x0f, 0x0b]);
    cpu.run_until_fault(100).expect_err("ud2");
    assert_eq!(cpu.state.gpr(slots::RAX) & 0xff, 0x42);
}

#[test]
fn vectors_are_copied_over_the_ends_of_pages() {
    // mov esi, 2fe1h; mov edi, 6ff3h; mov ecx, 200
    // again: movdqu xmm0, [esi]; movdqu xmm1, [esi+16]; pxor xmm4, xmm4; movdqu xmm2, [esi+32]; movdqu xmm3, [esi+48]
    // add esi, 64; movdqu [edi], xmm0; …; movdqu [edi+48], xmm3; add edi, 64; dec ecx; jnz again; ud2
    #[rustfmt::skip]
    let code = [
        0xbe, 0xe1, 0x2f, 0, 0, 0xbf, 0xf3, 0x6f, 0, 0, 0xb9, 200, 0, 0, 0,
        0xf3, 0x0f, 0x6f, 0x06, 0xf3, 0x0f, 0x6f, 0x4e, 0x10, 0x66, 0x0f, 0xef, 0xe4,
        0xf3, 0x0f, 0x6f, 0x56, 0x20, 0xf3, 0x0f, 0x6f, 0x5e, 0x30, 0x83, 0xc6, 0x40,
        0xf3, 0x0f, 0x7f, 0x07, 0xf3, 0x0f, 0x7f, 0x4f, 0x10, 0xf3, 0x0f, 0x7f, 0x57, 0x20, 0xf3, 0x0f, 0x7f, 0x5f, 0x30,
        0x83, 0xc7, 0x40, 0x49, 0x75, 0xcd, 0x0f, 0x0b,
    ];
    let mut cpu = flat32(&code);
    let mut state = cpu.state.clone();
    state.control.cr4 |= umbra_cpu::state::control::cr4::OSFXSR;
    cpu.set_state(state);
    let source: Vec<u8> = (0..200 * 64u32).map(|n| (n ^ n >> 8).wrapping_mul(0x9d) as u8).collect();
    cpu.link.memory.write(GuestPhys(0x2fe1), &source);
    cpu.run_until_fault(1_000_000).expect_err("ud2");
    let mut copy = vec![0; source.len()];
    cpu.link.memory.read(GuestPhys(0x6ff3), &mut copy);
    assert_eq!(copy, source);
}

#[test]
fn rep_movs_copies_and_counts_each_element() {
    // mov esi, 1000h; mov edi, 2ffdh; mov ecx, 5000; rep movsb; ud2
    let code = [0xbe, 0, 0x10, 0, 0, 0xbf, 0xfd, 0x2f, 0, 0, 0xb9, 0x88, 0x13, 0, 0, 0xf3, 0xa4, 0x0f, 0x0b];
    let mut cpu = flat32(&code);
    cpu.run_until_fault(1_000_000).expect_err("ud2");
    assert_eq!(cpu.state.retired, 3 + 5000);
    assert_eq!(cpu.state.gpr(slots::RCX), 0);
    let mut copied = [0; 19];
    cpu.link.memory.read(GuestPhys(0x2ffd), &mut copied);
    assert_eq!(copied, code);
}

#[test]
fn two_functions_in_one_watched_grain_are_both_seen_when_patched() {
    let mut code = [0x90; 0x40];
    #[rustfmt::skip]
    code[..0x24].copy_from_slice(&[
        0xe8, 0x23, 0, 0, 0, // call 1028h
        0xe8, 0x2a, 0, 0, 0, // call 1034h
        0xc6, 0x05, 0x29, 0x10, 0, 0, 2, // mov byte [1029h], 2
        0xc6, 0x05, 0x35, 0x10, 0, 0, 2, // mov byte [1035h], 2
        0xe8, 0x0b, 0, 0, 0, // call 1028h
        0xe8, 0x12, 0, 0, 0, // call 1034h
        0x0f, 0x0b, // ud2
    ]);
    code[0x28..0x2b].copy_from_slice(&[0xb3, 1, 0xc3]); // mov bl, 1; ret
    code[0x34..0x37].copy_from_slice(&[0xb0, 1, 0xc3]); // mov al, 1; ret
    let mut cpu = flat32(&code);
    cpu.run_until_fault(100).expect_err("ud2");
    assert_eq!((cpu.state.gpr(slots::RAX) & 0xff, cpu.state.gpr(slots::RBX) & 0xff), (2, 2));
}

#[test]
fn breakpoints_on_data_trap_after_and_on_code_before() {
    // mov eax, 1; mov [2002h], ax; nop; ud2
    let code = [0xb8, 1, 0, 0, 0, 0x66, 0xa3, 2, 0x20, 0, 0, 0x90, 0x0f, 0x0b];
    // (DR0, DR7, RIP at which #DB comes)
    let cases = [
        (0x2000, 1 | 1 << 16 | 3 << 18, Some(0x100b)), // a write within four bytes
        (0x2000, 1 | 3 << 16 | 3 << 18, Some(0x100b)), // read or write
        (0x2000, 1 | 1 << 16 | 1 << 18, None),         // two bytes before it
        (0x2003, 1 | 1 << 16, Some(0x100b)),           // its last byte
        (0x2000, 1 << 16 | 3 << 18, None),             // not enabled
        (0x1005, 1, Some(0x1005)),                     // execution
        (0x1006, 1, None),                             // not the first byte
    ];
    for (address, control, expected) in cases {
        let mut cpu = flat32(&code);
        let mut state = cpu.state.clone();
        state.dr[0] = address;
        state.dr[7] = 0x400 | control;
        cpu.set_state(state);
        let (rip, fault) = cpu.run_until_fault(100).expect_err("#DB or #UD");
        match expected {
            Some(at) => {
                assert_eq!((rip, fault.vector), (at, 1), "{address:#x} {control:#x}");
                assert_eq!(cpu.state.dr[6] & 0xf, 1);
            }
            None => assert_eq!(fault.vector, 6, "{address:#x} {control:#x}"),
        }
    }
}

#[test]
fn a_debuggers_breakpoint_stops_every_time_and_before_the_instruction() {
    // mov ecx, 3; again: add eax, ecx; dec ecx; jnz again; ud2
    let mut cpu = flat32(&[0xb9, 3, 0, 0, 0, 0x01, 0xc8, 0x49, 0x75, 0xfb, 0x0f, 0x0b]);
    cpu.link.debugger.insert(0x1007); // dec ecx
    let mut seen = Vec::new();
    while let Ok(exit) = cpu.run_until_fault(1000) {
        assert_eq!(exit, Exit::Debug);
        assert_eq!(cpu.state.rip, 0x1007);
        seen.push(cpu.state.gpr(slots::RCX));
    }
    assert_eq!(seen, [3, 2, 1]);
    assert_eq!(cpu.state.gpr(slots::RAX), 6);
}

/// The engines of this host, by name.
fn engines() -> &'static [&'static str] {
    if cfg!(all(target_arch = "x86_64", not(portable))) { &["interp", "jit"] } else { &["interp"] }
}

#[test]
fn bit_strings_in_memory() {
    const AT: usize = 0x6000;
    const ROUNDS: u32 = 200;
    let change = |op: u8, old: bool| [old, true, false, !old][usize::from(op)];
    let cases =
        (0..4u8).flat_map(|op| [false, true].map(|lock| (op, lock))).flat_map(|c| [false, true].map(|n| (c, n)));
    for ((op, lock), narrow) in cases.filter(|((op, lock), _)| *op != 0 || !lock) {
        let mut bits = vec![0x35u8; 0x1000];
        let mut carries = 0;
        for round in 0..ROUNDS {
            let index = -300 + 13 * round as i32;
            let at = 0x800 * 8 + index as usize as isize;
            let (byte, bit) = ((at >> 3) as usize, at & 7);
            let old = bits[byte] >> bit & 1 != 0;
            carries += u32::from(old);
            bits[byte] = bits[byte] & !(1 << bit) | u8::from(change(op, old)) << bit;
        }
        let mut code = vec![0xb9, ROUNDS as u8, 0, 0, 0]; // mov ecx, ROUNDS
        let again = code.len();
        code.extend([0x83, 0xf8, 5]); // cmp eax, 5
        code.extend([0xf0].iter().take(usize::from(lock)));
        code.extend([0x66].iter().take(usize::from(narrow)));
        code.extend([0x0f, 0xa3 | op << 3, 0x16]); // bt, bts, btr or btc [esi], edx
        code.extend([0x9c, 0x5f, 0x83, 0xd5, 0]); // pushfd; pop edi; adc ebp, 0
        code.extend([0x83, 0xc2, 13, 0x48, 0x49]); // add edx, 13; dec eax; dec ecx
        let back = again as i32 - code.len() as i32 - 2;
        code.extend([0x75, back as u8, 0x0f, 0x0b]); // jnz; ud2
        for engine in engines() {
            let mut cpu = flat32(&code);
            engine::named(&mut cpu, engine);
            cpu.link.memory.write(GuestPhys(AT as u64), &[0x35; 0x1000]);
            let mut state = cpu.state.clone();
            state.set_gpr(slots::RAX, u64::from(ROUNDS));
            state.set_gpr(slots::RDX, u64::from(-300i32 as u32));
            state.set_gpr(slots::RSI, AT as u64 + 0x800);
            state.set_gpr(slots::RBP, 0);
            cpu.set_state(state);
            cpu.run_until_fault(1_000_000).expect_err("ud2 raises #UD");
            let mut found = vec![0; 0x1000];
            cpu.link.memory.read(GuestPhys(AT as u64), &mut found);
            let what = format!("{engine}: {op}, locked {lock}, 16 bits {narrow}");
            assert!(found == bits, "{what}");
            assert_eq!(cpu.state.gpr(slots::RBP), u64::from(carries), "{what}");
            // Of 1 − 5: SF, AF and PF; CF is the bit's.
            assert_eq!(cpu.state.gpr(slots::RDI) & 0x8d4, 0x94, "{what}");
        }
    }
}

#[test]
fn double_shifts_by_cl_whose_flags_nobody_reads() {
    #[rustfmt::skip]
    let code = [
        0xb9, 100, 0, 0, 0,                 // mov ecx, 100
        0x0f, 0xa5, 0xd0,                   // shld eax, edx, cl
        0x0f, 0xad, 0xc2,                   // shrd edx, eax, cl
        0x83, 0xc0, 77,                     // add eax, 77
        0x49,                               // dec ecx
        0x75, (-12i8) as u8,                // jnz
        0x0f, 0x0b,                         // ud2
    ];
    let (mut a, mut d) = (0x1234_5678u32, 0x9abc_def0u32);
    for count in (1..=100u32).rev().map(|ecx| ecx & 31) {
        if count != 0 {
            a = a << count | d >> (32 - count);
            d = d >> count | a << (32 - count);
        }
        a = a.wrapping_add(77);
    }
    for engine in engines() {
        let mut cpu = flat32(&code);
        engine::named(&mut cpu, engine);
        let mut state = cpu.state.clone();
        state.set_gpr(slots::RAX, 0x1234_5678);
        state.set_gpr(slots::RDX, 0x9abc_def0);
        cpu.set_state(state);
        cpu.run_until_fault(1_000_000).expect_err("ud2 raises #UD");
        assert_eq!((cpu.state.gpr(slots::RAX), cpu.state.gpr(slots::RDX)), (u64::from(a), u64::from(d)), "{engine}");
    }
}

/// Emitted code is left before a block for which there is not enough fuel: the first uop of such a block may be that of a later
/// instruction (CMP and its jump are one), and its flags may be known to nobody but the jump that led to it.
#[test]
fn a_budget_ends_before_any_block_with_its_flags() {
    #[rustfmt::skip]
    let code = [
        0xbb, 0xe8, 3, 0, 0,                // mov ebx, 1000
        0x40,                               // top: inc eax
        0x39, 0xc8,                         // cmp eax, ecx
        0x72, 0x01,                         // jb over
        0x46,                               // inc esi
        0x83, 0xc2, 0x03,                   // over: add edx, 3
        0xf6, 0xc2, 0x04,                   // test dl, 4
        0x74, 0x01,                         // jz even
        0x47,                               // inc edi
        0x3d, 0xc8, 0, 0, 0,                // even: cmp eax, 200
        0x76, 0x01,                         // jbe few
        0x45,                               // inc ebp
        0x4b,                               // few: dec ebx
        0x75, (-26i8) as u8,                // jnz top
        0x0f, 0x0b,                         // ud2
    ];
    let run = |engine: &str, budget: u64, slack: u64| {
        let mut cpu = flat32(&code);
        engine::named(&mut cpu, engine);
        cpu.link.slack = slack;
        let mut state = cpu.state.clone();
        state.set_gpr(slots::RCX, 300);
        cpu.set_state(state);
        assert_eq!(cpu.run_until_fault(budget), Ok(Exit::BudgetSpent), "{engine}, {budget}");
        cpu.materialise_flags();
        let state = &cpu.state;
        let registers: Vec<u64> = (0..16).map(|n| state.gpr(n)).collect();
        (state.retired, state.rip, state.rflags, registers)
    };
    for budget in (1..300).chain(4000..4150) {
        for engine in engines() {
            let exact = run(engine, budget, SLACK);
            assert_eq!((exact.0, &exact), (budget, &run("interp", budget, SLACK)), "{engine}");
            // To the end of a block, with nothing left for the interpreter to do.
            let over = run(engine, budget, 0);
            assert_eq!(over, run("interp", over.0, SLACK), "{engine}, {budget}");
        }
    }
}

/// A guest with more code than there is room for: what is kept of the code that is there is bounded as the code itself is.
#[test]
#[cfg(all(target_arch = "x86_64", not(portable)))]
fn what_is_kept_of_emitted_code_goes_with_its_size() {
    use umbra_cpu::emit::{Disable, Jit};
    const BYTES: usize = 2 << 20;
    // 50,000 blocks of their own: inc eax; test eax, eax; jz to the next; and a jump back to the first.
    let mut code = [0x40, 0x85, 0xc0, 0x74, 0x00].repeat(50_000);
    code.push(0xe9);
    code.extend((-(code.len() as i32 + 4)).to_le_bytes());
    let mut cpu = flat32(&code);
    let mut jit = Jit::new(BYTES).expect("a host for the JIT");
    // No links, whose stubs would be most of the code.
    jit.set_disable(Disable(Disable::CHAINS));
    cpu.use_jit(Some(jit));
    cpu.link.hot = 1;
    for round in 1..=6 {
        assert_eq!(cpu.run_until_fault(150_001), Ok(Exit::BudgetSpent));
        assert_eq!((cpu.state.gpr(slots::RAX), cpu.state.rip), (round * 50_000, 0x1000));
        let jit = cpu.link.jit.as_ref().expect("the JIT");
        let kept = jit.records();
        assert!(kept <= BYTES, "{kept} bytes kept of {BYTES} bytes of code");
        assert!(jit.counters().flushes > 0, "a cache that everything fits into");
    }
}
