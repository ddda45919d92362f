//! RFLAGS bits (SDM vol. 1, 3.4.3) and the lazy form in which executors may hold the status flags within a block.

use serde::{Deserialize, Serialize};

#[expect(missing_docs, reason = "the names are the manual's")]
mod bits {
    pub const CF: u64 = 1 << 0;
    pub const PF: u64 = 1 << 2;
    pub const AF: u64 = 1 << 4;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const OF: u64 = 1 << 11;
    pub const IOPL: u64 = 3 << 12;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const VIF: u64 = 1 << 19;
    pub const VIP: u64 = 1 << 20;
    pub const ID: u64 = 1 << 21;
}
pub use bits::*;
/// The bit that always reads as one.
pub const FIXED: u64 = 1 << 1;
/// The six status flags.
pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// The operation behind lazily held flags. The flags follow from (operation, result, source, width).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum LazyOp {
    /// The status flags in `rflags` are current.
    #[default]
    None,
    /// result = a + source.
    Add,
    /// result = a + source + 1 (ADC with carry in).
    Adc1,
    /// result = a − source (SUB, CMP, NEG with a = 0).
    Sub,
    /// result = a − source − 1 (SBB with borrow in).
    Sbb1,
    /// AND, OR, XOR, TEST: CF = OF = AF = 0.
    Logic,
    /// result = a + 1; source holds the older CF.
    Inc,
    /// result = a − 1; source holds the older CF.
    Dec,
}

/// Lazily held status flags. Values are masked to `width` bytes.
#[derive(Copy, Clone, Debug, Default)]
#[repr(C)]
pub struct Lazy {
    /// The result of the last operation that set flags.
    pub result: u64,
    /// Its source operand (or the older CF for INC and DEC).
    pub source: u64,
    /// The operation.
    pub op: LazyOp,
    /// log2 of the operand width in bytes, 0–3.
    pub width_log2: u8,
}

impl Lazy {
    /// Nothing is held.
    pub const NONE: Lazy = Lazy { result: 0, source: 0, op: LazyOp::None, width_log2: 0 };

    const fn mask(self) -> u64 {
        u64::MAX >> (64 - (8 << self.width_log2))
    }
    const fn sign_bit(self) -> u64 {
        1 << ((8 << self.width_log2) - 1)
    }
    /// The first operand, masked to the width.
    const fn first(self) -> u64 {
        let (r, s) = (self.result, self.source);
        (match self.op {
            LazyOp::Add => r.wrapping_sub(s),
            LazyOp::Adc1 => r.wrapping_sub(s).wrapping_sub(1),
            LazyOp::Sub => r.wrapping_add(s),
            LazyOp::Sbb1 => r.wrapping_add(s).wrapping_add(1),
            LazyOp::Inc => r.wrapping_sub(1),
            LazyOp::Dec => r.wrapping_add(1),
            LazyOp::Logic | LazyOp::None => r,
        }) & self.mask()
    }
    /// CF. `self.op` must not be `None`.
    #[inline]
    pub const fn carry(self) -> bool {
        match self.op {
            LazyOp::None | LazyOp::Logic => false,
            LazyOp::Add => self.result < self.source,
            LazyOp::Adc1 => self.result <= self.source,
            LazyOp::Sub => self.first() < self.source,
            LazyOp::Sbb1 => self.first() <= self.source,
            LazyOp::Inc | LazyOp::Dec => self.source != 0,
        }
    }
    /// OF. `self.op` must not be `None`.
    #[inline]
    pub const fn overflow(self) -> bool {
        let (a, r, s) = (self.first(), self.result, self.source);
        let sign = match self.op {
            LazyOp::None | LazyOp::Logic => 0,
            LazyOp::Add | LazyOp::Adc1 => (a ^ r) & (s ^ r),
            LazyOp::Sub | LazyOp::Sbb1 => (a ^ s) & (a ^ r),
            LazyOp::Inc => !a & r,
            LazyOp::Dec => a & !r,
        };
        sign & self.sign_bit() != 0
    }
    /// ZF.
    #[inline]
    pub const fn zero(self) -> bool {
        self.result == 0
    }
    /// SF.
    #[inline]
    pub const fn sign(self) -> bool {
        self.result & self.sign_bit() != 0
    }
    /// PF.
    #[inline]
    pub const fn parity(self) -> bool {
        (self.result as u8).count_ones().is_multiple_of(2)
    }
    /// AF.
    pub const fn adjust(self) -> bool {
        let (a, r, s) = (self.first(), self.result, self.source);
        let carries = match self.op {
            LazyOp::None | LazyOp::Logic => 0,
            LazyOp::Add | LazyOp::Adc1 | LazyOp::Sub | LazyOp::Sbb1 => a ^ r ^ s,
            LazyOp::Inc | LazyOp::Dec => a ^ r ^ 1,
        };
        carries & 0x10 != 0
    }
    /// All six status flags as RFLAGS bits. `self.op` must not be `None`.
    pub const fn status(self) -> u64 {
        (self.carry() as u64)
            | (self.parity() as u64) << 2
            | (self.adjust() as u64) << 4
            | (self.zero() as u64) << 6
            | (self.sign() as u64) << 7
            | (self.overflow() as u64) << 11
    }
}
