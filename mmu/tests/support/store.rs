//! Swap stores for tests: in memory, with room for so much, or broken from some moment on.
//!
//! With `UMBRA_TEST_MEMORY=paged` the directed tests run with 16 pages in host memory at a time, with `pinned` on locked memory.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use umbra_mmu::reclaim::policy::Policy;
use umbra_mmu::reclaim::swap::SwapStore;
use umbra_mmu::reclaim::{Freed, LEAST_LIMIT};
use umbra_mmu::{GuestMemory, Paging};

/// A store in memory. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Memory {
    pub bytes: Arc<Mutex<Vec<u8>>>,
    /// Bytes that it has room for.
    pub room: Arc<AtomicU64>,
    /// Whether reads fail.
    pub broken: Arc<AtomicBool>,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { bytes: Arc::default(), room: Arc::new(AtomicU64::new(u64::MAX)), broken: Arc::default() }
    }
}

impl SwapStore for Memory {
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        let end = at as usize + from.len();
        if end as u64 > self.room.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at as usize..end].copy_from_slice(from);
        Ok(())
    }
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk is broken"));
        }
        let bytes = self.bytes.lock().unwrap();
        let part = bytes.get(at as usize..at as usize + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(part);
        Ok(())
    }
}

/// Pages or pins fresh memory if the environment asks for it.
pub fn keep_as_asked(memory: &GuestMemory) {
    match std::env::var("UMBRA_TEST_MEMORY").as_deref() {
        Ok("paged") => {
            let (limit, policy, store) = (LEAST_LIMIT, Policy::default(), Box::<Memory>::default());
            memory.set_paging(Paging { limit, policy, store, freed: Freed::Poisoned });
        }
        Ok("pinned") => memory.pin().expect("RLIMIT_MEMLOCK has room for the guests of all threads"),
        Ok("resident") | Err(_) => {}
        Ok(other) => panic!("no kind of memory is called {other}: resident, pinned or paged"),
    }
}
