//! The suites of `roms/suites`: thousands of cases each, whose results come from a reference model of the manual
//! (`roms/suites/README.md`). A suite checks itself; what differed is written to a log that `build.py --log` explains.
//!
//! Each engine executes them, or the one that `UMBRA_ENGINE` (interp, jit) names. Leaves out: the ROMs of `roms/tests`.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use umbra_machine::config::{Clock, Engine, MachineConfig, Size};
use umbra_machine::{Machine, MachineBuilder, RunEnd, RunLimits};

/// What executes the suites.
fn engines() -> Vec<Engine> {
    match std::env::var("UMBRA_ENGINE").as_deref() {
        Err(_) => vec![Engine::Interp, Engine::Jit],
        Ok("interp") => vec![Engine::Interp],
        Ok("jit") => vec![Engine::Jit],
        Ok(other) => panic!("UMBRA_ENGINE is {other:?}; try interp or jit"),
    }
}

/// The machine that a suite runs on.
fn machine(name: &str, image: Vec<u8>, model: &str, engine: Engine) -> Machine {
    let mut config = MachineConfig { memory: Size(16 << 20), clock: Clock::Virtual, ..MachineConfig::default() };
    model.clone_into(&mut config.cpu);
    config.engine = engine;
    MachineBuilder::from_config(&config).rom(name, image).build().expect("a machine")
}

/// Runs a suite to its end. A shutdown is one of its cases: the machine is reset, and the suite goes on.
fn run(name: &str, model: &str, engine: Engine) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../roms/suites");
    let image = std::fs::read(folder.join(format!("{name}.bin"))).expect("the suite's image");
    let mut machine = machine(name, image, model, engine);
    let (said, told) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let sink = |text: &Arc<Mutex<Vec<u8>>>| {
        let text = text.clone();
        Box::new(move |bytes: &[u8]| text.lock().expect("the text").extend_from_slice(bytes))
    };
    machine.connect_serial(0, sink(&said));
    machine.connect_console(sink(&told));
    let limits = RunLimits { deadline: Some(Instant::now() + Duration::from_secs(600)), ..RunLimits::default() };
    let end = loop {
        match machine.run(limits) {
            RunEnd::Crashed(_) => machine.reset().expect("it starts again"),
            end => break end,
        }
    };
    let differed = String::from_utf8_lossy(&told.lock().expect("the text")).into_owned();
    let verdict = String::from_utf8_lossy(&said.lock().expect("the text")).trim().to_owned();
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.log"));
    std::fs::write(&log, &differed).expect("the log can be written");
    let first: Vec<&str> = differed.lines().take(5).collect();
    assert_eq!(
        end,
        RunEnd::GuestExit(1),
        "{name}, {engine:?}: {verdict}\n{}\n… explained by: python3 roms/suites/build.py {name} --log {}",
        first.join("\n"),
        log.display()
    );
    assert!(verdict.starts_with("passed: "), "{name}, {engine:?}: {verdict}");
}

macro_rules! suites {
    ($($name:ident $model:literal)*) => {$(
        #[test]
        fn $name() {
            for engine in engines() {
                run(stringify!($name), $model, engine);
            }
        }
    )*};
}

suites! {
    gates "max"
    segments "max"
    taskswitch "max"
    paging "max"
    decoding "max"
    debugging "max"
    virtual86 "max"
    strings "max"
    selfmod "max"
    longmode "max"
    control "max"
    xstate "max"
    pic "max"
    pit "max"
    rtc "max"
    lapic "max"
    ioapic "max"
    hpet "max"
}
