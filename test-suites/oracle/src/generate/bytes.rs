//! One instruction form to bytes, with random operands: registers, memory in the arena, immediates.

use super::table::Form;
use crate::layout::Mode;
use crate::random::Random;
use iced_x86::{Code, Decoder, DecoderOptions, EncodingKind, Instruction, MandatoryPrefix, Mnemonic, OpCodeTableKind};

/// Registers with a purpose while a program runs.
#[derive(Clone, Debug)]
pub struct Purpose {
    /// Point into the data pages.
    pub pointers: Vec<u8>,
    /// Hold small multiples of 8.
    pub indices: Vec<u8>,
    /// The vector register with small indices for gathers.
    pub index_vector: u8,
}

impl Purpose {
    /// Whether a general register must keep its value.
    pub fn keeps(&self, register: u8) -> bool {
        register == 4 || self.pointers.contains(&register) || self.indices.contains(&register)
    }
}

/// An encoded instruction.
pub struct Encoded {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// As the decoder sees it.
    pub insn: Instruction,
    /// It is RIP-relative: where its displacement is.
    pub rip: Option<usize>,
}

/// ModRM, SIB and displacement.
struct Operand {
    bytes: Vec<u8>,
    /// Extension bits: X and B.
    x: bool,
    b: bool,
    rip: bool,
    /// 67h is needed.
    other_address_size: bool,
}

/// Encodes a form; `None` if the random choice was no valid encoding of it.
pub fn encode(form: &Form, mode: Mode, purpose: &Purpose, random: &mut Random) -> Option<Encoded> {
    let op = form.op;
    let vex = op.encoding() == EncodingKind::VEX;
    let long = mode == Mode::Bits64;
    let mut reg = if op.is_group() { op.group_index() as u8 } else { random.below(8) as u8 };
    let mut r = long && !op.is_group() && random.once_in(2);
    if bit_offset(form.code) && !op.is_group() && random.below(4) != 0 {
        let index = purpose.indices.first().copied().unwrap_or(0);
        (reg, r) = (index & 7, index > 7);
    }
    let fixed = op.op_code_len() == 2;
    let operand = if fixed {
        Operand { bytes: Vec::new(), x: false, b: long && random.once_in(2), rip: false, other_address_size: false }
    } else if op.is_rm_group() {
        let rm = op.rm_group_index() as u8;
        Operand { bytes: vec![0xc0 | reg << 3 | rm], x: false, b: false, rip: false, other_address_size: false }
    } else if !form.vsib && random.once_in(2) {
        let modrm = 0xc0 | reg << 3 | random.below(8) as u8;
        let b = long && random.once_in(2);
        Operand { bytes: vec![modrm], x: false, b, rip: false, other_address_size: false }
    } else {
        memory(reg, form, mode, purpose, random)
    };

    let mut bytes = Vec::with_capacity(24);
    if operand.other_address_size {
        bytes.push(0x67);
    }
    let wide = op.operand_size() == 64;
    let swaps = if mode == Mode::Bits16 { op.operand_size() == 32 } else { op.operand_size() == 16 };
    if swaps && !vex {
        bytes.push(0x66);
    }
    if op.can_use_lock_prefix() && random.below(3) == 0 {
        bytes.push(0xf0);
    }
    let repeats = (op.can_use_rep_prefix(), op.can_use_repne_prefix());
    if (repeats.0 || repeats.1) && random.once_in(2) {
        bytes.push(if repeats.1 && random.once_in(2) { 0xf2 } else { 0xf3 });
    }
    if long && random.once_in(24) {
        bytes.push(random.of(&[0x65, 0x2e, 0x3e, 0x26, 0x36]));
    }
    let prefix = match op.mandatory_prefix() {
        MandatoryPrefix::P66 => 1,
        MandatoryPrefix::PF3 => 2,
        MandatoryPrefix::PF2 => 3,
        _ => 0,
    };
    let opcode = op.op_code();
    let low = if form.register_in_opcode { random.below(8) as u8 } else { 0 };
    if vex {
        let map = match op.table() {
            OpCodeTableKind::T0F => 1,
            OpCodeTableKind::T0F38 => 2,
            _ => 3,
        };
        let w = if op.is_wig() { random.once_in(2) } else { op.w() == 1 };
        let l = if op.is_lig() { random.once_in(2) } else { op.l() == 1 };
        let vvvv = if random.once_in(4) { 15 } else { random.below(if long { 16 } else { 8 }) as u8 };
        // A register in vvvv, or none: the decoder settles it.
        let vvvv = if long { vvvv } else { vvvv & 7 };
        let vvvv = if form.vvvv { vvvv } else { 0 };
        let tail = (!vvvv & 15) << 3 | u8::from(l) << 2 | prefix;
        if map == 1 && !w && !operand.x && !operand.b && random.once_in(2) {
            bytes.extend([0xc5, u8::from(!r) << 7 | tail]);
        } else {
            let rxb = u8::from(!r) << 7 | u8::from(!operand.x) << 6 | u8::from(!operand.b) << 5;
            bytes.extend([0xc4, rxb | map, u8::from(w) << 7 | tail]);
        }
        bytes.push(opcode as u8);
    } else {
        bytes.extend([0x66, 0xf3, 0xf2].get(usize::from(prefix).wrapping_sub(1)));
        if long {
            let rex = 0x40 | u8::from(wide) << 3 | u8::from(r) << 2 | u8::from(operand.x) << 1 | u8::from(operand.b);
            if rex != 0x40 || random.once_in(8) {
                bytes.push(rex);
            }
        }
        match op.table() {
            OpCodeTableKind::T0F => bytes.push(0x0f),
            OpCodeTableKind::T0F38 => bytes.extend([0x0f, 0x38]),
            OpCodeTableKind::T0F3A => bytes.extend([0x0f, 0x3a]),
            _ => {}
        }
        if fixed {
            bytes.push((opcode >> 8) as u8);
        }
        bytes.push(opcode as u8 | low);
    }
    let tail = bytes.len();
    bytes.extend(&operand.bytes);
    bytes.extend(random.word().to_le_bytes());
    let mut decoder = Decoder::new(mode.bits(), &bytes, DecoderOptions::NONE);
    let insn = decoder.decode();
    if insn.is_invalid() || insn.code() != form.code {
        return None;
    }
    let constants = decoder.get_constant_offsets(&insn);
    bytes.truncate(insn.len());
    let rip = insn.is_ip_rel_memory_operand();
    if rip && (!operand.rip || constants.displacement_offset() < tail) {
        return None;
    }
    Some(Encoded { bytes, insn, rip: rip.then(|| constants.displacement_offset()) })
}

/// BT and its like with a register as bit offset: memory far away.
pub fn bit_offset(code: Code) -> bool {
    matches!(code.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
}

/// A displacement: mostly aligned, so that vector operands do not all fault.
fn displacement(random: &mut Random) -> i32 {
    let any = random.below(256) as i32 - 128;
    if random.below(8) == 0 { any } else { any & !31 }
}

fn memory(reg: u8, form: &Form, mode: Mode, purpose: &Purpose, random: &mut Random) -> Operand {
    let wide = random.once_in(3);
    let offset = displacement(random) * if wide { 2 } else { 1 };
    let short = i8::try_from(offset).is_ok() && !wide;
    let mut out = Operand { bytes: Vec::new(), x: false, b: false, rip: false, other_address_size: false };
    if mode == Mode::Bits16 && !(form.vsib || random.once_in(4)) {
        let data = (mode.data() + crate::layout::DATA_MIDDLE) as i32 + offset;
        // BX and BP are indices; SI and DI are pointers.
        let rm = random.below(8) as u8;
        let absolute = matches!(rm, 6 | 7);
        let mode_bits = if absolute {
            2
        } else if short {
            1
        } else {
            2
        };
        out.bytes.push(mode_bits << 6 | reg << 3 | rm);
        let value = if absolute { data } else { offset };
        if mode_bits == 1 {
            out.bytes.push(value as u8);
        } else {
            out.bytes.extend((value as u16).to_le_bytes());
        }
        return out;
    }
    out.other_address_size = mode == Mode::Bits16 || mode == Mode::Bits64 && random.once_in(16);
    if !form.vsib && random.once_in(6) {
        // RIP-relative, or absolute: the same bytes.
        out.bytes.push(reg << 3 | 5);
        let linear = mode.data() as u32 + crate::layout::DATA_MIDDLE as u32;
        out.bytes.extend(linear.wrapping_add(offset as u32).to_le_bytes());
        out.rip = mode == Mode::Bits64;
        return out;
    }
    let stack = random.once_in(8);
    let base = if stack { 4 } else { random.of(&purpose.pointers) };
    let index = if form.vsib {
        Some(purpose.index_vector)
    } else if random.once_in(4) {
        purpose.indices.first().copied()
    } else {
        None
    };
    out.b = base > 7;
    out.x = index.is_some_and(|i| i > 7);
    let mode_bits = match offset {
        0 if base & 7 != 5 && random.once_in(2) => 0,
        _ if short => 1,
        _ => 2,
    };
    if index.is_some() || base & 7 == 4 || random.once_in(16) {
        let scale = if form.vsib { random.below(3) as u8 } else { random.below(4) as u8 };
        out.bytes.push(mode_bits << 6 | reg << 3 | 4);
        out.bytes.push(scale << 6 | index.unwrap_or(4) << 3 & 0x38 | base & 7);
    } else {
        out.bytes.push(mode_bits << 6 | reg << 3 | base & 7);
    }
    match mode_bits {
        1 => out.bytes.push(offset as u8),
        2 => out.bytes.extend(offset.to_le_bytes()),
        _ => {}
    }
    out
}
