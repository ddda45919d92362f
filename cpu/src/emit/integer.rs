//! Moves, arithmetic and logic on slots and memory (`exec::data`, `exec::alu`).

use super::address::{Access, Value, Way, displacement};
use super::asm::{Alu, Form, Map, Reg, Rm};
use super::block::Emitter;
use super::flags::{FlagPlaces, Kind, Operand, Recipe};
use super::registers::{S0, S1, pinned, slot, slot_offset};
use crate::state::flags;
use crate::state::slots::{T3, ZERO};
use crate::uop::{AddrKind, Form as Shape, Mem, Op, Uop, Width};

/// The host's ALU operation of a uop.
fn alu(op: Op) -> Alu {
    match op {
        Op::Add => Alu::Add,
        Op::Or => Alu::Or,
        Op::Adc => Alu::Adc,
        Op::Sbb => Alu::Sbb,
        Op::And => Alu::And,
        Op::Sub => Alu::Sub,
        Op::Xor => Alu::Xor,
        _ => Alu::Cmp,
    }
}

impl Emitter<'_> {
    /// Changes slot `dst` at `width` through a host register: `merge` says whether the old value matters to `make`. Narrow
    /// writes always keep the rest. `make` may use the second scratch register.
    pub(super) fn change(&mut self, dst: u8, width: Width, merge: bool, make: impl FnOnce(&mut Self, Reg)) {
        match pinned(dst) {
            Some(reg) => make(self, reg),
            None => {
                let place = Rm::cpu(slot_offset(dst));
                if merge || width < Width::B4 {
                    self.asm.load(Width::B8, S0, place);
                }
                make(self, S0);
                self.asm.store(Width::B8, place, S0);
            }
        }
    }

    fn plain(&self, form: Form, value: Value, width: Width, way: Way) -> Access {
        Access::plain(form, value, width.bytes() as u8, way)
    }

    /// MOV and its extending forms.
    pub(super) fn transfer(&mut self, uop: &Uop) -> bool {
        let width = uop.width;
        let (map, opcode, from) = match uop.op {
            Op::Movzx8 => (Map::M0f, 0xb6, Width::B1),
            Op::Movzx16 => (Map::M0f, 0xb7, Width::B2),
            Op::Movsx8 => (Map::M0f, 0xbe, Width::B1),
            Op::Movsx16 => (Map::M0f, 0xbf, Width::B2),
            Op::Movsx32 => (Map::One, 0x63, Width::B4),
            _ => (Map::One, 0x8b, width),
        };
        let form = match uop.op {
            Op::Mov => Form::sized(map, opcode, width),
            _ => Form::word(map, opcode, width).bytes(from == Width::B1),
        };
        match uop.form {
            Shape::RR | Shape::R => {
                self.protect(uop.dst);
                // A narrow extension would be encoded with an operand-size prefix and merges, as the uop does.
                self.change(uop.dst, width, false, |e, reg| e.asm.op(form, reg, slot(uop.src)));
            }
            Shape::RI => {
                self.protect(uop.dst);
                self.move_immediate(uop.dst, width, uop.imm);
            }
            Shape::RM => {
                self.protect(uop.dst);
                let access = self.plain(form, Value::target(uop.dst, width), from, Way::Load);
                self.access(uop, access);
            }
            Shape::MR => {
                let form = Form::sized(Map::One, 0x89, width);
                let access = self.plain(form, Value::source(uop.src), width, Way::Store);
                self.access(uop, access);
            }
            Shape::MI | Shape::M => self.store_immediate(uop),
        }
        true
    }

    fn move_immediate(&mut self, dst: u8, width: Width, imm: i64) {
        let value = imm as u64 & width.mask();
        match (pinned(dst), width) {
            (_, Width::B1 | Width::B2) => {
                let form = Form::sized(Map::One, 0xc7, width).with(imm, width.bytes() as u8);
                self.asm.op(form, 0, slot(dst));
            }
            (Some(reg), _) => self.asm.mov_imm(reg, value),
            (None, _) => match i32::try_from(value as i64) {
                Ok(low) => self.asm.store_imm(Width::B8, slot(dst), low),
                Err(_) => {
                    self.asm.mov_imm(S0, value);
                    self.asm.store(Width::B8, slot(dst), S0);
                }
            },
        }
    }

    fn store_immediate(&mut self, uop: &Uop) {
        let (width, imm) = (uop.width, uop.imm);
        let bytes = (width.bytes() as u8).min(4);
        let form = Form::sized(Map::One, 0xc7, width).with(imm, bytes);
        let access = self.plain(form, Value::Reg(0), width, Way::Store);
        self.access(uop, access);
    }

    /// LEA, byte shuffles, XCHG of registers, BSWAP.
    pub(super) fn rearrange(&mut self, uop: &Uop) -> bool {
        match uop.op {
            Op::Lea => return self.lea(uop),
            Op::ExtractHigh => {
                self.protect(uop.dst);
                self.asm.rorx(Width::B4, S0, slot(uop.src), 8);
                self.asm.load_zero(Width::B1, S0, Rm::R(S0));
                self.put_slot(uop.dst, S0);
            }
            Op::InsertHigh => {
                self.protect(uop.dst);
                self.change(uop.dst, Width::B8, true, |e, reg| {
                    e.asm.rorx(Width::B8, reg, Rm::R(reg), 8);
                    match uop.src == uop.dst {
                        // The low byte is at the top now.
                        true => {
                            e.asm.rorx(Width::B8, S1, Rm::R(reg), 56);
                            e.asm.load(Width::B1, reg, Rm::R(S1));
                        }
                        false => e.asm.load(Width::B1, reg, slot(uop.src)),
                    }
                    e.asm.rorx(Width::B8, reg, Rm::R(reg), 56);
                });
            }
            Op::Xchg => {
                self.protect(uop.dst);
                self.protect(uop.src);
                let wide = uop.width >= Width::B4;
                // Both values, then both writes.
                self.asm.load(Width::B8, S1, slot(uop.src));
                if wide {
                    self.asm.load(uop.width, S0, slot(uop.dst));
                    self.put_slot(uop.src, S0);
                    self.asm.load(uop.width, S1, Rm::R(S1));
                    self.put_slot(uop.dst, S1);
                } else {
                    self.asm.load(Width::B8, S0, slot(uop.dst));
                    self.narrow_put(uop.src, uop.width, S0);
                    self.narrow_put(uop.dst, uop.width, S1);
                }
            }
            _ => {
                self.protect(uop.dst);
                let wide = uop.width == Width::B8;
                self.change(uop.dst, uop.width, true, |e, reg| {
                    e.asm.raw(&[0x40 | u8::from(wide) << 3 | reg >> 3, 0x0f, 0xc8 | reg & 7]);
                });
            }
        }
        true
    }

    /// Writes a whole slot from a host register.
    pub(super) fn put_slot(&mut self, dst: u8, from: Reg) {
        match pinned(dst) {
            Some(reg) => self.asm.mov(reg, from),
            None => self.asm.store(Width::B8, Rm::cpu(slot_offset(dst)), from),
        }
    }

    /// Writes the low part of a slot.
    fn narrow_put(&mut self, dst: u8, width: Width, from: Reg) {
        self.asm.store(width, slot(dst), from);
    }

    fn lea(&mut self, uop: &Uop) -> bool {
        let narrow = uop.cond == 1 || uop.width == Width::B2;
        self.protect(uop.dst);
        let kind = if uop.width == Width::B8 || narrow { AddrKind::Flat64 } else { AddrKind::Flat32 };
        let mem = Mem { kind, ..uop.mem };
        if let (false, Some(reg), Some(rm), Some(_)) = (narrow, pinned(uop.dst), host_address(&mem), displacement(&mem))
        {
            self.asm.lea(if kind == AddrKind::Flat32 { Width::B4 } else { Width::B8 }, reg, rm);
            return true;
        }
        if let (false, Some(reg)) = (narrow, pinned(uop.dst)) {
            self.address_to(reg, &mem);
            return true;
        }
        self.address(&mem);
        if uop.cond == 1 {
            self.narrow_put(uop.dst, Width::B2, S0);
        } else {
            if narrow {
                self.asm.load_zero(Width::B2, S0, Rm::R(S0));
            }
            self.put_slot(uop.dst, S0);
        }
        true
    }

    /// ADD … XOR, CMP, TEST, ADC, SBB.
    pub(super) fn binary(&mut self, uop: &Uop) -> bool {
        if matches!(uop.op, Op::Adc | Op::Sbb) {
            return self.with_carry(uop);
        }
        match uop.form {
            Shape::RR | Shape::RI | Shape::R => self.binary_registers(uop),
            Shape::RM => self.binary_from_memory(uop),
            Shape::MR | Shape::MI | Shape::M => self.binary_to_memory(uop),
        }
        true
    }

    fn binary_registers(&mut self, uop: &Uop) {
        let (width, op, dst) = (uop.width, uop.op, uop.dst);
        let source = match uop.form {
            Shape::RI => Operand::Imm(uop.imm as i32),
            _ => Operand::Slot(uop.src),
        };
        // The low doubleword of a number is what an instruction of this width sees.
        if uop.form == Shape::RI && width == Width::B8 && i64::from(uop.imm as i32) != uop.imm {
            self.asm.mov_imm(S1, uop.imm as u64);
            self.hold(S1);
            return self.binary_scratch(uop);
        }
        match op {
            Op::Cmp => {
                self.compare(width, dst, source);
                self.flags_are(Some(Recipe::new(Kind::Sub, width, Operand::Slot(dst), source)));
            }
            Op::Test => {
                let same = source == Operand::Slot(dst);
                self.test(width, dst, source);
                let recipe = Recipe::new(Kind::Logic, width, Operand::Slot(dst), Operand::Imm(0));
                // A test of two operands leaves no result to test again.
                self.flags_are(same.then_some(recipe));
            }
            _ => {
                self.apply(alu(op), width, dst, source);
                let recipe = result_recipe(op, width, dst, source);
                self.flags_are(recipe);
            }
        }
    }

    /// `dst op= source`.
    fn apply(&mut self, op: Alu, width: Width, dst: u8, source: Operand) {
        self.change(dst, width, true, |e, reg| match source {
            Operand::Imm(imm) => e.asm.alu_imm(op, width, Rm::R(reg), i64::from(imm)),
            Operand::Slot(n) if n == dst => e.asm.alu(op, width, reg, Rm::R(reg)),
            Operand::Slot(n) => e.asm.alu(op, width, reg, slot(n)),
            Operand::Held(_) => e.asm.alu(op, width, reg, Rm::R(S1)),
        });
    }

    /// The host's flags of `dst − source`.
    pub(super) fn compare(&mut self, width: Width, dst: u8, source: Operand) {
        let asm = &mut *self.asm;
        match (pinned(dst), source) {
            (_, Operand::Imm(imm)) => asm.alu_imm(Alu::Cmp, width, slot(dst), i64::from(imm)),
            (Some(reg), Operand::Slot(n)) => asm.alu(Alu::Cmp, width, reg, slot(n)),
            (None, Operand::Slot(n)) => {
                asm.load(Width::B8, S0, slot(dst));
                asm.alu(Alu::Cmp, width, S0, slot(n));
            }
            (_, Operand::Held(_)) => {
                asm.load(Width::B8, S0, slot(dst));
                asm.alu(Alu::Cmp, width, S0, Rm::R(S1));
            }
        }
    }

    /// The host's flags of `dst & source`.
    pub(super) fn test(&mut self, width: Width, dst: u8, source: Operand) {
        let asm = &mut *self.asm;
        let form = Form::sized(Map::One, 0x85, width);
        match source {
            Operand::Imm(imm) => {
                let bytes = (width.bytes() as u8).min(4);
                asm.op(Form::sized(Map::One, 0xf7, width).with(i64::from(imm), bytes), 0, slot(dst));
            }
            Operand::Slot(n) => match (pinned(dst), pinned(n)) {
                (_, Some(reg)) => asm.op(form, reg, slot(dst)),
                (Some(reg), None) => asm.op(form, reg, slot(n)),
                (None, None) => {
                    asm.load(Width::B8, S0, slot(n));
                    asm.op(form, S0, slot(dst));
                }
            },
            Operand::Held(_) => asm.op(form, S1, slot(dst)),
        }
    }

    /// A register operation whose source is in the second scratch register and in `held[0]`.
    fn binary_scratch(&mut self, uop: &Uop) {
        let (width, dst, source) = (uop.width, uop.dst, Operand::Held(0));
        match uop.op {
            Op::Cmp => {
                self.compare(width, dst, source);
                self.flags_are(Some(Recipe::new(Kind::Sub, width, Operand::Slot(dst), source)));
            }
            Op::Test => {
                self.test(width, dst, source);
                self.flags_are(None);
            }
            op => {
                self.apply(alu(op), width, dst, source);
                let recipe = result_recipe(op, width, dst, source);
                self.flags_are(recipe);
            }
        }
    }

    fn binary_from_memory(&mut self, uop: &Uop) {
        let width = uop.width;
        let logic = matches!(uop.op, Op::And | Op::Or | Op::Xor);
        if logic || !self.wanted() && uop.op != Op::Cmp && uop.op != Op::Test {
            let value = Value::both(uop.dst);
            let access = self.plain(alu(uop.op).with_rm(width), value, width, Way::Load);
            self.access(uop, access);
            let recipe = result_recipe(uop.op, width, uop.dst, Operand::Held(0)).filter(|_| logic);
            return self.flags_are(recipe);
        }
        self.load_to_scratch(uop, width);
        if self.wanted() {
            self.hold(S1);
        }
        self.binary_scratch(uop);
    }

    fn binary_to_memory(&mut self, uop: &Uop) {
        let width = uop.width;
        if matches!(uop.op, Op::Cmp | Op::Test) {
            return self.look_at_memory(uop);
        }
        let (form, value) = match uop.form {
            Shape::MR => (alu(uop.op).to_rm(width), Value::source(uop.src)),
            _ => {
                let (form, extension) = alu(uop.op).imm(width, uop.imm);
                (form, Value::Reg(extension))
            }
        };
        self.update(uop, form.locked(uop.lock), value);
    }

    /// A read-modify-write that sets the host's flags.
    pub(super) fn update(&mut self, uop: &Uop, form: Form, value: Value) {
        let places = match self.wanted() {
            true => FlagPlaces::HOST,
            false => FlagPlaces::default(),
        };
        let access = Access { flags: Some(places), ..self.plain(form, value, uop.width, Way::Update) };
        self.access(uop, access);
    }

    /// CMP and TEST of memory: the value is kept for the recipe.
    fn look_at_memory(&mut self, uop: &Uop) {
        let width = uop.width;
        self.load_to_scratch(uop, width);
        let source = if uop.form == Shape::MR { Operand::Slot(uop.src) } else { Operand::Imm(uop.imm as i32) };
        let asm = &mut *self.asm;
        if uop.op == Op::Cmp {
            match source {
                Operand::Imm(imm) => asm.alu_imm(Alu::Cmp, width, Rm::R(S1), i64::from(imm)),
                _ => asm.alu(Alu::Cmp, width, S1, slot(uop.src)),
            }
            if self.wanted() {
                self.hold(S1);
            }
            return self.flags_are(Some(Recipe::new(Kind::Sub, width, Operand::Held(0), source)));
        }
        // TEST: AND of the copy gives the same flags, and a result for the recipe.
        match source {
            Operand::Imm(imm) => asm.alu_imm(Alu::And, width, Rm::R(S1), i64::from(imm)),
            _ => asm.alu(Alu::And, width, S1, slot(uop.src)),
        }
        if self.wanted() {
            self.hold(S1);
        }
        self.flags_are(Some(Recipe::new(Kind::Logic, width, Operand::Held(0), Operand::Imm(0))));
    }

    /// ADC and SBB.
    fn with_carry(&mut self, uop: &Uop) -> bool {
        let (op, width) = (alu(uop.op), uop.width);
        match uop.form {
            Shape::RR | Shape::RI | Shape::R => {
                if uop.form == Shape::RI && i64::from(uop.imm as i32) != uop.imm && width == Width::B8 {
                    return false;
                }
                self.load_carry();
                let source = if uop.form == Shape::RI { Operand::Imm(uop.imm as i32) } else { Operand::Slot(uop.src) };
                self.apply(op, width, uop.dst, source);
                self.flags_are(None);
            }
            Shape::RM => {
                self.save_flags();
                let access =
                    Access { carry: true, ..self.plain(op.with_rm(width), Value::both(uop.dst), width, Way::Load) };
                self.access(uop, access);
                self.flags_are(None);
            }
            Shape::MR | Shape::MI | Shape::M => {
                let (form, value) = match uop.form {
                    Shape::MR => (op.to_rm(width), Value::source(uop.src)),
                    _ => {
                        let (form, extension) = op.imm(width, uop.imm);
                        (form, Value::Reg(extension))
                    }
                };
                self.save_flags();
                let places = match self.wanted() {
                    true => FlagPlaces::HOST,
                    false => FlagPlaces::default(),
                };
                let plain = self.plain(form.locked(uop.lock), value, width, Way::Update);
                self.access(uop, Access { carry: true, flags: Some(places), ..plain });
            }
        }
        true
    }

    /// CF of the host is the guest's.
    pub(super) fn load_carry(&mut self) {
        if self.places.host || self.places.most {
            return;
        }
        match self.places.recipe.filter(|recipe| !self.places.saved && recipe.is_exact() && self.places.late.is_none())
        {
            Some(recipe) => super::flags::cook(self.asm, &recipe),
            _ => {
                self.save_flags();
                super::flags::load_carry(self.asm);
            }
        }
    }

    /// INC, DEC, NEG, NOT.
    pub(super) fn unary(&mut self, uop: &Uop) -> bool {
        let width = uop.width;
        let (opcode, extension) = match uop.op {
            Op::Inc => (0xff, 0),
            Op::Dec => (0xff, 1),
            Op::Neg => (0xf7, 3),
            _ => (0xf7, 2),
        };
        let form = Form::sized(Map::One, opcode, width);
        let keeps_carry = matches!(uop.op, Op::Inc | Op::Dec);
        if uop.form.has_memory() {
            let form = form.locked(uop.lock);
            if uop.op == Op::Not {
                let access = self.plain(form, Value::Reg(extension), width, Way::Update);
                self.access(uop, access);
            } else if keeps_carry && self.wanted() {
                self.save_flags();
                let places = FlagPlaces::HOST;
                let plain = self.plain(form, Value::Reg(extension), width, Way::Update);
                self.access(uop, Access { carry: true, flags: Some(places), ..plain });
            } else {
                self.update(uop, form, Value::Reg(extension));
            }
            return true;
        }
        if uop.op == Op::Not {
            self.protect(uop.dst);
            self.change(uop.dst, width, true, |e, reg| e.asm.op(form, extension, Rm::R(reg)));
            return true;
        }
        let a = Operand::Slot(uop.dst);
        let none = Operand::Imm(0);
        if keeps_carry && self.wanted_flags() == flags::CF {
            // CF alone is looked at later: the host keeps its own, and what is stored stays.
            if !self.places.host {
                self.protect(uop.dst);
            }
            self.change(uop.dst, width, true, |e, reg| e.asm.op(form, extension, Rm::R(reg)));
            if self.places.host {
                self.places = FlagPlaces::HOST;
            }
            return true;
        }
        let carry_seen = self.wanted_flags() & flags::CF != 0;
        if keeps_carry && self.wanted() && carry_seen {
            let same_carry = matches!(self.places.recipe, Some(Recipe { kind: Kind::Inc | Kind::Dec, .. }))
                && self.places.late.is_none();
            if !same_carry {
                self.save_flags();
            }
            if !self.places.host {
                super::flags::load_carry(self.asm);
            }
            self.change(uop.dst, width, true, |e, reg| e.asm.op(form, extension, Rm::R(reg)));
            let kind = if uop.op == Op::Inc { Kind::Inc } else { Kind::Dec };
            self.flags_are(Some(Recipe::new(kind, width, a, none)));
            return true;
        }
        self.change(uop.dst, width, true, |e, reg| e.asm.op(form, extension, Rm::R(reg)));
        self.flags_are((uop.op == Op::Neg).then_some(Recipe::new(Kind::Neg, width, a, none)));
        true
    }

    /// CMOVcc and SETcc.
    pub(super) fn conditional(&mut self, uop: &Uop) -> bool {
        let cond = uop.cond & 15;
        if uop.op == Op::Set {
            if uop.form.has_memory() {
                self.load_flags_for(cond);
                self.asm.setcc(cond, slot(T3));
                self.clobber();
                let form = Form::sized(Map::One, 0x89, Width::B1);
                let access = self.plain(form, Value::In(T3), Width::B1, Way::Store);
                let access = self.address_of(&uop.mem, access);
                self.access_at(uop, access);
                return true;
            }
            self.load_flags_for(cond);
            self.drop_recipe_of(uop.dst);
            self.asm.setcc(cond, slot(uop.dst));
            return true;
        }
        let width = uop.width;
        let form = Form::word(Map::M0f, 0x40 | cond, width);
        if uop.form.has_memory() {
            self.load_to_scratch(uop, width);
        }
        self.load_flags_for(cond);
        self.drop_recipe_of(uop.dst);
        let source = if uop.form.has_memory() { Rm::R(S1) } else { slot(uop.src) };
        self.change(uop.dst, width, true, |e, reg| e.asm.op(form, reg, source));
        true
    }

    /// The host has the flags, and slot `dst` is about to change.
    fn drop_recipe_of(&mut self, dst: u8) {
        if self.places.recipe.is_some_and(|recipe| recipe.uses(dst)) {
            self.places.recipe = None;
        }
    }
}

/// A memory operand as a host address, if all its registers are the host's.
fn host_address(mem: &Mem) -> Option<Rm> {
    let disp = mem.disp as i32;
    let base = match mem.base {
        ZERO => None,
        n => Some(pinned(n)?),
    };
    Some(match (base, mem.index) {
        (Some(base), ZERO) => Rm::Base(base, disp),
        (None, ZERO) => return None,
        (Some(base), index) => Rm::Full { base, index: pinned(index)?, scale: mem.scale, disp },
        (None, index) => Rm::Scaled { index: pinned(index)?, scale: mem.scale, disp },
    })
}

/// The recipe after `dst op= source`.
fn result_recipe(op: Op, width: Width, dst: u8, source: Operand) -> Option<Recipe> {
    let kind = match op {
        Op::Add => Kind::AddResult,
        Op::Sub => Kind::SubResult,
        Op::And | Op::Or | Op::Xor => Kind::Logic,
        _ => return None,
    };
    let a = Operand::Slot(dst);
    if kind == Kind::Logic {
        return Some(Recipe::new(kind, width, a, Operand::Imm(0)));
    }
    (source != a).then_some(Recipe::new(kind, width, a, source))
}
