//! Who made monitor entries present, while somebody wants to know (`umbra inspect`). Switched with [`crate::writers`]; off, it costs
//! a test of a flag in a fill. Under the mmu lock.
//!
//! An entry's note is written anew whenever the entry is made present, so that one that is there is never of an earlier entry. No
//! guest makes it grow: notes have places, those of a table side by side, and a newer one takes that of an older one.

use crate::fault::Access;
use crate::monitor::Monitor;
use crate::monitor::table::{TableId, node};
use crate::vcpu::VcpuMmu;
use crate::writers::NO_RIP;
use serde::{Deserialize, Serialize};

/// Who made an entry present, and what for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filler {
    /// The number of the vCPU.
    pub vcpu: u16,
    /// RIP of the instruction that accessed the page, if it is known; a fetch's is the address itself.
    pub rip: Option<u64>,
    /// How it accessed the page.
    pub access: Access,
    /// The access was to another page of the same large one: this entry was made beside its.
    pub beside: bool,
}

/// Notes at most: 2 MiB.
const MOST: usize = 1 << 17;

/// What is noted.
#[derive(Debug, Default)]
pub(crate) struct Fillers {
    /// Whose fill this is; `None`: nobody wants to know.
    by: Option<Note>,
    /// `MOST` places, or none before the first note.
    of: Vec<Note>,
}

/// A [`Filler`] in 16 bytes, and whose it is.
#[derive(Copy, Clone, Debug)]
struct Note {
    rip: u64,
    entry: u32,
    vcpu: u16,
    access: Access,
    kind: Kind,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Kind {
    None,
    Asked,
    Beside,
}

/// Where the note of an entry is: most tables have 512.
fn place(table: TableId, index: usize) -> usize {
    ((table.0 as usize) << 9).wrapping_add(index) % MOST
}

impl Monitor {
    /// Whose fill comes next.
    #[inline]
    pub(crate) fn fills_come_from(&mut self, filler: Option<Filler>) {
        self.fillers.by = filler.map(|filler| Note {
            rip: filler.rip.unwrap_or(NO_RIP),
            entry: 0,
            vcpu: filler.vcpu,
            access: filler.access,
            kind: if filler.beside { Kind::Beside } else { Kind::Asked },
        });
    }
    /// What is filled from now on is beside what was asked for.
    pub(crate) fn fills_beside(&mut self) {
        if let Some(by) = &mut self.fillers.by {
            by.kind = Kind::Beside;
        }
    }
    /// An entry is made present.
    #[inline]
    pub(crate) fn note_filler(&mut self, table: TableId, index: usize) {
        let Some(by) = self.fillers.by else { return };
        let of = &mut self.fillers.of;
        if of.is_empty() {
            of.resize(MOST, Note { kind: Kind::None, ..by });
        }
        if let Some(note) = of.get_mut(place(table, index)) {
            *note = Note { entry: node(table, index), ..by };
        }
    }
    /// Who made a present entry present.
    pub(crate) fn filler_of(&self, table: TableId, index: usize) -> Option<Filler> {
        let note = self.fillers.of.get(place(table, index))?;
        (note.kind != Kind::None && note.entry == node(table, index)).then(|| Filler {
            vcpu: note.vcpu,
            rip: Some(note.rip).filter(|rip| *rip != NO_RIP),
            access: note.access,
            beside: note.kind == Kind::Beside,
        })
    }
    /// Forgets everything: entries come and go unseen from now on, or did until now.
    pub(crate) fn forget_fillers(&mut self) {
        self.fillers = Fillers::default();
    }
}

impl VcpuMmu {
    /// This vCPU, as whoever fills; `None` where nobody wants to know.
    #[inline]
    pub(crate) fn filler(&self, linear: u64, access: Access) -> Option<Filler> {
        let rip = if access == Access::Fetch { Some(linear) } else { self.storing() };
        self.notes_writers().then_some(Filler { vcpu: self.share.number, rip, access, beside: false })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::addr::{GuestPhys, Linear};
    use crate::fault::View;
    use crate::frames::{FrameOrder, Pool};
    use crate::memory::GuestMemory;
    use crate::regs::PagingRegs;
    use std::sync::Arc;

    #[test]
    fn whoever_fills_an_entry_is_known_when_asked() {
        let memory = GuestMemory::new(Pool::new(1 << 20).unwrap(), FrameOrder::Permuted { seed: 1 }, 40);
        memory.map_ram(GuestPhys(0), 1 << 19).unwrap();
        let mut vcpu = memory.vcpu(Arc::default());
        let fill = |vcpu: &mut VcpuMmu, linear, access, rip| {
            vcpu.set_storing(rip);
            assert!(vcpu.would_fill(Linear(linear), access, View::Supervisor));
            vcpu.resolve(Linear(linear), access, View::Supervisor).unwrap();
            assert!(!vcpu.would_fill(Linear(linear), access, View::Supervisor));
            vcpu.explain(Linear(linear)).filler
        };
        assert_eq!(fill(&mut vcpu, 0x1000, Access::Read, Some(1)), None, "nobody wanted to know");
        memory.note_writers(true);
        let filler = |access, rip, beside| Some(Filler { vcpu: 0, rip, access, beside });
        assert_eq!(fill(&mut vcpu, 0x2_1000, Access::Read, Some(0x100)), filler(Access::Read, Some(0x100), false));
        let beside = vcpu.explain(Linear(0x2_2000)).filler;
        assert_eq!(beside, filler(Access::Read, Some(0x100), true), "without paging all is one large page");
        // Two-level paging: each entry is its own.
        memory.write(GuestPhys(0x1000), &0x2007u32.to_le_bytes());
        for page in 0..4u32 {
            memory.write(GuestPhys(0x2000 + 4 * u64::from(page)), &(page << 12 | 7).to_le_bytes());
        }
        vcpu.set_paging(&PagingRegs { cr0: 0x8001_0001, cr3: 0x1000, ..PagingRegs::default() });
        assert_eq!(fill(&mut vcpu, 0x3000, Access::Write, None), filler(Access::Write, None, false));
        assert_eq!(vcpu.explain(Linear(0)).filler, None);
        assert_eq!(fill(&mut vcpu, 0, Access::Fetch, None), filler(Access::Fetch, Some(0), false));
        // The entry goes, and somebody else brings it back.
        memory.write(GuestPhys(0x200c), &[7]);
        vcpu.drain();
        assert_eq!(vcpu.explain(Linear(0x3000)).filler, None);
        assert_eq!(fill(&mut vcpu, 0x3000, Access::Read, Some(0x300)), filler(Access::Read, Some(0x300), false));
        memory.note_writers(false);
        assert_eq!(vcpu.explain(Linear(0x3000)).filler, None);
        assert!(memory.audit().is_clean());
    }

    #[test]
    fn no_guest_makes_it_grow() {
        let memory = GuestMemory::new(Pool::new(1 << 20).unwrap(), FrameOrder::Identity, 40);
        let vcpu = memory.vcpu(Arc::default());
        let mut monitor = memory.shared.lock();
        memory.shared.notes_writers.store(true, std::sync::atomic::Ordering::Relaxed);
        monitor.fills_come_from(vcpu.filler(0, Access::Read));
        let tables = 3 * MOST as u32 / 512;
        for table in 0..tables {
            (0..1024).for_each(|index| monitor.note_filler(TableId(table), index));
        }
        assert!(monitor.fillers.of.len() == MOST && monitor.filler_of(TableId(0), 0).is_none());
        assert!((0..1024).all(|index| monitor.filler_of(TableId(tables - 1), index).is_some()));
    }
}
