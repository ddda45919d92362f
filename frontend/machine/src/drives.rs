//! From the images that a configuration names to drives on cables, and the bell by which a medium's thread tells the board
//! that something is done.
//!
//! IDE disks take the places primary 0 and 1, secondary 0 and 1 in their order; the CD-ROM drive, if there is one, has
//! secondary 0. Floppy drives are there if a disk is, and on machines that start from firmware. The boot order for firmware lists them as they were named, or by kind as `[boot] order` says. Called by `builder` and by media changes.

use crate::board::SharedBoard;
use crate::config::{BootFrom, ConfigError, DiskAccess, DiskConfig, DiskFormat, DiskInterface, MachineConfig};
use crate::images::{self, ImageError};
use crate::time::GuestClock;
use crate::wiring;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use umbra_devices::ata::{Cdrom, Disk, Drive};
use umbra_devices::block::{Completion, Medium, Notices, Storage};
use umbra_devices::fdc82077::{DriveKind, FloppyDrive, Format};
use umbra_devices::pci::ahci;
use umbra_devices::pci::piix3_ide::Place;
use umbra_mmu::GuestMemory;

/// The first floppy drive, for firmware.
const FLOPPY_PATH: &str = "/pci@i0cf8/isa@1/fdc@03f0/floppy@0";
/// Where a CD-ROM drive is.
pub const CDROM_PLACE: Place = Place { channel: 1, second: false };
/// Where IDE disks go, in this order.
const DISK_PLACES: [Place; 4] = [
    Place { channel: 0, second: false },
    Place { channel: 0, second: true },
    Place { channel: 1, second: false },
    Place { channel: 1, second: true },
];

/// How media are opened for one machine.
#[derive(Clone)]
pub struct MediaHost {
    completion: Completion,
    notices: Notices,
    memory: GuestMemory,
}

impl std::fmt::Debug for MediaHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MediaHost")
    }
}

impl MediaHost {
    /// For a machine with this clock; the bell is connected when there is a board.
    pub(crate) fn new(
        clock: &Arc<GuestClock>,
        bell: &Arc<BoardBell>,
        notices: Notices,
        memory: GuestMemory,
    ) -> MediaHost {
        let completion = if clock.is_virtual() {
            Completion::AtTick
        } else {
            let bell = bell.clone();
            Completion::WhenDone(Arc::new(move || bell.ring()))
        };
        MediaHost { completion, notices, memory }
    }

    /// Opens a disk's image as a medium.
    pub fn open(&self, path: &Path, format: DiskFormat, access: DiskAccess) -> Result<Medium, ImageError> {
        self.medium(path, images::open_for(&self.memory, path, format, access)?)
    }

    fn medium(&self, path: &Path, storage: Box<dyn Storage>) -> Result<Medium, ImageError> {
        let failed = |problem| ImageError::Open { file: path.to_owned(), problem };
        let name = path.display().to_string();
        Medium::new(&name, storage, self.completion.clone(), self.notices.clone()).map_err(failed)
    }

    /// Opens a CD-ROM's image.
    pub fn open_cdrom(&self, path: &Path) -> Result<Medium, ImageError> {
        self.open(path, DiskFormat::Auto, DiskAccess::ReadOnly)
    }

    /// Opens a floppy disk's image; one that cannot be written is write-protected.
    pub fn open_floppy(&self, path: &Path) -> Result<Medium, ImageError> {
        let writable = !path.is_dir() && std::fs::OpenOptions::new().write(true).open(path).is_ok();
        let access = if writable { DiskAccess::ReadWrite } else { DiskAccess::ReadOnly };
        // Memory does not rely on it: it may be taken out, and be needed elsewhere at once.
        let disk = self.medium(path, images::open(path, DiskFormat::Auto, access)?)?;
        match Format::best(disk.length()) {
            Some(_) => Ok(disk),
            None => Err(ImageError::NoFloppy { file: path.to_owned(), bytes: disk.length() }),
        }
    }
}

/// The bell that media ring: the board, once it is there.
pub(crate) struct BoardBell {
    board: OnceLock<Weak<SharedBoard>>,
    clock: Arc<GuestClock>,
}

impl BoardBell {
    pub fn new(clock: &Arc<GuestClock>) -> Arc<BoardBell> {
        Arc::new(BoardBell { board: OnceLock::new(), clock: clock.clone() })
    }
    pub fn connect(&self, board: &Arc<SharedBoard>) {
        // It is connected once, by the builder.
        let _ = self.board.set(Arc::downgrade(board));
    }
    /// Lets the board see what is done. Called from a medium's thread.
    fn ring(&self) {
        let Some(shared) = self.board.get().and_then(Weak::upgrade) else { return };
        let mut board = shared.lock();
        board.media_news();
        let now = self.clock.host_driven_now().unwrap_or(board.now());
        board.advance(now);
        if board.horizon_is_late() || board.has_request() {
            shared.changed.notify_all();
        }
    }
}

/// The drives of a machine.
#[derive(Debug, Default)]
pub struct Drives {
    /// IDE: by channel, then place.
    pub ide: [[Option<Drive>; 2]; 2],
    /// Disks of the AHCI adapter, by port.
    pub ahci: [Option<Drive>; ahci::PORTS],
    /// Floppy drives A and B, if there is a controller.
    pub floppies: Option<[Option<FloppyDrive>; 2]>,
    /// Where firmware is to look for a system, first things first (OpenFirmware device paths, a line each).
    pub boot_order: Vec<String>,
}

impl Drives {
    /// Opens all images of a configuration.
    pub(crate) fn open(config: &MachineConfig, host: &MediaHost) -> Result<Drives, crate::BuildError> {
        let mut drives = Drives::default();
        let mut order = Vec::new();
        let has_cdrom = wants_cdrom(config);
        let mut places = DISK_PLACES.into_iter().filter(|&place| !(has_cdrom && place == CDROM_PLACE));
        for (number, disk) in config.disks.iter().enumerate() {
            let DiskConfig { file, interface, format, access } = disk;
            let medium = host.open(file, *format, *access)?;
            let drive = Drive::Disk(Disk::new(medium, &serial(config.seed, number)));
            match interface {
                DiskInterface::Ide => {
                    let place = places.next().ok_or(ConfigError::TooManyDisks)?;
                    order.push((BootFrom::Disk, ide_path(place)));
                    drives.ide[usize::from(place.channel)][usize::from(place.second)] = Some(drive);
                }
                // Virtio disks are refused before this.
                DiskInterface::Ahci | DiskInterface::Virtio => {
                    let free = drives.ahci.iter().position(Option::is_none);
                    let port = free.ok_or(ConfigError::TooManyAhci)?;
                    order.push((BootFrom::Disk, ahci_path(port)));
                    drives.ahci[port] = Some(drive);
                }
            }
        }
        if has_cdrom {
            let medium = config.boot.cdrom.as_ref().map(|path| host.open_cdrom(path)).transpose()?;
            drives.ide[1][0] = Some(Drive::Cdrom(Cdrom::new(medium, &serial(config.seed, 0xCD))));
            // A CD-ROM that was named comes before the disks: it is there to be started.
            let at = if config.boot.cdrom.is_some() { 0 } else { order.len() };
            order.insert(at, (BootFrom::Cdrom, ide_path(CDROM_PLACE)));
        }
        if let Some(path) = &config.boot.floppy {
            let disk = host.open_floppy(path)?;
            let kind = Format::best(disk.length()).map_or(DriveKind::Kib1440, |format| format.drive);
            drives.floppies = Some([Some(FloppyDrive::new(kind, Some(disk))), None]);
            order.insert(0, (BootFrom::Floppy, FLOPPY_PATH.to_owned()));
        } else if config.boot.kernel.is_none() {
            drives.floppies = Some([Some(FloppyDrive::new(DriveKind::Kib1440, None)), None]);
            order.push((BootFrom::Floppy, FLOPPY_PATH.to_owned()));
        }
        order.sort_by_key(|&(kind, _)| config.boot.order.rank(kind));
        drives.boot_order = order.into_iter().map(|(_, path)| path).collect();
        Ok(drives)
    }
}

/// Whether there is a CD-ROM drive: if it was asked for, and on machines that a person starts from firmware.
fn wants_cdrom(config: &MachineConfig) -> bool {
    config.boot.cdrom.is_some() || config.boot.kernel.is_none()
}

/// Checks how many drives are asked for.
pub(crate) fn check(config: &MachineConfig) -> Result<(), ConfigError> {
    let ide = config.disks.iter().filter(|disk| disk.interface == DiskInterface::Ide).count();
    if ide + usize::from(wants_cdrom(config)) > DISK_PLACES.len() {
        return Err(ConfigError::TooManyDisks);
    }
    if config.disks.len() - ide > ahci::PORTS {
        return Err(ConfigError::TooManyAhci);
    }
    Ok(())
}

fn ide_path(place: Place) -> String {
    format!("/pci@i0cf8/ide@1,1/drive@{:x}/disk@{:x}", place.channel, u8::from(place.second))
}

fn ahci_path(port: usize) -> String {
    format!("/pci@i0cf8/pci8086,2922@{:x}/drive@{port:x}/disk@0", wiring::AHCI.device())
}

/// A drive's serial number.
fn serial(seed: u64, number: usize) -> String {
    format!("UM{:08X}{number:04X}", seed as u32)
}
