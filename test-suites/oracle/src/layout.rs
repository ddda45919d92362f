//! Where code, data and stack of a program lie, in the host's child and in Umbra's guest alike.
//!
//! One image of pages serves all modes: code, then the arena. 16-bit programs see it at lower offsets; the host's child puts
//! those behind segments with a base, since nothing can be mapped below 64 KiB there.

/// Bytes in a page.
pub const PAGE: usize = 4096;
/// The writable data pages, a read-only one after them, and the stack's page: the arena.
pub const DATA_PAGES: usize = 3;
/// Bytes of the arena in the image: data, read-only page, stack.
pub const ARENA: usize = (DATA_PAGES + 2) * PAGE;
/// Where the stack page begins in the arena.
pub const STACK_AT: usize = (DATA_PAGES + 1) * PAGE;
/// Code begins here in its page; all else in the page is HLT.
pub const ENTRY: u64 = 0x100;
/// The most bytes of code in a program.
pub const MAX_CODE: usize = PAGE - ENTRY as usize - 16;
/// Data pointers point here, from the start of the data pages.
pub const DATA_MIDDLE: u64 = 0x1800;
/// The stack pointer starts here in its page.
pub const STACK_MIDDLE: u64 = 0x800;

/// The width of code.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// 16-bit protected mode.
    Bits16 = 16,
    /// 32-bit compatibility mode.
    Bits32 = 32,
    /// 64-bit mode.
    Bits64 = 64,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 3] = [Mode::Bits64, Mode::Bits32, Mode::Bits16];

    /// 16, 32 or 64.
    pub const fn bits(self) -> u32 {
        self as u32
    }
    /// The offset of the code page.
    pub const fn code(self) -> u64 {
        if matches!(self, Mode::Bits16) { 0x1000 } else { 0x1_0000 }
    }
    /// The offset of the first data page. The read-only page follows the writable ones.
    pub const fn data(self) -> u64 {
        if matches!(self, Mode::Bits16) { 0x4000 } else { 0x2_0000 }
    }
    /// The offset of the stack page.
    pub const fn stack(self) -> u64 {
        if matches!(self, Mode::Bits16) { 0x9000 } else { 0x3_0000 }
    }
    /// What the host's child adds to each offset.
    pub const fn host_base(self) -> u64 {
        if matches!(self, Mode::Bits16) { 0x6b3c_0000 } else { 0 }
    }
    /// How many general registers there are.
    pub const fn registers(self) -> usize {
        if matches!(self, Mode::Bits64) { 16 } else { 8 }
    }
    /// The bits of a general register that exist.
    pub const fn register_mask(self) -> u64 {
        if matches!(self, Mode::Bits64) { u64::MAX } else { 0xffff_ffff }
    }
}

/// What a program sees and leaves in registers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// General registers in the order of their encoding.
    pub gpr: [u64; 16],
    /// Offset of the next instruction.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// YMM0–15 as quadwords.
    pub vectors: [[u64; 4]; 16],
    /// ST(0)–ST(7): significand, then sign and exponent.
    pub st: [(u64, u16); 8],
    /// MXCSR.
    pub mxcsr: u32,
    /// x87 control word.
    pub cw: u16,
    /// x87 status word.
    pub sw: u16,
    /// Abridged tag word: bit n set when physical register n is not empty.
    pub tags: u16,
}

impl Registers {
    /// All zero.
    pub const ZERO: Registers = Registers {
        gpr: [0; 16],
        rip: 0,
        rflags: 0,
        vectors: [[0; 4]; 16],
        st: [(0, 0); 8],
        mxcsr: 0,
        cw: 0,
        sw: 0,
        tags: 0,
    };
}

/// Why a program ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct End {
    /// The exception's vector; HLT at CPL 3 is #GP. [`End::TIMEOUT`]: it did not end.
    pub vector: u32,
    /// Its error code, 0 if it has none.
    pub error: u32,
    /// CR2 for #PF, else 0.
    pub cr2: u64,
}

impl End {
    /// The vector that stands for "it did not end".
    pub const TIMEOUT: u32 = 0x100;
}

/// Everything that is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Registers; RIP is the faulting instruction's.
    pub registers: Registers,
    /// Why it ended.
    pub end: End,
    /// The arena.
    pub memory: Vec<u8>,
}
