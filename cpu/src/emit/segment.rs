//! Segment registers in protected mode: their selectors, and MOV and POP to DS, ES, FS and GS at level 0
//! (`helpers::segment_load`), which 32-bit kernels execute at each entry and exit.
//!
//! What a load gives follows from the selector, the descriptor and the level alone. A *known* load is one that the helper has
//! made: where the descriptor in the table still has the same eight bytes (with the accessed bit), its result is copied. The
//! descriptor is read through the TLB each time; whatever else may be is the helper's.

// The macro's expansion converts in its own way.
#![allow(clippy::useless_conversion, reason = "code that dynasm! makes")]

use super::address::{Way, tag};
use super::asm::{Asm, Rm};
use super::block::Emitter;
use super::frame::{self, frame};
use super::registers::{S0, S1, SP, pinned, slot};
use crate::mode::ModeBits;
use crate::state::slots::RSP;
use crate::state::{Seg, Segment, State, TableRegister, flags};
use crate::uop::{Uop, Width};
use crate::vcpu::Vcpu;
use dynasmrt::{DynasmApi, dynasm};
use std::mem::offset_of;
use umbra_mmu::addr::PAGE_SIZE;
use umbra_mmu::tlb::DataEntry;

const STATE: usize = offset_of!(Vcpu, state);
const GDTR: usize = STATE + offset_of!(State, gdtr);

/// Loads that are known, by the low bits of the selector's index.
pub const KNOWN: usize = 32;

/// A data segment load at level 0 as the helper has made it.
#[derive(Copy, Clone, Debug, Default)]
#[repr(C)]
pub struct KnownLoad {
    /// The descriptor, accessed.
    pub descriptor: u64,
    /// The selector, which is not null and means the GDT; 0: no entry.
    pub selector: u32,
    /// 1: accesses through the segment need no check (`ModeBits::flat` outside 64-bit mode).
    pub flat: u32,
    /// What is loaded.
    pub segment: Segment,
}

impl KnownLoad {
    /// The entry of a selector.
    pub const fn index(selector: u16) -> usize {
        selector as usize >> 3 & (KNOWN - 1)
    }
}

/// What the mode bits say of the segment before the load, and must say after it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Flatness {
    /// It needs checks.
    Checked,
    /// It needs none.
    Flat,
    /// 64-bit mode: its loads change no mode bit.
    Any,
}

impl Flatness {
    /// All.
    pub const ALL: [Flatness; 3] = [Flatness::Checked, Flatness::Flat, Flatness::Any];
}

/// The registers that are loaded so.
pub const SEGMENTS: [Seg; 4] = [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs];

const fn offset(seg: Seg) -> usize {
    STATE + offset_of!(State, seg) + seg as usize * size_of::<Segment>()
}

impl Emitter<'_> {
    /// A selector to a slot. Changes the first scratch register only.
    pub(super) fn selector(&mut self, uop: &Uop) -> bool {
        let place = Rm::cpu(offset(uop.seg) + offset_of!(Segment, selector));
        self.protect(uop.dst);
        match pinned(uop.dst) {
            Some(reg) => self.asm.load_zero(Width::B2, reg, place),
            None => {
                self.asm.load_zero(Width::B2, S0, place);
                self.asm.store(Width::B8, slot(uop.dst), S0);
            }
        }
        true
    }

    /// MOV and POP to a segment register but SS in protected mode, below level 3; POP on a flat stack.
    pub(super) fn segment_call(&mut self, uop: &Uop) -> bool {
        let mode = self.context.key.mode;
        let pops = match uop.helper.map_or("", |helper| helper.name) {
            "mov_to_segment" if uop.src != crate::helpers::MEMORY => false,
            "pop_segment" => true,
            _ => return false,
        };
        let number = Seg::from_encoding(uop.dst).and_then(|seg| SEGMENTS.iter().position(|&known| known == seg));
        let Some(number) = number else { return false };
        let usual = mode.has(ModeBits::PE) && !mode.has(ModeBits::VM | ModeBits::USER);
        if !usual || pops && !(mode.flat(Seg::Ss) && mode.has(ModeBits::SS_B)) {
            return false;
        }
        let flatness = match (mode.has(ModeBits::L), mode.flat(SEGMENTS[number])) {
            (true, _) => Flatness::Any,
            (false, true) => Flatness::Flat,
            (false, false) => Flatness::Checked,
        };
        if pops {
            self.protect(RSP);
        }
        self.clobber();
        let (slow, done) = (self.asm.label(), self.asm.label());
        let sp_width = if mode.has(ModeBits::L) { Width::B8 } else { Width::B4 };
        if pops {
            // The selector alone is read, whatever the operand size.
            self.asm.load(sp_width, S0, Rm::R(SP));
            self.check_tlb(2, Way::Load, slow);
            self.asm.load_zero(Width::B2, S0, Rm::Pair(S1, S0));
        } else {
            self.asm.load_zero(Width::B2, S0, slot(uop.src));
        }
        self.asm.call(self.context.gates.load_segment[number][flatness as usize].0);
        self.asm.jcc(5, slow);
        if pops {
            self.asm.lea(sp_width, SP, Rm::Base(SP, uop.width.bytes() as i32));
        }
        self.asm.bind(done);
        let site = self.step_site(uop);
        self.handler_behind(site, slow, done);
        true
    }
}

/// The common code of one register: loads the selector R13; ZF clear: it has changed nothing.
pub fn load(asm: &mut Asm, seg: Seg, flatness: Flatness) {
    let [null, out, miss] = [(); 3].map(|()| asm.label());
    let (to, known) = (offset(seg) as i32, frame!(known_loads) as i32);
    dynasm!(asm ; .arch x64
        ; cmp BYTE [r15 + (STATE + offset_of!(State, cpl)) as i32], 0
    );
    asm.jcc(5, out);
    dynasm!(asm ; .arch x64 ; test r13d, 0xfffc);
    asm.jcc(4, null);
    // With AC the TLB's rights may be those of explicit accesses, which are more than a descriptor's.
    dynasm!(asm ; .arch x64
        ; test DWORD [r15 + (STATE + offset_of!(State, rflags)) as i32], flags::AC as i32
    );
    asm.jcc(5, out);
    dynasm!(asm ; .arch x64
        ; push rax
        ; push rcx
        ; mov eax, r13d
        ; and eax, 0xfff8
        ; lea r14d, [rax + 7]
        ; cmp r14w, [r15 + (GDTR + offset_of!(TableRegister, limit)) as i32]
    );
    asm.jcc(7, miss);
    const { assert!(size_of::<KnownLoad>() == 32 && KNOWN == 32) };
    dynasm!(asm ; .arch x64
        ; mov ecx, eax
        ; and ecx, 0xf8
        ; lea rcx, [r15 + rcx * 4 + known]
        ; cmp r13d, [rcx + offset_of!(KnownLoad, selector) as i32]
    );
    asm.jcc(5, miss);
    if flatness != Flatness::Any {
        let flat = i32::from(flatness == Flatness::Flat);
        dynasm!(asm ; .arch x64 ; cmp DWORD [rcx + offset_of!(KnownLoad, flat) as i32], flat);
        asm.jcc(5, miss);
    }
    // A table that wraps at 4 GiB never hits the TLB: its address is not made shorter here.
    dynasm!(asm ; .arch x64
        ; add rax, [r15 + (GDTR + offset_of!(TableRegister, base)) as i32]
        ; rorx r14, rax, 7
        ; and r14d, [r15 + frame::DATA_MASK as i32]
        ; add r14, [r15 + frame::DATA as i32]
        ; xor rax, [r14 + tag(Way::Load)]
        ; cmp rax, (PAGE_SIZE - 8) as i32
    );
    asm.jcc(7, miss);
    dynasm!(asm ; .arch x64
        ; mov r14, [r14 + offset_of!(DataEntry, host) as i32]
        ; mov rax, [r14 + rax]
        ; cmp rax, [rcx + offset_of!(KnownLoad, descriptor) as i32]
    );
    asm.jcc(5, miss);
    let from = offset_of!(KnownLoad, segment) as i32;
    dynasm!(asm ; .arch x64
        ; mov rax, [rcx + from]
        ; mov [r15 + to], rax
        ; mov rax, [rcx + from + 8]
        ; mov [r15 + to + 8], rax
        ; pop rcx
        ; pop rax
        ; xor r14d, r14d
        ; ret
    );
    asm.bind(miss);
    dynasm!(asm ; .arch x64 ; pop rcx ; pop rax);
    asm.bind(out);
    dynasm!(asm ; .arch x64 ; test r15, r15 ; ret);
    asm.bind(null);
    if flatness == Flatness::Flat {
        // It would not be flat any more.
        dynasm!(asm ; .arch x64 ; test r15, r15 ; ret);
        return;
    }
    const { assert!(offset_of!(Segment, selector) == 0) };
    dynasm!(asm ; .arch x64
        ; mov [r15 + to], r13
        ; mov QWORD [r15 + to + offset_of!(Segment, base) as i32], 0
        ; xor r14d, r14d
        ; ret
    );
}
