//! Pictures of the screen as PNG files: `--screenshot` at the end of a run, `--record` while it goes on.

use crate::exit_status::Failure;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use umbra_machine::display::Frame;

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
