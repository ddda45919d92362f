//! What goes behind a block's straight code: the ways out of it, and those that come back, in the order in which they were come
//! upon. Some of them come upon others.
//!
//! NOTE(why not a closure for each): an allocation took as long as the code. The frequent kinds are values, in memory that is kept
//! from one block to the next.

use super::CodePtr;
use super::address::ColdAccess;
use super::asm::Label;
use super::block::{Emitter, Site};
use super::gate::Status;
use super::registers::S1;
use std::collections::VecDeque;

/// One of them.
#[derive(Copy, Clone, Debug)]
pub enum Way {
    /// The ways on of an access that is no hit, by its number in [`Behind::accesses`].
    Access(u32),
    /// Where the jump at a site leads that is not linked.
    Unlinked { from: Label, site: u32 },
    /// `short` of fuel: more of it, then `on`, or out.
    Refuel { short: Label, on: Label, site: u32 },
    /// The site's handler does its uop instead of the code that `done` follows.
    Handler { slow: Label, site: u32, done: Label },
    /// Out.
    Exit { from: Label, status: Status, site: u32 },
    /// The next one of [`Behind::others`].
    Other,
}

type Other = Box<dyn FnOnce(&mut Emitter<'_>) + Send>;

/// All that are to be made.
#[derive(Default)]
pub struct Behind {
    ways: Vec<Way>,
    accesses: Vec<ColdAccess>,
    others: VecDeque<Other>,
}

impl Behind {
    /// None.
    pub fn clear(&mut self) {
        self.ways.clear();
        self.accesses.clear();
        self.others.clear();
    }
}

impl Emitter<'_> {
    /// Defers code to the end of the block.
    pub(super) fn later(&mut self, make: impl FnOnce(&mut Emitter<'_>) + Send + 'static) {
        self.behind.others.push_back(Box::new(make));
        self.way_out(Way::Other);
    }

    /// Defers the ways on of an access.
    #[inline(always)]
    pub(super) fn access_later(&mut self, access: ColdAccess) {
        self.behind.accesses.push(access);
        self.way_out(Way::Access(self.behind.accesses.len() as u32 - 1));
    }

    /// Defers one that is a value.
    #[inline(always)]
    pub(super) fn way_out(&mut self, way: Way) {
        self.behind.ways.push(way);
    }

    /// Behind the block: where `slow` is jumped to, a site's handler does its uop, and the way goes on from `done`.
    pub(super) fn handler_behind(&mut self, site: Site, slow: Label, done: Label) {
        let site = self.add_site(site);
        self.way_out(Way::Handler { slow, site, done });
    }

    /// A label whose cold code leaves emitted code at a site.
    pub(super) fn exit_label(&mut self, status: Status, site: u32) -> Label {
        let from = self.asm.label();
        self.way_out(Way::Exit { from, status, site });
        from
    }

    /// Makes them all.
    pub(super) fn ways_out(&mut self) {
        self.asm.go_cold();
        let mut next = 0;
        while let Some(&way) = self.behind.ways.get(next) {
            next += 1;
            match way {
                Way::Access(number) => {
                    let access = self.behind.accesses[number as usize];
                    self.slow_access(&access);
                }
                Way::Unlinked { from, site } => {
                    self.asm.bind(from);
                    self.sites.set_cold(site, CodePtr(self.asm.here()));
                    self.asm.mov_imm(S1, u64::from(site));
                    self.asm.jmp_to(self.context.gates.chain[self.live_at(site).index()].0);
                }
                Way::Refuel { short, on, site } => {
                    self.asm.bind(short);
                    self.asm.mov_imm(S1, u64::from(site));
                    self.asm.call(self.context.gates.refuel_or_stop[self.live_at(site).index()].0);
                    self.asm.jmp(on);
                }
                Way::Handler { slow, site, done } => {
                    self.asm.bind(slow);
                    self.asm.mov_imm(S1, u64::from(site));
                    self.asm.call(self.context.gates.step[self.live_at(site).index()].0);
                    self.asm.jmp(done);
                }
                Way::Exit { from, status, site } => {
                    self.asm.bind(from);
                    self.exit(status, site);
                }
                Way::Other => {
                    if let Some(make) = self.behind.others.pop_front() {
                        make(self);
                    }
                }
            }
        }
    }
}
