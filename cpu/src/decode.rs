//! Bytes to instructions: the only file that names the decoder library.
//!
//! [`Insn`] is the decoder's instruction with accessors in our own terms: slots, segments, widths.

use crate::mode::ModeBits;
use crate::state::Seg;
use crate::state::slots::ZERO;
use crate::undefined;
use crate::uop::Width;
pub use iced_x86::{Code, CodeSize, CpuidFeature, Mnemonic};
use iced_x86::{Decoder, DecoderOptions, Formatter, IcedError, Instruction, NasmFormatter, OpKind, Register};
use std::sync::LazyLock;

/// The longest instruction, in bytes.
pub const MAX_LENGTH: usize = 15;

/// One operand of an instruction.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A general register as slot number and width.
    Gpr(u8, Width),
    /// AH, CH, DH or BH, as the slot of the whole register.
    High(u8),
    /// A segment register.
    Seg(Seg),
    /// A control register.
    Cr(u8),
    /// A debug register.
    Dr(u8),
    /// An x87 stack register.
    St(u8),
    /// An MMX register.
    Mm(u8),
    /// An XMM register.
    Xmm(u8),
    /// A YMM register.
    Ymm(u8),
    /// The memory operand ([`Insn::mem`]).
    Mem,
    /// An immediate, sign-extended to 64 bits.
    Imm(u64),
    /// A near branch target (an offset in CS).
    Near(u64),
    /// A far pointer: selector, offset.
    Far(u16, u32),
    /// A register class that no supported processor model has (opmask, ZMM, bounds, test registers).
    Unsupported,
}

/// The memory operand of an instruction.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MemOperand {
    /// The segment, overrides applied.
    pub seg: Seg,
    /// Base slot or [`ZERO`].
    pub base: u8,
    /// Index slot or [`ZERO`].
    pub index: u8,
    /// Index shift, 0–3.
    pub scale: u8,
    /// Displacement, sign-extended; for RIP-relative operands the whole address.
    pub disp: i64,
    /// Address width: 2, 4 or 8 bytes.
    pub width: Width,
}

/// A decoded guest instruction.
#[derive(Clone, Debug, Default)]
pub struct Insn {
    raw: Instruction,
    has_67: bool,
    bitness: u32,
    /// Its bytes, and one that is not its own: a power of two is copied quickly.
    bytes: [u8; MAX_LENGTH + 1],
}

/// What a generation of processors takes as an instruction, beyond which mnemonics it has ([`crate::model`]).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// At most 10 bytes; no FS and GS, and no prefixes for them or for other sizes (80286 Programmer's Reference, appendix D).
    I80286,
    /// At most 15 bytes.
    #[default]
    I80386,
}

impl Encoding {
    /// The longest instruction, in bytes.
    pub const fn max_length(self) -> usize {
        match self {
            Encoding::I80286 => 10,
            Encoding::I80386 => MAX_LENGTH,
        }
    }
    /// Whether invalid bytes, of which the longest instruction's are given, are refused for their length: a 286 counts the
    /// operands of C6h and C7h (MOV) before it looks at their reg field.
    fn counts_more(self, bytes: &[u8], rip: u64, bitness: u32) -> bool {
        let opcode = bytes.iter().take_while(|byte| is_prefix(**byte)).count();
        let mut counted = [0; MAX_LENGTH];
        counted[..bytes.len()].copy_from_slice(bytes);
        let mov = self == Encoding::I80286 && matches!(bytes.get(opcode..opcode + 2), Some([0xc6 | 0xc7, _]));
        if mov {
            counted[opcode + 1] &= !0x38;
        }
        mov && unsettled(&counted[..bytes.len()], rip, bitness)
    }
    /// Whether the instruction, which has these bytes, does not exist though its mnemonic does.
    fn lacks(self, raw: &Instruction, bytes: &[u8]) -> bool {
        let newer = |byte: &u8| matches!(byte, 0x64..=0x67);
        let fs_or_gs =
            |n| raw.op_kind(n) == OpKind::Register && matches!(raw.op_register(n), Register::FS | Register::GS);
        self == Encoding::I80286
            && (bytes.iter().take_while(|byte| is_prefix(**byte)).any(newer) || (0..raw.op_count()).any(fs_or_gs))
    }
}

/// Why bytes are not an instruction.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// An invalid encoding (#UD).
    Invalid,
    /// More bytes are needed than were given, though fewer than the longest instruction has were.
    NeedsMore,
    /// More bytes than the longest instruction has (#GP(0)).
    TooLong,
}

/// Decodes the instruction at `rip` (an offset in CS) from `bytes`, of which the first 15 matter.
pub fn decode(bytes: &[u8], rip: u64, mode: ModeBits, encoding: Encoding) -> Result<Insn, DecodeError> {
    let mut insn = Insn::default();
    Bytes::new(bytes, mode, encoding).decode(0, rip, &mut insn)?;
    Ok(insn)
}

/// Bytes that are decoded one instruction after the other: setting the library's decoder up takes longer than decoding.
pub struct Bytes<'a> {
    all: &'a [u8],
    bitness: u32,
    encoding: Encoding,
    /// As it was made: to unwrap it would be to move it.
    decoder: Result<Decoder<'a>, IcedError>,
}

impl<'a> Bytes<'a> {
    /// Code of a mode and a generation of processors.
    #[inline(always)]
    pub fn new(all: &'a [u8], mode: ModeBits, encoding: Encoding) -> Bytes<'a> {
        let bitness = mode.bitness();
        Bytes { all, bitness, encoding, decoder: Decoder::try_with_ip(bitness, all, 0, DecoderOptions::NONE) }
    }

    /// Decodes the instruction at `offset`, which is `rip` in CS. It is put where the one before it was: to hand it on would
    /// take a fifth of the time.
    pub fn decode(&mut self, offset: usize, rip: u64, insn: &mut Insn) -> Result<(), DecodeError> {
        let (bitness, most) = (self.bitness, self.encoding.max_length());
        let rest = self.all.get(offset..).unwrap_or(&[]);
        let given = &rest[..rest.len().min(most)];
        let Ok(decoder) = &mut self.decoder else { return Err(DecodeError::Invalid) };
        decoder.set_position(offset).map_err(|_| DecodeError::NeedsMore)?;
        decoder.set_ip(rip);
        let raw = &mut insn.raw;
        decoder.decode_out(raw);
        if raw.is_invalid() || raw.len() > most {
            return Err(refusal(given, rip, bitness, self.encoding));
        }
        if bitness != 64 && is_wide_element_move(raw.code()) && vex_w(given) || self.encoding.lacks(raw, given) {
            return Err(DecodeError::Invalid);
        }
        insn.has_67 = given[..raw.len()].iter().take_while(|b| is_prefix(**b)).any(|b| *b == 0x67);
        insn.bitness = bitness;
        // Those after the instruction do not matter.
        match rest.first_chunk() {
            Some(bytes) => insn.bytes = *bytes,
            None => insn.bytes[..given.len()].copy_from_slice(given),
        }
        Ok(())
    }
}

/// Why bytes, no more than the longest instruction has, are none.
fn refusal(given: &[u8], rip: u64, bitness: u32, encoding: Encoding) -> DecodeError {
    let most = encoding.max_length();
    let mut decoder = Decoder::with_ip(bitness, given, rip, DecoderOptions::NONE);
    let _ = decoder.decode();
    match decoder.last_error() {
        iced_x86::DecoderError::NoMoreBytes if given.len() >= most => DecodeError::TooLong,
        iced_x86::DecoderError::NoMoreBytes => DecodeError::NeedsMore,
        // The decoder calls what runs over 15 bytes invalid: it is too long if 14 bytes did not settle it.
        _ if given.len() == MAX_LENGTH && unsettled(&given[..MAX_LENGTH - 1], rip, bitness) => DecodeError::TooLong,
        _ if given.len() == most && encoding.counts_more(given, rip, bitness) => DecodeError::TooLong,
        _ => DecodeError::Invalid,
    }
}

/// Whether more bytes are needed to know the instruction.
fn unsettled(bytes: &[u8], rip: u64, bitness: u32) -> bool {
    let mut decoder = Decoder::with_ip(bitness, bytes, rip, DecoderOptions::NONE);
    decoder.decode().is_invalid() && decoder.last_error() == iced_x86::DecoderError::NoMoreBytes
}

/// VPEXTRD and VPINSRD: with VEX.W set they are VPEXTRQ and VPINSRQ, which are invalid outside 64-bit mode (SDM vol. 2).
fn is_wide_element_move(code: Code) -> bool {
    matches!(code, Code::VEX_Vpextrd_rm32_xmm_imm8 | Code::VEX_Vpinsrd_xmm_xmm_rm32_imm8)
}

/// VEX.W of an instruction with a three-byte VEX prefix.
fn vex_w(bytes: &[u8]) -> bool {
    let mut rest = bytes.iter().skip_while(|byte| is_prefix(**byte));
    rest.next() == Some(&0xc4) && rest.nth(1).is_some_and(|byte| byte & 0x80 != 0)
}

/// The 11 bits that the FPU remembers of an x87 instruction; meaningless for any other.
fn x87_opcode(bytes: &[u8], bitness: u32) -> u16 {
    let is_rex = |byte: u8| bitness == 64 && byte & 0xf0 == 0x40;
    let mut rest = bytes.iter().skip_while(|byte| is_prefix(**byte) || is_rex(**byte));
    match (rest.next(), rest.next()) {
        (Some(opcode), Some(modrm)) => u16::from(opcode & 7) << 8 | u16::from(*modrm),
        _ => 0,
    }
}

fn is_prefix(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
}

fn slot_of(register: Register) -> u8 {
    REGISTERS[register as usize % REGISTERS.len()].1
}

/// The library's registers as operands, and the slot of the whole register where it is an address: to ask the library for each
/// took a tenth of lifting.
static REGISTERS: LazyLock<[(Operand, u8); 256]> = LazyLock::new(|| {
    let mut table = [(Operand::Unsupported, ZERO); 256];
    for register in Register::values() {
        let slot = match register {
            Register::None | Register::RIP | Register::EIP => ZERO,
            _ => register.full_register().number() as u8,
        };
        table[register as usize % 256] = (operand_of(register, slot), slot);
    }
    table
});

fn operand_of(register: Register, slot: u8) -> Operand {
    let n = register.number() as u8;
    match register {
        Register::AH => Operand::High(0),
        Register::CH => Operand::High(1),
        Register::DH => Operand::High(2),
        Register::BH => Operand::High(3),
        _ if register.is_gpr() => match Width::from_bytes(register.size()) {
            Some(width) => Operand::Gpr(slot, width),
            None => Operand::Unsupported,
        },
        _ if register.is_segment_register() => Operand::Seg(seg_of(register)),
        _ if register.is_cr() => Operand::Cr(n),
        _ if register.is_dr() => Operand::Dr(n),
        _ if register.is_st() => Operand::St(n),
        _ if register.is_mm() => Operand::Mm(n),
        _ if register.is_xmm() && n < 16 => Operand::Xmm(n),
        _ if register.is_ymm() && n < 16 => Operand::Ymm(n),
        _ => Operand::Unsupported,
    }
}

fn seg_of(register: Register) -> Seg {
    match register {
        Register::ES => Seg::Es,
        Register::CS => Seg::Cs,
        Register::SS => Seg::Ss,
        Register::FS => Seg::Fs,
        Register::GS => Seg::Gs,
        _ => Seg::Ds,
    }
}

impl Insn {
    /// The instruction's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.raw.len()]
    }
    /// The mnemonic.
    pub fn mnemonic(&self) -> Mnemonic {
        self.raw.mnemonic()
    }
    /// The exact form.
    pub fn code(&self) -> Code {
        self.raw.code()
    }
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.raw.len()
    }
    /// Never: an instruction has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }
    /// Offset of the instruction in CS.
    pub fn ip(&self) -> u64 {
        self.raw.ip()
    }
    /// Offset of the next instruction, wrapped to the mode's width by the decoder.
    pub fn next_ip(&self) -> u64 {
        self.raw.next_ip()
    }
    /// The last opcode that an x87 instruction leaves in FOP (SDM vol. 1, 8.1.9).
    pub fn x87_opcode(&self) -> u16 {
        x87_opcode(self.bytes(), self.bitness)
    }
    /// 16, 32 or 64.
    pub fn bitness(&self) -> u32 {
        self.bitness
    }
    /// Has a LOCK prefix.
    pub fn lock(&self) -> bool {
        self.raw.has_lock_prefix()
    }
    /// Has a REP/REPE prefix.
    pub fn rep(&self) -> bool {
        self.raw.has_rep_prefix()
    }
    /// Has a REPNE prefix.
    pub fn repne(&self) -> bool {
        self.raw.has_repne_prefix()
    }
    /// The segment override, if there is one that counts: 64-bit mode ignores those of ES, CS, SS and DS, even where they
    /// would make #SS of a #GP (SDM vol. 2, 2.2.1).
    pub fn segment_prefix(&self) -> Option<Seg> {
        let seg = self.raw.has_segment_prefix().then(|| seg_of(self.raw.segment_prefix()))?;
        (self.bitness != 64 || matches!(seg, Seg::Fs | Seg::Gs)).then_some(seg)
    }
    /// The features that CPUID must show for this instruction.
    pub fn features(&self) -> &'static [CpuidFeature] {
        self.raw.cpuid_features()
    }
    /// Encoded with VEX.
    pub fn is_vex(&self) -> bool {
        self.raw.code().encoding() == iced_x86::EncodingKind::VEX
    }
    /// Encoded with EVEX, XOP, 3DNow! or another scheme that no model has.
    pub fn is_exotic(&self) -> bool {
        !matches!(self.raw.code().encoding(), iced_x86::EncodingKind::Legacy | iced_x86::EncodingKind::VEX)
    }
    /// Number of operands.
    pub fn op_count(&self) -> u32 {
        self.raw.op_count()
    }
    /// The address width of the instruction (string operations, LOOP, memory operands).
    pub fn address_width(&self) -> Width {
        match (self.bitness, self.has_67) {
            (64, false) => Width::B8,
            (64, true) | (32, false) | (16, true) => Width::B4,
            _ => Width::B2,
        }
    }
    /// The size of the memory operand in bytes (0 if there is none or it has no size).
    pub fn memory_size(&self) -> usize {
        self.raw.memory_size().size()
    }
    /// Operand `n`.
    pub fn op(&self, n: u32) -> Operand {
        if n >= self.raw.op_count() {
            return Operand::Unsupported;
        }
        match self.raw.op_kind(n) {
            OpKind::Register => REGISTERS[self.raw.op_register(n) as usize % REGISTERS.len()].0,
            OpKind::Immediate8
            | OpKind::Immediate8_2nd
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64 => Operand::Imm(self.raw.immediate(n)),
            OpKind::NearBranch16 => Operand::Near(u64::from(self.raw.near_branch16())),
            OpKind::NearBranch32 => Operand::Near(u64::from(self.raw.near_branch32())),
            OpKind::NearBranch64 => Operand::Near(self.raw.near_branch64()),
            OpKind::FarBranch16 => Operand::Far(self.raw.far_branch_selector(), u32::from(self.raw.far_branch16())),
            OpKind::FarBranch32 => Operand::Far(self.raw.far_branch_selector(), self.raw.far_branch32()),
            _ => Operand::Mem,
        }
    }
    /// The memory operand. Also for instructions with implied memory operands (string instructions): then the
    /// registers are the implied ones.
    pub fn mem(&self) -> MemOperand {
        let raw = &self.raw;
        let base = raw.memory_base();
        let disp = match raw.memory_displ_size() {
            0 => 0,
            _ if raw.is_ip_rel_memory_operand() => raw.ip_rel_memory_address() as i64,
            _ => raw.memory_displacement64() as i64,
        };
        let width = self.memory_address_width();
        let seg = match base {
            _ if !raw.has_segment_prefix() || self.segment_prefix().is_some() => seg_of(raw.memory_segment()),
            // An override that is ignored: the default segment.
            Register::RSP | Register::RBP | Register::ESP | Register::EBP => Seg::Ss,
            _ => Seg::Ds,
        };
        MemOperand {
            seg,
            base: slot_of(base),
            index: slot_of(raw.memory_index()),
            scale: raw.memory_index_scale().trailing_zeros() as u8,
            disp,
            width,
        }
    }
    fn memory_address_width(&self) -> Width {
        self.address_width()
    }
    /// The stack pointer change in bytes of PUSH, POP, CALL, RET (negative: pushes).
    pub fn stack_increment(&self) -> i32 {
        self.raw.stack_pointer_increment()
    }
    /// Status flags (RFLAGS bits) that the instruction reads.
    pub fn flags_read(&self) -> u64 {
        rflags(self.raw.rflags_read())
    }
    /// Status flags that it overwrites, with defined or undefined values, on every path; not those that it only may.
    pub fn flags_written(&self) -> u64 {
        let modified = rflags(self.raw.rflags_modified());
        match self.raw.rflags_undefined() {
            0 => modified,
            _ => modified & !undefined::kept(self.mnemonic()),
        }
    }
    /// Where its immediate is: offset in the instruction and number of bytes. `None` for those with none, or two.
    pub fn immediate_bytes(&self) -> Option<(usize, usize)> {
        let mut decoder = Decoder::try_with_ip(self.bitness, self.bytes(), self.raw.ip(), DecoderOptions::NONE).ok()?;
        let again = decoder.decode();
        let parts = decoder.get_constant_offsets(&again);
        let one = parts.has_immediate() && !parts.has_immediate2();
        one.then(|| (parts.immediate_offset(), parts.immediate_size()))
    }
    /// The disassembly in NASM's syntax.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut formatter = NasmFormatter::new();
        formatter.options_mut().set_space_after_operand_separator(true);
        formatter.options_mut().set_branch_leading_zeros(false);
        formatter.format(&self.raw, &mut text);
        text
    }
}

/// Host code as text, a line for each instruction: address, bytes, text.
pub fn host_text(code: &[u8], address: u64) -> String {
    use std::fmt::Write as _;
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut formatter = NasmFormatter::new();
    let mut out = String::new();
    while decoder.can_decode() {
        let raw = decoder.decode();
        let mut text = String::new();
        formatter.format(&raw, &mut text);
        let at = raw.ip().wrapping_sub(address) as usize;
        let bytes: String = code.get(at..at + raw.len()).unwrap_or(&[]).iter().map(|b| format!("{b:02x}")).collect();
        let _ = writeln!(out, "{:12x}  {bytes:<22} {text}", raw.ip());
    }
    out
}

/// The name of an instruction form, by its decoder code.
pub fn form_name(code: u16) -> String {
    Code::values().nth(usize::from(code)).map_or_else(|| format!("form {code}"), |code| format!("{code:?}"))
}

/// The library's flag bits as RFLAGS status bits.
fn rflags(bits: u32) -> u64 {
    u64::from(RFLAGS[bits as usize % RFLAGS.len()])
}

/// By the library's status bits, which are its lowest six.
static RFLAGS: [u16; 64] = {
    use crate::state::flags as f;
    use iced_x86::RflagsBits as R;
    let pairs = [(R::CF, f::CF), (R::PF, f::PF), (R::AF, f::AF), (R::ZF, f::ZF), (R::SF, f::SF), (R::OF, f::OF)];
    let mut table = [0; 64];
    let mut at = 0;
    while at < 64 * pairs.len() {
        let (theirs, ours) = pairs[at / 64];
        if (at % 64) as u32 & theirs != 0 {
            table[at % 64] |= ours as u16;
        }
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// An instruction's bytes, and its length or why it is none, on a 286 and later.
    type Row = (&'static [u8], Result<usize, DecodeError>, Result<usize, DecodeError>);

    #[test]
    fn a_286_takes_ten_bytes_and_knows_no_fs() {
        use DecodeError::{Invalid, NeedsMore, TooLong};
        let rows: &[Row] = &[
            (&[0x90], Ok(1), Ok(1)),
            (&[0x2e, 0x2e, 0x2e, 0x2e, 0xc7, 0x06, 1, 2, 3, 4], Ok(10), Ok(10)),
            (&[0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0xc7, 0x06, 1, 2, 3, 4], Err(TooLong), Ok(11)),
            (&[0x2e; 9], Err(NeedsMore), Err(NeedsMore)),
            (&[0x2e; 10], Err(TooLong), Err(NeedsMore)),
            (&[0x2e; 15], Err(TooLong), Err(TooLong)),
            (&[0x8c, 0xe0], Err(Invalid), Ok(2)),
            (&[0x8c, 0xd8], Ok(2), Ok(2)),
            (&[0x66, 0x90], Err(Invalid), Ok(2)),
            (&[0x64, 0x8b, 0x07], Err(Invalid), Ok(3)),
            (&[0xc7, 0x7e, 0, 0, 0], Err(Invalid), Err(Invalid)),
            (&[0x2e, 0x2e, 0x2e, 0x2e, 0x2e, 0xc7, 0xbe, 0, 0, 0, 0], Err(TooLong), Err(Invalid)),
        ];
        for (bytes, on_286, later) in rows {
            let length = |encoding| decode(bytes, 0, ModeBits::default(), encoding).map(|insn| insn.len());
            assert_eq!(length(Encoding::I80286), *on_286, "{bytes:02x?} on a 286");
            assert_eq!(length(Encoding::I80386), *later, "{bytes:02x?}");
        }
    }
}
