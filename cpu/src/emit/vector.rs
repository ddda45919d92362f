//! Vector instructions by the host's own: the guest's XMM and YMM registers are the host's while `vectors` holds.
//!
//! Only with every SIMD exception masked: MXCSR is the guest's meanwhile, and collects the flags. The first vector instruction of a
//! block that is entered without them loads all registers at the block's start (`Gates::load_vectors`).

use super::Disable;
use super::address::{Access, Value, Way};
use super::asm::{Form, Map, Rm};
use super::block::{Emitter, Live};
use super::gate::Status;
use super::registers::{S0, S1, pinned, slot_offset};
use crate::uop::native::{General, Native};
use crate::uop::{Op, Uop, Width};

/// The extensions that the host has beside AVX.
fn host_has(native: &Native) -> bool {
    use std::is_x86_feature_detected as has;
    match (native.map, native.opcode, native.vex) {
        (2 | 3, 0xdb..=0xdf, _) => has!("aes"),
        (3, 0x44, _) => has!("pclmulqdq"),
        (2, 0x96..=0x9f | 0xa6..=0xaf | 0xb6..=0xbf, Some(_)) => has!("fma"),
        (2, 0x13, Some(_)) | (3, 0x1d, Some(_)) => has!("f16c"),
        (_, _, Some(_)) => has!("avx2"),
        _ => has!("sse4.2"),
    }
}

/// The instruction without its operands.
pub(super) fn form_of(native: &Native) -> Form {
    let map = match native.map {
        2 => Map::M0f38,
        3 => Map::M0f3a,
        _ => Map::M0f,
    };
    let form = Form::new(map, native.opcode).prefix(native.prefix).wide(native.wide);
    let form = native.vex.map_or(form, |(second, long)| form.vex(second, long));
    native.imm.map_or(form, |imm| form.with(i64::from(imm), 1))
}

impl Emitter<'_> {
    /// Whether this uop's instruction runs natively.
    pub(super) fn is_native(&self, uop: &Uop) -> bool {
        !self.context.disable.has(Disable::VECTORS) && uop.native.as_ref().is_some_and(host_has)
    }

    /// At the block's start: whether vector registers must be loaded for it.
    pub(super) fn load_vectors_first(&mut self) {
        if self.live.has(Live::VECTORS) || !self.context.uops.iter().any(|uop| self.is_native(uop)) {
            return;
        }
        self.asm.mov_imm32(S1, self.start());
        self.asm.call(self.context.gates.load_vectors[self.live.index()].0);
        self.live = self.live.with(Live::VECTORS);
    }

    /// The whole instruction, at its first vector uop.
    pub(super) fn native(&mut self, native: &Native, rest: &[Uop]) {
        let form = form_of(native);
        let memory = rest.iter().find(|uop| matches!(uop.op, Op::VLoad | Op::VStore));
        match (native.rm, memory) {
            (None, Some(memory)) => self.native_memory(memory, native, form),
            (Some(rm), _) => self.native_registers(native, form, rm),
            (None, None) => {}
        }
        if native.flags {
            self.flags_are(None);
        }
    }

    fn native_memory(&mut self, uop: &Uop, native: &Native, form: Form) {
        let store = uop.op == Op::VStore;
        let bytes = uop.imm as u8;
        self.clobber();
        if native.general == General::RegOut {
            self.protect(native.reg);
        }
        let aligned = uop.cond & 1 != 0;
        if aligned {
            self.address(&uop.mem);
            let fault = self.fault_label(uop, Status::NotCanonical);
            self.asm.op(Form::sized(Map::One, 0xf7, Width::B4).with(i64::from(bytes) - 1, 4), 0, Rm::R(S0));
            self.asm.jcc(5, fault);
        }
        let value = match native.general {
            General::RegOut => {
                let width = if native.wide { Width::B8 } else { Width::B4 };
                Value::target(native.reg, width)
            }
            _ => Value::Reg(native.reg),
        };
        let way = if store { Way::Store } else { Way::Load };
        let mut access = Access::plain(form, value, bytes, way);
        if !aligned {
            access = self.address_of(&uop.mem, access);
        }
        self.access_at(uop, access);
    }

    fn native_registers(&mut self, native: &Native, form: Form, rm: u8) {
        match native.general {
            General::None => self.asm.op(form, native.reg, Rm::R(rm)),
            General::RmIn => {
                // Register forms read a doubleword even for byte and word inserts.
                self.asm.op(form, native.reg, pinned(rm).map_or(Rm::cpu(slot_offset(rm)), Rm::R));
            }
            General::RegOut => {
                self.protect(native.reg);
                let width = if native.wide { Width::B8 } else { Width::B4 };
                self.change(native.reg, width, false, |e, reg| e.asm.op(form, reg, Rm::R(rm)));
            }
            General::RmOut => {
                self.protect(rm);
                let width = if native.wide { Width::B8 } else { Width::B4 };
                self.change(rm, width, false, |e, reg| e.asm.op(form, native.reg, Rm::R(reg)));
            }
        }
    }
}
