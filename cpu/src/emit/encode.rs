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

/// The parts of an instruction other than its operands: few enough bytes to be passed in registers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// LOCK.
    pub lock: bool,
    /// Mandatory or operand-size prefix: 0, 66h, F2h, F3h.
    pub prefix: u8,
    /// Opcode map.
    pub map: Map,
    /// Opcode.
    pub opcode: u8,
    /// REX.W or VEX.W.
    pub wide: bool,
    /// Registers are bytes: SIL and its like need a REX prefix.
    pub bytes: bool,
    /// VEX encoding: (second source, 256 bits).
    pub vex: Option<(u8, bool)>,
    /// The immediate's size in bytes, up to four.
    pub imm_bytes: u8,
    /// The immediate.
    pub imm: i32,
}

impl Form {
    /// An opcode with no prefixes.
    pub const fn new(map: Map, opcode: u8) -> Form {
        Form { lock: false, prefix: 0, map, opcode, wide: false, bytes: false, vex: None, imm_bytes: 0, imm: 0 }
    }
    /// An integer instruction of an operand width, given the opcode of its word form; the byte form is one less.
    pub const fn sized(map: Map, opcode: u8, width: Width) -> Form {
        let form = Form::new(map, opcode);
        match width {
            Width::B1 => Form { opcode: opcode - 1, bytes: true, ..form },
            Width::B2 => Form { prefix: 0x66, ..form },
            Width::B4 => form,
            Width::B8 => Form { wide: true, ..form },
        }
    }
    /// The same without a byte form.
    pub const fn word(map: Map, opcode: u8, width: Width) -> Form {
        let form = Form::new(map, opcode);
        match width {
            Width::B1 | Width::B2 => Form { prefix: 0x66, ..form },
            Width::B4 => form,
            Width::B8 => Form { wide: true, ..form },
        }
    }
    /// With an immediate.
    pub const fn with(self, imm: i64, bytes: u8) -> Form {
        Form { imm: imm as i32, imm_bytes: bytes, ..self }
    }
    /// Whether the instruction may change a register or the slot that it is a copy of: it names the one, or memory where the
    /// other lies.
    pub fn may_change(self, reg: u8, rm: Rm, (copy, slot): (Reg, i32)) -> bool {
        let bytes = if self.vex.is_some() { 32 } else { 8 };
        let named = |r: Reg| r == copy;
        named(reg)
            || self.vex.is_some_and(|(second, _)| named(second))
            || match rm {
                Rm::R(r) => named(r),
                Rm::Base(CPU, at) => at < slot + 8 && slot < at + bytes,
                Rm::Base(..) | Rm::Absolute(_) => false,
                Rm::Pair(base, index) | Rm::Full { base, index, .. } => base == CPU || index == CPU,
                Rm::Scaled { index, .. } => index == CPU,
            }
    }
    /// With LOCK.
    pub const fn locked(self, lock: bool) -> Form {
        Form { lock, ..self }
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

/// Instructions that are made once and copied since.
#[derive(Clone, Debug)]
pub struct Fixed {
    bytes: [u8; ROOM],
    len: usize,
}

impl Fixed {
    /// These bytes, as far as there is room for them.
    pub fn of(code: &[u8]) -> Fixed {
        let (mut bytes, len) = ([0; ROOM], code.len().min(ROOM));
        bytes[..len].copy_from_slice(&code[..len]);
        Fixed { bytes, len }
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
        self.end().number(word);
        self.len += count;
    }
    /// Appends what was made before.
    #[inline]
    pub fn fixed(&mut self, fixed: &Fixed) {
        *self.end().room = fixed.bytes;
        self.len += fixed.len;
    }
    /// Where the next instruction goes.
    #[inline]
    fn end(&mut self) -> End<'_> {
        if self.bytes.len() < self.len + ROOM {
            self.grow();
        }
        let room = self.bytes[self.len..].first_chunk_mut().expect("there is room");
        End { room, at: 0 }
    }

    #[cold]
    fn grow(&mut self) {
        self.bytes.resize(2 * self.len + 64 * ROOM, 0);
    }

    /// Appends an instruction with a register operand (or opcode extension) and a register or memory operand.
    pub fn instruction(&mut self, form: Form, reg: u8, rm: Rm) {
        let (base, index) = match rm {
            Rm::R(r) | Rm::Base(r, _) => (r, 0),
            Rm::Pair(base, index) | Rm::Full { base, index, .. } => (base, index),
            Rm::Scaled { index, .. } => (0, index),
            Rm::Absolute(_) => (0, 0),
        };
        let mut end = self.end();
        // The high bits of the registers, as REX has them.
        let high = reg >> 3 << 2 | index >> 3 << 1 | base >> 3;
        match form.vex {
            Some((second, long)) => end.vex(form, high, second, long),
            None => end.legacy(form, high, form.bytes && (reg >= 4 || matches!(rm, Rm::R(4..)))),
        }
        end.byte(form.opcode);
        end.operands(reg & 7, rm);
        end.number(u64::from(form.imm as u32));
        self.len += end.at + usize::from(form.imm_bytes);
    }
}

/// The instruction that is being written.
struct End<'a> {
    room: &'a mut [u8; ROOM],
    at: usize,
}

impl End<'_> {
    /// Up to eight bytes, the lowest first; `at` is the caller's to move.
    #[inline]
    fn number(&mut self, number: u64) {
        let at = self.at % 16;
        self.room[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    #[inline]
    fn byte(&mut self, byte: u8) {
        self.byte_if(true, byte);
    }
    #[inline]
    fn byte_if(&mut self, there: bool, byte: u8) {
        self.room[self.at % 16] = byte;
        self.at += usize::from(there);
    }

    /// What stands before the opcode.
    #[inline]
    fn legacy(&mut self, form: Form, high: u8, low_byte: bool) {
        self.byte_if(form.lock, 0xf0);
        self.byte_if(form.prefix != 0, form.prefix);
        let rex = u8::from(form.wide) << 3 | high;
        self.byte_if(rex != 0 || low_byte, 0x40 | rex);
        self.byte_if(form.map != Map::One, 0x0f);
        self.byte_if(form.map == Map::M0f38, 0x38);
        self.byte_if(form.map == Map::M0f3a, 0x3a);
    }
    /// The same with VEX, in its three-byte form.
    #[inline]
    fn vex(&mut self, form: Form, high: u8, second: u8, long: bool) {
        let map = match form.map {
            Map::M0f38 => 2,
            Map::M0f3a => 3,
            _ => 1,
        };
        let pp = match form.prefix {
            0x66 => 1,
            0xf3 => 2,
            0xf2 => 3,
            _ => 0,
        };
        self.byte(0xc4);
        self.byte((!high & 7) << 5 | map);
        self.byte(u8::from(form.wide) << 7 | (!second & 15) << 3 | u8::from(long) << 2 | pp);
    }
    /// ModRM and, if they are there, SIB and displacement.
    #[inline]
    fn operands(&mut self, reg: u8, rm: Rm) {
        let reg = reg << 3;
        // The mod field that goes with a displacement: without one, RBP and R13 would be something else.
        let mode = |base: Reg, disp: i32| match disp {
            0 if base & 7 != 5 => 0,
            _ if disp == i32::from(disp as i8) => 0x40,
            _ => 0x80,
        };
        let (mode, disp) = match rm {
            Rm::R(r) => return self.byte(0xc0 | reg | r & 7),
            Rm::Base(base, disp) => {
                let mode = mode(base, disp);
                self.byte(mode | reg | base & 7);
                self.byte_if(base & 7 == 4, 0x24);
                (mode, disp)
            }
            Rm::Pair(base, index) => {
                let mode = mode(base, 0);
                self.sib(mode | reg, base, index, 0);
                (mode, 0)
            }
            Rm::Full { base, index, scale, disp } => {
                let mode = mode(base, disp);
                self.sib(mode | reg, base, index, scale);
                (mode, disp)
            }
            Rm::Scaled { index, scale, disp } => {
                self.sib(reg, 5, index, scale);
                (0x80, disp)
            }
            Rm::Absolute(disp) => {
                self.byte(reg | 4);
                self.byte(0x25);
                (0x80, disp)
            }
        };
        self.number(u64::from(disp as u32));
        self.at += usize::from(mode >> 6) * usize::from(mode >> 6);
    }
    #[inline]
    fn sib(&mut self, mode_and_reg: u8, base: Reg, index: Reg, scale: u8) {
        self.byte(mode_and_reg | 4);
        self.byte(scale << 6 | (index & 7) << 3 | base & 7);
    }
}
