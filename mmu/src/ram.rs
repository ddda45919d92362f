//! Guest RAM at the level of single accesses: words, locked updates, and runs within a page.
//!
//! Nobody holds a reference or slice to guest RAM: other vCPUs write it at any time. On x86-64 an access is one `mov`
//! of inline assembly (no data race in the sense of the language, unaligned too, no cost, and the host gives guest
//! stores the order that the SDM, vol. 3, 10.2 promises). Elsewhere aligned words are atomics with acquire/release
//! order and unaligned ones go byte by byte. Called by `frames`, `tlb` and, through [`RamSlot`] and [`RamRun`], by the cpu crate.
#![allow(
    unsafe_code,
    reason = "guest RAM is shared with other vCPUs: raw pointers only, measured at one mov an access"
)]

use std::marker::PhantomData;

/// A host address inside a frame.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct HostPtr(pub(crate) *mut u8);

// SAFETY: an address is a plain value; every access through it is one of the racing-safe primitives below.
unsafe impl Send for HostPtr {}
// SAFETY: as above.
unsafe impl Sync for HostPtr {}

impl HostPtr {
    pub(crate) fn from_bits(bits: u64) -> HostPtr {
        HostPtr(std::ptr::with_exposed_provenance_mut(bits as usize))
    }
    pub(crate) fn bits(self) -> u64 {
        self.0.expose_provenance() as u64
    }
    pub(crate) fn add(self, bytes: usize) -> HostPtr {
        HostPtr(self.0.wrapping_add(bytes))
    }
}

/// The primitive accesses behind [`Word`].
pub(crate) mod raw {
    /// One access of a fixed width. `at` must lie inside live frames for the whole width.
    pub trait Raw: Sized + Copy {
        /// Reads in acquire order.
        ///
        /// # Safety
        /// `at..at + size` lies inside a live frame pool.
        unsafe fn raw_load(at: *const u8) -> Self;
        /// Writes in release order.
        ///
        /// # Safety
        /// As [`Raw::raw_load`].
        unsafe fn raw_store(at: *mut u8, value: Self);
        /// Locked compare and exchange; gives what was there.
        ///
        /// # Safety
        /// As [`Raw::raw_load`].
        unsafe fn raw_compare_exchange(at: *mut u8, expected: Self, new: Self) -> Self;
    }
}
use raw::Raw;

/// The widths of a guest access: `u8`, `u16`, `u32`, `u64`, `u128`. Sealed.
pub trait Word: Raw + Copy + Eq + Into<u128> + std::fmt::Debug + 'static {
    /// Bytes in the word.
    const BYTES: usize;
    /// The low bytes of a wider value.
    fn truncate(wide: u128) -> Self;
}

macro_rules! words {
    ($($t:ty)*) => { $(
        impl Word for $t {
            const BYTES: usize = size_of::<$t>();
            #[inline(always)]
            fn truncate(wide: u128) -> $t { wide as $t }
        }
    )* };
}
words!(u8 u16 u32 u64 u128);

#[cfg(all(target_arch = "x86_64", not(portable)))]
mod native {
    use super::raw::Raw;
    use std::arch::asm;
    use std::arch::x86_64::__m128i;

    macro_rules! raw_word {
        ($t:ty, $class:ident, $modifier:literal, $accumulator:tt) => {
            impl Raw for $t {
                #[inline(always)]
                unsafe fn raw_load(at: *const u8) -> $t {
                    let value: $t;
                    // SAFETY: the caller vouches for the range; a mov has no other effect.
                    unsafe {
                        asm!(concat!("mov {value", $modifier, "}, [{at}]"), at = in(reg) at, value = lateout($class) value,
                             options(nostack, preserves_flags, readonly));
                    }
                    value
                }
                #[inline(always)]
                unsafe fn raw_store(at: *mut u8, value: $t) {
                    // SAFETY: as above.
                    unsafe {
                        asm!(concat!("mov [{at}], {value", $modifier, "}"), at = in(reg) at, value = in($class) value,
                             options(nostack, preserves_flags));
                    }
                }
                #[inline(always)]
                unsafe fn raw_compare_exchange(at: *mut u8, expected: $t, new: $t) -> $t {
                    let found: $t;
                    // SAFETY: as above.
                    unsafe {
                        asm!(concat!("lock cmpxchg [{at}], {new", $modifier, "}"), at = in(reg) at, new = in($class) new,
                             inout($accumulator) expected => found, options(nostack));
                    }
                    found
                }
            }
        };
    }
    raw_word!(u8, reg_byte, "", "al");
    raw_word!(u16, reg, ":x", "ax");
    raw_word!(u32, reg, ":e", "eax");
    raw_word!(u64, reg, ":r", "rax");

    impl Raw for u128 {
        #[inline(always)]
        unsafe fn raw_load(at: *const u8) -> u128 {
            let value: __m128i;
            // SAFETY: the caller vouches for the range; the two types have one representation.
            unsafe {
                asm!("movdqu {value}, [{at}]", at = in(reg) at, value = lateout(xmm_reg) value,
                     options(nostack, preserves_flags, readonly));
                std::mem::transmute(value)
            }
        }
        #[inline(always)]
        unsafe fn raw_store(at: *mut u8, value: u128) {
            // SAFETY: as above.
            unsafe {
                let value: __m128i = std::mem::transmute(value);
                asm!("movdqu [{at}], {value}", at = in(reg) at, value = in(xmm_reg) value,
                     options(nostack, preserves_flags));
            }
        }
        unsafe fn raw_compare_exchange(at: *mut u8, expected: u128, new: u128) -> u128 {
            if !at.addr().is_multiple_of(16) {
                // NOTE(why not a locked access): CMPXCHG16B demands alignment of guest and host alike (SDM vol. 2).
                // SAFETY: as above.
                unsafe {
                    let found = u128::raw_load(at);
                    if found == expected {
                        u128::raw_store(at, new);
                    }
                    return found;
                }
            }
            let (low, high): (u64, u64);
            // SAFETY: the caller vouches for the range, which is aligned; RBX is put back.
            unsafe {
                asm!("xchg rbx, {new_low}", "lock cmpxchg16b [{at}]", "mov rbx, {new_low}",
                     at = in(reg) at, new_low = inout(reg) new as u64 => _, in("rcx") (new >> 64) as u64,
                     inout("rax") expected as u64 => low, inout("rdx") (expected >> 64) as u64 => high,
                     options(nostack));
            }
            u128::from(low) | u128::from(high) << 64
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(portable))))]
mod native {
    use super::raw::Raw;
    use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

    /// Serialises locked updates that no host atomic covers.
    static WIDE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

    unsafe fn load_bytes<const N: usize>(at: *const u8) -> [u8; N] {
        // SAFETY: the caller vouches for the range; bytes are always aligned.
        std::array::from_fn(|i| unsafe { AtomicU8::from_ptr(at.wrapping_add(i).cast_mut()).load(Ordering::Acquire) })
    }
    unsafe fn store_bytes(at: *mut u8, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: as above.
            unsafe { AtomicU8::from_ptr(at.wrapping_add(i)).store(*byte, Ordering::Release) };
        }
    }

    macro_rules! raw_word {
        ($t:ty, $atomic:ty) => {
            impl Raw for $t {
                #[inline]
                unsafe fn raw_load(at: *const u8) -> $t {
                    // SAFETY: the caller vouches for the range; alignment is tested.
                    unsafe {
                        if at.addr().is_multiple_of(size_of::<$t>()) {
                            <$atomic>::from_ptr(at.cast_mut().cast()).load(Ordering::Acquire).to_le()
                        } else {
                            <$t>::from_le_bytes(load_bytes(at))
                        }
                    }
                }
                #[inline]
                unsafe fn raw_store(at: *mut u8, value: $t) {
                    // SAFETY: as above.
                    unsafe {
                        if at.addr().is_multiple_of(size_of::<$t>()) {
                            <$atomic>::from_ptr(at.cast()).store(value.to_le(), Ordering::Release);
                        } else {
                            store_bytes(at, &value.to_le_bytes());
                        }
                    }
                }
                unsafe fn raw_compare_exchange(at: *mut u8, expected: $t, new: $t) -> $t {
                    // SAFETY: as above.
                    unsafe {
                        if at.addr().is_multiple_of(size_of::<$t>()) {
                            let atomic = <$atomic>::from_ptr(at.cast());
                            let (expected, new) = (expected.to_le(), new.to_le());
                            let found = atomic.compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst);
                            return <$t>::from_le(found.unwrap_or_else(|other| other));
                        }
                        let _one_at_a_time = WIDE.lock();
                        let found = <$t>::raw_load(at);
                        if found == expected {
                            <$t>::raw_store(at, new);
                        }
                        found
                    }
                }
            }
        };
    }
    raw_word!(u8, AtomicU8);
    raw_word!(u16, AtomicU16);
    raw_word!(u32, AtomicU32);
    raw_word!(u64, AtomicU64);

    impl Raw for u128 {
        unsafe fn raw_load(at: *const u8) -> u128 {
            // SAFETY: the caller vouches for the range.
            unsafe { u128::from(u64::raw_load(at)) | u128::from(u64::raw_load(at.wrapping_add(8))) << 64 }
        }
        unsafe fn raw_store(at: *mut u8, value: u128) {
            // SAFETY: as above.
            unsafe {
                u64::raw_store(at, value as u64);
                u64::raw_store(at.wrapping_add(8), (value >> 64) as u64);
            }
        }
        unsafe fn raw_compare_exchange(at: *mut u8, expected: u128, new: u128) -> u128 {
            let _one_at_a_time = WIDE.lock();
            // SAFETY: as above.
            unsafe {
                let found = u128::raw_load(at);
                if found == expected {
                    u128::raw_store(at, new);
                }
                found
            }
        }
    }
}

/// A word of guest RAM that a write TLB entry covers, for read-modify-write.
///
/// It stands until the vCPU's next boundary: `'a` keeps slow paths away while it is held.
#[derive(Debug)]
pub struct RamSlot<'a, T: Word> {
    at: HostPtr,
    live: PhantomData<(&'a (), T)>,
}

impl<T: Word> RamSlot<'_, T> {
    /// # Safety
    /// `at` and the word's width lie in frames of a pool that lives for the slot's lifetime.
    #[inline(always)]
    pub(crate) unsafe fn new(at: HostPtr) -> Self {
        RamSlot { at, live: PhantomData }
    }
    /// Reads the word.
    #[inline(always)]
    pub fn load(&self) -> T {
        // SAFETY: the constructor's contract.
        unsafe { T::raw_load(self.at.0) }
    }
    /// Writes the word.
    #[inline(always)]
    pub fn store(&self, value: T) {
        // SAFETY: the constructor's contract.
        unsafe { T::raw_store(self.at.0, value) }
    }
    /// Locked compare and exchange: `Ok(previous)` when `new` was stored, else `Err(found)`.
    #[inline(always)]
    pub fn compare_exchange(&self, expected: T, new: T) -> Result<T, T> {
        // SAFETY: the constructor's contract.
        let found = unsafe { T::raw_compare_exchange(self.at.0, expected, new) };
        if found == expected { Ok(found) } else { Err(found) }
    }
    /// Locked read-modify-write; gives what was there. `update` may run several times.
    #[inline(always)]
    pub fn fetch_update(&self, mut update: impl FnMut(T) -> T) -> T {
        let mut seen = self.load();
        loop {
            match self.compare_exchange(seen, update(seen)) {
                Ok(previous) => return previous,
                Err(found) => seen = found,
            }
        }
    }
}

/// Which way a string instruction walks (EFLAGS.DF).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    /// DF = 0: towards higher addresses.
    Up,
    /// DF = 1: towards lower addresses.
    Down,
}

/// The guest RAM around one address, up to both ends of its page, for string instructions.
///
/// Elements lie at the address, then above it (`Up`) or below it (`Down`).
#[derive(Debug)]
pub struct RamRun<'a> {
    at: HostPtr,
    offset: usize,
    live: PhantomData<&'a ()>,
}

impl RamRun<'_> {
    /// # Safety
    /// `at` lies in a frame of a pool that lives for the run's lifetime, `offset` bytes after the frame's start.
    #[inline(always)]
    pub(crate) unsafe fn new(at: HostPtr, offset: usize) -> Self {
        RamRun { at, offset, live: PhantomData }
    }
    /// Bytes from the address to the end of its page (never 0).
    #[allow(clippy::len_without_is_empty, reason = "a run holds at least one byte")]
    #[inline(always)]
    pub fn len(&self) -> usize {
        4096 - self.offset
    }
    /// The host address of the first byte, for emitted code: good until the vCPU's next boundary.
    pub fn address(&self) -> u64 {
        self.at.bits()
    }
    /// How many whole elements of `width` bytes lie within the page in this direction.
    pub fn elements(&self, width: usize, direction: Direction) -> usize {
        match direction {
            Direction::Up => self.len() / width,
            Direction::Down if self.len() < width => 0,
            Direction::Down => self.offset / width + 1,
        }
    }
    /// Copies `count` elements of `width` bytes (1, 2, 4, 8) from `source`, as MOVS would one by one: overlap repeats
    /// what was already written. `count` is cut to what both runs hold; gives the elements copied.
    pub fn copy_from(&self, source: &RamRun, width: usize, count: usize, direction: Direction) -> usize {
        let room = self.elements(width, direction).min(source.elements(width, direction));
        let count = count.min(room);
        let bytes = count * width;
        if bytes == 0 {
            return 0;
        }
        let back = if direction == Direction::Down { bytes - width } else { 0 };
        let (to, from) = (self.at.0.wrapping_sub(back), source.at.0.wrapping_sub(back));
        let distance = to.addr().abs_diff(from.addr());
        if distance >= bytes || (distance >= 16 && direction == Direction::Up && to.addr() < from.addr()) {
            // SAFETY: both ranges lie in their pages (cut above); a forward copy downwards reads before it overwrites.
            unsafe { copy_up(to, from, bytes) };
            return count;
        }
        for i in 0..count {
            let step = if direction == Direction::Down { bytes - width - i * width } else { i * width };
            // SAFETY: as above.
            unsafe { copy_word(to.wrapping_add(step), from.wrapping_add(step), width) };
        }
        count
    }
    /// Stores `count` elements of `width` bytes (1, 2, 4, 8), as STOS would; gives the elements stored.
    pub fn fill(&self, width: usize, value: u64, count: usize, direction: Direction) -> usize {
        let count = count.min(self.elements(width, direction));
        if count == 0 {
            return 0;
        }
        let back = if direction == Direction::Down { (count - 1) * width } else { 0 };
        // SAFETY: cut to the page above.
        unsafe { fill_up(self.at.0.wrapping_sub(back), width, value, count) };
        count
    }
}

/// # Safety
/// Both addresses lie in frames for `width` bytes.
unsafe fn copy_word(to: *mut u8, from: *const u8, width: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        match width {
            1 => u8::raw_store(to, u8::raw_load(from)),
            2 => u16::raw_store(to, u16::raw_load(from)),
            4 => u32::raw_store(to, u32::raw_load(from)),
            _ => u64::raw_store(to, u64::raw_load(from)),
        }
    }
}

/// Ascending copy; whole words first, so that an aligned element is one access.
///
/// # Safety
/// Both ranges lie in live memory; at least one of them in frames.
pub(crate) unsafe fn copy_up(to: *mut u8, from: *const u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(portable)))]
    if bytes >= 128 {
        // SAFETY: the caller's contract; the direction flag is clear by the ABI.
        unsafe {
            std::arch::asm!("rep movsb", inout("rcx") bytes => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        }
        return;
    }
    let mut done = 0;
    while done < bytes {
        let width = match bytes - done {
            8.. => 8,
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        // SAFETY: the caller's contract.
        unsafe { copy_word(to.wrapping_add(done), from.wrapping_add(done), width) };
        done += width;
    }
}

/// # Safety
/// `to` lies in frames for `count` elements.
unsafe fn fill_up(to: *mut u8, width: usize, value: u64, count: usize) {
    #[cfg(all(target_arch = "x86_64", not(portable)))]
    if count * width >= 128 {
        let bytes = count * width;
        let pattern = match width {
            1 => u64::from(value as u8) * 0x0101_0101_0101_0101,
            2 => u64::from(value as u16) * 0x0001_0001_0001_0001,
            4 => u64::from(value as u32) * 0x0000_0001_0000_0001,
            _ => value,
        };
        // SAFETY: the caller's contract; whole words here, the rest below.
        unsafe {
            std::arch::asm!("rep stosq", inout("rcx") bytes / 8 => _, inout("rdi") to => _, in("rax") pattern,
                options(nostack, preserves_flags));
        }
        for i in bytes & !7..bytes {
            // SAFETY: as above; byte i of the pattern, which repeats every 8.
            unsafe { u8::raw_store(to.wrapping_add(i), (pattern >> (8 * (i & 7))) as u8) };
        }
        return;
    }
    for i in 0..count {
        let at = to.wrapping_add(i * width);
        // SAFETY: the caller's contract.
        unsafe {
            match width {
                1 => u8::raw_store(at, value as u8),
                2 => u16::raw_store(at, value as u16),
                4 => u32::raw_store(at, value as u32),
                _ => u64::raw_store(at, value),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::frames::Pool;

    /// A string move, one element at a time.
    fn model(bytes: &mut [u8], to: usize, from: usize, width: usize, count: usize, direction: Direction) {
        for i in 0..count {
            let step = |at: usize| if direction == Direction::Up { at + i * width } else { at - i * width };
            let element = bytes[step(from)..step(from) + width].to_vec();
            bytes[step(to)..step(to) + width].copy_from_slice(&element);
        }
    }

    #[test]
    fn runs_copy_and_fill_like_the_instructions() {
        let pool = Pool::new(4096).unwrap();
        let frame = pool.take(1).unwrap()[0];
        let start: Vec<u8> = (0..4096u32).map(|i| ((i * 31) >> 3) as u8).collect();
        for width in [1, 2, 4, 8] {
            for (to, from) in [(100, 900), (101, 100), (100, 101), (500, 484), (484, 500), (2000, 2130), (4000, 40)] {
                for count in [0, 1, 7, 40, 300, 9999] {
                    for direction in [Direction::Up, Direction::Down] {
                        pool.copy_in(frame, 0, &start);
                        let at = |offset: usize| {
                            // SAFETY: inside the frame of a live pool.
                            unsafe { RamRun::new(pool.pointer(frame).add(offset), offset) }
                        };
                        let mut expected = start.clone();
                        let done = at(to).copy_from(&at(from), width, count, direction);
                        let room = at(to).elements(width, direction).min(at(from).elements(width, direction));
                        assert_eq!(done, count.min(room));
                        model(&mut expected, to, from, width, done, direction);
                        let mut got = vec![0; 4096];
                        pool.copy_out(frame, 0, &mut got);
                        assert!(got == expected, "{to} {from} {width} {count} {direction:?}");
                        let value = 0x1122_3344_5566_7788u64;
                        let done = at(to).fill(width, value, count, direction);
                        for i in 0..done {
                            let at = if direction == Direction::Up { to + i * width } else { to - i * width };
                            expected[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
                        }
                        pool.copy_out(frame, 0, &mut got);
                        assert!(got == expected, "fill {to} {width} {count} {direction:?}");
                    }
                }
            }
        }
    }
}
