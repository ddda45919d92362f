//! The host's monotonic clock, read often: a guest that asks for the time in a loop would spend half of it in the host's clock.
//!
//! Between looks at the system's clock, at most [`SPAN`] apart, time goes on by the host's time-stamp counter, if that counts
//! evenly and on all processors alike (CPUID 8000_0007h EDX bit 8; SDM vol. 3, 18.17.1). Its rate is measured from the first
//! look on, so it becomes more exact all the time. Each span is a [`TscLine`], which vCPUs also follow by themselves. Time never
//! goes back: a line ends at a count that is fixed when it is made, and the next begins no lower than that end.
#![allow(unsafe_code, reason = "reads the time-stamp counter, for which the standard library has no safe function")]

use std::time::{Duration, Instant};
use umbra_cpu::bus::TscLine;

/// The longest that the counter is trusted for.
const SPAN: Duration = Duration::from_millis(10);
/// A rate is known after this time: a look takes some ten nanoseconds, so it is right to a hundred-thousandth.
const FIRST: Duration = Duration::from_millis(2);

/// Time since it was made.
#[derive(Debug)]
pub struct HostClock {
    origin: Instant,
    counter: Option<Counter>,
    /// What was last shown, in nanoseconds.
    shown: u64,
}

#[derive(Debug)]
struct Counter {
    /// The counter and the system's clock at the first look.
    first: (u64, u64),
    /// From the last look on, in nanoseconds. Without a span if the rate is not yet known.
    line: TscLine,
}

impl HostClock {
    /// Begins at zero.
    pub fn new() -> HostClock {
        let origin = Instant::now();
        let counter = read().map(|count| {
            let first = look(origin, count);
            Counter { first, line: TscLine { host: first.0, tsc: first.1, ..TscLine::NONE } }
        });
        HostClock { origin, counter, shown: 0 }
    }

    /// When it began.
    pub fn origin(&self) -> Instant {
        self.origin
    }

    /// Nanoseconds since the origin, never fewer than before.
    pub fn now(&mut self) -> u64 {
        let now = match (&mut self.counter, read()) {
            (Some(counter), Some(count)) => counter.at(count, self.origin),
            _ => nanoseconds(self.origin),
        };
        self.shown = self.shown.max(now);
        self.shown
    }

    /// How time goes on from here without being asked for.
    pub fn line(&self) -> TscLine {
        self.counter.as_ref().map_or(TscLine::NONE, |counter| counter.line)
    }
}

impl Counter {
    fn at(&mut self, count: u64, origin: Instant) -> u64 {
        if let Some(now) = self.line.at(count) {
            return now;
        }
        let (count, now) = look(origin, count);
        let line = &mut self.line;
        let shown = line.tsc + line.beyond(line.span);
        // A counter that went back (the host was suspended, or moved) begins anew.
        let all = count.checked_sub(self.first.0).filter(|_| count >= line.host);
        line.tsc = now.max(shown);
        line.host = count;
        match all {
            Some(all) if now - self.first.1 >= FIRST.as_nanos() as u64 && all > 0 => {
                let rate = ((u128::from(now - self.first.1) << 32) / u128::from(all)).min(u128::from(u64::MAX)) as u64;
                line.span = ((SPAN.as_nanos() << 32) / u128::from(rate.max(1))).min(u128::from(u32::MAX)) as u64;
                // What is ahead of the system's clock goes slower until that has caught up.
                let ahead = (line.tsc - now).min(SPAN.as_nanos() as u64 / 16);
                line.rate = rate - (u128::from(rate) * u128::from(ahead) / SPAN.as_nanos()) as u64;
            }
            Some(_) => {}
            None => (line.span, self.first) = (0, (count, now)),
        }
        line.tsc
    }
}

fn nanoseconds(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The counter and the system's clock at one moment: of a few looks the one that took least, since a thread may lose its
/// processor in between.
fn look(origin: Instant, mut before: u64) -> (u64, u64) {
    let mut best = (u64::MAX, (before, 0));
    for _ in 0..4 {
        let now = nanoseconds(origin);
        let after = read().unwrap_or(before);
        let took = after.wrapping_sub(before);
        if took < best.0 {
            best = (took, (before.wrapping_add(took / 2), now));
        }
        before = after;
    }
    best.1
}

/// The counter, where it can be trusted.
#[cfg(all(target_arch = "x86_64", not(portable)))]
fn read() -> Option<u64> {
    use std::arch::x86_64::{__cpuid, _rdtsc};
    use std::sync::OnceLock;
    static EVEN: OnceLock<bool> = OnceLock::new();
    let even = *EVEN.get_or_init(|| __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & 1 << 8 != 0);
    // SAFETY: every x86-64 processor has RDTSC, and Linux lets programs use it.
    even.then(|| unsafe { _rdtsc() })
}

#[cfg(not(all(target_arch = "x86_64", not(portable))))]
fn read() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_systems_clock_and_never_goes_back() {
        let mut clock = HostClock::new();
        let mut before = 0;
        while before < 60_000_000 {
            let low = nanoseconds(clock.origin());
            let now = clock.now();
            let high = nanoseconds(clock.origin());
            assert!(now >= before);
            // A microsecond is what a rate that is right to a ten-thousandth allows; a busy host measures worse.
            assert!(now + 10_000 >= low && now <= high + 10_000, "{low} {now} {high}");
            before = now;
        }
    }

    #[test]
    fn a_counter_that_goes_back_is_measured_anew() {
        let mut clock = HostClock::new();
        std::thread::sleep(2 * FIRST);
        let before = clock.now();
        if let Some(counter) = &mut clock.counter {
            counter.line.host = u64::MAX;
            counter.first.0 = u64::MAX;
        }
        let now = clock.now();
        // It may be ahead by what was left of the line.
        assert!(now >= before && now <= nanoseconds(clock.origin()) + SPAN.as_nanos() as u64);
    }

    #[test]
    fn a_line_begins_where_the_one_before_it_ended_or_later() {
        let mut clock = HostClock::new();
        std::thread::sleep(2 * FIRST);
        let (mut now, mut lines) = (clock.now(), Vec::new());
        while now < 80_000_000 && clock.counter.is_some() {
            let line = clock.line();
            if lines.last() != Some(&line) {
                lines.push(line);
            }
            now = clock.now();
        }
        for pair in lines.windows(2).filter(|pair| pair[0].span > 0) {
            let end = pair[0].at(pair[0].host + pair[0].span - 1).unwrap();
            assert!(pair[1].host >= pair[0].host + pair[0].span && pair[1].tsc >= end, "{pair:?}");
        }
    }
}
