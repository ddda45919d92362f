//! The three variants side by side, for crash reports and `umbra inspect`; and the TLB's audit (I4).

use crate::addr::{GuestPhys, Linear, PhysPage};
use crate::counters::FaultClass;
use crate::fault::{Access, View};
use crate::monitor::audit::AuditReport;
use crate::monitor::table::{ADDRESS, SHARED, SLOW, is_special, right};
use crate::phys_map::Target;
use crate::pte::Mode;
use crate::ram::HostPtr;
use crate::reclaim::State;
use crate::sets::TlbSet;
use crate::tlb::Slot;
use crate::vcpu::VcpuMmu;
use crate::walk::Step;
use serde::{Deserialize, Serialize};

/// One linear address as guest, monitor and host have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The address.
    pub linear: Linear,
    /// The guest's paging mode.
    pub mode: Mode,
    /// Guest: the entries that a supervisor read meets, top first.
    pub guest_entries: Vec<Step>,
    /// Guest: where the address leads, or the page-fault error code of a supervisor read.
    pub guest: Result<GuestPhys, u32>,
    /// Monitor: the leaf word's rights and flags (host addresses left out), if the entry is present.
    pub monitor: Option<u64>,
    /// Monitor: the guest-physical page that the entry leads to.
    pub monitor_page: Option<PhysPage>,
    /// Whether writes are watched.
    pub watched: bool,
    /// Host: the frame's number in its pool.
    pub host_frame: Option<u32>,
    /// Host: the frame's contents are in the swap file.
    pub out: bool,
    /// Host: they are in a frame that other pages may have, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// What a supervisor read and write, a user read and write would meet now.
    pub classes: [FaultClass; 4],
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "linear {:#x} ({:?})\n  guest   ", self.linear.0, self.mode)?;
        for step in &self.guest_entries {
            write!(f, "level {} [{:#x}] = {:#x} · ", step.level, step.at.0, step.value)?;
        }
        match self.guest {
            Ok(phys) => write!(f, "→ {:#x}", phys.0)?,
            Err(code) => write!(f, "→ page fault, error code {code:#x}")?,
        }
        match (self.monitor, self.monitor_page) {
            (Some(word), Some(page)) => write!(f, "\n  monitor flags {word:#x} → page {:#x}", page.0)?,
            _ => write!(f, "\n  monitor absent")?,
        }
        match self.host_frame {
            Some(frame) if self.shared => write!(f, "\n  host    frame {frame}, whose contents are in a shared one"),
            Some(frame) if self.out => write!(f, "\n  host    frame {frame}, which is out"),
            Some(frame) => write!(f, "\n  host    frame {frame}"),
            None => write!(f, "\n  host    no frame"),
        }
    }
}

impl VcpuMmu {
    /// Guest walk, monitor entry and host frame of an address, without changing anything.
    pub fn explain(&self, linear: Linear) -> Explanation {
        let key = self.set().root.key;
        let word = self.set().probe_quietly(linear.0);
        let monitor = self.shared.lock();
        let mut entries = Vec::new();
        let read = |access, view| monitor.walk_guest((key.rules, key.root), linear, access, view);
        let guest = match read(Access::Read, View::SupervisorAc) {
            Ok(walk) => {
                entries.extend_from_slice(walk.steps());
                Ok(walk.phys)
            }
            Err(fault) => Err(fault.error_code),
        };
        let page = guest.ok().map(GuestPhys::page);
        let host_frame = page.and_then(|page| match monitor.phys.read_target(page) {
            Target::Ram(frame) | Target::Rom(frame) => Some(frame.0),
            _ => None,
        });
        let state = page.and_then(|page| match monitor.phys.read_target(page) {
            Target::Ram(frame) => Some(monitor.state(frame)),
            _ => None,
        });
        let [out, shared] = [matches!(state, Some(State::Out(_))), matches!(state, Some(State::Shared(_)))];
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
            guest_entries: entries,
            guest,
            monitor: (word != 0).then_some(word & !ADDRESS),
            monitor_page: (word != 0).then(|| monitor.page_of(word)),
            watched: word & SLOW != 0,
            host_frame,
            out,
            shared,
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
