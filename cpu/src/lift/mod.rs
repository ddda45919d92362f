//! Instructions to uops: the one place that says what an instruction does. A file per family.
//!
//! # How to add an instruction
//!
//! Each family has `fn lift(l: &mut Lifter) -> Lifted`: it matches `l.insn.mnemonic()`, emits uops or helper calls with the
//! methods of [`Lifter`], and answers [`Lifted::Yes`]; or [`Lifted::No`] when the mnemonic is not its own.
//!
//! * Everything that can fault comes before anything that the guest can see (`uop::verify`).
//! * A store is the last uop of its instruction (the executor may leave the block after it).
//! * A helper call ([`Lifter::call`]) is the whole rest of its instruction. Its memory operand is prepared with
//!   [`Lifter::offset_to_t0`] (any segment, checked by the helper) or loaded by uops before.
//! * An instruction after which the block must end (it changes RIP, modes, interrupts) sets `l.ends`.
//!
//! What no family knows becomes a named #UD ([`Lifter::unimplemented`]).

mod alu;
mod bit;
pub mod block;
mod branch;
mod data;
mod muldiv;
mod patched;
mod shift;
mod stack;
mod string;
mod system;
mod vector;
mod x87;

use crate::decode::{Insn, MemOperand, Mnemonic, Operand};
use crate::helpers::{Args, Helper, MEMORY};
use crate::mode::ModeBits;
use crate::model::CpuModel;
use crate::state::Seg;
use crate::state::slots::{T0, ZERO};
use crate::uop::{AddrKind, Form, Mem, Op, Uop, Width};
use std::sync::atomic::{AtomicU8, Ordering};

/// Whether a family took the instruction.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Lifted {
    /// It emitted the instruction's uops.
    Yes,
    /// The mnemonic is not its own.
    No,
}

/// Whether an access needs write rights.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// A load.
    Read,
    /// A store, or the load of a read-modify-write.
    Write,
}

/// The context of one instruction being lifted.
pub struct Lifter<'a> {
    /// The instruction.
    pub insn: &'a Insn,
    /// The mode bits of the block.
    pub mode: ModeBits,
    /// The processor model.
    pub model: &'a CpuModel,
    /// Where the uops go.
    pub uops: &'a mut Vec<Uop>,
    /// Index of the instruction within its block.
    pub index: u8,
    /// Set when the block must end after this instruction.
    pub ends: bool,
    /// The segment of its memory operand, once that was asked for.
    seg: Option<Seg>,
}

/// Lifts one instruction: appends its uops and says whether the block ends here.
pub fn lift(insn: &Insn, mode: ModeBits, model: &CpuModel, index: u8, uops: &mut Vec<Uop>) -> bool {
    let mut l = Lifter { insn, mode, model, uops, index, ends: false, seg: None };
    let known = model.has_all(insn.features()) || is_older_with_prefix(insn);
    if insn.is_exotic() || !known || insn.lock() && !lock_allowed(insn) {
        l.raise_ud();
        return l.ends;
    }
    let known = &KNOWN_FAMILIES[insn.code() as usize % KNOWN_FAMILIES.len()];
    if let Some(family) = FAMILIES.get(usize::from(known.load(Ordering::Relaxed)))
        && family(&mut l) == Lifted::Yes
    {
        return l.ends;
    }
    match FAMILIES.iter().position(|family| family(&mut l) == Lifted::Yes) {
        Some(family) => known.store(family as u8, Ordering::Relaxed),
        None => l.unimplemented(),
    }
    l.ends
}

/// Each takes what no other does.
static FAMILIES: [fn(&mut Lifter<'_>) -> Lifted; 11] = [
    data::lift,
    alu::lift,
    branch::lift,
    stack::lift,
    shift::lift,
    bit::lift,
    muldiv::lift,
    string::lift,
    vector::lift,
    x87::lift,
    system::lift,
];

/// The family that took the last instruction of an exact form ([`Insn::code`]): to ask them all takes a tenth of lifting. A form
/// more than there are entries shares one, and then all are asked.
static KNOWN_FAMILIES: [AtomicU8; 1 << 13] = [const { AtomicU8::new(u8::MAX) }; 1 << 13];

/// TZCNT and LZCNT are BSF and BSR with a REP prefix, which processors without them ignore (SDM vol. 2, TZCNT).
fn is_older_with_prefix(insn: &Insn) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Tzcnt | Mnemonic::Lzcnt)
}

/// LOCK is allowed on these mnemonics when their destination is memory (SDM vol. 2, LOCK).
fn lock_allowed(insn: &Insn) -> bool {
    use Mnemonic as M;
    let name = matches!(
        insn.mnemonic(),
        M::Add
            | M::Adc
            | M::And
            | M::Btc
            | M::Btr
            | M::Bts
            | M::Cmpxchg
            | M::Cmpxchg8b
            | M::Cmpxchg16b
            | M::Dec
            | M::Inc
            | M::Neg
            | M::Not
            | M::Or
            | M::Sbb
            | M::Sub
            | M::Xor
            | M::Xadd
            | M::Xchg
    );
    name && insn.op(0) == Operand::Mem || insn.mnemonic() == Mnemonic::Xchg && insn.op(1) == Operand::Mem
}

impl Lifter<'_> {
    /// Appends a uop of this instruction.
    pub fn emit(&mut self, uop: Uop) {
        // The segment decides between #SS and #GP for an address that is not canonical.
        let seg = match uop.op {
            Op::Check | Op::Call | Op::CallEnd => uop.seg,
            _ if uop.form.has_memory() => self.seg.unwrap_or_else(|| self.insn.mem().seg),
            Op::Push | Op::Pop | Op::Leave | Op::CallNear | Op::CallInd | Op::Ret => Seg::Ss,
            _ => uop.seg,
        };
        self.uops.push(Uop { insn: self.index, next_rip: self.insn.next_ip(), seg, ..uop });
    }

    /// Appends a helper call. If `self.ends` is set it leaves the block afterwards in any case.
    pub fn call(&mut self, helper: &'static Helper, args: Args) {
        let op = if self.ends { Op::CallEnd } else { Op::Call };
        self.emit(Uop { op, ..Self::calling(helper, args) });
    }

    /// The uop of a helper call that does not end the block.
    pub fn calling(helper: &'static Helper, args: Args) -> Uop {
        Uop {
            dst: args.a,
            src: args.b,
            cond: args.c,
            width: args.width,
            seg: args.seg,
            imm: args.imm as i64,
            helper: Some(helper),
            ..Uop::new(Op::Call)
        }
    }

    /// Arguments with nothing in them, to fill in with struct update syntax.
    pub fn args(&self) -> Args {
        Args { a: ZERO, b: ZERO, c: 0, width: Width::B4, seg: Seg::Ds, imm: 0 }
    }

    /// Appends an exception: the instruction does nothing else.
    pub fn raise(&mut self, vector: u8) {
        self.ends = true;
        self.emit(Uop { imm: i64::from(vector), ..Uop::new(Op::Raise) });
    }

    /// #UD.
    pub fn raise_ud(&mut self) {
        self.raise(crate::fault::vector::UD);
    }

    /// An instruction that the processor has but Umbra does not: named once in the trace, then #UD.
    pub fn unimplemented(&mut self) {
        self.ends = true;
        self.emit(Uop { imm: self.insn.code() as i64, ..Uop::new(Op::Unimplemented) });
    }

    /// The operand size of the instruction's first operand if it is a register or memory, else the mode's.
    pub fn width_of(&self, operand: Operand) -> Width {
        match operand {
            Operand::Gpr(_, width) => width,
            Operand::High(_) => Width::B1,
            Operand::Mem => Width::from_bytes(self.insn.memory_size()).unwrap_or(Width::B4),
            _ => Width::B4,
        }
    }

    /// Makes the instruction's memory operand ready for a uop of `len` bytes: a flat operand is used as it is, any other is
    /// checked first ([`Op::Check`]) and its linear address put into [`T0`].
    pub fn mem(&mut self, len: u64, rights: Rights) -> Mem {
        let m = self.insn.mem();
        self.seg = Some(m.seg);
        self.mem_at(m, len, rights, T0)
    }

    /// Like [`Self::mem`] for any memory operand; a checked address goes to `slot`.
    pub fn mem_at(&mut self, m: MemOperand, len: u64, rights: Rights, slot: u8) -> Mem {
        let flat =
            self.mode.flat(m.seg) && !(rights == Rights::Write && m.seg == Seg::Cs && !self.mode.has(ModeBits::L));
        let parts = Mem { kind: AddrKind::Flat64, base: m.base, index: m.index, scale: m.scale, disp: m.disp };
        match m.width {
            Width::B8 if flat => parts,
            Width::B4 if flat => Mem { kind: AddrKind::Flat32, ..parts },
            _ => {
                self.emit(Uop {
                    dst: slot,
                    width: m.width,
                    seg: m.seg,
                    cond: u8::from(rights == Rights::Write),
                    imm: len as i64,
                    form: Form::M,
                    mem: parts,
                    ..Uop::new(Op::Check)
                });
                Mem::checked(slot)
            }
        }
    }

    /// Puts the offset of the memory operand into [`T0`] and gives its segment: for helpers, which check it themselves.
    pub fn offset_to_t0(&mut self) -> Seg {
        let m = self.insn.mem();
        let mem = Mem { kind: AddrKind::Flat64, base: m.base, index: m.index, scale: m.scale, disp: m.disp };
        self.emit(Uop { dst: T0, width: m.width, form: Form::M, mem, ..Uop::new(Op::Lea) });
        m.seg
    }

    /// Arguments for a helper whose r/m operand is `operand`: a slot, or memory with its offset put into [`T0`].
    pub fn rm_args(&mut self, operand: Operand) -> Args {
        let width = self.width_of(operand);
        match operand {
            Operand::Mem => Args { b: MEMORY, seg: self.offset_to_t0(), width, ..self.args() },
            Operand::Gpr(slot, _) => Args { b: slot, width, ..self.args() },
            _ => self.args(),
        }
    }

    /// The checks before any x87 instruction (#NM with CR0.EM or TS). True: the exception was emitted, stop here.
    pub fn x87_unavailable(&mut self) -> bool {
        self.raise_if(self.mode.has(ModeBits::EM | ModeBits::TS), crate::fault::vector::NM)
    }

    /// The checks before any MMX instruction (#UD with EM, #NM with TS). True: the exception was emitted, stop here.
    pub fn mmx_unavailable(&mut self) -> bool {
        self.raise_if(self.mode.has(ModeBits::EM), crate::fault::vector::UD)
            || self.raise_if(self.mode.has(ModeBits::TS), crate::fault::vector::NM)
    }

    /// The checks before any legacy SSE instruction (#UD with EM or without OSFXSR, #NM with TS).
    pub fn sse_unavailable(&mut self) -> bool {
        self.raise_if(self.mode.has(ModeBits::EM) || !self.mode.has(ModeBits::OSFXSR), crate::fault::vector::UD)
            || self.raise_if(self.mode.has(ModeBits::TS), crate::fault::vector::NM)
    }

    /// Emits an exception if `condition` holds, and says whether it did.
    pub fn raise_if(&mut self, condition: bool, vector: u8) -> bool {
        if condition {
            self.raise(vector);
        }
        condition
    }
}
