//! The whole board: arbitrary ports, device memory, PCI configuration, bus-master transfers, input from outside and time.
//!
//! No sequence panics or hangs, time goes on, and what a board saves it takes back: save, restore, save gives the same.

use arbitrary::{Result, Unstructured};
use std::time::{Duration, Instant};
use umbra_devices::ps2::{KeyCode, MouseButtons, Stroke};
use umbra_machine::config::{Clock, MachineConfig, SoundCard, SoundConfig};
use umbra_machine::cpu::Vcpu;
use umbra_machine::load::flat::FlatMode;
use umbra_machine::mmu::fault::{Access, View};
use umbra_machine::mmu::{GuestPhys, Linear, PlaceKind};
use umbra_machine::sound::Mixer;
use umbra_machine::{FlatStart, Machine, MachineBuilder, RunEnd, RunLimits};

/// The most steps in a case.
const MOST: usize = 400;

/// First ports of the chips, and how many there are.
#[rustfmt::skip]
const PORTS: &[(u16, u16)] = &[
    (0x00, 16), (0x20, 2), (0x40, 4), (0x60, 5), (0x70, 2), (0x80, 16), (0x92, 1), (0xA0, 2), (0xC0, 32), (0xE9, 1),
    (0x1F0, 8), (0x2F8, 8), (0x3F8, 8), (0x3F6, 1), (0x402, 1), (0x4D0, 2), (0x510, 12), (0x600, 64), (0x700, 16), (0xB2, 2),
    (0xCF8, 8), (0xC000, 16), (0xC040, 64), (0xC100, 128),
];

/// First addresses of device memory.
const MEMORY: &[u64] = &[0xFEE0_0000, 0xFEC0_0000, 0xFED0_0000, 0xA_0000, 0xC_0000, 0xE_0000, 0xF000_0000];

/// The target.
pub fn run(input: &[u8]) {
    let _ = play(&mut Unstructured::new(input));
}

fn play(input: &mut Unstructured<'_>) -> Result<()> {
    let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
    let cpus = input.int_in_range(1..=2)?;
    // cli; hlt; jmp back
    let code: &[u8] = &[0xFA, 0xF4, 0xEB, 0xFC];
    let sound = SoundConfig { card: SoundCard::Ac97, wav: None };
    let config = MachineConfig { clock: Clock::Virtual, sound, ..MachineConfig::default() };
    let machine = MachineBuilder::from_config(&config).memory(4 << 20).cpus(cpus).flat("guest", code, start).build();
    let Ok(mut machine) = machine else { panic!("a small machine: {:?}", machine.err()) };
    let (mut mixer, mut frames) = (Mixer::default(), Vec::new());
    machine.connect_sound(Box::new(move |heard| {
        mixer.mix(heard, &mut frames);
        frames.clear();
    }));
    for _ in 0..MOST {
        if input.is_empty() {
            break;
        }
        step(&mut machine, input)?;
    }
    let mut board = machine.board();
    let now = board.now();
    let saved: Vec<(String, Vec<u8>)> =
        board.save().into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    assert!(board.restore(&saved, now).is_ok(), "a board refuses what it saved itself");
    for ((name, before), (_, after)) in saved.iter().zip(board.save()) {
        assert_eq!(*before, after, "{name}: save, restore, save");
    }
    Ok(())
}

fn step(machine: &mut Machine, input: &mut Unstructured<'_>) -> Result<()> {
    let vcpus = machine.vcpus().len();
    let vcpu = usize::from(input.arbitrary::<u8>()?) % vcpus;
    match input.int_in_range(0..=11u8)? {
        0..=2 => {
            let (port, width) = port(input)?;
            let value = input.arbitrary()?;
            with_vcpu(machine, vcpu, |vcpu| vcpu.ask_board(|bus, now| bus.port_write(now, port, width, value)));
        }
        3 => {
            let (port, width) = port(input)?;
            with_vcpu(machine, vcpu, |vcpu| {
                let value = vcpu.ask_board(|bus, now| bus.port_read(now, port, width));
                assert!(width == 4 || value >> (8 * width) == 0, "port {port:#x} gives {value:#x} for {width} bytes");
            });
        }
        4 | 5 => {
            let (at, width) = address(input)?;
            let value = input.arbitrary()?;
            access(machine, vcpu, at, Access::Write, |vcpu, region, offset| {
                vcpu.ask_board(|bus, now| bus.mmio_write(now, region, offset, width, value));
            });
        }
        6 => {
            let (at, width) = address(input)?;
            access(machine, vcpu, at, Access::Read, |vcpu, region, offset| {
                vcpu.ask_board(|bus, now| bus.mmio_read(now, region, offset, width));
            });
        }
        7 => {
            // PCI configuration: one of the board's functions, or any.
            let function = if input.arbitrary()? {
                *input.choose(&[0u32, 0x800, 0x900, 0xB00, 0x2000])?
            } else {
                input.arbitrary::<u16>()?.into()
            };
            let register = u32::from(input.arbitrary::<u8>()?);
            let (offset, width, value) =
                (input.arbitrary::<u16>()? & 3, *input.choose(&[1, 2, 4])?, input.arbitrary()?);
            with_vcpu(machine, vcpu, |vcpu| {
                vcpu.ask_board(|bus, now| {
                    bus.port_write(now, 0xCF8, 4, 1 << 31 | function << 8 & 0xFF_FF00 | register & 0xFC)
                });
                vcpu.ask_board(|bus, now| bus.port_write(now, 0xCFC + offset, width, value));
                vcpu.ask_board(|bus, now| bus.port_read(now, 0xCFC, 4));
            });
        }
        8 => {
            // A transfer by fw_cfg: control, length, address, big-endian.
            let (control, length, to): (u32, u32, u32) = (input.arbitrary()?, input.arbitrary()?, input.arbitrary()?);
            let mut descriptor = [0; 16];
            descriptor[..4].copy_from_slice(&control.to_be_bytes());
            descriptor[4..8].copy_from_slice(&(length & 0x1F_FFFF).to_be_bytes());
            descriptor[12..].copy_from_slice(&(to & 0x7F_FFFF).to_be_bytes());
            machine.memory().write(GuestPhys(0x5000), &descriptor);
            with_vcpu(machine, vcpu, |vcpu| {
                vcpu.ask_board(|bus, now| bus.port_write(now, 0x514, 4, 0));
                vcpu.ask_board(|bus, now| bus.port_write(now, 0x518, 4, 0x5000_u32.swap_bytes()));
            });
        }
        9 => from_outside(machine, input)?,
        _ => {
            let shift = input.int_in_range(0..=22u8)?;
            pass(machine, 1 << shift);
        }
    }
    Ok(())
}

/// A port, mostly one that a chip has, and a width.
fn port(input: &mut Unstructured<'_>) -> Result<(u16, u8)> {
    let (first, count) = *input.choose(PORTS)?;
    let within: u16 = input.arbitrary()?;
    let port = if within & 0xF000 == 0xF000 { within } else { first + within % count };
    Ok((port, *input.choose(&[1, 1, 1, 2, 4])?))
}

fn address(input: &mut Unstructured<'_>) -> Result<(u64, u8)> {
    let start = *input.choose(MEMORY)?;
    let offset: u16 = input.arbitrary()?;
    Ok((start + u64::from(offset & 0x3FFF), *input.choose(&[4, 4, 4, 1, 2, 8])?))
}

fn with_vcpu(machine: &mut Machine, number: usize, call: impl FnOnce(&mut Vcpu)) {
    if let Some(vcpu) = machine.vcpus_mut().get_mut(number) {
        vcpu.link.mmu.unpark();
        call(vcpu);
        vcpu.link.mmu.park();
    }
}

/// Calls `call` with the region behind an address, if there is one; no paging is on.
fn access(
    machine: &mut Machine,
    number: usize,
    at: u64,
    kind: Access,
    call: impl FnOnce(&mut Vcpu, umbra_machine::mmu::RegionId, u64),
) {
    with_vcpu(machine, number, |vcpu| {
        let place = vcpu.link.mmu.resolve(Linear(at), kind, View::Supervisor);
        if let Ok(PlaceKind::Mmio { region, offset }) = place.map(|place| place.kind()) {
            call(vcpu, region, offset);
        }
    });
}

fn from_outside(machine: &Machine, input: &mut Unstructured<'_>) -> Result<()> {
    let kind = input.int_in_range(0..=3u8)?;
    let word: u32 = input.arbitrary()?;
    let mut board = machine.board();
    match kind {
        0 => board.serial_input((word & 1) as usize, &word.to_le_bytes()),
        1 => {
            let key = KeyCode::ALL.get(word as usize % KeyCode::ALL.len()).copied();
            let stroke = [Stroke::Down, Stroke::Up, Stroke::DownAlone, Stroke::Again][(word >> 16) as usize % 4];
            key.into_iter().for_each(|key| board.key(key, stroke));
        }
        2 => {
            board.mouse([word as i32 >> 8, word as i16 as i32, (word >> 3) as i8 as i32], MouseButtons(word as u8 & 7))
        }
        _ => board.press_power_button(),
    }
    Ok(())
}

/// Lets guest time pass; a reset, power-off or crash starts the machine again.
fn pass(machine: &mut Machine, ns: u64) {
    let until = machine.now().after(ns);
    let limits = RunLimits {
        until: Some(until),
        deadline: Some(Instant::now() + Duration::from_secs(20)),
        ..RunLimits::default()
    };
    match machine.run(limits) {
        RunEnd::TickReached => assert!(machine.now() >= until, "time stands still"),
        RunEnd::TimedOut => panic!("{ns} ns of guest time take more than 20 s"),
        RunEnd::Diverged => panic!("one engine alone parts from itself"),
        RunEnd::Reset | RunEnd::PoweredOff | RunEnd::GuestExit(_) | RunEnd::Crashed(_) => {
            let again = machine.reset();
            assert!(again.is_ok(), "{again:?}");
        }
        RunEnd::Debug(_) | RunEnd::Stopped | RunEnd::Asleep | RunEnd::InstructionLimit | RunEnd::SwapFailed => {}
    }
}
