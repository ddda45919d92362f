//! FXSAVE, FXRSTOR, the XSAVE family, LDMXCSR, STMXCSR (SDM vol. 1, 10.5 and chapter 13; vol. 2).
//!
//! State components: x87 (0) and SSE (1) in the legacy region, AVX (2) behind the header, so that the standard and the
//! compacted format lay them out alike. XSAVES and XRSTORS are left out (no model shows them).

use super::{Args, Flow, Helper, Rm};
use crate::check::Check;
use crate::fault::Fault;
use crate::state::Fpu;
use crate::state::control::{cr0, cr4, efer};
use crate::state::fpu::St;
use crate::state::slots::{RAX, RDX};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;
use umbra_mmu::fault::Access;

/// FXSAVE; `width` B8 is FXSAVE64.
pub static FXSAVE: Helper = Helper { name: "fxsave", run: fxsave };
/// FXRSTOR; `width` B8 is FXRSTOR64.
pub static FXRSTOR: Helper = Helper { name: "fxrstor", run: fxrstor };
/// XSAVE.
pub static XSAVE: Helper = Helper { name: "xsave", run: |cpu, args| save(cpu, args, Kind::Plain) };
/// XSAVEOPT.
pub static XSAVEOPT: Helper = Helper { name: "xsaveopt", run: |cpu, args| save(cpu, args, Kind::Optimised) };
/// XSAVEC.
pub static XSAVEC: Helper = Helper { name: "xsavec", run: |cpu, args| save(cpu, args, Kind::Compacted) };
/// XRSTOR.
pub static XRSTOR: Helper = Helper { name: "xrstor", run: restore };
/// LDMXCSR.
pub static LDMXCSR: Helper = Helper { name: "ldmxcsr", run: ldmxcsr };
/// STMXCSR.
pub static STMXCSR: Helper = Helper { name: "stmxcsr", run: stmxcsr };

/// The bits of MXCSR that exist: MXCSR_MASK in the save area.
pub const MXCSR_MASK: u32 = 0xffff;
/// MXCSR after reset.
const MXCSR_INIT: u32 = 0x1f80;
/// State component bits.
const X87: u64 = 1;
const SSE: u64 = 2;
const AVX: u64 = 4;
/// XCOMP_BV bit 63: the compacted format.
const COMPACTED: u64 = 1 << 63;
/// Bytes of the legacy region, of it with the header, and of both with the AVX component.
const LEGACY: usize = 512;
const WHOLE: usize = 576;
const WITH_AVX: usize = WHOLE + 256;

/// A save area in the making, or as it was loaded.
struct Area([u8; WITH_AVX]);

impl Area {
    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[at..at + N]);
        bytes
    }
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.get(at))
    }
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.get(at))
    }
    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.get(at))
    }
}

/// The variants of XSAVE.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Kind {
    Plain,
    Optimised,
    Compacted,
}

/// The linear address of the operand, checked for `len` bytes and for alignment (#GP(0)).
fn area_address(cpu: &Vcpu, args: Args, len: u64, align: u64, access: Access) -> Result<Linear, Fault> {
    let Rm::Memory(seg, offset) = args.rm(cpu) else {
        return Err(Fault::ud());
    };
    let linear = cpu.linear(seg, offset, len, access)?;
    if linear.0 & (align - 1) != 0 { Err(Fault::gp(0).because(Check::Alignment)) } else { Ok(linear) }
}

fn load_area(cpu: &mut Vcpu, linear: Linear, len: usize) -> Result<Area, Fault> {
    let mut area = Area([0; WITH_AVX]);
    let view = cpu.view();
    cpu.load_bytes(linear, &mut area.0[..len], view)?;
    Ok(area)
}

fn require_available(cpu: &Vcpu, bits: u64) -> Result<(), Fault> {
    if cpu.state.control.cr0 & bits != 0 { Err(Fault::nm()) } else { Ok(()) }
}

/// XMM registers that the present mode can name.
fn xmm_count(cpu: &Vcpu) -> usize {
    if cpu.state.code64() { 16 } else { 8 }
}

fn put_x87(fpu: &Fpu, width: Width, area: &mut Area) {
    area.put(0, &fpu.cw.to_le_bytes());
    area.put(2, &fpu.sw.to_le_bytes());
    area.put(4, &[fpu.tags, 0]);
    area.put(6, &(fpu.fop & 0x7ff).to_le_bytes());
    if width == Width::B8 {
        area.put(8, &fpu.fip.to_le_bytes());
        area.put(16, &fpu.fdp.to_le_bytes());
    } else {
        area.put(8, &(fpu.fip as u32).to_le_bytes());
        area.put(12, &[fpu.fcs.to_le_bytes(), [0; 2]].concat());
        area.put(16, &(fpu.fdp as u32).to_le_bytes());
        area.put(20, &[fpu.fds.to_le_bytes(), [0; 2]].concat());
    }
    let top = usize::from(fpu.sw >> 11 & 7);
    for n in 0..8 {
        let st = fpu.regs[(top + n) & 7];
        let at = 32 + 16 * n;
        area.put(at, &st.significand.to_le_bytes());
        area.put(at + 8, &st.sign_exponent.to_le_bytes());
        area.put(at + 10, &[0; 6]);
    }
}

fn get_x87(area: &Area, width: Width) -> Fpu {
    let mut fpu = Fpu {
        cw: area.u16(0) & 0x1f7f | 0x40,
        sw: area.u16(2),
        tags: area.0[4],
        fop: area.u16(6) & 0x7ff,
        ..Fpu::default()
    };
    if width == Width::B8 {
        (fpu.fip, fpu.fdp) = (area.u64(8), area.u64(16));
    } else {
        (fpu.fip, fpu.fdp) = (u64::from(area.u32(8)), u64::from(area.u32(16)));
        (fpu.fcs, fpu.fds) = (area.u16(12), area.u16(20));
    }
    let top = usize::from(fpu.sw >> 11 & 7);
    for n in 0..8 {
        let at = 32 + 16 * n;
        fpu.regs[(top + n) & 7] = St { significand: area.u64(at), sign_exponent: area.u16(at + 8) };
    }
    fpu
}

/// The x87 unit as FNINIT leaves it, registers cleared: its initial configuration for XSAVE.
fn initial_x87() -> Fpu {
    Fpu { cw: 0x37f, tags: 0, ..Fpu::default() }
}

fn put_mxcsr(cpu: &Vcpu, area: &mut Area) {
    area.put(24, &cpu.state.vectors.mxcsr.to_le_bytes());
    area.put(28, &MXCSR_MASK.to_le_bytes());
}

fn put_xmm(cpu: &Vcpu, area: &mut Area) {
    for n in 0..xmm_count(cpu) {
        let [low, high, ..] = cpu.state.vectors.regs[n];
        area.put(160 + 16 * n, &low.to_le_bytes());
        area.put(168 + 16 * n, &high.to_le_bytes());
    }
}

fn get_xmm(cpu: &mut Vcpu, area: &Area) {
    for n in 0..xmm_count(cpu) {
        let (low, high) = (area.u64(160 + 16 * n), area.u64(168 + 16 * n));
        let register = &mut cpu.state.vectors.regs[n];
        (register[0], register[1]) = (low, high);
    }
}

fn put_upper(cpu: &Vcpu, area: &mut Area) {
    for n in 0..xmm_count(cpu) {
        let [.., low, high] = cpu.state.vectors.regs[n];
        area.put(WHOLE + 16 * n, &low.to_le_bytes());
        area.put(WHOLE + 8 + 16 * n, &high.to_le_bytes());
    }
}

fn get_upper(cpu: &mut Vcpu, area: &Area) {
    for n in 0..xmm_count(cpu) {
        let (low, high) = (area.u64(WHOLE + 16 * n), area.u64(WHOLE + 8 + 16 * n));
        let register = &mut cpu.state.vectors.regs[n];
        (register[2], register[3]) = (low, high);
    }
}

/// AMD's fast FXSAVE: EFER.FFXSR at CPL 0 in 64-bit mode leaves the XMM registers out. So does CR4.OSFXSR = 0.
fn fx_has_xmm(cpu: &Vcpu) -> bool {
    let fast = cpu.state.control.efer & efer::FFXSR != 0 && cpu.state.cpl == 0 && cpu.state.code64();
    cpu.state.control.cr4 & cr4::OSFXSR != 0 && !fast
}

fn fxsave(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    require_available(cpu, cr0::EM | cr0::TS)?;
    let linear = area_address(cpu, args, LEGACY as u64, 16, Access::Write)?;
    // What is not written keeps what memory holds.
    cpu.reserve_linear(linear, LEGACY as u64, cpu.view())?;
    let mut area = Area([0; WITH_AVX]);
    put_x87(&cpu.state.fpu, args.width, &mut area);
    put_mxcsr(cpu, &mut area);
    let mut len = 160;
    if fx_has_xmm(cpu) {
        put_xmm(cpu, &mut area);
        len += 16 * xmm_count(cpu);
    }
    let view = cpu.view();
    cpu.store_bytes(linear, &area.0[..len], view)?;
    Ok(Flow::Next)
}

fn fxrstor(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    require_available(cpu, cr0::EM | cr0::TS)?;
    let linear = area_address(cpu, args, LEGACY as u64, 16, Access::Read)?;
    let area = load_area(cpu, linear, LEGACY)?;
    let mxcsr = area.u32(24);
    let sse = cpu.state.control.cr4 & cr4::OSFXSR != 0;
    if sse && mxcsr & !MXCSR_MASK != 0 {
        return Err(Fault::gp(0).because(Check::Value));
    }
    cpu.state.fpu = get_x87(&area, args.width);
    if sse {
        cpu.state.vectors.mxcsr = mxcsr;
    }
    if fx_has_xmm(cpu) {
        get_xmm(cpu, &area);
    }
    Ok(Flow::Next)
}

/// The state components that are not in their initial configuration (XINUSE).
pub fn in_use(cpu: &Vcpu) -> u64 {
    let x87 = cpu.state.fpu != initial_x87();
    let sse = cpu.state.vectors.regs[..16].iter().any(|r| r[0] | r[1] != 0);
    let avx = cpu.state.vectors.regs[..16].iter().any(|r| r[2] | r[3] != 0);
    (if x87 { X87 } else { 0 }) | (if sse { SSE } else { 0 }) | (if avx { AVX } else { 0 })
}

/// The checks of the whole family; gives the requested-feature bitmap.
fn requested(cpu: &Vcpu) -> Result<u64, Fault> {
    if cpu.state.control.cr4 & cr4::OSXSAVE == 0 {
        return Err(Fault::ud());
    }
    require_available(cpu, cr0::TS)?;
    let mask = cpu.state.gpr(RDX) << 32 | cpu.state.gpr(RAX) & 0xffff_ffff;
    Ok(mask & cpu.state.control.xcr0)
}

fn save(cpu: &mut Vcpu, args: Args, kind: Kind) -> Result<Flow, Fault> {
    let wanted = requested(cpu)?;
    let len = if wanted & AVX != 0 { WITH_AVX } else { WHOLE };
    let linear = area_address(cpu, args, len as u64, 64, Access::Write)?;
    let mut used = in_use(cpu) & wanted;
    if kind == Kind::Compacted && cpu.state.vectors.mxcsr != MXCSR_INIT {
        used |= SSE & wanted;
    }
    let written = if kind == Kind::Plain { wanted } else { used };
    let view = cpu.view();
    cpu.reserve_linear(linear, len as u64, view)?;
    // What is not written keeps what memory holds.
    let mut area = load_area(cpu, linear, len)?;
    let older = area.u64(512);
    if written & X87 != 0 {
        put_x87(&cpu.state.fpu, args.width, &mut area);
    }
    let mxcsr = match kind {
        Kind::Compacted => written & SSE != 0,
        Kind::Plain | Kind::Optimised => wanted & (SSE | AVX) != 0,
    };
    if mxcsr {
        put_mxcsr(cpu, &mut area);
    }
    if written & SSE != 0 {
        put_xmm(cpu, &mut area);
    }
    if written & AVX != 0 {
        put_upper(cpu, &mut area);
    }
    if kind == Kind::Compacted {
        area.put(512, &used.to_le_bytes());
        area.put(520, &(wanted | COMPACTED).to_le_bytes());
    } else {
        area.put(512, &(older & !wanted | used).to_le_bytes());
    }
    cpu.store_bytes(linear, &area.0[..len], view)?;
    Ok(Flow::Next)
}

fn restore(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let wanted = requested(cpu)?;
    let linear = area_address(cpu, args, WHOLE as u64, 64, Access::Read)?;
    let mut area = load_area(cpu, linear, WHOLE)?;
    let (present, layout) = (area.u64(512), area.u64(520));
    let compacted = layout & COMPACTED != 0;
    let xcr0 = cpu.state.control.xcr0;
    let reserved = if compacted { 528..576 } else { 520..536 };
    let bad = if compacted { layout & !COMPACTED & !xcr0 != 0 || present & !layout != 0 } else { present & !xcr0 != 0 };
    if bad || area.0[reserved].iter().any(|&byte| byte != 0) {
        return Err(Fault::gp(0).because(Check::Value));
    }
    let mxcsr = area.u32(24);
    let loads_mxcsr = if compacted { wanted & present & SSE != 0 } else { wanted & (SSE | AVX) != 0 };
    if loads_mxcsr && mxcsr & !MXCSR_MASK != 0 {
        return Err(Fault::gp(0).because(Check::Value));
    }
    if wanted & present & AVX != 0 {
        let linear = area_address(cpu, args, WITH_AVX as u64, 64, Access::Read)?;
        area = load_area(cpu, linear, WITH_AVX)?;
    }
    if wanted & X87 != 0 {
        cpu.state.fpu = if present & X87 != 0 { get_x87(&area, args.width) } else { initial_x87() };
    }
    if wanted & SSE != 0 {
        if present & SSE != 0 {
            get_xmm(cpu, &area);
        } else {
            get_xmm(cpu, &Area([0; WITH_AVX]));
        }
    }
    if wanted & AVX != 0 {
        // The upper halves are zero in the area unless they were loaded.
        get_upper(cpu, &area);
    }
    if loads_mxcsr {
        cpu.state.vectors.mxcsr = mxcsr;
    } else if compacted && wanted & SSE != 0 {
        cpu.state.vectors.mxcsr = MXCSR_INIT;
    }
    Ok(Flow::Next)
}

fn ldmxcsr(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let Rm::Memory(seg, at) = args.rm(cpu) else {
        return Err(Fault::ud());
    };
    let value: u32 = cpu.load(seg, at)?;
    if value & !MXCSR_MASK != 0 {
        return Err(Fault::gp(0).because(Check::Value));
    }
    cpu.state.vectors.mxcsr = value;
    Ok(Flow::Next)
}

fn stmxcsr(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let Rm::Memory(seg, at) = args.rm(cpu) else {
        return Err(Fault::ud());
    };
    cpu.store(seg, at, cpu.state.vectors.mxcsr)?;
    Ok(Flow::Next)
}
