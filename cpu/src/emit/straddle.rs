//! Accesses over the end of a page into the next, both of which the TLB has: by way of `Frame::buffer`, without Rust.
//!
//! These pieces stand before the gates of `gate`: what they are not made for goes on to those. Who calls them says in the upper
//! half of R14, above the site, how many bytes the access has: in its lowest byte ([`request`]), or in the next one if it is
//! never made by this way ([`whole`]).

// The macro's expansion converts in its own way.
#![allow(clippy::useless_conversion, reason = "code that dynasm! makes")]

use super::address::{Way, tag};
use super::arena::CodePtr;
use super::asm::{Asm, Label};
use super::frame::{self, Straddle, frame};
use super::refill;
use dynasmrt::{DynasmApi, dynasm};
use std::mem::offset_of;
use umbra_mmu::addr::PAGE_SIZE;
use umbra_mmu::tlb::DataEntry;

/// What R14 is for a call.
pub const fn request(site: u32, bytes: u8) -> u64 {
    site as u64 | (bytes as u64) << 32
}

/// What R14 is for the call of an access that cannot be made in two parts.
pub const fn whole(site: u32, bytes: u8) -> u64 {
    site as u64 | (bytes as u64) << 40
}

const PLACES: usize = frame!(straddle);

/// RAX = the host address of linear R13.
fn find(asm: &mut Asm, way: Way, miss: Label) {
    dynasm!(asm ; .arch x64
        ; rorx r14, r13, 7
        ; and r14d, [r15 + frame::DATA_MASK as i32]
        ; add r14, [r15 + frame::DATA as i32]
        ; mov rax, r13
        ; xor rax, [r14 + tag(way)]
        ; cmp rax, PAGE_SIZE as i32
    );
    asm.jcc(3, miss);
    dynasm!(asm ; .arch x64 ; add rax, [r14 + offset_of!(DataEntry, host) as i32]);
}

/// Before the gate that loads (`Way::Load`), reserves (`Way::Store`) or loads for an update.
pub fn begin(asm: &mut Asm, way: Way, gate: CodePtr) {
    let [inside, miss] = [(); 2].map(|()| asm.label());
    dynasm!(asm ; .arch x64
        ; push r14
        ; push r13
        ; shr r14, 32
        ; movzx r14d, r14b
        ; and r13d, PAGE_SIZE as i32 - 1
        ; add r14d, r13d
        ; cmp r14d, PAGE_SIZE as i32
        ; pop r13
        ; pop r14
    );
    asm.jcc(6, inside);
    dynasm!(asm ; .arch x64 ; push rax ; push rcx ; push rsi ; push rdi ; push r14 ; push r13);
    find(asm, way, miss);
    // RSI and RAX: the two places; EDI: bytes in the first, ECX: in all.
    dynasm!(asm ; .arch x64
        ; mov rsi, rax
        ; mov eax, r13d
        ; and eax, PAGE_SIZE as i32 - 1
        ; mov edi, PAGE_SIZE as i32
        ; sub edi, eax
        ; add r13, rdi
    );
    find(asm, way, miss);
    dynasm!(asm ; .arch x64 ; mov ecx, [rsp + 12]);
    if way != Way::Load {
        dynasm!(asm ; .arch x64
            ; mov [r15 + (PLACES + offset_of!(Straddle, first)) as i32], rsi
            ; mov [r15 + (PLACES + offset_of!(Straddle, second)) as i32], rax
            ; mov [r15 + (PLACES + offset_of!(Straddle, in_first)) as i32], edi
            ; mov [r15 + (PLACES + offset_of!(Straddle, bytes)) as i32], ecx
        );
    }
    if way != Way::Store {
        dynasm!(asm ; .arch x64
            ; sub ecx, edi
            ; mov r14d, ecx
            ; mov ecx, edi
            ; lea rdi, [r15 + frame!(buffer) as i32]
            ; rep movsb
            ; mov rsi, rax
            ; mov ecx, r14d
            ; rep movsb
        );
    }
    dynasm!(asm ; .arch x64
        ; add rsp, 16
        ; pop rdi
        ; pop rsi
        ; pop rcx
        ; pop rax
        ; lea r14, [r15 + frame!(buffer) as i32]
        ; xor r13d, r13d
        ; ret
    );
    asm.bind(miss);
    dynasm!(asm ; .arch x64 ; pop r13 ; pop r14 ; pop rdi ; pop rsi ; pop rcx ; pop rax);
    let other = asm.label();
    asm.jmp(other);
    asm.bind(inside);
    refill::refill(asm, way, other);
    asm.bind(other);
    asm.jmp_to(gate.0);
}

/// Before the gate that stores the buffer: to the places that [`begin`] has found, if it has.
pub fn end(asm: &mut Asm, gate: CodePtr) {
    let none = asm.label();
    dynasm!(asm ; .arch x64 ; cmp DWORD [r15 + (PLACES + offset_of!(Straddle, bytes)) as i32], 0);
    asm.jcc(4, none);
    dynasm!(asm ; .arch x64
        ; push rcx
        ; push rsi
        ; push rdi
        ; lea rsi, [r15 + frame!(buffer) as i32]
        ; mov rdi, [r15 + (PLACES + offset_of!(Straddle, first)) as i32]
        ; mov ecx, [r15 + (PLACES + offset_of!(Straddle, in_first)) as i32]
        ; rep movsb
        ; mov rdi, [r15 + (PLACES + offset_of!(Straddle, second)) as i32]
        ; mov ecx, [r15 + (PLACES + offset_of!(Straddle, bytes)) as i32]
        ; sub ecx, [r15 + (PLACES + offset_of!(Straddle, in_first)) as i32]
        ; rep movsb
        ; mov DWORD [r15 + (PLACES + offset_of!(Straddle, bytes)) as i32], 0
        ; pop rdi
        ; pop rsi
        ; pop rcx
        ; ret
    );
    asm.bind(none);
    asm.jmp_to(gate.0);
}
