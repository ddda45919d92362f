//! A qcow2 image through the `imago` crate, with what a hostile image may want kept in: backing and data files only from
//! the image's own folder, tables that are checked before anything is written, and a driver that fails instead of panicking.

use super::{ImageError, qcow2_check, raw};
use imago::file::File as ImagoFile;
use imago::format::gate::ImplicitOpenGate;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, Storage as _, StorageOpenOptions};
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use umbra_devices::block::Storage;
use umbra_mmu::DiskImage;

/// How many images may lie behind one another.
const MAX_DEPTH: usize = 16;

/// An open image.
pub(super) struct Qcow2Image {
    access: Arc<FormatAccess<ImagoFile>>,
    length: u64,
    /// The locks of the files behind it.
    _locks: Vec<File>,
}

impl Qcow2Image {
    pub fn open(file: File, path: &Path, writes: bool) -> Result<Qcow2Image, ImageError> {
        let failed = |problem| ImageError::Format { file: path.to_owned(), format: "qcow2", problem };
        let mut locks = Vec::new();
        let access = guarded(|| {
            if writes {
                qcow2_check::check(&file)?;
            }
            let options = StorageOpenOptions::new().write(writes).filename(path);
            let storage = ImagoFile::from_open_file(file, options)?;
            let gate = SameFolder { folder: folder_of(path)?, depth: 0, locks: &mut locks };
            Ok(FormatAccess::new(Qcow2::<ImagoFile>::builder(storage).write(writes).open(gate)?))
        });
        let access = Arc::new(access.map_err(failed)?);
        let length = access.size();
        Ok(Qcow2Image { access, length, _locks: locks })
    }
}

/// The same image, for whoever reads beside.
struct Beside {
    access: Arc<FormatAccess<ImagoFile>>,
    name: String,
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Beside({})", self.name)
    }
}

impl DiskImage for Beside {
    fn name(&self) -> &str {
        &self.name
    }
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        guarded(|| self.access.read(into, at))
    }
}

impl Qcow2Image {
    /// What reads this image beside its medium.
    pub fn beside(&self, name: &str) -> Arc<dyn DiskImage> {
        Arc::new(Beside { access: Arc::clone(&self.access), name: name.to_owned() })
    }
}

impl Storage for Qcow2Image {
    fn length(&self) -> u64 {
        self.length
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        guarded(|| self.access.read(into, at))
    }
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        guarded(|| self.access.write(from, at))
    }
    fn flush(&mut self) -> io::Result<()> {
        guarded(|| {
            self.access.flush()?;
            self.access.sync()
        })
    }
}

/// A panic in the driver, which only a damaged image can cause, is an error like any other.
fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::InvalidData, "the image is damaged")))
}

fn folder_of(path: &Path) -> io::Result<PathBuf> {
    let whole = path.canonicalize()?;
    whole.parent().map(Path::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Lets an image open files of one folder only.
struct SameFolder<'a> {
    folder: PathBuf,
    depth: usize,
    locks: &'a mut Vec<File>,
}

impl SameFolder<'_> {
    /// The file to be opened, if it may be; it is locked against writers.
    fn check(&mut self, path: Option<&Path>) -> io::Result<()> {
        let refused = |what: String| io::Error::new(io::ErrorKind::PermissionDenied, what);
        let path = path.ok_or_else(|| refused("it names no file behind it".into()))?;
        if self.depth >= MAX_DEPTH {
            return Err(refused("too many images lie behind one another".into()));
        }
        if folder_of(path)? != self.folder {
            return Err(refused(format!("the file behind it, {}, is in another folder", path.display())));
        }
        let file = File::open(path)?;
        raw::lock(&file, path, false).map_err(|error| refused(error.to_string()))?;
        self.locks.push(file);
        Ok(())
    }
}

impl ImplicitOpenGate<ImagoFile> for SameFolder<'_> {
    fn open_format<F: FormatDriverBuilder<ImagoFile>>(&mut self, builder: F) -> io::Result<FormatAccess<ImagoFile>> {
        self.check(builder.get_image_path().as_deref())?;
        let gate = SameFolder { folder: self.folder.clone(), depth: self.depth + 1, locks: self.locks };
        Ok(FormatAccess::new(builder.open(gate)?))
    }

    fn open_storage(&mut self, options: StorageOpenOptions) -> io::Result<ImagoFile> {
        self.check(options.get_filename())?;
        ImagoFile::open(options)
    }
}
