//! How a run ended, for people (a sentence) and for scripts (`--json`, one line).

use crate::exit_status::ExitStatus;
use crate::host::memory::resident_bytes;
use crate::run::Ended;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use umbra_machine::Machine;
use umbra_machine::config::EndName;
use umbra_machine::cpu::Exit;
use umbra_machine::mmu::{Counters, FaultClass};

/// Why a run is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest switched the machine off.
    PoweredOff,
    /// `--until` matched.
    Until,
    /// `--fail-on` matched.
    FailOn,
    /// The person at the terminal, or a debugger, ended it.
    Ended,
    /// The guest's exit device; the status that it makes.
    GuestExit(u8),
    /// A vCPU shut down after a triple fault.
    Crashed(usize),
    /// A reset under `--on-reset exit`.
    Reset,
    /// The engines of `--engine both` have come to different states.
    Diverged,
    /// `--timeout` passed.
    TimedOut,
    /// `--instructions` were retired; how many.
    InstructionLimit(u64),
    /// Every vCPU sleeps and nothing can wake one.
    Asleep,
    /// Our output goes nowhere any more.
    OutputLost,
    /// Paged guest memory failed; the sentence.
    SwapFailed(String),
    /// A reset failed to load the guest again.
    ResetFailed(String),
}

impl End {
    /// The process's exit status.
    pub fn status(&self) -> ExitStatus {
        match self {
            End::PoweredOff | End::Until | End::Ended => ExitStatus::GOOD,
            End::FailOn => ExitStatus::FAIL_ON,
            End::GuestExit(status) => ExitStatus(*status),
            End::Crashed(_) => ExitStatus::CRASH,
            End::Reset => ExitStatus::RESET,
            End::Diverged => ExitStatus::DIVERGED,
            End::TimedOut | End::InstructionLimit(_) | End::Asleep => ExitStatus::TIMED_OUT,
            End::OutputLost | End::SwapFailed(_) | End::ResetFailed(_) => ExitStatus::HOST,
        }
    }
    /// What is said on standard error; nothing when all is as asked for.
    pub fn sentence(&self) -> Option<String> {
        let text = match self {
            End::PoweredOff | End::Until | End::Ended | End::GuestExit(_) => return None,
            End::FailOn => "the output matched --fail-on".to_owned(),
            End::Crashed(vcpu) => format!("the guest crashed (triple fault on vCPU {vcpu}); its story is above"),
            End::Reset => "the guest reset the machine; try --on-reset reboot to let it".to_owned(),
            End::Diverged => "the engines came to different states; the first difference is above".to_owned(),
            End::TimedOut => "timed out; try a longer --timeout".to_owned(),
            End::InstructionLimit(count) => format!("stopped after {count} instructions; try a larger --instructions"),
            End::Asleep => {
                "the guest sleeps and nothing can wake it (HLT with interrupts off); try a guest that powers off"
                    .to_owned()
            }
            End::OutputLost => "nobody reads the guest's output any more; try --serial file:PATH".to_owned(),
            End::SwapFailed(why) => why.clone(),
            End::ResetFailed(why) => format!("the guest reset, but cannot start again: {why}"),
        };
        Some(text)
    }
    /// The name in the summary.
    pub fn name(&self) -> &'static str {
        let end = match self {
            End::PoweredOff => EndName::PoweredOff,
            End::Until => EndName::Until,
            End::FailOn => EndName::FailOn,
            End::Ended => EndName::Ended,
            End::GuestExit(_) => EndName::GuestExit,
            End::Crashed(_) => EndName::Crashed,
            End::Reset => EndName::Reset,
            End::Diverged => EndName::Diverged,
            End::TimedOut => EndName::TimedOut,
            End::InstructionLimit(_) => EndName::InstructionLimit,
            End::Asleep => EndName::Asleep,
            End::OutputLost => EndName::OutputLost,
            End::SwapFailed(_) => EndName::SwapFailed,
            End::ResetFailed(_) => EndName::ResetFailed,
        };
        end.name()
    }
}

/// What `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The exit status.
    pub status: u8,
    /// Why the run is over.
    pub end: &'static str,
    /// Host time in milliseconds from the options to the first instruction: building the machine, loading its files.
    pub power_on_ms: f64,
    /// Host time from the first instruction.
    pub wall_seconds: f64,
    /// Guest time from power-on.
    pub guest_seconds: f64,
    /// Instructions retired by all vCPUs.
    pub retired: u64,
    /// Resets by the guest.
    pub resets: u64,
    /// Bytes that the guest sent on serial ports and the console port.
    pub output_bytes: u64,
    /// The last POST code (port 80h).
    pub post_code: u8,
    /// The last value of the report port (`--post-port`), if the guest wrote one.
    pub report: Option<u8>,
    /// Where the first processor stands: CS:RIP, hexadecimal.
    pub stands_at: String,
    /// What the script still waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stuck_at: Option<String>,
    /// The text screen (`--screen-text`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub screen: Vec<String>,
    /// The hash of the final state, hexadecimal.
    pub state_hash: String,
    /// Frames of guest RAM that the host holds.
    pub touched_frames: u64,
    /// Bytes of this process in the host's memory, guest RAM included (absent where the host does not say).
    pub rss_bytes: Option<u64>,
    /// The same without the touched frames: what Umbra itself takes.
    pub overhead_bytes: Option<u64>,
    /// External interrupts delivered.
    pub interrupts: u64,
    /// Exceptions delivered, by vector, those that occurred.
    pub exceptions: BTreeMap<usize, u64>,
    /// Instructions that Umbra does not have (each became #UD).
    pub unimplemented_instructions: u64,
    /// Which ones, with their operands, and how often.
    pub unimplemented: BTreeMap<String, u64>,
    /// Accesses to MSRs that the processor model does not have (each became #GP(0)).
    pub unknown_msr_accesses: u64,
    /// Which ones, hexadecimal: the first sixteen of each vCPU.
    pub unknown_msrs: BTreeSet<String>,
    /// Uops per lifted instruction.
    pub uops_per_instruction: f64,
    /// The interpreter's blocks: lifted, dropped because their code was written, left since they load what was written, looked up.
    pub blocks: BTreeMap<&'static str, u64>,
    /// The JIT's counters, all vCPUs together: units, bytes, chains, flushes, why emitted code was left.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub jit: BTreeMap<&'static str, u64>,
    /// Host bytes for each guest byte of emitted code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_bytes_per_guest_byte: Option<f64>,
    /// Returns of vCPUs to the run loop, by reason: how often, and the milliseconds of host time until they ran again.
    pub exits: BTreeMap<&'static str, (u64, f64)>,
    /// Guest instructions that the JIT lifts and emits in a second of CPU time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emitted_per_second: Option<f64>,
    /// Slow accesses by class.
    pub fault_classes: BTreeMap<&'static str, u64>,
    /// All counters of the mmu.
    pub mmu: Counters,
    /// Monitor descriptor tables, by vCPU.
    pub descriptors: Vec<serde_json::Value>,
    /// Accesses that no device answered: port (hexadecimal) or "memory", and how often.
    pub unclaimed: BTreeMap<String, u64>,
}

impl Summary {
    /// The summary of a machine that has ended.
    pub fn new(ended: &mut Ended) -> Summary {
        let (machine, end) = (&mut ended.machine, &ended.end);
        // The hash reads all memory, which the host may count as touching it.
        let touched_frames = machine.memory().touched_frames();
        let rss_bytes = resident_bytes();
        let state_hash = format!("{:016x}", machine.state_hash());
        let mmu = machine.memory().counters();
        let mut exceptions = BTreeMap::new();
        let [mut interrupts, mut unimplemented_instructions, mut msrs, mut uops, mut insns] = [0; 5];
        for vcpu in machine.vcpus() {
            let counters = &vcpu.link.counters;
            for (vector, &count) in counters.exceptions.iter().enumerate().filter(|(_, count)| **count != 0) {
                *exceptions.entry(vector).or_insert(0) += count;
            }
            interrupts += counters.interrupts;
            unimplemented_instructions += counters.unimplemented;
            msrs += counters.unknown_msr_accesses;
            uops += counters.lifted_uops;
            insns += counters.lifted_insns;
        }
        let mut blocks = BTreeMap::new();
        for counters in machine.vcpus().iter().map(|vcpu| &vcpu.link.counters) {
            for (name, count) in [
                ("lifted", counters.blocks),
                ("dropped", counters.dropped),
                ("patched", counters.patched),
                ("looked up", counters.lookups),
            ] {
                *blocks.entry(name).or_insert(0) += count;
            }
        }
        let jit = jit_counters(machine);
        let bytes = |name| jit.get(name).map(|&count| count as f64);
        let host_bytes_per_guest_byte =
            bytes("host bytes").zip(bytes("guest bytes")).map(|(host, guest)| host / guest.max(1.0));
        let emitted_per_second =
            bytes("instructions").zip(bytes("nanoseconds")).map(|(made, spent)| made * 1e9 / spent.max(1.0));
        let unclaimed = unclaimed(machine);
        let stands_at = machine
            .vcpus()
            .first()
            .map_or_else(String::new, |vcpu| format!("{:x}:{:x}", vcpu.state.seg[1].selector, vcpu.state.rip));
        let (post_code, report) = {
            let mut board = machine.board();
            (board.chips_mut().debug_ports().post_code(), board.report())
        };
        Summary {
            status: end.status().0,
            end: end.name(),
            power_on_ms: ended.power_on.as_secs_f64() * 1e3,
            wall_seconds: ended.wall.as_secs_f64(),
            guest_seconds: machine.now().0 as f64 / 1e9,
            retired: machine.retired(),
            resets: ended.resets,
            output_bytes: ended.output_bytes,
            post_code,
            report,
            stands_at,
            stuck_at: ended.stuck_at.clone(),
            screen: Vec::new(),
            state_hash,
            touched_frames,
            rss_bytes,
            overhead_bytes: rss_bytes.map(|bytes| bytes.saturating_sub(touched_frames * 4096)),
            interrupts,
            exceptions,
            unimplemented_instructions,
            unimplemented: unimplemented(machine),
            unknown_msr_accesses: msrs,
            unknown_msrs: unknown_msrs(machine),
            uops_per_instruction: uops as f64 / (insns.max(1)) as f64,
            blocks,
            jit,
            host_bytes_per_guest_byte,
            exits: exits(machine),
            emitted_per_second,
            fault_classes: FaultClass::ALL
                .into_iter()
                .map(|class| (crate::inspect::class_name(class), mmu.class(class)))
                .collect(),
            mmu,
            descriptors: machine.vcpus().iter().map(crate::inspect::descriptor_counters).collect(),
            unclaimed,
        }
    }
    /// One line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }
}

/// Instructions that Umbra does not have and that the guest met, by form, and how often.
pub fn unimplemented(machine: &Machine) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for (&code, &(_, count)) in machine.vcpus().iter().flat_map(|vcpu| &vcpu.link.unimplemented) {
        *found.entry(umbra_machine::cpu::decode::form_name(code)).or_insert(0) += count;
    }
    found
}

/// MSRs that the processor model does not have and that the guest accessed.
pub fn unknown_msrs(machine: &Machine) -> BTreeSet<String> {
    let numbers = machine.vcpus().iter().flat_map(|vcpu| vcpu.link.counters.unknown_msrs);
    numbers.filter(|&number| number != 0).map(|number| format!("{number:#x}")).collect()
}

/// What the JITs of all vCPUs counted together.
pub fn jit_counters(machine: &Machine) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    let machine = machine.other().unwrap_or(machine);
    for jit in machine.vcpus().iter().filter_map(|vcpu| vcpu.link.jit.as_ref()) {
        for (name, count) in jit.counters().rows() {
            *sums.entry(name).or_insert(0) += count;
        }
    }
    sums
}

/// Accesses that no device answered.
pub fn unclaimed(machine: &Machine) -> BTreeMap<String, u64> {
    let board = machine.board();
    let name = |port: u32| if port > 0xFFFF { "memory".to_owned() } else { format!("{port:#x}") };
    board.counters().unclaimed.iter().map(|(&port, &count)| (name(port), count)).collect()
}

/// Why vCPUs came back to the run loop.
fn exits(machine: &Machine) -> BTreeMap<&'static str, (u64, f64)> {
    let name = |exit| match exit {
        Exit::BudgetSpent => "budget spent",
        Exit::Halted => "halted",
        Exit::WaitForSipi => "wait for SIPI",
        Exit::Shutdown => "shutdown",
        Exit::Stopped => "stopped",
        Exit::Debug => "debug",
    };
    let logs = || machine.vcpus().iter().map(|vcpu| &vcpu.link.exits);
    let row = |exit| {
        let time = logs().map(|log| log.time(exit).as_secs_f64()).sum::<f64>();
        (name(exit), (logs().map(|log| log.count(exit)).sum(), time * 1e3))
    };
    Exit::ALL.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_the_ends() {
        #[rustfmt::skip]
        let cases = [
            (End::PoweredOff, 0), (End::Until, 0), (End::Ended, 0), (End::GuestExit(0x21), 0x21), (End::Crashed(0), 100),
            (End::FailOn, 102), (End::Reset, 104), (End::Diverged, 106), (End::TimedOut, 124), (End::InstructionLimit(7), 124), (End::Asleep, 124), (End::OutputLost, 4),
        ];
        for (end, status) in cases {
            assert_eq!(end.status().0, status, "{end:?}");
            let quiet = matches!(end, End::PoweredOff | End::Until | End::Ended | End::GuestExit(_));
            assert_eq!(end.sentence().is_none(), quiet);
        }
    }
}
