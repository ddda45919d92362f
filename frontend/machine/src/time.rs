//! Guest time: from the host's monotonic clock (`--clock real`) or from retired instructions (`--clock virtual`).
//!
//! Guest time is in ticks of 1 ns since power-on; the time-stamp counter counts the same ticks (1 GHz). With the virtual
//! clock each vCPU has an offset from its count of retired instructions to guest time: it grows when the vCPU sleeps.
//! With the real clock the host's time is used as it is, less the spans in which the machine was paused.
//!
//! Called by the vCPUs' buses and by `run`.

use crate::host_clock::HostClock;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use umbra_cpu::bus::{Retired, TscLine};
use umbra_devices::clock::Tick;

/// The machine's clock, shared by all its threads.
#[derive(Debug)]
pub struct GuestClock(Kind);

#[derive(Debug)]
enum Kind {
    Real(Mutex<RealClock>),
    Virtual(Box<[AtomicU64]>),
}

#[derive(Debug)]
struct RealClock {
    /// Guest time when it last stood still.
    base: Tick,
    /// When it last began to run; `None` while paused.
    since: Option<HostClock>,
}

impl RealClock {
    fn now(&mut self) -> Tick {
        let running = self.since.as_mut().map_or(0, HostClock::now);
        self.base.after(running)
    }
}

impl GuestClock {
    /// A clock that follows the host's, standing still at 0 until [`Self::resume`].
    pub fn real() -> GuestClock {
        GuestClock(Kind::Real(Mutex::new(RealClock { base: Tick(0), since: None })))
    }
    /// A clock that follows retired instructions.
    pub fn of_instructions(vcpus: usize) -> GuestClock {
        GuestClock(Kind::Virtual((0..vcpus).map(|_| AtomicU64::new(0)).collect()))
    }
    /// Whether this is the virtual clock.
    pub fn is_virtual(&self) -> bool {
        matches!(self.0, Kind::Virtual(_))
    }
    /// Guest time for a vCPU that has retired `at` instructions.
    pub fn now(&self, vcpu: usize, at: Retired) -> Tick {
        match &self.0 {
            Kind::Real(clock) => clock.lock().now(),
            Kind::Virtual(offsets) => {
                let offset = offsets.get(vcpu).map_or(0, |offset| offset.load(Ordering::Relaxed));
                Tick(at.0.wrapping_add(offset))
            }
        }
    }
    /// Real: how the ticks go on from the last time that [`Self::now`] was asked, while the clock runs.
    pub fn tsc_line(&self) -> TscLine {
        let Kind::Real(clock) = &self.0 else { return TscLine::NONE };
        let clock = clock.lock();
        let line = clock.since.as_ref().map_or(TscLine::NONE, HostClock::line);
        TscLine { tsc: clock.base.after(line.tsc).0, ..line }
    }
    /// Virtual: makes the vCPU's time be `now` at `at` retired instructions. Real: nothing.
    pub fn set(&self, vcpu: usize, at: Retired, now: Tick) {
        if let Kind::Virtual(offsets) = &self.0
            && let Some(offset) = offsets.get(vcpu)
        {
            offset.store(now.0.wrapping_sub(at.0), Ordering::Relaxed);
        }
    }
    /// Real: the time now. Virtual: `None`, since only the vCPUs know it.
    pub fn host_driven_now(&self) -> Option<Tick> {
        match &self.0 {
            Kind::Real(clock) => Some(clock.lock().now()),
            Kind::Virtual(_) => None,
        }
    }
    /// Real: when the host's clock will show `tick`; `None` if that is too far, while paused, or for the virtual clock.
    pub fn host_instant(&self, tick: Tick) -> Option<Instant> {
        match &self.0 {
            Kind::Real(clock) => {
                let clock = clock.lock();
                let ahead = tick.0.saturating_sub(clock.base.0);
                clock.since.as_ref()?.origin().checked_add(Duration::from_nanos(ahead))
            }
            Kind::Virtual(_) => None,
        }
    }
    /// Real: time runs from here on.
    pub fn resume(&self) {
        if let Kind::Real(clock) = &self.0 {
            clock.lock().since.get_or_insert_with(HostClock::new);
        }
    }
    /// Real: time stands still.
    pub fn pause(&self) {
        if let Kind::Real(clock) = &self.0 {
            let mut clock = clock.lock();
            (clock.base, clock.since) = (clock.now(), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_time_counts_instructions_and_jumps() {
        let clock = GuestClock::of_instructions(2);
        assert_eq!(clock.now(1, Retired(7)), Tick(7));
        clock.set(1, Retired(7), Tick(1000));
        assert_eq!(clock.now(1, Retired(8)), Tick(1001));
        assert_eq!(clock.now(0, Retired(8)), Tick(8));
    }

    #[test]
    fn real_time_stands_still_while_paused() {
        let clock = GuestClock::real();
        assert_eq!(clock.now(0, Retired(99)), Tick(0));
        clock.resume();
        std::thread::sleep(Duration::from_millis(2));
        clock.pause();
        let stopped = clock.now(0, Retired(0));
        assert!(stopped.0 >= 2_000_000);
        assert_eq!(clock.now(0, Retired(0)), stopped);
        assert_eq!(clock.host_instant(stopped), None);
    }
}
