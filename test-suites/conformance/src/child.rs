//! A child process with limits: what it wrote, how it ended, and no way to take its parent along.
//!
//! Limits are looked after from outside, so that they hold whatever the child does: wall time, and resident memory where the
//! host tells it (`/proc`). Called by `guest`.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Output beyond this many bytes is dropped.
const MOST_OUTPUT: usize = 16 << 20;
/// How long a look at the child waits, at first and at most.
const LOOK: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(20)];

/// What a child may use.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time by the host's clock.
    pub wall: Duration,
    /// Bytes of resident memory.
    pub memory: Option<u64>,
}

/// How a child ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal, which it did not get from us.
    Killed(i32),
    /// It was ended: its time was up.
    TimedOut,
    /// It was ended: it occupied this many bytes.
    TooMuchMemory(u64),
}

impl How {
    /// From what the system says.
    pub fn of(status: ExitStatus) -> How {
        #[cfg(unix)]
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
            return How::Killed(signal);
        }
        How::Exited(status.code().unwrap_or(-1))
    }
    /// In words.
    pub fn text(self) -> String {
        match self {
            How::Exited(status) => format!("ended with status {status}"),
            How::Killed(signal) => format!("the process crashed ({})", signal_name(signal)),
            How::TimedOut => "the process did not end in time and was ended".to_owned(),
            How::TooMuchMemory(bytes) => {
                format!("the process occupied {} MiB of memory, more than it may, and was ended", bytes >> 20)
            }
        }
    }
}

/// The name of a signal (POSIX.1-2017, signal.h; numbers as on Linux).
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// What is left of a child.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub how: How,
    /// What it wrote to standard output.
    pub out: Vec<u8>,
    /// What it wrote to standard error.
    pub err: Vec<u8>,
    /// How long it ran.
    pub wall: Duration,
}

/// Runs a command without input until it ends or a limit is reached.
pub fn run(command: &mut Command, limits: Limits) -> std::io::Result<Finished> {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let readers = [reader(child.stdout.take()), reader(child.stderr.take())];
    let how = watch(&mut child, limits, started)?;
    let wall = started.elapsed();
    let [out, err] = readers.map(|reader| reader.join().unwrap_or_default());
    Ok(Finished { how, out, err, wall })
}

fn watch(child: &mut Child, limits: Limits, started: Instant) -> std::io::Result<How> {
    let mut pause = LOOK[0];
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(How::of(status));
        }
        let over = if started.elapsed() >= limits.wall {
            Some(How::TimedOut)
        } else {
            limits
                .memory
                .zip(resident(child.id()))
                .filter(|(most, now)| now > most)
                .map(|(_, now)| How::TooMuchMemory(now))
        };
        if let Some(how) = over {
            // It may have ended meanwhile; then there is nothing to kill.
            let _ = child.kill();
            child.wait()?;
            return Ok(how);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LOOK[1]);
    }
}

/// Bytes of a process that are in memory, where the host tells (`/proc/PID/statm`, second field, in pages).
fn resident(process: u32) -> Option<u64> {
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    text.split_whitespace().nth(1)?.parse::<u64>().ok().map(|pages| pages * PAGE)
}

fn reader(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let Some(mut from) = from else { return kept };
        let mut part = [0; 1 << 14];
        // What is too much is still read: a child that cannot write would hang.
        while let Ok(count @ 1..) = from.read(&mut part) {
            let room = MOST_OUTPUT.saturating_sub(kept.len()).min(count);
            kept.extend_from_slice(&part[..room]);
        }
        kept
    })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn sh(script: &str, wall: u64, memory: Option<u64>) -> Finished {
        run(Command::new("sh").args(["-c", script]), Limits { wall: Duration::from_millis(wall), memory })
            .expect("a shell")
    }

    #[test]
    fn ends_of_all_kinds() {
        let good = sh("echo out; echo err >&2; exit 3", 60_000, None);
        assert_eq!(
            (good.how, good.out.as_slice(), good.err.as_slice()),
            (How::Exited(3), &b"out\n"[..], &b"err\n"[..])
        );
        assert_eq!(sh("kill -SEGV $$", 60_000, None).how, How::Killed(11));
        let hung = sh("echo begun; exec sleep 100", 200, None);
        assert_eq!((hung.how, hung.out.as_slice()), (How::TimedOut, &b"begun\n"[..]));
        assert!(matches!(sh("exec sleep 100", 60_000, Some(1)).how, How::TooMuchMemory(_)));
        let loud = sh("head -c 20000000 /dev/zero", 60_000, None);
        assert_eq!((loud.how, loud.out.len()), (How::Exited(0), MOST_OUTPUT));
        assert!(
            run(&mut Command::new("/no/such/program"), Limits { wall: Duration::from_secs(1), memory: None }).is_err()
        );
    }
}
