//! Where an idle vCPU sleeps: until its attention word has something for it. Costs no host time meanwhile.

use parking_lot::{Condvar, Mutex};
use std::time::Duration;
use umbra_mmu::attention::Attention;

/// One vCPU's sleeping place.
#[derive(Debug, Default)]
pub struct Gate {
    lock: Mutex<()>,
    bell: Condvar,
}

impl Gate {
    /// Wakes the sleeper, who then looks at its attention word. Call it after setting bits there.
    pub fn wake(&self) {
        // Taking the lock puts this after the sleeper's look or before its next one: no bell is missed.
        drop(self.lock.lock());
        self.bell.notify_all();
    }
    /// Sleeps until one of `bits` is set, or until `most` has passed. Gives whether a bit is set.
    pub fn sleep(&self, attention: &Attention, bits: u32, most: Duration) -> bool {
        let mut guard = self.lock.lock();
        if attention.get() & bits == 0 {
            self.bell.wait_for(&mut guard, most);
        }
        attention.get() & bits != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use umbra_mmu::attention::bits;

    #[test]
    fn a_bell_wakes_the_sleeper() {
        let (gate, attention) = (Arc::new(Gate::default()), Arc::new(Attention::default()));
        let (theirs, word) = (gate.clone(), attention.clone());
        let sleeper = std::thread::spawn(move || theirs.sleep(&word, bits::NMI, Duration::from_secs(20)));
        attention.set(bits::NMI);
        gate.wake();
        assert!(sleeper.join().unwrap());
        assert!(!gate.sleep(&attention, bits::INIT, Duration::from_millis(1)));
    }
}
