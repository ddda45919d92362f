//! What the tests of every chip share: a memory-less bus and one property that holds for all devices (no sequence of
//! accesses panics, and a saved state restores to the same state and the same future). Built for tests only.

use crate::clock::Tick;
use crate::device::{Ctx, Device, Width};
use proptest::prelude::*;
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::dma::Dma;

/// A bus without memory: reads give FFh, writes are dropped.
pub(crate) struct NoMemory;

/// Memory from address 0. Past its end, reads give FFh and writes are dropped.
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl Dma for Memory {
    fn read(&self, at: GuestPhys, into: &mut [u8]) {
        into.fill(0xff);
        let have = self.0.get(at.0 as usize..).unwrap_or(&[]);
        into.iter_mut().zip(have).for_each(|(to, &from)| *to = from);
    }
    fn write(&mut self, at: GuestPhys, from: &[u8]) {
        let have = self.0.get_mut(at.0 as usize..).unwrap_or_default();
        have.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
    }
}

impl Dma for NoMemory {
    fn read(&self, _at: GuestPhys, into: &mut [u8]) {
        into.fill(0xff);
    }
    fn write(&mut self, _at: GuestPhys, _from: &[u8]) {}
}

/// Calls `body` with a context at `now` and no memory behind it.
pub(crate) fn at<R>(now: Tick, body: impl FnOnce(&mut Ctx<'_>) -> R) -> R {
    body(&mut Ctx { now, dma: &mut NoMemory })
}

/// Reads a byte from a port, time first advanced to `ns`.
pub(crate) fn read(device: &mut dyn Device, ns: u64, range: u8, offset: u16) -> u8 {
    at(Tick(ns), |cx| {
        device.run_until(cx);
        device.port_read(cx, range, offset, Width::B1).expect("a register") as u8
    })
}

/// Writes a byte to a port, time first advanced to `ns`.
pub(crate) fn write(device: &mut dyn Device, ns: u64, range: u8, offset: u16, value: u8) {
    at(Tick(ns), |cx| {
        device.run_until(cx);
        device.port_write(cx, range, offset, Width::B1, u32::from(value)).expect("a register");
    });
}

/// Advances to `ns` as the run loop does: stopping at each event.
pub(crate) fn run_events(device: &mut dyn Device, ns: u64) {
    while let Some(Tick(event)) = device.next_event().filter(|&Tick(event)| event <= ns) {
        at(Tick(event), |cx| device.run_until(cx));
        assert!(device.next_event() > Some(Tick(event)) || device.next_event().is_none(), "{}: stuck", device.name());
    }
    at(Tick(ns), |cx| device.run_until(cx));
}

/// Somewhere that a guest can read and write.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Place {
    /// A port: range, offset.
    Port(u8, u16),
    /// A memory-mapped register: window, offset. Accesses here are mostly of four bytes.
    Mmio(u8, u64),
}

impl Place {
    fn read(self, device: &mut dyn Device, cx: &mut Ctx<'_>, width: Width) -> u64 {
        match self {
            Place::Port(range, offset) => device.port_read(cx, range, offset, width).map_or(u64::MAX, u64::from),
            Place::Mmio(window, offset) => device.mmio_read(cx, window, offset, wide(width)).unwrap_or(u64::MAX),
        }
    }

    fn write(self, device: &mut dyn Device, cx: &mut Ctx<'_>, width: Width, value: u32) -> u64 {
        let result = match self {
            Place::Port(range, offset) => device.port_write(cx, range, offset, width, value),
            Place::Mmio(window, offset) => {
                device.mmio_write(cx, window, offset, wide(width), u64::from(value) << 32 | u64::from(value))
            }
        };
        result.map_or(1, |()| 0)
    }
}

/// The width of a memory access in place of a port's.
fn wide(width: Width) -> Width {
    match width {
        Width::B1 => Width::B4,
        Width::B2 => Width::B8,
        Width::B4 | Width::B8 => Width::B1,
    }
}

/// One step of an arbitrary run.
#[derive(Clone, Debug)]
enum Step {
    Read { port: usize, width: Width },
    Write { port: usize, width: Width, value: u32 },
    Pass { ns: u64 },
    Event,
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![8 => Just(Width::B1), 1 => Just(Width::B2), 1 => Just(Width::B4)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<usize>(), width()).prop_map(|(port, width)| Step::Read { port, width }),
        6 => (any::<usize>(), width(), any::<u32>()).prop_map(|(port, width, value)| Step::Write { port, width, value }),
        2 => (0u64..3_000_000).prop_map(|ns| Step::Pass { ns }),
        1 => (0u32..62).prop_map(|shift| Step::Pass { ns: 1 << shift }),
        2 => Just(Step::Event),
    ]
}

fn apply(device: &mut dyn Device, places: &[Place], now: &mut u64, step: &Step) -> u64 {
    match *step {
        Step::Pass { ns } => *now = now.saturating_add(ns),
        Step::Event => *now = (*now).max(device.next_event().map_or(0, |tick| tick.0)),
        _ => {}
    }
    at(Tick(*now), |cx| {
        device.run_until(cx);
        let next = device.next_event();
        assert!(next.is_none_or(|next| next > cx.now || next.0 > u64::MAX / 2), "{}: stuck at {next:?}", device.name());
        let result = match *step {
            Step::Read { port, width } => places[port % places.len()].read(device, cx, width),
            Step::Write { port, width, value } => places[port % places.len()].write(device, cx, width, value),
            Step::Pass { .. } | Step::Event => 0,
        };
        result ^ device.next_event().map_or(0, |tick| tick.0 << 32)
    })
}

/// The property that every device has. `ranges` gives the length of each port range.
pub(crate) fn check_device<D: Device>(make: impl Fn() -> D, ranges: &[u16]) {
    let ports = |(&len, range): (&u16, u8)| (0..len).map(move |offset| Place::Port(range, offset));
    check_places(make, &ranges.iter().zip(0u8..).flat_map(ports).collect::<Vec<_>>());
}

/// The same for a device with memory-mapped registers.
pub(crate) fn check_places<D: Device>(make: impl Fn() -> D, places: &[Place]) {
    let strategy = (
        proptest::collection::vec(step(), 0..120),
        proptest::collection::vec(step(), 0..60),
        any::<usize>(),
        any::<u8>(),
    );
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) }, |(
        (before, after, spot, flip) in strategy
    )| {
        let mut device = make();
        let mut now = 0;
        for step in &before {
            apply(&mut device, places, &mut now, step);
        }
        let saved = device.save();
        let mut twin = make();
        twin.restore(&saved).expect("own state");
        prop_assert_eq!(&twin.save(), &saved, "save, restore, save");
        let mut twin_now = now;
        for step in &after {
            let answer = apply(&mut device, places, &mut now, step);
            prop_assert_eq!(answer, apply(&mut twin, places, &mut twin_now, step), "{:?}", step);
        }
        prop_assert_eq!(twin.save(), device.save(), "the same future");
        let mut damaged = saved;
        if let Some(byte) = damaged.len().checked_sub(1).and_then(|last| damaged.get_mut(spot % (last + 1))) {
            *byte ^= flip;
        }
        if twin.restore(&damaged).is_ok() {
            for step in &after {
                apply(&mut twin, places, &mut twin_now, step);
            }
        }
    });
}
