//! Builds a machine: from a [`MachineConfig`] and files, or piece by piece in code.
//!
//! ```no_run
//! use umbra_machine::{Machine, RunLimits};
//! # fn main() -> Result<(), umbra_machine::BuildError> {
//! let mut machine = Machine::builder().memory(256 << 20).kernel_file("vmlinuz").append("console=ttyS0").build()?;
//! machine.connect_serial(0, Box::new(|bytes| print!("{}", String::from_utf8_lossy(bytes))));
//! println!("{:?}", machine.run(RunLimits::default()));
//! # Ok(()) }
//! ```

use crate::acpi::{self, AcpiBoard};
use crate::board::{Board, BoardParts, Fit, SharedBoard, SoundParts, TestParts, VcpuParts};
use crate::config::{
    Clock, ConfigError, Display, Engine, Entry, MachineConfig, MemoryPolicy, SerialTarget, Size, SoundCard,
    SoundConfig, Span, Switch, Toggle,
};
use crate::contents::{Begun, Contents};
use crate::drives::{BoardBell, Drives, MediaHost};
use crate::host_memory::{self, CommonPool};
use crate::images::ImageError;
use crate::load::bzimage::real_mode::{self, Items};
use crate::load::bzimage::{self, HEAD};
use crate::load::flat::FlatMode;
use crate::load::{
    self, Bytes, EntryChoice, EntryState, LoadError, LoadOptions, LoadPlan, LoadProblem, Module, Processor, Screen,
};
use crate::machine::Machine;
use crate::memory_map::MemoryMap;
use crate::paging::{self, SwapMaker};
use crate::pressure::Reclaimer;
use crate::storm::{self, Storm};
use crate::time::GuestClock;
use crate::uefi::{self, UefiError};
use crate::vcpu_bus::VcpuBus;
use crate::wiring;
use parking_lot::{Condvar, Mutex};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use umbra_cpu::Vcpu;
use umbra_cpu::decode::CpuidFeature;
use umbra_cpu::emit::{ArenaError, DEFAULT_BYTES, Disable, Jit};
use umbra_cpu::model::{CpuModel, Feature};
use umbra_devices::block::Notices;
use umbra_devices::hpet::Hpet;
use umbra_devices::lapic;
use umbra_devices::pci::piix3_ide::LegacyPorts;
use umbra_devices::rtc_mc146818::CivilTime;
use umbra_devices::vga;
use umbra_mmu::attention::Attention;
use umbra_mmu::frames::{FrameOrder, PoolError};
use umbra_mmu::memory::{GuestMemory, MapError};
use umbra_mmu::{GuestPhys, PhysPage};

/// The time-stamp counter counts guest time in nanoseconds.
const TSC_KHZ: u32 = 1_000_000;
/// The largest option ROM of the display adapter.
const MAX_VGA_ROM_BYTES: u64 = 1 << 20;

/// Why there is no machine.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The description is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read.
    #[error("{file}: {problem}; try another path", file = .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the host says.
        problem: std::io::Error,
    },
    /// There is no place for a swap file.
    #[error("{folder}: no swap file can be made there ({problem}); try --swap-dir with another folder", folder = .folder.display())]
    Swap {
        /// Where.
        folder: PathBuf,
        /// What the host says.
        problem: std::io::Error,
    },
    /// An image is no good.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A file is no good.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There is no such processor.
    #[error("there is no processor model \"{0}\"; try --cpu max")]
    UnknownCpu(String),
    /// The host has no memory for it.
    #[error("guest memory: {0}; try a smaller -m")]
    Pool(#[from] PoolError),
    /// Both engines are asked for, and the host has no place for emitted code.
    #[error("{0}; try --engine interp")]
    NoJit(ArenaError),
    /// There is no such optimisation.
    #[error("{0} names no optimisation; try one of: {names}", names = names())]
    UnknownOptimisation(String),
    /// UEFI firmware and its variables do not fit together.
    #[error(transparent)]
    Uefi(#[from] UefiError),
    /// A range of guest memory cannot be mapped.
    #[error("guest memory: {0}")]
    Map(#[from] MapError),
}

/// Optimisations that are not the JIT's: TLBs kept over CR3 loads, one set a root,
const ROOTS: &str = "roots";
/// misses of the TLB that emitted code serves, and
const REFILLS: &str = "refills";
/// monitor descriptor tables, and
const DESCRIPTORS: &str = "descriptors";
/// blocks that load the immediates that their program keeps changing.
const PATCHES: &str = "patches";
/// All of these.
const OTHERS: [&str; 4] = [ROOTS, REFILLS, DESCRIPTORS, PATCHES];

fn names() -> String {
    let names: Vec<&str> = Disable::NAMES.into_iter().map(|(name, _)| name).chain(OTHERS).collect();
    names.join(", ")
}

/// Whether all of these are names of optimisations, as `--disable` takes them.
pub fn check_optimisations(names: &[String]) -> Result<(), BuildError> {
    disabled(names).map(|_| ())
}

/// The JIT's optimisations that are switched off.
fn disabled(names: &[String]) -> Result<Disable, BuildError> {
    let bit = |name: &String| {
        let known = Disable::NAMES.into_iter().find(|(known, _)| *known == name.as_str());
        known.map(|(_, bit)| bit).ok_or_else(|| BuildError::UnknownOptimisation(name.clone()))
    };
    let mut names = names.iter().filter(|name| !OTHERS.contains(&name.as_str()));
    names.try_fold(Disable::default(), |Disable(bits), name| Ok(Disable(bits | bit(name)?)))
}

fn read_problem(file: &Path, problem: std::io::Error) -> BuildError {
    BuildError::Read { file: file.to_owned(), problem }
}

/// A file, read or still to read.
#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Bytes(String, Arc<[u8]>),
}

impl Source {
    /// Its name for messages, and its bytes. A file is read each time: it is not kept beside guest memory.
    fn read(&self) -> Result<(String, Contents<'_>), BuildError> {
        match self {
            Source::File(path) => {
                let bytes = Contents::of(path).map_err(|problem| read_problem(path, problem))?;
                Ok((path.display().to_string(), bytes))
            }
            Source::Bytes(name, bytes) => Ok((name.clone(), Contents::Given(bytes))),
        }
    }

    /// Its path, if it is a file.
    fn path(&self) -> Option<&Path> {
        match self {
            Source::File(path) => Some(path),
            Source::Bytes(..) => None,
        }
    }

    /// Its first bytes, where a kernel says what it is: kernels are large, and read whole when they are loaded.
    fn head(&self) -> Result<Vec<u8>, BuildError> {
        match self {
            Source::File(path) => {
                let begun = Begun::open(path, HEAD).map_err(|problem| read_problem(path, problem))?;
                Ok(begun.head().to_vec())
            }
            Source::Bytes(_, bytes) => Ok(bytes.iter().take(HEAD as usize).copied().collect()),
        }
    }
}

/// Where a flat image goes and how it starts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FlatStart {
    /// Its address.
    pub at: GuestPhys,
    /// Its mode.
    pub mode: FlatMode,
}

/// A machine under construction. See the module's example.
#[derive(Clone)]
pub struct MachineBuilder {
    config: MachineConfig,
    kernel: Option<Source>,
    initrd: Vec<Source>,
    rom: Option<Source>,
    vga_rom: Option<Source>,
    flat: Option<FlatStart>,
    screen: Screen,
    notices: Notices,
    swap: Option<SwapMaker>,
    common: Option<Arc<CommonPool>>,
}

impl Default for MachineBuilder {
    fn default() -> MachineBuilder {
        MachineBuilder::from_config(&MachineConfig::default())
    }
}

impl MachineBuilder {
    /// A builder with everything that a configuration says.
    pub fn from_config(config: &MachineConfig) -> MachineBuilder {
        MachineBuilder {
            config: config.clone(),
            kernel: config.boot.kernel.clone().map(Source::File),
            initrd: config.boot.initrd.iter().cloned().map(Source::File).collect(),
            rom: config.boot.bios.clone().map(Source::File),
            vga_rom: config.boot.vga_rom.clone().map(Source::File),
            flat: None,
            screen: Screen::None,
            notices: Arc::new(|_| {}),
            swap: None,
            common: None,
        }
    }
    /// Bytes of guest RAM.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.config.memory = Size(bytes);
        self
    }
    /// Processors.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.config.cpus = cpus;
        self
    }
    /// The processor's model.
    pub fn cpu_model(mut self, name: &str) -> Self {
        name.clone_into(&mut self.config.cpu);
        self
    }
    /// Whose time the guest sees.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.config.clock = clock;
        self
    }
    /// A kernel's file.
    pub fn kernel_file(mut self, path: impl AsRef<Path>) -> Self {
        self.kernel = Some(Source::File(path.as_ref().to_owned()));
        self
    }
    /// A kernel's bytes.
    pub fn kernel(mut self, name: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        self.kernel = Some(Source::Bytes(name.to_owned(), bytes.into()));
        self
    }
    /// A flat image that starts at its first byte.
    pub fn flat(mut self, name: &str, bytes: impl Into<Arc<[u8]>>, start: FlatStart) -> Self {
        self.flat = Some(start);
        self.kernel(name, bytes)
    }
    /// A firmware image: the processor starts at its reset vector, unless there is a kernel.
    pub fn rom(mut self, name: &str, image: impl Into<Arc<[u8]>>) -> Self {
        self.rom = Some(Source::Bytes(name.to_owned(), image.into()));
        self
    }
    /// The display adapter's option ROM (its video BIOS).
    pub fn vga_rom(mut self, name: &str, image: impl Into<Arc<[u8]>>) -> Self {
        self.vga_rom = Some(Source::Bytes(name.to_owned(), image.into()));
        self
    }
    /// One more initrd or module.
    pub fn initrd_file(mut self, path: impl AsRef<Path>) -> Self {
        self.initrd.push(Source::File(path.as_ref().to_owned()));
        self
    }
    /// One more initrd or module.
    pub fn initrd(mut self, name: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        self.initrd.push(Source::Bytes(name.to_owned(), bytes.into()));
        self
    }
    /// The kernel's command line.
    pub fn append(mut self, command_line: &str) -> Self {
        command_line.clone_into(&mut self.config.boot.append);
        self
    }
    /// Which of the kernel's entries is taken.
    pub fn entry(mut self, entry: Entry) -> Self {
        self.config.boot.entry = entry;
        self
    }
    /// In which order frames are given to guest pages.
    pub fn frame_order(mut self, order: FrameOrder) -> Self {
        self.config.host_memory.frame_order = order.into();
        self
    }
    /// Moves every frame of guest RAM to another place once in this time: a test of the monitor, which the guest cannot see.
    pub fn compact_every(mut self, time: Duration) -> Self {
        self.config.host_memory.compact_every = Some(Span(time));
        self
    }
    /// The most bytes of guest RAM that may be in host memory at a time.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.config.host_memory.limit = Some(Size(bytes));
        self
    }
    /// Where pages go that leave host memory, instead of a file of their own.
    pub fn swap(mut self, make: SwapMaker) -> Self {
        self.swap = Some(make);
        self
    }
    /// Takes its memory from a pool that it has in common with others; its pages that are equal to theirs become one frame. It is
    /// paged then, which changes nothing that the guest sees.
    pub fn in_pool(mut self, pool: &Arc<CommonPool>) -> Self {
        let balloon = if self.config.has_balloon() { Switch::On } else { Switch::Off };
        self.config.host_memory.balloon = Some(balloon);
        self.config.host_memory.policy = MemoryPolicy::Paged;
        self.common = Some(Arc::clone(pool));
        self
    }
    /// What the kernel is told of a screen.
    pub fn screen(mut self, screen: Screen) -> Self {
        self.screen = screen;
        self
    }
    /// Where sentences for the user go that come up while it runs, such as a failing host disk.
    pub fn notices(mut self, notices: Notices) -> Self {
        self.notices = notices;
        self
    }
    /// The configuration so far.
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// What executes guest code.
    pub fn engine(mut self, engine: Engine) -> Self {
        self.config.engine = engine;
        self
    }
    /// Runs of a block by the interpreter before the JIT makes code of it.
    pub fn jit_threshold(mut self, runs: u32) -> Self {
        self.config.jit_threshold = Some(runs);
        self
    }

    /// Builds the machine, with everything loaded and the first instruction next.
    pub fn build(self) -> Result<Machine, BuildError> {
        if self.config.engine == Engine::Both {
            self.check()?;
            Jit::new(DEFAULT_BYTES).map_err(BuildError::NoJit)?;
            let [reference, other] = [Engine::Interp, Engine::Jit].map(|engine| self.clone().engine(engine));
            return Machine::in_lock_step(reference, other);
        }
        self.build_one()
    }

    /// Builds one machine.
    pub(crate) fn build_one(self) -> Result<Machine, BuildError> {
        let config = &self.config;
        let map = self.check()?;
        let model = CpuModel::by_name(&config.cpu).ok_or_else(|| BuildError::UnknownCpu(config.cpu.clone()))?;
        let model = Arc::new(model.with_processors(config.cpus).with_tsc_khz(TSC_KHZ));
        let model_processor = processor_of(&model);
        let handed_over = self.kernel_for_firmware(&map, model_processor)?;
        let kernel = if handed_over.is_some() { None } else { self.kernel.clone() };
        let (rom, vga_rom) = self.firmware(kernel.as_ref());
        let rom_path = rom.as_ref().and_then(Source::path);
        let rom = rom.as_ref().map(Source::read).transpose()?;
        let uefi = match &rom {
            Some((name, bytes)) => {
                let image = uefi::Image { name, path: rom_path, bytes };
                uefi::plan(image, config.boot.flash_vars.as_deref(), &self.notices)?
            }
            None => None,
        };
        let rom = rom.as_ref().map(|(name, bytes)| {
            let code_at = uefi.as_ref().map_or(0, |plan| plan.code_at);
            (name.as_str(), bytes.get(code_at..).unwrap_or(bytes))
        });
        let ide_ports = if uefi.is_some() { LegacyPorts::FromReset } else { LegacyPorts::OnceEnabled };
        let flash = uefi.and_then(|plan| plan.variables);
        let order = config.host_memory.frame_order.with_seed(config.seed);
        let every = config.host_memory.compact_every;
        let flash_bytes = flash.as_ref().map_or(0, |(_, flash)| flash.contents().len() as u64);
        let spare = every.map_or(0, |_| storm::SPARE_BYTES) + flash_bytes;
        let from = (paging::of(config, self.swap.as_ref())?, self.common.as_deref());
        let memory = host_memory::build(&map, (order, spare), model.physical_bits() as u8, from, rom)?;
        if config.host_memory.policy == MemoryPolicy::Pinned
            && let Err(problem) = memory.pin()
        {
            (self.notices)(&problem.to_string());
        }
        let storm = every.map(|every| Storm::new(memory.clone(), map.total() + vga::MEMORY_BYTES, every.0));
        let pressure = config.host_memory.pressure;
        let reclaimer =
            config.paged_limit().map(|limit| Reclaimer::new(memory.clone(), (map.total(), limit.0), pressure));
        let cpus = config.cpus as usize;
        let clock = Arc::new(match config.clock {
            Clock::Real => GuestClock::real(),
            Clock::Virtual => GuestClock::of_instructions(cpus),
        });
        let bell = BoardBell::new(&clock);
        let media = MediaHost::new(&clock, &bell, self.notices.clone(), memory.clone());
        let attentions: Vec<Arc<Attention>> = (0..cpus).map(|_| Arc::default()).collect();
        let parts = BoardParts {
            memory: memory.clone(),
            ram: map.total(),
            vcpus: (0..)
                .zip(&attentions)
                .map(|(id, attention)| VcpuParts {
                    lapic: lapic_config(&model, id),
                    attention: attention.clone(),
                    gate: Arc::default(),
                })
                .collect(),
            date: civil(config.rtc.unix_seconds),
            video: Some(video(&memory, vga_rom.as_ref())?),
            serial: [Fit::Fitted; 2],
            exit_port: if config.exit_port == Switch::On { Fit::Fitted } else { Fit::Absent },
            test: TestParts {
                device: if config.test_ports.device == Toggle::On { Fit::Fitted } else { Fit::Absent },
                report_port: config.test_ports.post,
                text_port: config.test_ports.text,
            },
            drives: Drives::open(config, &media)?,
            ide_ports,
            flash,
            sound: sound(&config.sound),
            balloon: if config.has_balloon() { Fit::Fitted } else { Fit::Absent },
            tablet: if config.has_tablet() { Fit::Fitted } else { Fit::Absent },
        };
        let mut board = Board::new(parts)?;
        board.fill_cmos(&map);
        if rom.is_some() {
            board.offer_monitor_file();
            if config.display == Display::None {
                // SeaBIOS shows its text screen on this serial port too. The name is short and new: this cannot fail.
                let port = wiring::SERIAL_PORTS[0].0.to_le_bytes().to_vec();
                let _ = board.chips_mut().fw_cfg().add_file("etc/sercon-port", port);
            }
            if config.boot.order.menu {
                let _ = board.chips_mut().fw_cfg().add_file("opt/umbra/boot-menu", vec![1]);
            }
            board.tell_firmware(&map);
            board.hand_over_tables(&acpi_board(map, config.cpus as u8));
            for (key, bytes) in handed_over.into_iter().flatten() {
                board.chips_mut().fw_cfg().add_item(key, bytes);
            }
        }
        let board = Arc::new(SharedBoard { board: Mutex::new(board), changed: Condvar::new() });
        bell.connect(&board);
        let disable = disabled(&config.trace.disable)?;
        let perf_map = match config.trace.perf_map {
            Toggle::On => {
                let path = PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()));
                let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
                Some(file.map_err(|problem| read_problem(&path, problem))?)
            }
            Toggle::Off => None,
        };
        let vcpus = attentions.into_iter().enumerate().map(|(number, attention)| {
            let bus = VcpuBus { vcpu: number, board: board.clone(), clock: clock.clone() };
            let mut vcpu = Vcpu::new(model.clone(), &memory, Box::new(bus), attention);
            let off = |optimisation| config.trace.disable.iter().any(|name| name == optimisation);
            if off(ROOTS) {
                vcpu.link.mmu.forget_roots();
            }
            if off(REFILLS) {
                vcpu.link.mmu.resolve_each_miss();
            }
            if off(DESCRIPTORS) {
                vcpu.tables.switch_off();
            }
            if off(PATCHES) {
                vcpu.link.cache.forget_patches();
            }
            if config.engine == Engine::Jit {
                match Jit::new(DEFAULT_BYTES) {
                    Ok(mut jit) => {
                        jit.set_disable(disable);
                        if let Some(file) = perf_map.as_ref().and_then(|file| file.try_clone().ok()) {
                            jit.set_perf_map(file);
                        }
                        vcpu.use_jit(Some(jit));
                        if let Some(runs) = config.jit_threshold {
                            vcpu.link.hot = runs;
                        }
                    }
                    Err(problem) if number == 0 => (self.notices)(&format!("{problem}: the interpreter runs instead")),
                    Err(_) => {}
                }
            }
            vcpu
        });
        let vcpus = vcpus.collect();
        let boot = BootSource {
            kernel,
            initrd: self.initrd,
            command_line: config.boot.append.clone(),
            flat: self.flat,
            entry: entry_choice(config.boot.entry),
            processor: model_processor,
            screen: self.screen,
            cpus: config.cpus as u8,
        };
        let clock_kind = config.clock;
        let stop = Arc::default();
        let mut machine = Machine {
            map,
            memory,
            board,
            clock,
            clock_kind,
            vcpus,
            stop,
            storm,
            reclaimer,
            boot,
            media,
            lock_step: None,
        };
        machine.power_up()?;
        Ok(machine)
    }

    /// The firmware's image and the display adapter's. Our own are there for whoever starts from a disk; a ROM that was
    /// given in code is a guest of its own and gets what it was given.
    fn firmware(&self, kernel: Option<&Source>) -> (Option<Source>, Option<Source>) {
        let own = |name: &str, image: &'static [u8]| Source::Bytes(name.to_owned(), image.into());
        let rom = match &self.rom {
            None if kernel.is_none() => Some(own(umbra_roms::BIOS.name, umbra_roms::BIOS.image)),
            given => given.clone(),
        };
        let takes_our_vga = matches!((&self.rom, &rom), (None, Some(_)) | (Some(Source::File(_)), _));
        let vga_rom = match &self.vga_rom {
            None if takes_our_vga => Some(own("vgabios", umbra_roms::VGA_BIOS)),
            given => given.clone(),
        };
        (rom, vga_rom)
    }

    /// Whether the firmware that was given is UEFI's, which starts a bzImage as the program that it is for UEFI.
    fn is_uefi(&self) -> Result<bool, BuildError> {
        let Some(rom) = &self.rom else { return Ok(false) };
        let (_, bytes) = rom.read()?;
        Ok(matches!(uefi::kind(&bytes, bytes.len() as u64), uefi::Kind::Code | uefi::Kind::Whole(_)))
    }

    /// What firmware is told of a kernel that begins with its real-mode part, or that UEFI firmware is to start.
    fn kernel_for_firmware(&self, map: &MemoryMap, processor: Processor) -> Result<Option<Items>, BuildError> {
        let (Some(kernel), None) = (&self.kernel, self.flat) else { return Ok(None) };
        let entry = entry_choice(self.config.boot.entry);
        let head = kernel.head()?;
        let takes_it = real_mode::is_wanted(&head, entry) || bzimage::is_bzimage(&head) && self.is_uefi()?;
        if !takes_it {
            return Ok(None);
        }
        let (name, bytes) = kernel.read()?;
        let initrd: Vec<_> = self.initrd.iter().map(Source::read).collect::<Result<_, _>>()?;
        let modules: Vec<Module<'_>> =
            initrd.iter().map(|(name, bytes)| Module { name, bytes, command_line: name }).collect();
        let options = LoadOptions {
            command_line: &self.config.boot.append,
            modules: &modules,
            processor,
            entry,
            ..LoadOptions::named(&name)
        };
        Ok(Some(real_mode::items(&bytes, &options, map)?))
    }

    /// The configuration's own checks, with what was given in code counted in.
    fn check(&self) -> Result<MemoryMap, ConfigError> {
        let mut config = self.config.clone();
        if self.kernel.is_some() {
            config.boot.kernel.get_or_insert_default();
        }
        config.check()
    }
}

/// Serial ports as a configuration names them; the first is standard input and output if nothing is said and the terminal is
/// free.
pub fn serial_targets(config: &MachineConfig) -> [SerialTarget; 2] {
    let target = |number: usize, default| config.serial.get(number).cloned().unwrap_or(default);
    // A screen in the terminal leaves no room for a serial port there.
    let first = if config.display == Display::Terminal { SerialTarget::None } else { SerialTarget::Stdio };
    [target(0, first), target(1, SerialTarget::None)]
}

/// The display adapter. An option ROM begins with 55h AAh and its length (PCI 2.1, 6.3.1.1).
fn video(memory: &GuestMemory, rom: Option<&Source>) -> Result<vga::Config, BuildError> {
    let rom: Arc<[u8]> = match rom {
        None => Arc::from([]),
        Some(source) => {
            let (name, bytes) = source.read()?;
            let problem = match bytes.get(..3) {
                Some(&[0x55, 0xAA, units]) if 512 * u64::from(units) > bytes.len() as u64 => {
                    Some(LoadProblem::BadField {
                        what: "the option ROM's length",
                        value: 512 * u64::from(units),
                        why: "more than the file has",
                    })
                }
                Some(&[0x55, 0xAA, _]) if bytes.len() as u64 <= MAX_VGA_ROM_BYTES => None,
                _ => Some(LoadProblem::Unsupported {
                    what: "this is no option ROM: it does not begin with 55 AA, or is larger than 1 MiB",
                    advice: "vgabios-stdvga.bin, which Debian has in its package seabios",
                }),
            };
            if let Some(problem) = problem {
                return Err(LoadError { file: name, problem }.into());
            }
            Arc::from(&*bytes)
        }
    };
    Ok(vga::Config {
        memory: Arc::new(memory.video_memory(vga::MEMORY_BYTES)?),
        window: Arc::new(memory.video_memory(vga::LEGACY_BYTES as u64)?),
        rom,
        font: umbra_roms::FONT_8X16,
    })
}

fn civil(unix_seconds: u64) -> CivilTime {
    let text = crate::config::RtcDate { unix_seconds }.fields();
    let [year, month, day, hour, minute, second] = text;
    CivilTime {
        year: year as u16,
        month: month as u8,
        day: day as u8,
        hour: hour as u8,
        minute: minute as u8,
        second: second as u8,
    }
}

/// A local APIC as the model's CPUID promises it.
fn lapic_config(model: &CpuModel, id: u32) -> lapic::Config {
    let features =
        lapic::Features { x2apic: model.has(Feature::X2apic), tsc_deadline: model.has(Feature::TscDeadline) };
    lapic::Config { physical_bits: model.physical_bits() as u8, features, ..lapic::Config::new(id) }
}

fn processor_of(model: &CpuModel) -> Processor {
    if model.has_all(&[CpuidFeature::X64]) { Processor::LongMode } else { Processor::Only32 }
}

const fn entry_choice(entry: Entry) -> EntryChoice {
    match entry {
        Entry::Best => EntryChoice::Best,
        Entry::Bits32 => EntryChoice::Bits32,
        Entry::Real => EntryChoice::Real,
    }
}

/// A machine whose sound nobody asked for has nothing to play to.
fn sound(config: &SoundConfig) -> SoundParts {
    let ac97 = if config.card == SoundCard::Ac97 { Fit::Fitted } else { Fit::Absent };
    let ears = if *config == SoundConfig::default() { Fit::Absent } else { Fit::Fitted };
    SoundParts { ac97, ears }
}

/// What the ACPI tables tell of the machine.
fn acpi_board(map: MemoryMap, cpus: u8) -> AcpiBoard {
    AcpiBoard { map, cpus, serial_ports: 2, hpet_id: Some(Hpet::ID) }
}

/// What a machine starts from, kept to start again after a reset.
pub(crate) struct BootSource {
    kernel: Option<Source>,
    initrd: Vec<Source>,
    command_line: String,
    flat: Option<FlatStart>,
    entry: EntryChoice,
    processor: Processor,
    screen: Screen,
    cpus: u8,
}

impl BootSource {
    /// Does what firmware and boot loader would have done, and gives the boot processor's first state (`None`: it starts
    /// at the reset vector).
    pub fn install(
        &self,
        map: &MemoryMap,
        memory: &GuestMemory,
        board: &SharedBoard,
    ) -> Result<Option<EntryState>, BuildError> {
        let Some(kernel) = &self.kernel else { return Ok(None) };
        let begun = match (kernel, self.flat) {
            (Source::File(path), None) => {
                let begun = Begun::open(path, HEAD).map_err(|problem| read_problem(path, problem))?;
                bzimage::is_bzimage(begun.head()).then_some((path, begun))
            }
            _ => None,
        };
        let (name, bytes) = match &begun {
            Some((path, _)) => (path.display().to_string(), Contents::Given(&[])),
            None => kernel.read()?,
        };
        let initrd: Vec<_> = self.initrd.iter().map(Source::read).collect::<Result<_, _>>()?;
        board.lock().play_firmware(map);
        let tables = acpi::build(&acpi_board(*map, self.cpus));
        for (at, bytes) in &tables.segments {
            memory.write(*at, bytes);
        }
        let modules: Vec<Module<'_>> =
            initrd.iter().map(|(name, bytes)| Module { name, bytes, command_line: name }).collect();
        let options = LoadOptions {
            name: &name,
            command_line: &self.command_line,
            modules: &modules,
            rsdp: Some(tables.rsdp),
            processor: self.processor,
            entry: self.entry,
            screen: self.screen,
        };
        let plan = match (self.flat, &begun) {
            (Some(FlatStart { at, mode }), _) => load::flat::load(&bytes, &options, at, mode, map)?,
            (None, Some((_, begun))) => bzimage::load_by_head(begun.head(), begun.length(), &options, map)?,
            (None, None) => load::load(&bytes, &options, map)?,
        };
        for segment in &plan.segments {
            match (&segment.bytes, &begun) {
                (Bytes::Here(bytes), _) => memory.write(segment.at, bytes),
                (&Bytes::InFile { at, length }, Some((path, begun))) => begun
                    .pieces(at, length, |offset, piece| memory.write(segment.at.wrapping_add(offset), piece))
                    .map_err(|problem| read_problem(path, problem))?,
                (Bytes::InFile { .. }, None) => debug_assert!(false, "{} of a file that is here", segment.what),
            }
        }
        clear(&plan, memory);
        Ok(Some(plan.entry))
    }
}

/// Puts zeros where a plan wants them.
fn clear(plan: &LoadPlan<'_>, memory: &GuestMemory) {
    const ZEROS: [u8; 4096] = [0; 4096];
    for range in &plan.zero {
        let mut at = range.at;
        let mut left = range.length;
        while left > 0 {
            let length = left.min(4096 - at.page_offset());
            let page = PhysPage(at.0 >> 12);
            // Fresh memory is zero already: only what is not is written, so that no frame is touched in vain.
            let mut old = [0; 4096];
            let part = &mut old[..length as usize];
            memory.read(at, part);
            if part.iter().any(|&byte| byte != 0) {
                memory.write(at, &ZEROS[..length as usize]);
            }
            debug_assert_eq!(page, at.page());
            at = at.wrapping_add(length);
            left -= length;
        }
    }
}
