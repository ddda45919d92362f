//! What the manuals leave undefined has one value in Umbra: this table. Every engine follows it, so that a guest cannot tell
//! them apart, and no engine shows a guest what its own temporaries left in the host's flags.
//!
//! The values are those that cost least where they agree with a processor: AMD family 19h was recorded for user mode, and
//! its values are named where they are taken. [`describe`] prints the table; `cpu/docs/undefined.md` is what it prints.
//! `test-suites/oracle` checks, for every instruction form that the decoder knows, that a row exists and that each engine
//! gives its value.

use crate::decode::Mnemonic as M;
use crate::state::flags::{AF, CF, OF, PF, SF, ZF};
use std::fmt::Write as _;

/// What an undefined status flag becomes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Zero.
    Clear,
    /// As it was before the instruction.
    Kept,
    /// What the result says: its sign, whether it is zero, the parity of its low byte. The result of MUL and IMUL is the low
    /// half of the product, that of AAA and AAS is AL.
    OfResult,
    /// The result's sign bit against CF: the manual's formula for a count of one, used for every count.
    SignAgainstCarry,
    /// The result's two upper bits against each other: likewise.
    UpperBits,
}

/// One row: these flags after these instructions. A shift or rotate by zero changes no flag at all.
#[derive(Copy, Clone, Debug)]
pub struct Row {
    /// The instructions.
    pub mnemonics: &'static [M],
    /// RFLAGS bits that the manuals leave undefined after them (shifts and rotates: for counts above one).
    pub flags: u64,
    /// What these become.
    pub value: Value,
    /// Why this value.
    pub reason: &'static str,
}

/// Status flags.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    Row { mnemonics: &[M::And, M::Or, M::Xor, M::Test],      flags: AF,                value: Value::Clear,            reason: "what AMD's processors (recorded) and Intel's do, so that host flags serve as they are" },
    Row { mnemonics: &[M::Imul, M::Mul],                     flags: SF | ZF | PF,      value: Value::OfResult,         reason: "one TEST of the product where anybody reads them; a host keeps older flags or has its own" },
    Row { mnemonics: &[M::Imul, M::Mul],                     flags: AF,                value: Value::Clear,            reason: "comes with the TEST" },
    Row { mnemonics: &[M::Div, M::Idiv],                     flags: OF | SF | ZF | AF | CF | PF, value: Value::Kept,   reason: "division by a helper or by the host leaves nothing to compute" },
    Row { mnemonics: &[M::Shl, M::Sal, M::Shr, M::Sar, M::Shld, M::Shrd], flags: AF,   value: Value::Clear,            reason: "AMD's processors set it, Intel's clear it; clear is what a lazy flag costs nothing to be" },
    Row { mnemonics: &[M::Shl, M::Sal, M::Shld],             flags: OF,                value: Value::SignAgainstCarry, reason: "AMD's value (recorded)" },
    Row { mnemonics: &[M::Shr, M::Sar],                      flags: OF,                value: Value::Clear,            reason: "AMD's value (recorded): the last bit shifted in is no other than the sign above it" },
    Row { mnemonics: &[M::Shrd],                             flags: OF,                value: Value::UpperBits,        reason: "AMD's value (recorded)" },
    Row { mnemonics: &[M::Rol, M::Rcl],                      flags: OF,                value: Value::SignAgainstCarry, reason: "AMD's value (recorded)" },
    Row { mnemonics: &[M::Ror, M::Rcr],                      flags: OF,                value: Value::UpperBits,        reason: "AMD's value (recorded)" },
    Row { mnemonics: &[M::Bt, M::Bts, M::Btr, M::Btc],       flags: OF | SF | AF | PF, value: Value::Kept,             reason: "AMD's and Intel's value (recorded)" },
    Row { mnemonics: &[M::Bsf, M::Bsr],                      flags: OF | SF | AF | CF | PF, value: Value::Kept,        reason: "only ZF is defined, and only ZF changes" },
    Row { mnemonics: &[M::Tzcnt, M::Lzcnt],                  flags: OF | SF | AF | PF, value: Value::Kept,             reason: "only ZF and CF are defined, and only they change" },
    Row { mnemonics: &[M::Andn, M::Blsi, M::Blsmsk, M::Blsr, M::Bzhi, M::Bextr], flags: AF | PF, value: Value::Clear,  reason: "AF as on AMD's processors (recorded); PF would need a TEST that nobody reads" },
    Row { mnemonics: &[M::Bextr],                            flags: SF,                value: Value::OfResult,         reason: "AMD's value (recorded)" },
    Row { mnemonics: &[M::Aaa, M::Aas],                      flags: SF | ZF | PF,      value: Value::OfResult,         reason: "as DAA and DAS define them" },
    Row { mnemonics: &[M::Aaa, M::Aas, M::Daa, M::Das],      flags: OF,                value: Value::Clear,            reason: "nothing overflows in decimal; AMD's value for AAA, AAS and DAS (recorded)" },
    Row { mnemonics: &[M::Aam, M::Aad],                      flags: OF | CF | AF,      value: Value::Clear,            reason: "AMD's value for AAM (recorded), and AAD like it" },
];

/// What else is undefined: (where, what Umbra does, why).
#[rustfmt::skip]
pub const OTHERS: &[(&str, &str, &str)] = &[
    ("BSF, BSR: destination for a zero source", "kept; a 32-bit one is not zero-extended", "AMD APM vol. 3 defines it; Intel's processors do the same (compared)"),
    ("BSWAP of a 16-bit register", "zero", "AMD's value"),
    ("SHLD, SHRD of 16 bits by more than 16", "the count goes on through the second operand", "AMD's value"),
    ("RCL, RCR by a count that is zero modulo the width and one", "CF is kept, OF follows its formula", "AMD's value (recorded); Intel's processors keep OF too"),
    ("C0, C2, C3 (x87) where the manual leaves them undefined", "kept", "AMD's and Intel's value (compared)"),
    ("C1 (x87) after FLDCW, FNCLEX, FNSTCW, FNSTSW", "kept", "AMD's and Intel's value (compared)"),
    ("C1 (x87) after FFREE, FFREEP", "0", "AMD's and Intel's value (compared)"),
    ("ENTER, PUSHA that fault: pushes before the fault", "none is stored", "faults commit nothing"),
    ("the transition to MMX before a memory fault or #XM", "not made", "faults commit nothing"),
    ("gathers that fault: elements after the faulting one", "not loaded, their mask kept as whole elements", "SDM vol. 2, operation section; Intel's value (compared)"),
    ("DPPS, DPPD with several NaNs", "(p0 + p1) + (p2 + p3), the first NaN wins, in all elements", "AMD's value (recorded)"),
];

/// What becomes of a flag (one RFLAGS bit) that the manuals leave undefined after an instruction.
pub fn value(mnemonic: M, flag: u64) -> Option<Value> {
    TABLE.iter().find(|row| row.flags & flag != 0 && row.mnemonics.contains(&mnemonic)).map(|row| row.value)
}

/// The undefined flags that an instruction leaves as they were.
pub fn kept(mnemonic: M) -> u64 {
    let rows = TABLE.iter().filter(|row| row.value == Value::Kept && row.mnemonics.contains(&mnemonic));
    rows.fold(0, |flags, row| flags | row.flags)
}

/// The tables as Markdown.
pub fn describe() -> String {
    const NAMES: [(u64, &str); 6] = [(OF, "OF"), (SF, "SF"), (ZF, "ZF"), (AF, "AF"), (PF, "PF"), (CF, "CF")];
    let mut out = String::from(
        "# What the manuals leave undefined\n\nPrinted from `cpu/src/undefined.rs`. Shifts and rotates by zero change no \
         flag; by one, OF is defined.\n\n| after | flags | value | reason |\n|---|---|---|---|\n",
    );
    for row in TABLE {
        let mnemonics: Vec<String> = row.mnemonics.iter().map(|m| format!("{m:?}").to_uppercase()).collect();
        let flags: Vec<&str> = NAMES.iter().filter(|(bit, _)| row.flags & bit != 0).map(|(_, name)| *name).collect();
        let value = match row.value {
            Value::Clear => "0",
            Value::Kept => "kept",
            Value::OfResult => "of the result",
            Value::SignAgainstCarry => "sign of the result ≠ CF",
            Value::UpperBits => "the result's two upper bits differ",
        };
        let _ = writeln!(out, "| {} | {} | {value} | {} |", mnemonics.join(", "), flags.join(" "), row.reason);
    }
    out.push_str("\n| what else | in Umbra | reason |\n|---|---|---|\n");
    for (place, value, reason) in OTHERS {
        let _ = writeln!(out, "| {place} | {value} | {reason} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UMBRA_BLESS=1` writes the page again.
    #[test]
    fn the_page_is_what_the_table_says() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/undefined.md");
        if std::env::var_os("UMBRA_BLESS").is_some() {
            std::fs::write(&page, describe()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&page).unwrap(),
            describe(),
            "bless it: UMBRA_BLESS=1 cargo test -p umbra-cpu"
        );
    }

    #[test]
    fn no_flag_has_two_values() {
        for row in TABLE {
            for mnemonic in row.mnemonics {
                let rows = TABLE.iter().filter(|r| r.mnemonics.contains(mnemonic) && r.flags & row.flags != 0);
                assert_eq!(rows.count(), 1, "{mnemonic:?}");
            }
        }
    }
}
