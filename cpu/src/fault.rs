//! Exceptions as values (SDM vol. 3, 6.3): returned as `Err`, delivered in one place (`helpers::interrupt`).

use crate::check::Check;
use serde::{Deserialize, Serialize};
use umbra_mmu::addr::Linear;
use umbra_mmu::fault::PageFault;

/// Exception vectors (SDM vol. 3, table 6-1).
#[expect(missing_docs, reason = "the names are the manual's")]
pub mod vector {
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BP: u8 = 3;
    pub const OF: u8 = 4;
    pub const BR: u8 = 5;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const MF: u8 = 16;
    pub const AC: u8 = 17;
    pub const MC: u8 = 18;
    pub const XM: u8 = 19;
}

/// An exception that an instruction met before it changed anything that the guest can see.
/// Equal faults are equal to the guest, whatever check found them.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// The vector, as in [`vector`].
    pub vector: u8,
    /// Which check failed, for people.
    #[serde(skip)]
    pub check: Check,
    /// The error code, for the vectors that push one.
    pub error_code: Option<u32>,
    /// The linear address that CR2 gets, for #PF. CR2 is written when the fault is delivered.
    pub linear: Linear,
}

impl PartialEq for Fault {
    fn eq(&self, other: &Fault) -> bool {
        (self.vector, self.error_code, self.linear) == (other.vector, other.error_code, other.linear)
    }
}

impl Eq for Fault {}

impl Fault {
    const fn plain(vector: u8) -> Fault {
        Fault { vector, check: Check::None, error_code: None, linear: Linear(0) }
    }
    const fn coded(vector: u8, error_code: u32) -> Fault {
        Fault { vector, check: Check::None, error_code: Some(error_code), linear: Linear(0) }
    }
    /// The same, with the check that found it.
    pub const fn because(self, check: Check) -> Fault {
        Fault { check, ..self }
    }
    /// #DE, divide error.
    pub const fn de() -> Fault {
        Fault::plain(vector::DE)
    }
    /// #DB, debug exception as a fault (instruction breakpoint, general detect). DR6 is set by whoever raises it.
    pub const fn db() -> Fault {
        Fault::plain(vector::DB)
    }
    /// #BR, bound range exceeded.
    pub const fn br() -> Fault {
        Fault::plain(vector::BR)
    }
    /// #UD, invalid opcode.
    pub const fn ud() -> Fault {
        Fault::plain(vector::UD)
    }
    /// #NM, device not available.
    pub const fn nm() -> Fault {
        Fault::plain(vector::NM)
    }
    /// #TS, invalid TSS, with a selector (or vector) error code.
    pub const fn ts(error_code: u32) -> Fault {
        Fault::coded(vector::TS, error_code)
    }
    /// #NP, segment not present, with a selector error code.
    pub const fn np(error_code: u32) -> Fault {
        Fault::coded(vector::NP, error_code)
    }
    /// #SS, stack fault.
    pub const fn ss(error_code: u32) -> Fault {
        Fault::coded(vector::SS, error_code)
    }
    /// #GP, general protection.
    pub const fn gp(error_code: u32) -> Fault {
        Fault::coded(vector::GP, error_code)
    }
    /// #MF, x87 floating-point error.
    pub const fn mf() -> Fault {
        Fault::plain(vector::MF)
    }
    /// #AC, alignment check.
    pub const fn ac() -> Fault {
        Fault::coded(vector::AC, 0).because(Check::Alignment)
    }
    /// #XM, SIMD floating-point exception.
    pub const fn xm() -> Fault {
        Fault::plain(vector::XM)
    }
    /// Not an exception: the access is a device's, and the instruction that makes it must run as a block of its own, so that
    /// its time is exact and the block ends after it. Nothing has happened yet; the dispatcher starts the instruction again.
    pub const fn alone() -> Fault {
        Fault::plain(0xff)
    }
    /// Whether this is [`Fault::alone`].
    pub const fn is_alone(&self) -> bool {
        self.vector == 0xff
    }
    /// Not an exception: the memory behind the access is lost ([`umbra_mmu::GuestMemory::failure`]). Nothing has happened yet; the
    /// vCPU returns, and the machine stops.
    const LOST: u8 = 0xfe;
    /// Whether memory was lost.
    pub const fn is_lost(&self) -> bool {
        self.vector == Self::LOST
    }
    /// #PF, page fault; or that memory is lost.
    pub const fn page(fault: PageFault) -> Fault {
        if fault.is_lost() {
            return Fault::plain(Self::LOST);
        }
        Fault { vector: vector::PF, check: Check::Walk, error_code: Some(fault.error_code), linear: fault.linear }
    }
}

impl From<PageFault> for Fault {
    fn from(fault: PageFault) -> Fault {
        Fault::page(fault)
    }
}
