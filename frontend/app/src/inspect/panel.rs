//! The panel: guest, monitor and host of one address side by side, differences marked; roots with hit rates; slow accesses by class over
//! time; the heat map. Drawn by the window and by the terminal display over the guest's picture.
//!
//! The session's thread makes what is shown between two steps of the machine, twice a second; the display's thread draws the last one and
//! never waits. Closed, nothing of this runs.

use super::exceptions;
use super::heat::HeatMap;
use crate::link::Link;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use umbra_machine::Machine;
use umbra_machine::display::Frame;
use umbra_machine::mmu::explain::Explanation;
use umbra_machine::mmu::{Access, Counters, FaultClass, Filler, Linear, PageUse, Writer};

/// How often it is made anew.
const EVERY: Duration = Duration::from_millis(500);
/// Of so many times, one makes the map anew, and one looks which pages were used: each page has to be found again after that.
const MAP: u64 = 2;
const LOOK: u64 = 4;
/// Samples of the counters that are kept, each of [`EVERY`].
const SAMPLES: usize = 60;
/// Characters that a column of the address page is wide.
const COLUMN: usize = 26;
/// From nothing to the most.
const RAMP: &[u8; 10] = b" .:-=+*#%@";

/// What is on it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
enum Page {
    #[default]
    Address,
    Faults,
    Heat,
}

/// What to draw.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Lines of text of up to 80 characters; the marked ones first say that guest and monitor differ.
    pub lines: Vec<(String, bool)>,
    /// A picture below them.
    pub picture: Option<Frame>,
}

/// A key that the panel takes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PanelKey {
    /// A character.
    Char(char),
    /// The last digit goes.
    Backspace,
    /// The address is complete.
    Enter,
    /// The next page.
    Tab,
    /// The panel closes.
    Escape,
}

#[derive(Debug, Default)]
struct Shared {
    view: View,
    busy: bool,
    samples: VecDeque<Counters>,
    page: Page,
    times: u64,
}

/// The panel.
#[derive(Debug, Default)]
pub struct Panel {
    is_open: bool,
    page: Page,
    typed: String,
    at: Option<u64>,
    asked: Option<Instant>,
    shared: Arc<Mutex<Shared>>,
}

impl Panel {
    /// Whether it takes the keys.
    pub fn is_open(&self) -> bool {
        self.is_open
    }
    /// Opens or closes it.
    pub fn toggle(&mut self, link: &Link) {
        self.is_open = !self.is_open;
        *self = Panel { is_open: self.is_open, page: self.page, at: self.at, ..Panel::default() };
        let opened = self.is_open;
        link.call(move |session| session.inspectors(opened));
    }
    /// A key is pressed while it is open.
    pub fn key(&mut self, key: PanelKey, link: &Link) {
        match key {
            PanelKey::Escape => return self.toggle(link),
            PanelKey::Tab => {
                self.page = match self.page {
                    Page::Address => Page::Faults,
                    Page::Faults => Page::Heat,
                    Page::Heat => Page::Address,
                }
            }
            PanelKey::Backspace => drop(self.typed.pop()),
            PanelKey::Char(c) if c.is_ascii_hexdigit() && self.typed.len() < 16 => {
                self.typed.push(c.to_ascii_lowercase())
            }
            PanelKey::Char(_) => {}
            PanelKey::Enter => {
                self.at = super::parse_address(&self.typed).ok();
                self.typed.clear();
            }
        }
        self.asked = None;
    }
    /// Has it made anew when it is time, and gives what to draw. `None`: it is closed.
    pub fn view(&mut self, link: &Link) -> Option<View> {
        if !self.is_open {
            return None;
        }
        let mut shared = self.shared.lock();
        if !shared.busy && self.asked.is_none_or(|asked| asked.elapsed() >= EVERY) {
            shared.busy = true;
            self.asked = Some(Instant::now());
            let (to, page, at) = (self.shared.clone(), self.page, self.at);
            link.call(move |session| make(&mut session.machine, &mut to.lock(), page, at));
        }
        let mut view = shared.view.clone();
        let title = "Umbra's inspector    Tab: address, faults, heat    Esc closes".to_owned();
        let asks = format!("address in hex, Enter: {}_    (RIP if none was given)", self.typed);
        view.lines.splice(0..0, [(title, false), (asks, false)]);
        Some(view)
    }
}

fn make(machine: &mut Machine, shared: &mut Shared, page: Page, at: Option<u64>) {
    shared.busy = false;
    let is_new = shared.times == 0 || shared.page != page;
    shared.times += 1;
    shared.page = page;
    let counters = machine.memory().counters();
    if shared.samples.len() > SAMPLES {
        shared.samples.pop_front();
    }
    shared.samples.push_back(counters);
    if page == Page::Heat && shared.times.is_multiple_of(LOOK) {
        machine.memory().age_pages();
    }
    if page == Page::Heat && !is_new && !shared.times.is_multiple_of(MAP) {
        return;
    }
    shared.view = match page {
        Page::Address => View { lines: address(machine, at), picture: None },
        Page::Faults => View { lines: faults(machine, &shared.samples), picture: None },
        Page::Heat => {
            let map = HeatMap::of(machine);
            let lines = map.legend().lines().map(|line| (line.chars().take(80).collect(), false)).collect();
            View { lines, picture: Some(map.frame()) }
        }
    };
}

/// The three variants of an address side by side.
fn address(machine: &Machine, at: Option<u64>) -> Vec<(String, bool)> {
    let Some(vcpu) = machine.vcpus().first() else { return Vec::new() };
    let linear = at.unwrap_or_else(|| vcpu.linear_rip());
    let explanation = vcpu.link.mmu.explain(Linear(linear));
    let mut lines = vec![(format!("linear {linear:#018x}, {:?}", explanation.mode), false)];
    lines.push((row(["guest", "monitor", "host"].map(str::to_owned)), false));
    let (guest, monitor, host) = (guest(&explanation), monitor(&explanation), host(&explanation));
    let differ = |n: usize| match n {
        0 => {
            explanation.monitor.is_some() && explanation.guest.ok().map(|phys| phys.page()) != explanation.monitor_page
        }
        1 => explanation.monitor.is_some() && explanation.guest_rights != explanation.monitor_rights,
        _ => false,
    };
    for n in 0..guest.len().max(monitor.len()).max(host.len()) {
        let cell = |column: &[String]| column.get(n).cloned().unwrap_or_default();
        lines.push((row([cell(&guest), cell(&monitor), cell(&host)]), differ(n)));
    }
    lines
}

fn row(cells: [String; 3]) -> String {
    cells.map(|cell| format!("{:<COLUMN$}", cell.chars().take(COLUMN).collect::<String>())).join("|")
}

fn rights(of: [bool; 6]) -> String {
    let letters = |of: &[bool]| -> String {
        of.iter().zip(['r', 'w', 'x']).map(|(has, letter)| if *has { letter } else { '-' }).collect()
    };
    format!("system {} user {}", letters(&of[..3]), letters(&of[3..]))
}

fn guest(e: &Explanation) -> Vec<String> {
    let leads = match e.guest {
        Ok(phys) => format!("page {:#x}", phys.page().0),
        Err(code) => format!("#PF, error code {code:#x}"),
    };
    let mut lines = vec![leads, rights(e.guest_rights)];
    for (n, (step, by)) in e.guest_entries.iter().zip(&e.writers).enumerate() {
        lines.push(format!("L{} {:x}: {:x}", step.level, step.at.0, step.value));
        if let Some((Some(refused), check)) = e.refused
            && refused == n
        {
            lines.push(format!("   refuses: {}", check.text()));
        }
        lines.push(format!("  by {}", short(*by)));
    }
    lines
}

fn monitor(e: &Explanation) -> Vec<String> {
    let Some(page) = e.monitor_page else {
        return vec!["no entry yet".to_owned(), String::new(), root(e)];
    };
    let why = [(PageUse::TABLE, "guest table"), (PageUse::CODE, "code"), (PageUse::DESCRIPTORS, "descriptors")];
    let why: Vec<&str> = why.iter().filter(|(uses, _)| e.uses.is(*uses)).map(|(_, name)| *name).collect();
    let tracked = match (e.watched, why.is_empty()) {
        (false, _) => "writes not tracked".to_owned(),
        (true, true) => "writes tracked".to_owned(),
        (true, false) => format!("tracked: {}", why.join(", ")),
    };
    let classes = e.classes.map(super::class_name);
    vec![
        format!("page {:#x}", page.0),
        rights(e.monitor_rights),
        root(e),
        tracked,
        format!("reverse map: {}", e.mappers),
        e.filler.map_or("filled: unseen".to_owned(), filler),
        format!("read:  {}", classes[0]),
        format!("write: {}", classes[1]),
        format!("user read: {}", classes[2]),
        format!("user write: {}", classes[3]),
    ]
}

fn root(e: &Explanation) -> String {
    match e.root {
        umbra_machine::mmu::walk::GuestRoot::Table(at) => format!("root of CR3 {:#x}", at.0),
        umbra_machine::mmu::walk::GuestRoot::Pdptes(_) => "root of four PDPTEs".to_owned(),
    }
}

fn host(e: &Explanation) -> Vec<String> {
    let Some(frame) = e.host_frame else { return vec!["no frame".to_owned()] };
    let place = match (e.swap_slot, &e.on_disk, e.resident) {
        (Some((at, bytes)), ..) => format!("out: {bytes} B at {at:#x}"),
        (_, Some((_, at)), _) => format!("on a disk at {at:#x}"),
        (None, None, true) => "in memory".to_owned(),
        (None, None, false) => "not touched yet".to_owned(),
    };
    let pinned = match e.mappers {
        0 => "not pinned".to_owned(),
        count => format!("pinned by {count} monitor entries"),
    };
    let shared = if e.uses.is(PageUse::SHARED) { "shared" } else { "not shared" };
    vec![format!("frame {frame}"), place, pinned, shared.to_owned()]
}

/// Who made an entry present, as short as a column.
fn filler(by: Filler) -> String {
    let short = short(Writer::Vcpu(by.vcpu, by.rip));
    let access = match by.access {
        Access::Read => "read",
        Access::Write => "write",
        Access::Fetch => "fetch",
    };
    format!("filled by {access} {short}{}", if by.beside { ", beside" } else { "" })
}

/// Who wrote an entry, as short as a column.
fn short(by: Writer) -> String {
    match by {
        Writer::Unknown => "unknown".to_owned(),
        Writer::Vcpu(number, Some(rip)) => format!("{number}: {rip:x}"),
        other => exceptions::writer(other),
    }
}

/// Roots with their hit rates, and classes over time.
fn faults(machine: &Machine, samples: &VecDeque<Counters>) -> Vec<(String, bool)> {
    let (Some(last), Some(first)) = (samples.back(), samples.front()) else { return Vec::new() };
    let rate = |hits: u64, misses: u64| 100.0 * hits as f64 / (hits + misses).max(1) as f64;
    let (hits, misses) = (last.root_hits - first.root_hits, last.root_misses - first.root_misses);
    let seconds = EVERY.as_secs_f64() * (samples.len().max(2) - 1) as f64;
    let mut lines = vec![
        format!(
            "{} roots; {:.1} % of {} changes met one, {:.1} % in the last {seconds:.0} s",
            last.monitor.roots,
            rate(last.root_hits, last.root_misses),
            last.root_hits + last.root_misses,
            rate(hits, misses)
        ),
        format!(
            "{} monitor entries; TLB entries kept {:.0}",
            last.monitor.live,
            last.kept_entries as f64 / last.root_hits.max(1) as f64
        ),
        String::new(),
        format!("{:<26}{:>14}  over the last {seconds:.0} s", "slow accesses by class", "a second"),
    ];
    for class in FaultClass::ALL {
        let deltas: Vec<u64> = samples
            .iter()
            .zip(samples.iter().skip(1))
            .map(|(a, b)| b.class(class).saturating_sub(a.class(class)))
            .collect();
        let most = deltas.iter().copied().max().unwrap_or(0).max(1);
        let recent = &deltas[deltas.len().saturating_sub(36)..];
        let line: String = recent.iter().map(|n| char::from(RAMP[(n * 9).div_ceil(most) as usize % 10])).collect();
        let now = deltas.last().copied().unwrap_or(0) as f64 / EVERY.as_secs_f64();
        lines.push(format!("{:<26}{now:>14.0}  [{line:<36}]", super::class_name(class)));
    }
    lines.push(String::new());
    let text = exceptions::text(machine);
    let tail: Vec<&str> = text.lines().collect();
    lines.extend(tail[tail.len().saturating_sub(9)..].iter().map(|line| line.chars().take(80).collect()));
    lines.into_iter().map(|line| (line, false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_rights() {
        assert_eq!(row(["a".repeat(40), "b".into(), String::new()]).chars().count(), 3 * COLUMN + 2);
        assert_eq!(rights([true, true, false, false, false, true]), "system rw- user --x");
    }
}
