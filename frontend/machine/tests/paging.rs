//! A machine whose memory is paged (S12 to S16): a limit, a swap file that nobody else sees, and one that fails.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use umbra_machine::config::PressureChoice;
use umbra_machine::config::{Clock, DiskAccess, DiskConfig, DiskFormat, DiskInterface, MachineConfig, MemoryPolicy};
use umbra_machine::images::{self, empty_qcow2::empty_qcow2};
use umbra_machine::load::flat::FlatMode;
use umbra_machine::{BuildError, FlatStart, Machine, MachineBuilder, RunEnd, RunLimits};
use umbra_mmu::GuestPhys;
use umbra_mmu::reclaim::swap::SwapStore;

const BOTH: [Clock; 2] = [Clock::Virtual, Clock::Real];

/// mov bx, 1000h; next: mov es, bx; mov al, es:[8]; inc byte es:[8]; add bx, 100h; cmp bx, 9000h; jb next;
/// mov bx, 1000h; dec byte [600h]; jnz next; mov al, 3; out F4h, al: 128 pages, 200 times.
const WALK: &[u8] = &[
    0xC6, 0x06, 0x00, 0x06, 200, // mov byte [600h], 200
    0xBB, 0x00, 0x10, // again: mov bx, 1000h
    0x8E, 0xC3, // next: mov es, bx
    0x26, 0xFE, 0x06, 0x08, 0x00, // inc byte es:[8]
    0x81, 0xC3, 0x00, 0x01, // add bx, 100h
    0x81, 0xFB, 0x00, 0x90, // cmp bx, 9000h
    0x72, 0xEF, // jb next
    0xFE, 0x0E, 0x00, 0x06, // dec byte [600h]
    0x75, 0xE6, // jnz again
    0xB0, 0x03, // mov al, 3
    0xE6, 0xF4, // out F4h, al
    0xF4, // hlt
];

/// By the data register of the first disk: 64 sectors to 1000h:0, eight at a time; what came last is written to sector 4 and the
/// seven others behind it; then all 64 again, to 1800h:0.
#[rustfmt::skip]
const COPY: &[u8] = &[
    0x31, 0xC0, // xor ax, ax
    0x8E, 0xD0, // mov ss, ax
    0xBC, 0x00, 0x7C, // mov sp, 7C00h
    0xFC, // cld
    0xBB, 0x00, 0x10, // mov bx, 1000h
    0x31, 0xF6, // pass: xor si, si
    0xB0, 0x20, // read: mov al, 20h
    0xE8, 0x59, 0x00, // call command
    0x8E, 0xC3, // mov es, bx
    0x31, 0xFF, // xor di, di
    0xB1, 0x08, // mov cl, 8
    0xE8, 0x70, 0x00, // take: call ready
    0x51, // push cx
    0xB9, 0x00, 0x01, // mov cx, 256
    0xF3, 0x6D, // rep insw
    0x59, // pop cx
    0xFE, 0xC9, // dec cl
    0x75, 0xF2, // jnz take
    0x80, 0xC7, 0x01, // add bh, 1
    0x83, 0xC6, 0x08, // add si, 8
    0x83, 0xFE, 0x40, // cmp si, 64
    0x72, 0xDC, // jb read
    0x80, 0xFF, 0x20, // cmp bh, 20h
    0x74, 0x30, // je done
    0xBB, 0x00, 0x17, // mov bx, 1700h
    0xBE, 0x04, 0x00, // mov si, 4
    0xB0, 0x30, // write: mov al, 30h
    0xE8, 0x2A, 0x00, // call command
    0x8E, 0xDB, // mov ds, bx
    0x56, // push si
    0x31, 0xF6, // xor si, si
    0xB1, 0x08, // mov cl, 8
    0xE8, 0x40, 0x00, // give: call ready
    0x51, // push cx
    0xB9, 0x00, 0x01, // mov cx, 256
    0xF3, 0x6F, // rep outsw
    0x59, // pop cx
    0xFE, 0xC9, // dec cl
    0x75, 0xF2, // jnz give
    0x5E, // pop si
    0xFE, 0xCF, // dec bh
    0x83, 0xC6, 0x08, // add si, 8
    0x83, 0xFE, 0x40, // cmp si, 64
    0x72, 0xDB, // jb write
    0xBB, 0x00, 0x18, // mov bx, 1800h
    0xEB, 0xA5, // jmp pass
    0xB0, 0x03, // done: mov al, 3
    0xE6, 0xF4, // out 0F4h, al
    0xF4, // hlt
    0x50, // command: push ax
    0xBA, 0xF7, 0x01, // mov dx, 1F7h
    0xEC, // busy: in al, dx
    0xA8, 0x80, // test al, 80h
    0x75, 0xFB, // jnz busy
    0xB2, 0xF2, // mov dl, 0F2h
    0xB0, 0x08, // mov al, 8
    0xEE, // out dx, al
    0x42, // inc dx
    0x89, 0xF0, // mov ax, si
    0xEE, // out dx, al
    0x42, // inc dx
    0x88, 0xE0, // mov al, ah
    0xEE, // out dx, al
    0x42, // inc dx
    0xEE, // out dx, al
    0x42, // inc dx
    0xB0, 0xE0, // mov al, 0E0h
    0xEE, // out dx, al
    0x42, // inc dx
    0x58, // pop ax
    0xEE, // out dx, al
    0xC3, // ret
    0xBA, 0xF7, 0x01, // ready: mov dx, 1F7h
    0xEC, // wait_: in al, dx
    0x24, 0x88, // and al, 88h
    0x3C, 0x08, // cmp al, 8
    0x75, 0xF9, // jne wait_
    0xB2, 0xF0, // mov dl, 0F0h
    0xC3, // ret
];

fn paged(clock: Clock) -> MachineBuilder {
    let mut config = MachineConfig::default();
    config.host_memory.policy = MemoryPolicy::Paged;
    let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
    MachineBuilder::from_config(&config).memory(4 << 20).clock(clock).flat("guest", WALK, start)
}

fn limits() -> RunLimits {
    RunLimits { deadline: Instant::now().checked_add(Duration::from_secs(60)), ..RunLimits::default() }
}

/// A store in memory, good (0), full (1) or broken (2).
#[derive(Clone, Debug, Default)]
struct Store {
    bytes: Arc<Mutex<Vec<u8>>>,
    state: Arc<AtomicU8>,
}

impl SwapStore for Store {
    fn write(&mut self, at: u64, from: &[u8]) -> io::Result<()> {
        if self.state.load(Ordering::Relaxed) == 1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut bytes = self.bytes.lock().expect("no panic");
        let end = at as usize + from.len();
        let length = bytes.len().max(end);
        bytes.resize(length, 0);
        bytes[at as usize..end].copy_from_slice(from);
        Ok(())
    }
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        if self.state.load(Ordering::Relaxed) == 2 {
            return Err(io::Error::other("the disk is broken"));
        }
        let bytes = self.bytes.lock().expect("no panic");
        into.copy_from_slice(&bytes[at as usize..at as usize + into.len()]);
        Ok(())
    }
}

/// The guest cannot tell: the same end, time and state, with all of its memory out at the start and with all of it in.
#[test]
fn a_memory_limit_is_not_seen_by_the_guest() {
    let run = |limit: Option<u64>| {
        let mut builder = paged(Clock::Virtual);
        if let Some(limit) = limit {
            builder = builder.memory_limit(limit);
        }
        let mut machine = builder.build().expect("a machine");
        if limit.is_some() {
            machine.memory().evict(u64::MAX);
        }
        let end = machine.run(limits());
        let counts = machine.memory().counters().reclaim;
        assert_eq!(counts.swap_ins > 0, limit.is_some(), "{counts:?}");
        assert!(counts.most_resident <= counts.limit);
        (end, machine.now(), machine.retired(), machine.state_hash())
    };
    let first = run(None);
    assert_eq!(first.0, RunEnd::GuestExit(7));
    assert_eq!(run(Some(1 << 20)), first);
    assert_eq!(run(Some(2 << 20)), first);
}

/// Pages that a disk holds are read there again, and leave it before it is written: the guest cannot tell, and the disk neither.
#[test]
fn a_disk_that_holds_pages_is_not_seen_by_the_guest() {
    let noise: Vec<u8> = (0..1_u32 << 16).map(|n| (n.wrapping_mul(0x9E37_79B9) >> 24) as u8 ^ (n >> 9) as u8).collect();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("copies-{}.img", std::process::id()));
    let run = |format: DiskFormat, access: DiskAccess, limit: Option<u64>| {
        let mut image = if format == DiskFormat::Qcow2 { empty_qcow2(1, "") } else { noise.clone() };
        std::fs::write(&path, &image).expect("an image");
        if format == DiskFormat::Qcow2 {
            let mut disk = images::open(&path, format, DiskAccess::ReadWrite).expect("a disk");
            disk.write(0, &noise).and_then(|()| disk.flush()).expect("a disk that can be written");
        }
        let mut config = MachineConfig::default();
        config.host_memory.policy = MemoryPolicy::Paged;
        config.disks.push(DiskConfig { file: path.clone(), interface: DiskInterface::Ide, format, access });
        let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
        let builder = MachineBuilder::from_config(&config).memory(4 << 20).clock(Clock::Virtual);
        let mut builder = builder.flat("guest", COPY, start);
        if let Some(limit) = limit {
            builder = builder.memory_limit(limit);
        }
        let mut machine = builder.build().expect("a machine");
        let mut end = RunEnd::InstructionLimit;
        while end == RunEnd::InstructionLimit {
            let instructions = Some(machine.retired() + 700);
            end = machine.run(RunLimits { instructions, ..limits() });
            if limit.is_some() {
                machine.memory().evict(u64::MAX);
            }
        }
        let counts = machine.memory().counters().reclaim;
        if limit.is_some() {
            let moves = access == DiskAccess::ReadWrite;
            assert!(
                counts.disk_evictions > 16 && counts.disk_reads > 4 && (counts.disk_moves > 0) == moves,
                "{counts:?}"
            );
        }
        let seen = (end, machine.now(), machine.retired(), machine.state_hash());
        drop(machine);
        let mut disk = images::open(&path, format, DiskAccess::ReadOnly).expect("a disk");
        image.resize(1 << 16, 0);
        disk.read(0, &mut image).expect("a disk that can be read");
        (seen, image)
    };
    for format in [DiskFormat::Raw, DiskFormat::Qcow2] {
        for access in [DiskAccess::ReadWrite, DiskAccess::Snapshot] {
            let first = run(format, access, None);
            assert_eq!(first.0.0, RunEnd::GuestExit(7));
            assert_eq!(first.1 == noise, access == DiskAccess::Snapshot);
            let again = run(format, access, Some(1 << 20));
            assert_eq!(again.0, first.0, "{format:?} {access:?}");
            assert!(again.1 == first.1, "{format:?} {access:?}");
        }
    }
    let _ = std::fs::remove_file(&path);
}

/// A disk that is full or broken ends the run with a sentence; another machine beside it does not notice.
#[test]
fn a_swap_file_that_fails_ends_the_run() {
    for clock in BOTH {
        for state in [1, 2] {
            let store = Store::default();
            let stores = store.clone();
            let make = move || Ok(Box::new(stores.clone()) as Box<dyn SwapStore>);
            let mut machine = paged(clock).swap(Arc::new(make)).build().expect("a machine");
            let mut other = paged(clock).build().expect("a machine");
            if state == 1 {
                store.state.store(1, Ordering::Relaxed);
                machine.memory().evict(u64::MAX);
            } else {
                machine.memory().evict(u64::MAX);
                store.state.store(2, Ordering::Relaxed);
            }
            assert_eq!(machine.run(limits()), RunEnd::SwapFailed, "{clock:?}");
            assert_eq!(machine.retired(), 0, "not an instruction saw what was lost");
            let sentence = machine.memory().failure().expect("a sentence").to_string();
            assert!(sentence.contains(if state == 1 { "no room" } else { "cannot be read" }), "{sentence}");
            assert!(sentence.contains("try "), "{sentence}");
            assert_eq!(machine.run(limits()), RunEnd::SwapFailed, "and so does every other run");
            other.memory().evict(u64::MAX);
            assert_eq!(other.run(limits()), RunEnd::GuestExit(7));
            assert!(other.memory().failure().is_none());
        }
    }
}

/// A full disk in the middle of a run: what the guest has is still all there.
#[test]
fn a_disk_that_fills_up_stops_a_running_machine() {
    for clock in BOTH {
        let store = Store::default();
        let stores = store.clone();
        let make = move || Ok(Box::new(stores.clone()) as Box<dyn SwapStore>);
        // A loop that never ends.
        let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
        let builder = paged(clock).flat("guest", &[0xFE, 0x06, 0x00, 0x06, 0xEB, 0xFA][..], start);
        let mut machine = builder.swap(Arc::new(make)).build().expect("a machine");
        let memory = machine.memory().clone();
        memory.write(GuestPhys(0x5000), b"still here");
        let end = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                store.state.store(1, Ordering::Relaxed);
                memory.evict(u64::MAX);
            });
            machine.run(limits())
        });
        assert_eq!(end, RunEnd::SwapFailed, "{clock:?}");
        assert!(machine.retired() > 0);
        let mut bytes = [0; 10];
        memory.read(GuestPhys(0x5000), &mut bytes);
        assert_eq!(&bytes, b"still here");
    }
}

/// While the host needs memory, what the guest does not use leaves by itself (S18, S19); while it does not, nothing does.
#[test]
fn a_guest_shrinks_under_pressure() {
    for clock in BOTH {
        for pressure in [PressureChoice::None, PressureChoice::Urgent] {
            let mut config = paged(clock).config().clone();
            config.host_memory.pressure = pressure;
            let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
            let builder = MachineBuilder::from_config(&config).memory(4 << 20);
            let mut machine =
                builder.flat("guest", &[0xFE, 0x06, 0x00, 0x06, 0xEB, 0xFA][..], start).build().expect("a machine");
            for page in 256..1024u64 {
                machine.memory().write(GuestPhys(page << 12), &page.to_le_bytes());
            }
            let before = machine.memory().counters().reclaim.resident;
            let deadline = Instant::now().checked_add(Duration::from_millis(2500));
            assert_eq!(machine.run(RunLimits { deadline, ..limits() }), RunEnd::TimedOut);
            let after = machine.memory().counters().reclaim.resident;
            println!("{clock:?} {pressure:?}: {before} frames, then {after}");
            match pressure {
                PressureChoice::None => assert!(after >= before),
                _ => assert!(after * 5 <= before, "{clock:?}: {after} of {before} frames are still in"),
            }
            let mut bytes = [0; 8];
            for page in 256..1024u64 {
                machine.memory().read(GuestPhys(page << 12), &mut bytes);
                assert_eq!(u64::from_le_bytes(bytes), page);
            }
        }
    }
}

/// The swap file has no name, and only its owner's rights.
#[cfg(target_os = "linux")]
#[test]
fn nobody_else_can_read_the_swap_file() {
    use std::os::unix::fs::MetadataExt;
    let folder = std::env::temp_dir().join(format!("umbra-swap-dir-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let mut config = paged(Clock::Virtual).config().clone();
    config.host_memory.swap_dir = Some(folder.clone());
    let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
    let machine = MachineBuilder::from_config(&config).flat("guest", WALK, start).build().expect("a machine");
    machine.memory().evict(u64::MAX);
    assert!(machine.memory().counters().reclaim.swap_file_bytes > 0);
    assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 0, "it has no name");
    let mut found = 0;
    for entry in std::fs::read_dir("/proc/self/fd").expect("descriptors") {
        let path = entry.expect("a descriptor").path();
        if std::fs::read_link(&path).is_ok_and(|target| target.starts_with(&folder)) {
            let about = std::fs::metadata(&path).expect("it is open");
            assert_eq!((about.mode() & 0o777, about.nlink()), (0o600, 0));
            found += 1;
        }
    }
    assert_eq!(found, 1);
    drop(machine);
    std::fs::remove_dir(&folder).expect("it is empty");
    config.host_memory.swap_dir = Some(folder);
    let refused = MachineBuilder::from_config(&config).flat("guest", WALK, start).build();
    let sentence = refused.err().map(|error| matches!(error, BuildError::Swap { .. }).then(|| error.to_string()));
    assert!(sentence.flatten().is_some_and(|text| text.contains("--swap-dir")));
}

/// A machine that is not paged is as it was.
#[test]
fn the_default_is_not_paged() {
    let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
    let mut machine = Machine::builder().memory(4 << 20).flat("guest", WALK, start).build().expect("a machine");
    assert_eq!(machine.memory().evict(u64::MAX), 0);
    assert_eq!(machine.run(limits()), RunEnd::GuestExit(7));
    assert_eq!(machine.memory().counters().reclaim, Default::default());
}
