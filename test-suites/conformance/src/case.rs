//! One conformance case: where the processor starts, what memory holds, and what must be there when it stops.
//!
//! Every vector format is read into this one shape; the runner knows no format. Left out on purpose: bus cycles,
//! prefetch queues and timing, which several formats carry and Umbra does not model.

use std::fmt;

/// A register that a case can set and compare. General registers are numbered as in their encoding (0 = RAX).
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub enum Register {
    Gpr(u8),
    Rip,
    Flags,
    /// A selector: ES, CS, SS, DS, FS, GS.
    Segment(u8),
    /// The base of a segment register.
    SegmentBase(u8),
    Cr0,
    Cr3,
    Dr6,
    Dr7,
    FpuControl,
    FpuStatus,
    /// The abridged tag byte of FXSAVE: bit n is set when physical register n is not empty.
    FpuTags,
    /// ST(n), relative to TOP: ten bytes.
    St(u8),
    /// MMn: eight bytes.
    Mm(u8),
    Mxcsr,
    /// XMMn (16 bytes) or YMMn (32 bytes), by the length of the value.
    Vector(u8),
}

const GPR: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
const SEGMENT: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];

impl Register {
    /// The register with this name in the JSON-lines format.
    pub fn from_name(name: &str) -> Option<Register> {
        if let Some(n) = GPR.iter().position(|g| *g == name) {
            return Some(Register::Gpr(n as u8));
        }
        if let Some(n) = SEGMENT.iter().position(|s| *s == name) {
            return Some(Register::Segment(n as u8));
        }
        let numbered = |prefix: &str, count: u8| {
            let n: u8 = name.strip_prefix(prefix)?.parse().ok()?;
            (n < count && name == format!("{prefix}{n}")).then_some(n)
        };
        Some(match name {
            "rip" => Register::Rip,
            "fl" => Register::Flags,
            "cr0" => Register::Cr0,
            "cr3" => Register::Cr3,
            "dr6" => Register::Dr6,
            "dr7" => Register::Dr7,
            "cw" => Register::FpuControl,
            "sw" => Register::FpuStatus,
            "tag" => Register::FpuTags,
            "mxcsr" => Register::Mxcsr,
            _ => {
                if let Some(n) = numbered("st", 8) {
                    Register::St(n)
                } else if let Some(n) = numbered("mm", 8) {
                    Register::Mm(n)
                } else {
                    Register::Vector(numbered("v", 16)?)
                }
            }
        })
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |names: &[&'static str], n: u8| names.get(usize::from(n)).copied().unwrap_or("?");
        match *self {
            Register::Gpr(n) => f.write_str(named(&GPR, n)),
            Register::Segment(n) => f.write_str(named(&SEGMENT, n)),
            Register::SegmentBase(n) => write!(f, "{}.base", named(&SEGMENT, n)),
            Register::Rip => f.write_str("rip"),
            Register::Flags => f.write_str("flags"),
            Register::Cr0 => f.write_str("cr0"),
            Register::Cr3 => f.write_str("cr3"),
            Register::Dr6 => f.write_str("dr6"),
            Register::Dr7 => f.write_str("dr7"),
            Register::FpuControl => f.write_str("fpu control"),
            Register::FpuStatus => f.write_str("fpu status"),
            Register::FpuTags => f.write_str("fpu tags"),
            Register::St(n) => write!(f, "st{n}"),
            Register::Mm(n) => write!(f, "mm{n}"),
            Register::Mxcsr => f.write_str("mxcsr"),
            Register::Vector(n) => write!(f, "v{n}"),
        }
    }
}

/// A register's value: up to 32 bytes in memory order (least significant byte first).
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct Value {
    bytes: [u8; 32],
    len: u8,
}

impl Value {
    /// An integer of eight bytes.
    pub fn int(value: u64) -> Value {
        Value::bytes(&value.to_le_bytes())
    }
    /// Bytes in memory order; what lies beyond 32 is dropped.
    pub fn bytes(from: &[u8]) -> Value {
        let len = from.len().min(32);
        let mut bytes = [0; 32];
        bytes[..len].copy_from_slice(&from[..len]);
        Value { bytes, len: len as u8 }
    }
    /// The bytes in memory order.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
    /// The low eight bytes as an integer.
    pub fn low(&self) -> u64 {
        let mut low = [0; 8];
        low.copy_from_slice(&self.bytes[..8]);
        u64::from_le_bytes(low)
    }
    /// The same value with the bits of its low eight bytes limited to `mask`.
    pub fn masked(mut self, mask: u64) -> Value {
        let low = self.low() & mask;
        self.bytes[..8].copy_from_slice(&low.to_le_bytes());
        self
    }
}

impl fmt::Display for Value {
    /// Integers as hexadecimal numbers, longer values as bytes in memory order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len <= 8 {
            return write!(f, "{:x}", self.low());
        }
        self.as_bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The width of code and stack in protected mode.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Width {
    /// CS.D = 0.
    Bits16,
    /// CS.D = 1.
    Bits32,
    /// CS.L = 1.
    Bits64,
}

/// The processor mode that a case starts in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Environment {
    /// Real-address mode over flat guest-physical memory; segment bases follow from the selectors.
    Real,
    /// Protected or long mode as an operating system leaves it: paging on, flat segments.
    Flat {
        /// The width of code and stack.
        width: Width,
        /// The current privilege level, 0–3.
        cpl: u8,
    },
}

/// What a mapped range of linear memory allows. Everything can be read.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    /// Read only.
    pub const READ: Rights = Rights(0);
    /// May be written.
    pub const WRITE: Rights = Rights(1);
    /// May be executed.
    pub const EXECUTE: Rights = Rights(2);
    /// User pages (U/S = 1).
    pub const USER: Rights = Rights(4);

    /// Both.
    pub const fn with(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }
    /// Whether all of `other` is allowed.
    pub const fn has(self, other: Rights) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One range of linear addresses that the case maps.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first linear address; the runner rounds outwards to pages.
    pub linear: u64,
    /// Bytes.
    pub length: u64,
    /// Rights of each of its pages.
    pub rights: Rights,
}

/// A run of bytes at an address: guest-physical in real mode, linear otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The address of the first byte.
    pub at: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// How far a result may be from the recorded one.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Tolerance {
    /// Not at all.
    #[default]
    Exact,
    /// Each single-precision element by 1.5 × 2⁻¹² of its value, twice (both sides are approximations).
    Reciprocal,
    /// x87 results by this many units in the last place; C1 is not compared.
    LastPlaces(u64),
}

/// A register that must hold a value at the end, in the bits of `mask` (of its low eight bytes).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Which.
    pub register: Register,
    /// What it must hold.
    pub value: Value,
    /// Which bits count; longer values always count beyond bit 63.
    pub mask: u64,
}

/// When to stop, and how the case must end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// At a HLT; RIP is compared after it.
    AfterHalt,
    /// At a HLT; RIP is compared on it. At CPL 1–3 the HLT is met as its #GP(0).
    OnHalt,
    /// After one instruction (a repeated string instruction counts as one).
    OneInstruction,
    /// With an exception, observed before it is delivered.
    Fault {
        /// The vector.
        vector: u8,
        /// The error code, if it is to be compared.
        error_code: Option<u32>,
        /// The linear address of a page fault, if it is to be compared.
        cr2: Option<u64>,
    },
}

/// What must be there when a case ends. What is not named is not compared.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// How it ends.
    pub end: End,
    /// Registers.
    pub registers: Vec<Expected>,
    /// Memory.
    pub memory: Vec<Span>,
    /// Bits of single memory bytes that count, where not all do: (address, mask).
    pub memory_masks: Vec<(u64, u8)>,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, unique within its file: an index or a line.
    pub name: String,
    /// The instruction as text, for people.
    pub text: String,
    /// The bytes of the instruction under test (empty when the case is a program).
    pub code: Vec<u8>,
    /// The mode.
    pub environment: Environment,
    /// Mapped ranges (empty in real mode).
    pub map: Vec<Mapping>,
    /// What memory holds at the start; the rest is zero.
    pub load: Vec<Span>,
    /// Registers at the start. Those not named are as after reset, or zero.
    pub registers: Vec<(Register, Value)>,
    /// The end.
    pub expect: Expectation,
    /// Give up after this many instructions.
    pub max: u64,
    /// Only the memory that the expectation names is compared. Otherwise every page that the case loads, or expects
    /// something in, must be unchanged elsewhere.
    pub named_memory_only: bool,
    /// How exactly registers are compared.
    pub tolerance: Tolerance,
}

impl Case {
    /// The value that a register starts with, if the case gives one.
    pub fn initial(&self, register: Register) -> Option<Value> {
        self.registers.iter().find(|(r, _)| *r == register).map(|(_, v)| *v)
    }
    /// What a register must hold at the end, to be changed.
    pub fn expected_mut(&mut self, register: Register) -> Option<&mut Expected> {
        self.expect.registers.iter_mut().find(|e| e.register == register)
    }
    /// Limits the comparison of one memory byte to `mask`.
    pub fn mask_memory(&mut self, at: u64, mask: u8) {
        self.expect.memory_masks.push((at, mask));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["rax", "r15", "rip", "fs", "mxcsr", "st7", "mm0", "v15", "cr0", "dr6"] {
            let register = Register::from_name(name).unwrap();
            assert_eq!(register.to_string(), name);
        }
        for name in ["", "r16", "st8", "v16", "v01", "mm+1", "flags2", "xyz"] {
            assert_eq!(Register::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn values() {
        assert_eq!(Value::int(0x1234).to_string(), "1234");
        assert_eq!(Value::int(0xffff).masked(0xf0).low(), 0xf0);
        assert_eq!(Value::bytes(&[1; 10]).to_string(), "01".repeat(10));
        assert_eq!(Value::bytes(&[1; 40]).as_bytes().len(), 32);
    }
}
