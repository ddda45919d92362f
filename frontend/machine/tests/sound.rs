//! A guest is heard: it plays a square wave by the AC'97 controller and a tone by the PC speaker. On the virtual clock every
//! engine gives the same frames, to the last bit; on the real one the same stream.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use umbra_machine::config::{Clock, Engine, MachineConfig, SoundCard, SoundConfig};
use umbra_machine::load::flat::FlatMode;
use umbra_machine::sound::Mixer;
use umbra_machine::{FlatStart, MachineBuilder, RunEnd, RunLimits};
use umbra_mmu::GuestPhys;

/// Plays half a second of 1000 Hz, 8000 high, from a buffer of 12,000 frames that two descriptors name; waits for the
/// interrupt of the last one; then a tone of 1193 clocks of the timer (1000.15 Hz) for 25 periods of it at 100 Hz (the
/// request that setting its mode makes is taken before the count begins).
#[rustfmt::skip]
const GUEST: &[u8] = &[
    0x31, 0xC0,                                                  // xor ax, ax
    0x8E, 0xD8,                                                  // mov ds, ax
    0x8E, 0xD0,                                                  // mov ss, ax
    0xBC, 0x00, 0x70,                                            // mov sp, 0x7000
    0xC7, 0x06, 0xCC, 0x01, 0xC3, 0x7C,                          // mov word [0x73*4], played
    0xC7, 0x06, 0xCE, 0x01, 0x00, 0x00,                          // mov word [0x73*4+2], 0
    0xC7, 0x06, 0x20, 0x00, 0xD9, 0x7C,                          // mov word [8*4], tick
    0xC7, 0x06, 0x22, 0x00, 0x00, 0x00,                          // mov word [8*4+2], 0
    0xBA, 0x00, 0x20,                                            // a square of 48 frames mov dx, 0x2000
    0x8E, 0xC2,                                                  // mov es, dx
    0x31, 0xFF,                                                  // xor di, di
    0xBB, 0xF4, 0x01,                                            // mov bx, 500
    0xB8, 0x40, 0x1F,                                            // mov ax, 8000
    0xB9, 0x30, 0x00,                                            // period: mov cx, 48
    0xF3, 0xAB,                                                  // rep stosw
    0xF7, 0xD8,                                                  // neg ax
    0x4B,                                                        // dec bx
    0x75, 0xF6,                                                  // jnz .period
    0xBF, 0x00, 0x10,                                            // descriptors mov di, 0x1000
    0x66, 0xC7, 0x05, 0x00, 0x00, 0x02, 0x00,                    // mov dword [di], 0x20000
    0x66, 0xC7, 0x45, 0x04, 0xC0, 0x5D, 0x00, 0x00,              // mov dword [di+4], 24000
    0x66, 0xC7, 0x45, 0x08, 0x00, 0x00, 0x02, 0x00,              // mov dword [di+8], 0x20000
    0x66, 0xC7, 0x45, 0x0C, 0xC0, 0x5D, 0x00, 0x40,              // mov dword [di+12], 0x40000000 + 24000
    0xBA, 0x6C, 0xC0,                                            // mov dx, 0xC06C
    0x66, 0xB8, 0x02, 0x00, 0x00, 0x00,                          // mov eax, 2
    0x66, 0xEF,                                                  // out dx, eax
    0xBA, 0x02, 0xC1,                                            // mov dx, 0xC102
    0x31, 0xC0,                                                  // xor ax, ax
    0xEF,                                                        // out dx, ax
    0xBA, 0x18, 0xC1,                                            // mov dx, 0xC118
    0xB8, 0x08, 0x08,                                            // mov ax, 0x0808
    0xEF,                                                        // out dx, ax
    0xBA, 0x50, 0xC0,                                            // mov dx, 0xC050
    0x66, 0xB8, 0x00, 0x10, 0x00, 0x00,                          // mov eax, 0x1000
    0x66, 0xEF,                                                  // out dx, eax
    0xBA, 0x55, 0xC0,                                            // mov dx, 0xC055
    0xB0, 0x01,                                                  // mov al, 1
    0xEE,                                                        // out dx, al
    0xB0, 0xFA,                                                  // mov al, 0xFA
    0xE6, 0x21,                                                  // out 0x21, al
    0xB0, 0xF7,                                                  // mov al, 0xF7
    0xE6, 0xA1,                                                  // out 0xA1, al
    0xBA, 0x5B, 0xC0,                                            // mov dx, 0xC05B
    0xB0, 0x05,                                                  // mov al, 5
    0xEE,                                                        // out dx, al
    0xFB,                                                        // sti
    0xF4,                                                        // wait: hlt
    0x80, 0x3E, 0x00, 0x05, 0x00,                                // cmp byte [0x500], 0
    0x74, 0xF8,                                                  // je .wait
    0xB0, 0xB6,                                                  // the speaker mov al, 0xB6
    0xE6, 0x43,                                                  // out 0x43, al
    0xB0, 0xA9,                                                  // mov al, 1193 & 255
    0xE6, 0x42,                                                  // out 0x42, al
    0xB0, 0x04,                                                  // mov al, 1193 >> 8
    0xE6, 0x42,                                                  // out 0x42, al
    0xB0, 0x03,                                                  // mov al, 3
    0xE6, 0x61,                                                  // out 0x61, al
    0xB0, 0x34,                                                  // mov al, 0x34
    0xE6, 0x43,                                                  // out 0x43, al
    0xB0, 0x9C,                                                  // mov al, 11932 & 255
    0xE6, 0x40,                                                  // out 0x40, al
    0xB0, 0x2E,                                                  // mov al, 11932 >> 8
    0xE6, 0x40,                                                  // out 0x40, al
    0xB9, 0x19, 0x00,                                            // mov cx, 25
    0xF4,                                                        // beep: hlt
    0xE2, 0xFD,                                                  // loop .beep
    0x30, 0xC0,                                                  // xor al, al
    0xE6, 0x61,                                                  // out 0x61, al
    0xE6, 0xF4,                                                  // out 0xF4, al
    0xF4,                                                        // hlt
    0x50,                                                        // played: push ax
    0x52,                                                        // push dx
    0xBA, 0x56, 0xC0,                                            // mov dx, 0xC056
    0xB8, 0x1C, 0x00,                                            // mov ax, 0x1C
    0xEF,                                                        // out dx, ax
    0xFE, 0x06, 0x00, 0x05,                                      // inc byte [0x500]
    0xB0, 0x20,                                                  // mov al, 0x20
    0xE6, 0xA0,                                                  // out 0xA0, al
    0xE6, 0x20,                                                  // out 0x20, al
    0x5A,                                                        // pop dx
    0x58,                                                        // pop ax
    0xCF,                                                        // iret
    0x50,                                                        // tick: push ax
    0xB0, 0x20,                                                  // mov al, 0x20
    0xE6, 0x20,                                                  // out 0x20, al
    0x58,                                                        // pop ax
    0xCF,                                                        // iret
];

/// What is heard of the guest.
fn listen(engine: Engine, clock: Clock) -> Vec<[i16; 2]> {
    let sound = SoundConfig { card: SoundCard::Ac97, wav: None };
    let config = MachineConfig { engine, clock, sound, ..MachineConfig::default() };
    let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
    let builder = MachineBuilder::from_config(&config).memory(4 << 20).jit_threshold(1).flat("guest", GUEST, start);
    let mut machine = builder.build().expect("a machine");
    let heard: Arc<Mutex<(Mixer, Vec<[i16; 2]>)>> = Arc::default();
    let sink = heard.clone();
    machine.connect_sound(Box::new(move |batch| {
        let (mixer, frames) = &mut *sink.lock().expect("no panic");
        mixer.mix(batch, frames);
    }));
    let deadline = Some(Instant::now() + Duration::from_secs(60));
    assert_eq!(
        machine.run(RunLimits { deadline, ..RunLimits::default() }),
        RunEnd::GuestExit(1),
        "{engine:?} {clock:?}"
    );
    machine.board().finish_sound();
    let (mixer, frames) = &mut *heard.lock().expect("no panic");
    mixer.finish(frames);
    std::mem::take(frames)
}

/// Steps from below to above zero; what is near it does not count.
fn rises(frames: &[[i16; 2]]) -> usize {
    let clear: Vec<i16> = frames.iter().map(|frame| frame[0]).filter(|sample| sample.abs() > 500).collect();
    clear.windows(2).filter(|pair| pair[0] < 0 && pair[1] > 0).count()
}

/// The stream, which the board plays frame for frame. A stream is late by less than a frame (it begins with a whole one), so that
/// its last may have something of what follows at once.
fn check_stream(frames: &[[i16; 2]]) {
    for (number, frame) in frames[..23_999].iter().enumerate() {
        let want = if number / 24 % 2 == 0 { 8000 } else { -8000 };
        assert_eq!(*frame, [want; 2], "frame {number}");
    }
}

#[test]
fn a_guest_is_heard_the_same_by_both_engines() {
    let frames = listen(Engine::Interp, Clock::Virtual);
    check_stream(&frames);
    // The speaker begins at once: 25 periods of its timer, 250 ms.
    let tone = &frames[24_000..];
    assert_eq!(rises(tone), 250, "250.04 periods, which begin above zero");
    // The cone is at rest 61 ms after its last move.
    assert!((12_000..12_000 + 2_928).contains(&tone.len()), "{}", tone.len());
    let compiles = cfg!(all(target_arch = "x86_64", target_os = "linux", not(portable)));
    let others: &[Engine] = if compiles { &[Engine::Jit, Engine::Both] } else { &[] };
    for &engine in others {
        assert!(listen(engine, Clock::Virtual) == frames, "{engine:?}");
    }
}

#[test]
fn a_guest_is_heard_in_real_time() {
    // Where there is no JIT, this is the interpreter.
    let frames = listen(Engine::Jit, Clock::Real);
    check_stream(&frames);
    assert!((235..2_000).contains(&rises(&frames[24_000..])), "{}", rises(&frames[24_000..]));
}

#[test]
fn nobody_listens_and_the_guest_does_not_mind() {
    let run = |ears: bool| {
        let sound = SoundConfig { card: SoundCard::Ac97, wav: None };
        let config = MachineConfig { clock: Clock::Virtual, sound, ..MachineConfig::default() };
        let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
        let builder = MachineBuilder::from_config(&config).memory(4 << 20).flat("guest", GUEST, start);
        let mut machine = builder.build().expect("a machine");
        if ears {
            machine.connect_sound(Box::new(|_| {}));
        }
        (machine.run(RunLimits::default()), machine.now(), machine.state_hash())
    };
    assert_eq!(run(true), run(false));
}
