//! The register stack (SDM vol. 1 8.1.2, 8.1.7): ST(i) is physical register (TOP + i) modulo 8.

use crate::softfloat::{Class, F80};
use crate::state::Fpu;
use crate::state::fpu::St;

const TOP_SHIFT: u32 = 11;

impl Fpu {
    /// TOP: the physical register that ST(0) is.
    pub fn top(&self) -> u8 {
        (self.sw >> TOP_SHIFT & 7) as u8
    }

    /// Sets TOP; higher bits are ignored.
    pub fn set_top(&mut self, top: u8) {
        self.sw = self.sw & !(7 << TOP_SHIFT) | u16::from(top & 7) << TOP_SHIFT;
    }

    fn physical(&self, register: u8) -> usize {
        usize::from(self.top().wrapping_add(register) & 7)
    }

    /// Whether ST(`register`) is tagged empty.
    pub fn is_empty(&self, register: u8) -> bool {
        self.tags >> self.physical(register) & 1 == 0
    }

    /// The contents of ST(`register`), unless it is empty.
    pub fn get(&self, register: u8) -> Option<F80> {
        (!self.is_empty(register)).then(|| self.read(register))
    }

    /// The contents of ST(`register`), empty or not.
    pub fn read(&self, register: u8) -> F80 {
        let st = self.regs[self.physical(register)];
        F80::new(st.sign_exponent, st.significand)
    }

    /// Writes ST(`register`); it is no longer empty.
    pub fn set(&mut self, register: u8, value: F80) {
        let physical = self.physical(register);
        self.regs[physical] = St { significand: value.significand, sign_exponent: value.sign_exponent };
        self.tags |= 1 << physical;
    }

    /// Tags ST(`register`) empty.
    pub fn free(&mut self, register: u8) {
        self.tags &= !(1 << self.physical(register));
    }

    /// Pushes a value.
    pub fn push(&mut self, value: F80) {
        self.set_top(self.top().wrapping_sub(1));
        self.set(0, value);
    }

    /// Pops `count` values.
    pub fn pop(&mut self, count: u8) {
        for _ in 0..count {
            self.free(0);
            self.set_top(self.top() + 1);
        }
    }

    /// Whether a push would find a register in use.
    pub fn is_full(&self) -> bool {
        !self.is_empty(7)
    }

    /// FNINIT: everything but the contents of the registers (SDM vol. 1 8.1.5 to 8.1.8).
    pub fn initialize(&mut self) {
        let regs = self.regs;
        *self = Fpu { regs, cw: 0x37f, sw: 0, tags: 0, fop: 0, fip: 0, fcs: 0, fdp: 0, fds: 0 };
    }

    /// The full tag word, two bits a physical register: 0 valid, 1 zero, 2 special, 3 empty.
    pub fn tag_word(&self) -> u16 {
        let tag = |physical: usize| {
            if self.tags >> physical & 1 == 0 {
                return 3;
            }
            let st = self.regs[physical];
            match F80::new(st.sign_exponent, st.significand).class() {
                Class::Normal => 0,
                Class::Zero => 1,
                _ => 2,
            }
        };
        (0..8).fold(0, |word, physical| word | tag(physical) << (2 * physical))
    }

    /// Takes over a full tag word; only whether a register is empty matters.
    pub fn set_tag_word(&mut self, word: u16) {
        self.tags = (0..8).fold(0, |tags, physical| {
            let empty = word >> (2 * physical) & 3 == 3;
            tags | u8::from(!empty) << physical
        });
    }
}
