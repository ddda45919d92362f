//! `--wait-text` and `--type`: what a person would do at the serial console, done in order.
//!
//! A text is waited for in what the guest sends after the step before it. Typed text may hold `\n` (Enter), `\t`, `\e`, `\\`
//! and `\xNN`. Steps run on a thread of their own: sinks may not call back into the machine.

use crate::cli::Step;
use crossbeam::channel::{Receiver, Sender};
use umbra_machine::{InputHandle, Sink};

/// Starts the steps; gives what has to see the guest's output. `None` if there are no steps.
pub fn start(steps: &[Step], input: InputHandle) -> Option<Sink> {
    if steps.is_empty() {
        return None;
    }
    let steps = steps.to_vec();
    let (tap, output): (Sender<Vec<u8>>, Receiver<Vec<u8>>) = crossbeam::channel::unbounded();
    std::thread::spawn(move || run(steps, &output, |bytes| input.serial(0, bytes)));
    Some(Box::new(move |bytes| {
        // After the last step nobody listens.
        let _ = tap.send(bytes.to_vec());
    }))
}

fn run(steps: Vec<Step>, output: &Receiver<Vec<u8>>, mut send: impl FnMut(&[u8])) {
    let mut unread: Vec<u8> = Vec::new();
    for step in steps {
        match step {
            Step::Type(text) => {
                let bytes = unescape(&text);
                tracing::debug!(target: "serial", "types {text:?}");
                send(&bytes);
            }
            Step::Wait(text) => {
                let wanted = unescape(&text);
                loop {
                    if let Some(at) = unread.windows(wanted.len().max(1)).position(|part| part == wanted) {
                        unread.drain(..at + wanted.len());
                        tracing::debug!(target: "serial", "has seen {text:?}");
                        break;
                    }
                    // Only the tail can begin a match that is not complete.
                    let keep = wanted.len().min(unread.len());
                    unread.drain(..unread.len() - keep);
                    match output.recv() {
                        Ok(bytes) => unread.extend(bytes),
                        Err(_) => return,
                    }
                }
            }
        }
    }
}

/// The bytes that a text stands for. An unknown escape stands for itself.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.extend(c.to_string().as_bytes());
            continue;
        }
        match rest.next() {
            Some('n' | 'r') => bytes.push(b'\r'),
            Some('t') => bytes.push(b'\t'),
            Some('e') => bytes.push(0x1B),
            Some('x') => {
                let digits: String = rest.clone().take(2).collect();
                match u8::from_str_radix(&digits, 16) {
                    Ok(byte) if digits.len() == 2 => {
                        bytes.push(byte);
                        rest.nth(1);
                    }
                    _ => bytes.extend(b"\\x"),
                }
            }
            Some(other) if other != '\\' => bytes.extend(format!("\\{other}").as_bytes()),
            _ => bytes.push(b'\\'),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        #[rustfmt::skip]
        let cases: &[(&str, &[u8])] = &[
            ("ls\\n", b"ls\r"), ("\\x03", b"\x03"), ("\\xzz", b"\\xzz"), ("a\\\\b", b"a\\b"), ("\\q", b"\\q"), ("\\", b"\\"),
            ("\\e[A", b"\x1b[A"), ("\\x4", b"\\x4"),
        ];
        for &(text, bytes) in cases {
            assert_eq!(unescape(text), bytes, "{text}");
        }
    }

    #[test]
    fn waits_and_types_in_order() {
        let (tap, output) = crossbeam::channel::unbounded();
        for part in ["log", "in: ", "root\r\n# ls\r\n#", " "] {
            tap.send(part.as_bytes().to_vec()).unwrap();
        }
        drop(tap);
        let mut sent = Vec::new();
        let steps = [
            Step::Wait("login:".to_owned()),
            Step::Type("root\\n".to_owned()),
            Step::Wait("# ".to_owned()),
            Step::Wait("# ".to_owned()),
            Step::Type("exit\\n".to_owned()),
            Step::Wait("never".to_owned()),
            Step::Type("x".to_owned()),
        ];
        run(steps.to_vec(), &output, |bytes| sent.push(bytes.to_vec()));
        assert_eq!(sent, [b"root\r".to_vec(), b"exit\r".to_vec()]);
    }
}
