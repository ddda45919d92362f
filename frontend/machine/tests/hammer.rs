//! The hammer ROM with several vCPUs, on threads and in turns, with frames that move beneath it: no lost update, no stale
//! translation, no stale code, no lost interrupt (SHADOW-MMU S7, S17).
//!
//! `UMBRA_HAMMER_SECONDS=60 cargo test --release -p umbra-machine --test hammer` takes that long for each of its cases.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use umbra_machine::config::{Clock, Engine, MachineConfig, MemoryPolicy, ReplacementPolicy};
use umbra_machine::roms::Rom;
use umbra_machine::{Machine, MachineBuilder, RunEnd, RunLimits};
use umbra_mmu::{GuestMemory, GuestPhys};

/// Where the ROM looks how long it is to work, in nanoseconds.
const DURATION: GuestPhys = GuestPhys(0x7_0000);

/// One machine's life: `work` of guest time with everything that the ROM does.
fn run(engine: Engine, clock: Clock, cpus: u32, work: Duration, storm: Option<Duration>) {
    let config = MachineConfig { engine, ..MachineConfig::default() };
    let mut builder = MachineBuilder::from_config(&config);
    if let Some(every) = storm {
        builder = builder.compact_every(every);
    }
    let machine = run_on(builder, clock, cpus, work, |_| {});
    assert_eq!(machine.memory().counters().monitor.moves != 0, storm.is_some());
}

/// As long beside a thread that takes memory away.
fn hammer_paged(engine: Engine, clock: Clock, cpus: u32, replacement: ReplacementPolicy) {
    let mut config = MachineConfig { engine, ..MachineConfig::default() };
    config.host_memory.policy = MemoryPolicy::Paged;
    config.host_memory.replacement = replacement;
    let seconds: u64 = std::env::var("UMBRA_HAMMER_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let work = Duration::from_millis(if clock == Clock::Real { 500 } else { 20 }) + Duration::from_secs(seconds);
    let machine = run_on(MachineBuilder::from_config(&config), clock, cpus, work, |memory| {
        memory.evict(u64::MAX);
    });
    let counts = machine.memory().counters().reclaim;
    println!("{replacement:?}: {counts:?}");
    assert!(counts.swap_ins > 100, "{counts:?}");
    assert!(machine.memory().failure().is_none());
}

/// The life itself; meanwhile something is done to its memory again and again.
fn run_on(
    builder: MachineBuilder,
    clock: Clock,
    cpus: u32,
    work: Duration,
    meanwhile: impl Fn(&GuestMemory) + Sync,
) -> Machine {
    let rom = Rom::named("hammer").expect("the ROM");
    let what = format!("{:?} {clock:?} {cpus} vCPUs, {:?}", builder.config().engine, builder.config().host_memory);
    let builder = builder.memory(16 << 20).cpus(cpus).clock(clock);
    let mut machine = builder.rom(rom.name, rom.image).build().expect("a machine");
    machine.memory().write(DURATION, &(work.as_nanos() as u64).to_le_bytes());
    let story: Arc<Mutex<Vec<u8>>> = Arc::default();
    let sink = story.clone();
    machine.connect_serial(0, Box::new(move |bytes| sink.lock().expect("no panic").extend_from_slice(bytes)));
    let patience = Duration::from_secs(300) + work;
    let (memory, over) = (machine.memory().clone(), AtomicBool::new(false));
    let end = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                meanwhile(&memory);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let end = machine.run(RunLimits { deadline: Instant::now().checked_add(patience), ..RunLimits::default() });
        over.store(true, Ordering::Relaxed);
        end
    });
    let story = String::from_utf8_lossy(&story.lock().expect("no panic")).into_owned();
    let counts = story.lines().find(|line| line.contains("processors:")).unwrap_or("");
    println!("{what}: {counts}");
    let rips: Vec<_> = machine.vcpus().iter().map(|vcpu| format!("{:#x}", vcpu.state.rip)).collect();
    assert_eq!(end, RunEnd::GuestExit(1), "{what}, at {rips:?}:\n{story}");
    let report = machine.memory().audit();
    assert!(report.is_clean(), "{report:#?}");
    machine
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

/// A reclaimer takes every frame away again and again, those of code, stacks and page tables too.
#[test]
fn on_threads_beside_a_reclaimer() {
    for engine in engines() {
        for replacement in [ReplacementPolicy::Segmented, ReplacementPolicy::Clock] {
            hammer_paged(*engine, Clock::Real, 3, replacement);
        }
        hammer_paged(*engine, Clock::Virtual, 2, ReplacementPolicy::Segmented);
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
