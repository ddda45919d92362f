//! Which engine the tests of this crate run on: `UMBRA_TEST_ENGINE=interp` (default) or `jit`, which emits every block at once.

use umbra_cpu::Vcpu;
use umbra_cpu::emit::{DEFAULT_BYTES, Jit};

/// Gives a fresh vCPU the engine that is asked for.
pub fn set(cpu: &mut Vcpu) {
    if let Ok(name) = std::env::var("UMBRA_TEST_ENGINE") {
        named(cpu, &name);
    }
}

/// Gives a fresh vCPU the engine of this name.
pub fn named(cpu: &mut Vcpu, name: &str) {
    match name {
        "interp" => cpu.use_jit(None),
        "jit" => {
            cpu.use_jit(Some(Jit::new(DEFAULT_BYTES).expect("a host for the JIT")));
            cpu.link.hot = 1;
        }
        other => panic!("no engine is called {other}: interp or jit"),
    }
}
