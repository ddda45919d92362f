//! `--engine` for tests: the one place that knows which engines there are.
//!
//! The machine's configuration decides what exists; nothing here has to change when it starts to accept more. Called by
//! `run` (vectors) and by the app (whole guests).

use umbra_cpu::emit::{DEFAULT_BYTES, Jit};
use umbra_machine::config::{Clock, Engine, MachineConfig};

/// What runs tests when nobody says: emitted code, or the interpreter where the host has no place for that.
pub fn usual() -> Engine {
    if emitted_code().is_ok() { Engine::Jit } else { Engine::Interp }
}

fn emitted_code() -> Result<(), String> {
    Jit::new(DEFAULT_BYTES).map(drop).map_err(|problem| format!("{problem}; try --engine interp"))
}

/// The engines that a choice stands for: `both` runs each test on both, one after the other.
pub fn engines(choice: Engine) -> Result<Vec<Engine>, String> {
    let wanted = match choice {
        Engine::Both => vec![Engine::Interp, Engine::Jit],
        one => vec![one],
    };
    if wanted.contains(&Engine::Jit) {
        emitted_code()?;
    }
    for &engine in &wanted {
        let config = MachineConfig { engine, clock: Clock::Virtual, ..MachineConfig::default() };
        config.check().map_err(|error| error.to_string())?;
    }
    Ok(wanted)
}

/// The engine's name on the command line.
pub fn name(engine: Engine) -> &'static str {
    match engine {
        Engine::Interp => "interp",
        Engine::Jit => "jit",
        Engine::Both => "both",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is not there is refused with a sentence that says what to try.
    #[test]
    fn there_is_at_least_the_interpreter() {
        assert_eq!(engines(Engine::Interp), Ok(vec![Engine::Interp]));
        assert_eq!(engines(usual()), Ok(vec![usual()]));
        for choice in [Engine::Jit, Engine::Both] {
            match engines(choice) {
                Ok(list) => assert!(list.contains(&Engine::Jit)),
                Err(sentence) => assert!(sentence.contains("; try "), "{sentence}"),
            }
        }
    }
}
