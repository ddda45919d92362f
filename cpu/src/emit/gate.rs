//! The common code: how emitted code is entered and left, and the gates through which it calls Rust.
//!
//! At a gate all guest registers are written to the state, so that Rust sees a vCPU like any other; after it they are read
//! again. Variants do the same with the units that are the host's: no Rust runs with the guest's x87 control word, or with what
//! its MXCSR controls.
//! A gate's function answers 0 (go on), 1 (go on with the buffer), or a [`Status`] with which emitted code is left.
#![allow(
    unsafe_code,
    reason = "the functions that emitted code calls get the vCPU as a raw pointer, as registers hold it"
)]
// The macro's expansion multiplies and casts in its own way.
#![allow(clippy::useless_conversion, clippy::unnecessary_cast, clippy::identity_op, reason = "code that dynasm! makes")]

use super::address::{self, Way};
use super::arena::{Arena, CodePtr, Part};
use super::asm::{Asm, Fixed, Label, Rm};
use super::block::Live;
use super::flags::SavedFlags;
use super::frame::{self, JUMP_SHIFT, JumpEntry, TANK, frame, jumps};
use super::memo::{self, Reach};
use super::registers::{FUEL, PINNED, slot_offset};
use super::segment::{self, Flatness, SEGMENTS};
use super::site::{Place, Rare, Site};
use super::stack_run::BROKEN_RUN;
use super::string::{self, Repeat, Repeats};
use super::{straddle, units, x87};
use crate::cache::{Leave, Step};
use crate::check::Check;
use crate::fault::Fault;
use crate::mode::ModeBits;
use crate::state::flags::LazyOp;
use crate::state::slots::RSP;
use crate::state::{InterruptShadow, State};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use dynasmrt::{DynasmApi, dynasm};
use std::mem::offset_of;
use umbra_mmu::addr::Linear;
use umbra_mmu::fault::{Access, View};
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

/// Addresses of the common code, by which units are the host's ([`Live`]).
#[derive(Clone, Debug)]
pub struct Gates {
    /// `extern "sysv64" fn(*mut Vcpu, code) -> u32`.
    pub enter: CodePtr,
    /// Leaves with status in R13 and site in R14.
    pub exit: [CodePtr; Live::ALL],
    /// Loads: linear in R13, site and bytes in R14 (`straddle::request`); afterwards R14 + R13 is the operand's host address.
    pub load: [CodePtr; Live::ALL],
    /// The same with write rights; ZF: it is the buffer, to be committed.
    pub reserve: [CodePtr; Live::ALL],
    /// The same, and the buffer holds the old value.
    pub load_for_update: [CodePtr; Live::ALL],
    /// Stores the buffer: site in R14.
    pub commit: [CodePtr; Live::ALL],
    /// Runs the site's step: site in R14.
    pub step: [CodePtr; Live::ALL],
    /// Runs the site's step, the last of its block, and goes on at RIP if that is known code (jumped to).
    pub step_end: [CodePtr; Live::ALL],
    /// Goes to the block at RIP = R13, site in R14 (jumped to).
    pub dynamic: [CodePtr; Live::ALL],
    /// Puts the page of R13 into the TLB for reads or for writes, if the site's bytes lie in it and may be accessed.
    pub warm: [[CodePtr; Live::ALL]; 2],
    /// Puts the page of R13 into the fetch TLB, if it can be fetched from: site in R14.
    pub fetch: [CodePtr; Live::ALL],
    /// No gate, but what every access begins with that has no memo: [`address::fixed_check`], for reads and for writes.
    pub check_tlb: [Fixed; 2],
    /// Fills memo R14 for the address R13 from the TLB, for reads and for writes; ZF: R14 is its addend.
    pub fill_memo: [[CodePtr; 2]; Reach::ALL.len()],
    /// The same, but leaves for good if there is still not enough: site in R14.
    pub refuel_or_stop: [CodePtr; Live::ALL],
    /// Leaves at a jump that is not linked: site in R14.
    pub chain: [CodePtr; Live::ALL],
    /// Repeated string instructions; ZF: done.
    pub repeats: Repeats,
    /// Loads the selector R13 into a segment register by what is known, by register and flatness; ZF clear: it cannot.
    pub load_segment: [[CodePtr; Flatness::ALL.len()]; SEGMENTS.len()],
    /// After a change of AC at level 0: the TLBs of the new view. No unit may be the host's.
    pub view: CodePtr,
    /// Computes the transcendental function with the number R13 on `Frame::function`; ZF: it cannot.
    pub function: [CodePtr; Live::ALL],
    /// Loads vector registers and MXCSR; leaves at the site in R14 if MXCSR has an exception unmasked.
    pub load_vectors: [CodePtr; Live::ALL],
    /// Loads the x87 unit; leaves as the other does.
    pub load_x87: [CodePtr; Live::ALL],
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

impl Gates {
    /// Emits the common code at the arena's start.
    pub fn emit(arena: &mut Arena, asm: &mut Asm) -> Option<Gates> {
        let check_tlb = [Way::Load, Way::Store].map(|way| asm.fix(|asm| address::fixed_check(asm, way)));
        let mut piece = |make: &mut dyn FnMut(&mut Asm)| {
            asm.start(arena.next(Part::Hot).0, arena.next(Part::Cold).0);
            make(asm);
            let (hot, cold) = asm.finish();
            arena.append(hot, cold)
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
        let mut exits = [leave; Live::ALL];
        for (live, exit) in exits.iter_mut().enumerate() {
            *exit = piece(&mut |asm| {
                spill(asm);
                units::save(asm, Live::of(live));
                dynasm!(asm ; .arch x64 ; mov [r15 + frame!(site) as i32], r14d ; mov eax, r13d);
                asm.jmp_to(leave.0);
            })?;
        }
        let mut last = |live: usize| {
            piece(&mut |asm| {
                spill(asm);
                units::save(asm, Live::of(live));
                let out = asm.label();
                dynasm!(asm ; .arch x64
                    ; mov [r15 + frame!(site) as i32], r14d
                    ; mov rdi, r15
                    ; mov rsi, r13
                    ; mov edx, r14d
                    ; mov rax, QWORD step_end_gate as *const () as usize as i64
                    ; call rax
                    ; cmp eax, GO_ON as i32
                );
                asm.jcc(5, out);
                fill(asm);
                dynasm!(asm ; .arch x64 ; jmp QWORD [r15 + frame!(operand) as i32]);
                asm.bind(out);
                asm.jmp_to(leave.0);
            })
        };
        let step_end = [last(0)?, last(1)?, last(2)?, last(3)?];
        let mut gate = |function: GateFn, before: Live, after: Live| {
            piece(&mut |asm| {
                spill(asm);
                units::save(asm, before);
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
                let out = asm.label();
                dynasm!(asm ; .arch x64 ; add rsp, 8 ; cmp eax, GO_ON as i32);
                asm.jcc(5, out);
                fill(asm);
                dynasm!(asm ; .arch x64 ; jmp QWORD [r15 + frame!(operand) as i32]);
                asm.bind(out);
                asm.jmp_to(leave.0);
                asm.bind(keep);
                units::load(asm, after);
                // The flags are the answer.
                dynasm!(asm ; .arch x64 ; cmp eax, 1);
                fill(asm);
                dynasm!(asm ; .arch x64
                    ; mov r14, [r15 + frame!(operand) as i32]
                    ; mov r13d, 0
                    ; ret
                );
            })
        };
        let mut load_x87 = [leave; Live::ALL];
        for (live, code) in load_x87.iter_mut().enumerate() {
            let live = Live::of(live);
            *code = gate(x87_gate, live, live.with(Live::X87))?;
        }
        let mut all = |function: GateFn| {
            let mut one = |live| gate(function, Live::of(live), Live::of(live));
            Some([one(0)?, one(1)?, one(2)?, one(3)?])
        };
        let (load, reserve) = (all(load_gate)?, all(reserve_gate)?);
        let (load_for_update, commit) = (all(update_gate)?, all(commit_gate)?);
        let step = all(step_gate)?;
        let fetch = all(fetch_gate)?;
        let warm = [all(warm_read_gate)?, all(warm_write_gate)?];
        let mut before = |gates: [CodePtr; Live::ALL], make: fn(&mut Asm, CodePtr)| {
            let mut one = |live: usize| piece(&mut |asm| make(asm, gates[live]));
            Some([one(0)?, one(1)?, one(2)?, one(3)?])
        };
        let load = before(load, |asm, gate| straddle::begin(asm, Way::Load, gate))?;
        let reserve = before(reserve, |asm, gate| straddle::begin(asm, Way::Store, gate))?;
        let load_for_update = before(load_for_update, |asm, gate| straddle::begin(asm, Way::Update, gate))?;
        let commit = before(commit, straddle::end)?;
        let mut dynamic = [leave; Live::ALL];
        for (live, code) in dynamic.iter_mut().enumerate() {
            *code = piece(&mut |asm| dynamic_jump(asm, live, exits[live], fetch[live]))?;
        }
        let mut load_vectors = [leave; Live::ALL];
        for (live, code) in load_vectors.iter_mut().enumerate() {
            *code = piece(&mut |asm| {
                let masked = asm.label();
                dynasm!(asm ; .arch x64
                    ; mov r13d, [r15 + units::MXCSR as i32]
                    ; not r13d
                    ; test r13d, 0x1f80
                );
                asm.jcc(4, masked);
                dynasm!(asm ; .arch x64 ; add rsp, 8 ; mov r13d, Status::Unmasked as u32 as i32);
                asm.jmp_to(exits[live].0);
                asm.bind(masked);
                units::load(asm, Live::VECTORS);
                dynasm!(asm ; .arch x64 ; ret);
            })?;
        }
        let mut fill_memo = [[leave; 2]; Reach::ALL.len()];
        for (fills, reach) in fill_memo.iter_mut().zip(Reach::ALL) {
            for (code, way) in fills.iter_mut().zip([Way::Load, Way::Store]) {
                *code = piece(&mut |asm| memo::fill(asm, reach, way))?;
            }
        }
        let mut repeats = [[[leave; 2]; 4]; Repeat::ALL.len()];
        for (codes, kind) in repeats.iter_mut().zip(Repeat::ALL) {
            for (codes, width) in codes.iter_mut().zip([Width::B1, Width::B2, Width::B4, Width::B8]) {
                for (code, long) in codes.iter_mut().zip([false, true]) {
                    *code = piece(&mut |asm| string::gate(asm, kind, width, long))?;
                }
            }
        }
        let mut load_segment = [[leave; Flatness::ALL.len()]; SEGMENTS.len()];
        for (codes, seg) in load_segment.iter_mut().zip(SEGMENTS) {
            for (code, flatness) in codes.iter_mut().zip(Flatness::ALL) {
                *code = piece(&mut |asm| segment::load(asm, seg, flatness))?;
            }
        }
        let view = piece(&mut view_call)?;
        let refuel = piece(&mut refuel)?;
        let (mut refuel_or_stop, mut chain) = ([leave; Live::ALL], [leave; Live::ALL]);
        for (live, exit) in exits.into_iter().enumerate() {
            refuel_or_stop[live] = piece(&mut |asm| {
                let out = asm.label();
                dynasm!(asm ; .arch x64 ; push r14);
                asm.call(refuel.0);
                dynasm!(asm ; .arch x64 ; pop r14);
                asm.jcc(8, out);
                dynasm!(asm ; .arch x64 ; ret);
                asm.bind(out);
                dynasm!(asm ; .arch x64 ; add rsp, 8 ; mov r13d, Status::Stop as u32 as i32);
                asm.jmp_to(exit.0);
            })?;
            chain[live] = piece(&mut |asm| {
                dynasm!(asm ; .arch x64 ; mov r13d, Status::Chain as u32 as i32);
                asm.jmp_to(exit.0);
            })?;
        }
        let mut function = [leave; Live::ALL];
        for (live, code) in function.iter_mut().enumerate() {
            *code = piece(&mut |asm| function_call(asm, Live::of(live)))?;
        }
        Some(Gates {
            check_tlb,
            warm,
            function,
            load_segment,
            view,
            refuel_or_stop,
            chain,
            repeats,
            fill_memo,
            enter,
            exit: exits,
            load,
            reserve,
            load_for_update,
            commit,
            step,
            step_end,
            fetch,
            dynamic,
            load_vectors,
            load_x87,
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

/// Calls Rust with the guest's numbers still in the x87 unit: what it computes with is integers.
fn function_call(asm: &mut Asm, live: Live) {
    let vectors = if live.has(Live::VECTORS) { Live::VECTORS } else { Live::default() };
    spill(asm);
    units::save(asm, vectors);
    dynasm!(asm ; .arch x64
        ; sub rsp, 8
        ; mov rdi, r15
        ; mov rsi, r13
        ; mov rax, QWORD x87::function_gate as *const () as usize as i64
        ; call rax
        ; add rsp, 8
        ; mov r14d, eax
    );
    units::load(asm, vectors);
    fill(asm);
    dynasm!(asm ; .arch x64 ; test r14d, r14d ; ret);
}

/// Calls Rust for what needs no guest register: those that a call may change wait on the stack.
fn view_call(asm: &mut Asm) {
    dynasm!(asm ; .arch x64
        ; push rax ; push rcx ; push rdx ; push rsi ; push rdi ; push r8 ; push r9 ; push r10 ; push r11
        ; mov rdi, r15
        ; mov rax, QWORD view_gate as *const () as usize as i64
        ; call rax
        ; pop r11 ; pop r10 ; pop r9 ; pop r8 ; pop rdi ; pop rsi ; pop rdx ; pop rcx ; pop rax
        ; ret
    );
}

unsafe extern "sysv64" fn view_gate(cpu: *mut Vcpu) {
    // SAFETY: emitted code passes the pointer that it was entered with, whose borrow lasts until it is left.
    let cpu = unsafe { &mut *cpu };
    let view = cpu.view();
    cpu.link.mmu.set_view(view);
}

/// More fuel: changes R14 only.
fn refuel(asm: &mut Asm) {
    let (no, some) = (asm.label(), asm.label());
    dynasm!(asm ; .arch x64
        ; mov r14, [r15 + frame!(attention) as i32]
        ; cmp DWORD [r14], 0
    );
    asm.jcc(5, no);
    dynasm!(asm ; .arch x64 ; mov r14, [r15 + frame!(reserve) as i32] ; cmp r14, TANK as i32);
    asm.jcc(6, some);
    dynasm!(asm ; .arch x64 ; mov r14d, TANK as i32);
    asm.bind(some);
    dynasm!(asm ; .arch x64
        ; sub [r15 + frame!(reserve) as i32], r14
        ; add [r15 + frame!(base) as i32], r14
        ; add Rq(FUEL), r14
        ; ret
    );
    asm.bind(no);
    dynasm!(asm ; .arch x64 ; test Rq(FUEL), Rq(FUEL) ; ret);
}

/// Goes to RIP = R13, if its code is known and the fetch TLB leads to the page that it was made from.
fn dynamic_jump(asm: &mut Asm, live: usize, exit: CodePtr, fetch: CodePtr) {
    let (miss, other_page) = (asm.label(), asm.label());
    dynasm!(asm ; .arch x64
        ; mov [r15 + frame!(site) as i32], r14d
        ; mov [r15 + (offset_of!(Vcpu, state) + offset_of!(State, rip)) as i32], r13
    );
    look_up(asm, live, miss, other_page);
    asm.bind(other_page);
    // Its page may only be missing from the TLB: once more with it.
    dynasm!(asm ; .arch x64
        ; mov r13, [r15 + (offset_of!(Vcpu, state) + offset_of!(State, rip)) as i32]
        ; mov r14d, [r15 + frame!(site) as i32]
    );
    asm.call(fetch.0);
    dynasm!(asm ; .arch x64 ; mov r13, [r15 + (offset_of!(Vcpu, state) + offset_of!(State, rip)) as i32]);
    look_up(asm, live, miss, miss);
    asm.bind(miss);
    dynasm!(asm ; .arch x64
        ; mov r14d, [r15 + frame!(site) as i32]
        ; mov r13d, Status::Dynamic as u32 as i32
    );
    asm.jmp_to(exit.0);
}

/// The entry R14 of RIP = R13 in the table, if it has one.
pub fn find_jump(asm: &mut Asm, live: usize, miss: Label) {
    let shift = size_of::<JumpEntry>().trailing_zeros() as i8;
    dynasm!(asm ; .arch x64
        ; rorx r14, r13, JUMP_SHIFT as i8
        ; xor r14, r13
        ; and r14d, (jumps(live) as i32) - 1
        ; shl r14d, shift
        ; add r14, [r15 + (frame!(jumps) + 8 * live) as i32]
        ; cmp r13, [r14 + offset_of!(JumpEntry, rip) as i32]
    );
    asm.jcc(5, miss);
}

/// Goes to the entry R14, made for the table's RIP, if it is of `mode` and its page still is where it was. Else R13 is RIP
/// again at `miss`. `last` comes just before the jump.
pub fn take_jump(asm: &mut Asm, mode: ModeBits, miss: Label, last: impl FnOnce(&mut Asm)) {
    dynasm!(asm ; .arch x64
        ; mov r13, [r14 + offset_of!(JumpEntry, rip) as i32]
        ; shr r13, 7
        ; and r13d, [r15 + frame::FETCH_MASK as i32]
        ; add r13, [r15 + frame::FETCH as i32]
        ; mov r13, [r13 + offset_of!(FetchEntry, id) as i32]
        ; cmp r13, [r14 + offset_of!(JumpEntry, id) as i32]
        ; mov r13, [r14 + offset_of!(JumpEntry, rip) as i32]
    );
    asm.jcc(5, miss);
    // The entry of no jump has all ones, which are no mode.
    dynasm!(asm ; .arch x64 ; cmp DWORD [r14 + offset_of!(JumpEntry, mode) as i32], mode.0 as i32);
    asm.jcc(5, miss);
    last(asm);
    dynasm!(asm ; .arch x64 ; jmp QWORD [r14 + offset_of!(JumpEntry, code) as i32]);
}

/// Looks RIP = R13 up in the table: its entry, the mode, the page.
fn look_up(asm: &mut Asm, live: usize, miss: Label, other_page: Label) {
    find_jump(asm, live, miss);
    dynasm!(asm ; .arch x64
        ; shr r13, 7
        ; and r13d, [r15 + frame::FETCH_MASK as i32]
        ; add r13, [r15 + frame::FETCH as i32]
        ; mov r13, [r13 + offset_of!(FetchEntry, id) as i32]
        ; cmp r13, [r14 + offset_of!(JumpEntry, id) as i32]
    );
    asm.jcc(5, other_page);
    dynasm!(asm ; .arch x64
        ; mov r13d, [r15 + frame::MODE as i32]
        ; cmp r13, [r14 + offset_of!(JumpEntry, mode) as i32]
    );
    asm.jcc(5, miss);
    dynasm!(asm ; .arch x64 ; jmp QWORD [r14 + offset_of!(JumpEntry, code) as i32]);
}

/// A gate's body: it may not unwind into emitted code.
fn gate(cpu: *mut Vcpu, place: u32, body: impl FnOnce(&mut Vcpu, &Site, Option<&Step>) -> Result<u32, Status>) -> u32 {
    // SAFETY: emitted code passes the pointer that it was entered with, whose borrow lasts until it is left.
    let cpu = unsafe { &mut *cpu };
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut jit = cpu.link.jit.take();
        let impatient = std::mem::take(&mut cpu.link.frame.impatient);
        if impatient != 0
            && let Some(jit) = &mut jit
        {
            jit.is_far(Place::of(place), impatient == BROKEN_RUN);
        }
        let place = Place::of(place);
        let start = jit.as_ref().and_then(|jit| jit.start_site(place));
        let result = match jit.as_ref().and_then(|jit| Some((jit, jit.kept_site(place).or(start.as_ref())?))) {
            Some((jit, site)) => {
                let rare = jit.rare(site);
                x87::import(&mut cpu.state, &mut cpu.link.frame, jit.last_x87(site, rare));
                let step = rare.and_then(Rare::step);
                if step.is_some() {
                    // A handler finds RIP at the start of its block.
                    cpu.state.rip = jit.block_rip(site);
                }
                let named = cpu.link.mmu.notes_writers();
                if named {
                    cpu.link.mmu.set_storing(Some(jit.rip_of(place, site)));
                }
                let result = body(cpu, site, step);
                if named {
                    cpu.link.mmu.set_storing(None);
                }
                if site.live().has(Live::X87) && matches!(result, Ok(DIRECT | BUFFER)) {
                    x87::export(&cpu.state, &mut cpu.link.frame);
                }
                result
            }
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
    cpu.state.retired = cpu.link.frame.retired(site);
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
    match (fine, site.stack()) {
        (true, _) => Ok(()),
        (false, true) => Err(Fault::ss(0).because(Check::Canonical)),
        (false, false) => Err(Fault::gp(0).because(Check::Canonical)),
    }
}

const DIRECT: u32 = 0;
const BUFFER: u32 = 1;
/// The handler has left the block, and `Frame::operand` is the code to go on with.
const GO_ON: u32 = 0x100;

unsafe extern "sysv64" fn load_gate(cpu: *mut Vcpu, linear: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, site, _| {
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
        let place = cpu.link.mmu.resolve(Linear(linear), access, view)?;
        let run = match access {
            Access::Read => cpu.link.mmu.read_run(linear),
            _ => cpu.link.mmu.write_run(linear),
        };
        if let Some(run) = run {
            cpu.link.frame.operand = run.address();
            return Ok(DIRECT);
        }
        if access == Access::Write {
            let (reach, number) = (Reach::of(site.bytes).bytes() as u64, site.memo().map(usize::from));
            if let Some(host) = cpu.link.mmu.beside_code(linear, &place, reach, number) {
                cpu.link.frame.operand = host;
                return Ok(DIRECT);
            }
        }
    }
    if access == Access::Read {
        let mut bytes = [0; 32];
        cpu.load_bytes(Linear(linear), &mut bytes[..len], view)?;
        cpu.link.frame.buffer.0 = bytes;
    } else {
        cpu.reserve_memory(Linear(linear), len, view)?;
        cpu.link.frame.linear = linear;
    }
    cpu.link.frame.operand = cpu.link.frame.buffer.0.as_ptr() as u64;
    Ok(BUFFER)
}

unsafe extern "sysv64" fn x87_gate(cpu: *mut Vcpu, _: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, _, _| {
        if !x87::all_masked(&cpu.state.fpu) {
            return Err(Status::Unmasked);
        }
        x87::export(&cpu.state, &mut cpu.link.frame);
        Ok(DIRECT)
    })
}

unsafe extern "sysv64" fn fetch_gate(cpu: *mut Vcpu, linear: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, _, _| {
        let view = if cpu.state.cpl == 3 { View::User } else { View::Supervisor };
        // A fault is found again, and raised, by whoever looks for the block.
        if Linear(linear).is_canonical_48() {
            let _ = cpu.link.mmu.resolve(Linear(linear), Access::Fetch, view);
        }
        Ok(DIRECT)
    })
}

unsafe extern "sysv64" fn warm_read_gate(cpu: *mut Vcpu, linear: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, site, _| warm(cpu, site, linear, Access::Read))
}

unsafe extern "sysv64" fn warm_write_gate(cpu: *mut Vcpu, linear: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, site, _| warm(cpu, site, linear, Access::Write))
}

/// A fault is found again by the access itself.
fn warm(cpu: &mut Vcpu, site: &Site, linear: u64, access: Access) -> Result<u32, Status> {
    let room = 4096 - (linear & 0xfff);
    if u64::from(site.bytes) <= room && canonical(cpu, site, linear).is_ok() {
        let view = cpu.view();
        let _ = cpu.link.mmu.resolve(Linear(linear), access, view);
    }
    Ok(DIRECT)
}

unsafe extern "sysv64" fn reserve_gate(cpu: *mut Vcpu, linear: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, site, _| {
        set_counts(cpu, site);
        operand(cpu, site, linear, Access::Write).map_err(|fault| faulted(cpu, site, fault))
    })
}

unsafe extern "sysv64" fn update_gate(cpu: *mut Vcpu, linear: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, site, _| {
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
    gate(cpu, site, |cpu, site, _| {
        set_counts(cpu, site);
        let (linear, bytes, view) = (cpu.link.frame.linear, cpu.link.frame.buffer.0, cpu.view());
        if let Err(fault) = cpu.store_bytes(Linear(linear), &bytes[..usize::from(site.bytes)], view) {
            let sp = cpu.state.gpr(RSP).wrapping_sub(i64::from(site.sp) as u64);
            cpu.state.set_gpr(RSP, if cpu.link.mode.has(ModeBits::L) { sp } else { sp & 0xffff_ffff });
            return Err(faulted(cpu, site, fault));
        }
        // A call goes on to its target, where attention is looked at.
        if cpu.link.leave && !site.ends() { Err(Status::Early) } else { Ok(DIRECT) }
    })
}

unsafe extern "sysv64" fn step_end_gate(cpu: *mut Vcpu, _: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, site, step| {
        let leave = handle(cpu, site, step)?;
        if leave == Leave::Fault {
            return Err(Status::StepFault);
        }
        go_on(cpu)
    })
}

/// After the last instruction of a block: the next one is entered at once, unless an event is due, something is watched, or its
/// code is not known.
fn go_on(cpu: &mut Vcpu) -> Result<u32, Status> {
    let retired = cpu.state.retired + u64::from(cpu.link.current) + 1;
    let frame = &mut cpu.link.frame;
    // What a string instruction has used beyond the tank comes out of the reserve.
    let more = retired.saturating_sub(frame.base).min(frame.reserve);
    (frame.base, frame.reserve) = (frame.base + more, frame.reserve - more);
    let fuel = frame.base.wrapping_sub(retired) as i64;
    if fuel < 0 || cpu.link.attention.get() != 0 || !cpu.is_plain_boundary() {
        return Err(Status::StepEnd);
    }
    // A block that the fuel does not cover whole may leave before its first instruction: the shadow must still be there.
    let covers = fuel >= i64::from(cpu.link.longest_block);
    if !covers && cpu.state.shadow != InterruptShadow::None {
        return Err(Status::StepEnd);
    }
    let Some(code) = cpu.known_jump() else { return Err(Status::StepEnd) };
    // A shadow holds back what is not there: it passes with the next instruction.
    cpu.state.shadow = InterruptShadow::None;
    cpu.state.retired = retired;
    cpu.link.current = 0;
    cpu.link.leave = false;
    cpu.link.frame.fuel = fuel;
    cpu.link.frame.operand = code;
    cpu.link.frame.image = SavedFlags::of(cpu.state.rflags);
    Ok(GO_ON)
}

/// Runs the handler of a site; flags are in RFLAGS afterwards.
fn handle(cpu: &mut Vcpu, site: &Site, step: Option<&Step>) -> Result<Leave, Status> {
    let Some(step) = step else { return Err(Status::Stop) };
    site.flags.restore(cpu);
    set_counts(cpu, site);
    let leave = (step.run)(cpu, step);
    cpu.materialise_flags();
    Ok(leave)
}

unsafe extern "sysv64" fn step_gate(cpu: *mut Vcpu, _: u64, site: u32) -> u32 {
    gate(cpu, site, |cpu, site, step| {
        let leave = handle(cpu, site, step)?;
        if leave == Leave::NotTaken && !site.ends() {
            cpu.link.current = 0;
            cpu.link.frame.image = SavedFlags::of(cpu.state.rflags);
            debug_assert_eq!(cpu.link.lazy.op, LazyOp::None);
            let vectors = site.live().has(Live::VECTORS) && cpu.state.vectors.mxcsr & 0x1f80 != 0x1f80;
            if vectors || site.live().has(Live::X87) && !x87::all_masked(&cpu.state.fpu) {
                cpu.link.current = site.insn;
                return Err(Status::StepEarly);
            }
            return Ok(DIRECT);
        }
        match leave {
            Leave::Fault => Err(Status::StepFault),
            Leave::Early => Err(Status::StepEarly),
            _ => go_on(cpu),
        }
    })
}
