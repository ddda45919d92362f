//! CLI, STI, CLAC, STAC and SWAPGS at level 0, PUSHF and POPF, CLD and STD, RDTSC and RDTSCP: what kernels execute at each entry
//! (`helpers::flags_io`, `helpers::syscall`, `helpers::identify`). Whatever their handlers would have to decide is theirs.

use super::Disable;
use super::address::Way;
use super::asm::{Alu, Form, Map, Rm};
use super::block::{Emitter, Live};
use super::flags::FlagPlaces;
use super::frame::frame;
use super::registers::{RAX, RCX, RDX, S0, S1, SP, slot};
use super::site::Site;
use crate::bus::TscLine;
use crate::mode::ModeBits;
use crate::state::control::{Control, Msrs, cr4};
use crate::state::{Seg, Segment, State, flags};
use crate::uop::{Op, Uop, Width};
use crate::vcpu::{Link, Vcpu};
use std::mem::offset_of;

const STATE: usize = offset_of!(Vcpu, state);
const CPL: Rm = Rm::cpu(STATE + offset_of!(State, cpl));
const RFLAGS: Rm = Rm::cpu(STATE + offset_of!(State, rflags));

const CR4: Rm = Rm::cpu(STATE + offset_of!(State, control) + offset_of!(Control, cr4));

/// An MSR of the state.
const fn msr(offset: usize) -> Rm {
    Rm::cpu(STATE + offset_of!(State, msr) + offset)
}

/// A field of the line of the time-stamp counter.
const fn line(offset: usize) -> Rm {
    Rm::cpu(offset_of!(Vcpu, link) + offset_of!(Link, tsc_line) + offset)
}

impl Emitter<'_> {
    /// CLI, STI, CLAC, STAC or SWAPGS in protected mode; POPF.
    pub(super) fn system_call(&mut self, uop: &Uop) -> bool {
        let mode = self.context.key.mode;
        let name = uop.helper.map_or("", |helper| helper.name);
        if name == "popf" {
            return self.pop_flags(uop);
        }
        let access = matches!(name, "clac" | "stac") && self.live == Live::default();
        let known = access || matches!(name, "cli" | "sti") || name == "swapgs" && mode.has(ModeBits::L);
        if !known || !mode.has(ModeBits::PE) || mode.has(ModeBits::VM | ModeBits::USER) {
            return false;
        }
        self.clobber();
        let (slow, done) = (self.asm.label(), self.asm.label());
        self.asm.alu_imm(Alu::Cmp, Width::B1, CPL, 0);
        self.asm.jcc(5, slow);
        let view = self.context.gates.view;
        let asm = &mut *self.asm;
        match name {
            // No mode bit depends on AC below level 3; the view does (SMAP).
            "clac" => {
                asm.alu_imm(Alu::And, Width::B4, RFLAGS, !(flags::AC as i64));
                asm.call(view.0);
            }
            "stac" => {
                asm.alu_imm(Alu::Or, Width::B4, RFLAGS, flags::AC as i64);
                asm.call(view.0);
            }
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
                let kernel = msr(offset_of!(Msrs, kernel_gs_base));
                let load = Form::sized(Map::One, 0x8b, Width::B8);
                asm.op(load, S0, base);
                asm.op(load, S1, kernel);
                asm.store(Width::B8, base, S1);
                asm.store(Width::B8, kernel, S0);
            }
        }
        asm.bind(done);
        let site = self.step_site(uop);
        self.handler_behind(site, slow, done);
        true
    }

    /// RDTSC or RDTSCP by the host's own counter, as far as the board's line for it reaches (`helpers::identify`).
    pub(super) fn time_stamp(&mut self, uop: &Uop) -> bool {
        let name = uop.helper.map_or("", |helper| helper.name);
        let waits = match name {
            // What looks like nothing may be the LFENCE that orders it.
            "rdtsc" => self.before().is_some_and(|before| before.op == Op::Nop),
            "rdtscp" => true,
            _ => return false,
        };
        if self.context.disable.has(Disable::TSC) {
            return false;
        }
        for written in [RAX, RDX, RCX] {
            self.protect(written);
        }
        self.clobber();
        let (slow, done) = (self.asm.label(), self.asm.label());
        let flags = self.places.at_site();
        let asm = &mut *self.asm;
        if self.context.key.mode.has(ModeBits::USER) {
            asm.op(Form::new(Map::One, 0xf7).with(cr4::TSD as i64, 4), 0, CR4); // TEST
            asm.jcc(5, slow);
        }
        if waits {
            asm.raw(&[0x0f, 0xae, 0xe8]); // LFENCE
        }
        asm.raw(&[0x0f, 0x31]); // RDTSC
        asm.shift_imm(4, Width::B8, Rm::R(RDX), 32);
        asm.alu(Alu::Or, Width::B8, RAX, Rm::R(RDX));
        asm.alu(Alu::Sub, Width::B8, RAX, line(offset_of!(TscLine, host)));
        asm.alu(Alu::Cmp, Width::B8, RAX, line(offset_of!(TscLine, span)));
        asm.jcc(3, slow);
        asm.op(Form::sized(Map::One, 0xf7, Width::B8), 4, line(offset_of!(TscLine, rate))); // MUL
        asm.op(Form::new(Map::M0f, 0xac).wide(true).with(32, 1), RDX, Rm::R(RAX)); // SHRD
        asm.alu(Alu::Add, Width::B8, RAX, line(offset_of!(TscLine, tsc)));
        asm.alu(Alu::Add, Width::B8, RAX, msr(offset_of!(Msrs, tsc_offset)));
        asm.mov(RDX, RAX);
        asm.shift_imm(5, Width::B8, Rm::R(RDX), 32);
        asm.op(Form::sized(Map::One, 0x8b, Width::B4), RAX, Rm::R(RAX));
        if name == "rdtscp" {
            asm.load(Width::B4, RCX, msr(offset_of!(Msrs, tsc_aux)));
        }
        asm.bind(done);
        let site = Site { flags, ..self.site(uop) };
        let site = self.with_step(site, uop);
        self.handler_behind(site, slow, done);
        true
    }

    /// PUSHF's value to a slot.
    pub(super) fn rflags(&mut self, uop: &Uop) -> bool {
        const LOW: u64 = flags::STATUS & !flags::OF;
        self.protect(uop.dst);
        self.save_flags();
        self.clobber();
        let asm = &mut *self.asm;
        asm.load_zero(Width::B2, S1, Rm::cpu(frame!(image)));
        asm.mov(S0, S1);
        asm.shift_imm(5, Width::B4, Rm::R(S1), 8);
        asm.alu_imm(Alu::And, Width::B4, Rm::R(S1), LOW as i64);
        asm.alu_imm(Alu::And, Width::B4, Rm::R(S0), 1);
        asm.shift_imm(4, Width::B4, Rm::R(S0), flags::OF.trailing_zeros() as u8);
        asm.alu(Alu::Or, Width::B4, S1, Rm::R(S0));
        asm.load(Width::B4, S0, RFLAGS);
        asm.alu_imm(Alu::And, Width::B4, Rm::R(S0), !((flags::STATUS | flags::VM | flags::RF) as i64));
        asm.alu(Alu::Or, Width::B4, S0, Rm::R(S1));
        asm.store(Width::B8, slot(uop.dst), S0);
        true
    }

    /// CLD or STD.
    pub(super) fn direction(&mut self, uop: &Uop) -> bool {
        self.clobber();
        match uop.op {
            Op::Cld => self.asm.alu_imm(Alu::And, Width::B4, RFLAGS, !(flags::DF as i64)),
            _ => self.asm.alu_imm(Alu::Or, Width::B4, RFLAGS, flags::DF as i64),
        }
        true
    }

    /// POPF of the stack's width that changes status flags and DF, and at level 0 IF.
    fn pop_flags(&mut self, uop: &Uop) -> bool {
        const LOW: u64 = flags::STATUS & !flags::OF;
        let mode = self.context.key.mode;
        let width = if mode.has(ModeBits::L) { Width::B8 } else { Width::B4 };
        let usual = mode.flat(Seg::Ss) && mode.has(ModeBits::SS_B) && mode.has(ModeBits::PE) && !mode.has(ModeBits::VM);
        if !usual || uop.width != width {
            return false;
        }
        self.clobber();
        let site = self.site(uop);
        let (slow, same, done) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.asm.load(width, S0, Rm::R(SP));
        self.check_tlb(width.bytes() as u8, Way::Load, slow);
        let asm = &mut *self.asm;
        asm.load(Width::B4, S0, Rm::Pair(S1, S0));
        asm.load(Width::B4, S1, RFLAGS);
        asm.alu(Alu::Xor, Width::B4, S1, Rm::R(S0));
        let free = flags::STATUS | flags::DF;
        let user = mode.has(ModeBits::USER);
        let free = if user { free } else { free | flags::IF };
        asm.alu_imm(Alu::And, Width::B4, Rm::R(S1), !(flags::STATUS | flags::DF) as i32 as i64);
        asm.jcc(4, same);
        if !user {
            // Only IF, and set only while nothing waits for it.
            asm.alu_imm(Alu::Cmp, Width::B4, Rm::R(S1), flags::IF as i64);
            asm.jcc(5, slow);
            asm.alu_imm(Alu::Cmp, Width::B1, CPL, 0);
            asm.jcc(5, slow);
            asm.load(Width::B8, S1, Rm::cpu(frame!(attention)));
            asm.alu_imm(Alu::Cmp, Width::B4, Rm::Base(S1, 0), 0);
            asm.jcc(5, slow);
            asm.bind(same);
        } else {
            asm.jmp(slow);
            asm.bind(same);
        }
        let free = free & !flags::STATUS;
        asm.load(Width::B4, S1, Rm::R(S0));
        asm.alu_imm(Alu::And, Width::B4, Rm::R(S1), free as i64);
        asm.alu_imm(Alu::And, Width::B4, RFLAGS, !(free as i64));
        asm.op(Alu::Or.to_rm(Width::B4), S1, RFLAGS);
        // `SavedFlags::of`.
        asm.load(Width::B4, S1, Rm::R(S0));
        asm.shift_imm(5, Width::B4, Rm::R(S1), flags::OF.trailing_zeros() as u8);
        asm.alu_imm(Alu::And, Width::B4, Rm::R(S1), 1);
        asm.alu_imm(Alu::And, Width::B4, Rm::R(S0), LOW as i64);
        asm.alu_imm(Alu::Or, Width::B4, Rm::R(S0), flags::FIXED as i64);
        asm.shift_imm(4, Width::B4, Rm::R(S0), 8);
        asm.alu(Alu::Or, Width::B4, S0, Rm::R(S1));
        asm.store(Width::B2, Rm::cpu(frame!(image)), S0);
        asm.lea(width, SP, Rm::Base(SP, width.bytes() as i32));
        asm.bind(done);
        self.places = FlagPlaces::SAVED;
        let site = self.with_step(site, uop);
        self.handler_behind(site, slow, done);
        true
    }
}
