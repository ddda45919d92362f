//! What transfers through descriptor tables cost, in nanoseconds each, with monitor tables and without: segment loads, far calls
//! through call gates, interrupts and their returns. No board, no paging in 32-bit mode. `transfers [jit]`.

use std::sync::Arc;
use umbra_cpu::Vcpu;
use umbra_cpu::bus::OpenBus;
use umbra_cpu::emit::{DEFAULT_BYTES, Jit};
use umbra_cpu::model::CpuModel;
use umbra_cpu::state::control::{cr0, cr4, efer};
use umbra_cpu::state::{Seg, Segment, TableRegister, slots};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::attention::Attention;
use umbra_mmu::frames::{FrameOrder, Pool};
use umbra_mmu::memory::GuestMemory;

const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
const TIMES: u64 = 4_000_000;

/// CPU time of this process; wall time on a host without /proc.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

#[derive(Copy, Clone, PartialEq)]
enum Width {
    Short,
    Long,
}

fn put(memory: &GuestMemory, at: u64, value: u64) {
    memory.write(GuestPhys(at), &value.to_le_bytes());
}

/// A guest at level `cpl` whose code begins at 8000h and ends in a jump back; what it calls is at 9000h.
fn guest(width: Width, cpl: u8, code: &[u8], callee: &[u8]) -> Vcpu {
    let memory = GuestMemory::new(Pool::new(1 << 20).expect("memory"), FrameOrder::Identity, 40);
    memory.map_ram(GuestPhys(0), 1 << 20).expect("RAM");
    let long = width == Width::Long;
    let code_bits = if long { 0x00af_0000_0000_ffff } else { 0x00cf_0000_0000_ffff };
    let data_bits = 0x00cf_0000_0000_ffff;
    #[rustfmt::skip]
    let gdt = [
        0, code_bits | 0x9b << 40, data_bits | 0x93 << 40, code_bits | 0xfb << 40, data_bits | 0xf3 << 40,
        0x0000_8b00_0000_0067 | TSS << 16, 0, 0x0000_ec00_0008_9000, 0,
    ];
    for (n, entry) in (0..).zip(gdt) {
        put(&memory, GDT + 8 * n, entry);
    }
    put(&memory, IDT + 0x80 * if long { 16 } else { 8 }, 0x0000_ee00_0008_9000);
    put(&memory, TSS + 4, if long { 0x7000 } else { 0x10_0000_7000 });
    if long {
        put(&memory, 0x10000, 0x11007);
        put(&memory, 0x11000, 0x12007);
        put(&memory, 0x12000, 0x87);
    }
    memory.write(GuestPhys(0x8000), code);
    memory.write(GuestPhys(0x9000), callee);
    // far pointer: 38h:0
    memory.write(GuestPhys(0xa000), &[0, 0, 0, 0, 0x38, 0]);
    let model = Arc::new(CpuModel::by_name("max").expect("a model"));
    let mut cpu = Vcpu::new(model, &memory, Box::new(OpenBus), Arc::new(Attention::default()));
    let mut state = cpu.state.clone();
    state.control.cr0 |= cr0::PE;
    if long {
        state.control.cr0 |= cr0::PG;
        state.control.cr3 = 0x10000;
        state.control.cr4 = cr4::PAE;
        state.control.efer = efer::LME | efer::LMA;
    }
    let (cs, ss) = if cpl == 0 { (8, 0x10) } else { (0x1b, 0x23) };
    let rights = |kind: u16| kind | u16::from(cpl) << 5;
    state.seg = [Segment { selector: ss, base: 0, limit: u32::MAX, rights: rights(0xc093) }; 6];
    let of_code = rights(if long { 0xa09b } else { 0xc09b });
    state.seg[Seg::Cs as usize] = Segment { selector: cs, base: 0, limit: u32::MAX, rights: of_code };
    state.tr = Segment { selector: 0x28, base: TSS, limit: 0x67, rights: 0x8b };
    state.gdtr = TableRegister { base: GDT, limit: 0x47 };
    state.idtr = TableRegister { base: IDT, limit: 0xfff };
    state.cpl = cpl;
    state.rip = 0x8000;
    state.set_gpr(slots::RSP, 0x6000);
    state.set_gpr(slots::RAX, ss.into());
    state.set_gpr(slots::RSI, 0xa000);
    cpu.set_state(state);
    cpu
}

fn main() {
    let (mov_ds, mov_ss, int): (&[u8], &[u8], &[u8]) = (&[0x8e, 0xd8], &[0x8e, 0xd0], &[0xcd, 0x80]);
    let (call, retf, iret): (&[u8], &[u8], &[u8]) = (&[0xff, 0x1e], &[0xcb], &[0xcf]);
    let (retfq, iretq): (&[u8], &[u8]) = (&[0x48, 0xcb], &[0x48, 0xcf]);
    #[rustfmt::skip]
    let rows = [
        ("mov ds, 32 bit, level 0", Width::Short, 0, mov_ds, iret),
        ("mov ds, 32 bit, level 3", Width::Short, 3, mov_ds, iret),
        ("mov ss, 32 bit, level 0", Width::Short, 0, mov_ss, iret),
        ("call gate and retf, 32 bit, same level", Width::Short, 0, call, retf),
        ("call gate and retf, 32 bit, inner level", Width::Short, 3, call, retf),
        ("call gate and retf, 64 bit, inner level", Width::Long, 3, call, retfq),
        ("int and iret, 32 bit, same level", Width::Short, 0, int, iret),
        ("int and iret, 32 bit, inner level", Width::Short, 3, int, iret),
        ("int and iret, 64 bit, same level", Width::Long, 0, int, iretq),
        ("int and iret, 64 bit, inner level", Width::Long, 3, int, iretq),
    ];
    let with_jit = std::env::args().nth(1).as_deref() == Some("jit");
    println!("{:42} {:>8} {:>8}", "nanoseconds", "with", "without");
    for (name, width, cpl, code, callee) in rows {
        let steps = if callee == iret && (code == mov_ds || code == mov_ss) { 2 } else { 3 };
        let mut cost = [f64::MAX; 2];
        for turn in 0..6 {
            let mut cpu = guest(width, cpl, &[code, &[0xeb, 0xfe - code.len() as u8]].concat(), callee);
            if with_jit {
                cpu.use_jit(Some(Jit::new(DEFAULT_BYTES).expect("a code cache")));
            }
            if turn % 2 == 1 {
                cpu.tables.switch_off();
            }
            cpu.run_until_fault(1000 * steps).expect("no fault");
            let start = cpu_seconds();
            cpu.run_until_fault(TIMES * steps).expect("no fault");
            let nanoseconds = (cpu_seconds() - start) * 1e9 / TIMES as f64;
            cost[turn % 2] = cost[turn % 2].min(nanoseconds);
        }
        println!("{name:42} {:8.1} {:8.1}", cost[0], cost[1]);
    }
}
