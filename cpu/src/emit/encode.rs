//! The regular part of x86-64 encoding (SDM vol. 2, chapter 2): one way to write an instruction with a register and a register or
//! memory operand.

use super::registers::CPU;
use crate::uop::Width;

/// A host general register.
pub type Reg = u8;

/// A register or memory operand: as many bytes as are passed in a register.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Rm {
    /// A register.
    R(Reg),
    /// \[base + disp\].
    Base(Reg, i32),
    /// \[base + index\].
    Pair(Reg, Reg),
    /// \[base + (index << scale) + disp\].
    Full { base: Reg, index: Reg, scale: u8, disp: i32 },
    /// \[(index << scale) + disp\].
    Scaled { index: Reg, scale: u8, disp: i32 },
    /// A number in the code.
    Absolute(i32),
}

impl Rm {
    /// A field of the vCPU.
    pub const fn cpu(offset: usize) -> Rm {
        Rm::Base(CPU, offset as i32)
    }
}

/// Opcode maps.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Map {
    /// One-byte opcodes.
    One,
    /// 0F.
    M0f,
    /// 0F 38.
    M0f38,
    /// 0F 3A.
    M0f3a,
}

/// The parts of an instruction other than its operands: two words, which are passed in registers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Escapes and opcode, or VEX and opcode, the first byte lowest; without REX and what stands before it.
    head: u64,
    /// From the lowest byte: the immediate (four bytes); its size; the bytes of `head`; flags ([`flag`]); the prefix.
    rest: u64,
}

/// What a form may have.
mod flag {
    /// A mandatory or operand-size prefix.
    pub const PREFIX: u8 = 1;
    pub const LOCK: u8 = 2;
    /// Registers are bytes: SIL and its like need a REX prefix.
    pub const BYTES: u8 = 4;
    /// REX.W or VEX.W, where REX has it.
    pub const WIDE: u8 = 8;
    pub const VEX: u8 = 16;
}

impl Form {
    /// An opcode with no prefixes.
    pub const fn new(map: Map, opcode: u8) -> Form {
        let (escapes, len) = match map {
            Map::One => (0, 0),
            Map::M0f => (0x0f, 1),
            Map::M0f38 => (0x380f, 2),
            Map::M0f3a => (0x3a0f, 2),
        };
        Form { head: escapes | (opcode as u64) << (8 * len), rest: (len + 1) << 40 }
    }
    const fn byte(self, number: u32) -> u8 {
        (self.rest >> (8 * number)) as u8
    }
    const fn with_byte(self, number: u32, byte: u8) -> Form {
        let at = 8 * number;
        Form { rest: self.rest & !(0xff << at) | (byte as u64) << at, ..self }
    }
    const fn imm_bytes(self) -> usize {
        self.byte(4) as usize
    }
    const fn head_bytes(self) -> usize {
        self.byte(5) as usize
    }
    const fn flags(self) -> u8 {
        self.byte(6)
    }
    const fn has(self, flag: u8) -> bool {
        self.flags() & flag != 0
    }
    const fn flag(self, flag: u8, there: bool) -> Form {
        self.with_byte(6, self.flags() & !flag | if there { flag } else { 0 })
    }
    /// With REX.W or VEX.W.
    pub const fn wide(self, wide: bool) -> Form {
        self.flag(flag::WIDE, wide)
    }
    /// With registers that are bytes.
    pub const fn bytes(self, bytes: bool) -> Form {
        self.flag(flag::BYTES, bytes)
    }
    /// With LOCK.
    pub const fn locked(self, lock: bool) -> Form {
        self.flag(flag::LOCK, lock)
    }
    /// Whether it has LOCK.
    pub const fn is_locked(self) -> bool {
        self.has(flag::LOCK)
    }
    /// With a mandatory or operand-size prefix: 0 (none), 66h, F2h, F3h.
    pub const fn prefix(self, prefix: u8) -> Form {
        self.flag(flag::PREFIX, prefix != 0).with_byte(7, prefix)
    }
    /// In VEX encoding, of three bytes, once it has its prefix: the second source, and whether of 256 bits.
    pub const fn vex(self, second: Reg, long: bool) -> Form {
        let map = match self.head as u16 {
            0x380f => 2,
            0x3a0f => 3,
            _ => 1,
        };
        let pp = match self.byte(7) {
            0x66 => 1,
            0xf3 => 2,
            0xf2 => 3,
            _ => 0,
        };
        let opcode = (self.head >> (8 * (self.head_bytes() - 1))) as u8;
        let then = (!second & 15) << 3 | (long as u8) << 2 | pp;
        let head = u32::from_le_bytes([0xc4, 0xe0 | map, then, opcode]) as u64;
        Form { head, ..self }.with_byte(5, 4).flag(flag::PREFIX, false).flag(flag::VEX, true)
    }
    /// The second source of VEX.
    const fn second(self) -> Option<Reg> {
        if self.has(flag::VEX) { Some(!(self.head >> 19) as u8 & 15) } else { None }
    }
    /// With an immediate of up to four bytes.
    pub const fn with(self, imm: i64, bytes: u8) -> Form {
        Form { rest: self.rest & !0xffff_ffff | imm as u32 as u64, ..self }.with_byte(4, bytes)
    }
    /// An integer instruction of an operand width, given the opcode of its word form; the byte form is one less.
    pub const fn sized(map: Map, opcode: u8, width: Width) -> Form {
        match width {
            Width::B1 => Form::new(map, opcode - 1).bytes(true),
            _ => Form::word(map, opcode, width),
        }
    }
    /// The same without a byte form.
    pub const fn word(map: Map, opcode: u8, width: Width) -> Form {
        let form = Form::new(map, opcode);
        match width {
            Width::B1 | Width::B2 => form.prefix(0x66),
            Width::B4 => form,
            Width::B8 => form.wide(true),
        }
    }
    /// Whether the instruction may change a register or the slot that it is a copy of: it names the one, or memory where the
    /// other lies.
    pub fn may_change(self, reg: u8, rm: Rm, (copy, slot): (Reg, i32)) -> bool {
        let bytes = if self.has(flag::VEX) { 32 } else { 8 };
        let named = |r: Reg| r == copy;
        named(reg)
            || self.second().is_some_and(named)
            || match rm {
                Rm::R(r) => named(r),
                Rm::Base(CPU, at) => at < slot + 8 && slot < at + bytes,
                Rm::Base(..) | Rm::Absolute(_) => false,
                Rm::Pair(base, index) | Rm::Full { base, index, .. } => base == CPU || index == CPU,
                Rm::Scaled { index, .. } => index == CPU,
            }
    }
}

/// Bytes of code, with room for one more instruction behind them: what encodes writes whole words there and counts those that
/// are meant, which is quicker than to append as many as there are.
#[derive(Debug, Default)]
pub struct Code {
    /// As far as `len` the code, then room.
    bytes: Vec<u8>,
    len: usize,
}

/// Bytes behind the code that may be written: more than an instruction has.
const ROOM: usize = 64;

/// Instructions that are made once and copied since, but for an immediate and the displacement of a jump.
#[derive(Clone, Debug)]
pub struct Fixed {
    bytes: [u8; ROOM],
    len: usize,
    /// Where the immediate is.
    imm: usize,
    /// Where the displacement is.
    pub displacement: usize,
}

impl Fixed {
    /// These bytes, as far as there is room for them, with what is changed at these offsets.
    pub fn of(code: &[u8], imm: usize, displacement: usize) -> Fixed {
        let (mut bytes, len) = ([0; ROOM], code.len().min(ROOM));
        bytes[..len].copy_from_slice(&code[..len]);
        Fixed { bytes, len, imm, displacement }
    }
}

impl Code {
    /// Forgets the code.
    pub fn clear(&mut self) {
        self.len = 0;
    }
    /// How long it is.
    pub fn len(&self) -> usize {
        self.len
    }
    /// The code.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
    /// Four bytes of it.
    pub fn get(&self, at: usize) -> u32 {
        self.bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
    /// Changes four bytes of it.
    pub fn set(&mut self, at: usize, number: u32) {
        self.bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }
    /// Appends bytes as they are.
    pub fn append(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.put(u64::from(*byte), 1));
    }
    /// Appends up to eight bytes, the lowest first.
    #[inline]
    pub fn put(&mut self, word: u64, count: usize) {
        self.append_words([(0, word)], count);
    }
    /// Appends what was made before, with these numbers in it.
    #[inline]
    pub fn fixed(&mut self, fixed: &Fixed, imm: u32, displacement: u32) {
        if self.bytes.len() < self.len + ROOM {
            self.grow();
        }
        let room = &mut self.bytes[self.len..self.len + ROOM];
        room.copy_from_slice(&fixed.bytes);
        for (at, number) in [(fixed.imm, imm), (fixed.displacement, displacement)] {
            room[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        self.len += fixed.len;
    }

    #[cold]
    fn grow(&mut self) {
        self.bytes.resize(2 * self.len + 64 * ROOM, 0);
    }

    /// Appends an instruction with a register operand (or opcode extension) and a register or memory operand.
    #[inline]
    pub fn instruction(&mut self, form: Form, reg: u8, rm: Rm) {
        let operand = rm.encoded();
        // The high bits of the registers, as REX has them.
        let high = reg >> 3 << 2 | operand.high;
        let (head, before) = form.head(high, reg, rm);
        // Each word is written over what the one before has too many.
        let words = [(0, head), (before, operand.bytes | u64::from(reg & 7) << 3), (before + operand.len, form.rest)];
        self.append_words(words, before + operand.len + form.imm_bytes());
    }
    #[inline(always)]
    fn append_words<const N: usize>(&mut self, words: [(usize, u64); N], len: usize) {
        let room = self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut::<ROOM>);
        let Some(room) = room else {
            self.grow();
            return self.append_words_again(words, len);
        };
        for (at, word) in words {
            let at = at % 16;
            room[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        self.len += len;
    }
    #[cold]
    #[inline(never)]
    fn append_words_again<const N: usize>(&mut self, words: [(usize, u64); N], len: usize) {
        self.append_words(words, len);
    }
}

/// What a register or memory operand is in the code: ModRM but for its reg field, then, if they are there, SIB and displacement.
struct Operand {
    /// The first one lowest; what is above `len` of them means nothing.
    bytes: u64,
    len: usize,
    /// The high bits of its registers, as REX has them.
    high: u8,
}

impl Rm {
    #[inline(always)]
    fn encoded(self) -> Operand {
        match self {
            Rm::R(r) => Operand { bytes: u64::from(0xc0 | r & 7), len: 1, high: r >> 3 },
            // RSP and R12 have a SIB byte, and no index: that is 4.
            Rm::Base(base, disp) if base & 7 == 4 => with_sib(mode(base, disp), base, 4, 0, disp),
            Rm::Base(base, disp) => {
                let (mode, size) = mode(base, disp);
                let bytes = u64::from(mode | base & 7) | u64::from(disp as u32) << 8;
                Operand { bytes, len: 1 + size, high: base >> 3 }
            }
            Rm::Pair(base, index) => with_sib(mode(base, 0), base, index, 0, 0),
            Rm::Full { base, index, scale, disp } => with_sib(mode(base, disp), base, index, scale, disp),
            Rm::Scaled { index, scale, disp } => with_sib((0, 4), 5, index, scale, disp),
            Rm::Absolute(disp) => Operand { bytes: 0x2504 | u64::from(disp as u32) << 16, len: 6, high: 0 },
        }
    }
}

/// The mod field that goes with a displacement, and the displacement's size: without one, RBP and R13 would be something else.
#[inline(always)]
fn mode(base: Reg, disp: i32) -> (u8, usize) {
    match disp {
        0 if base & 7 != 5 => (0, 0),
        _ if disp == i32::from(disp as i8) => (0x40, 1),
        _ => (0x80, 4),
    }
}

#[inline(always)]
fn with_sib((mode, size): (u8, usize), base: Reg, index: Reg, scale: u8, disp: i32) -> Operand {
    let sib = scale << 6 | (index & 7) << 3 | base & 7;
    let bytes = u64::from(mode | 4) | u64::from(sib) << 8 | u64::from(disp as u32) << 16;
    Operand { bytes, len: 2 + size, high: index >> 3 << 1 | base >> 3 }
}

impl Form {
    /// What stands before the operands, the first byte lowest, and how many bytes that is; `high` are the high bits of the
    /// registers, as REX has them.
    #[inline(always)]
    fn head(self, high: u8, reg: u8, rm: Rm) -> (u64, usize) {
        let rex = self.flags() & flag::WIDE | high;
        if self.has(flag::VEX) {
            return (self.head ^ u64::from(high) << 13 | u64::from(self.flags() & flag::WIDE) << 20, 4);
        }
        let (mut head, mut len) = (self.head, self.head_bytes());
        let low_byte = || self.has(flag::BYTES) && (reg >= 4 || matches!(rm, Rm::R(4..)));
        if rex != 0 || low_byte() {
            (head, len) = (head << 8 | u64::from(0x40 | rex), len + 1);
        }
        if self.flags() & (flag::PREFIX | flag::LOCK) != 0 {
            if self.has(flag::PREFIX) {
                (head, len) = (head << 8 | u64::from(self.byte(7)), len + 1);
            }
            if self.is_locked() {
                (head, len) = (head << 8 | 0xf0, len + 1);
            }
        }
        (head, len)
    }
}
