//! Each committed image is what its source assembles to, byte for byte, and each suite what its generator makes. Needs NASM
//! and Python; without them a test says that it did nothing. Leaves out: what the images do, which the machine's tests show.

use std::io::Write;
use std::path::Path;
use std::process::Command;

#[test]
fn images_are_what_their_sources_say() {
    if Command::new("nasm").arg("-v").output().is_err() {
        // Written past the test harness, which keeps what a passing test prints to itself.
        let _ = std::io::stderr()
            .write_all(b"SKIPPED: nasm is not installed; the committed images were not compared with their sources\n");
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images");
    std::fs::create_dir_all(&built).unwrap();
    let done = Command::new("sh").arg(here.join("build.sh")).arg(&built).output().unwrap();
    assert!(done.status.success(), "build.sh failed:\n{}", String::from_utf8_lossy(&done.stderr));
    for (name, image) in sources(here) {
        let ending = if name.starts_with("frame") { "frame" } else { "bin" };
        let fresh = std::fs::read(built.join(format!("{name}.{ending}"))).unwrap();
        assert!(fresh == image, "{name}: the committed image is not what its source says; run roms/build.sh");
        if name.starts_with("frame") {
            continue; // of the suites, which are not listed
        }
        // What no machine starts from by itself.
        let listed = match &*name {
            "vgabios" => Some(umbra_roms::VGA_BIOS),
            "check" => Some(umbra_roms::BIOS_CHECK),
            _ => umbra_roms::Rom::named(&name).map(|rom| rom.image),
        };
        assert!(listed == Some(&image[..]), "{name} is not listed in lib.rs");
    }
}

#[test]
fn suites_are_what_their_generator_says() {
    if Command::new("python3").arg("-V").output().is_err() {
        let _ = std::io::stderr()
            .write_all(b"SKIPPED: no python3; the committed suites were not compared with their generator\n");
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("suites");
    std::fs::create_dir_all(&built).unwrap();
    let done = Command::new("python3").arg("-B").arg(here.join("build.py")).arg("--out").arg(&built).output().unwrap();
    assert!(done.status.success(), "build.py failed:\n{}", String::from_utf8_lossy(&done.stderr));
    for entry in std::fs::read_dir(&built).unwrap().flatten() {
        let name = entry.file_name();
        let same = std::fs::read(here.join(&name)).is_ok_and(|image| image == std::fs::read(entry.path()).unwrap());
        assert!(same, "{}: the committed suite is not what its source says; run roms/suites/build.py", name.display());
    }
}

#[test]
fn fonts_are_what_is_drawn() {
    if Command::new("python3").arg("--version").output().is_err() {
        let _ = std::io::stderr().write_all(b"SKIPPED: python3 is not installed; the fonts were not built again\n");
        return;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fonts");
    std::fs::create_dir_all(&built).unwrap();
    let done = Command::new("python3").arg(here.join("fonts/draw.py")).arg(&built).output().unwrap();
    assert!(done.status.success(), "draw.py failed:\n{}", String::from_utf8_lossy(&done.stderr));
    let committed = [
        ("8x16", &umbra_roms::FONT_8X16[..]),
        ("8x14", &umbra_roms::FONT_8X14[..]),
        ("8x8", &umbra_roms::FONT_8X8[..]),
    ];
    for (name, font) in committed {
        assert!(std::fs::read(built.join(format!("{name}.bin"))).unwrap() == font, "{name}: run roms/fonts/draw.py");
    }
}

/// The name and committed image of every source.
fn sources(here: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for folder in ["demo", "vga", "bios", "bios/check", "vgabios", "tests", "suites"] {
        for entry in std::fs::read_dir(here.join(folder)).expect("the sources' folder").flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "asm") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let ending = if folder == "suites" { "frame" } else { "bin" };
                let image = std::fs::read(path.with_extension(ending));
                found.push((name, image.unwrap_or_default()));
            }
        }
    }
    found
}
