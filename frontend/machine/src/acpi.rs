//! The ACPI tables of the board (ACPI 6.5, sections 5 and 15): RSDP, RSDT, XSDT, FADT, FACS, DSDT, MADT, HPET.
//!
//! The tables fill the ACPI area at the top of low RAM; the RSDP lies in the firmware segment, where a scan of
//! E0000h–FFFFFh finds it, and its address also goes into boot_params. What the tables say comes from [`crate::wiring`].
//!
//! Leaves out: processor objects (the MADT lists the processors), sleep states but S5, GPE methods, hot-plug.
//! Called by `builder` for a machine that starts without firmware; `loader` hands the same tables to firmware.

mod dsdt;
pub mod loader;

use crate::memory_map::{FIRMWARE_BASE, MemoryMap};
use crate::wiring;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, facs::FACS};
use umbra_mmu::addr::{GuestPhys, PAGE_SIZE};

/// Where the RSDP is.
pub const RSDP: GuestPhys = GuestPhys(FIRMWARE_BASE + 0x5A00);

const OEM: [u8; 6] = *b"UMBRA ";
const OEM_TABLE: [u8; 8] = *b"UMBRAPC ";
const REVISION: u32 = 1;

/// What of the machine the tables depend on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct AcpiBoard {
    /// Where RAM is.
    pub map: MemoryMap,
    /// How many processors; their local APIC identifiers are 0, 1, ….
    pub cpus: u8,
    /// How many of [`wiring::SERIAL_PORTS`] are there.
    pub serial_ports: u8,
    /// The low half of the HPET's capabilities register, if there is an HPET.
    pub hpet_id: Option<u32>,
}

/// The finished tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiTables {
    /// Where the root pointer is.
    pub rsdp: GuestPhys,
    /// Bytes to put into guest memory, the RSDP among them.
    pub segments: Vec<(GuestPhys, Vec<u8>)>,
}

/// Builds the tables.
pub fn build(board: &AcpiBoard) -> AcpiTables {
    let area = board.map.acpi_base().0;
    let mut segments = vec![(GuestPhys(area), bytes_of(&FACS::new()))];
    // The FACS has the first page to itself: it must stay, the rest may be reclaimed.
    let mut next = area + PAGE_SIZE;
    let mut place = |bytes: Vec<u8>| {
        let at = next;
        next += (bytes.len() as u64).next_multiple_of(64);
        segments.push((GuestPhys(at), bytes));
        at
    };
    let dsdt = place(dsdt::build(board));
    let mut tables = vec![place(fadt(area, dsdt)), place(madt(board))];
    if let Some(id) = board.hpet_id {
        tables.push(place(hpet(id)));
    }
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, REVISION);
    let mut rsdt = Sdt::new(*b"RSDT", 36, 1, OEM, OEM_TABLE, REVISION);
    for &table in &tables {
        xsdt.add_entry(table);
        rsdt.append_slice(&(table as u32).to_le_bytes());
    }
    let (xsdt, rsdt) = (place(bytes_of(&xsdt)), place(rsdt.as_slice().to_vec()));
    segments.push((RSDP, rsdp(rsdt, xsdt)));
    AcpiTables { rsdp: RSDP, segments }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn rsdp(rsdt: u64, xsdt: u64) -> Vec<u8> {
    let checksum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, &b| sum.wrapping_sub(b));
    let mut bytes = Vec::with_capacity(36);
    bytes.extend(b"RSD PTR \0");
    bytes.extend(OEM);
    bytes.push(2);
    bytes.extend((rsdt as u32).to_le_bytes());
    bytes[8] = checksum(&bytes);
    bytes.extend(36_u32.to_le_bytes());
    bytes.extend(xsdt.to_le_bytes());
    bytes.extend([0; 4]);
    bytes[32] = checksum(&bytes);
    bytes
}

fn fadt(facs: u64, dsdt: u64) -> Vec<u8> {
    let port = |offset: u16| u32::from(wiring::PM_BASE + offset);
    // No SMI_CMD: the machine is in ACPI mode from the start. The timer has 24 bits; the power button is a fixed one.
    let mut table = FADTBuilder::new(OEM, OEM_TABLE, REVISION)
        .firmware_ctrl_32(facs as u32)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup)
        .gpe_info(port(0xC), 0, 4, 0, 0);
    table.dsdt = (dsdt as u32).into();
    table.x_dsdt = dsdt.into();
    table.sci_int = u16::from(wiring::SCI_IRQ).into();
    table.pm1a_evt_blk = port(0).into();
    table.pm1a_cnt_blk = port(4).into();
    table.pm_tmr_blk = port(8).into();
    table.pm1_evt_len = 4;
    table.pm1_cnt_len = 2;
    table.pm_tmr_len = 4;
    // Latencies that say "no C2, no C3".
    table.p_lvl2_lat = 0xFFF.into();
    table.p_lvl3_lat = 0xFFF.into();
    table.century = 0x32;
    // Legacy devices and an 8042 are there.
    table.iapc_boot_arch = 0b11.into();
    table.reset_reg = GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, wiring::RESET_CONTROL.into());
    table.reset_value = 0x06;
    bytes_of(&table.finalize())
}

/// The multiple APIC description: processors, the I/O APIC, the requests that do not arrive at the input of their number.
fn madt(board: &AcpiBoard) -> Vec<u8> {
    /// Flags of an override: active high, level-triggered.
    const HIGH_LEVEL: u16 = 0b1101;
    const AS_THE_BUS: u16 = 0;
    const PCAT_COMPAT: u32 = 1;
    let mut table = Sdt::new(*b"APIC", 36, 3, OEM, OEM_TABLE, REVISION);
    table.append_slice(&(wiring::LAPIC_BASE.0 as u32).to_le_bytes());
    table.append_slice(&PCAT_COMPAT.to_le_bytes());
    for cpu in 0..board.cpus {
        table.append_slice(&[0, 8, cpu, cpu, 1, 0, 0, 0]);
    }
    table.append_slice(&[1, 12, wiring::IOAPIC_ID, 0]);
    table.append_slice(&(wiring::IOAPIC_BASE.0 as u32).to_le_bytes());
    table.append_slice(&[0; 4]);
    let overrides = [(0, wiring::IOAPIC_PIT_INPUT, AS_THE_BUS), (wiring::SCI_IRQ, wiring::SCI_IRQ, HIGH_LEVEL)];
    for (source, input, flags) in overrides {
        table.append_slice(&[2, 10, 0, source, input, 0, 0, 0]);
        table.append_slice(&flags.to_le_bytes());
    }
    // NMI arrives at LINT1 of every processor.
    table.append_slice(&[4, 6, 0xFF, 0, 0, 1]);
    table.as_slice().to_vec()
}

fn hpet(id: u32) -> Vec<u8> {
    let mut table = Sdt::new(*b"HPET", 36, 1, OEM, OEM_TABLE, REVISION);
    table.append_slice(&id.to_le_bytes());
    // A 64-bit register block in memory.
    table.append_slice(&[0, 64, 0, 0]);
    table.append_slice(&wiring::HPET_BASE.0.to_le_bytes());
    // Number 0; 128 ticks at least in periodic mode; no page protection.
    table.append_slice(&[0, 128, 0, 0]);
    table.as_slice().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(cpus: u8) -> AcpiTables {
        let map = MemoryMap::new(256 << 20).unwrap();
        build(&AcpiBoard { map, cpus, serial_ports: 2, hpet_id: Some(0x8086_A201) })
    }

    fn find(tables: &AcpiTables, at: u64) -> &[u8] {
        &tables.segments.iter().find(|(start, _)| start.0 == at).expect("a table there").1
    }

    #[test]
    fn every_table_is_reachable_and_sums_to_zero() {
        for cpus in [1, 2, 16] {
            let tables = tables(cpus);
            let rsdp = find(&tables, RSDP.0);
            assert_eq!(rsdp[..20].iter().fold(0, |sum: u8, &b| sum.wrapping_add(b)), 0);
            assert_eq!(rsdp.iter().fold(0, |sum: u8, &b| sum.wrapping_add(b)), 0);
            let xsdt = find(&tables, u64::from_le_bytes(rsdp[24..32].try_into().unwrap()));
            let rsdt = find(&tables, u32::from_le_bytes(rsdp[16..20].try_into().unwrap()).into());
            let wide = xsdt[36..].chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap()));
            let narrow = rsdt[36..].chunks(4).map(|c| u64::from(u32::from_le_bytes(c.try_into().unwrap())));
            assert!(wide.clone().eq(narrow));
            let mut names = Vec::new();
            for at in wide {
                let table = find(&tables, at);
                assert_eq!(table.iter().fold(0, |sum: u8, &b| sum.wrapping_add(b)), 0);
                assert_eq!(u32::from_le_bytes(table[4..8].try_into().unwrap()) as usize, table.len());
                names.push(table[..4].to_vec());
            }
            assert_eq!(names, [b"FACP", b"APIC", b"HPET"]);
        }
    }

    #[test]
    fn tables_stay_within_their_area() {
        let tables = tables(255);
        let map = MemoryMap::new(256 << 20).unwrap();
        let mut end = map.acpi_base().0;
        for (at, bytes) in tables.segments.iter().filter(|(at, _)| *at != RSDP) {
            assert!(at.0 >= end, "tables overlap");
            end = at.0 + bytes.len() as u64;
        }
        assert!(end <= map.low_end().0);
    }
}
