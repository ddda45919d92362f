//! Linux bzImage (the kernel's `Documentation/arch/x86/boot.rst`, protocols 2.02–2.15), by its 32- or 64-bit entry.
//!
//! The real-mode part is not run: the boot_params page ("zero page") is built here, with the E820 map, the command line,
//! the initrd and the ACPI root pointer. memtest86+ follows the same protocol and loads by the same path.
//!
//! A kernel that must begin with its real-mode part is handed to firmware (`real_mode`).
//!
//! Leaves out: zImage, setup_data lists, EFI handover, an initrd above 4 GiB. Called by [`super::load`].

pub mod real_mode;

use super::bytes::{File, Table};
use super::error::{LoadError, LoadProblem};
use super::plan::{CodeWidth, EntryMode, EntryState, Format, LoadPlan, Plan, c_string, gpr, layout};
use super::{EntryChoice, LoadOptions, Processor, Screen};
use crate::memory_map::{EXTENDED_BASE, MemoryMap};
use umbra_mmu::addr::GuestPhys;

/// Offsets in the setup header, the same in the file and in boot_params.
mod header {
    pub const SETUP_SECTS: u64 = 0x1F1;
    pub const SYSSIZE: u64 = 0x1F4;
    pub const BOOT_FLAG: u64 = 0x1FE;
    /// The second byte of the jump at 200h: where the header ends, counted from 202h.
    pub const LENGTH: u64 = 0x201;
    pub const MAGIC: u64 = 0x202;
    pub const VERSION: u64 = 0x206;
    pub const TYPE_OF_LOADER: u64 = 0x210;
    pub const LOADFLAGS: u64 = 0x211;
    pub const CODE32_START: u64 = 0x214;
    pub const RAMDISK_IMAGE: u64 = 0x218;
    pub const RAMDISK_SIZE: u64 = 0x21C;
    pub const CMD_LINE_PTR: u64 = 0x228;
    pub const INITRD_ADDR_MAX: u64 = 0x22C;
    pub const KERNEL_ALIGNMENT: u64 = 0x230;
    pub const RELOCATABLE: u64 = 0x234;
    pub const XLOADFLAGS: u64 = 0x236;
    pub const CMDLINE_SIZE: u64 = 0x238;
    pub const PREF_ADDRESS: u64 = 0x258;
    pub const INIT_SIZE: u64 = 0x260;
}

/// Offsets in boot_params outside the setup header.
mod boot_params {
    pub const EXT_MEM_K: usize = 0x002;
    pub const VIDEO_MODE: usize = 0x006;
    pub const VIDEO_COLS: usize = 0x007;
    pub const VIDEO_LINES: usize = 0x00E;
    pub const VIDEO_IS_VGA: usize = 0x00F;
    pub const VIDEO_POINTS: usize = 0x010;
    pub const ACPI_RSDP: usize = 0x070;
    pub const ALT_MEM_K: usize = 0x1E0;
    pub const E820_ENTRIES: usize = 0x1E8;
    pub const SETUP_HEADER: usize = 0x1F1;
    pub const SETUP_HEADER_END: u64 = 0x290;
    pub const E820_TABLE: usize = 0x2D0;
    pub const E820_MAX: usize = 128;
}

/// The setup header lies in these bytes: a kernel needs no more to be planned.
pub const HEAD: u64 = 1024;

const MAGIC: &[u8] = b"HdrS";
/// The protected-mode part belongs at 1 MiB, not at 64 KiB.
const LOADED_HIGH: u8 = 1 << 0;
/// The kernel is 64-bit and has an entry at 200h.
const XLF_KERNEL_64: u16 = 1 << 0;
/// The 64-bit entry, counted from the start of the protected-mode part.
const ENTRY_64: u64 = 0x200;
/// "A loader without a number of its own".
const LOADER_UNDEFINED: u8 = 0xFF;

/// Whether the file has the boot protocol's mark.
pub fn is_bzimage(bytes: &[u8]) -> bool {
    bytes.get(0x202..0x206) == Some(MAGIC) && bytes.get(0x1FE..0x200) == Some(&[0x55, 0xAA])
}

/// What the setup header says, checked.
#[derive(Debug, PartialEq, Eq)]
struct Setup {
    version: u16,
    /// Where the protected-mode part begins in the file.
    payload_at: u64,
    /// Its length.
    payload_length: u64,
    relocatable: bool,
    alignment: u64,
    preferred: u64,
    /// RAM that the kernel needs from where it is loaded.
    init_size: u64,
    is_64_bit: bool,
    /// The last address that an initrd may use.
    initrd_max: u64,
    command_line_limit: usize,
}

impl Setup {
    fn parse(file: File<'_>) -> Result<Setup, LoadProblem> {
        let bad = |what, value: u64, why| Err(LoadProblem::BadField { what, value, why });
        let what = "the setup header";
        if file.u16(what, header::BOOT_FLAG)? != 0xAA55 || file.slice(what, header::MAGIC, 4)? != MAGIC {
            return bad("the setup header's mark", file.u32(what, header::MAGIC)?.into(), "not \"HdrS\"");
        }
        let version = file.u16(what, header::VERSION)?;
        if !(0x0202..0x0300).contains(&version) {
            return bad("the boot protocol's version", version.into(), "outside 2.02–2.15");
        }
        if file.u8(what, header::LOADFLAGS)? & LOADED_HIGH == 0 {
            return Err(LoadProblem::Unsupported {
                what: "this is a zImage, which is loaded below 640 KiB",
                advice: "the bzImage of the same kernel",
            });
        }
        let sectors = match file.u8(what, header::SETUP_SECTS)? {
            0 => 4,
            sectors => u64::from(sectors),
        };
        let payload_at = (sectors + 1) * 512;
        // syssize rounds up to 16 bytes; what the file has beyond it (signatures) is not loaded.
        let syssize = u64::from(file.u32(what, header::SYSSIZE)?) * 16;
        let available = file.after(payload_at);
        if available + 15 < syssize || available == 0 {
            let payload = "the protected-mode kernel";
            file.slice(payload, payload_at, syssize.max(1))?;
        }
        let payload_length = if syssize == 0 { available } else { syssize.min(available) };
        let since = |minimum: u16| version >= minimum;
        let alignment = if since(0x205) { u64::from(file.u32(what, header::KERNEL_ALIGNMENT)?) } else { 0 };
        let relocatable = since(0x205) && file.u8(what, header::RELOCATABLE)? != 0;
        if relocatable && (!alignment.is_power_of_two() || alignment < 16) {
            return bad("kernel_alignment", alignment, "not a power of two");
        }
        let preferred = if since(0x20A) { file.u64(what, header::PREF_ADDRESS)? } else { EXTENDED_BASE };
        let init_size = if since(0x20A) { u64::from(file.u32(what, header::INIT_SIZE)?) } else { 0 };
        let xloadflags = if since(0x20C) { file.u16(what, header::XLOADFLAGS)? } else { 0 };
        let initrd_max = if since(0x203) { u64::from(file.u32(what, header::INITRD_ADDR_MAX)?) } else { 0x37FF_FFFF };
        let command_line_limit = if since(0x206) { file.u32(what, header::CMDLINE_SIZE)? as usize } else { 255 };
        Ok(Setup {
            version,
            payload_at,
            payload_length,
            relocatable,
            alignment,
            preferred,
            init_size,
            is_64_bit: xloadflags & XLF_KERNEL_64 != 0,
            initrd_max,
            command_line_limit,
        })
    }
    /// Where the kernel goes. A kernel that may be moved still prefers this; moving it down does not spare it memory.
    fn start(&self) -> u64 {
        if !self.relocatable {
            return EXTENDED_BASE;
        }
        self.preferred.max(EXTENDED_BASE).checked_next_multiple_of(self.alignment).unwrap_or(u64::MAX)
    }
}

/// Plans how to start a bzImage.
pub fn load<'a>(bytes: &'a [u8], options: &LoadOptions<'a>, map: &MemoryMap) -> Result<LoadPlan<'a>, LoadError> {
    plan(File::whole(bytes), options, map).map_err(|problem| LoadError { file: options.name.to_owned(), problem })
}

/// The same for a file of `length` bytes of which the first are here, [`HEAD`] of them if it has so many.
pub fn load_by_head<'a>(
    head: &'a [u8],
    length: u64,
    options: &LoadOptions<'a>,
    map: &MemoryMap,
) -> Result<LoadPlan<'a>, LoadError> {
    let file = File::head(head, length);
    plan(file, options, map).map_err(|problem| LoadError { file: options.name.to_owned(), problem })
}

fn plan<'a>(file: File<'a>, options: &LoadOptions<'a>, map: &MemoryMap) -> Result<LoadPlan<'a>, LoadProblem> {
    if file.after(0) == 0 {
        return Err(LoadProblem::Empty);
    }
    let setup = Setup::parse(file)?;
    if setup.is_64_bit && options.processor == Processor::Only32 {
        return Err(LoadProblem::NeedsLongMode);
    }
    let long = setup.is_64_bit && options.entry == EntryChoice::Best;

    let mut plan = Plan::new(map);
    let start = setup.start();
    plan.put("the kernel", start, file.piece("the kernel", setup.payload_at, setup.payload_length)?)?;
    if let Some(rest) = setup.init_size.checked_sub(setup.payload_length) {
        plan.reserve("the kernel's working memory", start.saturating_add(setup.payload_length), rest)?;
    }

    let limit = setup.command_line_limit.min(layout::STRINGS_SIZE as usize - 1);
    plan.put("the command line", layout::STRINGS, c_string(options.command_line, limit)?)?;
    let initrd = put_initrd(&mut plan, options, &setup)?;
    plan.put("boot_params", layout::BOOT_INFO, zero_page(file, &setup, options, map, initrd)?.0)?;

    let gdt = plan.put_gdt(if long { CodeWidth::Bits64 } else { CodeWidth::Bits32 })?;
    let (mode, rip) = if long {
        (EntryMode::Long64 { cr3: plan.put_identity_tables()? }, start + ENTRY_64)
    } else {
        (EntryMode::Protected32, start)
    };
    let mut gprs = [0; 16];
    gprs[gpr::RSI] = layout::BOOT_INFO;
    gprs[gpr::RSP] = layout::STACK_TOP;
    Ok(plan.finish(Format::BzImage, EntryState { mode, rip, gprs, gdt: Some(gdt) }))
}

/// Puts the initrd as high as the kernel allows (several, one after the other) and gives (address, length).
fn put_initrd<'a>(
    plan: &mut Plan<'a, '_>,
    options: &LoadOptions<'a>,
    setup: &Setup,
) -> Result<(u64, u64), LoadProblem> {
    // The kernel looks for the next archive at a multiple of four.
    let aligned = |module: &super::Module<'_>| (module.bytes.len() as u64).next_multiple_of(4);
    let length: u64 = options.modules.iter().map(aligned).sum();
    if length == 0 {
        return Ok((0, 0));
    }
    let start = plan.find_below("the initrd", setup.initrd_max.saturating_add(1), length)?;
    let mut at = start;
    for module in options.modules {
        plan.put("the initrd", at, module.bytes)?;
        at += aligned(module);
    }
    let last = options.modules.last().map_or(0, |module| aligned(module) - module.bytes.len() as u64);
    Ok((start, length - last))
}

fn zero_page(
    file: File<'_>,
    setup: &Setup,
    options: &LoadOptions<'_>,
    map: &MemoryMap,
    (initrd_at, initrd_length): (u64, u64),
) -> Result<Table, LoadProblem> {
    let mut page = Table::zeroed(4096);
    let end = (header::MAGIC + u64::from(file.u8("the setup header", header::LENGTH)?))
        .clamp(header::CMD_LINE_PTR + 4, boot_params::SETUP_HEADER_END);
    let first = header::SETUP_SECTS;
    page.put(boot_params::SETUP_HEADER, file.slice("the setup header", first, end - first)?);
    page.u8(header::TYPE_OF_LOADER as usize, LOADER_UNDEFINED);
    page.u32(header::CODE32_START as usize, setup.start() as u32);
    page.u32(header::RAMDISK_IMAGE as usize, initrd_at as u32);
    page.u32(header::RAMDISK_SIZE as usize, initrd_length as u32);
    page.u32(header::CMD_LINE_PTR as usize, layout::STRINGS as u32);
    if let (true, Some(rsdp)) = (setup.version >= 0x20E, options.rsdp) {
        page.u64(boot_params::ACPI_RSDP, rsdp.0);
    }
    if options.screen == Screen::VgaText {
        page.u8(boot_params::VIDEO_MODE, 3);
        page.u8(boot_params::VIDEO_COLS, 80);
        page.u8(boot_params::VIDEO_LINES, 25);
        page.u8(boot_params::VIDEO_IS_VGA, 1);
        page.u16(boot_params::VIDEO_POINTS, 16);
    }
    let extended_kib = (map.acpi_base().0 - EXTENDED_BASE) / 1024;
    page.u16(boot_params::EXT_MEM_K, extended_kib.min(0xFC00) as u16);
    page.u32(boot_params::ALT_MEM_K, extended_kib as u32);
    let e820 = map.e820();
    page.u8(boot_params::E820_ENTRIES, e820.len().min(boot_params::E820_MAX) as u8);
    for (number, entry) in e820.iter().take(boot_params::E820_MAX).enumerate() {
        let at = boot_params::E820_TABLE + number * 20;
        let GuestPhys(start) = entry.start;
        page.u64(at, start);
        page.u64(at + 8, entry.length);
        page.u32(at + 16, entry.kind as u32);
    }
    Ok(page)
}
