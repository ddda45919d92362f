//! REP MOVS and REP STOS within RAM (`helpers::string`): what lies in one page at both ends is moved by the host's instruction.
//! A page that the TLB does not have, the end of a page, the direction flag, a count that the fuel does not cover: those are
//! the handler's.
//!
//! The host's instruction moves element by element as the guest's does, so ranges that overlap come out the same.

// The macro's expansion converts in its own way.
#![allow(clippy::useless_conversion, reason = "code that dynasm! makes")]

use super::Disable;
use super::address::{Way, tag};
use super::arena::CodePtr;
use super::asm::{Asm, Form, Label, Map, Rm};
use super::block::Emitter;
use super::frame;
use super::registers::{FUEL, S1};
use crate::mode::ModeBits;
use crate::state::{Seg, State, flags};
use crate::uop::{Uop, Width};
use crate::vcpu::Vcpu;
use dynasmrt::{DynasmApi, dynasm};
use std::mem::offset_of;
use umbra_mmu::addr::PAGE_SIZE;
use umbra_mmu::tlb::DataEntry;

/// More instructions than a block has.
const BLOCK: i32 = 256;

/// A repeated instruction.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// MOVS.
    Movs,
    /// STOS.
    Stos,
}

impl Repeat {
    /// Both.
    pub const ALL: [Repeat; 2] = [Repeat::Movs, Repeat::Stos];
}

/// Code by instruction, by width of the elements, by whether addresses have 64 bits.
pub type Repeats = [[[CodePtr; 2]; 4]; Repeat::ALL.len()];

impl Emitter<'_> {
    /// A repeated MOVS or STOS through flat segments, the last of its block.
    pub(super) fn repeat(&mut self, uop: &Uop) -> bool {
        let mode = self.context.key.mode;
        let (address, repeated) = (uop.dst, uop.src != 0);
        let kind = match uop.helper.map_or("", |helper| helper.name) {
            "movs" if mode.flat(uop.seg) => Repeat::Movs,
            "stos" => Repeat::Stos,
            _ => return false,
        };
        let long = mode.has(ModeBits::L);
        let usual = address == if long { Width::B8 as u8 } else { Width::B4 as u8 };
        if !repeated || !usual || !mode.flat(Seg::Es) || self.context.disable.has(Disable::STRINGS) {
            return false;
        }
        self.note_x87();
        self.clobber();
        let site = self.step_site(uop);
        let site = self.add_site(site);
        let (slow, live) = (self.asm.label(), self.live.index());
        self.asm.call(self.context.gates.repeats[kind as usize][uop.width as usize][usize::from(long)].0);
        self.asm.jcc(5, slow);
        self.behind(move |e| {
            e.asm.bind(slow);
            e.asm.mov_imm32(S1, site);
            e.asm.jmp_to(e.context.gates.step_end[live].0);
        });
        self.edge(uop, uop.next_rip);
        true
    }
}

/// RAX = the host address of the RCX elements from the address in R13 on, if they lie in one page that the TLB has.
fn find(asm: &mut Asm, way: Way, log2: i8, miss: Label) {
    dynasm!(asm ; .arch x64
        ; rorx r14, r13, 7
        ; and r14d, [r15 + frame::DATA_MASK as i32]
        ; add r14, [r15 + frame::DATA as i32]
        ; xor r13, [r14 + tag(way)]
        ; cmp r13, PAGE_SIZE as i32
    );
    asm.jcc(3, miss);
    dynasm!(asm ; .arch x64
        ; mov eax, ecx
        ; shl eax, log2
        ; add eax, r13d
        ; cmp eax, PAGE_SIZE as i32
    );
    asm.jcc(7, miss);
    dynasm!(asm ; .arch x64 ; mov rax, [r14 + offset_of!(DataEntry, host) as i32] ; add rax, r13);
}

/// The common code of one [`Repeats`]: does it whole and sets ZF, or changes nothing.
pub fn gate(asm: &mut Asm, kind: Repeat, width: Width, long: bool) {
    let rflags = offset_of!(Vcpu, state) + offset_of!(State, rflags);
    let (log2, address) = (width as i8, if long { Width::B8 } else { Width::B4 });
    let (miss, out) = (asm.label(), asm.label());
    dynasm!(asm ; .arch x64 ; test DWORD [r15 + rflags as i32], flags::DF as i32);
    asm.jcc(5, out);
    // From one element to as many as a page has, and the fuel covers.
    asm.lea(address, 13, Rm::Base(1, -1));
    dynasm!(asm ; .arch x64 ; cmp r13, (PAGE_SIZE >> log2) as i32);
    asm.jcc(3, out);
    dynasm!(asm ; .arch x64 ; lea r14, [Rq(FUEL) - BLOCK] ; cmp r14, r13);
    asm.jcc(12, out);
    dynasm!(asm ; .arch x64 ; push rax);
    if kind == Repeat::Movs {
        asm.load(address, 13, Rm::R(6));
        find(asm, Way::Load, log2, miss);
        dynasm!(asm ; .arch x64 ; push rax);
        asm.load(address, 13, Rm::R(7));
        let other = asm.label();
        let found = asm.label();
        find(asm, Way::Store, log2, other);
        asm.jmp(found);
        asm.bind(other);
        dynasm!(asm ; .arch x64 ; pop r13);
        asm.jmp(miss);
        asm.bind(found);
        // R14 = from, RAX = to; the guest's registers wait.
        dynasm!(asm ; .arch x64
            ; pop r14
            ; mov r13d, ecx
            ; push rsi
            ; push rdi
            ; mov rsi, r14
            ; mov rdi, rax
        );
        host_repeat(asm, 0xa4, width);
        dynasm!(asm ; .arch x64 ; pop rdi ; pop rsi ; pop rax);
        advance(asm, 6, address, log2);
    } else {
        asm.load(address, 13, Rm::R(7));
        find(asm, Way::Store, log2, miss);
        dynasm!(asm ; .arch x64
            ; mov r14, rax
            ; pop rax
            ; mov r13d, ecx
            ; push rdi
            ; mov rdi, r14
        );
        host_repeat(asm, 0xaa, width);
        dynasm!(asm ; .arch x64 ; pop rdi);
    }
    advance(asm, 7, address, log2);
    // Each element is an instruction; the block counts one of them.
    dynasm!(asm ; .arch x64 ; sub Rq(FUEL), r13 ; inc Rq(FUEL) ; xor ecx, ecx ; ret);
    asm.bind(miss);
    dynasm!(asm ; .arch x64 ; pop rax ; test r15, r15);
    asm.bind(out);
    dynasm!(asm ; .arch x64 ; test r15, r15 ; ret);
}

/// REP and the string instruction whose byte form has this opcode.
fn host_repeat(asm: &mut Asm, byte: u8, width: Width) {
    match width {
        Width::B1 => asm.raw(&[0xf3, byte]),
        Width::B2 => asm.raw(&[0xf3, 0x66, byte + 1]),
        Width::B4 => asm.raw(&[0xf3, byte + 1]),
        Width::B8 => asm.raw(&[0xf3, 0x48, byte + 1]),
    }
}

/// An index register moves on by R13 elements.
fn advance(asm: &mut Asm, reg: u8, address: Width, log2: i8) {
    asm.op(Form::sized(Map::One, 0x8d, address), reg, Rm::Full { base: reg, index: 13, scale: log2 as u8, disp: 0 });
}
