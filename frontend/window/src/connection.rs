//! The connection to the display server, made before there is a window and before a machine runs.
//!
//! winit panics where a library of the desktop is missing: that becomes an error like all others.

use crate::{Guest, Options, WindowError, app};
use std::panic::{AssertUnwindSafe, catch_unwind};
use winit::event_loop::EventLoop;

/// A connection to the display server.
pub struct Connection(EventLoop<()>);

impl Connection {
    /// Connects. Only on the process's first thread, and once.
    pub fn open() -> Result<Connection, WindowError> {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let events = catch_unwind(AssertUnwindSafe(EventLoop::new));
        std::panic::set_hook(hook);
        let problem = match events {
            Ok(Ok(events)) => return Ok(Connection(events)),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
                (Some(text), _) => text.clone(),
                (None, Some(text)) => (*text).to_owned(),
                (None, None) => "a library is missing".to_owned(),
            },
        };
        Err(WindowError::NoDisplay(plain(&problem)))
    }
    /// Shows the guest until it is over or the window is closed. After an error the machine goes on.
    pub fn show(self, guest: Guest, options: Options) -> Result<(), WindowError> {
        app::run(self.0, guest, options)
    }
}

/// The first line of an error, without the place in winit's source that stands before it.
fn plain(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let words = line.rsplit_once(".rs:").map_or(line, |(_, rest)| rest);
    words.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':' || c == ' ').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_plain() {
        assert_eq!(plain("os error at /x/winit-0.30.13/src/a.rs:757: neither is set"), "neither is set");
        assert_eq!(plain("Library x could not be loaded.\nmore"), "Library x could not be loaded.");
    }
}
