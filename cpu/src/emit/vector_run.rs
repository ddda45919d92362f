//! Runs of vector loads, or of vector stores, off one register: one check for all, where they lie in one page. Copies and loops
//! over arrays of vectors are made of these.
//!
//! Vector instructions between registers may stand between them. Where the check fails, behind the block, each access goes its
//! own way; then the way goes on as if it had not.

use super::Disable;
use super::address::{At, Way, displacement};
use super::asm::{Alu, Form, Label, Map, Reg, Rm};
use super::block::Emitter;
use super::memo::{self, Reach};
use super::registers::{S0, S1, pinned};
use super::vector::form_of;
use crate::state::slots::ZERO;
use crate::uop::native::{General, Native};
use crate::uop::{AddrKind, Op, Uop, Width};

/// The most accesses of a run.
const MOST: usize = 8;

/// One memory operand.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Place {
    base: Reg,
    disp: i32,
    /// Of the address.
    width: Width,
    bytes: u8,
    way: Way,
    aligned: bool,
}

impl Place {
    /// The memory operand of an instruction that has nothing but a register, a displacement and a vector register.
    fn of(native: &Native, group: &[Uop]) -> Option<Place> {
        let memory = group.iter().find(|uop| matches!(uop.op, Op::VLoad | Op::VStore))?;
        let mem = memory.mem;
        let width = match mem.kind {
            AddrKind::Flat64 => Width::B8,
            AddrKind::Flat32 => Width::B4,
            AddrKind::Checked => return None,
        };
        if native.rm.is_some() || mem.index != ZERO {
            return None;
        }
        let way = if memory.op == Op::VStore { Way::Store } else { Way::Load };
        let (base, disp) = (pinned(mem.base)?, displacement(&mem)?);
        Some(Place { base, disp, width, bytes: memory.imm as u8, way, aligned: memory.cond & 1 != 0 })
    }

    /// Whether this one may follow `first`: the same way off the same register, and what alignment says of the one it says
    /// of the other.
    fn goes_with(self, first: Place) -> bool {
        let apart = self.disp.wrapping_sub(first.disp) % i32::from(first.bytes).max(1);
        let alike = !first.aligned || self.bytes == first.bytes && apart == 0;
        (self.base, self.way, self.aligned) == (first.base, first.way, first.aligned) && alike
    }
}

/// A run at a place in its block.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Number of uops.
    len: usize,
    /// Number of accesses.
    accesses: usize,
    first: Place,
    lowest: i32,
    /// From the lowest byte to the highest one.
    span: i32,
}

/// The uops of the instruction that begins here.
pub fn group(uops: &[Uop]) -> &[Uop] {
    let insn = uops.first().map_or(0, |uop| uop.insn);
    let len = uops.iter().take_while(|uop| uop.insn == insn && uop.op != Op::End).count();
    &uops[..len]
}

/// The run that begins here; `is_native` says whether the host runs an instruction.
pub fn find(uops: &[Uop], is_native: impl Fn(&Uop) -> bool) -> Option<Run> {
    let mut run: Option<Run> = None;
    let mut at = 0;
    while let Some(uop) = uops.get(at).filter(|uop| is_native(uop)) {
        let Some(native) = &uop.native else { break };
        let group = group(&uops[at..]);
        let plain = native.general == General::None && !native.flags && group.iter().all(|uop| uop.op != Op::Check);
        if !plain {
            break;
        }
        let place = Place::of(native, group);
        at += group.len();
        run = match (run, place) {
            (None, Some(first)) => {
                Some(Run { len: at, accesses: 1, first, lowest: first.disp, span: i32::from(first.bytes) })
            }
            (Some(run), Some(place)) if place.goes_with(run.first) && run.accesses < MOST => {
                let lowest = run.lowest.min(place.disp);
                let end = i64::from(run.lowest) + i64::from(run.span);
                let end = end.max(i64::from(place.disp) + i64::from(place.bytes));
                let span = end - i64::from(lowest);
                if span > i64::from(Reach::Line.bytes()) {
                    break;
                }
                Some(Run { len: at, accesses: run.accesses + 1, lowest, span: span as i32, ..run })
            }
            (Some(run), None) if native.rm.is_some() => Some(run),
            _ => break,
        };
    }
    run.filter(|run| run.accesses > 1)
}

impl Emitter<'_> {
    /// The run at a place in the block, if there is one.
    pub(super) fn vector_run(&self, uops: &[Uop]) -> Option<Run> {
        let off = self.context.disable.has(Disable::VECTOR_RUNS);
        if off || uops.first().is_none_or(|uop| uop.native.is_none()) {
            None
        } else {
            find(uops, |uop| self.is_native(uop))
        }
    }

    /// A run, its first uop at `at`; gives how many uops it has.
    pub(super) fn run_of_vectors(&mut self, at: usize, run: Run) -> usize {
        let Run { first, lowest, span, .. } = run;
        self.clobber();
        let before = self.point();
        let [slow, each, found, done] = [(); 4].map(|()| self.asm.label());
        let start = Rm::Base(first.base, lowest);
        if first.aligned {
            self.asm.lea(first.width, S0, start);
            self.asm.op(Form::sized(Map::One, 0xf7, Width::B4).with(i64::from(first.bytes) - 1, 4), 0, Rm::R(S0));
            self.asm.jcc(5, each);
        }
        let memo = self.memo(Reach::Line, first.way);
        // Accesses by the guest's own address; else the first scratch register has that of the lowest byte.
        let in_place = memo.is_some() && first.width == Width::B8;
        if !in_place {
            self.asm.lea(first.width, S0, start);
        }
        match memo {
            Some(number) => self.check_memo(
                number,
                in_place.then_some(At { base: first.base, disp: lowest, width: Width::B8 }),
                slow,
            ),
            None => self.check_tlb(span as u8, first.way, each),
        }
        self.asm.bind(found);
        if !in_place {
            self.asm.alu(Alu::Add, Width::B8, S1, Rm::R(S0));
        }
        let uops = self.context.uops;
        self.each_of(uops, at, run, |e, native, place| {
            let operand = match in_place {
                true => Rm::Full { base: S1, index: place.base, scale: 0, disp: place.disp },
                false => Rm::Base(S1, place.disp - lowest),
            };
            e.asm.op(form_of(native), native.reg, operand);
        });
        self.asm.bind(done);
        self.behind(move |e| {
            let after = e.go_to(before);
            e.asm.bind(slow);
            if let Some(number) = memo {
                e.fill_for_run(number, run, found);
            }
            e.asm.bind(each);
            e.without_memos = true;
            let uops = e.context.uops;
            let mut next = at;
            while next < at + run.len {
                let group = group(&uops[next..]);
                next += group.len();
                e.set_at(next - 1);
                if let Some(native) = group.first().and_then(|uop| uop.native) {
                    e.native(&native, group);
                }
            }
            e.without_memos = false;
            e.asm.jmp(done);
            e.go_to(after);
        });
        run.len
    }

    /// The memo may only have to be filled.
    fn fill_for_run(&mut self, number: u8, run: Run, found: Label) {
        self.asm.lea(run.first.width, S0, Rm::Base(run.first.base, run.lowest));
        self.asm.mov_imm(S1, memo::request(number, run.span as u8));
        self.asm.call(self.context.gates.fill_memo[Reach::Line as usize][usize::from(run.first.way != Way::Load)].0);
        self.asm.jcc(4, found);
    }

    /// The instructions of a run in line: accesses by `access`, the others as they are.
    fn each_of(&mut self, uops: &[Uop], at: usize, run: Run, access: impl Fn(&mut Self, &Native, Place)) {
        let mut next = at;
        while next < at + run.len {
            let group = group(&uops[next..]);
            next += group.len();
            self.set_at(next - 1);
            let Some(native) = group.first().and_then(|uop| uop.native) else { continue };
            match Place::of(&native, group) {
                Some(place) => access(self, &native, place),
                None => self.native(&native, group),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uop::{Form as Shape, Mem};

    const LOAD: Native = Native {
        prefix: 0xf3,
        map: 1,
        opcode: 0x6f,
        wide: false,
        vex: None,
        reg: 1,
        rm: None,
        imm: None,
        general: General::None,
        flags: false,
    };

    /// A load (or store) of 16 bytes off RSI.
    fn access(insn: u8, op: Op, disp: i64, aligned: bool) -> Uop {
        let mem = Mem { kind: AddrKind::Flat64, base: 6, index: ZERO, scale: 0, disp };
        Uop { insn, imm: 16, cond: aligned.into(), form: Shape::M, mem, native: Some(LOAD), ..Uop::new(op) }
    }

    fn found(uops: &[Uop]) -> Option<(usize, usize, i32, i32)> {
        find(uops, |uop| uop.native.is_some()).map(|run| (run.len, run.accesses, run.lowest, run.span))
    }

    #[test]
    fn a_run_is_of_one_way_off_one_register() {
        let load = |insn, disp| access(insn, Op::VLoad, disp, false);
        let store = access(2, Op::VStore, 32, false);
        assert_eq!(found(&[load(0, 16), load(1, -16), store]), Some((2, 2, -16, 48)));
        assert_eq!(found(&[load(0, 0), store]), None);
        let other = Uop { mem: Mem { base: 7, ..store.mem }, ..load(1, 16) };
        assert_eq!(found(&[load(0, 0), other]), None);
        assert_eq!(found(&[load(0, 0), load(1, 112)]), Some((2, 2, 0, 128)));
        assert_eq!(found(&[load(0, 0), load(1, 113)]), None);
        assert_eq!(found(&[load(0, 0), load(1, i64::from(i32::MAX))]), None);
        let many: Vec<Uop> = (0..12).map(|n| load(n, 0)).collect();
        assert_eq!(found(&many).map(|(len, ..)| len), Some(MOST));
    }

    #[test]
    fn registers_may_stand_between_but_not_at_the_end() {
        let load = |insn, disp| access(insn, Op::VLoad, disp, false);
        let between = Uop { insn: 1, native: Some(Native { rm: Some(2), ..LOAD }), ..Uop::new(Op::VCall) };
        let last = Uop { insn: 3, ..between };
        assert_eq!(found(&[load(0, 0), between, load(2, 16), last]), Some((3, 2, 0, 32)));
        let plain = Uop { insn: 1, ..Uop::new(Op::Mov) };
        assert_eq!(found(&[load(0, 0), plain, load(2, 16)]), None);
    }

    #[test]
    fn aligned_accesses_go_with_each_other() {
        let load = |insn, disp, aligned| access(insn, Op::VLoad, disp, aligned);
        assert_eq!(found(&[load(0, 8, true), load(1, 24, true)]), Some((2, 2, 8, 32)));
        assert_eq!(found(&[load(0, 8, true), load(1, 16, true)]), None);
        assert_eq!(found(&[load(0, 0, true), load(1, 16, false)]), None);
    }
}
