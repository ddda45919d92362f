//! Runs of pushes, and of pops with the return after them, of the stack's own width: one check for all, where they lie in one
//! page.
//!
//! What goes between them without using memory (a prologue moves its arguments) is part of the run. Where the check fails, behind
//! the block, and the page cannot be put into the TLB, each access is made by its handler in turn; then the way goes on as if it
//! had not.

use super::Disable;
use super::address::{Access, Value, Way};
use super::asm::{Alu, Form, Label, Map, Rm};
use super::block::Emitter;
use super::frame::{PATIENCE, frame};
use super::memo::Reach;
use super::registers::{S0, S1, SP, pinned, slot};
use super::site::Site;
use crate::mode::ModeBits;
use crate::state::Seg;
use crate::state::slots::RSP;
use crate::uop::{Form as Shape, Op, Uop, Width};

/// `Frame::impatient` for a run whose check fails too often (its stack goes over the end of a page, or is watched).
pub const BROKEN_RUN: u32 = 2;
/// Such a run, in the list of what is not to be made again (a uop's index beside).
pub const BROKEN: u16 = 1 << 15;

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
    /// Of the stack and of what is on it.
    width: Width,
}

impl Run {
    /// Bytes of an access.
    fn step(self) -> i32 {
        self.width.bytes() as i32
    }
}

/// What a uop is to a run.
enum Part {
    Access(Way),
    Between,
    Return,
    Other,
}

fn part(uop: &Uop, width: Width) -> Part {
    let whole = uop.width == width && uop.cond == width as u8;
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
        Op::Selector if uop.dst != RSP => Part::Between,
        _ => Part::Other,
    }
}

/// The run that begins with the first of these uops, on a stack of this width.
pub fn find(uops: &[Uop], width: Width) -> Option<Run> {
    let Part::Access(way) = part(uops.first()?, width) else { return None };
    let mut run = Run { len: 0, accesses: 0, way, width };
    for (at, uop) in uops.iter().enumerate() {
        let taken = match part(uop, width) {
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
        let mode = self.context.key.mode;
        let width = if mode.has(ModeBits::L) { Width::B8 } else { Width::B4 };
        let usual = width == Width::B8 || mode.flat(Seg::Cs);
        if !uops.first().is_some_and(|uop| matches!(uop.op, Op::Push | Op::Pop)) {
            return None;
        }
        let off = self.context.disable.has(Disable::STACK_RUNS | Disable::NATIVE);
        if off || !usual || self.is_broken() { None } else { find(uops, width) }
    }

    /// A run, its first uop at `at`; gives how many uops it has.
    pub(super) fn run_of_stack(&mut self, at: usize, run: Run) -> usize {
        let step = run.step();
        let bytes = (step * run.accesses as i32) as u8;
        self.protect(RSP);
        self.clobber();
        let before = self.point();
        let [slow, found, done] = [(); 3].map(|()| self.asm.label());
        let lowest = if run.way == Way::Store { -i32::from(bytes) } else { 0 };
        let reach = Reach::Vector;
        let short = i32::from(bytes) <= reach.bytes();
        let memo = if short { self.memo(reach, run.way) } else { None };
        self.asm.lea(run.width, S0, Rm::Base(SP, lowest));
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
            let up = step * number;
            match part(uop, run.width) {
                Part::Between => self.uop(uop),
                Part::Return => {
                    self.before_return();
                    self.asm.load(run.width, S0, Rm::Base(S1, up));
                }
                _ => {
                    self.before_access(uop);
                    let offset = if run.way == Way::Store { i32::from(bytes) - step - up } else { up };
                    self.touch_stack(uop, run, offset);
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
        self.behind(move |e| {
            let after = e.go_to(before);
            e.asm.bind(slow);
            e.slow_run(at, run, lowest, memo.map(|number| (number, reach)), found);
            e.asm.jmp(done);
            e.go_to(after);
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
    fn touch_stack(&mut self, uop: &Uop, run: Run, offset: i32) {
        let (place, width) = (Rm::Base(S1, offset), run.width);
        let asm = &mut *self.asm;
        if run.way == Way::Load {
            let reg = pinned(uop.dst).unwrap_or(S0);
            asm.load(width, reg, place);
            if reg == S0 {
                asm.store(Width::B8, slot(uop.dst), S0);
            }
            return asm.lea(width, SP, Rm::Base(SP, run.step()));
        }
        match (uop.form, pinned(uop.src)) {
            (Shape::RI, _) => asm.store_imm(width, place, uop.imm as i32),
            (_, Some(reg)) => asm.store(width, place, reg),
            (_, None) => {
                asm.load(Width::B8, S0, slot(uop.src));
                asm.store(width, place, S0);
            }
        }
        asm.lea(width, SP, Rm::Base(SP, -run.step()));
    }

    /// The run behind the block: a memo may only have to be filled, or the TLB; else each access is its handler's.
    fn slow_run(&mut self, at: usize, run: Run, lowest: i32, memo: Option<(u8, Reach)>, found: Label) {
        let bytes = (run.step() * run.accesses as i32) as u8;
        if let Some((number, reach)) = memo {
            self.asm.mov_imm(S1, super::memo::request(number, bytes));
            self.asm.call(self.context.gates.fill_memo[reach as usize][usize::from(run.way != Way::Load)].0);
            self.asm.jcc(4, found);
        }
        let uops = self.context.uops;
        let site = Site { bytes, ..self.site(&uops[at]) };
        let site = self.add_site(site);
        self.asm.lea(run.width, S0, Rm::Base(SP, lowest));
        self.asm.mov_imm32(S1, site);
        self.asm.call(self.context.gates.warm[usize::from(run.way != Way::Load)][self.live.index()].0);
        self.asm.lea(run.width, S0, Rm::Base(SP, lowest));
        let broken = self.asm.label();
        self.check_tlb(bytes, run.way, broken);
        self.asm.jmp(found);
        self.asm.bind(broken);
        let (patience, impatient) = (Rm::cpu(frame!(patience)), Rm::cpu(frame!(impatient)));
        let go_on = self.asm.label();
        self.asm.alu_imm(Alu::Sub, Width::B4, patience, 1);
        self.asm.jcc(9, go_on);
        self.asm.store_imm(Width::B4, patience, PATIENCE);
        self.asm.store_imm(Width::B4, impatient, BROKEN_RUN as i32);
        self.asm.bind(go_on);
        for (n, uop) in uops.iter().enumerate().skip(at).take(run.len) {
            self.set_at(n);
            match part(uop, run.width) {
                Part::Between => self.uop(uop),
                Part::Return => {
                    self.before_return();
                    let form = Form::sized(Map::One, 0x8b, run.width);
                    let access = Access::plain(form, Value::Reg(S0), run.step() as u8, Way::Load);
                    self.asm.load(run.width, S0, Rm::R(SP));
                    self.access_at(uop, access);
                }
                _ => {
                    self.before_access(uop);
                    let site = self.site(uop).with_memo(memo.map(|(number, _)| number));
                    let site = self.with_step(site, uop);
                    let site = self.add_site(site);
                    self.asm.mov_imm32(S1, site);
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
        let find = |uops: &[Uop]| super::find(uops, Width::B8);
        let run = find(&[push, between, push, between, load, push]);
        assert_eq!(run, Some(Run { len: 3, accesses: 2, way: Way::Store, width: Width::B8 }));
        assert_eq!(super::find(&[push, push], Width::B4), None);
        assert_eq!(find(&[push, load, push]), None);
        assert_eq!(find(&[between, push, push]), None);
        assert_eq!(find(&vec![push; 40]).map(|run| run.accesses), Some(MOST));
    }

    #[test]
    fn a_return_belongs_to_the_pops_before_it() {
        let (pop, push, ret) = (uop(Op::Pop, Shape::R), uop(Op::Push, Shape::R), uop(Op::Ret, Shape::R));
        let find = |uops: &[Uop]| super::find(uops, Width::B8);
        assert_eq!(find(&[pop, ret]).map(|run| run.accesses), Some(2));
        assert_eq!(find(&[push, push, ret]).map(|run| run.len), Some(2));
        let to_sp = Uop { dst: RSP, ..pop };
        assert_eq!(find(&[pop, to_sp, ret]), None);
    }
}
