//! The JIT: a block's uops as x86-64 code (the second executor; `exec` is the first and the reference).
//!
//! ```text
//! hot block ─ lift again ─► uops ─ block ─► code in the arena ─ link ─► chained to other code
//!                                           │ gates: slow accesses, interpreter handlers for what has no native form
//! ```
//!
//! | module | what |
//! |---|---|
//! | `registers` | which host register holds what |
//! | `asm`, `encode` | encoding; `arena` the memory it goes to, what runs apart from the ways out of it |
//! | `block` | one block: uops in order; `behind` the cold paths after them |
//! | `flags` | where the status flags are |
//! | `memo` | where an access looks first; `refill` what it does when the TLB has no entry, `straddle` over the end of a page |
//! | `stack_run`, `vector_run` | one check for several accesses |
//! | `address`, `integer`, `shift`, `branch`, `vector`, `x87`, `bmi`, `system`, `exchange`, `segment`, `string` | families of uops |
//! | `gate`, `units`, `frame` | the way to Rust and back |
//! | `site` | what is to be known where emitted code is left; `ring` what is found by a growing number |
//!
//! A *unit* is the code of one block for one [`Variant`]. Before anything else it takes fuel for all its instructions, or is
//! left: so its flags must be known at its start, even where it replaces them unread. The dispatcher (`exec::dispatch`) enters
//! the plain variant; a jump whose flags are only a recipe leads to a variant that knows it, if it leads back (a loop), else
//! over a stub that stores them.
//! When the arena is full, its oldest chunk is emptied: what is hot of that is made again.

mod address;
mod arena;
mod asm;
mod behind;
mod block;
mod bmi;
mod branch;
mod encode;
mod exchange;
mod flags;
pub(crate) mod frame;
mod gate;
mod integer;
mod memo;
mod refill;
mod registers;
mod ring;
mod run;
mod segment;
mod shift;
mod site;
mod stack_run;
mod straddle;
mod string;
mod system;
mod units;
mod vector;
mod vector_run;
mod x87;

pub use arena::{ArenaError, CodePtr};
pub use block::{Live, Variant};
pub use flags::{Recipe, SavedFlags, SiteFlags};
pub use frame::Frame;
pub use gate::Status;
pub use run::Next;
pub use site::{Place, Site};

use crate::cache::{BlockKey, Numbers, Step};
use crate::mode::ModeBits;
use crate::uop::{Uop, Width};
use arena::{Arena, Part};
use asm::{Alu, Asm, Rm};
use block::{Context, Emitter, Workspace};
use frame::{JumpEntry, jump_index, jumps};
use gate::Gates;
use registers::{FUEL, S0, S1};
use ring::Ring;
use rustc_hash::FxHashMap;
use site::{Edge, LowPtr, Marks, Rare, Sites};
use smallvec::SmallVec;
use std::num::NonZeroU32;
use umbra_mmu::addr::PhysPage;
use umbra_mmu::tlb::fetch_id;

/// More than the instructions of any block: emitted code is left when less fuel than that remains, and the interpreter
/// finds the exact end.
pub const SLACK: u64 = 96;

/// Optimisations that can be switched off by name.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Disable(pub u32);

impl Disable {
    /// Native forms: every uop runs through the interpreter's handler.
    pub const NATIVE: u32 = 1 << 0;
    /// Links between blocks.
    pub const CHAINS: u32 = 1 << 1;
    /// Variants that know where flags come from.
    pub const RECIPES: u32 = 1 << 2;
    /// The table of indirect jumps.
    pub const JUMPS: u32 = 1 << 3;
    /// Native vector instructions.
    pub const VECTORS: u32 = 1 << 4;
    /// Native x87 instructions.
    pub const X87: u32 = 1 << 5;
    /// Memos: what each access found last.
    pub const MEMOS: u32 = 1 << 6;
    /// The table of indirect jumps looked at in line.
    pub const INLINE_JUMPS: u32 = 1 << 7;
    /// Native repeated string instructions.
    pub const STRINGS: u32 = 1 << 8;
    /// One check for several pushes, or pops.
    pub const STACK_RUNS: u32 = 1 << 9;
    /// One check for several vector loads, or stores.
    pub const VECTOR_RUNS: u32 = 1 << 10;
    /// RDTSC and RDTSCP in line.
    pub const TSC: u32 = 1 << 11;
    /// Slots read from the scratch register that was just stored to them.
    pub const COPIES: u32 = 1 << 12;
    /// Names on the command line.
    pub const NAMES: [(&'static str, u32); 13] = [
        ("native", Self::NATIVE),
        ("chains", Self::CHAINS),
        ("recipes", Self::RECIPES),
        ("jumps", Self::JUMPS),
        ("vectors", Self::VECTORS),
        ("x87", Self::X87),
        ("memos", Self::MEMOS),
        ("inline-jumps", Self::INLINE_JUMPS),
        ("strings", Self::STRINGS),
        ("stack-runs", Self::STACK_RUNS),
        ("vector-runs", Self::VECTOR_RUNS),
        ("tsc", Self::TSC),
        ("copies", Self::COPIES),
    ];
    /// Whether this one is off.
    pub const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }
}

/// What the JIT counts.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct JitCounters {
    /// Units made.
    pub units: u64,
    /// Guest instructions in them.
    pub insns: u64,
    /// Guest bytes in them.
    pub guest_bytes: u64,
    /// Host bytes of them.
    pub host_bytes: u64,
    /// The time that lifting and emitting them took, in nanoseconds.
    pub nanoseconds: u64,
    /// Jumps linked.
    pub links: u64,
    /// Times that old code was dropped because the arena was full.
    pub flushes: u64,
    /// Entries of emitted code, and returns by status.
    pub exits: [u64; 16],
}

impl JitCounters {
    /// Everything by name, for summaries.
    pub fn rows(&self) -> Vec<(&'static str, u64)> {
        #[rustfmt::skip]
        const EXITS: [&str; 12] = [
            "", "", "exit chain", "exit stop", "exit dynamic", "exit fault", "exit early", "exit step fault", "exit step early",
            "exit step end", "exit unmasked", "exit not canonical",
        ];
        let JitCounters { units, insns, guest_bytes, host_bytes, nanoseconds, links, flushes, exits } = *self;
        let mut rows = vec![
            ("units", units),
            ("instructions", insns),
            ("guest bytes", guest_bytes),
            ("host bytes", host_bytes),
            ("nanoseconds", nanoseconds),
            ("chains", links),
            ("flushes", flushes),
        ];
        rows.extend(EXITS.into_iter().zip(exits).filter(|(name, _)| !name.is_empty()));
        rows
    }
}

/// The code of one block for one variant.
#[derive(Debug)]
struct Unit {
    /// Its hot and its cold part: where they lie. It is entered at the begin of the first.
    parts: [LowPtr; 2],
    /// Their bytes.
    lens: [u16; 2],
    key: BlockKey,
    variant: Variant,
    /// The unit made before this one for another variant of the block.
    other: Option<Other>,
    needs_flags: bool,
    /// Number of instructions.
    insns: u8,
    alive: bool,
    /// The tables of indirect jumps that were told about it, a bit for each.
    known: u8,
    /// Jumps that lead here.
    incoming: SmallVec<[u32; 4]>,
}

const _: () = assert!(size_of::<Unit>() <= 88);

/// The number of a unit, and one more.
#[derive(Copy, Clone, Debug)]
struct Other(NonZeroU32);

impl Other {
    fn number(self) -> u32 {
        self.0.get() - 1
    }
    fn of(unit: u32) -> Option<Other> {
        NonZeroU32::new(unit + 1).map(Other)
    }
}

impl Unit {
    fn entry(&self) -> LowPtr {
        self.parts[0]
    }
}

/// Whether a unit is one of this block.
fn is_of(units: &Ring<Unit>, unit: u32, key: &BlockKey) -> bool {
    units.get(unit).is_some_and(|unit| unit.alive && unit.key == *key)
}

/// Flags that a jump has as a recipe, to be stored for a target that does not know it.
#[derive(Copy, Clone, Debug)]
struct Store {
    recipe: Recipe,
    when: When,
}

/// When flags are stored.
#[derive(Copy, Clone, Debug)]
enum When {
    /// The target reads them.
    Always,
    /// It does not, but is left for want of fuel before it replaces them: it takes as much as it has instructions.
    Short(u8),
}

/// What lies in a chunk of the arena, or did: units, which come to it one after the other, and stubs, by the jumps that lead over
/// them.
#[derive(Debug, Default)]
struct Contents {
    units: std::ops::Range<u32>,
    stubs: Vec<u32>,
}

impl Contents {
    /// A unit lies there, or a part of it.
    fn add(&mut self, unit: u32) {
        let first = if self.units.is_empty() { unit } else { self.units.start };
        self.units = first..unit + 1;
    }
}

/// A vCPU's emitted code.
pub struct Jit {
    arena: Arena,
    asm: Asm,
    gates: Gates,
    sites: Sites,
    workspace: Workspace,
    units: Ring<Unit>,
    /// What lies in each chunk of the arena.
    chunks: Vec<Contents>,
    /// The last unit made for a block; the others by [`Unit::other`].
    latest: Numbers,
    jumps: [Box<[JumpEntry]>; Live::ALL],
    /// How many memos were given out.
    memos: memo::Given,
    /// Uops whose accesses go from page to page.
    far: FxHashMap<BlockKey, Vec<u16>>,
    /// Blocks that were learnt to have such, and are to be made again.
    stale: Vec<BlockKey>,
    /// The jump that led out last to a block without code, and that block.
    awaiting: Option<(Place, BlockKey)>,
    /// Grows with each flush: what was known of units is void.
    epoch: u32,
    disable: Disable,
    counters: JitCounters,
    /// Where `perf` finds the names of units.
    perf_map: Option<std::fs::File>,
}

impl std::fmt::Debug for Jit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jit").field("units", &self.units.len()).finish()
    }
}

/// The default size of the code cache in bytes.
pub const DEFAULT_BYTES: usize = 32 << 20;

/// Blocks with accesses that go from page to page, of which is known.
const MOST_FAR: usize = 1 << 16;

/// What may be kept of the code in a cache of `bytes`, in bytes: about as much as code of short blocks needs that fills the cache.
fn most_records(bytes: usize) -> usize {
    bytes / 4 * 3
}

/// Whether a block should become a variant of its own.
const MOST_VARIANTS: usize = 3;

impl Jit {
    /// An empty code cache of `bytes`.
    pub fn new(bytes: usize) -> Result<Box<Jit>, ArenaError> {
        for (name, there) in [
            ("BMI1", std::is_x86_feature_detected!("bmi1")),
            ("BMI2", std::is_x86_feature_detected!("bmi2")),
            ("AVX", std::is_x86_feature_detected!("avx")),
        ] {
            if !there {
                return Err(ArenaError::Host(name));
            }
        }
        let mut arena = Arena::new(bytes)?;
        let mut asm = Asm::default();
        let gates = Gates::emit(&mut arena, &mut asm).ok_or(ArenaError::Host("room for common code"))?;
        arena.keep();
        let chunks = (0..arena.chunks()).map(|_| Contents::default()).collect();
        Ok(Box::new(Jit {
            arena,
            asm,
            gates,
            sites: Sites::default(),
            workspace: Workspace::default(),
            units: Ring::default(),
            chunks,
            latest: Numbers::default(),
            jumps: std::array::from_fn(|live| vec![JumpEntry::NONE; jumps(live)].into_boxed_slice()),
            memos: memo::Given::default(),
            far: FxHashMap::default(),
            stale: Vec::new(),
            awaiting: None,
            epoch: 1,
            disable: Disable::default(),
            counters: JitCounters::default(),
            perf_map: None,
        }))
    }

    /// The tables of indirect jumps, for the frame.
    pub fn jump_tables(&mut self) -> [*mut JumpEntry; Live::ALL] {
        self.jumps.each_mut().map(|table| table.as_mut_ptr())
    }

    /// Switches optimisations off; for new code.
    pub fn set_disable(&mut self, disable: Disable) {
        self.disable = disable;
    }

    /// Writes each unit's address, length and name into a file, as `perf` reads it (`/tmp/perf-PID.map`; perf's
    /// `Documentation/jit-interface.txt`).
    pub fn set_perf_map(&mut self, file: std::fs::File) {
        self.perf_map = Some(file);
    }

    /// What was counted.
    pub fn counters(&self) -> JitCounters {
        self.counters
    }

    /// The size of the code cache.
    pub fn bytes(&self) -> usize {
        self.arena.size()
    }

    /// What is to be known at a place.
    pub fn site(&self, place: Place) -> Option<Site> {
        self.kept_site(place).cloned().or_else(|| self.start_site(place))
    }

    /// The same, if it is not the start of a unit.
    fn kept_site(&self, place: Place) -> Option<&Site> {
        match place {
            Place::Site(number) => self.sites.get(number),
            Place::Edge(number) => self.sites.get(self.sites.edge(number)?.site()),
            Place::Start(_) => None,
        }
    }

    /// The same, if it is: it follows from the unit.
    fn start_site(&self, place: Place) -> Option<Site> {
        let Place::Start(number) = place else { return None };
        let Unit { variant, insns, .. } = self.units.get(number)?;
        let flags = variant.recipe.map_or(SiteFlags::Saved, SiteFlags::Recipe);
        let marks = Marks::new(variant.live, false, false);
        Some(Site { charged: *insns, ..Site::new(number, flags, marks) })
    }

    /// The jump at a place.
    fn edge(&self, place: Place) -> Option<&Edge> {
        if let Place::Edge(number) = place { self.sites.edge(number) } else { None }
    }

    /// What only some sites have.
    fn rare(&self, site: &Site) -> Option<&Rare> {
        self.sites.rare(site)
    }

    /// RIP of the block that a site is in.
    fn block_rip(&self, site: &Site) -> u64 {
        self.units.get(site.unit).map_or(0, |unit| unit.key.rip)
    }

    /// RIP to go on with at a place: the jump's target, or the site's instruction.
    fn rip_of(&self, place: Place, site: &Site) -> u64 {
        match self.edge(place) {
            Some(edge) => edge.target(),
            None => self.rip_at(site, site.offset),
        }
    }

    /// RIP at an offset from the start of a site's block.
    fn rip_at(&self, site: &Site, offset: u16) -> u64 {
        self.units.get(site.unit).map_or(0, |unit| block::rip_at(&unit.key, offset))
    }

    /// The last x87 instruction before a site, if it is still to be noted: RIP and opcode.
    fn last_x87(&self, site: &Site, rare: Option<&Rare>) -> Option<(u64, u16)> {
        rare?.x87.map(|(offset, opcode)| (self.rip_at(site, offset), opcode))
    }

    /// Where emitted code is entered.
    fn enter(&self) -> CodePtr {
        self.gates.enter
    }

    /// The unit of a block, if there is one.
    pub fn find(&self, key: &BlockKey, variant: Variant) -> Option<u32> {
        self.units_of(key).find_map(|(number, unit)| (unit.variant == variant).then_some(number))
    }

    /// The units of a block with their numbers, the last one made first.
    fn units_of(&self, key: &BlockKey) -> impl Iterator<Item = (u32, &Unit)> {
        let numbered = |number: u32| Some((number, self.units.get(number)?));
        let last = self.latest.get(key, |unit| is_of(&self.units, unit, key)).and_then(numbered);
        std::iter::successors(last, move |(_, unit)| unit.other.and_then(|other| numbered(other.number())))
    }

    /// Where a unit's code starts, if there still is any.
    pub fn entry(&self, unit: u32) -> Option<CodePtr> {
        self.units.get(unit).filter(|unit| unit.alive).map(|unit| self.arena.whole(unit.entry()))
    }

    /// Whether another unit may not fit, or more is kept of units than goes with the size of the cache: make room first
    /// ([`Jit::make_room`]), when no emitted code is running.
    pub fn is_full(&self) -> bool {
        !self.arena.has_room() || self.sites.is_over() || self.records() > most_records(self.arena.size())
    }

    /// The size of what is kept of the code, in bytes.
    pub fn records(&self) -> usize {
        self.units.bytes() + self.sites.bytes()
    }

    /// Drops the oldest code until there is room for more, and gives its blocks. Not while emitted code is running.
    pub fn make_room(&mut self) -> Vec<BlockKey> {
        let mut dropped = Vec::new();
        self.counters.flushes += 1;
        if self.sites.is_over() {
            self.flush();
        }
        while self.is_full()
            && let Some(chunk) = self.arena.oldest()
        {
            let Contents { units, stubs } = std::mem::take(&mut self.chunks[chunk]);
            stubs.into_iter().for_each(|edge| self.unlink(edge));
            for unit in units {
                if let Some(key) = self.units.get(unit).filter(|unit| unit.alive).map(|unit| unit.key) {
                    self.drop_block(&key);
                    dropped.push(key);
                }
            }
            self.arena.recycle(chunk);
            self.units.forget(|unit| unit.alive);
            self.sites.forget(self.units.first());
        }
        dropped
    }

    /// The access at a site goes from page to page: its block is to be made again.
    pub fn is_far(&mut self, place: Place, run: bool) {
        let Some(site) = self.site(place) else { return };
        let Some(unit) = self.units.get(site.unit).filter(|unit| unit.alive) else { return };
        if self.far.len() >= MOST_FAR {
            self.far.clear();
        }
        let place = if run { site.uop | stack_run::BROKEN } else { site.uop };
        self.far.entry(unit.key).or_default().push(place);
        self.stale.push(unit.key);
    }

    /// The blocks whose code is to be made again, dropped. Not while emitted code is running.
    pub fn take_stale(&mut self) -> Vec<BlockKey> {
        let stale = std::mem::take(&mut self.stale);
        stale.iter().for_each(|key| self.drop_block(key));
        stale
    }

    /// Drops all code.
    pub fn flush(&mut self) {
        self.arena.clear();
        self.sites.clear();
        self.units.clear();
        self.chunks.iter_mut().for_each(|chunk| *chunk = Contents::default());
        self.latest = Numbers::default();
        self.awaiting = None;
        self.jumps.iter_mut().for_each(|table| table.fill(JumpEntry::NONE));
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Makes the code of a block, whose last instruction may run into a `second` page (linear address, page). `step` makes the
    /// interpreter's step of a uop.
    pub fn compile(
        &mut self,
        key: BlockKey,
        variant: Variant,
        (uops, offsets): (&[Uop], &[u16]),
        second: Option<(u64, PhysPage)>,
        step: &mut dyn FnMut(&Uop) -> Step,
    ) -> Option<u32> {
        if !self.arena.has_room() {
            return None;
        }
        let unit = self.units.next();
        self.arena.prepare();
        let cold = self.arena.next(Part::Cold);
        self.asm.start(self.arena.next(Part::Hot).0, cold.0);
        self.asm.set_copies(!self.disable.has(Disable::COPIES));
        let context = Context {
            key,
            uops,
            offsets,
            second,
            gates: &self.gates,
            disable: self.disable,
            unit,
            step,
            memos: self.memos,
            far: self.far.get(&key).map_or(&[], Vec::as_slice),
        };
        let needs_flags;
        (needs_flags, self.memos) = Emitter::run(&mut self.asm, &mut self.sites, &mut self.workspace, context, variant);
        let (hot, ways_out) = self.asm.finish();
        let lens = [u16::try_from(hot.len()).ok()?, u16::try_from(ways_out.len()).ok()?];
        let entry = self.arena.append(hot, ways_out)?;
        let other = self.latest.insert(&key, unit, |unit| is_of(&self.units, unit, &key));
        let incoming = SmallVec::new();
        self.units.push(Unit {
            parts: [entry.into(), cold.into()],
            lens,
            key,
            variant,
            other: other.and_then(Other::of),
            needs_flags,
            insns: offsets.len() as u8 - 1,
            alive: true,
            known: 0,
            incoming,
        });
        for at in [entry, cold] {
            self.chunks[self.arena.chunk_of(at)].add(unit);
        }
        if let Some(file) = &mut self.perf_map {
            use std::io::Write as _;
            let name = if variant.recipe.is_some() { "_loop" } else { "" };
            for ((at, len), part) in [entry, cold].into_iter().zip(lens).zip(["", "_cold"]) {
                // Names that are lost are no reason to stop.
                let _ = writeln!(file, "{:x} {len:x} guest_{:x}{name}{part}", at.0, key.rip);
            }
        }
        let c = &mut self.counters;
        c.units += 1;
        c.insns += offsets.len() as u64 - 1;
        c.guest_bytes += u64::from(offsets.last().copied().unwrap_or(0));
        c.host_bytes += lens.map(u64::from).iter().sum::<u64>();
        Some(unit)
    }

    /// Which variant of `to` the jump at a place should lead to.
    pub fn wanted_variant(&self, place: Place, to: &BlockKey) -> Variant {
        let Some(site) = self.site(place) else { return Variant::default() };
        let plain = Variant { live: site.live(), recipe: None };
        let SiteFlags::Recipe(recipe) = site.flags else { return plain };
        let known = Variant { recipe: Some(recipe), ..plain };
        let from = self.units.get(site.unit);
        let backward = from.is_some_and(|unit| to.rip <= unit.key.rip);
        // Elsewhere a variant pays where the plain unit would have the flags stored first; not in a kernel, whose code is wide
        // rather than hot (a fork and an exec were a fifth slower).
        let unit = self.find(to, plain).and_then(|unit| self.units.get(unit));
        let pays = backward || to.mode.has(ModeBits::USER) && unit.is_some_and(|unit| unit.needs_flags);
        let room = || self.find(to, known).is_some() || self.units_of(to).count() < MOST_VARIANTS;
        if pays && room() && !self.disable.has(Disable::RECIPES) { known } else { plain }
    }

    /// Links the jump at a place to a unit.
    pub fn link(&mut self, place: Place, unit: u32, variant: Variant) {
        let Place::Edge(number) = place else { return };
        let Some(edge) = self.sites.edge(number).copied() else { return };
        let (Some(found), Some(target)) = (self.sites.get(edge.site()), self.units.get(unit)) else { return };
        let Some(from) = self.units.get(found.unit) else { return };
        // A stub needs room, and nothing is kept of it: where no more code is to be made, links still are.
        if self.disable.has(Disable::CHAINS) || !from.alive || !target.alive || !self.arena.has_room() {
            return;
        }
        let stays = edge.same_page() && from.key.page == target.key.page && from.key.mode == target.key.mode;
        let store = match found.flags {
            SiteFlags::Recipe(recipe) if variant.recipe.is_none() => {
                Some(Store { recipe, when: if target.needs_flags { When::Always } else { When::Short(target.insns) } })
            }
            _ => None,
        };
        let (at, mut to) = (from.entry().plus(edge.at), target.entry());
        if !stays || store.is_some() {
            let (key, live) = (target.key, found.live());
            let page = (!stays).then_some((key.linear, key.page));
            let Some(stub) = self.stub(page, store, number, live, self.arena.whole(to)) else { return };
            to = stub.into();
        }
        self.arena.patch(at, to);
        self.units.get_mut(unit).into_iter().for_each(|unit| unit.incoming.push(number));
        self.counters.links += 1;
    }

    /// Code between a jump and its target: that the target's page is still mapped where it was, and that flags are stored.
    fn stub(
        &mut self,
        page: Option<(u64, PhysPage)>,
        store: Option<Store>,
        edge: u32,
        live: Live,
        to: CodePtr,
    ) -> Option<CodePtr> {
        self.arena.prepare();
        self.asm.start(self.arena.next(Part::Hot).0, self.arena.next(Part::Cold).0);
        let asm = &mut self.asm;
        let (cold, found) = (asm.label(), asm.label());
        if let Some(page) = page {
            block::look_at_page(asm, page);
            asm.jcc(5, cold);
        }
        asm.bind(found);
        let short = asm.label();
        match store.map(|store| store.when) {
            Some(When::Short(insns)) => {
                asm.alu_imm(Alu::Cmp, Width::B8, Rm::R(FUEL), i64::from(insns));
                asm.jcc(12, short);
            }
            Some(When::Always) => store.iter().for_each(|store| flags::cook_and_save(asm, &store.recipe)),
            None => {}
        }
        asm.jmp_to(to.0);
        let _ = asm.go_cold();
        if let Some(Store { recipe, when: When::Short(_) }) = store {
            asm.bind(short);
            flags::cook_and_save(asm, &recipe);
            asm.jmp_to(to.0);
        }
        if let Some(page) = page {
            // It may only be missing from the TLB.
            asm.bind(cold);
            asm.mov_imm(S0, page.0);
            asm.mov_imm32(S1, Place::Edge(edge).number());
            asm.call(self.gates.fetch[live.index()].0);
            block::look_at_page(asm, page);
            asm.jcc(4, found);
            asm.mov_imm(S0, Status::Stop as u64);
            asm.mov_imm32(S1, Place::Edge(edge).number());
            asm.jmp_to(self.gates.exit[live.index()].0);
        }
        let cold = self.arena.next(Part::Cold);
        let (hot, ways_out) = asm.finish();
        let at = self.arena.append(hot, ways_out)?;
        for at in [at, cold] {
            self.chunks[self.arena.chunk_of(at)].stubs.push(edge);
        }
        Some(at)
    }

    /// A jump is not linked any more.
    fn unlink(&mut self, edge: u32) {
        let Some(edge) = self.sites.edge(edge) else { return };
        // The bytes of what is dead may be others' by now.
        let unit = self.sites.get(edge.site()).and_then(|site| self.units.get(site.unit));
        if let Some(Unit { parts: [hot, cold], .. }) = unit.filter(|unit| unit.alive) {
            self.arena.patch(hot.plus(edge.at), cold.plus(edge.cold));
        }
    }

    /// Whether the table of indirect jumps has a block.
    pub fn knows_jump(&self, key: &BlockKey, live: Live) -> bool {
        let entry = &self.jumps[live.index()][jump_index(key.rip, live.index())];
        entry.rip == key.rip && entry.mode == u64::from(key.mode.0) && entry.id == fetch_id(key.linear, key.page)
    }

    /// Tells the table of indirect jumps about a unit.
    pub fn know_jump(&mut self, unit: u32, live: Live) {
        let Some((key, code)) = self.units.get(unit).map(|unit| (unit.key, unit.entry())) else { return };
        let code = self.arena.whole(code).0;
        if self.disable.has(Disable::JUMPS) || self.knows_jump(&key, live) {
            return;
        }
        let id = fetch_id(key.linear, key.page);
        let entry = JumpEntry { rip: key.rip, code, id, mode: u64::from(key.mode.0) };
        self.jumps[live.index()][jump_index(key.rip, live.index())] = entry;
        self.units.get_mut(unit).into_iter().for_each(|unit| unit.known |= 1 << live.index());
    }

    /// Drops all code of a block: nothing leads to it any more. Its bytes stay until their chunk is emptied.
    pub fn drop_block(&mut self, key: &BlockKey) {
        let mut next = self.latest.remove(key, |unit| is_of(&self.units, unit, key));
        while let Some(found) = next.and_then(|unit| self.units.get_mut(unit)) {
            next = found.other.map(Other::number);
            found.alive = false;
            let (entry, known) = (self.arena.whole(found.entry()).0, found.known);
            let incoming = std::mem::take(&mut found.incoming);
            incoming.into_iter().for_each(|site| self.unlink(site));
            for (live, table) in self.jumps.iter_mut().enumerate().filter(|(live, _)| known >> live & 1 != 0) {
                let slot = &mut table[jump_index(key.rip, live)];
                if slot.code == entry {
                    *slot = JumpEntry::NONE;
                }
            }
        }
    }

    /// The code made for a block, for dumps: where it lies, and its bytes, the hot part of each variant and its cold one; the
    /// variant made first comes first.
    pub fn code_of(&self, key: &BlockKey) -> Vec<[(u64, &[u8]); 2]> {
        let part = |unit: &Unit, n: usize| {
            let at = self.arena.whole(unit.parts[n]);
            (at.0, self.arena.bytes(at, usize::from(unit.lens[n])))
        };
        let mut all: Vec<_> = self.units_of(key).map(|(_, unit)| [0, 1].map(|n| part(unit, n))).collect();
        all.reverse();
        all
    }
}
