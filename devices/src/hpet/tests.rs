//! The HPET against its specification.

use super::*;
use crate::testing::{Place, at, check_places};
use crate::wire::WireBundle;

/// Routes to inputs 20–23, legacy wires at pins 0 and 8 of another bundle.
fn hpet() -> (Hpet, WireBundle, WireBundle) {
    let (ioapic, legacy) = (WireBundle::new(), WireBundle::new());
    let wires =
        Wires { legacy: [0, 8].map(|pin| legacy.line(pin)), ioapic: std::array::from_fn(|pin| ioapic.line(pin as u8)) };
    (Hpet::new(0x00F0_0000, wires), ioapic, legacy)
}

fn get(hpet: &mut Hpet, now: u64, offset: u64, width: Width) -> u64 {
    at(Tick(now), |cx| hpet.mmio_read(cx, 0, offset, width)).unwrap()
}

fn put(hpet: &mut Hpet, now: u64, offset: u64, width: Width, value: u64) {
    at(Tick(now), |cx| hpet.mmio_write(cx, 0, offset, width, value)).unwrap();
}

fn timer(index: u64, register: u64) -> u64 {
    0x100 + 0x20 * index + register
}

/// Runs from event to event until `end`; gives the ticks at which `pin` rose.
fn rises(hpet: &mut Hpet, bundle: &WireBundle, pin: u8, end: u64) -> Vec<u64> {
    bundle.take_changes();
    let mut found = Vec::new();
    while let Some(event) = hpet.next_event().filter(|event| event.0 <= end) {
        at(event, |cx| hpet.run_until(cx));
        let rose = bundle.take_changes().iter().any(|change| change.pin == pin && change.high);
        found.extend(rose.then_some(event.0));
    }
    found
}

#[test]
fn reset_values() {
    let (mut hpet, ..) = hpet();
    let capabilities = 0x0098_9680_8086_A201;
    // (offset, width) → value.
    #[rustfmt::skip]
    let table = [
        (0x000, Width::B8, capabilities), (0x000, Width::B4, 0x8086_A201), (0x004, Width::B4, 10_000_000),
        (0x010, Width::B8, 0), (0x020, Width::B8, 0), (0x0F0, Width::B8, 0), (0x100, Width::B8, 0x00F0_0000_0000_2830),
        (0x108, Width::B8, u64::MAX), (0x110, Width::B8, 0), (0x144, Width::B4, 0x00F0_0000), (0x160, Width::B8, 0),
        (0x008, Width::B4, 0), (0x3F8, Width::B8, 0),
    ];
    for (offset, width, want) in table {
        assert_eq!(get(&mut hpet, 0, offset, width), want, "{offset:#x}");
    }
    assert_eq!(u64::from(Hpet::ID), capabilities & 0xFFFF_FFFF);
    at(Tick(0), |cx| {
        assert_eq!(hpet.mmio_read(cx, 0, 0xF0, Width::B1), Err(IoError::BadWidth));
        assert_eq!(hpet.mmio_read(cx, 0, 0xF4, Width::B8), Err(IoError::BadWidth));
        assert_eq!(hpet.mmio_read(cx, 0, 0x400, Width::B4), Err(IoError::NoSuchRegister));
    });
}

#[test]
fn the_counter_runs_halts_and_is_set() {
    let (mut hpet, ..) = hpet();
    assert_eq!(get(&mut hpet, 1000, 0xF0, Width::B8), 0);
    put(&mut hpet, 1000, 0x10, Width::B4, 1);
    assert_eq!(get(&mut hpet, 1999, 0xF0, Width::B8), 99);
    put(&mut hpet, 2000, 0x10, Width::B4, 0);
    assert_eq!(get(&mut hpet, 9000, 0xF0, Width::B8), 100);
    put(&mut hpet, 9000, 0xF0, Width::B4, 0xFFFF_FFFF);
    put(&mut hpet, 9000, 0xF4, Width::B4, 7);
    put(&mut hpet, 9000, 0x10, Width::B4, 1);
    assert_eq!(get(&mut hpet, 9010, 0xF0, Width::B8), 0x8_0000_0000, "carry");
    assert_eq!(get(&mut hpet, 9010, 0xF4, Width::B4), 8);
    put(&mut hpet, 9010, 0xF0, Width::B8, u64::MAX);
    assert_eq!(get(&mut hpet, 9020, 0xF0, Width::B8), 0, "wraps");
}

#[test]
fn one_shot() {
    let (mut hpet, ioapic, _) = hpet();
    put(&mut hpet, 0, timer(1, 0), Width::B8, INTERRUPT | 21 << ROUTE_SHIFT);
    put(&mut hpet, 0, timer(1, 8), Width::B8, 500);
    assert_eq!(hpet.next_event(), None, "halted");
    put(&mut hpet, 5, 0x10, Width::B4, 1);
    assert_eq!(rises(&mut hpet, &ioapic, 21, 1_000_000), [5000]);
    assert_eq!(get(&mut hpet, 1_000_000, 0x20, Width::B8), 0, "an edge has no status");
    // Where the counter is: at once.
    put(&mut hpet, 2_000_000, timer(1, 8), Width::B8, 200_000);
    assert!(ioapic.take_changes().iter().any(|change| change.high));
    // In the past: after the counter has gone round.
    put(&mut hpet, 2_000_000, timer(1, 8), Width::B8, 199_999);
    assert_eq!(hpet.next_event(), None);
}

#[test]
fn thirty_two_bits_go_round() {
    let (mut hpet, ioapic, _) = hpet();
    put(&mut hpet, 0, timer(0, 8), Width::B8, 0xABCD_0000_0010);
    put(&mut hpet, 0, timer(0, 0), Width::B4, INTERRUPT | MODE_32 | 20 << ROUTE_SHIFT);
    assert_eq!(get(&mut hpet, 0, timer(0, 8), Width::B8), 0x10);
    put(&mut hpet, 0, 0x10, Width::B4, 1);
    let round = 10u64 << 32;
    // At the comparator, and at each wrap.
    let want = [160, round, round + 160, 2 * round, 2 * round + 160];
    assert_eq!(rises(&mut hpet, &ioapic, 20, 2 * round + 160), want);
    // Late by a round and more: nothing is left behind.
    at(Tick(4 * round + 10), |cx| hpet.run_until(cx));
    assert_eq!(hpet.next_event(), Some(Tick(4 * round + 160)));
}

#[test]
fn periodic_as_linux_sets_it_up() {
    let (mut hpet, _, legacy) = hpet();
    put(&mut hpet, 0, 0x10, Width::B4, 3);
    assert!(hpet.legacy_replacement());
    put(&mut hpet, 100, timer(0, 0), Width::B4, INTERRUPT | PERIODIC | VALUE_SET | MODE_32);
    put(&mut hpet, 100, timer(0, 8), Width::B4, 1010);
    put(&mut hpet, 110, timer(0, 8), Width::B4, 1000);
    assert_eq!(get(&mut hpet, 110, timer(0, 8), Width::B4), 1010, "the accumulator is not the period");
    assert_eq!(rises(&mut hpet, &legacy, 0, 50_000), [10_100, 20_100, 30_100, 40_100]);
    assert_eq!(get(&mut hpet, 50_000, timer(0, 8), Width::B4), 5010);
    // Late by several periods: one edge, phase kept.
    legacy.take_changes();
    at(Tick(95_000), |cx| hpet.run_until(cx));
    assert_eq!(legacy.take_changes().len(), 2, "down and up once");
    assert_eq!(hpet.next_event(), Some(Tick(100_100)));
}

#[test]
fn periodic_over_the_32_bit_wrap() {
    let (mut hpet, ioapic, _) = hpet();
    put(&mut hpet, 0, 0xF0, Width::B8, 0xFFFF_FF00);
    put(&mut hpet, 0, timer(0, 0), Width::B4, INTERRUPT | PERIODIC | VALUE_SET | MODE_32 | 20 << ROUTE_SHIFT);
    put(&mut hpet, 0, timer(0, 8), Width::B4, 0xFFFF_FFF0);
    put(&mut hpet, 0, timer(0, 8), Width::B4, 0x100);
    put(&mut hpet, 0, 0x10, Width::B4, 1);
    assert_eq!(rises(&mut hpet, &ioapic, 20, 8000), [0xF0 * 10, 0x1F0 * 10, 0x2F0 * 10]);
    assert_eq!(get(&mut hpet, 8000, timer(0, 8), Width::B8), 0x2F0);
}

#[test]
fn a_64_bit_accumulator_is_written_in_halves() {
    let (mut hpet, ..) = hpet();
    put(&mut hpet, 0, timer(2, 0), Width::B4, PERIODIC | VALUE_SET);
    put(&mut hpet, 0, timer(2, 8), Width::B4, 0x1111);
    put(&mut hpet, 0, timer(2, 0xC), Width::B4, 0x2222);
    put(&mut hpet, 0, timer(2, 8), Width::B4, 0x3333);
    put(&mut hpet, 0, timer(2, 0xC), Width::B4, 0);
    assert_eq!(get(&mut hpet, 0, timer(2, 8), Width::B8), 0x2222_0000_1111);
    assert_eq!(hpet.state.timers[2].period, 0x3333);
}

#[test]
fn levels_stay_until_they_are_cleared() {
    let (mut hpet, ioapic, _) = hpet();
    put(&mut hpet, 0, timer(2, 0), Width::B8, LEVEL | INTERRUPT | 23 << ROUTE_SHIFT);
    put(&mut hpet, 0, timer(2, 8), Width::B8, 10);
    put(&mut hpet, 0, 0x10, Width::B4, 1);
    at(Tick(100), |cx| hpet.run_until(cx));
    assert!(ioapic.level(23));
    assert_eq!(get(&mut hpet, 100, 0x20, Width::B4), 4);
    put(&mut hpet, 100, timer(2, 0), Width::B8, LEVEL | INTERRUPT | 22 << ROUTE_SHIFT);
    assert!(ioapic.level(22) && !ioapic.level(23), "rerouted");
    put(&mut hpet, 100, 0x10, Width::B4, 0);
    assert!(!ioapic.level(22), "halted");
    put(&mut hpet, 100, 0x10, Width::B4, 1);
    assert!(ioapic.level(22));
    put(&mut hpet, 100, 0x20, Width::B4, 3);
    assert!(ioapic.level(22));
    put(&mut hpet, 100, 0x20, Width::B4, 4);
    assert!(!ioapic.level(22));
    // Without the interrupt the status is still there.
    put(&mut hpet, 100, timer(2, 0), Width::B8, LEVEL);
    put(&mut hpet, 100, timer(2, 8), Width::B8, 20);
    assert_eq!(hpet.next_event(), None);
    assert_eq!(get(&mut hpet, 200, 0x20, Width::B4), 4);
    assert!(!ioapic.level(22));
}

#[test]
fn an_edge_stays_high_until_the_timer_stops() {
    let (mut hpet, _, legacy) = hpet();
    put(&mut hpet, 0, timer(0, 0), Width::B4, INTERRUPT);
    put(&mut hpet, 0, timer(0, 8), Width::B8, 10);
    put(&mut hpet, 0, 0x10, Width::B4, 3);
    at(Tick(100), |cx| hpet.run_until(cx));
    put(&mut hpet, 100, 0x20, Width::B4, 7);
    assert!(legacy.level(0), "a write to the status register is for levels");
    put(&mut hpet, 100, timer(0, 0), Width::B4, 0);
    assert!(!legacy.level(0));
}

#[test]
fn only_routes_that_exist() {
    let (mut hpet, ..) = hpet();
    for (route, want) in [(21, 21), (0, 21), (19, 21), (24, 21), (23, 23)] {
        put(&mut hpet, 0, timer(0, 0), Width::B4, route << ROUTE_SHIFT);
        assert_eq!(get(&mut hpet, 0, timer(0, 0), Width::B4) >> ROUTE_SHIFT & 31, want, "{route}");
    }
}

#[test]
fn any_sequence() {
    let registers = [0x00, 0x10, 0x20, 0xF0, 0xF4, 0x100, 0x108, 0x10C, 0x120, 0x128, 0x140, 0x148, 0x14C];
    check_places(|| hpet().0, &registers.map(|offset| Place::Mmio(0, offset)));
}
