//! Machines that have a pool in common (S21): each is what it is alone, whatever the others do; and one whose swap file fails ends
//! alone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use umbra_machine::config::{Clock, Engine, MachineConfig, MemoryPolicy};
use umbra_machine::load::flat::FlatMode;
use umbra_machine::roms::Rom;
use umbra_machine::{CommonPool, FlatStart, Machine, MachineBuilder, RunEnd, RunLimits};
use umbra_mmu::reclaim::swap::SwapStore;
use umbra_mmu::{GuestMemory, GuestPhys};

/// Where the hammer looks how long it is to work, in nanoseconds.
const DURATION: GuestPhys = GuestPhys(0x7_0000);

/// The engines that this host has.
fn engines() -> &'static [Engine] {
    let compiles = cfg!(all(target_arch = "x86_64", target_os = "linux", not(portable)));
    if compiles { &[Engine::Interp, Engine::Jit] } else { &[Engine::Interp] }
}

/// Runs machines on threads of their own, each to its good end, while their memory is searched for equal pages. It is searched
/// before, too: how much of the time the searching thread gets is the host's to say.
fn run_beside_a_sharer(machines: &mut [Machine], memory: &[GuestMemory]) {
    (0..8).for_each(|_| memory.iter().for_each(|memory| _ = memory.share(2048)));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(sharer(memory, &over));
        let runs: Vec<_> = machines.iter_mut().map(|machine| scope.spawn(|| machine.run(limits()))).collect();
        let ends: Vec<_> = runs.into_iter().map(|run| run.join()).collect();
        over.store(true, Ordering::Relaxed);
        for end in ends {
            assert_eq!(end.expect("no panic"), RunEnd::GuestExit(1));
        }
    });
}

/// The hammer ROM in memory that is paged: code that changes, page tables, interrupts, locked counters.
fn hammer(engine: Engine, clock: Clock, cpus: u32) -> MachineBuilder {
    let rom = Rom::named("hammer").expect("the ROM");
    let mut config = MachineConfig { engine, ..MachineConfig::default() };
    config.host_memory.policy = MemoryPolicy::Paged;
    MachineBuilder::from_config(&config).memory(16 << 20).cpus(cpus).clock(clock).rom(rom.name, rom.image)
}
fn built(builder: MachineBuilder, work: Duration) -> Machine {
    let machine = builder.build().expect("a machine");
    machine.memory().write(DURATION, &(work.as_nanos() as u64).to_le_bytes());
    // Pages that any two of them have in common.
    for page in 0x400..0x800u64 {
        machine.memory().write(GuestPhys(page << 12), &(page % 512).to_le_bytes().repeat(512));
    }
    machine
}
fn limits() -> RunLimits {
    RunLimits { deadline: Instant::now().checked_add(Duration::from_secs(120)), ..RunLimits::default() }
}
/// Looks for equal pages until told to end.
fn sharer<'s>(memory: &'s [GuestMemory], over: &'s AtomicBool) -> impl FnOnce() + Send + 's {
    move || {
        while !over.load(Ordering::Relaxed) {
            memory.iter().for_each(|memory| _ = memory.share(2048));
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Two machines side by side come to the state that each comes to alone, at the same time; what they share is theirs alone when
/// it is written.
#[test]
fn a_pool_in_common_is_not_seen_by_the_guests() {
    let works = [20, 23].map(Duration::from_millis);
    for engine in engines() {
        let state = |machine: &mut Machine| (machine.now(), machine.retired(), machine.state_hash());
        let alone = works.map(|work| {
            let mut machine = built(hammer(*engine, Clock::Virtual, 2), work);
            assert_eq!(machine.run(limits()), RunEnd::GuestExit(1));
            state(&mut machine)
        });
        let builders = works.map(|_| hammer(*engine, Clock::Virtual, 2));
        let pool = CommonPool::new(builders.iter().map(MachineBuilder::config)).expect("a pool");
        let mut machines: Vec<Machine> =
            builders.into_iter().zip(works).map(|(builder, work)| built(builder.in_pool(&pool), work)).collect();
        let memory: Vec<GuestMemory> = machines.iter().map(|machine| machine.memory().clone()).collect();
        run_beside_a_sharer(&mut machines, &memory);
        assert!(machines.iter_mut().map(state).eq(alone), "{engine:?}");
        let counts = pool.counts();
        println!("{engine:?}: {counts:?}");
        assert!(counts.pages > 2000 && counts.frames < 700, "{counts:?}");
        let breaks: u64 = memory.iter().map(|memory| memory.counters().reclaim.breaks).sum();
        assert!(breaks > 10 && memory.iter().all(|memory| memory.audit().is_clean()));
        drop((machines, memory));
        // What the host holds is known on Linux alone.
        let left = if cfg!(all(target_os = "linux", not(portable))) { pool.shared_bytes() } else { 0 };
        assert_eq!((pool.counts().frames, left), (0, 0));
    }
}

/// On threads, three vCPUs each, beside a sharer: no lost update, no stale translation, no stale code.
#[test]
fn on_threads_beside_a_sharer() {
    let seconds: u64 = std::env::var("UMBRA_HAMMER_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let work = Duration::from_millis(500) + Duration::from_secs(seconds);
    for engine in engines() {
        let builders = [0, 1].map(|_| hammer(*engine, Clock::Real, 3));
        let pool = CommonPool::new(builders.iter().map(MachineBuilder::config)).expect("a pool");
        let mut machines = builders.map(|builder| built(builder.in_pool(&pool), work));
        let memory: Vec<GuestMemory> = machines.iter().map(|machine| machine.memory().clone()).collect();
        run_beside_a_sharer(&mut machines, &memory);
        let counts: Vec<_> = memory.iter().map(|memory| memory.counters().reclaim).collect();
        println!("{engine:?}: {counts:?}");
        // Of both: who ends first leaves the other nobody to share with.
        let (joins, breaks) = counts.iter().fold((0, 0), |(joins, breaks), c| (joins + c.joins, breaks + c.breaks));
        assert!(joins > 1000 && breaks > 10, "{counts:?}");
        for memory in &memory {
            assert!(memory.audit().is_clean(), "{:?}", memory.audit());
        }
    }
}

/// A swap file that is full, cannot be read, or is gone.
#[derive(Clone, Debug)]
struct Broken(&'static str);

impl SwapStore for Broken {
    fn write(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        if self.0 == "full" { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
    fn read(&self, _: u64, into: &mut [u8]) -> io::Result<()> {
        match self.0 {
            "broken" => Err(io::Error::other("the disk is broken")),
            "gone" => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {
                into.fill(0x55);
                Ok(())
            }
        }
    }
}

/// One machine's swap file fails: it ends with a sentence that says why; the other one, which shares pages with it, goes on.
#[test]
fn one_whose_swap_file_fails_ends_alone() {
    // inc byte [600h]; cmp byte [600h], 200; jb -; mov al, 3; out F4h, al; hlt
    let code: &[u8] = &[0xFE, 6, 0, 6, 0x80, 0x3E, 0, 6, 200, 0x72, 0xF5, 0xB0, 3, 0xE6, 0xF4, 0xF4];
    let start = FlatStart { at: GuestPhys(0x7C00), mode: FlatMode::Real16 };
    let builder = |clock| {
        MachineBuilder::from_config(&MachineConfig::default()).memory(4 << 20).clock(clock).flat("guest", code, start)
    };
    for clock in [Clock::Virtual, Clock::Real] {
        for (failure, word) in
            [("full", "no room"), ("broken", "cannot be read"), ("gone", "cannot be read"), ("corrupt", "damaged")]
        {
            let builders = [0, 1].map(|_| builder(clock));
            let pool = CommonPool::new(builders.iter().map(MachineBuilder::config)).expect("a pool");
            let [sick, healthy] = builders.map(|builder| builder.in_pool(&pool));
            let make = move || Ok(Box::new(Broken(failure)) as Box<dyn SwapStore>);
            let mut sick = sick.swap(Arc::new(make)).build().expect("a machine");
            let mut healthy = healthy.build().expect("a machine");
            for memory in [sick.memory(), healthy.memory()] {
                (256..512u64).for_each(|page| memory.write(GuestPhys(page << 12), &page.to_le_bytes()));
            }
            (0..3).for_each(|_| [&sick, &healthy].iter().for_each(|machine| _ = machine.memory().share(4096)));
            assert!(pool.counts().pages >= 512, "{:?}", pool.counts());
            // What it does not share leaves; its code is among that.
            sick.memory().write(GuestPhys(0x7C00), &code[..1]);
            sick.memory().evict(u64::MAX);
            assert_eq!(sick.run(limits()), RunEnd::SwapFailed, "{failure}");
            let sentence = sick.memory().failure().expect("a sentence").to_string();
            assert!(sentence.contains(word) && sentence.contains("try "), "{failure}: {sentence}");
            assert_eq!(healthy.run(limits()), RunEnd::GuestExit(7), "{failure}");
            drop(sick);
            assert!(healthy.memory().failure().is_none() && healthy.memory().audit().is_clean());
            let mut bytes = [0; 8];
            for page in 256..512u64 {
                healthy.memory().read(GuestPhys(page << 12), &mut bytes);
                assert_eq!(u64::from_le_bytes(bytes), page);
            }
        }
    }
}
