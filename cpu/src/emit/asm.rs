//! Code being made: labels, jumps, and the instructions that everything uses; `encode` says how they are encoded. Irregular,
//! fixed sequences (entry, gates) are written with `dynasm!` in `gate`, on the same sink.

use super::encode::Code;
pub use super::encode::{Fixed, Form, Map, Reg, Rm};
use super::registers::{CPU, S0, S1, slot_offset};
use crate::state::slots;
use crate::uop::Width;
use dynasmrt::DynasmApi;

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

/// What is known of the hot part while the cold one is made.
#[derive(Copy, Clone, Debug)]
pub struct Kept(Option<(Reg, i32)>);

/// A place in the code that is jumped to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Label(u32);

/// What is known of a label.
#[derive(Copy, Clone, Debug)]
enum Known {
    /// The last displacement that waits for it, if there is one: its offset, and [`COLD`] if it is in the cold part. In its
    /// place the code has the one before, or [`NONE`].
    Waiting(u32),
    /// The lower half of its host address.
    Bound(u32),
}

/// In the cold part.
const COLD: u32 = 1 << 31;
/// No displacement: none is the first byte.
const NONE: u32 = 0;

/// Where the slots lie in the vCPU.
const SLOTS: std::ops::Range<i32> = slot_offset(0) as i32..slot_offset(slots::COUNT) as i32;

/// One of the two parts of code being made.
#[derive(Debug, Default)]
struct Half {
    code: Code,
    /// The host address of the first byte.
    base: u64,
}

impl Half {
    fn here(&self) -> u64 {
        self.base + self.code.len() as u64
    }
}

/// Code being made for known addresses: the hot part, or, between [`Asm::go_cold`] and [`Asm::go_hot`], the cold one.
#[derive(Debug, Default)]
pub struct Asm {
    /// The part that code is appended to.
    now: Box<Half>,
    /// The other one.
    other: Box<Half>,
    /// Whether that is the hot part.
    cold: bool,
    /// What is known of labels.
    labels: Vec<Known>,
    /// A scratch register that holds what a slot in memory does, and the slot's offset in the vCPU: a load of the slot would
    /// wait for the store before it. Anything may forget it; what keeps it says so.
    copy: Option<(Reg, i32)>,
    /// Whether copies are noted.
    copies: bool,
}

impl Asm {
    /// Starts code that will lie at `base`, its cold part at `cold`.
    pub fn start(&mut self, base: u64, cold: u64) {
        self.cold = false;
        self.copy = None;
        self.labels.clear();
        for (half, base) in [(&mut self.now, base), (&mut self.other, cold)] {
            half.code.clear();
            half.base = base;
        }
    }
    /// Whether loads of a slot may use the scratch register that was stored to it.
    pub fn set_copies(&mut self, copies: bool) {
        self.copies = copies;
    }
    /// What follows is of the cold part. Gives what [`Asm::go_hot`] wants back.
    #[inline]
    pub fn go_cold(&mut self) -> Kept {
        debug_assert!(!self.cold, "once");
        self.cold = true;
        std::mem::swap(&mut self.now, &mut self.other);
        Kept(self.copy.take())
    }
    /// What follows is of the hot part again, where nothing has happened since.
    #[inline]
    pub fn go_hot(&mut self, kept: Kept) {
        debug_assert!(self.cold, "before");
        self.cold = false;
        std::mem::swap(&mut self.now, &mut self.other);
        self.copy = kept.0;
    }
    /// Whether this is the cold part.
    pub fn is_cold(&self) -> bool {
        self.cold
    }
    /// The host address of the next byte.
    pub fn here(&self) -> u64 {
        self.now.here()
    }
    /// Ends the code, hot part and cold part: every label that is jumped to must be bound.
    pub fn finish(&mut self) -> (&[u8], &[u8]) {
        let (hot, cold) = if self.cold { (&self.other, &self.now) } else { (&self.now, &self.other) };
        (hot.code.bytes(), cold.code.bytes())
    }
    /// Appends up to eight bytes, the lowest first.
    #[inline(always)]
    fn put(&mut self, word: u64, count: usize) {
        self.copy = None;
        self.now.code.put(word, count);
    }

    /// A new label.
    #[inline]
    pub fn label(&mut self) -> Label {
        self.labels.push(Known::Waiting(NONE));
        Label(self.labels.len() as u32 - 1)
    }
    /// Binds a label here.
    #[inline]
    pub fn bind(&mut self, label: Label) {
        self.copy = None;
        let here = self.here() as u32;
        let known = std::mem::replace(&mut self.labels[label.0 as usize], Known::Bound(here));
        if let Known::Waiting(at @ 1..) = known {
            self.lead_to(at, here);
        }
    }
    /// This displacement, and those that waited before it, lead there.
    #[inline(never)]
    fn lead_to(&mut self, mut at: u32, target: u32) {
        while at != NONE {
            let half = if (at & COLD != 0) == self.cold { &mut self.now } else { &mut self.other };
            let offset = at & !COLD;
            at = half.code.get(offset as usize);
            half.code.set(offset as usize, target.wrapping_sub(half.base as u32 + offset).wrapping_sub(4));
        }
    }
    /// What the displacement `ahead` bytes from here is for now, that is to lead to a label.
    #[inline(always)]
    fn lead(&mut self, ahead: usize, label: Label) -> u32 {
        let at = (self.now.code.len() + ahead) as u32;
        let known = &mut self.labels[label.0 as usize];
        match *known {
            Known::Bound(target) => target.wrapping_sub(self.now.base as u32 + at).wrapping_sub(4),
            Known::Waiting(before) => {
                *known = Known::Waiting(at | if self.cold { COLD } else { 0 });
                before
            }
        }
    }
    /// JMP to a label.
    pub fn jmp(&mut self, label: Label) {
        self.displacement(0xe9, 1, label);
    }
    /// Jcc to a label.
    pub fn jcc(&mut self, cond: u8, label: Label) {
        let copy = self.copy;
        self.displacement(0x800f | u64::from(cond) << 8, 2, label);
        self.copy = copy;
    }
    /// An opcode of that many bytes, and the displacement of a label.
    #[inline(never)]
    fn displacement(&mut self, opcode: u64, count: usize, label: Label) {
        let number = self.lead(count, label);
        self.put(opcode | u64::from(number) << (8 * count), count + 4);
    }
    /// JMP to an address in the arena.
    pub fn jmp_to(&mut self, target: u64) {
        self.relative(0xe9, target);
    }
    /// CALL of an address in the arena.
    pub fn call(&mut self, target: u64) {
        self.relative(0xe8, target);
    }
    #[inline(never)]
    fn relative(&mut self, opcode: u8, target: u64) {
        let displacement = target.wrapping_sub(self.here() + 5);
        self.put(u64::from(opcode) | displacement << 8, 5);
    }

    /// What was made before, with this immediate and a jump to this label.
    pub fn fixed(&mut self, fixed: &Fixed, imm: u32, label: Label) {
        self.copy = None;
        let number = self.lead(fixed.displacement, label);
        self.now.code.fixed(fixed, imm, number);
    }
    /// Makes what [`Asm::fixed`] copies; `make` says where the immediate and the displacement are.
    pub fn fix(&mut self, make: impl FnOnce(&mut Asm) -> (usize, usize)) -> Fixed {
        self.start(0, 0);
        let (imm, displacement) = make(self);
        Fixed::of(self.finish().0, imm, displacement)
    }
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.now.code.len()
    }

    /// An instruction with a register operand (or opcode extension) and a register or memory operand.
    #[inline(never)]
    pub fn op(&mut self, form: Form, reg: u8, rm: Rm) {
        self.append(form, reg, rm);
    }
    /// [`Asm::op`] for where much of the form is known.
    #[inline(always)]
    fn append(&mut self, form: Form, reg: u8, rm: Rm) {
        if self.copy.is_some_and(|copy| form.may_change(reg, rm, copy)) {
            self.copy = None;
        }
        self.now.code.instruction(form, reg, rm);
    }

    // ---- the forms that everything uses

    /// `reg = rm`, as a load or move of that width (a doubleword clears the upper half).
    #[inline(never)]
    pub fn load(&mut self, width: Width, reg: Reg, rm: Rm) {
        let from = self.copy_of(rm);
        if width == Width::B8 && from == Rm::R(reg) {
            return;
        }
        self.append(Form::sized(Map::One, 0x8b, width), reg, from);
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
            Width::B1 => self.op(Form::new(Map::M0f, 0xb6).bytes(true), reg, from),
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
    /// `reg = imm`, 32 bits that are zero-extended.
    #[inline]
    pub fn mov_imm32(&mut self, reg: Reg, imm: u32) {
        if self.copy.is_some_and(|copy| copy.0 == reg) {
            self.copy = None;
        }
        let short = u64::from(0xb8 | reg & 7) | u64::from(imm) << 8;
        let high = reg >> 3;
        self.now.code.put(if high != 0 { 0x41 | short << 8 } else { short }, 5 + usize::from(high));
    }
    /// `reg = imm`, the shortest way; leaves the flags alone.
    pub fn mov_imm(&mut self, reg: Reg, imm: u64) {
        if let Ok(low) = u32::try_from(imm) {
            return self.mov_imm32(reg, low);
        }
        let copy = self.copy.filter(|copy| copy.0 != reg);
        self.put_wide(reg, imm);
        self.copy = copy;
    }
    fn put_wide(&mut self, reg: Reg, imm: u64) {
        if imm as i64 == i64::from(imm as i32) {
            self.op(Form::new(Map::One, 0xc7).wide(true).with(imm as i64, 4), 0, Rm::R(reg));
        } else {
            self.mov_imm64(reg, imm);
        }
    }
    /// `reg = imm`, whatever it is.
    #[inline]
    pub fn mov_imm64(&mut self, reg: Reg, imm: u64) {
        self.put(u64::from(0x48 | reg >> 3) | u64::from(0xb8 | reg & 7) << 8, 2);
        self.put(imm, 8);
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
    #[inline(never)]
    pub fn lea(&mut self, width: Width, reg: Reg, rm: Rm) {
        self.append(Form::word(Map::One, 0x8d, width), reg, rm);
    }
    /// `to = from rotated right`, flags untouched (BMI2).
    pub fn rorx(&mut self, width: Width, to: Reg, from: Rm, count: u8) {
        let form = Form::new(Map::M0f3a, 0xf0).prefix(0xf2).wide(width == Width::B8).vex(0, false);
        self.op(form.with(i64::from(count), 1), to, from);
    }
    /// SHL, SHR (`extension` 4, 5, 7 …) by an immediate.
    pub fn shift_imm(&mut self, extension: u8, width: Width, rm: Rm, count: u8) {
        self.op(Form::sized(Map::One, 0xc1, width).with(i64::from(count), 1), extension, rm);
    }
    /// `byte rm = condition`.
    pub fn setcc(&mut self, cond: u8, rm: Rm) {
        self.op(Form::new(Map::M0f, 0x90 | cond).bytes(true), 0, rm);
    }
    /// Up to eight bytes as they are, the lowest first.
    #[inline]
    pub fn word(&mut self, word: u64, count: usize) {
        self.put(word, count);
    }
    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.copy = None;
        self.now.code.append(bytes);
    }
}

/// What `dynasm!` needs of a sink.
impl Extend<u8> for Asm {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, iter: T) {
        iter.into_iter().for_each(|byte| self.push(byte));
    }
}

impl<'a> Extend<&'a u8> for Asm {
    fn extend<T: IntoIterator<Item = &'a u8>>(&mut self, iter: T) {
        iter.into_iter().for_each(|byte| self.push(*byte));
    }
}

impl DynasmApi for Asm {
    fn offset(&self) -> dynasmrt::AssemblyOffset {
        dynasmrt::AssemblyOffset(self.now.code.len())
    }
    fn push(&mut self, byte: u8) {
        self.put(u64::from(byte), 1);
    }
    fn align(&mut self, alignment: usize, with: u8) {
        while !self.now.code.len().is_multiple_of(alignment) {
            self.now.code.put(u64::from(with), 1);
        }
    }
}
