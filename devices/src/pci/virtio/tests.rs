//! Tablet and balloon as a driver uses them: capabilities, features, configuration, events, interrupts, resets, hostile rings.

use super::balloon::Balloon;
use super::tablet::{LARGEST, Report, Tablet};
use super::*;
use crate::clock::Tick;
use crate::pci::offset;
use crate::ps2::MouseButtons;
use crate::testing::{Memory, Place, at, check_places};
use crate::wire::WireBundle;
use proptest::prelude::*;
use umbra_mmu::addr::GuestPhys;

const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const BUFFERS: u64 = 0x4000;
/// Descriptors that the driver uses: fewer than it may.
const SIZE: u16 = 8;
/// A buffer for one event.
const EVENT: u64 = 8;

/// Memory that notes what is given up.
struct Giving {
    memory: Memory,
    given: Vec<(u64, u64)>,
}

impl Dma for Giving {
    fn read(&self, at: GuestPhys, into: &mut [u8]) {
        self.memory.read(at, into);
    }
    fn write(&mut self, at: GuestPhys, from: &[u8]) {
        self.memory.write(at, from);
    }
    fn discard(&mut self, at: GuestPhys, bytes: u64) {
        self.given.push((at.0, bytes));
    }
}

struct Rig<D> {
    device: Virtio<D>,
    memory: Giving,
    /// The queue that is driven.
    queue: u16,
    wires: WireBundle,
    available: u16,
    seen: u16,
}

impl<D: VirtioDevice> Rig<D> {
    fn new(queue: u16) -> Rig<D> {
        let wires = WireBundle::new();
        let mut device = Virtio::new(wires.line(0));
        device.config.write(offset::COMMAND, Width::B2, 6);
        let memory = Giving { memory: Memory(vec![0; 1 << 16]), given: Vec::new() };
        Rig { device, memory, queue, wires, available: 0, seen: 0 }
    }
    /// With a driver that takes all features, runs and has made `buffers` of a queue available.
    fn running(queue: u16, buffers: u16) -> Rig<D> {
        let mut rig = Rig::new(queue);
        for status in [1, 3] {
            rig.set(0x14, Width::B1, status);
        }
        for half in 0..2 {
            rig.set(0x00, Width::B4, half);
            rig.set(0x08, Width::B4, half);
            let offered = rig.get(0x04, Width::B4);
            rig.set(0x0C, Width::B4, offered);
        }
        rig.set(0x14, Width::B1, 11);
        assert_eq!(rig.get(0x14, Width::B1), 11, "features are good");
        rig.set(0x16, Width::B2, queue.into());
        rig.set(0x18, Width::B2, SIZE.into());
        for (register, place) in [(0x20, TABLE), (0x28, AVAILABLE), (0x30, USED)] {
            rig.set(register, Width::B4, place);
            rig.set(register + 4, Width::B4, 0);
        }
        rig.set(0x1C, Width::B2, 1);
        for number in 0..u64::from(SIZE) {
            rig.describe(number as u16, BUFFERS + EVENT * number, EVENT as u32, 2, 0);
        }
        rig.set(0x14, Width::B1, 15);
        rig.offer(buffers);
        rig
    }
    fn get(&mut self, offset: u64, width: Width) -> u64 {
        let mut cx = Ctx { now: Tick(0), dma: &mut self.memory };
        self.device.mmio_read(&mut cx, REGISTER_WINDOW, offset, width).unwrap()
    }
    fn set(&mut self, offset: u64, width: Width, value: u64) {
        let mut cx = Ctx { now: Tick(0), dma: &mut self.memory };
        self.device.mmio_write(&mut cx, REGISTER_WINDOW, offset, width, value).unwrap();
    }
    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.memory.memory.0[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }
    fn word(&self, at: u64) -> u16 {
        u16::from_le_bytes([self.memory.memory.0[at as usize], self.memory.memory.0[at as usize + 1]])
    }
    fn describe(&mut self, number: u16, place: u64, length: u32, flags: u16, next: u16) {
        let entry = u128::from(place) | u128::from(length) << 64 | u128::from(flags) << 96 | u128::from(next) << 112;
        self.put(TABLE + 16 * u64::from(number), &entry.to_le_bytes());
    }
    /// Makes that many buffers more available and rings.
    fn offer(&mut self, buffers: u16) {
        for _ in 0..buffers {
            let slot = self.available % SIZE;
            self.put(AVAILABLE + 4 + 2 * u64::from(slot), &slot.to_le_bytes());
            self.available += 1;
        }
        let index = self.available;
        self.put(AVAILABLE + 2, &index.to_le_bytes());
        let queue = self.queue;
        self.set(DOORBELLS + 4 * u64::from(queue), Width::B2, queue.into());
    }
}

impl Rig<Tablet> {
    fn report(&mut self, place: [u16; 2], wheel: i32, buttons: u8) {
        let mut cx = Ctx { now: Tick(0), dma: &mut self.memory };
        self.device.report(&mut cx, Report::new(place, wheel, MouseButtons(buttons)));
    }
    /// The events that came since the last call.
    fn events(&mut self) -> Vec<(u16, u16, i32)> {
        let mut events = Vec::new();
        while self.seen != self.word(USED + 2) {
            let element = USED + 4 + 8 * u64::from(self.seen % SIZE);
            assert_eq!(self.word(element + 4), EVENT as u16, "bytes written");
            let buffer = BUFFERS + EVENT * u64::from(self.word(element));
            let value = i32::from(self.word(buffer + 4) as i16);
            events.push((self.word(buffer), self.word(buffer + 2), value));
            self.seen += 1;
        }
        events
    }
}

const X: (u16, u16) = (3, 0);
const Y: (u16, u16) = (3, 1);
const END: (u16, u16, i32) = (0, 0, 0);

#[test]
fn a_driver_finds_the_four_parts_by_their_capabilities() {
    let rig = Rig::<Tablet>::new(0);
    assert_eq!(rig.device.config.dword(offset::VENDOR), 0x1052_1AF4);
    let (mut at, mut parts) = (rig.device.config.byte(offset::CAPABILITIES), Vec::new());
    while at != 0 {
        let config = &rig.device.config;
        assert_eq!((config.byte(at), config.byte(at + 4)), (9, REGISTER_WINDOW));
        parts.push((config.byte(at + 3), config.dword(at + 8), config.dword(at + 12)));
        if config.byte(at + 3) == 2 {
            assert_eq!((config.byte(at + 2), config.dword(at + 16)), (20, DOORBELL_STEP));
        }
        at = config.byte(at + 1);
    }
    parts.sort_unstable();
    assert_eq!(parts, [(1, 0, 56), (2, 0x3000, 8), (3, 0x1000, 1), (4, 0x2000, 136)]);
}

#[test]
fn only_a_driver_of_version_1_gets_anywhere() {
    let mut rig = Rig::<Tablet>::new(0);
    assert_eq!(rig.get(0x04, Width::B4), 0);
    rig.set(0x00, Width::B4, 1);
    assert_eq!(rig.get(0x04, Width::B4), 1, "bit 32");
    for (low, high, good) in [(0, 0, false), (1, 1, false), (0, 3, false), (0, 1, true)] {
        rig.set(0x14, Width::B1, 0);
        for (half, value) in [(0, low), (1, high)] {
            rig.set(0x08, Width::B4, half);
            rig.set(0x0C, Width::B4, value);
        }
        rig.set(0x14, Width::B1, 11);
        assert_eq!(rig.get(0x14, Width::B1) == 11, good, "{low:x} {high:x}");
    }
    assert_eq!(rig.get(0x12, Width::B2), 2, "queues");
    rig.set(0x16, Width::B2, 2);
    assert_eq!((rig.get(0x18, Width::B2), rig.get(0x20, Width::B4)), (0, 0), "no such queue");
}

#[test]
fn the_configuration_tells_axes_and_buttons() {
    let mut rig = Rig::<Tablet>::new(0);
    let mut ask = |select: u64, of: u64| {
        rig.set(DEVICE, Width::B1, select);
        rig.set(DEVICE + 1, Width::B1, of);
        let length = rig.get(DEVICE + 2, Width::B1);
        (0..length).map(|n| rig.get(DEVICE + 8 + n, Width::B1) as u8).collect::<Vec<_>>()
    };
    assert_eq!(ask(1, 0), b"Umbra tablet");
    let mut keys = vec![0; 35];
    keys[34] = 0x1F;
    assert_eq!(ask(0x11, 1), keys);
    assert_eq!(ask(0x11, 2), [0, 1]);
    assert_eq!(ask(0x11, 3), [3]);
    let range = [&[0, 0, 0, 0, 0xFF, 0x7F][..], &[0; 14]].concat();
    assert_eq!((ask(0x12, 0), ask(0x12, 1), ask(0x12, 2)), (range.clone(), range, vec![]));
    assert_eq!(ask(0x10, 0), [], "it is not a screen that one touches");
}

#[test]
fn reports_become_events_that_end_together() {
    let mut rig = Rig::<Tablet>::running(0, SIZE);
    rig.report([100, 200], 0, 0);
    assert!(rig.wires.level(0));
    assert_eq!(rig.events(), [(X.0, X.1, 100), (Y.0, Y.1, 200), END]);
    assert_eq!((rig.get(ISR, Width::B1), rig.get(ISR, Width::B1)), (1, 0), "reading acknowledges");
    assert!(!rig.wires.level(0));
    rig.offer(3);
    rig.report([100, 201], 1, 2);
    assert_eq!(rig.events(), [(Y.0, Y.1, 201), (1, 0x111, 1), (2, 8, -1), END]);
    rig.offer(4);
    rig.report([100, 201], 0, 2);
    assert_eq!(rig.events(), [], "nothing new");
    rig.report([u16::MAX, 201], 0, 0);
    assert_eq!(rig.events(), [(X.0, X.1, LARGEST.into()), (1, 0x111, 0), END]);
}

#[test]
fn what_waits_for_buffers_keeps_its_clicks_and_joins_its_moves() {
    let mut rig = Rig::<Tablet>::running(0, 2);
    rig.report([10, 10], 0, 0);
    assert_eq!(rig.events(), [], "three events, two buffers");
    assert!(!rig.wires.level(0));
    for (place, wheel, buttons) in
        [([20, 20], 1, 0), ([30, 20], 1, 1), ([40, 20], 0, 1), ([50, 20], 0, 1), ([50, 20], 0, 0)]
    {
        rig.report(place, wheel, buttons);
    }
    rig.offer(6);
    assert_eq!(
        rig.events(),
        [(X.0, X.1, 20), (Y.0, Y.1, 20), (2, 8, -1), END, (X.0, X.1, 30), (1, 0x110, 1), (2, 8, -1), END]
    );
    rig.offer(8);
    assert_eq!(rig.events(), [(X.0, X.1, 50), END, (1, 0x110, 0), END]);
}

#[test]
fn a_guest_that_never_listens_loses_the_middle_but_not_the_end() {
    let mut rig = Rig::<Tablet>::running(0, 0);
    for number in 0..500 {
        rig.report([number, 0], 0, (number & 1) as u8);
    }
    rig.report([7, 0], 0, 0);
    let mut last = Vec::new();
    for _ in 0..100 {
        rig.offer(SIZE - (rig.available - rig.seen));
        last.extend(rig.events());
    }
    let value = |code| last.iter().rev().find(|event| (event.0, event.1) == code).map(|event| event.2);
    assert_eq!((value(X), value((1, 0x110))), (Some(7), Some(0)));
}

#[test]
fn nothing_is_told_without_a_driver_a_bus_master_or_the_wish_for_interrupts() {
    let mut rig = Rig::<Tablet>::new(0);
    rig.report([1, 1], 0, 0);
    assert!(!rig.device.is_running());
    let mut rig = Rig::<Tablet>::running(0, SIZE);
    rig.device.config.write(offset::COMMAND, Width::B2, 2);
    rig.report([1, 1], 0, 0);
    assert_eq!(rig.events(), []);
    let mut cx = Ctx { now: Tick(0), dma: &mut rig.memory };
    rig.device.config_write(&mut cx, offset::COMMAND, Width::B2, 6);
    assert_eq!(rig.events().len(), 3, "when it is a master again");
    rig.get(ISR, Width::B1);
    rig.put(AVAILABLE, &[1, 0]);
    rig.report([2, 1], 0, 0);
    assert_eq!((rig.events().len(), rig.wires.level(0)), (2, false), "no interrupt was asked for");
    rig.set(0x14, Width::B1, 0);
    assert!(!rig.device.is_running());
    assert_eq!(rig.get(0x14, Width::B1), 0, "reset");
}

#[test]
fn a_ring_that_breaks_the_rules_ends_in_needs_reset() {
    type Damage<'a> = &'a dyn Fn(&mut Rig<Tablet>);
    let cases: [Damage<'_>; 6] = [
        &|rig| rig.put(AVAILABLE + 2, &500_u16.to_le_bytes()),
        &|rig| rig.put(AVAILABLE + 4, &SIZE.to_le_bytes()),
        &|rig| rig.describe(0, BUFFERS, 4, 1 | 2, 0),
        &|rig| rig.describe(0, BUFFERS, 4, 4, 0),
        &|rig| rig.describe(0, u64::MAX - 3, 8, 2, 0),
        &|rig| {
            rig.describe(0, BUFFERS, 4, 1 | 2, 1);
            rig.describe(1, BUFFERS, 4, 0, 0);
        },
    ];
    for (number, damage) in cases.iter().enumerate() {
        let mut rig = Rig::<Tablet>::running(0, SIZE);
        damage(&mut rig);
        rig.report([1, 1], 0, 0);
        assert_eq!(rig.get(0x14, Width::B1), 15 | 0x40, "case {number}");
        assert!(rig.wires.level(0), "case {number}");
        assert_eq!(rig.get(ISR, Width::B1) & 2, 2, "case {number}");
        rig.set(0x14, Width::B1, 15);
        assert_eq!(rig.get(0x14, Width::B1), 15 | 0x40, "only a reset helps");
        rig.set(0x14, Width::B1, 0);
        assert_eq!(rig.get(0x14, Width::B1), 0);
    }
}

#[test]
fn pages_in_the_balloon_are_given_up() {
    let mut rig = Rig::<Balloon>::running(0, 0);
    let numbers: Vec<u8> = [7_u32, 8, 9, 100, u32::MAX].into_iter().flat_map(u32::to_le_bytes).collect();
    rig.put(0x8000, &numbers);
    rig.describe(0, 0x8000, numbers.len() as u32, 0, 0);
    rig.offer(1);
    assert_eq!(rig.memory.given, [(7 << 12, 3 << 12), (100 << 12, 1 << 12), (0xFFFF_FFFF << 12, 1 << 12)]);
    assert_eq!((rig.word(USED + 2), rig.wires.level(0)), (1, true));
    // A list that is longer than any driver makes it.
    rig.describe(1, 0, u32::MAX, 0, 0);
    rig.offer(1);
    assert_eq!(rig.get(0x14, Width::B1), 15 | 0x40);
}

#[test]
fn what_the_guest_has_free_is_given_up() {
    let mut rig = Rig::<Balloon>::running(2, 0);
    rig.describe(0, 0x40_0000, 4 << 20, 1 | 2, 1);
    rig.describe(1, 0xC0_0000, 2 << 20, 2, 0);
    rig.offer(1);
    assert_eq!(rig.memory.given, [(4 << 20, 4 << 20), (12 << 20, 2 << 20)]);
    assert_eq!(rig.word(USED + 8), 0, "nothing was written");
}

#[test]
fn the_guest_learns_what_is_wanted() {
    let mut rig = Rig::<Balloon>::running(1, 1);
    assert_eq!(rig.word(USED + 2), 1, "let out");
    rig.get(ISR, Width::B1);
    let before = rig.get(0x15, Width::B1);
    let mut cx = Ctx { now: Tick(0), dma: &mut rig.memory };
    rig.device.ask_for(&mut cx, 5000);
    assert_eq!((rig.get(DEVICE, Width::B4), rig.get(0x15, Width::B1)), (5000, before + 1));
    assert_eq!((rig.get(ISR, Width::B1), rig.wires.level(0)), (2, false));
    rig.set(DEVICE + 4, Width::B4, 4096);
    assert_eq!(rig.device.pages(), (5000, 4096));
    rig.set(0x14, Width::B1, 0);
    assert_eq!(rig.device.pages(), (5000, 0), "the next driver is asked, too");
}

fn places() -> Vec<Place> {
    let pages = [(COMMON, 0x40), (ISR, 4), (DEVICE, 0x90), (DOORBELLS, 8)];
    pages
        .into_iter()
        .flat_map(|(page, length)| (page..page + length).map(|at| Place::Mmio(REGISTER_WINDOW, at)))
        .collect()
}

#[test]
fn no_sequence_of_accesses_breaks_it() {
    check_places(
        || {
            let mut tablet = Virtio::<Tablet>::new(WireBundle::new().line(0));
            tablet.config.write(offset::COMMAND, Width::B2, 6);
            tablet
        },
        &places(),
    );
    check_places(
        || {
            let mut balloon = Virtio::<Balloon>::new(WireBundle::new().line(0));
            balloon.config.write(offset::COMMAND, Width::B2, 6);
            balloon
        },
        &places(),
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Rings of arbitrary bytes, written to while reports come: no panic, and never more than the queue's size at once.
    #[test]
    fn arbitrary_rings_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0x400), index in any::<u16>()) {
        let mut rig = Rig::<Tablet>::running(0, SIZE);
        for (place, part) in [(TABLE, &bytes[..0x80]), (AVAILABLE, &bytes[0x80..0xA0]), (USED, &bytes[0xA0..0xF0])] {
            rig.put(place, part);
        }
        rig.put(AVAILABLE + 2, &(index % 12).to_le_bytes());
        for number in 0..40 {
            rig.report([number, 2 * number], number.into(), number as u8);
        }
        let saved = rig.device.save();
        let mut twin = Virtio::<Tablet>::new(WireBundle::new().line(0));
        prop_assert!(twin.restore(&saved).is_ok());
        prop_assert_eq!(twin.save(), saved);
        at(Tick(0), |cx| twin.reset(cx));
    }
}
