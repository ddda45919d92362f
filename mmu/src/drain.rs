//! Who waits for whom (SHADOW-MMU.md, "Several vCPUs"): the log of drops, and its acknowledgement by each vCPU.
//!
//! A drop is appended under the mmu lock; each vCPU applies what it has not yet seen at its boundaries, and a TLB that
//! was out of use catches up when it is used again. A vCPU that is parked counts as acknowledged: it drains before it runs.

use crate::addr::{PAGE_SIZE, PhysPage};
use crate::attention::{Attention, bits};
use crate::counters::Tally;
#[cfg(loom)]
use loom::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering, fence},
    thread_local,
};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Pages side by side: those whose linear page number (52 bits) begins with that of `first`, without the lowest `shift` bits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    first: u64,
    shift: u32,
}

/// Bits of a linear page number.
const PAGE_BITS: u32 = 52;

impl Span {
    /// The 2^`shift` pages around page number `page`.
    pub(crate) fn around(page: u64, shift: u32) -> Span {
        Span { first: (page & ((1 << PAGE_BITS) - 1)) >> shift << shift, shift }
    }
    /// Its only page, if it has one.
    pub(crate) fn page(self) -> Option<u64> {
        (self.shift == 0).then_some(self.first)
    }
    pub(crate) fn first(self) -> u64 {
        self.first
    }
    /// How many there are.
    pub(crate) fn pages(self) -> u64 {
        1 << self.shift.min(PAGE_BITS)
    }
    pub(crate) fn contains(self, page: u64) -> bool {
        (page ^ self.first) >> self.shift == 0
    }
    /// Whether a page of it [`is_high`].
    fn reaches_high(self) -> bool {
        is_high(self.first) || (self.first < 1 << 20 && self.shift > 18)
    }
}

/// Whether a page (by linear page number) lies where systems have what all their processes share: the upper half of 64-bit
/// space, the fourth GiB of 32-bit space.
pub(crate) fn is_high(page: u64) -> bool {
    page >> (PAGE_BITS - 1) & 1 != 0 || page >> 18 == 3
}

/// What a TLB must forget.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// These pages: one monitor entry was cleared, and this is the only place that it is reached at.
    Span(Span),
    /// All entries whose linear address has these bits 20:12: one monitor leaf entry was cleared, wherever it is reached.
    Page(u16),
    /// All cached pointers to leaf tables: one was unlinked.
    Tables,
    /// Everything.
    All,
    /// Nothing, but the root must be looked up again (A20).
    Gate,
    /// Everything, and the root must be looked up again.
    Root,
    /// All pages that are not high ([`is_high`]) and all cached pointers to leaf tables, and the root must be looked up again.
    Low,
}

/// Applying more than this many one by one costs more than filling a TLB again.
const DROPS: u64 = if cfg!(loom) { 4 } else { 512 };

/// The log. One writer at a time (the mmu lock), any number of readers.
#[derive(Debug)]
pub(crate) struct DropLog {
    head: AtomicU64,
    ring: Box<[AtomicU64]>,
    /// How many drops there were when the last one that may concern a high page was posted, itself counted.
    high: AtomicU64,
}

/// A drop as a word: the mark of a span, with its shift from bit 52 on and its first page below; else the kind from bit 16 on.
const SPAN: u64 = 1 << 63;

impl Stale {
    fn to_word(self) -> u64 {
        match self {
            Stale::Span(Span { first, shift }) => SPAN | u64::from(shift) << PAGE_BITS | first,
            Stale::Page(index) => u64::from(index),
            Stale::Tables => 1 << 16,
            Stale::All => 2 << 16,
            Stale::Gate => 3 << 16,
            Stale::Root => 4 << 16,
            Stale::Low => 5 << 16,
        }
    }
    fn of_word(word: u64) -> Stale {
        if word & SPAN != 0 {
            return Stale::Span(Span::around(word, (word >> PAGE_BITS) as u32 & 63));
        }
        match word >> 16 {
            0 => Stale::Page(word as u16),
            1 => Stale::Tables,
            2 => Stale::All,
            3 => Stale::Gate,
            5 => Stale::Low,
            _ => Stale::Root,
        }
    }
    /// Whether a high page may have to be forgotten.
    fn reaches_high(self) -> bool {
        match self {
            Stale::Span(span) => span.reaches_high(),
            Stale::Tables | Stale::Gate | Stale::Low => false,
            Stale::Page(_) | Stale::All | Stale::Root => true,
        }
    }
}

impl DropLog {
    pub(crate) fn new() -> DropLog {
        let ring = (0..DROPS).map(|_| AtomicU64::new(0)).collect();
        DropLog { head: AtomicU64::new(0), ring, high: AtomicU64::new(0) }
    }
    /// How many drops were ever posted.
    #[inline(always)]
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }
    /// Appends; the caller holds the mmu lock.
    pub(crate) fn post(&self, stale: Stale) {
        let head = self.head.load(Ordering::Relaxed);
        self.ring[(head % DROPS) as usize].store(stale.to_word(), Ordering::Release);
        if stale.reaches_high() {
            self.high.store(head + 1, Ordering::Release);
        }
        self.head.store(head + 1, Ordering::Release);
    }
    /// Hands every drop since `seen` to `apply`, or [`Stale::Root`] or [`Stale::Low`] if too many were missed; gives the new
    /// `seen`.
    pub(crate) fn since(&self, mut seen: u64, mut apply: impl FnMut(Stale)) -> u64 {
        loop {
            let head = self.head();
            if head == seen {
                return seen;
            }
            // The slot of drop n is overwritten by drop n + DROPS, before the head says so.
            let word = self.ring[(seen % DROPS) as usize].load(Ordering::Acquire);
            let head = self.head();
            if head - seen >= DROPS {
                // Of the drops up to this head, or of later ones too, which does no harm.
                let high = self.high.load(Ordering::Acquire);
                apply(if high > seen { Stale::Root } else { Stale::Low });
                seen = head;
                continue;
            }
            apply(Stale::of_word(word));
            seen += 1;
        }
    }
}

/// Translated code that was written: drop every block that touches these bytes. They are rounded to whole grains of 64 bytes,
/// which are not watched any more; or the grains are kept ([`VcpuMmu::keep_code`](crate::VcpuMmu::keep_code)), and these are
/// the bytes that were written.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct CodeWrite {
    /// The page.
    pub page: PhysPage,
    /// First byte.
    pub offset: u16,
    /// How many bytes.
    pub len: u16,
    /// Offset in the page and number of the bytes that were written.
    pub written: (u16, u16),
    /// Whether the grains are still watched.
    pub kept: bool,
}

impl CodeWrite {
    /// Whatever code a page has is lost.
    pub(crate) fn whole(page: PhysPage) -> CodeWrite {
        CodeWrite { page, offset: 0, len: PAGE_SIZE as u16, written: (0, PAGE_SIZE as u16), kept: false }
    }
}

/// The part of a vCPU that others see.
#[derive(Debug)]
pub(crate) struct VcpuShare {
    pub(crate) attention: Arc<Attention>,
    /// Its number among the guest's vCPUs.
    pub(crate) number: u16,
    parked: AtomicBool,
    acknowledged: AtomicU64,
    thread: AtomicU64,
    active_root: AtomicU64,
    /// RIP of the instruction that stores now, where somebody wants to know (`writers`).
    pub(crate) storing: AtomicU64,
    pub(crate) code_writes: Mutex<Vec<CodeWrite>>,
    pub(crate) tally: Tally,
}

impl VcpuShare {
    /// A parked vCPU.
    pub(crate) fn new(attention: Arc<Attention>, number: u16) -> VcpuShare {
        VcpuShare {
            attention,
            number,
            parked: AtomicBool::new(true),
            acknowledged: AtomicU64::new(0),
            thread: AtomicU64::new(0),
            active_root: AtomicU64::new(0),
            storing: AtomicU64::new(crate::writers::NO_RIP),
            code_writes: Mutex::new(Vec::new()),
            tally: Tally::default(),
        }
    }
    pub(crate) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::Acquire)
    }
    /// What this vCPU did through its TLBs is done.
    pub(crate) fn park(&self) {
        self.parked.store(true, Ordering::Release);
    }
    /// From here on others wait for this vCPU; it must look at the log before it uses a TLB.
    pub(crate) fn unpark(self: &Arc<Self>) {
        self.thread.store(thread_number(), Ordering::Relaxed);
        self.run_again();
        RUNNING.with(|running| {
            let mut running = running.borrow_mut();
            if !running.iter().any(|other| Arc::ptr_eq(other, self)) {
                // Those that only this list still knows are no more.
                running.retain(|other| Arc::strong_count(other) > 1);
                running.push(Arc::clone(self));
            }
        });
    }
    /// Either who posts sees that this vCPU runs, or this vCPU sees the post: one fence here, one in `wait_until_seen`.
    fn run_again(&self) {
        self.parked.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
    }
    /// Whether this vCPU was last unparked on the calling thread and still runs.
    fn runs_here(&self) -> bool {
        !self.is_parked() && self.thread.load(Ordering::Relaxed) == thread_number()
    }
    /// The number of the root in use.
    pub(crate) fn active_root(&self) -> u64 {
        self.active_root.load(Ordering::Relaxed)
    }
    pub(crate) fn set_active_root(&self, number: u64) {
        self.active_root.store(number, Ordering::Relaxed);
    }
    /// What this vCPU did through TLB entries that drops up to number `seen` took away is done.
    pub(crate) fn acknowledge(&self, seen: u64) {
        self.acknowledged.store(seen, Ordering::Release);
    }
    /// Whether nothing older than drop number `posted` can still be in use by this vCPU. The caller has passed the fence
    /// of [`wait_until_seen`] since it posted.
    fn has_seen(&self, posted: u64) -> bool {
        self.acknowledged.load(Ordering::Acquire) >= posted
            || self.is_parked()
            || self.thread.load(Ordering::Relaxed) == thread_number()
    }
    /// Clears the DRAIN bit; the caller looks at the log next. Either that finds a drop, or who posts it finds the bit clear
    /// and sets it: one fence here, one in [`tell`].
    #[inline]
    pub(crate) fn hear(&self) {
        if self.attention.get() & bits::DRAIN != 0 {
            self.attention.clear(bits::DRAIN);
            fence(Ordering::SeqCst);
        }
    }
    pub(crate) fn note_code(&self, write: CodeWrite) {
        self.code_writes.lock().push(write);
        self.attention.set(bits::CODE);
    }
}

#[cfg(not(loom))]
thread_local! {
    /// The vCPUs that were ever unparked on this thread.
    static RUNNING: RefCell<Vec<Arc<VcpuShare>>> = const { RefCell::new(Vec::new()) };
}

#[cfg(loom)]
thread_local! {
    static RUNNING: RefCell<Vec<Arc<VcpuShare>>> = RefCell::new(Vec::new());
}

thread_local! {
    static NUMBER: u64 = {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    };
}

/// A number that only the current thread has; never 0.
fn thread_number() -> u64 {
    NUMBER.with(|number| *number)
}

/// Does something that may block (taking a lock) with this thread's vCPUs parked meanwhile: whoever holds what is waited for
/// may itself be waiting for them. Afterwards they find their DRAIN bit set if there is anything to see: look at the
/// attention word before the TLB is used again.
pub fn while_parked<T>(block: impl FnOnce() -> T) -> T {
    let parked: Vec<_> =
        RUNNING.with(|running| running.borrow().iter().filter(|vcpu| vcpu.runs_here()).cloned().collect());
    parked.iter().for_each(|vcpu| vcpu.park());
    let result = block();
    parked.iter().for_each(|vcpu| vcpu.run_again());
    result
}

/// Makes every vCPU look at the log, to which something was posted.
pub(crate) fn tell(vcpus: &[Arc<VcpuShare>]) {
    fence(Ordering::SeqCst);
    for vcpu in vcpus {
        if vcpu.attention.get() & bits::DRAIN == 0 {
            vcpu.attention.set(bits::DRAIN);
        }
    }
}

/// Whether every vCPU has seen drop number `posted`; no waiting.
pub(crate) fn all_have_seen(vcpus: &[Arc<VcpuShare>], posted: u64) -> bool {
    fence(Ordering::SeqCst);
    vcpus.iter().all(|vcpu| vcpu.has_seen(posted))
}

/// Waits until every vCPU has seen drop number `posted`. A vCPU of the calling thread cannot be running, so that
/// vCPUs taking turns on one thread never wait for each other.
pub(crate) fn wait_until_seen(vcpus: &[Arc<VcpuShare>], posted: u64) {
    fence(Ordering::SeqCst);
    for vcpu in vcpus {
        let mut spins = 0u32;
        while !vcpu.has_seen(posted) {
            spins += 1;
            #[cfg(loom)]
            loom::thread::yield_now();
            if spins < 64 {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// `RUSTFLAGS="--cfg loom" cargo test -p umbra-mmu --lib --release loom`: every interleaving of the protocol (S17, I7), and of frames that
/// leave memory and come back (S12, I2).
///
/// What is modelled: the log and its reading (`since`), the DRAIN bit (`tell`, `hear`), acknowledging, parking and running
/// again, waiting for a lock (`while_parked`) and for each other (`wait_until_seen`). A frame is a loom cell: loom reports its
/// reuse while a vCPU uses it.
#[cfg(all(test, loom))]
mod loom_model {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc as LoomArc, Mutex};

    /// A monitor word that leads to a frame; 0 when it is gone.
    struct World {
        log: DropLog,
        word: AtomicU64,
        frame: UnsafeCell<()>,
        /// What it holds, where that matters.
        value: AtomicU64,
        lock: Mutex<()>,
        vcpus: Vec<Arc<VcpuShare>>,
    }

    // SAFETY is loom's business: it reports a frame that is used while it is being reused.
    fn world(count: usize) -> LoomArc<World> {
        let vcpus = (0..count).map(|_| Arc::new(VcpuShare::new(Arc::default(), 0))).collect();
        LoomArc::new(World {
            log: DropLog::new(),
            word: AtomicU64::new(1),
            frame: UnsafeCell::new(()),
            value: AtomicU64::new(CONTENTS),
            lock: Mutex::new(()),
            vcpus,
        })
    }

    /// A vCPU: a TLB of one entry, filled from the word without a lock, used, dropped at boundaries.
    fn run(world: &World, number: usize, blocks: usize) {
        let vcpu = &world.vcpus[number];
        let (mut tlb, mut seen) = (false, 0);
        vcpu.unpark();
        for block in 0..blocks {
            // A boundary: unconditionally at the first, later if somebody asks for it.
            if block == 0 || vcpu.attention.get() & bits::DRAIN != 0 {
                vcpu.hear();
                seen = world.log.since(seen, |_| tlb = false);
                vcpu.acknowledge(seen);
            }
            if !tlb {
                tlb = world.word.load(Ordering::Acquire) != 0;
            }
            if tlb {
                world.frame.with(|frame| assert!(!frame.is_null()));
            }
        }
        vcpu.park();
    }

    /// Takes the mapping away and reuses the frame.
    fn reclaim(world: &World) {
        let guard = while_parked(|| world.lock.lock());
        if world.word.swap(0, Ordering::AcqRel) != 0 {
            world.log.post(Stale::All);
            tell(&world.vcpus);
            wait_until_seen(&world.vcpus, world.log.head());
            world.frame.with_mut(|frame| assert!(!frame.is_null()));
        }
        drop(guard);
    }

    /// What the frame holds while it is in.
    const CONTENTS: u64 = 7;
    /// What it holds when its contents are elsewhere.
    const POISON: u64 = 0xdb;

    /// Takes the mapping away, copies the frame out and gives its memory up.
    fn evict(world: &World, slot: &Mutex<Option<u64>>) {
        let mut slot = while_parked(|| slot.lock().expect("a lock"));
        if slot.is_some() {
            return;
        }
        if world.word.swap(0, Ordering::AcqRel) != 0 {
            world.log.post(Stale::All);
            tell(&world.vcpus);
        }
        // Even if no entry was left: somebody may not have seen yet that one was dropped.
        wait_until_seen(&world.vcpus, world.log.head());
        *slot = Some(world.frame.with_mut(|frame| {
            assert!(!frame.is_null());
            world.value.swap(POISON, Ordering::Relaxed)
        }));
    }

    /// A vCPU whose frame may be out: a miss takes the lock, brings the contents in and maps them.
    fn run_paged(world: &World, number: usize, slot: &Mutex<Option<u64>>) {
        let vcpu = &world.vcpus[number];
        let (mut tlb, mut seen) = (false, 0);
        vcpu.unpark();
        for block in 0..2 {
            if block == 0 || vcpu.attention.get() & bits::DRAIN != 0 {
                vcpu.hear();
                seen = world.log.since(seen, |_| tlb = false);
                vcpu.acknowledge(seen);
            }
            tlb |= world.word.load(Ordering::Acquire) != 0;
            if !tlb {
                let mut slot = while_parked(|| slot.lock().expect("a lock"));
                if let Some(contents) = slot.take() {
                    world.frame.with_mut(|frame| {
                        assert!(!frame.is_null());
                        world.value.store(contents, Ordering::Relaxed);
                    });
                }
                world.word.store(1, Ordering::Release);
                // Under the lock nobody else posts.
                seen = world.log.since(seen, |_| {});
                vcpu.acknowledge(seen);
                tlb = true;
            }
            let value = world.frame.with(|frame| {
                assert!(!frame.is_null());
                world.value.load(Ordering::Relaxed)
            });
            assert_eq!(value, CONTENTS, "what is mapped is in");
        }
        vcpu.park();
    }

    /// A frame leaves, and comes back when a vCPU misses it; whoever reads it finds its contents (S12, S17, I2).
    #[test]
    fn a_frame_leaves_and_comes_back() {
        loom::model(|| {
            let world = world(1);
            let slot = LoomArc::new(Mutex::new(None));
            let (other, its) = (world.clone(), slot.clone());
            let vcpu = loom::thread::spawn(move || run_paged(&other, 0, &its));
            evict(&world, &slot);
            vcpu.join().expect("no panic");
            let contents = slot.lock().expect("a lock").take();
            assert_eq!(contents.unwrap_or(world.value.load(Ordering::Relaxed)), CONTENTS);
        });
    }

    /// The same with a vCPU that makes room itself, in the middle of its own miss, beside one that runs.
    #[test]
    fn a_vcpu_takes_the_frame_that_another_uses() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let world = world(2);
            let slot = LoomArc::new(Mutex::new(None));
            let (other, its) = (world.clone(), slot.clone());
            let vcpu = loom::thread::spawn(move || run_paged(&other, 1, &its));
            world.vcpus[0].unpark();
            evict(&world, &slot);
            world.vcpus[0].park();
            vcpu.join().expect("no panic");
        });
    }

    /// The word of the model leads to a shared frame.
    const SHARED: u64 = 1;
    /// It leads to the page's own frame.
    const OWN: u64 = 2;
    /// What a vCPU writes to a page that was shared.
    const WRITTEN: u64 = 8;

    /// Two vCPUs of a guest with a page that is shared. One writes it: the entry goes, everyone has seen that, the contents come into
    /// the page's own frame, and the shared one may become somebody else's. The other one reads all the time: it never
    /// reads what is somebody else's, nor the past after it has read what was written (S21, I7).
    #[test]
    fn a_page_parts_from_a_shared_frame() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let world = world(2);
            let own = LoomArc::new(AtomicU64::new(POISON));
            let (other, its) = (world.clone(), own.clone());
            let reader = loom::thread::spawn(move || {
                let vcpu = &other.vcpus[1];
                let (mut tlb, mut seen, mut last) = (0, 0, CONTENTS);
                vcpu.unpark();
                for block in 0..3 {
                    if block == 0 || vcpu.attention.get() & bits::DRAIN != 0 {
                        vcpu.hear();
                        seen = other.log.since(seen, |_| tlb = 0);
                        vcpu.acknowledge(seen);
                    }
                    if tlb == 0 {
                        tlb = other.word.load(Ordering::Acquire);
                    }
                    let value = match tlb {
                        SHARED => other.frame.with(|frame| {
                            assert!(!frame.is_null());
                            other.value.load(Ordering::Relaxed)
                        }),
                        OWN => its.load(Ordering::Acquire),
                        _ => continue,
                    };
                    assert!(value == CONTENTS && last == CONTENTS || value == WRITTEN, "{value} after {last}");
                    last = value;
                }
                vcpu.park();
            });
            world.vcpus[0].unpark();
            let guard = while_parked(|| world.lock.lock());
            world.word.store(0, Ordering::Release);
            world.log.post(Stale::All);
            tell(&world.vcpus);
            wait_until_seen(&world.vcpus, world.log.head());
            own.store(world.value.load(Ordering::Relaxed), Ordering::Relaxed);
            world.frame.with_mut(|frame| {
                assert!(!frame.is_null());
                world.value.store(POISON, Ordering::Relaxed);
            });
            world.word.store(OWN, Ordering::Release);
            drop(guard);
            own.store(WRITTEN, Ordering::Release);
            world.vcpus[0].park();
            reader.join().expect("no panic");
        });
    }

    #[test]
    fn no_frame_is_reused_while_a_vcpu_uses_it() {
        loom::model(|| {
            let world = world(1);
            let other = world.clone();
            let vcpu = loom::thread::spawn(move || run(&other, 0, 2));
            reclaim(&world);
            vcpu.join().ok();
        });
    }

    #[test]
    fn parked_and_running_again() {
        loom::model(|| {
            let world = world(1);
            let other = world.clone();
            let vcpu = loom::thread::spawn(move || {
                run(&other, 0, 1);
                run(&other, 0, 1);
            });
            reclaim(&world);
            vcpu.join().ok();
        });
    }

    /// A TLB entry from before a wait for a lock (the board's) is not used after it without a look at the log.
    #[test]
    fn a_vcpu_that_waited_for_a_lock_looks_again() {
        loom::model(|| {
            let world = world(1);
            let other = world.clone();
            let vcpu = loom::thread::spawn(move || {
                let share = &other.vcpus[0];
                share.unpark();
                let mut tlb = false;
                let mut seen = other.log.since(0, |_| tlb = false);
                share.acknowledge(seen);
                tlb = other.word.load(Ordering::Acquire) != 0;
                drop(while_parked(|| other.lock.lock()));
                share.hear();
                seen = other.log.since(seen, |_| tlb = false);
                share.acknowledge(seen);
                if tlb {
                    other.frame.with(|frame| assert!(!frame.is_null()));
                }
                share.park();
            });
            reclaim(&world);
            vcpu.join().ok();
        });
    }

    /// Whoever finds no DRAIN bit has seen every drop: nobody waits for a vCPU that was not told.
    #[test]
    fn no_drop_goes_unheard() {
        loom::model(|| {
            let world = world(1);
            let other = world.clone();
            let vcpu = loom::thread::spawn(move || {
                let share = &other.vcpus[0];
                let mut seen = 0;
                for _ in 0..2 {
                    if share.attention.get() & bits::DRAIN != 0 {
                        share.hear();
                        seen = other.log.since(seen, |_| {});
                    }
                }
                seen
            });
            for _ in 0..2 {
                world.log.post(Stale::Tables);
                tell(&world.vcpus);
            }
            let seen = vcpu.join();
            let told = world.vcpus[0].attention.get() & bits::DRAIN != 0;
            assert!(told || seen.is_ok_and(|seen| seen == world.log.head()));
        });
    }

    #[test]
    fn two_who_wait_for_each_other() {
        loom::model(|| {
            let world = world(2);
            let other = world.clone();
            let second = loom::thread::spawn(move || {
                other.vcpus[1].unpark();
                reclaim(&other);
                other.vcpus[1].park();
            });
            world.vcpus[0].unpark();
            reclaim(&world);
            world.vcpus[0].park();
            second.join().ok();
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn log_gives_each_drop_once_or_says_all() {
        let log = DropLog::new();
        log.post(Stale::Page(7));
        log.post(Stale::Tables);
        let mut seen = Vec::new();
        let at = log.since(0, |s| seen.push(s));
        assert_eq!((at, seen.as_slice()), (2, [Stale::Page(7), Stale::Tables].as_slice()));
        (0..DROPS + 5).for_each(|_| log.post(Stale::All));
        seen.clear();
        let at = log.since(at, |s| seen.push(s));
        assert_eq!((at, seen.as_slice()), (log.head(), [Stale::Root].as_slice()));
        // Drops of low pages leave the high ones alone, however many were missed.
        let low = Stale::Span(Span::around(0x400, 0));
        (0..DROPS + 5).for_each(|_| log.post(low));
        seen.clear();
        let at = log.since(at, |s| seen.push(s));
        assert_eq!((at, seen.as_slice()), (log.head(), [Stale::Low].as_slice()));
        log.post(Stale::Span(Span::around(0x000c_0000, 0)));
        (0..DROPS).for_each(|_| log.post(low));
        seen.clear();
        log.since(at, |s| seen.push(s));
        assert_eq!(seen, [Stale::Root]);
    }

    #[test]
    fn drops_are_words() {
        let spans = [(0, 0), (!0, 0), (0x1234_5678, 9), (!0 << 35, 10), (1 << 35, 27)];
        let spans = spans.map(|(page, shift)| Stale::Span(Span::around(page, shift)));
        let others =
            [Stale::Page(0), Stale::Page(511), Stale::Tables, Stale::All, Stale::Gate, Stale::Root, Stale::Low];
        for stale in spans.into_iter().chain(others) {
            assert_eq!(Stale::of_word(stale.to_word()), stale);
        }
    }

    #[test]
    fn spans_know_their_pages() {
        let span = Span::around(0x000c_01ff, 9);
        assert_eq!((span.page(), Span::around(5, 0).page()), (None, Some(5)));
        assert!(span.contains(0x000c_0000) && span.contains(0x000c_01ff));
        assert!(!span.contains(0x000c_0200) && !span.contains(0x000b_ffff) && !span.contains(1 << 51 | 0x000c_0000));
        let high = |page, shift| Stale::Span(Span::around(page, shift)).reaches_high();
        assert!(high(0x000c_0000, 0) && high(0x000c_0000, 18) && high(0, 27) && high(!0, 0) && high(!0, 27));
        assert!(!high(0x000b_ffff, 0) && !high(0x0008_0000, 18) && !high(1 << 20, 0) && !high(1 << 27, 27));
    }
}
