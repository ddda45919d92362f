//! A split virtqueue (VIRTIO 1.2, 2.7): buffers of the driver's, taken and given back through rings in guest memory.
//!
//! Everything that the rings say is checked as it is read; what breaks their rules is [`Broken`], and ends the device's work
//! until its driver resets it. Leaves out: indirect descriptors, event indices and packed rings, which are not offered.

use serde::{Deserialize, Serialize};
use umbra_mmu::addr::GuestPhys;
use umbra_mmu::dma::Dma;

/// Descriptor flag: another one follows.
const NEXT: u16 = 1;
/// Descriptor flag: the device writes.
const WRITE: u16 = 2;
/// Flag of the available ring: no interrupt for used buffers, please.
const NO_INTERRUPT: u16 = 1;
/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;
/// Both rings begin with flags and index, 16 bits each.
const RING_HEADER: u64 = 4;

/// The driver broke a rule of the rings.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Broken;

/// A queue as its driver set it up, and how far both are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Queue {
    /// The most descriptors that it can have.
    most: u16,
    /// Descriptors: a power of two.
    pub(super) size: u16,
    pub(super) enabled: bool,
    /// The descriptor table, the available and the used ring.
    pub(super) places: [u64; 3],
    next_available: u16,
    next_used: u16,
    /// Buffers were given back since [`Self::take_news`].
    news: bool,
}

/// A buffer that the driver made available: a chain of descriptors.
#[derive(Debug)]
pub struct Chain {
    head: u16,
    /// Where, how long, and whether the device is to write it. Those to be read come first.
    parts: Vec<(GuestPhys, u32, bool)>,
}

impl Chain {
    /// All that is to be read; more than `most` bytes break the rules.
    pub fn read(&self, dma: &dyn Dma, most: usize) -> Result<Vec<u8>, Broken> {
        let mut bytes = Vec::new();
        for &(at, length, _) in self.parts.iter().filter(|(_, _, writable)| !*writable) {
            let before = bytes.len();
            if length as usize > most - before {
                return Err(Broken);
            }
            bytes.resize(before + length as usize, 0);
            dma.read(at, &mut bytes[before..]);
        }
        Ok(bytes)
    }
    /// The parts that are for the device to write: where, and how many bytes.
    pub fn writable(&self) -> impl Iterator<Item = (GuestPhys, u32)> {
        self.parts.iter().filter(|(_, _, writable)| *writable).map(|&(at, length, _)| (at, length))
    }
    /// Writes to the parts that are for it; gives how many bytes had room.
    pub fn write(&self, dma: &mut dyn Dma, mut bytes: &[u8]) -> u32 {
        let mut written = 0;
        for &(at, length, _) in self.parts.iter().filter(|(_, _, writable)| *writable) {
            let (now, later) = bytes.split_at(bytes.len().min(length as usize));
            if !now.is_empty() {
                dma.write(at, now);
            }
            written += now.len() as u32;
            bytes = later;
        }
        written
    }
}

impl Queue {
    /// A queue of at most `most` descriptors (a power of two), not set up.
    pub(super) fn new(most: u16) -> Queue {
        Queue { most, size: most, enabled: false, places: [0; 3], next_available: 0, next_used: 0, news: false }
    }
    /// Sets the number of descriptors, if it can have that many.
    pub(super) fn set_size(&mut self, size: u16) {
        if size.is_power_of_two() && size <= self.most {
            self.size = size;
        }
    }
    /// A queue of the same kind with what was saved, whatever that was.
    pub(super) fn restored(&self, saved: Queue) -> Queue {
        let size = if saved.size.is_power_of_two() && saved.size <= self.most { saved.size } else { self.most };
        Queue { most: self.most, size, ..saved }
    }
    /// How many buffers the driver has made available that were not taken.
    pub fn available(&self, dma: &dyn Dma) -> Result<u16, Broken> {
        if !self.enabled {
            return Ok(0);
        }
        let index = read_u16(dma, place(self.places[1], 2)?);
        let count = index.wrapping_sub(self.next_available);
        if count <= self.size { Ok(count) } else { Err(Broken) }
    }
    /// Takes the next buffer.
    pub fn take(&mut self, dma: &dyn Dma) -> Result<Option<Chain>, Broken> {
        if self.available(dma)? == 0 {
            return Ok(None);
        }
        let slot = u64::from(self.next_available & (self.size - 1));
        let head = read_u16(dma, place(self.places[1], RING_HEADER + 2 * slot)?);
        let mut chain = Chain { head, parts: Vec::new() };
        let mut next = head;
        loop {
            if next >= self.size || chain.parts.len() >= usize::from(self.size) {
                return Err(Broken);
            }
            let mut descriptor = [0; DESCRIPTOR as usize];
            dma.read(place(self.places[0], DESCRIPTOR * u64::from(next))?, &mut descriptor);
            let descriptor = u128::from_le_bytes(descriptor);
            let (at, length) = (descriptor as u64, (descriptor >> 64) as u32);
            let (flags, follower) = ((descriptor >> 96) as u16, (descriptor >> 112) as u16);
            let writable = flags & WRITE != 0;
            let after_writable = chain.parts.last().is_some_and(|last| last.2);
            if flags & !(NEXT | WRITE) != 0 || (after_writable && !writable) {
                return Err(Broken);
            }
            place(at, length.into())?;
            chain.parts.push((GuestPhys(at), length, writable));
            if flags & NEXT == 0 {
                break;
            }
            next = follower;
        }
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(chain))
    }
    /// Gives a buffer back, with so many bytes written to it.
    pub fn give_back(&mut self, dma: &mut dyn Dma, chain: &Chain, written: u32) -> Result<(), Broken> {
        let slot = u64::from(self.next_used & (self.size - 1));
        let element = u64::from(written) << 32 | u64::from(chain.head);
        dma.write(place(self.places[2], RING_HEADER + 8 * slot)?, &element.to_le_bytes());
        self.next_used = self.next_used.wrapping_add(1);
        dma.write(place(self.places[2], 2)?, &self.next_used.to_le_bytes());
        self.news = true;
        Ok(())
    }
    /// Whether buffers were given back since the last call, and the driver is to be told.
    pub(super) fn take_news(&mut self, dma: &dyn Dma) -> bool {
        let asked = |ring| place(ring, 0).is_ok_and(|flags| read_u16(dma, flags) & NO_INTERRUPT == 0);
        std::mem::take(&mut self.news) && asked(self.places[1])
    }
}

/// An address in a ring or buffer: one that does not wrap.
fn place(base: u64, offset: u64) -> Result<GuestPhys, Broken> {
    base.checked_add(offset).map(GuestPhys).ok_or(Broken)
}

fn read_u16(dma: &dyn Dma, at: GuestPhys) -> u16 {
    let mut bytes = [0; 2];
    dma.read(at, &mut bytes);
    u16::from_le_bytes(bytes)
}
