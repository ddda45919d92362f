//! How the memory of this crate's test guests is kept, by `UMBRA_TEST_MEMORY`: `resident` (default); `pinned`, which is all there and
//! locked; or `paged`, of which 16 pages are in host memory at a time, and none of them when a guest begins to run.

use umbra_mmu::memory::GuestMemory;
use umbra_mmu::reclaim::policy::Policy;
use umbra_mmu::reclaim::{Freed, LEAST_LIMIT, Paging};

/// Sets fresh memory up as it is asked for. Before RAM is mapped.
pub fn set(memory: &GuestMemory) {
    match std::env::var("UMBRA_TEST_MEMORY").as_deref() {
        Ok("paged") => {
            let store = Box::<Vec<u8>>::default();
            memory.set_paging(Paging { limit: LEAST_LIMIT, policy: Policy::default(), store, freed: Freed::Poisoned });
        }
        Ok("pinned") => memory.pin().expect("RLIMIT_MEMLOCK has room for the guests of all threads"),
        Ok("resident") | Err(_) => {}
        Ok(other) => panic!("no kind of memory is called {other}: resident, pinned or paged"),
    }
}
