//! Live guest tables written by instructions (SHADOW-MMU S3, S7): every kind of store × level × paging mode, on each engine.
//! The guest reads through the entry, writes it, and reads again in the same block: the new translation holds. Also chains
//! that cross a page whose translation changes, and gathers that start again (S11).

use super::bench::*;
use super::engine;
use umbra_cpu::Exit;
use umbra_cpu::state::control::{cr0, cr4, efer};
use umbra_cpu::state::{State, slots};

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Mode {
    TwoLevel,
    Pae,
    Long,
}

const MODES: [Mode; 3] = [Mode::TwoLevel, Mode::Pae, Mode::Long];
const FLAGS: u64 = 0x67;
/// Tables of level k below the root, of chain A and B: base + 4096 k; the pages that they lead to.
const CHAINS: [u64; 2] = [0x3_0000, 0x3_8000];
const PAGES: [u64; 2] = [0x4_0000, 0x4_1000];
const VALUES: [u32; 2] = [0xaaaa_aaaa, 0xbbbb_bbbb];
/// Where string instructions and stacks have their source.
const SOURCE: u64 = 0x5_0000;

impl Mode {
    fn levels(self) -> u64 {
        match self {
            Mode::TwoLevel => 2,
            Mode::Pae => 3,
            Mode::Long => 4,
        }
    }
    /// Bytes of an entry.
    fn width(self) -> u64 {
        if self == Mode::TwoLevel { 4 } else { 8 }
    }
    /// The highest level whose entries take effect without a load of CR3: PAE's third is in registers.
    fn highest(self) -> u64 {
        if self == Mode::Pae { 2 } else { self.levels() }
    }
    fn root(self) -> u64 {
        match self {
            Mode::TwoLevel => 0x2_0000,
            Mode::Pae => 0x2_5000,
            Mode::Long => 0x1_0000,
        }
    }
    /// The index at a level: odd and even ones, far enough from the table's start for a save area to lie around the entry.
    fn index(self, level: u64) -> u64 {
        95 + level
    }
    fn linear(self) -> u64 {
        let bits = if self == Mode::TwoLevel { 10 } else { 9 };
        (1..=self.highest()).map(|level| self.index(level) << (12 + bits * (level - 1))).sum()
    }
    /// Where chain A's entry of a level is.
    fn entry(self, level: u64) -> u64 {
        let table = if level == self.highest() { self.root() } else { CHAINS[0] + (level << 12) };
        table + self.index(level) * self.width()
    }
    /// What the entry of a level is: the table or page below it in a chain.
    fn value(level: u64, chain: usize) -> u64 {
        FLAGS | if level == 1 { PAGES[chain] } else { CHAINS[chain] + ((level - 1) << 12) }
    }
    fn guest(self, engine: &str) -> Guest {
        let mut guest = match self {
            Mode::Long => Guest::long(&[]),
            _ => Guest::protected(&[]),
        };
        engine::named(&mut guest.cpu, engine);
        match self {
            Mode::TwoLevel => {
                guest.put(0x2_0000, 0x2_1000 | FLAGS as u32);
                (0..256).for_each(|page| guest.put(0x2_1000 + 4 * page, (page << 12) as u32 | FLAGS as u32));
            }
            Mode::Pae => {
                guest.put(0x2_4000, 0x2_5001u64);
                guest.put(0x2_5000, 0xe7u64);
            }
            Mode::Long => {}
        }
        guest.edit(|state| {
            state.control.cr0 |= cr0::PG;
            state.control.cr4 |= cr4::OSFXSR | cr4::OSXSAVE;
            state.control.xcr0 = 7;
            match self {
                Mode::TwoLevel => state.control.cr3 = self.root(),
                Mode::Pae => {
                    state.control.cr3 = 0x2_4000;
                    state.control.pdptes = [0x2_5001, 0, 0, 0];
                    state.control.cr4 |= cr4::PAE;
                    state.control.efer = efer::NXE;
                }
                Mode::Long => {}
            }
        });
        for (page, value) in PAGES.into_iter().zip(VALUES) {
            guest.put(page, value);
        }
        guest
    }
    /// Both chains as they were: the root leads to A.
    fn restore(self, guest: &mut Guest) {
        for level in 1..self.highest() {
            for (chain, base) in CHAINS.into_iter().enumerate() {
                guest.write(base + (level << 12), &[0; 4096]);
                self.put(guest, base + (level << 12) + self.index(level) * self.width(), Mode::value(level, chain));
            }
        }
        let root = self.highest();
        self.put(guest, self.entry(root), Mode::value(root, 0));
    }
    fn put(self, guest: &mut Guest, at: u64, value: u64) {
        guest.write(at, &value.to_le_bytes()[..self.width() as usize]);
    }
}

/// How a store gets what it stores.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Operand {
    /// The new bytes are in RAX.
    Accumulator,
    /// The difference to the old bytes is in RAX.
    Difference,
    /// The bits that change are in RAX.
    Change,
    /// The number of the one bit that changes is in RAX.
    Bit,
    /// The old bytes are in RDX:RAX, the new ones in RCX:RBX, or (shorter) in RAX and RCX.
    Exchange,
    /// The new bytes are at RSI; RCX counts elements of so many bytes.
    Memory(u64),
    /// They are in vector register 0.
    Vector,
    /// They are in the register of a save area that lies around the entry, at 160 + 16 n, aligned so.
    SaveArea(u64),
}

/// A store: name, code, whether it needs 64-bit mode, where it begins relative to the entry, how many bytes it stores.
type Writer = (&'static str, &'static [u8], bool, i64, u64, Operand);

#[rustfmt::skip]
const WRITERS: &[Writer] = &[
    ("mov byte",                    &[0x88, 0x07],                   false,  1,  1, Operand::Accumulator),
    ("mov word",                    &[0x66, 0x89, 0x07],             false,  0,  2, Operand::Accumulator),
    ("mov word, odd",               &[0x66, 0x89, 0x07],             false,  1,  2, Operand::Accumulator),
    ("mov dword",                   &[0x89, 0x07],                   false,  0,  4, Operand::Accumulator),
    ("mov dword, two entries",      &[0x89, 0x07],                   false, -2,  4, Operand::Accumulator),
    ("mov qword",                   &[0x48, 0x89, 0x07],             true,   0,  8, Operand::Accumulator),
    ("mov qword, two entries",      &[0x48, 0x89, 0x07],             true,  -3,  8, Operand::Accumulator),
    ("xor dword",                   &[0x31, 0x07],                   false,  0,  4, Operand::Change),
    ("add dword, odd",              &[0x01, 0x07],                   false,  1,  4, Operand::Difference),
    ("bts",                         &[0x0f, 0xab, 0x07],             false,  0,  4, Operand::Bit),
    ("xchg",                        &[0x87, 0x07],                   false,  0,  4, Operand::Accumulator),
    ("lock xadd",                   &[0xf0, 0x0f, 0xc1, 0x07],       false,  0,  4, Operand::Difference),
    ("lock xadd, two entries",      &[0xf0, 0x0f, 0xc1, 0x07],       false, -2,  4, Operand::Difference),
    ("lock or",                     &[0xf0, 0x09, 0x07],             false,  0,  4, Operand::Change),
    ("lock xor byte",               &[0xf0, 0x30, 0x07],             false,  1,  1, Operand::Change),
    ("lock btc",                    &[0xf0, 0x0f, 0xbb, 0x07],       false,  0,  4, Operand::Bit),
    ("lock cmpxchg byte",           &[0xf0, 0x0f, 0xb0, 0x0f],       false,  1,  1, Operand::Exchange),
    ("lock cmpxchg dword",          &[0xf0, 0x0f, 0xb1, 0x0f],       false,  0,  4, Operand::Exchange),
    ("lock cmpxchg8b",              &[0xf0, 0x0f, 0xc7, 0x0f],       false,  0,  8, Operand::Exchange),
    ("lock cmpxchg8b, two entries", &[0xf0, 0x0f, 0xc7, 0x0f],       false, -4,  8, Operand::Exchange),
    ("lock cmpxchg16b",             &[0xf0, 0x48, 0x0f, 0xc7, 0x0f], true,   0, 16, Operand::Exchange),
    ("push",                        &[0x87, 0xfc, 0x50, 0x87, 0xfc], false,  0,  0, Operand::Accumulator),
    ("stosb",                       &[0xaa],                         false,  1,  1, Operand::Accumulator),
    ("rep stosd, one",              &[0xf3, 0xab],                   false,  0,  4, Operand::Accumulator),
    ("movsd",                       &[0xa5],                         false,  0,  4, Operand::Memory(4)),
    ("rep movsb, four entries",     &[0xf3, 0xa4],                   false, -16, 32, Operand::Memory(1)),
    ("rep movsd, odd",              &[0xf3, 0xa5],                   false, -15, 32, Operand::Memory(4)),
    ("movd",                        &[0x66, 0x0f, 0x7e, 0x07],       false,  0,  4, Operand::Vector),
    ("movq, two entries",           &[0x66, 0x0f, 0xd6, 0x07],       false, -3,  8, Operand::Vector),
    ("movups",                      &[0x0f, 0x11, 0x07],             false, -9, 16, Operand::Vector),
    ("movntps",                     &[0x0f, 0x2b, 0x07],             false,  0, 16, Operand::Vector),
    ("vmovups, 32 bytes",           &[0xc5, 0xfc, 0x11, 0x07],       false, -16, 32, Operand::Vector),
    ("fxsave",                      &[0x0f, 0xae, 0x07],             false,  0, 512, Operand::SaveArea(16)),
    ("xsave",                       &[0x0f, 0xae, 0x27],             false,  0, 576, Operand::SaveArea(64)),
];

/// Up to 16 little-endian bytes as a number.
fn number(bytes: &[u8]) -> u128 {
    let mut all = [0; 16];
    all[..bytes.len().min(16)].copy_from_slice(&bytes[..bytes.len().min(16)]);
    u128::from_le_bytes(all)
}

fn vector(bytes: &[u8]) -> [u64; 4] {
    std::array::from_fn(|n| number(bytes.get(8 * n..bytes.len().min(8 * n + 8)).unwrap_or(&[])) as u64)
}

/// Registers and memory for a store, and the code: push [linear]; the store; push [linear].
fn prepare(guest: &mut Guest, mode: Mode, level: u64, writer: &Writer) {
    let &(_, code, _, from, bytes, operand) = writer;
    let entry = mode.entry(level);
    let aligned =
        operand == Operand::Exchange && bytes == 16 || operand == Operand::Vector && code == [0x0f, 0x2b, 0x07];
    let start = if aligned { entry & !15 } else { entry.wrapping_add_signed(from) };
    let length = bytes.clamp(mode.width(), 32);
    let mut old = vec![0; 64];
    guest.cpu.link.memory.read(umbra_mmu::GuestPhys(start), &mut old);
    let mut new = old.clone();
    let value = Mode::value(level, 1).to_le_bytes();
    (0..mode.width()).for_each(|i| {
        if let Some(byte) =
            entry.checked_add(i).and_then(|at| at.checked_sub(start)).and_then(|n| new.get_mut(n as usize))
        {
            *byte = value[i as usize];
        }
    });
    let store = if bytes == 0 { mode.width() } else { length.min(bytes) } as usize;
    let (old_value, new_value) = (number(&old[..store]), number(&new[..store]));
    let stack = if mode == Mode::Long { 8 } else { 4 };
    let mut set: Vec<(u8, u64)> = vec![(slots::RDI, start)];
    let mut registers: Option<(usize, [u64; 4])> = None;
    match operand {
        Operand::Accumulator if bytes == 0 => {
            // A push on to the entry: as many bytes as the stack's width, beginning at the entry.
            set = vec![(slots::RDI, entry + stack), (slots::RAX, number(&new[..stack as usize]) as u64)];
        }
        Operand::Accumulator => set.push((slots::RAX, new_value as u64)),
        Operand::Difference => set.push((slots::RAX, new_value.wrapping_sub(old_value) as u64)),
        Operand::Change => set.push((slots::RAX, (new_value ^ old_value) as u64)),
        Operand::Bit => set.push((slots::RAX, u64::from((new_value ^ old_value).trailing_zeros()))),
        Operand::Exchange if bytes < 8 => set.extend([(slots::RAX, old_value as u64), (slots::RCX, new_value as u64)]),
        Operand::Exchange => {
            let half = bytes as u32 * 4;
            let mask = u128::MAX >> (128 - half);
            let halves = |value: u128| [(value & mask) as u64, (value >> half & mask) as u64];
            let [[a, d], [b, c]] = [halves(old_value), halves(new_value)];
            set.extend([(slots::RAX, a), (slots::RDX, d), (slots::RBX, b), (slots::RCX, c)]);
        }
        Operand::Memory(width) => {
            guest.write(SOURCE, &new[..store]);
            set.extend([(slots::RSI, SOURCE), (slots::RCX, bytes / width)]);
        }
        Operand::Vector => registers = Some((0, vector(&new[..store]))),
        Operand::SaveArea(alignment) => {
            let line = entry & !15;
            let n = (0..8).find(|n| (line - 160 - 16 * n).is_multiple_of(alignment)).expect("one of eight registers");
            let area = line - 160 - 16 * n;
            let mut image = [0; 16];
            image[(entry - line) as usize..][..mode.width() as usize].copy_from_slice(&value[..mode.width() as usize]);
            registers = Some((n as usize, vector(&image)));
            set = vec![(slots::RDI, area), (slots::RAX, 3), (slots::RDX, 0)];
        }
    }
    if operand == Operand::Accumulator && code.first() == Some(&0xf3) {
        set.push((slots::RCX, 1));
    }
    let wide_stack = bytes == 0 && mode == Mode::Long;
    let store: &[u8] = if wide_stack { &[0x48, 0x87, 0xfc, 0x50, 0x48, 0x87, 0xfc] } else { code };
    // push [rbp]; …; push [rbp]; hlt
    guest.write(CODE, &[&[0xff, 0x75, 0x00], store, &[0xff, 0x75, 0x00, 0xf4]].concat());
    guest.edit(|state: &mut State| {
        set.iter().for_each(|&(slot, value)| state.set_gpr(slot, value));
        if let Some((n, value)) = registers {
            state.vectors.regs[n] = value;
        }
        state.set_gpr(slots::RBP, mode.linear());
        state.set_gpr(slots::RSP, STACK0);
        state.rip = CODE;
        state.activity = Default::default();
    });
}

#[test]
fn every_kind_of_store_into_a_live_table() {
    for mode in MODES {
        for engine in engines() {
            let mut guest = mode.guest(engine);
            for level in 1..=mode.highest() {
                for writer in WRITERS.iter().filter(|writer| !writer.2 || mode == Mode::Long) {
                    let what = format!("{mode:?} {engine} level {level}: {}", writer.0);
                    mode.restore(&mut guest);
                    // The entry's neighbours in the root are whatever earlier save areas left there.
                    prepare(&mut guest, mode, level, writer);
                    assert_eq!(guest.cpu.run(100), Exit::Halted, "{what}: {:?}", guest.cpu.link.fault_chain);
                    let stack = if mode == Mode::Long { 8 } else { 4 };
                    let read = [1, 2].map(|n| guest.dword(STACK0 - n * stack));
                    assert_eq!(read, VALUES, "{what}");
                    let report = guest.cpu.link.memory.audit();
                    assert!(report.is_clean(), "{what}: {report:#?}");
                    assert!(guest.cpu.link.mmu.audit().is_clean(), "{what}");
                }
            }
        }
    }
}

/// `mov ecx, 50; l: call linear; dec ecx; jnz l` for a place; in 64-bit mode the call goes through RBP.
fn calls(mode: Mode, at: u64) -> Vec<u8> {
    let mut code = vec![0xb9, 50, 0, 0, 0];
    if mode == Mode::Long {
        code.extend([0xff, 0xd5, 0x90, 0x90, 0x90]);
    } else {
        code.push(0xe8);
        code.extend((mode.linear().wrapping_sub(at + 10) as u32).to_le_bytes());
    }
    code.extend([0xff, 0xc9, 0x75, 0xf7]);
    code
}

/// A direct call into another page is chained; when a store gives that page another translation, the chain must not be
/// followed into the old page's code.
#[test]
fn chains_across_pages_follow_the_tables() {
    for mode in MODES {
        for engine in engines() {
            for level in 1..=mode.highest() {
                let mut guest = mode.guest(engine);
                mode.restore(&mut guest);
                // A: inc eax; ret. B: inc ebx; ret.
                guest.write(PAGES[0], &[0xff, 0xc0, 0xc3]);
                guest.write(PAGES[1], &[0xff, 0xc3, 0xc3]);
                let byte = Mode::value(level, 1).to_le_bytes()[1];
                // Twice fifty calls, with the store in between.
                let first = calls(mode, CODE);
                let between = [0xc6, 0x07, byte];
                let second = calls(mode, CODE + (first.len() + between.len()) as u64);
                guest.write(CODE, &[&first[..], &between, &second, &[0xf4]].concat());
                guest.edit(|state| {
                    state.set_gpr(slots::RAX, 0);
                    state.set_gpr(slots::RBX, 0);
                    state.set_gpr(slots::RBP, mode.linear());
                    state.set_gpr(slots::RDI, mode.entry(level) + 1);
                });
                assert_eq!(guest.cpu.run(10_000), Exit::Halted, "{mode:?} {engine} level {level}");
                let counts = (guest.gpr(slots::RAX), guest.gpr(slots::RBX));
                assert_eq!(counts, (50, 50), "{mode:?} {engine} level {level}");
            }
        }
    }
}

/// A gather of eight elements in eight pages, none of which is shadowed, one of which the guest itself has absent.
#[test]
fn a_gather_starts_again_where_it_was() {
    for engine in engines() {
        for absent in [None, Some(0), Some(5), Some(7)] {
            // vpgatherdd ymm0, [rdi + ymm1], ymm2; hlt
            let mut guest = Mode::TwoLevel.guest(engine);
            guest.write(CODE, &[0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x0f, 0xf4]);
            let linear = 0x40_0000;
            guest.put(0x2_0004, 0x2_2003u32);
            let entry = |page: u64| 0x2_2000 + 4 * page;
            for page in 0..8 {
                guest.put(entry(page), if absent == Some(page) { 0 } else { (0x6_0000 + (page << 12)) as u32 | 3 });
                guest.put(0x6_0000 + (page << 12) + 4 * page, 0x1111_1111 * (page as u32 + 1));
            }
            guest.edit(|state| {
                let lane = |n: u64| (n << 12) + 4 * n;
                state.vectors.regs[0] = [0; 4];
                state.vectors.regs[1] = std::array::from_fn(|n| lane(2 * n as u64) | lane(2 * n as u64 + 1) << 32);
                state.vectors.regs[2] = [u64::MAX; 4];
                state.set_gpr(slots::RDI, linear);
                state.control.cr2 = 0x1234;
            });
            assert!(guest.cpu.link.memory.compact(256) > 0, "nothing is shadowed any more");
            if let Some(page) = absent {
                let (rip, fault) = guest.cpu.run_until_fault(10).expect_err("a page fault");
                assert_eq!((rip, fault.vector, fault.linear.0 >> 12), (CODE, 14, (linear >> 12) + page), "{engine}");
                let regs = guest.cpu.state.vectors.regs;
                for n in 0..8 {
                    let part = |reg: usize| (regs[reg][n / 2] >> (32 * (n % 2))) as u32;
                    let done = (n as u64) < page;
                    let expected = if done { 0x1111_1111 * (n as u32 + 1) } else { 0 };
                    assert_eq!(
                        (part(0), part(2)),
                        (expected, if done { 0 } else { u32::MAX }),
                        "{engine} {absent:?} {n}"
                    );
                    assert_eq!(
                        guest.dword(entry(n as u64)) & 0x60,
                        if done { 0x20 } else { 0 },
                        "{engine} {absent:?} {n}"
                    );
                }
                guest.put(entry(page), (0x6_0000 + (page << 12)) as u32 | 3);
                assert!(guest.cpu.link.memory.compact(256) > 0);
            }
            assert_eq!(guest.cpu.run(10), Exit::Halted, "{engine} {absent:?}");
            let lane = |n: u64| 0x1111_1111 * (n + 1);
            let expected = std::array::from_fn(|n| lane(2 * n as u64) | lane(2 * n as u64 + 1) << 32);
            assert_eq!(guest.cpu.state.vectors.regs[0], expected, "{engine} {absent:?}");
            assert_eq!((guest.cpu.state.vectors.regs[2], guest.cpu.state.control.cr2), ([0; 4], 0x1234));
        }
    }
}

/// A store that unmaps the page that it runs in: the next instruction is not fetched, inside a block or at its end.
#[test]
fn code_that_unmaps_itself_ends_there() {
    // MOV [entry], 0; NOP – and NOP; CALL next, whose return address, which is even, becomes the entry.
    let own_entry = 0x2_1000 + 4 * (CODE >> 12);
    let store: &[u8] = &[0xc7, 0x05, 0x20, 0x10, 0x02, 0, 0, 0, 0, 0, 0x90, 0x90];
    let call: &[u8] = &[0x90, 0xe8, 0, 0, 0, 0, 0x90, 0x90];
    assert_eq!(own_entry, 0x2_1020);
    for engine in engines() {
        for (code, retired, next) in [(store, 1, CODE + 10), (call, 2, CODE + 6)] {
            let mut guest = Mode::TwoLevel.guest(engine);
            guest.write(CODE, code);
            // Once around, so that there is emitted code.
            for _ in 0..3 {
                guest.put(0x2_1020, CODE as u32 | FLAGS as u32);
                guest.edit(|state| {
                    state.rip = CODE;
                    state.set_gpr(slots::RSP, own_entry + 4);
                });
                let before = guest.cpu.state.retired;
                let (rip, fault) = guest.cpu.run_until_fault(100).expect_err("the page is gone");
                assert_eq!((rip, fault.vector, guest.cpu.state.retired - before), (next, 14, retired), "{engine}");
            }
        }
    }
}

/// ADD [next + 1], AL, again and again, until the next instruction is no more what it was, and faults: the flags are those of
/// the last one, whatever the instruction that was there before would have made of them.
#[test]
fn flags_after_a_store_into_the_next_instruction() {
    for first in (0x9000u64..0x908a).step_by(2) {
        let ends = engines().iter().map(|engine| {
            let mut guest = Mode::TwoLevel.guest(engine);
            guest.write(0x9000, &[0; 0x100]);
            guest.edit(|state| {
                state.rip = first;
                state.set_gpr(slots::RAX, 0x908b);
                state.set_gpr(slots::RDI, 0x463d_04a7);
            });
            let end = guest.cpu.run_until_fault(600);
            (end, guest.cpu.flags(), guest.cpu.state.retired)
        });
        let ends: Vec<_> = ends.collect();
        assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "from {first:x}: {ends:x?}");
    }
}

/// FILD; FISTP [entry of its own page]: the last instruction before the page is gone has noted its pointers.
#[test]
fn an_x87_store_that_ends_its_block_has_noted_itself() {
    for engine in engines() {
        let mut guest = Mode::TwoLevel.guest(engine);
        guest.write(CODE, &[0xdb, 0x05, 0x00, 0x40, 0, 0, 0xdb, 0x1d, 0x20, 0x10, 0x02, 0, 0x90]);
        guest.edit(|state| (state.rip, state.fpu.cw) = (CODE, 0x37f));
        let (rip, fault) = guest.cpu.run_until_fault(100).expect_err("the page is gone");
        let fpu = &guest.cpu.state.fpu;
        assert_eq!((rip, fault.vector), (CODE + 12, 14), "{engine}");
        assert_eq!((fpu.fip, fpu.fop, fpu.fdp), (CODE + 6, 0x31d, 0x2_1020), "{engine}");
    }
}
