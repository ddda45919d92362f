//! S11: each class of the classifier forced once, and what the guest may see of it. S5: roots.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/store.rs"]
mod store;
#[path = "support/tables.rs"]
mod tables;

use std::sync::Arc;
use tables::*;
use umbra_mmu::*;

fn class_of(guest: &mut Guest, action: impl FnOnce(&mut Guest)) -> Vec<FaultClass> {
    let before = guest.memory.counters();
    action(guest);
    let after = guest.memory.counters();
    let times = |class: FaultClass| (after.class(class) - before.class(class)) as usize;
    FaultClass::ALL.into_iter().flat_map(|class| std::iter::repeat_n(class, times(class))).collect()
}

/// No table maps it.
const NOWHERE: u64 = LINEAR + 0x5000;

#[test]
fn each_class_forced() {
    for kind in KINDS {
        let mut guest = Guest::new(kind);
        guest.memory.map_mmio(GuestPhys(0x80 << 12), 4096, RegionId(1)).unwrap();
        let clean = guest.phys(guest.entry_at(1)) & !0x40;
        guest.memory.write(GuestPhys(guest.entry_at(1)), &(clean as u32).to_le_bytes());
        let read = |linear: u64| {
            move |guest: &mut Guest| {
                assert_eq!(guest.read(linear).err().map(|fault| fault.error_code), (linear == NOWHERE).then_some(0))
            }
        };
        let write =
            |linear: u64| move |guest: &mut Guest| assert!(tables::write(&mut guest.vcpu, linear, b"xx").is_ok());
        assert_eq!(class_of(&mut guest, read(LINEAR)), [FaultClass::NotShadowed]);
        assert_eq!(class_of(&mut guest, read(LINEAR)), [], "a TLB hit is no slow access");
        assert_eq!(class_of(&mut guest, write(LINEAR)), [FaultClass::DirtyTrack]);
        assert_eq!(class_of(&mut guest, write(LINEAR)), []);
        guest.vcpu.set_view(View::SupervisorAc);
        assert_eq!(class_of(&mut guest, read(LINEAR)), [FaultClass::Hit], "another view's TLB");
        guest.vcpu.set_view(View::Supervisor);
        assert_eq!(class_of(&mut guest, read(alias(kind, 0x80))), [FaultClass::Mmio]);
        assert_eq!(class_of(&mut guest, read(alias(kind, CHAINS[0] + 1))), [FaultClass::NotShadowed]);
        assert_eq!(class_of(&mut guest, write(alias(kind, CHAINS[0] + 1) + 0x800)), [FaultClass::WriteTrack]);
        assert_eq!(class_of(&mut guest, read(NOWHERE)), [FaultClass::GuestTrue]);
        let counters = guest.memory.counters();
        assert_eq!(counters.slow_accesses, counters.classes.iter().sum::<u64>());
        guest.audit("classes");
    }
}

#[test]
fn code_is_noted_at_its_grain() {
    let mut guest = Guest::new(Kind::Long);
    guest.read(LINEAR).unwrap();
    guest.vcpu.track_code(PhysPage(CHAINS[0]), 0x100, 0x20);
    assert!(!guest.vcpu.store(LINEAR, 1u8), "the write right is gone");
    assert!(!write(&mut guest.vcpu, LINEAR + 0x80, b"beside").unwrap().code_written);
    let mut other = guest.memory.vcpu(Arc::default());
    assert!(write(&mut guest.vcpu, LINEAR + 0x13c, b"12345678").unwrap().code_written);
    // The grains, not the bytes: other code in them is not watched any more either.
    let expected =
        [CodeWrite { page: PhysPage(CHAINS[0]), offset: 0x100, len: 0x80, written: (0x13c, 8), kept: false }];
    assert_eq!(guest.vcpu.take_code_writes(), expected);
    assert_eq!(other.take_code_writes(), expected, "every vCPU hears of it");
    write(&mut guest.vcpu, LINEAR + 0x100, b"now data").unwrap();
    assert!(guest.vcpu.store(LINEAR + 0x100, 1u8), "no code is left: fast again");
    guest.vcpu.track_code(PhysPage(CHAINS[0]), 0, 4);
    guest.memory.dma().write(GuestPhys(CHAINS[0] << 12), b"dma");
    assert_eq!(guest.vcpu.take_code_writes().len(), 1);
    guest.vcpu.track_code(PhysPage(CHAINS[0]), 0, 4);
    guest.memory.set_backing(GuestPhys(CHAINS[0] << 12), 4096, Backing::OPEN).unwrap();
    let whole = CodeWrite { page: PhysPage(CHAINS[0]), offset: 0, len: 4096, written: (0, 4096), kept: false };
    assert_eq!(guest.vcpu.take_code_writes(), [whole], "a remap takes the whole page");
    guest.audit("code");
}

#[test]
fn code_that_is_kept_is_noted_to_the_byte() {
    let mut guest = Guest::new(Kind::Long);
    let page = PhysPage(CHAINS[0]);
    guest.read(LINEAR).unwrap();
    guest.vcpu.track_code(page, 0x100, 0x80);
    guest.vcpu.keep_code(page, 0x104, 4);
    for _ in 0..3 {
        write(&mut guest.vcpu, LINEAR + 0x104, b"1234").unwrap();
        let bytes = CodeWrite { page, offset: 0x104, len: 4, written: (0x104, 4), kept: true };
        assert_eq!(guest.vcpu.take_code_writes(), [bytes]);
        assert!(!guest.vcpu.store(LINEAR + 0x104, 1u8), "still watched");
    }
    // Into the grain beside it, which is watched but not kept: both are lost.
    write(&mut guest.vcpu, LINEAR + 0x13e, b"1234").unwrap();
    let grains = CodeWrite { page, offset: 0x100, len: 0x80, written: (0x13e, 4), kept: false };
    assert_eq!(guest.vcpu.take_code_writes(), [grains]);
    write(&mut guest.vcpu, LINEAR + 0x104, b"now data").unwrap();
    assert!(guest.vcpu.store(LINEAR + 0x104, 1u8), "no code is left: fast again");
    guest.vcpu.track_code(page, 0x100, 4);
    guest.vcpu.keep_code(page, 0x100, 4);
    guest.vcpu.release_code(page, 0x100, 4);
    write(&mut guest.vcpu, LINEAR + 0x100, b"1").unwrap();
    let grain = CodeWrite { page, offset: 0x100, len: 0x40, written: (0x100, 1), kept: false };
    assert_eq!(guest.vcpu.take_code_writes(), [grain], "released");
    guest.audit("kept code");
}

#[test]
fn shadow_ram_reads_rom_and_writes_ram() {
    let memory = GuestMemory::new(Pool::new(64 * 4096).unwrap(), FrameOrder::Identity, 36);
    memory.map_ram(GuestPhys(0), 16 << 12).unwrap();
    memory.map_rom(GuestPhys(0x8000), b"ROM image").unwrap();
    let mut vcpu = memory.vcpu(Arc::default());
    let rom = u64::from_le_bytes(*b"ROM imag");
    assert_eq!(read(&mut vcpu, 0x8000), Ok(rom));
    write(&mut vcpu, 0x8000, b"dropped!").unwrap();
    assert_eq!(read(&mut vcpu, 0x8000), Ok(rom));
    // PAM: reads from ROM, writes to RAM, as a BIOS copies itself.
    memory.set_backing(GuestPhys(0x8000), 4096, Backing { read: ReadFrom::Rom, write: WriteTo::Ram }).unwrap();
    vcpu.drain();
    write(&mut vcpu, 0x8000, b"RAM copy").unwrap();
    assert_eq!(read(&mut vcpu, 0x8000), Ok(rom));
    memory.set_backing(GuestPhys(0x8000), 4096, Backing { read: ReadFrom::Ram, write: WriteTo::Drop }).unwrap();
    vcpu.drain();
    let ram = u64::from_le_bytes(*b"RAM copy");
    assert_eq!(read(&mut vcpu, 0x8000), Ok(ram));
    write(&mut vcpu, 0x8000, b"dropped!").unwrap();
    assert_eq!(read(&mut vcpu, 0x8000), Ok(ram));
    memory.map_mmio(GuestPhys(0x8000), 4096, RegionId(7)).unwrap();
    vcpu.drain();
    let place = vcpu.resolve(Linear(0x8010), Access::Read, View::Supervisor).unwrap();
    assert_eq!(place.kind(), PlaceKind::Mmio { region: RegionId(7), offset: 0x10 });
    memory.set_backing(GuestPhys(0x8000), 4096, Backing::RAM).unwrap();
    vcpu.drain();
    assert_eq!(read(&mut vcpu, 0x8000), Ok(ram), "the RAM beneath kept its contents");
}

/// A flash memory: reads and code from the image, writes to the device, until the device wants the reads too.
#[test]
fn a_rom_whose_writes_a_device_takes() {
    let memory = GuestMemory::new(Pool::new(64 * 4096).unwrap(), FrameOrder::Identity, 36);
    memory.map_ram(GuestPhys(0), 8 << 12).unwrap();
    memory.map_rom(GuestPhys(0x8000), &[b'a'; 0x2000]).unwrap();
    memory.map_rom_written(GuestPhys(0x8000), 0x2000, RegionId(7)).unwrap();
    let mut vcpu = memory.vcpu(Arc::default());
    let kind = |vcpu: &mut VcpuMmu, at, access| vcpu.resolve(Linear(at), access, View::Supervisor).unwrap().kind();
    let device = |offset| PlaceKind::Mmio { region: RegionId(7), offset };
    for _ in 0..2 {
        // The write comes first, then after a read has been kept.
        assert_eq!(kind(&mut vcpu, 0x9010, Access::Write), device(0x1010));
        assert_eq!(read(&mut vcpu, 0x9010), Ok(u64::from_le_bytes([b'a'; 8])));
        assert_eq!(kind(&mut vcpu, 0x9010, Access::Fetch), PlaceKind::Rom);
    }
    memory.write_rom(GuestPhys(0x8FFC), b"12345678");
    vcpu.drain();
    assert_eq!(read(&mut vcpu, 0x9000), Ok(u64::from_le_bytes(*b"5678aaaa")));
    memory.map_mmio(GuestPhys(0x8000), 0x2000, RegionId(7)).unwrap();
    vcpu.drain();
    assert_eq!(kind(&mut vcpu, 0x9010, Access::Read), device(0x1010));
    memory.write_rom(GuestPhys(0x9010), b"under it");
    memory.map_rom_written(GuestPhys(0x8000), 0x2000, RegionId(7)).unwrap();
    vcpu.drain();
    assert_eq!(read(&mut vcpu, 0x9010), Ok(u64::from_le_bytes(*b"under it")));
    // What a bus master sees: the image, and no way to write it.
    let mut bytes = [0; 8];
    memory.write(GuestPhys(0x9010), b"dropped!");
    memory.read(GuestPhys(0x9010), &mut bytes);
    assert_eq!(&bytes, b"under it");
    memory.write_rom(GuestPhys(0x1000), b"no image");
    assert!(memory.audit().is_clean());
}

#[test]
fn a20_masks_for_the_processor_only() {
    let memory = GuestMemory::new(Pool::new(4 << 20).unwrap(), FrameOrder::Identity, 36);
    memory.map_ram(GuestPhys(0), 2 << 20).unwrap();
    memory.write(GuestPhys(0), b"low  end");
    memory.write(GuestPhys(1 << 20), b"high end");
    let mut vcpu = memory.vcpu(Arc::default());
    for _ in 0..3 {
        assert_eq!(read(&mut vcpu, 1 << 20), Ok(u64::from_le_bytes(*b"high end")));
        memory.set_a20(false);
        vcpu.drain();
        assert_eq!(read(&mut vcpu, 1 << 20), Ok(u64::from_le_bytes(*b"low  end")));
        let mut bytes = [0; 8];
        memory.read(GuestPhys(1 << 20), &mut bytes);
        assert_eq!(&bytes, b"high end");
        memory.set_a20(true);
        vcpu.drain();
    }
}

#[test]
fn cr3_storm() {
    // Address spaces with a common kernel part: 300 roots, each with its own page behind LINEAR.
    let spaces = 300u64;
    let memory = GuestMemory::new(Pool::new(2048 * 4096).unwrap(), FrameOrder::Identity, 40);
    memory.map_ram(GuestPhys(0), 2000 << 12).unwrap();
    let entry = |table: u64, index: u64, to: u64| {
        memory.write(GuestPhys((table << 12) + index * 8), &(to << 12 | 0x67).to_le_bytes());
    };
    for space in 0..spaces {
        let base = 100 + space * 5;
        for level in 1..=4 {
            entry(base + level, index(Kind::Long, level), base + level - 1);
        }
        entry(base + 4, 256, 50);
        memory.write(GuestPhys(base << 12), &space.to_le_bytes());
    }
    entry(50, 0, 51);
    entry(51, 0, 52);
    (0..16).for_each(|i| entry(52, i, 60 + i));
    let mut vcpu = memory.vcpu(Arc::default());
    let kernel = 0xffff_8000_0000_0000u64;
    for round in 0..4 {
        for space in 0..spaces {
            let cr3 = (100 + space * 5 + 4) << 12 | round;
            vcpu.set_paging(&PagingRegs { cr0: 0x8001_0001, cr3, cr4: 0x20, efer: 0x500, pdptes: [0; 4] });
            assert_eq!(vcpu.paging().cr3, cr3, "the guest reads its own value back");
            assert_eq!(read(&mut vcpu, LINEAR), Ok(space));
            read(&mut vcpu, kernel + ((space % 16) << 12)).unwrap();
        }
    }
    let counters = memory.counters();
    assert!(counters.monitor.roots <= 256, "{counters:?}");
    assert!(memory.audit().is_clean());
    // Few enough: after the first round every load finds its root, with its TLB as it was.
    for spaces in [1, 2, 10, 50, 100, 200] {
        let mut load = |space: u64| {
            let cr3 = (100 + space * 5 + 4) << 12;
            vcpu.set_paging(&PagingRegs { cr0: 0x8001_0001, cr3, cr4: 0x20, efer: 0x500, pdptes: [0; 4] });
            assert_eq!((vcpu.paging().cr3, read(&mut vcpu, LINEAR)), (cr3, Ok(space)));
        };
        (0..spaces).for_each(&mut load);
        let before = memory.counters();
        (0..10).for_each(|_| (0..spaces).for_each(&mut load));
        let after = memory.counters();
        let [hits, misses, slow] = [
            after.root_hits - before.root_hits,
            after.root_misses - before.root_misses,
            after.slow_accesses - before.slow_accesses,
        ];
        println!(
            "{spaces} spaces: {hits} root hits, {misses} misses, {slow} slow accesses; {} roots",
            after.monitor.roots
        );
        // The one space that is loaded again while it is loaded changes nothing.
        assert_eq!((hits, misses, slow), (if spaces == 1 { 0 } else { 10 * spaces }, 0, 0), "{spaces} spaces");
        assert!(after.monitor.roots <= 256);
    }
    let after = memory.counters();
    // Its own entry and the kernel's, inherited, but for the one whose slot its own takes; of 64 loads one is looked at.
    assert_eq!(after.kept_entries, after.root_hits / 64 * 64 * 16, "{after:?}");
    // A kernel mapping is one entry for all spaces, and its change reaches them all.
    entry(52, 3, 90);
    memory.write(GuestPhys(90 << 12), &0xabcdu64.to_le_bytes());
    for space in 0..100 {
        let cr3 = (100 + space * 5 + 4) << 12;
        vcpu.set_paging(&PagingRegs { cr0: 0x8001_0001, cr3, cr4: 0x20, efer: 0x500, pdptes: [0; 4] });
        assert_eq!(read(&mut vcpu, kernel + 0x3000), Ok(0xabcd));
    }
    // Told to forget roots, it reads the same, at the price of an empty TLB after each load.
    vcpu.forget_roots();
    let before = memory.counters();
    for _ in 0..10 {
        for space in 1..4 {
            let cr3 = (100 + space * 5 + 4) << 12;
            vcpu.set_paging(&PagingRegs { cr0: 0x8001_0001, cr3, cr4: 0x20, efer: 0x500, pdptes: [0; 4] });
            assert_eq!(read(&mut vcpu, LINEAR), Ok(space));
        }
    }
    let after = memory.counters();
    assert_eq!((after.root_hits - before.root_hits, after.root_misses - before.root_misses), (0, 30));
    assert_eq!(after.slow_accesses - before.slow_accesses, 30);
}

#[test]
fn explain_and_peek() {
    let mut guest = Guest::new(Kind::Long);
    let mut bytes = [0; 8];
    guest.vcpu.peek(Linear(LINEAR), &mut bytes).unwrap();
    assert_eq!(&bytes, b"AAAAAAAA");
    let before = guest.vcpu.explain(Linear(LINEAR));
    assert_eq!((before.guest_entries.len(), before.monitor), (4, None), "peek fills nothing");
    guest.read(LINEAR).unwrap();
    let after = guest.vcpu.explain(Linear(LINEAR));
    assert_eq!(after.monitor_page, Some(PhysPage(CHAINS[0])));
    assert_eq!(after.guest, Ok(GuestPhys(CHAINS[0] << 12)));
    assert!(after.host_frame.is_some());
    assert!(format!("{after}").contains("host    frame"));
}
