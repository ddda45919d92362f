//! VEX-encoded instructions: AVX, AVX2, FMA, F16C. They clear the bits of the destination above their own width.

use super::{Alignment, Upper, bmi, general, moves, table};
use crate::decode::{Code, Mnemonic as M, Operand};
use crate::fault::vector::NM;
use crate::helpers::{Args, Helper, xsave};
use crate::lift::{Lifted, Lifter};
use crate::mode::ModeBits;
use crate::state::fpu::V0;
use crate::uop::Width;
use crate::vector::gather::{GATHER, Gather, MASKED_LOAD, MASKED_STORE};
use crate::vector::{Direct, Forms, convert, fma, half, mmx, moves as register, shuffle, wide};

/// Lifts a VEX-encoded instruction.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    if l.raise_if(!l.mode.has(ModeBits::PE) || l.mode.has(ModeBits::VM), crate::fault::vector::UD) {
        return Lifted::Yes;
    }
    if bmi::lift(l) == Lifted::Yes {
        return Lifted::Yes;
    }
    if l.raise_if(!l.mode.has(ModeBits::AVX), crate::fault::vector::UD) || l.raise_if(l.mode.has(ModeBits::TS), NM) {
        return Lifted::Yes;
    }
    let shapes = [
        table_row,
        whole_moves,
        part_moves,
        blends,
        permutes,
        broadcasts,
        general::to_general,
        general::from_general,
        general::to_flags,
        general::strings,
        masked,
        gathers,
        fused,
        halves,
        control,
    ];
    for shape in shapes {
        if shape(l) == Lifted::Yes {
            return Lifted::Yes;
        }
    }
    Lifted::No
}

/// Whether the instruction works on 256 bits.
fn is_wide(l: &Lifter<'_>) -> bool {
    let wide =
        |n| matches!(l.insn.op(n), Operand::Ymm(_)) || l.insn.op(n) == Operand::Mem && l.insn.memory_size() == 32;
    wide(0) || wide(1)
}

/// The width argument of helpers that serve both lengths.
fn width(l: &Lifter<'_>) -> Width {
    if is_wide(l) { Width::B8 } else { Width::B4 }
}

/// The number of the vector register that is operand `n`.
fn register_of(l: &Lifter<'_>, n: u32) -> Option<u8> {
    match l.insn.op(n) {
        Operand::Xmm(r) | Operand::Ymm(r) => Some(r),
        _ => None,
    }
}

/// Calls `helper` with destination, first source and second source (the first again if there is only one).
fn sources(l: &mut Lifter<'_>, helper: &'static Direct, imm: u64) -> Lifted {
    let Some(a) = register_of(l, 0) else { return Lifted::No };
    let two = matches!(l.insn.op(2), Operand::Xmm(_) | Operand::Ymm(_) | Operand::Mem);
    let last = l.vector_source(if two { 2 } else { 1 });
    let b = if two { register_of(l, 1).unwrap_or(0) } else { last };
    l.vcall(helper, Args { a, b, c: last, imm, width: width(l), ..l.args() });
    Lifted::Yes
}

/// Instructions of the table.
fn table_row(l: &mut Lifter<'_>) -> Lifted {
    let m = l.insn.mnemonic();
    let wide_form = is_wide(l);
    let by_immediate = matches!(l.insn.op(2), Operand::Imm(_));
    let Some(forms) = table::forms(m, by_immediate) else { return Lifted::No };
    if !wide_form {
        let imm = l.last_immediate().unwrap_or(0);
        let imm = match m {
            M::Vcmpps | M::Vcmppd | M::Vcmpss | M::Vcmpsd => imm & 31,
            M::Vinsertps if l.insn.op(2) == Operand::Mem => imm & 0x3f,
            _ => imm,
        };
        return sources(l, &forms.vex, imm);
    }
    match m {
        M::Vpmovsxbw | M::Vpmovsxwd | M::Vpmovsxdq | M::Vpmovzxbw | M::Vpmovzxwd | M::Vpmovzxdq => {
            widening(l, forms, 64)
        }
        M::Vpmovsxbd | M::Vpmovsxwq | M::Vpmovzxbd | M::Vpmovzxwq => widening(l, forms, 32),
        M::Vpmovsxbq | M::Vpmovzxbq => widening(l, forms, 16),
        M::Vcvtdq2pd => sources(l, &convert::CVTDQ2PD_YMM, 0),
        M::Vcvtps2pd => sources(l, &convert::CVTPS2PD_YMM, 0),
        M::Vcvtpd2ps => sources(l, &convert::CVTPD2PS_YMM, 0),
        M::Vcvtpd2dq => sources(l, &convert::CVTPD2DQ_YMM, 0),
        M::Vcvttpd2dq => sources(l, &convert::CVTTPD2DQ_YMM, 0),
        _ => {
            let imm = l.last_immediate().unwrap_or(0);
            let upper = match m {
                M::Vshufpd | M::Vblendpd => imm >> 2,
                M::Vblendps | M::Vpblendd => imm >> 4,
                M::Vmpsadbw => imm >> 3,
                _ => imm,
            };
            sources(l, &forms.ymm, imm | upper << 8)
        }
    }
}

/// VPMOVSX and VPMOVZX to 256 bits: the source for the upper half is moved into place first.
fn widening(l: &mut Lifter<'_>, forms: &'static Forms, shift: u64) -> Lifted {
    let Some(a) = register_of(l, 0) else { return Lifted::No };
    let b = l.vector_source(1);
    l.vcall(&wide::SPREAD, Args { a: V0 + 2, b, c: b, imm: shift, ..l.args() });
    l.vcall(&forms.ymm, Args { a, b: V0 + 2, c: V0 + 2, ..l.args() });
    Lifted::Yes
}

/// Moves of whole registers.
fn whole_moves(l: &mut Lifter<'_>) -> Lifted {
    let alignment = match l.insn.mnemonic() {
        M::Vmovaps | M::Vmovapd | M::Vmovdqa | M::Vmovntdqa | M::Vmovntdq | M::Vmovntps | M::Vmovntpd => {
            Alignment::Natural
        }
        M::Vmovups | M::Vmovupd | M::Vmovdqu | M::Vlddqu => Alignment::Any,
        _ => return Lifted::No,
    };
    let bytes = if is_wide(l) { 32 } else { 16 };
    match (register_of(l, 0), register_of(l, 1)) {
        (Some(_), Some(_)) => {
            let forms = &register::MOVE;
            return sources(l, if bytes == 32 { &forms.ymm } else { &forms.vex }, 0);
        }
        (Some(a), None) => l.vload(a, bytes, alignment, Upper::Clear),
        (None, Some(b)) => l.vstore(b, bytes, alignment),
        _ => return Lifted::No,
    }
    Lifted::Yes
}

/// Moves of parts of an XMM register.
fn part_moves(l: &mut Lifter<'_>) -> Lifted {
    let (forms, bytes) = match l.insn.mnemonic() {
        M::Vmovss => (&register::MOVSS, 4),
        M::Vmovsd => (&register::MOVSD, 8),
        M::Vmovlps | M::Vmovlpd => (&register::MOVSD, 8),
        M::Vmovhps | M::Vmovhpd => (&register::MOVLHPS, 8),
        M::Vmovd | M::Vmovq => return between(l),
        M::Vmaskmovdqu => {
            moves::masked(l, &mmx::MASKMOVDQU);
            return Lifted::Yes;
        }
        _ => return Lifted::No,
    };
    match (register_of(l, 0), register_of(l, 1)) {
        (Some(_), Some(_)) => return sources(l, &forms.vex, 0),
        (Some(a), None) => l.vload(a, bytes, Alignment::Any, Upper::Clear),
        (None, Some(b)) if matches!(l.insn.mnemonic(), M::Vmovhps | M::Vmovhpd) => {
            l.vcall(&register::HIGH.vex, Args { a: V0 + 1, b, c: b, ..l.args() });
            l.vstore(V0 + 1, 8, Alignment::Any);
        }
        (None, Some(b)) => l.vstore(b, bytes, Alignment::Any),
        _ => return Lifted::No,
    }
    Lifted::Yes
}

/// VMOVD and VMOVQ.
fn between(l: &mut Lifter<'_>) -> Lifted {
    let bytes = l.insn.memory_size() as u64;
    match (l.insn.op(0), l.insn.op(1)) {
        (Operand::Xmm(_), Operand::Xmm(_)) => return sources(l, &register::MOVQ.vex, 0),
        (Operand::Xmm(a), Operand::Gpr(b, width)) => {
            l.vcall(&register::FROM_GENERAL_VEX, Args { a, b, width, ..l.args() })
        }
        (Operand::Gpr(a, width), Operand::Xmm(b)) => l.vcall(&register::TO_GENERAL, Args { a, b, width, ..l.args() }),
        (Operand::Xmm(a), _) => l.vload(a, bytes, Alignment::Any, Upper::Clear),
        (_, Operand::Xmm(b)) => l.vstore(b, bytes, Alignment::Any),
        _ => return Lifted::No,
    }
    Lifted::Yes
}

/// Variable blends: the mask register is the fourth operand.
fn blends(l: &mut Lifter<'_>) -> Lifted {
    let helper: &'static Direct = match l.insn.mnemonic() {
        M::Vpblendvb => &shuffle::VPBLENDVB,
        M::Vblendvps => &shuffle::VBLENDVPS,
        M::Vblendvpd => &shuffle::VBLENDVPD,
        _ => return Lifted::No,
    };
    let Some(mask) = register_of(l, 3) else { return Lifted::No };
    sources(l, helper, u64::from(mask))
}

/// Permutations, and inserts and extracts of halves.
fn permutes(l: &mut Lifter<'_>) -> Lifted {
    let by_immediate = matches!(l.insn.op(2), Operand::Imm(_));
    let imm = l.last_immediate().unwrap_or(0);
    let pick = |l: &Lifter<'_>, forms: &'static Forms| if is_wide(l) { &forms.ymm } else { &forms.vex };
    match l.insn.mnemonic() {
        M::Vpermilps if by_immediate => sources(l, pick(l, &shuffle::PSHUFD), imm | imm << 8),
        M::Vpermilpd if by_immediate => sources(l, pick(l, &shuffle::PERMILPD_IMM), imm | imm >> 2 << 8),
        M::Vpermilps => sources(l, pick(l, &shuffle::PERMILPS), 0),
        M::Vpermilpd => sources(l, pick(l, &shuffle::PERMILPD), 0),
        M::Vperm2f128 | M::Vperm2i128 => sources(l, &wide::PERM2X128, imm),
        M::Vinsertf128 | M::Vinserti128 => sources(l, &wide::INSERT128, imm),
        M::Vpermq | M::Vpermpd => sources(l, &wide::PERMQ, imm),
        M::Vpermd | M::Vpermps => sources(l, &wide::PERMD, 0),
        M::Vextractf128 | M::Vextracti128 => {
            let Some(b) = register_of(l, 1) else { return Lifted::No };
            let a = register_of(l, 0);
            l.vcall(&wide::EXTRACT128, Args { a: a.unwrap_or(V0 + 1), b, c: b, imm, ..l.args() });
            if a.is_none() {
                l.vstore(V0 + 1, 16, Alignment::Any);
            }
            Lifted::Yes
        }
        _ => Lifted::No,
    }
}

/// Broadcasts.
fn broadcasts(l: &mut Lifter<'_>) -> Lifted {
    let helper: &'static Direct = match l.insn.mnemonic() {
        M::Vpbroadcastb => &wide::BROADCASTB,
        M::Vpbroadcastw => &wide::BROADCASTW,
        M::Vpbroadcastd | M::Vbroadcastss => &wide::BROADCASTD,
        M::Vpbroadcastq | M::Vbroadcastsd => &wide::BROADCASTQ,
        M::Vbroadcastf128 | M::Vbroadcasti128 => &wide::BROADCAST128,
        _ => return Lifted::No,
    };
    sources(l, helper, 0)
}

/// Masked loads and stores.
fn masked(l: &mut Lifter<'_>) -> Lifted {
    let element = match l.insn.mnemonic() {
        M::Vmaskmovps | M::Vpmaskmovd => Width::B4,
        M::Vmaskmovpd | M::Vpmaskmovq => Width::B8,
        _ => return Lifted::No,
    };
    let imm = if is_wide(l) { 32 } else { 16 };
    let (helper, data, mask): (&'static Helper, _, _) = match (register_of(l, 0), register_of(l, 1), register_of(l, 2))
    {
        (Some(a), Some(b), None) => (&MASKED_LOAD, a, b),
        (None, Some(b), Some(a)) => (&MASKED_STORE, a, b),
        _ => return Lifted::No,
    };
    let seg = l.offset_to_t0();
    l.call(helper, Args { a: data, b: mask, seg, width: element, imm, ..l.args() });
    Lifted::Yes
}

/// Gathers.
fn gathers(l: &mut Lifter<'_>) -> Lifted {
    let (index, element) = match l.insn.mnemonic() {
        M::Vpgatherdd | M::Vgatherdps => (Width::B4, Width::B4),
        M::Vpgatherdq | M::Vgatherdpd => (Width::B4, Width::B8),
        M::Vpgatherqd | M::Vgatherqps => (Width::B8, Width::B4),
        M::Vpgatherqq | M::Vgatherqpd => (Width::B8, Width::B8),
        _ => return Lifted::No,
    };
    let (Some(a), Some(mask)) = (register_of(l, 0), register_of(l, 2)) else { return Lifted::No };
    let m = l.insn.mem();
    if a == mask || a == m.index || mask == m.index {
        l.raise_ud();
        return Lifted::Yes;
    }
    let long_indices = matches!(l.insn.code(), Code::VEX_Vpgatherqd_xmm_vm64y_xmm | Code::VEX_Vgatherqps_xmm_vm64y_xmm);
    // The longer of data and indices fills the vector; VEX.L is that of the longer register.
    let bytes = if is_wide(l) || long_indices { 32 } else { 16 };
    let count = (bytes / element.bytes().max(index.bytes())) as u8;
    let gather = Gather { base: m.base, scale: m.scale, disp: m.disp as i32, index, count, address: m.width };
    l.call(&GATHER, Args { a, b: mask, c: m.index, seg: m.seg, width: element, imm: gather.pack() });
    Lifted::Yes
}

/// Fused multiply-add.
fn fused(l: &mut Lifter<'_>) -> Lifted {
    let Some((helper, form)) = fused_form(l.insn.mnemonic()) else { return Lifted::No };
    sources(l, helper, form.pack())
}

#[rustfmt::skip]
fn fused_form(m: M) -> Option<(&'static Direct, fma::Form)> {
    use fma::{Order::{self, O132, O213, O231}, PD, PS, SD, SS, Signs::{self, Add, AddSub, NegAdd, NegSub, Sub, SubAdd}};
    let (helper, order, signs): (&'static Direct, Order, Signs) = match m {
        M::Vfmadd132ps => (&PS, O132, Add),
        M::Vfmadd132pd => (&PD, O132, Add),
        M::Vfmadd132ss => (&SS, O132, Add),
        M::Vfmadd132sd => (&SD, O132, Add),
        M::Vfmadd213ps => (&PS, O213, Add),
        M::Vfmadd213pd => (&PD, O213, Add),
        M::Vfmadd213ss => (&SS, O213, Add),
        M::Vfmadd213sd => (&SD, O213, Add),
        M::Vfmadd231ps => (&PS, O231, Add),
        M::Vfmadd231pd => (&PD, O231, Add),
        M::Vfmadd231ss => (&SS, O231, Add),
        M::Vfmadd231sd => (&SD, O231, Add),
        M::Vfmsub132ps => (&PS, O132, Sub),
        M::Vfmsub132pd => (&PD, O132, Sub),
        M::Vfmsub132ss => (&SS, O132, Sub),
        M::Vfmsub132sd => (&SD, O132, Sub),
        M::Vfmsub213ps => (&PS, O213, Sub),
        M::Vfmsub213pd => (&PD, O213, Sub),
        M::Vfmsub213ss => (&SS, O213, Sub),
        M::Vfmsub213sd => (&SD, O213, Sub),
        M::Vfmsub231ps => (&PS, O231, Sub),
        M::Vfmsub231pd => (&PD, O231, Sub),
        M::Vfmsub231ss => (&SS, O231, Sub),
        M::Vfmsub231sd => (&SD, O231, Sub),
        M::Vfnmadd132ps => (&PS, O132, NegAdd),
        M::Vfnmadd132pd => (&PD, O132, NegAdd),
        M::Vfnmadd132ss => (&SS, O132, NegAdd),
        M::Vfnmadd132sd => (&SD, O132, NegAdd),
        M::Vfnmadd213ps => (&PS, O213, NegAdd),
        M::Vfnmadd213pd => (&PD, O213, NegAdd),
        M::Vfnmadd213ss => (&SS, O213, NegAdd),
        M::Vfnmadd213sd => (&SD, O213, NegAdd),
        M::Vfnmadd231ps => (&PS, O231, NegAdd),
        M::Vfnmadd231pd => (&PD, O231, NegAdd),
        M::Vfnmadd231ss => (&SS, O231, NegAdd),
        M::Vfnmadd231sd => (&SD, O231, NegAdd),
        M::Vfnmsub132ps => (&PS, O132, NegSub),
        M::Vfnmsub132pd => (&PD, O132, NegSub),
        M::Vfnmsub132ss => (&SS, O132, NegSub),
        M::Vfnmsub132sd => (&SD, O132, NegSub),
        M::Vfnmsub213ps => (&PS, O213, NegSub),
        M::Vfnmsub213pd => (&PD, O213, NegSub),
        M::Vfnmsub213ss => (&SS, O213, NegSub),
        M::Vfnmsub213sd => (&SD, O213, NegSub),
        M::Vfnmsub231ps => (&PS, O231, NegSub),
        M::Vfnmsub231pd => (&PD, O231, NegSub),
        M::Vfnmsub231ss => (&SS, O231, NegSub),
        M::Vfnmsub231sd => (&SD, O231, NegSub),
        M::Vfmaddsub132ps => (&PS, O132, AddSub),
        M::Vfmaddsub132pd => (&PD, O132, AddSub),
        M::Vfmaddsub213ps => (&PS, O213, AddSub),
        M::Vfmaddsub213pd => (&PD, O213, AddSub),
        M::Vfmaddsub231ps => (&PS, O231, AddSub),
        M::Vfmaddsub231pd => (&PD, O231, AddSub),
        M::Vfmsubadd132ps => (&PS, O132, SubAdd),
        M::Vfmsubadd132pd => (&PD, O132, SubAdd),
        M::Vfmsubadd213ps => (&PS, O213, SubAdd),
        M::Vfmsubadd213pd => (&PD, O213, SubAdd),
        M::Vfmsubadd231ps => (&PS, O231, SubAdd),
        M::Vfmsubadd231pd => (&PD, O231, SubAdd),
        _ => return None,
    };
    Some((helper, fma::Form { order, signs }))
}

/// F16C.
fn halves(l: &mut Lifter<'_>) -> Lifted {
    match l.insn.mnemonic() {
        M::Vcvtph2ps => sources(l, &half::CVTPH2PS, 0),
        M::Vcvtps2ph => {
            let Some(b) = register_of(l, 1) else { return Lifted::No };
            let (a, width, imm) = (register_of(l, 0), width(l), l.last_immediate().unwrap_or(0));
            l.vcall(&half::CVTPS2PH, Args { a: a.unwrap_or(V0 + 1), b, width, imm, ..l.args() });
            if a.is_none() {
                let bytes = if width == Width::B8 { 16 } else { 8 };
                l.vstore(V0 + 1, bytes, Alignment::Any);
            }
            Lifted::Yes
        }
        _ => Lifted::No,
    }
}

/// VZEROUPPER and VZEROALL, VLDMXCSR and VSTMXCSR.
fn control(l: &mut Lifter<'_>) -> Lifted {
    let all = match l.insn.mnemonic() {
        M::Vldmxcsr | M::Vstmxcsr => {
            let load = l.insn.mnemonic() == M::Vldmxcsr;
            let args = l.rm_args(l.insn.op(0));
            l.call(if load { &xsave::LDMXCSR } else { &xsave::STMXCSR }, args);
            return Lifted::Yes;
        }
        M::Vzeroupper => 0,
        M::Vzeroall => 1,
        _ => return Lifted::No,
    };
    let registers = if l.mode.has(ModeBits::L) { 16 } else { 8 };
    l.vcall(&wide::ZERO, Args { a: registers, c: all, ..l.args() });
    Lifted::Yes
}
