//! The host's vector and x87 units on their way to the state and back (`gate`).

// The macro's expansion converts in its own way.
#![allow(clippy::useless_conversion, reason = "code that dynasm! makes")]

use super::asm::{Asm, Form, Map, Rm};
use super::block::Live;
use super::frame::frame;
use crate::state::{State, Vectors};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use dynasmrt::{DynasmApi, dynasm};
use std::mem::offset_of;

const VECTORS: usize = offset_of!(Vcpu, state) + offset_of!(State, vectors);
/// The bits of MXCSR in which exceptions are recorded (SDM vol. 1, 10.2.3).
const RECORDED: u32 = 0x3f;
/// MXCSR in the vCPU.
pub const MXCSR: usize = VECTORS + offset_of!(Vectors, mxcsr);

/// Where a vector register is, or its upper half.
fn vector_place(n: u8, upper: bool) -> Rm {
    Rm::cpu(VECTORS + offset_of!(Vectors, regs) + 32 * usize::from(n) + if upper { 16 } else { 0 })
}

/// VMOVUPS of all vector registers, from (10h) or to (11h) the state, as a whole or (upper halves zero then) the lower half.
fn vmovups(asm: &mut Asm, opcode: u8, whole: bool) {
    for n in 0..16u8 {
        asm.op(Form::new(Map::M0f, opcode).vex(0, whole), n, vector_place(n, false));
    }
}

/// Loads the vector registers. Upper halves that are all zero stay unused in the host's eyes too: many processors take some
/// 70 cycles to save them before an instruction of SSE, and as many to bring them back (Optimization Reference Manual, "Mixing
/// AVX code with SSE code").
fn load_vector_registers(asm: &mut Asm) {
    let (used, done) = (asm.label(), asm.label());
    let vex = |prefix, map, opcode| Form::new(map, opcode).prefix(prefix).vex(0, false);
    asm.op(vex(0xf3, Map::M0f, 0x6f), 0, vector_place(0, true)); // VMOVDQU
    for n in 1..16u8 {
        asm.op(vex(0x66, Map::M0f, 0xeb), 0, vector_place(n, true)); // VPOR
    }
    asm.op(vex(0x66, Map::M0f38, 0x17), 0, Rm::R(0)); // VPTEST
    asm.jcc(5, used);
    vmovups(asm, 0x10, false);
    asm.jmp(done);
    asm.bind(used);
    vmovups(asm, 0x10, true);
    asm.bind(done);
}

/// LDMXCSR (2) or STMXCSR (3).
fn mxcsr(asm: &mut Asm, extension: u8, offset: usize) {
    asm.op(Form::new(Map::M0f, 0xae), extension, Rm::cpu(offset));
}

/// Units to state; the host's own control words afterwards. RAX is destroyed.
///
/// MXCSR stays if the guest has in it what the host wants there: the exceptions that it records are of no interest to Rust,
/// and STMXCSR beside two LDMXCSR takes a hundred cycles on some processors, while one LDMXCSR takes none.
pub fn save(asm: &mut Asm, live: Live) {
    if live.has(Live::VECTORS) {
        let same = asm.label();
        vmovups(asm, 0x11, true);
        asm.raw(&[0xc5, 0xf8, 0x77]); // VZEROUPPER
        mxcsr(asm, 3, MXCSR);
        dynasm!(asm ; .arch x64
            ; mov eax, [r15 + MXCSR as i32]
            ; xor eax, [r15 + frame!(host_mxcsr) as i32]
            ; test eax, !RECORDED as i32
        );
        asm.jcc(4, same);
        mxcsr(asm, 2, frame!(host_mxcsr));
        asm.bind(same);
    }
    if live.has(Live::X87) {
        asm.op(Form::new(Map::M0f, 0xae).wide(true), 0, Rm::cpu(frame!(fx)));
        asm.store_imm(Width::B4, Rm::cpu(frame!(fx_saved)), 1);
        asm.raw(&[0xdb, 0xe3]); // FNINIT
    }
}

/// State (for the x87 unit: `Frame::fx`, which Rust has filled) to units.
pub fn load(asm: &mut Asm, live: Live) {
    if live.has(Live::X87) {
        // This also loads XMM registers and MXCSR, with nothing in particular.
        asm.op(Form::new(Map::M0f, 0xae).wide(true), 1, Rm::cpu(frame!(fx)));
    }
    if live.has(Live::VECTORS) {
        load_vector_registers(asm);
        mxcsr(asm, 2, MXCSR);
    }
}
