//! Which page goes next (S20): two replacement policies behind one trait. `mmu/tests/policies.rs` compares them with the optimum
//! on recorded traces.
//!
//! A policy is told when a page comes in, and asks whether it was *used* since it was last asked. That question is what
//! recency costs: a page is in use while a monitor entry leads to it, and asking takes its entries away, so that the next
//! access fills them again (a shadow miss, well under a microsecond). Called by `monitor::evict`.

use std::collections::VecDeque;
use std::fmt::Debug;

/// A replacement policy. Pages are named by the numbers of their frames.
pub trait Replacement: Debug + Send {
    /// A page has come in (and is being used).
    fn came(&mut self, frame: u32);
    /// A page has left without having been chosen.
    fn gone(&mut self, frame: u32);
    /// Chooses a page to leave; it is forgotten. `used` tells whether a page was used since it was last asked about.
    fn victim(&mut self, used: &mut dyn FnMut(u32) -> bool) -> Option<u32>;
    /// Its name, for people.
    fn name(&self) -> &'static str;
}

/// The replacement policies that there are.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// [`Clock`].
    Clock,
    /// [`Segmented`].
    #[default]
    Segmented,
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 2] = [Policy::Clock, Policy::Segmented];
    /// A policy that knows no pages yet.
    pub fn make(self) -> Box<dyn Replacement> {
        match self {
            Policy::Clock => Box::<Clock>::default(),
            Policy::Segmented => Box::<Segmented>::default(),
        }
    }
}

/// Where each page stands: an entry of a queue is good while its number is the page's.
#[derive(Debug, Default)]
struct Places {
    /// By frame, in parts of [`PART`]: a guest of a pool that it shares with others has few of them.
    numbers: Vec<Box<[u32]>>,
}

/// Frames side by side.
const PART: usize = 512;

/// An entry of a queue.
#[derive(Copy, Clone, Debug)]
struct Entry {
    frame: u32,
    number: u32,
}

impl Places {
    /// A new entry for a page; every older one is void.
    fn enter(&mut self, frame: u32) -> Entry {
        let part = frame as usize / PART;
        if self.numbers.len() <= part {
            self.numbers.resize_with(part + 1, Box::default);
        }
        if self.numbers[part].is_empty() {
            self.numbers[part] = vec![0; PART].into();
        }
        let number = &mut self.numbers[part][frame as usize % PART];
        *number = number.wrapping_add(1);
        Entry { frame, number: *number }
    }
    fn is_good(&self, entry: Entry) -> bool {
        let part = self.numbers.get(entry.frame as usize / PART);
        part.and_then(|part| part.get(entry.frame as usize % PART)) == Some(&entry.number)
    }
    fn forget(&mut self, frame: u32) {
        let part = self.numbers.get_mut(frame as usize / PART);
        if let Some(number) = part.and_then(|part| part.get_mut(frame as usize % PART)) {
            *number = number.wrapping_add(1);
        }
    }
}

/// Second chance: pages in a circle; the hand passes over those that were used since it last came by.
#[derive(Debug, Default)]
pub struct Clock {
    places: Places,
    circle: VecDeque<Entry>,
}

impl Replacement for Clock {
    fn came(&mut self, frame: u32) {
        let entry = self.places.enter(frame);
        self.circle.push_back(entry);
    }
    fn gone(&mut self, frame: u32) {
        self.places.forget(frame);
    }
    fn victim(&mut self, used: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        // Once around asks everybody; whoever is the first then goes.
        let mut chances = self.circle.len();
        while let Some(entry) = self.circle.pop_front() {
            if !self.places.is_good(entry) {
                chances = chances.saturating_sub(1);
                continue;
            }
            if chances != 0 && used(entry.frame) {
                chances -= 1;
                self.circle.push_back(entry);
                continue;
            }
            self.places.forget(entry.frame);
            return Some(entry.frame);
        }
        None
    }
    fn name(&self) -> &'static str {
        "clock"
    }
}

/// Two queues: new pages are on probation; who is used again there is protected. Protected pages go back on probation, oldest
/// first, so that a part of all is always being watched. A page that is touched once passes through probation only, and does
/// not push out what is used again and again.
#[derive(Debug, Default)]
pub struct Segmented {
    places: Places,
    /// Just come: the use that brought them in is still going on, and says nothing.
    fresh: VecDeque<Entry>,
    probation: VecDeque<Entry>,
    protected: VecDeque<Entry>,
}

/// Of so many pages one is fresh, and one of [`WATCHED`] on probation. Other shares (4 to 32, 2 or 3) make 3 % more faults on
/// the recorded traces.
const FRESH: usize = 8;
const WATCHED: usize = 2;

impl Segmented {
    /// Moves pages on to be watched: from now on a use shows.
    fn watch(&mut self, used: &mut dyn FnMut(u32) -> bool) {
        let all = self.fresh.len() + self.probation.len() + self.protected.len();
        while self.fresh.len() > all / FRESH {
            self.watch_next(used, Segmented::next_fresh);
        }
        while self.probation.len() < all / WATCHED && !self.protected.is_empty() {
            self.watch_next(used, Segmented::next_protected);
        }
    }
    fn watch_next(&mut self, used: &mut dyn FnMut(u32) -> bool, next: fn(&mut Segmented) -> Option<Entry>) {
        let Some(entry) = next(self) else { return };
        if self.places.is_good(entry) {
            used(entry.frame);
            self.probation.push_back(entry);
        }
    }
    fn next_fresh(&mut self) -> Option<Entry> {
        self.fresh.pop_front()
    }
    fn next_protected(&mut self) -> Option<Entry> {
        self.protected.pop_front()
    }
}

impl Replacement for Segmented {
    fn came(&mut self, frame: u32) {
        let entry = self.places.enter(frame);
        self.fresh.push_back(entry);
    }
    fn gone(&mut self, frame: u32) {
        self.places.forget(frame);
    }
    fn victim(&mut self, used: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        // Where everybody is used all the time, somebody goes all the same.
        let mut chances = self.fresh.len() + self.probation.len() + self.protected.len();
        loop {
            self.watch(used);
            let queues = [&mut self.probation, &mut self.fresh, &mut self.protected];
            let entry = queues.into_iter().find_map(VecDeque::pop_front)?;
            if !self.places.is_good(entry) {
                continue;
            }
            if chances != 0 && used(entry.frame) {
                chances -= 1;
                self.protected.push_back(entry);
                continue;
            }
            self.places.forget(entry.frame);
            return Some(entry.frame);
        }
    }
    fn name(&self) -> &'static str {
        "segmented"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages that are not used go before those that are, whoever chooses.
    #[test]
    fn what_is_used_stays() {
        for policy in Policy::ALL {
            let mut pages = policy.make();
            (0..100).for_each(|frame| pages.came(frame));
            let mut touched = [true; 100];
            let mut order = Vec::new();
            for _ in 0..80 {
                // Pages 0 to 9 are used all the time.
                touched[..10].fill(true);
                let victim = pages.victim(&mut |frame| std::mem::take(&mut touched[frame as usize]));
                order.extend(victim);
            }
            assert_eq!(order.len(), 80);
            let hot = order.iter().filter(|frame| **frame < 10).count();
            assert!(hot <= 1, "{}: {order:?}", pages.name());
        }
    }

    #[test]
    fn gone_is_gone_and_nobody_goes_twice() {
        for policy in Policy::ALL {
            let mut pages = policy.make();
            (0..50).for_each(|frame| pages.came(frame));
            (0..25).for_each(|frame| pages.gone(2 * frame));
            let mut left: Vec<u32> = std::iter::from_fn(|| pages.victim(&mut |_| true)).collect();
            left.sort_unstable();
            assert_eq!(left, (0..25).map(|n| 2 * n + 1).collect::<Vec<_>>(), "{}", pages.name());
            pages.came(4);
            assert_eq!(pages.victim(&mut |_| true), Some(4));
            assert_eq!(pages.victim(&mut |_| true), None);
        }
    }
}
