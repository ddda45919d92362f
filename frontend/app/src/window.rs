//! `--display window`: the machine runs on a thread of its own, the window on the first thread, as window systems want it.

use crate::exit_status::Failure;
use crate::inspect::panel::{Panel, PanelKey, View};
use crate::link::{self, Link};
use crate::options::{Guess, guess};
use crate::picture;
use crate::run::{Chosen, Ended, finish};
use crate::session::Session;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;
use umbra_machine::board::Removable;
use umbra_machine::config::{Display, MachineConfig};
use umbra_machine::{DisplayHandle, Machine};
use umbra_window::{Command, Connection, Control, Guest, Options, PanelView, Status, WindowError};

pub use umbra_window::{Backend, Scaling, has_display};

/// Shows the machine in a window and runs it to its end; `from`: when it was begun.
pub fn execute(
    machine: Machine,
    config: &MachineConfig,
    options: Options,
    (from, display_is): (Instant, Chosen),
) -> Result<Ended, Failure> {
    let connection = match connect() {
        Ok(connection) => connection,
        Err(error) if display_is == Chosen::Guessed => {
            eprintln!("umbra: {error}; goes on without a window");
            let config = MachineConfig { display: Display::None, ..config.clone() };
            return finish(Session::new(machine, &config)?, &config, from);
        }
        Err(error) => return Err(Failure::host(error.to_string())),
    };
    let (display, input) = (machine.display(), machine.input());
    let (link, runner) = link::start(Session::new(machine, config)?, config, from);
    let control = Box::new(InWindow { link: link.clone(), display: display.clone(), panel: Panel::default() });
    // Whatever becomes of the window, the machine ends in order, and the terminal is as before.
    let shown = catch_unwind(AssertUnwindSafe(|| connection.show(Guest { display, input, control }, options)));
    match shown.unwrap_or(Err(WindowError::Panicked)) {
        Err(error) if display_is == Chosen::Guessed => {
            eprintln!("umbra: {error}; goes on without a window");
            link.call(Session::lose_display);
            runner.join()
        }
        shown => {
            link.end();
            let ended = runner.join();
            shown.map_err(|error| Failure::host(error.to_string()))?;
            ended
        }
    }
}

fn connect() -> Result<Connection, WindowError> {
    if !has_display() {
        return Err(WindowError::NoDisplay("neither DISPLAY nor WAYLAND_DISPLAY is set".to_owned()));
    }
    Connection::open()
}

struct InWindow {
    link: Link,
    display: DisplayHandle,
    panel: Panel,
}

impl Control for InWindow {
    fn status(&self) -> Status {
        let link = &self.link;
        Status { paused: link.is_paused(), speed: link.speed(), retired: link.retired(), over: link.is_over() }
    }
    fn command(&mut self, command: Command) -> Result<Option<String>, String> {
        match command {
            Command::Reset => self.link.reset(),
            Command::PowerButton => self.link.input.power_button(),
            Command::Pause(pause) => self.link.pause(pause),
            Command::Slower => self.link.slower(),
            Command::Faster => self.link.faster(),
            Command::Insert(path) => return self.insert(&path).map(Some),
            Command::Eject => return self.eject().map(Some),
            Command::Screenshot => return self.save_picture().map(Some),
            Command::Panel => self.panel.toggle(&self.link),
            Command::End => self.link.end(),
        }
        Ok(None)
    }
    fn panel(&mut self) -> Option<PanelView> {
        let View { lines, picture } = self.panel.view(&self.link)?;
        Some(PanelView { lines, picture })
    }
    fn panel_key(&mut self, key: umbra_window::PanelKey) {
        use umbra_window::PanelKey as Pressed;
        let key = match key {
            Pressed::Char(c) => PanelKey::Char(c),
            Pressed::Backspace => PanelKey::Backspace,
            Pressed::Enter => PanelKey::Enter,
            Pressed::Tab => PanelKey::Tab,
            Pressed::Escape => PanelKey::Escape,
        };
        self.panel.key(key, &self.link);
    }
}

impl InWindow {
    /// Puts an image into the drive that is for such images.
    fn insert(&self, path: &Path) -> Result<String, String> {
        let kind = guess(path).map_err(|failure| failure.to_string())?;
        let drive = match kind {
            Guess::Cdrom => Removable::Cdrom,
            Guess::Floppy => Removable::Floppy(0),
            _ => {
                let (shown, kind) = (path.display(), kind.text());
                return Err(format!("{shown}: {kind} cannot be changed while the machine runs; try umbra run {shown}"));
            }
        };
        self.link.input.change_medium(drive, Some(path)).map_err(|error| error.to_string())?;
        Ok(format!(
            "{} is in the {} drive",
            path.display(),
            if drive == Removable::Cdrom { "CD-ROM" } else { "floppy" }
        ))
    }
    fn eject(&self) -> Result<String, String> {
        let cdrom = self.link.input.change_medium(Removable::Cdrom, None);
        let floppy = self.link.input.change_medium(Removable::Floppy(0), None);
        match (cdrom, floppy) {
            (Err(error), Err(_)) => Err(error.to_string()),
            _ => Ok("the drives are empty".to_owned()),
        }
    }
    /// Saves the picture in the current folder under a name that is free.
    fn save_picture(&self) -> Result<String, String> {
        let free = (1..).map(|number| PathBuf::from(format!("umbra-{number:03}.png"))).find(|path| !path.exists());
        let path = free.unwrap_or_default();
        picture::save(&self.display.frame(), &path).map_err(|failure| failure.to_string())?;
        Ok(format!("wrote {}", path.display()))
    }
}
