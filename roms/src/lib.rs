//! Our own firmware and test guests, as images that a machine maps at the top of the first megabyte and of 4 GiB.
//!
//! Each image is assembled by `build.sh` from the source beside it and committed, so that a build needs no assembler; a
//! test assembles again, where NASM is installed, and compares. An image starts at its reset vector F000:FFF0 in real mode
//! and needs nothing else: no boot protocol, no services of a firmware. [`BIOS`] and [`VGA_BIOS`] are such a firmware.
//!
//! Leaves out: UEFI (`--bios` takes any firmware). Called by the machine's loader, the command line and tests.

/// A ROM image and what it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rom {
    /// Its name, as `umbra test` and error messages say it.
    pub name: &'static str,
    /// The bytes, a multiple of 64 KiB; the last 16 are the reset vector.
    pub image: &'static [u8],
    /// What it does, in one line.
    pub description: &'static str,
}

impl Rom {
    /// The image of this name, be it the demo or a test.
    pub fn named(name: &str) -> Option<&'static Rom> {
        [&DEMO, &VGA, &BIOS].into_iter().chain(TESTS).find(|rom| rom.name == name)
    }
}

macro_rules! rom {
    ($name:literal, $path:literal, $description:literal) => {
        Rom { name: $name, image: include_bytes!(concat!("../", $path)), description: $description }
    };
}

/// The demo guest: walks a person through the machine on the first serial port, then powers off through ACPI.
///
/// It shows the monitor's counters where the machine gives them as fw_cfg file `opt/umbra/monitor`, an array of
/// little-endian 64-bit numbers, fresh each time the file is selected: monitor roots made, root hits, hidden faults, TLB
/// fills, guest page faults, guest table writes, device memory exits, instructions retired.
pub static DEMO: Rom =
    rom!("demo", "demo/demo.bin", "a walk through the machine, with what the monitor did for each step");

/// The display's test guest: 25 pictures, each told to the exit device by its number, a key between them.
pub static VGA: Rom =
    rom!("vga", "vga/vga.bin", "a walk through the display's modes, planes, write modes, fonts and palettes");

/// The system BIOS: starts systems from floppies, CDs and disks.
pub static BIOS: Rom = rom!("bios", "bios/bios.bin", "the firmware that starts systems from floppies, CDs and disks");

/// The beginning of a disk of 1 MiB (zeros follow) that checks the BIOS it is started by: it calls each service, tells the
/// names of its checks to port E9h and the exit device 0, or the number of the check that failed.
pub static BIOS_CHECK: &[u8] = include_bytes!("../bios/check/check.bin");

/// The display adapter's option ROM: INT 10h with the VESA extension, as a PC's system BIOS copies and starts it.
pub static VGA_BIOS: &[u8] = include_bytes!("../vgabios/vgabios.bin");

/// The fonts of code page 437: 256 characters of so many bytes, a line each, the leftmost dot in bit 7. `fonts/draw.py`
/// builds them from what is drawn in `fonts/8x16.txt`.
pub static FONT_8X16: &[u8; 4096] = include_bytes!("../fonts/8x16.bin");
/// The same, 14 lines.
pub static FONT_8X14: &[u8; 3584] = include_bytes!("../fonts/8x14.bin");
/// The same, 8 lines.
pub static FONT_8X8: &[u8; 2048] = include_bytes!("../fonts/8x8.bin");

/// The test ROMs. Each writes its story to the first serial port and to port E9h, the number of the current check to
/// ports 80h and 190h, and ends through the exit device F4h: 0 if all is well, else the number of the check that failed.
#[rustfmt::skip]
pub static TESTS: &[Rom] = &[
    rom!("real", "tests/real.bin", "real mode: instruction basics, flags, the stack, interrupts, exceptions"),
    rom!("protected", "tests/protected.bin", "protected mode: segment loads, rings, call gates, privileged instructions"),
    rom!("limits", "tests/limits.bin", "segment limits on every kind of access"),
    rom!("control", "tests/control.bin", "which combinations of CR0, CR4 and EFER are refused"),
    rom!("paging32", "tests/paging32.bin", "32-bit paging: every combination of rights, large pages, remapping, aliases"),
    rom!("paging_pae", "tests/paging_pae.bin", "PAE paging: directory pointers, 64-bit entries, no-execute"),
    rom!("paging_long", "tests/paging_long.bin", "four-level paging: canonical addresses, large pages, no-execute"),
    rom!("interrupts", "tests/interrupts.bin", "the interrupt controllers, the timer, delivery in every ring and width"),
    rom!("smc", "tests/smc.bin", "code that writes code"),
    rom!("strings", "tests/strings.bin", "string instructions with faults in the middle"),
    rom!("straddle", "tests/straddle.bin", "accesses, instructions and descriptors across two pages"),
    rom!("tables", "tests/tables.bin", "writes to live page tables by every means, storms of CR3 and INVLPG"),
    rom!("redpills", "tests/redpills.bin", "what could tell a guest that it is watched, and must not"),
    rom!("v86", "tests/v86.bin", "virtual-8086 mode: entry and exit, IOPL, ports, faults"),
    rom!("tasks", "tests/tasks.bin", "hardware task switches"),
    rom!("hammer", "tests/hammer.bin", "several processors: locked updates, moving pages, interrupts, code written by others"),
    rom!("syscall", "tests/syscall.bin", "SYSCALL, SYSRET and SWAPGS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_is_a_rom() {
        for rom in [&DEMO, &VGA, &BIOS].into_iter().chain(TESTS) {
            assert!(!rom.image.is_empty() && rom.image.len() % 0x1_0000 == 0, "{}", rom.name);
            // The reset vector is a far jump to segment F000h.
            let vector = &rom.image[rom.image.len() - 16..];
            assert_eq!((vector[0], &vector[3..5]), (0xEA, &[0x00, 0xF0][..]), "{}", rom.name);
            assert_eq!(Rom::named(rom.name), Some(rom), "two ROMs are called {}", rom.name);
        }
        assert_eq!(Rom::named("no such ROM"), None);
    }

    #[test]
    fn the_option_rom_is_one() {
        assert_eq!(VGA_BIOS[..2], [0x55, 0xAA]);
        assert_eq!(usize::from(VGA_BIOS[2]) * 512, VGA_BIOS.len());
        assert_eq!(VGA_BIOS.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)), 0);
        let pci = usize::from(u16::from_le_bytes([VGA_BIOS[0x18], VGA_BIOS[0x19]]));
        assert_eq!(VGA_BIOS[pci..pci + 8], *b"PCIR\x34\x12\x11\x11");
    }
}
