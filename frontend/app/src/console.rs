//! The console's commands: what Ctrl-A c opens, and what gdb's `monitor` command runs. The machine stands still meanwhile.

use crate::inspect;
use crate::session::Session;
use std::fmt::Write;
use std::path::Path;
use umbra_machine::board::Removable;
use umbra_machine::config::Size;
use umbra_machine::{Input, Machine};

/// What follows a command.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// The console stays open.
    Stay,
    /// The console closes, the guest goes on.
    Close,
    /// Umbra ends.
    End,
}

/// The commands, for `help`.
pub const HELP: &str = "\
info registers|tlb|roots|faults|descriptors|memory|unclaimed   what the machine is doing
explain ADDRESS      a linear address as guest, monitor and host have it
x ADDRESS [BYTES]    guest memory at a linear address
dis [OFFSET [COUNT]] disassembly, at RIP if nothing is said
screen               the text screen
audit                every monitor entry against the guest's tables
reclaim MIB          take that much guest RAM out of host memory (where it is paged), what was not used lately first
pause, cont          hold the guest, let it go on
change DRIVE FILE    another medium for cdrom or floppy; eject DRIVE takes it out
balloon [SIZE]       how much memory the guest is asked for, or ask it for so much
reset, power         reset the machine, press the power button
quit                 end Umbra
(an empty line closes the console)
";

/// Runs one line; gives what to print.
pub fn execute(session: &mut Session, line: &str) -> (String, After) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let machine = &mut session.machine;
    let text = match words.as_slice() {
        [] => return (String::new(), After::Close),
        ["help" | "h" | "?"] => HELP.to_owned(),
        ["info", what] => match *what {
            "registers" | "regs" => {
                machine.vcpus().iter().enumerate().map(|(number, vcpu)| inspect::registers(number, vcpu)).collect()
            }
            "tlb" => inspect::tlbs(machine),
            "roots" => inspect::roots(&machine.memory().counters()),
            "counters" | "faults" => inspect::faults(machine),
            "descriptors" => inspect::descriptors(machine),
            "memory" => inspect::host_memory(machine),
            "unclaimed" => {
                let found = crate::summary::unclaimed(machine);
                let lines = found.iter().map(|(at, count)| format!("{at:>10} {count}\n"));
                lines.collect::<String>() + if found.is_empty() { "every access was answered\n" } else { "" }
            }
            _ => "info takes registers, tlb, roots, faults, descriptors, memory or unclaimed\n".to_owned(),
        },
        ["info"] => "info takes registers, tlb, roots, faults, descriptors, memory or unclaimed\n".to_owned(),
        ["explain", address] => match (inspect::parse_address(address), machine.vcpus().first()) {
            (Ok(linear), Some(vcpu)) => inspect::three_variants(vcpu, linear),
            (Err(error), _) => format!("{error}\n"),
            _ => String::new(),
        },
        ["x", address] | ["x", address, _] => match (inspect::parse_address(address), machine.vcpus().first()) {
            (Ok(linear), Some(vcpu)) => {
                let count = words.get(2).and_then(|count| count.parse().ok()).unwrap_or(64usize).min(4096);
                dump(linear, &inspect::peek(vcpu, linear, count))
            }
            (Err(error), _) => format!("{error}\n"),
            _ => String::new(),
        },
        ["dis", ..] => match machine.vcpus().first() {
            Some(vcpu) => {
                let offset = words.get(1).map_or(Ok(vcpu.state.rip), |offset| inspect::parse_address(offset));
                let count = words.get(2).and_then(|count| count.parse().ok()).unwrap_or(8usize).min(200);
                offset.map_or_else(|error| format!("{error}\n"), |offset| inspect::disassembly(vcpu, offset, count))
            }
            None => String::new(),
        },
        ["screen"] => machine.screen_text().join("\n") + "\n",
        ["audit"] => inspect::audit(machine).0,
        ["reclaim", mib] => match mib.parse::<u64>() {
            Ok(mib) => {
                let taken = machine.memory().evict(mib.saturating_mul(256));
                format!("{} MiB taken away\n{}", taken >> 8, inspect::host_memory(machine))
            }
            Err(_) => "reclaim takes a number of MiB\n".to_owned(),
        },
        ["pause"] => {
            session.paused = true;
            "the guest is paused; cont lets it go on\n".to_owned()
        }
        ["cont" | "continue" | "c"] => {
            session.paused = false;
            return (String::new(), After::Close);
        }
        ["reset"] => match machine.reset() {
            Ok(()) => "the machine was reset\n".to_owned(),
            Err(error) => format!("{error}\n"),
        },
        ["power"] => {
            machine.input().power_button();
            "the power button was pressed\n".to_owned()
        }
        ["balloon", ..] => balloon(machine, words.get(1).copied()),
        ["eject", drive] => change(machine, drive, None),
        ["change", drive, ..] => {
            // A path may have spaces in it.
            let path = line.trim().splitn(3, char::is_whitespace).nth(2).unwrap_or("").trim();
            change(machine, drive, Some(Path::new(path)))
        }
        ["quit" | "q" | "exit"] => return (String::new(), After::End),
        [other, ..] => format!("there is no command \"{other}\"; help lists them\n"),
    };
    (text, After::Stay)
}

/// Asks the guest for memory, if a size is named; gives what to say.
fn balloon(machine: &Machine, size: Option<&str>) -> String {
    let mut pages = None;
    machine.input().with(|board| pages = board.balloon_pages());
    let Some((wanted, actual)) = pages else {
        return "the machine has no balloon; try --balloon on\n".to_owned();
    };
    match size.map(str::parse::<Size>) {
        None => format!("asked for {} MiB, has given {} MiB\n", wanted >> 8, actual >> 8),
        Some(Ok(size)) => {
            let most = machine.memory_map().total() >> 12;
            machine.input().give(Input::Balloon((size.0 >> 12).min(most) as u32));
            "the guest is asked; balloon tells how much it has given\n".to_owned()
        }
        Some(Err(error)) => format!("{error}\n"),
    }
}

/// Changes a medium; gives what to say of it.
fn change(machine: &Machine, drive: &str, image: Option<&Path>) -> String {
    let drive = match drive {
        "cdrom" => Removable::Cdrom,
        "floppy" => Removable::Floppy(0),
        _ => return "change and eject take cdrom or floppy\n".to_owned(),
    };
    match machine.input().change_medium(drive, image) {
        Ok(()) => "done\n".to_owned(),
        Err(error) => format!("{error}\n"),
    }
}

/// Bytes with their addresses, sixteen a line.
fn dump(linear: u64, bytes: &[u8]) -> String {
    let mut text = String::new();
    if bytes.is_empty() {
        return "the guest's tables lead nowhere\n".to_owned();
    }
    for (index, row) in bytes.chunks(16).enumerate() {
        let hex: String = row.iter().map(|byte| format!("{byte:02x} ")).collect();
        let shown: String =
            row.iter().map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { byte as char } else { '.' }).collect();
        let _ = writeln!(text, "{:016x}  {hex:<48} {shown}", linear.wrapping_add(16 * index as u64));
    }
    text
}

/// A line that is being typed in a raw terminal.
#[derive(Clone, Debug, Default)]
pub struct LineEditor {
    line: String,
}

/// What a typed byte does to the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Show this.
    Echo(String),
    /// The line is complete.
    Line(String),
}

impl LineEditor {
    /// Takes the next byte.
    pub fn take(&mut self, byte: u8) -> Option<Edit> {
        match byte {
            b'\r' | b'\n' => Some(Edit::Line(std::mem::take(&mut self.line))),
            8 | 0x7F => self.line.pop().map(|_| Edit::Echo("\u{8} \u{8}".to_owned())),
            // Ctrl-U: the whole line goes. Ctrl-D on an empty line closes, as an empty line does.
            0x15 => {
                let length = self.line.len();
                self.line.clear();
                Some(Edit::Echo("\u{8} \u{8}".repeat(length)))
            }
            4 if self.line.is_empty() => Some(Edit::Line(String::new())),
            0x20..0x7F if self.line.len() < 200 => {
                self.line.push(char::from(byte));
                Some(Edit::Echo(char::from(byte).to_string()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_edited() {
        let mut editor = LineEditor::default();
        let mut echo = String::new();
        let mut lines = Vec::new();
        for &byte in b"infx\x7fo\x1b roots\rzzz\x15q\n\x04" {
            match editor.take(byte) {
                Some(Edit::Echo(text)) => echo.push_str(&text),
                Some(Edit::Line(line)) => lines.push(line),
                None => {}
            }
        }
        assert_eq!(lines, ["info roots", "q", ""]);
        assert!(echo.starts_with("infx\u{8} \u{8}o roots"));
    }

    #[test]
    fn dumps() {
        assert_eq!(dump(0x1000, b"AB\0"), format!("0000000000001000  {:<48} AB.\n", "41 42 00 "));
        assert!(dump(0, &[]).contains("nowhere"));
    }
}
