//! Instructions that ask about a selector without loading it: LAR, LSL, VERR, VERW, ARPL (SDM vol. 2; vol. 3, 5.10).

use super::descriptor::{Descriptor, is_null, rpl, system};
use super::{Args, Flow, Helper};
use crate::fault::Fault;
use crate::state::flags;
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// LAR: `a` the destination, `b` the selector, `width` the operand size.
pub static LAR: Helper = Helper { name: "lar", run: lar };
/// LSL: as LAR.
pub static LSL: Helper = Helper { name: "lsl", run: lsl };
/// VERR: `b` the selector.
pub static VERR: Helper = Helper { name: "verr", run: verr };
/// VERW: `b` the selector.
pub static VERW: Helper = Helper { name: "verw", run: verw };
/// ARPL: `b` the destination selector, `a` the source register.
pub static ARPL: Helper = Helper { name: "arpl", run: arpl };

/// What a query wants to know, which decides what kinds of descriptor it accepts.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Query {
    Rights,
    Limit,
    Read,
    Write,
}

/// The descriptor, if the query is allowed to see it.
fn visible(cpu: &mut Vcpu, selector: u16, query: Query) -> Result<Option<Descriptor>, Fault> {
    if is_null(selector) {
        return Ok(None);
    }
    let Some(descriptor) = cpu.descriptor(selector)? else {
        return Ok(None);
    };
    let level = descriptor.is_conforming() || cpu.state.cpl.max(rpl(selector)) <= descriptor.dpl();
    let long = cpu.state.long_mode();
    let kind = if descriptor.is_segment() {
        match query {
            Query::Rights | Query::Limit => true,
            Query::Read => descriptor.is_readable(),
            Query::Write => descriptor.is_writable_data(),
        }
    } else {
        match descriptor.kind() {
            system::LDT | system::TSS32 | system::TSS32_BUSY => matches!(query, Query::Rights | Query::Limit),
            system::TSS16 | system::TSS16_BUSY => matches!(query, Query::Rights | Query::Limit) && !long,
            system::CALL_GATE32 => query == Query::Rights,
            system::CALL_GATE16 | system::TASK_GATE => query == Query::Rights && !long,
            _ => false,
        }
    };
    if !level || !kind {
        return Ok(None);
    }
    if long && !descriptor.is_segment() {
        match cpu.descriptor_upper(selector)? {
            Some(upper) if upper >> 40 & 0x1f == 0 => {}
            _ => return Ok(None),
        }
    }
    Ok(Some(descriptor))
}

fn set_zf(cpu: &mut Vcpu, yes: bool) {
    cpu.set_flags(flags::ZF, if yes { flags::ZF } else { 0 });
}

fn query(cpu: &mut Vcpu, args: Args, query: Query) -> Result<Option<Descriptor>, Fault> {
    cpu.require_protected()?;
    let selector: u16 = cpu.read_rm(args.rm(cpu))?;
    let found = visible(cpu, selector, query)?;
    set_zf(cpu, found.is_some());
    Ok(found)
}

fn write_result(cpu: &mut Vcpu, args: Args, value: u32) {
    match args.width {
        Width::B2 => cpu.write_slot(args.a, value as u16),
        _ => cpu.write_slot(args.a, value),
    }
}

fn lar(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    if let Some(descriptor) = query(cpu, args, Query::Rights)? {
        write_result(cpu, args, (descriptor.0 >> 32) as u32 & 0x00ff_ff00);
    }
    Ok(Flow::Next)
}

fn lsl(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    if let Some(descriptor) = query(cpu, args, Query::Limit)? {
        write_result(cpu, args, descriptor.limit());
    }
    Ok(Flow::Next)
}

fn verr(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    query(cpu, args, Query::Read).map(|_| Flow::Next)
}

fn verw(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    query(cpu, args, Query::Write).map(|_| Flow::Next)
}

fn arpl(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.require_protected()?;
    let rm = args.rm(cpu);
    let selector: u16 = cpu.read_rm(rm)?;
    let wanted = cpu.state.slots.get(args.a) as u16 & 3;
    let lower = selector & 3 < wanted;
    if lower {
        cpu.write_rm(rm, selector & !3 | wanted)?;
    }
    set_zf(cpu, lower);
    Ok(Flow::Next)
}
