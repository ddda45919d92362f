//! A bus-master channel (82801AA and 82801AB Datasheet, 12.2; AC '97 Programmer's Reference Manual, 3.2): a ring of 32 buffer
//! descriptors, of which it works off one after the other until the last valid one.
//!
//! Everything is counted from `since` in whole frames, so that a buffer ends at an exact tick however often somebody looks.
//! Memory is read when a frame is over, not ahead: the FIFO has no depth, and never runs over.

use crate::clock::{Rate, Tick};
use crate::device::Ctx;
use crate::lane::Lane;
use crate::sound::{SPAN, StereoFrame};
use serde::{Deserialize, Serialize};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::dma::Dma;

/// Status: the channel stands still; it has worked off the last valid buffer.
const DCH: u16 = 1 << 0;
const CELV: u16 = 1 << 1;
/// Status, cleared by writing 1: the last valid buffer is worked off, a buffer with IOC is, a FIFO ran over or dry.
const LVBCI: u16 = 1 << 2;
const BCIS: u16 = 1 << 3;
const FIFOE: u16 = 1 << 4;
/// Control: run; reset registers (clears itself); interrupts by LVBCI, FIFOE, BCIS.
const RPBM: u8 = 1 << 0;
const RR: u8 = 1 << 1;
const LVBIE: u8 = 1 << 2;
const FEIE: u8 = 1 << 3;
const IOCE: u8 = 1 << 4;
/// Descriptor: interrupt on completion; after the last valid buffer send zeros, not the last sample.
const IOC: u32 = 1 << 31;
const BUP: u32 = 1 << 30;
/// Index registers have five bits.
const INDEX: u8 = 31;

/// Which way samples go.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Stereo to the codec.
    Out,
    /// Stereo from the codec.
    In,
    /// One channel from the microphone.
    Microphone,
}

impl Way {
    /// Samples, 16 bits each, in a frame.
    fn samples(self) -> u16 {
        if self == Way::Microphone { 1 } else { 2 }
    }
}

/// What went to the codec: frames of the stream that began at `start`, from number `first` on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Played {
    pub start: Tick,
    pub first: u64,
    pub hertz: u32,
    pub frames: Vec<StereoFrame>,
}

/// One channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Channel {
    /// The list's address.
    list: u32,
    current: u8,
    last_valid: u8,
    prefetched: u8,
    /// LVBCI, BCIS, FIFOE.
    events: u16,
    control: u8,
    /// The last valid buffer is worked off, and no other came since.
    at_end: bool,
    /// Samples left of the buffer under way, and where they are.
    left: u16,
    at: u32,
    /// IOC and BUP of that buffer.
    flags: u32,
    /// The beginning of the frame from which the channel counts, and the frames that are over since.
    since: Tick,
    done: u64,
    hertz: u32,
    /// The last frame that went out.
    last: StereoFrame,
}

impl Channel {
    /// A channel after a reset.
    pub fn new() -> Channel {
        Channel {
            list: 0,
            current: 0,
            last_valid: 0,
            prefetched: 0,
            events: 0,
            control: 0,
            at_end: false,
            left: 0,
            at: 0,
            flags: 0,
            since: Tick(0),
            done: 0,
            hertz: 48_000,
            last: [0; 2],
        }
    }

    fn is_started(&self) -> bool {
        self.control & RPBM != 0
    }
    /// It works off a buffer.
    fn runs(&self) -> bool {
        self.is_started() && !self.at_end
    }
    /// After the last valid buffer, the codec gets its last frame again and again.
    fn holds(&self) -> bool {
        self.is_started() && self.at_end && self.flags & BUP == 0 && self.last != [0; 2]
    }
    /// Something of it is heard.
    pub fn sounds(&self) -> bool {
        self.runs() || self.holds()
    }
    /// The frames before this are over.
    pub fn said(&self) -> Tick {
        Tick(self.tick_of(self.done).0.saturating_sub(1))
    }
    /// Whether it interrupts.
    pub fn interrupts(&self) -> bool {
        let enables = [(LVBIE, LVBCI), (IOCE, BCIS), (FEIE, FIFOE)];
        enables.iter().any(|&(enable, event)| self.control & enable != 0 && self.events & event != 0)
    }

    fn status(&self) -> u16 {
        let halted = if self.runs() { 0 } else { DCH };
        self.events | halted | if self.at_end { CELV } else { 0 }
    }

    /// The 32-bit register at 0, 4 or 8.
    pub fn read(&self, register: u64) -> Option<u32> {
        match register {
            0 => Some(self.list),
            4 => Some(u32::from(self.current) | u32::from(self.last_valid) << 8 | u32::from(self.status()) << 16),
            8 => Some(u32::from(self.left) | u32::from(self.prefetched) << 16 | u32::from(self.control) << 24),
            _ => None,
        }
    }

    /// Writes the bytes of a lane. `now` is where [`Self::advance`] has come to.
    pub fn write(&mut self, cx: &mut Ctx<'_>, lane: Lane, value: u32) -> Option<()> {
        let [_, second, _, fourth] = lane.place(value).to_le_bytes();
        let touches = |byte: u32| lane.mask() >> (8 * byte) & 0xFF != 0;
        match lane.register & 0xC {
            0 => self.list = lane.merge(self.list, value) & !7,
            4 => {
                self.events &= !((lane.place(value) >> 16) as u16);
                if touches(1) {
                    self.write_last_valid(cx, second);
                }
            }
            8 => {
                if touches(3) {
                    self.write_control(cx, fourth);
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn write_last_valid(&mut self, cx: &mut Ctx<'_>, value: u8) {
        self.last_valid = value & INDEX;
        if std::mem::take(&mut self.at_end) && self.is_started() {
            self.count_from(cx.now);
            self.next_buffer(cx);
        }
    }

    fn write_control(&mut self, cx: &mut Ctx<'_>, value: u8) {
        let was_started = self.is_started();
        self.control = value & (RPBM | LVBIE | FEIE | IOCE);
        if value & RR != 0 {
            *self = Channel { control: value & (LVBIE | FEIE | IOCE), hertz: self.hertz, ..Channel::new() };
        }
        if self.is_started() && !was_started {
            self.count_from(cx.now);
            if !self.at_end && self.left == 0 {
                self.next_buffer(cx);
            }
        }
    }

    /// Frames are counted from `now` on.
    pub fn count_from(&mut self, now: Tick) {
        (self.since, self.done) = (now, 0);
    }

    /// The codec's rate, as of `now`.
    pub fn set_hertz(&mut self, now: Tick, hertz: u32) {
        if hertz != self.hertz {
            self.count_from(now);
            self.hertz = hertz;
        }
    }

    /// Goes on to the prefetched descriptor, and over those without samples.
    fn next_buffer(&mut self, cx: &mut Ctx<'_>) {
        loop {
            self.current = self.prefetched;
            self.prefetched = self.current.wrapping_add(1) & INDEX;
            let mut descriptor = [0; 8];
            let at = self.list.wrapping_add(8 * u32::from(self.current));
            cx.dma.read(GuestPhys(at.into()), &mut descriptor);
            let [a0, a1, a2, a3, c0, c1, c2, c3] = descriptor;
            self.at = u32::from_le_bytes([a0, a1, a2, a3]) & !1;
            self.flags = u32::from_le_bytes([c0, c1, c2, c3]) & (IOC | BUP);
            self.left = u16::from_le_bytes([c0, c1]);
            if self.left != 0 || self.complete() {
                return;
            }
        }
    }

    /// The buffer under way is worked off; says whether it was the last valid one.
    fn complete(&mut self) -> bool {
        if self.flags & IOC != 0 {
            self.events |= BCIS;
        }
        if self.current == self.last_valid {
            self.events |= LVBCI;
            self.at_end = true;
        }
        self.at_end
    }

    fn rate(&self) -> Rate {
        Rate::from_hertz(self.hertz.into())
    }
    /// The frames that a listener waits for at most.
    fn span(&self) -> u64 {
        SPAN * u64::from(self.hertz) / 1_000_000_000
    }
    /// When so many frames since `since` are over.
    fn tick_of(&self, frames: u64) -> Tick {
        self.since.after(self.rate().tick_of(frames).0)
    }

    /// Works off everything up to now. Gives what went to the codec, if that is `wanted`.
    pub fn advance(&mut self, cx: &mut Ctx<'_>, way: Way, wanted: bool) -> Played {
        let mut played = Played { start: self.since, first: self.done, hertz: self.hertz, frames: Vec::new() };
        let mut due = self.rate().cycles_at(Tick(cx.now.0.saturating_sub(self.since.0))).saturating_sub(self.done);
        while due > 0 && self.runs() {
            let in_buffer = self.left.div_ceil(way.samples());
            let frames = due.min(in_buffer.into());
            let samples = (frames as u16).saturating_mul(way.samples()).min(self.left);
            match way {
                Way::Out if wanted => {
                    let read = frames_at(cx.dma, self.at, samples.into());
                    self.last = read.last().copied().unwrap_or(self.last);
                    played.frames.extend(read);
                }
                Way::Out => {}
                // Nothing is connected to the inputs.
                Way::In | Way::Microphone => {
                    cx.dma.write(GuestPhys(self.at.into()), &vec![0; 2 * usize::from(samples)]);
                }
            }
            self.at = self.at.wrapping_add(2 * u32::from(samples));
            self.left -= samples;
            self.done += frames;
            due -= frames;
            if self.left == 0 && !self.complete() {
                self.next_buffer(cx);
            }
        }
        if way == Way::Out && wanted && self.holds() {
            // Who was not asked for longer than an event is away has lost the rest.
            let frames = due.min(self.span()) as usize;
            played.frames.resize(played.frames.len() + frames, self.last);
            self.done += due;
        }
        played
    }

    /// When a buffer ends, or a listener is to be told what was played.
    pub fn next_event(&self, way: Way, heard: bool) -> Option<Tick> {
        let spans = way == Way::Out && heard && self.sounds();
        let buffer = self.runs().then(|| u64::from(self.left.div_ceil(way.samples())));
        let frames = buffer.into_iter().chain(spans.then_some(self.span())).min()?;
        Some(self.tick_of(self.done.saturating_add(frames)))
    }

    /// Makes a restored channel one that can run.
    pub fn sanitise(&mut self) {
        self.hertz = self.hertz.clamp(8_000, 48_000);
        for index in [&mut self.current, &mut self.last_valid, &mut self.prefetched] {
            *index &= INDEX;
        }
        // A channel that runs has something left.
        self.at_end |= self.is_started() && self.left == 0;
    }
}

/// Reads `words` samples from memory as frames of two; a last odd one is both sides of its frame.
fn frames_at(dma: &dyn Dma, at: u32, words: usize) -> Vec<StereoFrame> {
    let mut bytes = vec![0; 2 * words];
    dma.read(GuestPhys(at.into()), &mut bytes);
    let frame = |bytes: &[u8]| match *bytes {
        [a, b, c, d] => [i16::from_le_bytes([a, b]), i16::from_le_bytes([c, d])],
        [a, b, ..] => [i16::from_le_bytes([a, b]); 2],
        _ => [0; 2],
    };
    bytes.chunks(4).map(frame).collect()
}
