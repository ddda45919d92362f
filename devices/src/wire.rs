//! Wires: how a device makes itself heard. A device holds an [`IrqLine`]; only the board knows where the other end goes.
//!
//! Lines that share a pin are OR-ed (each line is one source). Every change of a pin's level is queued in order, so that
//! a pulse made within one call is not lost; the board takes the queue after each call and feeds the controllers.

use parking_lot::Mutex;
use std::sync::Arc;

/// A change of one pin's level.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PinChange {
    /// The pin, as numbered by the board.
    pub pin: u8,
    /// Its new level.
    pub high: bool,
}

#[derive(Debug, Default)]
struct Pins {
    /// For each source: its pin and the level that it drives.
    sources: Vec<(u8, bool)>,
    changes: Vec<PinChange>,
}

/// A set of pins that devices drive and the board reads.
#[derive(Clone, Debug, Default)]
pub struct WireBundle(Arc<Mutex<Pins>>);

impl WireBundle {
    /// A bundle with every pin low.
    pub fn new() -> WireBundle {
        WireBundle::default()
    }
    /// A new line that drives `pin`, low at first.
    pub fn line(&self, pin: u8) -> IrqLine {
        let mut pins = self.0.lock();
        pins.sources.push((pin, false));
        IrqLine { bundle: Some((self.clone(), pins.sources.len() - 1)) }
    }
    /// The level of `pin` now: high if any line drives it high.
    pub fn level(&self, pin: u8) -> bool {
        self.0.lock().sources.iter().any(|&(p, high)| p == pin && high)
    }
    /// Takes all changes since the last call, oldest first.
    pub fn take_changes(&self) -> Vec<PinChange> {
        std::mem::take(&mut self.0.lock().changes)
    }
    /// Whether [`Self::take_changes`] would return anything.
    pub fn has_changes(&self) -> bool {
        !self.0.lock().changes.is_empty()
    }
}

/// One wire out of a device. `Send`, owned by one device.
#[derive(Debug, Default)]
pub struct IrqLine {
    bundle: Option<(WireBundle, usize)>,
}

impl IrqLine {
    /// A line that leads nowhere, for tests.
    pub fn detached() -> IrqLine {
        IrqLine { bundle: None }
    }
    /// Drives the line high or low.
    pub fn set(&self, high: bool) {
        let Some((bundle, source)) = &self.bundle else { return };
        let mut pins = bundle.0.lock();
        let pin = pins.sources[*source].0;
        let level = |pins: &Pins| pins.sources.iter().any(|&(p, high)| p == pin && high);
        let before = level(&pins);
        pins.sources[*source].1 = high;
        let after = level(&pins);
        if before != after {
            pins.changes.push(PinChange { pin, high: after });
        }
    }
    /// The level that this line drives.
    pub fn is_high(&self) -> bool {
        self.bundle.as_ref().is_some_and(|(bundle, source)| bundle.0.lock().sources[*source].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_share_a_pin_are_ored() {
        let bundle = WireBundle::new();
        let (a, b) = (bundle.line(3), bundle.line(3));
        a.set(true);
        b.set(true);
        a.set(false);
        assert!(bundle.level(3));
        b.set(false);
        assert_eq!(bundle.take_changes(), [PinChange { pin: 3, high: true }, PinChange { pin: 3, high: false }]);
    }

    #[test]
    fn a_pulse_within_one_call_is_kept() {
        let bundle = WireBundle::new();
        let line = bundle.line(0);
        line.set(true);
        line.set(false);
        line.set(true);
        assert_eq!(bundle.take_changes().len(), 3);
    }
}
