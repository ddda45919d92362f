//! Things by a number that grows, of which the first are forgotten in time.

/// The things. What is forgotten may be found a while longer.
#[derive(Debug)]
pub struct Ring<T> {
    first: u32,
    all: Vec<T>,
}

impl<T> Default for Ring<T> {
    fn default() -> Ring<T> {
        Ring { first: 0, all: Vec::new() }
    }
}

impl<T> Ring<T> {
    /// The number of the next one.
    pub fn next(&self) -> u32 {
        self.first + self.all.len() as u32
    }
    /// The number of the first one.
    pub fn first(&self) -> u32 {
        self.first
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }
    /// Adds one and gives its number.
    #[inline(always)]
    pub fn push(&mut self, thing: T) -> u32 {
        self.all.push(thing);
        self.next() - 1
    }
    /// By number.
    pub fn get(&self, number: u32) -> Option<&T> {
        self.all.get(number.wrapping_sub(self.first) as usize)
    }
    /// By number.
    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.all.get_mut(number.wrapping_sub(self.first) as usize)
    }
    /// Forgets those before the first that stays, when they are half of all.
    pub fn forget(&mut self, stays: impl Fn(&T) -> bool) {
        let gone = self.all.iter().position(stays).unwrap_or(self.all.len());
        if 2 * gone >= self.all.len() {
            self.all.drain(..gone);
            self.first += gone as u32;
        }
    }
    /// Forgets all; numbers begin anew.
    pub fn clear(&mut self) {
        *self = Ring { all: std::mem::take(&mut self.all), first: 0 };
        self.all.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;

    #[test]
    fn numbers_stay_when_the_first_are_forgotten() {
        let mut ring = Ring::default();
        let numbers: Vec<u32> = (0..10).map(|thing| ring.push(thing)).collect();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>());
        ring.forget(|thing| *thing >= 3);
        assert_eq!(ring.len(), 10);
        ring.forget(|thing| *thing >= 6);
        assert_eq!((ring.len(), ring.next()), (4, 10));
        assert_eq!((ring.get(5), ring.get(6), ring.get(10)), (None, Some(&6), None));
        assert_eq!(ring.push(10), 10);
        ring.clear();
        assert_eq!(ring.push(0), 0);
    }
}
