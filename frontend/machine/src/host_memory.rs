//! Where a machine's memory comes from: a pool of its own, or one that it has in common with others (S21). Called by `builder`.
//!
//! Machines of one [`CommonPool`] are one sharing group: equal pages of theirs become one frame, copy-on-write. They can learn of each other's
//! memory by timing their writes (`umbra_mmu::Sharing`'s module), so they should have one owner; and they are in one process, whose crash
//! ends them all.

use crate::builder::BuildError;
use crate::config::{Engine, MachineConfig};
use crate::load::{LoadError, LoadProblem};
use crate::memory_map::{EXTENDED_BASE, MemoryMap};
use crate::storm;
use std::sync::Arc;
use umbra_devices::vga;
use umbra_mmu::frames::{FrameOrder, Pool, PoolError};
use umbra_mmu::{GuestMemory, GuestPhys, Paging, Sharing, SharingCounts};

/// How much of a firmware image is seen at the end of the first megabyte.
const LOW_ROM_BYTES: u64 = 0x2_0000;
/// The largest firmware image.
pub(crate) const MAX_ROM_BYTES: u64 = 16 << 20;

/// A pool for several machines, whose equal pages become one frame.
#[derive(Debug)]
pub struct CommonPool {
    pool: Arc<Pool>,
    group: Arc<Sharing>,
}

impl CommonPool {
    /// A pool for these machines. It is address space until they touch it.
    pub fn new<'c>(machines: impl IntoIterator<Item = &'c MachineConfig>) -> Result<Arc<CommonPool>, PoolError> {
        let (mut bytes, mut ram) = (0, 0);
        for config in machines {
            let copies = if config.engine == Engine::Both { 2 } else { 1 };
            let video = vga::MEMORY_BYTES + vga::LEGACY_BYTES as u64;
            // Firmware, its end once more, its variables.
            bytes += copies * (config.memory.0 + video + 2 * MAX_ROM_BYTES + LOW_ROM_BYTES + storm::SPARE_BYTES);
            ram += copies * config.memory.0;
        }
        Ok(Arc::new(CommonPool { pool: Pool::new(bytes)?, group: Sharing::new(ram)? }))
    }
    /// What has become one.
    pub fn counts(&self) -> SharingCounts {
        self.group.counts()
    }
    /// Bytes of shared frames in host memory.
    pub fn shared_bytes(&self) -> u64 {
        self.group.resident_bytes()
    }
}

/// Guest memory with RAM and firmware mapped.
pub(crate) fn build(
    map: &MemoryMap,
    (order, spare): (FrameOrder, u64),
    physical_bits: u8,
    (paging, common): (Option<Paging>, Option<&CommonPool>),
    rom: Option<(&str, &[u8])>,
) -> Result<GuestMemory, BuildError> {
    let rom_bytes = rom.map_or(0, |(_, image)| image.len() as u64);
    let video = vga::MEMORY_BYTES + vga::LEGACY_BYTES as u64;
    let pool = match common {
        Some(common) => Arc::clone(&common.pool),
        None => Pool::new(map.total() + video + rom_bytes + rom_bytes.min(LOW_ROM_BYTES) + spare)?,
    };
    let memory = GuestMemory::new(pool, order, physical_bits);
    if let Some(paging) = paging {
        memory.set_paging(paging);
    }
    if let Some(common) = common {
        memory.share_with(&common.group);
    }
    for (at, bytes) in map.ram_ranges() {
        memory.map_ram(at, bytes)?;
    }
    if let Some((name, image)) = rom {
        map_firmware(&memory, name, image)?;
    }
    Ok(memory)
}

/// A firmware image ends at 4 GiB; its last 128 KiB are also the end of the first megabyte (PIIX3 data sheet, 3.4.1).
fn map_firmware(memory: &GuestMemory, name: &str, image: &[u8]) -> Result<(), BuildError> {
    let length = image.len() as u64;
    let problem = match length {
        0 => Some(LoadProblem::Empty),
        1..=MAX_ROM_BYTES if length.is_multiple_of(umbra_mmu::addr::PAGE_SIZE) => None,
        _ => Some(LoadProblem::BadField {
            what: "the firmware image's length",
            value: length,
            why: "not a multiple of 4 KiB up to 16 MiB",
        }),
    };
    if let Some(problem) = problem {
        return Err(LoadError { file: name.to_owned(), problem }.into());
    }
    memory.map_rom(GuestPhys((1 << 32) - length), image)?;
    let low = length.min(LOW_ROM_BYTES);
    let tail = image.get((length - low) as usize..).unwrap_or(image);
    memory.map_rom(GuestPhys(EXTENDED_BASE - low), tail)?;
    Ok(())
}
