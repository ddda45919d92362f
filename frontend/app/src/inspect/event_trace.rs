//! `--trace-events FILE`: the memory system's events in the Chrome trace format, which Perfetto opens.
//!
//! A row for each vCPU and one for the monitor; what lasted is a slice, the rest are instants. Times are microseconds of the
//! host's clock since power-on.

use crate::exit_status::Failure;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use umbra_machine::Machine;
use umbra_machine::mmu::{Event, EventKind, Events};

/// The newest events that are kept: 32 MiB of them.
const MOST: usize = 1 << 20;
/// The row of events that no vCPU owns.
const MONITOR_ROW: u16 = 1000;

/// A trace that goes on.
pub struct EventTrace {
    file: File,
    name: String,
}

impl EventTrace {
    /// Starts it; the file is made now, so that a bad path is known at once.
    pub fn start(machine: &Machine, path: &Path) -> Result<EventTrace, Failure> {
        let name = format!("--trace-events {}", path.display());
        let file = File::create(path).map_err(|error| Failure::host(format!("{name}: {error}; try another path")))?;
        machine.memory().trace_events(MOST);
        Ok(EventTrace { file, name })
    }
    /// Ends it and writes the file.
    pub fn finish(self, machine: &Machine) -> Result<(), Failure> {
        let events = machine.memory().take_events();
        machine.memory().trace_events(0);
        write(BufWriter::new(self.file), &events, machine.vcpus().len() as u16)
            .map_err(|error| Failure::host(format!("{}: {error}; try another path", self.name)))
    }
}

fn write(mut to: impl Write, events: &Events, vcpus: u16) -> std::io::Result<()> {
    writeln!(
        to,
        "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"forgotten\":{}}},\"traceEvents\":[",
        events.forgotten
    )?;
    let name = |row: u16| if row == MONITOR_ROW { "monitor".to_owned() } else { format!("vCPU {row}") };
    for row in (0..vcpus).chain([MONITOR_ROW]) {
        let named = json!({ "ph": "M", "name": "thread_name", "pid": 1, "tid": row, "args": { "name": name(row) } });
        writeln!(to, "{named},")?;
    }
    for event in &events.events {
        writeln!(to, "{},", line(event))?;
    }
    writeln!(to, "{}]}}", json!({ "ph": "M", "name": "process_name", "pid": 1, "args": { "name": "Umbra" } }))?;
    to.flush()
}

fn line(event: &Event) -> Value {
    let (name, category, address) = match event.kind {
        EventKind::RootMet => ("root met", "root", "guest root"),
        EventKind::RootNew => ("root made", "root", "guest root"),
        EventKind::Fill(class) => (super::class_name(class), "fill", "linear"),
        EventKind::TrackedStore => ("tracked store", "sync", "guest-physical"),
        EventKind::Zap => ("zap", "sync", "guest table"),
        EventKind::Shootdown => ("shootdown", "wait", "none"),
        EventKind::Moved => ("frames moved", "move", "frames"),
        EventKind::Evicted => ("evicted", "paging", "frames"),
        EventKind::FrameIn => ("frame in", "paging", "guest-physical"),
    };
    json!({
        "ph": "X", "name": name, "cat": category, "pid": 1, "tid": event.vcpu.unwrap_or(MONITOR_ROW),
        "ts": event.began as f64 / 1e3, "dur": f64::from(event.lasted) / 1e3,
        "args": { address: format!("{:#x}", event.address) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_machine::mmu::FaultClass;

    #[test]
    fn a_trace_is_json_with_a_row_for_each_vcpu() {
        let fill = EventKind::Fill(FaultClass::NotShadowed);
        let event = |vcpu, kind| Event { began: 1500, lasted: 250, vcpu, kind, address: 0x1000 };
        let events = Events { events: vec![event(Some(1), fill), event(None, EventKind::Shootdown)], forgotten: 3 };
        let mut text = Vec::new();
        write(&mut text, &events, 2).unwrap();
        let read: Value = serde_json::from_slice(&text).unwrap();
        let all = read["traceEvents"].as_array().unwrap();
        assert_eq!((all.len(), read["otherData"]["forgotten"].as_u64()), (6, Some(3)));
        assert_eq!(all[3]["name"], "hidden(not yet shadowed)");
        assert_eq!(
            (all[3]["ts"].as_f64(), all[3]["dur"].as_f64(), all[3]["tid"].as_u64()),
            (Some(1.5), Some(0.25), Some(1))
        );
        assert_eq!((&all[3]["args"]["linear"], all[4]["tid"].as_u64()), (&json!("0x1000"), Some(1000)));
    }
}
