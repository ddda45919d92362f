//! The controller as a driver uses it: a list of buffers in memory, exact positions, interrupts, underrun, resets, hostile
//! lists.

use super::*;
use crate::pci::offset;
use crate::sound::{SPAN, SoundBundle, StereoFrame};
use crate::testing::{Memory, NoMemory, Place, check_places};
use crate::wire::WireBundle;
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::dma::Dma;

const LIST: u32 = 0x1000;
const DATA: u32 = 0x1_0000;
/// The channels' first registers.
const IN: u16 = 0x00;
const OUT: u16 = 0x10;
const MICROPHONE: u16 = 0x20;
/// Status bits: halted, at the last valid buffer, that event, a buffer's.
const HALTED: u32 = 1;
const AT_END: u32 = 2;
const LAST: u32 = 4;
const DONE: u32 = 8;
/// A frame at 48 kHz lasts 62,500 thirds of a nanosecond.
const fn frames_48k(count: u64) -> u64 {
    (count * 62_500).div_ceil(3)
}

struct Rig {
    ac97: Ac97,
    memory: Memory,
    now: u64,
    wires: WireBundle,
    sounds: SoundBundle,
    heard: Vec<StereoFrame>,
}

fn rig() -> Rig {
    let (wires, sounds) = (WireBundle::new(), SoundBundle::new());
    let mut ac97 = Ac97::new(wires.line(0), sounds.line());
    ac97.config.write(offset::COMMAND, Width::B2, 5);
    let mut rig = Rig { ac97, memory: Memory(vec![0; 4 << 20]), now: 0, wires, sounds, heard: Vec::new() };
    rig.set(0x2C, Width::B4, 2);
    rig.codec(0x02, 0);
    rig.codec(0x18, 0x0808);
    rig
}

impl Rig {
    fn with<R>(&mut self, call: impl FnOnce(&mut Ac97, &mut Ctx<'_>) -> R) -> R {
        let mut cx = Ctx { now: Tick(self.now), dma: &mut self.memory };
        let result = call(&mut self.ac97, &mut cx);
        for sound in self.sounds.take(Tick(self.now)).unwrap_or_default().sounds {
            let Sound::Pcm { frames, .. } = sound else { panic!("{sound:?}") };
            self.heard.extend(frames);
        }
        result
    }
    fn set(&mut self, at: u16, width: Width, value: u32) {
        self.with(|ac97, cx| ac97.port_write(cx, MASTER_WINDOW, at, width, value)).unwrap();
    }
    fn get(&mut self, at: u16, width: Width) -> u32 {
        self.with(|ac97, cx| ac97.port_read(cx, MASTER_WINDOW, at, width)).unwrap()
    }
    fn codec(&mut self, at: u16, value: u32) {
        self.with(|ac97, cx| ac97.port_write(cx, MIXER_WINDOW, at, Width::B2, value)).unwrap();
    }
    fn read_codec(&mut self, at: u16) -> u32 {
        self.with(|ac97, cx| ac97.port_read(cx, MIXER_WINDOW, at, Width::B2)).unwrap()
    }
    fn status(&mut self, channel: u16) -> u32 {
        self.get(channel + 6, Width::B2)
    }
    /// Puts a descriptor into the list: flags in bits 31–30 of `length`.
    fn describe(&mut self, index: u32, at: u32, length: u32) {
        let bytes = [at.to_le_bytes(), length.to_le_bytes()].concat();
        self.memory.write(GuestPhys(u64::from(LIST + 8 * index)), &bytes);
    }
    /// Fills memory with frames that count from `first`.
    fn fill(&mut self, at: u32, first: i16, count: i16) {
        let bytes: Vec<u8> =
            (first..first + count).flat_map(|n| [n.to_le_bytes(), (-n).to_le_bytes()].concat()).collect();
        self.memory.write(GuestPhys(at.into()), &bytes);
    }
    fn start(&mut self, channel: u16, last_valid: u32, control: u32) {
        self.set(channel, Width::B4, LIST);
        self.set(channel + 5, Width::B1, last_valid);
        self.set(channel + 0xB, Width::B1, control | 1);
    }
    /// Lets time pass, from event to event.
    fn run(&mut self, until: u64) {
        while let Some(Tick(event)) = self.ac97.next_event().filter(|event| event.0 <= until) {
            assert!(event > self.now, "stuck at {event}");
            self.now = event;
            self.with(|ac97, cx| ac97.run_until(cx));
        }
        self.now = until;
    }
}

#[test]
fn buffers_are_played_at_an_exact_pace() {
    let mut rig = rig();
    rig.fill(DATA, 1, 1000);
    rig.fill(DATA + 0x2000, 1001, 480);
    rig.describe(0, DATA, 1 << 31 | 2000);
    rig.describe(1, DATA + 0x2000, 0xC000_0000 | 960);
    rig.now = 777;
    rig.start(OUT, 1, 0x1C);
    assert_eq!(rig.status(OUT), 0);
    assert_eq!((rig.get(OUT + 4, Width::B1), rig.get(OUT + 0xA, Width::B1)), (0, 1));
    rig.now = 777 + frames_48k(10);
    assert_eq!(rig.get(OUT + 8, Width::B2), 1980);
    rig.now -= 1;
    rig.run(777 + frames_48k(999));
    assert_eq!((rig.status(OUT), rig.wires.level(0)), (0, false));
    rig.run(777 + frames_48k(1000));
    assert_eq!((rig.status(OUT), rig.wires.level(0)), (DONE, true));
    assert_eq!(rig.get(0x30, Width::B4), 1 << 8 | 1 << 6);
    assert_eq!(rig.get(OUT + 4, Width::B4), 1 | 1 << 8 | DONE << 16, "the next buffer is under way");
    assert_eq!(rig.get(OUT + 8, Width::B4), 960 | 2 << 16 | 0x1D << 24);
    rig.set(OUT + 6, Width::B2, DONE);
    assert!(!rig.wires.level(0));
    rig.run(777 + frames_48k(1480) - 1);
    assert_eq!(rig.status(OUT), 0);
    rig.run(777 + frames_48k(1480));
    assert_eq!((rig.status(OUT), rig.wires.level(0)), (HALTED | AT_END | LAST | DONE, true));
    rig.set(OUT + 6, Width::B2, LAST | DONE);
    assert_eq!((rig.status(OUT), rig.wires.level(0)), (HALTED | AT_END, false), "a state is not written away");
    assert_eq!(rig.ac97.next_event(), None);
    let want: Vec<StereoFrame> = (1..=1480).map(|n| [n, -n]).collect();
    assert_eq!(rig.heard, want);
}

#[test]
fn an_underrun_holds_the_last_frame_or_is_silent() {
    for (bup, want) in [(0, 1000 + 480), (1 << 30, 1000)] {
        let mut rig = rig();
        rig.fill(DATA, 1, 1000);
        rig.describe(0, DATA, 2000);
        rig.describe(1, DATA, bup | 2000);
        rig.describe(2, DATA, bup | 20);
        rig.start(OUT, 1, 0);
        rig.set(OUT + 5, Width::B1, 0); // …which is the one under way.
        rig.describe(0, 0, 0);
        rig.run(frames_48k(1000));
        assert_eq!(rig.status(OUT), HALTED | AT_END | LAST);
        rig.heard.clear();
        rig.set(OUT + 5, Width::B1, 1);
        assert_eq!(rig.status(OUT), LAST, "it goes on at once");
        rig.run(frames_48k(1000) + frames_48k(1000 + 480));
        assert_eq!(rig.status(OUT), HALTED | AT_END | LAST);
        assert_eq!(rig.heard.len(), want);
        assert_eq!(rig.heard.last(), Some(&[1000, -1000]));
        rig.set(OUT + 5, Width::B1, 2);
        rig.run(rig.now + frames_48k(10));
        assert_eq!(rig.status(OUT), HALTED | AT_END | LAST);
    }
}

#[test]
fn rates_and_volumes_act_from_their_tick_on() {
    let mut rig = rig();
    rig.fill(DATA, 1000, 8000);
    rig.describe(0, DATA, 1 << 30 | 16_000);
    rig.codec(0x2A, 1);
    rig.codec(0x2C, 8000);
    rig.start(OUT, 0, 0);
    rig.run(100 * 125_000);
    rig.codec(0x02, 0x8000);
    rig.run(150 * 125_000);
    rig.codec(0x02, 0x0400); // The left side by 6 dB.
    rig.codec(0x2C, 44_100);
    rig.run(150 * 125_000 + 1_000_000_000u64.div_ceil(44_100) * 100);
    rig.get(OUT + 8, Width::B2);
    assert_eq!(rig.heard.len(), 250);
    assert_eq!((rig.heard[99], rig.heard[100], rig.heard[149]), ([1099, -1099], [0, 0], [0, 0]));
    assert_eq!(rig.heard[150], [576, -1150]);
    // The rest at 44.1 kHz, to the nanosecond.
    let end = 150 * 125_000 + (7850_u64 * 1_000_000_000).div_ceil(44_100);
    rig.run(end - 1);
    assert_eq!(rig.status(OUT) & HALTED, 0);
    rig.run(end);
    assert_eq!(rig.status(OUT) & HALTED, HALTED);
}

#[test]
fn stop_goes_on_where_it_stopped_and_reset_begins_again() {
    let mut rig = rig();
    rig.fill(DATA, 1, 1000);
    rig.describe(0, DATA, 1 << 30 | 2000);
    rig.start(OUT, 0, 0x10);
    rig.run(frames_48k(100));
    rig.set(OUT + 0xB, Width::B1, 0x10);
    assert_eq!((rig.status(OUT), rig.get(OUT + 8, Width::B2)), (HALTED, 1800));
    assert_eq!(rig.ac97.next_event(), None);
    rig.run(1_000_000_000);
    rig.set(OUT + 0xB, Width::B1, 0x11);
    rig.run(1_000_000_000 + frames_48k(900));
    assert_eq!(rig.status(OUT), HALTED | AT_END | LAST);
    assert_eq!(rig.heard, (1..=1000).map(|n| [n, -n]).collect::<Vec<_>>());
    rig.set(OUT + 0xB, Width::B1, 0);
    rig.set(OUT + 0xB, Width::B1, 0x12);
    assert_eq!((rig.get(OUT, Width::B4), rig.get(OUT + 4, Width::B4)), (0, HALTED << 16));
    assert_eq!(rig.get(OUT + 8, Width::B4), 0x10 << 24, "reset is over, interrupt enables stay");
    // A cold reset takes everything, the codec too.
    rig.start(OUT, 0, 0x10);
    rig.set(0x2C, Width::B4, 0);
    assert_eq!((rig.get(0x30, Width::B4), rig.get(OUT + 8, Width::B4)), (0, 0));
    assert_eq!(rig.read_codec(0x7C), 0xFFFF, "no codec answers while AC_RESET# is low");
    rig.set(0x2C, Width::B4, 6);
    assert_eq!((rig.get(0x2C, Width::B4), rig.read_codec(0x02), rig.read_codec(0x7C)), (2, 0x8000, 0x8384));
}

#[test]
fn a_stopped_bus_master_stands_still() {
    let mut rig = rig();
    rig.fill(DATA, 1, 1000);
    rig.describe(0, DATA, 1 << 30 | 2000);
    rig.start(OUT, 0, 0);
    rig.run(frames_48k(100));
    rig.with(|ac97, cx| ac97.config_write(cx, offset::COMMAND, Width::B2, 1));
    assert_eq!(rig.ac97.next_event(), None);
    rig.run(50_000_000);
    assert_eq!(rig.get(OUT + 8, Width::B2), 1800);
    rig.with(|ac97, cx| ac97.config_write(cx, offset::COMMAND, Width::B2, 5));
    rig.run(50_000_000 + frames_48k(900));
    assert_eq!((rig.status(OUT), rig.heard.len()), (HALTED | AT_END | LAST, 1000));
}

#[test]
fn what_comes_in_is_silence_at_the_right_pace() {
    for (channel, samples, bit) in [(IN, 2, 5), (MICROPHONE, 1, 7)] {
        let mut rig = rig();
        rig.fill(DATA, 1, 600);
        rig.describe(0, DATA, 1 << 31 | (480 * samples));
        rig.start(channel, 0, 0x10);
        rig.run(frames_48k(480) - 1);
        assert!(!rig.wires.level(0));
        rig.run(frames_48k(480));
        assert!(rig.wires.level(0));
        assert_eq!(rig.get(0x30, Width::B4), 1 << 8 | 1 << bit);
        let mut bytes = vec![0; 2 * 480 * samples as usize + 2];
        rig.memory.read(GuestPhys(DATA.into()), &mut bytes);
        let (written, beyond) = bytes.split_at(bytes.len() - 2);
        assert!(written.iter().all(|&byte| byte == 0));
        assert_ne!(beyond, [0, 0], "not a byte more");
    }
}

#[test]
fn the_codec_is_one_at_a_time_and_the_secondary_is_not_there() {
    let mut rig = rig();
    assert_eq!([0, 0].map(|_| rig.get(0x34, Width::B1)), [0, 1]);
    rig.read_codec(0x26);
    assert_eq!(rig.get(0x34, Width::B1), 0);
    assert_eq!(rig.get(0x30, Width::B4), 1 << 8);
    assert_eq!(rig.read_codec(0x80), 0xFFFF);
    assert_eq!(rig.get(0x30, Width::B4), 1 << 8 | 1 << 15);
    rig.set(0x30, Width::B4, 1 << 15 | 1 << 16);
    assert_eq!(rig.get(0x30, Width::B4), 1 << 8 | 1 << 16);
    for place in [0x0C, 0x1C, 0x38, 0x3C] {
        let answer = rig.with(|ac97, cx| ac97.port_read(cx, MASTER_WINDOW, place, Width::B4));
        assert_eq!(answer, Err(IoError::NoSuchRegister), "{place:#x}: the board names it");
    }
    let both = rig.with(|ac97, cx| ac97.port_read(cx, MIXER_WINDOW, 0x7C, Width::B4));
    assert_eq!(both, Ok(0x7600_8384));
}

#[test]
fn hostile_lists_neither_hang_nor_panic() {
    // (list, descriptors, last valid, samples played until it halts: `None`, whatever)
    type Case = (u32, fn(u32) -> (u32, u32), u32, Option<usize>);
    #[rustfmt::skip]
    let cases: [Case; 7] = [
        // Nothing but empty buffers, up to the last valid one.
        (LIST,        |_| (DATA, 1 << 31),               31, Some(0)),
        (LIST,        |_| (DATA, 1 << 31),               0,  Some(0)),
        // Odd lengths; each ends with half a frame.
        (LIST,        |_| (DATA, 0xC000_0003),           1,  Some(4)),
        (LIST,        |_| (DATA, 0xC000_0001),           31, Some(32)),
        // Lists and buffers where no memory is, and at the end of all addresses.
        (0x8000_0000, |_| (0, 0),                        2,  Some(3 * 32_768)),
        (0xFFFF_FFF8, |_| (0, 0),                        1,  None),
        (LIST,        |_| (0xFFFF_FFFF, 0xC000_FFFF),    1,  Some(2 * 32_768)),
    ];
    for (list, descriptor, last, want) in cases {
        let mut rig = rig();
        for index in 0..32 {
            let (at, length) = descriptor(index);
            rig.describe(index, at, length);
        }
        rig.set(OUT, Width::B4, list);
        rig.set(OUT + 5, Width::B1, last);
        rig.set(OUT + 0xB, Width::B1, 0x1D);
        rig.run(40_000_000_000);
        assert_eq!(rig.status(OUT) & HALTED, HALTED, "{list:#x}");
        if let Some(want) = want {
            assert_eq!(rig.heard.len(), want, "{list:#x}");
        }
        // One call over all that time does the same.
        let mut at_once = Ac97::new(IrqLine::detached(), SoundLine::detached());
        at_once.config.write(offset::COMMAND, Width::B2, 5);
        let mut set = |now, at, width, value| {
            let mut cx = Ctx { now: Tick(now), dma: &mut rig.memory };
            at_once.port_write(&mut cx, MASTER_WINDOW, at, width, value).unwrap();
        };
        for (at, width, value) in
            [(0x2C, Width::B4, 2), (OUT, Width::B4, list), (OUT + 5, Width::B1, last), (OUT + 0xB, Width::B1, 0x1D)]
        {
            set(0, at, width, value);
        }
        set(u64::MAX, OUT + 6, Width::B2, 0);
        let mut cx = Ctx { now: Tick(u64::MAX), dma: &mut rig.memory };
        assert_eq!(at_once.port_read(&mut cx, MASTER_WINDOW, OUT + 6, Width::B2).unwrap() & HALTED, HALTED);
    }
}

#[test]
fn a_listener_waits_no_longer_than_a_span() {
    let mut rig = rig();
    rig.describe(0, DATA, 60_000);
    rig.start(OUT, 0, 0);
    for span in 1..5 {
        let Tick(event) = rig.ac97.next_event().unwrap();
        assert!(event <= span * SPAN);
        rig.run(event);
        assert_eq!(rig.heard.len() as u64, span * 480);
    }
}

#[test]
fn any_traffic() {
    let ports = |window, length| (0..length).map(move |offset| Place::Port(window, offset));
    let places: Vec<Place> = ports(MIXER_WINDOW, 0x84).chain(ports(MASTER_WINDOW, 0x40)).collect();
    check_places(|| ready(SoundLine::detached()), &places);
    // Mostly the registers that start something.
    let starts = [OUT + 0xB, OUT + 5, OUT + 6, IN + 0xB, MICROPHONE + 0xB, 0x2C];
    let places: Vec<Place> = starts.into_iter().map(|offset| Place::Port(MASTER_WINDOW, offset)).collect();
    check_places(|| ready(SoundBundle::new().line()), &places);
}

/// A controller out of reset that may master.
fn ready(line: SoundLine) -> Ac97 {
    let mut ac97 = Ac97::new(IrqLine::detached(), line);
    ac97.config.write(offset::COMMAND, Width::B2, 5);
    let mut cx = Ctx { now: Tick(0), dma: &mut NoMemory };
    ac97.port_write(&mut cx, MASTER_WINDOW, 0x2C, Width::B4, 2).unwrap();
    ac97
}
