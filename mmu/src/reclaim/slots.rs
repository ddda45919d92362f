//! Which parts of a swap file are taken, in units of 512 bytes, so that eight small pages share the room of one.
//!
//! A slot is one to eight units side by side within a block of 4 KiB, as bits of one byte. Pages that leave together get empty
//! blocks side by side, so that they are one write, which reads nothing first, and lie together when they are wanted again.
//! Where there are not enough of them the file grows, up to twice of what is in it. A single slot takes the
//! fullest block that it fits (blocks are listed by how many units side by side they have free), and the file grows for it only
//! when there is none.

/// Bytes in a unit.
pub(crate) const UNIT: usize = 512;
/// Units in a block.
pub(crate) const UNITS: u32 = 8;

/// The map of a swap file.
#[derive(Debug)]
pub(crate) struct Slots {
    /// Taken units of each block.
    taken: Vec<u8>,
    /// Blocks by free units side by side. Lists are put right when they are looked at.
    by_room: [Vec<u32>; UNITS as usize + 1],
    /// On which lists a block is.
    listed: Vec<u16>,
    /// Units taken now.
    used: u64,
    /// Empty blocks, and where to look for the next.
    empty: usize,
    hand: usize,
}

/// Empty blocks side by side that are worth growing for.
const RUN: usize = 16;
/// Blocks that the file may always grow to.
const SMALL: u64 = 1024;

/// The longest run of free units in a block, and where it begins.
fn longest(taken: u8) -> (u32, u32) {
    let (mut best, mut at) = ((0, 0), 0);
    while at < UNITS {
        let run = (u32::from(taken) >> at | 1 << (UNITS - at)).trailing_zeros();
        if run > best.0 {
            best = (run, at);
        }
        at += run + 1;
    }
    best
}

impl Slots {
    /// An empty file.
    pub(crate) fn new() -> Slots {
        Slots { taken: Vec::new(), by_room: Default::default(), listed: Vec::new(), used: 0, empty: 0, hand: 0 }
    }
    /// Takes room for so many bytes (1 to 4096); gives its first unit.
    pub(crate) fn take(&mut self, bytes: usize) -> u32 {
        let units = (bytes.div_ceil(UNIT) as u32).clamp(1, UNITS);
        for room in units..=UNITS {
            while let Some(block) = self.by_room[room as usize].pop() {
                let Some(listed) = self.listed.get_mut(block as usize) else { continue };
                *listed &= !(1 << room);
                let (found, at) = longest(self.taken[block as usize]);
                if found == room {
                    return self.cut(block, at, units);
                }
            }
        }
        self.grow(1);
        self.cut(self.taken.len() as u32 - 1, 0, units)
    }
    fn grow(&mut self, blocks: usize) {
        let length = self.taken.len() + blocks;
        self.taken.resize(length, 0);
        self.listed.resize(length, 0);
        self.empty += blocks;
    }
    /// Takes back that the file has grown from so many bytes: there is no room for it.
    pub(crate) fn cut_back(&mut self, length: u64) {
        let blocks = (length / (u64::from(UNITS) * UNIT as u64)) as usize;
        let Some(grown) = self.taken.get(blocks..) else { return };
        if grown.iter().all(|taken| *taken == 0) {
            self.empty -= grown.len();
            self.taken.truncate(blocks);
            self.listed.truncate(blocks);
        }
    }
    fn cut(&mut self, block: u32, at: u32, units: u32) -> u32 {
        self.occupy(block, (((1u32 << units) - 1) << at) as u8);
        self.list(block);
        block * UNITS + at
    }
    fn occupy(&mut self, block: u32, mask: u8) {
        let taken = &mut self.taken[block as usize];
        debug_assert_eq!(*taken & mask, 0, "what is taken is free");
        self.empty -= usize::from(*taken == 0);
        *taken |= mask;
        self.used += u64::from(mask.count_ones());
    }
    /// Takes empty blocks side by side, as many of `masks` (units of each block, none of them empty) as fit; gives the first one
    /// and how many there are. None: single slots only.
    pub(crate) fn take_run(&mut self, masks: &[u8]) -> Option<(u32, usize)> {
        let wanted = masks.len().min(RUN);
        let first = match self.find_run(wanted) {
            Some(first) => first,
            None if (self.taken.len() + masks.len()) as u64 <= (self.used / u64::from(UNITS) * 2).max(SMALL) => {
                self.grow(masks.len());
                self.taken.len() - masks.len()
            }
            None => self.find_run(1)?,
        };
        let count = self.taken[first..].iter().zip(masks).take_while(|(taken, _)| **taken == 0).count();
        for (block, mask) in (first..).zip(&masks[..count]) {
            self.occupy(block as u32, *mask);
            self.list(block as u32);
        }
        self.hand = first + count;
        Some((first as u32, count))
    }
    /// The next so many empty blocks side by side.
    fn find_run(&self, wanted: usize) -> Option<usize> {
        if self.empty < wanted {
            return None;
        }
        let (before, after) = self.taken.split_at(self.hand.min(self.taken.len()));
        let find = |blocks: &[u8]| {
            let mut run = 0;
            let end = blocks.iter().position(|taken| {
                run = if *taken == 0 { run + 1 } else { 0 };
                run == wanted
            });
            end.map(|end| end + 1 - wanted)
        };
        find(after).map(|at| before.len() + at).or_else(|| find(before))
    }
    /// Gives the room of a slot back.
    pub(crate) fn give_back(&mut self, unit: u32, bytes: usize) {
        let units = (bytes.div_ceil(UNIT) as u32).clamp(1, UNITS);
        let (block, at) = (unit / UNITS, unit % UNITS);
        let mask = (((1u32 << units) - 1) << at) as u8;
        debug_assert_eq!(self.taken[block as usize] & mask, mask, "what is given back was taken");
        self.taken[block as usize] &= !mask;
        self.empty += usize::from(self.taken[block as usize] == 0);
        self.used -= u64::from(units);
        self.list(block);
    }
    fn list(&mut self, block: u32) {
        let (room, _) = longest(self.taken[block as usize]);
        let listed = &mut self.listed[block as usize];
        if room != 0 && *listed >> room & 1 == 0 {
            *listed |= 1 << room;
            self.by_room[room as usize].push(block);
        }
    }
    /// Bytes taken now.
    pub(crate) fn bytes(&self) -> u64 {
        self.used * UNIT as u64
    }
    /// Bytes that the file has grown to.
    pub(crate) fn length(&self) -> u64 {
        self.taken.len() as u64 * u64::from(UNITS) * UNIT as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_run() {
        let cases =
            [(0, (8, 0)), (0xff, (0, 0)), (1, (7, 1)), (0x80, (7, 0)), (0b0011_0000, (4, 0)), (0b0001_1011, (3, 5))];
        for (taken, expected) in cases {
            assert_eq!(longest(taken), expected, "{taken:#b}");
        }
    }

    /// Groups lie side by side: where only single blocks are empty the file grows for them, up to twice of what is in it, and
    /// then they take what is empty, however little.
    #[test]
    fn groups_lie_side_by_side() {
        let mut slots = Slots::new();
        let masks = [0xff; 32];
        (0..128).for_each(|group| assert_eq!(slots.take_run(&masks), Some((group * 32, 32))));
        (0..4096).step_by(4).for_each(|block| slots.give_back(block * UNITS, 4096));
        assert_eq!(slots.take_run(&masks), Some((4096, 32)), "a quarter is empty, one by one");
        (1..4096).step_by(4).for_each(|block| slots.give_back(block * UNITS, 4096));
        assert_eq!(slots.take_run(&masks), Some((4128, 32)), "two blocks side by side are not worth it");
        (2..4096).step_by(4).for_each(|block| slots.give_back(block * UNITS, 4096));
        let length = slots.length();
        assert_eq!(slots.take_run(&masks), Some((0, 3)), "most of it is empty");
        assert_eq!((slots.length(), slots.take_run(&masks)), (length, Some((4, 3))));
    }

    /// What the file cannot grow to is not taken for room.
    #[test]
    fn a_file_that_cannot_grow() {
        let mut slots = Slots::new();
        assert_eq!(slots.take_run(&[0xff; 4]), Some((0, 4)));
        let length = slots.length();
        assert_eq!(slots.take_run(&[0xff, 1]), Some((4, 2)));
        slots.cut_back(length);
        assert_eq!(slots.length(), 6 * 4096, "what is taken stays");
        slots.give_back(4 * UNITS, 4096);
        slots.give_back(5 * UNITS, 1);
        slots.cut_back(length);
        assert_eq!((slots.length(), slots.empty), (length, 0));
        slots.give_back(2 * UNITS + 3, 1);
        assert_eq!((slots.take(512), slots.take(512)), (2 * UNITS + 3, 4 * UNITS));
    }

    /// Slots never overlap, and what was given back is used before the file grows.
    #[test]
    fn slots_are_disjoint_and_reused() {
        let mut slots = Slots::new();
        let mut live: Vec<(u32, usize)> = Vec::new();
        let mut state = 7u64;
        let mut owner = std::collections::HashMap::new();
        let mut peak = 0;
        for step in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if live.len() < 500 || step < 19_000 && state >> 63 == 0 && live.len() < 1000 {
                let bytes = (state >> 33) as usize % 4096 + 1;
                let unit = slots.take(bytes);
                for unit in unit..unit + bytes.div_ceil(UNIT) as u32 {
                    assert!(owner.insert(unit, step).is_none(), "unit {unit} is taken twice");
                }
                live.push((unit, bytes));
            } else {
                let (unit, bytes) = live.swap_remove((state >> 33) as usize % live.len());
                (unit..unit + bytes.div_ceil(UNIT) as u32).for_each(|unit| assert!(owner.remove(&unit).is_some()));
                slots.give_back(unit, bytes);
            }
            assert_eq!(slots.bytes(), (owner.len() * UNIT) as u64);
            peak = peak.max(slots.bytes());
        }
        assert!(slots.length() < 2 * peak, "{} bytes of file for at most {peak}", slots.length());
        live.into_iter().for_each(|(unit, bytes)| slots.give_back(unit, bytes));
        let length = slots.length();
        (0..length / 4096).for_each(|_| assert!(u64::from(slots.take(4096)) < length / UNIT as u64));
        assert_eq!(slots.length(), length, "empty again: whole pages fit where small ones were");
    }
}
