//! A PS/2 mouse (IBM PS/2 Technical Reference, mouse; Microsoft's wheel and five-button extensions).
//!
//! Models stream, remote and wrap mode, sample rate, resolution, scaling, status, and the two sample-rate knocks that turn
//! it into a wheel mouse (ID 3) and a five-button mouse (ID 4). Motion from the host is added up until a packet can go
//! out; button changes are kept apart, so that a quick click is not lost.
//!
//! Leaves out: the effect of the resolution on counts (the host's pixels are counts) and the power-on BAT.

use super::keyboard::{ACK, BAT_NS, BAT_PASSED, RESEND};
use crate::clock::Tick;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The argument of a command was out of range.
const ERROR: u8 = 0xfc;
/// Button changes that may wait for a packet.
const MOTIONS_WAITING: usize = 64;

/// Which buttons are down: bit 0 left, 1 right, 2 middle, 3 back, 4 forward.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MouseButtons(pub u8);

impl MouseButtons {
    /// The left button.
    pub const LEFT: MouseButtons = MouseButtons(1 << 0);
    /// The right button.
    pub const RIGHT: MouseButtons = MouseButtons(1 << 1);
    /// The middle button.
    pub const MIDDLE: MouseButtons = MouseButtons(1 << 2);
}

/// What the next byte from the host is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Expect {
    #[default]
    Command,
    Resolution,
    SampleRate,
}

/// Motion while the buttons stayed the same.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Motion {
    x: i32,
    /// Positive away from the user, as in the packet.
    y: i32,
    z: i32,
    buttons: MouseButtons,
}

/// A mouse: volatile state only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mouse {
    reporting: bool,
    remote: bool,
    wrap: bool,
    double_scale: bool,
    resolution: u8,
    rate: u8,
    /// The last three sample rates, for the knocks.
    knock: [u8; 3],
    id: u8,
    expect: Expect,
    replies: VecDeque<u8>,
    packet: VecDeque<u8>,
    last_sent: Vec<u8>,
    motions: VecDeque<Motion>,
    /// The buttons as the host last said, and as last sent.
    buttons: MouseButtons,
    sent_buttons: MouseButtons,
    /// The earliest time of the next packet.
    next_sample: Tick,
    bat_done: Option<Tick>,
}

impl Mouse {
    pub(super) fn new() -> Mouse {
        Mouse {
            reporting: false,
            remote: false,
            wrap: false,
            double_scale: false,
            resolution: 2,
            rate: 100,
            knock: [0; 3],
            id: 0,
            expect: Expect::Command,
            replies: VecDeque::new(),
            packet: VecDeque::new(),
            last_sent: Vec::new(),
            motions: VecDeque::new(),
            buttons: MouseButtons(0),
            sent_buttons: MouseButtons(0),
            next_sample: Tick(0),
            bat_done: None,
        }
    }

    /// The mouse moves (positive: right, towards the user, wheel towards the user) with these buttons down.
    pub(super) fn motion(&mut self, now: Tick, delta: [i32; 3], buttons: MouseButtons) {
        self.buttons = MouseButtons(buttons.0 & 0x1f);
        if !self.remote && !self.reporting {
            return;
        }
        let [x, y, z] = delta.map(|count| count.clamp(-0xffff, 0xffff));
        let full = self.motions.len() >= MOTIONS_WAITING;
        match self.motions.back_mut() {
            Some(last) if last.buttons == self.buttons || full => {
                last.x = last.x.saturating_add(x);
                last.y = last.y.saturating_sub(y);
                last.z = last.z.saturating_add(z);
                last.buttons = self.buttons;
            }
            _ => self.motions.push_back(Motion { x, y: -y, z, buttons: self.buttons }),
        }
        self.run(now);
    }

    pub(super) fn has_byte(&self) -> bool {
        !self.replies.is_empty() || !self.packet.is_empty()
    }

    pub(super) fn next_byte(&mut self, now: Tick) -> Option<u8> {
        let byte = self.replies.pop_front().or_else(|| self.packet.pop_front())?;
        self.run(now);
        Some(byte)
    }

    pub(super) fn next_event(&self) -> Option<Tick> {
        let sample = (self.streams() && self.has_news()).then_some(self.next_sample);
        [self.bat_done, sample].into_iter().flatten().min()
    }

    /// Does everything that is due by `now`.
    pub(super) fn run(&mut self, now: Tick) {
        if self.bat_done.is_some_and(|done| done <= now) {
            self.bat_done = None;
            self.reply(&[BAT_PASSED, 0x00]);
        }
        if self.streams() && self.has_news() && self.next_sample <= now {
            let packet = self.take_packet();
            self.packet.extend(&packet);
            self.last_sent = packet;
            self.next_sample = now.after(1_000_000_000 / u64::from(self.rate.max(1)));
        }
    }

    /// Whether a packet may be made when there is something to say.
    fn streams(&self) -> bool {
        self.reporting && !self.remote && !self.wrap && self.bat_done.is_none() && !self.has_byte()
    }

    fn has_news(&self) -> bool {
        self.motions.front().is_some_and(|motion| {
            [motion.x, motion.y, motion.z] != [0; 3] || motion.buttons != self.sent_buttons || self.motions.len() > 1
        })
    }

    /// The next packet: as much of the oldest motion as fits.
    fn take_packet(&mut self) -> Vec<u8> {
        let still = Motion { buttons: self.buttons, ..Motion::default() };
        let mut motion = self.motions.pop_front().unwrap_or(still);
        let take = |count: &mut i32, limit: i32| {
            let part = (*count).clamp(-limit, limit - 1);
            *count -= part;
            part
        };
        let (x, y) = (take(&mut motion.x, 256), take(&mut motion.y, 256));
        let z = match self.id {
            0 => std::mem::take(&mut motion.z),
            3 => take(&mut motion.z, 128),
            _ => take(&mut motion.z, 8),
        };
        self.sent_buttons = motion.buttons;
        if [motion.x, motion.y, motion.z] != [0; 3] {
            self.motions.push_front(motion);
        }
        let (x, y) = if self.double_scale && !self.remote { (double(x), double(y)) } else { (x, y) };
        let sign = |count: i32, bit: u8| if count < 0 { bit } else { 0 };
        let first = 0x08 | motion.buttons.0 & 7 | sign(x, 0x10) | sign(y, 0x20);
        let mut packet = vec![first, x as u8, y as u8];
        match self.id {
            3 => packet.push(z as u8),
            4 => packet.push(z as u8 & 0x0f | (motion.buttons.0 & 0x18) << 1),
            _ => {}
        }
        packet
    }

    /// A byte from the host.
    pub(super) fn write(&mut self, now: Tick, byte: u8) {
        self.replies.clear();
        self.packet.clear();
        if self.wrap && byte != 0xec && byte != 0xff {
            return self.reply(&[byte]);
        }
        match (std::mem::take(&mut self.expect), byte) {
            (Expect::Resolution, 0..=3) => {
                self.resolution = byte;
                self.answer(&[ACK]);
            }
            (Expect::SampleRate, 1..=200) => {
                self.rate = byte;
                self.knock = [self.knock[1], self.knock[2], byte];
                self.id = match (self.id, self.knock) {
                    (_, [200, 100, 80]) => 3,
                    (3, [200, 200, 80]) => 4,
                    (id, _) => id,
                };
                self.answer(&[ACK]);
            }
            (Expect::Resolution | Expect::SampleRate, _) => self.answer(&[ERROR]),
            (Expect::Command, _) => self.command(now, byte),
        }
    }

    fn command(&mut self, now: Tick, command: u8) {
        match command {
            0xe6 => self.double_scale = false,
            0xe7 => self.double_scale = true,
            0xe8 => self.expect = Expect::Resolution,
            0xe9 => {
                let status = self.status();
                return self.answer(&[ACK, status, self.resolution, self.rate]);
            }
            0xea => {
                self.remote = false;
                self.motions.clear();
            }
            0xeb => {
                let mut bytes = vec![ACK];
                bytes.extend(self.take_packet());
                return self.answer(&bytes);
            }
            0xec => {
                self.wrap = false;
                self.motions.clear();
            }
            0xee => {
                self.wrap = true;
                self.motions.clear();
            }
            0xf0 => {
                self.remote = true;
                self.motions.clear();
            }
            0xf2 => return self.answer(&[ACK, self.id]),
            0xf3 => self.expect = Expect::SampleRate,
            0xf4 => {
                self.reporting = true;
                self.motions.clear();
            }
            0xf5 => {
                self.reporting = false;
                self.motions.clear();
            }
            0xf6 => self.set_defaults(),
            0xfe => {
                let again = self.last_sent.clone();
                return self.reply(&again);
            }
            0xff => {
                self.set_defaults();
                self.id = 0;
                self.knock = [0; 3];
                self.bat_done = Some(now.after(BAT_NS));
            }
            _ => return self.answer(&[RESEND]),
        }
        self.answer(&[ACK]);
    }

    fn set_defaults(&mut self) {
        self.reporting = false;
        self.remote = false;
        self.wrap = false;
        self.double_scale = false;
        self.resolution = 2;
        self.rate = 100;
        self.motions.clear();
    }

    fn status(&self) -> u8 {
        let buttons = self.buttons.0;
        u8::from(self.remote) << 6
            | u8::from(self.reporting) << 5
            | u8::from(self.double_scale) << 4
            | (buttons & 1) << 2
            | (buttons >> 2 & 1) << 1
            | buttons >> 1 & 1
    }

    /// Sends, and remembers for a resend command.
    fn answer(&mut self, bytes: &[u8]) {
        self.last_sent = bytes.to_vec();
        self.reply(bytes);
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.replies.extend(bytes);
    }
}

/// 2:1 scaling.
fn double(count: i32) -> i32 {
    let size = match count.abs() {
        0 => 0,
        1 | 2 => 1,
        3 => 3,
        4 => 6,
        5 => 9,
        size => (2 * size).min(255),
    };
    size * count.signum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(mouse: &mut Mouse, now: Tick) -> Vec<u8> {
        std::iter::from_fn(|| mouse.next_byte(now)).collect()
    }

    fn send(mouse: &mut Mouse, bytes: &[u8]) -> Vec<u8> {
        let mut got = Vec::new();
        for &byte in bytes {
            mouse.write(Tick(0), byte);
            got.extend(drain(mouse, Tick(0)));
            mouse.run(Tick(BAT_NS));
            got.extend(drain(mouse, Tick(BAT_NS)));
        }
        got
    }

    #[test]
    #[rustfmt::skip]
    fn commands() {
        let table: &[(&[u8], &[u8])] = &[
            (&[0xff], &[0xfa, 0xaa, 0x00]),
            (&[0xf2], &[0xfa, 0x00]),
            (&[0xe9], &[0xfa, 0x00, 0x02, 0x64]),
            (&[0xe8, 0x03, 0xe7, 0xf4, 0xf3, 0x28, 0xe9], &[0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0x30, 0x03, 0x28]),
            (&[0xf0, 0xe9], &[0xfa, 0xfa, 0x40, 0x02, 0x64]),
            (&[0xeb], &[0xfa, 0x08, 0x00, 0x00]),
            (&[0xee, 0xf2, 0xe9, 0xec, 0xf2], &[0xfa, 0xf2, 0xe9, 0xfa, 0xfa, 0x00]),
            (&[0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf2], &[0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0x03]),
            (&[0xf3, 200, 0xf3, 200, 0xf3, 80, 0xf2], &[0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0x00]),
            (&[0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf3, 200, 0xf3, 200, 0xf3, 80, 0xf2],
             &[0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0x04]),
            (&[0xe8, 0x04], &[0xfa, 0xfc]),
            (&[0xf2, 0xfe], &[0xfa, 0x00, 0xfa, 0x00]),
            (&[0x55], &[0xfe]),
        ];
        for (bytes, expected) in table {
            assert_eq!(&send(&mut Mouse::new(), bytes), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn packets() {
        #[rustfmt::skip]
        let table: [(u8, [i32; 3], u8, &[u8]); 8] = [
            (0, [5, 0, 0], 0, &[0x08, 5, 0]),
            (0, [0, 5, 0], 0, &[0x28, 0, 0xfb]),
            (0, [-5, -6, 0], 7, &[0x1f, 0xfb, 6]),
            (0, [300, 0, 0], 0, &[0x08, 255, 0, 0x08, 45, 0]),
            (0, [-300, 0, 0], 0, &[0x18, 0, 0, 0x18, 0xd4, 0]),
            (3, [1, 0, -1], 1, &[0x09, 1, 0, 0xff]),
            (4, [0, 0, 1], 0x18, &[0x08, 0, 0, 0x31]),
            (4, [0, 0, 9], 0, &[0x08, 0, 0, 0x07, 0x08, 0, 0, 0x02]),
        ];
        for (id, delta, buttons, expected) in table {
            let mut mouse = Mouse { id, reporting: true, ..Mouse::new() };
            mouse.motion(Tick(0), delta, MouseButtons(buttons));
            let mut got = drain(&mut mouse, Tick(0));
            while let Some(event) = mouse.next_event() {
                mouse.run(event);
                got.extend(drain(&mut mouse, event));
            }
            assert_eq!(got, expected, "id {id} {delta:?} {buttons}");
        }
    }

    #[test]
    fn sample_rate_and_clicks() {
        let mut mouse = Mouse { reporting: true, ..Mouse::new() };
        mouse.motion(Tick(0), [1, 0, 0], MouseButtons(0));
        assert_eq!(drain(&mut mouse, Tick(0)), [8, 1, 0]);
        mouse.motion(Tick(1), [1, 0, 0], MouseButtons(0));
        mouse.motion(Tick(2), [2, 0, 0], MouseButtons::LEFT);
        mouse.motion(Tick(3), [0, 0, 0], MouseButtons(0));
        for (ns, packet) in [(10_000_000, [8, 1, 0]), (20_000_000, [9, 2, 0]), (30_000_000, [8, 0, 0])] {
            assert_eq!(mouse.next_event(), Some(Tick(ns)));
            mouse.run(Tick(ns - 1));
            assert!(!mouse.has_byte());
            mouse.run(Tick(ns));
            assert_eq!(drain(&mut mouse, Tick(ns)), packet);
        }
        assert_eq!(mouse.next_event(), None);
    }

    #[test]
    fn scaling() {
        let got: Vec<i32> = (-7..=7).map(double).collect();
        assert_eq!(got, [-14, -12, -9, -6, -3, -1, -1, 0, 1, 1, 3, 6, 9, 12, 14]);
    }
}
