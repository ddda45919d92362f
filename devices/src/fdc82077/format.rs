//! Formats of floppy disks, told by an image's length, and the drives that take them.

/// Bytes of a sector in all of these formats (size code 2).
pub(super) const SECTOR: u64 = 512;
/// The size code of 512 bytes.
pub(super) const SIZE_CODE: u8 = 2;

/// How a disk is laid out.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Cylinders.
    pub cylinders: u8,
    /// Sides.
    pub heads: u8,
    /// Sectors of a track.
    pub sectors: u8,
    /// The data rate as the rate select bits have it: 0 = 500, 1 = 300, 2 = 250, 3 = 1000 kbit/s.
    pub rate: u8,
    /// The drive that takes it.
    pub drive: DriveKind,
}

/// A kind of drive; the numbers are those of CMOS register 10h.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DriveKind {
    /// 5¼ inches, 360 KiB.
    Kib360 = 1,
    /// 5¼ inches, 1200 KiB.
    Kib1200 = 2,
    /// 3½ inches, 720 KiB.
    Kib720 = 3,
    /// 3½ inches, 1440 KiB.
    Kib1440 = 4,
    /// 3½ inches, 2880 KiB.
    Kib2880 = 5,
}

/// Cylinders, heads, sectors, rate, drive.
#[rustfmt::skip]
const FORMATS: &[(u8, u8, u8, u8, DriveKind)] = &[
    (40, 1,  8, 2, DriveKind::Kib360),  (40, 1,  9, 2, DriveKind::Kib360),
    (40, 2,  8, 2, DriveKind::Kib360),  (40, 2,  9, 2, DriveKind::Kib360),
    (80, 2, 15, 0, DriveKind::Kib1200),
    (80, 2,  9, 2, DriveKind::Kib1440), (80, 2, 10, 2, DriveKind::Kib1440), (82, 2, 10, 2, DriveKind::Kib1440),
    (80, 2, 18, 0, DriveKind::Kib1440), (82, 2, 18, 0, DriveKind::Kib1440), (83, 2, 18, 0, DriveKind::Kib1440),
    (80, 2, 20, 0, DriveKind::Kib1440), (80, 2, 21, 0, DriveKind::Kib1440), (82, 2, 21, 0, DriveKind::Kib1440),
    (80, 2, 36, 3, DriveKind::Kib2880),
];

impl Format {
    fn of_row(&(cylinders, heads, sectors, rate, drive): &(u8, u8, u8, u8, DriveKind)) -> Format {
        Format { cylinders, heads, sectors, rate, drive }
    }

    /// The bytes of a disk of this format.
    pub fn bytes(&self) -> u64 {
        u64::from(self.cylinders) * u64::from(self.heads) * u64::from(self.sectors) * SECTOR
    }

    /// The format of an image of exactly so many bytes.
    pub fn of_length(bytes: u64) -> Option<Format> {
        FORMATS.iter().map(Format::of_row).find(|format| format.bytes() == bytes)
    }

    /// The format that an image is best read as: its own, or the smallest that holds it (the rest cannot be read).
    pub fn best(bytes: u64) -> Option<Format> {
        let holding = FORMATS.iter().map(Format::of_row).filter(|format| format.bytes() >= bytes);
        Format::of_length(bytes).or_else(|| holding.min_by_key(Format::bytes))
    }

    /// The offset of a sector in the image; `None` if the format has none there.
    pub(super) fn offset(&self, cylinder: u8, head: u8, sector: u8) -> Option<u64> {
        let exists = cylinder < self.cylinders && head < self.heads && (1..=self.sectors).contains(&sector);
        let track = u64::from(cylinder) * u64::from(self.heads) + u64::from(head);
        exists.then(|| (track * u64::from(self.sectors) + u64::from(sector) - 1) * SECTOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_tell_formats() {
        for kib in [160, 180, 320, 360, 720, 800, 820, 1200, 1440, 1476, 1494, 1600, 1680, 1722, 2880] {
            let format = Format::of_length(kib * 1024).unwrap_or_else(|| panic!("{kib}"));
            assert_eq!(format.bytes(), kib * 1024);
        }
        assert_eq!(Format::of_length(1_474_559), None);
        assert_eq!(Format::best(1_000_000).map(|format| format.bytes()), Some(1200 * 1024));
        assert_eq!(Format::best(3 << 20), None);
        let format = Format::of_length(1440 * 1024).unwrap();
        assert_eq!(format.offset(0, 0, 1), Some(0));
        assert_eq!(format.offset(1, 1, 18), Some((36 + 18 + 17) * 512));
        assert_eq!([format.offset(80, 0, 1), format.offset(0, 2, 1), format.offset(0, 0, 19)], [None; 3]);
    }
}
