//! How the memory of this crate's test guests is kept: `UMBRA_TEST_MEMORY=resident` (default) or `paged`, of which 16 pages are in
//! host memory at a time, and none of them when a guest begins to run.

use std::io;
use umbra_mmu::memory::GuestMemory;
use umbra_mmu::reclaim::policy::Policy;
use umbra_mmu::reclaim::swap::SwapStore;
use umbra_mmu::reclaim::{Freed, LEAST_LIMIT, Paging};

/// Sets fresh memory up as it is asked for. Before RAM is mapped.
pub fn set(memory: &GuestMemory) {
    match std::env::var("UMBRA_TEST_MEMORY").as_deref() {
        Ok("paged") => {
            let store = Box::<Store>::default();
            memory.set_paging(Paging { limit: LEAST_LIMIT, policy: Policy::default(), store, freed: Freed::Poisoned });
        }
        Ok("resident") | Err(_) => {}
        Ok(other) => panic!("no kind of memory is called {other}: resident or paged"),
    }
}

/// Swapped pages, in memory.
#[derive(Debug, Default)]
struct Store(Vec<u8>);

impl SwapStore for Store {
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        let end = at as usize + from.len();
        let length = self.0.len().max(end);
        self.0.resize(length, 0);
        self.0[at as usize..end].copy_from_slice(from);
        Ok(())
    }
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(&self.0[at as usize..at as usize + into.len()]);
        Ok(())
    }
}
