//! Which vector instructions a host of the same family can run as they are, and their encoding, read from their bytes.
//!
//! Left to the portable form: what vendors compute differently (RCP, RSQRT, DPPS, DPPD), what has implied memory operands, MMX registers, and extensions
//! that hosts of either vendor may lack (SSE4a, VAES …).

use crate::decode::{CpuidFeature, Mnemonic as M, Operand};
use crate::lift::Lifter;
use crate::uop::native::{General, Native};
use crate::uop::{Op, Uop};

/// Puts the native form on the instruction's vector uops, if it has one.
pub fn attach(l: &mut Lifter<'_>, first: usize) {
    let uops = &l.uops[first..];
    let vector = |uop: &Uop| matches!(uop.op, Op::VLoad | Op::VCall | Op::VStore);
    if !uops.iter().all(|uop| vector(uop) || uop.op == Op::Check) || !suits(l) {
        return;
    }
    let native = encoding(l);
    for uop in &mut l.uops[first..] {
        if vector(uop) {
            uop.native = native;
        }
    }
}

fn suits(l: &Lifter<'_>) -> bool {
    use CpuidFeature as F;
    let known = l.insn.features().iter().all(|feature| {
        matches!(
            feature,
            F::SSE
                | F::SSE2
                | F::SSE3
                | F::SSSE3
                | F::SSE4_1
                | F::SSE4_2
                | F::AES
                | F::PCLMULQDQ
                | F::AVX
                | F::AVX2
                | F::FMA
                | F::F16C
        )
    });
    let operands = (0..l.insn.op_count()).map(|n| l.insn.op(n));
    let (mut vectors, mut others) = (false, false);
    for operand in operands {
        match operand {
            Operand::Xmm(_) | Operand::Ymm(_) => vectors = true,
            Operand::Mem | Operand::Gpr(..) | Operand::Imm(_) => {}
            _ => others = true,
        }
    }
    let approximate = matches!(
        l.insn.mnemonic(),
        M::Rcpps | M::Rcpss | M::Rsqrtps | M::Rsqrtss | M::Vrcpps | M::Vrcpss | M::Vrsqrtps | M::Vrsqrtss
    );
    // Vendors add in different orders, which shows in which NaN comes out.
    let approximate = approximate || matches!(l.insn.mnemonic(), M::Dpps | M::Dppd | M::Vdpps | M::Vdppd);
    known && vectors && !others && !approximate
}

/// Reads the encoding from the bytes.
fn encoding(l: &Lifter<'_>) -> Option<Native> {
    let bytes = l.insn.bytes();
    let mut at = 0;
    let (mut operand_size, mut repeat) = (false, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            0x66 => operand_size = true,
            0xf2 | 0xf3 => repeat = byte,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67 => {}
            _ => break,
        }
        at += 1;
    }
    let long = l.insn.bitness() == 64;
    let native = if l.insn.is_vex() {
        vex(bytes, at, long)?
    } else {
        if operand_size && repeat != 0 {
            return None;
        }
        let prefix = if repeat != 0 { repeat } else { 0x66 * u8::from(operand_size) };
        legacy(bytes, at, long, prefix)?
    };
    Some(roles(l, native))
}

fn legacy(bytes: &[u8], mut at: usize, long: bool, prefix: u8) -> Option<Native> {
    let mut rex = 0;
    if long && *bytes.get(at)? & 0xf0 == 0x40 {
        rex = bytes[at];
        at += 1;
    }
    if *bytes.get(at)? != 0x0f {
        return None;
    }
    let (map, at) = match *bytes.get(at + 1)? {
        0x38 => (2, at + 2),
        0x3a => (3, at + 2),
        _ => (1, at + 1),
    };
    let (opcode, modrm) = (*bytes.get(at)?, *bytes.get(at + 1)?);
    Some(Native {
        prefix,
        map,
        opcode,
        wide: rex & 8 != 0,
        vex: None,
        reg: modrm >> 3 & 7 | (rex & 4) << 1,
        rm: (modrm >= 0xc0).then_some(modrm & 7 | (rex & 1) << 3),
        imm: None,
        general: General::None,
        flags: false,
    })
}

fn vex(bytes: &[u8], at: usize, long: bool) -> Option<Native> {
    let first = *bytes.get(at + 1)?;
    let (map, last, at, three) = match *bytes.get(at)? {
        0xc5 => (1, first, at + 2, false),
        0xc4 => (first & 31, *bytes.get(at + 2)?, at + 3, true),
        _ => return None,
    };
    // R and B are inverted; the short form has no B.
    let (r, b) = (!first >> 4 & 8, if three { !first >> 2 & 8 } else { 0 });
    let (r, b) = if long { (r, b) } else { (0, 0) };
    let (opcode, modrm) = (*bytes.get(at)?, *bytes.get(at + 1)?);
    let second = !last >> 3 & if long { 15 } else { 7 };
    Some(Native {
        prefix: [0, 0x66, 0xf3, 0xf2][usize::from(last & 3)],
        map,
        opcode,
        wide: three && last & 0x80 != 0,
        vex: Some((second, last & 4 != 0)),
        reg: modrm >> 3 & 7 | r,
        rm: (modrm >= 0xc0).then_some(modrm & 7 | b),
        imm: None,
        general: General::None,
        flags: false,
    })
}

/// What the operands are, beyond the bytes.
fn roles(l: &Lifter<'_>, native: Native) -> Native {
    let general = match (l.insn.op(0), (1..l.insn.op_count()).any(|n| matches!(l.insn.op(n), Operand::Gpr(..)))) {
        (Operand::Gpr(..), _) if native.map == 1 && matches!(native.opcode, 0x50 | 0x2c | 0x2d | 0xc5 | 0xd7) => {
            General::RegOut
        }
        (Operand::Gpr(..), _) => General::RmOut,
        (_, true) => General::RmIn,
        _ => General::None,
    };
    let last = l.insn.bytes().last().copied().unwrap_or(0);
    let fourth = matches!(l.insn.mnemonic(), M::Vblendvps | M::Vblendvpd | M::Vpblendvb);
    let imm = match l.insn.op(l.insn.op_count().saturating_sub(1)) {
        Operand::Imm(_) => Some(last),
        // Bit 7 of the register number is ignored outside 64-bit mode.
        _ if fourth => Some(if l.insn.bitness() == 64 { last } else { last & 0x7f }),
        _ => None,
    };
    let flags = matches!(
        l.insn.mnemonic(),
        M::Comiss
            | M::Comisd
            | M::Ucomiss
            | M::Ucomisd
            | M::Vcomiss
            | M::Vcomisd
            | M::Vucomiss
            | M::Vucomisd
            | M::Ptest
            | M::Vptest
            | M::Vtestps
            | M::Vtestpd
            | M::Pcmpestri
            | M::Pcmpestri64
            | M::Pcmpestrm
            | M::Pcmpestrm64
            | M::Pcmpistri
            | M::Pcmpistrm
            | M::Vpcmpestri
            | M::Vpcmpestri64
            | M::Vpcmpestrm
            | M::Vpcmpestrm64
            | M::Vpcmpistri
            | M::Vpcmpistrm
    );
    // Outside 64-bit mode VEX.W does not make a general register wide.
    let wide = native.wide && (l.insn.bitness() == 64 || general == General::None);
    Native { imm, general, flags, wide, ..native }
}
