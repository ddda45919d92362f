//! What a recording on one vendor's processor shows that the manuals leave to the vendor, as a table with reasons.
//!
//! Applied to JSON-lines cases in the fixed layout, which are recordings; cases in the free layout say themselves what they
//! compare. The recordings known so far come from AMD family 19h.

use crate::case::{Case, End, Register, Tolerance};

/// What to do with a case.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Effect {
    /// Compare less exactly.
    Tolerate(Tolerance),
    /// Leave out shifts by more than the operand's width.
    LeaveOutLongShifts,
    /// Stores before the fault are not compared.
    IgnoreMemoryOnFault,
}

/// (mnemonics, effect, reason).
#[rustfmt::skip]
const TABLE: &[(&[&str], Effect, &str)] = &[
    (&["rcpss", "rcpps", "rsqrtss", "rsqrtps", "vrcpss", "vrcpps", "vrsqrtss", "vrsqrtps"], Effect::Tolerate(Tolerance::Reciprocal),
        "approximations with a relative error of at most 1.5 * 2^-12 (SDM vol. 2, RCPPS), from the vendor's own tables"),
    (&["f2xm1", "fyl2x", "fyl2xp1", "fpatan", "fptan", "fsin", "fcos", "fsincos"], Effect::Tolerate(Tolerance::LastPlaces(1)),
        "transcendental instructions: the last place is the vendor's (SDM vol. 1, 8.3.10)"),
    (&["shld", "shrd"], Effect::LeaveOutLongShifts,
        "SHLD, SHRD by more than the operand's width: result and flags are undefined (SDM vol. 2, SHLD)"),
    (&["enter", "enterw"], Effect::IgnoreMemoryOnFault,
        "ENTER that faults: which of its pushes were stored is not defined; Umbra stores none"),
];

/// P of the page-fault error code above the user half.
pub const KERNEL_HALF: &str =
    "a user access to the upper half: whether the page was present there was the recording system's own affair";

/// All reasons, for `--list` and the README.
pub fn reasons() -> Vec<&'static str> {
    TABLE.iter().map(|row| row.2).chain([KERNEL_HALF]).collect()
}

/// Adapts a recorded case, or says why it is left out.
pub fn adapt(case: &mut Case) -> Result<(), &'static str> {
    if let End::Fault { vector: 14, cr2: Some(linear), error_code } = &mut case.expect.end
        && *linear >= 0xffff_8000_0000_0000
    {
        // P = 0: nothing is mapped there in a case.
        *error_code = error_code.map(|code| code & !1);
    }
    let mnemonic = case.text.split(' ').next().unwrap_or_default();
    let Some((_, effect, reason)) = TABLE.iter().find(|(names, ..)| names.contains(&mnemonic)) else { return Ok(()) };
    match effect {
        Effect::Tolerate(tolerance) => case.tolerance = *tolerance,
        Effect::LeaveOutLongShifts if long_shift(case) => return Err(reason),
        Effect::IgnoreMemoryOnFault if matches!(case.expect.end, End::Fault { .. }) => {
            case.expect.memory.clear();
            case.named_memory_only = true;
        }
        Effect::LeaveOutLongShifts | Effect::IgnoreMemoryOnFault => {}
    }
    Ok(())
}

/// SHLD, SHRD with a 16-bit operand and a count (5 bits of CL or of the immediate) above 16. Wider ones cannot be too long.
fn long_shift(case: &Case) -> bool {
    let operand_16 = case.code.iter().take_while(|b| **b != 0x0f).any(|b| *b == 0x66);
    let wide = case.code.iter().take_while(|b| **b != 0x0f).any(|b| b & 0xf8 == 0x48);
    let by_cl =
        case.code.iter().position(|b| *b == 0x0f).and_then(|at| case.code.get(at + 1)).is_some_and(|b| b & 1 == 1);
    let cl = case.initial(Register::Gpr(1)).map_or(0, |v| v.low());
    let count = if by_cl { cl } else { case.code.last().map_or(0, |b| u64::from(*b)) } & 0x1f;
    operand_16 && !wide && count > 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonl;
    use std::path::Path;

    fn adapted(bytes: &str, text: &str, outputs: &str) -> (Result<(), &'static str>, Case) {
        let line = format!(r#"{{"m":64,"b":"{bytes}","n":"{text}","i":{{"rcx":"12"}},"o":{outputs}}}"#);
        let mut cases = jsonl::parse(Path::new("x"), line.as_bytes()).unwrap();
        let mut case = cases.remove(0);
        (adapt(&mut case), case)
    }

    #[test]
    fn rows() {
        assert_eq!(adapted("0f53c1", "rcpps xmm0,xmm1", "{}").1.tolerance, Tolerance::Reciprocal);
        assert_eq!(adapted("d9fe", "fsin", "{}").1.tolerance, Tolerance::LastPlaces(1));
        assert!(adapted("660fa4c576", "shld bp,ax,76h", "{}").0.is_err());
        assert!(adapted("660fa5c5", "shld bp,ax,cl", "{}").0.is_err());
        assert!(adapted("660fa4c510", "shld bp,ax,10h", "{}").0.is_ok());
        assert!(adapted("0fa4c51f", "shld ebp,eax,1Fh", "{}").0.is_ok());
        let enter = adapted("c8000010", "enter 0,10h", r#"{"exc":12,"stk":[[0,"01"]]}"#).1;
        assert!(enter.expect.memory.is_empty());
        let jump = adapted("90", "jmp", r#"{"exc":14,"err":21,"cr2":"ffffffffe2ff5082","rip":"far"}"#).1;
        assert_eq!(jump.expect.end, End::Fault { vector: 14, error_code: Some(20), cr2: Some(0xffff_ffff_e2ff_5082) });
    }
}
