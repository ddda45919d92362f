//! What a person would hear of a machine: everything that its devices play, mixed to 48,000 stereo frames a second of guest time.
//!
//! The board hands over what was played ([`crate::board::SoundSink`]); a [`Mixer`] makes frames of it, on whatever thread. It
//! computes in integers, so that equal runs on the virtual clock give equal frames. Silence before the first sound is left out,
//! and a pause longer than [`LONGEST_PAUSE`] is cut to that, so that a machine may be quiet for days.
//!
//! A stream at 48 kHz is passed on sample for sample; others are interpolated by a cubic through four frames. The speaker's
//! square wave is averaged over each frame, which keeps its exact frequency and its pulse widths, and goes through a high pass
//! of 15 Hz: a cone at rest is silent, wherever it rests.

use std::collections::VecDeque;
use umbra_devices::clock::Tick;
use umbra_devices::sound::Sound;

pub use umbra_devices::sound::{Heard, StereoFrame};

/// Frames a second.
pub const FRAME_RATE: u32 = 48_000;
/// The longest pause between two sounds, in frames.
pub const LONGEST_PAUSE: u64 = 48_000;

/// A frame is this many thirds of a nanosecond.
const FRAME_THIRDS: u64 = 62_500;
/// How far the cone moves between its two places.
const CONE_STROKE: i64 = 12_000;
/// The high pass: its place is forgotten by a 512th each frame; below this it is at rest. Fractions of 2^16.
const CONE_DECAY: i64 = 512;
const CONE_REST: i64 = 32 << 16;

/// A time in thirds of a nanosecond.
fn thirds(tick: Tick) -> u64 {
    tick.0.saturating_mul(3)
}

/// Makes frames of what devices play.
#[derive(Debug, Default)]
pub struct Mixer {
    /// The next frame to give, counted from power-on.
    at: u64,
    /// Frames of the stream that are not given yet, by number.
    stream_frames: VecDeque<(u64, StereoFrame)>,
    stream: Option<Stream>,
    cone: Cone,
    /// Frames of silence since the last sound; `None` before the first.
    pause: Option<u64>,
}

impl Mixer {
    /// Takes what was heard; puts all frames that are final into `frames`.
    pub fn mix(&mut self, heard: Heard, frames: &mut Vec<StereoFrame>) {
        for sound in heard.sounds {
            match sound {
                Sound::Cone { at, out } => self.cone.moves.push_back((thirds(at), out)),
                Sound::Pcm { start, first, hertz, frames } => self.take_stream((start, hertz), first, &frames),
            }
        }
        self.give(thirds(heard.until) / FRAME_THIRDS, frames);
    }

    /// Gives everything that is left, until the cone is at rest.
    pub fn finish(&mut self, frames: &mut Vec<StereoFrame>) {
        let last = self.stream_frames.back().map_or(self.at, |&(at, _)| at + 1);
        self.give(last, frames);
        while let Some(next) = self.cone.next_sound(self.at) {
            self.give(next + 1, frames);
        }
    }

    fn take_stream(&mut self, (start, hertz): (Tick, u32), first: u64, frames: &[StereoFrame]) {
        let goes_on = self.stream.as_ref().is_some_and(|stream| (stream.start, stream.hertz) == (start, hertz));
        if !goes_on {
            // A stream begins with the first whole frame, and after the one before it.
            let free = self.stream_frames.back().map_or(self.at, |&(at, _)| at + 1);
            let begin = thirds(start).div_ceil(FRAME_THIRDS).max(free);
            self.stream = Some(Stream::new(start, hertz, begin));
        }
        if let Some(stream) = &mut self.stream {
            stream.skip_to(first);
            frames.iter().for_each(|&frame| stream.take(frame, &mut self.stream_frames));
        }
    }

    /// Gives all frames before number `until`.
    fn give(&mut self, until: u64, frames: &mut Vec<StereoFrame>) {
        while self.at < until {
            let next_of_stream = self.stream_frames.front().map(|&(at, _)| at);
            let next = next_of_stream.into_iter().chain(self.cone.next_sound(self.at)).min();
            if next != Some(self.at) {
                let quiet_until = next.map_or(until, |next| next.clamp(self.at + 1, until));
                if let Some(pause) = &mut self.pause {
                    *pause += quiet_until - self.at;
                }
                self.at = quiet_until;
                continue;
            }
            let [left, right] = match self.stream_frames.front() {
                Some(&(at, frame)) if at == self.at => {
                    self.stream_frames.pop_front();
                    frame
                }
                _ => [0; 2],
            };
            let cone = self.cone.frame(self.at);
            let mix = |sample: i16| (i32::from(sample) + cone).clamp(i16::MIN.into(), i16::MAX.into()) as i16;
            let pause = self.pause.replace(0).unwrap_or(0).min(LONGEST_PAUSE);
            frames.resize(frames.len() + pause as usize, [0; 2]);
            frames.push([mix(left), mix(right)]);
            self.at += 1;
        }
    }
}

/// A stream on its way to 48 kHz.
#[derive(Debug)]
struct Stream {
    start: Tick,
    hertz: u32,
    /// The number of its first frame at 48 kHz, and how many were made.
    begin: u64,
    made: u64,
    /// Frames taken, and the last four of them.
    taken: u64,
    last: [StereoFrame; 4],
}

impl Stream {
    fn new(start: Tick, hertz: u32, begin: u64) -> Stream {
        Stream { start, hertz: hertz.max(1), begin, made: 0, taken: 0, last: [[0; 2]; 4] }
    }

    /// Frames that never came are silent.
    fn skip_to(&mut self, first: u64) {
        if first > self.taken {
            self.taken = first;
            self.made = self.due();
            self.last = [[0; 2]; 4];
        }
    }

    /// The frames at 48 kHz that begin before the taken ones are over.
    fn due(&self) -> u64 {
        (u128::from(self.taken) * u128::from(FRAME_RATE)).div_ceil(self.hertz.into()) as u64
    }

    fn take(&mut self, frame: StereoFrame, to: &mut VecDeque<(u64, StereoFrame)>) {
        let [_, b, c, d] = self.last;
        self.last = [b, c, d, frame];
        self.taken += 1;
        while self.made < self.due() {
            let made = if self.hertz == FRAME_RATE {
                frame
            } else {
                // Where in the frame that was taken last, in 65,536ths.
                let place = u128::from(self.made) * u128::from(self.hertz) * 65_536 / u128::from(FRAME_RATE);
                let within = (place % 65_536) as i64;
                [0, 1].map(|side| cubic(self.last.map(|frame| frame[side].into()), within))
            };
            to.push_back((self.begin + self.made, made));
            self.made += 1;
        }
    }
}

/// The Catmull-Rom cubic through four samples, between the second and the third, at `within` 65,536ths.
fn cubic([a, b, c, d]: [i64; 4], within: i64) -> i16 {
    let slope = c - a;
    let square = 2 * a - 5 * b + 4 * c - d;
    let cube = 3 * (b - c) + d - a;
    let inner = ((((cube * within) >> 16) + square) * within) >> 16;
    let value = b + ((((inner + slope) * within) >> 16) >> 1);
    value.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// The cone of the PC speaker, and the high pass behind it.
#[derive(Debug, Default)]
struct Cone {
    /// When it moves (thirds of a nanosecond), and where to.
    moves: VecDeque<(u64, bool)>,
    out: bool,
    /// Its mean place in the last frame, and what the high pass leaves of it.
    place: i64,
    heard: i64,
}

impl Cone {
    /// The next frame that is not silent, from `at` on.
    fn next_sound(&self, at: u64) -> Option<u64> {
        let moves = self.moves.front().map(|&(when, _)| (when / FRAME_THIRDS).max(at));
        if self.heard != 0 { Some(at) } else { moves }
    }

    /// What is heard in a frame.
    fn frame(&mut self, at: u64) -> i32 {
        let (mut from, end) = (at * FRAME_THIRDS, (at + 1) * FRAME_THIRDS);
        let mut pulled = 0;
        while let Some(&(when, out)) = self.moves.front().filter(|(when, _)| *when < end) {
            let when = when.max(from);
            pulled += if self.out { when - from } else { 0 };
            (from, self.out) = (when, out);
            self.moves.pop_front();
        }
        pulled += if self.out { end - from } else { 0 };
        let place = CONE_STROKE * ((pulled << 16) / FRAME_THIRDS) as i64;
        self.heard += place - self.place - self.heard / CONE_DECAY;
        if place == self.place && self.heard.abs() < CONE_REST {
            self.heard = 0;
        }
        self.place = place;
        (self.heard >> 16) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn pcm(start: u64, first: u64, hertz: u32, frames: Vec<StereoFrame>) -> Sound {
        Sound::Pcm { start: Tick(start), first, hertz, frames }
    }

    /// All frames of these batches: until when, what.
    fn mixed(batches: Vec<(u64, Vec<Sound>)>) -> Vec<StereoFrame> {
        let (mut mixer, mut frames) = (Mixer::default(), Vec::new());
        for (until, sounds) in batches {
            mixer.mix(Heard { sounds, until: Tick(until) }, &mut frames);
        }
        mixer.finish(&mut frames);
        frames
    }

    fn tone(period: u64, from: u64, until: u64) -> Vec<Sound> {
        let moves = (from..until).step_by(period as usize / 2).zip([true, false].into_iter().cycle());
        moves.map(|(at, out)| Sound::Cone { at: Tick(at), out }).collect()
    }

    fn rises(frames: &[StereoFrame]) -> usize {
        frames.windows(2).filter(|pair| pair[0][0] < 0 && pair[1][0] >= 0).count()
    }

    #[test]
    fn a_stream_at_the_full_rate_stays_as_it_is() {
        let frames: Vec<StereoFrame> = (0..4800).map(|n| [n, -n]).collect();
        let halves = frames.split_at(1001);
        let batches = vec![
            (5 * SECOND + 20_000_000, vec![pcm(5 * SECOND + 7, 0, 48_000, halves.0.to_vec())]),
            (6 * SECOND, vec![pcm(5 * SECOND + 7, 1001, 48_000, halves.1.to_vec())]),
        ];
        assert_eq!(mixed(batches), frames, "silence before it is left out");
    }

    #[test]
    fn pauses_are_kept_up_to_a_second() {
        let one = |at| pcm(at, 0, 48_000, vec![[9, 9]; 48]);
        let batches = [0, SECOND / 2, 100 * SECOND].map(|at| (at + 2_000_000, vec![one(at)])).to_vec();
        let frames = mixed(batches);
        assert_eq!(frames.len() as u64, 24_000 + 48 + LONGEST_PAUSE + 48);
        assert_eq!((frames[47], frames[48], frames[23_999], frames[24_000]), ([9; 2], [0; 2], [0; 2], [9; 2]));
    }

    #[test]
    fn other_rates_keep_their_length_and_frequency() {
        for hertz in [8_000, 11_025, 22_050, 44_100, 47_999] {
            let count = u64::from(hertz) * 2;
            let wave = |n: u64| (20_000.0 * (n as f64 * 440.0 * std::f64::consts::TAU / f64::from(hertz)).sin()) as i16;
            let frames: Vec<StereoFrame> = (0..count).map(|n| [wave(n), 0]).collect();
            let parts = frames.chunks(333).zip(0..).map(|(part, number)| {
                let until = (number * 333 + part.len() as u64) * SECOND / u64::from(hertz);
                (until, vec![pcm(0, number * 333, hertz, part.to_vec())])
            });
            let got = mixed(parts.collect());
            assert_eq!(got.len(), 96_000, "{hertz}");
            assert!((879..=880).contains(&rises(&got)), "{hertz}: {}", rises(&got));
            // The wave goes through two frames of the stream later, and is the same wave.
            let worst = (4_800..90_000).map(|n| {
                let at = n as f64 / 48_000.0 - 2.0 / f64::from(hertz);
                let want = 20_000.0 * (at * 440.0 * std::f64::consts::TAU).sin();
                (f64::from(got[n][0]) - want).abs()
            });
            let worst = worst.fold(0.0, f64::max);
            assert!(worst < 300.0, "{hertz}: {worst}");
        }
    }

    #[test]
    fn the_speaker_s_tone_has_its_frequency() {
        // 1000 Hz for a second.
        let frames = mixed(vec![(3 * SECOND, tone(1_000_000, SECOND, 2 * SECOND))]);
        assert!((999..=1000).contains(&rises(&frames)), "{}", rises(&frames));
        let tail = frames.len() - 48_000;
        assert!(tail < 4_800, "the cone comes to rest: {tail}");
        let steady = &frames[24_000..40_000];
        let (low, high) = (steady.iter().map(|f| f[0]).min(), steady.iter().map(|f| f[0]).max());
        assert!(
            (-6_400..-5_600).contains(&low.unwrap()) && (5_600..6_400).contains(&high.unwrap()),
            "{low:?} {high:?}"
        );
    }

    #[test]
    fn both_are_mixed_and_cut_at_full_scale() {
        let loud = pcm(0, 0, 48_000, vec![[32_767, -32_768]; 480]);
        let sounds = [tone(1_000_000, 0, 10_000_000), vec![loud]].concat();
        let frames = mixed(vec![(SECOND, sounds)]);
        assert_eq!(frames[1], [32_767, -32_768 + 11_976], "the cone is out");
        assert!(frames[25][0] < 32_767 && frames[25][1] == -32_768, "the cone is in");
    }

    #[test]
    fn a_tone_above_hearing_is_its_mean() {
        // A duty of a quarter at 400 kHz.
        let moves = (0..SECOND / 20).step_by(2_500);
        let moves = moves.flat_map(|at| [(at, true), (at + 625, false)]);
        let sounds = moves.map(|(at, out)| Sound::Cone { at: Tick(at), out }).collect();
        let frames = mixed(vec![(SECOND, sounds)]);
        // Each frame has eight or nine whole pulses; their mean is a quarter of the stroke, less what the high pass forgot.
        let mean = frames[..40].iter().map(|frame| f64::from(frame[0])).sum::<f64>() / 40.0;
        let expected = (0..40).map(|n| 3_000.0 * (-f64::from(n) / 512.0).exp()).sum::<f64>() / 40.0;
        assert!((mean - expected).abs() < 60.0, "{mean} {expected}");
        assert!(frames[..40].iter().all(|frame| (2_400..3_400).contains(&frame[0])));
    }
}
