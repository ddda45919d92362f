//! Images of every kind: what is written is read again, what must not change does not, and damaged images are errors.

use super::empty_qcow2::empty_qcow2;
use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder that goes away.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("umbra-images-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn read(storage: &mut dyn Storage, at: u64, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    storage.read(at, &mut data).unwrap();
    data
}

#[test]
fn raw_images_are_written_through() {
    let folder = Folder::new();
    let path = folder.file("raw", &[1; 4096]);
    let mut image = open(&path, DiskFormat::Auto, DiskAccess::ReadWrite).unwrap();
    image.write(512, &[2; 512]).unwrap();
    image.flush().unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[510..514], [1, 1, 2, 2]);
    assert!(image.read(4000, &mut [0; 200]).is_err(), "beyond the end");
}

#[test]
fn a_written_image_has_one_user() {
    use DiskAccess::{ReadOnly, ReadWrite, Snapshot};
    let folder = Folder::new();
    let path = folder.file("raw", &[0; 4096]);
    let cases = [(ReadWrite, ReadWrite, false), (ReadWrite, ReadOnly, false), (Snapshot, ReadWrite, false)];
    for (first, second, both) in cases.into_iter().chain([(ReadOnly, Snapshot, true), (ReadOnly, ReadOnly, true)]) {
        let held = open(&path, DiskFormat::Raw, first).unwrap();
        let other = open(&path, DiskFormat::Raw, second);
        assert_eq!(other.is_ok(), both, "{first:?} {second:?}");
        if let Err(error) = other {
            assert!(matches!(error, ImageError::InUse(_)) && error.to_string().contains("try"), "{error}");
        }
        drop(held);
    }
}

#[test]
fn a_snapshot_forgets_and_read_only_refuses() {
    let folder = Folder::new();
    let bytes: Vec<u8> = (0..40_000_u32).map(|n| (n / 7) as u8).collect();
    let path = folder.file("raw", &bytes);
    let mut image = open(&path, DiskFormat::Raw, DiskAccess::Snapshot).unwrap();
    let mut want = bytes.clone();
    // Parts of grains, whole grains, the odd end.
    for (at, length, with) in [(100, 50, 1), (4000, 200, 2), (8192, 8192, 3), (39_900, 100, 4), (20_000, 1, 5)] {
        image.write(at, &vec![with; length]).unwrap();
        want[at as usize..at as usize + length].fill(with);
        assert_eq!(read(&mut *image, 0, 40_000), want);
    }
    assert_eq!(read(&mut *image, 4001, 9000), want[4001..13_001]);
    image.flush().unwrap();
    drop(image);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    let mut image = open(&path, DiskFormat::Raw, DiskAccess::ReadOnly).unwrap();
    assert!(image.is_read_only() && image.write(0, &[1]).is_err());
}

#[test]
fn qcow2_images_keep_what_is_flushed() {
    let folder = Folder::new();
    let path = folder.file("disk", &empty_qcow2(100, ""));
    let mut image = open(&path, DiskFormat::Auto, DiskAccess::ReadWrite).unwrap();
    assert_eq!(image.length(), 100 << 16);
    assert_eq!(read(&mut *image, 12_345, 99), [0; 99]);
    image.write(65_000, &[7; 2000]).unwrap();
    image.flush().unwrap();
    // What a killed process leaves behind, beside what a closed one does.
    let flushed = folder.file("copy", &std::fs::read(&path).unwrap());
    drop(image);
    for path in [path, flushed] {
        let mut image = open(&path, DiskFormat::Qcow2, DiskAccess::ReadOnly).unwrap();
        assert_eq!(read(&mut *image, 64_999, 2002), [vec![0], vec![7; 2000], vec![0]].concat());
    }
}

#[test]
fn backing_files_come_from_the_same_folder_only() {
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    folder.file("base", &[9; 1 << 16]);
    let outside = elsewhere.file("secret", &[9; 1 << 16]);
    let inside = folder.file("top", &empty_qcow2(1, "base"));
    let mut image = open(&inside, DiskFormat::Auto, DiskAccess::ReadWrite).unwrap();
    image.write(0, &[1; 512]).unwrap();
    assert_eq!(read(&mut *image, 511, 2), [1, 9]);
    let writer = open(&folder.0.join("base"), DiskFormat::Raw, DiskAccess::ReadWrite);
    assert!(matches!(writer, Err(ImageError::InUse(_))), "a base in use is not written");
    drop(image);
    let escaping = folder.file("escape", &empty_qcow2(1, outside.to_str().unwrap()));
    let link = folder.0.join("link");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    let linked = folder.file("linked", &empty_qcow2(1, "link"));
    let itself = folder.file("itself", &empty_qcow2(1, "itself"));
    for path in [escaping, linked, itself] {
        let error = open(&path, DiskFormat::Auto, DiskAccess::ReadOnly).map(|_| ()).unwrap_err();
        assert!(matches!(error, ImageError::Format { .. }), "{error}");
    }
}

#[test]
fn a_folder_is_a_fat_disk() {
    let folder = Folder::new();
    std::fs::create_dir(folder.0.join("sub folder")).unwrap();
    folder.file("Hello World.txt", b"hello");
    folder.file("sub folder/big.bin", &vec![0xA5; 300_000]);
    let mut image = open(&folder.0, DiskFormat::Auto, DiskAccess::ReadWrite).unwrap();
    assert!(image.is_read_only());
    assert_eq!(read(&mut *image, 510, 2), [0x55, 0xAA]);
    let length = image.length() - (63 << 9);
    let mut part = std::io::Cursor::new(read(&mut *image, 63 << 9, length as usize));
    let system = fatfs::FileSystem::new(&mut part, fatfs::FsOptions::new()).unwrap();
    let contents = |name: &str| {
        let mut bytes = Vec::new();
        system.root_dir().open_file(name).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(contents("Hello World.txt"), b"hello");
    assert_eq!(contents("sub folder/big.bin"), vec![0xA5; 300_000]);
}

#[test]
fn bad_images_are_sentences() {
    let folder = Folder::new();
    let short = folder.file("short", &[0; 511]);
    let cut = folder.file("cut", QCOW2_MAGIC);
    let gone = folder.0.join("gone");
    for (path, says) in [(short, "less than a sector"), (cut, "no good qcow2"), (gone, "No such file")] {
        let error = open(&path, DiskFormat::Auto, DiskAccess::ReadWrite).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("; try ") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn damaged_images_never_panic_or_reach_outside() {
    // A small generator with a fixed start: the same images every time.
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let folder = Folder::new();
    let good = empty_qcow2(64, "");
    // Offsets of what the driver believes: the header, and the first entries of each table.
    let places: Vec<usize> =
        (4..112).chain((1..4).flat_map(|cluster| (0..16).map(move |n| (cluster << 16) + n))).collect();
    let mut opened = 0;
    for round in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..1 + random() % 4 {
            let place = places[random() as usize % places.len()];
            bytes[place] = random() as u8;
        }
        if round % 5 == 0 {
            bytes.truncate(random() as usize % bytes.len());
        }
        let path = folder.file("damaged", &bytes);
        let Ok(mut image) = open(&path, DiskFormat::Qcow2, DiskAccess::ReadWrite) else { continue };
        opened += 1;
        let length = image.length();
        for _ in 0..6 {
            let at = random() % length.max(1);
            let bytes = (random() % 70_000).min(length - at) as usize;
            let mut data = vec![0; bytes];
            let _ = image.read(at, &mut data);
            let _ = image.write(at, &data);
        }
        let _ = image.flush();
    }
    assert!(opened > 50, "{opened} were good enough to be tried");
}
