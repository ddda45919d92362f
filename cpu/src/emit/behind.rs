//! What goes behind a block's straight code: the ways out of it, and those that come back. Each is made as soon as it is come
//! upon, but for those that others come upon.

use super::asm::Label;
use super::block::Emitter;
use super::gate::Status;
use super::registers::S1;
use super::site::{Place, Site};
use std::collections::VecDeque;

/// What is made once the block is at its end.
pub type Nested = VecDeque<Box<dyn FnOnce(&mut Emitter<'_>) + Send>>;

impl Emitter<'_> {
    /// Makes code behind the block. It begins with a label that is jumped to, and does not run into what follows it.
    #[inline(always)]
    pub(super) fn behind(&mut self, make: impl FnOnce(&mut Emitter<'_>) + Send + 'static) {
        if self.asm.is_cold() {
            return self.nested.push_back(Box::new(make));
        }
        let kept = self.asm.go_cold();
        make(self);
        self.asm.go_hot(kept);
    }

    /// Makes what other code behind the block has come upon.
    pub(super) fn make_nested(&mut self) {
        while let Some(make) = self.nested.pop_front() {
            let kept = self.asm.go_cold();
            make(self);
            self.asm.go_hot(kept);
        }
    }

    /// Behind the block: where a jump leads that is not linked.
    pub(super) fn unlinked_behind(&mut self, from: Label, edge: u32) {
        let live = self.live.index();
        self.behind(move |e| {
            e.asm.bind(from);
            e.sites.set_cold(edge, e.asm.len());
            e.asm.mov_imm32(S1, Place::Edge(edge).number());
            e.asm.jmp_to(e.context.gates.chain[live].0);
        });
    }

    /// Behind the block: where `slow` is jumped to, a site's handler does its uop, and the way goes on from `done`.
    pub(super) fn handler_behind(&mut self, site: Site, slow: Label, done: Label) {
        let (live, site) = (site.live().index(), self.add_site(site));
        self.behind(move |e| {
            e.asm.bind(slow);
            e.asm.mov_imm32(S1, site);
            e.asm.call(e.context.gates.step[live].0);
            e.asm.jmp(done);
        });
    }

    /// A label behind the block, from which emitted code is left at a place.
    pub(super) fn exit_label(&mut self, status: Status, place: u32) -> Label {
        let (from, live) = (self.asm.label(), self.live);
        self.behind(move |e| {
            e.asm.bind(from);
            e.exit(status, place, live);
        });
        from
    }
}
