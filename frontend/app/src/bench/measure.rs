//! One run of an emulator as a child: reads the guest's serial output and stamps each mark with the child's CPU time.

use crate::exit_status::Failure;
use crate::host::children;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What one run gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// CPU seconds from the start to the guest's BOOT-OK.
    pub boot_cpu: Option<f64>,
    /// The kernels of guestbench in their order.
    pub kernels: Vec<Kernel>,
    /// CPU seconds of the whole process.
    pub total_cpu: Option<f64>,
    /// Umbra's own summary.
    pub summary: Option<Facts>,
    /// The guest said that it is done.
    pub done: bool,
}

/// What a bench takes from the summary of `umbra run --json`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Facts {
    /// Bytes resident beside the guest memory that was touched.
    pub overhead_bytes: Option<f64>,
    /// Guest instructions that the JIT lifted and emitted in a second.
    pub emitted_per_second: Option<f64>,
}

/// One kernel of guestbench.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// Its name, `family.kernel`.
    pub name: String,
    /// CPU seconds.
    pub cpu: f64,
    /// Its checksum.
    pub sum: String,
}

/// Runs a command to its end, or until the time is over.
pub fn measure(command: &mut Command, most: Duration) -> Result<Run, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let before = children::ended_cpu_seconds();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::host(format!("{name}: {error}; try a full path")))?;
    let process = child.id();
    let (send, lines) = crossbeam::channel::unbounded();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count != 0) {
                // The stamp is taken here, as the line comes.
                let stamp = children::running_cpu_seconds(process).unwrap_or(f64::NAN);
                if send.send((stamp, String::from_utf8_lossy(&line).into_owned())).is_err() {
                    break;
                }
                line.clear();
            }
        });
    }
    let errors = child.stderr.take().map(|stderr| std::thread::spawn(move || summary(BufReader::new(stderr))));
    let deadline = Instant::now() + most;
    let mut run = Run::default();
    let mut reader = Reader::default();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok((stamp, line)) => reader.line(&mut run, stamp, line.trim()),
            Err(crossbeam::channel::RecvTimeoutError::Disconnected) => break,
            Err(crossbeam::channel::RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                break;
            }
        }
    }
    let _ = child.wait();
    run.summary = errors.and_then(|reader| reader.join().ok().flatten());
    run.total_cpu = before.zip(children::ended_cpu_seconds()).map(|(before, after)| after - before);
    Ok(run)
}

/// The summary among the lines of standard error. Reads all of them: nobody waits for room.
fn summary(mut lines: impl BufRead) -> Option<Facts> {
    let (mut found, mut line) = (None, Vec::new());
    while lines.read_until(b'\n', &mut line).is_ok_and(|count| count != 0) {
        found = serde_json::from_slice(&line).ok().or(found);
        line.clear();
    }
    found
}

/// Reads guestbench's lines: `# run NAME`, `NAME SECONDS CHECKSUM …`, `# end NAME`.
#[derive(Default)]
struct Reader {
    begun: BTreeMap<String, f64>,
    sums: BTreeMap<String, String>,
}

impl Reader {
    fn line(&mut self, run: &mut Run, stamp: f64, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["BOOT-OK", ..] => run.boot_cpu = run.boot_cpu.or((!stamp.is_nan()).then_some(stamp)),
            ["ALL-DONE", ..] => run.done = true,
            ["#", "run", name] => drop(self.begun.insert((*name).to_owned(), stamp)),
            ["#", "end", name] => {
                if let Some(begun) = self.begun.remove(*name) {
                    let cpu = stamp - begun;
                    let sum = self.sums.get(*name).cloned().unwrap_or_default();
                    match run.kernels.iter_mut().find(|kernel| kernel.name == *name) {
                        // A repeat inside the guest: the least counts.
                        Some(kernel) => kernel.cpu = kernel.cpu.min(cpu),
                        None => run.kernels.push(Kernel { name: (*name).to_owned(), cpu, sum }),
                    }
                }
            }
            [name, seconds, sum, ..] if name.contains('.') && seconds.parse::<f64>().is_ok() && sum.len() == 16 => {
                if let Some(kernel) = run.kernels.iter_mut().find(|kernel| kernel.name == *name) {
                    (*sum).clone_into(&mut kernel.sum);
                }
                self.sums.insert((*name).to_owned(), (*sum).to_owned());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_found() {
        let text: &[u8] = b"umbra: words\n{\"status\":0,\"overhead_bytes\":5,\"emitted_per_second\":2.5}\nmore\n";
        let expected = Facts { overhead_bytes: Some(5.0), emitted_per_second: Some(2.5) };
        assert_eq!(summary(text), Some(expected));
        assert_eq!(summary(&b"umbra: words\n"[..]), None);
    }

    #[test]
    fn marks_and_results_are_read() {
        let mut run = Run::default();
        let mut reader = Reader::default();
        let lines = [
            (1.0, "BOOT-OK 0.9"),
            (1.5, "# run int.crc"),
            (2.0, "int.crc 0.5 0123456789abcdef"),
            (2.25, "# end int.crc"),
            (3.0, "# run os.pipe"),
            (4.0, "# end os.pipe"),
            (4.0, "os.pipe 1.0 fedcba9876543210 1.0"),
            (5.0, "ALL-DONE"),
        ];
        lines.iter().for_each(|&(stamp, line)| reader.line(&mut run, stamp, line));
        let kernel = |name: &str, cpu, sum: &str| Kernel { name: name.to_owned(), cpu, sum: sum.to_owned() };
        let expected = vec![kernel("int.crc", 0.75, "0123456789abcdef"), kernel("os.pipe", 1.0, "fedcba9876543210")];
        assert_eq!((run.boot_cpu, run.done, run.kernels), (Some(1.0), true, expected));
    }
}
