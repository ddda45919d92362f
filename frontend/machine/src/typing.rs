//! Text as keys of a US keyboard, for scripts and for pasting: what a person would press.
//!
//! `\n` is Enter, `\t` Tab, `\e` Escape, `\\` a backslash; `\{NAME}` is a key by name, and several with `+` are held together:
//! `\{ctrl+alt+delete}`, `\{f12}`, `\{up}`. Leaves out: characters that the US layout does not have.

use thiserror::Error;
use umbra_devices::ps2::KeyCode;

/// A text that cannot be typed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TypingError {
    /// A key that there is not.
    #[error("there is no key \"{0}\"; try names such as enter, f12, up, ctrl+alt+delete")]
    NoSuchKey(String),
    /// A character that needs another layout.
    #[error("\"{0}\" is not on a US keyboard; try another text")]
    NotOnKeyboard(char),
}

/// Keys that are pressed together, in this order.
pub type Chord = Vec<KeyCode>;

/// What names stand for, beside those of [`KeyCode`] itself.
const NAMES: &[(&str, KeyCode)] = &[
    ("ctrl", KeyCode::LeftControl),
    ("alt", KeyCode::LeftAlt),
    ("shift", KeyCode::LeftShift),
    ("super", KeyCode::LeftSuper),
    ("esc", KeyCode::Escape),
    ("del", KeyCode::Delete),
    ("pgup", KeyCode::PageUp),
    ("pgdn", KeyCode::PageDown),
];
/// The characters of the keys in the order of their HID usages 1Eh–38h, plain and with shift.
const PLAIN: &str = "1234567890\n\u{1b}\u{8}\t -=[]\\\u{0};'`,./";
const SHIFTED: &str = "!@#$%^&*()\u{0}\u{0}\u{0}\u{0}\u{0}_+{}|\u{0}:\"~<>?";

/// The chords that type a text with escapes.
pub fn chords(text: &str) -> Result<Vec<Chord>, TypingError> {
    let mut chords = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            chords.push(character(c)?);
            continue;
        }
        match rest.next() {
            Some('n' | 'r') => chords.push(vec![KeyCode::Enter]),
            Some('t') => chords.push(vec![KeyCode::Tab]),
            Some('e') => chords.push(vec![KeyCode::Escape]),
            Some('{') => {
                let names: String = rest.by_ref().take_while(|&c| c != '}').collect();
                chords.push(names.split('+').map(named).collect::<Result<_, _>>()?);
            }
            Some('\\') | None => chords.push(character('\\')?),
            Some(other) => chords.extend([character('\\')?, character(other)?]),
        }
    }
    Ok(chords)
}

/// The chords that type a text as it stands; what the keyboard does not have is left out.
pub fn paste(text: &str) -> Vec<Chord> {
    text.chars().filter(|&c| c != '\r').filter_map(|c| character(c).ok()).collect()
}

fn named(name: &str) -> Result<KeyCode, TypingError> {
    let lower = name.trim().to_ascii_lowercase();
    let by_name = || KeyCode::ALL.iter().find(|key| format!("{key:?}").to_ascii_lowercase() == lower).copied();
    let by_character = || match character(lower.chars().next()?).ok()?.as_slice() {
        [key] if lower.chars().count() == 1 => Some(*key),
        _ => None,
    };
    let alias = NAMES.iter().find(|(alias, _)| *alias == lower).map(|&(_, key)| key);
    alias.or_else(by_name).or_else(by_character).ok_or_else(|| TypingError::NoSuchKey(name.to_owned()))
}

fn character(c: char) -> Result<Chord, TypingError> {
    /// The HID usages of A and of 1.
    const A: u8 = 0x04;
    const ONE: u8 = 0x1E;
    let key = |usage: u8| KeyCode::from_hid(usage).ok_or(TypingError::NotOnKeyboard(c));
    if c.is_ascii_alphabetic() {
        let key = key(A + (c.to_ascii_lowercase() as u8 - b'a'))?;
        return Ok(if c.is_ascii_uppercase() { vec![KeyCode::LeftShift, key] } else { vec![key] });
    }
    let place = |row: &str| row.chars().position(|known| known == c && c != '\0');
    match (place(PLAIN), place(SHIFTED)) {
        (Some(place), _) => Ok(vec![key(ONE + place as u8)?]),
        (None, Some(place)) => Ok(vec![KeyCode::LeftShift, key(ONE + place as u8)?]),
        (None, None) => Err(TypingError::NotOnKeyboard(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use KeyCode::*;

    #[test]
    fn texts_become_keys() {
        #[rustfmt::skip]
        let cases: &[(&str, &[&[KeyCode]])] = &[
            ("aZ", &[&[A], &[LeftShift, Z]]),
            ("1)", &[&[Digit1], &[LeftShift, Digit0]]),
            ("-_ \\n", &[&[Minus], &[LeftShift, Minus], &[Space], &[Enter]]),
            ("[}|", &[&[LeftBracket], &[LeftShift, RightBracket], &[LeftShift, Backslash]]),
            (";\"~/?", &[&[Semicolon], &[LeftShift, Apostrophe], &[LeftShift, Grave], &[Slash], &[LeftShift, Slash]]),
            ("\\{ctrl+alt+delete}\\{F12}\\{up}", &[&[LeftControl, LeftAlt, Delete], &[F12], &[Up]]),
            ("\\{ctrl+c}\\t\\e\\\\", &[&[LeftControl, C], &[Tab], &[Escape], &[Backslash]]),
        ];
        for (text, expected) in cases {
            assert_eq!(chords(text).unwrap(), *expected, "{text}");
        }
        assert_eq!(chords("é"), Err(TypingError::NotOnKeyboard('é')));
        assert_eq!(chords("\\{nokey}"), Err(TypingError::NoSuchKey("nokey".into())));
        assert_eq!(paste("aé\r\n"), [vec![A], vec![Enter]]);
    }
}
