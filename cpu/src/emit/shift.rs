//! Shifts, rotates, multiplication, division, bits (`exec::shift`, `exec::muldiv`, `exec::bit`).
//!
//! Where the manuals leave a flag undefined, Umbra has one value (`exec::shift` says which); the host may have another, so
//! that whenever such a flag can be seen, it is put in by hand.

use super::address::{Access, Value, Way};
use super::asm::{Alu, Form, Map, Rm};
use super::block::Emitter;
use super::flags::{FlagPlaces, Kind, Late, Operand, Recipe};
use super::frame::frame;
use super::gate::Status;
use super::registers::{RAX, RCX, RDX, S0, S1, pinned, slot};
use crate::state::flags;
use crate::state::slots::T3;
use crate::uop::{Op, Uop, Width};

impl Emitter<'_> {
    /// Shifts and rotates of registers. Those of memory, and by CL with flags that are seen, are the interpreter's, but for
    /// those whose result alone matters.
    pub(super) fn shift(&mut self, uop: &Uop) -> bool {
        let (width, op) = (uop.width, uop.op);
        let double = matches!(op, Op::Shld | Op::Shrd);
        let by_cl = uop.imm < 0;
        if uop.form.has_memory() || double && (by_cl && self.wanted() || width < Width::B4) {
            return false;
        }
        let count = uop.imm as u8 & if width == Width::B8 { 63 } else { 31 };
        if !by_cl && count == 0 {
            // The flags stay; a doubleword is zero-extended all the same.
            self.protect(uop.dst);
            self.change(uop.dst, width, true, |e, reg| e.asm.load(width, reg, Rm::R(reg)));
            return true;
        }
        if by_cl && double {
            return self.double_shift_by_cl(uop);
        }
        if by_cl {
            return self.shift_by_cl(uop);
        }
        if double {
            return self.double_shift(uop, count);
        }
        if matches!(op, Op::Rcl | Op::Rcr) {
            return self.rotate_through_carry(uop, count);
        }
        let extension = extension(op);
        let rotate = matches!(op, Op::Rol | Op::Ror);
        if rotate {
            return self.rotate(uop, extension, count);
        }
        if u32::from(count) >= width.bits() && self.wanted() {
            return false;
        }
        // The host's own flags are the same but for AF, and OF after more than one step.
        let exact = flags::CF | flags::ZF | flags::SF | flags::PF | if count == 1 { flags::OF } else { 0 };
        let held = self.wanted() && !self.suffices(exact);
        if held {
            self.hold_slot(uop.dst);
        }
        self.change(uop.dst, width, true, |e, reg| e.asm.shift_imm(extension, width, Rm::R(reg), count));
        if held {
            self.shift_flags(uop, Operand::Imm(i32::from(count)));
            self.places.most = true;
        } else {
            self.flags_are(None);
        }
        true
    }

    /// After a shift whose first operand is held: what its flags can be made from.
    fn shift_flags(&mut self, uop: &Uop, count: Operand) {
        let kind = match uop.op {
            Op::Shl => Kind::Shl,
            Op::Shr => Kind::Shr,
            _ => Kind::Sar,
        };
        let recipe = Recipe::new(kind, uop.width, Operand::Held(0), count);
        self.places = FlagPlaces { recipe: Some(recipe), ..FlagPlaces::default() };
    }

    /// RCL and RCR by one, when nobody sees the flags that they keep.
    fn rotate_through_carry(&mut self, uop: &Uop, count: u8) -> bool {
        if count != 1 || !self.suffices(flags::CF | flags::OF) {
            return false;
        }
        self.load_carry();
        let extension = if uop.op == Op::Rcl { 2 } else { 3 };
        let form = Form::sized(Map::One, 0xd1, uop.width);
        self.change(uop.dst, uop.width, true, |e, reg| e.asm.op(form, extension, Rm::R(reg)));
        self.flags_are(None);
        true
    }

    /// CLC, STC, CMC, when nobody sees the flags that they keep.
    pub(super) fn carry(&mut self, uop: &Uop) -> bool {
        if !self.suffices(flags::CF) {
            return false;
        }
        let opcode = match uop.op {
            Op::Clc => 0xf8,
            Op::Stc => 0xf9,
            _ => {
                self.load_carry();
                0xf5
            }
        };
        self.asm.raw(&[opcode]);
        self.flags_are(None);
        true
    }

    /// ROL and ROR change CF and OF only.
    fn rotate(&mut self, uop: &Uop, extension: u8, count: u8) -> bool {
        let width = uop.width;
        let seen = self.wanted();
        if seen && self.suffices(flags::CF | if count == 1 { flags::OF } else { 0 }) {
            self.change(uop.dst, width, true, |e, reg| e.asm.shift_imm(extension, width, Rm::R(reg), count));
            self.flags_are(None);
            return true;
        }
        if seen {
            self.keep_others(uop.dst);
        } else {
            self.protect(uop.dst);
            self.clobber();
        }
        self.change(uop.dst, width, true, |e, reg| {
            if width >= Width::B4 {
                // RORX sets no flags.
                let bits = width.bits() as u8;
                let right = if uop.op == Op::Ror { count } else { bits - count };
                e.asm.rorx(width, reg, Rm::R(reg), right & (bits - 1));
            } else {
                e.asm.shift_imm(extension, width, Rm::R(reg), count);
            }
            if seen {
                e.asm.store(Width::B8, Rm::cpu(frame!(held) + 16), reg);
            }
        });
        if seen {
            let late = if uop.op == Op::Ror { Late::Right(width) } else { Late::Left(width) };
            self.places.late = Some(late);
        }
        true
    }

    /// By CL: shifts by BMI2's forms, rotates with flags that nobody sees; else the interpreter.
    fn shift_by_cl(&mut self, uop: &Uop) -> bool {
        let width = uop.width;
        let seen = self.wanted();
        let shift = matches!(uop.op, Op::Shl | Op::Shr | Op::Sar) && width >= Width::B4;
        if seen && !shift || matches!(uop.op, Op::Rcl | Op::Rcr) {
            return false;
        }
        if seen {
            // A count of zero leaves those that were.
            self.save_flags();
            self.hold_slot(uop.dst);
            self.asm.store(Width::B8, Rm::cpu(frame!(held) + 8), RCX);
        }
        let prefix = match uop.op {
            Op::Shl => 0x66,
            Op::Shr => 0xf2,
            Op::Sar => 0xf3,
            _ => 0,
        };
        self.protect(uop.dst);
        if prefix != 0 && width >= Width::B4 {
            let form = Form::new(Map::M0f38, 0xf7).prefix(prefix).wide(width == Width::B8).vex(RCX, false);
            self.change(uop.dst, width, true, |e, reg| e.asm.op(form, reg, Rm::R(reg)));
            if seen {
                self.shift_flags(uop, Operand::Held(1));
            }
            return true;
        }
        self.clobber();
        let extension = extension(uop.op);
        let form = Form::sized(Map::One, 0xd3, width);
        self.change(uop.dst, width, true, |e, reg| {
            e.asm.op(form, extension, Rm::R(reg));
            // A count of zero leaves even a doubleword's upper half to the hardware's rule: written here.
            if width == Width::B4 {
                e.asm.load(Width::B4, reg, Rm::R(reg));
            }
        });
        true
    }

    /// SHLD and SHRD by CL whose flags nobody reads.
    fn double_shift_by_cl(&mut self, uop: &Uop) -> bool {
        let width = uop.width;
        let opcode = if uop.op == Op::Shld { 0xa5 } else { 0xad };
        self.protect(uop.dst);
        self.clobber();
        let source = pinned(uop.src).unwrap_or_else(|| {
            self.asm.load(Width::B8, S1, slot(uop.src));
            S1
        });
        self.change(uop.dst, width, true, |e, reg| {
            e.asm.op(Form::word(Map::M0f, opcode, width), source, Rm::R(reg));
            // As after other shifts, by zero too.
            if width == Width::B4 {
                e.asm.load(Width::B4, reg, Rm::R(reg));
            }
        });
        true
    }

    fn double_shift(&mut self, uop: &Uop, count: u8) -> bool {
        let width = uop.width;
        let opcode = if uop.op == Op::Shld { 0xa4 } else { 0xac };
        let form = Form::word(Map::M0f, opcode, width).with(i64::from(count), 1);
        if !self.suffices(flags::CF | flags::ZF | flags::SF | flags::PF) {
            return false;
        }
        let source = pinned(uop.src).unwrap_or_else(|| {
            self.asm.load(Width::B8, S1, slot(uop.src));
            S1
        });
        self.change(uop.dst, width, true, |e, reg| e.asm.op(form, source, Rm::R(reg)));
        self.flags_are(None);
        true
    }

    /// IMUL, MUL, DIV, IDIV.
    pub(super) fn multiply(&mut self, uop: &Uop) -> bool {
        let width = uop.width;
        match uop.op {
            Op::Div | Op::Idiv => return self.divide(uop),
            Op::MulWide | Op::ImulWide => {
                let extension = if uop.op == Op::MulWide { 4 } else { 5 };
                let source = self.operand(uop);
                self.asm.op(Form::sized(Map::One, 0xf7, width), extension, source);
                self.product_flags(width, 0);
            }
            Op::Imul => {
                let source = self.operand(uop);
                self.change(uop.dst, width, true, |e, reg| {
                    e.asm.op(Form::word(Map::M0f, 0xaf, width), reg, source);
                });
                self.product_flags(width, uop.dst);
            }
            _ => {
                let source = self.operand(uop);
                let short = uop.imm == i64::from(uop.imm as i8);
                let bytes = if short { 1 } else { (width.bytes() as u8).min(4) };
                let form = Form::word(Map::One, if short { 0x6b } else { 0x69 }, width).with(uop.imm, bytes);
                self.change(uop.dst, width, false, |e, reg| e.asm.op(form, reg, source));
                self.product_flags(width, uop.dst);
            }
        }
        true
    }

    /// The source operand: its slot, or loaded into the second scratch register.
    fn operand(&mut self, uop: &Uop) -> Rm {
        if uop.form.has_memory() {
            self.load_to_scratch(uop, uop.width);
            return Rm::R(S1);
        }
        slot(uop.src)
    }

    fn product_flags(&mut self, width: Width, dst: u8) {
        if self.suffices(flags::CF | flags::OF) {
            return self.flags_are(None);
        }
        self.asm.setcc(0, Rm::cpu(frame!(held) + 8));
        let recipe = Recipe::new(Kind::Mul, width, Operand::Slot(dst), Operand::Imm(0));
        self.places = FlagPlaces { recipe: Some(recipe), ..FlagPlaces::default() };
    }

    /// In line where the quotient cannot overflow: unsigned with a smaller high half, signed with a sign-extended dividend.
    /// The flags stay.
    fn divide(&mut self, uop: &Uop) -> bool {
        let width = uop.width;
        if width < Width::B4 {
            return false;
        }
        self.protect(0);
        self.protect(2);
        if uop.form.has_memory() {
            self.load_to_scratch(uop, width);
        } else {
            self.clobber();
            self.asm.load(width, S1, slot(uop.src));
        }
        let asm = &mut *self.asm;
        if uop.op == Op::Div {
            asm.alu(Alu::Cmp, width, RDX, Rm::R(S1));
            let fault = self.fault_label(uop, Status::Fault);
            self.asm.jcc(3, fault);
            self.asm.op(Form::sized(Map::One, 0xf7, width), 6, Rm::R(S1));
            return true;
        }
        // rDX = sign of rAX, divisor neither 0 nor −1.
        let slow = asm.label();
        let done = asm.label();
        asm.load(width, S0, Rm::R(RAX));
        asm.shift_imm(7, width, Rm::R(S0), (width.bits() - 1) as u8);
        asm.alu(Alu::Cmp, width, S0, Rm::R(RDX));
        asm.jcc(5, slow);
        asm.lea(width, S0, Rm::Base(S1, 1));
        asm.alu_imm(Alu::Cmp, width, Rm::R(S0), 1);
        asm.jcc(6, slow);
        asm.op(Form::sized(Map::One, 0xf7, width), 7, Rm::R(S1));
        asm.bind(done);
        let site = self.step_site(uop);
        self.handler_behind(site, slow, done);
        true
    }

    /// BT, BTS, BTR, BTC: CF alone changes.
    pub(super) fn bit_test(&mut self, uop: &Uop) -> bool {
        let width = uop.width;
        // CF is all that the host's flags have to tell.
        let alone = self.wanted() && self.suffices(flags::CF);
        let seen = self.wanted() && !alone;
        let extension = match uop.op {
            Op::Bt => 4,
            Op::Bts => 5,
            Op::Btr => 6,
            _ => 7,
        };
        let memory = uop.form.has_memory();
        let by_register = matches!(uop.form, crate::uop::Form::RR | crate::uop::Form::MR | crate::uop::Form::RM);
        let update = memory && uop.op != Op::Bt;
        if width == Width::B1 {
            return false;
        }
        match (seen, memory) {
            // A fault shows those that were.
            (true, true) => self.save_flags(),
            (true, false) => self.keep_others(uop.dst),
            _ => {}
        }
        let immediate = Form::word(Map::M0f, 0xba, width).with(uop.imm & i64::from(width.bits() - 1), 1);
        let indexed = Form::word(Map::M0f, 0x83 | extension << 3, width);
        if update {
            let (form, value) = match by_register {
                // The address is that of the word: the index must not lead out of it.
                true => {
                    self.clobber();
                    self.asm.load(Width::B4, S0, slot(uop.src));
                    self.asm.alu_imm(Alu::And, Width::B4, Rm::R(S0), i64::from(width.bits() - 1));
                    self.asm.store(Width::B8, slot(T3), S0);
                    (indexed, Value::In(T3))
                }
                false => (immediate, Value::Reg(extension)),
            };
            let flags = self.wanted().then_some(FlagPlaces::HOST);
            let bytes = width.bytes() as u8;
            let access = Access::plain(form.locked(uop.lock), value, bytes, Way::Update);
            self.access(uop, Access { flags, ..access });
            if seen {
                self.places = FlagPlaces::SAVED;
            }
        } else if memory {
            self.load_to_scratch(uop, width);
            match by_register {
                true => {
                    let index = pinned(uop.src).unwrap_or_else(|| {
                        self.asm.load(Width::B8, S0, slot(uop.src));
                        S0
                    });
                    self.asm.op(indexed, index, Rm::R(S1));
                }
                false => self.asm.op(immediate, extension, Rm::R(S1)),
            }
        } else {
            if !alone {
                self.protect(uop.dst);
                self.clobber();
            }
            let (form, reg) = match by_register {
                true => {
                    let index = pinned(uop.src).unwrap_or_else(|| {
                        self.asm.load(Width::B8, S1, slot(uop.src));
                        S1
                    });
                    (indexed, index)
                }
                false => (immediate, extension),
            };
            self.change(uop.dst, width, true, |e, dst| e.asm.op(form, reg, Rm::R(dst)));
        }
        if alone {
            self.flags_are(None);
        }
        if seen {
            self.asm.setcc(2, Rm::cpu(frame!(held) + 16));
            self.places.late = Some(Late::Carry);
        }
        true
    }

    /// BSF, BSR, TZCNT, LZCNT, POPCNT whose undefined flags nobody sees.
    pub(super) fn scan(&mut self, uop: &Uop) -> bool {
        let width = uop.width;
        let exact = match uop.op {
            Op::Bsf | Op::Bsr => flags::ZF,
            Op::Tzcnt | Op::Lzcnt => flags::ZF | flags::CF,
            _ => flags::STATUS,
        };
        if !self.suffices(exact) || width == Width::B1 {
            return false;
        }
        let (prefix, opcode) = match uop.op {
            Op::Bsf => (0, 0xbc),
            Op::Bsr => (0, 0xbd),
            Op::Tzcnt => (0xf3, 0xbc),
            Op::Lzcnt => (0xf3, 0xbd),
            _ => (0xf3, 0xb8),
        };
        if prefix != 0 && width == Width::B2 {
            return false;
        }
        let merge = prefix == 0;
        let form = Form::word(Map::M0f, opcode, width);
        let form = if prefix != 0 { form.prefix(prefix) } else { form };
        self.protect(uop.dst);
        let source = if uop.form.has_memory() {
            self.load_to_scratch(uop, width);
            Rm::R(S1)
        } else {
            self.clobber();
            slot(uop.src)
        };
        let seen = self.wanted();
        self.change(uop.dst, width, merge, |e, reg| {
            // A zero source leaves the whole destination alone (`exec::bit`).
            let zero = merge.then(|| {
                let zero = e.asm.label();
                e.asm.alu_imm(Alu::Cmp, width, source, 0);
                e.asm.jcc(4, zero);
                zero
            });
            e.asm.op(form, reg, source);
            if let Some(zero) = zero {
                e.asm.bind(zero);
            }
        });
        if seen {
            self.flags_are(None);
        }
        true
    }
}

/// The opcode extension of a shift (SDM vol. 2, table A-6, group 2).
fn extension(op: Op) -> u8 {
    match op {
        Op::Rol => 0,
        Op::Ror => 1,
        Op::Shl => 4,
        Op::Shr => 5,
        _ => 7,
    }
}
