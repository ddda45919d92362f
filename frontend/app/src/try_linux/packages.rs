//! Debian packages through the host's package manager: which one, download with a progress bar, one file out of it.

use crate::exit_status::Failure;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Checks that the programs that this needs are there.
pub fn check_host() -> Result<(), Failure> {
    for program in ["apt-get", "apt-cache", "dpkg-deb"] {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            return Err(Failure::host(format!(
                "umbra try linux fetches Debian packages and there is no {program} here; try umbra run --kernel with a kernel of your own"
            )));
        }
    }
    Ok(())
}

/// Runs a program and gives what it prints.
fn ask(program: &str, arguments: &[&str], folder: &Path) -> Result<String, Failure> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::host(format!("{program}: {error}; try installing it")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = said.lines().next_back().unwrap_or("it failed").trim_start_matches("E: ").to_owned();
        return Err(Failure::host(format!("{program} {}: {said}; try apt-get update first", arguments.join(" "))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The kernel's own package behind a package that only names the newest one.
pub fn newest_kernel(meta: &str, folder: &Path) -> Result<String, Failure> {
    let text = ask("apt-cache", &["depends", meta], folder)?;
    let package = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).find(|name| {
        name.strip_prefix("linux-image-").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    package
        .map(str::to_owned)
        .ok_or_else(|| Failure::host(format!("the package {meta} names no kernel here; try apt-get update first")))
}

/// Downloads a package into the folder, with a progress bar on a terminal; gives its file.
pub fn download(package: &str, folder: &Path) -> Result<PathBuf, Failure> {
    let listed = ask("apt-get", &["download", "--print-uris", package], folder)?;
    let mut words = listed.lines().next_back().unwrap_or("").split_whitespace().skip(1);
    let (Some(name), size) = (words.next(), words.next().and_then(|size| size.parse::<u64>().ok())) else {
        return Err(Failure::host(format!(
            "apt-get knows no place to download {package} from; try apt-get update first"
        )));
    };
    let file = folder.join(name);
    if file.metadata().is_ok_and(|data| Some(data.len()) == size) {
        return Ok(file);
    }
    let bar = ProgressBar::new(size.unwrap_or(0));
    let style = ProgressStyle::with_template("{msg:32} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(package.to_owned());
    let mut child = Command::new("apt-get")
        .args(["download", "-qq", "-o", "APT::Sandbox::User=root", package])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::host(format!("apt-get: {error}; try installing it")))?;
    let status = loop {
        let here = [file.clone(), folder.join("partial").join(name)];
        let got = here.iter().filter_map(|file| file.metadata().ok()).map(|data| data.len()).max();
        bar.set_position(got.unwrap_or(0));
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) => std::thread::sleep(Duration::from_millis(60)),
            Err(_) => break false,
        }
    };
    bar.finish_and_clear();
    if !status || !file.exists() {
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        let said = said.lines().next_back().unwrap_or("it failed").trim_start_matches("E: ").to_owned();
        return Err(Failure::host(format!("apt-get download {package}: {said}; try apt-get update, or a network")));
    }
    Ok(file)
}

/// The first file of a package whose path fits.
pub fn extract(package: &Path, fits: impl Fn(&str) -> bool) -> Result<Vec<u8>, Failure> {
    let shown = package.display();
    let output = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| Failure::host(format!("dpkg-deb: {error}; try installing dpkg")))?;
    find_in_tar(&output.stdout, fits).ok_or_else(|| {
        Failure::host(format!("{shown}: the package does not hold what it should; try deleting the file"))
    })
}

/// A regular file in a tar archive (POSIX.1 ustar), by its name without the leading "./".
pub fn find_in_tar(tar: &[u8], fits: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
    let mut at = 0usize;
    while let Some(header) = tar.get(at..at.checked_add(512)?) {
        let text = |range: std::ops::Range<usize>| {
            let field = header.get(range).unwrap_or(&[]);
            let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
            String::from_utf8_lossy(field.get(..end).unwrap_or(&[])).into_owned()
        };
        let name = text(0..100);
        if name.is_empty() {
            return None;
        }
        let size = usize::from_str_radix(text(124..136).trim(), 8).ok()?;
        let start = at + 512;
        let is_file = matches!(header.get(156), Some(b'0' | 0));
        if is_file && fits(name.trim_start_matches("./")) {
            return tar.get(start..start.checked_add(size)?).map(<[u8]>::to_vec);
        }
        at = start.checked_add(size.checked_next_multiple_of(512)?)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, kind: u8, contents: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        bytes[124..135].copy_from_slice(format!("{:011o}", contents.len()).as_bytes());
        bytes[156] = kind;
        bytes.extend(contents);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    #[test]
    fn files_are_found_in_archives() {
        let mut tar = member("./boot/", b'5', b"");
        tar.extend(member("./boot/config-6", b'0', b"x=y"));
        tar.extend(member("./boot/vmlinuz-6", b'0', &[7; 700]));
        tar.extend([0; 1024]);
        assert_eq!(find_in_tar(&tar, |name| name.starts_with("boot/vmlinuz-")), Some(vec![7; 700]));
        assert_eq!(find_in_tar(&tar, |name| name == "boot/"), None);
        for cut in [0, 100, 512, 1300, 1600] {
            assert_eq!(find_in_tar(&tar[..cut], |name| name.starts_with("boot/vmlinuz-")), None, "{cut}");
        }
        assert_eq!(find_in_tar(&[0xFF; 1024], |_| true), None);
    }
}
