//! x87 and vector registers as data (SDM vol. 1, 8.1 and 10.2). What they mean is in `helpers` and `vector`.

use serde::{Deserialize, Serialize};

/// One 80-bit register as stored: sign and exponent, significand with explicit integer bit.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct St {
    /// The 64-bit significand.
    pub significand: u64,
    /// Bit 15: sign; bits 14–0: biased exponent.
    pub sign_exponent: u16,
}

/// The x87 unit. Physical registers R0–R7; ST(i) is R((TOP + i) mod 8). MMX register n is the significand of Rn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fpu {
    /// Physical registers R0–R7.
    pub regs: [St; 8],
    /// Control word.
    pub cw: u16,
    /// Status word, TOP included (bits 13–11).
    pub sw: u16,
    /// Abridged tag word: bit n set when Rn is not empty.
    pub tags: u8,
    /// Last opcode (11 bits).
    pub fop: u16,
    /// Instruction pointer of the last non-control instruction.
    pub fip: u64,
    /// Its code segment selector.
    pub fcs: u16,
    /// Its operand's offset.
    pub fdp: u64,
    /// Its operand's segment selector.
    pub fds: u16,
}

impl Default for Fpu {
    fn default() -> Fpu {
        // After RESET# (not FNINIT): CW 0040h, tags 5555h i.e. all valid zero.
        Fpu { regs: [St::default(); 8], cw: 0x40, sw: 0, tags: 0xff, fop: 0, fip: 0, fcs: 0, fdp: 0, fds: 0 }
    }
}

/// YMM0–15 as four quadwords each (XMM in the low two), and MXCSR. Number 16 and up are the executors' temporaries, which
/// equality, serialisation and hashes do not see.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Saved", into = "Saved")]
pub struct Vectors {
    /// Registers in memory order.
    pub regs: [[u64; 4]; 20],
    /// SSE control and status.
    pub mxcsr: u32,
}

/// What is saved of [`Vectors`].
#[derive(Serialize, Deserialize)]
struct Saved {
    regs: [[u64; 4]; 16],
    mxcsr: u32,
}

impl From<Vectors> for Saved {
    fn from(vectors: Vectors) -> Saved {
        Saved { regs: std::array::from_fn(|n| vectors.regs[n]), mxcsr: vectors.mxcsr }
    }
}

impl From<Saved> for Vectors {
    fn from(saved: Saved) -> Vectors {
        let mut vectors = Vectors { mxcsr: saved.mxcsr, ..Vectors::default() };
        vectors.regs[..16].copy_from_slice(&saved.regs);
        vectors
    }
}

/// The first temporary vector register: memory operands are loaded there.
pub const V0: u8 = 16;

impl Default for Vectors {
    fn default() -> Vectors {
        Vectors { regs: [[0; 4]; 20], mxcsr: 0x1f80 }
    }
}

impl PartialEq for Vectors {
    fn eq(&self, other: &Vectors) -> bool {
        self.regs[..16] == other.regs[..16] && self.mxcsr == other.mxcsr
    }
}
