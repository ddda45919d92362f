//! The three variants side by side, for crash reports and `umbra inspect`; and the TLB's audit (I4).

use crate::addr::{GuestPhys, Linear, PhysPage};
use crate::counters::FaultClass;
use crate::fault::{Access, View};
use crate::fillers::Filler;
use crate::monitor::audit::AuditReport;
use crate::monitor::table::{ADDRESS, SHARED, SLOW, is_special, right};
use crate::overview::PageUse;
use crate::phys_map::Target;
use crate::pte::Mode;
use crate::ram::HostPtr;
use crate::reclaim::State;
use crate::reclaim::slots::UNIT;
use crate::sets::TlbSet;
use crate::tlb::Slot;
use crate::vcpu::VcpuMmu;
use crate::walk::{GuestRoot, Step, WalkCheck};
use crate::writers::Writer;
use serde::{Deserialize, Serialize};

/// One linear address as guest, monitor and host have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The address.
    pub linear: Linear,
    /// The guest's paging mode.
    pub mode: Mode,
    /// Guest: the root of its tables.
    pub root: GuestRoot,
    /// Guest: the entries that a supervisor read meets, top first.
    pub guest_entries: Vec<Step>,
    /// Guest: who was seen to write each of them last.
    pub writers: Vec<Writer>,
    /// Guest: the number among them of the entry that refuses a supervisor's read, and the check that fails.
    pub refused: Option<(Option<usize>, WalkCheck)>,
    /// Guest: where the address leads, or the page-fault error code of a supervisor read.
    pub guest: Result<GuestPhys, u32>,
    /// Monitor: the leaf word's rights and flags (host addresses left out), if the entry is present.
    pub monitor: Option<u64>,
    /// Monitor: the guest-physical page that the entry leads to.
    pub monitor_page: Option<PhysPage>,
    /// Monitor: who made the entry present, where that was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filler: Option<Filler>,
    /// Monitor: what the entry allows: a supervisor's read, write and fetch, a user's.
    pub monitor_rights: [bool; 6],
    /// Guest: the same, by its tables.
    pub guest_rights: [bool; 6],
    /// Whether writes are watched.
    pub watched: bool,
    /// Why they may be.
    pub uses: PageUse,
    /// Monitor: how many of its entries, of whatever root, lead to the page: they pin the frame.
    pub mappers: u32,
    /// Host: the frame's number in its pool.
    pub host_frame: Option<u32>,
    /// Host: the frame's contents are in the swap file, or on a disk of the guest.
    pub out: bool,
    /// Host: they are in a frame that other pages may have, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// Host: where in the swap file, in bytes, and how many.
    pub swap_slot: Option<(u64, u32)>,
    /// Host: the image of a disk that they are in, and where, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disk: Option<(String, u64)>,
    /// Host: the frame is in memory. It depends on the host, so it is no part of what is compared.
    #[serde(skip)]
    pub resident: bool,
    /// What a supervisor read and write, a user read and write would meet now.
    pub classes: [FaultClass; 4],
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "linear {:#x} ({:?})\n  guest   ", self.linear.0, self.mode)?;
        for step in &self.guest_entries {
            write!(f, "level {} [{:#x}] = {:#x} · ", step.level, step.at.0, step.value)?;
        }
        if let Some((_, check)) = self.refused {
            write!(f, "{} · ", check.text())?;
        }
        match self.guest {
            Ok(phys) => write!(f, "→ {:#x}", phys.0)?,
            Err(code) => write!(f, "→ page fault, error code {code:#x}")?,
        }
        match (self.monitor, self.monitor_page) {
            (Some(word), Some(page)) => write!(f, "\n  monitor flags {word:#x} → page {:#x}", page.0)?,
            _ => write!(f, "\n  monitor absent")?,
        }
        if let Some(Filler { vcpu, rip, access, beside }) = self.filler {
            let beside = if beside { ", beside its own page" } else { "" };
            match rip {
                Some(rip) => write!(f, ", filled by a {access:?} of vCPU {vcpu} at RIP {rip:#x}{beside}")?,
                None => write!(f, ", filled by a {access:?} of vCPU {vcpu}{beside}")?,
            }
        }
        match self.host_frame {
            Some(frame) if self.shared => write!(f, "\n  host    frame {frame}, whose contents are in a shared one"),
            Some(frame) if self.out => write!(f, "\n  host    frame {frame}, which is out"),
            Some(frame) => write!(f, "\n  host    frame {frame}"),
            None => write!(f, "\n  host    no frame"),
        }
    }
}

/// What a guest's walk met that did not permit an access, entry by entry.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The entries, top first, with who was seen to write their low and their high half last.
    pub entries: [(Step, [Writer; 2]); 4],
    /// How many there are.
    pub count: u8,
    /// Which of them refused; `None`: a PDPTE register.
    pub by: Option<u8>,
    /// The check that failed; `None`: the tables permit the access by now.
    pub check: Option<WalkCheck>,
}

impl VcpuMmu {
    /// Why the guest's tables do not permit an access.
    pub fn why_refused(&self, linear: Linear, access: Access, view: View) -> Refused {
        let key = self.set().root.key;
        let monitor = self.shared.lock();
        let Some(refusal) = monitor.refusal((key.rules, key.root), linear, access, view) else {
            return Refused::default();
        };
        let mut refused = Refused {
            count: refusal.steps().len() as u8,
            by: refusal.refused_by().map(|number| number as u8),
            check: Some(refusal.check),
            ..Refused::default()
        };
        for (entry, step) in refused.entries.iter_mut().zip(refusal.steps()) {
            let high = step.at.wrapping_add(if key.rules.entry_bytes() == 8 { 4 } else { 0 });
            *entry = (*step, [monitor.writer_of(step.at), monitor.writer_of(high)]);
        }
        refused
    }
    /// The guest-physical address that a linear one leads to, as the debugger sees it.
    pub fn peek_phys(&self, linear: Linear) -> Option<GuestPhys> {
        let key = self.set().root.key;
        let monitor = self.shared.lock();
        let found = monitor.walk_guest((key.rules, key.root), linear, Access::Read, View::SupervisorAc);
        found.ok().map(|walk| walk.phys)
    }
    /// Guest walk, monitor entry and host frame of an address, without changing anything.
    pub fn explain(&self, linear: Linear) -> Explanation {
        let key = self.set().root.key;
        let word = self.set().probe_quietly(linear.0);
        let monitor = self.shared.lock();
        let mut entries = Vec::new();
        let space = (key.rules, key.root);
        let read = |access, view| monitor.walk_guest(space, linear, access, view);
        let mut refused = None;
        let guest = match read(Access::Read, View::SupervisorAc) {
            Ok(walk) => {
                entries.extend_from_slice(walk.steps());
                Ok(walk.phys)
            }
            Err(fault) => {
                if let Some(refusal) = monitor.refusal(space, linear, Access::Read, View::SupervisorAc) {
                    entries.extend_from_slice(refusal.steps());
                    refused = Some((refusal.refused_by(), refusal.check));
                }
                Err(fault.error_code)
            }
        };
        let page = guest.ok().map(GuestPhys::page);
        let frame = page.and_then(|page| match monitor.phys.read_target(page) {
            Target::Ram(frame) | Target::Rom(frame) => Some(frame),
            _ => None,
        });
        let host_frame = frame.map(|frame| frame.0);
        let state = frame.map(|frame| monitor.state(frame));
        let swap_slot = match state {
            Some(State::Out(slot)) => Some((u64::from(slot.unit) * UNIT as u64, u32::from(slot.length))),
            _ => None,
        };
        let on_disk = match (state, &monitor.reclaim) {
            (Some(State::OnDisk(block)), Some(reclaim)) => Some(reclaim.disks.place(block)),
            _ => None,
        };
        let out = swap_slot.is_some() || on_disk.is_some();
        let shared = matches!(state, Some(State::Shared(_)));
        let slot = page.and_then(|page| Some((page, frame?, monitor.phys.get(page)?)));
        let uses = slot.map_or(PageUse::default(), |(page, frame, slot)| monitor.page_use(page, frame, slot));
        let mappers = slot.map_or(0, |(_, _, slot)| monitor.count_mappers(slot.mappers));
        const ASKED: [(View, Access); 6] = [
            (View::Supervisor, Access::Read),
            (View::Supervisor, Access::Write),
            (View::Supervisor, Access::Fetch),
            (View::User, Access::Read),
            (View::User, Access::Write),
            (View::User, Access::Fetch),
        ];
        let class = |access, view| {
            crate::classify::classify(
                read(access, view).map(|walk| walk.dirty()).map_err(|fault| fault.error_code),
                crate::classify::MonitorSays::of(word, view, access),
                match host_frame {
                    Some(_) if out => crate::classify::HostSays::Out,
                    Some(_) if shared => crate::classify::HostSays::Shared,
                    Some(_) => crate::classify::HostSays::Frame,
                    None => crate::classify::HostSays::Nothing,
                },
                access,
            )
        };
        Explanation {
            linear,
            mode: key.rules.mode,
            root: key.root,
            writers: entries.iter().map(|step| monitor.writer_of(step.at)).collect(),
            guest_entries: entries,
            refused,
            guest,
            monitor: (word != 0).then_some(word & !ADDRESS),
            monitor_page: (word != 0).then(|| monitor.page_of(word)),
            filler: monitor
                .leaf_of(&self.set().root, linear)
                .and_then(|(table, index)| monitor.filler_of(table, index)),
            monitor_rights: ASKED.map(|(view, access)| word & right(view, access) != 0),
            guest_rights: ASKED.map(|(view, access)| read(access, view).is_ok()),
            watched: word & SLOW != 0,
            uses,
            mappers,
            host_frame,
            out,
            shared,
            swap_slot,
            on_disk,
            resident: frame.is_some_and(|frame| self.shared.pool.resident(std::iter::once(frame)) == 1),
            classes: [
                class(Access::Read, View::Supervisor),
                class(Access::Write, View::Supervisor),
                class(Access::Read, View::User),
                class(Access::Write, View::User),
            ],
        }
    }
    /// Compares this vCPU's TLB entries with the monitor's (I4). Call it after a drain.
    pub fn audit(&self) -> AuditReport {
        let mut report = AuditReport::default();
        let set = self.set();
        for view in [View::User, View::Supervisor, View::SupervisorAc] {
            let Some(tlb) = &set.data[view as usize] else { continue };
            for entry in (0..tlb.slots.len()).map(|index| tlb.slots.get(index)).filter(|entry| entry.page() & 1 == 0) {
                let page = entry.page();
                let word = set.probe_quietly(page);
                report.entries += 1;
                let read = entry.read != page || word & right(view, Access::Read) != 0;
                let write = entry.write != page || word & right(view, Access::Write) != 0 && word & SLOW == 0;
                self.audit_target(set, word, (page, entry.host, entry.phys), read && write, &mut report);
            }
        }
        for view in [View::User, View::Supervisor] {
            let Some(tlb) = &set.fetch[crate::sets::fetch_index(view)] else { continue };
            for entry in (0..tlb.slots.len()).map(|index| tlb.slots.get(index)).filter(|entry| entry.tag & 1 == 0) {
                let word = set.probe_quietly(entry.tag);
                report.entries += 1;
                let allowed = word & right(view, Access::Fetch) != 0;
                self.audit_target(set, word, (entry.tag, entry.host, entry.phys), allowed, &mut report);
            }
        }
        report
    }
    fn audit_target(
        &self,
        set: &TlbSet,
        word: u64,
        (linear, host, phys): (u64, u64, u64),
        allowed: bool,
        report: &mut AuditReport,
    ) {
        let pool = &self.shared.pool;
        let frame = pool.frame_of(HostPtr::from_bits(word & ADDRESS));
        let owner = frame.map(|frame| pool.owner(frame));
        let at = match word & SHARED {
            0 => word & ADDRESS,
            _ => frame.and_then(|frame| pool.elsewhere(frame)).map_or(0, HostPtr::bits),
        };
        if !allowed || is_special(word) || at != host || owner != Some(PhysPage(phys)) {
            let mode = set.root.key.rules.mode;
            report.complain(format!("TLB entry for {linear:#x} → page {phys:#x}, monitor word {word:#x} ({mode:?})"));
        }
    }
}
