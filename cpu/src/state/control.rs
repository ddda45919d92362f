//! Control registers and model-specific registers (SDM vol. 3, 2.5 and vol. 4).

use serde::{Deserialize, Serialize};

/// CR0 bits.
#[expect(missing_docs, reason = "the names are the manual's")]
pub mod cr0 {
    pub const PE: u64 = 1 << 0;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
}

/// CR4 bits.
#[expect(missing_docs, reason = "the names are the manual's")]
pub mod cr4 {
    pub const VME: u64 = 1 << 0;
    pub const PVI: u64 = 1 << 1;
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const PCE: u64 = 1 << 8;
    pub const OSFXSR: u64 = 1 << 9;
    pub const OSXMMEXCPT: u64 = 1 << 10;
    pub const UMIP: u64 = 1 << 11;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
}

/// EFER bits.
#[expect(missing_docs, reason = "the names are the manual's")]
pub mod efer {
    pub const SCE: u64 = 1 << 0;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
    pub const FFXSR: u64 = 1 << 14;
}

/// Control registers, EFER, XCR0 and the PDPTE registers of PAE paging.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct Control {
    /// CR0.
    pub cr0: u64,
    /// CR2, the linear address of the last page fault.
    pub cr2: u64,
    /// CR3 as the guest wrote it.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// XCR0.
    pub xcr0: u64,
    /// The four PDPTE registers, loaded by MOV CR3 under PAE paging.
    pub pdptes: [u64; 4],
}

impl Default for Control {
    fn default() -> Control {
        Control { cr0: 0x6000_0010, cr2: 0, cr3: 0, cr4: 0, efer: 0, xcr0: 1, pdptes: [0; 4] }
    }
}

/// Model-specific registers of the processor itself (the local APIC's are on the board).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the manual's")]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub tsc_aux: u64,
    pub tsc_adjust: u64,
    /// IA32_TSC = `Bus::tsc` + this (wrapping).
    pub tsc_offset: u64,
    pub pat: u64,
    pub mtrr_def_type: u64,
    /// Variable-range MTRRs: base, mask × 8.
    pub mtrr_variable: [u64; 16],
    /// Fixed-range MTRRs: 250h, 258h, 259h, 268h–26Fh.
    pub mtrr_fixed: [u64; 11],
    pub misc_enable: u64,
    pub xss: u64,
    /// The state of the random number generator behind RDRAND and RDSEED: the machine's seed at power-on.
    pub entropy: u64,
    /// Other MSRs that a model has and that only remember what was written, by number.
    pub plain: std::collections::BTreeMap<u32, u64>,
}

impl Default for Msrs {
    fn default() -> Msrs {
        Msrs {
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            tsc_aux: 0,
            tsc_adjust: 0,
            tsc_offset: 0,
            pat: 0x0007_0406_0007_0406,
            mtrr_def_type: 0,
            mtrr_variable: [0; 16],
            mtrr_fixed: [0; 11],
            misc_enable: 1,
            xss: 0,
            entropy: 0,
            plain: std::collections::BTreeMap::new(),
        }
    }
}
