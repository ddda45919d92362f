//! Tests of the arithmetic: against the host's `f32` and `f64` (round to nearest), against an exact reference
//! (F80), and against results recorded on a processor (AMD family 19h), flags included.

mod exact;
mod extended;
mod recorded;
mod single_double;
mod transcendental;

use super::F80;

/// SplitMix64: a deterministic source of operands.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A significand with a bias toward runs of equal bits.
    fn fraction(&mut self, bits: u32) -> u64 {
        let ones = (1u64 << bits) - 1;
        let place = self.below(u64::from(bits));
        match self.below(8) {
            0 => 0,
            1 => 1,
            2 => ones,
            3 => ones - 1,
            4 => 1 << place,
            5 => ones & !((1 << place) - 1),
            _ => self.next() & ones,
        }
    }

    /// An exponent with a bias toward the ends and the middle.
    fn exponent(&mut self, bits: u32) -> u64 {
        let top = (1u64 << bits) - 1;
        let spread = u64::from(4 * bits);
        match self.below(8) {
            0 => 0,
            1 => 1,
            2 => top,
            3 => top - 1,
            4..=6 => top / 2 - spread / 2 + self.below(spread),
            _ => self.below(top + 1),
        }
    }

    fn single(&mut self) -> u32 {
        (self.below(2) << 31 | self.exponent(8) << 23 | self.fraction(23)) as u32
    }

    fn double(&mut self) -> u64 {
        self.below(2) << 63 | self.exponent(11) << 52 | self.fraction(52)
    }

    /// A normal F80 within 2^100 of one.
    fn moderate(&mut self) -> F80 {
        let exponent = 0x3fff - 100 + self.below(200);
        F80::new((self.below(2) << 15 | exponent) as u16, 1 << 63 | self.fraction(63))
    }
}
