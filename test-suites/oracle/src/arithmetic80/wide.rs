//! Natural numbers of 320 bits: what exact 80-bit arithmetic needs.

use std::cmp::Ordering;

/// Words, least significant first.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Natural(pub [u64; 5]);

impl Natural {
    /// Zero.
    pub const ZERO: Natural = Natural([0; 5]);
    /// Bits in it.
    pub const BITS: u32 = 320;

    /// From a word.
    pub const fn of(value: u64) -> Natural {
        Natural([value, 0, 0, 0, 0])
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 5]
    }

    /// Bits up to the highest one.
    pub fn length(&self) -> u32 {
        self.0
            .iter()
            .enumerate()
            .rev()
            .find(|(_, w)| **w != 0)
            .map_or(0, |(n, w)| 64 * n as u32 + 64 - w.leading_zeros())
    }

    /// Bit `n`.
    pub fn bit(&self, n: u32) -> bool {
        self.0.get(n as usize / 64).is_some_and(|w| w >> (n % 64) & 1 != 0)
    }

    /// With bit `n` set.
    pub fn with_bit(mut self, n: u32) -> Natural {
        self.0[n as usize / 64] |= 1 << (n % 64);
        self
    }

    /// Sum.
    pub fn plus(&self, other: &Natural) -> Natural {
        let mut out = Natural::ZERO;
        let mut carry = 0u128;
        for n in 0..5 {
            carry += u128::from(self.0[n]) + u128::from(other.0[n]);
            out.0[n] = carry as u64;
            carry >>= 64;
        }
        out
    }

    /// Difference; `other` is not greater.
    pub fn minus(&self, other: &Natural) -> Natural {
        let mut out = Natural::ZERO;
        let mut borrow = false;
        for n in 0..5 {
            let (part, first) = self.0[n].overflowing_sub(other.0[n]);
            let (part, second) = part.overflowing_sub(u64::from(borrow));
            (out.0[n], borrow) = (part, first || second);
        }
        out
    }

    /// Times 2^`by`; nothing may fall out.
    pub fn shifted(&self, by: u32) -> Natural {
        let (words, bits) = (by as usize / 64, by % 64);
        let mut out = Natural::ZERO;
        for n in words..5 {
            let low = self.0[n - words] << bits;
            let high = if bits > 0 && n > words { self.0[n - words - 1] >> (64 - bits) } else { 0 };
            out.0[n] = low | high;
        }
        out
    }

    /// The bits from `by` up.
    pub fn above(&self, by: u32) -> Natural {
        let (words, bits) = (by as usize / 64, by % 64);
        let word = |n: usize| self.0.get(n).copied().unwrap_or(0);
        let mut out = Natural::ZERO;
        for n in 0..5 {
            let high = if bits > 0 { word(n + words + 1) << (64 - bits) } else { 0 };
            out.0[n] = word(n + words) >> bits | high;
        }
        out
    }

    /// How the bits below `by` compare with half of 2^`by`, and whether there are any.
    pub fn below(&self, by: u32) -> (Ordering, bool) {
        let any = |to: u32| {
            let below = |n: u32| (to.min(Natural::BITS)).saturating_sub(64 * n).min(64);
            (0..5).any(|n| below(n) > 0 && self.0[n as usize] << (64 - below(n)) != 0)
        };
        if by == 0 {
            return (Ordering::Less, false);
        }
        match (self.bit(by - 1), any(by - 1)) {
            (true, true) => (Ordering::Greater, true),
            (true, false) => (Ordering::Equal, true),
            (false, rest) => (Ordering::Less, rest),
        }
    }

    /// Product of two words.
    pub fn product(a: u64, b: u64) -> Natural {
        let wide = u128::from(a) * u128::from(b);
        Natural([wide as u64, (wide >> 64) as u64, 0, 0, 0])
    }

    /// Quotient and remainder by long division, a bit at a time.
    pub fn divided(&self, by: &Natural) -> (Natural, Natural) {
        let (mut quotient, mut rest) = (Natural::ZERO, *self);
        let mut place = self.length().saturating_sub(by.length()) + 1;
        while place > 0 {
            place -= 1;
            if by.length() + place > Natural::BITS {
                continue;
            }
            let part = by.shifted(place);
            if rest.cmp(&part) != Ordering::Less {
                rest = rest.minus(&part);
                quotient = quotient.with_bit(place);
            }
        }
        (quotient, rest)
    }

    /// The whole part of the square root, and whether something is left: digit by digit, as on paper.
    pub fn root(&self) -> (Natural, bool) {
        let (mut root, mut rest) = (Natural::ZERO, Natural::ZERO);
        for pair in (0..self.length().div_ceil(2)).rev() {
            rest = rest.shifted(2);
            rest.0[0] |= u64::from(self.bit(2 * pair + 1)) << 1 | u64::from(self.bit(2 * pair));
            let trial = root.shifted(2).plus(&Natural::of(1));
            root = root.shifted(1);
            if rest.cmp(&trial) != Ordering::Less {
                rest = rest.minus(&trial);
                root.0[0] |= 1;
            }
        }
        (root, !rest.is_zero())
    }

    /// Order by value.
    pub fn cmp(&self, other: &Natural) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}
