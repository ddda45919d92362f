//! From the terminal (or a pseudo-terminal) to the guest: bytes as they are typed, with Ctrl-A's commands taken out.

use crate::console::{After, Edit, LineEditor};
use crate::ctrl_a::{self, CtrlA, Typed};
use crate::session::Event;
use crossbeam::channel::Sender;
use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;
use umbra_machine::{InputHandle, StopHandle};

/// Bytes that may wait in a serial port before its reader waits.
const MOST_UNREAD: usize = 4096;
/// The console's prompt.
const PROMPT: &str = "umbra> ";

/// Reads standard input on a thread of its own.
pub fn from_terminal(input: InputHandle, events: Sender<Event>, stop: StopHandle) {
    std::thread::spawn(move || {
        let mut person = Person { input, events, stop, console: None };
        let mut prefix = CtrlA::default();
        let mut bytes = [0; 1024];
        loop {
            match std::io::stdin().read(&mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    for typed in prefix.take_all(bytes.get(..count).unwrap_or(&[])) {
                        person.typed(typed);
                    }
                }
            }
        }
        person.tell(Event::InputOver);
    });
}

/// The person at the terminal.
struct Person {
    input: InputHandle,
    events: Sender<Event>,
    stop: StopHandle,
    console: Option<LineEditor>,
}

impl Person {
    fn tell(&self, event: Event) {
        // Nobody listens once the run is over.
        let _ = self.events.send(event);
        self.stop.stop();
    }
    fn typed(&mut self, typed: Typed) {
        match typed {
            Typed::End => self.tell(Event::End),
            Typed::Help => show(ctrl_a::HELP),
            Typed::Console if self.console.is_some() => {}
            Typed::Console => {
                self.console = Some(LineEditor::default());
                self.tell(Event::ConsoleOpened);
                show(&format!("\n(console; help lists commands, an empty line closes it)\n{PROMPT}"));
            }
            Typed::Guest(bytes) if self.console.is_some() => bytes.into_iter().for_each(|byte| self.edit(byte)),
            Typed::Guest(bytes) => to_guest(&self.input, 0, &bytes),
        }
    }
    fn edit(&mut self, byte: u8) {
        // After an empty line the rest of what was typed with it is the guest's.
        let Some(editor) = &mut self.console else { return to_guest(&self.input, 0, &[byte]) };
        match editor.take(byte) {
            Some(Edit::Echo(text)) => show(&text),
            Some(Edit::Line(line)) => {
                show("\n");
                let (reply, answer) = crossbeam::channel::bounded(1);
                self.tell(Event::Command(line, reply));
                match answer.recv() {
                    Ok(After::Stay) => show(PROMPT),
                    Ok(After::Close | After::End) | Err(_) => self.console = None,
                }
            }
            None => {}
        }
    }
}

fn show(text: &str) {
    print!("{text}");
    let _ = std::io::stdout().flush();
}

/// Gives bytes to a serial port, no faster than the guest takes them.
fn to_guest(input: &InputHandle, port: usize, bytes: &[u8]) {
    for part in bytes.chunks(MOST_UNREAD / 4) {
        loop {
            let mut unread = 0;
            input.with(|board| unread = board.serial_unread(port));
            if unread < MOST_UNREAD {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        input.serial(port, part);
    }
}

/// Reads a file (a pseudo-terminal's end) on a thread of its own.
pub fn from_file(mut file: File, port: usize, input: InputHandle) {
    std::thread::spawn(move || {
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = file.read(&mut bytes) {
            to_guest(&input, port, bytes.get(..count).unwrap_or(&[]));
        }
    });
}
