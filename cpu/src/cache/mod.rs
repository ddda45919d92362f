//! Lifted blocks: looked up by (guest-physical page, linear address, mode bits), chained, dropped when code is written.
//!
//! Why there is `unsafe` here: the executor holds a reference into a block while it changes the vCPU that owns the cache.
//! Blocks are therefore boxed, never moved, and freed only by [`BlockCache::sweep`], which the dispatcher calls between
//! blocks (a reference-counted block costs about 10 ns a block on the machines this was measured on, more than half of
//! the block itself).
#![allow(unsafe_code, reason = "references into boxed blocks that outlive the borrow of the cache; see above")]

mod numbers;
pub mod patches;
mod recent;
mod step;

pub(crate) use numbers::Numbers;
pub use recent::Recent;
pub use step::{Handler, Leave, Step};

use crate::helpers::Helper;
use crate::mode::ModeBits;
use crate::uop::Uop;
use patches::{Patches, Span};
use recent::Place;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use umbra_mmu::CodeWrite;
use umbra_mmu::addr::{PAGE_SIZE, PhysPage};

/// Entries of the front table.
const FRONT: usize = 1 << 13;
/// Calls that are remembered.
const CALLS: usize = 32;
/// Steps that the cache may hold before room is made (32 bytes each), where no code cache asks for more.
const MOST_STEPS: u32 = 2_000_000;

/// Dropped blocks that may wait for the dispatcher to come by.
const MOST_DROPPED: usize = 4096;

/// How many times as often as for the first time a block is to run before it is emitted again for which there was no room.
/// (With code of twice the cache's size, 1 gave 0.25 of the speed with all of it, 4 as much, 16 0.45, 32 0.52, 64 0.54.)
const COOLED: i64 = 32;

/// What a block's lifting depended on.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlockKey {
    /// The guest-physical page that holds the block's first byte.
    pub page: PhysPage,
    /// The linear address of the first byte.
    pub linear: u64,
    /// RIP of the first byte: differs from `linear` by the base of CS.
    pub rip: u64,
    /// The mode bits.
    pub mode: ModeBits,
    /// Lifted as a single instruction.
    pub alone: Alone,
}

/// Whether a block was made to hold one instruction only.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Alone {
    /// As many instructions as fit.
    #[default]
    No,
    /// One.
    Yes,
}

/// A lifted block. What the interpreter reads each time is in one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Block {
    /// What it depends on.
    pub key: BlockKey,
    /// Successors: taken, not taken. Of a call, the second is the block that it returns to.
    chains: [Cell<Option<BlockRef>>; 2],
    /// The first of `steps`.
    entry: NonNull<Step>,
    /// Number of instructions.
    insns: u32,
    /// How often the interpreter has run it, less for what has been dropped for want of room.
    pub heat: Cell<i32>,
    /// The interpreter's form of its uops.
    steps: Box<[Step]>,
    /// Offset of each instruction from the first byte; one more for the end.
    offsets: Box<[u16]>,
    /// The second guest-physical page, if the last instruction runs into it.
    pub second: Option<PhysPage>,
    /// How often code at its address was written after it had been emitted: as often again is it to run before it is
    /// emitted the next time (a power of two).
    pub rewritten: u8,
    /// Immediates that are loaded when they are used: their bytes may change.
    pub patched: Box<[Span]>,
    /// Its emitted code, in the JIT's own terms; 0: none.
    pub code: Cell<u64>,
    /// Where its uops are, if it was lifted lately.
    place: Place,
    /// Who chained to this block: (block, its generation, slot).
    incoming: RefCell<SmallVec<[(u32, u32, u8); 1]>>,
    id: u32,
    generation: u32,
}

const _: () = assert!(size_of::<Block>() <= 192);

/// A block that stays alive until the next [`BlockCache::sweep`].
#[derive(Copy, Clone, Debug)]
pub struct BlockRef(NonNull<Block>);

impl BlockRef {
    /// The block.
    #[inline(always)]
    pub fn get<'a>(self) -> &'a Block {
        // SAFETY: blocks are boxed and freed only by `sweep`, which the dispatcher calls when it holds no `BlockRef`;
        // chains to a dropped block are cut when it is dropped.
        unsafe { self.0.as_ref() }
    }
}

impl Block {
    /// The first step.
    #[inline(always)]
    pub fn entry(&self) -> &Step {
        // SAFETY: points to the first element of `steps`, which is there as long as the block, and never moves.
        unsafe { self.entry.as_ref() }
    }
    /// Asks the host for what its successors read first, while it runs itself: a kernel's path through hundreds of blocks is
    /// longer than the first-level cache.
    #[inline(always)]
    pub fn prefetch_successors(&self) {
        #[cfg(all(target_arch = "x86_64", not(portable)))]
        for next in self.chains.iter().filter_map(Cell::get) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint, which no address can make fault.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(next.get().entry.as_ptr().cast()) }
        }
    }
    /// The steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
    /// Number of instructions.
    #[inline(always)]
    pub fn insns(&self) -> u64 {
        u64::from(self.insns)
    }
    /// RIP of instruction `n`, or of the byte after the block for `n == insns()`.
    pub fn rip_of(&self, n: u8) -> u64 {
        let offset = self.offsets.get(n as usize).copied().unwrap_or(0);
        let rip = self.key.rip.wrapping_add(u64::from(offset));
        match self.key.mode.bitness() {
            64 => rip,
            _ => rip & 0xffff_ffff,
        }
    }
    /// Length in bytes.
    pub fn len(&self) -> u16 {
        self.offsets.last().copied().unwrap_or(0)
    }
    /// Never: a block has at least one instruction.
    pub fn is_empty(&self) -> bool {
        false
    }
    /// Its uops, if they are still among those that are kept.
    pub fn uops<'a>(&self, recent: &'a Recent) -> Option<&'a [Uop]> {
        recent.get(self.place)
    }
    /// Its instructions' offsets from the first byte, and that of the end.
    pub fn offsets(&self) -> &[u16] {
        &self.offsets
    }
    /// Whether `next` lies where the call at the end of this block returns to.
    pub fn returns_to(&self, next: &Block) -> bool {
        next.key.rip == self.rip_of(self.insns as u8) && next.key.mode == self.key.mode
    }
    /// The successor on side 0 (taken) or 1 (not taken, or where a call returned to).
    #[inline(always)]
    pub fn chain(&self, side: usize) -> Option<BlockRef> {
        self.chains[side & 1].get()
    }
}

#[derive(Copy, Clone, Default)]
struct FrontEntry {
    linear: u64,
    block: Option<BlockRef>,
}

/// All blocks of one vCPU.
pub struct BlockCache {
    front: Box<[FrontEntry]>,
    /// Where in the slab a block is.
    numbers: Numbers,
    slab: Vec<Option<Box<Block>>>,
    free: Vec<u32>,
    /// Blocks by the page (or pages) that hold their bytes.
    by_page: FxHashMap<PhysPage, Vec<u32>>,
    /// Dropped blocks that may still be executing: boxed, so that they stay where they are.
    #[allow(clippy::vec_box, reason = "references into the boxes are alive until `sweep`")]
    dropped: Vec<Box<Block>>,
    steps: u32,
    most_steps: u32,
    generation: u32,
    /// Blocks that end with a call, the last one at `calls`: where the guest's next return is likely to go.
    called: [Option<BlockRef>; CALLS],
    calls: usize,
    /// Emitted code that was written.
    rewrites: Box<Rewrites>,
    /// Keys of dropped blocks that had emitted code.
    dropped_code: Vec<BlockKey>,
    /// The helpers that steps call by number.
    helpers: Vec<&'static Helper>,
    /// The uops of the blocks that were lifted last, where there is a code cache to emit them to.
    pub recent: Recent,
    keeps_uops: bool,
}

// SAFETY: a vCPU owns its cache and everything in it; the raw references in chains and front entries point into the same
// cache, so moving the whole to another thread moves both ends.
unsafe impl Send for BlockCache {}

impl Default for BlockCache {
    fn default() -> BlockCache {
        BlockCache {
            front: vec![FrontEntry::default(); FRONT].into_boxed_slice(),
            numbers: Numbers::default(),
            slab: Vec::new(),
            free: Vec::new(),
            by_page: FxHashMap::default(),
            dropped: Vec::new(),
            steps: 0,
            most_steps: MOST_STEPS,
            generation: 0,
            called: [None; CALLS],
            calls: 0,
            rewrites: Box::default(),
            dropped_code: Vec::new(),
            helpers: Vec::new(),
            recent: Recent::default(),
            keeps_uops: false,
        }
    }
}

/// Whether the block with this number has this key.
fn is_of(slab: &[Option<Box<Block>>], id: u32, key: &BlockKey) -> bool {
    slab.get(id as usize).and_then(Option::as_ref).is_some_and(|block| block.key == *key)
}

fn front_index(linear: u64) -> usize {
    (linear ^ linear >> 13) as usize & (FRONT - 1)
}

/// Addresses that share a count of rewrites: a false neighbour only makes code be emitted later.
const REWRITTEN: usize = 4096;

/// The most that counts.
const MOST_REWRITTEN: u8 = 8;

/// Pages that are remembered as kept.
const MOST_KEPT: usize = 1024;

/// What is remembered of emitted code that was written.
struct Rewrites {
    /// How often, by [`rewritten_index`].
    counts: [u8; REWRITTEN],
    /// Where.
    patches: Patches,
    /// Nothing is made of that.
    no_patches: bool,
    /// Pages with grains that stay watched for these blocks.
    kept: FxHashSet<PhysPage>,
}

impl Default for Rewrites {
    fn default() -> Rewrites {
        Rewrites { counts: [0; REWRITTEN], patches: Patches::default(), no_patches: false, kept: FxHashSet::default() }
    }
}

/// What a write to code meant for the cache.
#[derive(Copy, Clone, Debug, Default)]
pub struct Invalidated {
    /// Blocks that are no more.
    pub dropped: u64,
    /// Blocks that read the bytes anew.
    pub left: u64,
}

fn rewritten_index(key: &BlockKey) -> usize {
    (key.linear ^ key.linear >> 12 ^ key.page.0 << 5) as usize % REWRITTEN
}

impl BlockCache {
    /// Looks a block up by everything that it depends on. The caller has just translated `key.page`, and checks `second`.
    #[inline]
    pub fn find(&mut self, key: &BlockKey) -> Option<BlockRef> {
        let entry = &mut self.front[front_index(key.linear)];
        if entry.linear == key.linear
            && let Some(block) = entry.block
            && block.get().key == *key
        {
            return Some(block);
        }
        let block = BlockRef(NonNull::from(self.by_key(key)?));
        let entry = &mut self.front[front_index(key.linear)];
        *entry = FrontEntry { linear: key.linear, block: Some(block) };
        Some(block)
    }

    fn by_key(&self, key: &BlockKey) -> Option<&Block> {
        let id = self.numbers.get(key, |id| is_of(&self.slab, id, key))?;
        self.slab[id as usize].as_deref()
    }

    /// Adds a block that was lifted to `uops`.
    pub fn insert(
        &mut self,
        key: BlockKey,
        uops: &[Uop],
        steps: Box<[Step]>,
        offsets: Box<[u16]>,
        second: Option<PhysPage>,
        patched: Box<[Span]>,
    ) -> BlockRef {
        if self.steps > self.most_steps {
            self.make_room();
        }
        self.steps += steps.len() as u32;
        self.generation = self.generation.wrapping_add(1);
        let id = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            self.slab.len() as u32 - 1
        });
        let keeps = self.keeps_uops && key.alone == Alone::No;
        let place = if keeps { self.recent.keep(uops) } else { Place::default() };
        let block = Box::new(Block {
            key,
            chains: [const { Cell::new(None) }; 2],
            entry: NonNull::from(&steps[0]),
            insns: offsets.len() as u32 - 1,
            heat: Cell::new(0),
            steps,
            offsets,
            second,
            rewritten: self.rewrites.counts[rewritten_index(&key)],
            patched,
            code: Cell::new(0),
            place,
            incoming: RefCell::default(),
            id,
            generation: self.generation,
        });
        let reference = BlockRef(NonNull::from(&*block));
        for page in [Some(key.page), second].into_iter().flatten() {
            self.by_page.entry(page).or_default().push(id);
        }
        self.slab[id as usize] = Some(block);
        self.numbers.insert(&key, id, |id| is_of(&self.slab, id, &key));
        self.front[front_index(key.linear)] = FrontEntry { linear: key.linear, block: Some(reference) };
        reference
    }

    /// Makes `to` the successor of `from` on one side. Both must be alive; the caller has checked that the way from the one
    /// to the other is always valid, or checks it each time (see `exec`).
    pub fn link(&self, from: BlockRef, side: usize, to: BlockRef) {
        let (from, target) = (from.get(), to.get());
        if from.chains[side & 1].get().is_none() && self.alive(from) && self.alive(target) {
            from.chains[side & 1].set(Some(to));
            target.incoming.borrow_mut().push((from.id, from.generation, side as u8 & 1));
        }
    }

    /// Remembers that `block` ended with a call.
    #[inline(always)]
    pub fn call(&mut self, block: BlockRef) {
        self.calls = (self.calls + 1) % CALLS;
        self.called[self.calls] = Some(block);
    }

    /// The block whose call the guest is likely to be returning from.
    #[inline(always)]
    pub fn take_call(&mut self) -> Option<BlockRef> {
        let block = self.called[self.calls].take();
        self.calls = self.calls.wrapping_sub(1) % CALLS;
        block
    }

    fn alive(&self, block: &Block) -> bool {
        self.slab.get(block.id as usize).and_then(Option::as_ref).is_some_and(|b| b.generation == block.generation)
    }

    /// Drops the blocks that hold bytes which were written, but for those that read them anew. They stay allocated until
    /// [`Self::sweep`]. `current` says whether a block is code that the writer itself could run.
    pub fn invalidate(&mut self, write: &CodeWrite, current: impl Fn(&BlockKey) -> bool) -> Invalidated {
        let Some(ids) = self.by_page.get(&write.page) else { return Invalidated::default() };
        let (first, last) = (u64::from(write.offset), u64::from(write.offset) + u64::from(write.len));
        let mut left = 0;
        let hit: Vec<u32> = ids
            .iter()
            .copied()
            .filter(|&id| {
                self.slab[id as usize].as_ref().is_some_and(|block| {
                    let start = block.key.linear % PAGE_SIZE;
                    let end = start + u64::from(block.len());
                    if block.key.page == write.page {
                        let inside =
                            |&(from, to): &Span| start + u64::from(from) <= first && last <= start + u64::from(to);
                        if write.kept && block.patched.iter().any(inside) {
                            left += 1;
                            return false;
                        }
                        start < last && first < end.min(PAGE_SIZE)
                            || block.second == Some(write.page) && first < end.saturating_sub(PAGE_SIZE)
                    } else {
                        first < end.saturating_sub(PAGE_SIZE)
                    }
                })
            })
            .collect();
        for &id in &hit {
            // A page that is another process's by now is not code that writes itself.
            let Some(block) = self.slab[id as usize].as_deref().filter(|block| current(&block.key)) else {
                self.drop_block(id);
                continue;
            };
            let (Rewrites { counts, patches, .. }, emitted) = (&mut *self.rewrites, block.code.get() != 0);
            if emitted {
                let count = &mut counts[rewritten_index(&block.key)];
                *count = (*count + 1).min(MOST_REWRITTEN);
            }
            let from = u64::from(write.written.0).wrapping_sub(block.key.linear % PAGE_SIZE);
            let to = from.wrapping_add(u64::from(write.written.1));
            if block.key.page == write.page && from < to && to <= u64::from(block.len()) {
                patches.note(&block.key, (from as u16, to as u16), emitted);
            }
            self.drop_block(id);
        }
        Invalidated { dropped: hit.len() as u64, left }
    }

    /// Where the code of a block that is to be lifted keeps changing.
    pub fn patches(&self, key: &BlockKey) -> impl Iterator<Item = Span> + '_ {
        let on = !self.rewrites.no_patches;
        self.rewrites.patches.of(key).filter(move |_| on)
    }

    /// Grains of a page stay watched for a block of this cache.
    pub fn keep(&mut self, page: PhysPage) {
        if self.rewrites.kept.len() >= MOST_KEPT {
            self.rewrites.kept.clear();
        }
        self.rewrites.kept.insert(page);
    }

    /// Whether that was so for this page: another vCPU's are not this one's to release.
    pub fn keeps(&self, page: PhysPage) -> bool {
        self.rewrites.kept.contains(&page)
    }

    /// Has all code that is changed be made anew each time.
    pub fn forget_patches(&mut self) {
        self.rewrites.no_patches = true;
    }

    /// Drops the blocks that load immediates.
    pub fn drop_patched(&mut self) {
        for id in 0..self.slab.len() as u32 {
            if self.slab[id as usize].as_ref().is_some_and(|block| !block.patched.is_empty()) {
                self.drop_block(id);
            }
        }
    }

    fn drop_block(&mut self, id: u32) {
        let Some(key) = self.slab[id as usize].as_ref().map(|block| block.key) else { return };
        // Another block of the same key may have come in its place.
        self.numbers.remove(&key, |number| number == id);
        let Some(block) = self.slab[id as usize].take() else { return };
        self.steps -= block.steps.len() as u32;
        if block.code.get() != 0 {
            self.dropped_code.push(block.key);
        }
        let entry = &mut self.front[front_index(block.key.linear)];
        if entry.block.is_some_and(|b| b.0 == NonNull::from(&*block)) {
            *entry = FrontEntry::default();
        }
        for page in [Some(block.key.page), block.second].into_iter().flatten() {
            if let Some(ids) = self.by_page.get_mut(&page) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.by_page.remove(&page);
                }
            }
        }
        for (from, generation, side) in block.incoming.borrow_mut().drain(..) {
            if let Some(Some(source)) = self.slab.get(from as usize)
                && source.generation == generation
            {
                source.chains[side as usize & 1].set(None);
            }
        }
        // It may still be running, or be remembered for its call.
        for chain in &block.chains {
            chain.set(None);
        }
        self.free.push(id);
        self.dropped.push(block);
    }

    /// Holds at least so many steps: those of all the code that a code cache has room for, since code goes with its block.
    /// Uops are kept, for the code that is still to be made.
    pub fn hold(&mut self, steps: usize) {
        self.keeps_uops = true;
        self.most_steps = (steps as u32).max(MOST_STEPS);
    }

    /// Drops the blocks that have no code, which are most of those that run once; all of them if that is not much.
    fn make_room(&mut self) {
        for id in 0..self.slab.len() as u32 {
            if self.slab[id as usize].as_ref().is_some_and(|block| block.code.get() == 0) {
                self.drop_block(id);
            }
        }
        if self.steps > self.most_steps / 4 * 3 {
            self.clear();
        }
    }

    /// These blocks have no code any more: there was no room for it. Where `hot` runs were enough for the first time, they are
    /// to run 32 times (`COOLED`) as often now. To make and link code takes as long as a hundred runs, and what comes and
    /// goes drives out what stays.
    pub fn cool(&mut self, keys: &[BlockKey], hot: u32) {
        let heat = -(i64::from(hot.saturating_sub(1)) * COOLED).min(i64::from(i32::MAX)) as i32;
        for block in keys.iter().filter_map(|key| self.by_key(key)) {
            block.code.set(0);
            block.heat.set(heat);
        }
    }

    /// Drops every block.
    pub fn clear(&mut self) {
        for id in 0..self.slab.len() as u32 {
            self.drop_block(id);
        }
    }

    /// Whether there are many dropped blocks, which are to be freed soon.
    pub fn is_littered(&self) -> bool {
        self.dropped.len() > MOST_DROPPED
    }

    /// Frees dropped blocks. Only for the dispatcher, when it holds no [`BlockRef`].
    #[inline]
    pub fn sweep(&mut self) {
        if !self.dropped.is_empty() {
            self.called = [None; CALLS];
            self.dropped.clear();
        }
    }

    /// The keys of blocks with emitted code that were dropped since the last call.
    pub fn take_dropped_code(&mut self) -> Vec<BlockKey> {
        std::mem::take(&mut self.dropped_code)
    }

    /// The number under which steps call a helper.
    pub fn helper_number(&mut self, helper: &'static Helper) -> u32 {
        let known = self.helpers.iter().position(|h| std::ptr::eq(*h, helper));
        known.unwrap_or_else(|| {
            self.helpers.push(helper);
            self.helpers.len() - 1
        }) as u32
    }

    /// The helper with this number.
    #[inline(always)]
    pub fn helper(&self, number: u32) -> &'static Helper {
        self.helpers[number as usize]
    }

    /// The live blocks that hold the instruction at `rip`, those of one instruction left out.
    pub fn around(&self, rip: u64) -> impl Iterator<Item = &Block> {
        let holds = move |b: &&Block| b.key.alone == Alone::No && rip.wrapping_sub(b.key.rip) < u64::from(b.len());
        self.slab.iter().flatten().map(|block| &**block).filter(holds)
    }

    /// Number of live blocks.
    pub fn blocks(&self) -> usize {
        self.numbers.len()
    }
}
