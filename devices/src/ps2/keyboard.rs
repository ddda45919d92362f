//! A PS/2 keyboard (IBM PS/2 Technical Reference, 101/102-key keyboard).
//!
//! Models scan code sets 1, 2 and 3 with set 3's key types, typematic repeat, LEDs, and every command. Keys come from the
//! host through a queue that feeds the 16-byte buffer as the guest empties it, so that typed-ahead keys are not lost.
//!
//! Leaves out: the shift codes that a real keyboard wraps around the grey arrow keys when NumLock or Shift is on, and the
//! power-on BAT (taken as long done).

use super::keys::KeyCode;
use super::translate::{BREAK, to_set_1};
use crate::clock::Tick;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Acknowledge.
pub(super) const ACK: u8 = 0xfa;
/// Send again: what was received makes no sense.
pub(super) const RESEND: u8 = 0xfe;
/// The basic assurance test has passed.
pub(super) const BAT_PASSED: u8 = 0xaa;
/// How long the basic assurance test takes (a real one takes half a second).
pub(super) const BAT_NS: u64 = 2_000_000;
/// Keys that may wait for the guest to read.
const KEYS_WAITING: usize = 1024;
/// 10.9 characters a second after 500 ms.
const DEFAULT_TYPEMATIC: u8 = 0x2b;

/// What the keyboard sends for a key of set 3.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum KeyType {
    /// Make and repeats.
    Typematic,
    /// Make and break.
    MakeBreak,
    /// Make.
    Make,
    /// Make, repeats and break.
    All,
}

impl KeyType {
    fn repeats(self) -> bool {
        matches!(self, KeyType::Typematic | KeyType::All)
    }
    fn breaks(self) -> bool {
        matches!(self, KeyType::MakeBreak | KeyType::All)
    }
    /// The type of a set 3 code after a reset.
    fn default_of(code: u8) -> KeyType {
        match code {
            0x11 | 0x12 | 0x14 | 0x19 | 0x59 => KeyType::MakeBreak,
            // Function and control keys, the keypad, and what is right of the space bar.
            0x07 | 0x08 | 0x0f | 0x17 | 0x1f | 0x27 | 0x2f | 0x37 | 0x3f | 0x47 | 0x4f | 0x56 | 0x5e => KeyType::Make,
            0x39 | 0x57 | 0x58 | 0x5f | 0x62 | 0x65 | 0x67 | 0x69 | 0x6b..=0x7d | 0x7e | 0x84.. => KeyType::Make,
            _ => KeyType::Typematic,
        }
    }
}

/// What the next byte from the host is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Expect {
    #[default]
    Command,
    Leds,
    Typematic,
    ScanCodeSet,
    /// Set 3 codes that get this type, until a command comes.
    Keys(KeyType),
}

/// What a key does.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stroke {
    /// It goes down, and repeats if it is still down after the typematic delay.
    Down,
    /// It goes down, and repeats only from [`Stroke::Again`] on. For a host that sees the key itself: should the host be late
    /// with the key's way up, the guest sees no second press.
    DownAlone,
    /// It is still down: it repeats from now on, at the typematic rate.
    Again,
    /// It comes up.
    Up,
}

/// A keyboard: volatile state only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keyboard {
    scanning: bool,
    set: u8,
    leds: u8,
    typematic: u8,
    /// A type for all keys of set 3, and the keys that differ from it (or from the default).
    all_keys: Option<KeyType>,
    key_types: Vec<(u8, KeyType)>,
    expect: Expect,
    replies: VecDeque<u8>,
    codes: VecDeque<u8>,
    /// The first of `codes` follows a byte that was sent already: no reply comes between them.
    halfway: bool,
    strokes: VecDeque<(KeyCode, Stroke)>,
    last_sent: u8,
    bat_done: Option<Tick>,
    /// Keys that are down, by HID usage.
    down: [u64; 4],
    repeat: Option<(KeyCode, Tick)>,
}

impl Keyboard {
    pub(super) fn new() -> Keyboard {
        Keyboard {
            scanning: true,
            set: 2,
            leds: 0,
            typematic: DEFAULT_TYPEMATIC,
            all_keys: None,
            key_types: Vec::new(),
            expect: Expect::Command,
            replies: VecDeque::new(),
            codes: VecDeque::new(),
            halfway: false,
            strokes: VecDeque::new(),
            last_sent: 0,
            bat_done: None,
            down: [0; 4],
            repeat: None,
        }
    }

    /// Bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock.
    pub(super) fn leds(&self) -> u8 {
        self.leds
    }

    /// Keys that the guest has not read yet.
    pub(super) fn waiting(&self) -> usize {
        self.strokes.len() + usize::from(!self.codes.is_empty())
    }

    /// A key does something. That it goes down when it is down already is ignored.
    pub(super) fn key(&mut self, now: Tick, key: KeyCode, stroke: Stroke) {
        if self.strokes.len() < KEYS_WAITING {
            self.strokes.push_back((key, stroke));
        }
        self.run(now);
    }

    /// Whether a byte waits for the controller.
    pub(super) fn has_byte(&self) -> bool {
        !self.replies.is_empty() || (self.bat_done.is_none() && !self.codes.is_empty())
    }

    /// Takes the next byte off the cable.
    pub(super) fn next_byte(&mut self, now: Tick) -> Option<u8> {
        let reply = if self.halfway { None } else { self.replies.pop_front() };
        let byte = match reply {
            Some(byte) => byte,
            None => {
                let code = self.codes.pop_front()?;
                self.halfway = !self.codes.is_empty();
                code
            }
        };
        if byte != RESEND {
            self.last_sent = byte;
        }
        self.run(now);
        Some(byte)
    }

    pub(super) fn next_event(&self) -> Option<Tick> {
        let repeat = self.repeat.map(|(_, at)| at).filter(|_| self.codes.is_empty());
        [self.bat_done, repeat].into_iter().flatten().min()
    }

    /// Does everything that is due by `now`.
    pub(super) fn run(&mut self, now: Tick) {
        if self.bat_done.is_some_and(|done| done <= now) {
            self.bat_done = None;
            self.replies.push_back(BAT_PASSED);
        }
        while self.codes.is_empty() && self.bat_done.is_none() {
            let Some((key, stroke)) = self.strokes.pop_front() else { break };
            self.strike(now, key, stroke);
        }
        if let Some((key, at)) = self.repeat
            && at <= now
            && self.codes.is_empty()
        {
            self.send_repeat(key);
            self.repeat = Some((key, now.after(self.repeat_ns())));
        }
    }

    /// A byte from the host.
    pub(super) fn write(&mut self, now: Tick, byte: u8) {
        self.replies.clear();
        let expect = std::mem::take(&mut self.expect);
        match (expect, byte) {
            (Expect::Leds, 0..=0x7f) => {
                self.leds = byte & 7;
                self.reply(&[ACK]);
            }
            (Expect::Typematic, 0..=0x7f) => {
                self.typematic = byte;
                self.reply(&[ACK]);
            }
            (Expect::ScanCodeSet, 0) => self.reply(&[ACK, self.set]),
            (Expect::ScanCodeSet, 1..=3) => {
                self.set = byte;
                self.forget_keys();
                self.reply(&[ACK]);
            }
            (Expect::Keys(key_type), 0..=0xec) => {
                self.key_types.retain(|&(code, _)| code != byte);
                self.key_types.push((byte, key_type));
                self.expect = expect;
                self.reply(&[ACK]);
            }
            _ => self.command(now, byte),
        }
    }

    fn command(&mut self, now: Tick, command: u8) {
        match command {
            0xed => self.expect = Expect::Leds,
            0xee => return self.reply(&[0xee]),
            0xf0 => self.expect = Expect::ScanCodeSet,
            0xf2 => return self.reply(&[ACK, 0xab, 0x83]),
            0xf3 => self.expect = Expect::Typematic,
            0xf4 => {
                self.forget_keys();
                self.scanning = true;
            }
            0xf5 => {
                self.set_defaults();
                self.scanning = false;
            }
            0xf6 => self.set_defaults(),
            0xf7..=0xfa => {
                self.all_keys = Some(key_type_of(command - 0xf7));
                self.key_types.clear();
            }
            0xfb..=0xfd => self.expect = Expect::Keys(key_type_of(command - 0xfb)),
            0xfe => return self.reply(&[self.last_sent]),
            0xff => {
                self.set_defaults();
                self.set = 2;
                self.leds = 0;
                self.scanning = true;
                self.bat_done = Some(now.after(BAT_NS));
            }
            _ => return self.reply(&[RESEND]),
        }
        self.reply(&[ACK]);
    }

    fn reply(&mut self, bytes: &[u8]) {
        self.replies.extend(bytes);
    }

    fn set_defaults(&mut self) {
        self.forget_keys();
        self.typematic = DEFAULT_TYPEMATIC;
        self.all_keys = None;
        self.key_types.clear();
    }

    fn forget_keys(&mut self) {
        self.codes.clear();
        self.halfway = false;
        self.repeat = None;
    }

    fn is_down(&self, key: KeyCode) -> bool {
        self.down[usize::from(key as u8 >> 6)] >> (key as u8 & 63) & 1 != 0
    }

    fn strike(&mut self, now: Tick, key: KeyCode, stroke: Stroke) {
        if stroke == Stroke::Again {
            if self.is_down(key) && self.scanning && self.repeat.is_none_or(|(repeating, _)| repeating != key) {
                self.repeat = self.may_repeat(key).then_some((key, now));
            }
            return;
        }
        let down = stroke != Stroke::Up;
        if self.is_down(key) == down {
            return;
        }
        self.down[usize::from(key as u8 >> 6)] ^= 1 << (key as u8 & 63);
        if !self.scanning {
            return;
        }
        self.send(key, down);
        self.repeat = match stroke {
            Stroke::Down => self.may_repeat(key).then(|| (key, now.after(self.delay_ns()))),
            Stroke::DownAlone => None,
            Stroke::Again | Stroke::Up => self.repeat.filter(|&(repeating, _)| repeating != key),
        };
    }

    fn may_repeat(&self, key: KeyCode) -> bool {
        key != KeyCode::Pause && (self.set != 3 || self.key_type(key).repeats())
    }

    fn key_type(&self, key: KeyCode) -> KeyType {
        let code = key.set_3();
        let own = self.key_types.iter().find(|&&(other, _)| other == code).map(|&(_, key_type)| key_type);
        own.or(self.all_keys).unwrap_or(KeyType::default_of(code))
    }

    /// Puts the codes of a stroke into the buffer.
    fn send(&mut self, key: KeyCode, down: bool) {
        if self.set == 3 {
            let code = key.set_3();
            match down {
                _ if code == 0 => {}
                true => self.codes.push_back(code),
                false if self.key_type(key).breaks() => self.codes.extend([BREAK, code]),
                false => {}
            }
            return;
        }
        let any = |keys: [KeyCode; 2]| keys.iter().any(|&key| self.is_down(key));
        let control = any([KeyCode::LeftControl, KeyCode::RightControl]);
        let shift = any([KeyCode::LeftShift, KeyCode::RightShift]);
        let alt = any([KeyCode::LeftAlt, KeyCode::RightAlt]);
        let fixed: &[u8] = match (key, down) {
            (KeyCode::Pause, true) if control => &[0xe0, 0x7e, 0xe0, BREAK, 0x7e],
            (KeyCode::Pause, true) => &[0xe1, 0x14, 0x77, 0xe1, BREAK, 0x14, BREAK, 0x77],
            (KeyCode::Pause | KeyCode::Lang1 | KeyCode::Lang2, false) => &[],
            (KeyCode::PrintScreen, true) if alt => &[0x84],
            (KeyCode::PrintScreen, false) if alt => &[BREAK, 0x84],
            (KeyCode::PrintScreen, true) if !control && !shift => &[0xe0, 0x12, 0xe0, 0x7c],
            (KeyCode::PrintScreen, false) if !control && !shift => &[0xe0, BREAK, 0x7c, 0xe0, BREAK, 0x12],
            _ => return self.send_plain(key, down),
        };
        self.send_set_2(fixed);
    }

    fn send_plain(&mut self, key: KeyCode, down: bool) {
        let [prefix, code] = key.set_2().to_be_bytes();
        let bytes = [prefix, if down { 0 } else { BREAK }, code];
        let bytes: Vec<u8> = bytes.into_iter().filter(|&byte| byte != 0).collect();
        self.send_set_2(&bytes);
    }

    fn send_repeat(&mut self, key: KeyCode) {
        if self.set == 3 { self.send(key, true) } else { self.send_plain(key, true) }
    }

    /// Sends a sequence of set 2, in set 1 if that is the set.
    fn send_set_2(&mut self, bytes: &[u8]) {
        if self.set != 1 {
            return self.codes.extend(bytes);
        }
        let mut after_break = false;
        self.codes.extend(bytes.iter().filter_map(|&byte| to_set_1(byte, &mut after_break)));
    }

    /// The time from the make code to the first repeat.
    fn delay_ns(&self) -> u64 {
        250_000_000 * (u64::from(self.typematic >> 5 & 3) + 1)
    }

    /// The time between two repeats: (8 + A) × 2^B / 240 s.
    fn repeat_ns(&self) -> u64 {
        ((8 + u64::from(self.typematic & 7)) << (self.typematic >> 3 & 3)) * 1_000_000_000 / 240
    }
}

/// The order of the key types in commands F7h–FAh and FBh–FDh.
fn key_type_of(index: u8) -> KeyType {
    match index {
        0 => KeyType::Typematic,
        1 => KeyType::MakeBreak,
        2 => KeyType::Make,
        _ => KeyType::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(keyboard: &mut Keyboard, now: Tick) -> Vec<u8> {
        std::iter::from_fn(|| if keyboard.has_byte() { keyboard.next_byte(now) } else { None }).collect()
    }

    #[test]
    #[rustfmt::skip]
    fn commands() {
        // Bytes from the host, and all that comes back (the BAT included).
        let table: &[(&[u8], &[u8])] = &[
            (&[0xee], &[0xee]),
            (&[0xf2], &[0xfa, 0xab, 0x83]),
            (&[0xed, 0x05], &[0xfa, 0xfa]),
            (&[0xed, 0xf4], &[0xfa, 0xfa]),
            (&[0xf3, 0x00], &[0xfa, 0xfa]),
            (&[0xf0, 0x00], &[0xfa, 0xfa, 0x02]),
            (&[0xf0, 0x03, 0xf0, 0x00], &[0xfa, 0xfa, 0xfa, 0xfa, 0x03]),
            (&[0xf0, 0x04], &[0xfa, 0xfe]),
            (&[0xf4], &[0xfa]), (&[0xf5], &[0xfa]), (&[0xf6], &[0xfa]), (&[0xf8], &[0xfa]),
            (&[0xfb, 0x1c, 0x1d, 0xf4], &[0xfa, 0xfa, 0xfa, 0xfa]),
            (&[0xf2, 0xfe], &[0xfa, 0xab, 0x83, 0x83]),
            (&[0x12], &[0xfe]), (&[0xec], &[0xfe]),
            (&[0xff], &[0xfa, 0xaa]),
        ];
        for (bytes, expected) in table {
            let mut keyboard = Keyboard::new();
            let mut got = Vec::new();
            for &byte in *bytes {
                keyboard.write(Tick(0), byte);
                got.extend(drain(&mut keyboard, Tick(0)));
                keyboard.run(Tick(BAT_NS));
                got.extend(drain(&mut keyboard, Tick(BAT_NS)));
            }
            assert_eq!(&got, expected, "{bytes:02x?}");
        }
    }

    /// A scan code set, keys that go down or up, and what is sent.
    type Typing = (u8, &'static [(KeyCode, bool)], &'static [u8]);

    #[test]
    #[rustfmt::skip]
    fn strokes() {
        use KeyCode::*;
        let table: &[Typing] = &[
            (2, &[(A, true), (A, true), (A, false)], &[0x1c, 0xf0, 0x1c]),
            (1, &[(A, true), (A, false)], &[0x1e, 0x9e]),
            (3, &[(A, true), (A, false)], &[0x1c]),
            (3, &[(LeftShift, true), (LeftShift, false)], &[0x12, 0xf0, 0x12]),
            (2, &[(Up, true), (Up, false)], &[0xe0, 0x75, 0xe0, 0xf0, 0x75]),
            (1, &[(RightAlt, true), (RightAlt, false)], &[0xe0, 0x38, 0xe0, 0xb8]),
            (1, &[(F7, true), (F7, false)], &[0x41, 0xc1]),
            (1, &[(PrintScreen, true), (PrintScreen, false)], &[0xe0, 0x2a, 0xe0, 0x37, 0xe0, 0xb7, 0xe0, 0xaa]),
            (2, &[(LeftAlt, true), (PrintScreen, true), (PrintScreen, false)], &[0x11, 0x84, 0xf0, 0x84]),
            (2, &[(LeftShift, true), (PrintScreen, true)], &[0x12, 0xe0, 0x7c]),
            (1, &[(Pause, true), (Pause, false)], &[0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]),
            (1, &[(LeftControl, true), (Pause, true)], &[0x1d, 0xe0, 0x46, 0xe0, 0xc6]),
            (3, &[(Pause, true), (F13, true)], &[0x62]),
            (1, &[(Lang1, true), (Lang1, false)], &[0xf2]),
        ];
        for (set, strokes, expected) in table {
            let mut keyboard = Keyboard::new();
            keyboard.write(Tick(0), 0xf0);
            keyboard.write(Tick(0), *set);
            drain(&mut keyboard, Tick(0));
            for &(key, down) in *strokes {
                keyboard.key(Tick(0), key, if down { Stroke::Down } else { Stroke::Up });
            }
            assert_eq!(&drain(&mut keyboard, Tick(0)), expected, "set {set} {strokes:?}");
        }
    }

    #[test]
    fn a_reply_waits_for_the_end_of_a_stroke() {
        let mut keyboard = Keyboard::new();
        for (key, stroke) in [(KeyCode::A, Stroke::Down), (KeyCode::A, Stroke::Up), (KeyCode::B, Stroke::Down)] {
            keyboard.key(Tick(0), key, stroke);
        }
        let mut got: Vec<u8> = (0..2).filter_map(|_| keyboard.next_byte(Tick(0))).collect();
        keyboard.write(Tick(0), 0xed);
        got.extend(drain(&mut keyboard, Tick(0)));
        assert_eq!(got, [0x1c, 0xf0, 0x1c, 0xfa, 0x32]);
        // Enabling forgets what was not sent.
        keyboard.key(Tick(0), KeyCode::B, Stroke::Up);
        assert_eq!(keyboard.next_byte(Tick(0)), Some(0xf0));
        keyboard.write(Tick(0), 0xf4);
        assert_eq!(drain(&mut keyboard, Tick(0)), [0xfa]);
    }

    #[test]
    fn key_types_of_set_3() {
        let mut keyboard = Keyboard::new();
        for byte in [0xf0, 3, 0xf9, 0xfb, 0x1c, 0xfc, 0x32, 0xf4] {
            keyboard.write(Tick(0), byte);
        }
        let types = [KeyCode::A, KeyCode::B, KeyCode::C].map(|key| keyboard.key_type(key));
        assert_eq!(types, [KeyType::Typematic, KeyType::MakeBreak, KeyType::Make]);
        keyboard.write(Tick(0), 0xf6);
        assert_eq!(keyboard.key_type(KeyCode::C), KeyType::Typematic);
    }

    #[test]
    fn typematic() {
        const MS: u64 = 1_000_000;
        let mut keyboard = Keyboard::new();
        keyboard.write(Tick(0), 0xf3);
        keyboard.write(Tick(0), 0x00); // 250 ms, 30 a second
        drain(&mut keyboard, Tick(0));
        keyboard.key(Tick(0), KeyCode::Up, Stroke::Down);
        assert_eq!(drain(&mut keyboard, Tick(0)), [0xe0, 0x75]);
        assert_eq!(keyboard.next_event(), Some(Tick(250 * MS)));
        keyboard.run(Tick(250 * MS));
        assert_eq!(keyboard.next_event(), None, "no second repeat before the first is read");
        assert_eq!(drain(&mut keyboard, Tick(251 * MS)), [0xe0, 0x75]);
        assert_eq!(keyboard.next_event(), Some(Tick(250 * MS + 1_000_000_000 / 30)));
        keyboard.key(Tick(260 * MS), KeyCode::Up, Stroke::Up);
        assert_eq!(keyboard.next_event(), None);
    }

    #[test]
    fn a_host_says_when_a_key_repeats() {
        const MS: u64 = 1_000_000;
        let mut keyboard = Keyboard::new();
        keyboard.key(Tick(0), KeyCode::A, Stroke::Again);
        assert_eq!(drain(&mut keyboard, Tick(0)), [], "it is not down");
        keyboard.key(Tick(0), KeyCode::A, Stroke::DownAlone);
        assert_eq!((drain(&mut keyboard, Tick(0)), keyboard.next_event()), (vec![0x1c], None));
        for again in [600, 605] {
            keyboard.key(Tick(again * MS), KeyCode::A, Stroke::Again);
        }
        assert_eq!(drain(&mut keyboard, Tick(610 * MS)), [0x1c], "once");
        assert!(keyboard.next_event().is_some_and(|at| at > Tick(650 * MS)), "then at the typematic rate");
        keyboard.key(Tick(611 * MS), KeyCode::A, Stroke::Up);
        assert_eq!((drain(&mut keyboard, Tick(2000 * MS)), keyboard.next_event()), (vec![0xf0, 0x1c], None));
    }

    #[test]
    fn typed_ahead_keys_wait() {
        let mut keyboard = Keyboard::new();
        for _ in 0..100 {
            keyboard.key(Tick(0), KeyCode::A, Stroke::Down);
            keyboard.key(Tick(0), KeyCode::A, Stroke::Up);
        }
        assert_eq!(keyboard.waiting(), 200);
        assert_eq!(drain(&mut keyboard, Tick(0)).len(), 300);
        keyboard.write(Tick(0), 0xf5);
        drain(&mut keyboard, Tick(0));
        keyboard.key(Tick(0), KeyCode::A, Stroke::Down);
        assert!(!keyboard.has_byte(), "not scanning");
    }
}
