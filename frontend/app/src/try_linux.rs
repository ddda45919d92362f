//! `umbra try linux`: fetches a Debian kernel and busybox through the host's package manager, builds an initrd, boots to a shell.
//!
//! What was fetched is kept in the user's cache, so that the second time needs no network.

pub mod cpio;
pub mod packages;

use crate::cli::{RunArgs, TryLinuxArgs};
use crate::exit_status::{ExitStatus, Failure};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the first process does.
const INIT: &str = "\
#!/bin/sh
export PATH=/bin HOME=/ PS1='umbra-guest:\\w# '
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox --install -s /bin
mount -t tmpfs tmp /tmp
exec </dev/console >/dev/console 2>&1
echo
echo \"Linux $(uname -r) with busybox, in Umbra. exit powers off; Ctrl-A x ends Umbra, Ctrl-A h helps.\"
echo
setsid cttyhack sh
poweroff -f
";

/// `umbra try linux`.
pub fn run(args: &TryLinuxArgs) -> Result<ExitStatus, Failure> {
    let folder = match &args.cache {
        Some(folder) => folder.clone(),
        None => default_cache(),
    };
    std::fs::create_dir_all(&folder)
        .map_err(|error| Failure::host(format!("{}: {error}; try --cache DIR", folder.display())))?;
    let kernel = folder.join(format!("vmlinuz-{}", args.kernel));
    let initrd = folder.join("initrd.cpio.gz");
    if !kernel.exists() {
        packages::check_host()?;
        let meta = if args.kernel == "cloud" { "linux-image-cloud-amd64" } else { "linux-image-amd64" };
        let package = packages::newest_kernel(meta, &folder)?;
        let file = packages::download(&package, &folder)?;
        write(&kernel, &packages::extract(&file, |name| name.starts_with("boot/vmlinuz-"))?)?;
        let _ = std::fs::remove_file(file);
    }
    if !initrd.exists() {
        packages::check_host()?;
        let file = packages::download("busybox-static", &folder)?;
        let busybox = packages::extract(&file, |name| name == "bin/busybox" || name == "usr/bin/busybox")?;
        write(&initrd, &build_initrd(&busybox)?)?;
        let _ = std::fs::remove_file(file);
    }
    let append = "console=ttyS0 quiet panic=-1";
    if args.fetch_only {
        println!(
            "umbra run --headless --kernel {} --initrd {} --append \"{append}\" -m {}",
            kernel.display(),
            initrd.display(),
            args.memory
        );
        return Ok(ExitStatus::GOOD);
    }
    eprintln!("umbra: boots {} with {}; a shell follows", kernel.display(), initrd.display());
    crate::run::run(&RunArgs {
        kernel: Some(kernel),
        initrd: vec![initrd],
        append: Some(append.to_owned()),
        memory: Some(args.memory),
        headless: true,
        ..RunArgs::default()
    })
}

/// A folder in the user's cache.
pub fn default_cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("umbra")
}

/// Writes a file whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let part = path.with_extension("part");
    let done = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path));
    done.map_err(|error| Failure::host(format!("{}: {error}; try --cache DIR", path.display())))
}

/// The initrd around a static busybox.
fn build_initrd(busybox: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut archive = cpio::Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.folder(folder);
    }
    archive.character_device("dev/console", 5, 1);
    archive.file("bin/busybox", 0o755, busybox);
    archive.link("bin/sh", "busybox");
    archive.file("init", 0o755, INIT.as_bytes());
    packed(archive)
}

/// An archive, finished and compressed.
pub fn packed(archive: cpio::Archive) -> Result<Vec<u8>, Failure> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed
        .write_all(&archive.finish())
        .and_then(|()| packed.finish())
        .map_err(|error| Failure::host(format!("the initrd cannot be packed: {error}; try again")))
}
