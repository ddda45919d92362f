//! The one list of micro-operations. The enum, its names and its properties follow from it; executors match on it.

/// Calls `$m!` with one row per micro-operation: doc comment, name, and what it may do to the status flags.
#[macro_export]
macro_rules! for_each_uop {
    ($m:ident) => {
        $m! {
            // ---- moves
            /// dst = src | imm | \[mem\]; or \[mem\] = src | imm.
            Mov keeps,
            /// dst = zero-extended low byte of src or \[mem\].
            Movzx8 keeps,
            /// dst = zero-extended low word of src or \[mem\].
            Movzx16 keeps,
            /// dst = sign-extended low byte of src or \[mem\].
            Movsx8 keeps,
            /// dst = sign-extended low word of src or \[mem\].
            Movsx16 keeps,
            /// dst = sign-extended low doubleword of src or \[mem\].
            Movsx32 keeps,
            /// dst = offset of mem, truncated to `width` (address width), zero-extended.
            Lea keeps,
            /// dst (whole slot) = bits 15–8 of src.
            ExtractHigh keeps,
            /// bits 15–8 of dst = low byte of src.
            InsertHigh keeps,
            /// dst (whole slot) = the selector in segment register `seg`.
            Selector keeps,
            /// Exchanges dst and src.
            Xchg keeps,
            /// Reverses the bytes of dst.
            Bswap keeps,
            /// dst = condition ? src or \[mem\] : dst (a 32-bit dst is zero-extended either way).
            Cmov keeps,
            /// dst or \[mem\] (a byte) = condition.
            Set keeps,
            // ---- arithmetic and logic
            /// a + b.
            Add sets,
            /// a + b + CF.
            Adc sets,
            /// a − b.
            Sub sets,
            /// a − b − CF.
            Sbb sets,
            /// a & b.
            And sets,
            /// a | b.
            Or sets,
            /// a ^ b.
            Xor sets,
            /// Flags of a − b.
            Cmp sets,
            /// Flags of a & b.
            Test sets,
            /// a + 1, CF kept.
            Inc sets,
            /// a − 1, CF kept.
            Dec sets,
            /// 0 − a.
            Neg sets,
            /// !a, flags kept.
            Not keeps,
            // ---- shifts and rotates: count in imm or in CL
            /// Shift left.
            Shl sets,
            /// Logical shift right.
            Shr sets,
            /// Arithmetic shift right.
            Sar sets,
            /// Rotate left.
            Rol sets,
            /// Rotate right.
            Ror sets,
            /// Rotate left through CF.
            Rcl sets,
            /// Rotate right through CF.
            Rcr sets,
            /// Double shift left: bits come from src; count in imm, or in CL if imm is negative.
            Shld sets,
            /// Double shift right.
            Shrd sets,
            // ---- multiply and divide
            /// dst = dst × src (or \[mem\]), signed, truncated.
            Imul sets,
            /// dst = src (or \[mem\]) × imm, signed, truncated.
            Imul3 sets,
            /// rDX:rAX (AX for bytes) = rAX × src or \[mem\], unsigned.
            MulWide sets,
            /// The same, signed.
            ImulWide sets,
            /// Unsigned divide of rDX:rAX (AX) by src or \[mem\]: quotient and remainder, or #DE.
            Div sets,
            /// Signed divide.
            Idiv sets,
            // ---- bits
            /// CF = bit of dst or \[mem\] selected by src or imm (modulo the width).
            Bt sets,
            /// The same, then sets it.
            Bts sets,
            /// The same, then clears it.
            Btr sets,
            /// The same, then complements it.
            Btc sets,
            /// dst = index of the lowest set bit of src or \[mem\]; unchanged if there is none.
            Bsf sets,
            /// dst = index of the highest set bit.
            Bsr sets,
            /// Count of trailing zeros.
            Tzcnt sets,
            /// Count of leading zeros.
            Lzcnt sets,
            /// Count of set bits.
            Popcnt sets,
            // ---- exchanges with memory
            /// Exchanges src and \[mem\], atomically.
            XchgMem keeps,
            /// dst/\[mem\] += src, src = old value.
            Xadd sets,
            /// If rAX = dst/\[mem\] then dst/\[mem\] = src, else rAX = it.
            Cmpxchg sets,
            // ---- flags
            /// CF = 0.
            Clc sets,
            /// CF = 1.
            Stc sets,
            /// CF = !CF.
            Cmc sets,
            /// DF = 0.
            Cld keeps,
            /// DF = 1.
            Std keeps,
            /// dst (whole slot) = RFLAGS as PUSHF shows them: without VM and RF.
            Rflags keeps,
            /// AH = low flags.
            Lahf keeps,
            /// Low flags = AH.
            Sahf sets,
            // ---- stack (flat stack segments; others are built from Check)
            /// Pushes src, imm or \[mem\]; `width` is the operand, `cond` the log2 width of the stack pointer.
            Push keeps,
            /// Pops into dst.
            Pop keeps,
            /// RSP = RBP, then pops RBP.
            Leave keeps,
            /// Adds imm to the stack pointer of log2 width `cond`.
            AddSp keeps,
            // ---- control flow: the last uop of a block
            /// RIP = imm.
            Jmp ends,
            /// RIP = src or \[mem\], of `width`.
            JmpInd ends,
            /// RIP = condition ? imm : the next instruction.
            Jcc ends,
            /// Compares (as Cmp), then as Jcc; the target is in `target`.
            CmpJcc ends,
            /// Tests (as Test), then as Jcc.
            TestJcc ends,
            /// Pushes the next RIP (flat stack), RIP = imm.
            CallNear ends,
            /// Pushes the next RIP (flat stack), RIP = src or \[mem\].
            CallInd ends,
            /// Pops RIP (flat stack), then adds imm to the stack pointer.
            Ret ends,
            /// rCX −= 1 (of `width`), jumps to imm if it is not zero and (cond 1: ZF, 2: !ZF, 0: always); cond 3: JrCXZ.
            Loop ends,
            // ---- memory plumbing
            /// dst = linear address of mem for `imm` bytes, after all segment checks (`cond` 1: write).
            Check keeps,
            /// Vector register dst = `imm` bytes of \[mem\], zero-extended; `cond` bit 0: must be aligned, bit 1: bits 255–128
        /// stay as they are.
            VLoad keeps,
            /// `imm` bytes of vector register src to \[mem\].
            VStore keeps,
            /// Calls a helper that works on registers only: it accesses no memory, does not look at RIP, and if it touches the
        /// status flags it sets all of them. It may fault, and never leaves the block.
        VCall keeps,
        // ---- everything else
            /// Calls a helper.
            Call calls,
            /// Calls a helper, then leaves the block.
            CallEnd ends,
            /// Exception with vector imm.
            Raise ends,
            /// An instruction (decoder code imm) that Umbra does not have.
            Unimplemented ends,
            /// Ends a block in the middle of straight code.
            End ends,
            /// Nothing.
            Nop keeps,
        }
    };
}

/// What a micro-operation does to the status flags, and whether it ends its block.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Leaves the flags alone.
    Keeps,
    /// May set flags.
    Sets,
    /// Calls Rust: reads and writes whatever it likes.
    Calls,
    /// Ends the block.
    Ends,
}

macro_rules! effect {
    (keeps) => {
        Effect::Keeps
    };
    (sets) => {
        Effect::Sets
    };
    (calls) => {
        Effect::Calls
    };
    (ends) => {
        Effect::Ends
    };
}

macro_rules! define {
    ($($(#[$doc:meta])* $name:ident $effect:ident,)*) => {
        /// A micro-operation.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Op { $($(#[$doc])* $name),* }

        impl Op {
            /// All of them, in order.
            pub const ALL: &'static [Op] = &[$(Op::$name),*];
            /// The name in dumps.
            pub const fn name(self) -> &'static str {
                match self { $(Op::$name => stringify!($name)),* }
            }
            /// What it does to flags and block.
            pub const fn effect(self) -> Effect {
                match self { $(Op::$name => effect!($effect)),* }
            }
        }
    };
}
for_each_uop!(define);
