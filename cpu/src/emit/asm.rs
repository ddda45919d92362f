//! The regular part of x86-64 encoding (SDM vol. 2, chapter 2): one way to write an instruction with a register and a register or
//! memory operand. Irregular, fixed sequences (entry, gates) are written with `dynasm!` in `gate`, on the same sink.

use super::registers::{CPU, S0, S1, slot_offset};
use crate::state::slots;
use crate::uop::Width;
use dynasmrt::DynasmApi;

/// A host general register.
pub type Reg = u8;

/// A register or memory operand.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Rm {
    /// A register.
    R(Reg),
    /// \[base + disp\].
    Base(Reg, i32),
    /// \[base + index\].
    Pair(Reg, Reg),
    /// \[base + (index << scale) + disp\].
    Full { base: Option<Reg>, index: Reg, scale: u8, disp: i32 },
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

/// The parts of an instruction other than its operands.
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
    /// Immediate and its size in bytes.
    pub imm: Option<(i64, u8)>,
}

impl Form {
    /// An opcode with no prefixes.
    pub const fn new(map: Map, opcode: u8) -> Form {
        Form { lock: false, prefix: 0, map, opcode, wide: false, bytes: false, vex: None, imm: None }
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
        Form { imm: Some((imm, bytes)), ..self }
    }
    /// Whether the instruction may change a register or the slot that it is a copy of: it names the one, or memory where the
    /// other lies.
    fn may_change(self, reg: u8, rm: Rm, (copy, slot): (Reg, i32)) -> bool {
        let bytes = if self.vex.is_some() { 32 } else { 8 };
        let named = |r: Reg| r == copy;
        named(reg)
            || self.vex.is_some_and(|(second, _)| named(second))
            || match rm {
                Rm::R(r) => named(r),
                Rm::Base(CPU, at) => at < slot + 8 && slot < at + bytes,
                Rm::Base(..) | Rm::Absolute(_) => false,
                Rm::Pair(base, index) => base == CPU || index == CPU,
                Rm::Full { base, index, .. } => base == Some(CPU) || index == CPU,
            }
    }
    /// With LOCK.
    pub const fn locked(self, lock: bool) -> Form {
        Form { lock, ..self }
    }
}

/// ADD … CMP: the number in opcodes and ModRM.reg (SDM vol. 2, table A-6, group 1).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the manual's")]
#[repr(u8)]
pub enum Alu {
    Add = 0,
    Or = 1,
    Adc = 2,
    Sbb = 3,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

impl Alu {
    /// `rm op= reg`.
    pub const fn to_rm(self, width: Width) -> Form {
        Form::sized(Map::One, self as u8 * 8 + 1, width)
    }
    /// `reg op= rm`.
    pub const fn with_rm(self, width: Width) -> Form {
        Form::sized(Map::One, self as u8 * 8 + 3, width)
    }
    /// `rm op= imm`, with its ModRM.reg.
    pub const fn imm(self, width: Width, imm: i64) -> (Form, Reg) {
        let form = match width {
            Width::B1 => Form::sized(Map::One, 0x81, width).with(imm, 1),
            _ if imm == imm as i8 as i64 => Form::word(Map::One, 0x83, width).with(imm, 1),
            Width::B2 => Form::word(Map::One, 0x81, width).with(imm, 2),
            _ => Form::word(Map::One, 0x81, width).with(imm, 4),
        };
        (form, self as u8)
    }
}

/// A place in the code that is jumped to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// Where the slots lie in the vCPU.
const SLOTS: std::ops::Range<i32> = slot_offset(0) as i32..slot_offset(slots::COUNT) as i32;

/// Code being made for a known address.
#[derive(Debug, Default)]
pub struct Asm {
    code: Vec<u8>,
    /// The host address of the first byte.
    base: u64,
    /// Where the cold part begins: its offset, and its host address.
    cold: (usize, u64),
    /// Where labels are, once they are.
    labels: Vec<Option<usize>>,
    /// Displacements that wait for a label.
    waiting: Vec<(usize, Label)>,
    /// A scratch register that holds what a slot in memory does, and the slot's offset in the vCPU: a load of the slot would
    /// wait for the store before it. Anything may forget it; what keeps it says so.
    copy: Option<(Reg, i32)>,
    /// Whether copies are noted.
    copies: bool,
}

impl Asm {
    /// Starts code that will lie at `base`, its cold part at `cold`.
    pub fn start(&mut self, base: u64, cold: u64) {
        self.cold = (usize::MAX, cold);
        self.copy = None;
        self.code.clear();
        self.labels.clear();
        self.waiting.clear();
        self.base = base;
    }
    /// Whether loads of a slot may use the scratch register that was stored to it.
    pub fn set_copies(&mut self, copies: bool) {
        self.copies = copies;
    }
    /// What follows is the cold part.
    pub fn go_cold(&mut self) {
        self.cold.0 = self.code.len();
    }
    /// The host address of the next byte.
    pub fn here(&self) -> u64 {
        self.address(self.code.len())
    }
    fn address(&self, offset: usize) -> u64 {
        let (cold, address) = self.cold;
        if offset < cold { self.base + offset as u64 } else { address + (offset - cold) as u64 }
    }
    /// Ends the code, hot part and cold part: every label must be bound.
    pub fn finish(&mut self) -> (&[u8], &[u8]) {
        for &(at, label) in &self.waiting {
            if let Some(target) = self.labels[label.0] {
                let displacement = self.address(target).wrapping_sub(self.address(at) + 4) as u32;
                self.code[at..at + 4].copy_from_slice(&displacement.to_le_bytes());
            }
        }
        self.code.split_at(self.cold.0.min(self.code.len()))
    }
    /// Appends up to eight bytes, the lowest first: always eight are written, which is quicker than as many as there are.
    #[inline]
    fn put(&mut self, Bytes { word, count }: Bytes) {
        self.copy = None;
        let end = self.code.len() + count as usize;
        self.code.extend_from_slice(&word.to_le_bytes());
        self.code.truncate(end);
    }

    /// A new label.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }
    /// Binds a label here.
    pub fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
        self.copy = None;
    }
    /// JMP to a label.
    pub fn jmp(&mut self, label: Label) {
        self.displacement(Bytes::of(&[0xe9]), label);
    }
    /// Jcc to a label.
    pub fn jcc(&mut self, cond: u8, label: Label) {
        let copy = self.copy;
        self.displacement(Bytes::of(&[0x0f, 0x80 | cond]), label);
        self.copy = copy;
    }
    fn displacement(&mut self, opcode: Bytes, label: Label) {
        self.waiting.push((self.code.len() + opcode.count as usize, label));
        self.put(opcode.and(0, 4));
    }
    /// JMP to an address in the arena.
    pub fn jmp_to(&mut self, target: u64) {
        self.relative(0xe9, target);
    }
    /// CALL of an address in the arena.
    pub fn call(&mut self, target: u64) {
        self.relative(0xe8, target);
    }
    fn relative(&mut self, opcode: u8, target: u64) {
        let displacement = target.wrapping_sub(self.here() + 5);
        self.put(Bytes::of(&[opcode]).and(displacement, 4));
    }
    /// A JMP whose displacement is 4-byte aligned, so that it can be patched; gives the displacement's address. It leads to
    /// the label until then.
    pub fn patchable_jmp(&mut self, label: Label) -> u64 {
        while !(self.here() + 1).is_multiple_of(4) {
            self.code.push(0x90);
        }
        self.jmp(label);
        self.here() - 4
    }

    /// An instruction with a register operand (or opcode extension) and a register or memory operand.
    pub fn op(&mut self, form: Form, reg: u8, rm: Rm) {
        let copy = self.copy.filter(|copy| !form.may_change(reg, rm, *copy));
        self.encode(form, reg, rm);
        self.copy = copy;
    }

    fn encode(&mut self, form: Form, reg: u8, rm: Rm) {
        let mut bytes = Bytes::default();
        if form.lock {
            bytes.push(0xf0);
        }
        let (base, index) = match rm {
            Rm::R(r) | Rm::Base(r, _) => (r, 0),
            Rm::Pair(base, index) => (base, index),
            Rm::Full { base, index, .. } => (base.unwrap_or(0), index),
            Rm::Absolute(_) => (0, 0),
        };
        let (r, x, b) = (reg >> 3 & 1, index >> 3 & 1, base >> 3 & 1);
        match form.vex {
            Some((second, long)) => {
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
                let inverted = (!r & 1) << 7 | (!x & 1) << 6 | (!b & 1) << 5;
                let last = u8::from(form.wide) << 7 | (!second & 15) << 3 | u8::from(long) << 2 | pp;
                bytes = Bytes::of(&[0xc4, inverted | map, last, form.opcode]);
            }
            None => {
                if form.prefix != 0 {
                    bytes.push(form.prefix);
                }
                let rex = u8::from(form.wide) << 3 | r << 2 | x << 1 | b;
                let low_byte = form.bytes && (reg >= 4 || matches!(rm, Rm::R(4..)));
                if rex != 0 || low_byte {
                    bytes.push(0x40 | rex);
                }
                match form.map {
                    Map::One => {}
                    Map::M0f => bytes.push(0x0f),
                    Map::M0f38 => bytes = bytes.and(0x380f, 2),
                    Map::M0f3a => bytes = bytes.and(0x3a0f, 2),
                }
                bytes.push(form.opcode);
            }
        }
        let displacement = modrm(&mut bytes, reg & 7, rm);
        self.put(bytes);
        let rest = match form.imm {
            Some((imm, count)) => displacement.and(imm as u64, u32::from(count)),
            None => displacement,
        };
        if rest.count != 0 {
            self.put(rest);
        }
    }

    // ---- the forms that everything uses

    /// `reg = rm`, as a load or move of that width (a doubleword clears the upper half).
    pub fn load(&mut self, width: Width, reg: Reg, rm: Rm) {
        let from = self.copy_of(rm);
        if width == Width::B8 && from == Rm::R(reg) {
            return;
        }
        self.op(Form::sized(Map::One, 0x8b, width), reg, from);
        self.note_copy(width, from, reg);
    }
    /// `rm = reg`.
    pub fn store(&mut self, width: Width, rm: Rm, reg: Reg) {
        self.op(Form::sized(Map::One, 0x89, width), reg, rm);
        self.note_copy(width, rm, reg);
    }
    /// The register that holds what a slot does, if there is one: for operands that are read.
    fn copy_of(&self, rm: Rm) -> Rm {
        match (self.copy, rm) {
            (Some((reg, slot)), Rm::Base(CPU, at)) if at == slot => Rm::R(reg),
            _ => rm,
        }
    }
    /// A scratch register and a slot are the same now.
    fn note_copy(&mut self, width: Width, rm: Rm, reg: Reg) {
        if let Rm::Base(CPU, at) = rm
            && width == Width::B8
            && SLOTS.contains(&at)
            && matches!(reg, S0 | S1)
            && self.copies
        {
            self.copy = Some((reg, at));
        }
    }
    /// `reg = zero-extended rm`, from `width`.
    pub fn load_zero(&mut self, width: Width, reg: Reg, rm: Rm) {
        let from = self.copy_of(rm);
        match width {
            Width::B1 => self.op(Form { bytes: true, ..Form::new(Map::M0f, 0xb6) }, reg, from),
            Width::B2 => self.op(Form::new(Map::M0f, 0xb7), reg, from),
            Width::B4 | Width::B8 => self.load(width, reg, rm),
        }
    }
    /// `to = from`, 64 bits.
    pub fn mov(&mut self, to: Reg, from: Reg) {
        if to != from {
            self.load(Width::B8, to, Rm::R(from));
        }
    }
    /// `reg = imm`, the shortest way; leaves the flags alone.
    pub fn mov_imm(&mut self, reg: Reg, imm: u64) {
        let copy = self.copy.filter(|copy| copy.0 != reg);
        self.put_imm(reg, imm);
        self.copy = copy;
    }
    fn put_imm(&mut self, reg: Reg, imm: u64) {
        if let Ok(low) = u32::try_from(imm) {
            let prefix: &[u8] = if reg >= 8 { &[0x41] } else { &[] };
            self.put(Bytes::of(prefix).and(u64::from(0xb8 | reg & 7) | u64::from(low) << 8, 5));
        } else if imm as i64 == i64::from(imm as i32) {
            self.op(Form { wide: true, ..Form::new(Map::One, 0xc7) }.with(imm as i64, 4), 0, Rm::R(reg));
        } else {
            self.put(Bytes::of(&[0x48 | reg >> 3, 0xb8 | reg & 7]));
            self.put(Bytes { word: imm, count: 8 });
        }
    }
    /// `rm = imm` (sign-extended from 32 bits).
    pub fn store_imm(&mut self, width: Width, rm: Rm, imm: i32) {
        let bytes = (width.bytes() as u8).min(4);
        self.op(Form::sized(Map::One, 0xc7, width).with(i64::from(imm), bytes), 0, rm);
    }
    /// `reg op= rm`.
    pub fn alu(&mut self, op: Alu, width: Width, reg: Reg, rm: Rm) {
        self.op(op.with_rm(width), reg, self.copy_of(rm));
    }
    /// `rm op= imm`.
    pub fn alu_imm(&mut self, op: Alu, width: Width, rm: Rm, imm: i64) {
        let (form, reg) = op.imm(width, imm);
        self.op(form, reg, rm);
    }
    /// TEST of two registers.
    pub fn test(&mut self, width: Width, a: Reg, b: Reg) {
        self.op(Form::sized(Map::One, 0x85, width), b, Rm::R(a));
    }
    /// `reg = address of rm`.
    pub fn lea(&mut self, width: Width, reg: Reg, rm: Rm) {
        self.op(Form::word(Map::One, 0x8d, width), reg, rm);
    }
    /// `to = from rotated right`, flags untouched (BMI2).
    pub fn rorx(&mut self, width: Width, to: Reg, from: Rm, count: u8) {
        let form =
            Form { prefix: 0xf2, wide: width == Width::B8, vex: Some((0, false)), ..Form::new(Map::M0f3a, 0xf0) };
        self.op(form.with(i64::from(count), 1), to, from);
    }
    /// SHL, SHR (`extension` 4, 5, 7 …) by an immediate.
    pub fn shift_imm(&mut self, extension: u8, width: Width, rm: Rm, count: u8) {
        self.op(Form::sized(Map::One, 0xc1, width).with(i64::from(count), 1), extension, rm);
    }
    /// `byte rm = condition`.
    pub fn setcc(&mut self, cond: u8, rm: Rm) {
        self.op(Form { bytes: true, ..Form::new(Map::M0f, 0x90 | cond) }, 0, rm);
    }
    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.copy = None;
        self.code.extend_from_slice(bytes);
    }
}

/// Up to eight bytes, the first one the lowest: what stands before an instruction's displacement, or the rest of it.
#[derive(Copy, Clone, Debug, Default)]
struct Bytes {
    word: u64,
    count: u32,
}

impl Bytes {
    #[inline]
    fn of(bytes: &[u8]) -> Bytes {
        let mut all = Bytes::default();
        bytes.iter().for_each(|&byte| all.push(byte));
        all
    }
    #[inline]
    fn push(&mut self, byte: u8) {
        *self = self.and(u64::from(byte), 1);
    }
    /// With the lowest `count` bytes of a number behind them.
    #[inline]
    fn and(self, number: u64, count: u32) -> Bytes {
        Bytes { word: self.word | number << (8 * self.count), count: self.count + count }
    }
}

/// Appends ModRM and, if there is one, SIB; gives the displacement.
#[inline]
fn modrm(bytes: &mut Bytes, reg: u8, rm: Rm) -> Bytes {
    // The mod field and the displacement that goes with it: without one, RBP and R13 would be something else.
    let with = |base: Reg, disp: i32| match disp {
        0 if base & 7 != 5 => (0, Bytes::default()),
        _ if disp == i32::from(disp as i8) => (0x40, Bytes::of(&[disp as u8])),
        _ => (0x80, whole(disp)),
    };
    let reg = reg << 3;
    let (base, index, scale, disp) = match rm {
        Rm::R(r) => {
            bytes.push(0xc0 | reg | r & 7);
            return Bytes::default();
        }
        Rm::Base(base, disp) => {
            let (mode, displacement) = with(base, disp);
            bytes.push(mode | reg | base & 7);
            if base & 7 == 4 {
                bytes.push(0x24);
            }
            return displacement;
        }
        Rm::Absolute(disp) => {
            *bytes = bytes.and(u64::from(reg | 4) | 0x25 << 8, 2);
            return whole(disp);
        }
        Rm::Pair(base, index) => (Some(base), index, 0, 0),
        Rm::Full { base, index, scale, disp } => (base, index, scale, disp),
    };
    let (mode, displacement) = base.map_or((0, whole(disp)), |base| with(base, disp));
    bytes.push(mode | reg | 4);
    bytes.push(scale << 6 | (index & 7) << 3 | base.unwrap_or(5) & 7);
    displacement
}

/// A displacement of four bytes.
fn whole(disp: i32) -> Bytes {
    Bytes { word: u64::from(disp as u32), count: 4 }
}

/// What `dynasm!` needs of a sink.
impl Extend<u8> for Asm {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, iter: T) {
        self.code.extend(iter);
    }
}

impl<'a> Extend<&'a u8> for Asm {
    fn extend<T: IntoIterator<Item = &'a u8>>(&mut self, iter: T) {
        self.code.extend(iter);
    }
}

impl DynasmApi for Asm {
    fn offset(&self) -> dynasmrt::AssemblyOffset {
        dynasmrt::AssemblyOffset(self.code.len())
    }
    fn push(&mut self, byte: u8) {
        self.copy = None;
        self.code.push(byte);
    }
    fn align(&mut self, alignment: usize, with: u8) {
        while !self.code.len().is_multiple_of(alignment) {
            self.code.push(with);
        }
    }
}
