//! RDMSR and WRMSR (SDM vol. 4; AMD APM vol. 2, appendix A): which MSRs there are, what may be written to them.
//!
//! The local APIC's own are behind the bus. An unknown MSR is #GP(0), counted and named in `link.counters`.

use super::{Args, Flow, Helper};
use crate::check::Check;
use crate::fault::Fault;
use crate::model::{Feature, Vendor};
use crate::state::Seg;
use crate::state::control::{cr0, efer};
use crate::state::slots::{RAX, RCX, RDX};
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;

/// RDMSR.
pub static RDMSR: Helper = Helper { name: "rdmsr", run: rdmsr };
/// WRMSR.
pub static WRMSR: Helper = Helper { name: "wrmsr", run: wrmsr };

/// MSR numbers that the tests and other helpers name.
#[expect(missing_docs, reason = "the names are the manual's")]
pub mod number {
    pub const TSC: u32 = 0x10;
    pub const APIC_BASE: u32 = 0x1b;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const PATCH_LEVEL: u32 = 0x8b;
    pub const MTRR_CAP: u32 = 0xfe;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MCG_CTL: u32 = 0x17b;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const FMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
}
use number as n;

/// IA32_MTRRCAP: 8 variable ranges, fixed ranges, write-combining.
const MTRR_CAP: u64 = 0x508;
/// IA32_MCG_CAP: the number of machine-check banks.
const MCE_BANKS: u32 = 4;
/// The fixed-range MTRRs in the order of `Msrs::mtrr_fixed`.
const FIXED_MTRRS: [u32; 11] = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
/// The microcode revision that AMD processors show in 8Bh.
const MICROCODE: u64 = 0x0b40_4023;

/// MSRs that remember what is written: number, value at reset, bits that may be set. AMD models only.
#[rustfmt::skip]
const PLAIN_AMD: &[(u32, u64, u64)] = &[
    (0xc001_0010, 0, 0x0070_0000),              // SYSCFG
    (0xc001_0015, 1 << 24, u64::MAX),           // HWCR: TscFreqSel
    (0xc001_0016, 0, u64::MAX),                 // IORRs
    (0xc001_0017, 0, u64::MAX),
    (0xc001_0018, 0, u64::MAX),
    (0xc001_0019, 0, u64::MAX),
    (0xc001_001a, 0, u64::MAX),                 // TOP_MEM
    (0xc001_001d, 0, u64::MAX),                 // TOP_MEM2
    (0xc001_001f, 0, u64::MAX),                 // NB_CFG
    (0xc001_0055, 0, u64::MAX),                 // interrupt pending and CMP-halt
    (0xc001_0114, 0x10, 0),                     // VM_CR: SVM is disabled
    (0xc001_0117, 0, 0),                        // VM_HSAVE_PA
    (0xc001_1020, 0, u64::MAX),                 // LS_CFG
    (0xc001_1021, 0, u64::MAX),                 // IC_CFG
    (0xc001_1022, 0, u64::MAX),                 // DC_CFG
    (0xc001_1023, 0, u64::MAX),                 // BU_CFG
    (0xc001_1029, 2, u64::MAX),                 // DE_CFG: LFENCE serialises
    (0xc001_102a, 0, u64::MAX),                 // BU_CFG2
];

impl Vcpu {
    /// The time-stamp counter as the guest reads it.
    pub fn guest_tsc(&mut self) -> u64 {
        let (tsc, line) = self.ask_board(|bus, now| (bus.tsc(now), bus.tsc_line()));
        self.link.tsc_line = line;
        tsc.wrapping_add(self.state.msr.tsc_offset)
    }

    fn set_guest_tsc(&mut self, value: u64) {
        let delta = value.wrapping_sub(self.guest_tsc());
        self.state.msr.tsc_offset = self.state.msr.tsc_offset.wrapping_add(delta);
        self.state.msr.tsc_adjust = self.state.msr.tsc_adjust.wrapping_add(delta);
    }

    fn has_mtrrs(&self) -> bool {
        self.link.model.has(Feature::Mtrr)
    }
}

fn apic_msr(cpu: &Vcpu, msr: u32) -> bool {
    let has = |feature| cpu.link.model.has(feature);
    match msr {
        n::APIC_BASE => has(Feature::Apic),
        n::TSC_DEADLINE => has(Feature::TscDeadline),
        0x800..=0x8ff => has(Feature::X2apic),
        _ => false,
    }
}

fn plain_amd(cpu: &Vcpu, msr: u32) -> Option<&'static (u32, u64, u64)> {
    let amd = cpu.link.model.vendor() == Vendor::Amd;
    PLAIN_AMD.iter().find(|row| amd && row.0 == msr)
}

/// Machine-check bank registers: CTL, STATUS, ADDR, MISC of each bank.
fn is_bank(cpu: &Vcpu, msr: u32) -> bool {
    cpu.link.model.has(Feature::Mca) && (0x400..0x400 + 4 * MCE_BANKS).contains(&msr)
}

fn plain(cpu: &Vcpu, msr: u32, reset: u64) -> u64 {
    cpu.state.msr.plain.get(&msr).copied().unwrap_or(reset)
}

/// Reads an MSR; `None` when the model has no such MSR.
pub fn read(cpu: &mut Vcpu, msr: u32) -> Option<u64> {
    if apic_msr(cpu, msr) {
        return cpu.ask_board(|bus, now| bus.msr_read(now, msr)).ok();
    }
    let model = cpu.link.model.clone();
    let has = |feature| model.has(feature);
    let amd = model.vendor() == Vendor::Amd;
    let m = &cpu.state.msr;
    let value = match msr {
        n::TSC if has(Feature::Tsc) => cpu.guest_tsc(),
        n::TSC_ADJUST if has(Feature::TscAdjust) => m.tsc_adjust,
        n::PATCH_LEVEL if amd => MICROCODE,
        n::PATCH_LEVEL if has(Feature::Mtrr) => plain(cpu, msr, 0),
        n::MTRR_CAP if cpu.has_mtrrs() => MTRR_CAP,
        n::SYSENTER_CS if has(Feature::Sep) => m.sysenter_cs,
        n::SYSENTER_ESP if has(Feature::Sep) => m.sysenter_esp,
        n::SYSENTER_EIP if has(Feature::Sep) => m.sysenter_eip,
        n::MCG_CAP if has(Feature::Mca) => u64::from(MCE_BANKS),
        n::MCG_STATUS | n::MCG_CTL if has(Feature::Mca) => plain(cpu, msr, 0),
        0..=1 if has(Feature::Mce) => plain(cpu, msr, 0),
        n::MISC_ENABLE if has(Feature::Mtrr) => m.misc_enable,
        0x200..=0x20f if cpu.has_mtrrs() => m.mtrr_variable[(msr & 15) as usize],
        n::PAT if has(Feature::Pat) => m.pat,
        n::MTRR_DEF_TYPE if cpu.has_mtrrs() => m.mtrr_def_type,
        0x250..=0x26f if cpu.has_mtrrs() => m.mtrr_fixed[FIXED_MTRRS.iter().position(|&f| f == msr)?],
        n::EFER if model.efer_mask() != 0 => cpu.state.control.efer,
        n::STAR if has(Feature::Syscall) => m.star,
        n::LSTAR if has(Feature::LongMode) => m.lstar,
        n::CSTAR if has(Feature::LongMode) => m.cstar,
        n::FMASK if has(Feature::LongMode) => m.fmask,
        n::FS_BASE if has(Feature::LongMode) => cpu.state.segment(Seg::Fs).base,
        n::GS_BASE if has(Feature::LongMode) => cpu.state.segment(Seg::Gs).base,
        n::KERNEL_GS_BASE if has(Feature::LongMode) => m.kernel_gs_base,
        n::TSC_AUX if has(Feature::Rdtscp) => m.tsc_aux,
        _ if is_bank(cpu, msr) => plain(cpu, msr, 0),
        _ => {
            let &(_, reset, _) = plain_amd(cpu, msr)?;
            plain(cpu, msr, reset)
        }
    };
    Some(value)
}

/// Why WRMSR is refused; both are #GP(0), but only the first is named in the counters.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The model has no such MSR.
    Unknown,
    /// A reserved bit, a non-canonical address, a read-only MSR.
    Value,
}

fn canonical(value: u64) -> Result<u64, Refused> {
    if Linear(value).is_canonical_48() { Ok(value) } else { Err(Refused::Value) }
}

fn within(value: u64, mask: u64) -> Result<u64, Refused> {
    if value & !mask == 0 { Ok(value) } else { Err(Refused::Value) }
}

/// Whether every byte of an MTRR or PAT value is a memory type; bit n of `types` stands for type n.
fn memory_types(value: u64, types: u32) -> Result<u64, Refused> {
    let valid = value.to_le_bytes().iter().all(|&t| t < 8 && types >> t & 1 != 0);
    if valid { Ok(value) } else { Err(Refused::Value) }
}

/// UC, WC, WT, WP, WB.
const MTRR_TYPES: u32 = 0b0111_0011;
/// Those and UC−.
const PAT_TYPES: u32 = 0b1111_0011;

/// Writes an MSR.
pub fn write(cpu: &mut Vcpu, msr: u32, value: u64) -> Result<(), Refused> {
    if apic_msr(cpu, msr) {
        return cpu.ask_board(|bus, now| bus.msr_write(now, msr, value)).map_err(|_| Refused::Value);
    }
    // What cannot be read does not exist, but for command registers.
    const PATCH_LOADER: u32 = 0xc001_0020;
    if msr == PATCH_LOADER && cpu.link.model.vendor() == Vendor::Amd {
        return Ok(());
    }
    if read(cpu, msr).is_none() {
        return Err(Refused::Unknown);
    }
    let physical = u64::MAX >> (64 - cpu.link.model.physical_bits());
    let m = &mut cpu.state.msr;
    match msr {
        n::TSC => cpu.set_guest_tsc(value),
        n::TSC_ADJUST => {
            m.tsc_offset = m.tsc_offset.wrapping_add(value.wrapping_sub(m.tsc_adjust));
            m.tsc_adjust = value;
        }
        n::PATCH_LEVEL => {
            m.plain.insert(msr, 0);
        }
        n::MTRR_CAP | n::MCG_CAP => return Err(Refused::Value),
        n::SYSENTER_CS => m.sysenter_cs = value & 0xffff_ffff,
        n::SYSENTER_ESP => m.sysenter_esp = canonical(value)?,
        n::SYSENTER_EIP => m.sysenter_eip = canonical(value)?,
        n::MISC_ENABLE => m.misc_enable = value,
        0x200..=0x20f => {
            let mask = if msr & 1 == 0 { physical & !0xf00 } else { physical & !0x7ff };
            let value = within(value, mask)?;
            if msr & 1 == 0 {
                memory_types(value & 0xff, MTRR_TYPES)?;
            }
            m.mtrr_variable[(msr & 15) as usize] = value;
        }
        n::PAT => m.pat = memory_types(value, PAT_TYPES)?,
        n::MTRR_DEF_TYPE => {
            within(value, 0xcff)?;
            memory_types(value & 0xff, MTRR_TYPES)?;
            m.mtrr_def_type = value;
        }
        0x250..=0x26f => {
            let at = FIXED_MTRRS.iter().position(|&f| f == msr).ok_or(Refused::Unknown)?;
            m.mtrr_fixed[at] = memory_types(value, MTRR_TYPES)?;
        }
        n::EFER => set_efer(cpu, value)?,
        n::STAR => m.star = value,
        n::LSTAR => m.lstar = canonical(value)?,
        n::CSTAR => m.cstar = canonical(value)?,
        n::FMASK => m.fmask = within(value, 0xffff_ffff)?,
        n::FS_BASE => cpu.state.seg[Seg::Fs as usize].base = canonical(value)?,
        n::GS_BASE => cpu.state.seg[Seg::Gs as usize].base = canonical(value)?,
        n::KERNEL_GS_BASE => m.kernel_gs_base = canonical(value)?,
        n::TSC_AUX => m.tsc_aux = within(value, 0xffff_ffff)?,
        _ => {
            let mask = plain_amd(cpu, msr).map_or(u64::MAX, |row| row.2);
            let value = within(value, mask)?;
            cpu.state.msr.plain.insert(msr, value);
        }
    }
    Ok(())
}

fn set_efer(cpu: &mut Vcpu, value: u64) -> Result<(), Refused> {
    let older = cpu.state.control.efer;
    within(value, cpu.link.model.efer_mask())?;
    if (value ^ older) & efer::LME != 0 && cpu.state.control.cr0 & cr0::PG != 0 {
        return Err(Refused::Value);
    }
    cpu.state.control.efer = value & !efer::LMA | older & efer::LMA;
    cpu.update_paging();
    Ok(())
}

fn rdmsr(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    cpu.require_cpl0()?;
    let msr = cpu.state.gpr(RCX) as u32;
    if apic_msr(cpu, msr) {
        cpu.runs_alone()?;
    }
    let Some(value) = read(cpu, msr) else {
        cpu.link.counters.note_unknown_msr(msr);
        return Err(Fault::gp(0).because(Check::Value));
    };
    cpu.write_slot(RAX, value as u32);
    cpu.write_slot(RDX, (value >> 32) as u32);
    Ok(Flow::Next)
}

fn wrmsr(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    cpu.require_cpl0()?;
    let msr = cpu.state.gpr(RCX) as u32;
    if apic_msr(cpu, msr) {
        cpu.runs_alone()?;
    }
    let value = cpu.state.gpr(RDX) << 32 | cpu.state.gpr(RAX) & 0xffff_ffff;
    if let Err(refused) = write(cpu, msr, value) {
        if refused == Refused::Unknown {
            cpu.link.counters.note_unknown_msr(msr);
        }
        return Err(Fault::gp(0).because(Check::Value));
    }
    cpu.update_mode();
    Ok(Flow::Leave)
}
