//! A miss of the data TLB that the monitor's tables answer: two dependent loads, without Rust (SHADOW-MMU.md, "The TLB").
//!
//! This piece stands before the gates of accesses (`gate`): what it is not made for goes on to those. It leaves in the TLB what
//! `VcpuMmu::resolve` would have put there.

// The macro's expansion converts in its own way.
#![allow(clippy::useless_conversion, reason = "code that dynasm! makes")]

use super::address::Way;
use super::asm::{Asm, Label};
use super::frame::{self, frame};
use dynasmrt::{DynasmApi, dynasm};
use std::mem::offset_of;
use umbra_mmu::addr::PAGE_SIZE;
use umbra_mmu::monitor::table::{SLOW, SPECIAL};
use umbra_mmu::tlb::{DataEntry, LEAF_ENTRIES, LeafEntry, MOST_CONFLICTS, NO_TAG};

/// Makes the TLB have the page of linear R13, if that is the only one of an access (R14: `straddle`), and returns with the place
/// at R14 + R13 and ZF clear. `miss`: it did not, and no register has changed.
pub fn refill(asm: &mut Asm, way: Way, miss: Label) {
    let [back, counted] = [(); 2].map(|()| asm.label());
    let wanted = frame::RIGHTS + if way == Way::Load { 0 } else { 8 };
    // What has to be told to Rust is; an address that is not canonical faults there.
    dynasm!(asm ; .arch x64 ; cmp DWORD [r15 + frame!(impatient) as i32], 0);
    asm.jcc(5, miss);
    dynasm!(asm ; .arch x64
        ; push rax
        ; push rcx
        ; push rdx
        ; push rsi
        ; push r14
        ; shr r14, 32
        ; mov eax, r14d
        ; shr eax, 8
        ; or eax, r14d
        ; movzx eax, al
        ; mov ecx, r13d
        ; and ecx, PAGE_SIZE as i32 - 1
        ; add ecx, eax
        ; cmp ecx, PAGE_SIZE as i32
    );
    asm.jcc(7, back);
    dynasm!(asm ; .arch x64
        ; mov rax, r13
        ; shl rax, 16
        ; sar rax, 16
        ; cmp rax, r13
    );
    asm.jcc(5, back);
    // The leaf table of its 2 MiB, and the page's word.
    dynasm!(asm ; .arch x64
        ; mov rax, r13
        ; shr rax, 21
        ; mov ecx, eax
        ; and ecx, LEAF_ENTRIES as i32 - 1
        ; shl ecx, size_of::<LeafEntry>().trailing_zeros() as i8
        ; add rcx, [r15 + frame::LEAVES as i32]
        ; cmp rax, [rcx + offset_of!(LeafEntry, tag) as i32]
    );
    asm.jcc(5, back);
    dynasm!(asm ; .arch x64
        ; mov rcx, [rcx + offset_of!(LeafEntry, table) as i32]
        ; rorx rax, r13, 12
        ; and eax, 511
        ; mov rax, [rcx + 8 * rax]
        ; test eax, [r15 + wanted as i32]
    );
    asm.jcc(4, back);
    dynasm!(asm ; .arch x64 ; bt rax, SPECIAL.trailing_zeros() as i8);
    asm.jcc(2, back);
    if way != Way::Load {
        dynasm!(asm ; .arch x64 ; test eax, SLOW as i32);
        asm.jcc(5, back);
    }
    // The entry; a page that loses its place is counted.
    dynasm!(asm ; .arch x64
        ; rorx r14, r13, 7
        ; and r14d, [r15 + frame::DATA_MASK as i32]
        ; add r14, [r15 + frame::DATA as i32]
        ; mov rcx, [r14 + offset_of!(DataEntry, read) as i32]
        ; test cl, NO_TAG as i8
    );
    asm.jcc(5, counted);
    dynasm!(asm ; .arch x64 ; xor rcx, r13 ; cmp rcx, 0xfff);
    asm.jcc(6, counted);
    dynasm!(asm ; .arch x64 ; cmp DWORD [r15 + frame::CONFLICTS as i32], MOST_CONFLICTS as i32);
    asm.jcc(3, back);
    dynasm!(asm ; .arch x64 ; inc DWORD [r15 + frame::CONFLICTS as i32]);
    asm.bind(counted);
    dynasm!(asm ; .arch x64
        ; inc QWORD [r15 + frame::REFILLS as i32]
        ; mov rdx, rax
        ; shl rdx, 12
        ; shr rdx, 24
        ; shl rdx, 12
        ; mov [r14 + offset_of!(DataEntry, host) as i32], rdx
        ; sub rdx, [r15 + frame::POOL as i32]
        ; shr rdx, 12
        ; shl rdx, 3
        ; add rdx, [r15 + frame::OWNERS as i32]
        ; mov rdx, [rdx]
        ; mov [r14 + offset_of!(DataEntry, phys) as i32], rdx
        // Its tag, and what stands for none.
        ; mov rcx, r13
        ; and rcx, -0x1000
        ; mov edx, ecx
        ; not edx
        ; and edx, 0x1000
        ; or edx, NO_TAG as i32
        ; mov rsi, rcx
        ; test eax, [r15 + frame::RIGHTS as i32]
        ; cmovz rsi, rdx
        ; mov [r14 + offset_of!(DataEntry, read) as i32], rsi
        ; mov rsi, rcx
        ; test eax, [r15 + (frame::RIGHTS + 8) as i32]
        ; cmovz rsi, rdx
        ; test eax, SLOW as i32
        ; cmovnz rsi, rdx
        ; mov [r14 + offset_of!(DataEntry, write) as i32], rsi
        ; mov r14, [r14 + offset_of!(DataEntry, host) as i32]
        ; and r13d, 0xfff
        ; add r14, r13
        ; xor r13d, r13d
        ; add rsp, 8
        ; pop rsi
        ; pop rdx
        ; pop rcx
        ; pop rax
        ; test r15, r15
        ; ret
    );
    asm.bind(back);
    dynasm!(asm ; .arch x64 ; pop r14 ; pop rsi ; pop rdx ; pop rcx ; pop rax);
    asm.jmp(miss);
}
