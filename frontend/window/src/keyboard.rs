//! The host's keys by position: winit's physical keys (W3C "UI events code") to the keys of the guest's keyboard.

use umbra_machine::KeyCode as Guest;
use winit::keyboard::KeyCode as Host;

/// The guest's key at the place of a host's key.
pub fn guest_key(code: Host) -> Option<Guest> {
    TABLE.iter().find(|(host, _)| *host == code).map(|&(_, guest)| guest)
}

#[rustfmt::skip]
const TABLE: &[(Host, Guest)] = &[
    (Host::KeyA, Guest::A), (Host::KeyB, Guest::B), (Host::KeyC, Guest::C), (Host::KeyD, Guest::D), (Host::KeyE, Guest::E),
    (Host::KeyF, Guest::F), (Host::KeyG, Guest::G), (Host::KeyH, Guest::H), (Host::KeyI, Guest::I), (Host::KeyJ, Guest::J),
    (Host::KeyK, Guest::K), (Host::KeyL, Guest::L), (Host::KeyM, Guest::M), (Host::KeyN, Guest::N), (Host::KeyO, Guest::O),
    (Host::KeyP, Guest::P), (Host::KeyQ, Guest::Q), (Host::KeyR, Guest::R), (Host::KeyS, Guest::S), (Host::KeyT, Guest::T),
    (Host::KeyU, Guest::U), (Host::KeyV, Guest::V), (Host::KeyW, Guest::W), (Host::KeyX, Guest::X), (Host::KeyY, Guest::Y),
    (Host::KeyZ, Guest::Z),
    (Host::Digit1, Guest::Digit1), (Host::Digit2, Guest::Digit2), (Host::Digit3, Guest::Digit3), (Host::Digit4, Guest::Digit4),
    (Host::Digit5, Guest::Digit5), (Host::Digit6, Guest::Digit6), (Host::Digit7, Guest::Digit7), (Host::Digit8, Guest::Digit8),
    (Host::Digit9, Guest::Digit9), (Host::Digit0, Guest::Digit0),
    (Host::Enter, Guest::Enter), (Host::Escape, Guest::Escape), (Host::Backspace, Guest::Backspace), (Host::Tab, Guest::Tab),
    (Host::Space, Guest::Space), (Host::Minus, Guest::Minus), (Host::Equal, Guest::Equal),
    (Host::BracketLeft, Guest::LeftBracket), (Host::BracketRight, Guest::RightBracket), (Host::Backslash, Guest::Backslash),
    (Host::Semicolon, Guest::Semicolon), (Host::Quote, Guest::Apostrophe), (Host::Backquote, Guest::Grave),
    (Host::Comma, Guest::Comma), (Host::Period, Guest::Period), (Host::Slash, Guest::Slash), (Host::CapsLock, Guest::CapsLock),
    (Host::F1, Guest::F1), (Host::F2, Guest::F2), (Host::F3, Guest::F3), (Host::F4, Guest::F4), (Host::F5, Guest::F5),
    (Host::F6, Guest::F6), (Host::F7, Guest::F7), (Host::F8, Guest::F8), (Host::F9, Guest::F9), (Host::F10, Guest::F10),
    (Host::F11, Guest::F11), (Host::F12, Guest::F12),
    (Host::PrintScreen, Guest::PrintScreen), (Host::ScrollLock, Guest::ScrollLock), (Host::Pause, Guest::Pause),
    (Host::Insert, Guest::Insert), (Host::Home, Guest::Home), (Host::PageUp, Guest::PageUp), (Host::Delete, Guest::Delete),
    (Host::End, Guest::End), (Host::PageDown, Guest::PageDown),
    (Host::ArrowRight, Guest::Right), (Host::ArrowLeft, Guest::Left), (Host::ArrowDown, Guest::Down), (Host::ArrowUp, Guest::Up),
    (Host::NumLock, Guest::NumLock), (Host::NumpadDivide, Guest::KeypadSlash), (Host::NumpadMultiply, Guest::KeypadAsterisk),
    (Host::NumpadSubtract, Guest::KeypadMinus), (Host::NumpadAdd, Guest::KeypadPlus), (Host::NumpadEnter, Guest::KeypadEnter),
    (Host::Numpad1, Guest::Keypad1), (Host::Numpad2, Guest::Keypad2), (Host::Numpad3, Guest::Keypad3),
    (Host::Numpad4, Guest::Keypad4), (Host::Numpad5, Guest::Keypad5), (Host::Numpad6, Guest::Keypad6),
    (Host::Numpad7, Guest::Keypad7), (Host::Numpad8, Guest::Keypad8), (Host::Numpad9, Guest::Keypad9),
    (Host::Numpad0, Guest::Keypad0), (Host::NumpadDecimal, Guest::KeypadPeriod), (Host::NumpadEqual, Guest::KeypadEqual),
    (Host::NumpadComma, Guest::KeypadComma),
    (Host::IntlBackslash, Guest::IntlBackslash), (Host::ContextMenu, Guest::Menu), (Host::IntlRo, Guest::IntlRo),
    (Host::KanaMode, Guest::KatakanaHiragana), (Host::IntlYen, Guest::IntlYen), (Host::Convert, Guest::Henkan),
    (Host::NonConvert, Guest::Muhenkan), (Host::Lang1, Guest::Lang1), (Host::Lang2, Guest::Lang2),
    (Host::ControlLeft, Guest::LeftControl), (Host::ShiftLeft, Guest::LeftShift), (Host::AltLeft, Guest::LeftAlt),
    (Host::SuperLeft, Guest::LeftSuper), (Host::ShiftRight, Guest::RightShift), (Host::AltRight, Guest::RightAlt),
    (Host::SuperRight, Guest::RightSuper), (Host::ControlRight, Guest::RightControl),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_key_is_there_twice() {
        let (hosts, guests): (HashSet<_>, HashSet<_>) = TABLE.iter().copied().unzip();
        assert_eq!((hosts.len(), guests.len()), (TABLE.len(), TABLE.len()));
        assert_eq!(guest_key(Host::Quote), Some(Guest::Apostrophe));
        assert_eq!(guest_key(Host::LaunchMail), None);
    }
}
