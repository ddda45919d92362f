//! Which engine the tests of this crate run on: `UMBRA_TEST_ENGINE=interp` (default) or `jit`, which emits every block at once.

use umbra_cpu::Vcpu;
use umbra_cpu::emit::{DEFAULT_BYTES, Jit};

/// Gives a fresh vCPU the engine that is asked for.
pub fn set(cpu: &mut Vcpu) {
    match std::env::var("UMBRA_TEST_ENGINE").as_deref() {
        Err(_) | Ok("interp") => {}
        Ok("jit") => {
            cpu.use_jit(Some(Jit::new(DEFAULT_BYTES).expect("a host for the JIT")));
            cpu.link.hot = 1;
        }
        Ok(other) => panic!("UMBRA_TEST_ENGINE={other}: should be interp or jit"),
    }
}
