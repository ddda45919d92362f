//! Disk, CD-ROM and floppy images: files of the host as [`Storage`] for a medium; and small ones for flash memory.
//!
//! ```text
//!  raw ────────────┐
//!  qcow2 (imago) ──┼──► Overlay, if nothing is to be written back ──► Reported, if the guest's memory is paged ──► Medium
//!  folder as FAT ──┘
//! ```
//!
//! An image that is written is locked, so that a second machine refuses it; images that are only read may be shared among
//! readers. A hostile image is an error or reads as garbage; it never reaches files outside its own folder.
//!
//! Leaves out: other formats (vmdk, vdi), network disks, discarding. Called by `builder`, `uefi` and by media changes.

pub mod empty_qcow2;
mod folder;
mod overlay;
mod qcow2;
mod qcow2_check;
mod raw;
mod reported;
mod small_file;

pub use small_file::{FileProblem, FileStart, open_file};

use crate::config::{DiskAccess, DiskFormat};
use reported::Reported;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use umbra_devices::block::{ReadOnly, SECTOR, Storage};
use umbra_mmu::{DiskImage, GuestMemory};

/// How a qcow2 image begins.
const QCOW2_MAGIC: &[u8] = b"QFI\xfb";

/// Why an image cannot be used. Each is a sentence.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file cannot be opened.
    #[error("{file}: {problem}; try another path, or ,ro for a file that cannot be written", file = .file.display())]
    Open {
        /// The file.
        file: PathBuf,
        /// What the host says.
        problem: io::Error,
    },
    /// Another machine uses it.
    #[error("{file}: another machine is using this image; try to end it, or ,snapshot on a copy", file = .0.display())]
    InUse(PathBuf),
    /// The format's driver does not take it.
    #[error("{file}: this is no good {format} image ({problem}); try qemu-img check, or format=raw", file = .file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// The format.
        format: &'static str,
        /// What is wrong.
        problem: io::Error,
    },
    /// It holds less than a sector.
    #[error("{file}: {bytes} bytes are less than a sector; try an image that is whole", file = .file.display())]
    TooSmall {
        /// The file.
        file: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// No floppy disk is so long.
    #[error("{file}: {bytes} bytes are more than any floppy disk holds; try --disk or --cdrom", file = .file.display())]
    NoFloppy {
        /// The file.
        file: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// A folder that does not fit a FAT disk.
    #[error("{folder}: {problem}; try a folder with less in it", folder = .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        problem: io::Error,
    },
}

/// What kind of file it is, by its first bytes.
fn format_of(file: &mut File) -> io::Result<DiskFormat> {
    let mut head = [0; 4];
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            bytes => filled += bytes,
        }
    }
    Ok(if head == QCOW2_MAGIC { DiskFormat::Qcow2 } else { DiskFormat::Raw })
}

/// Opens an image.
pub fn open(path: &Path, format: DiskFormat, access: DiskAccess) -> Result<Box<dyn Storage>, ImageError> {
    open_twice(path, format, access).map(|(storage, _)| storage)
}

/// Opens an image for a medium of a guest whose memory may be paged: pages that hold what the image holds need no place elsewhere.
pub fn open_for(
    memory: &GuestMemory,
    path: &Path,
    format: DiskFormat,
    access: DiskAccess,
) -> Result<Box<dyn Storage>, ImageError> {
    let (storage, beside) = open_twice(path, format, access)?;
    Ok(match memory.add_disk(beside) {
        Some(copies) => Box::new(Reported { storage, copies, is_written: access == DiskAccess::ReadWrite }),
        None => storage,
    })
}

/// An image, and what reads it beside.
type Opened = (Box<dyn Storage>, Arc<dyn DiskImage>);

/// Opens an image, also for whoever reads beside. With a snapshot that is what lies behind it, which does not change.
fn open_twice(path: &Path, format: DiskFormat, access: DiskAccess) -> Result<Opened, ImageError> {
    let name = path.display().to_string();
    let failed = |problem| ImageError::Open { file: path.to_owned(), problem };
    if path.is_dir() {
        let storage = folder::build(path)?;
        let beside = storage.beside(&name).map_err(failed)?;
        return Ok(match access {
            DiskAccess::Snapshot => (snapshot(path, Box::new(storage))?, beside),
            DiskAccess::ReadWrite | DiskAccess::ReadOnly => (Box::new(ReadOnly(storage)), beside),
        });
    }
    let writes = access == DiskAccess::ReadWrite;
    let mut file = File::options().read(true).write(writes).open(path).map_err(failed)?;
    raw::lock(&file, path, writes)?;
    let format = match format {
        DiskFormat::Auto => format_of(&mut file).map_err(failed)?,
        format => format,
    };
    let (storage, beside): (Box<dyn Storage>, _) = match format {
        DiskFormat::Qcow2 => {
            let image = qcow2::Qcow2Image::open(file, path, writes)?;
            let beside = image.beside(&name);
            (Box::new(image), beside)
        }
        DiskFormat::Raw | DiskFormat::Auto => {
            let image = raw::RawFile::new(file).map_err(failed)?;
            let beside = image.beside(&name).map_err(failed)?;
            (Box::new(image), beside)
        }
    };
    if storage.length() < SECTOR as u64 {
        return Err(ImageError::TooSmall { file: path.to_owned(), bytes: storage.length() });
    }
    let storage = match access {
        DiskAccess::ReadWrite => storage,
        DiskAccess::ReadOnly => Box::new(ReadOnly(storage)),
        DiskAccess::Snapshot => snapshot(path, storage)?,
    };
    Ok((storage, beside))
}

fn snapshot(path: &Path, base: Box<dyn Storage>) -> Result<Box<dyn Storage>, ImageError> {
    let overlay = overlay::Overlay::new(base);
    Ok(Box::new(overlay.map_err(|problem| ImageError::Open { file: path.to_owned(), problem })?))
}

#[cfg(test)]
mod tests;
