//! A machine of three vCPUs and its model: random accesses, table edits by every writer, changes of mode, remaps, moves.
//!
//! Every access is compared with the model at once: the same fault or the same bytes, the class of the classifier, and the
//! entries that the walk went through (A and D bits). [`Machine::compare`] compares all of memory and runs the audits.
#![allow(dead_code, reason = "each test binary uses its part")]

use crate::store;
use crate::support::{self, Back, Control, Paging, Reference, Rng};
use std::sync::Arc;
use umbra_mmu::reclaim::policy::Policy;
use umbra_mmu::reclaim::{Freed, LEAST_LIMIT};
use umbra_mmu::*;

const LOW: u64 = 64;
const HIGH: u64 = 256;
const PAGES: u64 = 320;
/// Pages 1–12 hold tables.
const TABLES: u64 = 12;

/// What the accesses met.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Accesses.
    pub accesses: u64,
    /// Those that the TLB served.
    pub hits: u64,
    /// The others, by class.
    pub classes: [u64; 8],
}

/// One access.
struct Ask {
    step: u64,
    linear: u64,
    access: Access,
    view: View,
    size: u64,
    control: Control,
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ask { step, linear, access, view, size, control } = self;
        write!(f, "step {step}: {size} bytes at {linear:#x}, {access:?} {view:?}, {control:?}")
    }
}

pub struct Machine {
    pub memory: GuestMemory,
    /// The vCPU whose turn it is, and the others with their registers.
    pub vcpu: VcpuMmu,
    pub control: Control,
    pub others: Vec<(VcpuMmu, Control)>,
    pub model: Reference,
    code: Vec<u64>,
    pub rng: Rng,
    pub step: u64,
    /// The address of the last access.
    last: u64,
    /// Pages that a walk ever went through.
    walked: Vec<bool>,
    /// Pages that ever held translated code.
    code_ever: Vec<bool>,
    /// Frames leave memory.
    paged: bool,
    /// Equal pages become one frame.
    group: Option<Arc<Sharing>>,
    pub seen: Seen,
}

impl Machine {
    pub fn new(order: FrameOrder, seed: u64) -> Machine {
        Machine::with(order, seed, None, None)
    }
    /// A machine half of whose RAM is in host memory at a time.
    pub fn paged(order: FrameOrder, seed: u64, policy: Policy) -> Machine {
        let store = Box::<store::Memory>::default();
        Machine::with(
            order,
            seed,
            Some(umbra_mmu::Paging { limit: LEAST_LIMIT, policy, store, freed: Freed::Poisoned }),
            None,
        )
    }
    /// A machine whose equal pages become one frame now and then, with those of others in the group. A few frames leave, too.
    pub fn sharing(order: FrameOrder, seed: u64, group: Arc<Sharing>) -> Machine {
        let (limit, policy, store) = (6 * LEAST_LIMIT, Policy::default(), Box::<store::Memory>::default());
        let paging = umbra_mmu::Paging { limit, policy, store, freed: Freed::Poisoned };
        Machine::with(order, seed, Some(paging), Some(group))
    }
    fn with(order: FrameOrder, seed: u64, paging: Option<umbra_mmu::Paging>, group: Option<Arc<Sharing>>) -> Machine {
        let memory = GuestMemory::new(Pool::new(400 * 4096).unwrap(), order, support::MAXPHYADDR as u8);
        let paged = paging.is_some();
        if let Some(paging) = paging {
            memory.set_paging(paging);
        }
        group.iter().for_each(|group| memory.share_with(group));
        memory.map_ram(GuestPhys(0), LOW << 12).unwrap();
        memory.map_ram(GuestPhys(HIGH << 12), (PAGES - HIGH) << 12).unwrap();
        let mut map = vec![Back::Open; PAGES as usize];
        let mut ram = vec![0; (PAGES << 12) as usize];
        (0..LOW).chain(HIGH..PAGES).for_each(|page| map[page as usize] = Back::Ram);
        for page in (0..LOW).chain(HIGH..PAGES).filter(|_| paged) {
            // Every page has something to lose.
            let (at, value) = (page << 12 | 0xff8, if group.is_some() { page % 3 + 1 } else { page });
            memory.write(GuestPhys(at), &value.to_le_bytes());
            ram[at as usize..][..8].copy_from_slice(&value.to_le_bytes());
        }
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
        let model = Reference { ram, map, marks: Vec::new(), trail: Vec::new(), dirtied: false };
        let (walked, code_ever) = (vec![false; PAGES as usize], vec![false; PAGES as usize]);
        let (rng, seen) = (Rng(seed | 1), Seen::default());
        #[rustfmt::skip]
        let machine = Machine {
            memory, vcpu, control, others, model, code, rng, step: 0, last: 0, walked, code_ever, paged, group, seen,
        };
        machine
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
    pub fn take_turns(&mut self) {
        let other = self.rng.below(self.others.len() as u64) as usize;
        self.vcpu.park();
        std::mem::swap(&mut self.vcpu, &mut self.others[other].0);
        std::mem::swap(&mut self.control, &mut self.others[other].1);
        self.vcpu.unpark();
        self.vcpu.take_code_writes();
    }
    pub fn linear(&mut self) -> u64 {
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
        // A root's own table is tracked before any walk.
        self.walked[(self.control.cr3 >> 12) as usize] = true;
        self.vcpu.set_paging(&regs);
    }
    pub fn change_control(&mut self) {
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
    /// A random access within a page, as an engine makes it: the TLB first, then the slow path.
    pub fn access(&mut self) {
        let Some(ask) = self.ask() else { return };
        self.seen.accesses += 1;
        let expected = self.model.translate(&ask.control, ask.linear, ask.access, ask.view);
        self.model.trail.iter().for_each(|(at, _)| self.walked[(at >> 12) as usize % PAGES as usize] = true);
        // Marking sets A and D bits: if those bytes were translated as code, that is a write to code as well.
        for (at, width) in std::mem::take(&mut self.model.marks) {
            self.code_touched(at, width);
        }
        let value = if ask.linear & 7 == 0 && ask.size >= 4 {
            u128::from(self.entry()) | u128::from(self.entry()) << 64
        } else {
            u128::from(self.rng.next())
        };
        if self.fast(&ask, expected, value) {
            self.seen.hits += 1;
            return;
        }
        let before = self.memory.counters();
        let got = self.vcpu.resolve(Linear(ask.linear), ask.access, ask.view);
        let after = self.memory.counters();
        let class = FaultClass::ALL.into_iter().find(|class| after.class(*class) != before.class(*class));
        assert_eq!(after.slow_accesses, before.slow_accesses + 1, "{ask}: each slow access is one class");
        let class = class.unwrap_or_else(|| panic!("{ask}: no class was counted"));
        self.seen.classes[class as usize] += 1;
        let allowed = self.classes(&ask, expected);
        // Where memory lies beneath, it may have been elsewhere.
        let out = self.paged && class == FaultClass::FrameOut
            || self.group.is_some() && ask.access == Access::Write && class == FaultClass::CopyOnWrite;
        let ours = !allowed.contains(&FaultClass::Mmio) && !allowed.contains(&FaultClass::GuestTrue);
        assert!(allowed.contains(&class) || out && ours, "{ask}: {class:?} where the model allows {allowed:?}");
        // Hidden faults leave A and D bits, and nothing else; a guest's own fault leaves nothing at all.
        for (at, width) in std::mem::take(&mut self.model.trail) {
            let mut entry = [0; 8];
            self.memory.read(GuestPhys(at), &mut entry[..width as usize]);
            let (entry, modelled) = (u64::from_le_bytes(entry), self.model.read(at, width) as u64);
            assert_eq!(entry, modelled, "{ask}: the entry at {at:#x} is {entry:#x}");
        }
        let place = match got {
            Err(fault) => {
                assert_eq!((Err(fault.error_code), fault.linear.0), (expected, ask.linear), "{ask}");
                return;
            }
            Ok(place) => place,
        };
        assert_eq!(Ok(place.phys().0), expected, "{ask}");
        self.slow(&ask, &place, value);
    }
    fn ask(&mut self) -> Option<Ask> {
        // Often the same page again, as programs do.
        let linear = if self.rng.one_in(2) { self.last ^ self.rng.below(4096) } else { self.linear() };
        self.last = linear;
        let view = self.rng.pick(&[View::User, View::Supervisor, View::SupervisorAc]);
        let access = self.rng.pick(&[Access::Read, Access::Read, Access::Write, Access::Write, Access::Fetch]);
        let size = self.rng.pick(&[1u64, 2, 4, 8, 16]);
        let view = if self.rng.one_in(3) { view } else { self.vcpu.view() };
        self.vcpu.set_view(view);
        if linear & 0xfff > 4096 - size {
            assert_eq!(self.vcpu.load::<u128>(linear | 0xff1), None, "a straddling access never hits");
            return None;
        }
        Some(Ask { step: self.step, linear, access, view, size, control: self.control })
    }
    /// The access by the TLB alone, if it can.
    fn fast(&mut self, ask: &Ask, expected: Result<u64, u32>, value: u128) -> bool {
        let &Ask { linear, access, size, .. } = ask;
        let allowed = || expected.unwrap_or_else(|code| panic!("{ask}: TLB hit, but the model faults with {code}"));
        match access {
            Access::Read => {
                let hit = match size {
                    1 => self.vcpu.load::<u8>(linear).map(u128::from),
                    2 => self.vcpu.load::<u16>(linear).map(u128::from),
                    4 => self.vcpu.load::<u32>(linear).map(u128::from),
                    8 => self.vcpu.load::<u64>(linear).map(u128::from),
                    _ => self.vcpu.load::<u128>(linear),
                };
                hit.inspect(|hit| assert_eq!(*hit, self.model.read(allowed(), size), "{ask}: TLB hit")).is_some()
            }
            Access::Write => {
                let hit = match size {
                    1 => self.vcpu.store(linear, value as u8),
                    2 => self.vcpu.store(linear, value as u16),
                    4 => self.vcpu.store(linear, value as u32),
                    8 => self.vcpu.store(linear, value as u64),
                    _ => self.vcpu.store(linear, value),
                };
                if hit {
                    let phys = allowed();
                    assert_eq!(self.model.back(phys >> 12), Back::Ram, "{ask}");
                    let bytes = &value.to_le_bytes()[..size as usize];
                    assert!(!self.model_write(phys, bytes), "{ask}: fast store into code");
                }
                hit
            }
            Access::Fetch => {
                let hit = self.vcpu.fetch_page(linear);
                hit.inspect(|page| assert_eq!(page.0, allowed() >> 12, "{ask}: fetch hit")).is_some()
            }
        }
    }
    /// The access at a place that the slow path gave.
    fn slow(&mut self, ask: &Ask, place: &Place, value: u128) {
        let (phys, size) = (place.phys().0, ask.size);
        let bytes = &value.to_le_bytes()[..size as usize];
        let kind = match self.model.back(phys >> 12) {
            Back::Ram => PlaceKind::Ram,
            Back::Rom => PlaceKind::Rom,
            Back::Device(region, page) => {
                PlaceKind::Mmio { region: RegionId(region), offset: page << 12 | phys & 0xfff }
            }
            Back::Open => PlaceKind::Open,
        };
        assert_eq!(place.kind(), kind, "{ask}");
        if ask.access != Access::Write {
            let mut read = [0; 16];
            self.vcpu.read_place(place, &mut read[..size as usize]);
            assert_eq!(u128::from_le_bytes(read), self.model.read(phys, size), "{ask}: read {phys:#x}");
        } else if self.rng.one_in(4) && kind == PlaceKind::Ram {
            let old = self.model.read(phys, size);
            let (was, note) = self.vcpu.rmw_place(place, size as usize, &mut |_| value);
            assert_eq!(was, old, "{ask}: rmw");
            assert_eq!(note.code_written, self.model_write(phys, bytes), "{ask}: rmw code note");
        } else {
            let note = self.vcpu.write_place(place, bytes);
            assert_eq!(note.code_written, self.model_write(phys, bytes), "{ask}: code note at {phys:#x}");
        }
    }
    /// The classes that an access may be of which missed the TLB. What the monitor still holds is its own business; whether
    /// the guest faults, a device answers or the guest's dirty bit has to be set is not.
    fn classes(&self, ask: &Ask, expected: Result<u64, u32>) -> &'static [FaultClass] {
        use FaultClass::*;
        let Ok(phys) = expected else { return &[GuestTrue] };
        let tables_elsewhere = self.model.trail.iter().any(|(at, _)| self.model.back(at >> 12) != Back::Ram);
        let page = phys >> 12;
        let back = self.model.back(page);
        if tables_elsewhere || matches!(back, Back::Device(..) | Back::Open) {
            &[Mmio]
        } else if self.model.dirtied {
            &[DirtyTrack]
        } else if ask.access != Access::Write {
            &[Hit, NotShadowed]
        } else if back == Back::Rom || self.walked[page as usize] || self.code_ever[page as usize] {
            &[Hit, NotShadowed, WriteTrack]
        } else {
            &[Hit, NotShadowed]
        }
    }
    /// A write that is no vCPU's.
    pub fn outside_write(&mut self) {
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
    pub fn remap(&mut self) {
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
    pub fn track_code(&mut self) {
        let page = self.rng.pick(&[0, 2, 5, 20, 21, 22, HIGH]);
        if self.model.back(page) != Back::Ram {
            return;
        }
        let (offset, len) = (self.rng.below(4096), self.rng.below(200) + 1);
        self.vcpu.track_code(PhysPage(page), offset as u16, len as u16);
        self.code_ever[page as usize] = true;
        let last = (offset + len - 1).min(4095) / 64;
        (offset / 64..=last).for_each(|grain| self.code[page as usize] |= 1 << grain);
    }
    /// All of memory bit for bit, and the audits.
    pub fn compare(&mut self) {
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
        self.audit();
    }
    /// Every monitor entry against the guest's tables, and every vCPU's TLB against the monitor; gives the entries compared.
    pub fn audit(&mut self) -> u64 {
        let report = self.memory.audit();
        assert!(report.is_clean(), "step {}: {report:#?}", self.step);
        let mut entries = report.entries;
        for vcpu in std::iter::once(&mut self.vcpu).chain(self.others.iter_mut().map(|(vcpu, _)| vcpu)) {
            vcpu.drain();
            let report = vcpu.audit();
            assert!(report.is_clean(), "step {}: {report:#?}", self.step);
            entries += report.entries;
        }
        entries
    }
    /// One step of the mixture: mostly accesses, then writes, mode changes and everything else.
    pub fn mixed_step(&mut self) {
        match self.rng.below(200) {
            0..150 => self.access(),
            150..176 => self.outside_write(),
            176..182 => self.change_control(),
            182 | 183 => self.vcpu.invlpg(Linear(self.step << 12)),
            184 | 185 => self.track_code(),
            186 => {
                self.remap();
                self.vcpu.drain();
            }
            187 => self.switch_a20(),
            188 if self.step.is_multiple_of(3) => {
                self.memory.compact(40);
                self.vcpu.drain();
            }
            189 if self.paged => {
                let count = self.rng.below(100);
                self.memory.evict(count);
                self.vcpu.drain();
            }
            190 if self.group.is_some() => {
                // Nothing changes between two looks.
                (0..2).for_each(|_| _ = self.memory.share(1024));
                self.vcpu.drain();
            }
            189..192 => self.take_turns(),
            _ => {
                self.vcpu.drain();
                self.vcpu.take_code_writes();
            }
        }
    }
    fn switch_a20(&mut self) {
        self.control.a20 ^= true;
        self.others.iter_mut().for_each(|(_, control)| control.a20 ^= true);
        self.memory.set_a20(self.control.a20);
        self.vcpu.drain();
    }
    /// The counters agree with what was seen, and with each other.
    pub fn check_counters(&self) {
        let counters = self.memory.counters();
        assert_eq!(counters.classes, self.seen.classes, "{:?}", self.seen);
        assert_eq!(counters.slow_accesses, counters.classes.iter().sum::<u64>());
        assert_eq!(self.seen.accesses, self.seen.hits + counters.slow_accesses);
        assert_eq!(counters.monitor.live, self.memory.audit().entries);
    }
}
