//! CLI, STI and SWAPGS at level 0, which kernels execute at each entry (`helpers::flags_io`, `helpers::syscall`). Whatever their
//! handlers would have to decide is theirs.

use super::asm::{Alu, Form, Map, Rm};
use super::block::Emitter;
use super::frame::frame;
use super::registers::{S0, S1};
use crate::mode::ModeBits;
use crate::state::control::Msrs;
use crate::state::{Seg, Segment, State, flags};
use crate::uop::{Uop, Width};
use crate::vcpu::Vcpu;
use std::mem::offset_of;

const STATE: usize = offset_of!(Vcpu, state);
const CPL: Rm = Rm::cpu(STATE + offset_of!(State, cpl));
const RFLAGS: Rm = Rm::cpu(STATE + offset_of!(State, rflags));

impl Emitter<'_> {
    /// CLI, STI or SWAPGS in protected mode.
    pub(super) fn system_call(&mut self, uop: &Uop) -> bool {
        let mode = self.context.key.mode;
        let name = uop.helper.map_or("", |helper| helper.name);
        let known = matches!(name, "cli" | "sti") || name == "swapgs" && mode.has(ModeBits::L);
        if !known || !mode.has(ModeBits::PE) || mode.has(ModeBits::VM | ModeBits::USER) {
            return false;
        }
        self.clobber();
        let (slow, done) = (self.asm.label(), self.asm.label());
        self.asm.alu_imm(Alu::Cmp, Width::B1, CPL, 0);
        self.asm.jcc(5, slow);
        let asm = &mut *self.asm;
        match name {
            "cli" => asm.alu_imm(Alu::And, Width::B4, RFLAGS, !(flags::IF as i64)),
            "sti" => {
                // Its shadow holds back what waits: if nothing does, there is none.
                asm.load(Width::B8, S0, Rm::cpu(frame!(attention)));
                asm.alu_imm(Alu::Cmp, Width::B4, Rm::Base(S0, 0), 0);
                asm.jcc(5, slow);
                asm.alu_imm(Alu::Or, Width::B4, RFLAGS, flags::IF as i64);
            }
            _ => {
                let base = Rm::cpu(
                    STATE
                        + offset_of!(State, seg)
                        + Seg::Gs as usize * size_of::<Segment>()
                        + offset_of!(Segment, base),
                );
                let kernel = Rm::cpu(STATE + offset_of!(State, msr) + offset_of!(Msrs, kernel_gs_base));
                let load = Form::sized(Map::One, 0x8b, Width::B8);
                asm.op(load, S0, base);
                asm.op(load, S1, kernel);
                asm.store(Width::B8, base, S1);
                asm.store(Width::B8, kernel, S0);
            }
        }
        asm.bind(done);
        let steps = Some((self.context.step)(uop));
        let site = super::block::Site { steps, ..self.site(uop) };
        let site = self.add_site(site);
        let live = self.live.index();
        self.later(move |e| {
            e.asm.bind(slow);
            e.asm.mov_imm(S1, u64::from(site));
            e.asm.call(e.context.gates.step[live].0);
            e.asm.jmp(done);
        });
        true
    }
}
