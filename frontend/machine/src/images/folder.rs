//! A folder as a read-only disk: a partition table and one FAT file system with copies of the folder's files, as they were
//! when the machine was built, in a file without a name.
//!
//! Leaves out: links (they are followed if they lead to files, folders behind links are not), special files, changes after
//! the start.

use super::ImageError;
use super::raw::RawFile;
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use umbra_devices::block::SECTOR;

/// Where the partition begins: one track in, as DOS puts it.
const PARTITION: u64 = 63 * SECTOR as u64;
/// The most bytes of such a disk.
const MAX_BYTES: u64 = 32 << 30;
/// The least: a FAT16 file system of useful size.
const MIN_BYTES: u64 = 16 << 20;
/// The deepest folder.
const MAX_DEPTH: usize = 32;

/// Builds the disk, which is not to be written.
pub(super) fn build(path: &Path) -> Result<RawFile, ImageError> {
    let failed = |problem| ImageError::Folder { folder: path.to_owned(), problem };
    let need = need(path, 0).map_err(failed)?;
    if need > MAX_BYTES {
        return Err(failed(io::Error::other("its files need more than 32 GiB")));
    }
    let bytes = (need + need / 16).max(MIN_BYTES).next_multiple_of(1 << 20);
    let file = fill(path, bytes).map_err(failed)?;
    RawFile::new(file).map_err(failed)
}

/// What the files take, each rounded up to large clusters.
fn need(folder: &Path, depth: usize) -> io::Result<u64> {
    let mut sum = 64 << 10;
    for entry in entries(folder)? {
        let data = std::fs::metadata(&entry)?;
        sum += match depth {
            _ if data.is_file() => data.len().next_multiple_of(32 << 10) + (1 << 10),
            0..MAX_DEPTH if data.is_dir() && !entry.is_symlink() => need(&entry, depth + 1)?,
            _ => 0,
        };
        if sum > MAX_BYTES {
            break;
        }
    }
    Ok(sum)
}

/// A folder's entries by name, so that the same folder makes the same disk. What cannot be looked at is left out.
fn entries(folder: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| std::fs::metadata(path).is_ok());
    paths.sort();
    Ok(paths)
}

fn fill(path: &Path, bytes: u64) -> io::Result<File> {
    let file = tempfile::tempfile()?;
    file.set_len(PARTITION + bytes)?;
    file.write_all_at(&partition_table((bytes / SECTOR as u64) as u32), 0)?;
    let mut part = Part { file: file.try_clone()?, at: 0, length: bytes };
    format_volume(&mut part, FormatVolumeOptions::new().volume_label(*b"UMBRA      "))?;
    part.seek(SeekFrom::Start(0))?;
    let system = FileSystem::new(part, FsOptions::new())?;
    copy(path, &system.root_dir(), 0)?;
    system.unmount()?;
    Ok(file)
}

fn copy<T: Read + Write + Seek>(from: &Path, to: &fatfs::Dir<'_, T>, depth: usize) -> io::Result<()> {
    for entry in entries(from)? {
        let Some(name) = entry.file_name().and_then(|name| name.to_str()) else { continue };
        let data = std::fs::metadata(&entry)?;
        if data.is_file() {
            if data.len() > u64::from(u32::MAX) {
                return Err(io::Error::other(format!("{name} is 4 GiB or more, which FAT cannot hold")));
            }
            io::copy(&mut File::open(&entry)?, &mut to.create_file(name)?)?;
        } else if data.is_dir() && !entry.is_symlink() && depth < MAX_DEPTH {
            copy(&entry, &to.create_dir(name)?, depth + 1)?;
        }
    }
    Ok(())
}

/// A master boot record with one FAT partition that is given by sector numbers.
fn partition_table(sectors: u32) -> [u8; SECTOR] {
    let mut table = [0; SECTOR];
    let mut entry = [0x00, 0xFE, 0xFF, 0xFF, 0x0E, 0xFE, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0];
    // FAT32 from 512 MiB on, as the formatter chooses.
    if sectors >= 1 << 20 {
        entry[4] = 0x0C;
    }
    entry[8..12].copy_from_slice(&((PARTITION / SECTOR as u64) as u32).to_le_bytes());
    entry[12..].copy_from_slice(&sectors.to_le_bytes());
    table[446..462].copy_from_slice(&entry);
    table[510..].copy_from_slice(&[0x55, 0xAA]);
    table
}

/// The partition as a stream.
struct Part {
    file: File,
    at: u64,
    length: u64,
}

impl Part {
    fn room(&self, wanted: usize) -> usize {
        (self.length - self.at).min(wanted as u64) as usize
    }
}

impl Read for Part {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let room = self.room(into.len());
        let bytes = self.file.read_at(into.get_mut(..room).unwrap_or_default(), PARTITION + self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}

impl Write for Part {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let room = self.room(from.len());
        let bytes = self.file.write_at(from.get(..room).unwrap_or(from), PARTITION + self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Part {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(from_end) => self.length.checked_add_signed(from_end),
            SeekFrom::Current(from_here) => self.at.checked_add_signed(from_here),
        };
        self.at = to.filter(|&at| at <= self.length).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
