//! `--wait-text` and `--type` (`script` in a machine file): what a person would do at the serial console, done in order.
//!
//! A text is waited for in what the guest sends after the step before it. Typed text may hold `\n` (Enter), `\t`, `\e`, `\\`
//! and `\xNN`. The sink only watches and asks the machine to stop; the session types while it stands still. So with the
//! virtual clock the guest gets its input at the same instruction each time.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use umbra_machine::config::ScriptStep;
use umbra_machine::{Sink, StopHandle};

/// The steps that are left, and what they have led to.
#[derive(Debug, Default)]
struct State {
    steps: VecDeque<ScriptStep>,
    /// What the guest has sent since the last step, as far as a match may still begin in it.
    unread: Vec<u8>,
    /// What is to be typed now.
    due: Vec<u8>,
}

impl State {
    /// Takes steps off the front as long as they can be done.
    fn advance(&mut self) {
        while let Some(step) = self.steps.front() {
            match step {
                ScriptStep::Type(text) => {
                    tracing::debug!(target: "serial", "types {text:?}");
                    self.due.extend(unescape(text));
                }
                ScriptStep::Wait(text) => {
                    let wanted = unescape(text);
                    let Some(at) = self.unread.windows(wanted.len().max(1)).position(|part| part == wanted) else {
                        // Only the tail can begin a match that is not complete.
                        let keep = wanted.len().min(self.unread.len());
                        self.unread.drain(..self.unread.len() - keep);
                        return;
                    };
                    tracing::debug!(target: "serial", "has seen {text:?}");
                    self.unread.drain(..at + wanted.len());
                }
            }
            self.steps.pop_front();
        }
        self.unread.clear();
    }
}

/// The script of one run. A script without steps does nothing.
#[derive(Clone, Debug, Default)]
pub struct Script(Arc<Mutex<State>>);

impl Script {
    /// A script with these steps; those that wait for nothing are due at once.
    pub fn new(steps: &[ScriptStep]) -> Script {
        let mut state = State { steps: steps.iter().cloned().collect(), ..State::default() };
        state.advance();
        Script(Arc::new(Mutex::new(state)))
    }
    /// What has to see the guest's output. It stops the machine when there is something to type.
    pub fn tap(&self, stop: StopHandle) -> Sink {
        let script = self.clone();
        Box::new(move |bytes| {
            if script.feed(bytes) {
                stop.stop_from_sink();
            }
        })
    }
    /// Takes output; tells whether something is to be typed.
    fn feed(&self, bytes: &[u8]) -> bool {
        let mut state = self.0.lock();
        if !state.steps.is_empty() {
            state.unread.extend(bytes);
            state.advance();
        }
        !state.due.is_empty()
    }
    /// What is to be typed now.
    pub fn take_due(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().due)
    }
    /// The step that the guest has not come to, as text.
    pub fn stuck_at(&self) -> Option<String> {
        self.0.lock().steps.front().map(|step| match step {
            ScriptStep::Wait(text) => format!("the guest never sent the text \"{text}\" that its script waits for"),
            ScriptStep::Type(text) => format!("\"{text}\" was never typed"),
        })
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
        let steps = [
            ScriptStep::Wait("login:".to_owned()),
            ScriptStep::Type("root\\n".to_owned()),
            ScriptStep::Wait("# ".to_owned()),
            ScriptStep::Wait("# ".to_owned()),
            ScriptStep::Type("exit\\n".to_owned()),
            ScriptStep::Wait("never".to_owned()),
            ScriptStep::Type("x".to_owned()),
        ];
        let script = Script::new(&steps);
        let mut sent = Vec::new();
        for part in ["log", "in: ", "root\r\n# ls\r\n#", " "] {
            if script.feed(part.as_bytes()) {
                sent.push((part, script.take_due()));
            }
        }
        assert_eq!(sent, [("in: ", b"root\r".to_vec()), (" ", b"exit\r".to_vec())]);
        assert!(script.stuck_at().unwrap().contains("\"never\""));
    }

    #[test]
    fn what_waits_for_nothing_is_due_at_once() {
        let script = Script::new(&[ScriptStep::Type("a".to_owned()), ScriptStep::Type("\\n".to_owned())]);
        assert_eq!((script.take_due(), script.stuck_at()), (b"a\r".to_vec(), None));
        assert!(!script.feed(b"anything"));
        assert!(Script::default().take_due().is_empty());
    }
}
