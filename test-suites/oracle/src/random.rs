//! Repeatable random numbers (SplitMix64, Steele, Lea and Flood 2014), and values that arithmetic finds interesting.

/// A generator; the seed is its whole state.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.word()) * n as u128) >> 64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// An integer: small, near a power of two, a mask, or any.
    pub fn integer(&mut self) -> u64 {
        let any = self.word();
        match self.below(8) {
            0 => any % 256,
            1 => (any % 256).wrapping_neg(),
            2 => (1u64 << (any % 64)).wrapping_add(self.word() % 3).wrapping_sub(1),
            3 => u64::MAX >> (any % 64),
            4 => any & 0xffff_ffff,
            5 => any as u32 as i32 as i64 as u64,
            _ => any,
        }
    }

    /// Eight bytes that hold one double or two singles: zeros, denormals, limits, infinities, NaNs, small integers, or any.
    pub fn floats(&mut self) -> u64 {
        if self.once_in(2) { self.double() } else { self.single() << 32 | self.single() }
    }

    fn single(&mut self) -> u64 {
        let any = self.word();
        let sign = any >> 63 << 31;
        let fraction = self.word() & 0x7f_ffff;
        sign | match any % 16 {
            0 => 0,
            1 => fraction,
            2 => 0x7f80_0000,
            3 => 0x7fc0_0000 | fraction,
            4 => 0x7f80_0001 | fraction & 0x3f_ffff,
            5 => 0x7f00_0000 | fraction,
            6 => 0x0080_0000 | fraction,
            7 | 8 => u64::from(((any >> 8) as u8 as f32).to_bits()),
            9 => self.word() & 0x7fff_ffff,
            _ => (110 + any % 35) << 23 | fraction,
        }
    }

    fn double(&mut self) -> u64 {
        let any = self.word();
        let sign = any >> 63 << 63;
        let fraction = self.word() >> 12;
        sign | match any % 16 {
            0 => 0,
            1 => fraction,
            2 => 0x7ff << 52,
            3 => 0x7ff8 << 48 | fraction,
            4 => 0x7ff << 52 | 1 | fraction & ((1 << 51) - 1),
            5 => 0x7fe << 52 | fraction,
            6 => 1 << 52 | fraction,
            7 | 8 => ((any >> 8) as u16 as f64).to_bits(),
            9 => self.word() >> 1,
            10 => f64::from(f32::from_bits(self.single() as u32)).to_bits(),
            _ => (1000 + any % 50) << 52 | fraction,
        }
    }

    /// An 80-bit number as sign and exponent, significand: every class of encoding, exponents that meet, and any.
    pub fn extended(&mut self) -> (u16, u64) {
        let any = self.word();
        let sign = (any >> 48) as u16 & 0x8000;
        let mut significand = match self.below(4) {
            0 => 1 << 63 | self.integer(),
            1 => !(self.word() >> self.below(63)),
            2 => 1 << 63 | self.word() << self.below(63),
            _ => 1 << 63 | self.word(),
        };
        let exponent = match any % 32 {
            0 => return (sign, 0),
            1 => return (sign | 0x7fff, 1 << 63),
            2 => return (sign | 0x7fff, significand | 1 << 62),
            3 => return (sign | 0x7fff, significand & !(1 << 62) | 1),
            4 => {
                significand = self.word() >> (1 + self.below(63));
                0
            }
            5 => 0,
            6 => {
                significand &= !(1 << 63);
                self.of(&[1, 0x3fff, 0x7ffe, 0x7fff])
            }
            7 => 1 + self.below(80) as u16,
            8 => 0x7ffe - self.below(80) as u16,
            9 => self.word() as u16 & 0x7fff,
            10 => 0x3fff - 1022 - self.below(60) as u16,
            11 => 0x3fff + 1023 - self.below(3) as u16,
            12 => 0x3fff - 126 - self.below(30) as u16,
            13 => 0x3fff + 127 - self.below(3) as u16,
            _ => 0x3fff - 66 + self.below(140) as u16,
        };
        (sign | exponent, significand)
    }
}
