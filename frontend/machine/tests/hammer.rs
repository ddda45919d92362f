//! The hammer ROM with several vCPUs, on threads and in turns, with frames that move beneath it: no lost update, no stale
//! translation, no stale code, no lost interrupt (SHADOW-MMU S7, S17).
//!
//! `UMBRA_HAMMER_SECONDS=60 cargo test --release -p umbra-machine --test hammer` takes that long for each of its cases.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use umbra_machine::config::{Clock, Engine, MachineConfig};
use umbra_machine::roms::Rom;
use umbra_machine::{MachineBuilder, RunEnd, RunLimits};
use umbra_mmu::GuestPhys;

/// Where the ROM looks how long it is to work, in nanoseconds.
const DURATION: GuestPhys = GuestPhys(0x7_0000);

/// One machine's life: `work` of guest time with everything that the ROM does.
fn run(engine: Engine, clock: Clock, cpus: u32, work: Duration, storm: Option<Duration>) {
    let rom = Rom::named("hammer").expect("the ROM");
    let config = MachineConfig { engine, ..MachineConfig::default() };
    let mut builder = MachineBuilder::from_config(&config).memory(16 << 20).cpus(cpus).clock(clock);
    if let Some(every) = storm {
        builder = builder.compact_every(every);
    }
    let mut machine = builder.rom(rom.name, rom.image).build().expect("a machine");
    machine.memory().write(DURATION, &(work.as_nanos() as u64).to_le_bytes());
    let story: Arc<Mutex<Vec<u8>>> = Arc::default();
    let sink = story.clone();
    machine.connect_serial(0, Box::new(move |bytes| sink.lock().expect("no panic").extend_from_slice(bytes)));
    let patience = Duration::from_secs(300) + work;
    let end = machine.run(RunLimits { deadline: Instant::now().checked_add(patience), ..RunLimits::default() });
    let story = String::from_utf8_lossy(&story.lock().expect("no panic")).into_owned();
    let counts = story.lines().find(|line| line.contains("processors:")).unwrap_or("");
    println!("{engine:?} {clock:?} storm {storm:?}: {counts}");
    let rips: Vec<_> = machine.vcpus().iter().map(|vcpu| format!("{:#x}", vcpu.state.rip)).collect();
    assert_eq!(end, RunEnd::GuestExit(1), "{engine:?} {clock:?} {cpus} vCPUs, storm {storm:?}, at {rips:?}:\n{story}");
    let report = machine.memory().audit();
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(machine.memory().counters().monitor.moves != 0, storm.is_some());
}

/// Runs a case for as long as the environment says, or once.
fn hammer(engine: Engine, clock: Clock, cpus: u32, storm: Option<Duration>) {
    let seconds: Option<u64> = std::env::var("UMBRA_HAMMER_SECONDS").ok().and_then(|text| text.parse().ok());
    match (seconds, clock) {
        (None, Clock::Real) => run(engine, clock, cpus, Duration::from_millis(500), storm),
        (None, Clock::Virtual) => run(engine, clock, cpus, Duration::from_millis(20), storm),
        (Some(seconds), Clock::Real) => run(engine, clock, cpus, Duration::from_secs(seconds), storm),
        (Some(seconds), Clock::Virtual) => {
            // Guest time is not the host's here: again, a little longer each time, so that no two lives are the same.
            let end = Instant::now() + Duration::from_secs(seconds);
            let mut work = Duration::from_millis(400);
            while Instant::now() < end {
                run(engine, clock, cpus, work, storm);
                work += Duration::from_millis(37);
            }
        }
    }
}

/// The engines that this host has.
fn engines() -> &'static [Engine] {
    let compiles = cfg!(all(target_arch = "x86_64", target_os = "linux", not(portable)));
    if compiles { &[Engine::Interp, Engine::Jit] } else { &[Engine::Interp] }
}

#[test]
fn on_threads() {
    for engine in engines() {
        hammer(*engine, Clock::Real, 2, None);
        hammer(*engine, Clock::Real, 4, None);
    }
}

#[test]
fn on_threads_in_a_storm() {
    for engine in engines() {
        hammer(*engine, Clock::Real, 3, Some(Duration::from_millis(20)));
    }
}

#[test]
fn in_turns() {
    for engine in engines() {
        hammer(*engine, Clock::Virtual, 1, None);
        hammer(*engine, Clock::Virtual, 2, None);
        hammer(*engine, Clock::Virtual, 4, Some(Duration::from_millis(1)));
    }
}
