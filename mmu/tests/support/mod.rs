//! A second, independent model of guest memory: flat bytes and a page walk written straight from the manual
//! (SDM vol. 3, chapter 5), with nothing cached. The oracle of the property tests.
#![allow(dead_code, reason = "each test binary uses its part")]

use umbra_mmu::{Access, View};

/// A small deterministic generator (xorshift64*).
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Paging {
    Off,
    TwoLevel,
    Pae,
    Long,
}

/// Register bits that steer paging.
#[derive(Copy, Clone, Debug)]
pub struct Control {
    pub paging: Paging,
    pub wp: bool,
    pub pse: bool,
    pub nxe: bool,
    pub smep: bool,
    pub smap: bool,
    pub cr3: u64,
    pub pdptes: [u64; 4],
    pub a20: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Back {
    Ram,
    Rom,
    Device(u16, u64),
    Open,
}

pub const MAXPHYADDR: u32 = 36;

/// The reference machine.
#[derive(Clone)]
pub struct Reference {
    pub ram: Vec<u8>,
    pub map: Vec<Back>,
    /// Entries whose A or D bit the last translation set: address, width.
    pub marks: Vec<(u64, u64)>,
    /// Entries that the last translation read: address, width.
    pub trail: Vec<(u64, u64)>,
    /// Whether the last translation set a D bit.
    pub dirtied: bool,
}

const P: u64 = 1;
const RW: u64 = 2;
const US: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;

impl Reference {
    pub fn back(&self, page: u64) -> Back {
        self.map.get(page as usize).copied().unwrap_or(Back::Open)
    }
    pub fn byte(&self, at: u64) -> u8 {
        match self.back(at >> 12) {
            Back::Ram | Back::Rom => self.ram[at as usize],
            _ => 0xff,
        }
    }
    pub fn read(&self, at: u64, bytes: u64) -> u128 {
        (0..bytes).fold(0, |v, i| v | u128::from(self.byte(at + i)) << (8 * i))
    }
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            let at = at + i as u64;
            if self.back(at >> 12) == Back::Ram {
                self.ram[at as usize] = *byte;
            }
        }
    }
    /// Ok(guest-physical address), with A and D bits set; or the error code.
    pub fn translate(&mut self, c: &Control, linear: u64, access: Access, view: View) -> Result<u64, u32> {
        self.marks.clear();
        self.trail.clear();
        self.dirtied = false;
        let gate = |at: u64| if c.a20 { at } else { at & !(1 << 20) };
        if c.paging == Paging::Off {
            return Ok(gate(linear));
        }
        let write = access == Access::Write;
        let fetch = access == Access::Fetch;
        let user = view == View::User;
        let mut code = u32::from(write) << 1 | u32::from(user) << 2;
        if fetch && (c.smep || c.nxe && c.paging != Paging::TwoLevel) {
            code |= 16;
        }
        let (mut rw, mut us, mut nx) = (true, true, false);
        let (mut path, mut length) = ([(0, 0, 0); 4], 0);
        let width = if c.paging == Paging::TwoLevel { 4 } else { 8 };
        let index_bits = if c.paging == Paging::TwoLevel { 10 } else { 9 };
        let mut level = match c.paging {
            Paging::TwoLevel => 2,
            Paging::Pae => 3,
            _ => 4,
        };
        let mut table = match c.paging {
            Paging::TwoLevel => c.cr3 & 0xffff_f000,
            Paging::Pae => 0,
            _ => c.cr3 & 0x000f_ffff_ffff_f000,
        };
        loop {
            let shift = 12 + index_bits * (level - 1);
            let index = linear >> shift & ((1 << index_bits) - 1);
            if c.paging == Paging::Pae && level == 3 {
                let entry = c.pdptes[(linear >> 30 & 3) as usize];
                if entry & P == 0 {
                    return Err(code);
                }
                table = entry & 0x000f_ffff_ffff_f000;
                level = 2;
                continue;
            }
            let at = gate(table) + index * width;
            let entry = self.read(at, width) as u64;
            self.trail.push((at, width));
            if entry & P == 0 {
                return Err(code);
            }
            let large = entry & PS != 0
                && match (c.paging, level) {
                    (Paging::TwoLevel, 2) => c.pse,
                    (Paging::Pae, 2) | (Paging::Long, 2 | 3) => true,
                    _ => false,
                };
            let mut reserved = 0u64;
            if c.paging == Paging::TwoLevel {
                if large {
                    // MAXPHYADDR 36: bits 16:13 are address bits 35:32; 21:17 are reserved.
                    reserved = 0x3e_0000;
                }
            } else {
                reserved |= if c.paging == Paging::Pae { 0x7fff_fff0_0000_0000 } else { 0x000f_fff0_0000_0000 };
                if !c.nxe {
                    reserved |= 1 << 63;
                }
                if level == 4 {
                    reserved |= PS;
                }
                if large {
                    reserved |= if level == 2 { 0x1f_e000 } else { 0x3fff_e000 };
                }
            }
            if entry & reserved != 0 {
                return Err(code | 9);
            }
            path[length] = (at, entry, width);
            length += 1;
            rw &= entry & RW != 0;
            us &= entry & US != 0;
            nx |= width == 8 && entry >> 63 != 0;
            if level > 1 && !large {
                table = if width == 4 { entry & 0xffff_f000 } else { entry & 0x000f_ffff_ffff_f000 };
                level -= 1;
                continue;
            }
            let denied = if user {
                !us || write && !rw || fetch && nx
            } else if fetch {
                nx || us && c.smep
            } else {
                us && c.smap && view != View::SupervisorAc || write && !rw && c.wp
            };
            if denied {
                return Err(code | 1);
            }
            let span = 1u64 << shift;
            let mut base = if width == 4 { entry & 0xffff_f000 } else { entry & 0x000f_ffff_ffff_f000 } & !(span - 1);
            if large && width == 4 {
                base |= (entry >> 13 & 0xff) << 32;
            }
            for (i, (at, entry, width)) in path.into_iter().take(length).enumerate() {
                let leaf = i + 1 == length;
                let marked = entry | A | if leaf && write { D } else { 0 };
                self.dirtied |= leaf && write && entry & D == 0;
                // Recursive tables: an entry may be on the path twice; what was marked stays marked.
                let marked = marked | self.read(at, width) as u64 & D;
                if marked != self.read(at, width) as u64 {
                    self.marks.push((at, width));
                }
                self.write(at, &marked.to_le_bytes()[..width as usize]);
            }
            return Ok(gate(base | linear & (span - 1)));
        }
    }
}
