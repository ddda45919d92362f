//! Descriptors and descriptor tables (SDM vol. 3, 3.4.5, 3.5, 5.8.3, 6.11, 6.14.1).
//!
//! Pure decoding, look-ups through the monitor tables (`tables`), and the accessed and busy bits. What a failed check means (which exception, which
//! error code) is the caller's: look-ups answer `None` beyond the limit and fault only with #PF.

use crate::check::Check;
use crate::fault::Fault;
use crate::state::Segment;
use crate::state::segment::rights;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::Linear;

/// System descriptor types (the four type bits with S = 0).
#[expect(missing_docs, reason = "the names are the manual's")]
pub mod system {
    pub const TSS16: u16 = 0x1;
    pub const LDT: u16 = 0x2;
    pub const TSS16_BUSY: u16 = 0x3;
    pub const CALL_GATE16: u16 = 0x4;
    pub const TASK_GATE: u16 = 0x5;
    pub const INTERRUPT_GATE16: u16 = 0x6;
    pub const TRAP_GATE16: u16 = 0x7;
    pub const TSS32: u16 = 0x9;
    pub const TSS32_BUSY: u16 = 0xb;
    pub const CALL_GATE32: u16 = 0xc;
    pub const INTERRUPT_GATE32: u16 = 0xe;
    pub const TRAP_GATE32: u16 = 0xf;
}

/// An 8-byte descriptor as it is in memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Descriptor(pub u64);

/// The selector part of an error code: table indicator and index (SDM vol. 3, 6.13).
pub const fn selector_error(selector: u16) -> u32 {
    (selector & 0xfffc) as u32
}

/// Whether a selector is one of the four null selectors.
pub const fn is_null(selector: u16) -> bool {
    selector & 0xfffc == 0
}

/// Requested privilege level.
pub const fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}

impl Descriptor {
    /// Attribute bits in the form of [`Segment::rights`].
    pub const fn rights(self) -> u16 {
        (self.0 >> 40) as u16 & 0xf0ff
    }
    /// The four type bits.
    pub const fn kind(self) -> u16 {
        self.rights() & rights::TYPE
    }
    /// Code or data.
    pub const fn is_segment(self) -> bool {
        self.rights() & rights::S != 0
    }
    /// Code segment.
    pub const fn is_code(self) -> bool {
        self.rights() & (rights::S | rights::CODE) == rights::S | rights::CODE
    }
    /// Data segment.
    pub const fn is_data(self) -> bool {
        self.rights() & (rights::S | rights::CODE) == rights::S
    }
    /// Conforming code segment.
    pub const fn is_conforming(self) -> bool {
        self.is_code() && self.rights() & rights::DOWN_CONFORMING != 0
    }
    /// Data segment that may be written.
    pub const fn is_writable_data(self) -> bool {
        self.is_data() && self.rights() & rights::READ_WRITE != 0
    }
    /// Data segment, or code segment that may be read.
    pub const fn is_readable(self) -> bool {
        self.is_data() || self.is_code() && self.rights() & rights::READ_WRITE != 0
    }
    /// Present.
    pub const fn present(self) -> bool {
        self.rights() & rights::P != 0
    }
    /// Descriptor privilege level.
    pub const fn dpl(self) -> u8 {
        (self.rights() >> 5 & 3) as u8
    }
    /// L: 64-bit code segment.
    pub const fn long(self) -> bool {
        self.rights() & rights::L != 0
    }
    /// D/B.
    pub const fn big(self) -> bool {
        self.rights() & rights::DB != 0
    }
    /// The base address, 32 bits.
    pub const fn base(self) -> u64 {
        self.0 >> 16 & 0xff_ffff | self.0 >> 32 & 0xff00_0000
    }
    /// The limit in bytes, granularity applied.
    pub const fn limit(self) -> u32 {
        let limit = (self.0 & 0xffff | self.0 >> 32 & 0xf_0000) as u32;
        if self.rights() & rights::G != 0 { limit << 12 | 0xfff } else { limit }
    }
    /// The segment register contents that loading this descriptor gives.
    pub const fn segment(self, selector: u16) -> Segment {
        Segment { selector, rights: self.rights(), limit: self.limit(), base: self.base() }
    }
    /// For a gate: the selector in it.
    pub const fn gate_selector(self) -> u16 {
        (self.0 >> 16) as u16
    }
    /// For a gate: the offset in it, 32 bits (bits 31–16 are unused in 16-bit gates).
    pub const fn gate_offset(self) -> u64 {
        self.0 & 0xffff | self.0 >> 32 & 0xffff_0000
    }
    /// For a call gate: the number of parameters.
    pub const fn gate_parameters(self) -> u8 {
        (self.0 >> 32 & 0x1f) as u8
    }
    /// For a 64-bit interrupt or trap gate: the interrupt stack table index.
    pub const fn gate_ist(self) -> u8 {
        (self.0 >> 32 & 7) as u8
    }
    /// For a system descriptor: a 32-bit gate or TSS (clear: 16-bit).
    pub const fn is_32bit_system(self) -> bool {
        self.kind() & 8 != 0
    }
}

impl Vcpu {
    /// The linear address `offset` bytes into a system table: wraps at 4 GiB outside long mode.
    pub fn table_address(&self, base: u64, offset: u64) -> Result<u64, Fault> {
        let linear = base.wrapping_add(offset);
        if !self.state.long_mode() {
            return Ok(linear & 0xffff_ffff);
        }
        if Linear(linear).is_canonical_48() { Ok(linear) } else { Err(Fault::gp(0).because(Check::Canonical)) }
    }

    /// Where the descriptor of `selector` is, if all `len` bytes of it are within its table.
    pub fn descriptor_address(&self, selector: u16, len: u64) -> Result<Option<u64>, Fault> {
        let index = u64::from(selector & 0xfff8);
        let (base, limit) = if selector & 4 == 0 {
            (self.state.gdtr.base, u64::from(self.state.gdtr.limit))
        } else if self.state.ldtr.usable() && !is_null(self.state.ldtr.selector) {
            (self.state.ldtr.base, u64::from(self.state.ldtr.limit))
        } else {
            return Ok(None);
        };
        if index + len - 1 > limit {
            return Ok(None);
        }
        self.table_address(base, index).map(Some)
    }

    /// The descriptor of `selector` (the caller has dealt with null selectors); `None` beyond the table's limit.
    pub fn descriptor(&mut self, selector: u16) -> Result<Option<Descriptor>, Fault> {
        match self.descriptor_address(selector, 8)? {
            Some(linear) => Ok(Some(Descriptor(self.table_quad(linear)?))),
            None => Ok(None),
        }
    }

    /// The second half of a 16-byte system descriptor (long mode): bits 127–64; `None` beyond the limit.
    pub fn descriptor_upper(&mut self, selector: u16) -> Result<Option<u64>, Fault> {
        match self.descriptor_address(selector, 16)? {
            Some(linear) => Ok(Some(self.table_quad(linear.wrapping_add(8))?)),
            None => Ok(None),
        }
    }

    /// Sets the accessed bit of a code or data descriptor in memory if it is clear, and gives the descriptor with it.
    pub fn mark_accessed(&mut self, selector: u16, descriptor: Descriptor) -> Result<Descriptor, Fault> {
        self.mark_type_bit(selector, descriptor, rights::ACCESSED as u8)
    }

    /// Sets the busy bit of an available TSS descriptor.
    pub fn mark_busy(&mut self, selector: u16, descriptor: Descriptor) -> Result<Descriptor, Fault> {
        self.mark_type_bit(selector, descriptor, 2)
    }

    /// Clears the busy bit of a TSS descriptor.
    pub fn clear_busy(&mut self, selector: u16) -> Result<(), Fault> {
        if let Some(linear) = self.descriptor_address(selector, 8)? {
            let at = linear.wrapping_add(5);
            let byte: u8 = self.load_system(at)?;
            self.store_system(at, byte & !2)?;
        }
        Ok(())
    }

    fn mark_type_bit(&mut self, selector: u16, descriptor: Descriptor, bit: u8) -> Result<Descriptor, Fault> {
        if descriptor.0 >> 40 & u64::from(bit) != 0 {
            return Ok(descriptor);
        }
        if let Some(linear) = self.descriptor_address(selector, 8)? {
            self.store_system(linear.wrapping_add(5), (descriptor.0 >> 40) as u8 | bit)?;
        }
        Ok(Descriptor(descriptor.0 | u64::from(bit) << 40))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_bases_limits_and_rights() {
        // (raw, base, limit, rights)
        let rows = [
            (0x00cf_9b00_0000_ffff, 0, 0xffff_ffff, 0xc09b),
            (0x1240_9334_5678_0fff, 0x1234_5678, 0xfff, 0x4093),
            (0x00af_9b00_0000_ffff, 0, 0xffff_ffff, 0xa09b),
            (0x0000_8900_1000_0067, 0x1000, 0x67, 0x0089),
        ];
        for (raw, base, limit, rights) in rows {
            let s = Descriptor(raw).segment(8);
            assert_eq!((s.base, s.limit, s.rights), (base, limit, rights), "{raw:x}");
        }
    }

    #[test]
    fn decodes_gates() {
        let gate = Descriptor(0xdead_ee05_0008_beef);
        assert_eq!((gate.gate_selector(), gate.gate_offset(), gate.kind(), gate.dpl()), (8, 0xdead_beef, 0xe, 3));
        assert_eq!((gate.gate_parameters(), gate.gate_ist(), gate.present()), (5, 5, true));
    }
}
