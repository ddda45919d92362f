//! FNINIT, FNCLEX, FLDCW, FNSTCW, FNSTSW, FWAIT, FNOP, FINCSTP, FDECSTP, FFREE and FFREEP (SDM vol. 1 8.3.11).

use super::{Args, Flow, note_pointers, pops, report_pending, status, summarize};
use crate::fault::Fault;
use crate::helpers::{Helper, Rm};
use crate::state::slots::T0;
use crate::vcpu::Vcpu;

/// FNINIT.
pub static INIT: Helper = Helper { name: "fninit", run: initialize };
/// FNCLEX.
pub static CLEAR: Helper = Helper { name: "fnclex", run: clear };
/// FLDCW.
pub static LOAD_CONTROL: Helper = Helper { name: "fldcw", run: load_control };
/// FNSTCW.
pub static STORE_CONTROL: Helper = Helper { name: "fnstcw", run: store_control };
/// FNSTSW, to memory or AX.
pub static STORE_STATUS: Helper = Helper { name: "fnstsw", run: store_status };
/// FWAIT.
pub static WAIT: Helper = Helper { name: "fwait", run: wait };
/// FNOP.
pub static NOP: Helper = Helper { name: "fnop", run: nop };
/// FNENI, FNDISI and FNSETPM: do nothing, do not wait.
pub static IGNORED: Helper = Helper { name: "fneni", run: |_, _| Ok(Flow::Next) };
/// FINCSTP and FDECSTP; `a` is added to TOP.
pub static MOVE_TOP: Helper = Helper { name: "fincstp", run: move_top };
/// FFREE and FFREEP.
pub static FREE: Helper = Helper { name: "ffree", run: free };

/// What FLDCW keeps of a control word; bit 6 always reads as one.
pub(super) const fn control_word(value: u16) -> u16 {
    value & 0x1f3f | 0x40
}

fn initialize(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    initialize_now(cpu);
    Ok(Flow::Next)
}

/// FNINIT, also as the last part of FNSAVE.
pub(super) fn initialize_now(cpu: &mut Vcpu) {
    // FERR# goes down with ES.
    cpu.state.fpu.sw &= !0x3f;
    summarize(cpu);
    cpu.state.fpu.initialize();
}

fn clear(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    cpu.state.fpu.sw &= !(status::EXCEPTIONS & !(status::ES | status::B));
    Ok(summarize(cpu))
}

/// An exception that the new control word unmasks becomes pending.
fn load_control(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    report_pending(cpu)?;
    let value = cpu.load(args.seg, cpu.state.slots.get(T0))?;
    cpu.state.fpu.cw = control_word(value);
    Ok(summarize(cpu))
}

fn store_control(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.store(args.seg, cpu.state.slots.get(T0), cpu.state.fpu.cw)?;
    Ok(Flow::Next)
}

fn store_status(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let value = cpu.state.fpu.sw;
    match args.rm(cpu) {
        Rm::Slot(slot) => cpu.write_slot(slot, value),
        Rm::Memory(seg, offset) => cpu.store(seg, offset, value)?,
    }
    Ok(Flow::Next)
}

fn wait(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    report_pending(cpu)?;
    Ok(Flow::Next)
}

fn nop(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    report_pending(cpu)?;
    note_pointers(cpu, args);
    Ok(Flow::Next)
}

fn move_top(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    report_pending(cpu)?;
    note_pointers(cpu, args);
    let fpu = &mut cpu.state.fpu;
    fpu.set_top(fpu.top().wrapping_add(args.a));
    fpu.sw &= !status::C1;
    Ok(Flow::Next)
}

fn free(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    report_pending(cpu)?;
    note_pointers(cpu, args);
    let fpu = &mut cpu.state.fpu;
    fpu.free(args.a);
    fpu.pop(pops(args));
    fpu.sw &= !status::C1;
    Ok(Flow::Next)
}
