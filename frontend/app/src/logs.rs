//! `--trace`: categories of what happens, written to standard error through `tracing`.
//!
//! Each category is a `tracing` target of the same name. Nothing is written per instruction.

use crate::exit_status::Failure;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::{Layer, registry};

/// The categories and what they tell.
#[rustfmt::skip]
pub const CATEGORIES: &[(&str, &str)] = &[
    ("boot",   "what was loaded and how it starts"),
    ("run",    "why the vCPUs stopped, resets, the end"),
    ("serial", "serial ports: where they lead, end of input, what was waited for and typed"),
    ("gdb",    "what the debugger asks"),
    ("io",     "accesses to ports and memory that nobody answers"),
    ("mmu",    "roots, hidden faults, tracked writes"),
    ("window", "what draws, keys as they come from the host"),
    ("cpu",    "exceptions, instructions and MSRs that are not there"),
];

/// Lets through the categories that were asked for.
struct Wanted(Vec<String>);

impl Wanted {
    fn wants(&self, target: &str) -> bool {
        self.0.iter().any(|category| category == target)
    }
}

impl<S> Filter<S> for Wanted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.wants(metadata.target())
    }
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(if self.0.is_empty() { LevelFilter::OFF } else { LevelFilter::TRACE })
    }
}

/// Begins to write the categories.
pub fn start(categories: &[String]) -> Result<(), Failure> {
    for category in categories {
        if category == "help" {
            let list: Vec<String> = CATEGORIES.iter().map(|(name, what)| format!("{name} ({what})")).collect();
            return Err(Failure::input(format!("--trace takes {}; try --trace boot,run", list.join(", "))));
        }
        if !CATEGORIES.iter().any(|(name, _)| name == category) {
            let names: Vec<&str> = CATEGORIES.iter().map(|(name, _)| *name).collect();
            return Err(Failure::input(format!("--trace has no category \"{category}\"; try {}", names.join(", "))));
        }
    }
    if categories.is_empty() {
        return Ok(());
    }
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = !plain && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour).without_time();
    let subscriber = registry().with(layer.with_filter(Wanted(categories.to_vec())));
    // A second call (there is none) would keep the first subscriber.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_categories_are_named() {
        assert!(start(&["cpo".to_owned()]).unwrap_err().sentence.contains("\"cpo\""));
        assert!(start(&["help".to_owned()]).unwrap_err().sentence.contains("boot ("));
        assert!(Wanted(vec!["io".to_owned()]).wants("io"));
    }
}
