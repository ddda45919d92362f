//! Stops a case that retires nothing: a processor that raises one exception after another reaches no instruction count.
//!
//! One thread a runner looks once a second whether the same case still runs. Called by `run`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use umbra_mmu::attention::{Attention, bits};

/// A case may take this many seconds.
pub const PATIENCE: u64 = 20;

/// Watches one vCPU. The thread ends when this is dropped.
#[derive(Debug)]
pub struct Watchdog {
    /// The number of the running case; even while none runs.
    case: Arc<AtomicU64>,
}

impl Watchdog {
    /// Starts watching.
    pub fn new(attention: Arc<Attention>) -> Watchdog {
        let case = Arc::new(AtomicU64::new(0));
        let watched = Arc::downgrade(&case);
        std::thread::spawn(move || {
            let (mut last, mut seconds) = (0, 0);
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let Some(case) = watched.upgrade() else { return };
                let now = case.load(Ordering::Relaxed);
                seconds = if now == last && now & 1 == 1 { seconds + 1 } else { 0 };
                last = now;
                if seconds >= PATIENCE {
                    attention.set(bits::STOP);
                }
            }
        });
        Watchdog { case }
    }
    /// A case starts.
    pub fn start(&self) {
        self.case.fetch_or(1, Ordering::Relaxed);
    }
    /// It ended.
    pub fn end(&self) {
        let now = self.case.load(Ordering::Relaxed);
        self.case.store((now | 1) + 1, Ordering::Relaxed);
    }
}
