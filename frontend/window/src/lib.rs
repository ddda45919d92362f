//! A machine's screen in a window: pictures, keyboard by position, mouse, hot keys and a menu, files dropped on it.
//!
//! ```text
//! DisplayHandle ─► Renderer (what changed) ─► canvas (scaled to the window) ─► presenter: pixels, or softbuffer
//! keys, mouse ─► InputHandle                  hot keys, menu, dropped files ─► Control (the application)
//! ```
//!
//! The window looks sixty times a second whether anything changed and draws only then. Leaves out: several windows, sound,
//! keys that the host's desktop keeps for itself. Called by the application, on the process's first thread.

mod app;
mod canvas;
mod connection;
mod keyboard;
mod menu;
mod mouse;
mod panel;
mod presenter;

pub use canvas::Scaling;
pub use connection::Connection;
pub use panel::{PanelKey, PanelView};
pub use presenter::Backend;

use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;
use umbra_machine::{DisplayHandle, InputHandle};

/// What the window shows and where its input goes.
pub struct Guest {
    /// The screen.
    pub display: DisplayHandle,
    /// Keyboard and mouse.
    pub input: InputHandle,
    /// The machine as a whole.
    pub control: Box<dyn Control>,
}

/// What a person at the window can ask of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Reset it.
    Reset,
    /// Press the power button.
    PowerButton,
    /// Hold it, or let it go on.
    Pause(bool),
    /// Let less of its time pass in the host's.
    Slower,
    /// More.
    Faster,
    /// Put this image into its drive.
    Insert(PathBuf),
    /// Take the media out of the drives.
    Eject,
    /// Save the picture.
    Screenshot,
    /// Open its panel, or close it.
    Panel,
    /// The window was closed: end.
    End,
}

/// How the machine is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// It stands still.
    pub paused: bool,
    /// The part of the host's time that passes in it, in percent.
    pub speed: u32,
    /// Instructions retired so far.
    pub retired: u64,
    /// It is over: the window closes.
    pub over: bool,
}

/// The application's side.
pub trait Control {
    /// How the machine is.
    fn status(&self) -> Status;
    /// Does what a person asks; gives what to tell them, if anything. The error is a sentence for them.
    fn command(&mut self, command: Command) -> Result<Option<String>, String>;
    /// What its panel shows now, if that is open.
    fn panel(&mut self) -> Option<PanelView>;
    /// A key for the panel.
    fn panel_key(&mut self, key: PanelKey);
}

/// How the window is to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What draws.
    pub backend: Backend,
    /// How the picture fills the window.
    pub scaling: Scaling,
    /// It begins as full screen.
    pub full_screen: bool,
    /// How long it stays open when the machine is over; a key or a click closes it sooner.
    pub lingers: Duration,
}

/// Why there is no window.
#[derive(Debug, Error)]
pub enum WindowError {
    /// There is no display server, or it refuses.
    #[error("there is no display to open a window on ({0}); try --headless, or --display terminal")]
    NoDisplay(String),
    /// Nothing can draw in the window.
    #[error("nothing can draw in a window here ({0}); try --headless, or --window-backend software")]
    NoAdapter(String),
    /// A library that draws gave up.
    #[error("the window came to a bad end, please report this; try --headless, or --window-backend software")]
    Panicked,
}

/// Whether there seems to be a display server.
pub fn has_display() -> bool {
    ["WAYLAND_DISPLAY", "WAYLAND_SOCKET", "DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}
