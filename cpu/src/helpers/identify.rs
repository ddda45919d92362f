//! Instructions that ask the processor about itself or the time: CPUID, RDTSC, RDTSCP, RDPID, RDPMC, RDRAND, RDSEED (SDM vol. 2).
//!
//! Random numbers come from a generator in the state, so that runs can be repeated: seed `state.msr.entropy`.

use super::{Args, Flow, Helper};
use crate::fault::Fault;
use crate::model::CpuidInputs;
use crate::state::control::cr4;
use crate::state::flags;
use crate::state::slots::{RAX, RBX, RCX, RDX};
use crate::uop::Width;
use crate::vcpu::Vcpu;

/// CPUID.
pub static CPUID: Helper = Helper { name: "cpuid", run: cpuid };
/// RDTSC.
pub static RDTSC: Helper = Helper { name: "rdtsc", run: rdtsc };
/// RDTSCP.
pub static RDTSCP: Helper = Helper { name: "rdtscp", run: rdtscp };
/// RDPID: `a` the destination.
pub static RDPID: Helper = Helper { name: "rdpid", run: rdpid };
/// RDPMC: there are no counters.
pub static RDPMC: Helper = Helper { name: "rdpmc", run: |_, _| Err(Fault::gp(0)) };
/// RDRAND and RDSEED: `a` the destination.
pub static RANDOM: Helper = Helper { name: "random", run: random };

fn cpuid(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    let apic_id = cpu.ask_board(|bus, _| bus.apic_id());
    let answer = cpu.link.model.cpuid(CpuidInputs {
        leaf: cpu.state.gpr(RAX) as u32,
        subleaf: cpu.state.gpr(RCX) as u32,
        apic_id,
        osxsave: cpu.state.control.cr4 & cr4::OSXSAVE != 0,
        xcr0: cpu.state.control.xcr0,
    });
    for (register, value) in [(RAX, answer.eax), (RBX, answer.ebx), (RCX, answer.ecx), (RDX, answer.edx)] {
        cpu.write_slot(register, value);
    }
    Ok(Flow::Next)
}

fn rdtsc(cpu: &mut Vcpu, _: Args) -> Result<Flow, Fault> {
    if cpu.state.cpl != 0 && cpu.state.control.cr4 & cr4::TSD != 0 {
        return Err(Fault::gp(0));
    }
    let tsc = cpu.guest_tsc();
    cpu.write_slot(RAX, tsc as u32);
    cpu.write_slot(RDX, (tsc >> 32) as u32);
    Ok(Flow::Next)
}

fn rdtscp(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let flow = rdtsc(cpu, args)?;
    cpu.write_slot(RCX, cpu.state.msr.tsc_aux as u32);
    Ok(flow)
}

fn rdpid(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    cpu.write_slot(args.a, cpu.state.msr.tsc_aux);
    Ok(Flow::Next)
}

/// The next number of the SplitMix64 sequence (Steele, Lea, Flood 2014).
fn next_random(entropy: &mut u64) -> u64 {
    *entropy = entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *entropy;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

fn random(cpu: &mut Vcpu, args: Args) -> Result<Flow, Fault> {
    let value = next_random(&mut cpu.state.msr.entropy);
    match args.width {
        Width::B2 => cpu.write_slot(args.a, value as u16),
        Width::B8 => cpu.write_slot(args.a, value),
        _ => cpu.write_slot(args.a, value as u32),
    }
    cpu.set_flags(flags::STATUS, flags::CF);
    Ok(Flow::Next)
}
