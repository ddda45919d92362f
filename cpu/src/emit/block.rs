//! One block to host code: walks its uops, keeps track of where flags and vector registers are, and collects the cold paths that
//! follow the block's straight code.

use super::asm::{Asm, Label};
use super::flags::{FlagPlaces, Recipe, SiteFlags};
use super::gate::{Gates, Status};
use super::registers::{S0, S1};
use super::{CodePtr, Disable};
use crate::cache::{BlockKey, Step};
use crate::mode::ModeBits;
use crate::uop::list::Effect;
use crate::uop::{FlagUse, Form, Op, Uop};

/// What emitted code tells Rust when it stops at a place.
#[derive(Clone, Debug)]
pub struct Site {
    /// Index of the instruction in its block.
    pub insn: u8,
    /// Bytes of the access.
    pub bytes: u8,
    /// The access is to the stack segment: #SS rather than #GP.
    pub stack: bool,
    /// What a store added to RSP, to be taken back if it faults.
    pub sp: i8,
    /// The step ends its block.
    pub ends: bool,
    /// Whether vector registers are in host registers.
    pub vectors: bool,
    /// RIP of the block.
    pub block_rip: u64,
    /// RIP to go on with: of the instruction, or a jump's target.
    pub rip: u64,
    /// RIP of the next instruction.
    pub next_rip: u64,
    /// Where the flags are.
    pub flags: SiteFlags,
    /// A direct jump that can be linked.
    pub edge: Option<Edge>,
    /// The uop, to be run by the interpreter's handler, and the end of its block.
    pub steps: Option<Box<[Step; 2]>>,
}

/// A direct jump to another block.
#[derive(Copy, Clone, Debug)]
pub struct Edge {
    /// The displacement to patch.
    pub at: CodePtr,
    /// Where it leads while there is no link.
    pub cold: CodePtr,
    /// The unit it belongs to.
    pub unit: u32,
    /// Source and target lie in one linear page.
    pub same_page: bool,
}

/// What a unit of code was made for, beside its block.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Vector registers are in host registers at entry.
    pub vectors: bool,
    /// The flags at entry, if they are not in the image.
    pub recipe: Option<Recipe>,
}

/// Facts about the block that is being emitted.
pub struct Context<'a> {
    /// Its key.
    pub key: BlockKey,
    /// Its uops.
    pub uops: &'a [Uop],
    /// Offset of each instruction, and of the end.
    pub offsets: &'a [u16],
    /// The common code.
    pub gates: &'a Gates,
    /// What is switched off.
    pub disable: Disable,
    /// Number of the unit.
    pub unit: u32,
    /// Makes the interpreter's step of a uop.
    pub step: &'a mut dyn FnMut(&Uop) -> Box<[Step; 2]>,
    /// Index that the first site gets.
    pub first_site: u32,
}

type Cold = Box<dyn FnOnce(&mut Emitter<'_>)>;

/// The state of emitting one block.
pub struct Emitter<'a> {
    pub(super) asm: &'a mut Asm,
    pub(super) context: Context<'a>,
    /// Sites so far.
    pub sites: Vec<Site>,
    cold: Vec<Cold>,
    /// Where the flags are now.
    pub(super) places: FlagPlaces,
    /// Vector registers are in host registers now.
    pub(super) vectors: bool,
    /// Whether the flags before each uop are needed.
    needed: Vec<bool>,
    /// Index of the current uop.
    at: usize,
}

impl<'a> Emitter<'a> {
    /// Emits a block; `false`: it has something that is left to the interpreter.
    pub fn run(asm: &'a mut Asm, context: Context<'a>, variant: Variant) -> Emitter<'a> {
        let needed = needed(context.uops);
        let places = match variant.recipe {
            recipe @ Some(_) => FlagPlaces { host: false, recipe, saved: false },
            None => FlagPlaces::SAVED,
        };
        let mut emitter = Emitter {
            asm,
            context,
            sites: Vec::new(),
            cold: Vec::new(),
            places,
            vectors: variant.vectors,
            needed,
            at: 0,
        };
        emitter.load_vectors_first();
        let uops = emitter.context.uops;
        let mut at = 0;
        while let Some(uop) = uops.get(at) {
            emitter.at = at;
            match uop.native {
                Some(native) if emitter.is_native(uop) => {
                    let len = uops[at..].iter().take_while(|u| u.insn == uop.insn && u.op != Op::End).count();
                    let group = &uops[at..at + len];
                    for check in group.iter().filter(|u| u.op == Op::Check) {
                        emitter.uop(check);
                    }
                    emitter.at = at + len - 1;
                    emitter.native(&native, group);
                    at += len;
                }
                _ => {
                    emitter.uop(uop);
                    at += 1;
                }
            }
        }
        while !emitter.cold.is_empty() {
            for cold in std::mem::take(&mut emitter.cold) {
                cold(&mut emitter);
            }
        }
        emitter
    }

    /// Whether the flags at the block's start are needed by it.
    pub fn needs_flags(&self) -> bool {
        self.needed.first().copied().unwrap_or(true)
    }

    /// Whether the flags after the current uop are needed.
    pub(super) fn needed_after(&self) -> bool {
        self.needed.get(self.at + 1).copied().unwrap_or(true)
    }

    /// Whether the flags that the current uop sets are needed.
    pub(super) fn wanted(&self) -> bool {
        self.context.uops[self.at].flags == FlagUse::Wanted && self.needed_after()
    }

    /// Defers code to the end of the block.
    pub(super) fn later(&mut self, cold: impl FnOnce(&mut Emitter<'_>) + 'static) {
        self.cold.push(Box::new(cold));
    }

    /// A site for the current uop, at its instruction's start.
    pub(super) fn site(&self, uop: &Uop) -> Site {
        let offset = self.context.offsets.get(usize::from(uop.insn)).copied().unwrap_or(0);
        Site {
            insn: uop.insn,
            bytes: 0,
            sp: 0,
            stack: uop.seg == crate::state::Seg::Ss,
            ends: uop.op.effect() == Effect::Ends,
            vectors: self.vectors,
            next_rip: self.next_rip(uop),
            block_rip: self.context.key.rip,
            rip: self.wrap(self.context.key.rip.wrapping_add(u64::from(offset))),
            flags: self.places.at_site(),
            edge: None,
            steps: None,
        }
    }

    /// RIP of the instruction after the current uop's.
    pub(super) fn next_rip(&self, uop: &Uop) -> u64 {
        let offset = self.context.offsets.get(usize::from(uop.insn) + 1).copied().unwrap_or(0);
        self.wrap(self.context.key.rip.wrapping_add(u64::from(offset)))
    }

    fn wrap(&self, rip: u64) -> u64 {
        if self.context.key.mode.has(ModeBits::L) { rip } else { rip & 0xffff_ffff }
    }

    /// Registers a site and gives its number.
    pub(super) fn add_site(&mut self, site: Site) -> u32 {
        self.sites.push(site);
        self.context.first_site + self.sites.len() as u32 - 1
    }

    /// Leaves emitted code.
    pub(super) fn exit(&mut self, status: Status, site: u32) {
        let vectors = self.sites[(site - self.context.first_site) as usize].vectors;
        self.asm.mov_imm(S0, status as u64);
        self.asm.mov_imm(S1, u64::from(site));
        let target = self.context.gates.exit[usize::from(vectors)];
        self.asm.jmp_to(target.0);
    }

    /// Runs the current uop by the interpreter's handler.
    pub(super) fn by_interpreter(&mut self, uop: &Uop) {
        self.clobber();
        let flags = self.places.at_site();
        let steps = Some((self.context.step)(uop));
        let site = Site { flags, steps, ..self.site(uop) };
        let site = self.add_site(site);
        self.asm.mov_imm(S1, u64::from(site));
        let gate = self.context.gates.step[usize::from(self.vectors)];
        self.asm.call(gate.0);
        self.places = FlagPlaces::SAVED;
    }

    fn uop(&mut self, uop: &Uop) {
        if self.context.disable.has(Disable::NATIVE) && uop.op.effect() != Effect::Ends {
            return self.by_interpreter(uop);
        }
        let done = match uop.op {
            Op::Nop => true,
            Op::Mov | Op::Movzx8 | Op::Movzx16 | Op::Movsx8 | Op::Movsx16 | Op::Movsx32 => self.transfer(uop),
            Op::Lea | Op::ExtractHigh | Op::InsertHigh | Op::Xchg | Op::Bswap => self.rearrange(uop),
            Op::Cmov | Op::Set => self.conditional(uop),
            Op::Add | Op::Sub | Op::And | Op::Or | Op::Xor | Op::Cmp | Op::Test | Op::Adc | Op::Sbb => self.binary(uop),
            Op::Inc | Op::Dec | Op::Neg | Op::Not => self.unary(uop),
            Op::Shl | Op::Shr | Op::Sar | Op::Rol | Op::Ror | Op::Shld | Op::Shrd => self.shift(uop),
            Op::Imul | Op::Imul3 | Op::MulWide | Op::ImulWide | Op::Div | Op::Idiv => self.multiply(uop),
            Op::Bt | Op::Bts | Op::Btr | Op::Btc => self.bit_test(uop),
            Op::Bsf | Op::Bsr | Op::Tzcnt | Op::Lzcnt | Op::Popcnt => self.scan(uop),
            Op::XchgMem | Op::Xadd | Op::Cmpxchg => self.exchange(uop),
            Op::Push | Op::Pop | Op::Leave | Op::AddSp => self.stack(uop),
            Op::Check => self.check(uop),
            Op::Jmp | Op::End | Op::Jcc | Op::CmpJcc | Op::TestJcc | Op::CallNear => self.direct(uop),
            Op::JmpInd | Op::CallInd | Op::Ret => self.indirect(uop),
            _ => false,
        };
        if !done {
            self.by_interpreter(uop);
        }
    }

    /// A label whose cold code leaves emitted code at a site.
    pub(super) fn exit_label(&mut self, status: Status, site: u32) -> Label {
        let label = self.asm.label();
        self.later(move |e| {
            e.asm.bind(label);
            e.exit(status, site);
        });
        label
    }
}

/// Whether the flags before each uop are needed: somebody reads them, or may see them, before all are replaced.
fn needed(uops: &[Uop]) -> Vec<bool> {
    let mut needed = vec![true; uops.len() + 1];
    for (at, uop) in uops.iter().enumerate().rev() {
        needed[at] = match effect(uop) {
            FlagEffect::Sees => true,
            FlagEffect::Replaces => false,
            FlagEffect::None => needed[at + 1],
        };
    }
    needed
}

enum FlagEffect {
    /// Reads them, keeps some of them, or may leave the block and show them.
    Sees,
    /// Replaces all of them.
    Replaces,
    /// Neither.
    None,
}

fn effect(uop: &Uop) -> FlagEffect {
    let memory = uop.form.has_memory() && uop.op != Op::Lea;
    match uop.op {
        _ if memory => FlagEffect::Sees,
        Op::Add | Op::Sub | Op::And | Op::Or | Op::Xor | Op::Cmp | Op::Test | Op::Neg => FlagEffect::Replaces,
        Op::Imul | Op::Imul3 | Op::MulWide | Op::ImulWide | Op::Popcnt | Op::Xadd | Op::Cmpxchg => FlagEffect::Replaces,
        Op::Shl | Op::Shr | Op::Sar if uop.form == Form::RI && uop.imm & 31 != 0 && uop.imm > 0 => FlagEffect::Replaces,
        Op::CmpJcc | Op::TestJcc => FlagEffect::Replaces,
        Op::Mov | Op::Movzx8 | Op::Movzx16 | Op::Movsx8 | Op::Movsx16 | Op::Movsx32 => FlagEffect::None,
        Op::Lea | Op::ExtractHigh | Op::InsertHigh | Op::Xchg | Op::Bswap | Op::Not | Op::Nop => FlagEffect::None,
        Op::AddSp => FlagEffect::None,
        _ => FlagEffect::Sees,
    }
}
