//! A bzImage by its 16-bit entry: its real-mode part runs first and calls the BIOS, which has put everything where this says
//! (the kernel's `Documentation/arch/x86/boot.rst`; QEMU, "fw_cfg": keys 07h–18h). iPXE has no other entry.
//!
//! Leaves out: kernels that are loaded below 1 MiB. Called by `builder` for machines with our own BIOS.

use super::super::bytes::{File, Table};
use super::super::error::{LoadError, LoadProblem};
use super::super::plan::{Plan, c_string};
use super::super::{EntryChoice, LoadOptions};
use super::{LOADER_UNDEFINED, Setup, header, is_bzimage, put_initrd};
use crate::memory_map::{EXTENDED_BASE, MemoryMap};

/// Where the real-mode part goes, and its command line, below which are its stack and heap.
const SETUP_AT: u32 = 0x1_0000;
const COMMAND_LINE_AT: u32 = 0x2_0000;
/// The heap ends here, counted from the real-mode part; the stack has what is left.
const HEAP_END: u16 = 0xFE00;
const HEAP_END_POINTER: u64 = 0x224;
/// In LOADFLAGS: HEAP_END_POINTER is set.
const CAN_USE_HEAP: u8 = 1 << 7;

/// What firmware reads: keys of fw_cfg for address, size and bytes.
const KERNEL: [u16; 3] = [0x07, 0x08, 0x11];
const INITRD: [u16; 3] = [0x0A, 0x0B, 0x12];
const COMMAND_LINE: [u16; 3] = [0x13, 0x14, 0x15];
const SETUP: [u16; 3] = [0x16, 0x17, 0x18];

/// Items of fw_cfg.
pub type Items = Vec<(u16, Vec<u8>)>;

/// Whether the kernel has no entry but the 16-bit one: it does not say where its 32-bit code begins.
pub fn is_only_entry(bytes: &[u8]) -> bool {
    let at = header::CODE32_START as usize;
    is_bzimage(bytes) && bytes.get(at..at + 4) == Some(&[0; 4])
}

/// What firmware is to load.
pub fn items(bytes: &[u8], options: &LoadOptions<'_>, map: &MemoryMap) -> Result<Items, LoadError> {
    plan(bytes, options, map).map_err(|problem| LoadError { file: options.name.to_owned(), problem })
}

fn plan(bytes: &[u8], options: &LoadOptions<'_>, map: &MemoryMap) -> Result<Items, LoadProblem> {
    let file = File::whole(bytes);
    let setup = Setup::parse(file)?;
    let mut real_mode = Table(file.slice("the real-mode part", 0, setup.payload_at)?.to_vec());
    let kernel = file.slice("the kernel", setup.payload_at, setup.payload_length)?;
    let limit = setup.command_line_limit.min(0x1000);
    let command_line = c_string(options.command_line, limit)?;
    // The plan finds room for the initrd beside the kernel, and says so if there is none.
    let mut plan = Plan::new(map);
    plan.put("the kernel", EXTENDED_BASE, kernel)?;
    let (initrd_at, initrd_length) = put_initrd(&mut plan, options, &setup)?;
    real_mode.u8(header::TYPE_OF_LOADER as usize, LOADER_UNDEFINED);
    real_mode.u8(header::LOADFLAGS as usize, file.u8("loadflags", header::LOADFLAGS)? | CAN_USE_HEAP);
    real_mode.u16(HEAP_END_POINTER as usize, HEAP_END - 0x200);
    real_mode.u32(header::CMD_LINE_PTR as usize, COMMAND_LINE_AT);
    real_mode.u32(header::RAMDISK_IMAGE as usize, initrd_at as u32);
    real_mode.u32(header::RAMDISK_SIZE as usize, initrd_length as u32);
    let mut initrd = Vec::with_capacity(initrd_length as usize);
    for module in options.modules {
        initrd.resize(initrd.len().next_multiple_of(4), 0);
        initrd.extend(module.bytes);
    }
    let mut items = Items::new();
    let parts = [
        (SETUP, SETUP_AT, real_mode.0),
        (KERNEL, EXTENDED_BASE as u32, kernel.to_vec()),
        (COMMAND_LINE, COMMAND_LINE_AT, command_line),
        (INITRD, initrd_at as u32, initrd),
    ];
    for ([address, size, data], at, bytes) in parts {
        items.push((address, at.to_le_bytes().to_vec()));
        items.push((size, (bytes.len() as u32).to_le_bytes().to_vec()));
        items.push((data, bytes));
    }
    Ok(items)
}

/// Whether a kernel is to start by its 16-bit entry.
pub fn is_wanted(bytes: &[u8], entry: EntryChoice) -> bool {
    is_only_entry(bytes) || (entry == EntryChoice::Real && is_bzimage(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Module;

    /// A kernel of two sectors of real-mode code and 100 bytes; `code32`: where it says its 32-bit code begins.
    fn kernel(code32: u32) -> Vec<u8> {
        let mut bytes = vec![0; 3 * 512 + 100];
        bytes[0x1F1] = 2;
        bytes[0x1F4..0x1F8].copy_from_slice(&7_u32.to_le_bytes());
        bytes[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x206..0x208].copy_from_slice(&0x204_u16.to_le_bytes());
        bytes[0x211] = 1;
        bytes[0x214..0x218].copy_from_slice(&code32.to_le_bytes());
        bytes[0x22C..0x230].copy_from_slice(&0x37FF_FFFF_u32.to_le_bytes());
        bytes[3 * 512..].fill(0x90);
        bytes
    }

    #[test]
    fn only_a_kernel_without_32_bit_entry_needs_it() {
        assert!(is_wanted(&kernel(0), EntryChoice::Best));
        assert!(!is_wanted(&kernel(0x10_0000), EntryChoice::Best));
        assert!(is_wanted(&kernel(0x10_0000), EntryChoice::Real));
        assert!(!is_wanted(b"no kernel", EntryChoice::Real));
    }

    #[test]
    fn every_part_has_address_size_and_bytes() {
        let map = MemoryMap::new(32 << 20).unwrap();
        let initrd = [Module { name: "i", bytes: &[1, 2, 3], command_line: "" }];
        let options = LoadOptions { modules: &initrd, command_line: "quiet", ..LoadOptions::named("k") };
        let items = items(&kernel(0), &options, &map).unwrap();
        let item = |key: u16| &items.iter().find(|(other, _)| *other == key).unwrap().1[..];
        for [_, size, data] in [KERNEL, INITRD, COMMAND_LINE, SETUP] {
            assert_eq!(item(size), (item(data).len() as u32).to_le_bytes());
        }
        assert_eq!((item(COMMAND_LINE[2]), item(INITRD[2])), (&b"quiet\0"[..], &[1, 2, 3][..]));
        assert_eq!(item(SETUP[2])[0x218..0x21C], *item(INITRD[0]));
        assert_eq!(item(KERNEL[2]), [0x90; 100]);
        let cut = &kernel(0)[..1500];
        assert!(super::items(cut, &options, &map).is_err());
    }
}
