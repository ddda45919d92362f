//! The registers that steer paging, and what they select (SDM vol. 3, 5.1.1–5.1.3).

use crate::addr::GuestPhys;
use crate::pte::{Mode, Rules, rule};
use crate::walk::GuestRoot;

/// The registers that steer paging.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct PagingRegs {
    /// CR0 (PG, WP).
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4 (PSE, PAE, SMEP, SMAP).
    pub cr4: u64,
    /// IA32_EFER (LMA, NXE).
    pub efer: u64,
    /// The PDPTE registers, for PAE paging.
    pub pdptes: [u64; 4],
}

impl PagingRegs {
    /// The paging mode and rules that these registers select (SDM vol. 3, 5.1.1).
    pub fn rules(&self, maxphyaddr: u8) -> Rules {
        let bit = |value: u64, number: u32| value >> number & 1 != 0;
        let mode = match (bit(self.cr0, 31), bit(self.cr4, 5), bit(self.efer, 10)) {
            (false, ..) => Mode::Off,
            (true, _, true) => Mode::FourLevel,
            (true, true, false) => Mode::Pae,
            (true, false, false) => Mode::TwoLevel,
        };
        let mut rules = Rules { mode, bits: 0, maxphyaddr };
        let mut add = |condition: bool, flag: u8| rules.bits |= if condition { flag } else { 0 };
        if mode != Mode::Off {
            add(bit(self.cr0, 16), rule::WP);
            add(bit(self.efer, 11) && mode != Mode::TwoLevel, rule::NXE);
            add(bit(self.cr4, 20), rule::SMEP);
            add(bit(self.cr4, 21), rule::SMAP);
            add(bit(self.cr4, 4) && mode == Mode::TwoLevel, rule::PSE);
        }
        rules
    }
    /// The root that these registers select.
    pub fn root(&self) -> GuestRoot {
        match self.rules(52).mode {
            Mode::Off => GuestRoot::Table(GuestPhys(0)),
            Mode::TwoLevel => GuestRoot::Table(GuestPhys(self.cr3 & 0xffff_f000)),
            Mode::Pae => GuestRoot::Pdptes(self.pdptes),
            Mode::FourLevel => GuestRoot::Table(GuestPhys(self.cr3 & 0x000f_ffff_ffff_f000)),
        }
    }
}
