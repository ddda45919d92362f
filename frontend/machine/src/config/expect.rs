//! `[expect]` of a machine file: what `umbra test` and `umbra batch` expect of the run. `umbra run` takes no notice of it.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `[expect]`. Whatever is named must hold; a table that names neither `end` nor `status` wants a good end (status 0).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExpectConfig {
    /// How the run ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<EndName>,
    /// The exit status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// Regular expressions that the first serial port's output matches, one after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub serial: Vec<String>,
    /// Regular expressions that it does not match anywhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
    /// Regular expressions that the text screen matches at the end, one after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub screen: Vec<String>,
    /// The last value of the report port (`post` in `[test-ports]`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post: Option<u8>,
    /// A file that holds exactly what the serial port sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listing: Option<PathBuf>,
    /// Why the test is known to fail. Then a pass is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fails: Option<String>,
}

macro_rules! ends {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// How a run ends, by the name that its summary gives.
        #[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum EndName { $($(#[$doc])* #[serde(rename = $name)] $variant),* }
        impl EndName {
            /// The name.
            pub const fn name(self) -> &'static str {
                match self { $(EndName::$variant => $name),* }
            }
            /// The end of this name.
            pub fn from_name(name: &str) -> Option<EndName> {
                match name { $($name => Some(EndName::$variant),)* _ => None }
            }
        }
    };
}

ends! {
    /// Paged guest memory could not be kept or brought back.
    SwapFailed = "swap-failed",
    /// The guest switched the machine off.
    PoweredOff = "powered-off",
    /// The output matched `until`.
    Until = "until",
    /// The output matched `fail-on`.
    FailOn = "fail-on",
    /// A person ended it.
    Ended = "ended",
    /// The guest wrote the exit device.
    GuestExit = "guest-exit",
    /// A triple fault.
    Crashed = "crashed",
    /// A reset under `on-reset = "exit"`.
    Reset = "reset",
    /// The engines of `engine = "both"` came to different states.
    Diverged = "diverged",
    /// The host's time was up.
    TimedOut = "timed-out",
    /// The instructions were used up.
    InstructionLimit = "instruction-limit",
    /// Every processor sleeps and nothing can wake one.
    Asleep = "asleep",
    /// Nobody read the output.
    OutputLost = "output-lost",
    /// The guest reset and could not start again.
    ResetFailed = "reset-failed",
}
