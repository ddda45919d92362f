//! Memos: an access looks first at the page that it found last (`umbra_mmu::tlb::Memo`), then at the TLB.
//!
//! ```text
//! mov r14, r13                    linear
//! sub r14, [memo's page]          offset in the page, if it is the same one
//! cmp r14, [memo's limit]
//! jae slow
//! mov r14, [memo's addend]
//! op  …, [r14 + r13]
//! ```
//!
//! None of these loads waits for the address, which the check of the TLB makes a chain of two. Behind the block the memo is
//! filled from the TLB. An access that goes from page to page is given no memo: its block is made again with the TLB's check.

// The macro's expansion converts in its own way.
#![allow(clippy::useless_conversion, reason = "code that dynasm! makes")]

use super::address::At;
use super::asm::{Alu, Asm, Label, Rm};
use super::block::Emitter;
use super::frame::{self, PATIENCE, frame};
use super::registers::{FUEL, S0, S1};
use super::{Disable, address};
use crate::mode::ModeBits;
use crate::uop::Width;
use dynasmrt::{DynasmApi, dynasm};
use std::mem::offset_of;
use umbra_mmu::tlb::{DataEntry, MEMOS, Memo};

/// Fewer instructions than this between two fills of a memo are too few: a hit saves about a tenth of what a fill costs.
const SOON: i32 = 128;

/// The bytes that a memo's accesses reach over.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Up to 8 bytes.
    Word,
    /// Up to 32.
    Vector,
    /// Up to 128: a run of vectors.
    Line,
}

impl Reach {
    /// All.
    pub const ALL: [Reach; 3] = [Reach::Word, Reach::Vector, Reach::Line];

    /// For an access of `bytes`.
    pub fn of(bytes: u8) -> Reach {
        if bytes <= 8 { Reach::Word } else { Reach::Vector }
    }
    /// In bytes.
    pub fn bytes(self) -> i32 {
        match self {
            Reach::Word => 8,
            Reach::Vector => 32,
            Reach::Line => 128,
        }
    }
}

/// The first number and how many there are for a reach, of reads or of writes. Each kind has its own: a page that may be read
/// must not be written, and a limit is that of one reach.
fn numbers(reach: Reach, writes: bool) -> (u32, u32) {
    match (reach, writes) {
        (Reach::Word, false) => (0, 112),
        (Reach::Word, true) => (112, 80),
        (Reach::Vector, false) => (192, 24),
        (Reach::Vector, true) => (216, 16),
        (Reach::Line, false) => (232, 12),
        (Reach::Line, true) => (244, MEMOS as u32 - 244),
    }
}

/// How many memos of each reach were given out, for reads and for writes.
pub type Given = [[u32; 2]; Reach::ALL.len()];

/// Offset of a memo in the vCPU.
const fn offset(number: u8) -> usize {
    frame::MEMOS + number as usize * size_of::<Memo>()
}

impl Emitter<'_> {
    /// A memo for the current access, if it is to have one.
    pub(super) fn memo(&mut self, reach: Reach, way: address::Way) -> Option<u8> {
        // NOTE(why not a supervisor's too): kernels touch many pages, each briefly, and drop entries all the time; their memos
        // made a boot a third slower.
        let user = self.context.key.mode.has(ModeBits::USER);
        if self.context.disable.has(Disable::MEMOS) || self.is_far() || !user || self.without_memos {
            return None;
        }
        let writes = way != address::Way::Load;
        let given = &mut self.context.memos[reach as usize][usize::from(writes)];
        let (first, count) = numbers(reach, writes);
        let number = first + *given % count;
        *given = given.wrapping_add(1);
        Some(number as u8)
    }

    /// The check of an address: a register and a displacement, or in the first scratch register. Afterwards the second one is
    /// the memo's addend. The sum is that of 64 bits whatever its width, as the access makes it too.
    pub(super) fn check_memo(&mut self, number: u8, address: Option<At>, slow: Label) {
        let at = offset(number);
        let asm = &mut *self.asm;
        let whole = |at| At { width: Width::B8, ..at };
        address::lea(asm, S1, whole(address.unwrap_or(At { base: S0, disp: 0, width: Width::B8 })));
        asm.alu(Alu::Sub, Width::B8, S1, Rm::cpu(at + offset_of!(Memo, page)));
        asm.alu(Alu::Cmp, Width::B8, S1, Rm::cpu(at + offset_of!(Memo, limit)));
        asm.jcc(3, slow);
        asm.load(Width::B8, S1, Rm::cpu(at + offset_of!(Memo, addend)));
    }
}

/// What [`fill`] is told in R14.
pub fn request(number: u8, bytes: u8) -> u64 {
    u64::from(number) | u64::from(bytes) << 8
}

/// Fills memo R14 for the address R13 from the TLB; afterwards R14 is its addend ([`request`]). ZF clear: the TLB has no such
/// entry. An access too near the end of its page for the memo gets its addend, and the memo stays.
pub fn fill(asm: &mut Asm, reach: Reach, way: address::Way) {
    let [soon, go_on, edge, miss] = [(); 4].map(|()| asm.label());
    let tag = address::tag(way);
    let at = |field: usize| (frame::MEMOS + field) as i32;
    dynasm!(asm ; .arch x64
        ; push rax
        ; push r14
        ; movzx eax, r14b
        ; shl eax, size_of::<Memo>().trailing_zeros() as i8
        ; add rax, r15
        ; mov r14, [rax + at(offset_of!(Memo, time))]
        ; mov [rax + at(offset_of!(Memo, time))], Rq(FUEL)
        ; cmp DWORD [rax + at(offset_of!(Memo, limit))], 0
    );
    asm.jcc(4, go_on);
    dynasm!(asm ; .arch x64 ; sub r14, Rq(FUEL) ; cmp r14, SOON);
    asm.jcc(2, soon);
    asm.bind(go_on);
    dynasm!(asm ; .arch x64
        ; push r13
        ; rorx r14, r13, 7
        ; and r14d, [r15 + frame::DATA_MASK as i32]
        ; add r14, [r15 + frame::DATA as i32]
        ; xor r13, [r14 + tag]
        ; cmp r13, 4096 - reach.bytes()
    );
    asm.jcc(7, edge);
    dynasm!(asm ; .arch x64
        ; mov r13, [r14 + tag]
        ; mov r14, [r14 + offset_of!(DataEntry, host) as i32]
        ; sub r14, r13
        ; mov [rax + at(offset_of!(Memo, page))], r13
        ; mov [rax + at(offset_of!(Memo, addend))], r14
        ; mov QWORD [rax + at(offset_of!(Memo, limit))], 4097 - reach.bytes()
        ; sub rax, r15
        ; shr eax, size_of::<[Memo; 4]>().trailing_zeros() as i8
        ; mov r13, [r15 + frame::MEMOS_USED as i32]
        ; bts r13, rax
        ; mov [r15 + frame::MEMOS_USED as i32], r13
        ; pop r13
        ; add rsp, 8
        ; pop rax
        ; cmp r15, r15
        ; ret
    );
    asm.bind(edge);
    dynasm!(asm ; .arch x64
        ; mov QWORD [rax + at(offset_of!(Memo, time))], 0
        ; cmp r13, 4095
    );
    asm.jcc(7, miss);
    // The bytes of the access, above the number.
    dynasm!(asm ; .arch x64 ; movzx eax, BYTE [rsp + 9] ; add eax, r13d ; cmp eax, 4096);
    asm.jcc(7, miss);
    dynasm!(asm ; .arch x64
        ; mov r13, [r14 + tag]
        ; mov r14, [r14 + offset_of!(DataEntry, host) as i32]
        ; sub r14, r13
        ; pop r13
        ; add rsp, 8
        ; pop rax
        ; cmp r15, r15
        ; ret
    );
    asm.bind(miss);
    // The gate that now fills the TLB leaves the memo as it is: the next access fills it, however soon.
    dynasm!(asm ; .arch x64 ; pop r13 ; add rsp, 8 ; pop rax ; test r15, r15 ; ret);
    asm.bind(soon);
    dynasm!(asm ; .arch x64 ; dec DWORD [r15 + frame!(patience) as i32]);
    asm.jcc(9, go_on);
    dynasm!(asm ; .arch x64
        ; mov DWORD [r15 + frame!(patience) as i32], PATIENCE
        ; mov DWORD [r15 + frame!(impatient) as i32], 1
        ; add rsp, 8
        ; pop rax
        ; test r15, r15
        ; ret
    );
}

#[cfg(test)]
mod tests {
    use super::{MEMOS, Reach, numbers};

    /// A page that was found for reading must not be written through the same memo, nor over its end.
    #[test]
    fn each_kind_of_access_has_numbers_of_its_own() {
        let kinds = Reach::ALL.into_iter().flat_map(|reach| [numbers(reach, false), numbers(reach, true)]);
        let mut all: Vec<u32> = kinds.flat_map(|(first, count)| first..first + count).collect();
        all.sort_unstable();
        assert_eq!(all, (0..MEMOS as u32).collect::<Vec<_>>());
    }
}
