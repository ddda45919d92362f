//! x87 instructions by the host's own unit, while `Live::X87` holds.
//!
//! Only with every x87 exception masked and none pending, so that no instruction waits. The unit's instruction and data pointers
//! are Umbra's: a site knows the last instruction before it, a block's end stores it, and FXSAVE's are not looked at.
//! Left to the handlers: control words, environments, and transcendental functions (one portable implementation for all hosts)
//! where anything is special. Else such a function's value comes from Rust in two parts, whose sum the unit rounds.

#![allow(
    unsafe_code,
    reason = "a function that emitted code calls gets the vCPU as a raw pointer, as registers hold it"
)]

use super::Disable;
use super::address::{Access, Value, Way};
use super::asm::{Asm, Form, Map, Rm};
use super::block::{Emitter, Live};
use super::flags::FlagPlaces;
use super::frame::{Frame, FunctionCall, frame};
use super::registers::{RAX, S0, S1};
use crate::helpers::MEMORY;
use crate::helpers::x87::status;
use crate::mode::ModeBits;
use crate::softfloat::{F80, Function, Precision, unrounded};
use crate::state::fpu::St;
use crate::state::slots::T0;
use crate::state::{Fpu, Seg, Segment, State};
use crate::uop::{AddrKind, Mem, Op, Uop, Width};
use crate::vcpu::Vcpu;
use std::mem::offset_of;

/// Error summary of the status word.
const ES: u16 = 1 << 7;

/// Whether no x87 instruction can raise an exception.
pub fn all_masked(fpu: &Fpu) -> bool {
    fpu.cw & 0x3f == 0x3f && fpu.sw & ES == 0
}

/// Takes over what FXSAVE has stored, if it has, and notes the last instruction.
pub fn import(state: &mut State, frame: &mut Frame, last: Option<(u64, u16)>) {
    if frame.fx_saved == 0 {
        return;
    }
    frame.fx_saved = 0;
    let word = |at: usize| u16::from_le_bytes([frame.fx.0[at], frame.fx.0[at + 1]]);
    let fpu = &mut state.fpu;
    (fpu.cw, fpu.sw, fpu.tags) = (word(0), word(2), frame.fx.0[4]);
    let top = usize::from(fpu.sw >> 11 & 7);
    for n in 0..8 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&frame.fx.0[32 + 16 * n..40 + 16 * n]);
        fpu.regs[(top + n) & 7] = St { significand: u64::from_le_bytes(bytes), sign_exponent: word(40 + 16 * n) };
    }
    if let Some((rip, opcode)) = last {
        (fpu.fip, fpu.fop, fpu.fcs) = (rip, opcode, state.seg[Seg::Cs as usize].selector);
    }
}

/// Makes what FXRSTOR loads.
pub fn export(state: &State, frame: &mut Frame) {
    let (fpu, image) = (&state.fpu, &mut frame.fx.0);
    image[0..2].copy_from_slice(&fpu.cw.to_le_bytes());
    image[2..4].copy_from_slice(&fpu.sw.to_le_bytes());
    image[4] = fpu.tags;
    image[5..24].fill(0);
    image[24..28].copy_from_slice(&frame.host_mxcsr.to_le_bytes());
    let top = usize::from(fpu.sw >> 11 & 7);
    for n in 0..8 {
        let st = fpu.regs[(top + n) & 7];
        image[32 + 16 * n..40 + 16 * n].copy_from_slice(&st.significand.to_le_bytes());
        image[40 + 16 * n..42 + 16 * n].copy_from_slice(&st.sign_exponent.to_le_bytes());
    }
}

/// The transcendental function that a helper is, if its value can come in two parts.
fn function_of(name: &str) -> Option<Function> {
    Some(match name {
        "fsin" => Function::Sine,
        "fcos" => Function::Cosine,
        "fpatan" => Function::ArcTangent,
        "fyl2x" => Function::Log2Times,
        "fyl2xp1" => Function::Log2PlusOneTimes,
        "f2xm1" => Function::Exp2MinusOne,
        _ => return None,
    })
}

/// Computes on [`Frame::function`]; 0: it cannot.
pub unsafe extern "sysv64" fn function_gate(cpu: *mut Vcpu, number: u64) -> u32 {
    // SAFETY: emitted code passes the pointer that it was entered with, whose borrow lasts until it is left.
    let cpu = unsafe { &mut *cpu };
    let rounds_at_64 = Precision::from_field(u32::from(cpu.state.fpu.cw) >> 8) == Precision::Extended;
    let call = &mut cpu.link.frame.function;
    let computed = std::panic::catch_unwind(|| compute(&Function::ALL, number, rounds_at_64, call));
    match computed {
        Ok(Some((cut, missing))) => {
            (call.cut, call.missing) = ([cut.significand, u64::from(cut.sign_exponent)], missing);
            1
        }
        // Should it have panicked, the handler does so too.
        Ok(None) | Err(_) => 0,
    }
}

fn compute(all: &[Function], number: u64, rounds_at_64: bool, call: &FunctionCall) -> Option<(F80, u64)> {
    if call.status & status::SF != 0 {
        // A register was empty: the unit has said so, and gives this.
        return Some((F80::INDEFINITE, 0));
    }
    let function = all.get(usize::try_from(number).ok()?).filter(|_| rounds_at_64)?;
    let [x, y] = call.operands.map(|[significand, sign_exponent]| F80::new(sign_exponent as u16, significand));
    unrounded(*function, x, y)
}

/// How an instruction with a memory operand uses it.
#[rustfmt::skip]
fn memory_way(escape: u8, extension: u8) -> Option<(u8, Way)> {
    use Way::{Load, Store};
    Some(match (escape, extension) {
        (0, _) => (4, Load),
        (1, 0) => (4, Load),  (1, 2 | 3) => (4, Store), (1, 7) => (2, Store),
        (2, _) => (4, Load),
        (3, 0) => (4, Load),  (3, 1..=3) => (4, Store), (3, 5) => (10, Load), (3, 7) => (10, Store),
        (4, _) => (8, Load),
        (5, 0) => (8, Load),  (5, 1..=3) => (8, Store), (5, 7) => (2, Store),
        (6, _) => (2, Load),
        (7, 0) => (2, Load),  (7, 1..=3) => (2, Store), (7, 5) => (8, Load), (7, 7) => (8, Store),
        (7, 4) => (10, Load), (7, 6) => (10, Store),
        _ => return None,
    })
}

/// Helpers whose instructions the host runs as they are.
fn is_plain(name: &str) -> bool {
    matches!(
        name,
        "fadd"
            | "fmul"
            | "fsub"
            | "fsubr"
            | "fdiv"
            | "fdivr"
            | "fsqrt"
            | "frndint"
            | "fabs"
            | "fchs"
            | "fcom"
            | "fucom"
            | "ftst"
            | "fxam"
            | "fcomi"
            | "fucomi"
            | "fld"
            | "fst"
            | "fisttp"
            | "fld_st"
            | "fst_st"
            | "fxch"
            | "fcmov"
            | "fld_constant"
            | "fnstcw"
            | "fnstsw"
            | "fnop"
            | "fwait"
    )
}

impl Emitter<'_> {
    /// Whether this uop is an x87 instruction that runs natively.
    fn is_native_x87(&self, uop: &Uop) -> bool {
        let Some(helper) = uop.helper else { return false };
        let known = is_plain(helper.name) || function_of(helper.name).is_some();
        if uop.op != Op::Call || self.context.disable.has(Disable::X87) || !known {
            return false;
        }
        match helper.name {
            // Nothing waits while every exception is masked.
            "fwait" => return self.live.has(Live::X87),
            _ if uop.src != MEMORY => return true,
            _ => {}
        }
        let (escape, extension) = opcode(uop);
        let flat = self.context.key.mode.flat(uop.seg);
        flat && memory_way(escape, extension).is_some() && !self.context.key.mode.has(ModeBits::ALIGN)
    }

    /// At the block's start: whether the unit must be loaded for it.
    pub(super) fn load_x87_first(&mut self) {
        let native = |uop: &Uop| self.is_native_x87(uop) && uop.helper.is_some_and(|helper| helper.name != "fwait");
        if self.live.has(Live::X87) || !self.context.uops.iter().any(native) {
            return;
        }
        self.asm.mov_imm32(super::registers::S1, self.start());
        self.asm.call(self.context.gates.load_x87[self.live.index()].0);
        self.live = self.live.with(Live::X87);
    }

    /// An x87 instruction, if it runs natively.
    pub(super) fn x87_call(&mut self, uop: &Uop) -> bool {
        if !self.is_native_x87(uop) {
            // A handler sees and sets the pointers itself.
            if self.x87.is_some() {
                self.note_x87();
            }
            return false;
        }
        let name = uop.helper.map_or("", |helper| helper.name);
        if name == "fwait" {
            return true;
        }
        let (escape, extension) = opcode(uop);
        if let Some(function) = function_of(name) {
            self.x87_function(uop, function);
        } else if uop.src == MEMORY {
            self.x87_memory(uop, escape, extension);
        } else {
            match name {
                "fnstsw" => {
                    self.protect(RAX);
                    self.asm.raw(&[0xdf, 0xe0]);
                    return true;
                }
                "fcomi" | "fucomi" => {
                    self.asm.raw(&[0xd8 | escape, uop.imm as u8]);
                    self.store_comparison();
                }
                "fcmov" => {
                    self.load_flags();
                    self.asm.raw(&[0xd8 | escape, uop.imm as u8]);
                }
                _ => self.asm.raw(&[0xd8 | escape, uop.imm as u8]),
            }
        }
        if !matches!(name, "fnstcw" | "fnstsw") {
            let offset = self.site(uop).offset;
            self.x87 = Some((offset, uop.imm as u16 & 0x7ff));
        }
        true
    }

    /// ZF, PF and CF are the comparison's; the others are cleared.
    fn store_comparison(&mut self) {
        let exact = crate::state::flags::CF | crate::state::flags::ZF | crate::state::flags::PF;
        if self.suffices(exact) {
            return self.flags_are(None);
        }
        let asm = &mut *self.asm;
        asm.mov(S0, RAX);
        asm.raw(&[0x9f, 0x80, 0xe4, 0x47]); // LAHF; AND AH, ZF | PF | CF | fixed
        asm.op(Form::sized(Map::One, 0xc7, Width::B1).with(0, 1), 0, Rm::R(RAX));
        asm.store(Width::B2, Rm::cpu(super::frame::frame!(image)), RAX);
        asm.mov(RAX, S0);
        self.places = super::flags::FlagPlaces::SAVED;
    }

    /// A transcendental function: its operands go to the frame, Rust computes, the unit adds the two parts of the result. With
    /// a special operand they go back, and the handler does it all.
    fn x87_function(&mut self, uop: &Uop, function: Function) {
        // FNSTSW, FSTP and FLD of ten bytes, FADD of a double, with a place in the frame.
        let x87 = |asm: &mut Asm, (opcode, extension): (u8, u8), place: Rm| {
            asm.op(Form::new(Map::One, opcode), extension, place);
        };
        let (fnstsw, fstp, fld, fadd) = ((0xdd, 7), (0xdb, 7), (0xdb, 5), (0xdc, 0));
        let at = |offset: usize| Rm::cpu(frame!(function) + offset);
        let status = at(offset_of!(FunctionCall, status));
        let operand = move |n: usize| at(offset_of!(FunctionCall, operands) + 16 * n);
        let operands = if function.takes_two() { 2 } else { 1 };
        self.save_flags();
        self.places = FlagPlaces::SAVED;
        let site = self.step_site(uop);
        let site = self.add_site(site);
        let live = self.live.index();
        let (special, unfit, done) = (self.asm.label(), self.asm.label(), self.asm.label());
        // C2 would have to be cleared, and SF is to tell of an empty register.
        x87(self.asm, fnstsw, status);
        self.asm.load_zero(Width::B2, S1, status);
        self.asm.op(Form::new(Map::One, 0xf7).with(i64::from(status::C2 | status::SF), 4), 0, Rm::R(S1));
        self.asm.jcc(5, unfit);
        for n in 0..operands {
            x87(self.asm, fstp, operand(n));
        }
        x87(self.asm, fnstsw, status);
        self.asm.mov_imm(S0, function as u64);
        self.asm.call(self.context.gates.function[live].0);
        self.asm.jcc(4, special);
        x87(self.asm, fld, at(offset_of!(FunctionCall, cut)));
        x87(self.asm, fadd, at(offset_of!(FunctionCall, missing)));
        self.asm.bind(done);
        self.behind(move |e| {
            e.asm.bind(special);
            for n in (0..operands).rev() {
                x87(e.asm, fld, operand(n));
            }
            e.asm.bind(unfit);
            e.asm.mov_imm32(S1, site);
            e.asm.call(e.context.gates.step[live].0);
            e.asm.jmp(done);
        });
    }

    fn x87_memory(&mut self, uop: &Uop, escape: u8, extension: u8) {
        let Some((bytes, way)) = memory_way(escape, extension) else { return };
        let kind = if self.context.key.mode.has(ModeBits::L) { AddrKind::Flat64 } else { AddrKind::Flat32 };
        let mem = Mem { kind, base: T0, ..Mem::checked(T0) };
        self.clobber();
        self.address(&mem);
        let form = Form::new(Map::One, 0xd8 | escape);
        let value = Value::Reg(extension);
        let access = Access::plain(form, value, bytes, way);
        self.access_at(uop, access);
        if extension == 7 && matches!(escape, 1 | 5) {
            // Control and status words note nothing.
            return;
        }
        let fpu = offset_of!(Vcpu, state) + offset_of!(State, fpu);
        self.asm.load(Width::B8, S0, super::registers::slot(T0));
        self.asm.store(Width::B8, Rm::cpu(fpu + offset_of!(Fpu, fdp)), S0);
        self.asm.load_zero(Width::B2, S0, Rm::cpu(selector(uop.seg)));
        self.asm.store(Width::B2, Rm::cpu(fpu + offset_of!(Fpu, fds)), S0);
    }

    /// Stores the pointers of the last x87 instruction: from here on sites do not know it any more.
    pub(super) fn note_x87(&mut self) {
        let Some((offset, opcode)) = self.x87.take() else { return };
        let rip = self.rip_at(offset);
        let fpu = offset_of!(Vcpu, state) + offset_of!(State, fpu);
        self.asm.mov_imm(S0, rip);
        self.asm.store(Width::B8, Rm::cpu(fpu + offset_of!(Fpu, fip)), S0);
        self.asm.mov_imm(S0, u64::from(opcode));
        self.asm.store(Width::B2, Rm::cpu(fpu + offset_of!(Fpu, fop)), S0);
        self.asm.load_zero(Width::B2, S0, Rm::cpu(selector(Seg::Cs)));
        self.asm.store(Width::B2, Rm::cpu(fpu + offset_of!(Fpu, fcs)), S0);
    }
}

/// Offset of a segment's selector in the vCPU.
const fn selector(seg: Seg) -> usize {
    offset_of!(Vcpu, state)
        + offset_of!(State, seg)
        + seg as usize * size_of::<Segment>()
        + offset_of!(Segment, selector)
}

/// The low three bits of the escape opcode, and ModRM.reg.
fn opcode(uop: &Uop) -> (u8, u8) {
    ((uop.imm >> 8) as u8 & 7, (uop.imm >> 3) as u8 & 7)
}
