//! Whether the host needs memory (S19): PSI, the limits of our cgroups (v1 and v2), MemAvailable; and what is done about it.
//!
//! Each source is a file or two that cost some microseconds to read, ten times a second, and only where guest memory is paged. One
//! that is not there says nothing. The tightest counts. Then the reclaimer looks at a part of guest memory, and takes away what
//! several such looks did not find in use: a guest shrinks towards its working set, without a driver in it. Called by `run`.
//!
//! Where machines have a pool in common the same looks find their equal pages, whether the host needs memory or not.
//!
//! Leaves out: PSI's own notification (it wants a privilege or a window of two seconds).

use crate::config::PressureChoice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use umbra_mmu::GuestMemory;

/// How much the host needs memory.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// There is enough.
    #[default]
    None,
    /// What is not used should go.
    Tight,
    /// And soon.
    Urgent,
}

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(100);
/// The limits, in percent: of time that somebody waited for memory (PSI, average of ten seconds), of a cgroup's limit in use, of
/// the host's memory available.
const WAITED: [f64; 2] = [1.0, 10.0];
const IN_USE: [u64; 2] = [85, 97];
const AVAILABLE: [u64; 2] = [10, 4];
/// Percent of a cgroup's limit that a guest may fill: the swap file's pages and everything else of ours need room too.
const FILLED: u64 = 90;
/// Looks until each frame was looked at once, and how many times in a row a frame must not be in use.
const TIGHT: (u64, u8) = (32, 2);
const URGENT: (u64, u8) = (8, 1);
/// Looks until each frame was compared once with those of other machines, where memory is shared: seven seconds. A page that did not change in
/// this time may become one with others.
const SHARED: u64 = 64;
/// Where nothing leaves, so many groups of frames are looked at for becoming huge pages: 0.2 ms each that does.
const GROUPS: usize = 8;

fn grade<T: PartialOrd>(value: T, [tight, urgent]: [T; 2]) -> Need {
    match value {
        value if value >= urgent => Need::Urgent,
        value if value >= tight => Need::Tight,
        _ => Need::None,
    }
}

/// Where the host says how its memory stands: `/` but in tests.
#[derive(Clone, Debug)]
pub struct HostFiles {
    root: PathBuf,
}

impl HostFiles {
    /// The host's own files, or a tree that looks like them.
    pub fn at(root: impl Into<PathBuf>) -> HostFiles {
        HostFiles { root: root.into() }
    }
    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }
    fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.read(path)?.trim().parse().ok()
    }
    /// Bytes that may be taken before the tightest limit is near, or that are too much (negative); nothing if there is no limit.
    pub fn room(&self) -> Option<i64> {
        let available = || {
            let [total, available] = ["MemTotal:", "MemAvailable:"].map(|name| self.field("proc/meminfo", name));
            Some((available? as i64 - total? as i64 / 100 * AVAILABLE[1] as i64) << 10)
        };
        let of = |(used, limit): (u64, u64)| limit as i64 / 100 * FILLED as i64 - used as i64;
        let groups = self.v2_limits().into_iter().chain(self.v1_limits()).map(of);
        groups.chain(available()).min()
    }
    /// The tightest of all.
    pub fn need(&self) -> Need {
        let sources = [self.psi("proc/pressure/memory"), self.cgroup_v2(), self.cgroup_v1(), self.available()];
        sources.into_iter().flatten().max().unwrap_or_default()
    }
    /// Pressure stall information (Linux, `accounting/psi.rst`): the share of time in which a task waited for memory.
    pub fn psi(&self, path: impl AsRef<Path>) -> Option<Need> {
        let text = self.read(path)?;
        let line = text.lines().find(|line| line.starts_with("some "))?;
        let share = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
        Some(grade(share.parse().ok()?, WAITED))
    }
    /// Our cgroup and those around it (Linux, `admin-guide/cgroup-v2.rst`): `memory.current` without files that nobody uses,
    /// against `memory.high` and `memory.max`; and its own PSI.
    pub fn cgroup_v2(&self) -> Option<Need> {
        let stalls = self.v2_groups().into_iter().filter_map(|group| self.psi(group.join("memory.pressure")));
        stalls.chain(self.v2_limits().into_iter().map(nearness)).max()
    }
    fn v2_groups(&self) -> Vec<PathBuf> {
        let Some(path) = self.own_cgroup(|line| line.strip_prefix("0::")) else { return Vec::new() };
        ["sys/fs/cgroup", "sys/fs/cgroup/unified"].iter().flat_map(|place| around(place, &path)).collect()
    }
    /// What is in use of each limit, and the limit.
    fn v2_limits(&self) -> Vec<(u64, u64)> {
        let limits = self.v2_groups().into_iter().filter_map(|group| {
            let limit = ["memory.high", "memory.max"].iter().filter_map(|name| self.number(group.join(name))).min()?;
            let used = self.number(group.join("memory.current"))?;
            let files = self.field(group.join("memory.stat"), "inactive_file ").unwrap_or(0);
            Some((used.saturating_sub(files), limit.min(1 << 60)))
        });
        limits.collect()
    }
    /// The same for version 1 (Linux, `admin-guide/cgroup-v1/memory.rst`).
    pub fn cgroup_v1(&self) -> Option<Need> {
        self.v1_limits().into_iter().map(nearness).max()
    }
    fn v1_limits(&self) -> Vec<(u64, u64)> {
        let of_memory = |line: &'_ str| {
            let mut parts = line.splitn(3, ':');
            let named = parts.nth(1)?.split(',').any(|name| name == "memory");
            let length = line.len() - parts.next()?.len();
            named.then_some(length)
        };
        let Some(path) = self.own_cgroup(|line| of_memory(line).and_then(|at| line.get(at..))) else {
            return Vec::new();
        };
        let limits = around("sys/fs/cgroup/memory", &path).filter_map(|group| {
            // Without a limit the number is the largest that there is.
            let limit = self.number(group.join("memory.limit_in_bytes")).filter(|limit| *limit < 1 << 60)?;
            let used = self.number(group.join("memory.usage_in_bytes"))?;
            let files = self.field(group.join("memory.stat"), "total_inactive_file ").unwrap_or(0);
            Some((used.saturating_sub(files), limit))
        });
        limits.collect()
    }
    /// The host's memory that is free or could be at once (`proc_meminfo(5)`).
    pub fn available(&self) -> Option<Need> {
        let [total, available] =
            ["MemTotal:", "MemAvailable:"].map(|name| self.field("proc/meminfo", name).filter(|kib| *kib != 0));
        let [tight, urgent] = AVAILABLE;
        Some(grade(100 - percent(available.unwrap_or(0), total?).min(100), [100 - tight, 100 - urgent]))
    }
    fn own_cgroup(&self, path: impl Fn(&str) -> Option<&str>) -> Option<String> {
        self.read("proc/self/cgroup")?.lines().find_map(path).map(str::to_owned)
    }
    /// The number after a name in a file of lines.
    fn field(&self, path: impl AsRef<Path>, name: &str) -> Option<u64> {
        let text = self.read(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

fn nearness((used, limit): (u64, u64)) -> Need {
    grade(percent(used, limit), IN_USE)
}

fn percent(part: u64, of: u64) -> u64 {
    (u128::from(part) * 100 / u128::from(of.max(1))) as u64
}

/// A cgroup's folder and those around it, innermost first.
fn around(place: &str, path: &str) -> impl Iterator<Item = PathBuf> {
    let innermost = Path::new(place).join(path.trim_start_matches('/'));
    let depth = Path::new(place).components().count();
    let folders: Vec<PathBuf> = innermost.ancestors().map(Path::to_owned).collect();
    folders.into_iter().filter(move |folder| folder.components().count() >= depth)
}

/// Gives the host what the guest does not use, while the host needs it.
pub(crate) struct Reclaimer {
    memory: GuestMemory,
    source: Source,
    /// Bytes of RAM, and how many of them may be in at most.
    ram: u64,
    limit: u64,
    next: Instant,
    /// Pages taken away when it last looked.
    evictions: AtomicU64,
}

/// Whom to ask.
enum Source {
    Host(HostFiles),
    Always(Need),
}

impl Reclaimer {
    /// For a guest with so many bytes of RAM.
    pub fn new(memory: GuestMemory, (ram, limit): (u64, u64), pressure: PressureChoice) -> Reclaimer {
        let source = match pressure {
            PressureChoice::Host => Source::Host(HostFiles::at("/")),
            PressureChoice::None => Source::Always(Need::None),
            PressureChoice::Tight => Source::Always(Need::Tight),
            PressureChoice::Urgent => Source::Always(Need::Urgent),
        };
        Reclaimer { memory, source, ram, limit, next: Instant::now(), evictions: AtomicU64::new(0) }
    }
    /// The time between two steps.
    pub fn period(&self) -> Duration {
        PERIOD
    }
    /// Looks, and does what there is to do.
    pub fn step(&self) {
        self.memory.share((self.ram >> 12).div_ceil(SHARED) as usize);
        let counts = self.memory.counters().reclaim;
        let need = match &self.source {
            Source::Host(files) => {
                // A guest fills memory faster than anybody could look: no more of it than there is room for now.
                if let Some(room) = files.room() {
                    let most = (counts.resident << 12).saturating_add_signed(room).min(self.limit);
                    self.memory.set_limit(most);
                }
                files.need()
            }
            Source::Always(need) => *need,
        };
        let (looks, scans) = match need {
            Need::None => {
                if self.evictions.swap(counts.evictions, Ordering::Relaxed) == counts.evictions {
                    self.memory.merge(GROUPS);
                }
                return;
            }
            Need::Tight => TIGHT,
            Need::Urgent => URGENT,
        };
        self.memory.shrink((self.ram >> 12).div_ceil(looks) as usize, scans);
    }
    /// Takes a step if one is due.
    pub fn step_if_due(&mut self) {
        let now = Instant::now();
        if now >= self.next {
            self.step();
            self.next = now + PERIOD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of files.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, HostFiles) {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let files = HostFiles::at(root.path());
        (root, files)
    }

    #[test]
    fn pressure_stalls_count() {
        for (share, need) in
            [("0.00", Need::None), ("0.99", Need::None), ("1.00", Need::Tight), ("35.10", Need::Urgent)]
        {
            let text = format!(
                "some avg10={share} avg60=0.00 avg300=0.00 total=1\nfull avg10=99.00 avg60=0 avg300=0 total=0\n"
            );
            let (_root, host) = host(&[("proc/pressure/memory", &text)]);
            assert_eq!((host.psi("proc/pressure/memory"), host.need()), (Some(need), need), "{share}");
        }
    }

    #[test]
    fn pressure_within_a_cgroup_v2() {
        // The limit may be a folder further up; files that nobody uses are not counted.
        let cases = [
            ("800", "max", "0", Need::None),
            ("950", "max", "0", Need::Tight),
            ("950", "max", "600", Need::None),
            ("980", "max", "0", Need::Urgent),
            ("480", "500", "0", Need::Tight),
        ];
        for (used, high, files, need) in cases {
            let stat = format!("anon 5\ninactive_file {files}\nactive_file 7\n");
            let (_root, host) = host(&[
                ("proc/self/cgroup", "0::/outer/inner\n"),
                ("sys/fs/cgroup/outer/memory.max", "1000\n"),
                ("sys/fs/cgroup/outer/memory.high", high),
                ("sys/fs/cgroup/outer/memory.current", used),
                ("sys/fs/cgroup/outer/memory.stat", &stat),
                ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
                ("sys/fs/cgroup/outer/inner/memory.current", used),
            ]);
            assert_eq!((host.cgroup_v2(), host.need()), (Some(need), need), "{used} of 1000 and {high}, {files} files");
        }
        let (_root, host) = host(&[
            ("proc/self/cgroup", "4:memory:/a\n0::/b\n"),
            ("sys/fs/cgroup/unified/b/memory.current", "1"),
            ("sys/fs/cgroup/unified/b/memory.pressure", "some avg10=12.5 avg60=0 avg300=0 total=0\n"),
        ]);
        assert_eq!(host.need(), Need::Urgent, "a cgroup's own stalls");
    }

    #[test]
    fn pressure_within_a_cgroup_v1() {
        for (used, limit, need) in
            [("900", "1000", Need::Tight), ("99", "9223372036854771712", Need::None), ("5", "100", Need::None)]
        {
            let (_root, host) = host(&[
                ("proc/self/cgroup", "9:name=systemd:/x\n4:cpuset,memory:/a/b\n0::/\n"),
                ("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", used),
                ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", limit),
                ("sys/fs/cgroup/memory/a/b/memory.stat", "inactive_file 900\ntotal_inactive_file 0\n"),
            ]);
            assert_eq!(host.need(), need, "{used} of {limit}");
            let number = |text: &str| text.parse::<i64>().expect("a number");
            let room = (number(limit) < 1 << 60).then(|| number(limit) / 100 * 90 - number(used));
            assert_eq!(host.room(), room, "{used} of {limit}");
        }
    }

    #[test]
    fn pressure_of_a_host_without_memory() {
        for (available, need) in [("500", Need::None), ("95", Need::Tight), ("30", Need::Urgent)] {
            let text = format!("MemTotal:     1000 kB\nMemFree:   1 kB\nMemAvailable:  {available} kB\n");
            let (_root, host) = host(&[("proc/meminfo", &text)]);
            assert_eq!(host.need(), need, "{available}");
        }
    }

    /// No file at all, or files that say something else: no need, and no panic.
    #[test]
    fn pressure_files_may_be_absent_or_odd() {
        let (_root, nothing) = host(&[]);
        assert_eq!((nothing.need(), nothing.cgroup_v1(), nothing.available()), (Need::None, None, None));
        let (_root, odd) = host(&[
            ("proc/pressure/memory", "some\nsome avg10=x"),
            ("proc/self/cgroup", "::\n0::\n:memory\n1:memory:../..\n"),
            ("proc/meminfo", "MemTotal:\nMemAvailable: much\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "-1\n"),
            ("sys/fs/cgroup/memory.max", "0\n"),
            ("sys/fs/cgroup/memory.current", "0\n"),
        ]);
        assert_eq!(odd.need(), Need::None);
        // Whatever this host says.
        HostFiles::at("/").need();
    }
}
