//! Monitor descriptor tables (SHADOW-MMU S8, S9): what a vCPU has decoded of the guest's GDT, LDTs and IDT.
//!
//! An entry stands for the guest's bytes at one linear address, so a table that is loaded again finds what is known of it, and
//! tables never mix. Base and limit are those of the guest's registers, compared at each look-up. An entry is good while
//!
//! * its linear address still leads to the guest-physical page that it was read from (one look into the TLB), and
//! * its bytes are what they were. They are *watched* as translated code is, in grains of 64 bytes: a write by whatever means
//!   posts a note, and until the notes are read (`Vcpu::heed_memory`) no watched entry is used. Where the watch would cost more
//!   than it saves, in a page that is written all the time, an entry *checks itself*: the bytes are compared at each use.
//!
//! Whatever is not in RAM or ROM, lies across two pages, or shall trap (a breakpoint on it) is never kept. Nor is a segment
//! descriptor before its accessed bit is set: its first load writes it. All of this is derived and never saved.

use crate::fault::Fault;
use crate::helpers::descriptor::Descriptor;
use crate::helpers::gate::Gate;
use crate::state::Segment;
use crate::state::segment::rights;
use crate::vcpu::Vcpu;
use umbra_mmu::CodeWrite;
use umbra_mmu::addr::{Linear, PAGE_OFFSET, PAGE_SIZE, PhysPage};
use umbra_mmu::attention::bits;
use umbra_mmu::fault::{Access, View};

/// Entries of GDTs and LDTs.
const SEGMENTS: usize = 256;
/// Entries of IDTs, by vector.
const GATES: usize = 256;
/// Pages of which entries are kept.
const PAGES: usize = 16;
/// Writes to watched bytes of a page after which its entries check themselves.
const FLOOD: u32 = 16;

/// The linear address of no entry: 8 bytes there lie across two pages.
const NOWHERE: u64 = u64::MAX;

/// The place of an entry of a GDT or LDT: neighbours side by side, tables at the same place in other pages elsewhere.
#[inline(always)]
const fn place(linear: u64) -> usize {
    ((linear >> 3) ^ (linear >> 11).wrapping_mul(37)) as usize % SEGMENTS
}

/// Where an entry comes from, and what it was made of.
#[derive(Copy, Clone, Debug)]
struct Origin {
    linear: u64,
    page: PhysPage,
    /// The bytes: 8, or 16 (the second half is 0 for 8).
    raw: [u64; 2],
    len: u8,
    /// A write to the bytes is noted; else they are compared.
    watched: bool,
}

const NO_ORIGIN: Origin = Origin { linear: NOWHERE, page: PhysPage(0), raw: [0; 2], len: 8, watched: false };

/// An entry of a GDT or LDT.
#[derive(Copy, Clone, Debug)]
pub(crate) struct SegmentEntry {
    origin: Origin,
    /// What loading it gives, without the selector.
    pub(crate) segment: Segment,
}

/// An entry of an IDT.
#[derive(Copy, Clone, Debug)]
struct GateEntry {
    origin: Origin,
    gate: Option<Gate>,
}

/// A guest-physical page that entries come from.
#[derive(Copy, Clone, Debug)]
struct KnownPage {
    page: PhysPage,
    /// Watched bytes were written so often.
    writes: u32,
    /// Entries from here check themselves.
    checks: bool,
}

/// How often entries were made, and lost to a write.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct TableCounters {
    /// Entries made of the guest's bytes.
    pub fills: u64,
    /// Entries lost to a write of watched bytes.
    pub drops: u64,
    /// Pages whose entries check themselves, so far.
    pub floods: u64,
}

/// What one vCPU knows of the guest's descriptor tables.
#[derive(Debug)]
pub struct MonitorTables {
    segments: Box<[SegmentEntry]>,
    gates: Box<[GateEntry]>,
    pages: Vec<KnownPage>,
    /// The next known page to be given up.
    hand: usize,
    on: bool,
    flood: u32,
    /// Counters.
    pub counters: TableCounters,
}

impl Default for MonitorTables {
    fn default() -> MonitorTables {
        let segment = SegmentEntry { origin: NO_ORIGIN, segment: Segment::default() };
        let gate = GateEntry { origin: NO_ORIGIN, gate: None };
        MonitorTables {
            segments: vec![segment; SEGMENTS].into(),
            gates: vec![gate; GATES].into(),
            pages: Vec::with_capacity(PAGES),
            hand: 0,
            on: true,
            flood: FLOOD,
            counters: TableCounters::default(),
        }
    }
}

impl MonitorTables {
    /// Keeps nothing from now on: each use reads and decodes the guest's bytes. The guest cannot tell: this is to measure what
    /// the tables are worth, and to find out whether they are at fault.
    pub fn switch_off(&mut self) {
        *self = MonitorTables { on: false, ..MonitorTables::default() };
    }
    /// From now on a page's entries check themselves after so many writes to its watched bytes; `u32::MAX`: never, whatever is
    /// written beside them. For tests.
    pub fn tolerate(&mut self, writes: u32) {
        self.flood = writes;
    }
    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.on
    }
    /// How many entries there are.
    pub fn live(&self) -> usize {
        self.origins().filter(|origin| origin.linear != NOWHERE).count()
    }

    fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.segments.iter().map(|entry| &entry.origin).chain(self.gates.iter().map(|entry| &entry.origin))
    }
    fn segment(&self, linear: u64) -> &SegmentEntry {
        &self.segments[place(linear)]
    }
    /// Forgets the entries of a page whose bytes touch a range; gives how many.
    fn forget(&mut self, page: PhysPage, offset: u64, len: u64) -> u64 {
        let mut count = 0;
        let origins = self.segments.iter_mut().map(|entry| &mut entry.origin);
        for origin in origins.chain(self.gates.iter_mut().map(|entry| &mut entry.origin)) {
            let at = origin.linear & PAGE_OFFSET;
            let hit = origin.page == page && at < offset + len && offset < at + u64::from(origin.len);
            if hit && origin.linear != NOWHERE {
                origin.linear = NOWHERE;
                count += 1;
            }
        }
        count
    }
    /// Watched bytes were written. Gives the page's bytes whose watch shall end: it is written too often.
    #[inline]
    fn written(&mut self, write: &CodeWrite) -> Vec<(u16, u16)> {
        let Some(known) = self.pages.iter_mut().find(|known| known.page == write.page) else { return Vec::new() };
        let checks = known.checks;
        let dropped = self.forget(write.page, write.offset.into(), write.len.into());
        self.counters.drops += dropped;
        if dropped == 0 || checks {
            return Vec::new();
        }
        let Some(known) = self.pages.iter_mut().find(|known| known.page == write.page) else { return Vec::new() };
        known.writes += 1;
        if known.writes < self.flood { Vec::new() } else { self.check(write.page) }
    }
    /// From now on the entries of a page check themselves. Gives what was watched for them.
    fn check(&mut self, page: PhysPage) -> Vec<(u16, u16)> {
        let Some(known) = self.pages.iter_mut().find(|known| known.page == page && !known.checks) else {
            return Vec::new();
        };
        known.checks = true;
        self.counters.floods += 1;
        let ours = self.origins().filter(|origin| origin.page == page && origin.watched && origin.linear != NOWHERE);
        let watched = ours.map(|origin| ((origin.linear & PAGE_OFFSET) as u16, origin.len.into())).collect();
        self.forget(page, 0, PAGE_SIZE);
        watched
    }
    /// Whether entries of a page check themselves. Makes the page a known one.
    fn checks(&mut self, page: PhysPage) -> bool {
        if let Some(known) = self.pages.iter().find(|known| known.page == page) {
            return known.checks;
        }
        let fresh = KnownPage { page, writes: 0, checks: false };
        if self.pages.len() < PAGES {
            self.pages.push(fresh);
        } else {
            let old = std::mem::replace(&mut self.pages[self.hand], fresh);
            self.hand = (self.hand + 1) % PAGES;
            // What is watched there stays so until it is written: the note finds nobody.
            self.forget(old.page, 0, PAGE_SIZE);
        }
        false
    }
}

impl Vcpu {
    /// Whether an entry of this origin may be used.
    #[inline(always)]
    fn is_good(&self, origin: &Origin, linear: u64) -> bool {
        if origin.linear != linear {
            return false;
        }
        let mmu = &self.link.mmu;
        if origin.watched {
            // The page of 16 bytes that do not run over its end is that of the first.
            return mmu.descriptor_page(linear, 8) == Some(origin.page) && self.link.attention.get() & bits::CODE == 0;
        }
        mmu.descriptor_word(linear) == Some(origin.raw[0])
            && (origin.len == 8 || mmu.descriptor_word(linear.wrapping_add(8)) == Some(origin.raw[1]))
    }

    /// The descriptor at a linear address within the GDT or LDT: its monitor entry, or the guest's bytes.
    #[inline]
    pub(crate) fn table_quad(&mut self, linear: u64) -> Result<u64, Fault> {
        let entry = self.tables.segment(linear);
        if self.is_good(&entry.origin, linear) {
            return Ok(entry.origin.raw[0]);
        }
        self.read_table_quad(linear)
    }

    #[cold]
    fn read_table_quad(&mut self, linear: u64) -> Result<u64, Fault> {
        let raw = self.load_system(linear)?;
        let descriptor = Descriptor(raw);
        let settled = !descriptor.is_segment() || descriptor.rights() & rights::ACCESSED != 0;
        if settled && let Some(origin) = self.origin(linear, [raw, 0], 8) {
            self.tables.counters.fills += 1;
            let segment = Descriptor(origin.raw[0]).segment(0);
            self.tables.segments[place(linear)] = SegmentEntry { origin, segment };
        }
        Ok(raw)
    }

    /// The monitor's entry for the descriptor of a selector that is not null, if there is one and it is good.
    #[inline]
    pub(crate) fn known_segment(&self, selector: u16) -> Option<&SegmentEntry> {
        let linear = self.descriptor_address(selector, 8).ok()??;
        let entry = self.tables.segment(linear);
        self.is_good(&entry.origin, linear).then_some(entry)
    }

    /// What the IDT entry of a vector means, `len` (8 or 16) bytes at a linear address within the IDT.
    #[inline]
    pub fn event_gate(&mut self, vector: u8, linear: u64, len: u64) -> Result<Option<Gate>, Fault> {
        match self.known_gate(vector, linear, len) {
            Some(gate) => Ok(gate),
            None => self.read_event_gate(vector, linear, len),
        }
    }

    /// The same, if the monitor has a good entry.
    #[inline]
    pub(crate) fn known_gate(&self, vector: u8, linear: u64, len: u64) -> Option<Option<Gate>> {
        let entry = &self.tables.gates[usize::from(vector)];
        (u64::from(entry.origin.len) == len && self.is_good(&entry.origin, linear)).then_some(entry.gate)
    }

    #[cold]
    fn read_event_gate(&mut self, vector: u8, linear: u64, len: u64) -> Result<Option<Gate>, Fault> {
        let low = self.load_system(linear)?;
        let high = if len == 16 { self.load_system(linear.wrapping_add(8))? } else { 0 };
        if let Some(origin) = self.origin(linear, [low, high], len as u8) {
            self.tables.counters.fills += 1;
            let gate = Gate::of_event(origin.raw, len == 16);
            self.tables.gates[usize::from(vector)] = GateEntry { origin, gate };
        }
        Ok(Gate::of_event([low, high], len == 16))
    }

    /// The origin of an entry made of bytes that were just read, if it may be kept. A watch begins before what it watches is
    /// read: the bytes are read again.
    fn origin(&mut self, linear: u64, raw: [u64; 2], len: u8) -> Option<Origin> {
        let bytes = u64::from(len);
        if !self.tables.on {
            return None;
        }
        let page = self.link.mmu.descriptor_page(linear, bytes)?;
        self.link.mmu.watch_writes(page);
        let watched = !self.tables.checks(page);
        let mut origin = Origin { linear, page, raw, len, watched };
        if watched {
            self.link.mmu.track_code(page, (linear & PAGE_OFFSET) as u16, len.into());
            // Beginning to watch may have taken the page out of the TLB. What is met here was met before, or belongs to the next
            // use.
            let _ = self.link.mmu.resolve(Linear(linear), Access::Read, View::Supervisor);
            if self.link.mmu.descriptor_page(linear, bytes) != Some(page) {
                return None;
            }
            for (n, word) in origin.raw.iter_mut().take(usize::from(len / 8)).enumerate() {
                *word = self.link.mmu.descriptor_word(linear.wrapping_add(8 * n as u64))?;
            }
        }
        Some(origin)
    }

    /// Watched bytes were written: drops what was made of them, and ends the watch of a page that is written too often.
    pub(crate) fn heed_descriptors(&mut self, write: &CodeWrite) {
        let watched = self.tables.written(write);
        self.end_watches(write.page, &watched);
    }

    /// A page that is written all the time beside watched bytes: its entries check themselves from now on.
    pub(crate) fn heed_crowding(&mut self) {
        if let Some(page) = self.link.mmu.take_crowded()
            && self.tables.flood != u32::MAX
        {
            let watched = self.tables.check(page);
            self.end_watches(page, &watched);
        }
    }

    fn end_watches(&mut self, page: PhysPage, watched: &[(u16, u16)]) {
        for &(offset, len) in watched {
            self.link.mmu.release(page, offset, len);
        }
    }
}
