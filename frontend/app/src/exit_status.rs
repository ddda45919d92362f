//! The exit statuses of `umbra run`, and what went wrong when there was nothing to run.
//!
//! The guest's exit device gives odd statuses, `(value << 1) | 1`; Umbra's own are even, so that a script can tell them apart.

use std::fmt;
use std::process::ExitCode;
use umbra_machine::{BuildError, ConfigError};

/// A process exit status.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub u8);

impl ExitStatus {
    /// The guest powered off, or `--until` matched, or the user ended it.
    pub const GOOD: ExitStatus = ExitStatus(0);
    /// Something failed in `test` or `batch`.
    pub const FAILURES: ExitStatus = ExitStatus(1);
    /// Bad usage or input.
    pub const INPUT: ExitStatus = ExitStatus(2);
    /// The host failed us.
    pub const HOST: ExitStatus = ExitStatus(4);
    /// The guest crashed: triple fault.
    pub const CRASH: ExitStatus = ExitStatus(100);
    /// `--fail-on` matched.
    pub const FAIL_ON: ExitStatus = ExitStatus(102);
    /// The guest reset under `--on-reset exit`.
    pub const RESET: ExitStatus = ExitStatus(104);
    /// The engines of `--engine both` differ.
    pub const DIVERGED: ExitStatus = ExitStatus(106);
    /// Timed out, or asleep for good.
    pub const TIMED_OUT: ExitStatus = ExitStatus(124);
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status.0)
    }
}

/// The table, for `umbra run --help`.
pub const TABLE: &str = "\
Exit status:
  0    powered off, or --until matched, or ended with Ctrl-A x
  odd  the guest wrote the exit device (port F4h): (value << 1) | 1, low 8 bits
  2    bad usage or input
  4    the host failed (memory, files, terminal)
  100  the guest crashed: triple fault
  102  --fail-on matched
  104  the guest reset under --on-reset exit
  106  the engines of --engine both came to different states
  124  timed out, or asleep with nothing that could wake it";

/// Why a command could not do its work: one sentence that says what, where and what to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The process's exit status.
    pub status: ExitStatus,
    /// The sentence.
    pub sentence: String,
}

impl Failure {
    /// The user's options or files are wrong.
    pub fn input(sentence: impl fmt::Display) -> Failure {
        Failure { status: ExitStatus::INPUT, sentence: one_line(&sentence) }
    }
    /// The host refused something.
    pub fn host(sentence: impl fmt::Display) -> Failure {
        Failure { status: ExitStatus::HOST, sentence: one_line(&sentence) }
    }
}

fn one_line(sentence: &impl fmt::Display) -> String {
    sentence.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::input(error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Failure {
        match error {
            BuildError::Pool(_) | BuildError::Map(_) | BuildError::NoJit(_) => Failure::host(error),
            BuildError::Load(_) => Failure::input(advised(error, "to fetch or build the file again")),
            _ => Failure::input(error),
        }
    }
}

/// A sentence with advice, unless it has some already.
pub fn advised(sentence: impl fmt::Display, advice: &str) -> String {
    let sentence = sentence.to_string();
    if sentence.contains("; try ") { sentence } else { format!("{sentence}; try {advice}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn umbra_s_own_statuses_of_run_are_even() {
        use ExitStatus as S;
        for status in [S::GOOD, S::INPUT, S::HOST, S::CRASH, S::FAIL_ON, S::RESET, S::TIMED_OUT] {
            assert_eq!(status.0 & 1, 0);
            assert!(TABLE.contains(&format!("  {} ", status.0)));
        }
    }

    #[test]
    fn a_failure_is_one_line() {
        assert_eq!(Failure::input("a\n  b\tc").sentence, "a b c");
    }
}
