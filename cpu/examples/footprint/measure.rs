//! Where there is emitted code.

use std::sync::Arc;
use std::time::Instant;
use umbra_cpu::Vcpu;
use umbra_cpu::bus::OpenBus;
use umbra_cpu::emit::{Jit, JitCounters};
use umbra_cpu::exit::Exit;
use umbra_cpu::model::CpuModel;
use umbra_cpu::state::{Seg, Segment, slots};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::attention::Attention;
use umbra_mmu::frames::{FrameOrder, Pool};
use umbra_mmu::memory::GuestMemory;

const RAM: u64 = 64 << 20;
/// The loop that calls, its stack, the data of all functions.
const CALLER: u64 = 0x1000;
const STACK: u64 = 0x8000;
const DATA: u32 = 0x2000;
/// The functions.
const CODE: u64 = 1 << 20;
/// Their addresses in the order of the calls.
const ORDER: u64 = 32 << 20;
/// A cache that holds everything.
const ENOUGH: usize = 512 << 20;

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// One function: its body has a dozen short blocks, as compilers make them, and runs `times` times.
fn function(random: &mut Random, times: u32, code: &mut Vec<u8>) {
    code.extend([0x55, 0x89, 0xe5, 0x53, 0xb9]); // push ebp; mov ebp, esp; push ebx; mov ecx, times
    code.extend(times.to_le_bytes());
    let top = code.len();
    for _ in 0..12 {
        for _ in 0..1 + random.below(5) {
            let place = DATA + random.below(0x1000) as u32 * 4;
            let number = random.below(1 << 31) as u32;
            let (bytes, operand): (&[u8], _) = match random.below(8) {
                0 => (&[0x8b, 0x15], Some(place)),  // mov edx, [place]
                1 => (&[0x03, 0x05], Some(place)),  // add eax, [place]
                2 => (&[0x89, 0x05], Some(place)),  // mov [place], eax
                3 => (&[0x05], Some(number)),       // add eax, number
                4 => (&[0x8d, 0x9a], Some(number)), // lea ebx, [edx + number]
                5 => (&[0x31, 0xd8], None),         // xor eax, ebx
                6 => (&[0xc1, 0xe8, 0x03], None),   // shr eax, 3
                _ => (&[0x01, 0xd0], None),         // add eax, edx
            };
            code.extend(bytes);
            code.extend(operand.iter().flat_map(|number| number.to_le_bytes()));
        }
        // test al, bits; jz over the next instruction; add edx, eax
        code.extend([0xa8, 1 << random.below(4), 0x74, 0x02, 0x01, 0xc2]);
    }
    code.extend([0x49, 0x0f, 0x85]); // dec ecx; jnz top
    code.extend((top as i32 - (code.len() as i32 + 4)).to_le_bytes());
    code.extend([0x5b, 0x5d, 0xc3]); // pop ebx; pop ebp; ret
}

/// How often which function is called.
#[derive(Copy, Clone, Debug)]
enum Pattern {
    /// All in turn.
    InTurn,
    /// The n-th most frequent one as often as one in n.
    Zipf,
}

struct Guest {
    cpu: Vcpu,
    memory: GuestMemory,
    functions: Vec<u64>,
    bytes: usize,
}

impl Guest {
    fn new(count: usize, times: u32, cache: usize) -> Guest {
        let memory = GuestMemory::new(Pool::new(RAM).expect("memory"), FrameOrder::Identity, 40);
        memory.map_ram(GuestPhys(0), RAM).expect("RAM");
        // next: mov eax, [esi]; add esi, 4; call eax; dec edi; jnz next; hlt
        memory.write(GuestPhys(CALLER), &[0x8b, 0x06, 0x83, 0xc6, 0x04, 0xff, 0xd0, 0x4f, 0x75, 0xf6, 0xf4]);
        let (mut random, mut code, mut functions) = (Random(1), Vec::new(), Vec::new());
        for _ in 0..count {
            functions.push(CODE + code.len() as u64);
            function(&mut random, times, &mut code);
            code.resize(code.len().next_multiple_of(16), 0xcc);
        }
        assert!(CODE + (code.len() as u64) < ORDER, "less code");
        memory.write(GuestPhys(CODE), &code);
        let model = Arc::new(CpuModel::by_name("max").expect("a model"));
        let mut cpu = Vcpu::new(model, &memory, Box::new(OpenBus), Arc::new(Attention::default()));
        cpu.use_jit(Some(Jit::new(cache).expect("a host for the JIT")));
        Guest { cpu, memory, functions, bytes: code.len() }
    }

    /// Calls functions in this order.
    fn run(&mut self, order: &[usize]) {
        let addresses: Vec<u8> = order.iter().flat_map(|n| (self.functions[*n] as u32).to_le_bytes()).collect();
        self.memory.write(GuestPhys(ORDER), &addresses);
        let mut state = self.cpu.state.clone();
        state.control.cr0 |= 1;
        let data = Segment { selector: 0x10, base: 0, limit: u32::MAX, rights: 0xc093 };
        state.seg = [data; 6];
        state.seg[Seg::Cs as usize] = Segment { selector: 8, base: 0, limit: u32::MAX, rights: 0xc09b };
        state.rip = CALLER;
        state.activity = umbra_cpu::exit::Activity::Running;
        state.set_gpr(slots::RSP, STACK);
        state.set_gpr(slots::RSI, ORDER);
        state.set_gpr(slots::RDI, order.len() as u64);
        self.cpu.set_state(state);
        assert_eq!(self.cpu.run(u64::MAX >> 1), Exit::Halted);
    }

    fn counters(&self) -> JitCounters {
        self.cpu.link.jit.as_ref().expect("the JIT").counters()
    }
}

fn order(pattern: Pattern, functions: usize, calls: usize) -> Vec<usize> {
    let mut random = Random(2);
    // Frequent ones lie anywhere.
    let place = |rank: usize| rank * 7919 % functions;
    let zipf = |random: &mut Random| (functions as f64).powf(random.below(1 << 30) as f64 / (1 << 30) as f64) as usize;
    match pattern {
        Pattern::InTurn => (0..calls).map(|n| n % functions).collect(),
        Pattern::Zipf => (0..calls).map(|_| place(zipf(&mut random).min(functions) - 1)).collect(),
    }
}

/// Millions of instructions a second, once everything that comes to be emitted has been; and what was emitted meanwhile.
fn speed(guest: &mut Guest, order: &[usize]) -> (f64, u64, u64) {
    guest.run(order);
    let (start, retired, before) = (Instant::now(), guest.cpu.state.retired, guest.counters());
    guest.run(order);
    let (after, seconds) = (guest.counters(), start.elapsed().as_secs_f64());
    let retired = (guest.cpu.state.retired - retired) as f64;
    (retired / seconds / 1e6, after.insns - before.insns, after.flushes - before.flushes)
}

/// How many functions have that many bytes of emitted code.
fn functions_of(bytes: usize) -> usize {
    let mut guest = Guest::new(500, 20, ENOUGH);
    guest.run(&order(Pattern::InTurn, 500, 1000));
    bytes * 500 / guest.counters().host_bytes as usize
}

pub fn main() {
    let cache = std::env::args().nth(1).and_then(|mib| mib.parse().ok()).unwrap_or(32) << 20;
    let only: Option<usize> = std::env::args().nth(2).and_then(|row| row.parse().ok());
    let count = functions_of(2 * cache);
    let rows = [
        (Pattern::Zipf, 1, 40),
        (Pattern::Zipf, 10, 20),
        (Pattern::Zipf, 100, 6),
        (Pattern::InTurn, 1, 20),
        (Pattern::InTurn, 10, 10),
        (Pattern::InTurn, 100, 4),
        (Pattern::InTurn, 1000, 2),
    ];
    for (_, (pattern, times, rounds)) in
        rows.into_iter().enumerate().filter(|(row, _)| only.is_none_or(|only| *row == only))
    {
        let order = order(pattern, count, count * rounds);
        let mut warm = Guest::new(count, times, ENOUGH);
        let (all, ..) = speed(&mut warm, &order);
        let host_bytes = warm.counters().host_bytes;
        let guest_bytes = warm.bytes;
        drop(warm);
        let (with_less, emitted, flushes) = speed(&mut Guest::new(count, times, cache), &order);
        println!(
            "{pattern:?}, body {times:4} times: {all:6.0} M/s with all of it, {with_less:6.0} with {} MiB: {:.2}  \
             ({count} functions, {:.1} MiB of guest code, {:.1} of host code; {:.1} M instructions emitted, {flushes} flushes)",
            cache >> 20,
            with_less / all,
            guest_bytes as f64 / f64::from(1 << 20),
            host_bytes as f64 / f64::from(1 << 20),
            emitted as f64 / 1e6,
        );
    }
}
