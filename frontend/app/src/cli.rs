//! The command line as types: verbs, options and their values. What they mean is in the files named after the verbs.
#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "doc comments here are the help text, where brackets mean an optional part"
)]

use crate::exit_status::{Failure, TABLE};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::path::PathBuf;
use umbra_conformance::guest_file::TextFrom;
use umbra_machine::config::{
    BootOrder, Clock, DiskConfig, Display, Engine, FrameOrderChoice, MemoryPolicy, OnCrash, OnReset, PressureChoice,
    ReplacementPolicy, RtcDate, ScriptAt, ScriptStep, SerialTarget, Size, SoundConfig, Span, Switch,
};

/// Umbra, a PC emulator. Without a verb it boots the demo guest.
#[derive(Debug, Parser)]
#[command(name = "umbra", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a machine: a kernel, a disk, a CD-ROM, a floppy or a machine file
    #[command(after_help = TABLE)]
    Run(Box<RunArgs>),
    /// Fetch a small guest and boot it
    Try {
        /// Which guest
        #[command(subcommand)]
        guest: TryGuest,
    },
    /// Run conformance suites
    Test(Box<TestArgs>),
    /// Run machines headless, each in a process of its own, and report
    Batch(BatchArgs),
    /// The child of umbra test that runs vectors
    #[command(hide = true)]
    Worker,
    /// Run the guest benchmarks
    Bench(BenchArgs),
    /// Run a machine and look at it: guest, monitor and host side by side
    Inspect(Box<InspectArgs>),
    /// Work with reports of suites
    Report {
        /// What to do with them
        #[command(subcommand)]
        verb: ReportVerb,
    },
}

/// The guests of `umbra try`.
#[derive(Debug, Subcommand)]
pub enum TryGuest {
    /// A Debian kernel with a busybox shell, fetched with apt-get download
    Linux(TryLinuxArgs),
}

/// `umbra try linux`.
#[derive(Debug, Args)]
pub struct TryLinuxArgs {
    /// Which kernel
    #[arg(long, default_value = "cloud", value_parser = PossibleValuesParser::new(["cloud", "amd64"]))]
    pub kernel: String,
    /// Where fetched files are kept (default: a folder in the user's cache)
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Fetch and build, print the command that boots it, and stop
    #[arg(long)]
    pub fetch_only: bool,
    /// Guest memory
    #[arg(short = 'm', long = "memory", value_name = "SIZE", default_value = "256M")]
    pub memory: Size,
}

/// A value with a fixed set of names.
fn choice<T: Copy + Send + Sync + 'static>(choices: &'static [(&'static str, T)]) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(choices.iter().map(|(name, _)| *name)).try_map(move |name: String| {
        choices.iter().find(|(known, _)| *known == name).map(|&(_, value)| value).ok_or("no such choice")
    })
}

/// A port number: hexadecimal with 0x, else decimal.
pub fn port(text: &str) -> Result<u16, String> {
    let number = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| format!("\"{text}\" is not a port (0 to 0xFFFF); try 0x190"))
}

/// A byte, written as a port is.
pub fn byte(text: &str) -> Result<u8, String> {
    let number = port(text).ok().and_then(|number| u8::try_from(number).ok());
    number.ok_or_else(|| format!("\"{text}\" is not a byte (0 to 0xFF); try 0xff"))
}

/// Where a guest's text is read.
pub fn text_from(text: &str) -> Result<TextFrom, String> {
    match text {
        "serial" => Ok(TextFrom::Serial),
        _ => port(text).map(TextFrom::Port).map_err(|_| format!("\"{text}\" is no place for text; try serial or 0xE9")),
    }
}

/// A count: digits, with an optional K, M or G for thousands, millions or milliards.
pub fn count(text: &str) -> Result<u64, String> {
    let bad = || format!("\"{text}\" is not a count; try 1000000 or 5M");
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1_000),
        Some((at, 'M' | 'm')) => (&text[..at], 1_000_000),
        Some((at, 'G' | 'g')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|n| *n > 0).ok_or_else(bad)
}

#[rustfmt::skip]
mod choices {
    use super::*;
    pub const ENGINES: &[(&str, Engine)] = &[("interp", Engine::Interp), ("jit", Engine::Jit), ("both", Engine::Both)];
    pub const CLOCKS: &[(&str, Clock)] = &[("real", Clock::Real), ("virtual", Clock::Virtual)];
    pub const DISPLAYS: &[(&str, Display)] = &[("window", Display::Window), ("terminal", Display::Terminal), ("none", Display::None)];
    pub const SWITCHES: &[(&str, Switch)] = &[("on", Switch::On), ("off", Switch::Off)];
    pub const SCRIPT_PLACES: &[(&str, ScriptAt)] = &[("serial", ScriptAt::Serial), ("screen", ScriptAt::Screen)];
    #[cfg(feature = "window")]
    pub const BACKENDS: &[(&str, crate::window::Backend)] = {
        use crate::window::Backend;
        &[("auto", Backend::Auto), ("gpu", Backend::Gpu), ("software", Backend::Software)]
    };
    #[cfg(feature = "window")]
    pub const SCALINGS: &[(&str, crate::window::Scaling)] =
        &[("sharp", crate::window::Scaling::Integer), ("smooth", crate::window::Scaling::Smooth)];
    pub const RESETS: &[(&str, OnReset)] = &[("reboot", OnReset::Reboot), ("exit", OnReset::Exit)];
    pub const CRASHES: &[(&str, OnCrash)] = &[("exit", OnCrash::Exit), ("reboot", OnCrash::Reboot)];
    pub const REPLACEMENTS: &[(&str, ReplacementPolicy)] = &[("segmented", ReplacementPolicy::Segmented), ("clock", ReplacementPolicy::Clock)];
    pub const PRESSURES: &[(&str, PressureChoice)] =
        &[("host", PressureChoice::Host), ("none", PressureChoice::None), ("tight", PressureChoice::Tight), ("urgent", PressureChoice::Urgent)];
    pub const POLICIES: &[(&str, MemoryPolicy)] =
        &[("resident", MemoryPolicy::Resident), ("pinned", MemoryPolicy::Pinned), ("paged", MemoryPolicy::Paged)];
}

/// What describes a machine and its run.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// A kernel, disk, CD-ROM or floppy image, or a machine file (.toml): Umbra looks at it and says what it is
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A kernel: Linux bzImage, multiboot 1, PVH or plain ELF
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// An initrd or a module; may be repeated
    #[arg(long, value_name = "FILE")]
    pub initrd: Vec<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// A system firmware image: SeaBIOS, or UEFI firmware (OVMF.fd, OVMF_CODE.fd)
    #[arg(long, value_name = "FILE")]
    pub bios: Option<PathBuf>,
    /// Where UEFI firmware keeps its variables; a new file is made from the template beside it (OVMF_VARS.fd) [default: they are forgotten at the end]
    #[arg(long, value_name = "FILE")]
    pub flash_vars: Option<PathBuf>,
    /// The display adapter's option ROM [default: vgabios-stdvga.bin beside the --bios file, if it is there]
    #[arg(long, value_name = "FILE")]
    pub vga_rom: Option<PathBuf>,
    /// A disk: FILE[,if=ide|ahci|virtio][,format=raw|qcow2][,snapshot][,ro]; may be repeated
    #[arg(long, value_name = "FILE[,…]")]
    pub disk: Vec<DiskConfig>,
    /// A CD-ROM image
    #[arg(long, value_name = "FILE")]
    pub cdrom: Option<PathBuf>,
    /// A floppy disk image
    #[arg(long, value_name = "FILE")]
    pub floppy: Option<PathBuf>,
    /// What the BIOS tries first, such as cdrom,disk,floppy; the others follow. With menu it asks [default: the floppy, CD-ROM and disks that are named, in this order]
    #[arg(long, value_name = "ORDER")]
    pub boot: Option<BootOrder>,
    /// Guest memory, such as 512M [default: 256M]
    #[arg(short = 'm', long = "memory", value_name = "SIZE")]
    pub memory: Option<Size>,
    /// Processors, 1–64 [default: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// The processor's model, such as max, x86-64-v2, pentium3, 486 [default: max]
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// What executes guest code [default: jit, or interp where a host does not run emitted code]
    #[arg(long, value_parser = choice(choices::ENGINES))]
    pub engine: Option<Engine>,
    /// Runs of a block by the interpreter before the JIT makes code of it; 1: every block at once [default: 12]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub jit_threshold: Option<u32>,
    /// Whose time the guest sees [default: real; virtual with --engine both]
    #[arg(long, value_parser = choice(choices::CLOCKS))]
    pub clock: Option<Clock>,
    /// Where all that is random comes from [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// The date at power-on, such as 2026-01-01T12:30:00
    #[arg(long, value_name = "DATE")]
    pub rtc: Option<RtcDate>,
    /// No window and no screen: the serial port is the console
    #[arg(long, conflicts_with = "display")]
    pub headless: bool,
    /// Where the screen is shown [default: window if there is a display and no machine file says otherwise, else none]
    #[arg(long, value_parser = choice(choices::DISPLAYS))]
    pub display: Option<Display>,
    /// Where a serial port leads: stdio, file:PATH, pty or none; the first is COM1, the second COM2
    #[arg(long, value_name = "TARGET")]
    pub serial: Vec<SerialTarget>,
    /// Where the debug console (port E9h) leads: stdio, file:PATH or none [default: stdio]
    #[arg(long, value_name = "TARGET")]
    pub console: Option<SerialTarget>,
    /// What is heard: none, ac97 (a sound card) and wav=FILE (a recording, PC speaker included), as ac97,wav=FILE [default: none]
    #[arg(long, value_name = "CARD[,wav=FILE]")]
    pub sound: Option<SoundConfig>,
    /// A memory balloon, by which the guest tells what it does not need: on or off [default: on if memory is paged]
    #[arg(long, value_parser = choice(choices::SWITCHES))]
    pub balloon: Option<Switch>,
    /// A graphics tablet, so that no pointer needs to be captured: on or off [default: on with a window or terminal]
    #[arg(long, value_parser = choice(choices::SWITCHES))]
    pub tablet: Option<Switch>,
    /// A port on which a test ROM reports its progress, such as 0x190; its last value is in the summary
    #[arg(long, value_name = "PORT", value_parser = port)]
    pub post_port: Option<u16>,
    /// A port that takes characters for the debug console, beside E9h
    #[arg(long, value_name = "PORT", value_parser = port)]
    pub debug_port: Option<u16>,
    /// The test device of kvm-unit-tests: ports E0h-EBh and 2000h-2017h, memory at FF000000h
    #[arg(long)]
    pub test_device: bool,
    /// No exit device: port F4h does nothing
    #[arg(long)]
    pub no_exit_port: bool,
    /// What draws in the window [default: auto]
    #[cfg(feature = "window")]
    #[arg(long, value_parser = choice(choices::BACKENDS))]
    pub window_backend: Option<crate::window::Backend>,
    /// How the picture fills the window: sharp, or smoothed to the proportions of a monitor [default: sharp]
    #[cfg(feature = "window")]
    #[arg(long, value_parser = choice(choices::SCALINGS))]
    pub scaling: Option<crate::window::Scaling>,
    /// The window begins as full screen
    #[cfg(feature = "window")]
    #[arg(long)]
    pub full_screen: bool,
    /// Save each new picture of the screen in this folder, as 000000.png and so on
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Save the screen as a picture at the end
    #[arg(long, value_name = "FILE.png")]
    pub screenshot: Option<PathBuf>,
    /// Print the text screen at the end
    #[arg(long)]
    pub screen_text: bool,
    /// The most host memory that guest RAM may occupy; less than the guest's memory: the rest is in a swap file
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<Size>,
    /// Whether guest RAM may leave host memory [default: resident]
    #[arg(long, value_parser = choice(choices::POLICIES))]
    pub memory_policy: Option<MemoryPolicy>,
    /// The folder of the swap file, which has no name there [default: $TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub swap_dir: Option<PathBuf>,
    /// Which page leaves host memory first [default: segmented]
    #[arg(long, value_parser = choice(choices::REPLACEMENTS))]
    pub replacement: Option<ReplacementPolicy>,
    /// Whether the host needs memory, so that what the guest does not use is taken away (where RAM is paged) [default: host, which is asked]
    #[arg(long, value_parser = choice(choices::PRESSURES))]
    pub memory_pressure: Option<PressureChoice>,
    /// Which host frames back guest pages: identity, permuted (scattered by --seed) or permuted:SEED; the guest cannot
    /// see it [default: identity]
    #[arg(long, value_name = "ORDER")]
    pub frame_order: Option<FrameOrderChoice>,
    /// Move every frame of guest RAM to another place once in this time, such as 10ms; the guest cannot see it
    #[arg(long, value_name = "TIME")]
    pub compact_every: Option<Span>,
    /// End well when the serial output matches this regular expression
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    pub until: Option<String>,
    /// End with status 102 when the serial output matches this regular expression
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    pub fail_on: Option<String>,
    /// End with status 124 after this much host time, such as 60s
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
    /// End with status 124 after this many instructions (needs --clock virtual)
    #[arg(long, value_name = "N", value_parser = count)]
    pub instructions: Option<u64>,
    /// What a reset does [default: reboot]
    #[arg(long, value_parser = choice(choices::RESETS))]
    pub on_reset: Option<OnReset>,
    /// What a triple fault does [default: exit]
    #[arg(long, value_parser = choice(choices::CRASHES))]
    pub on_crash: Option<OnCrash>,
    /// Where --type and --wait-text act: the serial console, or keyboard and text screen (keys as \{f12}, \{ctrl+c}; without a display the run ends well when all is done) [default: serial]
    #[arg(long, value_parser = choice(choices::SCRIPT_PLACES))]
    pub type_at: Option<ScriptAt>,
    /// Type this at the serial console (\n is Enter); after the --wait-text before it
    #[arg(long = "type", value_name = "TEXT", allow_hyphen_values = true)]
    pub type_text: Vec<String>,
    /// Wait for this text on the serial console before the next --type
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub wait_text: Vec<String>,
    /// Wait for gdb there before the first instruction: [HOST]:PORT[,x86-64|i386|i8086]
    #[arg(long, value_name = "ADDRESS")]
    pub gdb: Option<String>,
    /// Write these categories to standard error (--trace help lists them)
    #[arg(long, value_name = "CAT", value_delimiter = ',')]
    pub trace: Vec<String>,
    /// What to print at the end of the blocks that hold the instructions --at: uops, host
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub dump: Vec<String>,
    /// Addresses (RIP) for --dump, or linear addresses that umbra inspect explains [default: where the processor stands]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = crate::inspect::parse_address)]
    pub at: Vec<u64>,
    /// Let umbra inspect --connect look at the machine while it runs
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// Write what happens in the memory system (root switches, fills, shootdowns ...) as a trace that Perfetto opens
    #[arg(long, value_name = "FILE")]
    pub trace_events: Option<PathBuf>,
    /// Write the names of emitted code to /tmp/perf-PID.map, for perf report
    #[arg(long)]
    pub perf_map: bool,
    /// Optimisations to switch off
    #[arg(long, value_name = "OPT", value_delimiter = ',')]
    pub disable: Vec<String>,
    /// Print a summary as one line of JSON at the end: on standard output, or on standard error if that is a serial port
    #[arg(long)]
    pub json: bool,
    /// Write the machine as a machine file, and do not run it
    #[arg(long, value_name = "FILE.toml")]
    pub save_config: Option<PathBuf>,
    /// `--type` and `--wait-text` in the order in which they were given.
    #[arg(skip)]
    pub script: Vec<ScriptStep>,
}

/// Where reports of `test`, `batch` and `report merge` go.
#[derive(Clone, Debug, Default, Args)]
pub struct ReportArgs {
    /// Write a JUnit report
    #[arg(long, value_name = "FILE.xml")]
    pub junit: Option<PathBuf>,
    /// Print the report as JSON, or write it to a file (--json=FILE); umbra report merge reads it
    #[arg(long, value_name = "FILE.json", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub json: Option<PathBuf>,
    /// Write the report as one HTML page
    #[arg(long, value_name = "FILE.html")]
    pub html: Option<PathBuf>,
}

/// `umbra test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Files and folders of tests (vectors, ROMs, multiboot kernels, machine files); "roms" for our own test ROMs, or one of them by name
    #[arg(value_name = "SUITE|PATH", required_unless_present = "masks")]
    pub what: Vec<PathBuf>,
    /// Print what is not compared of recorded vectors, each mask with the manual's reason, and run nothing
    #[arg(long)]
    pub masks: bool,
    /// Only tests whose full name contains this text, or matches it if it has a *
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub filter: Option<String>,
    /// Run the i-th of n parts, such as 1/4
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// How many run at once [default: the host's processors]
    #[arg(long, value_name = "N")]
    pub jobs: Option<std::num::NonZeroUsize>,
    /// At most so many cases of each vector file
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// What executes guest code [default: jit, or interp where a host does not run emitted code]
    #[arg(long, value_parser = choice(choices::ENGINES))]
    pub engine: Option<Engine>,
    /// The processor's model [default: max]
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<String>,
    /// Whether guest RAM may leave host memory; if paged, as much as can be is out at any time [default: resident]
    #[arg(long, value_parser = choice(choices::POLICIES))]
    pub memory_policy: Option<MemoryPolicy>,
    /// Print the names of the tests, and run none
    #[arg(long)]
    pub list: bool,
    /// Write what guests send to their listings, in place of comparing it
    #[arg(long)]
    pub bless: bool,
    /// A list of cases that are known to fail, each with a reason; may be repeated
    #[arg(long, value_name = "FILE")]
    pub expected: Vec<PathBuf>,
    /// Name every vector in the reports, not only those that failed
    #[arg(long)]
    pub all: bool,
    /// How many failures of each suite are printed
    #[arg(long, value_name = "N", default_value = "3")]
    pub failures: usize,
    /// Keep what each guest sends and what Umbra says in this folder
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
    /// ROMs: the port on which they report their progress, such as 0x190
    #[arg(long, value_name = "PORT", value_parser = port, help_heading = "Whole guests")]
    pub post_port: Option<u16>,
    /// ROMs: the value that --post-port must hold at the end (without it, the exit device at F4h decides)
    #[arg(long, value_name = "VALUE", value_parser = byte, requires = "post_port", help_heading = "Whole guests")]
    pub expect: Option<u8>,
    /// ROMs and kernels: where their text is read: serial, or a port such as 0xE9 [default: serial]
    #[arg(long, value_name = "PORT|serial", value_parser = text_from, help_heading = "Whole guests")]
    pub text: Option<TextFrom>,
    /// ROMs and kernels: a file with exactly the text (default: NAME.listing beside the image, if it is there)
    #[arg(long, value_name = "FILE", help_heading = "Whole guests")]
    pub listing: Option<PathBuf>,
    /// Kernels: their arguments
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = "Whole guests")]
    pub append: Option<String>,
    /// Kernels: a file of NAME=VALUE lines, given as their module
    #[arg(long, value_name = "FILE", help_heading = "Whole guests")]
    pub env: Option<PathBuf>,
    /// ROMs and kernels: guest memory
    #[arg(short = 'm', long = "memory", value_name = "SIZE", help_heading = "Whole guests")]
    pub memory: Option<Size>,
    /// ROMs and kernels: what a triple fault does [default: exit]
    #[arg(long, value_parser = choice(choices::CRASHES), help_heading = "Whole guests")]
    pub on_crash: Option<OnCrash>,
    /// Stop a guest after so many instructions
    #[arg(long, value_name = "N", value_parser = count, help_heading = "Whole guests")]
    pub instructions: Option<u64>,
    /// Stop a guest after so much host time, if its machine file does not say
    #[arg(long, value_name = "TIME", help_heading = "Whole guests")]
    pub timeout: Option<Span>,
    /// Where reports go.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// The i-th of n parts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, from 1.
    pub index: u32,
    /// Of how many.
    pub of: u32,
}

impl std::str::FromStr for Shard {
    type Err = String;
    fn from_str(text: &str) -> Result<Shard, String> {
        let bad = || format!("\"{text}\" is not a part; try 1/4 for the first of four");
        let (index, of) = text.split_once('/').ok_or_else(bad)?;
        let shard = Shard { index: index.parse().map_err(|_| bad())?, of: of.parse().map_err(|_| bad())? };
        if shard.index == 0 || shard.index > shard.of { Err(bad()) } else { Ok(shard) }
    }
}

/// `umbra batch`.
#[derive(Debug, Args)]
pub struct BatchArgs {
    /// Machine files
    #[arg(value_name = "FILE.toml", required = true)]
    pub files: Vec<PathBuf>,
    /// How many run at once [default: the host's processors; with --share: all]
    #[arg(long, value_name = "N")]
    pub jobs: Option<std::num::NonZeroUsize>,
    /// Put all of them into one process and one pool, where equal pages of guest memory are one frame: for machines of one owner, since each
    /// can find out by time what is in the others' memory. A crash of the process ends them all
    #[arg(long)]
    pub share: bool,
    /// Stop each after so much host time, if its file does not say [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
    /// Stop each after so many instructions, if its file does not say
    #[arg(long, value_name = "N", value_parser = count)]
    pub instructions: Option<u64>,
    /// Keep what each guest sends and what Umbra says in this folder
    #[arg(long, value_name = "DIR")]
    pub logs: Option<PathBuf>,
    /// Where reports go.
    #[command(flatten)]
    pub report: ReportArgs,
}

/// `umbra bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Run the same in another emulator, and print ratios
    #[arg(long, value_name = "EMULATOR", value_parser = PossibleValuesParser::new(["qemu"]))]
    pub against: Option<String>,
    /// Run guestbench on the host itself, too
    #[arg(long)]
    pub native: bool,
    /// The folder with the guests: kernels/vmlinuz-NAME, bin/guestbench64, img/initrd64.cpio.gz (and 32); what is missing is
    /// fetched with apt-get and built with gcc [default: a folder in the user's cache]
    #[arg(long, value_name = "DIR")]
    pub guests: Option<PathBuf>,
    /// Which kernel
    #[arg(long, default_value = "cloud", value_parser = PossibleValuesParser::new(["amd64", "cloud", "686", "pae"]))]
    pub kernel: String,
    /// What guestbench is to run: its arguments, such as "-s 0.05 mem."; "none" boots only
    #[arg(long, value_name = "ARGS", default_value = "-s 0.05", allow_hyphen_values = true)]
    pub select: String,
    /// How often each is run, in turns; the median counts
    #[arg(long, value_name = "N", default_value = "1")]
    pub repeat: std::num::NonZeroUsize,
    /// Engines to measure, such as interp,jit; ratios are the first one's [default: jit]
    #[arg(long, value_delimiter = ',', value_parser = choice(&choices::ENGINES[..2]))]
    pub engine: Vec<Engine>,
    /// Processor models in Umbra, such as max,x86-64-v2: a column each [default: max]
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    pub cpu: Vec<String>,
    /// Optimisations to switch off
    #[arg(long, value_name = "OPT", value_delimiter = ',')]
    pub disable: Vec<String>,
    /// What one optimisation is worth: each engine again with this one switched off, such as roots,descriptors: a column each
    #[arg(long, value_name = "OPT", value_delimiter = ',')]
    pub without: Vec<String>,
    /// Write a chart of the ratios
    #[arg(long, value_name = "FILE.svg")]
    pub svg: Option<PathBuf>,
    /// Give up on a run after this much time
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub timeout: Span,
    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `umbra inspect` looks at.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum InspectWhat {
    /// Every monitor entry against the guest's tables.
    Audit,
    /// How slow accesses were classified.
    Fault,
    /// Host memory.
    Reclaim,
    /// Registers of all vCPUs.
    Registers,
    /// TLBs.
    Tlb,
    /// Monitor roots.
    Roots,
    /// All of guest RAM.
    Heat,
    /// The addresses of --at alone.
    Address,
}

/// The words for them.
pub const INSPECTIONS: &[(&str, InspectWhat)] = &[
    ("audit", InspectWhat::Audit),
    ("fault", InspectWhat::Fault),
    ("reclaim", InspectWhat::Reclaim),
    ("registers", InspectWhat::Registers),
    ("tlb", InspectWhat::Tlb),
    ("roots", InspectWhat::Roots),
    ("heat", InspectWhat::Heat),
    ("address", InspectWhat::Address),
];

/// `umbra inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// What to look at: in a running machine with --connect, else when the run has ended (by --until, --timeout or by itself)
    #[arg(value_parser = choice(INSPECTIONS))]
    pub what: InspectWhat,
    /// A running machine: what it was given as --control
    #[arg(long, value_name = "SOCKET")]
    pub connect: Option<PathBuf>,
    /// Draw a map of guest RAM there: .svg, or PNG with a pixel for each page
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Look again and again, so much time apart, with --connect: a map is drawn anew each time, by when pages were used, on the
    /// terminal without --output
    #[arg(long, value_name = "TIME", requires = "connect")]
    pub follow: Option<Span>,
    /// The machine.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What is done with reports.
#[derive(Debug, Subcommand)]
pub enum ReportVerb {
    /// Put the reports of several parts together
    Merge {
        /// Reports as umbra test --json writes them, or the words of cargo test
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// Where the whole goes.
        #[command(flatten)]
        report: ReportArgs,
    },
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// Something to do.
    Do(Box<Cli>),
    /// Only a text: help or version.
    Show(String),
}

/// Reads a command line.
pub fn parse(words: impl Iterator<Item = std::ffi::OsString>) -> Result<Asked, Failure> {
    let parsed = Cli::command().try_get_matches_from(words).and_then(|matches| {
        let mut cli = Cli::from_arg_matches(&matches)?;
        match (&mut cli.verb, matches.subcommand()) {
            (Some(Verb::Run(args)), Some((_, matches))) => args.script = script(matches),
            (Some(Verb::Inspect(args)), Some((_, matches))) => args.run.script = script(matches),
            _ => {}
        }
        Ok(cli)
    });
    match parsed {
        Ok(cli) => Ok(Asked::Do(Box::new(cli))),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                let colour = !plain && std::io::IsTerminal::is_terminal(&std::io::stdout());
                let text = error.render();
                Ok(Asked::Show(if colour { text.ansi().to_string() } else { text.to_string() }))
            }
            _ => Err(Failure::input(sentence(&error.render().to_string()))),
        },
    }
}

/// `--type` and `--wait-text` in their order.
fn script(matches: &clap::ArgMatches) -> Vec<ScriptStep> {
    let mut steps = Vec::new();
    for (id, make) in [("type_text", ScriptStep::Type as fn(String) -> ScriptStep), ("wait_text", ScriptStep::Wait)] {
        let texts = matches.get_many::<String>(id).into_iter().flatten();
        steps.extend(matches.indices_of(id).into_iter().flatten().zip(texts.map(|text| make(text.clone()))));
    }
    steps.sort_by_key(|(index, _)| *index);
    steps.into_iter().map(|(_, step)| step).collect()
}

/// One sentence of what the option parser says in several lines.
fn sentence(text: &str) -> String {
    let mut parts = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        let line = line.trim_start_matches("error: ").trim_start_matches("tip: ").trim();
        if !line.is_empty() {
            parts.push(line.to_owned());
        }
    }
    let said = parts.join("; ").replace(":;", ":");
    if said.contains("; try ") || said.contains("a similar") { said } else { format!("{said}; try --help") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> RunArgs {
        let words = ["umbra", "run"].iter().chain(words).map(std::ffi::OsString::from);
        match parse(words) {
            Ok(Asked::Do(cli)) => match cli.verb {
                Some(Verb::Run(args)) => *args,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_parser_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_of_run_is_taken() {
        let args = run(&[
            "x.img",
            "--kernel",
            "k",
            "--initrd",
            "i",
            "--append",
            "-a b",
            "-m",
            "1G",
            "--cpus",
            "2",
            "--cpu",
            "486",
            "--disk",
            "d.img,if=virtio,ro",
            "--cdrom",
            "c",
            "--floppy",
            "f",
            "--boot",
            "menu,disk",
            "--bios",
            "b",
            "--flash-vars",
            "vars.fd",
            "--vga-rom",
            "v",
            "--headless",
            "--serial",
            "stdio",
            "--serial",
            "file:x",
            "--sound",
            "ac97,wav=a.wav",
            "--screenshot",
            "o.png",
            "--screen-text",
            "--engine",
            "both",
            "--clock",
            "virtual",
            "--seed",
            "3",
            "--rtc",
            "2000-02-29",
            "--memory-limit",
            "1M",
            "--memory-policy",
            "paged",
            "--frame-order",
            "permuted:7",
            "--compact-every",
            "10ms",
            "--until",
            "^x",
            "--fail-on",
            "-y",
            "--timeout",
            "5m",
            "--on-reset",
            "exit",
            "--gdb",
            ":1234",
            "--trace",
            "boot,exit",
            "--dump",
            "uops,host",
            "--disable",
            "chains",
            "--json",
            "--save-config",
            "m.toml",
        ]);
        assert_eq!((args.memory, args.cpus, args.engine), (Some(Size(1 << 30)), Some(2), Some(Engine::Both)));
        assert_eq!((args.trace.len(), args.serial.len(), args.append.as_deref()), (2, 2, Some("-a b")));
    }

    #[test]
    fn the_script_keeps_its_order() {
        let args = run(&["--wait-text", "login:", "--type", "root\\n", "--wait-text", "#", "--type", "ls\\n"]);
        let steps: Vec<String> = args.script.iter().map(|step| format!("{step:?}")).collect();
        assert_eq!(steps, [r#"Wait("login:")"#, r#"Type("root\\n")"#, r##"Wait("#")"##, r#"Type("ls\\n")"#]);
    }

    #[test]
    fn ports_and_counts() {
        assert_eq!((port("0x190"), port("128"), count("5M"), count("7")), (Ok(0x190), Ok(128), Ok(5_000_000), Ok(7)));
        for text in ["", "0x", "65536", "-1", "x"] {
            assert!(port(text).unwrap_err().contains("; try "), "{text}");
        }
        for text in ["", "0", "M", "1T", "99999999999999999999", "9999999999999G", "\u{e9}"] {
            assert!(count(text).unwrap_err().contains("; try "), "{text}");
        }
    }

    #[test]
    fn shards() {
        assert_eq!("2/4".parse(), Ok(Shard { index: 2, of: 4 }));
        for text in ["", "1", "0/4", "5/4", "a/b", "1/"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
