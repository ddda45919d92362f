//! `--display terminal`: the guest's screen in a terminal: characters as Unicode with their colours, pictures as half blocks,
//! keys and mouse to the guest. Ctrl-A is the prefix of what is for Umbra ([`HELP`]).
//!
//! Leaves out: keys that a terminal does not tell apart (their releases, Shift alone), blinking (shown as the terminal does).

use crate::exit_status::Failure;
use crate::inspect::panel::{Panel, PanelKey, View};
use crate::link::{self, Link};
use crate::run::Ended;
use crate::session::Session;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{
    self, DisableMouseCapture, EnableMouseCapture, Event, KeyCode as Key, KeyEvent, KeyEventKind, KeyModifiers,
    MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::crossterm::execute;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use umbra_machine::config::MachineConfig;
use umbra_machine::display::{Frame, Renderer, TextScreen, unicode};
use umbra_machine::typing::{self, Chord};
use umbra_machine::{DisplayHandle, KeyCode, Machine, MouseButtons};

/// What follows Ctrl-A.
const HELP: &str = " Ctrl-A: x end  a Ctrl-A  d Ctrl-Alt-Del  r reset  q power  p hold  - + speed  i look ";
/// How often the screen is looked at.
const TICK: Duration = Duration::from_millis(33);
/// The same while the panel is open and no key is pressed.
const PANEL_TICK: Duration = Duration::from_millis(250);
/// Keys that may wait in the guest's keyboard.
const MOST_WAITING: usize = 64;
/// Dots that the mouse moves for one cell of the terminal.
const CELL: (i32, i32) = (8, 16);

/// Shows the machine in the terminal and runs it to its end.
pub fn execute(machine: Machine, config: &MachineConfig, from: Instant) -> Result<Ended, Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::host("--display terminal needs a terminal for input and output; try --headless"));
    }
    let display = machine.display();
    let (link, runner) = link::start(Session::new(machine, config)?, config, from);
    let shown = show(&display, &link);
    link.end();
    let ended = runner.join();
    shown.map_err(|error| Failure::host(format!("the terminal: {error}; try --headless")))?;
    ended
}

fn show(display: &DisplayHandle, link: &Link) -> std::io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let shown = execute!(std::io::stdout(), EnableMouseCapture).and_then(|()| run(&mut terminal, display, link));
    let freed = execute!(std::io::stdout(), DisableMouseCapture);
    ratatui::try_restore()?;
    shown.and(freed)
}

fn run(terminal: &mut ratatui::DefaultTerminal, display: &DisplayHandle, link: &Link) -> std::io::Result<()> {
    let mut renderer = Renderer::default();
    let mut person = Person::default();
    let mut panel = Panel::default();
    let (mut drawn, mut asked) = (Instant::now(), true);
    while !link.is_over() {
        let text = display.text();
        if text.is_none() {
            display.update(&mut renderer);
        }
        let view = panel.view(link);
        // What lies behind the panel is not worth being drawn thirty times a second.
        if view.is_none() || asked || drawn.elapsed() >= PANEL_TICK {
            (drawn, asked) = (Instant::now(), false);
            terminal.draw(|frame| {
                let area = frame.area();
                person.shown = match &text {
                    Some(text) => (text.columns, text.cells.len() / text.columns.max(1)),
                    None => {
                        let (width, height) = fitted(renderer.frame(), area);
                        (width, height.div_ceil(2))
                    }
                };
                let cursor = match &text {
                    Some(text) => draw_text(text, frame.buffer_mut(), area),
                    None => {
                        draw_picture(renderer.frame(), frame.buffer_mut(), area);
                        None
                    }
                };
                if let Some(view) = &view {
                    draw_panel(view, frame.buffer_mut(), area);
                }
                if person.prefix {
                    frame.buffer_mut().set_string(0, area.bottom().saturating_sub(1), HELP, Style::new().reversed());
                } else if let Some(at) = cursor.filter(|_| view.is_none()) {
                    frame.set_cursor_position(at);
                }
            })?;
        }
        person.type_on(link);
        let mut wait = TICK;
        while event::poll(wait)? {
            wait = Duration::ZERO;
            asked = true;
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if panel.is_open() && !person.prefix && !is_prefix(key) {
                        panel_key(key).into_iter().for_each(|key| panel.key(key, link));
                        continue;
                    }
                    match person.key(key, link) {
                        Asked::End => return Ok(()),
                        Asked::Panel => panel.toggle(link),
                        Asked::Nothing => {}
                    }
                }
                Event::Mouse(mouse) => person.mouse(mouse, link),
                _ => {}
            }
        }
    }
    Ok(())
}

fn drop_count(_waiting: usize) {}

/// Ctrl-A.
fn is_prefix(event: KeyEvent) -> bool {
    event.modifiers.contains(KeyModifiers::CONTROL) && event.code == Key::Char('a')
}

/// What a key means to the panel.
fn panel_key(event: KeyEvent) -> Option<PanelKey> {
    Some(match event.code {
        Key::Esc => PanelKey::Escape,
        Key::Tab => PanelKey::Tab,
        Key::Enter => PanelKey::Enter,
        Key::Backspace => PanelKey::Backspace,
        Key::Char(c) => PanelKey::Char(c),
        _ => return None,
    })
}

/// Draws the panel over the screen, its picture below its lines.
fn draw_panel(view: &View, buffer: &mut Buffer, area: Rect) {
    let width = usize::from(area.width);
    for (y, (line, marked)) in (0..area.height).zip(&view.lines) {
        let style = Style::new().fg(Color::White).bg(if *marked { Color::Blue } else { Color::Black });
        buffer.set_string(0, y, format!("{line:<width$}").chars().take(width).collect::<String>(), style);
    }
    if let Some(picture) = &view.picture {
        let top = (view.lines.len() as u16).min(area.height);
        draw_picture(picture, buffer, Rect { y: area.y + top, height: area.height - top, ..area });
    }
}

/// Draws characters; gives where the cursor is.
fn draw_text(text: &TextScreen, buffer: &mut Buffer, area: Rect) -> Option<Position> {
    let color = |number: u8| rgb(text.colors[usize::from(number & 15)]);
    for (number, cell) in text.cells.iter().enumerate() {
        let (x, y) = ((number % text.columns) as u16, (number / text.columns) as u16);
        let Some(shown) = buffer.cell_mut((x, y)).filter(|_| x < area.width && y < area.height) else { continue };
        let background = if text.blinks { cell.attribute >> 4 & 7 } else { cell.attribute >> 4 };
        shown.set_char(match unicode(cell.code) {
            '\u{a0}' => ' ',
            other => other,
        });
        let style = Style::new().fg(color(cell.attribute)).bg(color(background));
        let blinks = text.blinks && cell.attribute & 0x80 != 0;
        shown.set_style(if blinks { style.add_modifier(Modifier::SLOW_BLINK) } else { style });
    }
    let (x, y) = text.cursor?;
    let at = Position::new(x as u16, y as u16);
    area.contains(at).then_some(at)
}

/// How many half blocks, across and down, a picture takes in an area.
fn fitted(frame: &Frame, area: Rect) -> (usize, usize) {
    let (room_x, room_y) = (usize::from(area.width), 2 * usize::from(area.height));
    let (width, height) = (frame.width.max(1), frame.height.max(1));
    if room_x * height <= room_y * width {
        (room_x, (room_x * height / width).max(1))
    } else {
        ((room_y * width / height).max(1), room_y)
    }
}

/// Draws a picture as half blocks: two pixels, one above the other, in each cell; the proportions are kept.
fn draw_picture(frame: &Frame, buffer: &mut Buffer, area: Rect) {
    if frame.pixels.is_empty() || area.is_empty() {
        return;
    }
    let (width, height) = fitted(frame, area);
    let pixel = |x: usize, y: usize| {
        if y >= height { Color::Reset } else { rgb(average(frame, (x, width), (y, height))) }
    };
    for y in 0..height.div_ceil(2) {
        for x in 0..width {
            if let Some(cell) = buffer.cell_mut((area.x + x as u16, area.y + y as u16)) {
                cell.set_char('▀').set_style(Style::new().fg(pixel(x, 2 * y)).bg(pixel(x, 2 * y + 1)));
            }
        }
    }
}

/// The mean colour of the part of a picture that one of `of` places in each direction shows.
fn average(frame: &Frame, (x, width): (usize, usize), (y, height): (usize, usize)) -> u32 {
    let part = |at: usize, of: usize, size: usize| {
        let first = at * size / of;
        first..((at + 1) * size / of).max(first + 1).min(size)
    };
    let (mut sums, mut count) = ([0_u32; 3], 0);
    for line in part(y, height, frame.height) {
        for &pixel in frame.line(line).get(part(x, width, frame.width)).unwrap_or(&[]) {
            let [_, red, green, blue] = pixel.to_be_bytes();
            for (sum, part) in sums.iter_mut().zip([red, green, blue]) {
                *sum += u32::from(part);
            }
            count += 1;
        }
    }
    sums.into_iter().fold(0, |rgb, sum| (rgb << 8) | (sum / count.max(1)))
}

fn rgb(pixel: u32) -> Color {
    let [_, red, green, blue] = pixel.to_be_bytes();
    Color::Rgb(red, green, blue)
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Panel,
    End,
}

/// The person at the terminal.
#[derive(Debug, Default)]
struct Person {
    /// Ctrl-A was pressed.
    prefix: bool,
    /// Cells, across and down, in which the screen is shown.
    shown: (usize, usize),
    /// Where the mouse was.
    at: Option<(u16, u16)>,
    buttons: u8,
    /// Keys that the guest does not have yet.
    to_type: VecDeque<Chord>,
}

impl Person {
    fn key(&mut self, event: KeyEvent, link: &Link) -> Asked {
        if std::mem::take(&mut self.prefix) {
            match event.code {
                Key::Char('x') => return Asked::End,
                Key::Char('i') => return Asked::Panel,
                Key::Char('a') => drop_count(link.input.press(&[KeyCode::LeftControl, KeyCode::A])),
                Key::Char('d') => {
                    drop_count(link.input.press(&[KeyCode::LeftControl, KeyCode::LeftAlt, KeyCode::Delete]));
                }
                Key::Char('r') => link.reset(),
                Key::Char('q') => link.input.power_button(),
                Key::Char('p') => link.pause(!link.is_paused()),
                Key::Char('-') => link.slower(),
                Key::Char('+' | '=') => link.faster(),
                _ => {}
            }
        } else if is_prefix(event) {
            self.prefix = true;
        } else {
            self.to_type.extend(chord(event));
        }
        Asked::Nothing
    }
    /// Gives the guest what was typed, no faster than it reads: a paste is many keys at once.
    fn type_on(&mut self, link: &Link) {
        while link.input.keys_waiting() < MOST_WAITING
            && let Some(chord) = self.to_type.pop_front()
        {
            link.input.press(&chord);
        }
    }
    fn mouse(&mut self, event: MouseEvent, link: &Link) {
        let bit = |button| match button {
            MouseButton::Left => 1,
            MouseButton::Right => 2,
            MouseButton::Middle => 4,
        };
        let mut wheel = 0;
        match event.kind {
            MouseEventKind::Down(button) => self.buttons |= bit(button),
            MouseEventKind::Up(button) => self.buttons &= !bit(button),
            MouseEventKind::ScrollUp => wheel = -1,
            MouseEventKind::ScrollDown => wheel = 1,
            _ => {}
        }
        if link.input.hears_tablet() {
            // The middle of the cell.
            let part = |at: u16, of: usize| (f64::from(at) + 0.5) / of.max(1) as f64;
            let at = [part(event.column, self.shown.0), part(event.row, self.shown.1)];
            return link.input.tablet(at, wheel, MouseButtons(self.buttons));
        }
        let (x, y) = self.at.replace((event.column, event.row)).unwrap_or((event.column, event.row));
        let by = |now: u16, before: u16, dots: i32| (i32::from(now) - i32::from(before)) * dots;
        let delta = [by(event.column, x, CELL.0), by(event.row, y, CELL.1), wheel];
        link.input.mouse(delta, MouseButtons(self.buttons));
    }
}

/// The guest's keys for what a terminal reports.
fn chord(event: KeyEvent) -> Option<Chord> {
    let function = |number: u8| KeyCode::from_hid(0x39 + number);
    let mut keys = match event.code {
        Key::Char(c) => typing::paste(&c.to_string()).pop()?,
        Key::F(number @ 1..=12) => vec![function(number)?],
        Key::BackTab => vec![KeyCode::LeftShift, KeyCode::Tab],
        code => vec![match code {
            Key::Backspace => KeyCode::Backspace,
            Key::Enter => KeyCode::Enter,
            Key::Left => KeyCode::Left,
            Key::Right => KeyCode::Right,
            Key::Up => KeyCode::Up,
            Key::Down => KeyCode::Down,
            Key::Home => KeyCode::Home,
            Key::End => KeyCode::End,
            Key::PageUp => KeyCode::PageUp,
            Key::PageDown => KeyCode::PageDown,
            Key::Tab => KeyCode::Tab,
            Key::Delete => KeyCode::Delete,
            Key::Insert => KeyCode::Insert,
            Key::Esc => KeyCode::Escape,
            _ => return None,
        }],
    };
    let held = [(KeyModifiers::ALT, KeyCode::LeftAlt), (KeyModifiers::CONTROL, KeyCode::LeftControl)];
    for (modifier, key) in held {
        if event.modifiers.contains(modifier) {
            keys.insert(0, key);
        }
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_terminal_are_keys_of_the_guest() {
        #[rustfmt::skip]
        let cases = [
            (Key::Char('a'), KeyModifiers::NONE, vec![KeyCode::A]), (Key::Char('A'), KeyModifiers::SHIFT, vec![KeyCode::LeftShift, KeyCode::A]),
            (Key::Char('c'), KeyModifiers::CONTROL, vec![KeyCode::LeftControl, KeyCode::C]), (Key::F(12), KeyModifiers::NONE, vec![KeyCode::F12]),
            (Key::F(1), KeyModifiers::ALT, vec![KeyCode::LeftAlt, KeyCode::F1]), (Key::Up, KeyModifiers::NONE, vec![KeyCode::Up]),
        ];
        for (code, modifiers, expected) in cases {
            assert_eq!(chord(KeyEvent::new(code, modifiers)), Some(expected), "{code:?}");
        }
    }

    #[test]
    fn pictures_and_texts_fill_cells() {
        let area = Rect::new(0, 0, 4, 2);
        let mut buffer = Buffer::empty(area);
        let frame = Frame { width: 2, height: 2, pixels: vec![0xFF_0000, 0, 0, 0xFF] };
        draw_picture(&frame, &mut buffer, area);
        assert_eq!((buffer[(0, 0)].fg, buffer[(0, 0)].bg), (Color::Rgb(255, 0, 0), Color::Rgb(255, 0, 0)));
        assert_eq!((buffer[(3, 1)].symbol(), buffer[(3, 1)].bg), ("▀", Color::Rgb(0, 0, 255)));
        let mut colors = [0; 16];
        colors[7] = 0xAA_AAAA;
        let cells = vec![umbra_machine::display::TextCell { code: 0xC4, attribute: 0x87 }; 6];
        let text = TextScreen { columns: 3, cells, cursor: Some((2, 1)), blinks: true, colors };
        assert_eq!(draw_text(&text, &mut buffer, area), Some(Position::new(2, 1)));
        assert_eq!((buffer[(2, 1)].symbol(), buffer[(2, 1)].fg), ("─", Color::Rgb(0xAA, 0xAA, 0xAA)));
        assert!(buffer[(0, 0)].modifier.contains(Modifier::SLOW_BLINK));
    }
}
