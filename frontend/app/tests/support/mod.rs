//! What the tests of the command line share: a folder that goes away, the program, small guests made of bytes.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of its own for one test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("umbra-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_umbra"));
    command.args(words).current_dir(folder).stdin(Stdio::null()).env("NO_COLOR", "1");
    command
}

pub fn umbra(folder: &Path, words: &[&str]) -> Output {
    command(folder, words).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A multiboot kernel of this 32-bit code, at 100000h, with its addresses in the header.
pub fn kernel(code: &[u8]) -> Vec<u8> {
    const FLAGS: u32 = 1 << 16;
    const BASE: u32 = 0x10_0000;
    let mut bytes = Vec::new();
    for word in [0x1BAD_B002, FLAGS, 0u32.wrapping_sub(0x1BAD_B002 + FLAGS), BASE, BASE, 0, 0, BASE + 32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(code);
    bytes
}

/// Code that sends a text on COM1.
pub fn say(text: &str) -> Vec<u8> {
    // MOV DX, 3F8h; then for each character MOV AL, c; OUT DX, AL.
    let mut code = vec![0x66, 0xBA, 0xF8, 0x03];
    text.bytes().for_each(|c| code.extend([0xB0, c, 0xEE]));
    code
}

/// Code that writes the exit device.
pub fn exit(value: u8) -> Vec<u8> {
    vec![0xB0, value, 0xE6, 0xF4, 0xEB, 0xFE]
}

/// Code that switches the machine off through ACPI.
pub const POWER_OFF: [u8; 12] = [0x66, 0xBA, 0x04, 0x06, 0x66, 0xB8, 0x01, 0x20, 0x66, 0xEF, 0xEB, 0xFE];
/// JMP to itself.
pub const HANG: [u8; 2] = [0xEB, 0xFE];
/// LIDT of a table without gates, then UD2.
pub const TRIPLE_FAULT: [u8; 15] = [0x0F, 0x01, 0x1D, 0x29, 0x00, 0x10, 0x00, 0x0F, 0x0B, 0, 0, 0, 0, 0, 0];
/// CLI, HLT.
pub const SLEEP: [u8; 2] = [0xFA, 0xF4];
