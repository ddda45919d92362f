//! What the person at a serial console types: Ctrl-A is a prefix to commands for Umbra, everything else goes to the guest.

/// The prefix.
const CTRL_A: u8 = 1;

/// What Ctrl-A h prints.
pub const HELP: &str = "\
Ctrl-A x  end Umbra
Ctrl-A c  open the console (help lists its commands; an empty line closes it)
Ctrl-A h  this help
Ctrl-A a  send Ctrl-A to the guest
";

/// What some typed bytes mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// For the guest.
    Guest(Vec<u8>),
    /// End Umbra.
    End,
    /// Open the console.
    Console,
    /// Show the help.
    Help,
}

/// Reads bytes and finds the commands among them.
#[derive(Clone, Debug, Default)]
pub struct CtrlA {
    prefixed: bool,
}

impl CtrlA {
    /// The meaning of the next byte; `None` after a prefix and for an unknown command.
    pub fn take(&mut self, byte: u8) -> Option<Typed> {
        if !std::mem::take(&mut self.prefixed) {
            if byte == CTRL_A {
                self.prefixed = true;
                return None;
            }
            return Some(Typed::Guest(vec![byte]));
        }
        match byte {
            b'x' | b'X' => Some(Typed::End),
            b'c' | b'C' => Some(Typed::Console),
            b'h' | b'H' | b'?' => Some(Typed::Help),
            b'a' | b'A' | CTRL_A => Some(Typed::Guest(vec![CTRL_A])),
            _ => None,
        }
    }
    /// The meaning of several bytes, neighbours for the guest taken together.
    pub fn take_all(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let mut all: Vec<Typed> = Vec::new();
        for typed in bytes.iter().filter_map(|&byte| self.take(byte)) {
            match (all.last_mut(), typed) {
                (Some(Typed::Guest(before)), Typed::Guest(more)) => before.extend(more),
                (_, typed) => all.push(typed),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_among_text() {
        let guest = |text: &[u8]| Typed::Guest(text.to_vec());
        #[rustfmt::skip]
        let cases: &[(&[u8], Vec<Typed>)] = &[
            (b"ls\r",              vec![guest(b"ls\r")]),
            (b"a\x01xb",           vec![guest(b"a"), Typed::End, guest(b"b")]),
            (b"\x01c\x01h",        vec![Typed::Console, Typed::Help]),
            (b"\x01\x01x",         vec![guest(b"\x01x")]),
            (b"\x01ax",            vec![guest(b"\x01x")]),
            (b"\x01qx",            vec![guest(b"x")]),
            (b"\x01",              vec![]),
            (b"x\x03\x1a",         vec![guest(b"x\x03\x1a")]),
        ];
        for (bytes, expected) in cases {
            assert_eq!(&CtrlA::default().take_all(bytes), expected);
            let mut one_by_one = CtrlA::default();
            let split: Vec<Typed> = bytes.iter().filter_map(|&byte| one_by_one.take(byte)).collect();
            assert_eq!(
                split.iter().filter(|t| !matches!(t, Typed::Guest(_))).count(),
                expected.iter().filter(|t| !matches!(t, Typed::Guest(_))).count()
            );
        }
    }
}
