//! S6, S10, S11: random table edits by every writer, mode changes, remaps and moves, against a model that caches nothing.
//!
//! After each access: same fault, same bytes. Again and again: guest RAM equal bit for bit (A and D bits too), the audit
//! clean. `UMBRA_ORACLE_STEPS` makes it longer (the default is 2 · 10⁵ over all machines).
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use support::{Back, Control, Paging, Reference, Rng};
use umbra_mmu::*;

const LOW: u64 = 64;
const HIGH: u64 = 256;
const PAGES: u64 = 320;
/// Pages 1–12 hold tables.
const TABLES: u64 = 12;

struct Machine {
    memory: GuestMemory,
    /// The vCPU whose turn it is, and the others with their registers.
    vcpu: VcpuMmu,
    control: Control,
    others: Vec<(VcpuMmu, Control)>,
    model: Reference,
    code: Vec<u64>,
    rng: Rng,
    step: u64,
    /// TLB hits, successful slow accesses, faults.
    hits: [u64; 3],
}

impl Machine {
    fn new(order: FrameOrder, seed: u64) -> Machine {
        let memory = GuestMemory::new(Pool::new(400 * 4096).unwrap(), order, support::MAXPHYADDR as u8);
        memory.map_ram(GuestPhys(0), LOW << 12).unwrap();
        memory.map_ram(GuestPhys(HIGH << 12), (PAGES - HIGH) << 12).unwrap();
        let mut map = vec![Back::Open; PAGES as usize];
        let mut ram = vec![0; (PAGES << 12) as usize];
        (0..LOW).chain(HIGH..PAGES).for_each(|page| map[page as usize] = Back::Ram);
        let image: Vec<u8> = (0..8192).map(|i| (i * 7) as u8).collect();
        memory.map_rom(GuestPhys(LOW << 12), &image).unwrap();
        ram[(LOW << 12) as usize..][..8192].copy_from_slice(&image);
        (LOW..LOW + 2).for_each(|page| map[page as usize] = Back::Rom);
        memory.map_mmio(GuestPhys((LOW + 2) << 12), 0x2000, RegionId(5)).unwrap();
        (0..2).for_each(|i| map[(LOW + 2 + i) as usize] = Back::Device(5, i));
        let control = Control {
            paging: Paging::Off,
            wp: false,
            pse: true,
            nxe: false,
            smep: false,
            smap: false,
            cr3: 0x1000,
            pdptes: [0; 4],
            a20: true,
        };
        let vcpu = memory.vcpu(Arc::new(Attention::default()));
        let others = (0..2).map(|_| (memory.vcpu(Arc::new(Attention::default())), control)).collect();
        let code = vec![0; PAGES as usize];
        let model = Reference { ram, map, marks: Vec::new() };
        Machine { memory, vcpu, control, others, model, code, rng: Rng(seed | 1), step: 0, hits: [0; 3] }
    }
    /// A guest table entry: mostly a good one, to another table or to data.
    fn entry(&mut self) -> u64 {
        let rng = &mut self.rng;
        let page = match rng.below(8) {
            0..5 => rng.below(TABLES) + 1,
            5 | 6 => rng.below(LOW + 6),
            _ => HIGH + rng.below(PAGES - HIGH),
        };
        let mut entry = page << 12 | 7 | rng.below(4) << 5;
        if rng.one_in(12) {
            entry = entry & !0x1f | rng.below(32);
        }
        match rng.below(40) {
            0 => entry |= 0x80 | rng.next() & 0x1e,
            1 => entry |= 1 << 63,
            2 => entry |= 1 << (12 + rng.below(52)),
            3 | 4 => entry = entry & 0xfff | 0x80 | rng.below(3) << 21,
            5 => entry = 0,
            6 => entry = entry & 0xfff | 0x80 | rng.below(2) << 30,
            7 => entry &= !1,
            _ => {}
        }
        entry
    }
    fn take_turns(&mut self) {
        let other = self.rng.below(self.others.len() as u64) as usize;
        self.vcpu.park();
        std::mem::swap(&mut self.vcpu, &mut self.others[other].0);
        std::mem::swap(&mut self.control, &mut self.others[other].1);
        self.vcpu.unpark();
        self.vcpu.take_code_writes();
    }
    fn linear(&mut self) -> u64 {
        let rng = &mut self.rng;
        let offset = if rng.one_in(3) { rng.below(64) * 8 } else { rng.below(4096) };
        match self.control.paging {
            Paging::Off => rng.pick(&[0, LOW, HIGH, LOW + 2, LOW + 4, HIGH + 8]) << 12 | rng.below(16) << 12 | offset,
            Paging::TwoLevel => rng.below(3) << 22 | rng.below(6) << 12 | offset,
            Paging::Pae => rng.below(2) << 30 | rng.below(3) << 21 | rng.below(5) << 12 | offset,
            Paging::Long => rng.below(2) << 39 | rng.below(2) << 30 | rng.below(3) << 21 | rng.below(5) << 12 | offset,
        }
    }
    /// The model's write, and whether translated code was touched.
    fn model_write(&mut self, at: u64, bytes: &[u8]) -> bool {
        if self.model.back(at >> 12) != Back::Ram {
            return false;
        }
        self.model.write(at, bytes);
        self.code_touched(at, bytes.len() as u64)
    }
    fn code_touched(&mut self, at: u64, len: u64) -> bool {
        let grains = (at & 0xfff) / 64..=((at & 0xfff) + len - 1) / 64;
        let touched = grains.fold(0, |bits, grain| bits | 1u64 << grain);
        let hit = self.code[(at >> 12) as usize] & touched != 0;
        self.code[(at >> 12) as usize] &= !touched;
        hit
    }
    fn set_paging(&mut self) {
        let c = &self.control;
        let mut regs = PagingRegs { cr3: c.cr3, ..PagingRegs::default() };
        let bit = |on: bool, number: u32| u64::from(on) << number;
        regs.cr0 = bit(c.paging != Paging::Off, 31) | bit(c.wp, 16) | 1;
        regs.cr4 =
            bit(c.pse, 4) | bit(matches!(c.paging, Paging::Pae | Paging::Long), 5) | bit(c.smep, 20) | bit(c.smap, 21);
        regs.efer = bit(c.paging == Paging::Long, 10) | bit(c.nxe, 11);
        if c.paging == Paging::Pae {
            regs.pdptes = self.vcpu.load_pdptes(c.cr3);
            let gate = |at: u64| if c.a20 { at } else { at & !(1 << 20) };
            let expected = std::array::from_fn(|i| self.model.read(gate(c.cr3 & 0xffff_ffe0) + 8 * i as u64, 8) as u64);
            assert_eq!(regs.pdptes, expected);
            // The cpu refuses registers with reserved bits; here they are made acceptable.
            regs.pdptes.iter_mut().for_each(|p| *p &= 0x0000_000f_ffff_f001);
        }
        self.control.pdptes = regs.pdptes;
        self.vcpu.set_paging(&regs);
    }
    fn change_control(&mut self) {
        let rng = &mut self.rng;
        let c = &mut self.control;
        match rng.below(8) {
            0..3 => c.cr3 = (rng.below(4) + 1) << 12,
            3 => c.wp ^= true,
            4 => c.smep ^= true,
            5 => c.smap ^= true,
            6 => (c.nxe, c.pse) = (rng.one_in(2), !rng.one_in(3)),
            _ => c.paging = rng.pick(&[Paging::Off, Paging::TwoLevel, Paging::Pae, Paging::Long]),
        }
        self.set_paging();
    }
    fn access(&mut self) {
        let linear = self.linear();
        let view = self.rng.pick(&[View::User, View::Supervisor, View::SupervisorAc]);
        let access = self.rng.pick(&[Access::Read, Access::Read, Access::Write, Access::Write, Access::Fetch]);
        let size = self.rng.pick(&[1u64, 2, 4, 8, 16]);
        let slot = self.vcpu.view();
        let view = if self.rng.one_in(3) { view } else { slot };
        self.vcpu.set_view(view);
        let straddles = linear & 0xfff > 4096 - size;
        if straddles {
            assert_eq!(self.vcpu.load::<u128>(linear | 0xff1), None);
            return;
        }
        let here = format!("step {} {linear:#x} {access:?} {view:?} size {size} {:?}", self.step, self.control);
        let control = self.control;
        // Marking sets A and D bits: if those bytes were translated as code, that is a write to code as well.
        let expected = self.model.translate(&control, linear, access, view);
        for (at, width) in std::mem::take(&mut self.model.marks) {
            self.code_touched(at, width);
        }
        let hit = match (access, size) {
            (Access::Read, 1) => self.vcpu.load::<u8>(linear).map(u128::from),
            (Access::Read, 2) => self.vcpu.load::<u16>(linear).map(u128::from),
            (Access::Read, 4) => self.vcpu.load::<u32>(linear).map(u128::from),
            (Access::Read, 8) => self.vcpu.load::<u64>(linear).map(u128::from),
            (Access::Read, 16) => self.vcpu.load::<u128>(linear),
            _ => None,
        };
        if let Some(value) = hit {
            let phys = expected.unwrap_or_else(|code| panic!("{here}: TLB hit, model faults {code}"));
            assert_eq!(value, self.model.read(phys, size), "{here}: TLB hit on {phys:#x}");
            self.hits[0] += 1;
            return;
        }
        if let (Access::Fetch, Some(page)) = (access, self.vcpu.fetch_page(linear)) {
            assert_eq!(Ok(page.0), expected.map(|phys| phys >> 12), "{here}: fetch hit");
            return;
        }
        let value = if linear & 7 == 0 && size >= 4 {
            u128::from(self.entry()) | u128::from(self.entry()) << 64
        } else {
            u128::from(self.rng.next())
        };
        let bytes = &value.to_le_bytes()[..size as usize];
        if access == Access::Write {
            let done = match size {
                1 => self.vcpu.store(linear, value as u8),
                2 => self.vcpu.store(linear, value as u16),
                4 => self.vcpu.store(linear, value as u32),
                8 => self.vcpu.store(linear, value as u64),
                _ => self.vcpu.store(linear, value),
            };
            if done {
                let phys = expected.unwrap_or_else(|code| panic!("{here}: TLB write hit, model faults {code}"));
                assert_eq!(self.model.back(phys >> 12), Back::Ram, "{here}");
                assert!(!self.model_write(phys, bytes), "{here}: fast store into code");
                return;
            }
        }
        let got = self.vcpu.resolve(Linear(linear), access, view);
        let place = match (got, expected) {
            (Err(fault), expected) => {
                assert_eq!(Err(fault.error_code), expected, "{here}");
                assert_eq!(fault.linear.0, linear);
                self.hits[2] += 1;
                return;
            }
            (Ok(place), expected) => {
                assert_eq!(Ok(place.phys().0), expected, "{here}");
                place
            }
        };
        self.hits[1] += 1;
        let phys = place.phys().0;
        let kind = match self.model.back(phys >> 12) {
            Back::Ram => PlaceKind::Ram,
            Back::Rom => PlaceKind::Rom,
            Back::Device(region, page) => {
                PlaceKind::Mmio { region: RegionId(region), offset: page << 12 | phys & 0xfff }
            }
            Back::Open => PlaceKind::Open,
        };
        assert_eq!(place.kind(), kind, "{here}");
        if access != Access::Write {
            let mut read = [0; 16];
            self.vcpu.read_place(&place, &mut read[..size as usize]);
            assert_eq!(u128::from_le_bytes(read), self.model.read(phys, size), "{here}: read {phys:#x}");
        } else if self.rng.one_in(4) && kind == PlaceKind::Ram {
            let old = self.model.read(phys, size);
            let (was, note) = self.vcpu.rmw_place(&place, size as usize, &mut |_| value);
            assert_eq!(was, old, "{here}: rmw");
            assert_eq!(note.code_written, self.model_write(phys, bytes), "{here}: rmw code note");
        } else {
            let note = self.vcpu.write_place(&place, bytes);
            assert_eq!(note.code_written, self.model_write(phys, bytes), "{here}: code note at {phys:#x}");
        }
    }
    /// A write that is no vCPU's.
    fn outside_write(&mut self) {
        let page = if self.rng.one_in(16) { self.rng.below(LOW + 4) } else { self.rng.below(TABLES) + 1 };
        let width = if self.control.paging == Paging::TwoLevel { 4 } else { 8 };
        let index = if self.rng.one_in(16) { self.rng.below(64) } else { self.rng.below(5) };
        let mut at = (page << 12) + index * width;
        let mut bytes: Vec<u8> = self.entry().to_le_bytes()[..width as usize].to_vec();
        if self.rng.one_in(6) {
            at += self.rng.below(8);
            bytes.extend(self.entry().to_le_bytes());
            bytes.truncate(self.rng.pick(&[1, 2, 4, 7, 8, 11]));
        }
        if self.rng.one_in(2) {
            self.memory.write(GuestPhys(at), &bytes);
        } else {
            self.memory.dma().write(GuestPhys(at), &bytes);
        }
        self.model_write(at, &bytes);
        self.vcpu.drain();
    }
    fn remap(&mut self) {
        let page = self.rng.pick(&[3, 9, 30, LOW, LOW + 1, LOW + 2, HIGH + 3]);
        let at = GuestPhys(page << 12);
        let has_ram = !(LOW..HIGH).contains(&page);
        let back = match self.rng.below(4) {
            0 => {
                self.memory.map_mmio(at, 4096, RegionId(9)).unwrap();
                Back::Device(9, 0)
            }
            1 => {
                self.memory.unmap(at, 4096).unwrap();
                Back::Open
            }
            _ if has_ram => {
                self.memory.set_backing(at, 4096, Backing::RAM).unwrap();
                Back::Ram
            }
            _ if page < LOW + 2 => {
                self.memory.set_backing(at, 4096, Backing::ROM).unwrap();
                Back::Rom
            }
            _ => return,
        };
        self.model.map[page as usize] = back;
        self.code[page as usize] = 0;
    }
    fn track_code(&mut self) {
        let page = self.rng.pick(&[0, 2, 5, 20, 21, 22, HIGH]);
        if self.model.back(page) != Back::Ram {
            return;
        }
        let (offset, len) = (self.rng.below(4096), self.rng.below(200) + 1);
        self.vcpu.track_code(PhysPage(page), offset as u16, len as u16);
        let last = (offset + len - 1).min(4095) / 64;
        (offset / 64..=last).for_each(|grain| self.code[page as usize] |= 1 << grain);
    }
    fn compare(&mut self) {
        for page in 0..PAGES {
            if self.model.back(page) == Back::Ram {
                let mut bytes = [0; 4096];
                self.memory.read(GuestPhys(page << 12), &mut bytes);
                assert!(
                    bytes == self.model.ram[(page << 12) as usize..][..4096],
                    "step {}: page {page} differs",
                    self.step
                );
            }
        }
        let report = self.memory.audit();
        assert!(report.is_clean(), "step {}: {report:#?}", self.step);
        self.vcpu.drain();
        let wrong = self.vcpu.audit();
        assert!(wrong.is_clean(), "step {}: {wrong:#?}", self.step);
    }
    fn run(&mut self, steps: u64) {
        for step in 0..steps {
            self.step = step;
            match self.rng.below(200) {
                0..150 => self.access(),
                150..176 => self.outside_write(),
                176..182 => self.change_control(),
                182 | 183 => self.vcpu.invlpg(Linear(step << 12)),
                184 | 185 => self.track_code(),
                186 => {
                    self.remap();
                    self.vcpu.drain();
                }
                187 => {
                    self.control.a20 ^= true;
                    self.others.iter_mut().for_each(|(_, control)| control.a20 ^= true);
                    self.memory.set_a20(self.control.a20);
                    self.vcpu.drain();
                }
                188 if step % 3 == 0 => {
                    self.memory.compact(40);
                    self.vcpu.drain();
                }
                189..192 => self.take_turns(),
                _ => {
                    self.vcpu.drain();
                    self.vcpu.take_code_writes();
                }
            }
            if step % 64 == 0 {
                self.compare();
            }
        }
        self.compare();
        let counters = self.memory.counters();
        println!("{:?} {counters:?}", self.hits);
        assert_eq!(counters.slow_accesses, counters.classes.iter().sum::<u64>());
        assert_eq!(counters.monitor.live, self.memory.audit().entries);
    }
}

fn steps() -> u64 {
    std::env::var("UMBRA_ORACLE_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(200_000)
}

#[test]
fn identity_frames() {
    for seed in 0..10 {
        Machine::new(FrameOrder::Identity, 0x1234_5678 + seed * 7919).run(steps() / 20);
    }
}

#[test]
fn permuted_frames() {
    for seed in 0..10 {
        Machine::new(FrameOrder::Permuted { seed }, 0x8765_4321 + seed * 104_729).run(steps() / 20);
    }
}

#[test]
fn hash_is_the_same_whatever_the_frames() {
    let hash = |order| {
        let mut machine = Machine::new(order, 99);
        machine.run(3_000);
        machine.memory.hash()
    };
    assert_eq!(hash(FrameOrder::Identity), hash(FrameOrder::Permuted { seed: 4 }));
}
