//! A program before it is bytes: instructions, branches and labels, so that one can be taken out and the rest still fits;
//! and what may be said of its flags.

use crate::layout::{ARENA, ENTRY, MAX_CODE, Mode, Registers};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, RflagsBits};

/// One part of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An instruction that does not branch (or RET). With `rip`, the displacement at this offset reaches that linear address.
    Plain {
        /// Its bytes.
        bytes: Vec<u8>,
        /// (offset of the displacement, target).
        rip: Option<(usize, u64)>,
    },
    /// A branch to a label.
    Branch {
        /// Which.
        kind: Branch,
        /// The label's number.
        to: usize,
        /// The long form even if the short one reaches.
        near: bool,
    },
    /// A place that branches name.
    Label(usize),
    /// HLT, the end.
    Halt,
}

/// Branches.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Branch {
    /// Jcc with this condition.
    If(u8),
    /// JMP.
    Always,
    /// CALL.
    Call,
    /// LOOPNE, LOOPE, LOOP, JrCXZ: the opcode.
    Counter(u8),
    /// MOV of the target's offset to a register, then JMP through it.
    Through(u8),
}

/// How a program starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Registers.
    pub registers: Registers,
    /// The arena.
    pub memory: Vec<u8>,
}

impl Default for Start {
    fn default() -> Start {
        Start { registers: Registers::ZERO, memory: vec![0; ARENA] }
    }
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The width of its code.
    pub mode: Mode,
    /// What it does.
    pub items: Vec<Item>,
    /// What it begins with.
    pub start: Start,
}

/// A program as bytes.
pub struct Assembled {
    /// The code, from [`ENTRY`] in the code page.
    pub code: Vec<u8>,
    /// Where each item begins in it.
    pub offsets: Vec<usize>,
}

/// The status flags.
pub const STATUS: u32 =
    RflagsBits::CF | RflagsBits::PF | RflagsBits::AF | RflagsBits::ZF | RflagsBits::SF | RflagsBits::OF;

impl Program {
    /// The code; `None` if a branch does not reach or the page is full.
    pub fn assemble(&self) -> Option<Assembled> {
        let mut long: Vec<bool> = self.items.iter().map(|i| matches!(i, Item::Branch { near: true, .. })).collect();
        loop {
            let offsets = self.offsets(&long);
            let mut changed = false;
            for (n, item) in self.items.iter().enumerate() {
                if let Item::Branch { to, .. } = item
                    && !long[n]
                    && i8::try_from(self.distance(n, *to, &offsets)?).is_err()
                {
                    (long[n], changed) = (true, true);
                }
            }
            if !changed {
                return self.emit(&long, offsets);
            }
        }
    }

    fn offsets(&self, long: &[bool]) -> Vec<usize> {
        let mut at = 0;
        let mut offsets = Vec::with_capacity(self.items.len() + 1);
        for (item, long) in self.items.iter().zip(long) {
            offsets.push(at);
            at += match item {
                Item::Plain { bytes, .. } => bytes.len(),
                Item::Label(_) => 0,
                Item::Halt => 1,
                Item::Branch { kind, .. } => self.length(*kind, *long),
            };
        }
        offsets.push(at);
        offsets
    }

    fn length(&self, kind: Branch, long: bool) -> usize {
        let displacement = if self.mode == Mode::Bits16 { 2 } else { 4 };
        match kind {
            Branch::Call => 1 + displacement,
            Branch::Through(register) => 3 + displacement + 2 * usize::from(register > 7),
            Branch::Always if long => 1 + displacement,
            Branch::If(_) if long => 2 + displacement,
            _ => 2,
        }
    }

    fn distance(&self, from: usize, to: usize, offsets: &[usize]) -> Option<i64> {
        let label = self.items.iter().position(|i| *i == Item::Label(to))?;
        Some(offsets[label] as i64 - offsets[from + 1] as i64)
    }

    fn emit(&self, long: &[bool], offsets: Vec<usize>) -> Option<Assembled> {
        let wide = if self.mode == Mode::Bits16 { 2 } else { 4 };
        let mut code = Vec::with_capacity(offsets.last().copied()?);
        let first = self.mode.code() + ENTRY;
        for (n, item) in self.items.iter().enumerate() {
            match item {
                Item::Plain { bytes, rip } => {
                    let from = code.len();
                    code.extend_from_slice(bytes);
                    if let Some((at, target)) = rip {
                        let next = first + code.len() as u64;
                        let displacement = target.wrapping_sub(next) as u32;
                        code.get_mut(from + at..from + at + 4)?.copy_from_slice(&displacement.to_le_bytes());
                    }
                }
                Item::Label(_) => {}
                Item::Halt => code.push(0xf4),
                Item::Branch { kind, to, .. } => {
                    let distance = self.distance(n, *to, &offsets)?;
                    let target = first.wrapping_add(offsets[n + 1] as u64).wrapping_add(distance as u64);
                    let short = i8::try_from(distance).ok();
                    match (kind, long[n]) {
                        (Branch::Call, _) => code.push(0xe8),
                        (Branch::Always, true) => code.push(0xe9),
                        (Branch::If(condition), true) => code.extend([0x0f, 0x80 | condition]),
                        (Branch::Always, false) => code.extend([0xeb, short? as u8]),
                        (Branch::If(condition), false) => code.extend([0x70 | condition, short? as u8]),
                        (Branch::Counter(opcode), _) => code.extend([*opcode, short? as u8]),
                        (Branch::Through(register), _) => {
                            let rex = *register > 7;
                            code.extend(rex.then_some(0x41));
                            code.push(0xb8 | register & 7);
                            code.extend(&target.to_le_bytes()[..wide]);
                            code.extend(rex.then_some(0x41));
                            code.extend([0xff, 0xe0 | register & 7]);
                        }
                    }
                    if matches!(kind, Branch::Call)
                        || long[n] && !matches!(kind, Branch::Through(_) | Branch::Counter(_))
                    {
                        code.extend(&distance.to_le_bytes()[..wide]);
                    }
                }
            }
        }
        (code.len() <= MAX_CODE).then_some(Assembled { code, offsets })
    }

    /// For each item, the flags that the manuals leave undefined before it, and the undefined condition codes of the x87;
    /// `None` if an instruction could read one of them.
    pub fn undefined_flags(&self) -> Option<Vec<u32>> {
        let effects: Vec<Effect> = self.items.iter().map(|item| Effect::of(item, self.mode)).collect();
        let label = |to: &usize| self.items.iter().position(|i| *i == Item::Label(*to));
        let returns: Vec<usize> = (0..self.items.len())
            .filter(|n| matches!(self.items[*n], Item::Branch { kind: Branch::Call, .. }))
            .map(|n| n + 1)
            .collect();
        let mut before: Vec<Option<u32>> = vec![None; self.items.len() + 1];
        before[0] = Some(0);
        let mut work = vec![0];
        while let Some(n) = work.pop() {
            let (Some(item), Some(undefined)) = (self.items.get(n), before[n]) else { continue };
            let effect = effects[n];
            if effect.reads & undefined != 0 {
                return None;
            }
            let after = undefined & !effect.defines | effect.undefines;
            let mut reach = |to: usize| {
                let joined = before[to].unwrap_or(0) | after;
                if before[to] != Some(joined) {
                    before[to] = Some(joined);
                    work.push(to);
                }
            };
            match item {
                Item::Halt => {}
                Item::Branch { kind, to, .. } => {
                    reach(label(to)?);
                    if matches!(kind, Branch::If(_) | Branch::Counter(_)) {
                        reach(n + 1);
                    }
                }
                Item::Plain { .. } if effect.returns => returns.iter().for_each(|to| reach(*to)),
                Item::Plain { .. } | Item::Label(_) => reach(n + 1),
            }
        }
        Some(before.into_iter().map(|b| b.unwrap_or(0)).collect())
    }
}

/// What an item does to the flags.
#[derive(Copy, Clone, Default)]
struct Effect {
    reads: u32,
    defines: u32,
    undefines: u32,
    returns: bool,
}

impl Effect {
    fn of(item: &Item, mode: Mode) -> Effect {
        match item {
            Item::Plain { bytes, .. } => {
                let insn = Decoder::new(mode.bits(), bytes, DecoderOptions::NONE).decode();
                let (reads, defines, undefines) = flag_effect(&insn);
                Effect { reads, defines, undefines, returns: insn.flow_control() == FlowControl::Return }
            }
            Item::Branch { kind: Branch::If(condition), .. } => {
                Effect { reads: condition_reads(*condition), ..Effect::default() }
            }
            Item::Branch { kind: Branch::Counter(0xe0 | 0xe1), .. } => {
                Effect { reads: RflagsBits::ZF, ..Effect::default() }
            }
            _ => Effect::default(),
        }
    }
}

/// The flags that a condition reads.
pub fn condition_reads(condition: u8) -> u32 {
    use RflagsBits as F;
    match condition >> 1 {
        0 => F::OF,
        1 => F::CF,
        2 => F::ZF,
        3 => F::CF | F::ZF,
        4 => F::SF,
        5 => F::PF,
        6 => F::SF | F::OF,
        _ => F::SF | F::OF | F::ZF,
    }
}

/// (read, certainly defined, left undefined) status flags of an instruction.
pub fn flag_effect(insn: &Instruction) -> (u32, u32, u32) {
    use Mnemonic as M;
    let mut undefined = insn.rflags_undefined() & STATUS;
    // A count that is zero modulo the width and one: SDM vol. 2 says that nothing changes, AMD's processors set OF (recorded).
    if matches!(insn.mnemonic(), M::Rcl | M::Rcr) && insn.immediate8() != 1 {
        undefined |= RflagsBits::OF;
    }
    let mut defined = insn.rflags_modified() & STATUS & !undefined;
    let counted = matches!(
        insn.mnemonic(),
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    );
    // By CL or a masked immediate of zero nothing may change; a repeated comparison may do nothing.
    if counted || insn.has_rep_prefix() || insn.has_repne_prefix() {
        defined = 0;
    }
    (insn.rflags_read() & STATUS, defined, undefined)
}

/// The decoder's name of AF.
pub const AF: u32 = RflagsBits::AF;
/// The decoder's names of the x87's condition codes.
pub const X87_CONDITIONS: u32 = RflagsBits::C0 | RflagsBits::C1 | RflagsBits::C2 | RflagsBits::C3;
