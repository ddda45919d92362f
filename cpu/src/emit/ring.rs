//! Things by a number that grows, of which the first are forgotten in time.

/// Things that come and go together.
const TOGETHER: usize = 1 << 10;

/// The things. What is forgotten may be found a while longer.
#[derive(Debug)]
pub struct Ring<T> {
    /// The number of the first thing of `full`.
    first: u32,
    full: Vec<Vec<T>>,
    /// The last ones, fewer than [`TOGETHER`].
    last: Vec<T>,
    /// Room that was given back.
    spare: Vec<Vec<T>>,
}

impl<T> Default for Ring<T> {
    fn default() -> Ring<T> {
        Ring { first: 0, full: Vec::new(), last: Vec::new(), spare: Vec::new() }
    }
}

impl<T> Ring<T> {
    /// The number of the next one.
    #[inline]
    pub fn next(&self) -> u32 {
        self.first + self.len() as u32
    }
    /// The number of the first one.
    pub fn first(&self) -> u32 {
        self.first
    }
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.full.len() * TOGETHER + self.last.len()
    }
    /// The size of all in bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.len() * size_of::<T>()
    }
    /// Adds one and gives its number.
    #[inline(always)]
    pub fn push(&mut self, thing: T) -> u32 {
        if self.last.len() >= self.last.capacity().min(TOGETHER) {
            self.begin();
        }
        self.last.push(thing);
        self.next() - 1
    }
    /// Room for more.
    #[cold]
    fn begin(&mut self) {
        let room = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(TOGETHER));
        let full = std::mem::replace(&mut self.last, room);
        if !full.is_empty() {
            self.full.push(full);
        }
    }
    fn place(&self, number: u32) -> (usize, usize) {
        let at = number.wrapping_sub(self.first) as usize;
        (at / TOGETHER, at % TOGETHER)
    }
    /// By number.
    #[inline]
    pub fn get(&self, number: u32) -> Option<&T> {
        let (group, at) = self.place(number);
        if group == self.full.len() { self.last.get(at) } else { self.full.get(group)?.get(at) }
    }
    /// By number.
    #[inline]
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (group, at) = self.place(number);
        if group == self.full.len() { self.last.get_mut(at) } else { self.full.get_mut(group)?.get_mut(at) }
    }
    /// Forgets those before the first that stays, but for some that came together with it.
    pub fn forget(&mut self, stays: impl Fn(&T) -> bool) {
        let gone = self.full.iter().position(|things| things.iter().any(&stays)).unwrap_or(self.full.len());
        self.first += (gone * TOGETHER) as u32;
        for mut things in self.full.drain(..gone) {
            things.clear();
            self.spare.push(things);
        }
    }
    /// Forgets all; numbers begin anew.
    pub fn clear(&mut self) {
        self.first = 0;
        self.last.clear();
        for mut things in self.full.drain(..) {
            things.clear();
            self.spare.push(things);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ring, TOGETHER};

    #[test]
    fn numbers_stay_when_the_first_are_forgotten() {
        let together = TOGETHER as u32;
        let mut ring = Ring::default();
        let numbers: Vec<u32> = (0..3 * together).map(|thing| ring.push(thing)).collect();
        assert_eq!(numbers, (0..3 * together).collect::<Vec<_>>());
        ring.forget(|thing| *thing >= together - 1);
        assert_eq!(ring.len(), 3 * TOGETHER);
        ring.forget(|thing| *thing >= together + 5);
        assert_eq!((ring.first(), ring.len(), ring.next()), (together, 2 * TOGETHER, 3 * together));
        assert_eq!((ring.get(together - 1), ring.get(together), ring.get(3 * together)), (None, Some(&together), None));
        assert_eq!(ring.push(7), 3 * together);
        assert_eq!(ring.get(3 * together), Some(&7));
        ring.clear();
        assert_eq!(ring.push(0), 0);
    }
}
