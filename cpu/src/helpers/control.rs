//! Control registers and what keeps translations fresh: MOV CRn, LMSW, SMSW, CLTS, INVLPG, INVPCID, INVD, WBINVD, XGETBV,
//! XSETBV (SDM vol. 2 MOV—Move to/from Control Registers; vol. 3, 2.5, 2.6, 5.10.4, 10.8.5).

use super::descriptor::system;
use super::{Args, Flow, Helper, Rm};
use crate::check::Check;
use crate::exit::Activity;
use crate::fault::Fault;
use crate::model::Feature;
use crate::state::Seg;
use crate::state::control::{cr0, cr4, efer};
use crate::state::slots::{RAX, RCX, RDX};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;

/// MOV CRn, r: `a` the control register, `b` the source slot, `width` B4 or B8.
pub static MOV_TO_CONTROL: Helper = Helper { name: "mov_to_control", run: mov_to_control };
/// MOV r, CRn: `a` the destination slot, `b` the control register.
pub static MOV_FROM_CONTROL: Helper = Helper { name: "mov_from_control", run: mov_from_control };
/// LMSW: `b` the source.
pub static LMSW: Helper = Helper { name: "lmsw", run: lmsw };
/// SMSW: `b` the destination.
pub static SMSW: Helper = Helper { name: "smsw", run: smsw };
/// CLTS.
pub static CLTS: Helper = Helper { name: "clts", run: clts };
/// INVLPG: the address is `seg` and T0.
pub static INVLPG: Helper = Helper { name: "invlpg", run: invlpg };
/// INVPCID: `a` the register with the type, the descriptor in memory.
pub static INVPCID: Helper = Helper { name: "invpcid", run: invpcid };
/// INVD, WBINVD, WBNOINVD: there are no caches to write back.
pub static INVD: Helper = Helper { name: "invd", run: |cpu, _| cpu.require_cpl0().map(|()| Flow::Next) };
/// HLT.
pub static HLT: Helper = Helper { name: "hlt", run: hlt };
/// XGETBV.
pub static XGETBV: Helper = Helper { name: "xgetbv", run: xgetbv };
/// XSETBV.
pub static XSETBV: Helper = Helper { name: "xsetbv", run: xsetbv };

/// The bits of CR0 that exist; ET always reads as one.
const CR0_BITS: u64 =
    cr0::PE | cr0::MP | cr0::EM | cr0::TS | cr0::ET | cr0::NE | cr0::WP | cr0::AM | cr0::NW | cr0::CD | cr0::PG;
/// Bit 63 of a CR3 value: keep the translations of the PCID.
const CR3_NO_FLUSH: u64 = 1 << 63;
/// Bits 1, 2 and 5–8 of a PDPTE.
const PDPTE_RESERVED: u64 = 0x1e6;
/// The PCID field of CR3.
const CR3_PCID: u64 = 0xfff;

impl Vcpu {
    /// Loads the PDPTE registers of PAE paging from the table at `cr3`; #GP(0) if a present one has a reserved bit set.
    pub fn load_pdptes(&mut self, cr3: u64) -> Result<(), Fault> {
        let pdptes = self.link.mmu.load_pdptes(cr3);
        let reserved = PDPTE_RESERVED | u64::MAX << self.link.model.physical_bits();
        if pdptes.iter().any(|pdpte| pdpte & 1 != 0 && pdpte & reserved != 0) {
            return Err(Fault::gp(0).because(Check::Value));
        }
        self.state.control.pdptes = pdptes;
        Ok(())
    }

    /// PAE paging with 4 PDPTE registers would be in force with these control registers.
    fn pae_paging(&self, new_cr0: u64, new_cr4: u64) -> bool {
        new_cr0 & cr0::PG != 0 && new_cr4 & cr4::PAE != 0 && self.state.control.efer & efer::LME == 0
    }

    /// Sets CR0 with every check of MOV CR0.
    pub fn set_cr0(&mut self, value: u64) -> Result<(), Fault> {
        let older = self.state.control.cr0;
        let c = &self.state.control;
        let bad = value >> 32 != 0
            || value & cr0::PG != 0 && value & cr0::PE == 0
            || value & cr0::NW != 0 && value & cr0::CD == 0;
        if bad {
            return Err(Fault::gp(0).because(Check::Value));
        }
        let value = value & CR0_BITS | cr0::ET;
        let changed = value ^ older;
        let mut new_efer = c.efer;
        if changed & cr0::PG != 0 {
            if value & cr0::PG != 0 && c.efer & efer::LME != 0 {
                let tss16 = matches!(self.state.tr.kind(), system::TSS16 | system::TSS16_BUSY);
                if c.cr4 & cr4::PAE == 0 || self.state.segment(Seg::Cs).long() || tss16 {
                    return Err(Fault::gp(0).because(Check::Value));
                }
                new_efer |= efer::LMA;
            }
            if value & cr0::PG == 0 {
                if self.state.code64() || c.cr4 & cr4::PCIDE != 0 {
                    return Err(Fault::gp(0).because(Check::Value));
                }
                new_efer &= !efer::LMA;
            }
        }
        if self.pae_paging(value, c.cr4) && changed & (cr0::PG | cr0::CD | cr0::NW) != 0 {
            self.load_pdptes(self.state.control.cr3)?;
        }
        self.state.control.cr0 = value;
        self.state.control.efer = new_efer;
        self.update_paging();
        Ok(())
    }

    /// Sets CR3 with every check of MOV CR3.
    pub fn set_cr3(&mut self, value: u64) -> Result<(), Fault> {
        let c = &self.state.control;
        let value = if c.cr4 & cr4::PCIDE != 0 { value & !CR3_NO_FLUSH } else { value };
        if self.state.code64() && value >> self.link.model.physical_bits() != 0 {
            return Err(Fault::gp(0).because(Check::Value));
        }
        if self.pae_paging(c.cr0, c.cr4) {
            self.load_pdptes(value)?;
        }
        self.state.control.cr3 = value;
        self.update_paging();
        Ok(())
    }

    /// Sets CR4 with every check of MOV CR4.
    pub fn set_cr4(&mut self, value: u64) -> Result<(), Fault> {
        let c = &self.state.control;
        let changed = value ^ c.cr4;
        let long = c.efer & efer::LMA != 0;
        let starts_pcid = changed & value & cr4::PCIDE != 0;
        let bad = value & !self.link.model.cr4_mask() != 0
            || long && value & cr4::PAE == 0
            || starts_pcid && (!long || c.cr3 & CR3_PCID != 0);
        if bad {
            return Err(Fault::gp(0).because(Check::Value));
        }
        let reloads = cr4::PAE | cr4::PGE | cr4::PSE | cr4::SMEP;
        if self.pae_paging(c.cr0, value) && changed & reloads != 0 {
            self.load_pdptes(self.state.control.cr3)?;
        }
        self.state.control.cr4 = value;
        self.update_paging();
        Ok(())
    }

    /// Takes in everything that the mmu has posted to this vCPU: the whole of an invalidation, since monitor tables
    /// follow the guest's.
    fn drain_translations(&mut self) {
        self.link.mmu.drain();
    }
}

fn mov_to_control(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    if !matches!(args.a, 0 | 2 | 3 | 4 | 8) {
        return Err(Fault::ud());
    }
    cpu.require_cpl0()?;
    let value = cpu.state.slots.get(args.b) & args.width.mask();
    match args.a {
        0 => cpu.set_cr0(value)?,
        2 => cpu.state.control.cr2 = value,
        3 => cpu.set_cr3(value)?,
        4 => cpu.set_cr4(value)?,
        _ => {
            if value > 15 {
                return Err(Fault::gp(0).because(Check::Value));
            }
            cpu.runs_alone()?;
            cpu.ask_board(|bus, now| bus.set_cr8(now, value as u8));
        }
    }
    Ok(Flow::Leave)
}

fn mov_from_control(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    if !matches!(args.b, 0 | 2 | 3 | 4 | 8) {
        return Err(Fault::ud());
    }
    cpu.require_cpl0()?;
    let c = &cpu.state.control;
    let value = match args.b {
        0 => c.cr0,
        2 => c.cr2,
        3 => c.cr3,
        4 => c.cr4,
        _ => {
            cpu.runs_alone()?;
            u64::from(cpu.ask_board(|bus, now| bus.cr8(now)))
        }
    };
    match args.width {
        Width::B8 => cpu.write_slot(args.a, value),
        _ => cpu.write_slot(args.a, value as u32),
    }
    Ok(Flow::Next)
}

fn lmsw(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.require_cpl0()?;
    let word: u16 = cpu.read_rm(args.rm(cpu))?;
    let older = cpu.state.control.cr0;
    // PE can be set, not cleared.
    let mask = cr0::MP | cr0::EM | cr0::TS;
    let value = older & !mask | u64::from(word) & (mask | cr0::PE);
    cpu.set_cr0(value)?;
    Ok(Flow::Leave)
}

fn smsw(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.check_umip()?;
    cpu.write_word_rm(args, cpu.state.control.cr0)?;
    Ok(Flow::Next)
}

fn clts(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    cpu.require_cpl0()?;
    let older = cpu.link.mode;
    cpu.state.control.cr0 &= !cr0::TS;
    cpu.update_mode();
    Ok(if cpu.link.mode == older { Flow::Next } else { Flow::Leave })
}

fn invlpg(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    cpu.require_cpl0()?;
    cpu.drain_translations();
    Ok(Flow::Leave)
}

fn invpcid(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    if cpu.state.v86() {
        return Err(Fault::gp(0).because(Check::Value));
    }
    cpu.require_cpl0()?;
    let Rm::Memory(seg, at) = args.rm(cpu) else {
        return Err(Fault::ud());
    };
    let mask = if cpu.state.code64() { u64::MAX } else { 0xffff_ffff };
    let kind = cpu.state.slots.get(args.a) & mask;
    let descriptor: u128 = cpu.load(seg, at)?;
    let (pcid, linear) = (descriptor as u64, Linear((descriptor >> 64) as u64));
    let pcids = cpu.state.control.cr4 & cr4::PCIDE != 0;
    let bad = match kind {
        0 => pcid >> 12 != 0 || !linear.is_canonical_48() || !pcids && pcid != 0,
        1 => pcid >> 12 != 0 || !pcids && pcid != 0,
        2 | 3 => false,
        _ => true,
    };
    if bad {
        return Err(Fault::gp(0).because(Check::Value));
    }
    cpu.drain_translations();
    Ok(Flow::Leave)
}

fn hlt(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    cpu.require_cpl0()?;
    cpu.state.activity = Activity::Halted;
    Ok(Flow::Leave)
}

fn require_osxsave(cpu: &Vcpu) -> Result<(), Fault> {
    if cpu.state.control.cr4 & cr4::OSXSAVE == 0 { Err(Fault::ud()) } else { Ok(()) }
}

fn xgetbv(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    require_osxsave(cpu)?;
    let value = match cpu.state.gpr(RCX) as u32 {
        0 => cpu.state.control.xcr0,
        1 if cpu.link.model.has(Feature::Xgetbv1) => super::xsave::in_use(cpu) & cpu.state.control.xcr0,
        _ => return Err(Fault::gp(0).because(Check::Value)),
    };
    cpu.write_slot(RAX, value as u32);
    cpu.write_slot(RDX, (value >> 32) as u32);
    Ok(Flow::Next)
}

fn xsetbv(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    require_osxsave(cpu)?;
    cpu.require_cpl0()?;
    let value = cpu.state.gpr(RDX) << 32 | cpu.state.gpr(RAX) & 0xffff_ffff;
    let avx_without_sse = value & 6 == 4;
    let bad =
        cpu.state.gpr(RCX) as u32 != 0 || value & 1 == 0 || value & !cpu.link.model.xcr0_mask() != 0 || avx_without_sse;
    if bad {
        return Err(Fault::gp(0).because(Check::Value));
    }
    cpu.state.control.xcr0 = value;
    cpu.update_mode();
    Ok(Flow::Leave)
}
