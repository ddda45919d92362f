//! What drives say of themselves: IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ATA/ATAPI-7, 6.16 and 6.17).

use super::swapped_text;

/// The firmware revision of all drives.
pub(super) const REVISION: &str = "1.0";

/// 256 words.
pub(super) struct Words([u16; 256]);

impl Words {
    fn new() -> Words {
        Words([0; 256])
    }
    fn set(&mut self, first: usize, values: &[u16]) {
        self.0.iter_mut().skip(first).zip(values).for_each(|(to, &from)| *to = from);
    }
    fn text(&mut self, first: usize, words: usize, text: &str) {
        let mut bytes = vec![0; 2 * words];
        swapped_text(text, &mut bytes);
        let words: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        self.set(first, &words);
    }
    /// The bytes, with the integrity word (signature A5h and a checksum over all).
    fn into_bytes(mut self) -> Vec<u8> {
        self.0[255] = 0x00A5;
        let mut bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        let sum = bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        if let Some(last) = bytes.last_mut() {
            *last = sum.wrapping_neg();
        }
        bytes
    }
}

/// What a disk's identification depends on.
#[derive(Debug)]
pub(super) struct DiskFacts<'a> {
    pub serial: &'a str,
    pub model: &'a str,
    pub sectors: u64,
    /// Cylinders, heads, sectors per track: the default ones, and those in use.
    pub default_geometry: [u16; 3],
    pub geometry: [u16; 3],
    pub multiple: u8,
    pub write_cache: bool,
    pub look_ahead: bool,
    pub dma: DmaMode,
}

/// The selected DMA mode.
#[derive(Copy, Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum DmaMode {
    /// None was selected.
    None,
    /// Multiword, 0–2.
    Multiword(u8),
    /// Ultra, 0–5.
    Ultra(u8),
}

impl DmaMode {
    /// Words 63 and 88: modes supported below, the selected one above.
    fn words(self) -> (u16, u16) {
        match self {
            DmaMode::None => (0x07, 0x3F),
            DmaMode::Multiword(mode) => (0x07 | 0x100 << (mode & 7), 0x3F),
            DmaMode::Ultra(mode) => (0x07, 0x3F | 0x100 << (mode & 7)),
        }
    }
    /// The mode of a SET FEATURES (transfer mode) count; `None` if there is no such mode, `Some(None)` for a PIO mode.
    pub fn of_count(count: u8) -> Option<Option<DmaMode>> {
        match count {
            0..=1 | 0x08..=0x0C => Some(None),
            0x20..=0x22 => Some(Some(DmaMode::Multiword(count & 7))),
            0x40..=0x45 => Some(Some(DmaMode::Ultra(count & 7))),
            _ => None,
        }
    }
}

/// The most sectors of a READ MULTIPLE block.
pub(super) const MAX_MULTIPLE: u8 = 16;

/// IDENTIFY DEVICE.
pub(super) fn disk(facts: &DiskFacts<'_>) -> Vec<u8> {
    let mut words = Words::new();
    let [cylinders, heads, per_track] = facts.default_geometry;
    let [now_cylinders, now_heads, now_per_track] = facts.geometry;
    let capacity = u32::from(now_cylinders) * u32::from(now_heads) * u32::from(now_per_track);
    let short = facts.sectors.min((1 << 28) - 1) as u32;
    let (multiword, ultra) = facts.dma.words();
    // Fixed device; geometry.
    words.set(0, &[0x0040, cylinders, 0, heads]);
    words.set(6, &[per_track]);
    words.text(10, 10, facts.serial);
    words.text(23, 4, REVISION);
    words.text(27, 20, facts.model);
    words.set(47, &[0x8000 | u16::from(MAX_MULTIPLE), 0, 0x0F00, 0x4000]);
    // Words 54–58, 64–70 and 88 are valid.
    words.set(53, &[0x0007, now_cylinders, now_heads, now_per_track, capacity as u16, (capacity >> 16) as u16]);
    let multiple = if facts.multiple == 0 { 0 } else { 0x0100 | u16::from(facts.multiple) };
    words.set(59, &[multiple, short as u16, (short >> 16) as u16, 0, multiword, 0x0003, 120, 120, 120, 120]);
    // ATA-4 to ATA/ATAPI-7.
    words.set(80, &[0x00F0, 0]);
    // Command sets: NOP, look-ahead, write cache, power management; FLUSH CACHE (EXT), 48 bits.
    let enabled = 0x4008 | u16::from(facts.write_cache) << 5 | u16::from(facts.look_ahead) << 6;
    words.set(82, &[0x4068, 0x7400, 0x4040, enabled, 0x3400, 0x4040, ultra]);
    // Device 0, which passed its diagnostics; an 80-wire cable.
    words.set(93, &[0x600B]);
    words.set(100, &[0, 16, 32, 48].map(|shift| (facts.sectors >> shift) as u16));
    words.set(106, &[0x4000]);
    // A medium without rotation.
    words.set(217, &[1]);
    words.into_bytes()
}

/// IDENTIFY PACKET DEVICE for a CD-ROM drive.
pub(super) fn cdrom(serial: &str, model: &str, dma: DmaMode) -> Vec<u8> {
    let mut words = Words::new();
    let (multiword, ultra) = dma.words();
    // ATAPI, CD-ROM, removable, DRQ within 50 µs, packets of twelve bytes.
    words.set(0, &[0x85C0]);
    words.text(10, 10, serial);
    words.text(23, 4, REVISION);
    words.text(27, 20, model);
    words.set(49, &[0x0F00, 0x4000]);
    words.set(53, &[0x0006]);
    words.set(63, &[multiword, 0x0003, 120, 120, 120, 120]);
    words.set(80, &[0x00F0, 0]);
    // NOP, DEVICE RESET, PACKET, removable medium.
    words.set(82, &[0x4214, 0x4000, 0x4000, 0x4214, 0, 0x4000, ultra]);
    words.set(93, &[0x600B]);
    words.into_bytes()
}
