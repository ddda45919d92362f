//! The menu: what a person can ask of the machine, by a hot key or from a list that is drawn over the picture with Umbra's own
//! font; and the line in which the path of an image is typed. No window system here but its names of keys.

use umbra_machine::roms::FONT_8X16;
use winit::keyboard::KeyCode;

/// What a person can ask for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hold the guest, or let it go on.
    Pause,
    /// Less guest time in the host's.
    Slower,
    /// More.
    Faster,
    /// Reset.
    Reset,
    /// Press the power button.
    PowerButton,
    /// Press Ctrl, Alt and Delete.
    CtrlAltDelete,
    /// Ask for another image.
    Insert,
    /// Take the media out of the drives.
    Eject,
    /// Save the picture.
    Screenshot,
    /// Type the clipboard.
    Paste,
    /// Sharp or smooth.
    Scaling,
    /// Full screen or not.
    FullScreen,
    /// The pointer becomes the guest's, or the host's again.
    Mouse,
    /// Open or close the inspector's panel.
    Inspector,
    /// Open or close the menu.
    Menu,
    /// Put this into its drive.
    InsertPath,
}

/// A key that is pressed with the right Ctrl key, its name, and what it does.
type Item = (KeyCode, &'static str, Action, &'static str);

#[rustfmt::skip]
const ITEMS: &[Item] = &[
    (KeyCode::KeyP,   "P",      Action::Pause,         "hold the guest, or let it go on"),
    (KeyCode::Minus,  "-",      Action::Slower,        "slower"),
    (KeyCode::Equal,  "=",      Action::Faster,        "faster"),
    (KeyCode::KeyR,   "R",      Action::Reset,         "reset"),
    (KeyCode::KeyQ,   "Q",      Action::PowerButton,   "press the power button"),
    (KeyCode::Delete, "Delete", Action::CtrlAltDelete, "press Ctrl-Alt-Delete"),
    (KeyCode::KeyO,   "O",      Action::Insert,        "another CD or floppy (or drop an image here)"),
    (KeyCode::KeyE,   "E",      Action::Eject,         "take CD and floppy out"),
    (KeyCode::KeyS,   "S",      Action::Screenshot,    "save the picture (PNG)"),
    (KeyCode::KeyV,   "V",      Action::Paste,         "type the clipboard's text"),
    (KeyCode::KeyI,   "I",      Action::Scaling,       "sharp or smooth picture"),
    (KeyCode::KeyF,   "F",      Action::FullScreen,    "full screen"),
    (KeyCode::KeyM,   "M",      Action::Mouse,         "capture or free the mouse (also Ctrl+Alt+G)"),
    (KeyCode::KeyU,   "U",      Action::Inspector,     "look inside: page tables, faults, memory"),
    (KeyCode::KeyH,   "H",      Action::Menu,          "this menu (also a right click)"),
];

const TITLE: &str = "With the right Ctrl key held:";
const PROMPT: &str = "Image for CD or floppy drive (Enter, Esc):";

/// Width and height of a character.
pub(crate) const CELL: (usize, usize) = (8, 16);
/// Characters that the panel is wide.
const COLUMNS: usize = 60;
/// Colours: paper, ink, and both for the row that is chosen.
pub(crate) const PAPER: u32 = 0x20_2028;
pub(crate) const INK: u32 = 0xE0_E0E0;
pub(crate) const CHOSEN_PAPER: u32 = 0x40_60A0;
const CHOSEN_INK: u32 = 0xFF_FFFF;

/// What a hot key does.
pub fn action_of(key: KeyCode) -> Option<Action> {
    ITEMS.iter().find(|(code, ..)| *code == key).map(|&(_, _, action, _)| action)
}

/// The menu.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Menu {
    /// It is not there.
    #[default]
    Closed,
    /// The list, with a row chosen.
    List(usize),
    /// A path that is being typed.
    Path(String),
}

impl Menu {
    /// Whether it takes the keys.
    pub fn is_open(&self) -> bool {
        *self != Menu::Closed
    }
    /// Opens the list, or closes what is open.
    pub fn toggle(&mut self) {
        *self = if self.is_open() { Menu::Closed } else { Menu::List(0) };
    }
    /// A key is pressed, with the text that it gives; tells what is asked for.
    pub fn key(&mut self, key: KeyCode, text: Option<&str>) -> Option<Action> {
        if key == KeyCode::Escape {
            *self = Menu::Closed;
            return None;
        }
        match self {
            Menu::Closed => None,
            Menu::List(row) => {
                let row = match key {
                    KeyCode::ArrowUp => (*row + ITEMS.len() - 1) % ITEMS.len(),
                    KeyCode::ArrowDown => (*row + 1) % ITEMS.len(),
                    KeyCode::Enter | KeyCode::NumpadEnter => *row,
                    _ => ITEMS.iter().position(|(code, ..)| *code == key)?,
                };
                *self = Menu::List(row);
                if matches!(key, KeyCode::ArrowUp | KeyCode::ArrowDown) { None } else { self.take() }
            }
            Menu::Path(path) => {
                match key {
                    KeyCode::Enter | KeyCode::NumpadEnter => return Some(Action::InsertPath),
                    KeyCode::Backspace => drop(path.pop()),
                    _ => path.extend(text.into_iter().flat_map(str::chars).filter(|c| !c.is_control())),
                }
                None
            }
        }
    }
    /// The chosen row is taken; speed can be changed several times.
    fn take(&mut self) -> Option<Action> {
        let Menu::List(row) = self else { return None };
        let action = ITEMS.get(*row)?.2;
        if !matches!(action, Action::Slower | Action::Faster) {
            *self = Menu::Closed;
        }
        (action != Action::Menu).then_some(action)
    }
    /// The pointer is at a place of a window; tells whether another row is chosen now.
    pub fn point(&mut self, at: (f64, f64), window: (usize, usize), scale: usize) -> bool {
        let before = self.clone();
        if let (Menu::List(_), Some(row)) = (&*self, row_at(at, window, scale)) {
            *self = Menu::List(row);
        }
        *self != before
    }
    /// A click at a place; tells what is asked for. One beside the list closes it.
    pub fn click(&mut self, at: (f64, f64), window: (usize, usize), scale: usize) -> Option<Action> {
        match (&*self, row_at(at, window, scale)) {
            (Menu::List(_), Some(row)) => {
                *self = Menu::List(row);
                self.take()
            }
            _ => {
                *self = Menu::Closed;
                None
            }
        }
    }
    fn lines(&self) -> Vec<String> {
        match self {
            Menu::Closed => Vec::new(),
            Menu::List(_) => {
                let items = ITEMS.iter().map(|(_, name, _, label)| format!("{name:<7} {label}"));
                std::iter::once(TITLE.to_owned()).chain(items).collect()
            }
            Menu::Path(path) => {
                let room = COLUMNS - 4;
                let tail: Vec<char> = path.chars().rev().take(room).collect();
                vec![PROMPT.to_owned(), tail.into_iter().rev().chain(['_']).collect()]
            }
        }
    }
    /// Draws it over a picture of a size.
    pub fn draw(&self, (window, pixels): ((usize, usize), &mut [u32]), scale: usize) {
        let lines = self.lines();
        let scale = fitting(scale, window, lines.len());
        let (left, top) = corner(window, scale, lines.len());
        let chosen = if let Menu::List(row) = self { Some(row + 1) } else { None };
        for (number, line) in lines.iter().enumerate() {
            let (paper, ink) = if Some(number) == chosen { (CHOSEN_PAPER, CHOSEN_INK) } else { (PAPER, INK) };
            let at = (left, top + number * CELL.1 * scale);
            draw_line(line, (paper, ink), at, (COLUMNS, scale), (window, pixels));
        }
    }
}

/// Draws a line of text, `columns` wide, in a paper and an ink: a column of paper, then the characters.
pub(crate) fn draw_line(
    line: &str,
    (paper, ink): (u32, u32),
    (left, top): (usize, usize),
    (columns, scale): (usize, usize),
    (window, pixels): ((usize, usize), &mut [u32]),
) {
    let plain = |c| match c {
        '–' | '—' => b'-',
        '←' => b'<',
        c if c.is_ascii() => c as u8,
        _ => b'?',
    };
    let codes: Vec<u8> = line.chars().map(plain).collect();
    for y in 0..CELL.1 * scale {
        let start = (top + y) * window.0 + left;
        let room = (columns * CELL.0 * scale).min(window.0.saturating_sub(left));
        let Some(to) = pixels.get_mut(start..start + room) else { continue };
        for (x, to) in to.iter_mut().enumerate() {
            let (column, dot) = (x / scale / CELL.0, x / scale % CELL.0);
            // A column of paper at the left edge.
            let code = column.checked_sub(1).and_then(|at| codes.get(at)).copied().unwrap_or(b' ');
            let row = FONT_8X16[usize::from(code) * CELL.1 + y / scale];
            *to = if row >> (7 - dot) & 1 != 0 { ink } else { paper };
        }
    }
}

/// The row of the list at a place of a window.
fn row_at(at: (f64, f64), window: (usize, usize), scale: usize) -> Option<usize> {
    let lines = ITEMS.len() + 1;
    let scale = fitting(scale, window, lines);
    let (left, top) = corner(window, scale, lines);
    let (x, y) = ((at.0.max(0.0) as usize).checked_sub(left)?, (at.1.max(0.0) as usize).checked_sub(top)?);
    let row = (y / (CELL.1 * scale)).checked_sub(1)?;
    (x < COLUMNS * CELL.0 * scale && row < ITEMS.len()).then_some(row)
}

/// The largest scale up to the wanted one at which so many lines fit.
fn fitting(scale: usize, window: (usize, usize), lines: usize) -> usize {
    let most = (window.0 / (COLUMNS * CELL.0)).min(window.1 / (lines.max(1) * CELL.1));
    scale.min(most).max(1)
}

fn corner(window: (usize, usize), scale: usize, lines: usize) -> (usize, usize) {
    let middle = |whole: usize, part: usize| whole.saturating_sub(part * scale) / 2;
    (middle(window.0, COLUMNS * CELL.0), middle(window.1, lines * CELL.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_choose_and_take() {
        let mut menu = Menu::default();
        assert_eq!((menu.key(KeyCode::KeyR, None), action_of(KeyCode::KeyR)), (None, Some(Action::Reset)));
        menu.toggle();
        assert_eq!(menu.key(KeyCode::KeyR, None), Some(Action::Reset));
        assert!(!menu.is_open());
        menu.toggle();
        assert_eq!((menu.key(KeyCode::ArrowUp, None), menu.key(KeyCode::ArrowUp, None)), (None, None));
        assert_eq!(menu.key(KeyCode::Enter, None), Some(Action::Inspector));
        menu.toggle();
        assert_eq!((menu.key(KeyCode::Minus, None), menu.is_open()), (Some(Action::Slower), true), "and once more");
        assert_eq!((menu.key(KeyCode::Escape, None), menu.is_open()), (None, false));
        menu = Menu::Path(String::new());
        for text in ["/", "a", "é", "\u{8}", "b"] {
            assert_eq!(menu.key(KeyCode::KeyA, Some(text)), None);
        }
        menu.key(KeyCode::Backspace, Some("\u{8}"));
        assert_eq!(
            (menu.key(KeyCode::Enter, Some("\r")), &menu),
            (Some(Action::InsertPath), &Menu::Path("/aé".into()))
        );
    }

    #[test]
    fn rows_are_where_they_are_drawn() {
        for (window, scale) in [((720, 400), 1), ((1440, 800), 2), ((640, 300), 3), ((100, 50), 1), ((1, 1), 1)] {
            let mut menu = Menu::List(0);
            for row in 0..ITEMS.len() {
                menu = Menu::List(row);
                let mut pixels = vec![0; window.0 * window.1];
                menu.draw((window, &mut pixels), scale);
                let Some(place) = pixels.iter().position(|&pixel| pixel == CHOSEN_PAPER) else { continue };
                let at = ((place % window.0) as f64, (place / window.0) as f64);
                assert!(!menu.point(at, window, scale), "{window:?} {row}");
            }
            assert_eq!(menu.click((0.0, -1.0), window, scale), None);
        }
        let mut menu = Menu::List(3);
        assert!(menu.point((360.0, 200.0), (720, 400), 1));
        assert!(menu.click((360.0, 200.0), (720, 400), 1).is_some());
    }
}
