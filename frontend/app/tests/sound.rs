//! `--sound wav=FILE`: the PC speaker's tone in a file that any player takes, however the run ends.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};
use support::{Folder, HANG, command, exit, kernel, text, umbra};

/// Code that begins a tone of 239 clocks of the timer (4992.4 Hz).
#[rustfmt::skip]
const TONE: [u8; 16] = [
    0xB0, 0xB6, 0xE6, 0x43, // mov al, B6h; out 43h, al
    0xB0, 239, 0xE6, 0x42,  // mov al, 239; out 42h, al
    0xB0, 0, 0xE6, 0x42,    // mov al, 0; out 42h, al
    0xB0, 3, 0xE6, 0x61,    // mov al, 3; out 61h, al
];
/// Code that takes 20 ms on the virtual clock: mov ecx, 20,000,000; loop $.
const WAIT: [u8; 7] = [0xB9, 0x00, 0x2D, 0x31, 0x01, 0xE2, 0xFE];
/// Code that ends the tone.
const QUIET: [u8; 4] = [0xB0, 0, 0xE6, 0x61];

/// The left samples of a good WAV file. Its header tells the very length that it has.
fn left(path: &Path) -> Vec<i16> {
    let wav = hound::WavReader::open(path).unwrap();
    let spec = wav.spec();
    assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (2, 48_000, 16));
    let samples: Vec<i16> = wav.into_samples().map(Result::unwrap).collect();
    samples.chunks(2).map(|frame| frame[0]).collect()
}

fn rises(samples: &[i16]) -> usize {
    let clear: Vec<&i16> = samples.iter().filter(|sample| sample.abs() > 1000).collect();
    clear.windows(2).filter(|pair| *pair[0] < 0 && *pair[1] > 0).count()
}

#[test]
fn a_beep_is_recorded_the_same_by_both_engines() {
    let folder = Folder::new("beep");
    folder.write("beep", kernel(&[&TONE[..], &WAIT, &QUIET, &WAIT, &TONE, &WAIT, &exit(0)].concat()));
    let mut files = Vec::new();
    for engine in ["interp", "jit"] {
        let sound = format!("wav={engine}.wav");
        let run =
            ["run", "beep", "--headless", "-m", "16M", "--clock", "virtual", "--engine", engine, "--sound", &sound];
        let output = umbra(&folder.0, &run);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        files.push(std::fs::read(folder.0.join(format!("{engine}.wav"))).unwrap());
    }
    assert!(files[0] == files[1], "the engines' files differ");
    let samples = left(&folder.0.join("jit.wav"));
    // Two tones of 20 ms and the pause between them; then the cone comes to rest.
    assert!((2880..2880 + 2928).contains(&samples.len()), "{}", samples.len());
    // The cone begins at its rest and swings about it once the high pass has settled: 12.5 ms of each tone.
    for tone in [&samples[300..900], &samples[2220..2820]] {
        assert!((61..=63).contains(&rises(tone)), "{}", rises(tone));
    }
    assert!(
        samples[1500..1900].iter().all(|sample| sample.abs() < 3000),
        "a pause is silent, but for the cone's way back"
    );
    let file = files[0].len();
    assert_eq!(file, 4 * samples.len() + 44);
}

#[test]
fn a_recording_is_good_however_the_run_ends() {
    let folder = Folder::new("beeping");
    folder.write("beeping", kernel(&[&TONE[..], &HANG].concat()));
    let run = |wav: &str| ["run", "beeping", "--headless", "-m", "16M", "--sound", wav].map(str::to_owned);
    // Time is over.
    let words = run("wav=timeout.wav");
    let words: Vec<&str> = words.iter().map(String::as_str).chain(["--timeout", "1s"]).collect();
    let output = umbra(&folder.0, &words);
    assert_eq!(output.status.code(), Some(124), "{}", text(&output.stderr));
    let samples = left(&folder.0.join("timeout.wav"));
    assert!((40_000..60_000).contains(&samples.len()), "a second was heard: {}", samples.len());
    let half_a_second = rises(&samples[12_000..36_000]);
    assert!((2_495..=2_497).contains(&half_a_second), "{half_a_second}");
    // Ctrl-C, and an end without mercy.
    for (signal, name) in [(rustix::process::Signal::INT, "int.wav"), (rustix::process::Signal::KILL, "kill.wav")] {
        let words = run(&format!("wav={name}"));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut child = command(&folder.0, &words).spawn().unwrap();
        let (path, deadline) = (folder.0.join(name), Instant::now() + Duration::from_secs(60));
        while std::fs::metadata(&path).map_or(0, |file| file.len()) < 200_000 {
            assert!(Instant::now() < deadline, "{name} does not grow");
            std::thread::sleep(Duration::from_millis(20));
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("{signal:?} does not end it (a shell's background jobs inherit an ignored SIGINT)");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let samples = left(&path);
        assert!(samples.len() >= 24_000, "{name}: {}", samples.len());
        assert!(rises(&samples) > 2_400, "{name}: {}", rises(&samples));
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_machine() {
    let folder = Folder::new("full-disk");
    folder.write("beep", kernel(&[&TONE[..], &WAIT, &WAIT, &exit(3)].concat()));
    // A limit of the file's size is like a full disk, for everyone.
    let line = format!(
        "trap '' XFSZ; ulimit -f 1; exec {} run beep --headless -m 16M --clock virtual --sound wav=beep.wav",
        env!("CARGO_BIN_EXE_umbra")
    );
    let output = std::process::Command::new("sh").args(["-c", &line]).current_dir(&folder.0).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let errors = text(&output.stderr);
    let sentence = "; the recording ends here, the machine goes on";
    assert_eq!(errors.lines().filter(|line| line.ends_with(sentence)).count(), 1, "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    left(&folder.0.join("beep.wav"));
}
