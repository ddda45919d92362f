//! Checks on what lift made: faults commit nothing. Runs on every block in debug builds and in tests.

use super::list::Effect;
use super::{Form, Op, Uop};
use crate::state::slots::COUNT;

/// Why a block's uops are not well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Index of the uop.
    pub at: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Checks the uops of a block.
pub fn verify(uops: &[Uop]) -> Result<(), Malformed> {
    let fail = |at, what| Err(Malformed { at, what });
    for (at, uop) in uops.iter().enumerate() {
        let last = at + 1 == uops.len();
        let last_of_insn = last || uops[at + 1].insn != uop.insn || uops[at + 1].op == Op::End;
        if (uop.op.effect() == Effect::Ends) != last {
            return fail(at, "a block ends exactly once, with its last uop");
        }
        if matches!(uop.op, Op::Call | Op::CallEnd | Op::VCall) != uop.helper.is_some() {
            return fail(at, "a helper belongs to a call, and only there");
        }
        if uop.op != Op::VLoad && uop.op != Op::VStore && uop.helper.is_none() && (uop.dst >= COUNT || uop.src >= COUNT)
        {
            return fail(at, "no such slot");
        }
        let stores = uop.op == Op::VStore || matches!(uop.form, Form::MR | Form::MI | Form::M) && stores_memory(uop.op);
        if stores && !last_of_insn {
            return fail(at, "a store is the last uop of its instruction");
        }
        let writes_register = matches!(uop.form, Form::R | Form::RR | Form::RI) && uop.dst < 16 && writes_dst(uop.op);
        if writes_register {
            let later = uops[at + 1..].iter().take_while(|u| u.insn == uop.insn);
            if later.into_iter().any(|u| u.form.has_memory() && u.op != Op::Lea || u.op == Op::Check) {
                return fail(at, "a register is written before an access of the same instruction that may fault");
            }
        }
    }
    Ok(())
}

fn stores_memory(op: Op) -> bool {
    !matches!(op, Op::Cmp | Op::Test | Op::Bt | Op::Check | Op::Lea | Op::Push)
        && !matches!(op, Op::MulWide | Op::ImulWide | Op::Div | Op::Idiv | Op::CmpJcc | Op::TestJcc)
        && !matches!(op, Op::JmpInd | Op::CallInd)
}

fn writes_dst(op: Op) -> bool {
    !matches!(op, Op::Cmp | Op::Test | Op::Bt | Op::Call | Op::VCall | Op::Nop) && op.effect() != Effect::Ends
}
