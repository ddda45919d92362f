//! Makes a program that differs small: takes out items, then simplifies what it starts with, as long as it still differs.

use crate::compare;
use crate::host::Host;
use crate::ours::Ours;
use crate::program::{Item, Program};

/// Runs a program on both sides. The lines that differ, `None` if nothing does or the program is not fit to be compared.
pub fn check(host: &mut Host, ours: &mut Ours, program: &Program) -> Option<String> {
    let assembled = program.assemble()?;
    let undefined = program.undefined_flags()?;
    let native = host.run(program.mode, &assembled.code, &program.start).ok()?;
    let own = ours.run(program.mode, &assembled.code, &program.start);
    if compare::vendor_difference(program.mode, &assembled.code, &native, &own).is_some() {
        return None;
    }
    let entry = program.mode.code() + crate::layout::ENTRY;
    let names = compare::undefined_at(&assembled, &undefined, native.registers.rip.wrapping_sub(entry));
    let lines = compare::differences(program.mode, names, &native, &own);
    (!lines.is_empty()).then_some(lines)
}

/// The smallest program found that still differs.
pub fn shrink(host: &mut Host, ours: &mut Ours, program: &Program) -> Program {
    let mut best = program.clone();
    let mut size = best.items.len();
    while size > 0 {
        let mut at = 0;
        while at < best.items.len() {
            let mut less = best.clone();
            let end = (at + size).min(less.items.len());
            // The last HLT stays, and so do labels that a branch names (the program would not assemble).
            let removed = less.items.drain(at..end).any(|item| item != Item::Halt);
            if removed && check(host, ours, &less).is_some() {
                best = less;
            } else {
                at += size;
            }
        }
        size = if size > 1 { size / 2 } else { 0 };
    }
    simplify_start(host, ours, &mut best);
    best
}

/// Zeroes what does not matter of registers and memory.
fn simplify_start(host: &mut Host, ours: &mut Ours, best: &mut Program) {
    let mut attempt = |change: &dyn Fn(&mut Program)| {
        let mut less = best.clone();
        change(&mut less);
        if less != *best && check(host, ours, &less).is_some() {
            *best = less;
        }
    };
    attempt(&|p| p.start.memory.fill(0));
    attempt(&|p| p.start.registers.vectors = [[0; 4]; 16]);
    attempt(&|p| {
        p.start.registers.st = [(0, 0); 8];
        (p.start.registers.tags, p.start.registers.sw) = (0, 0);
    });
    attempt(&|p| p.start.registers.cw = 0x37f);
    attempt(&|p| p.start.registers.mxcsr = 0x1f80);
    attempt(&|p| p.start.registers.rflags = 0x202);
    for n in 0..16 {
        attempt(&move |p| p.start.registers.vectors[n] = [0; 4]);
        if n != 4 {
            attempt(&move |p| p.start.registers.gpr[n] = 0);
        }
        if n < 8 {
            attempt(&move |p| p.start.registers.st[n] = (0, 0));
        }
    }
    let mut chunk = best.start.memory.len();
    while chunk >= 8 {
        for at in (0..best.start.memory.len()).step_by(chunk) {
            let here = at..(at + chunk).min(best.start.memory.len());
            if best.start.memory[here.clone()].iter().any(|b| *b != 0) {
                let mut less = best.clone();
                less.start.memory[here].fill(0);
                if check(host, ours, &less).is_some() {
                    *best = less;
                }
            }
        }
        chunk /= 4;
    }
}
