//! Speed of the interpreter on small loops, in millions of guest instructions a second. No board, no paging.

use std::sync::Arc;
use umbra_cpu::Vcpu;
use umbra_cpu::bus::OpenBus;
use umbra_cpu::emit::{DEFAULT_BYTES, Jit};
use umbra_cpu::model::CpuModel;
use umbra_cpu::state::{Seg, Segment, slots};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::attention::Attention;
use umbra_mmu::frames::{FrameOrder, Pool};
use umbra_mmu::memory::GuestMemory;

/// CPU time of this process; wall time on a host without /proc.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn main() {
    #[rustfmt::skip]
    let loops: [(&str, &[u8]); 5] = [
        // again: add eax, ecx; xor edx, eax; sub ebx, 3; dec ecx; jnz again
        ("alu", &[0x01, 0xc8, 0x31, 0xc2, 0x83, 0xeb, 0x03, 0x49, 0x75, 0xf6]),
        // again: mov eax, [2000h]; add [2004h], eax; mov [2008h], edx; dec ecx; jnz again
        ("memory", &[0xa1, 0, 0x20, 0, 0, 0x01, 0x05, 4, 0x20, 0, 0, 0x89, 0x15, 8, 0x20, 0, 0, 0x49, 0x75, 0xec]),
        // again: call next (ret); dec ecx; jnz again
        ("call", &[0xe8, 3, 0, 0, 0, 0x49, 0x75, 0xf8, 0xc3]),
        // again: push eax; pop edx; lea eax, [eax+ecx*4+1]; cmp eax, edx; jb +0; dec ecx; jnz again
        ("mixed", &[0x50, 0x5a, 0x8d, 0x44, 0x88, 1, 0x39, 0xd0, 0x72, 0, 0x49, 0x75, 0xf3]),
        // again: shl eax, 3; rol edx, 5; imul ebx, eax; adc esi, edx; dec ecx; jnz again
        ("shift", &[0xc1, 0xe0, 3, 0xc1, 0xc2, 5, 0x0f, 0xaf, 0xd8, 0x11, 0xd6, 0x49, 0x75, 0xf2]),
    ];
    for (name, code) in loops {
        let pool = Pool::new(1 << 20).expect("memory");
        let memory = GuestMemory::new(pool, FrameOrder::Identity, 40);
        memory.map_ram(GuestPhys(0), 1 << 20).expect("RAM");
        memory.write(GuestPhys(0x1000), code);
        let model = Arc::new(CpuModel::by_name("max").expect("a model"));
        let mut cpu = Vcpu::new(model, &memory, Box::new(OpenBus), Arc::new(Attention::default()));
        let mut state = cpu.state.clone();
        state.control.cr0 |= 1;
        let data = Segment { selector: 0x10, base: 0, limit: u32::MAX, rights: 0xc093 };
        state.seg = [data; 6];
        state.seg[Seg::Cs as usize] = Segment { selector: 8, base: 0, limit: u32::MAX, rights: 0xc09b };
        state.rip = 0x1000;
        state.set_gpr(slots::RSP, 0x8000);
        state.set_gpr(slots::RCX, 0xffff_ffff);
        cpu.set_state(state);
        if std::env::args().nth(1).as_deref() == Some("jit") {
            cpu.use_jit(Some(Jit::new(DEFAULT_BYTES).expect("a code cache")));
        }
        let start = cpu_seconds();
        let exit = cpu.run_until_fault(300_000_000);
        let seconds = cpu_seconds() - start;
        println!("{name:8} {:7.0} MIPS  ({exit:?})", cpu.state.retired as f64 / seconds / 1e6);
    }
}
