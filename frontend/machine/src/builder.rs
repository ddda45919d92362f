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
use crate::board::{Board, BoardParts, Fit, SharedBoard, TestParts, VcpuParts};
use crate::config::{Clock, ConfigError, Display, Engine, Entry, MachineConfig, SerialTarget, Size, Switch, Toggle};
use crate::load::flat::FlatMode;
use crate::load::{
    self, EntryChoice, EntryState, LoadError, LoadOptions, LoadPlan, LoadProblem, Module, Processor, Screen,
};
use crate::machine::Machine;
use crate::memory_map::{EXTENDED_BASE, MemoryMap, VGA_BASE};
use crate::time::GuestClock;
use crate::vcpu_bus::VcpuBus;
use parking_lot::{Condvar, Mutex};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use umbra_cpu::Vcpu;
use umbra_cpu::decode::CpuidFeature;
use umbra_cpu::emit::{ArenaError, DEFAULT_BYTES, Disable, Jit};
use umbra_cpu::model::{CpuModel, Feature};
use umbra_devices::hpet::Hpet;
use umbra_devices::lapic;
use umbra_devices::rtc_mc146818::CivilTime;
use umbra_mmu::attention::Attention;
use umbra_mmu::frames::{FrameOrder, Pool, PoolError};
use umbra_mmu::memory::{GuestMemory, MapError};
use umbra_mmu::{GuestPhys, PhysPage};

/// The time-stamp counter counts guest time in nanoseconds.
const TSC_KHZ: u32 = 1_000_000;
/// Display memory: RAM, since there is no display adapter yet.
const VGA_BYTES: u64 = 0x2_0000;
/// How much of a firmware image is seen at the end of the first megabyte.
const LOW_ROM_BYTES: u64 = 0x2_0000;
/// The largest firmware image.
const MAX_ROM_BYTES: u64 = 16 << 20;

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
    /// A file is no good.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There is no such processor.
    #[error("there is no processor model \"{0}\"; try --cpu max")]
    UnknownCpu(String),
    /// The host has no memory for it.
    #[error("guest memory: {0}; try a smaller -m")]
    Pool(#[from] PoolError),
    /// The engine does not work on this host.
    #[error(transparent)]
    Engine(#[from] ArenaError),
    /// There is no such optimisation.
    #[error("--disable {0} names no optimisation; try one of: {names}", names = names())]
    UnknownOptimisation(String),
    /// A range of guest memory cannot be mapped.
    #[error("guest memory: {0}")]
    Map(#[from] MapError),
}

fn names() -> String {
    Disable::NAMES.map(|(name, _)| name).join(", ")
}

/// The optimisations that are switched off.
fn disabled(names: &[String]) -> Result<Disable, BuildError> {
    let bit = |name: &String| {
        let known = Disable::NAMES.into_iter().find(|(known, _)| known == name);
        known.map(|(_, bit)| bit).ok_or_else(|| BuildError::UnknownOptimisation(name.clone()))
    };
    names.iter().try_fold(Disable::default(), |Disable(bits), name| Ok(Disable(bits | bit(name)?)))
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
    fn read(&self) -> Result<(String, Cow<'_, [u8]>), BuildError> {
        match self {
            Source::File(path) => {
                let bytes = std::fs::read(path).map_err(|problem| read_problem(path, problem))?;
                Ok((path.display().to_string(), Cow::Owned(bytes)))
            }
            Source::Bytes(name, bytes) => Ok((name.clone(), Cow::Borrowed(bytes))),
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
#[derive(Clone, Debug)]
pub struct MachineBuilder {
    config: MachineConfig,
    kernel: Option<Source>,
    initrd: Vec<Source>,
    rom: Option<Source>,
    flat: Option<FlatStart>,
    order: FrameOrder,
    screen: Screen,
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
            flat: None,
            order: FrameOrder::Identity,
            screen: Screen::None,
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
        self.order = order;
        self
    }
    /// What the kernel is told of a screen.
    pub fn screen(mut self, screen: Screen) -> Self {
        self.screen = screen;
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
        let rom = self.rom.as_ref().map(Source::read).transpose()?;
        let memory = build_memory(&map, self.order, model.physical_bits() as u8, rom.as_ref())?;
        let cpus = config.cpus as usize;
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
            serial: [Fit::Fitted; 2],
            exit_port: if config.exit_port == Switch::On { Fit::Fitted } else { Fit::Absent },
            test: TestParts {
                device: if config.test_ports.device == Toggle::On { Fit::Fitted } else { Fit::Absent },
                report_port: config.test_ports.post,
                text_port: config.test_ports.text,
            },
        };
        let mut board = Board::new(parts);
        if rom.is_some() {
            board.offer_monitor_file();
        }
        let board = Arc::new(SharedBoard { board: Mutex::new(board), changed: Condvar::new() });
        let clock = Arc::new(match config.clock {
            Clock::Real => GuestClock::real(),
            Clock::Virtual => GuestClock::of_instructions(cpus),
        });
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
            if config.engine == Engine::Jit {
                let mut jit = Jit::new(DEFAULT_BYTES)?;
                jit.set_disable(disable);
                if let Some(file) = &perf_map {
                    jit.set_perf_map(file.try_clone().map_err(|problem| read_problem(Path::new("perf map"), problem))?);
                }
                vcpu.use_jit(Some(jit));
                if let Some(runs) = config.jit_threshold {
                    vcpu.link.hot = runs;
                }
            }
            Ok(vcpu)
        });
        let vcpus = vcpus.collect::<Result<_, BuildError>>()?;
        let boot = BootSource {
            kernel: self.kernel,
            initrd: self.initrd,
            command_line: config.boot.append.clone(),
            flat: self.flat,
            entry: match config.boot.entry {
                Entry::Best => EntryChoice::Best,
                Entry::Bits32 => EntryChoice::Bits32,
            },
            processor: processor_of(&model),
            screen: self.screen,
            cpus: config.cpus as u8,
        };
        let clock_kind = config.clock;
        let stop = Arc::default();
        let mut machine = Machine { map, memory, board, clock, clock_kind, vcpus, stop, boot, lock_step: None };
        machine.power_up()?;
        Ok(machine)
    }

    /// The configuration's own checks, with what was given in code counted in.
    fn check(&self) -> Result<MemoryMap, ConfigError> {
        let mut config = self.config.clone();
        if self.kernel.is_some() {
            config.boot.kernel.get_or_insert_default();
        }
        debug_assert!(config.display == Display::None || config.check().is_err());
        config.check()
    }
}

/// Serial ports as a configuration names them; the first is standard input and output if nothing is said.
pub fn serial_targets(config: &MachineConfig) -> [SerialTarget; 2] {
    let target = |number: usize, default| config.serial.get(number).cloned().unwrap_or(default);
    [target(0, SerialTarget::Stdio), target(1, SerialTarget::None)]
}

fn build_memory(
    map: &MemoryMap,
    order: FrameOrder,
    physical_bits: u8,
    rom: Option<&(String, Cow<'_, [u8]>)>,
) -> Result<GuestMemory, BuildError> {
    let rom_bytes = rom.map_or(0, |(_, image)| image.len() as u64);
    let pool = Pool::new(map.total() + VGA_BYTES + rom_bytes + rom_bytes.min(LOW_ROM_BYTES))?;
    let memory = GuestMemory::new(pool, order, physical_bits);
    for (at, bytes) in map.ram_ranges() {
        memory.map_ram(at, bytes)?;
    }
    memory.map_ram(GuestPhys(VGA_BASE), VGA_BYTES)?;
    if let Some((name, image)) = rom {
        map_firmware(&memory, name, image)?;
    }
    Ok(memory)
}

/// A firmware image ends at 4 GiB; its last 128 KiB are also the end of the first megabyte (PIIX3 data sheet, 3.4.1).
fn map_firmware(memory: &GuestMemory, name: &str, image: &[u8]) -> Result<(), BuildError> {
    let length = image.len() as u64;
    let problem = match length {
        0 => Some(LoadProblem::Empty),
        1..=MAX_ROM_BYTES if length.is_multiple_of(umbra_mmu::addr::PAGE_SIZE) => None,
        _ => Some(LoadProblem::BadField {
            what: "the firmware image's length",
            value: length,
            why: "not a multiple of 4 KiB up to 16 MiB",
        }),
    };
    if let Some(problem) = problem {
        return Err(LoadError { file: name.to_owned(), problem }.into());
    }
    memory.map_rom(GuestPhys((1 << 32) - length), image)?;
    let low = length.min(LOW_ROM_BYTES);
    let tail = image.get((length - low) as usize..).unwrap_or(image);
    memory.map_rom(GuestPhys(EXTENDED_BASE - low), tail)?;
    Ok(())
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
        let (name, bytes) = kernel.read()?;
        let initrd: Vec<_> = self.initrd.iter().map(Source::read).collect::<Result<_, _>>()?;
        board.board.lock().play_firmware(map);
        let tables = acpi::build(&AcpiBoard { map: *map, cpus: self.cpus, serial_ports: 2, hpet_id: Some(Hpet::ID) });
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
        let plan = match self.flat {
            Some(FlatStart { at, mode }) => load::flat::load(&bytes, &options, at, mode, map)?,
            None => load::load(&bytes, &options, map)?,
        };
        carry_out(&plan, memory);
        Ok(Some(plan.entry))
    }
}

/// Writes a plan's segments, and zeros where it wants them.
fn carry_out(plan: &LoadPlan<'_>, memory: &GuestMemory) {
    const ZEROS: [u8; 4096] = [0; 4096];
    for segment in &plan.segments {
        memory.write(segment.at, &segment.bytes);
    }
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
