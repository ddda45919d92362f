//! The ACPI tables for firmware: files of fw_cfg, and the script that says how to place them (QEMU, "bios-linker-loader"; SeaBIOS
//! and OVMF read it, and our own BIOS).
//!
//! All tables but the RSDP are one file, in which pointers are offsets; the script has them turned into addresses and the
//! sums made good. Leaves out: the command that writes an address back. Called by `board::firmware`.

use super::{AcpiBoard, RSDP, build};
use umbra_mmu::addr::PAGE_SIZE;

const RSDP_FILE: &str = "etc/acpi/rsdp";
const TABLES_FILE: &str = "etc/acpi/tables";
const SCRIPT_FILE: &str = "etc/table-loader";

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
/// Where a file goes: anywhere below 4 GiB, or the firmware segment.
const ZONE_HIGH: u8 = 1;
const ZONE_FIRMWARE_SEGMENT: u8 = 2;
const ENTRY_BYTES: usize = 128;
const NAME_BYTES: usize = 56;

/// Where a table has its pointers: offset and bytes.
type Pointers = &'static [(usize, usize)];
const FADT_POINTERS: Pointers = &[(36, 4), (40, 4), (132, 8), (140, 8)];
const RSDP_POINTERS: Pointers = &[(16, 4), (24, 8)];
/// A table's header: its length, its checksum, where its body begins.
const LENGTH: usize = 4;
const CHECKSUM: usize = 9;
const BODY: usize = 36;

/// The files, by name.
pub fn files(board: &AcpiBoard) -> Vec<(&'static str, Vec<u8>)> {
    let area = board.map.acpi_base().0;
    let tables = build(board);
    let mut script = Script::default();
    script.allocate(TABLES_FILE, PAGE_SIZE as u32, ZONE_HIGH);
    script.allocate(RSDP_FILE, 16, ZONE_FIRMWARE_SEGMENT);
    let (mut blob, mut rsdp) = (Vec::new(), Vec::new());
    for (at, mut bytes) in tables.segments {
        if at == RSDP {
            for &field in RSDP_POINTERS {
                script.point(RSDP_FILE, 0, &mut bytes, field, area);
            }
            script.sum(RSDP_FILE, 8, 0, 20);
            script.sum(RSDP_FILE, 32, 0, bytes.len());
            rsdp = bytes;
            continue;
        }
        let offset = (at.0 - area) as usize;
        let entries = |width: usize| (BODY..bytes.len()).step_by(width).map(|at| (at, width)).collect();
        let pointers: Vec<(usize, usize)> = match bytes.get(..LENGTH) {
            Some(b"FACP") => FADT_POINTERS.to_vec(),
            Some(b"RSDT") => entries(4),
            Some(b"XSDT") => entries(8),
            _ => Vec::new(),
        };
        for field in pointers {
            script.point(TABLES_FILE, offset, &mut bytes, field, area);
        }
        // The FACS has no checksum.
        if bytes.get(..LENGTH) != Some(b"FACS") {
            script.sum(TABLES_FILE, offset + CHECKSUM, offset, bytes.len());
        }
        blob.resize(offset, 0);
        blob.extend(bytes);
    }
    vec![(RSDP_FILE, rsdp), (TABLES_FILE, blob), (SCRIPT_FILE, script.bytes)]
}

/// The script, an entry after the other.
#[derive(Default)]
struct Script {
    bytes: Vec<u8>,
}

impl Script {
    fn entry(&mut self, command: u32, parts: &[&[u8]]) {
        let end = self.bytes.len() + ENTRY_BYTES;
        self.bytes.extend(command.to_le_bytes());
        parts.iter().for_each(|part| self.bytes.extend(*part));
        self.bytes.resize(end, 0);
    }
    fn allocate(&mut self, file: &str, align: u32, zone: u8) {
        self.entry(ALLOCATE, &[&name(file), &align.to_le_bytes(), &[zone]]);
    }
    /// Makes the field of a table at `offset` in its file relative to the tables' file, unless it is 0.
    fn point(&mut self, file: &str, offset: usize, table: &mut [u8], (at, width): (usize, usize), area: u64) {
        let Some(field) = table.get_mut(at..at + width) else { return };
        let mut value = [0; 8];
        value[..width].copy_from_slice(field);
        let Some(relative) = u64::from_le_bytes(value).checked_sub(area) else { return };
        field.copy_from_slice(&relative.to_le_bytes()[..width]);
        let place = ((offset + at) as u32).to_le_bytes();
        self.entry(ADD_POINTER, &[&name(file), &name(TABLES_FILE), &place, &[width as u8]]);
    }
    fn sum(&mut self, file: &str, checksum: usize, start: usize, length: usize) {
        let numbers = [checksum, start, length].map(|number| (number as u32).to_le_bytes());
        self.entry(ADD_CHECKSUM, &[&name(file), &numbers[0], &numbers[1], &numbers[2]]);
    }
}

fn name(file: &str) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    bytes[..file.len()].copy_from_slice(file.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_map::MemoryMap;

    /// Carries the script out as firmware does, with the tables at `base`; gives them and the RSDP.
    fn place(files: &[(&str, Vec<u8>)], base: u64) -> (Vec<u8>, Vec<u8>) {
        let file = |wanted: &str| files.iter().find(|(name, _)| *name == wanted).unwrap().1.clone();
        let (mut tables, mut rsdp) = (file(TABLES_FILE), file(RSDP_FILE));
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        for entry in file(SCRIPT_FILE).chunks(ENTRY_BYTES) {
            let is_rsdp = entry[4..].starts_with(RSDP_FILE.as_bytes());
            let target = if is_rsdp { &mut rsdp } else { &mut tables };
            match number(entry) as u32 {
                ALLOCATE => assert_eq!(entry[64], if is_rsdp { ZONE_FIRMWARE_SEGMENT } else { ZONE_HIGH }),
                ADD_POINTER => {
                    let (at, width) = (number(&entry[116..]), usize::from(entry[120]));
                    let mut value = [0; 8];
                    value[..width].copy_from_slice(&target[at..at + width]);
                    let value = u64::from_le_bytes(value) + base;
                    target[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                }
                ADD_CHECKSUM => {
                    let [at, start, length] = [60, 64, 68].map(|field| number(&entry[field..]));
                    let sum = target[start..start + length].iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
                    target[at] = target[at].wrapping_sub(sum);
                }
                other => panic!("command {other}"),
            }
        }
        (tables, rsdp)
    }

    #[test]
    fn placed_where_they_were_built_they_are_what_was_built() {
        let map = MemoryMap::new(256 << 20).unwrap();
        let board = AcpiBoard { map, cpus: 2, serial_ports: 2, hpet_id: Some(1) };
        let area = map.acpi_base().0;
        let files = files(&board);
        let (tables, rsdp) = place(&files, area);
        for (at, bytes) in build(&board).segments {
            let placed = if at == RSDP { &rsdp[..] } else { &tables[(at.0 - area) as usize..] };
            assert_eq!(placed[..bytes.len()], bytes);
        }
        let (moved, _) = place(&files, area - 0x10_0000);
        assert_ne!(moved, tables);
    }
}
