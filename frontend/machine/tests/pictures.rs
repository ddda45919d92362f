//! The VGA test ROM's pictures, one after the other, against those kept in `pictures/` as PNG files. `UMBRA_BLESS=1` writes
//! them anew: then look at each before it is committed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use umbra_machine::config::{Clock, MachineConfig};
use umbra_machine::display::Frame;
use umbra_machine::{KeyCode, Machine, MachineBuilder, MouseButtons, RunEnd, RunLimits};

fn machine() -> Machine {
    let rom = &umbra_machine::roms::VGA;
    let config = MachineConfig { clock: Clock::Virtual, ..MachineConfig::default() };
    MachineBuilder::from_config(&config).rom(rom.name, rom.image).build().unwrap()
}

fn path(number: u8) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/pictures/{number:02}.png"))
}

fn save(frame: &Frame, number: u8) {
    let mut encoder =
        png::Encoder::new(BufWriter::new(File::create(path(number)).unwrap()), frame.width as u32, frame.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    let bytes: Vec<u8> = frame.pixels.iter().flat_map(|pixel| pixel.to_be_bytes().into_iter().skip(1)).collect();
    encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
}

fn load(number: u8) -> Frame {
    let mut reader = png::Decoder::new(BufReader::new(File::open(path(number)).unwrap())).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    let pixels = bytes.as_chunks::<3>().0.iter().map(|&[red, green, blue]| u32::from_be_bytes([0, red, green, blue]));
    Frame { width: info.width as usize, height: info.height as usize, pixels: pixels.collect() }
}

/// Runs to the next picture; gives its number.
fn next_picture(machine: &mut Machine) -> u8 {
    let limits = RunLimits { deadline: Instant::now().checked_add(Duration::from_secs(120)), ..RunLimits::default() };
    match machine.run(limits) {
        RunEnd::GuestExit(status) => status >> 1,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_picture_is_the_one_that_was_kept() {
    let bless = std::env::var_os("UMBRA_BLESS").is_some();
    let mut machine = machine();
    let mut wrong = Vec::new();
    for number in 1..=25 {
        assert_eq!(next_picture(&mut machine), number);
        let frame = machine.display().frame();
        if bless {
            save(&frame, number);
        } else if frame != load(number) {
            wrong.push(number);
        }
        machine.input().press(&[KeyCode::Space]);
    }
    assert!(wrong.is_empty(), "pictures {wrong:?} are not as they were kept; UMBRA_BLESS=1 writes them anew");

    // The last one follows the mouse: from (160, 100) by (20, 10), pixels of mode 13h being two dots wide and high.
    let input = machine.input();
    input.mouse([20, 10, 0], MouseButtons::LEFT);
    let until = machine.now().after(50_000_000);
    machine.run_until(until);
    let frame = machine.display().frame();
    // Colour 9, for the left button, is DAC colour 9 of the EGA's 64: bright blue's low part.
    for y in 0..frame.height {
        for x in 0..frame.width {
            let inside = (2 * 180..2 * 190).contains(&x) && (2 * 110..2 * 120).contains(&y);
            assert_eq!(frame.line(y)[x], if inside { 0x00_00FF } else { 0 }, "({x}, {y})");
        }
    }
    input.press(&[KeyCode::Escape]);
    assert_eq!(next_picture(&mut machine), 0);
}
