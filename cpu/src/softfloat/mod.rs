//! Portable floating-point arithmetic with x86 semantics.
//!
//! Models the number formats, rounding, NaN rules and exception flags of Intel SDM vol. 1 chapters 4
//! (data types), 8 (x87) and 11 (SSE), in integer arithmetic. [`F16`], [`F32`] and [`F64`] follow the
//! SSE rules (the first NaN operand wins, DAZ and FTZ exist); [`F80`] follows the x87 rules (the larger
//! significand wins, precision control, a wrapped exponent under unmasked overflow or underflow).
//!
//! An [`Env`] is made for one instruction from MXCSR or the x87 control word. Operations return the
//! masked response and collect flags in it; at the end the caller reads [`Env::status`] and
//! [`Env::unmasked`] to learn what to record and whether to write the result at all.
//!
//! Left out: RCP and RSQRT approximations, MXCSR and the x87 stack themselves. Called by the portable
//! vector forms and by the x87 helpers.

mod arithmetic;
mod compare;
mod convert;
mod f80;
mod f80_arithmetic;
mod f80_convert;
mod f80_remainder;
mod format;
mod real;
mod transcendental;

pub use arithmetic::{add, div, fma, mul, sqrt, sub};
pub use compare::{compare, max, min};
pub use convert::{
    convert, from_i32, from_i64, from_u32, from_u64, half_to_single, round_to_integer, single_to_half, to_i32, to_i64,
    to_u32, to_u64,
};
pub use f80::{Class, F80};
pub use f80_remainder::{Quotient, Remainder};
pub use format::{F16, F32, F64, Format};
pub use transcendental::{Function, unrounded};

/// The rounding modes, encoded as in MXCSR.RC, the x87 RC field and the low bits of ROUNDPS's immediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    /// Toward minus infinity.
    Down,
    /// Toward plus infinity.
    Up,
    /// Toward zero.
    Zero,
}

impl Rounding {
    /// The mode that the two-bit field `rc` selects; higher bits are ignored.
    pub const fn from_field(rc: u32) -> Self {
        match rc & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::Zero,
        }
    }

    /// Whether a magnitude with this parity and discarded part is rounded away from zero.
    #[inline]
    fn increments(self, sign: bool, odd: bool, discarded: Discarded) -> bool {
        match self {
            Self::Nearest => discarded == Discarded::AboveHalf || (discarded == Discarded::Half && odd),
            Self::Down => sign && discarded != Discarded::Nothing,
            Self::Up => !sign && discarded != Discarded::Nothing,
            Self::Zero => false,
        }
    }

    /// Whether an overflow of this sign becomes infinity instead of the largest finite number.
    fn overflows_to_infinity(self, sign: bool) -> bool {
        match self {
            Self::Nearest => true,
            Self::Down => sign,
            Self::Up => !sign,
            Self::Zero => false,
        }
    }
}

/// What lies below the last bit that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Discarded {
    Nothing,
    BelowHalf,
    Half,
    AboveHalf,
}

impl Discarded {
    /// Classifies the low `bits` (1..=127) bits of `value`.
    #[inline]
    fn of(value: u128, bits: u32) -> Self {
        let rest = value & ((1 << bits) - 1);
        let half = 1u128 << (bits - 1);
        match rest.cmp(&half) {
            _ if rest == 0 => Self::Nothing,
            std::cmp::Ordering::Less => Self::BelowHalf,
            std::cmp::Ordering::Equal => Self::Half,
            std::cmp::Ordering::Greater => Self::AboveHalf,
        }
    }
}

/// Significand length of x87 results (the PC field, SDM vol. 1 8.1.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 24 bits.
    Single,
    /// 53 bits.
    Double,
    /// 64 bits.
    Extended,
}

impl Precision {
    /// The precision that the two-bit PC field selects; the reserved value 1 acts as extended.
    pub const fn from_field(pc: u32) -> Self {
        match pc & 3 {
            0 => Self::Single,
            2 => Self::Double,
            _ => Self::Extended,
        }
    }

    const fn bits(self) -> u32 {
        match self {
            Self::Single => 24,
            Self::Double => 53,
            Self::Extended => 64,
        }
    }
}

/// A set of floating-point exceptions, with the bit positions of MXCSR and the x87 status word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No exception.
    pub const NONE: Self = Self(0);
    /// IE: invalid operation.
    pub const INVALID: Self = Self(0x01);
    /// DE: denormal operand.
    pub const DENORMAL: Self = Self(0x02);
    /// ZE: division of a finite number by zero.
    pub const ZERO_DIVIDE: Self = Self(0x04);
    /// OE: overflow.
    pub const OVERFLOW: Self = Self(0x08);
    /// UE: underflow.
    pub const UNDERFLOW: Self = Self(0x10);
    /// PE: inexact result.
    pub const PRECISION: Self = Self(0x20);
    /// The exceptions found before the operation is computed; unmasked, they leave no result.
    pub const BEFORE: Self = Self(0x07);
    /// Every exception.
    pub const ALL: Self = Self(0x3f);

    /// Whether any exception of `other` is in this set.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The exceptions in either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The exceptions of this set that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Control and status of the arithmetic of one instruction.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    /// Rounding mode.
    pub rounding: Rounding,
    /// Significand length of F80 add, subtract, multiply, divide and square root.
    pub precision: Precision,
    /// Masked exceptions: they get the default response.
    pub masked: Flags,
    /// MXCSR.FTZ: a tiny result becomes zero while underflow is masked. Not used by F80.
    pub flush_to_zero: bool,
    /// MXCSR.DAZ: a denormal operand counts as zero. Not used by F80.
    pub denormals_are_zero: bool,
    /// Exceptions found since this `Env` was made.
    pub flags: Flags,
    /// Whether the last rounding increased the magnitude (C1 of the x87 status word).
    pub rounded_up: bool,
    /// PE is masked and already set in the guest's register, so that finding it again may be skipped.
    pub inexact_known: bool,
    /// An operand was a denormal in its memory format, though its F80 form is normal.
    denormal_operand: bool,
}

impl Env {
    /// The environment of an SSE or AVX instruction.
    pub const fn sse(mxcsr: u32) -> Self {
        Self {
            rounding: Rounding::from_field(mxcsr >> 13),
            precision: Precision::Extended,
            masked: Flags((mxcsr >> 7) as u8 & Flags::ALL.0),
            flush_to_zero: mxcsr & 0x8000 != 0,
            denormals_are_zero: mxcsr & 0x40 != 0,
            flags: Flags::NONE,
            rounded_up: false,
            inexact_known: mxcsr & 0x1020 == 0x1020,
            denormal_operand: false,
        }
    }

    /// The environment of an x87 instruction under control word `control`.
    pub const fn x87(control: u16) -> Self {
        Self {
            rounding: Rounding::from_field(control as u32 >> 10),
            precision: Precision::from_field(control as u32 >> 8),
            masked: Flags(control as u8 & Flags::ALL.0),
            flush_to_zero: false,
            denormals_are_zero: false,
            flags: Flags::NONE,
            rounded_up: false,
            inexact_known: false,
            denormal_operand: false,
        }
    }

    /// This environment with another rounding mode (embedded rounding, truncating conversions).
    #[must_use]
    pub const fn with_rounding(mut self, rounding: Rounding) -> Self {
        self.rounding = rounding;
        self
    }

    /// Adds `flags` to what was found.
    #[inline]
    pub fn raise(&mut self, flags: Flags) {
        self.flags.0 |= flags.0;
    }

    /// The exceptions to record in MXCSR or the status word. An unmasked exception that is found before
    /// the computation hides those that only the computation could find (SDM vol. 1 4.9.2, 11.5.3).
    pub const fn status(&self) -> Flags {
        if self.flags.without(self.masked).has(Flags::BEFORE) {
            Flags(self.flags.0 & Flags::BEFORE.0)
        } else {
            self.flags
        }
    }

    /// The recorded exceptions that are not masked: if any, the instruction faults.
    pub const fn unmasked(&self) -> Flags {
        self.status().without(self.masked)
    }

    /// Whether host arithmetic on `f32` and `f64` gives the same result and no flag is lost, as long as
    /// operands and result are normal numbers.
    #[inline]
    const fn allows_native(&self) -> bool {
        self.inexact_known && matches!(self.rounding, Rounding::Nearest)
    }
}

/// How two numbers compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The first is less.
    Less,
    /// They are equal (zeros of either sign are).
    Equal,
    /// The first is greater.
    Greater,
    /// One is a NaN or an unsupported encoding.
    Unordered,
}

/// Which NaNs make a comparison invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Signaling NaNs only (UCOMISS, FUCOM).
    Quiet,
    /// Every NaN (COMISS, FCOM).
    Signaling,
}

/// Shifts right; ones that fall out are kept in the lowest bit.
#[inline]
fn shift_right_jam64(value: u64, count: u32) -> u64 {
    if count == 0 {
        value
    } else if count < 64 {
        value >> count | u64::from(value << (64 - count) != 0)
    } else {
        u64::from(value != 0)
    }
}

/// As [`shift_right_jam64`], for 128 bits.
#[inline]
fn shift_right_jam128(value: u128, count: u32) -> u128 {
    if count == 0 {
        value
    } else if count < 128 {
        value >> count | u128::from(value << (128 - count) != 0)
    } else {
        u128::from(value != 0)
    }
}

#[cfg(test)]
mod tests;
