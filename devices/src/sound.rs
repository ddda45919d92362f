//! The wire of sound: how a device is heard. A device holds a [`SoundLine`] and says what it plays and when, in guest time;
//! only the board knows who listens, and mixes nothing itself.
//!
//! A line that is in use says up to when everything is said, so that a listener knows what is final. A device that plays by
//! itself (without accesses) has an event at least every [`SPAN`], so that no listener waits longer.

use crate::clock::Tick;
use parking_lot::Mutex;
use std::sync::Arc;

/// The most guest time, in ns, that a device lets pass before it says what it played.
pub const SPAN: u64 = 10_000_000;

/// A left and a right sample.
pub type StereoFrame = [i16; 2];

/// Something that can be heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sound {
    /// Frames of a stream that began at `start`; the first of them is the stream's frame number `first`.
    Pcm {
        /// When the stream's frame 0 began.
        start: Tick,
        /// How many frames of the stream came before.
        first: u64,
        /// Frames a second.
        hertz: u32,
        /// The frames.
        frames: Vec<StereoFrame>,
    },
    /// The cone of the PC speaker moves.
    Cone {
        /// When.
        at: Tick,
        /// Whether it is pulled out.
        out: bool,
    },
}

/// What was heard since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The sounds, each line's in the order of its time.
    pub sounds: Vec<Sound>,
    /// Nothing more will come that is earlier.
    pub until: Tick,
}

#[derive(Debug, Default)]
struct Lines {
    /// For each line: up to when everything is said, while it is in use.
    said: Vec<Option<Tick>>,
    sounds: Vec<Sound>,
    /// A line went out of use.
    ended: bool,
}

/// The lines of a board, as its end of them.
#[derive(Clone, Debug, Default)]
pub struct SoundBundle(Arc<Mutex<Lines>>);

impl SoundBundle {
    /// No lines.
    pub fn new() -> SoundBundle {
        SoundBundle::default()
    }
    /// A new line.
    pub fn line(&self) -> SoundLine {
        let mut lines = self.0.lock();
        lines.said.push(None);
        SoundLine { bundle: Some((self.clone(), lines.said.len() - 1)) }
    }
    /// Takes what was heard, if there is anything; `now` is the board's time.
    pub fn take(&self, now: Tick) -> Option<Heard> {
        let mut lines = self.0.lock();
        if lines.sounds.is_empty() && !lines.ended {
            return None;
        }
        lines.ended = false;
        let until = lines.said.iter().flatten().fold(now, |until, &said| until.min(said));
        Some(Heard { sounds: std::mem::take(&mut lines.sounds), until })
    }
}

/// A device's end of a line. `Send`, owned by one device.
#[derive(Debug, Default)]
pub struct SoundLine {
    bundle: Option<(SoundBundle, usize)>,
}

impl SoundLine {
    /// A line that leads nowhere.
    pub fn detached() -> SoundLine {
        SoundLine { bundle: None }
    }
    /// Whether anybody may listen: else a device need not make anything.
    pub fn is_connected(&self) -> bool {
        self.bundle.is_some()
    }
    /// Says something.
    pub fn say(&self, sound: Sound) {
        if let Some((bundle, _)) = &self.bundle {
            bundle.0.lock().sounds.push(sound);
        }
    }
    /// The line is in use and everything is said up to a time, or (`None`) it is silent until something is said.
    pub fn set_said(&self, until: Option<Tick>) {
        let Some((bundle, line)) = &self.bundle else { return };
        let mut lines = bundle.0.lock();
        let before = std::mem::replace(&mut lines.said[*line], until);
        lines.ended |= before.is_some() && until.is_none();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_knows_what_is_final() {
        let bundle = SoundBundle::new();
        let (a, b) = (bundle.line(), bundle.line());
        assert_eq!(bundle.take(Tick(5)), None);
        let cone = |at, out| Sound::Cone { at: Tick(at), out };
        a.say(cone(6, true));
        assert_eq!(bundle.take(Tick(7)), Some(Heard { sounds: vec![cone(6, true)], until: Tick(7) }));
        a.set_said(Some(Tick(8)));
        b.say(cone(9, false));
        assert_eq!(bundle.take(Tick(20)).unwrap().until, Tick(8));
        assert_eq!(bundle.take(Tick(30)), None);
        a.set_said(None);
        assert_eq!(bundle.take(Tick(30)), Some(Heard { sounds: vec![], until: Tick(30) }));
        assert!(!SoundLine::detached().is_connected());
    }
}
