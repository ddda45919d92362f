//! The AC '97 audio controller of an 82801AA (ICH, 8086:2415; 82801AA and 82801AB Datasheet, chapter 12) with its codec: PCM
//! out, PCM in and microphone in.
//!
//! Window 0 (BAR 0) has the codec's registers, window 1 (BAR 1) the bus master's. What goes out is heard at the board's sound
//! line; what comes in is silence, at the right pace. Playing goes on in guest time, and volumes act on the samples.
//!
//! Leaves out: the modem function, a secondary codec (its registers time out), 4 and 6 channels, GPIO, resume events.

mod channel;
mod codec;
#[cfg(test)]
mod tests;

use super::{Bar, ConfigSpace, Identity, IntPin, PciFunction, Registers};
use crate::clock::Tick;
use crate::device::{Ctx, Device, IoError, StateError, Width, restore_state, save_state};
use crate::lane::Lane;
use crate::sound::{Sound, SoundLine};
use crate::wire::IrqLine;
use channel::{Channel, Played, Way};
use codec::{ADC_RATE, Codec, DAC_RATE, MIC_RATE};
use serde::{Deserialize, Serialize};

/// The window of the codec's registers (NAMBAR).
pub const MIXER_WINDOW: u8 = 0;
const MIXER_BYTES: u16 = 0x100;
/// The secondary codec's registers begin here.
const SECONDARY: u16 = 0x80;
/// The window of the bus master's registers (NABMBAR).
pub const MASTER_WINDOW: u8 = 1;
const MASTER_BYTES: u16 = 0x40;

const GLOBAL_CONTROL: u64 = 0x2C;
const GLOBAL_STATUS: u64 = 0x30;
const CODEC_ACCESS: u64 = 0x34;

/// Global control: AC_RESET# is high.
const COLD_RESET: u32 = 1 << 1;
/// Global control: GPIO interrupt, cold reset, link off, resume interrupts of both codecs. A warm reset (bit 2) ends at once.
const CONTROL_WRITABLE: u32 = 0b11_1011;
/// Global status: a channel interrupts.
const INTERRUPTS: [u32; 3] = [1 << 5, 1 << 6, 1 << 7];
/// Global status: the primary codec is ready.
const PRIMARY_READY: u32 = 1 << 8;
/// Global status, cleared by writing 1: a codec did not answer a read.
const READ_TIMED_OUT: u32 = 1 << 15;
/// Global status: semaphores of software, for power states.
const SEMAPHORES: u32 = 0b11 << 16;

/// The channels in the order of their registers: which way, and the codec's rate register.
const CHANNELS: [(Way, u8); 3] = [(Way::In, ADC_RATE), (Way::Out, DAC_RATE), (Way::Microphone, MIC_RATE)];

/// The volatile state without the configuration space.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    codec: Codec,
    channels: [Channel; 3],
    control: u32,
    /// [`READ_TIMED_OUT`] and [`SEMAPHORES`].
    status: u32,
    /// The codec access semaphore.
    taken: bool,
}

impl State {
    fn new() -> State {
        State {
            codec: Codec::new(),
            channels: std::array::from_fn(|_| Channel::new()),
            control: 0,
            status: 0,
            taken: false,
        }
    }
}

/// The controller.
#[derive(Debug)]
pub struct Ac97 {
    // Configuration (the masks) and volatile state (the registers).
    config: ConfigSpace,
    // Wires.
    irq: IrqLine,
    sound: SoundLine,
    // Volatile state.
    state: State,
}

impl Ac97 {
    /// A controller with its interrupt wire and the line by which it is heard.
    pub fn new(irq: IrqLine, sound: SoundLine) -> Ac97 {
        let identity = Identity { vendor: 0x8086, device: 0x2415, class: 0x04_0100, revision: 2 };
        let config = ConfigSpace::new(identity)
            .interrupt_pin(IntPin::A)
            .bar(MIXER_WINDOW, Bar::Io { size: MIXER_BYTES })
            .bar(MASTER_WINDOW, Bar::Io { size: MASTER_BYTES });
        Ac97 { config, irq, sound, state: State::new() }
    }

    /// Works off everything up to now.
    fn advance(&mut self, cx: &mut Ctx<'_>) {
        if !self.config.is_master() {
            return;
        }
        let heard = self.sound.is_connected();
        for (channel, (way, _)) in self.state.channels.iter_mut().zip(CHANNELS) {
            let Played { start, first, hertz, mut frames } = channel.advance(cx, way, heard);
            if !frames.is_empty() {
                let volume = self.state.codec.volume();
                frames.iter_mut().for_each(|frame| *frame = volume.of(*frame));
                self.sound.say(Sound::Pcm { start, first, hertz, frames });
            }
        }
    }

    /// Brings wires up to date.
    fn settle(&mut self) {
        let waits = self.state.channels.iter().any(Channel::interrupts);
        let level = self.config.set_interrupt(waits);
        self.irq.set(level);
        let out = &self.state.channels[1];
        self.sound.set_said((self.config.is_master() && out.sounds()).then(|| out.said()));
    }

    fn is_in_reset(&self) -> bool {
        self.state.control & COLD_RESET == 0
    }

    /// A codec register for a read or write; `None` if no codec answers.
    fn codec(&mut self, offset: u16) -> Option<&mut Codec> {
        self.state.taken = false;
        if self.is_in_reset() || offset >= SECONDARY { None } else { Some(&mut self.state.codec) }
    }

    fn read_codec(&mut self, offset: u16) -> u16 {
        match self.codec(offset) {
            Some(codec) => codec.read(offset as u8 & !1),
            None => {
                self.state.status |= READ_TIMED_OUT;
                u16::MAX
            }
        }
    }

    fn write_codec(&mut self, now: Tick, offset: u16, value: u16) {
        let Some(codec) = self.codec(offset) else { return };
        codec.write(offset as u8 & !1, value);
        for (channel, (_, rate)) in self.state.channels.iter_mut().zip(CHANNELS) {
            channel.set_hertz(now, self.state.codec.hertz(rate));
        }
    }

    fn read_master(&mut self, lane: Lane) -> Option<u32> {
        match lane.register {
            GLOBAL_CONTROL => Some(self.state.control),
            GLOBAL_STATUS => {
                let channels = self.state.channels.iter().zip(INTERRUPTS);
                let interrupts =
                    channels.filter(|(channel, _)| channel.interrupts()).fold(0, |all, (_, bit)| all | bit);
                let ready = if self.is_in_reset() { 0 } else { PRIMARY_READY };
                Some(self.state.status | interrupts | ready)
            }
            // Whoever reads it free has it.
            CODEC_ACCESS if lane.mask() & 0xFF != 0 => Some(std::mem::replace(&mut self.state.taken, true).into()),
            CODEC_ACCESS => None,
            register => self.state.channels.get((register >> 4) as usize)?.read(register & 0xF),
        }
    }

    fn write_master(&mut self, cx: &mut Ctx<'_>, lane: Lane, value: u32) -> Option<()> {
        match lane.register {
            GLOBAL_CONTROL => {
                let control = lane.merge(self.state.control, value) & CONTROL_WRITABLE;
                if control & COLD_RESET == 0 {
                    self.state = State { control, ..State::new() };
                }
                self.state.control = control;
            }
            GLOBAL_STATUS => {
                let status = self.state.status & !(lane.place(value) & READ_TIMED_OUT);
                self.state.status = status & !SEMAPHORES | lane.merge(status, value) & SEMAPHORES;
            }
            // A codec access lets go of it.
            CODEC_ACCESS => {}
            register => self.state.channels.get_mut((register >> 4) as usize)?.write(cx, lane, value)?,
        }
        Some(())
    }
}

impl PciFunction for Ac97 {
    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn config_write(&mut self, cx: &mut Ctx<'_>, offset: u8, width: Width, value: u32) {
        self.advance(cx);
        let was_master = self.config.is_master();
        self.config.write(offset, width, value);
        if self.config.is_master() && !was_master {
            // The channels stood still meanwhile.
            self.state.channels.iter_mut().for_each(|channel| channel.count_from(cx.now));
        }
        self.settle();
    }
}

impl Device for Ac97 {
    fn name(&self) -> &'static str {
        "ac97"
    }

    fn reset(&mut self, cx: &mut Ctx<'_>) {
        self.advance(cx);
        self.config.reset();
        self.state = State::new();
        self.settle();
    }

    fn port_read(&mut self, cx: &mut Ctx<'_>, range: u8, offset: u16, width: Width) -> Result<u32, IoError> {
        self.advance(cx);
        let lane = Lane::of(offset.into(), width)?;
        let value = match range {
            MIXER_WINDOW => {
                let [low, high] = [0, 2].map(|at| lane.mask() >> (8 * at) & 0xFFFF != 0);
                let register = lane.register as u16;
                let mut read = |wanted, at| if wanted { u32::from(self.read_codec(register + at)) } else { 0 };
                Some(read(low, 0) | read(high, 2) << 16)
            }
            MASTER_WINDOW => self.read_master(lane),
            _ => None,
        };
        self.settle();
        value.map(|value| lane.extract(value)).ok_or(IoError::NoSuchRegister)
    }

    fn port_write(
        &mut self,
        cx: &mut Ctx<'_>,
        range: u8,
        offset: u16,
        width: Width,
        value: u32,
    ) -> Result<(), IoError> {
        self.advance(cx);
        let lane = Lane::of(offset.into(), width)?;
        let done = match (range, width) {
            // The AC-link carries whole registers.
            (MIXER_WINDOW, Width::B1) => None,
            (MIXER_WINDOW, Width::B2) if offset & 1 == 0 => {
                self.write_codec(cx.now, offset, value as u16);
                Some(())
            }
            (MIXER_WINDOW, Width::B4) => {
                self.write_codec(cx.now, offset, value as u16);
                self.write_codec(cx.now, offset + 2, (value >> 16) as u16);
                Some(())
            }
            (MASTER_WINDOW, _) => self.write_master(cx, lane, value),
            _ => None,
        };
        self.settle();
        done.ok_or(IoError::NoSuchRegister)
    }

    fn next_event(&self) -> Option<Tick> {
        if !self.config.is_master() {
            return None;
        }
        let heard = self.sound.is_connected();
        let channels = self.state.channels.iter().zip(CHANNELS);
        channels.filter_map(|(channel, (way, _))| channel.next_event(way, heard)).min()
    }

    fn run_until(&mut self, cx: &mut Ctx<'_>) {
        self.advance(cx);
        self.settle();
    }

    fn save(&self) -> Vec<u8> {
        save_state(&(self.config.registers(), &self.state))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), StateError> {
        let (registers, mut state): (Registers, State) = restore_state(self.name(), state)?;
        state.codec.sanitise();
        state.channels.iter_mut().for_each(Channel::sanitise);
        state.control &= CONTROL_WRITABLE;
        state.status &= READ_TIMED_OUT | SEMAPHORES;
        self.config.set_registers(registers);
        self.state = state;
        self.settle();
        Ok(())
    }
}
