//! The common code: how emitted code is entered and left, and the gates through which it calls Rust.
//!
//! At a gate all guest registers are written to the state, so that Rust sees a vCPU like any other; after it they are read
//! again. The vector variants do the same with YMM0–15 and MXCSR: no Rust runs with the guest's MXCSR.
//! A gate's function answers 0 (go on), 1 (go on with the buffer), or a [`Status`] with which emitted code is left.
#![allow(
    unsafe_code,
    reason = "the functions that emitted code calls get the vCPU as a raw pointer, as registers hold it"
)]
// The macro's expansion multiplies and casts in its own way.
#![allow(clippy::useless_conversion, clippy::unnecessary_cast, clippy::identity_op, reason = "code that dynasm! makes")]

use super::arena::{Arena, CodePtr};
use super::asm::{Asm, Form, Map, Rm};
use super::block::Site;
use super::flags::SavedFlags;
use super::frame::{self, JUMPS, JumpEntry, frame};
use super::registers::{PINNED, slot_offset};
use crate::cache::Leave;
use crate::fault::Fault;
use crate::mode::ModeBits;
use crate::state::flags::LazyOp;
use crate::state::slots::RSP;
use crate::state::{State, Vectors};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use dynasmrt::{DynasmApi, dynasm};
use std::mem::offset_of;
use umbra_mmu::addr::Linear;
use umbra_mmu::fault::Access;
use umbra_mmu::tlb::FetchEntry;

/// Why emitted code was left.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// A direct jump that is not linked; RIP is the site's.
    Chain = 2,
    /// Out of fuel, or attention; RIP is the site's.
    Stop = 3,
    /// An indirect jump to `state.rip` that the table does not know.
    Dynamic = 4,
    /// The site's instruction met `link.fault`, or #DE if there is none.
    Fault = 5,
    /// Code was written by the site's instruction, which is done.
    Early = 6,
    /// A handler met `link.fault`; flags are in RFLAGS.
    StepFault = 7,
    /// A handler left the block in the middle of it; flags are in RFLAGS, RIP is set or to be set.
    StepEarly = 8,
    /// A handler ended the block; flags are in RFLAGS and RIP is set.
    StepEnd = 9,
    /// An unmasked SIMD exception: the block is the interpreter's.
    Unmasked = 10,
    /// An indirect jump to an address that is not canonical: #GP at the site's instruction.
    NotCanonical = 11,
}

impl Status {
    /// From what emitted code returned.
    pub fn of(number: u32) -> Status {
        use Status as S;
        [S::Chain, S::Stop, S::Dynamic, S::Fault, S::Early, S::StepFault, S::StepEarly, S::StepEnd, S::Unmasked]
            .into_iter()
            .find(|status| *status as u32 == number)
            .unwrap_or(S::NotCanonical)
    }
}

/// Addresses of the common code; pairs are without and with vector registers loaded.
#[derive(Clone, Debug)]
pub struct Gates {
    /// `extern "sysv64" fn(*mut Vcpu, code) -> u32`.
    pub enter: CodePtr,
    /// Leaves with status in R13 and site in R14.
    pub exit: [CodePtr; 2],
    /// Loads: linear in R13, site in R14; afterwards R14 + R13 is the operand's host address.
    pub load: [CodePtr; 2],
    /// The same with write rights; ZF: it is the buffer, to be committed.
    pub reserve: [CodePtr; 2],
    /// The same, and the buffer holds the old value.
    pub load_for_update: [CodePtr; 2],
    /// Stores the buffer: site in R14.
    pub commit: [CodePtr; 2],
    /// Runs the site's step: site in R14.
    pub step: [CodePtr; 2],
    /// Goes to the block at RIP = R13, site in R14 (jumped to).
    pub dynamic: [CodePtr; 2],
    /// Loads vector registers and MXCSR; leaves at the site in R14 if MXCSR has an exception unmasked.
    pub load_vectors: CodePtr,
}

type GateFn = unsafe extern "sysv64" fn(*mut Vcpu, u64, u32) -> u32;

fn spill(asm: &mut Asm) {
    for (slot, reg) in PINNED {
        asm.store(Width::B8, Rm::cpu(slot_offset(slot)), reg);
    }
    asm.store(Width::B8, Rm::cpu(frame!(fuel)), super::registers::FUEL);
}

fn fill(asm: &mut Asm) {
    for (slot, reg) in PINNED {
        asm.load(Width::B8, reg, Rm::cpu(slot_offset(slot)));
    }
    asm.load(Width::B8, super::registers::FUEL, Rm::cpu(frame!(fuel)));
}

const VECTORS: usize = offset_of!(Vcpu, state) + offset_of!(State, vectors);
const MXCSR: usize = VECTORS + offset_of!(Vectors, mxcsr);

fn ymm(asm: &mut Asm, opcode: u8) {
    for n in 0..16u8 {
        let place = Rm::cpu(VECTORS + offset_of!(Vectors, regs) + 32 * usize::from(n));
        asm.op(Form { vex: Some((0, true)), ..Form::new(Map::M0f, opcode) }, n, place);
    }
}

/// LDMXCSR (2) or STMXCSR (3).
fn mxcsr(asm: &mut Asm, extension: u8, offset: usize) {
    asm.op(Form::new(Map::M0f, 0xae), extension, Rm::cpu(offset));
}

fn save_vectors(asm: &mut Asm) {
    ymm(asm, 0x11);
    mxcsr(asm, 3, MXCSR);
    mxcsr(asm, 2, frame!(host_mxcsr));
}

fn load_vectors(asm: &mut Asm) {
    ymm(asm, 0x10);
    mxcsr(asm, 2, MXCSR);
}

impl Gates {
    /// Emits the common code at the arena's start.
    pub fn emit(arena: &mut Arena, asm: &mut Asm) -> Option<Gates> {
        let mut piece = |make: &mut dyn FnMut(&mut Asm)| {
            asm.start(arena.next().0);
            make(asm);
            arena.append(asm.finish())
        };
        let enter = piece(&mut |asm| {
            dynasm!(asm ; .arch x64
                ; push rbx ; push rbp ; push r12 ; push r13 ; push r14 ; push r15
                ; sub rsp, 8
                ; mov r15, rdi
                ; mov r14, rsi
            );
            fill(asm);
            dynasm!(asm ; .arch x64 ; jmp r14);
        })?;
        // After `spill`: status in EAX.
        let leave = piece(&mut |asm| {
            dynasm!(asm ; .arch x64
                ; add rsp, 8
                ; pop r15 ; pop r14 ; pop r13 ; pop r12 ; pop rbp ; pop rbx
                ; ret
            );
        })?;
        let mut exits = [leave; 2];
        for (vectors, exit) in exits.iter_mut().enumerate() {
            *exit = piece(&mut |asm| {
                spill(asm);
                if vectors == 1 {
                    save_vectors(asm);
                }
                dynasm!(asm ; .arch x64 ; mov [r15 + frame!(site) as i32], r14d ; mov eax, r13d);
                asm.jmp_to(leave.0);
            })?;
        }
        let mut gate = |function: GateFn, vectors: bool| {
            piece(&mut |asm| {
                spill(asm);
                if vectors {
                    save_vectors(asm);
                }
                let keep = asm.label();
                dynasm!(asm ; .arch x64
                    ; sub rsp, 8
                    ; mov [r15 + frame!(site) as i32], r14d
                    ; mov rdi, r15
                    ; mov rsi, r13
                    ; mov edx, r14d
                    ; mov rax, QWORD function as usize as i64
                    ; call rax
                    ; add rsp, 8
                    ; cmp eax, 1
                );
                asm.jcc(6, keep);
                // Not coming back: the return address goes.
                dynasm!(asm ; .arch x64 ; add rsp, 8);
                asm.jmp_to(leave.0);
                asm.bind(keep);
                if vectors {
                    load_vectors(asm);
                }
                fill(asm);
                dynasm!(asm ; .arch x64
                    ; mov r14, [r15 + frame!(operand) as i32]
                    ; mov r13d, 0
                    ; ret
                );
            })
        };
        let load = [gate(load_gate, false)?, gate(load_gate, true)?];
        let reserve = [gate(reserve_gate, false)?, gate(reserve_gate, true)?];
        let load_for_update = [gate(update_gate, false)?, gate(update_gate, true)?];
        let commit = [gate(commit_gate, false)?, gate(commit_gate, true)?];
        let step = [gate(step_gate, false)?, gate(step_gate, true)?];
        let mut dynamics = [leave; 2];
        for (vectors, dynamic) in dynamics.iter_mut().enumerate() {
            *dynamic = piece(&mut |asm| dynamic_jump(asm, vectors, exits[vectors]))?;
        }
        let load_all = piece(&mut |asm| {
            let masked = asm.label();
            dynasm!(asm ; .arch x64
                ; mov r13d, [r15 + MXCSR as i32]
                ; not r13d
                ; test r13d, 0x1f80
            );
            asm.jcc(4, masked);
            dynasm!(asm ; .arch x64 ; add rsp, 8 ; mov r13d, Status::Unmasked as u32 as i32);
            asm.jmp_to(exits[0].0);
            asm.bind(masked);
            load_vectors(asm);
            dynasm!(asm ; .arch x64 ; ret);
        })?;
        Some(Gates {
            enter,
            exit: exits,
            load,
            reserve,
            load_for_update,
            commit,
            step,
            dynamic: dynamics,
            load_vectors: load_all,
        })
    }
}

/// Runs emitted code from `code` until it is left.
pub fn run(enter: CodePtr, cpu: &mut Vcpu, code: CodePtr) -> Status {
    // SAFETY: `enter` is code that `Gates::emit` made with this signature; `code` is a block's entry in the same arena, which
    // is not reused before emitted code is left. The vCPU is borrowed for the whole time.
    let number = unsafe {
        let enter: unsafe extern "sysv64" fn(*mut Vcpu, u64) -> u32 = std::mem::transmute(enter.0 as usize);
        enter(cpu, code.0)
    };
    Status::of(number)
}

/// Looks RIP = R13 up: its entry, the mode, and that the fetch TLB still leads to the page that the code was made from.
fn dynamic_jump(asm: &mut Asm, vectors: usize, exit: CodePtr) {
    let miss = asm.label();
    let shift = size_of::<JumpEntry>().trailing_zeros() as i8;
    dynasm!(asm ; .arch x64
        ; mov [r15 + frame!(site) as i32], r14d
        ; mov [r15 + (offset_of!(Vcpu, state) + offset_of!(State, rip)) as i32], r13
        ; rorx r14, r13, 12
        ; xor r14, r13
        ; and r14d, (JUMPS as i32) - 1
        ; shl r14d, shift
        ; add r14, [r15 + (frame!(jumps) + 8 * vectors) as i32]
        ; cmp r13, [r14 + offset_of!(JumpEntry, rip) as i32]
    );
    asm.jcc(5, miss);
    dynasm!(asm ; .arch x64
        ; shr r13, 7
        ; and r13d, [r15 + frame::FETCH_MASK as i32]
        ; add r13, [r15 + frame::FETCH as i32]
        ; mov r13, [r13 + offset_of!(FetchEntry, id) as i32]
        ; cmp r13, [r14 + offset_of!(JumpEntry, id) as i32]
    );
    asm.jcc(5, miss);
    dynasm!(asm ; .arch x64
        ; mov r13d, [r15 + frame::MODE as i32]
        ; cmp r13, [r14 + offset_of!(JumpEntry, mode) as i32]
    );
    asm.jcc(5, miss);
    dynasm!(asm ; .arch x64 ; jmp QWORD [r14 + offset_of!(JumpEntry, code) as i32]);
    asm.bind(miss);
    dynasm!(asm ; .arch x64
        ; mov r14d, [r15 + frame!(site) as i32]
        ; mov r13d, Status::Dynamic as u32 as i32
    );
    asm.jmp_to(exit.0);
}

/// A gate's body: it may not unwind into emitted code.
fn gate(cpu: *mut Vcpu, site: u32, body: impl FnOnce(&mut Vcpu, &Site) -> Result<u32, Status>) -> u32 {
    // SAFETY: emitted code passes the pointer that it was entered with, whose borrow lasts until it is left.
    let cpu = unsafe { &mut *cpu };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let jit = cpu.link.jit.take();
        let result = match jit.as_ref().and_then(|jit| jit.site(site)) {
            Some(site) => body(cpu, site),
            None => Err(Status::Stop),
        };
        cpu.link.jit = jit;
        result.unwrap_or_else(|status| status as u32)
    }));
    outcome.unwrap_or_else(|panic| {
        cpu.link.panic = Some(panic);
        Status::Stop as u32
    })
}

/// Records the fault of a site's instruction.
fn faulted(cpu: &mut Vcpu, site: &Site, fault: Fault) -> Status {
    cpu.link.fault = Some(fault);
    cpu.link.current = site.insn;
    Status::Fault
}

/// Before Rust looks at counts: those of the site.
fn set_counts(cpu: &mut Vcpu, site: &Site) {
    cpu.state.retired = cpu.link.frame.base.wrapping_sub(cpu.link.frame.fuel as u64);
    cpu.link.current = site.insn;
}

/// A flat operand that is not canonical, or runs over 4 GiB outside 64-bit mode.
fn canonical(cpu: &Vcpu, site: &Site, linear: u64) -> Result<(), Fault> {
    let last = Linear(linear).wrapping_add(u64::from(site.bytes) - 1);
    let fine = if cpu.link.mode.has(ModeBits::L) {
        Linear(linear).is_canonical_48() && last.is_canonical_48()
    } else {
        last.0 <= u64::from(u32::MAX)
    };
    match (fine, site.stack) {
        (true, _) => Ok(()),
        (false, true) => Err(Fault::ss(0)),
        (false, false) => Err(Fault::gp(0)),
    }
}

const DIRECT: u32 = 0;
const BUFFER: u32 = 1;

unsafe extern "sysv64" fn load_gate(cpu: *mut Vcpu, linear: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, site| {
        set_counts(cpu, site);
        operand(cpu, site, linear, Access::Read).map_err(|fault| faulted(cpu, site, fault))
    })
}

/// Makes the operand of a site reachable: in place, or for reads a copy in the buffer.
fn operand(cpu: &mut Vcpu, site: &Site, linear: u64, access: Access) -> Result<u32, Fault> {
    canonical(cpu, site, linear)?;
    let len = usize::from(site.bytes);
    let view = cpu.view();
    let room = 4096 - (linear & 0xfff) as usize;
    if len <= room {
        cpu.link.mmu.resolve(Linear(linear), access, view)?;
        let run = match access {
            Access::Read => cpu.link.mmu.read_run(linear),
            _ => cpu.link.mmu.write_run(linear),
        };
        if let Some(run) = run {
            cpu.link.frame.operand = run.address();
            return Ok(DIRECT);
        }
    }
    if access == Access::Read {
        let mut bytes = [0; 32];
        cpu.load_bytes(Linear(linear), &mut bytes[..len], view)?;
        cpu.link.frame.buffer.0 = bytes;
    } else {
        cpu.reserve_linear(Linear(linear), len as u64, view)?;
        cpu.link.frame.linear = linear;
    }
    cpu.link.frame.operand = cpu.link.frame.buffer.0.as_ptr() as u64;
    Ok(BUFFER)
}

unsafe extern "sysv64" fn reserve_gate(cpu: *mut Vcpu, linear: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, site| {
        set_counts(cpu, site);
        operand(cpu, site, linear, Access::Write).map_err(|fault| faulted(cpu, site, fault))
    })
}

unsafe extern "sysv64" fn update_gate(cpu: *mut Vcpu, linear: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, site| {
        set_counts(cpu, site);
        let way = operand(cpu, site, linear, Access::Write).map_err(|fault| faulted(cpu, site, fault))?;
        if way == BUFFER {
            let mut bytes = [0; 32];
            let view = cpu.view();
            cpu.load_bytes(Linear(linear), &mut bytes[..usize::from(site.bytes)], view)
                .map_err(|fault| faulted(cpu, site, fault))?;
            cpu.link.frame.buffer.0 = bytes;
        }
        Ok(way)
    })
}

unsafe extern "sysv64" fn commit_gate(cpu: *mut Vcpu, _: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, site| {
        set_counts(cpu, site);
        let (linear, bytes, view) = (cpu.link.frame.linear, cpu.link.frame.buffer.0, cpu.view());
        if let Err(fault) = cpu.store_bytes(Linear(linear), &bytes[..usize::from(site.bytes)], view) {
            let sp = cpu.state.gpr(RSP).wrapping_sub(i64::from(site.sp) as u64);
            cpu.state.set_gpr(RSP, if cpu.link.mode.has(ModeBits::L) { sp } else { sp & 0xffff_ffff });
            return Err(faulted(cpu, site, fault));
        }
        // A call goes on to its target, where attention is looked at.
        if cpu.link.leave && !site.ends { Err(Status::Early) } else { Ok(DIRECT) }
    })
}

unsafe extern "sysv64" fn step_gate(cpu: *mut Vcpu, _: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, site| {
        let Some(steps) = &site.steps else { return Err(Status::Stop) };
        site.flags.restore(cpu);
        set_counts(cpu, site);
        // The handler finds RIP at the start of its block.
        cpu.state.rip = site.block_rip;
        let leave = (steps[0].run)(cpu, &steps[0]);
        cpu.materialise_flags();
        if leave == Leave::NotTaken && !site.ends {
            cpu.link.current = 0;
            cpu.link.frame.image = SavedFlags::of(cpu.state.rflags);
            debug_assert_eq!(cpu.link.lazy.op, LazyOp::None);
            if site.vectors && cpu.state.vectors.mxcsr & 0x1f80 != 0x1f80 {
                cpu.link.current = site.insn;
                return Err(Status::StepEarly);
            }
            return Ok(DIRECT);
        }
        Err(match leave {
            Leave::Fault => Status::StepFault,
            Leave::Early => Status::StepEarly,
            _ => Status::StepEnd,
        })
    })
}
