//! A vector instruction as an x86-64 host can run it: its encoding, with the registers named apart.
//!
//! Guest vector registers have the same numbers on the host; general registers and memory are put in by the emitter.

/// Where a general register is among the operands.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum General {
    /// There is none.
    None,
    /// ModRM.reg, written.
    RegOut,
    /// ModRM.rm, read.
    RmIn,
    /// ModRM.rm, written.
    RmOut,
}

/// The encoding of a vector instruction (SDM vol. 2, chapter 2).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Native {
    /// Mandatory prefix: 0, 66h, F2h, F3h.
    pub prefix: u8,
    /// Opcode map: 1 (0F), 2 (0F 38), 3 (0F 3A).
    pub map: u8,
    /// Opcode.
    pub opcode: u8,
    /// REX.W or VEX.W.
    pub wide: bool,
    /// VEX: the second source, and whether the length is 256 bits.
    pub vex: Option<(u8, bool)>,
    /// ModRM.reg with its extension.
    pub reg: u8,
    /// ModRM.rm with its extension; `None`: memory.
    pub rm: Option<u8>,
    /// Immediate byte.
    pub imm: Option<u8>,
    /// The general register.
    pub general: General,
    /// It sets the status flags, all of them.
    pub flags: bool,
}
