//! REP MOVS interrupted at each element (SHADOW-MMU S11): after every element an interrupt is taken and all frames move, so
//! that every element meets hidden faults. Registers, CR2, accessed and dirty bits are exact at each; a page fault of the
//! guest's own in the middle restarts where it was.

use super::bench::*;
use super::engine;
use std::sync::Arc;
use umbra_cpu::Exit;
use umbra_cpu::bus::{Bus, MsrRefused, OpenBus, Retired};
use umbra_cpu::state::control::cr0;
use umbra_cpu::state::{Seg, Segment, flags, slots};
use umbra_mmu::addr::{GuestPhys, RegionId};
use umbra_mmu::attention::{Attention, bits};

/// A board that gives one vector whenever INTR is set, and whose device answers with the time.
struct Interrupter(Arc<Attention>);

const VECTOR: u8 = 0x1e;

impl Bus for Interrupter {
    fn acknowledge_interrupt(&mut self, _: Retired) -> Option<u8> {
        self.0.clear(bits::INTR);
        Some(VECTOR)
    }
    fn port_read(&mut self, at: Retired, port: u16, width: u8) -> u32 {
        OpenBus.port_read(at, port, width)
    }
    fn port_write(&mut self, _: Retired, _: u16, _: u8, _: u32) {}
    fn mmio_read(&mut self, at: Retired, _: RegionId, _: u64, _: u8) -> u64 {
        at.0
    }
    fn mmio_write(&mut self, _: Retired, _: RegionId, _: u64, _: u8, _: u64) {}
    fn take_startup_vector(&mut self) -> u8 {
        0
    }
    fn tsc(&mut self, at: Retired) -> u64 {
        at.0
    }
    fn msr_read(&mut self, _: Retired, _: u32) -> Result<u64, MsrRefused> {
        Err(MsrRefused)
    }
    fn msr_write(&mut self, _: Retired, _: u32, _: u64) -> Result<(), MsrRefused> {
        Err(MsrRefused)
    }
    fn cr8(&mut self, _: Retired) -> u8 {
        0
    }
    fn set_cr8(&mut self, _: Retired, _: u8) {}
    fn set_ferr(&mut self, _: Retired, _: bool) {}
    fn apic_id(&self) -> u32 {
        0
    }
}

const DIRECTORY: u64 = 0x20000;
const LOW_TABLE: u64 = 0x21000;
const TABLE: u64 = 0x22000;
/// Three pages each, at the linear addresses behind [`LINEAR`]: page 0–2 the source, page 8–10 the destination.
const LINEAR: u64 = 0x40_0000;
const SOURCE: u64 = 0;
const DESTINATION: u64 = 8;
const FRAMES: u64 = 0x40;
const CR2: u64 = 0x1234_5678;
const ACCESSED: u32 = 0x20;
const DIRTY: u32 = 0x40;

/// What is copied and how.
#[derive(Copy, Clone, Debug)]
struct Copy {
    /// Bytes of an element.
    width: u64,
    /// Offsets of the first element from the start of source and destination.
    from: u64,
    to: u64,
    down: bool,
    elements: u64,
}

fn source_byte(at: u64) -> u8 {
    (at * 7 + at / 251) as u8
}

fn entry(page: u64) -> u64 {
    TABLE + 4 * page
}

impl Copy {
    /// Offsets of element `n`.
    fn at(&self, n: u64) -> (u64, u64) {
        let moved = if self.down { (n * self.width).wrapping_neg() } else { n * self.width };
        (self.from.wrapping_add(moved), self.to.wrapping_add(moved))
    }
    fn guest(&self, engine: &str) -> Guest {
        let code: &[u8] = match self.width {
            1 => &[0xf3, 0xa4, 0x90],
            2 => &[0xf3, 0x66, 0xa5, 0x90],
            _ => &[0xf3, 0xa5, 0x90],
        };
        let mut guest = Guest::protected(code);
        engine::named(&mut guest.cpu, engine);
        let bus = Interrupter(guest.cpu.link.attention.clone());
        guest.cpu.connect(Box::new(bus));
        guest.handlers();
        guest.write(HANDLERS + 16 * u64::from(VECTOR), &[0xcf]);
        guest.put(DIRECTORY, LOW_TABLE as u32 | 0x23);
        guest.put(DIRECTORY + 4, TABLE as u32 | 0x23);
        (0..256).for_each(|page| guest.put(LOW_TABLE + 4 * page, (page << 12) as u32 | 0x63));
        for page in (SOURCE..SOURCE + 3).chain(DESTINATION..DESTINATION + 3) {
            guest.put(entry(page), ((FRAMES + page) << 12) as u32 | 3);
        }
        let bytes: Vec<u8> = (0..0x3000).map(source_byte).collect();
        guest.write((FRAMES + SOURCE) << 12, &bytes);
        guest.write((FRAMES + DESTINATION) << 12, &[0xee; 0x3000]);
        let copy = *self;
        guest.edit(|state| {
            state.control.cr3 = DIRECTORY;
            state.control.cr0 |= cr0::PG | cr0::WP;
            state.control.cr2 = CR2;
            state.rflags |= flags::IF | if copy.down { flags::DF } else { 0 };
            state.set_gpr(slots::RSI, LINEAR + (SOURCE << 12) + copy.from);
            state.set_gpr(slots::RDI, LINEAR + (DESTINATION << 12) + copy.to);
            state.set_gpr(slots::RCX, copy.elements);
        });
        guest
    }
    /// Everything that the guest can see is as after `done` elements (and a fault's CR2).
    fn check(&self, guest: &Guest, done: u64, cr2: u64) {
        let what = format!("{self:?} after {done}");
        let (from, to) = self.at(done);
        assert_eq!(guest.gpr(slots::RCX), self.elements - done, "{what}");
        assert_eq!(guest.gpr(slots::RSI), LINEAR + (SOURCE << 12) + from, "{what}");
        assert_eq!(guest.gpr(slots::RDI), LINEAR + (DESTINATION << 12) + to, "{what}");
        assert_eq!(guest.cpu.state.control.cr2, cr2, "{what}");
        let (mut bytes, mut touched) = (vec![0xee; 0x3000], [[false; 3]; 2]);
        for n in 0..done {
            let (from, to) = self.at(n);
            for i in 0..self.width {
                bytes[(to + i) as usize] = source_byte(from + i);
                touched[0][((from + i) >> 12) as usize] = true;
                touched[1][((to + i) >> 12) as usize] = true;
            }
        }
        let mut copied = vec![0; 0x3000];
        guest.cpu.link.memory.read(umbra_mmu::GuestPhys((FRAMES + DESTINATION) << 12), &mut copied);
        assert!(copied == bytes, "{what}: the destination");
        for page in 0..3 {
            let bits = |base: u64| guest.dword(entry(base + page)) & (ACCESSED | DIRTY);
            let expected = |touched: bool, bits: u32| if touched { bits } else { 0 };
            assert_eq!(bits(SOURCE), expected(touched[0][page as usize], ACCESSED), "{what}: source page {page}");
            let written = expected(touched[1][page as usize], ACCESSED | DIRTY);
            assert_eq!(bits(DESTINATION), written, "{what}: destination page {page}");
        }
    }
}

fn copies() -> Vec<Copy> {
    let mut all = Vec::new();
    for width in [1, 2, 4] {
        // Pages end in the middle, on both sides and not at the same element; odd offsets let elements straddle.
        for (down, from, to) in
            [(false, 0xff4, 0xfe9), (false, 0xff3, 0xffa), (true, 0x100b, 0x1006), (true, 0x1009, 0x1010)]
        {
            all.push(Copy { width, from, to, down, elements: 24 });
        }
    }
    all
}

#[test]
fn rep_movs_is_interrupted_at_each_element() {
    for engine in engines() {
        for copy in copies() {
            let mut guest = copy.guest(engine);
            for done in 1..=copy.elements {
                assert!(guest.cpu.link.memory.compact(256) > 0, "every frame moves: nothing is shadowed any more");
                assert_eq!(guest.step(1), Exit::BudgetSpent);
                copy.check(&guest, done, CR2);
                let next = if done < copy.elements { CODE } else { CODE + 2 + u64::from(copy.width == 2) };
                assert_eq!(guest.at(), (CODE0, next), "{engine} {copy:?} after {done}");
                // The interrupt returns to the instruction, which goes on with the rest.
                guest.cpu.link.attention.set(bits::INTR);
                assert_eq!(guest.step(1), Exit::BudgetSpent);
                assert_eq!(u64::from(guest.dword(STACK0 - 12)), next, "{engine} {copy:?}: the frame after {done}");
                assert_eq!((guest.at(), guest.rsp()), ((CODE0, next), STACK0));
                guest.put(STACK0 - 12, 0u32);
                copy.check(&guest, done, CR2);
            }
            let faults: u64 = guest.cpu.link.counters.exceptions.iter().sum();
            assert_eq!((faults, guest.cpu.link.counters.interrupts), (0, copy.elements));
            assert!(guest.cpu.link.memory.audit().is_clean());
            // In one go it comes to the same.
            let mut whole = copy.guest(engine);
            whole.step(copy.elements);
            copy.check(&whole, copy.elements, CR2);
            let (mut one, mut other) = (guest.cpu.state.clone(), whole.cpu.state.clone());
            (one.retired, other.retired) = (0, 0);
            assert_eq!(format!("{one:?}"), format!("{other:?}"), "{engine} {copy:?}");
        }
    }
}

#[test]
fn rep_movs_restarts_after_the_guest_s_own_fault() {
    for engine in engines() {
        for copy in copies() {
            for read_only in [false, true] {
                let mut guest = copy.guest(engine);
                // The page that the copy comes to: absent, or read-only.
                let late = DESTINATION + u64::from(!copy.down);
                let frame = ((FRAMES + late) << 12) as u32;
                guest.put(entry(late), if read_only { frame | 1 } else { 0 });
                let first = (0..copy.elements).find(|&n| {
                    let (_, to) = copy.at(n);
                    to >> 12 == late - DESTINATION || (to + copy.width - 1) >> 12 == late - DESTINATION
                });
                let first = first.expect("an element in the page");
                let (rip, fault) = guest.cpu.run_until_fault(1000).expect_err("a page fault");
                assert_eq!((rip, fault.vector, fault.error_code), (CODE, 14, Some(2 | u32::from(read_only))));
                let (_, to) = copy.at(first);
                let linear = LINEAR + (DESTINATION << 12) + to;
                let expected = if linear >> 12 == (LINEAR >> 12) + late { linear } else { (linear | 0xfff) + 1 };
                assert_eq!(fault.linear.0, expected, "{engine} {copy:?}");
                assert_eq!(guest.dword(entry(late)) & (ACCESSED | DIRTY), 0, "{engine} {copy:?}");
                guest.put(entry(late), frame | 3);
                copy.check(&guest, first, CR2);
                guest.step(copy.elements - first);
                copy.check(&guest, copy.elements, CR2);
            }
        }
    }
}

/// REPE CMPSB of equal bytes up to the limit of ES, its eighth element beyond it; CF, which no element leaves set, is set before.
fn compare_to_the_limit(engine: &str) -> Guest {
    let mut guest = Copy { width: 1, from: 0, to: 0, down: false, elements: 0 }.guest(engine);
    guest.write(CODE, &[0xf3, 0xa6, 0x90]);
    guest.edit(|state| {
        state.control.cr0 &= !cr0::PG;
        state.seg[Seg::Es as usize] = Segment { limit: 0x4006, rights: 0x4093, ..state.seg[Seg::Es as usize] };
        state.set_gpr(slots::RSI, 0x4100);
        state.set_gpr(slots::RDI, 0x4000);
        state.set_gpr(slots::RCX, 20);
        state.rflags |= flags::CF;
    });
    guest
}

#[test]
fn a_fault_in_a_repeated_compare_restores_its_first_flags() {
    for engine in engines() {
        for split in 1..=7 {
            let mut guest = compare_to_the_limit(engine);
            let before = guest.cpu.flags() & flags::STATUS;
            for _ in 0..7 / split {
                guest.step(split);
            }
            if 7 % split == 0 {
                assert_eq!(guest.cpu.flags() & flags::STATUS, flags::ZF | flags::PF, "seven elements are equal");
            }
            let (rip, fault) = guest.cpu.run_until_fault(100).expect_err("the eighth element");
            assert_eq!((rip, fault.vector, guest.gpr(slots::RCX)), (CODE, 13, 13), "{engine}, {split} at a time");
            assert_eq!(guest.cpu.flags() & flags::STATUS, before, "{engine}, {split} at a time");
        }
    }
}

#[test]
fn an_interrupt_in_a_repeated_compare_begins_it_anew() {
    for engine in engines() {
        let mut guest = compare_to_the_limit(engine);
        guest.step(3);
        guest.cpu.link.attention.set(bits::INTR);
        guest.step(1);
        assert_eq!(guest.cpu.link.counters.interrupts, 1);
        let (_, fault) = guest.cpu.run_until_fault(100).expect_err("the eighth element");
        assert_eq!((fault.vector, guest.gpr(slots::RCX)), (13, 13), "{engine}");
        assert_eq!(guest.cpu.flags() & flags::STATUS, flags::ZF | flags::PF, "{engine}: as IRET found them");
    }
}

#[test]
fn a_device_sees_each_element_at_its_own_time() {
    for engine in engines() {
        let mut guest = compare_to_the_limit(engine);
        guest.cpu.link.memory.map_mmio(GuestPhys(0x20_0000), 0x1000, RegionId(1)).expect("a free place");
        guest.write(CODE, &[0xf3, 0xa4, 0x90]);
        guest.edit(|state| {
            state.set_gpr(slots::RSI, 0x20_0000);
            state.set_gpr(slots::RCX, 5);
        });
        let first = guest.cpu.state.retired as u8;
        guest.step(5);
        let times: Vec<u8> = (0..5).map(|n| guest.word(0x4000 + n) as u8).collect();
        assert_eq!(times, (first..first + 5).collect::<Vec<u8>>(), "{engine}");
    }
}
