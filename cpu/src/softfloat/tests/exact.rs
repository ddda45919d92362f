//! An exact reference for F80 results: big integers, no cleverness.

use std::cmp::Ordering;

use super::super::{F80, Rounding};

/// A natural number, least significant digit first, without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Natural(Vec<u32>);

impl Natural {
    pub fn from(value: u64) -> Self {
        Self(vec![value as u32, (value >> 32) as u32]).trimmed()
    }

    fn trimmed(mut self) -> Self {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }

    pub fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bits(&self) -> u32 {
        let top = self.0.last().map_or(0, |digit| 32 - digit.leading_zeros());
        (self.0.len().saturating_sub(1) * 32) as u32 + top
    }

    fn bit(&self, place: u32) -> bool {
        self.0.get(place as usize / 32).is_some_and(|digit| digit >> (place % 32) & 1 != 0)
    }

    pub fn shl(&self, places: u32) -> Self {
        let mut digits = vec![0; places as usize / 32];
        let mut carry = 0u64;
        for &digit in &self.0 {
            carry |= u64::from(digit) << (places % 32);
            digits.push(carry as u32);
            carry >>= 32;
        }
        digits.push(carry as u32);
        Self(digits).trimmed()
    }

    pub fn add(&self, other: &Self) -> Self {
        let mut digits = Vec::new();
        let mut carry = 0u64;
        for place in 0..=self.0.len().max(other.0.len()) {
            let digit = |n: &Self| u64::from(n.0.get(place).copied().unwrap_or(0));
            carry += digit(self) + digit(other);
            digits.push(carry as u32);
            carry >>= 32;
        }
        Self(digits).trimmed()
    }

    pub fn sub(&self, other: &Self) -> Self {
        let mut digits = Vec::new();
        let mut borrow = 0i64;
        for (place, &digit) in self.0.iter().enumerate() {
            borrow += i64::from(digit) - i64::from(other.0.get(place).copied().unwrap_or(0));
            digits.push(borrow as u32);
            borrow >>= 32;
        }
        assert_eq!(borrow, 0);
        Self(digits).trimmed()
    }

    pub fn mul(&self, other: &Self) -> Self {
        let mut sum = Self(Vec::new());
        for (place, &digit) in other.0.iter().enumerate() {
            let mut digits = vec![0; place];
            let mut carry = 0u64;
            for &mine in &self.0 {
                carry += u64::from(mine) * u64::from(digit);
                digits.push(carry as u32);
                carry >>= 32;
            }
            digits.push(carry as u32);
            sum = sum.add(&Self(digits).trimmed());
        }
        sum
    }

    pub fn cmp(&self, other: &Self) -> Ordering {
        let lengths = self.0.len().cmp(&other.0.len());
        lengths.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    pub fn divide(&self, divisor: &Self) -> (Self, Self) {
        let mut quotient = Self(vec![0; self.0.len()]);
        let mut rest = Self(Vec::new());
        for place in (0..self.bits()).rev() {
            rest = rest.shl(1).add(&Self::from(u64::from(self.bit(place))));
            if rest.cmp(divisor) != Ordering::Less {
                rest = rest.sub(divisor);
                quotient.0[place as usize / 32] |= 1 << (place % 32);
            }
        }
        (quotient.trimmed(), rest)
    }

    fn low_u64(&self) -> u64 {
        let digit = |place: usize| u64::from(self.0.get(place).copied().unwrap_or(0));
        digit(0) | digit(1) << 32
    }
}

/// A fraction `numerator / denominator * 2^power` with a sign.
pub struct Exact {
    pub sign: bool,
    pub numerator: Natural,
    pub denominator: Natural,
    pub power: i32,
}

/// A number rounded to `bits` significant bits, and whether it is inexact and above the exact magnitude.
pub fn round(exact: &Exact, bits: u32, rounding: Rounding) -> (F80, bool, bool) {
    // Scale the numerator until the quotient has exactly `bits` bits.
    let mut power = exact.power;
    let mut scale = bits as i32 + 1 - (exact.numerator.bits() as i32 - exact.denominator.bits() as i32);
    loop {
        let numerator = exact.numerator.shl(scale.max(0) as u32);
        let denominator = exact.denominator.shl((-scale).max(0) as u32);
        let (mut quotient, rest) = numerator.divide(&denominator);
        if quotient.bits() != bits {
            scale += bits as i32 - quotient.bits() as i32;
            continue;
        }
        power -= scale;
        let half = rest.shl(1).cmp(&denominator);
        let up = !rest.is_zero()
            && match rounding {
                Rounding::Nearest => half == Ordering::Greater || half == Ordering::Equal && quotient.bit(0),
                Rounding::Down => exact.sign,
                Rounding::Up => !exact.sign,
                Rounding::Zero => false,
            };
        if up {
            quotient = quotient.add(&Natural::from(1));
        }
        if quotient.bits() > bits {
            quotient = Natural::from(1 << (bits - 1));
            power += 1;
        }
        let shift = 64 - bits;
        let significand = quotient.shl(shift).low_u64();
        let exponent = power - shift as i32 + 63 + 16383;
        let number = F80::new(u16::from(exact.sign) << 15 | exponent as u16, significand);
        return (number, !rest.is_zero(), up);
    }
}
