//! Loads of DS, ES, FS, GS and SS, and of the table registers (SDM vol. 2 MOV, POP, LDS…LGS, LLDT, LTR, LGDT, LIDT,
//! SLDT, STR, SGDT, SIDT; vol. 3, 3.4, 2.4).
//!
//! MOV from a segment register, and PUSH on a flat stack, are uops. CS is loaded by far transfers only. The checks that read a
//! descriptor without loading it are in `access_rights`.

use super::descriptor::{is_null, rpl, selector_error, system};
use super::{Args, Flow, Helper, Rm};
use crate::check::Check;
use crate::fault::Fault;
use crate::state::control::cr4;
use crate::state::slots::RSP;
use crate::state::{InterruptShadow, Seg, Segment, TableRegister};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;

use super::stack_frame::Stack;

/// MOV Sreg, r/m16: `a` is the segment's encoding, `b` the operand.
pub static MOV_TO_SEGMENT: Helper = Helper { name: "mov_to_segment", run: mov_to_segment };
/// PUSH Sreg: `c` is the segment's encoding, `width` the operand size.
pub static PUSH_SEGMENT: Helper = Helper { name: "push_segment", run: push_segment };
/// POP Sreg: `a` is the segment's encoding, `width` the operand size.
pub static POP_SEGMENT: Helper = Helper { name: "pop_segment", run: pop_segment };
/// LDS, LES, LFS, LGS, LSS: `a` the register, `c` the segment's encoding, the pointer in memory.
pub static LOAD_FAR_POINTER: Helper = Helper { name: "load_far_pointer", run: load_far_pointer };
/// LLDT.
pub static LLDT: Helper = Helper { name: "lldt", run: lldt };
/// LTR.
pub static LTR: Helper = Helper { name: "ltr", run: ltr };
/// SLDT: `b` the destination.
pub static SLDT: Helper = Helper { name: "sldt", run: sldt };
/// STR: `b` the destination.
pub static STR: Helper = Helper { name: "str", run: str };
/// LGDT.
pub static LGDT: Helper = Helper { name: "lgdt", run: lgdt };
/// LIDT.
pub static LIDT: Helper = Helper { name: "lidt", run: lidt };
/// SGDT.
pub static SGDT: Helper = Helper { name: "sgdt", run: sgdt };
/// SIDT.
pub static SIDT: Helper = Helper { name: "sidt", run: sidt };

impl Vcpu {
    /// What loading `selector` into a data or stack segment register gives in the present mode. Changes nothing but
    /// the descriptor's accessed bit, and notes what emitted code may do again.
    fn new_segment(&mut self, seg: Seg, selector: u16) -> Result<Segment, Fault> {
        let cpl = self.state.cpl;
        if is_null(selector) {
            let allowed = seg != Seg::Ss || self.state.code64() && cpl != 3 && rpl(selector) == cpl;
            let null = Segment { selector, ..Segment::default() };
            return if allowed { Ok(null) } else { Err(Fault::gp(0).because(Check::Null)) };
        }
        let error = selector_error(selector);
        let descriptor = self.descriptor(selector)?.ok_or(Fault::gp(error).because(Check::BeyondTable))?;
        if seg == Seg::Ss {
            if rpl(selector) != cpl || !descriptor.is_writable_data() || descriptor.dpl() != cpl {
                return Err(Fault::gp(error).because(kind_or_privilege(descriptor.is_writable_data())));
            }
            if !descriptor.present() {
                return Err(Fault::ss(error).because(Check::Present));
            }
        } else {
            let dpl = descriptor.dpl();
            let reachable = descriptor.is_conforming() || rpl(selector) <= dpl && cpl <= dpl;
            if !descriptor.is_readable() || !reachable {
                return Err(Fault::gp(error).because(kind_or_privilege(descriptor.is_readable())));
            }
            if !descriptor.present() {
                return Err(Fault::np(error).because(Check::Present));
            }
        }
        let descriptor = self.mark_accessed(selector, descriptor)?;
        let segment = descriptor.segment(selector);
        if seg != Seg::Ss && cpl == 0 && selector & 4 == 0 && self.tables.is_on() {
            self.link.frame.note_load(descriptor.0, segment);
        }
        Ok(segment)
    }

    /// Loads DS, ES, FS, GS or SS by the rules of the present mode. Faults leave the register as it was.
    pub fn load_segment(&mut self, seg: Seg, selector: u16) -> Result<(), Fault> {
        if self.state.paragraph_segments() {
            self.set_real_segment(seg, selector);
        } else {
            self.state.seg[seg as usize] = self.new_segment(seg, selector)?;
        }
        Ok(())
    }

    /// After a segment load: recomputes the mode bits; the block is left if they changed.
    fn after_segment_load(&mut self, seg: Seg) -> Flow {
        let older = self.link.mode;
        self.update_mode();
        if seg == Seg::Ss {
            self.state.shadow = InterruptShadow::MovSs;
            return Flow::Leave;
        }
        if self.link.mode == older { Flow::Next } else { Flow::Leave }
    }

    /// #UD outside protected mode, for the system instructions that exist only there.
    pub fn require_protected(&self) -> Result<(), Fault> {
        if self.state.paragraph_segments() { Err(Fault::ud()) } else { Ok(()) }
    }

    /// #GP(0) where CR4.UMIP keeps an instruction from user code.
    pub fn check_umip(&self) -> Result<(), Fault> {
        if self.state.cpl != 0 && self.state.control.cr4 & cr4::UMIP != 0 {
            Err(Fault::gp(0).because(Check::Umip))
        } else {
            Ok(())
        }
    }

    /// Writes a 16-bit value as SLDT, STR and SMSW do: memory gets 16 bits, a register its operand size.
    pub fn write_word_rm(&mut self, args: Args, value: u64) -> Result<(), Fault> {
        match (args.rm(self), args.width) {
            (rm @ Rm::Memory(..), _) => self.write_rm(rm, value as u16),
            (rm, Width::B2) => self.write_rm(rm, value as u16),
            (rm, Width::B8) => self.write_rm(rm, value),
            (rm, _) => self.write_rm(rm, value as u32),
        }
    }
}

/// Which of the two checks of a descriptor failed, if one has.
pub(super) fn kind_or_privilege(kind_fits: bool) -> Check {
    if kind_fits { Check::Privilege } else { Check::Kind }
}

fn segment_argument(encoding: u8) -> Result<Seg, Fault> {
    match Seg::from_encoding(encoding) {
        Some(Seg::Cs) | None => Err(Fault::ud()),
        Some(seg) => Ok(seg),
    }
}

fn mov_to_segment(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let seg = segment_argument(args.a)?;
    let selector: u16 = cpu.read_rm(args.rm(cpu))?;
    cpu.load_segment(seg, selector)?;
    Ok(cpu.after_segment_load(seg))
}

fn push_segment(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let seg = Seg::from_encoding(args.c).ok_or(Fault::ud())?;
    cpu.push_width(args.width, u64::from(cpu.state.segment(seg).selector))?;
    Ok(Flow::Next)
}

fn pop_segment(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let seg = segment_argument(args.a)?;
    let mut stack = Stack::current(cpu, 0);
    // A 32- or 64-bit pop of a segment register reads the selector only.
    let selector = stack.peek(cpu, Width::B2, 0)? as u16;
    stack.release(args.width.bytes());
    let rsp = stack.new_rsp(cpu.state.gpr(RSP));
    cpu.load_segment(seg, selector)?;
    cpu.state.set_gpr(RSP, rsp);
    Ok(cpu.after_segment_load(seg))
}

fn load_far_pointer(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let seg = segment_argument(args.c)?;
    let (offset, selector) = cpu.load_far_pointer(args)?;
    cpu.load_segment(seg, selector)?;
    match args.width {
        Width::B2 => cpu.write_slot(args.a, offset as u16),
        Width::B8 => cpu.write_slot(args.a, offset),
        _ => cpu.write_slot(args.a, offset as u32),
    }
    Ok(cpu.after_segment_load(seg))
}

impl Vcpu {
    /// A far pointer in memory: offset of the operand width, then the selector.
    pub fn load_far_pointer(&mut self, args: Args) -> Result<(u64, u16), Fault> {
        let Rm::Memory(seg, at) = args.rm(self) else {
            return Err(Fault::ud());
        };
        let offset = match args.width {
            Width::B2 => u64::from(self.load::<u16>(seg, at)?),
            Width::B8 => self.load::<u64>(seg, at)?,
            _ => u64::from(self.load::<u32>(seg, at)?),
        };
        let at = self.offset_after(at, args.width.bytes());
        Ok((offset, self.load(seg, at)?))
    }

    /// The offset `bytes` after `at`, within what the present mode's segments can hold.
    pub fn offset_after(&self, at: u64, bytes: u64) -> u64 {
        let next = at.wrapping_add(bytes);
        if self.state.code64() { next } else { next & 0xffff_ffff }
    }
}

fn lldt(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    let selector: u16 = cpu.read_rm(args.rm(cpu))?;
    cpu.state.ldtr = cpu.local_table(selector, Fault::gp)?;
    Ok(Flow::Next)
}

impl Vcpu {
    /// What loading `selector` into LDTR gives; `refuse` makes the fault for a wrong selector (#GP, or #TS).
    pub fn local_table(&mut self, selector: u16, refuse: fn(u32) -> Fault) -> Result<Segment, Fault> {
        if is_null(selector) {
            return Ok(Segment { selector, ..Segment::default() });
        }
        let error = selector_error(selector);
        if selector & 4 != 0 {
            return Err(refuse(error).because(Check::NotInGdt));
        }
        let descriptor = self.descriptor(selector)?.ok_or(refuse(error).because(Check::BeyondTable))?;
        if descriptor.is_segment() || descriptor.kind() != system::LDT {
            return Err(refuse(error).because(Check::Kind));
        }
        if !descriptor.present() {
            let fault = if refuse(0) == Fault::gp(0) { Fault::np(error) } else { refuse(error) };
            return Err(fault.because(Check::Present));
        }
        self.system_segment(selector, descriptor, refuse)
    }

    /// LDTR or TR contents: with a 64-bit base in long mode.
    fn system_segment(
        &mut self,
        selector: u16,
        descriptor: super::descriptor::Descriptor,
        refuse: fn(u32) -> Fault,
    ) -> Result<Segment, Fault> {
        let mut segment = descriptor.segment(selector);
        if self.state.long_mode() {
            let error = selector_error(selector);
            let upper = self.descriptor_upper(selector)?.ok_or(refuse(error).because(Check::BeyondTable))?;
            segment.base |= upper << 32;
            if upper >> 40 & 0x1f != 0 || !Linear(segment.base).is_canonical_48() {
                return Err(refuse(error).because(Check::Reserved));
            }
        }
        Ok(segment)
    }
}

fn ltr(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    let selector: u16 = cpu.read_rm(args.rm(cpu))?;
    if is_null(selector) {
        return Err(Fault::gp(0).because(Check::Null));
    }
    let error = selector_error(selector);
    if selector & 4 != 0 {
        return Err(Fault::gp(error).because(Check::NotInGdt));
    }
    let descriptor = cpu.descriptor(selector)?.ok_or(Fault::gp(error).because(Check::BeyondTable))?;
    let available = match descriptor.kind() {
        system::TSS32 => true,
        system::TSS16 => !cpu.state.long_mode(),
        _ => false,
    };
    if descriptor.is_segment() || !available {
        return Err(Fault::gp(error).because(Check::Kind));
    }
    if !descriptor.present() {
        return Err(Fault::np(error).because(Check::Present));
    }
    let mut segment = cpu.system_segment(selector, descriptor, Fault::gp)?;
    cpu.mark_busy(selector, descriptor)?;
    segment.rights |= 2;
    cpu.state.tr = segment;
    Ok(Flow::Next)
}

fn sldt(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.require_protected()?;
    cpu.check_umip()?;
    cpu.write_word_rm(args, u64::from(cpu.state.ldtr.selector))?;
    Ok(Flow::Next)
}

fn str(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.require_protected()?;
    cpu.check_umip()?;
    cpu.write_word_rm(args, u64::from(cpu.state.tr.selector))?;
    Ok(Flow::Next)
}

/// Loads limit and base; `width` B2 takes 24 bits of base, B8 is 64-bit mode.
fn load_table(cpu: &mut Vcpu, args: Args) -> Result<TableRegister, Fault> {
    let Rm::Memory(seg, at) = args.rm(cpu) else {
        return Err(Fault::ud());
    };
    cpu.require_cpl0()?;
    let limit: u16 = cpu.load(seg, at)?;
    let at = cpu.offset_after(at, 2);
    let base = match args.width {
        Width::B8 => cpu.load::<u64>(seg, at)?,
        Width::B2 => u64::from(cpu.load::<u32>(seg, at)? & 0xff_ffff),
        _ => u64::from(cpu.load::<u32>(seg, at)?),
    };
    if !Linear(base).is_canonical_48() {
        return Err(Fault::gp(0).because(Check::Canonical));
    }
    Ok(TableRegister { base, limit })
}

fn lgdt(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.state.gdtr = load_table(cpu, args)?;
    Ok(Flow::Next)
}

fn lidt(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.state.idtr = load_table(cpu, args)?;
    Ok(Flow::Next)
}

/// Stores limit and base as one operand of 6 or 10 bytes (the 16-bit form stores all 32 bits, as processors since the
/// 386 do).
fn store_table(cpu: &mut Vcpu, args: Args, table: TableRegister) -> Result<Flow, Fault> {
    let Rm::Memory(seg, at) = args.rm(cpu) else {
        return Err(Fault::ud());
    };
    cpu.check_umip()?;
    let next = cpu.offset_after(at, 2);
    let base_len = if args.width == Width::B8 { 8 } else { 4 };
    cpu.reserve(seg, at, 2)?;
    cpu.reserve(seg, next, base_len)?;
    cpu.store(seg, at, table.limit)?;
    match base_len {
        8 => cpu.store(seg, next, table.base)?,
        _ => cpu.store(seg, next, table.base as u32)?,
    }
    Ok(Flow::Next)
}

fn sgdt(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    store_table(cpu, args, cpu.state.gdtr)
}

fn sidt(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    store_table(cpu, args, cpu.state.idtr)
}
