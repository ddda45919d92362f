//! The leaves of CPUID (SDM vol. 2 CPUID; AMD APM vol. 3, appendix E): vendor, version, caches, topology, address sizes,
//! brand, XSAVE layout, the hypervisor's leaves. Feature bits come from the table in `features`.
//!
//! Left out: performance monitoring (leaf Ah reads as none), power management, trace.

use super::features::Output;
use super::{CpuModel, Feature, Vendor};

/// What CPUID answers.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct CpuidRegisters {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// What the answers depend on besides the model.
#[derive(Copy, Clone, Debug, Default)]
pub struct CpuidInputs {
    /// EAX.
    pub leaf: u32,
    /// ECX.
    pub subleaf: u32,
    /// The initial local APIC id.
    pub apic_id: u32,
    /// CR4.OSXSAVE is set: shown in leaf 1 ECX bit 27.
    pub osxsave: bool,
    /// XCR0: decides the sizes in leaf Dh.
    pub xcr0: u64,
}

/// CPUID 1 ECX bit 27.
const OSXSAVE: u32 = 1 << 27;
/// CPUID 1 EDX bit 28: more than one logical processor in the package.
const HTT: u32 = 1 << 28;
/// The legacy region and the header: the size of an XSAVE area with x87 and SSE state.
const XSAVE_LEGACY: u32 = 576;
/// The AVX component of an XSAVE area.
const XSAVE_AVX: u32 = 256;
/// Its bit in XCR0.
const AVX_STATE: u64 = 4;
/// The last hypervisor leaf: TSC and bus frequency.
const HYPERVISOR_LAST: u32 = 0x4000_0010;

/// One cache as leaves 4 and 8000001Dh describe it.
struct Cache {
    /// 1 data, 2 instruction, 3 unified.
    kind: u32,
    level: u32,
    ways: u32,
    bytes: u32,
}

const CACHES: [Cache; 4] = [
    Cache { kind: 1, level: 1, ways: 8, bytes: 32 << 10 },
    Cache { kind: 2, level: 1, ways: 8, bytes: 32 << 10 },
    Cache { kind: 3, level: 2, ways: 8, bytes: 512 << 10 },
    Cache { kind: 3, level: 3, ways: 16, bytes: 16 << 20 },
];
/// Bytes in a cache line.
const LINE: u32 = 64;

impl CpuModel {
    /// The answer of CPUID.
    pub fn cpuid(&self, inputs: CpuidInputs) -> CpuidRegisters {
        let (basic, extended) = (self.last_basic(), self.last_extended());
        let leaf = match inputs.leaf {
            0x8000_0000.. if inputs.leaf > extended => return self.beyond(inputs, basic),
            0x4000_0000..=0x4fff_ffff if self.has(Feature::Hypervisor) => {
                return self.hypervisor(inputs.leaf);
            }
            0x8000_0000.. => inputs.leaf,
            leaf if leaf > basic => return self.beyond(inputs, basic),
            leaf => leaf,
        };
        let mut answer = self.fixed(leaf, inputs);
        self.add_feature_bits(leaf, inputs.subleaf, &mut answer);
        if leaf == 1 && inputs.osxsave {
            answer.ecx |= OSXSAVE;
        }
        answer
    }

    /// A leaf beyond the last one: AMD answers zeros, Intel repeats the last basic leaf.
    fn beyond(&self, inputs: CpuidInputs, basic: u32) -> CpuidRegisters {
        match self.vendor() {
            Vendor::Amd => CpuidRegisters::default(),
            Vendor::Intel => self.cpuid(CpuidInputs { leaf: basic, ..inputs }),
        }
    }

    fn last_basic(&self) -> u32 {
        match self.vendor() {
            _ if self.has(Feature::Xsave) => 0xd,
            _ if self.has(Feature::Smep) => 7,
            Vendor::Amd => 6,
            Vendor::Intel if self.has(Feature::LongMode) => 6,
            Vendor::Intel if self.has(Feature::Pae) => 2,
            Vendor::Intel => 1,
        }
    }

    fn last_extended(&self) -> u32 {
        match self.vendor() {
            Vendor::Amd if self.has(Feature::AutoIbrs) => 0x8000_0021,
            Vendor::Amd => 0x8000_0008,
            Vendor::Intel if self.has(Feature::LongMode) => 0x8000_0008,
            Vendor::Intel => 0,
        }
    }

    fn add_feature_bits(&self, leaf: u32, subleaf: u32, answer: &mut CpuidRegisters) {
        let subleaf = if matches!(leaf, 7 | 0xd) { subleaf } else { 0 };
        for &feature in Feature::ALL {
            let place = feature.place();
            if place.leaf != leaf || place.subleaf != subleaf || !self.has(feature) {
                continue;
            }
            let register = match place.output {
                Output::Eax => &mut answer.eax,
                Output::Ebx => &mut answer.ebx,
                Output::Ecx => &mut answer.ecx,
                Output::Edx => &mut answer.edx,
            };
            *register |= 1 << place.bit;
        }
        if leaf == 0x8000_0001 && self.vendor() == Vendor::Amd {
            // AMD repeats these bits of leaf 1 EDX.
            let mut basic = CpuidRegisters::default();
            self.add_feature_bits(1, 0, &mut basic);
            answer.edx |= basic.edx & 0x0183_f3ff;
        }
    }

    fn vendor_registers(&self, eax: u32) -> CpuidRegisters {
        match self.vendor() {
            Vendor::Amd => text(eax, *b"Auth", *b"cAMD", *b"enti"),
            Vendor::Intel => text(eax, *b"Genu", *b"ntel", *b"ineI"),
        }
    }

    fn hypervisor(&self, leaf: u32) -> CpuidRegisters {
        match leaf {
            0x4000_0000 => text(HYPERVISOR_LAST, *b"Umbr", *b"aUmb", *b"raUm"),
            HYPERVISOR_LAST => CpuidRegisters { eax: self.tsc_khz, ebx: 1_000_000, ..CpuidRegisters::default() },
            _ => CpuidRegisters::default(),
        }
    }

    /// The parts of a leaf that are not feature bits.
    fn fixed(&self, leaf: u32, inputs: CpuidInputs) -> CpuidRegisters {
        let cores = self.processors;
        let zero = CpuidRegisters::default();
        match leaf {
            0 => self.vendor_registers(self.last_basic()),
            1 => CpuidRegisters {
                eax: self.signature(),
                ebx: (inputs.apic_id & 0xff) << 24
                    | cores.min(255) << 16
                    | if self.has(Feature::Clflush) { (LINE / 8) << 8 } else { 0 },
                edx: if cores > 1 { HTT } else { 0 },
                ..zero
            },
            // One descriptor byte each: TLBs and the caches of a Pentium II.
            2 if self.vendor() == Vendor::Intel => CpuidRegisters { eax: 0x0302_0101, edx: 0x0c04_0843, ..zero },
            4 if self.vendor() == Vendor::Intel => self.cache(inputs.subleaf),
            7 => zero,
            0xb => self.topology(inputs),
            0xd => self.xsave(inputs),
            0x8000_0000 => match self.vendor() {
                Vendor::Amd => self.vendor_registers(self.last_extended()),
                Vendor::Intel => CpuidRegisters { eax: self.last_extended(), ..zero },
            },
            0x8000_0001 if self.vendor() == Vendor::Amd => {
                let legacy = if cores > 1 { 1 << 1 } else { 0 };
                CpuidRegisters { eax: self.signature(), ecx: legacy, ..zero }
            }
            0x8000_0002..=0x8000_0004 => self.brand((leaf - 0x8000_0002) as usize),
            0x8000_0005 if self.vendor() == Vendor::Amd => {
                // TLBs: 64 entries, fully associative; L1: 32 KiB, 8 ways, 64-byte lines.
                CpuidRegisters { eax: 0xff40_ff40, ebx: 0xff40_ff40, ecx: 0x2008_0140, edx: 0x2008_0140 }
            }
            // L2: 512 KiB, 8 ways (code 6), L3: 16 MiB in units of 512 KiB, 16 ways (code 8).
            0x8000_0006 => {
                CpuidRegisters { eax: 0x4200_4200, ebx: 0x4200_4200, ecx: 512 << 16 | 0x6140, edx: 32 << 18 | 0x8140 }
            }
            0x8000_0008 => CpuidRegisters {
                eax: self.physical_bits() | 48 << 8,
                ecx: (cores - 1).min(255) | if cores > 1 { self.core_bits() << 12 } else { 0 },
                ..zero
            },
            0x8000_001d if self.vendor() == Vendor::Amd => self.cache(inputs.subleaf),
            0x8000_001e => CpuidRegisters { eax: inputs.apic_id, ebx: inputs.apic_id & 0xff, ..zero },
            _ => zero,
        }
    }

    /// Bits of the APIC id that number the cores of the package.
    fn core_bits(&self) -> u32 {
        self.processors.next_power_of_two().trailing_zeros()
    }

    fn cache(&self, subleaf: u32) -> CpuidRegisters {
        let Some(cache) = CACHES.get(subleaf as usize) else {
            return CpuidRegisters::default();
        };
        let sharing = if cache.level == 3 { self.processors - 1 } else { 0 };
        let cores = if self.vendor() == Vendor::Intel { (self.processors - 1).min(63) << 26 } else { 0 };
        CpuidRegisters {
            // Bit 8: self-initialising.
            eax: cache.kind | cache.level << 5 | 1 << 8 | sharing.min(0xfff) << 14 | cores,
            ebx: (LINE - 1) | (cache.ways - 1) << 22,
            ecx: cache.bytes / (LINE * cache.ways) - 1,
            edx: 0,
        }
    }

    /// Leaf Bh: one thread per core, all cores in one package.
    fn topology(&self, inputs: CpuidInputs) -> CpuidRegisters {
        let (shift, count, kind) = match inputs.subleaf {
            0 => (0, 1, 1),
            1 => (self.core_bits(), self.processors, 2),
            _ => (0, 0, 0),
        };
        CpuidRegisters { eax: shift, ebx: count & 0xffff, ecx: kind << 8 | inputs.subleaf & 0xff, edx: inputs.apic_id }
    }

    fn xsave(&self, inputs: CpuidInputs) -> CpuidRegisters {
        match inputs.subleaf {
            0 => CpuidRegisters {
                eax: self.xcr0_mask() as u32,
                ebx: xsave_size(inputs.xcr0),
                ecx: xsave_size(self.xcr0_mask()),
                edx: 0,
            },
            // The compacted size of what XCR0 enables.
            1 => CpuidRegisters { ebx: xsave_size(inputs.xcr0), ..CpuidRegisters::default() },
            // The AVX component: size and offset.
            2 if self.xcr0_mask() & AVX_STATE != 0 => {
                CpuidRegisters { eax: XSAVE_AVX, ebx: XSAVE_LEGACY, ..CpuidRegisters::default() }
            }
            _ => CpuidRegisters::default(),
        }
    }

    fn brand(&self, part: usize) -> CpuidRegisters {
        let mut bytes = [0u8; 48];
        let brand = self.row.brand.as_bytes();
        let len = brand.len().min(47);
        bytes[..len].copy_from_slice(&brand[..len]);
        let word = |n: usize| {
            let at = part * 16 + n * 4;
            bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        };
        CpuidRegisters { eax: word(0), ebx: word(1), ecx: word(2), edx: word(3) }
    }
}

/// The size of an XSAVE area with these state components; no gaps in either format.
fn xsave_size(components: u64) -> u32 {
    XSAVE_LEGACY + if components & AVX_STATE != 0 { XSAVE_AVX } else { 0 }
}

/// A signature in the order of the registers EBX, ECX, EDX.
fn text(eax: u32, ebx: [u8; 4], ecx: [u8; 4], edx: [u8; 4]) -> CpuidRegisters {
    CpuidRegisters { eax, ebx: u32::from_le_bytes(ebx), ecx: u32::from_le_bytes(ecx), edx: u32::from_le_bytes(edx) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(name: &str, leaf: u32) -> CpuidRegisters {
        let model = CpuModel::by_name(name).expect(name);
        model.cpuid(CpuidInputs { leaf, ..CpuidInputs::default() })
    }

    #[test]
    fn vendor_signature_spells_right() {
        let spell = |r: CpuidRegisters| [r.ebx, r.edx, r.ecx].map(u32::to_le_bytes).concat();
        assert_eq!(spell(leaf("max", 0)), b"AuthenticAMD");
        assert_eq!(spell(leaf("pentium3", 0)), b"GenuineIntel");
        let r = leaf("max", 0x4000_0000);
        assert_eq!([r.ebx, r.ecx, r.edx].map(u32::to_le_bytes).concat(), b"UmbraUmbraUm");
    }

    #[test]
    fn feature_bits_land_in_their_registers() {
        let one = leaf("max", 1);
        assert_ne!(one.ecx & 1 << 20, 0, "SSE4.2");
        assert_ne!(one.ecx & 1 << 28, 0, "AVX");
        assert_eq!(one.ecx & OSXSAVE, 0);
        assert_ne!(leaf("max", 7).ebx & 1 << 7, 0, "SMEP");
        assert_eq!(leaf("x86-64", 7), CpuidRegisters::default());
        assert_ne!(leaf("max", 0x8000_0001).edx & 1 << 29, 0, "long mode");
        assert_eq!(leaf("486", 1).edx, 1);
    }

    #[test]
    fn sizes_and_frequencies() {
        assert_eq!(leaf("max", 0x8000_0008).eax & 0xffff, 0x3028);
        assert_eq!(leaf("max", 0x4000_0010).eax, 1_000_000);
        assert_eq!(leaf("max", 0x8000_0002).eax, u32::from_le_bytes(*b"Umbr"));
    }
}
