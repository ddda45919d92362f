//! Disk images: sound ones, damaged ones, arbitrary bytes; as raw and qcow2, written, read-only and as snapshots, behind one another.
//!
//! An image is refused with a sentence or opened. Whatever it says, files of other folders are neither read nor written, and one
//! that is not to be written stays as it is; a sound one keeps what was written to it.

use arbitrary::{Result, Unstructured};
use std::path::{Path, PathBuf};
use umbra_devices::block::{SECTOR, Storage};
use umbra_machine::config::{DiskAccess, DiskFormat};
use umbra_machine::images::{
    self,
    empty_qcow2::{CLUSTER, empty_qcow2},
};

/// The target.
pub fn run(input: &[u8]) {
    let _ = choose(&mut Unstructured::new(input));
}

/// What lies in another folder: never to be seen.
const SECRET: &[u8] = b"nobody reads this through an image ";

/// Folders for the images and for what they must not reach; gone when dropped.
struct Folders(PathBuf);

impl Folders {
    fn new() -> Folders {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("umbra-fuzz-images-{}-{number}", std::process::id()));
        for folder in ["images", "secret"] {
            std::fs::create_dir_all(path.join(folder)).expect("a folder for temporary files");
        }
        Folders(path)
    }
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("room for temporary files");
        path
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn choose(input: &mut Unstructured<'_>) -> Result<()> {
    let folders = Folders::new();
    let secret = folders.write("secret/file", &SECRET.repeat(CLUSTER / SECRET.len()));
    let backing = match input.int_in_range(0..=5u8)? {
        0 => "base".to_owned(),
        1 => "../secret/file".to_owned(),
        2 => secret.display().to_string(),
        3 => "image".to_owned(),
        _ => String::new(),
    };
    folders.write("images/base", &[0xBA; 4 * CLUSTER]);
    let is_ours = input.int_in_range(0..=7u8)? != 0;
    let mut bytes = match is_ours {
        true => empty_qcow2(input.int_in_range(1..=64u64)?, &backing),
        false => input.bytes(input.len() / 2)?.to_vec(),
    };
    let damaged = damage(&mut bytes, input)? || !is_ours;
    let path = folders.write("images/image", &bytes);
    let format = *input.choose(&[DiskFormat::Auto, DiskFormat::Qcow2, DiskFormat::Qcow2, DiskFormat::Raw])?;
    let access =
        *input.choose(&[DiskAccess::ReadWrite, DiskAccess::ReadWrite, DiskAccess::ReadOnly, DiskAccess::Snapshot])?;
    match images::open(&path, format, access) {
        Err(error) => {
            let sentence = error.to_string();
            assert!(sentence.contains("; try ") && !sentence.contains('\n'), "{sentence}");
        }
        Ok(mut image) => {
            let written = use_it(&mut *image, input)?;
            drop(image);
            // What was flushed is there for whoever comes next.
            if let (false, DiskAccess::ReadWrite, Some((at, data))) = (damaged, access, written) {
                let mut again = open_again(&path, format);
                let mut found = vec![0; data.len()];
                again.read(at, &mut found).expect("a sound image is read");
                assert!(found == data, "what was flushed at {at:#x} is not there");
            }
        }
    }
    if access != DiskAccess::ReadWrite {
        assert!(std::fs::read(&path).is_ok_and(|now| now == bytes), "an image that is not to be written was");
    }
    let kept = std::fs::read(&secret).is_ok_and(|now| now == SECRET.repeat(CLUSTER / SECRET.len()));
    assert!(kept, "a file of another folder was written");
    Ok(())
}

fn open_again(path: &Path, format: DiskFormat) -> Box<dyn Storage> {
    images::open(path, format, DiskAccess::ReadOnly).unwrap_or_else(|error| panic!("it was good before: {error}"))
}

/// Reads and writes here and there; gives the last write that a flush followed.
fn use_it(image: &mut dyn Storage, input: &mut Unstructured<'_>) -> Result<Option<(u64, Vec<u8>)>> {
    let sectors = image.length() / SECTOR as u64;
    let (mut last, mut flushed) = (None, None);
    for _ in 0..input.int_in_range(0..=8u8)? {
        let at = input.int_in_range(0..=sectors.saturating_sub(1))?;
        let count = input.int_in_range(1..=140u64)?.min(sectors - at);
        let (at, bytes) = (at * SECTOR as u64, count as usize * SECTOR);
        match input.int_in_range(0..=4u8)? {
            0 => {
                if image.flush().is_ok() {
                    flushed = last.clone();
                }
            }
            1 | 2 => {
                let data = vec![input.arbitrary()?; bytes];
                if image.write(at, &data).is_ok() {
                    (last, flushed) = (Some((at, data)), None);
                } else {
                    (last, flushed) = (None, None);
                }
            }
            _ => {
                let mut data = vec![0; bytes];
                let seen = image.read(at, &mut data).is_ok();
                assert!(
                    !seen || !data.windows(SECRET.len()).any(|part| part == SECRET),
                    "a file of another folder is read"
                );
            }
        }
    }
    Ok(flushed)
}

/// Overwrites places that the driver believes (header, first entries of each table), then may cut the end off. Whether it did.
fn damage(image: &mut Vec<u8>, input: &mut Unstructured<'_>) -> Result<bool> {
    let mut damaged = false;
    for _ in 0..input.int_in_range(0..=4u8)? {
        let place = input.int_in_range(0..=3usize)? * CLUSTER + input.int_in_range(0..=127usize)?;
        let value: u64 = input.arbitrary()?;
        let value = if input.arbitrary()? { value & 0xFFFF } else { value };
        let length = *input.choose(&[1, 2, 4, 8])?;
        for (byte, new) in image.iter_mut().skip(place).zip(value.to_be_bytes().into_iter().skip(8 - length)) {
            damaged |= *byte != new;
            *byte = new;
        }
    }
    if input.ratio(1u8, 6u8)? {
        image.truncate(input.int_in_range(0..=5 * CLUSTER)?);
        damaged = true;
    }
    Ok(damaged)
}
