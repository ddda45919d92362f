//! Pictures of the screen as PNG files: `--screenshot` at the end of a run, `--record` while it goes on.

use crate::exit_status::Failure;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use umbra_machine::DisplayHandle;
use umbra_machine::display::{Change, Frame, Renderer};

/// Writes a picture. The error is a sentence.
pub fn save(frame: &Frame, path: &Path) -> Result<(), Failure> {
    let failed = |what: &dyn std::fmt::Display| {
        Failure::host(format!("{}: {what}; try another path for the picture", path.display()))
    };
    if frame.pixels.is_empty() {
        return Err(Failure::host("the machine shows no picture to save; try a guest with a screen"));
    }
    let file = File::create(path).map_err(|error| failed(&error))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), frame.width as u32, frame.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let bytes: Vec<u8> = frame.pixels.iter().flat_map(|pixel| pixel.to_be_bytes().into_iter().skip(1)).collect();
    let mut writer = encoder.write_header().map_err(|error| failed(&error))?;
    writer.write_image_data(&bytes).and_then(|()| writer.finish()).map_err(|error| failed(&error))
}

/// `--record`: saves each new picture, at most 30 a second, as `NNNNNN.png` in a folder, until dropped.
pub struct Recorder {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The shortest time between two pictures.
const RECORD_EVERY: Duration = Duration::from_millis(33);

impl Recorder {
    /// Starts to record into a folder, which is made if it is not there.
    pub fn start(display: DisplayHandle, folder: &Path) -> Result<Recorder, Failure> {
        std::fs::create_dir_all(folder).map_err(|error| {
            Failure::host(format!("--record {}: {error}; try a folder that can be written", folder.display()))
        })?;
        let over = Arc::new(AtomicBool::new(false));
        let (ends, folder) = (over.clone(), folder.to_owned());
        let thread = std::thread::spawn(move || {
            let mut renderer = Renderer::default();
            let mut number = 0;
            loop {
                // The last look comes after the end, so that the last picture is always there.
                let last = ends.load(Ordering::SeqCst);
                if display.update(&mut renderer) != Change::None {
                    if let Err(failure) = save(renderer.frame(), &folder.join(format!("{number:06}.png"))) {
                        eprintln!("umbra: {failure}");
                        return;
                    }
                    number += 1;
                }
                if last {
                    return;
                }
                std::thread::sleep(RECORD_EVERY);
            }
        });
        Ok(Recorder { over, thread: Some(thread) })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A recorder that panicked has said so.
            let _ = thread.join();
        }
    }
}
