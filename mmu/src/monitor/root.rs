//! Monitor roots: one per (paging rules, guest root), bounded, found again at each CR3 load (S5).

use super::Monitor;
use super::table::{Kind, Role, TableId, TableKey};
use crate::addr::{GuestPhys, PhysPage};
use crate::drain::Stale;
use crate::pte::{Mode, Rules};
use crate::walk::{GuestRoot, Rights};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a root is found by. PCID, PGE and the guest's CR3 flags are not in it: tables are coherent.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RootKey {
    pub(crate) rules: Rules,
    pub(crate) root: GuestRoot,
}

/// A root that vCPUs may hold.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) key: RootKey,
    pub(crate) top: TableId,
    words: AtomicU64,
    alive: AtomicBool,
    used: AtomicBool,
}

/// At most this many roots.
const ROOTS: usize = 256;

impl Root {
    /// Whether the top table still is this root's.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }
    /// The top table's words.
    pub(crate) fn words(&self) -> *const AtomicU64 {
        std::ptr::with_exposed_provenance(self.words.load(Ordering::Relaxed) as usize)
    }
    /// Keeps the root from being the next to go.
    pub(crate) fn touch(&self) {
        self.used.store(true, Ordering::Relaxed);
    }
}

impl Monitor {
    /// The root for a key, made if there is none.
    pub(crate) fn root(&mut self, key: RootKey) -> Arc<Root> {
        if let Some(root) = self.roots.get(&key) {
            return Arc::clone(root);
        }
        if self.roots.len() >= ROOTS {
            self.evict_root();
        }
        let (kind, base) = match (key.rules.mode, key.root) {
            (Mode::Off, _) => (Kind::Direct, GuestPhys(0)),
            (_, GuestRoot::Pdptes(_)) => (Kind::Registers, GuestPhys(0)),
            (_, GuestRoot::Table(at)) => (Kind::Guest, GuestPhys(key.rules.gate(at.0))),
        };
        let level = key.rules.top_level();
        let role = Role { kind, level, rules: key.rules, rights: Rights::ALL, dirty: true };
        self.clock += 1;
        self.make_room();
        let top = self.table(TableKey { base: base.page(), role });
        self.tables[top].roots += 1;
        let words = AtomicU64::new(self.tables[top].address().expose_provenance() as u64);
        let root = Arc::new(Root { key, top, words, alive: AtomicBool::new(true), used: AtomicBool::new(true) });
        self.roots.insert(key, Arc::clone(&root));
        self.root_order.push_back(Arc::clone(&root));
        self.counts.roots = self.roots.len() as u64;
        root
    }
    /// Gives one root up that was not used lately (second chance).
    fn evict_root(&mut self) {
        for _ in 0..2 * ROOTS {
            let Some(root) = self.root_order.pop_front() else { return };
            if !root.is_alive() {
                continue;
            }
            let in_use = self.vcpus.iter().any(|vcpu| vcpu.active_root() == root_number(&root));
            if in_use || root.used.swap(false, Ordering::Relaxed) {
                self.root_order.push_back(root);
                continue;
            }
            self.kill(&root);
            if self.tables[root.top].key.role.kind == Kind::Registers {
                self.zap_orphan(root.top);
            }
            return;
        }
    }
    fn kill(&mut self, root: &Arc<Root>) {
        root.alive.store(false, Ordering::SeqCst);
        self.roots.remove(&root.key);
        self.tables[root.top].roots -= 1;
        self.counts.roots = self.roots.len() as u64;
        self.post(Stale::Tables);
    }
    /// The roots that begin at a table are no more.
    pub(crate) fn kill_roots_of(&mut self, table: TableId) {
        let doomed: Vec<_> = self.roots.values().filter(|root| root.top == table).cloned().collect();
        doomed.iter().for_each(|root| self.kill(root));
        self.root_order.retain(|root| root.is_alive());
    }
    /// Keeps the number of tables bounded. Never in the middle of a fill: a page must not stop being watched between
    /// the walk that read it and the entries made from it.
    pub(crate) fn make_room(&mut self) {
        while self.tables.in_use + 4 >= self.table_limit {
            let Some(victim) = self.tables.victim() else { break };
            self.zap(victim);
        }
    }
    /// The table for a key, made and tracked if there is none.
    pub(crate) fn table(&mut self, key: TableKey) -> TableId {
        if key.role.kind != Kind::Registers
            && let Some(id) = self.tables.find(&key)
        {
            self.tables[id].stamp = self.clock;
            return id;
        }
        let id = self.tables.make(key, &self.vcpus);
        self.counts.tables_made += 1;
        self.tables[id].stamp = self.clock;
        if key.role.kind == Kind::Guest {
            self.track(id, key.base);
        }
        id
    }
    /// Puts a table on its guest page's list; the page is watched from now on.
    fn track(&mut self, id: TableId, page: PhysPage) {
        self.watch_table(page);
        if let Some(slot) = self.phys.get_mut(page) {
            self.tables[id].next_same = std::mem::replace(&mut slot.tables, id.0);
        }
    }
}

/// A number that tells live roots apart.
pub(crate) fn root_number(root: &Arc<Root>) -> u64 {
    Arc::as_ptr(root).addr() as u64
}
