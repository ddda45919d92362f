//! Places in emitted code at which Rust is called, or emitted code left: what Rust has to know there.

use super::CodePtr;
use super::block::Live;
use super::flags::SiteFlags;
use super::ring::Ring;
use crate::cache::Step;
use std::num::NonZeroU32;

/// What emitted code tells Rust when it stops at a place.
#[derive(Clone, Debug)]
pub struct Site {
    /// Index of the instruction in its block.
    pub insn: u8,
    /// Instructions of the block that fuel was taken for though they are not done: all of them, but for the ways out at its end.
    pub charged: u8,
    /// Bytes of the access.
    pub bytes: u8,
    /// The access is to the stack segment: #SS rather than #GP.
    pub stack: bool,
    /// What a store added to RSP, to be taken back if it faults.
    pub sp: i8,
    /// The step ends its block.
    pub ends: bool,
    /// Which units are the host's.
    pub live: Live,
    /// The access's memo.
    pub memo: Option<u8>,
    /// Index in its block of the uop.
    pub uop: u16,
    /// Offset in its block of the instruction.
    pub offset: u16,
    /// Offset of the next one.
    pub next: u16,
    /// The last x87 instruction before: its offset and opcode, to be noted.
    pub x87: Option<(u16, u16)>,
    /// The unit it belongs to.
    pub unit: u32,
    /// Where the flags are.
    pub flags: SiteFlags,
    /// The uop, to be run by the interpreter's handler ([`Sites::step`]).
    pub step: Option<StepNumber>,
}

const _: () = assert!(size_of::<Site>() <= 44);

/// A number of [`Sites::step`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StepNumber(NonZeroU32);

/// A direct jump to another block.
#[derive(Copy, Clone, Debug)]
pub struct Edge {
    /// RIP of the target.
    pub target: u64,
    /// The displacement to patch.
    pub at: LowPtr,
    /// Where it leads while there is no link.
    pub cold: LowPtr,
    /// The site: that of the block's end.
    pub site: u32,
    /// Source and target lie in one linear page.
    pub same_page: bool,
}

/// The lower half of a host address in the arena.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LowPtr(pub u32);

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
    /// Each with the end of its block, and its unit.
    steps: Ring<(u32, [Step; 2])>,
}

impl Sites {
    /// None.
    pub fn clear(&mut self) {
        self.all.clear();
        self.edges.clear();
        self.steps.clear();
    }
    /// Whether there are so many that some have to go, or numbers come to an end.
    pub fn is_full(&self) -> bool {
        self.all.len() > 4_000_000 || self.is_over()
    }
    /// Whether numbers come to an end.
    pub fn is_over(&self) -> bool {
        self.all.next().max(self.edges.next()) > EDGE / 2
    }
    /// Forgets those of units before this one.
    pub fn forget(&mut self, unit: u32) {
        self.all.forget(|site| site.unit >= unit);
        self.edges.forget(|edge| edge.site >= self.all.first());
        self.steps.forget(|step| step.0 >= unit);
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
    /// The jump's displacement is here.
    pub fn set_at(&mut self, edge: u32, at: CodePtr) {
        self.edges.get_mut(edge).into_iter().for_each(|edge| edge.at = at.into());
    }
    /// The jump leads here while there is no link.
    pub fn set_cold(&mut self, edge: u32, cold: CodePtr) {
        self.edges.get_mut(edge).into_iter().for_each(|edge| edge.cold = cold.into());
    }
    /// The step to run at a site, which its block's end follows.
    pub fn step(&self, site: &Site) -> Option<&Step> {
        self.steps.get(site.step?.0.get() - 1)?.1.first()
    }
    /// Adds a step of a unit, and gives its number.
    pub fn push_step(&mut self, unit: u32, steps: [Step; 2]) -> Option<StepNumber> {
        NonZeroU32::new(self.steps.push((unit, steps)) + 1).map(StepNumber)
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
