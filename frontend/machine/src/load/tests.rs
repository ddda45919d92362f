//! Sound images of every format, bad ones with their sentences, and mutated ones that must never panic.

use super::plan::{gpr, layout};
use super::*;
use proptest::prelude::*;

fn map(mib: u64) -> MemoryMap {
    MemoryMap::new(mib << 20).unwrap()
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A bzImage of protocol 2.15 with one setup sector and 4,096 bytes of "kernel".
fn bzimage() -> Vec<u8> {
    let mut file = vec![0x90; 1024 + 4096];
    file[..1024].fill(0);
    file[0x1F1] = 1;
    set(&mut file, 0x1F4, &(4096_u32 / 16).to_le_bytes());
    set(&mut file, 0x1FE, &[0x55, 0xAA, 0xEB, 0x6A]);
    set(&mut file, 0x202, b"HdrS");
    set(&mut file, 0x206, &0x020F_u16.to_le_bytes());
    file[0x211] = 1;
    set(&mut file, 0x22C, &0x7FFF_FFFF_u32.to_le_bytes());
    set(&mut file, 0x230, &0x20_0000_u32.to_le_bytes());
    file[0x234] = 1;
    set(&mut file, 0x236, &1_u16.to_le_bytes());
    set(&mut file, 0x238, &2047_u32.to_le_bytes());
    set(&mut file, 0x258, &0x100_0000_u64.to_le_bytes());
    set(&mut file, 0x260, &0x10_0000_u32.to_le_bytes());
    file
}

/// An ELF64 with one loadable segment at 1 MiB and, if wanted, a PVH note.
fn elf64(note: bool) -> Vec<u8> {
    let mut file = vec![0; 0x200];
    set(&mut file, 0, b"\x7fELF\x02\x01\x01");
    set(&mut file, 16, &[2, 0, 62, 0]);
    set(&mut file, 24, &0xFFFF_FFFF_8010_0010_u64.to_le_bytes());
    set(&mut file, 32, &64_u64.to_le_bytes());
    set(&mut file, 54, &[56, 0, 1 + u8::from(note), 0]);
    let mut header = |at: usize, kind: u32, fields: [u64; 5]| {
        set(&mut file, at, &kind.to_le_bytes());
        for (n, field) in fields.iter().enumerate() {
            set(&mut file, at + 8 + 8 * n, &field.to_le_bytes());
        }
    };
    header(64, 1, [0x100, 0xFFFF_FFFF_8010_0000, 0x10_0000, 0x40, 0x1000]);
    header(120, 4, [0x180, 0, 0, 20, 20]);
    set(&mut file, 0x180, &[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0, b'X', b'e', b'n', 0, 0x20, 0, 0x10, 0]);
    file
}

/// A flat multiboot kernel at 1 MiB with 4 KiB of BSS.
fn multiboot_flat() -> Vec<u8> {
    let mut file = vec![0xF4; 0x100];
    let flags = 1_u32 << 16 | 3;
    let words = [
        0x1BAD_B002,
        flags,
        0_u32.wrapping_sub(0x1BAD_B002 + flags),
        0x10_0004,
        0x10_0000,
        0x10_0080,
        0x10_1080,
        0x10_0030,
    ];
    for (n, word) in words.iter().enumerate() {
        set(&mut file, 4 + 4 * n, &word.to_le_bytes());
    }
    file
}

fn multiboot_elf() -> Vec<u8> {
    let mut file = elf64(false);
    for (n, word) in [0x1BAD_B002_u32, 0, 0_u32.wrapping_sub(0x1BAD_B002)].iter().enumerate() {
        set(&mut file, 0x110 + 4 * n, &word.to_le_bytes());
    }
    file
}

fn here<'p>(bytes: &'p Bytes<'_>) -> &'p [u8] {
    match bytes {
        Bytes::Here(bytes) => bytes,
        Bytes::InFile { .. } => &[],
    }
}

/// The bytes that a plan has at an address.
fn at<'p>(plan: &'p LoadPlan<'_>, start: u64, length: usize) -> &'p [u8] {
    plan.segments
        .iter()
        .find_map(|s| here(&s.bytes).get(start.checked_sub(s.at.0)? as usize..)?.get(..length))
        .unwrap_or_else(|| panic!("nothing at {start:#x}"))
}

fn word(plan: &LoadPlan<'_>, start: u64) -> u32 {
    u32::from_le_bytes(at(plan, start, 4).try_into().unwrap())
}

#[test]
fn bzimage_by_the_64_bit_entry() {
    let file = bzimage();
    let initrd = vec![7; 5001];
    let modules = [Module { name: "initrd", bytes: &initrd, command_line: "" }];
    let options = LoadOptions {
        command_line: "console=ttyS0",
        modules: &modules,
        rsdp: Some(GuestPhys(0xF_5A00)),
        ..LoadOptions::named("vmlinuz")
    };
    let plan = load(&file, &options, &map(64)).unwrap();
    assert_eq!(plan.format, Format::BzImage);
    assert_eq!(plan.entry.mode, EntryMode::Long64 { cr3: GuestPhys(layout::PAGE_TABLES) });
    assert_eq!(plan.entry.rip, 0x100_0200);
    assert_eq!(plan.entry.gprs[gpr::RSI], layout::BOOT_INFO);
    assert_eq!(at(&plan, 0x100_0000, 4096), &file[1024..]);
    let page = layout::BOOT_INFO;
    assert_eq!(at(&plan, u64::from(word(&plan, page + 0x228)), 14), b"console=ttyS0\0");
    let (initrd_at, initrd_length) = (word(&plan, page + 0x218), word(&plan, page + 0x21C));
    assert_eq!((initrd_at % 4096, initrd_length), (0, 5001));
    assert_eq!(at(&plan, initrd_at.into(), 5001), initrd);
    assert_eq!(word(&plan, page + 0x70), 0xF_5A00);
    assert_eq!(at(&plan, page + 0x1E8, 1)[0] as usize, map(64).e820().len());
    assert_eq!(word(&plan, page + 0x2D0 + 16), 1);
    assert_eq!(at(&plan, page + 0x202, 4), b"HdrS");
    // The last large page of the identity map.
    let last = layout::PAGE_TABLES + 5 * 4096 + 511 * 8;
    assert_eq!(word(&plan, last), 0xFFE0_0083);
}

#[test]
fn bzimage_by_its_head() {
    let file = bzimage();
    let options = LoadOptions { command_line: "quiet", ..LoadOptions::named("vmlinuz") };
    let whole = load(&file, &options, &map(64)).unwrap();
    let mut plan = bzimage::load_by_head(&file[..1024], file.len() as u64, &options, &map(64)).unwrap();
    let in_file = plan.segments.iter_mut().find(|s| matches!(s.bytes, Bytes::InFile { .. })).expect("the kernel");
    assert_eq!(in_file.bytes, Bytes::InFile { at: 1024, length: 4096 });
    in_file.bytes = Bytes::from(&file[1024..]);
    assert_eq!(plan, whole);
    // What the header promises must be in the file, seen or not.
    let short = file.len() as u64 - 100;
    let by_head = bzimage::load_by_head(&file[..1024], short, &options, &map(64)).unwrap_err();
    assert_eq!(by_head, load(&file[..short as usize], &options, &map(64)).unwrap_err());
    assert!(matches!(by_head.problem, LoadProblem::Truncated { what: "the protected-mode kernel", .. }));
}

#[test]
fn bzimage_by_the_32_bit_entry() {
    let mut file = bzimage();
    let options = LoadOptions { entry: EntryChoice::Bits32, ..LoadOptions::named("vmlinuz") };
    let plan = load(&file, &options, &map(64)).unwrap();
    assert_eq!((plan.entry.mode, plan.entry.rip), (EntryMode::Protected32, 0x100_0000));
    // A 32-bit kernel that cannot be moved, like memtest86+.
    file[0x236] = 0;
    file[0x234] = 0;
    let plan = load(&file, &LoadOptions::named("memtest"), &map(16)).unwrap();
    assert_eq!((plan.entry.mode, plan.entry.rip), (EntryMode::Protected32, 0x10_0000));
}

#[test]
fn several_initrds_follow_each_other_at_multiples_of_four() {
    let file = bzimage();
    let module = |bytes| Module { name: "i", bytes, command_line: "" };
    let modules = [module(&[1; 5]), module(&[2; 7])];
    let plan = load(&file, &LoadOptions { modules: &modules, ..LoadOptions::named("k") }, &map(64)).unwrap();
    let start = u64::from(word(&plan, layout::BOOT_INFO + 0x218));
    assert_eq!(word(&plan, layout::BOOT_INFO + 0x21C), 8 + 7);
    assert_eq!(at(&plan, start + 8, 7), [2; 7]);
}

#[test]
fn multiboot_flat_and_elf() {
    for (file, entry) in [(multiboot_flat(), 0x10_0030), (multiboot_elf(), 0x10_0010)] {
        let modules = [Module { name: "m", bytes: &[9; 10], command_line: "m one" }];
        let options = LoadOptions { command_line: "kernel x", modules: &modules, ..LoadOptions::named("k") };
        let plan = load(&file, &options, &map(16)).unwrap();
        assert_eq!(plan.format, Format::Multiboot1);
        assert_eq!((plan.entry.mode, plan.entry.rip), (EntryMode::Protected32, entry));
        assert_eq!(plan.entry.gprs[gpr::RAX], 0x2BAD_B002);
        let info = plan.entry.gprs[gpr::RBX];
        assert_eq!(word(&plan, info + 4), 639);
        assert_eq!(at(&plan, word(&plan, info + 16).into(), 11), b"k kernel x\0");
        let list = u64::from(word(&plan, info + 24));
        assert_eq!(word(&plan, list + 4) - word(&plan, list), 10);
        assert_eq!(at(&plan, word(&plan, list + 8).into(), 6), b"m one\0");
        assert_eq!(word(&plan, u64::from(word(&plan, info + 48))), 20);
        assert_eq!(at(&plan, word(&plan, info + 64).into(), 6), b"Umbra\0");
        assert_eq!(plan.zero.len(), 1);
    }
}

#[test]
fn pvh_and_bare_elf() {
    let file = elf64(true);
    let modules = [Module { name: "m", bytes: &[9; 10], command_line: "" }];
    let options = LoadOptions { modules: &modules, rsdp: Some(GuestPhys(0xF_0000)), ..LoadOptions::named("k") };
    let plan = load(&file, &options, &map(16)).unwrap();
    assert_eq!((plan.format, plan.entry.rip), (Format::Pvh, 0x10_0020));
    let info = plan.entry.gprs[gpr::RBX];
    assert_eq!((word(&plan, info), word(&plan, info + 12), word(&plan, info + 32)), (0x336E_C578, 1, 0xF_0000));
    assert_eq!(word(&plan, u64::from(word(&plan, info + 16)) + 8), 10);
    assert_eq!(word(&plan, u64::from(word(&plan, info + 40)) + 16), 1);

    let file = elf64(false);
    let plan = load(&file, &LoadOptions::named("k"), &map(16)).unwrap();
    assert_eq!((plan.format, plan.entry.rip), (Format::BareElf, 0x10_0010));
    assert!(matches!(plan.entry.mode, EntryMode::Long64 { .. }));
}

#[test]
fn flat_images_start_in_each_mode() {
    let options = LoadOptions::named("rom");
    #[rustfmt::skip]
    let cases = [
        (0x7C00,    flat::FlatMode::Real16,      EntryMode::Real16 { cs: 0 },      0x7C00),
        (0x1_2340,  flat::FlatMode::Real16,      EntryMode::Real16 { cs: 0x1234 }, 0),
        (0x10_0000, flat::FlatMode::Protected32, EntryMode::Protected32,           0x10_0000),
        (0x10_0000, flat::FlatMode::Long64,      EntryMode::Long64 { cr3: GuestPhys(layout::PAGE_TABLES) }, 0x10_0000),
    ];
    for (start, mode, entry, rip) in cases {
        let plan = flat::load(&[0xF4; 16], &options, GuestPhys(start), mode, &map(16)).unwrap();
        assert_eq!((plan.entry.mode, plan.entry.rip), (entry, rip));
    }
    let above = flat::load(&[0xF4], &options, GuestPhys(0x10_0000), flat::FlatMode::Real16, &map(16));
    assert!(above.unwrap_err().to_string().contains("above 1 MiB"));
}

/// A file, the machine's MiB, and words that the sentence must have.
#[test]
fn bad_files_get_one_sentence() {
    let change = |mut file: Vec<u8>, at: usize, value: &[u8]| {
        set(&mut file, at, value);
        file
    };
    let cut = |file: Vec<u8>, length: usize| file[..length].to_vec();
    #[rustfmt::skip]
    let cases: Vec<(Vec<u8>, u64, &str)> = vec![
        (vec![],                                         64, "the file is empty"),
        (b"#!/bin/sh\n".to_vec(),                        64, "a script"),
        (b"\x1f\x8b\x08\0".to_vec(),                     64, "gunzip"),
        (b"070701".to_vec(),                             64, "--initrd"),
        (b"QFI\xfb".to_vec(),                            64, "--disk"),
        (b"hello world\n".to_vec(),                      64, "a text file"),
        (vec![0; 100],                                   64, "no known kind"),
        (change(vec![0; 512], 510, b"\x55\xaa"),         64, "a boot sector"),
        (cut(bzimage(), 3000),                           64, "cut short: the protected-mode kernel"),
        (cut(bzimage(), 0x206),                          64, "cut short: the setup header"),
        (bzimage(),                                      16, "try more memory"),
        (change(bzimage(), 0x206, &[1, 2]),              64, "version"),
        (change(bzimage(), 0x211, &[0]),                 64, "zImage"),
        (change(bzimage(), 0x230, &[3, 0, 0, 0]),        64, "kernel_alignment is 0x3"),
        (change(bzimage(), 0x258, &[0xFF; 8]),           64, "the kernel wants"),
        (change(elf64(false), 4, &[3]),                  16, "the ELF class is 0x3"),
        (change(elf64(false), 5, &[2]),                  16, "not little-endian"),
        (change(elf64(false), 16, &[1]),                 16, "not linked"),
        (change(elf64(false), 18, &[183]),               16, "machine is 0xb7"),
        (change(elf64(false), 56, &[0]),                 16, "nothing to load"),
        (change(elf64(false), 56, &[200]),               16, "cut short: a program header"),
        (change(elf64(false), 96, &[0, 2]),              16, "cut short: a segment"),
        (change(elf64(false), 104, &[1, 0]),             16, "less than in the file"),
        (change(elf64(false), 108, &[0xFF; 4]),          16, "BSS wants"),
        (change(elf64(false), 90, &[0, 0]),              16, "a segment"),
        (change(multiboot_flat(), 20, &[0, 0, 0x20, 0]), 16, "load_addr"),
        (change(multiboot_flat(), 24, &[0, 0, 1, 0]),    16, "load_end_addr"),
        (change(multiboot_flat(), 28, &[1, 0, 0x10, 0]), 16, "bss_end_addr"),
    ];
    for (file, mib, expected) in cases {
        match load(&file, &LoadOptions::named("FILE"), &map(mib)) {
            Ok(plan) => assert_eq!(expected, "a segment", "loaded: {plan:?}"),
            Err(error) => {
                let sentence = error.to_string();
                assert!(sentence.starts_with("FILE: ") && sentence.contains(expected), "{expected:?}: {sentence}");
                assert!(!sentence.contains('\n'));
            }
        }
    }
}

#[test]
fn bad_options_get_one_sentence() {
    let file = bzimage();
    let long = "x".repeat(2048);
    let huge = vec![0; 64 << 20];
    let modules = [Module { name: "initrd", bytes: &huge, command_line: "" }];
    let named = LoadOptions::named("vmlinuz");
    #[rustfmt::skip]
    let cases = [
        (LoadOptions { command_line: &long, ..named },           "takes 2047"),
        (LoadOptions { command_line: "a\0b", ..named },          "zero byte"),
        (LoadOptions { modules: &modules, ..named },             "no room for the initrd"),
        (LoadOptions { processor: Processor::Only32, ..named },  "64-bit processor"),
    ];
    for (options, expected) in cases {
        let sentence = load(&file, &options, &map(64)).unwrap_err().to_string();
        assert!(sentence.contains(expected), "{sentence}");
    }
}

/// Whatever a plan says must be within RAM and disjoint.
fn check(plan: &LoadPlan<'_>, map: &MemoryMap) {
    let segments = plan.segments.iter().map(|s| (s.at.0, s.bytes.length()));
    let mut ranges: Vec<_> = segments.chain(plan.zero.iter().map(|z| (z.at.0, z.length))).collect();
    ranges.sort_unstable();
    for &(start, length) in &ranges {
        assert!(map.is_usable(GuestPhys(start), length));
    }
    for pair in ranges.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Up to eight mutations of a sound image, then perhaps a cut.
    #[test]
    fn mutated_images_never_panic(
        kind in 0..5_usize,
        edits in prop::collection::vec((0..0x300_usize, prop_oneof![Just(0_u64), Just(u64::MAX), any::<u64>()], 1..=8_usize), 0..8),
        cut in prop::option::of(0..0x600_usize),
    ) {
        let mut file = [bzimage(), elf64(true), elf64(false), multiboot_flat(), multiboot_elf()][kind].clone();
        for (at, value, width) in edits {
            let at = at % file.len();
            let end = (at + width).min(file.len());
            file[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
        }
        if let Some(cut) = cut {
            file.truncate(cut);
        }
        let map = map(64);
        let modules = [Module { name: "m", bytes: &[1; 33], command_line: "c" }];
        let options = LoadOptions { command_line: "hello", modules: &modules, ..LoadOptions::named("f") };
        if let Ok(plan) = load(&file, &options, &map) {
            check(&plan, &map);
        }
        for loader in [bzimage::load, multiboot1::load, pvh::load, flat::load_elf] {
            if let Ok(plan) = loader(&file, &options, &map) {
                check(&plan, &map);
            }
        }
    }

    #[test]
    fn noise_never_panics(file in prop::collection::vec(any::<u8>(), 0..2048)) {
        let map = map(16);
        for loader in [load, bzimage::load, multiboot1::load, pvh::load, flat::load_elf] {
            let _ = loader(&file, &LoadOptions::named("f"), &map);
        }
    }
}
