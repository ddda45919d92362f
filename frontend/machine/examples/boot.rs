//! Boots a kernel with its serial port on standard output: `boot KERNEL INITRD [real|virtual] [CPUS] [APPEND] [SECONDS] [MIB]`.
//!
//! A workbench for the machine crate; people use the `umbra` command.

use std::io::Write;
use std::time::{Duration, Instant};
use umbra_machine::config::Clock;
use umbra_machine::{Machine, RunEnd, RunLimits};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |n: usize, default: &str| args.get(n).cloned().unwrap_or_else(|| default.to_owned());
    let mut builder = Machine::builder()
        .kernel_file(arg(0, "vmlinuz"))
        .append(&arg(4, "console=ttyS0 panic=-1"))
        .cpus(arg(3, "1").parse()?)
        .memory(arg(6, "256").parse::<u64>()? << 20)
        .clock(if arg(2, "virtual") == "real" { Clock::Real } else { Clock::Virtual });
    let initrd = arg(1, "none");
    if initrd != "none" {
        builder = builder.initrd_file(initrd);
    }
    let start = Instant::now();
    let mut machine = builder.build()?;
    eprintln!("[built in {:?}]", start.elapsed());
    machine.connect_serial(
        0,
        Box::new(|bytes| {
            let mut out = std::io::stdout().lock();
            // A closed pipe is no reason to stop the guest.
            let _ = out.write_all(bytes).and_then(|()| out.flush());
        }),
    );
    let seconds: u64 = arg(5, "60").parse()?;
    let limits = RunLimits { deadline: Some(start + Duration::from_secs(seconds)), ..RunLimits::default() };
    let end = machine.run(limits);
    let took = start.elapsed();
    eprintln!("[{end:?} after {took:?}, guest time {:?}, {} instructions]", machine.now(), machine.retired());
    for vcpu in machine.vcpus() {
        let state = &vcpu.state;
        eprintln!(
            "[rip {:#x} rflags {:#x} cr0 {:#x} cr2 {:#x} cr3 {:#x} cr4 {:#x} cpl {} {:?}]",
            state.rip,
            state.rflags,
            state.control.cr0,
            state.control.cr2,
            state.control.cr3,
            state.control.cr4,
            state.cpl,
            state.activity
        );
        for n in 0..16 {
            eprint!(" {:#x}", state.gpr(n));
        }
        eprintln!();
        let mut code = [0; 16];
        let read = vcpu.link.mmu.peek(umbra_mmu::Linear(vcpu.linear_rip()), &mut code);
        eprintln!("[code {code:02x?} {read:?}]");
        if let RunEnd::Crashed(_) = end {
            for (rip, fault) in &vcpu.link.fault_chain {
                eprintln!("  {rip:#x} {fault:?}");
            }
        }
        eprintln!("{:?}", vcpu.link.counters);
        for (code, (rip, count)) in &vcpu.link.unimplemented {
            eprintln!("  not implemented: {} at {rip:#x}, {count} times", umbra_cpu::decode::form_name(*code));
        }
    }
    for line in machine.screen_text().iter().filter(|line| !line.is_empty()) {
        eprintln!("| {line}");
    }
    eprintln!("[state {:016x}]", machine.state_hash());
    eprintln!("unclaimed {:x?}", machine.board().counters().unclaimed);
    Ok(())
}
