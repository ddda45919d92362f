//! Time as devices see it: ticks of guest time and exact ratios. No floating point, no rounding that accumulates.

use serde::{Deserialize, Serialize};

/// Guest time since power-on, in nanoseconds.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(transparent)]
pub struct Tick(pub u64);

impl Tick {
    /// The tick `ns` nanoseconds later (saturating).
    pub const fn after(self, ns: u64) -> Tick {
        Tick(self.0.saturating_add(ns))
    }
}

/// A clock rate as an exact ratio: `numerator / denominator` cycles per nanosecond.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    numerator: u64,
    denominator: u64,
}

impl Rate {
    /// The 8254's input clock, 105/88 MHz (14.318 MHz / 12).
    pub const PIT: Rate = Rate::new(105, 88_000);
    /// The ACPI power-management timer, 3 × the PIT's rate.
    pub const ACPI_PM: Rate = Rate::new(315, 88_000);
    /// The real-time clock's crystal, 32.768 kHz.
    pub const RTC: Rate = Rate::from_hertz(32_768);

    /// `numerator / denominator` cycles per nanosecond.
    pub const fn new(numerator: u64, denominator: u64) -> Rate {
        Rate { numerator, denominator }
    }
    /// A whole number of cycles per second.
    pub const fn from_hertz(hertz: u64) -> Rate {
        Rate { numerator: hertz, denominator: 1_000_000_000 }
    }
    /// Whole cycles that have begun and ended by `at`, counted from tick 0.
    pub const fn cycles_at(self, at: Tick) -> u64 {
        (at.0 as u128 * self.numerator as u128 / self.denominator as u128) as u64
    }
    /// The first tick at which `cycles_at` is at least `cycles`.
    pub const fn tick_of(self, cycles: u64) -> Tick {
        let ns = (cycles as u128 * self.denominator as u128).div_ceil(self.numerator as u128);
        Tick(if ns > u64::MAX as u128 { u64::MAX } else { ns as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tick_of_is_the_first_tick_with_that_count() {
        for rate in [Rate::PIT, Rate::ACPI_PM, Rate::RTC, Rate::from_hertz(1_000_000_000)] {
            for cycles in [1, 2, 3, 65_536, 1_193_182, 123_456_789_012] {
                let tick = rate.tick_of(cycles);
                assert_eq!(rate.cycles_at(tick), cycles, "{rate:?} {cycles}");
                assert!(rate.cycles_at(Tick(tick.0 - 1)) < cycles);
            }
        }
    }
}
