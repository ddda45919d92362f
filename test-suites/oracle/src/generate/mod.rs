//! Random programs: profiles of families, 20 to 60 instructions with memory operands, forward branches, counted loops, calls.
//!
//! Some registers keep a purpose (pointers into the data pages, small indices, the stack), so that most operands are mapped;
//! a share of all programs breaks that rule, and faults. What the manuals leave undefined is never read.

mod bytes;
mod start;
mod table;

use crate::layout::Mode;
use crate::program::{Branch, Item, Program, STATUS, condition_reads, flag_effect};
use crate::random::Random;
use bytes::{Encoded, Purpose, bit_offset, encode};
use iced_x86::{Code, InstructionInfoFactory, Mnemonic as M, OpAccess, OpKind};
pub use table::{Family, Table};
use umbra_cpu::model::CpuModel;

/// Weights of the families in the order of [`Family::ALL`].
#[rustfmt::skip]
const PROFILES: &[[usize; 6]] = &[
    [10, 0, 0, 0, 0, 0],
    [10, 0, 0, 0, 0, 2],
    [3, 10, 0, 0, 0, 0],
    [4, 1, 10, 2, 0, 0],
    [3, 0, 0, 10, 0, 0],
    [3, 0, 0, 0, 10, 1],
    [4, 0, 0, 6, 6, 1],
    [5, 2, 1, 3, 3, 1],
];

/// Makes programs.
pub struct Generator {
    tables: Vec<(Mode, Table)>,
    info: InstructionInfoFactory,
    /// How often each form was put into a program, by the decoder's number.
    pub used: Vec<u64>,
}

/// The state of one program under construction.
struct Draft<'a> {
    mode: Mode,
    purpose: Purpose,
    random: &'a mut Random,
    weights: [usize; 6],
    items: Vec<Item>,
    /// Undefined flags here.
    undefined: u32,
    labels: usize,
    /// In a called function: the stack stays as it is.
    inside: bool,
    /// Registers that a loop counts with.
    counters: Vec<u8>,
    /// Purposes are not kept.
    wild: bool,
}

impl Generator {
    /// A generator for what host and model have.
    pub fn new(model: &CpuModel) -> Generator {
        let tables = Mode::ALL.into_iter().map(|mode| (mode, Table::new(mode, model))).collect();
        Generator { tables, info: InstructionInfoFactory::new(), used: vec![0; Code::values().len()] }
    }

    /// The table of a mode.
    pub fn table(&self, mode: Mode) -> &Table {
        &self.tables[Mode::ALL.iter().position(|m| *m == mode).unwrap_or(0)].1
    }

    /// A random program; every random number that it needs comes from `seed`.
    pub fn program(&mut self, mode: Mode, seed: u64) -> Program {
        let mut random = Random(seed);
        loop {
            if let Some(program) = self.attempt(mode, &mut random) {
                return program;
            }
        }
    }

    /// A program of one instruction: form number `form` of the mode's table, with random operands. `None` if the choice was
    /// no valid encoding.
    pub fn single(&self, mode: Mode, form: usize, seed: u64) -> Option<Program> {
        let mut random = Random(seed << 32 | form as u64);
        let purpose = purpose(mode, &mut random);
        let mut start = start::start(mode, &purpose, &mut random);
        (start.registers.cw, start.registers.sw) = (0x37f, start.registers.sw & !0x80ff);
        start.registers.rip = mode.code() + crate::layout::ENTRY;
        let form = self.table(mode).all().nth(form)?;
        let encoded = (0..16).find_map(|_| encode(form, mode, &purpose, &mut random))?;
        let rip = encoded.rip.map(|at| (at, mode.data() + crate::layout::DATA_MIDDLE));
        let items = vec![Item::Plain { bytes: encoded.bytes, rip }, Item::Halt];
        Some(Program { mode, items, start })
    }

    fn attempt(&mut self, mode: Mode, random: &mut Random) -> Option<Program> {
        let purpose = purpose(mode, random);
        let mut start = start::start(mode, &purpose, random);
        let wild = random.once_in(40);
        let weights = random.of(PROFILES);
        let mut draft = Draft {
            mode,
            purpose,
            random,
            weights,
            items: Vec::new(),
            undefined: 0,
            labels: 0,
            inside: false,
            counters: Vec::new(),
            wild,
        };
        let length = 20 + draft.random.below(40);
        let mut functions = Vec::new();
        while draft.items.len() < length {
            match draft.random.below(24) {
                0 | 1 => self.forward(&mut draft),
                2 => self.counted(&mut draft),
                3 if draft.items.len() < length / 2 => {
                    let to = draft.label();
                    draft.branch(Branch::Call, to);
                    functions.push(to);
                    draft.undefined = STATUS;
                }
                4 => self.fixed(&mut draft),
                _ => self.one(&mut draft),
            }
        }
        draft.items.push(Item::Halt);
        for to in functions {
            draft.items.push(Item::Label(to));
            draft.inside = true;
            draft.undefined = STATUS;
            for _ in 0..1 + draft.random.below(5) {
                self.one(&mut draft);
            }
            draft.items.push(Item::Plain { bytes: vec![0xc3], rip: None });
        }
        let items = draft.items;
        start.registers.rip = mode.code() + crate::layout::ENTRY;
        let program = Program { mode, items, start };
        (program.undefined_flags().is_some() && program.assemble().is_some()).then_some(program)
    }

    /// One instruction, with what it needs before it.
    fn one(&mut self, draft: &mut Draft) {
        for _ in 0..64 {
            let family = pick(&draft.weights, draft.random);
            let forms = self.tables[Mode::ALL.iter().position(|m| *m == draft.mode).unwrap_or(0)].1.of(family);
            if forms.is_empty() {
                continue;
            }
            let form = &forms[draft.random.below(forms.len())];
            let code = form.code;
            let Some(encoded) = encode(form, draft.mode, &draft.purpose, draft.random) else { continue };
            let mut encoded = encoded;
            tame_enter(&mut encoded, draft.random);
            if self.fits(draft, &encoded) {
                self.used[code as usize] += 1;
                draft.put(encoded);
                return;
            }
        }
    }

    /// Whether an instruction may stand here; what it needs before it is put there.
    fn fits(&mut self, draft: &mut Draft, encoded: &Encoded) -> bool {
        let insn = &encoded.insn;
        let (reads, ..) = flag_effect(insn);
        if reads & draft.undefined != 0 {
            return false;
        }
        let string = insn.is_string_instruction();
        let stack = insn.is_stack_instruction();
        if draft.inside && (stack || insn.memory_base().full_register().number() == 4) {
            return false;
        }
        let info = self.info.info(insn);
        for used in info.used_registers() {
            let writes = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
            let register = used.register();
            if !writes {
                continue;
            }
            if register.is_gpr() {
                let n = register.full_register().number() as u8;
                let moves = string && matches!(n, 6 | 7) || stack && n == 4;
                if draft.counters.contains(&n) || draft.purpose.keeps(n) && !moves && !draft.wild {
                    return false;
                }
            } else if register.is_vector_register()
                && register.number() == usize::from(draft.purpose.index_vector)
                && insn.mnemonic() != M::Vzeroall
                && !draft.wild
            {
                return false;
            }
        }
        draft.prepare(insn)
    }

    /// A branch over a few instructions.
    fn forward(&mut self, draft: &mut Draft) {
        let to = draft.label();
        let condition = draft.random.below(16) as u8;
        let kind = match draft.random.below(8) {
            0 => Branch::Always,
            1 => Branch::Counter(0xe3),
            2 => match draft.free_register() {
                Some(register) => Branch::Through(register),
                None => Branch::Always,
            },
            _ => Branch::If(condition),
        };
        draft.branch(kind, to);
        let before = draft.undefined;
        for _ in 0..1 + draft.random.below(5) {
            self.one(draft);
        }
        draft.items.push(Item::Label(to));
        draft.undefined |= before;
    }

    /// A loop that a register counts.
    fn counted(&mut self, draft: &mut Draft) {
        if !draft.counters.is_empty() {
            return;
        }
        let by_loop = draft.random.once_in(3);
        let counter = if by_loop { Some(1).filter(|c| !draft.purpose.keeps(*c)) } else { draft.free_register() };
        let Some(counter) = counter else { return };
        // Some loops run long enough to be compiled.
        let count = if draft.random.once_in(3) { 20 + draft.random.below(300) } else { 1 + draft.random.below(12) };
        draft.move_immediate(counter, count as u32);
        let top = draft.label();
        draft.items.push(Item::Label(top));
        draft.counters.push(counter);
        // What the body leaves undefined is so at its top too: nothing may be read before it is defined.
        draft.undefined = STATUS;
        for _ in 0..1 + draft.random.below(7) {
            if draft.random.once_in(6) { self.forward(draft) } else { self.one(draft) }
        }
        if by_loop {
            let opcode = if draft.undefined & iced_x86::RflagsBits::ZF == 0 {
                draft.random.of(&[0xe0, 0xe1, 0xe2])
            } else {
                0xe2
            };
            draft.branch(Branch::Counter(opcode), top);
        } else {
            // DEC, then JNZ.
            let dec: &[u8] = if draft.mode == Mode::Bits16 { &[0x66, 0xff] } else { &[0xff] };
            let mut bytes = dec.to_vec();
            if counter > 7 {
                bytes.insert(0, 0x41);
            }
            bytes.push(0xc8 | counter & 7);
            draft.plain(bytes);
            draft.branch(Branch::If(5), top);
        }
        draft.counters.pop();
    }

    /// Sequences with fixed bytes: control words, POPF, pointers put back, aligned stack.
    fn fixed(&mut self, draft: &mut Draft) {
        let store = |value: u32| {
            let rest: &[u8] = if draft.mode == Mode::Bits16 { &[0x66, 0xc7, 0x45, 0x40] } else { &[0xc7, 0x47, 0x40] };
            let mut bytes = rest.to_vec();
            bytes.extend(value.to_le_bytes());
            bytes
        };
        let through_di = if draft.mode == Mode::Bits16 { 5 } else { 7 };
        match draft.random.below(4) {
            0 => {
                let control = start::x87_control(draft.random);
                draft.plain(store(control.into()));
                draft.plain(vec![0xd9, 0x68 | through_di, 0x40]);
            }
            1 => {
                let control = start::sse_control(draft.random);
                draft.plain(store(control));
                draft.plain(vec![0x0f, 0xae, 0x50 | through_di, 0x40]);
            }
            2 if !draft.inside => {
                let flags = draft.random.word() as u32 & 0x8d5 | 0x202 | u32::from(draft.random.once_in(8)) << 10;
                let mut push = if draft.mode == Mode::Bits16 { vec![0x66, 0x68] } else { vec![0x68] };
                push.extend(flags.to_le_bytes());
                draft.plain(push);
                draft.plain(if draft.mode == Mode::Bits16 { vec![0x66, 0x9d] } else { vec![0x9d] });
            }
            _ if draft.wild => {}
            _ => {
                for register in draft.purpose.pointers.clone() {
                    let to = draft.mode.data() + crate::layout::DATA_MIDDLE;
                    draft.move_immediate(register, to as u32);
                }
            }
        }
    }
}

/// ENTER with a small frame, not nested: which of its pushes are stored before a fault is not defined.
fn tame_enter(encoded: &mut Encoded, random: &mut Random) {
    if encoded.insn.mnemonic() == M::Enter
        && let Some([low, high, level]) = encoded.bytes.last_chunk_mut::<3>()
    {
        (*low, *high, *level) = (random.word() as u8 & 0xf8, 0, *level % 2);
    }
}

/// A family by weight.
fn pick(weights: &[usize; 6], random: &mut Random) -> Family {
    let mut left = random.below(weights.iter().sum());
    for (family, weight) in Family::ALL.into_iter().zip(weights) {
        if left < *weight {
            return family;
        }
        left -= weight;
    }
    Family::Integer
}

fn purpose(mode: Mode, random: &mut Random) -> Purpose {
    let index_vector = random.below(mode.registers()) as u8;
    match mode {
        Mode::Bits16 => Purpose { pointers: vec![6, 7], indices: vec![3, 5], index_vector },
        _ => {
            let mut pointers = vec![6, 7];
            let more: &[u8] = if mode == Mode::Bits64 { &[3, 5, 8, 12, 13, 15] } else { &[0, 2, 5] };
            if random.once_in(2) {
                pointers.push(random.of(more));
            }
            let index: &[u8] = if mode == Mode::Bits64 { &[0, 3, 5, 9, 12, 13] } else { &[0, 3, 5] };
            let index = random.of(index);
            let indices = if pointers.contains(&index) { vec![2] } else { vec![index] };
            Purpose { pointers, indices, index_vector }
        }
    }
}

impl Draft<'_> {
    fn label(&mut self) -> usize {
        self.labels += 1;
        self.labels
    }

    fn plain(&mut self, bytes: Vec<u8>) {
        let decoded = iced_x86::Decoder::new(self.mode.bits(), &bytes, iced_x86::DecoderOptions::NONE).decode();
        let (_, defines, undefines) = flag_effect(&decoded);
        self.undefined = self.undefined & !defines | undefines;
        self.items.push(Item::Plain { bytes, rip: None });
    }

    fn put(&mut self, encoded: Encoded) {
        let (_, defines, undefines) = flag_effect(&encoded.insn);
        self.undefined = self.undefined & !defines | undefines;
        let offset = self.random.below(8) as u64 * 32;
        let target = self.mode.data() + crate::layout::DATA_MIDDLE + offset;
        let rip = encoded.rip.map(|at| (at, target));
        self.items.push(Item::Plain { bytes: encoded.bytes, rip });
    }

    /// Adds a branch, if its flags are defined.
    fn branch(&mut self, kind: Branch, to: usize) {
        let near = self.random.once_in(4);
        let kind = match kind {
            Branch::If(condition) if self.undefined & condition_reads(condition) != 0 => Branch::Counter(0xe3),
            other => other,
        };
        self.items.push(Item::Branch { kind, to, near });
    }

    /// A register without a purpose.
    fn free_register(&mut self) -> Option<u8> {
        let n = self.random.below(self.mode.registers()) as u8;
        (!self.purpose.keeps(n) && !self.counters.contains(&n)).then_some(n)
    }

    /// MOV r32, imm32.
    fn move_immediate(&mut self, register: u8, value: u32) {
        let mut bytes = if self.mode == Mode::Bits16 { vec![0x66] } else { Vec::new() };
        bytes.extend((register > 7).then_some(0x41));
        bytes.push(0xb8 | register & 7);
        bytes.extend(value.to_le_bytes());
        self.plain(bytes);
    }

    /// Puts before an instruction what keeps it from faulting, most times; false if it may not stand here at all.
    fn prepare(&mut self, insn: &iced_x86::Instruction) -> bool {
        let careful = self.random.below(24) != 0;
        let memory = (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory);
        let free = |draft: &Draft, n: u8| !draft.purpose.keeps(n) && !draft.counters.contains(&n);
        match insn.mnemonic() {
            M::Div | M::Idiv if careful => {
                let byte = insn.op0_register().size() == 1 || insn.memory_size().size() == 1;
                if byte {
                    // MOVZX EAX, AL.
                    let bytes: &[u8] =
                        if self.mode == Mode::Bits16 { &[0x66, 0x0f, 0xb6, 0xc0] } else { &[0x0f, 0xb6, 0xc0] };
                    if !free(self, 0) {
                        return false;
                    }
                    self.plain(bytes.to_vec());
                } else {
                    if !free(self, 2) {
                        return false;
                    }
                    let value = if insn.mnemonic() == M::Idiv && self.random.once_in(2) { u32::MAX } else { 0 };
                    self.move_immediate(2, value);
                }
            }
            M::Aam if insn.immediate8() == 0 => return !careful,
            M::Shld | M::Shrd if insn.op0_register().size() == 2 || memory && insn.memory_size().size() == 2 => {
                if insn.op2_kind() != OpKind::Immediate8 {
                    if !free(self, 1) {
                        return false;
                    }
                    let count = self.random.below(17) as u32;
                    self.move_immediate(1, count);
                } else if insn.immediate8() & 31 > 16 {
                    return false;
                }
            }
            M::Bt | M::Bts | M::Btr | M::Btc if memory && insn.op1_kind() == OpKind::Register => {
                let n = insn.op1_register().full_register().number() as u8;
                return self.purpose.indices.contains(&n) || !careful && bit_offset(insn.code());
            }
            M::Xlatb => return self.purpose.pointers.contains(&3),
            M::Leave | M::Enter if self.mode == Mode::Bits16 || self.inside || self.wild => return false,
            M::Leave | M::Enter => {
                if !free(self, 5) {
                    return false;
                }
                self.plain(if self.mode == Mode::Bits64 { vec![0x48, 0x89, 0xe5] } else { vec![0x89, 0xe5] });
            }
            M::Bound => return self.random.once_in(8),
            M::Into | M::Cmpxchg16b | M::Cmpxchg8b if !careful => return true,
            _ => {}
        }
        if insn.is_string_instruction() && (insn.has_rep_prefix() || insn.has_repne_prefix()) {
            if !free(self, 1) {
                return false;
            }
            let count = self.random.below(12) as u32;
            self.move_immediate(1, count);
        }
        // Absolute offsets in the instruction itself are random: they fault.
        let absolute = memory && insn.memory_base() == iced_x86::Register::None && !insn.is_ip_rel_memory_operand();
        if absolute && insn.memory_index() == iced_x86::Register::None {
            let data = self.mode.data();
            let inside = (data..data + 0x3000).contains(&insn.memory_displacement64());
            return inside || !careful;
        }
        // In 16-bit code a 32-bit stack pointer has the host's upper half.
        if self.mode == Mode::Bits16 && (0..insn.op_count()).any(|n| insn.op_register(n) == iced_x86::Register::ESP) {
            return false;
        }
        if self.mode == Mode::Bits16 && (insn.memory_base() == iced_x86::Register::ESP || insn.mnemonic() == M::Pushad)
        {
            return false;
        }
        true
    }
}

/// The form with this number.
pub fn code(number: usize) -> Code {
    Code::values().nth(number).unwrap_or(Code::INVALID)
}
