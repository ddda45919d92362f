//! Numbers by a block's key.
//!
//! The keys are with what has the numbers: a table that had them itself would be four to ten times as large, and its misses were
//! a tenth of the time that a block takes to be emitted.

use super::BlockKey;
use hashbrown::HashTable;
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};

/// A number, with the hash of its block's key.
#[derive(Copy, Clone, Debug)]
struct Entry {
    hash: u32,
    number: u32,
}

impl Entry {
    /// The hash as the table takes it, which looks at the high bits of a number, too.
    fn spread(&self) -> u64 {
        spread(self.hash)
    }
}

fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

fn hash_of(key: &BlockKey) -> u32 {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    (hasher.finish() >> 16) as u32
}

/// The numbers. `is` says whether a number is of the block that is meant.
#[derive(Debug, Default)]
pub struct Numbers(HashTable<Entry>);

impl Numbers {
    /// A block's number.
    pub fn get(&self, key: &BlockKey, is: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = hash_of(key);
        self.0.find(spread(hash), |entry| entry.hash == hash && is(entry.number)).map(|entry| entry.number)
    }
    /// Gives a block another number, and tells the one before.
    pub fn insert(&mut self, key: &BlockKey, number: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = hash_of(key);
        let same = |entry: &Entry| entry.hash == hash && is(entry.number);
        match self.0.entry(spread(hash), same, Entry::spread) {
            hashbrown::hash_table::Entry::Occupied(mut found) => {
                Some(std::mem::replace(&mut found.get_mut().number, number))
            }
            hashbrown::hash_table::Entry::Vacant(place) => {
                place.insert(Entry { hash, number });
                None
            }
        }
    }
    /// A block has no number any more; tells which it had.
    pub fn remove(&mut self, key: &BlockKey, is: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = hash_of(key);
        let found = self.0.find_entry(spread(hash), |entry| entry.hash == hash && is(entry.number)).ok()?;
        Some(found.remove().0.number)
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
