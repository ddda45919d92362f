//! `--display terminal` on a pseudo-terminal: characters with their colours, pictures as half blocks, keys, and the way out.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(options: &[&str]) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: 25, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let slave = || OpenOptions::new().read(true).write(true).open(path.to_str().unwrap()).unwrap();
        let mut umbra = Command::new(env!("CARGO_BIN_EXE_umbra"));
        umbra.args(["run", "--display", "terminal", "-m", "16M", "--timeout", "100s"]).args(options);
        let child =
            umbra.stdin(Stdio::from(slave())).stdout(Stdio::from(slave())).stderr(Stdio::null()).spawn().unwrap();
        let mut from = File::from(master);
        let keys = from.try_clone().unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let to = shown.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Terminal { child, keys, shown }
    }
    /// Waits for a text among what was written, escape sequences included.
    fn wait_for(&self, text: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        while !self.shown.lock().unwrap().contains(text) {
            assert!(Instant::now() < end, "{text:?} was not shown in\n{:?}", self.shown.lock().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    fn press(&mut self, keys: &[u8]) {
        self.shown.lock().unwrap().clear();
        self.keys.write_all(keys).unwrap();
    }
}

#[test]
fn text_pictures_keys_and_the_way_out() {
    let mut terminal = Terminal::start(&["--bios", "roms:vga", "--no-exit-port"]);
    terminal.wait_for("0123456789:;<=>?@ABCDEFG");
    // The first table of attributes, colour 1 on 0.
    terminal.wait_for("38;2;0;0;170");
    terminal.press(b"\x01");
    terminal.wait_for("Ctrl-Alt-Del");
    terminal.press(b"?");
    // Text again where the help was; then on to the first picture that is none, a key each.
    for _ in 0..40 {
        if terminal.shown.lock().unwrap().contains('▀') {
            break;
        }
        terminal.keys.write_all(b" ").unwrap();
        std::thread::sleep(Duration::from_millis(250));
    }
    terminal.wait_for("▀");
    // The inspector over the picture: an address, faults, the map of memory; its keys are not the guest's.
    terminal.press(b"\x01i");
    terminal.wait_for("Umbra's inspector");
    terminal.wait_for("monitor");
    terminal.press(b"b8000\r");
    // Only cells that changed are drawn: a word that nothing stood at.
    terminal.wait_for("yet");
    terminal.press(b"\t");
    terminal.wait_for("hidden(dirty-track)");
    terminal.press(b"\t");
    terminal.wait_for("framebuffer");
    terminal.press(b"\x1b");
    terminal.wait_for("▀");
    terminal.press(b"\x01x");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    // The terminal's own screen is back, the mouse is its own again.
    terminal.wait_for("\u{1b}[?1049l");
    terminal.wait_for("\u{1b}[?1000l");
}

#[test]
fn without_a_terminal_it_says_so() {
    let umbra = Command::new(env!("CARGO_BIN_EXE_umbra"))
        .args(["run", "--display", "terminal", "--bios", "roms:vga"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&umbra.stderr);
    assert!(said.contains("needs a terminal") && said.contains("--headless"), "{said}");
    assert_eq!(umbra.status.code(), Some(4));
}
