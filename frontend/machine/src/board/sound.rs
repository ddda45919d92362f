//! What the board plays, on its way to a listener.

use super::Board;
use crate::wiring::{self, Slot};
use umbra_devices::device::{Ctx, Device};
use umbra_devices::pci::ac97::Ac97;
use umbra_devices::sound::Heard;

/// Where sounds go. Called under the board's lock: it must not call back into the machine, nor take long.
pub type SoundSink = Box<dyn FnMut(Heard) + Send>;

impl Board {
    /// Who listens from now on.
    pub fn connect_sound(&mut self, sink: SoundSink) {
        self.listener = Some(sink);
    }

    /// The run is over: everything that was played until now goes out, and the listener goes.
    pub fn finish_sound(&mut self) {
        let mut cx = Ctx { now: self.now, dma: &mut self.dma };
        self.chips.get(Slot::Pit).run_until(&mut cx);
        if let Some(sound) = self.chips.pci.get_mut::<Ac97>(wiring::SOUND) {
            sound.run_until(&mut cx);
        }
        self.touch_all();
        self.listener = None;
    }

    /// Hands over what was played.
    pub(super) fn carry_sound(&mut self) {
        if let Some(heard) = self.sounds.take(self.now)
            && let Some(sink) = &mut self.listener
        {
            sink(heard);
        }
    }
}
