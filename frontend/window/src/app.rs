//! The event loop: looks at the screen, draws what changed, gives keys and mouse to the guest, does what hot keys ask.
//!
//! Hot keys are pressed with the right Ctrl key held ([`crate::menu`] has their list); pressed and released alone, that key is
//! the guest's as any other.

use crate::canvas::{self, Canvas};
use crate::keyboard::guest_key;
use crate::menu::{Action, Menu, action_of};
use crate::mouse::Mouse;
use crate::presenter::{Backend, Picture, Presenter, open};
use crate::{Command, Guest, Options, PanelView, Status, WindowError, panel};
use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use umbra_machine::display::{Change, Renderer};
use umbra_machine::typing::{self, Chord};
use umbra_machine::{KeyCode, Stroke};
use winit::application::ApplicationHandler;
use winit::dpi::PhysicalSize;
use winit::event::{DeviceEvent, DeviceId, ElementState, KeyEvent, MouseButton, WindowEvent};
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop};
use winit::keyboard::{KeyCode as Host, PhysicalKey};
use winit::window::{Fullscreen, Window, WindowId};

/// How often the screen is looked at.
const TICK: Duration = Duration::from_nanos(1_000_000_000 / 60);
/// How often the title changes.
const TITLE_TICK: Duration = Duration::from_secs(1);
/// How often the panel changes.
const PANEL_TICK: Duration = Duration::from_millis(250);
/// How long the title shows a message.
const MESSAGE_TIME: Duration = Duration::from_secs(5);

/// Shows a guest until it is over, or an error.
pub fn run(events: EventLoop<()>, guest: Guest, options: Options) -> Result<(), WindowError> {
    let mut app = App::new(guest, options);
    events.run_app(&mut app).map_err(|error| WindowError::NoDisplay(error.to_string()))?;
    app.failed.map_or(Ok(()), Err)
}

struct App {
    guest: Guest,
    options: Options,
    renderer: Renderer,
    /// The picture's lines that changed since they were drawn.
    changed: Range<usize>,
    window: Option<(Arc<Window>, Box<dyn Presenter>)>,
    canvas: Canvas,
    menu: Menu,
    /// What the application's panel shows, while it is open.
    panel: Option<PanelView>,
    mouse: Mouse,
    /// The guest listens to its tablet.
    hears_tablet: bool,
    /// The guest's keys that are down.
    down: HashSet<KeyCode>,
    /// The right Ctrl key is down, and whether it was used for a hot key.
    host_key: Option<bool>,
    /// What is still to be typed.
    to_type: VecDeque<Chord>,
    /// The window has the size that was asked for, not one that a person gave it.
    follows_mode: bool,
    asked: PhysicalSize<u32>,
    hidden: bool,
    message: Option<(String, Instant)>,
    next_look: Instant,
    next_title: Instant,
    next_panel: Instant,
    over_since: Option<Instant>,
    rate: Rate,
    failed: Option<WindowError>,
}

/// Measures instructions a second.
struct Rate {
    at: Instant,
    retired: u64,
    mips: u64,
}

impl Rate {
    fn update(&mut self, retired: u64) {
        let seconds = self.at.elapsed().as_secs_f64();
        if seconds >= TITLE_TICK.as_secs_f64() / 2.0 {
            self.mips = (retired.saturating_sub(self.retired) as f64 / seconds / 1e6).round() as u64;
            (self.at, self.retired) = (Instant::now(), retired);
        }
    }
}

impl App {
    fn new(guest: Guest, options: Options) -> App {
        let now = Instant::now();
        App {
            guest,
            options,
            renderer: Renderer::default(),
            changed: 0..0,
            window: None,
            canvas: Canvas::default(),
            menu: Menu::default(),
            panel: None,
            mouse: Mouse::new(),
            hears_tablet: false,
            down: HashSet::new(),
            host_key: None,
            to_type: VecDeque::new(),
            follows_mode: true,
            asked: PhysicalSize::default(),
            hidden: false,
            message: None,
            next_look: now,
            next_title: now,
            next_panel: now,
            over_since: None,
            rate: Rate { at: now, retired: 0, mips: 0 },
            failed: None,
        }
    }
    fn open(&mut self, events: &ActiveEventLoop) -> Result<(), WindowError> {
        self.guest.display.update(&mut self.renderer);
        let monitor = events.primary_monitor().or_else(|| events.available_monitors().next());
        self.asked = self.wanted_size(monitor.map_or(1.0, |monitor| monitor.scale_factor()));
        let full = self.options.full_screen.then_some(Fullscreen::Borderless(None));
        let attributes =
            Window::default_attributes().with_title("Umbra").with_inner_size(self.asked).with_fullscreen(full);
        let window = events.create_window(attributes).map_err(|error| WindowError::NoDisplay(error.to_string()))?;
        let window = Arc::new(window);
        let presenter = open(&window, self.options.backend)?;
        tracing::info!(target: "window", "drawing with {}", presenter.name());
        window.request_redraw();
        self.window = Some((window, presenter));
        Ok(())
    }
    /// The picture's size in whole pixels of a screen: twice as large where the desktop draws everything twice as large.
    fn wanted_size(&self, scale_factor: f64) -> PhysicalSize<u32> {
        let frame = self.renderer.frame();
        let factor = scale_factor.round().max(1.0) as u32;
        PhysicalSize::new(frame.width.max(320) as u32 * factor, frame.height.max(200) as u32 * factor)
    }

    /// Looks whether the screen changed.
    fn look(&mut self) {
        let lines = match self.guest.display.update(&mut self.renderer) {
            Change::None => return,
            Change::Lines(lines) => lines,
            Change::Size => {
                self.follow_mode();
                0..self.renderer.frame().height
            }
        };
        self.changed = match self.changed.is_empty() {
            true => lines,
            false => self.changed.start.min(lines.start)..self.changed.end.max(lines.end),
        };
        if !self.hidden {
            self.redraw();
        }
    }
    /// The window takes the mode's size, unless a person has chosen its size.
    fn follow_mode(&mut self) {
        let Some((window, _)) = &self.window else { return };
        if !self.follows_mode || window.fullscreen().is_some() || window.is_maximized() {
            return;
        }
        let size = self.wanted_size(window.scale_factor());
        self.asked = size;
        let _ = window.request_inner_size(size);
    }
    fn draw(&mut self) -> Result<(), WindowError> {
        let Some((window, presenter)) = &mut self.window else { return Ok(()) };
        let PhysicalSize { width, height } = window.inner_size();
        if width == 0 || height == 0 {
            return Ok(());
        }
        let size = (width as usize, height as usize);
        let changed = std::mem::replace(&mut self.changed, 0..0);
        let mut rows = self.canvas.draw(self.renderer.frame(), size, self.options.scaling, changed);
        if let Some(view) = &self.panel {
            panel::draw(view, self.canvas.overlay());
            rows = 0..size.1;
        }
        if self.menu.is_open() {
            self.menu.draw(self.canvas.overlay(), window.scale_factor().round().max(1.0) as usize);
            rows = 0..size.1;
        }
        window.pre_present_notify();
        let picture = Picture { size: (width, height), pixels: self.canvas.pixels() };
        let Err(problem) = presenter.present(picture, rows) else { return Ok(()) };
        if self.options.backend != Backend::Auto {
            return Err(WindowError::NoAdapter(problem));
        }
        // The adapter is gone, perhaps: software always draws.
        tracing::warn!(target: "window", "{}: {problem}: drawing in software from now on", presenter.name());
        let window = window.clone();
        self.options.backend = Backend::Software;
        self.window = None;
        let presenter = open(&window, Backend::Software)?;
        window.request_redraw();
        self.window = Some((window, presenter));
        Ok(())
    }
    fn title(&mut self) {
        let status = self.guest.control.status();
        self.rate.update(status.retired);
        let Some((window, _)) = &self.window else { return };
        if let Some((message, _)) = self.message.as_ref().filter(|(_, until)| Instant::now() < *until) {
            return window.set_title(&format!("Umbra: {message}"));
        }
        let frame = self.renderer.frame();
        let state = match status {
            Status { over: true, .. } => "off, any key closes".to_owned(),
            Status { paused: true, .. } => "paused".to_owned(),
            Status { speed: 100, .. } => "running".to_owned(),
            Status { speed, .. } => format!("running at {speed} %"),
        };
        let mouse = if self.mouse.is_captured() {
            "right Ctrl+M or Ctrl+Alt+G frees the mouse"
        } else if self.mouse.is_followed() {
            "the guest follows the pointer, right Ctrl+H: menu"
        } else {
            "right click or right Ctrl+H: menu"
        };
        let mips = self.rate.mips;
        window.set_title(&format!("Umbra: {state}, {} × {}, {mips} MIPS – {mouse}", frame.width, frame.height));
    }
    /// Tells a person something.
    fn say(&mut self, message: String) {
        eprintln!("umbra: {message}");
        self.message = Instant::now().checked_add(MESSAGE_TIME).map(|until| (message, until));
        self.title();
    }

    fn key(&mut self, event: &KeyEvent) {
        let PhysicalKey::Code(code) = event.physical_key else { return };
        let is_down = event.state == ElementState::Pressed;
        tracing::debug!(target: "window", "{code:?} {:?}{}", event.state, if event.repeat { " again" } else { "" });
        if code == Host::ControlRight {
            match (is_down, self.host_key.take()) {
                (true, used) => self.host_key = Some(used.unwrap_or(false)),
                (false, Some(false)) => drop_count(self.guest.input.press(&[KeyCode::RightControl])),
                (false, _) => {}
            }
            return;
        }
        let key = guest_key(code);
        if !is_down {
            if let Some(key) = key.filter(|key| self.down.remove(key)) {
                self.guest.input.key(key, Stroke::Up);
            }
            return;
        }
        if let Some(used) = &mut self.host_key {
            *used = true;
            if let Some(action) = action_of(code).filter(|_| !event.repeat) {
                self.perform(action);
            }
        } else if self.menu.is_open() {
            let action = self.menu.key(code, event.text.as_deref());
            self.redraw();
            if let Some(action) = action {
                self.perform(action);
            }
        } else if self.panel.is_some() {
            if let Some(key) = panel::key(code, event.text.as_deref()) {
                self.guest.control.panel_key(key);
                self.look_at_panel();
            }
        } else if code == Host::KeyG
            && [KeyCode::LeftControl, KeyCode::LeftAlt].iter().all(|key| self.down.contains(key))
        {
            self.perform(Action::Mouse);
        } else if let Some(key) = key {
            let stroke = if self.down.insert(key) { Stroke::DownAlone } else { Stroke::Again };
            self.guest.input.key(key, stroke);
        }
    }
    fn perform(&mut self, action: Action) {
        match action {
            Action::Pause => {
                let paused = self.guest.control.status().paused;
                self.command(Command::Pause(!paused));
            }
            Action::Slower => self.command(Command::Slower),
            Action::Faster => self.command(Command::Faster),
            Action::Reset => self.command(Command::Reset),
            Action::PowerButton => self.command(Command::PowerButton),
            Action::CtrlAltDelete => {
                self.guest.input.press(&[KeyCode::LeftControl, KeyCode::LeftAlt, KeyCode::Delete]);
            }
            Action::Insert => {
                self.release_mouse();
                self.menu = Menu::Path(String::new());
            }
            Action::InsertPath => {
                if let Menu::Path(path) = std::mem::take(&mut self.menu)
                    && !path.is_empty()
                {
                    self.command(Command::Insert(PathBuf::from(path)));
                }
            }
            Action::Eject => self.command(Command::Eject),
            Action::Screenshot => self.command(Command::Screenshot),
            Action::Paste => match arboard::Clipboard::new().and_then(|mut clipboard| clipboard.get_text()) {
                Ok(text) => match &mut self.menu {
                    Menu::Path(path) => path.extend(text.trim().chars().filter(|c| !c.is_control())),
                    _ => self.to_type.extend(typing::paste(&text)),
                },
                Err(error) => self.say(format!("the clipboard has no text ({error}); try to copy some first")),
            },
            Action::Scaling => self.options.scaling = self.options.scaling.other(),
            Action::FullScreen => {
                if let Some((window, _)) = &self.window {
                    let full = window.fullscreen().is_none().then_some(Fullscreen::Borderless(None));
                    window.set_fullscreen(full);
                }
            }
            Action::Mouse if self.mouse.is_captured() => self.release_mouse(),
            Action::Mouse => self.capture_mouse(),
            Action::Inspector => {
                self.command(Command::Panel);
                self.look_at_panel();
            }
            Action::Menu => {
                self.release_mouse();
                self.menu.toggle();
            }
        }
        self.follow_pointer();
        self.title();
        self.redraw();
    }
    fn look_at_panel(&mut self) {
        let was_open = self.panel.is_some();
        self.panel = self.guest.control.panel();
        if self.panel.is_some() || was_open {
            self.redraw();
        }
    }
    fn command(&mut self, command: Command) {
        match self.guest.control.command(command) {
            Ok(Some(text)) | Err(text) => self.say(text),
            Ok(None) => {}
        }
    }
    fn redraw(&self) {
        if let Some((window, _)) = &self.window {
            window.request_redraw();
        }
    }
    /// The guest's pointer follows the host's where the guest has a driver for its tablet; over the menu it does not.
    fn follow_pointer(&mut self) {
        let hears = self.guest.input.hears_tablet();
        if hears && !self.hears_tablet && self.mouse.is_captured() {
            self.release_mouse();
        }
        self.hears_tablet = hears;
        let Some((window, _)) = &self.window else { return };
        if self.mouse.follow(window, hears && !self.menu.is_open()) {
            self.title();
        }
    }
    /// Tells the guest what the mouse did, `[x, y, wheel]`, and which buttons are down now.
    fn tell_mouse(&self, moved: [i32; 3]) {
        let buttons = self.mouse.buttons();
        let Some((window, _)) = self.window.as_ref().filter(|_| self.mouse.is_followed()) else {
            return self.guest.input.mouse(moved, buttons);
        };
        let (frame, (size, _), at) = (self.renderer.frame(), measures(window), self.mouse.at());
        let part = canvas::place((frame.width, frame.height), size, self.options.scaling).part(at.x, at.y);
        self.guest.input.tablet(part, moved[2], buttons);
    }
    fn capture_mouse(&mut self) {
        if let Some((window, _)) = &self.window {
            self.mouse.capture(window);
        }
        self.title();
    }
    fn release_mouse(&mut self) {
        // Where it went, with the buttons up.
        self.mouse.raise_buttons();
        self.tell_mouse([0; 3]);
        if let Some((window, _)) = &self.window {
            self.mouse.release(window);
        }
        self.title();
    }
    fn mouse_button(&mut self, button: MouseButton, state: ElementState) {
        let Some((window, _)) = &self.window else { return };
        if self.mouse.is_captured() || self.mouse.is_followed() {
            if self.mouse.button(button, state) {
                self.tell_mouse([0; 3]);
            }
            return;
        }
        if state != ElementState::Pressed {
            return;
        }
        let (at, (size, scale)) = (self.mouse.at(), measures(window));
        if self.menu.is_open() {
            let action = self.menu.click((at.x, at.y), size, scale);
            self.redraw();
            if let Some(action) = action {
                self.perform(action);
            }
        } else if button == MouseButton::Right {
            self.menu.toggle();
            self.redraw();
        } else {
            // The click that captures is not the guest's.
            self.capture_mouse();
        }
    }
    /// The window is no longer in front: no key and no button stays down.
    fn lost_focus(&mut self) {
        for key in std::mem::take(&mut self.down) {
            self.guest.input.key(key, Stroke::Up);
        }
        self.host_key = None;
        if self.mouse.is_captured() || self.mouse.is_followed() {
            self.release_mouse();
        }
    }
    /// Types on, no faster than the guest reads.
    fn type_on(&mut self) {
        if self.guest.input.keys_waiting() == 0
            && let Some(chord) = self.to_type.pop_front()
        {
            self.guest.input.press(&chord);
        }
    }
    /// A person did something after the end.
    fn closes(&self) -> bool {
        self.over_since.is_some() && !self.menu.is_open()
    }
    fn fail(&mut self, events: &ActiveEventLoop, error: WindowError) {
        self.failed = Some(error);
        events.exit();
    }
}

/// How many keys wait is of no interest.
fn drop_count(_waiting: usize) {}

/// A window's size, and how many of its pixels are one on a screen of usual density.
fn measures(window: &Window) -> ((usize, usize), usize) {
    let size = window.inner_size();
    ((size.width as usize, size.height as usize), window.scale_factor().round().max(1.0) as usize)
}

impl ApplicationHandler for App {
    fn resumed(&mut self, events: &ActiveEventLoop) {
        if self.window.is_none()
            && let Err(error) = self.open(events)
        {
            self.fail(events, error);
        }
    }

    fn window_event(&mut self, events: &ActiveEventLoop, _id: WindowId, event: WindowEvent) {
        match event {
            WindowEvent::CloseRequested => {
                self.command(Command::End);
                events.exit();
            }
            WindowEvent::RedrawRequested => {
                if let Err(error) = self.draw() {
                    self.fail(events, error);
                }
            }
            WindowEvent::Resized(size) => {
                self.follows_mode = size == self.asked;
                self.redraw();
            }
            WindowEvent::ScaleFactorChanged { scale_factor, mut inner_size_writer } if self.follows_mode => {
                self.asked = self.wanted_size(scale_factor);
                let _ = inner_size_writer.request_inner_size(self.asked);
            }
            WindowEvent::Occluded(hidden) => {
                self.hidden = hidden;
                self.redraw();
            }
            WindowEvent::KeyboardInput { event, is_synthetic: false, .. } => {
                if self.closes() && event.state == ElementState::Pressed {
                    return events.exit();
                }
                self.key(&event);
            }
            WindowEvent::Focused(false) => self.lost_focus(),
            WindowEvent::CursorMoved { position, .. } => {
                let Some((window, _)) = &self.window else { return };
                match self.mouse.moved_to(window, position) {
                    Some(moved) => self.tell_mouse(moved),
                    None if self.mouse.is_followed() => self.tell_mouse([0; 3]),
                    None => {}
                }
                let (size, scale) = measures(window);
                if self.menu.is_open() && self.menu.point((position.x, position.y), size, scale) {
                    self.redraw();
                }
            }
            WindowEvent::MouseWheel { delta, .. } => {
                if let Some(moved) = self.mouse.wheel(delta) {
                    self.tell_mouse(moved);
                }
            }
            WindowEvent::MouseInput { state, button, .. } => {
                if self.closes() && state == ElementState::Pressed {
                    return events.exit();
                }
                self.mouse_button(button, state);
            }
            WindowEvent::DroppedFile(path) => self.command(Command::Insert(path)),
            _ => {}
        }
    }

    fn device_event(&mut self, _events: &ActiveEventLoop, _id: DeviceId, event: DeviceEvent) {
        if let DeviceEvent::MouseMotion { delta } = event
            && let Some(moved) = self.mouse.moved_by(delta)
        {
            self.tell_mouse(moved);
        }
    }

    fn about_to_wait(&mut self, events: &ActiveEventLoop) {
        let now = Instant::now();
        if now >= self.next_look {
            // Over before the look, so that the last picture is shown.
            let over = self.guest.control.status().over;
            self.look();
            self.follow_pointer();
            self.type_on();
            self.next_look = now + TICK;
            if over {
                if self.over_since.is_none() {
                    self.next_title = now;
                }
                if now.duration_since(*self.over_since.get_or_insert(now)) >= self.options.lingers {
                    return events.exit();
                }
            }
        }
        if self.panel.is_some() && now >= self.next_panel {
            self.look_at_panel();
            self.next_panel = now + PANEL_TICK;
        }
        if now >= self.next_title {
            self.title();
            self.next_title = now + TITLE_TICK;
        }
        events.set_control_flow(ControlFlow::WaitUntil(self.next_look));
    }
}
