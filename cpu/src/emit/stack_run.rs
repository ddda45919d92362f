//! Runs of pushes, and of pops with the return after them, in 64-bit code: one check for all, where they lie in one page.
//!
//! What goes between them without using memory (a prologue moves its arguments) is part of the run. Where the check fails, behind
//! the block, each access is made by its handler in turn; then the way goes on as if it had not.

use super::Disable;
use super::address::{Access, Value, Way};
use super::asm::{Alu, Form, Label, Map, Rm};
use super::block::{Emitter, Site};
use super::memo::Reach;
use super::registers::{S0, S1, SP, pinned, slot};
use crate::mode::ModeBits;
use crate::state::slots::RSP;
use crate::uop::{Form as Shape, Op, Uop, Width};

/// The most accesses of a run.
const MOST: usize = 12;

/// A run at a place in its block.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Number of uops.
    len: usize,
    /// Number of accesses.
    accesses: usize,
    way: Way,
}

/// What a uop is to a run.
enum Part {
    Access(Way),
    Between,
    Return,
    Other,
}

fn part(uop: &Uop) -> Part {
    let whole = uop.width == Width::B8 && uop.cond == 3;
    let small = i32::try_from(uop.imm).is_ok();
    let registers = match uop.form {
        Shape::RR | Shape::R => true,
        Shape::RI => small,
        Shape::RM | Shape::MR | Shape::M | Shape::MI => false,
    };
    match uop.op {
        Op::Push if whole && registers => Part::Access(Way::Store),
        Op::Pop if whole && uop.dst != RSP => Part::Access(Way::Load),
        Op::Ret if whole && uop.imm <= 0x7fff => Part::Return,
        Op::Mov | Op::Add | Op::Sub | Op::And | Op::Or | Op::Xor | Op::Cmp | Op::Test
            if registers && uop.width >= Width::B4 && uop.dst != RSP =>
        {
            Part::Between
        }
        _ => Part::Other,
    }
}

/// The run that begins with the first of these uops.
pub fn find(uops: &[Uop]) -> Option<Run> {
    let Part::Access(way) = part(uops.first()?) else { return None };
    let mut run = Run { len: 0, accesses: 0, way };
    for (at, uop) in uops.iter().enumerate() {
        let taken = match part(uop) {
            Part::Access(other) => other == way,
            Part::Between => continue,
            Part::Return if way == Way::Load => true,
            Part::Return | Part::Other => false,
        };
        if !taken || run.accesses == MOST {
            break;
        }
        (run.len, run.accesses) = (at + 1, run.accesses + 1);
    }
    (run.accesses > 1).then_some(run)
}

impl Emitter<'_> {
    /// The run at a place in the block, if there is one.
    pub(super) fn stack_run(&self, uops: &[Uop]) -> Option<Run> {
        let off = self.context.disable.has(Disable::STACK_RUNS | Disable::NATIVE);
        if off || !self.context.key.mode.has(ModeBits::L) { None } else { find(uops) }
    }

    /// A run, its first uop at `at`; gives how many uops it has.
    pub(super) fn run_of_stack(&mut self, at: usize, run: Run) -> usize {
        let bytes = 8 * run.accesses as u8;
        self.protect(RSP);
        self.clobber();
        let (before, live, x87) = (self.places, self.live, self.x87);
        let [slow, found, done] = [(); 3].map(|()| self.asm.label());
        let lowest = if run.way == Way::Store { -i32::from(bytes) } else { 0 };
        let reach = Reach::Vector;
        let short = i32::from(bytes) <= reach.bytes();
        let memo = if short { self.memo(reach, run.way) } else { None };
        super::address::lea(self.asm, S0, (SP, lowest));
        match memo {
            Some(number) => self.check_memo(number, None, slow),
            None => self.check_tlb(bytes, run.way, slow),
        }
        self.asm.bind(found);
        self.asm.alu(Alu::Add, Width::B8, S1, Rm::R(S0));
        let uops = self.context.uops;
        let mut number = 0;
        for (n, uop) in uops.iter().enumerate().skip(at).take(run.len) {
            self.set_at(n);
            let offset = i32::from(bytes) - 8 - 8 * number;
            match part(uop) {
                Part::Between => self.uop(uop),
                Part::Return => {
                    self.before_return();
                    self.asm.load(Width::B8, S0, Rm::Base(S1, 8 * number));
                }
                _ => {
                    self.before_access(uop);
                    self.touch_stack(uop, run.way, if run.way == Way::Store { offset } else { 8 * number });
                    number += 1;
                }
            }
        }
        let last = uops[at + run.len - 1];
        let returns = last.op == Op::Ret;
        if returns {
            self.asm.bind(done);
            self.return_to(&last);
        }
        self.later(move |e| {
            let after =
                (e.resume(at, before), std::mem::replace(&mut e.live, live), std::mem::replace(&mut e.x87, x87));
            e.asm.bind(slow);
            e.slow_run(at, run, memo.map(|number| (number, reach)), found);
            e.asm.jmp(done);
            ((e.live, e.x87), _) = ((after.1, after.2), e.resume(after.0.0, after.0.1));
        });
        if !returns {
            self.asm.bind(done);
        }
        run.len
    }

    /// What each access does to the places of flags, on the fast way as on the slow one.
    fn before_access(&mut self, uop: &Uop) {
        self.protect(RSP);
        if uop.op == Op::Pop {
            self.protect(uop.dst);
        }
        self.clobber();
    }

    fn before_return(&mut self) {
        // Whoever is jumped to finds the flags in the image.
        self.save_flags();
        self.note_x87();
        self.protect(RSP);
        self.clobber();
    }

    /// A push or pop at the host address in the second scratch register.
    fn touch_stack(&mut self, uop: &Uop, way: Way, offset: i32) {
        let place = Rm::Base(S1, offset);
        let asm = &mut *self.asm;
        if way == Way::Load {
            let reg = pinned(uop.dst).unwrap_or(S0);
            asm.load(Width::B8, reg, place);
            if reg == S0 {
                asm.store(Width::B8, slot(uop.dst), S0);
            }
            return asm.lea(Width::B8, SP, Rm::Base(SP, 8));
        }
        match (uop.form, pinned(uop.src)) {
            (Shape::RI, _) => asm.store_imm(Width::B8, place, uop.imm as i32),
            (_, Some(reg)) => asm.store(Width::B8, place, reg),
            (_, None) => {
                asm.load(Width::B8, S0, slot(uop.src));
                asm.store(Width::B8, place, S0);
            }
        }
        asm.lea(Width::B8, SP, Rm::Base(SP, -8));
    }

    /// The run behind the block: a memo may only have to be filled, else each access is its handler's.
    fn slow_run(&mut self, at: usize, run: Run, memo: Option<(u8, Reach)>, found: Label) {
        if let Some((number, reach)) = memo {
            self.asm.mov_imm(S1, super::memo::request(number, 8 * run.accesses as u8));
            self.asm.call(self.context.gates.fill_memo[reach as usize][usize::from(run.way != Way::Load)].0);
            self.asm.jcc(4, found);
        }
        let uops = self.context.uops;
        for (n, uop) in uops.iter().enumerate().skip(at).take(run.len) {
            self.set_at(n);
            match part(uop) {
                Part::Between => self.uop(uop),
                Part::Return => {
                    self.before_return();
                    let form = Form::sized(Map::One, 0x8b, Width::B8);
                    let access = Access::plain(form, Value::Reg(S0), 8, Way::Load);
                    self.access_at(uop, Access { at: Some((SP, 0)), ..access });
                }
                _ => {
                    self.before_access(uop);
                    let steps = Some((self.context.step)(uop));
                    let site = Site { steps, memo: memo.map(|(number, _)| number), ..self.site(uop) };
                    let site = self.add_site(site);
                    self.asm.mov_imm(S1, u64::from(site));
                    self.asm.call(self.context.gates.step[self.live.index()].0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uop(op: Op, form: Shape) -> Uop {
        Uop { form, width: Width::B8, cond: 3, ..Uop::new(op) }
    }

    #[test]
    fn a_run_ends_with_its_last_access() {
        let push = uop(Op::Push, Shape::R);
        let between = uop(Op::Mov, Shape::RR);
        let load = uop(Op::Mov, Shape::RM);
        let run = find(&[push, between, push, between, load, push]);
        assert_eq!(run, Some(Run { len: 3, accesses: 2, way: Way::Store }));
        assert_eq!(find(&[push, load, push]), None);
        assert_eq!(find(&[between, push, push]), None);
        assert_eq!(find(&vec![push; 40]).map(|run| run.accesses), Some(MOST));
    }

    #[test]
    fn a_return_belongs_to_the_pops_before_it() {
        let (pop, push, ret) = (uop(Op::Pop, Shape::R), uop(Op::Push, Shape::R), uop(Op::Ret, Shape::R));
        assert_eq!(find(&[pop, ret]).map(|run| run.accesses), Some(2));
        assert_eq!(find(&[push, push, ret]).map(|run| run.len), Some(2));
        let to_sp = Uop { dst: RSP, ..pop };
        assert_eq!(find(&[pop, to_sp, ret]), None);
    }
}
