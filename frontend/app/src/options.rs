//! From the options of `umbra run` to a [`MachineConfig`]: what a FILE is, and what each option changes.

use crate::cli::RunArgs;
use crate::exit_status::{Failure, advised};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use umbra_machine::config::{
    Clock, DiskAccess, DiskConfig, DiskFormat, DiskInterface, Display, Engine, MachineConfig, Switch, Toggle,
};
use umbra_machine::load::{self, Format};
use umbra_machine::roms::{Rom, TESTS};
use umbra_machine::uefi;

/// What a file is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Guess {
    /// A machine file.
    Machine,
    /// A kernel of this format.
    Kernel(Format),
    /// A CD-ROM image.
    Cdrom,
    /// A floppy disk image.
    Floppy,
    /// UEFI firmware.
    Firmware,
    /// A hard disk image.
    Disk(DiskFormat),
}

impl Guess {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Guess::Machine => "a machine file",
            Guess::Kernel(Format::BzImage) => "a Linux kernel (bzImage)",
            Guess::Kernel(Format::Multiboot1) => "a multiboot kernel",
            Guess::Kernel(Format::Pvh) => "a kernel with a PVH entry (ELF)",
            Guess::Kernel(_) => "a plain ELF kernel",
            Guess::Cdrom => "a CD-ROM image",
            Guess::Floppy => "a floppy disk image",
            Guess::Firmware => "UEFI firmware",
            Guess::Disk(DiskFormat::Qcow2) => "a qcow2 disk image",
            Guess::Disk(_) => "a raw disk image",
        }
    }
}

/// Sizes of floppy disks in KiB.
const FLOPPIES: [u64; 7] = [160, 180, 320, 360, 720, 1200, 1440];
/// Enough to know a file by: the boot sector, the volume descriptor of a CD-ROM, a multiboot header, ELF notes.
const HEAD: u64 = 1 << 20;

/// A file's first bytes, and its length. The errors are sentences.
fn head(path: &Path) -> Result<(Vec<u8>, u64), Failure> {
    let shown = path.display();
    let bad = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Failure::input(format!("{shown}: there is no such file; try another path")),
        _ => Failure::input(format!("{shown}: {error}; try another file")),
    };
    let mut file = File::open(path).map_err(bad)?;
    if file.metadata().map_err(bad)?.is_dir() {
        return Err(Failure::input(format!("{shown}: this is a folder; try a file in it")));
    }
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(HEAD).read_to_end(&mut bytes).map_err(bad)?;
    let length = file.seek(SeekFrom::End(0)).unwrap_or(0).max(bytes.len() as u64);
    Ok((bytes, length))
}

/// Whether a file can be opened and has bytes, before anything is built.
fn check_file(option: &str, path: &Path) -> Result<(), Failure> {
    if option == "--disk" && path.is_dir() {
        return Ok(());
    }
    let (bytes, _) = head(path).map_err(|failure| Failure::input(format!("{option} {failure}")))?;
    if bytes.is_empty() {
        return Err(Failure::input(format!(
            "{option} {}: the file is empty; try to fetch or build it again",
            path.display()
        )));
    }
    Ok(())
}

/// The test ROM that `--bios roms:NAME` names; `None` if it is a file's path.
pub fn embedded_rom(path: &Path) -> Result<Option<&'static Rom>, Failure> {
    let Some(name) = path.to_str().and_then(|text| text.strip_prefix("roms:")) else { return Ok(None) };
    let names = || TESTS.iter().map(|rom| rom.name).collect::<Vec<_>>().join(", ");
    let unknown = || Failure::input(format!("--bios roms:{name}: there is no such test ROM; try one of {}", names()));
    Rom::named(name).map(Some).ok_or_else(unknown)
}

fn is_named_as_machine(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

/// Whether a machine file says where the screen is shown.
pub fn is_machine_file(args: &RunArgs) -> bool {
    args.file.as_deref().is_some_and(is_named_as_machine)
}

/// Looks at a file.
pub fn guess(path: &Path) -> Result<Guess, Failure> {
    let shown = path.display();
    let (bytes, length) = head(path)?;
    if is_named_as_machine(path) {
        return Ok(Guess::Machine);
    }
    if bytes.is_empty() {
        return Err(Failure::input(format!("{shown}: the file is empty; try to fetch or build it again")));
    }
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..offset + magic.len()) == Some(magic);
    let boot_sector = at(510, b"\x55\xaa") && length.is_multiple_of(512);
    match load::detect(&bytes) {
        // A boot loader's code on a disk holds a multiboot header, too.
        Some(Format::Multiboot1) if boot_sector => {}
        Some(format) => return Ok(Guess::Kernel(format)),
        None => {}
    }
    if uefi::kind(&bytes, length) != uefi::Kind::Other {
        return Ok(Guess::Firmware);
    }
    if at(0, b"QFI\xfb") {
        return Ok(Guess::Disk(DiskFormat::Qcow2));
    }
    if at(0x8001, b"CD001") {
        return Ok(Guess::Cdrom);
    }
    if length.is_multiple_of(1024) && FLOPPIES.contains(&(length / 1024)) {
        return Ok(Guess::Floppy);
    }
    if boot_sector {
        return Ok(Guess::Disk(DiskFormat::Raw));
    }
    // The loader knows more kinds of files by name: its sentence says which this one is.
    let map =
        umbra_machine::memory_map::MemoryMap::new(256 << 20).map_err(|error| Failure::input(error.to_string()))?;
    let name = shown.to_string();
    match load::load(&bytes, &load::LoadOptions::named(&name), &map) {
        Err(error) => Err(Failure::input(advised(error, "another file"))),
        Ok(_) => Err(Failure::input(format!("{shown}: this is of no known kind; try --kernel, --disk or --cdrom"))),
    }
}

/// The machine that the options describe. Prints what was guessed of a FILE.
pub fn config(args: &RunArgs) -> Result<MachineConfig, Failure> {
    let mut config = MachineConfig::default();
    if let Some(file) = &args.file {
        let guess = guess(file)?;
        if guess != Guess::Machine {
            eprintln!("umbra: {}: {}", file.display(), guess.text());
        }
        match guess {
            Guess::Machine => config = machine_file(file)?,
            Guess::Kernel(_) => {
                if args.kernel.is_some() {
                    return Err(Failure::input(format!(
                        "{} and --kernel are both kernels; try one of them",
                        file.display()
                    )));
                }
                config.boot.kernel = Some(file.clone());
            }
            Guess::Cdrom => config.boot.cdrom = Some(file.clone()),
            Guess::Firmware => config.boot.bios = Some(file.clone()),
            Guess::Floppy => config.boot.floppy = Some(file.clone()),
            Guess::Disk(format) => config.disks.push(DiskConfig {
                file: file.clone(),
                interface: DiskInterface::default(),
                format,
                access: DiskAccess::default(),
            }),
        }
    }
    overlay(args, &mut config);
    check(&config)?;
    Ok(config)
}

fn machine_file(path: &Path) -> Result<MachineConfig, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::InvalidData => {
            Failure::input(format!("{shown}: this is not a text file; try a machine file as --save-config writes"))
        }
        _ => Failure::input(format!("{shown}: {error}; try another file")),
    })?;
    MachineConfig::from_toml(&text, path)
        .map_err(|error| Failure::input(advised(error, "--save-config to see a good one")))
}

/// What is given on the command line wins over a machine file.
fn overlay(args: &RunArgs, config: &mut MachineConfig) {
    fn set<T: Clone>(to: &mut T, from: &Option<T>) {
        if let Some(value) = from {
            to.clone_from(value);
        }
    }
    fn set_some<T: Clone>(to: &mut Option<T>, from: &Option<T>) {
        if from.is_some() {
            to.clone_from(from);
        }
    }
    fn set_list<T: Clone>(to: &mut Vec<T>, from: &[T]) {
        if !from.is_empty() {
            *to = from.to_vec();
        }
    }
    set(&mut config.memory, &args.memory);
    set(&mut config.cpus, &args.cpus);
    set(&mut config.cpu, &args.cpu);
    set(&mut config.engine, &args.engine);
    set_some(&mut config.jit_threshold, &args.jit_threshold);
    set(&mut config.clock, &args.clock);
    if config.engine == Engine::Both && args.clock.is_none() {
        config.clock = Clock::Virtual;
    }
    set(&mut config.seed, &args.seed);
    set(&mut config.rtc, &args.rtc);
    set(&mut config.display, &args.display);
    if args.headless {
        config.display = Display::None;
    }
    set_list(&mut config.serial, &args.serial);
    if args.no_exit_port {
        config.exit_port = Switch::Off;
    }
    set_some(&mut config.console, &args.console);
    set(&mut config.sound, &args.sound);
    set_some(&mut config.tablet, &args.tablet);
    set_some(&mut config.host_memory.balloon, &args.balloon);
    set_some(&mut config.test_ports.post, &args.post_port);
    set_some(&mut config.test_ports.text, &args.debug_port);
    if args.test_device {
        config.test_ports.device = Toggle::On;
    }
    set_some(&mut config.boot.kernel, &args.kernel);
    set_list(&mut config.boot.initrd, &args.initrd);
    set(&mut config.boot.append, &args.append);
    set_some(&mut config.boot.bios, &args.bios);
    set_some(&mut config.boot.flash_vars, &args.flash_vars);
    set_some(&mut config.boot.vga_rom, &args.vga_rom);
    if config.boot.vga_rom.is_none() {
        config.boot.vga_rom = vga_rom_beside(config.boot.bios.as_deref());
    }
    set_some(&mut config.boot.cdrom, &args.cdrom);
    set_some(&mut config.boot.floppy, &args.floppy);
    set(&mut config.boot.order, &args.boot);
    config.disks.extend(args.disk.iter().cloned());
    set_some(&mut config.host_memory.limit, &args.memory_limit);
    set(&mut config.host_memory.policy, &args.memory_policy);
    set(&mut config.host_memory.replacement, &args.replacement);
    set(&mut config.host_memory.pressure, &args.memory_pressure);
    set_some(&mut config.host_memory.swap_dir, &args.swap_dir);
    set(&mut config.host_memory.frame_order, &args.frame_order);
    set_some(&mut config.host_memory.compact_every, &args.compact_every);
    set_some(&mut config.run.until, &args.until);
    set_some(&mut config.run.fail_on, &args.fail_on);
    set_some(&mut config.run.timeout, &args.timeout);
    set_some(&mut config.run.instructions, &args.instructions);
    set(&mut config.run.on_reset, &args.on_reset);
    set(&mut config.run.on_crash, &args.on_crash);
    set(&mut config.run.script_at, &args.type_at);
    set_list(&mut config.run.script, &args.script);
    set_list(&mut config.trace.categories, &args.trace);
    set_list(&mut config.trace.dump, &args.dump);
    set_list(&mut config.trace.disable, &args.disable);
    set_list(&mut config.trace.at, &args.at);
    if args.perf_map {
        config.trace.perf_map = Toggle::On;
    }
    set_some(&mut config.trace.gdb, &args.gdb);
    set_some(&mut config.trace.control, &args.control);
    set_some(&mut config.trace.events, &args.trace_events);
}

/// Says what becomes of the variables of UEFI firmware that were given no file.
pub fn tell_of_variables(config: &MachineConfig) {
    let Some(bios) = config.boot.bios.as_deref().filter(|_| config.boot.flash_vars.is_none()) else { return };
    let Ok((bytes, length)) = head(bios) else { return };
    if matches!(uefi::kind(&bytes, length), uefi::Kind::Code | uefi::Kind::Whole(_)) {
        eprintln!("umbra: {}: its variables are forgotten at the end; --flash-vars FILE keeps them", bios.display());
    }
}

/// The video BIOS that SeaBIOS is packaged with.
fn vga_rom_beside(bios: Option<&Path>) -> Option<PathBuf> {
    let beside = bios?.with_file_name("vgabios-stdvga.bin");
    beside.is_file().then_some(beside)
}

/// Everything that can be wrong before a machine is built.
fn check(config: &MachineConfig) -> Result<(), Failure> {
    let one = |option: &'static str, path: &Option<PathBuf>| path.clone().map(|path| (option, path));
    let files = [
        one("--kernel", &config.boot.kernel),
        one("--bios", &config.boot.bios),
        one("--vga-rom", &config.boot.vga_rom),
        one("--cdrom", &config.boot.cdrom),
        one("--floppy", &config.boot.floppy),
    ];
    let initrds = config.boot.initrd.iter().map(|path| ("--initrd", path.clone()));
    let disks = config.disks.iter().map(|disk| ("--disk", disk.file.clone()));
    for (option, path) in files.into_iter().flatten().chain(initrds).chain(disks) {
        if option != "--bios" || embedded_rom(&path)?.is_none() {
            check_file(option, &path)?;
        }
    }
    config.check()?;
    if let Some(address) = &config.trace.gdb {
        crate::gdb::check(address)?;
    }
    let has_drives = !config.disks.is_empty() || config.boot.cdrom.is_some() || config.boot.floppy.is_some();
    if config.boot.kernel.is_none() && config.boot.bios.is_none() && !has_drives {
        return Err(Failure::input(
            "there is nothing to boot; try umbra run FILE, or --kernel vmlinuz --initrd initrd.img, or umbra alone for the demo",
        ));
    }
    if let Some(what) = config.trace.dump.iter().find(|what| !matches!(what.as_str(), "uops" | "host")) {
        return Err(Failure::input(format!("--dump takes uops or host, not \"{what}\"; try --dump uops")));
    }
    Ok(())
}

/// `--save-config`: writes the machine as a machine file, with paths that hold wherever the file is.
pub fn save(config: &MachineConfig, path: &Path) -> Result<(), Failure> {
    let mut config = config.clone();
    let absolute = |path: &mut PathBuf| {
        if let Ok(whole) = std::path::absolute(&*path) {
            *path = whole;
        }
    };
    let boot = &mut config.boot;
    let files = boot
        .kernel
        .iter_mut()
        .chain(&mut boot.initrd)
        .chain(&mut boot.bios)
        .chain(&mut boot.flash_vars)
        .chain(&mut boot.vga_rom)
        .chain(&mut boot.cdrom);
    files.chain(&mut boot.floppy).chain(&mut config.sound.wav).for_each(absolute);
    config.disks.iter_mut().for_each(|disk| absolute(&mut disk.file));
    for target in &mut config.serial {
        if let umbra_machine::config::SerialTarget::File(path) = target {
            absolute(path);
        }
    }
    std::fs::write(path, config.to_toml())
        .map_err(|error| Failure::host(format!("{}: {error}; try another path for --save-config", path.display())))?;
    eprintln!("umbra: wrote {path}; umbra run {path} starts it", path = path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_file() {
        let folder = std::env::temp_dir().join(format!("umbra-options-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("pc.toml");
        std::fs::write(&file, "memory = \"64M\"\ncpus = 3\n[boot]\nkernel = \"k\"\n").unwrap();
        std::fs::write(folder.join("k"), "x").unwrap();
        let args = RunArgs { file: Some(file.clone()), cpus: Some(2), ..RunArgs::default() };
        let config = config(&args).unwrap();
        assert_eq!((config.memory.0, config.cpus, config.boot.kernel.clone()), (64 << 20, 2, Some(folder.join("k"))));
        save(&config, &file).unwrap();
        assert_eq!(machine_file(&file).unwrap(), config);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
