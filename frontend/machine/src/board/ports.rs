//! Which device a port belongs to.

use super::Owner;

/// A window in port space.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct PortWindow {
    pub first: u16,
    pub length: u16,
    pub owner: Owner,
    /// The range's number for the device.
    pub range: u8,
}

/// All windows. A new one hides whatever was there; taking it away uncovers it again.
#[derive(Clone, Debug, Default)]
pub(super) struct PortMap {
    /// Oldest first.
    windows: Vec<PortWindow>,
    /// For each port, one more than the index of its window in `windows`; 0 if there is none.
    index: Vec<u8>,
}

impl PortMap {
    /// The window of a port and the offset in it.
    pub fn find(&self, port: u16) -> Option<(PortWindow, u16)> {
        let number = usize::from(*self.index.get(usize::from(port))?);
        let window = *self.windows.get(number.checked_sub(1)?)?;
        Some((window, port.wrapping_sub(window.first)))
    }
    /// Adds a window.
    pub fn add(&mut self, window: PortWindow) {
        self.windows.push(window);
        self.rebuild();
    }
    /// Takes away the window of this owner and range.
    pub fn remove(&mut self, owner: Owner, range: u8) {
        self.windows.retain(|window| (window.owner, window.range) != (owner, range));
        self.rebuild();
    }
    fn rebuild(&mut self) {
        self.index.clear();
        self.index.resize(0x1_0000, 0);
        for (number, window) in self.windows.iter().take(usize::from(u8::MAX)).enumerate() {
            let first = usize::from(window.first);
            let last = (first + usize::from(window.length)).min(0x1_0000);
            if let Some(ports) = self.index.get_mut(first..last) {
                ports.fill(number as u8 + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wiring::Slot;

    #[test]
    fn the_newest_window_wins_until_it_goes() {
        let mut map = PortMap::default();
        let window = |first, length, slot, range| PortWindow { first, length, owner: Owner::Chip(slot), range };
        map.add(window(0x60, 1, Slot::Pit, 0));
        map.add(window(0x40, 0x40, Slot::Rtc, 1));
        map.add(window(0xFFFF, 4, Slot::Pic, 0));
        assert_eq!(map.find(0x60).map(|(w, offset)| (w.range, offset)), Some((1, 0x20)));
        map.remove(Owner::Chip(Slot::Rtc), 1);
        assert_eq!(map.find(0x60).map(|(w, offset)| (w.range, offset)), Some((0, 0)));
        assert_eq!(map.find(0x40), None);
        assert_eq!(map.find(0xFFFF).map(|(_, offset)| offset), Some(0));
    }
}
