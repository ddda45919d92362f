//! Which parts of a swap file are taken, in units of 512 bytes, so that eight small pages share the room of one.
//!
//! A slot is one to eight units side by side within a block of 4 KiB, as bits of one byte. Blocks are listed by how many units
//! side by side they have free; a slot takes the fullest block that it fits, and the file grows only when there is none.

/// Bytes in a unit.
pub(crate) const UNIT: usize = 512;
/// Units in a block.
const UNITS: u32 = 8;

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
}

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
        Slots { taken: Vec::new(), by_room: Default::default(), listed: Vec::new(), used: 0 }
    }
    /// Takes room for so many bytes (1 to 4096); gives its first unit.
    pub(crate) fn take(&mut self, bytes: usize) -> u32 {
        let units = (bytes.div_ceil(UNIT) as u32).clamp(1, UNITS);
        for room in units..=UNITS {
            while let Some(block) = self.by_room[room as usize].pop() {
                self.listed[block as usize] &= !(1 << room);
                let (found, at) = longest(self.taken[block as usize]);
                if found == room {
                    return self.cut(block, at, units);
                }
            }
        }
        self.taken.push(0);
        self.listed.push(0);
        self.cut(self.taken.len() as u32 - 1, 0, units)
    }
    fn cut(&mut self, block: u32, at: u32, units: u32) -> u32 {
        self.taken[block as usize] |= (((1u32 << units) - 1) << at) as u8;
        self.used += u64::from(units);
        self.list(block);
        block * UNITS + at
    }
    /// Gives the room of a slot back.
    pub(crate) fn give_back(&mut self, unit: u32, bytes: usize) {
        let units = (bytes.div_ceil(UNIT) as u32).clamp(1, UNITS);
        let (block, at) = (unit / UNITS, unit % UNITS);
        let mask = (((1u32 << units) - 1) << at) as u8;
        debug_assert_eq!(self.taken[block as usize] & mask, mask, "what is given back was taken");
        self.taken[block as usize] &= !mask;
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
