//! The uops of the blocks that were lifted last: what becomes hot soon after is emitted from them, and not lifted again.

use crate::uop::Uop;

/// Uops that are kept: about 2 MiB of them.
const KEPT: usize = 3 << 13;

/// Where a block's uops were put, and in the lower bits how many they are.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// Bits of the number of uops.
    const LEN: u32 = 12;

    fn new(at: u64, len: usize) -> Place {
        Place(at << Self::LEN | len as u64)
    }
    fn at(self) -> u64 {
        self.0 >> Self::LEN
    }
    fn len(self) -> usize {
        (self.0 & ((1 << Self::LEN) - 1)) as usize
    }
}

/// A ring of uops. Takes memory from the first block on that is put into it.
#[derive(Debug, Default)]
pub struct Recent {
    uops: Vec<Uop>,
    /// Uops put here so far, and what was left over at the end of each round.
    next: u64,
}

impl Recent {
    /// Keeps the uops of a block for a while.
    pub fn keep(&mut self, uops: &[Uop]) -> Place {
        if uops.len() >= 1 << Place::LEN {
            return Place::default();
        }
        self.uops.resize(KEPT, Uop::new(crate::uop::Op::Nop));
        let mut start = self.next as usize % KEPT;
        if start + uops.len() > KEPT {
            self.next += (KEPT - start) as u64;
            start = 0;
        }
        let place = Place::new(self.next, uops.len());
        self.uops[start..start + uops.len()].copy_from_slice(uops);
        self.next += uops.len() as u64;
        place
    }

    /// The uops that were put there, if no others have been since.
    pub fn get(&self, place: Place) -> Option<&[Uop]> {
        let start = place.at() as usize % KEPT;
        let there = place.len() != 0 && self.next - place.at() <= KEPT as u64;
        there.then(|| self.uops.get(start..start + place.len())).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Recent};
    use crate::uop::{Op, Uop};

    #[test]
    fn a_block_is_found_until_others_lie_where_it_did() {
        let mut recent = Recent::default();
        let block = |number: usize| -> Vec<Uop> {
            (0..1 + number % 7).map(|_| Uop { imm: number as i64, ..Uop::new(Op::Mov) }).collect()
        };
        let places: Vec<_> = (0..KEPT).map(|number| recent.keep(&block(number))).collect();
        let found = |number: usize| recent.get(places[number]);
        let first = (0..KEPT).find(|number| found(*number).is_some()).expect("the last one");
        let kept: usize = (first..KEPT).map(|number| block(number).len()).sum();
        assert!(kept + 14 > KEPT && kept <= KEPT, "{kept}");
        for number in first..KEPT {
            let uops = found(number).expect("all after the first");
            assert!(uops.len() == block(number).len() && uops.iter().all(|uop| uop.imm == number as i64), "{number}");
        }
    }
}
