//! Where the guest's status flags are, and how they are found again.
//!
//! A flag-setting instruction leaves them in the host's flags. Most host instructions that follow destroy those, so a *recipe*
//! says how they can be made again from registers that have not changed (`cmp rax, rbx`: compare again). Only where a recipe
//! ends while the flags are still needed are they stored, in the form that LAHF and SETO give. Exits run recipes in Rust.

use super::asm::{Alu, Asm, Form, Map, Reg, Rm};
use super::block::Emitter;
use super::frame::frame;
use super::registers::{RAX, S0, slot};
use crate::state::flags::{self, Lazy, LazyOp};
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
}

/// How to make the status flags again.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recipe {
    /// What made them.
    pub kind: Kind,
    /// At which width.
    pub width: Width,
    /// The first operand.
    pub a: Operand,
    /// The second.
    pub b: Operand,
}

impl Recipe {
    /// Whether it reads a guest register.
    pub fn uses(&self, slot: u8) -> bool {
        self.a == Operand::Slot(slot) || self.b == Operand::Slot(slot)
    }

    /// Makes the flags of a vCPU whose registers are all in its state.
    pub fn apply(&self, cpu: &mut Vcpu) {
        let mask = self.width.mask();
        let value = |operand| {
            mask & match operand {
                Operand::Slot(n) => cpu.state.slots.get(n),
                Operand::Imm(imm) => i64::from(imm) as u64,
                Operand::Held(n) => cpu.link.frame.held[usize::from(n) & 1],
            }
        };
        let (a, b) = (value(self.a), value(self.b));
        let carry = cpu.link.frame.image.status() & flags::CF;
        let (op, result, source) = match self.kind {
            Kind::Sub => (LazyOp::Sub, a.wrapping_sub(b) & mask, b),
            Kind::SubResult => (LazyOp::Sub, a, b),
            Kind::AddResult => (LazyOp::Add, a, b),
            Kind::Logic | Kind::Mul => (LazyOp::Logic, a, 0),
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
            SiteFlags::Current => {}
        }
    }
}

/// Where the flags are while code is being made. All false and none: nobody needs them.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct FlagPlaces {
    /// In the host's flags.
    pub host: bool,
    /// To be made again.
    pub recipe: Option<Recipe>,
    /// In `Frame::image`.
    pub saved: bool,
}

impl FlagPlaces {
    /// In the image only.
    pub const SAVED: FlagPlaces = FlagPlaces { host: false, recipe: None, saved: true };

    /// For a site: the host's flags do not survive an exit.
    pub fn at_site(&self) -> SiteFlags {
        match self {
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
        Kind::Sub => match (place(recipe.a), recipe.b) {
            (Rm::R(a), b) => apply(asm, Alu::Cmp, width, a, b),
            (a, Operand::Imm(b)) => asm.alu_imm(Alu::Cmp, width, a, i64::from(b)),
            (a, b) => {
                asm.load(whole, S0, a);
                apply(asm, Alu::Cmp, width, S0, b);
            }
        },
        Kind::SubResult => {
            asm.load(whole, S0, place(recipe.a));
            apply(asm, Alu::Add, width, S0, recipe.b);
            apply(asm, Alu::Sub, width, S0, recipe.b);
        }
        Kind::AddResult => {
            asm.load(whole, S0, place(recipe.a));
            apply(asm, Alu::Sub, width, S0, recipe.b);
            apply(asm, Alu::Add, width, S0, recipe.b);
        }
        Kind::Logic => match place(recipe.a) {
            Rm::R(a) => asm.test(width, a, a),
            a => asm.alu_imm(Alu::Cmp, width, a, 0),
        },
        Kind::Inc | Kind::Dec => {
            let (there, back) = if recipe.kind == Kind::Inc { (1, 0) } else { (0, 1) };
            asm.load(whole, S0, place(recipe.a));
            let form = Form::sized(Map::One, 0xff, width);
            asm.op(form, there, Rm::R(S0));
            load_carry(asm);
            asm.op(form, back, Rm::R(S0));
        }
        Kind::Neg => {
            let form = Form::sized(Map::One, 0xf7, width);
            asm.load(whole, S0, place(recipe.a));
            asm.op(form, 3, Rm::R(S0));
            asm.op(form, 3, Rm::R(S0));
        }
        // Not makeable in the host's flags: `save_product`.
        Kind::Mul => {}
    }
}

/// Stores the flags after a multiplication.
fn save_product(asm: &mut Asm, recipe: &Recipe) {
    let whole = if recipe.width == Width::B8 { Width::B8 } else { Width::B4 };
    asm.load(whole, S0, place(recipe.a));
    asm.test(recipe.width, S0, S0);
    asm.mov(S0, RAX);
    asm.raw(&[0x9f]); // LAHF
    asm.load(Width::B1, RAX, Rm::cpu(frame!(held) + 8));
    asm.raw(&[0x08, 0xc4]); // OR AH, AL
    asm.store(Width::B2, Rm::cpu(frame!(image)), RAX);
    asm.mov(RAX, S0);
}

/// Makes the flags by a recipe and stores them.
pub fn cook_and_save(asm: &mut Asm, recipe: &Recipe) {
    if recipe.kind == Kind::Mul {
        return save_product(asm, recipe);
    }
    cook(asm, recipe);
    save(asm);
}

impl Emitter<'_> {
    /// Before host instructions that destroy the host's flags.
    pub fn clobber(&mut self) {
        if self.places.host && self.places.recipe.is_none() && !self.places.saved {
            save(self.asm);
            self.places.saved = true;
        }
        self.places.host = false;
    }

    /// The flags are needed in the image.
    pub fn save_flags(&mut self) {
        if self.places.saved || self.places == FlagPlaces::default() {
            return;
        }
        match self.places.recipe {
            Some(recipe) if !self.places.host => {
                cook_and_save(self.asm, &recipe);
                self.places.host = recipe.kind != Kind::Mul;
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
        match self.places.recipe {
            Some(recipe) if recipe.kind != Kind::Mul => cook(self.asm, &recipe),
            Some(_) => {
                self.save_flags();
                load(self.asm);
            }
            None => load(self.asm),
        }
        self.places.host = true;
    }

    /// Before slot `dst` is changed by an instruction that does not replace the flags.
    pub fn protect(&mut self, dst: u8) {
        let uses = self.places.recipe.is_some_and(|recipe| recipe.uses(dst));
        if !uses {
            return;
        }
        if !self.places.saved && !self.places.host && (self.needed_here() || self.needed_after()) {
            self.save_flags();
        }
        self.places.recipe = None;
    }

    /// The host's flags are now the guest's, if anybody wants them.
    pub fn flags_are(&mut self, recipe: Option<Recipe>) {
        self.places = match self.wanted() {
            true => FlagPlaces { host: true, recipe, saved: false },
            false => FlagPlaces::default(),
        };
    }
}
