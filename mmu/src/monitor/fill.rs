//! Filling: from a guest walk to monitor entries (S6), with the guest's A and D bits; and from one root to another.
//!
//! Order matters: a guest table is watched before the read that counts (SHADOW-MMU, several vCPUs, (b)); A bits are set on every level
//! only when the whole walk succeeds, D only for a write; then the path of monitor tables is linked, top down.

use super::Monitor;
use super::evict::Held;
use super::root::Root;
use super::table::{
    Kind, PRESENT, ROM, Role, SHARED, SLOW, SPECIAL, TableId, TableKey, WRITES, is_special, leaf_rights,
};
use crate::addr::{GuestPhys, Linear, PhysPage};
use crate::counters::FaultClass;
use crate::fault::{Access, PageFault, View};
use crate::phys_map::Target;
use crate::pte::{self, Mode, Rules};
use crate::walk::{FillScope, GuestRoot, Refusal, Rights, Step, Walk, walk, walk_or_refusal};
use std::sync::atomic::Ordering;

/// Entries filled at once in a direct table: about 15 ns each here, against a slow path of some 100 ns each later.
const AROUND: usize = 16;

/// What a fill found.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Filled {
    /// The leaf word; 0 when the translation cannot be kept (tables outside RAM, nothing at the page).
    pub(crate) word: u64,
    pub(crate) page: PhysPage,
    pub(crate) class: FaultClass,
}

impl Monitor {
    /// Translates for an access that the monitor could not serve, and makes it able to.
    pub(crate) fn fill(
        &mut self,
        root: &Root,
        linear: Linear,
        access: Access,
        view: View,
    ) -> Result<Filled, PageFault> {
        self.clock += 1;
        self.make_room();
        let lost = PageFault::lost(linear);
        let mut brought = None;
        loop {
            let found = self.walk_guest((root.key.rules, root.key.root), linear, access, view);
            let found = found.map_err(|fault| if self.has_failed() { lost } else { fault })?;
            let mut kept = true;
            let mut fresh = false;
            for step in found.steps() {
                let page = step.at.page();
                let Target::Ram(frame) = self.phys.write_target(page) else {
                    kept = false;
                    continue;
                };
                fresh |= self.hold_own(frame).map_err(|_| lost)? != Held::There;
                if !self.is_watched(page) {
                    self.watch_table(page);
                    fresh = true;
                }
            }
            let page = found.phys.page();
            if let Target::Ram(frame) = self.phys.read_target(page) {
                let written = access == Access::Write && self.phys.write_target(page) == Target::Ram(frame);
                let held = if written { self.hold_own(frame) } else { self.hold(frame) }.map_err(|_| lost)?;
                fresh |= held != Held::There;
                brought = match held {
                    Held::Fetched => Some((page, FaultClass::FrameOut)),
                    Held::Parted => Some((page, FaultClass::CopyOnWrite)),
                    Held::There | Held::Touched => brought,
                };
            }
            // Whatever came in may have pushed out what the walk went through, and whoever was waited for may have written it.
            if fresh {
                continue;
            }
            let Some((found, class)) = self.mark(root.key.rules, found, access) else { continue };
            if !kept || self.phys.get(page).is_none() {
                return Ok(Filled { word: 0, page, class: FaultClass::Mmio });
            }
            let word = self.link(root, linear, &found);
            let class = match brought {
                _ if is_special(word) => FaultClass::Mmio,
                Some((its, why)) if its == page => why,
                _ => class,
            };
            return Ok(Filled { word, page, class });
        }
    }
    /// The guest's own walk.
    pub(crate) fn walk_guest(
        &self,
        (rules, root): (Rules, GuestRoot),
        linear: Linear,
        access: Access,
        view: View,
    ) -> Result<Walk, PageFault> {
        let mut read = |at: GuestPhys, bytes: u64| self.table_entry(at, bytes);
        walk(&FillScope::new(), &mut read, (rules, root), linear, access, view)
    }
    /// The same, and where it ended.
    pub(crate) fn refusal(
        &self,
        (rules, root): (Rules, GuestRoot),
        linear: Linear,
        access: Access,
        view: View,
    ) -> Option<Refusal> {
        let mut read = |at: GuestPhys, bytes: u64| self.table_entry(at, bytes);
        walk_or_refusal(&FillScope::new(), &mut read, (rules, root), linear, access, view).err()
    }
    /// Sets A and D bits in the guest's tables; `None` when an entry changed meanwhile.
    fn mark(&mut self, rules: Rules, mut found: Walk, access: Access) -> Option<(Walk, FaultClass)> {
        let mut class = FaultClass::NotShadowed;
        let last = found.steps().len();
        for number in 0..last {
            let Step { level, at, value } = *found.steps().get(number)?;
            let leaf = number + 1 == last;
            let wanted = value | pte::A | if leaf && access == Access::Write { pte::D } else { 0 };
            if wanted == value {
                continue;
            }
            let (page, offset) = (at.page(), at.page_offset() as usize);
            if let Target::Ram(frame) = self.phys.write_target(page) {
                let unchanged = if rules.entry_bytes() == 4 {
                    self.pool.compare_exchange(frame, offset, value as u32, wanted as u32) == value as u32
                } else {
                    self.pool.compare_exchange(frame, offset, value, wanted) == value
                };
                if !unchanged {
                    return None;
                }
                if (wanted ^ value) & pte::D != 0 {
                    class = FaultClass::DirtyTrack;
                    self.refresh(page, offset);
                }
                self.code_check(frame, page, offset, rules.entry_bytes() as usize);
            }
            found.set_step(number, Step { level, at, value: wanted });
        }
        Some((found, class))
    }
    /// Links the path of monitor tables for a walk and sets its leaf; gives the leaf word.
    fn link(&mut self, root: &Root, linear: Linear, found: &Walk) -> u64 {
        let rules = root.key.rules;
        let mut rights = Rights::ALL;
        let mut dirty = true;
        let mut table = root.top;
        for level in (1..=rules.top_level()).rev() {
            self.tables[table].stamp = self.clock;
            let step = found.steps().iter().find(|step| step.level == level);
            if let Some(step) = step {
                rights = rights.through(step.value);
                if let Some(slot) = self.phys.get_mut(step.at.page()) {
                    slot.flood = 0;
                }
            }
            let index = rules.index(level, linear.0);
            if level == 1 {
                dirty &= step.is_none_or(|step| step.value & pte::D != 0);
                let page = found.phys.page();
                let word = self.leaf_word(rights, dirty, rules, page);
                self.set_leaf(table, index, page, word);
                if self.tables[table].key.role.kind == Kind::Direct {
                    self.fills_beside();
                    self.fill_around(table, index);
                }
                return word;
            }
            // At and below a large page's entry the tables are direct.
            let direct = rules.mode == Mode::Off || level <= found.leaf_level;
            let (kind, base) = if direct {
                if level == found.leaf_level {
                    dirty &= step.is_none_or(|step| step.value & pte::D != 0);
                }
                (Kind::Direct, direct_base(rules, level, linear, found))
            } else {
                let below = found.steps().iter().find(|step| step.level == level - 1);
                (Kind::Guest, below.map_or(PhysPage(0), |step| step.at.page()))
            };
            let role = Role { kind, level: level - 1, rules, rights, dirty };
            table = self.descend(table, index, TableKey { base, role });
        }
        0
    }
    /// Links below a root what its guest table has in common with another's, entry for entry: a system's own part, which each
    /// of its address spaces has. Equal entries under equal rules mean equal tables; their A bits are set already.
    pub(crate) fn share(&mut self, from: &Root, to: &Root) {
        if from.key.rules != to.key.rules || from.key.rules.mode == Mode::Off {
            return;
        }
        for root in [from, to] {
            // Each entry of a page that is out would be a look into the swap file.
            let target = self.phys.read_target(self.tables[root.top].key.base);
            if let (GuestRoot::Table(_), Target::Ram(frame)) = (root.key.root, target)
                && self.hold_own(frame).is_err()
            {
                return;
            }
        }
        let entry = |monitor: &Monitor, root: &Root, index: usize| match root.key.root {
            GuestRoot::Pdptes(registers) => registers.get(index).copied(),
            GuestRoot::Table(_) => {
                let bytes = root.key.rules.entry_bytes();
                let base = monitor.tables[root.top].key.base;
                Some(monitor.table_entry(GuestPhys((base.0 << 12) + index as u64 * bytes), bytes))
            }
        };
        for index in 0..self.tables[to.top].entries() {
            if self.tables[from.top].word(index) != 0
                && self.tables[to.top].word(index) == 0
                && entry(self, from, index) == entry(self, to, index)
            {
                self.put_child(to.top, index, self.tables[from.top].child(index));
            }
        }
    }
    /// The table below an entry, linked if it was not.
    fn descend(&mut self, table: TableId, index: usize, key: TableKey) -> TableId {
        if self.tables[table].word(index) != 0 {
            let child = self.tables[table].child(index);
            if self.tables[child].key == key {
                return child;
            }
            self.drop_entry(table, index);
        }
        let child = self.table(key);
        self.put_child(table, index, child);
        child
    }
    /// Neighbours in a large page have the same guest entry: nothing that the guest can see changes when they are filled too.
    fn fill_around(&mut self, table: TableId, index: usize) {
        let TableKey { base, role } = self.tables[table].key;
        for index in (index & !(AROUND - 1)..index).chain(index + 1..(index | (AROUND - 1)) + 1) {
            if self.tables[table].word(index) != 0 {
                continue;
            }
            let page = PhysPage(role.rules.gate((base.0 + index as u64) << 12) >> 12);
            // A page that nobody asked for is not brought in.
            if matches!(self.phys.read_target(page), Target::Ram(frame) if !self.is_readable(frame)) {
                continue;
            }
            let word = self.leaf_word(role.rights, role.dirty, role.rules, page);
            if !is_special(word) {
                self.put_leaf(table, index, page, word);
            }
        }
    }
    fn set_leaf(&mut self, table: TableId, index: usize, page: PhysPage, word: u64) {
        let old = self.tables[table].word(index);
        if old == word {
            return;
        }
        if old != 0 {
            self.drop_entry(table, index);
        }
        self.put_leaf(table, index, page, word);
    }
    /// The leaf word for a page under given rights.
    pub(crate) fn leaf_word(&self, rights: Rights, dirty: bool, rules: Rules, page: PhysPage) -> u64 {
        let flags = leaf_rights(rights, dirty, rules) | PRESENT;
        match (self.phys.read_target(page), self.phys.write_target(page)) {
            (Target::Ram(frame), Target::Ram(_)) if self.is_shared(frame) => {
                self.pool.pointer(frame).bits() | flags & !WRITES | SPECIAL | SHARED
            }
            (Target::Ram(frame), Target::Ram(_)) => {
                let watched = flags & WRITES != 0
                    && (self.pool.watch(frame).load(Ordering::Relaxed) != 0
                        || self.pool.code(frame).load(Ordering::Relaxed) != 0);
                self.pool.pointer(frame).bits() | flags | if watched { SLOW } else { 0 }
            }
            (Target::Rom(frame), Target::Rom(_) | Target::Device(..)) => {
                self.pool.pointer(frame).bits() | flags | SLOW | ROM
            }
            _ => SPECIAL | page.0 << 12 | flags,
        }
    }
}

/// The first page that the direct table below an entry of `level` maps.
pub(crate) fn direct_base(rules: Rules, level: u8, linear: Linear, found: &Walk) -> PhysPage {
    if rules.mode == Mode::Off {
        return PhysPage(linear.0 >> rules.shift(level) << (rules.shift(level) - 12));
    }
    let large = found.steps().last().map_or(0, |step| rules.target(step.level, step.value));
    // Within a 1 GiB page, the 2 MiB part that the address lies in.
    let within = linear.0 & ((1 << rules.shift(found.leaf_level)) - 1) & (!0 << rules.shift(level));
    PhysPage(rules.gate(large | within) >> 12)
}
