//! What is known of each frame of a guest's RAM: where its contents are, and what the last looks at it found.
//!
//! By frame, in groups of [`Pool::MERGED`]. A guest of a pool that it shares with others has room for its own groups only. Called by
//! `monitor::evict` and `monitor::join`.

use super::State;
use crate::frames::{Frame, Pool};

/// What is known of a frame.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) state: State,
    /// Looks since the frame was last found in use.
    pub(crate) idle: u8,
    /// Checksum of the contents at the last look of the sharer; 0: there was none.
    pub(crate) sum: u32,
}

/// Frames side by side.
#[derive(Debug)]
pub(crate) struct Group {
    /// The number of the first one.
    pub(crate) first: usize,
    /// They were made one huge page of the host, and none has left since.
    pub(crate) merged: bool,
    pub(crate) entries: Box<[Entry; Pool::MERGED]>,
}

/// The books of all frames.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// By number of the frame / [`Pool::MERGED`]: its group's place + 1, or 0.
    places: Vec<u32>,
    groups: Vec<Group>,
}

impl Books {
    /// What is known of a frame; nothing where nothing was ever noted.
    #[inline]
    pub(crate) fn get(&self, frame: Frame) -> Entry {
        let (group, index) = (frame.0 as usize / Pool::MERGED, frame.0 as usize % Pool::MERGED);
        let place = self.places.get(group).copied().unwrap_or(0) as usize;
        let group = place.checked_sub(1).and_then(|place| self.groups.get(place));
        group.map_or_else(Entry::default, |group| group.entries[index])
    }
    /// The same, to be changed.
    pub(crate) fn entry(&mut self, frame: Frame) -> &mut Entry {
        let index = frame.0 as usize % Pool::MERGED;
        &mut self.group_of(frame).entries[index]
    }
    /// The group of a frame.
    pub(crate) fn group_of(&mut self, frame: Frame) -> &mut Group {
        let number = frame.0 as usize / Pool::MERGED;
        if self.places.len() <= number {
            self.places.resize(number + 1, 0);
        }
        if self.places[number] == 0 {
            let first = number * Pool::MERGED;
            self.groups.push(Group { first, merged: false, entries: Box::new([Entry::default(); Pool::MERGED]) });
            self.places[number] = self.groups.len() as u32;
        }
        &mut self.groups[self.places[number] as usize - 1]
    }
    /// All groups, in the order in which they were begun.
    pub(crate) fn groups(&mut self) -> &mut [Group] {
        &mut self.groups
    }
    /// Frames in all groups, for a hand that goes round.
    pub(crate) fn len(&self) -> usize {
        self.groups.len() * Pool::MERGED
    }
    /// The frame at a place of the round.
    pub(crate) fn at(&self, place: usize) -> Frame {
        let group = self.groups.get(place / Pool::MERGED);
        Frame(group.map_or(0, |group| group.first + place % Pool::MERGED) as u32)
    }
    /// Each frame of which something is known.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Frame, &Entry)> {
        self.groups.iter().flat_map(|group| {
            group.entries.iter().enumerate().map(|(index, entry)| (Frame((group.first + index) as u32), entry))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_noted_takes_room() {
        let mut books = Books::default();
        assert_eq!((books.len(), books.get(Frame(70_000)).state), (0, State::Kept));
        books.entry(Frame(70_000)).state = State::In;
        books.entry(Frame(3)).idle = 7;
        assert_eq!((books.len(), books.get(Frame(70_000)).state), (2 * Pool::MERGED, State::In));
        let round: Vec<Frame> = (0..books.len()).map(|place| books.at(place)).collect();
        assert!(round.contains(&Frame(70_000)) && round.contains(&Frame(3)));
        assert_eq!(books.iter().filter(|(_, entry)| entry.state != State::Kept).count(), 1);
    }
}
