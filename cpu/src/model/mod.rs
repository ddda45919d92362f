//! Processor models: which instructions exist, what CPUID says, which bits of CR4 and EFER are reserved.
//!
//! `features` is the table of features, `cpuid` the leaves that are not feature bits. Called by lift (once per
//! instruction, [`CpuModel::has_all`]) and by the helpers for CPUID, control registers and MSRs.

mod cpuid;
mod features;

use crate::decode::{CpuidFeature, Encoding};
use crate::state::control::{cr4, efer};
pub use cpuid::{CpuidInputs, CpuidRegisters};
pub use features::{Feature, Level, Output, Place};

/// Whose behaviour a model has where the manuals differ.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// GenuineIntel.
    Intel,
    /// AuthenticAMD: SYSENTER is invalid in long mode, SYSCALL exists in compatibility mode.
    Amd,
}

/// One row of the table of models.
#[derive(Debug)]
struct Row {
    name: &'static str,
    level: Level,
    vendor: Vendor,
    /// Family, model, stepping.
    version: (u32, u32, u32),
    brand: &'static str,
}

#[rustfmt::skip]
const MODELS: &[Row] = &[
    Row { name: "max",       level: Level::Max,      vendor: Vendor::Amd,   version: (0x1a, 0x44, 0), brand: "Umbra Processor" },
    Row { name: "x86-64-v3", level: Level::X8664V3,  vendor: Vendor::Amd,   version: (0x1a, 0x44, 0), brand: "Umbra Processor, x86-64-v3" },
    Row { name: "x86-64-v2", level: Level::X8664V2,  vendor: Vendor::Amd,   version: (0x1a, 0x44, 0), brand: "Umbra Processor, x86-64-v2" },
    Row { name: "x86-64",    level: Level::X8664,    vendor: Vendor::Amd,   version: (0x0f, 0x6b, 1), brand: "Umbra Processor, x86-64" },
    Row { name: "core2",     level: Level::Core2,    vendor: Vendor::Intel, version: (6, 15, 11),     brand: "Umbra Processor, core2" },
    Row { name: "pentium3",  level: Level::Pentium3, vendor: Vendor::Intel, version: (6, 8, 6),       brand: "" },
    Row { name: "pentium2",  level: Level::Pentium2, vendor: Vendor::Intel, version: (6, 5, 2),       brand: "" },
    Row { name: "pentium",   level: Level::Pentium,  vendor: Vendor::Intel, version: (5, 2, 11),      brand: "" },
    Row { name: "486",       level: Level::I486,     vendor: Vendor::Intel, version: (4, 8, 0),       brand: "" },
];

/// EFER.AIBRSE: automatic indirect branch restricted speculation. Remembered; there is no speculation to restrict.
pub const EFER_AIBRSE: u64 = 1 << 21;

/// A processor model.
#[derive(Clone, Debug)]
pub struct CpuModel {
    row: &'static Row,
    /// Bit n: `Feature::ALL[n]`.
    features: u128,
    /// Bit n: the decoder's feature number n.
    instructions: [u64; 4],
    encoding: Encoding,
    processors: u32,
    tsc_khz: u32,
}

impl CpuModel {
    /// The model with this name, as `--cpu` takes it.
    pub fn by_name(name: &str) -> Option<CpuModel> {
        MODELS.iter().find(|row| row.name == name).map(CpuModel::of)
    }

    /// The names that [`Self::by_name`] knows, best first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MODELS.iter().map(|row| row.name)
    }

    fn of(row: &'static Row) -> CpuModel {
        let mut model = CpuModel::empty(row, Encoding::I80386);
        for &feature in features::ALWAYS {
            model.add_instruction(feature);
        }
        for (level, names) in features::UNLISTED {
            if *level <= row.level {
                names.iter().for_each(|&name| model.add_instruction(name));
            }
        }
        for &feature in Feature::ALL {
            if feature.since() <= row.level && !model.row.lacks(feature) {
                model.features |= 1 << feature as u32;
                feature.instructions().iter().for_each(|&name| model.add_instruction(name));
            }
        }
        model
    }

    /// The instructions and encodings of an 80286, for what was recorded on one in real mode. Not a processor for a machine:
    /// what else a 286 does in its own way is named by `profile` of the conformance suites.
    pub fn i80286() -> CpuModel {
        const I80286: Row =
            Row { name: "80286", level: Level::I486, vendor: Vendor::Intel, version: (2, 0, 0), brand: "" };
        let mut model = CpuModel::empty(&I80286, Encoding::I80286);
        features::I80286.iter().for_each(|&name| model.add_instruction(name));
        model
    }

    fn empty(row: &'static Row, encoding: Encoding) -> CpuModel {
        CpuModel { row, features: 0, instructions: [0; 4], encoding, processors: 1, tsc_khz: 1_000_000 }
    }

    fn add_instruction(&mut self, feature: CpuidFeature) {
        let n = feature as usize;
        self.instructions[(n / 64) & 3] |= 1 << (n % 64);
    }

    /// The same model in a machine with `processors` of them: what the topology leaves show.
    pub fn with_processors(self, processors: u32) -> CpuModel {
        CpuModel { processors: processors.max(1), ..self }
    }

    /// The same model with a time-stamp counter of this frequency: what the hypervisor's timing leaf shows.
    pub fn with_tsc_khz(self, tsc_khz: u32) -> CpuModel {
        CpuModel { tsc_khz, ..self }
    }

    /// The name.
    pub fn name(&self) -> &'static str {
        self.row.name
    }

    /// Whose behaviour it has where the manuals differ.
    pub fn vendor(&self) -> Vendor {
        self.row.vendor
    }

    /// CPUID leaf 1 EAX, which EDX holds after reset.
    pub fn signature(&self) -> u32 {
        let (family, model, stepping) = self.row.version;
        let extended = family.saturating_sub(15);
        extended << 20 | (model >> 4) << 16 | (family - extended) << 8 | (model & 15) << 4 | stepping
    }

    /// What it takes as an instruction.
    #[inline]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether the model has `feature`.
    #[inline]
    pub fn has(&self, feature: Feature) -> bool {
        self.features >> feature as u32 & 1 != 0
    }

    /// Whether the model has every one of `features`.
    #[inline]
    pub fn has_all(&self, features: &[CpuidFeature]) -> bool {
        features.iter().all(|&feature| {
            let n = feature as usize;
            self.instructions[(n / 64) & 3] >> (n % 64) & 1 != 0
        })
    }

    /// Bits of a guest-physical address.
    pub fn physical_bits(&self) -> u32 {
        if self.has(Feature::LongMode) {
            40
        } else if self.has(Feature::Pae) {
            36
        } else {
            32
        }
    }

    /// The bits of CR4 that may be set.
    pub fn cr4_mask(&self) -> u64 {
        let rows = [
            (Feature::Vme, cr4::VME | cr4::PVI),
            (Feature::Tsc, cr4::TSD),
            (Feature::De, cr4::DE),
            (Feature::Pse, cr4::PSE),
            (Feature::Pae, cr4::PAE),
            (Feature::Mce, cr4::MCE),
            (Feature::Pge, cr4::PGE),
            (Feature::Mmx, cr4::PCE),
            (Feature::Fxsr, cr4::OSFXSR),
            (Feature::Sse, cr4::OSXMMEXCPT),
            (Feature::Umip, cr4::UMIP),
            (Feature::Fsgsbase, cr4::FSGSBASE),
            (Feature::Pcid, cr4::PCIDE),
            (Feature::Xsave, cr4::OSXSAVE),
            (Feature::Smep, cr4::SMEP),
            (Feature::Smap, cr4::SMAP),
        ];
        rows.iter().filter(|(feature, _)| self.has(*feature)).fold(0, |mask, (_, bits)| mask | bits)
    }

    /// The bits of EFER that may be set; 0: there is no such MSR.
    pub fn efer_mask(&self) -> u64 {
        let rows = [
            (Feature::Syscall, efer::SCE),
            (Feature::LongMode, efer::LME | efer::LMA),
            (Feature::Nx, efer::NXE),
            (Feature::Ffxsr, efer::FFXSR),
            (Feature::AutoIbrs, EFER_AIBRSE),
        ];
        rows.iter().filter(|(feature, _)| self.has(*feature)).fold(0, |mask, (_, bits)| mask | bits)
    }

    /// The state components that XCR0 may enable: x87, SSE, AVX.
    pub fn xcr0_mask(&self) -> u64 {
        match (self.has(Feature::Xsave), self.has(Feature::Avx)) {
            (false, _) => 0,
            (true, false) => 3,
            (true, true) => 7,
        }
    }
}

impl Row {
    /// Features that the vendor never shows.
    fn lacks(&self, feature: Feature) -> bool {
        match self.vendor {
            Vendor::Amd => false,
            Vendor::Intel => matches!(feature.place().leaf, 0x8000_0021) || feature == Feature::Ffxsr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CpuidFeature as C;

    #[test]
    fn models_have_their_generation_s_instructions() {
        let rows: [(&str, C, bool); 15] = [
            ("486", C::INTEL386, true),
            ("486", C::CX8, false),
            ("pentium", C::CX8, true),
            ("pentium", C::CMOV, false),
            ("pentium2", C::SSE, false),
            ("pentium3", C::SSE, true),
            ("pentium3", C::SSE2, false),
            ("x86-64", C::X64, true),
            ("x86-64", C::SSE4_2, false),
            ("x86-64-v2", C::SSE4_2, true),
            ("x86-64-v2", C::AVX, false),
            ("x86-64-v3", C::BMI2, true),
            ("x86-64-v3", C::SHA, false),
            ("max", C::AVX, true),
            ("max", C::MONITOR, false),
        ];
        for (name, feature, expected) in rows {
            let model = CpuModel::by_name(name).expect(name);
            assert_eq!(model.has_all(&[feature]), expected, "{name} {feature:?}");
        }
    }

    #[test]
    fn signatures_follow_the_manual() {
        let signature = |name| CpuModel::by_name(name).expect(name).signature();
        assert_eq!(signature("pentium3"), 0x686);
        assert_eq!(signature("x86-64"), 0x0006_0fb1);
        assert_eq!(signature("max"), 0x00b4_0f40);
    }

    #[test]
    fn control_register_masks_follow_the_model() {
        let model = |name| CpuModel::by_name(name).expect(name);
        assert_eq!(model("486").cr4_mask(), 0);
        assert_eq!(model("486").efer_mask(), 0);
        assert_eq!(model("max").cr4_mask(), 0x37_0fff);
        assert_eq!(model("max").efer_mask(), 0x20_4d01);
    }
}
