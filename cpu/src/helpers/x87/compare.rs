//! FCOM, FUCOM, FICOM, FTST, FCOMI, FUCOMI and FXAM (SDM vol. 1 8.3.6, tables 8-6 and 8-7).

use super::{Args, Flow, Frame, note_pointers, pops, report_pending, source, status};
use crate::fault::Fault;
use crate::helpers::Helper;
use crate::softfloat::{Class, Comparison, F80, Relation};
use crate::state::flags;
use crate::vcpu::Vcpu;

/// FCOM, FCOMP, FCOMPP, FICOM, FICOMP.
pub static COM: Helper = Helper { name: "fcom", run: |cpu, args| to_status(cpu, args, Comparison::Signaling) };
/// FUCOM, FUCOMP, FUCOMPP.
pub static UCOM: Helper = Helper { name: "fucom", run: |cpu, args| to_status(cpu, args, Comparison::Quiet) };
/// FTST.
pub static TST: Helper = Helper { name: "ftst", run: test };
/// FCOMI, FCOMIP.
pub static COMI: Helper = Helper { name: "fcomi", run: |cpu, args| to_flags(cpu, args, Comparison::Signaling) };
/// FUCOMI, FUCOMIP.
pub static UCOMI: Helper = Helper { name: "fucomi", run: |cpu, args| to_flags(cpu, args, Comparison::Quiet) };
/// FXAM.
pub static XAM: Helper = Helper { name: "fxam", run: examine };

/// Compares ST(0) with the source; unordered after a stack fault.
fn relation(frame: &mut Frame, cpu: &mut Vcpu, args: Args, comparison: Comparison) -> Result<Relation, Fault> {
    let y = source(frame, cpu, args)?;
    let x = frame.take(&cpu.state.fpu, 0);
    let relation = if frame.sound() { x.compare(y, comparison, &mut frame.env) } else { Relation::Unordered };
    Ok(relation)
}

/// Ends a comparison that sets the condition codes, even if an unmasked exception keeps it from popping.
fn conclude(frame: Frame, cpu: &mut Vcpu, args: Args, relation: Relation) -> Flow {
    let conditions = match relation {
        Relation::Greater => 0,
        Relation::Less => status::C0,
        Relation::Equal => status::C3,
        Relation::Unordered => status::C0 | status::C2 | status::C3,
    };
    let fpu = &mut cpu.state.fpu;
    fpu.sw = fpu.sw & !status::CONDITIONS | conditions;
    if frame.computed() {
        fpu.pop(pops(args));
    }
    frame.finish(cpu)
}

fn to_status(cpu: &mut Vcpu, args: Args, comparison: Comparison) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    let relation = relation(&mut frame, cpu, args, comparison)?;
    Ok(conclude(frame, cpu, args, relation))
}

fn test(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    note_pointers(cpu, args);
    let x = frame.take(&cpu.state.fpu, 0);
    let relation = match frame.sound() {
        true => x.compare(F80::ZERO, Comparison::Signaling, &mut frame.env),
        false => Relation::Unordered,
    };
    Ok(conclude(frame, cpu, args, relation))
}

/// To ZF, PF and CF; OF, SF and AF are cleared. An unmasked exception only keeps it from popping.
fn to_flags(cpu: &mut Vcpu, args: Args, comparison: Comparison) -> Result<Flow, Fault> {
    let mut frame = Frame::begin(cpu)?;
    let relation = relation(&mut frame, cpu, args, comparison)?;
    let result = match relation {
        Relation::Greater => 0,
        Relation::Less => flags::CF,
        Relation::Equal => flags::ZF,
        Relation::Unordered => flags::ZF | flags::PF | flags::CF,
    };
    cpu.set_flags(flags::STATUS, result);
    if frame.computed() {
        cpu.state.fpu.pop(pops(args));
    }
    Ok(frame.finish_keeping_c1(cpu))
}

/// Classifies ST(0), empty or not; C1 is its sign.
fn examine(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    report_pending(cpu)?;
    note_pointers(cpu, args);
    let fpu = &mut cpu.state.fpu;
    let value = fpu.read(0);
    let class = match value.class() {
        _ if fpu.is_empty(0) => status::C3 | status::C0,
        Class::Unsupported => 0,
        Class::QuietNan | Class::SignalingNan => status::C0,
        Class::Normal => status::C2,
        Class::Infinity => status::C2 | status::C0,
        Class::Zero => status::C3,
        Class::Denormal => status::C3 | status::C2,
    };
    let sign = if value.sign() { status::C1 } else { 0 };
    fpu.sw = fpu.sw & !status::CONDITIONS | class | sign;
    Ok(Flow::Next)
}
