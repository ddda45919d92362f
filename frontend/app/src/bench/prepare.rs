//! Brings what the bench runs into a folder: Debian's kernel and busybox through the host's package manager, guestbench compiled by
//! gcc from the source in this program, and the initrd around both. What is there already is kept.

use crate::exit_status::Failure;
use crate::try_linux::cpio::Archive;
use crate::try_linux::{packages, packed, write};
use std::path::Path;
use std::process::{Command, Stdio};

/// guestbench's source.
const SOURCE: &str = include_str!("../../../../test-suites/guests/guestbench.c");
/// The guest's first process: says BOOT-OK, runs guestbench with the words of `gb=`, says ALL-DONE, switches off.
const INIT: &str = include_str!("../../../../test-suites/guests/bench-init.sh");

/// Makes sure that the folder holds the guest.
pub fn guest(folder: &Path, kernel: &str, wide: bool) -> Result<(), Failure> {
    let (bits, architecture) = if wide { (64, "amd64") } else { (32, "i386") };
    let paths = [
        folder.join(format!("kernels/vmlinuz-{kernel}")),
        folder.join(format!("bin/guestbench{bits}")),
        folder.join(format!("img/initrd{bits}.cpio.gz")),
    ];
    for part in ["kernels", "bin", "img"] {
        let path = folder.join(part);
        std::fs::create_dir_all(&path)
            .map_err(|error| Failure::host(format!("{}: {error}; try --guests DIR", path.display())))?;
    }
    let [vmlinuz, guestbench, initrd] = &paths;
    if !vmlinuz.exists() {
        packages::check_host()?;
        let meta = match kernel {
            "686" => "linux-image-686:i386",
            "pae" => "linux-image-686-pae:i386",
            "amd64" => "linux-image-amd64",
            _ => "linux-image-cloud-amd64",
        };
        let mut package = packages::newest_kernel(meta, folder)?;
        if !wide && !package.contains(':') {
            package += ":i386";
        }
        let file = packages::download(&package, folder)?;
        write(vmlinuz, &packages::extract(&file, |name| name.starts_with("boot/vmlinuz-"))?)?;
        let _ = std::fs::remove_file(file);
    }
    if !guestbench.exists() {
        compile(folder, guestbench, wide)?;
    }
    if !initrd.exists() {
        packages::check_host()?;
        let file = packages::download(&format!("busybox-static:{architecture}"), folder)?;
        let busybox = packages::extract(&file, |name| name == "bin/busybox" || name == "usr/bin/busybox")?;
        let program = std::fs::read(guestbench)
            .map_err(|error| Failure::host(format!("{}: {error}; try deleting it", guestbench.display())))?;
        write(initrd, &pack(&busybox, &program)?)?;
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

fn compile(folder: &Path, to: &Path, wide: bool) -> Result<(), Failure> {
    let source = folder.join("guestbench.c");
    write(&source, SOURCE.as_bytes())?;
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-static", "-s"]);
    gcc.args(if wide { &["-m64"][..] } else { &["-m32", "-march=i686", "-msse2", "-mfpmath=sse"] });
    let done = gcc.arg("-o").arg(to).arg(&source).stdin(Stdio::null()).output();
    let advice = if wide { "apt-get install gcc libc6-dev" } else { "apt-get install gcc-multilib" };
    match done {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().next().unwrap_or("no words").to_owned();
            Err(Failure::host(format!("gcc cannot build guestbench ({first}); try {advice}")))
        }
        Err(error) => Err(Failure::host(format!("gcc: {error}; try {advice}"))),
    }
}

fn pack(busybox: &[u8], guestbench: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp", "bench"] {
        archive.folder(folder);
    }
    archive.character_device("dev/console", 5, 1);
    archive.file("bin/busybox", 0o755, busybox);
    for applet in ["sh", "cat", "mount", "poweroff", "sed", "sleep", "uname", "true"] {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    archive.file("bench/guestbench", 0o755, guestbench);
    archive.file("init", 0o755, INIT.as_bytes());
    packed(archive)
}
