//! BMI1, BMI2 and ADX: newer instructions on general registers. No vector state is involved.

use crate::decode::{Mnemonic as M, Operand};
use crate::helpers::{Args, Helper};
use crate::lift::{Lifted, Lifter};
use crate::uop::Width;
use crate::vector::bmi;

/// Lifts the instructions of this file.
pub fn lift(l: &mut Lifter<'_>) -> Lifted {
    // (helper, operand number of the r/m source, operand number of the other register)
    let (helper, rm, other): (&'static Helper, u32, u32) = match l.insn.mnemonic() {
        M::Andn => (&bmi::ANDN, 2, 1),
        M::Mulx => (&bmi::MULX, 2, 1),
        M::Pdep => (&bmi::PDEP, 2, 1),
        M::Pext => (&bmi::PEXT, 2, 1),
        M::Blsi => (&bmi::BLSI, 1, 0),
        M::Blsmsk => (&bmi::BLSMSK, 1, 0),
        M::Blsr => (&bmi::BLSR, 1, 0),
        M::Bextr => (&bmi::BEXTR, 1, 2),
        M::Bzhi => (&bmi::BZHI, 1, 2),
        M::Sarx => (&bmi::SARX, 1, 2),
        M::Shlx => (&bmi::SHLX, 1, 2),
        M::Shrx => (&bmi::SHRX, 1, 2),
        M::Rorx => (&bmi::RORX, 1, 0),
        M::Adcx => (&bmi::ADCX, 1, 0),
        M::Adox => (&bmi::ADOX, 1, 0),
        _ => return Lifted::No,
    };
    let (Operand::Gpr(a, width), Operand::Gpr(c, _)) = (l.insn.op(0), l.insn.op(other)) else { return Lifted::No };
    let width = if width == Width::B8 { Width::B8 } else { Width::B4 };
    let imm = l.last_immediate().unwrap_or(0);
    let args = l.rm_args(l.insn.op(rm));
    l.call(helper, Args { a, c, width, imm, ..args });
    Lifted::Yes
}
