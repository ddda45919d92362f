//! How long it takes from nothing to a machine about to run its first instruction: `power_on KERNEL INITRD [ROUNDS]`.

use std::time::{Duration, Instant};
use umbra_machine::Machine;
use umbra_machine::memory_map::MemoryMap;
use umbra_mmu::frames::{FrameOrder, Pool};
use umbra_mmu::{GuestMemory, GuestPhys};

fn best(rounds: u32, mut work: impl FnMut() -> Result<(), Box<dyn std::error::Error>>) -> Option<Duration> {
    let once = |_| {
        let start = Instant::now();
        work().ok().map(|()| start.elapsed())
    };
    (0..rounds).filter_map(once).min()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initrd, rest @ ..] = &args[..] else { return Err("power_on KERNEL INITRD [ROUNDS]".into()) };
    let rounds: u32 = rest.first().map_or(Ok(20), |text| text.parse())?;
    let map = MemoryMap::new(256 << 20)?;
    let image = std::fs::read(kernel)?;
    let report = |what: &str, time: Option<Duration>| println!("{what:32} {time:?}");
    report(
        "read the files",
        best(rounds, || {
            std::hint::black_box((std::fs::read(kernel)?, std::fs::read(initrd)?));
            Ok(())
        }),
    );
    report(
        "frame pool",
        best(rounds, || {
            std::hint::black_box(Pool::new(256 << 20)?);
            Ok(())
        }),
    );
    report(
        "frame pool, map RAM",
        best(rounds, || {
            let memory = GuestMemory::new(Pool::new(256 << 20)?, FrameOrder::Identity, 40);
            for (at, bytes) in map.ram_ranges() {
                memory.map_ram(at, bytes)?;
            }
            Ok(())
        }),
    );
    report(
        "frame pool, map RAM, copy kernel",
        best(rounds, || {
            let memory = GuestMemory::new(Pool::new(256 << 20)?, FrameOrder::Identity, 40);
            for (at, bytes) in map.ram_ranges() {
                memory.map_ram(at, bytes)?;
            }
            memory.write(GuestPhys(0x100_0000), &image);
            Ok(())
        }),
    );
    report(
        "all",
        best(rounds, || {
            std::hint::black_box(Machine::builder().kernel_file(kernel).initrd_file(initrd).build()?);
            Ok(())
        }),
    );
    Ok(())
}
