//! The machine as data: what a machine file (TOML) says, and what the command line makes of its options.
//!
//! ```toml
//! memory = "512M"
//! cpus = 2
//! cpu = "x86-64-v2"
//! serial = ["stdio", "none"]
//!
//! [boot]
//! kernel = "vmlinuz"
//! initrd = ["initrd.img"]
//! append = "console=ttyS0"
//!
//! [run]
//! until = "login:"
//! timeout = "60s"
//! ```
//!
//! Every key is a field below, with its default; an unknown key is an error that names file and line. A relative path is
//! relative to the machine file. Leaves out: network cards, which the board does not have yet.

mod expect;
mod values;

pub use expect::{EndName, ExpectConfig};
pub use values::{
    BootFrom, BootOrder, DiskAccess, DiskConfig, DiskFormat, DiskInterface, FrameOrderChoice, RtcDate, SerialTarget,
    Size, SoundCard, SoundConfig, Span, ValueError,
};

use crate::memory_map::{MemoryMap, MemorySizeError};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The smallest memory limit.
pub const LEAST_MEMORY_LIMIT: u64 = 1 << 20;
/// The most processors that a machine can have.
pub const MAX_CPUS: u32 = 64;

/// What is wrong with a machine file or an option.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The text is not a machine file.
    #[error("{file}:{line}: {problem}")]
    Syntax {
        /// The file, as the user named it.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// The memory has no possible size.
    #[error("memory: {0}")]
    Memory(#[from] MemorySizeError),
    /// There are too many processors, or none.
    #[error("cpus = {0} is outside 1–64; try --cpus 2")]
    Cpus(u32),
    /// There are more serial ports than the board has.
    #[error("{0} serial ports are asked for and the board has 2; try fewer --serial")]
    SerialPorts(usize),
    /// Two serial ports want the one terminal.
    #[error("two serial ports are both stdio; try stdio for one and file:PATH, pty or none for the other")]
    TwoTerminals,
    /// An initrd or a command line without a kernel.
    #[error("there is {0} but no kernel; try --kernel FILE")]
    NoKernel(&'static str),
    /// An order of drives where none is asked.
    #[error("a kernel starts before every drive; try --boot without --kernel, or --kernel alone")]
    OrderOfKernel,
    /// An instruction limit on a clock that does not count instructions.
    #[error("a limit of instructions needs the virtual clock; try --clock virtual")]
    InstructionsNeedVirtual,
    /// Two machines on the host's clock see different times.
    #[error("the engine both needs the virtual clock; try --clock virtual")]
    BothNeedsVirtual,
    /// Two machines would write one image.
    #[error("with the engine both two machines would write {file}; try ,snapshot or ,ro", file = .0.display())]
    BothNeedsSnapshot(PathBuf),
    /// Variables of firmware that is not there.
    #[error("there is a file for UEFI variables but no firmware that has any; try --bios OVMF_CODE.fd")]
    VariablesWithoutFirmware,
    /// Two machines would write one file of variables.
    #[error("with the engine both two machines would write {file}; try without --flash-vars", file = .0.display())]
    BothWriteVariables(PathBuf),
    /// The debug console has no pseudo-terminal.
    #[error("the debug console cannot be a pseudo-terminal; try --console stdio or --console file:PATH")]
    ConsolePty,
    /// Frames are to move all the time.
    #[error("compact-every is no time at all; try --compact-every 10ms")]
    CompactEvery,
    /// Memory is to stay, and to be less.
    #[error("pinned memory stays as large as the guest's, and a limit is below that; try --memory-policy paged")]
    PinnedAndLimited,
    /// The least is what instructions and page walks need at the same time, and some for it to get on.
    #[error("a memory limit of {0} bytes is too small for a guest to get on; try --memory-limit 16M")]
    MemoryLimit(u64),
    /// There are more IDE drives than cables take.
    #[error(
        "more than four drives, a CD-ROM drive counted in, do not fit the IDE cables; try if=ahci, or fewer --disk"
    )]
    TooManyDisks,
    /// There are more AHCI disks than ports.
    #[error("the AHCI adapter has six ports; try if=ide, or fewer --disk")]
    TooManyAhci,
    /// The board does not have it yet.
    #[error("{what} is not there yet; try {instead}")]
    NotYet {
        /// What is asked for.
        what: &'static str,
        /// What works today.
        instead: &'static str,
    },
}

/// A whole machine and how it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MachineConfig {
    /// Guest RAM, `"256M"`.
    pub memory: Size,
    /// Processors, 1–64. Default 1.
    pub cpus: u32,
    /// The processor's model: `"max"` (default), `"x86-64-v2"`, `"pentium3"`, `"486"`, ….
    pub cpu: String,
    /// What executes guest code: `"jit"` (default), `"interp"`, `"both"`.
    pub engine: Engine,
    /// Runs of a block by the interpreter before the JIT makes code of it; 1 leaves it nothing but what it cannot make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jit_threshold: Option<u32>,
    /// Whose time the guest sees: `"real"` (default) or `"virtual"`.
    pub clock: Clock,
    /// Where all that is random comes from. Default 0.
    pub seed: u64,
    /// The date at power-on, `"2026-01-01T00:00:00"`.
    pub rtc: RtcDate,
    /// Where the serial ports COM1 and COM2 lead: `"stdio"`, `"file:PATH"`, `"pty"`, `"none"`.
    pub serial: Vec<SerialTarget>,
    /// Where the screen is shown: `"none"` (default), `"window"`, `"terminal"`.
    pub display: Display,
    /// A graphics tablet (virtio), whose pointer is where the person's is: `"on"`, `"off"`. Default: on if the screen is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tablet: Option<Switch>,
    /// A port (F4h) by which the guest ends the machine with a status: `"on"` (default) or `"off"`.
    pub exit_port: Switch,
    /// Where the characters of the debug console (port E9h) lead: `"stdio"` (default), `"file:PATH"`, `"none"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<SerialTarget>,
    /// What it starts from.
    pub boot: BootConfig,
    /// What is heard of it.
    #[serde(skip_serializing_if = "SoundConfig::is_default")]
    pub sound: SoundConfig,
    /// What is there for test guests.
    pub test_ports: TestPortsConfig,
    /// Host memory.
    pub host_memory: HostMemoryConfig,
    /// When it ends.
    pub run: RunConfig,
    /// What a test of it expects.
    pub expect: ExpectConfig,
    /// What is written down while it runs.
    pub trace: TraceConfig,
    /// Disks.
    #[serde(rename = "disk", skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskConfig>,
}

impl Default for MachineConfig {
    fn default() -> MachineConfig {
        MachineConfig {
            memory: Size(256 << 20),
            cpus: 1,
            cpu: "max".to_owned(),
            engine: Engine::default(),
            jit_threshold: None,
            clock: Clock::default(),
            seed: 0,
            rtc: RtcDate::DEFAULT,
            serial: Vec::new(),
            display: Display::default(),
            tablet: None,
            exit_port: Switch::default(),
            console: None,
            boot: BootConfig::default(),
            sound: SoundConfig::default(),
            test_ports: TestPortsConfig::default(),
            host_memory: HostMemoryConfig::default(),
            run: RunConfig::default(),
            expect: ExpectConfig::default(),
            trace: TraceConfig::default(),
            disks: Vec::new(),
        }
    }
}

/// `[boot]`: what the machine starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BootConfig {
    /// A kernel: Linux bzImage, multiboot 1, PVH or plain ELF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// Initrds or modules.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub initrd: Vec<PathBuf>,
    /// The kernel's command line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub append: String,
    /// Which entry of the kernel is taken: `"best"` (default; a bzImage without another starts by its 16-bit one),
    /// `"bits32"` or `"real"`.
    pub entry: Entry,
    /// A system firmware image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bios: Option<PathBuf>,
    /// Where UEFI firmware keeps its variables; made from the firmware's template if there is no such file. Without it they
    /// are forgotten at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flash_vars: Option<PathBuf>,
    /// The display adapter's option ROM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vga_rom: Option<PathBuf>,
    /// A CD-ROM image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdrom: Option<PathBuf>,
    /// A floppy disk image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floppy: Option<PathBuf>,
    /// What firmware tries first: `"cdrom,disk,floppy"`, some of these, `"menu"`. Default: floppy, CD-ROM and disks that are
    /// named, in this order, then drives without a medium.
    #[serde(skip_serializing_if = "BootOrder::is_default")]
    pub order: BootOrder,
}

/// `[test-ports]`: what is there for test guests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TestPortsConfig {
    /// The test device of the kvm-unit-tests interface (ports E0h–EBh, 2000h–2017h, memory at FF000000h): `"off"` (default), `"on"`.
    pub device: Toggle,
    /// A port on which a test ROM reports its progress; its last value is in the summary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post: Option<u16>,
    /// A port that takes characters for the debug console, beside E9h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<u16>,
}

/// `[host-memory]`: how much of the host's memory the guest's may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostMemoryConfig {
    /// The most that guest RAM may occupy, `"256M"`. Less than the guest's memory: it is paged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Size>,
    /// A memory balloon (virtio), by which the guest tells what it does not need: `"on"`, `"off"`. Default: on if memory is paged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balloon: Option<Switch>,
    /// Whether frames may leave memory: `"resident"` (default), `"pinned"` (the host may not take them either) or `"paged"`.
    pub policy: MemoryPolicy,
    /// Which page leaves first: `"segmented"` (default: new pages are on probation) or `"clock"` (second chance).
    pub replacement: ReplacementPolicy,
    /// Whether the host needs memory, so that what the guest does not use is taken away: `"host"` (default: as the host says),
    /// `"none"`, `"tight"` or `"urgent"`. Where memory is paged.
    pub pressure: PressureChoice,
    /// The folder of the swap file, which only its owner can read and which has no name. Default: `$TMPDIR`, else `/var/tmp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_dir: Option<PathBuf>,
    /// Which host frames back the guest's pages: `"identity"` (default: in ascending order), `"permuted"` (scattered by
    /// `seed`) or `"permuted:SEED"`. The guest cannot see it.
    pub frame_order: FrameOrderChoice,
    /// Moves every frame to another place once in this time, `"10ms"` (guest time with the virtual clock): a test of the monitor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compact_every: Option<Span>,
}

/// `[run]`: when the run ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunConfig {
    /// End well when the serial output matches this regular expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// End with status 102 when the serial output matches this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_on: Option<String>,
    /// End with status 124 after this much host time, `"60s"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// End with status 124 after this many instructions of all processors together. Needs `clock = "virtual"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<u64>,
    /// The most memory that the process of a test or batch run may occupy; beyond it, it is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_memory: Option<Size>,
    /// What a reset does: `"reboot"` (default) or `"exit"` (status 104).
    pub on_reset: OnReset,
    /// What a triple fault does: `"exit"` (default: its story is printed, status 100) or `"reboot"`, as the chipset of a PC
    /// resets a processor that shuts down.
    pub on_crash: OnCrash,
    /// What is done at the first serial port, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub script: Vec<ScriptStep>,
    /// Where it is played: `"serial"` (default) or `"screen"` (keyboard and text screen).
    pub script_at: ScriptAt,
}

/// A step of `script`: `{ wait = "login:" }` or `{ type = "root\\n" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptStep {
    /// Waits until the guest has sent this text.
    Wait(String),
    /// Types this text; `\n` is Enter.
    Type(String),
}

/// `[trace]`: what is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TraceConfig {
    /// Trace categories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
    /// Internals to dump: `"uops"`, `"host"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dump: Vec<String>,
    /// Optimisations to switch off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disable: Vec<String>,
    /// Addresses (RIP) whose blocks are dumped at the end; where the processors stand if there is none. Of one run only: no key.
    #[serde(skip)]
    pub at: Vec<u64>,
    /// Names of emitted code in `/tmp/perf-PID.map`, for `perf report`: `"off"` (default), `"on"`.
    pub perf_map: Toggle,
    /// Where gdb can attach, `":1234"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gdb: Option<String>,
    /// A socket by which other processes look at the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<PathBuf>,
    /// Somebody looks at the machine when it has ended: what `umbra inspect` wants to know is noted. Never saved.
    #[serde(skip)]
    pub inspected: bool,
    /// Where the memory system's events go, in the Chrome trace format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<PathBuf>,
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),* $(,)? })*) => { $(
        $(#[$doc])*
        #[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$variant_doc])* $variant),* }
    )* };
}

choices! {
    /// What executes guest code.
    Engine {
        /// The interpreter.
        Interp,
        /// The compiler to host code; the interpreter where the host has no place for that.
        #[default]
        Jit,
        /// Both, compared step by step.
        Both,
    }
    /// Whose time the guest sees.
    Clock {
        /// The host's.
        #[default]
        Real,
        /// One nanosecond for each retired instruction.
        Virtual,
    }
    /// Where the screen is shown.
    Display {
        /// Nowhere.
        #[default]
        None,
        /// In a window.
        Window,
        /// In the terminal.
        Terminal,
    }
    /// On or off.
    Switch {
        /// It is there.
        #[default]
        On,
        /// It is not.
        Off,
    }
    /// Off or on.
    Toggle {
        /// It is not there.
        #[default]
        Off,
        /// It is.
        On,
    }
    /// Which of a kernel's entries is taken.
    Entry {
        /// The 64-bit one if kernel and processor have it.
        #[default]
        Best,
        /// The 32-bit one.
        Bits32,
        /// The 16-bit one of a bzImage, started by our own BIOS.
        Real,
    }
    /// Whether frames of guest RAM may leave the host's memory.
    MemoryPolicy {
        /// They stay as far as it lies with Umbra; the host gives each at its first touch.
        #[default]
        Resident,
        /// All are committed and locked before the guest starts.
        Pinned,
        /// They may be paged out.
        Paged,
    }
    /// Which page leaves host memory first.
    ReplacementPolicy {
        /// Pages that are used again are protected from those that are touched once.
        #[default]
        Segmented,
        /// A hand goes round, and passes over those that were used meanwhile.
        Clock,
    }
    /// Who says whether the host needs memory.
    PressureChoice {
        /// The host: stalls, the limits of its cgroups, memory that is available.
        #[default]
        Host,
        /// It never does.
        None,
        /// What is not used should go.
        Tight,
        /// And soon.
        Urgent,
    }
    /// Where a script is played.
    ScriptAt {
        /// The first serial port.
        #[default]
        Serial,
        /// Keyboard and text screen.
        Screen,
    }
    /// What a reset of the machine does.
    OnReset {
        /// It starts again.
        #[default]
        Reboot,
        /// The run ends.
        Exit,
    }
    /// What a triple fault does.
    OnCrash {
        /// The run ends.
        #[default]
        Exit,
        /// The machine is reset and starts again.
        Reboot,
    }
}

impl MachineConfig {
    /// Reads a machine file's text; `path` is for messages, and relative paths in the file are relative to its folder.
    pub fn from_toml(text: &str, path: &Path) -> Result<MachineConfig, ConfigError> {
        let mut config: MachineConfig = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
            let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
            let problem = error.message().replace('\n', " ");
            ConfigError::Syntax { file: path.display().to_string(), line, problem }
        })?;
        if let Some(folder) = path.parent() {
            config.resolve(folder);
        }
        Ok(config)
    }
    /// Writes a machine file that [`Self::from_toml`] reads as this machine.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| format!("# this machine cannot be written: {error}\n"))
    }
    /// Whether the machine has a memory balloon.
    pub fn has_balloon(&self) -> bool {
        self.host_memory.balloon.map_or(self.paged_limit().is_some(), |balloon| balloon == Switch::On)
    }
    /// Whether the machine has a tablet.
    pub fn has_tablet(&self) -> bool {
        self.tablet.map_or(self.display != Display::None, |tablet| tablet == Switch::On)
    }
    /// Makes relative paths relative to `folder`.
    fn resolve(&mut self, folder: &Path) {
        let BootConfig { kernel, initrd, bios, flash_vars, vga_rom, cdrom, floppy, .. } = &mut self.boot;
        let serial = self.serial.iter_mut().chain(&mut self.console).filter_map(|target| match target {
            SerialTarget::File(path) => Some(path),
            _ => None,
        });
        let kernel = kernel.iter_mut().chain(&mut self.expect.listing);
        let files = kernel.chain(initrd).chain(bios).chain(flash_vars).chain(vga_rom).chain(cdrom).chain(floppy);
        for path in files
            .chain(serial)
            .chain(&mut self.sound.wav)
            .chain(&mut self.trace.control)
            .chain(&mut self.trace.events)
            .chain(&mut self.host_memory.swap_dir)
            .chain(self.disks.iter_mut().map(|disk| &mut disk.file))
        {
            *path = folder.join(&*path);
        }
    }
    /// Whether guest RAM may leave host memory, and how much of it may be there at a time.
    pub fn paged_limit(&self) -> Option<Size> {
        let limit = self.host_memory.limit.filter(|limit| *limit < self.memory);
        limit.or((self.host_memory.policy == MemoryPolicy::Paged).then_some(self.memory))
    }
    /// Checks what is written against what a machine can be and what works today.
    pub fn check(&self) -> Result<MemoryMap, ConfigError> {
        let map = MemoryMap::new(self.memory.0)?;
        if !(1..=MAX_CPUS).contains(&self.cpus) {
            return Err(ConfigError::Cpus(self.cpus));
        }
        if self.serial.len() > 2 {
            return Err(ConfigError::SerialPorts(self.serial.len()));
        }
        if self.serial.iter().filter(|&target| *target == SerialTarget::Stdio).count() > 1 {
            return Err(ConfigError::TwoTerminals);
        }
        if self.host_memory.compact_every.is_some_and(|every| every.0.is_zero()) {
            return Err(ConfigError::CompactEvery);
        }
        if let Some(limit) = self.host_memory.limit.filter(|limit| *limit < self.memory) {
            if self.host_memory.policy == MemoryPolicy::Pinned {
                return Err(ConfigError::PinnedAndLimited);
            }
            if limit.0 < LEAST_MEMORY_LIMIT {
                return Err(ConfigError::MemoryLimit(limit.0));
            }
        }
        if self.boot.kernel.is_none() {
            if !self.boot.initrd.is_empty() {
                return Err(ConfigError::NoKernel("an initrd"));
            }
            if !self.boot.append.is_empty() {
                return Err(ConfigError::NoKernel("a command line"));
            }
        }
        if self.boot.kernel.is_some() && !self.boot.order.is_default() {
            return Err(ConfigError::OrderOfKernel);
        }
        if self.run.instructions.is_some() && self.clock != Clock::Virtual {
            return Err(ConfigError::InstructionsNeedVirtual);
        }
        if self.engine == Engine::Both && self.clock != Clock::Virtual {
            return Err(ConfigError::BothNeedsVirtual);
        }
        let written = self.disks.iter().find(|disk| disk.access == DiskAccess::ReadWrite && !disk.file.is_dir());
        if let (Engine::Both, Some(disk)) = (self.engine, written) {
            return Err(ConfigError::BothNeedsSnapshot(disk.file.clone()));
        }
        match &self.boot.flash_vars {
            Some(_) if self.boot.bios.is_none() => return Err(ConfigError::VariablesWithoutFirmware),
            Some(file) if self.engine == Engine::Both => return Err(ConfigError::BothWriteVariables(file.clone())),
            _ => {}
        }
        if self.console == Some(SerialTarget::Pty) {
            return Err(ConfigError::ConsolePty);
        }
        crate::drives::check(self)?;
        #[rustfmt::skip]
        let not_yet = [
            (self.disks.iter().any(|d| d.interface == DiskInterface::Virtio), "a virtio disk",      "if=ide"),
        ];
        match not_yet.into_iter().find(|&(wanted, ..)| wanted) {
            Some((_, what, instead)) => Err(ConfigError::NotYet { what, instead }),
            None => Ok(map),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MachineConfig, ConfigError> {
        MachineConfig::from_toml(text, Path::new("m/pc.toml"))
    }

    #[test]
    fn an_empty_file_is_the_default_machine() {
        assert_eq!(parse("").unwrap(), MachineConfig::default());
    }

    #[test]
    fn a_full_file_comes_back_as_itself() {
        let text = r#"
            memory = "512M"
            cpus = 2
            cpu = "486"
            clock = "virtual"
            seed = 7
            rtc = "1999-12-31"
            tablet = "on"
            serial = ["stdio", "file:/tmp/log"]
            [boot]
            kernel = "/boot/vmlinuz"
            initrd = ["/a", "/b"]
            append = "quiet"
            entry = "bits32"
            [sound]
            card = "ac97"
            wav = "/tmp/heard.wav"
            [host-memory]
            limit = "1G"
            policy = "paged"
            replacement = "clock"
            pressure = "tight"
            swap-dir = "/var/tmp"
            frame-order = "permuted:7"
            compact-every = "10ms"
            [run]
            until = "login:"
            timeout = "90s"
            instructions = 1000000
            on-reset = "exit"
            script = [{ wait = "login:" }, { type = "root\\n" }]
            [expect]
            end = "guest-exit"
            serial = ["a", "b"]
            [test-ports]
            device = "on"
            post = 0x190
            [trace]
            categories = ["io"]
            [[disk]]
            file = "/d.img"
            access = "snapshot"
        "#;
        let config = parse(text).unwrap();
        assert_eq!((config.memory.0, config.cpus, config.clock), (512 << 20, 2, Clock::Virtual));
        assert_eq!((config.test_ports.device, config.test_ports.post), (Toggle::On, Some(0x190)));
        let steps = [ScriptStep::Wait("login:".into()), ScriptStep::Type("root\\n".into())];
        assert_eq!(config.run.script, steps);
        assert_eq!(parse(&config.to_toml()).unwrap(), config);
        assert_eq!(parse(&MachineConfig::default().to_toml()).unwrap(), MachineConfig::default());
    }

    #[test]
    fn relative_paths_are_relative_to_the_file() {
        let config = parse("serial = [\"file:log\"]\n[boot]\nkernel = \"k\"\n[sound]\nwav = \"w\"\n").unwrap();
        assert_eq!(config.boot.kernel.unwrap(), Path::new("m/k"));
        assert_eq!(config.serial[0], SerialTarget::File("m/log".into()));
        assert_eq!(config.sound.wav.unwrap(), Path::new("m/w"));
    }

    #[test]
    fn bad_files_name_file_and_line() {
        #[rustfmt::skip]
        let cases = [
            ("memory = \"12Q\"",                     "m/pc.toml:1: \"12Q\" is not a size"),
            ("cpus = 2\nmemroy = \"1G\"",            "m/pc.toml:2: unknown field `memroy`"),
            ("\n\n[boot]\nkernal = \"x\"",           "m/pc.toml:4: unknown field `kernal`"),
            ("cpus = \"two\"",                       "m/pc.toml:1: invalid type"),
            ("engine = \"fast\"",                    "m/pc.toml:1: unknown variant `fast`"),
            ("cpus = 1\nseed = [",                   "m/pc.toml:2: "),
            ("[run]\ntimeout = \"soon\"",            "m/pc.toml:2: \"soon\" is not a length of time"),
            ("[expect]\n\nend = \"well\"",              "m/pc.toml:3: unknown variant `well`"),
            ("rtc = \"tomorrow\"",                   "m/pc.toml:1: \"tomorrow\" is not a date"),
            ("[sound]\ncard = \"sb16\"",             "m/pc.toml:2: unknown variant `sb16`"),
            ("serial = [\"com1\"]",                  "m/pc.toml:1: \"com1\" is not a serial port's target"),
        ];
        for (text, expected) in cases {
            let sentence = parse(text).unwrap_err().to_string();
            assert!(sentence.starts_with(expected) && !sentence.contains('\n'), "{sentence}");
        }
    }

    #[test]
    fn impossible_machines_are_refused() {
        #[rustfmt::skip]
        let cases = [
            ("memory = \"64K\"",                        "memory: a memory of 65536 bytes"),
            ("memory = \"4097K\"",                      ""),
            ("cpus = 0",                                "cpus = 0"),
            ("cpus = 65",                               "cpus = 65"),
            ("serial = [\"none\", \"none\", \"none\"]", "3 serial ports"),
            ("serial = [\"stdio\", \"stdio\"]",         "two serial ports"),
            ("[boot]\ninitrd = [\"x\"]",                "there is an initrd but no kernel"),
            ("[boot]\nappend = \"x\"",                  "there is a command line but no kernel"),
            ("[boot]\nkernel = \"k\"\norder = \"disk\"",  "a kernel starts before every drive"),
            ("engine = \"both\"",                       "the engine both needs the virtual clock"),
            ("engine = \"both\"\nclock = \"virtual\"\n[[disk]]\nfile = \"x\"", "with the engine both two machines"),
            ("[run]\ninstructions = 5",                 "a limit of instructions needs the virtual clock"),
            ("[boot]\nflash-vars = \"v\"",               "there is a file for UEFI variables but no firmware"),
            ("engine = \"both\"\nclock = \"virtual\"\n[boot]\nbios = \"b\"\nflash-vars = \"v\"", "with the engine both two machines"),
            ("console = \"pty\"",                       "the debug console cannot be a pseudo-terminal"),
            ("[[disk]]\nfile = \"x\"\ninterface = \"virtio\"", "a virtio disk is not there yet"),
            ("[host-memory]\npolicy = \"paged\"",       ""),
            ("[host-memory]\nlimit = \"1M\"",           ""),
            ("[host-memory]\nlimit = \"1000K\"",        "a memory limit of 1024000 bytes is too small"),
            ("[host-memory]\nlimit = \"1M\"\npolicy = \"pinned\"", "pinned memory stays"),
            ("[host-memory]\ncompact-every = \"0s\"",   "compact-every is no time at all"),
        ];
        for (text, expected) in cases {
            match parse(text).unwrap().check() {
                Ok(_) => assert_eq!(expected, "", "{text}"),
                Err(error) => assert!(error.to_string().starts_with(expected), "{error}"),
            }
        }
    }
}
