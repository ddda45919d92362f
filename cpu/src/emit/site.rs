//! Places in emitted code at which Rust is called, or emitted code left: what Rust has to know there.

use super::CodePtr;
use super::block::Live;
use super::flags::SiteFlags;
use super::ring::Ring;
use crate::cache::Step;
use std::num::NonZeroU32;

/// What emitted code tells Rust when it stops at a place. There are as many as memory accesses: it is kept small.
#[derive(Clone, Debug)]
pub struct Site {
    /// Index of the instruction in its block.
    pub insn: u8,
    /// Instructions of the block that fuel was taken for though they are not done: all of them, but for the ways out at its end.
    pub charged: u8,
    /// Bytes of the access.
    pub bytes: u8,
    /// What a store added to RSP, to be taken back if it faults.
    pub sp: i8,
    /// What it is, and which units are the host's.
    pub marks: Marks,
    /// That of [`Site::memo`].
    pub(super) memo_number: u8,
    /// Index in its block of the uop.
    pub uop: u16,
    /// Offset in its block of the instruction.
    pub offset: u16,
    /// Offset of the next one.
    pub next: u16,
    /// The unit it belongs to.
    pub unit: u32,
    /// Where the flags are.
    pub flags: SiteFlags,
    /// What only some have.
    pub extra: Extra,
}

const _: () = assert!(size_of::<Site>() <= 32);

impl Site {
    /// A site of a unit, before an instruction whose flags are there.
    pub fn new(unit: u32, flags: SiteFlags, marks: Marks) -> Site {
        Site {
            insn: 0,
            charged: 0,
            bytes: 0,
            sp: 0,
            marks,
            memo_number: 0,
            uop: 0,
            offset: 0,
            next: 0,
            unit,
            flags,
            extra: Extra::default(),
        }
    }
    /// With this memo, or none.
    #[inline]
    pub fn with_memo(self, memo: Option<u8>) -> Site {
        let mark = if memo.is_some() { Marks::MEMO } else { 0 };
        Site { marks: Marks(self.marks.0 & !Marks::MEMO | mark), memo_number: memo.unwrap_or(0), ..self }
    }
    /// The access's memo.
    pub fn memo(&self) -> Option<u8> {
        (self.marks.0 & Marks::MEMO != 0).then_some(self.memo_number)
    }
    /// Which units are the host's.
    pub fn live(&self) -> Live {
        Live::of(usize::from(self.marks.0 >> Marks::LIVE))
    }
    /// The access is to the stack segment: #SS rather than #GP.
    pub fn stack(&self) -> bool {
        self.marks.0 & Marks::STACK != 0
    }
    /// The step ends its block.
    pub fn ends(&self) -> bool {
        self.marks.0 & Marks::ENDS != 0
    }
}

/// What a site's instruction is, and which units are the host's: bits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Marks(u8);

impl Marks {
    const STACK: u8 = 1;
    const ENDS: u8 = 2;
    const MEMO: u8 = 4;
    /// The first of two bits: [`Live::index`].
    const LIVE: u32 = 3;

    /// Of an access to the stack segment, or not; of a step that ends its block, or not.
    #[inline]
    pub fn new(live: Live, stack: bool, ends: bool) -> Marks {
        let mark = |there, mark| if there { mark } else { 0 };
        Marks((live.index() as u8) << Self::LIVE | mark(stack, Self::STACK) | mark(ends, Self::ENDS))
    }
}

/// The number of what only some sites have, and one more: [`Sites::rare`].
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra(Option<NonZeroU32>);

impl Extra {
    fn number(self) -> Option<u32> {
        self.0.map(|number| number.get() - 1)
    }
}

/// An x87 instruction: its offset in the block, and its opcode.
pub type X87 = (u16, u16);

/// What only some sites have.
#[derive(Debug)]
pub struct Rare {
    unit: u32,
    /// The last x87 instruction before the site, to be noted.
    pub x87: Option<X87>,
    /// The uop, to be run by the interpreter's handler, and the end of its block.
    steps: Option<[Step; 2]>,
}

impl Rare {
    /// The step to run at the site, which its block's end follows.
    pub fn step(&self) -> Option<&Step> {
        self.steps.as_ref()?.first()
    }
}

/// A direct jump to another block.
#[derive(Copy, Clone, Debug)]
pub struct Edge {
    /// RIP of the target, the lower half first: there are too many of these for eight bytes to be aligned.
    target: [u32; 2],
    /// The displacement to patch: its offset in the unit's hot part.
    pub at: u16,
    /// Where it leads while there is no link: the offset in the cold part.
    pub cold: u16,
    /// The site, and in [`SAME_PAGE`] whether source and target lie in one linear page.
    site: u32,
}

const SAME_PAGE: u32 = 1 << 31;
const _: () = assert!(size_of::<Edge>() <= 16);

impl Edge {
    /// To RIP `target`, from the block whose end is `site`; it is not placed yet.
    pub fn new(target: u64, site: u32, same_page: bool) -> Edge {
        let target = [target as u32, (target >> 32) as u32];
        Edge { target, at: 0, cold: 0, site: site | if same_page { SAME_PAGE } else { 0 } }
    }
    /// RIP of the target.
    pub fn target(&self) -> u64 {
        u64::from(self.target[1]) << 32 | u64::from(self.target[0])
    }
    /// The site: that of the block's end.
    pub fn site(&self) -> u32 {
        self.site & !SAME_PAGE
    }
    /// Whether source and target lie in one linear page.
    pub fn same_page(&self) -> bool {
        self.site & SAME_PAGE != 0
    }
}

/// The lower half of a host address in the arena.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LowPtr(pub u32);

impl LowPtr {
    /// So many bytes further on.
    pub fn plus(self, bytes: u16) -> LowPtr {
        LowPtr(self.0.wrapping_add(u32::from(bytes)))
    }
}

impl From<CodePtr> for LowPtr {
    fn from(at: CodePtr) -> LowPtr {
        LowPtr(at.0 as u32)
    }
}

/// A place as emitted code knows it: a number.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A site.
    Site(u32),
    /// The start of a unit: nothing of it is done.
    Start(u32),
    /// A jump at the end of a unit.
    Edge(u32),
}

const START: u32 = 1 << 31;
const EDGE: u32 = 1 << 30;

impl Place {
    /// Its number.
    pub fn number(self) -> u32 {
        match self {
            Place::Site(number) => number,
            Place::Start(unit) => START | unit,
            Place::Edge(edge) => EDGE | edge,
        }
    }
    /// By its number.
    pub fn of(number: u32) -> Place {
        match number {
            START.. => Place::Start(number & !START),
            EDGE.. => Place::Edge(number & !EDGE),
            _ => Place::Site(number),
        }
    }
}

/// All sites, by number: those of the block that is being made are the last ones.
#[derive(Debug, Default)]
pub struct Sites {
    all: Ring<Site>,
    edges: Ring<Edge>,
    rare: Ring<Rare>,
}

impl Sites {
    /// None.
    pub fn clear(&mut self) {
        self.all.clear();
        self.edges.clear();
        self.rare.clear();
    }
    /// The size of all in bytes.
    pub fn bytes(&self) -> usize {
        self.all.bytes() + self.edges.bytes() + self.rare.bytes()
    }
    /// Whether numbers come to an end.
    pub fn is_over(&self) -> bool {
        self.all.next().max(self.edges.next()) > EDGE / 2
    }
    /// Forgets those of units before this one.
    pub fn forget(&mut self, unit: u32) {
        self.all.forget(|site| site.unit >= unit);
        self.edges.forget(|edge| edge.site() >= self.all.first());
        self.rare.forget(|rare| rare.unit >= unit);
    }
    /// A site by number.
    pub fn get(&self, number: u32) -> Option<&Site> {
        self.all.get(number)
    }
    /// Adds one and gives its number.
    #[inline(always)]
    pub fn push(&mut self, site: Site) -> u32 {
        self.all.push(site)
    }
    /// A jump by number.
    pub fn edge(&self, number: u32) -> Option<&Edge> {
        self.edges.get(number)
    }
    /// Adds one and gives its number.
    pub fn push_edge(&mut self, edge: Edge) -> u32 {
        self.edges.push(edge)
    }
    /// The jump's displacement is at this offset of the hot part.
    pub fn set_at(&mut self, edge: u32, at: usize) {
        self.edges.get_mut(edge).into_iter().for_each(|edge| edge.at = at as u16);
    }
    /// The jump leads to this offset of the cold part while there is no link.
    pub fn set_cold(&mut self, edge: u32, cold: usize) {
        self.edges.get_mut(edge).into_iter().for_each(|edge| edge.cold = cold as u16);
    }
    /// What only some sites have.
    pub fn rare(&self, site: &Site) -> Option<&Rare> {
        self.rare.get(site.extra.number()?)
    }
    /// Adds what some sites of a unit have.
    pub fn push_extra(&mut self, unit: u32, x87: Option<X87>, steps: Option<[Step; 2]>) -> Extra {
        Extra(NonZeroU32::new(self.rare.push(Rare { unit, x87, steps }) + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn places_are_numbers() {
        for place in
            [Place::Site(0), Place::Site(123), Place::Start(0), Place::Start(77), Place::Edge(0), Place::Edge(5)]
        {
            assert_eq!(Place::of(place.number()), place);
        }
    }
}
