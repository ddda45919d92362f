//! Monitor tables: arrays of words that stand for guest tables, and the arena that they live in.
//!
//! ```text
//! leaf word    63 special │ 62–12 host frame address, or guest-physical page << 12 when special │ 11 shared │ 10 ROM │ 9 present │ 8 slow
//!              7–0 rights: AC write, AC read, supervisor fetch, write, read, user fetch, write, read
//! other word   address of the next table's words │ 0 present
//! ```
//! A word is read without the mmu lock by every vCPU (`tlb`, emitted code) and written under it. A table that is given
//! up is reused only after each vCPU has seen the drop (I7). Left out: 5-level paging.

use crate::addr::PhysPage;
use crate::drain::{VcpuShare, all_have_seen};
use crate::fault::{Access, View};
use crate::phys_map::NONE;
use crate::pte::{Rules, rule};
use crate::walk::Rights;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Leaf word: writes take the slow path (write-tracked, or ROM).
pub const SLOW: u64 = 1 << 8;
/// Leaf word: the entry is present.
pub const PRESENT: u64 = 1 << 9;
/// Leaf word: the frame holds a ROM image.
pub const ROM: u64 = 1 << 10;
/// Leaf word, with [`SPECIAL`]: the contents are in a shared frame. The address is that of the page's own frame, by which everything
/// else is found; where the contents are `Pool::elsewhere` tells. There are no rights to write. Emitted code leaves it to Rust.
pub const SHARED: u64 = 1 << 11;
/// Leaf word: no host frame behind it (device, open bus, or reads and writes meet different things), unless it is [`SHARED`].
pub const SPECIAL: u64 = 1 << 63;
/// Whether a leaf word has no host frame behind it.
#[inline(always)]
pub(crate) const fn is_special(word: u64) -> bool {
    word & (SPECIAL | SHARED) == SPECIAL
}
/// Leaf word: the address bits.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The right that an access needs in a leaf word.
#[inline(always)]
pub const fn right(view: View, access: Access) -> u64 {
    match (view, access) {
        (View::User, Access::Read) => 1 << 0,
        (View::User, Access::Write) => 1 << 1,
        (View::User, Access::Fetch) => 1 << 2,
        (View::Supervisor, Access::Read) => 1 << 3,
        (View::Supervisor, Access::Write) => 1 << 4,
        (_, Access::Fetch) => 1 << 5,
        (View::SupervisorAc, Access::Read) => 1 << 6,
        (View::SupervisorAc, Access::Write) => 1 << 7,
    }
}

/// All write rights.
pub const WRITES: u64 = 1 << 1 | 1 << 4 | 1 << 7;

/// The rights of a leaf word: what `walk::Rights::permit` says for each view and access, writes only once dirty.
pub(crate) fn leaf_rights(rights: Rights, dirty: bool, rules: Rules) -> u64 {
    let user = rights.has(Rights::U);
    let write = rights.has(Rights::W);
    let execute = rights.has(Rights::X);
    let supervisor_write = dirty && (write || !rules.has(rule::WP));
    let hidden = user && rules.has(rule::SMAP);
    let bits = [
        user,
        user && write && dirty,
        user && execute,
        !hidden,
        supervisor_write && !hidden,
        execute && !(user && rules.has(rule::SMEP)),
        true,
        supervisor_write,
    ];
    bits.iter().enumerate().fold(0, |word, (i, bit)| word | u64::from(*bit) << i)
}

/// What a table stands for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A guest table in a guest page, which is write-tracked.
    Guest,
    /// A part of a large page, or of linear space with paging off: entry i maps base + i.
    Direct,
    /// The four PDPTE registers of a PAE root.
    Registers,
}

/// Under which circumstances a table's words are right.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Role {
    pub(crate) kind: Kind,
    pub(crate) level: u8,
    pub(crate) rules: Rules,
    /// What the levels above allow.
    pub(crate) rights: Rights,
    /// Direct tables: whether the large page's entry is dirty.
    pub(crate) dirty: bool,
}

/// Tables with equal keys are one table, whichever roots reach it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableKey {
    pub(crate) base: PhysPage,
    pub(crate) role: Role,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableId(pub(crate) u32);

/// A present entry, as a member of the list of entries that lead to one page or table.
#[derive(Copy, Clone, Debug)]
struct Link {
    next: u32,
    previous: u32,
}

const UNLINKED: Link = Link { next: NONE, previous: NONE };

/// The entry of a table as one number.
pub(crate) fn node(table: TableId, index: usize) -> u32 {
    table.0 << 10 | index as u32
}

/// The entry behind a node number.
pub(crate) fn entry_of(node: u32) -> (TableId, usize) {
    (TableId(node >> 10), node as usize & 1023)
}

/// [`Table::at`] of a table that is reached in several ways.
pub(crate) const MIXED: u32 = u32::MAX;

/// One monitor table.
#[derive(Debug)]
pub(crate) struct Table {
    words: Box<[AtomicU64]>,
    links: Box<[Link]>,
    /// For tables above the leaves: the table that each word leads to.
    children: Box<[u32]>,
    pub(crate) key: TableKey,
    pub(crate) in_use: bool,
    /// First entry that leads here.
    pub(crate) parents: u32,
    /// The index of the entry that leads here, or of all of them where these lie in top tables; else [`MIXED`].
    pub(crate) at: u32,
    /// Next table that shadows the same guest page.
    pub(crate) next_same: u32,
    /// Present entries.
    pub(crate) live: u32,
    /// How many roots begin here.
    pub(crate) roots: u32,
    /// The fill that last went through.
    pub(crate) stamp: u64,
}

impl Table {
    pub(crate) fn is_leaf(&self) -> bool {
        self.key.role.level == 1
    }
    pub(crate) fn entries(&self) -> usize {
        self.words.len()
    }
    /// The address of the words, for readers without the lock.
    pub(crate) fn address(&self) -> *const AtomicU64 {
        self.words.as_ptr()
    }
    pub(crate) fn word(&self, index: usize) -> u64 {
        self.words[index].load(Ordering::Acquire)
    }
    pub(crate) fn set_word(&self, index: usize, word: u64) {
        self.words[index].store(word, Ordering::SeqCst);
    }
    pub(crate) fn child(&self, index: usize) -> TableId {
        TableId(self.children[index])
    }
    pub(crate) fn set_child(&mut self, index: usize, child: TableId) {
        self.children[index] = child.0;
    }
}

/// All tables of one guest.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    all: Vec<Table>,
    by_key: FxHashMap<TableKey, TableId>,
    free: [Vec<TableId>; 6],
    limbo: VecDeque<(u64, TableId)>,
    pub(crate) in_use: usize,
    hand: usize,
}

/// Free lists by number of entries and whether there are children.
fn class(entries: usize, leaf: bool) -> usize {
    let size = match entries {
        4 => 0,
        512 => 1,
        _ => 2,
    };
    size * 2 + usize::from(leaf)
}

impl std::ops::Index<TableId> for Tables {
    type Output = Table;
    fn index(&self, id: TableId) -> &Table {
        &self.all[id.0 as usize]
    }
}

impl std::ops::IndexMut<TableId> for Tables {
    fn index_mut(&mut self, id: TableId) -> &mut Table {
        &mut self.all[id.0 as usize]
    }
}

impl Tables {
    pub(crate) fn find(&self, key: &TableKey) -> Option<TableId> {
        self.by_key.get(key).copied()
    }
    /// An empty table, reusing one that nobody can still see. `Registers` tables are not found by key.
    pub(crate) fn make(&mut self, key: TableKey, vcpus: &[Arc<VcpuShare>]) -> TableId {
        while let Some((posted, id)) = self.limbo.front().copied() {
            if !all_have_seen(vcpus, posted) {
                break;
            }
            self.limbo.pop_front();
            let table = &self[id];
            self.free[class(table.entries(), table.is_leaf())].push(id);
        }
        let entries = key.role.rules.entries(key.role.level);
        let leaf = key.role.level == 1;
        let id = self.free[class(entries, leaf)].pop().unwrap_or_else(|| {
            self.all.push(Table {
                words: (0..entries).map(|_| AtomicU64::new(0)).collect(),
                links: vec![UNLINKED; entries].into(),
                children: vec![NONE; if leaf { 0 } else { entries }].into(),
                key,
                in_use: false,
                parents: NONE,
                at: MIXED,
                next_same: NONE,
                live: 0,
                roots: 0,
                stamp: 0,
            });
            TableId(self.all.len() as u32 - 1)
        });
        let table = &mut self[id];
        debug_assert!(!table.in_use && table.live == 0);
        (table.key, table.in_use, table.parents, table.next_same, table.roots) = (key, true, NONE, NONE, 0);
        self.in_use += 1;
        if key.role.kind != Kind::Registers {
            self.by_key.insert(key, id);
        }
        id
    }
    /// Gives an empty table up. It is reused when drop number `posted` has been seen by all.
    pub(crate) fn give_up(&mut self, id: TableId, posted: u64) {
        let key = self[id].key;
        if key.role.kind != Kind::Registers {
            self.by_key.remove(&key);
        }
        self[id].in_use = false;
        self.in_use -= 1;
        self.limbo.push_back((posted, id));
    }
    /// Puts an entry at the head of a list; gives the new head.
    pub(crate) fn push(&mut self, head: u32, node: u32) -> u32 {
        *self.link(node) = Link { next: head, previous: NONE };
        if head != NONE {
            self.link(head).previous = node;
        }
        node
    }
    /// Takes an entry out of the list that begins at `head`; gives the new head.
    pub(crate) fn remove(&mut self, head: u32, node: u32) -> u32 {
        let Link { next, previous } = std::mem::replace(self.link(node), UNLINKED);
        if next != NONE {
            self.link(next).previous = previous;
        }
        if previous == NONE {
            return next;
        }
        self.link(previous).next = next;
        head
    }
    /// The entry after `node` in its list.
    pub(crate) fn next(&self, node: u32) -> u32 {
        let (table, index) = entry_of(node);
        self[table].links[index].next
    }
    fn link(&mut self, node: u32) -> &mut Link {
        let (table, index) = entry_of(node);
        &mut self[table].links[index]
    }
    /// All tables in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TableId, &Table)> {
        self.all.iter().enumerate().filter(|(_, t)| t.in_use).map(|(i, t)| (TableId(i as u32), t))
    }
    /// A table that was not used for long and is no root's: parentless ones first.
    pub(crate) fn victim(&mut self) -> Option<TableId> {
        let mut best: Option<(bool, u64, usize)> = None;
        for _ in 0..self.all.len().min(64) {
            self.hand = (self.hand + 1) % self.all.len();
            let table = &self.all[self.hand];
            if !table.in_use || table.roots != 0 {
                continue;
            }
            let candidate = (table.parents != NONE, table.stamp, self.hand);
            if best.is_none_or(|b| candidate < b) {
                best = Some(candidate);
            }
        }
        best.map(|(_, _, index)| TableId(index as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pte::Mode;

    #[test]
    fn rights_agree_with_the_walk() {
        for bits in 0..64 {
            let rules = Rules { mode: Mode::FourLevel, bits, maxphyaddr: 40 };
            for rights in (0..8).map(Rights) {
                let word = leaf_rights(rights, true, rules);
                for view in [View::User, View::Supervisor, View::SupervisorAc] {
                    for access in [Access::Read, Access::Write, Access::Fetch] {
                        let permitted = rights.permit(rules, access, view);
                        assert_eq!(
                            word & right(view, access) != 0,
                            permitted,
                            "{rules:?} {rights:?} {view:?} {access:?}"
                        );
                    }
                }
                assert_eq!(leaf_rights(rights, false, rules), word & !WRITES);
            }
        }
    }
}
