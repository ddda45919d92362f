//! The stack, and the ends of blocks: jumps, calls, returns (`exec::stack`, `exec::branch`).

use super::Disable;
use super::address::{Access, At, Value, Way};
use super::asm::{Alu, Form, Map, Rm};
use super::block::{Emitter, Live};
use super::flags::{Kind, Operand, Recipe, SiteFlags};
use super::frame::frame;
use super::gate::{self, Status};
use super::registers::{BP, S0, S1, SP, pinned, slot};
use super::site::{Edge, Place, Site};
use crate::mode::ModeBits;
use crate::state::Seg;
use crate::state::slots::{RBP, RSP};
use crate::uop::{Form as Shape, Op, Uop, Width};
use umbra_mmu::addr::PAGE_OFFSET;

/// The width of the stack pointer of a stack uop, if emitted code can handle it.
fn sp_width(uop: &Uop) -> Option<Width> {
    match uop.cond {
        2 => Some(Width::B4),
        3 => Some(Width::B8),
        _ => None,
    }
}

impl Emitter<'_> {
    /// PUSH, POP, LEAVE and changes of the stack pointer.
    pub(super) fn stack(&mut self, uop: &Uop) -> bool {
        let Some(sp) = sp_width(uop) else { return false };
        let width = uop.width;
        match uop.op {
            Op::Push => return self.push(uop, sp),
            Op::Pop => {
                self.protect(uop.dst);
                self.protect(RSP);
                self.clobber();
                let at = Some(At { base: SP, disp: 0, width: sp });
                let (form, bytes) = (Form::sized(Map::One, 0x8b, width), width.bytes() as u8);
                // The stack pointer moves before the destination is written: POP RSP keeps what was popped.
                let access = Access { at, ..Access::plain(form, Value::Reg(S1), bytes, Way::Load) };
                self.access_at(uop, access);
                self.asm.lea(sp, SP, Rm::Base(SP, i32::from(bytes)));
                match pinned(uop.dst) {
                    Some(reg) => self.asm.load(width, reg, Rm::R(S1)),
                    None if width < Width::B4 => self.asm.store(width, slot(uop.dst), S1),
                    None => self.asm.store(Width::B8, slot(uop.dst), S1),
                }
            }
            Op::Leave => {
                self.protect(RBP);
                self.protect(RSP);
                self.clobber();
                let at = Some(At { base: BP, disp: 0, width: sp });
                let (form, bytes) = (Form::sized(Map::One, 0x8b, width), width.bytes() as u8);
                let access = Access { at, ..Access::plain(form, Value::Reg(S1), bytes, Way::Load) };
                self.access_at(uop, access);
                self.asm.lea(sp, SP, Rm::Base(BP, i32::from(bytes)));
                self.asm.load(width, BP, Rm::R(S1));
            }
            _ => {
                let Ok(imm) = i32::try_from(uop.imm) else { return false };
                self.protect(RSP);
                self.asm.lea(sp, SP, Rm::Base(SP, imm));
            }
        }
        true
    }

    fn push(&mut self, uop: &Uop, sp: Width) -> bool {
        let width = uop.width;
        let bytes = width.bytes() as u8;
        self.protect(RSP);
        if uop.form.has_memory() {
            self.load_to_scratch(uop, width);
            // The value waits in the frame: the second access needs both scratch registers.
            self.asm.store(Width::B8, slot(crate::state::slots::T3), S1);
            let value = Value::In(crate::state::slots::T3);
            self.push_value(uop, sp, Form::sized(Map::One, 0x89, width), value);
            return true;
        }
        if uop.form == Shape::RI {
            let imm = uop.imm;
            let form = Form::sized(Map::One, 0xc7, width).with(imm, bytes.min(4));
            if i64::from(imm as i32) != imm && width == Width::B8 {
                return false;
            }
            self.push_value(uop, sp, form, Value::Reg(0));
            return true;
        }
        self.push_value(uop, sp, Form::sized(Map::One, 0x89, width), Value::source(uop.src));
        true
    }

    fn push_value(&mut self, uop: &Uop, sp: Width, form: Form, value: Value) {
        let bytes = uop.width.bytes() as u8;
        self.clobber();
        let at = Some(At { base: SP, disp: -i32::from(bytes), width: sp });
        let access = Access { sp: -(bytes as i8), sp_width: sp, at, ..Access::plain(form, value, bytes, Way::Store) };
        // The operand of the push itself is on the stack, whatever its source was.
        let uop = Uop { seg: Seg::Ss, ..*uop };
        self.access_at(&uop, access);
    }

    /// Blocks that end with a known target, or two.
    pub(super) fn direct(&mut self, uop: &Uop) -> bool {
        match uop.op {
            Op::Jmp => self.edge(uop, uop.target),
            Op::End => self.edge(uop, uop.next_rip),
            Op::CallNear => return self.call(uop),
            _ => {
                let cond = match uop.op {
                    Op::CmpJcc | Op::TestJcc => {
                        self.fused(uop);
                        uop.cond & 15
                    }
                    _ => self.host_condition(uop.cond & 15),
                };
                self.two_edges(uop, cond);
            }
        }
        true
    }

    fn fused(&mut self, uop: &Uop) {
        let width = uop.width;
        let source = match uop.form {
            Shape::RI => Operand::Imm(uop.imm as i32),
            _ => Operand::Slot(uop.src),
        };
        let a = Operand::Slot(uop.dst);
        if uop.op == Op::CmpJcc {
            self.compare(width, uop.dst, source);
            return self.flags_are(Some(Recipe::new(Kind::Sub, width, a, source)));
        }
        self.test(width, uop.dst, source);
        let same = source == Operand::Slot(uop.dst);
        let recipe = Recipe::new(Kind::Logic, width, a, Operand::Imm(0));
        self.flags_are(same.then_some(recipe));
    }

    /// The condition as the host's flags have it; from the image a single flag is tested where it is.
    pub(super) fn host_condition(&mut self, cond: u8) -> u8 {
        if self.places.late.is_some() {
            self.save_flags();
        }
        if self.places.host || !self.places.saved {
            self.load_flags_for(cond);
            return cond;
        }
        let (byte, bit) = match cond >> 1 {
            0 => (0, 0x01),
            1 => (1, 0x01),
            2 => (1, 0x40),
            4 => (1, 0x80),
            5 => (1, 0x04),
            _ => {
                self.load_flags();
                return cond;
            }
        };
        let form = Form::sized(Map::One, 0xf7, Width::B1).with(bit, 1);
        self.asm.op(form, 0, Rm::cpu(frame!(image) + byte));
        // Set: not zero.
        5 ^ cond & 1
    }

    fn two_edges(&mut self, uop: &Uop, cond: u8) {
        // Both ends need the flags where an exit finds them.
        self.note_x87();
        self.keep_for_edges();
        let site = self.end_site(uop);
        self.jump(uop, site, uop.target, Some(cond));
        self.jump(uop, site, uop.next_rip, None);
    }

    /// Flags that only the host's flags hold are stored: what follows destroys them.
    fn keep_for_edges(&mut self) {
        let host_alone = self.places.host && self.places.recipe.is_none() && !self.places.saved;
        if host_alone || self.places.late.is_some() {
            self.save_flags();
        }
    }

    /// The end of the block towards `target`: attention after a call (its push may have written code), and the jump.
    pub(super) fn edge(&mut self, uop: &Uop, target: u64) {
        self.note_x87();
        self.keep_for_edges();
        let site = self.end_site(uop);
        self.jump(uop, site, target, None);
    }

    /// The site of the block's end, where all of it is done.
    fn end_site(&mut self, uop: &Uop) -> u32 {
        let site = self.site(uop);
        self.add_site(Site { charged: 0, ..site })
    }

    /// A jump at the block's end, under a condition of the host's flags or none, that is linked when the target is known.
    fn jump(&mut self, uop: &Uop, site: u32, target: u64, cond: Option<u8>) {
        let same_page = (self.context.key.rip ^ target) & !PAGE_OFFSET == 0
            && self.context.key.linear & PAGE_OFFSET == self.context.key.rip & PAGE_OFFSET;
        let target = if self.context.key.mode.has(ModeBits::L) { target } else { target & 0xffff_ffff };
        let edge = self.sites.push_edge(Edge::new(target, site, same_page));
        if uop.op == Op::CallNear {
            let stop = self.exit_label(Status::Stop, Place::Edge(edge).number());
            self.asm.load(Width::B8, S0, Rm::cpu(frame!(attention)));
            self.asm.alu_imm(Alu::Cmp, Width::B4, Rm::Base(S0, 0), 0);
            self.asm.jcc(5, stop);
        }
        let cold = self.asm.label();
        match cond {
            Some(cond) => self.asm.jcc(cond, cold),
            None => self.asm.jmp(cold),
        }
        // The displacement is the last thing in the instruction.
        self.sites.set_at(edge, self.asm.len() - 4);
        self.unlinked_behind(cold, edge);
    }

    /// Leaves with RIP in the first scratch register.
    fn leave_with_target(&mut self, site: u32, live: Live) {
        let rip = std::mem::offset_of!(crate::vcpu::Vcpu, state) + std::mem::offset_of!(crate::state::State, rip);
        self.asm.store(Width::B8, Rm::cpu(rip), S0);
        self.exit(Status::Dynamic, site, live);
    }

    fn call(&mut self, uop: &Uop) -> bool {
        let Some(sp) = sp_width(uop) else { return false };
        self.protect(RSP);
        self.push_return(uop, sp);
        self.edge(uop, uop.target);
        true
    }

    fn push_return(&mut self, uop: &Uop, sp: Width) {
        let (width, next) = (uop.width, uop.next_rip);
        let imm = next as i64;
        if width < Width::B8 || i64::from(imm as i32) == imm {
            let form = Form::sized(Map::One, 0xc7, width).with(imm, (width.bytes() as u8).min(4));
            return self.push_value(uop, sp, form, Value::Reg(0));
        }
        let t3 = crate::state::slots::T3;
        self.asm.mov_imm(S0, next);
        self.asm.store(Width::B8, slot(t3), S0);
        self.push_value(uop, sp, Form::sized(Map::One, 0x89, width), Value::In(t3));
    }

    /// Indirect jumps and calls, returns.
    pub(super) fn indirect(&mut self, uop: &Uop) -> bool {
        let Some(sp) = sp_width(uop) else { return false };
        let mode = self.context.key.mode;
        let flat = mode.has(ModeBits::L) || mode.flat(Seg::Cs);
        if !flat || uop.width == Width::B2 || uop.imm > 0x7fff {
            return false;
        }
        // Whoever is jumped to finds the flags in the image.
        self.save_flags();
        self.note_x87();
        let width = uop.width;
        match uop.op {
            Op::Ret => {
                self.protect(RSP);
                self.clobber();
                let at = Some(At { base: SP, disp: 0, width: sp });
                let form = Form::sized(Map::One, 0x8b, width);
                let access = Access { at, ..Access::plain(form, Value::Reg(S0), width.bytes() as u8, Way::Load) };
                self.access_at(uop, access);
                self.return_to(uop);
                return true;
            }
            Op::JmpInd => {
                self.target_to_scratch(uop);
                self.known_target(uop, (0, sp));
                return true;
            }
            _ => {
                self.target_to_scratch(uop);
                self.check_canonical(uop);
                // The push needs both scratch registers.
                let t2 = slot(crate::state::slots::T2);
                self.asm.store(Width::B8, t2, S0);
                self.protect(RSP);
                self.push_return(uop, sp);
                self.asm.load(Width::B8, S0, t2);
            }
        }
        self.dynamic(uop);
        true
    }

    /// RET to the address in the first scratch register.
    pub(super) fn return_to(&mut self, uop: &Uop) {
        let change = uop.width.bytes() as i32 + uop.imm as i32;
        self.known_target(uop, (change, sp_width(uop).unwrap_or(Width::B8)));
    }

    /// The target of an indirect branch, zero-extended, in the first scratch register.
    fn target_to_scratch(&mut self, uop: &Uop) {
        if uop.form.has_memory() {
            self.load_to_scratch(uop, uop.width);
            self.asm.mov(S0, S1);
        } else {
            self.clobber();
            self.asm.load(uop.width, S0, slot(uop.src));
        }
    }

    /// #GP before anything is committed, if the target in the first scratch register is not canonical.
    fn check_canonical(&mut self, uop: &Uop) {
        if !self.context.key.mode.has(ModeBits::L) {
            return;
        }
        let fault = self.fault_label(uop, Status::NotCanonical);
        let asm = &mut *self.asm;
        asm.load(Width::B8, S1, Rm::R(S0));
        asm.shift_imm(7, Width::B8, Rm::R(S1), 47);
        asm.alu_imm(Alu::Add, Width::B8, Rm::R(S1), 1);
        asm.alu_imm(Alu::Cmp, Width::B8, Rm::R(S1), 1);
        asm.jcc(7, fault);
    }

    /// To the block at the address in the first scratch register, if the table of jumps knows it, after a change of the stack
    /// pointer. What the table knows is canonical.
    fn known_target(&mut self, uop: &Uop, (change, sp): (i32, Width)) {
        let unknown = self.asm.label();
        let live = self.live.index();
        if self.context.disable.has(Disable::INLINE_JUMPS) {
            self.asm.jmp(unknown);
        } else {
            let mode = self.context.key.mode;
            gate::find_jump(self.asm, live, unknown);
            gate::take_jump(self.asm, mode, unknown, |asm| {
                if change != 0 {
                    asm.lea(sp, SP, Rm::Base(SP, change));
                }
            });
        }
        let (uop, point) = (*uop, self.point());
        self.behind(move |e| {
            let after = e.go_to(point);
            e.asm.bind(unknown);
            e.check_canonical(&uop);
            if change != 0 {
                e.asm.lea(sp, SP, Rm::Base(SP, change));
            }
            e.dynamic(&uop);
            e.go_to(after);
        });
    }

    /// To the block at the address in the first scratch register.
    fn dynamic(&mut self, uop: &Uop) {
        let site = Site { charged: 0, flags: SiteFlags::Saved, ..self.site(uop) };
        let site = self.add_site(site);
        let live = self.live;
        if uop.op == Op::CallInd {
            let out = self.asm.label();
            self.asm.load(Width::B8, S1, Rm::cpu(frame!(attention)));
            self.asm.alu_imm(Alu::Cmp, Width::B4, Rm::Base(S1, 0), 0);
            self.asm.jcc(5, out);
            self.behind(move |e| {
                e.asm.bind(out);
                e.leave_with_target(site, live);
            });
        }
        self.asm.mov_imm32(S1, site);
        self.asm.jmp_to(self.context.gates.dynamic[live.index()].0);
    }
}
