//! Whole machines through the builder's API: small guests in machine code, both clocks, every way in which a run ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use umbra_cpu::debug::{WatchFor, Watchpoint};
use umbra_devices::clock::Tick;
use umbra_machine::config::{Clock, Engine, MachineConfig, MemoryPolicy};
use umbra_machine::load::flat::FlatMode;
use umbra_machine::{FlatStart, Machine, MachineBuilder, RunEnd, RunLimits, WhenAsleep};
use umbra_mmu::frames::FrameOrder;
use umbra_mmu::{FaultClass, GuestPhys};

const BOTH: [Clock; 2] = [Clock::Virtual, Clock::Real];

/// The engine that these tests run on: `UMBRA_TEST_ENGINE=interp` (default) or `jit`, which emits every block at once.
fn engine() -> Engine {
    match std::env::var("UMBRA_TEST_ENGINE").as_deref() {
        Err(_) | Ok("interp") => Engine::Interp,
        Ok("jit") => Engine::Jit,
        Ok(other) => panic!("UMBRA_TEST_ENGINE={other}: should be interp or jit"),
    }
}

/// A machine that starts `code` at 7C00h in real mode.
fn machine(code: &[u8], clock: Clock) -> Machine {
    let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
    Machine::builder()
        .memory(4 << 20)
        .clock(clock)
        .engine(engine())
        .jit_threshold(1)
        .flat("guest", code, start)
        .build()
        .expect("a machine")
}

/// Ends by itself after a while on the host, so that a broken machine does not hang the tests.
fn limits() -> RunLimits {
    RunLimits { deadline: Some(Instant::now() + Duration::from_secs(60)), ..RunLimits::default() }
}

/// `mov al, status; out F4h, al; hlt`.
fn exit_with(status: u8) -> Vec<u8> {
    vec![0xB0, status, 0xE6, 0xF4, 0xF4]
}

/// Takes the timer's interrupt at 100 Hz, halts five times, exits with status 0.
#[rustfmt::skip]
const FIVE_TICKS: &[u8] = &[
    0x31, 0xC0,                         // xor ax, ax
    0x8E, 0xD8,                         // mov ds, ax
    0xC7, 0x06, 0x20, 0x00, 0x30, 0x7C, // mov word [20h], handler
    0xC7, 0x06, 0x22, 0x00, 0x00, 0x00, // mov word [22h], 0
    0xB0, 0x34, 0xE6, 0x43,             // mov al, 34h; out 43h, al
    0xB0, 0x9C, 0xE6, 0x40,             // mov al, 9Ch; out 40h, al
    0xB0, 0x2E, 0xE6, 0x40,             // mov al, 2Eh; out 40h, al
    0xB0, 0xFE, 0xE6, 0x21,             // mov al, FEh; out 21h, al
    0xB9, 0x05, 0x00,                   // mov cx, 5
    0xFB,                               // sti
    0xF4,                               // hlt
    0xE2, 0xFD,                         // loop hlt
    0xB0, 0x00, 0xE6, 0xF4,             // mov al, 0; out F4h, al
    0xF4,                               // hlt
    0x90, 0x90, 0x90, 0x90,             // (to 30h)
    0x50,                               // handler: push ax
    0xB0, 0x20, 0xE6, 0x20,             // mov al, 20h; out 20h, al
    0x58,                               // pop ax
    0xCF,                               // iret
];

#[test]
fn runs_end_as_the_guest_says() {
    #[rustfmt::skip]
    let cases: [(&[u8], RunEnd); 5] = [
        (&exit_with(0x10),                                             RunEnd::GuestExit(0x21)),
        // mov dx, 604h; mov ax, 2001h; out dx, ax; hlt
        (&[0xBA, 0x04, 0x06, 0xB8, 0x01, 0x20, 0xEF, 0xF4],            RunEnd::PoweredOff),
        // mov dx, CF9h; mov al, 6; out dx, al; hlt
        (&[0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE, 0xF4],                  RunEnd::Reset),
        // mov al, FEh; out 64h, al; hlt
        (&[0xB0, 0xFE, 0xE6, 0x64, 0xF4],                              RunEnd::Reset),
        // xor ax, ax; mov ds, ax; lidt [500h]; int3
        (&[0x31, 0xC0, 0x8E, 0xD8, 0x0F, 0x01, 0x1E, 0x00, 0x05, 0xCC], RunEnd::Crashed(0)),
    ];
    for clock in BOTH {
        for (code, end) in cases {
            let mut machine = machine(code, clock);
            assert_eq!(machine.run(limits()), end, "{clock:?} {code:02x?}");
        }
    }
}

#[test]
fn timer_interrupts_arrive_in_time() {
    for clock in BOTH {
        let mut machine = machine(FIVE_TICKS, clock);
        let start = Instant::now();
        assert_eq!(machine.run(limits()), RunEnd::GuestExit(1), "{clock:?}");
        // The first request is the one that setting the mode makes; four more at 100 Hz follow.
        let Tick(now) = machine.now();
        assert!(now >= 39_000_000, "{clock:?}: {now}");
        match clock {
            Clock::Virtual => assert!(now < 51_000_000, "{now}"),
            Clock::Real => assert!(start.elapsed() >= Duration::from_millis(39)),
        }
    }
}

#[test]
fn virtual_time_makes_equal_runs() {
    let run = |order, every: Option<Duration>| {
        let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
        let mut builder = Machine::builder().memory(4 << 20).clock(Clock::Virtual).frame_order(order);
        if let Some(every) = every {
            builder = builder.compact_every(every);
        }
        let mut machine = builder.flat("guest", FIVE_TICKS, start).build().expect("a machine");
        let end = machine.run(limits());
        assert_eq!(machine.memory().counters().monitor.moves != 0, every.is_some());
        (end, machine.now(), machine.retired(), machine.state_hash())
    };
    let first = run(FrameOrder::Identity, None);
    assert_eq!(run(FrameOrder::Identity, None), first);
    assert_eq!(run(FrameOrder::Permuted { seed: 7 }, None), first);
    assert_eq!(run(FrameOrder::Identity, Some(Duration::from_millis(1))), first);
    assert_eq!(run(FrameOrder::Permuted { seed: 8 }, Some(Duration::from_micros(100))), first);
}

#[test]
fn a_storm_on_the_real_clock_ends_with_the_run() {
    let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
    let builder = Machine::builder().memory(4 << 20).clock(Clock::Real).compact_every(Duration::from_millis(1));
    let mut machine = builder.flat("guest", FIVE_TICKS, start).build().expect("a machine");
    assert_eq!(machine.run(limits()), RunEnd::GuestExit(1));
    let moves = machine.memory().counters().monitor.moves;
    assert!(moves > 0);
    assert_eq!(machine.memory().counters().monitor.moves, moves, "nothing moves while the machine stands");
    assert!(machine.memory().audit().is_clean());
}

#[test]
fn a_reset_machine_starts_again() {
    for clock in BOTH {
        // inc byte [600h]; mov dx, CF9h; mov al, 6; out dx, al; hlt
        let mut machine = machine(&[0xFE, 0x06, 0x00, 0x06, 0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE, 0xF4], clock);
        for round in 1..=3 {
            assert_eq!(machine.run(limits()), RunEnd::Reset);
            let mut count = [0];
            machine.memory().read(GuestPhys(0x600), &mut count);
            assert_eq!(count, [round], "memory keeps its contents over a reset");
            machine.reset().expect("it loads again");
        }
    }
}

#[test]
fn a_busy_machine_stops_when_asked() {
    for clock in BOTH {
        let mut machine = machine(&[0xEB, 0xFE], clock);
        let handle = machine.stop_handle();
        let asker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            handle.stop();
        });
        assert_eq!(machine.run(limits()), RunEnd::Stopped, "{clock:?}");
        asker.join().expect("the asker ends");
    }
}

/// A debugger's hit that comes while somebody stops the run is reported by this run or by the next one.
#[test]
fn a_hit_beside_a_stop_is_not_lost() {
    #[rustfmt::skip]
    let code = [
        0x31, 0xC0, 0x8E, 0xD8, // xor ax, ax; mov ds, ax
        0xFF, 0x06, 0x00, 0x05, // again: inc word [500h]
        0xB9, 0xC8, 0x00,       // mov cx, 200
        0xE2, 0xFE,             // loop $
        0xEB, 0xF5,             // jmp again
    ];
    let mut machine = machine(&code, Clock::Real);
    machine.vcpus_mut()[0].watch(Watchpoint { linear: 0x500, len: 2, sees: WatchFor::Writes });
    let (stop, over) = (machine.stop_handle(), AtomicBool::new(false));
    let counted = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                stop.stop();
                std::thread::yield_now();
            }
        });
        let mut counted = Vec::new();
        while counted.len() < 500 {
            match machine.run(limits()) {
                RunEnd::Debug(0) => {
                    let mut word = [0; 2];
                    machine.memory().read(GuestPhys(0x500), &mut word);
                    counted.push(u16::from_le_bytes(word));
                }
                RunEnd::Stopped => {}
                _ => break,
            }
        }
        over.store(true, Ordering::SeqCst);
        counted
    });
    assert_eq!(counted, (1..=500).collect::<Vec<_>>());
}

#[test]
fn limits_in_guest_time_are_exact_on_the_virtual_clock() {
    let mut machine = machine(&[0xEB, 0xFE], Clock::Virtual);
    for end in [1_000_000, 1_000_001, 3_000_000] {
        assert_eq!(machine.run_until(Tick(end)), RunEnd::TickReached);
        assert_eq!((machine.now(), machine.retired()), (Tick(end), end));
    }
}

#[test]
fn a_machine_that_sleeps_for_good_says_so_or_waits() {
    // cli; hlt
    let mut sleeper = machine(&[0xFA, 0xF4], Clock::Virtual);
    assert_eq!(sleeper.run(limits()), RunEnd::Asleep);
    for clock in BOTH {
        let mut sleeper = machine(&[0xFA, 0xF4], clock);
        let deadline = Some(Instant::now() + Duration::from_millis(50));
        let limits = RunLimits { deadline, when_asleep: WhenAsleep::Wait, ..RunLimits::default() };
        assert_eq!(sleeper.run(limits), RunEnd::TimedOut, "{clock:?}");
    }
}

#[test]
fn serial_input_wakes_a_guest_that_polls() {
    // mov dx, 3FDh; in al, dx; test al, 1; jz in; mov dx, 3F8h; in al, dx; out F4h, al; hlt
    let code = [0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xFB, 0xBA, 0xF8, 0x03, 0xEC, 0xE6, 0xF4, 0xF4];
    for clock in BOTH {
        let mut machine = machine(&code, clock);
        let input = machine.input();
        let typist = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            input.serial(0, b"\x21");
        });
        assert_eq!(machine.run(limits()), RunEnd::GuestExit(0x43), "{clock:?}");
        typist.join().expect("the typist ends");
    }
}

#[test]
fn a_sink_stops_its_own_machine() {
    for clock in BOTH {
        // mov dx, 3F8h; mov al, 'x'; out dx, al; jmp $
        let mut machine = machine(&[0xBA, 0xF8, 0x03, 0xB0, b'x', 0xEE, 0xEB, 0xFE], clock);
        let handle = machine.stop_handle();
        machine.connect_serial(0, Box::new(move |_| handle.stop_from_sink()));
        let start = Instant::now();
        assert_eq!(machine.run(limits()), RunEnd::Stopped, "{clock:?}");
        assert!(start.elapsed() < Duration::from_secs(4), "it was told, and did not find out by looking around");
    }
}

#[test]
fn two_machines_run_side_by_side() {
    let run = |letter: u8, clock| {
        // mov dx, 3F8h; mov al, letter; mov cx, 1000; out dx, al; loop out; then exit
        let mut code = vec![0xBA, 0xF8, 0x03, 0xB0, letter, 0xB9, 0xE8, 0x03, 0xEE, 0xE2, 0xFD];
        code.extend(exit_with(letter & 0x7F));
        let mut machine = machine(&code, clock);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        machine.connect_serial(0, Box::new(move |bytes| log.lock().expect("no panic").extend_from_slice(bytes)));
        assert_eq!(machine.run(limits()), RunEnd::GuestExit(letter << 1 | 1));
        let seen = seen.lock().expect("no panic").clone();
        assert_eq!(seen, vec![letter; 1000]);
    };
    for clock in BOTH {
        std::thread::scope(|scope| {
            for letter in *b"ABCD" {
                scope.spawn(move || run(letter, clock));
            }
        });
    }
}

/// S2: all frames are there before the guest starts, or the host's refusal and what to do about it are told.
#[test]
fn pinned_memory_is_there_or_somebody_is_told() {
    let mut config = MachineConfig::default();
    config.host_memory.policy = MemoryPolicy::Pinned;
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = told.clone();
    let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
    let mut machine = MachineBuilder::from_config(&config)
        .memory(4 << 20)
        .flat("guest", exit_with(7), start)
        .notices(Arc::new(move |text| sink.lock().expect("no panic").push(text.to_owned())))
        .build()
        .expect("a machine");
    let told = told.lock().expect("no panic");
    if told.is_empty() {
        assert!(machine.memory().touched_frames() >= machine.memory_map().total() >> 12);
    } else {
        assert!(told.iter().any(|text| text.contains("RLIMIT_MEMLOCK")), "{told:?}");
    }
    assert_eq!(machine.run(limits()), RunEnd::GuestExit(15));
    assert_eq!(machine.memory().counters().class(FaultClass::FrameOut), 0);
}

/// Whoever has the board may wait for the vCPUs (a remap, frames that move), and these for the board: at a device, at the
/// end of a turn, to tell that they shut down.
#[test]
fn a_vcpu_that_waits_for_the_board_holds_nobody_up() {
    #[rustfmt::skip]
    let cases: [(Clock, &[u8], RunEnd); 3] = [
        // jmp $
        (Clock::Virtual, &[0xEB, 0xFE],             RunEnd::Stopped),
        // in al, 61h; jmp $ - 2
        (Clock::Real,    &[0xE4, 0x61, 0xEB, 0xFC], RunEnd::Stopped),
        // mov ecx, 3000000; loopd $; xor ax, ax; mov ds, ax; lidt [500h]; int3
        (Clock::Real,    &[0x66, 0xB9, 0xC0, 0xC6, 0x2D, 0, 0x67, 0xE2, 0xFD, 0x31, 0xC0, 0x8E, 0xD8,
                           0x0F, 0x01, 0x1E, 0x00, 0x05, 0xCC], RunEnd::Crashed(0)),
    ];
    for (clock, code, end) in cases {
        let mut machine = machine(code, clock);
        let (memory, input, stop) = (machine.memory().clone(), machine.input(), machine.stop_handle());
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || done.send(machine.run(RunLimits::default())));
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            input.with(|_| {
                for _ in 0..200 {
                    memory.compact(16);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            if end == RunEnd::Stopped {
                stop.stop();
            }
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(end), "{clock:?} {code:02x?}");
    }
}
