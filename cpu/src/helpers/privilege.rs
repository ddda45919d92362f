//! What far transfers, interrupts, IRET and task switches have in common: code segment checks, stacks of inner levels
//! from the TSS, returns to outer levels (SDM vol. 3, 5.8, 6.12.1, 8.2.1).

use super::descriptor::{Descriptor, is_null, rpl, selector_error};
use super::segment_load::kind_or_privilege;
use crate::check::Check;
use crate::fault::{Fault, vector};
use crate::state::segment::rights;
use crate::state::{Seg, Segment};
use crate::uop::Width;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;

/// What a 64-bit TSS offset field is called: RSP0–RSP2 start here.
const TSS64_RSP0: u64 = 4;
/// IST1 in a 64-bit TSS.
const TSS64_IST1: u64 = 0x24;

/// How a failed check of the stack segment is reported.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StackCheck {
    /// A stack that comes from the TSS: #TS.
    FromTss,
    /// A stack that a return pops: #GP.
    Return,
}

impl Vcpu {
    /// The descriptor of a code segment in a far transfer, or #GP(selector) (#GP(EXT) for a null selector).
    /// `ext` is the EXT bit of error codes.
    pub fn code_descriptor(&mut self, selector: u16, ext: u32) -> Result<Descriptor, Fault> {
        if is_null(selector) {
            return Err(Fault::gp(ext).because(Check::Null));
        }
        let error = selector_error(selector) | ext;
        let descriptor = self.descriptor(selector)?.ok_or(Fault::gp(error).because(Check::BeyondTable))?;
        if !descriptor.is_code() || self.state.long_mode() && descriptor.long() && descriptor.big() {
            let check = if descriptor.is_code() { Check::Reserved } else { Check::Kind };
            return Err(Fault::gp(error).because(check));
        }
        Ok(descriptor)
    }

    /// The checks of a jump or call straight to a code segment, of the offset too: gives the descriptor with its
    /// accessed bit set (in memory as well).
    pub fn direct_code(&mut self, selector: u16, offset: u64) -> Result<Descriptor, Fault> {
        let error = selector_error(selector);
        let descriptor = self.code_descriptor(selector, 0)?;
        let allowed = if descriptor.is_conforming() {
            descriptor.dpl() <= self.state.cpl
        } else {
            rpl(selector) <= self.state.cpl && descriptor.dpl() == self.state.cpl
        };
        if !allowed {
            return Err(Fault::gp(error).because(Check::Privilege));
        }
        if !descriptor.present() {
            return Err(Fault::np(error).because(Check::Present));
        }
        self.check_target(descriptor, offset, 0)?;
        self.mark_accessed(selector, descriptor)
    }

    /// #GP(EXT) unless `offset` is a valid RIP in the code segment.
    pub fn check_target(&self, code: Descriptor, offset: u64, ext: u32) -> Result<(), Fault> {
        let valid = if self.state.long_mode() && code.long() {
            Linear(offset).is_canonical_48()
        } else {
            offset <= u64::from(code.limit())
        };
        if valid { Ok(()) } else { Err(Fault::gp(ext).because(Check::Target)) }
    }

    /// Makes `selector:offset` the next instruction, at level `cpl`. The caller has done all checks, and recomputes
    /// the mode.
    pub fn enter_code(&mut self, selector: u16, code: Descriptor, cpl: u8, offset: u64) {
        self.state.seg[Seg::Cs as usize] = code.segment(selector & 0xfffc | u16::from(cpl));
        self.state.cpl = cpl;
        self.state.rip = offset;
    }

    /// Checks a stack segment for level `cpl` and sets its accessed bit.
    pub fn stack_segment(&mut self, selector: u16, cpl: u8, check: StackCheck, ext: u32) -> Result<Segment, Fault> {
        let refuse = |error: u32| match check {
            StackCheck::FromTss => Fault::ts(error),
            StackCheck::Return => Fault::gp(error),
        };
        if is_null(selector) {
            return Err(refuse(ext).because(Check::Null));
        }
        let error = selector_error(selector) | ext;
        let descriptor = self.descriptor(selector)?.ok_or(refuse(error).because(Check::BeyondTable))?;
        if rpl(selector) != cpl || !descriptor.is_writable_data() || descriptor.dpl() != cpl {
            return Err(refuse(error).because(kind_or_privilege(descriptor.is_writable_data())));
        }
        if !descriptor.present() {
            return Err(Fault::ss(error).because(Check::Present));
        }
        Ok(self.mark_accessed(selector, descriptor)?.segment(selector))
    }

    /// The stack of an inner level in a 16- or 32-bit TSS: SS and ESP, read but not checked. #TS(TR) beyond the limit.
    pub fn tss_stack(&mut self, cpl: u8, ext: u32) -> Result<(u16, u64), Fault> {
        let (offset, width) = if self.state.tr.kind() & 8 != 0 {
            (u64::from(cpl) * 8 + 4, Width::B4)
        } else {
            (u64::from(cpl) * 4 + 2, Width::B2)
        };
        let ss_at = offset + width.bytes();
        self.check_tss(ss_at + 1, ext)?;
        let base = self.state.tr.base;
        let sp = match width {
            Width::B2 => u64::from(self.load_system::<u16>(self.table_address(base, offset)?)?),
            _ => u64::from(self.load_system::<u32>(self.table_address(base, offset)?)?),
        };
        Ok((self.load_system(self.table_address(base, ss_at)?)?, sp))
    }

    /// RSP of an inner level in a 64-bit TSS.
    pub fn tss_rsp(&mut self, cpl: u8, ext: u32) -> Result<u64, Fault> {
        self.tss_quad(TSS64_RSP0 + 8 * u64::from(cpl), ext)
    }

    /// Entry `ist` (1–7) of the interrupt stack table.
    pub fn tss_ist(&mut self, ist: u8, ext: u32) -> Result<u64, Fault> {
        self.tss_quad(TSS64_IST1 + 8 * u64::from(ist.saturating_sub(1)), ext)
    }

    fn tss_quad(&mut self, offset: u64, ext: u32) -> Result<u64, Fault> {
        self.check_tss(offset + 7, ext)?;
        let rsp = self.load_system(self.table_address(self.state.tr.base, offset)?)?;
        if Linear(rsp).is_canonical_48() { Ok(rsp) } else { Err(Fault::ss(ext).because(Check::Canonical)) }
    }

    fn check_tss(&self, last: u64, ext: u32) -> Result<(), Fault> {
        if last > u64::from(self.state.tr.limit) {
            return Err(Fault::ts(selector_error(self.state.tr.selector) | ext).because(Check::BeyondTss));
        }
        Ok(())
    }

    /// After a return to an outer level: data segments that the new level may not use become null.
    pub fn drop_inner_segments(&mut self) {
        for seg in [Seg::Es, Seg::Ds, Seg::Fs, Seg::Gs] {
            let s = self.state.segment(seg);
            if s.usable() && !s.conforming() && s.dpl() < self.state.cpl {
                self.clear_segment(seg);
            }
        }
    }

    /// Loads a null selector of value 0.
    pub fn clear_segment(&mut self, seg: Seg) {
        self.state.seg[seg as usize] = Segment::default();
    }

    /// Loads a segment register as virtual-8086 mode does.
    pub fn set_v86_segment(&mut self, seg: Seg, selector: u16) {
        self.state.seg[seg as usize] =
            Segment { selector, rights: 0xf3, limit: 0xffff, base: u64::from(selector) << 4 };
    }

    /// Loads a segment register as real-address mode does: limit, granularity and D/B stay as they were.
    pub fn set_real_segment(&mut self, seg: Seg, selector: u16) {
        if self.state.v86() {
            self.set_v86_segment(seg, selector);
            return;
        }
        let older = *self.state.segment(seg);
        let (kept, limit) = if older.usable() { (older.rights & 0xd000, older.limit) } else { (0, 0xffff) };
        self.state.seg[seg as usize] =
            Segment { selector, rights: kept | rights::P | rights::S | 3, limit, base: u64::from(selector) << 4 };
    }

    /// A null stack selector for level `cpl`, which 64-bit mode allows.
    pub fn set_null_ss(&mut self, selector: u16) {
        self.state.seg[Seg::Ss as usize] = Segment { selector, ..Segment::default() };
    }
}

/// Adds the EXT bit to an error code that carries a selector, when a fault arises while an event is delivered.
pub fn with_ext(mut fault: Fault, ext: u32) -> Fault {
    if matches!(fault.vector, vector::TS | vector::NP | vector::SS | vector::GP) {
        fault.error_code = fault.error_code.map(|code| code | ext);
    }
    fault
}
