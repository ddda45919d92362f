//! Memory as instructions see it: logical addresses with segment checks, then linear accesses through the mmu.
//!
//! `load`/`store` are for helpers and for the executors' slow paths; the executors' fast path is a TLB hit in `exec`.
//! Nothing is written unless the whole write is possible (both pages of a straddling access are resolved first).

use crate::check::Check;
use crate::fault::Fault;
use crate::mode::ModeBits;
use crate::state::Seg;
use crate::vcpu::Vcpu;
use umbra_mmu::addr::{Linear, PAGE_SIZE};
use umbra_mmu::attention::bits;
use umbra_mmu::fault::{Access, View};
use umbra_mmu::ram::Word;
use umbra_mmu::{Place, PlaceKind, WriteNote};

/// An unsigned integer of operand width.
pub trait Int: Word + Default {
    /// Width in bits.
    const BITS: u32;
    /// log2 of the width in bytes.
    const LOG2: u8;
    /// The low bits of `value`.
    fn narrow(value: u64) -> Self;
    /// Zero-extended.
    fn widen(self) -> u64;
    /// Sign-extended.
    fn widen_signed(self) -> i64;
}

macro_rules! int {
    ($($t:ty, $s:ty, $log2:literal;)*) => {$(
        impl Int for $t {
            const BITS: u32 = <$t>::BITS;
            const LOG2: u8 = $log2;
            #[inline(always)]
            fn narrow(value: u64) -> $t {
                value as $t
            }
            #[inline(always)]
            fn widen(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn widen_signed(self) -> i64 {
                self as $s as i64
            }
        }
    )*};
}
int! { u8, i8, 0; u16, i16, 1; u32, i32, 2; u64, i64, 3; }

impl Vcpu {
    /// Applies segmentation: checks rights and limit of `seg` for `len` bytes at `offset` and gives the linear address.
    ///
    /// Faults with #GP(0), or #SS(0) for SS; in 64-bit mode only a non-canonical address faults. With alignment
    /// checking on, a misaligned `offset` gives #AC(0) when `len` is a power of two.
    pub fn linear(&self, seg: Seg, offset: u64, len: u64, access: Access) -> Result<Linear, Fault> {
        let refuse = |check| if seg == Seg::Ss { Fault::ss(0).because(check) } else { Fault::gp(0).because(check) };
        let s = self.state.segment(seg);
        let linear = if self.link.mode.has(ModeBits::L) {
            let base = if matches!(seg, Seg::Fs | Seg::Gs) { s.base } else { 0 };
            let linear = Linear(base.wrapping_add(offset));
            if !linear.is_canonical_48() || !linear.wrapping_add(len - 1).is_canonical_48() {
                return Err(refuse(Check::Canonical));
            }
            linear
        } else {
            let allowed = match access {
                Access::Read => s.usable() && s.readable(),
                Access::Write => s.usable() && s.writable(),
                Access::Fetch => true,
            };
            let last = offset.wrapping_add(len - 1);
            let within = if s.expand_down() {
                let top = if s.big() { u64::from(u32::MAX) } else { 0xffff };
                offset > u64::from(s.limit) && last <= top
            } else {
                last <= u64::from(s.limit)
            };
            if !allowed || !within || last < offset {
                return Err(refuse(if allowed { Check::Limit(seg) } else { Check::Rights(seg) }));
            }
            Linear(s.base.wrapping_add(offset) & 0xffff_ffff)
        };
        if self.link.mode.has(ModeBits::ALIGN) && len.is_power_of_two() && linear.0 & (len - 1) & 15 != 0 && len <= 8 {
            return Err(Fault::ac());
        }
        Ok(linear)
    }

    /// Loads an operand through a segment.
    #[inline]
    pub fn load<T: Word>(&mut self, seg: Seg, offset: u64) -> Result<T, Fault> {
        let linear = self.linear(seg, offset, size_of::<T>() as u64, Access::Read)?;
        self.load_linear(linear.0)
    }

    /// Stores an operand through a segment.
    #[inline]
    pub fn store<T: Word>(&mut self, seg: Seg, offset: u64, value: T) -> Result<(), Fault> {
        let linear = self.linear(seg, offset, size_of::<T>() as u64, Access::Write)?;
        self.store_linear(linear.0, value)
    }

    /// Checks that `len` bytes could be written through a segment (rights, presence, dirty bits), without writing.
    pub fn reserve(&mut self, seg: Seg, offset: u64, len: u64) -> Result<(), Fault> {
        let linear = self.linear(seg, offset, len, Access::Write)?;
        let view = self.view();
        self.reserve_linear(linear, len, view)
    }

    /// Like [`Self::reserve`], for a linear address and a view.
    pub fn reserve_linear(&mut self, linear: Linear, len: u64, view: View) -> Result<(), Fault> {
        self.pieces(linear, len as usize, Access::Write, view).map(|_| ())
    }

    /// Like [`Self::reserve_linear`], for an instruction that cannot start again once it has begun to write: devices ask for
    /// it to run alone now.
    #[cfg(all(target_arch = "x86_64", not(portable)))]
    pub(crate) fn reserve_memory(&mut self, linear: Linear, len: usize, view: View) -> Result<(), Fault> {
        let (first, second) = self.pieces(linear, len, Access::Write, view)?;
        self.require_alone(&first.0, second.as_ref())
    }

    /// Loads from a linear address with the current view (no segment check).
    #[inline(always)]
    pub fn load_linear<T: Word>(&mut self, linear: u64) -> Result<T, Fault> {
        match self.link.mmu.load(linear) {
            Some(value) => Ok(value),
            None => self.load_slow(linear),
        }
    }

    /// Stores to a linear address with the current view (no segment check).
    #[inline(always)]
    pub fn store_linear<T: Word>(&mut self, linear: u64, value: T) -> Result<(), Fault> {
        if self.link.mmu.store(linear, value) { Ok(()) } else { self.store_slow(linear, value) }
    }

    /// The slow path of [`Self::load_linear`]: TLB miss, straddling, device memory.
    #[cold]
    #[inline(never)]
    pub fn load_slow<T: Word>(&mut self, linear: u64) -> Result<T, Fault> {
        let view = self.view();
        let mut bytes = [0; 16];
        self.load_bytes(Linear(linear), &mut bytes[..size_of::<T>()], view)?;
        Ok(T::truncate(u128::from_le_bytes(bytes)))
    }

    /// The slow path of [`Self::store_linear`].
    #[cold]
    #[inline(never)]
    pub fn store_slow<T: Word>(&mut self, linear: u64, value: T) -> Result<(), Fault> {
        let view = self.view();
        self.store_bytes(Linear(linear), &Into::<u128>::into(value).to_le_bytes()[..size_of::<T>()], view)
    }

    /// Implicit supervisor read (descriptor tables, TSS) at any CPL.
    pub fn load_system<T: Word>(&mut self, linear: u64) -> Result<T, Fault> {
        if self.link.mmu.view() == View::Supervisor
            && let Some(value) = self.link.mmu.load(linear)
        {
            return Ok(value);
        }
        let mut bytes = [0; 16];
        self.load_bytes(Linear(linear), &mut bytes[..size_of::<T>()], View::Supervisor)?;
        Ok(T::truncate(u128::from_le_bytes(bytes)))
    }

    /// Implicit supervisor write at any CPL.
    pub fn store_system<T: Word>(&mut self, linear: u64, value: T) -> Result<(), Fault> {
        self.store_bytes(Linear(linear), &Into::<u128>::into(value).to_le_bytes()[..size_of::<T>()], View::Supervisor)
    }

    /// Loads `into.len()` bytes (at most a page) with the given view.
    pub fn load_bytes(&mut self, linear: Linear, into: &mut [u8], view: View) -> Result<(), Fault> {
        let (first, second) = self.pieces(linear, into.len(), Access::Read, view)?;
        let cut = first.1;
        self.require_alone(&first.0, second.as_ref())?;
        self.require_alone_if_watched(linear, into.len() as u64, Access::Read)?;
        self.read_piece(&first.0, &mut into[..cut]);
        if let Some(place) = second {
            self.read_piece(&place, &mut into[cut..]);
        }
        self.note_data_breakpoints(linear, into.len() as u64, Access::Read);
        Ok(())
    }

    /// Stores `from.len()` bytes (at most a page) with the given view: all of them or none.
    pub fn store_bytes(&mut self, linear: Linear, from: &[u8], view: View) -> Result<(), Fault> {
        let (first, second) = self.pieces(linear, from.len(), Access::Write, view)?;
        let cut = first.1;
        self.require_alone(&first.0, second.as_ref())?;
        self.require_alone_if_watched(linear, from.len() as u64, Access::Write)?;
        self.write_piece(&first.0, &from[..cut]);
        if let Some(place) = second {
            self.write_piece(&place, &from[cut..]);
        }
        self.note_data_breakpoints(linear, from.len() as u64, Access::Write);
        Ok(())
    }

    /// Resolves the one or two pages that an access touches. Outside 64-bit mode the second wraps at 4 GiB.
    fn pieces(
        &mut self,
        linear: Linear,
        len: usize,
        access: Access,
        view: View,
    ) -> Result<((Place, usize), Option<Place>), Fault> {
        let room = (PAGE_SIZE - linear.page_offset()) as usize;
        // Emitted code's gates know their site.
        let named =
            self.link.mmu.notes_writers() && self.link.mmu.would_fill(linear, access, view) && self.name_store();
        let pieces = self.resolved_pieces(linear, (len, room), access, view);
        if named {
            self.link.mmu.set_storing(None);
        }
        pieces
    }
    fn resolved_pieces(
        &mut self,
        linear: Linear,
        (len, room): (usize, usize),
        access: Access,
        view: View,
    ) -> Result<((Place, usize), Option<Place>), Fault> {
        let first = self.link.mmu.resolve(linear, access, view)?;
        if len <= room {
            return Ok(((first, len), None));
        }
        let mut next = linear.page_base().wrapping_add(PAGE_SIZE);
        if !self.state.long_mode() {
            next.0 &= 0xffff_ffff;
        }
        let second = self.link.mmu.resolve(next, access, view)?;
        Ok(((first, room), Some(second)))
    }

    /// A device is accessed only by an instruction that is a block of its own.
    fn require_alone(&self, first: &Place, second: Option<&Place>) -> Result<(), Fault> {
        let device = |place: &Place| matches!(place.kind(), PlaceKind::Mmio { .. });
        if !self.link.alone && (device(first) || second.is_some_and(device)) {
            return Err(Fault::alone());
        }
        Ok(())
    }

    /// So is what a debugger watches: nothing runs on after it in the same block.
    fn require_alone_if_watched(&self, linear: Linear, len: u64, access: Access) -> Result<(), Fault> {
        if self.link.data_breakpoints && !self.link.alone && self.link.debugger.watches(linear, len, access) {
            return Err(Fault::alone());
        }
        Ok(())
    }

    fn read_piece(&mut self, place: &Place, into: &mut [u8]) {
        let PlaceKind::Mmio { region, offset } = place.kind() else {
            self.link.mmu.read_place(place, into);
            return;
        };
        for (at, width) in bus_chunks(offset, into.len()) {
            let value = self.ask_board(|bus, now| bus.mmio_read(now, region, offset + at as u64, width as u8));
            into[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
    }

    /// After a write: the block is left if its code or its mapping may not be what it was, and the next one is fetched anew.
    fn heed(&mut self, note: WriteNote) {
        self.link.leave |= note.code_written || note.dropped;
        if note.dropped {
            self.link.attention.set(bits::DRAIN);
        }
    }

    fn write_piece(&mut self, place: &Place, from: &[u8]) {
        let PlaceKind::Mmio { region, offset } = place.kind() else {
            let named = self.link.mmu.notes_writers() && place.is_watched() && self.name_store();
            let note = self.link.mmu.write_place(place, from);
            if named {
                self.link.mmu.set_storing(None);
            }
            self.heed(note);
            return;
        };
        for (at, width) in bus_chunks(offset, from.len()) {
            let mut bytes = [0; 8];
            bytes[..width].copy_from_slice(&from[at..at + width]);
            let value = u64::from_le_bytes(bytes);
            self.ask_board(|bus, now| bus.mmio_write(now, region, offset + at as u64, width as u8, value));
        }
    }

    /// A locked read-modify-write of 1, 2, 4, 8 or 16 bytes; gives the old value. Slow path of the executors.
    pub fn rmw_linear(
        &mut self,
        linear: Linear,
        len: usize,
        update: &mut dyn FnMut(u128) -> u128,
    ) -> Result<u128, Fault> {
        let view = self.view();
        let (first, second) = self.pieces(linear, len, Access::Write, view)?;
        let device = |place: &Place| matches!(place.kind(), PlaceKind::Mmio { .. });
        if !device(&first.0) && !second.as_ref().is_some_and(device) {
            self.require_alone_if_watched(linear, len as u64, Access::Write)?;
            let named = self.link.mmu.notes_writers() && self.name_store();
            let (old, note) = match &second {
                None => self.link.mmu.rmw_place(&first.0, len, update),
                Some(second) => self.link.mmu.rmw_places([&first.0, second], len, update),
            };
            if named {
                self.link.mmu.set_storing(None);
            }
            self.heed(note);
            self.note_data_breakpoints(linear, len as u64, Access::Write);
            return Ok(old);
        }
        // A device does not lock.
        let mut bytes = [0; 16];
        self.load_bytes(linear, &mut bytes[..len], view)?;
        let old = u128::from_le_bytes(bytes);
        self.store_bytes(linear, &update(old).to_le_bytes()[..len], view)?;
        Ok(old)
    }
}

/// Cuts an access of any length into naturally aligned chunks of 1, 2, 4 or 8 bytes; a power of two is one chunk.
fn bus_chunks(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= len {
            return None;
        }
        let left = len - at;
        let width = if matches!(left, 1 | 2 | 4 | 8) {
            left
        } else {
            let aligned = 1usize << (offset + at as u64).trailing_zeros().min(3);
            aligned.min(1 << left.ilog2().min(3))
        };
        let chunk = (at, width);
        at += width;
        Some(chunk)
    })
}
