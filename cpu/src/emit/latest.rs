//! The unit that was made last for each block.
//!
//! A table of unit numbers: the keys are in the units. A map that has them itself is ten times as large, and its misses were
//! a tenth of the time that a block takes to be made.

use crate::cache::BlockKey;
use hashbrown::HashTable;
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};

/// A unit, with the hash of its block's key.
#[derive(Copy, Clone, Debug)]
struct Entry {
    hash: u32,
    unit: u32,
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

/// The units made last. `is` says whether a unit is of the block that is meant.
#[derive(Debug, Default)]
pub struct Latest(HashTable<Entry>);

impl Latest {
    /// The unit made last for a block.
    pub fn get(&self, key: &BlockKey, is: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = hash_of(key);
        self.0.find(spread(hash), |entry| entry.hash == hash && is(entry.unit)).map(|entry| entry.unit)
    }
    /// `unit` is the one made last; gives the one before.
    pub fn insert(&mut self, key: &BlockKey, unit: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = hash_of(key);
        let same = |entry: &Entry| entry.hash == hash && is(entry.unit);
        match self.0.entry(spread(hash), same, Entry::spread) {
            hashbrown::hash_table::Entry::Occupied(mut found) => {
                Some(std::mem::replace(&mut found.get_mut().unit, unit))
            }
            hashbrown::hash_table::Entry::Vacant(place) => {
                place.insert(Entry { hash, unit });
                None
            }
        }
    }
    /// A block has none any more; gives the one made last.
    pub fn remove(&mut self, key: &BlockKey, is: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = hash_of(key);
        let found = self.0.find_entry(spread(hash), |entry| entry.hash == hash && is(entry.unit)).ok()?;
        Some(found.remove().0.unit)
    }
    /// None.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
