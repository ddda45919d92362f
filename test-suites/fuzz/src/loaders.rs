//! Files: kernels of every format, machine files. Sound images with arbitrary damage, and arbitrary bytes.
//!
//! A loader refuses with a sentence or gives a plan whose pieces lie in RAM and not on each other.

use arbitrary::{Result, Unstructured};
use std::path::Path;
use umbra_machine::MachineConfig;
use umbra_machine::load::{self, EntryChoice, LoadOptions, LoadPlan, Module, Processor, bzimage};
use umbra_machine::memory_map::MemoryMap;
use umbra_machine::mmu::GuestPhys;

/// The target.
pub fn run(input: &[u8]) {
    let _ = choose(&mut Unstructured::new(input));
}

fn choose(input: &mut Unstructured<'_>) -> Result<()> {
    match input.int_in_range(0..=7u8)? {
        0 => machine_file(&String::from_utf8_lossy(rest(input)?)),
        1 => {
            let template = *input.choose(&MACHINE_FILES)?;
            let mut text = template.to_owned().into_bytes();
            damage(&mut text, input)?;
            machine_file(&String::from_utf8_lossy(&text));
        }
        2 => kernel(rest(input)?, &[], "", EntryChoice::Best),
        format => {
            let mut image = match format {
                3 | 4 => bzimage(),
                5 => elf(Bits::B64),
                6 => elf(Bits::B32),
                _ => multiboot(),
            };
            damage(&mut image, input)?;
            let entry = if input.arbitrary()? { EntryChoice::Best } else { EntryChoice::Bits32 };
            let line = String::from_utf8_lossy(input.peek_bytes(9).unwrap_or(&[])).into_owned();
            let modules = [rest(input)?, b"module"];
            kernel(&image, &modules, &line, entry);
        }
    }
    Ok(())
}

/// All that is left.
fn rest<'a>(input: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    input.bytes(input.len())
}

const MACHINE_FILES: [&str; 2] = [
    "memory = \"256M\"\ncpus = 2\ncpu = \"max\"\nclock = \"virtual\"\n[boot]\nkernel = \"vmlinuz\"\ninitrd = [\"a\"]\nappend = \"x\"\n",
    "serial = [\"stdio\", \"file:x\"]\nseed = 3\nrtc = \"2026-01-01T00:00:00\"\n[run]\nuntil = \"x\"\ntimeout = \"60s\"\non_reset = \"exit\"\n",
];

/// Reads a machine file; what is read can be written and read again.
fn machine_file(text: &str) {
    let Ok(config) = MachineConfig::from_toml(text, Path::new("machine.toml")) else { return };
    let _ = config.check();
    let written = config.to_toml();
    match MachineConfig::from_toml(&written, Path::new("machine.toml")) {
        Ok(again) => assert_eq!(again.to_toml(), written, "written, read, written"),
        Err(error) => panic!("a machine that cannot be read again: {error}\n{written}"),
    }
}

/// Overwrites some places with small or arbitrary numbers, then may cut the end off.
fn damage(image: &mut Vec<u8>, input: &mut Unstructured<'_>) -> Result<()> {
    for _ in 0..input.int_in_range(0..=8u8)? {
        let at = usize::from(input.arbitrary::<u16>()?) % image.len().max(1);
        let value: u64 = input.arbitrary()?;
        let value = if input.arbitrary()? { value & 0xFFFF } else { value };
        let length = *input.choose(&[1, 2, 4, 8])?;
        for (place, byte) in image.iter_mut().skip(at).zip(value.to_le_bytes()).take(length) {
            *place = byte;
        }
    }
    if input.ratio(1u8, 4u8)? {
        image.truncate(usize::from(input.arbitrary::<u16>()?));
    }
    Ok(())
}

fn kernel(image: &[u8], modules: &[&[u8]], line: &str, entry: EntryChoice) {
    let Ok(map) = MemoryMap::new(16 << 20) else { unreachable!("16 MiB are a good size") };
    let modules: Vec<Module<'_>> =
        modules.iter().map(|bytes| Module { name: "module", bytes, command_line: "module" }).collect();
    for processor in [Processor::LongMode, Processor::Only32] {
        let options = LoadOptions {
            command_line: line,
            modules: &modules,
            rsdp: Some(GuestPhys(0xE_0000)),
            processor,
            entry,
            ..LoadOptions::named("image")
        };
        let loaded = load::load(image, &options, &map);
        if bzimage::is_bzimage(image) {
            let head = image.get(..bzimage::HEAD as usize).unwrap_or(image);
            let by_head = bzimage::load_by_head(head, image.len() as u64, &options, &map);
            assert_eq!(by_head.map(|plan| check(&plan, &map)).err(), loaded.as_ref().err().cloned());
        }
        match loaded {
            Ok(plan) => check(&plan, &map),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// Everything that a plan writes lies in RAM and on nothing else.
fn check(plan: &LoadPlan<'_>, map: &MemoryMap) {
    let copied = plan.segments.iter().map(|s| (s.at.0, s.bytes.length()));
    let mut ranges: Vec<(u64, u64)> = copied.chain(plan.zero.iter().map(|z| (z.at.0, z.length))).collect();
    for &(at, length) in &ranges {
        assert!(map.is_usable(GuestPhys(at), length), "{at:#x} + {length:#x} is no RAM");
    }
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        if let [(at, length), (next, _)] = pair {
            assert!(at + length <= *next, "{at:#x} + {length:#x} meets {next:#x}");
        }
    }
}

fn set(image: &mut [u8], at: usize, value: &[u8]) {
    for (place, byte) in image.iter_mut().skip(at).zip(value) {
        *place = *byte;
    }
}

/// A bzImage of protocol 2.15 with one setup sector and a page of "kernel".
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 1024 + 4096];
    let fields: [(usize, &[u8]); 10] = [
        (0x1F1, &[1]),
        (0x1F4, &(4096_u32 / 16).to_le_bytes()),
        (0x1FE, &[0x55, 0xAA, 0xEB, 0x6A]),
        (0x202, b"HdrS\x0F\x02"),
        (0x211, &[1]),
        (0x22C, &0x7FFF_FFFF_u32.to_le_bytes()),
        (0x230, &0x20_0000_u32.to_le_bytes()),
        (0x234, &[1, 0, 1]),
        (0x238, &2047_u32.to_le_bytes()),
        (0x258, &0x10_0000_u64.to_le_bytes()),
    ];
    fields.iter().for_each(|(at, bytes)| set(&mut image, *at, bytes));
    set(&mut image, 0x260, &0x10_0000_u32.to_le_bytes());
    image
}

/// The class of an ELF file.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Bits {
    B32,
    B64,
}

/// An ELF file with one segment at 1 MiB and a PVH note.
fn elf(bits: Bits) -> Vec<u8> {
    let wide = bits == Bits::B64;
    let mut image = vec![0; 0x200];
    let mut word = |at: usize, value: u64| {
        let bytes = value.to_le_bytes();
        set(&mut image, at, if wide { &bytes } else { &bytes[..4] });
    };
    let (header, size, first) = if wide { (64, 56, 8) } else { (52, 32, 4) };
    word(24, 0x10_0010);
    word(if wide { 32 } else { 28 }, header as u64);
    let step = if wide { 8 } else { 4 };
    for (n, value) in [0x100, 0x10_0000, 0x10_0000, 0x40, 0x1000].into_iter().enumerate() {
        word(header + first + step * n, value);
    }
    for (n, value) in [0x180, 0, 0, 20, 20].into_iter().enumerate() {
        word(header + size + first + step * n, value);
    }
    let machine = if wide { 62 } else { 3 };
    set(&mut image, 0, &[0x7F, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1, 1]);
    set(&mut image, 16, &[2, 0, machine, 0, 1, 0, 0, 0]);
    set(&mut image, if wide { 54 } else { 42 }, &[size as u8, 0, 2, 0]);
    set(&mut image, header, &[1, 0, 0, 0]);
    set(&mut image, header + size, &[4, 0, 0, 0]);
    set(&mut image, 0x180, &[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0, b'X', b'e', b'n', 0, 0x20, 0, 0x10, 0]);
    image
}

/// A flat multiboot kernel at 1 MiB with 4 KiB of BSS.
fn multiboot() -> Vec<u8> {
    let mut image = vec![0xF4; 0x100];
    let flags = 1_u32 << 16 | 3;
    #[rustfmt::skip]
    let words = [
        0x1BAD_B002, flags, 0_u32.wrapping_sub(0x1BAD_B002 + flags),
        0x10_0004, 0x10_0000, 0x10_0080, 0x10_1080, 0x10_0030,
    ];
    words.iter().enumerate().for_each(|(n, word)| set(&mut image, 4 + 4 * n, &word.to_le_bytes()));
    image
}
