//! Monitor descriptor tables (SHADOW-MMU S8, S9): a guest with them and one without, on the same random instructions, with the
//! tables edited between any two; and the corners, one by one. Runs on each engine.

use super::bench::*;
use super::engine;
use umbra_cpu::Exit;
use umbra_cpu::helpers::descriptor::Descriptor;
use umbra_cpu::state::{Seg, Segment, State, TableRegister, slots};
use umbra_mmu::addr::{GuestPhys, PhysPage, RegionId};
use umbra_mmu::{Backing, Dma};

/// Far pointers, and the user's stack of returns.
const POINTER: u64 = 0xa000;
const FRAME: u64 = 0xa100;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Mode {
    Protected,
    User,
    Long,
    LongUser,
}

impl Mode {
    const ALL: [Mode; 4] = [Mode::Protected, Mode::User, Mode::Long, Mode::LongUser];
    fn is_long(self) -> bool {
        matches!(self, Mode::Long | Mode::LongUser)
    }
    fn guest(self) -> Guest {
        match self {
            Mode::Protected => Guest::protected(&[]),
            Mode::User => Guest::user(&[]),
            Mode::Long => Guest::long(&[]),
            Mode::LongUser => Guest::long_user(&[]),
        }
    }
}

/// Instructions whose operands are EAX, [ESI] and the stack.
#[rustfmt::skip]
const INSTRUCTIONS: [&[u8]; 22] = [
    &[0x8e, 0xd8], &[0x8e, 0xc0], &[0x8e, 0xe0], &[0x8e, 0xe8], &[0x8e, 0xd0], // mov ds, es, fs, gs, ss
    &[0x0f, 0x02, 0xd8], &[0x0f, 0x03, 0xd8], &[0x0f, 0x00, 0xe0], &[0x0f, 0x00, 0xe8], // lar, lsl, verr, verw
    &[0x0f, 0x00, 0xd0], &[0x0f, 0x00, 0xd8], // lldt, ltr
    &[0xcd, 0x20], &[0xcd, 0x21], &[0xcd, 0x0d], &[0xcd, 0x22], &[0xcc], // int
    &[0xff, 0x1e], &[0xff, 0x2e], &[0x0f, 0xb4, 0x06], // call far, jmp far, lfs
    &[0xcb], &[0xcf], &[0x48, 0xcf], // retf, iret, iretq
];

#[rustfmt::skip]
const SELECTORS: [u16; 22] = [
    CODE0, DATA0, CODE3, DATA3, TSS_SEL, CODE16, DATA16, CONFORMING, TSS_B_SEL, TSS_16_SEL, LDT_SEL, GATE, ABSENT_CODE,
    ABSENT_DATA, READ_ONLY, 0, 3, CODE0 | 4, DATA0 | 4, CODE3 | 4, DATA3 | 4, GATE | 7,
];

const RIGHTS: [u64; 12] = [0x8e, 0xee, 0x8f, 0xef, 0x85, 0x86, 0xe7, 0x0e, 0x8c, 0xec, 0xe4, 0xee];

fn random_gate(random: &mut Random) -> u64 {
    gate(random.of(&SELECTORS), HANDLERS + 16 * random.below(8), random.of(&RIGHTS)) | random.below(3) << 32
}

/// Eight bytes for an entry of a table: mostly sense.
fn random_entry(random: &mut Random, sane: &[u64]) -> u64 {
    match random.below(8) {
        0 => random.next() << 32 | random.next() & 0xffff_ffff,
        1 => random_gate(random),
        2 | 3 => random.of(sane) ^ 1 << random.below(64),
        _ => random.of(sane),
    }
}

/// One edit of the tables: where, and which bytes.
fn random_edit(random: &mut Random, sane: &[u64], long: bool) -> (u64, Vec<u8>) {
    let (at, bytes) = match random.below(4) {
        0 | 1 => (GDT + 8 * random.below(18), random_entry(random, sane).to_le_bytes().to_vec()),
        2 => (LDT + 8 * random.below(6), random_entry(random, sane).to_le_bytes().to_vec()),
        _ => {
            let vector = random.of(&[0u64, 3, 8, 10, 11, 12, 13, 13, 14, 0x20, 0x20, 0x21, 0x21, 0x22]);
            let low = if random.below(6) == 0 { random.next() } else { random_gate(random) };
            let mut bytes = low.to_le_bytes().to_vec();
            if long {
                let high = if random.below(6) == 0 { random.next() } else { 0 };
                bytes.extend(high.to_le_bytes());
            }
            (IDT + vector * if long { 16 } else { 8 }, bytes)
        }
    };
    // Often only some of the bytes.
    let first = if random.below(3) == 0 { random.below(bytes.len() as u64) } else { 0 };
    (at + first, bytes[first as usize..].to_vec())
}

/// The CPU's own stores, a bus master, a debugger.
fn write(guest: &mut Guest, writer: u64, at: u64, bytes: &[u8]) {
    match writer {
        0 => bytes.iter().zip(at..).for_each(|(byte, at)| guest.cpu.store_system(at, *byte).expect("RAM")),
        1 => guest.cpu.link.memory.dma().write(GuestPhys(at), bytes),
        _ => guest.cpu.link.memory.write(GuestPhys(at), bytes),
    }
}

fn compare(mode: Mode, step: u64, what: &str, guests: &mut [Guest; 2]) {
    let [with, without] = guests;
    assert_eq!(with.cpu.state, without.cpu.state, "{mode:?}, step {step}: {what}");
    let memory = [&*with, without].map(|guest| {
        let mut bytes = vec![0; 0xb000];
        guest.cpu.link.memory.read(GuestPhys(0), &mut bytes);
        bytes
    });
    assert!(memory[0] == memory[1], "{mode:?}, step {step}: memory after {what}");
}

/// Both guests do the same; only one has monitor tables.
fn in_step(name: &str, mode: Mode, steps: u64, tolerance: Option<u32>, seed: u64) {
    let mut random = Random(seed);
    let mut guests = [mode.guest(), mode.guest()];
    let sane: Vec<u64> = (1..18).map(|n| guests[0].quad(GDT + 8 * n)).collect();
    for guest in &mut guests {
        engine::named(&mut guest.cpu, name);
        for (n, code) in INSTRUCTIONS.iter().enumerate() {
            guest.write(CODE + 16 * n as u64, code);
        }
        guest.handlers();
        guest.put(LDT + 8, sane[0]);
        guest.put(LDT + 16, sane[1]);
        guest.edit(|state| state.ldtr = Segment { selector: LDT_SEL, base: LDT, limit: 0x2f, rights: 0x82 });
    }
    guests[1].cpu.tables.switch_off();
    if let Some(writes) = tolerance {
        guests[0].cpu.tables.tolerate(writes);
    }
    let base: State = guests[0].cpu.state.clone();
    let fresh = {
        let mut bytes = vec![0; 0x7000];
        guests[0].cpu.link.memory.read(GuestPhys(0x1000), &mut bytes);
        bytes
    };
    for step in 0..steps {
        if step % 64 == 63 {
            guests.iter().for_each(|guest| guest.cpu.link.memory.write(GuestPhys(0x1000), &fresh));
        }
        for _ in 0..random.below(3).saturating_sub(1) + u64::from(step % 2 == 0) {
            let (at, bytes) = random_edit(&mut random, &sane, mode.is_long());
            let writer = random.below(3);
            guests.iter_mut().for_each(|guest| write(guest, writer, at, &bytes));
        }
        if random.below(32) == 0 {
            guests[0].cpu.link.memory.compact(200);
        }
        let number = random.below(INSTRUCTIONS.len() as u64);
        let mut selector = random.of(&SELECTORS) | if random.below(4) == 0 { 3 } else { 0 };
        if random.below(8) == 0 {
            selector = random.next() as u16 & 0xbf;
        }
        let user = matches!(mode, Mode::User | Mode::LongUser) && random.below(4) != 0;
        let stack = random.of(&[FRAME, FRAME, FRAME, FRAME + 0xeec]);
        let (cs, ss) = if random.below(2) == 0 { (CODE3, DATA3) } else { (CODE0, DATA0) };
        let (cs, ss) = if random.below(4) == 0 { (random.of(&SELECTORS), random.of(&SELECTORS)) } else { (cs, ss) };
        let items = [HANDLERS, cs.into(), random.next() & 0x2_7fd7 & !(random.below(2) << 17), STACK3, ss.into()];
        for guest in &mut guests {
            guest.put(POINTER, HANDLERS as u32);
            guest.put(POINTER + 4, selector);
            for (n, item) in (0..).zip(items) {
                if mode.is_long() { guest.put(stack + 8 * n, item) } else { guest.put(stack + 4 * n, item as u32) }
            }
            guest.edit(|state| {
                *state = State { retired: state.retired, ..base.clone() };
                if matches!(mode, Mode::User | Mode::LongUser) && !user {
                    // The other level, too.
                    let long = mode.is_long();
                    let data = Segment { selector: DATA0, base: 0, limit: u32::MAX, rights: FLAT_DATA0 };
                    state.seg = [data; 6];
                    let rights = if long { 0xa09b } else { FLAT_CODE0 };
                    state.seg[Seg::Cs as usize] = Segment { selector: CODE0, base: 0, limit: u32::MAX, rights };
                    state.cpl = 0;
                }
                state.set_gpr(slots::RAX, selector.into());
                state.set_gpr(slots::RSI, POINTER);
                state.set_gpr(slots::RSP, stack);
                state.rip = CODE + 16 * number;
            });
            guest.cpu.run(1);
        }
        // Where a run ends with a transfer, the fault of the next fetch may belong to it or not.
        let most = guests.iter().map(|guest| guest.cpu.state.retired).max().unwrap_or(0);
        for guest in &mut guests {
            if guest.cpu.state.retired < most {
                guest.cpu.run(most - guest.cpu.state.retired);
            }
        }
        let what = format!("{:x?}, selector {selector:x}", INSTRUCTIONS[number as usize]);
        compare(mode, step, &what, &mut guests);
    }
    let [with, without] = guests.map(|guest| guest.cpu.tables.counters);
    assert!(with.fills > steps / 50 && with.drops > 0, "{with:?}");
    assert_eq!((with.floods > 0, without.fills), (tolerance.is_none(), 0));
}

#[test]
fn a_guest_cannot_tell_whether_its_tables_are_kept() {
    for (n, name) in engines().iter().enumerate() {
        for mode in Mode::ALL {
            in_step(name, mode, 3000, Some(u32::MAX), 0x1234_5678_9abc + n as u64);
            in_step(name, mode, 1500, None, 0x9876_5432_1234 + n as u64);
        }
    }
}

/// mov fs, ax; mov ebx, fs:[esi]; mov [edi], ecx; mov fs, ax; mov edx, fs:[esi]
#[rustfmt::skip]
const STORE_BETWEEN: [u8; 14] = [0x8e, 0xe0, 0x64, 0x8b, 0x1e, 0x89, 0x0f, 0x8e, 0xe0, 0x64, 0x8b, 0x16, 0x90, 0xf4];

#[test]
fn a_store_in_the_same_block_is_seen_by_the_next_load_and_by_no_loaded_segment() {
    for name in engines() {
        let mut guest = Guest::protected(&STORE_BETWEEN);
        engine::named(&mut guest.cpu, name);
        guest.put(0xb000, 0x1111_1111u32);
        guest.put(0xc000, 0x2222_2222u32);
        for round in 0..40u64 {
            // Bases B000h and C000h in turns: in the first word's upper half.
            guest.put(GDT + u64::from(DATA16), descriptor(0xb000, 0xffff, 0x93));
            guest.edit(|state| {
                state.rip = CODE;
                state.set_gpr(slots::RAX, u64::from(DATA16));
                state.set_gpr(slots::RSI, 0);
                state.set_gpr(slots::RCX, 0xc000_ffff);
                state.set_gpr(slots::RDI, GDT + u64::from(DATA16));
                state.seg[Seg::Gs as usize] = Segment { selector: DATA16, base: 0xd000, limit: 0xffff, rights: 0x93 };
            });
            assert_eq!(guest.step(8), Exit::Halted, "{name}, round {round}");
            let values = [slots::RBX, slots::RDX].map(|slot| guest.gpr(slot));
            assert_eq!(values, [0x1111_1111, 0x2222_2222], "{name}, round {round}");
            assert_eq!(guest.cpu.state.segment(Seg::Gs).base, 0xd000, "it was loaded before");
        }
    }
}

/// Looks a selector up.
fn base(guest: &mut Guest, selector: u16) -> u64 {
    guest.cpu.descriptor(selector).expect("no fault").map_or(u64::MAX, Descriptor::base)
}

#[test]
fn a_write_by_whatever_means_is_seen_without_a_boundary() {
    for writer in 0..3 {
        let mut guest = Guest::protected(&[]);
        guest.cpu.link.mmu.unpark();
        let at = GDT + u64::from(DATA16);
        for round in 0..3 * 16u64 {
            let wanted = round << 12;
            write(&mut guest, writer, at, &descriptor(wanted, 0xffff, 0x93).to_le_bytes());
            assert_eq!([0, 1, 2].map(|_| base(&mut guest, DATA16)), [wanted; 3], "writer {writer}, round {round}");
            // A boundary now and then: the notes are read.
            if round % 3 == 0 {
                guest.cpu.run(0);
            }
            assert_eq!(base(&mut guest, DATA16), wanted);
        }
    }
}

#[test]
fn another_processors_write_is_seen_too() {
    let mut guest = Guest::protected(&[]);
    let memory = guest.cpu.link.memory.clone();
    let mut other = memory.vcpu(std::sync::Arc::default());
    assert_eq!(base(&mut guest, DATA0), 0);
    assert_eq!(base(&mut guest, DATA0), 0);
    let place = other
        .resolve(umbra_mmu::Linear(GDT + 0x10), umbra_mmu::Access::Write, umbra_mmu::View::Supervisor)
        .expect("RAM");
    other.write_place(&place, &descriptor(0x5000, 0xffff, 0x93).to_le_bytes());
    assert_eq!(base(&mut guest, DATA0), 0x5000);
}

#[test]
fn a_page_that_is_written_often_checks_itself_and_is_fast_to_write() {
    let mut guest = Guest::protected(&[]);
    let at = GDT + u64::from(DATA16);
    for round in 0..20u64 {
        guest.put(at, descriptor(round << 12, 0xffff, 0x93));
        assert_eq!(base(&mut guest, DATA16), round << 12);
        guest.cpu.run(0);
    }
    assert_eq!(guest.cpu.tables.counters.floods, 1);
    assert_eq!(base(&mut guest, DATA16), 19 << 12);
    guest.cpu.run(0);
    guest.cpu.store_system(at, descriptor(0x7000, 0xffff, 0x93)).expect("RAM");
    assert!(guest.cpu.link.mmu.store(at + 2, 0x8000u16), "nothing is watched there any more");
    assert_eq!(base(&mut guest, DATA16), 0x8000);
}

#[test]
fn a_page_with_data_beside_the_table_is_left_alone() {
    let mut guest = Guest::protected(&[]);
    assert_eq!(base(&mut guest, DATA16), 0);
    for n in 0..300u64 {
        guest.cpu.store_system(GDT + 0x800 + n, 1u8).expect("RAM");
    }
    guest.cpu.run(0);
    assert_eq!((guest.cpu.tables.counters.floods, base(&mut guest, DATA16)), (1, 0));
    guest.cpu.run(0);
    guest.cpu.store_system(GDT + 0x800, 1u8).expect("RAM");
    assert!(guest.cpu.link.mmu.store(GDT + 0x800, 1u8));
}

#[test]
fn tables_across_pages_at_odd_places_and_cut_short() {
    let mut guest = Guest::protected(&[]);
    let entries: Vec<u64> = (0..18).map(|n| descriptor(n << 12, 0xffff, 0x93)).collect();
    // Base, limit: across two pages at an entry's edge and within one, unaligned, cut within the last entry.
    for (table, limit) in
        [(0xb000u64 - 0x40, 0x8fu16), (0xb000 - 0x44, 0x8f), (0xb003, 0x8f), (0xb000, 0x8e), (0xb000, 0x8f)]
    {
        for (n, raw) in (0..).zip(&entries) {
            guest.put(table + 8 * n, *raw);
        }
        guest.edit(|state| state.gdtr = TableRegister { base: table, limit });
        for round in 0..3u64 {
            for n in 1..18u16 {
                let wanted = if n == 17 && limit == 0x8e { u64::MAX } else { u64::from(n) << 12 | round };
                guest.put(table + 8 * u64::from(n), entries[usize::from(n)] | round << 16);
                assert_eq!([0, 1].map(|_| base(&mut guest, 8 * n)), [wanted; 2], "{table:x}, entry {n}");
            }
            guest.cpu.run(0);
        }
    }
}

#[test]
fn a_table_loaded_again_finds_its_entries_and_tables_do_not_mix() {
    let mut guest = Guest::protected(&[]);
    let tables = [0xb000u64, 0xb800, 0xc000];
    for (n, table) in (1..).zip(tables) {
        guest.put(table + 8, descriptor(n << 16, 0xffff, 0x93));
    }
    let mut fills = 0;
    for round in 0..4 {
        for (n, table) in (1..).zip(tables) {
            guest.edit(|state| {
                state.ldtr = Segment { selector: LDT_SEL, base: table, limit: 0xf, rights: 0x82 };
            });
            assert_eq!((base(&mut guest, 0xc), base(&mut guest, 0x14)), (n << 16, u64::MAX));
        }
        if round > 0 {
            assert_eq!(guest.cpu.tables.counters.fills, fills);
        }
        fills = guest.cpu.tables.counters.fills;
    }
}

#[test]
fn what_is_not_memory_is_never_kept_and_rom_and_remapped_pages_are_what_they_are_now() {
    let mut guest = Guest::protected(&[]);
    let memory = guest.cpu.link.memory.clone();
    let rom = |base| {
        let mut image = vec![0; 4096];
        image[8..16].copy_from_slice(&descriptor(base, 0xffff, 0x93).to_le_bytes());
        image
    };
    memory.map_rom(GuestPhys(0xe_0000), &rom(0x1000)).expect("ROM");
    memory.map_mmio(GuestPhys(0xe_1000), 4096, RegionId(0)).expect("a region");
    guest.edit(|state| state.gdtr = TableRegister { base: 0xe_0000, limit: 0xf });
    assert_eq!([0, 1].map(|_| base(&mut guest, 8)), [0x1000; 2]);
    assert!(guest.cpu.tables.live() > 0);
    memory.write_rom(GuestPhys(0xe_0000), &rom(0x2000));
    assert_eq!([0, 1].map(|_| base(&mut guest, 8)), [0x2000; 2]);
    // RAM in its place, and back.
    guest.cpu.run(0);
    memory.set_backing(GuestPhys(0xe_0000), 4096, Backing::RAM).expect("a page");
    memory.write(GuestPhys(0xe_0008), &descriptor(0x3000, 0xffff, 0x93).to_le_bytes());
    guest.cpu.link.mmu.drain();
    assert_eq!([0, 1].map(|_| base(&mut guest, 8)), [0x3000; 2]);
    memory.set_backing(GuestPhys(0xe_0000), 4096, Backing::ROM).expect("a page");
    guest.cpu.link.mmu.drain();
    assert_eq!([0, 1].map(|_| base(&mut guest, 8)), [0x2000; 2]);
    guest.cpu.tables.switch_off();
    guest.cpu.tables = Default::default();
    guest.edit(|state| state.gdtr = TableRegister { base: 0xe_1000, limit: 0xf });
    guest.cpu.link.alone = true;
    for _ in 0..2 {
        base(&mut guest, 8);
    }
    assert_eq!(guest.cpu.tables.live(), 0);
}

#[test]
fn another_page_behind_the_same_address_is_another_table() {
    let mut guest = Guest::long(&[]);
    // The first 2 MiB by 4 KiB pages: the GDT's page can be another one.
    for n in 0..512u64 {
        guest.put(0x13000 + 8 * n, n << 12 | 7);
    }
    guest.put(0x12000, 0x13007u64);
    let mut copy = vec![0; 4096];
    guest.cpu.link.memory.read(GuestPhys(GDT), &mut copy);
    copy[0x10..0x18].copy_from_slice(&descriptor(0x5000, 0xffff, 0x93).to_le_bytes());
    guest.write(0xd000, &copy);
    guest.edit(|_| ());
    for round in 0..4 {
        let (page, wanted) = if round % 2 == 0 { (GDT, 0) } else { (0xd000, 0x5000) };
        guest.put(0x13000 + 8, page | 7);
        guest.cpu.link.mmu.drain();
        assert_eq!([0, 1].map(|_| base(&mut guest, DATA0)), [wanted; 2]);
    }
    // Not there at all: the fault is as it was.
    guest.put(0x13000 + 8, 0u64);
    guest.cpu.link.mmu.drain();
    let fault = guest.cpu.descriptor(DATA0).expect_err("a page fault");
    assert_eq!((fault.vector, fault.error_code, fault.linear.0), (14, Some(0), GDT + 0x10));
}

#[test]
fn the_frames_of_tables_may_move() {
    let mut guest = Guest::protected(&[]);
    for n in 0..8u64 {
        guest.put(GDT + u64::from(DATA16), descriptor(n << 12, 0xffff, 0x93));
        assert_eq!([0, 1].map(|_| base(&mut guest, DATA16)), [n << 12; 2]);
        guest.cpu.link.memory.compact(256);
        guest.cpu.link.mmu.drain();
        assert_eq!(base(&mut guest, DATA16), n << 12);
    }
    assert_eq!(guest.cpu.link.mmu.descriptor_page(GDT, 8), Some(PhysPage(GDT >> 12)));
}
