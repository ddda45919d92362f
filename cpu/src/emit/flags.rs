//! Where the guest's status flags are, and how they are found again.
//!
//! A flag-setting instruction leaves them in the host's flags. Most host instructions that follow destroy those, so a *recipe*
//! says how they can be made again from registers that have not changed (`cmp rax, rbx`: compare again). Only where a recipe
//! ends while the flags are still needed are they stored, in the form that LAHF and SETO give. Exits run recipes in Rust.

use super::asm::{Alu, Asm, Form, Map, Reg, Rm};
use super::block::Emitter;
use super::frame::frame;
use super::registers::{RAX, RCX, S0, slot};
use crate::exec::shift;
use crate::state::flags::{self, Lazy, LazyOp};
use crate::state::slots;
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// The six status flags: bits 15–8 as LAHF, bit 0 OF.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct SavedFlags(pub u64);

const LOW: u64 = flags::CF | flags::PF | flags::AF | flags::ZF | flags::SF;

impl SavedFlags {
    /// From RFLAGS.
    pub const fn of(rflags: u64) -> SavedFlags {
        SavedFlags((rflags & LOW | flags::FIXED) << 8 | rflags >> 11 & 1)
    }
    /// As bits of RFLAGS.
    pub const fn status(self) -> u64 {
        self.0 >> 8 & LOW | (self.0 & 1) << 11
    }
}

/// Where the first operand of a recipe is held after its register has changed. (The lower ones are those of shifts and
/// products, and of [`Late`].)
const HELD_A: u8 = 3;
/// The second one.
const HELD_B: u8 = 4;

/// An operand of a recipe.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A guest register.
    Slot(u8),
    /// A number.
    Imm(i32),
    /// `Frame::held`.
    Held(u8),
}

/// What made the flags.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// a − b, neither changed since.
    Sub,
    /// a is the result of subtracting b.
    SubResult,
    /// a is the result of adding b.
    AddResult,
    /// a is the result of a logical operation.
    Logic,
    /// a is the result of INC; CF is the saved one.
    Inc,
    /// a is the result of DEC; CF is the saved one.
    Dec,
    /// a is the result of NEG.
    Neg,
    /// a is the low half of a product; CF and OF are byte 0 of `held[1]`.
    Mul,
    /// a was shifted left by b. By a count in `held` that is zero, the flags are the saved ones.
    Shl,
    /// a was shifted right by b; as for `Shl`.
    Shr,
    /// The same, with copies of the sign.
    Sar,
}

impl Kind {
    /// Whether the host makes all flags of this kind as Umbra defines them.
    fn is_exact(self) -> bool {
        !matches!(self, Kind::Mul | Kind::Shl | Kind::Shr | Kind::Sar)
    }
}

/// CF, or CF and OF, as an instruction has set them that keeps the other flags.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Late {
    /// CF is bit 0 of `held[2]`.
    Carry,
    /// `held[2]` was rotated left.
    Left(Width),
    /// `held[2]` was rotated right.
    Right(Width),
}

impl Late {
    /// Puts them into RFLAGS.
    fn apply(self, cpu: &mut Vcpu) {
        let held = cpu.link.frame.held[2];
        let bit = |n: u32| held >> n & 1;
        let (mask, carry, overflow) = match self {
            Late::Carry => (flags::CF, bit(0), 0),
            Late::Left(width) => (flags::CF | flags::OF, bit(0), bit(width.bits() - 1) ^ bit(0)),
            Late::Right(width) => {
                let top = bit(width.bits() - 1);
                (flags::CF | flags::OF, top, top ^ bit(width.bits() - 2))
            }
        };
        cpu.state.rflags = cpu.state.rflags & !mask | carry | overflow << 11;
    }

    /// Puts them into the image. Changes the first scratch register only, as all of this module does: the second may hold a
    /// value that was loaded.
    fn merge(self, asm: &mut Asm) {
        let held = Rm::cpu(frame!(held) + 16);
        let mask = match self {
            Late::Carry => {
                asm.load_zero(Width::B1, S0, held);
                asm.alu_imm(Alu::And, Width::B4, Rm::R(S0), 1);
                asm.shift_imm(4, Width::B4, Rm::R(S0), 8);
                0x100
            }
            Late::Left(width) | Late::Right(width) => {
                // Bit 0 of S0: the top bit; then CF in RAX, OF in S0.
                let top = (width.bits() - 1) as u8;
                asm.raw(&[0x50]); // PUSH RAX
                asm.load(Width::B8, RAX, held);
                asm.rorx(Width::B8, S0, Rm::R(RAX), top);
                if let Late::Right(_) = self {
                    asm.rorx(Width::B8, RAX, Rm::R(RAX), top - 1);
                    asm.alu(Alu::Xor, Width::B4, RAX, Rm::R(S0));
                    asm.op(Form::sized(Map::One, 0x87, Width::B8), S0, Rm::R(RAX));
                } else {
                    asm.alu(Alu::Xor, Width::B4, S0, Rm::R(RAX));
                }
                asm.alu_imm(Alu::And, Width::B4, Rm::R(S0), 1);
                asm.alu_imm(Alu::And, Width::B4, Rm::R(RAX), 1);
                asm.shift_imm(4, Width::B4, Rm::R(RAX), 8);
                asm.alu(Alu::Or, Width::B4, S0, Rm::R(RAX));
                asm.raw(&[0x58]); // POP RAX
                0x101
            }
        };
        asm.alu_imm(Alu::And, Width::B2, Rm::cpu(frame!(image)), !mask);
        asm.op(Alu::Or.to_rm(Width::B2), S0, Rm::cpu(frame!(image)));
    }
}

/// How to make the status flags again.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recipe {
    /// What made them.
    pub kind: Kind,
    /// At which width.
    pub width: Width,
    /// The operands, as [`Recipe::operand`] reads them: a slot, from `HELD` on a place that is held, or the number.
    operands: [u8; 2],
    number: i32,
}

/// In [`Recipe::operands`]: the first of [`Frame::held`](super::Frame::held).
const HELD: u8 = 0xf0;
/// The number.
const NUMBER: u8 = 0xff;
const _: () = assert!(slots::COUNT <= HELD && HELD + HELD_B < NUMBER);

impl Recipe {
    /// Of these operands, of which one may be a number.
    pub fn new(kind: Kind, width: Width, a: Operand, b: Operand) -> Recipe {
        let code = |operand| match operand {
            Operand::Slot(n) => n,
            Operand::Held(n) => HELD + n,
            Operand::Imm(_) => NUMBER,
        };
        let number = match (a, b) {
            (_, Operand::Imm(number)) | (Operand::Imm(number), _) => number,
            _ => 0,
        };
        debug_assert!(!matches!((a, b), (Operand::Imm(_), Operand::Imm(_))), "one number");
        Recipe { kind, width, operands: [code(a), code(b)], number }
    }
    fn operand(&self, n: usize) -> Operand {
        match self.operands[n & 1] {
            NUMBER => Operand::Imm(self.number),
            held @ HELD.. => Operand::Held(held - HELD),
            slot => Operand::Slot(slot),
        }
    }
    /// Reads slot `dst` where it is held from now on: gives which of the places that is.
    fn hold(&mut self, dst: u8) -> Option<u8> {
        let first = self.operands.iter().position(|operand| *operand == dst)?;
        let place = if first == 0 { HELD_A } else { HELD_B };
        self.operands.iter_mut().filter(|operand| **operand == dst).for_each(|operand| *operand = HELD + place);
        Some(place)
    }
    /// The first operand.
    pub fn a(&self) -> Operand {
        self.operand(0)
    }
    /// The second.
    pub fn b(&self) -> Operand {
        self.operand(1)
    }
    /// Whether the host makes all these flags as Umbra defines them.
    pub fn is_exact(&self) -> bool {
        self.kind.is_exact()
    }

    /// Whether it reads a guest register.
    pub fn uses(&self, slot: u8) -> bool {
        self.operands.contains(&slot)
    }

    /// The flags if this is a shift of `a` by `b`: none of its own if the count is zero.
    fn shifted(&self, a: u64, b: u64) -> Option<Option<u64>> {
        use shift::{Sar, Shl, Shr, status};
        let count = b as u32 & if self.width == Width::B8 { 63 } else { 31 };
        let of = match self.kind {
            Kind::Shl => status::<Shl>,
            Kind::Shr => status::<Shr>,
            Kind::Sar => status::<Sar>,
            _ => return None,
        };
        Some((count != 0).then(|| of(self.width, a, count)))
    }

    /// Makes the flags of a vCPU whose registers are all in its state.
    pub fn apply(&self, cpu: &mut Vcpu) {
        let mask = self.width.mask();
        let value = |operand| {
            mask & match operand {
                Operand::Slot(n) => cpu.state.slots.get(n),
                Operand::Imm(imm) => i64::from(imm) as u64,
                Operand::Held(n) => cpu.link.frame.held.get(usize::from(n)).copied().unwrap_or(0),
            }
        };
        if let Some(status) = self.shifted(value(self.a()), value(self.b())) {
            let status = status.unwrap_or(cpu.link.frame.image.status());
            cpu.state.rflags = cpu.state.rflags & !flags::STATUS | status;
            cpu.link.lazy.op = LazyOp::None;
            return;
        }
        let (a, b) = (value(self.a()), value(self.b()));
        let carry = cpu.link.frame.image.status() & flags::CF;
        let (op, result, source) = match self.kind {
            Kind::Sub => (LazyOp::Sub, a.wrapping_sub(b) & mask, b),
            Kind::SubResult => (LazyOp::Sub, a, b),
            Kind::AddResult => (LazyOp::Add, a, b),
            Kind::Logic | Kind::Mul | Kind::Shl | Kind::Shr | Kind::Sar => (LazyOp::Logic, a, 0),
            Kind::Inc => (LazyOp::Inc, a, carry),
            Kind::Dec => (LazyOp::Dec, a, carry),
            Kind::Neg => (LazyOp::Sub, a, a.wrapping_neg() & mask),
        };
        let mut status = Lazy { result, source, op, width_log2: self.width as u8 }.status();
        if self.kind == Kind::Mul && cpu.link.frame.held[1] & 1 != 0 {
            status |= flags::CF | flags::OF;
        }
        cpu.state.rflags = cpu.state.rflags & !flags::STATUS | status;
        cpu.link.lazy.op = LazyOp::None;
    }
}

/// Where the flags are when emitted code is left at a site.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SiteFlags {
    /// In `Frame::image`.
    Saved,
    /// To be made.
    Recipe(Recipe),
    /// CF, and perhaps OF, apart from the others, which are saved or to be made.
    Late(Option<Recipe>, Late),
    /// Already in RFLAGS, or nobody can see them.
    Current,
}

impl SiteFlags {
    /// Puts the flags into RFLAGS.
    pub fn restore(&self, cpu: &mut Vcpu) {
        match self {
            SiteFlags::Saved => {
                let status = cpu.link.frame.image.status();
                cpu.state.rflags = cpu.state.rflags & !flags::STATUS | status;
                cpu.link.lazy.op = LazyOp::None;
            }
            SiteFlags::Recipe(recipe) => recipe.apply(cpu),
            SiteFlags::Late(recipe, late) => {
                recipe.map_or(SiteFlags::Saved, SiteFlags::Recipe).restore(cpu);
                late.apply(cpu);
            }
            SiteFlags::Current => {}
        }
    }
}

/// Where the flags are while code is being made. All false and none: nobody needs them.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct FlagPlaces {
    /// In the host's flags.
    pub host: bool,
    /// In the host's flags, but for OF and AF.
    pub most: bool,
    /// To be made again.
    pub recipe: Option<Recipe>,
    /// In `Frame::image`.
    pub saved: bool,
    /// CF, and perhaps OF, are not there, but here. The host's flags then hold nothing.
    pub late: Option<Late>,
}

impl FlagPlaces {
    /// In the image only.
    pub const SAVED: FlagPlaces = FlagPlaces { host: false, most: false, recipe: None, saved: true, late: None };
    /// In the host's flags only.
    pub const HOST: FlagPlaces = FlagPlaces { host: true, saved: false, ..FlagPlaces::SAVED };

    /// For a site: the host's flags do not survive an exit.
    pub fn at_site(&self) -> SiteFlags {
        match self {
            FlagPlaces { late: Some(late), saved, recipe, .. } => SiteFlags::Late(recipe.filter(|_| !saved), *late),
            FlagPlaces { saved: true, .. } => SiteFlags::Saved,
            FlagPlaces { recipe: Some(recipe), .. } => SiteFlags::Recipe(*recipe),
            _ => SiteFlags::Current,
        }
    }
}

/// Stores the host's flags; they stay as they are.
pub fn save(asm: &mut Asm) {
    asm.mov(S0, RAX);
    asm.raw(&[0x9f]); // LAHF
    asm.setcc(0, Rm::R(RAX));
    asm.store(Width::B2, Rm::cpu(frame!(image)), RAX);
    asm.mov(RAX, S0);
}

/// Loads the host's flags from the image.
pub fn load(asm: &mut Asm) {
    asm.mov(S0, RAX);
    asm.load_zero(Width::B2, RAX, Rm::cpu(frame!(image)));
    asm.alu_imm(Alu::Add, Width::B1, Rm::R(RAX), 0x7f);
    asm.raw(&[0x9e]); // SAHF
    asm.mov(RAX, S0);
}

/// CF of the host = CF of the image.
pub fn load_carry(asm: &mut Asm) {
    asm.op(Form::word(Map::M0f, 0xba, Width::B2).with(8, 1), 4, Rm::cpu(frame!(image)));
}

fn place(operand: Operand) -> Rm {
    match operand {
        Operand::Slot(n) => slot(n),
        Operand::Imm(imm) => Rm::Absolute(imm),
        Operand::Held(n) => Rm::cpu(frame!(held) + 8 * usize::from(n)),
    }
}

/// `reg op= operand`.
fn apply(asm: &mut Asm, op: Alu, width: Width, reg: Reg, operand: Operand) {
    match operand {
        Operand::Imm(imm) => asm.alu_imm(op, width, Rm::R(reg), i64::from(imm)),
        _ => asm.alu(op, width, reg, place(operand)),
    }
}

/// Makes the host's flags by a recipe. Changes the first scratch register.
pub fn cook(asm: &mut Asm, recipe: &Recipe) {
    let width = recipe.width;
    // Narrow moves would merge; whole ones are as good, since only the low part counts.
    let whole = if width == Width::B8 { Width::B8 } else { Width::B4 };
    match recipe.kind {
        Kind::Sub => match (place(recipe.a()), recipe.b()) {
            (Rm::R(a), b) => apply(asm, Alu::Cmp, width, a, b),
            (a, Operand::Imm(b)) => asm.alu_imm(Alu::Cmp, width, a, i64::from(b)),
            (a, b) => {
                asm.load(whole, S0, a);
                apply(asm, Alu::Cmp, width, S0, b);
            }
        },
        Kind::SubResult => {
            asm.load(whole, S0, place(recipe.a()));
            apply(asm, Alu::Add, width, S0, recipe.b());
            apply(asm, Alu::Sub, width, S0, recipe.b());
        }
        Kind::AddResult => {
            asm.load(whole, S0, place(recipe.a()));
            apply(asm, Alu::Sub, width, S0, recipe.b());
            apply(asm, Alu::Add, width, S0, recipe.b());
        }
        Kind::Logic => match place(recipe.a()) {
            Rm::R(a) => asm.test(width, a, a),
            a => asm.alu_imm(Alu::Cmp, width, a, 0),
        },
        Kind::Inc | Kind::Dec => {
            let (there, back) = if recipe.kind == Kind::Inc { (1, 0) } else { (0, 1) };
            asm.load(whole, S0, place(recipe.a()));
            let form = Form::sized(Map::One, 0xff, width);
            asm.op(form, there, Rm::R(S0));
            load_carry(asm);
            asm.op(form, back, Rm::R(S0));
        }
        Kind::Neg => {
            let form = Form::sized(Map::One, 0xf7, width);
            asm.load(whole, S0, place(recipe.a()));
            asm.op(form, 3, Rm::R(S0));
            asm.op(form, 3, Rm::R(S0));
        }
        // Not makeable in the host's flags: `cook_and_save`.
        Kind::Mul | Kind::Shl | Kind::Shr | Kind::Sar => {}
    }
}

/// Stores the flags after a multiplication.
fn save_product(asm: &mut Asm, recipe: &Recipe) {
    let whole = if recipe.width == Width::B8 { Width::B8 } else { Width::B4 };
    asm.load(whole, S0, place(recipe.a()));
    asm.test(recipe.width, S0, S0);
    asm.mov(S0, RAX);
    asm.raw(&[0x9f]); // LAHF
    asm.load(Width::B1, RAX, Rm::cpu(frame!(held) + 8));
    asm.raw(&[0x08, 0xc4]); // OR AH, AL
    asm.store(Width::B2, Rm::cpu(frame!(image)), RAX);
    asm.mov(RAX, S0);
}

/// Stores the flags after a shift, which is made once more: AF is clear, OF that of the last single step.
fn save_shift(asm: &mut Asm, recipe: &Recipe) {
    let width = recipe.width;
    let whole = if width == Width::B8 { Width::B8 } else { Width::B4 };
    let extension = match recipe.kind {
        Kind::Shl => 4,
        Kind::Shr => 5,
        _ => 7,
    };
    let none = asm.label();
    match recipe.b() {
        Operand::Imm(count) => {
            asm.load(whole, S0, place(recipe.a()));
            asm.shift_imm(extension, width, Rm::R(S0), count as u8);
        }
        count => {
            asm.raw(&[0x51]); // PUSH RCX
            asm.load(Width::B8, RCX, place(count));
            asm.op(Form::sized(Map::One, 0xf7, Width::B1).with(width.bits() as i64 - 1, 1), 0, Rm::R(RCX));
            asm.jcc(4, none);
            asm.load(whole, S0, place(recipe.a()));
            asm.op(Form::sized(Map::One, 0xd3, width), extension, Rm::R(S0));
        }
    }
    asm.raw(&[0x50, 0x9f]); // PUSH RAX; LAHF
    match recipe.kind {
        Kind::Shl => {
            // OF = SF ^ CF.
            asm.raw(&[0x88, 0xe0]); // MOV AL, AH
            asm.shift_imm(0, Width::B1, Rm::R(RAX), 1); // ROL AL, 1: SF to bit 0, CF to bit 1
            asm.raw(&[0x30, 0xe0]); // XOR AL, AH: bit 0 = SF ^ CF
            asm.alu_imm(Alu::And, Width::B1, Rm::R(RAX), 1);
        }
        Kind::Shr => {
            // After a single step the bit below the top is the one that was the top.
            asm.op(Form::word(Map::M0f, 0xba, whole).with(i64::from(width.bits()) - 2, 1), 4, Rm::R(S0));
            asm.setcc(2, Rm::R(RAX));
        }
        _ => asm.op(Form::sized(Map::One, 0xc7, Width::B1).with(0, 1), 0, Rm::R(RAX)),
    }
    asm.raw(&[0x80, 0xe4, 0xef]); // AND AH, !AF
    asm.store(Width::B2, Rm::cpu(frame!(image)), RAX);
    asm.raw(&[0x58]); // POP RAX
    if !matches!(recipe.b(), Operand::Imm(_)) {
        asm.bind(none);
        asm.raw(&[0x59]); // POP RCX
    }
}

/// Makes the flags by a recipe and stores them.
pub fn cook_and_save(asm: &mut Asm, recipe: &Recipe) {
    match recipe.kind {
        Kind::Mul => save_product(asm, recipe),
        Kind::Shl | Kind::Shr | Kind::Sar => save_shift(asm, recipe),
        _ => {
            cook(asm, recipe);
            save(asm);
        }
    }
}

impl Emitter<'_> {
    /// Before host instructions that destroy the host's flags.
    pub fn clobber(&mut self) {
        if self.places.host && self.places.recipe.is_none() && !self.places.saved {
            save(self.asm);
            self.places.saved = true;
        }
        (self.places.host, self.places.most) = (false, false);
    }

    /// The flags are needed in the image.
    pub fn save_flags(&mut self) {
        if let Some(late) = self.places.late.take() {
            self.save_flags();
            late.merge(self.asm);
            self.places = FlagPlaces::SAVED;
            return;
        }
        if self.places.saved || self.places == FlagPlaces::default() {
            return;
        }
        match self.places.recipe {
            Some(recipe) if !self.places.host => {
                cook_and_save(self.asm, &recipe);
                (self.places.host, self.places.most) = (recipe.kind.is_exact(), false);
            }
            _ => save(self.asm),
        }
        self.places.saved = true;
    }

    /// The flags are needed in the host's flags.
    pub fn load_flags(&mut self) {
        if self.places.host {
            return;
        }
        match self.places {
            FlagPlaces { recipe: Some(recipe), late: None, .. } if recipe.kind.is_exact() => cook(self.asm, &recipe),
            FlagPlaces { recipe: None, late: None, .. } => load(self.asm),
            _ => {
                self.save_flags();
                load(self.asm);
            }
        }
        (self.places.host, self.places.most) = (true, false);
    }

    /// Those that a condition looks at are needed in the host's flags.
    pub fn load_flags_for(&mut self, cond: u8) {
        // Overflow, less, and their kin look at OF.
        if !self.places.most || matches!(cond, 0 | 1 | 12..) {
            self.load_flags();
        }
    }

    /// Before an instruction that replaces CF, and perhaps OF, of all flags: the others are to be found elsewhere than in
    /// the host's flags and slot `dst`.
    pub fn keep_others(&mut self, dst: u8) {
        let places = &mut self.places;
        places.late = None;
        if !places.saved && places.recipe.is_none() {
            self.save_flags();
        }
        self.hold_operands(dst);
        self.clobber();
        if self.places.saved {
            self.places.recipe = None;
        }
    }

    /// A slot's value, for a recipe.
    pub fn hold_slot(&mut self, n: u8) {
        let reg = super::registers::pinned(n).unwrap_or_else(|| {
            self.asm.load(Width::B8, S0, slot(n));
            S0
        });
        self.hold(reg);
    }

    /// Before slot `dst` is changed by an instruction that does not replace the flags.
    pub fn protect(&mut self, dst: u8) {
        let uses = self.places.recipe.is_some_and(|recipe| recipe.uses(dst));
        if !uses {
            return;
        }
        if !self.places.saved && (self.needed_here() || self.needed_after()) {
            return self.hold_operands(dst);
        }
        self.places.recipe = None;
        if !self.places.saved {
            // Nobody needs them.
            self.places.late = None;
        }
    }

    /// Keeps what slot `dst` holds for the recipe, unless the flags are saved. The host's flags stay.
    fn hold_operands(&mut self, dst: u8) {
        let FlagPlaces { recipe: Some(recipe), saved: false, .. } = &mut self.places else { return };
        if let Some(place) = recipe.hold(dst) {
            let reg = super::registers::pinned(dst).unwrap_or_else(|| {
                self.asm.load(Width::B8, S0, slot(dst));
                S0
            });
            self.asm.store(Width::B8, Rm::cpu(frame!(held) + 8 * usize::from(place)), reg);
        }
    }

    /// The host's flags are now the guest's, if anybody wants them.
    pub fn flags_are(&mut self, recipe: Option<Recipe>) {
        self.places = match self.wanted() {
            true => FlagPlaces { recipe, ..FlagPlaces::HOST },
            false => FlagPlaces::default(),
        };
    }
}
