//! The instructions that may be generated: every form that the decoder knows, that runs at CPL 3, that both the host and the
//! model have, and whose result is the manual's and not the host's own.

use crate::layout::Mode;
use iced_x86::{Code, CpuidFeature as C, EncodingKind, FlowControl, Instruction, Mnemonic as M, OpCodeInfo, Register};
use umbra_cpu::model::CpuModel;

/// Groups of instructions that profiles weigh.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Family {
    /// Integer instructions.
    Integer,
    /// x87.
    X87,
    /// MMX registers.
    Mmx,
    /// XMM registers, legacy encoding.
    Sse,
    /// XMM and YMM registers, VEX encoding.
    Avx,
    /// General registers, VEX encoding, and their kin.
    Bmi,
}

impl Family {
    /// All families.
    pub const ALL: [Family; 6] = [Family::Integer, Family::X87, Family::Mmx, Family::Sse, Family::Avx, Family::Bmi];
}

/// One instruction form.
pub struct Form {
    /// The decoder's number for it.
    pub code: Code,
    /// How it is encoded.
    pub op: &'static OpCodeInfo,
    /// Where the low three bits of the opcode are a register.
    pub register_in_opcode: bool,
    /// It has a vector of indices.
    pub vsib: bool,
    /// VEX.vvvv names a register.
    pub vvvv: bool,
}

/// Forms by family, for one mode.
pub struct Table {
    families: [Vec<Form>; 6],
}

/// Results or effects that are the host's own, or reach beyond the program.
#[rustfmt::skip]
const LEFT_OUT: &[(&[M], &str)] = &[
    (&[M::Cpuid, M::Rdtsc, M::Rdtscp, M::Rdrand, M::Rdseed, M::Rdpid, M::Rdpmc, M::Xgetbv], "the host's identity and time"),
    (&[M::Sgdt, M::Sidt, M::Sldt, M::Str, M::Smsw, M::Lar, M::Lsl, M::Verr, M::Verw], "the host's descriptor tables"),
    (&[M::Lds, M::Les, M::Lfs, M::Lgs, M::Lss, M::Rdfsbase, M::Rdgsbase, M::Wrfsbase, M::Wrgsbase], "segment registers"),
    (&[M::Popf, M::Popfd, M::Popfq, M::Cli, M::Sti], "TF, AC and NT; a fixed form with harmless bits is generated instead"),
    (&[M::Fldenv, M::Fnstenv, M::Fstenv, M::Fnsave, M::Fsave, M::Frstor, M::Fxsave, M::Fxsave64, M::Fxrstor, M::Fxrstor64,
        M::Xsave, M::Xsave64, M::Xsaveopt, M::Xsaveopt64, M::Xsavec, M::Xsavec64, M::Xsaves, M::Xsaves64, M::Xrstor,
        M::Xrstor64, M::Xrstors, M::Xrstors64], "x87 instruction pointers, and components that only the host has"),
    (&[M::Rcpss, M::Rcpps, M::Rsqrtss, M::Rsqrtps, M::Vrcpss, M::Vrcpps, M::Vrsqrtss, M::Vrsqrtps], "approximations"),
    (&[M::F2xm1, M::Fyl2x, M::Fyl2xp1, M::Fpatan, M::Fptan, M::Fsin, M::Fcos, M::Fsincos], "the last place is the vendor's"),
    (&[M::Dpps, M::Dppd, M::Vdpps, M::Vdppd], "in which order NaNs meet is the vendor's: the recorded vectors hold AMD's"),
    (&[M::Xabort, M::Xbegin, M::Xend, M::Xtest], "transactions"),
    (&[M::Fldcw, M::Ldmxcsr, M::Vldmxcsr], "random control words fault at once; a fixed form is generated instead"),
    (&[M::Incsspd, M::Incsspq, M::Rstorssp, M::Saveprevssp, M::Setssbsy, M::Clrssbsy, M::Wrssd, M::Wrssq], "shadow stacks"),
    (&[M::Bndmk, M::Bndcl, M::Bndcu, M::Bndcn, M::Bndmov, M::Bndldx, M::Bndstx], "no-operations where MPX is off"),
    (&[M::In, M::Out, M::Insb, M::Insw, M::Insd, M::Outsb, M::Outsw, M::Outsd], "ports"),
];

/// Whether the host has a feature of the decoder's list.
fn host_has(feature: C) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        match feature {
            C::INTEL8086 | C::INTEL186 | C::INTEL286 | C::INTEL386 | C::INTEL486 | C::FPU | C::FPU287 | C::FPU387 => {
                true
            }
            C::X64 | C::CMOV | C::MMX | C::SSE | C::SSE2 | C::CX8 | C::CLFSH | C::PAUSE | C::MULTIBYTENOP => true,
            C::CET_IBT | C::CET_SS | C::CLDEMOTE | C::PREFETCHWT1 | C::PREFETCHITI | C::PREFETCHW => true,
            C::SSE3 => has!("sse3"),
            C::SSSE3 => has!("ssse3"),
            C::SSE4_1 => has!("sse4.1"),
            C::SSE4_2 => has!("sse4.2"),
            C::SSE4A => has!("sse4a"),
            C::AES => has!("aes"),
            C::PCLMULQDQ => has!("pclmulqdq"),
            C::SHA => has!("sha"),
            C::GFNI => has!("gfni"),
            C::VAES => has!("vaes"),
            C::VPCLMULQDQ => has!("vpclmulqdq"),
            C::AVX => has!("avx"),
            C::AVX2 => has!("avx2"),
            C::FMA => has!("fma"),
            C::F16C => has!("f16c"),
            C::BMI1 => has!("bmi1"),
            C::BMI2 => has!("bmi2"),
            C::LZCNT => has!("lzcnt"),
            C::POPCNT => has!("popcnt"),
            C::ADX => has!("adx"),
            C::MOVBE => has!("movbe"),
            C::CMPXCHG16B => has!("cmpxchg16b"),
            _ => false,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = feature;
        false
    }
}

impl Table {
    /// The forms of a mode that the model has too.
    pub fn new(mode: Mode, model: &CpuModel) -> Table {
        let mut families: [Vec<Form>; 6] = Default::default();
        for code in Code::values() {
            if let Some((family, form)) = form(code, mode, model) {
                families[family as usize].push(form);
            }
        }
        Table { families }
    }

    /// The forms of a family.
    pub fn of(&self, family: Family) -> &[Form] {
        &self.families[family as usize]
    }

    /// Every form.
    pub fn all(&self) -> impl Iterator<Item = &Form> {
        self.families.iter().flatten()
    }
}

fn form(code: Code, mode: Mode, model: &CpuModel) -> Option<(Family, Form)> {
    let op = code.op_code();
    let encodings = [EncodingKind::Legacy, EncodingKind::VEX];
    let right = op.is_instruction()
        && op.is_available_in_mode(mode.bits())
        && op.compatibility_mode() | op.long_mode()
        && encodings.contains(&op.encoding())
        && op.cpl3()
        && !op.is_privileged()
        && !op.is_input_output()
        && !op.fwait();
    let features = code.cpuid_features();
    if !right || !features.iter().all(|f| host_has(*f)) || !model.has_all(features) {
        return None;
    }
    let mnemonic = code.mnemonic();
    if code.flow_control() != FlowControl::Next || LEFT_OUT.iter().any(|(names, _)| names.contains(&mnemonic)) {
        return None;
    }
    // The result is undefined; AMD's and Intel's differ.
    if code == Code::Bswap_r16 {
        return None;
    }
    let kinds: Vec<String> = op.op_kinds().iter().map(|k| format!("{k:?}")).collect();
    let any = |part: &str| kinds.iter().any(|k| k.contains(part));
    if any("seg")
        || any("cr_")
        || any("dr_")
        || any("tr_")
        || any("br")
        || any("bnd")
        || mnemonic == M::Pop && any("s_")
        || implied_segment(code)
    {
        return None;
    }
    let vector = any("xmm") || any("ymm") || any("vsib");
    let family = if op.encoding() == EncodingKind::VEX {
        if vector || matches!(mnemonic, M::Vzeroall | M::Vzeroupper | M::Vstmxcsr) { Family::Avx } else { Family::Bmi }
    } else if any("mm_") && !vector || mnemonic == M::Emms {
        Family::Mmx
    } else if vector || mnemonic == M::Stmxcsr {
        Family::Sse
    } else if features.iter().any(|f| matches!(f, C::FPU | C::FPU287 | C::FPU387)) {
        Family::X87
    } else if features.iter().any(|f| matches!(f, C::BMI1 | C::BMI2 | C::LZCNT | C::POPCNT | C::ADX | C::MOVBE)) {
        Family::Bmi
    } else {
        Family::Integer
    };
    Some((family, Form { code, op, register_in_opcode: any("opcode"), vsib: any("vsib"), vvvv: any("vvvv") }))
}

/// PUSH and POP of segment registers.
fn implied_segment(code: Code) -> bool {
    let mut insn = Instruction::default();
    insn.set_code(code);
    let kinds = code.op_code().op_kinds();
    kinds.iter().any(|kind| matches!(format!("{kind:?}").as_str(), "es" | "cs" | "ss" | "ds" | "fs" | "gs"))
        || insn.op0_register() != Register::None && insn.op0_register().is_segment_register()
}
