//! Where there is emitted code.

use std::sync::Arc;
use std::time::Instant;
use umbra_cpu::Vcpu;
use umbra_cpu::bus::OpenBus;
use umbra_cpu::cache::{Alone, BlockKey, Recent};
use umbra_cpu::emit::{DEFAULT_BYTES, Jit, Variant};
use umbra_cpu::exec::step;
use umbra_cpu::lift::block::{Lifted, lift_bytes, optimise};
use umbra_cpu::model::CpuModel;
use umbra_cpu::state::control::{cr0, cr4, efer};
use umbra_cpu::state::{Seg, Segment};
use umbra_mmu::addr::PhysPage;
use umbra_mmu::attention::Attention;
use umbra_mmu::frames::{FrameOrder, Pool};
use umbra_mmu::memory::GuestMemory;

/// Where the code would lie.
const BASE: u64 = 0x40_0000;
/// Blocks that are lifted before the first of them is emitted.
const AT_A_TIME: usize = 1000;
/// Blocks of one round.
const BLOCKS: usize = 20_000;

/// The executable segment of a program (ELF-64: the program headers).
fn text(path: &str) -> Vec<u8> {
    let file = std::fs::read(path).expect("a program");
    let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes")) as usize;
    let headers = (number(32)..).step_by(56);
    let code = headers.take(number(56) & 0xffff).find(|&at| number(at) >> 32 & 1 != 0).expect("a segment of code");
    file[number(code + 8)..][..number(code + 32)].to_vec()
}

/// A vCPU in 64-bit mode.
fn long() -> Vcpu {
    let memory = GuestMemory::new(Pool::new(1 << 20).expect("memory"), FrameOrder::Identity, 40);
    let model = Arc::new(CpuModel::by_name("max").expect("a model"));
    let mut cpu = Vcpu::new(model, &memory, Box::new(OpenBus), Arc::new(Attention::default()));
    let mut state = cpu.state.clone();
    state.control.cr0 = cr0::PE | cr0::PG | cr0::ET;
    state.control.cr4 = cr4::PAE | cr4::OSFXSR;
    state.control.efer = efer::LME | efer::LMA;
    state.seg[Seg::Cs as usize] = Segment { selector: 8, base: 0, limit: u32::MAX, rights: 0xa09b };
    cpu.set_state(state);
    cpu
}

/// A checksum of the blocks' code: a change that is to make nothing but speed leaves it alone.
fn checksum<'a>(jit: &Jit, keys: impl Iterator<Item = &'a BlockKey>) -> u32 {
    let units = keys.flat_map(|key| jit.code_of(key));
    let bytes = units.flatten().flat_map(|(_, code)| code.iter());
    bytes.fold(0, |sum: u32, byte| sum.rotate_left(5) ^ u32::from(*byte).wrapping_mul(0x9e37_79b9))
}

pub fn main() {
    let rounds = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(20);
    let text = text(&std::env::args().nth(2).unwrap_or("/proc/self/exe".into()));
    let mut cpu = long();
    let key = |at: usize| {
        let linear = BASE + at as u64;
        BlockKey { page: PhysPage(linear >> 12), linear, rip: linear, mode: cpu.link.mode, alone: Alone::No }
    };
    let mut lifted = Lifted::default();
    // From where the code is dense: the start is a table of jumps.
    let (mut blocks, mut at, mut insns) = (Vec::new(), text.len() / 4, 0);
    while blocks.len() < BLOCKS && at < text.len() {
        let room = (text.len() - at).min(4096 - at % 4096).min(512);
        lift_bytes(&cpu, &text[at..at + room], &key(at), &mut lifted);
        let len = usize::from(*lifted.offsets.last().unwrap_or(&0));
        if len != 0 {
            blocks.push((key(at), &text[at..at + len]));
            insns += lifted.offsets.len() - 1;
        }
        at += len.max(1);
    }
    let mut jit = Jit::new(DEFAULT_BYTES).expect("a host for the JIT");
    let (mut lifting, mut emitting, mut again) = (0.0, 0.0, 0.0);
    let mut recent = Recent::default();
    for _ in 0..rounds {
        // As in a guest: some are lifted, then emitted. A clock looked at for each block would be a part of what it measures.
        jit.flush();
        for blocks in blocks.chunks(AT_A_TIME) {
            let start = Instant::now();
            let lifted: Vec<_> = blocks
                .iter()
                .map(|(key, bytes)| {
                    lift_bytes(&cpu, bytes, key, &mut lifted);
                    optimise(&mut lifted.uops);
                    (key, recent.keep(&lifted.uops), lifted.offsets.clone())
                })
                .collect();
            let between = Instant::now();
            for (key, place, offsets) in &lifted {
                let cache = &mut cpu.link.cache;
                let uops = (recent.get(*place).expect("kept"), offsets.as_slice());
                jit.compile(**key, Variant::default(), uops, None, &mut |uop| step(uop, key.rip, cache));
            }
            lifting += (between - start).as_secs_f64();
            emitting += between.elapsed().as_secs_f64();
        }
        let code = checksum(&jit, blocks.iter().map(|(key, _)| key));
        jit.flush();
        let start = Instant::now();
        for (key, bytes) in &blocks {
            lift_bytes(&cpu, bytes, key, &mut lifted);
            optimise(&mut lifted.uops);
            let cache = &mut cpu.link.cache;
            let uops = (lifted.uops.as_slice(), lifted.offsets.as_slice());
            jit.compile(*key, Variant::default(), uops, None, &mut |uop| step(uop, key.rip, cache));
        }
        again += start.elapsed().as_secs_f64();
        assert_eq!(code, checksum(&jit, blocks.iter().map(|(key, _)| key)), "kept uops are the same");
    }
    let each = insns as f64 * f64::from(rounds);
    let counters = jit.counters();
    println!("{} blocks, {:.1} instructions each", blocks.len(), insns as f64 / blocks.len() as f64);
    println!("{:.1} host bytes an instruction", counters.host_bytes as f64 / counters.insns as f64);
    println!("lifting  {:7.0} ns an instruction", lifting / each * 1e9);
    println!("emitting {:7.0} ns an instruction", emitting / each * 1e9);
    println!(
        "{:.2} million instructions a second, {:.2} where they are lifted again",
        each / emitting / 1e6,
        each / again / 1e6
    );
    println!("code {:08x}", checksum(&jit, blocks.iter().map(|(key, _)| key)));
}
