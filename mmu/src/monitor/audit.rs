//! The audit: every present monitor entry equals what the guest's tables say now (S6, I1, I2, I3, I10).
//!
//! `umbra inspect audit` runs it on a live machine, the property tests after every step.

use super::Monitor;
use super::table::{ADDRESS, Kind, Role, SHARED, SLOW, SPECIAL, TableId, TableKey, WRITES, entry_of};
use crate::addr::{GuestPhys, PhysPage};
use crate::frames::WATCH_TABLE;
use crate::phys_map::{NONE, Target};
use crate::pte;
use crate::ram::HostPtr;
use crate::walk::GuestRoot;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Monitor tables in use.
    pub tables: u64,
    /// Present entries, all compared.
    pub entries: u64,
    /// Everything that is not as it must be; empty is right.
    pub wrong: Vec<String>,
}

impl AuditReport {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.wrong.is_empty()
    }
    pub(crate) fn complain(&mut self, what: String) {
        if self.wrong.len() < 100 {
            self.wrong.push(what);
        }
    }
}

impl Monitor {
    /// Compares every present entry with a recomputation from the guest's tables, and the lists with the entries.
    pub(crate) fn audit(&self) -> AuditReport {
        let mut report = AuditReport::default();
        for (id, table) in self.tables.iter() {
            report.tables += 1;
            let live = (0..table.entries()).filter(|index| table.word(*index) != 0).count() as u64;
            report.entries += live;
            if live != u64::from(table.live) {
                report.complain(format!("{id:?} has {live} entries but counts {}", table.live));
            }
            for index in (0..table.entries()).filter(|index| table.word(*index) != 0) {
                self.audit_entry(id, index, &mut report);
            }
            if table.key.role.kind == Kind::Guest && !self.on_list(id, table.key.base) {
                report.complain(format!("{id:?} is not on the list of its guest page {:?}", table.key.base));
            }
            if table.key.role.kind == Kind::Guest
                && matches!(self.phys.write_target(table.key.base), Target::Ram(_))
                && !self.is_watched(table.key.base)
            {
                report.complain(format!("{id:?}: its guest page {:?} is not watched", table.key.base));
            }
        }
        if self.counts.fills - self.counts.drops != report.entries {
            let (fills, drops) = (self.counts.fills, self.counts.drops);
            report.complain(format!("{fills} fills − {drops} drops, but {} entries live", report.entries));
        }
        self.audit_shared(&mut report);
        let mut mapped = 0;
        for (page, slot) in self.phys.pages() {
            let mut next = slot.mappers;
            while next != NONE {
                let (table, index) = entry_of(next);
                let word = self.tables[table].word(index);
                if word == 0 || !self.tables[table].in_use || self.page_of(word) != page {
                    report.complain(format!("{page:?} lists {table:?}[{index}], which does not map it"));
                    break;
                }
                mapped += 1;
                next = self.tables.next(next);
            }
        }
        let leaves: u64 = self.tables.iter().filter(|(_, t)| t.is_leaf()).map(|(_, t)| u64::from(t.live)).sum();
        if mapped != leaves {
            report.complain(format!("{leaves} leaf entries, {mapped} on the lists of their pages"));
        }
        report
    }
    fn audit_entry(&self, id: TableId, index: usize, report: &mut AuditReport) {
        let table = &self.tables[id];
        let (word, key) = (table.word(index), table.key);
        let Some(expected) = self.recompute(id, index) else {
            report.complain(format!("{id:?}[{index}] = {word:#x}, but the guest's entry allows nothing ({key:?})"));
            return;
        };
        let right = match expected {
            Expected::Leaf(expected) => word == expected,
            Expected::Child(expected) => {
                let child = table.child(index);
                self.tables[child].in_use && self.tables[child].key == expected
            }
        };
        if !right {
            report.complain(format!("{id:?}[{index}] = {word:#x}, the guest says {expected:x?} ({key:?})"));
        }
        if table.is_leaf() && word & SHARED != 0 {
            let frame = self.pool.frame_of(HostPtr::from_bits(word & ADDRESS));
            if word & WRITES != 0 || frame.is_none_or(|frame| !self.is_shared(frame)) {
                report.complain(format!("{id:?}[{index}] = {word:#x} says that {frame:?} is shared"));
            }
        }
        if table.is_leaf() && word & SPECIAL == 0 {
            let frame = self.pool.frame_of(HostPtr::from_bits(word & ADDRESS));
            if frame.is_none_or(|frame| !self.is_in(frame)) {
                report.complain(format!("{id:?}[{index}] leads to {frame:?}, which is out (I2)"));
            }
        }
        if table.is_leaf() && word & (SPECIAL | SLOW) == 0 && word & WRITES != 0 {
            let page = self.page_of(word);
            if let Target::Ram(frame) = self.phys.write_target(page)
                && self.pool.watch(frame).load(Ordering::SeqCst) & WATCH_TABLE != 0
            {
                report.complain(format!("{id:?}[{index}] writes the watched {page:?} unseen (I3)"));
            }
        }
    }
    fn on_list(&self, id: TableId, page: PhysPage) -> bool {
        let Some(slot) = self.phys.get(page) else { return true };
        let mut next = slot.tables;
        while next != NONE {
            if next == id.0 {
                return true;
            }
            next = self.tables[TableId(next)].next_same;
        }
        false
    }
    /// What an entry must be if it is present; `None` if it must be absent.
    fn recompute(&self, id: TableId, index: usize) -> Option<Expected> {
        let TableKey { base, role } = self.tables[id].key;
        let Role { kind, level, rules, rights, dirty } = role;
        let span = 1u64 << (rules.shift(level) - 12);
        let entry = match kind {
            Kind::Direct => {
                let at = rules.gate((base.0 + index as u64 * span) << 12) >> 12;
                if level == 1 {
                    return Some(Expected::Leaf(self.leaf_word(rights, dirty, rules, PhysPage(at))));
                }
                return Some(Expected::Child(TableKey { base: PhysPage(at), role: Role { level: level - 1, ..role } }));
            }
            Kind::Registers => {
                let root = self.roots.values().find(|root| root.top == id)?;
                let GuestRoot::Pdptes(registers) = root.key.root else { return None };
                let value = registers.get(index).copied().filter(|value| value & pte::P != 0)?;
                let role = Role { kind: Kind::Guest, level: 2, ..role };
                return Some(Expected::Child(TableKey { base: GuestPhys(rules.target(3, value)).page(), role }));
            }
            Kind::Guest => {
                let bytes = rules.entry_bytes();
                self.table_entry(GuestPhys((base.0 << 12) + index as u64 * bytes), bytes)
            }
        };
        if entry & (pte::P | pte::A) != pte::P | pte::A || entry & rules.reserved(level, entry) != 0 {
            return None;
        }
        let rights = rights.through(entry);
        let entry_dirty = entry & pte::D != 0;
        let target = GuestPhys(rules.target(level, entry)).page();
        if level == 1 {
            return Some(Expected::Leaf(self.leaf_word(rights, entry_dirty, rules, target)));
        }
        let role = if rules.is_large(level, entry) {
            Role { kind: Kind::Direct, level: level - 1, rules, rights, dirty: entry_dirty }
        } else {
            Role { kind: Kind::Guest, level: level - 1, rules, rights, dirty: true }
        };
        Some(Expected::Child(TableKey { base: target, role }))
    }
}

#[derive(Debug)]
enum Expected {
    Leaf(u64),
    Child(TableKey),
}
