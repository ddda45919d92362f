//! System instructions (SDM vol. 1, 5.1.9, 5.1.13 and 5.23; vol. 3): segment registers, descriptor tables, far transfers,
//! interrupts, flags, ports, control and debug registers, MSRs, fast system calls, state save and restore.
//!
//! All of them are helper calls; what must end the block is marked here, privilege is checked by the helpers. Encodings
//! that processors without a feature run as no-operations are here too.

use super::stack::{flat_stack, sp_width};
use super::string::arguments;
use super::{Lifted, Lifter, Rights};
use crate::decode::{Code as C, Mnemonic as M, Operand};
use crate::helpers::{
    Args, Helper, access_rights, control, debug_regs, far, flags_io, identify, interrupt, iret, msr, port,
    segment_load, syscall, xsave,
};
use crate::mode::ModeBits;
use crate::state::Seg;
use crate::state::slots::{T0, T1};
use crate::uop::{Form, Op, Uop, Width};

/// Whether the block must end after an instruction.
#[derive(Copy, Clone, PartialEq, Eq)]
enum After {
    /// The helper says whether to leave.
    GoOn,
    /// RIP, modes or interrupts change.
    End,
}
use After::{End, GoOn};

/// Lifts the family's instructions.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    let families = [moves, transfers, flags_and_ports, tables, privileged, fast_calls, save_areas, hints];
    if families.iter().any(|family| family(l) == Lifted::Yes) { Lifted::Yes } else { Lifted::No }
}

fn emit(l: &mut Lifter<'_>, after: After, helper: &'static Helper, args: Args) -> Lifted {
    l.ends |= after == End;
    l.call(helper, args);
    Lifted::Yes
}

/// A call without operands.
fn plain(l: &mut Lifter<'_>, after: After, helper: &'static Helper) -> Lifted {
    emit(l, after, helper, l.args())
}

/// A call with an operand size only.
fn sized(l: &mut Lifter<'_>, after: After, helper: &'static Helper, width: Width) -> Lifted {
    let args = Args { width, ..l.args() };
    emit(l, after, helper, args)
}

/// A call whose r/m operand is operand `n`.
fn with_rm(l: &mut Lifter<'_>, after: After, helper: &'static Helper, n: u32) -> Lifted {
    let args = l.rm_args(l.insn.op(n));
    emit(l, after, helper, args)
}

fn slot(operand: Operand) -> u8 {
    match operand {
        Operand::Gpr(slot, _) => slot,
        _ => crate::state::slots::ZERO,
    }
}

/// MOV, PUSH, POP with segment, control and debug registers; LDS and its kin.
fn moves(l: &mut Lifter<'_>) -> Lifted {
    let (first, second) = (l.insn.op(0), l.insn.op(1));
    let width = match first {
        Operand::Gpr(_, width) => width,
        _ => l.width_of(second),
    };
    match (l.insn.mnemonic(), first, second) {
        (M::Mov, Operand::Seg(seg), _) => {
            // What may fault for the operand's sake comes before what may fault for the selector's; CS is refused first.
            let args = match second {
                Operand::Mem if seg != Seg::Cs => {
                    let mem = l.mem(2, Rights::Read);
                    l.emit(Uop { dst: T1, width: Width::B2, mem, form: Form::RM, ..Uop::new(Op::Mov) });
                    Args { b: T1, ..l.args() }
                }
                _ => l.rm_args(second),
            };
            let args = Args { a: seg as u8, ..args };
            emit(l, if seg == Seg::Ss { End } else { GoOn }, &segment_load::MOV_TO_SEGMENT, args)
        }
        (M::Mov, _, Operand::Seg(seg)) => {
            // Memory gets 16 bits, a register its operand size.
            match first {
                Operand::Gpr(dst, Width::B4 | Width::B8) => l.emit(Uop { dst, seg, ..Uop::new(Op::Selector) }),
                Operand::Gpr(dst, _) => {
                    l.emit(Uop { dst: T1, seg, ..Uop::new(Op::Selector) });
                    l.emit(Uop { dst, src: T1, width: Width::B2, form: Form::RR, ..Uop::new(Op::Mov) });
                }
                _ => {
                    let mem = l.mem(2, Rights::Write);
                    l.emit(Uop { dst: T1, seg, ..Uop::new(Op::Selector) });
                    l.emit(Uop { src: T1, width: Width::B2, mem, form: Form::MR, ..Uop::new(Op::Mov) });
                }
            }
            Lifted::Yes
        }
        (M::Mov, Operand::Cr(n), _) => {
            let args = Args { a: n, b: slot(second), width, ..l.args() };
            emit(l, End, &control::MOV_TO_CONTROL, args)
        }
        (M::Mov, _, Operand::Cr(n)) => {
            let args = Args { a: slot(first), b: n, width, ..l.args() };
            emit(l, GoOn, &control::MOV_FROM_CONTROL, args)
        }
        (M::Mov, Operand::Dr(n), _) => {
            let args = Args { a: n, b: slot(second), width, ..l.args() };
            emit(l, End, &debug_regs::MOV_TO_DEBUG, args)
        }
        (M::Mov, _, Operand::Dr(n)) => {
            let args = Args { a: slot(first), b: n, width, ..l.args() };
            emit(l, GoOn, &debug_regs::MOV_FROM_DEBUG, args)
        }
        (M::Push, Operand::Seg(seg), _) if flat_stack(l) => {
            let width = super::stack::operand_width(l);
            l.emit(Uop { dst: T0, seg, ..Uop::new(Op::Selector) });
            push_t0(l, width)
        }
        (M::Push, Operand::Seg(seg), _) => {
            let args = Args { c: seg as u8, width: super::stack::operand_width(l), ..l.args() };
            emit(l, GoOn, &segment_load::PUSH_SEGMENT, args)
        }
        (M::Pop, Operand::Seg(seg), _) => {
            let args = Args { a: seg as u8, width: super::stack::operand_width(l), ..l.args() };
            emit(l, if seg == Seg::Ss { End } else { GoOn }, &segment_load::POP_SEGMENT, args)
        }
        (M::Les, ..) => far_pointer(l, Seg::Es, width),
        (M::Lds, ..) => far_pointer(l, Seg::Ds, width),
        (M::Lss, ..) => far_pointer(l, Seg::Ss, width),
        (M::Lfs, ..) => far_pointer(l, Seg::Fs, width),
        (M::Lgs, ..) => far_pointer(l, Seg::Gs, width),
        _ => Lifted::No,
    }
}

/// Pushes the first temporary on a flat stack.
fn push_t0(l: &mut Lifter<'_>, width: Width) -> Lifted {
    let cond = sp_width(l);
    l.emit(Uop { src: T0, width, cond, form: Form::R, ..Uop::new(Op::Push) });
    Lifted::Yes
}

/// PUSHF; with VM its privilege is the helper's.
fn push_flags(l: &mut Lifter<'_>, width: Width) -> Lifted {
    if !flat_stack(l) || l.mode.has(ModeBits::VM) {
        return sized(l, GoOn, &flags_io::PUSHF, width);
    }
    l.emit(Uop { dst: T0, ..Uop::new(Op::Rflags) });
    push_t0(l, width)
}

fn far_pointer(l: &mut Lifter<'_>, seg: Seg, width: Width) -> Lifted {
    let args = Args { a: slot(l.insn.op(0)), c: seg as u8, width, ..l.rm_args(Operand::Mem) };
    emit(l, if seg == Seg::Ss { End } else { GoOn }, &segment_load::LOAD_FAR_POINTER, args)
}

/// Far JMP, CALL and RET, software interrupts, IRET.
fn transfers(l: &mut Lifter<'_>) -> Lifted {
    let width = match l.insn.code() {
        C::Jmp_ptr1616 | C::Call_ptr1616 | C::Jmp_m1616 | C::Call_m1616 | C::Retfw | C::Retfw_imm16 => Width::B2,
        C::Jmp_m1664 | C::Call_m1664 | C::Retfq | C::Retfq_imm16 => Width::B8,
        _ => Width::B4,
    };
    match (l.insn.mnemonic(), l.insn.op(0)) {
        (M::Jmp, Operand::Far(selector, offset)) => far_immediate(l, &far::FAR_JUMP, width, selector, offset),
        (M::Call, Operand::Far(selector, offset)) => far_immediate(l, &far::FAR_CALL, width, selector, offset),
        (M::Jmp, Operand::Mem) => {
            let args = Args { width, ..l.rm_args(Operand::Mem) };
            emit(l, End, &far::FAR_JUMP_MEMORY, args)
        }
        (M::Call, Operand::Mem) => {
            let args = Args { width, ..l.rm_args(Operand::Mem) };
            emit(l, End, &far::FAR_CALL_MEMORY, args)
        }
        (M::Retf, operand) => {
            let imm = if let Operand::Imm(imm) = operand { imm & 0xffff } else { 0 };
            let args = Args { width, imm, ..l.args() };
            emit(l, End, &far::FAR_RETURN, args)
        }
        (M::Int, Operand::Imm(imm)) => {
            let args = Args { imm: imm & 0xff, ..l.args() };
            emit(l, End, &interrupt::INT, args)
        }
        (M::Int3, _) => plain(l, End, &interrupt::INT3),
        (M::Into, _) => plain(l, End, &interrupt::INTO),
        (M::Int1, _) => plain(l, End, &interrupt::INT1),
        (M::Iret, _) => sized(l, End, &iret::IRET, Width::B2),
        (M::Iretd, _) => sized(l, End, &iret::IRET, Width::B4),
        (M::Iretq, _) => sized(l, End, &iret::IRET, Width::B8),
        _ => Lifted::No,
    }
}

fn far_immediate(l: &mut Lifter<'_>, helper: &'static Helper, width: Width, selector: u16, offset: u32) -> Lifted {
    let args = Args { width, imm: u64::from(selector) << 32 | u64::from(offset), ..l.args() };
    emit(l, End, helper, args)
}

/// PUSHF, POPF, CLI, STI, CLAC, STAC, IN, OUT, INS, OUTS.
fn flags_and_ports(l: &mut Lifter<'_>) -> Lifted {
    match l.insn.mnemonic() {
        M::Pushf => push_flags(l, Width::B2),
        M::Pushfd => push_flags(l, Width::B4),
        M::Pushfq => push_flags(l, Width::B8),
        M::Popf => sized(l, GoOn, &flags_io::POPF, Width::B2),
        M::Popfd => sized(l, GoOn, &flags_io::POPF, Width::B4),
        M::Popfq => sized(l, GoOn, &flags_io::POPF, Width::B8),
        M::Cli => plain(l, GoOn, &flags_io::CLI),
        M::Sti => plain(l, GoOn, &flags_io::STI),
        M::Clac => plain(l, GoOn, &flags_io::CLAC),
        M::Stac => plain(l, GoOn, &flags_io::STAC),
        M::In => port_access(l, l.insn.op(0), l.insn.op(1), [&port::IN_IMMEDIATE, &port::IN_DX]),
        M::Out => port_access(l, l.insn.op(1), l.insn.op(0), [&port::OUT_IMMEDIATE, &port::OUT_DX]),
        M::Insb => port_string(l, &port::INS, Width::B1),
        M::Insw => port_string(l, &port::INS, Width::B2),
        M::Insd => port_string(l, &port::INS, Width::B4),
        M::Outsb => port_string(l, &port::OUTS, Width::B1),
        M::Outsw => port_string(l, &port::OUTS, Width::B2),
        M::Outsd => port_string(l, &port::OUTS, Width::B4),
        _ => Lifted::No,
    }
}

fn port_access(l: &mut Lifter<'_>, data: Operand, number: Operand, helpers: [&'static Helper; 2]) -> Lifted {
    let width = l.width_of(data);
    match number {
        Operand::Imm(imm) => {
            let args = Args { width, imm: imm & 0xff, ..l.args() };
            emit(l, End, helpers[0], args)
        }
        _ => sized(l, End, helpers[1], width),
    }
}

fn port_string(l: &mut Lifter<'_>, helper: &'static Helper, width: Width) -> Lifted {
    let args = arguments(l, width);
    emit(l, End, helper, args)
}

/// Descriptor table registers and queries about selectors.
fn tables(l: &mut Lifter<'_>) -> Lifted {
    match l.insn.mnemonic() {
        M::Lldt => with_rm(l, GoOn, &segment_load::LLDT, 0),
        M::Ltr => with_rm(l, GoOn, &segment_load::LTR, 0),
        M::Sldt => with_rm(l, GoOn, &segment_load::SLDT, 0),
        M::Str => with_rm(l, GoOn, &segment_load::STR, 0),
        M::Lgdt => table_register(l, &segment_load::LGDT),
        M::Lidt => table_register(l, &segment_load::LIDT),
        M::Sgdt => table_register(l, &segment_load::SGDT),
        M::Sidt => table_register(l, &segment_load::SIDT),
        M::Lar => query(l, &access_rights::LAR),
        M::Lsl => query(l, &access_rights::LSL),
        M::Verr => with_rm(l, GoOn, &access_rights::VERR, 0),
        M::Verw => with_rm(l, GoOn, &access_rights::VERW, 0),
        M::Arpl => {
            let args = Args { a: slot(l.insn.op(1)), ..l.rm_args(l.insn.op(0)) };
            emit(l, GoOn, &access_rights::ARPL, args)
        }
        _ => Lifted::No,
    }
}

fn table_register(l: &mut Lifter<'_>, helper: &'static Helper) -> Lifted {
    let width = match l.insn.code() {
        C::Lgdt_m1632_16 | C::Lidt_m1632_16 | C::Sgdt_m1632_16 | C::Sidt_m1632_16 => Width::B2,
        C::Lgdt_m1664 | C::Lidt_m1664 | C::Sgdt_m1664 | C::Sidt_m1664 => Width::B8,
        _ => Width::B4,
    };
    let args = Args { width, ..l.rm_args(Operand::Mem) };
    emit(l, GoOn, helper, args)
}

fn query(l: &mut Lifter<'_>, helper: &'static Helper) -> Lifted {
    let width = l.width_of(l.insn.op(0));
    let args = Args { a: slot(l.insn.op(0)), width, ..l.rm_args(l.insn.op(1)) };
    emit(l, GoOn, helper, args)
}

/// What CPL 0 uses to run the machine, and what asks the processor about itself.
fn privileged(l: &mut Lifter<'_>) -> Lifted {
    match l.insn.mnemonic() {
        M::Lmsw => with_rm(l, End, &control::LMSW, 0),
        M::Smsw => with_rm(l, GoOn, &control::SMSW, 0),
        M::Clts => plain(l, GoOn, &control::CLTS),
        M::Hlt => plain(l, End, &control::HLT),
        M::Invd | M::Wbinvd | M::Wbnoinvd => plain(l, GoOn, &control::INVD),
        M::Invlpg => with_rm(l, End, &control::INVLPG, 0),
        M::Invpcid => {
            let args = Args { a: slot(l.insn.op(0)), ..l.rm_args(l.insn.op(1)) };
            emit(l, End, &control::INVPCID, args)
        }
        M::Xgetbv => plain(l, GoOn, &control::XGETBV),
        M::Xsetbv => plain(l, End, &control::XSETBV),
        M::Rdmsr => plain(l, GoOn, &msr::RDMSR),
        M::Wrmsr => plain(l, End, &msr::WRMSR),
        M::Cpuid => plain(l, GoOn, &identify::CPUID),
        M::Rdtsc => plain(l, GoOn, &identify::RDTSC),
        M::Rdtscp => plain(l, GoOn, &identify::RDTSCP),
        M::Rdpmc => plain(l, GoOn, &identify::RDPMC),
        M::Rdpid => into_register(l, &identify::RDPID, 0),
        M::Rdrand | M::Rdseed => into_register(l, &identify::RANDOM, 0),
        _ => Lifted::No,
    }
}

/// A helper with the first operand as its register `a`.
fn into_register(l: &mut Lifter<'_>, helper: &'static Helper, c: u8) -> Lifted {
    let operand = l.insn.op(0);
    let args = Args { a: slot(operand), c, width: l.width_of(operand), ..l.args() };
    emit(l, GoOn, helper, args)
}

/// System calls and segment bases.
fn fast_calls(l: &mut Lifter<'_>) -> Lifted {
    let wide = matches!(l.insn.code(), C::Sysretq | C::Sysexitq);
    let width = if wide { Width::B8 } else { Width::B4 };
    match l.insn.mnemonic() {
        M::Syscall => plain(l, End, &syscall::SYSCALL),
        M::Sysret | M::Sysretq => sized(l, End, &syscall::SYSRET, width),
        M::Sysenter => plain(l, End, &syscall::SYSENTER),
        M::Sysexit | M::Sysexitq => sized(l, End, &syscall::SYSEXIT, width),
        M::Swapgs => plain(l, GoOn, &syscall::SWAPGS),
        M::Rdfsbase => into_register(l, &syscall::READ_BASE, Seg::Fs as u8),
        M::Rdgsbase => into_register(l, &syscall::READ_BASE, Seg::Gs as u8),
        M::Wrfsbase => into_register(l, &syscall::WRITE_BASE, Seg::Fs as u8),
        M::Wrgsbase => into_register(l, &syscall::WRITE_BASE, Seg::Gs as u8),
        _ => Lifted::No,
    }
}

/// FXSAVE, the XSAVE family, MXCSR.
fn save_areas(l: &mut Lifter<'_>) -> Lifted {
    match l.insn.mnemonic() {
        M::Fxsave => area(l, &xsave::FXSAVE, Width::B4),
        M::Fxsave64 => area(l, &xsave::FXSAVE, Width::B8),
        M::Fxrstor => area(l, &xsave::FXRSTOR, Width::B4),
        M::Fxrstor64 => area(l, &xsave::FXRSTOR, Width::B8),
        M::Xsave => area(l, &xsave::XSAVE, Width::B4),
        M::Xsave64 => area(l, &xsave::XSAVE, Width::B8),
        M::Xsaveopt => area(l, &xsave::XSAVEOPT, Width::B4),
        M::Xsaveopt64 => area(l, &xsave::XSAVEOPT, Width::B8),
        M::Xsavec => area(l, &xsave::XSAVEC, Width::B4),
        M::Xsavec64 => area(l, &xsave::XSAVEC, Width::B8),
        M::Xrstor => area(l, &xsave::XRSTOR, Width::B4),
        M::Xrstor64 => area(l, &xsave::XRSTOR, Width::B8),
        M::Ldmxcsr | M::Stmxcsr => {
            if l.sse_unavailable() {
                return Lifted::Yes;
            }
            let helper = if l.insn.mnemonic() == M::Ldmxcsr { &xsave::LDMXCSR } else { &xsave::STMXCSR };
            area(l, helper, Width::B4)
        }
        _ => Lifted::No,
    }
}

fn area(l: &mut Lifter<'_>, helper: &'static Helper, width: Width) -> Lifted {
    let args = Args { width, ..l.rm_args(Operand::Mem) };
    emit(l, GoOn, helper, args)
}

/// Encodings in the range of hints: no-operations without the feature. Their siblings that are not hints are #UD.
fn hints(l: &mut Lifter<'_>) -> Lifted {
    match l.insn.mnemonic() {
        M::Rdsspd
        | M::Rdsspq
        | M::Cldemote
        | M::Bndmk
        | M::Bndcl
        | M::Bndcu
        | M::Bndcn
        | M::Bndmov
        | M::Bndldx
        | M::Bndstx => l.emit(Uop::new(Op::Nop)),
        M::Incsspd
        | M::Incsspq
        | M::Saveprevssp
        | M::Rstorssp
        | M::Wrssd
        | M::Wrssq
        | M::Wrussd
        | M::Wrussq
        | M::Setssbsy
        | M::Clrssbsy
        | M::Ud0
        | M::Ud1
        | M::Ud2 => l.raise_ud(),
        _ => return Lifted::No,
    }
    Lifted::Yes
}
