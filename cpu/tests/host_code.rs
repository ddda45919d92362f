//! The host code of one guest instruction after the other, against `golden/host_code.txt`: what a change of the emitter does to
//! each is a line in its diff. `UMBRA_BLESS=1` writes the file anew.
//!
//! Each instruction is made as a block of its own with a jump behind it, in 64-bit mode. Host addresses are left out, and
//! numbers that only a host address can be are `far`. Text and counts depend on the emitter alone, not on the host.
#![cfg(all(target_arch = "x86_64", not(portable)))]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use umbra_cpu::Vcpu;
use umbra_cpu::bus::OpenBus;
use umbra_cpu::decode::host_text;
use umbra_cpu::emit::{DEFAULT_BYTES, Jit};
use umbra_cpu::exit::Exit;
use umbra_cpu::model::CpuModel;
use umbra_cpu::state::control::{cr0, cr4, efer};
use umbra_cpu::state::{Seg, Segment, slots};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::attention::Attention;
use umbra_mmu::frames::{FrameOrder, Pool};
use umbra_mmu::memory::GuestMemory;

const CODE: u64 = 0x1000;
const DATA: u64 = 0x8000;
const TABLES: u64 = 0x1_0000;

/// One of each kind that is frequent in guests.
#[rustfmt::skip]
const INSTRUCTIONS: &[(&str, &[u8])] = &[
    ("mov rax, rbx",                &[0x48, 0x89, 0xD8]),
    ("mov eax, 12345678h",          &[0xB8, 0x78, 0x56, 0x34, 0x12]),
    ("add rax, rbx",                &[0x48, 0x01, 0xD8]),
    ("adc eax, ebx",                &[0x11, 0xD8]),
    ("cmp al, 5",                   &[0x3C, 0x05]),
    ("inc ecx",                     &[0xFF, 0xC1]),
    ("shl eax, cl",                 &[0xD3, 0xE0]),
    ("imul rax, rbx",               &[0x48, 0x0F, 0xAF, 0xC3]),
    ("div ebx",                     &[0xF7, 0xF3]),
    ("lea rax, [rbx + rcx*4 + 8]",  &[0x48, 0x8D, 0x44, 0x8B, 0x08]),
    ("movzx eax, bl",               &[0x0F, 0xB6, 0xC3]),
    ("sete al",                     &[0x0F, 0x94, 0xC0]),
    ("cmovb rax, rbx",              &[0x48, 0x0F, 0x42, 0xC3]),
    ("mov rax, [rsi + 8]",          &[0x48, 0x8B, 0x46, 0x08]),
    ("mov [rsi + 8], rax",          &[0x48, 0x89, 0x46, 0x08]),
    ("add [rsi], eax",              &[0x01, 0x06]),
    ("push rax",                    &[0x50]),
    ("pop rax",                     &[0x58]),
    ("pushfq",                      &[0x9C]),
    ("popfq",                       &[0x9D]),
    ("bt [rsi], eax",               &[0x0F, 0xA3, 0x06]),
    ("movaps xmm0, xmm1",           &[0x0F, 0x28, 0xC1]),
    ("addsd xmm0, [rsi]",           &[0xF2, 0x0F, 0x58, 0x06]),
    ("fadd st0, st1",               &[0xD8, 0xC1]),
];

/// A vCPU in 64-bit mode at CPL 0, the first 2 MiB mapped as they are, about to execute `code`.
fn long(code: &[u8]) -> Vcpu {
    let memory = GuestMemory::new(Pool::new(2 << 20).expect("a pool"), FrameOrder::Identity, 40);
    memory.map_ram(GuestPhys(0), 2 << 20).expect("RAM");
    memory.write(GuestPhys(CODE), code);
    // PML4, PDPT, and a page directory with one page of 2 MiB.
    for (table, entry) in [(0, TABLES + 0x1003), (0x1000, TABLES + 0x2003), (0x2000, 0x83_u64)] {
        memory.write(GuestPhys(TABLES + table), &entry.to_le_bytes());
    }
    let model = Arc::new(CpuModel::by_name("max").expect("a model"));
    let mut cpu = Vcpu::new(model, &memory, Box::new(OpenBus), Arc::new(Attention::default()));
    cpu.use_jit(Some(Jit::new(DEFAULT_BYTES).expect("a host for the JIT")));
    cpu.link.hot = 1;
    let mut state = cpu.state.clone();
    state.control.cr0 = cr0::PE | cr0::PG | cr0::ET;
    state.control.cr3 = TABLES;
    state.control.cr4 = cr4::PAE | cr4::OSFXSR;
    state.control.efer = efer::LME | efer::LMA;
    state.seg = [Segment { selector: 0x10, base: 0, limit: u32::MAX, rights: 0xc093 }; 6];
    state.seg[Seg::Cs as usize] = Segment { selector: 8, base: 0, limit: u32::MAX, rights: 0xa09b };
    state.rip = CODE;
    (0..16).for_each(|slot| state.set_gpr(slot, DATA));
    state.set_gpr(slots::RDX, 0);
    state.fpu.cw = 0x37f;
    cpu.set_state(state);
    cpu
}

/// A line of host code without its address and bytes, and without host addresses. The cold part begins at `cold`.
fn plain(line: &str, cold: u64) -> String {
    let text: String = line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
    let mut out = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let end = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
        let digits = word[..end].strip_suffix('h').filter(|digits| u64::from_str_radix(digits, 16).is_ok());
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
        match number.checked_sub(cold).filter(|offset| *offset < 0x1_0000) {
            Some(offset) => _ = write!(out, "cold+{offset:X}h"),
            None if number >> 32 != 0 => out += "far",
            None => out += &word[..end],
        }
        out += &word[end..];
    }
    out
}

/// The block of one instruction and `jmp` to the next.
fn block(name: &str, instruction: &[u8]) -> String {
    let mut code = instruction.to_vec();
    code.extend([0xEB, 0x00, 0xF4]); // jmp next; next: hlt
    let mut cpu = long(&code);
    assert_eq!(cpu.run(1000), Exit::Halted, "{name}");
    let block = cpu.link.cache.around(CODE).find(|block| block.key.rip == CODE).expect("its block");
    let made = cpu.link.jit.as_ref().expect("the JIT").code_of(&block.key);
    let &[(hot, code), (cold, ways_out)] = made.first().unwrap_or_else(|| panic!("{name}: no host code"));
    let cold = cold - hot;
    let lines =
        |bytes: &[u8], at: u64| -> Vec<String> { host_text(bytes, at).lines().map(|line| plain(line, cold)).collect() };
    let (code, ways_out) = (lines(code, 0), lines(ways_out, cold));
    let mut text = format!("{name}: {} host instructions with its jump, {} cold\n", code.len(), ways_out.len());
    code.iter().for_each(|line| _ = writeln!(text, "    {line}"));
    ways_out.iter().for_each(|line| _ = writeln!(text, "        {line}"));
    text
}

#[test]
fn host_code_is_as_it_was() {
    let text: String = INSTRUCTIONS.iter().map(|(name, bytes)| block(name, bytes)).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/host_code.txt");
    if std::env::var_os("UMBRA_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder to write to");
        std::fs::write(&path, &text).expect("a file to write to");
    }
    let kept = std::fs::read_to_string(&path).expect("the kept host code; UMBRA_BLESS=1 writes it");
    let difference = kept.lines().zip(text.lines()).find(|(kept, now)| kept != now);
    assert!(
        kept == text,
        "host code has changed, first {difference:?}; UMBRA_BLESS=1 writes golden/host_code.txt anew"
    );
}
