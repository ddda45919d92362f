//! The features that CPUID can show, as one table: where its bit is, since which level a processor has it, and which of the
//! decoder's feature names it stands for (SDM vol. 2 CPUID; AMD APM vol. 3, appendix E).
//!
//! A row is here only when the instructions behind it work. Giving a level one feature more is a change of one row.

use crate::decode::CpuidFeature as C;

/// A generation of processors; each has everything that the ones before it have, but for the rows that say otherwise.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the processors'")]
pub enum Level {
    I486,
    Pentium,
    Pentium2,
    Pentium3,
    Core2,
    X8664,
    X8664V2,
    X8664V3,
    Max,
}

/// A CPUID output register.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub enum Output {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// Where a feature's bit is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The leaf.
    pub leaf: u32,
    /// The subleaf.
    pub subleaf: u32,
    /// The register.
    pub output: Output,
    /// The bit number.
    pub bit: u8,
}

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident, $leaf:literal : $sub:literal $reg:ident [$bit:literal], $since:ident, [$($iced:ident)*];)*) => {
        /// A feature that CPUID can show.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the names are the manual's")]
        #[repr(u8)]
        pub enum Feature { $($name,)* }

        impl Feature {
            /// All features, in the order of the table.
            pub const ALL: &[Feature] = &[$(Feature::$name,)*];
            /// Where CPUID shows it.
            pub const fn place(self) -> Place {
                match self { $(Feature::$name => Place { leaf: $leaf, subleaf: $sub, output: Output::$reg, bit: $bit },)* }
            }
            /// The first level that has it.
            pub const fn since(self) -> Level {
                match self { $(Feature::$name => Level::$since,)* }
            }
            /// The decoder's names for the instructions that it brings.
            pub const fn instructions(self) -> &'static [C] {
                match self { $(Feature::$name => &[$(C::$iced,)*],)* }
            }
        }
    };
}

#[rustfmt::skip]
features! {
    Fpu,          0x1:0 Edx[0],  I486,     [];
    Vme,          0x1:0 Edx[1],  Pentium,  [];
    De,           0x1:0 Edx[2],  Pentium,  [];
    Pse,          0x1:0 Edx[3],  Pentium,  [];
    Tsc,          0x1:0 Edx[4],  Pentium,  [TSC];
    Msr,          0x1:0 Edx[5],  Pentium,  [MSR];
    Pae,          0x1:0 Edx[6],  Pentium2, [];
    Mce,          0x1:0 Edx[7],  Pentium,  [];
    Cx8,          0x1:0 Edx[8],  Pentium,  [CX8];
    Apic,         0x1:0 Edx[9],  Pentium,  [];
    Sep,          0x1:0 Edx[11], Pentium2, [SEP];
    Mtrr,         0x1:0 Edx[12], Pentium2, [];
    Pge,          0x1:0 Edx[13], Pentium2, [];
    Mca,          0x1:0 Edx[14], Pentium2, [];
    Cmov,         0x1:0 Edx[15], Pentium2, [CMOV];
    Pat,          0x1:0 Edx[16], Pentium3, [];
    Pse36,        0x1:0 Edx[17], Pentium3, [];
    Clflush,      0x1:0 Edx[19], Core2,    [CLFSH];
    Mmx,          0x1:0 Edx[23], Pentium2, [MMX];
    Fxsr,         0x1:0 Edx[24], Pentium2, [FXSR];
    Sse,          0x1:0 Edx[25], Pentium3, [SSE];
    Sse2,         0x1:0 Edx[26], Core2,    [SSE2];
    Sse3,         0x1:0 Ecx[0],  Core2,    [SSE3];
    Pclmulqdq,    0x1:0 Ecx[1],  X8664V2,  [PCLMULQDQ];
    Ssse3,        0x1:0 Ecx[9],  X8664V2,  [SSSE3];
    Cmpxchg16b,   0x1:0 Ecx[13], Core2,    [CMPXCHG16B];
    Fma,          0x1:0 Ecx[12], X8664V3,  [FMA];
    Avx,          0x1:0 Ecx[28], X8664V3,  [AVX];
    F16c,         0x1:0 Ecx[29], X8664V3,  [F16C];
    Pcid,         0x1:0 Ecx[17], X8664V2,  [];
    Sse41,        0x1:0 Ecx[19], X8664V2,  [SSE4_1];
    Sse42,        0x1:0 Ecx[20], X8664V2,  [SSE4_2];
    X2apic,       0x1:0 Ecx[21], X8664V2,  [];
    Popcnt,       0x1:0 Ecx[23], X8664V2,  [POPCNT];
    TscDeadline,  0x1:0 Ecx[24], X8664V2,  [];
    Aes,          0x1:0 Ecx[25], X8664V2,  [AES];
    Xsave,        0x1:0 Ecx[26], X8664V2,  [XSAVE];
    Rdrand,       0x1:0 Ecx[30], X8664V2,  [RDRAND];
    Movbe,        0x1:0 Ecx[22], X8664V3,  [MOVBE];
    Hypervisor,   0x1:0 Ecx[31], X8664,    [];
    Arat,         0x6:0 Eax[2],  X8664,    [];
    Fsgsbase,     0x7:0 Ebx[0],  X8664V2,  [FSGSBASE];
    Bmi1,         0x7:0 Ebx[3],  X8664V3,  [BMI1];
    Avx2,         0x7:0 Ebx[5],  X8664V3,  [AVX2];
    Bmi2,         0x7:0 Ebx[8],  X8664V3,  [BMI2];
    Adx,          0x7:0 Ebx[19], Max,      [ADX];
    Clflushopt,   0x7:0 Ebx[23], Max,      [CLFLUSHOPT];
    Clwb,         0x7:0 Ebx[24], Max,      [CLWB];
    Sha,          0x7:0 Ebx[29], Max,      [SHA];
    Gfni,         0x7:0 Ecx[8],  Max,      [GFNI];
    Vaes,         0x7:0 Ecx[9],  Max,      [VAES];
    Vpclmulqdq,   0x7:0 Ecx[10], Max,      [VPCLMULQDQ];
    TscAdjust,    0x7:0 Ebx[1],  X8664V2,  [];
    Smep,         0x7:0 Ebx[7],  X8664V2,  [];
    Erms,         0x7:0 Ebx[9],  X8664V2,  [];
    Invpcid,      0x7:0 Ebx[10], X8664V2,  [INVPCID];
    Rdseed,       0x7:0 Ebx[18], X8664V2,  [RDSEED];
    Smap,         0x7:0 Ebx[20], X8664V2,  [SMAP];
    Umip,         0x7:0 Ecx[2],  X8664V2,  [];
    Rdpid,        0x7:0 Ecx[22], X8664V2,  [RDPID];
    Fsrm,         0x7:0 Edx[4],  X8664V2,  [];
    Xsaveopt,     0xd:1 Eax[0],  X8664V2,  [XSAVEOPT];
    Xsavec,       0xd:1 Eax[1],  X8664V2,  [XSAVEC];
    Xgetbv1,      0xd:1 Eax[2],  X8664V2,  [];
    LahfLong,     0x8000_0001:0 Ecx[0],  Core2,   [];
    Lzcnt,        0x8000_0001:0 Ecx[5],  X8664V3, [LZCNT];
    Sse4a,        0x8000_0001:0 Ecx[6],  Max,     [SSE4A];
    Prefetchw,    0x8000_0001:0 Ecx[8],  X8664,   [PREFETCHW];
    Topoext,      0x8000_0001:0 Ecx[22], X8664V2, [];
    Syscall,      0x8000_0001:0 Edx[11], Core2,   [SYSCALL];
    Nx,           0x8000_0001:0 Edx[20], Core2,   [];
    Ffxsr,        0x8000_0001:0 Edx[25], X8664,   [];
    Rdtscp,       0x8000_0001:0 Edx[27], X8664V2, [RDTSCP];
    LongMode,     0x8000_0001:0 Edx[29], Core2,   [X64];
    InvariantTsc, 0x8000_0007:0 Edx[8],  X8664,   [];
    XsaveErPtr,   0x8000_0008:0 Ebx[2],  X8664V2, [];
    SsbNo,        0x8000_0008:0 Ebx[26], X8664,   [];
    LfenceRdtsc,  0x8000_0021:0 Eax[2],  X8664V2, [];
    NullClears,   0x8000_0021:0 Eax[6],  X8664V2, [];
    AutoIbrs,     0x8000_0021:0 Eax[8],  X8664V2, [];
    SrsoNo,       0x8000_0021:0 Eax[29], X8664V2, [];
    TsaSqNo,      0x8000_0021:0 Ecx[1],  X8664V2, [];
    TsaL1No,      0x8000_0021:0 Ecx[2],  X8664V2, [];
}

/// Decoder features of an 80286 with a coprocessor.
pub const I80286: &[C] = &[C::INTEL8086, C::INTEL186, C::INTEL286, C::FPU, C::FPU287];

/// Decoder features that every level has. Those after PAUSE are encodings that older processors run as no-operations or
/// as an instruction that they do have; lift deals with them.
pub const ALWAYS: &[C] = &[
    C::INTEL8086,
    C::INTEL186,
    C::INTEL286,
    C::INTEL386,
    C::INTEL486,
    C::FPU,
    C::FPU287,
    C::FPU387,
    C::CPUID,
    C::PAUSE,
    C::CET_IBT,
    C::CET_SS,
    C::MPX,
    C::CLDEMOTE,
    C::PREFETCHITI,
    C::PREFETCHWT1,
    C::WBNOINVD,
];

/// Decoder features without a CPUID bit, by the level that brought them.
pub const UNLISTED: &[(Level, &[C])] = &[(Level::Pentium2, &[C::RDPMC, C::MULTIBYTENOP])];
