//! `--sound …,wav=FILE`: what is heard of the machine, mixed and written by a thread of its own.
//!
//! The board only hands over what was played, through a queue that holds [`MOST_WAITING`] batches (of 10 ms, as a rule): should
//! the disk be slower than the guest plays, the guest waits. The file's header is kept up to date while it grows, so that
//! what was recorded can be played whatever ends the process. If the disk is full the user is told, and the machine goes on.

use crate::exit_status::Failure;
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use hound::{SampleFormat, WavSpec, WavWriter};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;
use umbra_machine::Machine;
use umbra_machine::sound::{FRAME_RATE, Mixer};

/// Batches that may wait before the guest waits.
const MOST_WAITING: usize = 64;
/// Frames after which the header is brought up to date, and how long a part of that waits.
const FRAMES_AT_ONCE: usize = FRAME_RATE as usize / 2;
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// As many frames of four bytes as a WAV file's lengths of 32 bits can tell, with room for headers.
const MOST_FRAMES: usize = (u32::MAX as usize - 1024) / 4;

type Wav = WavWriter<BufWriter<File>>;

/// A recording under way.
pub struct Recording {
    writer: Option<JoinHandle<()>>,
}

impl Recording {
    /// Records a machine to a new file.
    pub fn start(machine: &Machine, path: &Path) -> Result<Recording, Failure> {
        let name = format!("--sound wav={}", path.display());
        let bad = |error: hound::Error| Failure::input(format!("{name}: {error}; try a file that can be written"));
        let spec =
            WavSpec { channels: 2, sample_rate: FRAME_RATE, bits_per_sample: 16, sample_format: SampleFormat::Int };
        let mut wav = WavWriter::create(path, spec).map_err(bad)?;
        wav.flush().map_err(bad)?;
        let (to, from) = bounded(MOST_WAITING);
        machine.connect_sound(Box::new(move |heard| {
            // A writer that gave up has told why.
            let _ = to.send(heard);
        }));
        let writer = std::thread::spawn(move || {
            if let Err(problem) = write(wav, &from) {
                eprintln!("umbra: {name}: {problem}; the recording ends here, the machine goes on");
            }
        });
        Ok(Recording { writer: Some(writer) })
    }

    /// Takes what was played until now, and ends the file.
    pub fn finish(mut self, machine: &Machine) {
        machine.board().finish_sound();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// Writes what comes until nobody is left to send anything. The error is half a sentence.
fn write(mut wav: Wav, from: &Receiver<umbra_machine::sound::Heard>) -> Result<(), String> {
    let text = |error: hound::Error| error.to_string();
    let (mut mixer, mut frames, mut written) = (Mixer::default(), Vec::new(), 0);
    loop {
        let over = match from.recv_timeout(LONGEST_WAIT) {
            Ok(heard) => {
                mixer.mix(heard, &mut frames);
                if frames.len() < FRAMES_AT_ONCE {
                    continue;
                }
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                mixer.finish(&mut frames);
                true
            }
        };
        let fits = frames.len().min(MOST_FRAMES - written);
        for sample in frames.iter().take(fits).flatten() {
            wav.write_sample(*sample).map_err(text)?;
        }
        written += fits;
        if !frames.is_empty() {
            wav.flush().map_err(text)?;
        }
        if fits < frames.len() {
            return Err("a WAV file has no room for more than 4 GiB".to_owned());
        }
        frames.clear();
        if over {
            return Ok(());
        }
    }
}
