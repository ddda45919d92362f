//! System calls for frames: one reservation of anonymous memory, huge pages where the host has them, residency; and for the swap
//! file a read that does not wait.
//!
//! Called by `frames` and `reclaim::swap`. Under `cfg(portable)` the memory comes from the allocator and residency is unknown.
#![allow(unsafe_code, reason = "mmap, madvise, mincore, munmap: about 4 ns a frame against 30 for a Box each; preadv2")]

use crate::ram::HostPtr;

/// A range of zeroed host memory, page-aligned (2 MiB where huge pages can be used), given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    start: HostPtr,
    mapped: (usize, usize),
}

/// 2 MiB: the host's huge page.
#[cfg(not(portable))]
const HUGE: usize = 2 << 20;

#[cfg(not(portable))]
impl Reservation {
    /// Reserves `bytes` (not 0); the host gives a frame at its first touch.
    pub(crate) fn new(bytes: usize) -> std::io::Result<Reservation> {
        let length = bytes.checked_add(HUGE).ok_or(std::io::ErrorKind::OutOfMemory)?;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: a fresh anonymous mapping at an address of the host's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let lead = start.addr().next_multiple_of(HUGE) - start.addr();
        let aligned: *mut u8 = start.cast::<u8>().wrapping_add(lead);
        Ok(Reservation { start: HostPtr(aligned), mapped: (start.expose_provenance(), length) })
    }
    /// Makes pages (4 KiB each, from `first` on) resident.
    pub(crate) fn touch(&self, first: usize, pages: usize) {
        // SAFETY: the range lies in our mapping. A refusal (hosts before Linux 5.14) only costs speed.
        #[cfg(target_os = "linux")]
        unsafe {
            libc::madvise(self.start.0.wrapping_add(first * 4096).cast(), pages * 4096, libc::MADV_POPULATE_WRITE);
        }
    }
    /// Lets the host give huge pages for the first `bytes` from now on.
    pub(crate) fn prefer_huge_pages(&self, bytes: usize) {
        // SAFETY: the range is ours. A refusal only costs speed.
        #[cfg(target_os = "linux")]
        unsafe {
            libc::madvise(self.start.0.cast(), bytes, libc::MADV_HUGEPAGE);
        }
    }
    /// Never lets the host give huge pages for the first `bytes` unasked.
    pub(crate) fn refuse_huge_pages(&self, bytes: usize) {
        if self.merges() {
            return;
        }
        // SAFETY: the range is ours. A refusal means that the host has none.
        #[cfg(target_os = "linux")]
        unsafe {
            libc::madvise(self.start.0.cast(), bytes, libc::MADV_NOHUGEPAGE);
        }
    }
    /// Whether huge pages can be asked for one by one: not where the host gives them unasked, which is refused.
    pub(crate) fn merges(&self) -> bool {
        let how = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        how.is_ok_and(|how| !how.contains("[always]"))
    }
    /// Makes one huge page of the 512 pages (4 KiB each) from `first` on, all of which are resident; tells whether it did.
    pub(crate) fn merge(&self, first: usize) -> bool {
        // SAFETY: the range lies in our mapping; its contents stay, whoever writes them meanwhile (Linux 6.1).
        #[cfg(target_os = "linux")]
        return unsafe {
            libc::madvise(self.start.0.wrapping_add(first * 4096).cast(), HUGE, libc::MADV_COLLAPSE) == 0
        };
        #[cfg(not(target_os = "linux"))]
        {
            let _ = first;
            false
        }
    }
    /// Gives pages (4 KiB each, from `first` on) back to the host, which has zeros there at the next touch; tells whether it did.
    pub(crate) fn discard(&self, first: usize, pages: usize) -> bool {
        // Elsewhere the advice may leave the contents as they are.
        #[cfg(target_os = "linux")]
        // SAFETY: the range lies in our private anonymous mapping, and whoever calls this needs its contents no more.
        return unsafe {
            libc::madvise(self.start.0.wrapping_add(first * 4096).cast(), pages * 4096, libc::MADV_DONTNEED) == 0
        };
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (first, pages);
            false
        }
    }
    /// Commits and locks the first `bytes`: the host will not use them for anything else.
    pub(crate) fn pin(&self, bytes: usize) -> std::io::Result<()> {
        // SAFETY: the range is ours; locking changes no contents.
        match unsafe { libc::mlock(self.start.0.cast(), bytes) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
    /// Tells for each of the pages (4 KiB each, from `first` on) whether it is resident.
    pub(crate) fn residency(&self, first: usize, pages: usize, mut tell: impl FnMut(bool)) {
        let mut vector = [0u8; 4096];
        for chunk in (0..pages).step_by(vector.len()) {
            let count = vector.len().min(pages - chunk);
            let at = self.start.0.wrapping_add((first + chunk) * 4096);
            // SAFETY: the range lies in our mapping; the vector holds one byte a page.
            let failed = unsafe { libc::mincore(at.cast(), count * 4096, vector.as_mut_ptr().cast()) } != 0;
            vector.iter().take(count).for_each(|flag| tell(!failed && *flag & 1 != 0));
        }
    }
}

#[cfg(not(portable))]
impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody uses it any more (the pool is being dropped).
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.mapped.0), self.mapped.1) };
    }
}

#[cfg(portable)]
impl Reservation {
    /// Allocates `bytes` (not 0).
    pub(crate) fn new(bytes: usize) -> std::io::Result<Reservation> {
        let layout = std::alloc::Layout::from_size_align(bytes, 4096).map_err(std::io::Error::other)?;
        // SAFETY: the size is not 0 (`frames` refuses an empty pool).
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        if start.is_null() {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        Ok(Reservation { start: HostPtr(start), mapped: (start.expose_provenance(), bytes) })
    }
    /// Whoever comes first touches them.
    pub(crate) fn touch(&self, _first: usize, _pages: usize) {}
    /// As the allocator decides.
    pub(crate) fn refuse_huge_pages(&self, _bytes: usize) {}
    /// Not possible here.
    pub(crate) fn merges(&self) -> bool {
        false
    }
    /// Not possible here.
    pub(crate) fn merge(&self, _first: usize) -> bool {
        false
    }
    /// Not possible here.
    pub(crate) fn discard(&self, _first: usize, _pages: usize) -> bool {
        false
    }
    /// As the allocator decides.
    pub(crate) fn prefer_huge_pages(&self, _bytes: usize) {}
    /// Not possible here.
    pub(crate) fn pin(&self, _bytes: usize) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    /// Unknown here: every page counts.
    pub(crate) fn residency(&self, _first: usize, pages: usize, mut tell: impl FnMut(bool)) {
        (0..pages).for_each(|_| tell(true));
    }
}

#[cfg(portable)]
impl Drop for Reservation {
    fn drop(&mut self) {
        if let Ok(layout) = std::alloc::Layout::from_size_align(self.mapped.1, 4096) {
            // SAFETY: allocated with this layout, no longer used.
            unsafe { std::alloc::dealloc(std::ptr::with_exposed_provenance_mut(self.mapped.0), layout) };
        }
    }
}

impl Reservation {
    /// The first byte.
    pub(crate) fn start(&self) -> HostPtr {
        self.start
    }
}

/// Reads what the host has of a file in memory (`preadv2(2)`, `RWF_NOWAIT`): an error where it would have to ask a disk.
#[cfg(all(target_os = "linux", target_env = "gnu", not(portable)))]
pub(crate) fn read_cached(file: &std::fs::File, at: u64, into: &mut [u8]) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    let at = i64::try_from(at).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: one part, which is `into`, ours for as long as the call takes.
    match unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, at, libc::RWF_NOWAIT) } {
        count if count < 0 => Err(std::io::Error::last_os_error()),
        count if count as usize == into.len() => Ok(()),
        _ => Err(std::io::ErrorKind::WouldBlock.into()),
    }
}
