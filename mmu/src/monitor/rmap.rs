//! Reverse maps: from a guest-physical page to the monitor leaf entries that map it, and what is done through them.
//!
//! The lists are threaded through the tables themselves (`table::Link`), so that a fill or a drop allocates nothing.

use super::Monitor;
use super::root::Root;
use super::table::{ADDRESS, MIXED, ROM, SLOW, SPECIAL, Table, TableId, WRITES, entry_of, is_special, node};
use crate::addr::{Linear, PhysPage};
use crate::drain::{Span, Stale};
use crate::events::EventKind;
use crate::phys_map::NONE;
use crate::pte::Mode;
use crate::ram::HostPtr;

/// More single drops than this become one [`Stale::All`].
const MANY: usize = 24;

impl Monitor {
    /// The guest-physical page that a leaf word leads to.
    pub(crate) fn page_of(&self, word: u64) -> PhysPage {
        if is_special(word) {
            return PhysPage((word & ADDRESS) >> 12);
        }
        self.pool.frame_of(HostPtr::from_bits(word & ADDRESS)).map_or(PhysPage(0), |frame| self.pool.owner(frame))
    }
    /// Makes a leaf entry present and puts it on its page's list. The entry was absent; the page has a slot.
    pub(crate) fn put_leaf(&mut self, id: TableId, index: usize, page: PhysPage, word: u64) {
        let Some(slot) = self.phys.get_mut(page) else { return };
        slot.mappers = self.tables.push(slot.mappers, node(id, index));
        let table = &mut self.tables[id];
        table.set_word(index, word);
        table.live += 1;
        self.counts.fills += 1;
        self.note_filler(id, index);
    }
    /// The leaf entry for an address under a root, if it is present.
    pub(crate) fn leaf_of(&self, root: &Root, linear: Linear) -> Option<(TableId, usize)> {
        let rules = root.key.rules;
        let mut table = root.top;
        for level in (1..=rules.top_level()).rev() {
            let index = rules.index(level, linear.0);
            if self.tables[table].word(index) == 0 {
                return None;
            }
            if level == 1 {
                return Some((table, index));
            }
            table = self.tables[table].child(index);
        }
        None
    }
    /// How many entries are on a page's list.
    pub(crate) fn count_mappers(&self, mut next: u32) -> u32 {
        let mut count = 0;
        while next != NONE {
            next = self.tables.next(next);
            count += 1;
        }
        count
    }
    /// Makes an entry above the leaves present. It was absent.
    pub(crate) fn put_child(&mut self, table: TableId, index: usize, child: TableId) {
        let head = self.tables[child].parents;
        let same = self.tables[child].at == index as u32 && self.is_top(table);
        self.tables[child].at = if head == NONE || same { index as u32 } else { MIXED };
        self.tables[child].parents = self.tables.push(head, node(table, index));
        let address = self.tables[child].address().expose_provenance() as u64;
        let table = &mut self.tables[table];
        table.set_child(index, child);
        table.set_word(index, address | 1);
        table.live += 1;
        self.counts.fills += 1;
    }
    fn is_top(&self, table: TableId) -> bool {
        let role = &self.tables[table].key.role;
        role.level == role.rules.top_level()
    }
    /// The linear pages that an entry stands for, if there is only one way to it.
    fn span(&self, mut table: TableId, index: usize) -> Option<Span> {
        let role = self.tables[table].key.role;
        let shift = |level| role.rules.shift(level) - 12;
        let mut page = (index as u64) << shift(role.level);
        for level in role.level + 1..=role.rules.top_level() {
            let Table { parents, at, .. } = self.tables[table];
            if parents == NONE || at == MIXED {
                return None;
            }
            page |= u64::from(at) << shift(level);
            table = entry_of(parents).0;
        }
        // Addresses are canonical: bit 47 is repeated.
        if role.rules.mode == Mode::FourLevel && page >> 35 & 1 != 0 {
            page |= !0 << 36;
        }
        Some(Span::around(page, shift(role.level)))
    }
    /// Posts the drop of a leaf entry.
    fn post_leaf(&self, table: TableId, index: usize) {
        let span = self.span(table, index).map(Stale::Span);
        self.post(span.unwrap_or(Stale::Page(index as u16 & 511)));
    }
    /// Makes an entry absent and posts what was derived from it. Gives the child that it led to, if it was no leaf.
    pub(crate) fn drop_entry(&mut self, table: TableId, index: usize) -> Option<TableId> {
        let Some(child) = self.clear_entry(table, index)? else {
            self.post_leaf(table, index);
            return None;
        };
        let stale = self.span(table, index).map_or_else(|| self.subtree(child), |span| vec![Stale::Span(span)]);
        self.post_cut(&stale);
        Some(child)
    }
    /// Posts what was derived from tables that were cut off. Their pointers first: whoever has forgotten a translation must
    /// not find it again through one.
    fn post_cut(&self, stale: &[Stale]) {
        self.post(Stale::Tables);
        stale.iter().for_each(|stale| self.post(*stale));
    }
    /// Makes an entry absent without posting. `None`: it was absent; `Some(None)`: a leaf.
    fn clear_entry(&mut self, table: TableId, index: usize) -> Option<Option<TableId>> {
        let word = self.tables[table].word(index);
        if word == 0 {
            return None;
        }
        self.tables[table].set_word(index, 0);
        self.tables[table].live -= 1;
        self.counts.drops += 1;
        if self.tables[table].is_leaf() {
            let page = self.page_of(word);
            if let Some(slot) = self.phys.get_mut(page) {
                slot.mappers = self.tables.remove(slot.mappers, node(table, index));
            }
            return Some(None);
        }
        let child = self.tables[table].child(index);
        let head = self.tables[child].parents;
        self.tables[child].parents = self.tables.remove(head, node(table, index));
        Some(Some(child))
    }
    /// Everything that TLBs may hold through a table that is reached in several ways.
    fn subtree(&self, table: TableId) -> Vec<Stale> {
        let table = &self.tables[table];
        match table.live as usize {
            0 => Vec::new(),
            live if !table.is_leaf() || live > MANY => vec![Stale::All],
            _ => {
                let present = (0..table.entries()).filter(|&index| table.word(index) != 0);
                present.map(|index| Stale::Page(index as u16 & 511)).collect()
            }
        }
    }
    /// Gives a table up: its entries, the entries that lead to it, the roots that begin there, its guest page's tracking.
    pub(crate) fn zap(&mut self, table: TableId) {
        let (start, base) = (self.events.start(), self.tables[table].key.base);
        self.take_down(table);
        self.events.note(start, None, EventKind::Zap, base.0 << 12);
    }
    fn take_down(&mut self, table: TableId) {
        // Where no entry leads to a table, what was derived from it was posted with the last one, or belongs to roots that die.
        let stale = match self.tables[table] {
            Table { parents: NONE, .. } => Vec::new(),
            Table { at: MIXED, .. } => self.subtree(table),
            Table { parents, at, .. } => {
                let span = self.span(entry_of(parents).0, at as usize);
                span.map_or_else(|| self.subtree(table), |span| vec![Stale::Span(span)])
            }
        };
        for index in 0..self.tables[table].entries() {
            if self.tables[table].live == 0 {
                break;
            }
            self.clear_entry(table, index);
        }
        while self.tables[table].parents != NONE {
            let (parent, index) = entry_of(self.tables[table].parents);
            self.clear_entry(parent, index);
        }
        if self.tables[table].roots != 0 {
            self.kill_roots_of(table);
        }
        self.untrack(table);
        self.post_cut(&stale);
        self.counts.tables_dropped += 1;
        self.tables.give_up(table, self.log.head());
    }
    /// Zaps a table that nothing leads to any more, and those below it that become so.
    pub(crate) fn zap_orphan(&mut self, table: TableId) {
        if !self.tables[table].in_use || self.tables[table].parents != NONE || self.tables[table].roots != 0 {
            return;
        }
        let children: Vec<TableId> = if self.tables[table].is_leaf() {
            Vec::new()
        } else {
            let table = &self.tables[table];
            (0..table.entries()).filter(|i| table.word(*i) != 0).map(|i| table.child(i)).collect()
        };
        self.zap(table);
        children.into_iter().for_each(|child| self.zap_orphan(child));
    }
    /// Takes every mapping of a page away. The caller waits before it touches the frame.
    pub(crate) fn unmap_page(&mut self, page: PhysPage) {
        while let Some(first) = self.phys.get(page).map(|slot| slot.mappers).filter(|first| *first != NONE) {
            let (table, index) = entry_of(first);
            self.drop_entry(table, index);
        }
    }
    /// Takes fast writing away from a page; tells whether an entry had it. The caller waits in any case.
    pub(crate) fn write_protect(&mut self, page: PhysPage) -> bool {
        let mut next = self.phys.get(page).map_or(NONE, |slot| slot.mappers);
        let mut taken = 0;
        while next != NONE {
            let (table, index) = entry_of(next);
            next = self.tables.next(next);
            let word = self.tables[table].word(index);
            if word & SPECIAL == 0 && word & WRITES != 0 && word & SLOW == 0 {
                self.tables[table].set_word(index, word | SLOW);
                taken += 1;
                match taken {
                    ..=MANY => self.post_leaf(table, index),
                    _ if taken == MANY + 1 => self.post(Stale::All),
                    _ => {}
                }
            }
        }
        if taken > MANY {
            self.post(Stale::All);
        }
        taken != 0
    }
    /// Gives fast writing back to a RAM page that nobody watches any more. Nothing to drop: TLBs have less, not more.
    pub(crate) fn relax(&mut self, page: PhysPage) {
        let mut next = self.phys.get(page).map_or(NONE, |slot| slot.mappers);
        while next != NONE {
            let (table, index) = entry_of(next);
            next = self.tables.next(next);
            let word = self.tables[table].word(index);
            if word & (SPECIAL | ROM) == 0 {
                self.tables[table].set_word(index, word & !SLOW);
            }
        }
    }
}
