//! The code cache's memory: one memfd with a writable and an executable view.
//!
//! It is filled in chunks, some with what usually runs ([`Part::Hot`]), others with the ways out of it ([`Part::Cold`]): so what
//! runs lies close together, for the processor's instruction cache and its TLB. When it is full, the oldest chunk is emptied.
//!
//! Nobody can both write and execute through one mapping, and nothing is ever remapped (switching the rights of 64 MiB costs
//! about a millisecond). A full chunk of hot code becomes one huge page of the host: a guest's kernel and program run through
//! more pages of emitted code than a processor's instruction TLB holds. This file is one of the five places with `unsafe`: it
//! writes machine code and hands out its addresses.
#![allow(unsafe_code, reason = "writes machine code; see above")]

use super::site::LowPtr;
use memmap2::{MmapMut, MmapOptions, UncheckedAdvice};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags};
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsFd;

/// The host address of emitted code.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct CodePtr(pub u64);

/// Why there can be no emitted code here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ArenaError {
    /// The host refused one of the two views.
    #[error("this host does not let memory be written and executed ({0})")]
    Refused(String),
    /// The host's processor lacks something that emitted code uses.
    #[error("emitted code needs an x86-64 host with {0}")]
    Host(&'static str),
}

/// The host's huge page.
const HUGE: usize = 2 << 20;

/// The executable view, at the begin of a huge page.
#[derive(Debug)]
struct Executable {
    /// What is mapped, with room around the view.
    mapped: *mut std::ffi::c_void,
    length: usize,
    /// The view.
    start: *const u8,
}

// SAFETY: plain memory, which lies where it is until this is dropped.
unsafe impl Send for Executable {}
// SAFETY: as above.
unsafe impl Sync for Executable {}

impl Executable {
    fn of(file: &File, bytes: usize) -> rustix::io::Result<Executable> {
        let length = bytes + HUGE;
        // SAFETY: a fresh mapping at an address of the host's choice.
        let mapped =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::empty(), MapFlags::PRIVATE) }?;
        let lead = mapped.addr().next_multiple_of(HUGE) - mapped.addr();
        let start = mapped.wrapping_byte_add(lead);
        let view = Executable { mapped, length, start: start.cast() };
        let rights = ProtFlags::READ | ProtFlags::EXEC;
        // SAFETY: replaces a part of the mapping above. What is executed was written whole before its address was handed out.
        unsafe { rustix::mm::mmap(start, bytes, rights, MapFlags::SHARED | MapFlags::FIXED, file.as_fd(), 0) }?;
        Ok(view)
    }
    /// Makes a huge page of the `number`th 2 MiB. A refusal (hosts before Linux 6.1) only costs speed.
    fn join(&self, number: usize) {
        let at = self.start.wrapping_add(number * HUGE).cast_mut().cast();
        // SAFETY: the range is ours, and keeps its contents.
        unsafe { libc::madvise(at, HUGE, libc::MADV_COLLAPSE) };
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody runs anything of it any more. It cannot fail.
        let _ = unsafe { rustix::mm::munmap(self.mapped, self.length) };
    }
}

/// Which code.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// What usually runs.
    Hot,
    /// What seldom runs.
    Cold,
}

/// What is left of the chunk that is being filled: offsets into the views.
#[derive(Copy, Clone, Debug, Default)]
struct Chunk {
    next: usize,
    end: usize,
}

impl Chunk {
    fn room(self) -> usize {
        self.end - self.next
    }
}

/// Code of one part for which [`Arena::prepare`] makes room: more than most units have.
const ROOM: usize = 48 << 10;

/// The two views and how far they are filled.
#[derive(Debug)]
pub struct Arena {
    writable: MmapMut,
    executable: Executable,
    /// The size of a chunk.
    chunk: usize,
    /// Bytes at the begin of the first chunk that stay.
    common: usize,
    /// Chunks with nothing in them.
    free: VecDeque<usize>,
    /// The others, the oldest first.
    begun: VecDeque<usize>,
    /// The chunk of each part.
    filling: [Chunk; 2],
    /// The most that writes have mapped since the writable view was unmapped, in bytes.
    mapped: usize,
}

/// The most of the writable view that stays mapped, in bytes.
const MOST_MAPPED: usize = 1 << 20;

impl Arena {
    /// `bytes` of empty code cache.
    pub fn new(bytes: usize) -> Result<Arena, ArenaError> {
        let refused = |error: std::io::Error| ArenaError::Refused(error.to_string());
        let made = memfd_create("umbra-code", MemfdFlags::CLOEXEC | MemfdFlags::EXEC)
            .or_else(|_| memfd_create("umbra-code", MemfdFlags::CLOEXEC));
        let file = File::from(made.map_err(|e| refused(e.into()))?);
        ftruncate(&file, bytes as u64).map_err(|e| refused(e.into()))?;
        let mut options = MmapOptions::new();
        options.len(bytes);
        // SAFETY: the file is ours alone: nobody truncates it.
        let writable = unsafe { options.map_mut(&file) }.map_err(refused)?;
        let executable = Executable::of(&file, bytes).map_err(|e| refused(e.into()))?;
        let chunk = (bytes / 4 / 4096 * 4096).min(HUGE);
        let (free, begun, filling) = (VecDeque::new(), VecDeque::new(), [Chunk::default(); 2]);
        let mut arena = Arena { writable, executable, chunk, common: 0, free, begun, filling, mapped: 0 };
        arena.clear();
        Ok(arena)
    }

    /// Where the next code of a part will lie.
    pub fn next(&self, part: Part) -> CodePtr {
        CodePtr(self.executable.start as u64 + self.filling[part as usize].next as u64)
    }

    /// Bytes there are.
    pub fn size(&self) -> usize {
        self.writable.len()
    }

    /// Chunks there are.
    pub fn chunks(&self) -> usize {
        self.writable.len() / self.chunk
    }

    /// The chunk that an address lies in.
    pub fn chunk_of(&self, at: CodePtr) -> usize {
        at.0.wrapping_sub(self.executable.start as u64) as usize / self.chunk
    }

    /// Whether there is room for [`Self::prepare`] to make.
    pub fn has_room(&self) -> bool {
        self.filling.iter().filter(|chunk| chunk.room() < ROOM).count() <= self.free.len()
    }

    /// Begins new chunks where not much is left: before [`Self::next`] is asked for the places of new code.
    pub fn prepare(&mut self) {
        for part in [Part::Hot, Part::Cold] {
            if self.filling[part as usize].room() < ROOM
                && self.has_room()
                && let Some(number) = self.free.pop_front()
            {
                let begin = number * self.chunk;
                let next = if number == 0 { self.common } else { begin };
                let new = Chunk { next, end: begin + self.chunk };
                let full = std::mem::replace(&mut self.filling[part as usize], new);
                self.begun.push_back(number);
                if part == Part::Hot && self.chunk == HUGE && full.end > 0 {
                    self.executable.join(full.end / HUGE - 1);
                }
            }
        }
    }

    /// So many bytes may have been mapped by writes. From time to time the writable view is unmapped: what both map counts twice
    /// in the size of the process.
    fn wrote(&mut self, bytes: usize) {
        self.mapped += bytes;
        if self.mapped < MOST_MAPPED {
            return;
        }
        self.mapped = 0;
        // SAFETY: a shared view: what was written stays in the file, and is there again with the next access. A refusal only
        // costs the count.
        let _ = unsafe { self.writable.unchecked_advise(UncheckedAdvice::DontNeed) };
    }

    /// The chunk that was begun first, of those that are full.
    pub fn oldest(&self) -> Option<usize> {
        let filling = |number: usize| {
            self.filling.iter().any(|chunk| chunk.end == (number + 1) * self.chunk && chunk.room() >= ROOM)
        };
        self.begun.iter().copied().find(|number| !filling(*number))
    }

    /// There is nothing in a chunk any more: nothing of it may run or be jumped to.
    pub fn recycle(&mut self, number: usize) {
        self.begun.retain(|begun| *begun != number);
        self.free.push_back(number);
        for chunk in self.filling.iter_mut().filter(|chunk| chunk.end == (number + 1) * self.chunk) {
            *chunk = Chunk::default();
        }
    }

    /// Appends code that was made for [`Arena::next`]; `None` when there is no room: what is larger than [`ROOM`] may find some
    /// when it is made again, in a chunk of its own.
    pub fn append(&mut self, hot: &[u8], cold: &[u8]) -> Option<CodePtr> {
        let at = self.next(Part::Hot);
        let parts = [hot, cold];
        let mut fits = true;
        for (chunk, _) in self.filling.iter_mut().zip(parts).filter(|(chunk, code)| code.len() > chunk.room()) {
            (chunk.next, fits) = (chunk.end, false);
        }
        if !fits {
            return None;
        }
        for (chunk, code) in self.filling.iter_mut().zip(parts) {
            self.writable.get_mut(chunk.next..chunk.next + code.len())?.copy_from_slice(code);
            let next = (chunk.next + code.len()).next_multiple_of(16).min(chunk.end);
            chunk.next = next;
        }
        self.wrote(hot.len() + cold.len());
        Some(at)
    }

    /// What there is so far stays.
    pub fn keep(&mut self) {
        self.common = self.filling[Part::Hot as usize].next;
    }

    /// Forgets everything that is not kept. Nothing of it may run or be jumped to any more.
    pub fn clear(&mut self) {
        self.free = (0..self.chunks()).collect();
        self.begun.clear();
        self.filling = [Chunk::default(); 2];
        self.prepare();
    }

    /// An address in the arena by its lower half.
    pub fn whole(&self, low: LowPtr) -> CodePtr {
        let start = self.executable.start as u64;
        CodePtr(start + u64::from(low.0.wrapping_sub(start as u32)))
    }

    /// Makes the displacement at `at` lead to `target`. No code of this arena may be running: it belongs to the vCPU of the
    /// thread that does this.
    pub fn patch(&mut self, at: LowPtr, target: LowPtr) {
        let offset = at.0.wrapping_sub(self.executable.start as u32) as usize;
        if let Some(bytes) = self.writable.get_mut(offset..offset + 4) {
            let displacement = target.0.wrapping_sub(at.0.wrapping_add(4));
            bytes.copy_from_slice(&displacement.to_le_bytes());
            self.wrote(4096);
        }
    }

    /// The bytes of emitted code, for dumps.
    pub fn bytes(&self, at: CodePtr, len: usize) -> &[u8] {
        let offset = at.0.wrapping_sub(self.executable.start as u64) as usize;
        self.writable.get(offset..offset + len).unwrap_or(&[])
    }
}
