//! The exact reference: each result is a natural number times a power of two, rounded once by the definition.
//!
//! From IEEE 754-2019, clauses 4, 5 and 7, and SDM vol. 1: 4.2.2 and 8.2.2 (encodings), table 4-7 (NaN results), 4.9.2
//! (priority), 8.5 (responses), 8.1.5 (control word). It shares no code with `softfloat`.

use super::wide::Natural;
use super::{Operands, Operation};
use std::cmp::Ordering;

/// What an operation gives.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Sign and exponent, significand (80-bit results), or the stored bits in the second; `None`: nothing is written.
    pub result: Option<(u16, u64)>,
    /// Exception flags of the status word.
    pub flags: u8,
    /// C1: rounded up in magnitude.
    pub up: bool,
    /// Of remainders: `Some(None)` if incomplete, else the low three bits of the quotient. `None`: not told.
    pub quotient: Option<Option<u8>>,
}

impl Answer {
    /// Whether two answers tell nothing different.
    pub fn agrees(&self, other: &Answer) -> bool {
        let same_result = self.result == other.result;
        let same_quotient = self.quotient.is_none() || other.quotient.is_none() || self.quotient == other.quotient;
        same_result && same_quotient && self.flags == other.flags && self.up == other.up
    }
}

const IE: u8 = 1;
const DE: u8 = 2;
const ZE: u8 = 4;
const OE: u8 = 8;
const UE: u8 = 16;
const PE: u8 = 32;
/// Found before the operation is done; unmasked, they stop it.
const EARLY: u8 = IE | DE | ZE;

/// A format to round to.
#[derive(Copy, Clone)]
struct Target {
    /// Bits of the significand.
    precision: i64,
    /// The exponent of the smallest and largest normal numbers.
    least: i64,
    greatest: i64,
    /// What an unmasked overflow or underflow moves the exponent by.
    wrap: i64,
}

/// An exact number: magnitude × 2^power, and a little more if `more` (less than one unit of the magnitude).
#[derive(Copy, Clone)]
struct Exact {
    sign: bool,
    magnitude: Natural,
    power: i64,
    more: bool,
}

/// A rounded finite number: significand × 2^power, or out of range.
enum Rounded {
    Finite { significand: Natural, power: i64 },
    Infinite,
    Nothing,
}

/// What an encoding is.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Kind {
    Zero,
    Finite,
    Infinity,
    Quiet,
    Signaling,
    Unsupported,
}

#[derive(Copy, Clone)]
struct Operand {
    kind: Kind,
    sign: bool,
    denormal: bool,
    significand: u64,
    /// Finite: value is significand × 2^power.
    power: i64,
    raw: (u16, u64),
}

impl Operand {
    fn of(raw: (u16, u64)) -> Operand {
        let (sign, exponent, significand) = (raw.0 >> 15 != 0, raw.0 & 0x7fff, raw.1);
        let explicit_one = significand >> 63 != 0;
        let kind = match exponent {
            0 if significand == 0 => Kind::Zero,
            0 => Kind::Finite,
            _ if !explicit_one => Kind::Unsupported,
            0x7fff if significand == 1 << 63 => Kind::Infinity,
            0x7fff if significand >> 62 == 3 => Kind::Quiet,
            0x7fff => Kind::Signaling,
            _ => Kind::Finite,
        };
        let denormal = exponent == 0 && significand != 0;
        let power = i64::from(exponent.max(1)) - 16383 - 63;
        Operand { kind, sign, denormal, significand, power, raw }
    }
}

/// The arithmetic under one control word.
pub struct Reference {
    control: u16,
    flags: u8,
    up: bool,
}

const INDEFINITE: (u16, u64) = (0xffff, 3 << 62);

impl Reference {
    /// Under this control word.
    pub fn new(control: u16) -> Reference {
        Reference { control, flags: 0, up: false }
    }

    fn masked(&self, flag: u8) -> bool {
        self.control as u8 & flag != 0
    }

    /// The answer.
    pub fn answer(mut self, operation: Operation, operands: Operands) -> Answer {
        use Operation as O;
        let mut quotient = None;
        let result = match operation {
            O::FromSingle => self.load(operands[0].1, 8, 23),
            O::FromDouble => self.load(operands[0].1, 11, 52),
            O::FromInt64 => self.integer_number(operands[0].1 as i64),
            O::Compare => self.compare(Operand::of(operands[0]), Operand::of(operands[1])),
            O::ToSingle => self.store(Operand::of(operands[0]), 8, 23),
            O::ToDouble => self.store(Operand::of(operands[0]), 11, 52),
            O::ToInt16 => self.integer(Operand::of(operands[0]), 16),
            O::ToInt32 => self.integer(Operand::of(operands[0]), 32),
            O::ToInt64 => self.integer(Operand::of(operands[0]), 64),
            O::ToDecimal => self.decimal(Operand::of(operands[0])),
            _ => self.arithmetic(operation, operands.map(Operand::of), &mut quotient),
        };
        let early = self.flags & EARLY & !(self.control as u8) != 0;
        if early {
            // What stops the operation hides what only its result could show.
            (self.flags, self.up) = (self.flags & EARLY, false);
        }
        let stores =
            matches!(operation, O::ToSingle | O::ToDouble | O::ToInt16 | O::ToInt32 | O::ToInt64 | O::ToDecimal);
        let late = stores && self.flags & (OE | UE) & !(self.control as u8) != 0;
        let written = operation == O::Compare || !early && !late;
        Answer {
            result: written.then_some(result),
            flags: self.flags,
            up: self.up && written,
            quotient: if early { None } else { quotient },
        }
    }

    fn invalid(&mut self) -> (u16, u64) {
        self.flags |= IE;
        INDEFINITE
    }

    /// The result if an operand is no number (SDM vol. 1, table 4-7).
    fn no_number(&mut self, operands: &[Operand]) -> Option<(u16, u64)> {
        if operands.iter().any(|o| o.kind == Kind::Unsupported) {
            return Some(self.invalid());
        }
        let nans: Vec<&Operand> = operands.iter().filter(|o| matches!(o.kind, Kind::Quiet | Kind::Signaling)).collect();
        let first = *nans.first()?;
        if nans.iter().any(|o| o.kind == Kind::Signaling) {
            self.flags |= IE;
        }
        let chosen = match nans.get(1) {
            None => first,
            // A quiet NaN goes before a signaling one, else the larger significand, else the positive one.
            Some(second) if first.kind != second.kind => {
                if first.kind == Kind::Quiet {
                    first
                } else {
                    second
                }
            }
            Some(second) => match first.significand.cmp(&second.significand) {
                Ordering::Greater => first,
                Ordering::Less => second,
                Ordering::Equal if first.sign => second,
                Ordering::Equal => first,
            },
        };
        Some((chosen.raw.0, chosen.raw.1 | 1 << 62))
    }

    fn note_denormals(&mut self, operands: &[Operand]) {
        if operands.iter().any(|o| o.denormal) {
            self.flags |= DE;
        }
    }

    fn extended(&self, obeys_precision: bool) -> Target {
        let precision = match self.control >> 8 & 3 {
            0 if obeys_precision => 24,
            2 if obeys_precision => 53,
            _ => 64,
        };
        Target { precision, least: -16382, greatest: 16383, wrap: 24576 }
    }

    fn rounds_away(&self, sign: bool, odd: bool, half: Ordering, inexact: bool) -> bool {
        match self.control >> 10 & 3 {
            0 => half == Ordering::Greater || half == Ordering::Equal && odd,
            1 => sign && inexact,
            2 => !sign && inexact,
            _ => false,
        }
    }

    /// Rounds to multiples of 2^`unit`: (multiple, inexact, away from zero).
    fn round_to(&self, x: &Exact, unit: i64) -> (Natural, bool, bool) {
        let drop = unit - x.power;
        let (whole, half, inexact) = if drop <= 0 {
            (x.magnitude.shifted((-drop) as u32), Ordering::Less, x.more)
        } else {
            let drop = drop.min(i64::from(Natural::BITS) + 1) as u32;
            let (half, any) = x.magnitude.below(drop);
            // What is more lies below the last bit: it tips an even half.
            let half = if half == Ordering::Equal && x.more { Ordering::Greater } else { half };
            (x.magnitude.above(drop), half, any || x.more)
        };
        let away = self.rounds_away(x.sign, whole.bit(0), half, inexact);
        (if away { whole.plus(&Natural::of(1)) } else { whole }, inexact, away)
    }

    /// Rounds to a format by the definition: overflow and underflow are told from the result with unbounded exponent.
    fn round(&mut self, x: &Exact, target: Target) -> Rounded {
        let unit = x.power + i64::from(x.magnitude.length()) - target.precision;
        let (significand, inexact, away) = self.round_to(x, unit);
        let exponent = unit + i64::from(significand.length()) - 1;
        if exponent > target.greatest {
            self.flags |= OE;
            if !self.masked(OE) && exponent - target.wrap <= target.greatest {
                self.note_inexact(inexact, away);
                return Rounded::Finite { significand, power: unit - target.wrap };
            }
            self.flags |= PE;
            let infinite = !self.masked(OE) || self.rounds_away(x.sign, true, Ordering::Greater, true);
            self.up = infinite;
            if infinite {
                return Rounded::Infinite;
            }
            let ones = Natural::ZERO.with_bit(target.precision as u32).minus(&Natural::of(1));
            return Rounded::Finite { significand: ones, power: target.greatest + 1 - target.precision };
        }
        if exponent >= target.least {
            self.note_inexact(inexact, away);
            return Rounded::Finite { significand, power: unit };
        }
        if !self.masked(UE) {
            self.flags |= UE;
            if exponent + target.wrap >= target.least {
                self.note_inexact(inexact, away);
                return Rounded::Finite { significand, power: unit + target.wrap };
            }
            self.flags |= PE;
            self.up = false;
            return Rounded::Nothing;
        }
        let unit = target.least + 1 - target.precision;
        let (significand, inexact, away) = self.round_to(x, unit);
        if inexact {
            self.flags |= UE;
        }
        self.note_inexact(inexact, away);
        Rounded::Finite { significand, power: unit }
    }

    fn note_inexact(&mut self, inexact: bool, away: bool) {
        if inexact {
            self.flags |= PE;
        }
        self.up = away;
    }

    /// Rounds and encodes as an 80-bit number.
    fn encode(&mut self, x: &Exact, obeys_precision: bool) -> (u16, u64) {
        let sign = u16::from(x.sign) << 15;
        match self.round(x, self.extended(obeys_precision)) {
            Rounded::Infinite => (sign | 0x7fff, 1 << 63),
            Rounded::Nothing => (sign, 0),
            Rounded::Finite { significand, power } => {
                if significand.is_zero() {
                    return (sign, 0);
                }
                let exponent = power + i64::from(significand.length()) - 1;
                let unit = exponent.max(-16382) - 63;
                // A carry out of the top leaves a zero below.
                let word = match power - unit {
                    up @ 0.. => significand.shifted(up as u32).0[0],
                    down => significand.above(-down as u32).0[0],
                };
                let biased = if word >> 63 != 0 { exponent.max(-16382) + 16383 } else { 0 };
                (sign | biased as u16, word)
            }
        }
    }

    fn exact(o: Operand) -> Exact {
        Exact { sign: o.sign, magnitude: Natural::of(o.significand), power: o.power, more: false }
    }

    fn infinity(sign: bool) -> (u16, u64) {
        (u16::from(sign) << 15 | 0x7fff, 1 << 63)
    }

    fn arithmetic(
        &mut self,
        operation: Operation,
        [a, b]: [Operand; 2],
        quotient: &mut Option<Option<u8>>,
    ) -> (u16, u64) {
        use Operation as O;
        let used = [a, b];
        let used = if operation.binary() { &used[..] } else { &used[..1] };
        if let Some(nan) = self.no_number(used) {
            return nan;
        }
        let sign = a.sign != b.sign;
        let (a_infinite, b_infinite) = (a.kind == Kind::Infinity, b.kind == Kind::Infinity);
        let (a_zero, b_zero) = (a.kind == Kind::Zero, b.kind == Kind::Zero);
        // Invalid operations (SDM vol. 1, table 8-10).
        let bad = match operation {
            O::Add => a_infinite && b_infinite && sign,
            O::Sub => a_infinite && b_infinite && !sign,
            O::Mul => a_infinite && b_zero || a_zero && b_infinite,
            O::Div => a_infinite && b_infinite || a_zero && b_zero,
            O::Sqrt => a.sign && !a_zero,
            O::Remainder | O::RemainderNearest => a_infinite || b_zero,
            O::Scale => b_infinite && if b.sign { a_infinite } else { a_zero },
            _ => false,
        };
        if bad {
            return self.invalid();
        }
        if operation == O::Div && b_zero && !a_infinite {
            // Division by zero goes before a denormal operand, and hides it (4.9.2).
            self.flags |= ZE;
            return Self::infinity(sign);
        }
        self.note_denormals(used);
        match operation {
            O::Add | O::Sub => {
                let b = Operand { sign: b.sign != (operation == O::Sub), ..b };
                self.sum(a, b)
            }
            O::Mul if a_infinite || b_infinite => Self::infinity(sign),
            O::Mul => {
                let magnitude = Natural::product(a.significand, b.significand);
                self.encode_or_zero(Exact { sign, magnitude, power: a.power + b.power, more: false })
            }
            O::Div if a_infinite => Self::infinity(sign),
            O::Div if b_infinite || a_zero => (u16::from(sign) << 15, 0),
            O::Div => {
                let dividend = Natural::of(a.significand).shifted(160);
                let (magnitude, rest) = dividend.divided(&Natural::of(b.significand));
                self.encode(&Exact { sign, magnitude, power: a.power - b.power - 160, more: !rest.is_zero() }, true)
            }
            O::Sqrt if a_zero || a_infinite => a.raw,
            O::Sqrt => {
                let odd = a.power.rem_euclid(2);
                let (magnitude, more) = Natural::of(a.significand).shifted(150 + odd as u32).root();
                self.encode(&Exact { sign: false, magnitude, power: (a.power - odd - 150) / 2, more }, true)
            }
            O::Round if a_zero || a_infinite => a.raw,
            O::Round if a.power >= 0 => a.raw,
            O::Round => {
                let (magnitude, inexact, away) = self.round_to(&Self::exact(a), 0);
                self.note_inexact(inexact, away);
                self.encode_integer(a.sign, magnitude)
            }
            O::Scale if a_infinite || a_zero => a.raw,
            O::Scale if b_infinite && b.sign => (u16::from(a.sign) << 15, 0),
            O::Scale if b_infinite => Self::infinity(a.sign),
            O::Scale if b_zero => {
                self.control |= u16::from(UE);
                self.encode(&Self::exact(a), false)
            }
            O::Scale => {
                let power = Self::truncated(b);
                let mut x = Self::exact(a);
                x.power += power;
                self.encode(&x, false)
            }
            _ => self.remainder(operation, a, b, quotient),
        }
    }

    fn encode_or_zero(&mut self, x: Exact) -> (u16, u64) {
        if x.magnitude.is_zero() { (u16::from(x.sign) << 15, 0) } else { self.encode(&x, true) }
    }

    fn sum(&mut self, a: Operand, b: Operand) -> (u16, u64) {
        if a.kind == Kind::Infinity {
            return a.raw;
        }
        if b.kind == Kind::Infinity {
            return Self::infinity(b.sign);
        }
        let zero = |sign: bool| (u16::from(sign) << 15, 0);
        let down = self.control >> 10 & 3 == 1;
        match (a.kind, b.kind) {
            (Kind::Zero, Kind::Zero) => return zero(if a.sign == b.sign { a.sign } else { down }),
            (Kind::Zero, _) => return self.encode(&Self::exact(b), true),
            (_, Kind::Zero) => return self.encode(&Self::exact(a), true),
            _ => {}
        }
        let (high, low) = if a.power >= b.power { (a, b) } else { (b, a) };
        let distance = high.power - low.power;
        // Further apart than this the lower one only matters as something more, or less.
        if distance > 200 {
            let mut magnitude = Natural::of(high.significand).shifted(140);
            if high.sign != low.sign {
                magnitude = magnitude.minus(&Natural::of(1));
            }
            return self.encode(&Exact { sign: high.sign, magnitude, power: high.power - 140, more: true }, true);
        }
        let (x, y) = (Natural::of(high.significand).shifted(distance as u32), Natural::of(low.significand));
        let (sign, magnitude) = match x.cmp(&y) {
            _ if high.sign == low.sign => (high.sign, x.plus(&y)),
            Ordering::Equal => return zero(down),
            Ordering::Greater => (high.sign, x.minus(&y)),
            Ordering::Less => (low.sign, y.minus(&x)),
        };
        self.encode(&Exact { sign, magnitude, power: low.power, more: false }, true)
    }

    /// The integer part of a power of two, as far as it can matter.
    fn truncated(b: Operand) -> i64 {
        let limit = 70_000;
        let magnitude = match b.power {
            _ if b.significand == 0 => 0,
            0.. => limit,
            power if power <= -64 => 0,
            power => (b.significand >> -power).min(limit as u64) as i64,
        };
        if b.sign { -magnitude } else { magnitude }
    }

    /// FPREM and FPREM1 (SDM vol. 2): exact remainder, or a reduction by 32 to 63 powers of two.
    fn remainder(
        &mut self,
        operation: Operation,
        a: Operand,
        b: Operand,
        quotient: &mut Option<Option<u8>>,
    ) -> (u16, u64) {
        *quotient = Some(Some(0));
        if a.kind == Kind::Zero {
            return a.raw;
        }
        if b.kind == Kind::Infinity {
            // The dividend itself: no result that could be tiny.
            self.control |= u16::from(UE);
            return self.encode(&Self::exact(a), false);
        }
        let exponent = |o: Operand| o.power + 63 - i64::from(o.significand.leading_zeros());
        let distance = exponent(a) - exponent(b);
        if distance >= 64 {
            // The step is the implementation's; AMD's and Intel's processors agree on this one.
            let scale = distance - (distance % 32 + 32);
            *quotient = Some(None);
            let up = (a.power - b.power - scale).max(0) as u32;
            let down = (b.power + scale - a.power).max(0) as u32;
            let (x, y) = (Natural::of(a.significand).shifted(up), Natural::of(b.significand).shifted(down));
            let (_, rest) = x.divided(&y);
            return self.rest(a.sign, rest, a.power - i64::from(up));
        }
        if distance < -64 {
            let result = self.encode(&Self::exact(a), false);
            self.up = false;
            return result;
        }
        let low = a.power.min(b.power);
        let x = Natural::of(a.significand).shifted((a.power - low) as u32);
        let y = Natural::of(b.significand).shifted((b.power - low) as u32);
        let (mut whole, mut rest) = x.divided(&y);
        let mut sign = a.sign;
        if operation == Operation::RemainderNearest {
            let twice = rest.shifted(1);
            if twice.cmp(&y) == Ordering::Greater || twice.cmp(&y) == Ordering::Equal && whole.bit(0) {
                (whole, rest, sign) = (whole.plus(&Natural::of(1)), y.minus(&rest), !sign);
            }
        }
        *quotient = Some(Some(whole.0[0] as u8 & 7));
        self.rest(sign, rest, low)
    }

    fn rest(&mut self, sign: bool, magnitude: Natural, power: i64) -> (u16, u64) {
        if magnitude.is_zero() {
            return (u16::from(sign) << 15, 0);
        }
        let result = self.encode(&Exact { sign, magnitude, power, more: false }, false);
        self.up = false;
        result
    }

    fn encode_integer(&self, sign: bool, magnitude: Natural) -> (u16, u64) {
        let sign = u16::from(sign) << 15;
        let length = magnitude.length();
        if length == 0 {
            return (sign, 0);
        }
        let significand = if length > 64 { 1 << 63 } else { magnitude.0[0] << (64 - length) };
        (sign | (16383 + length - 1) as u16, significand)
    }

    fn integer_number(&self, value: i64) -> (u16, u64) {
        self.encode_integer(value < 0, Natural::of(value.unsigned_abs()))
    }

    /// FLD of a single or double.
    fn load(&mut self, bits: u64, exponent_bits: u32, fraction_bits: u32) -> (u16, u64) {
        let sign = u16::from(bits >> (exponent_bits + fraction_bits) & 1 != 0) << 15;
        let exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1);
        let fraction = bits & ((1 << fraction_bits) - 1);
        let all_ones = (1 << exponent_bits) - 1;
        let aligned = fraction << (63 - fraction_bits);
        if exponent == all_ones {
            if fraction == 0 {
                return (sign | 0x7fff, 1 << 63);
            }
            if aligned >> 62 == 0 {
                self.flags |= IE;
            }
            return (sign | 0x7fff, 3 << 62 | aligned);
        }
        if exponent == 0 && fraction == 0 {
            return (sign, 0);
        }
        let bias = (1i64 << (exponent_bits - 1)) - 1;
        if exponent != 0 {
            return (sign | (exponent as i64 - bias + 16383) as u16, 1 << 63 | aligned);
        }
        self.flags |= DE;
        let shift = aligned.leading_zeros();
        (sign | (1 - bias + 16383 - i64::from(shift)) as u16, aligned << shift)
    }

    /// FST to single or double.
    fn store(&mut self, a: Operand, exponent_bits: u32, fraction_bits: u32) -> (u16, u64) {
        let sign = u64::from(a.sign) << (exponent_bits + fraction_bits);
        let infinity = ((1 << exponent_bits) - 1) << fraction_bits;
        let nan = |raw: (u16, u64)| {
            let sign = u64::from(raw.0 >> 15) << (exponent_bits + fraction_bits);
            (0, sign | infinity | raw.1 << 1 >> (64 - fraction_bits))
        };
        if let Some(raw) = self.no_number(&[a]) {
            return nan(raw);
        }
        match a.kind {
            Kind::Zero => return (0, sign),
            Kind::Infinity => return (0, sign | infinity),
            _ => {}
        }
        let greatest = (1i64 << (exponent_bits - 1)) - 1;
        let precision = i64::from(fraction_bits) + 1;
        let target = Target { precision, least: 1 - greatest, greatest, wrap: 0 };
        let rounded = self.round(&Self::exact(a), target);
        if self.flags & (OE | UE) & !(self.control as u8) != 0 {
            // Nothing is stored, so nothing is inexact.
            self.flags &= !PE;
            return (0, 0);
        }
        match rounded {
            Rounded::Infinite => (0, sign | infinity),
            Rounded::Nothing => (0, sign),
            Rounded::Finite { significand, power } => {
                let exponent = (power + i64::from(significand.length()) - 1).max(target.least);
                let unit = exponent - i64::from(fraction_bits);
                let word = if power >= unit {
                    significand.shifted((power - unit) as u32).0[0]
                } else {
                    significand.above((unit - power) as u32).0[0]
                };
                let normal = word >> fraction_bits != 0;
                let biased = if normal { (exponent + greatest) as u64 } else { 0 };
                (0, sign | biased << fraction_bits | word & ((1 << fraction_bits) - 1))
            }
        }
    }

    /// The rounded magnitude if it is at most `limit`, else an invalid operation.
    fn whole(&mut self, a: Operand, limit: u64) -> Option<u64> {
        let finite = matches!(a.kind, Kind::Zero | Kind::Finite);
        if !finite || a.power > 0 && a.significand != 0 {
            self.flags |= IE;
            return None;
        }
        let (magnitude, inexact, away) = self.round_to(&Self::exact(a), 0);
        if magnitude.cmp(&Natural::of(limit)) == Ordering::Greater {
            self.flags |= IE;
            return None;
        }
        self.note_inexact(inexact, away);
        Some(magnitude.0[0])
    }

    /// FIST: no denormal is told.
    fn integer(&mut self, a: Operand, bits: u32) -> (u16, u64) {
        let mask = u64::MAX >> (64 - bits);
        let least = 1u64 << (bits - 1);
        let value = match self.whole(a, if a.sign { least } else { least - 1 }) {
            None => least,
            Some(magnitude) if a.sign => magnitude.wrapping_neg(),
            Some(magnitude) => magnitude,
        };
        (0, value & mask)
    }

    /// FBSTP.
    fn decimal(&mut self, a: Operand) -> (u16, u64) {
        let Some(mut rest) = self.whole(a, 999_999_999_999_999_999) else {
            return (0xffff, 0xc000_0000_0000_0000);
        };
        let mut digits = [0u8; 10];
        for n in 0..18 {
            digits[n / 2] |= ((rest % 10) as u8) << (4 * (n % 2));
            rest /= 10;
        }
        digits[9] = u8::from(a.sign) << 7;
        let mut low = [0; 8];
        low.copy_from_slice(&digits[..8]);
        (u16::from_le_bytes([digits[8], digits[9]]), u64::from_le_bytes(low))
    }

    /// FCOM: 0 less, 1 equal, 2 greater, 3 unordered.
    fn compare(&mut self, a: Operand, b: Operand) -> (u16, u64) {
        if self.no_number(&[a, b]).is_some() {
            self.flags |= IE;
            return (0, 3);
        }
        self.note_denormals(&[a, b]);
        let value = |o: Operand| {
            let length = 64 - i64::from(o.significand.leading_zeros());
            match o.kind {
                Kind::Zero => (i64::MIN, 0),
                Kind::Infinity => (i64::MAX, 0),
                _ => (o.power + length, o.significand << o.significand.leading_zeros()),
            }
        };
        let magnitude = value(a).cmp(&value(b));
        let order = match (a.kind, b.kind) {
            (Kind::Zero, Kind::Zero) => Ordering::Equal,
            _ if a.sign != b.sign => {
                if a.sign {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            _ if a.sign => magnitude.reverse(),
            _ => magnitude,
        };
        (0, (order as i8 + 1) as u64)
    }
}
