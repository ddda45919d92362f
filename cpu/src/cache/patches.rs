//! Which code is changed in place while it runs: inline caches, counters and jump targets that a program keeps in its immediates.
//!
//! Code that was emitted once and is written again and again at the same bytes is lifted anew with the immediate *loaded* from
//! where it stands (`lift::patched`). Writes that touch nothing else leave such a block as it is.

use super::BlockKey;

/// Blocks that are remembered. A neighbour at the same index only makes one be forgotten.
const BLOCKS: usize = 256;
/// Places in a block that are remembered.
const PLACES: usize = 4;
/// As often must code have been written at a place before it is taken for one that changes.
const OFTEN: u8 = 2;
/// The most bytes that an immediate has.
const LONGEST: u16 = 8;

/// Bytes of a block, as offsets from its first one: from, to.
pub type Span = (u16, u16);

/// Where code was written.
pub(super) struct Patches(Box<[Entry]>);

#[derive(Copy, Clone, Default)]
struct Entry {
    key: Option<BlockKey>,
    places: [(Span, u8); PLACES],
}

impl Default for Patches {
    fn default() -> Patches {
        Patches(vec![Entry::default(); BLOCKS].into_boxed_slice())
    }
}

fn index(key: &BlockKey) -> usize {
    (key.linear ^ key.linear >> 8 ^ key.page.0 << 5) as usize % BLOCKS
}

impl Patches {
    /// A block was lost to a write at `place`. That counts from the time on when it was first `emitted`.
    pub(super) fn note(&mut self, key: &BlockKey, place: Span, emitted: bool) {
        let entry = &mut self.0[index(key)];
        if place.1 - place.0 > LONGEST || !emitted && entry.key != Some(*key) {
            return;
        }
        if entry.key != Some(*key) {
            *entry = Entry { key: Some(*key), ..Entry::default() };
        }
        let known = entry.places.iter().position(|(known, count)| *count != 0 && *known == place);
        // Where all are taken, the one that was written least often gives way.
        let rarest = || (0..PLACES).min_by_key(|&at| entry.places[at].1).unwrap_or(0);
        let at = known.unwrap_or_else(rarest);
        let count = if known.is_some() { entry.places[at].1.saturating_add(1) } else { 1 };
        entry.places[at] = (place, count);
    }
    /// The places of a block that change.
    pub(super) fn of(&self, key: &BlockKey) -> impl Iterator<Item = Span> + '_ {
        let entry = &self.0[index(key)];
        let known = entry.key == Some(*key);
        entry.places.iter().filter(move |(_, count)| known && *count >= OFTEN).map(|(place, _)| *place)
    }
}
