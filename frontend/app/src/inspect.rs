//! What a stopped machine looks like, as text: registers, disassembly, the three variants of an address, TLBs, roots, audit.
//!
//! Crash reports, the console, gdb's `monitor` command and `umbra inspect` all print through here.

pub mod event_trace;
mod exceptions;
mod heat;
pub mod live;
mod look;
pub mod panel;

pub use exceptions::note;
pub use look::descriptors as descriptor_counters;

use crate::cli::{INSPECTIONS, InspectArgs};
use crate::exit_status::{ExitStatus, Failure};
use heat::HeatMap;
use look::Look;
use std::fmt::Write;
use umbra_machine::Machine;
use umbra_machine::cpu::decode::{Encoding, decode};
use umbra_machine::cpu::fault::{Fault, vector};
use umbra_machine::cpu::state::{Seg, Segment, State};
use umbra_machine::cpu::{Vcpu, mode::ModeBits};
use umbra_machine::mmu::{Counters, FaultClass, Linear};

/// Reads an address: hexadecimal with or without `0x`.
pub fn parse_address(text: &str) -> Result<u64, String> {
    let digits = text.trim().trim_start_matches("0x").replace('_', "");
    u64::from_str_radix(&digits, 16)
        .map_err(|_| format!("\"{text}\" is not an address; try a hexadecimal number such as 0xffffffff81000000"))
}

/// `umbra inspect`: looks at a running machine, or runs one to its end (`--until`, `--timeout` or its own) and looks at it then.
pub fn run(args: &InspectArgs) -> Result<ExitStatus, Failure> {
    if let Some(path) = &args.connect {
        return live::connect(args, path);
    }
    if args.follow.is_some() {
        return Err(Failure::input("--follow needs a running machine; try --connect SOCKET"));
    }
    let mut config = crate::options::config(&args.run)?;
    config.trace.inspected = true;
    let ended = crate::run::to_the_end(&args.run, &config)?;
    let mut machine = ended.machine;
    if !args.run.json {
        println!("\nThe run ended: {}, after {} instructions.", ended.end.name(), machine.retired());
    }
    if let Some(path) = &args.output {
        HeatMap::of(&machine).save(path)?;
    }
    Ok(args.show(&look::look(&mut machine, args.what, &args.run.at)))
}

impl InspectArgs {
    /// The word for what is looked at.
    pub fn what_name(&self) -> &'static str {
        INSPECTIONS.iter().find(|(_, what)| *what == self.what).map_or("", |(name, _)| name)
    }
    /// Prints a look.
    pub fn show(&self, look: &Look) -> ExitStatus {
        if self.run.json {
            println!("{:#}", look.data);
        } else {
            print!("{}", look.text);
        }
        if look.clean { ExitStatus::GOOD } else { ExitStatus::FAILURES }
    }
}

/// Names of the general registers.
const NAMES: [&str; 16] =
    ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "8", "9", "10", "11", "12", "13", "14", "15"];
/// Letters of RFLAGS bits, from bit 0.
const FLAGS: &[(u32, &str)] = &[
    (0, "CF"),
    (2, "PF"),
    (4, "AF"),
    (6, "ZF"),
    (7, "SF"),
    (8, "TF"),
    (9, "IF"),
    (10, "DF"),
    (11, "OF"),
    (14, "NT"),
    (16, "RF"),
    (17, "VM"),
    (18, "AC"),
    (19, "VIF"),
    (20, "VIP"),
    (21, "ID"),
];
const CR0: &[(u32, &str)] = &[
    (0, "PE"),
    (1, "MP"),
    (2, "EM"),
    (3, "TS"),
    (4, "ET"),
    (5, "NE"),
    (16, "WP"),
    (18, "AM"),
    (29, "NW"),
    (30, "CD"),
    (31, "PG"),
];
const CR4: &[(u32, &str)] = &[
    (0, "VME"),
    (1, "PVI"),
    (2, "TSD"),
    (3, "DE"),
    (4, "PSE"),
    (5, "PAE"),
    (6, "MCE"),
    (7, "PGE"),
    (8, "PCE"),
    (9, "OSFXSR"),
    (10, "OSXMMEXCPT"),
    (11, "UMIP"),
    (16, "FSGSBASE"),
    (17, "PCIDE"),
    (18, "OSXSAVE"),
    (20, "SMEP"),
    (21, "SMAP"),
];
const EFER: &[(u32, &str)] = &[(0, "SCE"), (8, "LME"), (10, "LMA"), (11, "NXE"), (14, "FFXSR")];

fn names(value: u64, bits: &[(u32, &str)]) -> String {
    let set: Vec<&str> = bits.iter().filter(|(bit, _)| value >> bit & 1 != 0).map(|&(_, name)| name).collect();
    set.join(" ")
}

/// Appends a line. Writing to a string does not fail.
macro_rules! line {
    ($text:expr, $($format:tt)*) => { { let _ = writeln!($text, $($format)*); } };
}

/// The mode that a state is in, in words.
pub fn mode_name(state: &State) -> &'static str {
    let big = state.segment(Seg::Cs).big();
    match (state.protected(), state.v86(), state.long_mode(), state.code64()) {
        (false, ..) => "real mode",
        (_, true, ..) => "virtual-8086 mode",
        (_, _, true, true) => "64-bit mode",
        (_, _, true, false) => "compatibility mode",
        _ if big => "32-bit protected mode",
        _ => "16-bit protected mode",
    }
}

/// All registers that steer execution.
pub fn registers(number: usize, vcpu: &Vcpu) -> String {
    let (state, control) = (&vcpu.state, &vcpu.state.control);
    let mut text = String::new();
    let activity = format!("{:?}", state.activity).to_lowercase();
    line!(text, "vCPU {number}: {}, CPL {}, {activity}, {} instructions", mode_name(state), state.cpl, state.retired);
    let wide = state.long_mode();
    let (count, per_line) = if wide { (16, 4) } else { (8, 4) };
    for first in (0..count).step_by(per_line) {
        let row: Vec<String> = (first..first + per_line)
            .map(|n| {
                let value = state.gpr(n as u8);
                if wide {
                    format!("r{:<3}{value:016x}", NAMES[n])
                } else {
                    format!("e{:<3}{:08x}", NAMES[n], value as u32)
                }
            })
            .collect();
        line!(text, "{}", row.join("  "));
    }
    let flags = vcpu.flags();
    line!(text, "rip {:016x}  flags {flags:08x} [{}] IOPL {}", state.rip, names(flags, FLAGS), state.iopl());
    for (name, seg) in ["es", "cs", "ss", "ds", "fs", "gs"].iter().zip(Seg::ALL) {
        line!(text, "{name:<4}{}", segment(state.segment(seg)));
    }
    line!(text, "ldt {}", segment(&state.ldtr));
    line!(text, "tr  {}", segment(&state.tr));
    let (gdt, idt) = (&state.gdtr, &state.idtr);
    line!(text, "gdt {:016x} limit {:04x}   idt {:016x} limit {:04x}", gdt.base, gdt.limit, idt.base, idt.limit);
    line!(text, "cr0 {:08x} [{}]", control.cr0, names(control.cr0, CR0));
    line!(text, "cr2 {:016x}  cr3 {:016x}", control.cr2, control.cr3);
    line!(text, "cr4 {:08x} [{}]", control.cr4, names(control.cr4, CR4));
    line!(text, "efer {:04x} [{}]", control.efer, names(control.efer, EFER));
    let d = &state.dr;
    line!(text, "dr0 {:x}  dr1 {:x}  dr2 {:x}  dr3 {:x}  dr6 {:x}  dr7 {:x}", d[0], d[1], d[2], d[3], d[6], d[7]);
    text
}

fn segment(s: &Segment) -> String {
    let kind = match (s.usable(), s.rights & 0x10 != 0, s.code()) {
        (false, ..) => "null",
        (_, false, _) => "system",
        (_, _, true) if s.long() => "code 64",
        (_, _, true) if s.big() => "code 32",
        (_, _, true) => "code 16",
        _ if s.big() => "data 32",
        _ => "data 16",
    };
    format!("{:04x} base {:016x} limit {:08x} rights {:04x} ({kind})", s.selector, s.base, s.limit, s.rights)
}

/// As many bytes from `linear` as the guest's tables lead to, at most `most`.
pub fn peek(vcpu: &Vcpu, linear: u64, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < most {
        let here = linear.wrapping_add(bytes.len() as u64);
        let length = (4096 - (here & 4095) as usize).min(most - bytes.len());
        let mut part = vec![0; length];
        if vcpu.link.mmu.peek(Linear(here), &mut part).is_err() {
            break;
        }
        bytes.extend(part);
    }
    bytes
}

/// One instruction as text: its length, and "address  bytes  text".
fn instruction(bytes: &[u8], rip: u64, mode: ModeBits) -> (usize, String) {
    let (length, text) = match decode(bytes, rip, mode, Encoding::default()) {
        Ok(insn) => (insn.len().max(1), insn.text()),
        Err(_) => (1, "(bad)".to_owned()),
    };
    let shown: String = bytes.iter().take(length).map(|byte| format!("{byte:02x} ")).collect();
    (length, format!("{rip:16x}  {shown:<31} {text}"))
}

/// `count` instructions from an offset in CS.
pub fn disassembly(vcpu: &Vcpu, offset: u64, count: usize) -> String {
    let state = &vcpu.state;
    let linear = linear_of(state, offset);
    let bytes = peek(vcpu, linear, count * 15);
    let (mut text, mut done) = (String::new(), 0);
    if bytes.is_empty() {
        line!(text, "{offset:16x}  (the guest's tables lead nowhere)");
    }
    for _ in 0..count {
        let rest = bytes.get(done..).unwrap_or(&[]);
        if rest.is_empty() {
            break;
        }
        let (length, shown) = instruction(rest, offset.wrapping_add(done as u64), vcpu.link.mode);
        line!(text, "{shown}");
        done += length;
    }
    text
}

/// The linear address of an offset in CS.
fn linear_of(state: &State, offset: u64) -> u64 {
    if state.code64() { offset } else { u64::from(state.segment(Seg::Cs).base.wrapping_add(offset) as u32) }
}

/// The instructions around RIP, with an arrow at RIP. What lies before is found by trying where decoding meets RIP.
pub fn around_rip(vcpu: &Vcpu) -> String {
    let state = &vcpu.state;
    let rip = state.rip;
    let mut before = String::new();
    for distance in (4..=24u64.min(rip)).rev() {
        let start = rip - distance;
        let bytes = peek(vcpu, linear_of(state, start), distance as usize);
        let (mut lines, mut done) = (Vec::new(), 0);
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let Ok(insn) = decode(rest, start + done as u64, vcpu.link.mode, Encoding::default()) else { break };
            lines.push(instruction(rest, start + done as u64, vcpu.link.mode).1);
            done += insn.len().max(1);
        }
        if done as u64 == distance {
            before = lines.iter().map(|line| format!("   {line}\n")).collect();
            break;
        }
    }
    let mut text = before;
    for (index, line) in disassembly(vcpu, rip, 6).lines().enumerate() {
        line!(text, "{} {line}", if index == 0 { "=>" } else { "  " });
    }
    text
}

/// An address as guest, monitor and host have it.
pub fn three_variants(vcpu: &Vcpu, linear: u64) -> String {
    let explanation = vcpu.link.mmu.explain(Linear(linear));
    let mut text = format!("{explanation}\n");
    let whose = ["supervisor read", "supervisor write", "user read", "user write"];
    let classes: Vec<String> =
        whose.iter().zip(&explanation.classes).map(|(who, class)| format!("{who}: {}", class_name(*class))).collect();
    line!(text, "  would meet: {}", classes.join(", "));
    text
}

/// A fault class in words.
pub fn class_name(class: FaultClass) -> &'static str {
    match class {
        FaultClass::Hit => "hit",
        FaultClass::NotShadowed => "hidden(not yet shadowed)",
        FaultClass::FrameOut => "hidden(frame out)",
        FaultClass::WriteTrack => "hidden(write-track)",
        FaultClass::DirtyTrack => "hidden(dirty-track)",
        FaultClass::CopyOnWrite => "hidden(copy-on-write)",
        FaultClass::Mmio => "MMIO",
        FaultClass::GuestTrue => "guest-true",
    }
}

/// An exception in words.
pub fn fault_name(fault: &Fault) -> String {
    const NAMED: &[(u8, &str)] = &[
        (vector::DE, "#DE divide error"),
        (vector::DB, "#DB debug"),
        (vector::NMI, "NMI"),
        (vector::BP, "#BP breakpoint"),
        (vector::OF, "#OF overflow"),
        (vector::BR, "#BR bound range"),
        (vector::UD, "#UD invalid opcode"),
        (vector::NM, "#NM device not available"),
        (vector::DF, "#DF double fault"),
        (vector::TS, "#TS invalid TSS"),
        (vector::NP, "#NP segment not present"),
        (vector::SS, "#SS stack fault"),
        (vector::GP, "#GP general protection"),
        (vector::PF, "#PF page fault"),
        (vector::MF, "#MF x87 error"),
        (vector::AC, "#AC alignment check"),
        (vector::MC, "#MC machine check"),
        (vector::XM, "#XM SIMD error"),
    ];
    let name = NAMED.iter().find(|(number, _)| *number == fault.vector);
    let mut text = name.map_or_else(|| format!("vector {}", fault.vector), |(_, name)| (*name).to_owned());
    if let Some(code) = fault.error_code {
        let _ = write!(text, ", error code {code:#x}");
    }
    if fault.vector == vector::PF {
        let code = fault.error_code.unwrap_or(0);
        let how = match (code & 16 != 0, code & 2 != 0) {
            (true, _) => "fetch",
            (_, true) => "write",
            _ => "read",
        };
        let who = if code & 4 != 0 { "user" } else { "supervisor" };
        let why = match (code & 8 != 0, code & 1 != 0) {
            (true, _) => "reserved bits set",
            (_, true) => "not allowed",
            _ => "not present",
        };
        let _ = write!(text, " ({who} {how} of linear {:#x}, {why})", fault.linear.0);
    }
    text
}

/// The counters of the monitor.
pub fn counters(counters: &Counters) -> String {
    let mut text = String::from("slow accesses by class:\n");
    for class in FaultClass::ALL {
        line!(text, "  {:<26}{:>14}", class_name(class), counters.class(class));
    }
    line!(text, "  {:<26}{:>14}", "in all", counters.slow_accesses);
    text
}

/// The same, then the exceptions that the guest met last.
pub fn faults(machine: &Machine) -> String {
    counters(&machine.memory().counters()) + &exceptions::text(machine)
}

/// Monitor roots and tables.
pub fn roots(counters: &Counters) -> String {
    let (c, m) = (counters, &counters.monitor);
    let mut text = String::new();
    line!(
        text,
        "monitor roots now    {:>12}   changes that met one {:>12}, that needed a new one {}",
        m.roots,
        c.root_hits,
        c.root_misses
    );
    let kept = c.kept_entries as f64 / c.root_hits.max(1) as f64;
    line!(text, "TLB entries alive after a change that met a root, in the mean {kept:.1}");
    line!(text, "monitor entries now  {:>12}   filled {:>26}, dropped {}", m.live, m.fills, m.drops);
    line!(
        text,
        "monitor tables made  {:>12}   dropped {:>25}, given up as data {}",
        m.tables_made,
        m.tables_dropped,
        m.floods
    );
    line!(text, "tracked stores       {:>12}   code writes {:>21}", c.tracked_stores, c.code_writes);
    line!(text, "rights taken away    {:>12}   frames moved {:>20}", m.waits, m.moves);
    text
}

/// Monitor descriptor tables.
pub fn descriptors(machine: &Machine) -> String {
    let mut text = String::new();
    for (number, vcpu) in machine.vcpus().iter().enumerate() {
        let (live, c) = (vcpu.tables.live(), vcpu.tables.counters);
        line!(
            text,
            "vCPU {number}: {live} descriptors known, made {}, lost to a write {}; {} pages whose entries check themselves",
            c.fills,
            c.drops,
            c.floods
        );
    }
    text
}

/// TLBs.
pub fn tlbs(machine: &Machine) -> String {
    let c = machine.memory().counters();
    let mut text = String::new();
    line!(
        text,
        "drains that found something {:>10}   TLB sets emptied whole {:>10}   resized {}",
        c.drains,
        c.flushes,
        c.resizes
    );
    text.push_str(&descriptors(machine));
    for (number, vcpu) in machine.vcpus().iter().enumerate() {
        let report = vcpu.link.mmu.audit();
        line!(
            text,
            "vCPU {number}: {} live TLB entries in the current root, {}",
            report.entries,
            verdict(&report.wrong)
        );
    }
    text
}

fn verdict(wrong: &[String]) -> String {
    match wrong {
        [] => "all as the monitor has them".to_owned(),
        [first, ..] => format!("{} WRONG, the first: {first}", wrong.len()),
    }
}

/// The audit of monitor and TLBs, and whether it is clean.
pub fn audit(machine: &mut Machine) -> (String, bool) {
    let mut text = String::new();
    for vcpu in machine.vcpus_mut() {
        vcpu.link.mmu.drain();
    }
    let monitor = machine.memory().audit();
    line!(
        text,
        "monitor: {} tables, {} entries compared with the guest's tables, {}",
        monitor.tables,
        monitor.entries,
        verdict(&monitor.wrong).replace("all as the monitor has them", "all equal")
    );
    let mut clean = monitor.is_clean();
    for (number, vcpu) in machine.vcpus().iter().enumerate() {
        let report = vcpu.link.mmu.audit();
        clean &= report.is_clean();
        line!(
            text,
            "vCPU {number}: {} TLB entries compared with the monitor, {}",
            report.entries,
            verdict(&report.wrong)
        );
    }
    for wrong in monitor.wrong.iter().skip(1) {
        line!(text, "  {wrong}");
    }
    (text, clean)
}

/// Host memory.
pub fn host_memory(machine: &Machine) -> String {
    let touched = machine.memory().touched_frames();
    let total = machine.memory_map().total() >> 12;
    let mut text =
        format!("guest RAM: {total} frames of 4 KiB, {touched} touched ({} MiB of {} MiB)\n", touched >> 8, total >> 8);
    let counters = machine.memory().counters();
    line!(text, "given up by the guest: {} pages", counters.monitor.discards);
    let counts = counters.reclaim;
    if counts.limit == 0 {
        return text + "no frame is ever out\n";
    }
    let (frames, mib) = (|count: u64| count >> 8, |bytes: u64| bytes >> 20);
    line!(
        text,
        "limit {} MiB, resident {} MiB (at most {})",
        frames(counts.limit),
        frames(counts.resident),
        frames(counts.most_resident)
    );
    line!(
        text,
        "out: {} frames ({} MiB) in {} MiB of the swap file's {}",
        counts.swapped,
        frames(counts.swapped),
        mib(counts.swap_bytes),
        mib(counts.swap_file_bytes)
    );
    if counts.disk_evictions != 0 {
        line!(
            text,
            "on disks of the guest: {} frames ({} MiB); {} left for them, {} were read there again, {} moved as blocks were written",
            counts.on_disk,
            frames(counts.on_disk),
            counts.disk_evictions,
            counts.disk_reads,
            counts.disk_moves
        );
    }
    line!(
        text,
        "taken away {} ({} all zero, {} as the swap file had them), brought back {} ({} are in both places), touched first {}",
        counts.evictions,
        counts.zero_evictions,
        counts.clean_evictions,
        counts.swap_ins,
        counts.copied,
        counts.first_touches
    );
    line!(
        text,
        "written {} MiB, read {} MiB; {} of {} asked were in use",
        mib(counts.swap_written),
        mib(counts.swap_read),
        counts.used,
        counts.asked
    );
    if counts.joins != 0 {
        line!(
            text,
            "shared: {} pages ({} MiB) in {} frames that others read too; {} became shared, {} were written again",
            counts.shared,
            frames(counts.shared),
            counts.shared_frames,
            counts.joins,
            counts.breaks
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(parse_address("0xffff_ffff81000000"), Ok(0xffff_ffff_8100_0000));
        assert_eq!(parse_address("7c00"), Ok(0x7c00));
        assert!(parse_address("0xg").unwrap_err().contains("; try "));
        assert!(parse_address("").is_err());
    }

    #[test]
    fn faults_have_names() {
        let fault = Fault {
            error_code: Some(6),
            linear: Linear(0x1234),
            ..Fault::page(umbra_machine::mmu::PageFault { linear: Linear(0), error_code: 0 })
        };
        assert_eq!(fault_name(&fault), "#PF page fault, error code 0x6 (user write of linear 0x1234, not present)");
        assert_eq!(fault_name(&Fault::ud()), "#UD invalid opcode");
    }
}
