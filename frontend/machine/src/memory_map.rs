//! Where guest RAM lies, and the E820 map that tells the guest (ACPI 6.5, section 15; the board of `wiring`).
//!
//! RAM below 3 GiB is at its own address, the rest above 4 GiB; the gap is for PCI and the interrupt controllers. Of the
//! first megabyte the VGA window A0000h–BFFFFh is no RAM, and C0000h–FFFFFh is RAM that the guest is told to leave alone:
//! it plays the part of the firmware ROM. The last 64 KiB of low RAM hold the ACPI tables.
//!
//! Leaves out: hot-plugged memory, NUMA. Called by `load`, `acpi` and `builder`.

use thiserror::Error;
use umbra_mmu::addr::GuestPhys;

/// Low RAM ends here at the latest; the PCI window begins.
pub const LOW_RAM_LIMIT: u64 = 0xC000_0000;
/// RAM that did not fit below [`LOW_RAM_LIMIT`] begins here.
pub const HIGH_RAM_BASE: u64 = 1 << 32;
/// The end of conventional memory; the extended BIOS data area begins (its last kilobyte).
pub const EBDA_BASE: u64 = 0x9_FC00;
/// The VGA window begins.
pub const VGA_BASE: u64 = 0xA_0000;
/// The VGA window ends; expansion ROM space begins.
pub const VGA_END: u64 = 0xC_0000;
/// The system firmware's segment begins; the RSDP is in it.
pub const FIRMWARE_BASE: u64 = 0xF_0000;
/// The first megabyte ends; extended memory begins.
pub const EXTENDED_BASE: u64 = 0x10_0000;
/// Bytes at the top of low RAM that hold the ACPI tables.
pub const ACPI_AREA: u64 = 0x1_0000;
/// The least RAM that a machine can have.
pub const MIN_RAM: u64 = 2 << 20;
/// The most RAM that a machine can have (the frame numbers of 40 physical address bits, less the gap).
pub const MAX_RAM: u64 = 1 << 39;

/// A size of guest RAM that no machine can have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MemorySizeError {
    /// Less than [`MIN_RAM`] or more than [`MAX_RAM`].
    #[error("a memory of {0} bytes is outside 2M–512G; try a size such as 256M")]
    OutOfRange(u64),
    /// Not a whole number of pages.
    #[error("a memory of {0} bytes is not a multiple of 4 KiB; try a size such as 256M")]
    NotPages(u64),
}

/// What a range of the E820 map is (ACPI 6.5, table 15.4).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// The guest's to use.
    Ram = 1,
    /// Leave alone.
    Reserved = 2,
    /// Tables that the guest may overwrite once it has read them.
    AcpiReclaim = 3,
    /// Tables that must stay.
    AcpiNvs = 4,
}

/// One range of the E820 map.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// The first byte.
    pub start: GuestPhys,
    /// The length in bytes, never zero.
    pub length: u64,
    /// What it is.
    pub kind: E820Kind,
}

impl E820Entry {
    /// One past the last byte.
    pub const fn end(&self) -> u64 {
        self.start.0.saturating_add(self.length)
    }
}

/// The size and place of a machine's RAM.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    low_end: u64,
    high_end: u64,
}

impl MemoryMap {
    /// The map of a machine with `bytes` of RAM (the VGA window counts, as on a real board).
    pub fn new(bytes: u64) -> Result<MemoryMap, MemorySizeError> {
        if !(MIN_RAM..=MAX_RAM).contains(&bytes) {
            return Err(MemorySizeError::OutOfRange(bytes));
        }
        if !bytes.is_multiple_of(umbra_mmu::addr::PAGE_SIZE) {
            return Err(MemorySizeError::NotPages(bytes));
        }
        let low_end = bytes.min(LOW_RAM_LIMIT);
        Ok(MemoryMap { low_end, high_end: HIGH_RAM_BASE + (bytes - low_end) })
    }
    /// One past the last byte of RAM below 4 GiB.
    pub const fn low_end(&self) -> GuestPhys {
        GuestPhys(self.low_end)
    }
    /// One past the last byte of RAM above 4 GiB; 4 GiB if there is none.
    pub const fn high_end(&self) -> GuestPhys {
        GuestPhys(self.high_end)
    }
    /// Bytes of RAM in all.
    pub const fn total(&self) -> u64 {
        self.low_end + (self.high_end - HIGH_RAM_BASE)
    }
    /// The first byte of the ACPI area.
    pub const fn acpi_base(&self) -> GuestPhys {
        GuestPhys(self.low_end - ACPI_AREA)
    }
    /// The ranges that are backed by RAM, as (start, length), in order.
    pub fn ram_ranges(&self) -> Vec<(GuestPhys, u64)> {
        let mut ranges = vec![(GuestPhys(0), VGA_BASE), (GuestPhys(VGA_END), self.low_end - VGA_END)];
        if self.high_end > HIGH_RAM_BASE {
            ranges.push((GuestPhys(HIGH_RAM_BASE), self.high_end - HIGH_RAM_BASE));
        }
        ranges
    }
    /// The map as the guest is told it, sorted, without overlaps.
    pub fn e820(&self) -> Vec<E820Entry> {
        let mut map = Vec::with_capacity(8);
        let mut add = |start: u64, end: u64, kind| {
            if end > start {
                map.push(E820Entry { start: GuestPhys(start), length: end - start, kind });
            }
        };
        let acpi = self.acpi_base().0;
        add(0, EBDA_BASE, E820Kind::Ram);
        add(EBDA_BASE, VGA_BASE, E820Kind::Reserved);
        add(FIRMWARE_BASE, EXTENDED_BASE, E820Kind::Reserved);
        add(EXTENDED_BASE, acpi, E820Kind::Ram);
        // The first page is for the FACS, which the guest must not reclaim.
        add(acpi, acpi + 0x1000, E820Kind::AcpiNvs);
        add(acpi + 0x1000, self.low_end, E820Kind::AcpiReclaim);
        add(0xFFFC_0000, HIGH_RAM_BASE, E820Kind::Reserved);
        add(HIGH_RAM_BASE, self.high_end, E820Kind::Ram);
        map
    }
    /// Whether `[start, start + length)` is all RAM that the guest may use.
    pub fn is_usable(&self, start: GuestPhys, length: u64) -> bool {
        let Some(end) = start.0.checked_add(length) else { return false };
        let inside = |from: u64, to: u64| start.0 >= from && end <= to;
        inside(0, EBDA_BASE)
            || inside(EXTENDED_BASE, self.acpi_base().0)
            || (inside(HIGH_RAM_BASE, self.high_end) && self.high_end > HIGH_RAM_BASE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn ram_is_split_around_the_pci_gap() {
        #[rustfmt::skip]
        let cases = [
            (2 << 20,       2 << 20,  HIGH_RAM_BASE),
            (256 << 20,     256 << 20, HIGH_RAM_BASE),
            (3 * GIB,       3 * GIB,  HIGH_RAM_BASE),
            (3 * GIB + 4096, 3 * GIB, HIGH_RAM_BASE + 4096),
            (16 * GIB,      3 * GIB,  HIGH_RAM_BASE + 13 * GIB),
        ];
        for (bytes, low, high) in cases {
            let map = MemoryMap::new(bytes).unwrap();
            assert_eq!((map.low_end().0, map.high_end().0, map.total()), (low, high, bytes));
        }
    }

    #[test]
    fn bad_sizes_are_refused() {
        for bytes in [0, 4096, MIN_RAM - 4096, MAX_RAM + 4096, u64::MAX, (256 << 20) + 1] {
            assert!(MemoryMap::new(bytes).is_err(), "{bytes}");
        }
    }

    #[test]
    fn e820_is_sorted_disjoint_and_agrees_with_is_usable() {
        for bytes in [MIN_RAM, 16 << 20, 256 << 20, 3 * GIB, 5 * GIB] {
            let map = MemoryMap::new(bytes).unwrap();
            let e820 = map.e820();
            for pair in e820.windows(2) {
                assert!(pair[0].end() <= pair[1].start.0, "{bytes}: {pair:?}");
            }
            for entry in &e820 {
                let usable = entry.kind == E820Kind::Ram;
                assert_eq!(map.is_usable(entry.start, entry.length), usable, "{entry:x?}");
                assert!(!map.is_usable(entry.start, entry.length + 1));
            }
        }
        assert!(!MemoryMap::new(MIN_RAM).unwrap().is_usable(GuestPhys(u64::MAX), 2));
    }
}
