//! Text and a picture drawn over the guest's: what the application has to show of the machine. What it is is the application's
//! business; which keys it takes are [`PanelKey`]'s.

use crate::menu::{CELL, CHOSEN_PAPER, INK, PAPER, draw_line};
use umbra_machine::display::Frame;
use winit::keyboard::KeyCode;

/// What is drawn.
#[derive(Clone, Debug, Default)]
pub struct PanelView {
    /// Lines of text, and whether they are marked.
    pub lines: Vec<(String, bool)>,
    /// A picture below them.
    pub picture: Option<Frame>,
}

/// A key for the panel.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PanelKey {
    /// A character.
    Char(char),
    /// Takes the last character back.
    Backspace,
    /// What was typed is complete.
    Enter,
    /// The next page.
    Tab,
    /// Closes it.
    Escape,
}

/// What a key with its text means to the panel.
pub(crate) fn key(code: KeyCode, text: Option<&str>) -> Option<PanelKey> {
    Some(match code {
        KeyCode::Escape => PanelKey::Escape,
        KeyCode::Tab => PanelKey::Tab,
        KeyCode::Enter | KeyCode::NumpadEnter => PanelKey::Enter,
        KeyCode::Backspace => PanelKey::Backspace,
        _ => PanelKey::Char(text?.chars().next().filter(|c| !c.is_control())?),
    })
}

/// Draws it over a picture of a size, from the upper left corner on.
pub(crate) fn draw(view: &PanelView, (window, pixels): ((usize, usize), &mut [u32])) {
    for (number, (line, marked)) in view.lines.iter().enumerate() {
        let colors = (if *marked { CHOSEN_PAPER } else { PAPER }, INK);
        draw_line(line, colors, (0, number * CELL.1), (80, 1), (window, pixels));
    }
    let Some(picture) = view.picture.as_ref().filter(|picture| picture.width > 0) else { return };
    let top = view.lines.len() * CELL.1;
    let room = window.1.saturating_sub(top);
    // Whole pixels where all of it fits, else every so many-th line.
    let scale = (window.0 / picture.width).min(room / picture.height.max(1)).clamp(1, 3);
    let skip = (picture.height * scale).div_ceil(room.max(1)).max(1);
    for y in 0..(picture.height * scale / skip).min(room) {
        let line = picture.line(y * skip / scale);
        let start = (top + y) * window.0;
        let Some(to) = pixels.get_mut(start..start + (picture.width * scale).min(window.0)) else { return };
        to.iter_mut().enumerate().for_each(|(x, to)| *to = line.get(x / scale).copied().unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_drawn_in_windows_of_any_size() {
        let picture = Frame { width: 2, height: 40, pixels: vec![0xFF_0000; 80] };
        let view =
            PanelView { lines: vec![("a–b".to_owned(), true), (String::new(), false)], picture: Some(picture) };
        for size in [(0, 0), (1, 1), (3, 33), (640, 40), (720, 400)] {
            let mut pixels = vec![1; size.0 * size.1];
            draw(&view, (size, &mut pixels));
            assert_eq!(pixels.contains(&0xFF_0000), size.1 > 2 * CELL.1, "{size:?}");
        }
    }

    #[test]
    fn keys() {
        assert_eq!(key(KeyCode::KeyA, Some("a")), Some(PanelKey::Char('a')));
        assert_eq!(key(KeyCode::Tab, Some("\t")), Some(PanelKey::Tab));
        assert_eq!(key(KeyCode::ShiftLeft, None), None);
    }
}
