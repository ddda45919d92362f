//! Decode, lift and execute: arbitrary code in an arbitrary state of every mode, run twice.
//!
//! Once as the interpreter likes (blocks, chains, dead flags left out), and once instruction by instruction ([`run`]) or as emitted
//! code ([`engines`], where the host has a JIT): registers, memory and the count of instructions must be equal at the end. Every
//! lift is verified (`uop::verify`, with debug assertions), and the monitor's tables must equal the guest's afterwards. Left
//! out: several vCPUs, and interrupts that no access causes.

mod guest;

use arbitrary::{Result, Unstructured};
use guest::{CODE, Case};
use umbra_cpu::emit::Jit;
use umbra_cpu::exit::Activity;
use umbra_cpu::{Exit, Vcpu};

/// Instructions in a run.
const BUDGET: u64 = 600;

/// How a run is cut.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Pace {
    /// As few calls as possible.
    Whole,
    /// One instruction a call.
    Single,
    /// Each block emitted after its first run.
    Emitted,
}

/// The target `execute`: blocks against single instructions.
pub fn run(input: &[u8]) {
    // Input that is too short becomes zeros: every input is a case.
    let _ = compare(&mut Unstructured::new(input), Pace::Single);
}

/// The target `engines`: the interpreter against emitted code.
pub fn engines(input: &[u8]) {
    let _ = compare(&mut Unstructured::new(input), Pace::Emitted);
}

fn compare(input: &mut Unstructured<'_>, pace: Pace) -> Result<()> {
    let case = Case::read(input)?;
    let whole = finish(&case, Pace::Whole);
    let other = finish(&case, pace);
    let at = &whole.state;
    let about = || format!("{pace:?}, {case:?}\nat {CODE:#x}: {:02x?}", case.code);
    assert_eq!(at.retired, other.state.retired, "instructions: {}", about());
    assert_eq!(*at, other.state, "states: {}", about());
    assert_eq!(whole.link.memory.hash(), other.link.memory.hash(), "memory: {}", about());
    for vcpu in [&whole, &other] {
        let audit = vcpu.link.memory.audit();
        assert!(audit.is_clean(), "{:?}: {}", audit.wrong, about());
    }
    Ok(())
}

/// Runs a case to its end: the budget is spent, or nothing moves any more.
fn finish(case: &Case, pace: Pace) -> Vcpu {
    let mut vcpu = case.vcpu();
    if pace == Pace::Emitted
        && let Ok(jit) = Jit::new(1 << 20)
    {
        vcpu.use_jit(Some(jit));
        vcpu.link.hot = 1;
    }
    let end = vcpu.state.retired + BUDGET;
    while vcpu.state.retired < end && vcpu.state.activity == Activity::Running {
        let budget = match pace {
            Pace::Whole | Pace::Emitted => end - vcpu.state.retired,
            Pace::Single => 1,
        };
        match vcpu.run(budget) {
            Exit::BudgetSpent | Exit::Stopped => {}
            Exit::Halted | Exit::WaitForSipi | Exit::Shutdown | Exit::Debug => break,
        }
    }
    // What is due at the last boundary is served in one run and may be left in the other.
    vcpu.materialise_flags();
    vcpu
}
