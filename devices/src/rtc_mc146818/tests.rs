//! Tests of the real-time clock against its data sheet.

use super::*;
use crate::testing::{check_device, read, run_events, write};
use crate::wire::WireBundle;

const NS: u64 = 1_000_000_000;

struct Bench {
    rtc: RtcMc146818,
    wires: WireBundle,
}

impl Bench {
    fn new(start: CivilTime) -> Bench {
        let wires = WireBundle::new();
        Bench { rtc: RtcMc146818::new(start, wires.line(8)), wires }
    }
    fn get(&mut self, ns: u64, register: usize) -> u8 {
        write(&mut self.rtc, ns, 0, 0, register as u8);
        read(&mut self.rtc, ns, 0, 1)
    }
    fn put(&mut self, ns: u64, register: usize, value: u8) {
        write(&mut self.rtc, ns, 0, 0, register as u8);
        write(&mut self.rtc, ns, 0, 1, value);
    }
    /// Century, year, month, day, weekday, hours, minutes, seconds as bytes.
    fn date(&mut self, ns: u64) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS].map(|register| self.get(ns, register))
    }
}

fn time(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> CivilTime {
    CivilTime { year, month, day, hour, minute, second }
}

#[test]
#[rustfmt::skip]
fn the_calendar_carries() {
    let table = [
        (time(2026, 1, 1, 0, 0, 0), 0, [0x20, 0x26, 0x01, 0x01, 5, 0x00, 0x00, 0x00]),
        (time(2026, 1, 1, 0, 0, 58), 1, [0x20, 0x26, 0x01, 0x01, 5, 0x00, 0x00, 0x59]),
        (time(2026, 1, 31, 23, 59, 59), 1, [0x20, 0x26, 0x02, 0x01, 1, 0x00, 0x00, 0x00]),
        (time(2024, 2, 28, 23, 59, 59), 1, [0x20, 0x24, 0x02, 0x29, 5, 0x00, 0x00, 0x00]),
        (time(2023, 2, 28, 23, 59, 59), 1, [0x20, 0x23, 0x03, 0x01, 4, 0x00, 0x00, 0x00]),
        (time(2000, 2, 28, 12, 0, 0), 86_400, [0x20, 0x00, 0x02, 0x29, 3, 0x12, 0x00, 0x00]),
        (time(2100, 2, 28, 12, 0, 0), 86_400, [0x21, 0x00, 0x03, 0x01, 2, 0x12, 0x00, 0x00]),
        (time(1999, 12, 31, 23, 59, 59), 1, [0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00]),
        (time(2026, 1, 1, 0, 0, 0), 365 * 86_400 + 3_661, [0x20, 0x27, 0x01, 0x01, 6, 0x01, 0x01, 0x01]),
    ];
    for (start, seconds, expected) in table {
        assert_eq!(Bench::new(start).date(seconds * NS), expected, "{start:?} + {seconds}");
    }
}

#[test]
fn one_by_one_is_the_same_as_at_once() {
    let start = time(2027, 12, 30, 22, 10, 5);
    let mut steps = Bench::new(start);
    for second in 0..200_000 {
        steps.rtc.sync(Tick(second * NS));
    }
    let mut jump = Bench::new(start);
    assert_eq!(steps.date(199_999 * NS), jump.date(199_999 * NS));
}

#[test]
fn hour_forms() {
    #[rustfmt::skip]
    let table = [
        // Register B, hour byte before, hour byte an hour later.
        (0x02, 0x09, 0x10), (0x02, 0x23, 0x00), (0x06, 9, 10), (0x06, 23, 0),
        (0x00, 0x12, 0x01), (0x00, 0x11, 0x92), (0x00, 0x92, 0x81), (0x00, 0x91, 0x12), (0x04, 0x0b, 0x8c), (0x04, 0x8b, 0x0c),
    ];
    for (b, before, after) in table {
        let mut bench = Bench::new(CivilTime::default());
        bench.put(0, REG_B, b);
        bench.put(0, HOURS, before);
        assert_eq!(bench.get(3600 * NS, HOURS), after, "B={b:02x} {before:02x}");
    }
}

#[test]
fn periodic_rates() {
    let hertz = [0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2];
    for (rate, hertz) in hertz.into_iter().enumerate() {
        let mut bench = Bench::new(CivilTime::default());
        bench.put(0, REG_A, 0x20 | rate as u8);
        bench.put(0, REG_B, 0x42);
        let mut count = 0;
        while let Some(Tick(event)) = bench.rtc.next_event().filter(|tick| tick.0 <= NS) {
            run_events(&mut bench.rtc, event);
            count += 1;
            assert_eq!(event, (count * NS).div_ceil(hertz), "exact time");
            assert!(bench.wires.level(8));
            assert_eq!(bench.rtc.next_event(), None, "nothing more until it is read");
            let expected = 0xc0 | if event == NS { C_UPDATE | C_ALARM } else { 0 };
            assert_eq!(bench.get(event, REG_C) | C_ALARM, expected | C_ALARM);
            assert!(!bench.wires.level(8));
        }
        assert_eq!(count, hertz, "rate {rate}");
    }
}

#[test]
fn alarm() {
    #[rustfmt::skip]
    let table = [
        // Now h m s, alarm bytes h m s, seconds until it comes.
        ([10, 20, 30], [0x10, 0x20, 0x31], Some(1)),
        ([10, 20, 30], [0x10, 0x20, 0x30], Some(86_400)),
        ([10, 20, 30], [0x10, 0x20, 0x29], Some(86_399)),
        ([10, 20, 30], [0x11, 0x00, 0x00], Some(2_370)),
        ([10, 20, 30], [0xff, 0xff, 0xff], Some(1)),
        ([10, 20, 59], [0xc0, 0xc0, 0xff], Some(1)),
        ([10, 20, 30], [0xff, 0xff, 0x15], Some(45)),
        ([10, 59, 30], [0xff, 0xff, 0x15], Some(45)),
        ([23, 59, 30], [0xff, 0xff, 0x15], Some(45)),
        ([10, 20, 30], [0xff, 0x20, 0xff], Some(1)),
        ([10, 20, 59], [0xff, 0x20, 0xff], Some(3_541)),
        ([10, 20, 30], [0x09, 0xff, 0xff], Some(81_570)),
        ([10, 20, 30], [0x10, 0xff, 0x00], Some(30)),
        ([10, 59, 30], [0x10, 0xff, 0x00], Some(82_830)),
        ([10, 20, 30], [0x24, 0x00, 0x00], None),
        ([10, 20, 30], [0x10, 0x60, 0x00], None),
    ];
    for ([h, m, s], alarm, seconds) in table {
        let mut bench = Bench::new(time(2026, 5, 5, h, m, s));
        for (register, value) in [HOURS_ALARM, MINUTES_ALARM, SECONDS_ALARM].into_iter().zip(alarm) {
            bench.put(0, register, value);
        }
        bench.put(0, REG_B, 0x22);
        let here = format!("{h}:{m}:{s} {alarm:02x?}");
        assert_eq!(bench.rtc.next_event(), seconds.map(|seconds: u64| Tick(seconds * NS)), "{here}");
        let Some(seconds) = seconds else { continue };
        run_events(&mut bench.rtc, seconds * NS - 1);
        assert!(!bench.wires.level(8), "{here}");
        run_events(&mut bench.rtc, seconds * NS);
        assert!(bench.wires.level(8), "{here}");
        assert_eq!(bench.get(seconds * NS, REG_C), C_IRQ | C_ALARM | C_UPDATE | C_PERIODIC, "{here}");
    }
}

#[test]
fn update_in_progress_and_the_set_bit() {
    let mut bench = Bench::new(time(2026, 1, 1, 0, 0, 10));
    let uip = Rate::RTC.tick_of(32_768 - 73).0;
    for (ns, expected) in [(0, 0x26), (uip - 1, 0x26), (uip, 0xa6), (NS - 1, 0xa6), (NS, 0x26)] {
        assert_eq!(bench.get(ns, REG_A), expected, "{ns}");
    }
    assert_eq!(bench.get(NS, SECONDS), 0x11);
    assert_eq!(bench.get(NS, REG_C), C_UPDATE | C_PERIODIC, "flags need no enable");
    bench.put(NS, REG_B, 0x12);
    bench.put(NS, REG_B, 0x92); // SET clears UIE
    assert_eq!(bench.get(NS, REG_B), 0x82);
    assert_eq!(bench.get(2 * NS - 1, REG_A), 0x26, "no UIP under SET");
    assert_eq!(bench.get(5 * NS, SECONDS), 0x11);
    assert_eq!(bench.get(5 * NS, REG_C), C_PERIODIC);
    bench.put(5 * NS + NS / 2, REG_B, 0x12);
    assert_eq!(bench.rtc.next_event(), Some(Tick(6 * NS)));
    run_events(&mut bench.rtc, 6 * NS);
    assert!(bench.wires.level(8));
    assert_eq!(bench.get(6 * NS, SECONDS), 0x12);
}

#[test]
fn the_divider_reset_restarts_the_second() {
    let mut bench = Bench::new(CivilTime::default());
    bench.put(NS / 10, REG_A, 0x76);
    assert_eq!(bench.get(10 * NS, SECONDS), 0);
    bench.put(10 * NS + NS / 4, REG_A, 0x26);
    assert_eq!(bench.get(10 * NS + NS * 3 / 4 - 1, SECONDS), 0);
    assert_eq!(bench.get(10 * NS + NS * 3 / 4, SECONDS), 1);
    assert_eq!(bench.get(11 * NS + NS * 3 / 4, SECONDS), 2);
}

#[test]
fn ram_and_banks() {
    let mut bench = Bench::new(CivilTime::default());
    bench.rtc.cmos_mut()[0x15] = 0x80;
    assert_eq!(bench.get(0, 0x15), 0x80);
    bench.put(0, 0x8f, 0x0a);
    assert!(bench.rtc.nmi_masked());
    assert_eq!(bench.get(0, 0x0f), 0x0a);
    assert!(!bench.rtc.nmi_masked());
    write(&mut bench.rtc, 0, 1, 0, 0x0f);
    write(&mut bench.rtc, 0, 1, 1, 0x55);
    assert_eq!(read(&mut bench.rtc, 0, 1, 1), 0x55);
    assert_eq!(bench.get(0, 0x0f), 0x0a);
    bench.put(0, REG_D, 0);
    assert_eq!(bench.get(0, REG_D), D_VALID);
    assert_eq!(read(&mut bench.rtc, 0, 0, 0), 0xff);
}

#[test]
fn any_traffic() {
    check_device(|| Bench::new(CivilTime::default()).rtc, &[2, 2]);
}
