//! Which check an instruction (or an event's delivery) failed when it met an exception, as far as a person wants to know: the guest
//! cannot tell, and nothing that is emulated depends on it.

use crate::state::Seg;
use serde::{Deserialize, Serialize};

/// The check that failed. Where an error code names a selector or a vector, the entry of GDT, LDT or IDT is meant.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Check {
    /// The vector says all that there is to say.
    #[default]
    None,
    /// A null selector.
    Null,
    /// The entry lies beyond its table's limit, or there is no such table.
    BeyondTable,
    /// A selector of the LDT where only the GDT will do.
    NotInGdt,
    /// The entry is not of a type that will do.
    Kind,
    /// DPL, RPL and CPL do not fit.
    Privilege,
    /// The entry's P bit is clear.
    Present,
    /// The entry has reserved bits set, or L and D both; or a code segment that is not of 64 bits in long mode.
    Reserved,
    /// The offset lies beyond the limit of the code segment, or is not canonical.
    Target,
    /// An address that is not canonical.
    Canonical,
    /// What is wanted lies beyond the limit of the TSS.
    BeyondTss,
    /// The limit of the TSS is less than its type needs.
    ShortTss,
    /// Bytes beyond the limit of this segment.
    Limit(Seg),
    /// This segment is null, or may not be read or written so.
    Rights(Seg),
    /// An instruction for CPL 0.
    Level0,
    /// An instruction that CR4.UMIP keeps from users.
    Umip,
    /// IOPL does not allow it, nor (for a port) the map in the TSS.
    Iopl,
    /// An address that is not aligned.
    Alignment,
    /// A value that the register does not take.
    Value,
    /// The guest's page tables.
    Walk,
}

impl Check {
    /// In words.
    pub fn text(self) -> String {
        let text = match self {
            Check::None => "the exception says it all",
            Check::Null => "a null selector",
            Check::BeyondTable => "beyond the table's limit",
            Check::NotInGdt => "the GDT is needed, the selector is the LDT's",
            Check::Kind => "wrong type of entry",
            Check::Privilege => "DPL, RPL and CPL do not fit",
            Check::Present => "not present",
            Check::Reserved => "reserved bits, or the wrong L and D",
            Check::Target => "the offset lies outside the code segment",
            Check::Canonical => "not a canonical address",
            Check::BeyondTss => "beyond the limit of the TSS",
            Check::ShortTss => "the TSS is too short",
            Check::Limit(seg) => return format!("beyond the limit of {seg:?}").to_lowercase(),
            Check::Rights(seg) => return format!("null or wrong type: {seg:?}").to_lowercase(),
            Check::Level0 => "for CPL 0 only",
            Check::Umip => "kept from users by CR4.UMIP",
            Check::Iopl => "IOPL (or the I/O map) says no",
            Check::Alignment => "not aligned",
            Check::Value => "not a value that the register takes",
            Check::Walk => "page tables",
        };
        text.to_owned()
    }
}
