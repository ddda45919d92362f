//! Each committed test kernel is what its source assembles to, byte for byte. Needs NASM; without it the test says that it
//! did nothing. Leaves out: what the kernels do, which `conformance.rs` shows.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::path::Path;
use std::process::Command;

#[test]
fn kernels_are_what_their_sources_say() {
    if Command::new("nasm").arg("-v").output().is_err() {
        // Written past the test harness, which keeps what a passing test prints to itself.
        let _ = std::io::stderr()
            .write_all(b"SKIPPED: nasm is not installed; the committed kernels were not compared with their sources\n");
        return;
    }
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-suites/kernels");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels");
    std::fs::create_dir_all(&built).unwrap();
    let done = Command::new("sh").arg(kernels.join("build.sh")).arg(&built).output().unwrap();
    assert!(done.status.success(), "build.sh failed:\n{}", String::from_utf8_lossy(&done.stderr));
    let mut count = 0;
    for entry in std::fs::read_dir(&built).unwrap().flatten() {
        let committed = std::fs::read(kernels.join(entry.file_name())).unwrap();
        assert!(
            std::fs::read(entry.path()).unwrap() == committed,
            "{:?}: run test-suites/kernels/build.sh",
            entry.file_name()
        );
        count += 1;
    }
    assert!(count > 0);
}
