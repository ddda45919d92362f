//! The BIOS and the display's ROM: a disk that checks every service (`umbra_roms::BIOS_CHECK`) starts under our own BIOS, and, to
//! show that the checks are right, under SeaBIOS where that is installed. Leaves out: floppies, CDs and a person at the
//! keyboard (`test-suites/guests/firmware.sh`).

use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use umbra_devices::clock::Tick;
use umbra_machine::config::{Clock, DiskAccess, DiskConfig, DiskFormat, DiskInterface, Engine, MachineConfig};
use umbra_machine::{MachineBuilder, RunEnd, RunLimits};

/// The exit device's 0.
const ALL_GOOD: RunEnd = RunEnd::GuestExit(1);
/// How long the BIOS has to find nothing.
const GUEST_SECONDS: u64 = 10;
const SEABIOS: &str = "/usr/share/seabios";

/// The check's disk, for one test.
struct CheckDisk(PathBuf);

impl CheckDisk {
    fn new(name: &str) -> CheckDisk {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.img", std::process::id()));
        let mut image = umbra_roms::BIOS_CHECK.to_vec();
        image.resize(1 << 20, 0);
        std::fs::write(&path, image).expect("a disk image");
        CheckDisk(path)
    }
    fn machine(&self, engine: Engine, clock: Clock) -> MachineConfig {
        let mut config = MachineConfig { engine, clock, ..MachineConfig::default() };
        config.memory.0 = 16 << 20;
        config.disks.push(DiskConfig {
            file: self.0.clone(),
            interface: DiskInterface::Ide,
            format: DiskFormat::Raw,
            access: DiskAccess::Snapshot,
        });
        config
    }
}

impl Drop for CheckDisk {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs a machine to its end.
fn passes(config: &MachineConfig) {
    let mut machine = MachineBuilder::from_config(config).build().expect("a machine");
    let deadline = Some(Instant::now() + Duration::from_secs(120));
    let end = machine.run(RunLimits { deadline, ..RunLimits::default() });
    assert_eq!(end, ALL_GOOD, "{:?}, {:?}: {:?}", config.engine, config.clock, machine.divergence());
}

fn engine() -> Engine {
    match std::env::var("UMBRA_TEST_ENGINE").as_deref() {
        Ok("jit") => Engine::Jit,
        _ => Engine::Interp,
    }
}

#[test]
fn our_own_bios_answers_as_it_should() {
    let disk = CheckDisk::new("own");
    for clock in [Clock::Virtual, Clock::Real] {
        passes(&disk.machine(engine(), clock));
    }
}

#[test]
fn it_does_so_on_an_ahci_disk() {
    let disk = CheckDisk::new("ahci");
    for clock in [Clock::Virtual, Clock::Real] {
        let mut config = disk.machine(engine(), clock);
        config.disks[0].interface = DiskInterface::Ahci;
        passes(&config);
    }
}

#[test]
#[cfg(all(target_arch = "x86_64", not(portable)))]
fn both_engines_agree_on_it() {
    passes(&CheckDisk::new("both").machine(Engine::Both, Clock::Virtual));
}

#[test]
fn seabios_passes_the_same_checks() {
    let folder = Path::new(SEABIOS);
    if !folder.join("bios-256k.bin").is_file() {
        eprintln!("SKIPPED: seabios is not installed");
        return;
    }
    let disk = CheckDisk::new("seabios");
    for vga_rom in [None, Some(folder.join("vgabios-stdvga.bin"))] {
        let mut config = disk.machine(engine(), Clock::Virtual);
        config.boot.bios = Some(folder.join("bios-256k.bin"));
        config.boot.vga_rom = vga_rom;
        passes(&config);
    }
}

/// With nothing to start from, the BIOS says so on the serial port, where a machine without a display shows it.
#[test]
fn a_machine_without_a_system_says_so() {
    let mut config = MachineConfig { engine: engine(), clock: Clock::Virtual, ..MachineConfig::default() };
    config.memory.0 = 16 << 20;
    let mut machine = MachineBuilder::from_config(&config).build().expect("a machine");
    let said = Arc::new(Mutex::new(String::new()));
    let heard = said.clone();
    machine.connect_serial(0, Box::new(move |bytes| heard.lock().push_str(&String::from_utf8_lossy(bytes))));
    let deadline = Some(Instant::now() + Duration::from_secs(120));
    let limits = RunLimits { until: Some(Tick(GUEST_SECONDS * 1_000_000_000)), deadline, ..RunLimits::default() };
    assert_eq!(machine.run(limits), RunEnd::TickReached);
    let text = said.lock().clone();
    assert!(text.contains("No bootable disk: "), "{text:?}");
}
