//! Fast system calls: SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, RDFSBASE and its kin (SDM vol. 2; vol. 3, 6.8.7–6.8.8; AMD
//! APM vol. 2, 6.1; vol. 3).
//!
//! Where AMD and Intel differ the model's vendor decides: SYSENTER and SYSEXIT are #UD in long mode on AMD, SYSCALL and
//! SYSRET are #UD outside 64-bit mode on Intel, SYSRET leaves the hidden part of SS alone on AMD and checks RCX late.

use super::{Args, Flow, Helper};
use crate::fault::Fault;
use crate::model::Vendor;
use crate::state::control::{cr4, efer};
use crate::state::slots::{RCX, RDX, RSP};
use crate::state::{Seg, Segment, flags};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;

/// SYSCALL.
pub static SYSCALL: Helper = Helper { name: "syscall", run: syscall };
/// SYSRET; `width` is the operand size.
pub static SYSRET: Helper = Helper { name: "sysret", run: sysret };
/// SYSENTER.
pub static SYSENTER: Helper = Helper { name: "sysenter", run: sysenter };
/// SYSEXIT; `width` is the operand size.
pub static SYSEXIT: Helper = Helper { name: "sysexit", run: sysexit };
/// SWAPGS.
pub static SWAPGS: Helper = Helper { name: "swapgs", run: swapgs };
/// RDFSBASE, RDGSBASE: `a` the destination, `c` the segment's encoding.
pub static READ_BASE: Helper = Helper { name: "read_segment_base", run: read_base };
/// WRFSBASE, WRGSBASE: `a` the source, `c` the segment's encoding.
pub static WRITE_BASE: Helper = Helper { name: "write_segment_base", run: write_base };

/// Rights of flat segments: present, accessed, G, D/B.
const CODE64: u16 = 0xa09b;
const CODE32: u16 = 0xc09b;
const DATA32: u16 = 0xc093;
/// DPL 3 in the rights.
const DPL3: u16 = 3 << 5;

fn flat(selector: u16, rights: u16) -> Segment {
    Segment { selector, rights, limit: u32::MAX, base: 0 }
}

fn require_syscall(cpu: &Vcpu) -> Result<(), Fault> {
    let intel = cpu.link.model.vendor() == Vendor::Intel;
    if cpu.state.control.efer & efer::SCE == 0 || intel && !cpu.state.code64() {
        return Err(Fault::ud());
    }
    Ok(())
}

fn syscall(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    require_syscall(cpu)?;
    let star = cpu.state.msr.star;
    let cs = (star >> 32) as u16;
    cpu.materialise_flags();
    let rip = cpu.state.rip;
    if cpu.state.long_mode() {
        let rflags = cpu.state.rflags;
        let target = if cpu.state.code64() { cpu.state.msr.lstar } else { cpu.state.msr.cstar };
        cpu.state.set_gpr(RCX, rip);
        cpu.state.set_gpr(11, rflags & !flags::RF);
        cpu.state.rflags = rflags & !(cpu.state.msr.fmask | flags::RF | flags::VM) | flags::FIXED;
        cpu.state.rip = target;
        cpu.state.seg[Seg::Cs as usize] = flat(cs & 0xfffc, CODE64);
    } else {
        cpu.state.set_gpr(RCX, rip & 0xffff_ffff);
        cpu.state.rflags &= !(flags::IF | flags::RF | flags::VM);
        cpu.state.rip = star & 0xffff_ffff;
        cpu.state.seg[Seg::Cs as usize] = flat(cs & 0xfffc, CODE32);
    }
    cpu.state.seg[Seg::Ss as usize] = flat((cs & 0xfffc).wrapping_add(8), DATA32);
    cpu.state.cpl = 0;
    cpu.update_mode();
    // A single-step trap follows only if the mask left TF set.
    cpu.link.suppress_trap = cpu.state.rflags & flags::TF == 0;
    Ok(Flow::Leave)
}

fn sysret(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    require_syscall(cpu)?;
    if !cpu.state.protected() || cpu.state.cpl != 0 {
        return Err(Fault::gp(0));
    }
    let base = (cpu.state.msr.star >> 48) as u16;
    let rcx = cpu.state.gpr(RCX);
    let to64 = args.width == Width::B8 && cpu.state.long_mode();
    if to64 && !Linear(rcx).is_canonical_48() {
        return Err(Fault::gp(0));
    }
    let (cs, rights, rip) = if to64 { (base.wrapping_add(16), CODE64, rcx) } else { (base, CODE32, rcx & 0xffff_ffff) };
    let ss = base.wrapping_add(8) | 3;
    if cpu.state.long_mode() {
        let kept = flags::STATUS
            | flags::TF
            | flags::IF
            | flags::DF
            | flags::IOPL
            | flags::NT
            | flags::AC
            | flags::ID
            | flags::VIF
            | flags::VIP;
        let r11 = cpu.state.gpr(11);
        cpu.set_flags(kept | flags::RF | flags::VM, r11 & kept);
    } else {
        cpu.set_flags(flags::IF, flags::IF);
    }
    cpu.state.rip = rip;
    cpu.state.seg[Seg::Cs as usize] = flat(cs | 3, rights | DPL3);
    // AMD loads the selector only; the hidden part is unchanged but for what CPL 3 means for it.
    let hidden = match cpu.link.model.vendor() {
        Vendor::Intel => flat(ss, DATA32 | DPL3),
        Vendor::Amd => Segment { selector: ss, ..*cpu.state.segment(Seg::Ss) },
    };
    cpu.state.seg[Seg::Ss as usize] = hidden;
    cpu.state.cpl = 3;
    cpu.update_mode();
    Ok(Flow::Leave)
}

fn require_sysenter(cpu: &Vcpu) -> Result<(), Fault> {
    if cpu.state.long_mode() && cpu.link.model.vendor() == Vendor::Amd {
        return Err(Fault::ud());
    }
    if !cpu.state.protected() || cpu.state.msr.sysenter_cs as u16 & 0xfffc == 0 {
        return Err(Fault::gp(0));
    }
    Ok(())
}

fn sysenter(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    require_sysenter(cpu)?;
    let cs = cpu.state.msr.sysenter_cs as u16 & 0xfffc;
    cpu.set_flags(flags::VM | flags::IF | flags::RF, 0);
    let (mask, rights) = if cpu.state.long_mode() { (u64::MAX, CODE64) } else { (0xffff_ffff, CODE32) };
    let (rip, rsp) = (cpu.state.msr.sysenter_eip & mask, cpu.state.msr.sysenter_esp & mask);
    cpu.state.rip = rip;
    cpu.state.set_gpr(RSP, rsp);
    cpu.state.seg[Seg::Cs as usize] = flat(cs, rights);
    cpu.state.seg[Seg::Ss as usize] = flat(cs.wrapping_add(8), DATA32);
    cpu.state.cpl = 0;
    cpu.update_mode();
    Ok(Flow::Leave)
}

fn sysexit(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    require_sysenter(cpu)?;
    if cpu.state.cpl != 0 {
        return Err(Fault::gp(0));
    }
    let base = cpu.state.msr.sysenter_cs as u16 & 0xfffc;
    let (rcx, rdx) = (cpu.state.gpr(RCX), cpu.state.gpr(RDX));
    let to64 = args.width == Width::B8;
    if to64 && (!Linear(rcx).is_canonical_48() || !Linear(rdx).is_canonical_48()) {
        return Err(Fault::gp(0));
    }
    let (mask, step, rights) = if to64 { (u64::MAX, 32, CODE64) } else { (0xffff_ffff, 16, CODE32) };
    cpu.state.rip = rdx & mask;
    cpu.state.set_gpr(RSP, rcx & mask);
    let cs = base.wrapping_add(step);
    cpu.state.seg[Seg::Cs as usize] = flat(cs | 3, rights | DPL3);
    cpu.state.seg[Seg::Ss as usize] = flat(cs.wrapping_add(8) | 3, DATA32 | DPL3);
    cpu.state.cpl = 3;
    cpu.update_mode();
    Ok(Flow::Leave)
}

fn swapgs(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    if !cpu.state.code64() {
        return Err(Fault::ud());
    }
    cpu.require_cpl0()?;
    let gs = &mut cpu.state.seg[Seg::Gs as usize];
    std::mem::swap(&mut gs.base, &mut cpu.state.msr.kernel_gs_base);
    let older = cpu.link.mode;
    cpu.update_mode();
    Ok(if cpu.link.mode == older { Flow::Next } else { Flow::Leave })
}

fn base_segment(cpu: &Vcpu, encoding: u8) -> Result<usize, Fault> {
    match Seg::from_encoding(encoding) {
        Some(seg @ (Seg::Fs | Seg::Gs)) if cpu.state.code64() && cpu.state.control.cr4 & cr4::FSGSBASE != 0 => {
            Ok(seg as usize)
        }
        _ => Err(Fault::ud()),
    }
}

fn read_base(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let seg = base_segment(cpu, args.c)?;
    let base = cpu.state.seg[seg].base;
    match args.width {
        Width::B8 => cpu.write_slot(args.a, base),
        _ => cpu.write_slot(args.a, base as u32),
    }
    Ok(Flow::Next)
}

fn write_base(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let seg = base_segment(cpu, args.c)?;
    let base = cpu.state.slots.get(args.a) & args.width.mask();
    if !Linear(base).is_canonical_48() {
        return Err(Fault::gp(0));
    }
    let older = cpu.link.mode;
    cpu.state.seg[seg].base = base;
    cpu.update_mode();
    Ok(if cpu.link.mode == older { Flow::Next } else { Flow::Leave })
}
