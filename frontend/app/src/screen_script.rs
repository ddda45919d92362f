//! `--type` and `--wait-text` with `--type-at screen`: what a person would do at the keyboard, looking at the text screen.
//!
//! A thread of its own looks at the screen ten times a second and presses keys no faster than the guest reads them. A text is
//! waited for anywhere on the screen; lines are joined by `\n`. Leaves out: exact times (those are the serial script's).

use crate::exit_status::{Failure, advised};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use umbra_machine::config::ScriptStep;
use umbra_machine::typing::{self, Chord};
use umbra_machine::{DisplayHandle, InputHandle, StopHandle};

const LOOK_EVERY: Duration = Duration::from_millis(100);
const PRESS_EVERY: Duration = Duration::from_millis(10);

enum Step {
    Wait(String),
    Press(VecDeque<Chord>),
}

/// A running script.
#[derive(Clone, Default)]
pub struct ScreenScript {
    /// The text that is waited for.
    waits_for: Arc<Mutex<Option<String>>>,
    done: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl ScreenScript {
    /// Starts a script; `stop` stops the machine when its last step is done.
    pub fn start(
        steps: &[ScriptStep],
        display: DisplayHandle,
        input: InputHandle,
        stop: StopHandle,
    ) -> Result<ScreenScript, Failure> {
        let parse = |step: &ScriptStep| match step {
            ScriptStep::Wait(text) => {
                let bytes = crate::script::unescape(text);
                Ok(Step::Wait(String::from_utf8_lossy(&bytes).replace('\r', "\n")))
            }
            ScriptStep::Type(text) => match typing::chords(text) {
                Ok(chords) => Ok(Step::Press(chords.into())),
                Err(error) => Err(Failure::input(advised(error, "--type-at serial"))),
            },
        };
        let steps: Vec<Step> = steps.iter().map(parse).collect::<Result<_, _>>()?;
        let script = ScreenScript::default();
        let runner = script.clone();
        std::thread::spawn(move || {
            runner.run(steps, &display, &input);
            runner.done.store(true, Ordering::SeqCst);
            stop.stop();
        });
        Ok(script)
    }
    fn run(&self, steps: Vec<Step>, display: &DisplayHandle, input: &InputHandle) {
        for step in steps {
            match step {
                Step::Wait(text) => {
                    *self.waits_for.lock() = Some(text.clone());
                    while !display.text().is_some_and(|screen| screen.lines().join("\n").contains(&text)) {
                        if self.over.load(Ordering::SeqCst) {
                            return;
                        }
                        std::thread::sleep(LOOK_EVERY);
                    }
                    *self.waits_for.lock() = None;
                }
                Step::Press(mut chords) => {
                    while !chords.is_empty() && !self.over.load(Ordering::SeqCst) {
                        if input.keys_waiting() == 0
                            && let Some(chord) = chords.pop_front()
                        {
                            input.press(&chord);
                        }
                        std::thread::sleep(PRESS_EVERY);
                    }
                }
            }
        }
    }
    /// Whether every step is done.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }
    /// The run is over: nothing more is waited for.
    pub fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
    /// The step that the guest has not come to, as text.
    pub fn stuck_at(&self) -> Option<String> {
        let waits = self.waits_for.lock();
        waits.as_ref().map(|text| format!("the screen never showed the text \"{text}\" that the script waits for"))
    }
}
